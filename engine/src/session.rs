//! The engine for a platform that embeds it: typed calls, blocking or async, no network.
//!
//! A [`Session`] says who asks; each of its methods makes a [`Call`], which is run by
//! [`Call::wait`] on a thread or by `.await` in a task. Both return when the outcome is durable.
//!
//! ```no_run
//! # use kami_engine::*;
//! # fn example(engine: Engine, code: &str) -> Result<(), Failure> {
//! let till = Session::new(&engine, Caller::LOCAL).at(TerminalId(12));
//! let receipt = till.redeem(RequestId::random(), code).wait()?;
//! println!("redeemed for {}, receipt {}", receipt.value.amount, receipt.lsn);
//! # Ok(()) }
//! ```
//!
//! Selling, redeeming and looking after single cards are here; what is on a card (holds, loads,
//! refunds), orders that are more than a plain sale, and money each have a file of their own. Whatever has no method
//! yet goes through [`Session::run`].

mod money;
mod orders;
mod value;

use std::future::{Future, IntoFuture};
use std::pin::Pin;

use aws_lc_rs::rand;
use kami_wal::{Lsn, Poisoned};
use zeroize::Zeroizing;

use crate::code::CodeError;
use crate::command::{Command, Request};
use crate::engine::{Engine, RevealError};
use crate::identity::{
    AccountId, Caller, CardDigest, ChannelId, DocumentId, OrderId, ProductId, RequestId, TerminalId,
};
use crate::import::{ImportRow, ImportSpec};
use crate::limit::Exceeded;
use crate::product::{Product, ProductSpec};
use crate::reply::{
    BatchReport, CardReport, HistoryEvent, ImportReport, Reply, ReplyBody, ReplyFlags, StockLine, ValueReport,
};
use crate::status::Status;

pub use money::AccountPage;
pub use orders::Delivery;
pub use value::Part;

/// Why a call did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The engine decided against it; the status says why and what to do.
    #[error("refused: {} ({})", .0.meaning().trim_end_matches('.'), .0.code())]
    Refused(Status),
    /// The same, for a limit: which, what is left of it, and when it opens again.
    #[error("refused: {} ({}) limit=`{}` left=`{}`", .status.meaning().trim_end_matches('.'), .status.code(), .exceeded.limit, .exceeded.left)]
    Limit {
        /// The status.
        status: Status,
        /// The limit.
        exceeded: Exceeded,
    },
    /// The same, for how money was to move: the account that stands against it.
    #[error("refused: {} ({}) account=`{account}`", .status.meaning().trim_end_matches('.'), .status.code())]
    Account {
        /// The status.
        status: Status,
        /// The account.
        account: AccountId,
    },
    /// An import was refused for cards that are there already.
    #[error("refused: {} cards of the import are there already", .0.len())]
    Duplicates(Vec<crate::Duplicate>),
    /// What was given as a code is none.
    #[error(transparent)]
    Code(#[from] CodeError),
    /// Codes could not be read back.
    #[error(transparent)]
    Reveal(#[from] RevealError),
    /// The log failed: the outcome is unknown and the engine is dead.
    #[error(transparent)]
    Poisoned(#[from] Poisoned),
}

impl Failure {
    /// The engine's decision, if it decided.
    #[must_use]
    pub const fn status(&self) -> Option<Status> {
        match self {
            Failure::Refused(status) | Failure::Limit { status, .. } | Failure::Account { status, .. } => {
                Some(*status)
            }
            _ => None,
        }
    }

    /// Why a reply is not what was asked for.
    fn of(reply: &Reply) -> Failure {
        let status = reply.status;
        match reply.body {
            ReplyBody::Exceeded(exceeded) => Failure::Limit { status, exceeded },
            ReplyBody::Account(account) => Failure::Account { status, account },
            _ => Failure::Refused(status),
        }
    }
}

impl RequestId {
    /// A new id from the system's secure random source.
    ///
    /// # Panics
    /// If the system has no randomness, without which nothing here is safe.
    #[must_use]
    pub fn random() -> RequestId {
        let mut bytes = [0; 16];
        rand::fill(&mut bytes).expect("the system's random source works");
        RequestId(u128::from_le_bytes(bytes))
    }
}

/// Who asks, from which till, through which channel.
#[derive(Clone)]
pub struct Session {
    engine: Engine,
    caller: Caller,
    terminal: TerminalId,
    channel: ChannelId,
}

/// What a command did, and where that stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt<T = ValueReport> {
    /// Where it stands in the log; the receipt's number.
    pub lsn: Lsn,
    /// When, milliseconds since 1970.
    pub time_ms: u64,
    /// What was moved, or what it is about as it stands now.
    pub value: T,
    /// Whether it is the effect of an earlier call with the same id.
    pub replayed: bool,
    /// Whether that effect has been reversed since.
    pub reversed: bool,
}

/// What a reversal did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reversal {
    /// The redemption was undone.
    Reversed(Receipt),
    /// The redemption was never seen and will never take effect.
    Tombstoned,
}

