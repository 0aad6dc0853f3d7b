//! The money legs of an entry: POST has them, and every sale that is paid.
//!
//! A leg is a post-image as all entries are: it says what is on its account after the entry and where the
//! account's entry before stands. So an account's statement is a walk down its legs, replay installs a
//! balance without adding up, and each entry can be audited by itself.

use kami_wal::Lsn;

use super::{u32_at, u64_at};
use crate::account::{LEGS_MAX, Leg};
use crate::identity::AccountId;
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
