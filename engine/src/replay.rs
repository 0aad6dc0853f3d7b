//! Replay: from log records to state.
//!
//! Each entry is installed by the same functions that installed it the first time. An entry carries the
//! whole state of its object afterwards and the position of the object's entry before, so installing
//! needs no decision: it checks that the chain fits and puts the new state in place. Objects that a
//! snapshot already has in a later state are left alone.

use std::io;
use std::sync::Arc;

use kami_wal::{Lsn, Medium, Record, planted};

use crate::accounts::StoredAccount;
use crate::activity::Activity;
use crate::admin::BatchMove;
use crate::batch::BatchFile;
use crate::checkpoint::Snapshot;
use crate::control::{End, Standing, StoredControl, StoredProposed};
use crate::exceptions::{ExceptionState, Kept, Resolution, StoredNote};
use crate::holds::{Hold, HoldChange};
use crate::identity::{
    AccountId, BatchId, DocumentId, LimitId, Principal, PrincipalId, ProductId, RequestId, TenantId,
    TerminalId,
};
use crate::limits::{Crossed, StoredLimit, Till};
use crate::order::list::opens;
use crate::orders::{OrderKey, OrderState, OrderWord};
use crate::pins::PinChange;
use crate::product::{CardKind, Validity};
use crate::record::{
    Entry, FormatError, Group, Kind, StoredBatch, StoredPlace, StoredPrincipal, StoredProduct, StoredTerms,
    StoredValidity,
};
use crate::state::{OrderMove, State};
use crate::stock::Counted;
use crate::table::{Batch, Columns, Commit, Table};
use crate::tenants::{StoredTenant, TenantSpec};
use crate::vault::Vault;
use crate::word::{CardRef, Word};

/// So many cards' words are asked for before the first of them is needed: about what a core waits for at a time.
const WORDS_AHEAD: usize = 12;

/// Why a record could not be installed: the store is damaged, or Kami is wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// The record is no group of entries of this version.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// An entry does not continue its object's chain.
    #[error("an entry does not continue the chain of its {object}: lsn=`{lsn}`")]
    Chain {
        /// What kind of object.
        object: &'static str,
        /// The entry.
        lsn: Lsn,
    },
    /// A committed batch's file cannot be used.
    #[error("the file of a committed batch is missing or damaged: batch=`{batch}`")]
    BatchFile {
        /// The batch.
        batch: BatchId,
        /// Why.
        source: io::Error,
    },
    /// The key of a committed batch is not in the ring.
    #[error(
        "the key ring has no key for a committed batch: restore it from where the keys are kept; batch=`{batch}`"
    )]
    Key {
        /// The batch.
        batch: BatchId,
    },
}

/// A state that is being rebuilt.
pub struct Rebuild {
    /// The batches so far.
    pub table: Arc<Table>,
    /// The rest so far.
    pub state: State,
    /// Entries installed.
    pub entries: u64,
    /// Bytes of the log's records they were read from.
    pub log_bytes: u64,
    medium: Arc<dyn Medium>,
    store: u64,
}

impl Rebuild {
    /// Nothing yet.
    pub fn new(medium: Arc<dyn Medium>, store: u64) -> Rebuild {
        Rebuild {
            table: Arc::new(Table::new()),
            state: State::default(),
            entries: 0,
            log_bytes: 0,
            medium,
            store,
        }
    }

    /// Installs the entries of one record.
    ///
    /// # Errors
    /// See [`ReplayError`].
    pub fn record(&mut self, vault: &Vault, record: &Record<'_>) -> Result<(), ReplayError> {
        let group = Group::parse(record.payload, record.payload_lsn)?;
        self.state.now_ms = self.state.now_ms.max(group.time_ms);
        self.log_bytes += record.end.bytes() - record.lsn.bytes();
        // The words of the cards that come next are asked for, since they lie anywhere. What is no card is taken for one
        // here, which does no harm.
        let mut ahead = group.subjects().map(CardRef::from_bits);
        ahead.by_ref().take(WORDS_AHEAD).for_each(|card| self.prefetch(card));
        for entry in group {
            if let Some(card) = ahead.next() {
                self.prefetch(card);
            }
            self.entry(vault, &entry?)?;
            self.entries += 1;
        }
        Ok(())
    }

    #[inline]
    fn prefetch(&self, card: CardRef) {
        if let Some(batch) = self.table.batch_of(card) {
            batch.prefetch(card.row());
        }
    }

