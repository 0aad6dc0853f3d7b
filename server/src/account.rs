//! `kami account` and `kami post`: who has how much, and moving money.

use clap::{Args, Subcommand};
use kami_engine::{
    Account, AccountId, AccountKind, AccountSpec, DocumentId, Leg, Money, Posting, PrincipalId, ReplyFlags,
    RequestId, StatementLine,
};
use kami_net::{Client, ClientError};
use serde_json::{Value, json};

use crate::code::{document_id, posting_id};
use crate::exit::Failure;
use crate::output::{Output, table};
use crate::remote::{Remote, Why};
use crate::table_file::{Cell, TableFile, TableOptions};
use crate::time::Day;
use crate::{money, time};

/// Add, change, list and read accounts.
#[derive(Args)]
#[command(
    after_help = "Example:\n  kami account add bank --currency CNY --kind external\n  kami account add shop-17 --currency CNY --kind customer --credit 500\n  kami post --document transfer-4711 --leg bank=-1000 --leg shop-17=1000\n  kami account list\n  kami account statement shop-17"
)]
pub struct AccountCommand {
    #[command(flatten)]
    remote: Remote,
    #[command(flatten)]
    why: Why,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Add an account; its name is new.
    #[command(
        after_help = "Example:\n  kami account add shop-17 --currency CNY --kind customer --credit 500"
    )]
    Add {
        /// What it is called: 1 to 64 bytes.
        name: String,
        /// Three letters, such as CNY.
        #[arg(long, value_name = "CUR", value_parser = money::parse_currency)]
        currency: [u8; 3],
        /// What it stands for: customer, agent, income, or external for the world outside, which has no bound.
        #[arg(long, value_name = "KIND", value_parser = parse_kind)]
        kind: AccountKind,
        /// How far below zero it may go, in the currency's main unit.
        #[arg(long, value_name = "AMOUNT", default_value = "0")]
        credit: String,
        /// The number of the seller that may pay from it; 0 is any seller.
        #[arg(long, value_name = "PRINCIPAL", default_value_t = 0)]
        owner: u32,
    },
    /// Change the credit limit or the owner of an account; what is not given stays as it is.
    #[command(after_help = "Example:\n  kami account set shop-17 --credit 800")]
    Set {
        /// Its name.
        name: String,
        /// How far below zero it may go, in the currency's main unit.
        #[arg(long, value_name = "AMOUNT")]
        credit: Option<String>,
        /// The number of the seller that may pay from it; 0 is any seller.
        #[arg(long, value_name = "PRINCIPAL")]
        owner: Option<u32>,
    },
    /// List the accounts.
    #[command(after_help = "Example:\n  kami account list")]
    List,
    /// Show one account.
    #[command(after_help = "Example:\n  kami account show shop-17")]
    Show {
        /// Its name.
        name: String,
    },
    /// Show what happened to an account's money, newest first, or write it to a file.
    #[command(
        after_help = "Example:\n  kami account statement shop-17 --count 500\n  kami account statement shop-17 --day 2026-11-01 --to 2026-11-30 --offset +08:00 --xlsx november.xlsx"
    )]
    Statement {
        /// Its name.
        name: String,
        /// How many entries at most [default: all of the days that are asked for or if they go to a file, else 50].
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        count: Option<u32>,
        /// Only this day, or the first of several.
        #[arg(long, value_name = "DATE", value_parser = time::parse_day)]
        day: Option<Day>,
        /// The last day.
        #[arg(long, value_name = "DATE", value_parser = time::parse_day, requires = "day")]
        to: Option<Day>,
        /// The time zone in which days begin, as its distance from UTC [default: this machine's on the first day].
        #[arg(long, value_name = "±HH:MM", value_parser = time::parse_offset, allow_hyphen_values = true, requires = "day")]
        offset: Option<i16>,
        #[command(flatten)]
        file: TableOptions,
    },
    /// Freeze an account: nothing is paid from it. Money that comes in is taken.
    #[command(after_help = "Example:\n  kami account freeze shop-17")]
    Freeze {
        /// Its name.
        name: String,
    },
    /// End the freeze of an account.
    #[command(after_help = "Example:\n  kami account unfreeze shop-17")]
    Unfreeze {
        /// Its name.
        name: String,
    },
}

