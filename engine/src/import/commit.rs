//! The commit of an import: its file complete and durable, its digests in the index, one record, a batch.
//!
//! # Invariants
//! * In this order, so that a crash anywhere leaves either the whole batch or nothing but what the next start removes.
//! * Digests in the index lead nowhere until the table has the batch, so nobody sees a part of it.
//! * One commit at a time touches the index: of two imports with one card, whoever commits first has it.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use kami_wal::planted;

use super::staged::{self, Stage, Staged};
use super::{Found, Imports, committed, import_request, io_status, may_see, plain, staging_path, told};
use crate::batch::{BatchFile, Layout};
use crate::grounds::Grounds;
use crate::identity::{BatchId, Caller, RequestId};
use crate::index::Index;
use crate::product::{ValidFrom, Validity};
use crate::record::{HEAD_BYTES, Head, Kind, Stored, StoredBatch, StoredValidity};
use crate::reply::{DUPLICATES_MAX, Duplicate, Reply, ReplyBody};
use crate::sequencer::{Sequencer, Turn};
use crate::status::Status;
use crate::stock::Counted;
use crate::table::{Batch, Columns, Commit, Table};
use crate::vault::Vault;
use crate::word::{CardRef, Flags, Lifecycle, Word};

/// Rows whose digests go to the index together.
const INDEX_ROWS: u64 = 4096;
/// From so many rows on another thread is worth its start.
const HELPER_ROWS_MIN: u64 = 100_000;
const HELPERS_MAX: u64 = 3;
/// How far helpers step back for those who serve, as nice(2) counts.
const HELPER_NICE: i32 = 10;

enum Refused {
    Twice(BatchId),
    Duplicates(Vec<Duplicate>),
    Io(io::Error),
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        Refused::Io(error)
    }
}

impl Imports {
    /// See [`Engine::import_commit`](crate::Engine::import_commit). The reply must still wait for the
    /// log's tail.
    pub fn commit(
        &self,
        sequencer: &Sequencer,
        vault: &Vault,
        caller: Caller,
        id: RequestId,
        grounds: Option<&Grounds>,
    ) -> Reply {
        if grounds.is_some_and(|grounds| !grounds.is_reason()) {
            return plain(sequencer, id, Status::Malformed);
        }
        let import = match self.find(sequencer, caller, id) {
            Found::Staged(import) => import,
            Found::Other(reply) => return reply,
        };
        let _one_at_a_time = self.commit.lock();
        let Some(mut staged) = import.hold() else { return plain(sequencer, id, Status::Busy) };
        if staged.stage == Stage::Closed {
            // Committed by another attempt meanwhile, or given up.
            return match committed(sequencer, caller, id) {
                Some((_, reply)) => reply,
                None => plain(sequencer, id, Status::NotFound),
            };
        }
        if staged.received != staged.spec.rows {
            return staged.reply(sequencer, id, Status::IllegalTransition);
        }
        if staged.spec.origins && grounds.is_none_or(|grounds| grounds.why.is_empty()) {
            return staged.reply(sequencer, id, Status::ReasonMissing);
        }
        // An earlier attempt may have got as far as the index; another import may have overtaken it since.
        let ready = known_duplicates(sequencer, &staged)
            .and_then(|()| self.complete(&mut staged).map_err(Refused::Io))
            .and_then(|()| self.index(sequencer, &staged));
        if let Err(refused) = ready {
            self.discard(vault, &mut staged);
            self.forget(caller, id);
            return match refused {
                Refused::Twice(batch) => {
                    let mut reply = plain(sequencer, id, Status::DuplicateBatch);
                    let duplicate = Duplicate { row: 0, batch: Some(batch), other_row: 0 };
                    reply.body = ReplyBody::Duplicates(vec![duplicate]);
                    reply
                }
                Refused::Duplicates(duplicates) => {
                    let mut reply = plain(sequencer, id, Status::DuplicateCard);
                    let told = duplicates.into_iter().map(|duplicate| told(sequencer, caller, duplicate));
                    reply.body = ReplyBody::Duplicates(told.collect());
                    reply
                }
                Refused::Io(error) => plain(sequencer, id, io_status(&error)),
            };
        }
        let reply = self.record(sequencer, &mut staged, id, grounds);
        if reply.status.is_done() {
            self.forget(caller, id);
        }
        reply
    }

    /// Makes the file complete and durable under its name.
    fn complete(&self, staged: &mut Staged) -> io::Result<()> {
        let Some(file) = staged.file.take() else { return Ok(()) };
        let batch = BatchId(staged.layout.batch);
        staged.layout.rows = staged.kept();
        file.write_at(0, &staged.layout.header())?;
        if !planted("commit-before-its-file") {
            file.sync()?;
        }
        self.medium.rename(&staging_path(batch), &Layout::path(batch.0))?;
        self.medium.sync_dir(crate::batch::DIRECTORY)?;
        staged.stage = Stage::Complete;
        Ok(())
    }

