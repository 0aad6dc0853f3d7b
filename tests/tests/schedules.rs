//! Larger compositions under shuttle: the log with its two threads, appenders, waiters, readers and power cuts; and whole
//! engines, with clients that race, snapshots, imports and a feed beside them.
//!
//! loom (`cfg(loom)`, in the crates themselves) tries every interleaving of two or three threads over a few steps, and
//! every weak order of memory. What is made of a hundred thousand steps it cannot; here shuttle runs such compositions of
//! the production code, by `cfg(shuttle)`, in schedules that a seed chooses: every use of a lock, an atomic or a thread is
//! a point where another may go on. Even seeds choose at random, odd ones by PCT (few preemptions, at chosen steps). A
//! schedule in which nobody can go on, or that does not end, is a failure too. Orders of memory weaker than sequential are loom's matter.
//!
//! `campaign run schedules`, or one seed by the command that a failure prints. Nothing else of this program runs under
//! `cfg(shuttle)`, where locks work only inside of a schedule.

mod engine;
mod log;

use kami_tests::binaries::whole;
use kami_tests::random::for_seeds;
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, FailurePersistence, MaxSteps, Runner};

/// Preemptions of a schedule by PCT.
const PREEMPTIONS: usize = 4;
/// Schedules of an odd seed: the first tells PCT how long they are.
const SCHEDULES: usize = 3;

/// Runs `body` with each seed, in schedules that follow from it.
fn in_schedules(test: &'static str, body: fn(u64)) {
    let mut config = Config::default();
    // Debug builds of the engine have deep frames.
    config.stack_size = 2 << 20;
    config.max_steps = MaxSteps::FailAfter(20_000_000);
    config.failure_persistence = FailurePersistence::None;
    config.silence_warnings = true;
    for_seeds(&whole(test), 20, |seed, _| {
        let body = move || body(seed);
        if seed.is_multiple_of(2) {
            Runner::new(RandomScheduler::new_from_seed(seed, 1), config.clone()).run(body);
        } else {
            Runner::new(PctScheduler::new_from_seed(seed, PREEMPTIONS, SCHEDULES), config.clone()).run(body);
        }
    });
}
