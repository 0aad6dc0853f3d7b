//! Which rows of a staged import hold which card, to find cards that come twice.
//!
//! Eight bytes a place: the row, and 24 bits of the digest, which say where it is worth comparing. The
//! digests themselves are in the staging file already, so a match is settled there, and a hundred
//! million rows take one to two and a third gigabytes for as long as they are staged, whatever their codes.
//!
//! # Invariants
//! * The table grows with the rows that have come, never with the number that was announced.
//! * Rows of a chunk that was not taken leave nothing behind, so chunks that are refused over and over do not
//!   make the table grow. Where they cannot be taken out again (the disk failed once more), such an entry says
//!   nothing: `is` compares with what the row holds now.

use std::io;

use crate::identity::CardDigest;
use crate::region::{Region, prefetch};
use crate::sync::Ordering;

/// A place holds the row plus one below, and bits of the digest above.
const ROW_BITS: u32 = 40;
const ROW_MASK: u64 = (1 << ROW_BITS) - 1;
/// Rows whose places are asked for together.
const GROUP: usize = 32;
/// A table is rebuilt rather than filled beyond this share, in percent.
const LOAD_MAX_PERCENT: u64 = 70;
const PLACES_MIN: u64 = 1 << 12;

/// The rows of an import by their digests.
pub struct Seen {
    places: Region,
    entries: u64,
    /// Places that were filled since [`Seen::keep`], in order, and whether all were moved since.
    fresh: Vec<usize>,
    rebuilt: bool,
}

impl Seen {
    /// No rows.
    pub fn new() -> Seen {
        Seen::with_places(0)
    }

    fn with_places(places: u64) -> Seen {
        Seen { places: Region::zeroed(places as usize), entries: 0, fresh: Vec::new(), rebuilt: false }
    }

    /// Makes room for `more` rows. If the table must be rebuilt, `again` yields the digests of all rows
    /// that were kept, in order.
    ///
    /// # Errors
    /// What `again` reports; the table is as it was.
    pub fn reserve(
        &mut self,
        more: u64,
        again: impl FnOnce(&mut dyn FnMut(CardDigest)) -> io::Result<()>,
    ) -> io::Result<()> {
        let places = |entries: u64| entries * 100 / LOAD_MAX_PERCENT + 1;
        let needed = places(self.entries + more);
        if needed <= self.places.len() as u64 {
            return Ok(());
        }
        let grown = needed.max(2 * self.places.len() as u64).max(PLACES_MIN);
        self.rebuild(grown, again)
    }

    fn rebuild(
        &mut self,
        places: u64,
        again: impl FnOnce(&mut dyn FnMut(CardDigest)) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut new = Seen::with_places(places);
        let mut group = Vec::with_capacity(GROUP);
        again(&mut |digest| {
            new.prefetch(digest);
            group.push(digest);
            if group.len() == GROUP {
                group.drain(..).for_each(|digest| new.put(digest));
            }
        })?;
        group.drain(..).for_each(|digest| new.put(digest));
        (new.fresh, new.rebuilt) = (std::mem::take(&mut self.fresh), true);
        new.fresh.clear();
        *self = new;
        Ok(())
    }

    /// What was added is there to stay.
    pub fn keep(&mut self) {
        self.fresh.clear();
        self.rebuilt = false;
    }

    /// Takes out what was added since [`Seen::keep`]; `again` yields the digests of all rows that were kept,
    /// in order.
    ///
    /// # Errors
    /// What `again` reports; what was added stays, and says nothing.
    pub fn forget(
        &mut self,
        again: impl FnOnce(&mut dyn FnMut(CardDigest)) -> io::Result<()>,
    ) -> io::Result<()> {
        if self.rebuilt {
            // The places of then are gone. The table keeps its size, so this does not happen for every chunk.
            self.rebuild(self.places.len() as u64, again)?;
        } else {
            // The last first: then no chain of places is ever torn.
            while let Some(place) = self.fresh.pop() {
                self.places[place].store(0, Ordering::Relaxed);
                self.entries -= 1;
            }
        }
        self.keep();
        Ok(())
    }

    fn home(&self, digest: CardDigest) -> usize {
        // The share of the table that the low half is of its range; the digest is uniform.
        ((u128::from(digest.0 as u64) * self.places.len() as u128) >> 64) as usize
    }

    fn mark(digest: CardDigest) -> u64 {
        ((digest.0 >> 64) as u64) << ROW_BITS
    }

    /// Asks for the memory that [`Seen::insert`] will read.
    #[inline]
    pub fn prefetch(&self, digest: CardDigest) {
        prefetch(&self.places[self.home(digest)]);
    }

