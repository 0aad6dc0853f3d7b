//! Reading an open log onwards, record by record, up to what is durable.
//!
//! A feed follows the log for months, a report reads a day of it. Both read from memory what is still held
//! there and the rest by `pread`, take no lock that an append takes for longer than a look at the list of held
//! segments, and keep one piece of the log in memory.
//!
//! # Invariants
//! * Nothing at or beyond the end that the caller gives is looked at; the caller gives `durable_end`.
//! * Bytes below the durable end never change, so a piece that was read stays right.
//! * A segment ends where its successor's first record says that it ends, and nowhere else: damage is an error
//!   and never passes for the end of a segment.

use crate::append::position;
use crate::error::ReadError;
use crate::format::{RECORD_HEAD_BYTES, RecordHead, RecordKind, SegmentStart};
use crate::lsn::Lsn;
use crate::replay::Record;
use crate::segment::segment_numbers;
use crate::wal::{Shared, Wal};

/// Read at a time, unless a record is longer.
const PIECE_BYTES: u64 = 256 << 10;

/// A place in the log from which records are read in order.
pub struct Cursor {
    /// Where the record under the cursor begins.
    at: u64,
    /// The segment it lies in.
    segment: u32,
    /// Where the records of that segment end, once its successor has said so.
    segment_end: Option<u64>,
    /// Bytes of the log from `piece_at` on.
    piece: Vec<u8>,
    piece_at: u64,
    /// The length of the record under the cursor, once it was read.
    length: Option<u64>,
}

impl Cursor {
    fn at_segment(shared: &Shared, segment: u32) -> Self {
        let at = shared.geometry.first_record(segment);
        Self { at, segment, segment_end: None, piece: Vec::new(), piece_at: 0, length: None }
    }

    /// The record under the cursor, checked as a whole, of whatever kind; `None` if it begins at or beyond `end`,
    /// a record boundary up to which the log is durable. Stays there until [`Cursor::pass`].
    ///
    /// # Errors
    /// If the medium fails, or what lies there is not the record that belongs there.
    pub fn peek(&mut self, wal: &Wal, end: Lsn) -> Result<Option<Record<'_>>, ReadError> {
        let shared = wal.shared();
        let Some(unchecked) = self.head(shared, end.bytes())? else { return Ok(None) };
        let from = (self.at - self.piece_at) as usize;
        let length = u64::from(unchecked.length);
        let bytes = &self.piece[from..from + length as usize];
        let lsn = position(self.at);
        let head = RecordHead::decode(bytes).map_err(|_| ReadError::Invalid { lsn })?;
        self.length = Some(length);
        Ok(Some(Record {
            lsn,
            payload_lsn: lsn.plus(RECORD_HEAD_BYTES),
            end: position(self.at + length),
            kind: head.kind,
            epoch: head.epoch,
            durable_end: head.durable_end,
            payload: &bytes[RECORD_HEAD_BYTES as usize..],
        }))
    }

    /// Goes behind the record that [`Cursor::peek`] gave last.
    pub fn pass(&mut self) {
        self.at += self.length.take().unwrap_or(0);
    }

    /// Where the next record is looked for.
    #[must_use]
    pub fn lsn(&self) -> Lsn {
        position(self.at)
    }

    /// The head of the record under the cursor, which is in the piece as a whole afterwards; its checksum is not
    /// looked at.
    fn head(&mut self, shared: &Shared, end: u64) -> Result<Option<RecordHead>, ReadError> {
        let last = shared.geometry.segment_ending_at(end);
        let limit = loop {
            if last < self.segment || end <= self.at {
                return Ok(None);
            }
            let limit = match self.segment_end {
                _ if self.segment == last => end,
                Some(segment_end) => segment_end,
                None => *self.segment_end.insert(start_of(shared, self.segment + 1)?),
            };
            if self.at < limit {
                break limit;
            }
            *self =
                Self { piece: std::mem::take(&mut self.piece), ..Self::at_segment(shared, self.segment + 1) };
        };
        let invalid = ReadError::Invalid { lsn: position(self.at) };
        if limit - self.at < RECORD_HEAD_BYTES {
            return Err(invalid);
        }
        self.fill(shared, RECORD_HEAD_BYTES, limit)?;
        let from = (self.at - self.piece_at) as usize;
        let Ok(head) = RecordHead::decode_unchecked(&self.piece[from..]) else { return Err(invalid) };
        let belongs = head.lsn.bytes() == self.at
            && head.store_id == shared.identity.store_id
            && head.segment == self.segment
            && head.kind != RecordKind::Slot
            && u64::from(head.length) <= limit - self.at;
        if !belongs {
            return Err(invalid);
        }
        self.fill(shared, head.length.into(), limit)?;
        Ok(Some(head))
    }

    /// Makes sure that `bytes` bytes from the cursor on are in the piece.
    fn fill(&mut self, shared: &Shared, bytes: u64, limit: u64) -> Result<(), ReadError> {
        let has = self.piece_at <= self.at && self.at + bytes <= self.piece_at + self.piece.len() as u64;
        if has {
            return Ok(());
        }
        let wanted = PIECE_BYTES.max(bytes).min(limit - self.at) as usize;
        self.piece.resize(wanted, 0);
        if bytes <= PIECE_BYTES && self.piece.capacity() > 4 * PIECE_BYTES as usize {
            // After a record of several megabytes.
            self.piece.shrink_to(PIECE_BYTES as usize);
        }
        self.piece_at = self.at;
        if let Err(error) = shared.read_bytes(position(self.at), &mut self.piece) {
            // What is in it now is nothing.
            self.piece.clear();
            return Err(error);
        }
        Ok(())
    }
}

