//! The first worksheet of an .xlsx workbook.
//!
//! The format does not allow reading it piece by piece in bounded memory: its texts stand in a table that
//! any cell may refer to. So the sheet is read once into memory, at most 1,048,576 rows of it, as compact as
//! a text file; [`FILE_BYTES_MAX`], [`UNPACKED_BYTES_MAX`] and [`SHEET_BYTES_MAX`] bound what a workbook may
//! bring. What it unpacks to is measured before anything is kept of it: a few kilobytes may become gigabytes,
//! and what the file itself says about that need not be so. Longer lists come as CSV.
//!
//! A number is kept only as far as a spreadsheet keeps it: with more than fifteen digits it has lost some, and
//! is marked, so that it is never taken for a code. So is one below zero or with a fraction, and a formula
//! whose result the program that wrote the file has left out, or has put down as 0.

use std::io::{self, Read};

use calamine::{DataRef, ExcelDateTime, ExcelDateTimeType, Reader as _, SheetType, SheetVisible, Xlsx};
use zeroize::{Zeroize, Zeroizing};
use zip::ZipArchive;

use super::content::Content;
use super::record::{Broken, COLUMNS_MAX, Cells, Kind, RECORD_BYTES_MAX, Record};

/// The largest workbook that is opened.
pub const FILE_BYTES_MAX: u64 = 256 << 20;
/// What all of a workbook may unpack to.
pub const UNPACKED_BYTES_MAX: u64 = 1 << 30;
/// What its table of texts may unpack to; some bytes of it may take five times as many in memory.
const TEXTS_BYTES_MAX: u64 = 256 << 20;
/// The most rows that a spreadsheet has.
const ROWS_MAX: u32 = 1 << 20;
/// The most text that a sheet may have.
pub const SHEET_BYTES_MAX: usize = 512 << 20;
/// From here on a spreadsheet's number has more than fifteen digits.
const ROUNDED_FROM: f64 = 1e15;

/// A worksheet in memory.
pub struct Sheet {
    /// Which one it is, if there are others.
    pub name: Option<String>,
    text: Zeroizing<Vec<u8>>,
    rows: Vec<Row>,
    cells: Vec<(u16, u16, Kind)>,
}

/// One row that is not empty: where its text and its cells begin.
struct Row {
    /// Its number in the sheet, counted from 1.
    number: u32,
    text: u32,
    cell: u32,
}

impl Sheet {
    /// Reads the first visible worksheet.
    ///
    /// # Errors
    /// What is wrong with the workbook, and what to do.
    pub fn read(content: &Content) -> Result<Sheet, String> {
        let wrong =
            |error: &dyn std::fmt::Display| format!("this is no .xlsx workbook that can be read: {error}");
        if content.length > FILE_BYTES_MAX {
            return Err(
                "a workbook of more than 256 MiB is not opened: save the sheet as CSV (UTF-8)".to_owned()
            );
        }
        measure(content)?;
        let reader = content.reader().map_err(|error| wrong(&error))?;
        let mut book = Xlsx::new(reader).map_err(|error| wrong(&error))?;
        let sheets = book.sheets_metadata();
        let is_sheet = |sheet: &&calamine::Sheet| {
            sheet.typ == SheetType::WorkSheet && sheet.visible == SheetVisible::Visible
        };
        let name = sheets.iter().find(is_sheet).map(|sheet| sheet.name.clone());
        let name = name.ok_or("the workbook has no worksheet")?;
        let others = sheets.iter().filter(is_sheet).count() > 1;
        let mut sheet = Sheet {
            name: others.then(|| name.clone()),
            text: Zeroizing::new(Vec::new()),
            rows: Vec::new(),
            cells: Vec::new(),
        };
        let mut reader = book.worksheet_cells_reader(&name).map_err(|error| wrong(&error))?;
        let mut shown = String::new();
        while let Some(cell) = reader.next_cell_with_formula_metadata().map_err(|error| wrong(&error))? {
            let (row, column) = cell.pos;
            if row >= ROWS_MAX {
                return Err("the worksheet has a row beyond the last that a spreadsheet has".to_owned());
            }
            shown.zeroize();
            let mut kind = show(&cell.value, &mut shown);
            if cell.formula.is_some() && matches!(cell.value, DataRef::Empty) {
                (shown, kind) = ("=".to_owned(), Kind::Formula);
            } else if cell.formula.is_some() && shown == "0" {
                kind = Kind::Formula;
            }
            if !shown.trim().is_empty() {
                sheet.add(row + 1, column as usize, &shown, kind)?;
            }
        }
        shown.zeroize();
        Ok(sheet)
    }

