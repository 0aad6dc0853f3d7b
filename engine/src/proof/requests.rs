//! SIGNED_CHECKPOINT, PROOF and CONSISTENCY as they are asked for.
//!
//! # Who may ask
//! Every tenant's operator, finance, auditor and admin, as long as it stands and sees all products: a proof shows
//! entries whole, and what is about the log is about everybody. Tenants are not left out, for a log that only its keeper
//! may have proven proves nothing to those whose cards are in it; what they learn of the others is how many entries
//! there are, as each receipt's position tells them anyway.
//!
//! # A proof in parts
//! A long text is kept for the parts behind the first, so that they cost nothing: it is forgotten when its last part is
//! asked for, or when others that are longer together than [`KEPT_BYTES_MAX`] come. Made again it would be the same.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use kami_wal::Poisoned;

use super::merkle::Nodes;
use super::prover::{Inner, Issued, PROOF_BYTES_MAX, ProveError, Prover, Refusal, standing};
use super::tree::TreeError;
use crate::engine::Engine;
use crate::identity::{Caller, CardDigest, PrincipalId, RequestId};
use crate::index::Index;
use crate::product::CardKind;
use crate::reply::{ProofPart, Reply, ReplyBody, ReplyFlags, SignedNote};
use crate::sequencer::Sequencer;
use crate::status::Status;
use crate::vault::KeyError;

/// How much of a proof one reply carries.
const PART_BYTES: usize = 512 << 10;
/// How much text is kept for the parts behind the first.
const KEPT_BYTES_MAX: usize = PROOF_BYTES_MAX;
/// In how many texts.
const KEPT_MAX: usize = 4;

/// For whom a proof was made, of what, and to a checkpoint of how many entries.
type Made = (PrincipalId, CardDigest, u64);

/// Proofs whose parts are still being asked for.
#[derive(Default)]
pub(super) struct Texts(VecDeque<(Made, Arc<str>)>);

impl Texts {
    fn find(&self, made: Made) -> Option<Arc<str>> {
        self.0.iter().find(|(known, _)| *known == made).map(|(_, text)| Arc::clone(text))
    }

    fn forget(&mut self, made: Made) {
        self.0.retain(|(known, _)| *known != made);
    }

