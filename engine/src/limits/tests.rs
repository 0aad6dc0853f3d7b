//! What limits count and refuse, by cases and against a list of all that was ever taken.

use proptest::prelude::*;

use super::open::OpenCap;
use super::*;
use crate::identity::{AccountId, MerchantId, PrincipalId, TerminalId};

const HERE: TenantId = TenantId(0);
const DAY_MS: u64 = 24 * 3_600_000;

fn lsn(at: u64) -> Lsn {
    Lsn::from_bytes(8 * at).unwrap()
}

fn spec(scope: LimitScope, window: LimitWindow, max: u64) -> LimitSpec {
    let name = format!("{scope:?} {window:?}");
    LimitSpec { name, scope, product: None, window, max, action: LimitAction::Refuse, ended: false }
}

fn buyer(account: u32, ip: u64) -> Buyer {
    Buyer { tenant: HERE, account: AccountId(account), ip, principal: PrincipalId(7) }
}

fn check(limits: &Limits, buyer: Buyer, units: u64, now_ms: u64) -> Result<(), Exceeded> {
    limits.check(&buyer, &[(ProductId(1), units)], true, now_ms, &mut Vec::new())
}

#[test]
fn a_refusal_says_which_limit_what_is_left_and_when_it_opens() {
    let mut limits = Limits::default();
    limits.put(
        LimitId(1),
        HERE,
        spec(LimitScope::Account(None), LimitWindow::Rolling { seconds: 60 }, 10),
        lsn(1),
    );
    limits.put(LimitId(2), HERE, spec(LimitScope::Ip, LimitWindow::Life, 12), lsn(2));
    limits.put(LimitId(3), HERE, spec(LimitScope::Order, LimitWindow::Life, 11), lsn(3));
    let line = [(ProductId(1), 8)];
    assert_eq!(check(&limits, buyer(1, 5), 8, 1000), Ok(()));
    limits.take(&buyer(1, 5), &line, 1000, lsn(4));
    let exceeded =
        |limit, status, left, opens_ms| Err(Exceeded { limit: LimitId(limit), status, left, opens_ms });
    use crate::status::Status;
    assert_eq!(check(&limits, buyer(1, 6), 3, 2000), exceeded(1, Status::LimitAccount, 2, 59_000));
    assert_eq!(check(&limits, buyer(2, 5), 5, 2000), exceeded(2, Status::LimitIp, 4, u64::MAX));
    // Of two, the one that opens last.
    assert_eq!(check(&limits, buyer(1, 5), 5, 2000), exceeded(2, Status::LimitIp, 4, u64::MAX));
    assert_eq!(check(&limits, buyer(0, 0), 12, 2000), exceeded(3, Status::LimitOrder, 11, u64::MAX));
    assert_eq!(check(&limits, buyer(0, 0), 11, 2000), Ok(()));
    assert_eq!(check(&limits, buyer(1, 6), 11, 2000), exceeded(1, Status::LimitAccount, 2, u64::MAX));
    assert_eq!(check(&limits, buyer(1, 6), 3, 61_000), Ok(()), "it opened");
}

