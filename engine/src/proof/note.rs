//! Signed checkpoints: the tree's size and root as a C2SP signed note (`c2sp.org/tlog-checkpoint`,
//! `c2sp.org/signed-note`), signed with Ed25519.
//!
//! ```text
//! kami/5b0e8c3a90d1f277-9c41d2e0                    the origin: which log, signed by which key
//! 20852163                                          leaves
//! CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=      root
//!
//! — kami/5b0e8c3a90d1f277-9c41d2e0 Az3grlgtzPICa5…  4 bytes of key id, 64 of signature
//! ```
//! The origin names the store and the signing key, so a log that must part from what was signed before (see
//! `prover.rs`) is another log to everyone who verifies.
//!
//! A note may carry signatures of others (witnesses); they are kept and not looked at.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::ProofError;
use super::merkle::Hash;

/// The signature type of plain Ed25519 in signed notes.
const ED25519_TYPE: u8 = 1;
/// Bytes of an Ed25519 public key.
pub const PUBLIC_KEY_BYTES: usize = 32;
/// Bytes of an Ed25519 signature.
pub const SIGNATURE_BYTES: usize = 64;
/// A note is no longer: the specification's 16 signatures of any kind fit.
const NOTE_BYTES_MAX: usize = 128 << 10;

/// Encodes as notes and proofs do: standard base64 with padding.
pub(super) fn encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Decodes base64 in its one canonical form; `None` for any other.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok().filter(|bytes| encode(bytes) == text)
}

/// Decodes one hash.
pub(super) fn decode_hash(text: &str) -> Option<Hash> {
    decode(text)?.try_into().ok()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a verifier trusts: a log's name and public key, in the form that the operator publishes,
/// `name+hex key id+base64 key`.
#[derive(Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    key: [u8; PUBLIC_KEY_BYTES],
}

impl VerifierKey {
    /// The key of the log of `store` that `key` signs.
    pub(super) fn of_store(store: u64, key: [u8; PUBLIC_KEY_BYTES]) -> VerifierKey {
        let print = hex(&digest(&SHA256, &key).as_ref()[..4]);
        VerifierKey { name: format!("kami/{store:016x}-{print}"), key }
    }

    /// The log's name, which is the origin of its checkpoints.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The public key.
    #[must_use]
    pub const fn public_key(&self) -> &[u8; PUBLIC_KEY_BYTES] {
        &self.key
    }

    /// The first four bytes of SHA-256 over name, line feed, signature type and key.
    fn id(&self) -> [u8; 4] {
        let typed = [self.name.as_bytes(), b"\n", &[ED25519_TYPE], &self.key].concat();
        digest(&SHA256, &typed).as_ref()[..4].try_into().expect("four bytes")
    }

    pub(super) fn verifies(&self, text: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.key).verify(text, signature).is_ok()
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let typed = [&[ED25519_TYPE], &self.key[..]].concat();
        write!(f, "{}+{}+{}", self.name, hex(&self.id()), encode(&typed))
    }
}

impl fmt::Debug for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for VerifierKey {
    type Err = ProofError;

    fn from_str(text: &str) -> Result<VerifierKey, ProofError> {
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(_), Some(typed)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(ProofError::Key);
        };
        let key = decode(typed)
            .and_then(|typed| typed.split_first().map(|(kind, key)| (*kind, key.to_vec())))
            .filter(|(kind, _)| *kind == ED25519_TYPE)
            .and_then(|(_, key)| key.try_into().ok());
        let key = VerifierKey { name: name.to_owned(), key: key.ok_or(ProofError::Key)? };
        // The id in the middle, and everything else, must be as it would be written.
        if is_name(name) && key.to_string() == text { Ok(key) } else { Err(ProofError::Key) }
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.chars().any(|character| character.is_whitespace() || character.is_control())
}

/// The key that a store's checkpoints are signed with.
pub(super) struct SigningKey {
    pair: Ed25519KeyPair,
    verifier: VerifierKey,
}

