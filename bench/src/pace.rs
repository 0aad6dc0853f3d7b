//! When commands of an open loop are due, and one task that wakes whoever has one.
//!
//! The runtime's timers count milliseconds, which is far too coarse, so somebody must look at the clock all the time.
//! If each of a thousand connections did, a look would take as long as a command. So one task looks for all: commands
//! are due in turn, one connection after the other, and it wakes the connection whose turn has come.

use std::cell::Cell;
use std::future::poll_fn;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

/// The times of a run. The command `n` of connection `part` is the command `n × parts + part` of all.
pub struct Pace {
    begun: Instant,
    rate: u64,
    sleepers: Vec<Cell<Option<Waker>>>,
}

impl Pace {
    /// `rate` commands a second from `begun` on, over so many connections.
    pub fn new(begun: Instant, rate: u32, parts: u32) -> Pace {
        let sleepers = (0..parts).map(|_| Cell::new(None)).collect();
        Pace { begun, rate: u64::from(rate), sleepers }
    }

    /// When the command `number` of connection `part` is due.
    pub fn due(&self, part: u64, number: u64) -> Instant {
        self.due_of_all(number * self.sleepers.len() as u64 + part)
    }

    fn due_of_all(&self, turn: u64) -> Instant {
        let (seconds, rest) = (turn / self.rate, turn % self.rate);
        self.begun + Duration::from_secs(seconds) + Duration::from_nanos(rest * 1_000_000_000 / self.rate)
    }

    /// Waits until that command is due. Only while [`Pace::keep`] runs.
    pub async fn wait(&self, part: u64, number: u64) {
        let due = self.due(part, number);
        poll_fn(|context| {
            if due <= Instant::now() {
                return Poll::Ready(());
            }
            // Its turn has not come, so it is woken after this.
            self.sleepers[part as usize].set(Some(context.waker().clone()));
            Poll::Pending
        })
        .await;
    }

    /// Wakes connections in turn, and never ends.
    pub async fn keep(&self) {
        let parts = self.sleepers.len() as u64;
        for turn in 0.. {
            while Instant::now() < self.due_of_all(turn) {
                tokio::task::yield_now().await;
            }
            if let Some(sleeper) = self.sleepers[(turn % parts) as usize].take() {
                sleeper.wake();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_connection_is_woken_when_its_turn_comes() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let begun = Instant::now();
        let pace = Pace::new(begun, 3_000, 3);
        assert_eq!(pace.due(2, 1) - begun, Duration::from_nanos(5_000_000_000 / 3_000));
        let wait = async |part| {
            for number in 0..10 {
                pace.wait(part, number).await;
                assert!(pace.due(part, number) <= Instant::now());
            }
        };
        runtime.block_on(async {
            tokio::select! {
                () = pace.keep() => unreachable!("it never ends"),
                _ = async { tokio::join!(wait(0), wait(1), wait(2)) } => {}
            }
        });
    }
}