    fn add(&mut self, number: u32, column: usize, text: &str, kind: Kind) -> Result<(), String> {
        // Beyond the last column that is looked at, a cell only makes the row too wide.
        let column = column.min(COLUMNS_MAX);
        if self.rows.last().is_none_or(|row| row.number != number) {
            self.rows.push(Row { number, text: self.text.len() as u32, cell: self.cells.len() as u32 });
        }
        let row = self.rows.last().expect("there is one now");
        let at = self.text.len() - row.text as usize;
        if self.cells.len() - row.cell as usize > column.min(COLUMNS_MAX - 1) {
            // Two cells beyond the last column are as good as one.
            return if column == COLUMNS_MAX {
                Ok(())
            } else {
                Err("the worksheet's cells are not in order".to_owned())
            };
        }
        // Too long is too long, wherever it ends; it is told when the row is read.
        let text = &text.as_bytes()[..text.len().min(RECORD_BYTES_MAX + 1)];
        if self.text.len() + text.len() > SHEET_BYTES_MAX {
            return Err("the worksheet has more than 512 MiB of text: save it as CSV (UTF-8)".to_owned());
        }
        while self.cells.len() - (row.cell as usize) < column {
            self.cells.push((at.min(usize::from(u16::MAX)) as u16, 0, Kind::Text));
        }
        if self.text.len() + text.len() > self.text.capacity() {
            // Grown by hand: a reallocation inside Vec would leave codes behind unwiped.
            let room = (2 * self.text.capacity()).max(1 << 20).max(self.text.len() + text.len());
            let mut grown = Zeroizing::new(Vec::with_capacity(room));
            grown.extend_from_slice(&self.text);
            self.text = grown;
        }
        if at + text.len() <= RECORD_BYTES_MAX {
            self.cells.push((at as u16, text.len() as u16, kind));
        } else {
            // More than a record: marked by a cell that ends beyond it.
            self.cells.push((0, u16::MAX, kind));
        }
        self.text.extend_from_slice(text);
        Ok(())
    }

    /// How many rows are not empty.
    pub const fn len(&self) -> usize {
        self.rows.len()
    }

    /// A row, with `cells` to say where its cells are.
    pub fn record<'a>(&'a self, row: usize, cells: &'a mut Cells) -> Result<Record<'a>, Broken> {
        let this = &self.rows[row];
        let next = self.rows.get(row + 1);
        let text_end = next.map_or(self.text.len(), |next| next.text as usize);
        let cells_end = next.map_or(self.cells.len(), |next| next.cell as usize);
        let line = u64::from(this.number);
        cells.clear();
        for &(start, length, kind) in &self.cells[this.cell as usize..cells_end] {
            if length == u16::MAX {
                return Err(Broken { line, why: "it is longer than 4096 bytes" });
            }
            let start = usize::from(start);
            if !cells.push(start, start + usize::from(length)) {
                return Err(Broken { line, why: "it has more than 64 columns" });
            }
            cells.mark(kind);
        }
        Ok(Record::new(line, &self.text[this.text as usize..text_end], cells))
    }
}

/// That the workbook unpacks to no more than it may, and is whole.
fn measure(content: &Content) -> Result<(), String> {
    let wrong =
        |error: &dyn std::fmt::Display| format!("this is no .xlsx workbook that can be read: {error}");
    let too_large = || {
        "the workbook unpacks to more than a list of cards has (1 GiB, or 256 MiB of different texts): save the \
         sheet as CSV (UTF-8)"
            .to_owned()
    };
    let reader = content.reader().map_err(|error| wrong(&error))?;
    let mut archive = ZipArchive::new(reader).map_err(|error| wrong(&error))?;
    let mut left = UNPACKED_BYTES_MAX;
    for entry in 0..archive.len() {
        let mut entry = archive.by_index(entry).map_err(|error| wrong(&error))?;
        let name = entry.name().map_err(|error| wrong(&error))?.to_ascii_lowercase();
        let is_texts = name.ends_with("sharedstrings.xml");
        let most = if is_texts { left.min(TEXTS_BYTES_MAX) } else { left };
        let mut head = Vec::new();
        // Read to its end, which settles its checksum, too.
        let mut unpacked = (&mut entry).take(most + 1);
        let read = io::Read::take(&mut unpacked, HEAD_BYTES).read_to_end(&mut head);
        let read = read.and_then(|head| Ok(head as u64 + io::copy(&mut unpacked, &mut io::sink())?));
        let read = read.map_err(|error| wrong(&error))?;
        // Room is made for as many texts as it says there are; the shortest takes five bytes.
        if read > most || is_texts && texts(&head) > read / 5 {
            return Err(too_large());
        }
        left -= read;
    }
    Ok(())
}