impl SigningKey {
    /// The key with this seed, for the log of `store`.
    pub(super) fn new(store: u64, seed: &[u8; 32]) -> SigningKey {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).expect("any 32 bytes are a seed");
        let key = pair.public_key().as_ref().try_into().expect("the key has its length");
        SigningKey { pair, verifier: VerifierKey::of_store(store, key) }
    }

    pub(super) const fn verifier(&self) -> &VerifierKey {
        &self.verifier
    }

    /// Signs a tree's size and root. The same again is the same to the byte.
    pub(super) fn sign(&self, size: u64, root: Hash) -> Checkpoint {
        let text = checkpoint_text(&self.verifier.name, size, &root);
        let signature = self.pair.sign(text.as_bytes());
        let signature: [u8; SIGNATURE_BYTES] = signature.as_ref().try_into().expect("it has its length");
        Checkpoint::signed(&self.verifier, size, root, &signature)
    }
}

fn checkpoint_text(origin: &str, size: u64, root: &Hash) -> String {
    format!("{origin}\n{size}\n{}\n", encode(root))
}

/// A checkpoint: how many leaves a log had, and their root, in the words that were signed. Only
/// [`Checkpoint::verify`] says whether they were.
#[derive(Clone, PartialEq, Eq)]
pub struct Checkpoint {
    size: u64,
    root: Hash,
    origin: String,
    /// The whole note.
    note: String,
    /// Bytes of its text.
    text_bytes: usize,
}

impl Checkpoint {
    /// The checkpoint with a signature that was made before.
    pub(super) fn signed(
        key: &VerifierKey,
        size: u64,
        root: Hash,
        signature: &[u8; SIGNATURE_BYTES],
    ) -> Checkpoint {
        let text = checkpoint_text(&key.name, size, &root);
        let line = encode(&[&key.id()[..], signature].concat());
        let note = format!("{text}\n— {} {line}\n", key.name);
        Checkpoint { size, root, origin: key.name.clone(), note, text_bytes: text.len() }
    }

    /// Reads a note whose text has the three lines of a checkpoint, and no other.
    ///
    /// # Errors
    /// [`ProofError::Malformed`].
    pub fn parse(note: &str) -> Result<Checkpoint, ProofError> {
        match Checkpoint::parse_first(note) {
            Ok((checkpoint, "")) => Ok(checkpoint),
            Ok(_) => Err(ProofError::Malformed { what: "lines behind the checkpoint" }),
            Err(error) => Err(error),
        }
    }

    /// The same for the beginning of `text`; returns what follows, too.
    pub(super) fn parse_first(text: &str) -> Result<(Checkpoint, &str), ProofError> {
        let malformed = |what| ProofError::Malformed { what };
        let mut lines = Lines { rest: text };
        let origin = lines.next().filter(|line| is_name(line)).ok_or(malformed("the checkpoint's origin"))?;
        let size = lines.next().and_then(number).ok_or(malformed("the checkpoint's size"))?;
        let root = lines.next().and_then(decode_hash).ok_or(malformed("the checkpoint's root"))?;
        let text_bytes = text.len() - lines.rest.len();
        if lines.next() != Some("") {
            return Err(malformed("the end of the checkpoint's text"));
        }
        let mut signatures = 0;
        while lines.rest.starts_with(SIGNATURE_MARK) {
            let line = lines.next().ok_or(malformed("a signature line"))?;
            parse_signature(line).ok_or(malformed("a signature line"))?;
            signatures += 1;
        }
        if signatures == 0 {
            return Err(malformed("a signature line"));
        }
        let note = &text[..text.len() - lines.rest.len()];
        if NOTE_BYTES_MAX < note.len() {
            return Err(malformed("the checkpoint's length"));
        }
        let checkpoint =
            Checkpoint { size, root, origin: origin.to_owned(), note: note.to_owned(), text_bytes };
        Ok((checkpoint, lines.rest))
    }

    /// How many leaves.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Their root.
    #[must_use]
    pub const fn root(&self) -> &Hash {
        &self.root
    }

    /// The log's name.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The note as it is passed on.
    #[must_use]
    pub fn note(&self) -> &str {
        &self.note
    }

    /// Whether the log with this key signed it.
    ///
    /// # Errors
    /// [`ProofError::Origin`] for another log's; [`ProofError::Signature`] if no signature is that key's, or one that
    /// claims to be is not.
    pub fn verify(&self, key: &VerifierKey) -> Result<(), ProofError> {
        if self.origin != key.name {
            return Err(ProofError::Origin { found: self.origin.clone() });
        }
        self.signature_of(key).map(|_| ())
    }

