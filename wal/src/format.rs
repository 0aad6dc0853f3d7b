//! The bytes of the log: the only file that knows them.
//!
//! Everything is little-endian. The tables below are constants; `docs/wal-format.md` is rendered from
//! them, and a test compares the two.

use crate::chain::ChainPoint;
use crate::lsn::Lsn;

/// What the log writes to a disk at a time. A block that holds acknowledged bytes is never written again.
pub const BLOCK_BYTES: u64 = 4096;
/// The part of a segment file before its first record: header, two tail slots, a reserved block.
pub const HEAD_BYTES: u64 = 4 * BLOCK_BYTES;
/// Where the two tail slots lie in a segment file.
pub const SLOT_OFFSETS: [u64; 2] = [BLOCK_BYTES, 2 * BLOCK_BYTES];
/// How much of an open block a tail slot can hold.
pub const SLOT_DATA_BYTES_MAX: u64 = BLOCK_BYTES - RECORD_HEAD_BYTES;
/// The length of a record's header; the payload follows it.
pub const RECORD_HEAD_BYTES: u64 = 48;
/// No record is longer, header included.
pub const RECORD_BYTES_MAX: u64 = 4 << 20;
/// The version of everything described here.
pub const FORMAT_VERSION: u8 = 1;
/// The first bytes of a segment file.
pub const SEGMENT_MAGIC: [u8; 8] = *b"kami-wal";
/// Marks a record, so that a scan finds it.
pub const RECORD_MAGIC: u16 = 0xCA4D;
/// The length of a CHAIN record.
pub const CHAIN_RECORD_BYTES: u64 = RECORD_HEAD_BYTES + 48;
/// The length of a SEGMENT record.
pub const SEGMENT_RECORD_BYTES: u64 = RECORD_HEAD_BYTES + 48;
/// Segment files are at least this long: a head and room for a few records.
pub const SEGMENT_BYTES_MIN: u64 = 64 << 10;
/// Segment files are at most this long.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;

/// One field of a layout.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Where it begins, in bytes from the start of the layout.
    pub offset: usize,
    /// How many bytes it has; zero means "the rest".
    pub bytes: usize,
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: &'static str,
    /// What it means.
    pub meaning: &'static str,
}

const fn field(
    offset: usize,
    bytes: usize,
    name: &'static str,
    kind: &'static str,
    meaning: &'static str,
) -> Field {
    Field { offset, bytes, name, kind, meaning }
}

/// The header of every record.
pub const RECORD_HEAD: &[Field] = &[
    field(0, 4, "crc", "u32", "CRC-32C of bytes 4 to `length`: the rest of the header and the payload"),
    field(4, 2, "magic", "u16", "0xCA4D"),
    field(6, 1, "version", "u8", "1"),
    field(7, 1, "kind", "u8", "what the payload is, see the record kinds"),
    field(8, 8, "lsn", "u64", "where the record begins; a record found elsewhere is not valid"),
    field(16, 8, "durable_end", "u64", "first byte not known durable when this was built; 0 if none was"),
    field(24, 4, "length", "u32", "of the whole record; a multiple of 8, at most 4 MiB"),
    field(28, 4, "epoch", "u32", "one more with every opening of the log"),
    field(32, 8, "store_id", "u64", "the store the record belongs to"),
    field(40, 4, "segment", "u32", "the segment the record lies in"),
    field(44, 4, "reserved", "u32", "0"),
];

/// The first block of a segment file; the rest of the block is zero.
pub const SEGMENT_HEAD: &[Field] = &[
    field(0, 8, "magic", "[u8; 8]", "`kami-wal`"),
    field(8, 4, "version", "u32", "1"),
    field(12, 4, "crc", "u32", "CRC-32C of bytes 0 to 12 and 16 to 64"),
    field(16, 8, "store_id", "u64", "the store the segment belongs to"),
    field(24, 8, "segment_bytes", "u64", "length of every segment file of this store"),
    field(32, 8, "features", "u64", "0; a reader refuses a bit it does not know"),
    field(40, 4, "segment", "u32", "the segment's number, from 1"),
    field(44, 4, "block_bytes", "u32", "4096"),
    field(48, 16, "reserved", "[u8; 16]", "0"),
];

