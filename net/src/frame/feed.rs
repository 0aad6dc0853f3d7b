//! What travels on the stream of a feed, and the totals: bodies that carry events of the log.

use bytes::BytesMut;
use kami_engine::{
    BatchId, CardRef, ChannelId, Event, FeedSpec, Grounds, KindSet, Lsn, MerchantId, Money, OrderId,
    PrincipalId, ProductId, RequestId, TenantId, TerminalId, TotalKey, TotalLine, Totals, TotalsQuery,
    record::Kind,
};

use super::field;
use super::wire::{Field, Malformed, Reader, Wire, wire};

/// The most events a subscriber may have granted and not got yet.
pub const FEED_CREDIT_MAX: u32 = 65_536;
/// The most events of one frame: about 60 KB.
pub const FEED_FRAME_EVENTS_MAX: usize = 512;

/// The body of FEED_OPEN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedOpen {
    /// How many events may be sent before the first FEED_ACK, at most [`FEED_CREDIT_MAX`].
    pub credit: u32,
    /// What is wanted.
    pub spec: FeedSpec,
}

wire!(FeedOpen: "FEED_OPEN" {
    credit: u32, "how many events may be sent before the first FEED_ACK, 0 to 65,536";
    spec: FeedSpec, "what is wanted";
});

wire!(FeedSpec: "FEED_SPEC" {
    after: Option<Lsn>, "events behind this position; 8: from the beginning; 0: what comes from now on";
    epoch: u32, "the epoch that was told with the position; 0: not asked about";
    kinds: KindSet, "a bit for each kind that is wanted: bit n % 8 of byte n / 8 for the kind n; none: all";
    products: Vec<ProductId>, "only events of these products; none: all";
});

impl Wire<'_> for KindSet {
    const TYPE: &'static str = <[u8; 32] as Wire<'static>>::TYPE;
    fn put(&self, out: &mut BytesMut) {
        self.0.put(out);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Wire::take(reader).map(KindSet)
    }
}

/// The body of FEED_ACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedAck {
    /// The position of the last event that was taken in; `None` if there was none yet.
    pub seen: Option<Lsn>,
    /// How many more events may be sent, beside those granted before.
    pub credit: u32,
}

wire!(FeedAck: "FEED_ACK" {
    seen: Option<Lsn>, "the position of the last event that was taken in, or one that an EVENTS told; 0: none yet";
    credit: u32, "how many more events may be sent; what is granted and not sent is at most 65,536";
});

/// Where a feed begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedBegin {
    /// Events behind this position follow.
    pub position: Lsn,
    /// The epoch that belongs to it; 0 at the very beginning.
    pub epoch: u32,
    /// How far the log was durable when the feed was opened: an EVENTS says when all up to there was told.
    pub end: Lsn,
}

wire!(FeedBegin: "FEED" {
    position: Lsn, "events behind this position follow";
    epoch: u32, "the epoch that belongs to it; 0 at the very beginning";
    end: Lsn, "how far the log was durable: an EVENTS says when all up to there was told";
});

/// Events of a feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedEvents {
    /// All events up to here were told or are not for this subscriber: another feed goes on from here.
    pub position: Lsn,
    /// The epoch that belongs to it.
    pub epoch: u32,
    /// How far the log was durable.
    pub end: Lsn,
    /// In the order of the log; there may be none.
    pub events: Vec<Event>,
}

impl Wire<'_> for FeedEvents {
    const TYPE: &'static str = "EVENTS";
    const FIELDS: &'static [Field] = &[
        field("position", "u64", "all events up to here were told, or are not for this subscriber"),
        field("epoch", "u32", "the epoch that belongs to it"),
        field("end", "u64", "how far the log was durable"),
        field("count", "u32", "how many events are here; 0 to 512"),
        field("events", "FEED_EVENT × count", "the events, in the order of the log"),
    ];

    fn put(&self, out: &mut BytesMut) {
        self.position.put(out);
        self.epoch.put(out);
        self.end.put(out);
        put_rows(&self.events, out);
    }

    fn take(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(FeedEvents {
            position: reader.field("position")?,
            epoch: reader.field("epoch")?,
            end: reader.field("end")?,
            events: take_rows(reader)?,
        })
    }
}

