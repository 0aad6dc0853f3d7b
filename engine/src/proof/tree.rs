//! The tree over the entries of an open log, as far as it was followed.
//!
//! # Invariants
//! * Only what is durable is a leaf, so no leaf is ever taken back.
//! * Leaves of complete tiles are read from the log again when they are needed and must hash to the tile; those of the
//!   last tile are in memory.
//! * After an error the tree is of no use and is opened again.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use kami_wal::{Cursor, Lsn, Medium, ReadError, RecordKind, Wal};

use super::card::hash_of_entry;
use super::merkle::{Hash, Nodes, root_of};
use super::tiles::{TILE_LEAVES, TILE_LEVEL, Tile, Tiles};
use crate::record::{Entry, FormatError, Group, Kind, way_back};

/// Why the tree cannot be followed or read.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// The log does not yield a record.
    #[error("the log cannot be read")]
    Log(#[from] ReadError),
    /// A record is no group of entries.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The log's or the tiles' files.
    #[error("the tree's file cannot be read or written: file=`proofs/tiles`")]
    Io(#[from] io::Error),
    /// The log holds other entries than when the tile was hashed.
    #[error(
        "the log holds other entries than when they were hashed: lsn=`{first}`; `kami verify` says what else"
    )]
    Differs {
        /// Where the tile begins.
        first: Lsn,
    },
    /// The beginning of the log is not kept.
    #[error("the log's first segment is not kept, and the file made from it is gone: file=`proofs/tiles`")]
    Archived,
    /// No entry begins there.
    #[error("no entry of the log stands there: lsn=`{lsn}`")]
    NoEntry {
        /// Where.
        lsn: Lsn,
    },
}

/// An entry's place and hash.
type Place = (Lsn, Hash);

/// See the module's text.
pub struct Tree {
    tiles: Tiles,
    /// Complete tiles that are not in the file yet.
    made: Vec<Tile>,
    /// The leaves behind the last complete tile.
    open: Vec<Place>,
    cursor: Cursor,
    /// Entries before this one are leaves already.
    behind: Option<Lsn>,
    end: Lsn,
    news: u64,
}

impl Tree {
    /// Opens the tree where it was left, after a look at whether the log still says the same there.
    ///
    /// # Errors
    /// See [`TreeError`].
    pub fn open(medium: Arc<dyn Medium>, store: u64, wal: &Wal) -> Result<Tree, TreeError> {
        let mut tiles = Tiles::open(medium, store)?;
        let end = wal.durable_end();
        let mut behind = None;
        if let Some(last) = tiles.count().checked_sub(1) {
            let tile = tiles.tile(last)?;
            match leaves(wal, tile, end) {
                Ok(leaves) => behind = leaves.last().map(|(lsn, _)| *lsn),
                Err(TreeError::Io(error)) => return Err(error.into()),
                Err(_) => {
                    tracing::warn!("proofs/tiles does not follow from the log; it is made again");
                    tiles.clear()?;
                }
            }
        }
        let cursor = match behind {
            Some(lsn) => wal.cursor_at(record_of(wal, lsn)?),
            None => match wal.segments(end)? {
                (1, _) => wal.cursor(1),
                _ => return Err(TreeError::Archived),
            },
        };
        Ok(Tree {
            made: Vec::new(),
            open: Vec::new(),
            end: cursor.lsn(),
            news: tiles.count() * TILE_LEAVES,
            tiles,
            cursor,
            behind,
        })
    }

    /// Takes in what the log holds up to `end`, which is durable, but not much beyond `until`. Whether it is all.
    ///
    /// # Errors
    /// See [`TreeError`].
    pub fn follow(&mut self, wal: &Wal, end: Lsn, until: Instant) -> Result<bool, TreeError> {
        let mut records = 0_u32;
        let all = loop {
            let Some(record) = self.cursor.peek(wal, end)? else { break true };
            let behind = record.end;
            if record.kind == RecordKind::Data {
                for entry in Group::parse(record.payload, record.payload_lsn)? {
                    let entry = entry?;
                    if self.behind.is_none_or(|last| last < entry.lsn) {
                        add(&entry, &mut self.open, &mut self.made, self.tiles.count(), &mut self.news);
                    }
                }
            }
            self.cursor.pass();
            self.end = behind;
            records += 1;
            if records.is_multiple_of(64) && until <= Instant::now() {
                break false;
            }
        };
        self.tiles.push(&self.made)?;
        self.made.clear();
        if all {
            self.end = end;
        }
        Ok(all)
    }

    /// How many entries it has.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.tiles.count() * TILE_LEAVES + self.open.len() as u64
    }

    /// The position up to which the log was followed.
    #[must_use]
    pub const fn end(&self) -> Lsn {
        self.end
    }

    /// How many entries there were with the last that is no SIGNED_CHECKPOINT.
    #[must_use]
    pub const fn news(&self) -> u64 {
        self.news
    }

    /// Its nodes.
    pub fn nodes<'a>(&'a self, wal: &'a Wal) -> TreeNodes<'a> {
        TreeNodes { tree: self, wal, read: Vec::new() }
    }
}