/// Cards that were sold.
pub struct Sold {
    /// The order.
    pub order: OrderId,
    /// Where the sale stands in the log.
    pub lsn: Lsn,
    /// The codes that belong to the order, in its sequence; wiped when dropped.
    pub codes: Vec<Zeroizing<String>>,
    /// Whether the order was there already, from an earlier call with the same id.
    pub replayed: bool,
}

/// A request that is ready to run.
#[must_use = "a call does nothing until it is waited for or awaited"]
pub struct Call<T> {
    engine: Engine,
    request: Result<Request, Failure>,
    read: fn(&Engine, Reply) -> Result<T, Failure>,
}

impl<T> Call<T> {
    /// Runs it, blocking the thread until the outcome is durable.
    ///
    /// # Errors
    /// See [`Failure`].
    pub fn wait(self) -> Result<T, Failure> {
        let reply = self.engine.submit_blocking(self.request?)?;
        (self.read)(&self.engine, reply)
    }
}

impl<T: 'static> IntoFuture for Call<T> {
    type Output = Result<T, Failure>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        let Call { engine, request, read } = self;
        Box::pin(async move {
            let reply = engine.submit(request?).await?;
            read(&engine, reply)
        })
    }
}

impl Session {
    /// A session of `caller`. The engine trusts it: authorisation is the embedding platform's.
    #[must_use]
    pub fn new(engine: &Engine, caller: Caller) -> Session {
        Session { engine: engine.clone(), caller, terminal: TerminalId(0), channel: ChannelId(0) }
    }

    /// The same session at a till.
    #[must_use]
    pub fn at(self, terminal: TerminalId) -> Session {
        Session { terminal, ..self }
    }

    /// The same session through a sales channel.
    #[must_use]
    pub fn through(self, channel: ChannelId) -> Session {
        Session { channel, ..self }
    }

    fn call<T>(
        &self,
        id: RequestId,
        command: Result<Command, CodeError>,
        read: fn(&Engine, Reply) -> Result<T, Failure>,
    ) -> Call<T> {
        let request = command.map(|command| Request {
            id,
            caller: self.caller,
            terminal: self.terminal,
            channel: self.channel,
            deadline: None,
            command,
            grounds: None,
        });
        Call { engine: self.engine.clone(), request: request.map_err(Failure::Code), read }
    }

    fn digest(&self, code: &str) -> Result<CardDigest, CodeError> {
        self.engine.digest(self.caller.tenant, code.as_bytes())
    }

    /// Uses up a card. `id` is new for every redemption and the same for its retries.
    pub fn redeem(&self, id: RequestId, code: &str) -> Call<Receipt> {
        let command =
            self.digest(code).map(|card| Command::Redeem { card, pin: None, amount: 0, partial: false });
        self.call(id, command, |_, reply| moved(reply))
    }

    /// Uses up a card that has a PIN.
    pub fn redeem_with_pin(&self, id: RequestId, code: &str, pin: &str) -> Call<Receipt> {
        let command = self.digest(code).map(|card| {
            let pin = Some(self.engine.pin_digest(card, pin.as_bytes()));
            Command::Redeem { card, pin, amount: 0, partial: false }
        });
        self.call(id, command, |_, reply| moved(reply))
    }

    /// Undoes the redemption with id `original`, or makes sure that it never happens.
    pub fn reverse(&self, id: RequestId, code: &str, original: RequestId) -> Call<Reversal> {
        let command = self.digest(code).map(|card| Command::Reverse { card, original });
        self.call(id, command, |_, reply| match reply.status {
            Status::Tombstoned => Ok(Reversal::Tombstoned),
            _ => moved(reply).map(Reversal::Reversed),
        })
    }

