//! Everything that changes under the sequencer's lock, and the one way each thing changes.
//!
//! The same functions are called when a command is executed and when its record is replayed, so memory
//! after recovery is memory before the crash. Cursors, free lists, counters and look-up maps are derived:
//! they are kept here while running and computed again at recovery.

use std::collections::{BTreeMap, HashMap};

use kami_wal::Lsn;

use crate::accounts::Accounts;
use crate::card::View;
use crate::command::Command;
use crate::exceptions::Exceptions;
use crate::holds::{HeldOf, Holds};
use crate::identity::{
    AccountId, BatchId, Caller, DocumentId, Principal, PrincipalId, PrincipalSpec, ProductId, Renewal,
    RequestId, TenantId, TerminalId,
};
use crate::limits::{Buyer, Limits};
use crate::order::{Line, units};
use crate::orders::{OrderKey, OrderState, OrderWord, Orders, Reservation};
use crate::pins::{PinKey, Pins};
use crate::product::{CardKind, Money, Product, ProductSpec};
use crate::record::{
    Allocation, Clocks, Kind, OrderFacts, PostedLeg, Purse, Stored, StoredPlace, StoredPrincipal,
};
use crate::reply::StockLine;
use crate::sharded::Sharded;
use crate::table::{Batch, Table};
use crate::tenants::Tenants;
use crate::value::Value;
use crate::word::{CardRef, Flags, Lifecycle, Word};

/// Products, batches' stock, orders and principals.
#[derive(Default)]
pub struct State {
    /// Engine time: of the last group in the log, milliseconds.
    pub now_ms: u64,
    /// Products by number; number 1 is the first.
    pub products: Vec<ProductState>,
    /// Product numbers by tenant and name.
    pub product_names: HashMap<(TenantId, String), ProductId>,
    /// Stock by batch number; numbers that were never committed have `None`.
    pub stocks: Vec<Option<Stock>>,
    /// Orders.
    pub orders: Orders,
    /// The clocks at the last start.
    pub clocks: Clocks,
    /// Principals by number; number 1 is the first.
    pub principals: Vec<PrincipalState>,
    /// Principal numbers by key.
    pub principal_keys: HashMap<[u8; 32], PrincipalId>,
    /// Open holds.
    pub holds: Holds,
    /// Cards that are locked for somebody after wrong PINs.
    pub pins: Pins,
    /// Redemptions that were made offline and did not fit.
    pub exceptions: Exceptions,
    /// Batch numbers by the id of the import that made them.
    pub imports: HashMap<(TenantId, RequestId), BatchId>,
    /// Accounts.
    pub accounts: Accounts,
    /// Where the POST of each document stands.
    pub documents: Sharded<(TenantId, DocumentId), Lsn>,
    /// Limits, and what counts against them.
    pub limits: Limits,
    /// Tenants but for the house.
    pub tenants: Tenants,
}

/// A product and its batches.
pub struct ProductState {
    /// The product.
    pub product: Product,
    /// Whose it is.
    pub tenant: TenantId,
    /// Its last entry.
    pub lsn: Lsn,
    /// Its batches, oldest first: the order they are sold in.
    pub batches: Vec<BatchId>,
    /// Whether its cards can be used by some merchants or in some stores only.
    pub is_bound: bool,
}

impl ProductState {
    /// Whether its cards can be used by this caller in this store. Whoever acts for all merchants may anywhere.
    #[must_use]
    pub fn admits(&self, caller: &Caller, store: u32) -> bool {
        let terms = &self.product.spec.terms;
        !self.is_bound
            || caller.acts_for_all()
            || (terms.merchants.is_empty() || terms.merchants.contains(&caller.merchant))
                && (terms.stores.is_empty() || terms.stores.contains(&store))
    }
}

/// A principal.
pub struct PrincipalState {
    /// The principal.
    pub principal: Principal,
    /// Its last entry.
    pub lsn: Lsn,
}

/// What a principal may touch, and where it stands.
#[derive(Clone, Copy, Default)]
pub struct Scope<'a> {
    /// The products; an empty list is all. They never change.
    products: &'a [ProductId],
    /// The classes of products that its commands about cards may be about; none is all. A product's class may
    /// change.
    classes: u64,
    store: u32,
}

