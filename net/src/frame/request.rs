//! What the body of each request holds.
//!
//! The bodies are declared once, as fields in order ([`wire!`]); only the two that carry rows are
//! written by hand. Codes and PINs are borrowed from the frame and go no further than the door, where
//! the engine takes their digest.

use bytes::BytesMut;
use kami_engine::{
    BatchId, CardKind, ImportRow, ImportSpec, MerchantId, Money, OrderId, PrincipalId, PrincipalSpec,
    ProductId, ProductSpec, RequestId, Role, TenantId,
};

use super::wire::{Field, Malformed, Reader, Secret, Wire, wire};
use super::{FRAME_BYTES_MAX, Opcode, RequestHead, close_frame, field};

/// Bits of a request head's flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestFlags(pub u8);

impl RequestFlags {
    /// No flag.
    pub const NONE: RequestFlags = RequestFlags(0);
    /// All items of a batch frame or none of them. Assigned; this version answers UNSUPPORTED.
    pub const ATOMIC: RequestFlags = RequestFlags(1);

    /// Whether no unassigned bit is set.
    #[must_use]
    pub const fn is_assigned(self) -> bool {
        self.0 & !1 == 0
    }
}

/// The most items of a REDEEM_BATCH.
pub const BATCH_ITEMS_MAX: usize = 1024;