/// Move money between accounts: a top-up, a withdrawal, a correction.
///
/// The same command run again is a retry: it says what the first said and moves nothing more.
#[derive(Args)]
#[command(
    after_help = "Example:\n  kami post --document transfer-4711 --leg bank=-1000 --leg shop-17=1000 --note \"top-up of 23 November\""
)]
pub struct Post {
    /// The document it rests on: 32 hex digits are taken as they are, any other text is hashed to 128 bits.
    #[arg(long, value_name = "ID", value_parser = document_id)]
    document: DocumentId,
    /// What comes onto an account, or goes from it if negative, in its currency's main unit; at least two, and
    /// their sum is zero in every currency.
    #[arg(long = "leg", value_name = "ACCOUNT=AMOUNT", value_parser = parse_leg, required = true, allow_hyphen_values = true)]
    legs: Vec<Side>,
    /// For people, at most 200 bytes.
    #[arg(long, value_name = "TEXT", default_value = "")]
    note: String,
    #[command(flatten)]
    remote: Remote,
}

fn parse_kind(text: &str) -> Result<AccountKind, String> {
    let known = AccountKind::ALL.into_iter().find(|kind| kind.name() == text);
    known.ok_or_else(|| "an account is customer, agent, income or external".to_owned())
}

/// One side of a movement of money, as it is typed: account and amount.
pub type Side = (String, String);

pub fn parse_leg(text: &str) -> Result<Side, String> {
    let (account, amount) = text.rsplit_once('=').ok_or("a leg is ACCOUNT=AMOUNT, such as shop-17=-28.50")?;
    Ok((account.to_owned(), amount.to_owned()))
}

/// An amount that may be negative.
fn signed(text: &str, currency: [u8; 3]) -> Result<Money, String> {
    match text.trim().strip_prefix('-') {
        Some(rest) => money::parse(rest, currency).map(|amount| -amount),
        None => money::parse(text.trim().trim_start_matches('+'), currency),
    }
}

pub async fn run(command: AccountCommand, output: &Output) -> Result<(), Failure> {
    let AccountCommand { remote, why, action } = command;
    let amount = |text: &str, currency| {
        money::parse(text, currency).map_err(|wrong| Failure::usage(format!("--credit `{text}`: {wrong}")))
    };
    // What cannot be right is said without asking a server.
    let new = match &action {
        Action::Add { name, currency, kind, credit, owner } => Some(AccountSpec {
            name: name.clone(),
            currency: *currency,
            kind: *kind,
            credit_limit: amount(credit, *currency)?,
            owner: PrincipalId(*owner),
        }),
        _ => None,
    };
    remote
        .talk_on(&why, async |client| {
            let account = match action {
                Action::Add { .. } => {
                    let Some(spec) = new else { return Ok(()) };
                    client.account_add(spec, RequestId::random()).await?.value
                }
                Action::Set { name, credit, owner } => {
                    let mut spec = find(client, &name).await?.spec;
                    if let Some(credit) = credit {
                        spec.credit_limit = amount(&credit, spec.currency)?;
                    }
                    spec.owner = owner.map_or(spec.owner, PrincipalId);
                    client.account_set(spec, RequestId::random()).await?.value
                }
                Action::List => {
                    let accounts = client.account_list().await?;
                    let rows: Vec<Value> = accounts.iter().map(value).collect();
                    return output.result(&json!({ "accounts": rows }), || listing(&accounts));
                }
                Action::Show { name } => find(client, &name).await?,
                Action::Statement { name, count, day, to, offset, file } => {
                    let period =
                        day.map(|first| Period::of(first, to.unwrap_or(first), offset)).transpose()?;
                    let id = find(client, &name).await?.id;
                    return statement(client, id, count, period, &file, output).await;
                }
                Action::Freeze { name } => {
                    let id = find(client, &name).await?.id;
                    client.account_freeze(id).await?.value
                }
                Action::Unfreeze { name } => {
                    let id = find(client, &name).await?.id;
                    client.account_unfreeze(id).await?.value
                }
            };
            output.result(&value(&account), || listing(std::slice::from_ref(&account)))
        })
        .await
}

