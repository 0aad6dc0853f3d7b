//! `kami sell`, `order`, `redeem` and `reverse`: what shops and tills do.
//!
//! Running a command again must never do it twice. A sale's request id follows from its order id; a
//! redemption has the id given with `--id`, or a new one that is printed, so that it can be asked for
//! again or reversed.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use kami_engine::{OrderId, ProposalId, ReplyFlags, RequestId, TerminalId, ValueReport};
use kami_net::client::{Receipt, RedeemOptions, ReverseOptions, SellOptions, Sold, Wish};
use kami_net::{Client, ClientError};
use serde_json::{Value, json};

use crate::code::{mask, order_id, parse_id, read_secret, sale_id};
use crate::control::{Propose, parse_proposal, propose};
use crate::exit::Failure;
use crate::new_file::{NewFile, Readers};
use crate::output::{Output, count};
use crate::remote::{Catalogue, Remote, Why};
use crate::{money, time};

/// Sell cards under an order id and print their codes, one a line.
///
/// The same command run again is a retry: it prints the same codes and sells nothing more.
#[derive(Args)]
#[command(after_help = "Example:\n  kami sell coffee --count 2 --order 2026-0001")]
pub struct Sell {
    /// The product's name or number.
    product: String,
    /// How many cards.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    count: u32,
    /// The order's id: 32 hex digits are taken as they are, any other text is hashed to 128 bits.
    #[arg(long, value_name = "ID", value_parser = order_id)]
    order: OrderId,
    /// Sell only cards that stay valid at least so long: 12h, 30d.
    #[arg(long, value_name = "TIME", value_parser = time::parse_seconds)]
    min_validity: Option<u32>,
    #[command(flatten)]
    remote: Remote,
}

/// Print the codes of an order again.
///
/// The principal that bought it may. An operator proposes it with --propose, and fetches them with --approval once
/// somebody else has approved that.
#[derive(Args)]
#[command(
    after_help = "Example:\n  kami order 2026-0001\n  kami order 2026-0001 --out codes.txt\n  kami order 2026-0001 --propose --why \"shop lost its copy\"\n  kami order 2026-0001 --approval 0123456789abcdef0123456789abcdef"
)]
pub struct Order {
    /// The order's id, as it was given to `sell`.
    #[arg(value_name = "ID", value_parser = order_id)]
    order: OrderId,
    /// The approved proposal under which codes of another's order are fetched.
    #[arg(long, value_name = "ID", value_parser = parse_proposal, conflicts_with = "propose")]
    approval: Option<ProposalId>,
    /// Write the codes to a new file that only its owner may read, one a line, instead of printing them.
    #[arg(long, value_name = "FILE", conflicts_with = "propose")]
    out: Option<PathBuf>,
    #[command(flatten)]
    why: Why,
    #[command(flatten)]
    propose: Propose,
    #[command(flatten)]
    remote: Remote,
}

/// Redeem a card: all that is left, one use, or a part.
#[derive(Args)]
#[command(
    after_help = "Example:\n  kami redeem COFFEE-00000001\n  kami redeem - < code.txt\n  kami redeem GIFT-00000001 --amount 12.50"
)]
pub struct Redeem {
    /// The code; `-` reads it from standard input, where `ps` does not show it.
    code: String,
    /// The card's PIN; `-` reads it from standard input, after the code.
    #[arg(long, value_name = "PIN", allow_hyphen_values = true)]
    pin: Option<String>,
    #[command(flatten)]
    amount: crate::value::Amount,
    /// Take what is left if that is less.
    #[arg(long)]
    partial: bool,
    /// The request id, 32 hex digits: the same id again is the same redemption [default: a new one].
    #[arg(long, value_name = "HEX", value_parser = parse_id)]
    id: Option<RequestId>,
    /// The till's number.
    #[arg(long, value_name = "N", default_value_t = 0)]
    terminal: u32,
    #[command(flatten)]
    remote: Remote,
}

/// Take a redemption back by its request id.
///
/// If the redemption was never seen, its id is refused from now on, so that it cannot arrive late.
#[derive(Args)]
#[command(
    after_help = "Example:\n  kami reverse COFFEE-00000001 --original 0123456789abcdef0123456789abcdef"
)]
pub struct Reverse {
    /// The code; `-` reads it from standard input.
    code: String,
    /// The request id of the redemption.
    #[arg(long, value_name = "ID", value_parser = parse_id)]
    original: RequestId,
    /// The reversal's own request id, 32 hex digits: the same id again is the same reversal [default: a new one].
    #[arg(long, value_name = "HEX", value_parser = parse_id)]
    id: Option<RequestId>,
    /// The till's number.
    #[arg(long, value_name = "N", default_value_t = 0)]
    terminal: u32,
    #[command(flatten)]
    remote: Remote,
}

pub async fn sell(command: Sell, output: &Output) -> Result<(), Failure> {
    command
        .remote
        .talk(async |client| {
            let product = Catalogue::read(client).await?.find(&command.product)?.id;
            let options = SellOptions {
                validity_s_min: command.min_validity.unwrap_or(0),
                request: Some(sale_id(command.order)),
            };
            match client.sell(command.order, product, command.count, options).await {
                Ok(sold) => codes(command.order, &sold, output),
                Err(error @ (ClientError::Unknown { .. } | ClientError::CodesUnreadable { .. })) => {
                    let failure = Failure::from(error);
                    Err(Failure {
                        message: format!("{}; run the same command again", failure.message),
                        ..failure
                    })
                }
                Err(error) => Err(error.into()),
            }
        })
        .await
}

