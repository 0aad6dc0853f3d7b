//! What the engine answers.

use kami_wal::Lsn;

use crate::account::Account;
use crate::control::ControlReport;
use crate::exceptions::ExceptionPage;
use crate::grounds::Grounds;
use crate::identity::{
    AccountId, BatchId, ChannelId, MerchantId, OrderId, Principal, PrincipalId, ProductId, RequestId,
    TerminalId,
};
use crate::keyring::KeyRotation;
use crate::limit::{Exceeded, Limit};
use crate::order::Line;
use crate::order::list::OrderPage;
use crate::orders::OrderState;
use crate::origin::Origin;
use crate::outcome::OutcomeReport;
use crate::product::{Money, Product};
use crate::record::{self, Kind};
use crate::status::Status;
use crate::table::Batch;
use crate::tenants::Tenant;
use crate::vault::CodeList;
use crate::word::{CardRef, Flags, Lifecycle, Word};

/// The answer to one [`Request`](crate::Request).
///
/// **No reply leaves before `durable_end` has reached the log's tail as it was after the decision**:
/// not a success, not a refusal, not a read. See [`Work`](crate::Work).
#[derive(Debug)]
pub struct Reply {
    /// The id of the request.
    pub request: RequestId,
    /// The outcome.
    pub status: Status,
    /// More about the outcome.
    pub flags: ReplyFlags,
    /// Where the effect stands in the log; the receipt. `None` for refusals and reads of what never moved.
    pub lsn: Option<Lsn>,
    /// Engine time of the decision, milliseconds since 1970.
    pub time_ms: u64,
    /// Whether the code led to no card that the caller may know of, which is what a guess gets. Never told:
    /// whoever faces strangers counts these.
    pub miss: bool,
    /// What was asked for.
    pub body: ReplyBody,
}

impl Reply {
    /// The place for one.
    pub(crate) const BLANK: Reply = Reply {
        request: RequestId(0),
        status: Status::Ok,
        flags: ReplyFlags(0),
        lsn: None,
        time_ms: 0,
        miss: false,
        body: ReplyBody::None,
    };
}

/// Bits of [`Reply::flags`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplyFlags(pub u8);

impl ReplyFlags {
    /// The effect is that of an earlier request with the same id.
    pub const REPLAYED: ReplyFlags = ReplyFlags(1);
    /// There is more than this reply carries: fetch the rest.
    pub const PARTIAL: ReplyFlags = ReplyFlags(2);
    /// The replayed effect has been reversed since.
    pub const REVERSED: ReplyFlags = ReplyFlags(4);

    /// Whether all bits of `other` are set.
    #[must_use]
    pub const fn contains(self, other: ReplyFlags) -> bool {
        self.0 & other.0 == other.0
    }

    /// These bits and those of `other`.
    #[must_use]
    pub const fn with(self, other: ReplyFlags) -> ReplyFlags {
        ReplyFlags(self.0 | other.0)
    }
}

