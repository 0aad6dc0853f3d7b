//! `kami hold`, `capture`, `release`, `load`, `refund` and `settle`: what is done with a card's value beside
//! redeeming it.
//!
//! As with a redemption, each has the request id given with `--id` or a new one that is printed: the same id
//! again never does it twice.

use clap::Args;
use kami_engine::{Money, ReplyFlags, RequestId, TerminalId, ValueReport};
use kami_net::client::{HoldOptions, Receipt, Wish};
use kami_net::{Client, ClientError};
use serde_json::json;

use crate::code::{mask, parse_id, read_secret};
use crate::control::{Propose, propose};
use crate::exit::Failure;
use crate::output::Output;
use crate::remote::{Catalogue, Remote, Why};
use crate::trade::moved;
use crate::{money, time};

/// How much of a card.
#[derive(Args)]
pub struct Amount {
    /// How much, in the main unit of the card's currency: 28 or 28.50 [default: all of it].
    #[arg(long, value_name = "AMOUNT", conflicts_with = "minor")]
    amount: Option<String>,
    /// The currency of --amount, for who may not list the products.
    #[arg(long, value_name = "CUR", value_parser = money::parse_currency, requires = "amount")]
    currency: Option<[u8; 3]>,
    /// How much, in minor units (分), or how many uses of a card that is used a number of times.
    #[arg(long, visible_alias = "uses", value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    minor: Option<Money>,
}

impl Amount {
    /// In minor units; 0 if nothing was said.
    pub async fn read(&self, client: &Client, code: &[u8]) -> Result<Money, Failure> {
        let Some(text) = &self.amount else { return Ok(self.minor.unwrap_or(0)) };
        let currency = match self.currency {
            Some(currency) => currency,
            None => {
                let product = client.query(code).await?.value.product;
                let catalogue = Catalogue::read_if_allowed(client).await?;
                let known = catalogue.get(product).map(|product| product.spec.currency);
                known.ok_or_else(|| {
                    Failure::usage(
                        "the card's currency is not told to this identity: give --currency, or --minor",
                    )
                })?
            }
        };
        let amount = money::parse(text, currency)
            .map_err(|wrong| Failure::usage(format!("--amount `{text}`: {wrong}")))?;
        // Zero means all of it.
        if amount == 0 { Err(Failure::usage("--amount 0 is nothing")) } else { Ok(amount) }
    }
}

/// What all of these have.
#[derive(Args)]
struct OneCard {
    /// The code; `-` reads it from standard input, where `ps` does not show it.
    code: String,
    /// The request id, 32 hex digits: the same id again does nothing more [default: a new one].
    #[arg(long, value_name = "HEX", value_parser = parse_id)]
    id: Option<RequestId>,
    /// The till's number.
    #[arg(long, value_name = "N", default_value_t = 0)]
    terminal: u32,
    #[command(flatten)]
    remote: Remote,
}

impl OneCard {
    async fn talk(
        &self,
        talk: impl AsyncFnOnce(&Client, &[u8], RequestId) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        self.talk_on(&Why::default(), talk).await
    }

    /// The same, with the grounds of what is changed.
    async fn talk_on(
        &self,
        why: &Why,
        talk: impl AsyncFnOnce(&Client, &[u8], RequestId) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let code = read_secret(&self.code, "code")?;
        let id = self.id.unwrap_or_else(RequestId::random);
        let talk = async |client: &Client| talk(&why.handle(client), &code, id).await;
        self.remote.talk_at(TerminalId(self.terminal), talk).await
    }
}

/// Hold a card's value, or part of it, until it is captured or released.
#[derive(Args)]
#[command(after_help = "Example:\n  kami hold GIFT-00000001 --amount 12.50 --for 90s")]
pub struct Hold {
    #[command(flatten)]
    card: OneCard,
    /// The card's PIN; `-` reads it from standard input, after the code.
    #[arg(long, value_name = "PIN", allow_hyphen_values = true)]
    pin: Option<String>,
    #[command(flatten)]
    amount: Amount,
    /// Hold what is left if that is less.
    #[arg(long)]
    partial: bool,
    /// How long, if less than the product says: 90s, 5m.
    #[arg(long = "for", value_name = "TIME", value_parser = time::parse_seconds)]
    seconds: Option<u32>,
}

/// Redeem what is held; the rest of the hold is free again.
#[derive(Args)]
#[command(
    after_help = "Example:\n  kami capture GIFT-00000001 --hold 0123456789abcdef0123456789abcdef --amount 10"
)]
pub struct Capture {
    #[command(flatten)]
    card: OneCard,
    /// The request id of the hold.
    #[arg(long, value_name = "ID", value_parser = parse_id)]
    hold: RequestId,
    #[command(flatten)]
    amount: Amount,
}

/// Give up a hold.
#[derive(Args)]
#[command(after_help = "Example:\n  kami release GIFT-00000001 --hold 0123456789abcdef0123456789abcdef")]
pub struct Release {
    #[command(flatten)]
    card: OneCard,
    /// The request id of the hold.
    #[arg(long, value_name = "ID", value_parser = parse_id)]
    hold: RequestId,
}

/// Load value onto a card.
#[derive(Args)]
#[command(after_help = "Example:\n  kami load GIFT-00000001 --amount 50")]
pub struct Load {
    #[command(flatten)]
    card: OneCard,
    #[command(flatten)]
    amount: Amount,
}

