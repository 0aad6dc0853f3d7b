//! The engine: open, execute, wait, close.

use std::task::{Context, Poll};

use kami_wal::Lsn;

use crate::command::{
    Caller, CardDigest, ImportRow, ImportSpec, PinDigest, Principal, Reply, Request, RequestId,
};
use crate::vault::CodeList;
use crate::word::CardRef;

/// The engine. A cheap handle; clones share one store.
#[derive(Clone)]
pub struct Engine {}

/// Requests and their replies, reused from batch to batch.
///
/// **A reply may leave only when the log is durable up to [`Work::durable_at`].**
#[derive(Debug, Default)]
pub struct Work {
    /// What is asked; at most [`Work::REQUESTS_MAX`] per execution.
    pub requests: Vec<Request>,
    /// One reply per request, in order, after [`Engine::execute`].
    pub replies: Vec<Reply>,
    durable_at: Option<Lsn>,
}

impl Work {
    /// The most requests one execution takes.
    pub const REQUESTS_MAX: usize = 64;
    /// Up to where the log must be durable before any of the replies leaves.
    #[must_use]
    pub fn durable_at(&self) -> Option<Lsn> {
        self.durable_at
    }
}

/// A code that cannot be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodeError {
    /// Not UTF-8.
    #[error("the code is not valid UTF-8")]
    NotText,
    /// Shorter than 4 or longer than 128 bytes once normalised.
    #[error("a code has 4 to 128 bytes without spaces, this one has `{0}`")]
    Length(usize),
}

/// The log failed; nothing is acknowledged any more and the process must end.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the log failed and takes no more")]
pub struct Poisoned;

#[allow(unused_variables, clippy::todo, clippy::missing_errors_doc, missing_docs)]
impl Engine {
    /// Normalises a code and takes its keyed digest.
    pub fn digest(&self, code: &[u8]) -> Result<CardDigest, CodeError> {
        todo!()
    }
    /// The keyed digest of a PIN of a card.
    pub fn pin_digest(&self, card: CardDigest, pin: &[u8]) -> PinDigest {
        todo!()
    }
    /// Decides the requests in order and fills in their replies. Never waits for the disk.
    pub fn execute(&self, work: &mut Work) {
        todo!()
    }
    /// Whether there is room for more changes; when not, wait for [`Engine::space`] before executing.
    pub fn has_space(&self) -> bool {
        todo!()
    }
    /// Resolves when there is room again, or when waiting is no use (a full disk).
    pub async fn space(&self) {
        todo!()
    }
    pub fn durable_end(&self) -> Lsn {
        todo!()
    }
    pub fn poll_durable(&self, lsn: Lsn, cx: &mut Context<'_>) -> Poll<Result<(), Poisoned>> {
        todo!()
    }
    pub async fn durable(&self, lsn: Lsn) -> Result<(), Poisoned> {
        todo!()
    }
    pub fn wait_durable(&self, lsn: Lsn) -> Result<(), Poisoned> {
        todo!()
    }
    /// Decrypts the codes of a durable reply, in order.
    pub fn reveal(&self, cards: &CodeList, each: &mut dyn FnMut(CardRef, &[u8])) -> std::io::Result<()> {
        todo!()
    }
    /// The principal that owns a key (SHA-256 of the DER `SubjectPublicKeyInfo`), unless revoked.
    pub fn principal_by_key(&self, key: &[u8; 32]) -> Option<Principal> {
        todo!()
    }
    /// Stages an import; `id` names it from here on. Blocking; so are the next three.
    pub fn import_begin(&self, caller: Caller, id: RequestId, spec: ImportSpec) -> Reply {
        todo!()
    }
    /// Adds rows; `first_row` is the number of the first. Rows received before are skipped.
    pub fn import_chunk(
        &self,
        caller: Caller,
        id: RequestId,
        first_row: u64,
        rows: &mut dyn Iterator<Item = ImportRow<'_>>,
    ) -> Reply {
        todo!()
    }
    /// How far a staged import is.
    pub fn import_status(&self, caller: Caller, id: RequestId) -> Reply {
        todo!()
    }
    /// Commits a staged import as one batch. Returns when it is durable.
    pub fn import_commit(&self, caller: Caller, id: RequestId) -> Reply {
        todo!()
    }
    /// Gives a staged import up.
    pub fn import_abort(&self, caller: Caller, id: RequestId) -> Reply {
        todo!()
    }
}
