//! Everything that changes under the sequencer's lock, and the one way each thing changes.
//!
//! The same functions are called when a command is executed and when its record is replayed, so memory
//! after recovery is memory before the crash. Cursors, free lists, counters and look-up maps are derived:
//! they are kept here while running and computed again at recovery.

mod for_sale;
mod hash;
mod order_move;
mod principals;
#[cfg(test)]
mod tests;

pub use order_move::OrderMove;
pub use principals::{PrincipalState, Scope};

use std::collections::{BTreeSet, HashMap};

use kami_wal::Lsn;

use crate::accounts::Accounts;
use crate::card::View;
use crate::command::Command;
use crate::control::Proposals;
use crate::exceptions::Exceptions;
use crate::holds::{HeldOf, Holds};
use crate::identity::{
    BatchId, Caller, DocumentId, PrincipalId, PrincipalSpec, ProductId, RequestId, TenantId,
};
use crate::limits::Limits;
use crate::orders::Orders;
use crate::pins::Pins;
use crate::product::{CardKind, Money, Product, ProductSpec};
use crate::record::{Clocks, Purse};
use crate::sharded::Sharded;
use crate::stock::{Counted, Shared, SharedRow, Stock};
use crate::table::{Batch, Table};
use crate::tenants::Tenants;
use crate::value::Value;
use crate::word::{CardRef, Flags, Lifecycle, Word};

/// All that commands read and change under the lock, beside the words of cards.
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

    /// Checks that counters, words and orders agree, and that money closes. Reads every word; for tests,
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
