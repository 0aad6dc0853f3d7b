//! Every entry on its own: could it be written in the state before it.
//!
//! Replay believes entries; the audit does not. It asks of each what the engine asked when it decided: the transition, the
//! value, the money, the limits, the locks, the second person, the one effect of an id.
//!
//! # Invariants
//! * Transitions and values are judged by tables of their own, not by the code that decided: what both get wrong alike
//!   shows in neither.
//! * Memory grows with the cards that are acted on, not with the length of the log.

use std::collections::{HashMap, HashSet};

use kami_wal::{Lsn, Medium, RecordKind, WalOptions};

use super::VerifyError;
use super::pairs;
use super::transition::is_legal;
use crate::control::ControlAudit;
use crate::exceptions::Kept;
use crate::identity::{DocumentId, ProductId};
use crate::limits::Till;
use crate::orders::OrderWord;
use crate::product::{CardKind, Money};
use crate::record::{Entry, Group, Kind, Purse};
use crate::replay::{Rebuild, ReplayError};
use crate::state::{OrderMove, State};
use crate::stock::Shared;
use crate::word::{Flags, Lifecycle, Word};

/// Checks entries one by one.
///
/// That no request id had two effects on one card takes the ids of a card together. Most cards are acted on once, so
/// the first reading only notes the others; their ids are collected by reading the log again, in several rounds if
/// they are many, so that memory does not grow with the log.
#[derive(Default)]
pub(super) struct Audit {
    /// Cards with more than one entry about them, a bit each in words of 64 neighbours.
    acted_on_again: HashMap<u64, u64>,
    /// The entries that were not the first about their card.
    again: u64,
    /// What was redeemed so far in the record.
    redeemed: Vec<(Till, ProductId)>,
    /// What the last entry left on each card that is used in parts.
    pub(super) purses: HashMap<u64, Purse>,
    /// Where cards took the place of others.
    placed: HashSet<Lsn>,
    /// Whether what takes two people was approved.
    control: ControlAudit,
}

/// Ids that are held at a time, 40 bytes each.
const IDS_PER_ROUND: u64 = 1 << 20;

impl Audit {
    pub(super) fn record(
        &mut self,
        before: &Rebuild,
        payload: &[u8],
        payload_lsn: Lsn,
        problems: &mut Vec<String>,
    ) -> Result<(), ReplayError> {
        self.redeemed.clear();
        let mut first = None;
        for entry in Group::parse(payload, payload_lsn)? {
            let entry = entry?;
            problems.extend(self.control.entry(&before.state, &entry)?);
            if let Some(problem) = self.pair_problem(&mut first, &entry, before)? {
                problems.push(format!("{problem}: {} lsn=`{}`", entry.head.kind.name(), entry.lsn));
            }
            problems.extend(money_problem(&before.state, &entry)?);
            self.count_till(before, &entry, problems);
            let uses = matches!(
                entry.head.kind,
                Kind::Sell
                    | Kind::Export
                    | Kind::Reserve
                    | Kind::Confirm
                    | Kind::Realloc
                    | Kind::Redeem
                    | Kind::Hold
            );
            if uses && before.state.tenants.is_frozen(entry.head.tenant) {
                let (kind, lsn) = (entry.head.kind.name(), entry.lsn);
                problems.push(format!("{kind} of a tenant that was frozen: lsn=`{lsn}`"));
            }
            if entry.head.kind == Kind::Replacement {
                self.placed.insert(entry.lsn);
            }
            if entry.head.kind.is_order() {
                self.order(&entry, problems)?;
                problems.extend(shared_problem(before, &entry)?);
                continue;
            }
            problems.extend(pin_problem(&before.state, &entry)?);
            problems.extend(exception_problem(before, &entry)?);
            if !entry.head.kind.is_about_card() {
                continue;
            }
            if !is_legal(&entry) {
                problems.push(format!(
                    "{} moved a card from {:?} to {:?}: lsn=`{}`",
                    entry.head.kind.name(),
                    entry.prev(),
                    entry.post(),
                    entry.lsn
                ));
            }
            if let Some(problem) = self.value_problem(&entry, before)? {
                problems.push(format!("{problem}: {} lsn=`{}`", entry.head.kind.name(), entry.lsn));
            }
            if entry.prev().flags().contains(Flags::HAS_EFFECTS) {
                self.again += 1;
                let card = entry.head.subject;
                *self.acted_on_again.entry(card / 64).or_default() |= 1 << (card % 64);
            }
        }
        problems.extend(self.control.end());
        if let Some(pairs::First { lsn, .. }) = first {
            problems.push(format!("the first card of a pair moved without the second: lsn=`{lsn}`"));
        }
        Ok(())
    }

