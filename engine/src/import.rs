//! Imports: rows are staged in a batch file and committed as a whole.
//!
//! ```text
//! begin   a batch number, a data key (durable in the ring), an empty staging file
//! chunk   normalise, digest, look up, seal, write; any number of times, in row order
//! commit  header, sync, rename, directory sync; digests into the index (still invisible);
//!         one IMPORT record; the table slot is filled: all cards exist from here on
//! abort   the file is removed
//! ```
//! A crash before the IMPORT record leaves a file that the next start removes; a crash after it leaves
//! the whole batch. The import's request id is its name: begun again it goes on, committed again it
//! says what it said. The name belongs to the principal and to what it was begun with; for anything else
//! it is ID_REUSED.
//!
//! A row whose card is there already, in an earlier batch or further up in the same import, is found when
//! its chunk comes: it is left out of the file and remembered, so that the importer can ask which rows
//! these were. A commit then refuses, or, if the import skips duplicates, takes the others. A card that
//! another import brought in between is found by the commit, which refuses either way. An issuer is told where
//! such a card is only of its own imports; of all others, that it is known.
//!
//! Whoever works on an import (a chunk, the commit) has its lock, a commit for as long as the disk takes.
//! What only asks how far it is never waits for that; what must have the lock waits for [`HOLD_WAIT`] and is
//! BUSY then, so that no thread of the few that wait for the disk is kept by somebody else's work. For the same
//! reason the list of the staged imports is never locked over the disk: one that begins has its place in it first
//! and its key and file afterwards, and what is given up leaves it first.

mod seen;
mod spec;
mod staged;

pub use spec::{ImportRow, ImportSpec};

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use kami_wal::{Medium, planted};

use crate::batch::{BatchFile, Layout};
use crate::chain::Chain;
use crate::code::{CODE_BYTES_MAX, CODE_BYTES_MIN};
use crate::command::{Command, Request};
use crate::grounds::Grounds;
use crate::identity::{BatchId, Caller, PrincipalId, RequestId, Role, TenantId};
use crate::index::Index;
use crate::product::{CardKind, ValidFrom, Validity};
use crate::record::{HEAD_BYTES, Head, Kind, Stored, StoredBatch, StoredValidity};
use crate::reply::{DUPLICATES_MAX, Duplicate, ImportReport, Reply, ReplyBody, ReplyFlags};
use crate::sequencer::{Sequencer, Turn, chain_failed};
use crate::status::Status;
use crate::stock::Counted;
use crate::sync::Ordering;
use crate::sync::coarse::{AtomicU64, Mutex, MutexGuard};
use crate::table::{Batch, Columns, Commit, Table};
use crate::vault::Vault;
use crate::word::{CardRef, Flags, Lifecycle, Word};

use staged::{Bad, Stage, Staged};

/// Imports that may be staged at the same time, by all and by one principal.
const STAGED_MAX: usize = 64;
const STAGED_OF_ONE_MAX: usize = 8;
/// One that nobody touched for so long is given up.
const ABANDONED_MS: u64 = 24 * 3600 * 1000;
/// One that nobody touched for so long makes room for another of the same principal, if it has too many.
const GIVES_WAY_MS: u64 = 10 * 60 * 1000;
/// How long a command waits for one that works on the same import.
const HOLD_WAIT: Duration = Duration::from_secs(1);
/// Rows whose digests go to the index together.
const INDEX_ROWS: u64 = 4096;
/// Added to a batch file's name until it is complete.
pub(crate) const STAGING_SUFFIX: &str = ".staging";

type Key = (TenantId, RequestId);

/// The staged imports.
pub struct Imports {
    medium: Arc<dyn Medium>,
    store: u64,
    staged: Mutex<Staging>,
    /// Only one import at a time touches the index.
    commit: Mutex<()>,
}

struct Staging {
    imports: HashMap<Key, Arc<Import>>,
    /// Those whose key and file are on their way to the disk, and whose they are.
    beginning: HashMap<Key, PrincipalId>,
    next_batch: BatchId,
}

/// What a discarded import leaves on the disk and in the ring.
struct Remains {
    key: u64,
    batch: BatchId,
}

/// One of them: what is known of it without its lock, and what it guards.
struct Import {
    caller: Caller,
    spec: ImportSpec,
    /// How far it is; locked for no longer than copying it takes.
    report: Mutex<ImportReport>,
    /// Engine time when it last went on.
    touched_ms: AtomicU64,
    staged: Mutex<Staged>,
}

