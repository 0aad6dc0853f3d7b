//! Ends of the process and of the machine, and what must be there afterwards.
//!
//! The log on the disk is read by the log's own verifier before the engine sees it. Its entries must be
//! a prefix of the world's log, entry by entry, and hold everything whose reply was allowed to leave.
//! The oracle is rolled to that prefix; then the engine is asked about everything, card by card.

use kami_engine::record::{Entry, Group};
use kami_engine::{Engine, Kind, Lsn, OpenError, OrderState};
use kami_wal::{RecordKind, Verdict, WalOptions};

use super::oracle::{Effect, Event, Oracle, Order, Uses};
use super::world::World;
use crate::ask::Ask;

const YEAR_MS: u64 = 365 * 24 * 3600 * 1000;

/// How the engine came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The power was cut: what was not durable is there, torn or gone.
    PowerCut,
    /// The process was killed: the machine kept what was written.
    Kill,
    /// Everything was waited for.
    Close,
}

/// What of an entry on the disk is compared.
struct Survivor {
    lsn: u64,
    time_ms: u64,
    kind: Kind,
    head: kami_engine::record::Head,
}

impl World {
    /// Ends the engine, opens it again (with luck the power is cut again meanwhile) and checks everything.
    pub fn restart(&mut self, end: End) {
        let end = if self.medium.is_cut() { End::PowerCut } else { end };
        self.note(|| format!("---- {end:?} after {} effects, {} promised", self.log.len(), self.promised));
        self.end(end);
        let mut kept = None;
        let mut lost = Vec::new();
        loop {
            lost.extend(self.roll_back(&mut kept, end));
            let audited = if self.random.percent(20) { Some(self.verify_offline()) } else { None };
            if self.random.percent(40) {
                self.medium.cut_power_at(1 + self.random.below(60));
            } else if self.random.percent(10) && self.refuses_a_clock_of_last_year() {
                continue;
            }
            match Engine::open(self.options(false)) {
                Ok(engine) => {
                    if let Some(hash) = audited {
                        assert_eq!(engine.state_hash(), hash, "the log leads to another state than recovery");
                    }
                    self.opened(engine);
                    break;
                }
                Err(error) => {
                    assert!(self.medium.is_cut(), "the store does not open: {error:?}");
                    self.note(|| format!("---- cut during recovery: {error:?}"));
                    *self.met.entry("power cut during recovery".to_owned()).or_default() += 1;
                    self.medium = self.medium.crash(self.random.next());
                }
            }
        }
        let met = format!(
            "restart after {end:?}, {}",
            if lost.is_empty() { "nothing lost" } else { "effects lost" }
        );
        *self.met.entry(met).or_default() += 1;
        self.note(|| format!("---- open again: {} effects, time {}", self.log.len(), self.oracle.now_ms));
        self.audit();
        self.check_published();
        self.follow();
        self.look_back();
        self.try_again(lost);
    }

    /// Restarts until no power cut is under way, and none is due.
    pub fn restart_for_good(&mut self, end: End) {
        self.restart(end);
        while self.medium.is_cut() {
            self.restart(End::PowerCut);
        }
        self.medium.cut_power_at(u64::MAX);
    }

    /// Ends the engine and gives the machine some time.
    fn end(&mut self, end: End) {
        let engine = self.engine.take().expect("the engine is open");
        self.medium = match end {
            End::PowerCut => {
                drop(engine);
                self.medium.crash(self.random.next())
            }
            End::Kill => {
                drop(engine);
                self.medium.kill()
            }
            End::Close => {
                if engine.close().is_ok() {
                    self.promised = self.log.len();
                    self.promised_ms = self.oracle.now_ms;
                    self.medium.kill()
                } else {
                    assert!(self.medium.is_cut(), "only a power cut ends the log");
                    self.medium.crash(self.random.next())
                }
            }
        };
        if end == End::PowerCut || self.random.percent(20) {
            let off_ms = *self.random.pick(&[0, 1, 50, 5_000, 90_000, 3_600_000, 40 * 3_600_000]);
            self.clock.reboot(off_ms);
            // Somebody sets the wall clock back a little: engine time must not follow.
            if self.random.percent(20) {
                let wall_ms = kami_engine::Clock::read(&self.clock).wall_ms;
                // Ten minutes behind what was logged is not believed any more.
                let lowest_ms = self.oracle.now_ms - 9 * 60_000;
                self.clock.set_wall_ms((wall_ms - self.random.below(300_000)).max(lowest_ms));
            }
        }
    }

    /// For a world that was never opened: rolls the oracle to what is on its disk. Returns how many effects of the
    /// world's log are not there.
    pub fn take_what_survived(&mut self) -> usize {
        let before = self.log.len();
        self.roll_back(&mut None, End::Kill);
        before - self.log.len()
    }

