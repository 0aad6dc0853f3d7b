//! `kami reserve`, `confirm`, `cancel`, `return` and `order-status`: orders that are paid later, come back, or hold
//! several products.
//!
//! The request id of each follows from the order and the command, so that the same command run again is a retry.
//! Only a return may happen several times to one order; its id also follows from the cards.

use clap::Args;
use kami_engine::{
    AccountId, Confirmation, Leg, Line, OrderId, OrderReport, OrderState, Purchase, ReplyFlags,
};
use kami_net::Client;
use kami_net::client::{Delivery, Receipt};
use serde_json::{Value, json};

use crate::account::{Side, parse_leg, sides};
use crate::code::{order_id, read_secret, sale_id, step_id};
use crate::exit::Failure;
use crate::output::Output;
use crate::remote::{Catalogue, Remote, Why};
use crate::trade::codes;
use crate::{money, time};

/// Take cards for an order that is paid later; they are nobody else's until the deadline.
///
/// The same command run again is a retry.
#[derive(Args)]
#[command(
    after_help = "Example:\n  kami reserve --order 2026-0007 --line coffee=2 --line tea=1\n  kami reserve --order 2026-0008 --line coffee=2 --account shop-17 --leg shop-17=-56 --leg sales=56\n  kami confirm 2026-0008"
)]
pub struct Reserve {
    #[command(flatten)]
    what: What,
    /// How long the reservation stands, at most as long as the products allow: 10m, 1h [default: that].
    #[arg(long, value_name = "TIME", value_parser = time::parse_seconds)]
    r#for: Option<u32>,
    #[command(flatten)]
    remote: Remote,
}

/// Sell cards of several products or face values under one order id, all or nothing, and print their codes.
///
/// The same command run again is a retry: it prints the same codes and sells nothing more.
#[derive(Args)]
#[command(
    after_help = "Example:\n  kami sell-lines --order 2026-0009 --line coffee=2 --line voucher@100=1 --line voucher@50=2"
)]
pub struct SellLines {
    #[command(flatten)]
    what: What,
    /// Do not print the codes: `kami order` gives them out, and until then they can come back into stock.
    #[arg(long)]
    sealed: bool,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Args)]
struct What {
    /// The order's id: 32 hex digits are taken as they are, any other text is hashed to 128 bits.
    #[arg(long, value_name = "ID", value_parser = order_id)]
    order: OrderId,
    /// Product and number of cards; `@` takes only cards of that face value. Repeat it for more.
    #[arg(long = "line", value_name = "PRODUCT[@FACE]=N", required = true)]
    lines: Vec<String>,
    /// Sell only cards that stay valid at least so long: 12h, 30d.
    #[arg(long, value_name = "TIME", value_parser = time::parse_seconds)]
    min_validity: Option<u32>,
    /// The account that buys, by name or number: for its limits, and for its money.
    #[arg(long, value_name = "ACCOUNT")]
    account: Option<String>,
    /// A keyed hash of the buyer's address, 16 hex digits, for limits.
    #[arg(long, value_name = "HEX", value_parser = parse_hex)]
    ip: Option<u64>,
    /// How money moves: they sum to zero. Repeat it for every account.
    #[arg(long = "leg", value_name = "ACCOUNT=AMOUNT", value_parser = parse_leg, allow_hyphen_values = true)]
    legs: Vec<Side>,
}

/// Complete a reservation that was paid, and print its codes.
#[derive(Args)]
#[command(after_help = "Example:\n  kami confirm 2026-0007\n  kami confirm 2026-0007 --realloc --sealed")]
pub struct Confirm {
    /// The order's id.
    #[arg(value_name = "ID", value_parser = order_id)]
    order: OrderId,
    /// If the reservation is over, take the same cards if they are all free, else equal ones.
    #[arg(long)]
    realloc: bool,
    /// Do not print the codes: `kami order` gives them out.
    #[arg(long)]
    sealed: bool,
    /// How money moves, if not as it was set aside. Repeat it for every account.
    #[arg(long = "leg", value_name = "ACCOUNT=AMOUNT", value_parser = parse_leg, allow_hyphen_values = true)]
    legs: Vec<Side>,
    #[command(flatten)]
    remote: Remote,
}

