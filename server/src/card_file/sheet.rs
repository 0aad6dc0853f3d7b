//! The first worksheet of an .xlsx workbook.
//!
//! The format does not allow reading it piece by piece in bounded memory: its texts stand in a table that
//! any cell may refer to. So the sheet is read once into memory, at most 1,048,576 rows of it, as compact as
//! a text file; [`FILE_BYTES_MAX`] and [`SHEET_BYTES_MAX`] bound what a workbook may bring. Longer lists
//! come as CSV.
//!
//! A number is kept only as far as a spreadsheet keeps it: with more than fifteen digits it has lost some, and
//! is marked, so that it is never taken for a code.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use calamine::{DataRef, ExcelDateTime, ExcelDateTimeType, Reader, SheetType, SheetVisible, Xlsx};
use zeroize::{Zeroize, Zeroizing};

use super::record::{Broken, COLUMNS_MAX, Cells, Kind, RECORD_BYTES_MAX, Record};

/// The largest workbook that is opened.
pub const FILE_BYTES_MAX: u64 = 256 << 20;
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
    pub fn read(path: &Path) -> Result<Sheet, String> {
        let wrong =
            |error: &dyn std::fmt::Display| format!("this is no .xlsx workbook that can be read: {error}");
        let file = File::open(path).map_err(|error| wrong(&error))?;
        let bytes = file.metadata().map_err(|error| wrong(&error))?.len();
        if bytes > FILE_BYTES_MAX {
            return Err(
                "a workbook of more than 256 MiB is not opened: save the sheet as CSV (UTF-8)".to_owned()
            );
        }
        let mut book = Xlsx::new(BufReader::new(file)).map_err(|error| wrong(&error))?;
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
        while let Some(cell) = reader.next_cell().map_err(|error| wrong(&error))? {
            let (row, column) = cell.get_position();
            shown.zeroize();
            let kind = show(cell.get_value(), &mut shown);
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
        }
        DataRef::Float(number) => {
            let _ = write!(out, "{number}");
            if number.abs() >= ROUNDED_FROM || !number.is_finite() {
                return Kind::Rounded;
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
        assert_eq!(shown(DataRef::Float(28.5)), ("28.5".to_owned(), Kind::Text));
        assert_eq!(shown(DataRef::Float(1_234_567_890_123_456.0)).1, Kind::Rounded);
        assert_eq!(shown(DataRef::Float(1.5e300)).1, Kind::Rounded);
        assert_eq!(shown(DataRef::Int(9_007_199_254_740_993)).1, Kind::Rounded);
        assert_eq!(shown(DataRef::Bool(true)).1, Kind::NoText);
        let date = ExcelDateTime::new(46752.0, ExcelDateTimeType::DateTime, false);
        assert_eq!(shown(DataRef::DateTime(date)), ("2027-12-31".to_owned(), Kind::Date));
    }
}
