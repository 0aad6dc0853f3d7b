//! Codes of an order, given out: with its sale, with its retry, and by ORDER_FETCH.
//!
//! # Invariants
//! * Every time is recorded before a code is decrypted: with the first by the sale itself, then by a REVEAL each.
//! * Only cards that still belong to the order are among them.
//! * The first REVEAL of an order that was sold sealed moves its word: from then on its codes were seen.

use kami_wal::Lsn;

use crate::command::{Command, Request};
use crate::grounds::Grounds;
use crate::identity::{OrderId, PrincipalId};
use crate::orders::{OrderState, OrderWord};
use crate::record::{Allocation, HEAD_BYTES, Kind, OrderFacts, REVEAL_BYTES};
use crate::reply::{Reply, ReplyBody, ReplyFlags};
use crate::sequencer::{OrderPast, Turn};
use crate::status::Status;
use crate::vault::CodeList;
use crate::word::Word;

impl Turn<'_> {
    /// The reply of a sale: its codes, or that it was made.
    #[expect(clippy::too_many_arguments, reason = "they are the reply's parts")]
    pub(super) fn deliver(
        &self,
        request: &Request,
        lsn: Lsn,
        order: OrderId,
        buyer: PrincipalId,
        facts: &OrderFacts,
        sealed: bool,
        cards: &Allocation,
    ) -> Reply {
        let total = cards.count();
        if sealed {
            return self.order_reply(request, lsn, order, buyer, facts, total);
        }
        let list = CodeList {
            order,
            total,
            from: 0,
            count: total,
            durable_at: self.sequencer.wal.tail(),
            cards: cards.clone(),
        };
        self.reply(request, Status::Ok, Some(lsn), ReplyBody::Cards(list))
    }

    /// ORDER_FETCH: gives out codes of an order.
    pub(super) fn fetch(&mut self, request: &Request, past: &OrderPast) -> Reply {
        let &Command::OrderFetch { from, count, .. } = &request.command else {
            unreachable!("the caller matched the command")
        };
        let grounds = match self.may_fetch(request, past) {
            Ok(grounds) => grounds,
            Err(status) => return self.refuse(request, status),
        };
        match past.word.state() {
            OrderState::Sold => {
                let grounds = grounds.as_deref();
                self.reveal_again(request, grounds, past, (from, count), ReplyFlags::default())
            }
            OrderState::Reserved => self.refuse(request, Status::NotSold),
            OrderState::Cancelled => self.refuse(request, Status::OrderCancelled),
            OrderState::TimedOut => self.refuse(request, Status::ReservationExpired),
            OrderState::Migrated => self.refuse(request, Status::Migrated),
        }
    }

    /// Records that codes of an order are given out again, and lists those that still belong to it.
    pub(super) fn reveal_again(
        &mut self,
        request: &Request,
        grounds: Option<&Grounds>,
        past: &OrderPast,
        (from, count): (u32, u32),
        flags: ReplyFlags,
    ) -> Reply {
        if !self.has_credit() {
            return self.refuse(request, self.short());
        }
        let mut list = CodeList {
            order: past.order,
            total: 0,
            from,
            count: 0,
            durable_at: past.word.lsn(),
            cards: Allocation::default(),
        };
        for card in past.own_cards() {
            let batch = self.sequencer.table.batch_of(card).expect("a sale's cards are committed");
            if !batch.word(card.row()).belongs_to_order() {
                continue;
            }
            if list.total >= from && list.count < count {
                list.cards.push(card, Word::PRISTINE);
                list.count += 1;
            }
            list.total += 1;
        }
        let first = past.sealed && !past.word.is_fetched();
        let prev = if first { past.word.bits() } else { 0 };
        let head = request.head(Kind::Reveal, request.body());
        let tail_bytes = if first { REVEAL_BYTES + 8 } else { REVEAL_BYTES };
        let lsn = self.append(HEAD_BYTES + tail_bytes + grounds.map_or(0, Grounds::bytes), |group| {
            group.push_on(&head, grounds, tail_bytes, |tail| {
                tail[..16].copy_from_slice(&past.order.0.to_le_bytes());
                tail[16..20].copy_from_slice(&from.to_le_bytes());
                tail[20..24].copy_from_slice(&list.count.to_le_bytes());
                tail[24..].copy_from_slice(&prev.to_le_bytes()[..tail_bytes - REVEAL_BYTES]);
            })
        });
        if first {
            let key = (request.caller.tenant, past.order);
            self.state.orders.put(key, OrderWord::new(lsn, OrderState::Sold, true));
        }
        list.durable_at = self.sequencer.wal.tail();
        let mut reply = self.reply(request, Status::Ok, Some(past.sold_at), ReplyBody::Cards(list));
        reply.flags = flags;
        reply
    }
}
