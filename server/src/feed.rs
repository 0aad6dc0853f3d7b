//! `kami feed`: the events of the log, in order, for whatever other system follows the store.

use clap::Args;
use kami_engine::{Event, FeedSpec, Kind, KindSet, Lsn};
use serde_json::{Value, json};

use crate::card::other_card;
use crate::exit::Failure;
use crate::output::Output;
use crate::remote::{Catalogue, Remote};
use crate::time;

/// Print the events of the log in their order: what was sold, redeemed, changed, by whom, where and when.
///
/// Without --follow it ends with what was there when it began. No event carries a code. To go on later, give the
/// position that is told at the end, or the `lsn` and `epoch` of the last event that was taken care of, with --after:
/// every event comes once. A server that was restored to an earlier point refuses a position of the history that it
/// left.
#[derive(Args)]
#[command(
    after_help = "Example:\n  kami feed --json\n  kami feed --follow --kind sell,redeem,reverse --json\n  kami feed --after 68720:3 --json"
)]
pub struct Feed {
    /// Begin with the event at this position, or the first behind it [default: the beginning; with --follow: now].
    #[arg(long, value_name = "LSN", conflicts_with = "after")]
    from: Option<u64>,
    /// Begin behind this position; with the epoch after a colon the server checks that it is of its own history.
    #[arg(long, value_name = "LSN[:EPOCH]", value_parser = place)]
    after: Option<(Lsn, u32)>,
    /// Go on with what comes, until interrupted.
    #[arg(long)]
    follow: bool,
    /// Only these kinds of events, by name or number, separated by commas.
    #[arg(long, value_name = "KIND", value_delimiter = ',', value_parser = kind)]
    kind: Vec<Kind>,
    /// Only events of this product.
    #[arg(long, value_name = "PRODUCT")]
    product: Option<String>,
    /// At most so many events.
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    #[command(flatten)]
    remote: Remote,
}

/// Reads `12345` or `12345:3`.
fn place(text: &str) -> Result<(Lsn, u32), String> {
    let (lsn, epoch) = text.split_once(':').unwrap_or((text, "0"));
    let lsn = lsn.parse().ok().and_then(Lsn::from_bytes);
    lsn.zip(epoch.parse().ok())
        .ok_or_else(|| "it is no position, such as 68720 or 68720:3 (a multiple of 8)".to_owned())
}

fn kind(text: &str) -> Result<Kind, String> {
    let name = text.trim().to_ascii_uppercase().replace('-', "_");
    let by_name = Kind::ALL.iter().copied().find(|kind| kind.name() == name);
    let by_number = || text.trim().parse().ok().and_then(Kind::from_number);
    by_name.or_else(by_number).ok_or_else(|| "there is no such kind of event, such as redeem".to_owned())
}

pub async fn run(command: Feed, output: &Output) -> Result<(), Failure> {
    let (after, epoch) = match (command.from, command.after) {
        (_, Some((after, epoch))) => (Some(after), epoch),
        // Behind the position before: positions are multiples of 8.
        (Some(from), _) => {
            (Some(Lsn::from_bytes(from.next_multiple_of(8).saturating_sub(8)).unwrap_or(Lsn::START)), 0)
        }
        (None, None) if command.follow => (None, 0),
        (None, None) => (Some(Lsn::START), 0),
    };
    command
        .remote
        .talk(async |client| {
            let catalogue = Catalogue::read(client).await?;
            let products = match &command.product {
                Some(name) => vec![catalogue.find(name)?.id],
                None => Vec::new(),
            };
            let spec = FeedSpec { after, epoch, kinds: KindSet::of(&command.kind), products };
            let mut subscription = client.subscribe(spec);
            let mut left = command.count.unwrap_or(u64::MAX);
            while left > 0 {
                let event = if command.follow {
                    subscription.next().await?
                } else {
                    match subscription.next_past().await? {
                        Some(event) => event,
                        None => break,
                    }
                };
                output.result(&as_json(&event), || as_text(&event, &catalogue))?;
                left -= 1;
            }
            if let Some((position, epoch)) = subscription.place() {
                eprintln!("kami: to go on, --after {position}:{epoch}");
            }
            Ok(())
        })
        .await
}

