//! Imports beside the oracle: staged in chunks, refused for bad rows and duplicates, given up, committed.

use std::collections::BTreeMap;

use kami_engine::{
    BatchId, Caller, Duplicate, Flags, ImportReport, ImportRow, ImportSpec, Kind, Lifecycle, Lsn, Poisoned,
    Reply, ReplyBody, ReplyFlags, RequestId, Status,
};

use super::expected::{At, Body, Expected};
use super::oracle::{Batch, Card, Effect};
use super::world::World;
use crate::ask::{Ask, What};

/// A row as the importer has it.
#[derive(Clone, Debug)]
pub struct Row {
    pub code: String,
    pub pin: Option<String>,
    pub face: Option<i64>,
    pub expires_ms: u64,
}

/// An import that was begun.
#[derive(Clone)]
pub struct Staged {
    pub caller: Caller,
    pub spec: ImportSpec,
    pub batch: u32,
    pub rows: Vec<Row>,
    /// Complete but for the record, which had no room.
    pub indexed: bool,
}

impl World {
    /// Whether the disk may have refused this, and did: nothing changed.
    fn found_no_room(&self, reply: &Reply) -> bool {
        self.tight && matches!(reply.status, Status::DiskFull | Status::Busy)
    }

    /// The reply, unless the power went; whatever it says, all effects before it are durable.
    fn heard(&mut self, outcome: Result<Reply, Poisoned>) -> Option<Reply> {
        let Ok(reply) = outcome else {
            assert!(self.medium.is_cut(), "only a power cut ends the log");
            return None;
        };
        self.settle();
        // Rows that were staged rest on nothing in the log; everything else does.
        let staged = reply.status.is_done() && matches!(reply.body, ReplyBody::Import(_));
        assert!(staged || self.pending.is_empty(), "a reply of an import waits for everything before it");
        Some(reply)
    }

    fn held_against(&mut self, what: &str, expected: &Expected, reply: &Reply) {
        self.note(|| format!("{what}\n    {reply:?}"));
        *self.met.entry(format!("{what} {}", reply.status.code())).or_default() += 1;
        if let Err(wrong) = expected.check(reply, self.last_lsn) {
            panic!("{what}: {wrong}");
        }
    }

    fn import_report(&self, status: Status, rows: u64, rows_total: u64) -> Expected {
        let body = Body::Import(ImportReport { rows, rows_total });
        Expected { body, ..Expected::plain(status, self.oracle.now_ms) }
    }

    /// The reply of an import that was committed before.
    fn committed(&self, caller: Caller, id: u128) -> Option<Expected> {
        let batch = *self.oracle.imports.get(&(caller.tenant.0, id))?;
        let known = &self.oracle.batches[&batch];
        Some(Expected {
            flags: ReplyFlags::REPLAYED,
            lsn: At::Known(known.import_lsn),
            body: Body::Batches(vec![self.oracle.batch_report(batch)]),
            ..Expected::plain(Status::Ok, known.imported_ms)
        })
    }

    /// The reply to anything about an import that is not staged.
    fn not_staged(&self, caller: Caller, id: u128) -> Expected {
        let plain = Expected::plain(Status::NotFound, self.oracle.now_ms);
        self.committed(caller, id).unwrap_or(plain)
    }

    pub fn import_begin(&mut self, caller: Caller, id: u128, spec: &ImportSpec) {
        if self.medium.is_cut() {
            return;
        }
        let outcome = self.engine().import_begin(caller, RequestId(id), spec.clone());
        let Some(reply) = self.heard(outcome) else { return };
        assert!(self.pending.is_empty(), "a begun import rests on its product");
        let key = (caller.tenant.0, id);
        if self.medium.is_cut() {
            return;
        }
        let product = self.oracle.products.get(&spec.product.0);
        let expected = if let Some(committed) = self.committed(caller, id) {
            committed
        } else if let Some(staged) = self.staged.get(&key) {
            let same = staged.spec == *spec && staged.caller.principal == caller.principal;
            let status = if same { Status::Ok } else { Status::IdReused };
            self.import_report(status, staged.rows.len() as u64, staged.spec.rows)
        } else if spec.rows == 0 || spec.label.len() > 128 || spec.face.is_some_and(|face| face < 0) {
            Expected::plain(Status::Malformed, self.oracle.now_ms)
        } else if product.is_none_or(|product| product.tenant != key.0) {
            Expected::plain(Status::NotFound, self.oracle.now_ms)
        } else if spec.expires_ms != 0 && spec.expires_ms <= self.oracle.now_ms.max(spec.valid_from_ms) {
            Expected::plain(Status::Expired, self.oracle.now_ms)
        } else if self.found_no_room(&reply) {
            return;
        } else {
            let staged = Staged {
                caller,
                spec: spec.clone(),
                batch: self.next_batch,
                rows: Vec::new(),
                indexed: false,
            };
            self.staged.insert(key, staged);
            self.next_batch += 1;
            self.import_report(Status::Ok, 0, spec.rows)
        };
        self.held_against("import begin", &expected, &reply);
    }

