//! Offline verification of a whole store: nothing of it is taken on trust, and nothing is changed.
//!
//! The log is read from its first record: checksums and hash chain by the log, then every entry is
//! replayed into an empty state and audited on its own: is the transition one the rules allow, does it
//! continue its object's chain, has its request id had an effect on this card before. The counters
//! must be the sums of the words, money must close in every entry and over all accounts, no redemption may
//! have been over a limit, every batch file must hash to what its import recorded and hold no card twice, and
//! every snapshot, brought up to date by the log, must give the same state to the bit.

mod pairs;

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;

use kami_wal::{Lsn, Medium, RecordKind, ReplayFrom, Verdict, VerifyReport, WalOptions};

use crate::checkpoint::{self, Snapshot};
use crate::control::ControlAudit;
use crate::exceptions::Kept;
use crate::identity::{DocumentId, ProductId};
use crate::import::index_batch;
use crate::index::Index;
use crate::limits::Till;
use crate::orders::OrderWord;
use crate::product::{CardKind, Money};
use crate::proof::Signatures;
use crate::record::{Entry, Group, Kind, Purse};
use crate::replay::{Rebuild, ReplayError};
use crate::sharded::SHARDS;
use crate::state::{OrderMove, State};
use crate::stock::Shared;
use crate::store::{Identity, IdentityError};
use crate::vault::{KeyError, Vault};
use crate::word::{Flags, Lifecycle, Word};

/// What a verification found.
#[derive(Debug)]
#[non_exhaustive]
pub struct Verification {
    /// What the log says of itself.
    pub log: VerifyReport,
    /// Cards in committed batches.
    pub cards: u64,
    /// Committed batches.
    pub batches: u64,
    /// Orders.
    pub orders: u64,
    /// Entries replayed.
    pub entries: u64,
    /// Snapshots that led to the same state.
    pub snapshots: u64,
    /// Signed checkpoints in the log, all of them by the key in the key directory, whose roots were computed again.
    pub signed: u64,
    /// Signed checkpoints in the log by another key, whose roots fit, too.
    pub signed_by_others: u64,
    /// The size of the checkpoint that was signed last, if the log holds fewer entries: then something was cut off, or
    /// this is an older copy.
    pub signed_beyond: Option<u64>,
    /// BLAKE3 of the whole state in a canonical form: equal states have equal hashes.
    pub state_hash: [u8; 32],
    /// Everything that is wrong, in words, each with the file or position it concerns. Empty: the store
    /// is as it should be.
    pub problems: Vec<String>,
}

