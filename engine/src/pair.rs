//! What moves two cards: REPLACE, which puts another card in the place of a sold one, and TRANSFER, which moves value
//! from one card to another.
//!
//! | command | the first card | the second card | the order |
//! |---|---|---|---|
//! | REPLACE | SOLD → VOIDED | AVAILABLE → SOLD, with what the first was worth | has the second in the first one's place |
//! | TRANSFER of a part | SOLD | SOLD | – |
//! | TRANSFER of all | SOLD → VOIDED | SOLD | – |
//!
//! A replacement goes on where the card before it stopped: what is left on it, what was redeemed, settled and refunded,
//! when it ends, whether it is active. So what was redeemed of the card before can be reversed and refunded at the card
//! in its place, by the same id, and nowhere else. It belongs to the same order, whose buyer fetches its code.
//!
//! # Invariants
//! * Both cards move in one group of entries, each in its own chain, and name each other: a record of the log is there
//!   as a whole or not at all.
//! * What is held of the first card is held for somebody: as long as it is, neither command moves the card.
//! * The sum of what is left on both cards is the same before and after. What came from another card counts as loaded,
//!   and what went to one is taken off that.
//! * A card that was replaced belongs to no order any more, and never leaves VOIDED. Its replacement was in stock,
//!   its code unseen, and belongs to one order.

mod read;
mod turn;

pub(crate) use read::PairRead;

use crate::card::{Past, View, unusable};
use crate::command::Command;
use crate::identity::CardDigest;
use crate::product::{CardKind, Money};
use crate::record::{HEAD_BYTES, Kind, PAIR_BYTES, Purse, VALUE_BYTES};
use crate::status::Status;
use crate::table::Batch;
use crate::value::{EFFECTS_MAX, Value};
use crate::word::{CardRef, Flags, Lifecycle, Word};

/// Cards of one order are replaced at most this often: every command about the order reads the entries.
pub const REPLACEMENTS_MAX: u32 = 256;

/// Bytes of one of the two entries, if it does not end a volume.
pub(crate) const PAIR_ENTRY_BYTES: usize = HEAD_BYTES + PAIR_BYTES + VALUE_BYTES;

/// A sold card is to be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replace {
    /// The card.
    pub card: CardDigest,
    /// The card that takes its place; `None` takes the next of the same kind from stock.
    pub with: Option<CardDigest>,
}

/// Value is to go from one card to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// The card it leaves.
    pub from: CardDigest,
    /// The card it goes to.
    pub to: CardDigest,
    /// How much; 0 is all, and makes the card it leaves void.
    pub amount: Money,
}

/// What is asked of two cards.
#[derive(Clone, Copy)]
enum Asked {
    Replace { with: Option<CardDigest> },
    Transfer { amount: Money },
}

impl Asked {
    /// The codes of both cards, and what is asked.
    fn of(command: &Command) -> (CardDigest, Option<CardDigest>, Asked) {
        match command {
            Command::Replace(pair) => (pair.card, pair.with, Asked::Replace { with: pair.with }),
            Command::Transfer(pair) => (pair.from, Some(pair.to), Asked::Transfer { amount: pair.amount }),
            _ => unreachable!("the caller matched the command"),
        }
    }

    const fn kind(self) -> Kind {
        match self {
            Asked::Replace { .. } => Kind::Replace,
            Asked::Transfer { .. } => Kind::Transfer,
        }
    }
}

/// What a card becomes.
struct After {
    kind: Kind,
    lifecycle: Lifecycle,
    flags: Flags,
    /// What moves, and what is on it then; of a card that is used as a whole nothing is told.
    value: Option<(Money, Purse)>,
}

/// What a decision about one of the cards rests on.
struct Seen<'a> {
    batch: &'a Batch,
    card: CardRef,
    word: Word,
    view: View,
    value: Value,
    past: &'a Past,
}

impl Seen<'_> {
    fn is_single(&self) -> bool {
        self.view.kind == CardKind::Single
    }

    /// What is on the card, as its next entry is to tell it.
    fn purse(&self) -> Purse {
        let count = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
        let before = self.value.purse;
        Purse {
            held: self.value.held.amount,
            effects: before.effects + 1,
            tombstones: count(self.past.tombstones),
            reversals: count(self.past.reversals),
            begun_ms: self.view.begun_ms,
            ..before
        }
    }

    /// Why nothing can be moved from the card, whatever it is worth.
    fn refusal(&self) -> Option<Status> {
        let spent = match self.view.kind {
            CardKind::MultiUse => Status::UsesExhausted,
            _ => Status::AlreadyRedeemed,
        };
        match self.view.lifecycle() {
            _ if self.word.is_unsold() => Some(Status::NotSold),
            Lifecycle::Redeemed => Some(spent),
            Lifecycle::Voided if self.view.flags().contains(Flags::REPLACED) => Some(Status::Replaced),
            Lifecycle::Voided => Some(Status::Voided),
            Lifecycle::Returned => Some(Status::Returned),
            // Somebody counts on what is held.
            _ if 0 < self.value.held.live => Some(Status::IllegalTransition),
            Lifecycle::Expired => Some(Status::Expired),
            // What is not sold was dealt with first.
            Lifecycle::Sold | Lifecycle::Available | Lifecycle::Reserved => None,
        }
    }
}

