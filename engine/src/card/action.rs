//! What is asked of a card, by whom, and with which PIN.

use crate::identity::{DocumentId, MerchantId, PrincipalId, RequestId};
use crate::product::Money;
use crate::record::Kind;
use crate::status::Status;

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

impl Action {
    /// Whether it is decided without regard to what is on the card.
    #[inline]
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
    #[inline]
    pub(crate) const fn end_ms(self, now_ms: u64) -> Option<u64> {
        match self {
            Action::Extend { expires_ms } => Some(expires_ms),
            Action::Expire => Some(now_ms),
            _ => None,
        }
    }

    /// Whether an entry of this kind is what the action leaves in the log.
    #[inline]
    pub(super) const fn is_recorded_as(self, kind: Kind) -> bool {
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
    #[inline]
    pub(crate) const fn refusal(self) -> Option<Status> {
        match self {
            Pin::Right => None,
            Pin::Wrong => Some(Status::CardNotValid),
            Pin::Locked => Some(Status::PinLocked),
        }
    }
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
