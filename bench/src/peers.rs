//! `peers`: Kami beside what the trade uses today, on the same disk, in the same run.
//!
//! Every round measures every contender once, one after the other, so that a machine that grows slower
//! within the hour slows all of them; a figure is the median over the rounds, with the lowest and the
//! highest beside it. All redeem distinct cards that were loaded before, with the same codes: Redis by a
//! script that does what a careful shop does ([`crate::redis`]), PostgreSQL by the guarded UPDATE of one
//! row ([`crate::postgres`]), Kami by its own workloads, each as a process of its own, as a user would
//! run them. `echo` and `fsync` of the same round are the limits of the network and of the disk.
//!
//! A server that is not installed is named under `missing`; its figures are left out, never guessed.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use crate::args::{Args, Workload};
use crate::child::result;
use crate::postgres::Postgres;
use crate::redeem::Done;
use crate::redis::{Redis, Sync};
use crate::report::{Report, rounded};
use crate::store::Scratch;

/// How long one measurement lasts unless `--seconds` says otherwise; its cards may end it before.
const SECONDS: Duration = Duration::from_secs(10);

/// What is held against what, by the figures' names.
const RATIOS: [(&str, &str); 9] = [
    ("kami_engine_redeem", "redis_always_p64"),
    ("kami_quic_redeem", "redis_always_p64"),
    ("kami_quic_redeem", "redis_everysec_p64"),
    ("kami_quic_redeem", "postgres_c64"),
    ("kami_quic_redeem", "echo"),
    ("kami_quic_terminals", "redis_always_p16"),
    ("kami_quic_terminals", "echo_terminals"),
    ("kami_import", "redis_load"),
    ("redis_recover_seconds", "kami_recover_seconds"),
];

/// The figures of all rounds, by name.
type Figures = BTreeMap<&'static str, Vec<f64>>;

/// Runs the workload.
pub fn run(args: &Args, report: &mut Report) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (redis, postgres) = (Redis::program(), Postgres::programs());
    let mut figures = Figures::new();
    for round in 1..=args.rounds {
        let say = |what: &str| eprintln!("round {round} of {}: {what}", args.rounds);
        own(args, &mut figures, report, &say)?;
        if let Some(program) = &redis {
            for (name, sync, pipelined) in [
                ("redis_always_p1", Sync::Always, 1),
                ("redis_always_p16", Sync::Always, 16),
                ("redis_always_p64", Sync::Always, 64),
                ("redis_everysec_p64", Sync::EverySecond, 64),
            ] {
                say(name);
                let scratch = Scratch::new(&args.dir)?;
                runtime.block_on(async {
                    let mut peer = Redis::start(program, scratch.path(), sync).await?;
                    let loaded = peer.load(args).await?;
                    let done = peer.redeem(args, limit(args), pipelined).await?;
                    take(&mut figures, report, name, &done);
                    if name == "redis_always_p64" {
                        note(&mut figures, "redis_load", loaded.cards_per_s);
                        note(&mut figures, "redis_bytes_per_card", loaded.bytes_per_card);
                        note(&mut figures, "redis_recover_seconds", peer.recover().await?);
                    }
                    anyhow::Ok(())
                })?;
            }
        }
        if let Some(programs) = &postgres {
            say("postgres_c64");
            let scratch = Scratch::new(&args.dir)?;
            runtime.block_on(async {
                let mut peer = Postgres::start(programs, scratch.path()).await?;
                peer.load(args).await?;
                let done = peer.redeem(args, limit(args)).await?;
                take(&mut figures, report, "postgres_c64", &done);
                anyhow::Ok(())
            })?;
        }
    }
    let absent = [("redis", redis.is_none()), ("postgres", postgres.is_none())];
    let missing: Vec<&str> = absent.iter().filter(|(_, missing)| *missing).map(|(name, _)| *name).collect();
    for name in &missing {
        eprintln!("kami-bench: {name} is not installed (Debian: redis-server, postgresql); it is left out");
    }
    report.cards = Some(args.cards);
    report.add("rounds", args.rounds);
    report.add("missing", missing);
    summarise(&figures, report);
    Ok(())
}

