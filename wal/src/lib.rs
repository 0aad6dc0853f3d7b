//! kami-wal: makes opaque bytes durable, in order. Knows no cards.

pub mod chain;
pub mod format;

mod append;
mod commit;
mod disk;
mod drive;
mod durable;
mod error;
mod image;
#[cfg(all(test, loom))]
mod loom_models;
mod lsn;
mod medium;
mod memory;
mod parker;
mod read;
mod recover;
mod replay;
mod segment;
mod simulated;
mod space;
mod sync;
mod verify;
mod wal;

pub use append::Appended;
pub use disk::{CommitChoice, DiskError, DiskMedium, DiskOptions};
pub use durable::{Durable, Poisoned};
pub use error::{OpenError, ReadError};
pub use format::{RECORD_HEAD_BYTES, RecordHead, RecordKind};
pub use lsn::Lsn;
pub use medium::{CommitPath, File, Medium, Segment};
pub use memory::SegmentMemory;
pub use recover::Recovered;
pub use replay::{Record, ReplayFrom};
pub use simulated::{SimMedium, SimMode};
pub use space::NoSpace;
pub use verify::{Verdict, VerifyReport, verify};
pub use wal::{Credit, Drive, DurableWaiter, PoisonHook, Stats, Wal, WalOptions};
