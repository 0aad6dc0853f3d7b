//! `kami import`: a card file becomes a batch, as a whole or not at all.
//!
//! The file is read through three times and never kept: to find out what it is, to check every line and
//! count them, and to send them. The server finds the cards that are there already, in earlier batches
//! or twice in the file, while the rows arrive; it is asked for the list before anything is committed.
//! If lines are to be reported, the file is read once more for that.
//!
//! An import's name follows from the file and from what is said about it. So the same command, run again
//! after an interruption, goes on where the server's staged rows end; run again after it was done, it says
//! what it said.

mod report;

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use encoding_rs::Encoding;
use kami_engine::{BatchReport, Duplicate, ImportSpec, Lifecycle, Product, ReplyFlags, RequestId, Status};
use kami_net::client::Staged;
use kami_net::{Client, ClientError};
use kami_server::card_file::NewCards;
use kami_server::{CardFile, CardRows, ReadOptions};
use serde_json::json;

use crate::card_file::{Columns, Form, Survey};
use crate::exit::Failure;
use crate::output::{Output, count, note};
use crate::progress::{Progress, Unit};
use crate::remote::{Catalogue, Remote, Why};
use crate::{batch, code, money, time};

/// Import a card file as a new batch: all of its cards or none.
///
/// CSV, TSV or other separated text, with or without a header line; text with one code a line; the first
/// worksheet of an .xlsx workbook. Columns: code, pin, face, expires, or 卡号, 卡密, 密码, 面值, 有效期.
/// Any bad line, any code that is there twice or was imported before: the lines are listed and nothing is
/// imported, unless you say to skip them. Interrupted, the same command goes on where it was.
#[derive(Args)]
#[command(after_help = "Examples:
  kami import cards.csv --product coffee --label PO-2026-17 --expires 2027-12-31
  kami import cards.xlsx --product coffee --dry-run --report wrong.csv
  kami import list.txt --product coffee --columns code,pin --duplicates skip
  kami import old-shop.csv --product coffee --with-state --why \"moved from the old shop, ticket 7\"")]
pub struct Import {
    /// The card file.
    file: PathBuf,
    /// The product's name or number.
    #[arg(long, value_name = "P")]
    product: String,
    /// Whose cards these are: supplier, purchase order; at most 128 bytes.
    #[arg(long, value_name = "TEXT", default_value = "", value_parser = label)]
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
    /// Which column is what, in order: code, pin, face, expires, and - for what is not imported [default:
    /// by the header, or in this order].
    #[arg(long, value_name = "NAMES", value_parser = Columns::parse)]
    columns: Option<Columns>,
    /// What parts the cells of a text: comma, tab, semicolon, bar, colon, dashes (----), space, or none if a
    /// line is a code [default: found out].
    #[arg(long, value_name = "WHAT", value_parser = Form::parse)]
    separator: Option<Form>,
    /// Whether the first line is a header: yes or no [default: found out].
    #[arg(long, value_name = "YES|NO", value_parser = yes_or_no)]
    header: Option<bool>,
    /// The file's encoding: utf-8, gb18030, big5, … [default: by its byte-order mark, utf-8 if it is that,
    /// or else gb18030].
    #[arg(long, value_name = "NAME", value_parser = encoding)]
    encoding: Option<&'static Encoding>,
    /// What to do about cards that are there already, or twice in the file.
    #[arg(long, value_enum, value_name = "WHAT", default_value_t = Policy::Reject)]
    duplicates: Policy,
    /// What to do about lines that hold no card.
    #[arg(long, value_enum, value_name = "WHAT", default_value_t = Policy::Reject)]
    bad_lines: Policy,
    /// Bring cards that another system sold, or used up, as what they were there. Columns: state (available, sold,
    /// redeemed, voided, returned, frozen, expired), and as far as there are any sold_at, redeemed_at, order and
    /// remaining; or 状态, 售出时间, 核销时间, 订单号, 余额. Takes an admin, and --why.
    #[arg(long, requires = "why")]
    with_state: bool,
    /// Check all of it, against earlier batches too, and import nothing.
    #[arg(long)]
    dry_run: bool,
    /// Where to list what is not imported, as CSV: line, reason, and the end of the code.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// The import's name, 32 hex digits [default: follows from the file, the product and these options].
    #[arg(long, value_name = "ID", value_parser = code::parse_id)]
    id: Option<RequestId>,
    #[command(flatten)]
    why: Why,
    #[command(flatten)]
    remote: Remote,
}

