//! The past of a card: what its chain says about a request, and what the next entry about its value needs to know.
//!
//! # Invariants
//! * A "no" of a filter is certain, a "perhaps" is walked: no effect of an id is ever overlooked, however long the chain.
//! * Entries come newest first, so what undid an effect comes before it.
//! * No command about a card reads more of its chain than its bounds allow: a chain without value is short, one with value
//!   is skipped by chapters and volumes, and sales of a shared card are not in it.

use std::cell::OnceCell;

use kami_wal::{Lsn, planted};

use super::{Chain, ChainError};
use crate::card::{Effect, Past};
use crate::identity::RequestId;
use crate::record::{
    CHAPTER_ENTRIES, Chapter, Entry, Filter, FormatError, Kind, Mark, MarkKey, Trail, VOLUME_ENTRIES,
    ValueTail,
};
use crate::word::{CardRef, Flags, Lifecycle, Word};

/// What a card's chain is searched for.
pub struct Sought {
    /// The request itself; `None` where its id belongs to another card, or it has none.
    request: Option<RequestId>,
    /// What it wants to undo or to end.
    original: Option<RequestId>,
    key: MarkKey,
    /// Where they show in filters, once that is asked.
    marks: OnceCell<[Option<Mark>; 2]>,
    /// Whether the ids on the way are wanted, for the filter of the next entry.
    collects: bool,
}

impl Sought {
    /// `collects` where the card's value may move.
    #[must_use]
    pub fn new(request: RequestId, original: Option<RequestId>, key: &MarkKey, collects: bool) -> Sought {
        Sought { request: Some(request), original, key: *key, marks: OnceCell::new(), collects }
    }

    /// Of the chain of another card of the same place in an order: what happened once to what `original` did, and not
    /// the request's own id, which is another request's there.
    #[must_use]
    pub fn elsewhere(original: RequestId, key: &MarkKey) -> Sought {
        Sought { request: None, original: Some(original), key: *key, marks: OnceCell::new(), collects: false }
    }

    /// For the engine's own request, which has no id: the one it carries may be somebody's.
    #[must_use]
    pub fn without_id(self) -> Sought {
        Sought { request: None, ..self }
    }

    fn may_be_in(&self, filter: &Filter) -> bool {
        let mark = |id| self.key.mark(id);
        let marks = self.marks.get_or_init(|| [self.request.map(mark), self.original.map(mark)]);
        marks.iter().flatten().any(|mark| filter.may_hold(*mark))
    }

    /// Takes from an entry what it says about these ids. Entries come newest first, so what undid one comes
    /// before it. Returns the id it relates to.
    fn looks_at(&self, entry: &Entry<'_>, past: &mut Past) -> Result<Option<RequestId>, FormatError> {
        let head = &entry.head;
        let value = entry.value()?;
        let related = match (&value, head.kind) {
            (Some(tail), _) => (tail.related.0 != 0).then_some(tail.related),
            (None, Kind::Reverse | Kind::Tombstone) => Some(entry.original()?.0),
            _ => None,
        };
        let is_ours = |id: Option<RequestId>| related.is_some() && related == id;
        let (same, original) = (is_ours(self.request), is_ours(self.original));
        match head.kind {
            Kind::Tombstone => {
                past.tombstone |= if self.original.is_some() { original } else { same };
                past.poisoned |= same;
            }
            Kind::Reverse => {
                past.same_reversed |= same;
                past.original_reversed |= original;
            }
            // What is older than the original is about another one of the same id, of the card before.
            Kind::RefundValue if original && past.original.is_none() => {
                past.was_refunded = true;
                past.refunded += value.as_ref().map_or(0, |tail| tail.amount);
            }
            _ => {}
        }
        let ends = matches!(head.kind, Kind::Capture | Kind::Release | Kind::HoldTimeout | Kind::Reverse);
        if original && ends {
            past.resolved = Some(head.kind);
        }
        if head.kind == Kind::HoldTimeout {
            // The engine's own: it has no id.
            return Ok(related);
        }
        if Some(head.request) == self.request {
            past.same = Some(Effect { reversed: past.same_reversed, ..Effect::of(entry) });
        }
        if Some(head.request) == self.original {
            past.original = Some(Effect { reversed: past.original_reversed, ..Effect::of(entry) });
        }
        Ok(related)
    }
}

