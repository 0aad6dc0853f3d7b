//! What takes two people: wishes, approvals, and who may not.

use kami_engine::{Caller, DualControl, Kind, OrderState, ProposalState};

use super::{ADMIN, AUDITOR, FINANCE, OPERATOR};
use crate::ask::What;
use crate::model::control_rules::Proposed;
use crate::model::oracle::Past;
use crate::model::world::World;

impl World {
    /// What can be proposed, and by whom.
    pub(super) fn wish(&mut self) -> (Caller, What) {
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
    pub(super) fn refundable(&mut self) -> (String, u128) {
        let oracle = &self.oracle;
        let over: Vec<(String, u128)> = oracle
            .places()
            .filter(|(tenant, _)| *tenant == 0)
            .flat_map(|(_, place)| {
                let product = &oracle.products[&oracle.batches[&place.0].product];
                let window_ms = u64::from(product.spec.reversal_s) * 1000;
                let card = oracle.card(place);
                let over = move |past: &&Past| {
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

    pub(super) fn tenant_control(&mut self) -> What {
        let control = DualControl {
            on: self.random.percent(50),
            reveal_cards: self.random.below(4) as u32,
            lapse_s: *self.random.pick(&[59, 60, 100, 3600, 24 * 3600, 24 * 3600]),
        };
        What::TenantControl { tenant: *self.random.pick(&[0, 0, 0, 1, 2]), control }
    }

    /// Something about proposals; a fetch may name one.
    pub(super) fn about_control(&mut self) -> (Caller, What, Option<u128>) {
        let count = self.oracle.proposals.len() as u64;
        let some = |world: &mut World, wanted: &dyn Fn(&Proposed) -> bool| {
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
                let fetches = |it: &Proposed| matches!(it.what(), What::Fetch { .. });
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
}
