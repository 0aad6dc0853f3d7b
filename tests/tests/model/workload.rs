//! What the world is asked, drawn by seed: mostly sense, and all kinds of nonsense.
//!
//! Few cards, few orders and few ids, so that everything meets everything: the same card several times
//! in one batch, ids used again with another body, by another principal, on another card.

use kami_engine::{
    AccountId, AccountKind, AccountSpec, Caller, CardKind, CertificateNote, DocumentId, DualControl,
    ExceptionNote, ImportSpec, Kind, Leg, Lifecycle, LimitAction, LimitScope, LimitSpec, LimitWindow, Line,
    MerchantId, OrderState, Posting, PrincipalId, PrincipalSpec, ProductId, ProductSpec, ProposalState,
    Purchase, Renewal, Role, TenantId, ValidFrom,
};

use super::imports::Row;
use super::world::World;
use crate::ask::{Ask, BatchChange, Deadline, LifeChange, What, caller};

/// The store's own principals have the numbers 1 to 6, and some have a scope or are revoked: two callers are
/// among them, as soon as they were added. Of the others the store knows nothing.
pub const ADMIN: Caller = caller(101, Role::Admin, 0, 0);
pub const OPERATOR: Caller = caller(102, Role::Operator, 0, 0);
pub const FINANCE: Caller = caller(108, Role::Finance, 0, 0);
pub const AUDITOR: Caller = caller(109, Role::Auditor, 0, 0);
pub const SELLERS: [Caller; 2] = [caller(103, Role::Seller, 0, 0), caller(4, Role::Seller, 0, 0)];
/// Two tills of one merchant and one of another.
pub const TILLS: [Caller; 3] =
    [caller(105, Role::Redeemer, 1, 0), caller(5, Role::Redeemer, 1, 0), caller(107, Role::Redeemer, 2, 0)];

/// The most requests kept to be tried again.
const ASKED_MAX: usize = 200;

impl World {
    fn id(&mut self) -> u128 {
        if self.random.percent(12) && !self.asked.is_empty() {
            return self.random.pick(&self.asked).id;
        }
        u128::from(self.random.next()) << 64 | u128::from(self.random.next())
    }

    fn of_some_tenant(&mut self, mut caller: Caller) -> Caller {
        caller.tenant = TenantId(u16::from(self.random.percent(6)));
        caller
    }

    /// A code: most often one of a few, or one that was sold lately.
    fn code(&mut self) -> String {
        let count = self.oracle.codes.len() as u64;
        if count == 0 || self.random.percent(3) {
            return format!("NOBODY-{}", self.random.below(100));
        }
        let sold = self.oracle.orders.values().flat_map(|order| order.cards.iter().copied());
        let sold: Vec<_> = sold.collect();
        let place = if self.random.percent(60) && !sold.is_empty() {
            *self.random.pick(&sold)
        } else {
            let nth = if self.random.percent(50) {
                self.random.below(count.min(8))
            } else {
                self.random.below(count)
            };
            *self.oracle.codes.values().nth(nth as usize).expect("counted")
        };
        self.oracle.card(place).code.clone()
    }

    fn order(&mut self) -> u128 {
        if self.random.percent(40) && !self.oracle.orders.is_empty() {
            let nth = self.random.below(self.oracle.orders.len() as u64) as usize;
            return self.oracle.orders.keys().nth(nth).expect("counted").1;
        }
        if self.random.percent(50) { u128::from(self.random.below(6)) } else { self.id() }
    }

    fn product(&mut self) -> u32 {
        if self.random.percent(80) && !self.oracle.committed.is_empty() {
            let batch = *self.random.pick(&self.oracle.committed);
            return self.oracle.batches[&batch].product;
        }
        1 + self.random.below(self.oracle.products.len() as u64 + 1) as u32
    }

    fn redeem(&mut self) -> What {
        let code = self.code();
        let place = self.oracle.find(0, &code);
        let pin = place.and_then(|place| self.oracle.card(place).pin.clone());
        let pin = match self.random.below(10) {
            0 => None,
            1 => Some("0000".to_owned()),
            _ => pin,
        };
        let face = place.map_or(100, |place| self.oracle.face(place));
        let amount = match self.random.below(20) {
            0 => face + 1,
            1 => face - 1,
            2..5 => face,
            _ => 0,
        };
        What::Redeem { code, pin, amount, partial: self.random.percent(15) }
    }

    /// A part of what is on a card, or about that.
    fn part(&mut self, code: &str) -> i64 {
        let left = self.oracle.find(0, code).map_or(100, |place| self.oracle.left(place));
        match self.random.below(12) {
            0..4 => 0,
            4 => left,
            5 => left + 1,
            6 => -1,
            _ => 1 + self.random.below(1 + left.max(0) as u64 / 2) as i64,
        }
    }

    /// A hold of a card: most often one that is open.
    fn some_hold(&mut self, code: &str) -> u128 {
        let card = self.oracle.find(0, code).map(|place| self.oracle.card(place));
        let open: Vec<u128> = card.map(|card| card.holds.keys().copied().collect()).unwrap_or_default();
        let all = card.map(|card| card.past.iter().filter(|past| past.kind == Kind::Hold));
        let all: Vec<u128> = all.map(|all| all.map(|past| past.ask.id).collect()).unwrap_or_default();
        if !open.is_empty() && self.random.percent(70) {
            *self.random.pick(&open)
        } else if !all.is_empty() && self.random.percent(80) {
            *self.random.pick(&all)
        } else {
            self.id()
        }
    }

