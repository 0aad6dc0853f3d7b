//! `engine-mixed`: the mix of [`Mix`] in process. A sale counts when its code was revealed and is right.

use std::time::Instant;

use anyhow::Result;
use kami_engine::{CodeList, Lifecycle, ReplyBody, Work};

use crate::args::Args;
use crate::mix::Mix;
use crate::outstanding::Outstanding;
use crate::redeem::{Done, Load};
use crate::report::Report;
use crate::sell::reveal;
use crate::store::{Store, wait_space};

/// Runs the workload.
pub fn run(args: &Args, report: &mut Report) -> Result<()> {
    let load = Load::of(args);
    let (sold, stock, count) = Mix::plan(args)?;
    let mut store = Store::fresh(args)?;
    eprintln!("importing {} cards and selling two thirds of them", args.cards);
    store.import(sold)?;
    store.sell(sold)?;
    store.import(stock)?;

    eprintln!("running {count} commands");
    let reversed = std::sync::atomic::AtomicU64::new(0);
    let done = Done::by(&load, |thread, begun| {
        let mix = Mix::part(sold, count, u64::from(thread), u64::from(load.threads));
        let mut driver = Driver { store: &store, mix, spare: Vec::new(), wrong: 0 };
        let done = driver.run(&load, begun)?;
        reversed.fetch_add(driver.mix.reversed(), std::sync::atomic::Ordering::Relaxed);
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
    report.add("mix", Mix::IN_WORDS);
    load.describe(report);
    store.describe(report);
    Ok(())
}

/// One thread of the workload.
struct Driver<'s> {
    store: &'s Store,
    mix: Mix,
    /// Emptied lists of sales, to be used again.
    spare: Vec<Vec<CodeList>>,
    wrong: u64,
}

impl Driver<'_> {
    fn run(&mut self, load: &Load, begun: Instant) -> Result<Done> {
        let engine = &self.store.engine;
        let executions = (load.share() / u64::from(load.batch)) as usize;
        self.spare.resize_with(executions + 2, || Vec::with_capacity(load.batch as usize));
        let mut outstanding = Outstanding::new(engine, executions, begun);
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
            for step in self.mix.by_ref().take(load.batch as usize) {
                work.requests.push(self.store.step(step)?);
            }
            if work.requests.is_empty() {
                break;
            }
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
        Ok(Done { done, errors: errors + self.wrong, latencies, ..Done::default() })
    }

    fn deliver(&mut self, mut sales: Vec<CodeList>) {
        for list in sales.drain(..) {
            self.wrong += reveal(self.store, &list).1;
        }
        self.spare.push(sales);
    }
}