/// Where the segment before `number` ended, by the first record of `number`.
fn start_of(shared: &Shared, number: u32) -> Result<u64, ReadError> {
    let lsn = position(shared.geometry.first_record(number));
    let mut payload = Vec::new();
    let head = shared.read(lsn, &mut payload)?;
    let start = SegmentStart::decode(&payload).filter(|start| {
        head.kind == RecordKind::Segment && shared.geometry.segment_ending_at(start.prev_end) == number - 1
    });
    start.map(|start| start.prev_end).ok_or(ReadError::Invalid { lsn })
}

impl Wal {
    /// The numbers of the first segment that is kept and of the one that holds the byte before `end`.
    ///
    /// # Errors
    /// If the medium cannot list its files.
    pub fn segments(&self, end: Lsn) -> std::io::Result<(u32, u32)> {
        let shared = self.shared();
        let last = shared.geometry.segment_ending_at(end.bytes());
        let first = segment_numbers(&*shared.medium)?.first().copied().unwrap_or(last);
        Ok((first, last))
    }

    /// The segment that holds the byte before `lsn`: the one that a record that ends there lies in.
    #[must_use]
    pub fn segment_before(&self, lsn: Lsn) -> u32 {
        self.shared().geometry.segment_ending_at(lsn.bytes())
    }

    /// A cursor on the first record of a segment that is kept.
    #[must_use]
    pub fn cursor(&self, segment: u32) -> Cursor {
        Cursor::at_segment(self.shared(), segment)
    }

    /// A cursor on the record that begins at `lsn`, which the caller knows to be one's place; that it is none shows
    /// with the first [`Cursor::peek`].
    #[must_use]
    pub fn cursor_at(&self, lsn: Lsn) -> Cursor {
        let shared = self.shared();
        Cursor { at: lsn.bytes(), ..Cursor::at_segment(shared, shared.geometry.locate(lsn.bytes()).0) }
    }

    /// A cursor on the record that holds the byte before `after`, or that follows it, with the epoch of the last
    /// record that begins before `after` in its segment; `None` if that is the segment's first. Reads the segment
    /// from its beginning, so that no position, wherever it comes from, is taken for a record that is none.
    ///
    /// # Errors
    /// As [`Cursor::peek`].
    pub fn cursor_after(&self, after: Lsn, end: Lsn) -> Result<(Cursor, Option<u32>), ReadError> {
        let shared = self.shared();
        let segment = shared.geometry.segment_ending_at(after.bytes());
        let mut cursor = Cursor::at_segment(shared, segment);
        let mut epoch = None;
        while let Some(head) = cursor.head(shared, end.bytes())? {
            if cursor.segment != segment || after.bytes() <= cursor.at {
                break;
            }
            epoch = Some(head.epoch);
            let behind = cursor.at + u64::from(head.length);
            if after.bytes() <= behind {
                break;
            }
            cursor.at = behind;
        }
        Ok((cursor, epoch))
    }
}