    /// Reads a card's state.
    pub fn query(&self, code: &str) -> Call<CardReport> {
        let command = self.digest(code).map(|card| Command::Query { card });
        self.call(RequestId::default(), command, |_, reply| card(reply))
    }

    /// Reads all that ever happened to a card, newest first.
    pub fn history(&self, code: &str) -> Call<Vec<HistoryEvent>> {
        let command = self.digest(code).map(|card| Command::History { card });
        self.call(RequestId::default(), command, |_, reply| match reply.body {
            ReplyBody::History(events) if reply.status.is_done() => Ok(events),
            _ => Err(Failure::Refused(reply.status)),
        })
    }

    /// Freezes a card.
    pub fn freeze(&self, id: RequestId, code: &str) -> Call<CardReport> {
        self.call(id, self.digest(code).map(|card| Command::Freeze { card }), |_, reply| card(reply))
    }

    /// Ends the freeze of a card.
    pub fn unfreeze(&self, id: RequestId, code: &str) -> Call<CardReport> {
        self.call(id, self.digest(code).map(|card| Command::Unfreeze { card }), |_, reply| card(reply))
    }

    /// Makes a card void for good.
    pub fn void(&self, id: RequestId, code: &str) -> Call<CardReport> {
        self.call(id, self.digest(code).map(|card| Command::Void { card }), |_, reply| card(reply))
    }

    /// Makes a card redeemable, whatever its batch says.
    pub fn activate(&self, id: RequestId, code: &str) -> Call<CardReport> {
        self.call(id, self.digest(code).map(|card| Command::Activate { card }), |_, reply| card(reply))
    }

    /// Makes an unused card not redeemable, whatever its batch says.
    pub fn deactivate(&self, id: RequestId, code: &str) -> Call<CardReport> {
        self.call(id, self.digest(code).map(|card| Command::Deactivate { card }), |_, reply| card(reply))
    }

    /// Moves the end of a card's validity to a later time, in milliseconds since 1970.
    pub fn extend(&self, id: RequestId, code: &str, expires_ms: u64) -> Call<CardReport> {
        let command = self.digest(code).map(|card| Command::Extend { card, expires_ms });
        self.call(id, command, |_, reply| card(reply))
    }

    /// Ends a card's validity now.
    pub fn expire(&self, id: RequestId, code: &str) -> Call<CardReport> {
        self.call(id, self.digest(code).map(|card| Command::Expire { card }), |_, reply| card(reply))
    }

    /// Makes a returned card void because it went back to its supplier.
    pub fn restock(&self, id: RequestId, code: &str, reference: DocumentId) -> Call<CardReport> {
        let command = self.digest(code).map(|card| Command::Restock { card, reference });
        self.call(id, command, |_, reply| card(reply))
    }

    /// Sells `count` cards of a product, all or nothing, and reads their codes.
    pub fn sell(&self, id: RequestId, order: OrderId, product: ProductId, count: u32) -> Call<Sold> {
        self.call(id, Ok(Command::Sell { order, product, count, validity_s_min: 0 }), sold)
    }

    /// Reads the codes of an order again. Only the principal that bought it may.
    pub fn order(&self, id: RequestId, order: OrderId) -> Call<Sold> {
        self.call(id, Ok(Command::OrderFetch { order, from: 0, count: u32::MAX }), sold)
    }

    /// Adds a product.
    pub fn add_product(&self, id: RequestId, spec: ProductSpec) -> Call<Product> {
        self.call(id, Ok(Command::ProductAdd(Box::new(spec))), |_, reply| match reply.body {
            ReplyBody::Products(mut products) if reply.status.is_done() => {
                products.pop().ok_or(Failure::Refused(Status::NotFound))
            }
            _ => Err(Failure::Refused(reply.status)),
        })
    }

    /// Counts the stock, of one product or all.
    pub fn stock(&self, product: Option<ProductId>) -> Call<Vec<StockLine>> {
        self.call(RequestId::default(), Ok(Command::Stock { product }), |_, reply| match reply.body {
            ReplyBody::Stock(lines) => Ok(lines),
            _ => Err(Failure::Refused(reply.status)),
        })
    }

