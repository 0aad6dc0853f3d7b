//! `kami verify`: is a stopped store, or a backup, what it claims to be?

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use kami_engine::{Damage, Until, Verification};
use kami_wal::{DiskMedium, DiskOptions, Lsn, Medium, Verdict};
use serde_json::json;

use crate::backup::{self, Pace, read_only};
use crate::exit::{Exit, Failure, sentence};
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
    /// Read at most so much of a backup in a second, where a server uses the same disk; 0 is as fast as it goes.
    #[arg(long, value_name = "MIB", default_value_t = 0, requires = "backup")]
    max_rate: u64,
}

/// A directory of a stopped store.
pub fn open_stopped(directory: &std::path::Path) -> Result<Arc<dyn Medium>, Failure> {
    // A tool that only reads has no use for the promise that the server needs.
    let options = DiskOptions { must_exist: true, unsafe_filesystem: true, ..DiskOptions::default() };
    Ok(Arc::new(DiskMedium::open(directory, options)?))
}

pub fn run(command: Verify, output: &Output) -> Result<Exit, Failure> {
    if let Some(directory) = &command.backup {
        return run_backup(directory, command.keys.as_deref(), command.max_rate, output);
    }
    let data = command.data.unwrap_or_default();
    let keys = command.keys.unwrap_or_else(|| keys::beside(&data));
    let directory = data;
    let data = open_stopped(&directory)?;
    check_there(&keys, &format!("`kami wal inspect --data {}`", directory.display()))?;
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

/// Refuses to go on without keys, in words that say what is missing and what can be done without.
fn check_there(keys: &Path, without: &str) -> Result<(), Failure> {
    if keys.is_dir() {
        return Ok(());
    }
    Err(Failure::environment(format!(
        "the keys of the store are missing, and without them its cards cannot be checked: give their directory, or a \
         copy of it, with --keys; the log alone is checked by {without} path=`{}`",
        keys.display()
    )))
}

fn run_backup(
    directory: &Path,
    keys: Option<&Path>,
    max_rate: u64,
    output: &Output,
) -> Result<Exit, Failure> {
    if let Some(keys) = keys {
        check_there(keys, "the same command without --keys")?;
    }
    let pace = Pace::new(output, "reading", max_rate);
    let backup = backup::open(directory, &pace)?;
    let manifest = backup.manifest();
    let damaged = backup.damaged_files();
    let unreadable = damaged.iter().all(|file| matches!(file.damage, Damage::Unreadable(_)));
    let mut problems: Vec<String> = damaged.iter().map(ToString::to_string).collect();
    let mut entries = None;
    match keys {
        Some(keys) => match kami_engine::verify(backup.as_store(manifest.end), Arc::new(read_only(keys)?)) {
            Ok(mut found) => {
                pace.finish();
                found.problems.splice(..0, problems);
                return conclude(found, output);
            }
            Err(error) if problems.is_empty() => return Err(error.into()),
            // What was found before is what to look at first.
            Err(error) => problems.push(format!("not checked further: {}", sentence(&error))),
        },
        None if problems.is_empty() => entries = Some(backup.point(Until::End)?.entries),
        None => {}
    }
    pace.finish();
    let whole = problems.is_empty();
    let value = json!({
        "whole": whole,
        "problems": problems,
        "store_id": format!("{:016x}", manifest.store),
        "end": manifest.end.bytes(),
        "time_ms": manifest.time_ms,
        "files": manifest.files.len(),
        "entries": entries.unwrap_or(0),
        "chain": backup::hex(&manifest.chain),
    });
    output.result(&value, || {
        let mut lines = vec![
            format!("backup     of store {:016x}", manifest.store),
            format!("up to      lsn {}, {}", manifest.end, time::show(manifest.time_ms)),
        ];
        if let Some(entries) = entries {
            lines.push(format!("files      {}, each with the hash the manifest names", manifest.files.len()));
            lines.push(format!("log        {} entries, checksums and hash chain fit", count(entries)));
            lines.push(
                "the backup is whole; its cards and the rules were not checked: that takes the store's keys, by --keys"
                    .to_owned(),
            );
        }
        lines.extend(problems.iter().map(|problem| format!("PROBLEM    {problem}")));
        if !whole {
            lines.push(if unreadable { UNREADABLE } else { DAMAGED }.to_owned());
        }
        lines.join("\n")
    })?;
    Ok(match (whole, unreadable) {
        (true, _) => Exit::Done,
        (false, true) => Exit::Environment,
        (false, false) => Exit::Damaged,
    })
}

const UNREADABLE: &str =
    "next       look after the disk and the permissions; what cannot be read may be whole";
const DAMAGED: &str = "next       if the store is whole, delete what is named and run `kami backup` again, which copies \
                       it anew; else use another backup";

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
