//! The two request bodies that carry rows: the items of a REDEEM_BATCH and a chunk of an import.
//!
//! Their rows are checked when they are received and stay where they lie; readers take them one by one,
//! so nothing is allocated for them.

use bytes::BytesMut;
use kami_engine::{ImportRow, ImportSpec, Money, ORIGIN_BYTES, Origin, RequestId};

use super::wire::{Field, Malformed, Reader, Secret, Wire, wire};
use super::{FRAME_BYTES_MAX, field};

/// The most items of a REDEEM_BATCH.
pub const BATCH_ITEMS_MAX: usize = 1024;

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
    pub fn iter(&self) -> impl Iterator<Item = Item<'a>> + Clone {
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
    const ORIGIN: u8 = 8;

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
        if spec.origins {
            bits |= Self::ORIGIN;
        }
        Columns(bits)
    }

    /// How many bytes a row takes.
    fn bytes(self, row: &ImportRow<'_>) -> usize {
        let mut bytes = 1 + row.code.len();
        if self.0 & Self::PIN != 0 {
            bytes += 1 + row.pin.map_or(0, <[u8]>::len);
        }
        let there = |column: u8, bytes: usize| if self.0 & column == 0 { 0 } else { bytes };
        bytes + there(Self::FACE, 8) + there(Self::EXPIRES, 8) + there(Self::ORIGIN, ORIGIN_BYTES)
    }

    /// Appends a row. A code or PIN longer than 255 bytes is no row: it is checked before.
    fn put(self, row: &ImportRow<'_>, out: &mut Vec<u8>) {
        let short = |bytes: &[u8], out: &mut Vec<u8>| {
            let bytes = &bytes[..bytes.len().min(255)];
            out.push(bytes.len() as u8);
            out.extend_from_slice(bytes);
        };
        short(row.code, out);
        if self.0 & Self::PIN != 0 {
            short(row.pin.unwrap_or_default(), out);
        }
        if self.0 & Self::FACE != 0 {
            out.extend_from_slice(&row.face.unwrap_or(Money::MIN).to_le_bytes());
        }
        if self.0 & Self::EXPIRES != 0 {
            out.extend_from_slice(&row.expires_ms.to_le_bytes());
        }
        if self.0 & Self::ORIGIN != 0 {
            out.extend_from_slice(&row.origin.unwrap_or_default().encode());
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
            origin: if self.0 & Self::ORIGIN == 0 { None } else { Some(reader.field("origin")?) },
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
        field(
            "columns",
            "u8",
            "bit 0: rows have a PIN, bit 1: a face value, bit 2: an end of validity, bit 3: an origin",
        ),
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
        if columns & !15 != 0 {
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
    field("origin", "ORIGIN if columns & 8", "what it was in the system it comes from"),
];

/// The layout of an origin, for the document; it is the batch file's own.
pub(crate) const ORIGIN_FIELDS: &[Field] = &[
    field("state", "u8", "0 AVAILABLE, 2 SOLD, 3 REDEEMED, 5 VOIDED, 6 RETURNED"),
    field("flags", "u8", "bit 0: it was frozen; bit 1: `remaining` is said"),
    field("reserved", "u16", "zero"),
    field("reserved", "u32", "zero"),
    field("sold_ms", "u64", "when it was sold, ms since 1970; 0: not known"),
    field("redeemed_ms", "u64", "when it was redeemed, or used first; 0: not known"),
    field("remaining", "i64", "what is left on a card that is used in parts; 0 if not said"),
    field("order", "u128", "the order that bought it; 0: none"),
];

impl Wire<'_> for Origin {
    const TYPE: &'static str = "ORIGIN";
    const FIELDS: &'static [Field] = ORIGIN_FIELDS;

    fn put(&self, out: &mut BytesMut) {
        out.extend_from_slice(&self.encode());
    }

    fn take(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let cell: [u8; ORIGIN_BYTES] = reader.array()?;
        Origin::decode(&cell).ok_or(reader.malformed())
    }
}

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

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Empties it; the room is kept.
    pub fn clear(&mut self) {
        zeroize::Zeroize::zeroize(self.bytes.as_mut_slice());
        self.bytes.clear();
        self.count = 0;
    }

    /// Adds a row, its code and PIN of at most 255 bytes, unless it would reallocate: then the chunk is
    /// full.
    pub fn push(&mut self, row: &ImportRow<'_>) -> bool {
        if self.bytes.len() + self.columns.bytes(row) > self.bytes.capacity() {
            return false;
        }
        self.columns.put(row, &mut self.bytes);
        self.count += 1;
        true
    }

    /// Each row, in order.
    pub fn rows(&self) -> impl Iterator<Item = ImportRow<'_>> {
        let mut reader = Reader::new(self.bytes.as_slice());
        (0..self.count).map_while(move |_| self.columns.take(&mut reader).ok())
    }
}
