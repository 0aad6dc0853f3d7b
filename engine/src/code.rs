//! Codes as they are typed, and the digests by which cards are found.
//!
//! A code is brought into one form, see [`Code::normalise`], and its digest is the first half of keyed BLAKE3 over a
//! message with the tenant and the code in it. The key is the store's [`LookupKey`]; without it a digest says nothing
//! about a code, and nobody can make one.
//!
//! BLAKE3 of a message this short is one compression, a chain of steps that each wait for the one before and leave
//! most of a processor idle. Processors with vector registers work on four, eight or sixteen such chains at once in hardly
//! more time than on one, if all messages have one length. So the message is filled up to a whole block of 64 bytes,
//! and [`LookupKey::digests`] takes codes in groups. The few codes that do not fit into a block are digested alone.
//!
//! The key says which of two forms its digests have; it never changes, and so neither do the digests:
//!
//! | Form | Key file | Message |
//! |---:|---|---|
//! | 1 | 32 bytes | tenant u16, code |
//! | 2 | 32 bytes, then a byte 2 | tenant u16, length of the code u8, code, zeros up to 64 bytes if it is shorter |

use std::io;

use aws_lc_rs::rand;
use blake3::IncrementCounter;
use blake3::platform::Platform;
use kami_wal::Medium;
use unicode_normalization::UnicodeNormalization;
use zeroize::{Zeroize, Zeroizing};

use crate::identity::{CardDigest, PinDigest, TenantId};
use crate::record::MarkKey;
use crate::vault::{KeyError, replace_file};

/// The shortest normalised code, in bytes.
pub const CODE_BYTES_MIN: usize = 4;
/// The longest normalised code, in bytes.
pub const CODE_BYTES_MAX: usize = 128;

/// The file with the look-up key, in the key directory.
pub(crate) const LOOKUP_FILE: &str = "lookup.key";

/// Bytes of BLAKE3's block.
const BLOCK_BYTES: usize = 64;
/// What stands before the code in a message: the tenant and the length.
const PREFIX_BYTES: usize = 3;
/// How many codes the widest vector registers take at a time.
const LANES: usize = 16;

/// The flags of a compression, from the BLAKE3 paper, section 2.2, table 3.
mod flags {
    pub const CHUNK_START: u8 = 1;
    pub const CHUNK_END: u8 = 1 << 1;
    pub const ROOT: u8 = 1 << 3;
    pub const KEYED_HASH: u8 = 1 << 4;
}

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

/// A normalised code, on the stack; wiped when dropped.
pub struct Code {
    /// Room for the tenant and the length, so that digesting copies nothing, then the code, then zeros.
    message: [u8; PREFIX_BYTES + CODE_BYTES_MAX],
    len: u8,
}

impl Drop for Code {
    fn drop(&mut self) {
        self.wipe();
    }
}

impl Code {
    const EMPTY: Code = Code { message: [0; PREFIX_BYTES + CODE_BYTES_MAX], len: 0 };

    /// Brings a code into the one form that counts: Unicode NFKC, without white space, zero-width and
    /// direction marks; case and hyphens stay.
    ///
    /// # Errors
    /// If it is no text, or too short or too long.
    #[inline]
    pub fn normalise(code: &[u8]) -> Result<Code, CodeError> {
        let mut normal = Code::EMPTY;
        normal.set(code)?;
        Ok(normal)
    }

    /// Puts another code in the place of none; after an error there is none.
    #[inline]
    fn set(&mut self, code: &[u8]) -> Result<(), CodeError> {
        debug_assert_eq!(self.len, 0, "the code before was not wiped");
        let set = if is_plain(code) {
            // Most codes are plain ASCII, which is its own normal form.
            self.len = code.len().min(CODE_BYTES_MAX) as u8;
            self.message[PREFIX_BYTES..PREFIX_BYTES + usize::from(self.len)]
                .copy_from_slice(&code[..usize::from(self.len)]);
            Ok(code.len())
        } else {
            self.set_text(code)
        };
        match set {
            Ok(len) if (CODE_BYTES_MIN..=CODE_BYTES_MAX).contains(&len) => Ok(()),
            wrong => {
                self.wipe();
                Err(wrong.map_or_else(|error| error, CodeError::Length))
            }
        }
    }

