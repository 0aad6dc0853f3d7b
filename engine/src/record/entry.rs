//! An entry of a group, and what its tail says of each kind of event.
//!
//! # Invariants
//! * Nothing of a tail is used before its length was checked, and a kind is asked only for what it has.
//! * What is not understood is an error, and never a default.

use std::ops::Range;

use kami_wal::Lsn;

use super::layout::HEAD_BYTES;
use super::object;
use super::{
    Allocation, CLOCKS_BYTES, CROSSING_BYTES, Clocks, FormatError, Head, Kind, ORIGINAL_BYTES, OrderFacts,
    PAIR_BYTES, PIN_LOCK_BYTES, Pair, PostedDocument, PostedLeg, REFERENCE_BYTES, RESTORE_BYTES,
    REVEAL_BYTES, Restored, SIGNED_CHECKPOINT_BYTES, SignedCheckpoint, Stored, ValueTail, u16_at, u32_at,
    u64_at, u128_at,
};
use crate::grounds::Grounds;
use crate::identity::{ChannelId, MerchantId, OrderId, PrincipalId, RequestId, TenantId, TerminalId};
use crate::limit::Subject;
use crate::state::OrderMove;
use crate::word::{CardRef, Flags, Word};

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

impl<'a> Entry<'a> {
    /// The entry that `bytes` begin with, and its length.
    pub(super) fn decode(bytes: &'a [u8], lsn: Lsn, time_ms: u64) -> Result<(Entry<'a>, usize), FormatError> {
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

/// From the head of an entry: how many bytes before it its record begins.
#[must_use]
pub fn way_back(head: &[u8; 8]) -> u64 {
    u64::from(u16_at(head, 2)) * 8
}
