//! What the tests ask of the engine, in plain values: codes and PINs as text, objects by number.
//!
//! The oracle decides on these; only [`Ask::request`] turns one into what the engine takes, so that
//! the oracle never sees a digest.

use std::time::{Duration, Instant};

use kami_engine::{
    AccountId, AccountPut, AccountSpec, Advice, BatchId, Caller, ChannelId, Command, Confirmation,
    DocumentId, DualControl, Engine, ExceptionNote, GivenBack, Grounds, Leg, LimitSpec, Lsn, MerchantId,
    OrderId, OrderQuery, Posting, PrincipalId, PrincipalSpec, ProductId, ProductSpec, ProposalId, Purchase,
    Renewal, Replace, Request, RequestId, Role, TenantId, TenantSpec, TerminalId, Transfer,
};

/// One request.
#[derive(Clone, Debug)]
pub struct Ask {
    pub id: u128,
    pub caller: Caller,
    pub terminal: u32,
    pub channel: u16,
    pub deadline: Deadline,
    /// Why, where that may be said.
    pub why: Option<String>,
    /// Under which proposal.
    pub approval: Option<u128>,
    /// Who approved that; of what was executed, never of what is asked.
    pub approver: Option<u32>,
    pub what: What,
}

/// By when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deadline {
    None,
    Passed,
    Ahead,
}

/// How a batch is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchChange {
    Activate,
    Deactivate,
    Freeze,
    Unfreeze,
    Void,
    Extend(u64),
    Rows { from: u64, rows: u64, active: bool },
}

/// What changes when a card may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LifeChange {
    Activate,
    Deactivate,
    Extend(u64),
    Expire,
    Restock(u128),
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    Redeem {
        code: String,
        pin: Option<String>,
        amount: i64,
        partial: bool,
    },
    Reverse {
        code: String,
        original: u128,
    },
    Query {
        code: String,
    },
    History {
        code: String,
    },
    Freeze {
        code: String,
    },
    Unfreeze {
        code: String,
    },
    Void {
        code: String,
    },
    Life {
        code: String,
        change: LifeChange,
    },
    Replace {
        code: String,
        with: Option<String>,
    },
    Transfer {
        from: String,
        to: String,
        amount: i64,
    },
    Hold {
        code: String,
        pin: Option<String>,
        amount: i64,
        partial: bool,
        seconds: u32,
    },
    Capture {
        code: String,
        hold: u128,
        amount: i64,
    },
    Release {
        code: String,
        hold: u128,
    },
    /// What the engine asks of itself.
    HoldTimeout,
    Load {
        code: String,
        amount: i64,
    },
    Refund {
        code: String,
        original: u128,
        amount: i64,
    },
    Settle {
        code: String,
    },
    PinUnlock {
        code: String,
    },
    Advice {
        code: String,
        pin: Option<String>,
        amount: i64,
        made_ms: u64,
    },
    OrderList(OrderQuery),
    ExceptionList {
        after: u64,
        count: u32,
        all: bool,
    },
    ExceptionResolve(ExceptionNote),
    OutcomeOf {
        code: String,
        asked: u128,
    },
    OutcomeOfOrder {
        order: u128,
        asked: u128,
    },
    OutcomeOfDocument {
        document: u128,
        asked: u128,
    },
    Sell {
        order: u128,
        product: u32,
        count: u32,
        validity_s_min: u32,
    },
    SellLines(Purchase),
    Reserve(Purchase),
    Confirm {
        order: u128,
        legs: Vec<Leg>,
        realloc: bool,
        sealed: bool,
    },
    Cancel(u128),
    Return {
        order: u128,
        codes: Vec<String>,
        legs: Vec<Leg>,
    },
    OrderStatus(u128),
    /// Asked by the engine itself, never by the tests.
    ReserveTimeout(u128),
    Fetch {
        order: u128,
        from: u32,
        count: u32,
    },
    Batch {
        batch: u32,
        change: BatchChange,
    },
    BatchList {
        product: Option<u32>,
    },
    ProductPut {
        spec: ProductSpec,
        adds: bool,
    },
    ProductFreeze {
        product: u32,
        frozen: bool,
    },
    ProductList,
    Stock {
        product: Option<u32>,
    },
    PrincipalAdd(PrincipalSpec),
    PrincipalRevoke(u32),
    PrincipalRenew(Renewal),
    PrincipalList,
    AccountPut {
        spec: AccountSpec,
        new: bool,
    },
    AccountFreeze {
        account: u32,
        frozen: bool,
    },
    AccountQuery(u32),
    AccountList,
    Statement {
        account: u32,
        from: Option<u64>,
        count: u32,
    },
    Post(Posting),
    LimitPut(LimitSpec),
    /// By name.
    TenantPut(String),
    TenantFreeze {
        tenant: u16,
        frozen: bool,
    },
    TenantList,
    TenantControl {
        tenant: u16,
        control: DualControl,
    },
    Export {
        batch: u32,
        count: u32,
    },
    Propose(Box<What>),
    Approve(u128),
    Withdraw(u128),
    ProposalList {
        after: u64,
        count: u32,
        all: bool,
    },
    LimitList,
    Stats,
}

