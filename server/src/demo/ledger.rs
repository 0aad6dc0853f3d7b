//! The client's own ledger: what replies it has read, and whether the server still knows of each.

use std::collections::HashSet;
use std::sync::Arc;

use kami_engine::record::Kind;
use kami_engine::{HistoryEvent, Lsn, RequestId};

use super::Partial;
use super::plan::Plan;

/// What was acknowledged of one card.
#[derive(Clone, Copy, Default)]
pub struct Promise {
    /// The order that bought it, and the receipt.
    pub sale: Option<(u32, Lsn)>,
    /// The receipt of its redemption.
    pub redeem: Option<Lsn>,
}

/// Every reply that was read.
pub struct Ledger {
    pub plan: Arc<Plan>,
    cards: Vec<Promise>,
    /// Cards that two replies gave to two orders.
    in_two_orders: HashSet<u32>,
    acknowledged: u64,
    /// Requests without a reply at the kill that have one now.
    pub unknown_resolved: u64,
    /// Those of them whose effect was there already.
    pub replayed: u64,
    orders: u64,
    /// Replies that say what cannot be: refusals, or codes that are none of ours.
    pub unexpected: u64,
    /// The first of them, in words.
    pub first_unexpected: Option<String>,
}

impl Ledger {
    pub fn new(plan: Arc<Plan>) -> Ledger {
        Ledger {
            cards: vec![Promise::default(); plan.cards as usize],
            plan,
            in_two_orders: HashSet::new(),
            acknowledged: 0,
            unknown_resolved: 0,
            replayed: 0,
            orders: 0,
            unexpected: 0,
            first_unexpected: None,
        }
    }

    /// Enters what one channel heard.
    pub fn add(&mut self, part: Partial) {
        self.acknowledged += part.acknowledged;
        self.unknown_resolved += part.unknown_resolved;
        self.replayed += part.replayed;
        self.unexpected += part.unexpected;
        self.first_unexpected = self.first_unexpected.take().or(part.first_unexpected);
        self.orders += part.orders;
        for (order, card, lsn) in part.sales {
            let promise = &mut self.cards[card as usize];
            if promise.sale.is_some_and(|(other, _)| other != order) {
                self.in_two_orders.insert(card);
            }
            promise.sale = Some((order, lsn));
        }
        for (card, lsn) in part.redemptions {
            self.cards[card as usize].redeem = Some(lsn);
        }
    }

    pub fn promise(&self, card: u32) -> Promise {
        self.cards[card as usize]
    }

    /// Every card that a reply was about.
    pub fn promised(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.plan.cards).filter(|card| {
            let promise = self.promise(*card);
            promise.sale.is_some() || promise.redeem.is_some()
        })
    }

    pub fn sold(&self) -> u64 {
        self.cards.iter().filter(|promise| promise.sale.is_some()).count() as u64
    }

    pub fn redeemed(&self) -> u64 {
        self.cards.iter().filter(|promise| promise.redeem.is_some()).count() as u64
    }

    pub const fn orders(&self) -> u64 {
        self.orders
    }

    /// Holds a card's recovered history, newest first, against what was promised: how many acknowledged
    /// effects are missing, and whether anything was done twice.
    pub fn judge(&self, card: u32, history: &[HistoryEvent]) -> (u64, bool) {
        let promise = self.promise(card);
        let has = |kind: Kind, request: RequestId, lsn: Lsn, related: Option<u128>| {
            history.iter().any(|event| {
                event.kind == kind
                    && event.request == request
                    && event.lsn == lsn
                    && related.is_none_or(|related| event.related == related)
            })
        };
        let mut lost = 0;
        if let Some((order, lsn)) = promise.sale
            && !has(Kind::Sell, self.plan.sale_id(order), lsn, Some(self.plan.order_id(order).0))
        {
            lost += 1;
        }
        if let Some(lsn) = promise.redeem
            && !has(Kind::Redeem, self.plan.redeem_id(card), lsn, None)
        {
            lost += 1;
        }
        let times = |kind: Kind| history.iter().filter(|event| event.kind == kind).count();
        let twice = times(Kind::Sell) > 1 + times(Kind::Return)
            || times(Kind::Redeem) > 1 + times(Kind::Reverse)
            || self.in_two_orders.contains(&card);
        (lost, twice)
    }
}

