//! The engine's records: kinds, layouts, encode and decode.
//!
//! One log record carries a *group*: the entries that one turn of the sequencer decided, under one
//! header and one checksum. An entry has an address of its own, the position of its first byte, and
//! says how far back its record begins, so that a card's word leads to the entry and the entry to a
//! record that can be checked as a whole.
//!
//! # Invariants
//! * An entry is a complete post-image of its card: replay needs no earlier entry to install it.
//! * `prev` is the card's word before; the entries of a card form a chain that ends in a word whose
//!   position is zero, the import of its batch.
//! * A SELL moves many cards at once: rows never moved before as ranges, whose previous word is implied
//!   to be zero; all others one by one with theirs. Its cards become SOLD and REVEALED and keep their
//!   other flags.
//! * Decoding checks every length before it is used and refuses what it does not know.

mod kind;
mod layout;
mod legs;
mod object;
mod pair;
mod sale;
mod store;
mod value;

pub use kind::Kind;
pub use layout::{
    Field, GROUNDS_FIELDS, GROUP_FIELDS, GROUP_HEAD_BYTES, HEAD_BYTES, HEAD_FIELDS, TAIL_FIELDS,
};
pub use legs::{LEG_BYTES, PostedDocument, PostedLeg};
pub(crate) use object::stored;
pub use object::{
    Stored, StoredBatch, StoredPlace, StoredPrincipal, StoredProduct, StoredTerms, StoredValidity,
};
pub use pair::{PAIR_BYTES, Pair};
pub use sale::{Allocation, OrderFacts, Run, SharedUse};
pub use store::{
    CLOCKS_BYTES, Clocks, KEY_ROTATE_BYTES, RESTORE_BYTES, Restored, SIGNED_CHECKPOINT_BYTES,
    SignedCheckpoint,
};
pub use value::{
    CHAPTER_ENTRIES, Chapter, Filter, Mark, MarkKey, Purse, Trail, VALUE_BYTES, VOLUME_BYTES, VOLUME_ENTRIES,
    ValueTail,
};

use std::ops::Range;

use kami_wal::Lsn;

use crate::grounds::Grounds;
use crate::identity::{ChannelId, MerchantId, OrderId, PrincipalId, RequestId, TenantId, TerminalId};
use crate::limit::Subject;
use crate::region::prefetch;
use crate::state::OrderMove;
use crate::word::{CardRef, Flags, Word};

/// An entry may begin at most this far into its record, so that the 16-bit way back reaches.
const BACK_BYTES_MAX: u64 = (u16::MAX as u64) * 8;
/// The memory's answer to so many lines can be waited for at a time, and no more.
const LINES_AHEAD: usize = 12;
const LINE_BYTES: usize = 64;

/// A record whose bytes passed the log's checksum but are no group of entries.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the log record holds an entry this version does not understand: {what} lsn=`{lsn}`")]
pub struct FormatError {
    /// What is wrong.
    pub what: &'static str,
    /// Where.
    pub lsn: Lsn,
}

/// The head of an entry, without its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// What happened.
    pub kind: Kind,
    /// The request's id.
    pub request: RequestId,
    /// Who asked.
    pub principal: PrincipalId,
    /// At which till.
    pub terminal: TerminalId,
    /// For which merchant.
    pub merchant: MerchantId,
    /// Whose cards.
    pub tenant: TenantId,
    /// Through which channel.
    pub channel: ChannelId,
    /// Checksum of what was asked.
    pub body: u32,
    /// The state afterwards, as in the low 16 bits of a word.
    pub post: u16,
    /// The card, or another object's number.
    pub subject: u64,
    /// The card's word before.
    pub prev: u64,
}

impl Head {
    /// The head of an entry that nobody asked for.
    #[must_use]
    pub fn of_engine(kind: Kind) -> Head {
        Head {
            kind,
            request: RequestId::default(),
            principal: PrincipalId(0),
            terminal: TerminalId(0),
            merchant: MerchantId(0),
            tenant: TenantId(0),
            channel: ChannelId(0),
            body: 0,
            post: 0,
            subject: 0,
            prev: 0,
        }
    }
}

