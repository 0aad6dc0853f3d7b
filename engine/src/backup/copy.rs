//! Making a backup, or bringing one up to date.

use std::collections::BTreeSet;
use std::io;

use kami_wal::{DurableLog, DurableSegment, File, Lsn, Medium, Record, RecordKind};

use super::manifest::SEGMENTS;
use super::{BackupError, BackupFile, CHUNK_BYTES, FileKind, Manifest, manifest};
use crate::batch::{self, BatchFile, FileHasher, HEADER_BYTES};
use crate::record::{Group, Kind, StoredBatch};
use crate::store::{self, Identity};
use crate::vault::replace_file;

/// What a run did.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BackupReport {
    /// What the backup is now.
    pub manifest: Manifest,
    /// Where it ended before; `None` for a new one.
    pub before: Option<Lsn>,
    /// Files written.
    pub files_written: u64,
    /// Their bytes.
    pub bytes_written: u64,
}

/// Copies what of the store on `data` is durable to `out`, or what is new since the last run. The store may be in use;
/// `data` is only read, `out` must be locked by the caller. `pace` is told how many bytes were moved after each
/// piece of at most 1 MiB (64 MiB of a segment), and may hold the copying up.
///
/// # Errors
/// See [`BackupError`]. What was a backup before is one still.
pub fn backup(
    data: &dyn Medium,
    out: &dyn Medium,
    pace: &mut dyn FnMut(u64),
) -> Result<BackupReport, BackupError> {
    let identity = Identity::read(data)?.ok_or(BackupError::NoStore)?;
    let before = Manifest::read(out)?;
    match &before {
        Some(before) if before.store != identity.store => {
            return Err(BackupError::OtherStore { store: before.store });
        }
        Some(_) => {}
        None => check_free(out)?,
    }
    let log = DurableLog::open(data, identity.store)?.ok_or(BackupError::NothingDurable)?;
    if let Some(before) = &before
        && log.end() < before.end
    {
        return Err(BackupError::OtherHistory { end: before.end });
    }
    for dir in [SEGMENTS, batch::DIRECTORY] {
        out.create_dir(dir).map_err(BackupError::io("making a directory", dir))?;
    }
    let mut run = Run { data, out, pace, files: Vec::new(), written: (0, 0) };
    run.identity()?;
    let manifest = run.log(&log, identity.store, before.as_ref())?;
    for dir in [SEGMENTS, batch::DIRECTORY, ""] {
        out.sync_dir(dir).map_err(BackupError::io("syncing a directory", dir))?;
    }
    manifest.write(out).map_err(BackupError::io("writing a file", manifest::FILE))?;
    remove_others(out, &manifest)?;
    let (files_written, bytes_written) = run.written;
    Ok(BackupReport { manifest, before: before.map(|before| before.end), files_written, bytes_written })
}

/// A directory without a manifest may only hold the beginning of a backup.
fn check_free(out: &dyn Medium) -> Result<(), BackupError> {
    let ours = ["LOCK", "identity", "identity.new", "manifest.new", SEGMENTS, batch::DIRECTORY];
    let mut names = out.list("").map_err(BackupError::io("listing a directory", ""))?;
    names.retain(|name| !ours.contains(&name.as_str()));
    match names.pop() {
        Some(found) => Err(BackupError::NotEmpty { found }),
        None => Ok(()),
    }
}

/// Removes what the manifest does not name: shorter segments of earlier runs, and what a cut short one left.
fn remove_others(out: &dyn Medium, manifest: &Manifest) -> Result<(), BackupError> {
    let named: BTreeSet<String> = manifest.files.iter().map(BackupFile::path).collect();
    for dir in [SEGMENTS, batch::DIRECTORY] {
        for name in out.list(dir).map_err(BackupError::io("listing a directory", dir))? {
            let path = format!("{dir}/{name}");
            if !named.contains(&path) {
                out.remove(&path).map_err(BackupError::io("removing a file", &path))?;
            }
        }
        out.sync_dir(dir).map_err(BackupError::io("syncing a directory", dir))?;
    }
    Ok(())
}

/// One run.
struct Run<'a> {
    data: &'a dyn Medium,
    out: &'a dyn Medium,
    pace: &'a mut dyn FnMut(u64),
    files: Vec<BackupFile>,
    /// Files and bytes.
    written: (u64, u64),
}

/// A batch that the log commits.
struct Commit {
    number: u32,
    lsn: Lsn,
    file_hash: [u8; 32],
}

