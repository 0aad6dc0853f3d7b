//! `kami checkpoint` and `kami keys`: looking after a store and its keys.

use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use kami_engine::{ProofKey, RequestId};
use kami_wal::{DiskMedium, DiskOptions, Medium};
use serde_json::json;

use crate::backup;
use crate::exit::Failure;
use crate::keys::{self, file_failure};
use crate::output::{Output, count};
use crate::remote::{Remote, Why};

/// Write a snapshot now, so that the next start replays only what comes after it.
///
/// The server also does this by itself, as the log grows and when it is taken down.
#[derive(Args)]
#[command(after_help = "Example:\n  kami checkpoint --timeout 60")]
pub struct Checkpoint {
    #[command(flatten)]
    remote: Remote,
}

/// Look after the keys of a store.
#[derive(Args)]
#[command(after_help = "Example:\n  kami keys rotate")]
pub struct Keys {
    #[command(subcommand)]
    action: KeysAction,
}

#[derive(Subcommand)]
enum KeysAction {
    /// Make a new master key and wrap the keys of all batches with it; the old one is removed.
    ///
    /// Batches are not touched, and nothing is held up but imports that begin meanwhile. Copy the keys afterwards
    /// with `kami keys copy`: copies from before open with the key they hold.
    #[command(after_help = "Example:\n  kami keys rotate")]
    Rotate {
        /// The request's id: the same again is the same rotation, until the server is started anew [default: random].
        #[arg(long, value_name = "HEX", value_parser = crate::code::parse_id)]
        id: Option<RequestId>,
        #[command(flatten)]
        why: Why,
        #[command(flatten)]
        remote: Remote,
    },
    /// Copy the key directory so that what is copied belongs together, whether the store is being served or not.
    ///
    /// Whoever has the copy and the data can read every code: keep it apart from the backup, and guarded.
    #[command(
        after_help = "Example:\n  kami keys copy --keys kami-data.keys --out /mnt/safe/keys-2026-11-22"
    )]
    Copy {
        /// The key directory.
        #[arg(long, value_name = "DIR")]
        keys: PathBuf,
        /// Where the copy goes: a new or an empty directory.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
}

pub async fn checkpoint(command: Checkpoint, output: &Output) -> Result<(), Failure> {
    command
        .remote
        .talk(async |client| {
            let made = client.checkpoint().await?.value;
            let value = json!({
                "start": made.start.bytes(),
                "end": made.end.bytes(),
                "bytes": made.bytes,
                "seconds": made.took_ms as f64 / 1000.0,
            });
            output.result(&value, || {
                format!(
                    "snapshot  {} bytes in {:.2} s\nreplay    begins at lsn {}; the log was durable to {}",
                    count(made.bytes),
                    made.took_ms as f64 / 1000.0,
                    made.start,
                    made.end
                )
            })
        })
        .await
}

pub async fn keys(command: Keys, output: &Output) -> Result<(), Failure> {
    let (id, why, remote) = match command.action {
        KeysAction::Rotate { id, why, remote } => (id, why, remote),
        KeysAction::Copy { keys, out } => return copy(&keys, &out, output),
    };
    remote
        .talk_on(&why, async |client| {
            let receipt = client.rotate_keys(id.unwrap_or_else(RequestId::random)).await?;
            let rotation = receipt.value;
            let value = json!({
                "key": format!("{:016x}", rotation.key),
                "keys": rotation.keys,
                "lsn": receipt.lsn.map(kami_engine::Lsn::bytes),
                "request": receipt.request.to_string(),
                "replayed": receipt.flags.contains(kami_engine::ReplyFlags::REPLAYED),
            });
            output.result(&value, || {
                format!(
                    "master key  {:016x} wraps the keys of {} batches; the one before is removed\n\
                     next        `kami keys copy`: older copies open only with the key they hold",
                    rotation.key,
                    count(rotation.keys)
                )
            })
        })
        .await
}

/// The directories of certificates in a key directory.
const CERTIFICATES: [&str; 3] = ["ca", "server", "admin"];

fn copy(keys: &Path, out: &Path, output: &Output) -> Result<(), Failure> {
    let (copied, _) = copy_directory(keys, out, None)?;
    let value = json!({ "keys": keys, "out": out, "copied": copied });
    output.result(&value, || {
        format!(
            "copied    {} to {}\nkeep it apart from the data and its backups: whoever has both can read the codes",
            copied.join(", "),
            out.display()
        )
    })
}

/// Copies a key directory; for a restored history of so many `entries` without the key that signed more than that.
/// Returns what was copied.
pub fn copy_directory(
    keys: &Path,
    out: &Path,
    entries: Option<u64>,
) -> Result<(Vec<&'static str>, ProofKey), Failure> {
    let (from_path, to_path) = (keys::resolved(keys), keys::resolved(out));
    if from_path.starts_with(&to_path) || to_path.starts_with(&from_path) {
        return Err(Failure::usage("the keys and their copy must not lie in one another"));
    }
    let from = backup::read_only(keys)?;
    // Where a copy goes is up to its owner.
    let options = DiskOptions { unsafe_filesystem: true, ..DiskOptions::default() };
    let to = DiskMedium::open(out, options)?;
    let failed = |error: io::Error| file_failure(out, &error);
    let there = to.list("").map_err(failed)?;
    if let Some(found) = there.into_iter().find(|name| name != "LOCK" && name != "lost+found") {
        return Err(Failure::environment(format!(
            "the directory for the copy is not empty: choose a new one path=`{}` found=`{found}`",
            out.display()
        )));
    }
    let done = match entries {
        None => kami_engine::copy_keys(&from, &to).map(|()| ProofKey::Copied),
        Some(entries) => kami_engine::copy_keys_for(&from, &to, entries),
    };
    let proof_key = match done {
        Ok(proof_key) => proof_key,
        Err(error) => {
            to.discard();
            return Err(error.into());
        }
    };
    let mut copied = vec!["lookup.key", "master.key", "ring"];
    for dir in CERTIFICATES {
        let names = from.list(dir).map_err(|error| file_failure(&keys.join(dir), &error))?;
        if names.is_empty() {
            continue;
        }
        to.create_dir(dir).map_err(failed)?;
        for name in names {
            let path = format!("{dir}/{name}");
            copy_file(&from, &to, &path).map_err(|error| file_failure(&out.join(&path), &error))?;
        }
        to.sync_dir(dir).map_err(failed)?;
        copied.push(dir);
    }
    Ok((copied, proof_key))
}

/// Copies one file to where none is.
fn copy_file(from: &dyn Medium, to: &dyn Medium, path: &str) -> io::Result<()> {
    let file = from.open(path)?;
    let mut bytes = vec![0; file.len()? as usize];
    file.read_at(0, &mut bytes)?;
    let copy = to.create(path)?;
    copy.write_at(0, &bytes)?;
    copy.sync()
}
