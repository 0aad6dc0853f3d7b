//! One staged import: its rows on their way into the batch file.

use std::io;

use kami_wal::File;

use super::{ImportRow, ImportSpec};
use crate::batch::{COLUMNS, DIGEST_BYTES, FileHasher, Layout, ORIGINS};
use crate::code::{CODE_BYTES_MAX, Code};
use crate::identity::{BatchId, Caller, CardDigest, RequestId};
use crate::index::Index;
use crate::origin::Origin;
use crate::product::{CardKind, Money};
use crate::reply::{Duplicate, ImportReport, Reply, ReplyBody};
use crate::sequencer::Sequencer;
use crate::status::Status;
use crate::table::Batch;
use crate::vault::{DataKey, TAG_BYTES, Vault};
use crate::word::CardRef;

use super::seen::Seen;
use super::{Remains, plain};

/// Rows whose cards are looked up together.
const GROUP: usize = 32;
/// Digests read from the staging file at a time, to rebuild what was seen.
const AGAIN_ROWS: u64 = 1 << 14;

/// See the module's head.
///
/// Rows are counted twice: as they were received, which is how the importer and all replies count, and as
/// they are kept, which is where they stand in the file.
pub struct Staged {
    pub caller: Caller,
    pub spec: ImportSpec,
    pub layout: Layout,
    pub key: Option<DataKey>,
    pub file: Option<Box<dyn File>>,
    pub hasher: FileHasher,
    /// Rows received.
    pub received: u64,
    /// Those that were left out, in order. Never more than were received.
    pub duplicates: Vec<Duplicate>,
    seen: Seen,
    /// One buffer a column, reused from chunk to chunk.
    buffers: [Vec<u8>; COLUMNS],
    pub stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Taking rows.
    Open,
    /// The file is complete and durable under its name; the index and the record are missing.
    Complete,
    /// Committed or given up.
    Closed,
}

/// Why a chunk was not taken.
pub enum Bad {
    /// This row cannot be one of the import.
    Row(u64),
    Io(io::Error),
}

impl Staged {
    pub fn new(
        caller: Caller,
        spec: ImportSpec,
        layout: Layout,
        key: DataKey,
        file: Box<dyn File>,
    ) -> Staged {
        Staged {
            caller,
            spec,
            layout,
            key: Some(key),
            file: Some(file),
            hasher: FileHasher::default(),
            received: 0,
            duplicates: Vec::new(),
            seen: Seen::new(),
            buffers: Default::default(),
            stage: Stage::Open,
        }
    }

    /// Ends it. What it leaves is to be removed.
    pub fn close(&mut self) -> Remains {
        self.file = None;
        self.stage = Stage::Closed;
        Remains { key: self.layout.key, batch: BatchId(self.layout.batch) }
    }

    /// Rows kept.
    pub fn kept(&self) -> u64 {
        self.received - self.duplicates.len() as u64
    }

    /// Takes the next rows: all of them or, on any error, none.
    pub fn take(
        &mut self,
        vault: &Vault,
        sequencer: &Sequencer,
        rows: &mut dyn Iterator<Item = ImportRow<'_>>,
    ) -> Result<(), Bad> {
        let (base, known) = (self.kept(), self.duplicates.len());
        let taken = self.gather(vault, sequencer, rows).and_then(|received| {
            self.write(base).map_err(Bad::Io)?;
            Ok(received)
        });
        match taken {
            Ok(received) => {
                self.received += received;
                self.seen.keep();
            }
            Err(_) => {
                self.duplicates.truncate(known);
                let Staged { seen, file, layout, .. } = self;
                // If it fails, what `seen` holds of these rows says nothing.
                let _ = seen.forget(|again| match file {
                    Some(file) => read_digests(&**file, layout, base, again),
                    None => Err(io::Error::other("the staging file is closed")),
                });
            }
        }
        taken.map(drop)
    }

