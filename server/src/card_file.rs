//! Card files as suppliers send them: CSV with or without a header line, or text with one code a line.
//!
//! A file is read line by line and never kept: whatever somebody has put into it, memory is bounded. It
//! is read more than once (to check it, to report on it, to send it), and each time in the same way.
//!
//! * UTF-8, with or without byte-order mark; lines end in LF or CRLF; empty lines are passed over.
//! * Columns are told by the header, in English or Chinese. With both 卡号 and 卡密 the number is the code
//!   and 卡密 is its PIN; with one of them, that one is the code. Without a header the columns are code,
//!   PIN, face value, expiry, as far as there are any.
//! * A `.txt` file, or one whose first line has no comma, semicolon or tab, has one code a line.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use csv_core::ReadRecordResult;
use kami_engine::{Code, Money};
use zeroize::Zeroizing;

use crate::exit::{Exit, Failure};
use crate::{money, time};

/// The longest line that is read; longer ones are bad.
const LINE_BYTES_MAX: usize = 4096;
/// The most columns that are looked at.
const COLUMNS_MAX: usize = 64;
/// How much of a file is looked at to see that it is text.
const SNIFF_BYTES: usize = 8192;

/// A card file whose form is known.
pub struct CardFile {
    path: PathBuf,
    form: Form,
    columns: Columns,
    has_header: bool,
    /// Header names that mean nothing here.
    pub ignored: Vec<String>,
    /// The currency its face values are in.
    currency: [u8; 3],
    now_ms: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    OneCodeALine,
    Separated(u8),
}

/// Which column is where.
#[derive(Clone, Copy, Default)]
pub struct Columns {
    code: usize,
    pub pin: Option<usize>,
    pub face: Option<usize>,
    pub expires: Option<usize>,
}

/// One good line.
pub struct Card {
    pub code: Zeroizing<Vec<u8>>,
    pub pin: Option<Zeroizing<Vec<u8>>>,
    /// `None` if the cell is empty: the batch's.
    pub face: Option<Money>,
    /// 0 if there is none.
    pub expires_ms: u64,
}

/// What is wrong with a line. Never says the code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadLine(pub String);

impl CardFile {
    /// Finds out what form the file has; face values are in `currency`.
    pub fn open(path: &Path, currency: [u8; 3]) -> Result<CardFile, Failure> {
        if path == Path::new("-") {
            return Err(Failure::usage("a card file is read twice, so it cannot come from standard input"));
        }
        let read = |error: io::Error| file_failure(path, &error);
        let mut file = File::open(path).map_err(read)?;
        if file.metadata().map_err(read)?.is_dir() {
            return Err(Failure::environment(format!(
                "it is a directory, not a card file path=`{}`",
                path.display()
            )));
        }
        let mut start = Vec::with_capacity(SNIFF_BYTES);
        Read::take(&mut file, SNIFF_BYTES as u64).read_to_end(&mut start).map_err(read)?;
        check_text(path, &start)?;
        let mut card_file = CardFile {
            path: path.to_owned(),
            form: Form::OneCodeALine,
            columns: Columns::default(),
            has_header: false,
            ignored: Vec::new(),
            currency,
            now_ms: time::now_ms(),
        };
        let mut lines = Lines::open(path).map_err(read)?;
        while let Some((_, line)) = lines.next().map_err(read)? {
            let Ok(line) = line else { break };
            if line.trim_ascii().is_empty() {
                continue;
            }
            card_file.learn(line)?;
            return Ok(card_file);
        }
        if start.trim_ascii().is_empty() {
            return Err(Failure::refused(format!("the card file is empty path=`{}`", path.display())));
        }
        Ok(card_file)
    }

