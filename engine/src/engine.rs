//! The engine: open, execute, wait, close.

mod imports;
mod options;

pub use options::{EngineOptions, OpenError, RevealError};

use std::future::Future;
use std::sync::Arc;

use kami_wal::{CommitPath, Durable, DurableWaiter, Lsn, Medium, Poisoned, planted};

use crate::batch;
use crate::checkpoint::{self, CheckpointError};
use crate::clock::{Running, check_step};
use crate::code::{Code, CodeError, CodeGroup};
use crate::command::{Command, Request};
use crate::grounds::Grounds;
use crate::identity::{Caller, CardDigest, ChannelId, PinDigest, Principal, RequestId, TenantId, TerminalId};
use crate::import::Imports;
use crate::proof::Prover;
use crate::record::{CLOCKS_BYTES, HEAD_BYTES, Kind};
use crate::recovery::{newest_snapshot, remove_orphans, replay};
use crate::replay::Rebuild;
use crate::reply::{Checkpoint, ImportReport, Reply, ReplyBody};
use crate::sequencer::{Sequencer, Work};
use crate::state::State;
use crate::store::Identity;
use crate::sync::Ordering;
use crate::sync::coarse::{AtomicU64, Mutex};
use crate::upkeep::Rotations;
use crate::vault::{CodeList, KeyError, Vault};
use crate::word::CardRef;

/// The exit code of a process whose log failed.
pub const EXIT_POISONED: i32 = 5;

/// The engine: a cheap handle, clones share one store.
///
/// Dropping the last handle ends the engine as a crash would: nothing acknowledged is lost, and the next
/// start recovers. [`Engine::close`] is the orderly way out.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

struct Shared {
    sequencer: Sequencer,
    vault: Vault,
    imports: Imports,
    data: Arc<dyn Medium>,
    store: u64,
    /// One checkpoint at a time.
    checkpoints: Mutex<()>,
    rotations: Rotations,
    /// The log from here on is what the next start replays. A position of its own after a start, which begins
    /// a new segment: so far before the log's end then as what it replayed was long.
    replay_from: AtomicU64,
    prover: Prover,
}

impl Engine {
    /// Opens a store, or makes a new one where there is nothing, and recovers it.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(options: EngineOptions) -> Result<Engine, OpenError> {
        let EngineOptions { data, keys, mut wal, clock, accept_clock } = options;
        let io = |what| move |source| OpenError::Io { what, source };
        let identity = Identity::read(&*data)?;
        let vault = Vault::open(Arc::clone(&keys), identity.is_none())?;
        let identity = match identity {
            Some(identity) if identity.key_check != vault.lookup().check_value() => {
                return Err(KeyError::Wrong { file: "lookup.key" }.into());
            }
            Some(identity) => identity,
            None => Identity::create(&*data, vault.lookup().check_value())
                .map_err(io("making the store's identity"))?,
        };
        vault.settle()?;
        data.create_dir(batch::DIRECTORY).map_err(io("making the batch directory"))?;

        wal.store_id = Some(identity.store);
        let (rebuild, from) = newest_snapshot(&data, identity.store, &vault)?;
        let now = clock.read();
        let believe = |state: &State| match accept_clock {
            true => Ok(()),
            false => check_step(&now, &state.clocks, state.now_ms),
        };
        let (index, rebuild, wal) = replay(&data, wal, &vault, rebuild, from, &believe)?;
        let Rebuild { table, mut state, log_bytes, .. } = rebuild;
        let replay_from = AtomicU64::new(wal.tail().bytes().saturating_sub(log_bytes));

