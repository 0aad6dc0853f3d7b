//! Room in the log, granted before it is used.
//!
//! An append happens under the engine's lock and must neither wait nor fail, so its room is reserved
//! beforehand. The promise is kept by one invariant over all credits together:
//!
//! > everything granted, at its worst cost, fits what is left of the current segment, **or** a ready
//! > segment exists and everything granted fits that one alone.
//!
//! An append that still fits keeps the first half true; one that does not moves to the ready segment
//! and makes the first half true there. The worst cost counts the headers and what the committer may
//! add: it closes a block at most once for more than [`SLOT_DATA_BYTES_MAX`] new bytes and then adds
//! less than [`CLOSE_BYTES_MAX`], so 17/8 of the bytes cover both.

use std::task::{Context, Poll, Waker};

use crate::format::{
    BLOCK_BYTES, CHAIN_RECORD_BYTES, HEAD_BYTES, RECORD_HEAD_BYTES, SEGMENT_RECORD_BYTES, SLOT_DATA_BYTES_MAX,
};
use crate::segment::Geometry;
use crate::sync::{Condvar, Mutex, wait};

/// What closing a block adds at most: a CHAIN record and a PAD of up to a block and a header.
pub(crate) const CLOSE_BYTES_MAX: u64 = CHAIN_RECORD_BYTES + BLOCK_BYTES + RECORD_HEAD_BYTES;

const _: () = assert!(CLOSE_BYTES_MAX * 8 <= (SLOT_DATA_BYTES_MAX + 8) * 9);

/// Kept free at the end of a segment: one close of everything appended before the grant, and a last
/// header.
const MARGIN_BYTES: u64 = CLOSE_BYTES_MAX + RECORD_HEAD_BYTES;

/// Why there is no room now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoSpace {
    /// The next segment is not ready, or others hold all of it. It will be soon.
    #[error("the log is busy preparing its next segment")]
    Busy,
    /// The disk has no room for the next segment. Tried again all the time; heals when room returns.
    #[error("the disk is full")]
    DiskFull,
    /// The log is dead: see [`Poisoned`](crate::Poisoned).
    #[error("the log is poisoned")]
    Poisoned,
    /// More than one segment can ever grant.
    #[error("more than the log can grant at once")]
    TooLarge,
}

/// The room there is, and what of it was granted.
pub(crate) struct Space {
    geometry: Geometry,
    /// Offset of the tail in the current segment.
    offset: u64,
    ready: usize,
    /// The worst cost of all credits not used yet.
    granted: u64,
    /// Whether the last attempt to prepare a segment found the disk full.
    disk_full: bool,
}

/// What an append of `payload` bytes costs at worst.
pub(crate) fn cost(payload: u64) -> u64 {
    (payload.next_multiple_of(8) + RECORD_HEAD_BYTES) * 17 / 8
}

impl Space {
    pub(crate) fn new(geometry: Geometry, offset: u64) -> Self {
        Self { geometry, offset, ready: 0, granted: 0, disk_full: false }
    }

    /// Grants `cost`.
    pub(crate) fn grant(&mut self, cost: u64) -> Result<(), NoSpace> {
        let whole = self.geometry.segment_bytes - HEAD_BYTES - SEGMENT_RECORD_BYTES - MARGIN_BYTES;
        if whole < cost {
            return Err(NoSpace::TooLarge);
        }
        let granted = self.granted + cost;
        let fits_current = self.offset + MARGIN_BYTES + granted <= self.geometry.segment_bytes;
        let fits_ready = self.ready != 0 && granted <= whole;
        if fits_current || fits_ready {
            self.granted = granted;
            Ok(())
        } else if self.disk_full && self.ready == 0 {
            Err(NoSpace::DiskFull)
        } else {
            Err(NoSpace::Busy)
        }
    }

    /// Whether it is worth asking for room: there is some, or waiting for it is no use.
    pub(crate) fn is_settled(&self) -> bool {
        let used = self.offset + MARGIN_BYTES + self.granted;
        let roomy = used + self.geometry.segment_bytes / 8 <= self.geometry.segment_bytes;
        self.ready != 0 || roomy || self.disk_full
    }

    /// Gives back what was granted and not used.
    pub(crate) fn give_back(&mut self, cost: u64) {
        self.granted -= cost;
    }

    /// An append used `cost` of what was granted; the tail is at `offset` now.
    pub(crate) fn used(&mut self, cost: u64, offset: u64) {
        self.granted -= cost;
        self.offset = offset;
    }

    /// The tail moved to `offset` without a credit: the committer closed a block.
    pub(crate) fn moved(&mut self, offset: u64) {
        self.offset = offset;
    }

    /// The current segment was left for a ready one.
    pub(crate) fn rotated(&mut self, offset: u64) {
        self.offset = offset;
        self.ready -= 1;
    }

    pub(crate) fn prepared(&mut self) {
        self.ready += 1;
        self.disk_full = false;
    }

    pub(crate) fn found_disk_full(&mut self) {
        self.disk_full = true;
    }
}

/// Those who wait for room. The preparer tells them whenever it has made a segment or cannot: there is
/// no room only while a segment is being prepared, or until the next commit gives memory back for one, and whoever
/// appended asks for that before anybody waits. So nobody waits in vain.
#[derive(Default)]
pub(crate) struct SpaceWaiters {
    wakers: Mutex<Vec<Waker>>,
    changed: Condvar,
}

impl SpaceWaiters {
    pub(crate) fn notify(&self) {
        let wakers = std::mem::take(&mut *self.wakers.lock());
        self.changed.notify_all();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Blocks until `settled`.
    pub(crate) fn wait(&self, settled: impl Fn() -> bool) {
        let mut wakers = self.wakers.lock();
        while !settled() {
            wait(&self.changed, &mut wakers, None);
        }
    }

    pub(crate) fn poll(&self, settled: impl Fn() -> bool, context: &Context<'_>) -> Poll<()> {
        let mut wakers = self.wakers.lock();
        if settled() {
            return Poll::Ready(());
        }
        wakers.push(context.waker().clone());
        Poll::Pending
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const GEOMETRY: Geometry = Geometry { segment_bytes: 65536 };

    #[test]
    fn without_a_ready_segment_only_the_current_one_is_granted() {
        let mut space = Space::new(GEOMETRY, HEAD_BYTES);
        space.grant(20_000).unwrap();
        space.grant(20_000).unwrap();
        assert_eq!(space.grant(20_000), Err(NoSpace::Busy));
        space.found_disk_full();
        assert_eq!(space.grant(20_000), Err(NoSpace::DiskFull));
        space.give_back(20_000);
        space.grant(20_000).unwrap();
        assert_eq!(space.grant(60_000), Err(NoSpace::TooLarge));
    }

    #[test]
    fn a_ready_segment_grants_when_the_current_one_is_nearly_full() {
        let mut space = Space::new(GEOMETRY, 60_000);
        assert_eq!(space.grant(20_000), Err(NoSpace::Busy));
        space.prepared();
        space.grant(20_000).unwrap();
    }

    #[test]
    fn the_longest_record_can_be_granted() {
        let longest = GEOMETRY.record_bytes_max() - RECORD_HEAD_BYTES;
        Space::new(GEOMETRY, HEAD_BYTES + SEGMENT_RECORD_BYTES).grant(cost(longest)).unwrap();
    }
}