/// Whether cards of a batch can take the place of `old`: it must not matter to whoever has the card that it is another
/// one. Asked of the batch, so that no row of one that does not fit is looked at.
fn batch_fits(old: &Seen<'_>, batch: &Batch) -> bool {
    let begins = |batch: &Batch| batch.valid_from_ms.max(old.view.now_ms);
    batch.product == old.batch.product
        && batch.validity == old.batch.validity
        && batch.columns.pins.is_empty() == old.batch.columns.pins.is_empty()
        && begins(batch) == begins(old.batch)
}

/// Whether a card in stock can, whose batch fits and which ends at `expires_ms`: an end that follows from what happens
/// to the card must not be there before.
fn end_fits(old: &Seen<'_>, expires_ms: u64) -> bool {
    old.view.expires_ms != 0 || old.batch.validity.is_none() || expires_ms == 0
}

/// The end that a card is to be given that takes the place of `old`; `None` if its own is the same.
fn end_of(old: &Seen<'_>, new: &View) -> Option<u64> {
    let end_ms = old.view.expires_ms;
    match old.batch.validity {
        // It follows from what happens to the card.
        Some(_) if end_ms == 0 => None,
        Some(_) => Some(end_ms),
        None => (new.expires_ms != end_ms).then_some(end_ms),
    }
}

/// What the two cards become when the second takes the place of the first, and the end that the second is given.
fn replaced(old: &Seen<'_>, new: &Seen<'_>, seen: bool) -> Result<(After, After, Option<u64>), Status> {
    let left = old.value.purse.remaining;
    let end_ms = end_of(old, &new.view);
    let had = old.word.flags();
    let mut flags = new.word.flags().with(Flags::HAS_EFFECTS);
    for mark in [Flags::USED, Flags::SETTLED] {
        if had.contains(mark) {
            flags = flags.with(mark);
        }
    }
    if seen {
        flags = flags.with(Flags::REVEALED);
    }
    if end_ms.is_some() {
        flags = flags.with(Flags::OWN_END);
    }
    // Asked of what it has by itself: one that is in use is active whatever is said.
    let active = old.view.flags().contains(Flags::ACTIVE);
    if new.view.flags().contains(Flags::ACTIVE) != active {
        let (mark, other) =
            if active { (Flags::ACTIVE, Flags::INACTIVE) } else { (Flags::INACTIVE, Flags::ACTIVE) };
        flags = flags.with(mark).without(other);
    }
    let (mut given, mut taken) = (None, None);
    if !old.is_single() {
        let (before, own) = (old.purse(), new.purse());
        let gone = before.loaded.checked_sub(left).ok_or(Status::EffectsExhausted)?;
        given = Some((left, Purse { remaining: 0, held: 0, loaded: gone, ..before }));
        let Purse { redeemed, refunded, settled, .. } = before;
        let initial = own.initial().ok_or(Status::EffectsExhausted)?;
        let loaded = left.checked_add(redeemed).and_then(|sum| sum.checked_sub(refunded));
        let loaded = loaded.and_then(|sum| sum.checked_sub(initial)).ok_or(Status::EffectsExhausted)?;
        let begun_ms = before.begun_ms;
        let purse = Purse {
            remaining: left,
            held: 0,
            redeemed,
            loaded,
            refunded,
            settled,
            begun_ms,
            sale: None,
            ..own
        };
        taken = Some((left, purse));
    }
    let given = After {
        kind: Kind::Replace,
        lifecycle: Lifecycle::Voided,
        flags: had.with(Flags::HAS_EFFECTS).with(Flags::REPLACED),
        value: given,
    };
    let taken = After { kind: Kind::Replacement, lifecycle: Lifecycle::Sold, flags, value: taken };
    Ok((given, taken, end_ms))
}

/// What the two cards become when value goes from the first to the second.
fn transferred(
    from: &Seen<'_>,
    to: &Seen<'_>,
    amount: Money,
    value_max: Money,
) -> Result<(After, After), Status> {
    let left = from.value.purse.remaining;
    let moved = match amount {
        ..0 => return Err(Status::Malformed),
        0 => left,
        amount => amount,
    };
    let all = moved == left;
    match from.view.kind {
        CardKind::MultiUse if left == 0 => return Err(Status::UsesExhausted),
        _ if left == 0 || left < moved => return Err(Status::InsufficientValue),
        // It ends with this, so that what cannot move any more can still be emptied.
        _ if !all && from.value.purse.effects >= EFFECTS_MAX => return Err(Status::EffectsExhausted),
        _ => {}
    }
    if unusable(&to.view).is_some() || to.value.purse.effects >= EFFECTS_MAX {
        return Err(Status::OtherUnfit);
    }
    let (before, own) = (from.purse(), to.purse());
    let full = own.remaining.checked_add(moved).filter(|sum| *sum <= value_max);
    let remaining = full.ok_or(Status::ValueLimit)?;
    let loaded = own.loaded.checked_add(moved).ok_or(Status::EffectsExhausted)?;
    let gone = before.loaded.checked_sub(moved).ok_or(Status::EffectsExhausted)?;
    let flags = from.word.flags().with(Flags::HAS_EFFECTS);
    let given = After {
        kind: Kind::Transfer,
        lifecycle: if all { Lifecycle::Voided } else { Lifecycle::Sold },
        flags: if all { flags.with(Flags::REPLACED) } else { flags },
        value: Some((moved, Purse { remaining: left - moved, loaded: gone, ..before })),
    };
    let taken = After {
        kind: Kind::Receive,
        lifecycle: Lifecycle::Sold,
        flags: to.word.flags().with(Flags::HAS_EFFECTS),
        value: Some((moved, Purse { remaining, loaded, ..own })),
    };
    Ok((given, taken))
}