impl What {
    /// The order it is about, if it is about one.
    pub const fn order(&self) -> Option<u128> {
        match self {
            What::Sell { order, .. }
            | What::Fetch { order, .. }
            | What::OutcomeOfOrder { order, .. }
            | What::Confirm { order, .. }
            | What::Return { order, .. }
            | What::Cancel(order)
            | What::OrderStatus(order)
            | What::ReserveTimeout(order) => Some(*order),
            What::SellLines(purchase) | What::Reserve(purchase) => Some(purchase.order.0),
            _ => None,
        }
    }

    /// Whether it is about accounts, postings or limits.
    pub const fn is_money(&self) -> bool {
        matches!(
            self,
            What::AccountPut { .. }
                | What::AccountFreeze { .. }
                | What::AccountQuery(_)
                | What::AccountList
                | What::Statement { .. }
                | What::Post(_)
                | What::LimitPut(_)
                | What::LimitList
        )
    }

    /// Whether it may say why.
    pub const fn takes_why(&self) -> bool {
        matches!(
            self,
            What::Freeze { .. }
                | What::Unfreeze { .. }
                | What::Void { .. }
                | What::Life { .. }
                | What::Replace { .. }
                | What::Transfer { .. }
                | What::PinUnlock { .. }
                | What::Refund { .. }
                | What::Settle { .. }
                | What::ExceptionResolve(_)
                | What::Cancel(_)
                | What::Return { .. }
                | What::Fetch { .. }
                | What::Batch { .. }
                | What::ProductPut { .. }
                | What::ProductFreeze { .. }
                | What::PrincipalAdd(_)
                | What::PrincipalRevoke(_)
                | What::PrincipalRenew(_)
                | What::AccountPut { .. }
                | What::AccountFreeze { .. }
                | What::TenantPut(_)
                | What::TenantFreeze { .. }
                | What::TenantControl { .. }
                | What::Export { .. }
                | What::Propose(_)
                | What::Approve(_)
                | What::Withdraw(_)
                | What::LimitPut(_)
        )
    }

