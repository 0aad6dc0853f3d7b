//! Card files as suppliers send them: CSV, TSV and other separated text, text with one code a line, .xlsx.
//!
//! A text file is read record by record and never kept: whatever somebody has put into it, memory is
//! bounded, and ten million lines take no more than ten. A worksheet is kept, because its format allows
//! nothing else; it has a million rows at most. A file is read more than once (to find out what it is, to
//! check it, to send it, to report on it), each time in the same way, and what is read then is what was there
//! the first time, or an error.
//!
//! **A wrong card is worse than none.** Where a file can be read in two ways that make different cards, it is
//! refused, or the line is bad, and the person is told what to say to make it clear.
//!
//! * Encoding: what the byte-order mark says; UTF-8 if all of it is valid; or else GB18030 if all of it is
//!   that.
//! * Lines end in LF, CR or CRLF; empty ones are passed over. Cells in quotation marks may go on over several
//!   lines; a record's line is the one it begins on.
//! * Cells are parted by what parts most of the first lines alike: comma, tab, semicolon, bar or `----`. If
//!   nothing does, a line is a code.
//! * Columns are told by the header, in English or Chinese. With both 卡号 and 卡密 the number is the code
//!   and 卡密 is its PIN; with one of them, that one is the code. Without a header the columns are code,
//!   PIN, face value, expiry, as far as there are any.
//! * What cards were in another system is read only if that is asked for; without, columns that tell of it in a way that
//!   cannot be a mere note are refused.
//! * Codes keep every digit. A number that a spreadsheet has rounded is a bad line, and never a card.

mod card;
mod cards;
mod content;
mod form;
mod header;
mod record;
mod rows;
mod sheet;
mod states;
mod text;

use std::io;
use std::path::{Path, PathBuf};

use cards::AnyRecords;
use content::Content;
use encoding_rs::{Encoding, UTF_8};
use form::{Row, SAMPLE_RECORDS, Sample};
use header::Header;
use kami_engine::ImportSpec;
use record::{Cells, Record};
use sheet::Sheet;
use text::Looks;
use zeroize::Zeroizing;

use crate::time;

pub use card::{BadLine, Card};
pub use cards::{Cards, Line};
pub use header::Columns;
pub use record::Form;
pub use rows::CardRows;
pub use states::NewCards;

/// How much of a file is looked at to see what it is.
const SNIFF_BYTES: usize = 8192;
/// The shortest longest code that an import may announce.
const CODE_BYTES_MIN: u8 = 4;

/// What is said about a file beforehand.
#[derive(Clone, Default)]
pub struct ReadOptions {
    /// Its encoding; `None` finds out.
    pub encoding: Option<&'static Encoding>,
    /// Its columns; `None` finds out.
    pub columns: Option<Columns>,
    /// What parts the cells of a text; `None` finds out.
    pub separator: Option<Form>,
    /// Whether its first line is a header; `None` finds out.
    pub header: Option<bool>,
    /// The currency of its face values.
    pub currency: [u8; 3],
    /// Whether its lines say what their cards were in another system, and that is wanted.
    pub states: bool,
}

/// A file that cannot be read as a card file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CardFileError {
    /// It cannot be read at all.
    #[error("the card file cannot be read path=`{}`", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is no card file.
    #[error("{why} path=`{}`", path.display())]
    NotCards {
        /// Which file.
        path: PathBuf,
        /// What it is instead, and what to do.
        why: String,
    },
}

/// A card file whose form is known.
pub struct CardFile {
    source: Source,
    columns: Columns,
    /// What was said about it.
    said: ReadOptions,
    /// The first record is a header.
    has_header: bool,
    /// Header names that mean nothing here.
    pub ignored: Vec<String>,
    /// The currency of its face values.
    pub currency: [u8; 3],
    /// What its cards are to be, if its lines say what they were in another system. Without it that is not read.
    pub states: Option<NewCards>,
    /// Tells its bytes from any others.
    pub digest: [u8; 32],
    content: Content,
    now_ms: u64,
}

enum Source {
    Text { form: Form, encoding: &'static Encoding },
    Sheet(Sheet),
}

/// What a check of all lines found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Survey {
    /// Lines that hold a card.
    pub cards: u64,
    /// Lines that hold something else.
    pub bad: u64,
    /// The longest code, in bytes; at least what a code must have.
    pub code_bytes_max: u8,
}

impl CardFile {
    /// Finds out what form the file has. Reads all of it once.
    ///
    /// # Errors
    /// See [`CardFileError`].
    pub fn open(path: &Path, options: &ReadOptions) -> Result<CardFile, CardFileError> {
        let read = |source| CardFileError::Io { path: path.to_owned(), source };
        let not_cards = |why: String| CardFileError::NotCards { path: path.to_owned(), why };
        let mut looks = Looks::new();
        let mut start = None;
        let content = Content::read(path, |block| {
            start.get_or_insert_with(|| Zeroizing::new(block[..block.len().min(SNIFF_BYTES)].to_vec()));
            looks.look(block);
        });
        let content = content.map_err(read)?;
        let start = start.unwrap_or_default();
        check_kind(&start).map_err(|why| not_cards(why.to_owned()))?;
        let source = if start.starts_with(b"PK\x03\x04") {
            if options.separator.is_some_and(|form| form != Form::OneCodeALine) {
                return Err(not_cards("a worksheet has cells of its own; leave out --separator".to_owned()));
            }
            Source::Sheet(Sheet::read(&content).map_err(not_cards)?)
        } else {
            let encoding = match options.encoding {
                Some(encoding) => encoding,
                None => looks.end(&content).map_err(read)?.map_err(not_cards)?,
            };
            let sample = |form| sample(&mut AnyRecords::text(&content, encoding, form)?);
            let form = match options.separator {
                Some(form) => form,
                None => form::find(sample).map_err(read)?.map_err(not_cards)?,
            };
            Source::Text { form, encoding }
        };
        let mut card_file = CardFile {
            source,
            columns: Columns::default(),
            said: options.clone(),
            has_header: false,
            ignored: Vec::new(),
            currency: options.currency,
            states: None,
            digest: content.digest(),
            content,
            now_ms: time::now_ms(),
        };
        let sample = card_file.records().and_then(|mut records| sample(&mut records)).map_err(read)?;
        let header =
            Header::learn(&sample, card_file.form(), options.columns, options.header, options.states);
        let header = header.map_err(not_cards)?;
        (card_file.columns, card_file.has_header) = (header.columns, header.is_header);
        card_file.ignored = header.ignored;
        Ok(card_file)
    }

