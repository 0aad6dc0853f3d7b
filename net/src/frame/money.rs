//! How accounts, legs and limits lie on the wire, and the bodies of the commands about them.

use bytes::BytesMut;
use kami_engine::{
    Account, AccountId, AccountKind, AccountPut, AccountSpec, ChannelId, DocumentId, Exceeded, Leg, Limit,
    LimitAction, LimitId, LimitScope, LimitSpec, LimitWindow, Lsn, Money, PostedLeg, Posting, PrincipalId,
    ProductId, StatementLine, Status, TenantId, record::Kind,
};

use super::field;
use super::wire::{Field, Malformed, Reader, Wire, wire};

/// The body of ACCOUNT_FREEZE and ACCOUNT_UNFREEZE, and of a refusal that one account stands against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OneAccount {
    /// The account.
    pub account: AccountId,
}

wire!(OneAccount: "ONE_ACCOUNT" {
    account: AccountId, "the account";
});

/// The body of ACCOUNT_QUERY.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountQuery {
    /// Its number; 0 looks for the name.
    pub account: AccountId,
    /// Its name.
    pub name: String,
}

wire!(AccountQuery: "ACCOUNT_QUERY" {
    account: AccountId, "the account's number; 0: look for the name";
    name: String, "the account's name, if the number is 0";
});

/// The body of ACCOUNT_LIST.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountList {
    /// Those with higher numbers only.
    pub after: AccountId,
    /// How many at most.
    pub count: u32,
}

wire!(AccountList: "ACCOUNT_LIST" {
    after: AccountId, "only accounts with higher numbers; 0: from the first";
    count: u32, "how many at most; never more than 500. PARTIAL says that there are more";
});

/// The body of ACCOUNT_STATEMENT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountStatement {
    /// The account.
    pub account: AccountId,
    /// Where the statement before said that it goes on; `None` is the newest.
    pub from: Option<Lsn>,
    /// How many entries at most.
    pub count: u32,
}

wire!(AccountStatement: "ACCOUNT_STATEMENT" {
    account: AccountId, "the account";
    from: Option<Lsn>, "where the page before said that it goes on; 0: the newest entry";
    count: u32, "how many entries at most: 1 to 100";
});

wire!(AccountSpec: "ACCOUNT_SPEC" {
    credit_limit: Money, "how far below zero it may go, in minor units; 0 to 2^62";
    owner: PrincipalId, "the seller that may pay from it; 0: any seller of the tenant";
    kind: AccountKind, "1 customer, 2 agent, 3 income, 4 external: without bound. Never changes";
    currency: [u8; 3], "ISO 4217, upper case. Never changes";
    name: String, "1 to 64 bytes, unique in the tenant";
});

wire!(AccountPut: "ACCOUNT_PUT" {
    new: bool, "1: there must be none of this name yet; 0: there must be one, which is changed";
    spec: AccountSpec, "what it is to be";
});

wire!(Leg: "LEG" {
    account: AccountId, "the account";
    amount: Money, "minor units: positive comes in, negative goes out; not 0";
});

wire!(Posting: "POST" {
    document: DocumentId, "the document it rests on, chosen by finance, never 0; the target of the request id";
    legs: Vec<Leg>, "what moves: 1 to 64 legs, which sum to zero in each currency";
    note: String, "for people, at most 200 bytes";
});

wire!(LimitSpec: "LIMIT_SPEC" {
    scope: LimitScope, "who is counted. Never changes, as the next two";
    product: Option<ProductId>, "only this product's cards; 0xffffffff: all";
    window: LimitWindow, "in which time";
    max: u64, "how many cards, redemptions or orders";
    action: LimitAction, "1: what goes over it is refused; 2: it is done and recorded, once in the window";
    ended: bool, "1: the limit is taken away for good, its name is free again";
    name: String, "1 to 64 bytes, unique in the tenant";
});

impl Wire<'_> for LimitScope {
    const TYPE: &'static str = "LIMIT_SCOPE";
    const FIELDS: &'static [Field] = &[
        field(
            "kind",
            "u8",
            "1 each account or one, 2 each address, 3 each till, 4 each principal that redeems, 5 each order",
        ),
        field("account", "u32", "of kind 1: the account; 0: each. Of others 0"),
    ];

    fn put(&self, out: &mut BytesMut) {
        let (kind, account) = match self {
            LimitScope::Account(account) => (1_u8, account.map_or(0, |account| account.0)),
            LimitScope::Ip => (2, 0),
            LimitScope::Terminal => (3, 0),
            LimitScope::Principal => (4, 0),
            LimitScope::Order => (5, 0),
        };
        kind.put(out);
        account.put(out);
    }

    fn take(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        match (u8::take(reader)?, u32::take(reader)?) {
            (1, 0) => Ok(LimitScope::Account(None)),
            (1, account) => Ok(LimitScope::Account(Some(AccountId(account)))),
            (2, 0) => Ok(LimitScope::Ip),
            (3, 0) => Ok(LimitScope::Terminal),
            (4, 0) => Ok(LimitScope::Principal),
            (5, 0) => Ok(LimitScope::Order),
            _ => Err(reader.malformed()),
        }
    }
}