/// Give a reservation up: its cards are in stock again.
#[derive(Args)]
#[command(after_help = "Example:\n  kami cancel 2026-0007")]
pub struct Cancel {
    /// The order's id.
    #[arg(value_name = "ID", value_parser = order_id)]
    order: OrderId,
    #[command(flatten)]
    why: Why,
    #[command(flatten)]
    remote: Remote,
}

/// Take cards of an order back. Those whose codes nobody saw are in stock again.
#[derive(Args)]
#[command(
    after_help = "Example:\n  kami return 2026-0007 COFFEE-00000001\n  kami return 2026-0007 --leg sales=-28 --leg shop-17=28 COFFEE-00000001"
)]
pub struct Return {
    /// The order's id.
    #[arg(value_name = "ID", value_parser = order_id)]
    order: OrderId,
    /// The cards, at most 64; `-` reads one from standard input [default: all that still belong to the order].
    codes: Vec<String>,
    /// How the money goes back. Repeat it for every account.
    #[arg(long = "leg", value_name = "ACCOUNT=AMOUNT", value_parser = parse_leg, allow_hyphen_values = true)]
    legs: Vec<Side>,
    #[command(flatten)]
    why: Why,
    #[command(flatten)]
    remote: Remote,
}

/// Show an order without its codes.
#[derive(Args)]
#[command(after_help = "Example:\n  kami order-status 2026-0007")]
pub struct OrderStatus {
    /// The order's id.
    #[arg(value_name = "ID", value_parser = order_id)]
    order: OrderId,
    #[command(flatten)]
    remote: Remote,
}

impl What {
    async fn purchase(self, client: &Client) -> Result<Purchase, Failure> {
        let catalogue = Catalogue::read(client).await?;
        let mut lines = Vec::new();
        for text in &self.lines {
            lines.push(line(text, &catalogue)?);
        }
        let account = match &self.account {
            Some(name) => Some(crate::account::find(client, name).await?.id),
            None => None,
        };
        Ok(Purchase {
            order: self.order,
            lines,
            validity_s_min: self.min_validity.unwrap_or(0),
            account,
            ip: self.ip.unwrap_or(0),
            legs: legs(client, &self.legs).await?,
            sealed: false,
            reserve_s: 0,
        })
    }
}

async fn legs(client: &Client, given: &[Side]) -> Result<Vec<Leg>, Failure> {
    Ok(sides(client, given).await?.into_iter().map(|(_, leg)| leg).collect())
}

fn line(text: &str, catalogue: &Catalogue) -> Result<Line, Failure> {
    let wrong = |what: &str| Failure::usage(format!("--line `{text}`: {what}"));
    let (what, count) =
        text.rsplit_once('=').ok_or_else(|| wrong("a line is PRODUCT=N, such as coffee=2"))?;
    let count = count.parse().map_err(|_| wrong("the number of cards is 1 to 100000"))?;
    let (name, face) = match what.rsplit_once('@') {
        Some((name, face)) => (name, Some(face)),
        None => (what, None),
    };
    let product = catalogue.find(name)?;
    let face = face.map(|face| money::parse(face, product.spec.currency)).transpose();
    Ok(Line { product: product.id, count, face: face.map_err(|error| wrong(&error.to_string()))? })
}

fn parse_hex(text: &str) -> Result<u64, String> {
    u64::from_str_radix(text, 16).map_err(|_| "it is up to 16 hex digits".to_owned())
}

