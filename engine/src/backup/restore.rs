//! Restoring: a new store from a backup, as it was at its end or at an earlier point.
//!
//! A point is a record boundary, so the restored state is one that the engine was in: a group of decisions is
//! there as a whole or not at all, and an order never in part.
//!
//! # What makes it another history
//! The restored store has the same id, because every record, batch file and hash rests on it. It goes on in an
//! epoch far behind all that the backup knows, with a random step, so that no record of it can pass for one of
//! the original and a reader that remembers position and epoch sees the difference; and the first entry of that epoch is a
//! RESTORE, under the hash chain, which says what was left out.
//!
//! # What a crash leaves
//! `restoring` is the first file made and the last one removed, and while it is there nothing opens the
//! directory as a store. There is nothing to continue: remove the directory and restore again.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use aws_lc_rs::rand;
use kami_wal::{
    Drive, Lsn, Medium, OpenError, RECORD_HEAD_BYTES, Record, RecordKind, Verdict, Wal, WalOptions,
};

use super::copy::read_all;
use super::{Backup, BackupError, FileKind, Side, copy};
use crate::batch;
use crate::record::{
    FormatError, GROUP_HEAD_BYTES, Group, GroupWriter, HEAD_BYTES, Head, Kind, RESTORE_BYTES, Restored,
};
use crate::store::{self, RESTORING_FILE};
use crate::vault::replace_file;

/// The largest step between the epochs of a backup and that of a store restored from it.
const EPOCH_STEP_MAX: u32 = 1 << 20;

/// How much of a backup is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// All of it.
    End,
    /// Everything that ended at or before this position. The position of an entry leaves that entry out, and with it
    /// the up to 63 that were decided together with it.
    Lsn(Lsn),
    /// Everything up to and including this engine time, milliseconds since 1970.
    TimeMs(u64),
}

/// A point to which a backup can be restored.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RestorePoint {
    /// The log up to here.
    pub end: Lsn,
    /// Engine time of its last group, milliseconds since 1970.
    pub time_ms: u64,
    /// Entries up to there.
    pub entries: u64,
    /// What the backup holds behind it.
    pub dropped: Dropped,
}

/// Effects that a backup holds and a restored store does not. They were acknowledged, so people act on them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Dropped {
    /// Effects by kind. Entries that change nothing outside (starts, reveals, misses, rotations of keys) are none.
    pub entries: BTreeMap<&'static str, u64>,
    /// Cards of the orders among them: whoever bought them has their codes, and they are for sale again.
    pub cards_sold: u64,
}

/// What was restored.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RestoreReport {
    /// To where.
    pub point: RestorePoint,
    /// The epoch in which the store goes on.
    pub epoch: u32,
    /// Segments of the backup that are in it.
    pub segments: u64,
    /// Batches that are in it.
    pub batches: u64,
    /// Bytes copied.
    pub bytes: u64,
}

impl Backup {
    /// Finds the last record boundary that `until` allows, reading all of the log: checksums and hash chain.
    ///
    /// # Errors
    /// If the log is damaged, or nothing lies before the point.
    pub fn point(&self, until: Until) -> Result<RestorePoint, BackupError> {
        let manifest = &self.manifest;
        if let Until::Lsn(lsn) = until
            && manifest.end < lsn
        {
            return Err(BackupError::BeyondEnd { end: manifest.end });
        }
        let mut search = Search { until, point: None, closed: false, wrong: None };
        let options = WalOptions { store_id: Some(manifest.store), ..WalOptions::default() };
        let view = self.as_store(manifest.end);
        let report = kami_wal::verify(&*view, &options, &mut |record| search.record(&record))?;
        if let Verdict::Damaged(error) = report.verdict {
            return Err(error.into());
        }
        if let Some(wrong) = search.wrong {
            return Err(wrong.into());
        }
        if report.tail != Some(manifest.end) {
            let file = manifest.last_segment().map(super::BackupFile::path).unwrap_or_default();
            return Err(BackupError::Damaged { file });
        }
        search
            .point
            .filter(|point| point.entries > 0)
            .ok_or(BackupError::BeforeStart { first: manifest.first })
    }

