//! Making a backup, or bringing one up to date.

use std::collections::BTreeSet;
use std::io;

use kami_wal::chain::ChainPoint;
use kami_wal::{
    Buffer, DurableChain, DurableLog, DurableSegment, File, Lsn, Medium, OpenError, Record, RecordKind,
    segment_path,
};

use super::manifest::SEGMENTS;
use super::{BackupError, BackupFile, CHUNK_BYTES, FileKind, Manifest, Side, manifest};
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
/// `data` is only read, `out` must be locked by the caller. `pace` is told how many bytes were written after each
/// piece of at most 1 MiB, and may hold the copying up.
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
        out.create_dir(dir).map_err(BackupError::writing(Side::Backup, dir))?;
    }
    let mut run = Run { data, out, pace, files: Vec::new(), written: (0, 0) };
    run.identity()?;
    let manifest = run.log(&log, identity.store, before.as_ref())?;
    for dir in [SEGMENTS, batch::DIRECTORY, ""] {
        out.sync_dir(dir).map_err(BackupError::writing(Side::Backup, dir))?;
    }
    manifest.write(out).map_err(BackupError::writing(Side::Backup, manifest::FILE))?;
    remove_others(out, &manifest)?;
    let (files_written, bytes_written) = run.written;
    Ok(BackupReport { manifest, before: before.map(|before| before.end), files_written, bytes_written })
}

/// A directory without a manifest may only hold the beginning of a backup.
fn check_free(out: &dyn Medium) -> Result<(), BackupError> {
    let ours = ["identity", "identity.new", "manifest.new", SEGMENTS, batch::DIRECTORY];
    let mut names = out.list("").map_err(BackupError::io("reading the backup", ""))?;
    names.retain(|name| !ours.contains(&name.as_str()) && !store::is_of_the_system(name));
    match names.pop() {
        Some(found) => Err(BackupError::NotEmpty { found }),
        None => Ok(()),
    }
}

/// Removes what the manifest does not name: shorter segments of earlier runs, and what a cut short one left. What has
/// no name that a run gives is somebody else's.
fn remove_others(out: &dyn Medium, manifest: &Manifest) -> Result<(), BackupError> {
    let named: BTreeSet<String> = manifest.files.iter().map(BackupFile::path).collect();
    for dir in [SEGMENTS, batch::DIRECTORY] {
        for name in out.list(dir).map_err(BackupError::io("reading the backup", dir))? {
            let path = format!("{dir}/{name}");
            if !named.contains(&path) && is_ours(&name) {
                out.remove(&path).map_err(BackupError::writing(Side::Backup, &path))?;
            }
        }
        out.sync_dir(dir).map_err(BackupError::writing(Side::Backup, dir))?;
    }
    Ok(())
}

