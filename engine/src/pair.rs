//! What moves two cards: REPLACE, which puts another card in the place of a sold one, and TRANSFER, which moves value
//! from one card to another.
//!
//! | command | the first card | the second card | the order |
//! |---|---|---|---|
//! | REPLACE | SOLD → VOIDED | AVAILABLE → SOLD, with what the first was worth | has the second in the first one's place |
//! | TRANSFER of a part | SOLD | SOLD | – |
//! | TRANSFER of all | SOLD → VOIDED | SOLD | – |
//!
//! A replacement goes on where the card before it stopped: what is left on it, what was redeemed, settled and refunded,
//! when it ends, whether it is active. So what was redeemed of the card before can be reversed and refunded at the card
//! in its place, by the same id, and nowhere else. It belongs to the same order, whose buyer fetches its code.
//!
//! # Invariants
//! * Both cards move in one group of entries, each in its own chain, and name each other: a record of the log is there
//!   as a whole or not at all.
//! * What is held of the first card is held for somebody: as long as it is, neither command moves the card.
//! * The sum of what is left on both cards is the same before and after. What came from another card counts as loaded,
//!   and what went to one is taken off that (I3).
//! * A card that was replaced belongs to no order any more, and never leaves VOIDED (I9). Its replacement was in stock,
//!   its code unseen, and belongs to one order (I2, I10).

use kami_wal::Lsn;

use crate::card::{Past, View, unusable};
use crate::chain::{Chain, ChainError, Sought};
use crate::command::{Command, Request};
use crate::identity::{CardDigest, OrderId};
use crate::index::Index;
use crate::orders::{OrderState, OrderWord};
use crate::product::{CardKind, Money};
use crate::record::{
    GroupWriter, HEAD_BYTES, Head, Kind, PAIR_BYTES, Pair, Purse, VALUE_BYTES, VOLUME_BYTES, ValueTail,
};
use crate::reply::{Reply, ReplyBody, ReplyFlags, ValueReport};
use crate::sequencer::{Detail, GROUP_BYTES, OrderPast, Prepared, Sequencer, Turn, Wallet, Work};
use crate::state::State;
use crate::status::Status;
use crate::stock::Search;
use crate::subject::{count_validity, report};
use crate::table::Batch;
use crate::value::{EFFECTS_MAX, Value};
use crate::word::{CardRef, Flags, Lifecycle, Word};

/// Cards of one order are replaced at most this often: every command about the order reads the entries.
pub const REPLACEMENTS_MAX: u32 = 256;

/// Bytes of one of the two entries, if it does not end a volume.
pub(crate) const PAIR_ENTRY_BYTES: usize = HEAD_BYTES + PAIR_BYTES + VALUE_BYTES;

/// A sold card is to be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replace {
    /// The card.
    pub card: CardDigest,
    /// The card that takes its place; `None` takes the next of the same kind from stock.
    pub with: Option<CardDigest>,
}

/// Value is to go from one card to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// The card it leaves.
    pub from: CardDigest,
    /// The card it goes to.
    pub to: CardDigest,
    /// How much; 0 is all, and makes the card it leaves void.
    pub amount: Money,
}

/// One of two cards, as it was read before the lock.
pub(crate) struct Side {
    card: CardRef,
    word: Word,
    past: Past,
    wallet: Wallet,
}

/// What was read for a pair beside its first card.
pub(crate) struct PairRead {
    /// The second card, if there is one; of a retry the one of the first time.
    second: Option<Side>,
    /// The order of the first card, if that is to be replaced.
    order: Option<OrderPast>,
}

/// What a card becomes.
struct After {
    kind: Kind,
    lifecycle: Lifecycle,
    flags: Flags,
    /// What moves, and what is on it then; of a card that is used as a whole nothing is told.
    value: Option<(Money, Purse)>,
}

/// What a decision about one of the cards rests on.
struct Seen<'a> {
    batch: &'a Batch,
    card: CardRef,
    word: Word,
    view: View,
    value: Value,
    past: &'a Past,
}

