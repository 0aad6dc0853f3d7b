//! The report on a card file: every line that is not imported, with its number and the reason.
//!
//! Codes are shown by their last characters only. The file is read once more for it, because nothing of it
//! was kept.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use kami_engine::Duplicate;

use crate::card_file::{BadLine, CardFile};
use crate::code;
use crate::exit::Failure;
use crate::output::{count, note};

/// Lines shown on standard error; the report has all.
const SHOWN_MAX: u64 = 20;

/// Lists the bad lines of the file and those of `duplicates`, which are in order of row.
pub fn report(file: &CardFile, duplicates: &[Duplicate], path: Option<&Path>) -> Result<(), Failure> {
    let mut faults = Faults::new(path)?;
    // Lines of rows that come again further down.
    let in_file = duplicates.iter().filter(|duplicate| duplicate.batch.is_none());
    let mut lines: HashMap<u64, u64> = in_file.map(|duplicate| (duplicate.other_row, 0)).collect();
    let mut duplicates: VecDeque<Duplicate> = duplicates.iter().copied().collect();
    let mut cards = file.cards().map_err(read_failure)?;
    let mut row = 0;
    while let Some(line) = cards.next().map_err(read_failure)? {
        let reason = match line.card {
            Err(BadLine(wrong)) => wrong,
            Ok(_) => {
                let this = row;
                row += 1;
                if let Some(first) = lines.get_mut(&this) {
                    *first = line.number;
                }
                let Some(duplicate) = duplicates.pop_front_if(|duplicate| duplicate.row == this) else {
                    continue;
                };
                match duplicate.batch {
                    Some(Duplicate::ELSEWHERE) => "its code is known already".to_owned(),
                    Some(batch) => format!("its code is there already, in batch {batch}"),
                    None => {
                        let first = lines.get(&duplicate.other_row).copied().unwrap_or_default();
                        format!("it has the same code as line {first}")
                    }
                }
            }
        };
        faults.add(line.number, &reason, line.code)?;
    }
    faults.end()
}

struct Faults {
    count: u64,
    report: Option<BufWriter<File>>,
}

impl Faults {
    fn new(path: Option<&Path>) -> Result<Faults, Failure> {
        let create = |path: &Path| -> Result<_, Failure> {
            let file = File::create(path).map_err(|error| {
                Failure::environment(format!(
                    "the report cannot be written path=`{}`: {error}",
                    path.display()
                ))
            })?;
            let mut report = BufWriter::new(file);
            // A byte-order mark: spreadsheets take a file for another encoding without it.
            report.write_all("\u{feff}line,reason,code\n".as_bytes()).map_err(report_failure)?;
            Ok(report)
        };
        Ok(Faults { count: 0, report: path.map(create).transpose()? })
    }

    fn add(&mut self, line: u64, reason: &str, code: &[u8]) -> Result<(), Failure> {
        self.count += 1;
        let code = if code.is_empty() { String::new() } else { code::mask(code) };
        if self.count <= SHOWN_MAX {
            note(&format!("line {line}: {reason}"));
        }
        match &mut self.report {
            Some(report) => {
                let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
                writeln!(report, "{line},{},{}", quoted(reason), quoted(&code)).map_err(report_failure)
            }
            None => Ok(()),
        }
    }

    fn end(mut self) -> Result<(), Failure> {
        if let Some(report) = &mut self.report {
            report.flush().map_err(report_failure)?;
        }
        if self.count > SHOWN_MAX {
            let hint = if self.report.is_some() { "" } else { "; --report FILE lists all" };
            eprintln!("… and {} more lines{hint}", count(self.count - SHOWN_MAX));
        }
        Ok(())
    }
}

fn report_failure(error: io::Error) -> Failure {
    Failure::environment(format!("the report cannot be written: {error}"))
}

pub fn read_failure(error: io::Error) -> Failure {
    Failure::environment(format!("the card file cannot be read: {error}"))
}
