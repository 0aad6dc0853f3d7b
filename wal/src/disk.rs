//! The medium that is a directory on a disk.
//!
//! The directory is locked for as long as the medium lives: a second process is turned away before it
//! opens anything. File systems that do not keep what they promise to keep are refused.

use std::fmt;
use std::fs::{self, File as StdFile, OpenOptions};
use std::io::{self, Read, Write};
use std::num::NonZeroU64;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::MmapMut;
use rustix::fs::{Advice, FallocateFlags, FlockOperation, OFlags};
use rustix::io::Errno;

use crate::format::BLOCK_BYTES;
use crate::medium::{CommitPath, File, Medium, Segment};
use crate::memory::{MemoryPool, SegmentMemory};

/// The file whose lock keeps a second process out.
const LOCK_FILE: &str = "LOCK";
/// Used to find out whether the file system takes direct writes.
const PROBE_FILE: &str = "direct-io-probe";
/// Zeros are written this many bytes at a time.
const ZERO_BYTES: usize = 1 << 20;

/// The unit in which the system counts what a file takes of the disk; see stat(2).
const STAT_BLOCK_BYTES: u64 = 512;

/// Reads of at least this many bytes are taken for part of a sequential one.
const SEQUENTIAL_BYTES_MIN: usize = 1 << 20;
/// How much is fetched ahead of a sequential read.
const READ_AHEAD_BYTES: Option<NonZeroU64> = NonZeroU64::new(8 << 20);

/// Which commit path to take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CommitChoice {
    /// Direct where the file system takes it, otherwise mapped.
    #[default]
    Auto,
    /// Direct, or an error.
    Direct,
    /// Mapped.
    Mapped,
}

/// How a directory is used.
#[derive(Clone, Copy, Debug, Default)]
pub struct DiskOptions {
    /// The commit path. Default [`CommitChoice::Auto`].
    pub commit_path: CommitChoice,
    /// Accept file systems that lose everything with the machine (tmpfs, ramfs) or whose syncs depend on
    /// another machine (NFS, SMB, …). Default no.
    pub unsafe_filesystem: bool,
    /// The directory must exist already, as for a tool that looks at a stopped store. Default no.
    pub must_exist: bool,
}

