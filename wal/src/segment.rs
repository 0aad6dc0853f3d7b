//! Segments: their numbers, names and geometry, and the handle of one that is being written.
//!
//! A position in the log is `segment number × segment size + offset in the file`. What lies between the
//! end of a segment's last record and the first record of the next is a gap that holds no bytes.

use std::io;
use std::sync::{Arc, OnceLock};

use crate::format::{BLOCK_BYTES, HEAD_BYTES, RECORD_BYTES_MAX, RECORD_HEAD_BYTES, SegmentHead};
use crate::lsn::Lsn;
use crate::medium::{Medium, Segment};
use crate::memory::WriteToken;

/// The directory of the segment files.
pub(crate) const LOG_DIR: &str = "log";
/// The directory of bytes that recovery cut off.
pub(crate) const QUARANTINE_DIR: &str = "quarantine";

/// How positions map to segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    /// The length of every segment file.
    pub segment_bytes: u64,
}

impl Geometry {
    /// The position of the first byte of segment `number`'s file.
    pub(crate) fn base(self, number: u32) -> u64 {
        u64::from(number) * self.segment_bytes
    }

    /// Where the first record of segment `number` lies.
    pub(crate) fn first_record(self, number: u32) -> u64 {
        self.base(number) + HEAD_BYTES
    }

    /// The segment a record at `position` lies in, and its offset there.
    pub(crate) fn locate(self, position: u64) -> (u32, u64) {
        let number = u32::try_from(position / self.segment_bytes).unwrap_or(u32::MAX);
        (number, position % self.segment_bytes)
    }

    /// The segment whose records end at `end`. A segment that is full to its last byte ends where the
    /// next one's file begins.
    pub(crate) fn segment_ending_at(self, end: u64) -> u32 {
        self.locate(end.saturating_sub(1)).0
    }

    /// The longest record, header included.
    pub(crate) fn record_bytes_max(self) -> u64 {
        RECORD_BYTES_MAX.min(self.segment_bytes / 4)
    }

    /// How many bytes from `offset` to the next block boundary a filling record takes: none if `offset`
    /// is one, and a whole block more if its header would not fit.
    pub(crate) fn fill_bytes(self, offset: u64) -> u64 {
        let gap = offset.next_multiple_of(BLOCK_BYTES) - offset;
        if gap == 0 || RECORD_HEAD_BYTES <= gap { gap } else { gap + BLOCK_BYTES }
    }

    /// Whether a record of `bytes` bytes that fills nothing may begin at `offset`. Room for one more
    /// header always stays behind it, so that the segment can be filled up to its end.
    pub(crate) fn fits(self, offset: u64, bytes: u64) -> bool {
        offset + bytes + RECORD_HEAD_BYTES <= self.segment_bytes
    }
}

/// The path of segment `number`, in the store's directory.
#[must_use]
pub fn segment_path(number: u32) -> String {
    format!("{LOG_DIR}/{number:010}.segment")
}

/// The number in a segment's file name, or `None` for another file.
pub(crate) fn segment_number(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(".segment")?;
    if digits.len() != 10 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().filter(|number| *number != 0)
}

/// The numbers of the segment files there are, in order.
pub(crate) fn segment_numbers(medium: &dyn Medium) -> io::Result<Vec<u32>> {
    let mut numbers: Vec<u32> =
        medium.list(LOG_DIR)?.iter().filter_map(|name| segment_number(name)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// A segment whose records are in memory: the one appended to, or one not completely committed yet.
pub(crate) struct ActiveSegment {
    /// Its number.
    pub number: u32,
    /// The position of its file's first byte.
    pub base: u64,
    /// Memory and the way to the disk.
    pub segment: Box<dyn Segment>,
    /// The segment that follows; set when this one was left, after its last record was published.
    pub next: OnceLock<Arc<ActiveSegment>>,
}

/// A segment nothing was written to yet.
pub(crate) struct ReadySegment {
    pub active: Arc<ActiveSegment>,
    pub token: WriteToken,
}

/// Makes segment `number`: file, zeros, header, all durable.
pub(crate) fn create(
    medium: &dyn Medium,
    geometry: Geometry,
    store_id: u64,
    number: u32,
) -> io::Result<ReadySegment> {
    if Lsn::BYTES_MAX <= geometry.base(number.saturating_add(1)) {
        return Err(io::Error::other("the log has reached its last position"));
    }
    let segment = medium.create_segment(&segment_path(number), geometry.segment_bytes)?;
    ready(segment, geometry, store_id, number)
}

/// Takes a segment that an earlier process made and never wrote a record to, if the medium can; see
/// [`Medium::reuse_segment`].
pub(crate) fn reuse(
    medium: &dyn Medium,
    geometry: Geometry,
    store_id: u64,
    number: u32,
) -> io::Result<Option<ReadySegment>> {
    let segment = medium.reuse_segment(&segment_path(number), geometry.segment_bytes)?;
    segment.map(|segment| ready(segment, geometry, store_id, number)).transpose()
}

/// Writes the header of a segment of zeros, durably; also of one that was there already, whose header may have been on
/// its way when the last process ended.
fn ready(
    segment: Box<dyn Segment>,
    geometry: Geometry,
    store_id: u64,
    number: u32,
) -> io::Result<ReadySegment> {
    let memory = segment.memory();
    let head = SegmentHead { store_id, segment_bytes: geometry.segment_bytes, segment: number };
    memory.write_head(0, HEAD_BYTES, &[&head.encode()]);
    segment.commit(0, BLOCK_BYTES)?;
    let token = memory.take_token().ok_or_else(|| io::Error::other("segment memory was used before"))?;
    let active = ActiveSegment { number, base: geometry.base(number), segment, next: OnceLock::new() };
    Ok(ReadySegment { active: Arc::new(active), token })
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const GEOMETRY: Geometry = Geometry { segment_bytes: 65536 };

    #[test]
    fn names_and_numbers_are_inverse() {
        for number in [1, 42, u32::MAX] {
            let path = segment_path(number);
            assert_eq!(segment_number(path.strip_prefix("log/").unwrap()), Some(number));
        }
        for other in ["0000000000.segment", "1.segment", "0000000001.seg", "x000000001.segment"] {
            assert_eq!(segment_number(other), None);
        }
    }

    #[test]
    fn a_filling_record_always_ends_on_a_block_inside_the_segment() {
        for offset in (HEAD_BYTES..=65536 - RECORD_HEAD_BYTES).step_by(8).chain([65536]) {
            let bytes = GEOMETRY.fill_bytes(offset);
            assert_eq!((offset + bytes) % BLOCK_BYTES, 0);
            assert!(offset + bytes <= 65536);
            assert!(bytes == 0 || RECORD_HEAD_BYTES <= bytes);
        }
    }

    #[test]
    fn a_full_segment_ends_where_the_next_file_begins() {
        assert_eq!(GEOMETRY.locate(65536), (1, 0));
        assert_eq!(GEOMETRY.segment_ending_at(2 * 65536), 1);
        assert_eq!(GEOMETRY.segment_ending_at(2 * 65536 + 16384 + 8), 2);
    }
}