/// Bytes of the tail of REVEAL; the first of a sealed order has the order's word behind it.
pub const REVEAL_BYTES: usize = 24;
/// Bytes of the tail of REVERSE and TOMBSTONE.
pub const ORIGINAL_BYTES: usize = 24;

/// Bytes of the tail of RESTOCK.
pub const REFERENCE_BYTES: usize = 16;

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().expect("two bytes"))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn u128_at(bytes: &[u8], at: usize) -> u128 {
    u128::from_le_bytes(bytes[at..at + 16].try_into().expect("sixteen bytes"))
}

/// Encodes a group into a log record's payload, entry by entry.
pub struct GroupWriter<'a> {
    payload: &'a mut [u8],
    /// Bytes of the record before its payload.
    before: usize,
    payload_lsn: Lsn,
    used: usize,
    entries: u32,
}

impl<'a> GroupWriter<'a> {
    /// Begins a group. `record_head_bytes` is how far the payload lies into its record.
    #[inline]
    pub fn new(payload: &'a mut [u8], payload_lsn: Lsn, record_head_bytes: usize) -> Self {
        let used = GROUP_HEAD_BYTES;
        let group = GroupWriter { payload, before: record_head_bytes, payload_lsn, used, entries: 0 };
        (0..LINES_AHEAD).for_each(|line| group.expect(line * LINE_BYTES));
        group
    }

    /// Asks for the memory that will be written soon. It was zeroed by another thread, long ago or on another core, and
    /// stores to what is not there yet hold up all stores behind them.
    #[inline]
    fn expect(&self, at: usize) {
        if let Some(byte) = self.payload.get(at) {
            prefetch(byte);
        }
    }

    /// Adds an entry whose tail has `tail_bytes` bytes (rounded up to 8 and zero-padded) and is written
    /// by `tail`. Returns where it stands.
    ///
    /// # Panics
    /// If the payload has no room; the caller computed that before it took the lock.
    #[inline]
    pub fn push(&mut self, head: &Head, tail_bytes: usize, tail: impl FnOnce(&mut [u8])) -> Lsn {
        self.push_on(head, None, tail_bytes, tail)
    }

    /// The same with the grounds of what is recorded behind the tail.
    ///
    /// # Panics
    /// As [`GroupWriter::push`]; also if the grounds are longer than they may be.
    #[inline]
    pub fn push_on(
        &mut self,
        head: &Head,
        grounds: Option<&Grounds>,
        tail_bytes: usize,
        tail: impl FnOnce(&mut [u8]),
    ) -> Lsn {
        let grounds_bytes = grounds.map_or(0, Grounds::bytes);
        let length = HEAD_BYTES + tail_bytes.next_multiple_of(8) + grounds_bytes;
        let back = (self.before + self.used) as u64;
        assert!(back <= BACK_BYTES_MAX, "entry too far into its record");
        self.expect(self.used + LINES_AHEAD * LINE_BYTES);
        let entry = &mut self.payload[self.used..self.used + length];
        let fixed: &mut [u8; HEAD_BYTES] = (&mut entry[..HEAD_BYTES]).try_into().expect("head");
        fixed[0] = head.kind.number();
        fixed[1] = (grounds_bytes / 8) as u8;
        fixed[2..4].copy_from_slice(&((back / 8) as u16).to_le_bytes());
        fixed[4..8].copy_from_slice(&(length as u32).to_le_bytes());
        fixed[8..24].copy_from_slice(&head.request.0.to_le_bytes());
        fixed[24..28].copy_from_slice(&head.principal.0.to_le_bytes());
        fixed[28..32].copy_from_slice(&head.terminal.0.to_le_bytes());
        fixed[32..36].copy_from_slice(&head.merchant.0.to_le_bytes());
        fixed[36..38].copy_from_slice(&head.tenant.0.to_le_bytes());
        fixed[38..40].copy_from_slice(&head.channel.0.to_le_bytes());
        fixed[40..44].copy_from_slice(&head.body.to_le_bytes());
        fixed[44..46].copy_from_slice(&head.post.to_le_bytes());
        fixed[46..48].fill(0);
        fixed[48..56].copy_from_slice(&head.subject.to_le_bytes());
        fixed[56..64].copy_from_slice(&head.prev.to_le_bytes());
        if tail_bytes > 0 {
            let rest = &mut entry[HEAD_BYTES..length - grounds_bytes];
            rest[tail_bytes..].fill(0);
            tail(&mut rest[..tail_bytes]);
        }
        if let Some(grounds) = grounds {
            grounds.encode(&mut entry[length - grounds_bytes..]);
        }
        let lsn = self.payload_lsn.plus(self.used as u64);
        self.used += length;
        self.entries += 1;
        lsn
    }

