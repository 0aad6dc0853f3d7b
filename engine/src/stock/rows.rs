//! Sets of rows.

use std::collections::BTreeMap;

/// Rows, kept as runs: an order that comes back comes back in long ones.
#[derive(Default)]
pub struct RowSet(BTreeMap<u64, u64>);

impl RowSet {
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// The rows, lowest first.
    pub fn rows(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.iter().flat_map(|(&from, &to)| from..to)
    }

    pub fn contains(&self, row: u64) -> bool {
        self.0.range(..=row).next_back().is_some_and(|(_, &to)| row < to)
    }

    pub fn insert(&mut self, row: u64) {
        let before = self.0.range(..=row).next_back().map(|(&from, &to)| (from, to));
        if before.is_some_and(|(_, to)| row < to) {
            return;
        }
        let to = self.0.remove(&(row + 1)).unwrap_or(row + 1);
        match before {
            Some((from, end)) if end == row => self.0.insert(from, to),
            _ => self.0.insert(row, to),
        };
    }

    pub fn remove(&mut self, row: u64) {
        let Some((&from, &to)) = self.0.range(..=row).next_back() else { return };
        if to <= row {
            return;
        }
        self.0.remove(&from);
        if from < row {
            self.0.insert(from, row);
        }
        if row + 1 < to {
            self.0.insert(row + 1, to);
        }
    }
}
