//! Replay: one pass over the log that finds every record, the end of the log, and whether that end is
//! where it may be.
//!
//! Legend. *Break*: where the next record should begin and none that belongs there does. *D*: the largest
//! `durable_end` in any valid record or tail slot anywhere at or after the start, beyond the break too, and the
//! caller's own knowledge. A power cut leaves holes only at or above D, because D moves after a
//! successful write; so a break below D is damage, and a break at or above D is the torn end of
//! writes that nobody was told about.
//!
//! | # | What is found | D | Decision |
//! |---|---|---|---|
//! | 1 | zeros from the break on, nothing beyond | ≤ break | the log ends here, in order |
//! | 2 | damaged or unreadable bytes at the break, nothing valid beyond | ≤ break | torn tail: cut |
//! | 3 | a hole, valid records beyond it | ≤ break | torn tail: cut, the records beyond too |
//! | 4 | anything at the break | > break | refuse: `Corrupt` |
//! | 5 | a valid tail slot whose block in place is older or torn | ≤ slot's end | the slot is laid over the block, then as above |
//! | 6 | the same | > slot's end | refuse: `Corrupt`; the block was complete once |
//! | 7 | the next segment's SEGMENT record says that this one ended at the break | any | go on there; what lies behind the break is not part of the log |
//! | 8 | the segment after the break is missing, later ones are valid | > break | refuse: `MissingSegment` |
//! | 9 | a segment without a valid header, valid records in it | any | refuse: `DamagedHead`; headers are durable before a segment is used |
//! | 10 | a segment without a valid header, nothing valid in it | ≤ break | it was being prepared: removed |
//! | 11 | both tail slots damaged | any | refuse: `DamagedHead`; a power cut damages the one that is being written |
//! | 12 | a segment with a valid header and the wrong length | any | refuse: `SegmentLength` |
//! | 13 | a segment, or a valid record at the break, of another store | any | refuse: `ForeignStore` |
//! | 14 | a segment of a newer version or with unknown features | any | refuse: `Unsupported` |
//! | 15 | no record at all | none | a new log |

use std::thread::{Builder, Scope, ScopedJoinHandle};

use crate::append::position;
use crate::buffer::Buffer;
use crate::chain::ChainPoint;
use crate::error::OpenError;
use crate::format::{
    BLOCK_BYTES, ChainLink, HEAD_BYTES, RECORD_HEAD_BYTES, RecordHead, RecordKind, SLOT_OFFSETS, SegmentStart,
};
use crate::image::{Expected, SegmentImage, Slot, peek_start};
use crate::lsn::Lsn;
use crate::medium::Medium;
use crate::planted::planted;
use crate::segment::segment_path;

/// Smaller segments are read faster than a thread is started for them.
const READ_AHEAD_BYTES_MIN: u64 = 1 << 20;

/// Where a replay begins.
#[derive(Clone, Copy, Debug)]
pub struct ReplayFrom {
    /// The first record wanted: a record boundary. The log is checked from the start of its segment.
    pub lsn: Lsn,
    /// What the caller knows to have been durable, for instance the end of a snapshot.
    pub durable_end_hint: Option<Lsn>,
}

/// A record of the log.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Where it begins.
    pub lsn: Lsn,
    /// Where its payload begins.
    pub payload_lsn: Lsn,
    /// The first byte behind it.
    pub end: Lsn,
    /// What it is.
    pub kind: RecordKind,
    /// The opening of the log it was written in.
    pub epoch: u32,
    /// The first byte not known durable when it was built.
    pub durable_end: Option<Lsn>,
    /// Its payload.
    pub payload: &'a [u8],
}

impl Record<'_> {
    /// The chain value that a CHAIN or SEGMENT record carries.
    #[must_use]
    pub fn chain(&self) -> Option<ChainPoint> {
        match self.kind {
            RecordKind::Chain => ChainLink::decode(self.payload).map(|link| link.point),
            RecordKind::Segment => SegmentStart::decode(self.payload).map(|start| start.chain),
            _ => None,
        }
    }
}

