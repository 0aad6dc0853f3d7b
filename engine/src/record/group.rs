//! A group: the entries that one turn decided, in one record of the log.
//!
//! # Invariants
//! * Every entry says how far back its record begins, so no entry begins further into it than 16 bits reach.
//! * What is written is written once, from front to back, into memory of the log that is not there yet: the writer asks
//!   for the next lines while it encodes.
//! * Reading ends with an error where a group ends elsewhere than its head says.

use kami_wal::Lsn;

use super::layout::{GROUP_HEAD_BYTES, HEAD_BYTES};
use super::{Entry, FormatError, Head, u32_at, u64_at};
use crate::grounds::Grounds;
use crate::region::prefetch;

/// An entry may begin at most this far into its record, so that the 16-bit way back reaches.
const BACK_BYTES_MAX: u64 = (u16::MAX as u64) * 8;
/// The memory's answer to so many lines can be waited for at a time, and no more.
const LINES_AHEAD: usize = 12;
const LINE_BYTES: usize = 64;

/// Encodes a group into a log record's payload, entry by entry.
pub struct GroupWriter<'a> {
    payload: &'a mut [u8],
    /// Bytes of the record before its payload.
    before: usize,
    payload_lsn: Lsn,
    used: usize,
    entries: u32,
}

impl<'a> GroupWriter<'a> {
    /// Begins a group. `record_head_bytes` is how far the payload lies into its record.
    #[inline]
    pub fn new(payload: &'a mut [u8], payload_lsn: Lsn, record_head_bytes: usize) -> Self {
        let used = GROUP_HEAD_BYTES;
        let group = GroupWriter { payload, before: record_head_bytes, payload_lsn, used, entries: 0 };
        (0..LINES_AHEAD).for_each(|line| group.expect(line * LINE_BYTES));
        group
    }

    /// Asks for the memory that will be written soon. It was zeroed by another thread, long ago or on another core, and
    /// stores to what is not there yet hold up all stores behind them.
    #[inline]
    fn expect(&self, at: usize) {
        if let Some(byte) = self.payload.get(at) {
            prefetch(byte);
        }
    }

    /// Adds an entry whose tail has `tail_bytes` bytes (rounded up to 8 and zero-padded) and is written
    /// by `tail`. Returns where it stands.
    ///
    /// # Panics
    /// If the payload has no room; the caller computed that before it took the lock.
    #[inline]
    pub fn push(&mut self, head: &Head, tail_bytes: usize, tail: impl FnOnce(&mut [u8])) -> Lsn {
        self.push_on(head, None, tail_bytes, tail)
    }

    /// The same with the grounds of what is recorded behind the tail.
    ///
    /// # Panics
    /// As [`GroupWriter::push`]; also if the grounds are longer than they may be.
    #[inline]
    pub fn push_on(
        &mut self,
        head: &Head,
        grounds: Option<&Grounds>,
        tail_bytes: usize,
        tail: impl FnOnce(&mut [u8]),
    ) -> Lsn {
        let grounds_bytes = grounds.map_or(0, Grounds::bytes);
        let length = HEAD_BYTES + tail_bytes.next_multiple_of(8) + grounds_bytes;
        let back = (self.before + self.used) as u64;
        assert!(back <= BACK_BYTES_MAX, "entry too far into its record");
        self.expect(self.used + LINES_AHEAD * LINE_BYTES);
        let entry = &mut self.payload[self.used..self.used + length];
        let fixed: &mut [u8; HEAD_BYTES] = (&mut entry[..HEAD_BYTES]).try_into().expect("head");
        fixed[0] = head.kind.number();
        fixed[1] = (grounds_bytes / 8) as u8;
        fixed[2..4].copy_from_slice(&((back / 8) as u16).to_le_bytes());
        fixed[4..8].copy_from_slice(&(length as u32).to_le_bytes());
        fixed[8..24].copy_from_slice(&head.request.0.to_le_bytes());
        fixed[24..28].copy_from_slice(&head.principal.0.to_le_bytes());
        fixed[28..32].copy_from_slice(&head.terminal.0.to_le_bytes());
        fixed[32..36].copy_from_slice(&head.merchant.0.to_le_bytes());
        fixed[36..38].copy_from_slice(&head.tenant.0.to_le_bytes());
        fixed[38..40].copy_from_slice(&head.channel.0.to_le_bytes());
        fixed[40..44].copy_from_slice(&head.body.to_le_bytes());
        fixed[44..46].copy_from_slice(&head.post.to_le_bytes());
        fixed[46..48].fill(0);
        fixed[48..56].copy_from_slice(&head.subject.to_le_bytes());
        fixed[56..64].copy_from_slice(&head.prev.to_le_bytes());
        if tail_bytes > 0 {
            let rest = &mut entry[HEAD_BYTES..length - grounds_bytes];
            rest[tail_bytes..].fill(0);
            tail(&mut rest[..tail_bytes]);
        }
        if let Some(grounds) = grounds {
            grounds.encode(&mut entry[length - grounds_bytes..]);
        }
        let lsn = self.payload_lsn.plus(self.used as u64);
        self.used += length;
        self.entries += 1;
        lsn
    }