    fn entry(&mut self, vault: &Vault, entry: &Entry<'_>) -> Result<(), ReplayError> {
        let head = &entry.head;
        let wall_ms = self.state.clocks.wall_ms;
        let time_ms = if planted("wall-clock-in-replay") { wall_ms } else { entry.time_ms };
        match head.kind {
            Kind::Start => self.state.clocks = entry.clocks()?,
            Kind::ProductPut => self.product(entry)?,
            Kind::ProductFreeze | Kind::ProductUnfreeze => {
                let id = ProductId(head.subject as u32);
                let known = self.state.product(id, head.tenant).map(|product| product.lsn);
                if self.continues(entry, known, "product")? {
                    self.state.set_product_frozen(id, head.kind == Kind::ProductFreeze, entry.lsn);
                }
            }
            Kind::PrincipalPut => {
                let id = PrincipalId(head.subject as u32);
                let (stored, place) = entry.object_extended::<StoredPrincipal, StoredPlace>()?;
                let spec = stored.spec(place.as_ref());
                let spec = spec.ok_or(FormatError { what: "unknown role", lsn: entry.lsn })?;
                let index = (id.0 as usize).wrapping_sub(1);
                let known = self.state.principals.get(index).map(|principal| principal.lsn);
                let is_new = index == self.state.principals.len();
                if is_new || self.continues(entry, known, "principal")? {
                    self.state.put_principal(Principal { id, spec, revoked: false }, entry.lsn);
                }
            }
            Kind::PrincipalRevoke => {
                let id = PrincipalId(head.subject as u32);
                let index = (id.0 as usize).wrapping_sub(1);
                let known = self.state.principals.get(index).map(|principal| principal.lsn);
                if self.continues(entry, known, "principal")? {
                    self.state.revoke_principal(id, entry.lsn);
                }
            }
            Kind::TenantPut => {
                let id = TenantId(head.subject as u16);
                let spec = TenantSpec { name: entry.object::<StoredTenant>()?.name };
                if id == self.state.tenants.next() {
                    self.state.tenants.put(id, spec, entry.lsn);
                } else {
                    self.continues(entry, self.state.tenants.lsn(id), "tenant")?;
                }
            }
            Kind::TenantFreeze | Kind::TenantUnfreeze => {
                let id = TenantId(head.subject as u16);
                if self.continues(entry, self.state.tenants.lsn(id), "tenant")? {
                    self.state.tenants.set_frozen(id, head.kind == Kind::TenantFreeze, entry.lsn);
                }
            }
            Kind::AccountPut => self.account(entry)?,
            Kind::AccountFreeze | Kind::AccountUnfreeze => {
                let id = AccountId(head.subject as u32);
                let known = self.state.accounts.find(id, head.tenant).map(|account| account.lsn);
                if self.continues(entry, known, "account")? {
                    self.state.accounts.set_frozen(id, head.kind == Kind::AccountFreeze, entry.lsn);
                }
            }
            Kind::Post => {
                let document = (head.tenant, entry.posting()?.document);
                self.money(entry)?;
                self.state.documents.insert(document, entry.lsn);
            }
            Kind::LimitPut => self.limit(entry)?,
            Kind::LimitCrossed => {
                let (subject, units) = entry.crossing()?;
                let crossed = Crossed { limit: LimitId(head.subject as u32), subject, units };
                self.state.limits.mark_crossed(head.tenant, &crossed, entry.time_ms, entry.lsn);
            }
            Kind::Import => self.import(vault, entry)?,
            Kind::BatchActivate
            | Kind::BatchDeactivate
            | Kind::BatchFreeze
            | Kind::BatchUnfreeze
            | Kind::BatchVoid
            | Kind::BatchExtend => {
                let id = BatchId(head.subject as u32);
                let known = self.state.batch_stock(id, head.tenant).map(|stock| stock.lsn);
                if self.continues(entry, known, "batch")? {
                    let expires_ms = if head.kind == Kind::BatchExtend { entry.expires_ms()? } else { 0 };
                    let activates = matches!(head.kind, Kind::BatchActivate | Kind::BatchDeactivate);
                    let rows = if activates { entry.rows()? } else { None };
                    let batch = self.table.batch(id).expect("its stock is there");
                    if rows.as_ref().is_some_and(|rows| rows.end > batch.rows()) {
                        let what = "rows that the batch does not have";
                        return Err(FormatError { what, lsn: entry.lsn }.into());
                    }
                    let change = BatchMove { expires_ms, rows, now_ms: time_ms };
                    self.state.change_batch(batch, head.kind, &change, entry.lsn);
                }
            }
            Kind::Redeem | Kind::Hold => {
                self.card(entry.card(), entry.prev(), entry.post(), entry.lsn)?;
                self.spend(entry)?;
                if let Some(change) = hold_change(entry)? {
                    self.state.holds.apply(change);
                }
                if self.state.limits.any_terminal()
                    && let Some(batch) = self.table.batch_of(entry.card())
                {
                    let (till, product) = (Till::of(head), batch.product);
                    self.state.limits.take_till(&till, product, time_ms, entry.lsn);
                }
            }
            Kind::Advice => {
                let state = ExceptionState::of(head, &Kept::of(entry)?, entry.lsn, entry.time_ms);
                if !self.state.exceptions.add(state) {
                    return Err(ReplayError::Chain { object: "exception", lsn: entry.lsn });
                }
            }
            Kind::ExceptionResolve => {
                let known = self.state.exceptions.find(head.subject, head.tenant).map(|state| state.lsn);
                if self.continues(entry, known, "exception")? {
                    let StoredNote { note } = entry.object()?;
                    let resolution = Resolution { principal: head.principal, time_ms: entry.time_ms, note };
                    self.state.exceptions.resolve(head.subject, resolution, entry.lsn);
                }
            }
            Kind::Propose => {
                let stored = entry.object::<StoredProposed>()?;
                let why = entry.grounds()?.map_or_else(String::new, |grounds| grounds.why);
                let standing = Standing::of(head, &stored, &why, entry.lsn, entry.time_ms);
                let unknown =
                    FormatError { what: "a proposal of what this version does not know", lsn: entry.lsn };
                if !self.state.proposals.add(standing.ok_or(unknown)?) {
                    return Err(ReplayError::Chain { object: "proposal", lsn: entry.lsn });
                }
            }
            Kind::Approve | Kind::ProposalWithdraw => {
                let known = self.state.proposals.of_number(head.subject).map(Standing::last_lsn);
                if self.continues(entry, known, "proposal")? {
                    let end = End {
                        approved: head.kind == Kind::Approve,
                        principal: head.principal,
                        request: head.request,
                        body: head.body,
                        time_ms: entry.time_ms,
                        lsn: entry.lsn,
                    };
                    self.state.proposals.end(head.subject, end);
                }
            }
            Kind::TenantControl => {
                let tenant = TenantId(head.subject as u16);
                let control = entry.object::<StoredControl>()?.control();
                let known = self.state.proposals.control_lsn(tenant);
                let is_first = known.is_none() && entry.prev().lsn().is_none();
                if is_first || self.continues(entry, known, "tenant's control")? {
                    self.state.proposals.put_control(tenant, control, entry.lsn);
                }
            }
            Kind::PinUnlock => {
                self.card(entry.card(), entry.prev(), entry.post(), entry.lsn)?;
                self.state.pins.apply(PinChange::Unlock(entry.card()));
            }
            Kind::PinLock => {
                let card = entry.card();
                if self.table.batch_of(card).is_none() {
                    return Err(ReplayError::Chain { object: "card", lsn: entry.lsn });
                }
                // Whose tries counted together is what was so then, and not what follows from a later snapshot.
                let (until_ms, terminal) = entry.locked_until()?;
                let key = (card.to_bits(), head.principal, terminal);
                self.state.pins.apply(PinChange::Lock(key, entry.time_ms, until_ms));
            }
            Kind::Tombstone
            | Kind::Freeze
            | Kind::Unfreeze
            | Kind::Void
            | Kind::Activate
            | Kind::Deactivate
            | Kind::Restock => self.card(entry.card(), entry.prev(), entry.post(), entry.lsn)?,
            Kind::Extend | Kind::Expire => {
                self.card(entry.card(), entry.prev(), entry.post(), entry.lsn)?;
                // Whatever state the card is in: all such entries from a snapshot's start on come in order.
                let batch = self.table.batch_of(entry.card()).expect("its word was installed");
                self.state.set_end(batch, entry.card().row(), entry.expires_ms()?);
            }
            Kind::Replace => {
                let pair = entry.pair()?;
                let key = (head.tenant, pair.order);
                self.order_continues(entry, key, pair.link)?;
                self.card(entry.card(), entry.prev(), entry.post(), entry.lsn)?;
                let fetched = OrderWord::from_bits(pair.link).is_some_and(OrderWord::is_fetched);
                self.state.orders.put(key, OrderWord::new(entry.lsn, OrderState::Sold, fetched));
            }
            Kind::Replacement => {
                self.card(entry.card(), entry.prev(), entry.post(), entry.lsn)?;
                if let Some(end_ms) = entry.pair()?.end() {
                    let batch = self.table.batch_of(entry.card()).expect("its word was installed");
                    self.state.set_end(batch, entry.card().row(), end_ms);
                }
            }
            kind if kind.may_tell_value() => {
                self.card(entry.card(), entry.prev(), entry.post(), entry.lsn)?;
                self.spend(entry)?;
                if let Some(change) = hold_change(entry)? {
                    self.state.holds.apply(change);
                }
            }
            kind if kind.is_order() => self.order(entry)?,
            Kind::Reveal => {
                if let Some(prev) = entry.first_reveal() {
                    let key = (head.tenant, entry.revealed_order()?);
                    self.order_continues(entry, key, prev)?;
                    self.state.orders.put(key, OrderWord::new(entry.lsn, OrderState::Sold, true));
                }
            }
            Kind::Restore | Kind::KeyRotate | Kind::SignedCheckpoint | Kind::Miss => {}
            _ => {
                return Err(FormatError { what: "a kind this version does not write", lsn: entry.lsn }.into());
            }
        }
        Ok(())
    }

