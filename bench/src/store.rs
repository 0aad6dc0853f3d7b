//! The store under test: a fresh directory, an engine in it, and cards that were really imported and
//! really sold.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, bail, ensure};
use kami_engine::{
    Caller, CodeError, Command, CommitPath, DiskOptions, Engine, EngineOptions, ImportRow, ImportSpec,
    ORDER_CARDS_MAX, OrderId, ProductId, ProductSpec, ReplyBody, Request, RequestId, Session, Stats, Work,
};

use crate::args::Args;
use crate::codes::{CODE_BYTES, Codes};
use crate::mix::Step;
use crate::report::Report;

/// A directory of our own that goes when this does.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// A fresh `kami-bench-*` directory under `parent`.
    pub fn new(parent: &Path) -> Result<Scratch> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let parent =
            fs::canonicalize(parent).with_context(|| format!("no directory {}", parent.display()))?;
        let path = parent.join(format!("kami-bench-{}-{number}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Scratch { path })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            eprintln!("kami-bench: {} stays behind: {error}", self.path.display());
        }
    }
}

/// What a request id is used for, so that no two requests of a run share one.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub enum Purpose {
    /// Adding the product.
    Product = 1,
    /// Importing.
    Import,
    /// Selling, before or within the measured part.
    Sell,
    /// Redeeming.
    Redeem,
    /// Reversing.
    Reverse,
    /// Asking.
    Query,
    /// Adding the client of a network run.
    Principal,
    /// Adding an account.
    Account,
    /// Reserving.
    Reserve,
}

/// The id of the `number`th request for `purpose`.
#[inline]
pub fn request_id(purpose: Purpose, number: u64) -> RequestId {
    RequestId((purpose as u128) << 64 | u128::from(number))
}

/// A request by the embedding platform itself.
#[inline]
pub fn request(id: RequestId, command: Command) -> Request {
    Request {
        id,
        caller: Caller::LOCAL,
        terminal: kami_engine::TerminalId(0),
        channel: kami_engine::ChannelId(0),
        deadline: None,
        grounds: None,
        command,
    }
}

/// An open engine with a product.
pub struct Store {
    /// The engine. Dropped before its directory.
    pub engine: Engine,
    /// The product of the cards that are imported.
    pub product: ProductId,
    /// The codes of the cards.
    pub codes: Codes,
    /// The first card's number of every batch, batches counted from 1.
    batches: Vec<u64>,
    cards: u64,
    orders: u64,
    filesystem: &'static str,
    durable: bool,
    scratch: Option<Scratch>,
}

impl Store {
    /// A new store in a fresh directory.
    pub fn fresh(args: &Args) -> Result<Store> {
        let scratch = Scratch::new(&args.dir)?;
        let mut store = Store::open(args, scratch.path())?;
        store.scratch = Some(scratch);
        store.add_product(0)?;
        Ok(store)
    }

    /// Opens the store in `directory`, making it if it is not there; it stays.
    pub fn open(args: &Args, directory: &Path) -> Result<Store> {
        let options = || DiskOptions { commit_path: args.commit_path.choice(), ..DiskOptions::default() };
        let (data, keys) = (directory.join("data"), directory.join("keys"));
        let (filesystem, durable) = {
            let medium = kami_wal::DiskMedium::open(&data, options())?;
            (medium.filesystem_name(), medium.is_durable())
        };
        let engine = Engine::open(EngineOptions::on_disk(&data, &keys, options())?)?;
        Ok(Store {
            engine,
            product: ProductId(1),
            codes: Codes::new(args.seed),
            batches: Vec::new(),
            cards: 0,
            orders: 0,
            filesystem,
            durable,
            scratch: None,
        })
    }

    /// Adds a product, counted from 0; the cards that are imported from now on are of it.
    pub fn add_product(&mut self, number: u64) -> Result<()> {
        let session = Session::new(&self.engine, Caller::LOCAL);
        let name = if number == 0 { "bench".to_owned() } else { format!("bench {number}") };
        let spec = ProductSpec::single(&name, *b"CNY", 2800);
        self.product = session.add_product(request_id(Purpose::Product, number), spec).wait()?.id;
        Ok(())
    }

    /// Imports the next `count` cards as one batch; returns when they are committed and durable.
    pub fn import(&mut self, count: u64) -> Result<()> {
        let number = self.batches.len() as u64;
        import_batch(&self.engine, self.codes, self.product, number, self.cards, count)?;
        self.batches.push(self.cards);
        self.cards += count;
        Ok(())
    }

