//! What parts the cells of a text file, by its first records.
//!
//! A guess that is wrong makes wrong cards: a PIN that is glued to its code, or a code that is cut. So what
//! parts more than half of the first records into equally many cells is taken, if it is the only thing that
//! does it as well; if nothing does, a line is a code; and in all other cases the person is asked.

use std::io;

use zeroize::Zeroizing;

use super::record::{Broken, COLUMNS_MAX, Form, TOO_WIDE};

/// Records that are looked at to see what a file is.
pub const SAMPLE_RECORDS: usize = 20;

/// One of the first records.
pub struct Row {
    /// The line it begins on, counted from 1.
    pub line: u64,
    /// Its cells, without the white space around them.
    pub cells: Vec<Zeroizing<String>>,
}

/// The first records.
pub type Sample = Vec<Result<Row, Broken>>;

/// What is found out by itself. Blanks and colons are not: they stand in codes and in times, too.
const FOUND: [Form; 5] = [
    Form::Separated(b','),
    Form::Separated(b'\t'),
    Form::Separated(b';'),
    Form::Separated(b'|'),
    Form::Dashes,
];

/// Names on the command line.
const NAMES: [(&str, Form); 8] = [
    ("none", Form::OneCodeALine),
    ("comma", Form::Separated(b',')),
    ("tab", Form::Separated(b'\t')),
    ("semicolon", Form::Separated(b';')),
    ("bar", Form::Separated(b'|')),
    ("colon", Form::Separated(b':')),
    ("dashes", Form::Dashes),
    ("space", Form::Blanks),
];

impl Form {
    /// By its name: `none`, `comma`, `tab`, `semicolon`, `bar`, `colon`, `dashes` or `space`.
    ///
    /// # Errors
    /// If it is none of these.
    pub fn parse(text: &str) -> Result<Form, String> {
        let found = NAMES.iter().find(|(name, _)| text.eq_ignore_ascii_case(name));
        found.map(|(_, form)| *form).ok_or_else(|| {
            "it is none of none, comma, tab, semicolon, bar, colon, dashes (----) and space".to_owned()
        })
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(_, form)| *form == self).map_or("none", |(name, _)| name)
    }
}

/// How well something parts the first records.
struct Match {
    form: Form,
    /// Records of those that are parted into equally many cells, and all.
    records: usize,
    all: usize,
    cells: usize,
}

/// Finds out what parts the file's cells; `sample` reads its first records as if it were that.
///
/// # Errors
/// If it cannot be read; inside, what is unclear and how to make it clear.
pub fn find(mut sample: impl FnMut(Form) -> io::Result<Sample>) -> io::Result<Result<Form, String>> {
    let mut found: Vec<Match> = Vec::new();
    for form in FOUND {
        let sample = sample(form)?;
        let widths: Vec<usize> = sample.iter().map(width).collect();
        let records = |cells: usize| widths.iter().filter(|width| **width == cells).count();
        let best = widths.iter().filter(|cells| **cells > 1).map(|cells| (records(*cells), *cells)).max();
        if let Some((records, cells)) = best {
            found.push(Match { form, records, all: widths.len(), cells });
        }
    }
    // How many of a hundred, so that forms with records over several lines compare with others.
    let share = |found: &Match| found.records * 100 / found.all.max(1);
    found.sort_by_key(|found| std::cmp::Reverse(share(found)));
    Ok(match found.as_slice() {
        [] => Ok(Form::OneCodeALine),
        [best, ..] if 2 * best.records <= best.all => Err(format!(
            "its lines are not parted alike: of the first {}, {} are parted by {} into {} cells and the others \
             are not; remove what is no card, or say --separator",
            best.all,
            best.records,
            best.form.name(),
            best.cells
        )),
        [best, second, ..] if share(best) == share(second) => Err(format!(
            "its lines may be parted by {} or by {}; --separator says which",
            best.form.name(),
            second.form.name()
        )),
        [best, ..] => Ok(best.form),
    })
}

/// How many cells a record has.
fn width(row: &Result<Row, Broken>) -> usize {
    match row {
        Ok(row) => row.cells.len(),
        Err(broken) if broken.why == TOO_WIDE => COLUMNS_MAX + 1,
        Err(_) => 0,
    }
}
