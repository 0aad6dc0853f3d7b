//! Imports beside the oracle: staged in chunks, refused for bad rows and duplicates, given up, committed.

use kami_engine::{
    BatchId, Caller, CardKind, Duplicate, Flags, Grounds, ImportReport, ImportRow, ImportSpec, Kind,
    Lifecycle, Lsn, Origin, Poisoned, Reply, ReplyBody, ReplyFlags, RequestId, Role, Status, ValidFrom,
};

use super::expected::{At, Body, Expected};
use super::oracle::{Batch, Card, Effect};
use super::world::World;
use crate::ask::{Ask, What};

/// A row as the importer has it.
#[derive(Clone, Debug, Default)]
pub struct Row {
    pub code: String,
    pub pin: Option<String>,
    pub face: Option<i64>,
    pub expires_ms: u64,
    pub origin: Option<Origin>,
}

/// An import that was begun.
#[derive(Clone)]
pub struct Staged {
    pub caller: Caller,
    pub spec: ImportSpec,
    pub batch: u32,
    /// The rows that came, those that are there already included.
    pub rows: Vec<Row>,
    /// Those that are there already, as they were found.
    pub duplicates: Vec<Duplicate>,
    /// Complete but for the record, which had no room.
    pub indexed: bool,
    /// When it last went on.
    pub touched_ms: u64,
}

impl Staged {
    /// The rows that are kept, with their numbers.
    fn kept(&self) -> impl Iterator<Item = (u64, &Row)> {
        let left_out = |at: &u64| self.duplicates.iter().any(|duplicate| duplicate.row == *at);
        (0..).zip(&self.rows).filter(move |(at, _)| !left_out(at))
    }

    fn report(&self) -> ImportReport {
        let duplicates = self.duplicates.len() as u64;
        ImportReport { rows: self.rows.len() as u64, rows_total: self.spec.rows, duplicates }
    }
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
        // Rows that were staged rest on nothing in the log, unless they are there already; everything else
        // does.
        let staged = reply.status.is_done()
            && matches!(reply.body, ReplyBody::Import(ImportReport { duplicates: 0, .. }));
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

