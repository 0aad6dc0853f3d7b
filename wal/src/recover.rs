//! Recovery: puts in order what a crash left behind, then starts a new segment.
//!
//! The steps, in this order. Each can be cut short by another crash at any point: running them again
//! gives the same log, because nothing is changed that the decision rests on until what it stands for
//! is durable elsewhere.
//! 0. What may have been in memory is synced and read from the device (see [`File::settle`](crate::File::settle)).
//! 1. Replay decides where the log ends (see [`replay`](crate::replay)); nothing is changed before.
//! 2. What lies beyond the end is copied into `quarantine/`, synced. Nothing there is overwritten, ever.
//! 3. Blocks that only a tail slot had whole are written in place, the rest of the segment is zeroed;
//!    synced. Everything acknowledged in such a block is in the slot, so a torn write loses nothing.
//! 4. Later segments are removed, the directory synced. The next one stays if it was prepared and nothing was ever
//!    written to it.
//! 5. That one is taken, its header written once more; or, if there is none or the medium cannot vouch for it, it is
//!    removed and the next segment made. Its first record names the end of the log, so nothing behind that
//!    end is ever taken for part of the log again. It is durable before the log is used.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io;

use crate::append::position;
use crate::buffer::Buffer;
use crate::chain::{Chain, ChainPoint};
use crate::error::OpenError;
use crate::format::{BLOCK_BYTES, HEAD_BYTES, RecordKind};
use crate::image::{Expected, SegmentImage, peek_head};
use crate::lsn::Lsn;
use crate::medium::{CommitPath, Medium};
use crate::planted::planted;
use crate::replay::{Record, ReplayFrom, Walk, Walked};
use crate::segment::{
    Geometry, LOG_DIR, QUARANTINE_DIR, ReadySegment, create, reuse, segment_numbers, segment_path,
};
use crate::wal::WalOptions;

/// What opening a log found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Recovered {
    /// The store the log belongs to.
    pub store_id: u64,
    /// The length of its segment files.
    pub segment_bytes: u64,
    /// The epoch that begins now.
    pub epoch: u32,
    /// Where the log ended, or `None` for a new one.
    pub tail: Option<Lsn>,
    /// How far it was known to be durable.
    pub durable_end: Option<Lsn>,
    /// DATA records replayed.
    pub records: u64,
    /// Their payload bytes.
    pub bytes: u64,
    /// Files in which bytes beyond the end were put aside.
    pub quarantined: Vec<String>,
    /// The chain value over everything up to the tail.
    pub chain: ChainPoint,
}

/// The opening of a log.
pub(crate) struct Recovery<'a> {
    pub medium: &'a dyn Medium,
    pub options: &'a WalOptions,
    pub from: Option<ReplayFrom>,
}

type Refusal = Box<dyn std::error::Error + Send + Sync>;
type Visit<'a> = dyn FnMut(Record<'_>) -> Result<(), Refusal> + 'a;