        // Again: replaying may have taken a while.
        let now = clock.read();
        let running = Running::start(&now, state.now_ms);
        state.clocks = now;
        remove_orphans(&*data, &table).map_err(io("removing what a crashed import left"))?;
        state.settle(&table);
        let imports = Imports::new(Arc::clone(&data), identity.store, state.next_batch());
        let sequencer = Sequencer::new(index, table, wal, state, clock, running, vault.lookup().mark_key());
        let checkpoints = Mutex::new(());
        let rotations = Rotations::default();
        let store = identity.store;
        let prover = Prover::new(Arc::clone(&data), keys, store);
        let shared =
            Shared { sequencer, vault, imports, data, store, checkpoints, rotations, replay_from, prover };
        let engine = Engine { shared: Arc::new(shared) };
        engine.record_start(&now)?;
        Ok(engine)
    }

    pub(crate) fn sequencer(&self) -> &Sequencer {
        &self.shared.sequencer
    }

    pub(crate) fn prover(&self) -> &Prover {
        &self.shared.prover
    }

    fn record_start(&self, clocks: &crate::record::Clocks) -> Result<(), OpenError> {
        let sequencer = &self.shared.sequencer;
        sequencer.wait_space();
        let mut turn = sequencer.begin(2 * HEAD_BYTES + CLOCKS_BYTES);
        if !turn.has_credit() {
            return Err(OpenError::DiskFull);
        }
        let request = Request {
            id: RequestId::default(),
            caller: Caller::LOCAL,
            terminal: TerminalId(0),
            channel: ChannelId(0),
            deadline: None,
            command: Command::Stats,
            grounds: None,
        };
        turn.append(HEAD_BYTES + CLOCKS_BYTES, |group| {
            group.push(&request.head(Kind::Start, 0), CLOCKS_BYTES, |tail| clocks.encode(tail))
        });
        turn.end();
        let tail = sequencer.wal.tail();
        sequencer.wal.wait_durable(tail).map_err(|Poisoned| kami_wal::OpenError::Poisoned.into())
    }

    /// Normalises a code and takes its keyed digest, by which all commands name their card.
    ///
    /// # Errors
    /// If it cannot be a code.
    #[inline]
    pub fn digest(&self, tenant: TenantId, code: &[u8]) -> Result<CardDigest, CodeError> {
        Ok(self.shared.vault.lookup().digest(tenant, &mut Code::normalise(code)?))
    }

    /// The digests of the codes of a group, together: see [`CodeGroup::digests`] and [`CodeGroup::take`]. Whoever has many
    /// codes at once saves most of what [`Engine::digest`] costs.
    #[inline]
    pub fn digest_group(&self, tenant: TenantId, codes: &mut CodeGroup) {
        codes.digest(tenant, self.shared.vault.lookup());
    }

    /// The keyed digest of a PIN of a card.
    #[must_use]
    pub fn pin_digest(&self, card: CardDigest, pin: &[u8]) -> PinDigest {
        self.shared.vault.lookup().pin_digest(card, pin)
    }

    /// Decides the requests in order and fills in their replies. Takes microseconds and never waits for
    /// the disk, but for log records of cards with a past that are no longer in memory.
    ///
    /// **The replies must not leave before the log is durable up to [`Work::durable_at`].**
    ///
    /// # Panics
    /// If there are more than [`Work::REQUESTS_MAX`] requests.
    pub fn execute(&self, work: &mut Work) {
        self.shared.sequencer.execute(work);
    }

    /// As [`Engine::execute`], for whoever has more to decide at once: a commit costs the same however much it covers, so
    /// none is asked for. The log becomes durable up to [`Work::durable_at`] only after [`Engine::commit_soon`], which
    /// must be called before anybody waits for that, or for room in the log.
    ///
    /// # Panics
    /// As that.
    pub fn decide(&self, work: &mut Work) {
        self.shared.sequencer.decide(work);
    }

    /// Asks for a commit of all that was decided, and returns at once.
    pub fn commit_soon(&self) {
        self.shared.sequencer.wal.kick();
    }

    /// Decides one request and waits, blocking the thread, until its reply may be believed.
    ///
    /// # Errors
    /// If the log failed: the outcome is unknown, and the engine is dead.
    pub fn submit_blocking(&self, request: Request) -> Result<Reply, Poisoned> {
        self.shared.sequencer.wait_space();
        let (reply, durable_at) = self.execute_one(request);
        self.shared.sequencer.wal.wait_durable(durable_at)?;
        Ok(reply)
    }

    /// Decides one request and waits until its reply may be believed.
    ///
    /// # Errors
    /// If the log failed: the outcome is unknown, and the engine is dead.
    pub async fn submit(&self, request: Request) -> Result<Reply, Poisoned> {
        self.space().await;
        let (reply, durable_at) = self.execute_one(request);
        self.durable(durable_at).await?;
        Ok(reply)
    }

    fn execute_one(&self, request: Request) -> (Reply, Lsn) {
        let mut work = Work::default();
        work.requests.push(request);
        self.execute(&mut work);
        let reply = work.replies.pop().expect("one reply a request");
        (reply, work.durable_at().expect("executed"))
    }

    /// Whether there is room for more changes. When not, wait for [`Engine::space`] before executing;
    /// changes executed without room are answered BUSY or DISK_FULL.
    #[must_use]
    pub fn has_space(&self) -> bool {
        self.shared.sequencer.wal.has_space()
    }

    /// Resolves when there is room again, or when waiting is no use (a full disk).
    pub fn space(&self) -> impl Future<Output = ()> + Send + use<> {
        self.shared.sequencer.wal.space()
    }

    /// The first position that is not known durable.
    #[must_use]
    pub fn durable_end(&self) -> Lsn {
        self.shared.sequencer.wal.durable_end()
    }

    /// Where the log ends now: everything decided so far stands below.
    #[must_use]
    pub fn tail(&self) -> Lsn {
        self.shared.sequencer.wal.tail()
    }

    /// A place to wait in, for a task that waits again and again.
    #[must_use]
    pub fn waiter(&self) -> DurableWaiter {
        self.shared.sequencer.wal.waiter()
    }

    /// A future that resolves when everything below `lsn` is durable.
    #[must_use]
    pub fn durable(&self, lsn: Lsn) -> Durable {
        self.shared.sequencer.wal.durable(lsn)
    }

    /// Blocks until everything below `lsn` is durable.
    ///
    /// # Errors
    /// If the log failed.
    pub fn wait_durable(&self, lsn: Lsn) -> Result<(), Poisoned> {
        self.shared.sequencer.wal.wait_durable(lsn)
    }

    /// Decrypts the codes that a durable reply lists, in the order's sequence. `each` gets the card and
    /// its code; the plaintext is wiped afterwards.
    ///
    /// # Errors
    /// See [`RevealError`]. What `each` was given before is right.
    pub fn reveal(&self, list: &CodeList, each: &mut dyn FnMut(CardRef, &[u8])) -> Result<(), RevealError> {
        if self.durable_end() < list.durable_at && !planted("reveal-before-durable") {
            return Err(RevealError::NotDurable);
        }
        list.reveal(&self.shared.sequencer.table, each)
    }

    /// The principal that owns a key (SHA-256 of the DER `SubjectPublicKeyInfo`), unless it was revoked.
    #[must_use]
    pub fn principal_by_key(&self, key: &[u8; 32]) -> Option<Principal> {
        let state = self.shared.sequencer.state();
        let id = *state.principal_keys.get(key)?;
        let principal = &state.principals[id.0 as usize - 1].principal;
        (!principal.revoked).then(|| principal.clone())
    }

    /// Waits until what the reply rests on is durable. Rows that were staged rest on nothing in the log,
    /// unless some of them are there already.
    pub(crate) fn settled(&self, reply: Reply) -> Result<Reply, Poisoned> {
        let staged = reply.status.is_done()
            && matches!(reply.body, ReplyBody::Import(ImportReport { duplicates: 0, .. }));
        if !staged {
            let wal = &self.shared.sequencer.wal;
            wal.wait_durable(wal.tail())?;
        }
        Ok(reply)
    }

    /// How segments reach the disk.
    #[must_use]
    pub fn commit_path(&self) -> CommitPath {
        self.shared.sequencer.wal.commit_path()
    }

    /// Writes a snapshot of the whole state while commands go on, so that the next start replays only
    /// what comes after it. Blocking: about a second for ten million cards.
    ///
    /// # Errors
    /// See [`CheckpointError`]; the store is as it was.
    pub fn checkpoint(&self) -> Result<Checkpoint, CheckpointError> {
        self.checkpoint_beside(|| ())
    }

    /// The same, with `between` called wherever a command of another thread might come in between: for tests
    /// that must be able to repeat what did. It may do anything but make another checkpoint.
    ///
    /// # Errors
    /// See [`Engine::checkpoint`].
    pub fn checkpoint_beside(&self, between: impl FnMut()) -> Result<Checkpoint, CheckpointError> {
        let _one_at_a_time = self.shared.checkpoints.lock();
        self.write_checkpoint(between)
    }

    /// The same, unless one is being written.
    pub(crate) fn try_checkpoint(&self) -> Option<Result<Checkpoint, CheckpointError>> {
        let _one_at_a_time = self.shared.checkpoints.try_lock()?;
        Some(self.write_checkpoint(|| ()))
    }

    /// How many bytes of log the next start replays: what was logged since the newest snapshot began.
    #[must_use]
    pub fn replay_bytes(&self) -> u64 {
        self.durable_end().bytes().saturating_sub(self.shared.replay_from.load(Ordering::Relaxed))
    }

    fn write_checkpoint(&self, between: impl FnMut()) -> Result<Checkpoint, CheckpointError> {
        let Shared { sequencer, data, store, replay_from, .. } = &*self.shared;
        let begun_ms = sequencer.clock.boot_ms();
        let header = checkpoint::write(sequencer, &**data, *store, between)?;
        replay_from.store(header.start.bytes(), Ordering::Relaxed);
        let took_ms = sequencer.clock.boot_ms().saturating_sub(begun_ms);
        Ok(Checkpoint { start: header.start, end: header.end, bytes: header.file_bytes(), took_ms })
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.shared.sequencer.state().now_ms
    }

    /// Wraps the keys of all batches with a new master key, while everything goes on. Blocking. The same request
    /// again, in the life of this engine, is the same rotation.
    ///
    /// # Errors
    /// If the log failed: the key may have been rotated.
    pub fn rotate_master(&self, caller: Caller, id: RequestId) -> Result<Reply, Poisoned> {
        self.rotate_master_on(caller, id, None)
    }

    /// The same, on grounds that are kept with it. They are not part of what makes it the same rotation: it has
    /// happened, whatever is said of it later.
    ///
    /// # Errors
    /// As [`Engine::rotate_master`].
    pub fn rotate_master_on(
        &self,
        caller: Caller,
        id: RequestId,
        grounds: Option<Box<Grounds>>,
    ) -> Result<Reply, Poisoned> {
        let Shared { sequencer, vault, rotations, .. } = &*self.shared;
        sequencer.wait_space();
        self.settled(rotations.rotate(sequencer, vault, caller, id, grounds))
    }

    /// Checks the invariants over all cards, which takes a look at each: that counters are the sums of
    /// states, and that nothing for sale is passed over.
    ///
    /// # Errors
    /// The first violation, in words.
    pub fn check(&self) -> Result<(), String> {
        let sequencer = &self.shared.sequencer;
        sequencer.state().check(&sequencer.table)
    }

    /// BLAKE3 of the whole state in a canonical form, which [`verify`](crate::verify) computes from the
    /// log: memory and log agree if these do. Holds up all commands meanwhile; for tests and proofs.
    #[must_use]
    pub fn state_hash(&self) -> [u8; 32] {
        let sequencer = &self.shared.sequencer;
        sequencer.state().hash(&sequencer.table)
    }

    /// For a log that is driven by hand: commits what was appended and prepares segments.
    ///
    /// # Errors
    /// If the log failed.
    pub fn drive(&self) -> Result<(), Poisoned> {
        let wal = &self.shared.sequencer.wal;
        wal.commit()?;
        let _ = wal.prepare();
        Ok(())
    }

    /// Waits until everything executed so far is durable. The store is released when the last handle is
    /// dropped.
    ///
    /// # Errors
    /// If the log failed.
    pub fn close(self) -> Result<(), Poisoned> {
        let sequencer = &self.shared.sequencer;
        sequencer.wal.wait_durable(sequencer.wal.tail())
    }
}
