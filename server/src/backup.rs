//! `kami backup` and `kami restore`: copies of a store's history, and stores made of them.
//!
//! A backup is made by a process of its own that reads the store's files and asks the server nothing: the files
//! say themselves what is durable. So it works whether the server runs or not, needs no right on the wire, cannot
//! make the server write anywhere, and its priority and pace are the operating system's and `--max-rate`'s.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use kami_engine::{Backup, BackupError, Dropped, FileKind, Lsn, Until};
use kami_wal::{DiskMedium, DiskOptions, Medium, ReadOnlyDisk};
use serde_json::json;

use crate::exit::{Exit, Failure, sentence};
use crate::output::{Output, count};
use crate::{keys, time};

/// Copy a store's history to another directory, while it is served or not; again: only what is new.
///
/// The backup holds everything that was durable when it began. It carries no key: copy the key directory, too,
/// after this, to another place.
#[derive(Args)]
#[command(
    after_help = "Example:\n  kami backup --data kami-data --out /mnt/backup/kami\n  kami verify --backup /mnt/backup/kami"
)]
pub struct BackupCommand {
    /// Where the data lies.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Where the backup goes, or the backup that is to be brought up to date.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Copy at most so much in a second, so that the server keeps its disk; 0 is as fast as it goes.
    #[arg(long, value_name = "MIB", default_value_t = 32)]
    max_rate: u64,
}

/// Make a store of a backup, as it was at its end or at an earlier point.
///
/// The directory must be new or empty. The restored store is a history of its own: it goes on in another epoch, and
/// its log says what was left out.
#[derive(Args)]
#[command(
    after_help = "Example:\n  kami restore --from /mnt/backup/kami --data kami-new --until \"2026-11-22 14:05\"\n  kami verify --data kami-new --keys kami-data.keys"
)]
pub struct Restore {
    /// The backup.
    #[arg(long, value_name = "DIR")]
    from: PathBuf,
    /// Where the store goes.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Leave out everything from this position on: the one of a receipt, a history or `kami wal inspect`.
    #[arg(long, value_name = "LSN", conflicts_with = "until")]
    until_lsn: Option<u64>,
    /// Leave out everything after this time: 2026-11-22 (to its end), "2026-11-22 14:05", 2026-11-22T14:05:00+08:00.
    #[arg(long, value_name = "TIME", value_parser = time::parse_end)]
    until: Option<u64>,
    /// Only say what would be restored and what left out.
    #[arg(long)]
    dry_run: bool,
    /// Accept a file system that does not survive a power cut, such as tmpfs.
    #[arg(long)]
    unsafe_filesystem: bool,
}

/// A backup that is only looked at.
pub fn open(directory: &Path) -> Result<Backup, Failure> {
    Ok(Backup::open(read_only(directory)?)?)
}

/// A directory that is only looked at.
pub fn read_only(directory: &Path) -> Result<Arc<dyn Medium>, Failure> {
    let medium = ReadOnlyDisk::open(directory).map_err(|error| {
        Failure::environment(format!("the directory cannot be read path=`{}`: {error}", directory.display()))
    })?;
    Ok(Arc::new(medium))
}

pub fn backup(command: BackupCommand, output: &Output) -> Result<Exit, Failure> {
    check_apart(&command.data, &command.out)?;
    // The server and its tills come first wherever both want the same processor.
    let _ = rustix::process::nice(10);
    let data = read_only(&command.data)?;
    // Where a backup goes is up to its owner: also to a machine elsewhere.
    let options = DiskOptions { unsafe_filesystem: true, ..DiskOptions::default() };
    let out = DiskMedium::open(&command.out, options)?;
    let begun = Instant::now();
    let mut pace = Pace::new(output, "copying", command.max_rate);
    let report = kami_engine::backup(&*data, &out, &mut |bytes| pace.moved(bytes))?;
    pace.finish();
    let manifest = &report.manifest;
    let total: u64 = manifest.files.iter().map(|file| file.bytes).sum();
    let of_kind = |kind| manifest.files.iter().filter(|file| file.kind == kind).count();
    let (segments, batches) = (of_kind(FileKind::Segment), of_kind(FileKind::Batch));
    let seconds = begun.elapsed().as_secs_f64();
    let value = json!({
        "store_id": format!("{:016x}", manifest.store),
        "end": manifest.end.bytes(),
        "before": report.before.map(Lsn::bytes),
        "time_ms": manifest.time_ms,
        "epoch": manifest.epoch,
        "chain": hex(&manifest.chain),
        "chain_to": manifest.chain_to,
        "segments": segments,
        "batches": batches,
        "bytes": total,
        "files_written": report.files_written,
        "bytes_written": report.bytes_written,
        "seconds": seconds,
    });
    output.result(&value, || {
        let before = report.before.map_or_else(
            || "a new backup".to_owned(),
            |before| {
                format!("{} bytes of log more than before", count(manifest.end.bytes() - before.bytes()))
            },
        );
        [
            format!("store     {:016x}, {before}", manifest.store),
            format!("up to     lsn {}, {}", manifest.end, time::show(manifest.time_ms)),
            format!("holds     {segments} segments, {batches} batches, {} bytes", count(total)),
            format!(
                "written   {} files, {} bytes in {seconds:.1} s",
                report.files_written,
                count(report.bytes_written)
            ),
            "no key is in it: copy the key directory after this, to another place".to_owned(),
        ]
        .join("\n")
    })?;
    Ok(Exit::Done)
}