    /// Whether an entry can begin once `bytes` more are written: its way back to the record's head has a bound.
    #[must_use]
    pub fn reaches(&self, bytes: usize) -> bool {
        (self.before + self.used + bytes) as u64 <= BACK_BYTES_MAX
    }

    /// Where the next entry will stand.
    #[must_use]
    pub fn next_lsn(&self) -> Lsn {
        self.payload_lsn.plus(self.used as u64)
    }

    /// How many entries were added.
    #[inline]
    #[must_use]
    pub fn entries(&self) -> u32 {
        self.entries
    }

    /// Completes the group's head; returns the payload's bytes in use.
    #[inline]
    pub fn finish(self, time_ms: u64) -> usize {
        self.payload[0..8].copy_from_slice(&time_ms.to_le_bytes());
        self.payload[8..12].copy_from_slice(&self.entries.to_le_bytes());
        self.payload[12..16].fill(0);
        self.used
    }
}

/// A group, taken apart.
#[derive(Clone, Debug)]
pub struct Group<'a> {
    /// Engine time of the group.
    pub time_ms: u64,
    payload: &'a [u8],
    payload_lsn: Lsn,
    at: usize,
    left: u32,
}

impl<'a> Group<'a> {
    /// Takes a payload apart; iterate for the entries.
    ///
    /// # Errors
    /// If the head does not fit.
    pub fn parse(payload: &'a [u8], payload_lsn: Lsn) -> Result<Self, FormatError> {
        if payload.len() < GROUP_HEAD_BYTES {
            return Err(FormatError { what: "group shorter than its head", lsn: payload_lsn });
        }
        Ok(Group {
            time_ms: u64_at(payload, 0),
            left: u32_at(payload, 8),
            payload,
            payload_lsn,
            at: GROUP_HEAD_BYTES,
        })
    }

    /// What its entries are about, in their order and without a closer look at them: of most of them a card. Ends where
    /// no further entry can begin.
    pub(crate) fn subjects(&self) -> impl Iterator<Item = u64> + use<'a> {
        let (mut rest, mut left) = (&self.payload[self.at..], self.left);
        std::iter::from_fn(move || {
            left = left.checked_sub(1)?;
            let subject = u64_at(rest.get(..HEAD_BYTES)?, 48);
            rest = rest.get(u32_at(rest, 4) as usize..)?;
            Some(subject)
        })
    }

    /// The entry that begins at `lsn`.
    ///
    /// The position may come from a peer, and the bytes inside an entry may be of another's choosing and look like one.
    /// So entries are counted off from the first on, and a position between two beginnings is none.
    ///
    /// # Errors
    /// If no entry begins there.
    pub fn entry_at(&self, lsn: Lsn) -> Result<Entry<'a>, FormatError> {
        let mut at = self.at;
        for _ in 0..self.left {
            let Some(head) = self.payload.get(at..at + HEAD_BYTES) else { break };
            if self.payload_lsn.plus(at as u64) == lsn {
                return self.decode(at).map(|(entry, _)| entry);
            }
            at += (u32_at(head, 4) as usize).max(HEAD_BYTES);
        }
        Err(FormatError { what: "no entry begins there", lsn })
    }

    fn decode(&self, at: usize) -> Result<(Entry<'a>, usize), FormatError> {
        Entry::decode(&self.payload[at..], self.payload_lsn.plus(at as u64), self.time_ms)
    }
}

impl<'a> Iterator for Group<'a> {
    type Item = Result<Entry<'a>, FormatError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            if self.at == self.payload.len() {
                return None;
            }
            // What follows the last entry would be skipped unseen: refuse it instead.
            self.at = self.payload.len();
            return Some(Err(FormatError { what: "bytes after the last entry", lsn: self.payload_lsn }));
        }
        match self.decode(self.at) {
            Ok((entry, length)) => {
                self.left -= 1;
                self.at += length;
                Some(Ok(entry))
            }
            Err(error) => {
                self.left = 0;
                self.at = self.payload.len();
                Some(Err(error))
            }
        }
    }
}