    /// Whether an entry about an object is to be installed: it continues the object's chain, or the
    /// object is already further on.
    fn continues(
        &self,
        entry: &Entry<'_>,
        known: Option<Lsn>,
        object: &'static str,
    ) -> Result<bool, ReplayError> {
        if known >= Some(entry.lsn) {
            return Ok(false);
        }
        if known.is_some() && entry.prev().lsn() == known {
            return Ok(true);
        }
        Err(ReplayError::Chain { object, lsn: entry.lsn })
    }

    fn card(&mut self, card: CardRef, prev: Word, post: Word, lsn: Lsn) -> Result<(), ReplayError> {
        let wrong = ReplayError::Chain { object: "card", lsn };
        let Some(batch) = self.table.batch_of(card) else { return Err(wrong) };
        let word = batch.word(card.row());
        if word.lsn() >= Some(lsn) {
            return Ok(());
        }
        if word != prev {
            return Err(wrong);
        }
        self.state.install(batch, card.row(), word, post);
        Ok(())
    }

    /// Counts what is spent of a card that is sold many times: whatever state the card is in, as its snapshot was taken
    /// at another moment.
    fn spend(&mut self, entry: &Entry<'_>) -> Result<(), ReplayError> {
        let card = entry.card();
        let shared = |batch: &&Batch| batch.kind == CardKind::Shared;
        if let Some(batch) = self.table.batch_of(card).filter(shared)
            && let Some(tail) = entry.value()?
        {
            let id = batch.id;
            self.state.stock_mut(id).set_spent(card.row(), tail.purse.spent(), entry.lsn);
        }
        Ok(())
    }