/// The payload of a SEGMENT record.
pub const SEGMENT_PAYLOAD: &[Field] = &[
    field(0, 8, "prev_end", "u64", "where the segment before ended; what lies behind is not part of the log"),
    field(8, 8, "chain_to", "u64", "how far the chain value below reaches; 0 at the beginning of a log"),
    field(16, 32, "chain", "[u8; 32]", "the chain value there; zeros at the beginning of a log"),
];

/// The payload of a CHAIN record.
pub const CHAIN_PAYLOAD: &[Field] = &[
    field(0, 8, "from", "u64", "how far the chain value before this one reached"),
    field(8, 8, "to", "u64", "how far this one reaches"),
    field(
        16,
        32,
        "chain",
        "[u8; 32]",
        "BLAKE3 of the value before and of the log's bytes from `from` to `to`",
    ),
];

/// What the 64 bytes of the segment header that carry something are.
const SEGMENT_HEAD_USED: usize = 64;

const _: () = {
    assert!(tiles(RECORD_HEAD, RECORD_HEAD_BYTES as usize));
    assert!(tiles(SEGMENT_HEAD, SEGMENT_HEAD_USED));
    assert!(tiles(SEGMENT_PAYLOAD, (SEGMENT_RECORD_BYTES - RECORD_HEAD_BYTES) as usize));
    assert!(tiles(CHAIN_PAYLOAD, (CHAIN_RECORD_BYTES - RECORD_HEAD_BYTES) as usize));
    // The first record of a segment fits a tail slot, and both fit the first block.
    assert!(SEGMENT_RECORD_BYTES <= SLOT_DATA_BYTES_MAX);
    assert!(SLOT_DATA_BYTES_MAX.is_multiple_of(8));
    assert!(HEAD_BYTES < SEGMENT_BYTES_MIN);
    assert!(RECORD_BYTES_MAX <= u32::MAX as u64);
};

/// Whether `fields` cover `bytes` bytes without a gap.
const fn tiles(fields: &[Field], bytes: usize) -> bool {
    let mut at = 0;
    let mut index = 0;
    while index < fields.len() {
        if fields[index].offset != at {
            return false;
        }
        at += fields[index].bytes;
        index += 1;
    }
    at == bytes
}

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RecordKind {
    /// A payload of the log's user.
    Data = 1,
    /// Fills a block that is to be written; zeros.
    Pad = 2,
    /// The chain value over the log so far.
    Chain = 3,
    /// First record of every segment.
    Segment = 4,
    /// Last record of a segment that was left in order; zeros.
    Rotate = 5,
    /// Not part of the log: the header of a tail slot, which holds a copy of an open block.
    Slot = 6,
}

/// Number, name and meaning of every record kind.
pub const RECORD_KINDS: &[(RecordKind, &str, &str)] = &[
    (RecordKind::Data, "DATA", "a payload of the log's user"),
    (RecordKind::Pad, "PAD", "zeros up to the end of a block, so that the block can be written once"),
    (RecordKind::Chain, "CHAIN", "a chain value over the log so far"),
    (RecordKind::Segment, "SEGMENT", "first record of every segment: where the one before ended"),
    (
        RecordKind::Rotate,
        "ROTATE",
        "last record of a segment that was left in order; zeros up to the block's end",
    ),
    (
        RecordKind::Slot,
        "SLOT",
        "header of a tail slot; its `lsn` is that of the block whose beginning follows",
    ),
];

impl RecordKind {
    const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Data,
            2 => Self::Pad,
            3 => Self::Chain,
            4 => Self::Segment,
            5 => Self::Rotate,
            6 => Self::Slot,
            _ => return None,
        })
    }
}

/// The header of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHead {
    /// What the record is.
    pub kind: RecordKind,
    /// Where it begins.
    pub lsn: Lsn,
    /// The first byte not known durable when it was built.
    pub durable_end: Option<Lsn>,
    /// Its whole length in bytes, a multiple of 8.
    pub length: u32,
    /// The opening of the log it was written in.
    pub epoch: u32,
    /// The store it belongs to.
    pub store_id: u64,
    /// The segment it lies in.
    pub segment: u32,
}