/// What is done about lines that cannot be imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Policy {
    /// Nothing is imported; exit code 3.
    Reject,
    /// The other lines are imported.
    Skip,
}

fn label(text: &str) -> Result<String, String> {
    if ImportSpec::is_label(text) {
        Ok(text.to_owned())
    } else {
        Err("a label has at most 128 bytes and no control characters".to_owned())
    }
}

fn encoding(name: &str) -> Result<&'static Encoding, String> {
    let found = Encoding::for_label(name.as_bytes()).filter(|found| *found != encoding_rs::REPLACEMENT);
    found.ok_or_else(|| "it is no encoding that is known here, such as utf-8, gb18030 or big5".to_owned())
}

fn yes_or_no(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err("it is neither yes nor no".to_owned()),
    }
}

/// Whether two paths lead to one file, by whatever names and links.
fn is_same_file(one: &Path, other: &Path) -> bool {
    let identity = |path: &Path| std::fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
    identity(one).is_some_and(|one| identity(other) == Some(one))
}

pub async fn run(command: Import, output: &Output) -> Result<(), Failure> {
    if command.file.as_os_str() == "-" {
        return Err(Failure::usage(
            "a card file is read several times, so it cannot come from standard input",
        ));
    }
    if command.report.as_deref().is_some_and(|report| is_same_file(report, &command.file)) {
        return Err(Failure::usage("the report would overwrite the card file; give it another name"));
    }
    let options = ReadOptions {
        encoding: command.encoding,
        columns: command.columns,
        separator: command.separator,
        header: command.header,
        states: command.with_state,
        ..ReadOptions::default()
    };
    // A file that is not there needs no server; the currency of its face values is known later.
    let mut file = CardFile::open(&command.file, &options)?;
    command
        .remote
        .talk_on(&command.why, async |client| {
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
            file.currency = currency;
            if command.with_state {
                let ends = command.expires.is_some();
                file.states = Some(NewCards::of(&product.spec, face.unwrap_or(product.spec.face), ends));
            }
            let spec = ImportSpec {
                label: command.label.clone(),
                face,
                expires_ms: command.expires.unwrap_or(0),
                active: !command.inactive,
                skip_duplicates: command.duplicates == Policy::Skip,
                ..ImportSpec::of(product.id, 0, 0)
            };
            let task = Task {
                client,
                file: &file,
                product,
                skip_bad: command.bad_lines == Policy::Skip,
                only_check: command.dry_run,
                report: command.report.as_deref(),
                id: command.id,
            };
            let done = task.run(spec).await?;
            show(&done, command.with_state, &catalogue, output)
        })
        .await
}

/// One import: from what to where, and what to do about faults.
pub struct Task<'a> {
    pub client: &'a Client,
    pub file: &'a CardFile,
    pub product: &'a Product,
    pub skip_bad: bool,
    pub only_check: bool,
    pub report: Option<&'a Path>,
    pub id: Option<RequestId>,
}

/// What came of an import.
pub struct Imported {
    /// The batch; `None` if it was only checked.
    pub batch: Option<BatchReport>,
    id: RequestId,
    /// Lines that are not empty.
    lines: u64,
    bad_lines: u64,
    duplicates: u64,
    /// It was imported by an earlier command.
    replayed: bool,
}