pub async fn order(command: Order, output: &Output) -> Result<(), Failure> {
    let Order { order, approval, out, why, propose: Propose { propose: proposes }, remote } = command;
    remote
        .talk(async |client| {
            let client = &why.under(client, approval);
            match out {
                _ if proposes => propose(client, Wish::OrderFetch(order), &why, output).await,
                Some(out) => into_file(client, order, &out, output).await,
                None => codes(order, &client.order(order).await?, output),
            }
        })
        .await
}

/// Fetches the codes of an order into a new file.
pub async fn into_file(client: &Client, order: OrderId, out: &Path, output: &Output) -> Result<(), Failure> {
    // Fetching them is recorded: not for nothing.
    let mut file = NewFile::create("the codes", out, Readers::Owner)?;
    let sold = client.order(order).await?;
    let cards = &sold.value.cards;
    for card in cards {
        file.write_all(&card.code).and_then(|()| file.write_all(b"\n")).map_err(|error| {
            Failure::environment(format!("the codes cannot be written path=`{}`: {error}", out.display()))
        })?;
    }
    file.finish()?;
    let value = json!({
        "order": order.to_string(),
        "count": cards.len(),
        "file": out.display().to_string(),
    });
    output.result(&value, || format!("{} codes in {}", count(cards.len() as u64), out.display()))
}

/// Prints codes: here they are what was asked for.
pub fn codes(order: OrderId, sold: &Receipt<Sold>, output: &Output) -> Result<(), Failure> {
    let cards = &sold.value.cards;
    let texts: Vec<_> = cards.iter().map(|card| String::from_utf8_lossy(&card.code)).collect();
    let value = json!({
        "order": order.to_string(),
        "count": cards.len(),
        "lsn": sold.lsn.map(kami_engine::Lsn::bytes),
        "time_ms": sold.time_ms,
        "replayed": sold.flags.contains(ReplyFlags::REPLAYED),
        "codes": texts,
    });
    output.result(&value, || texts.join("\n"))
}

pub async fn redeem(command: Redeem, output: &Output) -> Result<(), Failure> {
    let code = read_secret(&command.code, "code")?;
    let pin = command.pin.as_deref().map(|pin| read_secret(pin, "PIN")).transpose()?;
    command.remote.talk_at(TerminalId(command.terminal), async |client| {
    let options =
        RedeemOptions {
            amount: command.amount.read(client, &code).await?,
            pin: pin.as_ref().map(|pin| pin.as_slice()),
            partial: command.partial,
            request: command.id,
        };
    let receipt = match client.redeem(&code, options).await {
        Ok(receipt) => receipt,
        Err(error @ ClientError::Unknown { request }) => {
            let failure = Failure::from(error);
            let message = format!(
                "{}; ask again with --id {request}, or take it back with `kami reverse --original {request}`",
                failure.message
            );
            return Err(Failure { message, ..failure });
        }
        Err(error) => return Err(error.into()),
    };
    let catalogue = Catalogue::read_if_allowed(client).await?;
    let reversed = receipt.flags.contains(ReplyFlags::REVERSED);
    output.result(&moved(&receipt, &receipt.value, &catalogue), || {
        let again = match (receipt.flags.contains(ReplyFlags::REPLAYED), reversed) {
            (true, true) => " (earlier, and reversed since)",
            (true, false) => " (earlier, by the same request)",
            _ => "",
        };
        format!(
            "redeemed {}: {} of {}{again}\nreceipt {}, request {}",
            mask(&code),
            catalogue.worth(receipt.value.product, receipt.value.amount),
            catalogue.name(receipt.value.product),
            receipt.lsn.map_or(0, kami_engine::Lsn::bytes),
            receipt.request
        )
    })
})
.await
}

pub async fn reverse(command: Reverse, output: &Output) -> Result<(), Failure> {
    let code = read_secret(&command.code, "code")?;
    command
        .remote
        .talk_at(TerminalId(command.terminal), async |client| {
            let options = ReverseOptions { request: command.id };
            let receipt = match client.reverse(&code, command.original, options).await {
                Ok(receipt) => receipt,
                Err(error @ ClientError::Unknown { request }) => {
                    let failure = Failure::from(error);
                    let message = format!("{}; ask again with --id {request}", failure.message);
                    return Err(Failure { message, ..failure });
                }
                Err(error) => return Err(error.into()),
            };
            let Some(value) = receipt.value else {
                let value = json!({ "status": "TOMBSTONED", "request": receipt.request.to_string() });
                return output.result(&value, || {
                    "this redemption was never seen; its request id is refused from now on".to_owned()
                });
            };
            let catalogue = Catalogue::read_if_allowed(client).await?;
            output.result(&moved(&receipt, &value, &catalogue), || {
                format!(
                    "reversed {}: {} given back",
                    mask(&code),
                    catalogue.worth(value.product, value.amount)
                )
            })
        })
        .await
}

pub fn moved<T>(receipt: &Receipt<T>, value: &ValueReport, catalogue: &Catalogue) -> Value {
    let product = catalogue.get(value.product);
    json!({
        "status": receipt.status.code(),
        "request": receipt.request.to_string(),
        "lsn": receipt.lsn.map(kami_engine::Lsn::bytes),
        "time_ms": receipt.time_ms,
        "replayed": receipt.flags.contains(ReplyFlags::REPLAYED),
        "reversed": receipt.flags.contains(ReplyFlags::REVERSED),
        "product_id": value.product.0,
        "product": product.map(|product| &product.spec.name),
        "currency": product.map(|product| money::name(product.spec.currency)),
        "amount_minor": value.amount,
        "remaining_minor": value.remaining,
    })
}
