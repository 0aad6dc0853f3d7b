//! `kami proof`: signed checkpoints, proofs of cards, and their verification on a machine that has neither the store
//! nor its keys.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use kami_engine::{
    CardDigest, CardProof, ConsistencyProof, HistoryEvent, ProofCheckpoint, ProofError, ProvenCard,
    SignedNote, VerifierKey, VerifyError, lookup_digest,
};
use serde_json::{Value, json};

use crate::backup::read_only;
use crate::card::{event, flag_names};
use crate::code::{mask, read_secret};
use crate::exit::{Exit, Failure};
use crate::new_file::{NewFile, Readers};
use crate::output::{Output, count, table};
use crate::remote::Remote;
use crate::time;

/// Prove what happened to a card, or that nothing that was signed was changed.
#[derive(Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  kami proof COFFEE-00000001 --out card.proof\n  kami proof key\n  \
                  kami proof verify card.proof --key kami/e30f0d682e639be7-2ef3af97+d694ba50+AZ5/q5GapC6ukshRo09Gn+ZFOhhMT4p2l8/1aVGmkaQU\n  kami proof checkpoint --out today.checkpoint\n  \
                  kami proof consistency yesterday.checkpoint today.checkpoint"
)]
pub struct ProofCommand {
    /// The code; `-` reads it from standard input, where `ps` does not show it.
    #[arg(required = true)]
    code: Option<String>,
    /// The new file that the proof goes to [default: standard output].
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    remote: Remote,
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Subcommand)]
enum Action {
    /// Sign the log as it stands, for whoever wants to check later that it still begins so.
    #[command(after_help = "Example:\n  kami proof checkpoint --out 2026-11-23.checkpoint")]
    Checkpoint {
        /// The new file that the checkpoint goes to [default: standard output].
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Prove that one checkpoint continues another, and check it.
    #[command(
        after_help = "Example:\n  kami proof consistency old.checkpoint new.checkpoint --out both.proof"
    )]
    Consistency {
        /// A checkpoint that was kept.
        old: PathBuf,
        /// A later one.
        new: PathBuf,
        /// The key to check with [default: the one the server tells].
        #[arg(long, value_name = "VKEY")]
        key: Option<VerifierKey>,
        /// The new file that the proof goes to, for others to check [default: nowhere].
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Check a proof or a checkpoint: needs the file and the log's key, nothing else.
    ///
    /// Exits 0 if it holds and 1 if not.
    #[command(
        after_help = "Example:\n  kami proof verify card.proof --key kami/e30f0d682e639be7-2ef3af97+d694ba50+AZ5/q5GapC6ukshRo09Gn+ZFOhhMT4p2l8/1aVGmkaQU"
    )]
    Verify {
        /// The proof of a card, the proof of consistency, or the checkpoint.
        file: PathBuf,
        /// The log's key, as its operator publishes it: `kami proof key` shows it.
        #[arg(long, value_name = "VKEY")]
        key: VerifierKey,
        /// Check, too, that the card is the one with this code; `-` reads it from standard input. Needs --keys: only
        /// the look-up key leads from a code to its card.
        #[arg(long, requires = "keys")]
        code: Option<String>,
        /// Directory with the log's look-up key.
        #[arg(long, value_name = "DIR", requires = "code")]
        keys: Option<PathBuf>,
    },
    /// Show the key that proofs are checked with, to be published.
    #[command(after_help = "Example:\n  kami proof key")]
    Key,
}

pub fn run(command: ProofCommand, output: &Output) -> Result<Exit, Failure> {
    let ProofCommand { code, out, remote, action } = command;
    // Before anything is asked or signed for it.
    let new_file = match &action {
        None => &out,
        Some(Action::Checkpoint { out } | Action::Consistency { out, .. }) => out,
        Some(_) => &None,
    };
    new_file.as_deref().map_or(Ok(()), NewFile::check)?;
    match action {
        Some(Action::Verify { file, key, code, keys }) => {
            verify(&file, &key, code.as_deref().zip(keys.as_deref()), output)
        }
        Some(Action::Consistency { old, new, key, out }) => {
            crate::block_on(consistency(&remote, [&old, &new], key, out.as_deref(), output))
        }
        Some(Action::Checkpoint { out }) => {
            crate::block_on(checkpoint(&remote, out.as_deref(), output)).map(|()| Exit::Done)
        }
        Some(Action::Key) => crate::block_on(key(&remote, output)).map(|()| Exit::Done),
        None => {
            let code = read_secret(code.as_deref().unwrap_or("-"), "code")?;
            crate::block_on(card(&remote, &code, out.as_deref(), output)).map(|()| Exit::Done)
        }
    }
}

