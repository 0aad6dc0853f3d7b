//! The records of a text file: lines, or quoted cells over several lines, with their line numbers.
//!
//! Lines end in LF, CR or CRLF; empty ones are passed over. A record is never longer than
//! [`RECORD_BYTES_MAX`], so a quotation mark that is left open spoils its own line and no other: the next
//! line is read as if nothing had been.

use std::io;

use csv_core::{ReadRecordResult, ReaderBuilder};
use zeroize::Zeroizing;

use super::text::Text;

/// The longest record that is read; longer ones are bad.
pub const RECORD_BYTES_MAX: usize = 4096;
/// The most columns that are looked at.
pub const COLUMNS_MAX: usize = 64;

/// How a file parts its records into cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// By nothing: a line is a code, in quotation marks or not.
    OneCodeALine,
    /// By this byte.
    Separated(u8),
    /// By four hyphens or more.
    Dashes,
    /// By spaces and tabs.
    Blanks,
}

/// What a spreadsheet knows about a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Text,
    /// A number that may have lost digits, because a spreadsheet keeps fifteen.
    Rounded,
    /// A date or time.
    Date,
    /// A number below zero or with a fraction.
    Fraction,
    /// A formula whose result was not saved.
    Formula,
    /// An error such as #N/A, or a yes or no.
    NoText,
}

/// Where the cells of a record lie in its text.
pub struct Cells {
    ranges: [(u32, u32); COLUMNS_MAX],
    kinds: [Kind; COLUMNS_MAX],
    count: usize,
}

impl Cells {
    pub const fn new() -> Cells {
        Cells { ranges: [(0, 0); COLUMNS_MAX], kinds: [Kind::Text; COLUMNS_MAX], count: 0 }
    }

    pub const fn clear(&mut self) {
        self.count = 0;
    }

    /// Adds a cell; whether there was room.
    #[inline]
    pub const fn push(&mut self, start: usize, end: usize) -> bool {
        if self.count == COLUMNS_MAX {
            return false;
        }
        self.ranges[self.count] = (start as u32, end as u32);
        self.count += 1;
        true
    }

    /// Says what the last cell is. Cells of text files are text and never said to be anything.
    pub const fn mark(&mut self, kind: Kind) {
        self.kinds[self.count - 1] = kind;
    }

    pub const fn len(&self) -> usize {
        self.count
    }
}

/// One record; what it holds stays valid until the next is asked for.
#[derive(Clone, Copy)]
pub struct Record<'a> {
    /// The line it begins on, counted from 1.
    pub line: u64,
    text: &'a [u8],
    cells: &'a Cells,
}

impl<'a> Record<'a> {
    pub const fn new(line: u64, text: &'a [u8], cells: &'a Cells) -> Record<'a> {
        Record { line, text, cells }
    }

    /// A cell without the white space around it, and what it is; `None` beyond the last.
    #[inline]
    pub fn cell(&self, column: usize) -> Option<(&'a [u8], Kind)> {
        if column >= self.cells.count {
            return None;
        }
        let (start, end) = self.cells.ranges[column];
        Some((self.text[start as usize..end as usize].trim_ascii(), self.cells.kinds[column]))
    }

    pub const fn len(&self) -> usize {
        self.cells.len()
    }

    /// Whether something stands behind its first `columns` cells.
    #[inline]
    pub fn is_wider(&self, columns: usize) -> bool {
        (columns..self.len()).any(|column| self.cell(column).is_some_and(|(cell, _)| !cell.is_empty()))
    }
}

/// A record that cannot be read.
pub struct Broken {
    /// The line it begins on.
    pub line: u64,
    pub why: &'static str,
}

/// The records of a text.
pub struct Records<'a> {
    text: Text<'a>,
    form: Form,
    cells: Cells,
    /// The cells of a record with quotation marks, without them.
    unquoted: Zeroizing<Vec<u8>>,
    ends: [usize; COLUMNS_MAX],
    /// Lines before the record that was read last, and how many it has.
    lines: u64,
    lines_read: u64,
    /// Bytes of the record that was read last.
    used: usize,
}

