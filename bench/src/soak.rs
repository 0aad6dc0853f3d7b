//! `soak`: the same load for minutes or hours, and a verdict: memory and p99 at the end are those of the beginning.
//!
//! The load is an open loop of redemptions, queries and reversals ([`Mix::lasting`]), because it must be the same from
//! the first second to the last, and because nothing of it may make the store itself larger: each card is imported and
//! sold before, as many as the time takes. So memory that grows is a leak. Checkpoints are written beside it, as they
//! are in trade.
//!
//! What grows is the log on the disk: it is the database, and nothing of it is thrown away. How much is in the result.
//!
//! Judged are the first third of the measured time and the last: p99 over all answers of each, and the median of the
//! server's resident memory. What the first minutes need for buffers falls into a warm-up.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Result, ensure};
use kami_net::{Client, ClientOptions};

use crate::args::Args;
use crate::codes::Codes;
use crate::mix::Mix;
use crate::network::Network;
use crate::peers::median;
use crate::quic::{Mixed, finish};
use crate::report::{Report, rounded};
use crate::svg::{memory, time};

const MINUTES: Duration = Duration::from_secs(600);
/// Commands a second, unless `--rate` says otherwise.
const RATE: u32 = 20_000;
/// Less than this is what an allocator keeps or gives back as it likes.
const MEMORY_NOISE_BYTES: f64 = (16 << 20) as f64;
/// Fewer seconds have no thirds worth comparing.
const SECONDS_MIN: usize = 6;

/// Runs the workload.
pub fn run(args: &Args, report: &mut Report) -> Result<()> {
    let time = args.minutes.or(args.seconds).unwrap_or(MINUTES);
    ensure!(SECONDS_MIN as u64 <= time.as_secs(), "a soak takes at least {SECONDS_MIN} seconds");
    let warm_up =
        if args.warm_up.is_zero() { (time / 20).min(Duration::from_secs(30)) } else { args.warm_up };
    let mut args = Args { seconds: Some(time), rate: args.rate.or(Some(RATE)), warm_up, ..args.clone() };
    let (connections, shape) = Network::shape(&args);
    let parts = u64::from(connections);
    let count = Network::count(&args, u64::MAX)?;
    args.cards = Mix::lasting_cards(count, parts);
    let network = Network::start(&args, args.cards, report)?;
    let log_from = network.log_end(&args)?;
    let checkpoints = Checkpoints::start(network.options(), args.checkpoint_every);
    let (codes, shop, sold) = (Codes::new(args.seed), network.shop, args.cards);
    let done = network.run(&args, connections, report, |part, line, begun, turn| {
        let share = count * (part + 1) / parts - count * part / parts;
        let source = Mixed::new(codes, shop, Mix::lasting(sold, count, part, parts), sold);
        Box::pin(line.drive(source, turn, share, shape, begun))
    })?;
    let took_ms = checkpoints.end()?;
    let log_bytes = network.log_end(&args)? - log_from;
    report.add("mix", Mix::LASTING_IN_WORDS);
    report.add("log_grew_bytes", log_bytes);
    report.add("log_bytes_a_command", rounded(log_bytes as f64 / count as f64));
    report.add("checkpoints", took_ms.len());
    report.add("checkpoint_longest_ms", took_ms.into_iter().max());
    finish(report, &done, done.done + done.warm, connections, shape);
    eprintln!("the log grew by {} and keeps all of it", memory(log_bytes as f64));
    judge(&args, report)
}

