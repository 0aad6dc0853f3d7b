//! The atomics, locks and threads of the log, so that loom and shuttle can check the production code: under
//! `cfg(loom)` and `cfg(shuttle)` the same names are theirs, otherwise the standard library's and parking_lot's.
//!
//! loom tries every order of few steps, shuttle some orders of many. So what only larger compositions need stands in
//! [`coarse`], which loom is left out of: a model of loom uses it from one thread at a time.

#[cfg(loom)]
pub(crate) use self::modelled::*;
#[cfg(not(any(loom, shuttle)))]
pub(crate) use self::native::*;
#[cfg(shuttle)]
pub use self::scheduled::*;

/// What loom does not know.
#[cfg(not(shuttle))]
pub(crate) mod coarse {
    pub(crate) use std::thread;

    pub(crate) use parking_lot::{Mutex, RwLock};
}

#[cfg(not(any(loom, shuttle)))]
mod native {
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

    pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard};
    use std::time::Duration;

    /// Waits on `condvar`, giving the lock back meanwhile; at most `limit` if there is one.
    pub(crate) fn wait<T>(condvar: &Condvar, guard: &mut MutexGuard<'_, T>, limit: Option<Duration>) {
        match limit {
            Some(limit) => {
                condvar.wait_for(guard, limit);
            }
            None => condvar.wait(guard),
        }
    }
}

#[cfg(loom)]
mod modelled {
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
    use std::ops::{Deref, DerefMut};
    use std::time::Duration;

    /// loom's mutex with parking_lot's interface.
    #[derive(Default)]
    pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

    /// The guard of [`Mutex`]; empty only inside [`wait`], which holds it exclusively.
    pub(crate) struct MutexGuard<'a, T>(Option<loom::sync::MutexGuard<'a, T>>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            MutexGuard(Some(self.0.lock().expect("a thread panicked in the model")))
        }
    }

    impl<T> Deref for MutexGuard<'_, T> {
        type Target = T;
        fn deref(&self) -> &T {
            self.0.as_ref().expect("not inside wait")
        }
    }

    impl<T> DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            self.0.as_mut().expect("not inside wait")
        }
    }

    pub(crate) use loom::sync::Condvar;

    /// Waits on `condvar`. Time does not pass in a model: a limit is no limit.
    pub(crate) fn wait<T>(condvar: &Condvar, guard: &mut MutexGuard<'_, T>, _limit: Option<Duration>) {
        let inner = guard.0.take().expect("not inside wait");
        guard.0 = Some(condvar.wait(inner).expect("a thread panicked in the model"));
    }
}

#[cfg(shuttle)]
mod scheduled;