    /// Which columns it has.
    #[must_use]
    pub const fn columns(&self) -> Columns {
        self.columns
    }

    /// What a person wants to know about how it is read, if it is not plain UTF-8 text with a header.
    #[must_use]
    pub fn remark(&self) -> Option<String> {
        let mut remarks = Vec::new();
        match &self.source {
            Source::Text { encoding, .. } if *encoding != UTF_8 => {
                remarks.push(format!("read as {}; --encoding says it otherwise", encoding.name()));
            }
            Source::Sheet(Sheet { name: Some(name), .. }) => {
                remarks.push(format!("only the first worksheet is imported: {name}"));
            }
            _ => {}
        }
        if !self.has_header && self.said.columns.is_none() && self.columns.count > 1 {
            let all = ["code", "pin", "face", "expires"];
            let columns = all[..self.columns.count.min(all.len())].join(",");
            remarks.push(format!("no header line: read as {columns}; --columns says it otherwise"));
        }
        (!remarks.is_empty()).then(|| remarks.join("\n"))
    }

    /// How it is read: what its rows depend on beside its bytes and columns.
    #[must_use]
    pub fn reading(&self) -> String {
        let header = self.has_header;
        match &self.source {
            Source::Text { form, encoding } => format!("{} {form:?} {header}", encoding.name()),
            Source::Sheet(_) => format!("xlsx {header}"),
        }
    }

    /// What parts its cells; `None` for a worksheet.
    const fn form(&self) -> Option<Form> {
        match &self.source {
            Source::Text { form, .. } => Some(*form),
            Source::Sheet(_) => None,
        }
    }

    fn records(&self) -> io::Result<AnyRecords<'_>> {
        match &self.source {
            Source::Text { form, encoding } => AnyRecords::text(&self.content, encoding, *form),
            Source::Sheet(sheet) => Ok(AnyRecords::Sheet { sheet, next: 0, cells: Box::new(Cells::new()) }),
        }
    }

    /// Reads it from the beginning.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn cards(&self) -> io::Result<Cards<'_>> {
        let records = self.records()?;
        Ok(Cards::over(self, records, self.has_header))
    }

    /// Checks every line and counts them. `progress` is told now and then how far it is, of
    /// [`CardFile::length`].
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn survey(&self, mut progress: impl FnMut(u64)) -> io::Result<Survey> {
        let mut survey = Survey { cards: 0, bad: 0, code_bytes_max: CODE_BYTES_MIN };
        let mut cards = self.cards()?;
        while let Some(line) = cards.next()? {
            match line.card {
                Err(_) => survey.bad += 1,
                Ok(card) => {
                    survey.cards += 1;
                    survey.code_bytes_max = survey.code_bytes_max.max(card.code.as_bytes().len() as u8);
                }
            }
            if (survey.cards + survey.bad).is_multiple_of(8192) {
                progress(cards.position());
            }
        }
        Ok(survey)
    }

    /// What an import of its good lines is begun with; `spec` says what the file does not.
    #[must_use]
    pub fn spec(&self, survey: &Survey, spec: ImportSpec) -> ImportSpec {
        ImportSpec {
            rows: survey.cards,
            code_bytes_max: survey.code_bytes_max,
            pins: self.columns.pin.is_some(),
            faces: self.columns.face.is_some(),
            expiries: self.columns.expires.is_some(),
            origins: self.states.is_some(),
            ..spec
        }
    }

    /// Its length, for progress; in a worksheet its rows.
    #[must_use]
    pub fn length(&self) -> u64 {
        match &self.source {
            Source::Text { .. } => self.content.length,
            Source::Sheet(sheet) => sheet.len() as u64,
        }
    }
}

/// The first records.
fn sample(records: &mut AnyRecords<'_>) -> io::Result<Sample> {
    let mut sample = Vec::new();
    while sample.len() < SAMPLE_RECORDS
        && let Some(record) = records.next()?
    {
        let row = |record: Record<'_>| Row {
            line: record.line,
            cells: (0..record.len())
                .filter_map(|column| record.cell(column))
                .map(|(cell, _)| Zeroizing::new(String::from_utf8_lossy(cell).into_owned()))
                .collect(),
        };
        sample.push(record.map(row));
    }
    Ok(sample)
}

/// Says what a file is that is no card file.
fn check_kind(start: &[u8]) -> Result<(), &'static str> {
    if start.is_empty() {
        Err("the card file is empty")
    } else if start.starts_with(b"\xd0\xcf\x11\xe0") {
        Err("this is a workbook of the old kind (.xls): save it as .xlsx or CSV")
    } else if start.starts_with(b"PK\x03\x04") || Encoding::for_bom(start).is_some() {
        Ok(())
    } else if start.contains(&0) {
        Err("this is a binary file, not a card file")
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
