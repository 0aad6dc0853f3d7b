//! What the engine is asked for each request.

use kami_engine::{Advice, Command, DocumentId, GivenBack, OrderId, Replace, Status, Transfer};

use super::{Blocking, Desk, Refusal};
use crate::frame::request::{Items, OutcomeQuery};
use crate::frame::{FeedOpen, Request, Secret};

/// What a request comes to.
pub(super) enum Translated<'a> {
    Command(Command),
    Ping,
    Hello,
    Items(Items<'a>),
    Feed(FeedOpen),
    Blocking(Blocking),
    Chunk,
}

/// A sale of more cards is answered at length.
const FEW_CARDS: u32 = 256;

/// Whether the reply may be long: a list, or the codes of many cards. How many a CONFIRM brings is not known here; like all
/// codes they wait as a list of cards, and are decrypted when their reader takes what is before them.
pub(super) fn is_answered_at_length(command: &Command) -> bool {
    match command {
        Command::Sell { count, .. } => *count > FEW_CARDS,
        Command::SellLines(purchase) => {
            purchase.lines.iter().map(|line| u64::from(line.count)).sum::<u64>() > FEW_CARDS.into()
        }
        Command::OrderFetch { count, .. } => *count > FEW_CARDS,
        Command::History { .. }
        | Command::OrderList(_)
        | Command::BatchList { .. }
        | Command::ProductList
        | Command::Stock { .. }
        | Command::PrincipalList
        | Command::TenantList
        | Command::AccountList { .. }
        | Command::AccountStatement { .. }
        | Command::LimitList
        | Command::ExceptionList { .. }
        | Command::ProposalList { .. } => true,
        _ => false,
    }
}

