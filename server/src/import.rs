//! `kami import`: a card file becomes a batch, as a whole or not at all.
//!
//! The file is read twice. The first pass checks every line, counts them and finds the longest code;
//! to find codes that come twice it keeps eight bytes a line. Only a file without any fault is read a
//! second time and sent. If anything is wrong, a reading of its own reports it line by line, and then
//! nothing was imported.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use kami_engine::{BatchReport, Duplicate, ImportSpec, Product, Status};
use kami_net::client::Row;
use kami_net::frame::Body;
use kami_net::{Client, ClientError};

use crate::card_file::{BadLine, Card, CardFile};
use crate::exit::Failure;
use crate::output::{Output, count};
use crate::remote::{Catalogue, Remote};
use crate::{batch, money, time};

/// Import a card file as a new batch: all of its cards or none.
///
/// CSV with or without a header line, or text with one code a line; UTF-8. Columns: code, pin, face,
/// expires, or 卡号, 卡密, 密码, 面值, 有效期. Any bad line, any code that is there twice or was
/// imported before: the lines are listed and nothing is imported.
#[derive(Args)]
#[command(
    after_help = "Example:\n  kami import cards.csv --product coffee --label PO-2026-17 --expires 2027-12-31"
)]
pub struct Import {
    /// The card file.
    file: PathBuf,
    /// The product's name or number.
    #[arg(long, value_name = "P")]
    product: String,
    /// Whose cards these are: supplier, purchase order; at most 128 bytes.
    #[arg(long, value_name = "TEXT", default_value = "")]
    label: String,
    /// When the cards expire: 2027-12-31 (to its last moment, local time) or an exact time with offset
    /// [default: the product's rule].
    #[arg(long, value_name = "DATE", value_parser = time::parse_end)]
    expires: Option<u64>,
    /// What a card is worth, in the currency's main unit [default: the product's].
    #[arg(long, value_name = "AMOUNT")]
    face: Option<String>,
    /// The cards are not redeemable before `kami batch activate`.
    #[arg(long)]
    inactive: bool,
    /// Where to list all bad lines, as CSV.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    #[command(flatten)]
    remote: Remote,
}

/// Bad lines shown on standard error; the report has all.
const SHOWN_MAX: u64 = 20;

pub async fn run(command: Import, output: &Output) -> Result<(), Failure> {
    // A file that is not there needs no server; whatever the currency.
    CardFile::open(&command.file, *b"CNY").map(drop)?;
    command
        .remote
        .talk(async |client| {
            let catalogue = Catalogue::read(client).await?;
            let product = catalogue.find(&command.product)?;
            let currency = product.spec.currency;
            let face = match &command.face {
                None => None,
                Some(text) => Some(
                    money::parse(text, currency)
                        .map_err(|wrong| Failure::usage(format!("--face `{text}`: {wrong}")))?,
                ),
            };
            let spec = ImportSpec {
                label: command.label,
                face,
                expires_ms: command.expires.unwrap_or(0),
                active: !command.inactive,
                ..ImportSpec::of(product.id, 0, 0)
            };
            let file = CardFile::open(&command.file, currency)?;
            let report = command.report.as_deref();
            let batch = import(client, &file, product, spec, report, !output.json).await?;
            batch::show(&batch, &catalogue, output)
        })
        .await
}

/// Checks the file and imports it; `spec` says everything but what the file itself says.
pub async fn import(
    client: &Client,
    file: &CardFile,
    product: &Product,
    spec: ImportSpec,
    report: Option<&Path>,
    talkative: bool,
) -> Result<BatchReport, Failure> {
    if talkative && !file.ignored.is_empty() {
        eprintln!("columns that are not imported: {}", file.ignored.join(", "));
    }
    let survey = survey(file)?;
    if let Some(failure) = fault_report(file, &survey, report)? {
        return Err(failure);
    }
    if survey.cards == 0 {
        return Err(Failure::refused("nothing was imported: the card file has a header and no cards"));
    }
    let columns = file.columns();
    let spec = ImportSpec {
        rows: survey.cards,
        code_bytes_max: survey.code_bytes_max,
        pins: columns.pin.is_some(),
        faces: columns.face.is_some(),
        expiries: columns.expires.is_some(),
        ..spec
    };
    let face = spec.face.unwrap_or(product.spec.face);
    let faces = spec.faces;
    let row = move |card: Card| Row {
        code: card.code,
        pin: card.pin,
        face: faces.then(|| card.face.unwrap_or(face)),
        expires_ms: card.expires_ms,
    };
    let changed = || io::Error::new(io::ErrorKind::InvalidData, "the file was changed while it was read");
    let rows = file.cards()?.map(|line| match line?.1 {
        Ok(card) => Ok(row(card)),
        Err(_) => Err(changed()),
    });
    let bar = progress_bar(survey.cards, "importing", "{pos}/{len} cards, {per_sec}");
    let imported = client.import(spec, rows, |report| bar.set_position(report.rows)).await;
    bar.finish_and_clear();
    match imported {
        Ok(receipt) => Ok(receipt.value),
        Err(ClientError::Refused { status, answer }) => match answer.body {
            Body::Duplicates(duplicates) => Err(duplicate_report(file, status, &duplicates.rows, report)?),
            _ => Err(ClientError::Refused { status, answer }.into()),
        },
        Err(error) => Err(error.into()),
    }
}

/// What the first pass found.
struct Survey {
    cards: u64,
    bad: u64,
    code_bytes_max: u8,
    /// Hashes that came twice: of codes that came twice, or, rarely, of two codes.
    twice: HashSet<u64>,
    hasher: RandomState,
}