/// Why a directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiskError {
    /// Another process holds the lock.
    #[error("the directory is in use by another process path=`{}` pid=`{}`", path.display(), pid.map_or("unknown".to_owned(), |pid| pid.to_string()))]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The process, if it said who it is.
        pid: Option<u32>,
    },
    /// The file system cannot keep the promise.
    #[error("the file system does not survive a power cut path=`{}` filesystem=`{filesystem}`", path.display())]
    UnsafeFilesystem {
        /// The directory.
        path: PathBuf,
        /// The file system's name.
        filesystem: &'static str,
    },
    /// Direct commits were asked for and the file system does not take them.
    #[error("the file system does not take direct writes path=`{}` filesystem=`{filesystem}`", path.display())]
    NoDirectWrites {
        /// The directory.
        path: PathBuf,
        /// The file system's name.
        filesystem: &'static str,
        /// What it said.
        source: io::Error,
    },
    /// The system refused an operation.
    #[error("{what} failed path=`{}`", path.display())]
    Io {
        /// The operation.
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A directory on a disk, locked.
pub struct DiskMedium {
    directory: PathBuf,
    commit_path: CommitPath,
    filesystem: Filesystem,
    pool: Arc<MemoryPool>,
    /// What opening made, to be taken back if nothing comes of it.
    made: Made,
    /// Held for its lock.
    _lock: StdFile,
}

/// What was not there before.
#[derive(Clone, Copy, Debug, Default)]
struct Made {
    directory: bool,
    lock: bool,
}

impl Made {
    /// Removes it again, unless something was put there meanwhile.
    fn undo(self, directory: &Path) {
        // What cannot be removed is harmless: an empty directory, or a lock that nobody holds.
        if self.lock {
            let _ = fs::remove_file(directory.join(LOCK_FILE));
        }
        if self.directory {
            let _ = fs::remove_dir(directory);
        }
    }
}

impl DiskMedium {
    /// Locks `directory`, making it if it does not exist.
    ///
    /// # Errors
    /// See [`DiskError`]; a directory that was made for this is gone again.
    pub fn open(directory: impl AsRef<Path>, options: DiskOptions) -> Result<Self, DiskError> {
        let directory = directory.as_ref();
        let mut made = Made { directory: !directory.exists(), lock: !directory.join(LOCK_FILE).exists() };
        Self::open_in(directory, options, made).inspect_err(|error| {
            // The lock is another's then.
            made.lock &= !matches!(error, DiskError::InUse { .. });
            made.undo(directory);
        })
    }

    fn open_in(directory: &Path, options: DiskOptions, made: Made) -> Result<Self, DiskError> {
        let io = |what, path: &Path| {
            let path = path.to_owned();
            move |source| DiskError::Io { what, path, source }
        };
        if !options.must_exist {
            make_directory(directory).map_err(io("making a directory", directory))?;
        }
        let directory = fs::canonicalize(directory).map_err(io("finding a directory", directory))?;
        let statfs = rustix::fs::statfs(&directory)
            .map_err(|errno| io("asking for the file system", &directory)(errno.into()))?;
        let filesystem = Filesystem::of_magic(statfs.f_type as u64 & 0xFFFF_FFFF);
        if !filesystem.survives_power_cut && !options.unsafe_filesystem {
            return Err(DiskError::UnsafeFilesystem { path: directory, filesystem: filesystem.name });
        }
        let lock = take_lock(&directory)?;
        let commit_path = match options.commit_path {
            CommitChoice::Mapped => CommitPath::Mapped,
            choice => match probe_direct(&directory) {
                Ok(()) => CommitPath::Direct,
                Err(_) if choice == CommitChoice::Auto => CommitPath::Mapped,
                Err(source) => {
                    let filesystem = filesystem.name;
                    return Err(DiskError::NoDirectWrites { path: directory, filesystem, source });
                }
            },
        };
        Ok(Self { directory, commit_path, filesystem, pool: Arc::default(), made, _lock: lock })
    }

    /// Gives the directory up. If opening made it, and nothing was put into it, it is gone again.
    pub fn discard(self) {
        self.made.undo(&self.directory);
    }

    /// The name of the file system the directory lies in.
    #[must_use]
    pub fn filesystem_name(&self) -> &'static str {
        self.filesystem.name
    }

    /// Whether what is synced there survives a power cut, as far as the kind of file system tells.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.filesystem.survives_power_cut
    }

    /// The directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    fn path(&self, path: &str) -> PathBuf {
        self.directory.join(path)
    }

    fn make_segment(&self, path: &Path, bytes: u64) -> io::Result<Box<dyn Segment>> {
        let direct = self.commit_path == CommitPath::Direct;
        let file = if direct { open_direct(&mut new_file(), path) } else { new_file().open(path) }?;
        rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes)?;
        let parent = path.parent().unwrap_or(&self.directory);
        if direct {
            let memory = SegmentMemory::pooled(&self.pool, bytes)?;
            // Past the page cache: the zeros would only stand in the way of the direct writes there.
            write_zeros(&file, bytes, &MmapMut::map_anon(ZERO_BYTES)?)?;
            file.sync_all()?;
            sync_directory(parent)?;
            Ok(Box::new(DirectSegment { file, memory }))
        } else {
            write_zeros(&file, bytes, &vec![0; ZERO_BYTES])?;
            file.sync_all()?;
            sync_directory(parent)?;
            let memory = SegmentMemory::of_file(&file, bytes)?;
            Ok(Box::new(MappedSegment { memory }))
        }
    }
}

impl fmt::Debug for DiskMedium {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskMedium")
            .field("directory", &self.directory)
            .field("commit_path", &self.commit_path)
            .field("filesystem", &self.filesystem.name)
            .finish_non_exhaustive()
    }
}

impl Medium for DiskMedium {
    fn commit_path(&self) -> CommitPath {
        self.commit_path
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        list_names(&self.path(dir))
    }

    fn create_dir(&self, dir: &str) -> io::Result<()> {
        make_directory(&self.path(dir))
    }

    fn create(&self, path: &str) -> io::Result<Box<dyn File>> {
        Ok(Box::new(DiskFile(new_file().open(self.path(path))?)))
    }

    fn open(&self, path: &str) -> io::Result<Box<dyn File>> {
        Ok(Box::new(DiskFile(OpenOptions::new().read(true).write(true).open(self.path(path))?)))
    }

