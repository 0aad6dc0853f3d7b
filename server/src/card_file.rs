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

use encoding_rs::{Encoding, UTF_8};
use kami_engine::{Code, ImportSpec, Money, Origin};
use unicode_normalization::UnicodeNormalization;
use zeroize::Zeroizing;

use crate::{money, time};
use content::Content;
use form::{Row, SAMPLE_RECORDS, Sample};
use header::{Header, no_code};
use record::{Broken, Cells, Kind, Record, Records};
use sheet::Sheet;
use text::{Looks, Text};

pub use header::Columns;
pub use record::Form;
pub use rows::CardRows;
pub use states::NewCards;

/// How much of a file is looked at to see what it is.
const SNIFF_BYTES: usize = 8192;
/// The longest PIN, in bytes.
const PIN_BYTES_MAX: usize = 255;
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

/// One good line. Wiped when dropped, but for the PIN, which stands in the file's buffer.
pub struct Card<'a> {
    /// The code in the one form that counts.
    pub code: Code,
    /// The PIN; `None` if the file has none.
    pub pin: Option<&'a [u8]>,
    /// The face value; `None` if the cell is empty or the file has none: the batch's.
    pub face: Option<Money>,
    /// The end of validity in milliseconds since 1970; 0 if there is none.
    pub expires_ms: u64,
    /// What it was in another system, if that is wanted.
    pub origin: Option<Origin>,
}

/// What is wrong with a line. Never says the code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadLine(pub String);

/// A line of the file that is not empty.
pub struct Line<'a> {
    /// Its number, counted from 1; in a worksheet the row's.
    pub number: u64,
    /// The card, or what is wrong.
    pub card: Result<Card<'a>, BadLine>,
    /// The code as it stands there, or as much as there is of it.
    pub code: &'a [u8],
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
        Ok(Cards { file: self, records, skip_header: self.has_header, memory: Memory::default() })
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

    fn card<'a>(&self, record: &Record<'a>, memory: &mut Memory) -> Result<Card<'a>, BadLine> {
        match self.form() {
            Some(Form::OneCodeALine) if self.said.separator.is_none() => {
                whole(record.cell(0).map_or(b"", |(line, _)| line))?;
            }
            // A cell that is one too many has moved those behind it.
            Some(form) if record.is_wider(self.columns.count) => {
                let (has, name) = (record.len(), form.name());
                let wrong = format!(
                    "it has {has} cells parted by {name} instead of {}; one with a {name} in it needs quotation \
                     marks",
                    self.columns.count
                );
                return Err(BadLine(wrong));
            }
            _ => {}
        }
        let code = match record.cell(self.columns.code) {
            Some((code, kind)) if !code.is_empty() => secret(code, kind, "code")?,
            _ => return Err(BadLine("it has no code".to_owned())),
        };
        if self.said.header != Some(false)
            && let Some(wrong) = no_code(code)
        {
            return Err(BadLine(format!("its code {wrong}")));
        }
        let code = Code::normalise(code).map_err(|wrong| match std::str::from_utf8(code) {
            Err(_) => BadLine(self.not_text("code")),
            Ok(_) => BadLine(wrong.to_string()),
        })?;
        let pin = match self.columns.pin {
            None => None,
            Some(column) => match record.cell(column) {
                Some((pin, kind)) if !pin.is_empty() && pin.len() <= PIN_BYTES_MAX => {
                    let pin = secret(pin, kind, "PIN")?;
                    // What cannot be decoded is another PIN than the one that is printed on the card.
                    if std::str::from_utf8(pin).is_err() {
                        return Err(BadLine(self.not_text("PIN")));
                    }
                    Some(pin)
                }
                _ => return Err(BadLine("it has no PIN, or one of more than 255 bytes".to_owned())),
            },
        };
        let mut face = None;
        if let Some(column) = self.columns.face {
            let text = self.cell(record, column, "face value")?;
            face = match text {
                b"" => None,
                text => Some(memory.face.of(text, |text| {
                    let wrong = |wrong| BadLine(format!("its face value is wrong: {wrong}"));
                    money::parse(text, self.currency).map_err(wrong)
                })?),
            };
        }
        let mut expires_ms = 0;
        if let Some(column) = self.columns.expires {
            let text = self.cell(record, column, "expiry")?;
            if !text.is_empty() {
                expires_ms = memory.expires.of(text, |text| {
                    let date = sheet::date_of_serial(text);
                    let end = time::parse_end(date.as_deref().unwrap_or(text));
                    end.map_err(|wrong| BadLine(format!("its expiry is wrong: {wrong}")))
                })?;
                // What comes as it was may have expired there.
                if expires_ms <= self.now_ms && self.states.is_none() {
                    return Err(BadLine("it has expired already".to_owned()));
                }
            }
        }
        let origin = self.origin(record, face, expires_ms, &mut memory.states)?;
        Ok(Card { code, pin, face, expires_ms, origin })
    }

    /// A cell that may be empty. In a text it must be there, or the line was cut; a worksheet leaves empty ones out.
    fn cell<'a>(&self, record: &Record<'a>, column: usize, what: &str) -> Result<&'a [u8], BadLine> {
        match record.cell(column) {
            Some((cell, _)) => Ok(cell),
            None if self.form().is_none() => Ok(b""),
            None => Err(BadLine(format!("it ends before its {what}"))),
        }
    }

    fn not_text(&self, what: &str) -> String {
        match &self.source {
            Source::Text { encoding, .. } => {
                format!("its {what} is not text in {}; --encoding says another", encoding.name())
            }
            Source::Sheet(_) => format!("its {what} is not text"),
        }
    }
}