    /// Reads what survived, holds it against the log of the world, and rolls the oracle to it. Returns the
    /// requests whose effects are gone. `kept` is how many effects an earlier look at this disk found.
    fn roll_back(&mut self, kept: &mut Option<usize>, end: End) -> Vec<Ask> {
        let (survivors, last_ms) = self.survivors();
        assert!(
            self.promised <= survivors.len(),
            "{} effects were promised, {} are there",
            self.promised,
            survivors.len()
        );
        let more = survivors.get(self.log.len()).map(|survivor| survivor.head);
        assert!(more.is_none(), "more effects than were executed: {more:?}");
        assert!(
            self.promised_ms <= last_ms,
            "a reply told of {}, the log ends at {last_ms}",
            self.promised_ms
        );
        if end == End::PowerCut {
            // Recovery never finds more than it has found before. It may find less, but only of what nobody
            // was told: a block that holds more than was acknowledged can be torn while it is put in order.
            let now = survivors.len();
            assert!(kept.is_none_or(|kept| now <= kept), "recovery found more: {kept:?}, then {now}");
            *kept = Some(survivors.len());
        }
        let mut last_lsn = 0;
        for (index, (survivor, event)) in survivors.iter().zip(&mut self.log).enumerate() {
            assert!(last_lsn < survivor.lsn, "positions rise");
            last_lsn = survivor.lsn;
            compare(index, survivor, event);
            event.lsn = Some(survivor.lsn);
        }
        let lost = self.log.split_off(survivors.len());
        let mut oracle: Oracle = self.base.clone();
        self.log[self.base_len..].iter().for_each(|event| oracle.apply(event));
        oracle.now_ms = last_ms;
        oracle.check();
        self.oracle = oracle;
        self.last_lsn = last_lsn;
        self.hold_subscribers();
        let own = [
            Kind::Import,
            Kind::ReserveTimeout,
            Kind::HoldTimeout,
            Kind::LimitCrossed,
            Kind::Replacement,
            Kind::Receive,
        ];
        let asked = lost.into_iter().filter(|event| !own.contains(&event.kind));
        // What was done with an approval is done by it, again.
        let asked = asked.filter(|event| event.ask.approver.is_none());
        asked.map(|event| event.ask).collect()
    }

    /// The entries on the disk but for starts, and the time of the last group.
    fn survivors(&self) -> (Vec<Survivor>, u64) {
        let mut survivors = Vec::new();
        let mut last_ms = 0;
        let options = WalOptions::default();
        let report = kami_wal::verify(&self.medium, &options, &mut |record| {
            if record.kind != RecordKind::Data {
                return;
            }
            let group = Group::parse(record.payload, record.payload_lsn).expect("a group of entries");
            assert!(last_ms <= group.time_ms, "engine time went back");
            last_ms = group.time_ms;
            for entry in group {
                let Entry { lsn, time_ms, head, .. } = entry.expect("an entry");
                let unasked = matches!(
                    head.kind,
                    Kind::Start | Kind::Restore | Kind::KeyRotate | Kind::SignedCheckpoint | Kind::Miss
                );
                if !unasked {
                    survivors.push(Survivor { lsn: lsn.bytes(), time_ms, kind: head.kind, head });
                }
            }
        })
        .expect("the log can be read");
        assert!(!matches!(report.verdict, Verdict::Damaged(_)), "{:?}", report.verdict);
        (survivors, last_ms)
    }

    /// The whole store as `kami verify` sees it. Returns the hash of the state it leads to.
    pub fn verify_offline(&mut self) -> [u8; 32] {
        let medium = std::sync::Arc::new(self.medium.clone());
        let found = kami_engine::verify(medium.clone(), medium).expect("the store can be read");
        assert!(found.problems.is_empty(), "{:?}", found.problems);
        assert_eq!(found.signed_beyond, None, "signed, and not in the log");
        if 0 < found.signed {
            *self.met.entry("verified with a signed checkpoint".to_owned()).or_default() += 1;
        }
        if 0 < found.snapshots {
            *self.met.entry("verified with a snapshot".to_owned()).or_default() += 1;
        }
        assert_eq!(found.cards, self.oracle.places().count() as u64);
        assert_eq!(found.orders, self.oracle.orders.len() as u64);
        found.state_hash
    }

    /// A wall clock that stepped back a year is not believed.
    fn refuses_a_clock_of_last_year(&mut self) -> bool {
        let wall_ms = kami_engine::Clock::read(&self.clock).wall_ms;
        self.clock.set_wall_ms(wall_ms - YEAR_MS);
        let refused = Engine::open(self.options(false));
        assert!(matches!(refused, Err(OpenError::ClockStep(_))), "a clock of last year was believed");
        drop(refused);
        self.medium = self.medium.kill();
        self.clock.set_wall_ms(wall_ms);
        *self.met.entry("a clock of last year refused".to_owned()).or_default() += 1;
        true
    }