impl Import {
    fn new(staged: Staged, now_ms: u64) -> Import {
        Import {
            caller: staged.caller,
            spec: staged.spec.clone(),
            report: Mutex::new(staged.report()),
            touched_ms: AtomicU64::new(now_ms),
            staged: Mutex::new(staged),
        }
    }

    /// What works on it; `None` if somebody else does, and goes on doing so.
    fn hold(&self) -> Option<MutexGuard<'_, Staged>> {
        self.staged.try_lock_for(HOLD_WAIT)
    }

    fn touch(&self, now_ms: u64) {
        self.touched_ms.store(now_ms, Ordering::Relaxed);
    }

    /// How long nobody has touched it.
    fn idle_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.touched_ms.load(Ordering::Relaxed))
    }

    /// Closes an import unless somebody works on it right now; whether it is closed. What is left of it is to be
    /// removed, without a lock.
    fn give_up(&self, remains: &mut Vec<Remains>) -> bool {
        let Some(mut staged) = self.staged.try_lock() else { return false };
        // What was committed is not staged any more, and its file stays.
        if staged.stage != Stage::Closed {
            remains.push(staged.close());
        }
        true
    }

    /// How far it is.
    fn reply(&self, sequencer: &Sequencer, id: RequestId, status: Status) -> Reply {
        let report = *self.report.lock();
        Reply { body: ReplyBody::Import(report), ..plain(sequencer, id, status) }
    }
}

impl Imports {
    /// No imports; the next batch gets the number `next_batch`.
    pub fn new(medium: Arc<dyn Medium>, store: u64, next_batch: BatchId) -> Imports {
        let staged = Mutex::new(Staging { imports: HashMap::new(), beginning: HashMap::new(), next_batch });
        Imports { medium, store, staged, commit: Mutex::new(()) }
    }

    fn forget(&self, caller: Caller, id: RequestId) {
        self.staged.lock().imports.remove(&(caller.tenant, id));
    }

    /// What has this name and is the caller's; or else what to say.
    fn find(&self, sequencer: &Sequencer, caller: Caller, id: RequestId) -> Found {
        let staged = self.staged.lock().imports.get(&(caller.tenant, id)).cloned();
        if let Some(staged) = staged {
            return if staged.caller.principal == caller.principal {
                Found::Staged(staged)
            } else {
                Found::Other(plain(sequencer, id, Status::IdReused))
            };
        }
        Found::Other(match committed(sequencer, caller, id) {
            Some((batch, reply)) if batch.imported_by == caller.principal => reply,
            Some(_) => plain(sequencer, id, Status::IdReused),
            None => plain(sequencer, id, Status::NotFound),
        })
    }

    /// See [`Engine::import_begin`](crate::Engine::import_begin).
    pub fn begin(
        &self,
        sequencer: &Sequencer,
        vault: &Vault,
        caller: Caller,
        id: RequestId,
        spec: ImportSpec,
    ) -> Reply {
        if let Some((batch, reply)) = committed(sequencer, caller, id) {
            return match is_same(sequencer, batch, caller, &spec) {
                Ok(true) => reply,
                Ok(false) => plain(sequencer, id, Status::IdReused),
                Err(status) => plain(sequencer, id, status),
            };
        }
        let staged = self.staged.lock().imports.get(&(caller.tenant, id)).cloned();
        if let Some(staged) = staged {
            if staged.caller.principal != caller.principal {
                return plain(sequencer, id, Status::IdReused);
            }
            staged.touch(sequencer.state().now_ms);
            let same = staged.spec == spec;
            return staged.reply(sequencer, id, if same { Status::Ok } else { Status::IdReused });
        }
        if let Some(status) = refusal(sequencer, caller, &spec) {
            return plain(sequencer, id, status);
        }
        let now_ms = sequencer.state().now_ms;
        let key = (caller.tenant, id);
        let mut remains = Vec::new();
        let place = self.take_place(sequencer, key, caller, now_ms, &mut remains);
        for remains in remains {
            self.remove(vault, &remains);
        }
        let batch = match place {
            Place::Taken(batch) => batch,
            Place::None => return plain(sequencer, id, Status::Busy),
            // Another connection was faster.
            Place::There => return self.begin(sequencer, vault, caller, id, spec),
        };
        let created = self.create(vault, caller, batch, spec);
        let mut staging = self.staged.lock();
        staging.beginning.remove(&key);
        match created {
            Ok(staged) => {
                let reply = staged.reply(sequencer, id, Status::Ok);
                staging.imports.insert(key, Arc::new(Import::new(staged, now_ms)));
                reply
            }
            Err(error) => {
                if staging.next_batch.0 == batch.0 + 1 {
                    staging.next_batch = batch;
                }
                drop(staging);
                plain(sequencer, id, io_status(&error))
            }
        }
    }

