//! What is asked about orders, and the money that pays for them.

use kami_engine::{
    AccountId, AccountKind, AccountSpec, Caller, DocumentId, Leg, LimitAction, LimitScope, LimitSpec,
    LimitWindow, Line, OrderState, Posting, PrincipalId, ProductId, Purchase,
};

use super::{OPERATOR, SELLERS};
use crate::ask::What;
use crate::model::world::World;

impl World {
    /// An order of tenant 0 that stands so, with its buyer; or any order, and anybody.
    pub(super) fn order_in(&mut self, states: &[OrderState]) -> (Caller, u128) {
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
    pub(super) fn order_ask(&mut self) -> (Caller, What) {
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

    pub(super) fn purchase(&mut self, order: u128) -> Purchase {
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
    pub(super) fn legs(&mut self) -> Vec<Leg> {
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

    pub(super) fn account(&mut self) -> u32 {
        1 + self.random.below(self.oracle.accounts.len() as u64 + 1) as u32
    }

    /// Mostly one that money can be paid from.
    pub(super) fn good_account(&mut self) -> u32 {
        let good = self.oracle.accounts.iter();
        let good = good.filter(|(_, book)| book.account.tenant.0 == 0 && !book.account.frozen);
        let good: Vec<u32> = good.map(|(id, _)| *id).collect();
        if good.is_empty() || self.random.percent(8) { self.account() } else { *self.random.pick(&good) }
    }

    /// What is asked about money. Some accounts are there from early on, and limits come and go.
    pub(super) fn money(&mut self) -> What {
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
}