impl Seen<'_> {
    fn is_single(&self) -> bool {
        self.view.kind == CardKind::Single
    }

    /// What is on the card, as its next entry is to tell it.
    fn purse(&self) -> Purse {
        let count = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
        let before = self.value.purse;
        Purse {
            held: self.value.held.amount,
            effects: before.effects + 1,
            tombstones: count(self.past.tombstones),
            reversals: count(self.past.reversals),
            begun_ms: self.view.begun_ms,
            ..before
        }
    }

    /// Why nothing can be moved from the card, whatever it is worth.
    fn refusal(&self) -> Option<Status> {
        let spent = match self.view.kind {
            CardKind::MultiUse => Status::UsesExhausted,
            _ => Status::AlreadyRedeemed,
        };
        match self.view.lifecycle() {
            _ if self.word.is_unsold() => Some(Status::NotSold),
            Lifecycle::Redeemed => Some(spent),
            Lifecycle::Voided if self.view.flags().contains(Flags::REPLACED) => Some(Status::Replaced),
            Lifecycle::Voided => Some(Status::Voided),
            Lifecycle::Returned => Some(Status::Returned),
            // Somebody counts on what is held.
            _ if 0 < self.value.held.live => Some(Status::IllegalTransition),
            Lifecycle::Expired => Some(Status::Expired),
            // What is not sold was dealt with first.
            Lifecycle::Sold | Lifecycle::Available | Lifecycle::Reserved => None,
        }
    }
}

/// Whether cards of a batch can take the place of `old`: it must not matter to whoever has the card that it is another
/// one. Asked of the batch, so that no row of one that does not fit is looked at.
fn batch_fits(old: &Seen<'_>, batch: &Batch) -> bool {
    let begins = |batch: &Batch| batch.valid_from_ms.max(old.view.now_ms);
    batch.product == old.batch.product
        && batch.validity == old.batch.validity
        && batch.columns.pins.is_empty() == old.batch.columns.pins.is_empty()
        && begins(batch) == begins(old.batch)
}

/// Whether a card in stock can, whose batch fits and which ends at `expires_ms`: an end that follows from what happens
/// to the card must not be there before.
fn end_fits(old: &Seen<'_>, expires_ms: u64) -> bool {
    old.view.expires_ms != 0 || old.batch.validity.is_none() || expires_ms == 0
}

/// The end that a card is to be given that takes the place of `old`; `None` if its own is the same.
fn end_of(old: &Seen<'_>, new: &View) -> Option<u64> {
    let end_ms = old.view.expires_ms;
    match old.batch.validity {
        // It follows from what happens to the card.
        Some(_) if end_ms == 0 => None,
        Some(_) => Some(end_ms),
        None => (new.expires_ms != end_ms).then_some(end_ms),
    }
}

/// What the two cards become when the second takes the place of the first, and the end that the second is given.
fn replaced(old: &Seen<'_>, new: &Seen<'_>, seen: bool) -> Result<(After, After, Option<u64>), Status> {
    let left = old.value.purse.remaining;
    let end_ms = end_of(old, &new.view);
    let had = old.word.flags();
    let mut flags = new.word.flags().with(Flags::HAS_EFFECTS);
    for mark in [Flags::USED, Flags::SETTLED] {
        if had.contains(mark) {
            flags = flags.with(mark);
        }
    }
    if seen {
        flags = flags.with(Flags::REVEALED);
    }
    if end_ms.is_some() {
        flags = flags.with(Flags::OWN_END);
    }
    // Asked of what it has by itself: one that is in use is active whatever is said.
    let active = old.view.flags().contains(Flags::ACTIVE);
    if new.view.flags().contains(Flags::ACTIVE) != active {
        let (mark, other) =
            if active { (Flags::ACTIVE, Flags::INACTIVE) } else { (Flags::INACTIVE, Flags::ACTIVE) };
        flags = flags.with(mark).without(other);
    }
    let (mut given, mut taken) = (None, None);
    if !old.is_single() {
        let (before, own) = (old.purse(), new.purse());
        let gone = before.loaded.checked_sub(left).ok_or(Status::EffectsExhausted)?;
        given = Some((left, Purse { remaining: 0, held: 0, loaded: gone, ..before }));
        let Purse { redeemed, refunded, settled, .. } = before;
        let initial = own.initial().ok_or(Status::EffectsExhausted)?;
        let loaded = left.checked_add(redeemed).and_then(|sum| sum.checked_sub(refunded));
        let loaded = loaded.and_then(|sum| sum.checked_sub(initial)).ok_or(Status::EffectsExhausted)?;
        let begun_ms = before.begun_ms;
        let purse = Purse {
            remaining: left,
            held: 0,
            redeemed,
            loaded,
            refunded,
            settled,
            begun_ms,
            sale: None,
            ..own
        };
        taken = Some((left, purse));
    }
    let given = After {
        kind: Kind::Replace,
        lifecycle: Lifecycle::Voided,
        flags: had.with(Flags::HAS_EFFECTS).with(Flags::REPLACED),
        value: given,
    };
    let taken = After { kind: Kind::Replacement, lifecycle: Lifecycle::Sold, flags, value: taken };
    Ok((given, taken, end_ms))
}