async fn signed(remote: &Remote) -> Result<(SignedNote, VerifierKey), Failure> {
    let note = remote.talk(async |client| Ok(client.signed_checkpoint().await?.value)).await?;
    let key: VerifierKey = note.key.parse().map_err(not_proven)?;
    read_note(&note.note)?.verify(&key).map_err(not_proven)?;
    Ok((note, key))
}

async fn key(remote: &Remote, output: &Output) -> Result<(), Failure> {
    let (note, _) = signed(remote).await?;
    output.result(&json!({ "key": note.key }), || note.key.clone())
}

async fn checkpoint(remote: &Remote, out: Option<&Path>, output: &Output) -> Result<(), Failure> {
    let (note, key) = signed(remote).await?;
    let value = json!({
        "origin": key.name(),
        "size": note.size,
        "note": note.note,
        "key": note.key,
        "file": out.map(|path| path.display().to_string()),
    });
    match out {
        None => output.result(&value, || note.note.clone()),
        Some(path) => {
            NewFile::write_text("the checkpoint", path, Readers::AsUsual, &note.note)?;
            output.result(&value, || {
                format!(
                    "checkpoint  of {} entries of {}\nwritten     {}",
                    count(note.size),
                    key.name(),
                    path.display()
                )
            })
        }
    }
}

async fn card(remote: &Remote, code: &[u8], out: Option<&Path>, output: &Output) -> Result<(), Failure> {
    let proof = remote.talk(async |client| Ok(client.prove(code).await?.value)).await?;
    // A look at it before it is handed on; whoever gets it takes the key from elsewhere.
    let key: VerifierKey = proof.key.parse().map_err(not_proven)?;
    let text = proof.text;
    let proof = CardProof::parse(&text).map_err(not_proven)?;
    let proven = proof.verify(&key).map_err(not_proven)?;
    if let Some(path) = out {
        // It shows what was bought, and by whom.
        NewFile::write_text("the proof", path, Readers::Owner, &text)?;
    }
    let mut value = card_value(&proven);
    value["key"] = json!(key.to_string());
    value["file"] = json!(out.map(|path| path.display().to_string()));
    if out.is_none() {
        value["proof"] = json!(text);
    }
    output.result(&value, || match out {
        None => text.clone(),
        Some(path) => format!(
            "card     {} ({})\nstate    {}\nevents   {}, the newest at {}\nproven   to the checkpoint of {} entries\n\
             written  {}\nkey      {key}",
            mask(code),
            proven.card,
            proven.lifecycle.name(),
            proven.events.len(),
            time::show(proven.events[0].time_ms),
            count(proven.size),
            path.display(),
        ),
    })
}

async fn consistency(
    remote: &Remote,
    [old, new]: [&Path; 2],
    key: Option<VerifierKey>,
    out: Option<&Path>,
    output: &Output,
) -> Result<Exit, Failure> {
    let [old, new] = [read_note(&read(old)?)?, read_note(&read(new)?)?];
    if new.size() < old.size() {
        return Err(Failure::usage("the first checkpoint is the larger one: give the older first"));
    }
    let key = match key {
        Some(key) => key,
        None => signed(remote).await?.1,
    };
    // Before the server is asked: with a checkpoint of another log its answer would say nothing.
    let signatures = old.verify(&key).and_then(|()| new.verify(&key));
    if let Err(error) = signatures {
        return refuted(&error, output);
    }
    let path =
        remote.talk(async |client| Ok(client.consistency(old.size(), new.size()).await?.value)).await?;
    let proof = ConsistencyProof { old, new, path };
    match proof.verify(&key) {
        Ok(()) => {
            if let Some(path) = out {
                NewFile::write_text("the proof", path, Readers::AsUsual, &proof.encode())?;
            }
            consistent(&proof, output)
        }
        Err(error) => refuted(&error, output),
    }
}

fn consistent(proof: &ConsistencyProof, output: &Output) -> Result<Exit, Failure> {
    let (old, new) = (proof.old.size(), proof.new.size());
    let value = json!({ "proven": true, "origin": proof.old.origin(), "old_size": old, "new_size": new });
    output.result(&value, || {
        format!(
            "proven  {}: the log of {} entries begins with the {} that were signed before",
            proof.old.origin(),
            count(new),
            count(old)
        )
    })?;
    Ok(Exit::Done)
}