    /// What is done with a card's value beside redeeming it.
    fn about_value(&mut self) -> (Caller, What) {
        let held = self.oracle.places().filter(|(_, place)| !self.oracle.card(*place).holds.is_empty());
        let held: Vec<String> = held.map(|(_, place)| self.oracle.card(place).code.clone()).collect();
        let roll = self.random.below(100);
        let ends = (40..80).contains(&roll) && !held.is_empty() && self.random.percent(80);
        let code = if ends { self.random.pick(&held).clone() } else { self.code() };
        let amount = self.part(&code);
        let till = *self.random.pick(&TILLS);
        match roll {
            0..40 => {
                let pin = self.oracle.find(0, &code).and_then(|place| self.oracle.card(place).pin.clone());
                let pin = if self.random.percent(95) { pin } else { None };
                let (partial, seconds) = (self.random.percent(20), *self.random.pick(&[0, 0, 1, 100]));
                (till, What::Hold { code, pin, amount, partial, seconds })
            }
            40..65 => (till, What::Capture { hold: self.some_hold(&code), code, amount }),
            65..80 => (till, What::Release { hold: self.some_hold(&code), code }),
            80..88 => (SELLERS[0], What::Load { code, amount }),
            88..94 => {
                let What::Reverse { code, original } = self.reverse() else { unreachable!("made as one") };
                let amount = self.part(&code);
                (OPERATOR, What::Refund { code, original, amount })
            }
            _ => (FINANCE, What::Settle { code }),
        }
    }

    /// An order of tenant 0 that stands so, with its buyer; or any order, and anybody.
    fn order_in(&mut self, states: &[OrderState]) -> (Caller, u128) {
        let fits =
            self.oracle.orders.iter().filter(|(key, order)| key.0 == 0 && states.contains(&order.state));
        let fits: Vec<_> = fits.map(|(key, order)| (order.past[0].ask.caller, key.1)).collect();
        if fits.is_empty() || self.random.percent(20) {
            let caller = *self.random.pick(&[SELLERS[0], SELLERS[1], OPERATOR]);
            return (caller, self.order());
        }
        let (buyer, order) = *self.random.pick(&fits);
        (if self.random.percent(10) { OPERATOR } else { buyer }, order)
    }

    /// Something about an order that is not a plain sale.
    fn order_ask(&mut self) -> (Caller, What) {
        match self.random.below(20) {
            0..4 => {
                let order = if self.random.percent(60) { self.id() } else { self.order() };
                (*self.random.pick(&SELLERS), What::SellLines(self.purchase(order)))
            }
            4..10 => {
                let order = if self.random.percent(60) { self.id() } else { self.order() };
                (*self.random.pick(&SELLERS), What::Reserve(self.purchase(order)))
            }
            10..14 => {
                let (caller, order) =
                    self.order_in(&[OrderState::Reserved, OrderState::Reserved, OrderState::TimedOut]);
                let (realloc, sealed) = (self.random.percent(50), self.random.percent(40));
                let legs = if self.random.percent(70) { Vec::new() } else { self.legs() };
                (caller, What::Confirm { order, legs, realloc, sealed })
            }
            14..16 => {
                let (caller, order) = self.order_in(&[OrderState::Reserved]);
                (caller, What::Cancel(order))
            }
            16..19 => {
                let (caller, order) = self.order_in(&[OrderState::Sold]);
                let known = self.oracle.orders.get(&(0, order));
                let cards: Vec<_> = known.map_or(Vec::new(), |known| known.left().collect());
                let mut codes = Vec::new();
                if self.random.percent(70) && !cards.is_empty() {
                    for _ in 0..1 + self.random.below(2) {
                        codes.push(self.oracle.card(*self.random.pick(&cards)).code.clone());
                    }
                    codes.dedup();
                } else if self.random.percent(20) {
                    codes = (0..*self.random.pick(&[1, 65])).map(|_| self.code()).collect();
                }
                let legs = if self.random.percent(50) { Vec::new() } else { self.legs() };
                (caller, What::Return { order, codes, legs })
            }
            _ => {
                let (caller, order) = self.order_in(&[OrderState::Sold, OrderState::Cancelled]);
                (caller, What::OrderStatus(order))
            }
        }
    }

    fn purchase(&mut self, order: u128) -> Purchase {
        let lines = match self.random.below(30) {
            0 => 0,
            1 => 65,
            2..10 => 2 + self.random.below(2),
            _ => 1,
        };
        let lines = (0..lines).map(|_| Line {
            product: ProductId(self.product()),
            count: match self.random.below(20) {
                0 => 0,
                1 => 60_000,
                _ => 1 + self.random.below(5) as u32,
            },
            face: *self.random.pick(&[None, None, None, Some(0), Some(100), Some(101), Some(500)]),
        });
        let lines = lines.collect();
        Purchase {
            lines,
            validity_s_min: *self.random.pick(&[0, 0, 0, 3_600]),
            ip: self.random.below(3),
            account: if self.random.percent(60) { Some(AccountId(self.good_account())) } else { None },
            legs: if self.random.percent(50) { self.legs() } else { Vec::new() },
            sealed: self.random.percent(40),
            reserve_s: *self.random.pick(&[0, 0, 1, 60, 1_000_000]),
            ..Purchase::of(kami_engine::OrderId(order), ProductId(1), 1)
        }
    }

    /// How an order is paid: from one account onto one or two, and sometimes not as it must be.
    fn legs(&mut self) -> Vec<Leg> {
        if self.random.percent(1) {
            return vec![Leg { account: AccountId(1), amount: 1 }; 65];
        }
        // From outside anything can be paid.
        let external =
            self.oracle.accounts.iter().find(|(_, book)| {
                book.account.spec.kind == AccountKind::External && book.account.tenant.0 == 0
            });
        let external = external.map(|(id, _)| *id).filter(|_| self.random.percent(40));
        let payer = external.unwrap_or_else(|| self.good_account());
        let price = 1 + self.random.below(90) as i64;
        let share = if self.random.percent(50) { self.random.below(price as u64) as i64 } else { 0 };
        let mut legs = vec![Leg { account: AccountId(payer), amount: -price }];
        if share != 0 || self.random.percent(3) {
            legs.push(Leg { account: AccountId(self.good_account()), amount: share });
        }
        let off = i64::from(self.random.percent(4));
        legs.push(Leg { account: AccountId(self.good_account()), amount: price - share + off });
        legs
    }