    /// Whether an entry can begin once `bytes` more are written: its way back to the record's head has a bound.
    #[must_use]
    pub fn reaches(&self, bytes: usize) -> bool {
        (self.before + self.used + bytes) as u64 <= BACK_BYTES_MAX
    }

    /// Where the next entry will stand.
    #[must_use]
    pub fn next_lsn(&self) -> Lsn {
        self.payload_lsn.plus(self.used as u64)
    }

    /// How many entries were added.
    #[inline]
    #[must_use]
    pub fn entries(&self) -> u32 {
        self.entries
    }

    /// Completes the group's head; returns the payload's bytes in use.
    #[inline]
    pub fn finish(self, time_ms: u64) -> usize {
        self.payload[0..8].copy_from_slice(&time_ms.to_le_bytes());
        self.payload[8..12].copy_from_slice(&self.entries.to_le_bytes());
        self.payload[12..16].fill(0);
        self.used
    }
}

/// An entry in place.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Where it stands.
    pub lsn: Lsn,
    /// Engine time of its group.
    pub time_ms: u64,
    /// Its head.
    pub head: Head,
    tail: &'a [u8],
    bytes: &'a [u8],
}

/// A group, taken apart.
#[derive(Clone, Debug)]
pub struct Group<'a> {
    /// Engine time of the group.
    pub time_ms: u64,
    payload: &'a [u8],
    payload_lsn: Lsn,
    at: usize,
    left: u32,
}

impl<'a> Group<'a> {
    /// Takes a payload apart; iterate for the entries.
    ///
    /// # Errors
    /// If the head does not fit.
    pub fn parse(payload: &'a [u8], payload_lsn: Lsn) -> Result<Self, FormatError> {
        if payload.len() < GROUP_HEAD_BYTES {
            return Err(FormatError { what: "group shorter than its head", lsn: payload_lsn });
        }
        Ok(Group {
            time_ms: u64_at(payload, 0),
            left: u32_at(payload, 8),
            payload,
            payload_lsn,
            at: GROUP_HEAD_BYTES,
        })
    }

    /// What its entries are about, in their order and without a closer look at them: of most of them a card. Ends where
    /// no further entry can begin.
    pub(crate) fn subjects(&self) -> impl Iterator<Item = u64> + use<'a> {
        let (mut rest, mut left) = (&self.payload[self.at..], self.left);
        std::iter::from_fn(move || {
            left = left.checked_sub(1)?;
            let subject = u64_at(rest.get(..HEAD_BYTES)?, 48);
            rest = rest.get(u32_at(rest, 4) as usize..)?;
            Some(subject)
        })
    }

    /// The entry that begins at `lsn`, which must lie in this group.
    ///
    /// # Errors
    /// If no entry can begin there.
    pub fn entry_at(&self, lsn: Lsn) -> Result<Entry<'a>, FormatError> {
        let at = lsn.bytes().checked_sub(self.payload_lsn.bytes());
        match at {
            Some(at) if at >= GROUP_HEAD_BYTES as u64 && at < self.payload.len() as u64 => {
                self.decode(at as usize).map(|(entry, _)| entry)
            }
            _ => Err(FormatError { what: "entry outside its record", lsn }),
        }
    }

    fn decode(&self, at: usize) -> Result<(Entry<'a>, usize), FormatError> {
        Entry::decode(&self.payload[at..], self.payload_lsn.plus(at as u64), self.time_ms)
    }
}

