//! Walking an object's entries back through the log.
//!
//! Retries are recognised and histories told from the log itself: a card's word leads to its last entry,
//! each entry to the one before. This reads from memory or disk, so it happens before the sequencer's
//! lock is taken; the sequencer then checks that the word is still the one the walk began with.

use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};
use std::io;

use kami_wal::{Lsn, RECORD_HEAD_BYTES, ReadError, Wal, planted};

use crate::account::LEGS_MAX;
use crate::card::{Effect, Past};
use crate::identity::{AccountId, BatchId, OrderId, PrincipalId, RequestId};
use crate::orders::OrderWord;
use crate::origin::Origin;
use crate::record::{
    Allocation, CHAPTER_ENTRIES, Chapter, Entry, Filter, FormatError, Group, Kind, Mark, MarkKey, OrderFacts,
    Trail, VOLUME_ENTRIES, ValueTail, way_back,
};
use crate::reply::StatementLine;
use crate::sequencer::{OrderPast, PlaceChange};
use crate::state::OrderMove;
use crate::table::Batch;
use crate::word::{CardRef, Flags, Lifecycle, Word};

/// Why an entry could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// The log did not yield the record.
    #[error("an entry cannot be read: lsn=`{lsn}`")]
    Read {
        /// Where.
        lsn: Lsn,
        /// Why.
        source: ReadError,
    },
    /// The record is no group of entries.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// What a card was before its import cannot be read from its batch file.
    #[error("the batch file cannot be read: batch=`{batch}`")]
    Origin {
        /// Which batch.
        batch: BatchId,
        /// Why.
        source: io::Error,
    },
}

/// What a card was in the system that it comes from, if its batch says so: where its chain ends.
///
/// # Errors
/// See [`ChainError`].
pub fn origin_of(batch: &Batch, card: CardRef) -> Result<Option<Origin>, ChainError> {
    batch.origin(card.row()).map_err(|source| ChainError::Origin { batch: batch.id, source })
}

/// What a card's chain is searched for.
pub struct Sought {
    /// The request itself; `None` where its id belongs to another card.
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

impl Effect {
    fn of(entry: &Entry<'_>) -> Effect {
        let head = &entry.head;
        // Damage was told of where the entry was first looked at.
        let value = entry.value().ok().flatten().unwrap_or_default();
        Effect {
            kind: head.kind,
            lsn: entry.lsn,
            time_ms: entry.time_ms,
            principal: head.principal,
            merchant: head.merchant,
            body: head.body,
            reversed: false,
            amount: value.amount,
            remaining: value.purse.remaining,
            held: value.purse.held,
            deadline_ms: value.time_ms,
            other: if head.kind == Kind::Replace { entry.pair().ok().map(|pair| pair.other) } else { None },
        }
    }
}

/// Reads entries, reusing one buffer.
pub struct Chain<'a> {
    wal: &'a Wal,
    buffer: &'a mut Vec<u8>,
    /// Entries read so far, for the tests.
    #[cfg(test)]
    reads: usize,
}

impl<'a> Chain<'a> {
    /// A reader over `wal`.
    pub fn new(wal: &'a Wal, buffer: &'a mut Vec<u8>) -> Self {
        Chain {
            wal,
            buffer,
            #[cfg(test)]
            reads: 0,
        }
    }

