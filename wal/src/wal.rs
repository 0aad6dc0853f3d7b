//! The log as its user sees it: options, appending, waiting, closing.

use std::fmt;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::append::{Appended, Appender, Identity};
use crate::chain::Chain;
use crate::commit::{CommitCounts, Committer};
use crate::durable::{Durability, Durable, Poisoned, Waiter};
use crate::error::{OpenError, ReadError};
use crate::format::{RECORD_HEAD_BYTES, RecordHead, segment_bytes_allowed};
use crate::histogram::Distribution;
use crate::lsn::Lsn;
use crate::medium::{CommitPath, Medium};
use crate::parker::{Bell, Parker};
use crate::planted::planted;
use crate::read::SegmentFiles;
use crate::recover::{Recovered, Recovery};
use crate::replay::{Record, ReplayFrom};
use crate::segment::{ActiveSegment, Geometry};
use crate::space::{NoSpace, Space, SpaceWaiters, cost};
use crate::sync::coarse::RwLock;
use crate::sync::coarse::thread::JoinHandle;
use crate::sync::{AtomicBool, AtomicU64, Mutex, Ordering};
use crate::{drive, segment};

/// Who makes the log durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drive {
    /// A committer and a preparer thread.
    Threads,
    /// Nobody but the caller, by [`Wal::commit`], [`Wal::prepare`] and [`Wal::seal`]: for tests that
    /// must be able to repeat every step.
    Manual,
}

/// How a log is kept.
pub struct WalOptions {
    /// The store the log belongs to. `None` takes whatever the log says, and draws an id for a new one.
    pub store_id: Option<u64>,
    /// The length of a segment file of a *new* log; an existing one keeps its own. Default 64 MiB;
    /// 64 KiB to 1 GiB, a multiple of 4096. Each segment in use or ready costs as much memory.
    pub segment_bytes: u64,
    /// The epoch of this opening is at least this. Default 0. A restored log begins far behind every epoch of the
    /// history it was taken from, so that no record of the one passes for a record of the other.
    pub epoch_min: u32,
    /// How many segments are kept ready. Default 2; at least 1. Each costs its length on disk and in
    /// memory.
    pub ready_segments: usize,
    /// Who commits. Default threads.
    pub drive: Drive,
    /// How long the committer must have been idle before it seals. Default 5 ms.
    pub seal_after: Duration,
    /// How soon preparing a segment is tried again after the disk was full. Default 100 ms.
    pub retry_disk_full_after: Duration,
    /// Called once, with what happened, when a write or sync failed. The process should end: nothing
    /// will be acknowledged any more. Default nothing.
    pub on_poison: Option<PoisonHook>,
}

/// See [`WalOptions::on_poison`].
pub type PoisonHook = Box<dyn Fn(&str) + Send + Sync>;

impl Default for WalOptions {
    fn default() -> Self {
        Self {
            store_id: None,
            segment_bytes: 64 << 20,
            epoch_min: 0,
            ready_segments: 2,
            drive: Drive::Threads,
            seal_after: Duration::from_millis(5),
            retry_disk_full_after: Duration::from_millis(100),
            on_poison: None,
        }
    }
}

impl WalOptions {
    pub(crate) fn check(&self) -> Result<(), OpenError> {
        if !segment_bytes_allowed(self.segment_bytes) {
            let why = "must be a multiple of 4096 from 64 KiB to 1 GiB";
            return Err(OpenError::Options { name: "segment_bytes", why });
        }
        if self.ready_segments == 0 {
            return Err(OpenError::Options { name: "ready_segments", why: "must be at least 1" });
        }
        Ok(())
    }
}

/// An open log. Used through an `Arc` by all threads of the process.
///
/// Dropping it stops its threads and commits nothing: what was not durable stays undecided, as after a
/// crash. [`Wal::close`] is the orderly way out.
pub struct Wal {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    recovered: Recovered,
}

