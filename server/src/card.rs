//! `kami query`, `history`, `freeze`, `unfreeze`, `void`, `activate`, `deactivate`, `extend`, `expire` and `restock`:
//! looking after single cards.

use clap::Args;
use kami_engine::{CardRef, CardReport, DocumentId, Flags, HistoryEvent, Kind, Lifecycle, ReplyFlags};
use kami_net::Client;
use kami_net::client::Wish;
use serde_json::{Value, json};

use crate::code::{document_id, mask, read_secret};
use crate::control::{Propose, propose};
use crate::exit::Failure;
use crate::output::{Output, table};
use crate::remote::{Catalogue, Remote, Why};
use crate::{money, time};

macro_rules! commands {
    ($card:ident: $($(#[doc = $doc:literal])+ $name:ident = $example:literal;)+) => { $(
        $(#[doc = $doc])+
        #[derive(Args)]
        #[command(after_help = concat!("Example:\n  ", $example))]
        pub struct $name {
            #[command(flatten)]
            card: $card,
        }
    )+ };
}

commands! {
    OneCard:
    /// Show a card's state.
    Query = "kami query COFFEE-00000001";
    /// Show all that ever happened to a card, newest first.
    History = "kami history COFFEE-00000001";
}

commands! {
    ChangedCard:
    /// Freeze a card: it is neither sold nor redeemed.
    Freeze = "kami freeze COFFEE-00000001 --why \"reported stolen\"";
    /// End the freeze of a card.
    Unfreeze = "kami unfreeze COFFEE-00000001";
    /// Make a card redeemable, whatever its batch says.
    Activate = "kami activate COFFEE-00000001";
    /// Make an unused card not redeemable, whatever its batch says.
    Deactivate = "kami deactivate COFFEE-00000001";
    /// End a card's validity now; what is held of it can still be captured.
    Expire = "kami expire COFFEE-00000001";
}

/// Make a card void for good; one that is sold only with --propose, and a second person's approval.
#[derive(Args)]
#[command(
    after_help = "Example:\n  kami void COFFEE-00000001\n  kami void COFFEE-00000002 --propose --why \"reported stolen\""
)]
pub struct Void {
    #[command(flatten)]
    card: ChangedCard,
    #[command(flatten)]
    propose: Propose,
}

/// Move the end of a card's validity to a later time; one that had expired is valid again.
#[derive(Args)]
#[command(after_help = "Example:\n  kami extend COFFEE-00000001 2028-12-31")]
pub struct Extend {
    #[command(flatten)]
    card: ChangedCard,
    /// The new end: 2028-12-31 (to its last moment, local time) or 2028-12-31T18:00:00+08:00.
    #[arg(value_parser = time::parse_end)]
    expires: u64,
}

/// Make a returned card void because it went back to its supplier. The one that comes for it is imported.
#[derive(Args)]
#[command(after_help = "Example:\n  kami restock COFFEE-00000001 --reference RMA-2031")]
pub struct Restock {
    #[command(flatten)]
    card: ChangedCard,
    /// The supplier's document: 32 hex digits are taken as they are, any other text is hashed to 128 bits.
    #[arg(long, value_name = "ID", value_parser = document_id)]
    reference: DocumentId,
}

#[derive(Args)]
struct OneCard {
    /// The code; `-` reads it from standard input, where `ps` does not show it.
    code: String,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Args)]
struct ChangedCard {
    #[command(flatten)]
    card: OneCard,
    #[command(flatten)]
    why: Why,
}

impl ChangedCard {
    async fn talk(
        &self,
        talk: impl AsyncFnOnce(&[u8], &Client) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let code = read_secret(&self.card.code, "code")?;
        self.card.remote.talk_on(&self.why, async |client| talk(&code, client).await).await
    }
}

impl OneCard {
    /// Asks for the code and connects.
    async fn talk(
        &self,
        talk: impl AsyncFnOnce(&[u8], &Client) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let code = read_secret(&self.code, "code")?;
        self.remote.talk(async |client| talk(&code, client).await).await
    }
}