/// A request's body, by what it asks.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Request<'a> {
    /// HELLO.
    Hello,
    /// PING.
    Ping,
    /// REDEEM.
    Redeem(Redeem<'a>),
    /// REVERSE.
    Reverse(Reverse<'a>),
    /// QUERY.
    Query(OneCard<'a>),
    /// HISTORY.
    History(OneCard<'a>),
    /// FREEZE.
    Freeze(OneCard<'a>),
    /// UNFREEZE.
    Unfreeze(OneCard<'a>),
    /// VOID.
    Void(OneCard<'a>),
    /// REDEEM_BATCH.
    RedeemBatch(Items<'a>),
    /// SELL.
    Sell(Sell),
    /// ORDER_FETCH.
    OrderFetch(OrderFetch),
    /// BATCH_ACTIVATE.
    BatchActivate(OneBatch),
    /// BATCH_DEACTIVATE.
    BatchDeactivate(OneBatch),
    /// BATCH_FREEZE.
    BatchFreeze(OneBatch),
    /// BATCH_UNFREEZE.
    BatchUnfreeze(OneBatch),
    /// BATCH_VOID.
    BatchVoid(OneBatch),
    /// BATCH_EXTEND.
    BatchExtend(BatchExtend),
    /// BATCH_LIST.
    BatchList(OfProduct),
    /// PRODUCT_ADD.
    ProductAdd(ProductSpec),
    /// PRODUCT_SET.
    ProductSet(ProductSpec),
    /// PRODUCT_FREEZE.
    ProductFreeze(OneProduct),
    /// PRODUCT_UNFREEZE.
    ProductUnfreeze(OneProduct),
    /// PRODUCT_LIST.
    ProductList,
    /// STOCK.
    Stock(OfProduct),
    /// IMPORT_BEGIN.
    ImportBegin(ImportSpec),
    /// IMPORT_CHUNK.
    ImportChunk(Chunk<'a>),
    /// IMPORT_STATUS.
    ImportStatus(OneImport),
    /// IMPORT_COMMIT.
    ImportCommit(OneImport),
    /// IMPORT_ABORT.
    ImportAbort(OneImport),
    /// PRINCIPAL_ADD.
    PrincipalAdd(PrincipalSpec),
    /// PRINCIPAL_REVOKE.
    PrincipalRevoke(OnePrincipal),
    /// PRINCIPAL_LIST.
    PrincipalList,
    /// STATS.
    Stats,
}

macro_rules! dispatch {
    (plain: $($plain:ident)*; fields: $($name:ident($type:ty))*;) => {
        impl<'a> Request<'a> {
            /// The opcode of this body.
            #[must_use]
            pub const fn opcode(&self) -> Opcode {
                match self {
                    $(Request::$plain => Opcode::$plain,)*
                    $(Request::$name(_) => Opcode::$name,)*
                }
            }

            /// Reads a body.
            ///
            /// # Errors
            /// If it is not exactly what the opcode calls for, or this version has no such body.
            #[inline]
            pub fn decode(opcode: Opcode, body: &'a [u8]) -> Result<Request<'a>, Malformed> {
                let mut reader = Reader::new(body);
                let request = match opcode {
                    $(Opcode::$plain => Request::$plain,)*
                    $(Opcode::$name => Request::$name(Wire::take(&mut reader)?),)*
                    _ => return Err(Malformed { field: "opcode" }),
                };
                reader.end()?;
                Ok(request)
            }

            fn put(&self, out: &mut BytesMut) {
                match self {
                    $(Request::$plain => {})*
                    $(Request::$name(body) => body.put(out),)*
                }
            }

            /// Which layout the body of an opcode has; an empty name is an empty body.
            #[must_use]
            pub const fn layout(opcode: Opcode) -> Option<&'static str> {
                match opcode {
                    $(Opcode::$plain => Some(""),)*
                    $(Opcode::$name => Some(<$type as Wire<'static>>::TYPE),)*
                    _ => None,
                }
            }
        }
    };
}

dispatch! {
    plain: Hello Ping ProductList PrincipalList Stats;
    fields:
        Redeem(Redeem<'static>) Reverse(Reverse<'static>) Query(OneCard<'static>) History(OneCard<'static>)
        Freeze(OneCard<'static>) Unfreeze(OneCard<'static>) Void(OneCard<'static>)
        RedeemBatch(Items<'static>) Sell(Sell) OrderFetch(OrderFetch)
        BatchActivate(OneBatch) BatchDeactivate(OneBatch) BatchFreeze(OneBatch) BatchUnfreeze(OneBatch)
        BatchVoid(OneBatch) BatchExtend(BatchExtend) BatchList(OfProduct)
        ProductAdd(ProductSpec) ProductSet(ProductSpec) ProductFreeze(OneProduct)
        ProductUnfreeze(OneProduct) Stock(OfProduct)
        ImportBegin(ImportSpec) ImportChunk(Chunk<'static>) ImportStatus(OneImport)
        ImportCommit(OneImport) ImportAbort(OneImport)
        PrincipalAdd(PrincipalSpec) PrincipalRevoke(OnePrincipal);
}

/// A frame that would be longer than its opcode allows, or a value that does not fit its field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the request does not fit a frame bytes=`{bytes}`, at most `{bytes_max}`")]
pub struct DoesNotFit {
    /// How long it would be.
    pub bytes: usize,
    /// How long it may be.
    pub bytes_max: usize,
}

impl Request<'_> {
    /// Appends the whole frame; the head's opcode is set from the body.
    ///
    /// # Errors
    /// If the frame would be too long; nothing is appended then.
    #[inline]
    pub fn encode(&self, head: &RequestHead, out: &mut BytesMut) -> Result<(), DoesNotFit> {
        let start = out.len();
        RequestHead { opcode: self.opcode().number(), ..*head }.put(out);
        self.put(out);
        let (bytes, bytes_max) = (out.len() - start, self.opcode().frame_bytes_max());
        if bytes > bytes_max {
            out.truncate(start);
            return Err(DoesNotFit { bytes, bytes_max });
        }
        close_frame(out, start);
        Ok(())
    }
}

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
    amount: Money, "how much, in minor units of the card's currency; 0: all that is left";
    code: Secret<'_>, "the code as typed";
    pin: Option<Secret<'_>>, "the PIN; empty: none";
});

/// The body of REVERSE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reverse<'a> {
    /// The id of the redemption.
    pub original: RequestId,
    /// The code.
    pub code: Secret<'a>,
}

wire!(Reverse<'a>: "REVERSE" {
    original: RequestId, "the request id of the redemption to undo";
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

/// The body of SELL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sell {
    /// The order, chosen by the buyer.
    pub order: OrderId,
    /// What to sell.
    pub product: ProductId,
    /// How many.
    pub count: u32,
    /// Cards that expire sooner than this many seconds from now are not sold.
    pub validity_s_min: u32,
}

wire!(Sell: "SELL" {
    order: OrderId, "order id, chosen by the buyer, never 0; the target of the request id";
    product: ProductId, "what to sell";
    count: u32, "how many cards, 1 to 100,000";
    validity_s_min: u32, "cards that expire sooner than this many seconds from now are not sold";
});

/// The body of ORDER_FETCH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrderFetch {
    /// The order.
    pub order: OrderId,
    /// The first card wanted.
    pub from: u32,
    /// How many at most.
    pub count: u32,
}

wire!(OrderFetch: "ORDER_FETCH" {
    order: OrderId, "the order";
    from: u32, "the first card wanted, counted from 0 in the order's own sequence";
    count: u32, "how many cards at most";
});

/// The body of the commands about one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OneBatch {
    /// The batch.
    pub batch: BatchId,
}

wire!(OneBatch: "ONE_BATCH" {
    batch: BatchId, "the batch";
});

/// The body of BATCH_EXTEND.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchExtend {
    /// The batch.
    pub batch: BatchId,
    /// The new end of validity.
    pub expires_ms: u64,
}

wire!(BatchExtend: "BATCH_EXTEND" {
    batch: BatchId, "the batch";
    expires_ms: u64, "the new end of validity, ms since 1970; cards whose own end is later keep it";
});

/// The body of lists that may be narrowed to one product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OfProduct {
    /// Only this product's.
    pub product: Option<ProductId>,
}

wire!(OfProduct: "OF_PRODUCT" {
    product: Option<ProductId>, "only this product's; 0xffffffff: all";
});

/// The body of the commands about one product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OneProduct {
    /// The product.
    pub product: ProductId,
}

wire!(OneProduct: "ONE_PRODUCT" {
    product: ProductId, "the product";
});

/// The body of PRINCIPAL_REVOKE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnePrincipal {
    /// The principal.
    pub principal: PrincipalId,
}

wire!(OnePrincipal: "ONE_PRINCIPAL" {
    principal: PrincipalId, "the principal";
});

/// The body of the commands about an import that was announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OneImport {
    /// The request id of its IMPORT_BEGIN.
    pub import: RequestId,
}

wire!(OneImport: "ONE_IMPORT" {
    import: RequestId, "the request id of its IMPORT_BEGIN";
});

wire!(ProductSpec: "PRODUCT_SPEC" {
    face: Money, "face value in minor units, not negative";
    valid_days: u32, "days from import until a card expires; 0: never";
    reversal_s: u32, "how long after a redemption it may be reversed, in seconds";
    kind: CardKind, "1 SINGLE, 2 MULTI_USE, 3 STORED_VALUE, 4 SHARED";
    currency: [u8; 3], "ISO 4217, upper case";
    name: String, "1 to 64 bytes, unique in the tenant";
});

wire!(PrincipalSpec: "PRINCIPAL_SPEC" {
    key: [u8; 32], "SHA-256 of its public key's DER SubjectPublicKeyInfo";
    merchant: MerchantId, "the merchant it redeems for, or 0";
    tenant: TenantId, "its tenant, 0 in this version";
    role: Role, "1 admin, 2 issuer, 3 seller, 4 redeemer, 5 operator, 6 finance, 7 auditor";
    name: String, "1 to 64 bytes, unique";
});

wire!(ImportSpec: "IMPORT_SPEC" {
    rows: u64, "how many rows will come";
    face: Option<Money>, "face value of the batch's cards; the lowest i64: the product's";
    valid_from_ms: u64, "from when the batch's cards can be redeemed, ms since 1970; 0: at once";
    expires_ms: u64, "when the batch's cards expire, ms since 1970; 0: the product's rule";
    product: ProductId, "the product";
    code_bytes_max: u8, "the longest normalised code, 4 to 128";
    pins: bool, "1: rows carry a PIN";
    faces: bool, "1: rows carry a face value";
    expiries: bool, "1: rows carry an end of validity";
    active: bool, "1: redeemable once sold, without a later activation";
    label: String, "the importer's label, 0 to 128 bytes";
});

/// One item of a REDEEM_BATCH: a redemption under an id of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item<'a> {
    /// The id that makes a retry of this item safe.
    pub request: RequestId,
    /// How much, in minor units; 0 is all of it.
    pub amount: Money,
    /// The code.
    pub code: Secret<'a>,
    /// The PIN, if the card has one.
    pub pin: Option<Secret<'a>>,
}

wire!(Item<'a>: "ITEM" {
    request: RequestId, "the item's own request id, never 0";
    amount: Money, "as in REDEEM";
    code: Secret<'_>, "as in REDEEM";
    pin: Option<Secret<'_>>, "as in REDEEM";
});

