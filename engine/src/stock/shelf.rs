//! The cards of a batch by the face value that their row says.

use std::collections::BTreeMap;

use super::rows::RowSet;
use crate::product::Money;

/// Where rows have more face values than this, those of one are looked for among all.
pub const SHELVES_MAX: usize = 1 << 12;

/// The rows of one face value.
#[derive(Default)]
pub struct Shelf {
    /// AVAILABLE cards that are not frozen by themselves.
    pub count: u64,
    /// The first of all rows.
    pub first: u64,
    /// No row of this value below this one is for sale, but for those in `free`.
    pub cursor: u64,
    /// Rows below the cursor that came back for sale.
    pub free: RowSet,
}

impl Shelf {
    /// Looks at all rows again.
    pub fn rewind(&mut self) {
        self.cursor = self.first;
        self.free.clear();
    }
}

/// Counts and first rows of every face value; none if there are too many.
pub fn shelves(faces: &[Money]) -> BTreeMap<Money, Shelf> {
    let mut shelves: BTreeMap<Money, Shelf> = BTreeMap::new();
    let mut row = 0;
    // Equal ones come in runs, most often.
    for run in faces.chunk_by(|one, next| one == next) {
        let shelf = shelves.entry(run[0]).or_insert(Shelf { first: row, cursor: row, ..Shelf::default() });
        shelf.count += run.len() as u64;
        row += run.len() as u64;
        if shelves.len() > SHELVES_MAX {
            return BTreeMap::new();
        }
    }
    shelves
}
