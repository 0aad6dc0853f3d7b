//! What was decided, recorded: the entry at the log's tail, what will move once it is published, and the reply.
//!
//! # Invariants
//! * Limits that count what tills redeem are asked last, when nothing else can refuse; and their count moves with the
//!   entry.
//! * What the reply says follows from the entry and from what never changes: a retry is told the same.

use kami_wal::Lsn;

use super::Subject;
use super::reply::{report, told};
use crate::card::{Action, Asker, View};
use crate::identity::RequestId;
use crate::limits::Tills;
use crate::pins::PinChange;
use crate::product::CardKind;
use crate::record::{GroupWriter, Head, Kind, ORIGINAL_BYTES, REFERENCE_BYTES, ValueTail};
use crate::reply::{Reply, ReplyBody};
use crate::sequencer::{Moves, Prepared, Wallet};
use crate::status::Status;
use crate::table::Batch;
use crate::value::Movement;
use crate::word::{CardRef, Flags, Lifecycle, Word};

impl Subject<'_> {
    /// Records what a card does that is used as a whole, and says so.
    // Inlined into the one place that calls it: what it is given would be put together in memory first, at 88 instructions a
    // redemption.
    #[inline(always)]
    #[expect(clippy::too_many_arguments, reason = "what was decided, what it rests on, and where it goes")]
    pub(super) fn move_card(
        &self,
        (prepared, batch, card, view): (&Prepared, &Batch, CardRef, &View),
        action: Action,
        (kind, lifecycle, flags, status, original): (Kind, Lifecycle, Flags, Status, Option<Lsn>),
        group: &mut GroupWriter<'_>,
        moves: &mut Moves,
        tills: Option<&mut Tills>,
        reply: &mut Reply,
    ) {
        let (request, word) = (self.request, view.word);
        let post = Word::state_of(lifecycle, flags);
        let head =
            Head { post, subject: card.to_bits(), prev: word.bits(), ..request.head(kind, prepared.body) };
        let counts = matches!(action, Action::Redeem { .. });
        let mut tills = tills.filter(|_| counts);
        if let Some(tills) = &mut tills
            && let Err(exceeded) = tills.check(&self.state.limits, &head, batch.product, self.state.now_ms)
        {
            return self.tell(exceeded.status, None, ReplyBody::Exceeded(exceeded), reply);
        }
        let lsn = group.next_lsn();
        let new = Word::new(lsn, lifecycle, flags);
        let end_ms = action.end_ms(view.now_ms);
        let expires_ms = end_ms.unwrap_or_else(|| self.expires_after(kind, batch, card, new, view));
        let after = View { word: new, expires_ms, ..*view };
        self.tell_body(prepared, kind, batch, card, &after, reply);
        self.tell_head(status, receipt(status, lsn), reply);
        reply.miss = kind == Kind::Tombstone && word.is_unsold();
        match action {
            Action::Reverse(id) => group.push(&head, ORIGINAL_BYTES, |tail| {
                tail[..16].copy_from_slice(&id.0.to_le_bytes());
                tail[16..].copy_from_slice(&original.map_or(0, Lsn::bytes).to_le_bytes());
            }),
            Action::Redeem { .. } => group.push(&head, 0, |_| ()),
            Action::Restock { reference } => {
                let grounds = request.grounds.as_deref();
                group.push_on(&head, grounds, REFERENCE_BYTES, |tail| {
                    tail.copy_from_slice(&reference.0.to_le_bytes());
                })
            }
            _ if let Some(end_ms) = end_ms => {
                moves.ends.push((card, end_ms));
                let grounds = request.grounds.as_deref();
                group.push_on(&head, grounds, 8, |tail| tail.copy_from_slice(&end_ms.to_le_bytes()))
            }
            _ => group.push_on(&head, request.grounds.as_deref(), 0, |_| ()),
        };
        if let Some(tills) = tills {
            tills.redeemed(&head, batch.product, lsn, group);
        }
        if kind == Kind::PinUnlock {
            moves.pins.push(PinChange::Unlock(card));
        }
        moves.words.push((card, word, new));
    }

    /// Records a movement of the card's value, and says so.
    pub(super) fn move_value(
        &self,
        (prepared, batch, card, view, asker): (&mut Prepared, &Batch, CardRef, &View, &Asker),
        moved: Movement,
        group: &mut GroupWriter<'_>,
        moves: &mut Moves,
        tills: Option<&mut Tills>,
        reply: &mut Reply,
    ) {
        let (request, word) = (self.request, view.word);
        // What is held counts once, when it is: its capture is not refused for a limit any more.
        let mut tills = tills.filter(|_| moved.kind.counts_at_till());
        let head = request.head(moved.kind, prepared.body);
        if let Some(tills) = &mut tills
            && let Err(exceeded) = tills.check(&self.state.limits, &head, batch.product, self.state.now_ms)
        {
            return self.tell(exceeded.status, None, ReplyBody::Exceeded(exceeded), reply);
        }
        let (lsn, tail) = self.record_value(prepared, card, word, &moved, group);
        if let Some(tills) = tills {
            tills.redeemed(&head, batch.product, lsn, group);
        }
        let new = Word::new(lsn, moved.lifecycle, moved.flags);
        moves.words.push((card, word, new));
        if batch.kind == CardKind::Shared {
            moves.spent.push((card, tail.purse.spent(), lsn));
        }
        moves.holds.extend(moved.hold_change(card.to_bits(), request.id, asker, lsn));
        let body = match moved.kind {
            Kind::Settle => {
                let worth = (tail.purse.remaining, tail.purse.held);
                ReplyBody::Card(report(batch, card, &View { word: new, ..*view }, None, worth))
            }
            _ => told(batch, moved.kind, moved.amount, &tail.purse, moved.deadline_ms),
        };
        self.tell(moved.status, Some(lsn), body, reply);
    }

    /// Encodes a change of a card's value. The trail is what it was read to be, with the ids of this request.
    fn record_value(
        &self,
        prepared: &mut Prepared,
        card: CardRef,
        word: Word,
        moved: &Movement,
        group: &mut GroupWriter<'_>,
    ) -> (Lsn, ValueTail) {
        let time_ms = match prepared.past().original {
            Some(original) if moved.kind == Kind::Reverse => u64::from(original.kind.number()),
            _ => moved.deadline_ms,
        };
        let Wallet { mut trail, mut chapters, sale, .. } =
            *prepared.wallet.take().expect("read before a value is decided on");
        let marks = &self.sequencer.marks;
        let by_engine = moved.kind == Kind::HoldTimeout;
        if !by_engine {
            trail.filter.add(marks.mark(self.request.id));
        }
        let (related, related_lsn) = moved.related.unwrap_or_default();
        if moved.related.is_some() {
            trail.filter.add(marks.mark(related));
        }
        if !chapters.is_empty() {
            chapters.push((None, trail.filter));
        }
        let mut purse = moved.purse;
        purse.sale = sale.or(purse.sale);
        if moved.kind == Kind::Settle {
            purse.settled = Some(group.next_lsn());
        }
        let tail = ValueTail { amount: moved.amount, related, related_lsn, time_ms, purse, trail, chapters };
        let head = self.request.head(moved.kind, prepared.body);
        let head = Head {
            request: if by_engine { RequestId::default() } else { head.request },
            post: Word::state_of(moved.lifecycle, moved.flags),
            subject: card.to_bits(),
            prev: word.bits(),
            ..head
        };
        let grounds = self.request.grounds.as_deref();
        (group.push_on(&head, grounds, tail.bytes(), |place| tail.encode(place)), tail)
    }
}

/// A tombstone has no receipt: for a code that does not exist the answer is the same, and there is none.
fn receipt(status: Status, lsn: Lsn) -> Option<Lsn> {
    (status != Status::Tombstoned).then_some(lsn)
}
