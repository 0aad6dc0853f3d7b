//! The stock of a batch: how many of its cards stand where, which of them can be sold, and finding those.
//!
//! All of it is derived from the words of the batch, and computed again from them after a snapshot was read.

use std::collections::BTreeMap;

use kami_wal::Lsn;

use crate::identity::{BatchId, TenantId};
use crate::order::Line;
use crate::product::Money;
use crate::record::{Allocation, PostedLeg};
use crate::table::{Batch, Columns, Words};
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
    /// The same by when they end.
    lasting: Lasting,
    /// Which of its product's batches this is, counted from 0 in the order they are sold in.
    pub place: u32,
}

/// Cards by the ends of their validity, of which those that are not over can be told at any time, without looking
/// through them: time only goes on, and a card is passed once.
#[derive(Default, PartialEq, Eq)]
struct Lasting {
    ends: BTreeMap<u64, u64>,
    /// Those that end later than `passed_ms`.
    left: u64,
    passed_ms: u64,
}

impl Lasting {
    fn add(&mut self, end_ms: u64) {
        *self.ends.entry(end_ms).or_default() += 1;
        self.left += u64::from(end_ms > self.passed_ms);
    }

    fn remove(&mut self, end_ms: u64) {
        let count = self.ends.get_mut(&end_ms).expect("it was added");
        *count -= 1;
        if *count == 0 {
            self.ends.remove(&end_ms);
        }
        self.left -= u64::from(end_ms > self.passed_ms);
    }

    /// How many are not over at `now_ms`, and how many ends were passed since the last time.
    fn at(&mut self, now_ms: u64) -> (u64, usize) {
        let mut steps = 0;
        if self.passed_ms < now_ms {
            for count in self.ends.range(self.passed_ms + 1..=now_ms).map(|(_, count)| count) {
                self.left -= count;
                steps += 1;
            }
            self.passed_ms = now_ms;
        }
        (self.left, steps)
    }
}

impl Stock {
    /// Of a batch that was just imported.
    pub fn new(batch: &Batch, counted: Counted) -> Stock {
        let Counted { counts, frozen, expiries } = counted;
        Stock {
            lsn: batch.import_lsn,
            tenant: batch.tenant,
            counts,
            cursor: 0,
            free: RowSet::default(),
            frozen,
            expiries,
            ends: BTreeMap::new(),
            ending: 0,
            lasting: Lasting::default(),
            place: 0,
        }
    }

    /// The same as the `place`-th batch of its product.
    #[must_use]
    pub fn at(self, place: u32) -> Stock {
        Stock { place, ..self }
    }

    /// As if no card of the batch had moved or come in a state of its own.
    fn pristine(batch: &Batch) -> Stock {
        Stock::new(batch, Counted::in_stock(batch.rows(), &batch.columns))
    }

    fn count(&mut self, batch: &Batch) {
        for row in 0..batch.rows() {
            let word = batch.word(row);
            if word != Word::PRISTINE {
                let own_expiry = batch.columns.expiries.get(row as usize).copied();
                self.moved(row, Word::PRISTINE, word, own_expiry);
            }
        }
    }

    /// Computes everything again from the words, as after a snapshot.
    pub fn derive(&mut self, batch: &Batch) {
        let ends = std::mem::take(&mut self.ends);
        *self = Stock { lsn: self.lsn, place: self.place, ends, ..Stock::pristine(batch) };
        self.count(batch);
    }

    /// A card's word changed. `own_expiry` is the end of validity that its row says, in a batch with such ends. Whether
    /// the batch has cards that could be sold was changed by it, is returned.
    #[inline]
    pub fn moved(&mut self, row: u64, old: Word, new: Word, own_expiry: Option<u64>) -> bool {
        let (from, to) = (old.lifecycle(), new.lifecycle());
        self.counts[from as usize] -= 1;
        self.counts[to as usize] += 1;
        if from != Lifecycle::Available && to != Lifecycle::Available {
            return false;
        }
        self.stock_moved(row, old, new, own_expiry)
    }

    /// The same of a card that was in stock, or is now.
    fn stock_moved(&mut self, row: u64, old: Word, new: Word, own_expiry: Option<u64>) -> bool {
        let (from, to) = (old.lifecycle(), new.lifecycle());
        let (stood, stands) = (stands(old), stands(new));
        let frozen = |lifecycle, word: Word| {
            u64::from(lifecycle == Lifecycle::Available && word.flags().contains(Flags::FROZEN))
        };
        self.frozen = self.frozen + frozen(to, new) - frozen(from, old);
        let ending = |standing: bool, word: Word| standing && word.flags().contains(Flags::OWN_END);
        let (ended, ends) = (ending(stood, old), ending(stands, new));
        self.ending = self.ending + u64::from(ends) - u64::from(ended);
        if ended != ends
            && let Some(end_ms) = self.ends.get(&row)
        {
            if ends { self.lasting.add(*end_ms) } else { self.lasting.remove(*end_ms) }
        }
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
        stood != stands && self.standing() == u64::from(stands)
    }

    /// Cards that could be sold, but for what the batch, the product and the calendar say.
    pub fn standing(&self) -> u64 {
        self.counts[Lifecycle::Available as usize] - self.frozen
    }

