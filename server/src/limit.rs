//! `kami limit`: how much may be bought or redeemed, by whom, in which time.

use clap::{Args, Subcommand};
use kami_engine::{Limit, LimitAction, LimitScope, LimitSpec, LimitWindow, ProductId};
use kami_net::Client;
use serde_json::{Value, json};

use crate::account;
use crate::exit::Failure;
use crate::output::{Output, count, table};
use crate::remote::{Catalogue, Remote, Why};
use crate::time;

/// Set, list and end limits on purchases, reservations and redemptions.
#[derive(Args)]
#[command(
    after_help = "Example:\n  kami limit set per-day --scope account --window day+08:00 --max 500\n  kami limit set till-velocity --scope terminal --window 60s --max 20\n  kami limit set unpaid --scope ip --window open-orders --max 3\n  kami limit list\n  kami limit end per-day"
)]
pub struct LimitCommand {
    #[command(flatten)]
    remote: Remote,
    #[command(flatten)]
    why: Why,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Set a limit, or change how much one allows and what happens at it.
    #[command(
        after_help = "Example:\n  kami limit set per-day --scope account --window day+08:00 --max 500\n  kami limit set per-day --max 800"
    )]
    Set {
        /// What it is called: 1 to 64 bytes.
        name: String,
        /// Who is counted, each for itself: account, account:NAME for one, ip, terminal, principal, order.
        #[arg(long, value_name = "SCOPE")]
        scope: Option<String>,
        /// In which time: day (universal time), day+08:00, 90s, 12h, life; or what is reserved and not paid:
        /// open-cards, open-orders.
        #[arg(long, value_name = "WINDOW", value_parser = parse_window)]
        window: Option<LimitWindow>,
        /// How many cards, redemptions or orders.
        #[arg(long, value_name = "N")]
        max: u64,
        /// Only cards of this product.
        #[arg(long, value_name = "PRODUCT")]
        product: Option<String>,
        /// What happens at it: refuse, or alert, which records it once in the window.
        #[arg(long, value_name = "ACTION", value_parser = parse_action)]
        action: Option<LimitAction>,
    },
    /// List the limits that stand.
    #[command(after_help = "Example:\n  kami limit list")]
    List,
    /// Take a limit away for good.
    #[command(after_help = "Example:\n  kami limit end per-day")]
    End {
        /// Its name.
        name: String,
    },
}

fn parse_action(text: &str) -> Result<LimitAction, String> {
    match text {
        "refuse" => Ok(LimitAction::Refuse),
        "alert" => Ok(LimitAction::Alert),
        _ => Err("it is refuse or alert".to_owned()),
    }
}

fn parse_window(text: &str) -> Result<LimitWindow, String> {
    let wrong = "a window is day, day+08:00, a length of time such as 90s or 12h (at most 24h), life, open-cards \
                 or open-orders";
    match text {
        "day" => return Ok(LimitWindow::Day { offset_min: 0 }),
        "life" => return Ok(LimitWindow::Life),
        "open-cards" => return Ok(LimitWindow::OpenCards),
        "open-orders" => return Ok(LimitWindow::OpenOrders),
        _ => {}
    }
    if let Some(offset) = text.strip_prefix("day") {
        let offset = time::parse_offset(offset).map_err(|_| wrong.to_owned());
        return offset.map(|offset_min| LimitWindow::Day { offset_min });
    }
    time::parse_seconds(text).map(|seconds| LimitWindow::Rolling { seconds }).map_err(|_| wrong.to_owned())
}

fn show_window(window: LimitWindow) -> String {
    match window {
        LimitWindow::Day { offset_min: 0 } => "day".to_owned(),
        LimitWindow::Day { offset_min } => format!("day{}", time::show_offset(offset_min)),
        LimitWindow::Rolling { seconds } if seconds % 3600 == 0 => format!("{}h", seconds / 3600),
        LimitWindow::Rolling { seconds } => format!("{seconds}s"),
        LimitWindow::Life => "life".to_owned(),
        LimitWindow::OpenCards => "open-cards".to_owned(),
        LimitWindow::OpenOrders => "open-orders".to_owned(),
    }
}

fn show_scope(scope: LimitScope) -> String {
    match scope {
        LimitScope::Account(None) => "account".to_owned(),
        LimitScope::Account(Some(id)) => format!("account #{id}"),
        LimitScope::Ip => "ip".to_owned(),
        LimitScope::Terminal => "terminal".to_owned(),
        LimitScope::Principal => "principal".to_owned(),
        LimitScope::Order => "order".to_owned(),
    }
}

async fn scope_of(client: &Client, text: &str) -> Result<LimitScope, Failure> {
    Ok(match text {
        "account" => LimitScope::Account(None),
        "ip" => LimitScope::Ip,
        "terminal" => LimitScope::Terminal,
        "principal" => LimitScope::Principal,
        "order" => LimitScope::Order,
        text => match text.strip_prefix("account:") {
            Some(name) => LimitScope::Account(Some(account::find(client, name).await?.id)),
            None => {
                return Err(Failure::usage(format!(
                    "--scope `{text}`: it is account, account:NAME, ip, terminal, principal or order"
                )));
            }
        },
    })
}