impl Task<'_> {
    /// Checks the file and imports it; `spec` says everything but what the file itself says.
    pub async fn run(&self, spec: ImportSpec) -> Result<Imported, Failure> {
        if !self.file.ignored.is_empty() {
            note(&format!("columns that are not imported: {}", self.file.ignored.join(", ")));
        }
        if let Some(remark) = self.file.remark() {
            note(&remark);
        }
        let survey = self.survey()?;
        if survey.cards == 0 {
            if survey.bad > 0 {
                report::report(self.file, &[], self.report)?;
                return Err(Failure::refused(format!("nothing was imported: {}", faults(&survey, 0))));
            }
            return Err(Failure::refused("nothing was imported: the card file has a header and no cards"));
        }
        // With bad lines nothing will be imported, but the report shall be complete.
        let only_check = self.only_check || survey.bad > 0 && !self.skip_bad;
        let (id, spec) = self.named(spec, &survey, only_check);
        let mut tries = 0;
        loop {
            let (duplicates, staged) = match self.stage(id, &spec).await? {
                Staged::Committed(receipt) => {
                    return Ok(Imported {
                        duplicates: survey.cards - receipt.value.counts.iter().sum::<u64>().min(survey.cards),
                        batch: Some(receipt.value),
                        id,
                        lines: lines(&survey),
                        bad_lines: survey.bad,
                        replayed: true,
                    });
                }
                Staged::Complete(staged) => (self.duplicates(id).await?, staged),
            };
            let imported = Imported {
                batch: None,
                id,
                lines: lines(&survey),
                bad_lines: survey.bad,
                duplicates: staged.duplicates,
                replayed: false,
            };
            if survey.bad > 0 || !duplicates.is_empty() {
                report::report(self.file, &duplicates, self.report)?;
            }
            let refusal = self.refusal(&survey, &spec, &duplicates);
            if only_check || refusal.is_some() {
                self.client.import_abort(id).await?;
            }
            if let Some(failure) = refusal {
                return Err(failure);
            }
            if only_check {
                return Ok(imported);
            }
            match self.client.import_commit(id).await {
                Ok(receipt) => {
                    let replayed = receipt.flags.contains(ReplyFlags::REPLAYED);
                    return Ok(Imported { batch: Some(receipt.value), replayed, ..imported });
                }
                Err(ClientError::Refused { status, .. })
                    // The server was restarted before the commit, or another import brought in some of the
                    // cards since their rows were sent: the next attempt finds and reports them.
                    if matches!(status, Status::NotFound | Status::DuplicateCard | Status::DuplicateBatch)
                        && tries < 3 =>
                {
                    tries += 1;
                    eprintln!("the server has to be told again");
                }
                Err(error) => return Err(interrupted(error)),
            }
        }
    }

    fn survey(&self) -> Result<Survey, Failure> {
        let mut progress = Progress::new("checking", Unit::Bytes, self.file.length());
        self.file.survey(|position| progress.at(position)).map_err(report::read_failure)
    }

    /// The import's name, and what it is begun with.
    fn named(&self, spec: ImportSpec, survey: &Survey, only_check: bool) -> (RequestId, ImportSpec) {
        let columns = self.file.columns();
        let face = spec.face.unwrap_or(self.product.spec.face);
        let how = format!("{columns:?} {} {face} {:?}", self.file.reading(), self.file.states);
        let spec = ImportSpec {
            content: code::content_digest(&self.file.digest, &how),
            ..self.file.spec(survey, spec)
        };
        // A check has a name of its own, so that it never meddles with an import under way.
        let id = if only_check { None } else { self.id };
        let id = id.unwrap_or_else(|| {
            let named = self.id.map(|id| id.to_string());
            code::import_id(&format!("{only_check} {named:?} {spec:?}"))
        });
        (id, spec)
    }

    async fn stage(&self, id: RequestId, spec: &ImportSpec) -> Result<Staged, Failure> {
        let face = spec.face.unwrap_or(self.product.spec.face);
        let mut rows = CardRows::new(self.file, spec, face);
        let mut progress = Progress::new("importing", Unit::Cards, spec.rows);
        let mut is_first = true;
        let staged = self.client.import_stage(id, spec, &mut rows, |report| {
            if std::mem::take(&mut is_first) && report.rows > 0 {
                eprintln!("going on after card {} of {}", count(report.rows), count(report.rows_total));
            }
            progress.at(report.rows);
        });
        let error = match staged.await {
            Ok(staged) => return Ok(staged),
            Err(error) => error,
        };
        if let ClientError::Rows(wrong) = &error
            && wrong.kind() == io::ErrorKind::InvalidData
        {
            // Nobody will go on with it: the file is another now. If this cannot be said, it is given up after a
            // day; what is staged is what was checked, whatever became of the file.
            let _ = self.client.import_abort(id).await;
        }
        Err(interrupted(error))
    }

    /// The rows whose cards are there already.
    async fn duplicates(&self, id: RequestId) -> Result<Vec<Duplicate>, Failure> {
        let mut duplicates = Vec::new();
        loop {
            let page = match self.client.import_duplicates(id, duplicates.len() as u64).await {
                Ok(page) => page,
                Err(error) => return Err(interrupted(error)),
            };
            let more = page.flags.contains(ReplyFlags::PARTIAL) && !page.value.rows.is_empty();
            duplicates.extend(page.value.rows);
            if !more {
                return Ok(duplicates);
            }
        }
    }

    /// Why nothing is imported, if that is so.
    fn refusal(&self, survey: &Survey, spec: &ImportSpec, duplicates: &[Duplicate]) -> Option<Failure> {
        let all = duplicates.len() as u64 == survey.cards;
        let rejected = survey.bad > 0 && !self.skip_bad || !duplicates.is_empty() && !spec.skip_duplicates;
        if !rejected && !all {
            return None;
        }
        let verdict = if self.only_check { "nothing would be imported" } else { "nothing was imported" };
        let hint = if self.report.is_some() { "" } else { "; --report FILE lists them" };
        let batch = duplicates.first().and_then(|duplicate| duplicate.batch);
        let is_twin =
            |duplicate: &Duplicate| duplicate.batch == batch && duplicate.other_row == duplicate.row;
        let (status, message) = match batch {
            Some(batch) if all && survey.bad == 0 && duplicates.iter().all(is_twin) => (
                Some(Status::DuplicateBatch),
                format!("{verdict}: the same cards are there already, as batch {batch}"),
            ),
            _ => (
                (!duplicates.is_empty()).then_some(Status::DuplicateCard),
                format!("{verdict}: {}{hint}", faults(survey, duplicates.len() as u64)),
            ),
        };
        Some(Failure { status, ..Failure::refused(message) })
    }
}

