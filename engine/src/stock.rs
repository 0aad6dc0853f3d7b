//! The stock of a batch: how many of its cards stand where, which of them can be sold, and finding those.
//!
//! All of it is derived from the words of the batch, and computed again from them after a snapshot was read.

use std::collections::BTreeMap;

use kami_wal::Lsn;

use crate::identity::{BatchId, TenantId};
use crate::order::Line;
use crate::product::Money;
use crate::record::{Allocation, PostedLeg};
use crate::table::Batch;
use crate::word::{CardRef, Flags, Lifecycle, Word};

/// What is derived from the words of one batch.
pub struct Stock {
    /// The batch's last entry that is about the batch itself.
    pub lsn: Lsn,
    /// Whose it is.
    pub tenant: TenantId,
    /// Cards by logged lifecycle.
    pub counts: [u64; Lifecycle::COUNT],
    /// No row below this one is for sale, but for those in `free`.
    cursor: u64,
    /// Rows below the cursor that came back for sale.
    free: RowSet,
    /// AVAILABLE cards that are frozen by themselves.
    frozen: u64,
    /// AVAILABLE cards by the end of validity that their row says, for batches with such ends; not those in `ends`.
    expiries: BTreeMap<u64, u64>,
    /// Ends of validity of cards that were given one after their import. A card's word says whether it is one of
    /// them: while a snapshot is brought up to date, this may be ahead of the words.
    ends: BTreeMap<u64, u64>,
    /// AVAILABLE cards of these that are not frozen by themselves.
    ending: u64,
}

impl Stock {
    /// Of a batch that was just imported.
    pub fn new(batch: &Batch, tenant: TenantId) -> Stock {
        let mut counts = [0; Lifecycle::COUNT];
        counts[Lifecycle::Available as usize] = batch.rows();
        let mut expiries = BTreeMap::new();
        for &own in &batch.columns.expiries {
            *expiries.entry(own).or_default() += 1;
        }
        Stock {
            lsn: batch.import_lsn,
            tenant,
            counts,
            cursor: 0,
            free: RowSet::default(),
            frozen: 0,
            expiries,
            ends: BTreeMap::new(),
            ending: 0,
        }
    }

    /// Computes everything again from the words, as after a snapshot.
    pub fn derive(&mut self, batch: &Batch) {
        let ends = std::mem::take(&mut self.ends);
        *self = Stock { lsn: self.lsn, ends, ..Stock::new(batch, self.tenant) };
        for row in 0..batch.rows() {
            let word = batch.word(row);
            if word != Word::PRISTINE {
                let own_expiry = batch.columns.expiries.get(row as usize).copied();
                self.moved(row, Word::PRISTINE, word, own_expiry);
            }
        }
    }

    /// A card's word changed. `own_expiry` is the end of validity that its row says, in a batch with such ends.
    #[inline]
    pub fn moved(&mut self, row: u64, old: Word, new: Word, own_expiry: Option<u64>) {
        let (from, to) = (old.lifecycle(), new.lifecycle());
        self.counts[from as usize] -= 1;
        self.counts[to as usize] += 1;
        if from != Lifecycle::Available && to != Lifecycle::Available {
            return;
        }
        let (stood, stands) = (stands(old), stands(new));
        let frozen = |lifecycle, word: Word| {
            u64::from(lifecycle == Lifecycle::Available && word.flags().contains(Flags::FROZEN))
        };
        self.frozen = self.frozen + frozen(to, new) - frozen(from, old);
        let ending = |standing: bool, word: Word| standing && word.flags().contains(Flags::OWN_END);
        let (ended, ends) = (ending(stood, old), ending(stands, new));
        self.ending = self.ending + u64::from(ends) - u64::from(ended);
        if let Some(own) = own_expiry {
            let count = self.expiries.entry(own).or_default();
            *count = *count + u64::from(stands && !ends) - u64::from(stood && !ended);
            if *count == 0 {
                self.expiries.remove(&own);
            }
        }
        if stands && !stood && row < self.cursor {
            self.free.insert(row);
        } else if stood && !stands {
            self.free.remove(row);
        }
    }