    /// A redemption that was reversed before it came.
    fn late_original(&mut self, code: &str) -> Option<u128> {
        let card = self.oracle.card(self.oracle.find(0, code)?);
        let tombstones = card.past.iter().filter(|past| past.kind == Kind::Tombstone);
        let originals: Vec<u128> = tombstones.map(|past| past.related).collect();
        (!originals.is_empty()).then(|| *self.random.pick(&originals))
    }

    fn reverse(&mut self) -> What {
        let code = self.code();
        let done: Vec<u128> = self
            .oracle
            .find(0, &code)
            .map(|place| {
                let before = self.oracle.card_before(place).into_iter();
                let past = before.chain([place]).flat_map(|place| &self.oracle.card(place).past);
                past.map(|past| past.ask.id).collect()
            })
            .unwrap_or_default();
        let original =
            if self.random.percent(70) && !done.is_empty() { *self.random.pick(&done) } else { self.id() };
        // A load is undone, too, and rarely: others are asked about more often.
        let card = self.oracle.find(0, &code).map(|place| self.oracle.card(place));
        let load = card.and_then(|card| card.past.iter().rfind(|past| past.kind == Kind::Load));
        let original = match load.map(|past| past.ask.id) {
            Some(load) if self.random.percent(30) => load,
            _ => original,
        };
        What::Reverse { code, original }
    }

    /// When a card may be used.
    fn life(&mut self) -> (Caller, What) {
        let gone = self
            .oracle
            .places()
            .filter(|(_, place)| self.oracle.card(*place).lifecycle == Lifecycle::Returned);
        let gone: Vec<String> = gone.map(|(_, place)| self.oracle.card(place).code.clone()).collect();
        if self.random.percent(12) {
            let some = !gone.is_empty() && self.random.percent(80);
            let code = if some { self.random.pick(&gone).clone() } else { self.code() };
            let reference = 1 + u128::from(self.random.below(3));
            return (ADMIN, What::Life { code, change: LifeChange::Restock(reference) });
        }
        let code = self.code();
        let change = match self.random.below(10) {
            0..4 => LifeChange::Activate,
            4..6 => LifeChange::Deactivate,
            6..9 => LifeChange::Extend(self.soon()),
            _ => LifeChange::Expire,
        };
        let caller = if self.random.percent(80) { OPERATOR } else { SELLERS[0] };
        (caller, What::Life { code, change })
    }

    /// What moves two cards: mostly some that are sold, and others of their product.
    fn pair(&mut self) -> (Caller, What) {
        let code = self.code();
        let product = self.oracle.find(0, &code).map(|place| self.oracle.batches[&place.0].product);
        let replaces = self.random.percent(55);
        let wanted = if replaces { Lifecycle::Available } else { Lifecycle::Sold };
        let like = self.oracle.places().filter(|(tenant, place)| {
            *tenant == 0
                && Some(self.oracle.batches[&place.0].product) == product
                && self.oracle.card(*place).lifecycle == wanted
        });
        let like: Vec<String> = like.map(|(_, place)| self.oracle.card(place).code.clone()).collect();
        let fits = !like.is_empty() && self.random.percent(85);
        let other = if fits { self.random.pick(&like).clone() } else { self.code() };
        let what = if replaces {
            What::Replace { code, with: Some(other).filter(|_| self.random.percent(40)) }
        } else {
            let amount = self.part(&code);
            What::Transfer { from: code, to: other, amount }
        };
        (*self.random.pick(&[OPERATOR, OPERATOR, ADMIN]), what)
    }

    fn batch_change(&mut self) -> What {
        let batch = 1 + self.random.below(u64::from(self.next_batch)) as u32;
        let change = match self.random.below(17) {
            13.. => {
                let known = self.oracle.batches.get(&batch).map_or(10, |batch| batch.cards.len() as u64);
                let from = self.random.below(known + 1);
                let rows = self.random.below(known + 2 - from.min(known));
                BatchChange::Rows { from, rows, active: self.random.percent(60) }
            }
            0..3 => BatchChange::Activate,
            3 => BatchChange::Deactivate,
            4 => BatchChange::Freeze,
            5..9 => BatchChange::Unfreeze,
            9 if self.random.percent(30) => BatchChange::Void,
            _ => BatchChange::Extend(self.soon()),
        };
        What::Batch { batch, change }
    }

    /// A time that may come during the run.
    fn soon(&mut self) -> u64 {
        let ahead_ms =
            *self.random.pick(&[60, 150, 1_000, 60_000, 3_600_000, 24 * 3_600_000, 90 * 24 * 3_600_000]);
        self.oracle.now_ms + ahead_ms
    }

    fn product_spec(&mut self) -> ProductSpec {
        let name = match self.random.below(15) {
            14 => "shared".to_owned(),
            12 => "value".to_owned(),
            13 => "uses".to_owned(),
            0 => String::new(),
            1 => "tab\tbed".to_owned(),
            n => format!("product {}", n % 4),
        };
        let mut spec = ProductSpec::single(&name, *b"CNY", 100);
        spec.face = *self.random.pick(&[100, 100, 0, 2_800, -1]);
        spec.valid_days = *self.random.pick(&[0, 0, 1, 30]);
        spec.reversal_s = *self.random.pick(&[0, 60, 24 * 3600]);
        if self.random.percent(30) {
            spec.terms.attributes = "x".repeat(*self.random.pick(&[1, 255, 256]));
        }
        let known = self.oracle.products.values().find(|product| product.spec.name == spec.name);
        spec.kind = match known {
            Some(known) if self.random.percent(90) => known.spec.kind,
            _ => *self.random.pick(&[
                CardKind::Single,
                CardKind::StoredValue,
                CardKind::MultiUse,
                CardKind::Shared,
            ]),
        };
        spec.terms.uses = match known {
            Some(known) if self.random.percent(70) => known.spec.terms.uses,
            _ => self.random.below(4) as u32,
        };
        let events = [ValidFrom::Activation, ValidFrom::Sale, ValidFrom::FirstUse];
        if self.random.percent(40) {
            spec.terms.valid_from = *self.random.pick(&events);
        }
        spec.terms.value_max = *self.random.pick(&[0, 0, 150, 1_000]);
        spec.terms.partial = self.random.percent(20);
        spec.terms.hold_s = *self.random.pick(&[1, 60, 300]);
        spec.terms.listed = self.random.percent(90);
        spec.terms.reserve_s = *self.random.pick(&[1, 60, 900]);
        spec.terms.class = *self.random.pick(&[0, 0, 0, 1, 2, 63, 64]);
        if self.random.percent(15) {
            spec.terms.merchants = vec![MerchantId(9), MerchantId(1)];
        }
        if self.random.percent(15) {
            spec.terms.stores = vec![0, 7];
        }
        if self.random.percent(5) {
            spec.currency = *b"USD";
        }
        spec
    }