/// Lines that are not empty.
const fn lines(survey: &Survey) -> u64 {
    survey.cards + survey.bad
}

/// `2 bad lines and 1 duplicate among 10 lines`.
fn faults(survey: &Survey, duplicates: u64) -> String {
    let some = |number: u64, one: &str, many: &str| {
        format!("{} {}", count(number), if number == 1 { one } else { many })
    };
    let bad = some(survey.bad, "bad line", "bad lines");
    let twice = some(duplicates, "duplicate", "duplicates");
    let faults = match (survey.bad, duplicates) {
        (_, 0) => bad,
        (0, _) => twice,
        _ => format!("{bad} and {twice}"),
    };
    format!("{faults} among {}", some(lines(survey), "line", "lines"))
}

/// An error after which the same command goes on.
fn interrupted(error: ClientError) -> Failure {
    let again = matches!(error, ClientError::Unreachable { .. } | ClientError::Unknown { .. });
    let reused = matches!(error, ClientError::Refused { status: Status::IdReused, .. });
    let mut failure = Failure::from(error);
    if again {
        failure.message += "; the same command goes on where this one ended";
    }
    if reused {
        failure.message +=
            "; this --id is another file's, or was used with other options or by somebody else";
    }
    failure
}

/// How many cards came in which state.
fn as_they_were(batch: &BatchReport) -> String {
    let states = Lifecycle::ALL.into_iter().zip(batch.counts).filter(|(_, cards)| *cards > 0);
    let states: Vec<String> =
        states.map(|(state, cards)| format!("{} {}", count(cards), state.name().to_lowercase())).collect();
    format!(
        "\nas they were: {}; what was sold or redeemed elsewhere is in no totals of today",
        states.join(", ")
    )
}

fn show(done: &Imported, with_state: bool, catalogue: &Catalogue, output: &Output) -> Result<(), Failure> {
    let mut value = match &done.batch {
        Some(batch) => batch::value(batch, catalogue),
        None => json!({ "dry_run": true, "cards": done.lines - done.bad_lines - done.duplicates }),
    };
    value["import"] = done.id.to_string().into();
    value["lines"] = done.lines.into();
    value["bad_lines"] = done.bad_lines.into();
    value["duplicates"] = done.duplicates.into();
    value["replayed"] = done.replayed.into();
    output.result(&value, || {
        let mut text = match &done.batch {
            Some(batch) => batch::lines(std::slice::from_ref(batch), catalogue),
            None => {
                format!("{} cards would be imported", count(done.lines - done.bad_lines - done.duplicates))
            }
        };
        if done.bad_lines + done.duplicates > 0 {
            let found = Survey { cards: done.lines - done.bad_lines, bad: done.bad_lines, code_bytes_max: 0 };
            let left_out = if done.batch.is_some() { "left out" } else { "to be left out" };
            text += &format!("\n{left_out}: {}", faults(&found, done.duplicates));
        }
        if let Some(batch) = done.batch.as_ref().filter(|_| with_state && !done.replayed) {
            text += &as_they_were(batch);
        }
        if done.replayed {
            text += "\nimported before by the same command; nothing was done";
        }
        text
    })
}
