//! The master key and the ring: the batches' data keys, wrapped.
//!
//! The master key wraps the data keys in the *ring*, a file beside it that is replaced as a whole. Rotation wraps the
//! ring anew under a new master key and touches no batch. The ring names the master key it is wrapped with, by an id
//! that follows from the key and gives nothing of it away.
//!
//! ```text
//! master.key  32 bytes     master.key.previous  during a rotation
//! ring        "KAMIRING" | version u32 | count u32 | master key id u64
//!             | count × (key id u64 | nonce 12 | wrapped key 48) | BLAKE3 of all before
//! ```
//! Version 1 of the ring has no master key id.
//!
//! # Rotation
//! Each step is durable before the next:
//! 1. the ring once more, under the present key: from here on it certainly names that one,
//! 2. the present key as `master.key.previous`,
//! 3. the new key as `master.key`,
//! 4. the ring, wrapped anew: **the rotation has happened**,
//! 5. `master.key.previous` is removed.
//!
//! # What a crash leaves
//! At every moment the key that the ring names is one of the two files. Before step 4 that is the previous one: the
//! next start puts it back, and the rotation has not happened.
//!
//! # Reading and copying beside a rotation
//! Whoever reads takes the ring, then `master.key`, then `master.key.previous`, and begins again if no key fits and the
//! ring changed meanwhile. [`copy_keys`] does so and writes what belongs together; files copied one by one may not.
//! A key file that is missing beside a ring is never made anew.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::rand;
use kami_wal::Medium;
use parking_lot::Mutex;
use zeroize::Zeroizing;

use crate::code::LookupKey;
use crate::proof::ProofKey;
use crate::vault::{DataKey, KeyError, TAG_BYTES, replace_file, secret};

const MASTER_FILE: &str = "master.key";
const PREVIOUS_FILE: &str = "master.key.previous";
const RING_FILE: &str = "ring";
const MAGIC: &[u8; 8] = b"KAMIRING";
const VERSION: u32 = 2;
const ENTRY_BYTES: usize = 8 + NONCE_LEN + 32 + TAG_BYTES;

/// A rotation of the master key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyRotation {
    /// The id of the new master key.
    pub key: u64,
    /// Data keys that were wrapped with it.
    pub keys: u64,
}

/// The data keys of a store and the key that wraps them.
pub struct Keyring {
    medium: Arc<dyn Medium>,
    ring: Mutex<Ring>,
    /// Whether a rotation was cut short before it had happened.
    undone: bool,
}

struct Ring {
    master: Master,
    wrapped: HashMap<u64, Wrapped>,
}

#[derive(Clone, Copy)]
struct Wrapped {
    nonce: [u8; NONCE_LEN],
    key: [u8; 32 + TAG_BYTES],
}

struct Master {
    bytes: Zeroizing<[u8; 32]>,
    key: LessSafeKey,
}

/// What a ring file holds.
struct RingFile {
    hash: [u8; 32],
    /// `None` in version 1.
    master: Option<u64>,
    wrapped: HashMap<u64, Wrapped>,
}

impl Master {
    fn new(bytes: Zeroizing<[u8; 32]>) -> Master {
        let key = UnboundKey::new(&AES_256_GCM, &*bytes).expect("the key has the cipher's length");
        Master { bytes, key: LessSafeKey::new(key) }
    }

    fn random() -> io::Result<Master> {
        let mut bytes = Zeroizing::new([0; 32]);
        fill(&mut *bytes)?;
        Ok(Master::new(bytes))
    }

    fn id(&self) -> u64 {
        let hash = blake3::keyed_hash(&self.bytes, b"kami master key id v1");
        u64::from_le_bytes(hash.as_bytes()[..8].try_into().expect("eight bytes"))
    }

