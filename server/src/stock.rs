//! `kami stock` and `kami stats`: figures.

use clap::Args;
use kami_engine::{Lifecycle, StockLine};
use serde_json::{Map, Value, json};

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
#[command(after_help = "Example:\n  kami stats --json")]
pub struct Stats {
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
            let stats = client.stats().await?.value;
            let value = json!({
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
            });
            output.result(&value, || {
                let mut lines = vec![
                    format!("cards        {}", count(stats.cards)),
                    format!("batches      {}", count(stats.batches)),
                    format!("products     {}", count(stats.products)),
                    format!("orders       {}", count(stats.orders)),
                    format!(
                        "commands     {} since the start, {} refused",
                        count(stats.commands),
                        count(stats.refused)
                    ),
                    format!(
                        "wrong codes  {} since the start; budgets spent {} times, {} requests turned away",
                        count(stats.misses),
                        count(stats.budgets_spent),
                        count(stats.rate_limited)
                    ),
                    format!("commits      {} since the start", count(stats.commits)),
                    format!(
                        "log          {} bytes, durable to {}",
                        count(stats.tail),
                        count(stats.durable_end)
                    ),
                    format!("engine time  {}", time::show(stats.time_ms)),
                ];
                for lifecycle in Lifecycle::ALL {
                    let cards = stats.counts[lifecycle as usize];
                    if cards > 0 {
                        lines.push(format!("{:<12} {}", lifecycle.name().to_lowercase(), count(cards)));
                    }
                }
                lines.join("\n")
            })
        })
        .await
}

/// Cards by state, under the states' names.
pub fn states(counts: &[u64; Lifecycle::COUNT]) -> Value {
    let named =
        Lifecycle::ALL.map(|lifecycle| (lifecycle.name().to_owned(), counts[lifecycle as usize].into()));
    Value::Object(Map::from_iter(named))
}
