//! The body of a reply: what the engine told, as it travels.
//!
//! # Invariants
//! * Rows that do not fit are left out from the end, and the count says how many came; nothing is cut in the middle.
//! * A reader grows its rows by the bytes that are there, never by a count that the peer says.

use bytes::{BufMut, BytesMut};
use kami_engine::{
    Account, BatchReport, CardReport, Checkpoint, ControlReport, Duplicate, Exceeded, Exception,
    ExceptionPage, HistoryEvent, HoldReport, ImportReport, KeyRotation, Limit, OrderPage, OrderReport,
    OutcomeReport, PostedLeg, Principal, Product, ProofPart, ReplyBody, SignedNote, Stats, StockLine, Tenant,
    Totals, ValueReport,
};

use super::Codes;
use super::{BodyKind, ItemReport, Wait, Welcome};
use crate::frame::control::Proposals;
use crate::frame::feed::{FeedBegin, FeedEvents};
use crate::frame::money::{OneAccount, Statement};
use crate::frame::wire::{Malformed, Reader, Wire, wire};

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
    /// and written by [`CodesFrame`](crate::frame::codes::CodesFrame).
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

    pub(super) fn take(kind: BodyKind, reader: &mut Reader<'_>) -> Result<Body, Malformed> {
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
    pub(super) fn put(&self, out: &mut BytesMut, end: usize) -> bool {
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

/// A hash of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathHash {
    /// SHA-256.
    pub hash: [u8; 32],
}

wire!(PathHash: "HASH" {
    hash: [u8; 32], "SHA-256";
});

/// A page of exceptions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exceptions {
    /// All up to this number were looked through: where the next page goes on.
    pub reached: u64,
    /// Those that the caller may see. All that one reply may hold fit into a frame.
    pub listing: Listing<Exception>,
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