/// What the appender, the committer, the preparer and the readers share.
pub(crate) struct Shared {
    pub medium: Arc<dyn Medium>,
    pub options: WalOptions,
    pub geometry: Geometry,
    pub identity: Identity,
    pub appender: Mutex<Appender>,
    pub space: Mutex<Space>,
    pub space_waiters: SpaceWaiters,
    pub committer: Mutex<Committer>,
    pub commit_counts: CommitCounts,
    /// Everything below is complete in memory.
    pub tail: AtomicU64,
    pub durability: Arc<Durability>,
    /// The segments whose records are in memory, oldest first: the current one and those not
    /// completely committed.
    pub held: RwLock<Vec<Arc<ActiveSegment>>>,
    pub files: SegmentFiles,
    /// The number of the segment to prepare next; locked while one is being prepared.
    pub next_segment: Mutex<u32>,
    /// Asks for a commit.
    pub commit_bell: Bell,
    pub preparer_parker: Parker,
    pub stopping: AtomicBool,
}

/// Counters of an open log.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Stats {
    /// Writes that made something durable.
    pub commits: u64,
    /// How many of them went to a tail slot.
    pub slot_commits: u64,
    /// How many bytes all of them wrote.
    pub bytes_written: u64,
    /// Bytes by commit.
    pub commit_bytes: Distribution,
    /// Microseconds by commit, of the write and its sync alone.
    pub commit_us: Distribution,
    /// Where the next record goes.
    pub tail: Lsn,
    /// The first position not known durable.
    pub durable_end: Lsn,
    /// How many segments are ready.
    pub ready_segments: usize,
}

/// Room in the log, to be used by [`Wal::append`]. What is not used is given back when it is dropped.
pub struct Credit {
    shared: Arc<Shared>,
    cost: u64,
}

impl Drop for Credit {
    fn drop(&mut self) {
        if self.cost != 0 {
            self.shared.space.lock().give_back(self.cost);
        }
    }
}

impl Wal {
    /// Opens the log on `medium`, or begins one, and hands every DATA record at or after `from` to
    /// `visit`, in order.
    ///
    /// What a crash left behind is put in order first: in the steps at the head of `recover.rs`. When this
    /// returns, everything `visit` has seen is durable, and the log goes on behind it.
    ///
    /// # Errors
    /// If anything acknowledged is damaged or missing (see [`OpenError::is_damage`]), if the medium
    /// fails, or if `visit` refuses a record. Nothing acknowledged is lost by trying again.
    pub fn open<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
        medium: Arc<dyn Medium>,
        options: WalOptions,
        from: Option<ReplayFrom>,
        visit: &mut dyn FnMut(Record<'_>) -> Result<(), E>,
    ) -> Result<Self, OpenError> {
        Self::open_if(medium, options, from, visit, &mut || Ok(()))
    }

    /// The same, and asks `agree` when all records were handed over and before anything is changed: what is
    /// refused then costs nothing, however often it is tried. A log without records is not asked about.
    ///
    /// # Errors
    /// See [`Wal::open`]; what `agree` refuses is [`OpenError::Refused`] at the end of the log.
    pub fn open_if<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
        medium: Arc<dyn Medium>,
        options: WalOptions,
        from: Option<ReplayFrom>,
        visit: &mut dyn FnMut(Record<'_>) -> Result<(), E>,
        agree: &mut dyn FnMut() -> Result<(), E>,
    ) -> Result<Self, OpenError> {
        options.check()?;
        let recovery = Recovery { medium: &*medium, options: &options, from };
        let (recovered, first) = recovery
            .run(&mut |record| visit(record).map_err(Into::into), &mut || agree().map_err(Into::into))?;

        let geometry = Geometry { segment_bytes: recovered.segment_bytes };
        let identity = Identity { store_id: recovered.store_id, epoch: recovered.epoch };
        let number = first.active.number;
        let active = Arc::clone(&first.active);
        let prev_end = recovered.tail.map_or(0, Lsn::bytes);
        let appender = Appender::begin(geometry, identity, first, prev_end, recovered.chain, prev_end);
        let (tail, offset) = (appender.tail(), appender.offset());
        let shared = Arc::new(Shared {
            medium,
            geometry,
            identity,
            appender: Mutex::new(appender),
            space: Mutex::new(Space::new(geometry, offset)),
            space_waiters: SpaceWaiters::default(),
            committer: Mutex::new(Committer::begin(
                identity,
                Arc::clone(&active),
                Chain::from(recovered.chain),
            )),
            commit_counts: CommitCounts::new(),
            tail: AtomicU64::new(tail),
            durability: Arc::new(Durability::new(prev_end)),
            held: RwLock::new(vec![active]),
            files: SegmentFiles::default(),
            next_segment: Mutex::new(number + 1),
            // Opening may have appended.
            commit_bell: Bell::new(true),
            preparer_parker: Parker::new(),
            stopping: AtomicBool::new(false),
            options,
        });
        // The SEGMENT record says where the log ended; from here on nothing behind that counts.
        shared.commit().map_err(|Poisoned| OpenError::Poisoned)?;
        let threads = match shared.options.drive {
            Drive::Threads => drive::start(&shared).map_err(OpenError::io("starting a thread", ""))?,
            Drive::Manual => Vec::new(),
        };
        Ok(Self { shared, threads, recovered })
    }

