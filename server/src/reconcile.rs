//! `kami reconcile`: totals by day, merchant, channel, terminal, product and event, added up from the log.

use std::collections::BTreeMap;

use clap::Args;
use kami_engine::{Kind, Money, TOTALS_DAYS_MAX, TOTALS_LINES_MAX, TotalLine, TotalsQuery};
use serde_json::json;

use crate::exit::Failure;
use crate::money;
use crate::output::{Output, count, table};
use crate::remote::{Catalogue, Remote};
use crate::table_file::{Cell, TableFile, TableOptions};
use crate::time::{self, Day};

/// Add up what was sold, redeemed and taken back, by day, merchant, channel, terminal and product.
///
/// The totals come from the log itself, up to the moment they are asked for. A redemption counts on the day it was
/// made, a reversal on its own day. Asking for a day reads that day of the log and no more.
#[derive(Args)]
#[command(
    after_help = "Example:\n  kami reconcile --day 2026-11-23\n  kami reconcile --day 2026-11-01 --to 2026-11-30 --offset +08:00 --xlsx november.xlsx"
)]
pub struct Reconcile {
    /// The day, or the first of several.
    #[arg(long, value_name = "DATE", value_parser = time::parse_day)]
    day: Day,
    /// The last day.
    #[arg(long, value_name = "DATE", value_parser = time::parse_day)]
    to: Option<Day>,
    /// The time zone in which days begin, as its distance from UTC [default: this machine's on the first day].
    #[arg(long, value_name = "±HH:MM", value_parser = time::parse_offset, allow_hyphen_values = true)]
    offset: Option<i16>,
    #[command(flatten)]
    file: TableOptions,
    #[command(flatten)]
    remote: Remote,
}

const HEADER: [&str; 9] =
    ["day", "merchant", "channel", "terminal", "product", "event", "count", "amount", "currency"];

pub async fn run(command: Reconcile, output: &Output) -> Result<(), Failure> {
    let first = command.day;
    let last = command.to.unwrap_or(first);
    let days = last.0.checked_sub(first.0).map(|days| days + 1).filter(|days| *days <= TOTALS_DAYS_MAX);
    let Some(days) = days else {
        return Err(Failure::usage(format!(
            "--to is a day from --day on, {TOTALS_DAYS_MAX} days in all at most"
        )));
    };
    let offset_min = command.offset.unwrap_or_else(|| time::local_offset(first));
    let query =
        TotalsQuery { day: first.0, days, offset_min, lines_max: TOTALS_LINES_MAX, end: None, after: None };
    command
        .remote
        .talk(async |client| {
            let catalogue = Catalogue::read(client).await?;
            let mut file = command.file.create(&HEADER)?;
            let mut failed = None;
            // A file takes the lines as they come; what is shown is kept.
            let (mut lines, mut sums) = (Vec::new(), BTreeMap::new());
            let end = client
                .reconcile(query, |line| {
                    add(&mut sums, line, &catalogue);
                    match &mut file {
                        None => lines.push(*line),
                        Some(_) if failed.is_some() => {}
                        Some(file) => failed = write(file, line, &catalogue).err(),
                    }
                })
                .await?;
            if let Some(failure) = failed {
                return Err(failure);
            }
            let written = file.map(TableFile::finish).transpose()?;
            let period = json!({
                "first_day": time::show_day(first),
                "last_day": time::show_day(last),
                "offset": time::show_offset(offset_min),
                "end_lsn": end.bytes(),
            });
            let sums_json: Vec<_> = sums
                .iter()
                .map(|((event, currency), (count, amount))| {
                    json!({ "event": event, "currency": currency, "count": count, "amount": amount })
                })
                .collect();
            let mut value = json!({ "period": period, "sums": sums_json });
            match written {
                Some(rows) => value["rows_written"] = rows.into(),
                None => value["lines"] = lines.iter().map(|line| as_json(line, &catalogue)).collect(),
            }
            output.result(&value, || {
                let total = sums.iter().map(|((event, currency), (events, amount))| {
                    format!("{:<14} {:>12} {:>16} {currency}", event.to_lowercase(), count(*events), amount)
                });
                let total = total.collect::<Vec<_>>().join("\n");
                let total = if total.is_empty() { "nothing happened".to_owned() } else { total };
                let zone = format!(
                    "{} to {}, days at UTC{}, log up to {end}",
                    time::show_day(first),
                    time::show_day(last),
                    time::show_offset(offset_min)
                );
                match written {
                    Some(rows) => format!("{} lines written\n\n{total}\n{zone}", count(rows)),
                    None if lines.is_empty() => format!("{total}\n{zone}"),
                    None => format!("{}\n\n{total}\n{zone}", listing(&lines, &catalogue)),
                }
            })
        })
        .await
}

