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
//!   to be zero; all others one by one with theirs. So do all entries about orders. What the cards become
//!   follows from the kind; they keep their other flags.
//! * Decoding checks every length before it is used and refuses what it does not know.

mod entry;
mod group;
mod kind;
mod layout;
mod legs;
mod object;
mod pair;
mod sale;
mod store;
mod value;

pub use entry::{Entry, way_back};
pub use group::{Group, GroupWriter};
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

use kami_wal::Lsn;

use crate::identity::{ChannelId, MerchantId, PrincipalId, RequestId, TenantId, TerminalId};
use crate::limit::Subject;

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
