//! The code of every reply: what it means and what its reader does about it.
//!
//! A refused sale is not an error of the program, so these are values, not `Error`s. Numbers are part
//! of the wire format: a retired number is never given out again. The hundreds digit is the class.

/// What a caller does with a reply of this class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The effect happened; accept it.
    Done,
    /// Decided against, nothing changed; a new attempt is a new request with a new id.
    Refused,
    /// The caller is wrong and must be mended.
    CallerBug,
    /// Not executed; the same request with the same id may be sent again.
    NotExecuted,
}

macro_rules! statuses {
    ($($(#[doc = $doc:literal])+ $name:ident = $number:literal, $code:literal;)+) => {
        /// The outcome of a command.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u16)]
        #[non_exhaustive]
        pub enum Status { $($(#[doc = $doc])+ $name = $number,)+ }

        impl Status {
            /// Every status, in order of number.
            pub const ALL: &'static [Status] = &[$(Status::$name,)+];

            /// The stable name, as it stands on the wire's table and in `--json` output.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self { $(Status::$name => $code,)+ }
            }

            /// The status with this number.
            #[must_use]
            pub const fn from_number(number: u16) -> Option<Status> {
                match number { $($number => Some(Status::$name),)+ _ => None }
            }

            /// One sentence: what it means and what to do.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Status::$name => concat!($($doc,)+).trim_ascii(),)+ }
            }
        }
    };
}

statuses! {
    /// Done.
    Ok = 0, "OK";
    /// Done in part; the reply says how much.
    OkPartial = 1, "OK_PARTIAL";
    /// The original was never seen; if the card is sold, its id is now refused for good.
    Tombstoned = 2, "TOMBSTONED";

    /// No card that can be redeemed: unknown, wrong PIN or not sold; which one is not told.
    CardNotValid = 100, "CARD_NOT_VALID";
    /// Nothing by this name, number or code.
    NotFound = 101, "NOT_FOUND";
    /// The card is not activated yet.
    NotActive = 102, "NOT_ACTIVE";
    /// The card's validity has not begun.
    NotYetValid = 103, "NOT_YET_VALID";
    /// The card's validity has ended.
    Expired = 104, "EXPIRED";
    /// The card, its batch or its product is frozen; ask the operator.
    Frozen = 105, "FROZEN";
    /// The card is not sold.
    NotSold = 106, "NOT_SOLD";
    /// The card was redeemed before by another request.
    AlreadyRedeemed = 107, "ALREADY_REDEEMED";
    /// The amount is more than the card is worth.
    InsufficientValue = 108, "INSUFFICIENT_VALUE";
    /// All uses of the card are spent.
    UsesExhausted = 109, "USES_EXHAUSTED";
    /// The card or the earlier request belongs to another merchant, store or product class.
    ScopeDenied = 110, "SCOPE_DENIED";
    /// The request's currency is not the card's.
    CurrencyMismatch = 111, "CURRENCY_MISMATCH";
    /// Too many wrong PINs from this terminal; wait or use another way.
    PinLocked = 112, "PIN_LOCKED";
    /// The card is void for good.
    Voided = 113, "VOIDED";
    /// The card went back to the seller.
    Returned = 114, "RETURNED";
    /// Fewer cards can be sold than the order asks for; nothing was sold.
    OutOfStock = 115, "OUT_OF_STOCK";
    /// The order is larger than one record holds; split it.
    OrderTooLarge = 116, "ORDER_TOO_LARGE";
    /// The account's purchase limit is reached.
    LimitAccount = 117, "LIMIT_ACCOUNT";
    /// The address's purchase limit is reached.
    LimitIp = 118, "LIMIT_IP";
    /// Too many open reservations.
    LimitReservations = 119, "LIMIT_RESERVATIONS";
    /// The account's balance and credit do not cover the order.
    InsufficientFunds = 120, "INSUFFICIENT_FUNDS";
    /// The money legs do not sum to zero.
    LegsUnbalanced = 121, "LEGS_UNBALANCED";
    /// The reservation timed out and its cards are gone.
    ReservationExpired = 122, "RESERVATION_EXPIRED";
    /// The order was cancelled.
    OrderCancelled = 123, "ORDER_CANCELLED";
    /// The hold timed out.
    HoldExpired = 124, "HOLD_EXPIRED";
    /// The hold was captured or released before.
    HoldResolved = 125, "HOLD_RESOLVED";
    /// The capture is more than the hold.
    ExceedsHold = 126, "EXCEEDS_HOLD";
    /// The original was reversed before by another request.
    AlreadyReversed = 127, "ALREADY_REVERSED";
    /// The product's reversal window is over.
    ReverseWindowClosed = 128, "REVERSE_WINDOW_CLOSED";
    /// The redemption is settled; refund it instead.
    Settled = 129, "SETTLED";
    /// This id was reversed before it arrived and never takes effect.
    ReversedBeforeArrival = 130, "REVERSED_BEFORE_ARRIVAL";
    /// The state does not allow this command.
    IllegalTransition = 131, "ILLEGAL_TRANSITION";
    /// A card of the import is there already, or twice in the file.
    DuplicateCard = 132, "DUPLICATE_CARD";
    /// This very list of cards was imported before.
    DuplicateBatch = 133, "DUPLICATE_BATCH";
    /// A second person must approve this.
    ApprovalRequired = 134, "APPROVAL_REQUIRED";
    /// The card's earlier history lies in retired log.
    HistoryArchived = 135, "HISTORY_ARCHIVED";
    /// A product, order or principal of this name exists.
    AlreadyExists = 136, "ALREADY_EXISTS";

    /// The frame or a field in it is not well formed.
    Malformed = 200, "MALFORMED";
    /// The request id was used on this target with another body.
    IdReused = 201, "ID_REUSED";
    /// This version of the server does not know the command or option.
    Unsupported = 202, "UNSUPPORTED";
    /// No valid certificate, or a revoked one.
    Unauthenticated = 203, "UNAUTHENTICATED";
    /// The role does not allow this command.
    Forbidden = 204, "FORBIDDEN";
    /// The frame is longer than the limit.
    TooLarge = 205, "TOO_LARGE";

    /// Overloaded; send the same request again a little later.
    Busy = 300, "BUSY";
    /// Too many wrong codes from this caller; wait as long as the reply says, then send the same again.
    RateLimited = 301, "RATE_LIMITED";
    /// The server is still recovering.
    Recovering = 302, "RECOVERING";
    /// The server takes no changes now.
    ReadOnly = 303, "READ_ONLY";
    /// The disk is full; changes go on when there is room again.
    DiskFull = 304, "DISK_FULL";
    /// The deadline passed before the command was decided.
    DeadlinePassed = 305, "DEADLINE_PASSED";
    /// The clock stepped; an operator must accept the new time.
    ClockSuspect = 306, "CLOCK_SUSPECT";
}

impl Status {
    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> u16 {
        self as u16
    }

    /// The class, which says what to do.
    #[must_use]
    pub const fn class(self) -> Class {
        match self.number() / 100 {
            0 => Class::Done,
            1 => Class::Refused,
            2 => Class::CallerBug,
            _ => Class::NotExecuted,
        }
    }

    /// Whether the command had its effect.
    #[must_use]
    pub const fn is_done(self) -> bool {
        matches!(self.class(), Class::Done)
    }
}