/// A record together with where it was found.
pub(crate) struct Found<'a> {
    pub head: RecordHead,
    /// Header and payload.
    pub bytes: &'a [u8],
    pub image: &'a SegmentImage,
}

impl<'a> Found<'a> {
    pub(crate) fn payload(&self) -> &'a [u8] {
        &self.bytes[RECORD_HEAD_BYTES as usize..]
    }

    pub(crate) fn record(&self) -> Record<'a> {
        Record {
            lsn: self.head.lsn,
            payload_lsn: self.head.lsn.plus(RECORD_HEAD_BYTES),
            end: self.head.lsn.plus(u64::from(self.head.length)),
            kind: self.head.kind,
            epoch: self.head.epoch,
            durable_end: self.head.durable_end,
            payload: self.payload(),
        }
    }
}

/// What to replay.
pub(crate) struct Walk<'a> {
    pub medium: &'a dyn Medium,
    pub expected: Expected,
    /// The numbers of the segment files there are, in order.
    pub numbers: &'a [u32],
    pub from: Option<ReplayFrom>,
}

/// What a replay found.
pub(crate) struct Walked {
    /// Where the log ends; zero if there is no record.
    pub tail: u64,
    /// The segment it ends in.
    pub last: Option<SegmentImage>,
    /// The segments behind that one.
    pub later: Vec<Later>,
    /// D of the legend.
    pub durable_end: u64,
    /// The highest epoch seen, beyond the break too.
    pub epoch: u32,
    /// The last chain value in the log.
    pub chain: ChainPoint,
    /// Blocks before the last segment that only a tail slot had whole: segment, offset, bytes.
    pub repairs: Vec<(u32, u64, Vec<u8>)>,
    pub counts: WalkCounts,
}

/// What a replay counted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct WalkCounts {
    pub segments: u64,
    pub records: u64,
    pub data_records: u64,
    pub data_bytes: u64,
}

/// A segment behind the end of the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Later {
    pub number: u32,
    /// Where what lies in it ends; what is not in use ends with its header.
    pub used_end: u64,
    /// Whether it has a valid header. It is written last, when all else of the segment is durable.
    pub is_headed: bool,
}

impl Later {
    /// Whether anything but a header lies in it.
    pub(crate) fn is_used(&self) -> bool {
        BLOCK_BYTES < self.used_end
    }
}

/// Where the log broke off, for the report.
struct Break {
    file: String,
    offset: u64,
    position: u64,
    missing: bool,
}