impl Wire<'_> for LimitWindow {
    const TYPE: &'static str = "LIMIT_WINDOW";
    const FIELDS: &'static [Field] = &[
        field(
            "kind",
            "u8",
            "1 a calendar day, 2 the last seconds, 3 for good, 4 cards reserved now, 5 orders reserved now",
        ),
        field(
            "length",
            "i32",
            "of kind 1: minutes east of Greenwich, -840 to 840; of 2: seconds, 1 to 86,400. Of others 0",
        ),
    ];

    fn put(&self, out: &mut BytesMut) {
        let (kind, length) = match self {
            LimitWindow::Day { offset_min } => (1_u8, i32::from(*offset_min)),
            LimitWindow::Rolling { seconds } => (2, seconds.cast_signed()),
            LimitWindow::Life => (3, 0),
            LimitWindow::OpenCards => (4, 0),
            LimitWindow::OpenOrders => (5, 0),
        };
        kind.put(out);
        length.put(out);
    }

    fn take(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (kind, length) = (u8::take(reader)?, i32::take(reader)?);
        let malformed = reader.malformed();
        match (kind, length) {
            (1, minutes) => {
                let offset_min = i16::try_from(minutes).map_err(|_| malformed)?;
                Ok(LimitWindow::Day { offset_min })
            }
            (2, seconds) => {
                let seconds = u32::try_from(seconds).map_err(|_| malformed)?;
                Ok(LimitWindow::Rolling { seconds })
            }
            (3, 0) => Ok(LimitWindow::Life),
            (4, 0) => Ok(LimitWindow::OpenCards),
            (5, 0) => Ok(LimitWindow::OpenOrders),
            _ => Err(malformed),
        }
    }
}

wire!(Account: "ACCOUNT" {
    id: AccountId, "its number";
    tenant: TenantId, "its tenant";
    frozen: bool, "1: nothing is paid from it; money that comes in is taken";
    balance: Money, "what is on it, in minor units";
    held: Money, "what orders that are not paid yet have set aside of it";
    spec: AccountSpec, "what it was added or last changed with";
});

wire!(StatementLine: "STATEMENT_LINE" {
    lsn: Lsn, "where it stands in the log";
    time_ms: u64, "when, ms since 1970";
    related: u128, "the document of a POST, else the order";
    amount: Money, "what came in, or went out if negative, in minor units";
    balance: Money, "the balance after it";
    principal: PrincipalId, "who did it; 0: the engine, or the process that embeds it";
    channel: ChannelId, "through which channel";
    kind: Kind, "what happened, see the table of events";
});

wire!(PostedLeg: "POSTED_LEG" {
    leg: Leg, "what moved";
    balance: Money, "the account's balance after the whole posting";
    prev: Option<Lsn>, "the account's entry before; 0: none";
});

wire!(Limit: "LIMIT" {
    id: LimitId, "its number";
    tenant: TenantId, "its tenant";
    spec: LimitSpec, "what it was set to";
});

wire!(Exceeded: "EXCEEDED" {
    limit: LimitId, "the limit that stands against it; of several, the one that opens last; 0: the cap on open reservations that stands where no limit is set";
    status: Status, "as in the head";
    left: u64, "how many units are left now";
    opens_ms: u64, "in how many milliseconds what was asked for would fit; the highest u64: never";
});

/// What happened to the money of an account, newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// Where it goes on; `None` if this was all.
    pub next: Option<Lsn>,
    /// The account as it stands now.
    pub account: Account,
    /// Its entries, newest first.
    pub lines: Vec<StatementLine>,
}

wire!(Statement: "STATEMENT" {
    next: Option<Lsn>, "where the next page begins; 0: this was all";
    account: Account, "the account as it stands now";
    lines: Vec<StatementLine>, "its entries, newest first";
});

/// The layouts of requests.
pub(super) fn request_layouts() -> Vec<(&'static str, &'static [Field])> {
    vec![
        of::<AccountPut>(),
        of::<AccountSpec>(),
        of::<OneAccount>(),
        of::<AccountQuery>(),
        of::<AccountList>(),
        of::<AccountStatement>(),
        of::<Posting>(),
        of::<Leg>(),
        of::<LimitSpec>(),
        of::<LimitScope>(),
        of::<LimitWindow>(),
    ]
}

fn of<T: Wire<'static>>() -> (&'static str, &'static [Field]) {
    (T::TYPE, T::FIELDS)
}
