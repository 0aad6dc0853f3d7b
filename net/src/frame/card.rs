//! What the requests about one card hold, and those about redemptions that were made offline.

use kami_engine::{DocumentId, ExceptionNote, Money, RequestId};

use super::wire::{Field, Malformed, Reader, Secret, Wire, wire};

/// The body of REDEEM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Redeem<'a> {
    /// How much, in minor units; 0 is all of it.
    pub amount: Money,
    /// The code.
    pub code: Secret<'a>,
    /// The PIN, if the card has one.
    pub pin: Option<Secret<'a>>,
}

wire!(Redeem<'a>: "REDEEM" {
    amount: Money, "how much, in minor units of the card's currency, or uses of a MULTI_USE or SHARED card; 0: one use of that, and all that is left of another";
    code: Secret<'_>, "the code as typed";
    pin: Option<Secret<'_>>, "the PIN; empty: none";
});

impl<'a> Redeem<'a> {
    /// Reads the body.
    ///
    /// # Errors
    /// If it is not one.
    #[inline]
    pub(crate) fn decode(body: &'a [u8]) -> Result<Redeem<'a>, Malformed> {
        let mut reader = Reader::new(body);
        let redeem = Redeem::take(&mut reader)?;
        reader.end()?;
        Ok(redeem)
    }
}

/// The body of REVERSE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reverse<'a> {
    /// The id of the redemption.
    pub original: RequestId,
    /// The code.
    pub code: Secret<'a>,
}

wire!(Reverse<'a>: "REVERSE" {
    original: RequestId, "the request id of the redemption, capture, load or hold to undo";
    code: Secret<'_>, "the code as typed";
});

/// The body of HOLD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold<'a> {
    /// How much; 0 as in [`Redeem`].
    pub amount: Money,
    /// How long it stands, in seconds; 0 is as long as the product says, and never longer.
    pub seconds: u32,
    /// The code.
    pub code: Secret<'a>,
    /// The PIN, if the card has one.
    pub pin: Option<Secret<'a>>,
}

wire!(Hold<'a>: "HOLD" {
    amount: Money, "how much, as in REDEEM";
    seconds: u32, "how long it stands; 0 or more than the product says: as long as the product says";
    code: Secret<'_>, "the code as typed";
    pin: Option<Secret<'_>>, "the PIN; empty: none";
});

/// The body of CAPTURE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capture<'a> {
    /// The request id of the hold.
    pub hold: RequestId,
    /// How much of it; 0 is all. What is not captured is free again.
    pub amount: Money,
    /// The code.
    pub code: Secret<'a>,
}

wire!(Capture<'a>: "CAPTURE" {
    hold: RequestId, "the request id of the hold";
    amount: Money, "how much of it, at most all; 0: all. The rest is free again";
    code: Secret<'_>, "the code as typed";
});

/// The body of RELEASE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Release<'a> {
    /// The request id of the hold.
    pub hold: RequestId,
    /// The code.
    pub code: Secret<'a>,
}

wire!(Release<'a>: "RELEASE" {
    hold: RequestId, "the request id of the hold";
    code: Secret<'_>, "the code as typed";
});

/// The body of LOAD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load<'a> {
    /// How much; more than 0.
    pub amount: Money,
    /// The code.
    pub code: Secret<'a>,
}

wire!(Load<'a>: "LOAD" {
    amount: Money, "how much, more than 0, in minor units of the card's currency";
    code: Secret<'_>, "the code as typed";
});

/// The body of REFUND_VALUE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefundValue<'a> {
    /// The request id of the redemption or capture.
    pub original: RequestId,
    /// How much; 0 is all of it that was not refunded yet.
    pub amount: Money,
    /// The code.
    pub code: Secret<'a>,
}

wire!(RefundValue<'a>: "REFUND_VALUE" {
    original: RequestId, "the request id of the redemption or capture";
    amount: Money, "how much; 0: all of it that was not refunded yet";
    code: Secret<'_>, "the code as typed";
});

/// The body of the commands about one card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OneCard<'a> {
    /// The code.
    pub code: Secret<'a>,
}

wire!(OneCard<'a>: "ONE_CARD" {
    code: Secret<'_>, "the code as typed";
});

/// The body of ADVICE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advice<'a> {
    /// How much, as in [`Redeem`].
    pub amount: Money,
    /// When it was made, by the till's clock.
    pub made_ms: u64,
    /// The code.
    pub code: Secret<'a>,
    /// The PIN, if the card has one.
    pub pin: Option<Secret<'a>>,
}