pub async fn query(command: Query, output: &Output) -> Result<(), Failure> {
    let card = command.card;
    card.talk(async |code, client| show(client, code, &client.query(code).await?.value, output).await).await
}

pub async fn freeze(command: Freeze, output: &Output) -> Result<(), Failure> {
    let card = command.card;
    card.talk(async |code, client| show(client, code, &client.freeze(code).await?.value, output).await).await
}

pub async fn unfreeze(command: Unfreeze, output: &Output) -> Result<(), Failure> {
    let card = command.card;
    card.talk(async |code, client| show(client, code, &client.unfreeze(code).await?.value, output).await)
        .await
}

pub async fn void(command: Void, output: &Output) -> Result<(), Failure> {
    let card = command.card;
    if command.propose.propose {
        let wish =
            async |code: &[u8], client: &Client| propose(client, Wish::Void(code), &card.why, output).await;
        return card.talk(wish).await;
    }
    card.talk(async |code, client| show(client, code, &client.void(code).await?.value, output).await).await
}

pub async fn activate(command: Activate, output: &Output) -> Result<(), Failure> {
    let card = command.card;
    card.talk(async |code, client| show(client, code, &client.activate(code).await?.value, output).await)
        .await
}

pub async fn deactivate(command: Deactivate, output: &Output) -> Result<(), Failure> {
    let card = command.card;
    card.talk(async |code, client| show(client, code, &client.deactivate(code).await?.value, output).await)
        .await
}

pub async fn extend(command: Extend, output: &Output) -> Result<(), Failure> {
    let Extend { card, expires } = command;
    card.talk(async |code, client| {
        show(client, code, &client.extend(code, expires).await?.value, output).await
    })
    .await
}

pub async fn expire(command: Expire, output: &Output) -> Result<(), Failure> {
    let card = command.card;
    card.talk(async |code, client| show(client, code, &client.expire(code).await?.value, output).await).await
}

pub async fn restock(command: Restock, output: &Output) -> Result<(), Failure> {
    let Restock { card, reference } = command;
    card.talk(async |code, client| {
        show(client, code, &client.restock(code, reference).await?.value, output).await
    })
    .await
}

pub async fn show(client: &Client, code: &[u8], report: &CardReport, output: &Output) -> Result<(), Failure> {
    let catalogue = Catalogue::read_if_allowed(client).await?;
    output.result(&as_json(report, &catalogue), || {
        let mut lines = vec![
            format!("card     {} ({})", mask(code), report.card),
            format!("state    {} {}", report.lifecycle.name(), in_chinese(report.lifecycle)),
            format!("flags    {:?}", report.flags),
            format!("product  {}", catalogue.name(report.product)),
            format!("face     {}", catalogue.amount(report.product, report.face)),
            format!("left     {}", catalogue.worth(report.product, report.remaining)),
            format!("expires  {}", time::show(report.expires_ms)),
        ];
        if report.held != 0 {
            lines.insert(6, format!("held     {}", catalogue.worth(report.product, report.held)));
        }
        if let Some(order) = report.order {
            lines.push(format!("order    {order}"));
        }
        lines.join("\n")
    })
}

/// A card as `--json` shows it.
pub fn as_json(report: &CardReport, catalogue: &Catalogue) -> Value {
    let product = catalogue.get(report.product);
    json!({
        "card": report.card.to_string(),
        "state": report.lifecycle.name(),
        "flags": flag_names(report.flags),
        "product_id": report.product.0,
        "product": product.map(|product| &product.spec.name),
        "currency": product.map(|product| money::name(product.spec.currency)),
        "face_minor": report.face,
        "remaining_minor": report.remaining,
        "held_minor": report.held,
        "expires_ms": report.expires_ms,
        "order": report.order.map(|order| order.to_string()),
    })
}