    /// When a card whose word says that it has an end of its own expires, extensions included; 0 is never.
    pub fn expires_ms(&self, batch: &Batch, row: u64) -> u64 {
        self.ends.get(&row).copied().unwrap_or_else(|| batch.expires_ms(row))
    }

    /// Gives a card an end of validity of its own.
    pub fn set_end(&mut self, batch: &Batch, row: u64, end_ms: u64) {
        self.ends.insert(row, end_ms);
        // It may have been passed over because it had expired.
        if stands(batch.word(row)) && row < self.cursor {
            self.free.insert(row);
        }
    }

    /// Rows with an end of validity of their own.
    pub fn ends(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.ends.iter().map(|(row, end_ms)| (*row, *end_ms))
    }

    /// Looks at all rows again at the next sale, after rows that were passed over may be for sale.
    pub fn rewind(&mut self) {
        self.cursor = 0;
        self.free.clear();
    }

    /// Adds cards that can be sold to what was found, until none is missing: those that last longer than
    /// `valid_until`, of this face value if one is asked for, whose rows fit, in the order of their rows.
    #[expect(clippy::too_many_arguments, reason = "all that a card may have to be")]
    pub fn find(
        &self,
        batch: &Batch,
        now_ms: u64,
        valid_until: u64,
        face: Option<Money>,
        fits: impl Fn(u64) -> bool,
        missing: &mut u64,
        found: &mut Search,
    ) {
        if self.counts[Lifecycle::Available as usize] == 0 {
            return;
        }
        let before = found.cards.count();
        // What begins with the sale must be long enough; it has no other end in self.
        let rule_ms = batch.validity.map(|rule| now_ms + rule.ms());
        if rule_ms.is_some_and(|ends_ms| ends_ms <= valid_until) {
            return;
        }
        let batch_expires = batch.expires_ms(0);
        let by_row = !batch.columns.expiries.is_empty() || !self.ends.is_empty();
        if !by_row && batch_expires != 0 && batch_expires <= valid_until {
            return;
        }
        let faces = !batch.columns.faces.is_empty();
        if face.is_some_and(|face| !faces && face != batch.face) {
            return;
        }
        // A row can be sold if it is in stock, not frozen by itself, and valid long enough.
        let ends = |row| self.expires_ms(batch, row);
        let lasts = |row| match ends(row) {
            0 => true,
            expires => expires > valid_until,
        };
        let is_worth = |row| (!faces || face.is_none_or(|face| batch.face(row) == face)) && fits(row);
        let free = self.free.rows().filter(|row| lasts(*row) && is_worth(*row));
        for row in free.take(*missing as usize) {
            found.cards.push(CardRef::new(batch.id.0, row), batch.word(row));
        }
        *missing -= u64::from(found.cards.count() - before);
        let mut row = self.cursor;
        // The cursor may pass what is sold, void or frozen, but not what another order could still take.
        let mut cursor = None;
        while row < batch.rows() && *missing > 0 {
            let word = batch.word(row);
            if stands(word) {
                if (!by_row || lasts(row)) && is_worth(row) {
                    found.cards.push(CardRef::new(batch.id.0, row), word);
                    *missing -= 1;
                } else if cursor.is_none() && (!is_worth(row) || ends(row) > now_ms) {
                    cursor = Some(row);
                }
            }
            row += 1;
        }
        found.cursors.push((batch.id, cursor.unwrap_or(row)));
    }

    /// The cards that [`Stock::find`] found were taken: the next order begins behind them.
    pub fn pass(&mut self, cursor: u64) {
        self.cursor = self.cursor.max(cursor);
    }

    /// After recovery: passes over the rows that are not for sale, so that the first order need not.
    pub fn settle(&mut self, batch: &Batch) {
        self.rewind();
        self.cursor = (0..batch.rows()).find(|row| stands(batch.word(*row))).unwrap_or(batch.rows());
    }