impl RecordHead {
    /// The header's bytes with the checksum field zero.
    fn encode(&self) -> [u8; RECORD_HEAD_BYTES as usize] {
        let mut bytes = [0; RECORD_HEAD_BYTES as usize];
        bytes[4..6].copy_from_slice(&RECORD_MAGIC.to_le_bytes());
        bytes[6] = FORMAT_VERSION;
        bytes[7] = self.kind as u8;
        bytes[8..16].copy_from_slice(&self.lsn.bytes().to_le_bytes());
        bytes[16..24].copy_from_slice(&self.durable_end.map_or(0, Lsn::bytes).to_le_bytes());
        bytes[24..28].copy_from_slice(&self.length.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.store_id.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.segment.to_le_bytes());
        bytes
    }

    /// Writes the header in front of the payload that `record` already holds, checksum included.
    ///
    /// # Panics
    /// If `record` is not `length` bytes long.
    pub fn complete(&self, record: &mut [u8]) {
        assert_eq!(record.len(), self.length as usize, "a record is as long as its header says");
        record[..RECORD_HEAD_BYTES as usize].copy_from_slice(&self.encode());
        let crc = crc32c::crc32c(&record[4..]);
        record[..4].copy_from_slice(&crc.to_le_bytes());
    }

    /// The header alone, for a payload that lies elsewhere.
    #[must_use]
    pub fn encode_apart(&self, payload: &[u8]) -> [u8; RECORD_HEAD_BYTES as usize] {
        let mut bytes = self.encode();
        let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[4..]), payload);
        bytes[..4].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads the record at the start of `bytes` and checks all of it that does not depend on where it
    /// was found. The payload is `bytes[48..length]`.
    pub fn decode(bytes: &[u8]) -> Result<Self, InvalidRecord> {
        let head = Self::decode_unchecked(bytes)?;
        let record = bytes.get(..head.length as usize).ok_or(InvalidRecord::Length)?;
        if u32_at(record, 0) != crc32c::crc32c(&record[4..]) {
            return Err(InvalidRecord::Checksum);
        }
        Ok(head)
    }

    /// The header's fields, plausible but not checked against the checksum: enough to know how many
    /// bytes to read before [`RecordHead::decode`].
    pub(crate) fn decode_unchecked(bytes: &[u8]) -> Result<Self, InvalidRecord> {
        let bytes = bytes.get(..RECORD_HEAD_BYTES as usize).ok_or(InvalidRecord::Length)?;
        if u16::from_le_bytes([bytes[4], bytes[5]]) != RECORD_MAGIC {
            return Err(InvalidRecord::Magic);
        }
        if bytes[6] != FORMAT_VERSION {
            return Err(InvalidRecord::Version);
        }
        let kind = RecordKind::from_byte(bytes[7]).ok_or(InvalidRecord::Kind)?;
        let length = u32_at(bytes, 24);
        let within = RECORD_HEAD_BYTES <= u64::from(length) && u64::from(length) <= RECORD_BYTES_MAX;
        if !within || !length.is_multiple_of(8) {
            return Err(InvalidRecord::Length);
        }
        if u32_at(bytes, 44) != 0 {
            return Err(InvalidRecord::Reserved);
        }
        let lsn = Lsn::from_bytes(u64_at(bytes, 8)).ok_or(InvalidRecord::Position)?;
        let durable_end = match u64_at(bytes, 16) {
            0 => None,
            end => Some(Lsn::from_bytes(end).ok_or(InvalidRecord::Position)?),
        };
        Ok(Self {
            kind,
            lsn,
            durable_end,
            length,
            epoch: u32_at(bytes, 28),
            store_id: u64_at(bytes, 32),
            segment: u32_at(bytes, 40),
        })
    }
}

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidRecord {
    /// No record begins here.
    Magic,
    /// Of a version this program does not know.
    Version,
    /// Of a kind this program does not know.
    Kind,
    /// The length is impossible here.
    Length,
    /// A position is impossible.
    Position,
    /// A reserved field is not zero.
    Reserved,
    /// The checksum differs.
    Checksum,
}

/// The header of a segment file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHead {
    /// The store it belongs to.
    pub store_id: u64,
    /// The length of every segment file of that store.
    pub segment_bytes: u64,
    /// Its number.
    pub segment: u32,
}

