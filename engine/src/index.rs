//! The index: digest → card reference, lock-free for readers.
//!
//! Open addressing over 24-byte slots, in shards by the digest's high bits. The digest is keyed BLAKE3
//! and so uniform: it is its own hash. Readers take no lock and never wait; a shard grows by building a
//! new table and swapping it in, and `crossbeam-epoch` frees the old one when its last reader is gone.
//!
//! # Invariants
//! * A slot is empty while its first word is zero; the first word is stored last, with Release, so a
//!   reader that sees it sees the whole slot. (No digest has a zero high half: see `vault`.)
//! * Entries are never removed and a key never moves within a table, so a probe that meets an empty
//!   slot has proven absence.
//! * Only the reference of an entry is ever replaced, and only if its batch was never committed.
//! * Card words are not in here, so a swap never meets a transition.
//!
//! The index is derived: after a restart it is built again from the batch files.

#![allow(unsafe_code)]

use crossbeam_epoch::{Atomic, Guard, Owned, Shared};

use crate::identity::CardDigest;
use crate::region::{Region, prefetch};
use crate::sync::{Mutex, Ordering};
use crate::word::CardRef;

/// The models of loom and shuttle are small.
const SHARD_BITS: u32 = if cfg!(any(loom, shuttle)) { 1 } else { 6 };
const SHARDS: usize = 1 << SHARD_BITS;
/// A slot: high half of the digest, low half, card reference.
const SLOT_WORDS: usize = 3;
const CAPACITY_MIN: usize = if cfg!(any(loom, shuttle)) { 2 } else { 16 };
/// Entries whose memory is asked for together.
const GROUP: usize = 32;
/// A table is rebuilt rather than filled beyond this share of its slots (in percent)…
const LOAD_MAX_PERCENT: usize = 85;
/// …and a new one is made so large that this share is used.
const LOAD_NEW_PERCENT: usize = 80;

/// The index. See the module's head.
pub struct Index {
    shards: Box<[Shard]>,
}

struct Shard {
    table: Atomic<Table>,
    /// Entries in the table; writers hold the lock from probe to store.
    entries: Mutex<usize>,
}

struct Table {
    slots: Region,
    capacity: usize,
}

impl Table {
    fn new(capacity: usize) -> Table {
        let capacity = capacity.max(CAPACITY_MIN);
        Table { slots: Region::zeroed(capacity * SLOT_WORDS), capacity }
    }

    /// The slot where the search for `low` begins: its share of the table, by one multiplication
    /// (Lemire, "Fast random integer generation in an interval", 2019), so that any capacity will do.
    #[inline]
    fn home(&self, low: u64) -> usize {
        ((u128::from(low) * self.capacity as u128) >> 64) as usize
    }

    /// Where the digest stands, or the empty slot where it would.
    #[inline(always)]
    fn probe(&self, high: u64, low: u64) -> Result<usize, usize> {
        let mut slot = self.home(low);
        loop {
            let at = slot * SLOT_WORDS;
            let first = self.slots[at].load(Ordering::Acquire);
            if first == high && self.slots[at + 1].load(Ordering::Relaxed) == low {
                return Ok(at);
            }
            if first == 0 {
                return Err(at);
            }
            slot += 1;
            if slot == self.capacity {
                slot = 0;
            }
        }
    }

    /// Adds an entry, and says whether its digest is new. If it is there already, `replace` says of its present card
    /// whether it may be replaced. Only under the shard's lock, and there must be room.
    ///
    /// # Errors
    /// The present card, if it may not.
    fn put(
        &self,
        digest: CardDigest,
        card: CardRef,
        replace: impl FnOnce(CardRef) -> bool,
    ) -> Result<bool, CardRef> {
        let (high, low) = halves(digest);
        match self.probe(high, low) {
            Ok(at) => {
                let present = CardRef::from_bits(self.slots[at + 2].load(Ordering::Relaxed));
                if !replace(present) {
                    return Err(present);
                }
                self.slots[at + 2].store(card.to_bits(), Ordering::Release);
                Ok(false)
            }
            Err(at) => {
                self.fill(at, high, low, card.to_bits());
                Ok(true)
            }
        }
    }

