//! `kami changes`: what people changed by hand, and why, as the log has it.

use std::collections::HashMap;

use clap::Args;
use kami_engine::{Event, FeedSpec, Kind, KindSet, PrincipalId};
use kami_net::{Client, ClientError};
use serde_json::{Value, json};

use crate::exit::Failure;
use crate::feed::as_json;
use crate::output::{Output, table};
use crate::remote::{Catalogue, Remote};
use crate::time;

/// List what people changed by hand: products, batches, principals, accounts, limits, single cards. Oldest first.
///
/// It is read from the log itself, so nothing is missing from it: each change with its time, who made it and why. Of
/// cancelled orders those are listed that were cancelled for a reason.
/// The operator, finance and auditor roles may ask.
#[derive(Args)]
#[command(
    after_help = "Example:\n  kami changes\n  kami changes --since 2026-11-01 --by anna --json\n  kami changes --without-why"
)]
pub struct Changes {
    /// Only changes from this time on: 2026-11-01 (local time) or 2026-11-01T08:00:00+08:00.
    #[arg(long, value_name = "TIME", value_parser = time::parse_start)]
    since: Option<u64>,
    /// Only changes by this principal: its name or number.
    #[arg(long, value_name = "PRINCIPAL")]
    by: Option<String>,
    /// Only changes that were made without a reason.
    #[arg(long)]
    without_why: bool,
    /// Only the newest so many.
    #[arg(long, value_name = "N")]
    last: Option<usize>,
    #[command(flatten)]
    remote: Remote,
}

/// What people do by hand. Sales, redemptions and what follows from them are not among it; a platform cancels orders all
/// day, so of CANCEL only those count that say why.
const BY_HAND: &[Kind] = &[
    Kind::ProductPut,
    Kind::ProductFreeze,
    Kind::ProductUnfreeze,
    Kind::PrincipalPut,
    Kind::PrincipalRevoke,
    Kind::TenantPut,
    Kind::TenantFreeze,
    Kind::TenantUnfreeze,
    Kind::TenantControl,
    Kind::Propose,
    Kind::Approve,
    Kind::ProposalWithdraw,
    Kind::Export,
    Kind::KeyRotate,
    Kind::Restore,
    Kind::ClockAccept,
    Kind::Import,
    Kind::BatchActivate,
    Kind::BatchDeactivate,
    Kind::BatchFreeze,
    Kind::BatchUnfreeze,
    Kind::BatchVoid,
    Kind::BatchExtend,
    Kind::Freeze,
    Kind::Unfreeze,
    Kind::Void,
    Kind::Activate,
    Kind::Deactivate,
    Kind::Expire,
    Kind::Extend,
    Kind::Settle,
    Kind::RefundValue,
    Kind::Return,
    Kind::Cancel,
    Kind::Restock,
    Kind::Replace,
    Kind::Transfer,
    Kind::PinUnlock,
    Kind::ExceptionResolve,
    Kind::AccountPut,
    Kind::AccountFreeze,
    Kind::AccountUnfreeze,
    Kind::Post,
    Kind::LimitPut,
];

pub async fn run(command: Changes, output: &Output) -> Result<(), Failure> {
    command
        .remote
        .talk(async |client| {
            let catalogue = Catalogue::read_if_allowed(client).await?;
            let names = names(client).await?;
            let by = command.by.as_deref().map(|by| find(by, &names)).transpose()?;
            let spec = FeedSpec { kinds: KindSet::of(BY_HAND), ..FeedSpec::from_start() };
            let mut subscription = client.subscribe(spec);
            let mut changes = Vec::new();
            while let Some(event) = subscription.next_past().await? {
                let wanted = (event.kind != Kind::Cancel || has_why(&event))
                    && command.since.is_none_or(|since| event.time_ms >= since)
                    && by.is_none_or(|by| event.principal == by || approver(&event) == Some(by))
                    && !(command.without_why && has_why(&event));
                if wanted {
                    changes.push(event);
                }
                if let Some(last) = command.last
                    && changes.len() > 2 * last.max(512)
                {
                    changes.drain(..changes.len() - last);
                }
            }
            let kept = command.last.map_or(0, |last| changes.len().saturating_sub(last));
            show(&changes[kept..], &catalogue, &names, output)
        })
        .await
}

fn approver(event: &Event) -> Option<PrincipalId> {
    event.grounds.as_ref().and_then(|grounds| grounds.approver)
}

fn has_why(event: &Event) -> bool {
    event.grounds.as_ref().is_some_and(|grounds| !grounds.why.is_empty())
}

/// What principals are called, as far as the caller may know.
async fn names(client: &Client) -> Result<HashMap<PrincipalId, String>, Failure> {
    match client.principal_list().await {
        Ok(receipt) => Ok(receipt.value.rows.into_iter().map(|row| (row.id, row.spec.name)).collect()),
        Err(ClientError::Refused { .. }) => Ok(HashMap::new()),
        Err(error) => Err(error.into()),
    }
}

fn find(by: &str, names: &HashMap<PrincipalId, String>) -> Result<PrincipalId, Failure> {
    let named = names.iter().find(|(_, name)| *name == by).map(|(id, _)| *id);
    let numbered = || by.parse().ok().map(PrincipalId);
    named.or_else(numbered).ok_or_else(|| Failure::refused(format!("there is no principal `{by}`")))
}

fn show(
    changes: &[Event],
    catalogue: &Catalogue,
    names: &HashMap<PrincipalId, String>,
    output: &Output,
) -> Result<(), Failure> {
    let name = |id: PrincipalId| match (id.0, names.get(&id)) {
        (0, _) => "the engine".to_owned(),
        (_, Some(name)) => name.clone(),
        (number, None) => format!("#{number}"),
    };
    let values: Vec<Value> = changes
        .iter()
        .map(|event| {
            let mut value = as_json(event);
            value["by"] = name(event.principal).into();
            if let Some(approver) = approver(event) {
                value["approved_by"] = name(approver).into();
            }
            value
        })
        .collect();
    output.result(&json!({ "changes": values }), || {
        let rows = changes.iter().map(|event| {
            vec![
                time::show(event.time_ms),
                event.kind.name().to_owned(),
                what(event, catalogue),
                match approver(event) {
                    Some(second) => format!("{} + {}", name(event.principal), name(second)),
                    None => name(event.principal),
                },
                event.lsn.to_string(),
                event.grounds.as_ref().map_or_else(String::new, |grounds| grounds.why.clone()),
            ]
        });
        table(&["TIME", "CHANGE", "OF", "BY", "LSN", "WHY"], &[4], rows)
    })
}

/// What was changed.
fn what(event: &Event, catalogue: &Catalogue) -> String {
    match event {
        Event { batch: Some(batch), card: Some(card), .. } => format!("card {batch}/{}", card.row()),
        Event { batch: Some(batch), .. } => format!("batch {batch}"),
        Event { order: Some(order), .. } => format!("order {order}"),
        Event { product: Some(product), .. } => catalogue.name(*product),
        Event { object, .. } if *object != 0 => format!("#{object}"),
        Event { related, .. } if *related != 0 => format!("{related:032x}"),
        _ => String::new(),
    }
}
