//! When what was decided is committed: once nobody has more to decide.
//!
//! A commit takes as much processor time as some lone commands, and while the server is busy it takes that time from those who
//! decide. So streams only say that something waits. One task asks for the commits, and lets all others have their turn
//! first. Where there is nothing else to do, that is at once. Under load it is when a round of turns has brought nothing
//! new, after [`GATHERING_MAX`], or when [`GATHERED_BYTES_MAX`] wait: then one commit serves many streams. The thread
//! that gathers never idles while something waits for a commit that nobody asked for.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kami_engine::{Engine, Lsn};
use tokio::sync::Notify;

/// So long the other tasks have their turn first, 61 of them a round. Who floods the server with what changes nothing, or with
/// a little now and then, makes nobody wait longer than that and a round.
const GATHERING_MAX: Duration = Duration::from_millis(2);
/// More of the log than this waits for nothing.
const GATHERED_BYTES_MAX: u64 = 256 << 10;

#[derive(Default)]
pub(crate) struct Gather {
    /// Something was decided since the commit that was asked for last.
    waiting: AtomicBool,
    /// Up to here a commit was asked for.
    asked: AtomicU64,
    notify: Notify,
}

impl Gather {
    /// What was decided is to be committed up to `end`, with what comes next.
    pub(crate) fn add(&self, engine: &Engine, end: Lsn) {
        if end <= engine.durable_end() {
            return;
        }
        if end.bytes().saturating_sub(self.asked.load(Ordering::Relaxed)) >= GATHERED_BYTES_MAX {
            self.asked.store(end.bytes(), Ordering::Relaxed);
            engine.commit_soon();
        } else if !self.waiting.swap(true, Ordering::AcqRel) {
            self.notify.notify_one();
        }
    }

    /// Asks for the commits; never ends.
    pub(crate) async fn keep(&self, engine: &Engine) {
        loop {
            self.notify.notified().await;
            let (begun, mut seen) = (Instant::now(), engine.tail());
            loop {
                tokio::task::yield_now().await;
                let tail = engine.tail();
                if tail == seen || begun.elapsed() >= GATHERING_MAX {
                    break;
                }
                seen = tail;
            }
            // Whoever finds it set has decided before, so the commit that is asked for next covers it.
            self.waiting.swap(false, Ordering::AcqRel);
            self.asked.store(seen.bytes(), Ordering::Relaxed);
            engine.commit_soon();
        }
    }
}
