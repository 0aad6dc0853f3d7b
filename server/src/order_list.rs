//! `kami orders`: the orders of a tenant, newest first.

use clap::{Args, ValueEnum};
use kami_engine::{AccountId, ORDERS_PER_LIST, OrderLine, OrderQuery, OrderState, PrincipalId};
use serde_json::{Value, json};

use crate::exit::Failure;
use crate::output::{Output, count, table};
use crate::remote::{Catalogue, Remote};
use crate::time;

/// List orders, newest first: a seller its own, who looks after orders all of the tenant.
#[derive(Args)]
#[command(
    after_help = "Example:\n  kami orders\n  kami orders --account shop-17 --state reserved\n  kami orders --product coffee --since 2026-11-01 --limit 1000"
)]
pub struct Orders {
    /// Only those of this account, by name or number.
    #[arg(long, value_name = "ACCOUNT")]
    account: Option<String>,
    /// Only those of this product alone.
    #[arg(long, value_name = "P")]
    product: Option<String>,
    /// Only those that this principal opened, by number.
    #[arg(long, value_name = "N")]
    buyer: Option<u32>,
    /// Only those that stand so now.
    #[arg(long, value_enum)]
    state: Option<State>,
    /// Only those that were opened then or later: 2026-11-01 (from its first moment, local time) or an exact time.
    #[arg(long, value_name = "TIME", value_parser = time::parse_start)]
    since: Option<u64>,
    /// How many at most.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    limit: u32,
    #[command(flatten)]
    remote: Remote,
}

/// How orders stand.
#[derive(Clone, Copy, ValueEnum)]
enum State {
    /// The cards are the buyer's.
    Sold,
    /// The cards are taken and wait for the payment.
    Reserved,
    /// It was given up before it was paid.
    Cancelled,
    /// It was not paid in time.
    TimedOut,
}

pub async fn run(command: Orders, output: &Output) -> Result<(), Failure> {
    command
        .remote
        .talk(async |client| {
            let catalogue = Catalogue::read_if_allowed(client).await?;
            let account = match &command.account {
                Some(name) => Some(crate::account::find(client, name).await?.id),
                None => None,
            };
            let product = match &command.product {
                Some(name) => Some(catalogue.find(name)?.id),
                None => None,
            };
            let state = command.state.map(|state| match state {
                State::Sold => OrderState::Sold,
                State::Reserved => OrderState::Reserved,
                State::Cancelled => OrderState::Cancelled,
                State::TimedOut => OrderState::TimedOut,
            });
            let limit = command.limit as usize;
            let mut query = OrderQuery {
                from: None,
                count: command.limit.min(ORDERS_PER_LIST),
                buyer: command.buyer.map(PrincipalId),
                account,
                product,
                state,
            };
            let mut lines: Vec<OrderLine> = Vec::new();
            let mut more = true;
            let since = command.since.unwrap_or(0);
            // A page may have none of those that are wanted and still not be the last.
            while more && lines.len() < limit {
                let page = client.order_list(query).await?.value;
                let wanted = page.lines.iter().take_while(|line| line.opened_ms >= since);
                let before = lines.len();
                lines.extend(wanted);
                more = page.next.is_some() && lines.len() - before == page.lines.len();
                query.from = page.next;
            }
            more |= lines.len() > limit;
            lines.truncate(limit);
            let rows: Vec<Value> = lines.iter().map(|line| value(line, &catalogue)).collect();
            output.result(&json!({ "orders": rows, "more": more }), || shown(&lines, more, &catalogue))
        })
        .await
}

fn value(line: &OrderLine, catalogue: &Catalogue) -> Value {
    json!({
        "order": line.order.to_string(),
        "state": line.state.name(),
        "fetched": line.fetched,
        "buyer": line.buyer.0,
        "account": (line.account != AccountId(0)).then_some(line.account.0),
        "product": line.product.map(|product| catalogue.name(product)),
        "cards": line.cards,
        "opened_ms": line.opened_ms,
        "lsn": line.lsn.bytes(),
    })
}

fn shown(lines: &[OrderLine], more: bool, catalogue: &Catalogue) -> String {
    let rows = lines.iter().map(|line| {
        vec![
            line.order.to_string(),
            time::show(line.opened_ms),
            line.state.name().to_owned(),
            count(line.cards.into()),
            line.product.map_or_else(|| "several".to_owned(), |product| catalogue.name(product).to_string()),
            line.buyer.to_string(),
            if line.account == AccountId(0) { "-".to_owned() } else { line.account.to_string() },
        ]
    });
    let header = ["ORDER", "OPENED", "STATE", "CARDS", "PRODUCT", "BUYER", "ACCOUNT"];
    let rest = if more { "\nthere are older ones: --limit N" } else { "" };
    table(&header, &[3, 5, 6], rows) + rest
}