    /// The command's name.
    pub const fn name(&self) -> &'static str {
        match self {
            What::Redeem { .. } => "redeem",
            What::Reverse { .. } => "reverse",
            What::Query { .. } => "query",
            What::History { .. } => "history",
            What::Freeze { .. } => "freeze",
            What::Unfreeze { .. } => "unfreeze",
            What::Void { .. } => "void",
            What::Life { change: LifeChange::Activate, .. } => "activate",
            What::Life { change: LifeChange::Deactivate, .. } => "deactivate",
            What::Life { change: LifeChange::Extend(_), .. } => "extend",
            What::Life { change: LifeChange::Expire, .. } => "expire",
            What::Life { change: LifeChange::Restock(_), .. } => "restock",
            What::Replace { with: None, .. } => "replace by any",
            What::Replace { .. } => "replace",
            What::Transfer { .. } => "transfer",
            What::Hold { .. } => "hold",
            What::Capture { .. } => "capture",
            What::Release { .. } => "release",
            What::HoldTimeout => "hold timeout",
            What::Load { .. } => "load",
            What::Refund { .. } => "refund",
            What::Settle { .. } => "settle",
            What::PinUnlock { .. } => "pin unlock",
            What::Advice { .. } => "advice",
            What::OrderList(_) => "order list",
            What::ExceptionList { .. } => "exception list",
            What::ExceptionResolve(_) => "exception resolve",
            What::OutcomeOf { .. } => "outcome of card",
            What::OutcomeOfOrder { .. } => "outcome of order",
            What::OutcomeOfDocument { .. } => "outcome of document",
            What::Sell { .. } => "sell",
            What::SellLines(_) => "sell lines",
            What::Reserve(_) => "reserve",
            What::Confirm { .. } => "confirm",
            What::Cancel(_) => "cancel",
            What::Return { .. } => "return",
            What::OrderStatus(_) => "order status",
            What::ReserveTimeout(_) => "reserve timeout",
            What::Fetch { .. } => "fetch",
            What::Batch { .. } => "batch",
            What::BatchList { .. } => "batch list",
            What::ProductPut { .. } => "product put",
            What::ProductFreeze { .. } => "product freeze",
            What::ProductList => "product list",
            What::Stock { .. } => "stock",
            What::PrincipalAdd(_) => "principal add",
            What::PrincipalRevoke(_) => "principal revoke",
            What::PrincipalRenew(_) => "principal renew",
            What::PrincipalList => "principal list",
            What::AccountPut { .. } => "account put",
            What::AccountFreeze { .. } => "account freeze",
            What::AccountQuery(_) => "account query",
            What::AccountList => "account list",
            What::Statement { .. } => "account statement",
            What::Post(_) => "post",
            What::TenantPut(_) => "tenant put",
            What::TenantFreeze { .. } => "tenant freeze",
            What::TenantList => "tenant list",
            What::TenantControl { .. } => "tenant control",
            What::Export { .. } => "export",
            What::Propose(what) => match **what {
                What::Void { .. } => "propose void",
                What::Refund { .. } => "propose refund",
                What::Fetch { .. } => "propose fetch",
                What::Export { .. } => "propose export",
                What::TenantControl { .. } => "propose tenant control",
                _ => "propose",
            },
            What::Approve(_) => "approve",
            What::Withdraw(_) => "withdraw",
            What::ProposalList { .. } => "proposal list",
            What::LimitPut(_) => "limit put",
            What::LimitList => "limit list",
            What::Stats => "stats",
        }
    }
}

/// A caller of tenant 0 or 1.
pub const fn caller(principal: u32, role: Role, merchant: u32, tenant: u16) -> Caller {
    Caller {
        tenant: TenantId(tenant),
        principal: PrincipalId(principal),
        role,
        merchant: MerchantId(merchant),
    }
}

/// What people and copy-and-paste do to a code. It is the same card.
pub fn untidy(code: &str) -> String {
    let (head, tail) = code.split_at(2);
    format!(" {head}\u{200b}{tail}\r\n")
}

impl Ask {
    pub fn new(id: u128, caller: Caller, what: What) -> Ask {
        let (deadline, why) = (Deadline::None, None);
        Ask { id, caller, terminal: 0, channel: 0, deadline, why, approval: None, approver: None, what }
    }

    /// As the engine takes it and tells it.
    pub fn grounds(&self) -> Option<Box<Grounds>> {
        (self.why.is_some() || self.approval.is_some()).then(|| {
            Box::new(Grounds {
                why: self.why.clone().unwrap_or_default(),
                approval: self.approval.map(ProposalId),
                approver: self.approver.map(PrincipalId),
            })
        })
    }

    /// The code it names, if it is about a card.
    pub fn code(&self) -> Option<&str> {
        match &self.what {
            What::Redeem { code, .. }
            | What::Reverse { code, .. }
            | What::Query { code }
            | What::History { code }
            | What::Freeze { code }
            | What::Unfreeze { code }
            | What::Void { code }
            | What::Life { code, .. }
            | What::Hold { code, .. }
            | What::Capture { code, .. }
            | What::Release { code, .. }
            | What::Load { code, .. }
            | What::Refund { code, .. }
            | What::PinUnlock { code }
            | What::Advice { code, .. }
            | What::OutcomeOf { code, .. }
            | What::Settle { code } => Some(code),
            _ => None,
        }
    }