/// Where nobody set a limit, what is open has a bound all the same; one that is set takes its place.
#[test]
fn nobody_hoards_where_no_limit_is_set() {
    let mut limits = Limits::default();
    let left = |limits: &Limits, buyer, units| {
        check(limits, buyer, units, 0).err().map(|it| (it.limit, it.status, it.left))
    };
    let refused = |left| Some((LimitId(0), crate::Status::LimitReservations, left));
    limits.open(&buyer(1, 0), OpenCap::ACCOUNT.cards - 4);
    assert_eq!(left(&limits, buyer(1, 0), 4), None);
    assert_eq!(left(&limits, buyer(1, 0), 5), refused(4));
    assert_eq!(left(&limits, buyer(2, 0), 5), None, "another account's");
    limits.open(&buyer(0, 9), OpenCap::IP.cards);
    assert_eq!(left(&limits, buyer(2, 9), 1), refused(0));
    limits.close(&buyer(0, 9), OpenCap::IP.cards);
    assert_eq!(left(&limits, buyer(2, 9), 1), None);
    (1..OpenCap::ACCOUNT.orders).for_each(|_| limits.open(&buyer(3, 0), 1));
    assert_eq!(left(&limits, buyer(3, 0), 1), None);
    limits.open(&buyer(3, 0), 1);
    assert_eq!(left(&limits, buyer(3, 0), 1), refused(0));
    limits.put(LimitId(1), HERE, spec(LimitScope::Account(None), LimitWindow::OpenOrders, 5_000), lsn(1));
    assert_eq!(left(&limits, buyer(3, 0), 1), None, "an own limit, larger than the default");
    assert_eq!(left(&limits, buyer(1, 0), 5), refused(4), "which says nothing of cards");
    limits.open(&buyer(4, 0), OpenCap::BUYER.cards);
    assert_eq!(left(&limits, buyer(0, 0), 1), refused(0), "whoever sends the orders");
    limits.put(LimitId(2), HERE, spec(LimitScope::Principal, LimitWindow::OpenCards, u64::MAX), lsn(2));
    assert_eq!(left(&limits, buyer(0, 0), 1), None);
    assert!(!limits.any_terminal(), "it counts no redemptions");
}

#[test]
fn what_is_open_is_counted_while_it_is() {
    let mut limits = Limits::default();
    limits.put(LimitId(1), HERE, spec(LimitScope::Account(None), LimitWindow::OpenCards, 10), lsn(1));
    limits.put(LimitId(2), HERE, spec(LimitScope::Ip, LimitWindow::OpenOrders, 2), lsn(2));
    limits.open(&buyer(1, 5), 6);
    assert_eq!(check(&limits, buyer(1, 9), 5, 0).unwrap_err().status, crate::Status::LimitReservations);
    assert_eq!(check(&limits, buyer(1, 9), 4, 0), Ok(()));
    limits.open(&buyer(2, 5), 1);
    assert_eq!(check(&limits, buyer(3, 5), 1, 0).unwrap_err().limit, LimitId(2));
    let paid = limits.check(&buyer(1, 5), &[(ProductId(1), 99)], false, 0, &mut Vec::new());
    assert_eq!(paid, Ok(()), "what is paid at once opens nothing");
    limits.close(&buyer(2, 5), 1);
    limits.close(&buyer(1, 5), 6);
    assert_eq!(check(&limits, buyer(1, 5), 10, 0), Ok(()));
    assert!(limits.open.is_empty());
}

#[test]
fn an_alert_is_recorded_once_a_window() {
    let mut limits = Limits::default();
    let window = LimitWindow::Rolling { seconds: 10 };
    let alert = LimitSpec { action: LimitAction::Alert, ..spec(LimitScope::Terminal, window, 2) };
    assert!(!limits.any_terminal());
    limits.put(LimitId(1), HERE, alert.clone(), lsn(1));
    assert!(limits.any_terminal());
    let till = |terminal| Till {
        tenant: HERE,
        merchant: MerchantId(1),
        terminal: TerminalId(terminal),
        principal: PrincipalId(3),
    };
    let mut place = 10;
    let mut redeem = |limits: &mut Limits, terminal, now_ms| {
        let mut crossed = Vec::new();
        limits.check_till(&till(terminal), ProductId(1), &[], now_ms, &mut crossed).unwrap();
        limits.take_till(&till(terminal), ProductId(1), now_ms, lsn(place));
        for crossed in &crossed {
            limits.mark_crossed(HERE, crossed, now_ms, lsn(place + 1));
        }
        place += 2;
        crossed.iter().map(|crossed| crossed.units).collect::<Vec<_>>()
    };
    assert_eq!(redeem(&mut limits, 7, 0), [0_u64; 0]);
    assert_eq!(redeem(&mut limits, 7, 0), [0_u64; 0]);
    assert_eq!(redeem(&mut limits, 7, 100), [3]);
    assert_eq!(redeem(&mut limits, 7, 200), [0_u64; 0]);
    assert_eq!(redeem(&mut limits, 8, 200), [0_u64; 0], "another till");
    assert_eq!(redeem(&mut limits, 7, 10_050), [0_u64; 0], "still within ten seconds of the last");
    assert_eq!(redeem(&mut limits, 7, 10_100), [3]);
    limits.put(LimitId(1), HERE, LimitSpec { ended: true, ..alert }, lsn(99));
    assert!(!limits.any_terminal());
    assert_eq!(redeem(&mut limits, 7, 90_000), [0_u64; 0]);
}

