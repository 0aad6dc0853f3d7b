//! What the body of each reply holds.
//!
//! A reply's head names its body by number, so that a refusal can carry another body than a success,
//! and a reader that does not know a body can still use the head. Lists that do not fit a frame are
//! cut: the reply is flagged PARTIAL and says how many rows there are in all, so nothing is lost in
//! silence.

use bytes::{BufMut, BytesMut};
use kami_engine::{
    Account, BatchReport, CardReport, Checkpoint, ControlReport, Duplicate, Event, Exceeded, Exception,
    ExceptionPage, HistoryEvent, HoldReport, ImportReport, KeyRotation, Limit, Lsn, MerchantId, OrderPage,
    OrderReport, OutcomeReport, PostedLeg, Principal, PrincipalId, Product, ProductId, ProofPart, Proposal,
    ReplyBody, ReplyFlags, RequestId, Role, SignedNote, Stats, Status, StockLine, Tenant, TenantId,
    TotalLine, Totals, ValueReport,
};

pub use super::codes::{Codes, CodesFrame, SoldCard};
use super::control::{PROPOSALS, Proposals};
use super::feed::{FeedBegin, FeedEvents};
use super::money::{OneAccount, Statement};
use super::wire::{Field, Malformed, Reader, Wire, wire};
use super::{FRAME_BYTES_MAX, Opcode, REPLY_HEAD_BYTES, ReplyHead, close_frame, field};

