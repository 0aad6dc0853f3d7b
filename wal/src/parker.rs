//! A thread that sleeps when there is nothing to do, and is woken only if it sleeps.
//!
//! The sleeper announces itself and then looks for work once more; the waker makes work and then looks
//! for a sleeper. A sequentially consistent fence on both sides makes sure that one of them sees the
//! other. For the waker that is one fence and one load unless somebody really sleeps.

use std::time::Duration;

use crate::sync::{AtomicBool, Condvar, Mutex, Ordering, fence, wait};

pub(crate) struct Parker {
    asleep: AtomicBool,
    lock: Mutex<()>,
    woken: Condvar,
}

impl Parker {
    pub(crate) fn new() -> Self {
        Self { asleep: AtomicBool::new(false), lock: Mutex::new(()), woken: Condvar::new() }
    }

    /// Wakes the sleeper, if there is one. To be called after the work was made visible.
    pub(crate) fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) {
            // Taking the lock waits until the sleeper really waits, so that the signal is not lost.
            let _lock = self.lock.lock();
            self.asleep.store(false, Ordering::Relaxed);
            self.woken.notify_one();
        }
    }

    /// Sleeps until woken, at most for `limit`, unless there is work already. One thread only.
    pub(crate) fn sleep(&self, limit: Option<Duration>, has_work: impl Fn() -> bool) {
        let mut guard = self.lock.lock();
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if !has_work() {
            match limit {
                Some(_) => wait(&self.woken, &mut guard, limit),
                // Only a wake ends this: a spurious return of the wait does not.
                None => {
                    while self.asleep.load(Ordering::Relaxed) {
                        wait(&self.woken, &mut guard, None);
                    }
                }
            }
        }
        self.asleep.store(false, Ordering::Relaxed);
    }
}

/// A parker whose sleeper does what it is asked for, and nothing unasked. What was done before somebody asked is seen by
/// the answer that follows, however many asked.
pub(crate) struct Bell {
    rung: AtomicBool,
    pub(crate) parker: Parker,
}

impl Bell {
    pub(crate) fn new(rung: bool) -> Self {
        Self { rung: AtomicBool::new(rung), parker: Parker::new() }
    }

    /// Asks, and wakes the sleeper if it sleeps.
    pub(crate) fn ring(&self) {
        // Also where it is rung already: the answer takes the last of these and with it what was done before each.
        self.rung.swap(true, Ordering::AcqRel);
        self.parker.wake();
    }

    /// Whether somebody asked. Whoever asks from now on is answered another time.
    pub(crate) fn answer(&self) -> bool {
        self.rung.swap(false, Ordering::AcqRel)
    }

    /// Whether somebody has asked since.
    pub(crate) fn is_rung(&self) -> bool {
        self.rung.load(Ordering::Acquire)
    }
}
