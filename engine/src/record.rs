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

use kami_wal::Lsn;

use crate::command::{ChannelId, MerchantId, OrderId, PrincipalId, RequestId, TenantId, TerminalId};
use crate::word::{CardRef, Word};

macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $name:ident = $number:literal, $code:literal;)+) => {
        /// What an entry of the log records. Numbers are part of the log format and are never reused;
        /// kinds without a writer yet are assigned so that later versions need no new format.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        #[non_exhaustive]
        pub enum Kind { $($(#[doc = $doc])+ $name = $number,)+ }

        impl Kind {
            /// Every kind, in order of number.
            pub const ALL: &'static [Kind] = &[$(Kind::$name,)+];

            /// The kind with this number.
            #[must_use]
            pub const fn from_number(number: u8) -> Option<Kind> {
                match number { $($number => Some(Kind::$name),)+ _ => None }
            }

            /// The stable name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Kind::$name => $code,)+ }
            }

            /// One sentence.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Kind::$name => concat!($($doc,)+).trim_ascii(),)+ }
            }
        }
    };
}

kinds! {
    /// The engine was opened: wall clock, boot clock and boot identity.
    Start = 1, "START";
    /// An operator accepted a step of the wall clock.
    ClockAccept = 2, "CLOCK_ACCEPT";
    /// A product was added or changed.
    ProductPut = 3, "PRODUCT_PUT";
    /// A product was frozen.
    ProductFreeze = 4, "PRODUCT_FREEZE";
    /// The freeze of a product ended.
    ProductUnfreeze = 5, "PRODUCT_UNFREEZE";
    /// A principal was added.
    PrincipalPut = 6, "PRINCIPAL_PUT";
    /// A principal was withdrawn.
    PrincipalRevoke = 7, "PRINCIPAL_REVOKE";
    /// A tenant was added or changed.
    TenantPut = 8, "TENANT_PUT";
    /// A tenant was frozen.
    TenantFreeze = 9, "TENANT_FREEZE";
    /// The freeze of a tenant ended.
    TenantUnfreeze = 10, "TENANT_UNFREEZE";
    /// A change was proposed that a second person must approve.
    Propose = 11, "PROPOSE";
    /// A second person approved a proposed change.
    Approve = 12, "APPROVE";
    /// The master key was rotated.
    KeyRotate = 13, "KEY_ROTATE";
    /// A signed checkpoint of the log's chain was made.
    SignedCheckpoint = 14, "SIGNED_CHECKPOINT";

    /// A batch of cards was imported.
    Import = 20, "IMPORT";
    /// A batch, or rows of it, became redeemable.
    BatchActivate = 21, "BATCH_ACTIVATE";
    /// A batch, or rows of it, became not redeemable.
    BatchDeactivate = 22, "BATCH_DEACTIVATE";
    /// A batch was frozen.
    BatchFreeze = 23, "BATCH_FREEZE";
    /// The freeze of a batch ended.
    BatchUnfreeze = 24, "BATCH_UNFREEZE";
    /// The unsold cards of a batch became void.
    BatchVoid = 25, "BATCH_VOID";
    /// The validity of a batch was extended.
    BatchExtend = 26, "BATCH_EXTEND";

    /// A card was redeemed.
    Redeem = 40, "REDEEM";
    /// A redemption was reversed.
    Reverse = 41, "REVERSE";
    /// A redemption never seen was reversed: its id is refused from here on.
    Tombstone = 42, "TOMBSTONE";
    /// A card was frozen.
    Freeze = 43, "FREEZE";
    /// The freeze of a card ended.
    Unfreeze = 44, "UNFREEZE";
    /// A card became void.
    Void = 45, "VOID";
    /// A card was activated.
    Activate = 46, "ACTIVATE";
    /// A card was deactivated.
    Deactivate = 47, "DEACTIVATE";
    /// A card's time ran out.
    Expire = 48, "EXPIRE";
    /// A card's validity was extended.
    Extend = 49, "EXTEND";
    /// A redemption was settled.
    Settle = 50, "SETTLE";
    /// Part of a card's value was held.
    Hold = 51, "HOLD";
    /// A hold was captured.
    Capture = 52, "CAPTURE";
    /// A hold was released.
    Release = 53, "RELEASE";
    /// A hold timed out.
    HoldTimeout = 54, "HOLD_TIMEOUT";
    /// Value was loaded onto a card.
    Load = 55, "LOAD";
    /// Value was given back to a card after settlement.
    RefundValue = 56, "REFUND_VALUE";
    /// A sold card came back.
    Return = 57, "RETURN";
    /// A returned card went back to its supplier.
    Restock = 58, "RESTOCK";
    /// A card was replaced by another.
    Replace = 59, "REPLACE";
    /// A card's value was transferred to another.
    Transfer = 60, "TRANSFER";
    /// A redemption made offline was reported.
    Advice = 61, "ADVICE";
    /// A card was locked to a terminal after wrong PINs.
    PinLock = 62, "PIN_LOCK";
    /// That lock was lifted.
    PinUnlock = 63, "PIN_UNLOCK";

    /// Cards were sold.
    Sell = 80, "SELL";
    /// Cards were reserved.
    Reserve = 81, "RESERVE";
    /// A reservation was paid.
    Confirm = 82, "CONFIRM";
    /// A reservation was cancelled.
    Cancel = 83, "CANCEL";
    /// A reservation timed out.
    ReserveTimeout = 84, "RESERVE_TIMEOUT";
    /// A late payment took other cards.
    Realloc = 85, "REALLOC";
    /// The codes of an order were given out again.
    Reveal = 86, "REVEAL";

    /// An account was added or changed.
    AccountPut = 100, "ACCOUNT_PUT";
    /// An account was frozen.
    AccountFreeze = 101, "ACCOUNT_FREEZE";
    /// The freeze of an account ended.
    AccountUnfreeze = 102, "ACCOUNT_UNFREEZE";
    /// Money moved between accounts.
    Post = 103, "POST";
    /// A limit was set.
    LimitPut = 104, "LIMIT_PUT";
    /// A velocity limit was crossed.
    LimitCrossed = 105, "LIMIT_CROSSED";
}