impl Walk<'_> {
    /// Hands every record from the start of the first segment on to `visit`, then decides as the table says.
    /// `walked` is filled as far as the replay came, also when it fails.
    pub(crate) fn run(
        &self,
        walked: &mut Walked,
        visit: &mut dyn FnMut(Found<'_>) -> Result<(), OpenError>,
    ) -> Result<(), OpenError> {
        if let Some(from) = self.from {
            walked.durable_end = from.lsn.bytes().max(from.durable_end_hint.map_or(0, Lsn::bytes));
        }
        let (mut overlays, mut spare) = (Vec::new(), Buffer::default());
        let (broken, beyond) =
            std::thread::scope(|scope| self.follow(scope, walked, &mut overlays, &mut spare, visit))?;
        self.look_beyond(walked, beyond, spare)?;
        // A block that was repaired is in the last segment only if the log ends there.
        if let Some(last) = &walked.last {
            walked.repairs.retain(|(number, ..)| *number != last.number);
        }
        self.decide(walked, broken)?;
        self.check_overlays(walked, overlays)
    }

    /// Takes segment after segment up to the break, reading the next one meanwhile. The first one beyond the break comes
    /// back with it, if it was read.
    fn follow<'scope, 'env>(
        &'env self,
        scope: &'scope Scope<'scope, 'env>,
        walked: &mut Walked,
        overlays: &mut Vec<Overlay>,
        spare: &mut Buffer,
        visit: &mut dyn FnMut(Found<'_>) -> Result<(), OpenError>,
    ) -> Result<(Break, Option<SegmentImage>), OpenError> {
        let geometry = self.expected.geometry;
        let mut number = self.from.map_or(1, |from| geometry.segment_ending_at(from.lsn.bytes()).max(1));
        let first = number;
        let mut ahead: Option<ScopedJoinHandle<'_, Result<SegmentImage, OpenError>>> = None;
        loop {
            let next = Break {
                file: segment_path(number),
                offset: HEAD_BYTES,
                position: geometry.first_record(number),
                missing: false,
            };
            if self.numbers.binary_search(&number).is_err() {
                return Ok((Break { missing: true, ..next }, None));
            }
            let image = match ahead.take().map(ScopedJoinHandle::join) {
                Some(Ok(image)) => image?,
                // It could not be started, or panicked: once more, here.
                _ => SegmentImage::load(self.medium, self.expected, number, Buffer::default())?,
            };
            if READ_AHEAD_BYTES_MIN <= geometry.segment_bytes
                && self.numbers.binary_search(&(number + 1)).is_ok()
            {
                let buffer = std::mem::take(spare);
                let load = move || SegmentImage::load(self.medium, self.expected, number + 1, buffer);
                ahead = Builder::new().name("wal-replay".to_owned()).spawn_scoped(scope, load).ok();
            }
            self.check_head(&image)?;
            let Some(start) = self.follows(&image, walked, number == first)? else {
                // Its records, if it has any, are looked at with those beyond the break.
                return Ok((next, Some(image)));
            };
            walked.counts.segments += 1;
            let end = self.parse(&image, start, walked, visit)?;
            let overlay = Overlay::of(&image);
            walked.tail = image.base() + end.offset;
            let previous = walked.last.replace(image);
            if let Some(previous) = previous {
                *spare = previous.bytes;
            }
            if !end.left {
                overlays.extend(overlay);
                let image = walked.last.as_ref().expect("just put there");
                let broken = Break {
                    file: image.path.clone(),
                    offset: end.offset,
                    position: walked.tail,
                    missing: false,
                };
                // One that could not be read is read once more, and the error is told then.
                let beyond = ahead.and_then(|ahead| ahead.join().ok()).and_then(Result::ok);
                return Ok((broken, beyond));
            }
            if let (Some(overlay), Some(image)) = (&overlay, walked.last.as_ref()) {
                let block = overlay.block as usize..(overlay.block + BLOCK_BYTES) as usize;
                walked.repairs.push((number, overlay.block, image.bytes[block].to_vec()));
            }
            overlays.extend(overlay);
            number += 1;
        }
    }

    /// Rows 4 and 8, and by omission 1, 2, 3, 10 and 15.
    fn decide(&self, walked: &Walked, broken: Break) -> Result<(), OpenError> {
        if planted("ignore-durable-end") || walked.durable_end <= walked.tail {
            return Ok(());
        }
        if broken.missing {
            return Err(OpenError::MissingSegment { file: broken.file });
        }
        Err(OpenError::Corrupt {
            file: broken.file,
            offset: broken.offset,
            lsn: position(broken.position),
            durable_end: position(walked.durable_end),
        })
    }

    /// Rows 9 and 11.
    fn check_head(&self, image: &SegmentImage) -> Result<(), OpenError> {
        let damaged = |offset| Err(OpenError::DamagedHead { file: image.path.clone(), offset });
        if image.head.is_none() && image.holds_records(self.expected) {
            return damaged(0);
        }
        if image.head.is_some() && image.slots == [Slot::Damaged; 2] {
            return damaged(SLOT_OFFSETS[0]);
        }
        Ok(())
    }

    /// The SEGMENT record of `image`, if the segment is the continuation of what was replayed so far.
    fn follows(
        &self,
        image: &SegmentImage,
        walked: &Walked,
        first: bool,
    ) -> Result<Option<RecordHead>, OpenError> {
        if image.head.is_none() {
            return Ok(None);
        }
        let Some((head, start)) = image.start(self.expected) else {
            self.refuse_foreign(image, HEAD_BYTES)?;
            return Ok(None);
        };
        let fits = first || (start.prev_end == walked.tail && walked.epoch <= head.epoch);
        Ok(fits.then_some(head))
    }

    /// Where the segment after `image` says that `image` ends, if it says so validly.
    fn limit(&self, image: &SegmentImage, epoch: u32) -> Result<Option<u64>, OpenError> {
        let next = image.number + 1;
        if self.numbers.binary_search(&next).is_err() {
            return Ok(None);
        }
        let start = peek_start(self.medium, self.expected, next)?;
        Ok(start.and_then(|(head, SegmentStart { prev_end, .. })| {
            let inside = self.expected.geometry.first_record(image.number) < prev_end
                && prev_end <= image.base() + image.bytes.len() as u64;
            (inside && epoch <= head.epoch).then(|| prev_end - image.base())
        }))
    }

    fn parse(
        &self,
        image: &SegmentImage,
        start: RecordHead,
        walked: &mut Walked,
        visit: &mut dyn FnMut(Found<'_>) -> Result<(), OpenError>,
    ) -> Result<SegmentEnd, OpenError> {
        let limit = self.limit(image, start.epoch)?;
        let base = image.base();
        walked.epoch = walked.epoch.max(start.epoch);
        for slot in &image.slots {
            if let Slot::Valid(head) = slot {
                walked.durable_end = walked.durable_end.max(head.durable_end.map_or(0, Lsn::bytes));
            }
        }
        let mut offset = HEAD_BYTES;
        loop {
            if Some(offset) == limit || offset == image.bytes.len() as u64 {
                return Ok(SegmentEnd { offset, left: true });
            }
            let head = match RecordHead::decode(&image.bytes[offset as usize..]) {
                Ok(head)
                    if head.lsn.bytes() == base + offset
                        && head.segment == image.number
                        && head.store_id == self.expected.store_id
                        && head.epoch == start.epoch
                        && head.kind != RecordKind::Slot
                        && (head.kind == RecordKind::Segment) == (offset == HEAD_BYTES) =>
                {
                    head
                }
                _ => {
                    self.refuse_foreign(image, offset)?;
                    return Ok(SegmentEnd { offset, left: false });
                }
            };
            let end = offset + u64::from(head.length);
            let found = Found { head, bytes: &image.bytes[offset as usize..end as usize], image };
            walked.durable_end = walked.durable_end.max(head.durable_end.map_or(0, Lsn::bytes));
            walked.counts.records += 1;
            match head.kind {
                RecordKind::Data => {
                    walked.counts.data_records += 1;
                    walked.counts.data_bytes += found.payload().len() as u64;
                }
                RecordKind::Chain => {
                    if let Some(link) = ChainLink::decode(found.payload()) {
                        walked.chain = link.point;
                    }
                }
                RecordKind::Segment => {
                    if let Some(segment) = SegmentStart::decode(found.payload()) {
                        walked.chain = segment.chain;
                    }
                }
                _ => {}
            }
            visit(found)?;
            offset = end;
            if head.kind == RecordKind::Rotate {
                return Ok(SegmentEnd { offset, left: true });
            }
        }
    }

    /// Row 6.
    fn check_overlays(&self, walked: &Walked, overlays: Vec<Overlay>) -> Result<(), OpenError> {
        let complete_once = |overlay: &Overlay| overlay.slot_end < walked.durable_end;
        match overlays.into_iter().find(complete_once) {
            Some(overlay) if !planted("ignore-durable-end") => Err(OpenError::Corrupt {
                file: overlay.path,
                offset: overlay.block,
                lsn: position(overlay.position),
                durable_end: position(walked.durable_end),
            }),
            _ => Ok(()),
        }
    }

    /// Row 13, for records.
    fn refuse_foreign(&self, image: &SegmentImage, offset: u64) -> Result<(), OpenError> {
        match RecordHead::decode(&image.bytes[offset as usize..]) {
            Ok(head) if head.store_id != self.expected.store_id => Err(OpenError::ForeignStore {
                file: image.path.clone(),
                offset,
                found: head.store_id,
                expected: self.expected.store_id,
            }),
            _ => Ok(()),
        }
    }

    /// D and the epoch from everything valid beyond the break.
    fn look_beyond(
        &self,
        walked: &mut Walked,
        mut beyond: Option<SegmentImage>,
        mut spare: Buffer,
    ) -> Result<(), OpenError> {
        let (mut durable_end, mut epoch) = (walked.durable_end, walked.epoch);
        let mut note = |head: &RecordHead| {
            durable_end = durable_end.max(head.durable_end.map_or(0, Lsn::bytes));
            epoch = epoch.max(head.epoch);
        };
        let mut after = 0;
        if let Some(last) = &walked.last {
            last.scan(walked.tail - last.base(), self.expected, &mut note);
            after = last.number;
        }
        for number in self.numbers.iter().copied().filter(|number| after < *number) {
            let image = match beyond.take_if(|image| image.number == number) {
                Some(image) => image,
                None => SegmentImage::load(self.medium, self.expected, number, spare)?,
            };
            let used_end = image.used_end(BLOCK_BYTES);
            let later = Later { number, used_end, is_headed: image.head.is_some() };
            // Most were only prepared: but for their header they hold nothing, and there is nothing to look for.
            if later.is_used() {
                self.check_head(&image)?;
                image.scan(HEAD_BYTES, self.expected, &mut note);
            }
            walked.later.push(later);
            spare = image.bytes;
        }
        (walked.durable_end, walked.epoch) = (durable_end, epoch);
        Ok(())
    }
}

impl Walked {
    pub(crate) fn new() -> Self {
        Self {
            tail: 0,
            last: None,
            later: Vec::new(),
            durable_end: 0,
            epoch: 0,
            chain: ChainPoint::GENESIS,
            repairs: Vec::new(),
            counts: WalkCounts::default(),
        }
    }

    /// The segment that the log goes on in.
    pub(crate) fn next_number(&self) -> u32 {
        self.last.as_ref().map_or(1, |last| last.number + 1)
    }

    /// That segment, if it was prepared and nothing was ever written to it.
    pub(crate) fn prepared(&self) -> Option<u32> {
        let next = self.next_number();
        let is_prepared = |later: &Later| later.number == next && later.is_headed && !later.is_used();
        self.later.iter().any(is_prepared).then_some(next)
    }
}

/// Where the records of a segment end, and whether the log goes on in the next one.
struct SegmentEnd {
    offset: u64,
    left: bool,
}

/// A block whose content in place differed from its slot.
struct Overlay {
    path: String,
    /// Offset of the block.
    block: u64,
    /// The same as a position.
    position: u64,
    /// Up to where the slot holds the log.
    slot_end: u64,
}

impl Overlay {
    fn of(image: &SegmentImage) -> Option<Self> {
        let block = image.overlaid?;
        let ends = image.slots.iter().filter_map(|slot| match slot {
            Slot::Valid(head) => Some(head.lsn.bytes() + u64::from(head.length) - RECORD_HEAD_BYTES),
            _ => None,
        });
        Some(Self {
            path: image.path.clone(),
            block,
            position: image.base() + block,
            slot_end: ends.max().unwrap_or(0),
        })
    }
}
