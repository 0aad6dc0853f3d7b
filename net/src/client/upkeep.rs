//! The typed calls about the store itself: its figures, snapshots, keys, and what it signs.

use kami_engine::{Checkpoint, KeyRotation, ProofPart, RequestId, SignedNote, Stats};

use super::Client;
use super::receipt::Receipt;
use crate::error::ClientError;
use crate::frame::request::{ConsistencyOf, ProofOf};
use crate::frame::{Body, Request, Secret};

/// The proof of a card as the server gave it out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The text, to be handed on.
    pub text: String,
    /// The key that the server signs with. Who checks the proof takes it from where it is published.
    pub key: String,
}

impl Client {
    /// Reads the engine's own figures.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn stats(&self) -> Result<Receipt<Stats>, ClientError> {
        self.call(RequestId::random(), &Request::Stats, |body| match body {
            Body::Stats(stats) => Some(stats),
            _ => None,
        })
        .await
    }

    /// Has a snapshot written.
    ///
    /// # Errors
    /// As [`Client::redeem`]; BUSY if one is being written.
    pub async fn checkpoint(&self) -> Result<Receipt<Checkpoint>, ClientError> {
        self.call(RequestId::random(), &Request::Checkpoint, |body| match body {
            Body::Checkpoint(checkpoint) => Some(checkpoint),
            _ => None,
        })
        .await
    }

    /// Has the keys of all batches wrapped with a new master key. `request` makes it repeatable: the same again is the
    /// same rotation, as long as the server runs.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn rotate_keys(&self, request: RequestId) -> Result<Receipt<KeyRotation>, ClientError> {
        self.call(request, &Request::KeyRotate, |body| match body {
            Body::Keys(rotation) => Some(rotation),
            _ => None,
        })
        .await
    }

    /// Has a checkpoint of the log signed, or gets the last again if nothing happened since.
    ///
    /// # Errors
    /// As [`Client::redeem`]; BUSY while the server takes in a log that was never signed, a second at a time.
    pub async fn signed_checkpoint(&self) -> Result<Receipt<SignedNote>, ClientError> {
        self.call(RequestId::random(), &Request::SignedCheckpoint, |body| match body {
            Body::SignedNote(note) => Some(note),
            _ => None,
        })
        .await
    }

    /// Gets the proof of a card, up to now, and the key that the server says it can be checked with. Nothing of it is
    /// checked here: see [`CardProof`](kami_engine::CardProof).
    ///
    /// # Errors
    /// As [`Client::signed_checkpoint`].
    pub async fn prove(&self, code: &[u8]) -> Result<Receipt<Proof>, ClientError> {
        let (mut size, mut text) = (0, Vec::new());
        loop {
            let from = text.len() as u64;
            let request = Request::Proof(ProofOf { size, from, code: Secret(code) });
            let part = self
                .call(RequestId::random(), &request, |body| match body {
                    Body::ProofPart(part) => Some(part),
                    _ => None,
                })
                .await?;
            let ProofPart { total, from: begins, bytes, .. } = &part.value;
            if *begins != from || bytes.is_empty() {
                return Err(ClientError::BadReply);
            }
            text.extend_from_slice(bytes);
            if *total <= text.len() as u64 {
                let text = String::from_utf8(text).map_err(|_| ClientError::BadReply)?;
                return Ok(part.map(|part| Proof { text, key: part.key }));
            }
            size = part.value.size;
        }
    }

    /// Gets the hashes that prove that the checkpoint of `new` entries continues that of `old`.
    ///
    /// # Errors
    /// As [`Client::signed_checkpoint`].
    pub async fn consistency(&self, old: u64, new: u64) -> Result<Receipt<Vec<[u8; 32]>>, ClientError> {
        let request = Request::Consistency(ConsistencyOf { old, new });
        self.call(RequestId::random(), &request, |body| match body {
            Body::Path(path) => Some(path.rows.into_iter().map(|row| row.hash).collect()),
            _ => None,
        })
        .await
    }
}
