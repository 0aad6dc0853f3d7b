//! What the world is asked, drawn by seed: mostly sense, and all kinds of nonsense.
//!
//! Few cards, few orders and few ids, so that everything meets everything: the same card several times
//! in one batch, ids used again with another body, by another principal, on another card.

mod cards;
mod control;
mod objects;
mod orders;

use kami_engine::{
    AccountId, Caller, CertificateNote, OrderState, PrincipalId, ProductId, Renewal, Role, TenantId,
};

use super::world::World;
use crate::ask::{Ask, BatchChange, Deadline, What, caller};

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
}

/// The code of a report.
fn code_of(what: &What) -> Option<&str> {
    match what {
        What::Advice { code, .. } => Some(code),
        _ => None,
    }
}