impl Kind {
    /// The number in the log.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }
}

/// Where in a group's payload the first entry begins.
///
/// The payload of one log record is a *group*: what one turn of the sequencer decided.
///
/// | offset | bytes | field | meaning |
/// |---|---|---|---|
/// | 0 | 8 | time | engine time of the group, milliseconds since 1970: the tick |
/// | 8 | 4 | entries | how many follow; 0 is a tick alone |
/// | 12 | 4 | reserved | zero |
pub const GROUP_HEAD_BYTES: usize = 16;

/// The part every entry begins with; the fields are listed in [`HEAD_FIELDS`].
pub const HEAD_BYTES: usize = 64;

/// An entry may begin at most this far into its record, so that the 16-bit way back reaches.
const BACK_BYTES_MAX: u64 = (u16::MAX as u64) * 8;

/// One row of a layout table: offset, bytes, name, meaning.
pub type Field = (usize, usize, &'static str, &'static str);

/// The layout of a group's head.
pub const GROUP_FIELDS: &[Field] = &[
    (0, 8, "time", "engine time, milliseconds since 1970; a group is a tick"),
    (8, 4, "entries", "how many entries follow; 0 is a tick alone"),
    (12, 4, "reserved", "zero"),
];

/// The layout of an entry's head. Entries that are not about one card keep zero in `post` and `prev`.
pub const HEAD_FIELDS: &[Field] = &[
    (0, 1, "kind", "what happened, see the table of kinds"),
    (1, 1, "reserved", "zero"),
    (2, 2, "back", "8-byte units from the record's first byte to this entry"),
    (4, 4, "length", "bytes of the whole entry, a multiple of 8"),
    (8, 16, "request", "the client's request id; zero for the engine itself"),
    (24, 4, "principal", "who asked"),
    (28, 4, "terminal", "at which till, or zero"),
    (32, 4, "merchant", "for which merchant, or zero"),
    (36, 2, "tenant", "whose cards"),
    (38, 2, "channel", "through which channel, or zero"),
    (40, 4, "body", "CRC-32C of what was asked: tells a retry from a reused id"),
    (44, 2, "post", "the card's lifecycle (4 bits) and flags (12 bits) afterwards"),
    (46, 2, "reserved", "zero"),
    (48, 8, "subject", "the card (24 bits of batch, 40 of row), or the batch, product or principal number"),
    (56, 8, "prev", "the card's word before: its last entry, lifecycle and flags"),
];

