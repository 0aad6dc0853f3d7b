//! What one entry about an order moves: the order, its cards, its money, what counts against limits.
//!
//! # Invariants
//! * Executed and replayed by the same function, and again without harm: each part is left as it is if it stands behind
//!   the entry already, so a replay may begin before the snapshot it began with.
//! * Cards and money of an order move by one entry, or not at all.
//! * What open orders set aside follows from the table of those that wait and is never stored.

use kami_wal::Lsn;

use super::State;
use crate::identity::{AccountId, PrincipalId, TenantId};
use crate::limits::Buyer;
use crate::order::list::opens;
use crate::order::units;
use crate::orders::{OrderKey, OrderState, OrderWord, Reservation};
use crate::record::{Allocation, Kind, OrderFacts};
use crate::table::Table;
use crate::word::{Flags, Lifecycle, Word};

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

impl State {
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
}