    fn account(&mut self) -> u32 {
        1 + self.random.below(self.oracle.accounts.len() as u64 + 1) as u32
    }

    /// Mostly one that money can be paid from.
    fn good_account(&mut self) -> u32 {
        let good = self.oracle.accounts.iter();
        let good = good.filter(|(_, book)| book.account.tenant.0 == 0 && !book.account.frozen);
        let good: Vec<u32> = good.map(|(id, _)| *id).collect();
        if good.is_empty() || self.random.percent(8) { self.account() } else { *self.random.pick(&good) }
    }

    /// What is asked about money. Some accounts are there from early on, and limits come and go.
    fn money(&mut self) -> What {
        let early = self.oracle.accounts.len() < 4 && self.random.percent(60);
        match if early { 0 } else { self.random.below(100) } {
            0..15 => {
                let number = self.random.below(6);
                let kind = AccountKind::ALL[number as usize % 4];
                let other = self.random.percent(5);
                What::AccountPut {
                    spec: AccountSpec {
                        name: if self.random.percent(3) {
                            String::new()
                        } else {
                            format!("account {number}")
                        },
                        currency: if number < 5 { *b"CNY" } else { *b"USD" },
                        kind: if other { AccountKind::Agent } else { kind },
                        credit_limit: *self.random.pick(&[0, 0, 100, 5_000, -1]),
                        owner: PrincipalId(*self.random.pick(&[0, 0, 0, 4, 5])),
                    },
                    new: self.random.percent(70),
                }
            }
            15..20 => What::AccountFreeze { account: self.account(), frozen: self.random.percent(30) },
            20..28 => What::AccountQuery(self.account()),
            28..30 => What::AccountList,
            30..40 => {
                let account = self.account();
                let known = self.oracle.accounts.get(&account).map(|book| book.lines.clone());
                let known: Vec<u64> = known.unwrap_or_default().iter().filter_map(|line| line.lsn).collect();
                let from = match self.random.below(10) {
                    0..3 if !known.is_empty() => Some(*self.random.pick(&known)),
                    3 => Some(8 * (1 + self.random.below(1 << 14))),
                    _ => None,
                };
                What::Statement { account, from, count: *self.random.pick(&[0, 1, 2, 5, 1000]) }
            }
            40..85 => {
                let mut legs = Vec::new();
                for _ in 0..1 + self.random.below(3) {
                    let amount = self.random.below(400) as i64 - 200;
                    legs.push(Leg { account: AccountId(self.account()), amount });
                }
                // What is left comes from the outside, if that is there.
                let sum: i64 = legs.iter().map(|leg| leg.amount).sum();
                let external = self.oracle.accounts.iter().find(|(_, book)| {
                    book.account.spec.kind == AccountKind::External && book.account.tenant.0 == 0
                });
                let external = external.map_or(4, |(id, _)| *id);
                let off = i64::from(self.random.percent(8));
                legs.push(Leg { account: AccountId(external), amount: off - sum });
                let document =
                    if self.random.percent(30) { u128::from(self.random.below(8)) } else { self.id() };
                let note = if self.random.percent(4) { "x".repeat(201) } else { "note".to_owned() };
                What::Post(Posting { document: DocumentId(document), legs, note })
            }
            85..95 => {
                let number = self.random.below(10);
                let window = match number {
                    0 | 4 => LimitWindow::Rolling { seconds: 60 },
                    1 | 5 => LimitWindow::Day { offset_min: 480 },
                    2 | 6 => LimitWindow::Rolling { seconds: 3600 },
                    8 => LimitWindow::OpenCards,
                    9 => LimitWindow::OpenOrders,
                    _ => LimitWindow::Life,
                };
                let alerts = number < 2 || number == 4;
                let one = Some(AccountId(self.account())).filter(|_| self.random.percent(30));
                What::LimitPut(LimitSpec {
                    name: format!("limit {number}"),
                    scope: match number {
                        0 | 2 => LimitScope::Terminal,
                        1 | 3 => LimitScope::Principal,
                        7 => LimitScope::Order,
                        9 if self.random.percent(30) => LimitScope::Principal,
                        6 | 9 => LimitScope::Ip,
                        _ => LimitScope::Account(one),
                    },
                    product: if self.random.percent(15) { Some(ProductId(self.product())) } else { None },
                    window: if self.random.percent(5) { LimitWindow::Life } else { window },
                    max: match number {
                        _ if alerts => self.random.below(6),
                        5 | 6 | 8 | 9 => self.random.below(12),
                        _ => 3 + self.random.below(40),
                    },
                    action: if alerts { LimitAction::Alert } else { LimitAction::Refuse },
                    ended: self.random.percent(30),
                })
            }
            _ => What::LimitList,
        }
    }