/// That a line is a code as a whole, as far as can be seen: that nothing in it parts a code from what belongs
/// to it.
fn whole(line: &[u8]) -> Result<(), BadLine> {
    let parts = |byte: &u8| matches!(byte, b' ' | b'\t' | b',' | b';' | b':' | b'|' | 0x80..);
    // Most codes have hyphens; few have anything that is worth looking at as text.
    if !line.iter().any(parts) && memchr::memmem::find(line, b"----").is_none() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(line);
    let part = text.chars().find(|character| {
        character.is_whitespace()
            || matches!(character, ',' | ';' | ':' | '|' | '，' | '；' | '：' | '｜' | '、')
    });
    let part = match part {
        Some(' ' | '\u{3000}' | '\u{a0}') => "a space",
        Some('\t') => "a tab",
        Some(',' | '，' | '、') => "a comma",
        Some(';' | '；') => "a semicolon",
        Some(':' | '：') => "a colon",
        Some('|' | '｜') => "a bar",
        Some(_) => "a blank",
        None if text.contains("----") => "`----`",
        None => return Ok(()),
    };
    Err(BadLine(format!(
        "it has {part} in it: say --separator none if all of it is the code, or else what parts it"
    )))
}

/// A code or PIN as it was meant, if a spreadsheet has left it whole.
fn secret<'a>(cell: &'a [u8], kind: Kind, what: &str) -> Result<&'a [u8], BadLine> {
    let wrong = match kind {
        Kind::Text if is_rounded(cell) => "was turned into a rounded number by a spreadsheet",
        Kind::Text if memchr::memchr2(b'\n', b'\r', cell).is_some() => {
            "has a line break in it; is a quotation mark left open?"
        }
        Kind::Text => return Ok(unwrapped(cell)),
        Kind::Rounded => "is a number of more than 15 digits, which a spreadsheet does not keep",
        Kind::Date => "was taken for a date by a spreadsheet",
        Kind::Fraction => "is a number below zero or with a fraction",
        Kind::Formula => "is a formula whose result was not saved",
        Kind::NoText => "is a spreadsheet's error or yes or no",
    };
    let hint =
        if kind == Kind::Text && !is_rounded(cell) { "" } else { ": make the column text and enter it anew" };
    Err(BadLine(format!("its {what} {wrong}{hint}")))
}

