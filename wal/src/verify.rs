//! Verification: reads a stopped store's log as recovery would, changes nothing, and checks the hash
//! chain as well.

use crate::chain::{Chain, ChainPoint};
use crate::error::OpenError;
use crate::format::{BLOCK_BYTES, ChainLink, RECORD_HEAD_BYTES, RecordKind, SegmentStart};
use crate::lsn::Lsn;
use crate::medium::Medium;
use crate::recover::identify;
use crate::replay::{Record, Walk, Walked};
use crate::segment::{LOG_DIR, segment_numbers, segment_path};
use crate::wal::WalOptions;

/// What a log holds and whether it is whole.
#[derive(Debug)]
#[non_exhaustive]
pub struct VerifyReport {
    /// The store it belongs to.
    pub store_id: u64,
    /// The length of its segment files.
    pub segment_bytes: u64,
    /// Segments replayed.
    pub segments: u64,
    /// Records of all kinds.
    pub records: u64,
    /// DATA records.
    pub data_records: u64,
    /// Their payload bytes.
    pub data_bytes: u64,
    /// Chain values checked.
    pub chain_values: u64,
    /// The last epoch.
    pub epoch: u32,
    /// Where the log ends, or `None` if it has no records.
    pub tail: Option<Lsn>,
    /// How far it is known to be durable.
    pub durable_end: Option<Lsn>,
    /// The last chain value in it.
    pub chain: ChainPoint,
    /// What is wrong with it, or not.
    pub verdict: Verdict,
}

/// The state of a log.
#[derive(Debug)]
pub enum Verdict {
    /// It ends in order.
    Clean,
    /// Behind its end lie bytes nobody was told about; the next start cuts them off.
    TornTail {
        /// The segment file.
        file: String,
        /// Where in it the bytes begin.
        offset: u64,
        /// How many there are up to the last that is not zero.
        bytes: u64,
    },
    /// A start would be refused.
    Damaged(OpenError),
}

