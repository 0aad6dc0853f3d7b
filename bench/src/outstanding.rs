//! What a driver thread has under way: executed, not known durable.
//!
//! The engine executes at once and says from which log position on a reply may be believed. A server
//! keeps what it executed in a queue and sends replies as the durable end passes them; a driver does the
//! same and stops its clocks there. Nothing is allocated in a run: the queue has its full length from
//! the beginning.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Instant;

use kami_engine::{Engine, Lsn, Poisoned};

use crate::report::Latencies;

/// The queue of one thread. `T` is what is kept of an execution until it is durable.
pub struct Outstanding<'e, T> {
    engine: &'e Engine,
    queue: VecDeque<Executed<T>>,
    commands: u64,
    /// Commands known done and durable.
    pub done: u64,
    /// From submission to durable reply.
    pub latencies: Latencies,
}

struct Executed<T> {
    durable_at: Lsn,
    submitted: Instant,
    commands: u64,
    done: u64,
    kept: T,
}

impl<'e, T> Outstanding<'e, T> {
    /// An empty queue for up to `executions` of a run that began then.
    pub fn new(engine: &'e Engine, executions: usize, begun: Instant) -> Self {
        let queue = VecDeque::with_capacity(executions + 1);
        Outstanding { engine, queue, commands: 0, done: 0, latencies: Latencies::since(begun) }
    }

    /// Commands under way.
    pub fn commands(&self) -> u64 {
        self.commands
    }

    /// Adds an execution of `commands` of which `done` were answered DONE.
    #[inline]
    pub fn push(&mut self, durable_at: Lsn, submitted: Instant, commands: u64, done: u64, kept: T) {
        self.commands += commands;
        self.queue.push_back(Executed { durable_at, submitted, commands, done, kept });
    }

    /// Takes out what has become durable; `each` gets what was kept of it.
    #[inline]
    pub fn collect(&mut self, mut each: impl FnMut(T)) {
        let durable_end = self.engine.durable_end();
        if self.queue.front().is_none_or(|first| durable_end < first.durable_at) {
            return;
        }
        let now = Instant::now();
        while let Some(executed) = self.queue.pop_front_if(|first| first.durable_at <= durable_end) {
            self.commands -= executed.commands;
            self.done += executed.done;
            self.latencies.record_at(now, now - executed.submitted, executed.commands);
            each(executed.kept);
        }
    }

    /// Blocks until the oldest execution is durable. Returns whether there was one.
    pub fn wait(&mut self) -> Result<bool, Poisoned> {
        let Some(first) = self.queue.front() else { return Ok(false) };
        self.engine.wait_durable(first.durable_at)?;
        Ok(true)
    }
}

/// Runs a future on this thread.
pub fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}
