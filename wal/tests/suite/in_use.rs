//! Reading beside the process that appends: only what is durable, all of it in order, and nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kami_wal::format::SLOT_OFFSETS;
use kami_wal::{
    Buffer, CommitChoice, DiskError, DiskMedium, DiskOptions, Drive, DurableLog, Lsn, Medium, NoSpace,
    OpenError, ReadOnlyDisk, RecordHead, RecordKind, SimMedium, SimMode, Wal, WalOptions,
};

use crate::world::{
    Kept, SEGMENT_BYTES, World, append, for_seeds, open, open_with, options, payload, try_append,
};

const STORE: u64 = 0x4B61_6D69;

/// Everything a reader finds, and where it ends.
fn read(medium: &dyn Medium) -> Result<(Vec<Kept>, u64), OpenError> {
    let Some(log) = DurableLog::open(medium, STORE)? else { return Ok((Vec::new(), 0)) };
    let mut kept = Vec::new();
    let mut buffer = Buffer::default();
    for number in log.first_segment()..=log.last_segment() {
        let segment = log.segment(number, buffer)?;
        for record in segment.records().filter(|record| record.kind == RecordKind::Data) {
            kept.push(Kept {
                lsn: record.lsn.bytes(),
                end: record.end.bytes(),
                payload: record.payload.to_vec(),
            });
        }
        buffer = segment.into_buffer();
    }
    Ok((kept, log.end().bytes()))
}

/// At any moment of any life: what is read is a prefix of what was appended, it is durable, and no crash takes any of
/// it back.
#[test]
fn what_is_read_survives_every_crash() {
    for_seeds("in_use::what_is_read_survives_every_crash", 100, |seed| {
        let mode = if seed % 2 == 0 { SimMode::Direct } else { SimMode::Mapped };
        let mut world = World::new(seed, mode);
        world.open().unwrap();
        let mut read_last = 0;
        for _ in 0..3 {
            for _ in 0..60 + world.random.below(100) {
                assert!(world.step());
                if world.random.percent(20) {
                    let (kept, end) = read(&world.medium).unwrap();
                    assert!(end <= world.wal().durable_end().bytes(), "seed {seed}: read what may be lost");
                    assert!(kept[..] == world.history[..kept.len()], "seed {seed}: no prefix");
                    assert!(world.history.get(kept.len()).is_none_or(|next| end < next.end), "seed {seed}");
                    assert!(read_last <= end, "seed {seed}: the end went back");
                    read_last = end;
                }
            }
            // After a seal it is all there.
            while world.wal().commit().unwrap() {}
            world.wal().seal().unwrap();
            assert_eq!(read(&world.medium).unwrap().1, world.wal().durable_end().bytes(), "seed {seed}");
            let before = world.history.partition_point(|kept| kept.end <= read_last);
            world.crash();
            let (kept, end) = read(&world.medium).unwrap();
            assert!(read_last <= end && before <= kept.len(), "seed {seed}: a crash took back what was read");
            world.recover();
            while world.medium.is_cut() {
                world.crash();
                world.recover();
            }
            world.medium.cut_power_at(u64::MAX);
        }
    });
}

#[test]
fn damage_below_the_end_is_named_and_not_waited_for() {
    let medium = SimMedium::new(1, SimMode::Direct);
    let (wal, _) = open(&medium).unwrap();
    let kept = append(&wal, &payload(1, 1, 9000));
    append(&wal, &payload(1, 2, 9000));
    wal.commit().unwrap();
    wal.seal().unwrap();
    assert_eq!(read(&medium).unwrap().0.len(), 2);
    let damaged = medium.kill();
    damaged.edit("log/0000000001.segment", |bytes| bytes[kept.lsn as usize % 65536 + 5000] ^= 1);
    match read(&damaged) {
        Err(OpenError::Corrupt { file, lsn, .. }) => {
            assert_eq!((file.as_str(), lsn.bytes()), ("log/0000000001.segment", kept.lsn));
        }
        other => panic!("{:?}", other.map(|(kept, end)| (kept.len(), end))),
    }
}

