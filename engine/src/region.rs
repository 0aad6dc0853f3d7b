//! Large arrays of atomic words that cost memory only where they were written.
//!
//! A batch of ten million cards and an index over them must neither be zeroed by hand nor become
//! resident before their cards move, and they gain from huge pages. So large regions are anonymous
//! mappings; small ones come from the allocator, because a mapping takes at least a page.

#![allow(unsafe_code)]

use std::ops::Deref;

use memmap2::{Advice, MmapMut};

use crate::sync::AtomicU64;

/// From this many bytes on a region is a mapping of its own.
const MAPPED_BYTES_MIN: usize = 64 << 10;

/// A fixed-length array of words, all zero at first.
pub struct Region(Memory);

enum Memory {
    Mapped(MmapMut, usize),
    Heap(Box<[AtomicU64]>),
}

impl Region {
    /// A region of `len` words.
    ///
    /// # Panics
    /// If the machine has no memory for it, as every allocation does.
    #[must_use]
    pub fn zeroed(len: usize) -> Region {
        let bytes = len.checked_mul(8).expect("region size overflows");
        // loom's and shuttle's atomics are more than a word; they cannot lie in zeroed memory.
        if bytes < MAPPED_BYTES_MIN || cfg!(any(loom, shuttle)) {
            return Region(Memory::Heap((0..len).map(|_| AtomicU64::new(0)).collect()));
        }
        let map = MmapMut::map_anon(bytes).expect("out of memory");
        // Huge pages save most of the TLB misses of random access; without them it works as well.
        let _ = map.advise(Advice::HugePage);
        Region(Memory::Mapped(map, len))
    }
}

impl Deref for Region {
    type Target = [AtomicU64];

    fn deref(&self) -> &[AtomicU64] {
        match &self.0 {
            // SAFETY: the mapping is page-aligned, at least `len * 8` bytes long, lives as long as
            // `self`, was zero-filled by the kernel (a valid `AtomicU64`), and is reachable only through
            // this function, so that every access to it is atomic.
            Memory::Mapped(map, len) => unsafe { std::slice::from_raw_parts(map.as_ptr().cast(), *len) },
            Memory::Heap(words) => words,
        }
    }
}

/// Asks the processor to bring the line that `place` begins in.
#[inline]
pub fn prefetch<T>(place: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing architecturally; the address comes from a live reference.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(
            std::ptr::from_ref(place).cast(),
        );
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::sync::Ordering;

    #[test]
    fn both_kinds_are_zero_and_keep_what_is_stored() {
        for len in [0, 1, 1000, MAPPED_BYTES_MIN / 8, 100_000] {
            let region = Region::zeroed(len);
            assert_eq!(region.len(), len);
            assert!(region.iter().all(|word| word.load(Ordering::Relaxed) == 0));
            if let Some(last) = region.last() {
                prefetch(last);
                last.store(7, Ordering::Relaxed);
                assert_eq!(region[len - 1].load(Ordering::Relaxed), 7);
            }
        }
    }
}
