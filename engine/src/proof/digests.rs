//! That a card's keyed digest stands in a certain row of a batch.
//!
//! The IMPORT entry of a batch holds `cards_hash`, the BLAKE3 hash of its digests in row order. BLAKE3 is a tree over
//! chunks of 1024 bytes, 64 digests each; so the chunk that holds a card's digest, and the hashes beside the way from
//! it to the root, prove digest and row, without the other rows. The 63 neighbours in the chunk are shown, too; a
//! digest says nothing without the look-up key.

use std::io;

use blake3::hazmat::{
    ChainingValue, HasherExt, Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root,
};

use super::merkle::{Hash, PATH_MAX};
use crate::batch::{BatchFile, DIGEST_BYTES};
use crate::identity::CardDigest;

const CHUNK_BYTES: u64 = blake3::CHUNK_LEN as u64;
const ROW_BYTES: u64 = DIGEST_BYTES as u64;
/// Rows hashed at a time.
const ROWS: u64 = 1 << 16;

/// The digests around a row, and the way from there to the hash over all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DigestProof {
    /// Up to 64 digests, the one that is meant among them.
    pub chunk: Vec<u8>,
    /// The hashes beside the way, from the chunk up.
    pub path: Vec<Hash>,
}

/// A stretch of the digest column: a subtree of its hash.
#[derive(Clone, Copy)]
struct Stretch {
    from: u64,
    bytes: u64,
}

impl Stretch {
    /// The two halves of a stretch that is longer than a chunk, the one that holds byte `at` first, and whether that
    /// is the left one.
    fn halves(self, at: u64) -> (Stretch, Stretch, bool) {
        let left = Stretch { from: self.from, bytes: left_subtree_len(self.bytes) };
        let right = Stretch { from: self.from + left.bytes, bytes: self.bytes - left.bytes };
        if at < right.from { (left, right, true) } else { (right, left, false) }
    }
}

impl DigestProof {
    /// Reads the proof for `row` from a batch file: all digests once, 16 bytes a card.
    ///
    /// # Errors
    /// What the device reports.
    ///
    /// # Panics
    /// If the batch has no such row.
    pub fn read(file: &BatchFile, row: u64) -> io::Result<DigestProof> {
        assert!(row < file.layout.rows, "the batch has no such row");
        let at = row * ROW_BYTES;
        let mut stretch = Stretch { from: 0, bytes: file.layout.rows * ROW_BYTES };
        let mut path = Vec::new();
        let mut buffer = Vec::new();
        while CHUNK_BYTES < stretch.bytes {
            let (ours, other, _) = stretch.halves(at);
            path.push(hash_of(file, other, &mut buffer)?);
            stretch = ours;
        }
        path.reverse();
        file.read(0, stretch.from / ROW_BYTES, (stretch.bytes / ROW_BYTES) as usize, &mut buffer)?;
        Ok(DigestProof { chunk: buffer, path })
    }

    /// The digest of `row`, if these are the digests around it in a column of `rows` rows that hashes to
    /// `cards_hash`.
    #[must_use]
    pub fn verify(&self, rows: u64, row: u64, cards_hash: &Hash) -> Option<CardDigest> {
        let all = rows.checked_mul(ROW_BYTES)?;
        if rows <= row || PATH_MAX < self.path.len() {
            return None;
        }
        let at = row * ROW_BYTES;
        // From the root down, to know the shape; then back up, to hash.
        let mut stretch = Stretch { from: 0, bytes: all };
        let mut is_left = Vec::new();
        while CHUNK_BYTES < stretch.bytes {
            let (ours, _, left) = stretch.halves(at);
            is_left.push(left);
            stretch = ours;
        }
        if self.chunk.len() as u64 != stretch.bytes || self.path.len() != is_left.len() {
            return None;
        }
        let root = if let Some((top, below)) = self.path.split_last() {
            let mut hasher = blake3::Hasher::new();
            hasher.set_input_offset(stretch.from).update(&self.chunk);
            let chunk: ChainingValue = hasher.finalize_non_root();
            let sides = is_left.iter().rev();
            let ours = below.iter().zip(sides).fold(chunk, |ours, (other, left)| {
                let (left, right) = if *left { (&ours, other) } else { (other, &ours) };
                merge_subtrees_non_root(left, right, Mode::Hash)
            });
            let (left, right) = if is_left[0] { (&ours, top) } else { (top, &ours) };
            merge_subtrees_root(left, right, Mode::Hash)
        } else {
            blake3::hash(&self.chunk)
        };
        if root.as_bytes() != cards_hash {
            return None;
        }
        let place = (at - stretch.from) as usize;
        let digest = self.chunk[place..place + DIGEST_BYTES].try_into().expect("sixteen bytes");
        Some(CardDigest(u128::from_le_bytes(digest)))
    }
}

/// The hash of a subtree that is not the whole.
fn hash_of(file: &BatchFile, stretch: Stretch, buffer: &mut Vec<u8>) -> io::Result<Hash> {
    let mut hasher = blake3::Hasher::new();
    hasher.set_input_offset(stretch.from);
    let (mut row, end) = (stretch.from / ROW_BYTES, (stretch.from + stretch.bytes) / ROW_BYTES);
    while row < end {
        let rows = ROWS.min(end - row);
        file.read(0, row, rows as usize, buffer)?;
        hasher.update(buffer);
        row += rows;
    }
    Ok(hasher.finalize_non_root())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Layout;
    use crate::identity::ProductId;
    use crate::import::ImportSpec;
    use kami_wal::{Medium, SimMedium, SimMode};

    #[test]
    fn every_row_is_proven_in_its_place_alone() {
        for rows in [1, 2, 63, 64, 65, 128, 129, 300, 64 * 7 + 1] {
            let medium = SimMedium::new(1, SimMode::Direct);
            let spec = ImportSpec::of(ProductId(1), rows, 8);
            let layout = Layout::new(1, 1, 1, &spec);
            medium.create_dir(crate::batch::DIRECTORY).unwrap();
            let file = medium.create(&Layout::path(1)).unwrap();
            let digests: Vec<u8> =
                (0..rows).flat_map(|row| (u128::from(row) << 64 | 7).to_le_bytes()).collect();
            file.write_at(layout.file_bytes() - 1, &[0]).unwrap();
            file.write_at(0, &layout.header()).unwrap();
            file.write_at(crate::batch::HEADER_BYTES, &digests).unwrap();
            let file = BatchFile::open(&medium, 1, 1).unwrap();
            let cards_hash = *blake3::hash(&digests).as_bytes();
            for row in 0..rows {
                let proof = DigestProof::read(&file, row).unwrap();
                let digest = CardDigest(u128::from(row) << 64 | 7);
                assert_eq!(proof.verify(rows, row, &cards_hash), Some(digest), "{row} of {rows}");
                assert_ne!(proof.verify(rows, (row + 1) % (rows + 1), &cards_hash), Some(digest));
                assert_eq!(proof.verify(rows, row, &[0; 32]), None);
                if row % 61 == 0 {
                    for byte in 0..proof.chunk.len() {
                        let mut wrong = proof.clone();
                        wrong.chunk[byte] ^= 1;
                        assert_eq!(wrong.verify(rows, row, &cards_hash), None);
                    }
                    for at in 0..proof.path.len() {
                        let mut wrong = proof.clone();
                        wrong.path[at][0] ^= 0x80;
                        assert_eq!(wrong.verify(rows, row, &cards_hash), None);
                    }
                }
            }
        }
    }
}
