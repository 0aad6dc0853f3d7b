//! The rule of a single card: what may happen to it, and when.
//!
//! [`decide`] is pure and total: for every view of a card and every command it says what moves or why
//! not, and touches nothing. The sequencer calls it under its lock; the table test below calls it for
//! all states times all commands.

#[cfg(test)]
mod tests;

use kami_wal::{Lsn, planted};

use crate::identity::{DocumentId, MerchantId, PrincipalId, RequestId};
use crate::product::{CardKind, Money};
use crate::record::Kind;
use crate::status::Status;
use crate::word::{CardRef, Flags, Lifecycle, Word};

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

/// What came of the PIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pin {
    /// It was right, or none is needed.
    Right,
    /// It was wrong or missing.
    Wrong,
    /// Whoever sent it tried too many wrong ones: whether this one is right is not told.
    Locked,
}

impl Pin {
    /// Why the card cannot be used with it.
    pub(crate) const fn refusal(self) -> Option<Status> {
        match self {
            Pin::Right => None,
            Pin::Wrong => Some(Status::CardNotValid),
            Pin::Locked => Some(Status::PinLocked),
        }
    }
}

/// What is asked of a card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Use it up.
    Redeem {
        /// How much; 0 is all.
        amount: Money,
        /// What came of the PIN.
        pin: Pin,
        /// Whether less will do.
        partial: bool,
    },
    /// Undo the redemption with this id.
    Reverse(RequestId),
    /// Keep part of its value for a payment that is not decided yet.
    Hold {
        /// How much; 0 as for a redemption.
        amount: Money,
        /// What came of the PIN.
        pin: Pin,
        /// Whether less will do.
        partial: bool,
        /// How long, if not as long as the product says.
        seconds: u32,
    },
    /// Redeem what is held.
    Capture {
        /// The hold.
        hold: RequestId,
        /// How much of it; 0 is all.
        amount: Money,
    },
    /// Give up what is held.
    Release {
        /// The hold.
        hold: RequestId,
    },
    /// The hold's time is over.
    HoldTimeout {
        /// The hold.
        hold: RequestId,
    },
    /// Add value.
    Load {
        /// How much.
        amount: Money,
    },
    /// Give value back that can be reversed no more.
    Refund {
        /// The redemption.
        original: RequestId,
        /// How much; 0 is all that is left of it.
        amount: Money,
    },
    /// Settle what was redeemed.
    Settle,
    /// Freeze it.
    Freeze,
    /// End the freeze.
    Unfreeze,
    /// Make it void.
    Void,
    /// Lift the locks that wrong PINs put on it.
    PinUnlock {
        /// Whether there are any.
        locked: bool,
    },
    /// Make it redeemable.
    Activate,
    /// Make it not redeemable.
    Deactivate,
    /// Move the end of its validity.
    Extend {
        /// The new end, milliseconds.
        expires_ms: u64,
    },
    /// End its validity now.
    Expire,
    /// Send it back to its supplier.
    Restock {
        /// With what.
        reference: DocumentId,
    },
}

/// Who asks, as far as the rule cares.
#[derive(Clone, Copy, Debug)]
pub struct Asker {
    /// The caller.
    pub principal: PrincipalId,
    /// The caller's merchant.
    pub merchant: MerchantId,
    /// Whether the caller may act for every merchant.
    pub any_merchant: bool,
    /// Checksum of what is asked.
    pub body: u32,
    /// What is known of a second person.
    pub second: Second,
}

/// Whether a second person stands behind what is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Second {
    /// None does, and some commands always take one.
    None,
    /// None does, and the tenant wants one for refunds.
    Wanted,
    /// One approved it.
    Approved,
}

/// How a card moves that is used as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// What is recorded.
    pub kind: Kind,
    /// The lifecycle afterwards.
    pub lifecycle: Lifecycle,
    /// The flags afterwards.
    pub flags: Flags,
    /// What the caller is told.
    pub status: Status,
    /// Of a reversal: the original's place.
    pub original: Option<Lsn>,
}

