//! A directory that is only looked at: the medium of tools that read beside a running server.
//!
//! It takes no lock, so whoever uses it must know what of the files holds still (see `in_use.rs`). What is
//! read in large pieces is dropped from the page cache afterwards: a backup reads everything once, and must
//! neither push out what the server needs nor be given again what was there before.

use std::fs::{self, File as StdFile};
use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::Advice;

use crate::medium::{CommitPath, File, Medium, Segment};

/// Reads of at least this many bytes are not kept in the page cache.
const LARGE_BYTES: usize = 64 << 10;

/// A directory to read from.
#[derive(Debug)]
pub struct ReadOnlyDisk(PathBuf);

impl ReadOnlyDisk {
    /// Looks at `directory`.
    ///
    /// # Errors
    /// If it is not there or may not be read.
    pub fn open(directory: impl AsRef<Path>) -> io::Result<Self> {
        let directory = fs::canonicalize(directory)?;
        fs::read_dir(&directory)?;
        Ok(Self(directory))
    }

    /// The directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.0
    }
}

fn refused<T>() -> io::Result<T> {
    Err(io::ErrorKind::ReadOnlyFilesystem.into())
}

impl Medium for ReadOnlyDisk {
    fn commit_path(&self) -> CommitPath {
        CommitPath::Direct
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(self.0.join(dir)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut names = Vec::new();
        for entry in entries {
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn create_dir(&self, _: &str) -> io::Result<()> {
        refused()
    }

    fn create(&self, _: &str) -> io::Result<Box<dyn File>> {
        refused()
    }

    fn open(&self, path: &str) -> io::Result<Box<dyn File>> {
        Ok(Box::new(ReadOnlyFile(StdFile::open(self.0.join(path))?)))
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        refused()
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        refused()
    }

    fn sync_dir(&self, _: &str) -> io::Result<()> {
        refused()
    }

    fn create_segment(&self, _: &str, _: u64) -> io::Result<Box<dyn Segment>> {
        refused()
    }
}

struct ReadOnlyFile(StdFile);

impl File for ReadOnlyFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)?;
        if LARGE_BYTES <= buffer.len() {
            // Only advice, so whether it is taken does not matter.
            let _ =
                rustix::fs::fadvise(&self.0, offset, NonZeroU64::new(buffer.len() as u64), Advice::DontNeed);
        }
        Ok(())
    }

    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        refused()
    }

    fn sync(&self) -> io::Result<()> {
        refused()
    }
}