    /// What its threads work on: for readers, and for the models that stand in for the threads.
    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// What opening found.
    #[must_use]
    pub fn recovered(&self) -> &Recovered {
        &self.recovered
    }

    /// The store the log belongs to.
    #[must_use]
    pub fn store_id(&self) -> u64 {
        self.shared.identity.store_id
    }

    /// How often the log was opened, this time included.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.shared.identity.epoch
    }

    /// How segments reach the disk.
    #[must_use]
    pub fn commit_path(&self) -> CommitPath {
        self.shared.medium.commit_path()
    }

    /// The longest payload of one record.
    #[must_use]
    pub fn payload_bytes_max(&self) -> usize {
        (self.shared.geometry.record_bytes_max() - RECORD_HEAD_BYTES) as usize
    }

    /// Reserves room for a record with `payload_bytes` bytes of payload. Each further record under the
    /// same credit costs 48 bytes more.
    ///
    /// # Errors
    /// See [`NoSpace`]; nothing has changed.
    pub fn reserve(&self, payload_bytes: usize) -> Result<Credit, NoSpace> {
        if self.shared.durability.is_poisoned() {
            return Err(NoSpace::Poisoned);
        }
        let cost = cost(payload_bytes as u64);
        self.shared.space.lock().grant(cost)?;
        Ok(Credit { shared: Arc::clone(&self.shared), cost })
    }

    /// Appends one record: `encode` writes the payload in place, at the position it is given, and
    /// returns how many bytes it used, a multiple of 8. The slice has at least `payload_bytes_max` bytes
    /// of unspecified content. Returning 0 appends nothing. It runs under the log's own lock and must not call the log.
    ///
    /// Neither waits nor touches the disk, and cannot fail: the credit saw to that. (What is appended to a
    /// log that was poisoned since never becomes durable.) Call [`Wal::kick`] after letting go of locks of
    /// your own.
    ///
    /// # Panics
    /// If the credit does not cover `payload_bytes_max`, or the payload is longer than a record can be.
    pub fn append(
        &self,
        credit: &mut Credit,
        payload_bytes_max: usize,
        encode: impl FnOnce(&mut [u8], Lsn) -> usize,
    ) -> Option<Appended> {
        let shared = &*self.shared;
        let payload_max = (payload_bytes_max as u64).next_multiple_of(8);
        assert!(payload_max + RECORD_HEAD_BYTES <= shared.geometry.record_bytes_max(), "too long a record");
        assert!(cost(payload_max) <= credit.cost, "the credit does not cover the append");
        assert!(std::ptr::eq(shared, &*credit.shared), "the credit belongs to another log");
        let durable_end = shared.durability.end();
        let mut appender = shared.appender.lock();
        let rotates = !appender.fits(payload_max);
        if rotates {
            let entered = appender.rotate(durable_end);
            shared.held.write().push(entered);
            shared.space.lock().rotated(appender.offset());
            shared.publish_tail(&appender);
        }
        let appended = appender.append(payload_max, durable_end, encode);
        if let Some(appended) = appended {
            let used = cost(appended.end.bytes() - appended.payload_lsn.bytes());
            credit.cost -= used;
            shared.space.lock().used(used, appender.offset());
            shared.publish_tail(&appender);
        }
        if rotates && planted("wake-under-the-lock") {
            shared.preparer_parker.wake();
        }
        drop(appender);
        if rotates {
            // Only now: the preparer looks at the appender while it goes to sleep, and a waker waits for
            // that. Waking it under the appender's lock would stop both for good.
            shared.preparer_parker.wake();
        }
        appended
    }

    /// Whether there is room for more records, or waiting for it is no use: the disk is full, or the log
    /// dead. Otherwise [`Wal::space`] or [`Wal::wait_space`] wait for it.
    #[must_use]
    pub fn has_space(&self) -> bool {
        self.shared.has_space()
    }

    /// Resolves when [`Wal::has_space`].
    pub fn space(&self) -> impl Future<Output = ()> + Send + use<> {
        let shared = Arc::clone(&self.shared);
        std::future::poll_fn(move |context| shared.space_waiters.poll(|| shared.has_space(), context))
    }

    /// Blocks until [`Wal::has_space`]. A log driven by hand is prepared by this call.
    pub fn wait_space(&self) {
        if self.shared.options.drive == Drive::Manual && !self.has_space() {
            // Whatever comes of it, the next look at the space tells.
            let _ = self.commit().map(|_| self.prepare());
            return;
        }
        self.shared.space_waiters.wait(|| self.shared.has_space());
    }

    /// Asks the committer for a commit of all that was appended, and wakes it if it sleeps. Nothing is committed unasked, so
    /// whoever appends calls this before anybody waits, for a commit or for room, without holding a lock; who will
    /// append more soon may do that first, since a commit costs the same however much it covers.
    pub fn kick(&self) {
        self.shared.commit_bell.ring();
    }

    /// Where the next record goes. Everything below is complete in memory and can be read, by any thread
    /// that has seen this value; it is not durable before [`Wal::durable_end`] says so.
    #[must_use]
    pub fn tail(&self) -> Lsn {
        crate::append::position(self.shared.tail.load(Ordering::Acquire))
    }

    /// The first position not known durable: a record boundary, never above the tail.
    #[must_use]
    pub fn durable_end(&self) -> Lsn {
        // A record is complete before the tail moves over it, and between the two the committer may take it along. Whoever
        // reads up to here must not be told that it lies beyond the tail.
        let end = self.shared.durability.end();
        crate::append::position(end.min(self.shared.tail.load(Ordering::Acquire)))
    }

    /// Whether a write has failed.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.shared.durability.is_poisoned()
    }

    /// A place to wait in, for a task that waits again and again.
    #[must_use]
    pub fn waiter(&self) -> DurableWaiter {
        DurableWaiter(Waiter::new(Arc::clone(&self.shared.durability)))
    }

    /// A future that resolves when everything below `end` is durable.
    #[must_use]
    pub fn durable(&self, end: Lsn) -> Durable {
        Durable::new(Arc::clone(&self.shared.durability), end.bytes())
    }

    /// Blocks until everything below `end` is durable. A log driven by hand is committed by this call.
    ///
    /// # Errors
    /// [`Poisoned`] if that will never be known.
    pub fn wait_durable(&self, end: Lsn) -> Result<(), Poisoned> {
        if self.shared.options.drive == Drive::Manual && self.shared.durability.end() < end.bytes() {
            self.commit()?;
        }
        self.kick();
        self.shared.durability.wait(end.bytes())
    }

    /// Reads the record at `lsn`: its payload into `payload`, which is cleared first. Everything about
    /// it is checked.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn read(&self, lsn: Lsn, payload: &mut Vec<u8>) -> Result<RecordHead, ReadError> {
        self.shared.read(lsn, payload)
    }

    /// Reads raw bytes at `lsn`, below the tail and inside one segment. Nothing about them is checked.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn read_bytes(&self, lsn: Lsn, buffer: &mut [u8]) -> Result<(), ReadError> {
        self.shared.read_bytes(lsn, buffer)
    }

    /// Makes everything appended before the call durable; returns whether there was anything. The
    /// committer thread does this by itself.
    ///
    /// # Errors
    /// [`Poisoned`] if that will never be known.
    pub fn commit(&self) -> Result<bool, Poisoned> {
        self.shared.commit()
    }

    /// Prepares segments until enough are ready. The preparer thread does this by itself.
    ///
    /// # Errors
    /// [`NoSpace::DiskFull`] if there is no room, which is not final; [`NoSpace::Poisoned`].
    pub fn prepare(&self) -> Result<(), NoSpace> {
        self.shared.prepare()
    }

    /// If everything is durable, makes sure a header in another block says so; returns whether that
    /// took a write. The committer thread does this by itself when it is idle.
    ///
    /// # Errors
    /// [`Poisoned`].
    pub fn seal(&self) -> Result<bool, Poisoned> {
        self.shared.seal()
    }

    /// Counters. Waits for no write.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let counts = &self.shared.commit_counts;
        let commit_us = counts.write_us.read();
        Stats {
            commits: commit_us.count(),
            slot_commits: counts.slot_commits.load(Ordering::Relaxed),
            bytes_written: counts.bytes.load(Ordering::Relaxed),
            commit_bytes: counts.write_bytes.read(),
            commit_us,
            durable_end: self.durable_end(),
            tail: self.tail(),
            ready_segments: self.shared.appender.lock().ready_count(),
        }
    }

    /// Commits everything, seals, and stops the threads.
    ///
    /// # Errors
    /// [`Poisoned`] if not everything became durable.
    pub fn close(self) -> Result<(), Poisoned> {
        self.shared.commit()?;
        self.shared.seal()?;
        Ok(())
    }
}

