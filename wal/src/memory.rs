//! The memory of a log segment: written in place by one appender, read at the same time by the
//! committer and by readers.
//!
//! It is one of the few files with `unsafe`, so the whole argument stands here:
//! * The memory is a private mapping that lives as long as the [`SegmentMemory`]; nobody else keeps a
//!   reference into it.
//! * `published` splits the record area. Bytes below it never change again and are handed out as
//!   shared slices; bytes at or above it are reached only through the one [`WriteToken`], borrowed
//!   exclusively. So no byte is ever reachable both ways. `published` only grows, is stored with
//!   `Release` and loaded with `Acquire`: whoever sees it sees the bytes below it.
//! * The head (segment header and tail slots) lies outside the record area and is reached only under
//!   its own lock.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::mem::ManuallyDrop;
use std::sync::Arc;

use memmap2::{Advice, MmapMut, MmapOptions};
use parking_lot::Mutex as PoolMutex;

use crate::format::HEAD_BYTES;
use crate::planted::planted;
use crate::sync::{AtomicU64, Mutex, Ordering};

/// The memory of one segment, as long as the segment's file.
pub struct SegmentMemory {
    start: *mut u8,
    bytes: u64,
    /// Everything from the end of the head up to here is complete and never changes again.
    published: AtomicU64,
    /// The right to touch the head.
    head: Mutex<Head>,
    map: ManuallyDrop<MmapMut>,
    home: Option<Arc<MemoryPool>>,
    #[cfg(loom)]
    cells: Vec<loom::cell::UnsafeCell<()>>,
}

struct Head {
    token_taken: bool,
}

// SAFETY: `start` points into `map`, which is owned and may be used from any thread; the accesses are
// kept apart as the module documentation says.
unsafe impl Send for SegmentMemory {}
// SAFETY: as above; every access through a shared reference is either below `published`, where nothing
// changes, or under the head's lock, or needs the token exclusively.
unsafe impl Sync for SegmentMemory {}

/// The right to write above the published part of one [`SegmentMemory`]. There is one per memory.
pub struct WriteToken {
    start: *mut u8,
}

// SAFETY: the pointer is only compared, never followed.
unsafe impl Send for WriteToken {}
// SAFETY: as above.
unsafe impl Sync for WriteToken {}

/// Anonymous memory of `bytes` bytes that was touched: in huge pages where the machine has them, as the log's tail
/// runs through it at gigabytes a second.
pub(crate) fn touched(bytes: u64) -> io::Result<MmapMut> {
    let length = usize::try_from(bytes).map_err(|_| io::ErrorKind::InvalidInput)?;
    let map = MmapOptions::new().len(length).map_anon()?;
    // Neither is more than advice: without them it works as well, a little slower.
    let _ = map.advise(Advice::HugePage);
    touch(&map, Advice::PopulateWrite);
    Ok(map)
}

/// Has the kernel make `map` present, in small steps. It keeps the process's map of memory locked for a step: another thread
/// whose allocator asks for memory would wait for all of it, up to 150 ms of the only processor for a segment.
fn touch(map: &MmapMut, populate: Advice) {
    const STEP_BYTES: usize = 2 << 20;
    for from in (0..map.len()).step_by(STEP_BYTES) {
        // No more than advice either.
        let _ = map.advise_range(populate, from, STEP_BYTES.min(map.len() - from));
    }
}

impl SegmentMemory {
    /// Fresh anonymous memory of `bytes` bytes, touched beforehand so that appending meets no page fault.
    pub fn anonymous(bytes: u64) -> io::Result<Self> {
        Ok(Self::over(touched(bytes)?, None))
    }

    /// Anonymous memory that goes back to `pool` when it is dropped.
    pub fn pooled(pool: &Arc<MemoryPool>, bytes: u64) -> io::Result<Self> {
        let recycled = pool.take(bytes);
        let map = match recycled {
            Some(map) => map,
            None => touched(bytes)?,
        };
        Ok(Self::over(map, Some(Arc::clone(pool))))
    }