    /// Learns from the first line that is not empty.
    fn learn(&mut self, line: &[u8]) -> Result<(), Failure> {
        let text_file = self.path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("txt"));
        let separator = [b'\t', b';', b','].into_iter().rfind(|separator| line.contains(separator));
        if let (Some(separator), false) = (separator, text_file) {
            self.form = Form::Separated(separator);
        }
        let mut cells = Cells::new(self.form);
        let Ok(cells) = cells.split(line) else { return Ok(()) };
        let names: Vec<String> =
            cells.iter().map(|cell| String::from_utf8_lossy(cell).trim().to_lowercase()).collect();
        let kinds: Vec<Option<Column>> = names.iter().map(|name| Column::of(name)).collect();
        if kinds.iter().all(Option::is_none) {
            let by_place = |place| (place < cells.len()).then_some(place);
            self.columns = Columns { code: 0, pin: by_place(1), face: by_place(2), expires: by_place(3) };
            if cells.len() > 4 {
                return Err(self.refuse(
                    "the file has more than four columns and no header line that says which is which: begin \
                     it with code,pin,face,expires or 卡号,密码,面值,有效期",
                ));
            }
            return Ok(());
        }
        self.has_header = true;
        let place = |wanted| kinds.iter().position(|kind| *kind == Some(wanted));
        let (code, number, secret) = (place(Column::Code), place(Column::Number), place(Column::Secret));
        let Some(column) = code.or(number).or(secret) else {
            return Err(self.refuse("the header names no column `code` (or 卡号 or 卡密)"));
        };
        // Beside a number or code, 卡密 is what proves it.
        let secret = secret.filter(|secret| *secret != column);
        self.columns = Columns {
            code: column,
            pin: place(Column::Pin).or(secret),
            face: place(Column::Face),
            expires: place(Column::Expires),
        };
        let used = [Some(column), self.columns.pin, self.columns.face, self.columns.expires];
        let twice = kinds
            .iter()
            .enumerate()
            .find(|(i, kind)| kind.is_some() && kinds[..*i].contains(kind))
            .map(|(i, _)| names[i].clone());
        if let Some(name) = twice {
            return Err(self.refuse(&format!("the header names a column twice: `{name}`")));
        }
        let is_used = |i: usize| used.contains(&Some(i));
        self.ignored = names
            .into_iter()
            .enumerate()
            .filter(|(i, name)| !is_used(*i) && !name.is_empty())
            .map(|(_, name)| name)
            .collect();
        Ok(())
    }

    fn refuse(&self, message: &str) -> Failure {
        Failure::refused(format!("{message} path=`{}`", self.path.display()))
    }

    /// Which columns it has.
    pub const fn columns(&self) -> Columns {
        self.columns
    }

    /// Reads it from the beginning.
    pub fn cards(&self) -> Result<Cards<'_>, Failure> {
        let lines = Lines::open(&self.path).map_err(|error| file_failure(&self.path, &error))?;
        let skip_header = self.has_header;
        Ok(Cards { file: self, lines, cells: Cells::new(self.form), skip_header })
    }

    /// Its length, for progress bars.
    pub fn bytes(&self) -> u64 {
        std::fs::metadata(&self.path).map_or(0, |metadata| metadata.len())
    }

    fn card(&self, cells: &[&[u8]]) -> Result<Card, BadLine> {
        let cell = |place: usize| cells.get(place).map(|cell| cell.trim_ascii());
        let code = cell(self.columns.code).filter(|code| !code.is_empty());
        let code = code.ok_or_else(|| BadLine("it has no code".to_owned()))?;
        let normal = Code::normalise(code).map_err(|wrong| {
            BadLine(match std::str::from_utf8(code) {
                Err(_) => "it is not UTF-8 text; save the file as UTF-8".to_owned(),
                Ok(_) => wrong.to_string(),
            })
        })?;
        let pin = match self.columns.pin {
            None => None,
            Some(place) => {
                let pin = cell(place).filter(|pin| !pin.is_empty() && pin.len() <= 255);
                let pin =
                    pin.ok_or_else(|| BadLine("it has no PIN, or one of more than 255 bytes".to_owned()))?;
                Some(Zeroizing::new(pin.to_vec()))
            }
        };
        let text = |place: usize, what: &str| -> Result<Option<String>, BadLine> {
            let cell = cell(place).ok_or_else(|| BadLine(format!("it ends before its {what}")))?;
            let text = std::str::from_utf8(cell).map_err(|_| BadLine(format!("its {what} is not text")))?;
            Ok(Some(text.to_owned()).filter(|text| !text.is_empty()))
        };
        let face = match self.columns.face.map(|place| text(place, "face value")).transpose()?.flatten() {
            None => None,
            Some(text) => {
                let face = money::parse(&text, self.currency);
                Some(face.map_err(|wrong| BadLine(format!("its face value is wrong: {wrong}")))?)
            }
        };
        let expires_ms = match self.columns.expires.map(|place| text(place, "expiry")).transpose()?.flatten()
        {
            None => 0,
            Some(text) => {
                let end = time::parse_end(&text);
                end.map_err(|wrong| BadLine(format!("its expiry is wrong: {wrong}")))?
            }
        };
        if expires_ms != 0 && expires_ms <= self.now_ms {
            return Err(BadLine("it has expired already".to_owned()));
        }
        // The normalised code is what counts from here on: it takes the least room.
        Ok(Card { code: Zeroizing::new(normal.as_bytes().to_vec()), pin, face, expires_ms })
    }
}

