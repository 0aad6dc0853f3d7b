//! The card table: every batch with its words.
//!
//! Readers reach a batch without a lock, and a batch never moves: the directory is a list of slots in
//! blocks of doubling size, filled once each. A slot that is not filled is a batch that was not
//! committed (or is being imported right now), and its cards do not exist: filling the slot is the flip
//! that makes them visible.
//!
//! **Words and the batch's own flags are written by the sequencer alone, under its lock, through
//! [`Batch::install`] and the setters here.**

use std::sync::OnceLock;

use kami_wal::Lsn;

use crate::batch::{BatchFile, ORIGINS};
use crate::identity::{BatchId, OrderId, PrincipalId, ProductId, RequestId, TenantId};
use crate::origin::{ORIGIN_BYTES, OrdersOfOld, Origin};
use crate::product::{CardKind, Money, Validity};
use crate::region::{Region, prefetch};
use crate::sync::Ordering;
use crate::sync::coarse::{AtomicBool, AtomicU8, AtomicU64};
use crate::vault::DataKey;
use crate::word::{CardRef, Word};

/// The words of a batch. Read by anyone at any time, written by the sequencer.
pub struct Words(Region);

impl Words {
    /// Words of cards that never moved.
    #[must_use]
    pub fn pristine(rows: u64) -> Words {
        Words(Region::zeroed(rows as usize))
    }

    /// How many.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.0.len() as u64
    }

    /// The word of a row.
    #[must_use]
    pub fn word(&self, row: u64) -> Word {
        self.load(row)
    }

    #[inline]
    fn load(&self, row: u64) -> Word {
        let bits = self.0[row as usize].load(Ordering::Acquire);
        Word::from_bits(bits).expect("only `store` writes words, and it writes valid ones")
    }

    /// The Release store publishes the card's entry with its word: whoever sees the word and then reads
    /// the log's tail finds the entry below it.
    #[inline]
    fn store(&self, row: u64, word: Word) {
        self.0[row as usize].store(word.bits(), Ordering::Release);
    }
}

/// A committed batch.
pub struct Batch {
    /// Its number.
    pub id: BatchId,
    /// Whose it is.
    pub tenant: TenantId,
    /// Its product.
    pub product: ProductId,
    /// How its cards are used, as its product says, for which that never changes.
    pub kind: CardKind,
    /// The importer's label.
    pub label: String,
    /// The request that imported it.
    pub import: RequestId,
    /// Who imported it.
    pub imported_by: PrincipalId,
    /// Where its IMPORT entry stands.
    pub import_lsn: Lsn,
    /// When it was imported.
    pub imported_ms: u64,
    /// What its cards are worth where the rows do not say.
    pub face: Money,
    /// From when its cards are valid; 0 is at once.
    pub valid_from_ms: u64,
    /// When its cards expire where the rows do not say; 0 is never.
    pub expires_ms: u64,
    /// From which event of its own a card is valid, and how long, where no end is said.
    pub validity: Option<Validity>,
    /// The hash of its digests, to recognise the same import.
    pub cards_hash: [u8; 32],
    /// The hash of its file, to recognise damage.
    pub file_hash: [u8; 32],
    /// Its rows on disk.
    pub file: BatchFile,
    /// What opens its codes.
    pub key: DataKey,
    /// The optional columns, which redeeming reads, so that it need not touch the disk.
    pub columns: Columns,
    words: Words,
    /// [`NONE`], [`ALL`] or [`SOME`] of its rows are active; of some its [`Stock`](crate::stock::Stock) says which.
    active: AtomicU8,
    frozen: AtomicBool,
    voided: AtomicBool,
    extended_ms: AtomicU64,
}

const NONE: u8 = 0;
const ALL: u8 = 1;
const SOME: u8 = 2;

const fn as_active(all: Option<bool>) -> u8 {
    match all {
        Some(false) => NONE,
        Some(true) => ALL,
        None => SOME,
    }
}