/// The decision, but where the card's value changes. Small, because every command makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Something changes.
    Move(Move),
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
            Outcome::Move(Move {
                kind: Kind::Tombstone,
                lifecycle: view.word.lifecycle(),
                flags: view.word.flags().with(Flags::HAS_EFFECTS),
                status: Status::Tombstoned,
                original: None,
            })
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
    let stay = |kind, flags| {
        Outcome::Move(Move {
            kind,
            lifecycle: view.word.lifecycle(),
            flags,
            status: Status::Ok,
            original: None,
        })
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
            Outcome::Move(Move {
                kind: Kind::Redeem,
                lifecycle: Lifecycle::Redeemed,
                flags: flags.with(Flags::USED),
                status: Status::Ok,
                original: None,
            })
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
            Some(original) => Outcome::Move(Move {
                kind: Kind::Reverse,
                lifecycle: Lifecycle::Sold,
                flags: flags.without(Flags::USED),
                status: Status::Ok,
                original: Some(original.lsn),
            }),
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
                Outcome::Move(Move {
                    kind: Kind::Void,
                    lifecycle: Lifecycle::Voided,
                    flags,
                    status: Status::Ok,
                    original: None,
                })
            }
            Lifecycle::Sold if view.held => Refuse(Status::IllegalTransition),
            Lifecycle::Sold if asker.second == Second::Approved => Outcome::Move(Move {
                kind: Kind::Void,
                lifecycle: Lifecycle::Voided,
                flags,
                status: Status::Ok,
                original: None,
            }),
            Lifecycle::Sold => Refuse(Status::ApprovalRequired),
            Lifecycle::Redeemed | Lifecycle::Reserved => Refuse(Status::IllegalTransition),
            _ => Refuse(Status::Voided),
        },
        Action::Restock { .. } => match view.word.lifecycle() {
            Lifecycle::Returned => Outcome::Move(Move {
                kind: Kind::Restock,
                lifecycle: Lifecycle::Voided,
                flags,
                status: Status::Ok,
                original: None,
            }),
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

impl Action {
    /// Whether it is decided without regard to what is on the card.
    pub(crate) const fn leaves_value(self) -> bool {
        matches!(
            self,
            Action::Freeze
                | Action::Unfreeze
                | Action::Void
                | Action::PinUnlock { .. }
                | Action::Activate
                | Action::Deactivate
                | Action::Extend { .. }
                | Action::Expire
                | Action::Restock { .. }
        )
    }

    /// The end of validity that it gives the card, once it is done at `now_ms`.
    pub(crate) const fn end_ms(self, now_ms: u64) -> Option<u64> {
        match self {
            Action::Extend { expires_ms } => Some(expires_ms),
            Action::Expire => Some(now_ms),
            _ => None,
        }
    }

    /// Whether an entry of this kind is what the action leaves in the log.
    const fn is_recorded_as(self, kind: Kind) -> bool {
        match self {
            Action::Redeem { .. } => matches!(kind, Kind::Redeem),
            Action::Reverse(_) => matches!(kind, Kind::Reverse | Kind::Tombstone),
            Action::Freeze => matches!(kind, Kind::Freeze),
            Action::Unfreeze => matches!(kind, Kind::Unfreeze),
            Action::Void => matches!(kind, Kind::Void),
            Action::PinUnlock { .. } => matches!(kind, Kind::PinUnlock),
            Action::Hold { .. } => matches!(kind, Kind::Hold),
            Action::Capture { .. } => matches!(kind, Kind::Capture),
            Action::Release { .. } => matches!(kind, Kind::Release),
            // The engine asks under no id.
            Action::HoldTimeout { .. } => false,
            Action::Load { .. } => matches!(kind, Kind::Load),
            Action::Refund { .. } => matches!(kind, Kind::RefundValue),
            Action::Settle => matches!(kind, Kind::Settle),
            Action::Activate => matches!(kind, Kind::Activate),
            Action::Deactivate => matches!(kind, Kind::Deactivate),
            Action::Extend { .. } => matches!(kind, Kind::Extend),
            Action::Expire => matches!(kind, Kind::Expire),
            Action::Restock { .. } => matches!(kind, Kind::Restock),
        }
    }
}
