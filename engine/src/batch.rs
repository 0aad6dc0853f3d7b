//! Batch files: the immutable rows of one import.
//!
//! Bulk data never passes through the log. An import writes its rows here, hashes and syncs the file,
//! and then one log record commits it. A file without that record is an orphan of a crashed import and
//! is removed at the next start.
//!
//! The file is a header block and then whole columns, so that rebuilding the index reads the digests
//! and nothing else, and so that a row's place follows from its number. The columns are laid out for the
//! rows that were announced, because rows are written as they come; if some were left out as duplicates,
//! there is a hole behind each column but the last, and the file ends with the last row.
//!
//! | at | bytes | what |
//! |---|---|---|
//! | 0 | 4096 | header, see [`HEADER_FIELDS`] |
//! | 4096 | 16 a place | keyed digest |
//! | | stride a place | sealed code: one length byte, the code, zeros, 16 bytes of tag |
//! | | 16 a place | PIN digest, if the batch has PINs |
//! | | 8 a place | face value in minor units, if the batch has faces |
//! | | 8 a place | end of validity, milliseconds since 1970, 0 the batch's, if the batch has expiries |
//! | | 48 a place | what it was in the system it comes from, if the batch says so: see [`Origin`](crate::origin) |

use std::io;

use kami_wal::{File, Medium};

use crate::import::ImportSpec;
use crate::origin::ORIGIN_BYTES;
use crate::record::Field;
use crate::sync::coarse::Mutex;
use crate::vault::TAG_BYTES;

/// Bytes before the first column.
pub const HEADER_BYTES: u64 = 4096;
/// Bytes of a digest, and of a PIN digest.
pub const DIGEST_BYTES: usize = 16;
/// How many columns there can be.
pub const COLUMNS: usize = 6;
/// The column of what the rows were in the system they come from.
pub const ORIGINS: usize = 5;
/// The directory of the batch files.
pub const DIRECTORY: &str = "batches";

const MAGIC: &[u8; 8] = b"KAMIBTCH";
const VERSION: u32 = 1;

/// The layout of a batch file's header.
pub const HEADER_FIELDS: &[Field] = &[
    (0, 8, "magic", "\"KAMIBTCH\""),
    (8, 4, "version", "1"),
    (12, 4, "batch", "its number"),
    (16, 8, "store", "the store's id"),
    (24, 8, "rows", "how many"),
    (32, 8, "key", "id of the data key in the ring"),
    (40, 1, "code bytes", "the longest code; the sealed cell has 17 more"),
    (41, 1, "columns", "bit 0 PINs, bit 1 faces, bit 2 expiries, bit 3 origins"),
    (42, 6, "reserved", "zero"),
    (
        48,
        8,
        "places",
        "how many rows each column has room for, if more than `rows`: the rest are holes; else 0",
    ),
    (56, 8, "reserved", "zero"),
    (64, 32, "hash", "BLAKE3 of bytes 0 to 63"),
    (96, 4000, "reserved", "zero"),
];

/// Where everything in a batch file lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The batch's number.
    pub batch: u32,
    /// The store's id.
    pub store: u64,
    /// How many rows.
    pub rows: u64,
    /// How many rows each column has room for, at least `rows`.
    pub places: u64,
    /// Which data key sealed the codes.
    pub key: u64,
    /// The longest code.
    pub code_bytes_max: u8,
    /// Whether there are PINs.
    pub pins: bool,
    /// Whether there are faces.
    pub faces: bool,
    /// Whether there are expiries.
    pub expiries: bool,
    /// Whether rows say what they were in the system they come from.
    pub origins: bool,
}

impl Layout {
    /// The layout of a new batch.
    #[must_use]
    pub fn new(batch: u32, store: u64, key: u64, spec: &ImportSpec) -> Layout {
        Layout {
            batch,
            store,
            rows: spec.rows,
            places: spec.rows,
            key,
            code_bytes_max: spec.code_bytes_max,
            pins: spec.pins,
            faces: spec.faces,
            expiries: spec.expiries,
            origins: spec.origins,
        }
    }

    /// The file of a batch number.
    #[must_use]
    pub fn path(batch: u32) -> String {
        format!("{DIRECTORY}/{batch:08}.batch")
    }

    /// Bytes of a sealed code.
    #[must_use]
    pub fn stride(&self) -> usize {
        1 + usize::from(self.code_bytes_max) + TAG_BYTES
    }