/// What a reply carries beside its head.
#[derive(Debug)]
#[non_exhaustive]
pub enum ReplyBody {
    /// Nothing.
    None,
    /// After REDEEM, REVERSE, CAPTURE, RELEASE, LOAD, REFUND_VALUE and TRANSFER: what this request moved and what is left
    /// on the card it is about.
    Value(ValueReport),
    /// After HOLD.
    Hold(HoldReport),
    /// After QUERY, FREEZE, UNFREEZE, VOID, SETTLE, ACTIVATE, DEACTIVATE, EXTEND, EXPIRE and RESTOCK; after REPLACE the
    /// card that took the place.
    Card(CardReport),
    /// After HISTORY, newest first; at most [`HISTORY_MAX`] and the import. PARTIAL if older ones are left out.
    History(Vec<HistoryEvent>),
    /// After SELL and ORDER_FETCH: cards whose codes are read after the reply is durable.
    Cards(CodeList),
    /// An order, without its codes.
    Order(Box<OrderReport>),
    /// After PRODUCT_LIST, and the one product after PRODUCT_ADD and PRODUCT_SET.
    Products(Vec<Product>),
    /// After BATCH_LIST, and the one batch after a batch command or an import.
    Batches(Vec<BatchReport>),
    /// After STOCK.
    Stock(Vec<StockLine>),
    /// After PRINCIPAL_LIST, and the one principal after PRINCIPAL_ADD.
    Principals(Vec<Principal>),
    /// After TENANT_LIST, and the one tenant after the other commands about one.
    Tenants(Vec<Tenant>),
    /// After STATS.
    Stats(Box<Stats>),
    /// After IMPORT_DUPLICATES, up to [`DUPLICATES_MAX`] of them; and after an import was refused for
    /// duplicates, the first.
    Duplicates(Vec<Duplicate>),
    /// After IMPORT_BEGIN, IMPORT_CHUNK, IMPORT_STATUS and IMPORT_ABORT.
    Import(ImportReport),
    /// After CHECKPOINT.
    Checkpoint(Checkpoint),
    /// After KEY_ROTATE.
    Keys(KeyRotation),
    /// After SIGNED_CHECKPOINT.
    SignedNote(Box<SignedNote>),
    /// After PROOF.
    ProofPart(Box<ProofPart>),
    /// After CONSISTENCY: hashes, in the order in which they are checked.
    Path(Vec<[u8; 32]>),
    /// After ACCOUNT_LIST, in order of number, and the one account after the other commands about one. PARTIAL
    /// says that there are more.
    Accounts(Vec<Account>),
    /// After ACCOUNT_STATEMENT.
    Statement(Box<Statement>),
    /// Orders.
    Orders(OrderPage),
    /// After POST: what moved, with the balances it left.
    Posted(Vec<record::PostedLeg>),
    /// After LIMIT_LIST, and the one limit after LIMIT_PUT.
    Limits(Vec<Limit>),
    /// After a refusal for a limit: which, what is left, and when it opens again.
    Exceeded(Exceeded),
    /// After legs were refused: the account that stands against them.
    Account(AccountId),
    /// After OUTCOME_QUERY: the effect that the request had.
    Outcome(OutcomeReport),
    /// After EXCEPTION_LIST, in order of number, and the one exception after EXCEPTION_RESOLVE. PARTIAL says that
    /// there are more.
    Exceptions(ExceptionPage),
    /// After PROPOSAL_LIST, in order of number, and the one proposal after PROPOSE, APPROVE and PROPOSAL_WITHDRAW; none
    /// after TENANT_CONTROL. PARTIAL says that there are more.
    Proposals(Box<ControlReport>),
}

impl ReplyBody {
    /// Takes it out of its place.
    #[must_use]
    pub fn take(&mut self) -> ReplyBody {
        std::mem::replace(self, ReplyBody::None)
    }
}

/// A checkpoint of the log's entries, signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedNote {
    /// How many entries it covers.
    pub size: u64,
    /// The note: what was signed, and the signature.
    pub note: String,
    /// The key to verify it with, in the form that is published.
    pub key: String,
}

/// A part of a proof's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProofPart {
    /// How many entries the checkpoint covers that it is proven to.
    pub size: u64,
    /// The key to verify it with, in the form that is published.
    pub key: String,
    /// The length of the whole text.
    pub total: u64,
    /// Where this part begins in it.
    pub from: u64,
    /// The part.
    pub bytes: Vec<u8>,
}

/// What happened to the money of an account, newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// The account as it stands now.
    pub account: Account,
    /// Its entries, newest first.
    pub lines: Vec<StatementLine>,
    /// Where it goes on; `None` if this was all.
    pub next: Option<Lsn>,
}

