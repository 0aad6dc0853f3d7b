//! `engine-sell`: orders of many cards. Counted are cards, and with `--reveal yes` (the default) a card
//! counts only when its code was decrypted and found to be the one that was imported for it.
//!
//! Two latencies: `p50_us` and its kin run from the order's submission to its durable reply, as
//! everywhere; `revealed_p50_us` and its kin run on to the last code of the order. By default each
//! thread has one order under way, as a shop that waits for its codes has.

use std::time::Instant;

use anyhow::Result;
use kami_engine::{CodeList, Lifecycle, ReplyBody, Work};

use crate::args::{Args, YesNo};
use crate::outstanding::Outstanding;
use crate::redeem::{Done, Load};
use crate::report::{Latencies, Report};
use crate::store::{Store, wait_space};

/// Runs the workload.
pub fn run(args: &Args, report: &mut Report) -> Result<()> {
    let threads = args.threads.unwrap_or(2);
    let load = Load {
        threads,
        batch: args.batch.unwrap_or(1),
        window: args.window.unwrap_or(threads),
        limit: args.seconds,
    };
    let order_cards = u64::from(args.order_cards);
    let orders = args.count.unwrap_or(args.cards).min(args.cards) / order_cards;
    anyhow::ensure!(orders != 0, "fewer cards than one order takes");
    let mut store = Store::fresh(args)?;
    eprintln!("importing {} cards", args.cards);
    store.import(args.cards)?;

    eprintln!("selling {orders} orders of {order_cards} cards");
    let reveal = args.reveal == YesNo::Yes;
    let revealed = std::sync::Mutex::new(Latencies::default());
    let done = Done::by(&load, |thread, begun| {
        let (thread, threads) = (u64::from(thread), u64::from(load.threads));
        let mut orders = orders * thread / threads..orders * (thread + 1) / threads;
        let mut till = Till { store: &store, reveal, cards: 0, wrong: 0, latencies: Latencies::default() };
        let mut outstanding = Outstanding::new(&store.engine, load.share() as usize, begun);
        let mut work = Work::default();
        let mut refused = 0;
        loop {
            outstanding.collect(|sale| till.deliver(sale));
            if load.share() < outstanding.commands() + u64::from(load.batch) {
                outstanding.wait()?;
                continue;
            }
            if load.limit.is_some_and(|limit| limit <= begun.elapsed()) {
                break;
            }
            wait_space(&store.engine);
            let submitted = Instant::now();
            let batch = orders.by_ref().take(load.batch as usize);
            work.requests.clear();
            work.requests.extend(batch.map(|order| store.sale(order, args.order_cards)));
            if work.requests.is_empty() {
                break;
            }
            store.engine.execute(&mut work);
            let durable_at = work.durable_at().expect("the work was executed");
            for reply in work.replies.drain(..) {
                match reply.body {
                    ReplyBody::Cards(list) if reply.status.is_done() => {
                        outstanding.push(durable_at, submitted, 1, 1, (submitted, list));
                    }
                    _ => refused += 1,
                }
            }
        }
        while outstanding.wait()? {
            outstanding.collect(|sale| till.deliver(sale));
        }
        revealed.lock().expect("no driver panics").merge(&till.latencies);
        let errors = refused + till.wrong;
        Ok(Done { done: till.cards, errors, latencies: outstanding.latencies, ..Done::default() })
    })?;

    report.measured(done.done, done.elapsed);
    report.latencies(&done.latencies);
    report.errors = done.errors;
    let sold = store.stats()?.counts[Lifecycle::Sold as usize];
    if sold != done.done {
        eprintln!("kami-bench: {} cards of acknowledged orders, but {sold} cards are sold", done.done);
        report.errors += 1;
    }
    let [p50, p99, p999] = revealed.into_inner().expect("no driver panics").percentiles_us();
    report.add("order_cards", order_cards);
    report.add("revealed", reveal);
    report.add("revealed_p50_us", p50);
    report.add("revealed_p99_us", p99);
    report.add("revealed_p999_us", p999);
    load.describe(report);
    store.describe(report);
    Ok(())
}

/// Where durable sales are delivered.
struct Till<'s> {
    store: &'s Store,
    reveal: bool,
    cards: u64,
    wrong: u64,
    latencies: Latencies,
}

impl Till<'_> {
    fn deliver(&mut self, (submitted, list): (Instant, CodeList)) {
        if !self.reveal {
            self.cards += u64::from(list.count);
            return;
        }
        let (right, wrong) = reveal(self.store, &list);
        self.cards += right;
        self.wrong += wrong;
        self.latencies.record(submitted.elapsed(), 1);
    }
}

/// Decrypts the codes of a durable sale and compares them; returns how many were right and wrong.
pub fn reveal(store: &Store, list: &CodeList) -> (u64, u64) {
    let mut right = 0;
    let outcome = store.engine.reveal(list, &mut |card, code| {
        let number = store.number(card.batch(), card.row());
        right += u64::from(code == store.codes.code(number));
    });
    if let Err(error) = outcome {
        eprintln!("kami-bench: codes could not be revealed: {error}");
    }
    (right, u64::from(list.count) - right)
}