#[test]
fn redemptions_of_one_record_count_before_they_are_installed() {
    let mut limits = Limits::default();
    let product = Some(ProductId(1));
    let window = LimitWindow::Rolling { seconds: 10 };
    limits.put(LimitId(1), HERE, LimitSpec { product, ..spec(LimitScope::Principal, window, 2) }, lsn(1));
    let till =
        Till { tenant: HERE, merchant: MerchantId(0), terminal: TerminalId(0), principal: PrincipalId(3) };
    let other = Till { principal: PrincipalId(4), ..till };
    let pending = [(till, ProductId(1)), (other, ProductId(1)), (till, ProductId(2))];
    let ask = |pending: &[_]| limits.check_till(&till, ProductId(1), pending, 0, &mut Vec::new());
    assert_eq!(ask(&pending), Ok(()));
    let refused = ask(&[pending[0], pending[0]]).unwrap_err();
    assert_eq!((refused.left, refused.opens_ms), (0, 10_000));
}

#[test]
fn subjects_with_nothing_are_forgotten() {
    let mut limits = Limits::default();
    limits.put(LimitId(1), HERE, spec(LimitScope::Ip, LimitWindow::Rolling { seconds: 60 }, 10), lsn(1));
    for ip in 1..=1000 {
        limits.take(&buyer(0, ip), &[(ProductId(1), 1)], ip, lsn(ip + 1));
    }
    assert_eq!(limits.subjects(), 1000);
    limits.take(&buyer(0, 7), &[(ProductId(1), 1)], LOOK_AGAIN_MS, lsn(2000));
    // Time is that of the last that counted.
    limits.take(&buyer(0, 7), &[(ProductId(1), 1)], LOOK_AGAIN_MS + 2000, lsn(2001));
    limits.forget(5000);
    assert_eq!(limits.subjects(), 1, "but those that took something in the last minute");
}

#[derive(Clone, Debug)]
enum Step {
    Set(LimitSpec),
    Buy { buyer: Buyer, lines: Vec<(ProductId, u64)> },
    GiveBack(usize),
    Pass(u64),
}

/// What was taken, in words that anybody can check.
#[derive(Clone, Debug)]
struct Taken {
    buyer: Buyer,
    lines: Vec<(ProductId, u64)>,
    at_ms: u64,
    lsn: Lsn,
}

#[derive(Clone, Debug)]
enum Logged {
    Put(LimitId, LimitSpec),
    Take(Taken, Vec<Crossed>),
    GiveBack(Taken),
}