pub async fn reserve(command: Reserve, output: &Output) -> Result<(), Failure> {
    let Reserve { what, r#for, remote } = command;
    remote
        .talk(async |client| {
            let purchase = Purchase { reserve_s: r#for.unwrap_or(0), ..what.purchase(client).await? };
            let id = step_id(purchase.order, "reserve", &[]);
            show(&client.reserve(purchase, Some(id)).await?, client, output).await
        })
        .await
}

pub async fn sell_lines(command: SellLines, output: &Output) -> Result<(), Failure> {
    let SellLines { what, sealed, remote } = command;
    remote
        .talk(async |client| {
            let purchase = Purchase { sealed, ..what.purchase(client).await? };
            let (order, id) = (purchase.order, sale_id(purchase.order));
            delivered(order, client.sell_lines(purchase, Some(id)).await?, client, output).await
        })
        .await
}

pub async fn confirm(command: Confirm, output: &Output) -> Result<(), Failure> {
    let Confirm { order, realloc, sealed, legs: given, remote } = command;
    remote
        .talk(async |client| {
            let legs = legs(client, &given).await?;
            let confirmation = Confirmation { order, legs, realloc, sealed };
            let id = step_id(order, "confirm", &[]);
            delivered(order, client.confirm(confirmation, Some(id)).await?, client, output).await
        })
        .await
}

pub async fn cancel(command: Cancel, output: &Output) -> Result<(), Failure> {
    let Cancel { order, why, remote } = command;
    remote
        .talk_on(&why, async |client| {
            let id = step_id(order, "cancel", &[]);
            show(&client.cancel(order, Some(id)).await?, client, output).await
        })
        .await
}

pub async fn give_back(command: Return, output: &Output) -> Result<(), Failure> {
    let Return { order, codes, legs: given, why, remote } = command;
    let codes = codes.iter().map(|code| read_secret(code, "code")).collect::<Result<Vec<_>, _>>()?;
    remote
        .talk_on(&why, async |client| {
            let legs = legs(client, &given).await?;
            let codes: Vec<&[u8]> = codes.iter().map(|code| code.as_slice()).collect();
            let id = step_id(order, "return", &codes);
            show(&client.give_back(order, &codes, legs, Some(id)).await?, client, output).await
        })
        .await
}

pub async fn status(command: OrderStatus, output: &Output) -> Result<(), Failure> {
    let OrderStatus { order, remote } = command;
    remote.talk(async |client| show(&client.order_status(order).await?, client, output).await).await
}

async fn delivered(
    order: OrderId,
    receipt: Receipt<Delivery>,
    client: &Client,
    output: &Output,
) -> Result<(), Failure> {
    let Receipt { value, request, lsn, time_ms, status, flags } = receipt;
    match value {
        Delivery::Codes(value) => {
            codes(order, &Receipt { value, request, lsn, time_ms, status, flags }, output)
        }
        Delivery::Sealed(report) => {
            show(&Receipt { value: *report, request, lsn, time_ms, status, flags }, client, output).await
        }
    }
}

async fn show(receipt: &Receipt<OrderReport>, client: &Client, output: &Output) -> Result<(), Failure> {
    let catalogue = Catalogue::read_if_allowed(client).await?;
    let report = &receipt.value;
    let lines: Vec<Value> = report
        .lines
        .iter()
        .map(|line| {
            let product = catalogue.get(line.product);
            json!({
                "product": catalogue.name(line.product),
                "count": line.count,
                "face": line.face.map(|face| product.map_or_else(|| face.to_string(), |product| {
                    money::show(face, product.spec.currency)
                })),
            })
        })
        .collect();
    let value = json!({
        "order": report.order.to_string(),
        "state": report.state.name(),
        "fetched": report.fetched,
        "cards": report.cards,
        "buyer": report.buyer.0,
        "account": (report.account != AccountId(0)).then_some(report.account.0),
        "deadline_ms": (report.deadline_ms != 0).then_some(report.deadline_ms),
        "lines": lines,
        "time_ms": receipt.time_ms,
        "lsn": receipt.lsn.map(kami_engine::Lsn::bytes),
        "request": receipt.request.to_string(),
        "replayed": receipt.flags.contains(ReplyFlags::REPLAYED),
    });
    output.result(&value, || {
        let until = match report.state {
            OrderState::Reserved => format!(", to be paid until {}", time::show(report.deadline_ms)),
            _ => String::new(),
        };
        let fetched = if report.fetched { ", codes were fetched" } else { "" };
        let mut text = format!(
            "order {}  {}, {} cards{until}{fetched}",
            report.order,
            report.state.name(),
            report.cards
        );
        for line in &report.lines {
            let face = line.face.map(|face| {
                let currency = catalogue.get(line.product).map(|product| product.spec.currency);
                currency.map_or_else(|| face.to_string(), |currency| money::show_with(face, currency))
            });
            let face = face.map(|face| format!(" of {face}")).unwrap_or_default();
            text += &format!("\n{:>8} × {}{face}", line.count, catalogue.name(line.product));
        }
        text
    })
}