pub async fn run(command: LimitCommand, output: &Output) -> Result<(), Failure> {
    let LimitCommand { remote, why, action } = command;
    remote
        .talk_on(&why, async |client| {
            let standing = client.limit_list().await?.value.rows;
            let known = |name: &str| standing.iter().find(|limit| limit.spec.name == name);
            let catalogue = Catalogue::read_if_allowed(client).await?;
            let spec = match action {
                Action::List => {
                    let rows: Vec<Value> = standing.iter().map(|limit| value(limit, &catalogue)).collect();
                    return output.result(&json!({ "limits": rows }), || listing(&standing, &catalogue));
                }
                Action::End { name } => {
                    let Some(limit) = known(&name) else { return Err(missing(&name)) };
                    LimitSpec { ended: true, ..limit.spec.clone() }
                }
                Action::Set { name, scope, window, max, product, action } => {
                    let product = match product {
                        Some(product) => Some(catalogue.find(&product)?.id),
                        None => None,
                    };
                    let scope = match scope {
                        Some(scope) => Some(scope_of(client, &scope).await?),
                        None => None,
                    };
                    match known(&name) {
                        Some(limit) => LimitSpec {
                            scope: scope.unwrap_or(limit.spec.scope),
                            window: window.unwrap_or(limit.spec.window),
                            product: product.or(limit.spec.product),
                            action: action.unwrap_or(limit.spec.action),
                            max,
                            ..limit.spec.clone()
                        },
                        None => LimitSpec {
                            name,
                            scope: scope.ok_or_else(|| Failure::usage("a new limit needs --scope"))?,
                            product,
                            window: match (window, scope) {
                                (Some(window), _) => window,
                                (None, Some(LimitScope::Order)) => LimitWindow::Life,
                                (None, _) => return Err(Failure::usage("a new limit needs --window")),
                            },
                            max,
                            action: action.unwrap_or(LimitAction::Refuse),
                            ended: false,
                        },
                    }
                }
            };
            let limit = client.limit_put(spec).await?.value;
            output.result(&value(&limit, &catalogue), || listing(std::slice::from_ref(&limit), &catalogue))
        })
        .await
}

fn missing(name: &str) -> Failure {
    Failure {
        status: Some(kami_engine::Status::NotFound),
        ..Failure::refused(format!("there is no limit `{name}`; `kami limit list` shows them"))
    }
}

const fn show_action(action: LimitAction) -> &'static str {
    match action {
        LimitAction::Refuse => "refuse",
        LimitAction::Alert => "alert",
    }
}

fn value(limit: &Limit, catalogue: &Catalogue) -> Value {
    let spec = &limit.spec;
    let account = match spec.scope {
        LimitScope::Account(Some(id)) => Some(id.0),
        _ => None,
    };
    json!({
        "id": limit.id.0,
        "name": spec.name,
        "scope": show_scope(spec.scope).split(' ').next(),
        "account": account,
        "product": spec.product.map(|id: ProductId| catalogue.name(id)),
        "window": show_window(spec.window),
        "max": spec.max,
        "action": show_action(spec.action),
        "ended": spec.ended,
    })
}

fn listing(limits: &[Limit], catalogue: &Catalogue) -> String {
    let rows = limits.iter().map(|limit| {
        let spec = &limit.spec;
        vec![
            limit.id.to_string(),
            spec.name.clone(),
            show_scope(spec.scope),
            spec.product.map_or_else(|| "-".to_owned(), |id| catalogue.name(id)),
            show_window(spec.window),
            count(spec.max),
            show_action(spec.action).to_owned(),
            if spec.ended { "ended" } else { "" }.to_owned(),
        ]
    });
    table(&["ID", "NAME", "SCOPE", "PRODUCT", "WINDOW", "MAX", "ACTION", ""], &[0, 5], rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_read_and_shown() {
        for (text, window) in [
            ("day", LimitWindow::Day { offset_min: 0 }),
            ("day+08:00", LimitWindow::Day { offset_min: 480 }),
            ("day-03:30", LimitWindow::Day { offset_min: -210 }),
            ("90s", LimitWindow::Rolling { seconds: 90 }),
            ("12h", LimitWindow::Rolling { seconds: 43_200 }),
            ("life", LimitWindow::Life),
            ("open-cards", LimitWindow::OpenCards),
            ("open-orders", LimitWindow::OpenOrders),
        ] {
            assert_eq!(parse_window(text), Ok(window));
            assert_eq!(show_window(window), text);
        }
        for text in ["", "days", "day8", "day+19:00", "day+08:60", "day*08:00", "1w", "tag"] {
            assert!(parse_window(text).is_err(), "{text}");
        }
    }
}
