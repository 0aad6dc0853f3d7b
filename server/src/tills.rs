//! `kami outcome` and `pin-unlock`: what tills leave behind.

use clap::Args;
use kami_engine::{DocumentId, OrderId, ReplyFlags, RequestId};
use kami_net::client::Target;
use serde_json::json;

use crate::card;
use crate::code::{document_id, order_id, parse_id, read_secret};
use crate::exit::Failure;
use crate::output::Output;
use crate::remote::{Catalogue, Remote};
use crate::time;

/// Ask what became of a request, without doing it: for a till that heard no answer.
///
/// Says NO_EFFECT of a request that has done nothing so far; it may still arrive. REVERSED_BEFORE_ARRIVAL is said of one
/// that never will do anything.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  kami outcome 0123456789abcdef0123456789abcdef --card COFFEE-00000001\n  kami outcome 0123456789abcdef0123456789abcdef --order 2026-0001"
)]
pub struct Outcome {
    /// The request id, 32 hex digits.
    #[arg(value_name = "ID", value_parser = parse_id)]
    asked: RequestId,
    #[command(flatten)]
    target: OneTarget,
    #[command(flatten)]
    remote: Remote,
}

/// What the request was about.
#[derive(Args)]
#[group(required = true, multiple = false)]
struct OneTarget {
    /// It was about a card: its code; `-` reads it from standard input, where `ps` does not show it.
    #[arg(long, value_name = "CODE")]
    card: Option<String>,
    /// It was about an order: its id.
    #[arg(long, value_name = "ID", value_parser = order_id)]
    order: Option<OrderId>,
    /// It was a posting: its document's id.
    #[arg(long, value_name = "ID", value_parser = document_id)]
    document: Option<DocumentId>,
}

pub async fn outcome(command: Outcome, output: &Output) -> Result<(), Failure> {
    let Outcome { asked, target, remote } = command;
    let code = target.card.as_deref().map(|code| read_secret(code, "code")).transpose()?;
    remote
        .talk(async |client| {
            let target = match (&code, target.order, target.document) {
                (Some(code), ..) => Target::Card(code),
                (_, Some(order), _) => Target::Order(order),
                (.., Some(document)) => Target::Document(document),
                _ => return Err(Failure::usage("give one of --card, --order and --document")),
            };
            let Some(receipt) = client.outcome(asked, target).await? else {
                let value = json!({ "status": "NO_EFFECT", "request": asked.to_string() });
                return output.result(&value, || {
                    "no effect so far: send it once more with the same id, or reverse it".to_owned()
                });
            };
            let report = receipt.value;
            let reversed = receipt.flags.contains(ReplyFlags::REVERSED);
            let catalogue = Catalogue::read_if_allowed(client).await?;
            let value = json!({
                "status": "OK",
                "request": asked.to_string(),
                "event": report.kind.name(),
                "reversed": reversed,
                "principal": report.principal.0,
                "product_id": report.product.map(|product| product.0),
                "amount_minor": report.amount,
                "remaining_minor": report.remaining,
                "deadline_ms": report.deadline_ms,
                "lsn": receipt.lsn.map(|lsn| lsn.bytes()),
                "time_ms": receipt.time_ms,
            });
            output.result(&value, || {
                let worth =
                    report.product.filter(|_| report.amount != 0).map_or_else(String::new, |product| {
                        let amount = |amount| catalogue.worth(product, amount);
                        format!(": {}, left {}", amount(report.amount), amount(report.remaining))
                    });
                let undone = if reversed { "; reversed since" } else { "" };
                let receipt_number = receipt.lsn.map_or_else(String::new, |lsn| lsn.to_string());
                let when = time::show(receipt.time_ms);
                format!("{}{worth}{undone}\n{when}, receipt {receipt_number}", report.kind.name())
            })
        })
        .await
}

/// Lift the locks that wrong PINs put on a card, and let everybody try its PIN again.
#[derive(Args)]
#[command(after_help = "Example:\n  kami pin-unlock GIFT-00000001")]
pub struct PinUnlock {
    /// The code; `-` reads it from standard input, where `ps` does not show it.
    code: String,
    #[command(flatten)]
    remote: Remote,
}

pub async fn pin_unlock(command: PinUnlock, output: &Output) -> Result<(), Failure> {
    let code = read_secret(&command.code, "code")?;
    command
        .remote
        .talk(async |client| card::show(client, &code, &client.pin_unlock(&code).await?.value, output).await)
        .await
}
