//! `kami batch`: what can be done to all cards of one import at once.

use std::ops::Range;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use kami_engine::{
    BatchId, BatchReport, Lifecycle, ORDER_CARDS_MAX, OrderId, Proposal, ProposalId, ProposalState, Proposed,
    Status,
};
use kami_net::Client;
use kami_net::client::Wish;
use serde_json::{Value, json};

use crate::control::{parse_proposal, propose};
use crate::exit::Failure;
use crate::output::{Output, count, table};
use crate::remote::{Catalogue, Remote, Why};
use crate::stock::states;
use crate::time;
use crate::trade::into_file;

/// List, activate, freeze, void, export and extend batches.
#[derive(Args)]
#[command(
    after_help = "Example:\n  kami batch list coffee\n  kami batch activate 3\n  kami batch activate 3 --rows 0..1000\n  kami batch deactivate 3\n  kami batch freeze 3\n  kami batch unfreeze 3\n  kami batch extend 3 2028-12-31\n  kami batch void 3\n  kami batch export 3 --count 500 --why \"for the printer\""
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
    /// Have the codes of unsold cards leave, which are sold with that. It takes two people: propose it, have somebody
    /// else approve it, then fetch the codes with --proposal.
    #[command(
        after_help = "Example:\n  kami batch export 3 --count 500 --why \"for the printer\"\n  kami batch export 3 --proposal 0123456789abcdef0123456789abcdef --out codes.txt"
    )]
    Export {
        #[command(flatten)]
        one: One,
        /// How many cards at most.
        #[arg(long, value_name = "N", default_value_t = ORDER_CARDS_MAX, conflicts_with = "proposal", value_parser = clap::value_parser!(u32).range(1..=i64::from(ORDER_CARDS_MAX)))]
        count: u32,
        /// The approved proposal, whose codes are fetched.
        #[arg(long, value_name = "ID", value_parser = parse_proposal, requires = "out")]
        proposal: Option<ProposalId>,
        /// The new file for the codes, one a line; only its owner may read it.
        #[arg(long, value_name = "FILE", requires = "proposal")]
        out: Option<PathBuf>,
    },
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
                Action::Export { one, proposal: Some(proposal), out: Some(out), .. } => {
                    return fetch(client, id(one), proposal, &out, output).await;
                }
                Action::Export { one, count, .. } => {
                    let wish = Wish::Export(id(one), count);
                    return propose(client, wish, &command.why, output).await;
                }
                Action::Extend { one, expires } => client.batch_extend(id(one), expires).await?,
            }
            .value;
            show(&batch, &catalogue, output)
        })
        .await
}

/// Writes the codes that an approved export of the batch brought.
async fn fetch(
    client: &Client,
    batch: BatchId,
    proposal: ProposalId,
    out: &Path,
    output: &Output,
) -> Result<(), Failure> {
    let (_, proposals) = client.proposals(true).await?;
    let known = proposals.iter().find(|known| known.id == proposal);
    let exports =
        |known: &Proposal| matches!(known.proposed, Proposed::Export { batch: own, .. } if own == batch);
    match known {
        None => Err(refused(Status::NotFound, format!("there is no proposal {proposal}"))),
        Some(known) if !exports(known) => {
            Err(Failure::usage(format!("proposal {proposal} is no export of batch {batch}")))
        }
        Some(known) if known.state != ProposalState::Approved => {
            let state = known.state.name().to_lowercase();
            let message = format!("proposal {proposal} is {state}: somebody else has to approve it first");
            Err(refused(Status::ApprovalRequired, message))
        }
        // The order has the proposal's id.
        Some(_) => into_file(client, OrderId(proposal.0), out, output).await,
    }
}

fn refused(status: Status, message: String) -> Failure {
    Failure { status: Some(status), ..Failure::refused(message) }
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