pub fn as_json(event: &Event) -> Value {
    let mut value = json!({
        "lsn": event.lsn.bytes(),
        "epoch": event.epoch,
        "time_ms": event.time_ms,
        "kind": event.kind.name(),
        "request": event.request.to_string(),
        "principal": event.principal.0,
        "terminal": event.terminal.0,
        "merchant": event.merchant.0,
        "tenant": event.tenant.0,
        "channel": event.channel.0,
    });
    let mut put = |name: &str, field: Option<Value>| {
        if let Some(field) = field {
            value[name] = field;
        }
    };
    put("product_id", event.product.map(|product| product.0.into()));
    put("batch", event.batch.map(|batch| batch.0.into()));
    put("row", event.card.map(|card| card.row().into()));
    put("order", event.order.map(|order| order.to_string().into()));
    put("count", (event.count > 0).then(|| event.count.into()));
    put("amount_minor", event.amount.map(Value::from));
    let other = other_card(event.kind, event.related);
    put("other_card", other.map(|card| card.to_string().into()));
    let original = event.related != 0 && other.is_none();
    put("original", original.then(|| format!("{:032x}", event.related).into()));
    put("object", (event.object != 0).then(|| event.object.into()));
    if let Some(grounds) = event.grounds.as_deref() {
        put("why", (!grounds.why.is_empty()).then(|| grounds.why.clone().into()));
        put("approval", grounds.approval.map(|id| id.to_string().into()));
        put("approver", grounds.approver.map(|id| id.0.into()));
    }
    value
}

fn as_text(event: &Event, catalogue: &Catalogue) -> String {
    let mut text =
        format!("{:<12} {} {:<16}", event.lsn.bytes(), time::show(event.time_ms), event.kind.name());
    let mut say = |what: String| {
        text.push(' ');
        text.push_str(&what);
    };
    if let Some(product) = event.product {
        say(catalogue.name(product));
        if let Some(amount) = event.amount {
            say(catalogue.amount(product, amount));
        }
    }
    match (event.batch, event.card) {
        (Some(batch), Some(card)) => say(format!("card {batch}/{}", card.row())),
        (Some(batch), None) => say(format!("batch {batch}")),
        _ => {}
    }
    if event.count > 0 && event.card.is_none() {
        say(format!("{} cards", event.count));
    }
    if let Some(order) = event.order {
        say(format!("order {order}"));
    }
    if event.related != 0 {
        say(format!("of {:032x}", event.related));
    }
    if event.object != 0 {
        say(format!("#{}", event.object));
    }
    if event.principal.0 != 0 {
        say(format!("by {}", event.principal));
    }
    if let Some(approver) = event.grounds.as_ref().and_then(|grounds| grounds.approver) {
        say(format!("approved by {approver}"));
    }
    for (name, number) in
        [("merchant", event.merchant.0), ("terminal", event.terminal.0), ("channel", event.channel.0.into())]
    {
        if number != 0 {
            say(format!("{name} {number}"));
        }
    }
    let why = event.grounds.as_ref().map(|grounds| &grounds.why).filter(|why| !why.is_empty());
    if let Some(why) = why {
        text.push_str(&format!(" because: {why}"));
    }
    text.truncate(text.trim_end().len());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_and_kinds_are_read() {
        assert_eq!(place("68720:3"), Ok((Lsn::from_bytes(68720).unwrap(), 3)));
        assert_eq!(place("8"), Ok((Lsn::START, 0)));
        for text in ["", "0", "7", "8:", ":3", "8:x", "-8", "18446744073709551608"] {
            assert!(place(text).is_err(), "{text}");
        }
        assert_eq!(
            (kind("redeem"), kind("batch-freeze"), kind("80")),
            (Ok(Kind::Redeem), Ok(Kind::BatchFreeze), Ok(Kind::Sell))
        );
        assert!(kind("steal").is_err());
    }
}
