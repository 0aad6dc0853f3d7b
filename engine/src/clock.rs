//! Time: the only file that reads a clock.
//!
//! Engine time is the time of the last group in the log. It never goes back and it is the only time that
//! decisions and replay know. It advances by the boot-time clock, which nobody can set; the wall clock
//! is read once, at the start. A wall clock that stepped by more than [`STEP_MS_MAX`] since the engine
//! last looked is not believed until an operator says so, because expiry cannot be taken back.

use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use kami_wal::planted;

use crate::record::Clocks;

/// A step of the wall clock larger than this needs an operator.
pub const STEP_MS_MAX: u64 = 10 * 60 * 1000;

/// A new group is a tick when engine time is at least this far behind.
pub const TICK_MS: u64 = 100;

/// Where time comes from; tests bring their own.
pub trait Clock: Send + Sync + 'static {
    /// Wall clock, boot clock and boot identity now.
    fn read(&self) -> Clocks;
    /// The boot clock alone, milliseconds.
    fn boot_ms(&self) -> u64;
}

/// The machine's clocks.
#[derive(Debug)]
pub struct SystemClock {
    boot_id: u128,
}

impl SystemClock {
    /// Reads which boot this is.
    ///
    /// # Errors
    /// If the kernel does not tell.
    pub fn new() -> io::Result<SystemClock> {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        let hex: String = text.chars().filter(char::is_ascii_hexdigit).collect();
        let boot_id = u128::from_str_radix(&hex, 16)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "the kernel's boot id is no uuid"))?;
        Ok(SystemClock { boot_id })
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the wall clock")]
    fn read(&self) -> Clocks {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Clocks { wall_ms: wall.as_millis() as u64, boot_ms: self.boot_ms(), boot_id: self.boot_id }
    }

    fn boot_ms(&self) -> u64 {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000
    }
}

/// The wall clock is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the wall clock stepped by more than 10 minutes: it says `{wall_ms}`, expected about `{expected_ms}` \
     (milliseconds since 1970); set it right, or accept it with --accept-clock"
)]
pub struct ClockStep {
    /// What the wall clock says.
    pub wall_ms: u64,
    /// What it should say at least.
    pub expected_ms: u64,
}

/// Whether the wall clock can be believed at a start, given the clocks at the last start and the last
/// time in the log.
///
/// Within one boot the boot clock tells exactly how far the wall clock must have come. Across boots all
/// that is known is that it cannot be earlier than what was logged.
///
/// # Errors
/// The step.
pub fn check_step(now: &Clocks, last: &Clocks, last_ms: u64) -> Result<(), ClockStep> {
    let step = |expected_ms| Err(ClockStep { wall_ms: now.wall_ms, expected_ms });
    if now.boot_id == last.boot_id && last.boot_id != 0 {
        let expected = last.wall_ms + now.boot_ms.saturating_sub(last.boot_ms);
        if now.wall_ms.abs_diff(expected) > STEP_MS_MAX {
            return step(expected);
        }
    }
    if now.wall_ms + STEP_MS_MAX < last_ms {
        return step(last_ms);
    }
    Ok(())
}

/// Engine time as it runs on from a start.
#[derive(Clone, Copy, Debug)]
pub struct Running {
    base_ms: u64,
    base_boot_ms: u64,
}

impl Running {
    /// Begins at the wall clock, but never before the last time in the log.
    #[must_use]
    pub fn start(now: &Clocks, last_ms: u64) -> Running {
        let last_ms = if planted("time-follows-the-wall-clock") { 0 } else { last_ms };
        Running { base_ms: now.wall_ms.max(last_ms), base_boot_ms: now.boot_ms }
    }

    /// Engine time at this reading of the boot clock.
    #[must_use]
    pub fn at(&self, boot_ms: u64) -> u64 {
        self.base_ms + boot_ms.saturating_sub(self.base_boot_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_seen_and_small_drifts_are_not() {
        let at = |wall_ms, boot_ms, boot_id| Clocks { wall_ms, boot_ms, boot_id };
        let year = 365 * 24 * 3600 * 1000;
        let last = at(10 * year, 1000, 1);
        assert!(check_step(&at(10 * year + 5000, 6000, 1), &last, 10 * year).is_ok());
        assert!(check_step(&at(10 * year + 5000 + STEP_MS_MAX, 6000, 1), &last, 10 * year).is_ok());
        assert!(check_step(&at(11 * year, 6000, 1), &last, 10 * year).is_err(), "forward within a boot");
        assert!(check_step(&at(9 * year, 6000, 1), &last, 10 * year).is_err(), "back within a boot");
        assert!(check_step(&at(9 * year, 6000, 2), &last, 10 * year).is_err(), "back across boots");
        assert!(
            check_step(&at(11 * year, 6000, 2), &last, 10 * year).is_ok(),
            "the machine was off for a year"
        );
    }

    #[test]
    fn engine_time_never_goes_back() {
        let now = Clocks { wall_ms: 500, boot_ms: 100, boot_id: 1 };
        let running = Running::start(&now, 900);
        assert_eq!(running.at(100), 900);
        assert_eq!(running.at(150), 950);
        assert_eq!(running.at(50), 900, "a boot clock read before the start");
    }
}
