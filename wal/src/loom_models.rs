//! The lock-free parts of the log under loom: every interleaving and every reordering that the memory
//! model allows, over the production code.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p kami-wal --lib --release loom`

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};

use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use loom::thread;

use crate::drive;
use crate::durable::{Durability, Poisoned, Waiter};
use crate::format::{HEAD_BYTES, SEGMENT_BYTES_MIN};
use crate::memory::SegmentMemory;
use crate::parker::{Bell, Parker};
use crate::replay::Record;
use crate::simulated::{SimMedium, SimMode};
use crate::wal::{Drive, Wal, WalOptions};

/// Whoever has seen the tail sees complete bytes below it, while the appender goes on above it.
#[test]
fn loom_bytes_below_the_published_tail_are_complete() {
    loom::model(|| {
        let memory = Arc::new(SegmentMemory::anonymous(HEAD_BYTES + 64).unwrap());
        let tail = Arc::new(AtomicU64::new(0));
        let (writing, publishing) = (Arc::clone(&memory), Arc::clone(&tail));
        let appender = thread::spawn(move || {
            let mut token = writing.take_token().unwrap();
            for value in 1..=2_u8 {
                writing.above(&mut token, 8).fill(value);
                writing.publish(&mut token, 8);
                publishing.store(u64::from(value) * 8, Ordering::Release);
            }
        });
        let seen = tail.load(Ordering::Acquire);
        memory.with(HEAD_BYTES, seen, |bytes| {
            for (index, byte) in bytes.iter().enumerate() {
                assert_eq!(usize::from(*byte), index / 8 + 1);
            }
        });
        // The committer reads `published` itself.
        let published = memory.published();
        assert!(HEAD_BYTES + seen <= published);
        memory.with(HEAD_BYTES, published - HEAD_BYTES, |_| ());
        appender.join().unwrap();
    });
}

/// A blocked waiter is not left behind by the commit that covers it.
#[test]
fn loom_a_blocking_wait_ends() {
    loom::model(|| {
        let durability = Arc::new(Durability::new(8));
        let committing = Arc::clone(&durability);
        let committer = thread::spawn(move || {
            committing.advance(16).unwrap();
            committing.advance(24).unwrap();
        });
        assert_eq!(durability.wait(24), Ok(()));
        assert_eq!(durability.end(), 24);
        committer.join().unwrap();
    });
}

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

/// A task that was told to wait is woken by the commit that covers it, or by the poisoning.
#[test]
fn loom_a_polled_wait_is_woken() {
    for poison in [false, true] {
        loom::model(move || {
            let durability = Arc::new(Durability::new(8));
            let committing = Arc::clone(&durability);
            let committer = thread::spawn(move || {
                if poison {
                    assert!(committing.poison());
                } else {
                    committing.advance(16).unwrap();
                }
            });
            let flag = Arc::new(Flag(AtomicBool::new(false)));
            let waker = Waker::from(Arc::clone(&flag));
            let mut waiter = Waiter::new(Arc::clone(&durability));
            let first = waiter.poll(16, &Context::from_waker(&waker));
            committer.join().unwrap();
            if first.is_pending() {
                assert!(flag.0.load(Ordering::Acquire), "the waiter was forgotten");
            }
            let result = if poison { Err(Poisoned) } else { Ok(()) };
            assert_eq!(waiter.poll(16, &Context::from_waker(&waker)), std::task::Poll::Ready(result));
        });
    }
}

/// Work made before a wake is never slept through.
#[test]
fn loom_a_sleeper_does_not_miss_work() {
    loom::model(|| {
        let parker = Arc::new(Parker::new());
        let work = Arc::new(AtomicU64::new(0));
        let (waking, making) = (Arc::clone(&parker), Arc::clone(&work));
        let producer = thread::spawn(move || {
            for _ in 0..2 {
                making.fetch_add(1, Ordering::Release);
                waking.wake();
            }
        });
        while work.load(Ordering::Acquire) < 2 {
            let seen = work.load(Ordering::Acquire);
            parker.sleep(None, || work.load(Ordering::Acquire) != seen || seen == 2);
        }
        producer.join().unwrap();
    });
}

/// Whoever asked for a commit gets one that covers what it appended before, whoever else asked.
#[test]
fn loom_a_commit_that_was_asked_for_comes() {
    loom::model(|| {
        let (bell, tail) = (Arc::new(Bell::new(false)), Arc::new(AtomicU64::new(0)));
        let append = || {
            let (bell, tail) = (Arc::clone(&bell), Arc::clone(&tail));
            thread::spawn(move || {
                tail.fetch_add(1, Ordering::Relaxed);
                bell.ring();
            })
        };
        let appenders = [append(), append()];
        let mut durable = 0;
        if bell.answer() {
            durable = tail.load(Ordering::Relaxed);
        }
        for appender in appenders {
            appender.join().unwrap();
        }
        // Either somebody is still to be answered, or the answer covered both.
        assert!(bell.is_rung() || durable == 2);
    });
}

