//! What a log does when nothing goes wrong, on the simulated disk and on a real one.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use kami_wal::{
    CommitChoice, DiskMedium, DiskOptions, Drive, Lsn, NoSpace, ReplayFrom, SimMedium, SimMode, Verdict,
    WalOptions, verify,
};

use crate::world::{SEGMENT_BYTES, append, open, open_with, options, payload};

#[test]
fn records_come_back_in_order() {
    let medium = SimMedium::new(1, SimMode::Direct);
    let (wal, kept) = open(&medium).unwrap();
    assert!(kept.is_empty());
    let written: Vec<_> = (0..3).map(|index| append(&wal, &payload(1, index, 64))).collect();
    assert!(wal.durable_end() < wal.tail());
    wal.commit().unwrap();
    assert_eq!(wal.durable_end(), wal.tail());
    wal.close().unwrap();

    let (wal, kept) = open(&medium).unwrap();
    assert_eq!(kept, written);
    assert_eq!(wal.epoch(), 2);
    assert!(wal.recovered().quarantined.is_empty());
}

/// The last records of a segment that was left early, and is still in memory, were read beyond the segment's
/// end: the reading thread panicked. A retry of what was executed just before a rotation did that.
#[test]
fn the_last_record_before_a_rotation_is_read_from_memory() {
    let medium = SimMedium::new(1, SimMode::Direct);
    let (wal, _) = open(&medium).unwrap();
    wal.prepare().unwrap();
    let large = payload(1, 0, 12_000);
    let mut kept = append(&wal, &large);
    while kept.end % SEGMENT_BYTES < SEGMENT_BYTES - 2 * 12_048 {
        kept = append(&wal, &large);
    }
    // On towards the end of a block, so that next to nothing fills it up.
    while kept.end % 4096 < 3900 {
        kept = append(&wal, &payload(1, kept.end, 64));
    }
    let large = payload(1, 1, 14_000);
    let next = append(&wal, &large);
    assert_ne!(kept.lsn / SEGMENT_BYTES, next.lsn / SEGMENT_BYTES, "the large one did not fit");
    let mut bytes = Vec::new();
    for kept in [&kept, &next] {
        wal.read(Lsn::from_bytes(kept.lsn).unwrap(), &mut bytes).unwrap();
        assert_eq!(bytes, kept.payload);
    }
}

#[test]
fn a_small_commit_costs_one_block_and_a_large_one_pads_once() {
    let medium = SimMedium::new(1, SimMode::Direct);
    let (wal, _) = open(&medium).unwrap();
    let before = wal.stats();
    append(&wal, &[1; 64]);
    wal.commit().unwrap();
    let after = wal.stats();
    assert_eq!(after.slot_commits, before.slot_commits + 1);
    assert_eq!(after.bytes_written, before.bytes_written + 4096);
    append(&wal, &[1; 8000]);
    wal.commit().unwrap();
    let large = wal.stats();
    assert_eq!(large.slot_commits, after.slot_commits);
    assert_eq!(large.bytes_written, after.bytes_written + 3 * 4096);
    assert!(!wal.commit().unwrap(), "nothing is left to do");
}

#[test]
fn segments_rotate_and_every_record_can_be_read() {
    let medium = SimMedium::new(1, SimMode::Mapped);
    let (wal, _) = open(&medium).unwrap();
    let mut written = Vec::new();
    for index in 0..400 {
        wal.prepare().unwrap();
        written.push(append(&wal, &payload(7, index, 8 + (index as usize % 300) * 8)));
        if index % 3 == 0 {
            wal.commit().unwrap();
        }
    }
    let mut bytes = Vec::new();
    for kept in &written {
        wal.read(Lsn::from_bytes(kept.lsn).unwrap(), &mut bytes).unwrap();
        assert_eq!(bytes, kept.payload);
        let mut raw = vec![0; kept.payload.len()];
        wal.read_bytes(Lsn::from_bytes(kept.lsn + 48).unwrap(), &mut raw).unwrap();
        assert_eq!(raw, kept.payload);
    }
    assert!(wal.read(wal.tail(), &mut bytes).is_err());
    wal.close().unwrap();
    let report = verify(&medium, &options(), &mut |_| ()).unwrap();
    assert!(matches!(report.verdict, Verdict::Clean), "{report:?}");
    assert_eq!(report.data_records, 400);
    assert!(5 < report.segments && 0 < report.chain_values);
    let (wal, kept) = open(&medium).unwrap();
    assert_eq!(kept, written);

    // From the middle.
    drop(wal);
    let middle = &written[200];
    let from = ReplayFrom { lsn: Lsn::from_bytes(middle.lsn).unwrap(), durable_end_hint: None };
    let (_, kept) = open_with(Arc::new(medium.clone()), options(), Some(from)).unwrap();
    assert_eq!(kept, written[200..]);
}

