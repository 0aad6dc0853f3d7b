//! Codes and keys: what stands between a plaintext code and the disk.
//!
//! A code is known in three forms. For look-up: a keyed BLAKE3 digest, which is useless without the
//! look-up key. For delivery: an AES-256-GCM ciphertext under its batch's data key, with the card's
//! reference as nonce and associated data, so that a row moved to another place does not open. And, for
//! the moment of a sale's reply, the plaintext. A card never changes its code and a batch never shares
//! its key, so no nonce is ever used twice.
//!
//! Two secrets never lie in the data directory that a backup copies: the look-up key here, and the master key with
//! the ring of data keys, see `keyring.rs`.

use std::fmt;
use std::io;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::rand;
use kami_wal::{Lsn, Medium};
use unicode_normalization::UnicodeNormalization;
use zeroize::{Zeroize, Zeroizing};

use crate::engine::RevealError;
use crate::identity::{CardDigest, OrderId, PinDigest, TenantId};
use crate::keyring::{KeyRotation, Keyring};
use crate::record::{Allocation, MarkKey, Run};
use crate::table::Table;
use crate::word::CardRef;

/// The shortest normalised code, in bytes.
pub const CODE_BYTES_MIN: usize = 4;
/// The longest normalised code, in bytes.
pub const CODE_BYTES_MAX: usize = 128;
/// Bytes that sealing adds to a plaintext.
pub const TAG_BYTES: usize = 16;

pub(crate) const LOOKUP_FILE: &str = "lookup.key";

/// A code that cannot be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodeError {
    /// Not UTF-8, or with control characters in it.
    #[error("the code is not text")]
    NotText,
    /// Shorter or longer than a code can be, once normalised.
    #[error("a code has 4 to 128 bytes without spaces, this one has `{0}`")]
    Length(usize),
}

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

/// A normalised code, on the stack; wiped when dropped.
pub struct Code {
    /// The tenant, for the digest, and the code behind it.
    bytes: [u8; TENANT_BYTES + CODE_BYTES_MAX],
    len: u8,
}

/// Room for the tenant before a code, so that digesting copies nothing.
const TENANT_BYTES: usize = 2;

impl Drop for Code {
    fn drop(&mut self) {
        // What lies behind was never written. Wiping is byte by byte, so wiping all would cost more than
        // hashing.
        self.bytes[..TENANT_BYTES + usize::from(self.len)].zeroize();
    }
}

impl Code {
    /// Brings a code into the one form that counts: Unicode NFKC, without white space, zero-width and
    /// direction marks; case and hyphens stay.
    ///
    /// # Errors
    /// If it is no text, or too short or too long.
    pub fn normalise(code: &[u8]) -> Result<Code, CodeError> {
        let mut normal = Code { bytes: [0; TENANT_BYTES + CODE_BYTES_MAX], len: 0 };
        let bytes = &mut normal.bytes[TENANT_BYTES..];
        let mut len = 0;
        if code.iter().all(u8::is_ascii_graphic) {
            // Most codes are plain ASCII, which is its own normal form.
            len = code.len();
            if let Some(place) = bytes.get_mut(..len) {
                place.copy_from_slice(code);
            }
        } else {
            let text = std::str::from_utf8(code).map_err(|_| CodeError::NotText)?;
            for character in what_counts(text) {
                if character.is_control() {
                    return Err(CodeError::NotText);
                }
                let end = len + character.len_utf8();
                if let Some(place) = bytes.get_mut(len..end) {
                    character.encode_utf8(place);
                    // Now, so that it is wiped even if a later character is refused.
                    normal.len = end as u8;
                }
                len = end;
            }
        }
        normal.len = len.min(CODE_BYTES_MAX) as u8;
        if (CODE_BYTES_MIN..=CODE_BYTES_MAX).contains(&len) {
            Ok(normal)
        } else {
            Err(CodeError::Length(len))
        }
    }

    #[inline]
    fn digest(&mut self, tenant: TenantId, lookup: &[u8; 32]) -> CardDigest {
        // The tenant has a fixed length, so a code never runs into it.
        self.bytes[..TENANT_BYTES].copy_from_slice(&tenant.0.to_le_bytes());
        let hash = blake3::keyed_hash(lookup, &self.bytes[..TENANT_BYTES + usize::from(self.len)]);
        let digest = u128::from_le_bytes(hash.as_bytes()[..16].try_into().expect("sixteen bytes"));
        // The index marks an empty slot by a zero high half.
        CardDigest(if digest >> 64 == 0 { digest | 1 << 64 } else { digest })
    }