impl Recovery<'_> {
    /// `agree` is asked when all was replayed and before anything is changed.
    pub(crate) fn run(
        &self,
        visit: &mut Visit<'_>,
        agree: &mut dyn FnMut() -> Result<(), Refusal>,
    ) -> Result<(Recovered, ReadySegment), OpenError> {
        self.medium.create_dir(LOG_DIR).map_err(OpenError::io("making a directory", LOG_DIR))?;
        let numbers = segment_numbers(self.medium).map_err(OpenError::io("listing", LOG_DIR))?;
        self.settle(&numbers)?;
        let expected = identify(self.medium, self.options, &numbers)?;
        let mut walked = Walked::new();
        let walk = Walk { medium: self.medium, expected, numbers: &numbers, from: self.from };
        let from = self.from.map_or(0, |from| from.lsn.bytes());
        walk.run(&mut walked, &mut |found| {
            if found.head.kind != RecordKind::Data || found.head.lsn.bytes() < from {
                return Ok(());
            }
            let lsn = found.head.lsn;
            visit(found.record()).map_err(|source| OpenError::Refused { lsn, source })
        })?;

        if let Some(lsn) = Lsn::from_bytes(walked.tail) {
            agree().map_err(|source| OpenError::Refused { lsn, source })?;
        }
        let mut quarantined = Vec::new();
        self.cut(&mut walked, expected, &mut quarantined)?;
        self.sync_from(&walked, expected.geometry)?;
        let chain = self.chain_to_tail(&walked, expected.geometry)?;
        let first = self.next_segment(&walked, expected)?;
        let recovered = Recovered {
            store_id: expected.store_id,
            segment_bytes: expected.geometry.segment_bytes,
            epoch: (walked.epoch + u32::from(!planted("reuse-epoch"))).max(self.options.epoch_min),
            tail: Lsn::from_bytes(walked.tail),
            durable_end: Lsn::from_bytes(walked.durable_end),
            records: walked.counts.data_records,
            bytes: walked.counts.data_bytes,
            quarantined,
            chain,
        };
        Ok((recovered, first))
    }

    /// Before anything is read: the segments that may have been in memory when the last process ended come from
    /// the device. A write-back that failed left the system with bytes that the device does not have, and what is
    /// handed on as durable must be durable. Direct writes leave nothing in any cache.
    fn settle(&self, numbers: &[u32]) -> Result<(), OpenError> {
        if self.medium.commit_path() == CommitPath::Direct || planted("believe-the-page-cache") {
            return Ok(());
        }
        // Held and ready ones, with room for a process that was told to keep more of them.
        let newest = (1 + 3 * self.options.ready_segments).max(16);
        for number in numbers.iter().rev().take(newest) {
            let path = segment_path(*number);
            let file = self.medium.open(&path).map_err(OpenError::io("opening a segment", &path))?;
            file.settle().map_err(OpenError::io("syncing a segment", &path))?;
        }
        Ok(())
    }

    /// Steps 2 to 4.
    fn cut(
        &self,
        walked: &mut Walked,
        expected: Expected,
        quarantined: &mut Vec<String>,
    ) -> Result<(), OpenError> {
        if let Some(last) = &walked.last {
            let tail = walked.tail - last.base();
            let used = last.used_end(tail);
            if tail < used && !planted("throw-the-tail-away") {
                self.quarantine(last, tail, used, walked.tail, quarantined)?;
            }
        }
        for later in walked.later.iter().filter(|later| later.is_used()) {
            let image = SegmentImage::load(self.medium, expected, later.number, Buffer::default())?;
            self.quarantine(&image, BLOCK_BYTES, later.used_end, walked.tail, quarantined)?;
        }

        for (number, block, bytes) in &walked.repairs {
            self.write(&segment_path(*number), &[(*block, bytes)])?;
        }
        if let Some(last) = &mut walked.last {
            let tail = walked.tail - last.base();
            let used = last.used_end(tail);
            let overlaid = last.overlaid;
            last.bytes[tail as usize..].fill(0);
            let mut ranges = Vec::new();
            if let Some(block) = overlaid {
                ranges.push((block, &last.bytes[block as usize..(block + BLOCK_BYTES) as usize]));
            }
            if tail < used {
                // A whole block at a time, so that an unreadable sector becomes readable again.
                let from = tail / BLOCK_BYTES * BLOCK_BYTES;
                let to = used.next_multiple_of(BLOCK_BYTES);
                ranges.push((from, &last.bytes[from as usize..to as usize]));
            }
            if !ranges.is_empty() {
                self.write(&last.path, &ranges)?;
            }
        }

        let prepared = walked.prepared();
        for later in walked.later.iter().rev().filter(|later| Some(later.number) != prepared) {
            self.remove(later.number)?;
        }
        if !walked.later.is_empty() {
            self.medium.sync_dir(LOG_DIR).map_err(OpenError::io("syncing a directory", LOG_DIR))?;
        }
        Ok(())
    }

    fn remove(&self, number: u32) -> Result<(), OpenError> {
        let path = segment_path(number);
        self.medium.remove(&path).map_err(OpenError::io("removing a segment", &path))
    }

    /// Step 5.
    fn next_segment(&self, walked: &Walked, expected: Expected) -> Result<ReadySegment, OpenError> {
        let Expected { geometry, store_id } = expected;
        let number = walked.next_number();
        let making = |error| OpenError::io("making a segment", &segment_path(number))(error);
        if walked.prepared().is_some() {
            if let Some(ready) = reuse(self.medium, geometry, store_id, number).map_err(making)? {
                return Ok(ready);
            }
            self.remove(number)?;
        }
        create(self.medium, geometry, store_id, number).map_err(making)
    }

    fn write(&self, path: &str, ranges: &[(u64, impl AsRef<[u8]>)]) -> Result<(), OpenError> {
        let file = self.medium.open(path).map_err(OpenError::io("opening a segment", path))?;
        for (offset, bytes) in ranges {
            file.write_at(*offset, bytes.as_ref()).map_err(OpenError::io("writing a segment", path))?;
        }
        file.sync().map_err(OpenError::io("syncing a segment", path))
    }

    /// Copies bytes `from..to` of a segment into a new file.
    fn quarantine(
        &self,
        image: &SegmentImage,
        from: u64,
        to: u64,
        tail: u64,
        quarantined: &mut Vec<String>,
    ) -> Result<(), OpenError> {
        let dir = QUARANTINE_DIR;
        self.medium.create_dir(dir).map_err(OpenError::io("making a directory", dir))?;
        let mut attempt = 0;
        let (path, file) = loop {
            let path = format!("{dir}/{:010}-{from:010}-after-{tail}.{attempt}", image.number);
            match self.medium.create(&path) {
                Ok(file) => break (path, file),
                // Left by a recovery that was cut short; it may hold more than is left now.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => attempt += 1,
                Err(error) => return Err(OpenError::io("making a file", &path)(error)),
            }
        };
        file.write_at(0, &image.bytes[from as usize..to as usize])
            .and_then(|()| file.sync())
            .and_then(|()| self.medium.sync_dir(dir))
            .map_err(OpenError::io("writing a file", &path))?;
        quarantined.push(path);
        Ok(())
    }

    /// Syncs every segment that may hold bytes which are read now but lie only in the page cache: a
    /// killed process leaves those behind. What is handed on as durable must be durable.
    fn sync_from(&self, walked: &Walked, geometry: Geometry) -> Result<(), OpenError> {
        let Some(last) = &walked.last else { return Ok(()) };
        let known = self.from.map_or(1, |from| geometry.segment_ending_at(from.lsn.bytes()).max(1));
        let first = geometry.segment_ending_at(walked.durable_end).clamp(known.min(last.number), last.number);
        for number in first..=last.number {
            let path = segment_path(number);
            let file = self.medium.open(&path).map_err(OpenError::io("opening a segment", &path))?;
            file.sync().map_err(OpenError::io("syncing a segment", &path))?;
        }
        Ok(())
    }

    /// The chain value over everything up to the tail.
    fn chain_to_tail(&self, walked: &Walked, geometry: Geometry) -> Result<ChainPoint, OpenError> {
        if walked.last.is_none() {
            return Ok(ChainPoint::GENESIS);
        }
        let mut chain = Chain::from(walked.chain);
        let mut at = walked.chain.to;
        let mut number = geometry.segment_ending_at(at).max(1);
        let last = geometry.segment_ending_at(walked.tail);
        let mut buffer = Vec::new();
        while number <= last {
            let end = if number == last {
                walked.tail
            } else {
                let next = crate::image::peek_start(
                    self.medium,
                    Expected { geometry, store_id: walked.last.as_ref().map_or(0, SegmentImage::store_id) },
                    number + 1,
                )?;
                next.map_or(0, |(_, start)| start.prev_end)
            };
            at = at.max(geometry.first_record(number));
            if at < end {
                let path = segment_path(number);
                buffer.resize((end - at) as usize, 0);
                let file = self.medium.open(&path).map_err(OpenError::io("opening a segment", &path))?;
                file.read_at(at - geometry.base(number), &mut buffer)
                    .map_err(OpenError::io("reading a segment", &path))?;
                chain.add(&buffer);
            }
            number += 1;
        }
        Ok(chain.close(position(walked.tail).bytes()))
    }
}

