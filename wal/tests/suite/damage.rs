//! Damage to a log at rest: bits, sectors, files. Whatever happens to it, the log is refused or gives
//! exactly what was written: never other bytes, never fewer acknowledged ones.

use std::ops::Range;
use std::sync::Arc;

use kami_wal::{Lsn, OpenError, SimMedium, SimMode, Verdict, WalOptions, verify};

use crate::world::{Kept, Random, SEGMENT_BYTES, append, for_seeds, open, open_with, options, payload};

const PATHS: [&str; 2] = ["log/0000000001.segment", "log/0000000002.segment"];

/// A closed log of two segments.
struct Closed {
    medium: SimMedium,
    history: Vec<Kept>,
    segment_bytes: u64,
}

fn options_of(segment_bytes: u64) -> WalOptions {
    WalOptions { segment_bytes, ..options() }
}

impl Closed {
    fn new() -> Closed {
        Closed::of(SEGMENT_BYTES, 40)
    }

    fn of(segment_bytes: u64, records: u64) -> Closed {
        let medium = SimMedium::new(1, SimMode::Direct);
        let (wal, _) = open_with(Arc::new(medium.clone()), options_of(segment_bytes), None).unwrap();
        wal.prepare().unwrap();
        let mut history = Vec::new();
        for index in 0..records {
            let bytes = 8 + (index as usize * 53 % 400) * 8;
            history.push(append(&wal, &payload(1, index, bytes)));
            if index % 3 == 0 {
                wal.commit().unwrap();
            }
        }
        wal.close().unwrap();
        let closed = Closed { medium: medium.crash(1), history, segment_bytes };
        assert_eq!(closed.collect().1, closed.history);
        assert!(closed.history.iter().any(|kept| 2 * segment_bytes < kept.lsn), "two segments are in use");
        closed
    }

    /// What verification says and hands out.
    fn collect(&self) -> (Verdict, Vec<Kept>) {
        let mut kept = Vec::new();
        let report = verify(&self.medium, &options_of(self.segment_bytes), &mut |record| {
            if record.kind == kami_wal::RecordKind::Data {
                let (lsn, end) = (record.lsn.bytes(), record.end.bytes());
                kept.push(Kept { lsn, end, payload: record.payload.to_vec() });
            }
        })
        .unwrap();
        (report.verdict, kept)
    }

    /// Holds what is left of a damaged log against what was written.
    fn is_refused_or_whole(&self, what: impl FnOnce() -> String) {
        let (verdict, kept) = self.collect();
        let (left, of) = (kept.len(), self.history.len());
        if kept[..] != self.history[..left] {
            panic!("{}: other bytes came out", what());
        }
        if !matches!(verdict, Verdict::Damaged(_)) && left != of {
            panic!("{}: {left} of {of} records are left and the verdict is {verdict:?}", what());
        }
    }

    /// Turns these bits of every `step`th byte from `first` on round, one after the other.
    fn survives_flips(&self, first: usize, step: usize, bits: fn(usize) -> Range<u32>) {
        for path in PATHS {
            for at in (first..self.segment_bytes as usize).step_by(step) {
                for bit in bits(at) {
                    self.medium.edit(path, |bytes| bytes[at] ^= 1 << bit);
                    self.is_refused_or_whole(|| format!("{path} byte {at} bit {bit}"));
                    self.medium.edit(path, |bytes| bytes[at] ^= 1 << bit);
                }
            }
        }
        assert!(matches!(self.collect().0, Verdict::Clean));
    }
}

/// One bit of a byte, another one for its neighbour.
fn one_bit(at: usize) -> Range<u32> {
    let bit = at as u32 % 8;
    bit..bit + 1
}

#[test]
fn a_flipped_bit_anywhere_is_refused_or_harmless() {
    // A sample with a step that meets every offset in a block, unless all are asked for.
    if std::env::var_os("KAMI_LONG").is_none() {
        return Closed::new().survives_flips(0, 37, one_bit);
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                Closed::new().survives_flips(thread, threads, |_| 0..8);
                Closed::of(8 * SEGMENT_BYTES, 600).survives_flips(thread, threads, one_bit);
            });
        }
    });
}

#[test]
fn a_lost_stale_or_misdirected_sector_is_refused_or_harmless() {
    let closed = Closed::new();
    let medium = &closed.medium;
    let sectors = SEGMENT_BYTES as usize / 512;
    let mut random = Random(1);
    for path in PATHS {
        let whole = medium.bytes(path);
        for sector in 0..sectors {
            let range = sector * 512..(sector + 1) * 512;
            let other = random.below(sectors as u64) as usize * 512;
            medium.edit(path, |bytes| bytes[range.clone()].fill(0));
            closed.is_refused_or_whole(|| format!("{path} sector {sector} zeroed"));
            medium.edit(path, |bytes| bytes.copy_within(other..other + 512, range.start));
            closed.is_refused_or_whole(|| format!("{path} sector {sector} from {other}"));
            medium.edit(path, |bytes| bytes.copy_from_slice(&whole));
        }
    }
}

#[test]
fn opening_a_damaged_log_refuses_or_gives_everything() {
    let Closed { medium, history, .. } = Closed::new();
    for_seeds("damage::opening_a_damaged_log_refuses_or_gives_everything", 300, |seed| {
        let mut random = Random(seed);
        let damaged = medium.kill();
        let path = PATHS[random.below(2) as usize];
        let at = random.below(SEGMENT_BYTES) as usize;
        match random.below(3) {
            0 => damaged.edit(path, |bytes| bytes[at] ^= 1 << (at % 8)),
            1 => damaged.edit(path, |bytes| bytes[at / 512 * 512..][..512].fill(0)),
            _ => damaged.make_unreadable(path, at as u64),
        }
        match open(&damaged) {
            Ok((_, kept)) => assert!(kept == history, "seed {seed}: {path} {at}: {} left", kept.len()),
            Err(error) => assert!(error.is_damage(), "seed {seed}: {error:?}"),
        }
    });
}

/// The checksums of a record can be made to fit by whoever wants to; the chain cannot.
#[test]
fn a_record_replaced_with_a_valid_one_breaks_the_chain() {
    let closed = Closed::new();
    let Closed { medium, history, .. } = &closed;
    let victim = &history[2];
    let at = (victim.lsn % SEGMENT_BYTES) as usize;
    let mut image = medium.bytes(PATHS[0]);
    let record = &mut image[at..at + (victim.end - victim.lsn) as usize];
    let head = kami_wal::RecordHead::decode(record).unwrap();
    record[48] ^= 1;
    head.complete(record);
    medium.edit(PATHS[0], |bytes| bytes.copy_from_slice(&image));
    let (verdict, _) = closed.collect();
    assert!(matches!(verdict, Verdict::Damaged(OpenError::ChainBroken { .. })), "{verdict:?}");
}

#[test]
fn damage_is_named_with_file_offset_and_position() {
    let Closed { medium, history, .. } = Closed::new();
    let victim = &history[2];
    let at = victim.lsn % SEGMENT_BYTES;
    medium.edit(PATHS[0], |bytes| bytes[at as usize + 50] ^= 1);
    match open(&medium).unwrap_err() {
        OpenError::Corrupt { file, offset, lsn, durable_end } => {
            assert_eq!((file.as_str(), offset), (PATHS[0], at));
            assert_eq!(lsn, Lsn::from_bytes(victim.lsn).unwrap());
            assert!(victim.end <= durable_end.bytes());
        }
        other => panic!("{other:?}"),
    }
}