    /// Adds `row` unless a row has this digest; that row then. `is` says whether a row does. There is
    /// room: see [`Seen::reserve`].
    ///
    /// # Errors
    /// What `is` reports.
    pub fn insert(
        &mut self,
        digest: CardDigest,
        row: u64,
        mut is: impl FnMut(u64) -> io::Result<bool>,
    ) -> io::Result<Option<u64>> {
        let mark = Seen::mark(digest);
        let mut place = self.home(digest);
        loop {
            let held = self.places[place].load(Ordering::Relaxed);
            if held == 0 {
                self.places[place].store(mark | (row + 1), Ordering::Relaxed);
                self.entries += 1;
                self.fresh.push(place);
                return Ok(None);
            }
            let present = (held & ROW_MASK) - 1;
            if held & !ROW_MASK == mark && present < row && is(present)? {
                return Ok(Some(present));
            }
            place = if place + 1 == self.places.len() { 0 } else { place + 1 };
        }
    }

    /// Adds the next row, which is known to be new.
    fn put(&mut self, digest: CardDigest) {
        // Nothing is compared, so nothing can fail.
        let _ = self.insert(digest, self.entries, |_| Ok(false));
        self.fresh.clear();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn digest(n: u64) -> CardDigest {
        let hash = blake3::hash(&n.to_le_bytes());
        CardDigest(u128::from_le_bytes(hash.as_bytes()[..16].try_into().unwrap()))
    }

    #[test]
    fn every_row_is_found_again_through_growth() {
        let mut seen = Seen::new();
        let mut kept: Vec<CardDigest> = Vec::new();
        for n in 0..50_000 {
            // Every number comes twice, the second time a little later.
            for n in [n, n / 2] {
                let all = &kept;
                seen.reserve(1, |again| {
                    all.iter().for_each(|digest| again(*digest));
                    Ok(())
                })
                .unwrap();
                let row = kept.len() as u64;
                let found = seen.insert(digest(n), row, |row| Ok(all[row as usize] == digest(n))).unwrap();
                let expected = all.iter().position(|digest| *digest == self::digest(n));
                if n < 500 {
                    assert_eq!(found, expected.map(|row| row as u64));
                }
                if found.is_none() {
                    kept.push(digest(n));
                }
            }
            if kept.len() == 3000 {
                break;
            }
        }
        assert_eq!(kept.len(), 3000);
    }

    #[test]
    fn rows_that_were_never_kept_take_no_place() {
        let mut seen = Seen::new();
        let kept: Vec<CardDigest> = (0..3000).map(digest).collect();
        let add = |seen: &mut Seen, digests: &[CardDigest], from: u64| {
            for (digest, row) in digests.iter().zip(from..) {
                let all = |again: &mut dyn FnMut(CardDigest)| {
                    kept[..from as usize].iter().for_each(|digest| again(*digest));
                    digests[..(row - from) as usize].iter().for_each(|digest| again(*digest));
                    Ok(())
                };
                seen.reserve(1, all).unwrap();
                let is = |row: u64| Ok(kept.get(row as usize) == Some(digest));
                assert_eq!(seen.insert(*digest, row, is).unwrap(), None);
            }
        };
        add(&mut seen, &kept, 0);
        seen.keep();
        let places = |seen: &Seen| seen.places.len();
        let mut most = 0;
        for attempt in 1..100 {
            // Another few thousand that are refused each time; some need a larger table.
            let refused: Vec<CardDigest> = (0..4000).map(|n| digest(attempt * 10_000 + n)).collect();
            add(&mut seen, &refused, 3000);
            seen.forget(|again| {
                kept.iter().for_each(|digest| again(*digest));
                Ok(())
            })
            .unwrap();
            assert_eq!(seen.entries, 3000);
            most = most.max(places(&seen));
        }
        assert!(most < 4 * 7000, "{most}");
        for (digest, row) in kept.iter().zip(0..) {
            let is = |present: u64| Ok(present == row);
            assert_eq!(seen.insert(*digest, 3000, is).unwrap(), Some(row), "every chain is whole");
        }
    }

    #[test]
    fn a_row_that_was_never_kept_hides_nothing() {
        let mut seen = Seen::new();
        seen.reserve(10, |_| Ok(())).unwrap();
        assert_eq!(seen.insert(digest(1), 0, |_| Ok(true)).unwrap(), None);
        // Its chunk failed and comes again.
        assert_eq!(seen.insert(digest(1), 0, |_| Ok(true)).unwrap(), None);
        assert_eq!(seen.insert(digest(1), 1, |_| Ok(true)).unwrap(), Some(0));
    }
}