impl Run<'_> {
    fn identity(&mut self) -> Result<(), BackupError> {
        let bytes =
            read_all(self.data, store::FILE).map_err(BackupError::io("reading a file", store::FILE))?;
        let file = BackupFile {
            kind: FileKind::Identity,
            number: 0,
            bytes: bytes.len() as u64,
            position: 0,
            hash: *blake3::hash(&bytes).as_bytes(),
        };
        let path = file.path();
        if !self.is_there(&file) || read_all(self.out, &path).ok().as_deref() != Some(&bytes) {
            replace_file(self.out, &path, &bytes).map_err(BackupError::io("writing a file", &path))?;
            self.written = (self.written.0 + 1, self.written.1 + file.bytes);
        }
        self.files.push(file);
        Ok(())
    }

    /// Copies segments and batches, and says what the backup is then.
    fn log(
        &mut self,
        log: &DurableLog<'_>,
        store: u64,
        before: Option<&Manifest>,
    ) -> Result<Manifest, BackupError> {
        let mut manifest = before.cloned().unwrap_or(Manifest {
            store,
            segment_bytes: log.segment_bytes(),
            first: log.end(),
            end: log.end(),
            time_ms: 0,
            epoch: 0,
            chain_to: 0,
            chain: [0; 32],
            files: Vec::new(),
        });
        let known = std::mem::take(&mut manifest.files);
        let of_kind = |kind| known.iter().copied().filter(move |file| file.kind == kind);
        // The last one is read again: it must be the beginning of what is there, and may have grown.
        let last = of_kind(FileKind::Segment).next_back();
        let whole =
            of_kind(FileKind::Segment).filter(|file| Some(file.number) < last.map(|last| last.number));
        let mut buffer = Vec::new();
        for file in whole {
            if self.is_there(&file) {
                self.files.push(file);
            } else {
                let segment = log.segment(file.number, buffer)?;
                check_continues(&file, &segment)?;
                self.segment(&segment)?;
                buffer = segment.into_buffer();
            }
        }
        let mut commits = Vec::new();
        let mut prev_end = None;
        for number in last.map_or(log.first_segment(), |last| last.number)..=log.last_segment() {
            let segment = log.segment(number, buffer)?;
            if let Some(last) = last.filter(|last| last.number == number) {
                check_continues(&last, &segment)?;
            } else if before.is_none() && prev_end.is_none() {
                manifest.first = segment.records().next().map_or(log.end(), |record| record.lsn);
            }
            prev_end = Some(segment.end());
            for record in segment.records() {
                manifest.take(&record, &mut commits)?;
            }
            self.segment(&segment)?;
            (self.pace)(segment.bytes().len() as u64);
            buffer = segment.into_buffer();
        }
        manifest.end = log.end();

        for file in of_kind(FileKind::Batch) {
            commits.retain(|commit| commit.number != file.number);
            if self.is_there(&file) {
                self.files.push(file);
            } else {
                self.batch(store, file.number, file.position, None)?;
                if self.files.last().map(|copied| copied.hash) != Some(file.hash) {
                    return Err(BackupError::BatchFile { file: file.path() });
                }
            }
        }
        for commit in commits {
            self.batch(store, commit.number, commit.lsn.bytes(), Some(commit.file_hash))?;
        }
        self.files.sort_by_key(|file| (file.kind, file.number));
        manifest.files = std::mem::take(&mut self.files);
        Ok(manifest)
    }

    /// Whether a file of this length is there already. Complete files alone have these names.
    fn is_there(&self, file: &BackupFile) -> bool {
        self.out.open(&file.path()).and_then(|open| open.len()).is_ok_and(|bytes| bytes == file.bytes)
    }

    fn segment(&mut self, segment: &DurableSegment) -> Result<(), BackupError> {
        let bytes = segment.bytes();
        let file = BackupFile {
            kind: FileKind::Segment,
            number: segment.number(),
            bytes: bytes.len() as u64,
            position: segment.end().bytes(),
            hash: *blake3::hash(bytes).as_bytes(),
        };
        let path = file.path();
        let same = self.is_there(&file)
            && read_all(self.out, &path).is_ok_and(|there| *blake3::hash(&there).as_bytes() == file.hash);
        if !same {
            self.write(&path, &mut |new| {
                bytes
                    .chunks(CHUNK_BYTES)
                    .zip((0..).step_by(CHUNK_BYTES))
                    .try_for_each(|(chunk, at)| new.write_at(at, chunk))
            })?;
        }
        self.files.push(file);
        Ok(())
    }

    /// Copies a batch file, hashing it as its import did.
    fn batch(
        &mut self,
        store: u64,
        number: u32,
        position: u64,
        expected: Option<[u8; 32]>,
    ) -> Result<(), BackupError> {
        let path = batch::Layout::path(number);
        let failed = || BackupError::io("copying a batch file", &path);
        let from = BatchFile::open(self.data, number, store).map_err(failed())?;
        let layout = from.layout;
        // Left complete by a run that was cut short?
        let there = BatchFile::open(self.out, number, store).ok().filter(|there| there.layout == layout);
        let done = there.is_some_and(|there| there.hash().is_ok_and(|hash| Some(hash.0) == expected));
        let mut hasher = FileHasher::default();
        let mut whole = blake3::Hasher::new();
        let pace = &mut *self.pace;
        let mut copy = |new: Option<&dyn File>| -> io::Result<()> {
            let header = layout.header();
            whole.update(&header);
            if let Some(new) = new {
                new.write_at(0, &header)?;
            }
            let mut at = HEADER_BYTES;
            let mut buffer = Vec::new();
            for (column, width) in layout.widths().into_iter().enumerate().filter(|(_, width)| *width > 0) {
                // The hole that rows left out have made behind the column before; it stays one.
                let hole = layout.cell(column, 0) - at;
                io::copy(&mut io::Read::take(io::repeat(0), hole), &mut whole)?;
                at += hole;
                let mut row = 0;
                while row < layout.rows {
                    let rows = ((CHUNK_BYTES / width) as u64).min(layout.rows - row);
                    from.read(column, row, rows as usize, &mut buffer)?;
                    hasher.update(column, &buffer);
                    whole.update(&buffer);
                    if let Some(new) = new {
                        new.write_at(at, &buffer)?;
                        // A little at a time, so that no flood of writes holds up the log beside it.
                        if (at + buffer.len() as u64) >> 26 != at >> 26 {
                            new.sync()?;
                        }
                    }
                    at += buffer.len() as u64;
                    row += rows;
                    pace(buffer.len() as u64);
                }
            }
            Ok(())
        };
        if done {
            copy(None).map_err(failed())?;
        } else {
            let temporary = format!("{path}.new");
            write_temporary(self.out, &temporary, &mut |new| copy(Some(new)))?;
            if expected.is_some_and(|expected| hasher.finish(&layout).0 != expected) {
                return Err(BackupError::BatchFile { file: path });
            }
            self.finish(&temporary, &path, layout.file_bytes())?;
        }
        let hash = *whole.finalize().as_bytes();
        self.files.push(BackupFile {
            kind: FileKind::Batch,
            number,
            bytes: layout.file_bytes(),
            position,
            hash,
        });
        Ok(())
    }

    fn write(
        &mut self,
        path: &str,
        fill: &mut dyn FnMut(&dyn File) -> io::Result<()>,
    ) -> Result<(), BackupError> {
        let temporary = format!("{path}.new");
        let bytes = write_temporary(self.out, &temporary, fill)?;
        self.finish(&temporary, path, bytes)
    }

    fn finish(&mut self, temporary: &str, path: &str, bytes: u64) -> Result<(), BackupError> {
        self.out.rename(temporary, path).map_err(BackupError::io("renaming a file", path))?;
        self.written = (self.written.0 + 1, self.written.1 + bytes);
        Ok(())
    }
}

