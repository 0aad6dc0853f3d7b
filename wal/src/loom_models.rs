//! The lock-free parts of the log under loom: every interleaving and every reordering that the memory
//! model allows, over the production code.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p kami-wal --lib --release loom`

use std::sync::Arc;
use std::task::{Context, Wake, Waker};

use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use loom::thread;

use crate::durable::{Durability, Poisoned, Waiter};
use crate::format::HEAD_BYTES;
use crate::memory::SegmentMemory;
use crate::parker::Parker;

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
            committing.advance(16);
            committing.advance(24);
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
                    committing.advance(16);
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
