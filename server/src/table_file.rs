//! Tables as files for spreadsheets: CSV and XLSX.
//!
//! # Invariants
//! * **No cell becomes a formula.** Product names and labels come from whoever adds them, and a spreadsheet that opens
//!   a CSV file runs a cell that begins with `=`. Text that could be one is written with an apostrophe before it in
//!   CSV; in XLSX text is text by its type. Numbers and amounts are written as such, negative ones too.
//! * Rows go to the disk as they come, so a table of any length takes no memory.
//! * The file appears whole, under its name, or not at all; a file that is there is not written over (`new_file.rs`).

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use kami_engine::Money;
use rust_xlsxwriter::{Format, Workbook, XlsxError};

use crate::exit::Failure;
use crate::money;
use crate::new_file::{NewFile, Readers};

/// Options of commands whose result may go to a file.
#[derive(Args)]
#[group(multiple = false)]
pub struct TableOptions {
    /// Write the table to a CSV file: UTF-8, with a mark that spreadsheets know it by.
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Write the table to a file for Excel.
    #[arg(long, value_name = "FILE")]
    xlsx: Option<PathBuf>,
}

impl TableOptions {
    /// Begins the file that was asked for, if one was.
    ///
    /// # Errors
    /// If it is there already or cannot be written.
    pub fn create(&self, header: &[&str]) -> Result<Option<TableFile>, Failure> {
        match (&self.csv, &self.xlsx) {
            (Some(path), _) => TableFile::create(path, Kind::Csv, header).map(Some),
            (_, Some(path)) => TableFile::create(path, Kind::Xlsx, header).map(Some),
            _ => Ok(None),
        }
    }
}

/// What stands in a cell.
#[derive(Clone, Copy, Debug)]
pub enum Cell<'a> {
    /// Words, from wherever they come.
    Text(&'a str),
    /// A number, at most 2^53.
    Number(u64),
    /// An amount in minor units of a currency.
    Amount(Money, [u8; 3]),
}

#[derive(Clone, Copy)]
enum Kind {
    Csv,
    Xlsx,
}

/// A table that is being written.
pub struct TableFile {
    path: PathBuf,
    out: NewFile,
    /// Of a table for Excel: what becomes its content. Boxed: it is ten times the size of the rest.
    workbook: Option<Box<Workbook>>,
    rows: u32,
}

/// Rows of a worksheet, the header's included: what Excel opens.
const XLSX_ROWS_MAX: u32 = 1_048_576;
/// From here on a number of a worksheet is not exact.
const EXACT_MAX: u64 = 1 << 53;

impl TableFile {
    fn create(path: &Path, kind: Kind, header: &[&str]) -> Result<TableFile, Failure> {
        let out = NewFile::create("the table", path, Readers::AsUsual)?;
        let workbook = match kind {
            Kind::Csv => None,
            Kind::Xlsx => {
                let mut workbook = Box::new(Workbook::new());
                workbook.add_worksheet_with_constant_memory().map_err(|error| failure(path, &error))?;
                Some(workbook)
            }
        };
        let mut table = TableFile { path: path.to_owned(), out, workbook, rows: 0 };
        if table.workbook.is_none() {
            table.out.write_all("\u{feff}".as_bytes()).map_err(|error| failure(path, &error))?;
        }
        let header: Vec<Cell<'_>> = header.iter().map(|name| Cell::Text(name)).collect();
        table.row(&header)?;
        Ok(table)
    }

