//! How codes leave under an approval: by an export, or by fetching those of another's order.
//!
//! Both are deliveries of an order, and every page of them is a logged reveal: see `order/reveal.rs`. Here stands which cards an
//! export takes, and who may fetch what.

use kami_wal::{Lsn, planted};

use super::{InQuestion, ProposalState, Proposed};
use crate::command::{Command, ORDER_CARDS_MAX, Request};
use crate::grounds::Grounds;
use crate::identity::{BatchId, OrderId};
use crate::order::Line;
use crate::record::{GROUP_HEAD_BYTES, HEAD_BYTES, Head, Kind, OrderFacts};
use crate::sequencer::{OrderPast, Turn};
use crate::status::Status;
use crate::stock::Search;

impl Turn<'_> {
    /// Looks for the cards of an export.
    pub(super) fn exportable(
        &self,
        request: &Request,
        id: BatchId,
        count: u32,
        search: &mut Search,
    ) -> Result<(), Status> {
        let tenant = request.caller.tenant;
        let table = &self.sequencer.table;
        if count == 0 {
            return Err(Status::Malformed);
        }
        let entries = HEAD_BYTES + OrderFacts::entry_bytes_max(count.min(ORDER_CARDS_MAX), 1, 0);
        let group_bytes = GROUP_HEAD_BYTES + entries + 2 * Grounds::BYTES_MAX;
        if count > ORDER_CARDS_MAX || group_bytes > self.sequencer.wal.payload_bytes_max() {
            return Err(Status::OrderTooLarge);
        }
        let known = self.state.batch_stock(id, tenant).and_then(|stock| Some((stock, table.batch(id)?)));
        let Some((stock, batch)) = known else { return Err(Status::NotFound) };
        if !self.state.scope(request.caller.principal).is_some_and(|scope| scope.covers(batch.product)) {
            return Err(Status::ScopeDenied);
        }
        if stock.shared().is_some() {
            // Each use is sold to somebody; who has the code of one has that of all.
            return Err(Status::SharedUnfit);
        }
        if batch.is_voided() {
            return Err(Status::Voided);
        }
        if batch.is_frozen() || self.state.is_product_frozen(self.state.product_of(batch)) {
            return Err(Status::Frozen);
        }
        if self.state.orders.find(&(tenant, OrderId(request.id.0))).is_some() {
            return Err(Status::AlreadyExists);
        }
        search.clear();
        let (now_ms, mut missing) = (self.state.now_ms, u64::from(count));
        stock.find(batch, now_ms, now_ms, None, |_| true, &mut missing, search);
        if search.cards.count() == 0 { Err(Status::OutOfStock) } else { Ok(()) }
    }

    /// Sells the cards that were found to an order of the proposer's. Returns where the approval stands.
    pub(super) fn export(
        &mut self,
        asked: &InQuestion,
        batch: BatchId,
        approval: (&Head, Option<&Grounds>),
        search: &mut Search,
    ) -> Lsn {
        let request = &asked.request;
        let product = self.sequencer.table.batch(batch).expect("its cards were found").product;
        let line = Line { product, count: search.cards.count(), face: None };
        let facts = OrderFacts { sealed: true, lines: vec![line], ..OrderFacts::default() };
        let order = OrderId(request.id.0);
        let (body, subject) = (asked.prepared.body, u64::from(batch.0));
        self.record_order_behind(
            Some(approval),
            request,
            body,
            order,
            Kind::Export,
            &facts,
            subject,
            &[],
            search,
        )
    }

    /// Whether the caller may fetch codes of the order, and under which grounds: its buyer may; another who looks
    /// after all, if a second person approved, or if the tenant allows as many cards without.
    pub(crate) fn may_fetch(
        &self,
        request: &Request,
        past: &OrderPast,
    ) -> Result<Option<Box<Grounds>>, Status> {
        let &Command::OrderFetch { order, from, count } = &request.command else {
            unreachable!("the caller matched the command")
        };
        let (caller, grounds) = (&request.caller, &request.grounds);
        let approval = grounds.as_ref().and_then(|grounds| grounds.approval);
        if (past.buyer == caller.principal || planted("reveal-to-anyone")) && approval.is_none() {
            return Ok(grounds.clone());
        }
        let allowed = (Proposed::OrderFetch { order, from, count }).allows(caller.role);
        if !allowed || !self.scope_covers(caller.principal, past) {
            return Err(Status::NotFound);
        }
        let control = self.state.proposals.control(caller.tenant);
        let Some(id) = approval else {
            let cards = past.own_cards().count();
            return match control.on && cards <= control.reveal_cards as usize {
                true => Ok(grounds.clone()),
                false => Err(Status::ApprovalRequired),
            };
        };
        let standing = self.state.proposals.find(caller.tenant, id).ok_or(Status::NotFound)?;
        if standing.proposer.principal != caller.principal || !standing.proposed.reveals(order, from, count) {
            return Err(Status::NotFound);
        }
        let now_ms = self.state.now_ms;
        match (&standing.end, standing.state(now_ms)) {
            (Some(end), ProposalState::Approved) => {
                if end.time_ms + u64::from(standing.lapse_s) * 1000 <= now_ms {
                    return Err(Status::ProposalLapsed);
                }
                let mut grounds = grounds.clone().unwrap_or_default();
                grounds.approver = Some(end.principal);
                if grounds.why.is_empty() {
                    grounds.why.clone_from(&standing.why);
                }
                Ok(Some(grounds))
            }
            (_, ProposalState::Withdrawn) => Err(Status::ProposalWithdrawn),
            (_, ProposalState::Lapsed) => Err(Status::ProposalLapsed),
            _ => Err(Status::ApprovalRequired),
        }
    }
}