impl Desk {
    /// What the engine is to be asked. A code that cannot be one is answered like one nobody has.
    #[inline]
    pub(super) fn command<'a>(
        &mut self,
        request: Request<'a>,
        partial: bool,
    ) -> Result<Translated<'a>, Refusal> {
        let command = match request {
            Request::Redeem(body) => self.redeem(body.code, body.pin, body.amount, partial)?,
            Request::Reverse(body) => {
                let card = self.card(body.code, Status::CardNotValid)?;
                Command::Reverse { card, original: body.original }
            }
            Request::Hold(body) => {
                let (card, pin) = self.card_and_pin(body.code, body.pin)?;
                Command::Hold { card, pin, amount: body.amount, partial, seconds: body.seconds }
            }
            Request::Capture(body) => {
                let card = self.card(body.code, Status::CardNotValid)?;
                Command::Capture { card, hold: body.hold, amount: body.amount }
            }
            Request::Release(body) => {
                Command::Release { card: self.card(body.code, Status::CardNotValid)?, hold: body.hold }
            }
            Request::Load(body) => Command::Load { card: self.known(body.code)?, amount: body.amount },
            Request::RefundValue(body) => {
                let card = self.known(body.code)?;
                Command::RefundValue { card, original: body.original, amount: body.amount }
            }
            Request::Settle(body) => Command::Settle { card: self.known(body.code)? },
            Request::PinUnlock(body) => Command::PinUnlock { card: self.known(body.code)? },
            Request::OutcomeQuery(body) => self.outcome(&body)?,
            Request::Advice(body) => {
                let (card, pin) = self.card_and_pin(body.code, body.pin)?;
                let (amount, made_ms) = (body.amount, body.made_ms);
                Command::Advice(Box::new(Advice { card, pin, amount, made_ms }))
            }
            Request::ExceptionList(body) => {
                Command::ExceptionList { after: body.after, count: body.count, all: body.all }
            }
            Request::ExceptionResolve(given) => Command::ExceptionResolve(given),
            Request::Query(body) => Command::Query { card: self.known(body.code)? },
            Request::History(body) => Command::History { card: self.known(body.code)? },
            Request::Freeze(body) => Command::Freeze { card: self.known(body.code)? },
            Request::Unfreeze(body) => Command::Unfreeze { card: self.known(body.code)? },
            Request::Void(body) => Command::Void { card: self.known(body.code)? },
            Request::Activate(body) => Command::Activate { card: self.known(body.code)? },
            Request::Deactivate(body) => Command::Deactivate { card: self.known(body.code)? },
            Request::Extend(body) => {
                Command::Extend { card: self.known(body.code)?, expires_ms: body.expires_ms }
            }
            Request::Expire(body) => Command::Expire { card: self.known(body.code)? },
            Request::Restock(body) => {
                Command::Restock { card: self.known(body.code)?, reference: body.reference }
            }
            Request::Replace(body) => {
                let card = self.known(body.code)?;
                let with = body.with.map(|with| self.other(with)).transpose()?;
                Command::Replace(Box::new(Replace { card, with }))
            }
            Request::Transfer(body) => {
                let (from, amount) = (self.known(body.code)?, body.amount);
                Command::Transfer(Box::new(Transfer { from, to: self.other(body.to)?, amount }))
            }
            Request::Sell(body) => Command::Sell {
                order: body.order,
                product: body.product,
                count: body.count,
                validity_s_min: body.validity_s_min,
            },
            Request::OrderFetch(body) => {
                Command::OrderFetch { order: body.order, from: body.from, count: body.count }
            }
            Request::BatchActivate(body) => Command::BatchActivate(body.batch),
            Request::BatchDeactivate(body) => Command::BatchDeactivate(body.batch),
            Request::BatchFreeze(body) => Command::BatchFreeze(body.batch),
            Request::BatchUnfreeze(body) => Command::BatchUnfreeze(body.batch),
            Request::BatchVoid(body) => Command::BatchVoid(body.batch),
            Request::BatchExtend(body) => {
                Command::BatchExtend { batch: body.batch, expires_ms: body.expires_ms }
            }
            Request::BatchActivateRows(body) => {
                Command::BatchRows { batch: body.batch, from: body.from, rows: body.rows, active: true }
            }
            Request::BatchDeactivateRows(body) => {
                Command::BatchRows { batch: body.batch, from: body.from, rows: body.rows, active: false }
            }
            Request::BatchList(body) => Command::BatchList { product: body.product },
            Request::ProductAdd(spec) => Command::ProductAdd(spec),
            Request::ProductSet(spec) => Command::ProductSet(spec),
            Request::ProductFreeze(body) => Command::ProductFreeze(body.product),
            Request::ProductUnfreeze(body) => Command::ProductUnfreeze(body.product),
            Request::ProductList => Command::ProductList,
            Request::Stock(body) => Command::Stock { product: body.product },
            Request::PrincipalAdd(spec) => Command::PrincipalAdd(spec),
            Request::PrincipalRevoke(body) => Command::PrincipalRevoke(body.principal),
            Request::PrincipalRenew(renewal) => Command::PrincipalRenew(renewal),
            Request::PrincipalList => Command::PrincipalList,
            Request::SellLines(purchase) => Command::SellLines(purchase),
            Request::Reserve(purchase) => Command::Reserve(purchase),
            Request::Confirm(confirmation) => Command::Confirm(confirmation),
            Request::Cancel(body) => Command::Cancel(body.order),
            Request::OrderStatus(body) => Command::OrderStatus(body.order),
            Request::Return(body) => {
                let tenant = self.peer.caller.tenant;
                let digest = |code: &Secret<'_>| self.shared.engine.digest(tenant, code.0);
                let cards = body.codes.iter().map(digest).collect::<Result<_, _>>();
                let cards = cards.map_err(|_| Refusal::Status(Status::NotFound))?;
                Command::Return(Box::new(GivenBack { order: body.order, cards, legs: body.legs }))
            }
            Request::AccountPut(put) => Command::AccountPut(put),
            Request::AccountFreeze(body) => Command::AccountFreeze(body.account),
            Request::AccountUnfreeze(body) => Command::AccountUnfreeze(body.account),
            Request::Post(posting) => Command::Post(posting),
            Request::AccountQuery(body) => Command::AccountQuery { account: body.account, name: body.name },
            Request::AccountList(body) => Command::AccountList { after: body.after, count: body.count },
            Request::TenantPut(spec) => Command::TenantPut(spec),
            Request::TenantFreeze(body) => Command::TenantFreeze(body.tenant),
            Request::TenantUnfreeze(body) => Command::TenantUnfreeze(body.tenant),
            Request::TenantList => Command::TenantList,
            Request::TenantControl(body) => {
                Command::TenantControl { tenant: body.tenant, control: body.control }
            }
            Request::Export(body) => Command::Export { batch: body.batch, count: body.count },
            Request::Propose(asked) => match self.command(asked.request, false)? {
                Translated::Command(command) => Command::Propose(Box::new(command)),
                _ => return Err(Refusal::Status(Status::Unsupported)),
            },
            Request::Approve(body) => Command::Approve(body.proposal),
            Request::ProposalWithdraw(body) => Command::ProposalWithdraw(body.proposal),
            Request::ProposalList(body) => {
                Command::ProposalList { after: body.after, count: body.count, all: body.all }
            }
            Request::LimitPut(spec) => Command::LimitPut(spec),
            Request::LimitList => Command::LimitList,
            Request::AccountStatement(body) => {
                Command::AccountStatement { account: body.account, from: body.from, count: body.count }
            }
            Request::OrderList(query) => Command::OrderList(query),
            Request::Stats => Command::Stats,
            Request::RedeemBatch(items) => return Ok(Translated::Items(items)),
            Request::ImportBegin(spec) => return Ok(Translated::Blocking(Blocking::Begin(spec))),
            Request::ImportChunk(_) => return Ok(Translated::Chunk),
            Request::ImportStatus(body) => return Ok(Translated::Blocking(Blocking::Status(body.import))),
            Request::ImportCommit(body) => {
                return Ok(Translated::Blocking(Blocking::Commit(body.import, None)));
            }
            Request::ImportAbort(body) => return Ok(Translated::Blocking(Blocking::Abort(body.import))),
            Request::ImportDuplicates(body) => {
                return Ok(Translated::Blocking(Blocking::Duplicates(body.import, body.from)));
            }
            Request::Checkpoint => return Ok(Translated::Blocking(Blocking::Checkpoint)),
            Request::KeyRotate => return Ok(Translated::Blocking(Blocking::KeyRotate(None))),
            Request::Reconcile(query) => return Ok(Translated::Blocking(Blocking::Totals(query))),
            Request::FeedOpen(open) => return Ok(Translated::Feed(open)),
            // This stream is no feed.
            Request::FeedAck(_) => return Err(Refusal::Status(Status::IllegalTransition)),
            Request::SignedCheckpoint => return Ok(Translated::Blocking(Blocking::SignedCheckpoint)),
            Request::Proof(body) => {
                let proof =
                    Blocking::Proof { card: self.known(body.code)?, size: body.size, from: body.from };
                return Ok(Translated::Blocking(proof));
            }
            Request::Consistency(body) => {
                return Ok(Translated::Blocking(Blocking::Consistency { old: body.old, new: body.new }));
            }
            Request::Ping => return Ok(Translated::Ping),
            Request::Hello => return Ok(Translated::Hello),
        };
        Ok(Translated::Command(command))
    }

    fn outcome(&mut self, body: &OutcomeQuery<'_>) -> Result<Command, Refusal> {
        let request = body.asked;
        Ok(match (body.target, body.code.0.is_empty(), body.id) {
            (OutcomeQuery::CARD, false, 0) => {
                Command::OutcomeOf { card: self.card(body.code, Status::NoEffect)?, request }
            }
            (OutcomeQuery::ORDER, true, id) => Command::OutcomeOfOrder { order: OrderId(id), request },
            (OutcomeQuery::DOCUMENT, true, id) => {
                Command::OutcomeOfDocument { document: DocumentId(id), request }
            }
            _ => return Err(Refusal::Status(Status::Malformed)),
        })
    }
}