fn verify(
    file: &Path,
    key: &VerifierKey,
    of: Option<(&str, &Path)>,
    output: &Output,
) -> Result<Exit, Failure> {
    let text = read(file)?;
    if of.is_some() && !CardProof::is_titled(&text) {
        return Err(Failure::usage("--code goes with the proof of a card"));
    }
    if CardProof::is_titled(&text) {
        match CardProof::parse(&text).and_then(|proof| proof.verify(key)) {
            Ok(proven) => {
                if let Some((code, keys)) = of
                    && digest(code, keys, &proven)? != Some(proven.digest)
                {
                    let text = "not proven: the proof holds, but of another card than the one with this code";
                    return Err(Failure::new(Exit::ProofFailed, text));
                }
                output.result(&card_value(&proven), || card_text(&proven))?;
                Ok(Exit::Done)
            }
            Err(error) => refuted(&error, output),
        }
    } else if ConsistencyProof::is_titled(&text) {
        match ConsistencyProof::parse(&text).and_then(|proof| proof.verify(key).map(|()| proof)) {
            Ok(proof) => consistent(&proof, output),
            Err(error) => refuted(&error, output),
        }
    } else {
        match ProofCheckpoint::parse(&text).and_then(|note| note.verify(key).map(|()| note)) {
            Ok(note) => {
                let value = json!({ "proven": true, "origin": note.origin(), "size": note.size() });
                output.result(&value, || {
                    format!("signed  a checkpoint of {} entries of {}", count(note.size()), note.origin())
                })?;
                Ok(Exit::Done)
            }
            Err(error) => refuted(&error, output),
        }
    }
}

/// The digest of a code; `None` if it can be none.
fn digest(code: &str, keys: &Path, proven: &ProvenCard) -> Result<Option<CardDigest>, Failure> {
    let code = read_secret(code, "code")?;
    let found = lookup_digest(&read_only(keys)?, proven.tenant, &code);
    Ok(found.map_err(VerifyError::from)?.ok())
}

fn card_value(proven: &ProvenCard) -> Value {
    json!({
        "proven": true,
        "origin": proven.origin,
        "size": proven.size,
        "card": proven.card.to_string(),
        "digest": proven.digest.to_string(),
        "tenant": proven.tenant.0,
        "product_id": proven.product.0,
        "face_minor": proven.face,
        "state": proven.lifecycle.name(),
        "flags": flag_names(proven.flags),
        "events": proven.events.iter().map(event).collect::<Vec<_>>(),
    })
}

fn card_text(proven: &ProvenCard) -> String {
    let rows = proven.events.iter().map(|event: &HistoryEvent| {
        vec![
            time::show(event.time_ms),
            event.kind.name().to_owned(),
            event.lifecycle.name().to_owned(),
            event.principal.to_string(),
            event.terminal.to_string(),
            event.lsn.to_string(),
        ]
    });
    let header = ["TIME", "EVENT", "STATE AFTER", "PRINCIPAL", "TERMINAL", "LSN"];
    format!(
        "proven   by {}, in its first {} entries\ncard     {}, digest {}\nproduct  {}\nstate    {}\n{}",
        proven.origin,
        count(proven.size),
        proven.card,
        proven.digest,
        proven.product,
        proven.lifecycle.name(),
        table(&header, &[3, 4, 5], rows)
    )
}

/// A proof that does not hold.
fn refuted(error: &ProofError, output: &Output) -> Result<Exit, Failure> {
    let failure = Failure::new(Exit::ProofFailed, format!("not proven: {error}"));
    if output.json {
        output.result(&json!({ "proven": false, "error": error.to_string() }), String::new)?;
        eprintln!("kami: {}", failure.message);
        return Ok(Exit::ProofFailed);
    }
    Err(failure)
}

fn not_proven(error: ProofError) -> Failure {
    Failure::new(Exit::ProofFailed, format!("not proven: {error}"))
}

fn read_note(text: &str) -> Result<ProofCheckpoint, Failure> {
    ProofCheckpoint::parse(text).map_err(not_proven)
}

fn read(path: &Path) -> Result<String, Failure> {
    let bytes = std::fs::read(path).map_err(|error| {
        Failure::environment(format!("the file cannot be read: {error}: file=`{}`", path.display()))
    })?;
    // What is no text was never written as a proof.
    Ok(String::from_utf8(bytes).unwrap_or_default())
}
