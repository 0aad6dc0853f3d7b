//! Everything that changes under the sequencer's lock, and the one way each thing changes.
//!
//! The same functions are called when a command is executed and when its record is replayed, so memory
//! after recovery is memory before the crash. Cursors, free lists, counters and look-up maps are derived:
//! they are kept here while running and computed again at recovery.

use std::collections::{BTreeSet, HashMap};

use kami_wal::Lsn;

use crate::accounts::Accounts;
use crate::card::View;
use crate::command::Command;
use crate::control::Proposals;
use crate::exceptions::Exceptions;
use crate::holds::{HeldOf, Holds};
use crate::identity::{
    AccountId, BatchId, Caller, DocumentId, Principal, PrincipalId, PrincipalSpec, ProductId, Renewal,
    RequestId, TenantId, TerminalId,
};
use crate::limits::{Buyer, Limits};
use crate::order::list::opens;
use crate::order::{Line, units};
use crate::orders::{OrderKey, OrderState, OrderWord, Orders, Reservation};
use crate::pins::{PinKey, Pins};
use crate::product::{CardKind, Money, Product, ProductSpec};
use crate::record::{Allocation, Clocks, Kind, OrderFacts, Purse, Stored, StoredPlace, StoredPrincipal};
use crate::reply::StockLine;
use crate::sharded::Sharded;
use crate::stock::Counted;
use crate::stock::{Search, Shared, SharedRow, Stock};
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
    /// Where the last order of each tenant was opened, by the tenant's number; 0 is none.
    order_heads: Vec<u64>,
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
    /// What was proposed, and what of each tenant takes two people.
    pub proposals: Proposals,
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
    /// The places in that list of those that orders look at: with cards that could be sold, as far as is known without
    /// looking. One whose cards have all expired is taken out when an order comes by.
    pub stocked: BTreeSet<u32>,
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

    /// Whether it is all products and all classes.
    #[must_use]
    pub fn is_boundless(self) -> bool {
        self.products.is_empty() && self.classes == 0
    }
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
            batch_active: self.is_row_active(batch, row),
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

    /// Whether a row is redeemable once sold, as far as the batch says.
    #[inline]
    #[must_use]
    pub fn is_row_active(&self, batch: &Batch, row: u64) -> bool {
        batch.active().unwrap_or_else(|| self.active_since_ms(batch, row).is_some())
    }

    /// Since when a row is active, as far as the batch says, milliseconds; `None` if it is not.
    #[must_use]
    pub fn active_since_ms(&self, batch: &Batch, row: u64) -> Option<u64> {
        self.stock(batch.id).activity().since_ms(row)
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
        self.stock_mut(batch.id).set_end(batch, row, end_ms);
        self.note_stock(batch);
    }

    /// What was on a card when it was imported: its face value, or its uses; or what another system left of that.
    #[must_use]
    pub fn initial(&self, batch: &Batch, row: u64) -> Money {
        batch.columns.left(row).unwrap_or_else(|| self.worth(batch, row))
    }

    /// What a card held when it was new: its face value, or its uses.
    #[must_use]
    pub fn worth(&self, batch: &Batch, row: u64) -> Money {
        match batch.kind {
            CardKind::MultiUse => Money::from(self.product_of(batch).product.spec.terms.uses),
            // Each sale brings a use.
            CardKind::Shared => 0,
            _ => batch.face(row),
        }
    }

    /// What is counted of a card that is sold many times.
    #[must_use]
    pub fn shared_row(&self, batch: &Batch, row: u64) -> SharedRow {
        self.stock(batch.id).shared().map_or_else(SharedRow::default, |shared| shared.row(row))
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
        if batch.kind == CardKind::Shared {
            // Sales are no entries of its value: what they brought is counted beside the words.
            purse.loaded = Money::from(self.shared_row(batch, card.row()).stands());
            purse.remaining = purse.loaded + purse.refunded - purse.redeemed;
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
                let is_same = |known: &PrincipalSpec| known.name == spec.name && known.tenant == spec.tenant;
                let mut named = self.principals.iter().filter(|state| is_same(&state.principal.spec));
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
            Command::TenantControl { tenant, .. } => self.proposals.control_lsn(*tenant),
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
        if self.stock_mut(batch.id).moved(batch, row, old, new) {
            self.note_stock(batch);
        }
    }

    /// Whether the batch has cards that could be sold has changed, perhaps: orders are to look at it, or not.
    #[cold]
    pub fn note_stock(&mut self, batch: &Batch) {
        let stock = self.stock(batch.id);
        let offers = !batch.is_frozen() && !batch.is_voided() && stock.standing(batch, None) > 0;
        let place = stock.place;
        let stocked = &mut self.products[batch.product.0 as usize - 1].stocked;
        if offers {
            stocked.insert(place);
        } else {
            stocked.remove(&place);
        }
    }

    /// After looking for cards, whatever came of it: batches whose cards have all expired are looked at no more.
    pub fn pass_over(&mut self, table: &Table, found: &Search) {
        for &id in &found.over {
            let place = self.stock(id).place;
            let product = table.batch(id).expect("it was looked at").product;
            self.products[product.0 as usize - 1].stocked.remove(&place);
        }
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
            self.products.push(ProductState {
                product,
                tenant,
                lsn,
                batches: Vec::new(),
                stocked: BTreeSet::new(),
                is_bound,
            });
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

    /// Adds a batch and its stock, whose cards are as they were imported.
    pub fn put_batch(&mut self, batch: &Batch, counted: Counted) {
        let tenant = batch.tenant;
        let index = batch.id.0 as usize;
        if self.stocks.len() <= index {
            self.stocks.resize_with(index + 1, || None);
        }
        let batches = &mut self.products[batch.product.0 as usize - 1].batches;
        let place = u32::try_from(batches.len()).expect("there are fewer than 2^24 batches");
        batches.push(batch.id);
        let mut stock = Stock::new(batch, counted).at(place);
        if batch.kind == CardKind::Shared {
            stock.share(batch, self.products[batch.product.0 as usize - 1].product.spec.terms.uses);
        }
        self.stocks[index] = Some(stock);
        self.imports.insert((tenant, batch.import), batch.id);
        self.note_stock(batch);
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
        let known = |place: u32| {
            let id = product.batches[place as usize];
            (table.batch(id).expect("a product's batches are committed"), self.stock(id))
        };
        if line.face.is_some() {
            // Rows of one face value may lie anywhere: what cannot be enough is not looked for.
            let stocked = product.stocked.iter().map(|place| known(*place));
            let most: u64 = stocked.map(|(batch, stock)| stock.standing(batch, line.face)).sum();
            if most < missing {
                return false;
            }
        }
        for &place in &product.stocked {
            if missing == 0 {
                break;
            }
            let (batch, stock) = known(place);
            found.batches += 1;
            if stock.is_over(batch, self.now_ms) {
                found.over.push(batch.id);
            } else {
                stock.find(batch, self.now_ms, valid_until, line.face, |_| true, &mut missing, found);
            }
        }
        missing == 0
    }

    /// After cards were looked for: the next order begins behind those that were found, if they were `taken`, and
    /// behind what is not for sale in any case.
    pub fn advance(&mut self, found: &Search, taken: bool) {
        for passed in found.passed() {
            let cursor = if taken { passed.taken } else { passed.left };
            self.stock_mut(passed.batch).pass(passed.face, cursor);
        }
    }

    /// Where the tenant's last order was opened.
    #[must_use]
    pub fn order_head(&self, tenant: TenantId) -> Option<Lsn> {
        Lsn::from_bytes(self.order_heads.get(usize::from(tenant.0)).copied()?).filter(|lsn| lsn.bytes() > 0)
    }

    /// See [`State::order_head`]; of all tenants that have one.
    pub fn order_heads(&self) -> impl Iterator<Item = (TenantId, Lsn)> + '_ {
        let tenants = (0..self.order_heads.len()).map(|tenant| TenantId(tenant as u16));
        tenants.filter_map(|tenant| Some((tenant, self.order_head(tenant)?)))
    }

    /// An order of the tenant was opened at `lsn`. An earlier one than is known changes nothing.
    pub fn set_order_head(&mut self, tenant: TenantId, lsn: Lsn) {
        let at = usize::from(tenant.0);
        if self.order_heads.len() <= at {
            self.order_heads.resize(at + 1, 0);
        }
        self.order_heads[at] = self.order_heads[at].max(lsn.bytes());
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
        for (card, old) in cards.whole_cards() {
            let batch = table.batch_of(card).expect("an order's cards are committed");
            if batch.word(card.row()).lsn() < Some(lsn) {
                self.install(batch, card.row(), old, Word::new(lsn, lifecycle, old.flags().with(added)));
            }
        }
        for used in &cards.shared {
            let (batch, row) =
                (table.batch_of(used.card).expect("an order's cards are committed"), used.card.row());
            if let Some((lifecycle, added)) = OrderMove::post_of_shared(kind, facts.sealed, used.word)
                && batch.word(row).lsn() < Some(lsn)
            {
                let new = Word::new(lsn, lifecycle, used.word.flags().with(added));
                self.install(batch, row, used.word, new);
            }
            self.stock_mut(batch.id).move_use(row, kind, facts.sealed, lsn);
            self.note_stock(batch);
        }
        let state = match kind {
            Kind::Reserve => OrderState::Reserved,
            Kind::Cancel => OrderState::Cancelled,
            Kind::ReserveTimeout => OrderState::TimedOut,
            _ => OrderState::Sold,
        };
        let before = OrderWord::from_bits(facts.prev);
        if opens(kind) {
            self.set_order_head(key.0, lsn);
        }
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
        let opens = matches!(kind, Kind::Sell | Kind::Export);
        let closed = if opens { None } else { self.orders.close(&key) };
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
    pub fn stock_line(&mut self, batch: &Batch) -> StockLine {
        let now_ms = self.now_ms;
        let product = &self.product_of(batch).product;
        let frozen = batch.is_frozen() || self.is_product_frozen(self.product_of(batch));
        let closed = frozen || batch.is_voided() || !product.spec.terms.listed;
        let stock = self.stock_mut(batch.id);
        let sellable = if closed { 0 } else { stock.sellable(batch, now_ms) };
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
            self.stock_mut(batch.id).settle(batch);
            self.note_stock(batch);
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
            stock.check(batch, self.now_ms)?;
            let offers = !batch.is_frozen() && !batch.is_voided() && stock.standing(batch, None) > 0;
            let stocked = self.product_of(batch).stocked.contains(&stock.place);
            if stocked && !offers || offers && !stocked && !stock.is_over(batch, self.now_ms) {
                return Err(format!(
                    "batch {}: orders look at it, or not, and should not, or should",
                    batch.id
                ));
            }
            for row in 0..batch.rows() {
                let held = batch.word(row).flags().contains(Flags::HELD);
                let open = self.holds.of(CardRef::new(batch.id.0, row), self.now_ms).count;
                if held != (open > 0) {
                    return Err(format!(
                        "batch {}: row {row} says HELD and has {open} holds, or not",
                        batch.id
                    ));
                }
            }
            for (row, counted) in stock.shared().into_iter().flat_map(|shared| shared.rows(0)) {
                let held = self.holds.of(CardRef::new(batch.id.0, row), self.now_ms).amount;
                if Money::from(counted.unused()) < held {
                    return Err(format!(
                        "batch {}: more uses of row {row} are held than were sold",
                        batch.id
                    ));
                }
            }
        }
        let stocks = self.stocks.iter().flatten();
        let of_shared = |stock: &Stock| stock.shared().map_or(0, Shared::reserved);
        let reserved = stocks.map(|stock| stock.counts[Lifecycle::Reserved as usize] + of_shared(stock));
        let reserved: u64 = reserved.sum();
        let waiting: u64 = self.orders.reservations(None).map(|(_, waiting)| u64::from(waiting.cards)).sum();
        if reserved != waiting {
            return Err(format!("{reserved} cards are reserved, and {waiting} are in orders that wait"));
        }
        self.accounts.check_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Command;
    use crate::engine::Engine;
    use crate::tested::Store;

    /// How many batches an order of one card looks at.
    fn looked_at(engine: &Engine, product: ProductId) -> usize {
        let sequencer = engine.sequencer();
        let mut state = sequencer.state();
        let mut found = Search::default();
        let line = Line { product, count: 1, face: None };
        state.allocate(&sequencer.table, TenantId(0), &line, 0, &mut found);
        state.pass_over(&sequencer.table, &found);
        found.batches
    }

    /// A product that is imported every day has thousands of batches, most of them sold out, void or over. An order
    /// looks at those that have something for it.
    #[test]
    fn an_order_passes_over_batches_that_are_sold_out_void_frozen_or_over() {
        const BATCHES: u32 = 60;
        let store = Store::new();
        let engine = store.engine();
        let product = store.product(ProductSpec::single("daily", *b"CNY", 100));
        let import = |name: String, expires_ms: u64| {
            store.import_with(product, &name, 2, |spec| spec.expires_ms = expires_ms);
        };
        let soon_ms = engine.now_ms() + 1000;
        (0..BATCHES).for_each(|n| import(format!("OVER-{n}"), soon_ms + u64::from(n % 2) * 3_600_000));
        engine.sequencer().state().now_ms = soon_ms;
        assert_eq!(looked_at(engine, product), 2, "one that is over, and the next");
        (0..BATCHES).for_each(|n| import(format!("SOLD-{n}"), 0));
        store.sell(product, BATCHES + 2 * BATCHES - 1);
        assert_eq!(looked_at(engine, product), 1, "only the last has a card");
        engine.sequencer().state().check(&engine.sequencer().table).unwrap();
        store.sell(product, 1);
        assert_eq!(looked_at(engine, product), 0);

        let ask = |command: Command| {
            let reply = store.ask(command);
            assert!(reply.status.is_done(), "{:?}", reply.status);
        };
        let first = BatchId(1);
        ask(Command::BatchExtend { batch: first, expires_ms: soon_ms + 7_200_000 });
        assert_eq!(looked_at(engine, product), 1, "it is for sale again");
        ask(Command::BatchFreeze(first));
        assert_eq!(looked_at(engine, product), 0);
        ask(Command::BatchUnfreeze(first));
        assert_eq!(looked_at(engine, product), 1);
        ask(Command::BatchVoid(first));
        assert_eq!(looked_at(engine, product), 0);
        engine.sequencer().state().check(&engine.sequencer().table).unwrap();
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

    /// The same of a card that is sold many times and whose word was `before`; `None` if its word does not move, as it
    /// does with its first sale alone.
    #[must_use]
    pub fn post_of_shared(kind: Kind, sealed: bool, before: Word) -> Option<(Lifecycle, Flags)> {
        let sells = matches!(kind, Kind::Sell | Kind::Confirm | Kind::Realloc);
        let first = sells && before.lifecycle() == Lifecycle::Available;
        first.then(|| OrderMove::post(kind, sealed))
    }
}