    /// That an order takes only cards that it may: its own, or those in stock.
    fn order(&self, entry: &Entry<'_>, problems: &mut Vec<String>) -> Result<(), ReplayError> {
        let (order, cards, facts) = entry.order()?;
        let kind = entry.head.kind;
        let (to, _) = OrderMove::post(kind, facts.sealed);
        let before = OrderWord::from_bits(facts.prev);
        let fetched = before.is_some_and(OrderWord::is_fetched);
        // Where they were sold: not after what the order last did. One that took the place of another came with that.
        let came_alone = |word: Word| word.lsn().is_some_and(|lsn| self.placed.contains(&lsn));
        let sold_at =
            cards.whole_runs().map(|run| run.word).find(|word| !came_alone(*word)).and_then(Word::lsn);
        let sold_at = sold_at.filter(|lsn| before.is_some_and(|before| *lsn <= before.lsn()));
        let legal = |word: Word| {
            let from = word.lifecycle();
            match kind {
                Kind::Sell | Kind::Export | Kind::Reserve | Kind::Realloc => {
                    from == Lifecycle::Available && !word.flags().contains(Flags::REVEALED)
                }
                // Into stock comes only what nobody touched since its sale: of that, all cards had their word.
                Kind::Return => {
                    from == Lifecycle::Sold
                        && (to == Lifecycle::Returned
                            || !fetched
                                && !word.flags().contains(Flags::REVEALED)
                                && !word.flags().contains(Flags::USED)
                                && (word.lsn() == sold_at || came_alone(word)))
                }
                _ => from == Lifecycle::Reserved,
            }
        };
        if let Some(run) = cards.whole_runs().find(|run| !legal(run.word)) {
            problems.push(format!(
                "{} of order {order} moved card {} from {:?} to {to:?}: lsn=`{}`",
                kind.name(),
                run.first,
                run.word,
                entry.lsn
            ));
        }
        Ok(())
    }

    /// Looks for ids that had two effects on one card.
    pub(super) fn check_ids(
        &self,
        data: &dyn Medium,
        options: &WalOptions,
        problems: &mut Vec<String>,
    ) -> Result<(), VerifyError> {
        // Each card that was acted on again has one entry more, the first.
        let rounds = (2 * self.again).div_ceil(IDS_PER_ROUND);
        for round in 0..rounds {
            let mut ids: Vec<(u64, u128, Lsn)> = Vec::new();
            let is_in = |card: u64| {
                let again = self.acted_on_again.get(&(card / 64)).copied().unwrap_or_default();
                again >> (card % 64) & 1 != 0 && card / 64 % rounds == round
            };
            kami_wal::verify(data, options, &mut |record| {
                // What cannot be taken apart was named when it was read first.
                let Ok(group) = Group::parse(record.payload, record.payload_lsn) else { return };
                let entries = group.map_while(Result::ok).filter(|_| record.kind == RecordKind::Data);
                // Nobody asked for a time-out: it has no id.
                let has_id = |kind: Kind| kind.is_about_card() && kind != Kind::HoldTimeout;
                let entries = entries.filter(|entry| has_id(entry.head.kind) && is_in(entry.head.subject));
                ids.extend(entries.map(|entry| (entry.head.subject, entry.head.request.0, entry.lsn)));
            })?;
            ids.sort_unstable();
            let twice = ids.windows(2).filter(|pair| (pair[0].0, pair[0].1) == (pair[1].0, pair[1].1));
            problems.extend(
                twice.map(|pair| format!("a request id had two effects on one card: lsn=`{}`", pair[1].2)),
            );
        }
        Ok(())
    }