    /// The entry that begins at `lsn`; its whole record is checked.
    ///
    /// # Errors
    /// See [`ChainError`].
    pub fn entry(&mut self, lsn: Lsn) -> Result<Entry<'_>, ChainError> {
        #[cfg(test)]
        {
            self.reads += 1;
        }
        let read = |source| ChainError::Read { lsn, source };
        let mut head = [0; 8];
        self.wal.read_bytes(lsn, &mut head).map_err(read)?;
        let record = lsn.bytes().checked_sub(way_back(&head)).and_then(Lsn::from_bytes);
        let record = record.ok_or(FormatError { what: "entry before the log", lsn })?;
        self.wal.read(record, self.buffer).map_err(read)?;
        Ok(Group::parse(self.buffer, record.plus(RECORD_HEAD_BYTES))?.entry_at(lsn)?)
    }

    /// The entries of one card from `word` back, newest first, until `visit` says stop or only the
    /// import is left.
    ///
    /// # Errors
    /// See [`ChainError`].
    pub fn walk(
        &mut self,
        card: CardRef,
        word: Word,
        mut visit: impl FnMut(&Entry<'_>, Word) -> Result<bool, FormatError>,
    ) -> Result<(), ChainError> {
        let mut word = word;
        while let Some(lsn) = word.lsn() {
            let entry = self.entry(lsn)?;
            let prev = entry
                .word_before(card)?
                .ok_or(FormatError { what: "a card's chain leads to an entry without it", lsn })?;
            if prev.lsn() >= Some(lsn) {
                return Err(FormatError { what: "a card's chain does not fall", lsn }.into());
            }
            if !visit(&entry, word)? {
                return Ok(());
            }
            word = prev;
        }
        Ok(())
    }

    /// The entries about orders that moved uses of a card that is sold many times, from `last` back, newest first, each
    /// with the word that the card had then, until `visit` says stop or none is left.
    ///
    /// # Errors
    /// See [`ChainError`].
    pub fn walk_uses(
        &mut self,
        card: CardRef,
        last: Option<Lsn>,
        mut visit: impl FnMut(&Entry<'_>, Word) -> Result<bool, FormatError>,
    ) -> Result<(), ChainError> {
        let mut next = last;
        while let Some(lsn) = next {
            let entry = self.entry(lsn)?;
            let (_, cards, facts) = entry.order()?;
            let used = cards.use_of(card);
            let used =
                used.ok_or(FormatError { what: "a use of a card leads to an entry without it", lsn })?;
            if used.before >= Some(lsn) {
                return Err(FormatError { what: "the uses of a card do not fall", lsn }.into());
            }
            let moved = OrderMove::post_of_shared(entry.head.kind, facts.sealed, used.word);
            let word = match moved {
                Some((lifecycle, added)) => Word::new(lsn, lifecycle, used.word.flags().with(added)),
                None => used.word,
            };
            if !visit(&entry, word)? {
                return Ok(());
            }
            next = used.before;
        }
        Ok(())
    }

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

    /// What the entries of a batch, product or principal say about a request: these chain by `prev`.
    ///
    /// # Errors
    /// See [`ChainError`].
    pub fn object_past(&mut self, last: Lsn, request: RequestId) -> Result<Past, ChainError> {
        let mut next = Some(last);
        while let Some(lsn) = next {
            let entry = self.entry(lsn)?;
            let head = &entry.head;
            if head.request == request {
                let effect = Effect::of(&entry);
                return Ok(Past { same: Some(effect), ..Past::default() });
            }
            next = entry.prev().lsn();
        }
        Ok(Past::default())
    }

    /// Up to `count` lines of the statement of an account, newest first, from its entry at `from` on; and
    /// where the next one stands.
    ///
    /// # Errors
    /// See [`ChainError`]; also if the entry at `from` moved no money of this account.
    pub fn statement(
        &mut self,
        account: AccountId,
        from: Option<Lsn>,
        count: u32,
    ) -> Result<(Vec<StatementLine>, Option<Lsn>), ChainError> {
        let mut lines = Vec::new();
        let mut next = from;
        while let Some(lsn) = next
            && lines.len() < count as usize
        {
            let entry = self.entry(lsn)?;
            let (related, legs) = entry.money()?;
            debug_assert!(legs.len() <= LEGS_MAX, "decoding bounds them");
            let own: Vec<_> = legs.iter().filter(|posted| posted.leg.account == account).collect();
            let Some(last) = own.last() else {
                return Err(FormatError { what: "an entry without money of the account", lsn }.into());
            };
            if last.prev >= Some(lsn) {
                return Err(FormatError { what: "an account's chain does not fall", lsn }.into());
            }
            lines.push(StatementLine {
                lsn,
                time_ms: entry.time_ms,
                kind: entry.head.kind,
                principal: entry.head.principal,
                channel: entry.head.channel,
                related,
                amount: own.iter().fold(0, |sum, posted| sum.saturating_add(posted.leg.amount)),
                balance: last.balance,
            });
            next = last.prev;
        }
        Ok((lines, next))
    }

    /// What the entry at `lsn` did and with which request, and the entry.
    ///
    /// # Errors
    /// See [`ChainError`].
    pub fn effect(&mut self, lsn: Lsn) -> Result<(Effect, RequestId, Entry<'_>), ChainError> {
        let entry = self.entry(lsn)?;
        let head = &entry.head;
        let (effect, request) = (Effect::of(&entry), head.request);
        Ok((effect, request, entry))
    }

    /// What became of an order whose word is `word`, and what it says about a request.
    ///
    /// # Errors
    /// See [`ChainError`].
    pub fn order(
        &mut self,
        order: OrderId,
        word: OrderWord,
        request: RequestId,
    ) -> Result<OrderPast, ChainError> {
        let mut past = OrderPast {
            order,
            word,
            same: None,
            buyer: PrincipalId(0),
            cards: Allocation::default(),
            sold_at: word.lsn(),
            sealed: false,
            returned: HashSet::new(),
            returns: 0,
            replaced: HashMap::new(),
            placed: HashMap::new(),
            replacements: 0,
            opened_ms: 0,
            deadline_ms: 0,
            facts: OrderFacts::default(),
        };
        let mut owned = false;
        let mut changes = Vec::new();
        let mut next = Some(word);
        while let Some(word) = next {
            let lsn = word.lsn();
            let entry = self.entry(lsn)?;
            let head = &entry.head;
            // A time-out is the engine's own, and has no id; that of a replacement belongs to the card.
            let has_id = !matches!(head.kind, Kind::ReserveTimeout | Kind::Replace);
            if head.request == request && has_id {
                past.same = Some(Effect::of(&entry));
            }
            (past.buyer, past.opened_ms) = (head.principal, entry.time_ms);
            let prev = if head.kind == Kind::Reveal {
                entry.first_reveal().unwrap_or(0)
            } else if head.kind == Kind::Replace {
                let pair = entry.pair()?;
                if pair.order != order {
                    return Err(FormatError { what: "an order's chain leads to another order", lsn }.into());
                }
                past.replacements += 1;
                changes.push(PlaceChange::Replaced(entry.card(), pair.other, entry.end()));
                pair.link
            } else {
                let (named, cards, facts) = entry.order()?;
                if named != order {
                    return Err(FormatError { what: "an order's chain leads to another order", lsn }.into());
                }
                let prev = facts.prev;
                match head.kind {
                    Kind::Return => {
                        past.returns += 1;
                        changes.push(PlaceChange::Returned(cards));
                    }
                    Kind::Sell | Kind::Export | Kind::Reserve | Kind::Confirm | Kind::Realloc if !owned => {
                        owned = true;
                        (past.cards, past.sold_at, past.sealed) = (cards, lsn, facts.sealed);
                    }
                    _ => {}
                }
                past.facts = facts;
                prev
            };
            next = OrderWord::from_bits(prev);
            if next.is_some_and(|next| next.lsn() >= lsn) {
                return Err(FormatError { what: "an order's chain does not fall", lsn }.into());
            }
        }
        past.deadline_ms = past.facts.moment_ms;
        past.follow(changes.into_iter().rev());
        Ok(past)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Status;
    use crate::command::Command;
    use crate::index::Index;
    use crate::product::{CardKind, ProductSpec};
    use crate::tested::Store;

    /// A card's last redemption was said to cost little more than its first, and nothing would have told if it did not.
    #[test]
    fn the_last_of_many_redemptions_walks_no_further_than_the_first() {
        let store = Store::new();
        let gift = ProductSpec::single("gift", *b"CNY", 1 << 40);
        let product = store.stock(ProductSpec { kind: CardKind::StoredValue, ..gift }, 1);
        store.sell(product, 1);
        let card = store.digest("gift-0");
        let (session, sequencer) = (store.session(), store.engine().sequencer());
        let mut buffer = Vec::new();
        // How many entries the next request, or one that comes again, has read.
        let mut reads = |id: u128| {
            let (batch, card) = sequencer.batch_of(sequencer.index.find(card, &Index::pin())).unwrap();
            let mut chain = Chain::new(&sequencer.wal, &mut buffer);
            let sought = Sought::new(RequestId(id), None, &sequencer.marks, true);
            let (past, top) = chain.past(card, batch.word(card.row()), &sought).unwrap();
            chain.trail(&top, &sequencer.marks).unwrap();
            (past.same.is_some(), chain.reads)
        };
        let redeem = || Command::Redeem { card, pin: None, amount: 1, partial: false };
        let (mut most, mut all) = (0, 0);
        for n in 0..5000 {
            let (known, read) = reads(1000 + n);
            assert!(!known, "{n}");
            (most, all) = (most.max(read), all + read);
            assert_eq!(session.run(RequestId(1000 + n), redeem()).wait().unwrap().status, Status::Ok);
        }
        // Chapters of the volume, the volumes before it: some 40. Of 156 chapters one in 700 looks as if it had the id
        // and costs its 32 entries; ten such at once happen in one of 10^9 runs.
        assert!(most < 400 && all < 5000 * 60, "{most} at most, {} on average", all / 5000);
        for n in (0..5000).step_by(50) {
            let (known, read) = reads(1000 + n);
            assert!(known && read < 400, "{n}: {read}");
        }
    }

    /// A code that was sold a thousand times is redeemed as one that was sold once: its own chain has its first sale.
    #[test]
    fn no_command_about_a_code_walks_over_its_sales() {
        let store = Store::new();
        let mut spec = ProductSpec { kind: CardKind::Shared, ..ProductSpec::single("vpn", *b"CNY", 100) };
        spec.terms.uses = 5000;
        let product = store.stock(spec, 1);
        let card = store.digest("vpn-0");
        let (session, sequencer) = (store.session(), store.engine().sequencer());
        let mut buffer = Vec::new();
        for n in 0..1000_u128 {
            session.sell(RequestId(1000 + n), OrderId(n), product, 1).wait().unwrap();
            if n % 100 == 50 {
                let redeem = Command::Redeem { card, pin: None, amount: 1, partial: false };
                assert_eq!(session.run(RequestId(10_000 + n), redeem).wait().unwrap().status, Status::Ok);
            }
            let (batch, card) = sequencer.batch_of(sequencer.index.find(card, &Index::pin())).unwrap();
            let mut chain = Chain::new(&sequencer.wal, &mut buffer);
            // The first redemption, which is read down to.
            let sought = Sought::new(RequestId(10_050), None, &sequencer.marks, true);
            let (past, _) = chain.past(card, batch.word(card.row()), &sought).unwrap();
            assert_eq!(past.same.is_some(), n >= 50);
            assert!(chain.reads <= 2 * 10 + 3, "{} after {n} sales", chain.reads);
        }
    }
}