/// The items of a REDEEM_BATCH, checked when they were received and read one by one.
#[derive(Clone, Debug)]
pub struct Items<'a> {
    count: u16,
    rows: Rows<'a>,
}

#[derive(Clone, Debug)]
enum Rows<'a> {
    Given(&'a [Item<'a>]),
    Received(Reader<'a>),
}

impl<'a> Items<'a> {
    /// Items to be sent: at most [`BATCH_ITEMS_MAX`]; what is beyond is left out.
    #[must_use]
    pub fn new(items: &'a [Item<'a>]) -> Items<'a> {
        let count = items.len().min(BATCH_ITEMS_MAX);
        Items { count: count as u16, rows: Rows::Given(&items[..count]) }
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count.into()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Each of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = Item<'a>> {
        let mut rows = self.rows.clone();
        (0..self.len()).map_while(move |i| match &mut rows {
            Rows::Given(items) => items.get(i).copied(),
            Rows::Received(reader) => Item::take(reader).ok(),
        })
    }
}

impl PartialEq for Items<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl<'a> Wire<'a> for Items<'a> {
    const TYPE: &'static str = "REDEEM_BATCH";
    const FIELDS: &'static [Field] = &[
        field("count", "u16", "how many items, 1 to 1,024"),
        field("items", "ITEM × count", "the redemptions, each under its own request id"),
    ];

    fn put(&self, out: &mut BytesMut) {
        self.count.put(out);
        self.iter().for_each(|item| item.put(out));
    }

    fn take(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        let count: u16 = reader.field("count")?;
        if count == 0 || usize::from(count) > BATCH_ITEMS_MAX {
            return Err(reader.malformed());
        }
        let rows = Rows::Received(reader.clone());
        for _ in 0..count {
            if Item::take(reader)?.request.0 == 0 {
                return Err(Malformed { field: "request" });
            }
        }
        Ok(Items { count, rows })
    }
}