    /// As the engine takes it; `messy` writes the code as a customer would.
    pub fn request(&self, engine: &Engine, messy: bool) -> Request {
        let card = |code: &str| {
            let typed = if messy { untidy(code) } else { code.to_owned() };
            engine.digest(self.caller.tenant, typed.as_bytes()).expect("the tests' codes are codes")
        };
        let deadline = match self.deadline {
            Deadline::None => None,
            Deadline::Passed => Some(Instant::now()),
            Deadline::Ahead => Some(Instant::now() + Duration::from_secs(3600)),
        };
        let command = match &self.what {
            What::Redeem { code, pin, amount, partial } => {
                let card = card(code);
                let pin = pin.as_ref().map(|pin| engine.pin_digest(card, pin.as_bytes()));
                Command::Redeem { card, pin, amount: *amount, partial: *partial }
            }
            What::Reverse { code, original } => {
                Command::Reverse { card: card(code), original: RequestId(*original) }
            }
            What::Query { code } => Command::Query { card: card(code) },
            What::History { code } => Command::History { card: card(code) },
            What::Freeze { code } => Command::Freeze { card: card(code) },
            What::Unfreeze { code } => Command::Unfreeze { card: card(code) },
            What::Void { code } => Command::Void { card: card(code) },
            What::Life { code, change } => {
                let card = card(code);
                match *change {
                    LifeChange::Activate => Command::Activate { card },
                    LifeChange::Deactivate => Command::Deactivate { card },
                    LifeChange::Extend(expires_ms) => Command::Extend { card, expires_ms },
                    LifeChange::Expire => Command::Expire { card },
                    LifeChange::Restock(reference) => {
                        Command::Restock { card, reference: DocumentId(reference) }
                    }
                }
            }
            What::Replace { code, with } => {
                let with = with.as_deref().map(card);
                Command::Replace(Box::new(Replace { card: card(code), with }))
            }
            What::Transfer { from, to, amount } => {
                Command::Transfer(Box::new(Transfer { from: card(from), to: card(to), amount: *amount }))
            }
            What::Hold { code, pin, amount, partial, seconds } => {
                let card = card(code);
                let pin = pin.as_ref().map(|pin| engine.pin_digest(card, pin.as_bytes()));
                Command::Hold { card, pin, amount: *amount, partial: *partial, seconds: *seconds }
            }
            What::Capture { code, hold, amount } => {
                Command::Capture { card: card(code), hold: RequestId(*hold), amount: *amount }
            }
            What::Release { code, hold } => Command::Release { card: card(code), hold: RequestId(*hold) },
            What::HoldTimeout => unreachable!("only the engine asks this"),
            What::Load { code, amount } => Command::Load { card: card(code), amount: *amount },
            What::Refund { code, original, amount } => {
                let original = RequestId(*original);
                Command::RefundValue { card: card(code), original, amount: *amount }
            }
            What::Settle { code } => Command::Settle { card: card(code) },
            What::PinUnlock { code } => Command::PinUnlock { card: card(code) },
            What::Advice { code, pin, amount, made_ms } => {
                let card = card(code);
                let pin = pin.as_ref().map(|pin| engine.pin_digest(card, pin.as_bytes()));
                Command::Advice(Box::new(Advice { card, pin, amount: *amount, made_ms: *made_ms }))
            }
            &What::OrderList(query) => Command::OrderList(Box::new(query)),
            &What::ExceptionList { after, count, all } => Command::ExceptionList { after, count, all },
            What::ExceptionResolve(given) => Command::ExceptionResolve(Box::new(given.clone())),
            What::OutcomeOf { code, asked } => {
                Command::OutcomeOf { card: card(code), request: RequestId(*asked) }
            }
            &What::OutcomeOfOrder { order, asked } => {
                Command::OutcomeOfOrder { order: OrderId(order), request: RequestId(asked) }
            }
            &What::OutcomeOfDocument { document, asked } => {
                Command::OutcomeOfDocument { document: DocumentId(document), request: RequestId(asked) }
            }
            &What::Sell { order, product, count, validity_s_min } => {
                Command::Sell { order: OrderId(order), product: ProductId(product), count, validity_s_min }
            }
            What::SellLines(purchase) => Command::SellLines(Box::new(purchase.clone())),
            What::Reserve(purchase) => Command::Reserve(Box::new(purchase.clone())),
            What::Confirm { order, legs, realloc, sealed } => Command::Confirm(Box::new(Confirmation {
                order: OrderId(*order),
                legs: legs.clone(),
                realloc: *realloc,
                sealed: *sealed,
            })),
            &What::Cancel(order) => Command::Cancel(OrderId(order)),
            What::Return { order, codes, legs } => Command::Return(Box::new(GivenBack {
                order: OrderId(*order),
                cards: codes.iter().map(|code| card(code)).collect(),
                legs: legs.clone(),
            })),
            &What::OrderStatus(order) => Command::OrderStatus(OrderId(order)),
            &What::ReserveTimeout(order) => Command::ReserveTimeout(OrderId(order)),
            &What::Fetch { order, from, count } => Command::OrderFetch { order: OrderId(order), from, count },
            &What::Batch { batch, change } => {
                let batch = BatchId(batch);
                match change {
                    BatchChange::Activate => Command::BatchActivate(batch),
                    BatchChange::Deactivate => Command::BatchDeactivate(batch),
                    BatchChange::Freeze => Command::BatchFreeze(batch),
                    BatchChange::Unfreeze => Command::BatchUnfreeze(batch),
                    BatchChange::Void => Command::BatchVoid(batch),
                    BatchChange::Extend(expires_ms) => Command::BatchExtend { batch, expires_ms },
                    BatchChange::Rows { from, rows, active } => {
                        Command::BatchRows { batch, from, rows, active }
                    }
                }
            }
            What::BatchList { product } => Command::BatchList { product: product.map(ProductId) },
            What::ProductPut { spec, adds: true } => Command::ProductAdd(Box::new(spec.clone())),
            What::ProductPut { spec, adds: false } => Command::ProductSet(Box::new(spec.clone())),
            &What::ProductFreeze { product, frozen: true } => Command::ProductFreeze(ProductId(product)),
            &What::ProductFreeze { product, frozen: false } => Command::ProductUnfreeze(ProductId(product)),
            What::ProductList => Command::ProductList,
            What::Stock { product } => Command::Stock { product: product.map(ProductId) },
            What::PrincipalAdd(spec) => Command::PrincipalAdd(Box::new(spec.clone())),
            What::PrincipalRevoke(id) => Command::PrincipalRevoke(PrincipalId(*id)),
            What::PrincipalRenew(renewal) => Command::PrincipalRenew(Box::new(*renewal)),
            What::PrincipalList => Command::PrincipalList,
            What::AccountPut { spec, new } => {
                Command::AccountPut(Box::new(AccountPut { spec: spec.clone(), new: *new }))
            }
            &What::AccountFreeze { account, frozen: true } => Command::AccountFreeze(AccountId(account)),
            &What::AccountFreeze { account, frozen: false } => Command::AccountUnfreeze(AccountId(account)),
            // By number here; by name where the number is 0.
            &What::AccountQuery(account) => {
                Command::AccountQuery { account: AccountId(account), name: "nobody".to_owned() }
            }
            What::AccountList => Command::AccountList { after: AccountId(0), count: u32::MAX },
            &What::Statement { account, from, count } => Command::AccountStatement {
                account: AccountId(account),
                from: from.and_then(Lsn::from_bytes),
                count,
            },
            What::Post(posting) => Command::Post(Box::new(posting.clone())),
            What::TenantPut(name) => Command::TenantPut(Box::new(TenantSpec { name: name.clone() })),
            &What::TenantFreeze { tenant, frozen: true } => Command::TenantFreeze(TenantId(tenant)),
            &What::TenantFreeze { tenant, frozen: false } => Command::TenantUnfreeze(TenantId(tenant)),
            What::TenantList => Command::TenantList,
            &What::TenantControl { tenant, control } => {
                Command::TenantControl { tenant: TenantId(tenant), control }
            }
            &What::Export { batch, count } => Command::Export { batch: BatchId(batch), count },
            What::Propose(what) => {
                let ask = Ask { what: What::clone(what), ..self.clone() };
                Command::Propose(Box::new(ask.request(engine, messy).command))
            }
            &What::Approve(id) => Command::Approve(ProposalId(id)),
            &What::Withdraw(id) => Command::ProposalWithdraw(ProposalId(id)),
            &What::ProposalList { after, count, all } => Command::ProposalList { after, count, all },
            What::LimitPut(spec) => Command::LimitPut(Box::new(spec.clone())),
            What::LimitList => Command::LimitList,
            What::Stats => Command::Stats,
        };
        Request {
            id: RequestId(self.id),
            caller: self.caller,
            terminal: TerminalId(self.terminal),
            channel: ChannelId(self.channel),
            deadline,
            grounds: self.grounds(),
            command,
        }
    }
}