/// The optional columns of a batch in memory; empty where the batch has none.
#[derive(Default)]
pub struct Columns {
    /// PIN digests.
    pub pins: Vec<[u8; 16]>,
    /// Face values.
    pub faces: Vec<Money>,
    /// Ends of validity.
    pub expiries: Vec<u64>,
    /// What was left on cards that are used in parts when they came from another system; [`Columns::ALL`] is all.
    pub left: Vec<Money>,
    /// The orders of that system.
    pub orders: OrdersOfOld,
}

impl Columns {
    /// Bytes of memory.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let rows = size_of_val(&*self.pins)
            + size_of_val(&*self.faces)
            + size_of_val(&*self.expiries)
            + size_of_val(&*self.left);
        rows as u64 + self.orders.bytes()
    }

    /// In `left`: whatever the card is worth.
    const ALL: Money = Money::MIN;
    /// Rows read together.
    const ROWS: u64 = 1 << 14;

    /// What was left on a row when it was imported, if that was not all.
    #[must_use]
    pub fn left(&self, row: u64) -> Option<Money> {
        self.left.get(row as usize).copied().filter(|left| *left != Columns::ALL)
    }

    /// Reads what the rows were in the system they come from, if the batch says so, and makes the words that they
    /// begin with. `kind` is how they are used.
    fn read_origins(&mut self, file: &BatchFile, kind: CardKind) -> std::io::Result<Words> {
        let rows = file.layout.rows;
        let words = Words::pristine(rows);
        if !file.layout.origins {
            return Ok(words);
        }
        let wrong = || std::io::Error::new(std::io::ErrorKind::InvalidData, "a row has an impossible origin");
        let (mut bytes, mut named) = (Vec::new(), Vec::new());
        for from in (0..rows).step_by(Columns::ROWS as usize) {
            file.read(ORIGINS, from, Columns::ROWS.min(rows - from) as usize, &mut bytes)?;
            for (cell, row) in bytes.as_chunks::<ORIGIN_BYTES>().0.iter().zip(from..) {
                let origin = Origin::decode(cell).ok_or_else(wrong)?;
                if origin.word() != Word::PRISTINE {
                    words.store(row, origin.word());
                }
                named.extend(origin.order.map(|order| (order, row)));
                if kind != CardKind::Single {
                    self.left.push(origin.left(Columns::ALL));
                }
            }
        }
        self.orders = OrdersOfOld::new(named);
        Ok(words)
    }

    /// Reads the columns a batch has, and makes the words its cards begin with. `kind` is how they are used.
    ///
    /// # Errors
    /// What the device reports; `InvalidData` if a cell makes no sense.
    pub fn read(file: &BatchFile, kind: CardKind) -> std::io::Result<(Columns, Words)> {
        let rows = file.layout.rows as usize;
        let mut columns = Columns::default();
        let mut bytes = Vec::new();
        if file.layout.pins {
            file.read(2, 0, rows, &mut bytes)?;
            columns.pins = bytes.chunks_exact(16).map(|pin| pin.try_into().expect("sixteen bytes")).collect();
        }
        let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
        if file.layout.faces {
            file.read(3, 0, rows, &mut bytes)?;
            columns.faces = bytes.chunks_exact(8).map(|face| number(face).cast_signed()).collect();
        }
        if file.layout.expiries {
            file.read(4, 0, rows, &mut bytes)?;
            columns.expiries = bytes.chunks_exact(8).map(number).collect();
        }
        let words = columns.read_origins(file, kind)?;
        Ok((columns, words))
    }
}

/// How a batch came to be; the rest begins empty.
pub struct Commit {
    /// See the fields of [`Batch`] of the same names.
    pub stored: crate::record::StoredBatch,
    /// See the field of [`Batch`].
    pub validity: Option<Validity>,
    /// How the cards of its product are used.
    pub kind: CardKind,
    /// Its number.
    pub id: BatchId,
    /// The request that imported it.
    pub import: RequestId,
    /// Who imported it.
    pub imported_by: PrincipalId,
    /// Where its IMPORT entry stands.
    pub lsn: Lsn,
    /// When.
    pub time_ms: u64,
}