    /// Bytes of one row in each column, in file order; zero for a column that is not there.
    #[must_use]
    pub fn widths(&self) -> [usize; COLUMNS] {
        let if_there = |there: bool, width: usize| if there { width } else { 0 };
        [
            DIGEST_BYTES,
            self.stride(),
            if_there(self.pins, DIGEST_BYTES),
            if_there(self.faces, 8),
            if_there(self.expiries, 8),
            if_there(self.origins, ORIGIN_BYTES),
        ]
    }

    /// Where the cell of `row` in column `column` begins.
    #[must_use]
    pub fn cell(&self, column: usize, row: u64) -> u64 {
        let widths = self.widths();
        let before: usize = widths[..column].iter().sum();
        HEADER_BYTES + before as u64 * self.places + widths[column] as u64 * row
    }

    /// The file's length.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        let last = self.widths().iter().rposition(|width| *width > 0).expect("there are always digests");
        self.cell(last, self.rows)
    }

    /// The header block.
    #[must_use]
    pub fn header(&self) -> [u8; HEADER_BYTES as usize] {
        let mut header = [0; HEADER_BYTES as usize];
        header[0..8].copy_from_slice(MAGIC);
        header[8..12].copy_from_slice(&VERSION.to_le_bytes());
        header[12..16].copy_from_slice(&self.batch.to_le_bytes());
        header[16..24].copy_from_slice(&self.store.to_le_bytes());
        header[24..32].copy_from_slice(&self.rows.to_le_bytes());
        header[32..40].copy_from_slice(&self.key.to_le_bytes());
        header[40] = self.code_bytes_max;
        let places = if self.places == self.rows { 0 } else { self.places };
        header[48..56].copy_from_slice(&places.to_le_bytes());
        let columns = [self.pins, self.faces, self.expiries, self.origins];
        header[41] = columns.iter().zip(0..).fold(0, |bits, (there, bit)| bits | u8::from(*there) << bit);
        let hash = blake3::hash(&header[..64]);
        header[64..96].copy_from_slice(hash.as_bytes());
        header
    }

    /// Reads a header block; `None` if it is not one of this version, or damaged.
    #[must_use]
    pub fn parse(header: &[u8]) -> Option<Layout> {
        let header: &[u8; HEADER_BYTES as usize] = header.try_into().ok()?;
        let u32_at = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
        let u64_at = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("eight bytes"));
        let layout = Layout {
            batch: u32_at(12),
            store: u64_at(16),
            rows: u64_at(24),
            places: if u64_at(48) == 0 { u64_at(24) } else { u64_at(48) },
            key: u64_at(32),
            code_bytes_max: header[40],
            pins: header[41] & 1 != 0,
            faces: header[41] & 2 != 0,
            expiries: header[41] & 4 != 0,
            origins: header[41] & 8 != 0,
        };
        // Comparing with what these fields encode to covers magic, version, hash and reserved bytes.
        let sane = layout.rows <= layout.places
            && layout.places < crate::word::CardRef::ROWS_MAX
            && *header == layout.header();
        sane.then_some(layout)
    }
}

/// A batch file that is open for reading.
pub struct BatchFile {
    /// Where everything lies.
    pub layout: Layout,
    file: Box<dyn File>,
    /// Sealed codes that were read ahead. Rows are never written again, so they stay right.
    ahead: Mutex<Ahead>,
}

/// The sealed codes of some rows.
#[derive(Default)]
struct Ahead {
    row: u64,
    cells: Vec<u8>,
}

/// So many bytes of codes are read at once when few are asked for: orders take rows in their sequence, so that the
/// next ones are most often asked for soon, and a system call costs as much as twenty copies.
const AHEAD_BYTES: usize = 8192;

impl BatchFile {
    /// Opens the file of a committed batch and checks header and length, not the rows.
    ///
    /// # Errors
    /// `NotFound`; `InvalidData` if it is another file.
    pub fn open(medium: &dyn Medium, batch: u32, store: u64) -> io::Result<BatchFile> {
        let file = medium.open(&Layout::path(batch))?;
        let mut header = [0; HEADER_BYTES as usize];
        file.read_at(0, &mut header)?;
        let layout = Layout::parse(&header);
        match layout {
            Some(layout)
                if layout.batch == batch && layout.store == store && file.len()? == layout.file_bytes() =>
            {
                Ok(BatchFile { layout, file, ahead: Mutex::default() })
            }
            _ => {
                Err(io::Error::new(io::ErrorKind::InvalidData, "the batch file's header or length is wrong"))
            }
        }
    }

    /// Reads `rows` rows of column `column` from `row` on into `buffer`.
    ///
    /// # Errors
    /// What the device reports.
    pub fn read(&self, column: usize, row: u64, rows: usize, buffer: &mut Vec<u8>) -> io::Result<()> {
        buffer.resize(self.layout.widths()[column] * rows, 0);
        self.file.read_at(self.layout.cell(column, row), buffer)
    }