macro_rules! body_kinds {
    ($($(#[doc = $doc:literal])+ $name:ident = $number:literal, $code:literal;)+) => {
        /// Which body follows a reply's head.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u16)]
        pub enum BodyKind { $($(#[doc = $doc])+ $name = $number,)+ }

        impl BodyKind {
            /// Every kind, in order of number.
            pub const ALL: &'static [BodyKind] = &[$(BodyKind::$name,)+];

            /// The kind with this number.
            #[must_use]
            pub const fn from_number(number: u16) -> Option<BodyKind> {
                match number { $($number => Some(BodyKind::$name),)+ _ => None }
            }

            /// The stable name.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self { $(BodyKind::$name => $code,)+ }
            }

            /// One sentence.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(BodyKind::$name => concat!($($doc,)+).trim_ascii(),)+ }
            }
        }
    };
}

body_kinds! {
    /// Nothing.
    None = 0, "NONE";
    /// After REDEEM, REVERSE, CAPTURE, RELEASE, LOAD, REFUND_VALUE and TRANSFER: what was moved and what is left.
    Value = 1, "VALUE";
    /// After QUERY, FREEZE, UNFREEZE, VOID, SETTLE, ACTIVATE, DEACTIVATE, EXTEND, EXPIRE and RESTOCK; after REPLACE the
    /// card that took the place.
    Card = 2, "CARD";
    /// After HISTORY, newest first.
    History = 3, "HISTORY";
    /// After SELL and ORDER_FETCH: codes.
    Codes = 4, "CODES";
    /// After PRODUCT_LIST, and the one product after the commands about a product.
    Products = 5, "PRODUCTS";
    /// After BATCH_LIST, and the one batch after the commands about a batch and IMPORT_COMMIT.
    Batches = 6, "BATCHES";
    /// After STOCK.
    Stock = 7, "STOCK";
    /// After PRINCIPAL_LIST, and the one principal after the commands about a principal.
    Principals = 8, "PRINCIPALS";
    /// After STATS.
    Stats = 9, "STATS";
    /// After IMPORT_DUPLICATES; and after an IMPORT_COMMIT was refused for duplicates, the first of them.
    Duplicates = 10, "DUPLICATES";
    /// After IMPORT_BEGIN, IMPORT_CHUNK, IMPORT_STATUS and IMPORT_ABORT; after MALFORMED, `rows` is the bad row.
    Import = 11, "IMPORT";
    /// After HELLO.
    Welcome = 12, "WELCOME";
    /// After REDEEM_BATCH: one line per item, in order.
    Items = 13, "ITEMS";
    /// After MALFORMED: which field of the frame is wrong, for the person who mends the client.
    Reason = 14, "REASON";
    /// After RATE_LIMITED: how long to wait before the same request is sent again.
    Wait = 15, "WAIT";
    /// After ACCOUNT_LIST, in order of number, and the one account after the other commands about one.
    Accounts = 24, "ACCOUNTS";
    /// After ACCOUNT_STATEMENT.
    Statement = 25, "STATEMENT";
    /// After POST: what moved, with the balances it left.
    Posted = 26, "POSTED";
    /// After LIMIT_LIST, and the one limit after LIMIT_PUT.
    Limits = 27, "LIMITS";
    /// After LIMIT_ACCOUNT, LIMIT_IP, LIMIT_RESERVATIONS, LIMIT_TERMINAL and LIMIT_ORDER: which limit, what is left,
    /// when it opens again.
    Exceeded = 28, "EXCEEDED";
    /// After legs were refused: the account that stands against them.
    Account = 29, "ONE_ACCOUNT";
    /// After RESERVE, CANCEL, RETURN and ORDER_STATUS, and after a sale without its codes.
    Order = 30, "ORDER";
    /// After CHECKPOINT.
    Checkpoint = 32, "CHECKPOINT";
    /// After KEY_ROTATE.
    Keys = 33, "KEYS";
    /// After TENANT_LIST, and the one tenant after the other commands about one.
    Tenants = 34, "TENANTS";
    /// After ORDER_LIST.
    Orders = 35, "ORDERS";
    /// After FEED_OPEN: where the feed begins.
    Feed = 40, "FEED";
    /// On the stream of a feed, again and again: events, and up to where all were told.
    Events = 41, "EVENTS";
    /// After RECONCILE.
    Totals = 42, "TOTALS";
    /// After HOLD: what is held, and until when.
    Hold = 43, "HELD";
    /// After SIGNED_CHECKPOINT.
    SignedNote = 48, "SIGNED_NOTE";
    /// After PROOF.
    ProofPart = 49, "PROOF_PART";
    /// After CONSISTENCY.
    Path = 50, "PATH";
    /// After OUTCOME_QUERY: the effect that the request had; where and when is in the head.
    Outcome = 56, "OUTCOME";
    /// After EXCEPTION_LIST, in order of number, and the one exception after EXCEPTION_RESOLVE.
    Exceptions = 57, "EXCEPTIONS";
    /// After PROPOSAL_LIST, in order of number, and the one proposal after PROPOSE, APPROVE and PROPOSAL_WITHDRAW; after
    /// TENANT_CONTROL without any.
    Proposals = 58, "PROPOSALS";
}

impl BodyKind {
    /// What a reply of class done carries; `None` for what this version does not serve.
    #[must_use]
    pub const fn after(opcode: Opcode) -> Option<BodyKind> {
        Some(match opcode {
            Opcode::Hello => BodyKind::Welcome,
            Opcode::Ping => BodyKind::None,
            Opcode::Redeem
            | Opcode::Reverse
            | Opcode::Capture
            | Opcode::Release
            | Opcode::Load
            | Opcode::Advice
            | Opcode::RefundValue
            | Opcode::Transfer => BodyKind::Value,
            Opcode::Hold => BodyKind::Hold,
            Opcode::Query
            | Opcode::Freeze
            | Opcode::Unfreeze
            | Opcode::Void
            | Opcode::Settle
            | Opcode::PinUnlock
            | Opcode::Activate
            | Opcode::Deactivate
            | Opcode::Extend
            | Opcode::Expire
            | Opcode::Restock
            | Opcode::Replace => BodyKind::Card,
            Opcode::History => BodyKind::History,
            Opcode::RedeemBatch => BodyKind::Items,
            Opcode::Sell | Opcode::OrderFetch | Opcode::SellLines | Opcode::Confirm => BodyKind::Codes,
            Opcode::Reserve | Opcode::Cancel | Opcode::Return | Opcode::OrderStatus => BodyKind::Order,
            Opcode::BatchActivate
            | Opcode::BatchDeactivate
            | Opcode::BatchFreeze
            | Opcode::BatchUnfreeze
            | Opcode::BatchVoid
            | Opcode::BatchExtend
            | Opcode::BatchList
            | Opcode::BatchActivateRows
            | Opcode::BatchDeactivateRows
            | Opcode::ImportCommit => BodyKind::Batches,
            Opcode::ProductAdd
            | Opcode::ProductSet
            | Opcode::ProductFreeze
            | Opcode::ProductUnfreeze
            | Opcode::ProductList => BodyKind::Products,
            Opcode::Stock => BodyKind::Stock,
            Opcode::ImportBegin | Opcode::ImportChunk | Opcode::ImportStatus | Opcode::ImportAbort => {
                BodyKind::Import
            }
            Opcode::ImportDuplicates => BodyKind::Duplicates,
            Opcode::PrincipalAdd
            | Opcode::PrincipalRevoke
            | Opcode::PrincipalRenew
            | Opcode::PrincipalList => BodyKind::Principals,
            Opcode::AccountPut
            | Opcode::AccountFreeze
            | Opcode::AccountUnfreeze
            | Opcode::AccountQuery
            | Opcode::AccountList => BodyKind::Accounts,
            Opcode::AccountStatement => BodyKind::Statement,
            Opcode::OrderList => BodyKind::Orders,
            Opcode::Post => BodyKind::Posted,
            Opcode::LimitPut | Opcode::LimitList => BodyKind::Limits,
            Opcode::TenantPut | Opcode::TenantFreeze | Opcode::TenantUnfreeze | Opcode::TenantList => {
                BodyKind::Tenants
            }
            Opcode::Stats => BodyKind::Stats,
            Opcode::Checkpoint => BodyKind::Checkpoint,
            Opcode::KeyRotate => BodyKind::Keys,
            Opcode::FeedOpen => BodyKind::Feed,
            // Not answered, unless it is refused.
            Opcode::FeedAck => BodyKind::None,
            Opcode::Reconcile => BodyKind::Totals,
            Opcode::SignedCheckpoint => BodyKind::SignedNote,
            Opcode::Proof => BodyKind::ProofPart,
            Opcode::Consistency => BodyKind::Path,
            Opcode::OutcomeQuery => BodyKind::Outcome,
            Opcode::ExceptionList | Opcode::ExceptionResolve => BodyKind::Exceptions,
            Opcode::Propose
            | Opcode::Approve
            | Opcode::ProposalWithdraw
            | Opcode::ProposalList
            | Opcode::TenantControl => BodyKind::Proposals,
            // Never done by itself.
            Opcode::Export => BodyKind::None,
            _ => return None,
        })
    }
}

/// A reply's body.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Body {
    /// Nothing.
    None,
    /// What a redemption or reversal moved.
    Value(ValueReport),
    /// What a hold keeps.
    Hold(HoldReport),
    /// A card.
    Card(CardReport),
    /// A card's events, newest first.
    History(Listing<HistoryEvent>),
    /// Codes.
    Codes(Codes),
    /// Products.
    Products(Listing<Product>),
    /// Batches.
    Batches(Listing<BatchReport>),
    /// Stock, a line per batch.
    Stock(Listing<StockLine>),
    /// Principals.
    Principals(Listing<Principal>),
    /// Figures.
    Stats(Stats),
    /// Rows of an import that are there already.
    Duplicates(Listing<Duplicate>),
    /// How far an import is.
    Import(ImportReport),
    /// Who the caller is, and the limits.
    Welcome(Welcome),
    /// One line per item.
    Items(Listing<ItemReport>),
    /// Which field is wrong.
    Reason(String),
    /// How long to wait.
    Wait(Wait),
    /// A snapshot.
    Checkpoint(Checkpoint),
    /// A rotation of the master key.
    Keys(KeyRotation),
    /// Accounts.
    Accounts(Listing<Account>),
    /// A statement of an account.
    Statement(Box<Statement>),
    /// What a posting moved.
    Posted(Listing<PostedLeg>),
    /// Limits.
    Limits(Listing<Limit>),
    /// Orders, newest first.
    Orders(OrderPage),
    /// Tenants.
    Tenants(Listing<Tenant>),
    /// The limit that stands against a command.
    Exceeded(Exceeded),
    /// The account that stands against legs.
    Account(OneAccount),
    /// Where a feed begins.
    Feed(FeedBegin),
    /// Events of a feed.
    Events(FeedEvents),
    /// Totals.
    Totals(Totals),
    /// An order, without its codes.
    Order(Box<OrderReport>),
    /// A checkpoint of the log, signed.
    SignedNote(SignedNote),
    /// A part of a proof's text.
    ProofPart(ProofPart),
    /// The hashes that prove consistency.
    Path(Listing<PathHash>),
    /// What became of a request.
    Outcome(OutcomeReport),
    /// Redemptions made offline that did not fit.
    Exceptions(Exceptions),
    /// Proposals.
    Proposals(Box<Proposals>),
}

/// A hash of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathHash {
    /// SHA-256.
    pub hash: [u8; 32],
}

wire!(PathHash: "HASH" {
    hash: [u8; 32], "SHA-256";
});

/// Rows of a reply, and how many there are in all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing<T> {
    /// How many there are; more than `rows` if the reply is PARTIAL.
    pub total: u32,
    /// Those that fitted.
    pub rows: Vec<T>,
}