    fn open_to_scan(&self, path: &str) -> io::Result<Option<Box<dyn File>>> {
        if self.commit_path != CommitPath::Direct {
            return Ok(None);
        }
        let flags = OFlags::DIRECT.bits().cast_signed();
        let file = OpenOptions::new().read(true).custom_flags(flags).open(self.path(path))?;
        Ok(Some(Box::new(ScannedFile(file))))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from), self.path(to))
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        fs::remove_file(self.path(path))
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        sync_directory(&self.path(dir))
    }

    fn create_segment(&self, path: &str, bytes: u64) -> io::Result<Box<dyn Segment>> {
        let path = self.path(path);
        match self.make_segment(&path, bytes) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                // Nothing depends on it yet, and the room may be needed for the next attempt.
                let _ = fs::remove_file(&path);
                Err(error)
            }
            other => other,
        }
    }

    /// Only what is allocated for this file alone: a commit must not be what finds the disk full. Not for mapped commits,
    /// where a store to memory that finds no room ends the process.
    fn reuse_segment(&self, path: &str, bytes: u64) -> io::Result<Option<Box<dyn Segment>>> {
        if self.commit_path != CommitPath::Direct {
            return Ok(None);
        }
        let file = open_direct(OpenOptions::new().read(true).write(true), &self.path(path))?;
        let there = file.metadata()?;
        // A copy may have holes where there were zeros, or be another name of the same file.
        if there.len() != bytes || there.blocks() * STAT_BLOCK_BYTES < bytes || there.nlink() != 1 {
            return Ok(None);
        }
        // And it may share its blocks with what it was copied from, until one of them is written.
        match rustix::fs::fallocate(&file, FallocateFlags::UNSHARE_RANGE, 0, bytes) {
            // Refused where nothing is ever shared, as on ext4; where every write goes to new blocks, none is better.
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(_) => return Ok(None),
        }
        let memory = SegmentMemory::pooled(&self.pool, bytes)?;
        Ok(Some(Box::new(DirectSegment { file, memory })))
    }
}

struct DiskFile(StdFile);

impl File for DiskFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        if SEQUENTIAL_BYTES_MIN <= buffer.len() {
            // A replay reads on: have the device work on what follows while this part is being parsed.
            // Only advice, so whether it is taken does not matter.
            let _ = rustix::fs::fadvise(
                &self.0,
                offset + buffer.len() as u64,
                READ_AHEAD_BYTES,
                Advice::WillNeed,
            );
        }
        self.0.read_exact_at(buffer, offset)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_all()
    }

    fn settle(&self) -> io::Result<()> {
        self.0.sync_all()?;
        // Drops the pages that are clean, and by now all are. To the end of the file.
        Ok(rustix::fs::fadvise(&self.0, 0, None, Advice::DontNeed)?)
    }
}

/// A file that is read past the page cache. A large read keeps the device busy by itself, and advice would fetch into the
/// cache.
struct ScannedFile(StdFile);

impl File for ScannedFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }
}

/// A segment committed by direct, synchronous writes: an error is reported by the write that had it.
struct DirectSegment {
    file: StdFile,
    memory: SegmentMemory,
}

impl Segment for DirectSegment {
    fn memory(&self) -> &SegmentMemory {
        &self.memory
    }

    fn commit(&self, offset: u64, len: u64) -> io::Result<()> {
        self.memory.with(offset, len, |bytes| write_direct(&self.file, offset, bytes))
    }
}

/// A segment whose memory is the file, committed by `msync`.
struct MappedSegment {
    memory: SegmentMemory,
}

impl Segment for MappedSegment {
    fn memory(&self) -> &SegmentMemory {
        &self.memory
    }

    fn commit(&self, offset: u64, len: u64) -> io::Result<()> {
        self.memory.flush(offset, len)
    }
}

/// Writes all of `bytes`. A short write goes on at a block boundary, as direct writes must.
fn write_direct(file: &StdFile, offset: u64, bytes: &[u8]) -> io::Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        match file.write_at(&bytes[done..], offset + done as u64) {
            Ok(written) if written < BLOCK_BYTES as usize => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => done += written / BLOCK_BYTES as usize * BLOCK_BYTES as usize,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn write_zeros(file: &StdFile, bytes: u64, zeros: &[u8]) -> io::Result<()> {
    let mut offset = 0;
    while offset < bytes {
        let part = (bytes - offset).min(zeros.len() as u64);
        write_direct(file, offset, &zeros[..part as usize])?;
        offset += part;
    }
    Ok(())
}

/// How a file that must not exist yet is opened.
fn new_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(0o600);
    options
}

