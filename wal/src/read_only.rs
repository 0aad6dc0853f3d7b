//! A directory that is only looked at: the medium of tools that read beside a running server.
//!
//! Without a lock, whoever uses it must know what of the files holds still (see `in_use.rs`). With one, nobody who
//! changes the directory gets in, and others who look do. What is read in large pieces is dropped from the page cache
//! afterwards: a backup reads everything once, and must neither push out what the server needs nor be given again
//! what was there before.

use std::fmt;
use std::fs::{self, File as StdFile};
use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::Advice;

use crate::disk::{self, DiskError};
use crate::medium::{CommitPath, File, Medium};

/// Reads of at least this many bytes are not kept in the page cache.
const LARGE_BYTES: usize = 64 << 10;

type Pace = Arc<dyn Fn(u64) + Send + Sync>;

/// A directory to read from.
pub struct ReadOnlyDisk {
    directory: PathBuf,
    pace: Option<Pace>,
    /// Held for its lock.
    _lock: Option<StdFile>,
}

impl ReadOnlyDisk {
    /// Looks at `directory`, whoever else is at work there.
    ///
    /// # Errors
    /// If it is not there or may not be read.
    pub fn open(directory: impl AsRef<Path>) -> io::Result<Self> {
        let directory = fs::canonicalize(directory)?;
        fs::read_dir(&directory)?;
        Ok(Self { directory, pace: None, _lock: None })
    }

    /// Looks at `directory` and keeps those away who would change it. A directory that has no lock, such as a copy
    /// on a medium that cannot be written, is nobody's to change.
    ///
    /// # Errors
    /// [`DiskError::InUse`] if one is at work there; if it is not there or may not be read.
    pub fn open_locked(directory: impl AsRef<Path>) -> Result<Self, DiskError> {
        let path = directory.as_ref().to_owned();
        let this = Self::open(directory).map_err(|source| DiskError::Io {
            what: "reading a directory",
            path,
            source,
        })?;
        let lock = disk::take_shared_lock(&this.directory)?;
        Ok(Self { _lock: lock, ..this })
    }

    /// Has `pace` told of the bytes of each read, at most 1 MiB at a time for large files; it may hold the reader up.
    #[must_use]
    pub fn paced(self, pace: impl Fn(u64) + Send + Sync + 'static) -> Self {
        Self { pace: Some(Arc::new(pace)), ..self }
    }

    /// The directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

impl fmt::Debug for ReadOnlyDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ReadOnlyDisk").field(&self.directory).finish()
    }
}

impl Medium for ReadOnlyDisk {
    fn commit_path(&self) -> CommitPath {
        CommitPath::Direct
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        disk::list_names(&self.directory.join(dir))
    }

    fn open(&self, path: &str) -> io::Result<Box<dyn File>> {
        let file = StdFile::open(self.directory.join(path))?;
        Ok(Box::new(ReadOnlyFile { file, pace: self.pace.clone() }))
    }
}

struct ReadOnlyFile {
    file: StdFile,
    pace: Option<Pace>,
}

impl File for ReadOnlyFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)?;
        if LARGE_BYTES <= buffer.len() {
            let bytes = NonZeroU64::new(buffer.len() as u64);
            // Only advice, so whether it is taken does not matter.
            let _ = rustix::fs::fadvise(&self.file, offset, bytes, Advice::DontNeed);
        }
        if let Some(pace) = &self.pace {
            pace(buffer.len() as u64);
        }
        Ok(())
    }
}