    /// The file itself, mapped shared. Every block of it must really be allocated: a write into a hole
    /// on a full disk would end the process.
    pub fn of_file(file: &File, bytes: u64) -> io::Result<Self> {
        if file.metadata()?.len() < bytes {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let length = usize::try_from(bytes).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: the store's lock keeps other processes of ours away from the file, and nothing here
        // truncates a segment. A foreign process that writes into it breaks what no type can protect.
        let map = unsafe { MmapOptions::new().len(length).map_mut(file)? };
        touch(&map, Advice::PopulateRead);
        Ok(Self::over(map, None))
    }

    fn over(mut map: MmapMut, home: Option<Arc<MemoryPool>>) -> Self {
        let bytes = map.len() as u64;
        assert!(HEAD_BYTES < bytes, "a segment is longer than its head");
        Self {
            start: map.as_mut_ptr(),
            bytes,
            published: AtomicU64::new(HEAD_BYTES),
            head: Mutex::new(Head { token_taken: false }),
            map: ManuallyDrop::new(map),
            home,
            #[cfg(loom)]
            cells: (HEAD_BYTES / 8..bytes.div_ceil(8)).map(|_| loom::cell::UnsafeCell::new(())).collect(),
        }
    }

    /// How long the memory, and the segment's file, is.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The offset up to which records are complete; they never change again.
    #[must_use]
    pub fn published(&self) -> u64 {
        self.published.load(Ordering::Acquire)
    }

    /// Hands `offset .. offset + len` to `use_bytes`. The range lies either in the head or in the
    /// published part of the record area.
    ///
    /// # Panics
    /// If the range reaches beyond either.
    pub fn with<R>(&self, offset: u64, len: u64, use_bytes: impl FnOnce(&[u8]) -> R) -> R {
        let end = offset.checked_add(len).expect("a range of a segment");
        if offset < HEAD_BYTES {
            assert!(end <= HEAD_BYTES, "a range crosses the end of the head");
            let _head = self.head.lock();
            // SAFETY: inside the mapping, and the head is only touched under the lock held here.
            use_bytes(unsafe { std::slice::from_raw_parts(self.start.add(offset as usize), len as usize) })
        } else {
            assert!(end <= self.published(), "a range reaches beyond what is published");
            #[cfg(loom)]
            for cell in self.cells(offset, end) {
                cell.with(|_| ());
            }
            // SAFETY: inside the mapping and below `published`: complete, and never written again.
            use_bytes(unsafe { std::slice::from_raw_parts(self.start.add(offset as usize), len as usize) })
        }
    }

    /// Writes `parts` one after the other into the head from `offset`, and zeros up to `offset + len`.
    ///
    /// # Panics
    /// If that reaches beyond the head or `parts` are longer than `len`.
    pub(crate) fn write_head(&self, offset: u64, len: u64, parts: &[&[u8]]) {
        assert!(offset + len <= HEAD_BYTES, "a range reaches beyond the head");
        let _head = self.head.lock();
        // SAFETY: inside the mapping, and the head is only touched under the lock held here.
        let mut room =
            unsafe { std::slice::from_raw_parts_mut(self.start.add(offset as usize), len as usize) };
        for part in parts {
            let (here, rest) = room.split_at_mut(part.len());
            here.copy_from_slice(part);
            room = rest;
        }
        room.fill(0);
    }

    /// The right to write records, given out once.
    pub(crate) fn take_token(&self) -> Option<WriteToken> {
        let mut head = self.head.lock();
        if head.token_taken {
            return None;
        }
        head.token_taken = true;
        Some(WriteToken { start: self.start })
    }

    /// The next `len` bytes above the published part. What they hold is unspecified: memory is reused.
    ///
    /// # Panics
    /// If the segment has no such room, or the token belongs to other memory.
    pub(crate) fn above<'a>(&'a self, token: &'a mut WriteToken, len: u64) -> &'a mut [u8] {
        assert!(token.start == self.start, "the token belongs to other memory");
        // Only the holder of the token moves `published`, so its own view of it is current.
        let from = self.published.load(Ordering::Relaxed);
        assert!(from + len <= self.bytes, "a record reaches beyond its segment");
        #[cfg(loom)]
        for cell in self.cells(from, from + len) {
            cell.with_mut(|_| ());
        }
        // SAFETY: inside the mapping, at or above `published`, and the only token is borrowed for as
        // long as the slice lives.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(from as usize), len as usize) }
    }

    /// What loom watches in place of the bytes `from..to`.
    #[cfg(loom)]
    fn cells(&self, from: u64, to: u64) -> &[loom::cell::UnsafeCell<()>] {
        &self.cells[((from - HEAD_BYTES) / 8) as usize..((to - HEAD_BYTES).div_ceil(8)) as usize]
    }

    /// Declares the next `len` bytes complete. They never change again.
    pub(crate) fn publish(&self, token: &mut WriteToken, len: u64) {
        assert!(token.start == self.start, "the token belongs to other memory");
        let from = self.published.load(Ordering::Relaxed);
        assert!(from + len <= self.bytes, "a record reaches beyond its segment");
        let order = if planted("relaxed-publication") { Ordering::Relaxed } else { Ordering::Release };
        self.published.store(from + len, order);
    }

    /// Writes the range back to the file the memory maps, and waits for the device.
    pub(crate) fn flush(&self, offset: u64, len: u64) -> io::Result<()> {
        self.map.flush_range(offset as usize, len as usize)
    }
}

impl Drop for SegmentMemory {
    fn drop(&mut self) {
        // SAFETY: `map` is not used again.
        let map = unsafe { ManuallyDrop::take(&mut self.map) };
        if let Some(home) = self.home.take() {
            home.put(map);
        }
    }
}

/// Segment memory waiting to be used again: mapping and touching 64 MiB costs more than writing it.
#[derive(Default)]
pub struct MemoryPool {
    maps: PoolMutex<Vec<MmapMut>>,
}

impl MemoryPool {
    /// More than this is given back to the system.
    const MAPS_MAX: usize = 3;

    fn take(&self, bytes: u64) -> Option<MmapMut> {
        let mut maps = self.maps.lock();
        let index = maps.iter().position(|map| map.len() as u64 == bytes)?;
        Some(maps.swap_remove(index))
    }

    fn put(&self, map: MmapMut) {
        let mut maps = self.maps.lock();
        if maps.len() < Self::MAPS_MAX {
            maps.push(map);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn published_bytes_are_read_and_the_rest_is_not() {
        let memory = SegmentMemory::anonymous(65536).unwrap();
        let mut token = memory.take_token().unwrap();
        assert!(memory.take_token().is_none());
        memory.above(&mut token, 8).copy_from_slice(b"complete");
        memory.publish(&mut token, 8);
        memory.with(HEAD_BYTES, 8, |bytes| assert_eq!(bytes, b"complete"));
        assert!(
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| memory.with(HEAD_BYTES, 9, |_| ())))
                .is_err()
        );
    }

    #[test]
    fn memory_is_reused() {
        let pool = Arc::new(MemoryPool::default());
        let first = SegmentMemory::pooled(&pool, 65536).unwrap().start;
        assert_eq!(SegmentMemory::pooled(&pool, 65536).unwrap().start, first);
    }
}
