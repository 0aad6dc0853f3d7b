//! The inner hashes of the tree, kept so that a proof need not read the log again.
//!
//! A *tile* is 256 leaves. Of each complete tile the file `proofs/tiles` holds where its first entry stands and its
//! hash: 48 bytes for some twenty kilobytes of log. Above that, the hashes of 256 tiles each are held in memory. A proof
//! then reads the leaves of one or two tiles from the log, and a few rows here.
//!
//! **The file follows from the log and is never trusted over it.** A row that does not fit its check value ends the
//! file; whatever a proof reads of a tile is hashed and compared; and `kami verify` recomputes every row. Removed, it is
//! made again. What a crash tears off is made again, too: nothing here is synced.

use std::io;
use std::sync::Arc;

use kami_wal::{File, Lsn, Medium};

use super::merkle::{Hash, node_hash, root_of};

/// A tile is a complete subtree of this level.
pub const TILE_LEVEL: u32 = 8;
/// Leaves of a tile.
pub const TILE_LEAVES: u64 = 1 << TILE_LEVEL;
/// A hash in memory stands for a complete subtree of this level.
const TOP_LEVEL: u32 = 2 * TILE_LEVEL;

const DIRECTORY: &str = "proofs";
const PATH: &str = "proofs/tiles";
const MAGIC: &[u8; 8] = b"KAMITILE";
const VERSION: u64 = 1;
const HEADER_BYTES: u64 = 48;
const ROW_BYTES: usize = 48;
/// Rows read at a time.
const ROWS: u64 = 1 << 14;

/// A complete tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tile {
    /// Where its first entry stands.
    pub first: Lsn,
    /// The hash over its leaves.
    pub hash: Hash,
}

impl Tile {
    fn encode(&self, store: u64, index: u64) -> [u8; ROW_BYTES] {
        let mut row = [0; ROW_BYTES];
        row[..8].copy_from_slice(&self.first.bytes().to_le_bytes());
        row[8..40].copy_from_slice(&self.hash);
        let mut hasher = blake3::Hasher::new();
        hasher.update(&store.to_le_bytes()).update(&index.to_le_bytes()).update(&row[..40]);
        row[40..].copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        row
    }

    /// `None` if the row is not whole, or another one's.
    fn decode(row: &[u8], store: u64, index: u64) -> Option<Tile> {
        let first = Lsn::from_bytes(u64::from_le_bytes(row.get(..8)?.try_into().ok()?))?;
        let tile = Tile { first, hash: row.get(8..40)?.try_into().ok()? };
        (tile.encode(store, index) == row).then_some(tile)
    }
}

/// The tiles of a store's log, in order, from the first.
pub struct Tiles {
    medium: Arc<dyn Medium>,
    store: u64,
    file: Box<dyn File>,
    count: u64,
    /// The hashes of complete subtrees of [`TOP_LEVEL`].
    tops: Vec<Hash>,
    /// The hashes of the tiles behind those.
    rest: Vec<Hash>,
}

fn header(store: u64) -> [u8; HEADER_BYTES as usize] {
    let mut header = [0; HEADER_BYTES as usize];
    header[..8].copy_from_slice(MAGIC);
    header[8..16].copy_from_slice(&VERSION.to_le_bytes());
    header[16..24].copy_from_slice(&store.to_le_bytes());
    header
}

/// The tiles of a store's file, as far as they are whole and can be read: what cannot is made again when it is needed.
pub fn stored_tiles(medium: &dyn Medium, store: u64) -> Vec<Tile> {
    let mut tiles = Vec::new();
    if let Ok(file) = medium.open(PATH) {
        // What was read before an error is right all the same.
        let _ = read_all(&*file, store, &mut |tile| tiles.push(tile));
    }
    tiles
}

