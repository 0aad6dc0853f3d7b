//! What happened, for those who follow the log: an entry without what only replay needs.
//!
//! An event names cards, orders and products by number. It carries no code and nothing that a code follows from.
//!
//! # How a kind gets in
//! [`subject_of`] says what a kind's entry is about, [`Event::of`] where its count and its amount come from. A kind
//! that neither names is an event all the same, with who, when, where and under which request id.

use kami_wal::Lsn;

use crate::control::{Proposed, StoredProposed};
use crate::exceptions::Kept;
use crate::grounds::Grounds;
use crate::identity::{
    BatchId, Caller, ChannelId, MerchantId, OrderId, PrincipalId, ProductId, RequestId, Role, TenantId,
    TerminalId,
};
use crate::product::CardKind;
use crate::product::Money;
use crate::record::{Allocation, Entry, FormatError, Kind, StoredBatch};
use crate::state::State;
use crate::table::Table;
use crate::word::CardRef;

/// One entry of the log, as a subscriber gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Where it stands: no two events have the same, and later ones have higher.
    pub lsn: Lsn,
    /// In which life of the log it was written: counted up by every start, and far on by a restore. Position and
    /// epoch together name one event of one history.
    pub epoch: u32,
    /// When, in milliseconds since 1970, by engine time, which never goes back.
    pub time_ms: u64,
    /// What happened.
    pub kind: Kind,
    /// Under which request id; zero for the engine itself.
    pub request: RequestId,
    /// The original's request id, for a reversal; the document, for a posting; the other card's
    /// [bits](CardRef::to_bits), for an event of a pair; else 0.
    pub related: u128,
    /// The order, where there is one.
    pub order: Option<OrderId>,
    /// The card, of an event about one.
    pub card: Option<CardRef>,
    /// The number of what else an event is about: a principal, an account, a limit, an exception or a proposal; 0 is
    /// none.
    pub object: u64,
    /// What the cards are worth that were moved, or what was moved on a card, in minor units of the product's currency,
    /// never negative: the kind says which way. An order of several products has none.
    pub amount: Option<Money>,
    /// How many cards it is about.
    pub count: u32,
    /// The product, where there is one; an order of several has none.
    pub product: Option<ProductId>,
    /// The batch, of an event about a batch or about one card.
    pub batch: Option<BatchId>,
    /// Who asked; 0 is the engine, or the process that embeds it.
    pub principal: PrincipalId,
    /// At which till.
    pub terminal: TerminalId,
    /// For which merchant.
    pub merchant: MerchantId,
    /// Whose cards.
    pub tenant: TenantId,
    /// Through which channel.
    pub channel: ChannelId,
    /// Why it was done, and under whose approval, if that was said.
    pub grounds: Option<Box<Grounds>>,
}

/// What an entry's subject is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    None,
    Card,
    Sale,
    Order,
    Import,
    Batch,
    Product,
    Object,
    Document,
    Exception,
    Proposal,
}

const fn subject_of(kind: Kind) -> Subject {
    match kind {
        Kind::ProductPut | Kind::ProductFreeze | Kind::ProductUnfreeze => Subject::Product,
        Kind::PrincipalPut
        | Kind::PrincipalRevoke
        | Kind::TenantPut
        | Kind::TenantFreeze
        | Kind::TenantUnfreeze
        | Kind::AccountPut
        | Kind::AccountFreeze
        | Kind::AccountUnfreeze
        | Kind::LimitPut
        | Kind::LimitCrossed
        | Kind::TenantControl
        | Kind::ProposalWithdraw
        | Kind::Approve => Subject::Object,
        Kind::Propose => Subject::Proposal,
        Kind::Post => Subject::Document,
        Kind::Import => Subject::Import,
        Kind::BatchActivate
        | Kind::BatchDeactivate
        | Kind::BatchFreeze
        | Kind::BatchUnfreeze
        | Kind::BatchVoid
        | Kind::BatchExtend => Subject::Batch,
        Kind::PinLock => Subject::Card,
        Kind::Advice => Subject::Exception,
        Kind::ExceptionResolve => Subject::Object,
        kind if kind.is_about_card() => Subject::Card,
        kind if kind.is_order() => Subject::Sale,
        Kind::Reveal => Subject::Order,
        _ => Subject::None,
    }
}

