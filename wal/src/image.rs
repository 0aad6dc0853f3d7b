//! A segment file as recovery and verification see it: its bytes, its head, and the tail slot laid over
//! its block.

use std::io;

use crate::buffer::Buffer;
use crate::error::OpenError;
use crate::format::{
    BLOCK_BYTES, HEAD_BYTES, InvalidSegment, RECORD_HEAD_BYTES, RECORD_MAGIC, RecordHead, RecordKind,
    SLOT_OFFSETS, SegmentHead, SegmentStart,
};
use crate::medium::{File, Medium};
use crate::segment::{Geometry, segment_path};

/// Read at a time; enough for a device to work on many places at once.
const CHUNK_BYTES: usize = 4 << 20;
/// Read at a time where a chunk cannot be read.
const SECTOR_BYTES: usize = 512;
/// Stands for bytes that cannot be read. Not zero: zeros could pass for an unused block.
const UNREADABLE: u8 = 0xEE;

/// What a tail slot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    /// Nothing was ever written to it.
    Blank,
    /// A write to it did not complete, or it was damaged since.
    Damaged,
    /// A copy of the beginning of a block.
    Valid(RecordHead),
}

/// A segment file in memory.
pub(crate) struct SegmentImage {
    pub number: u32,
    pub path: String,
    /// The file's bytes with the newest tail slot laid over its block; as long as a segment.
    pub bytes: Buffer,
    /// The header, or `None` if it is blank or damaged.
    pub head: Option<SegmentHead>,
    pub slots: [Slot; 2],
    /// The offset of the block that the slot changed, if it did.
    pub overlaid: Option<u64>,
    geometry: Geometry,
}

/// The identity that everything in a log must carry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected {
    pub geometry: Geometry,
    pub store_id: u64,
}

impl SegmentImage {
    /// Reads segment `number` into `buffer`, whose allocation is reused.
    pub(crate) fn load(
        medium: &dyn Medium,
        expected: Expected,
        number: u32,
        mut buffer: Buffer,
    ) -> Result<Self, OpenError> {
        let path = segment_path(number);
        let file = medium.open(&path).map_err(OpenError::io("opening a segment", &path))?;
        let io = || OpenError::io("reading a segment", &path);
        let file_bytes = file.len().map_err(io())?;
        let segment_bytes = expected.geometry.segment_bytes;
        buffer.set_len(segment_bytes).map_err(io())?;
        let there = file_bytes.min(segment_bytes);
        let scan =
            if there.is_multiple_of(BLOCK_BYTES) { medium.open_to_scan(&path).map_err(io())? } else { None };
        read_tolerantly(&*file, scan.as_deref(), &mut buffer[..there as usize]).map_err(io())?;
        buffer[there as usize..].fill(0);

        let head = checked_head(&buffer, &path, expected, number)?;
        if head.is_some() && file_bytes != segment_bytes {
            return Err(OpenError::SegmentLength { file: path, bytes: file_bytes, expected: segment_bytes });
        }
        let slots = SLOT_OFFSETS.map(|offset| slot_at(&buffer, offset, expected, number));
        let mut image =
            Self { number, path, bytes: buffer, head, slots, overlaid: None, geometry: expected.geometry };
        image.lay_slot_over();
        Ok(image)
    }

    /// The position of the file's first byte.
    pub(crate) fn base(&self) -> u64 {
        self.geometry.base(self.number)
    }

    /// Lays the newer valid slot over its block. What a valid slot holds is what was appended there, so
    /// this changes nothing that was written in place completely.
    fn lay_slot_over(&mut self) {
        let newest = SLOT_OFFSETS
            .iter()
            .zip(self.slots)
            .filter_map(|(offset, slot)| match slot {
                Slot::Valid(head) => Some((*offset, head)),
                _ => None,
            })
            // A later slot never ends earlier, and at the same end it never knows less to be durable.
            .max_by_key(|(_, head)| (head.lsn.bytes() + u64::from(head.length), head.durable_end));
        let Some((slot, head)) = newest else { return };
        let block = (head.lsn.bytes() - self.base()) as usize;
        let data = slot as usize + RECORD_HEAD_BYTES as usize..slot as usize + head.length as usize;
        let in_place = block..block + data.len();
        if self.bytes[data.clone()] != self.bytes[in_place] {
            self.bytes.copy_within(data, block);
            self.overlaid = Some(block as u64);
        }
    }