impl<T> Listing<T> {
    /// All there are.
    #[must_use]
    pub fn of(rows: Vec<T>) -> Listing<T> {
        Listing { total: u32::try_from(rows.len()).unwrap_or(u32::MAX), rows }
    }
}

/// A page of exceptions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exceptions {
    /// All up to this number were looked through: where the next page goes on.
    pub reached: u64,
    /// Those that the caller may see. All that one reply may hold fit into a frame.
    pub listing: Listing<Exception>,
}

/// Who the server takes the caller for, and the limits of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The caller.
    pub principal: PrincipalId,
    /// The merchant it redeems for.
    pub merchant: MerchantId,
    /// Its tenant.
    pub tenant: TenantId,
    /// What it may do.
    pub role: Role,
    /// The highest protocol version the server speaks.
    pub version_max: u8,
    /// The longest frame.
    pub frame_bytes_max: u32,
    /// How many streams may be open at a time.
    pub streams_max: u32,
    /// The most items of a REDEEM_BATCH.
    pub items_max: u32,
}

/// How long to wait before the same request is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Milliseconds.
    pub wait_ms: u32,
}

wire!(Wait: "WAIT" {
    wait_ms: u32, "after so many milliseconds the same request may be sent again";
});

wire!(Welcome: "WELCOME" {
    principal: PrincipalId, "who the server takes the caller for";
    merchant: MerchantId, "the merchant it redeems for, or 0";
    tenant: TenantId, "its tenant";
    role: Role, "its role, as in PRINCIPAL_SPEC";
    version_max: u8, "the highest protocol version the server speaks";
    frame_bytes_max: u32, "the longest frame, either way";
    streams_max: u32, "how many streams may be open at a time";
    items_max: u32, "the most items of a REDEEM_BATCH";
});

