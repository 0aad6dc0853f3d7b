//! What a reply must be, and how the one that came is held against it.

use kami_engine::{
    Account, AccountId, BatchReport, CardReport, DualControl, Duplicate, Exceeded, Exception, HistoryEvent,
    HoldReport, ImportReport, Kind, Leg, Limit, Lsn, OrderLine, OrderReport, OutcomeReport, Principal,
    Product, Proposal, Reply, ReplyBody, ReplyFlags, StatementLine, Stats, Status, StockLine, Tenant,
    ValueReport,
};

use super::money_rules::Line;
use super::oracle::Place;

/// A reply as the oracle expects it.
#[derive(Clone, Debug)]
pub struct Expected {
    pub status: Status,
    pub flags: ReplyFlags,
    pub lsn: At,
    pub time_ms: u64,
    /// Whether it is what a guess gets.
    pub miss: bool,
    pub body: Body,
}

/// Where the reply must say that its effect stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// Nowhere.
    None,
    /// Further on than everything before.
    New,
    /// There, or anywhere if no reply has told yet.
    Known(Option<u64>),
}

/// An order's codes, to be compared when they may be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub order: u128,
    pub total: u32,
    pub from: u32,
    pub codes: Vec<(Place, String)>,
}

/// A line of a history; the position apart, because it may not be known yet.
#[derive(Clone, Debug)]
pub struct HistoryLine {
    pub lsn: Option<u64>,
    pub event: HistoryEvent,
}

/// The body of a reply.
#[derive(Clone, Debug)]
pub enum Body {
    None,
    Value(ValueReport),
    Hold(HoldReport),
    Card(CardReport),
    History(Vec<HistoryLine>),
    Cards(Listed),
    Order(OrderReport),
    Products(Vec<Product>),
    Batches(Vec<BatchReport>),
    Stock(Vec<StockLine>),
    Principals(Vec<Principal>),
    /// Positions and commits are left out of the comparison.
    Stats(Stats),
    Tenants(Vec<Tenant>),
    Duplicates(Vec<Duplicate>),
    Import(ImportReport),
    Accounts(Vec<Account>),
    /// The account, its lines newest first, and whether there are more.
    Statement {
        account: Account,
        lines: Vec<Line>,
        more: bool,
    },
    /// Legs with the balances they left.
    Posted(Vec<(Leg, i64)>),
    Limits(Vec<Limit>),
    Exceeded(Exceeded),
    Account(AccountId),
    Outcome(OutcomeReport),
    /// With their positions, which may not be known yet; and whether there are more, and from where on.
    Orders {
        lines: Vec<(Option<u64>, OrderLine)>,
        next: Option<Option<u64>>,
    },
    /// With their positions, which may not be known yet.
    Exceptions(Vec<(Option<u64>, Exception)>),
    /// The same.
    Proposals(DualControl, Vec<(Option<u64>, Proposal)>),
}

impl Expected {
    /// A reply without a body.
    pub fn plain(status: Status, time_ms: u64) -> Expected {
        let flags = ReplyFlags::default();
        Expected { status, flags, lsn: At::None, time_ms, miss: false, body: Body::None }
    }