    /// Puts the rows that are to be kept into the buffers. Returns how many came.
    fn gather(
        &mut self,
        vault: &Vault,
        sequencer: &Sequencer,
        rows: &mut dyn Iterator<Item = ImportRow<'_>>,
    ) -> Result<u64, Bad> {
        self.buffers.iter_mut().for_each(Vec::clear);
        let base = self.kept();
        let Staged { caller, spec, layout, key, file, received, duplicates, seen, buffers, .. } = self;
        let key = key.as_ref().expect("a staged import has its key until it is committed");
        let file = file.as_ref().ok_or_else(|| Bad::Io(io::Error::other("the staging file is closed")))?;
        let (mut number, mut row) = (*received, base);
        let new = Worth::of(sequencer, *caller, spec);
        // Wiped when it is cleared, and only then: nothing is moved out of it, which would leave a copy behind. It never
        // grows.
        let mut group: Vec<(ImportRow<'_>, Code)> = Vec::with_capacity(GROUP);
        let mut new_digests: Vec<CardDigest> = Vec::with_capacity(GROUP);
        loop {
            for (given, number) in rows.take(GROUP).zip(number..) {
                let code = Code::normalise(given.code).map_err(|_| Bad::Row(number))?;
                let fits = code.as_bytes().len() <= usize::from(layout.code_bytes_max)
                    && number < spec.rows
                    && given.pin.is_some() == layout.pins
                    && given.face.is_some() == layout.faces
                    && given.face.is_none_or(|face| face >= 0)
                    && (given.expires_ms == 0 || layout.expiries)
                    && given.origin.is_some() == layout.origins
                    && given.origin.is_none_or(|origin| new.admits(&origin, given.face));
                if !fits {
                    return Err(Bad::Row(number));
                }
                group.push((given, code));
            }
            if group.is_empty() {
                return Ok(number - *received);
            }
            new_digests.clear();
            let codes = group.iter_mut().map(|(_, code)| code);
            vault.lookup().digests(caller.tenant, codes, |digest| new_digests.push(digest));
            seen.reserve(GROUP as u64, |again| {
                read_digests(&**file, layout, base, again)?;
                digests(&buffers[0]).for_each(again);
                Ok(())
            })
            .map_err(Bad::Io)?;
            let guard = Index::pin();
            for digest in &new_digests {
                sequencer.index.prefetch(*digest, &guard);
                seen.prefetch(*digest);
            }
            for ((given, code), &digest) in group.iter().zip(&new_digests) {
                let there = sequencer.index.find(digest, &guard);
                let twice = match there.filter(|card| sequencer.table.batch_of(*card).is_some()) {
                    Some(card) => Some((Some(BatchId(card.batch())), card.row())),
                    None => {
                        let is = |row: u64| match row.checked_sub(base) {
                            Some(here) => {
                                let at = here as usize * DIGEST_BYTES;
                                Ok(buffers[0][at..at + DIGEST_BYTES] == digest.0.to_le_bytes())
                            }
                            None => {
                                let mut bytes = [0; DIGEST_BYTES];
                                file.read_at(layout.cell(0, row), &mut bytes)?;
                                Ok(u128::from_le_bytes(bytes) == digest.0)
                            }
                        };
                        let first = seen.insert(digest, row, is).map_err(Bad::Io)?;
                        first.map(|first| (None, received_as(duplicates, first)))
                    }
                };
                if let Some((batch, other_row)) = twice {
                    duplicates.push(Duplicate { row: number, batch, other_row });
                    number += 1;
                    continue;
                }
                buffers[0].extend_from_slice(&digest.0.to_le_bytes());
                let mut cell = [0; 1 + CODE_BYTES_MAX + TAG_BYTES];
                let cell = &mut cell[..layout.stride()];
                cell[0] = code.as_bytes().len() as u8;
                cell[1..=code.as_bytes().len()].copy_from_slice(code.as_bytes());
                key.seal(CardRef::new(layout.batch, row), cell);
                buffers[1].extend_from_slice(cell);
                if let Some(pin) = given.pin {
                    buffers[2].extend_from_slice(&vault.lookup().pin_digest(digest, pin).0);
                }
                if let Some(face) = given.face {
                    buffers[3].extend_from_slice(&face.to_le_bytes());
                }
                if layout.expiries {
                    buffers[4].extend_from_slice(&given.expires_ms.to_le_bytes());
                }
                if let Some(origin) = given.origin {
                    buffers[ORIGINS].extend_from_slice(&origin.encode());
                }
                number += 1;
                row += 1;
            }
            group.clear();
        }
    }

    /// Writes the buffers, which hold the rows from `base` on.
    fn write(&mut self, base: u64) -> io::Result<()> {
        let file = self.file.as_ref().ok_or_else(|| io::Error::other("the staging file is closed"))?;
        for (column, buffer) in self.buffers.iter().enumerate() {
            if !buffer.is_empty() {
                file.write_at(self.layout.cell(column, base), buffer)?;
            }
        }
        for (column, buffer) in self.buffers.iter().enumerate() {
            self.hasher.update(column, buffer);
        }
        Ok(())
    }

    /// The row of this import, as it was received, that stands in row `kept` of the file.
    pub fn received_as(&self, kept: u64) -> u64 {
        received_as(&self.duplicates, kept)
    }

    /// The batch that is this very import, if every row is there already, in the same order and place.
    pub fn twin<'s>(&self, sequencer: &'s Sequencer) -> Option<&'s Batch> {
        let batch = sequencer.table.batch(self.duplicates.first()?.batch?)?;
        let is_there = |found: &Duplicate| found.batch == Some(batch.id) && found.other_row == found.row;
        let all = self.kept() == 0 && batch.rows() == self.received && self.duplicates.iter().all(is_there);
        all.then_some(batch)
    }

    pub fn report(&self) -> ImportReport {
        let duplicates = self.duplicates.len() as u64;
        ImportReport { rows: self.received, rows_total: self.spec.rows, duplicates }
    }

    pub fn reply(&self, sequencer: &Sequencer, id: RequestId, status: Status) -> Reply {
        Reply { body: ReplyBody::Import(self.report()), ..plain(sequencer, id, status) }
    }
}