/// A log with one segment ready, driven by hand. The threads of a model may not use its disk at the same
/// time: that has locks which loom does not know.
fn log() -> Arc<Wal> {
    let options = WalOptions {
        store_id: Some(1),
        segment_bytes: SEGMENT_BYTES_MIN,
        ready_segments: 1,
        drive: Drive::Manual,
        ..WalOptions::default()
    };
    let medium = Arc::new(SimMedium::new(1, SimMode::Direct));
    let wal = Wal::open(medium, options, None, &mut |_: Record<'_>| Ok::<(), Infallible>(())).unwrap();
    wal.prepare().unwrap();
    Arc::new(wal)
}

/// The longest record: the third leaves a segment, and begins one that has room for one more.
fn append_long(wal: &Wal) {
    append(wal, wal.payload_bytes_max());
}

fn append(wal: &Wal, bytes: usize) {
    let mut credit = wal.reserve(bytes).unwrap();
    wal.append(&mut credit, bytes, |_, _| bytes).unwrap();
}

fn model(check: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.max_branches = 100_000;
    model.preemption_bound = Some(3);
    model.check(check);
}

/// An append that leaves its segment wakes the preparer, which looks at the appender while it goes to sleep.
/// Neither may hold what the other waits for, and the preparer may not sleep through it.
#[test]
fn loom_a_rotation_wakes_the_preparer() {
    model(|| {
        let wal = log();
        append_long(&wal);
        append_long(&wal);
        let sleeper = Arc::clone(&wal);
        let preparer = thread::spawn(move || {
            drive::sleep_until_wanted(sleeper.shared(), None);
            assert!(sleeper.shared().wants_segment(), "woken for nothing");
        });
        append_long(&wal);
        preparer.join().unwrap();
    });
}

/// A preparer that may make no more, because the disk is behind, is woken by the commit that lets go of a
/// segment, while another thread appends.
#[test]
fn loom_a_commit_that_lets_go_of_a_segment_wakes_the_preparer() {
    model(|| {
        let wal = log();
        // Two segments are left and in memory beside the current one, and none is ready.
        for _ in 0..5 {
            append_long(&wal);
            wal.prepare().unwrap();
        }
        assert!(!wal.shared().wants_segment());
        let (sleeper, committing) = (Arc::clone(&wal), Arc::clone(&wal));
        let preparer = thread::spawn(move || drive::sleep_until_wanted(sleeper.shared(), None));
        let committer = thread::spawn(move || committing.commit().unwrap());
        append(&wal, 64);
        committer.join().unwrap();
        preparer.join().unwrap();
        assert!(wal.shared().wants_segment());
    });
}

/// Whoever waits for room while a segment is being prepared is told when there is.
#[test]
fn loom_a_wait_for_room_ends() {
    model(|| {
        let wal = log();
        for _ in 0..3 {
            append_long(&wal);
        }
        while wal.has_space() {
            append(&wal, 4096);
        }
        let preparing = Arc::clone(&wal);
        let preparer = thread::spawn(move || preparing.prepare().unwrap());
        wal.shared().space_waiters.wait(|| wal.has_space());
        preparer.join().unwrap();
    });
}

/// A commit takes along what is complete and not yet below the tail: whoever read up to the durable end was told that it
/// lies beyond the log.
#[test]
fn loom_the_durable_end_was_above_the_tail() {
    model(|| {
        let wal = log();
        let (appending, committing) = (Arc::clone(&wal), Arc::clone(&wal));
        let appender = thread::spawn(move || append(&appending, 64));
        let committer = thread::spawn(move || committing.commit().unwrap());
        let end = wal.durable_end();
        assert!(end <= wal.tail());
        appender.join().unwrap();
        committer.join().unwrap();
    });
}

/// The preparer's failure did not stop a commit that was under way: what it wrote was acknowledged afterwards.
#[test]
fn loom_a_commit_was_acknowledged_after_a_failure() {
    loom::model(|| {
        let durability = Arc::new(Durability::new(8));
        let committing = Arc::clone(&durability);
        let committer = thread::spawn(move || committing.advance(16));
        assert!(durability.poison());
        let end = durability.end();
        let acknowledged = committer.join().unwrap().is_ok();
        assert_eq!(durability.end(), end);
        assert_eq!(acknowledged, end == 16);
    });
}
