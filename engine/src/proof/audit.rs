//! Whether a stopped store's log is what was signed: a part of `kami verify`.
//!
//! Checksums and the hash chain can be made anew by whoever changes the log; a signature cannot, without the key. So the
//! tree is computed from the log alone, and at every size that was ever signed its root must be the one that was
//! signed: by the log's own SIGNED_CHECKPOINT entries, and by the note in the key directory, which is not where the
//! log is. The derived file of tiles must say the same, too.

use std::collections::BTreeMap;

use kami_wal::{Lsn, Medium, OpenError, RecordKind, WalOptions};

use super::card::hash_of_entry;
use super::merkle::{Frontier, Hash};
use super::note::{Checkpoint, VerifierKey};
use super::prover::{LAST_FILE, last_signed, verifier_key};
use super::tiles::{TILE_LEAVES, Tile, stored_tiles};
use crate::record::{FormatError, Group, Kind};
use crate::vault::KeyError;
use crate::verify::VerifyError;

/// Everything that was signed about a log.
pub(crate) struct Signatures {
    store: u64,
    key: Option<VerifierKey>,
    /// What each size was signed as, and where that is said.
    signed: BTreeMap<u64, Vec<(Hash, String)>>,
    /// Signatures that are none.
    wrong: Vec<String>,
    last: Option<u64>,
    entries: u64,
    /// Checkpoints in the log by the present key.
    pub(crate) own: u64,
    /// … and by other keys.
    pub(crate) others: u64,
    /// The size signed last, if that is more than there is.
    pub(crate) beyond: Option<u64>,
}

impl Signatures {
    /// Begins with what the key directory remembers.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(crate) fn open(keys: &dyn Medium, store: u64) -> Result<Signatures, KeyError> {
        let key = verifier_key(keys, store)?;
        let mut signatures = Signatures {
            store,
            signed: BTreeMap::new(),
            wrong: Vec::new(),
            last: None,
            entries: 0,
            own: 0,
            others: 0,
            beyond: None,
            key,
        };
        if let Some(last) = last_signed(keys)? {
            match &signatures.key {
                Some(key) if last.verify(key).is_ok() => {}
                _ => signatures.wrong.push(format!("not signed by this store's key: file=`{LAST_FILE}`")),
            }
            signatures.last = Some(last.size());
            let said = format!("file=`{LAST_FILE}`");
            signatures.signed.entry(last.size()).or_default().push((*last.root(), said));
        }
        Ok(signatures)
    }

    /// Takes note of the checkpoints in a group, while the log is read for the first time.
    ///
    /// # Errors
    /// If it is none.
    pub(crate) fn collect(&mut self, payload: &[u8], payload_lsn: Lsn) -> Result<(), FormatError> {
        for entry in Group::parse(payload, payload_lsn)? {
            let entry = entry?;
            self.entries += 1;
            if entry.head.kind != Kind::SignedCheckpoint {
                continue;
            }
            let signed = entry.signed_checkpoint()?;
            let said = format!("lsn=`{}`", entry.lsn);
            let key = VerifierKey::of_store(self.store, signed.key);
            let note = Checkpoint::signed(&key, signed.size, signed.root, &signed.signature);
            if note.verify(&key).is_err() {
                self.wrong.push(format!("a checkpoint in the log is not signed by the key it names: {said}"));
            }
            if self.key.as_ref() == Some(&key) {
                self.own += 1
            } else {
                self.others += 1
            }
            self.signed.entry(signed.size).or_default().push((signed.root, said));
        }
        Ok(())
    }

    /// Reads the log once more, if anything was signed or kept of it, and compares.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(crate) fn check(
        &mut self,
        data: &dyn Medium,
        options: &WalOptions,
        problems: &mut Vec<String>,
    ) -> Result<(), VerifyError> {
        problems.append(&mut self.wrong);
        self.beyond = self.last.filter(|size| self.entries < *size);
        let tiles = stored_tiles(data, self.store);
        if self.signed.is_empty() && tiles.is_empty() {
            return Ok(());
        }
        let mut tree = Recount { tiles, ..Recount::default() };
        let mut broken = None;
        kami_wal::verify(data, options, &mut |record| {
            if record.kind == RecordKind::Data && broken.is_none() {
                broken = self.record(&mut tree, record.payload, record.payload_lsn, problems).err();
            }
        })
        .map_err(|error: OpenError| VerifyError::from(error))?;
        if let Some(error) = broken {
            problems.push(error.to_string());
        }
        if let Some(tile) = tree.differs {
            problems.push(format!(
                "the file made from the log differs from it, remove it: file=`proofs/tiles` tile=`{tile}`"
            ));
        }
        for (size, said) in self.signed.range(self.entries + 1..) {
            for (_, said) in said.iter().filter(|_| self.beyond != Some(*size)) {
                problems.push(format!("a checkpoint of more entries than the log has: size=`{size}` {said}"));
            }
        }
        Ok(())
    }

    fn record(
        &self,
        tree: &mut Recount,
        payload: &[u8],
        payload_lsn: Lsn,
        problems: &mut Vec<String>,
    ) -> Result<(), FormatError> {
        for entry in Group::parse(payload, payload_lsn)? {
            let entry = entry?;
            tree.push(entry.lsn, hash_of_entry(entry.lsn, entry.time_ms, entry.bytes()));
            let size = tree.all.size();
            for (root, said) in self.signed.get(&size).into_iter().flatten() {
                if tree.all.root() != *root {
                    problems.push(format!(
                        "the log is not what was signed: one of its first {size} entries was changed: {said}"
                    ));
                }
            }
        }
        Ok(())
    }
}

/// The tree as it is computed from the log.
#[derive(Default)]
struct Recount {
    all: Frontier,
    /// The leaves of the tile under way.
    tile: Frontier,
    first: Option<Lsn>,
    tiles: Vec<Tile>,
    /// The first tile of the file that is not what the log says.
    differs: Option<u64>,
}

impl Recount {
    fn push(&mut self, lsn: Lsn, leaf: Hash) {
        let first = *self.first.get_or_insert(lsn);
        self.all.push(leaf);
        self.tile.push(leaf);
        if self.tile.size() == TILE_LEAVES {
            let number = self.all.size() / TILE_LEAVES - 1;
            let tile = Tile { first, hash: self.tile.root() };
            if self.tiles.get(number as usize).is_some_and(|kept| *kept != tile) {
                self.differs.get_or_insert(number);
            }
            self.tile = Frontier::default();
            self.first = None;
        }
    }
}
