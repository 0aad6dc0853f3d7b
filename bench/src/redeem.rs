//! `engine-redeem`: the main figure. Distinct sold cards are redeemed from their plaintext codes.
//!
//! Every thread walks parts of the cards in an order that jumps, executes batches as a connection
//! would, and keeps its share of the window under way. Inside the clock: making the code, normalising,
//! digesting, look-up, decision, log entry, the wait for the disk. Outside: importing and selling the
//! cards, and the check at the end that the engine counts as many redeemed cards as were acknowledged.

use std::ops::Range;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use kami_engine::{Caller, CodeGroup, Command, Engine, Lifecycle, ReplyFlags, Work};

use crate::args::Args;
use crate::codes::{Codes, Scattered};
use crate::machine::Resident;
use crate::outstanding::Outstanding;
use crate::report::{Latencies, Report};
use crate::store::{Purpose, Store, request, request_id, wait_space};
use crate::watch::Watch;

/// How a run is driven.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Threads.
    pub threads: u32,
    /// Commands an execution.
    pub batch: u32,
    /// Commands under way, over all threads.
    pub window: u32,
    /// When to stop early.
    pub limit: Option<Duration>,
}

impl Load {
    /// The acceptance configuration, or what the flags say.
    pub fn of(args: &Args) -> Load {
        Load {
            threads: args.threads.unwrap_or(2),
            batch: args.batch.unwrap_or(64),
            window: args.window.unwrap_or(1 << 16),
            limit: args.seconds,
        }
    }

    /// Sets the fields that say how it was driven.
    pub fn describe(&self, report: &mut Report) {
        report.threads = Some(self.threads);
        report.batch = Some(self.batch);
        report.window = Some(self.window);
    }

    /// A thread's share of the window, at least one batch.
    pub fn share(&self) -> u64 {
        u64::from((self.window / self.threads).max(self.batch))
    }
}

/// What the threads of a run did together.
#[derive(Debug, Default)]
pub struct Done {
    /// Commands answered DONE, and durable.
    pub done: u64,
    /// The same within the warm-up, which a figure leaves out.
    pub warm: u64,
    /// Commands that were not.
    pub errors: u64,
    /// From submission to durable reply.
    pub latencies: Latencies,
    /// From the first submission to the last durable reply.
    pub elapsed: Duration,
}

impl Done {
    /// Nothing yet, with a course that counts seconds from `begun`.
    pub fn counted_from(begun: Instant) -> Done {
        Done { latencies: Latencies::since(begun), ..Done::default() }
    }

    /// Takes in what another thread or connection did at the same time.
    pub fn add(&mut self, part: &Done) {
        self.done += part.done;
        self.warm += part.warm;
        self.errors += part.errors;
        self.latencies.merge(&part.latencies);
        self.elapsed = self.elapsed.max(part.elapsed);
    }

    /// Runs `drive` on every thread, all beginning at the same time.
    pub fn by(load: &Load, drive: impl Fn(u32, Instant) -> Result<Done> + Sync) -> Result<Done> {
        let barrier = Barrier::new(load.threads as usize);
        let run = |thread| {
            barrier.wait();
            let begun = Instant::now();
            let mut done = drive(thread, begun)?;
            done.elapsed = begun.elapsed();
            Ok(done)
        };
        std::thread::scope(|scope| {
            // Named, so that a profile tells drivers from the log's threads and from the preparations.
            let start = |thread| {
                let named = std::thread::Builder::new().name(format!("driver-{thread}"));
                named.spawn_scoped(scope, move || run(thread)).expect("the system starts a thread")
            };
            let threads: Vec<_> = (0..load.threads).map(start).collect();
            threads.into_iter().try_fold(Done::default(), |mut total, thread| {
                let part: Result<Done> = thread.join().expect("a driver thread does not panic");
                total.add(&part?);
                Ok(total)
            })
        })
    }
}

/// Runs the workload.
pub fn run(args: &Args, report: &mut Report) -> Result<()> {
    let load = Load::of(args);
    let count = args.count.unwrap_or(args.cards).min(args.cards);
    let mut store = Store::fresh(args)?;
    eprintln!("importing and selling {} cards", args.cards);
    store.import(args.cards)?;
    store.sell(args.cards)?;

    eprintln!("redeeming {count} of them");
    let watch = Watch::start(Instant::now(), || Some(Resident::now().all()));
    let done = redeem(&store.engine, store.codes, 0..args.cards, count, &load)?;
    report.resident(watch.end());
    report.measured(done.done, done.elapsed);
    report.latencies(&done.latencies);
    report.errors = done.errors;
    let redeemed = store.stats()?.counts[Lifecycle::Redeemed as usize];
    if redeemed != done.done {
        eprintln!("kami-bench: {} redemptions acknowledged, but {redeemed} cards are redeemed", done.done);
        report.errors += 1;
    }
    load.describe(report);
    store.describe(report);
    Ok(())
}

/// Redeems `count` of the sold cards whose numbers are in `cards`, each once.
pub fn redeem(engine: &Engine, codes: Codes, cards: Range<u64>, count: u64, load: &Load) -> Result<Done> {
    let (first, cards) = (cards.start, cards.end - cards.start);
    // Taken by whoever is free: a thread that shares its core with the log's own must not be waited for.
    let (parts, next_part) = (u64::from(load.threads) * 64, AtomicU64::new(0));
    let part = || {
        let part = next_part.fetch_add(1, Ordering::Relaxed);
        let share = count * (part + 1) / parts - count * part / parts;
        let numbers = || Scattered::part(cards, part, parts).take(share as usize);
        (part < parts).then(|| numbers().map(move |number| first + number))
    };
    Done::by(load, |_, begun| {
        let mut numbers = std::iter::from_fn(part).flatten();
        let mut outstanding =
            Outstanding::new(engine, (load.share() / u64::from(load.batch)) as usize, begun);
        let (mut work, mut asked, mut group) = (Work::default(), Vec::new(), CodeGroup::default());
        let mut errors = 0;
        loop {
            outstanding.collect(|()| ());
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
            asked.clear();
            asked.extend(numbers.by_ref().take(load.batch as usize));
            for asked in asked.chunks(CodeGroup::CODES_MAX) {
                group.clear();
                for number in asked {
                    group.push(&codes.code(*number))?;
                }
                engine.digest_group(Caller::LOCAL.tenant, &mut group);
                for (number, card) in asked.iter().zip(group.digests()) {
                    let command = Command::Redeem { card: *card, pin: None, amount: 0, partial: false };
                    work.requests.push(request(request_id(Purpose::Redeem, *number), command));
                }
            }
            if work.requests.is_empty() {
                break;
            }
            engine.execute(&mut work);
            let commands = work.replies.len() as u64;
            // A repetition is no redemption, and there are none in this workload.
            let first = |flags: ReplyFlags| !flags.contains(ReplyFlags::REPLAYED);
            let done = work.replies.iter().filter(|reply| reply.status.is_done() && first(reply.flags));
            let done = done.count() as u64;
            errors += commands - done;
            let durable_at = work.durable_at().expect("the work was executed");
            outstanding.push(durable_at, submitted, commands, done, ());
        }
        while outstanding.wait()? {
            outstanding.collect(|()| ());
        }
        Ok(Done { done: outstanding.done, errors, latencies: outstanding.latencies, ..Done::default() })
    })
}