/// Which optional columns the rows of a chunk have. Bits are part of the wire format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Columns(pub u8);

impl Columns {
    const PIN: u8 = 1;
    const FACE: u8 = 2;
    const EXPIRES: u8 = 4;

    /// The columns of an import.
    #[must_use]
    pub const fn of(spec: &ImportSpec) -> Columns {
        let mut bits = 0;
        if spec.pins {
            bits |= Self::PIN;
        }
        if spec.faces {
            bits |= Self::FACE;
        }
        if spec.expiries {
            bits |= Self::EXPIRES;
        }
        Columns(bits)
    }

    /// Appends a row. Codes and PINs longer than 255 bytes do not fit; check them before.
    pub(crate) fn put(self, row: &ImportRow<'_>, out: &mut BytesMut) {
        row.code.put(out);
        if self.0 & Self::PIN != 0 {
            row.pin.unwrap_or_default().put(out);
        }
        if self.0 & Self::FACE != 0 {
            row.face.put(out);
        }
        if self.0 & Self::EXPIRES != 0 {
            row.expires_ms.put(out);
        }
    }

    fn take<'a>(self, reader: &mut Reader<'a>) -> Result<ImportRow<'a>, Malformed> {
        let code = reader.field("code")?;
        let pin: &[u8] = if self.0 & Self::PIN == 0 { &[] } else { reader.field("pin")? };
        Ok(ImportRow {
            code,
            pin: (!pin.is_empty()).then_some(pin),
            face: if self.0 & Self::FACE == 0 { None } else { reader.field("face")? },
            expires_ms: if self.0 & Self::EXPIRES == 0 { 0 } else { reader.field("expires_ms")? },
        })
    }
}

/// The body of IMPORT_CHUNK: rows, checked when they were received and read one by one.
#[derive(Clone, Debug)]
pub struct Chunk<'a> {
    /// The request id of the import's IMPORT_BEGIN.
    pub import: RequestId,
    /// The number of the first row, counted from 0.
    pub first_row: u64,
    /// How many rows.
    pub count: u32,
    /// Which columns they have.
    pub columns: Columns,
    rows: Reader<'a>,
}