    fn wrap(&self, id: u64, plain: &[u8; 32]) -> io::Result<Wrapped> {
        let mut nonce = [0; NONCE_LEN];
        fill(&mut nonce)?;
        let mut key = [0; 32 + TAG_BYTES];
        key[..32].copy_from_slice(plain);
        let (body, tag) = key.split_at_mut(32);
        let made = self
            .key
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(id.to_le_bytes()),
                body,
            )
            .map_err(|_| io::Error::other("wrapping a key failed"))?;
        tag.copy_from_slice(made.as_ref());
        Ok(Wrapped { nonce, key })
    }

    fn unwrap(&self, id: u64, wrapped: &Wrapped) -> Option<Zeroizing<[u8; 32]>> {
        let mut bytes = Zeroizing::new(wrapped.key);
        let nonce = Nonce::assume_unique_for_key(wrapped.nonce);
        let plain = self.key.open_in_place(nonce, Aad::from(id.to_le_bytes()), &mut *bytes).ok()?;
        Some(Zeroizing::new((&*plain).try_into().ok()?))
    }
}

fn fill(bytes: &mut [u8]) -> io::Result<()> {
    rand::fill(bytes).map_err(|_| io::Error::other("no randomness"))
}

impl Keyring {
    /// Opens the ring on `medium` with the key that it is wrapped with, or makes both if `create` says that the
    /// store is new. Changes nothing otherwise.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn open(medium: Arc<dyn Medium>, create: bool) -> Result<Keyring, KeyError> {
        let found = match read_pair(&*medium)? {
            Some(found) => found,
            None if create => {
                let master = Master::new(secret(&*medium, MASTER_FILE, true)?);
                let ring = Ring { master, wrapped: HashMap::new() };
                // A store that was never imported into has a ring too: a missing one is always a loss.
                ring.write(&*medium).map_err(|source| KeyError::Io { file: RING_FILE, source })?;
                Pair { ring, undone: false }
            }
            None => {
                // What is named is what is missed first by whoever has none of them.
                secret(&*medium, MASTER_FILE, false)?;
                return Err(KeyError::Missing { file: RING_FILE });
            }
        };
        Ok(Keyring { medium, ring: Mutex::new(found.ring), undone: found.undone })
    }

    /// Whether there is a ring, be it damaged or not.
    pub fn is_there(medium: &dyn Medium) -> Result<bool, KeyError> {
        match medium.open(RING_FILE) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(KeyError::Io { file: RING_FILE, source }),
        }
    }

    /// See [`Vault::settle`](crate::vault::Vault::settle).
    pub fn settle(&self) -> Result<(), KeyError> {
        let io = |file| move |source| KeyError::Io { file, source };
        if self.undone {
            let ring = self.ring.lock();
            replace_file(&*self.medium, MASTER_FILE, &*ring.master.bytes).map_err(io(MASTER_FILE))?;
            tracing::warn!("a rotation of the master key was cut short before it had happened; rotate again");
        }
        self.remove_previous().map_err(io(PREVIOUS_FILE))
    }

    fn remove_previous(&self) -> io::Result<()> {
        // A process that was killed may have left the new ring's name in the cache alone: were the key
        // before removed ahead of it, a power cut could leave the old ring and no key for it.
        self.medium.sync_dir("")?;
        match self.medium.remove(PREVIOUS_FILE) {
            Ok(()) => self.medium.sync_dir(""),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// See [`Vault::create_key`](crate::vault::Vault::create_key).
    pub fn create_key(&self) -> io::Result<(u64, DataKey)> {
        let mut plain = Zeroizing::new([0; 32]);
        fill(&mut *plain)?;
        let mut id = [0; 8];
        fill(&mut id)?;
        let id = u64::from_le_bytes(id);
        let mut ring = self.ring.lock();
        let wrapped = ring.master.wrap(id, &plain)?;
        ring.wrapped.insert(id, wrapped);
        if let Err(error) = ring.write(&*self.medium) {
            ring.wrapped.remove(&id);
            return Err(error);
        }
        Ok((id, DataKey::new(&plain)))
    }

    /// See [`Vault::drop_key`](crate::vault::Vault::drop_key).
    pub fn drop_key(&self, id: u64) {
        self.ring.lock().wrapped.remove(&id);
    }

    /// See [`Vault::key`](crate::vault::Vault::key).
    pub fn key(&self, id: u64) -> Option<DataKey> {
        let ring = self.ring.lock();
        let plain = ring.master.unwrap(id, ring.wrapped.get(&id)?)?;
        Some(DataKey::new(&plain))
    }

    /// Wraps the ring anew; imports that need a key wait meanwhile.
    ///
    /// # Errors
    /// If a file cannot be written, or a data key does not open. The ring that is on the disk can be read with one of
    /// the keys there, and this process goes on with the old one.
    pub fn rotate(&self) -> io::Result<KeyRotation> {
        let mut ring = self.ring.lock();
        let medium = &*self.medium;
        let master = Master::random()?;
        let mut wrapped = HashMap::with_capacity(ring.wrapped.len());
        for (id, key) in &ring.wrapped {
            let plain = ring
                .master
                .unwrap(*id, key)
                .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a data key does not open"))?;
            wrapped.insert(*id, master.wrap(*id, &plain)?);
        }
        let rotated = Ring { master, wrapped };
        // After an attempt that failed in between it may not be certain which ring is on the disk.
        ring.write(medium)?;
        replace_file(medium, PREVIOUS_FILE, &*ring.master.bytes)?;
        replace_file(medium, MASTER_FILE, &*rotated.master.bytes)?;
        rotated.write(medium)?;
        *ring = rotated;
        if let Err(error) = self.remove_previous() {
            tracing::warn!(%error, "the previous master key cannot be removed; the next start tries again");
        }
        Ok(KeyRotation { key: ring.master.id(), keys: ring.wrapped.len() as u64 })
    }
}

/// Copies the engine's keys from one directory to another, also while the store is being served and a rotation is under
/// way: the copy opens. What is there already is replaced.
///
/// # Errors
/// If a key is missing, does not belong to the others, or cannot be written.
pub fn copy_keys(from: &dyn Medium, to: &dyn Medium) -> Result<(), KeyError> {
    copy(from, to, None).map(drop)
}

/// The same for a history of so many entries that was restored from a backup: see [`RestorePoint`](crate::RestorePoint).
/// The key that checkpoints are signed with is left behind if it signed more than that.
///
/// # Errors
/// As [`copy_keys`].
pub fn copy_keys_for(from: &dyn Medium, to: &dyn Medium, entries: u64) -> Result<ProofKey, KeyError> {
    copy(from, to, Some(entries))
}

fn copy(from: &dyn Medium, to: &dyn Medium, entries: Option<u64>) -> Result<ProofKey, KeyError> {
    let io = |file| move |source| KeyError::Io { file, source };
    let Pair { ring, .. } = read_pair(from)?.ok_or(KeyError::Missing { file: RING_FILE })?;
    // It never changes.
    LookupKey::open(from, false)?.copy(to)?;
    replace_file(to, MASTER_FILE, &*ring.master.bytes).map_err(io(MASTER_FILE))?;
    ring.write(to).map_err(io(RING_FILE))?;
    crate::proof::copy_key(from, to, entries)
}

impl Ring {
    fn write(&self, medium: &dyn Medium) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(56 + self.wrapped.len() * ENTRY_BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&(self.wrapped.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&self.master.id().to_le_bytes());
        for (id, wrapped) in &self.wrapped {
            bytes.extend_from_slice(&id.to_le_bytes());
            bytes.extend_from_slice(&wrapped.nonce);
            bytes.extend_from_slice(&wrapped.key);
        }
        let hash = blake3::hash(&bytes);
        bytes.extend_from_slice(hash.as_bytes());
        replace_file(medium, RING_FILE, &bytes)
    }
}

/// A ring and the key that opens it.
struct Pair {
    ring: Ring,
    /// Whether it is the previous key.
    undone: bool,
}

/// The ring and its key, also while another process rotates it; `None` if there is no ring.
fn read_pair(medium: &dyn Medium) -> Result<Option<Pair>, KeyError> {
    let mut file = match read_ring(medium)? {
        Some(file) => file,
        None => return Ok(None),
    };
    loop {
        let fits = |master: &Master| file.master.is_none_or(|id| id == master.id());
        // A rotation moves the key from the first of these places to the second and takes it away only when the ring
        // names the next. In this order, what is not found was taken away.
        let mut misfit = None;
        for (place, undone) in [(MASTER_FILE, false), (PREVIOUS_FILE, true)] {
            match secret(medium, place, false).map(Master::new) {
                Ok(master) if fits(&master) => {
                    let wrapped = file.wrapped;
                    return Ok(Some(Pair { ring: Ring { master, wrapped }, undone }));
                }
                Ok(_) => misfit = misfit.or(Some(KeyError::Wrong { file: MASTER_FILE })),
                Err(error @ KeyError::Missing { .. }) => misfit = misfit.or(Some(error)),
                Err(error) => return Err(error),
            }
        }
        match read_ring(medium)? {
            Some(now) if now.hash != file.hash => file = now,
            _ => return Err(misfit.expect("no key fits")),
        }
    }
}

/// The ring; `None` if there is none.
fn read_ring(medium: &dyn Medium) -> Result<Option<RingFile>, KeyError> {
    let io = |source| KeyError::Io { file: RING_FILE, source };
    let open = match medium.open(RING_FILE) {
        Ok(open) => open,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error)),
    };
    let mut bytes = vec![0; open.len().map_err(io)? as usize];
    open.read_at(0, &mut bytes).map_err(io)?;
    parse(&bytes).map(Some).ok_or(KeyError::Wrong { file: RING_FILE })
}