    /// A place for one more import, and its batch. What had to give way for it is in `remains`.
    fn take_place(
        &self,
        sequencer: &Sequencer,
        key: Key,
        caller: Caller,
        now_ms: u64,
        remains: &mut Vec<Remains>,
    ) -> Place {
        let mut staging = self.staged.lock();
        if staging.imports.contains_key(&key) || committed(sequencer, caller, key.1).is_some() {
            return Place::There;
        }
        staging.give_up_idle(now_ms, remains);
        let full = staging.beginning.contains_key(&key)
            || staging.imports.len() + staging.beginning.len() >= STAGED_MAX
            || !staging.has_room(caller, now_ms, remains);
        if full || staging.next_batch.0 >= CardRef::BATCHES_MAX - 1 {
            return Place::None;
        }
        let batch = staging.next_batch;
        staging.next_batch = BatchId(batch.0 + 1);
        staging.beginning.insert(key, caller.principal);
        Place::Taken(batch)
    }

    fn create(&self, vault: &Vault, caller: Caller, batch: BatchId, spec: ImportSpec) -> io::Result<Staged> {
        let (key_id, key) = vault.create_key()?;
        let layout = Layout::new(batch.0, self.store, key_id, &spec);
        let file = self.medium.create(&staging_path(batch)).inspect_err(|_| vault.drop_key(key_id))?;
        Ok(Staged::new(caller, spec, layout, key, file))
    }

    /// See [`Engine::give_up_imports`](crate::Engine::give_up_imports).
    pub fn give_up_abandoned(&self, sequencer: &Sequencer, vault: &Vault) -> usize {
        if self.staged.lock().imports.is_empty() {
            return 0;
        }
        // Engine time stands still while nothing is asked; a turn moves it.
        let turn = sequencer.begin(2 * HEAD_BYTES);
        let now_ms = turn.state.now_ms;
        turn.end();
        let mut remains = Vec::new();
        let given_up = self.staged.lock().give_up_idle(now_ms, &mut remains);
        for remains in remains {
            self.remove(vault, &remains);
        }
        given_up
    }

    /// See [`Engine::import_chunk`](crate::Engine::import_chunk).
    pub fn chunk(
        &self,
        sequencer: &Sequencer,
        vault: &Vault,
        caller: Caller,
        id: RequestId,
        first_row: u64,
        rows: &mut dyn Iterator<Item = ImportRow<'_>>,
    ) -> Reply {
        let import = match self.find(sequencer, caller, id) {
            Found::Staged(import) => import,
            Found::Other(reply) => return reply,
        };
        let Some(mut staged) = import.hold() else { return plain(sequencer, id, Status::Busy) };
        if staged.stage != Stage::Open {
            return staged.reply(sequencer, id, Status::IllegalTransition);
        }
        if first_row > staged.received {
            // A chunk is missing in between.
            return staged.reply(sequencer, id, Status::Malformed);
        }
        let skip = (staged.received - first_row) as usize;
        import.touch(sequencer.state().now_ms);
        let taken = staged.take(vault, sequencer, &mut rows.skip(skip));
        *import.report.lock() = staged.report();
        match taken {
            Ok(()) => staged.reply(sequencer, id, Status::Ok),
            Err(Bad::Row(row)) => {
                let mut reply = staged.reply(sequencer, id, Status::Malformed);
                reply.body = ReplyBody::Import(ImportReport { rows: row, ..staged.report() });
                reply
            }
            Err(Bad::Io(error)) => staged.reply(sequencer, id, io_status(&error)),
        }
    }

    /// See [`Engine::import_status`](crate::Engine::import_status).
    pub fn status(&self, sequencer: &Sequencer, caller: Caller, id: RequestId) -> Reply {
        match self.find(sequencer, caller, id) {
            Found::Staged(import) => import.reply(sequencer, id, Status::Ok),
            Found::Other(reply) => reply,
        }
    }

