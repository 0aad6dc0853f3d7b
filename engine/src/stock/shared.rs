//! What is counted of cards whose code is sold many times (循环卡密).
//!
//! One sale gives its buyer one use of the card, and one redemption takes one: whoever has the code may use what is
//! sold and unused. So of every such card there are four numbers. They are kept here and not in the card's word or
//! chain, because a code that is sold ten thousand times must not make every command about it read ten thousand
//! entries: the word moves with the first sale, and then only with what happens to the card itself.
//!
//! # Invariants
//! * `spent + returned <= sold` and `sold + reserved <= uses` of every card. What is held is within what is unused, and
//!   counted elsewhere.
//! * A use whose code the order never gave out comes back for sale (`sold` falls); of any other the buyer has the code,
//!   so it is taken back (`returned` rises) and never sold again.
//! * The entries about orders of one card chain: each names the one before, and `order` is the last. Those about its
//!   value are in the card's own chain, and `value` is the last. Each of the two tells what a snapshot has seen already.

use std::collections::BTreeMap;

use kami_wal::Lsn;

use super::rows::RowSet;
use crate::record::Kind;
use crate::table::Batch;
use crate::word::{Flags, Lifecycle, Word};

/// What is counted of one card.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SharedRow {
    /// Uses that were sold, but for those that came back unseen.
    pub sold: u32,
    /// Uses that orders have taken that are not paid yet.
    pub reserved: u32,
    /// Uses that were sold and taken back after somebody had seen the code.
    pub returned: u32,
    /// Uses that were redeemed, and neither reversed nor refunded.
    pub spent: u32,
    /// The last entry about an order that moved a use of it.
    pub order: Option<Lsn>,
    /// The last entry that told how many are spent.
    pub value: Option<Lsn>,
}

impl SharedRow {
    /// Uses that were sold and not taken back.
    #[must_use]
    pub const fn stands(&self) -> u32 {
        self.sold.saturating_sub(self.returned)
    }

    /// Of these, those that were not redeemed.
    #[must_use]
    pub const fn unused(&self) -> u32 {
        self.stands().saturating_sub(self.spent)
    }
}

/// What is counted of the cards of one batch.
pub struct Shared {
    uses: u32,
    rows: u64,
    /// Those that an order or a redemption has moved.
    moved: BTreeMap<u64, SharedRow>,
    /// No order has taken a use of a row from here on.
    fresh: u64,
    /// Rows below that of which uses can be sold.
    open: RowSet,
    /// How many rows below it are not among them.
    full: u64,
}

impl Shared {
    /// Of `rows` cards, each sold `uses` times at most; nothing is sold yet.
    pub fn new(rows: u64, uses: u32) -> Shared {
        Shared { uses, rows, moved: BTreeMap::new(), fresh: 0, open: RowSet::default(), full: 0 }
    }

    /// What is counted of a card.
    #[must_use]
    pub fn row(&self, row: u64) -> SharedRow {
        self.moved.get(&row).copied().unwrap_or_default()
    }

