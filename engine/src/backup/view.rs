//! A backup seen as a store: what verification and restoring read.
//!
//! The files of a backup are presented under the names and with the lengths that they have in a store, up to a
//! position of the log. So everything that reads a store reads a backup as it lies there, and a restored store is
//! what was looked at before. It can only be read.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;

use kami_wal::{CommitPath, File, Lsn, Medium, segment_path};

use super::{BackupError, BackupFile, CHUNK_BYTES, FileKind, Manifest};
use crate::store;

/// What is wrong with a file of a backup.
#[derive(Debug)]
#[non_exhaustive]
pub enum Damage {
    /// It is not there.
    Missing,
    /// It is not what the manifest says.
    Different,
    /// It may be what it should be, but the system does not let it be read.
    Unreadable(io::Error),
}

/// A file of a backup that is not as it should be.
#[derive(Debug)]
#[non_exhaustive]
pub struct DamagedFile {
    /// Its name in the backup.
    pub file: String,
    /// What is wrong with it.
    pub damage: Damage,
}

impl fmt::Display for DamagedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.damage {
            Damage::Missing => f.write_str("missing"),
            Damage::Different => f.write_str("not what the manifest says"),
            Damage::Unreadable(error) => write!(f, "cannot be read ({error})"),
        }?;
        write!(f, ": file=`{}`", self.file)
    }
}

/// A complete backup.
#[derive(Clone)]
pub struct Backup {
    pub(super) medium: Arc<dyn Medium>,
    pub(super) manifest: Manifest,
}

impl Backup {
    /// Opens the backup on `medium`.
    ///
    /// # Errors
    /// [`BackupError::Incomplete`] if there is none, or only the beginning of one; if its manifest is damaged.
    pub fn open(medium: Arc<dyn Medium>) -> Result<Backup, BackupError> {
        let manifest = Manifest::read(&*medium)?.ok_or(BackupError::Incomplete)?;
        Ok(Backup { medium, manifest })
    }

    /// What it is.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Reads every file and names those that are not what the manifest says.
    #[must_use]
    pub fn damaged_files(&self) -> Vec<DamagedFile> {
        let damage = |file: &BackupFile| match self.is_whole(file) {
            Ok(true) => None,
            Ok(false) => Some(Damage::Different),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Some(Damage::Missing),
            // It became shorter while it was read.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Some(Damage::Different),
            Err(error) => Some(Damage::Unreadable(error)),
        };
        let files = self.manifest.files.iter();
        files.filter_map(|file| Some(DamagedFile { file: file.path(), damage: damage(file)? })).collect()
    }

    fn is_whole(&self, file: &BackupFile) -> io::Result<bool> {
        let mut hasher = blake3::Hasher::new();
        let bytes = self.pieces(file, &mut |_, piece| {
            hasher.update(piece);
            Ok(())
        })?;
        Ok(bytes == file.bytes && *hasher.finalize().as_bytes() == file.hash)
    }

    /// Hands out a file piece by piece; returns its length.
    pub(super) fn pieces(
        &self,
        file: &BackupFile,
        each: &mut dyn FnMut(u64, &[u8]) -> io::Result<()>,
    ) -> io::Result<u64> {
        let open = self.medium.open(&file.path())?;
        let bytes = open.len()?;
        let mut buffer = vec![0; CHUNK_BYTES];
        let mut at = 0;
        while at < bytes {
            let piece = &mut buffer[..(bytes - at).min(CHUNK_BYTES as u64) as usize];
            open.read_at(at, piece)?;
            each(at, piece)?;
            at += piece.len() as u64;
        }
        Ok(bytes)
    }

    /// The backup as a store whose log ends at `end`, a record boundary in it. It can only be read.
    #[must_use]
    pub fn as_store(&self, end: Lsn) -> Arc<dyn Medium> {
        let places = self.manifest.files.iter().filter_map(|file| {
            let place = self.place(file, end)?;
            Some((place.0, place.1))
        });
        Arc::new(View { medium: Arc::clone(&self.medium), places: places.collect() })
    }

    /// What a file is called in the store, and how much of it belongs there; `None` if nothing.
    pub(super) fn place(&self, file: &BackupFile, end: Lsn) -> Option<(String, Place)> {
        let mut place = Place { path: file.path(), used: file.bytes, bytes: file.bytes };
        let name = match file.kind {
            FileKind::Identity => store::FILE.to_owned(),
            FileKind::Batch if file.position < end.bytes() => file.path(),
            FileKind::Segment => {
                let base = u64::from(file.number) * self.manifest.segment_bytes;
                if end.bytes() <= base {
                    return None;
                }
                place.used = file.bytes.min(end.bytes() - base);
                place.bytes = self.manifest.segment_bytes;
                segment_path(file.number)
            }
            FileKind::Batch => return None,
        };
        Some((name, place))
    }
}

/// Where a file of the store lies in the backup.
#[derive(Clone, Debug)]
pub(super) struct Place {
    path: String,
    /// How many of its bytes count; zeros follow.
    pub(super) used: u64,
    /// How long it is in the store.
    pub(super) bytes: u64,
}

struct View {
    medium: Arc<dyn Medium>,
    places: BTreeMap<String, Place>,
}

impl Medium for View {
    fn commit_path(&self) -> CommitPath {
        self.medium.commit_path()
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let names = self.places.keys().filter_map(|path| {
            let (of, name) = path.rsplit_once('/').unwrap_or(("", path));
            (of == dir).then(|| name.to_owned())
        });
        Ok(names.collect())
    }

    fn open(&self, path: &str) -> io::Result<Box<dyn File>> {
        let place = self.places.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(ViewFile { file: self.medium.open(&place.path)?, used: place.used, bytes: place.bytes }))
    }
}

struct ViewFile {
    file: Box<dyn File>,
    used: u64,
    bytes: u64,
}

impl File for ViewFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        if self.bytes < offset.saturating_add(buffer.len() as u64) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let there = self.used.saturating_sub(offset).min(buffer.len() as u64) as usize;
        let (there, behind) = buffer.split_at_mut(there);
        behind.fill(0);
        self.file.read_at(offset, there)
    }
}
