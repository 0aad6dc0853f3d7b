//! What happened to a card before, as far as a decision about it rests on that. It is read from the card's chain before the
//! lock (`chain/past.rs`), and stands as long as the card's word does.

use kami_wal::Lsn;

use crate::identity::{MerchantId, PrincipalId};
use crate::product::Money;
use crate::record::Kind;
use crate::word::{CardRef, Word};

/// An earlier effect on the same card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effect {
    /// What it was.
    pub kind: Kind,
    /// Where it stands.
    pub lsn: Lsn,
    /// When it happened, milliseconds.
    pub time_ms: u64,
    /// Who asked for it.
    pub principal: PrincipalId,
    /// For which merchant.
    pub merchant: MerchantId,
    /// Checksum of what was asked.
    pub body: u32,
    /// Whether it was reversed since.
    pub reversed: bool,
    /// What it moved; only of entries that tell a card's value, as the three below.
    pub amount: Money,
    /// What was on the card afterwards.
    pub remaining: Money,
    /// What was held of it.
    pub held: Money,
    /// Of a hold its deadline, milliseconds.
    pub deadline_ms: u64,
    /// Of a replacement the card that took the place.
    pub other: Option<CardRef>,
}

/// What the card's chain of entries says about a request. A card without
/// [`Flags::HAS_EFFECTS`] has the default: nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Past {
    /// The effect that the request's own id had on this card.
    pub same: Option<Effect>,
    /// Of a redemption: its id stands in a tombstone. Of a reversal: the original's id does.
    pub tombstone: bool,
    /// Of a reversal: the effect that the original's id had on this card.
    pub original: Option<Effect>,
    /// How many tombstones the card has.
    pub tombstones: u32,
    /// How many of its redemptions were reversed.
    pub reversals: u32,
    /// Whether an entry reverses what the request's own id did, and one what the original's did: found before
    /// the effects themselves, which are older.
    pub same_reversed: bool,
    /// See `same_reversed`.
    pub original_reversed: bool,
    /// Whether the request's own id stands in a tombstone.
    pub poisoned: bool,
    /// Of what ends a hold: how the hold ended.
    pub resolved: Option<Kind>,
    /// Whether the original was refunded, in part at least.
    pub was_refunded: bool,
    /// How much of the original was refunded.
    pub refunded: Money,
    /// When it was activated by itself last, milliseconds, if its newest entries say so; else 0.
    pub activated_ms: u64,
    /// When it was sold, milliseconds; only read for cards whose validity counts from an event of their own.
    pub sold_ms: u64,
    /// When it was used first in the system that it comes from, milliseconds, if it was, and not used up; only read as
    /// `sold_ms`.
    pub used_ms: u64,
    /// The card that stands in its place, if it was replaced, as it was when `same` was looked for there, too.
    pub successor: Option<(CardRef, Word)>,
}

impl Past {
    /// Of what has none.
    pub(crate) const NONE: Past = Past {
        same: None,
        tombstone: false,
        original: None,
        tombstones: 0,
        reversals: 0,
        same_reversed: false,
        original_reversed: false,
        poisoned: false,
        resolved: None,
        was_refunded: false,
        refunded: 0,
        activated_ms: 0,
        sold_ms: 0,
        used_ms: 0,
        successor: None,
    };
}