/// What follows the head, by kind. Kinds that are not named here have nothing.
pub const TAIL_FIELDS: &[(&str, &[Field])] = &[
    (
        "START",
        &[
            (64, 8, "wall", "wall clock, milliseconds since 1970"),
            (72, 8, "boot", "milliseconds since the machine was booted"),
            (80, 16, "boot id", "which boot"),
        ],
    ),
    (
        "REVERSE, TOMBSTONE",
        &[
            (64, 16, "original", "the request id that was reversed"),
            (80, 8, "original lsn", "its entry; zero for a tombstone"),
        ],
    ),
    ("BATCH_EXTEND", &[(64, 8, "expires", "the new end, milliseconds since 1970")]),
    (
        "SELL",
        &[
            (64, 16, "order", "the order's id"),
            (80, 4, "count", "cards sold"),
            (84, 4, "ranges", "how many row ranges follow"),
            (88, 4, "moved", "how many single cards follow the ranges"),
            (92, 4, "reserved", "zero"),
            (96, 16, "range", "first card, number of rows: rows never moved before; repeated"),
            (112, 16, "moved card", "card, its word before; repeated"),
        ],
    ),
    (
        "REVEAL",
        &[
            (64, 16, "order", "the order's id"),
            (80, 4, "from", "the first card given out, counted in the order"),
            (84, 4, "count", "how many"),
        ],
    ),
    (
        "PRODUCT_PUT, PRINCIPAL_PUT, IMPORT",
        &[
            (64, 1, "version", "of the encoding that follows: 1"),
            (65, 3, "reserved", "zero"),
            (68, 4, "bytes", "length of the encoding"),
            (
                72,
                0,
                "encoding",
                "rkyv 0.8: little-endian, unaligned, 32-bit relative pointers; zero-padded to 8",
            ),
        ],
    ),
];

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

/// Bytes of the tail of REVERSE and TOMBSTONE.
pub const ORIGINAL_BYTES: usize = 24;
/// Bytes of the fixed part of the tail of SELL.
const SELL_BYTES: usize = 32;
/// Bytes of a range or moved card of SELL.
const SPAN_BYTES: usize = 16;

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
        GroupWriter { payload, before: record_head_bytes, payload_lsn, used: GROUP_HEAD_BYTES, entries: 0 }
    }

    /// Adds an entry whose tail has `tail_bytes` bytes (rounded up to 8 and zero-padded) and is written
    /// by `tail`. Returns where it stands.
    ///
    /// # Panics
    /// If the payload has no room; the caller computed that before it took the lock.
    #[inline]
    pub fn push(&mut self, head: &Head, tail_bytes: usize, tail: impl FnOnce(&mut [u8])) -> Lsn {
        let length = HEAD_BYTES + tail_bytes.next_multiple_of(8);
        let back = (self.before + self.used) as u64;
        assert!(back <= BACK_BYTES_MAX, "entry too far into its record");
        let entry = &mut self.payload[self.used..self.used + length];
        let fixed: &mut [u8; HEAD_BYTES] = (&mut entry[..HEAD_BYTES]).try_into().expect("head");
        fixed[0] = head.kind.number();
        fixed[1] = 0;
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
            let rest = &mut entry[HEAD_BYTES..];
            rest[tail_bytes..].fill(0);
            tail(&mut rest[..tail_bytes]);
        }
        let lsn = self.payload_lsn.plus(self.used as u64);
        self.used += length;
        self.entries += 1;
        lsn
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
        let lsn = self.payload_lsn.plus(at as u64);
        let wrong = |what| Err(FormatError { what, lsn });
        let bytes = &self.payload[at..];
        if bytes.len() < HEAD_BYTES {
            return wrong("entry shorter than its head");
        }
        let length = u32_at(bytes, 4) as usize;
        if length < HEAD_BYTES || !length.is_multiple_of(8) || length > bytes.len() {
            return wrong("entry length out of bounds");
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
        let tail = &bytes[HEAD_BYTES..length];
        Ok((Entry { lsn, time_ms: self.time_ms, head, tail }, length))
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
}

