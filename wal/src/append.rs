//! Appending: records are encoded in place at the tail, then the tail is published.
//!
//! All of it happens under the append lock and none of it touches the disk. A segment that is full is
//! left for a ready one by swapping a pointer. What makes the record valid (header, checksum) is
//! written before the tail moves over it, so everything below the tail is complete for any thread that
//! has seen that tail.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::chain::ChainPoint;
use crate::format::{CHAIN_RECORD_BYTES, ChainLink, RECORD_HEAD_BYTES, RecordHead, RecordKind, SegmentStart};
use crate::lsn::Lsn;
use crate::memory::WriteToken;
use crate::segment::{ActiveSegment, Geometry, ReadySegment};

/// Where an appended record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The record.
    pub lsn: Lsn,
    /// Its payload.
    pub payload_lsn: Lsn,
    /// The first byte behind it; it is durable once `durable_end` has reached this.
    pub end: Lsn,
}

/// What every record's header repeats.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    pub store_id: u64,
    pub epoch: u32,
}

/// The state under the append lock.
pub(crate) struct Appender {
    geometry: Geometry,
    identity: Identity,
    segment: Arc<ActiveSegment>,
    token: WriteToken,
    ready: VecDeque<ReadySegment>,
    /// The last chain value that is in the log.
    chain: ChainPoint,
}

impl Appender {
    /// Begins to append to `first`, which follows a log that ended at `prev_end`.
    pub(crate) fn begin(
        geometry: Geometry,
        identity: Identity,
        first: ReadySegment,
        prev_end: u64,
        chain: ChainPoint,
        durable_end: u64,
    ) -> Self {
        let ReadySegment { active, token } = first;
        let mut appender = Self { geometry, identity, segment: active, token, ready: VecDeque::new(), chain };
        appender.start_segment(prev_end, durable_end);
        appender
    }

    /// The segment appended to.
    pub(crate) fn segment(&self) -> &Arc<ActiveSegment> {
        &self.segment
    }

    /// Offset of the tail in the current segment.
    pub(crate) fn offset(&self) -> u64 {
        self.segment.segment.memory().published()
    }

    /// The tail as a position.
    pub(crate) fn tail(&self) -> u64 {
        self.segment.base + self.offset()
    }

    pub(crate) fn ready_count(&self) -> usize {
        self.ready.len()
    }

    pub(crate) fn add_ready(&mut self, ready: ReadySegment) {
        self.ready.push_back(ready);
    }

    /// Whether a payload of up to `payload_bytes_max` fits the current segment.
    pub(crate) fn fits(&self, payload_bytes_max: u64) -> bool {
        self.geometry.fits(self.offset(), RECORD_HEAD_BYTES + payload_bytes_max)
    }

    /// Leaves the current segment for the next ready one, and returns that.
    ///
    /// # Panics
    /// If none is ready: every caller holds a credit, and a credit that needs one is only granted
    /// while there is one.
    pub(crate) fn rotate(&mut self, durable_end: u64) -> Arc<ActiveSegment> {
        let next = self.ready.pop_front().expect("a credit beyond the segment implies a ready one");
        self.fill(RecordKind::Rotate, durable_end);
        let prev_end = self.tail();
        let left = std::mem::replace(&mut self.segment, next.active);
        self.token = next.token;
        self.start_segment(prev_end, durable_end);
        // After its successor's first record, so that whoever follows the link finds it complete.
        assert!(left.next.set(Arc::clone(&self.segment)).is_ok(), "a segment is left once");
        Arc::clone(&self.segment)
    }

    /// Appends what `encode` writes into the payload, unless that is nothing.
    pub(crate) fn append(
        &mut self,
        payload_bytes_max: u64,
        durable_end: u64,
        encode: impl FnOnce(&mut [u8], Lsn) -> usize,
    ) -> Option<Appended> {
        let lsn = self.tail();
        let room = RECORD_HEAD_BYTES + payload_bytes_max;
        let record = self.segment.segment.memory().above(&mut self.token, room);
        let payload_lsn = position(lsn + RECORD_HEAD_BYTES);
        let used = encode(&mut record[RECORD_HEAD_BYTES as usize..], payload_lsn) as u64;
        assert!(used <= payload_bytes_max && used.is_multiple_of(8), "a payload is a multiple of 8 long");
        if used == 0 {
            return None;
        }
        let length = RECORD_HEAD_BYTES + used;
        self.complete(RecordKind::Data, length, durable_end);
        Some(Appended { lsn: position(lsn), payload_lsn, end: position(lsn + length) })
    }

    /// Appends a CHAIN record for a chain that reaches `point`, if there is room.
    /// Returns whether it did.
    pub(crate) fn append_chain(&mut self, close: impl FnOnce() -> ChainPoint, durable_end: u64) {
        if !self.geometry.fits(self.offset(), CHAIN_RECORD_BYTES) {
            return;
        }
        let link = ChainLink { from: self.chain.to, point: close() };
        self.chain = link.point;
        self.append_payload(RecordKind::Chain, &link.encode(), durable_end);
    }

    /// Fills up to a block boundary with a record of `kind`.
    pub(crate) fn fill(&mut self, kind: RecordKind, durable_end: u64) {
        let bytes = self.geometry.fill_bytes(self.offset());
        if bytes == 0 {
            // On a boundary already: a PAD is not needed, and a ROTATE is put if there is room for one.
            let block = crate::format::BLOCK_BYTES;
            if kind == RecordKind::Rotate && self.offset() < self.geometry.segment_bytes {
                self.fill_exactly(kind, block, durable_end);
            }
            return;
        }
        self.fill_exactly(kind, bytes, durable_end);
    }

    fn fill_exactly(&mut self, kind: RecordKind, bytes: u64, durable_end: u64) {
        let record = self.segment.segment.memory().above(&mut self.token, bytes);
        record[RECORD_HEAD_BYTES as usize..].fill(0);
        self.complete(kind, bytes, durable_end);
    }

    fn start_segment(&mut self, prev_end: u64, durable_end: u64) {
        let start = SegmentStart { prev_end, chain: self.chain };
        self.append_payload(RecordKind::Segment, &start.encode(), durable_end);
    }

    fn append_payload(&mut self, kind: RecordKind, payload: &[u8], durable_end: u64) {
        let length = RECORD_HEAD_BYTES + payload.len() as u64;
        let record = self.segment.segment.memory().above(&mut self.token, length);
        record[RECORD_HEAD_BYTES as usize..].copy_from_slice(payload);
        self.complete(kind, length, durable_end);
    }

    /// Puts the header before the payload already written at the tail, and publishes the record.
    fn complete(&mut self, kind: RecordKind, length: u64, durable_end: u64) {
        let head = RecordHead {
            kind,
            lsn: position(self.tail()),
            durable_end: Lsn::from_bytes(durable_end),
            length: length as u32,
            epoch: self.identity.epoch,
            store_id: self.identity.store_id,
            segment: self.segment.number,
        };
        let memory = self.segment.segment.memory();
        head.complete(memory.above(&mut self.token, length));
        memory.publish(&mut self.token, length);
    }
}

/// A position that is known to be one.
pub(crate) fn position(bytes: u64) -> Lsn {
    Lsn::from_bytes(bytes).expect("positions are checked when a segment is created")
}