#[test]
fn appending_nothing_changes_nothing() {
    let (wal, _) = open(&SimMedium::new(1, SimMode::Direct)).unwrap();
    let tail = wal.tail();
    let mut credit = wal.reserve(64).unwrap();
    assert_eq!(wal.append(&mut credit, 64, |_, _| 0), None);
    assert_eq!(wal.tail(), tail);
}

#[test]
fn credit_is_refused_when_no_segment_is_ready_and_given_back_when_dropped() {
    let (wal, _) = open(&SimMedium::new(1, SimMode::Direct)).unwrap();
    let first = wal.reserve(12_000).unwrap();
    assert_eq!(wal.reserve(12_000).err(), Some(NoSpace::Busy));
    drop(first);
    wal.reserve(10_000).unwrap();
    assert_eq!(wal.reserve(100_000).err(), Some(NoSpace::TooLarge));
}

#[derive(Default)]
struct CountedWake(AtomicUsize);

impl Wake for CountedWake {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_waiter_is_woken_once_by_the_commit_that_covers_it() {
    let (wal, _) = open(&SimMedium::new(1, SimMode::Direct)).unwrap();
    let count = Arc::new(CountedWake::default());
    let waker = Waker::from(Arc::clone(&count));
    let mut context = Context::from_waker(&waker);
    append(&wal, &[1; 8]);
    let mut waiter = wal.waiter();
    for _ in 0..3 {
        assert!(waiter.poll_durable(wal.tail(), &context).is_pending());
    }
    let mut future = pin!(wal.durable(wal.tail()));
    assert!(future.as_mut().poll(&mut context).is_pending());
    wal.commit().unwrap();
    assert_eq!(count.0.load(Ordering::SeqCst), 2);
    assert_eq!(future.as_mut().poll(&mut context), Poll::Ready(Ok(())));
    assert!(waiter.poll_durable(wal.tail(), &context).is_ready());
    append(&wal, &[1; 8]);
    wal.commit().unwrap();
    assert_eq!(count.0.load(Ordering::SeqCst), 2);
}

#[test]
fn threads_make_it_durable_on_a_real_disk() {
    for choice in [CommitChoice::Auto, CommitChoice::Mapped] {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let disk = DiskOptions { commit_path: choice, unsafe_filesystem: true, ..DiskOptions::default() };
        let options = || WalOptions {
            drive: Drive::Threads,
            segment_bytes: 16 * SEGMENT_BYTES,
            ..WalOptions::default()
        };
        let medium = Arc::new(DiskMedium::open(directory.path(), disk).unwrap());
        let (wal, _) = open_with(medium, options(), None).unwrap();
        let mut written = Vec::new();
        for index in 0..200 {
            let payload = payload(3, index, 20_000);
            written.push(loop {
                match crate::world::try_append(&wal, &payload) {
                    Ok(kept) => break kept,
                    Err(NoSpace::Busy) => std::thread::sleep(std::time::Duration::from_millis(1)),
                    Err(other) => panic!("{other}"),
                }
            });
            wal.kick();
            if index % 10 == 0 {
                wal.wait_durable(wal.tail()).unwrap();
            }
        }
        let mut bytes = Vec::new();
        for kept in &written {
            wal.read(Lsn::from_bytes(kept.lsn).unwrap(), &mut bytes).unwrap();
            assert_eq!(bytes, kept.payload);
        }
        wal.close().unwrap();
        let medium = Arc::new(DiskMedium::open(directory.path(), disk).unwrap());
        let report = verify(&*medium, &options(), &mut |_| ()).unwrap();
        assert!(matches!(report.verdict, Verdict::Clean), "{report:?}");
        let (wal, kept) = open_with(medium, options(), None).unwrap();
        assert_eq!(kept, written);
        wal.close().unwrap();
    }
}

/// The next segment is made in the memory of the one that was left, which comes back with the commit, unless there is none
/// to go on in.
#[test]
fn a_segment_waits_for_the_memory_of_the_one_that_was_left() {
    let medium = SimMedium::new(1, SimMode::Direct);
    let (wal, _) = open(&medium).unwrap();
    wal.prepare().unwrap();
    let ready = || wal.stats().ready_segments;
    assert_eq!(ready(), 2);
    let leave_a_segment = || {
        let before = ready();
        while ready() == before {
            append(&wal, &payload(1, 1, 4000));
        }
    };
    leave_a_segment();
    wal.prepare().unwrap();
    assert_eq!(ready(), 1, "nothing was committed, so nothing came back");
    wal.commit().unwrap();
    wal.prepare().unwrap();
    assert_eq!(ready(), 2);
    leave_a_segment();
    leave_a_segment();
    wal.prepare().unwrap();
    assert_eq!(ready(), 1, "a log that has none to go on in waits for nothing");
    wal.commit().unwrap();
    wal.prepare().unwrap();
    assert_eq!(ready(), 2);
}