/// Whether a run could have given this name to a segment or a batch file.
fn is_ours(name: &str) -> bool {
    let name = name.strip_suffix(".new").unwrap_or(name);
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let segment = name.strip_suffix(".log").and_then(|name| name.split_once('-'));
    segment.is_some_and(|(number, end)| is_number(number) && is_number(end))
        || name.strip_suffix(".batch").is_some_and(is_number)
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
            read_all(self.data, store::FILE).map_err(BackupError::io("reading the store", store::FILE))?;
        let file = BackupFile {
            kind: FileKind::Identity,
            number: 0,
            bytes: bytes.len() as u64,
            position: 0,
            hash: *blake3::hash(&bytes).as_bytes(),
        };
        let path = file.path();
        if !self.is_there(&file) || read_all(self.out, &path).ok().as_deref() != Some(&bytes) {
            replace_file(self.out, &path, &bytes).map_err(BackupError::writing(Side::Backup, &path))?;
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
        let mut buffer = Buffer::default();
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
        let mut chain = DurableChain::behind(ChainPoint { to: manifest.chain_to, value: manifest.chain });
        if last.is_none() && log.first_segment() != 1 {
            // Everything before would be missing from it for good.
            return Err(OpenError::MissingSegment { file: segment_path(1) }.into());
        }
        // The last chain value may end before the segment that is read again.
        for number in last.map_or(0..0, |last| log.segment_of(manifest.chain_to)..last.number) {
            let segment = log.segment(number, buffer)?;
            // Another history does not follow from the value before it either, but is no damage.
            if let Some(file) = of_kind(FileKind::Segment).find(|file| file.number == number) {
                check_continues(&file, &segment)?;
            }
            chain.follow(&segment)?;
            buffer = segment.into_buffer();
        }
        for number in last.map_or(log.first_segment(), |last| last.number)..=log.last_segment() {
            let segment = log.segment(number, buffer)?;
            if let Some(last) = last.filter(|last| last.number == number) {
                check_continues(&last, &segment)?;
            } else if before.is_none() && prev_end.is_none() {
                manifest.first = segment.records().next().map_or(log.end(), |record| record.lsn);
            }
            prev_end = Some(segment.end());
            chain.follow(&segment)?;
            for record in segment.records() {
                manifest.take(&record, &mut commits)?;
            }
            self.segment(&segment)?;
            buffer = segment.into_buffer();
        }
        manifest.end = log.end();

        for file in of_kind(FileKind::Batch) {
            commits.retain(|commit| commit.number != file.number);
            if self.is_there(&file) {
                self.files.push(file);
            } else {
                self.batch(store, file.number, file.position, Expected::Whole(file.hash))?;
            }
        }
        for commit in commits {
            self.batch(store, commit.number, commit.lsn.bytes(), Expected::Import(commit.file_hash))?;
        }
        self.files.sort_by_key(|file| (file.kind, file.number));
        manifest.files = std::mem::take(&mut self.files);
        Ok(manifest)
    }

    /// Whether a file of this length is there already. Only complete files that were compared have these names; what
    /// goes bad later is found by looking at the whole backup.
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
            let temporary = format!("{path}.new");
            let written = write_temporary(self.out, Side::Backup, &temporary, &mut |new| {
                for (chunk, at) in bytes.chunks(CHUNK_BYTES).zip((0..).step_by(CHUNK_BYTES)) {
                    write_piece(new, at, chunk).map_err(BackupError::writing(Side::Backup, &path))?;
                    (self.pace)(chunk.len() as u64);
                }
                Ok(())
            })?;
            self.finish(&temporary, &path, written)?;
        }
        self.files.push(file);
        Ok(())
    }

    /// Copies a batch file, unless a run that was cut short left it complete, and compares it with what it must be.
    fn batch(
        &mut self,
        store: u64,
        number: u32,
        position: u64,
        expected: Expected,
    ) -> Result<(), BackupError> {
        let path = batch::Layout::path(number);
        let there = BatchFile::open(self.out, number, store).ok();
        // Whatever is wrong with what is there: it is copied once more then.
        let there = there.and_then(|there| Some((there.layout, self.hashes(&there, &path, None).ok()?)));
        let (layout, hashes) = match there.filter(|(_, hashes)| expected.is(hashes)) {
            Some(there) => there,
            None => self.copy_batch(store, number, expected)?,
        };
        self.files.push(BackupFile {
            kind: FileKind::Batch,
            number,
            bytes: layout.file_bytes(),
            position,
            hash: hashes.whole,
        });
        Ok(())
    }

    fn copy_batch(
        &mut self,
        store: u64,
        number: u32,
        expected: Expected,
    ) -> Result<(batch::Layout, Hashes), BackupError> {
        let path = batch::Layout::path(number);
        let damaged = || BackupError::BatchFile { file: path.clone() };
        let from = BatchFile::open(self.data, number, store).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => damaged(),
            _ => BackupError::io("reading the store", &path)(error),
        })?;
        let temporary = format!("{path}.new");
        let mut hashes = Hashes::default();
        let out = self.out;
        let bytes = write_temporary(out, Side::Backup, &temporary, &mut |new| {
            hashes = self.hashes(&from, &path, Some(new))?;
            Ok(())
        })?;
        if !expected.is(&hashes) {
            // Nothing depends on it, and what is left of it goes with the next run.
            let _ = out.remove(&temporary);
            return Err(damaged());
        }
        self.finish(&temporary, &path, bytes)?;
        Ok((from.layout, hashes))
    }

    /// Hashes a batch file as its import did, and as a whole; copies it on the way to `new`.
    fn hashes(
        &mut self,
        from: &BatchFile,
        path: &str,
        new: Option<&dyn File>,
    ) -> Result<Hashes, BackupError> {
        let reading = || BackupError::io("reading the store", path);
        let writing = || BackupError::writing(Side::Backup, path);
        let layout = from.layout;
        let mut columns = FileHasher::default();
        let mut whole = blake3::Hasher::new();
        let header = layout.header();
        whole.update(&header);
        if let Some(new) = new {
            new.write_at(0, &header).map_err(writing())?;
        }
        let mut at = HEADER_BYTES;
        let mut buffer = Vec::new();
        for (column, width) in layout.widths().into_iter().enumerate().filter(|(_, width)| *width > 0) {
            // What is behind the column before belongs to rows that were left out: zeros in the copy.
            let hole = layout.cell(column, 0) - at;
            io::copy(&mut io::Read::take(io::repeat(0), hole), &mut whole).map_err(reading())?;
            at += hole;
            let mut row = 0;
            while row < layout.rows {
                let rows = ((CHUNK_BYTES / width) as u64).min(layout.rows - row);
                from.read(column, row, rows as usize, &mut buffer).map_err(reading())?;
                columns.update(column, &buffer);
                whole.update(&buffer);
                if let Some(new) = new {
                    write_piece(new, at, &buffer).map_err(writing())?;
                }
                at += buffer.len() as u64;
                row += rows;
                (self.pace)(buffer.len() as u64);
            }
        }
        Ok(Hashes { import: columns.finish(&layout).0, whole: *whole.finalize().as_bytes() })
    }

    fn finish(&mut self, temporary: &str, path: &str, bytes: u64) -> Result<(), BackupError> {
        self.out.rename(temporary, path).map_err(BackupError::writing(Side::Backup, path))?;
        self.written = (self.written.0 + 1, self.written.1 + bytes);
        Ok(())
    }
}