/// How much of the table of texts is looked at for their number.
const HEAD_BYTES: u64 = 4096;

/// How many texts the beginning of their table announces.
fn texts(head: &[u8]) -> u64 {
    const NAME: &[u8] = b"uniqueCount";
    let Some(at) = memchr::memmem::find(head, NAME) else { return 0 };
    let number = head[at + NAME.len()..].iter().skip_while(|byte| !byte.is_ascii_digit());
    number
        .take_while(|byte| byte.is_ascii_digit())
        .fold(0, |number: u64, digit| number.saturating_mul(10).saturating_add(u64::from(digit - b'0')))
}

/// Writes a cell as text.
fn show(value: &DataRef<'_>, out: &mut String) -> Kind {
    use std::fmt::Write;
    // Writing to memory does not fail.
    match value {
        DataRef::Empty => {}
        DataRef::String(text) | DataRef::DateTimeIso(text) | DataRef::DurationIso(text) => out.push_str(text),
        DataRef::SharedString(text) => out.push_str(text),
        DataRef::Int(number) => {
            let _ = write!(out, "{number}");
            if number.unsigned_abs() >= ROUNDED_FROM as u64 {
                return Kind::Rounded;
            }
            if *number < 0 {
                return Kind::Fraction;
            }
        }
        DataRef::Float(number) => {
            let _ = write!(out, "{number}");
            if number.abs() >= ROUNDED_FROM || !number.is_finite() {
                return Kind::Rounded;
            }
            if number.is_sign_negative() || number.fract() != 0.0 {
                return Kind::Fraction;
            }
        }
        DataRef::DateTime(date) => {
            write_date(date, out);
            return Kind::Date;
        }
        DataRef::Bool(_) | DataRef::Error(_) => {
            let _ = write!(out, "{value:?}");
            return Kind::NoText;
        }
    }
    Kind::Text
}

/// `2027-12-31`, or with a time if there is one.
fn write_date(date: &ExcelDateTime, out: &mut String) {
    use std::fmt::Write;
    let (year, month, day, hour, minute, second, _) = date.to_ymd_hms_milli();
    let _ = write!(out, "{year:04}-{month:02}-{day:02}");
    if (hour, minute, second) != (0, 0, 0) {
        let _ = write!(out, " {hour:02}:{minute:02}:{second:02}");
    }
}

/// The date that a spreadsheet means by a bare number: days since the end of 1899, as it shows them in a cell
/// that is no date. `None` if it is none of the years 1980 to 2118.
pub fn date_of_serial(text: &str) -> Option<String> {
    let days: f64 = text.parse().ok()?;
    if !(29_221.0..80_000.0).contains(&days) {
        return None;
    }
    let mut shown = String::new();
    write_date(&ExcelDateTime::new(days, ExcelDateTimeType::DateTime, false), &mut shown);
    Some(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_number_may_be_a_date() {
        assert_eq!(date_of_serial("46752").as_deref(), Some("2027-12-31"));
        assert_eq!(date_of_serial("46752.75").as_deref(), Some("2027-12-31 18:00:00"));
        for text in ["", "20271231", "2027", "x", "-46752", "NaN"] {
            assert_eq!(date_of_serial(text), None, "{text}");
        }
    }

    #[test]
    fn numbers_keep_their_digits_or_are_marked() {
        let shown = |value| {
            let mut text = String::new();
            let kind = show(&value, &mut text);
            (text, kind)
        };
        assert_eq!(shown(DataRef::Float(123_456_789_012_345.0)), ("123456789012345".to_owned(), Kind::Text));
        assert_eq!(shown(DataRef::Float(28.5)), ("28.5".to_owned(), Kind::Fraction));
        assert_eq!(shown(DataRef::Float(-28.0)).1, Kind::Fraction);
        assert_eq!(shown(DataRef::Int(-28)).1, Kind::Fraction);
        assert_eq!(shown(DataRef::Float(1_234_567_890_123_456.0)).1, Kind::Rounded);
        assert_eq!(shown(DataRef::Float(1.5e300)).1, Kind::Rounded);
        assert_eq!(shown(DataRef::Int(9_007_199_254_740_993)).1, Kind::Rounded);
        assert_eq!(shown(DataRef::Bool(true)).1, Kind::NoText);
        let date = ExcelDateTime::new(46752.0, ExcelDateTimeType::DateTime, false);
        assert_eq!(shown(DataRef::DateTime(date)), ("2027-12-31".to_owned(), Kind::Date));
    }
}
