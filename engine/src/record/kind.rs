//! The kinds of entries.

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
    /// A principal was added, or its certificate renewed.
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
    /// A second person approved a proposed change, which stands right behind it; of ORDER_FETCH nothing does.
    Approve = 12, "APPROVE";
    /// The master key was rotated.
    KeyRotate = 13, "KEY_ROTATE";
    /// A checkpoint of the log's entries was signed.
    SignedCheckpoint = 14, "SIGNED_CHECKPOINT";
    /// The store was restored from a backup; what its former history held behind this point is not part of it.
    Restore = 15, "RESTORE";
    /// A reversal named no card that its caller may know of: nothing changed. As long as a tombstone, so that
    /// the log's positions, which receipts tell, do not show which codes exist.
    Miss = 16, "MISS";
    /// What of a tenant takes two people was set.
    TenantControl = 17, "TENANT_CONTROL";
    /// A proposal was withdrawn.
    ProposalWithdraw = 18, "PROPOSAL_WITHDRAW";
    /// Unsold cards of a batch were sold to an order through which their codes leave.
    Export = 19, "EXPORT";

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
    /// A card's time was ended.
    Expire = 48, "EXPIRE";
    /// A card's validity was extended.
    Extend = 49, "EXTEND";
    /// What was redeemed of a card was settled.
    Settle = 50, "SETTLE";
    /// A card's value, all or part of it, was held.
    Hold = 51, "HOLD";
    /// A hold was captured.
    Capture = 52, "CAPTURE";
    /// A hold was released.
    Release = 53, "RELEASE";
    /// A hold timed out.
    HoldTimeout = 54, "HOLD_TIMEOUT";
    /// Value was loaded onto a card.
    Load = 55, "LOAD";
    /// Value was given back to a card that could be reversed no more.
    RefundValue = 56, "REFUND_VALUE";
    /// A sold card came back.
    Return = 57, "RETURN";
    /// A returned card went back to its supplier.
    Restock = 58, "RESTOCK";
    /// A sold card was replaced by another; the next entry is that one's REPLACEMENT.
    Replace = 59, "REPLACE";
    /// Value of a card went to another; the next entry is that one's RECEIVE.
    Transfer = 60, "TRANSFER";
    /// A redemption made offline was reported that does not fit its card: an exception. One that fits is a REDEEM.
    Advice = 61, "ADVICE";
    /// Too many wrong PINs of a card: it is locked for whoever sent them. Stands in no chain.
    PinLock = 62, "PIN_LOCK";
    /// An operator lifted all such locks of a card.
    PinUnlock = 63, "PIN_UNLOCK";
    /// An operator noted what was done about an exception.
    ExceptionResolve = 64, "EXCEPTION_RESOLVE";
    /// A card took the place of another in its order; the entry before is that one's REPLACE.
    Replacement = 65, "REPLACEMENT";
    /// Value came from another card; the entry before is that one's TRANSFER.
    Receive = 66, "RECEIVE";

    /// What a card was in the system that it was imported from: told by its import, and never an entry of its own.
    Migrated = 27, "MIGRATED";

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
    /// Whether entries of this kind may say what is on their card afterwards.
    #[must_use]
    pub const fn may_tell_value(self) -> bool {
        self.must_tell_value()
            || matches!(self, Kind::Redeem | Kind::Reverse | Kind::Replace | Kind::Replacement)
    }

    /// Whether it counts as a redemption at its till.
    #[must_use]
    pub const fn counts_at_till(self) -> bool {
        matches!(self, Kind::Redeem | Kind::Hold)
    }

    /// Whether they must.
    #[must_use]
    pub const fn must_tell_value(self) -> bool {
        matches!(
            self,
            Kind::Settle
                | Kind::Hold
                | Kind::Capture
                | Kind::Release
                | Kind::HoldTimeout
                | Kind::Load
                | Kind::RefundValue
                | Kind::Transfer
                | Kind::Receive
        )
    }

    /// Whether an entry of this kind is one of two that one command wrote about two cards.
    #[must_use]
    pub const fn is_of_pair(self) -> bool {
        matches!(self, Kind::Replace | Kind::Replacement | Kind::Transfer | Kind::Receive)
    }

    /// The number in the log.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// Whether an entry of this kind moves the one card that is its subject.
    #[must_use]
    pub const fn is_about_card(self) -> bool {
        self.may_tell_value()
            || matches!(
                self,
                Kind::Tombstone
                    | Kind::Freeze
                    | Kind::Unfreeze
                    | Kind::Void
                    | Kind::PinUnlock
                    | Kind::Activate
                    | Kind::Deactivate
                    | Kind::Extend
                    | Kind::Expire
                    | Kind::Restock
            )
    }

    /// Whether it is about an order and its cards.
    #[must_use]
    pub const fn is_order(self) -> bool {
        matches!(
            self,
            Kind::Sell
                | Kind::Export
                | Kind::Reserve
                | Kind::Confirm
                | Kind::Cancel
                | Kind::ReserveTimeout
                | Kind::Realloc
                | Kind::Return
        )
    }
}
