//! Offline verification of a whole store: nothing of it is taken on trust, and nothing is changed.
//!
//! The log is read from its first record: checksums and hash chain by the log, then every entry is
//! replayed into an empty state and audited on its own: is the transition one the rules allow, does it
//! continue its object's chain, has its request id had an effect on this card before. The counters
//! must be the sums of the words, money must close in every entry and over all accounts, no redemption may
//! have been over a limit, every batch file must hash to what its import recorded and hold no card twice, and
//! every snapshot, brought up to date by the log, must give the same state to the bit.

mod audit;
mod pairs;
mod transition;

use std::io;
use std::sync::Arc;

use audit::Audit;
use kami_wal::{Medium, RecordKind, ReplayFrom, Verdict, VerifyReport, WalOptions};

use crate::checkpoint::{self, Snapshot};
use crate::import::index_batch;
use crate::index::Index;
use crate::proof::Signatures;
use crate::replay::Rebuild;
use crate::store::{Identity, IdentityError};
use crate::vault::{KeyError, Vault};

/// What a verification found.
#[derive(Debug)]
#[non_exhaustive]
pub struct Verification {
    /// What the log says of itself.
    pub log: VerifyReport,
    /// Cards in committed batches.
    pub cards: u64,
    /// Committed batches.
    pub batches: u64,
    /// Orders.
    pub orders: u64,
    /// Entries replayed.
    pub entries: u64,
    /// Snapshots that led to the same state.
    pub snapshots: u64,
    /// Signed checkpoints in the log, all of them by the key in the key directory, whose roots were computed again.
    pub signed: u64,
    /// Signed checkpoints in the log by another key, whose roots fit, too.
    pub signed_by_others: u64,
    /// The size of the checkpoint that was signed last, if the log holds fewer entries: then something was cut off, or
    /// this is an older copy.
    pub signed_beyond: Option<u64>,
    /// BLAKE3 of the whole state in a canonical form: equal states have equal hashes.
    pub state_hash: [u8; 32],
    /// Everything that is wrong, in words, each with the file or position it concerns. Empty: the store
    /// is as it should be.
    pub problems: Vec<String>,
}

