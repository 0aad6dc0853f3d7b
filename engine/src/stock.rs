//! The stock of a batch: how many of its cards stand where, which of them can be sold, and finding those.
//!
//! All of it but ends of validity and activity is derived from the words of the batch, and computed again from them
//! after a snapshot was read.

mod lasting;
mod rows;
mod shelf;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::Range;

use kami_wal::Lsn;

use crate::activity::Activity;
use crate::identity::{BatchId, TenantId};
use crate::order::Line;
use crate::product::Money;
use crate::record::{Allocation, PostedLeg};
use crate::table::{Batch, Columns, Words};
use crate::word::{CardRef, Flags, Lifecycle, Word};

use lasting::Lasting;
use rows::RowSet;
use shelf::{Shelf, shelves};

/// What is derived from the words of one batch.
pub struct Stock {
    /// The batch's last entry that is about the batch itself.
    pub lsn: Lsn,
    /// Whose it is.
    pub tenant: TenantId,
    /// Which rows are active, and since when. Here because it changes, and is read, under the lock that this is under.
    activity: Activity,
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
    /// Cards by the face value that their row says, so that an order for one passes over the others once and not every
    /// time; empty for batches without such values, and for those with more than [`SHELVES_MAX`](shelf::SHELVES_MAX) of them.
    shelves: BTreeMap<Money, Shelf>,
    /// Which of its product's batches this is, counted from 0 in the order they are sold in.
    pub place: u32,
}

