//! What becomes of a reservation: CONFIRM, CANCEL, and the time-out that the engine itself asks for.
//!
//! # Invariants
//! * A reservation that is over is over by engine time, whether its time-out ran or not: no decision waits for that.
//! * A payment that came too late gets cards only if it asks for that, and then the same ones or equal ones, for as long
//!   a validity as was asked, under the limits as they are now.
//! * What a CANCEL or time-out gives back stands in its own entry: a snapshot may have the count of a reservation that it
//!   lists no more.

use super::{Confirmation, Retry};
use crate::account::{LEGS_MAX, Leg};
use crate::command::Request;
use crate::identity::{AccountId, PrincipalId, TenantId};
use crate::orders::{OrderState, Reservation};
use crate::product::CardKind;
use crate::record::{Kind, OrderFacts};
use crate::reply::Reply;
use crate::sequencer::{OrderPast, Turn};
use crate::status::Status;
use crate::stock::{Search, Shared};
use crate::word::Lifecycle;

impl Turn<'_> {
    /// CONFIRM: the reservation was paid.
    pub(super) fn confirm(
        &mut self,
        request: &Request,
        body: u32,
        past: &OrderPast,
        confirmation: &Confirmation,
        search: &mut Search,
    ) -> Reply {
        match self.order_retry(request, body, past, &[Kind::Confirm, Kind::Realloc]) {
            None => {}
            Some(Retry::Reused) => return self.refuse(request, Status::IdReused),
            Some(Retry::Replay(same)) => return self.replay_order(request, past, same),
        }
        if confirmation.legs.len() > LEGS_MAX {
            return self.refuse(request, Status::Malformed);
        }
        let late = past.deadline_ms <= self.state.now_ms;
        match past.word.state() {
            OrderState::Sold | OrderState::Migrated => {
                return self.refuse(request, Status::IllegalTransition);
            }
            OrderState::Cancelled => return self.refuse(request, Status::OrderCancelled),
            OrderState::Reserved | OrderState::TimedOut if late && !confirmation.realloc => {
                return self.refuse(request, Status::ReservationExpired);
            }
            OrderState::Reserved | OrderState::TimedOut => {}
        }
        let found = match past.word.state() {
            OrderState::Reserved => self.reserved_cards(past, search),
            _ => self.take_again(request.caller.tenant, past, search),
        };
        if let Err(status) = found {
            self.state.advance(search, false);
            return self.refuse(request, status);
        }
        let kind = if past.word.state() == OrderState::Reserved { Kind::Confirm } else { Kind::Realloc };
        let agreed: Vec<Leg> = past.facts.legs.iter().map(|posted| posted.leg).collect();
        let legs = if confirmation.legs.is_empty() { &agreed } else { &confirmation.legs };
        // What was set aside does not stand against itself; after a time-out nothing is.
        let held = if kind == Kind::Confirm { &agreed[..] } else { &[] };
        let buyer = past.buyer_of(request.caller.tenant);
        if let Err(refused) = self.may_buy(request, &buyer, legs, held) {
            return self.refuse_legs(request, refused);
        }
        let mut crossed = Vec::new();
        // A reservation was counted when it was made; one that timed out was given back.
        if kind == Kind::Realloc
            && let Err(exceeded) = self.within_limits(&buyer, &past.facts.lines, false, &mut crossed)
        {
            return self.refuse_exceeded(request, exceeded);
        }
        let facts = OrderFacts {
            account: past.facts.account,
            ip: past.facts.ip,
            prev: past.word.bits(),
            sealed: confirmation.sealed,
            lines: if kind == Kind::Realloc { past.facts.lines.clone() } else { Vec::new() },
            legs: self.legs(legs),
            ..OrderFacts::default()
        };
        if !self.fits(request, &facts, crossed.len(), &search.cards) {
            return self.refuse(request, Status::OrderTooLarge);
        }
        if !self.has_credit() {
            return self.refuse(request, self.short());
        }
        let lsn = self.record_order(request, body, confirmation.order, kind, &facts, 0, &crossed, search);
        let (order, sealed) = (confirmation.order, confirmation.sealed);
        self.deliver(request, lsn, order, past.buyer, &past.facts, sealed, &search.cards)
    }

    /// The cards that a reservation holds, as they are now; the reason if one of them cannot be sold.
    fn reserved_cards(&self, past: &OrderPast, search: &mut Search) -> Result<(), Status> {
        search.clear();
        for (card, _) in past.cards.cards() {
            let batch = self.sequencer.table.batch_of(card).expect("an order's cards are committed");
            let word = batch.word(card.row());
            let view = self.state.view(batch, card.row(), word);
            match word.lifecycle() {
                Lifecycle::Reserved => {}
                // Of a card that is sold many times a use is reserved, and not the card.
                Lifecycle::Available | Lifecycle::Sold if batch.kind == CardKind::Shared => {}
                Lifecycle::Voided if batch.kind == CardKind::Shared => return Err(Status::Voided),
                _ => return Err(Status::IllegalTransition),
            }
            if view.is_frozen() {
                return Err(Status::Frozen);
            }
            if view.batch_voided {
                return Err(Status::Voided);
            }
            if view.expires_ms != 0 && view.expires_ms <= self.state.now_ms {
                return Err(Status::Expired);
            }
            self.add_card(batch, card, word, search);
        }
        Ok(())
    }

    /// Cards for a payment that came too late: the same if they are all free, else equal ones.
    fn take_again(&mut self, tenant: TenantId, past: &OrderPast, search: &mut Search) -> Result<(), Status> {
        search.clear();
        // They must last as long as was asked when they were reserved, from now on.
        let validity_s_min = past.facts.validity_s_min;
        let valid_until = self.state.now_ms + u64::from(validity_s_min) * 1000;
        let same_free = past.cards.cards().all(|(card, _)| {
            let batch = self.sequencer.table.batch_of(card).expect("an order's cards are committed");
            let word = batch.word(card.row());
            let view = self.state.view(batch, card.row(), word);
            self.add_card(batch, card, word, search);
            let lasts = view.expires_ms == 0 || view.expires_ms > valid_until;
            let free = match self.state.stock(batch.id).shared() {
                Some(shared) => {
                    shared.room(card.row()) > 0 && Shared::is_for_sale(word) && !view.batch_voided
                }
                None => view.lifecycle() == Lifecycle::Available,
            };
            free && !view.is_frozen() && lasts
        });
        if same_free {
            return Ok(());
        }
        search.clear();
        let table = &self.sequencer.table;
        let mut lines = past.facts.lines.iter();
        let enough = lines.all(|line| self.state.allocate(table, tenant, line, validity_s_min, search));
        self.state.pass_over(table, search);
        if enough { Ok(()) } else { Err(Status::ReservationExpired) }
    }

    /// CANCEL and the time-out.
    pub(super) fn give_up(
        &mut self,
        request: &Request,
        body: u32,
        past: &OrderPast,
        kind: Kind,
        search: &mut Search,
    ) -> Reply {
        let order = request.command.order().expect("the caller matched the command");
        if kind == Kind::Cancel {
            match self.order_retry(request, body, past, &[Kind::Cancel]) {
                None => {}
                Some(Retry::Reused) => return self.refuse(request, Status::IdReused),
                Some(Retry::Replay(same)) => return self.replay_order(request, past, same),
            }
        } else if self.state.now_ms < past.deadline_ms {
            return self.refuse(request, Status::IllegalTransition);
        }
        match past.word.state() {
            OrderState::Reserved => {}
            OrderState::Sold | OrderState::Migrated => {
                return self.refuse(request, Status::IllegalTransition);
            }
            OrderState::Cancelled => return self.refuse(request, Status::OrderCancelled),
            OrderState::TimedOut => return self.refuse(request, Status::ReservationExpired),
        }
        if !self.has_credit() {
            return self.refuse(request, self.short());
        }
        search.clear();
        for (card, _) in past.cards.cards() {
            let batch = self.sequencer.table.batch_of(card).expect("an order's cards are committed");
            let word = batch.word(card.row());
            debug_assert!(
                word.lifecycle() == Lifecycle::Reserved || batch.kind == CardKind::Shared,
                "a reserved card moves with its order"
            );
            self.add_card(batch, card, word, search);
        }
        let facts = OrderFacts {
            account: past.facts.account,
            ip: past.facts.ip,
            // What limits are given back by, whatever became of the reservation in a snapshot.
            moment_ms: past.opened_ms,
            prev: past.word.bits(),
            lines: past.facts.lines.clone(),
            ..OrderFacts::default()
        };
        // It takes no more than its RESERVE might, which had to fit: it has the same cards and lines and no legs.
        debug_assert!(self.fits(request, &facts, 0, &search.cards), "a reservation that cannot end");
        let lsn = self.record_order(request, body, order, kind, &facts, 0, &[], search);
        self.order_reply(request, lsn, order, past.buyer, &past.facts, past.cards.count())
    }
}

impl Reservation {
    /// What is kept of a RESERVE.
    pub(crate) fn of(principal: PrincipalId, cards: u32, facts: &OrderFacts) -> Reservation {
        Reservation {
            principal,
            deadline_ms: facts.moment_ms,
            account: (facts.account != 0).then_some(AccountId(facts.account)),
            ip: facts.ip,
            cards,
            legs: facts.legs.iter().map(|leg| leg.leg).collect(),
        }
    }
}