fn add(entry: &Entry<'_>, open: &mut Vec<Place>, made: &mut Vec<Tile>, tiles: u64, news: &mut u64) {
    open.push((entry.lsn, hash_of_entry(entry.lsn, entry.time_ms, entry.bytes())));
    if entry.head.kind != Kind::SignedCheckpoint {
        *news = (tiles + made.len() as u64) * TILE_LEAVES + open.len() as u64;
    }
    if open.len() as u64 == TILE_LEAVES {
        made.push(tile_of(open));
        open.clear();
    }
}

fn tile_of(leaves: &[Place]) -> Tile {
    let hashes: Vec<Hash> = leaves.iter().map(|(_, hash)| *hash).collect();
    Tile { first: leaves[0].0, hash: root_of(&hashes) }
}

/// The record that an entry lies in.
fn record_of(wal: &Wal, entry: Lsn) -> Result<Lsn, TreeError> {
    let mut head = [0; 8];
    wal.read_bytes(entry, &mut head)?;
    let record = entry.bytes().checked_sub(way_back(&head)).and_then(Lsn::from_bytes);
    record.ok_or(TreeError::NoEntry { lsn: entry })
}

/// The leaves of a complete tile, from the log.
fn leaves(wal: &Wal, tile: Tile, end: Lsn) -> Result<Vec<Place>, TreeError> {
    let differs = TreeError::Differs { first: tile.first };
    let Ok(record) = record_of(wal, tile.first) else { return Err(differs) };
    let mut cursor = wal.cursor_at(record);
    let mut leaves = Vec::with_capacity(TILE_LEAVES as usize);
    while (leaves.len() as u64) < TILE_LEAVES {
        let Some(record) = cursor.peek(wal, end)? else { return Err(differs) };
        if record.kind == RecordKind::Data {
            for entry in Group::parse(record.payload, record.payload_lsn)? {
                let entry = entry?;
                if tile.first <= entry.lsn {
                    leaves.push((entry.lsn, hash_of_entry(entry.lsn, entry.time_ms, entry.bytes())));
                }
            }
        }
        cursor.pass();
    }
    leaves.truncate(TILE_LEAVES as usize);
    if tile_of(&leaves) == tile { Ok(leaves) } else { Err(differs) }
}

/// Tiles whose leaves are held: that of the leaf which is looked at, and the one that the tree ends in.
const HELD_TILES: usize = 2;

/// The complete subtrees of a [`Tree`]. Of the tiles that it reads from the log it holds the two that were used last: a
/// path needs those of its leaf and of the tree's end, so whoever goes through leaves in order reads each tile once.
pub struct TreeNodes<'a> {
    tree: &'a Tree,
    wal: &'a Wal,
    /// The one that was used last comes last.
    read: Vec<(u64, Vec<Place>)>,
}

impl TreeNodes<'_> {
    /// The number of the entry at `lsn`.
    ///
    /// # Errors
    /// See [`TreeError`].
    pub fn index_of(&mut self, lsn: Lsn) -> Result<u64, TreeError> {
        let tree = self.tree;
        let in_tile = |leaves: &[Place]| leaves.iter().position(|(leaf, _)| *leaf == lsn);
        let tiles = tree.tiles.count();
        let found = match tree.open.first() {
            Some((first, _)) if *first <= lsn => {
                in_tile(&tree.open).map(|at| tiles * TILE_LEAVES + at as u64)
            }
            _ => {
                // The last tile that does not begin behind it.
                let (mut from, mut to) = (0, tiles);
                while from < to {
                    let middle = from + (to - from) / 2;
                    if tree.tiles.tile(middle)?.first <= lsn { from = middle + 1 } else { to = middle }
                }
                let Some(tile) = from.checked_sub(1) else { return Err(TreeError::NoEntry { lsn }) };
                in_tile(self.leaves(tile)?).map(|at| tile * TILE_LEAVES + at as u64)
            }
        };
        found.ok_or(TreeError::NoEntry { lsn })
    }

    /// The leaves of a complete tile.
    fn leaves(&mut self, tile: u64) -> Result<&[Place], TreeError> {
        let held = match self.read.iter().position(|(held, _)| *held == tile) {
            Some(at) => self.read.remove(at),
            None => {
                let leaves = leaves(self.wal, self.tree.tiles.tile(tile)?, self.tree.end)?;
                if self.read.len() == HELD_TILES {
                    self.read.remove(0);
                }
                (tile, leaves)
            }
        };
        self.read.push(held);
        Ok(&self.read[self.read.len() - 1].1)
    }
}

impl Nodes for TreeNodes<'_> {
    type Error = TreeError;

    fn node(&mut self, level: u32, index: u64) -> Result<Hash, TreeError> {
        let tree = self.tree;
        if TILE_LEVEL <= level {
            return Ok(tree.tiles.node(level, index)?);
        }
        let first = index << level;
        let (tile, from) = (first / TILE_LEAVES, (first % TILE_LEAVES) as usize);
        let leaves = if tile == tree.tiles.count() { &tree.open } else { self.leaves(tile)? };
        let hashes: Vec<Hash> = leaves[from..from + (1 << level)].iter().map(|(_, hash)| *hash).collect();
        Ok(root_of(&hashes))
    }
}