impl Drop for Wal {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        self.shared.commit_bell.parker.wake();
        self.shared.preparer_parker.wake();
        for thread in self.threads.drain(..) {
            // A panic in it was reported by its own hook; there is nobody to hand it to here.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Wal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wal")
            .field("tail", &self.tail())
            .field("durable_end", &self.durable_end())
            .field("poisoned", &self.is_poisoned())
            .finish_non_exhaustive()
    }
}

/// One task's place among those that wait for durability: see [`Wal::waiter`].
pub struct DurableWaiter(Waiter);

impl DurableWaiter {
    /// Ready when everything below `end` is durable or the log is dead; until then the task is woken
    /// once, by the commit that decides it.
    pub fn poll_durable(&mut self, end: Lsn, context: &Context<'_>) -> Poll<Result<(), Poisoned>> {
        self.0.poll(end.bytes(), context)
    }
}

impl Shared {
    /// Ends all acknowledgement, after `operation` failed.
    pub(crate) fn poison(&self, operation: &str, error: &io::Error) -> Poisoned {
        let first = self.durability.poison();
        self.space_waiters.notify();
        if first && let Some(hook) = &self.options.on_poison {
            hook(&format!("{operation} failed: {error}"));
        }
        Poisoned
    }

    fn has_space(&self) -> bool {
        self.durability.is_poisoned() || self.space.lock().is_settled()
    }

