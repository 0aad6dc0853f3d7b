//! The manifest of a backup: what it is, and what each file must be.
//!
//! | at | bytes | what |
//! |---|---|---|
//! | 0 | 128 | header, see [`HEADER_FIELDS`] |
//! | 128 | 64 a file | see [`FILE_FIELDS`] |
//! | | 32 | BLAKE3 of all before |

use std::io;

use kami_wal::{Lsn, Medium};

use super::BackupError;
use crate::batch::Layout;
use crate::record::Field;
use crate::vault::replace_file;

pub(crate) const FILE: &str = "manifest";
/// The copy of the store's identity. Not called as in a store: a backup must not be taken for one.
pub(crate) const IDENTITY_FILE: &str = "identity";
/// The directory of the segments.
pub(super) const SEGMENTS: &str = "segments";
const MAGIC: &[u8; 8] = b"KAMIBKUP";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 128;
const FILE_BYTES: usize = 64;

/// The layout of a manifest's header.
pub const HEADER_FIELDS: &[Field] = &[
    (0, 8, "magic", "\"KAMIBKUP\""),
    (8, 4, "version", "1"),
    (12, 4, "files", "how many files follow"),
    (16, 8, "store", "the store's id"),
    (24, 8, "segment bytes", "length of a segment file of the store"),
    (32, 8, "first", "position of the first record"),
    (40, 8, "end", "the backup holds the log up to here; durable when it was read"),
    (48, 8, "time", "engine time of the last group, milliseconds since 1970"),
    (56, 4, "epoch", "the highest epoch"),
    (60, 4, "reserved", "zero"),
    (64, 8, "chain to", "how far the chain value reaches"),
    (72, 32, "chain", "the last chain value in the log"),
    (104, 24, "reserved", "zero"),
];

/// The layout of a file's line.
pub const FILE_FIELDS: &[Field] = &[
    (0, 4, "kind", "1 identity, 2 segment, 3 batch file"),
    (4, 4, "number", "of the segment or batch; zero for the identity"),
    (8, 8, "bytes", "its length"),
    (16, 8, "position", "where a segment ends; the IMPORT entry of a batch; zero for the identity"),
    (24, 32, "hash", "BLAKE3 of the file"),
    (56, 8, "reserved", "zero"),
];

/// What a file of a backup is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum FileKind {
    /// The store's identity.
    Identity = 1,
    /// A segment of the log.
    Segment = 2,
    /// The rows of an import.
    Batch = 3,
}

/// A file of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackupFile {
    /// What it is.
    pub kind: FileKind,
    /// The number of the segment or batch.
    pub number: u32,
    /// Its length.
    pub bytes: u64,
    /// Where a segment ends, where a batch was imported; zero for the identity.
    pub position: u64,
    /// BLAKE3 of all of it.
    pub hash: [u8; 32],
}

impl BackupFile {
    /// What it means that it cannot be read.
    pub(super) fn unreadable(&self, error: io::Error) -> BackupError {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof => {
                BackupError::Damaged { file: self.path() }
            }
            _ => BackupError::io("reading the backup", &self.path())(error),
        }
    }

    /// Its name in the backup.
    #[must_use]
    pub fn path(&self) -> String {
        match self.kind {
            FileKind::Identity => IDENTITY_FILE.to_owned(),
            FileKind::Segment => format!("{SEGMENTS}/{:010}-{}.log", self.number, self.position),
            FileKind::Batch => Layout::path(self.number),
        }
    }
}

/// What a backup is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The store's id.
    pub store: u64,
    /// The length of a segment file of the store.
    pub segment_bytes: u64,
    /// The first record.
    pub first: Lsn,
    /// The backup holds the log up to here.
    pub end: Lsn,
    /// Engine time of the last group.
    pub time_ms: u64,
    /// The highest epoch.
    pub epoch: u32,
    /// How far the last chain value reaches; zero at the beginning of a log.
    pub chain_to: u64,
    /// The last chain value.
    pub chain: [u8; 32],
    /// The files: identity, segments, batches, each in order of number.
    pub files: Vec<BackupFile>,
}

