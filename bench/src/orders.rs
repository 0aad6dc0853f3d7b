//! `engine-orders` and `engine-orders-money`: orders of several products that are paid from an account, each one
//! record with its cards and its money.
//!
//! | workload | an order | counted |
//! |---|---|---|
//! | `engine-orders` | `--order-cards` cards, a third of each of three products | cards |
//! | `engine-orders-money` | one card of each | orders |
//!
//! Four legs pay for each: what the customer owes, the merchant's income, and the shares of two agents. By default
//! the customers are [`CUSTOMERS`], and every agent has [`CUSTOMERS_PER_AGENT`] of them; with `--hot` there is one
//! customer, and everything hits the same four accounts. As in `engine-sell` an order counts when it is durable,
//! and, unless `--reveal no`, when its codes were decrypted and are right. At the end the balances are held
//! against what was acknowledged.

use std::time::Instant;

use anyhow::{Result, bail, ensure};
use kami_engine::{
    AccountId, AccountKind, AccountPut, AccountSpec, Caller, CodeList, Command, Leg, Lifecycle, Line, Money,
    OrderId, PrincipalId, ProductId, Purchase, ReplyBody, Request, RequestId, Session, Work,
};

use crate::args::{Args, Workload, YesNo};
use crate::outstanding::Outstanding;
use crate::redeem::{Done, Load};
use crate::report::Report;
use crate::sell::reveal;
use crate::store::{Purpose, Store, request, request_id, wait_space};

/// Products, and lines of an order.
const LINES: u64 = 3;
/// Customers when the orders are spread.
const CUSTOMERS: u64 = 10_000;
/// How many customers buy through the same two agents.
const CUSTOMERS_PER_AGENT: u64 = 100;
/// What a card costs, and what an agent gets of it, in minor units.
const PRICE: Money = 2_800;
const SHARE: Money = 28;

/// Runs either workload.
pub fn run(args: &Args, report: &mut Report) -> Result<()> {
    let small = args.workload == Workload::EngineOrdersMoney;
    let per_line = if small { 1 } else { (u64::from(args.order_cards) / LINES).max(1) };
    let threads = args.threads.unwrap_or(2);
    let load = Load {
        threads,
        batch: args.batch.unwrap_or(if small { 64 } else { 1 }),
        window: args.window.unwrap_or(if small { 1 << 16 } else { threads }),
        limit: args.seconds,
    };
    let per_product = args.cards / LINES;
    let allowed = per_product / per_line;
    let orders = args.count.map_or(allowed, |count| if small { count } else { count / (per_line * LINES) });
    let orders = orders.min(allowed);
    ensure!(orders != 0, "fewer cards than one order takes");
    let mut store = Store::fresh(args)?;
    eprintln!("importing {} cards of {LINES} products", per_product * LINES);
    let mut products = Vec::new();
    for number in 0..LINES {
        if number > 0 {
            store.add_product(number)?;
        }
        store.import(per_product)?;
        products.push(store.product);
    }
    let shop = Shop::open(&store, products, per_line as u32, args.hot)?;

    eprintln!("selling {orders} orders of {} cards", per_line * LINES);
    let reveal = args.reveal == YesNo::Yes;
    let done = Done::by(&load, |thread, begun| {
        let (thread, threads) = (u64::from(thread), u64::from(load.threads));
        let numbers = orders * thread / threads..orders * (thread + 1) / threads;
        Driver { shop: &shop, reveal, spare: Vec::new(), wrong: 0 }.run(numbers, &load, begun)
    })?;
    let cards = done.done * per_line * LINES;
    report.measured(if small { done.done } else { cards }, done.elapsed);
    report.latencies(&done.latencies);
    report.errors = done.errors + shop.miscounted(done.done)?;
    let sold = store.stats()?.counts[Lifecycle::Sold as usize];
    if sold != cards {
        eprintln!("kami-bench: {cards} cards of acknowledged orders, but {sold} cards are sold");
        report.errors += 1;
    }
    report.add("order_cards", per_line * LINES);
    report.add("orders", done.done);
    report.add("lines", LINES);
    report.add("legs", LEGS);
    report.add("revealed", reveal);
    report.add("hot", args.hot);
    load.describe(report);
    store.describe(report);
    Ok(())
}

/// Legs of an order.
const LEGS: u64 = 4;

/// A store with accounts that its orders are paid from.
struct Shop<'s> {
    store: &'s Store,
    products: Vec<ProductId>,
    per_line: u32,
    customers: Vec<AccountId>,
    /// Two for every [`CUSTOMERS_PER_AGENT`] customers.
    agents: Vec<AccountId>,
    income: AccountId,
}