impl<'a> Chunk<'a> {
    /// Rows to be sent, encoded before by [`ChunkRows`].
    #[must_use]
    pub fn new(import: RequestId, first_row: u64, rows: &'a ChunkRows) -> Chunk<'a> {
        Chunk {
            import,
            first_row,
            count: rows.count,
            columns: rows.columns,
            rows: Reader::new(rows.bytes.as_slice()),
        }
    }

    /// Each row, in order.
    pub fn rows(&self) -> impl Iterator<Item = ImportRow<'a>> {
        let (columns, mut reader) = (self.columns, self.rows.clone());
        (0..self.count).map_while(move |_| columns.take(&mut reader).ok())
    }
}

impl PartialEq for Chunk<'_> {
    fn eq(&self, other: &Self) -> bool {
        (self.import, self.first_row, self.count, self.columns, self.rows.rest())
            == (other.import, other.first_row, other.count, other.columns, other.rows.rest())
    }
}

impl<'a> Wire<'a> for Chunk<'a> {
    const TYPE: &'static str = "IMPORT_CHUNK";
    const FIELDS: &'static [Field] = &[
        field("import", "u128", "the request id of its IMPORT_BEGIN"),
        field("first_row", "u64", "the number of the first row, counted from 0"),
        field("count", "u32", "how many rows"),
        field("columns", "u8", "bit 0: rows have a PIN, bit 1: a face value, bit 2: an end of validity"),
        field("rows", "ROW × count", "the rows"),
    ];

    fn put(&self, out: &mut BytesMut) {
        self.import.put(out);
        self.first_row.put(out);
        self.count.put(out);
        self.columns.0.put(out);
        out.extend_from_slice(self.rows.rest());
    }

    fn take(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        let import = reader.field("import")?;
        let first_row = reader.field("first_row")?;
        let count: u32 = reader.field("count")?;
        let columns: u8 = reader.field("columns")?;
        if columns & !7 != 0 {
            return Err(reader.malformed());
        }
        let columns = Columns(columns);
        let rows = Reader::new(reader.rest());
        for _ in 0..count {
            columns.take(reader)?;
        }
        Ok(Chunk { import, first_row, count, columns, rows })
    }
}

/// The layout of a chunk's rows, for the document.
pub(crate) const ROW_FIELDS: &[Field] = &[
    field("code", "bytes8", "the code as the merchant wrote it"),
    field("pin", "bytes8 if columns & 1", "the PIN; empty: none"),
    field("face", "i64 if columns & 2", "face value in minor units; the lowest i64: the batch's"),
    field("expires_ms", "u64 if columns & 4", "end of validity, ms since 1970; 0: the batch's"),
];

/// Rows gathered for one chunk. Wiped when dropped: they hold codes.
#[derive(Default)]
pub struct ChunkRows {
    count: u32,
    columns: Columns,
    bytes: zeroize::Zeroizing<Vec<u8>>,
}

impl ChunkRows {
    /// Room for so many bytes of rows.
    #[must_use]
    pub fn new(columns: Columns, bytes: usize) -> ChunkRows {
        ChunkRows { count: 0, columns, bytes: Vec::with_capacity(bytes.min(FRAME_BYTES_MAX)).into() }
    }

    /// How many rows are in it.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Adds a row unless it would reallocate: then the chunk is full. `scratch` is reused from row to row.
    pub fn push(&mut self, row: &ImportRow<'_>, scratch: &mut BytesMut) -> bool {
        scratch.clear();
        self.columns.put(row, scratch);
        if self.bytes.len() + scratch.len() > self.bytes.capacity() {
            return false;
        }
        self.bytes.extend_from_slice(scratch);
        self.count += 1;
        true
    }
}

/// Every layout of a request, for the document and the golden tests: name and fields.
#[must_use]
pub fn layouts() -> Vec<(&'static str, &'static [Field])> {
    fn of<T: Wire<'static>>() -> (&'static str, &'static [Field]) {
        (T::TYPE, T::FIELDS)
    }
    vec![
        of::<Redeem<'_>>(),
        of::<Reverse<'_>>(),
        of::<OneCard<'_>>(),
        of::<Items<'_>>(),
        of::<Item<'_>>(),
        of::<Sell>(),
        of::<OrderFetch>(),
        of::<OneBatch>(),
        of::<BatchExtend>(),
        of::<OfProduct>(),
        of::<OneProduct>(),
        of::<ProductSpec>(),
        of::<ImportSpec>(),
        of::<Chunk<'_>>(),
        ("ROW", ROW_FIELDS),
        of::<OneImport>(),
        of::<OnePrincipal>(),
        of::<PrincipalSpec>(),
    ]
}
