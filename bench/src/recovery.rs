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

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use kami_engine::Lifecycle;

use crate::args::{Args, PathChoice, Workload};
use crate::redeem::{Load, redeem};
use crate::report::{Report, rounded};
use crate::store::{Scratch, Store};

/// Runs the workload.
pub fn run(args: &Args, report: &mut Report) -> Result<()> {
    let scratch = Scratch::new(&args.dir)?;
    let count = args.count.unwrap_or(args.cards).min(args.cards);
    let begun = Instant::now();
    let mut filler = Process::start(args, Workload::RecoveryFill, scratch.path(), count)?;
    let [redeemed, since] = filler.answer("filled")?;
    filler.kill()?;
    eprintln!("filled in {:.1} s and killed", begun.elapsed().as_secs_f64());

    let begun = Instant::now();
    let mut child = Process::start(args, Workload::RecoveryChild, scratch.path(), count)?;
    let [found, cards] = child.answer("ready")?;
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
    store.add_product()?;
    eprintln!("importing and selling {} cards", args.cards);
    store.import(args.cards)?;
    store.sell(args.cards)?;
    store.engine.checkpoint()?;
    let from = store.stats()?.durable_end;
    let count = args.count.unwrap_or(args.cards);
    eprintln!("redeeming {count} of them");
    let done = redeem(&store.engine, store.codes, args.cards, count, &Load::of(args))?;
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

fn say(line: &str) {
    println!("{line}");
    std::io::stdout().flush().expect("the parent listens");
}

/// Blocks until the parent kills us, or is gone itself.
fn wait_for_the_end() -> Result<()> {
    let _ = std::io::stdin().read_line(&mut String::new())?;
    Ok(())
}

/// A child process of this same binary, killed when dropped.
struct Process(Child);

impl Process {
    fn start(args: &Args, workload: Workload, store: &std::path::Path, count: u64) -> Result<Process> {
        let path = match args.commit_path {
            PathChoice::Direct => "direct",
            PathChoice::Mapped => "mapped",
            PathChoice::Auto => "auto",
        };
        let child = Command::new(std::env::current_exe()?)
            .args([&workload.name(), "--commit-path", path])
            .args(["--cards", &args.cards.to_string(), "--count", &count.to_string()])
            .args(["--seed", &args.seed.to_string(), "--store"])
            .arg(store)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start a child")?;
        Ok(Process(child))
    }

    /// Waits for the line that begins with `word`; returns its two numbers.
    fn answer(&mut self, word: &str) -> Result<[u64; 2]> {
        let mut line = String::new();
        BufReader::new(self.0.stdout.as_mut().context("no output of a child")?).read_line(&mut line)?;
        let mut words = line.split_whitespace();
        ensure!(words.next() == Some(word), "the child ended before it was {word}");
        let mut number = || words.next().and_then(|word| word.parse().ok());
        let numbers = number().zip(number()).context("a line without numbers")?;
        Ok(numbers.into())
    }

    fn kill(&mut self) -> Result<()> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may be gone already; then there is nothing to do.
        let _ = self.kill();
    }
}
