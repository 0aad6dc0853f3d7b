//! The proof of a card: a text that anybody can check who has the log's public key, and nothing else.
//!
//! ```text
//! kami-card-proof/v1
//! card 3 17                        batch and row
//! digests <base64>                 the digests around the row (see `digests.rs`)
//! beside <base64>                  … and the way up to the hash that the import committed to; repeated
//! event 1234 98304 1795000000000   the newest entry: its leaf, its position in the log, its time
//! entry <base64>                   … as it stands in the log
//! beside <base64>                  … and the way up to the root; repeated
//! event …                          the one before, and so on; the last is the IMPORT of the batch
//!                                  a blank line
//! <the signed checkpoint>
//! ```
//! A text has one form: what would be written otherwise is refused, so no byte of a proof can change unseen.
//!
//! # What is checked
//! * the checkpoint's signature, and every entry's way to its root;
//! * that the entries are one unbroken chain: each names the position and the state of the one before as the card's
//!   word, down to the word of a card that was never touched. So nothing between the newest entry shown and the import
//!   is left out;
//! * that the last is the IMPORT of the card's batch, and that the row of the digests it committed to holds the
//!   digest.

use crate::Lsn;
use crate::identity::{BatchId, CardDigest, ChannelId, MerchantId, ProductId, TenantId, TerminalId};
use crate::product::Money;
use crate::record::{Entry, FormatError, Kind, StoredBatch};
use crate::reply::HistoryEvent;
use crate::word::{CardRef, Flags, Lifecycle, Word};

use super::ProofError;
use super::digests::DigestProof;
use super::merkle::{Hash, PATH_MAX, leaf_hash, root_by_inclusion};
use super::note::{Checkpoint, Lines, VerifierKey, decode, decode_hash, encode, number};

const TITLE: &str = "kami-card-proof/v1";

/// An entry of the log as a leaf of the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Its number, from 0.
    pub index: u64,
    /// Where it stands in the log.
    pub lsn: Lsn,
    /// Engine time of its group.
    pub time_ms: u64,
    /// Its bytes.
    pub entry: Vec<u8>,
    /// The way to the root.
    pub path: Vec<Hash>,
}

/// The hash of an entry as a leaf: over its position, its time and its bytes.
pub(super) fn hash_of_entry(lsn: Lsn, time_ms: u64, bytes: &[u8]) -> Hash {
    leaf_hash(&[&lsn.bytes().to_le_bytes(), &time_ms.to_le_bytes(), bytes])
}

impl Leaf {
    fn entry(&self) -> Result<Entry<'_>, FormatError> {
        Entry::alone(&self.entry, self.lsn, self.time_ms)
    }

    fn is_in(&self, checkpoint: &Checkpoint) -> bool {
        let leaf = hash_of_entry(self.lsn, self.time_ms, &self.entry);
        root_by_inclusion(self.index, checkpoint.size(), leaf, &self.path) == Some(*checkpoint.root())
    }
}

/// A proof as it was read; nothing of it is to be believed before [`CardProof::verify`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CardProof {
    /// The card.
    pub card: CardRef,
    /// Its digest in its batch.
    pub digests: DigestProof,
    /// Its entries, newest first; the last is the IMPORT of its batch.
    pub events: Vec<Leaf>,
    /// What they are proven to.
    pub checkpoint: Checkpoint,
}

/// What a proof proves: up to the checkpoint, all of this happened to the card, in this order, and nothing between.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ProvenCard {
    /// The log.
    pub origin: String,
    /// How many entries the log had.
    pub size: u64,
    /// The card.
    pub card: CardRef,
    /// Its keyed digest: whoever has the look-up key can tell which code it is of.
    pub digest: CardDigest,
    /// Whose it is.
    pub tenant: TenantId,
    /// Its product.
    pub product: ProductId,
    /// What its batch is worth a card, where rows do not say otherwise.
    pub face: Money,
    /// The state that the newest entry left it in. What is true of its whole batch or product, as a freeze, is not part
    /// of it.
    pub lifecycle: Lifecycle,
    /// The flags that the newest entry left.
    pub flags: Flags,
    /// Everything that happened to it, newest first.
    pub events: Vec<HistoryEvent>,
}