impl Entry<'_> {
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
        if self.tail.len() != ORIGINAL_BYTES {
            return self.wrong("reversal without its original");
        }
        Ok((RequestId(u128_at(self.tail, 0)), Lsn::from_bytes(u64_at(self.tail, 16))))
    }

    /// Of SELL: the order and its cards.
    ///
    /// # Errors
    /// If the counts do not fit the tail.
    pub fn sale(&self) -> Result<(OrderId, Allocation), FormatError> {
        let tail = self.tail;
        if tail.len() < SELL_BYTES {
            return self.wrong("sale shorter than its head");
        }
        let (count, ranges, moved) = (u32_at(tail, 16), u32_at(tail, 20), u32_at(tail, 24));
        let spans = &tail[SELL_BYTES..];
        if spans.len() as u64 != (u64::from(ranges) + u64::from(moved)) * SPAN_BYTES as u64 {
            return self.wrong("sale with more or fewer spans than it says");
        }
        let mut allocation = Allocation::default();
        for (i, span) in spans.chunks_exact(SPAN_BYTES).enumerate() {
            let card = CardRef::from_bits(u64_at(span, 0));
            let second = u64_at(span, 8);
            if i < ranges as usize {
                let rows = u32::try_from(second)
                    .ok()
                    .filter(|rows| *rows > 0 && card.row() + u64::from(*rows) <= CardRef::ROWS_MAX);
                let Some(rows) = rows else { return self.wrong("range of rows out of bounds") };
                allocation.ranges.push((card, rows));
            } else {
                let Some(word) = Word::from_bits(second) else { return self.wrong("unknown word") };
                allocation.moved.push((card, word));
            }
        }
        let total: u64 =
            allocation.ranges.iter().map(|(_, rows)| u64::from(*rows)).sum::<u64>() + u64::from(moved);
        if total != u64::from(count) {
            return self.wrong("sale of more or fewer cards than it says");
        }
        Ok((OrderId(u128_at(tail, 0)), allocation))
    }

    /// Of REVEAL: the order.
    ///
    /// # Errors
    /// If the tail is too short.
    pub fn revealed_order(&self) -> Result<OrderId, FormatError> {
        if self.tail.len() < 24 {
            self.wrong("reveal without its order")
        } else {
            Ok(OrderId(u128_at(self.tail, 0)))
        }
    }

    /// Of BATCH_EXTEND: the new end.
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

    /// Of PRODUCT_PUT, PRINCIPAL_PUT and IMPORT: the encoded object.
    ///
    /// # Errors
    /// If it is of another version or damaged.
    pub fn object<T: Stored>(&self) -> Result<T, FormatError> {
        let tail = self.tail;
        if tail.len() < 8 || tail[0] != OBJECT_VERSION {
            return self.wrong("object of an unknown version");
        }
        let bytes = u32_at(tail, 4) as usize;
        match tail.get(8..8 + bytes).map(T::decode) {
            Some(Some(object)) => Ok(object),
            _ => self.wrong("object damaged"),
        }
    }
}