    /// Fills an empty slot. Only under the shard's lock, or before the table is published.
    fn fill(&self, at: usize, high: u64, low: u64, card: u64) {
        self.slots[at + 1].store(low, Ordering::Relaxed);
        self.slots[at + 2].store(card, Ordering::Relaxed);
        self.slots[at].store(high, Ordering::Release);
    }
}

const fn halves(digest: CardDigest) -> (u64, u64) {
    ((digest.0 >> 64) as u64, digest.0 as u64)
}

/// The shard of a digest, by its high half.
const fn shard_of(high: u64) -> usize {
    (high >> (64 - SHARD_BITS)) as usize
}

impl Index {
    /// An empty index.
    #[must_use]
    pub fn new() -> Index {
        let shard = || Shard { table: Atomic::new(Table::new(0)), entries: Mutex::new(0) };
        Index { shards: (0..SHARDS).map(|_| shard()).collect() }
    }

    /// Keeps readers' tables alive; take one for a group of look-ups.
    #[must_use]
    pub fn pin() -> Guard {
        crossbeam_epoch::pin()
    }

    fn shard(&self, high: u64) -> &Shard {
        &self.shards[shard_of(high)]
    }

    /// Asks for the memory that [`Index::find`] will read first.
    #[inline]
    pub fn prefetch(&self, digest: CardDigest, guard: &Guard) {
        let (high, low) = halves(digest);
        let table = self.shard(high).table(guard);
        let at = table.home(low) * SLOT_WORDS;
        prefetch(&table.slots[at]);
        // A slot is 24 bytes: one in three begins in one line and ends in the next, and half of all
        // searches go on to a neighbour.
        prefetch(&table.slots[(at + 5).min(table.slots.len() - 1)]);
    }

    /// The card with this digest. The caller checks that its batch is committed.
    #[inline]
    #[must_use]
    pub fn find(&self, digest: CardDigest, guard: &Guard) -> Option<CardRef> {
        let (high, low) = halves(digest);
        let table = self.shard(high).table(guard);
        let at = table.probe(high, low).ok()?;
        Some(CardRef::from_bits(table.slots[at + 2].load(Ordering::Acquire)))
    }

    /// Bytes of memory that its tables take.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let guard = Index::pin();
        let slots: usize = self.shards.iter().map(|shard| shard.table(&guard).capacity).sum();
        (slots * SLOT_WORDS * size_of::<u64>()) as u64
    }

    /// Makes room for `additional` entries, so that inserting them rebuilds nothing.
    pub fn reserve(&self, additional: usize) {
        // Entries spread over the shards as balls over bins: five standard deviations cover them all.
        let share = additional / SHARDS;
        let share = share + 5 * (share as f64).sqrt() as usize + 1;
        for shard in &self.shards {
            let entries = shard.entries.lock();
            shard.grow_for(*entries + share, &Index::pin());
        }
    }

    /// Adds entries, shard by shard, so that each lock is taken once and threads that add others seldom meet. `replace` is
    /// asked with the new card and the present one; what it does not allow goes to `refused`, likewise.
    pub fn insert_all(
        &self,
        entries: &mut [(CardDigest, CardRef)],
        replace: impl Fn(CardRef, CardRef) -> bool,
        mut refused: impl FnMut(CardRef, CardRef),
    ) {
        let shard_of = |(digest, _): &(CardDigest, CardRef)| shard_of(halves(*digest).0);
        // Of two with the same digest the first is to be first.
        entries.sort_by_key(shard_of);
        for entries in entries.chunk_by(|one, next| shard_of(one) == shard_of(next)) {
            let guard = Index::pin();
            let shard = &self.shards[shard_of(&entries[0])];
            let mut held = shard.entries.lock();
            shard.grow_for(*held + entries.len(), &guard);
            let table = shard.table(&guard);
            for group in entries.chunks(GROUP) {
                group.iter().for_each(|(digest, _)| self.prefetch(*digest, &guard));
                for &(digest, card) in group {
                    match table.put(digest, card, |present| replace(card, present)) {
                        Ok(is_new) => *held += usize::from(is_new),
                        Err(present) => refused(card, present),
                    }
                }
            }
        }
    }
}