    /// Puts the characters of a text that count here, as far as they fit. Returns how many bytes they have.
    fn set_text(&mut self, code: &[u8]) -> Result<usize, CodeError> {
        let text = std::str::from_utf8(code).map_err(|_| CodeError::NotText)?;
        let mut len = 0;
        for character in what_counts(text) {
            if character.is_control() {
                return Err(CodeError::NotText);
            }
            let end = len + character.len_utf8();
            if let Some(place) = self.message[PREFIX_BYTES..].get_mut(len..end) {
                character.encode_utf8(place);
                self.len = end as u8;
            }
            len = end;
        }
        Ok(len)
    }

    #[inline]
    fn wipe(&mut self) {
        // What lies behind was never written. Wiping is byte by byte, so wiping all would cost more than
        // hashing.
        self.message[..PREFIX_BYTES + usize::from(self.len)].zeroize();
        self.len = 0;
    }

    /// The normalised bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.message[PREFIX_BYTES..PREFIX_BYTES + usize::from(self.len)]
    }

    /// Completes the message of form 2.
    #[inline]
    fn address(&mut self, tenant: TenantId) {
        self.message[..2].copy_from_slice(&tenant.0.to_le_bytes());
        self.message[2] = self.len;
    }

    /// The block that is the whole message, if the code is short enough; else only its beginning.
    #[inline]
    fn block(&self) -> &[u8; BLOCK_BYTES] {
        self.message.first_chunk().expect("the longest code is longer than a block")
    }

    #[inline]
    fn fits_a_block(&self) -> bool {
        PREFIX_BYTES + usize::from(self.len) <= BLOCK_BYTES
    }
}

/// Whether a code is its own normal form without a look at its length, as almost all are.
#[inline]
fn is_plain(code: &[u8]) -> bool {
    code.iter().all(u8::is_ascii_graphic)
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

/// The secret that makes digests of codes; wiped when dropped.
pub(crate) struct LookupKey {
    bytes: Zeroizing<[u8; 32]>,
    /// The same, as compressions take it.
    words: Zeroizing<[u32; 8]>,
    form: Form,
    /// What this processor can do.
    platform: Platform,
}

/// See the head of this file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Bare,
    Block,
}