/// The clocks at a start of the engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clocks {
    /// Wall clock, milliseconds since 1970.
    pub wall_ms: u64,
    /// Milliseconds since boot.
    pub boot_ms: u64,
    /// Which boot.
    pub boot_id: u128,
}

/// Bytes of the tail of START.
pub const CLOCKS_BYTES: usize = 32;

impl Clocks {
    /// Writes the tail of START.
    pub fn encode(&self, tail: &mut [u8]) {
        tail[0..8].copy_from_slice(&self.wall_ms.to_le_bytes());
        tail[8..16].copy_from_slice(&self.boot_ms.to_le_bytes());
        tail[16..32].copy_from_slice(&self.boot_id.to_le_bytes());
    }
}

/// The version byte before an encoded object.
const OBJECT_VERSION: u8 = 1;

/// An object that the log and the snapshots keep as rkyv bytes.
pub trait Stored: Sized {
    /// The bytes.
    fn encode(&self) -> Vec<u8>;
    /// The object, if the bytes are one.
    fn decode(bytes: &[u8]) -> Option<Self>;

    /// The tail of an entry that carries this object; made before the lock is taken.
    fn entry_tail(&self) -> Vec<u8> {
        let bytes = self.encode();
        let mut tail = vec![0; (8 + bytes.len()).next_multiple_of(8)];
        tail[0] = OBJECT_VERSION;
        tail[4..8].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
        tail[8..8 + bytes.len()].copy_from_slice(&bytes);
        tail
    }
}

macro_rules! stored {
    ($($name:ty),+) => { $(
        impl Stored for $name {
            fn encode(&self) -> Vec<u8> {
                rkyv::to_bytes::<rkyv::rancor::Error>(self).expect("encoding to memory cannot fail").into_vec()
            }
            fn decode(bytes: &[u8]) -> Option<Self> {
                rkyv::from_bytes::<Self, rkyv::rancor::Error>(bytes).ok()
            }
        }
    )+ };
}

/// A product in the log.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct StoredProduct {
    /// Its tenant.
    pub tenant: u16,
    /// Its name.
    pub name: String,
    /// Its [`CardKind`](crate::CardKind).
    pub kind: u8,
    /// Its currency.
    pub currency: [u8; 3],
    /// Face value.
    pub face: i64,
    /// Days from import to expiry.
    pub valid_days: u32,
    /// Seconds a redemption can be reversed.
    pub reversal_s: u32,
}

/// A principal in the log.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct StoredPrincipal {
    /// Its name.
    pub name: String,
    /// Its [`Role`](crate::Role).
    pub role: u8,
    /// Its tenant.
    pub tenant: u16,
    /// Its merchant.
    pub merchant: u32,
    /// Digest of its public key.
    pub key: [u8; 32],
}

/// A batch in the log: all that is known of it beside its rows.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct StoredBatch {
    /// Its tenant.
    pub tenant: u16,
    /// Its product.
    pub product: u32,
    /// The importer's label.
    pub label: String,
    /// Its rows.
    pub rows: u64,
    /// The batch file's hash, which its import computed.
    pub file_hash: [u8; 32],
    /// The hash of its digests in row order: the same cards again have the same.
    pub cards_hash: [u8; 32],
    /// What its cards are worth where the rows do not say.
    pub face: i64,
    /// From when they are valid; 0 is at once.
    pub valid_from_ms: u64,
    /// When they expire where the rows do not say; 0 is never.
    pub expires_ms: u64,
    /// Whether they are redeemable once sold.
    pub active: bool,
}

stored!(StoredProduct, StoredPrincipal, StoredBatch);
