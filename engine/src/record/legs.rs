//! The money legs of an entry: POST has them, and every sale that is paid.
//!
//! A leg is a post-image as all entries are: it says what is on its account after the entry and where the
//! account's entry before stands. So an account's statement is a walk down its legs, replay installs a
//! balance without adding up, and each entry can be audited by itself.

use kami_wal::Lsn;

use super::{u32_at, u64_at, u128_at};
use crate::account::{LEGS_MAX, Leg, NOTE_BYTES_MAX};
use crate::identity::{AccountId, DocumentId};
use crate::product::Money;

/// Bytes of a leg.
pub const LEG_BYTES: usize = 32;

/// A leg as it stands in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PostedLeg {
    /// What moved.
    pub leg: Leg,
    /// The account's balance after the whole entry; the same in every leg on that account.
    pub balance: Money,
    /// The account's entry with money before this one.
    pub prev: Option<Lsn>,
}

impl PostedLeg {
    /// Writes legs one after the other; `bytes` has [`LEG_BYTES`] for each.
    pub fn encode_all(legs: &[PostedLeg], bytes: &mut [u8]) {
        for (posted, place) in legs.iter().zip(bytes.chunks_exact_mut(LEG_BYTES)) {
            place[0..4].copy_from_slice(&posted.leg.account.0.to_le_bytes());
            place[4..8].fill(0);
            place[8..16].copy_from_slice(&posted.leg.amount.to_le_bytes());
            place[16..24].copy_from_slice(&posted.balance.to_le_bytes());
            place[24..32].copy_from_slice(&posted.prev.map_or(0, Lsn::bytes).to_le_bytes());
        }
    }

    /// Reads legs; `None` if the bytes are no whole number of them, or more than [`LEGS_MAX`].
    #[must_use]
    pub fn decode_all(bytes: &[u8]) -> Option<Vec<PostedLeg>> {
        if !bytes.len().is_multiple_of(LEG_BYTES) || bytes.len() > LEGS_MAX * LEG_BYTES {
            return None;
        }
        let leg = |bytes: &[u8]| {
            let prev = u64_at(bytes, 24);
            Some(PostedLeg {
                leg: Leg { account: AccountId(u32_at(bytes, 0)), amount: u64_at(bytes, 8).cast_signed() },
                balance: u64_at(bytes, 16).cast_signed(),
                prev: if prev == 0 { None } else { Some(Lsn::from_bytes(prev)?) },
            })
        };
        bytes.chunks_exact(LEG_BYTES).map(leg).collect()
    }
}

/// Bytes of the fixed part of the tail of POST.
const POST_BYTES: usize = 24;

/// A POST as it stands in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostedDocument {
    /// The document.
    pub document: DocumentId,
    /// What moved.
    pub legs: Vec<PostedLeg>,
    /// For people.
    pub note: String,
}

impl PostedDocument {
    /// Bytes of the tail of a POST.
    #[must_use]
    pub const fn tail_bytes(legs: usize, note_bytes: usize) -> usize {
        POST_BYTES + legs * LEG_BYTES + note_bytes
    }

    /// Writes the tail of a POST.
    pub fn encode(document: DocumentId, legs: &[PostedLeg], note: &str, tail: &mut [u8]) {
        tail[0..16].copy_from_slice(&document.0.to_le_bytes());
        tail[16..20].copy_from_slice(&(legs.len() as u32).to_le_bytes());
        tail[20..24].copy_from_slice(&(note.len() as u32).to_le_bytes());
        let (places, rest) = tail[POST_BYTES..].split_at_mut(legs.len() * LEG_BYTES);
        PostedLeg::encode_all(legs, places);
        rest.copy_from_slice(note.as_bytes());
    }

    /// Reads the tail of a POST; `None` if it is none.
    #[must_use]
    pub fn decode(tail: &[u8]) -> Option<PostedDocument> {
        let head = tail.get(..POST_BYTES)?;
        let (legs, note) = (u32_at(head, 16) as usize, u32_at(head, 20) as usize);
        if legs > LEGS_MAX || note > NOTE_BYTES_MAX {
            return None;
        }
        let rest = &tail[POST_BYTES..];
        let note = rest.get(legs * LEG_BYTES..legs * LEG_BYTES + note)?;
        Some(PostedDocument {
            document: DocumentId(u128_at(head, 0)),
            legs: PostedLeg::decode_all(&rest[..legs * LEG_BYTES])?,
            note: String::from_utf8(note.to_vec()).ok()?,
        })
    }
}