impl<'a> Scope<'a> {
    /// The products, none for all.
    #[must_use]
    pub fn products(self) -> &'a [ProductId] {
        self.products
    }

    /// Whether the product is among them.
    #[inline]
    #[must_use]
    pub fn covers(self, product: ProductId) -> bool {
        self.products.is_empty() || self.products.contains(&product)
    }

    /// Whether commands about cards of the product are denied for its class or, if they `use` the card, for the
    /// merchant or the store. Almost no product and no principal is bound, which costs two comparisons.
    #[inline]
    #[must_use]
    pub fn denies(self, product: &ProductState, caller: &Caller, uses: bool) -> bool {
        (self.classes != 0 || product.is_bound)
            && (self.classes != 0 && self.classes >> (product.product.spec.terms.class & 63) & 1 == 0
                || uses && !product.admits(caller, self.store))
    }

    /// Whether it is all products.
    #[must_use]
    pub fn is_all(self) -> bool {
        self.products.is_empty()
    }
}

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

impl State {
    /// The product with this number, if it is the tenant's.
    #[must_use]
    pub fn product(&self, id: ProductId, tenant: TenantId) -> Option<&ProductState> {
        let index = (id.0 as usize).checked_sub(1)?;
        self.products.get(index).filter(|product| product.tenant == tenant)
    }

    /// The product of a committed batch.
    ///
    /// # Panics
    /// If there is none: a batch is committed only with a product.
    #[must_use]
    pub fn product_of(&self, batch: &Batch) -> &ProductState {
        &self.products[batch.product.0 as usize - 1]
    }

    /// The stock of a committed batch.
    ///
    /// # Panics
    /// If the batch is not committed.
    #[must_use]
    pub fn stock(&self, id: BatchId) -> &Stock {
        self.stocks[id.0 as usize].as_ref().expect("the batch is committed")
    }

    /// See [`State::stock`].
    pub fn stock_mut(&mut self, id: BatchId) -> &mut Stock {
        self.stocks[id.0 as usize].as_mut().expect("the batch is committed")
    }

    /// All that a decision about a card rests on.
    #[inline]
    #[must_use]
    pub fn view(&self, batch: &Batch, row: u64, word: Word) -> View {
        let state = self.product_of(batch);
        let product = &state.product;
        View {
            word,
            kind: product.spec.kind,
            batch_active: batch.is_row_active(row),
            frozen: batch.is_frozen() || self.is_product_frozen(state),
            batch_voided: batch.is_voided(),
            valid_from_ms: batch.valid_from_ms,
            expires_ms: self.expires_ms(batch, row, word),
            face: batch.face(row),
            reversal_ms: u64::from(product.spec.reversal_s) * 1000,
            now_ms: self.now_ms,
            held: false,
            begun_ms: 0,
            from_use: false,
        }
    }

    /// When a card expires, extensions included; 0 is never.
    #[inline]
    #[must_use]
    pub fn expires_ms(&self, batch: &Batch, row: u64, word: Word) -> u64 {
        if word.flags().contains(Flags::OWN_END) {
            self.stock(batch.id).expires_ms(batch, row)
        } else {
            batch.expires_ms(row)
        }
    }

    /// Gives a card an end of validity of its own. Its word says so, too.
    pub fn set_end(&mut self, batch: &Batch, row: u64, end_ms: u64) {
        let Stock { ends, free, cursor, .. } = self.stock_mut(batch.id);
        ends.insert(row, end_ms);
        let word = batch.word(row);
        let stands = word.lifecycle() == Lifecycle::Available && !word.flags().contains(Flags::FROZEN);
        if stands && row < *cursor {
            // It may have been passed over because it had expired.
            free.insert(row);
        }
    }

    /// What a card is worth when it is sold: its face value, or its uses.
    #[must_use]
    pub fn initial(&self, batch: &Batch, row: u64) -> Money {
        match batch.kind {
            CardKind::MultiUse => Money::from(self.product_of(batch).product.spec.terms.uses),
            _ => batch.face(row),
        }
    }