    /// Sells `count` cards in orders of 10,000 and waits until that is durable.
    pub fn sell(&mut self, count: u64) -> Result<()> {
        const ORDER_CARDS: u64 = 10_000;
        const { assert!(ORDER_CARDS <= ORDER_CARDS_MAX as u64) };
        let mut work = Work::default();
        let mut left = count;
        while left != 0 {
            let cards = left.min(ORDER_CARDS);
            wait_space(&self.engine);
            work.requests.clear();
            work.requests.push(self.sale(self.orders, cards as u32));
            self.engine.execute(&mut work);
            let status = work.replies[0].status;
            ensure!(status.is_done(), "a sale ahead of the run was refused: {}", status.code());
            left -= cards;
            self.orders += 1;
        }
        if let Some(tail) = work.durable_at() {
            self.engine.wait_durable(tail)?;
        }
        Ok(())
    }

    /// The request for order number `order`.
    pub fn sale(&self, order: u64, count: u32) -> Request {
        let command = Command::Sell {
            order: OrderId(u128::from(order) + 1),
            product: self.product,
            count,
            validity_s_min: 0,
        };
        request(request_id(Purpose::Sell, order), command)
    }

    /// The request for a step of the mix.
    #[inline]
    pub fn step(&self, step: Step) -> Result<Request, CodeError> {
        let card = |number| self.engine.digest(Caller::LOCAL.tenant, &self.codes.code(number));
        let command = match step {
            Step::Redeem(number) => {
                Command::Redeem { card: card(number)?, pin: None, amount: 0, partial: false }
            }
            Step::Reverse(number) => {
                Command::Reverse { card: card(number)?, original: Step::Redeem(number).id() }
            }
            Step::Query { number, .. } => Command::Query { card: card(number)? },
            Step::Sell(order) => return Ok(self.sale(order, 1)),
        };
        Ok(request(step.id(), command))
    }

    /// The number of the card at `row` of a batch.
    #[inline]
    pub fn number(&self, batch: u32, row: u64) -> u64 {
        self.batches[batch as usize - 1] + row
    }

    /// The engine's figures, read as a command.
    pub fn stats(&self) -> Result<Stats> {
        let session = Session::new(&self.engine, Caller::LOCAL);
        match session.run(RequestId::default(), Command::Stats).wait()?.body {
            ReplyBody::Stats(stats) => Ok(*stats),
            _ => bail!("STATS was refused"),
        }
    }

    /// The directory that goes with this store, if it has one of its own.
    pub fn directory(&self) -> Option<&Path> {
        self.scratch.as_ref().map(Scratch::path)
    }

    /// Sets the fields that say what kind of store it is.
    pub fn describe(&self, report: &mut Report) {
        report.cards = Some(self.cards);
        report.commit_path = Some(match self.engine.commit_path() {
            CommitPath::Direct => "direct",
            CommitPath::Mapped => "mapped",
            CommitPath::Simulated => "simulated",
        });
        report.filesystem = Some(self.filesystem);
        report.durable = Some(self.durable);
    }
}

/// Imports cards `first .. first + count` as one batch. Several of these may run at the same time.
pub fn import_batch(
    engine: &Engine,
    codes: Codes,
    product: ProductId,
    batch: u64,
    first: u64,
    count: u64,
) -> Result<()> {
    /// Rows handed over at a time, as the network hands them over.
    const CHUNK_ROWS: u64 = 4096;
    let id = request_id(Purpose::Import, batch);
    let begun = engine.import_begin(Caller::LOCAL, id, ImportSpec::of(product, count, CODE_BYTES as u8))?;
    ensure!(begun.status.is_done(), "the import was refused: {}", begun.status.code());
    let mut chunk = Vec::with_capacity(CHUNK_ROWS as usize);
    for from in (0..count).step_by(CHUNK_ROWS as usize) {
        let to = count.min(from + CHUNK_ROWS);
        chunk.clear();
        chunk.extend((from..to).map(|row| codes.code(first + row)));
        let mut rows = chunk.iter().map(|code| ImportRow { code, ..ImportRow::default() });
        let reply = engine.import_chunk(Caller::LOCAL, id, from, &mut rows)?;
        ensure!(reply.status.is_done(), "a chunk was refused: {}", reply.status.code());
    }
    let committed = engine.import_commit(Caller::LOCAL, id)?;
    ensure!(committed.status.is_done(), "the commit was refused: {}", committed.status.code());
    Ok(())
}

/// Blocks until the log has room, so that no command is answered BUSY.
pub fn wait_space(engine: &Engine) {
    if !engine.has_space() {
        crate::outstanding::block_on(engine.space());
    }
}