    /// Makes the digests findable, if nobody has the cards yet.
    fn index(&self, sequencer: &Sequencer, staged: &Staged) -> Result<(), Refused> {
        let (_, cards_hash) = staged.hasher.finish(&staged.layout);
        let tenant = staged.caller.tenant;
        let twin = sequencer.table.batches().find(|batch| {
            batch.cards_hash == cards_hash
                && sequencer.state().stock(batch.id).tenant == tenant
                && may_see(staged.caller, batch)
        });
        if let Some(twin) = twin {
            return Err(Refused::Twice(twin.id));
        }
        let batch = BatchId(staged.layout.batch);
        let file = BatchFile::open(&*self.medium, batch.0, self.store)?;
        let mut duplicates = index_batch(&sequencer.index, &sequencer.table, &file, batch)?;
        for duplicate in &mut duplicates {
            // The importer counts the rows that were left out, too.
            duplicate.row = staged.received_as(duplicate.row);
        }
        if duplicates.is_empty() { Ok(()) } else { Err(Refused::Duplicates(duplicates)) }
    }

    /// Writes the IMPORT record and lets the cards exist.
    fn record(
        &self,
        sequencer: &Sequencer,
        staged: &mut Staged,
        id: RequestId,
        grounds: Option<&Grounds>,
    ) -> Reply {
        let batch = BatchId(staged.layout.batch);
        let product = staged.spec.product;
        // A product's kind never changes.
        let kind =
            sequencer.state().product(product, staged.caller.tenant).map(|state| state.product.spec.kind);
        let kind = kind.expect("its import began with the product");
        let read = || -> io::Result<_> {
            let file = BatchFile::open(&*self.medium, batch.0, self.store)?;
            let (columns, words) = Columns::read(&file, kind)?;
            Ok((file, columns, words))
        };
        let (file, columns, words) = match read() {
            Ok(parts) => parts,
            Err(error) => return staged.reply(sequencer, id, io_status(&error)),
        };
        let counted = Counted::of(&words, &columns, file.layout.origins);

        // Everything that can fail or take long is done; the rest is one turn of the sequencer.
        let grounds_bytes = grounds.map_or(0, Grounds::bytes);
        let mut turn = sequencer.begin(2 * HEAD_BYTES + 1024 + grounds_bytes);
        let revoked = turn.state.scope(staged.caller.principal).is_none();
        if revoked || !turn.has_credit() {
            let status = if revoked { Status::Unauthenticated } else { turn.short() };
            // The reply takes the lock again.
            drop(turn);
            return staged.reply(sequencer, id, status);
        }
        let stored = stored_batch(&turn, staged);
        let validity = validity(&turn, staged, &stored);
        let tail = stored.entry_tail_with(validity.map(StoredValidity::of).as_ref());
        let request = import_request(staged.caller, id);
        // Whether its cards came in states of their own is known from the entry alone.
        let flags = if staged.spec.origins { Flags::MIGRATED } else { Flags::NONE };
        let post = Word::state_of(Lifecycle::Available, flags);
        let head =
            Head { post, subject: u64::from(batch.0), ..request.head(Kind::Import, staged.spec.body()) };
        let lsn = turn.append(HEAD_BYTES + tail.len() + grounds_bytes, |group| {
            group.push_on(&head, grounds, tail.len(), |place| place.copy_from_slice(&tail))
        });
        let time_ms = turn.state.now_ms;
        let principal = staged.caller.principal;
        let commit =
            Commit { stored, validity, kind, id: batch, import: id, imported_by: principal, lsn, time_ms };
        let key = staged.key.take().expect("a staged import has its key until it is committed");
        sequencer.table.commit(Batch::new(commit, file, key, columns, words));
        let batch = sequencer.table.batch(batch).expect("committed just now");
        turn.state.put_batch(batch, counted);
        staged.stage = Stage::Closed;
        let body = ReplyBody::Batches(vec![turn.state.batch_report(batch)]);
        let reply = turn.reply(&request, Status::Ok, Some(lsn), body);
        turn.end();
        sequencer.wal.kick();
        reply
    }
}

/// Whether the duplicates that were found while the rows came refuse the commit.
fn known_duplicates(sequencer: &Sequencer, staged: &Staged) -> Result<(), Refused> {
    if staged.duplicates.is_empty() || staged.spec.skip_duplicates && staged.kept() > 0 {
        return Ok(());
    }
    if let Some(twin) = staged.twin(sequencer).filter(|twin| may_see(staged.caller, twin)) {
        return Err(Refused::Twice(twin.id));
    }
    let listed = staged.duplicates.iter().take(DUPLICATES_MAX).copied();
    Err(Refused::Duplicates(listed.collect()))
}

