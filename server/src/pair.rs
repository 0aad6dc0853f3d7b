//! `kami replace` and `transfer`: what moves two cards.
//!
//! Each has the request id given with `--id` or a new one that is printed: the same id again never does it twice.

use clap::Args;
use kami_engine::{Lsn, ReplyFlags, RequestId};

use crate::card::as_json;
use crate::code::{mask, parse_id, read_secret};
use crate::exit::Failure;
use crate::output::Output;
use crate::remote::{Catalogue, Remote, Why};
use crate::trade::moved;
use crate::value::{Amount, unknown};

/// Make a sold card void and put another in its place in its order.
///
/// The other card has what was left on the first, ends when it would have ended, and is as active. Its code is told to
/// nobody here: the buyer fetches it with the order.
#[derive(Args)]
#[command(
    after_help = "Example:\n  kami replace GIFT-00000001 --why \"lost by the customer\"\n  kami replace GIFT-00000001 --with GIFT-00000007"
)]
pub struct Replace {
    /// The code of the card; `-` reads it from standard input, where `ps` does not show it.
    code: String,
    /// The code of the card in stock that takes its place; `-` reads it from standard input, after the first [default:
    /// the next one that is worth the same, on the same terms].
    #[arg(long, value_name = "CODE", allow_hyphen_values = true)]
    with: Option<String>,
    #[command(flatten)]
    asked: Asked,
}

/// Move value from one card to another of the same product; all of it makes the first card void.
#[derive(Args)]
#[command(
    after_help = "Example:\n  kami transfer GIFT-00000001 GIFT-00000002 --amount 12.50 --why \"one card for both\""
)]
pub struct Transfer {
    /// The code of the card that it leaves; `-` reads it from standard input, where `ps` does not show it.
    from: String,
    /// The code of the card that it goes to; `-` reads it from standard input, after the first.
    #[arg(allow_hyphen_values = true)]
    to: String,
    #[command(flatten)]
    amount: Amount,
    #[command(flatten)]
    asked: Asked,
}

/// What both have.
#[derive(Args)]
struct Asked {
    /// The request id, 32 hex digits: the same id again does nothing more [default: a new one].
    #[arg(long, value_name = "HEX", value_parser = parse_id)]
    id: Option<RequestId>,
    #[command(flatten)]
    why: Why,
    #[command(flatten)]
    remote: Remote,
}

pub async fn replace(command: Replace, output: &Output) -> Result<(), Failure> {
    let Replace { code, with, asked } = command;
    let code = read_secret(&code, "code")?;
    let with = with.map(|with| read_secret(&with, "code of the other card")).transpose()?;
    let id = asked.id.unwrap_or_else(RequestId::random);
    asked
        .remote
        .talk_on(&asked.why, async |client| {
            let receipt = client.replace(&code, with.as_ref().map(|with| with.as_slice()), id).await;
            let receipt = receipt.map_err(unknown)?;
            let (card, catalogue) = (receipt.value, Catalogue::read_if_allowed(client).await?);
            let replayed = receipt.flags.contains(ReplyFlags::REPLAYED);
            let mut value = as_json(&card, &catalogue);
            value["request"] = receipt.request.to_string().into();
            value["lsn"] = receipt.lsn.map(Lsn::bytes).into();
            value["time_ms"] = receipt.time_ms.into();
            value["replayed"] = replayed.into();
            output.result(&value, || {
                format!(
                    "replaced {} by card {}{}, {} left on it\nrequest {}",
                    mask(&code),
                    card.card,
                    if replayed { " (earlier, by the same request)" } else { "" },
                    catalogue.worth(card.product, card.remaining),
                    receipt.request
                )
            })
        })
        .await
}

pub async fn transfer(command: Transfer, output: &Output) -> Result<(), Failure> {
    let Transfer { from, to, amount, asked } = command;
    let from = read_secret(&from, "code")?;
    let to = read_secret(&to, "code of the other card")?;
    let id = asked.id.unwrap_or_else(RequestId::random);
    asked
        .remote
        .talk_on(&asked.why, async |client| {
            let amount = amount.read(client, &from).await?;
            let receipt = client.transfer(&from, &to, amount, id).await.map_err(unknown)?;
            let catalogue = Catalogue::read_if_allowed(client).await?;
            let replayed = receipt.flags.contains(ReplyFlags::REPLAYED);
            output.result(&moved(&receipt, &receipt.value, &catalogue), || {
                let kami_engine::ValueReport { product, amount, remaining } = receipt.value;
                format!(
                    "transferred {} from {} to {}{}; {} left on the first\nrequest {}",
                    catalogue.worth(product, amount),
                    mask(&from),
                    mask(&to),
                    if replayed { " (earlier, by the same request)" } else { "" },
                    catalogue.worth(product, remaining),
                    receipt.request
                )
            })
        })
        .await
}
