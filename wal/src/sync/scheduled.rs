//! shuttle's atomics, locks and threads with the interface of those that a release has. Every use of one is a point where
//! another thread may go on.
//!
//! All threads of a schedule are one thread of the machine, so nothing may block but these: a lock of another kind that
//! is held while one of these is used stops everything.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use shuttle::sync as model;

pub use shuttle::sync::Condvar;
pub use shuttle::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering, fence};

const DIED: &str = "a thread panicked in the schedule";

/// What loom does not know.
pub mod coarse {
    pub use super::{AtomicBool, AtomicU8, AtomicU64, Mutex, MutexGuard, RwLock};
    pub use shuttle::thread;
}

/// shuttle's mutex.
#[derive(Default)]
pub struct Mutex<T>(model::Mutex<T>);

/// The guard of [`Mutex`]; empty only inside [`wait`] and [`MutexGuard::unlocked`], which hold it exclusively.
pub struct MutexGuard<'a, T> {
    mutex: &'a Mutex<T>,
    guard: Option<model::MutexGuard<'a, T>>,
}

impl<T> Mutex<T> {
    /// A lock around `value`.
    pub const fn new(value: T) -> Self {
        Self(model::Mutex::new(value))
    }

    /// Waits for the lock.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard { mutex: self, guard: Some(self.0.lock().expect(DIED)) }
    }

    /// The lock, if it is free.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        let guard = self.0.try_lock().ok()?;
        Some(MutexGuard { mutex: self, guard: Some(guard) })
    }
}

impl<T> Mutex<T> {
    /// The lock, if it becomes free while others have some turns: as long as any limit is.
    pub fn try_lock_for(&self, _limit: Duration) -> Option<MutexGuard<'_, T>> {
        const TURNS: usize = 20;
        let looks = std::iter::repeat_with(|| self.try_lock().ok_or_else(shuttle::thread::yield_now));
        looks.take(TURNS).find_map(Result::ok)
    }
}

impl<T> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mutex")
    }
}

impl<T> MutexGuard<'_, T> {
    /// Gives the lock back while `meanwhile` runs.
    pub fn unlocked<R>(guard: &mut Self, meanwhile: impl FnOnce() -> R) -> R {
        guard.guard = None;
        let result = meanwhile();
        guard.guard = Some(guard.mutex.0.lock().expect(DIED));
        result
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.guard.as_ref().expect("held")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.guard.as_mut().expect("held")
    }
}

/// shuttle's lock for one writer or many readers.
#[derive(Default)]
pub struct RwLock<T>(model::RwLock<T>);

impl<T> RwLock<T> {
    /// A lock around `value`.
    pub const fn new(value: T) -> Self {
        Self(model::RwLock::new(value))
    }

    /// Waits until nobody writes.
    pub fn read(&self) -> model::RwLockReadGuard<'_, T> {
        self.0.read().expect(DIED)
    }

    /// Waits until nobody else holds it.
    pub fn write(&self) -> model::RwLockWriteGuard<'_, T> {
        self.0.write().expect(DIED)
    }
}

/// Waits on `condvar`. Time does not pass in a schedule: what has a limit ends at once, after others had their turn,
/// as if the limit had been reached then.
pub(crate) fn wait<T>(condvar: &Condvar, guard: &mut MutexGuard<'_, T>, limit: Option<Duration>) {
    match limit {
        Some(_) => MutexGuard::unlocked(guard, shuttle::thread::yield_now),
        None => guard.guard = Some(condvar.wait(guard.guard.take().expect("held")).expect(DIED)),
    }
}
