//! `kami verify`: is a stopped store, or a backup, what it claims to be?

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use kami_engine::{Until, Verification};
use kami_wal::{DiskMedium, DiskOptions, Lsn, Medium, Verdict};
use serde_json::json;

use crate::backup::{self, read_only};
use crate::exit::{Exit, Failure};
use crate::keys;
use crate::output::{Output, count};
use crate::time;

/// Check a stopped store or a backup: log, hash chain, every transition, batch files, counters, snapshots.
///
/// Nothing is changed. Exits 0 if the store is as it should be, 5 if not.
#[derive(Args)]
#[command(after_help = "Example:\n  kami verify --data kami-data")]
pub struct Verify {
    /// Where the data lies.
    #[arg(long, value_name = "DIR", required_unless_present = "backup")]
    data: Option<PathBuf>,
    /// A backup to check in place of a store: every file against its hash, and with --keys all that is checked of
    /// a store.
    #[arg(long, value_name = "DIR", conflicts_with = "data")]
    backup: Option<PathBuf>,
    /// Where the keys lie [default: the data directory's name with `.keys`; of a backup: none].
    #[arg(long, value_name = "DIR")]
    keys: Option<PathBuf>,
}

/// A directory of a stopped store.
pub fn open_stopped(directory: &std::path::Path) -> Result<Arc<dyn Medium>, Failure> {
    // A tool that only reads has no use for the promise that the server needs.
    let options = DiskOptions { must_exist: true, unsafe_filesystem: true, ..DiskOptions::default() };
    Ok(Arc::new(DiskMedium::open(directory, options)?))
}

pub fn run(command: Verify, output: &Output) -> Result<Exit, Failure> {
    if let Some(directory) = &command.backup {
        return run_backup(directory, command.keys.as_deref(), output);
    }
    let data = command.data.unwrap_or_default();
    let keys = command.keys.unwrap_or_else(|| keys::beside(&data));
    let data = open_stopped(&data)?;
    let mut found = kami_engine::verify(data, open_stopped(&keys)?)?;
    // A backup may well be older than what was signed last; a store may not.
    if let Some(size) = found.signed_beyond {
        found.problems.push(format!(
            "the log is shorter than what was signed, this is an older copy or its end was cut off: \
             file=`proof.last` size=`{size}`"
        ));
    }
    conclude(found, output)
}

fn run_backup(directory: &Path, keys: Option<&Path>, output: &Output) -> Result<Exit, Failure> {
    let backup = backup::open(directory)?;
    let damaged = backup.damaged_files(&mut |_| ());
    let problems = damaged.iter().map(|file| format!("not what the manifest says: file=`{file}`"));
    let problems: Vec<String> = problems.collect();
    let manifest = backup.manifest();
    if let Some(keys) = keys {
        let mut found = kami_engine::verify(backup.as_store(manifest.end), read_only(keys)?)?;
        found.problems.splice(..0, problems);
        return conclude(found, output);
    }
    let point = if problems.is_empty() { Some(backup.point(Until::End)?) } else { None };
    let whole = point.is_some();
    let entries = point.map_or(0, |point| point.entries);
    let value = json!({
        "whole": whole,
        "problems": problems,
        "store_id": format!("{:016x}", manifest.store),
        "end": manifest.end.bytes(),
        "time_ms": manifest.time_ms,
        "files": manifest.files.len(),
        "entries": entries,
        "chain": backup::hex(&manifest.chain),
    });
    output.result(&value, || {
        let mut lines = vec![
            format!("backup     of store {:016x}", manifest.store),
            format!("up to      lsn {}, {}", manifest.end, time::show(manifest.time_ms)),
        ];
        if whole {
            lines.push(format!("files      {}, each with the hash the manifest names", manifest.files.len()));
            lines.push(format!("log        {} entries, checksums and hash chain fit", count(entries)));
            lines.push("the backup is whole; with --keys its entries and cards are checked, too".to_owned());
        }
        lines.extend(problems.iter().map(|problem| format!("PROBLEM    {problem}")));
        lines.join("\n")
    })?;
    Ok(if whole { Exit::Done } else { Exit::Damaged })
}

fn conclude(found: Verification, output: &Output) -> Result<Exit, Failure> {
    let hash: String = found.state_hash.iter().map(|byte| format!("{byte:02x}")).collect();
    let whole = found.problems.is_empty();
    let value = json!({
        "whole": whole,
        "problems": found.problems,
        "state_hash": hash,
        "cards": found.cards,
        "batches": found.batches,
        "orders": found.orders,
        "entries": found.entries,
        "snapshots": found.snapshots,
        "signed_checkpoints": found.signed,
        "signed_by_other_keys": found.signed_by_others,
        "segments": found.log.segments,
        "records": found.log.records,
        "chain_values": found.log.chain_values,
        "epoch": found.log.epoch,
        "tail": found.log.tail.map(Lsn::bytes),
        "durable_end": found.log.durable_end.map(Lsn::bytes),
        "torn_tail": matches!(found.log.verdict, Verdict::TornTail { .. }),
    });
    output.result(&value, || report(&found, &hash))?;
    Ok(if whole { Exit::Done } else { Exit::Damaged })
}

fn report(found: &Verification, hash: &str) -> String {
    let log = &found.log;
    let position = |lsn: Option<Lsn>| lsn.map_or_else(|| "-".to_owned(), |lsn| lsn.to_string());
    let mut lines = vec![
        format!("log         {} records in {} segments", count(log.records), log.segments),
        format!(
            "            epoch {}, tail {}, durable to {}",
            log.epoch,
            position(log.tail),
            position(log.durable_end)
        ),
        format!("hash chain  {} values, all fit", count(log.chain_values)),
        format!("entries     {} replayed, each checked against the rules", count(found.entries)),
        format!(
            "cards       {} in {} batches, {} orders",
            count(found.cards),
            found.batches,
            count(found.orders)
        ),
        format!("snapshots   {} lead to the same state", found.snapshots),
        format!("state hash  {hash}"),
    ];
    if found.signed + found.signed_by_others > 0 {
        lines.push(format!("signed      {} checkpoints of this log by its key", count(found.signed)));
    }
    if found.signed_by_others > 0 {
        let others = count(found.signed_by_others);
        lines.push(format!(
            "            {others} of other keys: right only if the key was replaced on purpose"
        ));
    }
    match &log.verdict {
        Verdict::TornTail { file, offset, bytes } => lines.push(format!(
            "torn tail   {bytes} bytes nobody was told about, from offset {offset} of {file}; the next start cuts them"
        )),
        Verdict::Damaged(_) => {
            lines.retain(|line| !line.starts_with("hash chain"));
        }
        Verdict::Clean => {}
    }
    if found.problems.is_empty() {
        lines.push("the store is as it should be".to_owned());
    }
    lines.extend(found.problems.iter().map(|problem| format!("PROBLEM     {problem}")));
    lines.join("\n")
}