    /// The signature of `key`, checked.
    pub(super) fn signature_of(&self, key: &VerifierKey) -> Result<[u8; SIGNATURE_BYTES], ProofError> {
        let (text, rest) = self.note.split_at(self.text_bytes);
        let mut signed = None;
        for line in rest.lines().skip(1) {
            let (name, bytes) = parse_signature(line).ok_or(ProofError::Signature)?;
            let Some((id, signature)) = bytes.split_first_chunk::<4>() else { continue };
            if name == key.name && *id == key.id() {
                if !key.verifies(text.as_bytes(), signature) {
                    return Err(ProofError::Signature);
                }
                signed = signature.try_into().ok();
            }
        }
        signed.ok_or(ProofError::Signature)
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.note)
    }
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.note)
    }
}

const SIGNATURE_MARK: &str = "— ";

/// Key name and the bytes behind it.
fn parse_signature(line: &str) -> Option<(&str, Vec<u8>)> {
    let (name, bytes) = line.strip_prefix(SIGNATURE_MARK)?.split_once(' ')?;
    is_name(name).then_some((name, decode(bytes)?)).filter(|(_, bytes)| 4 < bytes.len())
}

/// A decimal number in its one form.
pub(super) fn number(text: &str) -> Option<u64> {
    text.parse().ok().filter(|number: &u64| number.to_string() == text)
}

/// Lines that each end with a line feed.
pub(super) struct Lines<'a> {
    pub(super) rest: &'a str,
}

impl<'a> Iterator for Lines<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let (line, rest) = self.rest.split_once('\n')?;
        self.rest = rest;
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of c2sp.org/signed-note and the key of its author's other notes are not ours to check; the
    /// well-known note of Go's `sumdb/note` package is.
    #[test]
    fn a_well_known_verifier_key_is_read_and_written() {
        let text = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
        let key: VerifierKey = text.parse().unwrap();
        assert_eq!((key.name(), key.to_string().as_str()), ("PeterNeumann", text));
        let signed = "If you think cryptography is the answer to your problem,\n\
                      then you don't know what your problem is.\n";
        let line =
            "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=";
        let bytes = decode(line).unwrap();
        assert_eq!(bytes[..4], key.id());
        assert!(key.verifies(signed.as_bytes(), &bytes[4..]));
        assert!(!key.verifies(&signed.as_bytes()[1..], &bytes[4..]));
    }

    #[test]
    fn a_checkpoint_is_signed_read_and_verified() {
        let key = SigningKey::new(0x5b0e_8c3a_90d1_f277, &[7; 32]);
        let checkpoint = key.sign(20_852_163, [0xab; 32]);
        assert_eq!(key.sign(20_852_163, [0xab; 32]), checkpoint, "signing is deterministic");
        let read = Checkpoint::parse(checkpoint.note()).unwrap();
        assert_eq!(read, checkpoint);
        read.verify(key.verifier()).unwrap();
        let again: VerifierKey = key.verifier().to_string().parse().unwrap();
        read.verify(&again).unwrap();

        let other = SigningKey::new(0x5b0e_8c3a_90d1_f277, &[8; 32]);
        assert!(matches!(read.verify(other.verifier()), Err(ProofError::Origin { .. })));
        let same_name = VerifierKey { name: key.verifier().name.clone(), key: other.verifier().key };
        assert!(matches!(read.verify(&same_name), Err(ProofError::Signature)));
    }

    #[test]
    fn witnesses_may_sign_too_and_no_other_byte_may_change() {
        let key = SigningKey::new(1, &[7; 32]);
        let note = key.sign(9, [3; 32]).note().to_owned();
        let witnessed = format!("{note}— witness.example/a {}\n", encode(&[9; 72]));
        Checkpoint::parse(&witnessed).unwrap().verify(key.verifier()).unwrap();
        for at in 0..note.len() {
            for bit in 0..8 {
                let mut bytes = note.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                let taken = String::from_utf8(bytes)
                    .ok()
                    .and_then(|note| Checkpoint::parse(&note).ok())
                    .is_some_and(|checkpoint| checkpoint.verify(key.verifier()).is_ok());
                assert!(!taken, "byte {at}, bit {bit}");
            }
        }
    }
}
