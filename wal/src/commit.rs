//! The committer: makes what was appended durable, one write at a time, in order.
//!
//! Let B be the start of the first block that was not written in place yet (the *open* block).
//! * What fits a tail slot is written there: header and the bytes from B to the tail. The block stays
//!   open, and a lone small commit costs one block and no padding.
//! * More than that is closed: a CHAIN record, a PAD up to a block boundary, then everything from B is
//!   written in place, once.
//! * A segment that was left is written to its end before anything of the next one.
//!
//! Invariants:
//! * A block that holds acknowledged bytes is never written again: not in place, and the slot written
//!   is never the one written last. At any time the slot written last, or the blocks in place, hold
//!   everything acknowledged, so a write that tears destroys nothing.
//! * `durable_end` moves only after the write that covers it has returned.
//! * After one failed write nothing is ever written or acknowledged again.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use crate::append::{Appender, Identity, position};
use crate::chain::Chain;
use crate::durable::Poisoned;
use crate::format::{
    BLOCK_BYTES, HEAD_BYTES, RECORD_HEAD_BYTES, RecordHead, RecordKind, SLOT_DATA_BYTES_MAX, SLOT_OFFSETS,
};
use crate::histogram::Histogram;
use crate::lsn::Lsn;
use crate::planted::planted;
use crate::segment::ActiveSegment;
use crate::sync::{AtomicU64, Ordering};
use crate::wal::Shared;

/// The committer's own state.
pub(crate) struct Committer {
    identity: Identity,
    segment: Arc<ActiveSegment>,
    /// Offset of the open block.
    open_block: u64,
    /// Offset up to which the chain has taken the segment in.
    hashed: u64,
    chain: Chain,
    /// Which slot the next slot write goes to.
    slot: usize,
    /// Whether a header that lies in another block covers everything acknowledged.
    sealed: bool,
}

/// What the committer has done. Apart from its state, so that reading it waits for no write.
pub(crate) struct CommitCounts {
    pub slot_commits: AtomicU64,
    pub bytes: AtomicU64,
    /// Bytes a write.
    pub write_bytes: Histogram,
    /// Microseconds a write took. Its count is that of the commits.
    pub write_us: Histogram,
}

impl CommitCounts {
    pub(crate) fn new() -> Self {
        Self {
            slot_commits: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            write_bytes: Histogram::new(12),
            write_us: Histogram::new(4),
        }
    }

