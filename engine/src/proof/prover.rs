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
use parking_lot::Mutex;

use super::card::{CardProof, Leaf};
use super::digests::DigestProof;
use super::merkle::Nodes;
use super::note::{Checkpoint, SigningKey};
use super::tree::{Tree, TreeError};
use super::{ProofError, VerifierKey};
use crate::chain::{Chain, ChainError};
use crate::engine::Engine;
use crate::identity::{Caller, CardDigest, ChannelId, RequestId, TerminalId};
use crate::index::Index;
use crate::record::{HEAD_BYTES, Head, Kind, SIGNED_CHECKPOINT_BYTES, SignedCheckpoint};
use crate::reply::{ProofPart, Reply, ReplyBody, ReplyFlags, SignedNote};
use crate::sequencer::Sequencer;
use crate::status::Status;
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
/// How much of a proof one reply carries.
const PART_BYTES: usize = 512 << 10;

/// What makes proofs.
pub(crate) struct Prover {
    data: Arc<dyn Medium>,
    keys: Arc<dyn Medium>,
    store: u64,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    tree: Option<Tree>,
    signer: Option<Signer>,
    issued: VecDeque<Issued>,
}

struct Signer {
    key: SigningKey,
    /// The checkpoint signed last, in this or an earlier process.
    last: Option<Checkpoint>,
}

/// A checkpoint that was given out.
#[derive(Clone)]
struct Issued {
    checkpoint: Checkpoint,
    /// Its entry.
    lsn: Lsn,
    time_ms: u64,
    /// It covers the log up to here.
    end: Lsn,
}

/// Why there is no proof.
enum Refusal {
    Status(Status),
    /// The history is not what it was, or cannot be read.
    History(ProveError),
    Poisoned,
}

#[derive(Debug, thiserror::Error)]
enum ProveError {
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

    /// A checkpoint of everything that is decided now, signed, or the last if nothing happened since.
    fn sign(
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
        let issued = Issued { checkpoint, lsn, time_ms, end };
        if inner.issued.len() == ISSUED_MAX {
            inner.issued.pop_front();
        }
        inner.issued.push_back(issued.clone());
        Ok(issued)
    }

