//! One record as a card, or as a bad line that says what is wrong with it.
//!
//! # Invariants
//! * Codes and PINs keep every character that was written; a number that was rounded on its way is a bad line.
//! * No code or PIN is in what is said of a line.

use kami_engine::{Code, Money, Origin};
use unicode_normalization::UnicodeNormalization;

use super::header::no_code;
use super::record::{Kind, Record};
use super::{CardFile, Form, Source, sheet, states};
use crate::{money, time};

/// The longest PIN, in bytes.
const PIN_BYTES_MAX: usize = 255;

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

impl CardFile {
    /// The card that a record is.
    pub(super) fn card<'a>(&self, record: &Record<'a>, memory: &mut Memory) -> Result<Card<'a>, BadLine> {
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
    pub(super) fn cell<'a>(
        &self,
        record: &Record<'a>,
        column: usize,
        what: &str,
    ) -> Result<&'a [u8], BadLine> {
        match record.cell(column) {
            Some((cell, _)) => Ok(cell),
            None if self.form().is_none() => Ok(b""),
            None => Err(BadLine(format!("it ends before its {what}"))),
        }
    }

    /// What is said of a cell that is no text in the encoding that was taken.
    pub(super) fn not_text(&self, what: &str) -> String {
        match &self.source {
            Source::Text { encoding, .. } => {
                format!("its {what} is not text in {}; --encoding says another", encoding.name())
            }
            Source::Sheet(_) => format!("its {what} is not text"),
        }
    }
}

/// What the last line's amount and date were: the next line's are mostly the same.
#[derive(Default)]
pub(super) struct Memory {
    face: Last<Money>,
    expires: Last<u64>,
    states: states::Memory,
}

#[derive(Default)]
pub(super) struct Last<T> {
    text: Vec<u8>,
    value: T,
}

impl<T: Copy> Last<T> {
    pub(super) fn of(
        &mut self,
        text: &[u8],
        parse: impl FnOnce(&str) -> Result<T, BadLine>,
    ) -> Result<T, BadLine> {
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
