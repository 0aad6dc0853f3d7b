//! `kami wal inspect`: what is in the log of a stopped store or of a backup.
//!
//! Shows positions, kinds and ids. Codes are not in the log, so they cannot appear here.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use kami_engine::record::{Entry, Group, Kind};
use kami_wal::{Lsn, Record, RecordKind, Verdict, VerifyReport, WalOptions};
use serde_json::{Value, json};

use crate::backup;
use crate::exit::{Exit, Failure, sentence};
use crate::output::{Output, count, table};
use crate::time;
use crate::verify::open_stopped;

/// Look into the log of a stopped store or of a backup.
#[derive(Args)]
#[command(after_help = "Example:\n  kami wal inspect --data kami-data --records")]
pub struct Wal {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Show segments, records by kind, epochs, the tail, and how far the log is durable.
    #[command(after_help = "Example:\n  kami wal inspect --data kami-data --records")]
    Inspect {
        /// Where the data lies.
        #[arg(long, value_name = "DIR", required_unless_present = "backup")]
        data: Option<PathBuf>,
        /// A backup to look into, in place of a store.
        #[arg(long, value_name = "DIR", conflicts_with = "data")]
        backup: Option<PathBuf>,
        /// List every entry; with --json one object a line, before the summary.
        #[arg(long)]
        records: bool,
    },
}

pub fn run(command: Wal, output: &Output) -> Result<Exit, Failure> {
    let Action::Inspect { data, backup, records } = command.action;
    let data = data.or_else(|| backup.clone()).unwrap_or_default();
    let medium = match &backup {
        Some(directory) => {
            let backup = backup::open(directory, &backup::Pace::new(output, "reading", 0))?;
            backup.as_store(backup.manifest().end)
        }
        None => open_stopped(&data)?,
    };
    let mut summary = Summary::default();
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut written = Ok(());
    let report = kami_wal::verify(&*medium, &WalOptions::default(), &mut |record| {
        summary.record(&record, &mut |entry| {
            if records && written.is_ok() {
                written = if output.json {
                    writeln!(out, "{}", value(entry))
                } else {
                    writeln!(out, "{}", line(entry))
                };
            }
        });
    })?;
    written.and_then(|()| out.flush()).map_err(|error| {
        Failure::environment(format!("the result cannot be written to standard output: {error}"))
    })?;
    drop(out);
    if report.segments == 0 {
        return Err(Failure::environment(format!(
            "there is no log in this directory path=`{}`",
            data.display()
        )));
    }
    output.result(&summary.value(&report), || summary.text(&report))?;
    let damaged = matches!(report.verdict, Verdict::Damaged(_)) || summary.unreadable > 0;
    Ok(if damaged { Exit::Damaged } else { Exit::Done })
}

/// What the log holds, counted.
#[derive(Default)]
struct Summary {
    /// Records and bytes by kind.
    records: BTreeMap<u8, (u64, u64)>,
    entries: BTreeMap<u8, u64>,
    /// First position of each opening.
    epochs: BTreeMap<u32, u64>,
    unreadable: u64,
}