impl CardProof {
    /// The text.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = format!("{TITLE}\ncard {} {}\n", self.card.batch(), self.card.row());
        let line = |text: &mut String, name: &str, bytes: &[u8]| {
            text.push_str(name);
            text.push(' ');
            text.push_str(&encode(bytes));
            text.push('\n');
        };
        line(&mut text, "digests", &self.digests.chunk);
        self.digests.path.iter().for_each(|hash| line(&mut text, "beside", hash));
        for leaf in &self.events {
            text.push_str(&format!("event {} {} {}\n", leaf.index, leaf.lsn.bytes(), leaf.time_ms));
            line(&mut text, "entry", &leaf.entry);
            leaf.path.iter().for_each(|hash| line(&mut text, "beside", hash));
        }
        text.push('\n');
        text.push_str(self.checkpoint.note());
        text
    }

    /// Whether a text is the proof of a card, and not of something else.
    #[must_use]
    pub fn is_titled(text: &str) -> bool {
        text.lines().next() == Some(TITLE)
    }

    /// Reads a proof.
    ///
    /// # Errors
    /// [`ProofError::Malformed`] for everything that [`CardProof::encode`] does not write.
    pub fn parse(text: &str) -> Result<CardProof, ProofError> {
        let malformed = |what| ProofError::Malformed { what };
        let mut lines = Lines { rest: text };
        if lines.next() != Some(TITLE) {
            return Err(malformed("the title"));
        }
        let card = lines.next().and_then(|line| card(line.strip_prefix("card ")?));
        let card = card.ok_or(malformed("the card"))?;
        let chunk = lines.next().and_then(|line| decode(line.strip_prefix("digests ")?));
        let chunk = chunk.ok_or(malformed("the digests"))?;
        let mut digests = DigestProof { chunk, path: Vec::new() };
        let mut events: Vec<Leaf> = Vec::new();
        loop {
            let line = lines.next().ok_or(malformed("the end of the events"))?;
            if line.is_empty() {
                break;
            }
            if let Some(hash) = line.strip_prefix("beside ") {
                let path = events.last_mut().map_or(&mut digests.path, |leaf| &mut leaf.path);
                if path.len() == PATH_MAX {
                    return Err(malformed("a path"));
                }
                path.push(decode_hash(hash).ok_or(malformed("a hash"))?);
                continue;
            }
            let leaf = line.strip_prefix("event ").and_then(|event| {
                let mut numbers = event.split(' ').map(number);
                let (index, lsn, time_ms) = (numbers.next()??, numbers.next()??, numbers.next()??);
                let entry = decode(lines.next()?.strip_prefix("entry ")?)?;
                let lsn = Lsn::from_bytes(lsn).filter(|_| numbers.next().is_none())?;
                Some(Leaf { index, lsn, time_ms, entry, path: Vec::new() })
            });
            events.push(leaf.ok_or(malformed("an event"))?);
        }
        let checkpoint = Checkpoint::parse(lines.rest)?;
        let proof = CardProof { card, digests, events, checkpoint };
        if proof.encode() == text { Ok(proof) } else { Err(malformed("a line")) }
    }

    /// Checks everything, with the log's public key and nothing else.
    ///
    /// # Errors
    /// See [`ProofError`]: then nothing is proven.
    pub fn verify(&self, key: &VerifierKey) -> Result<ProvenCard, ProofError> {
        self.checkpoint.verify(key)?;
        let Some((import, moves)) = self.events.split_last() else {
            return Err(ProofError::Incomplete { what: "the import of its batch" });
        };
        if let Some(event) = self.events.iter().find(|leaf| !leaf.is_in(&self.checkpoint)) {
            return Err(ProofError::NotIncluded { index: event.index, lsn: event.lsn });
        }
        let mut events = Vec::with_capacity(self.events.len());
        // The word that the entry before must have given the card; of the newest none is known.
        let mut expected: Option<Word> = None;
        for leaf in moves {
            let entry = leaf.entry()?;
            let unlinked = || ProofError::Unlinked { lsn: leaf.lsn };
            let after = entry.word_after(self.card)?.ok_or_else(unlinked)?;
            if expected.is_some_and(|expected| expected != after) {
                return Err(unlinked());
            }
            expected = entry.word_before(self.card)?;
            events.push(HistoryEvent::of(&entry, after)?);
        }
        if expected.is_some_and(|word| word.lsn().is_some()) {
            return Err(ProofError::Incomplete { what: "the entry before the oldest" });
        }
        let entry = import.entry()?;
        if entry.head.kind != Kind::Import || entry.head.subject != u64::from(self.card.batch()) {
            return Err(ProofError::Incomplete { what: "the import of its batch" });
        }
        let first = match expected {
            Some(word) => word,
            // Its state stands in the batch file, of which nothing here speaks.
            None if entry.tells_origins() => {
                return Err(ProofError::Incomplete { what: "what the card was in the system it comes from" });
            }
            None => Word::PRISTINE,
        };
        let batch = entry.object::<StoredBatch>()?;
        let digest = self.digests.verify(batch.rows, self.card.row(), &batch.cards_hash);
        let digest = digest.ok_or(ProofError::Digest)?;
        events.push(HistoryEvent {
            kind: Kind::Import,
            lsn: entry.lsn,
            time_ms: entry.time_ms,
            lifecycle: first.lifecycle(),
            flags: first.flags(),
            principal: entry.head.principal,
            terminal: TerminalId(0),
            // As HISTORY tells it: an import is nobody's trade.
            merchant: MerchantId(0),
            channel: ChannelId(0),
            request: entry.head.request,
            related: u128::from(BatchId(self.card.batch()).0),
            amount: 0,
            remaining: 0,
            made_ms: 0,
            grounds: None,
        });
        let HistoryEvent { lifecycle, flags, .. } = events[0];
        Ok(ProvenCard {
            origin: self.checkpoint.origin().to_owned(),
            size: self.checkpoint.size(),
            card: self.card,
            digest,
            tenant: entry.head.tenant,
            product: ProductId(batch.product),
            face: batch.face,
            lifecycle,
            flags,
            events,
        })
    }
}

/// Batch and row.
fn card(text: &str) -> Option<CardRef> {
    let (batch, row) = text.split_once(' ')?;
    let (batch, row) = (u32::try_from(number(batch)?).ok()?, number(row)?);
    (batch < CardRef::BATCHES_MAX && row < CardRef::ROWS_MAX).then(|| CardRef::new(batch, row))
}
