//! Orders: selling cards, and giving their codes out again.
//!
//! They run in the sequencer. A sale is one record, whatever its size; its cards are taken last, when nothing
//! else can refuse it. Codes given out again are those that still belong to the order, to its buyer alone,
//! and every time is recorded before a code is decrypted.

use crate::command::{Command, ORDER_CARDS_MAX, Request};
use crate::identity::OrderId;
use crate::record::{Allocation, GROUP_HEAD_BYTES, HEAD_BYTES, Head, Kind};
use crate::reply::{Reply, ReplyBody, ReplyFlags};
use crate::sequencer::{Detail, Sale, Turn, Work};
use crate::status::Status;
use crate::vault::CodeList;
use crate::word::{Flags, Lifecycle, Word};

impl Turn<'_> {
    /// A sale or the codes of an earlier one. `None` if the order has to be read first.
    pub(crate) fn sell(&mut self, work: &mut Work, at: usize) -> Option<Reply> {
        let request = &work.requests[at];
        let Command::Sell { order, product, count, validity_s_min } = request.command else {
            unreachable!("the caller matched the command")
        };
        let key = (request.caller.tenant, order);
        if let Some(lsn) = self.state.orders.find(&key) {
            let Detail::Sale(sale) = &work.prepared[at].detail else { return None };
            debug_assert_eq!(sale.effect.lsn, lsn, "an order has one sale");
            if sale.request != request.id {
                return Some(self.refuse(request, Status::AlreadyExists));
            }
            if sale.effect.body != work.prepared[at].body || sale.effect.principal != request.caller.principal
            {
                return Some(self.refuse(request, Status::IdReused));
            }
            return Some(self.reveal_again(request, order, sale, 0, u32::MAX, ReplyFlags::REPLAYED));
        }
        if count == 0 {
            return Some(self.refuse(request, Status::Malformed));
        }
        if count > ORDER_CARDS_MAX
            || GROUP_HEAD_BYTES + Allocation::entry_bytes_max(count) > self.sequencer.wal.payload_bytes_max()
        {
            return Some(self.refuse(request, Status::OrderTooLarge));
        }
        let Some(product) = self.state.product(product, request.caller.tenant) else {
            return Some(self.refuse(request, Status::NotFound));
        };
        if product.product.frozen {
            return Some(self.refuse(request, Status::Frozen));
        }
        if !self.has_credit() {
            return Some(self.refuse(request, self.short()));
        }
        // Stock is taken last, when nothing else can be refused.
        let product_id = product.product.id;
        let search = &mut work.search;
        if !self.state.allocate(&self.sequencer.table, product, count, validity_s_min, search) {
            return Some(self.refuse(request, Status::OutOfStock));
        }
        let post = Word::state_of(Lifecycle::Sold, Flags::REVEALED);
        let head = Head {
            post,
            subject: u64::from(product_id.0),
            ..request.head(Kind::Sell, work.prepared[at].body)
        };
        let tail_bytes = search.cards.tail_bytes();
        let lsn = self.append(HEAD_BYTES + tail_bytes, |group| {
            group.push(&head, tail_bytes, |tail| search.cards.encode(order, tail))
        });
        self.state.sell(&self.sequencer.table, lsn, key, search);
        let list = CodeList {
            order,
            total: count,
            from: 0,
            count,
            durable_at: self.sequencer.wal.tail(),
            cards: search.cards.clone(),
        };
        Some(self.reply(request, Status::Ok, Some(lsn), ReplyBody::Cards(list)))
    }

    /// Gives out codes of an order again. `None` if the order has to be read first.
    pub(crate) fn fetch(&mut self, work: &mut Work, at: usize) -> Option<Reply> {
        let request = &work.requests[at];
        let Command::OrderFetch { order, from, count } = request.command else {
            unreachable!("the caller matched the command")
        };
        if self.state.orders.find(&(request.caller.tenant, order)).is_none() {
            return Some(self.refuse(request, Status::NotFound));
        }
        let Detail::Sale(sale) = &work.prepared[at].detail else { return None };
        if sale.effect.principal != request.caller.principal {
            // Whose order it is, is not told either.
            return Some(self.refuse(request, Status::NotFound));
        }
        Some(self.reveal_again(request, order, sale, from, count, ReplyFlags::default()))
    }

    /// Records that codes of an earlier sale are given out again, and lists those that still belong to it.
    fn reveal_again(
        &mut self,
        request: &Request,
        order: OrderId,
        sale: &Sale,
        from: u32,
        count: u32,
        flags: ReplyFlags,
    ) -> Reply {
        if !self.has_credit() {
            return self.refuse(request, self.short());
        }
        let mut list = CodeList {
            order,
            total: 0,
            from,
            count: 0,
            durable_at: sale.effect.lsn,
            cards: Allocation::default(),
        };
        for (card, _) in sale.cards.cards() {
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
        let head = request.head(Kind::Reveal, request.command.body());
        self.append(HEAD_BYTES + 24, |group| {
            group.push(&head, 24, |tail| {
                tail[..16].copy_from_slice(&order.0.to_le_bytes());
                tail[16..20].copy_from_slice(&from.to_le_bytes());
                tail[20..].copy_from_slice(&list.count.to_le_bytes());
            })
        });
        list.durable_at = self.sequencer.wal.tail();
        let mut reply = self.reply(request, Status::Ok, Some(sale.effect.lsn), ReplyBody::Cards(list));
        reply.flags = flags;
        reply
    }
}