/// What a batch file must hash to.
#[derive(Clone, Copy)]
enum Expected {
    /// As its import recorded it.
    Import([u8; 32]),
    /// As the backup had it before.
    Whole([u8; 32]),
}

/// The hashes of a batch file.
#[derive(Default)]
struct Hashes {
    import: [u8; 32],
    whole: [u8; 32],
}

impl Expected {
    fn is(&self, hashes: &Hashes) -> bool {
        match self {
            Expected::Import(hash) => *hash == hashes.import,
            Expected::Whole(hash) => *hash == hashes.whole,
        }
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
    side: Side,
    path: &str,
    fill: &mut dyn FnMut(&dyn File) -> Result<(), BackupError>,
) -> Result<u64, BackupError> {
    let failed = || BackupError::writing(side, path);
    match medium.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed()(error)),
        _ => {}
    }
    let file = medium.create(path).map_err(failed())?;
    fill(&*file)?;
    file.sync().and_then(|()| file.len()).map_err(failed())
}

/// Writes a piece of a file, and has what was written reach the device a little at a time, so that no flood of writes
/// holds up the log beside it.
pub(super) fn write_piece(file: &dyn File, at: u64, piece: &[u8]) -> io::Result<()> {
    const SYNC_SHIFT: u32 = 23;
    file.write_at(at, piece)?;
    if (at + piece.len() as u64) >> SYNC_SHIFT != at >> SYNC_SHIFT { file.sync() } else { Ok(()) }
}

pub(super) fn read_all(medium: &dyn Medium, path: &str) -> io::Result<Vec<u8>> {
    let file = medium.open(path)?;
    let mut bytes = vec![0; file.len()? as usize];
    for (chunk, at) in bytes.chunks_mut(CHUNK_BYTES).zip((0..).step_by(CHUNK_BYTES)) {
        file.read_at(at, chunk)?;
    }
    Ok(bytes)
}