    fn keep(&mut self, made: Made, text: Arc<str>) {
        self.forget(made);
        let bytes = |texts: &Self| texts.0.iter().map(|(_, text)| text.len()).sum::<usize>();
        while !self.0.is_empty() && (KEPT_MAX <= self.0.len() || KEPT_BYTES_MAX < bytes(self) + text.len()) {
            self.0.pop_front();
        }
        if text.len() <= KEPT_BYTES_MAX {
            self.0.push_back((made, text));
        }
    }
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
        let signed = || {
            let mut inner = prover.inner.lock();
            standing(&sequencer.state(), caller)?;
            if let Some(issued) = Prover::signed_before(&inner, caller, request) {
                return Ok(Reply { flags: ReplyFlags::REPLAYED, ..signed(request, &inner, &issued) });
            }
            let issued = prover.sign(&mut inner, sequencer, caller, request)?;
            Ok(signed(request, &inner, &issued))
        };
        self.conclude(request, signed())
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
        self.conclude(request, self.proof_part(caller, request, digest, size, from))
    }

    fn proof_part(
        &self,
        caller: Caller,
        request: RequestId,
        digest: CardDigest,
        size: u64,
        from: u64,
    ) -> Result<Reply, Refusal> {
        let (prover, sequencer) = (self.prover(), self.sequencer());
        let mut inner = prover.inner.lock();
        // Before the code is looked at: who may not ask learns nothing of it.
        standing(&sequencer.state(), caller)?;
        let card = sequencer.index.find(digest, &Index::pin());
        let (batch, card) = sequencer.batch_of(card).ok_or(Refusal::Unknown)?;
        if batch.kind == CardKind::Shared {
            // Its own chain does not hold its sales, and a proof shows all that happened to a card.
            return Err(Refusal::Status(Status::SharedUnfit));
        }
        let issued = if size == 0 {
            match Prover::signed_before(&inner, caller, request) {
                Some(issued) => issued,
                None => prover.sign(&mut inner, sequencer, caller, request)?,
            }
        } else {
            let issued = inner.issued.iter().find(|issued| issued.checkpoint.size() == size).cloned();
            issued.ok_or(Refusal::Status(Status::NotFound))?
        };
        // Of an import behind the checkpoint it says nothing.
        if issued.end <= batch.import_lsn {
            return Err(Refusal::Status(Status::NotFound));
        }
        let made = (caller.principal, digest, issued.checkpoint.size());
        let text = match inner.texts.find(made) {
            Some(text) => text,
            None => {
                prover.follow(&mut inner, sequencer)?;
                prover.prove(&inner, sequencer, &issued, (batch, card, digest))?.into()
            }
        };
        let at = usize::try_from(from).unwrap_or(usize::MAX).min(text.len());
        let end = text.len().min(at + PART_BYTES);
        let part = ProofPart {
            size: issued.checkpoint.size(),
            key: key_of(&inner),
            total: text.len() as u64,
            from: at as u64,
            bytes: text.as_bytes()[at..end].to_vec(),
        };
        if end < text.len() {
            inner.texts.keep(made, text);
        } else {
            inner.texts.forget(made);
        }
        Ok(reply(request, Status::Ok, issued.time_ms, ReplyBody::ProofPart(Box::new(part))))
    }

    /// The hashes that prove the first `old` entries of the log to be the beginning of its first `new`: the command
    /// CONSISTENCY. Blocking, as [`Engine::sign_checkpoint`].
    ///
    /// # Errors
    /// If the log failed.
    pub fn prove_consistency(
        &self,
        caller: Caller,
        request: RequestId,
        old: u64,
        new: u64,
    ) -> Result<Reply, Poisoned> {
        let path = self.path(self.sequencer(), caller, old, new);
        let path = path.map(|path| reply(request, Status::Ok, self.now_ms(), ReplyBody::Path(path)));
        self.conclude(request, path)
    }

    fn path(
        &self,
        sequencer: &Sequencer,
        caller: Caller,
        old: u64,
        new: u64,
    ) -> Result<Vec<[u8; 32]>, Refusal> {
        if old == 0 || new < old {
            return Err(Refusal::Status(Status::Malformed));
        }
        let prover = self.prover();
        let mut inner = prover.inner.lock();
        standing(&sequencer.state(), caller)?;
        prover.follow(&mut inner, sequencer)?;
        match &inner.tree {
            // A checkpoint of more entries than there are is one of another history.
            Some(tree) if new <= tree.size() => Ok(tree.nodes(&sequencer.wal).consistency(old, new)?),
            _ => Err(Refusal::Status(Status::NotProvable)),
        }
    }

    /// A refusal as a reply.
    fn conclude(&self, request: RequestId, made: Result<Reply, Refusal>) -> Result<Reply, Poisoned> {
        let (status, miss) = match made {
            Ok(reply) => return Ok(reply),
            Err(Refusal::Poisoned) => return Err(Poisoned),
            Err(Refusal::Status(status)) => (status, false),
            Err(Refusal::Unknown) => (Status::NotFound, true),
            Err(Refusal::History(error)) => {
                tracing::error!(error = &error as &dyn std::error::Error, "nothing is proven");
                let is_full = matches!(
                    &error,
                    ProveError::Tree(TreeError::Io(source)) | ProveError::Key(KeyError::Io { source, .. })
                        if source.kind() == io::ErrorKind::StorageFull
                );
                (if is_full { Status::DiskFull } else { Status::NotProvable }, false)
            }
        };
        let wal = &self.sequencer().wal;
        wal.wait_durable(wal.tail())?;
        Ok(Reply { miss, ..reply(request, status, self.now_ms(), ReplyBody::None) })
    }
}

fn key_of(inner: &Inner) -> String {
    inner.signer.as_ref().map(|signer| signer.key.verifier().to_string()).unwrap_or_default()
}

fn signed(request: RequestId, inner: &Inner, issued: &Issued) -> Reply {
    let note = SignedNote {
        note: issued.checkpoint.note().to_owned(),
        key: key_of(inner),
        size: issued.checkpoint.size(),
    };
    let body = ReplyBody::SignedNote(Box::new(note));
    Reply { lsn: Some(issued.lsn), ..reply(request, Status::Ok, issued.time_ms, body) }
}
