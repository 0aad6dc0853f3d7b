//! Signing and proving in a running engine.
//!
//! Nothing of this is on the way of a command: the tree is followed when somebody asks, in slices of a second, on a
//! thread that may block. A slice that does not reach the end answers BUSY, and the next goes on where it was.
//!
//! # Signing
//! Each step after the one before:
//! 1. everything decided so far is durable; the tree is followed up to there, and no further,
//! 2. **the checkpoint signed last is compared**: the log must still begin with it, or nothing is signed,
//! 3. a SIGNED_CHECKPOINT entry with the signature is durable in the log,
//! 4. the note is durable as `proof.last` in the key directory,
//! 5. the note is given out.
//!
//! So whatever was given out is in the log and in the key directory, and a crash at any point leaves at most a
//! signature that nobody has seen, of entries that are durable. As long as nothing but checkpoints was recorded since,
//! the last one is given out again.
//!
//! The request that had something signed is remembered with it, so that it signs nothing else when it comes again. What
//! is remembered is in memory: behind a restart, or [`ISSUED_MAX`] checkpoints later, it is a new request.
//!
//! # How much memory a proof takes
//! A card's value may move tens of thousands of times. So a proof is at most [`PROOF_BYTES_MAX`] long, which is known
//! while the chain is walked; of the log's tiles two are held at a time; and proofs are made one at a time.
//!
//! # A store that is not what was signed
//! After a restore to a point before the checkpoint that was signed last, or with an older copy of the store, or with a
//! log that somebody changed, step 2 refuses: a log must never sign two histories. Whoever wants to go on with the
//! other history says so by leaving `proof.key` and `proof.last` out of its key directory: [`copy_key`] does when it is
//! told of such a restore, and whoever did not copy them so moves them out. Then another key signs, under another origin,
//! and no verifier takes the one log for the other. The log announces it: its next SIGNED_CHECKPOINT entry carries the new
//! key, behind the RESTORE entry that says why there is one.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kami_wal::{Lsn, Medium, Poisoned};

use super::card::{CardProof, Leaf};
use super::digests::DigestProof;
use super::merkle::Nodes;
use super::note::{Checkpoint, SigningKey};
use super::requests::Texts;
use super::tree::{Tree, TreeError};
use super::{ProofError, VerifierKey};
use crate::chain::{Chain, ChainError};
use crate::identity::{Caller, CardDigest, ChannelId, PrincipalId, RequestId, TerminalId};
use crate::record::{HEAD_BYTES, Head, Kind, SIGNED_CHECKPOINT_BYTES, SignedCheckpoint};
use crate::sequencer::Sequencer;
use crate::state::State;
use crate::status::Status;
use crate::sync::coarse::Mutex;
use crate::table::Batch;
use crate::vault::{KeyError, replace_file, secret};
use crate::word::CardRef;

const KEY_FILE: &str = "proof.key";
/// The checkpoint that was signed last, in the key directory.
pub(crate) const LAST_FILE: &str = "proof.last";
/// How long one request follows the log.
const SLICE: Duration = Duration::from_secs(1);
/// How many checkpoints are remembered, so that a proof that travels in parts is proven to one of them.
const ISSUED_MAX: usize = 64;
/// The longest proof, in bytes: some twenty thousand events. A card with more cannot be proven.
pub const PROOF_BYTES_MAX: usize = 32 << 20;
/// The line of a hash, and at most those of an event but for its bytes.
const HASH_LINE_BYTES: usize = 52;
const EVENT_LINE_BYTES: usize = 80;

/// What makes proofs.
pub(crate) struct Prover {
    data: Arc<dyn Medium>,
    keys: Arc<dyn Medium>,
    store: u64,
    pub(super) inner: Mutex<Inner>,
}

#[derive(Default)]
pub(super) struct Inner {
    pub(super) tree: Option<Tree>,
    pub(super) signer: Option<Signer>,
    pub(super) issued: VecDeque<Issued>,
    pub(super) texts: Texts,
}

pub(super) struct Signer {
    pub(super) key: SigningKey,
    /// The checkpoint signed last, in this or an earlier process.
    last: Option<Checkpoint>,
}

