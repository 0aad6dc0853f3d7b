//! The atomics and locks of the lock-free parts, so that loom can check the production code: under
//! `cfg(loom)` the same names are loom's types. (`crossbeam-epoch` has its own switch,
//! `cfg(crossbeam_loom)`.)

#[cfg(not(loom))]
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

#[cfg(loom)]
pub(crate) use self::modelled::*;
#[cfg(not(loom))]
pub(crate) use self::native::*;