/// Verifies the log on `medium` and hands every record of every kind to `visit`.
///
/// # Errors
/// If the medium fails. Damage is not an error here but a verdict.
pub fn verify(
    medium: &dyn Medium,
    options: &WalOptions,
    visit: &mut dyn FnMut(Record<'_>),
) -> Result<VerifyReport, OpenError> {
    let numbers = segment_numbers(medium).map_err(OpenError::io("listing", LOG_DIR))?;
    let mut walked = Walked::new();
    let mut chain = ChainCheck::default();
    let mut identity = (0, 0);
    let outcome = identify(medium, options, &numbers).and_then(|expected| {
        identity = (expected.store_id, expected.geometry.segment_bytes);
        let walk = Walk { medium, expected, numbers: &numbers, from: None };
        walk.run(&mut walked, &mut |found| {
            if !chain.fits(found.head.lsn.bytes(), found.head.kind, found.bytes) {
                return Err(OpenError::ChainBroken {
                    file: found.image.path.clone(),
                    offset: found.head.lsn.bytes() - found.image.base(),
                    lsn: found.head.lsn,
                });
            }
            visit(found.record());
            Ok(())
        })
    });
    let verdict = match outcome {
        Ok(()) => tail_verdict(&walked),
        Err(error) if error.is_damage() => Verdict::Damaged(error),
        Err(error) => return Err(error),
    };
    Ok(VerifyReport {
        store_id: identity.0,
        segment_bytes: identity.1,
        segments: walked.counts.segments,
        records: walked.counts.records,
        data_records: walked.counts.data_records,
        data_bytes: walked.counts.data_bytes,
        chain_values: chain.values,
        epoch: walked.epoch,
        tail: Lsn::from_bytes(walked.tail),
        durable_end: Lsn::from_bytes(walked.durable_end),
        chain: walked.chain,
        verdict,
    })
}

fn tail_verdict(walked: &Walked) -> Verdict {
    if let Some(last) = &walked.last {
        let tail = walked.tail - last.base();
        let used = last.used_end(tail);
        if tail < used {
            return Verdict::TornTail { file: last.path.clone(), offset: tail, bytes: used - tail };
        }
    }
    match walked.later.iter().find(|later| later.is_used()) {
        Some(later) => Verdict::TornTail {
            file: segment_path(later.number),
            offset: BLOCK_BYTES,
            bytes: later.used_end - BLOCK_BYTES,
        },
        None => Verdict::Clean,
    }
}

/// Follows the chain. Bytes are kept from the last value on, because a value reaches to some place
/// before its own record.
#[derive(Default)]
pub(crate) struct ChainCheck {
    point: Option<ChainPoint>,
    bytes: Vec<u8>,
    /// Where contiguous runs of `bytes` begin: position in the log, index.
    runs: Vec<(u64, usize)>,
    /// Where the last record ended.
    end: u64,
    /// Whether a record was taken.
    begun: bool,
    values: u64,
}

impl ChainCheck {
    /// The check of what comes behind `point`, a value that is trusted.
    pub(crate) fn behind(point: ChainPoint) -> Self {
        Self { point: Some(point), ..Self::default() }
    }

    /// Takes the next record, header and payload; whether a value that it carries fits what came before.
    pub(crate) fn fits(&mut self, lsn: u64, kind: RecordKind, record: &[u8]) -> bool {
        let end = lsn + record.len() as u64;
        // What lies before the value that the check begins with is covered by it.
        let covered = if self.begun { 0 } else { self.point.map_or(0, |point| point.to) };
        if end <= covered {
            return true;
        }
        let payload = &record[RECORD_HEAD_BYTES as usize..];
        let fits = match kind {
            RecordKind::Segment => SegmentStart::decode(payload).is_some_and(|start| self.segment(start)),
            RecordKind::Chain => ChainLink::decode(payload).is_some_and(|link| self.link(link)),
            _ => true,
        };
        if !fits {
            return false;
        }
        if lsn != self.end || self.runs.is_empty() {
            self.runs.push((lsn, self.bytes.len()));
        }
        self.bytes.extend_from_slice(record);
        self.end = end;
        self.begun = true;
        true
    }

    /// A segment repeats the last value, or, after a crash, brings one that reaches to where it begins.
    fn segment(&mut self, start: SegmentStart) -> bool {
        let Some(point) = self.point else {
            // The first segment there is: what it says is where the check begins.
            self.point = Some(start.chain);
            return true;
        };
        if start.chain.to == point.to {
            return start.chain == point;
        }
        start.chain.to == start.prev_end && self.advance(start.chain)
    }

    fn link(&mut self, link: ChainLink) -> bool {
        // The value that the check began with stands in a record behind what it covers.
        self.point
            .is_some_and(|point| point == link.point || point.to == link.from && self.advance(link.point))
    }

    fn advance(&mut self, to: ChainPoint) -> bool {
        let (Some(point), Some((run, index))) =
            (self.point, self.runs.iter().rev().find(|(run, _)| *run <= to.to).copied())
        else {
            return false;
        };
        let length = index as u64 + (to.to - run);
        if (self.bytes.len() as u64) < length {
            return false;
        }
        let mut chain = Chain::from(point);
        chain.add(&self.bytes[..length as usize]);
        if chain.close(to.to) != to {
            return false;
        }
        self.values += 1;
        self.point = Some(to);
        self.bytes.drain(..length as usize);
        // Runs that the value covers are used up; the one it ends in goes on behind it.
        self.runs.retain(|(_, index)| length as usize <= *index);
        for (_, index) in &mut self.runs {
            *index -= length as usize;
        }
        if self.runs.first().is_none_or(|(_, index)| *index != 0) && !self.bytes.is_empty() {
            self.runs.insert(0, (to.to, 0));
        }
        true
    }
}
