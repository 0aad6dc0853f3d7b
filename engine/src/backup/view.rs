//! A backup seen as a store: what verification and restoring read.
//!
//! The files of a backup are presented under the names and with the lengths that they have in a store, up to a
//! position of the log. So everything that reads a store reads a backup as it lies there, and a restored store is
//! what was looked at before.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use kami_wal::{CommitPath, File, Lsn, Medium, Segment, segment_path};

use super::{BackupError, BackupFile, CHUNK_BYTES, FileKind, Manifest};
use crate::store;

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

    /// Reads every file and names those that are not what the manifest says. `pace` is told of the bytes read.
    pub fn damaged_files(&self, pace: &mut dyn FnMut(u64)) -> Vec<String> {
        let files = self.manifest.files.iter();
        files.filter(|file| !self.is_whole(file, pace).unwrap_or(false)).map(BackupFile::path).collect()
    }

    fn is_whole(&self, file: &BackupFile, pace: &mut dyn FnMut(u64)) -> io::Result<bool> {
        let mut hasher = blake3::Hasher::new();
        let bytes = self.pieces(file, &mut |_, piece| {
            hasher.update(piece);
            pace(piece.len() as u64);
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

fn refused<T>() -> io::Result<T> {
    Err(io::ErrorKind::ReadOnlyFilesystem.into())
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

    fn create_dir(&self, _: &str) -> io::Result<()> {
        refused()
    }

    fn create(&self, _: &str) -> io::Result<Box<dyn File>> {
        refused()
    }

    fn open(&self, path: &str) -> io::Result<Box<dyn File>> {
        let place = self.places.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(ViewFile { file: self.medium.open(&place.path)?, used: place.used, bytes: place.bytes }))
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

    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        refused()
    }

    fn sync(&self) -> io::Result<()> {
        refused()
    }
}