fn limit_spec() -> impl Strategy<Value = LimitSpec> {
    let scope = prop_oneof![
        Just(LimitScope::Account(None)),
        Just(LimitScope::Account(Some(AccountId(1)))),
        Just(LimitScope::Ip),
        Just(LimitScope::Order),
    ];
    let window = prop_oneof![
        Just(LimitWindow::Day { offset_min: 480 }),
        (1..20_u32).prop_map(|seconds| LimitWindow::Rolling { seconds }),
        Just(LimitWindow::Life),
    ];
    let product = prop_oneof![2 => Just(None), 1 => (1..=2_u32).prop_map(|id| Some(ProductId(id)))];
    (scope, window, product, 0..30_u64, any::<bool>(), 0..4_u8, 0..4_u8).prop_map(
        |(scope, window, product, max, alerts, name, ended)| {
            let alerts = alerts && scope != LimitScope::Order;
            let window = if scope == LimitScope::Order { LimitWindow::Life } else { window };
            let action = if alerts { LimitAction::Alert } else { LimitAction::Refuse };
            LimitSpec { name: format!("l{name}"), scope, product, window, max, action, ended: ended == 0 }
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let line = (1..=3_u32, 1..8_u64).prop_map(|(product, units)| (ProductId(product), units));
    prop_oneof![
        2 => limit_spec().prop_map(Step::Set),
        8 => (0..=2_u32, 0..=2_u64, prop::collection::vec(line, 1..3))
            .prop_map(|(account, ip, lines)| Step::Buy { buyer: buyer(account, ip), lines }),
        2 => (0..6_usize).prop_map(Step::GiveBack),
        3 => prop_oneof![0..3000_u64, Just(DAY_MS / 2), Just(3 * DAY_MS)].prop_map(Step::Pass),
    ]
}

/// What `buyer` has in the window of a limit, by the list of everything.
fn used(taken: &[Taken], state: &LimitState, of: &Buyer, now_ms: u64) -> u64 {
    let spec = &state.limit.spec;
    let day = |at_ms: u64| (at_ms + 480 * 60_000) / DAY_MS;
    let counts = |taken: &&Taken| {
        let same = match spec.scope {
            LimitScope::Account(_) => taken.buyer.account == of.account,
            LimitScope::Ip => taken.buyer.ip == of.ip,
            _ => false,
        };
        let inside = match spec.window {
            LimitWindow::Day { .. } => day(taken.at_ms) == day(now_ms),
            LimitWindow::Rolling { seconds } => taken.at_ms + u64::from(seconds) * 1000 > now_ms,
            _ => true,
        };
        same && inside && state.since < taken.lsn
    };
    taken.iter().filter(counts).map(|taken| units_of(&taken.lines, spec.product)).sum()
}

/// Whether the oracle lets an order through a limit.
fn fits(taken: &[Taken], state: &LimitState, of: &Buyer, lines: &[(ProductId, u64)], now_ms: u64) -> bool {
    let spec = &state.limit.spec;
    let concerns = match spec.scope {
        LimitScope::Account(one) => of.account != AccountId(0) && one.is_none_or(|one| one == of.account),
        LimitScope::Ip => of.ip != 0,
        _ => true,
    };
    let wanted = units_of(lines, spec.product);
    !concerns || wanted == 0 || used(taken, state, of, now_ms) + wanted <= spec.max
}

fn hash(limits: &Limits) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    limits.hash(&mut hasher);
    hasher.finalize()
}

fn replay(limits: &mut Limits, log: &[(Lsn, u64, Logged)], from: Lsn) {
    for (place, now_ms, logged) in log.iter().filter(|(place, ..)| *place >= from) {
        match logged {
            Logged::Put(id, spec) => {
                if limits.at(*id).is_none_or(|state| state.lsn < *place) {
                    limits.put(*id, HERE, spec.clone(), *place);
                }
            }
            Logged::Take(taken, crossed) => {
                limits.take(&taken.buyer, &taken.lines, *now_ms, *place);
                for (at, crossed) in (1..).zip(crossed) {
                    limits.mark_crossed(HERE, crossed, *now_ms, place.plus(8 * at));
                }
            }
            Logged::GiveBack(taken) => {
                limits.give_back(&taken.buyer, &taken.lines, (taken.lsn, taken.at_ms), *now_ms, *place);
            }
        }
    }
}

fn rows_of(limits: &Limits, subject: Subject) -> Vec<UsageRow> {
    let all = (0..crate::sharded::SHARDS).flat_map(|shard| limits.usage_rows(shard));
    all.filter(|row| (row.kind, row.number) == subject.numbers()).collect()
}

proptest! {
    /// Against the list of everything that was ever taken: decisions to the unit, opening times to the
    /// millisecond; and replay from a snapshot that was copied piece by piece meanwhile gives the same state.
    #[test]
    fn limits_count_to_the_unit(
        steps in prop::collection::vec(step(), 1..80),
        begins in 0..80_usize,
        copies in prop::collection::vec(0..80_usize, 6),
    ) {
        let mut limits = Limits::default();
        let mut taken: Vec<Taken> = Vec::new();
        let mut log = Vec::new();
        let mut now_ms = 1_700_000_000_000;
        let (mut usage_rows, mut limit_rows, mut begun) = (Vec::new(), Vec::new(), None);
        let subjects = [
            Subject::Account(AccountId(1)),
            Subject::Account(AccountId(2)),
            Subject::Ip(1),
            Subject::Ip(2),
        ];
        let mut copied = [false; 4];
        for (at, step) in steps.into_iter().enumerate() {
            let place = lsn(100 + 100 * at as u64);
            if at == begins {
                begun = Some(place);
            }
            if begun.is_some() {
                for (piece, when) in copies.iter().enumerate() {
                    match subjects.get(piece) {
                        _ if at != begins + when % 9 => {}
                        Some(subject) => {
                            copied[piece] = true;
                            usage_rows.extend(rows_of(&limits, *subject));
                        }
                        None => limit_rows.extend(limits.rows(limit_rows.len(), 2)),
                    }
                }
            }
            match step {
                Step::Set(spec) => {
                    let known = limits.named(HERE, &spec.name).map(|state| state.limit.clone());
                    let (id, spec) = match known {
                        // Only what may change changes.
                        Some(known) if !known.spec.ended => (known.id, LimitSpec { max: spec.max, ended: spec.ended, ..known.spec }),
                        _ => (limits.next(), LimitSpec { ended: false, ..spec }),
                    };
                    limits.put(id, HERE, spec.clone(), place);
                    log.push((place, now_ms, Logged::Put(id, spec)));
                }
                Step::Buy { buyer, lines } => {
                    let mut crossed = Vec::new();
                    let refused = limits.check(&buyer, &lines, false, now_ms, &mut crossed).err();
                    let refuses = |state: &&LimitState| {
                        let spec = &state.limit.spec;
                        !spec.ended && spec.action == LimitAction::Refuse
                    };
                    let over = |now_ms: u64| -> Vec<LimitId> {
                        let over = |state: &&LimitState| !fits(&taken, state, &buyer, &lines, now_ms);
                        limits.all().iter().filter(refuses).filter(over).map(|state| state.limit.id).collect()
                    };
                    prop_assert_eq!(refused.is_some(), !over(now_ms).is_empty(), "{:?}", refused);
                    let Some(exceeded) = refused else {
                        limits.take(&buyer, &lines, now_ms, place);
                        for (at, crossed) in (1..).zip(&crossed) {
                            limits.mark_crossed(HERE, crossed, now_ms, place.plus(8 * at));
                        }
                        let new = Taken { buyer, lines, at_ms: now_ms, lsn: place };
                        taken.push(new.clone());
                        log.push((place, now_ms, Logged::Take(new, crossed)));
                        continue;
                    };
                    prop_assert!(over(now_ms).contains(&exceeded.limit));
                    let state = limits.at(exceeded.limit).unwrap();
                    let there = match state.limit.spec.scope {
                        LimitScope::Order => 0,
                        _ => used(&taken, state, &buyer, now_ms),
                    };
                    prop_assert_eq!(exceeded.left, state.limit.spec.max.saturating_sub(there));
                    if exceeded.opens_ms != u64::MAX {
                        prop_assert!(over(now_ms + exceeded.opens_ms).is_empty());
                        prop_assert!(!over(now_ms + exceeded.opens_ms - 1).is_empty());
                    } else {
                        prop_assert!(!over(now_ms + 400 * DAY_MS).is_empty());
                    }
                }
                Step::GiveBack(back) if back < taken.len() => {
                    let gone = taken.remove(taken.len() - 1 - back);
                    limits.give_back(&gone.buyer, &gone.lines, (gone.lsn, gone.at_ms), now_ms, place);
                    log.push((place, now_ms, Logged::GiveBack(gone)));
                }
                Step::Pass(ms) => {
                    now_ms += ms;
                }
                Step::GiveBack(_) => {}
            }
        }
        let mut again = Limits::default();
        replay(&mut again, &log, lsn(1));
        prop_assert_eq!(hash(&again), hash(&limits), "from the first entry");
        // The rest of the snapshot.
        for (subject, _) in subjects.iter().zip(copied).filter(|(_, copied)| !copied) {
            usage_rows.extend(rows_of(&limits, *subject));
        }
        limit_rows.extend(limits.rows(limit_rows.len(), usize::MAX));
        if let Some(begun) = begun {
            let mut again = Limits::default();
            prop_assert!(again.restore(&limit_rows, &usage_rows, limits.counted_ms()));
            replay(&mut again, &log, begun);
            prop_assert_eq!(hash(&again), hash(&limits), "from a snapshot");
        }
    }
}