impl Shard {
    #[inline]
    fn table<'g>(&self, guard: &'g Guard) -> &'g Table {
        let shared = self.table.load(Ordering::Acquire, guard);
        // SAFETY: the pointer is never null after `Index::new`, it was published with Release after the
        // table was built, and a table is freed only through `defer_destroy`, that is not before every
        // guard pinned at the time of its replacement is dropped.
        unsafe { shared.deref() }
    }

    /// Swaps in a larger table unless `entries` fit. The caller holds the shard's lock.
    fn grow_for(&self, entries: usize, guard: &Guard) {
        let old = self.table(guard);
        if entries * 100 <= old.capacity * LOAD_MAX_PERCENT {
            return;
        }
        // Without the second bound, small batches would rebuild the table every few entries.
        let capacity = (entries * 100 / LOAD_NEW_PERCENT + 1).max(old.capacity + old.capacity / 8);
        let new = Table::new(capacity);
        for slot in old.slots.chunks_exact(SLOT_WORDS) {
            let high = slot[0].load(Ordering::Relaxed);
            if high != 0 {
                let low = slot[1].load(Ordering::Relaxed);
                let at = new.probe(high, low).unwrap_or_else(|at| at);
                new.fill(at, high, low, slot[2].load(Ordering::Relaxed));
            }
        }
        let old = self.table.swap(Owned::new(new), Ordering::AcqRel, guard);
        // SAFETY: `old` was just unlinked under the shard's lock, so nobody can reach it any more but
        // readers that are pinned now; it is destroyed once.
        unsafe { guard.defer_destroy(old) };
    }
}

impl Drop for Shard {
    fn drop(&mut self) {
        let guard = Index::pin();
        let table = self.table.swap(Shared::null(), Ordering::Relaxed, &guard);
        // SAFETY: `&mut self` proves that there are no readers; the pointer is not null (see `table`)
        // and is destroyed once.
        unsafe { guard.defer_destroy(table) };
    }
}

#[cfg(test)]
impl Index {
    /// Adds one entry, or says which card is there.
    fn insert(
        &self,
        digest: CardDigest,
        card: CardRef,
        replace: impl Fn(CardRef) -> bool,
    ) -> Result<(), CardRef> {
        let mut refused = None;
        self.insert_all(
            &mut [(digest, card)],
            |_, present| replace(present),
            |_, present| refused = Some(present),
        );
        refused.map_or(Ok(()), Err)
    }
}

#[cfg(all(test, loom))]
mod loom_models {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    fn digest(low: u64) -> CardDigest {
        // All in one shard, so that inserting makes it grow.
        CardDigest(u128::from(low) << 40 | 1 << 64)
    }

