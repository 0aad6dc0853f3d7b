//! The clock of the tests: it stands still unless it is told to go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kami_engine::Clock;
use kami_engine::record::Clocks;

/// Milliseconds since the start of the machine, for whoever moves them. Clones are the same clock.
#[derive(Clone)]
pub struct HandClock(pub Arc<AtomicU64>);

/// How long the machine is up when a test begins.
const UP_MS: u64 = 5000;

impl Default for HandClock {
    fn default() -> HandClock {
        HandClock(Arc::new(AtomicU64::new(UP_MS)))
    }
}

impl Clock for HandClock {
    fn read(&self) -> Clocks {
        let boot_ms = self.boot_ms();
        Clocks { wall_ms: 1_800_000_000_000 + boot_ms - UP_MS, boot_ms, boot_id: 1 }
    }

    fn boot_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