    /// Whether a redemption was over a limit. `before` is the state before its record.
    fn count_till(&mut self, before: &Rebuild, entry: &Entry<'_>, problems: &mut Vec<String>) {
        let limits = &before.state.limits;
        if !entry.head.kind.counts_at_till() || !limits.any_terminal() {
            return;
        }
        let Some(batch) = before.table.batch_of(entry.card()) else { return };
        let (till, mut crossed) = (Till::of(&entry.head), Vec::new());
        let checked = limits.check_till(&till, batch.product, &self.redeemed, entry.time_ms, &mut crossed);
        if let Err(exceeded) = checked {
            problems.push(format!("a redemption over limit {}: lsn=`{}`", exceeded.limit, entry.lsn));
        }
        self.redeemed.push((till, batch.product));
    }

    /// Whether what an entry says is on its card follows from what was on it before.
    fn value_problem(
        &mut self,
        entry: &Entry<'_>,
        rebuild: &Rebuild,
    ) -> Result<Option<&'static str>, ReplayError> {
        let Some(tail) = entry.value()? else { return Ok(None) };
        let Some(batch) = rebuild.table.batch_of(entry.card()) else { return Ok(None) };
        let initial = rebuild.state.initial(batch, entry.card().row());
        let now = tail.purse;
        // Sales are no entries of its value.
        let counted = rebuild.state.shared_row(batch, entry.card().row());
        let shared = batch.kind == CardKind::Shared;
        if shared && now.loaded != Money::from(counted.stands()) {
            return Ok(Some("a card has more uses, or fewer, than were sold of it"));
        }
        if now.initial() != Some(initial) {
            return Ok(Some("a card's value is not what it was sold with, less what was taken"));
        }
        if batch.kind == CardKind::Single {
            return Ok(None);
        }
        let before = self.purses.insert(entry.head.subject, now);
        let before = before.unwrap_or_else(|| Purse::fresh(initial, None));
        let before = if shared { Purse { loaded: now.loaded, ..before } } else { before };
        if now.effects != before.effects + 1 {
            return Ok(Some("an entry about a card's value is missing"));
        }
        let moved = |taken: i64, loaded: i64, refunded: i64| {
            now.redeemed == before.redeemed + taken
                && now.loaded == before.loaded + loaded
                && now.refunded == before.refunded + refunded
        };
        let amount = tail.amount;
        let fits = match entry.head.kind {
            Kind::Redeem | Kind::Capture => moved(amount, 0, 0),
            Kind::Load => moved(0, amount, 0),
            Kind::RefundValue => moved(0, 0, amount),
            Kind::Replace => moved(0, -amount, 0) && now.remaining == 0,
            Kind::Transfer => {
                moved(0, -amount, 0)
                    && (now.remaining == 0) == (entry.post().lifecycle() == Lifecycle::Voided)
            }
            Kind::Receive => moved(0, amount, 0),
            // Held against the card before it.
            Kind::Replacement => true,
            // Of a redemption, a load or a hold.
            Kind::Reverse => moved(-amount, 0, 0) || moved(0, -amount, 0) || moved(0, 0, 0),
            _ => moved(0, 0, 0),
        };
        Ok((!fits || amount < 0).then_some("a card's value did not move by what the entry says"))
    }
}

/// What is wrong with an entry about locks after wrong PINs: one that was lifted and was not there, or that ends before it
/// begins. `before` is the state before its record, which locks and unlocks a card at most once.
fn pin_problem(before: &State, entry: &Entry<'_>) -> Result<Option<String>, ReplayError> {
    let wrong = match entry.head.kind {
        Kind::PinUnlock => !before.pins.is_locked_for_any(entry.card(), entry.time_ms),
        Kind::PinLock => entry.locked_until()?.0 <= entry.time_ms,
        _ => false,
    };
    let name = entry.head.kind.name();
    Ok(wrong.then(|| format!("{name} of a card that is not locked, or not any more: lsn=`{}`", entry.lsn)))
}