/// The account with this name.
pub async fn find(client: &Client, name: &str) -> Result<Account, Failure> {
    match client.account_named(name).await {
        Ok(account) => Ok(account.value),
        Err(ClientError::Refused { status: status @ kami_engine::Status::NotFound, .. }) => Err(Failure {
            status: Some(status),
            ..Failure::refused(format!("there is no account `{name}`; `kami account list` shows them"))
        }),
        Err(error) => Err(error.into()),
    }
}

/// Some days, as engine times.
struct Period {
    from_ms: u64,
    /// The first moment after it.
    to_ms: u64,
}

impl Period {
    fn of(first: Day, last: Day, offset: Option<i16>) -> Result<Period, Failure> {
        const DAY_MS: i64 = 24 * 3600 * 1000;
        if last.0 < first.0 {
            return Err(Failure::usage("--to is the day of --day or a later one"));
        }
        let offset_ms = i64::from(offset.unwrap_or_else(|| time::local_offset(first))) * 60_000;
        let begins = |day: i64| u64::try_from(day * DAY_MS - offset_ms).unwrap_or(0);
        let (first, last) = (i64::from(first.0), i64::from(last.0));
        Ok(Period { from_ms: begins(first), to_ms: begins(last + 1) })
    }
}

/// Entries shown of an account, unless more are asked for.
const SHOWN: u32 = 50;
/// Entries asked for at a time.
const PAGE: u32 = 100;
const HEADER: [&str; 9] =
    ["time", "event", "amount", "balance", "currency", "document or order", "principal", "channel", "lsn"];

async fn statement(
    client: &Client,
    id: AccountId,
    count: Option<u32>,
    period: Option<Period>,
    file: &TableOptions,
    output: &Output,
) -> Result<(), Failure> {
    let mut file = file.create(&HEADER)?;
    let most = count.unwrap_or(if file.is_some() || period.is_some() { u32::MAX } else { SHOWN });
    let Period { from_ms, to_ms } = period.unwrap_or(Period { from_ms: 0, to_ms: u64::MAX });
    let (mut lines, mut taken): (Vec<StatementLine>, u32) = (Vec::new(), 0);
    let mut from = None;
    let (account, complete) = loop {
        let page = client.account_statement(id, from, PAGE.min(most - taken)).await?.value;
        let currency = page.account.spec.currency;
        // Newest first: behind the first that is too old all are.
        let over = page.lines.iter().any(|line| line.time_ms < from_ms);
        for line in page.lines.iter().filter(|line| (from_ms..to_ms).contains(&line.time_ms)) {
            taken += 1;
            match &mut file {
                None => lines.push(*line),
                Some(file) => file.row(&[
                    Cell::Text(&time::show(line.time_ms)),
                    Cell::Text(line.kind.name()),
                    Cell::Amount(line.amount, currency),
                    Cell::Amount(line.balance, currency),
                    Cell::Text(&money::name(currency)),
                    Cell::Text(&format!("{:032x}", line.related)),
                    Cell::Number(line.principal.0.into()),
                    Cell::Number(line.channel.0.into()),
                    Cell::Number(line.lsn.bytes()),
                ])?,
            }
        }
        let complete = over || page.next.is_none();
        if complete || taken >= most {
            break (page.account, complete);
        }
        from = page.next;
    };
    let written = file.map(TableFile::finish).transpose()?;
    let currency = account.spec.currency;
    let mut value = json!({ "account": value(&account), "complete": complete });
    match written {
        Some(rows) => value["rows_written"] = rows.into(),
        None => value["lines"] = lines.iter().map(|line| line_value(line, currency)).collect(),
    }
    output.result(&value, || {
        let more = if complete { "" } else { "\nthere is more: --count shows it" };
        if let Some(rows) = written {
            let balance = money::show_with(account.balance, currency);
            return format!("{} lines written; the balance is {balance}{more}", crate::output::count(rows));
        }
        let rows = lines.iter().map(|line| {
            vec![
                time::show(line.time_ms),
                line.kind.name().to_owned(),
                money::show(line.amount, currency),
                money::show(line.balance, currency),
                format!("{:032x}", line.related),
                line.lsn.to_string(),
            ]
        });
        let header = ["TIME", "EVENT", "AMOUNT", "BALANCE", "DOCUMENT OR ORDER", "LSN"];
        table(&header, &[2, 3], rows) + more
    })
}