impl<'a> Iterator for Group<'a> {
    type Item = Result<Entry<'a>, FormatError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            if self.at == self.payload.len() {
                return None;
            }
            // What follows the last entry would be skipped unseen: refuse it instead.
            self.at = self.payload.len();
            return Some(Err(FormatError { what: "bytes after the last entry", lsn: self.payload_lsn }));
        }
        match self.decode(self.at) {
            Ok((entry, length)) => {
                self.left -= 1;
                self.at += length;
                Some(Ok(entry))
            }
            Err(error) => {
                self.left = 0;
                self.at = self.payload.len();
                Some(Err(error))
            }
        }
    }
}

/// From the head of an entry: how many bytes before it its record begins.
#[must_use]
pub fn way_back(head: &[u8; 8]) -> u64 {
    u64::from(u16_at(head, 2)) * 8
}

impl<'a> Entry<'a> {
    /// The entry that `bytes` begin with, and its length.
    fn decode(bytes: &'a [u8], lsn: Lsn, time_ms: u64) -> Result<(Entry<'a>, usize), FormatError> {
        let wrong = |what| Err(FormatError { what, lsn });
        if bytes.len() < HEAD_BYTES {
            return wrong("entry shorter than its head");
        }
        let length = u32_at(bytes, 4) as usize;
        if length < HEAD_BYTES || !length.is_multiple_of(8) || length > bytes.len() {
            return wrong("entry length out of bounds");
        }
        let grounds_bytes = usize::from(bytes[1]) * 8;
        if length < HEAD_BYTES + grounds_bytes {
            return wrong("grounds longer than their entry");
        }
        let Some(kind) = Kind::from_number(bytes[0]) else { return wrong("unknown kind") };
        let head = Head {
            kind,
            request: RequestId(u128_at(bytes, 8)),
            principal: PrincipalId(u32_at(bytes, 24)),
            terminal: TerminalId(u32_at(bytes, 28)),
            merchant: MerchantId(u32_at(bytes, 32)),
            tenant: TenantId(u16_at(bytes, 36)),
            channel: ChannelId(u16_at(bytes, 38)),
            body: u32_at(bytes, 40),
            post: u16_at(bytes, 44),
            subject: u64_at(bytes, 48),
            prev: u64_at(bytes, 56),
        };
        if Word::from_bits(u64::from(head.post)).is_none() || Word::from_bits(head.prev).is_none() {
            return wrong("unknown lifecycle or flag");
        }
        let bytes = &bytes[..length];
        Ok((Entry { lsn, time_ms, head, tail: &bytes[HEAD_BYTES..length - grounds_bytes], bytes }, length))
    }

