//! The rule of a single card: what may happen to it, and when.
//!
//! [`decide`] is pure and total: for every view of a card and every command it says what moves or why
//! not, and touches nothing. The sequencer calls it under its lock; the table tests (`card/tests.rs`) call it for
//! all states times all commands.

mod action;
mod past;
#[cfg(test)]
mod tests;

pub use action::{Action, Asker, Pin, Second};
pub use past::{Effect, Past};

use kami_wal::{Lsn, planted};

use crate::product::{CardKind, Money};
use crate::record::Kind;
use crate::status::Status;
use crate::word::{Flags, Lifecycle, Word};

/// A card keeps at most this many tombstones, so that a hostile till cannot lengthen its chain at will.
pub const TOMBSTONES_MAX: u32 = 64;
/// A card is given back at most this often, for the same reason. With these two every chain is bounded but
/// for what operators do: every command about a card reads it whole.
pub const REVERSALS_MAX: u32 = 64;

/// All that a decision about one card rests on.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// The card's word.
    pub word: Word,
    /// How cards of its product are used.
    pub kind: CardKind,
    /// Whether its row of the batch is active.
    pub batch_active: bool,
    /// Whether its batch or product is frozen.
    pub frozen: bool,
    /// Whether the unsold cards of its batch are void.
    pub batch_voided: bool,
    /// From when it is valid, milliseconds; 0 is at once.
    pub valid_from_ms: u64,
    /// When it expires, milliseconds; 0 is never.
    pub expires_ms: u64,
    /// What it is worth.
    pub face: Money,
    /// How long a redemption can be reversed, milliseconds.
    pub reversal_ms: u64,
    /// Engine time, milliseconds.
    pub now_ms: u64,
    /// Whether part of it is held: then its time does not run out.
    pub held: bool,
    /// From when its validity counts, milliseconds, if that is from an event of its own that has happened; else 0.
    pub begun_ms: u64,
    /// Whether that event is its first use.
    pub from_use: bool,
}

impl View {
    /// The lifecycle with the batch's void and the card's expiry taken into account.
    #[must_use]
    pub fn lifecycle(&self) -> Lifecycle {
        match self.word.lifecycle() {
            Lifecycle::Available if self.batch_voided => Lifecycle::Voided,
            Lifecycle::Available | Lifecycle::Sold if self.is_expired() && !self.held => Lifecycle::Expired,
            lifecycle => lifecycle,
        }
    }

    /// The flags with those of batch and product taken into account.
    #[must_use]
    pub fn flags(&self) -> Flags {
        let mut flags = self.word.flags();
        if self.is_active() {
            flags = flags.with(Flags::ACTIVE);
        }
        if self.frozen {
            flags = flags.with(Flags::FROZEN);
        }
        flags
    }

    fn is_expired(&self) -> bool {
        self.expires_ms != 0 && self.now_ms >= self.expires_ms
    }

    fn is_active(&self) -> bool {
        let flags = self.word.flags();
        // What is in use stays so: only unused cards are deactivated.
        flags.contains(Flags::ACTIVE)
            || flags.contains(Flags::USED)
            || self.batch_active && !flags.contains(Flags::INACTIVE)
    }

    /// Whether it, its batch or its product is frozen.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        self.frozen || self.word.flags().contains(Flags::FROZEN)
    }
}

/// The decision, but where the card's value changes. Small, because every command makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Something changes.
    Move {
        /// What is recorded.
        kind: Kind,
        /// The lifecycle afterwards.
        lifecycle: Lifecycle,
        /// The flags afterwards.
        flags: Flags,
        /// What the caller is told.
        status: Status,
        /// Of a reversal: the original's place.
        original: Option<Lsn>,
    },
    /// The request had its effect before: [`Past::same`].
    Replay,
    /// Nothing changes.
    Refuse(Status),
}

