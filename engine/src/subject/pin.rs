//! The PIN of a card: whether it is right, and what counts as a try. Why tries are counted as they are says `pins.rs`.
//!
//! # Invariants
//! * PINs are compared in constant time, as digests.
//! * A wrong PIN counts only if the card is sold and was refused for nothing else: the lock of another would tell that
//!   there is one.

use super::Subject;
use crate::card::Pin;
use crate::identity::PinDigest;
use crate::pins::{PIN_LOCK_MS, PIN_TRIES, PinChange, PinKey};
use crate::record::{GroupWriter, Head, Kind, PIN_LOCK_BYTES};
use crate::reply::{Reply, ReplyFlags};
use crate::sequencer::Moves;
use crate::status::Status;
use crate::table::Batch;
use crate::word::CardRef;

impl Subject<'_> {
    /// What came of the PIN.
    #[inline]
    pub(super) fn pin(&self, batch: &Batch, card: CardRef, given: Option<PinDigest>) -> Pin {
        match (batch.columns.pins.get(card.row() as usize), given) {
            (None, _) => Pin::Right,
            (Some(_), _) if self.state.pins.is_locked(&self.pin_key(card), self.state.now_ms) => Pin::Locked,
            (Some(own), Some(given))
                if aws_lc_rs::constant_time::verify_slices_are_equal(own, &given.0).is_ok() =>
            {
                Pin::Right
            }
            _ => Pin::Wrong,
        }
    }

    /// Counts a wrong PIN of a card that is sold; the last one locks it. Where the log has no room for the lock,
    /// there is none for a redemption either, and both are told so.
    pub(super) fn wrong_pin(
        &self,
        body: u32,
        card: CardRef,
        group: Option<&mut GroupWriter<'_>>,
        moves: &mut Moves,
        reply: &mut Reply,
    ) {
        let (key, now_ms) = (self.pin_key(card), self.state.now_ms);
        if self.state.pins.next_try(&key, now_ms) < PIN_TRIES {
            moves.pins.push(PinChange::Wrong(key, now_ms));
        } else {
            let Some(group) = group else { return self.refuse(self.short, reply) };
            let until_ms = now_ms + PIN_LOCK_MS;
            let head = Head { subject: card.to_bits(), ..self.request.head(Kind::PinLock, body) };
            group.push(&head, PIN_LOCK_BYTES, |tail| {
                tail[..8].copy_from_slice(&until_ms.to_le_bytes());
                tail[8..12].copy_from_slice(&key.2.0.to_le_bytes());
                tail[12..].fill(0);
            });
            moves.pins.push(PinChange::Lock(key, now_ms, until_ms));
        }
        self.miss(Status::CardNotValid, body, None, reply);
    }

    /// Whoever used the card with its PIN begins to count wrong ones anew.
    #[inline]
    pub(super) fn count_right_pin(
        &self,
        tried: Option<Pin>,
        card: CardRef,
        moves: &mut Moves,
        reply: &Reply,
    ) {
        let used = reply.status.is_done() && !reply.flags.contains(ReplyFlags::REPLAYED);
        if tried == Some(Pin::Right) && used && self.state.pins.counts() {
            moves.pins.push(PinChange::Right(self.pin_key(card)));
        }
    }

    fn pin_key(&self, card: CardRef) -> PinKey {
        self.state.pin_key(card, self.request.caller.principal, self.request.terminal)
    }
}
