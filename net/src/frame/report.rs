//! What the engine reports, field by field: the bodies of replies, and the rows of those that are lists.

use bytes::BytesMut;
use kami_engine::{
    BatchId, BatchReport, CardRef, CardReport, ChannelId, Checkpoint, Duplicate, Exception, Flags, Grounds,
    HistoryEvent, HoldReport, ImportReport, KeyRotation, Lifecycle, Lsn, MerchantId, Money, OrderId,
    OutcomeReport, Principal, PrincipalId, PrincipalSpec, Product, ProductId, ProductSpec, ProofPart,
    RequestId, Resolution, SignedNote, Stats, StockLine, Tenant, TenantId, TenantSpec, TerminalId,
    ValueReport, record::Kind,
};

use super::field;
use super::wire::{Field, Malformed, Reader, Wire, wire};

wire!(ValueReport: "VALUE" {
    amount: Money, "redeemed, given back, released or loaded: minor units, or uses of a MULTI_USE or SHARED card";
    remaining: Money, "left on the card, held or not";
    product: ProductId, "the product";
});

wire!(HoldReport: "HELD" {
    amount: Money, "what this hold keeps: minor units, or uses of a MULTI_USE or SHARED card";
    remaining: Money, "left on the card, held or not";
    held: Money, "held of that by all holds";
    deadline_ms: u64, "from when on this hold keeps nothing any more, engine time, ms since 1970";
    product: ProductId, "the product";
});

wire!(CardReport: "CARD" {
    card: CardRef, "where it stands: batch in the upper 24 bits, row in the lower 40";
    face: Money, "face value in minor units";
    remaining: Money, "left on it, held or not: minor units, or uses of a MULTI_USE or SHARED card";
    held: Money, "held of that";
    expires_ms: u64, "when it expires, ms since 1970; 0: never";
    order: Option<OrderId>, "the order that bought it; 0: none";
    product: ProductId, "its product";
    flags: Flags, "effective flags, see the table of flags";
    lifecycle: Lifecycle, "effective state, see the table of states";
});

wire!(HistoryEvent: "EVENT" {
    lsn: Lsn, "where it stands in the log";
    time_ms: u64, "when, ms since 1970";
    request: RequestId, "with which request id";
    related: u128, "the order of a sale, the original of a reversal or refund, the hold of what ends it, the document of RESTOCK; of REPLACE, REPLACEMENT, TRANSFER and RECEIVE the other card: batch in the upper 24 of 64 bits, row below; else 0";
    amount: Money, "what it moved of the card's value, where the event tells; a SINGLE card is redeemed as a whole, which tells 0";
    remaining: Money, "what was left on the card afterwards, where the event tells; else 0";
    principal: PrincipalId, "who did it; 0: the engine, or the process that embeds it";
    terminal: TerminalId, "at which till";
    merchant: MerchantId, "for which merchant";
    channel: ChannelId, "through which channel";
    flags: Flags, "the flags it left";
    lifecycle: Lifecycle, "the state it left";
    kind: Kind, "what happened, see the table of events";
    made_ms: u64, "of a redemption that was made offline: when, by the till's clock, ms since 1970; else 0";
    grounds: Option<Box<Grounds>>, "why it was done, and under whose approval";
});

wire!(Tenant: "TENANT" {
    id: TenantId, "its number";
    frozen: bool, "1: all its cards are frozen";
    spec: TenantSpec, "what it was added with";
});

impl Wire<'_> for Exception {
    const TYPE: &'static str = "EXCEPTION";
    const FIELDS: &'static [Field] = &[
        field("id", "u64", "its number"),
        field("card", "u64", "where the card stands; all ones: the code is nobody's"),
        field("request", "u128", "under which request id it was made"),
        field("amount", "i64", "how much, as it was reported; 0: all of the card"),
        field("made_ms", "u64", "when it was made, by the till's clock, ms since 1970"),
        field("time_ms", "u64", "when it was reported, ms since 1970"),
        field("lsn", "u64", "where the report stands in the log"),
        field("principal", "u32", "by whom"),
        field("terminal", "u32", "at which till"),
        field("merchant", "u32", "for which merchant"),
        field("channel", "u16", "through which channel"),
        field("reason", "u16", "why it did not fit: a status"),
        field("resolver", "u32", "who resolved it; 0 also while it is open"),
        field("resolved_ms", "u64", "when, ms since 1970; 0: it is open"),
        field("note", "text8", "what was done about it; empty: it is open"),
    ];
    fn put(&self, out: &mut BytesMut) {
        self.id.put(out);
        self.card.map_or(u64::MAX, CardRef::to_bits).put(out);
        self.request.put(out);
        self.amount.put(out);
        self.made_ms.put(out);
        self.time_ms.put(out);
        self.lsn.put(out);
        self.principal.put(out);
        self.terminal.put(out);
        self.merchant.put(out);
        self.channel.put(out);
        self.reason.put(out);
        let end = self.resolution.as_ref();
        end.map_or(PrincipalId(0), |end| end.principal).put(out);
        end.map_or(0_u64, |end| end.time_ms).put(out);
        end.map_or_else(String::new, |end| end.note.clone()).put(out);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let id = reader.field("id")?;
        let card: u64 = reader.field("card")?;
        let request = reader.field("request")?;
        let amount = reader.field("amount")?;
        let made_ms = reader.field("made_ms")?;
        let time_ms = reader.field("time_ms")?;
        let lsn = reader.field("lsn")?;
        let principal = reader.field("principal")?;
        let terminal = reader.field("terminal")?;
        let merchant = reader.field("merchant")?;
        let channel = reader.field("channel")?;
        let reason = reader.field("reason")?;
        let resolver = reader.field("resolver")?;
        let resolved_ms: u64 = reader.field("resolved_ms")?;
        let note: String = reader.field("note")?;
        let resolution =
            (!note.is_empty()).then_some(Resolution { principal: resolver, time_ms: resolved_ms, note });
        Ok(Exception {
            id,
            card: (card != u64::MAX).then(|| CardRef::from_bits(card)),
            reason,
            request,
            principal,
            terminal,
            merchant,
            channel,
            amount,
            made_ms,
            time_ms,
            lsn,
            resolution,
        })
    }
}

