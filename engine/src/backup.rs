//! Backups: a copy of a store's durable history in another directory, made beside the running server.
//!
//! A backup is a prefix of the log, up to one durable position, with the batch files that prefix commits. Because
//! every prefix of the log is a state that the engine was in, nothing has to be stopped, locked or asked: the copy
//! is made from the files, of what they say is durable (see `DurableLog` of the log).
//!
//! ```text
//! BACKUP/manifest                         what the backup is, and a hash of every file; written last
//! BACKUP/identity                         the store's `store` file
//! BACKUP/segments/0000000003-212345.log   a segment up to position 212345: header, records, no padding
//! BACKUP/batches/00000001.batch           as in the store
//! ```
//! Keys are not part of it, and snapshots are not either: the log has everything.
//!
//! # Invariants
//! * A file gets its name when it is complete and synced, and is never changed afterwards. A segment that has
//!   grown since the last run is a new file. So a run that is cut short at any point leaves the backup of the
//!   run before, and the next run goes on with what is there.
//! * The manifest is written last and replaced as a whole. No manifest: no backup, only the beginning of one.
//! * A run takes in a store only if its log goes on where the backup ends, byte for byte: the last segment of the
//!   backup must be the beginning of the store's. Its chain values stand for everything before. A store that was
//!   restored to an earlier point is another history and needs another directory.
//! * A batch file is compared with what its import recorded before it gets its name, and the log's hash chain is followed
//!   while it is copied: what is damaged or cut off at the front is not taken for a backup.
//! * Files are copied, never linked: a bad sector must not take store and backup together.

mod copy;
mod manifest;
mod restore;
mod view;

pub(crate) use manifest::{FILE as MANIFEST_FILE, IDENTITY_FILE};

pub use copy::{BackupReport, backup};
pub use manifest::{BackupFile, FileKind, Manifest};
pub use manifest::{FILE_FIELDS as BACKUP_FILE_FIELDS, HEADER_FIELDS as BACKUP_HEADER_FIELDS};
pub use restore::{Dropped, RestorePoint, RestoreReport, Until};
pub use view::{Backup, Damage, DamagedFile};

use std::io;

use crate::store::IdentityError;

/// Bytes read and written at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// Why a backup was not made, read or restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// The store's identity cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The log cannot be read, or is damaged.
    #[error(transparent)]
    Log(#[from] kami_wal::OpenError),
    /// An entry cannot be understood.
    #[error(transparent)]
    Format(#[from] crate::record::FormatError),
    /// A file cannot be read or written.
    #[error("{what} failed file=`{file}`")]
    Io {
        /// The operation.
        what: &'static str,
        /// The file.
        file: String,
        /// Why.
        source: io::Error,
    },
    /// There is no store to back up.
    #[error("there is no store in this directory")]
    NoStore,
    /// Nothing in the store is known to be durable yet.
    #[error("the store has no durable history yet: start it once, then back it up")]
    NothingDurable,
    /// A batch file of the store is not what its import recorded.
    #[error(
        "a batch file of the store is not what was imported, so nothing was backed up: stop the server, run \
         `kami verify`, and restore the store from a backup; file=`{file}`"
    )]
    BatchFile {
        /// The file.
        file: String,
    },
    /// The directory for the backup holds something else.
    #[error("the directory is no backup and is not empty: choose another; found=`{found}`")]
    NotEmpty {
        /// One of the other files.
        found: String,
    },
    /// The backup is another store's.
    #[error("the backup is another store's: choose another directory; store=`{store:016x}`")]
    OtherStore {
        /// Whose it is.
        store: u64,
    },
    /// The backup does not continue in this store.
    #[error(
        "the backup holds a history of this store that its log does not continue, as after a restore: choose \
         another directory; backup_end=`{end}`"
    )]
    OtherHistory {
        /// Where the backup ends.
        end: crate::Lsn,
    },
    /// There is no manifest.
    #[error("the directory holds no complete backup: it has no manifest; run the backup again")]
    Incomplete,
    /// The manifest was written by a later version.
    #[error("the backup was made by another version of Kami: version=`{version}`")]
    Version {
        /// Its version.
        version: u32,
    },
    /// A file of the backup is not what the manifest says.
    #[error(
        "the backup is damaged: if its store is whole, delete that file and run the backup again, which copies it \
         anew; else use another backup; file=`{file}`"
    )]
    Damaged {
        /// The file.
        file: String,
    },
    /// A store is to be restored to where something is.
    #[error("the directory to restore to is not empty: give a new one; found=`{found}`")]
    TargetNotEmpty {
        /// One of the files there.
        found: String,
    },
    /// Nothing lies before the point asked for.
    #[error("nothing was recorded up to that point: the backup begins at lsn=`{first}`")]
    BeforeStart {
        /// Where the backup begins.
        first: crate::Lsn,
    },
    /// The position asked for lies behind the backup.
    #[error("the backup ends before that position: end=`{end}`")]
    BeyondEnd {
        /// Where the backup ends.
        end: crate::Lsn,
    },
    /// The backup has no room.
    #[error(
        "the disk of the backup is full: make room and run the backup again, which goes on; file=`{file}`"
    )]
    OutFull {
        /// The file that was being written.
        file: String,
    },
    /// The restored log failed while its first record was written.
    #[error(transparent)]
    Poisoned(#[from] kami_wal::Poisoned),
    /// There was no room for the restored store.
    #[error("the disk is full: make room, remove the directory and restore again")]
    DiskFull,
}

/// Which of the two directories is written.
#[derive(Clone, Copy)]
enum Side {
    Backup,
    Store,
}

impl BackupError {
    fn io(what: &'static str, file: &str) -> impl FnOnce(io::Error) -> BackupError {
        let file = file.to_owned();
        move |source| BackupError::Io { what, file, source }
    }

    fn writing(side: Side, file: &str) -> impl FnOnce(io::Error) -> BackupError + use<> {
        let file = file.to_owned();
        move |source| match (side, source.kind()) {
            (Side::Backup, io::ErrorKind::StorageFull) => BackupError::OutFull { file },
            (Side::Store, io::ErrorKind::StorageFull) => BackupError::DiskFull,
            (Side::Backup, _) => BackupError::Io { what: "writing the backup", file, source },
            (Side::Store, _) => BackupError::Io { what: "writing the store", file, source },
        }
    }
}