    /// What a decision about a card's value rests on. `purse` is what its last entry left on it, if one tells;
    /// `hold` is the hold that is asked about.
    #[must_use]
    pub fn value(
        &self,
        batch: &Batch,
        card: CardRef,
        word: Word,
        purse: Option<Purse>,
        hold: Option<RequestId>,
    ) -> Value {
        let spec = &self.product_of(batch).product.spec;
        let initial = self.initial(batch, card.row());
        let mut purse = purse.unwrap_or_else(|| Purse::fresh(initial, None));
        if batch.kind == CardKind::Single {
            // Entries without a purse moved it, too; the word tells.
            let left = if word.lifecycle() == Lifecycle::Redeemed { 0 } else { initial };
            (purse.remaining, purse.redeemed) = (left, initial - left);
        }
        let is_held = word.flags().contains(Flags::HELD);
        let held = if is_held { self.holds.of(card, self.now_ms) } else { HeldOf::default() };
        let open = hold.filter(|_| is_held).and_then(|id| self.holds.find(&(card.to_bits(), id))).copied();
        Value {
            purse,
            held,
            open,
            value_max: spec.terms.value_max,
            partial: spec.terms.partial,
            hold_ms: u64::from(spec.terms.hold_s) * 1000,
        }
    }

    /// The last entry of the product, batch or principal that an administrative command changes.
    pub fn object_lsn(&self, command: &Command, tenant: TenantId) -> Option<Lsn> {
        match command {
            Command::ProductAdd(spec) | Command::ProductSet(spec) => {
                let id = self.product_names.get(&(tenant, spec.name.clone()))?;
                self.product(*id, tenant).map(|product| product.lsn)
            }
            Command::ProductFreeze(id) | Command::ProductUnfreeze(id) => {
                self.product(*id, tenant).map(|product| product.lsn)
            }
            Command::PrincipalAdd(spec) => {
                let mut named = self.principals.iter().filter(|state| state.principal.spec.name == spec.name);
                named.next().map(|state| state.lsn)
            }
            Command::PrincipalRevoke(id) => self.principal_lsn(*id),
            Command::AccountPut(put) => self.accounts.named(tenant, &put.spec.name).map(|state| state.lsn),
            Command::AccountFreeze(id) | Command::AccountUnfreeze(id) => {
                self.accounts.find(*id, tenant).map(|state| state.lsn)
            }
            Command::ExceptionResolve(given) => self.exceptions.find(given.id, tenant).map(|state| state.lsn),
            Command::LimitPut(spec) => self.limits.named(tenant, &spec.name).map(|state| state.lsn),
            Command::PrincipalRenew(renewal) => self.principal_lsn(renewal.principal),
            Command::TenantPut(spec) => self.tenants.lsn_of_name(&spec.name),
            Command::TenantFreeze(id) | Command::TenantUnfreeze(id) => self.tenants.lsn(*id),
            command => self.batch_stock(command.batch()?, tenant).map(|stock| stock.lsn),
        }
    }

    fn principal_lsn(&self, id: PrincipalId) -> Option<Lsn> {
        self.principals.get((id.0 as usize).checked_sub(1)?).map(|state| state.lsn)
    }

    /// The tail of the entry that records a renewal; empty if there is no such principal.
    pub fn renewed_tail(&self, renewal: Renewal) -> Vec<u8> {
        let known = self.principals.get((renewal.principal.0 as usize).wrapping_sub(1));
        let renewed = known.map(|state| renewal.applied_to(&state.principal.spec));
        renewed.map_or_else(Vec::new, |spec| {
            StoredPrincipal::from(&spec).entry_tail_with(StoredPlace::of(&spec).as_ref())
        })
    }

    /// The stock of a batch, if it is committed and the tenant's.
    #[must_use]
    pub fn batch_stock(&self, id: BatchId, tenant: TenantId) -> Option<&Stock> {
        self.stocks.get(id.0 as usize)?.as_ref().filter(|stock| stock.tenant == tenant)
    }