    fn order(&mut self, entry: &Entry<'_>) -> Result<(), ReplayError> {
        let (order, cards, facts) = entry.order()?;
        let (kind, lsn, key) = (entry.head.kind, entry.lsn, (entry.head.tenant, order));
        self.order_continues(entry, key, facts.prev)?;
        if opens(kind) {
            // Logs of the first version do not say which order was opened before.
            let (known, said) = (self.state.order_head(key.0), entry.prev().lsn());
            if said.is_some() && said != known && known < Some(lsn) {
                return Err(ReplayError::Chain { object: "list of orders", lsn });
            }
        }
        for (card, old) in cards.whole_cards() {
            let word = self.table.batch_of(card).map(|batch| batch.word(card.row()));
            let fits = word.is_some_and(|word| word == old || word.lsn() >= Some(lsn));
            if !fits {
                return Err(ReplayError::Chain { object: "card", lsn });
            }
        }
        for used in &cards.shared {
            let wrong = ReplayError::Chain { object: "card that is sold many times", lsn };
            let row = used.card.row();
            let batch = self.table.batch_of(used.card);
            let Some(batch) = batch.filter(|batch| batch.kind == CardKind::Shared && row < batch.rows())
            else {
                return Err(wrong);
            };
            let (last, word) = (self.state.shared_row(batch, row).order, batch.word(row));
            let moves = OrderMove::post_of_shared(kind, facts.sealed, used.word).is_some();
            let word_fits = !moves || word == used.word || word.lsn() >= Some(lsn);
            if !word_fits || last != used.before && last < Some(lsn) {
                return Err(wrong);
            }
        }
        let (time_ms, principal) = (entry.time_ms, entry.head.principal);
        let moved = OrderMove { kind, lsn, time_ms, key, principal, cards: &cards, facts: &facts };
        match self.state.apply_order(&self.table, &moved) {
            Ok(_) => Ok(()),
            Err(_) => Err(ReplayError::Chain { object: "account", lsn }),
        }
    }

