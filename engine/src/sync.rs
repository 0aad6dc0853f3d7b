//! The atomics, locks and threads of the engine, so that loom and shuttle can check the production code: under
//! `cfg(loom)` and `cfg(shuttle)` the same names are theirs. (`crossbeam-epoch` has its own switch for loom,
//! `cfg(crossbeam_loom)`; under shuttle, where all threads are one, it needs none.)
//!
//! loom knows the lock-free parts alone; what only whole engines under shuttle need stands in [`coarse`].

/// What loom does not know.
#[cfg(not(shuttle))]
pub(crate) mod coarse {
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64};
    pub(crate) use std::thread;

    pub(crate) use parking_lot::{Mutex, MutexGuard};
}

#[cfg(not(any(loom, shuttle)))]
mod native {
    pub(crate) use std::sync::atomic::{AtomicU64, Ordering};

    pub(crate) use parking_lot::Mutex;
}

#[cfg(loom)]
mod modelled {
    pub(crate) use loom::sync::atomic::{AtomicU64, Ordering};

    /// loom's mutex with parking_lot's interface.
    pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> loom::sync::MutexGuard<'_, T> {
            self.0.lock().expect("a thread panicked in the model")
        }
    }
}

#[cfg(shuttle)]
pub(crate) use kami_wal::sync::{AtomicU64, Mutex, Ordering, coarse};

#[cfg(loom)]
pub(crate) use self::modelled::*;
#[cfg(not(any(loom, shuttle)))]
pub(crate) use self::native::*;