/// Give value of a redemption back that can be reversed no more.
#[derive(Args)]
#[command(
    after_help = "Example:\n  kami refund GIFT-00000001 --original 0123456789abcdef0123456789abcdef --amount 5"
)]
pub struct Refund {
    #[command(flatten)]
    card: OneCard,
    /// The request id of the redemption or capture.
    #[arg(long, value_name = "ID", value_parser = parse_id)]
    original: RequestId,
    #[command(flatten)]
    amount: Amount,
    #[command(flatten)]
    why: Why,
    #[command(flatten)]
    propose: Propose,
}

/// Settle what was redeemed of a card: it can be reversed no more.
#[derive(Args)]
#[command(after_help = "Example:\n  kami settle GIFT-00000001")]
pub struct Settle {
    #[command(flatten)]
    card: OneCard,
    #[command(flatten)]
    why: Why,
}

/// What is to be done when nobody knows whether it was.
pub fn unknown(error: ClientError) -> Failure {
    let ClientError::Unknown { request } = error else { return error.into() };
    let failure = Failure::from(error);
    Failure { message: format!("{}; ask again with --id {request}", failure.message), ..failure }
}

pub async fn hold(command: Hold, output: &Output) -> Result<(), Failure> {
    let pin = || command.pin.as_deref().map(|pin| read_secret(pin, "PIN")).transpose();
    command
        .card
        .talk(async |client, code, id| {
            let pin = pin()?;
            let options = HoldOptions {
                amount: command.amount.read(client, code).await?,
                pin: pin.as_ref().map(|pin| pin.as_slice()),
                partial: command.partial,
                seconds: command.seconds.unwrap_or(0),
                request: Some(id),
            };
            let receipt = client.hold(code, options).await.map_err(unknown)?;
            let (held, catalogue) = (receipt.value, Catalogue::read_if_allowed(client).await?);
            let value = json!({
                "status": receipt.status.code(),
                "request": receipt.request.to_string(),
                "lsn": receipt.lsn.map(kami_engine::Lsn::bytes),
                "time_ms": receipt.time_ms,
                "replayed": receipt.flags.contains(ReplyFlags::REPLAYED),
                "reversed": receipt.flags.contains(ReplyFlags::REVERSED),
                "product_id": held.product.0,
                "amount_minor": held.amount,
                "remaining_minor": held.remaining,
                "held_minor": held.held,
                "deadline_ms": held.deadline_ms,
            });
            output.result(&value, || {
                let amount = |money| catalogue.worth(held.product, money);
                format!(
                    "held {}: {} of {}, until {}\nhold {}",
                    mask(code),
                    amount(held.amount),
                    amount(held.remaining),
                    time::show(held.deadline_ms),
                    receipt.request
                )
            })
        })
        .await
}

pub async fn capture(command: Capture, output: &Output) -> Result<(), Failure> {
    command
        .card
        .talk(async |client, code, id| {
            let amount = command.amount.read(client, code).await?;
            let receipt = client.capture(code, command.hold, amount, id).await;
            tell("captured", client, code, receipt, output).await
        })
        .await
}

pub async fn release(command: Release, output: &Output) -> Result<(), Failure> {
    command
        .card
        .talk(async |client, code, id| {
            let receipt = client.release(code, command.hold, id).await;
            tell("released", client, code, receipt, output).await
        })
        .await
}

pub async fn load(command: Load, output: &Output) -> Result<(), Failure> {
    command
        .card
        .talk(async |client, code, id| {
            let amount = command.amount.read(client, code).await?;
            tell("loaded", client, code, client.load(code, amount, id).await, output).await
        })
        .await
}

pub async fn refund(command: Refund, output: &Output) -> Result<(), Failure> {
    command
        .card
        .talk_on(&command.why, async |client, code, id| {
            let amount = command.amount.read(client, code).await?;
            if command.propose.propose {
                let wish = Wish::RefundValue(code, command.original, amount);
                return propose(client, wish, &command.why, output).await;
            }
            let receipt = client.refund_value(code, command.original, amount, id).await;
            tell("refunded", client, code, receipt, output).await
        })
        .await
}

pub async fn settle(command: Settle, output: &Output) -> Result<(), Failure> {
    command
        .card
        .talk_on(&command.why, async |client, code, id| {
            let receipt = client.settle(code, id).await.map_err(unknown)?;
            crate::card::show(client, code, &receipt.value, output).await
        })
        .await
}

async fn tell(
    what: &str,
    client: &Client,
    code: &[u8],
    receipt: Result<Receipt<ValueReport>, ClientError>,
    output: &Output,
) -> Result<(), Failure> {
    let receipt = receipt.map_err(unknown)?;
    let catalogue = Catalogue::read_if_allowed(client).await?;
    output.result(&moved(&receipt, &receipt.value, &catalogue), || {
        let ValueReport { product, amount, remaining } = receipt.value;
        let replayed = receipt.flags.contains(ReplyFlags::REPLAYED);
        format!(
            "{what} {}: {}{}; {} left\nrequest {}",
            mask(code),
            catalogue.worth(product, amount),
            if replayed { " (earlier, by the same request)" } else { "" },
            catalogue.worth(product, remaining),
            receipt.request
        )
    })
}
