//! Reading a log that another process appends to: what of it is certainly durable, and nothing else.
//!
//! A backup reads the files of a running server and asks it nothing. That is sound because the files say
//! themselves how far they may be read: a record's header carries the durable end as it was when the record was
//! built, so **everything below the largest `durable_end` in any valid header is durable**, whatever else is
//! being written, torn or cut meanwhile. Bytes below it never change again: not by appending, not by recovery,
//! not by a restart during the copy. So a copy of them is a prefix of the store's history, of one moment.
//!
//! What lies behind that end is not looked at. Under load the end is one commit behind, in an idle log the seal
//! says it exactly. A process that was killed within milliseconds of its last commit may have acknowledged one
//! group more than the files can prove; the next start of the store settles that.
//!
//! The reader may see a block or a slot half written. Such bytes fail their checksum; they are read again, and
//! only what is still damaged when its writer had time enough is damage.

use std::io;
use std::time::Duration;

use crate::buffer::Buffer;
use crate::chain::ChainPoint;
use crate::error::OpenError;
use crate::format::{BLOCK_BYTES, HEAD_BYTES, RECORD_HEAD_BYTES, RecordHead, RecordKind};
use crate::image::{Expected, SegmentImage, Slot, peek_start};
use crate::lsn::Lsn;
use crate::medium::Medium;
use crate::recover::identify;
use crate::replay::Record;
use crate::segment::{LOG_DIR, segment_numbers, segment_path};
use crate::verify::ChainCheck;
use crate::wal::WalOptions;

/// How often bytes that should be there are read again before they count as damaged, and how long apart. Writing a
/// block takes the device a fraction of that.
const ATTEMPTS: u32 = 40;
const PAUSE: Duration = Duration::from_millis(5);

/// The durable part of a log that may be in use, as it was when it was opened.
pub struct DurableLog<'a> {
    medium: &'a dyn Medium,
    expected: Expected,
    first: u32,
    end: Lsn,
}

impl<'a> DurableLog<'a> {
    /// Finds out how far the log of store `store_id` on `medium` is certainly durable; `None` if nothing is.
    ///
    /// # Errors
    /// If the log is another store's or of another version, or the medium fails.
    pub fn open(medium: &'a dyn Medium, store_id: u64) -> Result<Option<Self>, OpenError> {
        let options = WalOptions { store_id: Some(store_id), ..WalOptions::default() };
        for attempt in 0.. {
            let numbers = segment_numbers(medium).map_err(OpenError::io("listing", LOG_DIR))?;
            let Some(first) = numbers.first().copied() else { return Ok(None) };
            let found = identify(medium, &options, &numbers)
                .and_then(|expected| Ok((expected, newest_durable_end(medium, expected, &numbers)?)));
            match found {
                Ok((expected, end)) => return Ok(end.map(|end| Self { medium, expected, first, end })),
                // A segment that was being prepared when a start removed it.
                Err(error) if attempt < ATTEMPTS && is_missing(&error) => std::thread::sleep(PAUSE),
                Err(error) => return Err(error),
            }
        }
        unreachable!("the attempts are counted")
    }

    /// The end of what is read: a record boundary.
    #[must_use]
    pub fn end(&self) -> Lsn {
        self.end
    }

    /// The length of a segment file.
    #[must_use]
    pub fn segment_bytes(&self) -> u64 {
        self.expected.geometry.segment_bytes
    }

    /// The number of the first segment.
    #[must_use]
    pub fn first_segment(&self) -> u32 {
        self.first
    }

    /// The number of the segment whose records end at `position`, or in which it lies.
    #[must_use]
    pub fn segment_of(&self, position: u64) -> u32 {
        self.expected.geometry.segment_ending_at(position).max(self.first)
    }

    /// The number of the segment that holds the end.
    #[must_use]
    pub fn last_segment(&self) -> u32 {
        self.expected.geometry.segment_ending_at(self.end.bytes())
    }

    /// Reads segment `number` up to its end or the log's. `buffer` lends its allocation.
    ///
    /// # Errors
    /// If the segment is missing or damaged below the durable end, or the medium fails.
    pub fn segment(&self, number: u32, mut buffer: Buffer) -> Result<DurableSegment, OpenError> {
        let geometry = self.expected.geometry;
        let path = segment_path(number);
        for attempt in 0.. {
            let limit = if number == self.last_segment() {
                Some(self.end.bytes())
            } else {
                peek_start(self.medium, self.expected, number + 1)?.map(|(_, start)| start.prev_end)
            };
            let image = match SegmentImage::load(self.medium, self.expected, number, buffer) {
                Err(error) if is_missing(&error) => return Err(OpenError::MissingSegment { file: path }),
                other => other?,
            };
            let reached = walk(&image, self.expected, limit, &mut |_| ());
            if limit == Some(reached) {
                return Ok(DurableSegment::of(image, reached));
            }
            if attempt == ATTEMPTS {
                let Some(limit) = limit else {
                    return Err(OpenError::MissingSegment { file: segment_path(number + 1) });
                };
                return Err(OpenError::Corrupt {
                    file: path,
                    offset: reached - geometry.base(number),
                    lsn: crate::append::position(reached),
                    durable_end: crate::append::position(limit.min(self.end.bytes())),
                });
            }
            buffer = image.bytes;
            std::thread::sleep(PAUSE);
        }
        unreachable!("the attempts are counted")
    }
}

