//! What is reserved and not paid: how much of it one subject may have at a time, and how much it has.
//!
//! # Invariants
//! * Nobody can hoard the stock, whoever forgets to set limits: without one of the tenant's own a cap stands.
//! * It follows from the orders that wait: kept while running, derived anew after recovery, never stored.

use super::{Buyer, Limits};
use crate::identity::LimitId;
use crate::limit::{Exceeded, LimitWindow, Subject};
use crate::status::Status;

/// So much may be reserved and not paid at a time where the tenant sets no limit of its own for it: so that
/// nobody can hoard the stock, whoever forgets to set limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OpenCap {
    /// Cards.
    pub cards: u64,
    /// Orders.
    pub orders: u64,
}

impl OpenCap {
    /// Of an account: two of the largest orders.
    pub(super) const ACCOUNT: OpenCap = OpenCap { cards: 200_000, orders: 1_000 };
    /// Of an address: one of the largest orders.
    pub(super) const IP: OpenCap = OpenCap { cards: 100_000, orders: 100 };
    /// Of whoever sends the orders, who buys for many: what memory bears.
    pub(super) const BUYER: OpenCap = OpenCap { cards: 50_000_000, orders: 1_000_000 };

    const fn of(subject: Subject) -> OpenCap {
        match subject {
            Subject::Account(_) => OpenCap::ACCOUNT,
            Subject::Ip(_) => OpenCap::IP,
            _ => OpenCap::BUYER,
        }
    }
}

/// What is reserved by one subject and not paid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Open {
    pub(super) cards: u64,
    pub(super) orders: u64,
}

impl Limits {
    /// An order of so many cards is reserved and not paid from now on.
    pub fn open(&mut self, buyer: &Buyer, cards: u64) {
        for subject in buyer.reserving() {
            let open = self.open.entry((buyer.tenant, subject)).or_default();
            open.cards += cards;
            open.orders += 1;
        }
    }

    /// It is paid, cancelled or timed out.
    pub fn close(&mut self, buyer: &Buyer, cards: u64) {
        for subject in buyer.reserving() {
            let key = (buyer.tenant, subject);
            let Some(open) = self.open.get_mut(&key) else { continue };
            open.cards = open.cards.saturating_sub(cards);
            open.orders = open.orders.saturating_sub(1);
            if *open == Open::default() {
                self.open.remove(&key);
            }
        }
    }

    /// Nothing is open any more: before what is open is derived anew.
    pub fn close_all(&mut self) {
        self.open.clear();
    }

    /// What stands against a reservation of so many cards where no limit of the tenant's own speaks of it.
    pub(super) fn weigh_caps(&self, buyer: &Buyer, cards: u64) -> Option<Exceeded> {
        let own = |subject, window| {
            let mut standing = self.standing_in(buyer.tenant).map(|state| &state.limit.spec);
            standing.any(|spec| spec.window == window && buyer.subject(spec) == Some(subject))
        };
        let mut reserving = buyer.reserving();
        reserving.find_map(|subject| {
            let open = self.open.get(&(buyer.tenant, subject)).copied().unwrap_or_default();
            let cap = OpenCap::of(subject);
            let parts = [
                (LimitWindow::OpenCards, open.cards, cards, cap.cards),
                (LimitWindow::OpenOrders, open.orders, 1, cap.orders),
            ];
            let mut over = parts.into_iter().filter(|(_, used, wanted, max)| used + wanted > *max);
            over.find(|(window, ..)| !own(subject, *window)).map(|(_, used, _, max)| Exceeded {
                limit: LimitId(0),
                status: Status::LimitReservations,
                left: max.saturating_sub(used),
                opens_ms: u64::MAX,
            })
        })
    }
}