fn parse(bytes: &[u8]) -> Option<RingFile> {
    let (body, hash) = bytes.split_last_chunk::<32>()?;
    let number = |at: usize| Some(u32::from_le_bytes(body.get(at..at + 4)?.try_into().ok()?));
    let sane = blake3::hash(body) == blake3::Hash::from_bytes(*hash) && body.starts_with(MAGIC);
    let (master, entries) = match number(8)? {
        1 => (None, body.get(16..)?),
        VERSION => (Some(u64::from_le_bytes(body.get(16..24)?.try_into().ok()?)), &body[24..]),
        _ => return None,
    };
    if !sane || entries.len() != number(12)? as usize * ENTRY_BYTES {
        return None;
    }
    let entry = |bytes: &[u8]| {
        let id = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"));
        let nonce = bytes[8..8 + NONCE_LEN].try_into().expect("a nonce");
        let key = bytes[8 + NONCE_LEN..].try_into().expect("a wrapped key");
        (id, Wrapped { nonce, key })
    };
    Some(RingFile { hash: *hash, master, wrapped: entries.chunks_exact(ENTRY_BYTES).map(entry).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::word::CardRef;
    use kami_wal::{SimMedium, SimMode};

    fn open(medium: &SimMedium, create: bool) -> Keyring {
        Keyring::open(Arc::new(medium.clone()), create).expect("the keys can be read")
    }

    fn sealed(keys: &[(u64, DataKey)]) -> Vec<(u64, [u8; 40])> {
        let seal = |(id, key): &(u64, DataKey)| {
            let mut cell = [7; 40];
            key.seal(CardRef::new(1, *id >> 30), &mut cell);
            (*id, cell)
        };
        keys.iter().map(seal).collect()
    }

    fn opens_all(ring: &Keyring, cells: &[(u64, [u8; 40])]) {
        for (id, cell) in cells {
            let key = ring.key(*id).expect("the data key opens");
            assert!(key.open(CardRef::new(1, *id >> 30), &mut cell.clone()).is_some());
        }
    }

    #[test]
    fn a_rotated_ring_opens_with_the_new_key_alone() {
        let medium = SimMedium::new(1, SimMode::Direct);
        let ring = open(&medium, true);
        let cells = sealed(&(0..3).map(|_| ring.create_key().unwrap()).collect::<Vec<_>>());
        let old = medium.bytes(MASTER_FILE);
        let rotation = ring.rotate().unwrap();
        assert_eq!(rotation.keys, 3);
        opens_all(&ring, &cells);
        assert_ne!(medium.bytes(MASTER_FILE), old);
        assert!(medium.list("").unwrap().iter().all(|name| name != PREVIOUS_FILE));
        let cells = [cells, sealed(&[ring.create_key().unwrap()])].concat();
        opens_all(&open(&medium, false), &cells);
        medium.edit(MASTER_FILE, |bytes| bytes.copy_from_slice(&old));
        let refused = Keyring::open(Arc::new(medium), false);
        assert!(matches!(refused.map(|_| ()), Err(KeyError::Wrong { file: MASTER_FILE })));
    }

    /// The power goes at every operation of a rotation, several ways each, and again while that is put in order.
    #[test]
    fn a_rotation_that_is_cut_short_leaves_keys_that_open() {
        let medium = SimMedium::new(1, SimMode::Direct);
        let ring = open(&medium, true);
        let cells = sealed(&(0..3).map(|_| ring.create_key().unwrap()).collect::<Vec<_>>());
        let old = ring.ring.lock().master.id();
        let mut outcomes = [0, 0];
        for nth in 1.. {
            let mut done = false;
            for seed in 0..20 {
                let medium = medium.crash(seed);
                let ring = open(&medium, false);
                medium.cut_power_at(nth);
                done = ring.rotate().is_ok() && !medium.is_cut();
                let left = medium.crash(seed);
                let ring = open(&left, false);
                opens_all(&ring, &cells);
                let id = ring.ring.lock().master.id();
                outcomes[usize::from(id != old)] += 1;
                // Put in order, and cut short again.
                left.cut_power_at(1 + seed % 7);
                let _ = ring.settle();
                let left = left.crash(seed);
                let ring = open(&left, false);
                opens_all(&ring, &cells);
                ring.settle().unwrap();
                assert_eq!(ring.ring.lock().master.id(), id, "it does not come and go");
                assert!(left.list("").unwrap().iter().all(|name| name != PREVIOUS_FILE));
                opens_all(&open(&left, false), &cells);
                ring.rotate().unwrap();
                opens_all(&open(&left, false), &cells);
            }
            if done {
                assert!(nth > 15, "only {nth} operations");
                break;
            }
        }
        assert!(outcomes.iter().all(|count| *count > 20), "{outcomes:?}");
    }

    /// The process is killed, the next one puts things in order from what the cache has, and then the power fails.
    #[test]
    fn a_rotation_that_was_killed_and_put_in_order_outlives_a_power_cut() {
        let medium = SimMedium::new(1, SimMode::Direct);
        let ring = open(&medium, true);
        let cells = sealed(&[ring.create_key().unwrap()]);
        for nth in 1.. {
            let mut done = false;
            for seed in 0..40 {
                let medium = medium.crash(seed);
                let ring = open(&medium, false);
                medium.cut_power_at(nth);
                done = ring.rotate().is_ok() && !medium.is_cut();
                let killed = medium.kill();
                let ring = open(&killed, false);
                opens_all(&ring, &cells);
                killed.cut_power_at(1 + seed % 4);
                let _ = ring.settle();
                opens_all(&open(&killed.crash(seed), false), &cells);
            }
            if done {
                assert!(nth > 15, "only {nth} operations");
                break;
            }
        }
    }

    /// A key that is missing beside a ring is lost, or elsewhere; a new one in its place would open nothing and hide
    /// that.
    #[test]
    fn no_key_is_made_beside_a_ring() {
        for missing in [MASTER_FILE, "lookup.key"] {
            let medium = SimMedium::new(1, SimMode::Direct);
            let vault = crate::vault::Vault::open(Arc::new(medium.clone()), true).unwrap();
            vault.create_key().unwrap();
            medium.lose(missing);
            let refused = crate::vault::Vault::open(Arc::new(medium.clone()), true).map(|_| ());
            assert!(matches!(refused, Err(KeyError::Missing { file }) if file == missing), "{refused:?}");
            assert!(medium.list("").unwrap().iter().all(|name| name != missing));
        }
    }

    /// A disk on which another process rotates the keys whenever the file numbered `at` is about to be opened.
    struct Beside {
        medium: SimMedium,
        ring: Keyring,
        opened: std::sync::atomic::AtomicU64,
        at: std::ops::Range<u64>,
    }

    impl Medium for Beside {
        fn commit_path(&self) -> kami_wal::CommitPath {
            self.medium.commit_path()
        }

        fn list(&self, dir: &str) -> io::Result<Vec<String>> {
            self.medium.list(dir)
        }

        fn open(&self, path: &str) -> io::Result<Box<dyn kami_wal::File>> {
            let opened = self.opened.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            if self.at.contains(&opened) {
                self.ring.rotate().unwrap();
            }
            self.medium.open(path)
        }
    }

    /// Whoever reads beside a server that rotates, as `kami verify` does, finds keys that open, and so does a copy.
    #[test]
    fn a_reader_beside_rotations_finds_keys_that_open() {
        for from in 0..8 {
            for rotations in 1..4 {
                let medium = SimMedium::new(1, SimMode::Direct);
                crate::vault::Vault::open(Arc::new(medium.clone()), true).unwrap();
                let ring = open(&medium, false);
                let cells = sealed(&(0..3).map(|_| ring.create_key().unwrap()).collect::<Vec<_>>());
                let beside = |medium: SimMedium| {
                    let ring = open(&medium, false);
                    let opened = std::sync::atomic::AtomicU64::new(0);
                    Beside { medium, ring, opened, at: from..from + rotations }
                };
                let reader = Arc::new(beside(medium.kill()));
                opens_all(&Keyring::open(reader, false).expect("keys that belong together"), &cells);
                let copy = SimMedium::new(2, SimMode::Direct);
                copy_keys(&beside(medium.kill()), &copy).unwrap();
                opens_all(&open(&copy, false), &cells);
            }
        }
    }

    /// The same at every step of a rotation.
    #[test]
    fn a_reader_in_the_middle_of_a_rotation_finds_keys_that_open() {
        let medium = SimMedium::new(1, SimMode::Direct);
        crate::vault::Vault::open(Arc::new(medium.clone()), true).unwrap();
        let ring = open(&medium, false);
        let cells = sealed(&(0..3).map(|_| ring.create_key().unwrap()).collect::<Vec<_>>());
        for nth in 1.. {
            let medium = medium.kill();
            let ring = open(&medium, false);
            medium.cut_power_at(nth);
            let done = ring.rotate().is_ok() && !medium.is_cut();
            // Stopped, not cut: what it did so far is seen.
            let medium = medium.kill();
            opens_all(&open(&medium, false), &cells);
            let copy = SimMedium::new(2, SimMode::Direct);
            copy_keys(&medium, &copy).unwrap();
            opens_all(&open(&copy, false), &cells);
            if done {
                break;
            }
        }
    }

    /// A write that fails and a process that goes on: whatever is on the disk opens, then and after another try.
    #[test]
    fn a_rotation_that_fails_leaves_keys_that_open() {
        for nth in 1..10 {
            let medium = SimMedium::new(nth, SimMode::Direct);
            let ring = open(&medium, true);
            let cells = sealed(&[ring.create_key().unwrap()]);
            medium.set_capacity(Some(200 + 30 * nth));
            let failed = ring.rotate().is_err();
            opens_all(&ring, &cells);
            opens_all(&open(&medium, false), &cells);
            medium.set_capacity(None);
            let cells = [cells, sealed(&[ring.create_key().unwrap()])].concat();
            opens_all(&open(&medium, false), &cells);
            ring.rotate().unwrap();
            opens_all(&open(&medium.crash(nth), false), &cells);
            assert!(failed || nth > 3);
        }
    }
}