impl LookupKey {
    /// Reads the key, or makes a new one if `create` says that there may be none.
    ///
    /// # Errors
    /// If there is none, or the file is no key.
    pub fn open(medium: &dyn Medium, create: bool) -> Result<LookupKey, KeyError> {
        let file = LOOKUP_FILE;
        let io = |source| KeyError::Io { file, source };
        let mut stored = Zeroizing::new([0; 33]);
        let len = match medium.open(file) {
            Ok(open) => {
                let len = open.len().map_err(io)?.min(34) as usize;
                open.read_at(0, stored.get_mut(..len).ok_or(KeyError::Wrong { file })?).map_err(io)?;
                len
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound && create => {
                rand::fill(&mut stored[..32]).map_err(|_| io(io::Error::other("no randomness")))?;
                stored[32] = 2;
                replace_file(medium, file, &*stored).map_err(io)?;
                33
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(KeyError::Missing { file }),
            Err(error) => return Err(io(error)),
        };
        let form = match (len, stored[32]) {
            (32, _) => Form::Bare,
            (33, 2) => Form::Block,
            _ => return Err(KeyError::Wrong { file }),
        };
        let (mut bytes, mut words) = (Zeroizing::new([0; 32]), Zeroizing::new([0; 8]));
        bytes.copy_from_slice(&stored[..32]);
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        Ok(LookupKey { bytes, words, form, platform: Platform::detect() })
    }

    /// Writes the same key elsewhere.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn copy(&self, to: &dyn Medium) -> Result<(), KeyError> {
        let mut stored = Zeroizing::new([2; 33]);
        stored[..32].copy_from_slice(&*self.bytes);
        let len = if self.form == Form::Bare { 32 } else { 33 };
        replace_file(to, LOOKUP_FILE, &stored[..len])
            .map_err(|source| KeyError::Io { file: LOOKUP_FILE, source })
    }

    /// A value that tells this key from others without giving anything away; kept with the store.
    pub fn check_value(&self) -> [u8; 16] {
        let text: &[u8] = match self.form {
            Form::Bare => b"kami store key check v1",
            Form::Block => b"kami store key check v2",
        };
        first_half(blake3::keyed_hash(&self.bytes, text).as_bytes())
    }

    /// The key that request ids are hashed with where nobody may foresee the hashes.
    pub fn mark_key(&self) -> MarkKey {
        MarkKey(*blake3::keyed_hash(&self.bytes, b"kami trail marks v1").as_bytes())
    }

    /// The digest of a normalised code of a tenant.
    #[inline]
    pub fn digest(&self, tenant: TenantId, code: &mut Code) -> CardDigest {
        code.address(tenant);
        let end = PREFIX_BYTES + usize::from(code.len);
        let hash = match self.form {
            Form::Block => blake3::keyed_hash(&self.bytes, &code.message[..end.max(BLOCK_BYTES)]),
            Form::Bare => {
                // The tenant takes the place of the length, so that it stands right before the code.
                code.message[1..PREFIX_BYTES].copy_from_slice(&tenant.0.to_le_bytes());
                blake3::keyed_hash(&self.bytes, &code.message[1..end])
            }
        };
        indexable(first_half(hash.as_bytes()))
    }

    /// The digests of many codes of a tenant, in their order: the same as one by one, in a fraction of the time.
    pub fn digests<'c>(
        &self,
        tenant: TenantId,
        codes: impl IntoIterator<Item = &'c mut Code>,
        mut each: impl FnMut(CardDigest),
    ) {
        let mut codes = codes.into_iter();
        if self.form == Form::Bare {
            return codes.for_each(|code| each(self.digest(tenant, code)));
        }
        let nothing = [0; BLOCK_BYTES];
        loop {
            let mut group: [Option<&mut Code>; LANES] = std::array::from_fn(|_| codes.next());
            let count = group.iter().flatten().count();
            if count == 0 {
                return;
            }
            let mut hashes = [0; LANES * 32];
            let mut blocks = [&nothing; LANES];
            for (block, code) in blocks.iter_mut().zip(group.iter_mut().flatten()) {
                code.address(tenant);
                *block = code.block();
            }
            // A message of one block is a chunk of one block, which is the root of its tree.
            self.platform.hash_many(
                &blocks[..count],
                &self.words,
                0,
                IncrementCounter::No,
                flags::KEYED_HASH,
                flags::CHUNK_START,
                flags::CHUNK_END | flags::ROOT,
                &mut hashes,
            );
            for (code, hash) in group.iter_mut().flatten().zip(hashes.as_chunks::<32>().0) {
                each(if code.fits_a_block() {
                    indexable(first_half(hash))
                } else {
                    self.digest(tenant, code)
                });
            }
        }
    }