    /// Makes a store of this backup on `data`, an empty directory, up to `point`. `wall_ms` goes into the record that
    /// says so.
    ///
    /// # Errors
    /// See [`BackupError`]. The directory is of no use then.
    pub fn restore(
        &self,
        data: &Arc<dyn Medium>,
        point: RestorePoint,
        wall_ms: u64,
    ) -> Result<RestoreReport, BackupError> {
        let writing = |file: &str| BackupError::writing(Side::Store, file);
        let names = data.list("").map_err(BackupError::io("reading the directory to restore to", ""))?;
        if let Some(found) = names.into_iter().find(|name| !store::is_of_the_system(name)) {
            return Err(BackupError::TargetNotEmpty { found });
        }
        let identity = self.identity()?;
        replace_file(&**data, RESTORING_FILE, b"a restore is under way, or was cut short\n")
            .map_err(writing(RESTORING_FILE))?;
        let dirs = ["log", batch::DIRECTORY];
        for dir in dirs {
            data.create_dir(dir).map_err(writing(dir))?;
        }
        let mut report = RestoreReport { point, epoch: 0, segments: 0, batches: 0, bytes: 0 };
        for file in self.manifest.files.iter().filter(|file| file.kind != FileKind::Identity) {
            let Some((name, place)) = self.place(file, report.point.end) else { continue };
            match file.kind {
                FileKind::Segment => report.segments += 1,
                _ => report.batches += 1,
            }
            let mut hasher = blake3::Hasher::new();
            let mut bytes = 0;
            copy::write_temporary(&**data, Side::Store, &name, &mut |new| {
                let mut full = None;
                let copied = self.pieces(file, &mut |at, piece| {
                    hasher.update(piece);
                    let used = place.used.saturating_sub(at).min(piece.len() as u64) as usize;
                    let written = if used == 0 { Ok(()) } else { copy::write_piece(new, at, &piece[..used]) };
                    written.map_err(|error| {
                        let kind = error.kind();
                        full = Some(error);
                        kind.into()
                    })
                });
                bytes = copied.map_err(|error| match full.take() {
                    Some(error) => writing(&name)(error),
                    None => file.unreadable(error),
                })?;
                if place.used < place.bytes {
                    new.write_at(place.bytes - 1, &[0]).map_err(writing(&name))?;
                }
                Ok(())
            })?;
            if bytes != file.bytes || *hasher.finalize().as_bytes() != file.hash {
                return Err(BackupError::Damaged { file: file.path() });
            }
            report.bytes += place.used;
        }
        for dir in dirs {
            data.sync_dir(dir).map_err(writing(dir))?;
        }
        report.epoch = self.begin_history(data, &report.point, wall_ms)?;
        replace_file(&**data, store::FILE, &identity).map_err(writing(store::FILE))?;
        data.remove(RESTORING_FILE).and_then(|()| data.sync_dir("")).map_err(writing(RESTORING_FILE))?;
        Ok(report)
    }

    /// The store's identity, looked at before anything is written.
    fn identity(&self) -> Result<Vec<u8>, BackupError> {
        let damaged = || BackupError::Damaged { file: super::IDENTITY_FILE.to_owned() };
        let file = self.manifest.files.iter().find(|file| file.kind == FileKind::Identity);
        let file = file.ok_or_else(damaged)?;
        let bytes = read_all(&*self.medium, &file.path()).map_err(|error| file.unreadable(error))?;
        if *blake3::hash(&bytes).as_bytes() == file.hash { Ok(bytes) } else { Err(damaged()) }
    }

