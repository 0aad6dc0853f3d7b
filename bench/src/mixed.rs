//! `engine-mixed`: what a day looks like, in ten commands: four redemptions, three queries, two sales of
//! a single card whose code is revealed, one reversal.
//!
//! * Redemptions take distinct cards that were sold ahead, in an order that jumps.
//! * Queries read any card that was sold ahead: redeemed or not, and which order bought it, for which
//!   the engine reads the log.
//! * A sale takes one card of the stock; it counts when its code was revealed and is right.
//! * A reversal undoes every fourth redemption, [`REVERSED_AFTER`] redemptions later. Until there are so
//!   many a query stands in for it.
//!
//! Two thirds of the cards are sold ahead and one third is stock, so that both last for one and a half
//! commands a card.

use std::time::{Duration, Instant};

use anyhow::Result;
use kami_engine::{Caller, CodeList, Command, Lifecycle, ReplyBody, RequestId, Work};

use crate::args::Args;
use crate::codes::Scattered;
use crate::outstanding::Outstanding;
use crate::redeem::{Done, Load};
use crate::report::Report;
use crate::sell::reveal;
use crate::store::{Purpose, Store, request, request_id, wait_space};

/// How many redemptions of the same thread lie between one and its reversal.
const REVERSED_AFTER: u64 = 10_000;

#[derive(Clone, Copy)]
enum Kind {
    Redeem,
    Query,
    Sell,
    Reverse,
}

/// The ten commands, spread so that every batch has some of each.
const TEN: [Kind; 10] = [
    Kind::Redeem,
    Kind::Query,
    Kind::Sell,
    Kind::Redeem,
    Kind::Reverse,
    Kind::Query,
    Kind::Redeem,
    Kind::Sell,
    Kind::Query,
    Kind::Redeem,
];

/// Runs the workload.
pub fn run(args: &Args, report: &mut Report) -> Result<()> {
    let load = Load::of(args);
    let (sold, stock) = (args.cards - args.cards / 3, args.cards / 3);
    anyhow::ensure!(30 <= args.cards, "fewer cards than the mix needs");
    let count = args.count.unwrap_or(u64::MAX).min(stock / 2 * 10);
    let mut store = Store::fresh(args)?;
    eprintln!("importing {} cards and selling two thirds of them", args.cards);
    store.import(sold)?;
    store.sell(sold)?;
    store.import(stock)?;

    eprintln!("running {count} commands");
    let reversed = std::sync::atomic::AtomicU64::new(0);
    let done = Done::by(&load, |thread, begun| {
        let mut driver = Driver::new(&store, sold, count, u64::from(thread), u64::from(load.threads));
        let done = driver.run(&load, begun)?;
        reversed.fetch_add(driver.reversed, std::sync::atomic::Ordering::Relaxed);
        Ok(done)
    })?;
    report.measured(done.done, done.elapsed);
    report.latencies(&done.latencies);
    report.errors = done.errors;
    store.engine.check().unwrap_or_else(|what| {
        eprintln!("kami-bench: {what}");
        report.errors += 1;
    });
    let counts = store.stats()?.counts;
    report.add("redeemed_cards", counts[Lifecycle::Redeemed as usize]);
    report.add("reversals", reversed.into_inner());
    report.add("mix", "in ten: 4 redeem, 3 query, 2 sell one card and reveal it, 1 reverse");
    load.describe(report);
    store.describe(report);
    Ok(())
}

/// One thread of the workload.
struct Driver<'s> {
    store: &'s Store,
    /// Commands still to be submitted, and the next one's place in [`TEN`].
    left: u64,
    place: usize,
    /// Cards to redeem, and the same walk again, behind, for reversals.
    redeem: Scattered,
    behind: Scattered,
    redeemed: u64,
    reversed: u64,
    /// Cards to ask for; begins again when it ends.
    query: Scattered,
    queries: Scattered,
    /// The next order's number.
    order: u64,
    /// Emptied lists of sales, to be used again.
    spare: Vec<Vec<CodeList>>,
    wrong: u64,
}

