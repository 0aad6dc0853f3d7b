//! What the body of each reply holds.
//!
//! A reply's head names its body by number, so that a refusal can carry another body than a success,
//! and a reader that does not know a body can still use the head. Lists that do not fit a frame are
//! cut: the reply is flagged PARTIAL and says how many rows there are in all, so nothing is lost in
//! silence.

mod body;
mod kind;

pub use body::{Body, Exceptions, Listing, PathHash};
pub use kind::BodyKind;

use std::time::Duration;

use bytes::BytesMut;
use kami_engine::{
    Account, BatchReport, CardReport, Checkpoint, Duplicate, Event, Exceeded, Exception, HistoryEvent,
    HoldReport, ImportReport, KeyRotation, Limit, Lsn, MerchantId, OrderPage, OrderReport, OutcomeReport,
    PostedLeg, Principal, PrincipalId, Product, ProductId, ProofPart, Proposal, ReplyBody, ReplyFlags,
    RequestId, Role, SignedNote, Stats, Status, StockLine, Tenant, TenantId, TotalLine, Totals, ValueReport,
};

use super::control::PROPOSALS;
use super::feed::{FeedBegin, FeedEvents};
use super::money::Statement;
use super::wire::{Field, Malformed, Reader, Wire, wire};
use super::{FRAME_BYTES_MAX, REPLY_HEAD_BYTES, ReplyHead, close_frame, field};

pub use super::codes::{Codes, CodesFrame, SoldCard};

/// Who the server takes the caller for, and the limits of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The caller.
    pub principal: PrincipalId,
    /// The merchant it redeems for.
    pub merchant: MerchantId,
    /// Its tenant.
    pub tenant: TenantId,
    /// What it may do.
    pub role: Role,
    /// The highest protocol version the server speaks.
    pub version_max: u8,
    /// The longest frame.
    pub frame_bytes_max: u32,
    /// How many streams may be open at a time.
    pub streams_max: u32,
    /// The most items of a REDEEM_BATCH.
    pub items_max: u32,
}

/// How long to wait before the same request is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Milliseconds.
    pub wait_ms: u32,
}

impl Wait {
    /// At least so long.
    pub(crate) fn of(wait: Duration) -> Wait {
        Wait { wait_ms: u32::try_from(wait.as_millis()).unwrap_or(u32::MAX).saturating_add(1) }
    }
}

wire!(Wait: "WAIT" {
    wait_ms: u32, "after so many milliseconds the same request may be sent again";
});

wire!(Welcome: "WELCOME" {
    principal: PrincipalId, "who the server takes the caller for";
    merchant: MerchantId, "the merchant it redeems for, or 0";
    tenant: TenantId, "its tenant";
    role: Role, "its role, as in PRINCIPAL_SPEC";
    version_max: u8, "the highest protocol version the server speaks";
    frame_bytes_max: u32, "the longest frame, either way";
    streams_max: u32, "how many streams may be open at a time";
    items_max: u32, "the most items of a REDEEM_BATCH";
});

/// What became of one item of a REDEEM_BATCH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ItemReport {
    /// The item's request id.
    pub request: RequestId,
    /// Where its effect stands in the log.
    pub lsn: Option<Lsn>,
    /// Its outcome.
    pub status: Status,
    /// More about the outcome.
    pub flags: ReplyFlags,
    /// What was moved and what is left; zeros after a refusal.
    pub value: ValueReport,
}

impl ItemReport {
    /// An item that moved nothing yet.
    pub(crate) const fn nothing(request: RequestId) -> ItemReport {
        let value = ValueReport { product: ProductId(0), amount: 0, remaining: 0 };
        ItemReport { request, lsn: None, status: Status::Ok, flags: ReplyFlags(0), value }
    }
}

wire!(ItemReport: "ITEM_REPORT" {
    request: RequestId, "the item's request id";
    lsn: Option<Lsn>, "where its effect stands in the log; 0: nowhere";
    status: Status, "the item's outcome";
    flags: ReplyFlags, "as in the reply head";
    value: ValueReport, "zeros unless the outcome is of class done";
});

impl Wire<'_> for Status {
    const TYPE: &'static str = "u16";
    #[inline]
    fn put(&self, out: &mut BytesMut) {
        self.number().put(out);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Status::from_number(u16::take(reader)?).ok_or(reader.malformed())
    }
}

impl Wire<'_> for ReplyFlags {
    const TYPE: &'static str = "u8";
    #[inline]
    fn put(&self, out: &mut BytesMut) {
        self.0.put(out);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        u8::take(reader).map(ReplyFlags)
    }
}

/// Appends a whole reply frame. What does not fit is cut and the reply flagged PARTIAL.
#[inline]
pub fn encode(head: &ReplyHead, body: &Body, out: &mut BytesMut) {
    let start = out.len();
    head.put(body.kind() as u16, out);
    if !body.put(out, start + FRAME_BYTES_MAX) {
        out[start + 5] |= ReplyFlags::PARTIAL.0;
    }
    close_frame(out, start);
}

