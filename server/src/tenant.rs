//! `kami tenant`: merchants that share one store.

use clap::{Args, Subcommand};
use kami_engine::{DualControl, Tenant, TenantId, TenantSpec};
use kami_net::Client;
use kami_net::client::Wish;
use serde_json::{Value, json};

use crate::control::{Propose, control_text, control_value, propose};
use crate::exit::Failure;
use crate::output::{Output, table};
use crate::remote::{Remote, Why};
use crate::time;

/// Add, list and freeze tenants: merchants that share this store, each with its own products, cards and people.
///
/// Nothing of one tenant is shown to another. The house, which the first admin belongs to, adds tenants and each
/// one's first admin, who adds everybody else of that tenant.
#[derive(Args)]
#[command(
    after_help = "Example:\n  kami tenant add north-shop\n  kami principal add north-admin --role admin --tenant north-shop --out north-admin\n  kami tenant list\n  kami tenant freeze north-shop --why \"contract ended\"\n  kami tenant unfreeze north-shop"
)]
pub struct TenantCommand {
    #[command(flatten)]
    remote: Remote,
    #[command(flatten)]
    why: Why,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Add a tenant; its name is new.
    #[command(after_help = "Example:\n  kami tenant add north-shop")]
    Add {
        /// What it is called: 1 to 64 bytes.
        name: String,
    },
    /// List the tenants but for the house.
    #[command(after_help = "Example:\n  kami tenant list")]
    List,
    /// Set what of a tenant takes two people. Once it is on, only with --propose and somebody else's approval.
    #[command(
        after_help = "Example:\n  kami tenant set --dual-control on --reveal-cards 10 --lapse 24h\n  kami tenant set north-shop --dual-control on\n  kami tenant set --dual-control off --propose --why \"one admin left\""
    )]
    Set {
        /// Its name or number; for the house alone [default: one's own].
        tenant: Option<String>,
        /// Whether refunds, and this setting itself, take two people.
        #[arg(long, value_name = "on|off", value_parser = parse_on, action = clap::ArgAction::Set)]
        dual_control: bool,
        /// With it on: codes of another's order with at most so many cards are given to an operator alone.
        #[arg(long, value_name = "N", default_value_t = 0)]
        reveal_cards: u32,
        /// How long proposals last, and what was approved may be fetched: 30m, 24h.
        #[arg(long, value_name = "TIME", default_value = "24h", value_parser = time::parse_seconds)]
        lapse: u32,
        #[command(flatten)]
        propose: Propose,
    },
    /// Freeze all cards of a tenant: nothing is sold or redeemed.
    #[command(after_help = "Example:\n  kami tenant freeze north-shop --why \"contract ended\"")]
    Freeze {
        /// Its name or number.
        tenant: String,
    },
    /// End the freeze of a tenant.
    #[command(after_help = "Example:\n  kami tenant unfreeze north-shop")]
    Unfreeze {
        /// Its name or number.
        tenant: String,
    },
}

pub async fn run(command: TenantCommand, output: &Output) -> Result<(), Failure> {
    let TenantCommand { remote, why, action } = command;
    remote
        .talk_on(&why, async |client| {
            let tenant = match &action {
                Action::Add { name } => client.tenant_put(TenantSpec { name: name.clone() }).await?,
                Action::List => {
                    let tenants = client.tenant_list().await?.value.rows;
                    let rows: Vec<Value> = tenants.iter().map(value).collect();
                    return output.result(&json!({ "tenants": rows }), || lines(&tenants));
                }
                Action::Set {
                    tenant,
                    dual_control,
                    reveal_cards,
                    lapse,
                    propose: Propose { propose: proposes },
                } => {
                    let tenant = match tenant {
                        Some(name) if name == "0" => TenantId(0),
                        Some(name) => find(client, name).await?,
                        None => client.welcome().await?.tenant,
                    };
                    let control =
                        DualControl { on: *dual_control, reveal_cards: *reveal_cards, lapse_s: *lapse };
                    if *proposes {
                        return propose(client, Wish::TenantControl(tenant, control), &why, output).await;
                    }
                    let control = client.tenant_control(tenant, control).await?.value;
                    return output.result(&control_value(control), || control_text(control));
                }
                Action::Freeze { tenant } => client.tenant_freeze(find(client, tenant).await?).await?,
                Action::Unfreeze { tenant } => client.tenant_unfreeze(find(client, tenant).await?).await?,
            }
            .value;
            output.result(&value(&tenant), || lines(std::slice::from_ref(&tenant)))
        })
        .await
}

fn parse_on(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("write on or off".to_owned()),
    }
}

/// The tenant with this name, or else with this number.
pub async fn find(client: &Client, name: &str) -> Result<TenantId, Failure> {
    let tenants = client.tenant_list().await?.value.rows;
    let named = tenants.iter().find(|tenant| tenant.spec.name == name);
    let numbered = || tenants.iter().find(|tenant| name.parse() == Ok(tenant.id.0));
    named.or_else(numbered).map(|tenant| tenant.id).ok_or_else(|| Failure {
        status: Some(kami_engine::Status::NotFound),
        ..Failure::refused(format!("there is no tenant `{name}`; `kami tenant list` shows them"))
    })
}

fn value(tenant: &Tenant) -> Value {
    json!({ "id": tenant.id.0, "name": tenant.spec.name, "frozen": tenant.frozen })
}

fn lines(tenants: &[Tenant]) -> String {
    let rows = tenants.iter().map(|tenant| {
        let frozen = if tenant.frozen { "frozen" } else { "" };
        vec![tenant.id.to_string(), tenant.spec.name.clone(), frozen.to_owned()]
    });
    table(&["ID", "NAME", ""], &[0], rows)
}