    /// A reader beside an import that makes the shard grow: what was there is found at any moment, what
    /// comes is found whole or not at all.
    #[test]
    fn loom_readers_beside_a_growing_shard() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let index = Arc::new(Index::new());
            index.insert(digest(1), CardRef::new(1, 1), |_| false).unwrap();
            let reader = {
                let index = Arc::clone(&index);
                thread::spawn(move || {
                    let guard = Index::pin();
                    assert_eq!(index.find(digest(1), &guard), Some(CardRef::new(1, 1)));
                    let new = index.find(digest(2), &guard);
                    assert!(new.is_none() || new == Some(CardRef::new(1, 2)));
                })
            };
            index.insert(digest(2), CardRef::new(1, 2), |_| false).unwrap();
            reader.join().unwrap();
            let guard = Index::pin();
            for row in 1..=2 {
                assert_eq!(index.find(digest(row), &guard), Some(CardRef::new(1, row)));
            }
        });
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    fn digest(n: u64) -> CardDigest {
        let hash = blake3::hash(&n.to_le_bytes());
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash.as_bytes()[..16]);
        CardDigest(u128::from_le_bytes(bytes) | 1 << 64)
    }

    #[test]
    fn finds_what_was_inserted_and_nothing_else_through_growth() {
        let index = Index::new();
        for n in 0..20_000 {
            assert!(index.insert(digest(n), CardRef::new(1, n), |_| false).is_ok());
        }
        let guard = Index::pin();
        for n in 0..20_000 {
            index.prefetch(digest(n), &guard);
            assert_eq!(index.find(digest(n), &guard), Some(CardRef::new(1, n)));
            assert_eq!(index.find(digest(n + 1_000_000), &guard), None);
        }
    }

    #[test]
    fn a_present_card_is_told_and_kept_unless_it_may_be_replaced() {
        let index = Index::new();
        let (old, new) = (CardRef::new(1, 5), CardRef::new(2, 6));
        assert_eq!(index.insert(digest(0), old, |_| false), Ok(()));
        assert_eq!(index.insert(digest(0), new, |_| false), Err(old));
        assert_eq!(index.find(digest(0), &Index::pin()), Some(old));
        assert_eq!(index.insert(digest(0), new, |present| present == old), Ok(()));
        assert_eq!(index.find(digest(0), &Index::pin()), Some(new));
    }

    #[test]
    fn reserving_makes_room_for_all() {
        let index = Index::new();
        index.reserve(50_000);
        let capacities = || -> Vec<usize> {
            index.shards.iter().map(|shard| shard.table(&Index::pin()).capacity).collect()
        };
        let before = capacities();
        for n in 0..50_000 {
            index.insert(digest(n), CardRef::new(1, n), |_| false).unwrap();
        }
        assert_eq!(before, capacities());
        let slots: usize = before.iter().sum();
        assert!(slots * 24 / 50_000 <= 36, "{} bytes an entry", slots * 24 / 50_000);
    }

    /// Two threads, as when a large batch is committed, and rows of each that the other has, too.
    #[test]
    fn of_threads_that_add_the_same_cards_one_has_each() {
        let index = Index::new();
        let taken: Vec<Vec<u64>> = std::thread::scope(|scope| {
            let add = |batch: u32| {
                let mut refused = Vec::new();
                for first in (0..60_000).step_by(1000) {
                    let row = |row: u64| (digest(row), CardRef::new(batch, row));
                    let mut entries: Vec<_> = (first..first + 1000).map(row).collect();
                    index.insert_all(
                        &mut entries,
                        |_, _| false,
                        |card, present| {
                            assert_eq!((card.batch(), card.row()), (batch, present.row()));
                            refused.push(card.row());
                        },
                    );
                }
                refused
            };
            let threads = [1, 2].map(|batch| scope.spawn(move || add(batch)));
            threads.map(|thread| thread.join().unwrap()).into()
        });
        let guard = Index::pin();
        let mut refused = [0, 0];
        for n in 0..60_000 {
            let card = index.find(digest(n), &guard).unwrap();
            assert_eq!(card.row(), n);
            refused[2 - card.batch() as usize] += 1;
        }
        assert_eq!(taken.iter().map(Vec::len).collect::<Vec<_>>(), refused);
        assert_eq!(index.shards.iter().map(|shard| *shard.entries.lock()).sum::<usize>(), 60_000);
    }

    #[test]
    fn readers_see_every_committed_entry_while_shards_grow() {
        let index = Index::new();
        for n in 0..1000 {
            index.insert(digest(n), CardRef::new(1, n), |_| false).unwrap();
        }
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let guard = Index::pin();
                    for n in 0..1000 {
                        assert_eq!(index.find(digest(n), &guard), Some(CardRef::new(1, n)));
                    }
                }
            });
            for n in 1000..100_000 {
                index.insert(digest(n), CardRef::new(1, n), |_| false).unwrap();
            }
            done.store(true, Ordering::Relaxed);
        });
    }
}