/// A checkpoint that was given out.
#[derive(Clone)]
pub(super) struct Issued {
    pub(super) checkpoint: Checkpoint,
    /// Who had it signed, and with which request.
    by: (PrincipalId, RequestId),
    /// Its entry.
    pub(super) lsn: Lsn,
    pub(super) time_ms: u64,
    /// It covers the log up to here.
    pub(super) end: Lsn,
}

/// Why there is no proof.
pub(super) enum Refusal {
    Status(Status),
    /// The code is nobody's.
    Unknown,
    /// The history is not what it was, or cannot be read.
    History(ProveError),
    Poisoned,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum ProveError {
    #[error(transparent)]
    Tree(#[from] TreeError),
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error("the key that checkpoints are signed with cannot be used")]
    Key(#[from] KeyError),
    #[error("the log does not begin with what was signed before; file=`proof.last` size=`{size}`")]
    Parted { size: u64 },
    #[error("a proof that was just made does not hold")]
    Proof(#[from] ProofError),
    #[error("a batch file cannot be read")]
    Batch(#[source] io::Error),
    #[error("the batch file does not hold the card where the index says: card=`{card}`")]
    Digest { card: CardRef },
}

impl<E: Into<ProveError>> From<E> for Refusal {
    fn from(error: E) -> Refusal {
        Refusal::History(error.into())
    }
}

/// The checkpoint that the key directory remembers; `None` if nothing was ever signed.
///
/// # Errors
/// If it cannot be read, or is not one that was written.
pub(crate) fn last_signed(keys: &dyn Medium) -> Result<Option<Checkpoint>, KeyError> {
    let io = |source| KeyError::Io { file: LAST_FILE, source };
    let file = match keys.open(LAST_FILE) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(io)?,
    };
    let mut bytes = vec![0; file.len().map_err(io)?.min(1 << 16) as usize];
    file.read_at(0, &mut bytes).map_err(io)?;
    let note = String::from_utf8(bytes).ok().and_then(|note| Checkpoint::parse(&note).ok());
    note.map(Some).ok_or(KeyError::Wrong { file: LAST_FILE })
}

/// What became of the key that checkpoints are signed with when the keys were copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProofKey {
    /// There is none: nothing was ever signed.
    None,
    /// It was copied, and goes on signing.
    Copied,
    /// It was left behind: it signed a checkpoint of more entries than the history has, and must never sign another
    /// history. A new key is made when something is signed next.
    LeftBehind {
        /// How many entries the last checkpoint covers.
        size: u64,
    },
}

/// Copies the key and the checkpoint that was signed last, if there are any, also while the store is being served. For
/// a history of so many `entries` they are left behind if more was signed.
///
/// # Errors
/// If they cannot be read or written.
pub(crate) fn copy_key(
    from: &dyn Medium,
    to: &dyn Medium,
    entries: Option<u64>,
) -> Result<ProofKey, KeyError> {
    let seed = match secret(from, KEY_FILE, false) {
        Err(KeyError::Missing { .. }) => return Ok(ProofKey::None),
        seed => seed?,
    };
    // The key never changes. The checkpoint may be followed by another meanwhile; then the copy knows an older one.
    let last = last_signed(from)?;
    if let (Some(last), Some(entries)) = (&last, entries)
        && entries < last.size()
    {
        return Ok(ProofKey::LeftBehind { size: last.size() });
    }
    let io = |file| move |source| KeyError::Io { file, source };
    replace_file(to, KEY_FILE, &*seed).map_err(io(KEY_FILE))?;
    if let Some(last) = last {
        replace_file(to, LAST_FILE, last.note().as_bytes()).map_err(io(LAST_FILE))?;
    }
    Ok(ProofKey::Copied)
}

impl Signer {
    /// Reads the key, or makes one if nothing was ever signed with one.
    fn open(keys: &dyn Medium, store: u64) -> Result<Signer, KeyError> {
        let last = last_signed(keys)?;
        let is_new = matches!(keys.open(KEY_FILE), Err(error) if error.kind() == io::ErrorKind::NotFound);
        let seed = secret(keys, KEY_FILE, last.is_none())?;
        let key = SigningKey::new(store, &seed);
        if is_new {
            tracing::warn!(key = %key.verifier(), "checkpoints of this log are signed with a new key from now on: publish it");
        }
        match &last {
            Some(last) if last.verify(key.verifier()).is_err() => Err(KeyError::Wrong { file: KEY_FILE }),
            _ => Ok(Signer { key, last }),
        }
    }
}

impl Prover {
    pub(crate) fn new(data: Arc<dyn Medium>, keys: Arc<dyn Medium>, store: u64) -> Prover {
        Prover { data, keys, store, inner: Mutex::new(Inner::default()) }
    }

    /// The checkpoint that this request had signed, if it comes again.
    pub(super) fn signed_before(inner: &Inner, caller: Caller, request: RequestId) -> Option<Issued> {
        inner.issued.iter().find(|issued| issued.by == (caller.principal, request)).cloned()
    }

    /// A checkpoint of everything that is decided now, signed, or the last if nothing happened since.
    pub(super) fn sign(
        &self,
        inner: &mut Inner,
        sequencer: &Sequencer,
        caller: Caller,
        request: RequestId,
    ) -> Result<Issued, Refusal> {
        let wal = &sequencer.wal;
        self.follow(inner, sequencer)?;
        let (Some(tree), Some(signer)) = (&inner.tree, &mut inner.signer) else {
            return Err(Refusal::Status(Status::Busy));
        };
        let (size, end) = (tree.size(), tree.end());
        if let Some(issued) = inner.issued.back()
            && tree.news() <= issued.checkpoint.size()
        {
            return Ok(issued.clone());
        }
        let mut nodes = tree.nodes(wal);
        if let Some(last) = &signer.last {
            let stands = last.size() <= size && nodes.root(last.size())? == *last.root();
            if !stands {
                return Err(ProveError::Parted { size: last.size() }.into());
            }
        }
        let checkpoint = signer.key.sign(size, nodes.root(size)?);
        let signed = SignedCheckpoint {
            size,
            root: *checkpoint.root(),
            key: *signer.key.verifier().public_key(),
            signature: checkpoint.signature_of(signer.key.verifier())?,
        };
        let head = Head {
            request,
            principal: caller.principal,
            merchant: caller.merchant,
            tenant: caller.tenant,
            terminal: TerminalId(0),
            channel: ChannelId(0),
            ..Head::of_engine(Kind::SignedCheckpoint)
        };
        sequencer.wait_space();
        let mut turn = sequencer.begin(2 * HEAD_BYTES + SIGNED_CHECKPOINT_BYTES);
        if !turn.has_credit() {
            return Err(Refusal::Status(turn.short()));
        }
        // Under the lock that revocations are decided under: nothing is recorded in somebody's name behind its end.
        standing(&turn.state, caller)?;
        let lsn = turn.append(HEAD_BYTES + SIGNED_CHECKPOINT_BYTES, |group| {
            group.push(&head, SIGNED_CHECKPOINT_BYTES, |tail| signed.encode(tail))
        });
        let time_ms = turn.state.now_ms;
        turn.end();
        wal.wait_durable(wal.tail()).map_err(|Poisoned| Refusal::Poisoned)?;
        if let Err(error) = replace_file(&*self.keys, LAST_FILE, checkpoint.note().as_bytes()) {
            tracing::error!(%error, "a checkpoint cannot be kept in the key directory, so it is not given out");
            return Err(Refusal::Status(crate::upkeep::not_done(&error)));
        }
        signer.last = Some(checkpoint.clone());
        let issued = Issued { checkpoint, by: (caller.principal, request), lsn, time_ms, end };
        if inner.issued.len() == ISSUED_MAX {
            inner.issued.pop_front();
        }
        inner.issued.push_back(issued.clone());
        Ok(issued)
    }

    /// Waits until everything decided so far is durable and takes it into the tree.
    pub(super) fn follow(&self, inner: &mut Inner, sequencer: &Sequencer) -> Result<(), Refusal> {
        let wal = &sequencer.wal;
        wal.wait_durable(wal.tail()).map_err(|Poisoned| Refusal::Poisoned)?;
        if inner.signer.is_none() {
            inner.signer = Some(Signer::open(&*self.keys, self.store)?);
        }
        // After an error it is opened anew, so that it never goes on from half a record.
        let mut tree = match inner.tree.take() {
            Some(tree) => tree,
            None => Tree::open(Arc::clone(&self.data), self.store, wal)?,
        };
        let all = tree.follow(wal, wal.durable_end(), Instant::now() + SLICE)?;
        inner.tree = Some(tree);
        if all { Ok(()) } else { Err(Refusal::Status(Status::Busy)) }
    }

    /// The proof of a card to a checkpoint, as a text.
    pub(super) fn prove(
        &self,
        inner: &Inner,
        sequencer: &Sequencer,
        issued: &Issued,
        (batch, card, digest): (&Batch, CardRef, CardDigest),
    ) -> Result<String, Refusal> {
        let wal = &sequencer.wal;
        let (Some(tree), Some(signer)) = (&inner.tree, &inner.signer) else {
            return Err(Refusal::Status(Status::Busy));
        };
        let size = issued.checkpoint.size();
        let way_bytes = HASH_LINE_BYTES * (1 + size.max(1).ilog2() as usize);
        let mut entries: Vec<(Lsn, u64, Vec<u8>)> = Vec::new();
        let mut bytes = 0;
        let mut buffer = Vec::new();
        let mut chain = Chain::new(wal, &mut buffer);
        chain.walk(card, batch.word(card.row()), |entry, _| {
            // What came after the checkpoint is not in it.
            if entry.lsn < issued.end {
                bytes += EVENT_LINE_BYTES + entry.bytes().len().div_ceil(3) * 4 + way_bytes;
                entries.push((entry.lsn, entry.time_ms, entry.bytes().to_vec()));
            }
            Ok(bytes <= PROOF_BYTES_MAX)
        })?;
        if PROOF_BYTES_MAX < bytes {
            return Err(Refusal::Status(Status::ProofTooLong));
        }
        if entries.is_empty() && batch.file.layout.origins {
            // What it was in the system that it comes from is in no entry; what happened to it here is.
            return Err(Refusal::Status(Status::Migrated));
        }
        let import = chain.entry(batch.import_lsn)?;
        entries.push((import.lsn, import.time_ms, import.bytes().to_vec()));
        // Newest first, so each tile of the log is read once.
        let mut nodes = tree.nodes(wal);
        let mut events = Vec::with_capacity(entries.len());
        for (lsn, time_ms, entry) in entries {
            let index = nodes.index_of(lsn)?;
            let path = nodes.inclusion(index, size)?;
            events.push(Leaf { index, lsn, time_ms, entry, path });
        }
        let digests = DigestProof::read(&batch.file, card.row()).map_err(ProveError::Batch)?;
        let proof = CardProof { card, digests, events, checkpoint: issued.checkpoint.clone() };
        // What nobody could verify must not leave.
        let proven = proof.verify(signer.key.verifier())?;
        if proven.digest != digest {
            return Err(ProveError::Digest { card }.into());
        }
        Ok(proof.encode())
    }
}

/// Whether somebody may have the log signed or proven to it: not once it is revoked, nor with a scope of some products
/// or classes. What is proven is shown whole, and the log is everybody's.
pub(super) fn standing(state: &State, caller: Caller) -> Result<(), Refusal> {
    match state.scope(caller.principal) {
        None => Err(Refusal::Status(Status::Unauthenticated)),
        Some(scope) if !scope.is_boundless() => Err(Refusal::Status(Status::ScopeDenied)),
        Some(_) => Ok(()),
    }
}

/// The public half of the key on `keys`; `None` if there is none yet.
///
/// # Errors
/// If it cannot be read.
pub(crate) fn verifier_key(keys: &dyn Medium, store: u64) -> Result<Option<VerifierKey>, KeyError> {
    match secret(keys, KEY_FILE, false) {
        Ok(seed) => Ok(Some(SigningKey::new(store, &seed).verifier().clone())),
        Err(KeyError::Missing { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