impl Batch {
    /// A batch whose cards have not moved yet.
    #[must_use]
    pub fn new(commit: Commit, file: BatchFile, key: DataKey, columns: Columns, words: Words) -> Batch {
        let Commit { stored, validity, kind, id, import, imported_by, lsn, time_ms } = commit;
        Batch {
            id,
            tenant: TenantId(stored.tenant),
            product: ProductId(stored.product),
            kind,
            label: stored.label,
            import,
            imported_by,
            import_lsn: lsn,
            imported_ms: time_ms,
            face: stored.face,
            valid_from_ms: stored.valid_from_ms,
            expires_ms: stored.expires_ms,
            validity,
            cards_hash: stored.cards_hash,
            file_hash: stored.file_hash,
            words,
            active: AtomicU8::new(as_active(Some(stored.active))),
            frozen: AtomicBool::new(false),
            voided: AtomicBool::new(false),
            extended_ms: AtomicU64::new(0),
            file,
            key,
            columns,
        }
    }

    /// How many cards.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.words.rows()
    }

    /// The word of a row.
    #[inline]
    #[must_use]
    pub fn word(&self, row: u64) -> Word {
        self.words.load(row)
    }

    /// Asks for the memory of a row's word.
    #[inline]
    pub fn prefetch(&self, row: u64) {
        prefetch(&self.words.0[row as usize]);
    }

    /// Gives a card its next word: **the only way a card ever changes.** The entry that says so has been
    /// written to the log and published before.
    #[inline]
    pub fn install(&self, row: u64, word: Word) {
        self.words.store(row, word);
    }

    /// What a row was in the system it comes from, if the batch says so; read from its file.
    ///
    /// # Errors
    /// What the device reports.
    pub fn origin(&self, row: u64) -> std::io::Result<Option<Origin>> {
        if !self.file.layout.origins {
            return Ok(None);
        }
        let mut cell = Vec::new();
        self.file.read(ORIGINS, row, 1, &mut cell)?;
        Ok(cell.first_chunk().and_then(Origin::decode))
    }

    /// What a row is worth.
    #[inline]
    #[must_use]
    pub fn face(&self, row: u64) -> Money {
        self.columns.faces.get(row as usize).copied().unwrap_or(self.face)
    }

    /// When a row expires, extensions included; 0 is never.
    #[inline]
    #[must_use]
    pub fn expires_ms(&self, row: u64) -> u64 {
        let own = match self.columns.expiries.get(row as usize) {
            Some(&own) if own != 0 => own,
            _ => self.expires_ms,
        };
        if own == 0 { 0 } else { own.max(self.extended_ms.load(Ordering::Acquire)) }
    }

    /// Whether all its cards are redeemable once sold.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.active() == Some(true)
    }

    /// What all its rows are alike: redeemable once sold, or not; `None` if some are and some are not.
    #[inline]
    #[must_use]
    pub fn active(&self) -> Option<bool> {
        match self.active.load(Ordering::Acquire) {
            SOME => None,
            all => Some(all == ALL),
        }
    }

    /// Whether it is frozen.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        self.frozen.load(Ordering::Acquire)
    }

    /// Whether its unsold cards are void.
    #[must_use]
    pub fn is_voided(&self) -> bool {
        self.voided.load(Ordering::Acquire)
    }

    /// The latest extension; 0 is none.
    #[must_use]
    pub fn extended_ms(&self) -> u64 {
        self.extended_ms.load(Ordering::Acquire)
    }

    /// See [`Batch::active`].
    pub fn set_active(&self, all: Option<bool>) {
        self.active.store(as_active(all), Ordering::Release);
    }

    /// See [`Batch::is_frozen`].
    pub fn set_frozen(&self, frozen: bool) {
        self.frozen.store(frozen, Ordering::Release);
    }

    /// See [`Batch::is_voided`]. A void is for good.
    pub fn set_voided(&self) {
        self.voided.store(true, Ordering::Release);
    }

    /// See [`Batch::extended_ms`].
    pub fn set_extended_ms(&self, expires_ms: u64) {
        self.extended_ms.store(expires_ms, Ordering::Release);
    }
}

type Block = Box<[OnceLock<Box<Batch>>]>;

