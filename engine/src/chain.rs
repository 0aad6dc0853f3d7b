//! Walking an object's entries back through the log.
//!
//! Retries are recognised and histories told from the log itself: a card's word leads to its last entry,
//! each entry to the one before. This reads from memory or disk, so it happens before the sequencer's
//! lock is taken; the sequencer then checks that the word is still the one the walk began with.

use std::collections::HashSet;

use kami_wal::{Lsn, RECORD_HEAD_BYTES, ReadError, Wal};

use crate::account::LEGS_MAX;
use crate::card::{Effect, Past};
use crate::identity::{AccountId, OrderId, PrincipalId, RequestId};
use crate::orders::OrderWord;
use crate::record::{Allocation, Entry, FormatError, Group, Kind, OrderFacts, way_back};
use crate::reply::StatementLine;
use crate::sequencer::OrderPast;
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
            if head.kind.is_order() {
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

    /// Up to `count` lines of the statement of an account, newest first, from its entry at `from` on; and
    /// where the next one stands.
    ///
    /// # Errors
    /// See [`ChainError`]; also if the entry at `from` moved no money of this account.
    pub fn statement(
        &mut self,
        account: AccountId,
        from: Option<Lsn>,
        count: u32,
    ) -> Result<(Vec<StatementLine>, Option<Lsn>), ChainError> {
        let mut lines = Vec::new();
        let mut next = from;
        while let Some(lsn) = next
            && lines.len() < count as usize
        {
            let entry = self.entry(lsn)?;
            let (related, legs) = entry.money()?;
            debug_assert!(legs.len() <= LEGS_MAX, "decoding bounds them");
            let own: Vec<_> = legs.iter().filter(|posted| posted.leg.account == account).collect();
            let Some(last) = own.last() else {
                return Err(FormatError { what: "an entry without money of the account", lsn }.into());
            };
            if last.prev >= Some(lsn) {
                return Err(FormatError { what: "an account's chain does not fall", lsn }.into());
            }
            lines.push(StatementLine {
                lsn,
                time_ms: entry.time_ms,
                kind: entry.head.kind,
                principal: entry.head.principal,
                channel: entry.head.channel,
                related,
                amount: own.iter().fold(0, |sum, posted| sum.saturating_add(posted.leg.amount)),
                balance: last.balance,
            });
            next = last.prev;
        }
        Ok((lines, next))
    }

    /// What the entry at `lsn` did and with which request, and the entry.
    ///
    /// # Errors
    /// See [`ChainError`].
    pub fn effect(&mut self, lsn: Lsn) -> Result<(Effect, RequestId, Entry<'_>), ChainError> {
        let entry = self.entry(lsn)?;
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
        Ok((effect, head.request, entry))
    }

    /// What became of an order whose word is `word`, and what it says about a request.
    ///
    /// # Errors
    /// See [`ChainError`].
    pub fn order(
        &mut self,
        order: OrderId,
        word: OrderWord,
        request: RequestId,
    ) -> Result<OrderPast, ChainError> {
        let mut past = OrderPast {
            order,
            word,
            same: None,
            buyer: PrincipalId(0),
            cards: Allocation::default(),
            sold_at: word.lsn(),
            sealed: false,
            returned: HashSet::new(),
            opened_ms: 0,
            deadline_ms: 0,
            facts: OrderFacts::default(),
        };
        let mut owned = false;
        let mut next = Some(word);
        while let Some(word) = next {
            let lsn = word.lsn();
            let entry = self.entry(lsn)?;
            let head = &entry.head;
            // A time-out is the engine's own, and has no id.
            if head.request == request && head.kind != Kind::ReserveTimeout {
                past.same = Some(Effect {
                    kind: head.kind,
                    lsn,
                    time_ms: entry.time_ms,
                    principal: head.principal,
                    merchant: head.merchant,
                    body: head.body,
                    reversed: false,
                });
            }
            (past.buyer, past.opened_ms) = (head.principal, entry.time_ms);
            let prev = if head.kind == Kind::Reveal {
                entry.first_reveal().unwrap_or(0)
            } else {
                let (named, cards, facts) = entry.order()?;
                if named != order {
                    return Err(FormatError { what: "an order's chain leads to another order", lsn }.into());
                }
                let prev = facts.prev;
                match head.kind {
                    Kind::Return => past.returned.extend(cards.cards().map(|(card, _)| card)),
                    Kind::Sell | Kind::Reserve | Kind::Confirm | Kind::Realloc if !owned => {
                        owned = true;
                        (past.cards, past.sold_at, past.sealed) = (cards, lsn, facts.sealed);
                    }
                    _ => {}
                }
                past.facts = facts;
                prev
            };
            next = OrderWord::from_bits(prev);
            if next.is_some_and(|next| next.lsn() >= lsn) {
                return Err(FormatError { what: "an order's chain does not fall", lsn }.into());
            }
        }
        past.deadline_ms = past.facts.moment_ms;
        Ok(past)
    }
}
