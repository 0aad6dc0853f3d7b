//! kami-wal: makes opaque bytes durable, in order. Knows no cards.
//!
//! A log is appended to in memory, committed in groups, and read back by position. What a payload means
//! is its user's matter.
//!
//! ```text
//! appender (under the user's own lock)          committer thread               disk
//!   reserve ── room for the record, or BUSY
//!   append ─── encode in place ─┐
//!              header, checksum │
//!              publish the tail ▼
//!   kick ────────────────────────► lone small commit ── tail slot ──────────► 4096 bytes
//!                                  more than a block ── CHAIN, PAD, in place ► once
//!   wait ◄──────────────────────── durable_end moves, one wake a waiter
//! ```
//!
//! # Positions
//! `durable_end <= tail`, both record boundaries. Everything below the tail is complete in memory and
//! can be read by any thread that has seen that tail; everything below `durable_end` survives a power
//! cut. Both only grow.
//!
//! # Invariants
//! * `durable_end` moves only after the device has reported success, and never again after it has
//!   reported a failure.
//! * A block that holds acknowledged bytes is never written again.
//! * Appending neither waits nor fails: its room was granted before.
//! * No I/O happens under the append lock.
//! * Every record says where it belongs (store, segment, position, epoch); one that is found elsewhere is not
//!   valid.
//! * Damage below the durable end refuses to open; it is never taken for a torn tail. What is cut off is put
//!   aside first.
//! * Files are read by `pread`, never through a mapping.
//!
//! # Layout
//! ```text
//! STORE/LOCK                      locked for as long as the store is open
//! STORE/log/0000000001.segment    head: header, two tail slots │ records …
//! STORE/log/0000000002.segment    …
//! STORE/quarantine/…              bytes that recovery cut off
//! ```
//! The bytes are described in `docs/wal-format.md` and known only to [`mod@format`].
//!
//! # What a crash leaves behind
//! Everything below the last `durable_end` that anybody was told, then perhaps more: whole records that
//! were not acknowledged (kept, as a prefix of what was appended), a torn end (cut and quarantined), segments that
//! were being prepared (made again). Opening puts this in order and can itself be cut short at any point.
//!
//! # Where to read on
//! `append` and `space` (the hot path), `commit` (blocks, slots, the seal), `durable` and `parker` (waiting),
//! `replay` (the decision table), `recover` (the steps), `verify`, `in_use` (reading beside the process that
//! writes), `cursor` (following the log while it is open); `buffer` is what segments are read into; `medium` is the seam
//! to storage with `disk`, `read_only` and `simulated` behind it.

pub mod chain;
pub mod format;

mod buffer;
mod lsn;
mod medium;
mod memory;
mod segment;

mod append;
mod commit;
mod cursor;
mod drive;
mod durable;
mod histogram;
mod parker;
mod planted;
mod read;
mod space;
#[cfg(not(shuttle))]
mod sync;
#[cfg(shuttle)]
#[doc(hidden)]
pub mod sync;
mod wal;

mod error;
mod image;
mod in_use;
mod recover;
mod replay;
mod verify;

mod disk;
mod read_only;
mod simulated;

#[cfg(all(test, loom))]
mod loom_models;

pub use append::Appended;
pub use buffer::Buffer;
pub use cursor::Cursor;
pub use disk::{CommitChoice, DiskError, DiskMedium, DiskOptions};
pub use durable::{Durable, Poisoned};
pub use error::{OpenError, ReadError};
pub use format::{RECORD_HEAD_BYTES, RecordHead, RecordKind};
pub use histogram::{Distribution, Histogram};
pub use in_use::{DurableChain, DurableLog, DurableSegment};
pub use lsn::Lsn;
pub use medium::{CommitPath, File, Medium, Segment};
pub use memory::SegmentMemory;
pub use planted::planted;
pub use read_only::ReadOnlyDisk;
pub use recover::Recovered;
pub use replay::{Record, ReplayFrom};
pub use segment::segment_path;
pub use simulated::{SimMedium, SimMode};
pub use space::NoSpace;
pub use verify::{Verdict, VerifyReport, verify};
pub use wal::{Credit, Drive, DurableWaiter, PoisonHook, Stats, Wal, WalOptions};