/// A line of the file: its number, counted from 1, and what it holds.
pub type Numbered = (u64, Result<Card, BadLine>);

/// The lines of a card file that are not empty.
pub struct Cards<'a> {
    file: &'a CardFile,
    lines: Lines,
    cells: Cells,
    skip_header: bool,
}

impl Cards<'_> {
    /// How many bytes were read.
    pub const fn bytes_read(&self) -> u64 {
        self.lines.bytes_read
    }

    fn advance(&mut self) -> io::Result<Option<Numbered>> {
        loop {
            let Some((number, line)) = self.lines.next()? else { return Ok(None) };
            let line = match line {
                Ok(line) if line.trim_ascii().is_empty() => continue,
                Ok(line) => line,
                Err(TooLong) => {
                    self.skip_header = false;
                    let wrong = format!("it is longer than {LINE_BYTES_MAX} bytes");
                    return Ok(Some((number, Err(BadLine(wrong)))));
                }
            };
            if std::mem::take(&mut self.skip_header) {
                continue;
            }
            let card = self.cells.split(line).and_then(|cells| self.file.card(&cells));
            return Ok(Some((number, card)));
        }
    }
}

impl Iterator for Cards<'_> {
    type Item = io::Result<Numbered>;

    fn next(&mut self) -> Option<Self::Item> {
        self.advance().transpose()
    }
}

/// What a header may call a column.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Column {
    Code,
    /// 卡号: the code, if there is no other.
    Number,
    /// 卡密: the code, or beside one its PIN.
    Secret,
    Pin,
    Face,
    Expires,
}

impl Column {
    fn of(name: &str) -> Option<Column> {
        Some(match name {
            "code" | "cdkey" | "key" | "兑换码" | "激活码" | "券码" => Column::Code,
            "卡号" | "card" | "card_no" | "card no" | "card number" | "number" | "序列号" => {
                Column::Number
            }
            "卡密" | "卡密码" => Column::Secret,
            "密码" | "pin" | "password" => Column::Pin,
            "面值" | "金额" | "face" | "value" | "amount" => Column::Face,
            "有效期" | "有效期至" | "过期时间" | "到期时间" | "expires" | "expiry" | "valid until" => {
                Column::Expires
            }
            _ => return None,
        })
    }
}

/// Parts a line into cells; the buffers are used again and again.
struct Cells {
    form: Form,
    line: Zeroizing<Vec<u8>>,
    text: Zeroizing<Vec<u8>>,
    ends: [usize; COLUMNS_MAX],
}

impl Cells {
    fn new(form: Form) -> Cells {
        let line = Zeroizing::new(Vec::with_capacity(LINE_BYTES_MAX + 1));
        Cells { form, line, text: Zeroizing::new(vec![0; LINE_BYTES_MAX + 1]), ends: [0; COLUMNS_MAX] }
    }

    fn split<'a>(&'a mut self, line: &'a [u8]) -> Result<Vec<&'a [u8]>, BadLine> {
        let Form::Separated(separator) = self.form else { return Ok(vec![line]) };
        // A parser of its own for each line: no quote that is left open reaches into the next.
        let mut parser = csv_core::ReaderBuilder::new().delimiter(separator).build();
        self.line.clear();
        self.line.extend_from_slice(line);
        self.line.push(b'\n');
        let (result, _, _, count) = parser.read_record(&self.line, &mut self.text, &mut self.ends);
        match result {
            ReadRecordResult::Record => {}
            ReadRecordResult::InputEmpty => return Err(BadLine("a quotation mark is left open".to_owned())),
            _ => return Err(BadLine(format!("it has more than {COLUMNS_MAX} columns"))),
        }
        let mut start = 0;
        Ok(self.ends[..count]
            .iter()
            .map(|end| {
                let cell = &self.text[start..*end];
                start = *end;
                cell
            })
            .collect())
    }
}