/// What became of one item of a REDEEM_BATCH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ItemReport {
    /// The item's request id.
    pub request: RequestId,
    /// Where its effect stands in the log.
    pub lsn: Option<Lsn>,
    /// Its outcome.
    pub status: Status,
    /// More about the outcome.
    pub flags: ReplyFlags,
    /// What was moved and what is left; zeros after a refusal.
    pub value: ValueReport,
}

impl ItemReport {
    /// An item that moved nothing yet.
    pub(crate) const fn nothing(request: RequestId) -> ItemReport {
        let value = ValueReport { product: ProductId(0), amount: 0, remaining: 0 };
        ItemReport { request, lsn: None, status: Status::Ok, flags: ReplyFlags(0), value }
    }
}

wire!(ItemReport: "ITEM_REPORT" {
    request: RequestId, "the item's request id";
    lsn: Option<Lsn>, "where its effect stands in the log; 0: nowhere";
    status: Status, "the item's outcome";
    flags: ReplyFlags, "as in the reply head";
    value: ValueReport, "zeros unless the outcome is of class done";
});

impl Wire<'_> for Status {
    const TYPE: &'static str = "u16";
    #[inline]
    fn put(&self, out: &mut BytesMut) {
        self.number().put(out);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Status::from_number(u16::take(reader)?).ok_or(reader.malformed())
    }
}

impl Wire<'_> for ReplyFlags {
    const TYPE: &'static str = "u8";
    #[inline]
    fn put(&self, out: &mut BytesMut) {
        self.0.put(out);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        u8::take(reader).map(ReplyFlags)
    }
}