impl<'s> Shop<'s> {
    fn open(store: &'s Store, products: Vec<ProductId>, per_line: u32, hot: bool) -> Result<Shop<'s>> {
        let customers = if hot { 1 } else { CUSTOMERS };
        let agents = 2 * customers.div_ceil(CUSTOMERS_PER_AGENT);
        let kinds = std::iter::once(AccountKind::Income)
            .chain((0..agents).map(|_| AccountKind::Agent))
            .chain((0..customers).map(|_| AccountKind::Customer));
        let put = |(number, kind): (u64, AccountKind)| {
            // On credit, so that no order waits for a top-up.
            let credit_limit = if kind == AccountKind::Customer { 1 << 60 } else { 0 };
            let name = format!("{} {number}", kind.name());
            let spec = AccountSpec { name, currency: *b"CNY", kind, credit_limit, owner: PrincipalId(0) };
            let command = Command::AccountPut(Box::new(AccountPut { spec, new: true }));
            request(request_id(Purpose::Account, number), command)
        };
        let mut requests = (0..).zip(kinds).map(put);
        let mut work = Work::default();
        let mut ids = Vec::new();
        loop {
            work.requests.clear();
            work.requests.extend(requests.by_ref().take(Work::REQUESTS_MAX));
            if work.requests.is_empty() {
                break;
            }
            wait_space(&store.engine);
            store.engine.execute(&mut work);
            for reply in work.replies.drain(..) {
                match reply.body {
                    ReplyBody::Accounts(accounts) if reply.status.is_done() => ids.push(accounts[0].id),
                    _ => bail!("an account was refused: {}", reply.status.code()),
                }
            }
        }
        if let Some(tail) = work.durable_at() {
            store.engine.wait_durable(tail)?;
        }
        let customers = ids.split_off(1 + agents as usize);
        let agents = ids.split_off(1);
        Ok(Shop { store, products, per_line, customers, agents, income: ids[0] })
    }

    /// The request for an order. Customers come in an order that jumps.
    fn sale(&self, order: u64) -> Request {
        let customer = (order.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize % self.customers.len();
        let pair = customer / CUSTOMERS_PER_AGENT as usize;
        let cards = Money::from(self.per_line) * self.products.len() as Money;
        let (price, share) = (PRICE * cards, SHARE * cards);
        let leg = |account, amount| Leg { account, amount };
        let line = |product: &ProductId| Line { product: *product, count: self.per_line, face: None };
        let purchase = Purchase {
            lines: self.products.iter().map(line).collect(),
            account: Some(self.customers[customer]),
            legs: vec![
                leg(self.customers[customer], -price),
                leg(self.agents[2 * pair], share),
                leg(self.agents[2 * pair + 1], share),
                leg(self.income, price - 2 * share),
            ],
            ..Purchase::of(OrderId(u128::from(order) + 1), self.products[0], 1)
        };
        request(request_id(Purpose::Sell, order), Command::SellLines(Box::new(purchase)))
    }

    /// 1 if the balances are not what so many orders make.
    fn miscounted(&self, orders: u64) -> Result<u64> {
        let session = Session::new(&self.store.engine, Caller::LOCAL);
        let balance = |account| {
            let query = Command::AccountQuery { account, name: String::new() };
            match session.run(RequestId::default(), query).wait()?.body {
                ReplyBody::Accounts(accounts) => Ok(accounts[0].balance),
                _ => bail!("an account is gone"),
            }
        };
        let sum = |accounts: &[AccountId]| accounts.iter().map(|id| balance(*id)).sum::<Result<Money>>();
        let cards = orders as Money * Money::from(self.per_line) * self.products.len() as Money;
        let found = (sum(&self.customers)?, sum(&self.agents)?, balance(self.income)?);
        let right = (-PRICE * cards, 2 * SHARE * cards, (PRICE - 2 * SHARE) * cards);
        if found != right {
            eprintln!("kami-bench: customers, agents and income have {found:?}, not {right:?}");
        }
        Ok(u64::from(found != right))
    }
}

/// One thread of the workload.
struct Driver<'s> {
    shop: &'s Shop<'s>,
    reveal: bool,
    /// Emptied lists of sales, to be used again.
    spare: Vec<Vec<CodeList>>,
    wrong: u64,
}

impl Driver<'_> {
    fn run(mut self, mut numbers: std::ops::Range<u64>, load: &Load, begun: Instant) -> Result<Done> {
        let engine = &self.shop.store.engine;
        let executions = (load.share() / u64::from(load.batch)) as usize;
        let mut outstanding = Outstanding::new(engine, executions, begun);
        let mut work = Work::default();
        let mut refused = 0;
        loop {
            outstanding.collect(|sales| self.deliver(sales));
            if load.share() < outstanding.commands() + u64::from(load.batch) {
                outstanding.wait()?;
                continue;
            }
            if load.limit.is_some_and(|limit| limit <= begun.elapsed()) {
                break;
            }
            wait_space(engine);
            let submitted = Instant::now();
            work.requests.clear();
            let batch = numbers.by_ref().take(load.batch as usize);
            work.requests.extend(batch.map(|order| self.shop.sale(order)));
            if work.requests.is_empty() {
                break;
            }
            engine.execute(&mut work);
            let commands = work.replies.len() as u64;
            let mut sales = self.spare.pop().unwrap_or_default();
            for reply in work.replies.drain(..) {
                match reply.body {
                    ReplyBody::Cards(list) if reply.status.is_done() => sales.push(list),
                    _ => refused += 1,
                }
            }
            let done = sales.len() as u64;
            let durable_at = work.durable_at().expect("the work was executed");
            outstanding.push(durable_at, submitted, commands, done, sales);
        }
        while outstanding.wait()? {
            outstanding.collect(|sales| self.deliver(sales));
        }
        let (done, latencies) = (outstanding.done, outstanding.latencies);
        Ok(Done { done, errors: refused + self.wrong, latencies, ..Done::default() })
    }

    fn deliver(&mut self, mut sales: Vec<CodeList>) {
        for list in sales.drain(..).filter(|_| self.reveal) {
            self.wrong += u64::from(reveal(self.shop.store, &list).1 != 0);
        }
        self.spare.push(sales);
    }
}
