//! The decision table at the head of `replay.rs`, row by row.

use std::sync::Arc;

use kami_wal::{
    Lsn, Medium, OpenError, RecordHead, RecordKind, ReplayFrom, SimMedium, SimMode, Verdict, WalOptions,
    verify,
};

use crate::world::{Kept, SEGMENT_BYTES, append, open, open_with, options, payload};

const FIRST: &str = "log/0000000001.segment";
const SECOND: &str = "log/0000000002.segment";

/// Writes `groups` of records, one commit a group, without a seal, as a killed process leaves them.
fn log(groups: &[&[usize]]) -> (SimMedium, Vec<Kept>) {
    let medium = SimMedium::new(1, SimMode::Direct);
    let (wal, _) = open(&medium).unwrap();
    let mut history = Vec::new();
    for group in groups {
        for bytes in *group {
            history.push(append(&wal, &payload(1, history.len() as u64, *bytes)));
        }
        wal.commit().unwrap();
    }
    drop(wal);
    (medium, history)
}

fn offset(kept: &Kept) -> usize {
    (kept.lsn % SEGMENT_BYTES) as usize
}

fn refused(medium: &SimMedium) -> OpenError {
    let error = open(medium).unwrap_err();
    assert!(error.is_damage(), "{error:?}");
    let report = verify(medium, &options(), &mut |_| ()).unwrap();
    assert!(matches!(report.verdict, Verdict::Damaged(_)), "verification says {:?}", report.verdict);
    error
}

#[test]
fn row_1_zeros_from_the_break_on_end_the_log() {
    let (medium, history) = log(&[&[64], &[9000], &[64]]);
    assert!(matches!(verify(&medium, &options(), &mut |_| ()).unwrap().verdict, Verdict::Clean));
    let (wal, kept) = open(&medium).unwrap();
    assert_eq!(kept, history);
    assert!(wal.recovered().quarantined.is_empty());
    assert_eq!(wal.recovered().tail, Lsn::from_bytes(history[2].end));
}

#[test]
fn row_2_damaged_bytes_at_the_break_are_cut_and_kept_aside() {
    for unreadable in [false, true] {
        let (medium, history) = log(&[&[64]]);
        let tail = (history[0].end % SEGMENT_BYTES) as usize;
        medium.edit(FIRST, |bytes| bytes[tail..tail + 5000].fill(0xAB));
        if unreadable {
            medium.make_unreadable(FIRST, tail as u64 + 2000);
        }
        let verdict = verify(&medium, &options(), &mut |_| ()).unwrap().verdict;
        assert!(
            matches!(&verdict, Verdict::TornTail { file, offset, bytes: 5000 }
                if file == FIRST && *offset == tail as u64),
            "{verdict:?}"
        );
        let (wal, kept) = open(&medium).unwrap();
        assert_eq!(kept, history);
        let [aside] = &wal.recovered().quarantined[..] else { panic!("one file is put aside") };
        let aside = medium.bytes(aside);
        assert_eq!(aside.len(), 5000);
        assert!(unreadable || aside.iter().all(|byte| *byte == 0xAB));
        assert!(medium.bytes(FIRST)[tail..].iter().all(|byte| *byte == 0), "the rest is zeroed");
    }
}

#[test]
fn row_3_a_hole_at_or_above_the_durable_end_is_cut_with_what_follows() {
    // Both in one commit: neither says that the other is durable.
    let (medium, history) = log(&[&[64], &[9000, 9000]]);
    let hole = offset(&history[1]);
    medium.edit(FIRST, |bytes| bytes[hole + 1024..hole + 1536].fill(0));
    let (wal, kept) = open(&medium).unwrap();
    assert_eq!(kept, history[..1]);
    assert_eq!(wal.recovered().quarantined.len(), 1);
    // It stays cut: the record behind the hole never comes back.
    drop(wal);
    assert_eq!(open(&medium).unwrap().1, history[..1]);
}