/// One entry of a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatementLine {
    /// Where it stands in the log.
    pub lsn: Lsn,
    /// When, in milliseconds since 1970.
    pub time_ms: u64,
    /// What happened.
    pub kind: record::Kind,
    /// Who did it.
    pub principal: PrincipalId,
    /// Through which channel.
    pub channel: ChannelId,
    /// The document or order it rests on.
    pub related: u128,
    /// What came in, or went out if negative.
    pub amount: Money,
    /// The balance after it.
    pub balance: Money,
}

/// A snapshot that was made: see [`Engine::checkpoint`](crate::Engine::checkpoint).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Replay begins here.
    pub start: Lsn,
    /// The log was durable at least up to here.
    pub end: Lsn,
    /// The file's length.
    pub bytes: u64,
    /// How long writing, syncing and reading it back took, in milliseconds.
    pub took_ms: u64,
}

/// What a redemption or reversal moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValueReport {
    /// The product, which the till prints.
    pub product: ProductId,
    /// What was redeemed, given back, released or loaded, in minor units of the product's currency; of a
    /// MULTI_USE card in uses.
    pub amount: Money,
    /// What is left on the card, what is held of it included.
    pub remaining: Money,
}

/// What a hold keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HoldReport {
    /// The product.
    pub product: ProductId,
    /// What this hold keeps.
    pub amount: Money,
    /// What is on the card, held or not.
    pub remaining: Money,
    /// What is held of it by all holds.
    pub held: Money,
    /// From when on this hold keeps nothing any more: engine time, milliseconds since 1970.
    pub deadline_ms: u64,
}

/// A card as a reader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CardReport {
    /// Where it stands.
    pub card: CardRef,
    /// Its product.
    pub product: ProductId,
    /// The effective state at engine time: freezes, voids and expiry of batch and product included.
    pub lifecycle: Lifecycle,
    /// The effective flags.
    pub flags: Flags,
    /// Its face value in minor units.
    pub face: Money,
    /// What is left on it, held or not, in minor units; of a MULTI_USE card in uses.
    pub remaining: Money,
    /// What is held of that.
    pub held: Money,
    /// When it expires, in milliseconds since 1970; 0 is never.
    pub expires_ms: u64,
    /// The order that bought it.
    pub order: Option<OrderId>,
}

/// One event of a card's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryEvent {
    /// What happened: a record kind's number, see [`record::Kind`](crate::record::Kind).
    pub kind: crate::record::Kind,
    /// Where it stands in the log.
    pub lsn: Lsn,
    /// When, in milliseconds since 1970.
    pub time_ms: u64,
    /// The state it left the card in.
    pub lifecycle: Lifecycle,
    /// The flags it left.
    pub flags: Flags,
    /// Who did it.
    pub principal: PrincipalId,
    /// At which till.
    pub terminal: TerminalId,
    /// For which merchant.
    pub merchant: MerchantId,
    /// Through which channel.
    pub channel: ChannelId,
    /// With which request id.
    pub request: RequestId,
    /// The order, for a sale; the original's id, for a reversal, refund or tombstone; the hold's id, for what
    /// ends it; the supplier's document, for RESTOCK; the other card's [bits](CardRef::to_bits), for REPLACE,
    /// REPLACEMENT, TRANSFER and RECEIVE; the order of then, for MIGRATED; else 0.
    pub related: u128,
    /// What it moved, where the entry says so; else 0. A SINGLE card is redeemed as a whole and says nothing.
    pub amount: Money,
    /// What was left on the card afterwards, where the entry says so; else 0.
    pub remaining: Money,
    /// Of a redemption that was made offline, when, by the till's clock; of MIGRATED, when it was, by the system before;
    /// in milliseconds since 1970. Else, or if not known, 0.
    pub made_ms: u64,
    /// Why it was done, and under whose approval, if that was said.
    pub grounds: Option<Box<Grounds>>,
}