fn event_of(line: &TotalLine) -> String {
    Kind::from_number(line.key.kind).map_or_else(|| line.key.kind.to_string(), |kind| kind.name().to_owned())
}

fn currency_of(line: &TotalLine, catalogue: &Catalogue) -> Option<[u8; 3]> {
    catalogue.get(line.key.product).map(|product| product.spec.currency)
}

fn amount_of(line: &TotalLine, catalogue: &Catalogue) -> String {
    match currency_of(line, catalogue) {
        Some(currency) => money::show(line.amount, currency),
        None => line.amount.to_string(),
    }
}

fn write(file: &mut TableFile, line: &TotalLine, catalogue: &Catalogue) -> Result<(), Failure> {
    let key = &line.key;
    let currency = currency_of(line, catalogue);
    let amount = line.amount.to_string();
    file.row(&[
        Cell::Text(&time::show_day(Day(key.day))),
        Cell::Number(key.merchant.0.into()),
        Cell::Number(key.channel.0.into()),
        Cell::Number(key.terminal.0.into()),
        Cell::Text(&catalogue.name(key.product)),
        Cell::Text(&event_of(line)),
        Cell::Number(line.count),
        // Of a product that is not shown, minor units as they are.
        currency.map_or(Cell::Text(&amount), |currency| Cell::Amount(line.amount, currency)),
        Cell::Text(&currency.map_or_else(String::new, money::name)),
    ])
}

fn as_json(line: &TotalLine, catalogue: &Catalogue) -> serde_json::Value {
    let key = &line.key;
    json!({
        "day": time::show_day(Day(key.day)),
        "merchant": key.merchant.0,
        "channel": key.channel.0,
        "terminal": key.terminal.0,
        "product_id": key.product.0,
        "product": catalogue.get(key.product).map(|product| &product.spec.name),
        "event": event_of(line),
        "count": line.count,
        "amount_minor": line.amount,
        "currency": currency_of(line, catalogue).map(money::name),
    })
}

fn listing(lines: &[TotalLine], catalogue: &Catalogue) -> String {
    let header =
        ["DAY", "MERCHANT", "CHANNEL", "TERMINAL", "PRODUCT", "EVENT", "COUNT", "AMOUNT", "CURRENCY"];
    let rows = lines.iter().map(|line| {
        let key = &line.key;
        vec![
            time::show_day(Day(key.day)),
            key.merchant.to_string(),
            key.channel.to_string(),
            key.terminal.to_string(),
            catalogue.name(key.product),
            event_of(line),
            count(line.count),
            amount_of(line, catalogue),
            currency_of(line, catalogue).map_or_else(|| "-".to_owned(), money::name),
        ]
    });
    table(&header, &[1, 2, 3, 6, 7], rows)
}

/// Sums by event and currency, with the amount as it is shown.
fn add(sums: &mut BTreeMap<(String, String), (u64, Sum)>, line: &TotalLine, catalogue: &Catalogue) {
    let currency = currency_of(line, catalogue);
    let key = (event_of(line), currency.map_or_else(|| "-".to_owned(), money::name));
    let (events, sum) = sums.entry(key).or_insert((0, Sum { minor: 0, currency }));
    *events += line.count;
    sum.minor = sum.minor.saturating_add(line.amount);
}

/// An amount with what it is in.
struct Sum {
    minor: Money,
    currency: Option<[u8; 3]>,
}

impl std::fmt::Display for Sum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = match self.currency {
            Some(currency) => money::show(self.minor, currency),
            None => self.minor.to_string(),
        };
        f.pad(&shown)
    }
}

impl serde::Serialize for Sum {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(self.minor)
    }
}