    /// Cards from a row on that were moved.
    pub fn rows(&self, from: u64) -> impl Iterator<Item = (u64, SharedRow)> + '_ {
        self.moved.range(from..).map(|(row, counted)| (*row, *counted))
    }

    /// How many uses of a card can still be sold.
    #[must_use]
    pub fn room(&self, row: u64) -> u32 {
        let SharedRow { sold, reserved, .. } = self.row(row);
        self.uses.saturating_sub(sold).saturating_sub(reserved)
    }

    /// How many cards have uses to be sold, as far as is known without looking at them.
    #[must_use]
    pub fn with_room(&self) -> u64 {
        self.rows - self.full
    }

    /// These cards, in the order of their rows.
    pub fn rows_with_room(&self) -> impl Iterator<Item = u64> + '_ {
        self.open.rows().chain(self.fresh..self.rows)
    }

    /// How many uses are taken by orders that wait for their payment.
    #[must_use]
    pub fn reserved(&self) -> u64 {
        self.moved.values().map(|counted| u64::from(counted.reserved)).sum()
    }

    /// Whether uses of a card with this word can be sold, but for what its batch, its product and the calendar say.
    #[must_use]
    pub fn is_for_sale(word: Word) -> bool {
        matches!(word.lifecycle(), Lifecycle::Available | Lifecycle::Sold)
            && !word.flags().contains(Flags::FROZEN)
    }

    /// An entry about an order moved one use of the card. One that is known already changes nothing.
    pub fn order(&mut self, row: u64, kind: Kind, sealed: bool, lsn: Lsn) {
        let counted = self.moved.entry(row).or_default();
        if counted.order >= Some(lsn) {
            return;
        }
        counted.order = Some(lsn);
        match kind {
            Kind::Reserve => counted.reserved += 1,
            Kind::Cancel | Kind::ReserveTimeout => counted.reserved = counted.reserved.saturating_sub(1),
            Kind::Confirm => {
                counted.reserved = counted.reserved.saturating_sub(1);
                counted.sold += 1;
            }
            Kind::Return if sealed => counted.sold = counted.sold.saturating_sub(1),
            Kind::Return => counted.returned += 1,
            _ => counted.sold += 1,
        }
        self.note_room(row);
    }

    /// So many uses of the card are spent now.
    pub fn spend(&mut self, row: u64, spent: u32, lsn: Lsn) {
        let counted = self.moved.entry(row).or_default();
        if counted.value < Some(lsn) {
            (counted.spent, counted.value) = (spent, Some(lsn));
        }
    }

    /// Puts back what a snapshot tells of a card. False if there is no such card.
    pub fn restore(&mut self, row: u64, counted: SharedRow) -> bool {
        self.moved.insert(row, counted);
        row < self.rows
    }

    /// Keeps where orders look.
    fn note_room(&mut self, row: u64) {
        for passed in self.fresh..row.saturating_add(1).max(self.fresh) {
            self.open.insert(passed);
        }
        self.fresh = self.fresh.max(row + 1);
        let (has_room, had) = (self.room(row) > 0, self.open.contains(row));
        if has_room && !had {
            self.open.insert(row);
            self.full -= 1;
        } else if !has_room && had {
            self.open.remove(row);
            self.full += 1;
        }
    }

    /// After recovery: where orders look follows from what is counted.
    pub fn settle(&mut self) {
        (self.fresh, self.full) = (0, 0);
        self.open.clear();
        let moved: Vec<u64> = self.moved.keys().copied().collect();
        moved.into_iter().for_each(|row| self.note_room(row));
    }

    /// Checks that no more was sold, taken back and redeemed of any card than can be, that their words fit, and that
    /// orders find what can be sold.
    ///
    /// # Errors
    /// The first disagreement, in words.
    pub fn check(&self, batch: &Batch) -> Result<(), String> {
        let mut full = 0;
        for row in 0..batch.rows() {
            let counted = self.row(row);
            let SharedRow { sold, reserved, returned, spent, .. } = counted;
            let wrong = |what: &str| Err(format!("batch {}: row {row}: {what}: {counted:?}", batch.id));
            if u64::from(sold) + u64::from(reserved) > u64::from(self.uses) {
                return wrong("more uses are sold or reserved than it has");
            }
            if u64::from(returned) + u64::from(spent) > u64::from(sold) {
                return wrong("more uses are redeemed or taken back than were sold");
            }
            let lifecycle = batch.word(row).lifecycle();
            if !matches!(lifecycle, Lifecycle::Available | Lifecycle::Sold | Lifecycle::Voided)
                || lifecycle == Lifecycle::Available && sold > 0
            {
                return wrong(&format!("it is {}", lifecycle.name()));
            }
            full += u64::from(self.room(row) == 0);
            if (row >= self.fresh || self.open.contains(row)) != (self.room(row) > 0) {
                return wrong("orders look at it, or not, and should not, or should");
            }
        }
        if full == self.full { Ok(()) } else { Err(format!("batch {}: full cards miscounted", batch.id)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(n: u64) -> Lsn {
        Lsn::from_units(512 + n).unwrap()
    }

    #[test]
    fn what_a_snapshot_has_seen_is_not_counted_again() {
        let mut shared = Shared::new(3, 2);
        shared.order(1, Kind::Reserve, false, at(1));
        shared.order(1, Kind::Sell, false, at(2));
        let seen = shared.row(1);
        shared.order(1, Kind::Reserve, false, at(1));
        shared.order(1, Kind::Sell, false, at(2));
        assert_eq!(shared.row(1), seen);
        assert_eq!((seen.sold, seen.reserved, shared.with_room()), (1, 1, 2));
        shared.order(1, Kind::Confirm, false, at(3));
        shared.spend(1, 1, at(4));
        shared.spend(1, 0, at(3));
        assert_eq!((shared.row(1).sold, shared.row(1).spent), (2, 1));
    }

    #[test]
    fn orders_find_what_has_room_in_the_order_of_rows() {
        let mut shared = Shared::new(4, 1);
        let found = |shared: &Shared| shared.rows_with_room().collect::<Vec<_>>();
        shared.order(2, Kind::Sell, false, at(1));
        assert_eq!(found(&shared), [0, 1, 3]);
        shared.order(0, Kind::Reserve, false, at(2));
        shared.order(2, Kind::Return, false, at(3));
        assert_eq!(found(&shared), [1, 3], "its code was seen: it is not for sale again");
        shared.order(0, Kind::Cancel, false, at(4));
        assert_eq!(found(&shared), [0, 1, 3]);
        shared.settle();
        assert_eq!(found(&shared), [0, 1, 3]);
    }
}
