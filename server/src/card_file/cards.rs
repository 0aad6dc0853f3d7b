//! A pass over the cards of a file, in order, as often as somebody needs one.

use std::io;

use encoding_rs::Encoding;

use super::card::{BadLine, Card, Memory};
use super::content::Content;
use super::record::{Broken, Cells, Record, Records};
use super::sheet::Sheet;
use super::text::Text;
use super::{CardFile, Form};

/// A line of the file that is not empty.
pub struct Line<'a> {
    /// Its number, counted from 1; in a worksheet the row's.
    pub number: u64,
    /// The card, or what is wrong.
    pub card: Result<Card<'a>, BadLine>,
    /// The code as it stands there, or as much as there is of it.
    pub code: &'a [u8],
}

/// The lines of a card file that are not empty.
pub struct Cards<'a> {
    file: &'a CardFile,
    records: AnyRecords<'a>,
    skip_header: bool,
    memory: Memory,
}

impl<'a> Cards<'a> {
    /// The cards of `records`, without the first if that is a header.
    pub(super) fn over(file: &'a CardFile, records: AnyRecords<'a>, skip_header: bool) -> Cards<'a> {
        Cards { file, records, skip_header, memory: Memory::default() }
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

/// The records of a file, whatever it is.
pub(super) enum AnyRecords<'a> {
    Text(Box<Records<'a>>),
    Sheet { sheet: &'a Sheet, next: usize, cells: Box<Cells> },
}

impl<'a> AnyRecords<'a> {
    pub(super) fn text(
        content: &'a Content,
        encoding: &'static Encoding,
        form: Form,
    ) -> io::Result<AnyRecords<'a>> {
        Ok(AnyRecords::Text(Box::new(Records::new(Text::open(content, encoding)?, form))))
    }

    #[inline]
    pub(super) fn next(&mut self) -> io::Result<Option<Result<Record<'_>, Broken>>> {
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