    /// An entry that was taken out of its record.
    ///
    /// # Errors
    /// If `bytes` are not one entry.
    pub fn alone(bytes: &'a [u8], lsn: Lsn, time_ms: u64) -> Result<Entry<'a>, FormatError> {
        match Entry::decode(bytes, lsn, time_ms)? {
            (entry, length) if length == bytes.len() => Ok(entry),
            _ => Err(FormatError { what: "bytes after the entry", lsn }),
        }
    }

    /// Of IMPORT: whether its rows say what they were in the system that they come from.
    #[must_use]
    pub fn tells_origins(&self) -> bool {
        self.post().flags().contains(Flags::MIGRATED)
    }

    /// Its bytes in the log.
    #[must_use]
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Where it ends: there stands the next one of its group.
    #[must_use]
    pub fn end(&self) -> Lsn {
        self.lsn.plus(self.bytes.len() as u64)
    }

    /// The word that `card` had before this entry, which moved it; `None` if it is about another card or none.
    ///
    /// # Errors
    /// If its tail is damaged.
    pub fn word_before(&self, card: CardRef) -> Result<Option<Word>, FormatError> {
        Ok(match self.head.kind {
            kind if kind.is_order() => {
                let (_, cards, facts) = self.order()?;
                // Of what is sold many times only the first sale moves the card itself.
                let used = cards.use_of(card).map(|used| used.word);
                let used = used.filter(|word| OrderMove::post_of_shared(kind, facts.sealed, *word).is_some());
                used.or_else(|| cards.word_before(card))
            }
            kind if kind.is_about_card() && self.card() == card => Some(self.prev()),
            _ => None,
        })
    }

    /// The word that this entry gave `card`; `None` as for [`Entry::word_before`].
    ///
    /// # Errors
    /// If its tail is damaged.
    pub fn word_after(&self, card: CardRef) -> Result<Option<Word>, FormatError> {
        let Some(before) = self.word_before(card)? else { return Ok(None) };
        if !self.head.kind.is_order() {
            return Ok(Some(self.post()));
        }
        let (lifecycle, added) = OrderMove::post(self.head.kind, self.order()?.2.sealed);
        Ok(Some(Word::new(self.lsn, lifecycle, before.flags().with(added))))
    }

    /// Of SIGNED_CHECKPOINT: what was signed, by which key.
    ///
    /// # Errors
    /// If the tail is too short.
    pub fn signed_checkpoint(&self) -> Result<SignedCheckpoint, FormatError> {
        if self.tail.len() < SIGNED_CHECKPOINT_BYTES {
            return self.wrong("signed checkpoint without its signature");
        }
        let hash = |at: usize| self.tail[at..at + 32].try_into().expect("thirty-two bytes");
        let signature = self.tail[72..136].try_into().expect("sixty-four bytes");
        Ok(SignedCheckpoint { size: u64_at(self.tail, 0), root: hash(8), key: hash(40), signature })
    }

    /// Why it was done, and under whose approval, if that was said.
    ///
    /// # Errors
    /// If they are damaged.
    pub fn grounds(&self) -> Result<Option<Grounds>, FormatError> {
        let bytes = usize::from(self.bytes[1]) * 8;
        if bytes == 0 {
            return Ok(None);
        }
        match Grounds::decode(&self.bytes[self.bytes.len() - bytes..]) {
            Some(grounds) => Ok(Some(grounds)),
            None => self.wrong("grounds damaged"),
        }
    }

    const fn wrong<T>(&self, what: &'static str) -> Result<T, FormatError> {
        Err(FormatError { what, lsn: self.lsn })
    }

    /// The card this entry is about.
    #[must_use]
    pub const fn card(&self) -> CardRef {
        CardRef::from_bits(self.head.subject)
    }

    /// The card's word before this entry.
    #[must_use]
    pub const fn prev(&self) -> Word {
        // `Group::decode` let only valid words in.
        match Word::from_bits(self.head.prev) {
            Some(word) => word,
            None => Word::PRISTINE,
        }
    }

    /// The word this entry gave its card (or, for SELL, each of its cards but for the flags they had).
    #[must_use]
    pub const fn post(&self) -> Word {
        match Word::from_bits(self.lsn.units() << 16 | self.head.post as u64) {
            Some(word) => word,
            None => Word::PRISTINE,
        }
    }

    /// Of REVERSE and TOMBSTONE: the original's id and, if it was seen, its place.
    ///
    /// # Errors
    /// If the tail is too short.
    pub fn original(&self) -> Result<(RequestId, Option<Lsn>), FormatError> {
        if let Some(value) = self.value()? {
            return Ok((value.related, value.related_lsn));
        }
        if self.tail.len() != ORIGINAL_BYTES {
            return self.wrong("reversal without its original");
        }
        Ok((RequestId(u128_at(self.tail, 0)), Lsn::from_bytes(u64_at(self.tail, 16))))
    }

    /// What it says about its card's value, if it does. A card that is used as a whole has such entries only
    /// of holds and what follows from them.
    ///
    /// # Errors
    /// If the amounts cannot be.
    pub fn value(&self) -> Result<Option<ValueTail>, FormatError> {
        if !self.head.kind.may_tell_value() {
            return Ok(None);
        }
        let tail = if self.head.kind.is_of_pair() { self.tail.get(PAIR_BYTES..) } else { Some(self.tail) };
        let value = ValueTail::decode(tail.unwrap_or_default(), self.lsn)?;
        if value.is_none() && self.head.kind.must_tell_value() {
            return self.wrong("a change of a card's value without the value");
        }
        Ok(value)
    }

    /// Of the entries of a pair: the other card, and what ties the two.
    ///
    /// # Errors
    /// If the tail is too short, or leads on instead of back.
    pub fn pair(&self) -> Result<Pair, FormatError> {
        let Some(pair) = Pair::decode(self.tail) else {
            return self.wrong("one card of a pair without the other");
        };
        let second = matches!(self.head.kind, Kind::Replacement | Kind::Receive);
        if second && pair.before().is_none_or(|before| before >= self.lsn) {
            return self.wrong("the second card of a pair before the first");
        }
        Ok(pair)
    }

    /// Of an entry about an order: the order, its cards, and what else was said.
    ///
    /// # Errors
    /// If the counts do not fit the tail.
    pub fn order(&self) -> Result<(OrderId, Allocation, OrderFacts), FormatError> {
        OrderFacts::decode(self.tail).map_err(|what| FormatError { what, lsn: self.lsn })
    }

    /// Of entries that move money: the document or order they rest on, and their legs; no legs for all others.
    ///
    /// # Errors
    /// If the tail is damaged.
    pub fn money(&self) -> Result<(u128, Vec<PostedLeg>), FormatError> {
        match self.head.kind {
            Kind::Post => self.posting().map(|posted| (posted.document.0, posted.legs)),
            // What a reservation only sets aside moves when it is paid.
            Kind::Sell | Kind::Confirm | Kind::Realloc | Kind::Return => {
                self.order().map(|(order, _, facts)| (order.0, facts.legs))
            }
            _ => Ok((0, Vec::new())),
        }
    }

    /// Of POST: the document, its legs and its note.
    ///
    /// # Errors
    /// If the tail is damaged.
    pub fn posting(&self) -> Result<PostedDocument, FormatError> {
        let wrong = FormatError { what: "posting damaged", lsn: self.lsn };
        PostedDocument::decode(self.tail).ok_or(wrong)
    }

    /// Of PIN_LOCK: until when, milliseconds since 1970, and at which till; 0 is all of the principal.
    ///
    /// # Errors
    /// If the tail is too short.
    pub fn locked_until(&self) -> Result<(u64, TerminalId), FormatError> {
        if self.tail.len() < PIN_LOCK_BYTES {
            return self.wrong("lock without its end");
        }
        Ok((u64_at(self.tail, 0), TerminalId(u32_at(self.tail, 8))))
    }

    /// Of LIMIT_CROSSED: who crossed the limit that is the entry's subject, and what was in its window then.
    ///
    /// # Errors
    /// If the tail is damaged.
    pub fn crossing(&self) -> Result<(Subject, u64), FormatError> {
        if self.tail.len() < CROSSING_BYTES {
            return self.wrong("crossing without its subject");
        }
        let [kind, number, units] = [0, 8, 16].map(|at| u64_at(self.tail, at));
        match Subject::from_numbers(kind as u8, number) {
            Some(subject) => Ok((subject, units)),
            None => self.wrong("crossing of an unknown subject"),
        }
    }

    /// Of REVEAL: the order.
    ///
    /// # Errors
    /// If the tail is too short.
    pub fn revealed_order(&self) -> Result<OrderId, FormatError> {
        if self.tail.len() < REVEAL_BYTES {
            self.wrong("reveal without its order")
        } else {
            Ok(OrderId(u128_at(self.tail, 0)))
        }
    }

    /// Of REVEAL: the order, and how many of its codes were given out.
    ///
    /// # Errors
    /// If the tail is too short.
    pub fn revealed(&self) -> Result<(OrderId, u32), FormatError> {
        Ok((self.revealed_order()?, u32_at(self.tail, 20)))
    }

    /// Of a REVEAL that is the first of its order: the order's word before, in bits.
    #[must_use]
    pub fn first_reveal(&self) -> Option<u64> {
        (self.tail.len() == REVEAL_BYTES + 8).then(|| u64_at(self.tail, REVEAL_BYTES))
    }

    /// Of RESTOCK: the supplier's document.
    ///
    /// # Errors
    /// If the tail has another length.
    pub fn reference(&self) -> Result<u128, FormatError> {
        if self.tail.len() == REFERENCE_BYTES {
            Ok(u128_at(self.tail, 0))
        } else {
            self.wrong("a card that went back without its document")
        }
    }

    /// Of BATCH_ACTIVATE and BATCH_DEACTIVATE: the rows, if it is not about all.
    ///
    /// # Errors
    /// If there are no such rows.
    pub fn rows(&self) -> Result<Option<Range<u64>>, FormatError> {
        match self.tail.len() {
            0 => Ok(None),
            16 => {
                let (from, rows) = (u64_at(self.tail, 0), u64_at(self.tail, 8));
                let to = from.checked_add(rows).filter(|to| from < *to && *to <= CardRef::ROWS_MAX);
                let wrong = FormatError { what: "a range of no rows", lsn: self.lsn };
                to.map(|to| Some(from..to)).ok_or(wrong)
            }
            _ => self.wrong("a range of rows of another length"),
        }
    }

    /// Of BATCH_EXTEND, EXTEND and EXPIRE: the new end.
    ///
    /// # Errors
    /// If the tail is too short.
    pub fn expires_ms(&self) -> Result<u64, FormatError> {
        if self.tail.len() < 8 { self.wrong("extension without its end") } else { Ok(u64_at(self.tail, 0)) }
    }

    /// Of START: the clocks.
    ///
    /// # Errors
    /// If the tail is too short.
    pub fn clocks(&self) -> Result<Clocks, FormatError> {
        if self.tail.len() < CLOCKS_BYTES {
            return self.wrong("start without its clocks");
        }
        Ok(Clocks {
            wall_ms: u64_at(self.tail, 0),
            boot_ms: u64_at(self.tail, 8),
            boot_id: u128_at(self.tail, 16),
        })
    }

    /// Of RESTORE: what was kept and what was left out.
    ///
    /// # Errors
    /// If the tail is too short.
    pub fn restored(&self) -> Result<Restored, FormatError> {
        if self.tail.len() < RESTORE_BYTES {
            return self.wrong("restore without its positions");
        }
        let [kept, backup_end, dropped, wall_ms] = [0, 8, 16, 24].map(|at| u64_at(self.tail, at));
        Ok(Restored { kept, backup_end, dropped, wall_ms })
    }

    /// Of PRODUCT_PUT, PRINCIPAL_PUT and IMPORT: the encoded object.
    ///
    /// # Errors
    /// If it is of another version or damaged.
    pub fn object<T: Stored>(&self) -> Result<T, FormatError> {
        self.object_part(self.tail).map(|(object, _)| object)
    }

    /// The object it carries, and what later versions added to it.
    ///
    /// # Errors
    /// If one of them is of another version or damaged.
    pub fn object_extended<T: Stored, U: Stored>(&self) -> Result<(T, Option<U>), FormatError> {
        let (object, rest) = self.object_part(self.tail)?;
        let extension = rest.map(|rest| self.object_part(rest)).transpose()?;
        Ok((object, extension.map(|(extension, _)| extension)))
    }

    /// The first object of a tail, and the rest if something follows.
    fn object_part<'t, T: Stored>(&self, tail: &'t [u8]) -> Result<(T, Option<&'t [u8]>), FormatError> {
        if tail.len() < 8 || !matches!(tail[0], object::OBJECT_VERSION | object::EXTENDED_VERSION) {
            return self.wrong("object of an unknown version");
        }
        let bytes = u32_at(tail, 4) as usize;
        let Some(Some(object)) = tail.get(8..8 + bytes).map(T::decode) else {
            return self.wrong("object damaged");
        };
        if tail[0] == object::OBJECT_VERSION {
            return Ok((object, None));
        }
        match tail.get((8 + bytes).next_multiple_of(8)..) {
            Some(rest) => Ok((object, Some(rest))),
            None => self.wrong("object damaged"),
        }
    }
}

/// Bytes of the tail of PIN_LOCK.
pub const PIN_LOCK_BYTES: usize = 16;

/// Bytes of the tail of LIMIT_CROSSED.
pub const CROSSING_BYTES: usize = 24;

/// Writes the tail of LIMIT_CROSSED.
pub fn encode_crossing(subject: Subject, units: u64, tail: &mut [u8]) {
    let (kind, number) = subject.numbers();
    for (place, number) in tail.chunks_exact_mut(8).zip([u64::from(kind), number, units]) {
        place.copy_from_slice(&number.to_le_bytes());
    }
}