fn open_direct(options: &mut OpenOptions, path: &Path) -> io::Result<StdFile> {
    options.custom_flags((OFlags::DIRECT | OFlags::DSYNC).bits().cast_signed()).open(path)
}

fn probe_direct(directory: &Path) -> io::Result<()> {
    let path = directory.join(PROBE_FILE);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // A mapping, because direct writes need aligned memory.
    let zeros = MmapMut::map_anon(BLOCK_BYTES as usize)?;
    let result = open_direct(&mut new_file(), &path).and_then(|file| write_direct(&file, 0, &zeros));
    let _ = fs::remove_file(&path);
    result
}

/// Makes a directory and the missing ones above it, durably.
fn make_directory(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    make_directory(parent)?;
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    sync_directory(parent)
}

/// The names in a directory; none if it does not exist.
pub(crate) fn list_names(directory: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        // A name that is not UTF-8 is none of ours.
        names.extend(entry?.file_name().into_string());
    }
    Ok(names)
}

fn sync_directory(path: &Path) -> io::Result<()> {
    StdFile::open(path)?.sync_all()
}

/// Locks the directory. The lock goes with the process, however it ends.
fn take_lock(directory: &Path) -> Result<StdFile, DiskError> {
    let path = directory.join(LOCK_FILE);
    let io = |what| {
        let path = path.clone();
        move |source| DiskError::Io { what, path, source }
    };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(io("opening a file"))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            // The file names the last one who changed the directory, not those who look at it now.
            let only_looked_at = rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared).is_ok();
            let pid = if only_looked_at { None } else { holder(&mut file) };
            return Err(DiskError::InUse { path: directory.to_owned(), pid });
        }
        Err(errno) => return Err(io("locking a file")(errno.into())),
    }
    file.set_len(0)
        .and_then(|()| file.write_all(format!("{}\n", std::process::id()).as_bytes()))
        .map_err(io("writing a file"))?;
    Ok(file)
}

/// The lock of one who only looks; `None` if the directory has none.
pub(crate) fn take_shared_lock(directory: &Path) -> Result<Option<StdFile>, DiskError> {
    let path = directory.join(LOCK_FILE);
    let io = |what, source| DiskError::Io { what, path: path.clone(), source };
    let mut file = match StdFile::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io("opening a file", error)),
    };
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(Some(file)),
        Err(Errno::WOULDBLOCK) => {
            let pid = holder(&mut file);
            Err(DiskError::InUse { path: directory.to_owned(), pid })
        }
        Err(errno) => Err(io("locking a file", errno.into())),
    }
}

/// The process that wrote its number into the lock. It helps the person who reads it, and nothing depends on it.
fn holder(file: &mut StdFile) -> Option<u32> {
    let mut holder = String::new();
    file.read_to_string(&mut holder).ok()?;
    holder.trim().parse().ok()
}

/// A kind of file system.
#[derive(Clone, Copy, Debug)]
struct Filesystem {
    name: &'static str,
    survives_power_cut: bool,
}

impl Filesystem {
    /// By the number `statfs` gives; see statfs(2). A FUSE file system may be anything, so it is not
    /// trusted either.
    fn of_magic(magic: u64) -> Self {
        let (name, survives_power_cut) = match magic {
            0xEF53 => ("ext4", true),
            0x5846_5342 => ("xfs", true),
            0x9123_683E => ("btrfs", true),
            0x2FC1_2FC1 => ("zfs", true),
            0xF2F5_2010 => ("f2fs", true),
            0x794C_7630 => ("overlay", true),
            0x0102_1994 => ("tmpfs", false),
            0x8584_58F6 => ("ramfs", false),
            0x6969 => ("nfs", false),
            0x517B => ("smb", false),
            0xFF53_4D42 => ("cifs", false),
            0xFE53_4D42 => ("smb2", false),
            0x00C3_6400 => ("ceph", false),
            0x0102_1997 => ("9p", false),
            0x5346_414F => ("afs", false),
            0x7375_7245 => ("coda", false),
            0x6573_5546 => ("fuse", false),
            _ => ("unknown", true),
        };
        Self { name, survives_power_cut }
    }
}