    fn import_report(&self, status: Status, report: ImportReport) -> Expected {
        let body = Body::Import(report);
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
        let plain = |status| Expected::plain(status, self.oracle.now_ms);
        let by = self.specs.get(&(caller.tenant.0, id)).map(|(by, _)| by.principal);
        match self.committed(caller, id) {
            Some(_) if by != Some(caller.principal) => plain(Status::IdReused),
            Some(committed) => committed,
            None => plain(Status::NotFound),
        }
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
            // What it was begun with is known for good, through every restart.
            let same = self.specs.get(&key).is_some_and(|(by, known)| *by == caller && known == spec);
            if same { committed } else { Expected::plain(Status::IdReused, self.oracle.now_ms) }
        } else if let Some(staged) = self.staged.get_mut(&key) {
            if staged.caller.principal == caller.principal {
                staged.touched_ms = self.oracle.now_ms;
                let staged = staged.clone();
                let same = staged.spec == *spec;
                let status = if same { Status::Ok } else { Status::IdReused };
                self.import_report(status, staged.report())
            } else {
                Expected::plain(Status::IdReused, self.oracle.now_ms)
            }
        } else if spec.rows == 0 || spec.label.len() > 128 || spec.face.is_some_and(|face| face < 0) {
            Expected::plain(Status::Malformed, self.oracle.now_ms)
        } else if product.is_none_or(|product| product.tenant != key.0) {
            Expected::plain(Status::NotFound, self.oracle.now_ms)
        } else if spec.origins && caller.role != Role::Admin {
            Expected::plain(Status::Forbidden, self.oracle.now_ms)
        } else if spec.origins && product.is_some_and(|product| product.spec.kind == CardKind::Shared) {
            Expected::plain(Status::SharedUnfit, self.oracle.now_ms)
        } else if spec.expires_ms != 0 && spec.expires_ms <= self.oracle.now_ms.max(spec.valid_from_ms) {
            Expected::plain(Status::Expired, self.oracle.now_ms)
        } else {
            // What nobody went on with for a day makes room.
            let now_ms = self.oracle.now_ms;
            self.staged.retain(|_, staged| now_ms - staged.touched_ms <= 24 * 3600 * 1000);
            if self.found_no_room(&reply) {
                return;
            }
            let staged = Staged {
                caller,
                spec: spec.clone(),
                batch: self.next_batch,
                rows: Vec::new(),
                duplicates: Vec::new(),
                indexed: false,
                touched_ms: now_ms,
            };
            self.specs.insert(key, (caller, spec.clone()));
            let report = staged.report();
            self.staged.insert(key, staged);
            self.next_batch += 1;
            self.import_report(Status::Ok, report)
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
            origin: row.origin,
        });
        let outcome = self.engine().import_chunk(caller, RequestId(id), first, &mut given);
        let Some(reply) = self.heard(outcome) else { return };
        if self.medium.is_cut() {
            return;
        }
        if self.found_no_room(&reply) {
            let now_ms = self.oracle.now_ms;
            self.staged.entry((caller.tenant.0, id)).and_modify(|staged| staged.touched_ms = now_ms);
            return;
        }
        let expected = match self.staged.get(&(caller.tenant.0, id)) {
            None => self.not_staged(caller, id),
            Some(staged) => {
                let taken = staged.rows.len() as u64;
                if staged.caller.principal != caller.principal {
                    Expected::plain(Status::IdReused, self.oracle.now_ms)
                } else if staged.indexed {
                    self.import_report(Status::IllegalTransition, staged.report())
                } else if taken < first {
                    self.import_report(Status::Malformed, staged.report())
                } else {
                    let mut staged = staged.clone();
                    staged.touched_ms = self.oracle.now_ms;
                    let new: Vec<Row> = rows.iter().skip((taken - first) as usize).cloned().collect();
                    let fits =
                        |row: &Row, at| fits(&staged.spec, row, at) && self.can_have_been(&staged.spec, row);
                    let bad = new.iter().zip(taken..).find(|(row, at)| !fits(row, *at));
                    match bad.map(|(_, at)| at) {
                        Some(bad) => {
                            let report = ImportReport { rows: bad, ..staged.report() };
                            self.staged.insert((caller.tenant.0, id), staged);
                            self.import_report(Status::Malformed, report)
                        }
                        None => {
                            for row in new {
                                self.take(&mut staged, row);
                            }
                            let report = staged.report();
                            self.staged.insert((caller.tenant.0, id), staged);
                            self.import_report(Status::Ok, report)
                        }
                    }
                }
            }
        };
        self.held_against("import chunk", &expected, &reply);
    }

    /// A row comes: kept, or left out because its card is there already.
    fn take(&self, staged: &mut Staged, row: Row) {
        let at = staged.rows.len() as u64;
        let there = match self.oracle.find(staged.caller.tenant.0, &row.code) {
            Some((batch, other_row)) => Some((Some(BatchId(batch)), other_row as u64)),
            None => staged.kept().find(|(_, kept)| kept.code == row.code).map(|(first, _)| (None, first)),
        };
        if let Some((batch, other_row)) = there {
            staged.duplicates.push(Duplicate { row: at, batch, other_row });
        }
        staged.rows.push(row);
    }

    pub fn import_duplicates(&mut self, caller: Caller, id: u128, from: u64) {
        if self.medium.is_cut() {
            return;
        }
        let outcome = self.engine().import_duplicates(caller, RequestId(id), from);
        let Some(reply) = self.heard(outcome) else { return };
        let expected = match self.staged.get(&(caller.tenant.0, id)) {
            Some(staged) if staged.caller.principal == caller.principal => {
                let rows = staged.duplicates.iter().skip(from as usize);
                let rows = rows.map(|duplicate| self.told(caller, *duplicate)).collect();
                let body = Body::Duplicates(rows);
                Expected { body, ..Expected::plain(Status::Ok, self.oracle.now_ms) }
            }
            Some(_) => Expected::plain(Status::IdReused, self.oracle.now_ms),
            None => self.not_staged(caller, id),
        };
        self.held_against("import duplicates", &expected, &reply);
    }

    pub fn import_status(&mut self, caller: Caller, id: u128) {
        if self.medium.is_cut() {
            return;
        }
        let outcome = self.engine().import_status(caller, RequestId(id));
        let Some(reply) = self.heard(outcome) else { return };
        let expected = match self.staged.get(&(caller.tenant.0, id)) {
            Some(staged) if staged.caller.principal == caller.principal => {
                self.import_report(Status::Ok, staged.report())
            }
            Some(_) => Expected::plain(Status::IdReused, self.oracle.now_ms),
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
        let key = (caller.tenant.0, id);
        let theirs = self.staged.get(&key).is_some_and(|staged| staged.caller.principal != caller.principal);
        let expected = if theirs {
            Expected::plain(Status::IdReused, self.oracle.now_ms)
        } else if let Some(staged) = self.staged.remove(&key) {
            self.import_report(Status::Ok, staged.report())
        } else {
            let said = self.not_staged(caller, id);
            let status = if said.status.is_done() { Status::IllegalTransition } else { said.status };
            Expected::plain(status, self.oracle.now_ms)
        };
        self.held_against("import abort", &expected, &reply);
    }

    pub fn import_commit(&mut self, caller: Caller, id: u128, why: Option<String>) {
        if self.medium.is_cut() {
            return;
        }
        let key = (caller.tenant.0, id);
        let before = self.oracle.now_ms;
        let grounds = why.as_deref().map(Grounds::because);
        let outcome = self.engine().import_commit_on(caller, RequestId(id), grounds.as_ref());
        if self.medium.is_cut() && outcome.as_ref().is_ok_and(|reply| reply.status == Status::ReadOnly) {
            // The power went before its record: nothing happened.
            return;
        }
        let Some(staged) = self.staged.get(&key).cloned() else {
            let Some(reply) = self.heard(outcome) else { return };
            let expected = self.not_staged(caller, id);
            return self.held_against("import commit", &expected, &reply);
        };
        if staged.caller.principal != caller.principal {
            let Some(reply) = self.heard(outcome) else { return };
            let expected = Expected::plain(Status::IdReused, self.oracle.now_ms);
            return self.held_against("import commit", &expected, &reply);
        }
        if staged.rows.len() as u64 != staged.spec.rows {
            let Some(reply) = self.heard(outcome) else { return };
            let expected = self.import_report(Status::IllegalTransition, staged.report());
            return self.held_against("import commit", &expected, &reply);
        }
        if staged.spec.origins && why.is_none() {
            let Some(reply) = self.heard(outcome) else { return };
            let expected = self.import_report(Status::ReasonMissing, staged.report());
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
            return self.commit_batch(&staged, id, None, why);
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
        self.commit_batch(&staged, id, lsn, why);
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

    fn commit_batch(&mut self, staged: &Staged, id: u128, lsn: Option<u64>, why: Option<String>) {
        let ask = Ask { why, ..Ask::new(id, staged.caller, What::Stats) };
        let effect = Effect::Import { id: staged.batch, batch: Box::new(self.batch_of(staged, id)) };
        let mut event = self.oracle.event(&ask, Kind::Import, effect);
        event.lsn = lsn;
        self.record(event);
    }

    /// Why the rows cannot become a batch.
    fn duplicates(&self, staged: &Staged) -> Option<(Status, Vec<Duplicate>)> {
        let tenant = staged.caller.tenant.0;
        // The same cards as a batch, in the same order.
        let twin = |rows: &[&Row]| {
            let twin = self.oracle.batches.iter().find(|(_, batch)| {
                batch.tenant == tenant
                    && sees(staged.caller, batch)
                    && batch.cards.iter().map(|card| &card.code).eq(rows.iter().map(|row| &row.code))
            });
            let duplicate = Duplicate { row: 0, batch: Some(BatchId(*twin?.0)), other_row: 0 };
            Some((Status::DuplicateBatch, vec![duplicate]))
        };
        let kept: Vec<&Row> = staged.kept().map(|(_, row)| row).collect();
        // Found while the rows came.
        if !(staged.duplicates.is_empty() || staged.spec.skip_duplicates && !kept.is_empty()) {
            let all: Vec<&Row> = staged.rows.iter().collect();
            let known = twin(&all).filter(|_| kept.is_empty());
            let told = staged.duplicates.iter().map(|duplicate| self.told(staged.caller, *duplicate));
            return known.or_else(|| Some((Status::DuplicateCard, told.collect())));
        }
        // Brought in by another import since.
        if let Some(twin) = twin(&kept) {
            return Some(twin);
        }
        let overtaken = staged.kept().filter_map(|(row, kept)| {
            let (batch, other_row) = self.oracle.find(tenant, &kept.code)?;
            let found = Duplicate { row, batch: Some(BatchId(batch)), other_row: other_row as u64 };
            Some(self.told(staged.caller, found))
        });
        let overtaken: Vec<Duplicate> = overtaken.collect();
        (!overtaken.is_empty()).then_some((Status::DuplicateCard, overtaken))
    }

    /// An issuer is told of its own batches where a card is, of others that it is known.
    fn told(&self, caller: Caller, duplicate: Duplicate) -> Duplicate {
        let batch = duplicate.batch.map(|batch| &self.oracle.batches[&batch.0]);
        let own = batch.is_none_or(|batch| sees(caller, batch));
        if own { duplicate } else { Duplicate::elsewhere(duplicate.row) }
    }

    /// Whether a row says of another system what can have been.
    fn can_have_been(&self, spec: &ImportSpec, row: &Row) -> bool {
        let product = &self.oracle.products[&spec.product.0].spec;
        let worth = match product.kind {
            CardKind::MultiUse => i64::from(product.terms.uses),
            _ => row.face.or(spec.face).unwrap_or(product.face),
        };
        let (max, now_ms) = (product.terms.value_max, self.oracle.now_ms);
        row.origin.is_none_or(|origin| origin.is_possible(product.kind, worth, max, now_ms))
    }

    fn batch_of(&self, staged: &Staged, id: u128) -> Batch {
        let spec = &staged.spec;
        let product = &self.oracle.products[&spec.product.0].spec;
        let by_event = product.terms.valid_from != ValidFrom::Import && product.valid_days > 0;
        let by_rule = match product.valid_days {
            0 => 0,
            _ if by_event => 0,
            days => self.oracle.now_ms + u64::from(days) * 24 * 3600 * 1000,
        };
        let card = |row: &Row| Card {
            code: row.code.clone(),
            pin: row.pin.clone(),
            face: row.face,
            expires_ms: row.expires_ms,
            lifecycle: row.origin.map_or(Lifecycle::Available, |origin| origin.state),
            flags: row.origin.map_or(Flags::NONE, |origin| flags_of(&origin)),
            origin: row.origin,
            past: Vec::new(),
            holds: std::collections::BTreeMap::new(),
            uses: Default::default(),
        };
        Batch {
            tenant: staged.caller.tenant.0,
            product: spec.product.0,
            label: spec.label.clone(),
            import: id,
            imported_by: staged.caller.principal,
            imported_ms: 0,
            import_lsn: None,
            face: spec.face.unwrap_or(product.face),
            valid_from_ms: spec.valid_from_ms,
            expires_ms: if spec.expires_ms == 0 { by_rule } else { spec.expires_ms },
            has_expiries: spec.expiries,
            validity: (by_event && spec.expires_ms == 0)
                .then_some((product.terms.valid_from, product.valid_days)),
            active: staged.kept().map(|_| spec.active.then_some(0)).collect(),
            frozen: false,
            voided: false,
            extended_ms: 0,
            past: Vec::new(),
            cards: staged.kept().map(|(_, row)| card(row)).collect(),
        }
    }
}

/// Whether a caller is told where a card is: an issuer of its own imports.
fn sees(caller: Caller, batch: &Batch) -> bool {
    caller.role != Role::Issuer || batch.imported_by == caller.principal
}

/// Whether a row is one of the batch that `spec` announced.
fn fits(spec: &ImportSpec, row: &Row, at: u64) -> bool {
    at < spec.rows
        && (4..=usize::from(spec.code_bytes_max)).contains(&row.code.len())
        && row.pin.is_some() == spec.pins
        && row.face.is_some() == spec.faces
        && row.face.is_none_or(|face| face >= 0)
        && (row.expires_ms == 0 || spec.expiries)
        && row.origin.is_some() == spec.origins
}

/// What a card has on it that was so in another system.
fn flags_of(origin: &Origin) -> Flags {
    let flags = match origin.state {
        Lifecycle::Redeemed => Flags::REVEALED.with(Flags::MIGRATED),
        Lifecycle::Sold | Lifecycle::Returned => Flags::REVEALED,
        _ => Flags::NONE,
    };
    if origin.frozen { flags.with(Flags::FROZEN) } else { flags }
}