    /// Checks that all of it follows from the words, and that no card for sale would never be sold. Reads every
    /// word.
    ///
    /// # Errors
    /// The first disagreement, in words.
    pub fn check(&self, batch: &Batch, now_ms: u64) -> Result<(), String> {
        let mut fresh = Stock::new(batch, self.tenant);
        fresh.derive(batch);
        if fresh.counts != self.counts {
            return Err(format!(
                "counts of batch {}: {:?}, by its words {:?}",
                batch.id, self.counts, fresh.counts
            ));
        }
        if fresh.counts.iter().sum::<u64>() != batch.rows() {
            return Err(format!("batch {}: states do not sum to the cards imported", batch.id));
        }
        if fresh.frozen != self.frozen || fresh.expiries != self.expiries || fresh.ending != self.ending {
            return Err(format!("batch {}: frozen or expiring cards counted wrongly", batch.id));
        }
        for row in 0..batch.rows() {
            if batch.word(row).flags().contains(Flags::OWN_END) != self.ends.contains_key(&row) {
                return Err(format!("batch {}: row {row} has an end of its own, or not", batch.id));
            }
        }
        for row in 0..self.cursor {
            let expires = self.expires_ms(batch, row);
            if stands(batch.word(row))
                && !batch.is_voided()
                && (expires == 0 || expires > now_ms)
                && !self.free.contains(row)
            {
                return Err(format!("batch {}: row {row} is for sale and would never be sold", batch.id));
            }
        }
        Ok(())
    }

    /// How many cards could be sold.
    pub fn sellable(&self, batch: &Batch, now_ms: u64) -> u64 {
        let standing = self.counts[Lifecycle::Available as usize] - self.frozen - self.ending;
        let ending = self.ends.iter().filter(|(row, end_ms)| {
            let word = batch.word(**row);
            word.lifecycle() == Lifecycle::Available
                && word.flags().contains(Flags::OWN_END)
                && !word.flags().contains(Flags::FROZEN)
                && (**end_ms == 0 || **end_ms > now_ms)
        });
        let ending = if self.ending == 0 { 0 } else { ending.count() as u64 };
        if self.expiries.is_empty() && batch.columns.expiries.is_empty() {
            let expires = batch.expires_ms(0);
            return ending + if expires != 0 && expires <= now_ms { 0 } else { standing };
        }
        // Own ends by value; 0 stands for the batch's. An extension covers all that end before it.
        let extended = batch.extended_ms();
        let lasts = |own: u64| {
            let own = if own == 0 { batch.expires_ms } else { own };
            own == 0 || own.max(extended) > now_ms
        };
        ending + self.expiries.iter().filter(|(own, _)| lasts(**own)).map(|(_, count)| count).sum::<u64>()
    }
}

/// Whether a card could be sold, but for what its batch, its product and the calendar say.
fn stands(word: Word) -> bool {
    word.lifecycle() == Lifecycle::Available && !word.flags().contains(Flags::FROZEN)
}

/// Rows, kept as runs: an order that comes back comes back in long ones.
#[derive(Default)]
struct RowSet(BTreeMap<u64, u64>);

impl RowSet {
    fn clear(&mut self) {
        self.0.clear();
    }

    /// The rows, lowest first.
    fn rows(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.iter().flat_map(|(&from, &to)| from..to)
    }

    fn contains(&self, row: u64) -> bool {
        self.0.range(..=row).next_back().is_some_and(|(_, &to)| row < to)
    }

    fn insert(&mut self, row: u64) {
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

    fn remove(&mut self, row: u64) {
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

/// The result of looking for cards to sell; reused from order to order.
#[derive(Default)]
pub struct Search {
    /// The cards found.
    pub cards: Allocation,
    /// Batches looked at, with their next cursor.
    cursors: Vec<(BatchId, u64)>,
    /// Emptied lists for the entry's facts, so that an order need not allocate them.
    pub(crate) lines: Vec<Line>,
    pub(crate) legs: Vec<PostedLeg>,
}

impl Search {
    /// Forgets what was found.
    pub fn clear(&mut self) {
        self.cards.clear();
        self.cursors.clear();
    }

    /// The batches looked at, each with where the next order begins if the cards are taken.
    pub fn cursors(&self) -> &[(BatchId, u64)] {
        &self.cursors
    }
}
