//! The proof that one checkpoint continues another: that nothing was taken out of the log, changed or put in between.
//!
//! ```text
//! kami-consistency-proof/v1
//! beside <base64>            the path; repeated
//!                            a blank line
//! <the older checkpoint>
//!                            a blank line
//! <the newer checkpoint>
//! ```

use super::ProofError;
use super::merkle::{Hash, PATH_MAX, is_consistent};
use super::note::{Checkpoint, Lines, VerifierKey, decode_hash, encode};

const TITLE: &str = "kami-consistency-proof/v1";

/// A proof as it was read; nothing of it is to be believed before [`ConsistencyProof::verify`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsistencyProof {
    /// The older checkpoint.
    pub old: Checkpoint,
    /// The newer one.
    pub new: Checkpoint,
    /// What a log that had the one and has the other can tell.
    pub path: Vec<Hash>,
}

impl ConsistencyProof {
    /// The text.
    #[must_use]
    pub fn encode(&self) -> String {
        let path: String = self.path.iter().map(|hash| format!("beside {}\n", encode(hash))).collect();
        format!("{TITLE}\n{path}\n{}\n{}", self.old, self.new)
    }

    /// Whether a text is a proof of consistency, and not of something else.
    #[must_use]
    pub fn is_titled(text: &str) -> bool {
        text.lines().next() == Some(TITLE)
    }

    /// Reads a proof.
    ///
    /// # Errors
    /// [`ProofError::Malformed`] for everything that [`ConsistencyProof::encode`] does not write.
    pub fn parse(text: &str) -> Result<ConsistencyProof, ProofError> {
        let malformed = |what| ProofError::Malformed { what };
        let mut lines = Lines { rest: text };
        if lines.next() != Some(TITLE) {
            return Err(malformed("the title"));
        }
        let mut path = Vec::new();
        loop {
            let line = lines.next().ok_or(malformed("the end of the path"))?;
            if line.is_empty() {
                break;
            }
            let hash = line.strip_prefix("beside ").and_then(decode_hash);
            path.push(hash.filter(|_| path.len() < PATH_MAX + 1).ok_or(malformed("a hash"))?);
        }
        let (old, rest) = Checkpoint::parse_first(lines.rest)?;
        let new = rest.strip_prefix('\n').ok_or(malformed("the line between the checkpoints"))?;
        Ok(ConsistencyProof { old, new: Checkpoint::parse(new)?, path })
    }

    /// Checks both signatures and that the older log is the beginning of the newer.
    ///
    /// # Errors
    /// See [`ProofError`]; [`ProofError::Inconsistent`] with both signatures right is a log that was forked, if the
    /// path was made from it.
    pub fn verify(&self, key: &VerifierKey) -> Result<(), ProofError> {
        self.old.verify(key)?;
        self.new.verify(key)?;
        let (old, new) = (&self.old, &self.new);
        if is_consistent(old.size(), old.root(), new.size(), new.root(), &self.path) {
            Ok(())
        } else {
            Err(ProofError::Inconsistent { old: old.size(), new: new.size() })
        }
    }
}