    fn principal_spec(&mut self) -> PrincipalSpec {
        let name = format!("till {}", self.random.below(6));
        let products = if self.random.percent(30) { vec![ProductId(self.product())] } else { Vec::new() };
        PrincipalSpec {
            name: if self.random.percent(5) { "x".repeat(65) } else { name },
            role: *self.random.pick(&Role::ALL),
            tenant: TenantId(*self.random.pick(&[0, 0, 0, 0, 0, 0, 0, 1, 2])),
            merchant: MerchantId(self.random.below(3) as u32),
            key: [self.random.below(6) as u8; 32],
            certificate: CertificateNote { serial: u128::from(self.random.next()), expires_ms: 1 << 40 },
            products,
            misses_per_minute: *self.random.pick(&[0, 0, 0, 1, 1, 1, 1, 1_000_000, 1_000_001, u32::MAX]),
            store: *self.random.pick(&[0, 7, 8]),
            classes: *self.random.pick(&[0, 0, 0, 1, 0b101, 1 << 63]),
        }
    }

    /// A request whose answer may not have come, and what it was about.
    fn outcome(&mut self) -> What {
        let some = if self.asked.is_empty() { None } else { Some(self.random.pick(&self.asked).clone()) };
        let asked = if self.random.percent(80) { some.as_ref().map_or(0, |ask| ask.id) } else { self.id() };
        match some.map(|ask| ask.what) {
            Some(What::Post(posting)) => What::OutcomeOfDocument { document: posting.document.0, asked },
            Some(what) if what.order().is_some() => {
                What::OutcomeOfOrder { order: what.order().unwrap_or(0), asked }
            }
            _ => {
                if self.random.percent(20) && !self.oracle.exceptions.is_empty() {
                    let known = self.random.pick(&self.oracle.exceptions);
                    return What::OutcomeOf { code: known.code.clone(), asked: known.exception.request.0 };
                }
                let (code, roll) = (self.code(), self.random.below(4));
                let place = self.oracle.find(0, &code);
                let past = place.map(|place| self.oracle.card(place).past.clone()).unwrap_or_default();
                let asked = match roll {
                    0 => asked,
                    1 if !past.is_empty() => self.random.pick(&past).related,
                    _ if !past.is_empty() => self.random.pick(&past).ask.id,
                    _ => asked,
                };
                What::OutcomeOf { code, asked }
            }
        }
    }

    /// A redemption that was made offline, some time ago or long ago, new or under the id of one that may have arrived.
    fn advice(&mut self) -> What {
        let What::Redeem { code, pin, amount, .. } = self.redeem() else { unreachable!("made as one") };
        let ago_ms = *self.random.pick(&[0, 0, 1_000, 100_000, 400_000, 3_600_000, 31 * 24 * 3_600_000]);
        let made_ms = match self.random.below(40) {
            0 => 0,
            1 => self.oracle.now_ms + 1_000_000,
            _ => self.oracle.now_ms - ago_ms,
        };
        // Where the product takes what is left, there is often less left than that.
        let amount = if self.random.percent(25) { self.part(&code) } else { amount };
        What::Advice { code, pin, amount, made_ms }
    }

    fn about_exceptions(&mut self) -> What {
        let count = self.oracle.exceptions.len() as u64;
        if self.random.percent(40) {
            let (after, all) = (self.random.below(count + 1), self.random.percent(50));
            return What::ExceptionList { after, count: *self.random.pick(&[0, 1, 3, 1000]), all };
        }
        let note = match self.random.below(10) {
            0 => String::new(),
            1 => "x".repeat(201),
            _ => "the shop bears it".to_owned(),
        };
        What::ExceptionResolve(ExceptionNote { id: self.random.below(count + 2), note })
    }

    /// One till that tries PINs, again and again at the same card.
    fn guesses(&mut self) -> Vec<Ask> {
        let with_pins = self.oracle.places().filter(|(tenant, place)| {
            *tenant == 0 && self.oracle.card(*place).pin.is_some() && !self.oracle.is_unsold(*place)
        });
        let with_pins: Vec<_> = with_pins.map(|(_, place)| place).collect();
        if with_pins.is_empty() {
            return Vec::new();
        }
        let place = *self.random.pick(&with_pins);
        let code = self.oracle.card(place).code.clone();
        let caller = *self.random.pick(&TILLS);
        let mut asks = Vec::new();
        for _ in 0..6 + self.random.below(10) {
            let pin = Some("9999".to_owned()).filter(|_| self.random.percent(90));
            let what = if self.random.percent(15) {
                let made_ms = self.oracle.now_ms;
                What::Advice { code: code.clone(), pin, amount: 0, made_ms }
            } else if self.random.percent(80) {
                What::Redeem { code: code.clone(), pin, amount: 0, partial: false }
            } else {
                What::Hold { code: code.clone(), pin, amount: 0, partial: false, seconds: 0 }
            };
            asks.push(Ask::new(self.id(), caller, what));
        }
        asks.push(Ask::new(
            self.id(),
            caller,
            What::Redeem { pin: self.oracle.card(place).pin.clone(), code, amount: 0, partial: false },
        ));
        asks
    }

    /// What can be proposed, and by whom.
    fn wish(&mut self) -> (Caller, What) {
        let callers = [OPERATOR, OPERATOR, ADMIN, FINANCE];
        let caller = *self.random.pick(&callers);
        match self.random.below(20) {
            0..6 => (caller, What::Void { code: self.code() }),
            6..10 => {
                let (code, original) = self.refundable();
                let amount = if self.random.percent(60) { 0 } else { self.part(&code) };
                (caller, What::Refund { code, original, amount })
            }
            10..13 => {
                let count = *self.random.pick(&[2, u32::MAX, u32::MAX, u32::MAX]);
                let (_, order) = self.order_in(&[OrderState::Sold]);
                (caller, What::Fetch { order, from: self.random.below(2) as u32, count })
            }
            13..17 => {
                let batch = 1 + self.random.below(u64::from(self.next_batch)) as u32;
                let count = *self.random.pick(&[0, 1, 2, 3, 5, 20, 100_001, 60_000]);
                (caller, What::Export { batch, count })
            }
            17..19 => (ADMIN, self.tenant_control()),
            _ => (caller, What::Query { code: self.code() }),
        }
    }

