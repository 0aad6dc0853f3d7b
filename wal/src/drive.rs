//! The two threads: loops around what a test can also call by hand.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::space::NoSpace;
use crate::sync::Ordering;
use crate::sync::coarse::thread::{Builder, JoinHandle};
use crate::wal::Shared;

/// Starts the committer and the preparer.
pub(crate) fn start(shared: &Arc<Shared>) -> io::Result<Vec<JoinHandle<()>>> {
    let (committing, preparing) = (Arc::clone(shared), Arc::clone(shared));
    let committer = Builder::new().name("wal-commit".to_owned()).spawn(move || commit_loop(&committing))?;
    let preparer = Builder::new().name("wal-prepare".to_owned()).spawn(move || prepare_loop(&preparing));
    match preparer {
        Ok(preparer) => Ok(vec![committer, preparer]),
        Err(error) => {
            shared.stopping.store(true, Ordering::Release);
            shared.commit_bell.parker.wake();
            let _ = committer.join();
            Err(error)
        }
    }
}

fn commit_loop(shared: &Shared) {
    let bell = &shared.commit_bell;
    let has_work = || bell.is_rung() || shared.stopping.load(Ordering::Acquire);
    while !shared.stopping.load(Ordering::Acquire) {
        // The tail is looked at after the answer, so that it covers what everybody who asked had appended.
        match if bell.answer() { shared.commit() } else { Ok(false) } {
            Ok(true) => {}
            Ok(false) => {
                // Sealing costs a write, so only a pause is worth one, not every gap between commits.
                bell.parker.sleep(Some(shared.options.seal_after), has_work);
                if !has_work() {
                    if shared.seal().is_err() {
                        return;
                    }
                    bell.parker.sleep(None, has_work);
                }
            }
            Err(_) => return,
        }
    }
}

/// How far the preparer steps back for those who serve, as nice(2) counts.
const PREPARER_NICE: i32 = 10;

fn prepare_loop(shared: &Shared) {
    // There is half a segment's time for making the next, but touching its memory for the first time can keep a processor
    // for as long as ten thousand commands take. Whoever waits for it stops using the processor. Linux takes the number of a
    // thread here; where that is refused, it works as well.
    if !cfg!(shuttle) {
        let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), PREPARER_NICE);
    }
    while !shared.stopping.load(Ordering::Acquire) {
        let limit = match shared.prepare() {
            Ok(()) => None,
            Err(NoSpace::DiskFull) => Some(shared.options.retry_disk_full_after),
            Err(_) => return,
        };
        sleep_until_wanted(shared, limit);
    }
}

/// The preparer's pause. It looks at the appender with its parker locked, so whoever wakes it must not hold the
/// appender's lock: each would wait for the other.
pub(crate) fn sleep_until_wanted(shared: &Shared, limit: Option<Duration>) {
    shared.preparer_parker.sleep(limit, || {
        let stopping = shared.stopping.load(Ordering::Acquire);
        stopping || (limit.is_none() && shared.wants_segment())
    });
}