#[test]
fn row_4_a_hole_below_the_durable_end_is_refused() {
    let (medium, history) = log(&[&[64], &[9000], &[9000]]);
    let hole = offset(&history[1]);
    medium.edit(FIRST, |bytes| bytes[hole + 1024..hole + 1536].fill(0));
    match refused(&medium) {
        OpenError::Corrupt { file, offset: at, lsn, durable_end } => {
            assert_eq!((file.as_str(), at, lsn.bytes()), (FIRST, hole as u64, history[1].lsn));
            assert!(lsn < durable_end);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn row_4_the_callers_knowledge_counts() {
    let (medium, history) = log(&[&[64], &[9000]]);
    let hole = offset(&history[1]);
    medium.edit(FIRST, |bytes| bytes[hole + 1024..hole + 1536].fill(0));
    let hint = ReplayFrom {
        lsn: Lsn::from_bytes(history[0].lsn).unwrap(),
        durable_end_hint: Lsn::from_bytes(history[1].end),
    };
    let outcome = open_with(Arc::new(medium.clone()), options(), Some(hint));
    assert!(matches!(outcome, Err(OpenError::Corrupt { .. })));
    assert_eq!(open(&medium).unwrap().1, history[..1]);
}

#[test]
fn row_4_a_seal_covers_the_last_group() {
    let medium = SimMedium::new(1, SimMode::Direct);
    let (wal, _) = open(&medium).unwrap();
    let kept = append(&wal, &payload(1, 1, 9000));
    wal.commit().unwrap();
    assert!(wal.seal().unwrap());
    assert!(!wal.seal().unwrap(), "one seal is enough");
    drop(wal);
    medium.edit(FIRST, |bytes| bytes[offset(&kept) + 5000] ^= 1);
    assert!(matches!(refused(&medium), OpenError::Corrupt { .. }));
}

#[test]
fn row_5_a_slot_stands_in_for_its_block() {
    let (medium, history) = log(&[&[64], &[64], &[64]]);
    let block = offset(&history[0]) / 4096 * 4096;
    assert!(medium.bytes(FIRST)[block..].iter().all(|byte| *byte == 0), "nothing is in place yet");
    medium.edit(FIRST, |bytes| bytes[block + 100..block + 200].fill(0xCD));
    let (wal, kept) = open(&medium).unwrap();
    assert_eq!(kept, history);
    // In place now, so the slot is not needed any more.
    drop(wal);
    medium.edit(FIRST, |bytes| bytes[4096..3 * 4096].fill(0));
    assert_eq!(open(&medium).unwrap().1, history);
}

#[test]
fn row_5_the_older_slot_serves_when_the_newer_is_torn() {
    let (medium, history) = log(&[&[64], &[64]]);
    // The first commit of all is that of the SEGMENT record, so the second record went to slot 0 again.
    let slot = medium.bytes(FIRST)[4096..8192].to_vec();
    let newer = RecordHead::decode(&slot).unwrap();
    assert!(history[1].end <= newer.lsn.bytes() + u64::from(newer.length) - 48);
    medium.edit(FIRST, |bytes| bytes[4096 + 60] ^= 1);
    assert_eq!(open(&medium).unwrap().1, history[..1]);
}

#[test]
fn row_6_damage_in_a_block_that_was_complete_is_refused_although_a_slot_remains() {
    let (medium, history) = log(&[&[64], &[9000], &[9000]]);
    medium.edit(FIRST, |bytes| bytes[offset(&history[0]) + 50] ^= 1);
    assert!(matches!(refused(&medium), OpenError::Corrupt { .. }));
}

#[test]
fn row_7_what_lies_behind_a_recovered_end_never_comes_back() {
    let (medium, history) = log(&[&[64], &[9000, 9000]]);
    let before = medium.bytes(FIRST);
    let hole = offset(&history[1]);
    medium.edit(FIRST, |bytes| bytes[hole..hole + 512].fill(0));
    let (wal, kept) = open(&medium).unwrap();
    assert_eq!(kept, history[..1]);
    let newer = append(&wal, &payload(2, 1, 64));
    wal.close().unwrap();
    // A disk that brings the old sectors back: still valid records, of an older epoch, behind the end.
    medium.edit(FIRST, |bytes| bytes[hole..].copy_from_slice(&before[hole..]));
    assert_eq!(open(&medium).unwrap().1, [history[0].clone(), newer]);
}

/// What a cut or a damaged disk leaves of one life must never pass for a part of a later one.
#[test]
fn row_7_every_start_has_an_epoch_of_its_own() {
    let (mut medium, mut last) = (SimMedium::new(1, SimMode::Direct), 0);
    for life in 0..6 {
        let (wal, kept) = open(&medium).unwrap();
        assert!(last < wal.recovered().epoch, "epoch {last} came twice");
        last = wal.recovered().epoch;
        append(&wal, &payload(1, kept.len() as u64, 64));
        wal.commit().unwrap();
        drop(wal);
        medium = if life % 2 == 0 { medium.crash(life) } else { medium.kill() };
    }
}

#[test]
fn row_8_a_missing_segment_is_refused() {
    for missing in [1_u32, 2] {
        let medium = SimMedium::new(1, SimMode::Direct);
        let (wal, _) = open(&medium).unwrap();
        for index in 0..20 {
            wal.prepare().unwrap();
            append(&wal, &payload(1, index, 8000));
            wal.commit().unwrap();
        }
        wal.close().unwrap();
        let path = format!("log/{missing:010}.segment");
        medium.lose(&path);
        match refused(&medium) {
            OpenError::MissingSegment { file } => assert_eq!(file, path),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn row_9_a_damaged_header_of_a_segment_in_use_is_refused() {
    for range in [0..512, 20..21] {
        let (medium, _) = log(&[&[64], &[9000]]);
        medium.edit(FIRST, |bytes| bytes[range].fill(0x5A));
        assert!(matches!(refused(&medium), OpenError::DamagedHead { offset: 0, .. }));
    }
}

#[test]
fn row_10_segments_that_were_being_prepared_are_made_again() {
    let medium = SimMedium::new(1, SimMode::Direct);
    let (wal, _) = open(&medium).unwrap();
    wal.prepare().unwrap();
    let kept = append(&wal, &payload(1, 1, 64));
    wal.commit().unwrap();
    drop(wal);
    medium.edit(SECOND, |bytes| bytes.truncate(10_000));
    medium.edit(SECOND, |bytes| bytes[0..5000].fill(0x77));
    let (wal, records) = open(&medium).unwrap();
    assert_eq!(records, [kept]);
    assert_eq!(medium.bytes(SECOND).len() as u64, SEGMENT_BYTES);
    assert_eq!(wal.recovered().quarantined.len(), 1);
}

#[test]
fn row_11_two_damaged_slots_are_refused() {
    let (medium, _) = log(&[&[64], &[64]]);
    medium.edit(FIRST, |bytes| {
        bytes[4096 + 60] ^= 1;
        bytes[8192 + 60] ^= 1;
    });
    assert!(matches!(refused(&medium), OpenError::DamagedHead { offset: 4096, .. }));
}

#[test]
fn row_12_a_truncated_segment_is_refused() {
    for length in [SEGMENT_BYTES as usize - 1, 30_000, 16384, 4096] {
        let (medium, _) = log(&[&[64], &[9000]]);
        medium.edit(FIRST, |bytes| bytes.truncate(length));
        match refused(&medium) {
            OpenError::SegmentLength { bytes, expected, .. } => {
                assert_eq!((bytes, expected), (length as u64, SEGMENT_BYTES));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn row_13_another_stores_log_or_record_is_refused() {
    let (medium, history) = log(&[&[64]]);
    let mine = WalOptions { store_id: Some(1), ..options() };
    let outcome = open_with(Arc::new(medium.clone()), mine, None);
    assert!(matches!(outcome, Err(OpenError::ForeignStore { found: 0x4B61_6D69, expected: 1, .. })));

    let tail = history[0].end;
    let foreign = RecordHead {
        kind: RecordKind::Data,
        lsn: Lsn::from_bytes(tail).unwrap(),
        durable_end: None,
        length: 56,
        epoch: 1,
        store_id: 2,
        segment: 1,
    };
    let at = (tail % SEGMENT_BYTES) as usize;
    medium.edit(FIRST, |bytes| foreign.complete(&mut bytes[at..at + 56]));
    match refused(&medium) {
        OpenError::ForeignStore { found: 2, offset, .. } => assert_eq!(offset, at as u64),
        other => panic!("{other:?}"),
    }
}

#[test]
fn row_14_a_newer_format_is_refused() {
    for (at, version) in [(8, 2), (32, 1)] {
        let (medium, _) = log(&[&[64]]);
        medium.edit(FIRST, |bytes| {
            bytes[at] = 2;
            let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[16..64]);
            bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        });
        match refused(&medium) {
            OpenError::Unsupported { version: found, features, .. } => {
                assert_eq!((found, features), (version, if at == 32 { 2 } else { 0 }));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn row_15_no_record_at_all_is_a_new_log() {
    let medium = SimMedium::new(1, SimMode::Direct);
    medium.create_dir("log").unwrap();
    drop(medium.create_segment(FIRST, SEGMENT_BYTES).unwrap());
    let (wal, kept) = open(&medium).unwrap();
    assert!(kept.is_empty());
    assert_eq!((wal.epoch(), wal.recovered().tail), (1, None));
}

#[test]
fn row_15_a_lost_log_is_not_taken_for_a_new_one() {
    let hint = ReplayFrom { lsn: Lsn::from_bytes(1 << 20).unwrap(), durable_end_hint: None };
    let outcome = open_with(Arc::new(SimMedium::new(1, SimMode::Direct)), options(), Some(hint));
    assert!(matches!(outcome, Err(OpenError::MissingSegment { .. })));
}
