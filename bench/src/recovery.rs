//! `recovery`: a process is killed without warning, and the next one's way to ready is timed.
//!
//! ```text
//! parent   starts a filler: import, sell, checkpoint, redeem; every reply durable; "filled N"
//!          SIGKILL
//!          starts the clock and a child: open; "ready N"; stops the clock
//! ```
//! The log since the checkpoint was written past the page cache, so it is read from the disk; the
//! snapshot and the batch files may still be in the cache, as after the crash of a process they are.
//! Every redemption the filler knew of must be there again.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use kami_engine::Lifecycle;

use crate::args::{Args, Workload};
use crate::child::{Child, answer, say, wait_for_the_end};
use crate::redeem::{Load, redeem};
use crate::report::{Report, rounded};
use crate::store::{Scratch, Store};

/// Runs the workload.
pub fn run(args: &Args, report: &mut Report) -> Result<()> {
    let scratch = Scratch::new(&args.dir)?;
    let count = args.count.unwrap_or(args.cards).min(args.cards);
    let begun = Instant::now();
    let counted = ["--count".to_owned(), count.to_string()];
    let mut filler = Child::start(args, Workload::RecoveryFill, scratch.path(), &counted)?;
    let [redeemed, since] = answer(&filler.line("filled")?)?;
    filler.kill()?;
    eprintln!("filled in {:.1} s and killed", begun.elapsed().as_secs_f64());

    let begun = Instant::now();
    let mut child = Child::start(args, Workload::RecoveryChild, scratch.path(), &[])?;
    let [found, cards] = answer(&child.line("ready")?)?;
    report.recover_seconds = Some(rounded(begun.elapsed().as_secs_f64()));
    child.kill()?;
    if (found, cards) != (redeemed, args.cards) {
        eprintln!("kami-bench: {redeemed} of {} cards were redeemed, found {found} of {cards}", args.cards);
        report.errors += 1;
    }
    report.ops = found;
    report.add("log_bytes_since_snapshot", since);
    // The killed children let go of the store, so it can be asked what it is.
    Store::open(args, scratch.path())?.describe(report);
    report.cards = Some(cards);
    Ok(())
}

/// The filler: see the module's head.
pub fn fill(args: &Args) -> Result<()> {
    let directory = args.store.as_deref().context("no --store")?;
    let mut store = Store::open(args, directory)?;
    store.add_product(0)?;
    eprintln!("importing and selling {} cards", args.cards);
    store.import(args.cards)?;
    store.sell(args.cards)?;
    store.engine.checkpoint()?;
    let from = store.stats()?.durable_end;
    let count = args.count.unwrap_or(args.cards);
    eprintln!("redeeming {count} of them");
    let done = redeem(&store.engine, store.codes, 0..args.cards, count, &Load::of(args))?;
    ensure!(done.errors == 0, "{} redemptions were refused", done.errors);
    say(&format!("filled {} {}", done.done, store.stats()?.durable_end - from));
    wait_for_the_end()
}

/// The child that recovers.
pub fn recover(args: &Args) -> Result<()> {
    let directory = args.store.as_deref().context("no --store")?;
    let store = Store::open(args, directory)?;
    let stats = store.stats()?;
    say(&format!("ready {} {}", stats.counts[Lifecycle::Redeemed as usize], stats.cards));
    wait_for_the_end()
}
