//! Commands that wait for the disk: on a thread that may block, after what their stream gathered and before what follows.

use std::sync::atomic::AtomicBool;
use std::time::Instant;

use kami_engine::{
    CardDigest, Grounds, ImportRow, ImportSpec, PastError, Poisoned, RequestId, Status, TotalsQuery,
};
use zeroize::Zeroizing;

use super::engine_head;
use crate::frame::{Body, Opcode, REQUEST_HEAD_BYTES, ReplyHead, Request, RequestHead, Wait};
use crate::registry::Peer;
use crate::server::Shared;

/// A command that waits for the disk.
pub(crate) enum Blocking {
    Begin(Box<ImportSpec>),
    Status(RequestId),
    Commit(RequestId, Option<Box<Grounds>>),
    Abort(RequestId),
    Duplicates(RequestId, u64),
    Checkpoint,
    KeyRotate(Option<Box<Grounds>>),
    /// Reads much of the log, beside all other such work.
    Totals(TotalsQuery),
    SignedCheckpoint,
    Proof {
        card: CardDigest,
        size: u64,
        from: u64,
    },
    Consistency {
        old: u64,
        new: u64,
    },
    /// The whole frame, to be read again by the thread that works on it.
    Chunk(Zeroizing<Vec<u8>>),
}

impl Blocking {
    /// The same on grounds; only with opcodes that take them.
    pub(super) fn on_grounds(self, grounds: Option<Box<Grounds>>) -> Blocking {
        match self {
            Blocking::Commit(import, _) => Blocking::Commit(import, grounds),
            Blocking::KeyRotate(_) => Blocking::KeyRotate(grounds),
            other => {
                debug_assert!(grounds.is_none(), "a reason that would be dropped");
                other
            }
        }
    }
}

/// Carries out a command that waits for the disk; called on a thread that may.
pub(crate) fn run_blocking(
    shared: &Shared,
    peer: &Peer,
    head: &RequestHead,
    work: Blocking,
    left: &AtomicBool,
) -> Result<(ReplyHead, Body), Poisoned> {
    let (engine, caller) = (&shared.engine, peer.caller);
    let reply = match work {
        Blocking::Begin(spec) => engine.import_begin(caller, head.request, *spec)?,
        Blocking::Status(import) => engine.import_status(caller, import)?,
        Blocking::Commit(import, grounds) => engine.import_commit_on(caller, import, grounds.as_deref())?,
        Blocking::Abort(import) => engine.import_abort(caller, import)?,
        Blocking::Duplicates(import, from) => engine.import_duplicates(caller, import, from)?,
        Blocking::Checkpoint => engine.checkpoint_reply(caller, head.request)?,
        Blocking::Totals(query) => {
            return Ok(match engine.totals(caller, &query, left) {
                Ok(totals) => (ReplyHead::local(head, Status::Ok), Body::Totals(totals)),
                Err(error) => {
                    if !matches!(error, PastError::Refused(_)) {
                        let error = &error as &dyn std::error::Error;
                        tracing::error!(error, "the log cannot be read for totals");
                    }
                    (ReplyHead::local(head, error.status()), Body::None)
                }
            });
        }
        Blocking::KeyRotate(grounds) => engine.rotate_master_on(caller, head.request, grounds)?,
        Blocking::SignedCheckpoint => engine.sign_checkpoint(caller, head.request)?,
        Blocking::Proof { card, size, from } => {
            // Asked again: many may have been let in while one after the other waited for its turn.
            if let Err(wait) = shared.guesses.admit(&peer.guesser, card.spread(), Instant::now()) {
                return Ok((ReplyHead::local(head, Status::RateLimited), Body::Wait(Wait::of(wait))));
            }
            let reply = engine.prove_card(caller, head.request, card, size, from)?;
            if reply.miss {
                shared.guesses.miss(&peer.guesser, card.spread(), Instant::now());
            }
            reply
        }
        Blocking::Consistency { old, new } => engine.prove_consistency(caller, head.request, old, new)?,
        Blocking::Chunk(frame) => match Request::decode(Opcode::ImportChunk, &frame[REQUEST_HEAD_BYTES..]) {
            Ok(Request::ImportChunk(chunk)) => {
                let mut rows = chunk.rows();
                let rows: &mut dyn Iterator<Item = ImportRow<'_>> = &mut rows;
                engine.import_chunk(caller, chunk.import, chunk.first_row, rows)?
            }
            // It was decoded before it was handed over.
            _ => return Ok((ReplyHead::local(head, Status::Malformed), Body::None)),
        },
    };
    Ok((engine_head(head.opcode, head.request, &reply), Body::from_engine(reply.body).unwrap_or(Body::None)))
}