/// All batches. See the module's head.
pub struct Table {
    /// Block `b` holds the numbers `2^b - 1 ..= 2^(b+1) - 2`.
    blocks: [OnceLock<Block>; 24],
    /// How many were committed.
    commits: AtomicU64,
    /// Whether one of them has orders of another system.
    of_old: AtomicBool,
}

impl Table {
    /// No batches.
    #[must_use]
    pub fn new() -> Table {
        Table {
            blocks: [const { OnceLock::new() }; 24],
            commits: AtomicU64::new(0),
            of_old: AtomicBool::new(false),
        }
    }

    const fn place(id: u32) -> (usize, usize) {
        let block = (id + 1).ilog2();
        (block as usize, (id + 1 - (1 << block)) as usize)
    }

    /// The batch with this number, once it is committed.
    #[inline]
    #[must_use]
    pub fn batch(&self, id: BatchId) -> Option<&Batch> {
        let (block, slot) = Table::place(id.0);
        self.blocks.get(block)?.get()?[slot].get().map(|batch| &**batch)
    }

    /// The batch of a card, once it is committed and if it has that row.
    #[inline]
    #[must_use]
    pub fn batch_of(&self, card: CardRef) -> Option<&Batch> {
        self.batch(BatchId(card.batch())).filter(|batch| card.row() < batch.rows())
    }

    /// Makes a batch visible.
    ///
    /// # Panics
    /// If there is one with its number.
    pub fn commit(&self, batch: Batch) {
        let (block, slot) = Table::place(batch.id.0);
        if !batch.columns.orders.is_empty() {
            self.of_old.store(true, Ordering::Release);
        }
        let block = self.blocks[block].get_or_init(|| (0..1 << block).map(|_| OnceLock::new()).collect());
        assert!(block[slot].set(Box::new(batch)).is_ok(), "a batch number is given once");
        self.commits.fetch_add(1, Ordering::Release);
    }

    /// Whether a batch has orders of the system that its cards come from.
    #[must_use]
    pub fn has_orders_of_old(&self) -> bool {
        self.of_old.load(Ordering::Acquire)
    }

    /// The batches that have cards of an order of the system that they come from. Looks through all that there are of
    /// the tenant, so it is asked before the lock.
    pub fn with_order_of_old(&self, tenant: TenantId, order: OrderId) -> impl Iterator<Item = &Batch> {
        let all = self.batches().filter(move |batch| batch.tenant == tenant);
        all.filter(move |batch| !batch.columns.orders.rows(order).is_empty())
    }

    /// How many batches were committed. As long as this stays the same, cards that did not exist do not.
    #[inline]
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.commits.load(Ordering::Acquire)
    }

    /// The committed batches in order of number.
    pub fn batches(&self) -> impl Iterator<Item = &Batch> {
        let blocks = self.blocks.iter().filter_map(OnceLock::get);
        blocks.flat_map(|block| block.iter().filter_map(|slot| slot.get().map(|batch| &**batch)))
    }
}

#[cfg(all(test, loom))]
mod loom_models {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    /// A reader that takes no lock: if it sees a card's new word, then the log's tail that it reads
    /// afterwards lies behind the entry, so waiting for that tail is waiting for what it saw.
    #[test]
    fn loom_a_word_is_never_seen_before_its_entry() {
        loom::model(|| {
            let words = Arc::new(Words::pristine(1));
            let tail = Arc::new(crate::sync::AtomicU64::new(4096));
            let reader = {
                let (words, tail) = (Arc::clone(&words), Arc::clone(&tail));
                thread::spawn(move || {
                    let word = words.load(0);
                    let tail = tail.load(Ordering::Acquire);
                    assert!(word.lsn().is_none_or(|lsn| lsn.bytes() < tail), "a reply would leave too early");
                })
            };
            for turn in 0..2 {
                let lsn = Lsn::from_bytes(4096 + turn * 64).unwrap();
                // As the sequencer does: the entry, the tail, then the word.
                tail.store(lsn.bytes() + 64, Ordering::Release);
                words.store(0, Word::new(lsn, crate::Lifecycle::Sold, crate::Flags::REVEALED));
            }
            reader.join().unwrap();
        });
    }
}
