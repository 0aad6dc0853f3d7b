//! Reading an open log onwards: all of what is durable, in order, and nothing else.

use std::sync::Arc;

use kami_wal::{
    CommitChoice, DiskMedium, DiskOptions, Drive, Lsn, ReadError, RecordKind, SimMedium, SimMode, Wal,
    WalOptions,
};

use crate::world::{Kept, World, append, for_seeds, open, open_with, options, payload};

/// The DATA records from a cursor on, up to the durable end.
fn read(wal: &Wal, cursor: &mut kami_wal::Cursor) -> Vec<Kept> {
    let mut kept = Vec::new();
    let end = wal.durable_end();
    while let Some(record) = cursor.peek(wal, end).unwrap() {
        assert!(record.end <= end, "beyond what is durable");
        if record.kind == RecordKind::Data {
            kept.push(Kept {
                lsn: record.lsn.bytes(),
                end: record.end.bytes(),
                payload: record.payload.to_vec(),
            });
        }
        cursor.pass();
    }
    kept
}

/// At any moment of any life, over crashes and rotations: a cursor that follows has read all records below the
/// durable end once, and one that begins anywhere has the rest.
#[test]
fn what_is_durable_is_read_once_and_in_order() {
    for_seeds("cursor::what_is_durable_is_read_once_and_in_order", 100, |seed| {
        let mode = if seed % 2 == 0 { SimMode::Direct } else { SimMode::Mapped };
        let mut world = World::new(seed, mode);
        world.open().unwrap();
        for _ in 0..3 {
            let mut following = world.wal().cursor(1);
            let mut seen = Vec::new();
            for _ in 0..60 + world.random.below(100) {
                assert!(world.step());
                let wal = world.wal.as_ref().unwrap();
                seen.extend(read(wal, &mut following));
                let end = wal.durable_end();
                let durable = world.history.partition_point(|kept| kept.end <= end.bytes());
                assert!(seen[..] == world.history[..durable], "seed {seed}: not what was appended");
                if world.random.percent(20) {
                    // From anywhere: the records that end behind that place.
                    let after = 8 * (1 + world.random.below(end.bytes() / 8));
                    let wal = world.wal.as_ref().unwrap();
                    if after / 8 < 65536 / 8 {
                        continue;
                    }
                    let (mut cursor, _) = wal.cursor_after(Lsn::from_bytes(after).unwrap(), end).unwrap();
                    let rest = read(wal, &mut cursor);
                    let from = world.history[..durable].partition_point(|kept| kept.end < after);
                    assert!(rest[..] == world.history[from..durable], "seed {seed}: from {after}");
                }
            }
            world.crash();
            world.recover();
            while world.medium.is_cut() {
                world.crash();
                world.recover();
            }
            world.medium.cut_power_at(u64::MAX);
        }
    });
}

/// A place tells in which life of the log it was written.
#[test]
fn a_place_has_the_epoch_of_its_record() {
    let medium = SimMedium::new(1, SimMode::Direct);
    let mut places = Vec::new();
    for _ in 0..3 {
        let (wal, _) = open(&medium).unwrap();
        let kept = append(&wal, &payload(1, 1, 4000));
        wal.commit().unwrap();
        places.push((kept, wal.epoch()));
        wal.close().unwrap();
    }
    let (wal, _) = open(&medium).unwrap();
    wal.commit().unwrap();
    for (kept, epoch) in places {
        for after in [kept.lsn + 8, kept.lsn + 2000, kept.end] {
            let (_, found) = wal.cursor_after(Lsn::from_bytes(after).unwrap(), wal.durable_end()).unwrap();
            assert_eq!(found, Some(epoch), "at {after}");
        }
    }
}

/// Damage in a file is an error of the reader, and never the end of a segment.
#[test]
fn damage_is_an_error_and_not_an_end() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let disk =
        DiskOptions { commit_path: CommitChoice::Mapped, unsafe_filesystem: true, ..DiskOptions::default() };
    let medium = Arc::new(DiskMedium::open(directory.path(), disk).unwrap());
    let options = WalOptions { segment_bytes: 64 << 10, drive: Drive::Manual, ..options() };
    let (wal, _) = open_with(medium, options, None).unwrap();
    let mut kept = Vec::new();
    for index in 0..30 {
        wal.prepare().unwrap();
        kept.push(append(&wal, &payload(1, index, 8000)));
        wal.commit().unwrap();
    }
    assert!(kept[29].lsn > 3 * 65536, "over several segments");
    let victim = kept.iter().find(|kept| kept.lsn > 65536 + 30_000).unwrap();
    let path = directory.path().join("log/0000000001.segment");
    let mut bytes = std::fs::read(&path).unwrap();
    let offset = victim.lsn as usize - 65536;
    // The magic, as if nothing was ever written there.
    bytes[offset..offset + 48].fill(0);
    std::fs::write(&path, bytes).unwrap();
    let mut cursor = wal.cursor(1);
    let found = loop {
        match cursor.peek(&wal, wal.durable_end()) {
            Ok(Some(_)) => cursor.pass(),
            other => break other.map(|record| record.map(|record| record.lsn)),
        }
    };
    match found {
        Err(ReadError::Invalid { lsn }) => assert_eq!(lsn.bytes(), victim.lsn),
        other => panic!("{other:?}"),
    }
}