    /// Whoever heard nothing asks again with the same id; whoever heard something may, too.
    fn try_again(&mut self, lost: Vec<Ask>) {
        let mut asks = lost;
        for _ in 0..self.random.below(20) {
            if !self.asked.is_empty() {
                asks.push(self.random.pick(&self.asked).clone());
            }
        }
        for some in asks.chunks(1 + self.random.below(20) as usize) {
            if self.medium.is_cut() || !self.drive() {
                return;
            }
            self.execute(some);
        }
    }
}

fn compare(index: usize, survivor: &Survivor, event: &Event) {
    let head = &survivor.head;
    let same = survivor.kind == event.kind
        && head.request.0 == event.ask.id
        && head.principal == event.ask.caller.principal
        && head.merchant == event.ask.caller.merchant
        && head.tenant == event.ask.caller.tenant
        && head.terminal.0 == event.ask.terminal
        && head.channel.0 == event.ask.channel
        && survivor.time_ms == event.time_ms
        && event.lsn.is_none_or(|lsn| lsn == survivor.lsn)
        && event.subject().is_none_or(|subject| subject == head.subject);
    assert!(
        same,
        "entry {index} is {:?} {head:?} at {} of {}, expected {:?} {:?} of {}",
        survivor.kind, survivor.lsn, survivor.time_ms, event.kind, event.ask, event.time_ms
    );
    if let Effect::Card { lifecycle, flags, .. } | Effect::Pair { lifecycle, flags, .. } = event.effect {
        let post = kami_engine::Word::state_of(lifecycle, flags);
        assert_eq!(head.post, post, "entry {index} {:?} leaves another state", event.kind);
    }
    let prev = kami_engine::Word::from_bits(head.prev).and_then(|word| word.lsn()).map(Lsn::bytes);
    assert!(prev < Some(survivor.lsn), "a chain falls");
}

impl Oracle {
    /// The invariants, over the oracle itself: what the engine is compared with must be right.
    pub fn check(&self) {
        use kami_engine::{Flags, Lifecycle};
        self.check_money();
        for (_, place) in self.places() {
            let card = self.card(place);
            let count = |kind| card.past.iter().filter(|past| past.kind == kind).count();
            self.check_value(place);
            self.check_pairs(place);
            let product = &self.products[&self.batches[&place.0].product];
            if product.spec.kind == kami_engine::CardKind::Single {
                let done = card.past.iter().filter(|past| matches!(past.kind, Kind::Redeem | Kind::Capture));
                let undone =
                    done.clone().filter(|past| past.reversed || self.was_refunded(place, past.ask.id));
                let redeemed = done.count() - undone.count();
                assert!(redeemed <= 1, "{} redeemed twice", card.code);
                let elsewhere = card.flags.contains(Flags::MIGRATED);
                let used = redeemed == 1 || elsewhere;
                assert!(redeemed == 0 || !elsewhere, "{} redeemed here and elsewhere", card.code);
                assert_eq!(used, card.lifecycle == Lifecycle::Redeemed, "redeemed or not: {}", card.code);
                assert_eq!(redeemed == 1, card.flags.contains(Flags::USED), "redeemed or not: {}", card.code);
            }
            let kinds = [Kind::Sell, Kind::Confirm, Kind::Realloc, Kind::Export, Kind::Replacement];
            let sold: usize = kinds.into_iter().map(count).sum();
            assert!(sold <= count(Kind::Return) + 1 || self.is_shared(place), "{} sold twice", card.code);
            let mut ids: Vec<u128> =
                card.past.iter().filter(|past| past.has_id()).map(|past| past.ask.id).collect();
            ids.sort_unstable();
            assert!(ids.windows(2).all(|pair| pair[0] != pair[1]), "{} one id, two effects", card.code);
        }
        for (key, order) in &self.orders {
            let sold = order.cards.iter().filter(|place| {
                let mut past = self.card(**place).past.iter();
                past.any(|past| {
                    past.kind.is_order() && past.related == key.1 || past.kind == Kind::Replacement
                })
            });
            assert_eq!(sold.count(), order.cards.len(), "an order in part");
        }
        let open = self.orders.values().filter(|order| order.state == OrderState::Reserved);
        let reserved = self.places().map(|(_, place)| {
            let card = self.card(place);
            usize::from(card.lifecycle == Lifecycle::Reserved) + card.uses.reserved as usize
        });
        assert_eq!(
            open.map(|order| order.cards.len()).sum::<usize>(),
            reserved.sum::<usize>(),
            "cards are reserved, and no order waits for them, or the other way round"
        );
        // The orders of a card that is sold many times are as many as its uses.
        for (_, place) in self.places().filter(|(_, place)| self.is_shared(*place)) {
            let Uses { sold, reserved, returned } = self.card(place).uses;
            let own = self.orders.values().filter(|order| order.cards.contains(&place));
            let stands = |order: &&Order| matches!(order.state, OrderState::Reserved | OrderState::Sold);
            assert_eq!(
                own.filter(stands).count() as u32,
                sold + reserved - returned,
                "as many orders as uses: {}",
                self.card(place).code
            );
        }
    }
}
