//! Codes and keys: what stands between a plaintext code and the disk.
//!
//! A code is known in three forms. For look-up: a keyed BLAKE3 digest, which is useless without the
//! look-up key, see `code.rs`. For delivery: an AES-256-GCM ciphertext under its batch's data key, with the card's
//! reference as nonce and associated data, so that a row moved to another place does not open. And, for
//! the moment of a sale's reply, the plaintext. A card never changes its code and a batch never shares
//! its key, so no nonce is used twice, but in one case: a chunk of an import whose writing failed midway, and whose rows
//! come again with other codes. Of what was written first nothing is ever read, and only who reads the disk between
//! the two learns from it; what the two codes have in common, of an importer's own batch.
//!
//! Two secrets never lie in the data directory that a backup copies: the look-up key (`code.rs`), and the master key with
//! the ring of data keys, see `keyring.rs`.

use std::fmt;
use std::io;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::rand;
use kami_wal::{Lsn, Medium};
use zeroize::Zeroizing;

use crate::code::LookupKey;
use crate::engine::RevealError;
use crate::identity::OrderId;
use crate::keyring::{KeyRotation, Keyring};
use crate::record::{Allocation, Run};
use crate::table::Table;
use crate::word::CardRef;

/// Bytes that sealing adds to a plaintext.
pub const TAG_BYTES: usize = 16;

/// Why the keys cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The key files cannot be read or written.
    #[error("key files cannot be used: file=`{file}`")]
    Io {
        /// Which.
        file: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A key file is not there, although the store or the other keys are.
    #[error("a key is missing: restore the key directory from where its copy is kept; file=`{file}`")]
    Missing {
        /// Which.
        file: &'static str,
    },
    /// The keys are not those the store was made with, or are damaged.
    #[error("the keys are not this store's, or are damaged: file=`{file}`")]
    Wrong {
        /// Which.
        file: &'static str,
    },
}

/// The key that opens the codes of one batch.
pub struct DataKey(LessSafeKey);

impl DataKey {
    pub(crate) fn new(bytes: &[u8; 32]) -> DataKey {
        let key = UnboundKey::new(&AES_256_GCM, bytes).expect("the key has the cipher's length");
        DataKey(LessSafeKey::new(key))
    }

    /// Nonce and associated data of a card: its reference, which is unique under its batch's key.
    fn place(card: CardRef) -> (Nonce, Aad<[u8; 8]>) {
        let mut nonce = [0; NONCE_LEN];
        nonce[..8].copy_from_slice(&card.to_bits().to_le_bytes());
        (Nonce::assume_unique_for_key(nonce), Aad::from(card.to_bits().to_le_bytes()))
    }

    /// Seals `cell` in place: the last [`TAG_BYTES`] become the tag.
    pub fn seal(&self, card: CardRef, cell: &mut [u8]) {
        let (nonce, aad) = DataKey::place(card);
        let (plain, tag) = cell.split_at_mut(cell.len() - TAG_BYTES);
        let made = self
            .0
            .seal_in_place_separate_tag(nonce, aad, plain)
            .expect("a cell is far below the cipher's limit");
        tag.copy_from_slice(made.as_ref());
    }

    /// Opens `cell` in place and yields the plaintext; `None` if it was altered or moved.
    pub fn open<'a>(&self, card: CardRef, cell: &'a mut [u8]) -> Option<&'a [u8]> {
        let (nonce, aad) = DataKey::place(card);
        self.0.open_in_place(nonce, aad, cell).ok().map(|plain| &*plain)
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataKey")
    }
}

/// The store's secrets.
pub struct Vault {
    lookup: LookupKey,
    keyring: Keyring,
}

impl Vault {
    /// Opens the keys on `medium`, or makes new ones if `create` says that the store is new.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn open(medium: std::sync::Arc<dyn Medium>, create: bool) -> Result<Vault, KeyError> {
        // The ring is made last, so that beside one nothing else may be missing.
        let create = create && !Keyring::is_there(&*medium)?;
        let lookup = LookupKey::open(&*medium, create)?;
        Ok(Vault { lookup, keyring: Keyring::open(medium, create)? })
    }

    /// What digests of codes are made with.
    #[inline]
    #[must_use]
    pub fn lookup(&self) -> &LookupKey {
        &self.lookup
    }

    /// Makes a data key and stores it, wrapped and durable, before anything is sealed with it.
    ///
    /// # Errors
    /// If the ring cannot be written.
    pub fn create_key(&self) -> io::Result<(u64, DataKey)> {
        self.keyring.create_key()
    }

    /// Drops the key of an import that was given up, of which nothing is left to open; written with the next
    /// change. Nothing else ever drops one: that no batch of this store uses a key does not mean that none does.
    /// The store may be yesterday's, opened to have a look, and the keys today's.
    pub fn drop_key(&self, id: u64) {
        self.keyring.drop_key(id);
    }

    /// The data key with this id; `None` if the ring has none or the master key does not open it.
    #[must_use]
    pub fn key(&self, id: u64) -> Option<DataKey> {
        self.keyring.key(id)
    }

    /// Wraps all data keys with a new master key.
    ///
    /// # Errors
    /// If the keys cannot be written; they can be read as before.
    pub fn rotate_master(&self) -> io::Result<KeyRotation> {
        self.keyring.rotate()
    }

    /// Puts in order what a rotation left that was cut short.
    ///
    /// # Errors
    /// If the keys cannot be written.
    pub fn settle(&self) -> Result<(), KeyError> {
        self.keyring.settle()
    }
}