/// What came out of asking for every card.
#[derive(Clone, Copy, Default)]
pub struct Audit {
    pub asked: u64,
    pub lost: u64,
    pub done_twice: u64,
    pub acknowledged: u64,
    pub unknown_resolved: u64,
    pub unexpected: u64,
}

impl Audit {
    /// What the ledger alone says.
    pub fn of(ledger: &Ledger) -> Audit {
        Audit {
            acknowledged: ledger.acknowledged,
            unknown_resolved: ledger.unknown_resolved,
            unexpected: ledger.unexpected,
            ..Audit::default()
        }
    }

    pub fn add(&mut self, part: Audit) {
        self.asked += part.asked;
        self.lost += part.lost;
        self.done_twice += part.done_twice;
        self.unexpected += part.unexpected;
    }
}

#[cfg(test)]
mod tests {
    use kami_engine::{ChannelId, Flags, Lifecycle, MerchantId, PrincipalId, TerminalId};

    use super::*;

    fn lsn(bytes: u64) -> Lsn {
        Lsn::from_bytes(bytes).unwrap()
    }

    fn event(kind: Kind, request: RequestId, at: u64, related: u128) -> HistoryEvent {
        HistoryEvent {
            kind,
            lsn: lsn(at),
            time_ms: 0,
            lifecycle: Lifecycle::Sold,
            flags: Flags::NONE,
            principal: PrincipalId(1),
            terminal: TerminalId(0),
            merchant: MerchantId(0),
            channel: ChannelId(0),
            request,
            related,
            amount: 0,
            remaining: 0,
            made_ms: 0,
            grounds: None,
        }
    }

    /// The proof is worth something only if it can fail.
    #[test]
    fn what_is_lost_or_done_twice_is_seen() {
        let plan = Arc::new(Plan::new(2000));
        let mut ledger = Ledger::new(Arc::clone(&plan));
        ledger.add(Partial {
            sales: vec![(0, 5, lsn(800)), (1, 6, lsn(1600))],
            redemptions: vec![(5, lsn(2400))],
            ..Partial::default()
        });
        let sale = event(Kind::Sell, plan.sale_id(0), 800, plan.order_id(0).0);
        let redeem = event(Kind::Redeem, plan.redeem_id(5), 2400, 0);
        assert_eq!(ledger.judge(5, &[redeem.clone(), sale.clone()]), (0, false));
        assert_eq!(ledger.judge(5, std::slice::from_ref(&sale)), (1, false), "the redemption is gone");
        assert_eq!(ledger.judge(5, &[]), (2, false), "all is gone");
        let moved = event(Kind::Redeem, plan.redeem_id(5), 3200, 0);
        assert_eq!(
            ledger.judge(5, &[moved.clone(), sale.clone()]),
            (1, false),
            "not the one with this receipt"
        );
        let other = event(Kind::Redeem, plan.redeem_id(6), 3200, 0);
        assert_eq!(
            ledger.judge(5, &[other.clone(), redeem.clone(), sale.clone()]),
            (0, true),
            "redeemed twice"
        );
        let reverse = event(Kind::Reverse, plan.sale_id(9), 2800, 0);
        assert_eq!(
            ledger.judge(5, &[other.clone(), reverse.clone(), redeem.clone(), sale.clone()]),
            (0, false),
            "reversed in between"
        );
        let resale = event(Kind::Sell, plan.sale_id(1), 3200, plan.order_id(1).0);
        assert_eq!(ledger.judge(5, &[resale.clone(), redeem.clone(), sale.clone()]), (0, true), "sold twice");
        assert_eq!(ledger.judge(6, std::slice::from_ref(&sale)), (1, false), "sold, but in another order");

        ledger.add(Partial { sales: vec![(2, 6, lsn(4000))], ..Partial::default() });
        assert!(ledger.judge(6, &[]).1, "two replies gave it to two orders");
        assert_eq!(ledger.promised().collect::<Vec<_>>(), [5, 6]);
    }
}