/// Compares the last third with the first.
fn judge(args: &Args, report: &mut Report) -> Result<()> {
    let series = report.series();
    ensure!(SECONDS_MIN <= series.len(), "the run ended after {} seconds", series.len());
    let third = series.len() / 3;
    let thirds = [0..third, series.len() - third..series.len()];
    let p99 = thirds.clone().map(|seconds| series.percentile_us(seconds, 0.99).unwrap_or(f64::INFINITY));
    report.add("p99_us_first_third", p99[0].round());
    report.add("p99_us_last_third", p99[1].round());
    let rose = p99[0] * args.p99_factor < p99[1];
    say("p99", p99.map(time), args.p99_factor, rose);
    report.errors += u64::from(rose);

    let resident = |seconds: std::ops::Range<usize>| {
        let seen = report.resident_bytes.get(seconds)?;
        Some(median(seen.iter().map(|bytes| *bytes as f64).collect()))
    };
    let [first, last] = thirds.map(|seconds| {
        // The last second's end may have been missed by a little.
        let end = seconds.end.min(report.resident_bytes.len());
        if seconds.start < end { resident(seconds.start..end) } else { None }
    });
    let (Some(first), Some(last)) = (first, last) else {
        eprintln!("memory was not judged: give --metrics, where the server tells of itself");
        return Ok(());
    };
    report.add("resident_bytes_first_third", first);
    report.add("resident_bytes_last_third", last);
    let grew = first * args.memory_factor + MEMORY_NOISE_BYTES < last;
    say("memory", [first, last].map(memory), args.memory_factor, grew);
    report.errors += u64::from(grew);
    Ok(())
}

fn say(what: &str, [first, last]: [String; 2], factor: f64, more: bool) {
    let verdict = if more { "MORE than" } else { "within" };
    eprintln!("{what}: {first} in the first third, {last} in the last: {verdict} {factor} times that");
}

/// A client of its own that has checkpoints written, as an operator's timer does.
struct Checkpoints {
    end: Sender<()>,
    thread: JoinHandle<Result<Vec<u64>>>,
}

impl Checkpoints {
    fn start(options: ClientOptions, every: Duration) -> Checkpoints {
        let (end, ended) = channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let mut took_ms = Vec::new();
            while ended.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                let checkpoint = runtime.block_on(async {
                    let client = Client::connect(options.clone()).await?;
                    let checkpoint = client.checkpoint().await?.value;
                    client.close().await;
                    anyhow::Ok(checkpoint)
                })?;
                took_ms.push(checkpoint.took_ms);
            }
            Ok(took_ms)
        });
        Checkpoints { end, thread }
    }

    /// How long each took, in milliseconds.
    fn end(self) -> Result<Vec<u64>> {
        // It may have ended by itself, and says why.
        let _ = self.end.send(());
        self.thread.join().expect("asking for checkpoints does not panic")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use clap::Parser;

    use super::*;
    use crate::report::Latencies;

    /// Nine seconds of answers, with a p99 and a memory for each.
    fn errors(p99_ms: [u64; 9], resident_mib: [u64; 9], more: &[&str]) -> u64 {
        let args = Args::parse_from([&["kami-bench", "soak"], more].concat());
        let mut report = Report::new(&args);
        let begun = Instant::now();
        let mut latencies = Latencies::since(begun);
        for (second, ms) in p99_ms.into_iter().enumerate() {
            let now = begun + Duration::from_millis(second as u64 * 1000 + 500);
            latencies.record_at(now, Duration::from_millis(1), 90);
            latencies.record_at(now, Duration::from_millis(ms), 10);
        }
        report.measured(900, Duration::from_secs(9));
        report.latencies(&latencies);
        report.resident(resident_mib.map(|mib| mib << 20).to_vec());
        judge(&args, &mut report).expect("a verdict");
        report.errors
    }

    #[test]
    fn what_grows_to_the_end_fails_and_a_peak_between_does_not() {
        let (flat, grows) = ([200; 9], [200, 210, 220, 230, 240, 250, 260, 270, 280]);
        assert_eq!(errors([5, 5, 5, 90, 90, 90, 5, 5, 5], flat, &[]), 0);
        assert_eq!(errors([5, 5, 5, 5, 5, 5, 9, 9, 9], flat, &[]), 1, "p99");
        assert_eq!(errors([5, 5, 5, 5, 5, 5, 9, 9, 9], flat, &["--p99-factor", "2"]), 0);
        assert_eq!(errors([5; 9], grows, &[]), 1, "memory");
        assert_eq!(errors([5; 9], grows, &["--memory-factor", "1.5"]), 0);
        assert_eq!(errors([5; 9], [20, 20, 20, 25, 25, 25, 30, 30, 30], &[]), 0, "less than is noise");
    }
}
