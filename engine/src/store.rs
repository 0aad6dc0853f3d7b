//! The identity of a store: a small file that says what the directory is.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic "KAMISTOR" |
//! | 8 | 4 | version: 1 |
//! | 12 | 4 | reserved, zero |
//! | 16 | 8 | store id |
//! | 24 | 16 | check value of the look-up key |
//! | 40 | 32 | BLAKE3 of all before |

use std::io;

use aws_lc_rs::rand;
use kami_wal::Medium;

use crate::backup;
use crate::vault::replace_file;

pub(crate) const FILE: &str = "store";
/// There while the directory is being restored.
pub(crate) const RESTORING_FILE: &str = "restoring";
const MAGIC: &[u8; 8] = b"KAMISTOR";
const VERSION: u32 = 1;
const BYTES: usize = 72;

/// Who a store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// In every segment, record, batch file and snapshot.
    pub store: u64,
    /// Tells the right keys from others.
    pub key_check: [u8; 16],
}

/// Why a directory is not taken for a store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// It cannot be read or written.
    #[error("the store's identity cannot be read or written: file=`store`")]
    Io(#[from] io::Error),
    /// There are other files but no identity.
    #[error("this directory is no Kami store and is not empty: found=`{found}`")]
    NotAStore {
        /// One of the other files.
        found: String,
    },
    /// It is a backup.
    #[error(
        "this directory is a backup, not a store: restore it with `kami restore`, or look at it with --backup"
    )]
    Backup,
    /// A restore into it was cut short.
    #[error("a restore into this directory is under way or was cut short: remove it and restore again")]
    Restoring,
    /// A later version made it.
    #[error("the store was made by another version of Kami: version=`{version}`")]
    Version {
        /// Its version.
        version: u32,
    },
    /// It is damaged.
    #[error("the store's identity is damaged: restore it from a backup; file=`store`")]
    Damaged,
}

fn exists(medium: &dyn Medium, path: &str) -> io::Result<bool> {
    match medium.open(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether a directory with this in it counts as empty: a lock of ours, and what systems put at the root of a disk.
pub(crate) fn is_of_the_system(name: &str) -> bool {
    name == "LOCK" || name == "lost+found" || name.starts_with('.')
}

impl Identity {
    /// Reads the identity; `None` if the directory is empty and a store may be made in it.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub fn read(medium: &dyn Medium) -> Result<Option<Identity>, IdentityError> {
        if exists(medium, RESTORING_FILE)? {
            return Err(IdentityError::Restoring);
        }
        let file = match medium.open(FILE) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if exists(medium, backup::MANIFEST_FILE)? || exists(medium, backup::IDENTITY_FILE)? {
                    return Err(IdentityError::Backup);
                }
                let mut others = medium.list("log")?;
                others.extend(medium.list("batches")?);
                let known = ["log", "batches", "snapshots", "quarantine"];
                let strange = medium.list("")?.into_iter().filter(|name| !is_of_the_system(name));
                others.extend(strange.filter(|name| !known.contains(&name.as_str())));
                return match others.pop() {
                    None => Ok(None),
                    Some(found) => Err(IdentityError::NotAStore { found }),
                };
            }
            Err(error) => return Err(error.into()),
        };
        if file.len()? != BYTES as u64 {
            return Err(IdentityError::Damaged);
        }
        let mut bytes = [0; BYTES];
        file.read_at(0, &mut bytes)?;
        let version = u32::from_le_bytes(bytes[8..12].try_into().expect("four bytes"));
        if &bytes[..8] == MAGIC && version != VERSION {
            return Err(IdentityError::Version { version });
        }
        let identity = Identity {
            store: u64::from_le_bytes(bytes[16..24].try_into().expect("eight bytes")),
            key_check: bytes[24..40].try_into().expect("sixteen bytes"),
        };
        if identity.encode() == bytes { Ok(Some(identity)) } else { Err(IdentityError::Damaged) }
    }

    /// Makes a new identity, durably.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn create(medium: &dyn Medium, key_check: [u8; 16]) -> io::Result<Identity> {
        let mut id = [0; 8];
        rand::fill(&mut id).map_err(|_| io::Error::other("no randomness"))?;
        let identity = Identity { store: u64::from_le_bytes(id).max(1), key_check };
        replace_file(medium, FILE, &identity.encode())?;
        Ok(identity)
    }

    fn encode(&self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.store.to_le_bytes());
        bytes[24..40].copy_from_slice(&self.key_check);
        let hash = blake3::hash(&bytes[..40]);
        bytes[40..].copy_from_slice(hash.as_bytes());
        bytes
    }
}