/// What the two cards become when value goes from the first to the second.
fn transferred(
    from: &Seen<'_>,
    to: &Seen<'_>,
    amount: Money,
    value_max: Money,
) -> Result<(After, After), Status> {
    let left = from.value.purse.remaining;
    let moved = match amount {
        ..0 => return Err(Status::Malformed),
        0 => left,
        amount => amount,
    };
    let all = moved == left;
    match from.view.kind {
        CardKind::MultiUse if left == 0 => return Err(Status::UsesExhausted),
        _ if left == 0 || left < moved => return Err(Status::InsufficientValue),
        // It ends with this, so that what cannot move any more can still be emptied.
        _ if !all && from.value.purse.effects >= EFFECTS_MAX => return Err(Status::EffectsExhausted),
        _ => {}
    }
    if unusable(&to.view).is_some() || to.value.purse.effects >= EFFECTS_MAX {
        return Err(Status::OtherUnfit);
    }
    let (before, own) = (from.purse(), to.purse());
    let full = own.remaining.checked_add(moved).filter(|sum| *sum <= value_max);
    let remaining = full.ok_or(Status::ValueLimit)?;
    let loaded = own.loaded.checked_add(moved).ok_or(Status::EffectsExhausted)?;
    let gone = before.loaded.checked_sub(moved).ok_or(Status::EffectsExhausted)?;
    let flags = from.word.flags().with(Flags::HAS_EFFECTS);
    let given = After {
        kind: Kind::Transfer,
        lifecycle: if all { Lifecycle::Voided } else { Lifecycle::Sold },
        flags: if all { flags.with(Flags::REPLACED) } else { flags },
        value: Some((moved, Purse { remaining: left - moved, loaded: gone, ..before })),
    };
    let taken = After {
        kind: Kind::Receive,
        lifecycle: Lifecycle::Sold,
        flags: to.word.flags().with(Flags::HAS_EFFECTS),
        value: Some((moved, Purse { remaining, loaded, ..own })),
    };
    Ok((given, taken))
}

/// What is asked of two cards.
#[derive(Clone, Copy)]
enum Asked {
    Replace { with: Option<CardDigest> },
    Transfer { amount: Money },
}

impl Asked {
    /// The codes of both cards, and what is asked.
    fn of(command: &Command) -> (CardDigest, Option<CardDigest>, Asked) {
        match command {
            Command::Replace(pair) => (pair.card, pair.with, Asked::Replace { with: pair.with }),
            Command::Transfer(pair) => (pair.from, Some(pair.to), Asked::Transfer { amount: pair.amount }),
            _ => unreachable!("the caller matched the command"),
        }
    }

    const fn kind(self) -> Kind {
        match self {
            Asked::Replace { .. } => Kind::Replace,
            Asked::Transfer { .. } => Kind::Transfer,
        }
    }
}

