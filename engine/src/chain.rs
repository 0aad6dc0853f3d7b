//! Walking an object's entries back through the log.
//!
//! Retries are recognised and histories told from the log itself: a card's word leads to its last entry,
//! each entry to the one before. This reads from memory or disk, so it happens before the sequencer's
//! lock is taken; the sequencer then checks that the word is still the one the walk began with.

mod object;
mod past;
#[cfg(test)]
mod tests;

pub use past::Sought;

use std::io;

use kami_wal::{Lsn, RECORD_HEAD_BYTES, ReadError, Wal};

use crate::card::Effect;
use crate::identity::BatchId;
use crate::origin::Origin;
use crate::record::{Entry, FormatError, Group, Kind, way_back};
use crate::state::OrderMove;
use crate::table::Batch;
use crate::word::{CardRef, Word};

/// Why an entry could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// The log did not yield the record.
    #[error("an entry cannot be read: lsn=`{lsn}`")]
    Read {
        /// Where.
        lsn: Lsn,
        /// Why.
        source: ReadError,
    },
    /// The record is no group of entries.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// What a card was before its import cannot be read from its batch file.
    #[error("the batch file cannot be read: batch=`{batch}`")]
    Origin {
        /// Which batch.
        batch: BatchId,
        /// Why.
        source: io::Error,
    },
}

/// What a card was in the system that it comes from, if its batch says so: where its chain ends.
///
/// # Errors
/// See [`ChainError`].
pub fn origin_of(batch: &Batch, card: CardRef) -> Result<Option<Origin>, ChainError> {
    batch.origin(card.row()).map_err(|source| ChainError::Origin { batch: batch.id, source })
}

impl Effect {
    fn of(entry: &Entry<'_>) -> Effect {
        let head = &entry.head;
        // Damage was told of where the entry was first looked at.
        let value = entry.value().ok().flatten().unwrap_or_default();
        Effect {
            kind: head.kind,
            lsn: entry.lsn,
            time_ms: entry.time_ms,
            principal: head.principal,
            merchant: head.merchant,
            body: head.body,
            reversed: false,
            amount: value.amount,
            remaining: value.purse.remaining,
            held: value.purse.held,
            deadline_ms: value.time_ms,
            other: if head.kind == Kind::Replace { entry.pair().ok().map(|pair| pair.other) } else { None },
        }
    }
}

/// Reads entries, reusing one buffer.
pub struct Chain<'a> {
    wal: &'a Wal,
    buffer: &'a mut Vec<u8>,
    /// Entries read so far, for the tests.
    #[cfg(test)]
    reads: usize,
}

impl<'a> Chain<'a> {
    /// A reader over `wal`.
    pub fn new(wal: &'a Wal, buffer: &'a mut Vec<u8>) -> Self {
        Chain {
            wal,
            buffer,
            #[cfg(test)]
            reads: 0,
        }
    }

    /// The entry that begins at `lsn`; its whole record is checked.
    ///
    /// # Errors
    /// See [`ChainError`].
    pub fn entry(&mut self, lsn: Lsn) -> Result<Entry<'_>, ChainError> {
        #[cfg(test)]
        {
            self.reads += 1;
        }
        let read = |source| ChainError::Read { lsn, source };
        let mut head = [0; 8];
        self.wal.read_bytes(lsn, &mut head).map_err(read)?;
        let record = lsn.bytes().checked_sub(way_back(&head)).and_then(Lsn::from_bytes);
        let record = record.ok_or(FormatError { what: "entry before the log", lsn })?;
        self.wal.read(record, self.buffer).map_err(read)?;
        Ok(Group::parse(self.buffer, record.plus(RECORD_HEAD_BYTES))?.entry_at(lsn)?)
    }

    /// The entries of one card from `word` back, newest first, until `visit` says stop or only the
    /// import is left.
    ///
    /// # Errors
    /// See [`ChainError`].
    pub fn walk(
        &mut self,
        card: CardRef,
        word: Word,
        mut visit: impl FnMut(&Entry<'_>, Word) -> Result<bool, FormatError>,
    ) -> Result<(), ChainError> {
        let mut word = word;
        while let Some(lsn) = word.lsn() {
            let entry = self.entry(lsn)?;
            let prev = entry
                .word_before(card)?
                .ok_or(FormatError { what: "a card's chain leads to an entry without it", lsn })?;
            if prev.lsn() >= Some(lsn) {
                return Err(FormatError { what: "a card's chain does not fall", lsn }.into());
            }
            if !visit(&entry, word)? {
                return Ok(());
            }
            word = prev;
        }
        Ok(())
    }

    /// The entries about orders that moved uses of a card that is sold many times, from `last` back, newest first, each
    /// with the word that the card had then, until `visit` says stop or none is left.
    ///
    /// # Errors
    /// See [`ChainError`].
    pub fn walk_uses(
        &mut self,
        card: CardRef,
        last: Option<Lsn>,
        mut visit: impl FnMut(&Entry<'_>, Word) -> Result<bool, FormatError>,
    ) -> Result<(), ChainError> {
        let mut next = last;
        while let Some(lsn) = next {
            let entry = self.entry(lsn)?;
            let (_, cards, facts) = entry.order()?;
            let used = cards.use_of(card);
            let used =
                used.ok_or(FormatError { what: "a use of a card leads to an entry without it", lsn })?;
            if used.before >= Some(lsn) {
                return Err(FormatError { what: "the uses of a card do not fall", lsn }.into());
            }
            let moved = OrderMove::post_of_shared(entry.head.kind, facts.sealed, used.word);
            let word = match moved {
                Some((lifecycle, added)) => Word::new(lsn, lifecycle, used.word.flags().with(added)),
                None => used.word,
            };
            if !visit(&entry, word)? {
                return Ok(());
            }
            next = used.before;
        }
        Ok(())
    }
}
