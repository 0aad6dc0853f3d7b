//! `kami backup` and `kami restore`: copies of a store's history, and stores made of them.
//!
//! A backup is made by a process of its own that reads the store's files and asks the server nothing: the files
//! say themselves what is durable. So it works whether the server runs or not, needs no right on the wire, cannot
//! make the server write anywhere, and its priority and pace are the operating system's and `--max-rate`'s.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use kami_engine::{Backup, BackupError, Dropped, FileKind, Lsn, ProofKey, Until};
use kami_wal::{DiskError, DiskMedium, DiskOptions, Medium, ReadOnlyDisk};
use serde_json::json;

use crate::exit::{Exit, Failure, sentence};
use crate::output::{Output, count};
use crate::{keys, time, upkeep};

/// Copy a store's history to another directory, while it is served or not; again: only what is new.
///
/// The backup holds everything that was durable when it began. It carries no key: copy the keys, too, after this,
/// with `kami keys copy`, to another place.
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
/// its log says what was left out. With --keys the keys are copied beside it, but for the one that checkpoints are signed
/// with if it signed something that is left out: no key may sign two histories.
#[derive(Args)]
#[command(
    after_help = "Example:\n  kami restore --from /mnt/backup/kami --data kami-new --keys kami-data.keys --until \"2026-11-22 14:05\"\n  kami verify --data kami-new"
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
    #[arg(long, value_name = "TIME", value_parser = time::parse_until)]
    until: Option<u64>,
    /// The store's keys, or a copy of them: they are copied to DATA.keys, a new or an empty directory.
    #[arg(long, value_name = "DIR")]
    keys: Option<PathBuf>,
    /// Only say what would be restored and what left out.
    #[arg(long)]
    dry_run: bool,
    /// Accept a file system that does not survive a power cut, such as tmpfs.
    #[arg(long)]
    unsafe_filesystem: bool,
    /// Copy at most so much in a second, where a server uses the same disk; 0 is as fast as it goes.
    #[arg(long, value_name = "MIB", default_value_t = 0)]
    max_rate: u64,
}

/// A backup that is only looked at; no run brings it up to date meanwhile. `pace` is told of what is read.
pub fn open(directory: &Path, pace: &Arc<Pace>) -> Result<Backup, Failure> {
    let medium = ReadOnlyDisk::open_locked(directory).map_err(|error| match error {
        DiskError::InUse { path, .. } => Failure::environment(format!(
            "a backup into this directory is under way; wait until it has ended path=`{}`",
            path.display()
        )),
        error => error.into(),
    })?;
    let pace = Arc::clone(pace);
    Ok(Backup::open(Arc::new(medium.paced(move |bytes| pace.moved(bytes))))?)
}

/// A directory that is only looked at, whoever is at work there.
pub fn read_only(directory: &Path) -> Result<ReadOnlyDisk, Failure> {
    ReadOnlyDisk::open(directory).map_err(|error| {
        Failure::environment(format!("the directory cannot be read path=`{}`: {error}", directory.display()))
    })
}

pub fn backup(command: BackupCommand, output: &Output) -> Result<Exit, Failure> {
    check_apart(&command.data, &command.out)?;
    // The server and its tills come first wherever both want the same processor.
    let _ = rustix::process::nice(10);
    let begun = Instant::now();
    let pace = Pace::new(output, "copying", command.max_rate);
    let reading = Arc::clone(&pace);
    // What is copied counts half when it is read and half when it is written, so that neither comes in a flood.
    let data = read_only(&command.data)?.paced(move |bytes| reading.moved(bytes / 2));
    // Where a backup goes is up to its owner: also to a machine elsewhere.
    let options = DiskOptions { unsafe_filesystem: true, ..DiskOptions::default() };
    let out = DiskMedium::open(&command.out, options).map_err(|error| match error {
        DiskError::InUse { path, pid: None } => Failure::environment(format!(
            "the backup is being verified or restored from; wait until that has ended path=`{}`",
            path.display()
        )),
        error => error.into(),
    })?;
    let report = kami_engine::backup(&data, &out, &mut |bytes| pace.moved(bytes / 2))?;
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
            "no key is in it: `kami keys copy` after this, to another place".to_owned(),
        ]
        .join("\n")
    })?;
    Ok(Exit::Done)
}