impl Summary {
    fn record(&mut self, record: &Record<'_>, each: &mut dyn FnMut(&Entry<'_>)) {
        let (records, bytes) = self.records.entry(record.kind as u8).or_default();
        *records += 1;
        *bytes += record.end.bytes() - record.lsn.bytes();
        self.epochs.entry(record.epoch).or_insert(record.lsn.bytes());
        if record.kind != RecordKind::Data {
            return;
        }
        let Ok(group) = Group::parse(record.payload, record.payload_lsn) else {
            self.unreadable += 1;
            return;
        };
        for entry in group {
            match entry {
                Ok(entry) => {
                    *self.entries.entry(entry.head.kind.number()).or_default() += 1;
                    each(&entry);
                }
                Err(_) => self.unreadable += 1,
            }
        }
    }

    fn value(&self, report: &VerifyReport) -> Value {
        let records: BTreeMap<&str, Value> = self
            .records
            .iter()
            .map(|(kind, (records, bytes))| {
                (record_name(*kind), json!({ "records": records, "bytes": bytes }))
            })
            .collect();
        let entries: BTreeMap<&str, u64> =
            self.entries.iter().map(|(kind, entries)| (entry_name(*kind), *entries)).collect();
        json!({
            "store_id": format!("{:016x}", report.store_id),
            "segment_bytes": report.segment_bytes,
            "segments": report.segments,
            "records": records,
            "entries": entries,
            "unreadable": self.unreadable,
            "epochs": self.epochs,
            "tail": report.tail.map(Lsn::bytes),
            "durable_end": report.durable_end.map(Lsn::bytes),
            "chain_values": report.chain_values,
            "verdict": verdict(report),
        })
    }

    fn text(&self, report: &VerifyReport) -> String {
        let position = |lsn: Option<Lsn>| lsn.map_or_else(|| "-".to_owned(), |lsn| count(lsn.bytes()));
        let records = self.records.iter().map(|(kind, (records, bytes))| {
            vec![record_name(*kind).to_owned(), count(*records), count(*bytes)]
        });
        let entries =
            self.entries.iter().map(|(kind, entries)| vec![entry_name(*kind).to_owned(), count(*entries)]);
        let epochs = self.epochs.iter().map(|(epoch, lsn)| vec![epoch.to_string(), count(*lsn)]);
        let mut text = vec![
            format!("store        {:016x}", report.store_id),
            format!("segments     {} of {} MiB", report.segments, report.segment_bytes >> 20),
            format!("tail         {}", position(report.tail)),
            format!("durable to   {}", position(report.durable_end)),
            format!("chain        {} values", count(report.chain_values)),
            format!("verdict      {}", verdict(report)),
            String::new(),
            table(&["RECORDS", "COUNT", "BYTES"], &[1, 2], records),
            String::new(),
            table(&["ENTRIES", "COUNT"], &[1], entries),
            String::new(),
            table(&["EPOCH", "FROM"], &[0, 1], epochs),
        ];
        if self.unreadable > 0 {
            text.push(format!("\n{} records or entries are of no kind this version knows", self.unreadable));
        }
        text.join("\n")
    }
}

fn verdict(report: &VerifyReport) -> String {
    match &report.verdict {
        Verdict::Clean => "clean".to_owned(),
        Verdict::TornTail { file, offset, bytes } => {
            format!("torn tail: {bytes} bytes nobody was told about file=`{file}` offset=`{offset}`")
        }
        Verdict::Damaged(error) => format!("damaged: {}", sentence(error)),
    }
}

fn record_name(number: u8) -> &'static str {
    kami_wal::format::RECORD_KINDS
        .iter()
        .find(|(kind, _, _)| *kind as u8 == number)
        .map_or("?", |(_, name, _)| name)
}

fn entry_name(number: u8) -> &'static str {
    Kind::from_number(number).map_or("?", Kind::name)
}

fn is_about_card(kind: Kind) -> bool {
    (40..80).contains(&kind.number())
}

fn value(entry: &Entry<'_>) -> Value {
    let head = &entry.head;
    let about_card = is_about_card(head.kind) && !head.kind.is_order();
    let sale = head.kind.is_order().then(|| entry.order().ok()).flatten();
    json!({
        "lsn": entry.lsn.bytes(),
        "time_ms": entry.time_ms,
        "kind": head.kind.name(),
        "request": head.request.to_string(),
        "principal": head.principal.0,
        "terminal": head.terminal.0,
        "card": about_card.then(|| entry.card().to_string()),
        "object": (!about_card && sale.is_none()).then_some(head.subject),
        "from": about_card.then(|| entry.prev().lifecycle().name()),
        "to": about_card.then(|| entry.post().lifecycle().name()),
        "order": sale.as_ref().map(|(order, ..)| order.to_string()),
        "cards": sale.as_ref().map(|(_, cards, _)| cards.count()),
        "original": entry_original(entry),
    })
}

fn entry_original(entry: &Entry<'_>) -> Option<String> {
    let reversal = matches!(entry.head.kind, Kind::Reverse | Kind::Tombstone);
    reversal.then(|| entry.original().ok()).flatten().map(|(original, _)| original.to_string())
}

fn line(entry: &Entry<'_>) -> String {
    let head = &entry.head;
    let about = match head.kind {
        kind if kind.is_order() => entry.order().map_or_else(
            |_| "?".to_owned(),
            |(order, cards, _)| format!("order {order}, {} cards", cards.count()),
        ),
        kind if is_about_card(kind) => {
            format!("card {}: {:?} -> {:?}", entry.card(), entry.prev().lifecycle(), entry.post().lifecycle())
        }
        _ => format!("object {}", head.subject),
    };
    let original = entry_original(entry).map(|original| format!(", original {original}")).unwrap_or_default();
    format!(
        "{:>12} {} {:<15} by {} request {} {about}{original}",
        entry.lsn.bytes(),
        time::show(entry.time_ms),
        head.kind.name(),
        head.principal,
        head.request,
    )
}