    /// The segment's first record, if it is a valid SEGMENT record.
    pub(crate) fn start(&self, expected: Expected) -> Option<(RecordHead, SegmentStart)> {
        start_in(&self.bytes[HEAD_BYTES as usize..], expected, self.number)
    }

    /// Calls `found` for every valid record at or after `offset`, wherever it lies, and for every valid slot.
    pub(crate) fn scan(&self, offset: u64, expected: Expected, mut found: impl FnMut(&RecordHead)) {
        for slot in &self.slots {
            if let Slot::Valid(head) = slot {
                found(head);
            }
        }
        let magic = RECORD_MAGIC.to_le_bytes();
        let mut at = offset as usize;
        while at + RECORD_HEAD_BYTES as usize <= self.bytes.len() {
            if at.is_multiple_of(BLOCK_BYTES as usize) && is_zero(&self.bytes[at..at + BLOCK_BYTES as usize])
            {
                at += BLOCK_BYTES as usize;
                continue;
            }
            let step = match RecordHead::decode(&self.bytes[at..]) {
                Ok(head)
                    if self.bytes[at + 4..at + 6] == magic
                        && head.lsn.bytes() == self.base() + at as u64
                        && head.segment == self.number
                        && head.store_id == expected.store_id
                        && head.kind != RecordKind::Slot =>
                {
                    found(&head);
                    head.length as usize
                }
                _ => 8,
            };
            at += step;
        }
    }

    /// Whether anything valid lies in the segment: then it was in use.
    pub(crate) fn holds_records(&self, expected: Expected) -> bool {
        let mut any = false;
        self.scan(HEAD_BYTES, expected, |_| any = true);
        any
    }

    /// Whether a record of any store lies in the segment. For a file without a header to judge it by.
    pub(crate) fn holds_any_record(&self, offset: u64) -> bool {
        self.bytes[offset as usize..].chunks_exact(8).enumerate().any(|(index, word)| {
            let at = offset as usize + index * 8;
            u16::from_le_bytes([word[4], word[5]]) == RECORD_MAGIC
                && RecordHead::decode(&self.bytes[at..]).is_ok()
        })
    }

    /// The store the header names.
    pub(crate) fn store_id(&self) -> u64 {
        self.head.map_or(0, |head| head.store_id)
    }

    /// The end of the last byte at or after `offset` that is not zero; `offset` if there is none.
    pub(crate) fn used_end(&self, offset: u64) -> u64 {
        let rest = &self.bytes[offset as usize..];
        // Backwards by blocks first: most of it is zero.
        let mut end = rest.len();
        while BLOCK_BYTES as usize <= end && is_zero(&rest[end - BLOCK_BYTES as usize..end]) {
            end -= BLOCK_BYTES as usize;
        }
        offset + rest[..end].iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1)
    }
}

/// The SEGMENT record of segment `number`, read without the rest of it. `None` if the file does not
/// exist or does not begin with one.
pub(crate) fn peek_start(
    medium: &dyn Medium,
    expected: Expected,
    number: u32,
) -> Result<Option<(RecordHead, SegmentStart)>, OpenError> {
    let path = segment_path(number);
    let file = match medium.open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(OpenError::io("opening a segment", &path)(error)),
    };
    let io = || OpenError::io("reading a segment", &path);
    if file.len().map_err(io())? < HEAD_BYTES + BLOCK_BYTES {
        return Ok(None);
    }
    let mut bytes = vec![0; (HEAD_BYTES + BLOCK_BYTES) as usize];
    read_tolerantly(&*file, None, &mut bytes).map_err(io())?;
    if let Some(start) = start_in(&bytes[HEAD_BYTES as usize..], expected, number) {
        return Ok(Some(start));
    }
    // It may not have left its slot yet.
    let first = expected.geometry.first_record(number);
    for offset in SLOT_OFFSETS {
        if let Slot::Valid(head) = slot_at(&bytes, offset, expected, number)
            && head.lsn.bytes() == first
        {
            let data = &bytes[(offset + RECORD_HEAD_BYTES) as usize..offset as usize + head.length as usize];
            if let Some(start) = start_in(data, expected, number) {
                return Ok(Some(start));
            }
        }
    }
    Ok(None)
}