/// Reads a key file, or makes one with a new key.
pub(crate) fn secret(
    medium: &dyn Medium,
    file: &'static str,
    create: bool,
) -> Result<Zeroizing<[u8; 32]>, KeyError> {
    let io = |source| KeyError::Io { file, source };
    let mut secret = Zeroizing::new([0; 32]);
    match medium.open(file) {
        Ok(open) => {
            if open.len().map_err(io)? != 32 {
                return Err(KeyError::Wrong { file });
            }
            open.read_at(0, &mut *secret).map_err(io)?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound && create => {
            rand::fill(&mut *secret).map_err(|_| io(io::Error::other("no randomness")))?;
            replace_file(medium, file, &*secret).map_err(io)?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(KeyError::Missing { file }),
        Err(error) => return Err(io(error)),
    }
    Ok(secret)
}

/// Replaces a small file as a whole: after a crash either the old or the new one is there.
pub(crate) fn replace_file(medium: &dyn Medium, path: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = format!("{path}.new");
    match medium.remove(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = medium.create(&temporary)?;
    file.write_at(0, bytes)?;
    file.sync()?;
    medium.rename(&temporary, path)?;
    medium.sync_dir(path.rsplit_once('/').map_or("", |(dir, _)| dir))
}

/// Cards whose codes may be read once the reply that carries this list is durable; see
/// [`Engine::reveal`](crate::Engine::reveal).
#[derive(Clone, Debug)]
pub struct CodeList {
    /// The order.
    pub order: OrderId,
    /// Cards of the order that still belong to it.
    pub total: u32,
    /// Which of them is the first here.
    pub from: u32,
    /// How many are here.
    pub count: u32,
    /// The reveal must be durable up to here before a code is decrypted.
    pub(crate) durable_at: Lsn,
    pub(crate) cards: Allocation,
}

impl CodeList {
    /// Decrypts the codes. The caller has checked that they may be read.
    pub(crate) fn reveal(
        &self,
        table: &Table,
        each: &mut dyn FnMut(CardRef, &[u8]),
    ) -> Result<(), RevealError> {
        /// Rows read from the file at a time.
        const ROWS: u32 = 1024;
        let mut cells = Zeroizing::new(Vec::new());
        for Run { first, rows, .. } in self.cards.runs() {
            let batch = table.batch_of(first).expect("a sale's cards are committed");
            let stride = batch.file.layout.stride();
            let mut done = 0;
            while done < rows {
                let count = ROWS.min(rows - done);
                let row = first.row() + u64::from(done);
                let io = |source| RevealError::Io { batch: batch.id, source };
                batch.file.read_codes(row, count as usize, &mut cells).map_err(io)?;
                for (cell, row) in cells.chunks_exact_mut(stride).zip(row..) {
                    let card = CardRef::new(first.batch(), row);
                    let plain = batch.key.open(card, cell);
                    let code = plain.and_then(|plain| {
                        let (len, rest) = plain.split_first()?;
                        rest.get(..usize::from(*len))
                    });
                    each(card, code.ok_or(RevealError::Damaged { batch: batch.id, row })?);
                }
                done += count;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_code_opens_only_in_its_place_and_unaltered() {
        let key = DataKey::new(&[7; 32]);
        let card = CardRef::new(3, 9);
        let mut cell = [0; 40];
        cell[..4].copy_from_slice(b"CODE");
        key.seal(card, &mut cell);
        assert!(!cell.windows(4).any(|bytes| bytes == b"CODE"));
        assert_eq!(&key.open(card, &mut cell.clone()).unwrap()[..4], b"CODE");
        assert!(key.open(CardRef::new(3, 10), &mut cell.clone()).is_none());
        cell[2] ^= 1;
        assert!(key.open(card, &mut cell.clone()).is_none());
    }
}