impl Body {
    /// The number in the head.
    #[must_use]
    pub const fn kind(&self) -> BodyKind {
        match self {
            Body::None => BodyKind::None,
            Body::Value(_) => BodyKind::Value,
            Body::Hold(_) => BodyKind::Hold,
            Body::Card(_) => BodyKind::Card,
            Body::History(_) => BodyKind::History,
            Body::Codes(_) => BodyKind::Codes,
            Body::Products(_) => BodyKind::Products,
            Body::Batches(_) => BodyKind::Batches,
            Body::Stock(_) => BodyKind::Stock,
            Body::Principals(_) => BodyKind::Principals,
            Body::Stats(_) => BodyKind::Stats,
            Body::Duplicates(_) => BodyKind::Duplicates,
            Body::Import(_) => BodyKind::Import,
            Body::Welcome(_) => BodyKind::Welcome,
            Body::Items(_) => BodyKind::Items,
            Body::Reason(_) => BodyKind::Reason,
            Body::Wait(_) => BodyKind::Wait,
            Body::Checkpoint(_) => BodyKind::Checkpoint,
            Body::Keys(_) => BodyKind::Keys,
            Body::Accounts(_) => BodyKind::Accounts,
            Body::Statement(_) => BodyKind::Statement,
            Body::Orders(_) => BodyKind::Orders,
            Body::Posted(_) => BodyKind::Posted,
            Body::Limits(_) => BodyKind::Limits,
            Body::Tenants(_) => BodyKind::Tenants,
            Body::Exceeded(_) => BodyKind::Exceeded,
            Body::Account(_) => BodyKind::Account,
            Body::Feed(_) => BodyKind::Feed,
            Body::Events(_) => BodyKind::Events,
            Body::Totals(_) => BodyKind::Totals,
            Body::Order(_) => BodyKind::Order,
            Body::SignedNote(_) => BodyKind::SignedNote,
            Body::ProofPart(_) => BodyKind::ProofPart,
            Body::Path(_) => BodyKind::Path,
            Body::Outcome(_) => BodyKind::Outcome,
            Body::Exceptions(_) => BodyKind::Exceptions,
            Body::Proposals(_) => BodyKind::Proposals,
        }
    }

    /// What the engine answered, as it travels. Codes do not: they are read once the reply is durable
    /// and written by [`CodesFrame`].
    #[must_use]
    pub fn from_engine(body: ReplyBody) -> Option<Body> {
        Some(match body {
            ReplyBody::None => Body::None,
            ReplyBody::Value(value) => Body::Value(value),
            ReplyBody::Hold(hold) => Body::Hold(hold),
            ReplyBody::Card(card) => Body::Card(card),
            ReplyBody::History(events) => Body::History(Listing::of(events)),
            ReplyBody::Products(products) => Body::Products(Listing::of(products)),
            ReplyBody::Batches(batches) => Body::Batches(Listing::of(batches)),
            ReplyBody::Stock(lines) => Body::Stock(Listing::of(lines)),
            ReplyBody::Principals(principals) => Body::Principals(Listing::of(principals)),
            ReplyBody::Stats(stats) => Body::Stats(*stats),
            ReplyBody::Duplicates(duplicates) => Body::Duplicates(Listing::of(duplicates)),
            ReplyBody::Import(report) => Body::Import(report),
            ReplyBody::Checkpoint(checkpoint) => Body::Checkpoint(checkpoint),
            ReplyBody::Keys(rotation) => Body::Keys(rotation),
            ReplyBody::Accounts(accounts) => Body::Accounts(Listing::of(accounts)),
            ReplyBody::Statement(statement) => {
                let kami_engine::Statement { account, lines, next } = *statement;
                Body::Statement(Box::new(Statement { next, account, lines }))
            }
            ReplyBody::Posted(legs) => Body::Posted(Listing::of(legs)),
            ReplyBody::Limits(limits) => Body::Limits(Listing::of(limits)),
            ReplyBody::Orders(page) => Body::Orders(page),
            ReplyBody::Tenants(tenants) => Body::Tenants(Listing::of(tenants)),
            ReplyBody::Exceeded(exceeded) => Body::Exceeded(exceeded),
            ReplyBody::Account(account) => Body::Account(OneAccount { account }),
            ReplyBody::Order(report) => Body::Order(report),
            ReplyBody::SignedNote(note) => Body::SignedNote(*note),
            ReplyBody::ProofPart(part) => Body::ProofPart(*part),
            ReplyBody::Outcome(report) => Body::Outcome(report),
            ReplyBody::Proposals(report) => {
                let ControlReport { control, proposals } = *report;
                Body::Proposals(Box::new(Proposals { control, listing: Listing::of(proposals) }))
            }
            ReplyBody::Exceptions(ExceptionPage { rows, reached }) => {
                Body::Exceptions(Exceptions { reached, listing: Listing::of(rows) })
            }
            ReplyBody::Path(path) => {
                Body::Path(Listing::of(path.into_iter().map(|hash| PathHash { hash }).collect()))
            }
            _ => return None,
        })
    }