pub fn restore(command: Restore, output: &Output) -> Result<Exit, Failure> {
    check_apart(&command.from, &command.data)?;
    let pace = Pace::new(output, "reading", command.max_rate);
    let backup = open(&command.from, &pace)?;
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
    pace.finish();
    if !command.dry_run {
        let options = DiskOptions { unsafe_filesystem: command.unsafe_filesystem, ..DiskOptions::default() };
        let data: Arc<dyn Medium> = Arc::new(DiskMedium::open(&command.data, options)?);
        pace.now("restoring");
        let entries = point.entries;
        let report = backup.restore(&data, point, time::now_ms())?;
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
        let beside = keys::beside(&command.data);
        let (data, beside_shown) = (command.data.display(), beside.display());
        match &command.keys {
            None => lines.push(format!(
                "next       `kami keys copy --keys KEYS --out {beside_shown}`, then `kami verify --data {data}`"
            )),
            Some(from) => {
                let (copied, proof_key) =
                    upkeep::copy_directory(from, &beside, Some(entries)).map_err(|failure| Failure {
                        message: format!("the store is restored, but not its keys: {}", failure.message),
                        ..failure
                    })?;
                value["keys_copied"] = json!(copied);
                value["proof_key"] = json!(proof_key_name(&proof_key));
                lines.push(format!("keys       {} to {beside_shown}", copied.join(", ")));
                if let ProofKey::LeftBehind { size } = proof_key {
                    lines.push(format!(
                        "proofs     the key that signed them is left behind: its last checkpoint covers {} entries, which \
                         are more\n           than there are now. `kami proof key` makes and shows a new one: publish it, \
                         and why",
                        count(size)
                    ));
                }
                lines.push(format!("next       `kami verify --data {data}`"));
            }
        }
    }
    output.result(&value, || lines.join("\n"))?;
    Ok(Exit::Done)
}

const fn proof_key_name(key: &ProofKey) -> &'static str {
    match key {
        ProofKey::None => "none",
        ProofKey::Copied => "copied",
        ProofKey::LeftBehind { .. } => "left_behind",
    }
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
    let (from, to) = (keys::resolved(from), keys::resolved(to));
    if from.starts_with(&to) || to.starts_with(&from) {
        return Err(Failure::usage("the store and its backup must not lie in one another"));
    }
    Ok(())
}

/// Shows how far something is that moves many bytes, and holds it back to a rate.
pub struct Pace {
    bar: ProgressBar,
    rate: Option<Mutex<Rate>>,
}

impl Pace {
    /// `max_rate_mib` is MiB in a second; 0 is no limit.
    pub fn new(output: &Output, what: &'static str, max_rate_mib: u64) -> Arc<Pace> {
        let bar = if output.json { ProgressBar::hidden() } else { ProgressBar::new_spinner() };
        if let Ok(style) = ProgressStyle::with_template("{msg} {bytes} {binary_bytes_per_sec}") {
            bar.set_style(style);
        }
        bar.set_message(what);
        let rate = (max_rate_mib > 0).then(|| Mutex::new(Rate::new(max_rate_mib << 20, Instant::now())));
        Arc::new(Pace { bar, rate })
    }

    /// Something else begins.
    fn now(&self, what: &'static str) {
        self.bar.reset();
        self.bar.set_message(what);
    }

    pub fn moved(&self, bytes: u64) {
        self.bar.inc(bytes);
        if let Some(rate) = &self.rate {
            let wait = rate.lock().unwrap_or_else(PoisonError::into_inner).moved(bytes, Instant::now());
            std::thread::sleep(wait);
        }
    }

    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// So many bytes in a second, over any length of time.
struct Rate {
    bytes_per_second: u64,
    /// When everything so far may have been moved.
    due: Instant,
}

impl Rate {
    /// What was not moved in time may be made up for by this much. More would be a flood after every pause.
    const BEHIND_MAX: Duration = Duration::from_secs(1);

    fn new(bytes_per_second: u64, now: Instant) -> Rate {
        Rate { bytes_per_second, due: now }
    }

    /// How long to wait after so many bytes more.
    fn moved(&mut self, bytes: u64, now: Instant) -> Duration {
        let earliest = now.checked_sub(Rate::BEHIND_MAX).unwrap_or(now);
        self.due =
            self.due.max(earliest) + Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        self.due.saturating_duration_since(now)
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
            BackupError::Io { ref source, .. } if source.kind() == ErrorKind::PermissionDenied => {
                Failure::environment(format!("{text}; run it as the user whom the files belong to"))
            }
            BackupError::BeforeStart { .. } | BackupError::BeyondEnd { .. } => Failure::usage(text),
            _ => Failure::environment(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A copy that was held up, by a slow disk or a stopped process, does not make up for it at full speed.
    #[test]
    fn a_pause_is_not_made_up_for() {
        let begun = Instant::now();
        let mut rate = Rate::new(32 << 20, begun);
        assert_eq!(rate.moved(32 << 20, begun), Duration::from_secs(1));
        let later = begun + Duration::from_secs(60);
        let waits = (0..64).map(|_| rate.moved(1 << 20, later)).max();
        assert_eq!(waits, Some(Duration::from_secs(1)), "two seconds' worth, one of them already due");
    }

    #[test]
    fn what_lies_in_one_another_is_found_through_links() {
        let home = tempfile::TempDir::new().unwrap();
        let data = home.path().join("data");
        std::fs::create_dir(&data).unwrap();
        std::os::unix::fs::symlink(&data, home.path().join("link")).unwrap();
        for inside in ["data/backup", "link/backup", "link/not/there/yet", "link", "data/../link/x"] {
            assert!(check_apart(&data, &home.path().join(inside)).is_err(), "{inside}");
            assert!(check_apart(&home.path().join(inside), &data).is_err(), "{inside}");
        }
        assert!(check_apart(&data, &home.path().join("backup/not/there")).is_ok());
        assert!(check_apart(&data, &home.path().join("data.keys")).is_ok());
    }
}