    /// A redemption that can be reversed no more, if there is one.
    fn refundable(&mut self) -> (String, u128) {
        let oracle = &self.oracle;
        let over: Vec<(String, u128)> = oracle
            .places()
            .filter(|(tenant, _)| *tenant == 0)
            .flat_map(|(_, place)| {
                let product = &oracle.products[&oracle.batches[&place.0].product];
                let window_ms = u64::from(product.spec.reversal_s) * 1000;
                let card = oracle.card(place);
                let over = move |past: &&super::oracle::Past| {
                    matches!(past.kind, Kind::Redeem | Kind::Capture)
                        && !past.reversed
                        && oracle.now_ms > past.time_ms + window_ms
                };
                card.past.iter().filter(over).map(|past| (card.code.clone(), past.ask.id))
            })
            .collect();
        if over.is_empty() || self.random.percent(20) {
            let What::Reverse { code, original } = self.reverse() else { unreachable!("made as one") };
            return (code, original);
        }
        self.random.pick(&over).clone()
    }

    fn tenant_control(&mut self) -> What {
        let control = DualControl {
            on: self.random.percent(50),
            reveal_cards: self.random.below(4) as u32,
            lapse_s: *self.random.pick(&[59, 60, 100, 3600, 24 * 3600, 24 * 3600]),
        };
        What::TenantControl { tenant: *self.random.pick(&[0, 0, 0, 1, 2]), control }
    }

    /// Something about proposals; a fetch may name one.
    fn about_control(&mut self) -> (Caller, What, Option<u128>) {
        let count = self.oracle.proposals.len() as u64;
        let some = |world: &mut World, wanted: &dyn Fn(&super::control_rules::Proposed) -> bool| {
            let fits: Vec<_> = world.oracle.proposals.iter().filter(|it| wanted(it)).cloned().collect();
            (!fits.is_empty()).then(|| world.random.pick(&fits).clone())
        };
        let now_ms = self.oracle.now_ms;
        let callers = [ADMIN, OPERATOR, ADMIN, FINANCE, AUDITOR];
        match self.random.below(20) {
            0..8 => {
                let (caller, what) = self.wish();
                (caller, What::Propose(Box::new(what)), None)
            }
            8..13 => {
                let open = self.random.percent(85);
                let known = some(self, &|it| !open || it.state(now_ms) == ProposalState::Open);
                let id = known.map_or(7, |known| known.past.ask.id);
                (*self.random.pick(&callers[..4]), What::Approve(id), None)
            }
            13 => {
                let known = some(self, &|_| true);
                let (caller, id) = known.map_or((OPERATOR, 7), |known| (known.caller(), known.past.ask.id));
                let caller = if self.random.percent(80) { caller } else { ADMIN };
                (caller, What::Withdraw(id), None)
            }
            14..17 => {
                let fetches = |it: &super::control_rules::Proposed| matches!(it.what(), What::Fetch { .. });
                match some(self, &fetches) {
                    Some(known) => {
                        let what = known.what().clone();
                        (known.caller(), what, Some(known.past.ask.id))
                    }
                    None => {
                        let (_, order) = self.order_in(&[OrderState::Sold]);
                        (OPERATOR, What::Fetch { order, from: 0, count: 1 }, None)
                    }
                }
            }
            17 => (ADMIN, self.tenant_control(), None),
            18 => {
                let (_, order) = self.order_in(&[OrderState::Sold]);
                let caller = *self.random.pick(&[OPERATOR, ADMIN]);
                (caller, What::Fetch { order, from: 0, count: u32::MAX }, None)
            }
            _ if self.random.percent(20) => (ADMIN, What::Export { batch: 1, count: 1 }, None),
            _ if self.random.percent(50) => {
                let (code, original) = self.refundable();
                (FINANCE, What::Refund { code, original, amount: 0 }, None)
            }
            _ => {
                let (after, all) = (self.random.below(count + 1), self.random.percent(50));
                let count = *self.random.pick(&[0, 1, 3, 1000]);
                (*self.random.pick(&callers), What::ProposalList { after, count, all }, None)
            }
        }
    }