    /// The digest of a card's PIN, which is brought into the same form as a code first: what a supplier's
    /// file has in full-width digits is typed in plain ones. What is no text counts as it is.
    pub fn pin_digest(&self, card: CardDigest, pin: &[u8]) -> PinDigest {
        let mut hasher = blake3::Hasher::new_keyed(&self.bytes);
        hasher.update(b"kami pin v1").update(&card.0.to_le_bytes());
        match std::str::from_utf8(pin) {
            Ok(text) if !is_plain(pin) => {
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
        PinDigest(first_half(hasher.finalize().as_bytes()))
    }
}

#[inline]
fn first_half(hash: &[u8; 32]) -> [u8; 16] {
    hash[..16].try_into().expect("sixteen bytes")
}

/// The index marks an empty slot by a zero high half.
#[inline]
fn indexable(bytes: [u8; 16]) -> CardDigest {
    let digest = u128::from_le_bytes(bytes);
    CardDigest(if digest >> 64 == 0 { digest | 1 << 64 } else { digest })
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
    let lookup = LookupKey::open(keys, false)?;
    Ok(Code::normalise(code).map(|mut code| lookup.digest(tenant, &mut code)))
}

/// Up to [`CodeGroup::CODES_MAX`] codes whose digests are taken together by
/// [`Engine::digest_group`](crate::Engine::digest_group), which costs a fraction of taking each alone. The codes are
/// wiped when they were taken, when the group is cleared and when it is dropped.
pub struct CodeGroup {
    codes: Box<[Code; LANES]>,
    digests: [CardDigest; LANES],
    /// How many codes there are.
    len: usize,
    /// How many of them have digests.
    digested: usize,
    /// How many were taken or passed over.
    taken: usize,
}

impl Default for CodeGroup {
    fn default() -> CodeGroup {
        CodeGroup {
            codes: Box::new([const { Code::EMPTY }; LANES]),
            digests: [CardDigest(0); LANES],
            len: 0,
            digested: 0,
            taken: 0,
        }
    }
}

impl CodeGroup {
    /// How many codes fit.
    pub const CODES_MAX: usize = LANES;

    /// Wipes all.
    #[inline]
    pub fn clear(&mut self) {
        self.codes[self.taken..self.len].iter_mut().for_each(Code::wipe);
        (self.len, self.digested, self.taken) = (0, 0, 0);
    }

    /// Normalises a code and puts it behind those that are there; one that cannot be a code is left out.
    ///
    /// # Errors
    /// See [`Code::normalise`].
    ///
    /// # Panics
    /// If the group is full.
    #[inline]
    pub fn push(&mut self, code: &[u8]) -> Result<(), CodeError> {
        self.codes[self.len].set(code)?;
        self.len += 1;
        Ok(())
    }

    /// How many codes there are.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether no more fit.
    #[must_use]
    #[inline]
    pub fn is_full(&self) -> bool {
        self.len == LANES
    }

    /// Whether all were taken.
    #[must_use]
    #[inline]
    pub fn is_spent(&self) -> bool {
        self.taken == self.len
    }

    /// The digests of the codes in the order they came in, once they were made.
    #[must_use]
    #[inline]
    pub fn digests(&self) -> &[CardDigest] {
        &self.digests[..self.digested]
    }

    /// The digest of this very code, if it is here in these bytes; those before it are passed over.
    #[inline]
    pub fn take(&mut self, code: &[u8]) -> Option<CardDigest> {
        let here = self.codes[self.taken..self.digested].iter().position(|ahead| ahead.as_bytes() == code)?;
        let at = self.taken + here;
        self.codes[self.taken..=at].iter_mut().for_each(Code::wipe);
        self.taken = at + 1;
        Some(self.digests[at])
    }

    pub(crate) fn digest(&mut self, tenant: TenantId, lookup: &LookupKey) {
        let CodeGroup { codes, digests, len, digested, taken } = self;
        *digested = *taken;
        lookup.digests(tenant, &mut codes[*taken..*len], |digest| {
            digests[*digested] = digest;
            *digested += 1;
        });
    }
}

#[cfg(test)]
mod tests {
    use kami_wal::{SimMedium, SimMode};
    use proptest::prelude::*;

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

    /// A key of each form.
    fn keys() -> [LookupKey; 2] {
        [&[7; 32][..], &[[7; 32].as_slice(), &[2]].concat()].map(|stored| {
            let medium = SimMedium::new(1, SimMode::Direct);
            replace_file(&medium, LOOKUP_FILE, stored).unwrap();
            LookupKey::open(&medium, false).unwrap()
        })
    }

    /// What other tools can compute, and what may never change: stores are found by it.
    #[test]
    fn digests_are_what_the_head_of_this_file_says() {
        let [bare, block] = keys();
        for code in ["ABCD-1234", &"x".repeat(61), &"x".repeat(62), &"x".repeat(128), "卡密一二"] {
            let (mut message, mut first) = (vec![5, 1, code.len() as u8], vec![5, 1]);
            message.extend_from_slice(code.as_bytes());
            message.resize(message.len().max(64), 0);
            first.extend_from_slice(code.as_bytes());
            for (key, message) in [(&block, message), (&bare, first)] {
                let digest = key.digest(TenantId(0x105), &mut Code::normalise(code.as_bytes()).unwrap());
                let hash = blake3::keyed_hash(&[7; 32], &message);
                assert_eq!(digest.0.to_le_bytes(), hash.as_bytes()[..16], "{code:?}");
            }
        }
        let pinned = block.digest(TenantId(0), &mut Code::normalise(b"K7Q2M9X4T1B8R5W3").unwrap());
        assert_eq!(pinned.0, 302_792_475_833_321_934_057_756_668_217_895_344_211);
    }

    #[test]
    fn a_key_file_is_one_of_two_forms_and_is_copied_as_it_is() {
        for (stored, good) in [
            (vec![7; 32], true),
            ([vec![7; 32], vec![2]].concat(), true),
            ([vec![7; 32], vec![3]].concat(), false),
            (vec![7; 31], false),
            (vec![7; 34], false),
            (vec![], false),
        ] {
            let (medium, copy) = (SimMedium::new(1, SimMode::Direct), SimMedium::new(2, SimMode::Direct));
            replace_file(&medium, LOOKUP_FILE, &stored).unwrap();
            match LookupKey::open(&medium, true) {
                Ok(key) => {
                    assert!(good, "{stored:?}");
                    key.copy(&copy).unwrap();
                    let file = copy.open(LOOKUP_FILE).unwrap();
                    let mut bytes = vec![0; file.len().unwrap() as usize];
                    file.read_at(0, &mut bytes).unwrap();
                    assert_eq!(bytes, stored);
                }
                Err(KeyError::Wrong { file: LOOKUP_FILE }) => assert!(!good, "{stored:?}"),
                Err(error) => panic!("{error}"),
            }
        }
        let [bare, block] = keys().map(|key| key.check_value());
        assert_ne!(bare, block, "a store tells one form from the other");
    }

    proptest! {
        /// Of any codes in any number, on whatever registers this processor has.
        #[test]
        fn a_group_has_the_digests_that_its_codes_have_alone(
            codes in proptest::collection::vec("[!-~]{4,128}|[卡密 a-z]{8,20}", 0..40), tenant: u16,
        ) {
            let tenant = TenantId(tenant);
            for key in keys() {
                let normal = |code: &String| Code::normalise(code.as_bytes());
                let mut group: Vec<_> = codes.iter().filter_map(|code| normal(code).ok()).collect();
                let mut together = Vec::new();
                key.digests(tenant, &mut group, |digest| together.push(digest));
                let alone: Vec<_> = group.iter_mut().map(|code| key.digest(tenant, code)).collect();
                prop_assert_eq!(together, alone);
            }
        }

        /// However codes are put in, asked for, passed over and asked for that are not there: what is given out is the
        /// digest of what was asked for.
        #[test]
        fn what_a_group_gives_out_is_of_the_code_that_was_asked_for(
            rounds in proptest::collection::vec(proptest::collection::vec((0..12u8, 0..12u8), 0..16), 1..4),
        ) {
            let [_, key] = keys();
            let code = |n: u8| format!("CODE-{n}");
            let mut group = CodeGroup::default();
            for round in rounds {
                group.clear();
                for (put, _) in &round {
                    group.push(code(*put).as_bytes()).unwrap();
                }
                group.digest(TenantId(3), &key);
                for (_, asked) in &round {
                    let asked = code(*asked);
                    if let Some(digest) = group.take(asked.as_bytes()) {
                        let alone = key.digest(TenantId(3), &mut Code::normalise(asked.as_bytes()).unwrap());
                        prop_assert_eq!(digest, alone);
                    }
                }
            }
        }
    }

    #[test]
    fn a_group_gives_out_all_in_their_order_and_keeps_no_code() {
        let [_, key] = keys();
        let mut group = CodeGroup::default();
        for n in 0..CodeGroup::CODES_MAX {
            group.push(format!("CODE-{n}").as_bytes()).unwrap();
        }
        assert!(group.is_full());
        assert_eq!(group.take(b"CODE-0"), None, "it has no digest yet");
        group.digest(TenantId(0), &key);
        for n in 0..CodeGroup::CODES_MAX {
            assert_eq!(group.take(format!("CODE-{n}").as_bytes()), Some(group.digests()[n]));
        }
        assert!(group.is_spent());
        assert!(group.codes.iter().all(|code| code.message == Code::EMPTY.message));
        group.clear();
        assert_eq!(group.push(b"AB"), Err(CodeError::Length(2)));
        group.push("ＡＢＣＤ".as_bytes()).unwrap();
        assert!(group.codes[0].as_bytes() == b"ABCD" && group.len == 1);
        group.clear();
        assert!(group.codes.iter().all(|code| code.message == Code::EMPTY.message));
    }
}