fn survey(file: &CardFile) -> Result<Survey, Failure> {
    let mut survey =
        Survey { cards: 0, bad: 0, code_bytes_max: 4, twice: HashSet::new(), hasher: RandomState::new() };
    let mut hashes = Vec::new();
    let bar = progress_bar(file.bytes(), "checking", "{bytes}/{total_bytes}");
    let mut cards = file.cards()?;
    while let Some(line) = cards.next() {
        match line.map_err(read_failure)?.1 {
            Err(_) => survey.bad += 1,
            Ok(card) => {
                survey.cards += 1;
                survey.code_bytes_max = survey.code_bytes_max.max(card.code.len() as u8);
                hashes.push(survey.hasher.hash_one(card.code.as_slice()));
            }
        }
        if (survey.cards + survey.bad).is_multiple_of(4096) {
            bar.set_position(cards.bytes_read());
        }
    }
    bar.finish_and_clear();
    hashes.sort_unstable();
    survey.twice = hashes.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
    Ok(survey)
}

/// Lists what is wrong with the file, if anything is. Hashes that came twice are looked into here: two
/// codes with one hash are no fault.
fn fault_report(file: &CardFile, survey: &Survey, report: Option<&Path>) -> Result<Option<Failure>, Failure> {
    if survey.bad == 0 && survey.twice.is_empty() {
        return Ok(None);
    }
    let mut faults = Faults::new(report)?;
    let mut first_lines: HashMap<Vec<u8>, u64> = HashMap::new();
    for line in file.cards()? {
        match line.map_err(read_failure)? {
            (number, Err(BadLine(wrong))) => faults.add(number, &wrong)?,
            (number, Ok(card)) if survey.twice.contains(&survey.hasher.hash_one(card.code.as_slice())) => {
                match first_lines.entry(card.code.to_vec()) {
                    std::collections::hash_map::Entry::Vacant(entry) => {
                        entry.insert(number);
                    }
                    std::collections::hash_map::Entry::Occupied(entry) => {
                        faults.add(number, &format!("it has the same code as line {}", entry.get()))?;
                    }
                }
            }
            _ => {}
        }
    }
    let all = survey.cards + survey.bad;
    if faults.count == 0 { Ok(None) } else { faults.end(format!(" of {}", count(all))).map(Some) }
}

/// Lists the cards that the engine has already.
fn duplicate_report(
    file: &CardFile,
    status: Status,
    duplicates: &[Duplicate],
    report: Option<&Path>,
) -> Result<Failure, Failure> {
    if let (Status::DuplicateBatch, Some(Duplicate { batch: Some(batch), .. })) = (status, duplicates.first())
    {
        let message = format!("refused: the same cards are there already, as batch {batch}");
        return Ok(Failure { status: Some(status), ..Failure::refused(message) });
    }
    let mut faults = Faults::new(report)?;
    let mut wanted: HashMap<u64, &Duplicate> =
        duplicates.iter().map(|duplicate| (duplicate.row, duplicate)).collect();
    for (row, line) in (0..).zip(file.cards()?) {
        let Some(duplicate) = wanted.remove(&row) else { continue };
        let (number, _) = line.map_err(read_failure)?;
        let there = match duplicate.batch {
            Some(batch) => format!("its code is there already, in batch {batch}"),
            None => format!("its code comes twice, first as card {}", duplicate.other_row + 1),
        };
        faults.add(number, &there)?;
    }
    let more = if duplicates.len() >= kami_engine::DUPLICATES_MAX { ", and maybe more," } else { "" };
    let failure = faults.end(format!("{more} with a code that is there already"))?;
    Ok(Failure { status: Some(status), ..failure })
}

/// Bad lines, some shown, all in the report.
struct Faults {
    count: u64,
    report: Option<BufWriter<File>>,
}

impl Faults {
    fn new(report: Option<&Path>) -> Result<Faults, Failure> {
        let create = |path: &Path| -> Result<_, Failure> {
            let file = File::create(path).map_err(|error| {
                Failure::environment(format!(
                    "the report cannot be written path=`{}`: {error}",
                    path.display()
                ))
            })?;
            let mut report = BufWriter::new(file);
            report.write_all(b"line,problem\n").map_err(report_failure)?;
            Ok(report)
        };
        Ok(Faults { count: 0, report: report.map(create).transpose()? })
    }

    fn add(&mut self, line: u64, wrong: &str) -> Result<(), Failure> {
        self.count += 1;
        if self.count <= SHOWN_MAX {
            eprintln!("line {line}: {wrong}");
        }
        match &mut self.report {
            Some(report) => {
                writeln!(report, "{line},\"{}\"", wrong.replace('"', "\"\"")).map_err(report_failure)
            }
            None => Ok(()),
        }
    }

    fn end(mut self, of: String) -> Result<Failure, Failure> {
        if let Some(report) = &mut self.report {
            report.flush().map_err(report_failure)?;
        }
        if self.count > SHOWN_MAX {
            eprintln!("… and {} more lines", count(self.count - SHOWN_MAX));
        }
        let (lines, hint) =
            (count(self.count), if self.report.is_some() { "" } else { "; --report FILE lists all" });
        Ok(Failure::refused(format!("nothing was imported: {lines} bad lines{of}{hint}")))
    }
}

fn report_failure(error: io::Error) -> Failure {
    Failure::environment(format!("the report cannot be written: {error}"))
}

fn read_failure(error: io::Error) -> Failure {
    Failure::environment(format!("the card file cannot be read: {error}"))
}

/// A bar on standard error, if that is a terminal.
fn progress_bar(length: u64, what: &'static str, numbers: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(&format!("{{msg}} {{wide_bar}} {numbers}, {{eta}} left"));
    let bar = ProgressBar::new(length).with_message(what);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