wire!(Event: "FEED_EVENT" {
    lsn: Lsn, "where it stands in the log: rises, and no two events have the same";
    epoch: u32, "in which life of the log it was written";
    time_ms: u64, "when, ms since 1970";
    request: RequestId, "under which request id; 0: the engine itself";
    related: u128, "the original's request id, for a reversal; the document, for a posting; of REPLACE, REPLACEMENT, TRANSFER and RECEIVE the other card: batch in the upper 24 of 64 bits, row below; else 0";
    order: Option<OrderId>, "the order; 0: none";
    card: Option<CardRef>, "the card; 0: it is not about one card";
    object: u64, "the principal, account or limit it is about; 0: none";
    amount: Option<Money>, "what the cards are worth, or what was moved, in minor units, not negative; the lowest i64: none";
    count: u32, "how many cards it is about";
    product: Option<ProductId>, "the product; 0xffffffff: none, or several of one order";
    batch: Option<BatchId>, "the batch; 0xffffffff: none";
    principal: PrincipalId, "who did it; 0: the engine, or the process that embeds it";
    terminal: TerminalId, "at which till";
    merchant: MerchantId, "for which merchant";
    tenant: TenantId, "whose cards";
    channel: ChannelId, "through which channel";
    kind: Kind, "what happened, see the table of events";
    grounds: Option<Box<Grounds>>, "why it was done, and under whose approval";
});

wire!(TotalsQuery: "RECONCILE" {
    day: u32, "the first day, in days since 1970-01-01";
    days: u32, "how many days, 1 to 366";
    offset_min: i16, "minutes by which the days' time zone is ahead of UTC, -1,080 to 1,080";
    lines_max: u32, "at most so many lines, 1 to 16,384";
    end: Option<Lsn>, "the log up to here; 0: up to now. Further pages take the end that the first one told";
    after: Option<TotalKey>, "only lines behind this one, the last of the page before; zeros: from the first";
});

wire!(TotalKey: "TOTAL_KEY" {
    day: u32, "days since 1970-01-01 in the time zone that was asked for";
    merchant: MerchantId, "for which merchant";
    channel: ChannelId, "through which channel";
    terminal: TerminalId, "at which till";
    product: ProductId, "of which product, whose currency the amount is in";
    kind: u8, "what happened, see the table of events";
});

/// No event has the kind 0, so a key of zeros is none.
impl Wire<'_> for Option<TotalKey> {
    const TYPE: &'static str = <TotalKey as Wire<'static>>::TYPE;
    fn put(&self, out: &mut BytesMut) {
        self.unwrap_or(NO_KEY).put(out);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        TotalKey::take(reader).map(|key| (key != NO_KEY).then_some(key))
    }
}

const NO_KEY: TotalKey = TotalKey {
    day: 0,
    merchant: MerchantId(0),
    channel: ChannelId(0),
    terminal: TerminalId(0),
    product: ProductId(0),
    kind: 0,
};

wire!(TotalLine: "TOTAL_LINE" {
    key: TotalKey, "what it is the total of; lines are in the order of its fields";
    count: u64, "how many cards were sold or returned; else, how many events there were";
    amount: Money, "their amounts together, in minor units";
});

impl Wire<'_> for Totals {
    const TYPE: &'static str = "TOTALS";
    const FIELDS: &'static [Field] = &[
        field("end", "u64", "they are those of the log up to here"),
        field("more", "u8", "1: there are more lines behind these"),
        field("count", "u32", "how many lines are here"),
        field("lines", "TOTAL_LINE × count", "the lines"),
    ];

    fn put(&self, out: &mut BytesMut) {
        self.end.put(out);
        self.more.put(out);
        put_rows(&self.lines, out);
    }

    fn take(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Totals { end: reader.field("end")?, more: reader.field("more")?, lines: take_rows(reader)? })
    }
}

fn put_rows<'a, T: Wire<'a>>(rows: &[T], out: &mut BytesMut) {
    // A page or a frame of events is far shorter than a frame may be.
    (rows.len() as u32).put(out);
    rows.iter().for_each(|row| row.put(out));
}

fn take_rows<'a, T: Wire<'a>>(reader: &mut Reader<'a>) -> Result<Vec<T>, Malformed> {
    let count: u32 = reader.field("count")?;
    // Grown row by row: the count is the peer's word, the bytes are not.
    let mut rows = Vec::new();
    for _ in 0..count {
        rows.push(T::take(reader)?);
    }
    Ok(rows)
}