fn line_value(line: &StatementLine, currency: [u8; 3]) -> Value {
    json!({
        "lsn": line.lsn.bytes(),
        "time_ms": line.time_ms,
        "event": line.kind.name(),
        "amount": money::show(line.amount, currency),
        "amount_minor": line.amount,
        "balance": money::show(line.balance, currency),
        "balance_minor": line.balance,
        "related": format!("{:032x}", line.related),
        "principal": line.principal.0,
        "channel": line.channel.0,
    })
}

/// The accounts of what was typed, and what moves on each.
pub async fn sides(client: &Client, given: &[Side]) -> Result<Vec<(Account, Leg)>, Failure> {
    let mut sides: Vec<(Account, Leg)> = Vec::new();
    for (name, amount) in given {
        let known = sides.iter().find(|(account, _)| account.spec.name == *name);
        let account = match known.map(|(account, _)| account.clone()) {
            Some(account) => account,
            None => find(client, name).await?,
        };
        let amount = signed(amount, account.spec.currency)
            .map_err(|wrong| Failure::usage(format!("--leg `{name}={amount}`: {wrong}")))?;
        let leg = Leg { account: account.id, amount };
        sides.push((account, leg));
    }
    Ok(sides)
}

pub async fn post(command: Post, output: &Output) -> Result<(), Failure> {
    let Post { document, legs, note, remote } = command;
    remote
        .talk(async |client| {
            let (accounts, posted): (Vec<_>, Vec<_>) = sides(client, &legs).await?.into_iter().unzip();
            let posting = Posting { document, legs: posted, note };
            let receipt = client.post(posting, posting_id(document)).await?;
            let rows: Vec<(&Account, Money, Money)> = accounts
                .iter()
                .zip(&receipt.value.rows)
                .map(|(account, posted)| (account, posted.leg.amount, posted.balance))
                .collect();
            let legs: Vec<Value> = rows
                .iter()
                .map(|(account, amount, balance)| {
                    json!({
                        "account": account.spec.name,
                        "currency": money::name(account.spec.currency),
                        "amount_minor": amount,
                        "balance_minor": balance,
                    })
                })
                .collect();
            let value = json!({
                "document": document.to_string(),
                "lsn": receipt.lsn.map(kami_engine::Lsn::bytes),
                "time_ms": receipt.time_ms,
                "replayed": receipt.flags.contains(ReplyFlags::REPLAYED),
                "legs": legs,
            });
            output.result(&value, || {
                let rows = rows.iter().map(|(account, amount, balance)| {
                    let currency = account.spec.currency;
                    let name = account.spec.name.clone();
                    vec![name, money::show_with(*amount, currency), money::show_with(*balance, currency)]
                });
                table(&["ACCOUNT", "AMOUNT", "BALANCE"], &[1, 2], rows)
            })
        })
        .await
}

fn value(account: &Account) -> Value {
    let spec = &account.spec;
    json!({
        "id": account.id.0,
        "name": spec.name,
        "kind": spec.kind.name(),
        "currency": money::name(spec.currency),
        "balance": money::show(account.balance, spec.currency),
        "balance_minor": account.balance,
        "held_minor": account.held,
        "credit_limit_minor": spec.credit_limit,
        "owner": spec.owner.0,
        "frozen": account.frozen,
    })
}

fn listing(accounts: &[Account]) -> String {
    let rows = accounts.iter().map(|account| {
        let spec = &account.spec;
        let amount = |amount| money::show(amount, spec.currency);
        let owner = if spec.owner.0 == 0 { "-".to_owned() } else { spec.owner.to_string() };
        vec![
            account.id.to_string(),
            spec.name.clone(),
            spec.kind.name().to_owned(),
            money::show_with(account.balance, spec.currency),
            amount(account.held),
            amount(spec.credit_limit),
            owner,
            if account.frozen { "frozen" } else { "" }.to_owned(),
        ]
    });
    table(&["ID", "NAME", "KIND", "BALANCE", "HELD", "CREDIT", "OWNER", ""], &[0, 3, 4, 5], rows)
}