    /// Adds a row.
    ///
    /// # Errors
    /// If the disk or the worksheet is full.
    pub fn row(&mut self, cells: &[Cell<'_>]) -> Result<(), Failure> {
        let row = self.rows;
        self.rows += 1;
        match &mut self.workbook {
            None => csv_row(&mut self.out, cells).map_err(|error| failure(&self.path, &error)),
            Some(_) if row == XLSX_ROWS_MAX => {
                Err(Failure::refused(format!("a worksheet holds {XLSX_ROWS_MAX} rows at most: use --csv")))
            }
            Some(workbook) => xlsx_row(workbook, row, cells).map_err(|error| failure(&self.path, &error)),
        }
    }

    /// Completes the file and gives it its name. Returns how many rows it has beside the header.
    ///
    /// # Errors
    /// If the disk is full; the file is gone then.
    pub fn finish(mut self) -> Result<u64, Failure> {
        if let Some(mut workbook) = self.workbook.take() {
            let bytes = workbook.save_to_buffer().map_err(|error| failure(&self.path, &error))?;
            self.out.write_all(&bytes).map_err(|error| failure(&self.path, &error))?;
        }
        self.out.finish()?;
        Ok(u64::from(self.rows) - 1)
    }
}

fn failure(path: &Path, error: &dyn std::fmt::Display) -> Failure {
    Failure::environment(format!("the table cannot be written path=`{}`: {error}", path.display()))
}

fn csv_row(out: &mut impl Write, cells: &[Cell<'_>]) -> io::Result<()> {
    for (at, cell) in cells.iter().enumerate() {
        if at > 0 {
            out.write_all(b",")?;
        }
        match cell {
            Cell::Text(text) => {
                let guard = if is_formula(text) { "'" } else { "" };
                if !guard.is_empty() || text.contains([',', '"', '\r', '\n']) {
                    write!(out, "\"{guard}{}\"", text.replace('"', "\"\""))?;
                } else {
                    out.write_all(text.as_bytes())?;
                }
            }
            Cell::Number(number) => write!(out, "{number}")?,
            Cell::Amount(amount, currency) => out.write_all(money::show(*amount, *currency).as_bytes())?,
        }
    }
    out.write_all(b"\r\n")
}

/// Whether a spreadsheet might take text for a formula: by its first character, half or full width, or by one that
/// makes it look for another cell to begin.
fn is_formula(text: &str) -> bool {
    text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠'])
}

fn xlsx_row(workbook: &mut Workbook, row: u32, cells: &[Cell<'_>]) -> Result<(), XlsxError> {
    let sheet = workbook.worksheet_from_index(0)?;
    for (column, cell) in (0..).zip(cells) {
        match cell {
            Cell::Text(text) => sheet.write_string(row, column, *text)?,
            Cell::Number(number) => sheet.write_number(row, column, *number as f64)?,
            Cell::Amount(amount, currency) if amount.unsigned_abs() < EXACT_MAX => {
                let shown = money::show(*amount, *currency);
                let digits = shown.split_once('.').map_or(0, |(_, digits)| digits.len());
                let format = if digits == 0 { "0".to_owned() } else { format!("0.{}", "0".repeat(digits)) };
                let amount = *amount as f64 / 10_f64.powi(digits as i32);
                sheet.write_number_with_format(row, column, amount, &Format::new().set_num_format(format))?
            }
            // Every digit counts, so rather no number than another one.
            Cell::Amount(amount, currency) => {
                sheet.write_string(row, column, money::show(*amount, *currency))?
            }
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use calamine::{Data, Reader, Xlsx, open_workbook};

    use super::*;

    const HOSTILE: [&str; 8] =
        ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "＝1+1", "=cmd|' /C calc'!A0", "a,\"b\"\r\nc"];

    fn written(kind: Kind, name: &str) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(name);
        let mut table = TableFile::create(&path, kind, &["what", "number", "amount"]).unwrap();
        for text in HOSTILE {
            table.row(&[Cell::Text(text), Cell::Number(7), Cell::Amount(-2850, *b"CNY")]).unwrap();
        }
        table.row(&[Cell::Text("咖啡"), Cell::Number(0), Cell::Amount(i64::MAX, *b"JPY")]).unwrap();
        assert!(!path.exists(), "not before it is whole");
        assert_eq!(table.finish().unwrap(), 9);
        let left: Vec<_> = fs::read_dir(directory.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "nothing else is left");
        (directory, path)
    }

    #[test]
    fn no_cell_of_a_csv_file_is_a_formula() {
        let (_directory, path) = written(Kind::Csv, "t.csv");
        let text = fs::read_to_string(&path).unwrap();
        let mut lines = text.strip_prefix('\u{feff}').unwrap().split("\r\n");
        assert_eq!(lines.next(), Some("what,number,amount"));
        assert_eq!(lines.next(), Some("\"'=1+1\",7,-28.50"));
        assert!(text.contains("\r\n\"a,\"\"b\"\"\r\nc\",7,-28.50\r\n"));
        assert!(text.ends_with("\r\n咖啡,0,9223372036854775807\r\n"));
        // As a parser sees it: every text cell begins with something harmless.
        let mut reader = csv::Reader::from_reader(text.trim_start_matches('\u{feff}').as_bytes());
        for (record, hostile) in reader.records().zip(HOSTILE) {
            let record = record.unwrap();
            assert!(!is_formula(&record[0]), "{:?}", &record[0]);
            assert_eq!(record[0].trim_start_matches('\''), hostile);
        }
    }

    #[test]
    fn no_cell_of_a_worksheet_is_a_formula() {
        let (_directory, path) = written(Kind::Xlsx, "t.xlsx");
        let mut book: Xlsx<_> = open_workbook(&path).unwrap();
        let sheet = book.sheet_names()[0].clone();
        assert!(book.worksheet_formula(&sheet).unwrap().is_empty());
        let range = book.worksheet_range(&sheet).unwrap();
        for (row, hostile) in (1..).zip(HOSTILE) {
            // Excel's files keep a line's end as one character.
            let text = range.get_value((row, 0)).unwrap().to_string().replace("_x000D_", "");
            assert_eq!(text.replace('\r', ""), hostile.replace('\r', ""));
            assert_eq!(range.get_value((row, 2)), Some(&Data::Float(-28.5)));
        }
        assert_eq!(range.get_value((9, 2)), Some(&Data::String("9223372036854775807".to_owned())));
    }

    #[test]
    fn a_file_that_is_there_stays_as_it_is() {
        let (_directory, path) = written(Kind::Csv, "t.csv");
        let before = fs::read(&path).unwrap();
        assert!(TableFile::create(&path, Kind::Xlsx, &["x"]).is_err());
        // Nor if it comes while the table is written.
        let other = path.with_file_name("other.csv");
        let table = TableFile::create(&other, Kind::Csv, &["x"]).unwrap();
        fs::write(&other, "mine").unwrap();
        assert!(table.finish().is_err());
        assert_eq!(fs::read_to_string(&other).unwrap(), "mine");
        assert_eq!(fs::read(&path).unwrap(), before);
    }
}
