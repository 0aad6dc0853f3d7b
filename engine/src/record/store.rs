//! Tails of the entries that the engine writes about its store: START, SIGNED_CHECKPOINT, KEY_ROTATE, RESTORE.

/// The clocks at a start of the engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clocks {
    /// Wall clock, milliseconds since 1970.
    pub wall_ms: u64,
    /// Milliseconds since boot.
    pub boot_ms: u64,
    /// Which boot.
    pub boot_id: u128,
}

/// Bytes of the tail of START.
pub const CLOCKS_BYTES: usize = 32;

impl Clocks {
    /// Writes the tail of START.
    pub fn encode(&self, tail: &mut [u8]) {
        tail[0..8].copy_from_slice(&self.wall_ms.to_le_bytes());
        tail[8..16].copy_from_slice(&self.boot_ms.to_le_bytes());
        tail[16..32].copy_from_slice(&self.boot_id.to_le_bytes());
    }
}

/// Bytes of the tail of SIGNED_CHECKPOINT.
pub const SIGNED_CHECKPOINT_BYTES: usize = 136;

/// A checkpoint of the tree over all entries, as the log remembers that it was signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignedCheckpoint {
    /// How many entries of the log it covers.
    pub size: u64,
    /// The root over them.
    pub root: [u8; 32],
    /// The Ed25519 public key.
    pub key: [u8; 32],
    /// The signature of the note.
    pub signature: [u8; 64],
}

impl SignedCheckpoint {
    /// Writes the tail of SIGNED_CHECKPOINT.
    pub fn encode(&self, tail: &mut [u8]) {
        tail[..8].copy_from_slice(&self.size.to_le_bytes());
        tail[8..40].copy_from_slice(&self.root);
        tail[40..72].copy_from_slice(&self.key);
        tail[72..136].copy_from_slice(&self.signature);
    }
}

/// Bytes of the tail of KEY_ROTATE: the new master key's id, and how many data keys it wraps.
pub const KEY_ROTATE_BYTES: usize = 16;

/// Where the history of a restored store parts from the one it was taken from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// The end of what was kept.
    pub kept: u64,
    /// Up to where the backup held the former history.
    pub backup_end: u64,
    /// Effects between the two.
    pub dropped: u64,
    /// Wall clock of the restoring, milliseconds since 1970.
    pub wall_ms: u64,
}

/// Bytes of the tail of RESTORE.
pub const RESTORE_BYTES: usize = 32;

impl Restored {
    /// Writes the tail of RESTORE.
    pub fn encode(&self, tail: &mut [u8]) {
        let numbers = [self.kept, self.backup_end, self.dropped, self.wall_ms];
        for (place, number) in tail.chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
    }
}