/// The hash chain, followed over segments that are read in order.
pub struct DurableChain(ChainCheck);

impl DurableChain {
    /// Begins behind a value that is trusted, [`ChainPoint::GENESIS`] at the beginning of a log. The first segment to
    /// follow is the one in which that value ends.
    #[must_use]
    pub fn behind(point: ChainPoint) -> Self {
        Self(ChainCheck::behind(point))
    }

    /// Follows the chain through the next segment.
    ///
    /// # Errors
    /// [`OpenError::ChainBroken`] if a value does not fit.
    pub fn follow(&mut self, segment: &DurableSegment) -> Result<(), OpenError> {
        for (offset, head, bytes) in segment.raw() {
            let lsn = crate::append::position(segment.base + offset as u64);
            if !self.0.fits(lsn.bytes(), head.kind, bytes) {
                let file = segment_path(segment.number);
                return Err(OpenError::ChainBroken { file, offset: offset as u64, lsn });
            }
        }
        Ok(())
    }
}

/// What a segment holds of the durable log, in the one form that two readings of it agree on.
pub struct DurableSegment {
    number: u32,
    end: Lsn,
    bytes: Buffer,
    base: u64,
}

impl DurableSegment {
    fn of(image: SegmentImage, end: u64) -> Self {
        let (number, base) = (image.number, image.base());
        let mut bytes = image.bytes;
        bytes.truncate((end - base) as usize);
        // Tail slots only repeat what is in place here.
        bytes[BLOCK_BYTES as usize..HEAD_BYTES as usize].fill(0);
        Self { number, end: crate::append::position(end), bytes, base }
    }

    /// Its number.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The end of its last record.
    #[must_use]
    pub fn end(&self) -> Lsn {
        self.end
    }

    /// The beginning of a segment file: header, empty tail slots, and all records up to the end. A longer reading of
    /// the same segment begins with the same bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Gives the memory back.
    #[must_use]
    pub fn into_buffer(self) -> Buffer {
        self.bytes
    }

    /// The records, in order. They were checked when the segment was read.
    pub fn records(&self) -> impl Iterator<Item = Record<'_>> {
        self.raw().map(|(offset, head, bytes)| {
            let lsn = crate::append::position(self.base + offset as u64);
            Record {
                lsn,
                payload_lsn: lsn.plus(RECORD_HEAD_BYTES),
                end: lsn.plus(u64::from(head.length)),
                kind: head.kind,
                epoch: head.epoch,
                durable_end: head.durable_end,
                payload: &bytes[RECORD_HEAD_BYTES as usize..],
            }
        })
    }

    /// The records: where in the segment each begins, its header, and all of its bytes.
    fn raw(&self) -> impl Iterator<Item = (usize, RecordHead, &[u8])> {
        let mut at = HEAD_BYTES as usize;
        std::iter::from_fn(move || {
            let offset = at;
            let head = RecordHead::decode(self.bytes.get(offset..)?).ok()?;
            at += head.length as usize;
            Some((offset, head, &self.bytes[offset..at]))
        })
    }
}

/// The largest durable end that the two newest segments in use know. A segment is entered with what was known when its
/// first record was built; a commit may end in the one before meanwhile and say so there.
fn newest_durable_end(
    medium: &dyn Medium,
    expected: Expected,
    numbers: &[u32],
) -> Result<Option<Lsn>, OpenError> {
    let mut end = None;
    let mut in_use = 0;
    let mut buffer = Buffer::default();
    for number in numbers.iter().rev().copied() {
        if peek_start(medium, expected, number)?.is_none() {
            continue;
        }
        in_use += 1;
        let image = SegmentImage::load(medium, expected, number, buffer)?;
        walk(&image, expected, None, &mut |head| end = end.max(head.durable_end));
        for slot in &image.slots {
            if let Slot::Valid(head) = slot {
                end = end.max(head.durable_end);
            }
        }
        buffer = image.bytes;
        if in_use >= 2 && end.is_some() {
            break;
        }
    }
    Ok(end)
}

/// Follows the records of a segment up to `limit` or to the first place where none is; returns the position.
fn walk(
    image: &SegmentImage,
    expected: Expected,
    limit: Option<u64>,
    each: &mut dyn FnMut(&RecordHead),
) -> u64 {
    let base = image.base();
    let mut at = HEAD_BYTES;
    let Some((start, _)) = image.start(expected) else { return base + at };
    while Some(base + at) != limit && at < image.bytes.len() as u64 {
        match RecordHead::decode(&image.bytes[at as usize..]) {
            Ok(head)
                if head.lsn.bytes() == base + at
                    && head.segment == image.number
                    && head.store_id == expected.store_id
                    && head.epoch == start.epoch
                    && head.kind != RecordKind::Slot =>
            {
                each(&head);
                at += u64::from(head.length);
            }
            _ => break,
        }
    }
    base + at
}

fn is_missing(error: &OpenError) -> bool {
    matches!(error, OpenError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
}