    /// Refuses an entry about an order that does not continue the order as it stands; one that is further on
    /// already is none of its business.
    fn order_continues(&self, entry: &Entry<'_>, key: OrderKey, prev: u64) -> Result<(), ReplayError> {
        let known = self.state.orders.find(&key);
        let continues = known.map_or(0, OrderWord::bits) == prev;
        if continues || known.is_some_and(|word| word.lsn() >= entry.lsn) {
            Ok(())
        } else {
            Err(ReplayError::Chain { object: "order", lsn: entry.lsn })
        }
    }

    fn product(&mut self, entry: &Entry<'_>) -> Result<(), ReplayError> {
        let head = &entry.head;
        let id = ProductId(head.subject as u32);
        let (stored, terms) = entry.object_extended::<StoredProduct, StoredTerms>()?;
        let spec = stored.spec(terms.as_ref());
        let spec = spec.ok_or(FormatError { what: "unknown kind or terms of a card", lsn: entry.lsn })?;
        let known = self.state.product(id, head.tenant).map(|product| product.lsn);
        let is_new = known.is_none() && id.0 as usize == self.state.products.len() + 1;
        if is_new || self.continues(entry, known, "product")? {
            self.state.put_product(id, head.tenant, spec, entry.lsn);
        }
        Ok(())
    }

    fn account(&mut self, entry: &Entry<'_>) -> Result<(), ReplayError> {
        let (id, tenant) = (AccountId(entry.head.subject as u32), entry.head.tenant);
        let spec = entry.object::<StoredAccount>()?.spec();
        let spec = spec.ok_or(FormatError { what: "unknown kind of account", lsn: entry.lsn })?;
        let known = self.state.accounts.find(id, tenant).map(|account| account.lsn);
        let is_new = known.is_none() && id == self.state.accounts.next();
        if is_new || self.continues(entry, known, "account")? {
            self.state.accounts.put(id, tenant, spec, entry.lsn);
        }
        Ok(())
    }

    /// Installs the legs of an entry.
    fn money(&mut self, entry: &Entry<'_>) -> Result<(), ReplayError> {
        let (_, legs) = entry.money()?;
        let posted = self.state.accounts.post(&legs, entry.lsn);
        posted.map_err(|_| ReplayError::Chain { object: "account", lsn: entry.lsn })
    }

    fn limit(&mut self, entry: &Entry<'_>) -> Result<(), ReplayError> {
        let (id, tenant) = (LimitId(entry.head.subject as u32), entry.head.tenant);
        let spec = entry.object::<StoredLimit>()?.spec();
        let spec = spec.ok_or(FormatError { what: "unknown scope or window of a limit", lsn: entry.lsn })?;
        let known = self.state.limits.find(id, tenant).map(|limit| limit.lsn);
        let is_new = known.is_none() && id == self.state.limits.next();
        if is_new || self.continues(entry, known, "limit")? {
            self.state.limits.put(id, tenant, spec, entry.lsn);
        }
        Ok(())
    }

