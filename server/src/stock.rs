//! `kami stock` and `kami stats`: figures.

use std::time::{Duration, Instant};

use clap::Args;
use kami_engine::{Lifecycle, Stats as Figures, StockLine};
use serde_json::{Map, Value, json};
use tokio::time::MissedTickBehavior;

use crate::exit::Failure;
use crate::output::{Output, count, table};
use crate::remote::{Catalogue, Remote};
use crate::time;

/// Count the stock by product and batch.
#[derive(Args)]
#[command(after_help = "Example:\n  kami stock coffee")]
pub struct Stock {
    /// Only this product's.
    product: Option<String>,
    #[command(flatten)]
    remote: Remote,
}

/// Show the engine's own figures.
#[derive(Args)]
#[command(after_help = "Example:\n  kami stats --json\n  kami stats --watch")]
pub struct Stats {
    /// Show them again every so many seconds, with what happened a second in between, until interrupted.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2", value_parser = clap::value_parser!(u64).range(1..=3600))]
    watch: Option<u64>,
    #[command(flatten)]
    remote: Remote,
}

pub async fn stock(command: Stock, output: &Output) -> Result<(), Failure> {
    command
        .remote
        .talk(async |client| {
            let catalogue = Catalogue::read(client).await?;
            let product = match &command.product {
                Some(name) => Some(catalogue.find(name)?.id),
                None => None,
            };
            let lines = client.stock(product).await?.value.rows;
            let sum = |of: fn(&StockLine) -> u64| lines.iter().map(of).sum::<u64>();
            let rows = lines.iter().map(|line| {
                json!({
                    "product_id": line.product.0,
                    "product": catalogue.get(line.product).map(|product| &product.spec.name),
                    "batch": line.batch.0,
                    "imported": line.imported,
                    "sellable": line.sellable,
                    "states": states(&line.counts),
                })
            });
            let (imported, sellable) = (sum(|line| line.imported), sum(|line| line.sellable));
            let value =
                json!({ "imported": imported, "sellable": sellable, "lines": rows.collect::<Vec<_>>() });
            output.result(&value, || {
                let state = |line: &StockLine, lifecycle: Lifecycle| count(line.counts[lifecycle as usize]);
                let rows = lines.iter().map(|line| {
                    vec![
                        catalogue.name(line.product),
                        line.batch.to_string(),
                        count(line.imported),
                        count(line.sellable),
                        state(line, Lifecycle::Sold),
                        state(line, Lifecycle::Redeemed),
                        state(line, Lifecycle::Voided),
                    ]
                });
                let header = ["PRODUCT", "BATCH", "IMPORTED", "SELLABLE", "SOLD", "REDEEMED", "VOIDED"];
                let listing = table(&header, &[1, 2, 3, 4, 5, 6], rows);
                format!("{listing}\nin all {} imported, {} for sale", count(imported), count(sellable))
            })
        })
        .await
}

pub async fn stats(command: Stats, output: &Output) -> Result<(), Failure> {
    command
        .remote
        .talk(async |client| {
            let Some(seconds) = command.watch else {
                let stats = client.stats().await?.value;
                return output.result(&figures(&stats), || lines(&stats).join("\n"));
            };
            let mut before: Option<(Instant, Figures)> = None;
            let mut tick = tokio::time::interval(Duration::from_secs(seconds));
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tick.tick().await;
                let (now, stats) = (Instant::now(), client.stats().await?.value);
                let rates = before.map(|(then, before)| rates(&before, &stats, now - then));
                let mut value = figures(&stats);
                value["per_second"] = rates.iter().flatten().map(|(name, rate)| (*name, *rate)).collect();
                output.instead(&value, || redrawn(&stats, rates.as_deref().unwrap_or_default()))?;
                before = Some((now, stats));
            }
        })
        .await
}