/// The segment header at the beginning of segment `number`, without any expectation.
pub(crate) fn peek_head(medium: &dyn Medium, number: u32) -> Result<Option<SegmentHead>, OpenError> {
    let path = segment_path(number);
    let io = || OpenError::io("reading a segment", &path);
    let file = medium.open(&path).map_err(io())?;
    if file.len().map_err(io())? < BLOCK_BYTES {
        return Ok(None);
    }
    let mut bytes = vec![0; BLOCK_BYTES as usize];
    read_tolerantly(&*file, None, &mut bytes).map_err(io())?;
    head_of(&bytes, &path)
}

fn head_of(bytes: &[u8], path: &str) -> Result<Option<SegmentHead>, OpenError> {
    let unsupported = |version, features| OpenError::Unsupported { file: path.to_owned(), version, features };
    match SegmentHead::decode(bytes) {
        Ok(head) => Ok(Some(head)),
        Err(InvalidSegment::Damaged) => Ok(None),
        Err(InvalidSegment::Version(version)) => Err(unsupported(version, 0)),
        Err(InvalidSegment::Features(features)) => Err(unsupported(1, features)),
    }
}

fn checked_head(
    bytes: &[u8],
    path: &str,
    expected: Expected,
    number: u32,
) -> Result<Option<SegmentHead>, OpenError> {
    let Some(head) = head_of(bytes, path)? else { return Ok(None) };
    if head.store_id != expected.store_id {
        return Err(OpenError::ForeignStore {
            file: path.to_owned(),
            offset: 0,
            found: head.store_id,
            expected: expected.store_id,
        });
    }
    let fits = head.segment == number && head.segment_bytes == expected.geometry.segment_bytes;
    if !fits {
        return Err(OpenError::DamagedHead { file: path.to_owned(), offset: 0 });
    }
    Ok(Some(head))
}

fn start_in(bytes: &[u8], expected: Expected, number: u32) -> Option<(RecordHead, SegmentStart)> {
    let head = RecordHead::decode(bytes).ok()?;
    let belongs = head.kind == RecordKind::Segment
        && head.lsn.bytes() == expected.geometry.first_record(number)
        && head.segment == number
        && head.store_id == expected.store_id;
    let start = SegmentStart::decode(&bytes[RECORD_HEAD_BYTES as usize..head.length as usize])?;
    belongs.then_some((head, start))
}

fn slot_at(bytes: &[u8], offset: u64, expected: Expected, number: u32) -> Slot {
    let slot = &bytes[offset as usize..(offset + BLOCK_BYTES) as usize];
    if is_zero(slot) {
        return Slot::Blank;
    }
    let base = expected.geometry.base(number);
    match RecordHead::decode(slot) {
        Ok(head)
            if head.kind == RecordKind::Slot
                && head.segment == number
                && head.store_id == expected.store_id
                && expected.geometry.first_record(number) <= head.lsn.bytes()
                // The seal of a segment that is full to its last byte holds no bytes and stands at its end.
                && head.lsn.bytes() + u64::from(head.length) - RECORD_HEAD_BYTES
                    <= base + expected.geometry.segment_bytes
                && head.lsn.bytes().is_multiple_of(BLOCK_BYTES) =>
        {
            Slot::Valid(head)
        }
        _ => Slot::Damaged,
    }
}

/// Reads the beginning of `file` into `buffer`. Sectors that the device reports as unreadable come out
/// as [`UNREADABLE`]: whether that matters is for the recovery rules to say. `scan` is the same file, see
/// [`Medium::open_to_scan`].
fn read_tolerantly(file: &dyn File, scan: Option<&dyn File>, buffer: &mut [u8]) -> io::Result<()> {
    for (index, chunk) in buffer.chunks_mut(CHUNK_BYTES).enumerate() {
        let offset = (index * CHUNK_BYTES) as u64;
        match scan.unwrap_or(file).read_at(offset, chunk) {
            Err(error) if is_unreadable(&error) => {
                for (sector_index, sector) in chunk.chunks_mut(SECTOR_BYTES).enumerate() {
                    match file.read_at(offset + (sector_index * SECTOR_BYTES) as u64, sector) {
                        Err(error) if is_unreadable(&error) => sector.fill(UNREADABLE),
                        other => other?,
                    }
                }
            }
            other => other?,
        }
    }
    Ok(())
}

/// Whether the device could not read the bytes, as opposed to a failing system call.
fn is_unreadable(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
}

/// Whether all bytes are zero, eight at a time.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<64>();
    words.iter().all(|word| word.iter().fold(0, |all, byte| all | byte) == 0)
        && rest.iter().all(|byte| *byte == 0)
}