/// The newest of a card's chain, as far as the next entry about its value needs it.
#[derive(Default)]
pub struct Top {
    /// The newest entry that tells the card's value.
    pub value: Option<(Lsn, Box<ValueTail>)>,
    /// The ids in the entries above that, or in all if there is none.
    pub loose: Vec<RequestId>,
    /// The card's sale, or the return that took it back.
    pub sale: Option<Lsn>,
}

impl Chain<'_> {
    /// What a card's chain says about a request. Entries that tell the card's value are not all read: see
    /// [`record::Trail`](crate::record::Trail).
    ///
    /// # Errors
    /// See [`ChainError`].
    pub fn past(&mut self, card: CardRef, word: Word, sought: &Sought) -> Result<(Past, Top), ChainError> {
        let mut past = Past::default();
        let mut top = Top::default();
        if !word.flags().contains(Flags::HAS_EFFECTS) {
            top.sale = word.lsn();
            return Ok((past, top));
        }
        self.walk(card, word, |entry, word| {
            if !word.flags().contains(Flags::HAS_EFFECTS) {
                top.sale = top.sale.or(word.lsn());
                return Ok(false);
            }
            if entry.head.kind.is_order() {
                // The id of a sale belongs to its order, not to the card.
                top.sale = top.sale.or(Some(entry.lsn));
                return Ok(true);
            }
            if entry.head.kind == Kind::Replacement {
                // This is how it was sold.
                top.sale = top.sale.or(Some(entry.lsn));
            }
            if let Some(tail) = entry.value()? {
                past.tombstones += u32::from(tail.purse.tombstones);
                past.reversals += u32::from(tail.purse.reversals);
                top.value = Some((entry.lsn, Box::new(tail)));
                return Ok(false);
            }
            let related = sought.looks_at(entry, &mut past)?;
            if entry.head.kind == Kind::Activate {
                past.activated_ms = past.activated_ms.max(entry.time_ms);
            }
            past.tombstones += u32::from(entry.head.kind == Kind::Tombstone);
            past.reversals += u32::from(entry.head.kind == Kind::Reverse);
            if sought.collects {
                top.loose.extend([entry.head.request].into_iter().chain(related));
            }
            Ok(!planted("last-entry-only"))
        })?;
        let mut at = top.value.as_ref().map(|(lsn, tail)| (*lsn, tail.as_ref().clone()));
        while let Some((lsn, tail)) = at {
            if tail.chapters.is_empty() {
                if sought.may_be_in(&tail.trail.filter) {
                    self.chapter(card, lsn, sought, &mut past)?;
                }
            } else {
                for (last, filter) in tail.chapters.iter().rev() {
                    if sought.may_be_in(filter) {
                        self.chapter(card, last.unwrap_or(lsn), sought, &mut past)?;
                    }
                }
            }
            if planted("last-entry-only") {
                break;
            }
            let next = if tail.chapters.is_empty() { tail.trail.skip } else { tail.trail.volume };
            at = match next {
                Some(next) => Some((next, self.value_at(next)?)),
                None => None,
            };
        }
        if top.sale.is_none() {
            top.sale = top.value.as_ref().and_then(|(_, tail)| tail.purse.sale);
        }
        // Its sale as its value tells it: a return that came since changes nothing about what was before.
        let sold = top.value.as_ref().and_then(|(_, tail)| tail.purse.sale);
        if let (Some(original), None, Some(sale)) = (sought.original, past.original, sold) {
            self.past_before(card, sale, &Sought::elsewhere(original, &sought.key), &mut past)?;
        }
        Ok((past, top))
    }

    /// What the chain of the card before says about an original, if `card`, with its sale at `sale`, took the place of
    /// one: there it can be undone no more.
    fn past_before(
        &mut self,
        card: CardRef,
        sale: Lsn,
        sought: &Sought,
        past: &mut Past,
    ) -> Result<(), ChainError> {
        // What tells its value after a return names that: the sale is what it took back.
        let sale = match self.kind_at(sale)? {
            Some(Kind::Return) => self.sale_returned(card, sale)?,
            _ => Some(sale),
        };
        let Some(sale) = sale else { return Ok(()) };
        if self.kind_at(sale)? != Some(Kind::Replacement) {
            return Ok(());
        }
        let entry = self.entry(sale)?;
        if entry.value()?.is_none() {
            // A card that is used as a whole has nothing to be given back when it is replaced.
            return Ok(());
        }
        let pair = entry.pair()?;
        let lsn = pair.before().ok_or(FormatError { what: "a replacement of nothing", lsn: sale })?;
        let word = self.entry(lsn)?.post();
        let (before, _) = self.past(pair.other, word, sought)?;
        // All else ended with that card.
        let Some(original) = before.original else { return Ok(()) };
        if !matches!(original.kind, Kind::Redeem | Kind::Capture | Kind::Load) {
            return Ok(());
        }
        let reversed = original.reversed || past.original_reversed;
        past.original = Some(Effect { reversed, ..original });
        past.was_refunded |= before.was_refunded;
        past.refunded += before.refunded;
        Ok(())
    }

    /// What the entry at `lsn` did, by its first byte: a sale may be long, and is seldom what is looked for.
    fn kind_at(&self, lsn: Lsn) -> Result<Option<Kind>, ChainError> {
        let mut head = [0; 8];
        self.wal.read_bytes(lsn, &mut head).map_err(|source| ChainError::Read { lsn, source })?;
        Ok(Kind::from_number(head[0]))
    }

    /// The sale of a card that the return at `lsn` took back; `None` if it was sold in another system.
    fn sale_returned(&mut self, card: CardRef, lsn: Lsn) -> Result<Option<Lsn>, ChainError> {
        let mut sale = None;
        self.walk(card, Word::new(lsn, Lifecycle::Returned, Flags::NONE), |entry, _| {
            if entry.lsn == lsn {
                return Ok(true);
            }
            let is_sale = entry.head.kind.is_order() || entry.head.kind == Kind::Replacement;
            let value = if is_sale { None } else { entry.value()? };
            sale = if is_sale { Some(entry.lsn) } else { value.as_ref().and_then(|tail| tail.purse.sale) };
            Ok(!is_sale && value.is_none())
        })?;
        Ok(sale)
    }

    /// The card that took the place of one which is void because of that.
    ///
    /// # Errors
    /// See [`ChainError`].
    pub fn successor(&mut self, card: CardRef, word: Word) -> Result<Option<CardRef>, ChainError> {
        let mut other = None;
        // Above it there is little: such a card can be frozen, and holds that were over may end.
        self.walk(card, word, |entry, word| {
            if entry.head.kind == Kind::Replace {
                other = Some(entry.pair()?.other);
            }
            Ok(other.is_none() && word.flags().contains(Flags::REPLACED))
        })?;
        Ok(other)
    }

    /// The entries of one chapter from its last, or last so far, back.
    fn chapter(
        &mut self,
        card: CardRef,
        last: Lsn,
        sought: &Sought,
        past: &mut Past,
    ) -> Result<(), ChainError> {
        let mut before = None;
        let word = self.entry(last)?.post();
        self.walk(card, word, |entry, word| {
            if entry.lsn == last {
                before = entry.value()?.and_then(|tail| tail.trail.skip);
            }
            if before == Some(entry.lsn) || !word.flags().contains(Flags::HAS_EFFECTS) {
                return Ok(false);
            }
            if !entry.head.kind.is_order() {
                sought.looks_at(entry, past)?;
            }
            Ok(true)
        })
    }

    /// What the entry at `lsn` says about its card's value.
    fn value_at(&mut self, lsn: Lsn) -> Result<ValueTail, ChainError> {
        let tail = self.entry(lsn)?.value()?;
        Ok(tail.ok_or(FormatError { what: "a card's trail leads to an entry without its value", lsn })?)
    }

    /// The trail of the entry after `top`, without that entry's own ids; and, if it is the last of its volume, the
    /// chapters before its own.
    ///
    /// # Errors
    /// See [`ChainError`].
    pub fn trail(&mut self, top: &Top, key: &MarkKey) -> Result<(Trail, Vec<Chapter>), ChainError> {
        let mut trail = Trail::default();
        let mut chapters = Vec::new();
        if let Some((lsn, tail)) = &top.value {
            let number = tail.purse.effects;
            trail = tail.trail;
            if number.is_multiple_of(CHAPTER_ENTRIES) {
                trail = Trail { filter: Filter::default(), skip: Some(*lsn), ..trail };
            }
            if number.is_multiple_of(VOLUME_ENTRIES) {
                trail.volume = Some(*lsn);
            }
            if (number + 1).is_multiple_of(VOLUME_ENTRIES) {
                let mut next = trail.skip;
                while let Some(lsn) = next.filter(|lsn| Some(*lsn) > trail.volume) {
                    let tail = self.value_at(lsn)?;
                    chapters.push((Some(lsn), tail.trail.filter));
                    next = tail.trail.skip;
                }
                chapters.reverse();
            }
        }
        for id in &top.loose {
            trail.filter.add(key.mark(*id));
        }
        Ok((trail, chapters))
    }
}