/// As [`encode`], of what the engine answered. What the frequent commands are told is read where it stands.
/// Public only for `kami-bench guards`, which counts what a reply costs.
#[doc(hidden)]
#[inline]
pub fn encode_told(head: &ReplyHead, body: &mut ReplyBody, out: &mut BytesMut) {
    match body {
        ReplyBody::None => encode_small(head, BodyKind::None, |_| (), out),
        ReplyBody::Value(value) => encode_small(head, BodyKind::Value, |out| value.put(out), out),
        ReplyBody::Hold(hold) => encode_small(head, BodyKind::Hold, |out| hold.put(out), out),
        ReplyBody::Card(card) => encode_small(head, BodyKind::Card, |out| card.put(out), out),
        other => {
            encode(head, &Body::from_engine(other.take()).unwrap_or(Body::None), out);
        }
    }
}

#[inline]
fn encode_small(head: &ReplyHead, kind: BodyKind, body: impl FnOnce(&mut BytesMut), out: &mut BytesMut) {
    let start = out.len();
    head.put(kind as u16, out);
    body(out);
    close_frame(out, start);
}

/// A whole reply as a client reads it.
#[derive(Debug, PartialEq)]
pub struct Answer {
    /// The head.
    pub head: ReplyHead,
    /// The body.
    pub body: Body,
}

impl Answer {
    /// Reads a frame whose length and version were checked by a [`Splitter`](super::Splitter).
    ///
    /// # Errors
    /// If it is not well formed or this version does not know its body.
    pub fn decode(frame: &[u8]) -> Result<Answer, Malformed> {
        let (head, kind) = ReplyHead::decode(frame)?;
        let kind = BodyKind::from_number(kind).ok_or(Malformed { field: "body" })?;
        let mut reader = Reader::new(&frame[REPLY_HEAD_BYTES..]);
        let body = Body::take(kind, &mut reader)?;
        reader.end()?;
        Ok(Answer { head, body })
    }
}

/// Every layout of a reply, for the document and the golden tests: name and fields.
#[must_use]
pub fn layouts() -> Vec<(&'static str, &'static [Field])> {
    fn of<T: Wire<'static>>() -> (&'static str, &'static [Field]) {
        (T::TYPE, T::FIELDS)
    }
    const CODES: &[Field] = &[
        field("total", "u32", "cards of the order in all that still belong to it"),
        field("from", "u32", "which of them is the first here"),
        field("count", "u32", "how many are here"),
        field("rows", "SOLD_CARD × count", "cards with their codes"),
    ];
    const EXCEPTIONS: &[Field] = &[
        field(
            "reached",
            "u64",
            "all up to this number were looked through: `after` of the next page, if the reply is PARTIAL",
        ),
        field("total", "u32", "how many are here"),
        field("count", "u32", "how many are here"),
        field("rows", "EXCEPTION × count", "the rows, maybe none"),
    ];
    macro_rules! listing {
        ($name:literal, $row:literal) => {
            ($name, {
                const FIELDS: &[Field] = &[
                    field("total", "u32", "how many there are in all"),
                    field("count", "u32", "how many are here"),
                    field("rows", concat!($row, " × count"), "the rows"),
                ];
                FIELDS
            })
        };
    }
    vec![
        of::<ValueReport>(),
        of::<HoldReport>(),
        of::<CardReport>(),
        listing!("HISTORY", "EVENT"),
        of::<HistoryEvent>(),
        ("CODES", CODES),
        of::<SoldCard>(),
        listing!("PRODUCTS", "PRODUCT"),
        of::<Product>(),
        listing!("BATCHES", "BATCH"),
        of::<BatchReport>(),
        listing!("STOCK", "STOCK_LINE"),
        of::<StockLine>(),
        listing!("PRINCIPALS", "PRINCIPAL"),
        of::<Principal>(),
        listing!("TENANTS", "TENANT"),
        of::<Tenant>(),
        of::<Stats>(),
        listing!("DUPLICATES", "DUPLICATE"),
        of::<Duplicate>(),
        of::<ImportReport>(),
        of::<Welcome>(),
        listing!("ITEMS", "ITEM_REPORT"),
        of::<ItemReport>(),
        of::<Checkpoint>(),
        of::<KeyRotation>(),
        of::<FeedBegin>(),
        of::<FeedEvents>(),
        of::<Event>(),
        of::<Totals>(),
        of::<TotalLine>(),
        of::<SignedNote>(),
        of::<ProofPart>(),
        listing!("PATH", "HASH"),
        of::<PathHash>(),
        of::<OutcomeReport>(),
        ("EXCEPTIONS", EXCEPTIONS),
        of::<Exception>(),
        ("PROPOSALS", PROPOSALS),
        of::<Proposal>(),
        ("REASON", const { &[field("reason", "text8", "which field is wrong")] }),
        of::<Wait>(),
        listing!("ACCOUNTS", "ACCOUNT"),
        of::<Account>(),
        of::<Statement>(),
        of::<kami_engine::StatementLine>(),
        of::<OrderPage>(),
        of::<kami_engine::OrderLine>(),
        listing!("POSTED", "POSTED_LEG"),
        of::<PostedLeg>(),
        listing!("LIMITS", "LIMIT"),
        of::<Limit>(),
        of::<Exceeded>(),
        of::<OrderReport>(),
    ]
}