    fn fresh_ask(&mut self) -> Ask {
        // Orders are paid from accounts, so some are there early.
        let early = self.oracle.accounts.len() < 4 && self.random.percent(30);
        let roll = if early { 1050 } else { self.random.below(1330) };
        let mut id = self.id();
        let mut approval = None;
        let (caller, what) = match roll {
            0..70 => self.about_value(),
            70..90 => self.life(),
            90..270 => {
                let what = self.redeem();
                if let What::Redeem { code, .. } = &what
                    && let Some(late) = self.late_original(code)
                    && self.random.percent(30)
                {
                    id = late;
                }
                (*self.random.pick(&TILLS), what)
            }
            270..400 => {
                let callers = [TILLS[0], TILLS[1], TILLS[2], OPERATOR];
                (*self.random.pick(&callers), self.reverse())
            }
            400..490 => {
                let count = match self.random.below(20) {
                    0 => 0,
                    1 => 100_001,
                    2 => 20_000,
                    3..6 => 1 + self.random.below(60),
                    _ => 1 + self.random.below(5),
                };
                let validity_s_min = *self.random.pick(&[0, 0, 0, 1, 3_600, 10 * 24 * 3_600]);
                let (order, product) = (self.order(), self.product());
                let what = What::Sell { order, product, count: count as u32, validity_s_min };
                (*self.random.pick(&SELLERS), what)
            }
            490..580 => self.order_ask(),
            580..640 => {
                let what = What::Fetch {
                    order: self.order(),
                    from: self.random.below(4) as u32,
                    count: *self.random.pick(&[0, 1, 3, u32::MAX]),
                };
                (*self.random.pick(&SELLERS), what)
            }
            640..700 => {
                let what = What::Query { code: self.code() };
                (*self.random.pick(&[OPERATOR, TILLS[0]]), what)
            }
            700..740 => {
                let what = What::History { code: self.code() };
                (*self.random.pick(&[OPERATOR, TILLS[0]]), what)
            }
            740..790 => (OPERATOR, What::Freeze { code: self.code() }),
            790..840 => (OPERATOR, What::Unfreeze { code: self.code() }),
            840..860 => (ADMIN, What::Void { code: self.code() }),
            860..910 => (OPERATOR, self.batch_change()),
            910..925 => {
                let product = Some(self.product()).filter(|_| self.random.percent(50));
                (AUDITOR, What::BatchList { product })
            }
            925..940 => {
                let (spec, adds) = (self.product_spec(), self.random.percent(40));
                (ADMIN, What::ProductPut { spec, adds })
            }
            940..955 => {
                let (product, frozen) = (self.product(), self.random.percent(20));
                (OPERATOR, What::ProductFreeze { product, frozen })
            }
            955..957 => (AUDITOR, What::ProductList),
            957..960 => {
                let states = [OrderState::Sold, OrderState::Reserved, OrderState::Cancelled];
                let query = kami_engine::OrderQuery {
                    from: None,
                    count: *self.random.pick(&[0, 1, 3, 1000]),
                    buyer: Some(self.random.pick(&SELLERS).principal).filter(|_| self.random.percent(30)),
                    account: Some(AccountId(self.account())).filter(|_| self.random.percent(10)),
                    product: Some(ProductId(self.product())).filter(|_| self.random.percent(20)),
                    state: Some(*self.random.pick(&states)).filter(|_| self.random.percent(20)),
                };
                (*self.random.pick(&[SELLERS[0], AUDITOR, OPERATOR]), What::OrderList(query))
            }
            960..975 => {
                let product = Some(self.product()).filter(|_| self.random.percent(50));
                (AUDITOR, What::Stock { product })
            }
            975..983 => (ADMIN, What::PrincipalAdd(self.principal_spec())),
            983..986 => {
                let principal = PrincipalId(self.random.below(8) as u32);
                let certificate =
                    CertificateNote { serial: self.random.below(4).into(), expires_ms: 1 << 41 };
                let key = [self.random.below(9) as u8; 32];
                (ADMIN, What::PrincipalRenew(Renewal { principal, key, certificate }))
            }
            986..988 => (ADMIN, What::PrincipalRevoke(self.random.below(8) as u32)),
            988..990 => (ADMIN, What::PrincipalList),
            990..992 => match self.random.below(4) {
                0 => (ADMIN, What::TenantPut((*self.random.pick(&["", "north", "south"])).to_owned())),
                1 => (AUDITOR, What::TenantList),
                _ => {
                    let (tenant, frozen) = (self.random.below(4) as u16, self.random.percent(40));
                    (OPERATOR, What::TenantFreeze { tenant, frozen })
                }
            },
            992..1000 => (AUDITOR, What::Stats),
            1100..1125 => {
                let callers = [TILLS[0], TILLS[1], SELLERS[0], OPERATOR, OPERATOR, AUDITOR];
                (*self.random.pick(&callers), self.outcome())
            }
            1140..1175 => {
                let mut what = self.advice();
                let earlier = self.asked.iter().rfind(|ask| ask.code() == code_of(&what)).cloned();
                if let Some(earlier) = earlier
                    && self.random.percent(30)
                {
                    id = earlier.id;
                    if let (What::Redeem { amount: asked, .. }, What::Advice { amount, .. }) =
                        (&earlier.what, &mut what)
                        && self.random.percent(60)
                    {
                        *amount = *asked;
                    }
                }
                (*self.random.pick(&[TILLS[0], TILLS[1], TILLS[2], OPERATOR]), what)
            }
            1250.. => {
                let (caller, what, under) = self.about_control();
                approval = under;
                (caller, what)
            }
            1200..1250 => self.pair(),
            1175..1200 => (*self.random.pick(&[OPERATOR, OPERATOR, ADMIN, AUDITOR]), self.about_exceptions()),
            1125..1140 => {
                let locked = self.oracle.pin_locks.keys().map(|(place, ..)| *place);
                let locked: Vec<_> = locked.collect();
                let code = if locked.is_empty() || self.random.percent(20) {
                    self.code()
                } else {
                    self.oracle.card(*self.random.pick(&locked)).code.clone()
                };
                (OPERATOR, What::PinUnlock { code })
            }
            _ => {
                let callers = [FINANCE, FINANCE, FINANCE, FINANCE, SELLERS[0], SELLERS[1]];
                (*self.random.pick(&callers), self.money())
            }
        };
        let mut ask = Ask::new(id, self.of_some_tenant(caller), what);
        ask.terminal = self.random.below(3) as u32;
        ask.channel = self.random.below(3) as u16;
        ask.approval = approval;
        let must = matches!(ask.what, What::Propose(_)) && self.random.percent(95);
        if ask.what.takes_why() && (must || self.random.percent(30)) {
            ask.why = Some(self.why());
        }
        ask.deadline = match self.random.below(50) {
            0 => Deadline::Passed,
            1 => Deadline::Ahead,
            _ => Deadline::None,
        };
        ask
    }

    fn why(&mut self) -> String {
        let length = *self.random.pick(&[1, 7, 8, 9, 255]);
        "客诉".to_owned().repeat(43)[..length / 3 * 3].to_owned() + &"y".repeat(length % 3)
    }