/// A batch as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchReport {
    /// Its number.
    pub id: BatchId,
    /// Its product.
    pub product: ProductId,
    /// The importer's label.
    pub label: String,
    /// When it was imported, in milliseconds since 1970.
    pub imported_ms: u64,
    /// Its cards by logged lifecycle, see [`Lifecycle`]; their sum is the number imported.
    pub counts: [u64; Lifecycle::COUNT],
    /// Whether all its cards are redeemable once sold.
    pub active: bool,
    /// How many rows are active. Cards that were activated or deactivated by themselves count as their rows.
    pub active_rows: u64,
    /// Whether it is frozen.
    pub frozen: bool,
    /// Whether its unsold cards were made void.
    pub voided: bool,
    /// When its cards expire, in milliseconds since 1970; 0 is never.
    pub expires_ms: u64,
}

/// The stock of one batch. A product's stock is the sum over its batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StockLine {
    /// The product.
    pub product: ProductId,
    /// The batch.
    pub batch: BatchId,
    /// How many were imported: the sum of `counts`.
    pub imported: u64,
    /// How many an order could take right now: available, not frozen, not void, not expired.
    pub sellable: u64,
    /// The cards by logged lifecycle.
    pub counts: [u64; Lifecycle::COUNT],
}

/// Figures of the engine since it was opened, and of the store as it stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Cards in committed batches.
    pub cards: u64,
    /// Committed batches.
    pub batches: u64,
    /// Products.
    pub products: u64,
    /// Orders.
    pub orders: u64,
    /// Commands decided since open.
    pub commands: u64,
    /// Commands refused since open.
    pub refused: u64,
    /// Commands since open whose code led to no card that their caller may know of.
    pub misses: u64,
    /// Requests that a server answered RATE_LIMITED since its start, because too many codes had been wrong;
    /// 0 in an engine that is embedded.
    pub rate_limited: u64,
    /// How often a server's budget of wrong codes was used up since its start, by a principal or for a card;
    /// 0 in an engine that is embedded.
    pub budgets_spent: u64,
    /// The log's tail, in bytes.
    pub tail: u64,
    /// The end of what is durable, in bytes.
    pub durable_end: u64,
    /// Commits since open: how often the disk was waited for.
    pub commits: u64,
    /// Engine time, milliseconds since 1970.
    pub time_ms: u64,
    /// Cards by logged lifecycle over all batches.
    pub counts: [u64; Lifecycle::COUNT],
}

/// The most events of a card that HISTORY lists beside its import.
pub const HISTORY_MAX: usize = 1024;

/// The most duplicates one reply lists.
pub const DUPLICATES_MAX: usize = 10_000;

/// A row of an import whose card is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Duplicate {
    /// The row of the import, counted from 0.
    pub row: u64,
    /// The same card: in the import itself (`batch` is `None`) or in an earlier batch; [`Duplicate::ELSEWHERE`] in
    /// one that the caller may not know of.
    pub batch: Option<BatchId>,
    /// Its row there; in the import itself, counted like `row`. [`u64::MAX`] if it is not told.
    pub other_row: u64,
}

impl Duplicate {
    /// A batch that is not told: no batch has this number.
    pub const ELSEWHERE: BatchId = BatchId(0);

    /// A card that is known, and no more is told of it.
    #[must_use]
    pub const fn elsewhere(row: u64) -> Duplicate {
        Duplicate { row, batch: Some(Duplicate::ELSEWHERE), other_row: u64::MAX }
    }
}

/// An order as it stands, without its codes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderReport {
    /// Its id.
    pub order: OrderId,
    /// Where it stands.
    pub state: OrderState,
    /// Whether codes of it were fetched that were not delivered with the sale.
    pub fetched: bool,
    /// Who opened it.
    pub buyer: PrincipalId,
    /// Whose purchase it is; 0 is nobody in particular.
    pub account: AccountId,
    /// Of a command that moved cards, how many; else how many are in it: those that came back are not.
    pub cards: u32,
    /// Until when it was to be paid, milliseconds since 1970; 0 if it was sold at once.
    pub deadline_ms: u64,
    /// What was asked for; empty for a plain sale of one product.
    pub lines: Vec<Line>,
}