/// `6.22609E+15`: what a spreadsheet makes of a long number when it saves it as text.
fn is_rounded(cell: &[u8]) -> bool {
    let [b'0'..=b'9', b'.' | b'E' | b'e', ..] = cell else { return false };
    let Some(exponent) = cell.iter().position(|byte| matches!(byte, b'E' | b'e')) else { return false };
    let (mantissa, exponent) = (&cell[..exponent], &cell[exponent + 1..]);
    let digits = |bytes: &[u8]| !bytes.is_empty() && bytes.iter().all(u8::is_ascii_digit);
    (mantissa.len() == 1 || mantissa.len() > 2 && digits(&mantissa[2..]))
        && exponent.strip_prefix(b"+").is_some_and(|exponent| digits(exponent) && exponent.len() <= 3)
}

/// `="00123"` and `'00123` are how a spreadsheet is told to leave a number alone: without that.
fn unwrapped(cell: &[u8]) -> &[u8] {
    match cell {
        [b'=', b'"', inner @ .., b'"'] => inner,
        [b'\'', digits @ ..] if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) => digits,
        _ => cell,
    }
}

/// What the last line's amount and date were: the next line's are mostly the same.
#[derive(Default)]
struct Memory {
    face: Last<Money>,
    expires: Last<u64>,
    states: states::Memory,
}

#[derive(Default)]
struct Last<T> {
    text: Vec<u8>,
    value: T,
}

impl<T: Copy> Last<T> {
    fn of(&mut self, text: &[u8], parse: impl FnOnce(&str) -> Result<T, BadLine>) -> Result<T, BadLine> {
        if text != self.text {
            let wide = String::from_utf8_lossy(text);
            self.value = if wide.is_ascii() {
                parse(&wide)?
            } else {
                // Full-width digits, and the words that stand between those of a date in Chinese.
                let plain = wide.nfkc().filter(|character| *character != '日');
                let plain =
                    plain.map(|character| if matches!(character, '年' | '月') { '-' } else { character });
                parse(&plain.collect::<String>())?
            };
            self.text.clear();
            self.text.extend_from_slice(text);
        }
        Ok(self.value)
    }
}

/// The lines of a card file that are not empty.
pub struct Cards<'a> {
    file: &'a CardFile,
    records: AnyRecords<'a>,
    skip_header: bool,
    memory: Memory,
}

enum AnyRecords<'a> {
    Text(Box<Records<'a>>),
    Sheet { sheet: &'a Sheet, next: usize, cells: Box<Cells> },
}

impl<'a> AnyRecords<'a> {
    fn text(content: &'a Content, encoding: &'static Encoding, form: Form) -> io::Result<AnyRecords<'a>> {
        Ok(AnyRecords::Text(Box::new(Records::new(Text::open(content, encoding)?, form))))
    }

    #[inline]
    fn next(&mut self) -> io::Result<Option<Result<Record<'_>, Broken>>> {
        match self {
            AnyRecords::Text(records) => records.next(),
            AnyRecords::Sheet { sheet, next, cells } => {
                if *next == sheet.len() {
                    return Ok(None);
                }
                *next += 1;
                Ok(Some(sheet.record(*next - 1, cells)))
            }
        }
    }
}

impl Cards<'_> {
    /// How far it is, of [`CardFile::length`].
    #[must_use]
    pub fn position(&self) -> u64 {
        match &self.records {
            AnyRecords::Text(records) => records.bytes_read(),
            AnyRecords::Sheet { next, .. } => *next as u64,
        }
    }

    /// Has the next call yield the same line again.
    pub fn again(&mut self) {
        match &mut self.records {
            AnyRecords::Text(records) => records.again(),
            AnyRecords::Sheet { next, .. } => *next -= 1,
        }
    }

    /// The next line; what it holds is overwritten by the one after.
    ///
    /// # Errors
    /// If the file cannot be read.
    #[expect(clippy::should_implement_trait, reason = "a line is lent, which an iterator cannot")]
    #[inline]
    pub fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        if std::mem::take(&mut self.skip_header) {
            self.records.next()?;
        }
        Ok(self.records.next()?.map(|record| match record {
            Ok(record) => Line {
                number: record.line,
                card: self.file.card(&record, &mut self.memory),
                code: record.cell(self.file.columns.code).map_or(b"", |(code, _)| code),
            },
            // What the code is cannot be told.
            Err(Broken { line, why }) => Line { number: line, card: Err(BadLine(why.to_owned())), code: b"" },
        }))
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
