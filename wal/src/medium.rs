//! The seam between Kami and storage: a small file system.
//!
//! Everything Kami keeps goes through [`Medium`]: log segments, batch files, snapshots. That lets one
//! seeded simulation tear, forget, garble and fill up *all* of a store's storage, not only its log.
//! Three media stand behind it: the disk with the `direct` and `mapped` commit paths, and the
//! simulated one.
//!
//! Paths are relative to the store's directory, with `/` between components.
//!
//! # What a medium promises
//! * [`File::write_at`] may be lost, torn or reordered by a power cut until [`File::sync`] has returned `Ok`.
//! * `create`, `rename` and `remove` may be undone by a power cut until [`Medium::sync_dir`] of the
//!   directory has returned `Ok`.
//! * [`Segment::commit`] has made the bytes durable when it returns `Ok`.
//! * What can only be read refuses every change with `ReadOnlyFilesystem`, which is what the methods that change
//!   something do where a medium says nothing else.
//! * After an error from `sync`, `sync_dir` or `commit` nothing is known of the bytes concerned, and a
//!   second attempt proves nothing.

use std::io;

use crate::memory::SegmentMemory;

/// How a log segment reaches the disk. Both paths keep the same promise; they differ in speed and in
/// what the file system must support.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitPath {
    /// `O_DIRECT | O_DSYNC` writes from anonymous memory into the prewritten segment file.
    Direct,
    /// The segment file itself is mapped and committed with `msync`.
    Mapped,
    /// The simulated medium of the tests.
    Simulated,
}

fn refused<T>() -> io::Result<T> {
    Err(io::ErrorKind::ReadOnlyFilesystem.into())
}

/// A place that keeps files.
pub trait Medium: Send + Sync + 'static {
    /// The commit path its segments use.
    fn commit_path(&self) -> CommitPath;
    /// The names in directory `dir` (`""` is the store's own), in no particular order.
    /// A directory that does not exist is empty.
    fn list(&self, dir: &str) -> io::Result<Vec<String>>;
    /// Makes directory `dir`, and durably so. Succeeds if it exists.
    fn create_dir(&self, dir: &str) -> io::Result<()> {
        let _ = dir;
        refused()
    }
    /// Makes an empty file and opens it for reading and writing.
    ///
    /// # Errors
    /// `AlreadyExists` if there is one; `StorageFull`.
    fn create(&self, path: &str) -> io::Result<Box<dyn File>> {
        let _ = path;
        refused()
    }
    /// Opens an existing file for reading and, where there is writing, for that.
    ///
    /// # Errors
    /// `NotFound`.
    fn open(&self, path: &str) -> io::Result<Box<dyn File>>;
    /// Opens an existing file a second time to be read once from one end to the other, past all caches, if this medium can:
    /// what is read then takes no room from what is used. Reads are of whole blocks, into memory aligned to blocks.
    ///
    /// # Errors
    /// As [`Medium::open`].
    fn open_to_scan(&self, path: &str) -> io::Result<Option<Box<dyn File>>> {
        let _ = path;
        Ok(None)
    }
    /// Renames a file, replacing `to` if it exists.
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let _ = (from, to);
        refused()
    }
    /// Removes a file.
    fn remove(&self, path: &str) -> io::Result<()> {
        let _ = path;
        refused()
    }
    /// Makes the names in `dir` durable.
    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        let _ = dir;
        refused()
    }
    /// Makes a new log segment of `bytes` bytes: allocated, prewritten with zeros, and synced, its
    /// directory too. On an error nothing of it remains.
    ///
    /// # Errors
    /// `StorageFull` when there is no room for it.
    fn create_segment(&self, path: &str, bytes: u64) -> io::Result<Box<dyn Segment>> {
        let _ = (path, bytes);
        refused()
    }
    /// Opens a segment that an earlier process made with [`Medium::create_segment`] and never wrote a record to, if this
    /// medium can vouch that all of it is still allocated. The caller knows that it reads as zeros, and that it was
    /// synced before its header was written.
    ///
    /// # Errors
    /// `NotFound`; whatever the device reports.
    fn reuse_segment(&self, path: &str, bytes: u64) -> io::Result<Option<Box<dyn Segment>>> {
        let _ = (path, bytes);
        Ok(None)
    }
}

/// One ordinary file of a [`Medium`].
pub trait File: Send + Sync {
    /// The file's length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file is empty.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Reads exactly `buffer.len()` bytes from `offset`.
    ///
    /// # Errors
    /// `UnexpectedEof` if the file ends before; whatever the device reports.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
    /// Writes all of `bytes` at `offset`, growing the file where needed.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let _ = (offset, bytes);
        refused()
    }
    /// Makes everything written so far, and the length, durable.
    fn sync(&self) -> io::Result<()> {
        refused()
    }
    /// Syncs, and has what is read from now on come from the device. After a failed write-back the system goes on
    /// showing what the device never got, to a new process too, and calls it written.
    fn settle(&self) -> io::Result<()> {
        self.sync()
    }
}

/// A log segment that is being written: memory to encode into, and a way to make ranges of it durable.
pub trait Segment: Send + Sync {
    /// The memory records are encoded in; as long as the segment file.
    fn memory(&self) -> &SegmentMemory;
    /// Makes bytes `offset .. offset + len` of the memory durable in the file. Both are multiples of
    /// the block size, 4096.
    fn commit(&self, offset: u64, len: u64) -> io::Result<()>;
}
