//! ORDER_LIST: the orders of a tenant, newest first, a page at a time.
//!
//! The entry that opens an order names the one that opened the order before it in the same tenant, so a list is a walk
//! down these entries: nothing is scanned, nothing is kept but where the newest stands, and a page costs what is on
//! it. Whoever wants less than all of it (a seller sees its own, an operator those of its scope) has the others passed over, [`READ_MAX`] at most for
//! one request, which then says where to go on. It is read before the lock; how the orders stand is asked under it.

use kami_wal::Lsn;

use crate::chain::{Chain, ChainError};
use crate::command::{Command, OrderQuery};
use crate::identity::{AccountId, Caller, OrderId, PrincipalId, ProductId, Role, TenantId};
use crate::orders::OrderState;
use crate::record::Kind;
use crate::reply::{Reply, ReplyBody};
use crate::sequencer::{Detail, Sequencer, Turn, Work};
use crate::status::Status;

/// The most orders that one reply lists.
pub const ORDERS_PER_LIST: u32 = 100;
/// The most entries that one request reads. Each may cost a read of the disk.
const READ_MAX: usize = 400;

/// An order in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrderLine {
    /// The order.
    pub order: OrderId,
    /// Where it stands now.
    pub state: OrderState,
    /// Whether codes of it were fetched that were not delivered with the sale.
    pub fetched: bool,
    /// Who opened it.
    pub buyer: PrincipalId,
    /// Whose purchase it is; 0 is nobody in particular.
    pub account: AccountId,
    /// Its product; `None` if it is of several.
    pub product: Option<ProductId>,
    /// How many cards it was opened with.
    pub cards: u32,
    /// When it was opened, milliseconds since 1970.
    pub opened_ms: u64,
    /// Where the entry stands that opened it.
    pub lsn: Lsn,
}

/// A page of orders, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OrderPage {
    /// The orders. A page may have none and still not be the last.
    pub lines: Vec<OrderLine>,
    /// Where the next page begins; `None` if there is none.
    pub next: Option<Lsn>,
}

/// What an entry that opened an order says of it.
pub(crate) struct Opened {
    pub(crate) line: OrderLine,
    /// What it is of.
    products: Vec<ProductId>,
    /// The entry that opened the order before.
    pub(crate) before: Option<Lsn>,
}

impl OrderQuery {
    /// The buyer whose orders are listed to this caller; `None` is all.
    fn buyer_for(&self, caller: &Caller) -> Option<PrincipalId> {
        match caller.role {
            Role::Admin | Role::Operator | Role::Finance | Role::Auditor => self.buyer,
            _ => Some(caller.principal),
        }
    }
}

impl Sequencer {
    /// Reads a page. `None` if it was to begin where no order of the tenant was opened.
    pub(crate) fn read_orders(
        &self,
        caller: &Caller,
        query: &OrderQuery,
        buffer: &mut Vec<u8>,
    ) -> Result<Option<OrderPage>, ChainError> {
        let buyer = query.buyer_for(caller);
        let mut page = OrderPage::default();
        // Whoever asks for another's is told that there is none.
        let denied = buyer.zip(query.buyer).is_some_and(|(may, asked)| may != asked);
        if denied {
            return Ok(Some(page));
        }
        let count = query.count.clamp(1, ORDERS_PER_LIST) as usize;
        let (head, scope) = {
            let state = self.state();
            // A revoked principal is refused before it is told anything.
            let scope = state.scope(caller.principal).unwrap_or_default();
            (state.order_head(caller.tenant), scope.products().to_vec())
        };
        let mut next = query.from.or(head);
        let mut chain = Chain::new(&self.wal, buffer);
        for _ in 0..READ_MAX {
            let Some(lsn) = next.filter(|_| page.lines.len() < count) else { break };
            let opened = match chain.opened(lsn, caller.tenant) {
                Ok(Some(opened)) => opened,
                // A place of the caller's choosing may be no such entry, or none at all.
                Ok(None) | Err(_) if query.from == Some(lsn) => return Ok(None),
                Ok(None) => break,
                Err(error) => return Err(error),
            };
            let Opened { line, products, before } = opened;
            let in_scope = scope.is_empty() || products.iter().all(|product| scope.contains(product));
            let wanted = (in_scope || line.buyer == caller.principal)
                && buyer.is_none_or(|buyer| line.buyer == buyer)
                && query.account.is_none_or(|account| line.account == account)
                && query.product.is_none_or(|product| line.product == Some(product));
            if wanted {
                page.lines.push(line);
            }
            next = before;
        }
        page.next = next;
        Ok(Some(page))
    }
}

impl Turn<'_> {
    /// ORDER_LIST: how the orders that were read stand now.
    pub(crate) fn list_orders(&self, work: &mut Work, at: usize) -> Reply {
        let detail = std::mem::take(&mut work.prepared[at].detail);
        let request = &work.requests[at];
        let Command::OrderList(query) = &request.command else {
            unreachable!("the caller matched the command")
        };
        let Detail::Orders(Some(mut page)) = detail else {
            return self.refuse(request, Status::Malformed);
        };
        for line in &mut page.lines {
            // The entry that opened an order was durable or published, so it is there; but it was looked for where the
            // caller said.
            let Some(word) = self.state.orders.find(&(request.caller.tenant, line.order)) else {
                return self.refuse(request, Status::Malformed);
            };
            (line.state, line.fetched) = (word.state(), word.is_fetched());
        }
        page.lines.retain(|line| query.state.is_none_or(|state| line.state == state));
        self.reply(request, Status::Ok, None, ReplyBody::Orders(page))
    }
}

impl Chain<'_> {
    /// The order of `tenant` that the entry at `lsn` opened; `None` if it opened none.
    fn opened(&mut self, lsn: Lsn, tenant: TenantId) -> Result<Option<Opened>, ChainError> {
        let entry = self.entry(lsn)?;
        let head = entry.head;
        if !opens(head.kind) || head.tenant != tenant {
            return Ok(None);
        }
        let before = entry.prev().lsn().filter(|before| *before < lsn);
        let (order, cards, facts) = entry.order()?;
        // The subject of an export is its batch.
        let of_one =
            (head.kind != Kind::Export && head.subject != 0).then_some(ProductId(head.subject as u32));
        let lines = facts.lines.iter().map(|line| line.product);
        let products: Vec<ProductId> = of_one.map_or_else(|| lines.collect(), |product| vec![product]);
        let product = if let [product] = products[..] { Some(product) } else { None };
        let line = OrderLine {
            order,
            state: OrderState::Sold,
            fetched: false,
            buyer: head.principal,
            account: AccountId(facts.account),
            product,
            cards: cards.count(),
            opened_ms: entry.time_ms,
            lsn,
        };
        Ok(Some(Opened { line, products, before }))
    }
}

/// Whether an entry of this kind opens an order.
#[must_use]
pub const fn opens(kind: Kind) -> bool {
    matches!(kind, Kind::Sell | Kind::Reserve | Kind::Export)
}