    fn count(&self, slots: u64, bytes: u64, begun: Instant) {
        self.write_bytes.add(bytes, 1);
        self.write_us.add(begun.elapsed().as_micros() as u64, 1);
        self.slot_commits.fetch_add(slots, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Committer {
    pub(crate) fn begin(identity: Identity, segment: Arc<ActiveSegment>, chain: Chain) -> Self {
        Self { identity, segment, open_block: HEAD_BYTES, hashed: HEAD_BYTES, chain, slot: 0, sealed: false }
    }

    /// Takes the segment's bytes up to `offset` into the chain.
    fn hash_to(&mut self, offset: u64) {
        let chain = &mut self.chain;
        self.segment.segment.memory().with(self.hashed, offset - self.hashed, |bytes| chain.add(bytes));
        self.hashed = offset;
    }

    /// Writes the open blocks up to `end`, a block boundary, in place.
    fn write_in_place(&mut self, end: u64, shared: &Shared) -> io::Result<()> {
        let from = self.open_block;
        if from < end {
            acknowledge_early(shared, self.segment.base + end);
            let begun = Instant::now();
            write(&self.segment, from, end - from)?;
            shared.commit_counts.count(0, end - from, begun);
        }
        self.open_block = end;
        Ok(())
    }

    /// Writes the open block's bytes up to `end` into the slot that was not written last.
    fn write_slot(&mut self, end: u64, shared: &Shared) -> io::Result<()> {
        let (from, slot) = (self.open_block, SLOT_OFFSETS[self.slot]);
        let memory = self.segment.segment.memory();
        memory.with(from, end - from, |bytes| {
            let head = RecordHead {
                kind: RecordKind::Slot,
                lsn: position(self.segment.base + from),
                durable_end: Lsn::from_bytes(shared.durability.end()),
                length: (RECORD_HEAD_BYTES + bytes.len() as u64) as u32,
                epoch: self.identity.epoch,
                store_id: self.identity.store_id,
                segment: self.segment.number,
            };
            memory.write_head(slot, BLOCK_BYTES, &[&head.encode_apart(bytes), bytes]);
        });
        acknowledge_early(shared, self.segment.base + end);
        let begun = Instant::now();
        write(&self.segment, slot, BLOCK_BYTES)?;
        shared.commit_counts.count(1, BLOCK_BYTES, begun);
        if !planted("rewrite-acknowledged-block") {
            self.slot = 1 - self.slot;
        }
        Ok(())
    }
}

impl Shared {
    /// Makes everything appended before the call durable. Returns whether there was anything to do.
    pub(crate) fn commit(&self) -> Result<bool, Poisoned> {
        let mut committer = self.committer.lock();
        if self.durability.is_poisoned() {
            return Err(Poisoned);
        }
        self.commit_locked(&mut committer).map_err(|error| self.poison("commit", &error))
    }

    fn commit_locked(&self, committer: &mut Committer) -> io::Result<bool> {
        let mut done = false;
        loop {
            let segment = Arc::clone(&committer.segment);
            if let Some(next) = segment.next.get() {
                let end = segment.segment.memory().published();
                committer.hash_to(end);
                committer.write_in_place(end, self)?;
                self.durability.advance(segment.base + end).map_err(io::Error::other)?;
                committer.segment = Arc::clone(next);
                committer.open_block = HEAD_BYTES;
                committer.hashed = HEAD_BYTES;
                committer.slot = 0;
                committer.sealed = false;
                let number = segment.number;
                // Its memory goes back when the last handle does, and the preparer is told after that.
                drop(segment);
                self.release_held(number);
                done = true;
                continue;
            }
            let tail = segment.segment.memory().published();
            if segment.base + tail <= self.durability.end() {
                return Ok(done);
            }
            let end = if tail - committer.open_block <= SLOT_DATA_BYTES_MAX {
                committer.write_slot(tail, self)?;
                tail
            } else {
                committer.hash_to(tail);
                let Some(end) = self.close_blocks(committer, &segment) else {
                    continue;
                };
                committer.write_in_place(end, self)?;
                end
            };
            committer.sealed = false;
            self.durability.advance(segment.base + end).map_err(io::Error::other)?;
            return Ok(true);
        }
    }

    /// Appends CHAIN and PAD and returns the offset where the blocks end now, or `None` if the segment
    /// was left meanwhile.
    fn close_blocks(&self, committer: &mut Committer, segment: &Arc<ActiveSegment>) -> Option<u64> {
        let mut appender = self.appender.lock();
        if !Arc::ptr_eq(appender.segment(), segment) {
            return None;
        }
        let durable_end = self.durability.end();
        let to = segment.base + committer.hashed;
        let chain = &mut committer.chain;
        appender.append_chain(|| chain.close(to), durable_end);
        appender.fill(RecordKind::Pad, durable_end);
        let end = appender.offset();
        self.publish_tail(&appender);
        self.space.lock().moved(end);
        Some(end)
    }

    /// When there is nothing to commit: writes the open block once more, into the other slot, with the
    /// durable end as it is now. Then the last acknowledged bytes are covered by a header that lies in
    /// another block, and damage to them cannot pass for a torn tail. Returns whether it wrote.
    pub(crate) fn seal(&self) -> Result<bool, Poisoned> {
        let mut committer = self.committer.lock();
        if self.durability.is_poisoned() {
            return Err(Poisoned);
        }
        let durable_end = self.durability.end();
        let base = committer.segment.base;
        // Bytes of this segment that are not durable mean that there is something to commit first.
        let idle = base + committer.segment.segment.memory().published() == durable_end
            && committer.segment.next.get().is_none();
        if committer.sealed || !idle {
            return Ok(false);
        }
        committer.write_slot(durable_end - base, self).map_err(|error| self.poison("seal", &error))?;
        committer.sealed = true;
        Ok(true)
    }

    /// Stores the tail, after everything below it is complete in memory.
    pub(crate) fn publish_tail(&self, appender: &Appender) {
        self.tail.store(appender.tail(), Ordering::Release);
    }
}

/// One write to the device.
fn write(segment: &ActiveSegment, offset: u64, len: u64) -> io::Result<()> {
    let result = segment.segment.commit(offset, len);
    if planted("retry-after-failed-sync") && result.is_err() {
        return segment.segment.commit(offset, len);
    }
    result
}

/// The planted bug that acknowledges before the write: nothing in an ordinary build.
fn acknowledge_early(shared: &Shared, end: u64) {
    if planted("ack-before-sync") {
        let _ = shared.durability.advance(end);
    }
}