/// A segment is entered with what was known to be durable then. A commit that ends meanwhile says more, in the one
/// before: what was read once must not go away.
#[test]
fn the_end_is_the_largest_that_either_of_the_newest_segments_knows() {
    let medium = SimMedium::new(1, SimMode::Mapped);
    let (wal, _) = open(&medium).unwrap();
    append(&wal, &payload(1, 0, 64));
    while wal.commit().unwrap() {}
    wal.prepare().unwrap();
    let mut last = append(&wal, &payload(1, 1, 9000));
    for index in 2.. {
        let next = append(&wal, &payload(1, index, 9000));
        if next.lsn / SEGMENT_BYTES != last.lsn / SEGMENT_BYTES {
            break;
        }
        last = next;
    }
    let left = medium.kill();
    let entered = read(&left).unwrap().1;
    assert!(entered < last.end);
    let path = format!("log/{:010}.segment", last.lsn / SEGMENT_BYTES);
    left.edit(&path, |bytes| {
        let slots = SLOT_OFFSETS.map(|offset| offset as usize);
        let valid = slots.into_iter().filter_map(|at| Some((at, RecordHead::decode(&bytes[at..]).ok()?)));
        let (at, mut head) = valid.max_by_key(|(_, head)| head.durable_end).expect("a lone small commit");
        head.durable_end = Lsn::from_bytes(last.end);
        head.complete(&mut bytes[at..at + head.length as usize]);
    });
    assert_eq!(read(&left).unwrap().1, last.end);
}

#[test]
fn whoever_changes_a_directory_and_those_who_look_keep_each_other_out() {
    let directory = tempfile::TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let options = DiskOptions { unsafe_filesystem: true, ..DiskOptions::default() };
    // Nobody ever changed it under a lock.
    drop(ReadOnlyDisk::open_locked(directory.path()).unwrap());
    let changing = DiskMedium::open(directory.path(), options).unwrap();
    let me = std::process::id();
    let refused = ReadOnlyDisk::open_locked(directory.path()).unwrap_err();
    assert!(matches!(refused, DiskError::InUse { pid: Some(pid), .. } if pid == me), "{refused}");
    drop(changing);
    let looking = [(); 2].map(|()| ReadOnlyDisk::open_locked(directory.path()).unwrap());
    // The number in the file is that of the one before.
    let refused = DiskMedium::open(directory.path(), options).unwrap_err();
    assert!(matches!(refused, DiskError::InUse { pid: None, .. }), "{refused}");
    drop(looking);
    DiskMedium::open(directory.path(), options).unwrap();
}

/// Stops the appenders, also when the reader panics: the scope would wait for them for ever.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A real disk, real threads, a reader that takes no lock.
fn beside_threads(commit_path: CommitChoice) {
    let directory = tempfile::TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let disk = DiskOptions { commit_path, unsafe_filesystem: true, ..DiskOptions::default() };
    let medium: Arc<dyn Medium> = Arc::new(DiskMedium::open(directory.path(), disk).unwrap());
    let threaded = WalOptions {
        segment_bytes: 1 << 20,
        drive: Drive::Threads,
        seal_after: Duration::from_millis(1),
        ..options()
    };
    let (wal, _) = open_with(medium, threaded, None).unwrap();
    let stop = AtomicBool::new(false);
    let mut looks = Vec::new();
    let appended: BTreeMap<u64, Kept> = std::thread::scope(|scope| {
        let appender = |seed: u64| {
            let (wal, stop): (&Wal, &AtomicBool) = (&wal, &stop);
            scope.spawn(move || {
                let mut appended = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let index = appended.len() as u64;
                    match try_append(wal, &payload(seed, index, 8 + (index * 37 % 600) as usize * 8)) {
                        Ok(kept) => appended.push(kept),
                        Err(NoSpace::Busy) => wal.wait_space(),
                        Err(other) => panic!("{other}"),
                    }
                    wal.kick();
                    if index.is_multiple_of(50) {
                        wal.wait_durable(wal.tail()).unwrap();
                    }
                }
                appended
            })
        };
        let threads = [appender(1), appender(2)];
        let stopping = Stop(&stop);
        let reader = ReadOnlyDisk::open(directory.path()).unwrap();
        // Until the log has gone through several segments.
        while looks.len() < 20 || looks.last().is_none_or(|(_, end)| *end < 6 << 20) {
            let look = read(&reader).unwrap();
            assert!(look.1 <= wal.durable_end().bytes(), "read what may be lost");
            looks.push(look);
        }
        drop(stopping);
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).map(|kept| (kept.lsn, kept)).collect()
    });
    for (kept, end) in looks {
        let below: Vec<&Kept> = appended.values().take_while(|kept| kept.end <= end).collect();
        assert!(kept.iter().eq(below), "a look that ended at {end} was no prefix");
    }
}

#[test]
fn beside_threads_on_a_disk() {
    beside_threads(CommitChoice::Auto);
}

#[test]
fn beside_threads_on_a_mapped_disk() {
    beside_threads(CommitChoice::Mapped);
}