pub async fn history(command: History, output: &Output) -> Result<(), Failure> {
    command
        .card
        .talk(async |code, client| {
            let receipt = client.history(code).await?;
            let events = &receipt.value.rows;
            let value = json!({
                "events": events.iter().map(event).collect::<Vec<_>>(),
                "complete": !receipt.flags.contains(ReplyFlags::PARTIAL),
            });
            output.result(&value, || {
                let rows = events.iter().map(|event| {
                    vec![
                        time::show(event.time_ms),
                        happened(event),
                        event.lifecycle.name().to_owned(),
                        by(event),
                        event.terminal.to_string(),
                        event.request.to_string(),
                        event.lsn.to_string(),
                        event.grounds.as_ref().map_or_else(String::new, |grounds| grounds.why.clone()),
                    ]
                });
                let header =
                    ["TIME", "EVENT", "STATE AFTER", "PRINCIPAL", "TERMINAL", "REQUEST", "LSN", "WHY"];
                let whole = !receipt.flags.contains(ReplyFlags::PARTIAL);
                let rest = if whole { "" } else { "\nolder events are left out" };
                format!("card {}\n{}{rest}", mask(code), table(&header, &[3, 4, 6], rows))
            })
        })
        .await
}

/// Who did it, and who approved it.
fn by(event: &HistoryEvent) -> String {
    let approver = event.grounds.as_ref().and_then(|grounds| grounds.approver);
    match approver {
        Some(approver) => format!("{} + {approver}", event.principal),
        None => event.principal.to_string(),
    }
}

/// What happened, with the other card of two, and with the time of then where it was recorded later: offline, or in
/// another system.
fn happened(event: &HistoryEvent) -> String {
    let name = event.kind.name();
    if let Some(card) = other_card(event.kind, event.related) {
        let link = match event.kind {
            Kind::Replace => "by",
            Kind::Replacement => "of",
            Kind::Transfer => "to",
            _ => "from",
        };
        return format!("{name} {link} {card}");
    }
    match (event.kind, event.made_ms) {
        (Kind::Migrated, 0) => "MIGRATED, at a time not known".to_owned(),
        (_, 0) => name.to_owned(),
        (_, made_ms) => format!("{name}, at {}", time::show(made_ms)),
    }
}

/// Of an event of a pair, the other card.
pub fn other_card(kind: Kind, related: u128) -> Option<CardRef> {
    let bits = u64::try_from(related).ok().filter(|_| kind.is_of_pair())?;
    Some(CardRef::from_bits(bits))
}

/// An event as `--json` shows it.
pub fn event(event: &HistoryEvent) -> Value {
    json!({
        "event": event.kind.name(),
        "lsn": event.lsn.bytes(),
        "time_ms": event.time_ms,
        "state": event.lifecycle.name(),
        "flags": flag_names(event.flags),
        "principal": event.principal.0,
        "terminal": event.terminal.0,
        "merchant": event.merchant.0,
        "channel": event.channel.0,
        "request": event.request.to_string(),
        "related": format!("{:032x}", event.related),
        "other_card": other_card(event.kind, event.related).map(|card| card.to_string()),
        "amount_minor": event.amount,
        "remaining_minor": event.remaining,
        "made_ms": event.made_ms,
        "why": event.grounds.as_ref().map(|grounds| &grounds.why),
        "approval": event.grounds.as_ref().and_then(|grounds| grounds.approval).map(|id| id.to_string()),
        "approver": event.grounds.as_ref().and_then(|grounds| grounds.approver).map(|id| id.0),
    })
}

pub fn flag_names(flags: Flags) -> Vec<&'static str> {
    Flags::NAMED.into_iter().filter(|(flag, _)| flags.contains(*flag)).map(|(_, name)| name).collect()
}

const fn in_chinese(lifecycle: Lifecycle) -> &'static str {
    match lifecycle {
        Lifecycle::Available => "在库",
        Lifecycle::Reserved => "占用",
        Lifecycle::Sold => "已售",
        Lifecycle::Redeemed => "已核销",
        Lifecycle::Expired => "过期",
        Lifecycle::Voided => "作废",
        Lifecycle::Returned => "退回",
    }
}