/// How a record was found.
enum Found {
    /// In the window itself.
    Plain(usize),
    Unquoted,
    Broken(&'static str),
}

impl<'a> Records<'a> {
    pub fn new(text: Text<'a>, form: Form) -> Records<'a> {
        Records {
            text,
            form,
            cells: Cells::new(),
            unquoted: Zeroizing::new(vec![0; RECORD_BYTES_MAX + 1]),
            ends: [0; COLUMNS_MAX],
            lines: 0,
            lines_read: 0,
            used: 0,
        }
    }

    pub const fn bytes_read(&self) -> u64 {
        self.text.bytes_read
    }

    /// Has the next call yield the same record again.
    pub const fn again(&mut self) {
        (self.used, self.lines_read) = (0, 0);
    }

    /// The next record.
    pub fn next(&mut self) -> io::Result<Option<Result<Record<'_>, Broken>>> {
        let found = loop {
            self.text.consume(self.used);
            self.lines += self.lines_read;
            (self.used, self.lines_read) = (0, 0);
            let Some((length, after)) = self.line_end()? else {
                if self.text.window().is_empty() {
                    return Ok(None);
                }
                self.skip_line()?;
                break Found::Broken("it is longer than 4096 bytes");
            };
            (self.used, self.lines_read) = (after, 1);
            let line = &self.text.window()[..length];
            if line.trim_ascii().is_empty() {
                continue;
            }
            break match self.form {
                Form::OneCodeALine => self.whole_line(length),
                Form::Dashes | Form::Blanks => self.split(length),
                Form::Separated(separator) if memchr::memchr(b'"', line).is_none() => {
                    self.cells.clear();
                    let mut start = 0;
                    let mut fits = true;
                    for end in memchr::memchr_iter(separator, line) {
                        fits &= self.cells.push(start, end);
                        start = end + 1;
                    }
                    fits &= self.cells.push(start, length);
                    if fits { Found::Plain(length) } else { Found::Broken(TOO_WIDE) }
                }
                Form::Separated(separator) => self.unquote(separator)?,
            };
        };
        let line = self.lines + 1;
        Ok(Some(match found {
            Found::Plain(length) => Ok(Record::new(line, &self.text.window()[..length], &self.cells)),
            Found::Unquoted => Ok(Record::new(line, &self.unquoted, &self.cells)),
            Found::Broken(why) => Err(Broken { line, why }),
        }))
    }

    /// The line as one cell, without the quotation marks around it.
    fn whole_line(&mut self, length: usize) -> Found {
        let line = &self.text.window()[..length];
        let start = length - line.trim_ascii_start().len();
        let cell = line.trim_ascii();
        self.cells.clear();
        // A spreadsheet's `="0012"` has one at its end only.
        let (opened, closed) = (cell.starts_with(b"\""), cell.ends_with(b"\"") && !cell.starts_with(b"="));
        if !opened && !closed {
            self.cells.push(start, start + cell.len());
            return Found::Plain(length);
        }
        if !(opened && closed && cell.len() > 1) {
            return Found::Broken(LEFT_OPEN);
        }
        let mut inner = &cell[1..cell.len() - 1];
        let mut written = 0;
        while let Some(at) = memchr::memchr(b'"', inner) {
            if inner.get(at + 1) != Some(&b'"') {
                return Found::Broken(LEFT_OPEN);
            }
            self.unquoted[written..=written + at].copy_from_slice(&inner[..=at]);
            written += at + 1;
            inner = &inner[at + 2..];
        }
        self.unquoted[written..written + inner.len()].copy_from_slice(inner);
        self.cells.push(0, written + inner.len());
        Found::Unquoted
    }

    /// The line's cells between runs of hyphens or of blanks.
    fn split(&mut self, length: usize) -> Found {
        let line = self.text.window()[..length].trim_ascii_end();
        let (is_part, shortest): (fn(&u8) -> bool, _) = match self.form {
            Form::Dashes => (|byte| *byte == b'-', DASHES_MIN),
            _ => (|byte| matches!(byte, b' ' | b'\t'), 1),
        };
        self.cells.clear();
        let mut start = line.len() - line.trim_ascii_start().len();
        let mut from = start;
        let mut fits = true;
        while let Some(found) = line[from..].iter().position(is_part) {
            let at = from + found;
            let run = line[at..].iter().take_while(|byte| is_part(byte)).count();
            from = at + run;
            if run >= shortest {
                fits &= self.cells.push(start, at);
                start = from;
            }
        }
        fits &= self.cells.push(start, line.len());
        if fits { Found::Plain(length) } else { Found::Broken(TOO_WIDE) }
    }

