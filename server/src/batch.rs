//! `kami batch`: what can be done to all cards of one import at once.

use std::ops::Range;

use clap::{Args, Subcommand};
use kami_engine::{BatchId, BatchReport, Lifecycle};
use serde_json::{Value, json};

use crate::exit::Failure;
use crate::output::{Output, count, table};
use crate::remote::{Catalogue, Remote, Why};
use crate::stock::states;
use crate::time;

/// List, activate, freeze, void and extend batches.
#[derive(Args)]
#[command(
    after_help = "Example:\n  kami batch list coffee\n  kami batch activate 3\n  kami batch activate 3 --rows 0..1000\n  kami batch deactivate 3\n  kami batch freeze 3\n  kami batch unfreeze 3\n  kami batch extend 3 2028-12-31\n  kami batch void 3"
)]
pub struct BatchCommand {
    #[command(flatten)]
    remote: Remote,
    #[command(flatten)]
    why: Why,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// List the batches.
    #[command(after_help = "Example:\n  kami batch list coffee")]
    List {
        /// Only this product's.
        product: Option<String>,
    },
    /// Make the cards redeemable once sold.
    #[command(after_help = "Example:\n  kami batch activate 3\n  kami batch activate 3 --rows 1000..2000")]
    Activate(SomeRows),
    /// Make the unused cards not redeemable.
    #[command(
        after_help = "Example:\n  kami batch deactivate 3\n  kami batch deactivate 3 --rows 1000..2000"
    )]
    Deactivate(SomeRows),
    /// Freeze all cards: nothing is sold or redeemed.
    #[command(after_help = "Example:\n  kami batch freeze 3")]
    Freeze(One),
    /// End the freeze.
    #[command(after_help = "Example:\n  kami batch unfreeze 3")]
    Unfreeze(One),
    /// Make the unsold cards void for good.
    #[command(after_help = "Example:\n  kami batch void 3")]
    Void(One),
    /// Move the end of validity to a later time.
    #[command(after_help = "Example:\n  kami batch extend 3 2028-12-31")]
    Extend {
        #[command(flatten)]
        one: One,
        /// The new end: 2028-12-31 (to its last moment, local time) or 2028-12-31T18:00:00+08:00.
        #[arg(value_parser = time::parse_end)]
        expires: u64,
    },
}

#[derive(Args)]
struct One {
    /// The batch's number.
    batch: u32,
}

#[derive(Args)]
struct SomeRows {
    #[command(flatten)]
    one: One,
    /// Only these rows of the import, counted from 0: 1000..2000 is the second thousand.
    #[arg(long, value_parser = parse_rows, value_name = "FROM..TO")]
    rows: Option<Range<u64>>,
}

fn parse_rows(text: &str) -> Result<Range<u64>, String> {
    let ends = text.split_once("..").and_then(|(from, to)| Option::zip(from.parse().ok(), to.parse().ok()));
    let rows = ends.map(|(from, to)| from..to).filter(|rows: &Range<u64>| !rows.is_empty());
    rows.ok_or_else(|| {
        "not a range of rows; write the first and the one behind the last, as in 0..1000".to_owned()
    })
}

pub async fn run(command: BatchCommand, output: &Output) -> Result<(), Failure> {
    command
        .remote
        .talk_on(&command.why, async |client| {
            let catalogue = Catalogue::read(client).await?;
            let id = |one: One| BatchId(one.batch);
            let batch = match command.action {
                Action::List { product } => {
                    let product = match product {
                        Some(name) => Some(catalogue.find(&name)?.id),
                        None => None,
                    };
                    let listing = client.batch_list(product).await?.value;
                    let rows: Vec<Value> =
                        listing.rows.iter().map(|batch| value(batch, &catalogue)).collect();
                    return output.result(&json!({ "batches": rows, "total": listing.total }), || {
                        let mut text = lines(&listing.rows, &catalogue);
                        if (listing.rows.len() as u64) < u64::from(listing.total) {
                            text += &format!(
                                "\n{} of {}; name a product to see fewer",
                                listing.rows.len(),
                                listing.total
                            );
                        }
                        text
                    });
                }
                Action::Activate(SomeRows { one, rows: None }) => client.batch_activate(id(one)).await?,
                Action::Activate(SomeRows { one, rows: Some(rows) }) => {
                    client.batch_activate_rows(id(one), rows).await?
                }
                Action::Deactivate(SomeRows { one, rows: None }) => client.batch_deactivate(id(one)).await?,
                Action::Deactivate(SomeRows { one, rows: Some(rows) }) => {
                    client.batch_deactivate_rows(id(one), rows).await?
                }
                Action::Freeze(one) => client.batch_freeze(id(one)).await?,
                Action::Unfreeze(one) => client.batch_unfreeze(id(one)).await?,
                Action::Void(one) => client.batch_void(id(one)).await?,
                Action::Extend { one, expires } => client.batch_extend(id(one), expires).await?,
            }
            .value;
            show(&batch, &catalogue, output)
        })
        .await
}

/// Prints one batch.
pub fn show(batch: &BatchReport, catalogue: &Catalogue, output: &Output) -> Result<(), Failure> {
    output.result(&value(batch, catalogue), || lines(std::slice::from_ref(batch), catalogue))
}

/// A batch as JSON.
pub fn value(batch: &BatchReport, catalogue: &Catalogue) -> Value {
    json!({
        "id": batch.id.0,
        "product_id": batch.product.0,
        "product": catalogue.get(batch.product).map(|product| &product.spec.name),
        "label": batch.label,
        "imported_ms": batch.imported_ms,
        "cards": batch.counts.iter().sum::<u64>(),
        "states": states(&batch.counts),
        "active": batch.active,
        "active_rows": batch.active_rows,
        "frozen": batch.frozen,
        "voided": batch.voided,
        "expires_ms": batch.expires_ms,
    })
}

/// Batches as a table.
pub fn lines(batches: &[BatchReport], catalogue: &Catalogue) -> String {
    let rows = batches.iter().map(|batch| {
        let some = batch.active_rows > 0;
        let marks = [
            (!batch.active && !some, "inactive"),
            (!batch.active && some, "active in part"),
            (batch.frozen, "frozen"),
            (batch.voided, "void"),
        ];
        let marks: Vec<&str> = marks.into_iter().filter(|(set, _)| *set).map(|(_, mark)| mark).collect();
        vec![
            batch.id.to_string(),
            catalogue.name(batch.product),
            batch.label.clone(),
            count(batch.counts.iter().sum()),
            count(batch.counts[Lifecycle::Available as usize]),
            time::show(batch.imported_ms),
            time::show(batch.expires_ms),
            marks.join(", "),
        ]
    });
    let header = ["BATCH", "PRODUCT", "LABEL", "CARDS", "AVAILABLE", "IMPORTED", "EXPIRES", ""];
    table(&header, &[0, 3, 4], rows)
}