    /// Opens the restored log in an epoch of its own and records what it is. Returns the epoch.
    fn begin_history(
        &self,
        data: &Arc<dyn Medium>,
        point: &RestorePoint,
        wall_ms: u64,
    ) -> Result<u32, BackupError> {
        let mut random = [0; 4];
        rand::fill(&mut random)
            .map_err(|_| BackupError::io("drawing a random number", "")(io::Error::other("no randomness")))?;
        let step = 1 + u32::from_le_bytes(random) % EPOCH_STEP_MAX;
        let options = WalOptions {
            store_id: Some(self.manifest.store),
            epoch_min: self.manifest.epoch.saturating_add(1).saturating_add(step),
            drive: Drive::Manual,
            ..WalOptions::default()
        };
        let mut replay = |_: Record<'_>| Ok::<_, Infallible>(());
        let wal = Wal::open(Arc::clone(data), options, None, &mut replay).map_err(|error| match error {
            OpenError::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                BackupError::DiskFull
            }
            error => error.into(),
        })?;
        let restored = Restored {
            kept: point.end.bytes(),
            backup_end: self.manifest.end.bytes(),
            dropped: point.dropped.entries.values().sum(),
            wall_ms,
        };
        let bytes = GROUP_HEAD_BYTES + HEAD_BYTES + RESTORE_BYTES;
        let mut credit = wal.reserve(bytes).map_err(|_| BackupError::DiskFull)?;
        wal.append(&mut credit, bytes, |payload, lsn| {
            let mut group = GroupWriter::new(payload, lsn, RECORD_HEAD_BYTES as usize);
            group.push(&Head::of_engine(Kind::Restore), RESTORE_BYTES, |tail| restored.encode(tail));
            group.finish(point.time_ms)
        });
        drop(credit);
        let epoch = wal.epoch();
        wal.close()?;
        Ok(epoch)
    }
}

/// Whether an entry of this kind changed something that somebody outside relies on. To start, to read codes again, to miss
/// a code or to wrap the keys anew changes no card and nothing about one.
const fn is_effect(kind: Kind) -> bool {
    !matches!(
        kind,
        Kind::Start | Kind::Reveal | Kind::Miss | Kind::KeyRotate | Kind::SignedCheckpoint | Kind::Restore
    )
}

/// A walk over the log that looks for the point.
struct Search {
    until: Until,
    point: Option<RestorePoint>,
    /// Something was left out, so everything behind it is, too.
    closed: bool,
    wrong: Option<FormatError>,
}

impl Search {
    fn record(&mut self, record: &Record<'_>) {
        if self.wrong.is_none() {
            self.wrong = self.take(record).err();
        }
    }

    fn take(&mut self, record: &Record<'_>) -> Result<(), FormatError> {
        let group = match record.kind {
            RecordKind::Data => Some(Group::parse(record.payload, record.payload_lsn)?),
            _ => None,
        };
        let allowed = match self.until {
            Until::End => true,
            Until::Lsn(lsn) => record.end <= lsn,
            // Engine time never goes back, so everything behind the first later group is later.
            Until::TimeMs(ms) => group.as_ref().is_none_or(|group| group.time_ms <= ms),
        };
        self.closed |= !allowed;
        let kept = !self.closed;
        if kept {
            let point = self.point.get_or_insert_with(|| RestorePoint {
                end: record.end,
                time_ms: 0,
                entries: 0,
                dropped: Dropped::default(),
            });
            point.end = record.end;
            if let Some(group) = &group {
                point.time_ms = group.time_ms;
            }
        }
        let Some(point) = &mut self.point else { return Ok(()) };
        for entry in group.into_iter().flatten() {
            let entry = entry?;
            if kept {
                point.entries += 1;
            } else if is_effect(entry.head.kind) {
                *point.dropped.entries.entry(entry.head.kind.name()).or_default() += 1;
                if matches!(entry.head.kind, Kind::Sell | Kind::Export | Kind::Confirm) {
                    point.dropped.cards_sold += u64::from(entry.order()?.1.count());
                }
            }
        }
        Ok(())
    }
}