impl<'s> Driver<'s> {
    fn new(store: &'s Store, sold: u64, count: u64, thread: u64, threads: u64) -> Self {
        let walk = Scattered::part(sold, thread, threads);
        let query = Scattered::part(sold, threads - 1 - thread, threads);
        Driver {
            store,
            left: count * (thread + 1) / threads - count * thread / threads,
            place: 0,
            redeem: walk.clone(),
            behind: walk,
            redeemed: 0,
            reversed: 0,
            query: query.clone(),
            queries: query,
            // Far above the orders that were sold ahead, and apart for every thread.
            order: (thread + 1) << 40,
            spare: Vec::new(),
            wrong: 0,
        }
    }

    fn run(&mut self, load: &Load, begun: Instant) -> Result<Done> {
        let engine = &self.store.engine;
        let executions = (load.share() / u64::from(load.batch)) as usize;
        self.spare.resize_with(executions + 2, || Vec::with_capacity(load.batch as usize));
        let mut outstanding = Outstanding::new(engine, executions);
        let mut work = Work::default();
        let mut errors = 0;
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
            for _ in 0..self.left.min(u64::from(load.batch)) {
                let Some((id, command)) = self.next()? else { break };
                work.requests.push(request(id, command));
            }
            if work.requests.is_empty() {
                break;
            }
            self.left -= work.requests.len() as u64;
            engine.execute(&mut work);
            let commands = work.replies.len() as u64;
            let mut sales = self.spare.pop().unwrap_or_default();
            let mut done = 0;
            for reply in work.replies.drain(..) {
                done += u64::from(reply.status.is_done());
                if let ReplyBody::Cards(list) = reply.body {
                    sales.push(list);
                }
            }
            errors += commands - done;
            outstanding.push(
                work.durable_at().expect("the work was executed"),
                submitted,
                commands,
                done,
                sales,
            );
        }
        while outstanding.wait()? {
            outstanding.collect(|sales| self.deliver(sales));
        }
        let (done, latencies) = (outstanding.done - self.wrong, outstanding.latencies);
        Ok(Done { done, errors: errors + self.wrong, latencies, elapsed: Duration::ZERO })
    }

    /// The next command; `None` when the cards are used up.
    fn next(&mut self) -> Result<Option<(RequestId, Command)>> {
        let kind = TEN[self.place];
        self.place = (self.place + 1) % TEN.len();
        let (engine, codes) = (&self.store.engine, self.store.codes);
        let digest = |number| engine.digest(Caller::LOCAL.tenant, &codes.code(number));
        let command = match kind {
            Kind::Redeem => {
                let Some(number) = self.redeem.next() else { return Ok(None) };
                self.redeemed += 1;
                let command = Command::Redeem { card: digest(number)?, pin: None, amount: 0 };
                (request_id(Purpose::Redeem, number), command)
            }
            Kind::Reverse if self.reversed * 4 + REVERSED_AFTER <= self.redeemed => {
                let Some(number) = self.behind.next() else { return Ok(None) };
                self.behind.by_ref().take(3).for_each(drop);
                self.reversed += 1;
                let original = request_id(Purpose::Redeem, number);
                let command = Command::Reverse { card: digest(number)?, original };
                (request_id(Purpose::Reverse, number), command)
            }
            Kind::Query | Kind::Reverse => {
                let number = match self.query.next() {
                    Some(number) => number,
                    None => {
                        self.query = self.queries.clone();
                        self.query.next().unwrap_or(0)
                    }
                };
                (RequestId::default(), Command::Query { card: digest(number)? })
            }
            Kind::Sell => {
                self.order += 1;
                let sale = self.store.sale(self.order, 1);
                (sale.id, sale.command)
            }
        };
        Ok(Some(command))
    }

    fn deliver(&mut self, mut sales: Vec<CodeList>) {
        for list in sales.drain(..) {
            self.wrong += reveal(self.store, &list).1;
        }
        self.spare.push(sales);
    }
}