impl Manifest {
    /// Takes a record of the log into account.
    fn take(&mut self, record: &Record<'_>, commits: &mut Vec<Commit>) -> Result<(), BackupError> {
        self.epoch = self.epoch.max(record.epoch);
        match record.kind {
            RecordKind::Chain | RecordKind::Segment => {
                if let Some(chain) = record.chain() {
                    (self.chain_to, self.chain) = (chain.to, chain.value);
                }
            }
            RecordKind::Data => {
                let group = Group::parse(record.payload, record.payload_lsn)?;
                self.time_ms = self.time_ms.max(group.time_ms);
                for entry in group {
                    let entry = entry?;
                    if entry.head.kind == Kind::Import {
                        let stored = entry.object::<StoredBatch>()?;
                        let number = entry.head.subject as u32;
                        commits.push(Commit { number, lsn: entry.lsn, file_hash: stored.file_hash });
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// Refuses a segment that does not begin with what the backup has of it.
fn check_continues(file: &BackupFile, segment: &DurableSegment) -> Result<(), BackupError> {
    let begins = segment
        .bytes()
        .get(..file.bytes as usize)
        .is_some_and(|bytes| *blake3::hash(bytes).as_bytes() == file.hash);
    match Lsn::from_bytes(file.position) {
        Some(end) if !begins => Err(BackupError::OtherHistory { end }),
        _ => Ok(()),
    }
}

/// Makes a file and syncs it; returns its length.
pub(super) fn write_temporary(
    medium: &dyn Medium,
    path: &str,
    fill: &mut dyn FnMut(&dyn File) -> io::Result<()>,
) -> Result<u64, BackupError> {
    let mut make = || {
        match medium.remove(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = medium.create(path)?;
        fill(&*file)?;
        file.sync()?;
        file.len()
    };
    make().map_err(BackupError::io("writing a file", path))
}

pub(super) fn read_all(medium: &dyn Medium, path: &str) -> io::Result<Vec<u8>> {
    let file = medium.open(path)?;
    let mut bytes = vec![0; file.len()? as usize];
    for (chunk, at) in bytes.chunks_mut(CHUNK_BYTES).zip((0..).step_by(CHUNK_BYTES)) {
        file.read_at(at, chunk)?;
    }
    Ok(bytes)
}