    /// Gives one card its next word and keeps the counters.
    #[inline]
    pub fn install(&mut self, batch: &Batch, row: u64, old: Word, new: Word) {
        batch.install(row, new);
        let own_expiry = batch.columns.expiries.get(row as usize).copied();
        self.stock_mut(batch.id).moved(row, old, new, own_expiry);
    }

    /// Adds or changes a product.
    pub fn put_product(&mut self, id: ProductId, tenant: TenantId, spec: ProductSpec, lsn: Lsn) {
        let index = id.0 as usize - 1;
        let is_bound = !spec.terms.merchants.is_empty() || !spec.terms.stores.is_empty();
        if let Some(state) = self.products.get_mut(index) {
            state.product.spec = spec;
            state.lsn = lsn;
            state.is_bound = is_bound;
        } else {
            self.product_names.insert((tenant, spec.name.clone()), id);
            let product = Product { id, spec, frozen: false };
            self.products.push(ProductState { product, tenant, lsn, batches: Vec::new(), is_bound });
        }
    }

    /// Adds a principal, or puts a renewed one in its place.
    pub fn put_principal(&mut self, principal: Principal, lsn: Lsn) {
        let (index, key, id) = (principal.id.0 as usize - 1, principal.spec.key, principal.id);
        if let Some(state) = self.principals.get_mut(index) {
            self.principal_keys.remove(&state.principal.spec.key);
            *state = PrincipalState { principal, lsn };
        } else {
            self.principals.push(PrincipalState { principal, lsn });
        }
        self.principal_keys.insert(key, id);
    }

