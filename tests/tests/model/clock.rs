//! A clock that stands still until the test moves it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kami_engine::Clock;
use kami_engine::record::Clocks;

/// Wall clock, boot clock and boot number, shared with the engine that reads them.
#[derive(Clone)]
pub struct ManualClock(Arc<[AtomicU64; 3]>);

impl ManualClock {
    pub fn new(wall_ms: u64) -> ManualClock {
        ManualClock(Arc::new([wall_ms, 5_000, 1].map(AtomicU64::new)))
    }

    /// Both clocks go on.
    pub fn advance(&self, ms: u64) {
        self.0[0].fetch_add(ms, Ordering::Relaxed);
        self.0[1].fetch_add(ms, Ordering::Relaxed);
    }

    /// Somebody set the wall clock.
    pub fn set_wall_ms(&self, wall_ms: u64) {
        self.0[0].store(wall_ms, Ordering::Relaxed);
    }

    /// The machine was off for a while.
    pub fn reboot(&self, off_ms: u64) {
        self.0[0].fetch_add(off_ms, Ordering::Relaxed);
        self.0[1].store(3_000, Ordering::Relaxed);
        self.0[2].fetch_add(1, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn read(&self) -> Clocks {
        let [wall_ms, boot_ms, boot] = [0, 1, 2].map(|at: usize| self.0[at].load(Ordering::Relaxed));
        Clocks { wall_ms, boot_ms, boot_id: u128::from(boot) }
    }

    fn boot_ms(&self) -> u64 {
        self.0[1].load(Ordering::Relaxed)
    }
}