    /// Runs any other command.
    pub fn run(&self, id: RequestId, command: Command) -> Call<Reply> {
        self.call(id, Ok(command), |_, reply| Ok(reply))
    }

    /// Imports cards as one batch, all or nothing. `id` names the import: after an interruption the same
    /// id goes on. Blocking; `progress` hears of the rows taken so far.
    ///
    /// # Errors
    /// See [`Failure`]; nothing was imported.
    pub fn import<'r>(
        &self,
        id: RequestId,
        spec: ImportSpec,
        rows: impl Iterator<Item = ImportRow<'r>>,
        mut progress: impl FnMut(u64),
    ) -> Result<BatchReport, Failure> {
        /// Rows handed over at a time: what is lost when one of them is bad, and what is kept in memory.
        const CHUNK_ROWS: usize = 4096;
        let begun = self.engine.import_begin(self.caller, id, spec)?;
        if !begun.status.is_done() {
            return Err(Failure::Refused(begun.status));
        }
        if let ReplyBody::Batches(mut batches) = begun.body {
            return batches.pop().ok_or(Failure::Refused(Status::NotFound));
        }
        let mut rows = rows.peekable();
        let mut first = 0;
        while rows.peek().is_some() {
            let mut count = 0;
            let mut chunk = rows.by_ref().take(CHUNK_ROWS).inspect(|_| count += 1);
            let reply = self.engine.import_chunk(self.caller, id, first, &mut chunk)?;
            if !reply.status.is_done() {
                self.engine.import_abort(self.caller, id)?;
                return Err(Failure::Refused(reply.status));
            }
            // Rows that were taken by an earlier attempt are skipped, not read; count what was asked for.
            chunk.for_each(drop);
            first += count;
            if let ReplyBody::Import(ImportReport { rows, .. }) = reply.body {
                progress(rows);
            }
        }
        let reply = self.engine.import_commit(self.caller, id)?;
        match reply.body {
            ReplyBody::Batches(mut batches) if reply.status.is_done() => {
                batches.pop().ok_or(Failure::Refused(Status::NotFound))
            }
            ReplyBody::Duplicates(duplicates) => Err(Failure::Duplicates(duplicates)),
            _ => Err(Failure::Refused(reply.status)),
        }
    }
}

/// A reply as a receipt, if it says done and carries what it should.
fn receipt<T>(reply: Reply, read: fn(ReplyBody) -> Option<T>) -> Result<Receipt<T>, Failure> {
    let refused = Failure::of(&reply);
    let (true, Some(lsn)) = (reply.status.is_done(), reply.lsn) else { return Err(refused) };
    let (replayed, reversed) =
        (reply.flags.contains(ReplyFlags::REPLAYED), reply.flags.contains(ReplyFlags::REVERSED));
    let value = read(reply.body).ok_or(refused)?;
    Ok(Receipt { lsn, time_ms: reply.time_ms, value, replayed, reversed })
}

/// What a reply tells, if it says done and tells it.
fn told<T>(reply: Reply, read: fn(ReplyBody) -> Option<T>) -> Result<T, Failure> {
    let refused = Failure::of(&reply);
    if !reply.status.is_done() {
        return Err(refused);
    }
    read(reply.body).ok_or(refused)
}

fn moved(reply: Reply) -> Result<Receipt, Failure> {
    receipt(reply, |body| match body {
        ReplyBody::Value(value) => Some(value),
        _ => None,
    })
}

fn card(reply: Reply) -> Result<CardReport, Failure> {
    match reply.body {
        ReplyBody::Card(report) if reply.status.is_done() => Ok(report),
        _ => Err(Failure::Refused(reply.status)),
    }
}

fn sold(engine: &Engine, reply: Reply) -> Result<Sold, Failure> {
    let (Some(lsn), ReplyBody::Cards(list)) = (reply.lsn, &reply.body) else {
        return Err(Failure::of(&reply));
    };
    let mut codes = Vec::with_capacity(list.count as usize);
    engine.reveal(list, &mut |_, code| {
        codes.push(Zeroizing::new(String::from_utf8_lossy(code).into_owned()));
    })?;
    let replayed = reply.flags.contains(ReplyFlags::REPLAYED);
    Ok(Sold { order: list.order, lsn, codes, replayed })
}