    fn import(&mut self, vault: &Vault, entry: &Entry<'_>) -> Result<(), ReplayError> {
        let id = BatchId(entry.head.subject as u32);
        if self.table.batch(id).is_some() {
            return Ok(());
        }
        let (stored, validity) = entry.object_extended::<StoredBatch, StoredValidity>()?;
        let validity = known_validity(validity, entry.lsn)?;
        let product = self.state.product(ProductId(stored.product), entry.head.tenant);
        let Some(product) = product else {
            return Err(ReplayError::Chain { object: "product", lsn: entry.lsn });
        };
        let commit = Commit {
            stored,
            validity,
            kind: product.product.spec.kind,
            id,
            import: entry.head.request,
            imported_by: entry.head.principal,
            lsn: entry.lsn,
            time_ms: entry.time_ms,
        };
        self.commit(vault, commit)?;
        let file = &self.table.batch(id).expect("committed just now").file;
        if file.layout.origins != entry.tells_origins() {
            let what = "its rows have, or have not, states of another system";
            let source = io::Error::new(io::ErrorKind::InvalidData, what);
            return Err(ReplayError::BatchFile { batch: id, source });
        }
        Ok(())
    }

    /// Opens a committed batch's file and makes the batch visible, its cards as they were imported.
    fn commit(&mut self, vault: &Vault, commit: Commit) -> Result<(), ReplayError> {
        let id = commit.id;
        let damaged = |source| ReplayError::BatchFile { batch: id, source };
        let file = BatchFile::open(&*self.medium, id.0, self.store).map_err(damaged)?;
        if file.layout.rows != commit.stored.rows {
            let what = io::Error::new(io::ErrorKind::InvalidData, "the file has another number of rows");
            return Err(damaged(what));
        }
        let (columns, words) = Columns::read(&file, commit.kind).map_err(damaged)?;
        let counted = Counted::of(&words, &columns, file.layout.origins);
        let key = vault.key(file.layout.key).ok_or(ReplayError::Key { batch: id })?;
        self.table.commit(Batch::new(commit, file, key, columns, words));
        let batch = self.table.batch(id).expect("committed just now");
        self.state.put_batch(batch, counted);
        Ok(())
    }