/// Why a store could not be verified at all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// There is no store, or not one of this version.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The keys cannot be used.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The log cannot be read at all.
    #[error(transparent)]
    Log(#[from] kami_wal::OpenError),
    /// A file cannot be read.
    #[error("the store cannot be read")]
    Io(#[from] io::Error),
    /// The directory holds no store.
    #[error("there is no store in this directory")]
    Empty,
}

/// Verifies the store on `data` with its keys on `keys`. Only on a stopped store.
///
/// # Errors
/// If it cannot be done. What is found to be wrong is no error but a problem in the result.
pub fn verify(data: Arc<dyn Medium>, keys: Arc<dyn Medium>) -> Result<Verification, VerifyError> {
    let identity = Identity::read(&*data)?.ok_or(VerifyError::Empty)?;
    let vault = Vault::open(Arc::clone(&keys), false)?;
    let mut problems = Vec::new();
    if identity.key_check != vault.check_value() {
        return Err(KeyError::Wrong { file: "lookup.key" }.into());
    }
    let mut rebuild = Rebuild::new(Arc::clone(&data), identity.store);
    let mut audit = Audit::default();
    let mut signatures = Signatures::open(&*keys, identity.store)?;
    let mut broken = None;
    let options = WalOptions { store_id: Some(identity.store), ..WalOptions::default() };
    let log = kami_wal::verify(&*data, &options, &mut |record| {
        if broken.is_some() || record.kind != RecordKind::Data {
            return;
        }
        let replayed = audit
            .record(&rebuild, record.payload, record.payload_lsn, &mut problems)
            .and_then(|()| Ok(signatures.collect(record.payload, record.payload_lsn)?))
            .and_then(|()| rebuild.record(&vault, &record));
        broken = replayed.err();
    })?;
    if let Some(error) = &broken {
        problems.push(format!("replay stopped: {}", chain_of(error)));
    }
    if let Verdict::Damaged(error) = &log.verdict {
        problems.push(chain_of(error));
    }
    audit.check_ids(&*data, &options, &mut problems)?;
    let whole = broken.is_none() && !matches!(log.verdict, Verdict::Damaged(_));
    if whole {
        signatures.check(&*data, &options, &mut problems)?;
    }

    rebuild.state.settle(&rebuild.table);
    if let Err(problem) = rebuild.state.check(&rebuild.table) {
        problems.push(problem);
    }
    check_batches(&rebuild, &mut problems)?;
    let state_hash = rebuild.state_hash();
    let mut snapshots = 0;
    for path in checkpoint::list(&*data)? {
        if !whole {
            problems.push(format!("not compared, because the log is damaged: file=`{path}`"));
            continue;
        }
        match replay_snapshot(&data, &vault, identity.store, &path)? {
            Ok(hash) if hash == state_hash => snapshots += 1,
            Ok(_) => {
                problems.push(format!("the snapshot leads to another state than the log: file=`{path}`"))
            }
            Err(problem) => problems.push(format!("{problem}: file=`{path}`")),
        }
    }
    Ok(Verification {
        log,
        cards: rebuild.table.batches().map(crate::table::Batch::rows).sum(),
        batches: rebuild.table.batches().count() as u64,
        orders: rebuild.state.orders.count(),
        entries: rebuild.entries,
        snapshots,
        signed: signatures.own,
        signed_by_others: signatures.others,
        signed_beyond: signatures.beyond,
        state_hash,
        problems,
    })
}

/// Hashes every batch file and looks for cards that are there twice.
fn check_batches(rebuild: &Rebuild, problems: &mut Vec<String>) -> io::Result<()> {
    let index = Index::new();
    for batch in rebuild.table.batches() {
        let path = crate::batch::Layout::path(batch.id.0);
        match batch.file.hash() {
            Ok((file_hash, cards_hash)) => {
                if file_hash != batch.file_hash || cards_hash != batch.cards_hash {
                    problems.push(format!("the batch file is not what was imported: file=`{path}`"));
                    continue;
                }
            }
            Err(error) => {
                problems.push(format!("the batch file cannot be read ({error}): file=`{path}`"));
                continue;
            }
        }
        let duplicates = index_batch(&index, &rebuild.table, &batch.file, batch.id)?;
        if let Some(first) = duplicates.first() {
            problems.push(format!("a card is there twice: file=`{path}` row=`{}`", first.row));
        }
    }
    Ok(())
}

/// The hash of the state that a snapshot and the log after it give, or what is wrong with the snapshot.
fn replay_snapshot(
    data: &Arc<dyn Medium>,
    vault: &Vault,
    store: u64,
    path: &str,
) -> Result<Result<[u8; 32], String>, VerifyError> {
    let Some(snapshot) = Snapshot::open(&**data, path)? else {
        return Ok(Err("the snapshot's header is damaged".to_owned()));
    };
    if snapshot.header.store != store {
        return Ok(Err("the snapshot is another store's".to_owned()));
    }
    if !snapshot.is_whole()? {
        return Ok(Err("the snapshot is damaged".to_owned()));
    }
    let mut rebuild = Rebuild::new(Arc::clone(data), store);
    match rebuild.snapshot(vault, &snapshot) {
        Ok(true) => {}
        Ok(false) => return Ok(Err("the snapshot makes no sense".to_owned())),
        Err(error) => return Ok(Err(format!("the snapshot cannot be used ({})", chain_of(&error)))),
    }
    let from = ReplayFrom { lsn: snapshot.header.start, durable_end_hint: Some(snapshot.header.end) };
    let mut broken = None;
    let options = WalOptions { store_id: Some(store), ..WalOptions::default() };
    kami_wal::verify(&**data, &options, &mut |record| {
        if broken.is_none() && record.kind == RecordKind::Data && record.lsn >= from.lsn {
            broken = rebuild.record(vault, &record).err();
        }
    })?;
    match broken {
        Some(error) => Ok(Err(format!("the log does not continue the snapshot ({})", chain_of(&error)))),
        None => Ok(Ok(rebuild.state_hash())),
    }
}

/// An error with its causes, on one line.
fn chain_of(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Checks entries one by one.
///
/// That no request id had two effects on one card takes the ids of a card together. Most cards are acted on once, so
/// the first reading only notes the others; their ids are collected by reading the log again, in several rounds if
/// they are many, so that memory does not grow with the log.
#[derive(Default)]
struct Audit {
    /// Cards with more than one entry about them, a bit each in words of 64 neighbours.
    acted_on_again: HashMap<u64, u64>,
    /// The entries that were not the first about their card.
    again: u64,
    /// What was redeemed so far in the record.
    redeemed: Vec<(Till, ProductId)>,
    /// What the last entry left on each card that is used in parts.
    purses: HashMap<u64, Purse>,
    /// Where cards took the place of others.
    placed: HashSet<Lsn>,
    /// Whether what takes two people was approved.
    control: ControlAudit,
}

/// Ids that are held at a time, 40 bytes each.
const IDS_PER_ROUND: u64 = 1 << 20;

impl Audit {
    fn record(
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
    fn check_ids(
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
}

impl Audit {
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

impl Audit {
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

/// Whether the rules allow a card to go from the entry's `prev` to its `post`.
fn is_legal(entry: &Entry<'_>) -> bool {
    let (from, to) = (entry.prev().lifecycle(), entry.post().lifecycle());
    let (had, has) = (entry.prev().flags(), entry.post().flags());
    let stays = from == to;
    let marked = has.contains(Flags::HAS_EFFECTS);
    let same_but = |flags: Flags| had.without(flags).with(Flags::HAS_EFFECTS) == has.without(flags);
    let usable = || from == Lifecycle::Sold && !had.contains(Flags::FROZEN);
    // Of what is used in parts or is held, lifecycle and USED follow from the value, which is checked apart.
    let in_life = |lifecycle| matches!(lifecycle, Lifecycle::Sold | Lifecycle::Redeemed);
    let in_parts = matches!(entry.value(), Ok(Some(_)));
    let moves = Flags::USED.with(Flags::SETTLED);
    let ends = moves.with(Flags::HELD);
    let own_activity = Flags::ACTIVE.with(Flags::INACTIVE);
    let is_emptied = || to == Lifecycle::Voided && has.contains(Flags::REPLACED);
    marked
        && match entry.head.kind {
            Kind::Redeem if in_parts => usable() && in_life(to) && same_but(moves),
            // Of a load, when nothing can be loaded any more, it may leave nothing on the card.
            Kind::Reverse if in_parts => in_life(from) && in_life(to) && same_but(ends),
            Kind::Hold => usable() && stays && has.contains(Flags::HELD) && same_but(Flags::HELD),
            // A hold that is open may be captured on a frozen card.
            Kind::Capture => {
                from == Lifecycle::Sold && in_life(to) && had.contains(Flags::HELD) && same_but(ends)
            }
            Kind::Release | Kind::HoldTimeout => stays && had.contains(Flags::HELD) && same_but(Flags::HELD),
            Kind::Load => usable() && stays && same_but(Flags::NONE),
            Kind::RefundValue => in_life(from) && to == Lifecycle::Sold && same_but(moves),
            Kind::Settle => stays && has.contains(Flags::SETTLED) && same_but(Flags::SETTLED),
            Kind::Redeem => {
                from == Lifecycle::Sold
                    && to == Lifecycle::Redeemed
                    && has.contains(Flags::USED)
                    && !had.contains(Flags::FROZEN)
                    && same_but(Flags::USED)
            }
            Kind::Reverse => {
                from == Lifecycle::Redeemed
                    && to == Lifecycle::Sold
                    && !has.contains(Flags::USED)
                    && !had.contains(Flags::SETTLED)
                    && same_but(Flags::USED)
            }
            Kind::Tombstone | Kind::PinUnlock => stays && same_but(Flags::NONE),
            Kind::Freeze => stays && has.contains(Flags::FROZEN) && same_but(Flags::FROZEN),
            Kind::Unfreeze => stays && !has.contains(Flags::FROZEN) && same_but(Flags::FROZEN),
            Kind::Activate => {
                !matches!(from, Lifecycle::Redeemed | Lifecycle::Voided | Lifecycle::Returned)
                    && stays
                    && has.contains(Flags::ACTIVE)
                    && !has.contains(Flags::INACTIVE)
                    && same_but(own_activity)
            }
            Kind::Deactivate => {
                !matches!(from, Lifecycle::Redeemed | Lifecycle::Voided | Lifecycle::Returned)
                    && stays
                    && has.contains(Flags::INACTIVE)
                    && !has.contains(Flags::ACTIVE)
                    && !had.contains(Flags::USED)
                    && same_but(own_activity)
            }
            Kind::Restock => from == Lifecycle::Returned && to == Lifecycle::Voided && same_but(Flags::NONE),
            Kind::Replace => from == Lifecycle::Sold && is_emptied() && same_but(Flags::REPLACED),
            Kind::Transfer if to == Lifecycle::Voided => {
                usable() && is_emptied() && same_but(Flags::REPLACED)
            }
            Kind::Transfer | Kind::Receive => usable() && stays && same_but(Flags::NONE),
            Kind::Replacement => {
                let given = Flags::REVEALED.with(Flags::OWN_END).with(own_activity).with(moves);
                from == Lifecycle::Available
                    && to == Lifecycle::Sold
                    && !had.contains(Flags::FROZEN)
                    && !had.contains(Flags::REVEALED)
                    && same_but(given)
            }
            Kind::Extend | Kind::Expire => {
                matches!(from, Lifecycle::Available | Lifecycle::Sold)
                    && stays
                    && has.contains(Flags::OWN_END)
                    && same_but(Flags::OWN_END)
            }
            // Of a sold card only under an approval, which is checked apart.
            Kind::Void => {
                matches!(
                    from,
                    Lifecycle::Available | Lifecycle::Expired | Lifecycle::Returned | Lifecycle::Sold
                ) && to == Lifecycle::Voided
                    && same_but(Flags::NONE)
            }
            _ => false,
        }
}

impl Rebuild {
    /// BLAKE3 of the state in a canonical form.
    #[must_use]
    pub fn state_hash(&self) -> [u8; 32] {
        self.state.hash(&self.table)
    }
}

impl crate::state::State {
    /// BLAKE3 of the state in a canonical form: products, principals, batches with all their words, orders in
    /// order of id, accounts, documents, limits and what counted against them when something last did. Counters, cursors and what
    /// is held follow from these and are left out.
    #[must_use]
    pub fn hash(&self, table: &crate::table::Table) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        for product in &self.products {
            hasher.update(format!("{:?} {:?} {}\n", product.product, product.tenant, product.lsn).as_bytes());
        }
        for principal in &self.principals {
            hasher.update(format!("{:?} {}\n", principal.principal, principal.lsn).as_bytes());
        }
        for (tenant, lsn) in self.order_heads() {
            hasher.update(format!("orders of {tenant} {lsn}\n").as_bytes());
        }
        let mut bytes = Vec::new();
        for batch in table.batches() {
            let stock = self.stock(batch.id);
            let flags = (batch.is_frozen(), batch.is_voided(), batch.extended_ms());
            hasher.update(format!("{} {} {flags:?} {:?}\n", batch.id, stock.lsn, batch.validity).as_bytes());
            // Not since when: a snapshot of the first version does not know.
            let mut before = None;
            for (from, since_ms) in stock.activity().pieces() {
                if before.replace(since_ms.is_some()) != Some(since_ms.is_some()) {
                    hasher.update(format!("{from} {}\n", since_ms.is_some()).as_bytes());
                }
            }
            for (row, counted) in stock.shared().into_iter().flat_map(|shared| shared.rows(0)) {
                hasher.update(format!("{row} {counted:?}\n").as_bytes());
            }
            for (row, end_ms) in stock.ends(0) {
                hasher.update(format!("{row} {end_ms}\n").as_bytes());
            }
            hasher.update(&batch.file_hash);
            for row in 0..batch.rows() {
                let word: Word = batch.word(row);
                bytes.extend_from_slice(&word.bits().to_le_bytes());
                if bytes.len() >= 1 << 16 || row + 1 == batch.rows() {
                    hasher.update(&bytes);
                    bytes.clear();
                }
            }
        }
        let mut orders: Vec<_> = (0..SHARDS).flat_map(|shard| self.orders.of_shard(shard)).collect();
        orders.sort_unstable();
        for ((tenant, order), word) in orders {
            hasher.update(&tenant.0.to_le_bytes());
            hasher.update(&order.0.to_le_bytes());
            hasher.update(&word.bits().to_le_bytes());
        }
        for (key, hold) in self.holds.after(None) {
            hasher.update(format!("{key:?} {hold:?}\n").as_bytes());
        }
        for state in self.exceptions.iter() {
            hasher.update(format!("{state:?} {:032x}\n", state.digest.0).as_bytes());
        }
        for lock in self.pins.after(None) {
            hasher.update(format!("{lock:?}\n").as_bytes());
        }
        for (key, reservation) in self.orders.reservations(None) {
            hasher.update(format!("{key:?} {reservation:?}\n").as_bytes());
        }
        self.tenants.hash(&mut hasher);
        self.proposals.hash(&mut hasher);
        self.accounts.hash(&mut hasher);
        let mut documents: Vec<_> = self.documents.iter().collect();
        documents.sort_unstable();
        for ((tenant, document), lsn) in documents {
            hasher.update(format!("{tenant} {document} {lsn}\n").as_bytes());
        }
        self.limits.hash(&mut hasher);
        *hasher.finalize().as_bytes()
    }
}