impl Sequencer {
    /// Reads both cards of a pair, and the order of the first.
    pub(crate) fn read_pair(
        &self,
        request: &Request,
        prepared: &mut Prepared,
        buffer: &mut Vec<u8>,
    ) -> Result<(), ChainError> {
        let (first, named, asked) = Asked::of(&request.command);
        let (first, named) = {
            let guard = Index::pin();
            let find = |digest: CardDigest| self.index.find(digest, &guard);
            (find(first), named.and_then(find))
        };
        let Some((batch, card)) = self.batch_of(first) else { return Ok(()) };
        (prepared.card, prepared.absent_at) = (Some(card), None);
        prepared.word = batch.word(card.row());
        let Side { past, wallet, word, .. } = self.read_side(request, card, buffer)?;
        prepared.word = word;
        let again = past.same.filter(|same| same.kind == Kind::Replace).and_then(|same| same.other);
        let replaces = matches!(asked, Asked::Replace { .. });
        let mut order = None;
        if let Some(sale) = wallet.sale
            && replaces
            && again.is_none()
            && word.lifecycle() == Lifecycle::Sold
        {
            order = self.read_order_of(request, sale, buffer)?;
        }
        let second = match (again, asked) {
            (Some(other), _) => Some(other),
            (None, Asked::Replace { with: None }) => {
                let state = self.state();
                let seen = state.seen(batch, card, word, &past, wallet.purse);
                let mut search = Search::default();
                let found = state.find_like(&self.table, &seen, &mut search);
                found.then(|| search.cards.cards().next().expect("one was found").0)
            }
            (None, _) => named,
        };
        let second = second.filter(|other| self.table.batch_of(*other).is_some());
        let second = second.map(|other| self.read_side(request, other, buffer)).transpose()?;
        let entry_bytes = |wallet: Option<&Wallet>| {
            let ends_volume = wallet.is_some_and(|wallet| !wallet.chapters.is_empty());
            PAIR_ENTRY_BYTES + request.grounds_bytes() + if ends_volume { VOLUME_BYTES } else { 0 }
        };
        prepared.log_bytes = 2 * GROUP_BYTES
            + entry_bytes(Some(&wallet))
            + entry_bytes(second.as_ref().map(|second| &second.wallet));
        prepared.set_past(past);
        prepared.wallet = Some(Box::new(wallet));
        prepared.detail = Detail::Pair(Box::new(PairRead { second, order }));
        Ok(())
    }

    fn read_side(&self, request: &Request, card: CardRef, buffer: &mut Vec<u8>) -> Result<Side, ChainError> {
        let batch = self.table.batch_of(card).expect("the caller looked for it");
        let word = batch.word(card.row());
        let sought = Sought::new(request.id, None, &self.marks, true);
        let (past, wallet) = self.read_value(&sought, card, word, &mut Chain::new(&self.wal, buffer))?;
        Ok(Side { card, word, past, wallet })
    }

    /// The order that bought a card, whose sale is the entry at `sale`.
    fn read_order_of(
        &self,
        request: &Request,
        sale: Lsn,
        buffer: &mut Vec<u8>,
    ) -> Result<Option<OrderPast>, ChainError> {
        let mut chain = Chain::new(&self.wal, buffer);
        let entry = chain.entry(sale)?;
        let order = match entry.head.kind {
            Kind::Replacement => entry.pair()?.order,
            kind if kind.is_order() => entry.order()?.0,
            _ => return Ok(None),
        };
        let word = self.state().orders.find(&(request.caller.tenant, order));
        word.map(|word| chain.order(order, word, request.id)).transpose()
    }
}

impl State {
    /// A card as a decision sees it.
    fn seen<'a>(
        &self,
        batch: &'a Batch,
        card: CardRef,
        word: Word,
        past: &'a Past,
        purse: Option<Purse>,
    ) -> Seen<'a> {
        let value = self.value(batch, card, word, purse, None);
        let mut view = self.view(batch, card.row(), word);
        view.held = 0 < value.held.live;
        if let Some(rule) = batch.validity {
            count_validity(past, purse, batch, card, rule, &mut view);
        }
        Seen { batch, card, word, view, value, past }
    }

    /// Looks for a card in stock that can take the place of another, and adds it to what was found.
    fn find_like(&self, table: &crate::table::Table, old: &Seen<'_>, found: &mut Search) -> bool {
        let product = self.product_of(old.batch);
        if self.is_product_frozen(product) {
            return false;
        }
        let face = old.is_single().then_some(old.view.face);
        let mut missing = 1;
        for &id in &product.batches {
            let batch = table.batch(id).expect("a product's batches are committed");
            if missing > 0 && !batch.is_frozen() && !batch.is_voided() && batch_fits(old, batch) {
                let fits = |row| end_fits(old, self.expires_ms(batch, row, batch.word(row)));
                self.stock(id).find(batch, self.now_ms, self.now_ms, face, fits, &mut missing, found);
            }
        }
        missing == 0
    }

    /// Whether a card can take the place of another.
    fn can_replace(&self, old: &Seen<'_>, new: &Seen<'_>) -> bool {
        new.card != old.card
            && new.view.lifecycle() == Lifecycle::Available
            && !new.view.is_frozen()
            && (!old.is_single() || new.view.face == old.view.face)
            && batch_fits(old, new.batch)
            && end_fits(old, new.view.expires_ms)
    }

    /// The most that a card can hold.
    fn value_max(&self, seen: &Seen<'_>) -> Money {
        match (seen.view.kind, seen.value.value_max) {
            (CardKind::StoredValue, max) if 0 < max => max,
            _ => self.initial(seen.batch, seen.card.row()),
        }
    }
}