wire!(OutcomeReport: "OUTCOME" {
    kind: Kind, "what it did, see the table of events";
    principal: PrincipalId, "who asked for it";
    product: Option<ProductId>, "the card's product; 0xffffffff: it was about no card";
    amount: Money, "what it moved of the card's value, in minor units or uses; else 0";
    remaining: Money, "what was left on the card afterwards; else 0";
    deadline_ms: u64, "of a HOLD, until when it stands, ms since 1970; else 0";
});

wire!(Product: "PRODUCT" {
    id: ProductId, "its number";
    frozen: bool, "1: all its cards are frozen";
    spec: ProductSpec, "what it was added or last changed with";
});

wire!(BatchReport: "BATCH" {
    imported_ms: u64, "when it was imported, ms since 1970";
    expires_ms: u64, "when its cards expire, ms since 1970; 0: never";
    counts: [u64; 8], "its cards by logged state, indexed by the state's number";
    id: BatchId, "its number";
    product: ProductId, "its product";
    active: bool, "1: all its cards are redeemable once sold";
    frozen: bool, "1: frozen";
    voided: bool, "1: its unsold cards were made void";
    active_rows: u64, "how many rows are redeemable once sold";
    label: String, "the importer's label";
});

wire!(StockLine: "STOCK_LINE" {
    imported: u64, "how many cards were imported: the sum of counts";
    sellable: u64, "how many an order could take now; of SHARED cards, how many uses";
    counts: [u64; 8], "the cards by logged state, indexed by the state's number";
    product: ProductId, "the product";
    batch: BatchId, "the batch";
});

wire!(Principal: "PRINCIPAL" {
    id: PrincipalId, "its number";
    revoked: bool, "1: revoked";
    spec: PrincipalSpec, "what it was added with";
});

wire!(Stats: "STATS" {
    cards: u64, "cards in committed batches";
    batches: u64, "committed batches";
    products: u64, "products";
    orders: u64, "orders";
    commands: u64, "commands decided since the start";
    refused: u64, "commands refused since the start";
    misses: u64, "commands since the start whose code led to no card that their caller may know of";
    rate_limited: u64, "requests answered RATE_LIMITED since the start, because too many codes had been wrong";
    budgets_spent: u64, "how often a budget of wrong codes was used up since the start";
    tail: u64, "the log's tail, in bytes";
    durable_end: u64, "the end of what is durable, in bytes";
    commits: u64, "commits since the start";
    time_ms: u64, "engine time, ms since 1970";
    counts: [u64; 8], "cards by logged state, indexed by the state's number";
});

wire!(Duplicate: "DUPLICATE" {
    row: u64, "the row of the import, counted from 0";
    other_row: u64, "the row that holds the same card; in this import itself, counted like row; all ones if it is not told";
    batch: Option<BatchId>, "the batch that has it; 0xffffffff: this import itself; 0: one of somebody else's, of which an issuer is told no more";
});

wire!(ImportReport: "IMPORT" {
    rows: u64, "rows received; the next chunk begins with this row. After MALFORMED: the bad row";
    rows_total: u64, "rows announced";
    duplicates: u64, "rows received whose card is there already: left out, listed by IMPORT_DUPLICATES";
});

wire!(Checkpoint: "CHECKPOINT" {
    start: Lsn, "replay begins at this position";
    end: Lsn, "the log was durable at least up to here";
    bytes: u64, "length of the snapshot file";
    took_ms: u64, "how long it took, in milliseconds";
});

wire!(KeyRotation: "KEYS" {
    key: u64, "id of the new master key; it gives nothing of the key away";
    keys: u64, "data keys wrapped with it";
});

wire!(SignedNote: "SIGNED_NOTE" {
    size: u64, "how many entries of the log the checkpoint covers";
    note: String, "the checkpoint as a signed note";
    key: String, "the key to verify it with, as the operator publishes it; trust no key that only the server told";
});

wire!(ProofPart: "PROOF_PART" {
    size: u64, "how many entries the checkpoint covers that the card is proven to";
    key: String, "as in SIGNED_NOTE";
    total: u64, "the length of the whole text";
    from: u64, "where this part begins in it";
    bytes: Vec<u8>, "the part";
});