/// How far a staged import is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImportReport {
    /// Rows received so far; the next chunk begins with this row.
    pub rows: u64,
    /// Rows announced.
    pub rows_total: u64,
    /// Rows received so far whose card is there already; they are not stored. A commit takes the others,
    /// or, unless the import skips duplicates, refuses.
    pub duplicates: u64,
}

impl HistoryEvent {
    /// The event that an entry of a card's chain records; `word` is the card's word after it.
    pub(crate) fn of(entry: &record::Entry<'_>, word: Word) -> Result<HistoryEvent, record::FormatError> {
        let value = entry.value()?.unwrap_or_default();
        let related = match entry.head.kind {
            kind if kind.is_order() => entry.order()?.0.0,
            Kind::Reverse | Kind::Tombstone => entry.original()?.0.0,
            Kind::Restock => entry.reference()?,
            kind if kind.is_of_pair() => u128::from(entry.pair()?.other.to_bits()),
            _ => value.related.0,
        };
        Ok(HistoryEvent {
            kind: entry.head.kind,
            lsn: entry.lsn,
            time_ms: entry.time_ms,
            lifecycle: word.lifecycle(),
            flags: word.flags(),
            principal: entry.head.principal,
            terminal: entry.head.terminal,
            merchant: entry.head.merchant,
            channel: entry.head.channel,
            request: entry.head.request,
            related,
            amount: value.amount,
            remaining: value.purse.remaining,
            made_ms: if entry.head.kind == Kind::Redeem { value.time_ms } else { 0 },
            grounds: entry.grounds()?.map(Box::new),
        })
    }

    /// The event a card's history begins with.
    pub(crate) fn of_import(batch: &Batch, grounds: Option<Grounds>) -> HistoryEvent {
        HistoryEvent {
            kind: Kind::Import,
            lsn: batch.import_lsn,
            time_ms: batch.imported_ms,
            lifecycle: Lifecycle::Available,
            flags: Flags::NONE,
            principal: batch.imported_by,
            terminal: TerminalId(0),
            merchant: MerchantId(0),
            channel: ChannelId(0),
            request: batch.import,
            related: u128::from(batch.id.0),
            amount: 0,
            remaining: 0,
            made_ms: 0,
            grounds: grounds.map(Box::new),
        }
    }

    /// What a card was in the system that it comes from, newest first, if it was more than in stock: it was sold, and
    /// then perhaps used up, void, or given back. All of it is recorded by the import, with the times of then.
    pub(crate) fn of_origin(batch: &Batch, row: u64, origin: &Origin) -> Vec<HistoryEvent> {
        let word = origin.word();
        if word == Word::PRISTINE {
            return Vec::new();
        }
        let import = HistoryEvent::of_import(batch, None);
        let order = origin.order.map_or(0, |order| order.0);
        let remaining = batch.columns.left(row).unwrap_or(0);
        let sold = matches!(origin.state, Lifecycle::Sold | Lifecycle::Redeemed | Lifecycle::Returned)
            || origin.sold_ms != 0
            || order != 0;
        let later = origin.state != Lifecycle::Sold || origin.redeemed_ms != 0;
        let mut events = Vec::new();
        if later || !sold {
            events.push(HistoryEvent {
                kind: Kind::Migrated,
                lifecycle: origin.state,
                flags: word.flags(),
                related: order,
                remaining,
                made_ms: origin.redeemed_ms,
                ..import.clone()
            });
        }
        if sold {
            let flags = if later { Flags::REVEALED } else { word.flags() };
            events.push(HistoryEvent {
                kind: Kind::Migrated,
                lifecycle: Lifecycle::Sold,
                flags,
                related: order,
                remaining: if later { 0 } else { remaining },
                made_ms: origin.sold_ms,
                ..import
            });
        }
        events
    }
}