    /// See [`Engine::import_duplicates`](crate::Engine::import_duplicates).
    pub fn duplicates(&self, sequencer: &Sequencer, caller: Caller, id: RequestId, from: u64) -> Reply {
        let import = match self.find(sequencer, caller, id) {
            Found::Staged(import) => import,
            Found::Other(reply) => return reply,
        };
        let Some(staged) = import.hold() else { return plain(sequencer, id, Status::Busy) };
        let rest = usize::try_from(from).ok().and_then(|from| staged.duplicates.get(from..));
        let rest = rest.unwrap_or_default();
        let listed = &rest[..rest.len().min(DUPLICATES_MAX)];
        let mut reply = plain(sequencer, id, Status::Ok);
        let told = listed.iter().map(|duplicate| told(sequencer, caller, *duplicate));
        reply.body = ReplyBody::Duplicates(told.collect());
        if listed.len() < rest.len() {
            reply.flags = ReplyFlags::PARTIAL;
        }
        reply
    }

    /// See [`Engine::import_abort`](crate::Engine::import_abort).
    pub fn abort(&self, sequencer: &Sequencer, vault: &Vault, caller: Caller, id: RequestId) -> Reply {
        let import = match self.find(sequencer, caller, id) {
            Found::Staged(import) => import,
            // Committed: there is nothing to give up any more.
            Found::Other(reply) if reply.status.is_done() => {
                return plain(sequencer, id, Status::IllegalTransition);
            }
            Found::Other(reply) => return reply,
        };
        let Some(mut staged) = import.hold() else { return plain(sequencer, id, Status::Busy) };
        if staged.stage == Stage::Closed {
            // It was committed, or given up, while this waited.
            let status = match committed(sequencer, caller, id) {
                Some(_) => Status::IllegalTransition,
                None => Status::NotFound,
            };
            return plain(sequencer, id, status);
        }
        self.discard(vault, &mut staged);
        self.forget(caller, id);
        staged.reply(sequencer, id, Status::Ok)
    }

    /// Removes what was staged. Its digests in the index lead to a batch that never comes.
    fn discard(&self, vault: &Vault, staged: &mut Staged) {
        self.remove(vault, &staged.close());
    }