wire!(Advice<'a>: "ADVICE" {
    amount: Money, "how much was redeemed, as in REDEEM";
    made_ms: u64, "when, by the till's clock, ms since 1970, not 0";
    code: Secret<'_>, "the code as typed";
    pin: Option<Secret<'_>>, "the PIN; empty: none";
});

/// The body of EXCEPTION_LIST.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExceptionList {
    /// Those with higher numbers only.
    pub after: u64,
    /// How many at most.
    pub count: u32,
    /// Whether those that were resolved are listed, too.
    pub all: bool,
}

wire!(ExceptionList: "EXCEPTION_LIST" {
    after: u64, "only those with higher numbers; 0: from the first";
    count: u32, "how many at most, 1 to 500";
    all: bool, "1: those that were resolved, too";
});

wire!(ExceptionNote: "EXCEPTION_NOTE" {
    id: u64, "the exception's number";
    note: String, "what was done about it: 1 to 200 bytes, no control characters";
});

/// The body of OUTCOME_QUERY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutcomeQuery<'a> {
    /// The request that is asked about.
    pub asked: RequestId,
    /// What it was about: [`OutcomeQuery::CARD`], [`OutcomeQuery::ORDER`] or [`OutcomeQuery::DOCUMENT`].
    pub target: u8,
    /// The order or document; 0 of a card.
    pub id: u128,
    /// The code; empty of an order or document.
    pub code: Secret<'a>,
}

impl OutcomeQuery<'_> {
    /// A card, named by its code.
    pub const CARD: u8 = 1;
    /// An order.
    pub const ORDER: u8 = 2;
    /// The document of a posting.
    pub const DOCUMENT: u8 = 3;
}

wire!(OutcomeQuery<'a>: "OUTCOME_QUERY" {
    asked: RequestId, "the request id that is asked about";
    target: u8, "what that request was about: 1 a card, 2 an order, 3 the document of a posting";
    id: u128, "the order or document; 0 of a card";
    code: Secret<'_>, "of a card the code as typed; else empty";
});

/// The body of EXTEND.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extend<'a> {
    /// The new end of validity.
    pub expires_ms: u64,
    /// The code.
    pub code: Secret<'a>,
}

wire!(Extend<'a>: "EXTEND" {
    expires_ms: u64, "the new end of validity, ms since 1970; later than the old one";
    code: Secret<'_>, "the code as typed";
});

/// The body of RESTOCK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restock<'a> {
    /// The supplier's document.
    pub reference: DocumentId,
    /// The code.
    pub code: Secret<'a>,
}

wire!(Restock<'a>: "RESTOCK" {
    reference: DocumentId, "the supplier's credit note or return document, of the caller's choosing, never 0";
    code: Secret<'_>, "the code as typed";
});

/// The body of REPLACE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replace<'a> {
    /// The code of the card that is to be replaced.
    pub code: Secret<'a>,
    /// The code of the card that takes its place; `None` takes the next from stock.
    pub with: Option<Secret<'a>>,
}

wire!(Replace<'a>: "REPLACE" {
    code: Secret<'_>, "the code, as typed, of the card that is to be replaced";
    with: Option<Secret<'_>>, "the code of the card in stock that takes its place; empty: the next that is worth the same, on the same terms";
});

/// The body of TRANSFER.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer<'a> {
    /// How much; 0 is all, and makes the card it leaves void.
    pub amount: Money,
    /// The code of the card it leaves.
    pub code: Secret<'a>,
    /// The code of the card it goes to.
    pub to: Secret<'a>,
}

wire!(Transfer<'a>: "TRANSFER" {
    amount: Money, "how much, in minor units or uses; 0: all, and the card it leaves is void then";
    code: Secret<'_>, "the code, as typed, of the card it leaves";
    to: Secret<'_>, "the code of the card it goes to";
});

/// The layouts of these, for the document and the golden tests: name and fields.
pub(super) fn request_layouts() -> Vec<(&'static str, &'static [Field])> {
    fn of<T: Wire<'static>>() -> (&'static str, &'static [Field]) {
        (T::TYPE, T::FIELDS)
    }
    vec![
        of::<Redeem<'_>>(),
        of::<Reverse<'_>>(),
        of::<Hold<'_>>(),
        of::<Capture<'_>>(),
        of::<Release<'_>>(),
        of::<Load<'_>>(),
        of::<RefundValue<'_>>(),
        of::<OutcomeQuery<'_>>(),
        of::<Advice<'_>>(),
        of::<ExceptionList>(),
        of::<ExceptionNote>(),
        of::<OneCard<'_>>(),
        of::<Extend<'_>>(),
        of::<Restock<'_>>(),
        of::<Replace<'_>>(),
        of::<Transfer<'_>>(),
    ]
}