    pub fn import_chunk(&mut self, caller: Caller, id: u128, first: u64, rows: &[Row]) {
        if self.medium.is_cut() {
            return;
        }
        let mut given = rows.iter().map(|row| ImportRow {
            code: row.code.as_bytes(),
            pin: row.pin.as_deref().map(str::as_bytes),
            face: row.face,
            expires_ms: row.expires_ms,
        });
        let outcome = self.engine().import_chunk(caller, RequestId(id), first, &mut given);
        let Some(reply) = self.heard(outcome) else { return };
        if self.medium.is_cut() || self.found_no_room(&reply) {
            return;
        }
        let expected = match self.staged.get(&(caller.tenant.0, id)) {
            None => self.not_staged(caller, id),
            Some(staged) => {
                let (taken, total) = (staged.rows.len() as u64, staged.spec.rows);
                if staged.indexed {
                    self.import_report(Status::IllegalTransition, taken, total)
                } else if taken < first {
                    self.import_report(Status::Malformed, taken, total)
                } else {
                    let new: Vec<Row> = rows.iter().skip((taken - first) as usize).cloned().collect();
                    let bad = new.iter().zip(taken..).find(|(row, at)| !fits(&staged.spec, row, *at));
                    match bad.map(|(_, at)| at) {
                        Some(bad) => self.import_report(Status::Malformed, bad, total),
                        None => {
                            let rows_now = taken + new.len() as u64;
                            let staged = self.staged.get_mut(&(caller.tenant.0, id)).expect("found");
                            staged.rows.extend(new);
                            self.import_report(Status::Ok, rows_now, total)
                        }
                    }
                }
            }
        };
        self.held_against("import chunk", &expected, &reply);
    }

    pub fn import_status(&mut self, caller: Caller, id: u128) {
        if self.medium.is_cut() {
            return;
        }
        let outcome = self.engine().import_status(caller, RequestId(id));
        let Some(reply) = self.heard(outcome) else { return };
        let expected = match self.staged.get(&(caller.tenant.0, id)) {
            Some(staged) => self.import_report(Status::Ok, staged.rows.len() as u64, staged.spec.rows),
            None => self.not_staged(caller, id),
        };
        self.held_against("import status", &expected, &reply);
    }

    pub fn import_abort(&mut self, caller: Caller, id: u128) {
        if self.medium.is_cut() {
            return;
        }
        let outcome = self.engine().import_abort(caller, RequestId(id));
        let Some(reply) = self.heard(outcome) else { return };
        if self.medium.is_cut() {
            return;
        }
        let expected = match self.staged.remove(&(caller.tenant.0, id)) {
            Some(staged) => self.import_report(Status::Ok, staged.rows.len() as u64, staged.spec.rows),
            None if self.committed(caller, id).is_some() => {
                Expected::plain(Status::IllegalTransition, self.oracle.now_ms)
            }
            None => Expected::plain(Status::NotFound, self.oracle.now_ms),
        };
        self.held_against("import abort", &expected, &reply);
    }