impl Stock {
    /// Of a batch that was just imported.
    pub fn new(batch: &Batch, counted: Counted) -> Stock {
        let Counted { counts, frozen, expiries, shelves } = counted;
        Stock {
            lsn: batch.import_lsn,
            tenant: batch.tenant,
            activity: Activity::whole(batch.rows(), batch.is_active().then_some(batch.imported_ms)),
            counts,
            cursor: 0,
            free: RowSet::default(),
            frozen,
            expiries,
            ends: BTreeMap::new(),
            ending: 0,
            lasting: Lasting::default(),
            shelves,
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

    /// Which rows are active, and since when.
    #[must_use]
    pub fn activity(&self) -> &Activity {
        &self.activity
    }

    /// See [`Stock::activity`].
    pub fn set_activity(&mut self, batch: &Batch, activity: Activity) {
        batch.set_active(activity.all());
        self.activity = activity;
    }

    /// Makes rows active as of `now_ms`, or not active.
    pub fn activate(&mut self, batch: &Batch, rows: &Range<u64>, active: bool, now_ms: u64) {
        self.activity.set(rows, active, now_ms);
        batch.set_active(self.activity.all());
    }

    fn count(&mut self, batch: &Batch) {
        for row in 0..batch.rows() {
            let word = batch.word(row);
            if word != Word::PRISTINE {
                self.moved(batch, row, Word::PRISTINE, word);
            }
        }
    }

    /// Computes everything again from the words, as after a snapshot.
    pub fn derive(&mut self, batch: &Batch) {
        let (ends, activity) = (std::mem::take(&mut self.ends), self.activity.clone());
        *self = Stock { lsn: self.lsn, place: self.place, ends, activity, ..Stock::pristine(batch) };
        self.count(batch);
    }

    /// A card's word changed. Whether the batch has cards that could be sold was changed by it, is returned.
    #[inline]
    pub fn moved(&mut self, batch: &Batch, row: u64, old: Word, new: Word) -> bool {
        let (from, to) = (old.lifecycle(), new.lifecycle());
        self.counts[from as usize] -= 1;
        self.counts[to as usize] += 1;
        if from != Lifecycle::Available && to != Lifecycle::Available {
            return false;
        }
        self.stock_moved(batch, row, old, new)
    }

    /// The same of a card that was in stock, or is now.
    fn stock_moved(&mut self, batch: &Batch, row: u64, old: Word, new: Word) -> bool {
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
        if let Some(&own) = batch.columns.expiries.get(row as usize) {
            let count = self.expiries.entry(own).or_default();
            *count = *count + u64::from(stands && !ends) - u64::from(stood && !ended);
            if *count == 0 {
                self.expiries.remove(&own);
            }
        }
        if stood == stands {
            return false;
        }
        if !stands {
            self.free.remove(row);
        } else if row < self.cursor {
            self.free.insert(row);
        }
        if let Some(shelf) = self.shelf_of(batch, row) {
            if !stands {
                shelf.count -= 1;
                shelf.free.remove(row);
            } else {
                shelf.count += 1;
                if row < shelf.cursor {
                    shelf.free.insert(row);
                }
            }
        }
        self.standing(batch, None) == u64::from(stands)
    }

    /// Whether all its cards have expired, and whatever else happens to them, none will be for sale before an
    /// extension.
    pub fn is_over(&self, batch: &Batch, now_ms: u64) -> bool {
        let by_row = !batch.columns.expiries.is_empty() || !self.ends.is_empty();
        !by_row && (1..=now_ms).contains(&batch.expires_ms(0))
    }

    /// The shelf of a row, where there are any.
    fn shelf_of(&mut self, batch: &Batch, row: u64) -> Option<&mut Shelf> {
        if self.shelves.is_empty() {
            return None;
        }
        self.shelves.get_mut(batch.columns.faces.get(row as usize)?)
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
        if stands(batch.word(row)) {
            if row < self.cursor {
                self.free.insert(row);
            }
            if let Some(shelf) = self.shelf_of(batch, row).filter(|shelf| row < shelf.cursor) {
                shelf.free.insert(row);
            }
        }
    }

    /// Rows from one on with an end of validity of their own.
    pub fn ends(&self, from: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.ends.range(from..).map(|(row, end_ms)| (*row, *end_ms))
    }

    /// Looks at all rows again at the next sale, after rows that were passed over may be for sale.
    pub fn rewind(&mut self) {
        self.cursor = 0;
        self.free.clear();
        self.shelves.values_mut().for_each(Shelf::rewind);
    }

    /// The most cards of a face value that could be sold; of any if none is said.
    pub fn standing(&self, batch: &Batch, face: Option<Money>) -> u64 {
        let all = self.counts[Lifecycle::Available as usize] - self.frozen;
        match face {
            Some(face) if !self.shelves.is_empty() => self.shelves.get(&face).map_or(0, |shelf| shelf.count),
            Some(face) if batch.columns.faces.is_empty() && face != batch.face => 0,
            _ => all,
        }
    }

    /// Whether a card whose row says how long it is valid may last longer than that.
    fn any_lasts(&self, batch: &Batch, valid_until: u64) -> bool {
        let of_batch = batch.expires_ms == 0 || batch.expires_ms > valid_until;
        self.ending > 0
            || batch.extended_ms() > valid_until
            || of_batch && self.expiries.contains_key(&0)
            || self.expiries.range(valid_until.saturating_add(1).max(1)..).next().is_some()
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
        if self.standing(batch, face) == 0 {
            return;
        }
        let before = found.cards.count();
        // What begins with the sale must be long enough; it has no other end in stock.
        let rule_ms = batch.validity.map(|rule| now_ms + rule.ms());
        if rule_ms.is_some_and(|ends_ms| ends_ms <= valid_until) {
            return;
        }
        let batch_expires = batch.expires_ms(0);
        let by_row = !batch.columns.expiries.is_empty() || !self.ends.is_empty();
        if !by_row && batch_expires != 0 && batch_expires <= valid_until {
            return;
        }
        if !batch.columns.expiries.is_empty() && !self.any_lasts(batch, valid_until) {
            return;
        }
        let faces = !batch.columns.faces.is_empty();
        let shelf = face.and_then(|face| self.shelves.get(&face));
        let (begin, free) = shelf.map_or((self.cursor, &self.free), |shelf| (shelf.cursor, &shelf.free));
        // A row can be sold if it is in stock, not frozen by itself, and valid long enough.
        let ends = |row| self.expires_ms(batch, row);
        let lasts = |row| match ends(row) {
            0 => true,
            expires => expires > valid_until,
        };
        let is_worth = |row| !faces || face.is_none_or(|face| batch.face(row) == face);
        let free = free.rows().filter(|row| lasts(*row) && is_worth(*row) && fits(*row));
        for row in free.take(*missing as usize) {
            found.cards.push(CardRef::new(batch.id.0, row), batch.word(row));
        }
        *missing -= u64::from(found.cards.count() - before);
        let mut row = begin;
        // The cursor may pass what is sold, void or frozen, but not what another order could still take: on a shelf,
        // others are none of its own.
        let mut cursor = None;
        let mut first = None;
        while row < batch.rows() && *missing > 0 {
            let word = batch.word(row);
            if stands(word) {
                if (!by_row || lasts(row)) && is_worth(row) && fits(row) {
                    found.cards.push(CardRef::new(batch.id.0, row), word);
                    first.get_or_insert(row);
                    *missing -= 1;
                } else if cursor.is_none()
                    && (if is_worth(row) { ends(row) == 0 || ends(row) > now_ms } else { shelf.is_none() })
                {
                    cursor = Some(row);
                }
            }
            row += 1;
        }
        found.looked += row - begin;
        let taken = cursor.unwrap_or(row);
        let left = first.map_or(taken, |first| first.min(taken));
        found.passed.push(Passed { batch: batch.id, face: shelf.and(face), taken, left });
    }

    /// After rows were looked at: the next order begins behind them, from all rows or from those of one face value.
    pub fn pass(&mut self, face: Option<Money>, cursor: u64) {
        let own = match face {
            None => &mut self.cursor,
            Some(face) => match self.shelves.get_mut(&face) {
                Some(shelf) => &mut shelf.cursor,
                None => return,
            },
        };
        *own = cursor.max(*own);
    }

    /// After recovery: passes over the rows that are not for sale, so that the first order need not.
    pub fn settle(&mut self, batch: &Batch) {
        self.rewind();
        self.cursor = (0..batch.rows()).find(|row| stands(batch.word(*row))).unwrap_or(batch.rows());
        for shelf in self.shelves.values_mut() {
            shelf.cursor = batch.rows();
        }
        if self.shelves.is_empty() {
            return;
        }
        for row in (self.cursor..batch.rows()).filter(|row| stands(batch.word(*row))) {
            if let Some(shelf) = self.shelf_of(batch, row) {
                shelf.cursor = shelf.cursor.min(row);
            }
        }
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
        let counts = |stock: &Stock| stock.shelves.iter().map(|(face, shelf)| (*face, shelf.count)).collect();
        let (own, by_words): (Vec<_>, Vec<_>) = (counts(self), counts(&fresh));
        if own != by_words {
            return Err(format!("batch {}: cards of a face value counted wrongly", batch.id));
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
        if !self.lasting.is(&ending) {
            return Err(format!("batch {}: cards with an end of their own are counted wrongly", batch.id));
        }
        for row in 0..batch.rows() {
            let expires = self.expires_ms(batch, row);
            let shelf = self.shelves.get(&batch.face(row));
            let passed_over = row < self.cursor && !self.free.contains(row)
                || shelf.is_some_and(|shelf| row < shelf.cursor && !shelf.free.contains(row));
            if passed_over
                && stands(batch.word(row))
                && !batch.is_voided()
                && (expires == 0 || expires > now_ms)
            {
                return Err(format!("batch {}: row {row} is for sale and would never be sold", batch.id));
            }
        }
        Ok(())
    }

    /// How many cards could be sold.
    pub fn sellable(&mut self, batch: &Batch, now_ms: u64) -> u64 {
        let standing = self.standing(batch, None) - self.ending;
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
    shelves: BTreeMap<Money, Shelf>,
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
            if let Some(face) = columns.faces.get(row as usize).filter(|_| !stands(word))
                && let Some(shelf) = counted.shelves.get_mut(face)
            {
                shelf.count -= 1;
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
        Counted { counts, frozen: 0, expiries, shelves: shelves(&columns.faces) }
    }
}

/// Whether a card could be sold, but for what its batch, its product and the calendar say.
fn stands(word: Word) -> bool {
    word.lifecycle() == Lifecycle::Available && !word.flags().contains(Flags::FROZEN)
}

/// Rows that were looked at, of a batch or of one face value in it.
#[derive(Clone, Copy, Debug)]
pub struct Passed {
    /// The batch.
    pub batch: BatchId,
    /// The face value, if only its rows were.
    pub face: Option<Money>,
    /// Where the next order begins if the cards are taken.
    pub taken: u64,
    /// And where if they are left.
    pub left: u64,
}

/// The result of looking for cards to sell; reused from order to order.
#[derive(Default)]
pub struct Search {
    /// The cards found.
    pub cards: Allocation,
    /// Where rows were looked at.
    passed: Vec<Passed>,
    /// Batches whose cards have all expired.
    pub over: Vec<BatchId>,
    /// How many batches were looked at.
    pub batches: usize,
    /// How many rows were, but for those that had come back.
    pub(crate) looked: u64,
    /// Emptied lists for the entry's facts, so that an order need not allocate them.
    pub(crate) lines: Vec<Line>,
    pub(crate) legs: Vec<PostedLeg>,
}

impl Search {
    /// Forgets what was found.
    pub fn clear(&mut self) {
        self.cards.clear();
        self.passed.clear();
        self.over.clear();
        self.batches = 0;
        self.looked = 0;
    }

    /// Where rows were looked at.
    pub fn passed(&self) -> &[Passed] {
        &self.passed
    }
}
