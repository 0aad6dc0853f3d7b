//! RETURN: sold cards come back, and money with them.
//!
//! A card whose code nobody can have seen is as good as new and goes into stock again; one that was seen is RETURNED, and
//! is sold no more.
//!
//! # Invariants
//! * Only cards that are SOLD and of which nothing is held come back; of a shared card, one use that nobody used or holds.
//! * In doubt a code was seen: whatever moved a card since it was given to its order, somebody asked for who had the code.

use super::{GivenBack, RETURN_CARDS_MAX, RETURNS_MAX, Retry};
use crate::account::LEGS_MAX;
use crate::command::Request;
use crate::orders::OrderState;
use crate::product::{CardKind, Money};
use crate::record::{Kind, OrderFacts};
use crate::reply::Reply;
use crate::sequencer::{OrderPast, Turn};
use crate::status::Status;
use crate::stock::Search;
use crate::table::Batch;
use crate::word::{CardRef, Flags, Lifecycle, Word};

impl Turn<'_> {
    /// RETURN: sold cards come back. Those whose code nobody saw go into stock again.
    pub(super) fn take_back(
        &mut self,
        request: &Request,
        body: u32,
        past: &OrderPast,
        given: &GivenBack,
        cards: &[Option<CardRef>],
        search: &mut Search,
    ) -> Reply {
        match self.order_retry(request, body, past, &[Kind::Return]) {
            None => {}
            Some(Retry::Reused) => return self.refuse(request, Status::IdReused),
            Some(Retry::Replay(same)) => return self.replay_order(request, past, same),
        }
        match past.word.state() {
            OrderState::Sold => {}
            OrderState::Cancelled => return self.refuse(request, Status::OrderCancelled),
            OrderState::Reserved | OrderState::TimedOut | OrderState::Migrated => {
                return self.refuse(request, Status::IllegalTransition);
            }
        }
        if given.cards.len() > RETURN_CARDS_MAX || given.legs.len() > LEGS_MAX {
            return self.refuse(request, Status::Malformed);
        }
        if past.returns >= RETURNS_MAX && !given.cards.is_empty() {
            return self.refuse(request, Status::ReturnsExhausted);
        }
        // A code that nobody has is no card of the order, and takes as long to tell as a card of another's.
        search.clear();
        let mut seen = past.word.is_fetched();
        for card in past.own_cards() {
            if !given.cards.is_empty() && !cards.contains(&Some(card)) {
                continue;
            }
            let batch = self.sequencer.table.batch_of(card).expect("an order's cards are committed");
            let word = batch.word(card.row());
            let shared = batch.kind == CardKind::Shared;
            if word.lifecycle() != Lifecycle::Sold || !shared && word.flags().contains(Flags::HELD) {
                if given.cards.is_empty() && !word.belongs_to_order() {
                    continue;
                }
                return self.refuse(request, Status::IllegalTransition);
            }
            if shared {
                // What others did with their uses of it is none of this order's.
                let unused = Money::from(self.state.shared_row(batch, card.row()).unused());
                if unused <= self.state.holds.of(card, self.state.now_ms).amount {
                    return self.refuse(request, Status::UsesExhausted);
                }
                seen |= !past.sealed;
            } else {
                seen |= self.was_seen(past, batch, card, word);
            }
            self.add_card(batch, card, word, search);
        }
        let count = search.cards.count();
        if count == 0 || (!given.cards.is_empty() && count as usize != given.cards.len()) {
            return self.refuse(request, Status::NotFound);
        }
        if let Err(refused) = self.may_move(request, &given.legs, &[]) {
            return self.refuse_legs(request, refused);
        }
        let facts = OrderFacts {
            account: past.facts.account,
            ip: past.facts.ip,
            prev: past.word.bits(),
            // Whose codes nobody has seen come back into stock.
            sealed: !seen,
            legs: self.legs(&given.legs),
            ..OrderFacts::default()
        };
        if !self.fits(request, &facts, 0, &search.cards) {
            return self.refuse(request, Status::OrderTooLarge);
        }
        if !self.has_credit() {
            return self.refuse(request, self.short());
        }
        let lsn = self.record_order(request, body, given.order, Kind::Return, &facts, 0, &[], search);
        self.order_reply(request, lsn, given.order, past.buyer, &past.facts, count)
    }

    /// Whether somebody saw the code of a card of this order. A card is named by its code: what moved it since its sale,
    /// as a redemption that was reversed or a hold that was released, somebody asked for who had the code, and so had
    /// whoever tried its PIN or reported it from offline. What is on a card used in parts that took the place of another
    /// was on that one, whose code somebody had who used it: it is no new card, and never one in stock again.
    fn was_seen(&self, past: &OrderPast, batch: &Batch, card: CardRef, word: Word) -> bool {
        word.flags().contains(Flags::REVEALED)
            || batch.kind != CardKind::Single && past.took_a_place(card)
            || word.lsn() != Some(past.given_at(card))
            || self.state.exceptions.is_of(card)
            || self.state.pins.is_locked_for_any(card, self.state.now_ms)
    }
}
