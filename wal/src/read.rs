//! Reading records back while the log is open.
//!
//! From memory as long as the segment is held there, otherwise by `pread` through a kept descriptor:
//! never through a mapping of a file, where a bad sector would end the process instead of this read.

use std::io;
use std::sync::Arc;

use crate::error::ReadError;
use crate::format::{HEAD_BYTES, RECORD_HEAD_BYTES, RecordHead, RecordKind};
use crate::lsn::Lsn;
use crate::medium::{File, Medium};
use crate::segment::{ActiveSegment, segment_path};
use crate::sync::Ordering;
use crate::sync::coarse::Mutex;
use crate::wal::Shared;

/// Descriptors of segments that are not in memory any more, the one used last at the end.
#[derive(Default)]
pub(crate) struct SegmentFiles {
    open: Mutex<Vec<(u32, Arc<dyn File>)>>,
}

impl SegmentFiles {
    /// More are closed again: a store has thousands of segments and a process few descriptors.
    const OPEN_MAX: usize = 64;

    fn of(&self, number: u32, medium: &dyn Medium) -> io::Result<Arc<dyn File>> {
        let mut open = self.open.lock();
        if let Some(index) = open.iter().position(|(kept, _)| *kept == number) {
            let entry = open.remove(index);
            let file = Arc::clone(&entry.1);
            open.push(entry);
            return Ok(file);
        }
        drop(open);
        let file: Arc<dyn File> = Arc::from(medium.open(&segment_path(number))?);
        let mut open = self.open.lock();
        if open.len() == Self::OPEN_MAX {
            open.remove(0);
        }
        open.push((number, Arc::clone(&file)));
        Ok(file)
    }
}

/// The first read of a record: most records are shorter.
const FIRST_READ_BYTES: u64 = 1024;

impl Shared {
    pub(crate) fn read(&self, lsn: Lsn, payload: &mut Vec<u8>) -> Result<RecordHead, ReadError> {
        let invalid = || ReadError::Invalid { lsn };
        let end = self.readable_end(lsn)?;
        let mut known = FIRST_READ_BYTES.min(end - lsn.bytes());
        payload.clear();
        payload.resize(known as usize, 0);
        self.read_bytes(lsn, payload)?;
        let length = u64::from(RecordHead::decode_unchecked(payload).map_err(|_| invalid())?.length);
        if end - lsn.bytes() < length {
            return Err(invalid());
        }
        if known < length {
            payload.resize(length as usize, 0);
            self.read_bytes(lsn.plus(known), &mut payload[known as usize..])?;
            known = length;
        }
        debug_assert!(length <= known);
        let head = RecordHead::decode(payload).map_err(|_| invalid())?;
        let belongs = head.lsn == lsn
            && head.store_id == self.identity.store_id
            && head.segment == self.geometry.locate(lsn.bytes()).0
            && head.kind != RecordKind::Slot;
        if !belongs {
            return Err(invalid());
        }
        payload.truncate(length as usize);
        payload.drain(..RECORD_HEAD_BYTES as usize);
        Ok(head)
    }

    pub(crate) fn read_bytes(&self, lsn: Lsn, buffer: &mut [u8]) -> Result<(), ReadError> {
        let end = self.readable_end(lsn)?;
        if end - lsn.bytes() < buffer.len() as u64 {
            return Err(ReadError::OutOfRange { lsn });
        }
        let (number, offset) = self.geometry.locate(lsn.bytes());
        if let Some(held) = self.held(number) {
            held.segment.memory().with(offset, buffer.len() as u64, |bytes| buffer.copy_from_slice(bytes));
            return Ok(());
        }
        self.files
            .of(number, &*self.medium)
            .and_then(|file| file.read_at(offset, buffer))
            .map_err(|source| ReadError::Io { lsn, source })
    }

    /// How far one may read from `lsn`: to the tail or to the end of the segment. A segment that was left
    /// and is still in memory ends with its last record, however much its file is longer.
    fn readable_end(&self, lsn: Lsn) -> Result<u64, ReadError> {
        let tail = self.tail.load(Ordering::Acquire);
        let (number, offset) = self.geometry.locate(lsn.bytes());
        let mut end = tail.min(self.geometry.base(number).saturating_add(self.geometry.segment_bytes));
        if let Some(held) = self.held(number) {
            end = end.min(held.base + held.segment.memory().published());
        }
        if offset < HEAD_BYTES || end <= lsn.bytes() {
            return Err(ReadError::OutOfRange { lsn });
        }
        Ok(end)
    }

    /// A segment that is in memory.
    fn held(&self, number: u32) -> Option<Arc<ActiveSegment>> {
        self.held.read().iter().find(|held| held.number == number).cloned()
    }
}
