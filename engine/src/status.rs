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
    ($($(#[doc = $doc:literal])+ $name:ident = $number:literal, $code:literal, $advice:literal;)+) => {
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

            /// What a caller does about it, without a full stop.
            #[must_use]
            pub const fn advice(self) -> &'static str {
                match self { $(Status::$name => $advice,)+ }
            }

            /// One sentence: what it means.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Status::$name => concat!($($doc,)+).trim_ascii(),)+ }
            }
        }
    };
}

statuses! {
    /// Done.
    Ok = 0, "OK", "go on; keep the receipt";
    /// Done in part; the reply says how much.
    OkPartial = 1, "OK_PARTIAL", "look at each item, or fetch the rest";
    /// The original was never seen; if the card is sold, its id is now refused for good.
    Tombstoned = 2, "TOMBSTONED", "go on: the sale at the till did not happen";

    /// No card that can be redeemed: unknown, wrong PIN or not sold; which one is not told.
    CardNotValid = 100, "CARD_NOT_VALID", "tell the customer that the card cannot be used; let the code be typed once more at most";
    /// Nothing by this name, number or code.
    NotFound = 101, "NOT_FOUND", "check the name, number or code";
    /// The card is not activated yet.
    NotActive = 102, "NOT_ACTIVE", "activate the batch, or wait until the issuer does";
    /// The card's validity has not begun.
    NotYetValid = 103, "NOT_YET_VALID", "come back when the validity has begun";
    /// The card's validity has ended.
    Expired = 104, "EXPIRED", "tell the customer; an operator can extend the batch";
    /// The card, its batch or its product is frozen.
    Frozen = 105, "FROZEN", "send the customer to the seller; an operator can look at the history and end the freeze";
    /// The card is not sold.
    NotSold = 106, "NOT_SOLD", "sell it first";
    /// The card was redeemed before by another request.
    AlreadyRedeemed = 107, "ALREADY_REDEEMED", "tell the customer; the history shows when and where";
    /// The amount is more than the card is worth.
    InsufficientValue = 108, "INSUFFICIENT_VALUE", "ask for at most what is left";
    /// All uses of the card are spent.
    UsesExhausted = 109, "USES_EXHAUSTED", "tell the customer";
    /// The card or the earlier request belongs to another merchant, store or product class.
    ScopeDenied = 110, "SCOPE_DENIED", "use it where it is meant for; for a reversal, use the till of the merchant that redeemed";
    /// The request's currency is not the card's.
    CurrencyMismatch = 111, "CURRENCY_MISMATCH", "use the currency of the card";
    /// Too many wrong PINs from this terminal.
    PinLocked = 112, "PIN_LOCKED", "wait, or redeem at another till";
    /// The card is void for good.
    Voided = 113, "VOIDED", "tell the customer; the history shows who made it void";
    /// The card went back to the seller.
    Returned = 114, "RETURNED", "tell the customer to use the replacement";
    /// Fewer cards can be sold than the order asks for; nothing was sold.
    OutOfStock = 115, "OUT_OF_STOCK", "buy fewer, or import more";
    /// The order is larger than one record holds.
    OrderTooLarge = 116, "ORDER_TOO_LARGE", "split the order under several order ids; return its cards by code, a few at a time";
    /// The account's purchase limit is reached.
    LimitAccount = 117, "LIMIT_ACCOUNT", "wait until the limit opens again, or buy less";
    /// The address's purchase limit is reached.
    LimitIp = 118, "LIMIT_IP", "wait until the limit opens again";
    /// Too many open reservations.
    LimitReservations = 119, "LIMIT_RESERVATIONS", "confirm or cancel open reservations first";
    /// The account's balance and credit do not cover the order.
    InsufficientFunds = 120, "INSUFFICIENT_FUNDS", "top up, or buy less";
    /// The money legs do not sum to zero.
    LegsUnbalanced = 121, "LEGS_UNBALANCED", "mend the amounts";
    /// The reservation timed out and its cards are gone.
    ReservationExpired = 122, "RESERVATION_EXPIRED", "order again; give the payment back";
    /// The order was cancelled.
    OrderCancelled = 123, "ORDER_CANCELLED", "order again under another order id";
    /// The hold timed out.
    HoldExpired = 124, "HOLD_EXPIRED", "hold again";
    /// The hold was captured or released before.
    HoldResolved = 125, "HOLD_RESOLVED", "nothing is left to do with this hold";
    /// The capture is more than the hold.
    ExceedsHold = 126, "EXCEEDS_HOLD", "capture at most what is held";
    /// The original was reversed before by another request.
    AlreadyReversed = 127, "ALREADY_REVERSED", "nothing is left to reverse";
    /// The product's reversal window is over.
    ReverseWindowClosed = 128, "REVERSE_WINDOW_CLOSED", "ask finance for a refund";
    /// The redemption is settled.
    Settled = 129, "SETTLED", "ask finance for a refund";
    /// This id was reversed before it arrived and never takes effect.
    ReversedBeforeArrival = 130, "REVERSED_BEFORE_ARRIVAL", "treat it as reversed; a new attempt takes a new id";
    /// The state does not allow this command.
    IllegalTransition = 131, "ILLEGAL_TRANSITION", "look at the state first";
    /// A card of the import is there already, or twice in the file.
    DuplicateCard = 132, "DUPLICATE_CARD", "take the listed rows out, or let the import skip them";
    /// This very list of cards was imported before.
    DuplicateBatch = 133, "DUPLICATE_BATCH", "nothing to do: the cards are there";
    /// A second person must approve this.
    ApprovalRequired = 134, "APPROVAL_REQUIRED", "propose it (PROPOSE; on the command line --propose), and have a second person approve that";
    /// The card's earlier history lies in retired log.
    HistoryArchived = 135, "HISTORY_ARCHIVED", "ask the operator for the archive";
    /// A product, order or principal of this name exists.
    AlreadyExists = 136, "ALREADY_EXISTS", "take another name, or use what is there";
    /// The card has been reversed as often as it may be; nothing was changed, and the id is not kept.
    ReversalsExhausted = 137, "REVERSALS_EXHAUSTED", "ask finance for a refund; while the original may be under way, have an operator freeze the card";
    /// The till, or the principal, has redeemed as much as its limit allows.
    LimitTerminal = 138, "LIMIT_TERMINAL", "wait until the limit opens again, or redeem at another till";
    /// One order may not hold as much.
    LimitOrder = 139, "LIMIT_ORDER", "buy less in one order";
    /// The position is not one of this log: it lies beyond what is durable, or belongs to another history.
    PositionUnknown = 160, "POSITION_UNKNOWN", "read again from the beginning, or from a position that you trust; the store may have been restored";
    /// The history cannot be proven: it is not what was signed before, or cannot be read.
    NotProvable = 161, "NOT_PROVABLE", "tell the operator: the server's log says what differs";
    /// More happened to the card than one proof may show.
    ProofTooLong = 170, "PROOF_TOO_LONG", "read its history; settle the card and give out another";

    /// The card would hold more than its product allows.
    ValueLimit = 141, "VALUE_LIMIT", "load less";
    /// The card has as many open holds as it may have.
    LimitHolds = 142, "LIMIT_HOLDS", "capture or release open holds first";
    /// The card's value has moved as often as it may.
    EffectsExhausted = 143, "EFFECTS_EXHAUSTED", "replace the card; what is open on it can still be captured, released, reversed and refunded";

    /// No request with this id had an effect on this target, as far as the caller may know.
    NoEffect = 144, "NO_EFFECT", "send the request once more with the same id, or reverse it so that it never takes effect";
    /// The rows of the batch would stand in more pieces than it may have.
    PiecesExhausted = 150, "PIECES_EXHAUSTED", "activate or deactivate longer ranges of rows, or the whole batch";
    /// What it was in the system that it was imported from stands, and cannot be undone, given out, repeated or proven here.
    Migrated = 165, "MIGRATED", "settle it where it was done; `kami history` says when that was";
    /// What makes sold cards of nothing must say why.
    ReasonMissing = 166, "REASON_MISSING", "send it again with a reason";
    /// Cards of the order came back by name, or were replaced, as often as they may.
    ReturnsExhausted = 162, "RETURNS_EXHAUSTED", "return all that is left of it at once";
    /// The other card that was named cannot take this one's place, or its value.
    OtherUnfit = 163, "OTHER_UNFIT", "for a replacement name a card in stock of the same product, worth and terms, or let any be taken; for a transfer a sold card of the same product that can be used";
    /// Another card took this one's place, or its value went to another.
    Replaced = 164, "REPLACED", "do it at the card that took its place; what went by a transfer cannot be given back";

    /// The redemption made offline does not fit its card; it was noted for an operator.
    ExceptionNoted = 145, "EXCEPTION_NOTED", "do not send it again: an operator sees to it, EXCEPTION_LIST shows it";
    /// As many redemptions made offline wait for an operator as a principal may have; nothing was noted.
    ExceptionsFull = 146, "EXCEPTIONS_FULL", "keep it, and send the same again when an operator has resolved some";
    /// The redemption was made offline too long ago to be taken without an operator.
    AdviceTooOld = 147, "ADVICE_TOO_OLD", "see to it by hand; have the till report sooner";

    /// The proposal was approved before, and done.
    ProposalDone = 155, "PROPOSAL_DONE", "nothing to do: look at what it did";
    /// The proposal's time is over, or that of fetching what it let be fetched.
    ProposalLapsed = 156, "PROPOSAL_LAPSED", "propose it again";
    /// The proposal was withdrawn, or whoever made it was revoked.
    ProposalWithdrawn = 157, "PROPOSAL_WITHDRAWN", "propose it again if it is still wanted";
    /// As many proposals are open as a principal, or a tenant, may have.
    ProposalsFull = 158, "PROPOSALS_FULL", "have open ones approved, or withdraw some";
    /// This takes another principal than the one who asks.
    SecondPersonRequired = 159, "SECOND_PERSON_REQUIRED", "have somebody else approve it; before dual control is switched on, add a second admin";

    /// The frame or a field in it is not well formed.
    Malformed = 200, "MALFORMED", "mend the client; REASON names the field";
    /// The request id was used on this target with another body.
    IdReused = 201, "ID_REUSED", "mend the client: every attempt of something new takes a new id";
    /// This version of the server does not know the command or option.
    Unsupported = 202, "UNSUPPORTED", "use what this version offers";
    /// No valid certificate, or a revoked one.
    Unauthenticated = 203, "UNAUTHENTICATED", "have the identity issued again";
    /// The role does not allow this command.
    Forbidden = 204, "FORBIDDEN", "use an identity whose role allows it";
    /// The frame is longer than the limit.
    TooLarge = 205, "TOO_LARGE", "send smaller frames";

    /// Overloaded.
    Busy = 300, "BUSY", "send the same again after a short wait, longer each time";
    /// Too many wrong codes from this caller.
    RateLimited = 301, "RATE_LIMITED", "wait as long as the reply says, then send the same again";
    /// The server is still recovering.
    Recovering = 302, "RECOVERING", "send the same again in a second";
    /// The server takes no changes now.
    ReadOnly = 303, "READ_ONLY", "send the same again later; tell the operator";
    /// The disk is full; nothing was changed.
    DiskFull = 304, "DISK_FULL", "send the same again later; tell the operator to make room";
    /// The deadline passed before the command was decided.
    DeadlinePassed = 305, "DEADLINE_PASSED", "send the same again if it is still wanted";
    /// The wall clock stepped; an operator must accept the new time.
    ClockSuspect = 306, "CLOCK_SUSPECT", "tell the operator to set the clock right";
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