    /// Reads the sealed codes of `rows` rows from `row` on into `buffer`.
    ///
    /// # Errors
    /// What the device reports.
    pub fn read_codes(&self, row: u64, rows: usize, buffer: &mut Vec<u8>) -> io::Result<()> {
        let stride = self.layout.stride();
        let bytes = rows * stride;
        // Whoever would have to wait for another reads for itself.
        let ahead = if bytes < AHEAD_BYTES / 2 { self.ahead.try_lock() } else { None };
        let Some(mut ahead) = ahead else { return self.read(1, row, rows, buffer) };
        let found = |ahead: &Ahead| {
            let from = usize::try_from(row.checked_sub(ahead.row)?).ok()?.checked_mul(stride)?;
            Some(from..from + bytes).filter(|cells| cells.end <= ahead.cells.len())
        };
        let cells = match found(&ahead) {
            Some(cells) => cells,
            None => {
                let left = usize::try_from(self.layout.rows.saturating_sub(row)).unwrap_or(usize::MAX);
                // Not those of before: a read that fails leaves nothing that looks like codes.
                let mut fresh = std::mem::take(&mut ahead.cells);
                self.read(1, row, left.min(AHEAD_BYTES / stride).max(rows), &mut fresh)?;
                *ahead = Ahead { row, cells: fresh };
                0..bytes
            }
        };
        buffer.clear();
        buffer.extend_from_slice(&ahead.cells[cells]);
        Ok(())
    }

    /// Hashes the file as its import did. Returns the file's hash and that of the digests.
    ///
    /// # Errors
    /// What the device reports.
    pub fn hash(&self) -> io::Result<([u8; 32], [u8; 32])> {
        const CHUNK: u64 = 1 << 14;
        let mut hasher = FileHasher::default();
        let mut buffer = Vec::new();
        for column in 0..COLUMNS {
            let mut row = 0;
            // The place of a column that is not there may lie behind the file's end.
            while row < self.layout.rows && self.layout.widths()[column] > 0 {
                let rows = CHUNK.min(self.layout.rows - row);
                self.read(column, row, rows as usize, &mut buffer)?;
                hasher.update(column, &buffer);
                row += rows;
            }
        }
        Ok(hasher.finish(&self.layout))
    }
}

/// Hashes a batch file while it is written: rows arrive for all columns at once, so each column has a
/// hash of its own and the file's hash is over the header and theirs.
#[derive(Clone, Default)]
pub struct FileHasher {
    columns: [blake3::Hasher; COLUMNS],
}

impl FileHasher {
    /// Takes the next bytes of a column.
    pub fn update(&mut self, column: usize, bytes: &[u8]) {
        self.columns[column].update(bytes);
    }

    /// The hash of the file with this layout and that of the digest column.
    #[must_use]
    pub fn finish(&self, layout: &Layout) -> ([u8; 32], [u8; 32]) {
        let mut all = blake3::Hasher::new();
        all.update(&layout.header());
        // The first version's five columns are hashed be they there or not; a later one only if it is.
        let later = layout.widths().into_iter().enumerate();
        let hashed = later.filter(|(column, width)| *column < 5 || *width > 0);
        for (column, _) in hashed {
            all.update(self.columns[column].finalize().as_bytes());
        }
        (*all.finalize().as_bytes(), *self.columns[0].finalize().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use kami_wal::{SimMedium, SimMode};

    use super::*;
    use crate::identity::ProductId;

    /// Whatever was asked for before, the rows are those of the file.
    #[test]
    fn codes_that_were_read_ahead_are_those_of_the_file() {
        let disk = SimMedium::new(1, SimMode::Direct);
        let layout = Layout::new(1, 7, 1, &ImportSpec::of(ProductId(1), 5_000, 16));
        let file = disk.create("batch").unwrap();
        file.write_at(0, &layout.header()).unwrap();
        let stride = layout.stride();
        let cells: Vec<u8> = (0..5_000 * stride).map(|at| (at / stride + at) as u8).collect();
        file.write_at(layout.cell(1, 0), &cells).unwrap();
        let batch = BatchFile { layout, file, ahead: Mutex::default() };
        let mut buffer = Vec::new();
        for (row, rows) in
            [(0, 1), (1, 1), (200, 100), (247, 2), (248, 1), (0, 3), (4_990, 10), (4_999, 1), (100, 4_000)]
        {
            batch.read_codes(row, rows, &mut buffer).unwrap();
            let from = row as usize * stride;
            assert_eq!(buffer, cells[from..from + rows * stride], "{rows} rows from {row} on");
        }
    }
}