/// A line that is not read to its end.
struct TooLong;

/// Reads lines of a bounded length; of longer ones the rest is skipped.
struct Lines {
    file: BufReader<File>,
    line: Zeroizing<Vec<u8>>,
    number: u64,
    bytes_read: u64,
}

impl Lines {
    fn open(path: &Path) -> io::Result<Lines> {
        let file = BufReader::with_capacity(256 << 10, File::open(path)?);
        Ok(Lines { file, line: Zeroizing::new(Vec::with_capacity(LINE_BYTES_MAX)), number: 0, bytes_read: 0 })
    }

    #[expect(clippy::type_complexity)]
    fn next(&mut self) -> io::Result<Option<(u64, Result<&[u8], TooLong>)>> {
        self.line.clear();
        let mut too_long = false;
        let mut any = false;
        loop {
            let buffer = match self.file.fill_buf() {
                Ok(buffer) => buffer,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if buffer.is_empty() {
                break;
            }
            any = true;
            let end = buffer.iter().position(|byte| *byte == b'\n');
            let part = &buffer[..end.unwrap_or(buffer.len())];
            if self.line.len() + part.len() <= LINE_BYTES_MAX {
                self.line.extend_from_slice(part);
            } else {
                too_long = true;
            }
            let used = part.len() + usize::from(end.is_some());
            self.file.consume(used);
            self.bytes_read += used as u64;
            if end.is_some() {
                break;
            }
        }
        if !any {
            return Ok(None);
        }
        self.number += 1;
        if too_long {
            return Ok(Some((self.number, Err(TooLong))));
        }
        let mut line = self.line.as_slice();
        if self.number == 1 {
            line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        }
        Ok(Some((self.number, Ok(line.strip_suffix(b"\r").unwrap_or(line)))))
    }
}

/// Says what a file is that is no text.
fn check_text(path: &Path, start: &[u8]) -> Result<(), Failure> {
    let wrong = if start.is_empty() {
        "the card file is empty"
    } else if start.starts_with(b"PK\x03\x04") || start.starts_with(b"\xd0\xcf\x11\xe0") {
        "this is a spreadsheet: save it as CSV (UTF-8) and import that"
    } else if start.starts_with(b"\xff\xfe") || start.starts_with(b"\xfe\xff") {
        "this file is UTF-16: save it as CSV (UTF-8) and import that"
    } else if start.contains(&0) {
        "this is a binary file, not a card file"
    } else {
        return Ok(());
    };
    Err(Failure::refused(format!("{wrong} path=`{}`", path.display())))
}

fn file_failure(path: &Path, error: &io::Error) -> Failure {
    Failure::new(
        Exit::Environment,
        format!("the card file cannot be read path=`{}`: {error}", path.display()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(name: &str, bytes: &[u8]) -> (tempfile::TempDir, Result<CardFile, Failure>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let file = CardFile::open(&path, *b"CNY");
        (dir, file)
    }

    /// What a file holds: `line:code/pin/face/has expiry`, or `line!reason`.
    fn read(name: &str, bytes: impl AsRef<[u8]>) -> String {
        let (_dir, file) = open(name, bytes.as_ref());
        let file = match file {
            Ok(file) => file,
            Err(failure) => return failure.message.split(" path=").next().unwrap().to_owned(),
        };
        let mut shown = Vec::new();
        for line in file.cards().unwrap() {
            shown.push(match line.unwrap() {
                (number, Err(BadLine(wrong))) => format!("{number}!{wrong}"),
                (number, Ok(card)) => {
                    let pin = card.pin.map(|pin| String::from_utf8_lossy(&pin).into_owned());
                    let mut text = format!("{number}:{}", String::from_utf8_lossy(&card.code));
                    text += &pin.map_or(String::new(), |pin| format!("/{pin}"));
                    text += &card.face.map_or(String::new(), |face| format!("/{face}"));
                    text + if card.expires_ms > 0 { "/until" } else { "" }
                }
            });
        }
        shown.join(" ")
    }

    #[test]
    fn files_as_suppliers_send_them() {
        for (name, bytes, expected) in [
            ("a.txt", "AAAA\nBBBB\n", "1:AAAA 2:BBBB"),
            ("a.txt", "\u{feff}AAAA\r\n\r\n BBBB ", "1:AAAA 3:BBBB"),
            ("a.txt", "AA,AA\nBB;BB\n", "1:AA,AA 2:BB;BB"),
            ("a.csv", "AAAA\nBBBB", "1:AAAA 2:BBBB"),
            ("a.csv", "code\nAAAA\n", "2:AAAA"),
            ("a.csv", "AAAA,1234\nBBBB,5678\n", "1:AAAA/1234 2:BBBB/5678"),
            ("a.csv", "AAAA,1234,28.5,2099-12-31\n", "1:AAAA/1234/2850/until"),
            ("a.csv", "卡号,卡密\nAAAA,1234\n", "2:AAAA/1234"),
            ("a.csv", "卡密,面值\nAAAA,100\n", "2:AAAA/10000"),
            (
                "a.csv",
                "\u{feff}卡号;密码;面值;有效期\r\nAAAA;1;5;2099/1/2\r\n",
                "2!its expiry is wrong: it is no date, such as 2027-12-31 or 2027-12-31T18:00:00+08:00",
            ),
            ("a.csv", "\u{feff}卡号;密码;面值;有效期\r\nAAAA;1;5;2099/01/02\r\n", "2:AAAA/1/500/until"),
            ("a.csv", "Face,Note,Code\n,x,AAAA\n7,\"y, z\",\"BB\"\"BB\"\n", "2:AAAA 3:BB\"BB/700"),
            ("a.csv", "code\tpin\nAAAA\t1\n", "2:AAAA/1"),
        ] {
            assert_eq!(read(name, bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn bad_lines_are_told_apart_and_the_rest_goes_on() {
        for (name, bytes, expected) in [
            ("a.txt", "AAA\nBBBB\n", "1!a code has 4 to 128 bytes without spaces, this one has `3` 2:BBBB"),
            ("a.csv", "code,pin\nAAAA\nBBBB,1\n", "2!it has no PIN, or one of more than 255 bytes 3:BBBB/1"),
            (
                "a.csv",
                "code,face\nAAAA\nBBBB,x\n",
                "2!it ends before its face value 3!its face value is wrong: it is no amount, such as 28 or 28.50",
            ),
            ("a.csv", "code,expires\nAAAA,2001-01-01\n", "2!it has expired already"),
            ("a.csv", "code,pin\n\"AAAA,1\nBBBB,2\n", "2!a quotation mark is left open 3:BBBB/2"),
            ("a.csv", "code,pin\n,1\n", "2!it has no code"),
            ("a.csv", "pin,face\n1,2\n", "the header names no column `code` (or 卡号 or 卡密)"),
            ("a.csv", "code,code\n1,2\n", "the header names a column twice: `code`"),
            ("a.csv", "", "the card file is empty"),
            ("a.csv", "\r\n \n", "the card file is empty"),
            ("a.csv", "\u{feff}\n", "the card file is empty"),
            ("a.csv", "PK\u{3}\u{4}abc", "this is a spreadsheet: save it as CSV (UTF-8) and import that"),
            ("a.csv", "AAAA\0BBBB", "this is a binary file, not a card file"),
        ] {
            assert_eq!(read(name, bytes), expected, "{bytes:?}");
        }
        assert_eq!(
            read("a.txt", b"\xc4\xe3\xba\xc3\nBBBB\n"),
            "1!it is not UTF-8 text; save the file as UTF-8 2:BBBB"
        );
        let long = format!("{}\nBBBB\n", "x".repeat(10 << 20));
        assert_eq!(read("a.txt", long), "1!it is longer than 4096 bytes 2:BBBB");
        let wide = format!("{}\nBBBB\n", "x,".repeat(100));
        assert!(read("a.csv", wide).starts_with("1!it has more than 64 columns"));
    }
}
