//! Which rows of a batch are redeemable once sold, and since when.
//!
//! A batch is activated as a whole or by ranges of rows, so what is kept is pieces of rows that stand alike: a
//! command changes pieces, never rows, whatever the batch's size. A card that was activated or deactivated by
//! itself has a flag for that, which stands above this.

use std::ops::Range;

/// A batch's rows are at most in this many pieces.
pub const PIECES_MAX: usize = 2_048;

/// Rows that stand alike, up to the next piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    from: u64,
    /// Since when they are active, milliseconds; `None` if they are not.
    since_ms: Option<u64>,
}

/// The rows of a batch in pieces: never none, the first begins at row 0, neighbours differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Activity {
    rows: u64,
    pieces: Vec<Piece>,
}

impl Activity {
    /// All of so many rows alike: active since then, or not active.
    #[must_use]
    pub fn whole(rows: u64, since_ms: Option<u64>) -> Activity {
        Activity { rows, pieces: vec![Piece { from: 0, since_ms }] }
    }

    /// From pieces as [`Activity::pieces`] gives them; `None` if they are none. There may be more than
    /// [`PIECES_MAX`]: versions that did not keep to that wrote snapshots.
    #[must_use]
    pub fn from_pieces(rows: u64, pieces: impl Iterator<Item = (u64, Option<u64>)>) -> Option<Activity> {
        let pieces: Vec<_> = pieces.map(|(from, since_ms)| Piece { from, since_ms }).collect();
        let begins = pieces.first().is_some_and(|piece| piece.from == 0);
        let rises = pieces.windows(2).all(|pair| pair[0].from < pair[1].from);
        let ends = pieces.last().is_some_and(|piece| piece.from < rows.max(1));
        (begins && rises && ends).then_some(Activity { rows, pieces })
    }

    /// Where each piece begins, and since when it is active.
    pub fn pieces(&self) -> impl Iterator<Item = (u64, Option<u64>)> + '_ {
        self.pieces.iter().map(|piece| (piece.from, piece.since_ms))
    }

    /// What all rows are alike; `None` if some are active and some are not.
    #[must_use]
    pub fn all(&self) -> Option<bool> {
        let first = self.pieces[0].since_ms.is_some();
        self.pieces.iter().all(|piece| piece.since_ms.is_some() == first).then_some(first)
    }

    /// Since when a row is active, milliseconds; `None` if it is not.
    #[must_use]
    pub fn since_ms(&self, row: u64) -> Option<u64> {
        self.pieces[self.pieces.partition_point(|piece| piece.from <= row) - 1].since_ms
    }

    /// How many rows are active.
    #[must_use]
    pub fn count(&self) -> u64 {
        let ends = self.pieces.iter().skip(1).map(|piece| piece.from).chain([self.rows]);
        let active = self.pieces.iter().zip(ends).filter(|(piece, _)| piece.since_ms.is_some());
        active.map(|(piece, end)| end - piece.from).sum()
    }

    /// Whether a row of these stands otherwise.
    #[must_use]
    pub fn would_change(&self, rows: &Range<u64>, active: bool) -> bool {
        let first = self.pieces.partition_point(|piece| piece.from <= rows.start) - 1;
        let mut touched = self.pieces[first..].iter().take_while(|piece| piece.from < rows.end);
        touched.any(|piece| piece.since_ms.is_some() != active)
    }

    /// Whether there is room for the pieces that a change of these rows makes. What makes fewer of them always has.
    #[must_use]
    pub fn has_room(&self, rows: &Range<u64>, active: bool) -> bool {
        // At most one more on either side. Only near the bound it matters how many become one inside, where what was
        // active before stays so since its own time.
        self.pieces.len() + 2 <= PIECES_MAX || {
            let mut after = self.clone();
            after.set(rows, active, u64::MAX);
            after.pieces.len() <= PIECES_MAX.max(self.pieces.len())
        }
    }

    /// Makes rows active as of `now_ms`, or not active. What is active already stays so since then.
    pub fn set(&mut self, rows: &Range<u64>, active: bool, now_ms: u64) {
        self.cut(rows.start);
        self.cut(rows.end);
        for piece in &mut self.pieces {
            if rows.contains(&piece.from) && piece.since_ms.is_some() != active {
                piece.since_ms = active.then_some(now_ms);
            }
        }
        self.pieces.dedup_by(|next, before| next.since_ms == before.since_ms);
    }

    /// Lets a piece begin at `row`.
    fn cut(&mut self, row: u64) {
        let at = self.pieces.partition_point(|piece| piece.from < row);
        if 0 < at && row < self.rows && self.pieces.get(at).is_none_or(|piece| piece.from != row) {
            self.pieces.insert(at, Piece { from: row, since_ms: self.pieces[at - 1].since_ms });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against a plain list of rows.
    #[test]
    fn pieces_say_what_rows_would() {
        const ROWS: u64 = 40;
        let mut seed = 7_u64;
        let mut next = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        for begins in [None, Some(5)] {
            let mut activity = Activity::whole(ROWS, begins);
            let mut rows = vec![begins; ROWS as usize];
            for now_ms in 10..2_000 {
                let from = next(ROWS);
                let to = from + 1 + next(ROWS - from);
                let active = next(2) == 1;
                let range = from..to;
                let changes = rows[from as usize..to as usize].iter().any(|row| row.is_some() != active);
                assert_eq!(activity.would_change(&range, active), changes);
                activity.set(&range, active, now_ms);
                for row in &mut rows[from as usize..to as usize] {
                    *row = if active { row.or(Some(now_ms)) } else { None };
                }
                assert!((0..ROWS).all(|row| activity.since_ms(row) == rows[row as usize]), "{activity:?}");
                assert_eq!(activity.count(), rows.iter().flatten().count() as u64);
                assert_eq!(Activity::from_pieces(ROWS, activity.pieces()).as_ref(), Some(&activity));
                let first = rows[0].is_some();
                assert_eq!(activity.all(), rows.iter().all(|r| r.is_some() == first).then_some(first));
            }
        }
    }

    /// However the ranges lie: apart, each reaching further than the last, or each around the last.
    #[test]
    fn pieces_are_bounded() {
        let ranges: [fn(u64) -> Range<u64>; 3] =
            [|n| 2 * n..2 * n + 1, |n| 0..3 * (n + 1), |n| 10_000 - n..10_001 + n];
        for range in ranges {
            let mut activity = Activity::whole(1 << 20, None);
            let refused = (0..10_000).find(|n| {
                let has_room = activity.has_room(&range(*n), true);
                if has_room {
                    activity.set(&range(*n), true, n + 1);
                    assert!(activity.pieces.len() <= PIECES_MAX, "{n}");
                }
                !has_room
            });
            assert!(refused.is_some(), "without bound");
            assert!(PIECES_MAX < activity.pieces.len() + 2, "refused before it had to be");
            assert!(activity.has_room(&(0..1 << 20), false), "what makes fewer is always possible");
            // A list that is too long already may be kept as long as it is, and be made shorter.
            activity.set(&(900_000..900_001), true, 1);
            activity.set(&(900_002..900_003), true, 2);
            assert!(PIECES_MAX < activity.pieces.len());
            assert!(!activity.has_room(&(900_004..900_005), true));
            assert!(activity.has_room(&(900_000..900_001), false));
            assert_eq!(Activity::from_pieces(1 << 20, activity.pieces()).as_ref(), Some(&activity));
        }
    }
}
