//! Walking an object's entries back through the log.
//!
//! Retries are recognised and histories told from the log itself: a card's word leads to its last entry,
//! each entry to the one before. This reads from memory or disk, so it happens before the sequencer's
//! lock is taken; the sequencer then checks that the word is still the one the walk began with.

use kami_wal::{Lsn, RECORD_HEAD_BYTES, ReadError, Wal};

use crate::card::{Effect, Past};
use crate::identity::{OrderId, RequestId};
use crate::record::{Allocation, Entry, FormatError, Group, Kind, way_back};
use crate::word::{CardRef, Flags, Word};

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
}

/// Reads entries, reusing one buffer.
pub struct Chain<'a> {
    wal: &'a Wal,
    buffer: &'a mut Vec<u8>,
}

impl<'a> Chain<'a> {
    /// A reader over `wal`.
    pub fn new(wal: &'a Wal, buffer: &'a mut Vec<u8>) -> Self {
        Chain { wal, buffer }
    }

    /// The entry that begins at `lsn`; its whole record is checked.
    ///
    /// # Errors
    /// See [`ChainError`].
    pub fn entry(&mut self, lsn: Lsn) -> Result<Entry<'_>, ChainError> {
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
            let prev = match entry.head.kind {
                Kind::Sell => {
                    let (_, cards) = entry.sale()?;
                    let prev = cards.word_before(card);
                    prev.ok_or(FormatError { what: "a card's chain leads to a sale without it", lsn })?
                }
                _ => entry.prev(),
            };
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

    /// What a card's chain says about a request.
    ///
    /// # Errors
    /// See [`ChainError`].
    pub fn past(
        &mut self,
        card: CardRef,
        word: Word,
        request: RequestId,
        reverses: Option<RequestId>,
    ) -> Result<Past, ChainError> {
        let mut past = Past::default();
        let mut reversed = Vec::new();
        self.walk(card, word, |entry, word| {
            if !word.flags().contains(Flags::HAS_EFFECTS) {
                return Ok(false);
            }
            let head = &entry.head;
            if matches!(head.kind, Kind::Sell) {
                // The id of a sale belongs to its order, not to the card.
                return Ok(true);
            }
            if matches!(head.kind, Kind::Reverse | Kind::Tombstone) {
                let (original, _) = entry.original()?;
                if head.kind == Kind::Tombstone {
                    past.tombstones += 1;
                    past.tombstone |= original == reverses.unwrap_or(request);
                } else {
                    past.reversals += 1;
                    reversed.push(original);
                }
            }
            let effect = Effect {
                kind: head.kind,
                lsn: entry.lsn,
                time_ms: entry.time_ms,
                principal: head.principal,
                merchant: head.merchant,
                body: head.body,
                reversed: reversed.contains(&head.request),
            };
            if head.request == request {
                past.same = Some(effect);
            }
            if Some(head.request) == reverses {
                past.original = Some(effect);
            }
            Ok(!cfg!(feature = "bug-last-entry-only"))
        })?;
        Ok(past)
    }

    /// What the entries of a batch, product or principal say about a request: these chain by `prev`.
    ///
    /// # Errors
    /// See [`ChainError`].
    pub fn object_past(&mut self, last: Lsn, request: RequestId) -> Result<Past, ChainError> {
        let mut next = Some(last);
        while let Some(lsn) = next {
            let entry = self.entry(lsn)?;
            let head = &entry.head;
            if head.request == request {
                let effect = Effect {
                    kind: head.kind,
                    lsn,
                    time_ms: entry.time_ms,
                    principal: head.principal,
                    merchant: head.merchant,
                    body: head.body,
                    reversed: false,
                };
                return Ok(Past { same: Some(effect), ..Past::default() });
            }
            next = entry.prev().lsn();
        }
        Ok(Past::default())
    }

    /// The sale at `lsn`.
    ///
    /// # Errors
    /// See [`ChainError`].
    pub fn sale(&mut self, lsn: Lsn) -> Result<(Effect, RequestId, OrderId, Allocation), ChainError> {
        let entry = self.entry(lsn)?;
        let (order, cards) = entry.sale()?;
        let head = &entry.head;
        let effect = Effect {
            kind: head.kind,
            lsn,
            time_ms: entry.time_ms,
            principal: head.principal,
            merchant: head.merchant,
            body: head.body,
            reversed: false,
        };
        Ok((effect, head.request, order, cards))
    }
}