pub fn restore(command: Restore, output: &Output) -> Result<Exit, Failure> {
    check_apart(&command.from, &command.data)?;
    let backup = open(&command.from)?;
    let until = match (command.until_lsn, command.until) {
        (Some(lsn), _) => Until::Lsn(Lsn::from_bytes(lsn / 8 * 8).ok_or_else(|| {
            Failure::usage(format!("--until-lsn is a position in the log, such as a receipt's, not `{lsn}`"))
        })?),
        (None, Some(time_ms)) => Until::TimeMs(time_ms),
        (None, None) => Until::End,
    };
    let point = backup.point(until)?;
    let manifest = backup.manifest();
    let mut value = json!({
        "store_id": format!("{:016x}", manifest.store),
        "lsn": point.end.bytes(),
        "time_ms": point.time_ms,
        "entries": point.entries,
        "backup_end": manifest.end.bytes(),
        "dropped": point.dropped.entries,
        "dropped_cards_sold": point.dropped.cards_sold,
        "restored": !command.dry_run,
    });
    let mut lines = vec![
        format!("store      {:016x}", manifest.store),
        format!("up to      lsn {}, {}", point.end, time::show(point.time_ms)),
        format!("           {} entries; the backup ends at lsn {}", count(point.entries), manifest.end),
        format!("left out   {}", left_out(&point.dropped)),
    ];
    if point.dropped.cards_sold > 0 {
        lines.push(format!(
            "           {} cards sold after that point are for sale again, and their buyers have the codes",
            count(point.dropped.cards_sold)
        ));
    }
    if !command.dry_run {
        let options = DiskOptions { unsafe_filesystem: command.unsafe_filesystem, ..DiskOptions::default() };
        let data: Arc<dyn Medium> = Arc::new(DiskMedium::open(&command.data, options)?);
        let mut pace = Pace::new(output, "restoring", 0);
        let report = backup.restore(&data, point, time::now_ms(), &mut |bytes| pace.moved(bytes))?;
        pace.finish();
        value["epoch"] = report.epoch.into();
        value["segments"] = report.segments.into();
        value["batches"] = report.batches.into();
        value["bytes"] = report.bytes.into();
        lines.push(format!(
            "restored   {} segments, {} batches, {} bytes; it goes on in epoch {}",
            report.segments,
            report.batches,
            count(report.bytes),
            report.epoch
        ));
        lines.push(format!(
            "next       copy the keys to {}, then `kami verify --data {}`",
            keys::beside(&command.data).display(),
            command.data.display()
        ));
    }
    output.result(&value, || lines.join("\n"))?;
    Ok(Exit::Done)
}

fn left_out(dropped: &Dropped) -> String {
    if dropped.entries.is_empty() {
        return "nothing".to_owned();
    }
    let kinds = dropped.entries.iter().map(|(kind, entries)| format!("{} {kind}", count(*entries)));
    kinds.collect::<Vec<_>>().join(", ")
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Refuses a copy inside of what is copied, and the other way round.
fn check_apart(from: &Path, to: &Path) -> Result<(), Failure> {
    let absolute =
        |path: &Path| std::fs::canonicalize(path).or_else(|_| std::path::absolute(path)).unwrap_or_default();
    let (from, to) = (absolute(from), absolute(to));
    if from.starts_with(&to) || to.starts_with(&from) {
        return Err(Failure::usage("the store and its backup must not lie in one another"));
    }
    Ok(())
}

/// Shows how far a copy is and holds it back to a rate.
struct Pace {
    bar: ProgressBar,
    begun: Instant,
    moved: u64,
    /// Bytes in a second; 0 is no limit.
    rate: u64,
}

impl Pace {
    fn new(output: &Output, what: &'static str, max_rate_mib: u64) -> Pace {
        let bar = if output.json { ProgressBar::hidden() } else { ProgressBar::new_spinner() };
        if let Ok(style) = ProgressStyle::with_template("{msg} {bytes} {binary_bytes_per_sec}") {
            bar.set_style(style);
        }
        bar.set_message(what);
        Pace { bar, begun: Instant::now(), moved: 0, rate: max_rate_mib << 20 }
    }

    fn moved(&mut self, bytes: u64) {
        self.moved += bytes;
        self.bar.inc(bytes);
        if self.rate > 0 {
            let due = Duration::from_secs_f64(self.moved as f64 / self.rate as f64);
            std::thread::sleep(due.saturating_sub(self.begun.elapsed()));
        }
    }

    fn finish(self) {
        self.bar.finish_and_clear();
    }
}

impl From<BackupError> for Failure {
    fn from(error: BackupError) -> Failure {
        let text = sentence(&error);
        match error {
            BackupError::Identity(error) => error.into(),
            BackupError::Log(error) => error.into(),
            BackupError::Format(_)
            | BackupError::BatchFile { .. }
            | BackupError::Incomplete
            | BackupError::Version { .. }
            | BackupError::Damaged { .. } => Failure::new(Exit::Damaged, text),
            BackupError::BeforeStart { .. } | BackupError::BeyondEnd { .. } => Failure::usage(text),
            _ => Failure::environment(text),
        }
    }
}