/// Why a store could not be verified at all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// There is no store, or not one of this version.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The keys cannot be used.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The log cannot be read at all.
    #[error(transparent)]
    Log(#[from] kami_wal::OpenError),
    /// A file cannot be read.
    #[error("the store cannot be read")]
    Io(#[from] io::Error),
    /// The directory holds no store.
    #[error("there is no store in this directory")]
    Empty,
}

/// Verifies the store on `data` with its keys on `keys`. Only on a stopped store.
///
/// # Errors
/// If it cannot be done. What is found to be wrong is no error but a problem in the result.
pub fn verify(data: Arc<dyn Medium>, keys: Arc<dyn Medium>) -> Result<Verification, VerifyError> {
    let identity = Identity::read(&*data)?.ok_or(VerifyError::Empty)?;
    let vault = Vault::open(Arc::clone(&keys), false)?;
    let mut problems = Vec::new();
    if identity.key_check != vault.lookup().check_value() {
        return Err(KeyError::Wrong { file: "lookup.key" }.into());
    }
    let mut rebuild = Rebuild::new(Arc::clone(&data), identity.store);
    let mut audit = Audit::default();
    let mut signatures = Signatures::open(&*keys, identity.store)?;
    let mut broken = None;
    let options = WalOptions { store_id: Some(identity.store), ..WalOptions::default() };
    let log = kami_wal::verify(&*data, &options, &mut |record| {
        if broken.is_some() || record.kind != RecordKind::Data {
            return;
        }
        let replayed = audit
            .record(&rebuild, record.payload, record.payload_lsn, &mut problems)
            .and_then(|()| Ok(signatures.collect(record.payload, record.payload_lsn)?))
            .and_then(|()| rebuild.record(&vault, &record));
        broken = replayed.err();
    })?;
    if let Some(error) = &broken {
        problems.push(format!("replay stopped: {}", chain_of(error)));
    }
    if let Verdict::Damaged(error) = &log.verdict {
        problems.push(chain_of(error));
    }
    audit.check_ids(&*data, &options, &mut problems)?;
    let whole = broken.is_none() && !matches!(log.verdict, Verdict::Damaged(_));
    if whole {
        signatures.check(&*data, &options, &mut problems)?;
    }

    rebuild.state.settle(&rebuild.table);
    if let Err(problem) = rebuild.state.check(&rebuild.table) {
        problems.push(problem);
    }
    check_batches(&rebuild, &mut problems)?;
    let state_hash = rebuild.state.hash(&rebuild.table);
    let mut snapshots = 0;
    for path in checkpoint::list(&*data)? {
        if !whole {
            problems.push(format!("not compared, because the log is damaged: file=`{path}`"));
            continue;
        }
        match replay_snapshot(&data, &vault, identity.store, &path)? {
            Ok(hash) if hash == state_hash => snapshots += 1,
            Ok(_) => {
                problems.push(format!("the snapshot leads to another state than the log: file=`{path}`"))
            }
            Err(problem) => problems.push(format!("{problem}: file=`{path}`")),
        }
    }
    Ok(Verification {
        log,
        cards: rebuild.table.batches().map(crate::table::Batch::rows).sum(),
        batches: rebuild.table.batches().count() as u64,
        orders: rebuild.state.orders.count(),
        entries: rebuild.entries,
        snapshots,
        signed: signatures.own,
        signed_by_others: signatures.others,
        signed_beyond: signatures.beyond,
        state_hash,
        problems,
    })
}

/// Hashes every batch file and looks for cards that are there twice.
fn check_batches(rebuild: &Rebuild, problems: &mut Vec<String>) -> io::Result<()> {
    let index = Index::new();
    for batch in rebuild.table.batches() {
        let path = crate::batch::Layout::path(batch.id.0);
        match batch.file.hash() {
            Ok((file_hash, cards_hash)) => {
                if file_hash != batch.file_hash || cards_hash != batch.cards_hash {
                    problems.push(format!("the batch file is not what was imported: file=`{path}`"));
                    continue;
                }
            }
            Err(error) => {
                problems.push(format!("the batch file cannot be read ({error}): file=`{path}`"));
                continue;
            }
        }
        let duplicates = index_batch(&index, &rebuild.table, &batch.file, batch.id)?;
        if let Some(first) = duplicates.first() {
            problems.push(format!("a card is there twice: file=`{path}` row=`{}`", first.row));
        }
    }
    Ok(())
}

/// The hash of the state that a snapshot and the log after it give, or what is wrong with the snapshot.
fn replay_snapshot(
    data: &Arc<dyn Medium>,
    vault: &Vault,
    store: u64,
    path: &str,
) -> Result<Result<[u8; 32], String>, VerifyError> {
    let Some(snapshot) = Snapshot::open(&**data, path)? else {
        return Ok(Err("the snapshot's header is damaged".to_owned()));
    };
    if snapshot.header.store != store {
        return Ok(Err("the snapshot is another store's".to_owned()));
    }
    if !snapshot.is_whole()? {
        return Ok(Err("the snapshot is damaged".to_owned()));
    }
    let mut rebuild = Rebuild::new(Arc::clone(data), store);
    match rebuild.snapshot(vault, &snapshot) {
        Ok(true) => {}
        Ok(false) => return Ok(Err("the snapshot makes no sense".to_owned())),
        Err(error) => return Ok(Err(format!("the snapshot cannot be used ({})", chain_of(&error)))),
    }
    let from = ReplayFrom { lsn: snapshot.header.start, durable_end_hint: Some(snapshot.header.end) };
    let mut broken = None;
    let options = WalOptions { store_id: Some(store), ..WalOptions::default() };
    kami_wal::verify(&**data, &options, &mut |record| {
        if broken.is_none() && record.kind == RecordKind::Data && record.lsn >= from.lsn {
            broken = rebuild.record(vault, &record).err();
        }
    })?;
    match broken {
        Some(error) => Ok(Err(format!("the log does not continue the snapshot ({})", chain_of(&error)))),
        None => Ok(Ok(rebuild.state.hash(&rebuild.table))),
    }
}

/// An error with its causes, on one line.
fn chain_of(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
