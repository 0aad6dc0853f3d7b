//! What the entries of a pair say beside what they do to their own card: which the other one is.
//!
//! REPLACE and TRANSFER move two cards. Each has an entry of its own, in its own chain, and the two stand one behind
//! the other in one group: a record of the log is there as a whole or not at all, so neither is there without the other.

use kami_wal::Lsn;

use super::{u64_at, u128_at};
use crate::identity::OrderId;
use crate::word::CardRef;

/// Bytes of the tail of an entry of a pair, in front of the value that it tells.
pub const PAIR_BYTES: usize = 40;

/// The head of the tail of REPLACE, REPLACEMENT, TRANSFER and RECEIVE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The other card.
    pub other: CardRef,
    /// The order in which the one took the place of the other; zero of TRANSFER and RECEIVE.
    pub order: OrderId,
    /// Of REPLACE the order's word before, in bits; of REPLACEMENT and RECEIVE the place of the entry before, in bytes;
    /// of TRANSFER zero.
    pub link: u64,
    /// Of REPLACEMENT the end of validity that it gave the card, in milliseconds since 1970, [`Pair::NO_END`] if it gave
    /// none; of the others that.
    pub end_ms: u64,
}

impl Pair {
    /// The card keeps the end of validity that it has. Zero is one of its own: never.
    pub const NO_END: u64 = u64::MAX;

    /// Writes it.
    pub fn encode(&self, tail: &mut [u8]) {
        tail[..8].copy_from_slice(&self.other.to_bits().to_le_bytes());
        tail[8..24].copy_from_slice(&self.order.0.to_le_bytes());
        tail[24..32].copy_from_slice(&self.link.to_le_bytes());
        tail[32..40].copy_from_slice(&self.end_ms.to_le_bytes());
    }

    /// Reads it; `None` if the tail is too short.
    pub(super) fn decode(tail: &[u8]) -> Option<Pair> {
        (tail.len() >= PAIR_BYTES).then(|| Pair {
            other: CardRef::from_bits(u64_at(tail, 0)),
            order: OrderId(u128_at(tail, 8)),
            link: u64_at(tail, 24),
            end_ms: u64_at(tail, 32),
        })
    }

    /// Of REPLACEMENT and RECEIVE: the entry before, which is the other card's.
    #[must_use]
    pub fn before(&self) -> Option<Lsn> {
        Lsn::from_bytes(self.link)
    }

    /// The end of validity that it gave the card; zero is never.
    #[must_use]
    pub fn end(&self) -> Option<u64> {
        (self.end_ms != Pair::NO_END).then_some(self.end_ms)
    }
}