/// What happened a second. A server that was started again in between has counted from 0.
fn rates(before: &Figures, now: &Figures, time: Duration) -> Vec<(&'static str, u64)> {
    let state = |stats: &Figures, lifecycle: Lifecycle| stats.counts[lifecycle as usize];
    let since = |of: &dyn Fn(&Figures) -> u64| of(now).checked_sub(of(before)).unwrap_or(of(now));
    // Gone back by reversals: then nothing was redeemed, on balance.
    let redeemed = state(now, Lifecycle::Redeemed).saturating_sub(state(before, Lifecycle::Redeemed));
    let counted = [
        ("commands", since(&|stats| stats.commands)),
        ("refused", since(&|stats| stats.refused)),
        ("wrong_codes", since(&|stats| stats.misses)),
        ("orders", since(&|stats| stats.orders)),
        ("redeemed", redeemed),
        ("commits", since(&|stats| stats.commits)),
        ("log_bytes", since(&|stats| stats.tail)),
    ];
    counted.map(|(name, count)| (name, (count as f64 / time.as_secs_f64()).round() as u64)).into()
}

/// The figures and, below them, the rates.
fn redrawn(stats: &Figures, rates: &[(&str, u64)]) -> String {
    let mut text = lines(stats);
    text.push(String::new());
    text.extend(
        rates.iter().map(|(name, rate)| format!("{:<12} {} a second", name.replace('_', " "), count(*rate))),
    );
    text.join("\n") + "\n"
}

fn figures(stats: &Figures) -> Value {
    json!({
        "cards": stats.cards,
        "batches": stats.batches,
        "products": stats.products,
        "orders": stats.orders,
        "commands": stats.commands,
        "refused": stats.refused,
        "misses": stats.misses,
        "rate_limited": stats.rate_limited,
        "budgets_spent": stats.budgets_spent,
        "commits": stats.commits,
        "tail": stats.tail,
        "durable_end": stats.durable_end,
        "time_ms": stats.time_ms,
        "states": states(&stats.counts),
    })
}

fn lines(stats: &Figures) -> Vec<String> {
    let mut lines = vec![
        format!("cards        {}", count(stats.cards)),
        format!("batches      {}", count(stats.batches)),
        format!("products     {}", count(stats.products)),
        format!("orders       {}", count(stats.orders)),
        format!("commands     {} since the start, {} refused", count(stats.commands), count(stats.refused)),
        format!(
            "wrong codes  {} since the start; budgets spent {} times, {} requests turned away",
            count(stats.misses),
            count(stats.budgets_spent),
            count(stats.rate_limited)
        ),
        format!("commits      {} since the start", count(stats.commits)),
        format!("log          {} bytes, durable to {}", count(stats.tail), count(stats.durable_end)),
        format!("engine time  {}", time::show(stats.time_ms)),
    ];
    for lifecycle in Lifecycle::ALL {
        let cards = stats.counts[lifecycle as usize];
        if cards > 0 {
            lines.push(format!("{:<12} {}", lifecycle.name().to_lowercase(), count(cards)));
        }
    }
    lines
}

/// Cards by state, under the states' names.
pub fn states(counts: &[u64; Lifecycle::COUNT]) -> Value {
    let named =
        Lifecycle::ALL.map(|lifecycle| (lifecycle.name().to_owned(), counts[lifecycle as usize].into()));
    Value::Object(Map::from_iter(named))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_differences_over_the_time_between() {
        let mut before = Figures { commands: 1000, commits: 10, tail: 5000, ..Figures::default() };
        before.counts[Lifecycle::Redeemed as usize] = 50;
        let mut now = Figures { commands: 3000, commits: 20, tail: 25_000, ..before };
        now.counts[Lifecycle::Redeemed as usize] = 40;
        let rate = |rates: &[(&str, u64)], name| rates.iter().find(|(n, _)| *n == name).unwrap().1;
        let ordinary = rates(&before, &now, Duration::from_secs(2));
        assert_eq!((rate(&ordinary, "commands"), rate(&ordinary, "commits")), (1000, 5));
        assert_eq!((rate(&ordinary, "log_bytes"), rate(&ordinary, "redeemed")), (10_000, 0));
        let restarted = Figures { commands: 100, ..now };
        assert_eq!(rate(&rates(&before, &restarted, Duration::from_secs(2)), "commands"), 50);
    }
}