/// What is wrong with an entry about an exception: its id was reported before, it is of a card that is not there, or it
/// was resolved already. `before` is the state before its record, in which no code comes twice.
fn exception_problem(before: &Rebuild, entry: &Entry<'_>) -> Result<Option<String>, ReplayError> {
    let exceptions = &before.state.exceptions;
    let wrong = match entry.head.kind {
        Kind::Advice => {
            let kept = Kept::of(entry)?;
            exceptions.reported(kept.digest, entry.head.request).is_some()
                || kept.card.is_some_and(|card| before.table.batch_of(card).is_none())
        }
        Kind::ExceptionResolve => exceptions
            .find(entry.head.subject, entry.head.tenant)
            .is_none_or(|state| state.exception.resolution.is_some()),
        _ => false,
    };
    let name = entry.head.kind.name();
    Ok(wrong.then(|| format!("{name} of an exception that is there, or not, already: lsn=`{}`", entry.lsn)))
}

/// What is wrong with the uses of cards sold many times that an order moves: more than there are, or of cards that cannot be
/// sold; or of one card two. `before` is the state before its record.
fn shared_problem(before: &Rebuild, entry: &Entry<'_>) -> Result<Option<String>, ReplayError> {
    let (order, cards, facts) = entry.order()?;
    let kind = entry.head.kind;
    let mut seen = HashSet::new();
    for used in &cards.shared {
        // Replay says what else is wrong with such a card.
        let Some(batch) = before.table.batch_of(used.card) else { return Ok(None) };
        let row = used.card.row();
        let Some(shared) = before.state.stock(batch.id).shared().filter(|_| row < batch.rows()) else {
            return Ok(None);
        };
        let counted = shared.row(row);
        // Reckoned here again: what the engine went by may have been wrong.
        let uses = u64::from(before.state.product_of(batch).product.spec.terms.uses);
        let room = u64::from(counted.sold) + u64::from(counted.reserved) < uses;
        let takes = || room && Shared::is_for_sale(used.word) && !batch.is_voided();
        let legal = match kind {
            Kind::Sell | Kind::Reserve | Kind::Realloc => takes(),
            Kind::Return => counted.unused() > 0,
            Kind::Confirm => counted.reserved > 0 && Shared::is_for_sale(used.word),
            Kind::Cancel | Kind::ReserveTimeout => counted.reserved > 0,
            _ => false,
        };
        // What was given out with the sale was seen.
        let known = OrderWord::from_bits(facts.prev);
        let unseen = kind != Kind::Return || !facts.sealed || known.is_some_and(|word| !word.is_fetched());
        if !legal || !unseen || batch.word(row) != used.word || !seen.insert(used.card.to_bits()) {
            let (name, card, lsn) = (kind.name(), used.card, entry.lsn);
            return Ok(Some(format!(
                "{name} of order {order} moved a use of card {card}, {counted:?}: lsn=`{lsn}`"
            )));
        }
    }
    Ok(None)
}

/// What is wrong with the money of an entry: legs that do not sum to zero or lead to other balances than they
/// say, accounts below what they may be, a document that is there already. `before` is the state before it.
fn money_problem(before: &State, entry: &Entry<'_>) -> Result<Option<String>, ReplayError> {
    let (related, posted) = entry.money()?;
    if posted.is_empty() {
        return Ok(None);
    }
    let (lsn, tenant) = (entry.lsn, entry.head.tenant);
    let known = before.documents.get(&(tenant, DocumentId(related)));
    if entry.head.kind == Kind::Post && known.is_some() {
        return Ok(Some(format!("a document was posted twice: lsn=`{lsn}`")));
    }
    let legs: Vec<_> = posted.iter().map(|posted| posted.leg).collect();
    // What a command may do now, a command could do then: nothing is held while the log is read.
    if let Err(refused) = before.accounts.check(tenant, &legs, &[], |_| true) {
        let (code, account) = (refused.status.code(), refused.account);
        return Ok(Some(format!("money moved that could not ({code}, account {account}): lsn=`{lsn}`")));
    }
    let mut expected = Vec::new();
    before.accounts.posted(&legs, &mut expected);
    Ok((expected != posted).then(|| format!("legs that lead to other balances than they say: lsn=`{lsn}`")))
}