/// Kami's own workloads and the limits, each in a process of its own.
fn own(args: &Args, figures: &mut Figures, report: &mut Report, say: &dyn Fn(&str)) -> Result<()> {
    let lone = ["--count", "5000"];
    for (name, workload, more) in [
        ("kami_engine_redeem", Workload::EngineRedeem, &[][..]),
        ("kami_quic_redeem", Workload::QuicRedeem, &[]),
        ("echo", Workload::Echo, &[]),
        ("kami_quic_terminals", Workload::QuicTerminals, &[]),
        ("echo_terminals", Workload::Echo, &["--like", "terminals"]),
        ("kami_import", Workload::Import, &[]),
        ("kami_latency", Workload::QuicLatency, &lone),
        ("echo_latency", Workload::Echo, &["--like", "latency", "--count", "5000"]),
        ("fsync", Workload::Fsync, &lone),
        ("kami_recover_seconds", Workload::Recovery, &[]),
    ] {
        say(name);
        let result = result(&Args { seconds: Some(limit(args)), ..args.clone() }, workload, more)?;
        report.errors += result["errors"].as_u64().context("a result without its errors")?;
        let figure = |field: &str| result[field].as_f64().with_context(|| format!("{name} without {field}"));
        match workload {
            Workload::Recovery => note(figures, name, figure("recover_seconds")?),
            Workload::Fsync => {
                note(figures, "fsync_p50_us", figure("p50_us")?);
                // Lives as long as the report, and there is one.
                report.filesystem = result["filesystem"].as_str().map(|name| &*name.to_owned().leak());
            }
            _ if name.ends_with("latency") => {
                let name = if name == "kami_latency" { "kami_latency_p50_us" } else { "echo_latency_p50_us" };
                note(figures, name, figure("p50_us")?);
            }
            _ => note(figures, name, figure("ops_per_s")?),
        }
    }
    Ok(())
}

fn limit(args: &Args) -> Duration {
    args.seconds.unwrap_or(SECONDS)
}

/// What a peer did in one round.
fn take(figures: &mut Figures, report: &mut Report, name: &'static str, done: &Done) {
    report.errors += done.errors;
    note(figures, name, done.done as f64 / done.elapsed.as_secs_f64());
    let [p50, _, _] = done.latencies.percentiles_us();
    eprintln!("  {:.0} redemptions/s, p50 {} µs", figures[name][figures[name].len() - 1], p50.unwrap_or(0.0));
}

fn note(figures: &mut Figures, name: &'static str, value: f64) {
    figures.entry(name).or_default().push(value);
}

/// Medians under the figures' own names, all rounds under `rounds_…`, and the ratios of the medians.
fn summarise(figures: &Figures, report: &mut Report) {
    let medians: BTreeMap<&str, f64> =
        figures.iter().map(|(name, values)| (*name, median(values.clone()))).collect();
    for (name, values) in figures {
        let (least, most) = values
            .iter()
            .fold((f64::MAX, f64::MIN), |(least, most), value| (least.min(*value), most.max(*value)));
        report.add(name, rounded(medians[name]));
        let all: Vec<f64> = values.iter().copied().map(rounded).collect();
        report.add(
            &format!("spread_{name}"),
            json!({"min": rounded(least), "max": rounded(most), "runs": all}),
        );
    }
    for (over, under) in RATIOS {
        if let (Some(over_median), Some(under_median)) = (medians.get(over), medians.get(under)) {
            report.add(&format!("ratio_{over}_to_{under}"), rounded(over_median / under_median));
        }
    }
    let of = |name| medians.get(name).copied();
    if let (Some(own), Some(disk), Some(net)) =
        (of("kami_latency_p50_us"), of("fsync_p50_us"), of("echo_latency_p50_us"))
    {
        report.add("ratio_kami_latency_to_fsync_and_echo", rounded(own / (disk + net)));
    }
}

/// The middle one, or the mean of the middle two.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len().is_multiple_of(2) { (values[middle - 1] + values[middle]) / 2.0 } else { values[middle] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(vec![7.0]), 7.0);
    }

    #[test]
    fn ratios_are_of_figures_that_there_are() {
        let args = <Args as clap::Parser>::parse_from(["kami-bench", "peers"]);
        let mut report = Report::new(&args);
        let mut figures = Figures::new();
        for value in [10.0, 30.0, 20.0] {
            note(&mut figures, "kami_quic_redeem", value);
            note(&mut figures, "redis_always_p64", value / 10.0);
        }
        summarise(&figures, &mut report);
        assert_eq!(report.own["kami_quic_redeem"], 20.0);
        assert_eq!(report.own["spread_kami_quic_redeem"]["max"], 30.0);
        assert_eq!(report.own["ratio_kami_quic_redeem_to_redis_always_p64"], 10.0);
        assert!(!report.own.contains_key("ratio_kami_quic_redeem_to_postgres_c64"));
    }
}