    /// Whether the preparer should make a segment now. The memory of one that was left comes back as soon as it is
    /// completely durable, and the next takes that while another is ready to go on in. A log that has none takes more, but
    /// a disk slower than the appender must not let memory grow.
    pub(crate) fn wants_segment(&self) -> bool {
        let ready = self.appender.lock().ready_count();
        let held_max = if ready == 0 { 1 + self.options.ready_segments } else { 1 };
        ready < self.options.ready_segments && self.held.read().len() <= held_max
    }

    /// See [`Wal::prepare`].
    pub(crate) fn prepare(&self) -> Result<(), NoSpace> {
        let mut next = self.next_segment.lock();
        while self.wants_segment() {
            if self.durability.is_poisoned() {
                return Err(NoSpace::Poisoned);
            }
            match segment::create(&*self.medium, self.geometry, self.identity.store_id, *next) {
                Ok(ready) => {
                    *next += 1;
                    let mut appender = self.appender.lock();
                    appender.add_ready(ready);
                    self.space.lock().prepared();
                    drop(appender);
                    self.space_waiters.notify();
                }
                Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                    self.space.lock().found_disk_full();
                    self.space_waiters.notify();
                    return Err(NoSpace::DiskFull);
                }
                // A device that fails here cannot be trusted with the commits either.
                Err(error) => {
                    self.poison("preparing a segment", &error);
                    return Err(NoSpace::Poisoned);
                }
            }
        }
        Ok(())
    }

    /// Lets go of the memory of a segment that is completely durable.
    pub(crate) fn release_held(&self, number: u32) {
        let released = {
            let mut held = self.held.write();
            held.iter().position(|held| held.number == number).map(|index| held.remove(index))
        };
        // Giving memory back may take a while, and readers and a rotation wait for the lock.
        drop(released);
        self.preparer_parker.wake();
    }
}
