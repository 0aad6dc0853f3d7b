//! What is durable, and who waits for it.
//!
//! `durable_end` only grows, and only after the device has reported success; never again after it has reported a
//! failure, to whomever: both are noted under the lock. A waiter registers under the lock and looks at `durable_end`
//! again before it lets go; the committer stores `durable_end` first and looks for waiters afterwards. So either the
//! waiter sees the new end or the committer sees the waiter, and nobody sleeps through a commit. A waiter is woken once,
//! by the commit that covers it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::sync::{AtomicBool, AtomicU64, Condvar, Mutex, MutexGuard, Ordering, wait};

/// The log is dead: a write or sync failed, so nothing is known of the bytes concerned, and nothing
/// will be acknowledged any more. The process should end; the next start decides from the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the log is poisoned by a failed write")]
pub struct Poisoned;

pub(crate) struct Durability {
    end: AtomicU64,
    poisoned: AtomicBool,
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    places: Vec<Option<(u64, Waker)>>,
    free: Vec<usize>,
    blocked: usize,
    /// Kept between commits so that waking allocates nothing.
    woken: Vec<Waker>,
}

impl Durability {
    pub(crate) fn new(end: u64) -> Self {
        Self {
            end: AtomicU64::new(end),
            poisoned: AtomicBool::new(false),
            waiting: Mutex::new(Waiting::default()),
            changed: Condvar::new(),
        }
    }

    /// The first position not known durable.
    pub(crate) fn end(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    pub(crate) fn is_poisoned(&self) -> bool {
        self.poisoned.load(Ordering::Acquire)
    }

    /// Everything below `end` is durable now, unless something else failed meanwhile: then nobody is told. Only the
    /// committer calls this.
    pub(crate) fn advance(&self, end: u64) -> Result<(), Poisoned> {
        let waiting = self.waiting.lock();
        if self.is_poisoned() {
            return Err(Poisoned);
        }
        self.end.store(end, Ordering::Release);
        self.wake(waiting, |position| position <= end);
        Ok(())
    }

    /// Nothing more will become durable. Returns whether this was the first call.
    pub(crate) fn poison(&self) -> bool {
        let waiting = self.waiting.lock();
        let first = !self.poisoned.swap(true, Ordering::AcqRel);
        self.wake(waiting, |_| true);
        first
    }

    fn wake(&self, mut waiting: MutexGuard<'_, Waiting>, due: impl Fn(u64) -> bool) {
        let mut woken = std::mem::take(&mut waiting.woken);
        for place in &mut waiting.places {
            if place.as_ref().is_some_and(|(position, _)| due(*position))
                && let Some((_, waker)) = place.take()
            {
                woken.push(waker);
            }
        }
        let blocked = waiting.blocked != 0;
        drop(waiting);
        if blocked {
            self.changed.notify_all();
        }
        // Outside the lock: a waker may run its task at once.
        woken.drain(..).for_each(Waker::wake);
        self.waiting.lock().woken = woken;
    }

    /// Whether everything below `position` is durable; `None` while that is open.
    fn settled(&self, position: u64) -> Option<Result<(), Poisoned>> {
        if position <= self.end() {
            Some(Ok(()))
        } else if self.is_poisoned() {
            Some(Err(Poisoned))
        } else {
            None
        }
    }

    /// Blocks until everything below `position` is durable.
    pub(crate) fn wait(&self, position: u64) -> Result<(), Poisoned> {
        if let Some(result) = self.settled(position) {
            return result;
        }
        let mut waiting = self.waiting.lock();
        waiting.blocked += 1;
        let result = loop {
            if let Some(result) = self.settled(position) {
                break result;
            }
            wait(&self.changed, &mut waiting, None);
        };
        waiting.blocked -= 1;
        result
    }
}

/// One waiter's place: a task that waits again and again keeps it, so that polling costs no search and
/// a commit wakes it once.
pub struct Waiter {
    durability: Arc<Durability>,
    place: Option<usize>,
}

impl Waiter {
    pub(crate) fn new(durability: Arc<Durability>) -> Self {
        Self { durability, place: None }
    }

    pub(crate) fn poll(&mut self, position: u64, context: &Context<'_>) -> Poll<Result<(), Poisoned>> {
        if let Some(result) = self.durability.settled(position) {
            return Poll::Ready(result);
        }
        let mut waiting = self.durability.waiting.lock();
        let place = match self.place {
            Some(place) => place,
            None => {
                let place = waiting.free.pop().unwrap_or_else(|| {
                    waiting.places.push(None);
                    waiting.places.len() - 1
                });
                self.place = Some(place);
                place
            }
        };
        match &mut waiting.places[place] {
            Some((waited, waker)) if waker.will_wake(context.waker()) => *waited = position,
            other => *other = Some((position, context.waker().clone())),
        }
        // The commit may have come in between.
        match self.durability.settled(position) {
            Some(result) => {
                waiting.places[place] = None;
                Poll::Ready(result)
            }
            None => Poll::Pending,
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            let mut waiting = self.durability.waiting.lock();
            waiting.places[place] = None;
            waiting.free.push(place);
        }
    }
}

/// Resolves when everything below a position is durable, or the log is dead.
pub struct Durable {
    waiter: Waiter,
    position: u64,
}

impl Durable {
    pub(crate) fn new(durability: Arc<Durability>, position: u64) -> Self {
        Self { waiter: Waiter::new(durability), position }
    }
}

impl Future for Durable {
    type Output = Result<(), Poisoned>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let position = self.position;
        self.waiter.poll(position, context)
    }
}