impl Turn<'_> {
    /// REPLACE and TRANSFER, as a record of its own. `None` if something moved since it was read.
    pub(crate) fn pair(&mut self, work: &mut Work, at: usize) -> Option<Reply> {
        let Work { requests, prepared, search, .. } = work;
        let (request, prepared) = (&requests[at], &mut prepared[at]);
        let sequencer = self.sequencer;
        let (_, named, asked) = Asked::of(&request.command);
        let Some((batch, card)) = sequencer.batch_of(prepared.card).filter(|_| prepared.absent_at.is_none())
        else {
            let came = prepared.absent_at != Some(sequencer.table.commits());
            return (!came).then(|| self.miss_pair(request, Status::NotFound));
        };
        let word = batch.word(card.row());
        if word != prepared.word {
            return None;
        }
        // What is not sold does not exist for those whom it does not concern.
        if !self.concerns(request, batch) {
            let status = if word.is_unsold() { Status::NotFound } else { Status::ScopeDenied };
            return Some(self.miss_pair(request, status));
        }
        let wallet = prepared.wallet.take()?;
        let Detail::Pair(read) = std::mem::take(&mut prepared.detail) else { return None };
        let PairRead { second, order } = *read;
        let past = *prepared.past();
        if let Some(same) = past.same {
            let is_retry = same.kind == asked.kind()
                && same.body == prepared.body
                && same.principal == request.caller.principal;
            return match (is_retry, second) {
                (false, _) => Some(self.refuse(request, Status::IdReused)),
                (true, second) => self.replay_pair(request, asked, same, batch, second),
            };
        }
        if past.poisoned {
            return Some(self.refuse(request, Status::ReversedBeforeArrival));
        }
        let first = self.state.seen(batch, card, word, &past, wallet.purse);
        if let Some(status) = first.refusal() {
            return Some(self.refuse(request, status));
        }
        // The second card is looked for where all else about the first is said.
        search.clear();
        let second = match (asked, second) {
            (Asked::Replace { with: None }, second) => {
                if self.state.is_product_frozen(self.state.product_of(batch)) {
                    return Some(self.refuse(request, Status::Frozen));
                }
                if !self.state.find_like(&sequencer.table, &first, search) {
                    return Some(self.refuse(request, Status::OutOfStock));
                }
                let (other, word) = search.cards.cards().next().expect("one was found");
                match second {
                    Some(side) if (side.card, side.word) == (other, word) => side,
                    // It has no past that would have to be read.
                    _ if !word.flags().contains(Flags::HAS_EFFECTS) => Side::untouched(other, word),
                    _ => return None,
                }
            }
            (_, Some(side)) => {
                let batch = sequencer.table.batch_of(side.card).expect("it was read");
                if batch.word(side.card.row()) != side.word {
                    return None;
                }
                side
            }
            // An import that was committed meanwhile may have brought it.
            (_, None) if named.is_some_and(|named| sequencer.has(named)) => return None,
            (_, None) => return Some(self.miss_pair(request, Status::NotFound)),
        };
        let other = sequencer.table.batch_of(second.card).expect("it was read");
        if !self.concerns(request, other) {
            return Some(self.miss_pair(request, Status::NotFound));
        }
        if second.past.same.is_some() {
            return Some(self.refuse(request, Status::IdReused));
        }
        if second.past.poisoned {
            return Some(self.refuse(request, Status::ReversedBeforeArrival));
        }
        let seen = self.state.seen(other, second.card, second.word, &second.past, second.wallet.purse);
        match asked {
            Asked::Replace { .. } => {
                let Some(order) = order else {
                    return Some(self.refuse(request, Status::HistoryArchived));
                };
                let key = (request.caller.tenant, order.order);
                if self.state.orders.find(&key) != Some(order.word) {
                    return None;
                }
                if !self.state.can_replace(&first, &seen) {
                    return Some(self.refuse(request, Status::OtherUnfit));
                }
                if order.replacements >= REPLACEMENTS_MAX {
                    return Some(self.refuse(request, Status::ReturnsExhausted));
                }
                // From here on the order may fetch its code at any time: but for one whose codes nobody saw.
                let unseen = order.sealed && !order.word.is_fetched();
                let (given, taken, end_ms) = match replaced(&first, &seen, !unseen) {
                    Ok(moves) => moves,
                    Err(status) => return Some(self.refuse(request, status)),
                };
                if !self.has_credit() {
                    return Some(self.refuse(request, self.short()));
                }
                let ties = Ties { order: order.order, link: order.word.bits(), end_ms };
                let after = View {
                    word: Word::default(),
                    held: false,
                    expires_ms: first.view.expires_ms,
                    ..seen.view
                };
                let worth = taken.value.map_or(seen.value.purse.remaining, |(_, purse)| purse.remaining);
                let (lsn, word) = self.record_pair(
                    request,
                    prepared.body,
                    (&given, card, word, *wallet),
                    (&taken, second.card, second.word, second.wallet),
                    &ties,
                );
                self.state.advance(search);
                self.state.orders.put(key, OrderWord::new(lsn, OrderState::Sold, order.word.is_fetched()));
                let view = View { word, ..after };
                let report = report(other, second.card, &view, Some(order.order), (worth, 0));
                Some(self.reply(request, Status::Ok, Some(lsn), ReplyBody::Card(report)))
            }
            Asked::Transfer { amount } => {
                if first.is_single() {
                    return Some(self.refuse(request, Status::IllegalTransition));
                }
                if let Some(status) = unusable(&first.view) {
                    return Some(self.refuse(request, status));
                }
                if second.card == card || other.product != batch.product {
                    return Some(self.refuse(request, Status::OtherUnfit));
                }
                let (given, taken) = match transferred(&first, &seen, amount, self.state.value_max(&seen)) {
                    Ok(moves) => moves,
                    Err(status) => return Some(self.refuse(request, status)),
                };
                if !self.has_credit() {
                    return Some(self.refuse(request, self.short()));
                }
                let (moved, purse) = given.value.expect("a transfer tells the value");
                let product = batch.product;
                let (lsn, _) = self.record_pair(
                    request,
                    prepared.body,
                    (&given, card, word, *wallet),
                    (&taken, second.card, second.word, second.wallet),
                    &Ties::NONE,
                );
                let body = ValueReport { product, amount: moved, remaining: purse.remaining };
                Some(self.reply(request, Status::Ok, Some(lsn), ReplyBody::Value(body)))
            }
        }
    }

    /// Whether the caller may know of cards of a batch that are not sold.
    fn concerns(&self, request: &Request, batch: &Batch) -> bool {
        let scope = self.state.scope(request.caller.principal).expect("asked before the command");
        scope.covers(batch.product) && !scope.denies(self.state.product_of(batch), &request.caller, false)
    }

    /// What a guess gets.
    fn miss_pair(&self, request: &Request, status: Status) -> Reply {
        Reply { miss: true, ..self.refuse(request, status) }
    }

    /// The reply of the first time, once more; of a replacement with the second card as it stands now.
    fn replay_pair(
        &self,
        request: &Request,
        asked: Asked,
        same: crate::card::Effect,
        batch: &Batch,
        second: Option<Side>,
    ) -> Option<Reply> {
        let body = match asked {
            Asked::Transfer { .. } => ReplyBody::Value(ValueReport {
                product: batch.product,
                amount: same.amount,
                remaining: same.remaining,
            }),
            Asked::Replace { .. } => {
                let Side { card, word, past, wallet } = second?;
                let batch = self.sequencer.table.batch_of(card)?;
                if batch.word(card.row()) != word {
                    return None;
                }
                let Seen { view, value, .. } = self.state.seen(batch, card, word, &past, wallet.purse);
                let worth = (value.purse.remaining, value.held.amount);
                ReplyBody::Card(report(batch, card, &view, None, worth))
            }
        };
        let reply = self.reply(request, Status::Ok, Some(same.lsn), body);
        Some(Reply { flags: ReplyFlags::REPLAYED, time_ms: same.time_ms, ..reply })
    }

    /// Records both entries, one behind the other, and moves both cards. Returns where the first stands, and the second
    /// card's word.
    fn record_pair(
        &mut self,
        request: &Request,
        body: u32,
        (given, from, from_word, from_wallet): (&After, CardRef, Word, Wallet),
        (taken, to, to_word, to_wallet): (&After, CardRef, Word, Wallet),
        ties: &Ties,
    ) -> (Lsn, Word) {
        let volumes = [&from_wallet, &to_wallet].map(|wallet| wallet.chapters.len().min(1) * VOLUME_BYTES);
        let bytes = 2 * (PAIR_ENTRY_BYTES + request.grounds_bytes()) + volumes[0] + volumes[1];
        let sequencer = self.sequencer;
        let (first, second) = self.append(bytes, |group| {
            let pair = Pair { other: to, order: ties.order, link: ties.link, end_ms: Pair::NO_END };
            let first = push(sequencer, request, body, given, (from, from_word), from_wallet, &pair, group);
            let end_ms = ties.end_ms.unwrap_or(Pair::NO_END);
            let pair = Pair { other: from, order: ties.order, link: first.bytes(), end_ms };
            (first, push(sequencer, request, body, taken, (to, to_word), to_wallet, &pair, group))
        });
        let new = Word::new(second, taken.lifecycle, taken.flags);
        for (card, old, new) in
            [(from, from_word, Word::new(first, given.lifecycle, given.flags)), (to, to_word, new)]
        {
            let batch = sequencer.table.batch_of(card).expect("decided on this batch");
            self.state.install(batch, card.row(), old, new);
        }
        if let Some(end_ms) = ties.end_ms {
            let batch = sequencer.table.batch_of(to).expect("decided on this batch");
            self.state.set_end(batch, to.row(), end_ms);
        }
        (first, new)
    }
}