    /// Where the line at the window's beginning ends, without and with what ends it; `None` if there is none,
    /// or if it is too long.
    #[inline]
    fn line_end(&mut self) -> io::Result<Option<(usize, usize)>> {
        loop {
            let window = self.text.window();
            let looked = window.len().min(RECORD_BYTES_MAX + 1);
            match memchr::memchr2(b'\n', b'\r', &window[..looked]) {
                Some(at) if window[at] == b'\n' => return Ok(Some((at, at + 1))),
                Some(at) if at + 1 < window.len() => {
                    return Ok(Some((at, at + 1 + usize::from(window[at + 1] == b'\n'))));
                }
                Some(at) if self.text.is_over() => return Ok(Some((at, at + 1))),
                None if looked > RECORD_BYTES_MAX => return Ok(None),
                None if self.text.is_over() => {
                    return Ok((!window.is_empty()).then_some((window.len(), window.len())));
                }
                _ => self.text.more()?,
            }
        }
    }

    /// Steps over a line that is too long, but for its end, which is left as the record's bytes.
    fn skip_line(&mut self) -> io::Result<()> {
        loop {
            let window = self.text.window();
            // An end that may be the first half of one is looked at again with what follows.
            let end = memchr::memchr2(b'\n', b'\r', window).filter(|at| at + 1 < window.len());
            if let Some(at) = end {
                self.used = at + 1 + usize::from(&window[at..at + 2] == b"\r\n");
                self.lines_read = 1;
                return Ok(());
            }
            if self.text.is_over() {
                self.used = window.len();
                self.lines_read = 1;
                return Ok(());
            }
            let kept = usize::from(window.last() == Some(&b'\r') || window.last() == Some(&b'\n'));
            self.text.consume(window.len() - kept);
            self.text.more()?;
        }
    }

    /// Reads a record with quotation marks, which may go on over several lines.
    fn unquote(&mut self, separator: u8) -> io::Result<Found> {
        loop {
            let window = self.text.window();
            let given = &window[..window.len().min(RECORD_BYTES_MAX)];
            let mut parser = ReaderBuilder::new().delimiter(separator).build();
            let (mut result, mut read, written, mut count) =
                parser.read_record(given, &mut self.unquoted, &mut self.ends);
            if result == ReadRecordResult::InputEmpty && self.text.is_over() && given.len() == window.len() {
                // The last line need not end.
                let (last, _, _, more) =
                    parser.read_record(b"\n", &mut self.unquoted[written..], &mut self.ends[count..]);
                (result, read, count) = (last, window.len(), count + more);
            }
            match result {
                ReadRecordResult::Record => {
                    if given[..read].ends_with(b"\r") && window.get(read) == Some(&b'\n') {
                        read += 1;
                    }
                    self.cells.clear();
                    let mut start = 0;
                    for end in &self.ends[..count] {
                        self.cells.push(start, *end);
                        start = *end;
                    }
                    self.used = read;
                    self.lines_read = line_count(&window[..read]);
                    return Ok(Found::Unquoted);
                }
                ReadRecordResult::InputEmpty if given.len() < RECORD_BYTES_MAX && !self.text.is_over() => {
                    self.text.more()?;
                }
                ReadRecordResult::InputEmpty => {
                    return Ok(Found::Broken(LEFT_OPEN));
                }
                _ => return Ok(Found::Broken(TOO_WIDE)),
            }
        }
    }
}

pub const TOO_WIDE: &str = "it has more than 64 columns";
const LEFT_OPEN: &str = "a quotation mark is left open";
/// Fewer hyphens than this stand within codes.
const DASHES_MIN: usize = 4;

/// How many lines bytes have that end with a line's end or the file's.
fn line_count(bytes: &[u8]) -> u64 {
    let mut count = 0;
    let mut from = 0;
    while let Some(found) = memchr::memchr2(b'\n', b'\r', &bytes[from..]) {
        let at = from + found;
        count += 1;
        from = at + 1 + usize::from(bytes[at..].starts_with(b"\r\n"));
    }
    count + u64::from(from < bytes.len())
}