    fn take(kind: BodyKind, reader: &mut Reader<'_>) -> Result<Body, Malformed> {
        Ok(match kind {
            BodyKind::None => Body::None,
            BodyKind::Value => Body::Value(Wire::take(reader)?),
            BodyKind::Hold => Body::Hold(Wire::take(reader)?),
            BodyKind::Card => Body::Card(Wire::take(reader)?),
            BodyKind::History => Body::History(take_rows(reader)?),
            BodyKind::Codes => Body::Codes(Codes::take(reader)?),
            BodyKind::Products => Body::Products(take_rows(reader)?),
            BodyKind::Batches => Body::Batches(take_rows(reader)?),
            BodyKind::Stock => Body::Stock(take_rows(reader)?),
            BodyKind::Principals => Body::Principals(take_rows(reader)?),
            BodyKind::Stats => Body::Stats(Wire::take(reader)?),
            BodyKind::Duplicates => Body::Duplicates(take_rows(reader)?),
            BodyKind::Import => Body::Import(Wire::take(reader)?),
            BodyKind::Welcome => Body::Welcome(Wire::take(reader)?),
            BodyKind::Items => Body::Items(take_rows(reader)?),
            BodyKind::Reason => Body::Reason(reader.field("reason")?),
            BodyKind::Wait => Body::Wait(Wire::take(reader)?),
            BodyKind::Checkpoint => Body::Checkpoint(Wire::take(reader)?),
            BodyKind::Keys => Body::Keys(Wire::take(reader)?),
            BodyKind::Accounts => Body::Accounts(take_rows(reader)?),
            BodyKind::Orders => Body::Orders(Wire::take(reader)?),
            BodyKind::Statement => Body::Statement(Box::new(Wire::take(reader)?)),
            BodyKind::Posted => Body::Posted(take_rows(reader)?),
            BodyKind::Limits => Body::Limits(take_rows(reader)?),
            BodyKind::Tenants => Body::Tenants(take_rows(reader)?),
            BodyKind::Exceeded => Body::Exceeded(Wire::take(reader)?),
            BodyKind::Account => Body::Account(Wire::take(reader)?),
            BodyKind::Feed => Body::Feed(Wire::take(reader)?),
            BodyKind::Events => Body::Events(Wire::take(reader)?),
            BodyKind::Totals => Body::Totals(Wire::take(reader)?),
            BodyKind::Order => Body::Order(Wire::take(reader)?),
            BodyKind::SignedNote => Body::SignedNote(Wire::take(reader)?),
            BodyKind::ProofPart => Body::ProofPart(Wire::take(reader)?),
            BodyKind::Path => Body::Path(take_rows(reader)?),
            BodyKind::Outcome => Body::Outcome(Wire::take(reader)?),
            BodyKind::Exceptions => Body::Exceptions(Exceptions {
                reached: reader.field("reached")?,
                listing: take_rows(reader)?,
            }),
            BodyKind::Proposals => {
                let control = reader.field("control")?;
                Body::Proposals(Box::new(Proposals { control, listing: take_rows(reader)? }))
            }
        })
    }