/// What ties the entries of a pair to more than each other.
struct Ties {
    order: OrderId,
    /// The order's word before, in bits.
    link: u64,
    end_ms: Option<u64>,
}

impl Ties {
    const NONE: Ties = Ties { order: OrderId(0), link: 0, end_ms: None };
}

impl Side {
    /// A card in stock that nothing ever happened to but sales that were taken back.
    fn untouched(card: CardRef, word: Word) -> Side {
        let wallet = Wallet {
            purse: None,
            trail: Default::default(),
            chapters: Vec::new(),
            sale: word.lsn(),
            sold_ms: 0,
        };
        Side { card, word, past: Past::NONE, wallet }
    }
}

/// Adds one entry of a pair.
#[expect(clippy::too_many_arguments, reason = "they are the entry's parts")]
fn push(
    sequencer: &Sequencer,
    request: &Request,
    body: u32,
    after: &After,
    (card, word): (CardRef, Word),
    wallet: Wallet,
    pair: &Pair,
    group: &mut GroupWriter<'_>,
) -> Lsn {
    let Wallet { mut trail, mut chapters, sale, .. } = wallet;
    let tail = after.value.map(|(amount, purse)| {
        trail.filter.add(sequencer.marks.mark(request.id));
        if !chapters.is_empty() {
            chapters.push((None, trail.filter));
        }
        // What took a place was sold by that.
        let sale = if after.kind == Kind::Replacement { Some(group.next_lsn()) } else { sale.or(purse.sale) };
        ValueTail { amount, purse: Purse { sale, ..purse }, trail, chapters, ..ValueTail::default() }
    });
    let head = Head {
        post: Word::state_of(after.lifecycle, after.flags),
        subject: card.to_bits(),
        prev: word.bits(),
        ..request.head(after.kind, body)
    };
    let bytes = PAIR_BYTES + tail.as_ref().map_or(0, ValueTail::bytes);
    group.push_on(&head, request.grounds.as_deref(), bytes, |place| {
        let (own, value) = place.split_at_mut(PAIR_BYTES);
        pair.encode(own);
        if let Some(tail) = &tail {
            tail.encode(value);
        }
    })
}
