//! The cards of a SELL: row ranges for cards never moved before, single cards with their word for others.

use super::layout::HEAD_BYTES;
use crate::identity::OrderId;
use crate::word::{CardRef, Word};

/// Bytes of the fixed part of the tail of SELL.
pub(super) const SELL_BYTES: usize = 32;
/// Bytes of a range or moved card of SELL.
pub(super) const SPAN_BYTES: usize = 16;

/// The cards of one SELL: rows in their order, never moved before, and single cards that were.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allocation {
    /// First card and number of rows.
    pub ranges: Vec<(CardRef, u32)>,
    /// Cards with the word they had.
    pub moved: Vec<(CardRef, Word)>,
}

impl Allocation {
    /// The number of cards.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.ranges.iter().map(|(_, rows)| rows).sum::<u32>() + self.moved.len() as u32
    }

    /// Every card with the word it had, in the order's sequence.
    pub fn cards(&self) -> impl Iterator<Item = (CardRef, Word)> + '_ {
        let ranges = self.ranges.iter().flat_map(|&(first, rows)| {
            (0..u64::from(rows))
                .map(move |row| (CardRef::new(first.batch(), first.row() + row), Word::PRISTINE))
        });
        ranges.chain(self.moved.iter().copied())
    }

    /// Bytes of the tail that [`Allocation::encode`] writes.
    #[must_use]
    pub fn tail_bytes(&self) -> usize {
        SELL_BYTES + (self.ranges.len() + self.moved.len()) * SPAN_BYTES
    }

    /// The most bytes a SELL of `count` cards takes, head included.
    #[must_use]
    pub const fn entry_bytes_max(count: u32) -> usize {
        HEAD_BYTES + SELL_BYTES + count as usize * SPAN_BYTES
    }

    /// Writes the tail of a SELL.
    pub fn encode(&self, order: OrderId, tail: &mut [u8]) {
        tail[0..16].copy_from_slice(&order.0.to_le_bytes());
        tail[16..20].copy_from_slice(&self.count().to_le_bytes());
        tail[20..24].copy_from_slice(&(self.ranges.len() as u32).to_le_bytes());
        tail[24..28].copy_from_slice(&(self.moved.len() as u32).to_le_bytes());
        tail[28..32].fill(0);
        let ranges = self.ranges.iter().map(|(first, rows)| (first.to_bits(), u64::from(*rows)));
        let moved = self.moved.iter().map(|(card, word)| (card.to_bits(), word.bits()));
        for (span, (first, second)) in
            tail[SELL_BYTES..].chunks_exact_mut(SPAN_BYTES).zip(ranges.chain(moved))
        {
            span[..8].copy_from_slice(&first.to_le_bytes());
            span[8..].copy_from_slice(&second.to_le_bytes());
        }
    }

    /// Adds a card: to the last range if it continues it and was never moved.
    pub fn push(&mut self, card: CardRef, word: Word) {
        if word != Word::PRISTINE {
            self.moved.push((card, word));
            return;
        }
        if let Some((first, rows)) = self.ranges.last_mut()
            && first.to_bits() + u64::from(*rows) == card.to_bits()
            && first.batch() == card.batch()
        {
            *rows += 1;
            return;
        }
        self.ranges.push((card, 1));
    }

    /// The word the card had before this sale; `None` if it is not part of it.
    #[must_use]
    pub fn word_before(&self, card: CardRef) -> Option<Word> {
        let in_range = self.ranges.iter().any(|(first, rows)| {
            first.to_bits() <= card.to_bits() && card.to_bits() < first.to_bits() + u64::from(*rows)
        });
        if in_range {
            return Some(Word::PRISTINE);
        }
        self.moved.iter().find(|(moved, _)| *moved == card).map(|(_, word)| *word)
    }
}