    /// What a principal may touch. The engine itself and principals of whoever embeds it, which no list
    /// here knows, may touch everything; a revoked one nothing, which is what `None` says.
    #[inline]
    #[must_use]
    pub fn scope(&self, id: PrincipalId) -> Option<Scope<'_>> {
        match self.principals.get((id.0 as usize).wrapping_sub(1)) {
            None => Some(Scope::default()),
            Some(state) if state.principal.revoked => None,
            Some(state) => {
                let PrincipalSpec { products, classes, store, .. } = &state.principal.spec;
                Some(Scope { products, classes: *classes, store: *store })
            }
        }
    }

    /// Whose tries of a card's PIN are counted together: a principal's of the store, or a till's of another, for whom
    /// whoever embeds the engine answers.
    #[must_use]
    pub fn pin_key(&self, card: CardRef, principal: PrincipalId, terminal: TerminalId) -> PinKey {
        let known = (principal.0 as usize).wrapping_sub(1) < self.principals.len();
        (card.to_bits(), principal, if known { TerminalId(0) } else { terminal })
    }

    /// Adds the stock of a batch whose cards are all untouched.
    pub fn put_batch(&mut self, batch: &Batch, tenant: TenantId) {
        let index = batch.id.0 as usize;
        if self.stocks.len() <= index {
            self.stocks.resize_with(index + 1, || None);
        }
        self.stocks[index] = Some(Stock::new(batch, tenant));
        self.imports.insert((tenant, batch.import), batch.id);
        self.products[batch.product.0 as usize - 1].batches.push(batch.id);
    }

    /// Looks for the cards of one line of an order, oldest batch first, in row order, and adds them to what was
    /// found. Changes nothing. The result says whether there were enough.
    pub fn allocate(
        &self,
        table: &Table,
        tenant: TenantId,
        line: &Line,
        validity_s_min: u32,
        found: &mut Search,
    ) -> bool {
        let Some(product) = self.product(line.product, tenant) else { return false };
        if self.is_product_frozen(product) || !product.product.spec.terms.listed {
            return false;
        }
        let valid_until = self.now_ms + u64::from(validity_s_min) * 1000;
        let mut missing = u64::from(line.count);
        for &id in &product.batches {
            let batch = table.batch(id).expect("a product's batches are committed");
            if missing > 0 && !batch.is_frozen() && !batch.is_voided() {
                self.allocate_from(batch, &mut missing, valid_until, line.face, found);
            }
        }
        missing == 0
    }

    fn allocate_from(
        &self,
        batch: &Batch,
        missing: &mut u64,
        valid_until: u64,
        face: Option<Money>,
        found: &mut Search,
    ) {
        let stock = self.stock(batch.id);
        if stock.counts[Lifecycle::Available as usize] == 0 {
            return;
        }
        let before = found.cards.count();
        // What begins with the sale must be long enough; it has no other end in stock.
        let rule_ms = batch.validity.map(|rule| self.now_ms + rule.ms());
        if rule_ms.is_some_and(|ends_ms| ends_ms <= valid_until) {
            return;
        }
        let batch_expires = batch.expires_ms(0);
        let by_row = !batch.columns.expiries.is_empty() || !stock.ends.is_empty();
        if !by_row && batch_expires != 0 && batch_expires <= valid_until {
            return;
        }
        let faces = !batch.columns.faces.is_empty();
        if face.is_some_and(|face| !faces && face != batch.face) {
            return;
        }
        // A row can be sold if it is in stock, not frozen by itself, and valid long enough.
        let ends = |row| stock.expires_ms(batch, row);
        let lasts = |row| match ends(row) {
            0 => true,
            expires => expires > valid_until,
        };
        let is_worth = |row| !faces || face.is_none_or(|face| batch.face(row) == face);
        let stands =
            |word: Word| word.lifecycle() == Lifecycle::Available && !word.flags().contains(Flags::FROZEN);
        let free = stock.free.rows().filter(|row| lasts(*row) && is_worth(*row));
        for row in free.take(*missing as usize) {
            found.cards.push(CardRef::new(batch.id.0, row), batch.word(row));
        }
        *missing -= u64::from(found.cards.count() - before);
        let mut row = stock.cursor;
        // The cursor may pass what is sold, void or frozen, but not what another order could still take.
        let mut cursor = None;
        while row < batch.rows() && *missing > 0 {
            let word = batch.word(row);
            if stands(word) {
                if (!by_row || lasts(row)) && is_worth(row) {
                    found.cards.push(CardRef::new(batch.id.0, row), word);
                    *missing -= 1;
                } else if cursor.is_none() && (!is_worth(row) || ends(row) > self.now_ms) {
                    cursor = Some(row);
                }
            }
            row += 1;
        }
        found.cursors.push((batch.id, cursor.unwrap_or(row)));
    }

    /// After cards that were found were taken: passes over them at the next order.
    pub fn advance(&mut self, found: &Search) {
        for &(batch, cursor) in &found.cursors {
            let stock = self.stock_mut(batch);
            stock.cursor = stock.cursor.max(cursor);
        }
    }

    /// Moves an order, its cards and its money. What has moved on since (in a replay over a later snapshot) is left
    /// as it is. Returns the reservation that the order had.
    ///
    /// # Errors
    /// The account whose chain the entry does not continue; nothing may be used then.
    pub fn apply_order(
        &mut self,
        table: &Table,
        order: &OrderMove<'_>,
    ) -> Result<Option<Reservation>, AccountId> {
        let OrderMove { kind, lsn, time_ms, key, principal, cards, facts } = *order;
        let (lifecycle, added) = OrderMove::post(kind, facts.sealed);
        for (card, old) in cards.cards() {
            let batch = table.batch_of(card).expect("an order's cards are committed");
            if batch.word(card.row()).lsn() < Some(lsn) {
                self.install(batch, card.row(), old, Word::new(lsn, lifecycle, old.flags().with(added)));
            }
        }
        let state = match kind {
            Kind::Reserve => OrderState::Reserved,
            Kind::Cancel => OrderState::Cancelled,
            Kind::ReserveTimeout => OrderState::TimedOut,
            _ => OrderState::Sold,
        };
        let before = OrderWord::from_bits(facts.prev);
        self.orders.put(key, OrderWord::new(lsn, state, before.is_some_and(OrderWord::is_fetched)));
        let buyer = Buyer { tenant: key.0, account: AccountId(facts.account), ip: facts.ip, principal };
        match kind {
            // A plain sale names its product alone.
            Kind::Sell if facts.lines.is_empty() => {}
            // Nothing counts what nothing limits.
            _ if self.limits.standing(key.0) == 0 => {}
            Kind::Sell | Kind::Reserve | Kind::Realloc => {
                self.limits.take(&buyer, &units(&facts.lines), time_ms, lsn);
            }
            Kind::Cancel | Kind::ReserveTimeout => {
                let taken = before.map_or(lsn, OrderWord::lsn);
                self.limits.give_back(&buyer, &units(&facts.lines), (taken, facts.moment_ms), time_ms, lsn);
            }
            _ => {}
        }
        // Everything from a snapshot's start on is replayed in order, so this may be done again.
        let closed = if kind == Kind::Sell { None } else { self.orders.close(&key) };
        if kind == Kind::Reserve {
            self.orders.open(key, Reservation::of(principal, cards.count(), facts));
        } else {
            self.accounts.post(&facts.legs, lsn)?;
        }
        Ok(closed)
    }

    /// Keeps what open orders hold: the one with this key was opened, or the one it had is closed.
    pub fn set_aside(&mut self, key: OrderKey, closed: Option<&Reservation>) {
        let State { orders, accounts, limits, .. } = self;
        if let Some(closed) = closed {
            accounts.release(&closed.legs);
            limits.close(&closed.buyer(key.0), u64::from(closed.cards));
        }
        if let Some(open) = orders.reservation(&key) {
            accounts.hold(&open.legs);
            limits.open(&open.buyer(key.0), u64::from(open.cards));
        }
    }

    /// The stock of a batch, to be shown.
    #[must_use]
    pub fn stock_line(&self, batch: &Batch) -> StockLine {
        let stock = self.stock(batch.id);
        let product = &self.product_of(batch).product;
        let frozen = batch.is_frozen() || self.is_product_frozen(self.product_of(batch));
        let closed = frozen || batch.is_voided() || !product.spec.terms.listed;
        let sellable = if closed { 0 } else { stock.sellable(batch, self.now_ms) };
        StockLine {
            product: batch.product,
            batch: batch.id,
            imported: batch.rows(),
            sellable,
            counts: stock.counts,
        }
    }

    /// After recovery: computes what open orders hold, and moves every cursor past the rows that are not for
    /// sale, so that the first order need not.
    pub fn settle(&mut self, table: &Table) {
        for batch in table.batches() {
            let stands = |row: &u64| {
                let word = batch.word(*row);
                word.lifecycle() == Lifecycle::Available && !word.flags().contains(Flags::FROZEN)
            };
            let first = (0..batch.rows()).find(stands).unwrap_or(batch.rows());
            let stock = self.stock_mut(batch.id);
            stock.rewind();
            stock.cursor = first;
        }
        let State { orders, accounts, limits, .. } = self;
        accounts.release_all();
        limits.close_all();
        for (key, open) in orders.reservations(None) {
            accounts.hold(&open.legs);
            limits.open(&open.buyer(key.0), u64::from(open.cards));
        }
    }

    /// Checks that counters, words and orders agree, and that money closes: invariants I1, I2 and I5. Reads every word; for tests,
    /// recovery and verification.
    ///
    /// # Errors
    /// The first disagreement, in words.
    pub fn check(&self, table: &Table) -> Result<(), String> {
        for batch in table.batches() {
            let stock = self.stock(batch.id);
            let mut fresh = Stock::new(batch, stock.tenant);
            fresh.derive(batch);
            if fresh.counts != stock.counts {
                return Err(format!(
                    "counts of batch {}: {:?}, by its words {:?}",
                    batch.id, stock.counts, fresh.counts
                ));
            }
            if fresh.counts.iter().sum::<u64>() != batch.rows() {
                return Err(format!("batch {}: states do not sum to the cards imported", batch.id));
            }
            if fresh.frozen != stock.frozen
                || fresh.expiries != stock.expiries
                || fresh.ending != stock.ending
            {
                return Err(format!("batch {}: frozen or expiring cards counted wrongly", batch.id));
            }
            for row in 0..batch.rows() {
                if batch.word(row).flags().contains(Flags::OWN_END) != stock.ends.contains_key(&row) {
                    return Err(format!("batch {}: row {row} has an end of its own, or not", batch.id));
                }
                let held = batch.word(row).flags().contains(Flags::HELD);
                let open = self.holds.of(CardRef::new(batch.id.0, row), self.now_ms).count;
                if held != (open > 0) {
                    return Err(format!(
                        "batch {}: row {row} says HELD and has {open} holds, or not",
                        batch.id
                    ));
                }
            }
            for row in 0..stock.cursor {
                let word = batch.word(row);
                let open = word.lifecycle() == Lifecycle::Available && !word.flags().contains(Flags::FROZEN);
                let expires = stock.expires_ms(batch, row);
                if open
                    && !batch.is_voided()
                    && (expires == 0 || expires > self.now_ms)
                    && !stock.free.contains(row)
                {
                    return Err(format!("batch {}: row {row} is for sale and would never be sold", batch.id));
                }
            }
        }
        let stocks = self.stocks.iter().flatten();
        let reserved: u64 = stocks.map(|stock| stock.counts[Lifecycle::Reserved as usize]).sum();
        let waiting: u64 = self.orders.reservations(None).map(|(_, waiting)| u64::from(waiting.cards)).sum();
        if reserved != waiting {
            return Err(format!("{reserved} cards are reserved, and {waiting} are in orders that wait"));
        }
        self.accounts.check_all()
    }
}

