//! Looks at something once a second while a run goes on: at a server's memory.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A thread that looks. It ends with [`Watch::end`], or when this is dropped.
pub struct Watch {
    end: Sender<()>,
    thread: JoinHandle<Vec<u64>>,
}

impl Watch {
    /// Takes a number at the end of every second from `begun` on. If there is none any more, it ends.
    pub fn start(begun: Instant, look: impl Fn() -> Option<u64> + Send + 'static) -> Watch {
        let (end, ended) = channel();
        let thread = std::thread::spawn(move || {
            let mut seen = Vec::new();
            loop {
                let next = begun + Duration::from_secs(seen.len() as u64 + 1);
                let wait = next.saturating_duration_since(Instant::now());
                if ended.recv_timeout(wait) != Err(RecvTimeoutError::Timeout) {
                    return seen;
                }
                match look() {
                    Some(number) => seen.push(number),
                    None => return seen,
                }
            }
        });
        Watch { end, thread }
    }

    /// What was seen at the end of each second.
    pub fn end(self) -> Vec<u64> {
        // It may have ended by itself.
        let _ = self.end.send(());
        self.thread.join().expect("looking does not panic")
    }
}