    /// The normalised bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[TENANT_BYTES..TENANT_BYTES + usize::from(self.len)]
    }
}

/// The characters of a text that count, wherever it was typed or copied from.
fn what_counts(text: &str) -> impl Iterator<Item = char> {
    text.nfkc().filter(|character| !character.is_whitespace() && !is_invisible(*character))
}

/// Zero-width characters, joiners, direction marks and the byte-order mark: they come along when codes
/// are copied from chats and spreadsheets, and nobody sees them.
const fn is_invisible(character: char) -> bool {
    matches!(character, '\u{ad}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{2064}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
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
    lookup: Zeroizing<[u8; 32]>,
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
        let lookup = secret(&*medium, LOOKUP_FILE, create)?;
        Ok(Vault { lookup, keyring: Keyring::open(medium, create)? })
    }

    /// A value that tells these keys from others without giving anything away; kept with the store.
    #[must_use]
    pub fn check_value(&self) -> [u8; 16] {
        let hash = blake3::keyed_hash(&self.lookup, b"kami store key check v1");
        hash.as_bytes()[..16].try_into().expect("sixteen bytes")
    }

    /// The key that request ids are hashed with where nobody may foresee the hashes.
    #[must_use]
    pub fn mark_key(&self) -> MarkKey {
        MarkKey(*blake3::keyed_hash(&self.lookup, b"kami trail marks v1").as_bytes())
    }

    /// The digest of a normalised code of a tenant.
    #[inline]
    #[must_use]
    pub fn digest(&self, tenant: TenantId, code: &mut Code) -> CardDigest {
        code.digest(tenant, &self.lookup)
    }

    /// The digest of a card's PIN, which is brought into the same form as a code first: what a supplier's
    /// file has in full-width digits is typed in plain ones. What is no text counts as it is.
    #[must_use]
    pub fn pin_digest(&self, card: CardDigest, pin: &[u8]) -> PinDigest {
        let mut hasher = blake3::Hasher::new_keyed(&self.lookup);
        hasher.update(b"kami pin v1").update(&card.0.to_le_bytes());
        match std::str::from_utf8(pin) {
            Ok(text) if !pin.iter().all(u8::is_ascii_graphic) => {
                let mut bytes = [0; 4];
                for character in what_counts(text) {
                    hasher.update(character.encode_utf8(&mut bytes).as_bytes());
                    bytes.zeroize();
                }
            }
            _ => {
                hasher.update(pin);
            }
        }
        PinDigest(hasher.finalize().as_bytes()[..16].try_into().expect("sixteen bytes"))
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

/// The digest of a code by the look-up key on `keys`: for whoever holds that key and wants to know whether a proof is
/// of the card with this code. Needs no store.
///
/// # Errors
/// If the key cannot be read, or `code` can be no code, which is `Ok(Err(_))`.
pub fn lookup_digest(
    keys: &dyn Medium,
    tenant: TenantId,
    code: &[u8],
) -> Result<Result<CardDigest, CodeError>, KeyError> {
    let lookup = secret(keys, LOOKUP_FILE, false)?;
    Ok(Code::normalise(code).map(|mut code| code.digest(tenant, &lookup)))
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

    #[track_caller]
    fn check(code: &str, normal: Result<&str, CodeError>) {
        let found = Code::normalise(code.as_bytes());
        let found = found.as_ref().map(|code| std::str::from_utf8(code.as_bytes()).unwrap());
        assert_eq!(found.map_err(|error| *error), normal, "{code:?}");
    }

    #[test]
    fn codes_have_one_normal_form() {
        check("ABCD-1234", Ok("ABCD-1234"));
        check("abcd-1234", Ok("abcd-1234"));
        check(" AB CD\t-12 34 \r\n", Ok("ABCD-1234"));
        check("ＡＢＣＤ－１２３４", Ok("ABCD-1234"));
        check("\u{feff}ABCD\u{200b}1234", Ok("ABCD1234"));
        check("卡密一二", Ok("卡密一二"));
        check("AB\u{0}CD", Err(CodeError::NotText));
        check("AB1", Err(CodeError::Length(3)));
        check(" A ", Err(CodeError::Length(1)));
        check(&"x".repeat(128), Ok(&"x".repeat(128)));
        check(&"x".repeat(129), Err(CodeError::Length(129)));
        check(&"卡".repeat(43), Err(CodeError::Length(129)));
        assert!(matches!(Code::normalise(b"\xff\xfe\xfd\xfc"), Err(CodeError::NotText)));
    }

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