/// What is decided about any card before its state is looked at: whether it may be known of, whether the
/// request is a retry, and what becomes of the reversal of something never seen.
#[inline]
pub(crate) fn before(view: &View, past: &Past, action: Action, asker: &Asker) -> Option<Outcome> {
    use Outcome::Refuse;

    // What a redeemer is told about a card that was never sold is what it is told about a code that does
    // not exist, whatever ids the card has seen: so that nobody can ask which codes there are.
    if view.word.is_unsold() {
        match action {
            Action::Redeem { .. } | Action::Hold { .. } | Action::Capture { .. } | Action::Release { .. } => {
                return Some(Refuse(Status::CardNotValid));
            }
            // Poisoned as far as the card has room for it; the answer is the same, as for a code that does
            // not exist, of which nothing can be kept at all.
            Action::Reverse(_)
                if past.same.is_some()
                    || past.original.is_some()
                    || past.tombstone
                    || past.tombstones >= TOMBSTONES_MAX =>
            {
                return Some(Refuse(Status::Tombstoned));
            }
            _ => {}
        }
    }
    if let Some(same) = past.same {
        let is_retry = same.body == asker.body
            && (same.principal == asker.principal || planted("anybodys-retry"))
            && action.is_recorded_as(same.kind);
        if !(is_retry && planted("apply-retry-twice")) {
            return Some(if is_retry { Outcome::Replay } else { Refuse(Status::IdReused) });
        }
    }
    if let Action::Reverse(_) | Action::Refund { .. } | Action::Settle = action
        && past.original.is_none()
        && view.word.lifecycle() == Lifecycle::Redeemed
        && view.word.flags().contains(Flags::MIGRATED)
    {
        // What used it up is not known here by any id. TOMBSTONED would say that it was undone, which it was not.
        return Some(Refuse(Status::Migrated));
    }
    if let Action::Reverse(_) = action
        && past.original.is_none()
    {
        return Some(if past.tombstone {
            // The id is refused already; a second tombstone would add nothing.
            Refuse(Status::Tombstoned)
        } else if past.tombstones >= TOMBSTONES_MAX {
            Refuse(Status::ReversalsExhausted)
        } else {
            Outcome::Move {
                kind: Kind::Tombstone,
                lifecycle: view.word.lifecycle(),
                flags: view.word.flags().with(Flags::HAS_EFFECTS),
                status: Status::Tombstoned,
                original: None,
            }
        });
    }
    None
}

/// Why the card cannot be used now, whoever asks and for how much.
#[inline]
pub(crate) fn unusable(view: &View) -> Option<Status> {
    let lifecycle = if view.is_expired() && view.word.lifecycle() == Lifecycle::Sold {
        Lifecycle::Expired
    } else {
        view.lifecycle()
    };
    match lifecycle {
        Lifecycle::Sold => {}
        Lifecycle::Redeemed => return Some(Status::AlreadyRedeemed),
        Lifecycle::Expired => return Some(Status::Expired),
        Lifecycle::Returned => return Some(Status::Returned),
        Lifecycle::Voided => return Some(Status::Voided),
        Lifecycle::Available | Lifecycle::Reserved => return Some(Status::CardNotValid),
    }
    if view.is_frozen() {
        Some(Status::Frozen)
    } else if !view.is_active() {
        Some(Status::NotActive)
    } else if view.now_ms < view.valid_from_ms {
        Some(Status::NotYetValid)
    } else {
        None
    }
}