/// What new cards of an import hold, to judge what they say that they were.
struct Worth {
    kind: CardKind,
    /// What a row holds that does not say.
    worth: Money,
    value_max: Money,
    now_ms: u64,
}

impl Worth {
    fn of(sequencer: &Sequencer, caller: Caller, spec: &ImportSpec) -> Worth {
        let state = sequencer.state();
        let product = state.product(spec.product, caller.tenant).expect("its import began with the product");
        let product = &product.product.spec;
        let worth = match product.kind {
            CardKind::MultiUse => Money::from(product.terms.uses),
            _ => spec.face.unwrap_or(product.face),
        };
        Worth { kind: product.kind, worth, value_max: product.terms.value_max, now_ms: state.now_ms }
    }

    fn admits(&self, origin: &Origin, face: Option<Money>) -> bool {
        let worth = face.filter(|_| self.kind != CardKind::MultiUse).unwrap_or(self.worth);
        origin.is_possible(self.kind, worth, self.value_max, self.now_ms)
    }
}

/// See [`Staged::received_as`]: before it stand as many duplicates as have at most `kept` kept rows before
/// them.
fn received_as(duplicates: &[Duplicate], kept: u64) -> u64 {
    let (mut low, mut high) = (0, duplicates.len());
    while low < high {
        let middle = low + (high - low) / 2;
        if duplicates[middle].row - middle as u64 <= kept {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    kept + low as u64
}

pub fn digests(bytes: &[u8]) -> impl Iterator<Item = CardDigest> {
    let digest = |bytes: &[u8]| u128::from_le_bytes(bytes.try_into().expect("sixteen bytes"));
    bytes.chunks_exact(DIGEST_BYTES).map(move |bytes| CardDigest(digest(bytes)))
}

/// The digests of the first `rows` rows of a staging file.
fn read_digests(
    file: &dyn File,
    layout: &Layout,
    rows: u64,
    each: &mut dyn FnMut(CardDigest),
) -> io::Result<()> {
    let mut bytes = Vec::new();
    for row in (0..rows).step_by(AGAIN_ROWS as usize) {
        bytes.resize(AGAIN_ROWS.min(rows - row) as usize * DIGEST_BYTES, 0);
        file.read_at(layout.cell(0, row), &mut bytes)?;
        digests(&bytes).for_each(&mut *each);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_rows_are_counted_as_they_were_received() {
        let left_out = [1, 2, 5, 9].map(|row| Duplicate { row, batch: None, other_row: 0 });
        let received: Vec<u64> = (0..8).map(|kept| received_as(&left_out, kept)).collect();
        assert_eq!(received, [0, 3, 4, 6, 7, 8, 10, 11]);
        assert_eq!(received_as(&[], 7), 7);
    }
}
