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

mod commit;
mod place;
mod seen;
mod spec;
mod staged;

pub(crate) use commit::index_batch;
pub use spec::{ImportRow, ImportSpec};

use std::io;
use std::sync::Arc;
use std::time::Duration;

use kami_wal::Medium;
use place::{Place, Staging};
use staged::{Bad, Stage, Staged};

use crate::batch::Layout;
use crate::chain::Chain;
use crate::code::{CODE_BYTES_MAX, CODE_BYTES_MIN};
use crate::command::{Command, Request};
use crate::identity::{BatchId, Caller, RequestId, Role, TenantId};
use crate::product::CardKind;
use crate::record::HEAD_BYTES;
use crate::reply::{DUPLICATES_MAX, Duplicate, ImportReport, Reply, ReplyBody, ReplyFlags};
use crate::sequencer::{Sequencer, chain_failed};
use crate::status::Status;
use crate::sync::Ordering;
use crate::sync::coarse::{AtomicU64, Mutex, MutexGuard};
use crate::table::Batch;
use crate::vault::Vault;
use crate::word::CardRef;

/// How long a command waits for one that works on the same import.
const HOLD_WAIT: Duration = Duration::from_secs(1);
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
        let staged = Mutex::new(Staging::new(next_batch));
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
}

enum Found {
    Staged(Arc<Import>),
    Other(Reply),
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