    fn remove(&self, vault: &Vault, remains: &Remains) {
        vault.drop_key(remains.key);
        for path in [staging_path(remains.batch), Layout::path(remains.batch.0)] {
            // What cannot be removed now is removed as an orphan at the next start.
            let _ = self.medium.remove(&path);
        }
    }

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
        if grounds.is_some_and(|grounds| !grounds.is_sane()) {
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

/// Whether an import may begin.
enum Place {
    /// As this batch.
    Taken(BatchId),
    /// It has begun, or was committed.
    There,
    /// There is none now.
    None,
}

impl Staging {
    /// Takes out the imports that nobody goes on with; how many.
    fn give_up_idle(&mut self, now_ms: u64, remains: &mut Vec<Remains>) -> usize {
        let before = self.imports.len();
        self.imports.retain(|_, import| import.idle_ms(now_ms) <= ABANDONED_MS || !import.give_up(remains));
        before - self.imports.len()
    }

    /// Whether a principal may begin one more; one of its own that it does not go on with gives way.
    fn has_room(&mut self, caller: Caller, now_ms: u64, remains: &mut Vec<Remains>) -> bool {
        let own = || self.imports.iter().filter(|(_, import)| import.caller.principal == caller.principal);
        let beginning = self.beginning.values().filter(|principal| **principal == caller.principal).count();
        if own().count() + beginning < STAGED_OF_ONE_MAX {
            return true;
        }
        let idle = own().filter(|(_, import)| import.idle_ms(now_ms) > GIVES_WAY_MS);
        let longest = idle.max_by_key(|(_, import)| import.idle_ms(now_ms));
        let Some((key, import)) = longest.map(|(key, import)| (*key, Arc::clone(import))) else {
            return false;
        };
        let given_up = import.give_up(remains);
        if given_up {
            self.imports.remove(&key);
        }
        given_up
    }
}

enum Found {
    Staged(Arc<Import>),
    Other(Reply),
}

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

/// Whether a caller may know what is in a batch beside that its cards are known: an issuer of its own imports.
fn may_see(caller: Caller, batch: &Batch) -> bool {
    caller.role != Role::Issuer || batch.imported_by == caller.principal
}

/// What a caller is told of a duplicate.
fn told(sequencer: &Sequencer, caller: Caller, duplicate: Duplicate) -> Duplicate {
    let batch = duplicate.batch.and_then(|batch| sequencer.table.batch(batch));
    match batch {
        Some(batch) if !may_see(caller, batch) => Duplicate::elsewhere(duplicate.row),
        _ => duplicate,
    }
}

/// Adds a batch's digests to the index; returns those that were there.
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
    let mut duplicates = Vec::new();
    let mut digests = Vec::new();
    let mut first = 0;
    while first < rows {
        let count = INDEX_ROWS.min(rows - first);
        file.read(0, first, count as usize, &mut digests)?;
        index.insert_all(
            staged::digests(&digests).zip(first..).map(|(digest, row)| (digest, CardRef::new(batch.0, row))),
            // The entry may be there from an earlier attempt to commit this import. One of another batch
            // that is not committed is a remnant, or that import's loss: whoever commits first has the card.
            |card, present| {
                present == card || present.batch() != batch.0 && table.batch_of(present).is_none()
            },
            |card, present| {
                if duplicates.len() < DUPLICATES_MAX {
                    let other = BatchId(present.batch());
                    let batch = (other != batch).then_some(other);
                    duplicates.push(Duplicate { row: card.row(), batch, other_row: present.row() });
                }
            },
        );
        first += count;
    }
    Ok(duplicates)
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

/// Why an import cannot begin.
fn refusal(sequencer: &Sequencer, caller: Caller, spec: &ImportSpec) -> Option<Status> {
    let code_bytes = CODE_BYTES_MIN..=CODE_BYTES_MAX;
    let sane = (1..CardRef::ROWS_MAX).contains(&spec.rows)
        && code_bytes.contains(&usize::from(spec.code_bytes_max))
        && ImportSpec::is_label(&spec.label)
        && spec.face.is_none_or(|face| face >= 0);
    if !sane {
        return Some(Status::Malformed);
    }
    let state = sequencer.state();
    match state.scope(caller.principal) {
        None => return Some(Status::Unauthenticated),
        Some(scope) if !scope.covers(spec.product) => return Some(Status::ScopeDenied),
        Some(_) => {}
    }
    let Some(product) = state.product(spec.product, caller.tenant) else { return Some(Status::NotFound) };
    if spec.origins && caller.role != Role::Admin {
        return Some(Status::Forbidden);
    }
    if spec.origins && product.product.spec.kind == CardKind::Shared {
        // How many of its uses were sold and used elsewhere, no state of a card says.
        return Some(Status::SharedUnfit);
    }
    let over = spec.expires_ms != 0 && spec.expires_ms <= state.now_ms.max(spec.valid_from_ms);
    over.then_some(Status::Expired)
}

/// An import that was committed before, and the reply it had.
fn committed(sequencer: &Sequencer, caller: Caller, id: RequestId) -> Option<(&Batch, Reply)> {
    let state = sequencer.state();
    let batch = *state.imports.get(&(caller.tenant, id))?;
    let batch = sequencer.table.batch(batch).expect("its import is committed");
    let reply = Reply {
        request: id,
        status: Status::Ok,
        flags: ReplyFlags::REPLAYED,
        lsn: Some(batch.import_lsn),
        time_ms: batch.imported_ms,
        miss: false,
        body: ReplyBody::Batches(vec![state.batch_report(batch)]),
    };
    Some((batch, reply))
}

/// Whether a committed batch is what `caller` announces with `spec`: its entry in the log knows.
fn is_same(sequencer: &Sequencer, batch: &Batch, caller: Caller, spec: &ImportSpec) -> Result<bool, Status> {
    let mut buffer = Vec::new();
    let mut chain = Chain::new(&sequencer.wal, &mut buffer);
    let body = chain.entry(batch.import_lsn).map_err(|error| chain_failed(&error))?.head.body;
    Ok(batch.imported_by == caller.principal && body == spec.body())
}

fn plain(sequencer: &Sequencer, id: RequestId, status: Status) -> Reply {
    let time_ms = sequencer.state().now_ms;
    Reply {
        request: id,
        status,
        flags: ReplyFlags::default(),
        lsn: None,
        time_ms,
        miss: false,
        body: ReplyBody::None,
    }
}

fn io_status(error: &io::Error) -> Status {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Status::DiskFull,
        _ => Status::ReadOnly,
    }
}

/// An import as a request, for what requests have in common.
fn import_request(caller: Caller, id: RequestId) -> Request {
    Request {
        id,
        caller,
        terminal: crate::TerminalId(0),
        channel: crate::ChannelId(0),
        deadline: None,
        command: Command::Stats,
        grounds: None,
    }
}

fn staging_path(batch: BatchId) -> String {
    Layout::path(batch.0) + STAGING_SUFFIX
}