    /// A request from before: as it was, or bent a little.
    fn asked_again(&mut self) -> Ask {
        let mut ask = self.random.pick(&self.asked).clone();
        ask.deadline = Deadline::None;
        // A report, too, may be followed by the redemption that it tells of, or have its id taken for something else.
        if let What::Advice { code, pin, amount, .. } = &ask.what
            && self.random.percent(40)
        {
            let (code, pin, amount) = (code.clone(), pin.clone(), *amount);
            ask.what = match self.random.below(6) {
                0 => What::Freeze { code },
                1 => What::Reverse { code, original: ask.id },
                2 => What::Hold { code, pin, amount, partial: false, seconds: 0 },
                _ => What::Redeem { code, pin, amount, partial: false },
            };
        }
        match self.random.below(10) {
            0 => ask.caller = *self.random.pick(&[TILLS[0], TILLS[2], SELLERS[0], SELLERS[1], OPERATOR]),
            1 => match &mut ask.what {
                What::Redeem { amount, .. }
                | What::Hold { amount, .. }
                | What::Advice { amount, .. }
                | What::Load { amount, .. } => {
                    *amount += 1;
                }
                What::Capture { amount, .. } => *amount += 1,
                What::SellLines(purchase) | What::Reserve(purchase) => purchase.ip += 1,
                What::Confirm { legs, .. } | What::Return { legs, .. } => {
                    legs.pop();
                }
                What::Reverse { original, .. } => *original += 1,
                What::Sell { count, .. } => *count += 1,
                What::Batch { change, .. } => *change = BatchChange::Freeze,
                _ => {}
            },
            2 => {
                let fresh = self.id();
                ask.id = fresh;
            }
            3 if ask.what.takes_why() => ask.why = Some(self.why()),
            _ => {}
        }
        ask
    }

    pub fn some_asks(&mut self) -> Vec<Ask> {
        let count = match self.random.below(10) {
            0..4 => 1,
            4..9 => 1 + self.random.below(12),
            _ => 1 + self.random.below(64),
        };
        let mut asks: Vec<Ask> = if self.random.percent(3) { self.guesses() } else { Vec::new() };
        for _ in asks.len()..count as usize {
            let ask = if self.random.percent(10) && !asks.is_empty() {
                self.random.pick(&asks).clone()
            } else if self.random.percent(20) && !self.asked.is_empty() {
                self.asked_again()
            } else {
                self.fresh_ask()
            };
            if self.asked.len() < ASKED_MAX {
                self.asked.push(ask.clone());
            } else {
                let at = self.random.below(ASKED_MAX as u64) as usize;
                self.asked[at] = ask.clone();
            }
            asks.push(ask);
        }
        asks
    }

    /// The rows of an import: new codes, and with some luck one that is there already.
    pub fn some_rows(&mut self, tenant: u16, spec: &ImportSpec) -> Vec<Row> {
        let mut rows: Vec<Row> = Vec::new();
        let doubtful = self.random.percent(15);
        for _ in 0..spec.rows {
            let code = if doubtful && self.random.percent(10) && !rows.is_empty() {
                self.random.pick(&rows).code.clone()
            } else if doubtful && self.random.percent(10) {
                self.code()
            } else {
                format!("CODE-{tenant}-{:05}", self.random.below(100_000))
            };
            rows.push(Row {
                code,
                pin: spec.pins.then(|| format!("{:04}", self.random.below(3))),
                face: spec.faces.then(|| *self.random.pick(&[0, 100, 101, 102])),
                expires_ms: if spec.expiries && self.random.percent(70) { self.soon() } else { 0 },
                origin: spec.origins.then(|| self.some_origin(spec)),
            });
        }
        rows
    }

    /// What a card was elsewhere; now and then what it cannot have been.
    fn some_origin(&mut self, spec: &ImportSpec) -> kami_engine::Origin {
        use kami_engine::{OrderId, Origin};
        let kind =
            self.oracle.products.get(&spec.product.0).map_or(CardKind::Single, |known| known.spec.kind);
        let in_parts = matches!(kind, CardKind::MultiUse | CardKind::StoredValue);
        let now_ms = self.oracle.now_ms;
        let ago = |random: &mut kami_tests::random::Random| {
            now_ms - random.below(3 * 24 * 3600 * 1000).min(now_ms - 1)
        };
        let sold_ms = if self.random.percent(70) { ago(&mut self.random) } else { 0 };
        let order = self.random.percent(50).then(|| OrderId(1 + u128::from(self.random.below(30))));
        let sold = Origin { state: Lifecycle::Sold, sold_ms, order, ..Origin::default() };
        match self.random.below(100) {
            0..30 => Origin::default(),
            30..35 => Origin { frozen: true, ..Origin::default() },
            35..70 if in_parts && self.random.percent(60) => {
                let left = 1 + self.random.below(100) as i64;
                let redeemed_ms = if self.random.percent(50) { now_ms } else { 0 };
                Origin { remaining: Some(left), redeemed_ms, ..sold }
            }
            35..65 => sold,
            65..70 => Origin { frozen: true, ..sold },
            70..85 => Origin { state: Lifecycle::Redeemed, redeemed_ms: now_ms, ..sold },
            85..92 => Origin { state: Lifecycle::Voided, ..sold },
            _ => Origin { state: Lifecycle::Returned, ..sold },
        }
    }

    pub fn some_import_spec(&mut self, product: u32) -> ImportSpec {
        let rows = if self.random.percent(3) { 0 } else { 1 + self.random.below(50) };
        ImportSpec {
            label: if self.random.percent(2) { "x".repeat(129) } else { format!("order {rows}") },
            pins: self.random.percent(30),
            faces: self.random.percent(30),
            expiries: self.random.percent(40),
            face: if self.random.percent(30) { Some(*self.random.pick(&[0, 500])) } else { None },
            valid_from_ms: if self.random.percent(10) { self.soon() } else { 0 },
            expires_ms: match self.random.below(10) {
                0 => self.oracle.now_ms,
                1..4 => self.soon(),
                _ => 0,
            },
            active: self.random.percent(85),
            skip_duplicates: self.random.percent(50),
            ..ImportSpec::of(ProductId(product), rows, 20)
        }
    }
}

/// The code of a report.
fn code_of(what: &What) -> Option<&str> {
    match what {
        What::Advice { code, .. } => Some(code),
        _ => None,
    }
}