    /// Writes the body; whether all of it fitted.
    #[inline]
    fn put(&self, out: &mut BytesMut, end: usize) -> bool {
        match self {
            Body::None => {}
            Body::Value(value) => value.put(out),
            Body::Hold(hold) => hold.put(out),
            Body::Card(card) => card.put(out),
            Body::History(rows) => return put_rows(rows, out, end),
            Body::Codes(codes) => return codes.put(out, end),
            Body::Products(rows) => return put_rows(rows, out, end),
            Body::Batches(rows) => return put_rows(rows, out, end),
            Body::Stock(rows) => return put_rows(rows, out, end),
            Body::Principals(rows) => return put_rows(rows, out, end),
            Body::Stats(stats) => stats.put(out),
            Body::Duplicates(rows) => return put_rows(rows, out, end),
            Body::Import(report) => report.put(out),
            Body::Welcome(welcome) => welcome.put(out),
            Body::Items(rows) => return put_rows(rows, out, end),
            Body::Reason(reason) => reason.put(out),
            Body::Wait(wait) => wait.put(out),
            Body::Checkpoint(checkpoint) => checkpoint.put(out),
            Body::Keys(rotation) => rotation.put(out),
            Body::Accounts(rows) => return put_rows(rows, out, end),
            Body::Statement(statement) => statement.put(out),
            Body::Orders(page) => page.put(out),
            Body::Posted(rows) => return put_rows(rows, out, end),
            Body::Limits(rows) => return put_rows(rows, out, end),
            Body::Tenants(rows) => return put_rows(rows, out, end),
            Body::Exceeded(exceeded) => exceeded.put(out),
            Body::Account(account) => account.put(out),
            Body::Feed(begin) => begin.put(out),
            Body::Events(events) => events.put(out),
            Body::Totals(totals) => totals.put(out),
            Body::Order(report) => report.put(out),
            Body::SignedNote(note) => note.put(out),
            Body::ProofPart(part) => part.put(out),
            Body::Path(rows) => return put_rows(rows, out, end),
            Body::Outcome(report) => report.put(out),
            Body::Exceptions(page) => {
                page.reached.put(out);
                return put_rows(&page.listing, out, end);
            }
            Body::Proposals(proposals) => {
                proposals.control.put(out);
                return put_rows(&proposals.listing, out, end);
            }
        }
        true
    }
}

/// Appends a whole reply frame. What does not fit is cut and the reply flagged PARTIAL.
#[inline]
pub fn encode(head: &ReplyHead, body: &Body, out: &mut BytesMut) {
    let start = out.len();
    head.put(body.kind() as u16, out);
    if !body.put(out, start + FRAME_BYTES_MAX) {
        out[start + 5] |= ReplyFlags::PARTIAL.0;
    }
    close_frame(out, start);
}

/// As [`encode`], of what the engine answered. What the frequent commands are told is read where it stands.
/// Public only for `kami-bench guards`, which counts what a reply costs.
#[doc(hidden)]
#[inline]
pub fn encode_told(head: &ReplyHead, body: &mut ReplyBody, out: &mut BytesMut) {
    match body {
        ReplyBody::None => encode_small(head, BodyKind::None, |_| (), out),
        ReplyBody::Value(value) => encode_small(head, BodyKind::Value, |out| value.put(out), out),
        ReplyBody::Hold(hold) => encode_small(head, BodyKind::Hold, |out| hold.put(out), out),
        ReplyBody::Card(card) => encode_small(head, BodyKind::Card, |out| card.put(out), out),
        other => {
            encode(head, &Body::from_engine(other.take()).unwrap_or(Body::None), out);
        }
    }
}

#[inline]
fn encode_small(head: &ReplyHead, kind: BodyKind, body: impl FnOnce(&mut BytesMut), out: &mut BytesMut) {
    let start = out.len();
    head.put(kind as u16, out);
    body(out);
    close_frame(out, start);
}

fn put_rows<'a, T: Wire<'a>>(listing: &Listing<T>, out: &mut BytesMut, end: usize) -> bool {
    listing.total.put(out);
    let count_at = out.len();
    out.put_u32_le(0);
    let mut count = 0_u32;
    for row in &listing.rows {
        let before = out.len();
        row.put(out);
        if out.len() > end {
            out.truncate(before);
            break;
        }
        count += 1;
    }
    out[count_at..count_at + 4].copy_from_slice(&count.to_le_bytes());
    count as usize == listing.rows.len()
}

fn take_rows<'a, T: Wire<'a>>(reader: &mut Reader<'a>) -> Result<Listing<T>, Malformed> {
    let total = reader.field("total")?;
    let count: u32 = reader.field("count")?;
    // Grown row by row: the count is the peer's word, the bytes are not.
    let mut rows = Vec::new();
    for _ in 0..count {
        rows.push(T::take(reader)?);
    }
    Ok(Listing { total, rows })
}

