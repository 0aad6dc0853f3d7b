//! Proofs that anybody can check: what happened to a card, and that nothing of it was changed afterwards.
//!
//! The entries of the log, in order, are the leaves of a Merkle tree (RFC 6962). Its size and root at a moment, signed
//! with a key that lies beside the data, are a *checkpoint*; whoever keeps one can tell later whether the log still
//! begins with the same entries. `docs/proof.md` says what is proven to whom, and what is not.
//!
//! ```text
//! merkle.rs       roots, paths, and how they are checked: no I/O, nothing of ours
//! note.rs         the checkpoint as a signed note, the keys
//! digests.rs      a card's digest in the hash that its import committed to
//! card.rs         the proof of a card as a text, and its verification
//! consistency.rs  the same for two checkpoints
//! tiles.rs        the inner hashes, kept in a file that follows from the log
//! prover.rs       what the engine does: follow the log, sign, prove
//! requests.rs     the commands: who may ask, parts of long proofs
//! audit.rs        whether a stopped store is what was signed
//! ```
//! The first five need neither a store nor keys: an auditor's machine runs them alone.

mod audit;
mod card;
mod consistency;
mod digests;
pub mod merkle;
mod note;
mod prover;
mod requests;
mod tiles;
mod tree;

pub(crate) use audit::Signatures;
pub use card::{CardProof, Leaf, ProvenCard};
pub use consistency::ConsistencyProof;
pub use digests::DigestProof;
pub use note::{Checkpoint as ProofCheckpoint, VerifierKey};
pub use prover::ProofKey;
pub(crate) use prover::{Prover, copy_key};

use crate::Lsn;
use crate::record::FormatError;

/// Why a proof proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProofError {
    /// The text is not one that was written as a proof.
    #[error("this is no proof as it was written: get it again; wrong=`{what}`")]
    Malformed {
        /// Which part.
        what: &'static str,
    },
    /// The verifier key is none.
    #[error("this is no verifier key: take the whole line that the log's operator publishes, name+id+key")]
    Key,
    /// The checkpoint is another log's than the key.
    #[error("the checkpoint is of another log than the key: origin=`{found}`")]
    Origin {
        /// Whose it is.
        found: String,
    },
    /// The checkpoint is not signed by the key.
    #[error("the checkpoint is not signed by this key: it was changed, or is not this log's")]
    Signature,
    /// An entry does not lead to the root.
    #[error(
        "an entry is not part of the signed log: it was changed, there or here; leaf=`{index}` lsn=`{lsn}`"
    )]
    NotIncluded {
        /// Its number.
        index: u64,
        /// Its position.
        lsn: Lsn,
    },
    /// Two entries do not follow each other.
    #[error("the entries are not the card's, one after the other: something is left out; lsn=`{lsn}`")]
    Unlinked {
        /// Where.
        lsn: Lsn,
    },
    /// An entry is missing.
    #[error("the history of the card is not whole: missing=`{what}`")]
    Incomplete {
        /// Which.
        what: &'static str,
    },
    /// The digest is not the one that was imported.
    #[error("the card's digest is not the one that was imported in this row")]
    Digest,
    /// The one log does not begin with the other.
    #[error(
        "the newer log does not begin with the older: history was changed between them; sizes=`{old}, {new}`"
    )]
    Inconsistent {
        /// Size of the older.
        old: u64,
        /// Size of the newer.
        new: u64,
    },
    /// An entry is of a later version.
    #[error(transparent)]
    Format(#[from] FormatError),
}
