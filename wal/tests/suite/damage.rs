//! Damage to a log at rest: bits, sectors, files. Whatever happens to it, the log is refused or gives
//! exactly what was written: never other bytes, never fewer acknowledged ones.

use kami_wal::{Lsn, OpenError, SimMedium, SimMode, Verdict, verify};

use crate::world::{Kept, Random, append, for_seeds, open, options, payload};

const PATHS: [&str; 2] = ["log/0000000001.segment", "log/0000000002.segment"];

/// A closed log of two segments.
fn closed_log() -> (SimMedium, Vec<Kept>) {
    let medium = SimMedium::new(1, SimMode::Direct);
    let (wal, _) = open(&medium).unwrap();
    wal.prepare().unwrap();
    let mut history = Vec::new();
    for index in 0..40 {
        let bytes = 8 + (index as usize * 53 % 400) * 8;
        history.push(append(&wal, &payload(1, index, bytes)));
        if index % 3 == 0 {
            wal.commit().unwrap();
        }
    }
    wal.close().unwrap();
    let medium = medium.crash(1);
    assert_eq!(collect(&medium).1, history);
    assert!(history.iter().any(|kept| 2 * crate::world::SEGMENT_BYTES < kept.lsn), "two segments are in use");
    (medium, history)
}

/// What verification says and hands out.
fn collect(medium: &SimMedium) -> (Verdict, Vec<Kept>) {
    let mut kept = Vec::new();
    let report = verify(medium, &options(), &mut |record| {
        if record.kind == kami_wal::RecordKind::Data {
            let (lsn, end) = (record.lsn.bytes(), record.end.bytes());
            kept.push(Kept { lsn, end, payload: record.payload.to_vec() });
        }
    })
    .unwrap();
    (report.verdict, kept)
}

/// Holds what is left of a damaged log against what was written.
fn refused_or_whole(medium: &SimMedium, history: &[Kept], what: &str) {
    let (verdict, kept) = collect(medium);
    assert!(kept[..] == history[..kept.len()], "{what}: other bytes came out");
    assert!(
        matches!(verdict, Verdict::Damaged(_)) || kept.len() == history.len(),
        "{what}: {} of {} records are left and the verdict is {verdict:?}",
        kept.len(),
        history.len()
    );
}

#[test]
fn a_flipped_bit_anywhere_is_refused_or_harmless() {
    let (medium, history) = closed_log();
    // Every byte when asked for, otherwise a sample with a step that meets every offset in a block.
    let step = if std::env::var_os("KAMI_LONG").is_some() { 1 } else { 37 };
    for path in PATHS {
        for at in (0..crate::world::SEGMENT_BYTES as usize).step_by(step) {
            let bit = 1 << (at / step % 8);
            medium.edit(path, |bytes| bytes[at] ^= bit);
            refused_or_whole(&medium, &history, &format!("{path} byte {at}"));
            medium.edit(path, |bytes| bytes[at] ^= bit);
        }
    }
    assert!(matches!(collect(&medium).0, Verdict::Clean));
}

#[test]
fn a_lost_stale_or_misdirected_sector_is_refused_or_harmless() {
    let (medium, history) = closed_log();
    let sectors = crate::world::SEGMENT_BYTES as usize / 512;
    let mut random = Random(1);
    for path in PATHS {
        let whole = medium.bytes(path);
        for sector in 0..sectors {
            let range = sector * 512..(sector + 1) * 512;
            let other = random.below(sectors as u64) as usize * 512;
            medium.edit(path, |bytes| bytes[range.clone()].fill(0));
            refused_or_whole(&medium, &history, &format!("{path} sector {sector} zeroed"));
            medium.edit(path, |bytes| bytes.copy_within(other..other + 512, range.start));
            refused_or_whole(&medium, &history, &format!("{path} sector {sector} from {other}"));
            medium.edit(path, |bytes| bytes.copy_from_slice(&whole));
        }
    }
}

#[test]
fn opening_a_damaged_log_refuses_or_gives_everything() {
    let (medium, history) = closed_log();
    for_seeds("damage::opening_a_damaged_log_refuses_or_gives_everything", 300, |seed| {
        let mut random = Random(seed);
        let damaged = medium.kill();
        let path = PATHS[random.below(2) as usize];
        let at = random.below(crate::world::SEGMENT_BYTES) as usize;
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
    let (medium, history) = closed_log();
    let victim = &history[2];
    let at = (victim.lsn % crate::world::SEGMENT_BYTES) as usize;
    let mut image = medium.bytes(PATHS[0]);
    let record = &mut image[at..at + (victim.end - victim.lsn) as usize];
    let head = kami_wal::RecordHead::decode(record).unwrap();
    record[48] ^= 1;
    head.complete(record);
    medium.edit(PATHS[0], |bytes| bytes.copy_from_slice(&image));
    let (verdict, _) = collect(&medium);
    assert!(matches!(verdict, Verdict::Damaged(OpenError::ChainBroken { .. })), "{verdict:?}");
}

#[test]
fn damage_is_named_with_file_offset_and_position() {
    let (medium, history) = closed_log();
    let victim = &history[2];
    let at = victim.lsn % crate::world::SEGMENT_BYTES;
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