    /// Installs a snapshot into an empty state. `Ok(false)` if its contents make no sense, although its
    /// checksum fits; nothing of this state may be used then.
    ///
    /// # Errors
    /// See [`ReplayError`]; an unreadable file is reported as an unusable snapshot.
    pub fn snapshot(&mut self, vault: &Vault, snapshot: &Snapshot) -> Result<bool, ReplayError> {
        let Ok(Some(objects)) = snapshot.objects() else { return Ok(false) };
        let Ok(Some(ledger)) = snapshot.ledger() else { return Ok(false) };
        self.state.now_ms = objects.now_ms;
        self.state.clocks = objects.clocks();
        for (id, object) in (1..).zip(&objects.products) {
            let terms = ledger.terms.iter().find(|(product, _)| *product == id).map(|(_, terms)| terms);
            let (Some(spec), Some(lsn)) = (object.stored.spec(terms), Lsn::from_bytes(object.lsn)) else {
                return Ok(false);
            };
            let id = ProductId(id);
            self.state.put_product(id, TenantId(object.stored.tenant), spec, lsn);
            self.state.set_product_frozen(id, object.frozen, lsn);
        }
        for (id, object) in (1..).zip(&objects.principals) {
            let place = ledger.places.iter().find(|(principal, _)| *principal == id).map(|(_, place)| place);
            let (Some(principal), Some(lsn)) =
                (object.principal(PrincipalId(id), place), Lsn::from_bytes(object.lsn))
            else {
                return Ok(false);
            };
            self.state.put_principal(principal, lsn);
        }
        // In the order they were committed, which is the order they are sold in.
        let mut batches: Vec<_> = objects.batches.iter().collect();
        batches.sort_by_key(|object| object.import_lsn);
        for object in batches {
            let (Some(import_lsn), Some(lsn)) =
                (Lsn::from_bytes(object.import_lsn), Lsn::from_bytes(object.lsn))
            else {
                return Ok(false);
            };
            let tenant = TenantId(object.stored.tenant);
            let product = ProductId(object.stored.product);
            let Some(product) = self.state.product(product, tenant) else { return Ok(false) };
            let id = BatchId(object.id);
            let validity = ledger.validities.iter().find(|(batch, _)| *batch == object.id);
            let validity = validity.map(|(_, validity)| validity);
            let commit = Commit {
                stored: object.stored.clone(),
                validity: known_validity(validity.copied(), lsn)?,
                kind: product.product.spec.kind,
                id,
                import: RequestId(object.import),
                imported_by: PrincipalId(object.imported_by),
                lsn: import_lsn,
                time_ms: object.imported_ms,
            };
            self.commit(vault, commit)?;
            let batch = self.table.batch(id).expect("committed just now");
            let activity = Activity::whole(batch.rows(), object.active.then_some(object.imported_ms));
            self.state.stock_mut(id).set_activity(batch, activity);
            batch.set_frozen(object.frozen);
            if object.voided {
                batch.set_voided();
            }
            batch.set_extended_ms(object.extended_ms);
            self.state.stock_mut(id).lsn = lsn;
        }
        if !matches!(snapshot.words(&objects, &self.table), Ok(true)) {
            return Ok(false);
        }
        for batch in self.table.batches() {
            self.state.stock_mut(batch.id).derive(batch);
            self.state.note_stock(batch);
        }
        for object in &ledger.holds {
            let Some((key, hold)) = object.hold() else { return Ok(false) };
            self.state.holds.apply(HoldChange::Open(key, hold));
        }
        for &(card, principal, terminal, until_ms) in &ledger.pin_locks {
            let key = (card, PrincipalId(principal), TerminalId(terminal));
            self.state.pins.apply(PinChange::Lock(key, 0, until_ms));
        }
        for object in &ledger.activities {
            let Some(batch) = self.table.batch(BatchId(object.batch)) else { return Ok(false) };
            let pieces = object.pieces.iter().copied();
            let Some(activity) = Activity::from_pieces(batch.rows(), pieces) else { return Ok(false) };
            self.state.stock_mut(batch.id).set_activity(batch, activity);
        }
        for &(card, end_ms) in &ledger.ends {
            let card = CardRef::from_bits(card);
            let Some(batch) = self.table.batch_of(card) else { return Ok(false) };
            self.state.set_end(batch, card.row(), end_ms);
        }
        for object in &ledger.shared {
            let (card, counted) = object.counted();
            let Some(batch) = self.table.batch_of(card) else { return Ok(false) };
            if !self.state.stock_mut(batch.id).restore_shared(card.row(), counted) {
                return Ok(false);
            }
        }
        for &(tenant, document, lsn) in &ledger.documents {
            let Some(lsn) = Lsn::from_bytes(lsn) else { return Ok(false) };
            self.state.documents.insert((TenantId(tenant), DocumentId(document)), lsn);
        }
        if !self.state.tenants.restore(&ledger.tenants)
            || !self.state.exceptions.restore(&ledger.exceptions)
            || !self.state.proposals.restore(&ledger.proposals, &ledger.controls)
            || !self.state.accounts.restore(&ledger.accounts)
            || !self.state.limits.restore(&ledger.limits, &ledger.usages, ledger.counted_ms)
        {
            return Ok(false);
        }
        for &(tenant, lsn) in &ledger.order_heads {
            let Some(lsn) = Lsn::from_bytes(lsn) else { return Ok(false) };
            self.state.set_order_head(TenantId(tenant), lsn);
        }
        let orders = &mut self.state.orders;
        if !matches!(snapshot.orders(&mut |key, word| orders.put(key, word)), Ok(true)) {
            return Ok(false);
        }
        for stored in &ledger.reservations {
            let (key, reservation) = stored.reservation();
            orders.open(key, reservation);
        }
        Ok(true)
    }
}

fn known_validity(stored: Option<StoredValidity>, lsn: Lsn) -> Result<Option<Validity>, FormatError> {
    let Some(stored) = stored else { return Ok(None) };
    let unknown = FormatError { what: "unknown rule of validity", lsn };
    stored.validity().map(Some).ok_or(unknown)
}

/// What an entry about a card does to the table of open holds: whatever state the card is in, for the table's
/// own past is replayed as a whole.
fn hold_change(entry: &Entry<'_>) -> Result<Option<HoldChange>, FormatError> {
    let kind = entry.head.kind;
    let ends = matches!(kind, Kind::Capture | Kind::Release | Kind::HoldTimeout | Kind::Reverse);
    if kind != Kind::Hold && !ends {
        return Ok(None);
    }
    let card = entry.head.subject;
    Ok(entry.value()?.map(|tail| match kind {
        Kind::Hold => {
            let hold = Hold {
                amount: tail.amount,
                deadline_ms: tail.time_ms,
                merchant: entry.head.merchant,
                lsn: entry.lsn,
            };
            HoldChange::Open((card, entry.head.request), hold)
        }
        // A reversal of something else than a hold finds none of its id.
        _ => HoldChange::End((card, tail.related)),
    }))
}