impl Stock {
    fn new(batch: &Batch, tenant: TenantId) -> Stock {
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

    #[inline]
    fn moved(&mut self, row: u64, old: Word, new: Word, own_expiry: Option<u64>) {
        let (from, to) = (old.lifecycle(), new.lifecycle());
        self.counts[from as usize] -= 1;
        self.counts[to as usize] += 1;
        if from != Lifecycle::Available && to != Lifecycle::Available {
            return;
        }
        let stood = from == Lifecycle::Available && !old.flags().contains(Flags::FROZEN);
        let stands = to == Lifecycle::Available && !new.flags().contains(Flags::FROZEN);
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

    /// See [`State::expires_ms`]; of a card that has an end of its own.
    fn expires_ms(&self, batch: &Batch, row: u64) -> u64 {
        self.ends.get(&row).copied().unwrap_or_else(|| batch.expires_ms(row))
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

    fn sellable(&self, batch: &Batch, now_ms: u64) -> u64 {
        let standing = self.counts[Lifecycle::Available as usize] - self.frozen - self.ending;
        let ending = self.ends.iter().filter(|(row, end_ms)| {
            let word = batch.word(**row);
            word.lifecycle() == Lifecycle::Available
                && word.flags().contains(Flags::OWN_END)
                && !word.flags().contains(Flags::FROZEN)
                && **end_ms > now_ms
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

/// One entry about an order: what moves which cards.
#[derive(Clone, Copy)]
pub struct OrderMove<'a> {
    /// What happens.
    pub kind: Kind,
    /// Where it stands.
    pub lsn: Lsn,
    /// When, in milliseconds.
    pub time_ms: u64,
    /// The order.
    pub key: OrderKey,
    /// Who asked for it.
    pub principal: PrincipalId,
    /// Its cards, with the words they had.
    pub cards: &'a Allocation,
    /// What else the entry says.
    pub facts: &'a OrderFacts,
}

impl OrderMove<'_> {
    /// Where the cards of such an entry stand afterwards, and the flag they gain. Of a RETURN `sealed` says that
    /// nobody saw the codes.
    #[must_use]
    pub fn post(kind: Kind, sealed: bool) -> (Lifecycle, Flags) {
        match kind {
            Kind::Reserve => (Lifecycle::Reserved, Flags::NONE),
            Kind::Cancel | Kind::ReserveTimeout => (Lifecycle::Available, Flags::NONE),
            Kind::Return if sealed => (Lifecycle::Available, Flags::NONE),
            Kind::Return => (Lifecycle::Returned, Flags::NONE),
            _ if sealed => (Lifecycle::Sold, Flags::NONE),
            _ => (Lifecycle::Sold, Flags::REVEALED),
        }
    }
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
}