    /// Whether `reply` is this. `last` is the highest position a reply has named before.
    pub fn check(&self, reply: &Reply, last: u64) -> Result<(), String> {
        let differs = |what: &str| Err(format!("{what}: expected {self:?}\n  came {reply:?}"));
        if reply.status != self.status {
            return differs("status");
        }
        if reply.flags != self.flags {
            return differs("flags");
        }
        if reply.miss != self.miss {
            return differs("miss");
        }
        if reply.time_ms != self.time_ms {
            return differs("time");
        }
        let lsn = reply.lsn.map(Lsn::bytes);
        let placed = match self.lsn {
            At::None => lsn.is_none(),
            At::New => lsn.is_some_and(|lsn| lsn > last),
            At::Known(None) => lsn.is_some(),
            At::Known(known) => lsn == known,
        };
        if !placed {
            return differs("position");
        }
        let same = match (&self.body, &reply.body) {
            (Body::None, ReplyBody::None) => true,
            (Body::Value(a), ReplyBody::Value(b)) => a == b,
            (Body::Hold(a), ReplyBody::Hold(b)) => a == b,
            (Body::Card(a), ReplyBody::Card(b)) => a == b,
            (Body::History(a), ReplyBody::History(b)) => same_history(a, b),
            (Body::Cards(a), ReplyBody::Cards(b)) => {
                a.order == b.order.0
                    && a.total == b.total
                    && a.from == b.from
                    && a.codes.len() == b.count as usize
            }
            (Body::Order(a), ReplyBody::Order(b)) => *a == **b,
            (Body::Products(a), ReplyBody::Products(b)) => a == b,
            (Body::Batches(a), ReplyBody::Batches(b)) => a == b,
            (Body::Stock(a), ReplyBody::Stock(b)) => a == b,
            (Body::Principals(a), ReplyBody::Principals(b)) => a == b,
            (Body::Tenants(a), ReplyBody::Tenants(b)) => a == b,
            (Body::Stats(a), ReplyBody::Stats(b)) => {
                let Stats { tail, durable_end, commits, .. } = **b;
                durable_end <= tail
                    && *a == Stats { tail: 0, durable_end: 0, commits: 0, ..**b }
                    && commits > 0
            }
            (Body::Duplicates(a), ReplyBody::Duplicates(b)) => a == b,
            (Body::Import(a), ReplyBody::Import(b)) => a == b,
            (Body::Accounts(a), ReplyBody::Accounts(b)) => a == b,
            (Body::Statement { account, lines, more }, ReplyBody::Statement(b)) => {
                *account == b.account && *more == b.next.is_some() && same_lines(lines, &b.lines)
            }
            (Body::Posted(a), ReplyBody::Posted(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| *a == (b.leg, b.balance))
            }
            (Body::Limits(a), ReplyBody::Limits(b)) => a == b,
            (Body::Exceeded(a), ReplyBody::Exceeded(b)) => a == b,
            (Body::Account(a), ReplyBody::Account(b)) => a == b,
            (Body::Outcome(a), ReplyBody::Outcome(b)) => a == b,
            (Body::Orders { lines, next }, ReplyBody::Orders(page)) => {
                next.is_some() == page.next.is_some()
                    && next.flatten().is_none_or(|next| Some(next) == page.next.map(Lsn::bytes))
                    && lines.len() == page.lines.len()
                    && lines.iter().zip(&page.lines).all(|((lsn, a), b)| {
                        lsn.is_none_or(|lsn| lsn == b.lsn.bytes()) && OrderLine { lsn: b.lsn, ..*a } == *b
                    })
            }
            (Body::Exceptions(a), ReplyBody::Exceptions(b)) => {
                // What was looked through holds what is told, be there more or not.
                b.rows.last().is_none_or(|last| last.id <= b.reached)
                    && a.len() == b.rows.len()
                    && a.iter().zip(&b.rows).all(|((lsn, a), b)| {
                        lsn.is_none_or(|lsn| lsn == b.lsn.bytes())
                            && Exception { lsn: b.lsn, ..a.clone() } == *b
                    })
            }
            (Body::Proposals(control, a), ReplyBody::Proposals(b)) => {
                *control == b.control
                    && a.len() == b.proposals.len()
                    && a.iter().zip(&b.proposals).all(|((lsn, a), b)| {
                        lsn.is_none_or(|lsn| lsn == b.lsn.bytes())
                            && Proposal { lsn: b.lsn, ..a.clone() } == *b
                    })
            }
            _ => false,
        };
        if same { Ok(()) } else { differs("body") }
    }
}

fn same_lines(expected: &[Line], came: &[StatementLine]) -> bool {
    // Positions fall from line to line; what was so elsewhere stands where its import does.
    let falls = came.windows(2).all(|pair| {
        pair[1].lsn < pair[0].lsn || pair[0].kind == Kind::Migrated && pair[1].lsn == pair[0].lsn
    });
    let same = |(line, came): (&Line, &StatementLine)| {
        line.lsn.is_none_or(|lsn| lsn == came.lsn.bytes())
            && StatementLine { lsn: came.lsn, ..line.line } == *came
    };
    falls && expected.len() == came.len() && expected.iter().zip(came).all(same)
}

fn same_history(expected: &[HistoryLine], came: &[HistoryEvent]) -> bool {
    // Positions fall from line to line; what was so elsewhere stands where its import does.
    let falls = came.windows(2).all(|pair| {
        pair[1].lsn < pair[0].lsn || pair[0].kind == Kind::Migrated && pair[1].lsn == pair[0].lsn
    });
    let same = |(line, event): (&HistoryLine, &HistoryEvent)| {
        line.lsn.is_none_or(|lsn| lsn == event.lsn.bytes())
            && HistoryEvent { lsn: event.lsn, ..line.event.clone() } == *event
    };
    falls && expected.len() == came.len() && expected.iter().zip(came).all(same)
}