    /// Whether all its cards have expired, and whatever else happens to them, none will be for sale before an
    /// extension.
    pub fn is_over(&self, batch: &Batch, now_ms: u64) -> bool {
        let by_row = !batch.columns.expiries.is_empty() || !self.ends.is_empty();
        !by_row && (1..=now_ms).contains(&batch.expires_ms(0))
    }

    /// When a card whose word says that it has an end of its own expires, extensions included; 0 is never.
    pub fn expires_ms(&self, batch: &Batch, row: u64) -> u64 {
        self.ends.get(&row).copied().unwrap_or_else(|| batch.expires_ms(row))
    }

    /// Gives a card an end of validity of its own.
    pub fn set_end(&mut self, batch: &Batch, row: u64, end_ms: u64) {
        let before = self.ends.insert(row, end_ms);
        let word = batch.word(row);
        if stands(word) && word.flags().contains(Flags::OWN_END) {
            if let Some(before) = before {
                self.lasting.remove(before);
            }
            self.lasting.add(end_ms);
        }
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
    /// `valid_until`, of this face value if one is asked for, in the order of their rows.
    pub fn find(
        &self,
        batch: &Batch,
        now_ms: u64,
        valid_until: u64,
        face: Option<Money>,
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
        let is_worth = |row| !faces || face.is_none_or(|face| batch.face(row) == face);
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
        let mut fresh = Stock::pristine(batch);
        fresh.count(batch);
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
        let mut ending = BTreeMap::new();
        for row in 0..batch.rows() {
            let word = batch.word(row);
            if word.flags().contains(Flags::OWN_END) != self.ends.contains_key(&row) {
                return Err(format!("batch {}: row {row} has an end of its own, or not", batch.id));
            }
            if let Some(end_ms) = self.ends.get(&row).filter(|_| stands(word)) {
                *ending.entry(*end_ms).or_default() += 1;
            }
        }
        if ending != self.lasting.ends {
            return Err(format!("batch {}: cards with an end of their own are counted wrongly", batch.id));
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
    pub fn sellable(&mut self, batch: &Batch, now_ms: u64) -> u64 {
        let standing = self.standing() - self.ending;
        let (ending, _) = self.lasting.at(now_ms);
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

/// The cards of an import by where they stand. Reads every row if they have ends of validity or states of their own,
/// so it is done before the lock.
pub struct Counted {
    counts: [u64; Lifecycle::COUNT],
    frozen: u64,
    expiries: BTreeMap<u64, u64>,
}

impl Counted {
    /// Of an import whose cards begin with `words`; `origins` says whether they may be anything but in stock.
    pub fn of(words: &Words, columns: &Columns, origins: bool) -> Counted {
        let mut counted = Counted::in_stock(words.rows(), columns);
        if !origins {
            return counted;
        }
        counted.counts = [0; Lifecycle::COUNT];
        counted.expiries.clear();
        for row in 0..words.rows() {
            let word = words.word(row);
            let lifecycle = word.lifecycle();
            counted.counts[lifecycle as usize] += 1;
            counted.frozen += u64::from(lifecycle == Lifecycle::Available && !stands(word));
            if let Some(own) = columns.expiries.get(row as usize).filter(|_| stands(word)) {
                *counted.expiries.entry(*own).or_default() += 1;
            }
        }
        counted
    }

    fn in_stock(rows: u64, columns: &Columns) -> Counted {
        let mut counts = [0; Lifecycle::COUNT];
        counts[Lifecycle::Available as usize] = rows;
        let mut expiries = BTreeMap::new();
        for &own in &columns.expiries {
            *expiries.entry(own).or_default() += 1;
        }
        Counted { counts, frozen: 0, expiries }
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
    /// Batches whose cards have all expired.
    pub over: Vec<BatchId>,
    /// How many batches were looked at.
    pub looked: usize,
    /// Emptied lists for the entry's facts, so that an order need not allocate them.
    pub(crate) lines: Vec<Line>,
    pub(crate) legs: Vec<PostedLeg>,
}

impl Search {
    /// Forgets what was found.
    pub fn clear(&mut self) {
        self.cards.clear();
        self.cursors.clear();
        self.over.clear();
        self.looked = 0;
    }

    /// The batches looked at, each with where the next order begins if the cards are taken.
    pub fn cursors(&self) -> &[(BatchId, u64)] {
        &self.cursors
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However many cards have an end of their own, and however often it is asked, each is passed once.
    #[test]
    fn an_end_is_passed_once() {
        let mut lasting = Lasting::default();
        (1..=10_000).for_each(|end_ms| lasting.add(end_ms));
        let mut steps = 0;
        for now_ms in 0..20_000 {
            let (left, passed) = lasting.at(now_ms);
            assert_eq!(left, 10_000_u64.saturating_sub(now_ms));
            steps += passed;
        }
        assert_eq!(steps, 10_000);
        lasting.add(5);
        lasting.add(30_000);
        assert_eq!(lasting.at(20_000), (1, 0), "what comes in late is over already");
        lasting.remove(5);
        lasting.remove(30_000);
        assert_eq!(lasting.at(40_000), (0, 0));
    }
}