    /// Waits until everything decided so far is durable and takes it into the tree.
    fn follow(&self, inner: &mut Inner, sequencer: &Sequencer) -> Result<(), Refusal> {
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
    fn prove(
        &self,
        inner: &mut Inner,
        sequencer: &Sequencer,
        issued: &Issued,
        (batch, card, digest): (&Batch, CardRef, CardDigest),
    ) -> Result<String, Refusal> {
        let wal = &sequencer.wal;
        let (Some(tree), Some(signer)) = (&inner.tree, &inner.signer) else {
            return Err(Refusal::Status(Status::Busy));
        };
        let mut entries: Vec<(Lsn, u64, Vec<u8>)> = Vec::new();
        let mut buffer = Vec::new();
        let mut chain = Chain::new(wal, &mut buffer);
        chain.walk(card, batch.word(card.row()), |entry, _| {
            // What came after the checkpoint is not in it.
            if entry.lsn < issued.end {
                entries.push((entry.lsn, entry.time_ms, entry.bytes().to_vec()));
            }
            Ok(true)
        })?;
        if entries.is_empty() && batch.file.layout.origins {
            // What it was in the system that it comes from is in no entry; what happened to it here is.
            return Err(Refusal::Status(Status::Migrated));
        }
        let import = chain.entry(batch.import_lsn)?;
        entries.push((import.lsn, import.time_ms, import.bytes().to_vec()));
        let size = issued.checkpoint.size();
        let mut nodes = tree.nodes(wal);
        let mut events = Vec::with_capacity(entries.len());
        for (lsn, time_ms, entry) in entries {
            let index = tree.index_of(wal, lsn)?;
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

/// A card's proof.
struct Made {
    size: u64,
    time_ms: u64,
    key: String,
    text: String,
}

fn reply(request: RequestId, status: Status, time_ms: u64, body: ReplyBody) -> Reply {
    Reply { request, status, flags: ReplyFlags::default(), lsn: None, time_ms, miss: false, body }
}

impl Engine {
    /// Signs a checkpoint of everything decided so far: the command SIGNED_CHECKPOINT. Blocking; BUSY while the log is
    /// being taken in, which the same request again goes on with.
    ///
    /// # Errors
    /// If the log failed: what was signed was not given out.
    pub fn sign_checkpoint(&self, caller: Caller, request: RequestId) -> Result<Reply, Poisoned> {
        let (prover, sequencer) = (self.prover(), self.sequencer());
        let mut inner = prover.inner.lock();
        let signed = prover.sign(&mut inner, sequencer, caller, request);
        self.conclude(request, signed.map(|issued| self.signed(request, &inner, &issued)))
    }

    fn signed(&self, request: RequestId, inner: &Inner, issued: &Issued) -> Reply {
        let signer = inner.signer.as_ref().expect("it has just signed");
        let note = SignedNote {
            note: issued.checkpoint.note().to_owned(),
            key: signer.key.verifier().to_string(),
            size: issued.checkpoint.size(),
        };
        let body = ReplyBody::SignedNote(Box::new(note));
        Reply { lsn: Some(issued.lsn), ..reply(request, Status::Ok, issued.time_ms, body) }
    }

    /// Proves what happened to a card: the command PROOF. `size` 0 signs a checkpoint first; the text travels in parts,
    /// and those behind the first name the size that the first was proven to. Blocking, as [`Engine::sign_checkpoint`].
    ///
    /// # Errors
    /// If the log failed.
    pub fn prove_card(
        &self,
        caller: Caller,
        request: RequestId,
        digest: CardDigest,
        size: u64,
        from: u64,
    ) -> Result<Reply, Poisoned> {
        let made = self.card_proof(caller, request, digest, size);
        let part = made.map(|Made { size, time_ms, key, text }| {
            let at = usize::try_from(from).unwrap_or(usize::MAX).min(text.len());
            let bytes = &text.as_bytes()[at..text.len().min(at + PART_BYTES)];
            let part =
                ProofPart { size, key, total: text.len() as u64, from: at as u64, bytes: bytes.to_vec() };
            reply(request, Status::Ok, time_ms, ReplyBody::ProofPart(Box::new(part)))
        });
        let mut reply = self.conclude(request, part)?;
        reply.miss = reply.status == Status::NotFound && size == 0;
        Ok(reply)
    }

    fn card_proof(
        &self,
        caller: Caller,
        request: RequestId,
        digest: CardDigest,
        size: u64,
    ) -> Result<Made, Refusal> {
        let (prover, sequencer) = (self.prover(), self.sequencer());
        let card = sequencer.index.find(digest, &Index::pin());
        let Some((batch, card)) = sequencer.batch_of(card) else {
            return Err(Refusal::Status(Status::NotFound));
        };
        {
            let state = sequencer.state();
            let scope = state.scope(caller.principal).ok_or(Refusal::Status(Status::Unauthenticated))?;
            let denied = scope.denies(state.product_of(batch), &caller, false);
            if denied || !scope.covers(batch.product) {
                return Err(Refusal::Status(Status::ScopeDenied));
            }
        }
        let mut inner = prover.inner.lock();
        let issued = if size == 0 {
            prover.sign(&mut inner, sequencer, caller, request)?
        } else {
            prover.follow(&mut inner, sequencer)?;
            let issued = inner.issued.iter().find(|issued| issued.checkpoint.size() == size).cloned();
            issued.filter(|issued| batch.import_lsn < issued.end).ok_or(Refusal::Status(Status::NotFound))?
        };
        let text = prover.prove(&mut inner, sequencer, &issued, (batch, card, digest))?;
        let key = inner.signer.as_ref().map(|signer| signer.key.verifier().to_string());
        Ok(Made {
            size: issued.checkpoint.size(),
            time_ms: issued.time_ms,
            key: key.unwrap_or_default(),
            text,
        })
    }

    /// The hashes that prove the first `old` entries of the log to be the beginning of its first `new`: the command
    /// CONSISTENCY. Blocking, as [`Engine::sign_checkpoint`].
    ///
    /// # Errors
    /// If the log failed.
    pub fn prove_consistency(&self, request: RequestId, old: u64, new: u64) -> Result<Reply, Poisoned> {
        let (prover, sequencer) = (self.prover(), self.sequencer());
        let path = || {
            if old == 0 || new < old {
                return Err(Refusal::Status(Status::Malformed));
            }
            let mut inner = prover.inner.lock();
            prover.follow(&mut inner, sequencer)?;
            match &inner.tree {
                // A checkpoint of more entries than there are is one of another history.
                Some(tree) if new <= tree.size() => Ok(tree.nodes(&sequencer.wal).consistency(old, new)?),
                _ => Err(Refusal::Status(Status::NotProvable)),
            }
        };
        let path = path().map(|path| reply(request, Status::Ok, self.now_ms(), ReplyBody::Path(path)));
        self.conclude(request, path)
    }

    /// A refusal as a reply.
    fn conclude(&self, request: RequestId, made: Result<Reply, Refusal>) -> Result<Reply, Poisoned> {
        let status = match made {
            Ok(reply) => return Ok(reply),
            Err(Refusal::Poisoned) => return Err(Poisoned),
            Err(Refusal::Status(status)) => status,
            Err(Refusal::History(error)) => {
                tracing::error!(error = &error as &dyn std::error::Error, "nothing is proven");
                match error {
                    ProveError::Tree(TreeError::Io(source))
                    | ProveError::Key(KeyError::Io { source, .. })
                        if source.kind() == io::ErrorKind::StorageFull =>
                    {
                        Status::DiskFull
                    }
                    _ => Status::NotProvable,
                }
            }
        };
        let wal = &self.sequencer().wal;
        wal.wait_durable(wal.tail())?;
        Ok(reply(request, status, self.now_ms(), ReplyBody::None))
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