/// Reads the rows up to the first that is not whole; `None` if the file is none of this store's.
fn read_all(file: &dyn File, store: u64, each: &mut dyn FnMut(Tile)) -> io::Result<Option<()>> {
    let bytes = file.len()?;
    let mut head = [0; HEADER_BYTES as usize];
    if bytes < HEADER_BYTES {
        return Ok(None);
    }
    file.read_at(0, &mut head)?;
    if head != header(store) {
        return Ok(None);
    }
    let rows = (bytes - HEADER_BYTES) / ROW_BYTES as u64;
    let mut buffer = Vec::new();
    let mut at = 0;
    while at < rows {
        buffer.resize(ROWS.min(rows - at) as usize * ROW_BYTES, 0);
        file.read_at(HEADER_BYTES + at * ROW_BYTES as u64, &mut buffer)?;
        for row in buffer.chunks_exact(ROW_BYTES) {
            let Some(tile) = Tile::decode(row, store, at) else { return Ok(Some(())) };
            each(tile);
            at += 1;
        }
    }
    Ok(Some(()))
}

impl Tiles {
    /// Opens the file, or makes one where there is none that can be read.
    ///
    /// # Errors
    /// What the device reports.
    pub fn open(medium: Arc<dyn Medium>, store: u64) -> io::Result<Tiles> {
        medium.create_dir(DIRECTORY)?;
        let file = match medium.open(PATH) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => create(&*medium, store)?,
            file => file?,
        };
        let mut tiles = Tiles { medium, store, file, count: 0, tops: Vec::new(), rest: Vec::new() };
        let mut found = Vec::new();
        let read = read_all(&*tiles.file, store, &mut |tile| found.push(tile.hash));
        if !matches!(read, Ok(Some(()))) {
            // Another store's, or a power cut left what cannot be read.
            found.clear();
            tiles.clear()?;
        }
        found.into_iter().for_each(|hash| tiles.count_in(hash));
        Ok(tiles)
    }

    /// Forgets all.
    ///
    /// # Errors
    /// What the device reports.
    pub fn clear(&mut self) -> io::Result<()> {
        self.medium.remove(PATH)?;
        self.file = create(&*self.medium, self.store)?;
        self.count = 0;
        self.tops.clear();
        self.rest.clear();
        Ok(())
    }

    /// How many tiles there are.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    fn count_in(&mut self, hash: Hash) {
        self.count += 1;
        self.rest.push(hash);
        if self.rest.len() as u64 == TILE_LEAVES {
            self.tops.push(root_of(&self.rest));
            self.rest.clear();
        }
    }

    /// Adds tiles at the end.
    ///
    /// # Errors
    /// What the device reports; none of them is there then.
    pub fn push(&mut self, tiles: &[Tile]) -> io::Result<()> {
        let numbered = tiles.iter().zip(self.count..);
        let rows: Vec<u8> = numbered.flat_map(|(tile, index)| tile.encode(self.store, index)).collect();
        self.file.write_at(HEADER_BYTES + self.count * ROW_BYTES as u64, &rows)?;
        tiles.iter().for_each(|tile| self.count_in(tile.hash));
        Ok(())
    }

    /// A tile.
    ///
    /// # Errors
    /// `InvalidData` if it is damaged; what the device reports.
    pub fn tile(&self, index: u64) -> io::Result<Tile> {
        let mut row = [0; ROW_BYTES];
        self.file.read_at(HEADER_BYTES + index * ROW_BYTES as u64, &mut row)?;
        Tile::decode(&row, self.store, index)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a row of proofs/tiles is damaged"))
    }

    /// The hash of a complete subtree of at least a tile, all of whose tiles are there.
    ///
    /// # Errors
    /// As [`Tiles::tile`].
    pub fn node(&self, level: u32, index: u64) -> io::Result<Hash> {
        if level == TILE_LEVEL {
            return self.tile(index).map(|tile| tile.hash);
        }
        if level == TOP_LEVEL {
            return Ok(self.tops[index as usize]);
        }
        let left = self.node(level - 1, 2 * index)?;
        let right = self.node(level - 1, 2 * index + 1)?;
        Ok(node_hash(&left, &right))
    }
}

fn create(medium: &dyn Medium, store: u64) -> io::Result<Box<dyn File>> {
    let file = medium.create(PATH)?;
    file.write_at(0, &header(store))?;
    Ok(file)
}