    pub fn import_commit(&mut self, caller: Caller, id: u128) {
        if self.medium.is_cut() {
            return;
        }
        let key = (caller.tenant.0, id);
        let before = self.oracle.now_ms;
        let outcome = self.engine().import_commit(caller, RequestId(id));
        if self.medium.is_cut() && outcome.as_ref().is_ok_and(|reply| reply.status == Status::ReadOnly) {
            // The power went before its record: nothing happened.
            return;
        }
        let Some(staged) = self.staged.get(&key).cloned() else {
            let Some(reply) = self.heard(outcome) else { return };
            let expected = self.not_staged(caller, id);
            return self.held_against("import commit", &expected, &reply);
        };
        if staged.rows.len() as u64 != staged.spec.rows {
            let Some(reply) = self.heard(outcome) else { return };
            let expected =
                self.import_report(Status::IllegalTransition, staged.rows.len() as u64, staged.spec.rows);
            return self.held_against("import commit", &expected, &reply);
        }
        let duplicates = self.duplicates(&staged);
        if let Some((status, duplicates)) = duplicates {
            let Some(reply) = self.heard(outcome) else { return };
            self.staged.remove(&key);
            let body = Body::Duplicates(duplicates);
            let expected = Expected { body, ..Expected::plain(status, self.oracle.now_ms) };
            return self.held_against("import commit", &expected, &reply);
        }
        let Ok(reply) = outcome else {
            // Its record may or may not have come to the disk: the next start tells.
            assert!(self.medium.is_cut(), "only a power cut ends the log");
            self.oracle.now_ms = self.due_ms().unwrap_or(before);
            return self.commit_batch(&staged, id, None);
        };
        self.settle();
        if self.found_no_room(&reply) {
            self.staged.get_mut(&key).expect("found").indexed = true;
            return;
        }
        self.oracle.now_ms = self.due_ms().unwrap_or(before);
        self.staged.remove(&key);
        let lsn = reply.lsn.map(Lsn::bytes);
        let now_ms = self.oracle.now_ms;
        let newest = self.last_lsn;
        self.commit_batch(&staged, id, lsn);
        let expected = Expected {
            lsn: At::Known(lsn),
            body: Body::Batches(vec![self.oracle.batch_report(staged.batch)]),
            ..Expected::plain(Status::Ok, now_ms)
        };
        self.held_against("import commit", &expected, &reply);
        assert!(Some(newest) < lsn, "a new entry stands further on");
        self.last_lsn = lsn.expect("compared");
        (self.promised, self.promised_ms) = (self.log.len(), now_ms);
    }

    fn commit_batch(&mut self, staged: &Staged, id: u128, lsn: Option<u64>) {
        let ask = Ask::new(id, staged.caller, What::Stats);
        let effect = Effect::Import { id: staged.batch, batch: Box::new(self.batch_of(staged, id)) };
        let mut event = self.oracle.event(&ask, Kind::Import, effect);
        event.lsn = lsn;
        self.record(event);
    }

    /// Why the rows cannot become a batch.
    fn duplicates(&self, staged: &Staged) -> Option<(Status, Vec<Duplicate>)> {
        let tenant = staged.caller.tenant.0;
        let twin = self.oracle.batches.iter().find(|(_, batch)| {
            batch.tenant == tenant
                && batch.cards.iter().map(|card| &card.code).eq(staged.rows.iter().map(|row| &row.code))
        });
        if let Some((twin, _)) = twin {
            let duplicate = Duplicate { row: 0, batch: Some(BatchId(*twin)), other_row: 0 };
            return Some((Status::DuplicateBatch, vec![duplicate]));
        }
        let mut first = BTreeMap::new();
        let mut duplicates = Vec::new();
        for (row, at) in staged.rows.iter().zip(0u64..) {
            if let Some((batch, other_row)) = self.oracle.find(tenant, &row.code) {
                let batch = Some(BatchId(batch));
                duplicates.push(Duplicate { row: at, batch, other_row: other_row as u64 });
            } else if let Some(other_row) = first.get(&row.code) {
                duplicates.push(Duplicate { row: at, batch: None, other_row: *other_row });
            } else {
                first.insert(&row.code, at);
            }
        }
        (!duplicates.is_empty()).then_some((Status::DuplicateCard, duplicates))
    }

    fn batch_of(&self, staged: &Staged, id: u128) -> Batch {
        let spec = &staged.spec;
        let product = &self.oracle.products[&spec.product.0].spec;
        let by_rule = match product.valid_days {
            0 => 0,
            days => self.oracle.now_ms + u64::from(days) * 24 * 3600 * 1000,
        };
        let card = |row: &Row| Card {
            code: row.code.clone(),
            pin: row.pin.clone(),
            face: row.face,
            expires_ms: row.expires_ms,
            lifecycle: Lifecycle::Available,
            flags: Flags::NONE,
            past: Vec::new(),
        };
        Batch {
            tenant: staged.caller.tenant.0,
            product: spec.product.0,
            label: spec.label.clone(),
            import: id,
            imported_ms: 0,
            import_lsn: None,
            face: spec.face.unwrap_or(product.face),
            valid_from_ms: spec.valid_from_ms,
            expires_ms: if spec.expires_ms == 0 { by_rule } else { spec.expires_ms },
            has_expiries: spec.expiries,
            active: spec.active,
            frozen: false,
            voided: false,
            extended_ms: 0,
            past: Vec::new(),
            cards: staged.rows.iter().map(card).collect(),
        }
    }
}

/// Whether a row is one of the batch that `spec` announced.
fn fits(spec: &ImportSpec, row: &Row, at: u64) -> bool {
    at < spec.rows
        && (4..=usize::from(spec.code_bytes_max)).contains(&row.code.len())
        && row.pin.is_some() == spec.pins
        && row.face.is_some() == spec.faces
        && row.face.is_none_or(|face| face >= 0)
        && (row.expires_ms == 0 || spec.expiries)
}