/// Finds out whose log it is: from the first valid segment header, or from the options for a new log.
pub(crate) fn identify(
    medium: &dyn Medium,
    options: &WalOptions,
    numbers: &[u32],
) -> Result<Expected, OpenError> {
    for number in numbers {
        if let Some(head) = peek_head(medium, *number)? {
            let expected = options.store_id.unwrap_or(head.store_id);
            if head.store_id != expected {
                return Err(OpenError::ForeignStore {
                    file: segment_path(*number),
                    offset: 0,
                    found: head.store_id,
                    expected,
                });
            }
            let geometry = Geometry { segment_bytes: head.segment_bytes };
            return Ok(Expected { geometry, store_id: head.store_id });
        }
    }
    // No header is whole. A crash while the first segment was being prepared leaves no record either.
    let expected = Expected {
        geometry: Geometry { segment_bytes: options.segment_bytes },
        store_id: options.store_id.unwrap_or_else(random_id),
    };
    for number in numbers {
        let image = SegmentImage::load(medium, expected, *number, Buffer::default())?;
        if image.holds_any_record(HEAD_BYTES) {
            return Err(OpenError::DamagedHead { file: image.path, offset: 0 });
        }
    }
    Ok(expected)
}

/// An id that no other store has, from the seed that the standard library draws from the system.
fn random_id() -> u64 {
    RandomState::new().build_hasher().finish()
}
