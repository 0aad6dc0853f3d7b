//! The sequencer: how commands become records.
//!
//! Commands run in batches under one lock, a few microseconds at a time. Before the lock: index look-up,
//! prefetch, cold reads of chains, credit for log space. Under it, for each command: decide on the
//! current state, encode the entry at the log's tail; then publish the tail; then change words and
//! objects. After it, elsewhere: waiting for durability, decryption, encoding.
//!
//! # Invariants
//! * **Log order is execution order across all objects**, so every prefix of the log is a state the
//!   engine was in, and commands on several objects need no protocol of their own.
//! * Nothing can fail between the first byte of a record and the last object it changes; a panic there
//!   aborts the process, because memory and log would disagree.
//! * The words of one record's cards are all different, so that deciding on words that change only after
//!   the record is complete is deciding on current ones. A card that comes up twice ends the turn.
//! * The lock is never held over I/O or an `.await`. What was read before the lock is used only if the
//!   object's last position is still the one the read began with; otherwise the command is read again. A
//!   card that was not there is looked for again if a batch was committed meanwhile.
//! * Engine time moves only by being written: a turn that begins [`TICK_MS`](crate::clock::TICK_MS) after the last group writes
//!   one, empty if need be, so that even a refusal for expiry rests on a durable time.
//!
//! One lock was measured to be as fast as finer ones on two cores (`docs/architecture.md`), and it makes
//! void records, latch order, write skew and half-visible orders impossible rather than handled.

mod prepare;
mod turn;
mod work;

pub(crate) use prepare::chain_failed;
pub(crate) use turn::{Retry, Turn};
pub use work::{CodeSet, Work};
pub(crate) use work::{Detail, EarlierPosting, Moves, OrderPast, PlaceChange, Prepared, Wallet};

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use kami_wal::{RECORD_HEAD_BYTES, Wal, planted};

use crate::clock::{Clock, Running};
use crate::identity::CardDigest;
use crate::index::Index;
use crate::record::{GROUP_HEAD_BYTES, MarkKey};
use crate::state::State;
use crate::sync::coarse::{Mutex, MutexGuard};
use crate::table::{Batch, Table};
use crate::word::CardRef;

/// What a group costs beside its entries.
pub(crate) const GROUP_BYTES: usize = RECORD_HEAD_BYTES as usize + GROUP_HEAD_BYTES;

/// The parts a command meets.
pub struct Sequencer {
    /// Digest → card.
    pub index: Index,
    /// Cards.
    pub table: Arc<Table>,
    /// The log.
    pub wal: Wal,
    /// Everything under the lock.
    state: Mutex<State>,
    /// How often the lock is looked at before it is slept for.
    looks: u32,
    pub(crate) clock: Box<dyn Clock>,
    pub(crate) running: Running,
    /// What hashes request ids for the filters of cards' trails.
    pub(crate) marks: MarkKey,
    commands: AtomicU64,
    refused: AtomicU64,
    misses: AtomicU64,
    /// Whether limits may count redemptions: then turns ask for room to record that one was crossed. Only a
    /// hint, as it is read before the lock: without room crossings wait.
    pub(crate) counts_tills: AtomicBool,
}

impl Sequencer {
    /// Puts the parts together after recovery.
    pub fn new(
        index: Index,
        table: Arc<Table>,
        wal: Wal,
        state: State,
        clock: Box<dyn Clock>,
        running: Running,
        marks: MarkKey,
    ) -> Self {
        let counts_tills = state.limits.any_terminal();
        Sequencer {
            index,
            table,
            wal,
            state: Mutex::new(state),
            looks: turn::looks(),
            clock,
            running,
            marks,
            commands: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            counts_tills: AtomicBool::new(counts_tills),
        }
    }

    /// The state, for readers that are no commands.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// What engine time would be if something were recorded now, milliseconds.
    pub(crate) fn running_ms(&self) -> u64 {
        self.running.at(self.clock.boot_ms())
    }

    /// Blocks until there is room in the log, or until waiting is no use.
    pub fn wait_space(&self) {
        self.wal.wait_space();
    }

    /// Commands decided, commands refused, and commands whose code missed, since open.
    pub fn counts(&self) -> (u64, u64, u64) {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (load(&self.commands), load(&self.refused), load(&self.misses))
    }

    /// Decides the requests in order. See [`Engine::execute`](crate::Engine::execute).
    ///
    /// # Panics
    /// If there are more than [`Work::REQUESTS_MAX`].
    pub fn execute(&self, work: &mut Work) {
        self.decide(work);
        self.wal.kick();
    }

    /// The same without asking for a commit. See [`Engine::decide`](crate::Engine::decide).
    pub fn decide(&self, work: &mut Work) {
        assert!(work.requests.len() <= Work::REQUESTS_MAX, "at most 64 requests an execution");
        work.replies.clear();
        let mut from = 0;
        let mut stale = false;
        while from < work.requests.len() {
            let to = self.prepare(work, from, stale);
            let done = self.turn(work, from, to);
            stale = done < to;
            from = done;
        }
        let (mut refused, mut misses) = (0, 0);
        for reply in &work.replies {
            refused += usize::from(!reply.status.is_done());
            misses += usize::from(reply.miss);
        }
        work.misses = misses;
        if misses > 0 {
            self.misses.fetch_add(misses as u64, Ordering::Relaxed);
        }
        self.commands.fetch_add(work.replies.len() as u64, Ordering::Relaxed);
        self.refused.fetch_add(refused as u64, Ordering::Relaxed);
        // Whatever the replies say, they say it of a log that ends here or before.
        work.durable_at = Some(self.wal.tail());
        if planted("refusals-do-not-wait") && refused == work.replies.len() {
            work.durable_at = Some(self.wal.durable_end());
        }
    }

    #[inline]
    pub(crate) fn batch_of(&self, card: Option<CardRef>) -> Option<(&Batch, CardRef)> {
        let card = card?;
        Some((self.table.batch_of(card)?, card))
    }

    /// Whether there is a card with this code now.
    pub(crate) fn has(&self, code: CardDigest) -> bool {
        self.batch_of(self.index.find(code, &Index::pin())).is_some()
    }
}