impl Event {
    /// The event that an entry records; `epoch` is its record's. The entry must be durable, so that the batch of
    /// whatever card it names is in the table.
    pub(crate) fn of(entry: &Entry<'_>, epoch: u32, table: &Table) -> Result<Event, FormatError> {
        let head = &entry.head;
        let mut event = Event {
            lsn: entry.lsn,
            epoch,
            time_ms: entry.time_ms,
            kind: head.kind,
            request: head.request,
            related: 0,
            order: None,
            card: None,
            object: 0,
            amount: None,
            count: 0,
            product: None,
            batch: None,
            principal: head.principal,
            terminal: head.terminal,
            merchant: head.merchant,
            tenant: head.tenant,
            channel: head.channel,
            grounds: entry.grounds()?.map(Box::new),
        };
        let batch_of = |id: BatchId| {
            table
                .batch(id)
                .ok_or(FormatError { what: "an entry about a batch that is not there", lsn: entry.lsn })
        };
        match subject_of(head.kind) {
            Subject::None => {}
            Subject::Card => {
                let card = entry.card();
                let batch = batch_of(BatchId(card.batch()))?;
                event.card = Some(card);
                event.count = 1;
                event.batch = Some(batch.id);
                event.product = Some(batch.product);
                let value = entry.value()?;
                event.amount = match head.kind {
                    // Uses are no money.
                    _ if matches!(batch.kind, CardKind::MultiUse | CardKind::Shared) => None,
                    _ if let Some(tail) = &value => Some(tail.amount),
                    // A card that is used once moves as a whole; what a batch says of its rows never changes.
                    Kind::Redeem | Kind::Reverse => Some(batch.face(card.row())),
                    _ => None,
                };
                if matches!(head.kind, Kind::Reverse | Kind::Tombstone) {
                    event.related = entry.original()?.0.0;
                } else if head.kind.is_of_pair() {
                    let pair = entry.pair()?;
                    event.related = u128::from(pair.other.to_bits());
                    let takes_place = matches!(head.kind, Kind::Replace | Kind::Replacement);
                    event.order = takes_place.then_some(pair.order);
                } else if head.kind == Kind::Restock {
                    event.related = entry.reference()?;
                } else if let Some(tail) = &value {
                    event.related = tail.related.0;
                }
            }
            Subject::Sale => {
                let (order, cards, _) = entry.order()?;
                event.order = Some(order);
                event.count = cards.count();
                // Amounts of several products may be of several currencies: those are told by product alone.
                if let [(product, _, amount)] = by_product(&cards, table)[..] {
                    (event.product, event.amount) = (Some(product), Some(amount));
                }
            }
            Subject::Order => {
                let (order, count) = entry.revealed()?;
                event.order = Some(order);
                event.count = count;
            }
            Subject::Import => {
                // From the entry itself: the batch enters the table a moment after its entry.
                let stored = entry.object::<StoredBatch>()?;
                event.batch = Some(BatchId(head.subject as u32));
                event.product = Some(ProductId(stored.product));
                event.count = u32::try_from(stored.rows).unwrap_or(u32::MAX);
            }
            Subject::Batch => {
                let batch = batch_of(BatchId(head.subject as u32))?;
                event.batch = Some(batch.id);
                event.product = Some(batch.product);
            }
            Subject::Product => event.product = Some(ProductId(head.subject as u32)),
            Subject::Object => event.object = head.subject,
            Subject::Proposal => {
                event.object = head.subject;
                let proposed = entry.object::<StoredProposed>()?.proposed();
                event.card = proposed.as_ref().and_then(Proposed::card);
                let batch = match proposed {
                    Some(Proposed::Export { batch, .. }) => Some(batch),
                    Some(Proposed::OrderFetch { order, .. }) => {
                        event.order = Some(order);
                        None
                    }
                    _ => event.card.map(|card| BatchId(card.batch())),
                };
                if let Some(batch) = batch {
                    let batch = batch_of(batch)?;
                    (event.batch, event.product) = (Some(batch.id), Some(batch.product));
                }
            }
            Subject::Exception => {
                event.object = head.subject;
                event.card = Kept::of(entry)?.card;
                event.count = 1;
                if let Some(card) = event.card {
                    let batch = batch_of(BatchId(card.batch()))?;
                    (event.batch, event.product) = (Some(batch.id), Some(batch.product));
                }
            }
            Subject::Document => event.related = entry.posting()?.document.0,
        }
        Ok(event)
    }

    /// The same for each product by itself, of an order; none of anything else.
    pub(crate) fn parts(self, entry: &Entry<'_>, table: &Table) -> Result<Vec<Event>, FormatError> {
        if subject_of(self.kind) != Subject::Sale {
            return Ok(Vec::new());
        }
        let (_, cards, _) = entry.order()?;
        let part = |(product, count, amount)| Event {
            product: Some(product),
            count,
            amount: Some(amount),
            ..self.clone()
        };
        Ok(by_product(&cards, table).into_iter().map(part).collect())
    }
}

/// The cards of an order by product: how many, and what they are worth together.
fn by_product(cards: &Allocation, table: &Table) -> Vec<(ProductId, u32, Money)> {
    let mut parts: Vec<(ProductId, u32, Money)> = Vec::new();
    for run in cards.runs() {
        // An order's cards are committed.
        let Some(batch) = table.batch(BatchId(run.first.batch())) else { continue };
        let rows = u64::from(run.rows);
        let worth = if batch.columns.faces.is_empty() {
            batch.face.saturating_mul(rows.cast_signed())
        } else {
            let first = run.first.row();
            (first..first + rows).map(|row| batch.face(row)).fold(0, Money::saturating_add)
        };
        match parts.iter_mut().find(|(product, ..)| *product == batch.product) {
            Some((_, count, amount)) => {
                *count += run.rows;
                *amount = amount.saturating_add(worth);
            }
            None => parts.push((batch.product, run.rows, worth)),
        }
    }
    parts
}

/// What of the log a caller may see: its tenant's, its merchant's if it belongs to one, and its products' if it has
/// a scope. An event that names no product is outside of every scope.
#[derive(Clone, Debug)]
pub(crate) struct Sight {
    tenant: TenantId,
    merchant: Option<MerchantId>,
    /// None is all.
    products: Vec<ProductId>,
}

impl Sight {
    /// `None` if the caller was revoked.
    pub(crate) fn of(state: &State, caller: Caller) -> Option<Sight> {
        let scope = state.scope(caller.principal)?;
        let all_merchants = caller.role == Role::Admin || caller.merchant == MerchantId(0);
        Some(Sight {
            tenant: caller.tenant,
            merchant: (!all_merchants).then_some(caller.merchant),
            products: scope.products().to_vec(),
        })
    }

    pub(crate) fn covers(&self, event: &Event) -> bool {
        event.tenant == self.tenant
            && self.merchant.is_none_or(|merchant| event.merchant == merchant)
            && (self.products.is_empty()
                || event.product.is_some_and(|product| self.products.contains(&product)))
    }
}