impl SegmentHead {
    /// The header's bytes; the rest of the block is zero.
    #[must_use]
    pub fn encode(&self) -> [u8; SEGMENT_HEAD_USED] {
        let mut bytes = [0; SEGMENT_HEAD_USED];
        bytes[0..8].copy_from_slice(&SEGMENT_MAGIC);
        bytes[8..12].copy_from_slice(&u32::from(FORMAT_VERSION).to_le_bytes());
        bytes[16..24].copy_from_slice(&self.store_id.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.segment_bytes.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.segment.to_le_bytes());
        bytes[44..48].copy_from_slice(&(BLOCK_BYTES as u32).to_le_bytes());
        let crc = head_crc(&bytes);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads the header from the beginning of a segment file.
    pub fn decode(bytes: &[u8]) -> Result<Self, InvalidSegment> {
        let bytes = bytes.get(..SEGMENT_HEAD_USED).ok_or(InvalidSegment::Damaged)?;
        if bytes[0..8] != SEGMENT_MAGIC {
            return Err(InvalidSegment::Damaged);
        }
        // First of all, and in every version to come at this place: a damaged version field must not
        // read as a newer program's file.
        if u32_at(bytes, 12) != head_crc(bytes) {
            return Err(InvalidSegment::Damaged);
        }
        let version = u32_at(bytes, 8);
        if version != u32::from(FORMAT_VERSION) {
            return Err(InvalidSegment::Version(version));
        }
        let features = u64_at(bytes, 32);
        if features != 0 || bytes[48..].iter().any(|byte| *byte != 0) {
            return Err(InvalidSegment::Features(features));
        }
        if u64::from(u32_at(bytes, 44)) != BLOCK_BYTES {
            return Err(InvalidSegment::Features(0));
        }
        let segment_bytes = u64_at(bytes, 24);
        if !segment_bytes_allowed(segment_bytes) {
            return Err(InvalidSegment::Damaged);
        }
        Ok(Self { store_id: u64_at(bytes, 16), segment_bytes, segment: u32_at(bytes, 40) })
    }
}

fn head_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[16..SEGMENT_HEAD_USED])
}

/// Why a segment header cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidSegment {
    /// It is blank or damaged.
    Damaged,
    /// It is of a version this program does not know.
    Version(u32),
    /// It needs features this program does not know.
    Features(u64),
}

/// Whether segments may be this long.
#[must_use]
pub const fn segment_bytes_allowed(bytes: u64) -> bool {
    SEGMENT_BYTES_MIN <= bytes && bytes <= SEGMENT_BYTES_MAX && bytes.is_multiple_of(BLOCK_BYTES)
}

/// The payload of a SEGMENT record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentStart {
    /// Where the segment before ended; zero in the first.
    pub prev_end: u64,
    /// The chain so far.
    pub chain: ChainPoint,
}

impl SegmentStart {
    pub(crate) fn encode(&self) -> [u8; 48] {
        let mut bytes = [0; 48];
        bytes[0..8].copy_from_slice(&self.prev_end.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.chain.to.to_le_bytes());
        bytes[16..48].copy_from_slice(&self.chain.value);
        bytes
    }

    pub(crate) fn decode(payload: &[u8]) -> Option<Self> {
        let payload: &[u8; 48] = payload.try_into().ok()?;
        Some(Self { prev_end: u64_at(payload, 0), chain: chain_point_at(payload, 8) })
    }
}

/// The payload of a CHAIN record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChainLink {
    /// How far the value before reached.
    pub from: u64,
    /// The new value, and how far it reaches.
    pub point: ChainPoint,
}

impl ChainLink {
    pub(crate) fn encode(&self) -> [u8; 48] {
        let mut bytes = [0; 48];
        bytes[0..8].copy_from_slice(&self.from.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.point.to.to_le_bytes());
        bytes[16..48].copy_from_slice(&self.point.value);
        bytes
    }

    pub(crate) fn decode(payload: &[u8]) -> Option<Self> {
        let payload: &[u8; 48] = payload.try_into().ok()?;
        Some(Self { from: u64_at(payload, 0), point: chain_point_at(payload, 8) })
    }
}

fn chain_point_at(bytes: &[u8], at: usize) -> ChainPoint {
    let mut value = [0; 32];
    value.copy_from_slice(&bytes[at + 8..at + 40]);
    ChainPoint { to: u64_at(bytes, at), value }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
