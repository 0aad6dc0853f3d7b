//! Memory to read whole segments into.
//!
//! A segment is tens of megabytes. Taken from the allocator, each of its pages would be faulted in by itself, which takes
//! longer than reading it from a fast disk. So it is a mapping in huge pages where the machine has them, aligned for reads
//! past the page cache, and kept from one segment to the next.

use std::io;
use std::ops::{Deref, DerefMut};

use memmap2::MmapMut;

use crate::memory::touched;

/// Room for a segment; none at first.
#[derive(Debug, Default)]
pub struct Buffer {
    map: Option<MmapMut>,
    len: usize,
}

impl Buffer {
    /// Makes it `len` bytes long. What they hold is unspecified.
    ///
    /// # Errors
    /// If there is no memory.
    pub(crate) fn set_len(&mut self, len: u64) -> io::Result<()> {
        if self.map.as_ref().is_none_or(|map| (map.len() as u64) < len) {
            // Before there is new memory, so that there is never twice as much.
            self.map = None;
            self.map = Some(touched(len)?);
        }
        self.len = len as usize;
        Ok(())
    }

    /// Leaves out all but the first `len` bytes.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.map.as_ref().map_or(&[], |map| &map[..self.len])
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        let len = self.len;
        self.map.as_mut().map_or(&mut [], |map| &mut map[..len])
    }
}