/// Adds a batch's digests to the index; returns the first of those that were there. Half of the time goes into memory that is
/// touched for the first time, which processors can do side by side: a large batch has helpers, who step back for all others.
///
/// # Errors
/// If the file cannot be read.
pub(crate) fn index_batch(
    index: &Index,
    table: &Table,
    file: &BatchFile,
    batch: BatchId,
) -> io::Result<Vec<Duplicate>> {
    let rows = file.layout.rows;
    index.reserve(rows as usize);
    let next = AtomicU64::new(0);
    // Asking the system how many processors there are takes longer than a small batch.
    let others = || thread::available_parallelism().map_or(0, |processors| processors.get() as u64 - 1);
    let helpers = match rows / HELPER_ROWS_MIN {
        0 => 0,
        worth => worth.min(HELPERS_MAX).min(others()),
    };
    let mut duplicates = thread::scope(|scope| {
        let help = || {
            // It helps as well where it may not step back.
            let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), HELPER_NICE);
            index_rows(index, table, file, batch, &next)
        };
        let start = |_| thread::Builder::new().name("kami-index".to_owned()).spawn_scoped(scope, help);
        // One that cannot be started leaves more to the others.
        let helpers: Vec<_> = (0..helpers).filter_map(|helper| start(helper).ok()).collect();
        let mut duplicates = index_rows(index, table, file, batch, &next)?;
        for helper in helpers {
            duplicates.append(&mut helper.join().expect("adding to the index does not panic")?);
        }
        io::Result::Ok(duplicates)
    })?;
    duplicates.sort_unstable_by_key(|duplicate| duplicate.row);
    duplicates.truncate(DUPLICATES_MAX);
    Ok(duplicates)
}

/// Adds group after group of a batch's rows, beginning each time at `next`, until none is left. Returns the first of those that
/// were there.
fn index_rows(
    index: &Index,
    table: &Table,
    file: &BatchFile,
    batch: BatchId,
    next: &AtomicU64,
) -> io::Result<Vec<Duplicate>> {
    let mut duplicates: Vec<Duplicate> = Vec::new();
    let mut digests = Vec::new();
    let mut entries = Vec::with_capacity(INDEX_ROWS as usize);
    loop {
        let first = next.fetch_add(INDEX_ROWS, Ordering::Relaxed);
        if file.layout.rows <= first {
            return Ok(duplicates);
        }
        let count = INDEX_ROWS.min(file.layout.rows - first);
        // There is no use in what the others would still add.
        file.read(0, first, count as usize, &mut digests)
            .inspect_err(|_| next.store(file.layout.rows, Ordering::Relaxed))?;
        entries.clear();
        let digests = staged::digests(&digests).zip(first..);
        entries.extend(digests.map(|(digest, row)| (digest, CardRef::new(batch.0, row))));
        // Of the rows of a group the later may be met first.
        let told = duplicates.len() < DUPLICATES_MAX;
        index.insert_all(
            &mut entries,
            // The entry may be there from an earlier attempt to commit this import. One of another batch
            // that is not committed is a remnant, or that import's loss: whoever commits first has the card.
            |card, present| {
                present == card || present.batch() != batch.0 && table.batch_of(present).is_none()
            },
            |card, present| {
                if told {
                    let other = BatchId(present.batch());
                    let batch = (other != batch).then_some(other);
                    duplicates.push(Duplicate { row: card.row(), batch, other_row: present.row() });
                }
            },
        );
    }
}

fn stored_batch(turn: &Turn<'_>, staged: &Staged) -> StoredBatch {
    let spec = &staged.spec;
    let (file_hash, cards_hash) = staged.hasher.finish(&staged.layout);
    let product = turn.state.product(spec.product, staged.caller.tenant).expect("checked when it was begun");
    let product = &product.product.spec;
    let by_rule = match product.valid_days {
        0 => 0,
        _ if product.terms.valid_from != ValidFrom::Import => 0,
        days => turn.state.now_ms + u64::from(days) * 24 * 3600 * 1000,
    };
    StoredBatch {
        tenant: staged.caller.tenant.0,
        product: spec.product.0,
        label: spec.label.clone(),
        rows: staged.layout.rows,
        file_hash,
        cards_hash,
        face: spec.face.unwrap_or(product.face),
        valid_from_ms: spec.valid_from_ms,
        expires_ms: if spec.expires_ms == 0 { by_rule } else { spec.expires_ms },
        active: spec.active,
    }
}

/// From which event of its own each card is valid; not where the import says when they end.
fn validity(turn: &Turn<'_>, staged: &Staged, stored: &StoredBatch) -> Option<Validity> {
    let product = turn.state.product(staged.spec.product, staged.caller.tenant)?;
    let spec = &product.product.spec;
    let rules = stored.expires_ms == 0 && spec.valid_days > 0 && spec.terms.valid_from != ValidFrom::Import;
    rules.then_some(Validity { from: spec.terms.valid_from, days: spec.valid_days })
}
