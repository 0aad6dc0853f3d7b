//! `engine-checkpoint`: what a checkpoint costs those who trade meanwhile. Half of the cards are redeemed with nothing
//! beside it, then the other half while one checkpoint after the other is written; the difference is theirs.
//!
//! The figures of the result are those with checkpoints, `alone_…` those without.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Result, ensure};
use kami_engine::Lifecycle;

use crate::args::Args;
use crate::peers::median;
use crate::redeem::{Load, redeem};
use crate::report::{Report, rounded};
use crate::store::Store;

/// Few enough outstanding that a reply tells of the checkpoint and not of the queue before it.
const WINDOW: u32 = 1024;

/// Runs the workload.
pub fn run(args: &Args, report: &mut Report) -> Result<()> {
    let load = Load { window: args.window.unwrap_or(WINDOW), ..Load::of(args) };
    ensure!(2 <= args.cards, "two halves need two cards");
    let half = args.cards / 2;
    let count = args.count.unwrap_or(args.cards).min(args.cards) / 2;
    let mut store = Store::fresh(args)?;
    eprintln!("importing and selling {} cards", args.cards);
    store.import(args.cards)?;
    store.sell(args.cards)?;

    eprintln!("redeeming {count} of them, and {count} beside checkpoints");
    let alone = redeem(&store.engine, store.codes, 0..half, count, &load)?;
    let redeeming = AtomicBool::new(true);
    let (done, checkpoints) = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut written = Vec::new();
            while redeeming.load(Ordering::Relaxed) {
                let begun = Instant::now();
                let checkpoint = store.engine.checkpoint()?;
                written.push((begun.elapsed().as_secs_f64(), checkpoint.bytes));
            }
            anyhow::Ok(written)
        });
        let done = redeem(&store.engine, store.codes, half..args.cards, count, &load);
        redeeming.store(false, Ordering::Relaxed);
        (done, writer.join().expect("a checkpoint does not panic"))
    });
    let (done, checkpoints) = (done?, checkpoints?);

    report.measured(done.done, done.elapsed);
    report.latencies(&done.latencies);
    report.errors = alone.errors + done.errors;
    let [p50, p99, p999] = alone.latencies.percentiles_us();
    report.add("alone_ops_per_s", (alone.done as f64 / alone.elapsed.as_secs_f64()).round());
    report.add("alone_p50_us", p50);
    report.add("alone_p99_us", p99);
    report.add("alone_p999_us", p999);
    report.add("checkpoints", checkpoints.len());
    report.add("checkpoint_seconds", rounded(median(checkpoints.iter().map(|(took, _)| *took).collect())));
    report.add("checkpoint_bytes", checkpoints.last().map(|(_, bytes)| *bytes));
    let redeemed = store.stats()?.counts[Lifecycle::Redeemed as usize];
    if redeemed != alone.done + done.done {
        eprintln!("kami-bench: {} acknowledged, but {redeemed} are redeemed", alone.done + done.done);
        report.errors += 1;
    }
    load.describe(report);
    store.describe(report);
    Ok(())
}