/// A whole reply as a client reads it.
#[derive(Debug, PartialEq)]
pub struct Answer {
    /// The head.
    pub head: ReplyHead,
    /// The body.
    pub body: Body,
}

impl Answer {
    /// Reads a frame whose length and version were checked by a [`Splitter`](super::Splitter).
    ///
    /// # Errors
    /// If it is not well formed or this version does not know its body.
    pub fn decode(frame: &[u8]) -> Result<Answer, Malformed> {
        let (head, kind) = ReplyHead::decode(frame)?;
        let kind = BodyKind::from_number(kind).ok_or(Malformed { field: "body" })?;
        let mut reader = Reader::new(&frame[REPLY_HEAD_BYTES..]);
        let body = Body::take(kind, &mut reader)?;
        reader.end()?;
        Ok(Answer { head, body })
    }
}

/// Every layout of a reply, for the document and the golden tests: name and fields.
#[must_use]
pub fn layouts() -> Vec<(&'static str, &'static [Field])> {
    fn of<T: Wire<'static>>() -> (&'static str, &'static [Field]) {
        (T::TYPE, T::FIELDS)
    }
    const CODES: &[Field] = &[
        field("total", "u32", "cards of the order in all that still belong to it"),
        field("from", "u32", "which of them is the first here"),
        field("count", "u32", "how many are here"),
        field("rows", "SOLD_CARD × count", "cards with their codes"),
    ];
    const EXCEPTIONS: &[Field] = &[
        field(
            "reached",
            "u64",
            "all up to this number were looked through: `after` of the next page, if the reply is PARTIAL",
        ),
        field("total", "u32", "how many are here"),
        field("count", "u32", "how many are here"),
        field("rows", "EXCEPTION × count", "the rows, maybe none"),
    ];
    macro_rules! listing {
        ($name:literal, $row:literal) => {
            ($name, {
                const FIELDS: &[Field] = &[
                    field("total", "u32", "how many there are in all"),
                    field("count", "u32", "how many are here"),
                    field("rows", concat!($row, " × count"), "the rows"),
                ];
                FIELDS
            })
        };
    }
    vec![
        of::<ValueReport>(),
        of::<HoldReport>(),
        of::<CardReport>(),
        listing!("HISTORY", "EVENT"),
        of::<HistoryEvent>(),
        ("CODES", CODES),
        of::<SoldCard>(),
        listing!("PRODUCTS", "PRODUCT"),
        of::<Product>(),
        listing!("BATCHES", "BATCH"),
        of::<BatchReport>(),
        listing!("STOCK", "STOCK_LINE"),
        of::<StockLine>(),
        listing!("PRINCIPALS", "PRINCIPAL"),
        of::<Principal>(),
        listing!("TENANTS", "TENANT"),
        of::<Tenant>(),
        of::<Stats>(),
        listing!("DUPLICATES", "DUPLICATE"),
        of::<Duplicate>(),
        of::<ImportReport>(),
        of::<Welcome>(),
        listing!("ITEMS", "ITEM_REPORT"),
        of::<ItemReport>(),
        of::<Checkpoint>(),
        of::<KeyRotation>(),
        of::<FeedBegin>(),
        of::<FeedEvents>(),
        of::<Event>(),
        of::<Totals>(),
        of::<TotalLine>(),
        of::<SignedNote>(),
        of::<ProofPart>(),
        listing!("PATH", "HASH"),
        of::<PathHash>(),
        of::<OutcomeReport>(),
        ("EXCEPTIONS", EXCEPTIONS),
        of::<Exception>(),
        ("PROPOSALS", PROPOSALS),
        of::<Proposal>(),
        ("REASON", const { &[field("reason", "text8", "which field is wrong")] }),
        of::<Wait>(),
        listing!("ACCOUNTS", "ACCOUNT"),
        of::<Account>(),
        of::<Statement>(),
        of::<kami_engine::StatementLine>(),
        of::<OrderPage>(),
        of::<kami_engine::OrderLine>(),
        listing!("POSTED", "POSTED_LEG"),
        of::<PostedLeg>(),
        listing!("LIMITS", "LIMIT"),
        of::<Limit>(),
        of::<Exceeded>(),
        of::<OrderReport>(),
    ]
}