impl Manifest {
    /// Reads the manifest of a backup; `None` if there is none.
    ///
    /// # Errors
    /// If it is damaged or of another version, or cannot be read.
    pub fn read(medium: &dyn Medium) -> Result<Option<Manifest>, BackupError> {
        let io = || BackupError::io("reading the backup", FILE);
        let file = match medium.open(FILE) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io()(error)),
        };
        let mut bytes = vec![0; file.len().map_err(io())? as usize];
        file.read_at(0, &mut bytes).map_err(io())?;
        if bytes.len() >= 12 && &bytes[..8] == MAGIC {
            let version = u32::from_le_bytes(bytes[8..12].try_into().expect("four bytes"));
            if version != VERSION {
                return Err(BackupError::Version { version });
            }
        }
        Manifest::parse(&bytes).map(Some).ok_or(BackupError::Damaged { file: FILE.to_owned() })
    }

    /// Writes it in place of the one before: from here on the backup is this one.
    pub(super) fn write(&self, medium: &dyn Medium) -> io::Result<()> {
        replace_file(medium, FILE, &self.encode())
    }

    /// The segment that holds the end.
    #[must_use]
    pub fn last_segment(&self) -> Option<&BackupFile> {
        self.files.iter().rev().find(|file| file.kind == FileKind::Segment)
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[0..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&(self.files.len() as u32).to_le_bytes());
        let numbers = [self.store, self.segment_bytes, self.first.bytes(), self.end.bytes(), self.time_ms];
        for (place, number) in bytes[16..56].chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        bytes[56..60].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[64..72].copy_from_slice(&self.chain_to.to_le_bytes());
        bytes[72..104].copy_from_slice(&self.chain);
        for file in &self.files {
            let mut line = [0; FILE_BYTES];
            line[0..4].copy_from_slice(&(file.kind as u32).to_le_bytes());
            line[4..8].copy_from_slice(&file.number.to_le_bytes());
            line[8..16].copy_from_slice(&file.bytes.to_le_bytes());
            line[16..24].copy_from_slice(&file.position.to_le_bytes());
            line[24..56].copy_from_slice(&file.hash);
            bytes.extend_from_slice(&line);
        }
        let hash = blake3::hash(&bytes);
        bytes.extend_from_slice(hash.as_bytes());
        bytes
    }

    fn parse(bytes: &[u8]) -> Option<Manifest> {
        let body = bytes.get(..bytes.len().checked_sub(32)?)?;
        let (header, lines) = body.split_at_checked(HEADER_BYTES)?;
        let u32_at =
            |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let u64_at =
            |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let mut files = Vec::new();
        for line in lines.chunks(FILE_BYTES) {
            if line.len() != FILE_BYTES {
                return None;
            }
            let kind = match u32_at(line, 0) {
                1 => FileKind::Identity,
                2 => FileKind::Segment,
                3 => FileKind::Batch,
                _ => return None,
            };
            files.push(BackupFile {
                kind,
                number: u32_at(line, 4),
                bytes: u64_at(line, 8),
                position: u64_at(line, 16),
                hash: line[24..56].try_into().expect("a hash"),
            });
        }
        let manifest = Manifest {
            store: u64_at(header, 16),
            segment_bytes: u64_at(header, 24),
            first: Lsn::from_bytes(u64_at(header, 32))?,
            end: Lsn::from_bytes(u64_at(header, 40))?,
            time_ms: u64_at(header, 48),
            epoch: u32_at(header, 56),
            chain_to: u64_at(header, 64),
            chain: header[72..104].try_into().expect("a hash"),
            files,
        };
        // Comparing with what it encodes to covers magic, version, count, hash and reserved bytes.
        (manifest.encode() == bytes).then_some(manifest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_any_other_byte_is_refused() {
        let file = |kind, number| BackupFile { kind, number, bytes: 5000, position: 70_000, hash: [7; 32] };
        let manifest = Manifest {
            store: 0x1234,
            segment_bytes: 1 << 16,
            first: Lsn::from_bytes(81_920).unwrap(),
            end: Lsn::from_bytes(90_000).unwrap(),
            time_ms: 1_800_000_000_000,
            epoch: 3,
            chain_to: 89_000,
            chain: [9; 32],
            files: vec![file(FileKind::Identity, 0), file(FileKind::Segment, 1), file(FileKind::Batch, 4)],
        };
        let bytes = manifest.encode();
        assert_eq!(Manifest::parse(&bytes), Some(manifest));
        for at in 0..bytes.len() {
            let mut other = bytes.clone();
            other[at] ^= 1;
            assert_eq!(Manifest::parse(&other), None, "byte {at}");
            assert_eq!(Manifest::parse(&bytes[..at]), None, "cut at {at}");
        }
    }
}
