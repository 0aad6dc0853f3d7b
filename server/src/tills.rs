//! `kami outcome`, `pin-unlock`, `advice` and `exceptions`: what tills leave behind.

use clap::{Args, Subcommand};
use kami_engine::{DocumentId, Exception, OrderId, ReplyFlags, RequestId, TerminalId};
use kami_net::client::{Advised, Offline, Target};
use serde_json::{Value, json};

use crate::card;
use crate::code::{document_id, mask, order_id, parse_id, read_secret};
use crate::exit::Failure;
use crate::output::{Output, table};
use crate::remote::{Catalogue, Remote, Why};
use crate::time;
use crate::trade::moved;
use crate::value::Amount;

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
    why: Why,
    #[command(flatten)]
    remote: Remote,
}

pub async fn pin_unlock(command: PinUnlock, output: &Output) -> Result<(), Failure> {
    let code = read_secret(&command.code, "code")?;
    command
        .remote
        .talk(async |client| {
            let unlocked = command.why.handle(client).pin_unlock(&code).await?.value;
            card::show(client, &code, &unlocked, output).await
        })
        .await
}

/// Report a redemption that was made offline: it is one now if it fits the card; if not, it is noted for an operator.
#[derive(Args)]
#[command(
    after_help = "Example:\n  kami advice GIFT-00000001 --id 0123456789abcdef0123456789abcdef --made 2026-11-23T12:30:00+08:00"
)]
pub struct Advice {
    /// The code; `-` reads it from standard input, where `ps` does not show it.
    code: String,
    /// Under which request id it was made, 32 hex digits: the same id again is the same report.
    #[arg(long, value_name = "HEX", value_parser = parse_id)]
    id: RequestId,
    /// When it was made: 2026-11-23T12:30:00+08:00.
    #[arg(long, value_name = "TIME", value_parser = time::parse_end)]
    made: u64,
    /// The card's PIN; `-` reads it from standard input, after the code.
    #[arg(long, value_name = "PIN", allow_hyphen_values = true)]
    pin: Option<String>,
    #[command(flatten)]
    amount: Amount,
    /// The till's number.
    #[arg(long, value_name = "N", default_value_t = 0)]
    terminal: u32,
    #[command(flatten)]
    remote: Remote,
}

pub async fn advice(command: Advice, output: &Output) -> Result<(), Failure> {
    let code = read_secret(&command.code, "code")?;
    let pin = command.pin.as_deref().map(|pin| read_secret(pin, "PIN")).transpose()?;
    command
        .remote
        .talk_at(TerminalId(command.terminal), async |client| {
            let offline = Offline {
                request: command.id,
                amount: command.amount.read(client, &code).await?,
                pin: pin.as_ref().map(|pin| pin.as_slice()),
                made_ms: command.made,
            };
            let receipt = match client.advice(&code, offline).await? {
                Advised::Redeemed(receipt) => receipt,
                Advised::Noted(lsn) => {
                    let value = json!({
                        "status": "EXCEPTION_NOTED",
                        "request": command.id.to_string(),
                        "lsn": lsn.map(|lsn| lsn.bytes()),
                    });
                    return output.result(&value, || {
                        "it does not fit the card: noted for an operator, do not send it again".to_owned()
                    });
                }
            };
            let catalogue = Catalogue::read_if_allowed(client).await?;
            output.result(&moved(&receipt, &receipt.value, &catalogue), || {
                let again = if receipt.flags.contains(ReplyFlags::REPLAYED) { " (earlier)" } else { "" };
                format!(
                    "redeemed {}: {} of {}{again}\nreceipt {}, request {}",
                    mask(&code),
                    catalogue.worth(receipt.value.product, receipt.value.amount),
                    catalogue.name(receipt.value.product),
                    receipt.lsn.map_or(0, |lsn| lsn.bytes()),
                    receipt.request
                )
            })
        })
        .await
}

/// List redemptions that were made offline and did not fit their card, or say what was done about one.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  kami exceptions list\n  kami exceptions resolve 17 --note \"the shop bears it\""
)]
pub struct ExceptionsCommand {
    #[command(flatten)]
    remote: Remote,
    #[command(subcommand)]
    action: ExceptionsAction,
}

#[derive(Subcommand)]
enum ExceptionsAction {
    /// List those that are open.
    #[command(after_help = "Example:\n  kami exceptions list --all")]
    List {
        /// Those that were resolved, too.
        #[arg(long)]
        all: bool,
    },
    /// Note what was done about one; it is not open any more.
    #[command(after_help = "Example:\n  kami exceptions resolve 17 --note \"the shop bears it\"")]
    Resolve {
        /// Its number.
        number: u64,
        /// What was done: 1 to 200 bytes.
        #[arg(long, value_name = "TEXT")]
        note: String,
        #[command(flatten)]
        why: Why,
    },
}

pub async fn exceptions(command: ExceptionsCommand, output: &Output) -> Result<(), Failure> {
    let ExceptionsCommand { remote, action } = command;
    remote
        .talk(async |client| match action {
            ExceptionsAction::List { all } => {
                let exceptions = client.exceptions(all).await?;
                let rows: Vec<_> = exceptions.iter().map(exception).collect();
                output.result(&json!({ "exceptions": rows }), || listing(&exceptions))
            }
            ExceptionsAction::Resolve { number, note, why } => {
                let resolved = why.handle(client).exception_resolve(number, &note).await?.value;
                output.result(&exception(&resolved), || listing(std::slice::from_ref(&resolved)))
            }
        })
        .await
}

fn exception(exception: &Exception) -> Value {
    let end = exception.resolution.as_ref();
    json!({
        "id": exception.id,
        "card": exception.card.map(|card| card.to_string()),
        "reason": exception.reason.code(),
        "request": exception.request.to_string(),
        "principal": exception.principal.0,
        "terminal": exception.terminal.0,
        "merchant": exception.merchant.0,
        "channel": exception.channel.0,
        "amount_minor": exception.amount,
        "made_ms": exception.made_ms,
        "time_ms": exception.time_ms,
        "lsn": exception.lsn.bytes(),
        "resolved_by": end.map(|end| end.principal.0),
        "resolved_ms": end.map(|end| end.time_ms),
        "note": end.map(|end| &end.note),
    })
}

fn listing(exceptions: &[Exception]) -> String {
    let rows = exceptions.iter().map(|exception| {
        vec![
            exception.id.to_string(),
            time::show(exception.made_ms),
            exception.reason.code().to_owned(),
            exception.card.map_or_else(|| "-".to_owned(), |card| card.to_string()),
            if exception.amount == 0 { "all".to_owned() } else { exception.amount.to_string() },
            exception.principal.to_string(),
            exception.terminal.to_string(),
            exception.request.to_string(),
            exception.resolution.as_ref().map_or_else(String::new, |end| end.note.clone()),
        ]
    });
    let header = ["ID", "MADE", "REASON", "CARD", "AMOUNT", "PRINCIPAL", "TERMINAL", "REQUEST", "NOTE"];
    table(&header, &[0, 4, 5, 6], rows)
}