/// Decides one command about a card that is used as a whole. The order of the checks is the order of
/// precedence.
#[must_use]
pub fn decide(view: &View, past: &Past, action: Action, asker: &Asker) -> Outcome {
    use Outcome::Refuse;

    if let Some(outcome) = before(view, past, action, asker) {
        return outcome;
    }
    let lifecycle = view.lifecycle();
    let flags = view.word.flags().with(Flags::HAS_EFFECTS);
    let stay = |kind, flags| Outcome::Move {
        kind,
        lifecycle: view.word.lifecycle(),
        flags,
        status: Status::Ok,
        original: None,
    };
    match action {
        Action::Redeem { amount, pin, .. } => {
            if past.tombstone && !planted("ignore-tombstones") {
                return Refuse(Status::ReversedBeforeArrival);
            }
            if let Some(status) = pin.refusal() {
                return Refuse(status);
            }
            if let Some(status) = unusable(view) {
                return Refuse(status);
            }
            if view.kind != CardKind::Single {
                return Refuse(Status::Unsupported);
            }
            if amount != 0 && amount != view.face {
                // A single-use card is spent as a whole or not at all.
                return Refuse(if amount > view.face {
                    Status::InsufficientValue
                } else {
                    Status::IllegalTransition
                });
            }
            Outcome::Move {
                kind: Kind::Redeem,
                lifecycle: Lifecycle::Redeemed,
                flags: flags.with(Flags::USED),
                status: Status::Ok,
                original: None,
            }
        }
        Action::Reverse(_) => match past.original {
            Some(original) if original.kind == Kind::Hold => Refuse(match past.resolved {
                Some(Kind::HoldTimeout) => Status::HoldExpired,
                _ => Status::HoldResolved,
            }),
            Some(original) if !matches!(original.kind, Kind::Redeem | Kind::Capture) => {
                Refuse(Status::IllegalTransition)
            }
            Some(original)
                if original.merchant != asker.merchant
                    && !asker.any_merchant
                    && !planted("anybodys-reversal") =>
            {
                Refuse(Status::ScopeDenied)
            }
            Some(original) if original.reversed || past.was_refunded => Refuse(Status::AlreadyReversed),
            // An open redemption and another state than REDEEMED contradict each other: touch nothing.
            Some(_) if view.word.lifecycle() != Lifecycle::Redeemed => Refuse(Status::IllegalTransition),
            Some(_) if flags.contains(Flags::SETTLED) => Refuse(Status::Settled),
            Some(original) if view.now_ms.saturating_sub(original.time_ms) > view.reversal_ms => {
                Refuse(Status::ReverseWindowClosed)
            }
            Some(_) if past.reversals >= REVERSALS_MAX => Refuse(Status::ReversalsExhausted),
            Some(original) => Outcome::Move {
                kind: Kind::Reverse,
                lifecycle: Lifecycle::Sold,
                flags: flags.without(Flags::USED),
                status: Status::Ok,
                original: Some(original.lsn),
            },
            // Dealt with before.
            None => Refuse(Status::Tombstoned),
        },
        Action::Freeze if lifecycle == Lifecycle::Voided => Refuse(Status::Voided),
        Action::Freeze if flags.contains(Flags::FROZEN) => Refuse(Status::IllegalTransition),
        Action::Freeze => stay(Kind::Freeze, flags.with(Flags::FROZEN)),
        Action::Unfreeze if !flags.contains(Flags::FROZEN) => Refuse(Status::IllegalTransition),
        Action::Unfreeze => stay(Kind::Unfreeze, flags.without(Flags::FROZEN)),
        Action::Void => match view.word.lifecycle() {
            Lifecycle::Available | Lifecycle::Expired | Lifecycle::Returned
                if lifecycle != Lifecycle::Voided =>
            {
                Outcome::Move {
                    kind: Kind::Void,
                    lifecycle: Lifecycle::Voided,
                    flags,
                    status: Status::Ok,
                    original: None,
                }
            }
            Lifecycle::Sold if view.held => Refuse(Status::IllegalTransition),
            Lifecycle::Sold if asker.second == Second::Approved => Outcome::Move {
                kind: Kind::Void,
                lifecycle: Lifecycle::Voided,
                flags,
                status: Status::Ok,
                original: None,
            },
            Lifecycle::Sold => Refuse(Status::ApprovalRequired),
            Lifecycle::Redeemed | Lifecycle::Reserved => Refuse(Status::IllegalTransition),
            _ => Refuse(Status::Voided),
        },
        Action::Restock { .. } => match view.word.lifecycle() {
            Lifecycle::Returned => Outcome::Move {
                kind: Kind::Restock,
                lifecycle: Lifecycle::Voided,
                flags,
                status: Status::Ok,
                original: None,
            },
            Lifecycle::Voided => Refuse(Status::Voided),
            _ => Refuse(Status::IllegalTransition),
        },
        Action::PinUnlock { locked: false } => Refuse(Status::IllegalTransition),
        Action::PinUnlock { .. } => stay(Kind::PinUnlock, flags),
        Action::Activate | Action::Deactivate | Action::Extend { .. } | Action::Expire => {
            match lived(view, action, asker) {
                Err(status) => Refuse(status),
                Ok((kind, flags)) => stay(kind, flags.with(Flags::HAS_EFFECTS)),
            }
        }
        // These are decided where the value is known.
        Action::Hold { .. }
        | Action::Capture { .. }
        | Action::Release { .. }
        | Action::HoldTimeout { .. }
        | Action::Load { .. }
        | Action::Refund { .. }
        | Action::Settle => Refuse(Status::Unsupported),
    }
}

/// What changes when a card may be used, and not what it is worth: the entry and the flags afterwards.
fn lived(view: &View, action: Action, asker: &Asker) -> Result<(Kind, Flags), Status> {
    let flags = view.word.flags();
    let lifecycle = view.lifecycle();
    match lifecycle {
        Lifecycle::Voided => return Err(Status::Voided),
        Lifecycle::Returned => return Err(Status::Returned),
        Lifecycle::Redeemed => return Err(Status::AlreadyRedeemed),
        Lifecycle::Expired if !matches!(action, Action::Extend { .. }) => return Err(Status::Expired),
        _ => {}
    }
    match action {
        // A seller may activate what it sold, not what lies in stock.
        Action::Activate if view.word.is_unsold() && !asker.any_merchant => Err(Status::NotSold),
        Action::Activate if !view.is_active() => {
            Ok((Kind::Activate, flags.with(Flags::ACTIVE).without(Flags::INACTIVE)))
        }
        Action::Deactivate if view.is_active() && !flags.contains(Flags::USED) && !view.held => {
            Ok((Kind::Deactivate, flags.with(Flags::INACTIVE).without(Flags::ACTIVE)))
        }
        // What an order waits for keeps the validity it was chosen for.
        Action::Extend { .. } | Action::Expire if view.word.lifecycle() == Lifecycle::Reserved => {
            Err(Status::IllegalTransition)
        }
        Action::Extend { expires_ms }
            if view.expires_ms != 0 && expires_ms > view.expires_ms.max(view.now_ms) =>
        {
            Ok((Kind::Extend, flags.with(Flags::OWN_END)))
        }
        Action::Expire if !view.is_expired() => Ok((Kind::Expire, flags.with(Flags::OWN_END))),
        _ => Err(Status::IllegalTransition),
    }
}
