//! A turn: one hold of the lock, in which commands are decided, recorded and applied.
//!
//! # Invariants
//! * Credit for all that a turn may record is granted before it begins, so nothing waits for the log under the lock. A
//!   turn without credit only reads, and the clock stands still.
//! * A group is complete, and the tail published behind it, before anything in memory changes.
//! * Engine time moves by being written: a turn in which the tick is due ends with an empty group if nothing else was
//!   recorded.
//! * A panic under the lock ends the process: memory and log would disagree.

use std::time::Instant;

use kami_wal::{Credit, Lsn, NoSpace, RECORD_HEAD_BYTES};

use super::{GROUP_BYTES, Moves, Prepared, Sequencer, Work};
use crate::card::Effect;
use crate::clock::TICK_MS;
use crate::command::Request;
use crate::identity::{BatchId, PrincipalId};
use crate::record::{GROUP_HEAD_BYTES, GroupWriter, Kind};
use crate::reply::{Reply, ReplyBody, ReplyFlags};
use crate::state::{Scope, State};
use crate::status::Status;
use crate::subject::Subject;
use crate::sync::coarse::MutexGuard;

/// How often the lock is looked at before a thread goes to sleep: some 20 µs, as long as a full turn takes.
const LOOKS: u32 = if cfg!(shuttle) { 2 } else { 100 };
/// Between two looks the processor is told so often that this is a wait.
const PAUSES: u32 = 4;

/// How often a sequencer looks at its lock before it sleeps for it.
pub(super) fn looks() -> u32 {
    // With one processor nobody can give it back meanwhile.
    if std::thread::available_parallelism().is_ok_and(|n| 1 < n.get()) { LOOKS } else { 0 }
}

/// Ends the process if it is dropped by a panic: see the module's last invariant.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}

/// One hold of the lock.
pub(crate) struct Turn<'a> {
    // First, so that it is dropped before the lock is released.
    _abort: AbortOnPanic,
    pub(crate) sequencer: &'a Sequencer,
    pub(crate) state: MutexGuard<'a, State>,
    credit: Option<Credit>,
    /// Why there is no credit.
    short: Status,
    tick: bool,
}

/// What an administrative request's id says.
pub(crate) enum Retry {
    /// The object changed since its entries were read; read them again.
    Stale,
    /// Never seen.
    New,
    /// This is the effect it had.
    Replay(Effect),
    /// It was another request's.
    Reused,
}

impl Sequencer {
    /// Decides the requests `from .. to`. Returns where it stopped: at `to`, or at the first request that
    /// has to be prepared again.
    pub(super) fn turn(&self, work: &mut Work, from: usize, to: usize) -> usize {
        let deadline_now =
            work.requests[from..to].iter().any(|request| request.deadline.is_some()).then(Instant::now);
        let bytes: usize = work.prepared[from..to].iter().map(|prepared| prepared.log_bytes).sum();
        let mut turn = self.begin(bytes);
        let mut at = from;
        while at < to {
            let request = &work.requests[at];
            if work.prepared[at].code.is_some() {
                let stopped = turn.cards(work, at, to, deadline_now);
                if stopped == at {
                    break;
                }
                at = stopped;
            } else if let Some(status) = not_executed(request, &work.prepared[at], deadline_now) {
                let reply = turn.refuse(request, status);
                work.replies.push(reply);
                at += 1;
            } else {
                match turn.object(work, at) {
                    Some(reply) => work.replies.push(reply),
                    None => break,
                }
                at += 1;
            }
        }
        turn.end();
        at
    }

    /// Takes the lock for a turn. Log space is credited first, for `bytes` of entries in one group and for
    /// the tick at its end; without it the turn can only read, and the clock stands still.
    pub(crate) fn begin(&self, bytes: usize) -> Turn<'_> {
        let boot_ms = self.clock.boot_ms();
        let now_ms = self.running.at(boot_ms);
        let (credit, short) = match self.wal.reserve(bytes + GROUP_HEAD_BYTES + GROUP_BYTES) {
            Ok(credit) => (Some(credit), Status::Busy),
            Err(NoSpace::DiskFull) => (None, Status::DiskFull),
            Err(NoSpace::Busy) => (None, Status::Busy),
            Err(_) => (None, Status::ReadOnly),
        };
        let mut state = self.lock();
        let tick = credit.is_some() && now_ms >= state.now_ms + TICK_MS;
        if tick {
            state.now_ms = now_ms;
        }
        Turn { _abort: AbortOnPanic, sequencer: self, state, credit, short, tick }
    }

    /// Takes the lock. Turns are short, and to sleep and be woken takes longer than most of them: so a thread looks
    /// whether it is free for about the time of a turn before it goes to sleep.
    fn lock(&self) -> MutexGuard<'_, State> {
        for _ in 0..self.looks {
            if let Some(state) = self.state.try_lock() {
                return state;
            }
            for _ in 0..PAUSES {
                std::hint::spin_loop();
            }
        }
        self.state.lock()
    }
}

impl Turn<'_> {
    /// Ends the turn: time that passed without a record is recorded now.
    pub(crate) fn end(mut self) {
        if self.tick {
            self.append(0, |_| ());
        }
    }

    /// Whether something can be recorded.
    pub(crate) fn has_credit(&self) -> bool {
        self.credit.is_some()
    }

    /// Appends one group of at most `bytes` bytes of entries. Nothing is appended if `build` adds no
    /// entry and no tick is due.
    ///
    /// # Panics
    /// If the turn has no credit.
    pub(crate) fn append<R>(&mut self, bytes: usize, build: impl FnOnce(&mut GroupWriter<'_>) -> R) -> R {
        self.append_deciding(bytes, |_, group| build(group))
    }

    /// The same, of entries that are decided on the state as it stands.
    ///
    /// # Panics
    /// As [`Turn::append`].
    pub(crate) fn append_deciding<R>(
        &mut self,
        bytes: usize,
        build: impl FnOnce(&State, &mut GroupWriter<'_>) -> R,
    ) -> R {
        let credit = self.credit.as_mut().expect("a turn without credit records nothing");
        let state = &*self.state;
        let now_ms = state.now_ms;
        let tick = self.tick;
        let mut result = None;
        self.sequencer.wal.append(credit, GROUP_HEAD_BYTES + bytes, |payload, payload_lsn| {
            let mut group = GroupWriter::new(payload, payload_lsn, RECORD_HEAD_BYTES as usize);
            result = Some(build(state, &mut group));
            if group.entries() == 0 && !tick { 0 } else { group.finish(now_ms) }
        });
        self.tick = false;
        result.expect("the log calls the closure once")
    }

    pub(crate) fn reply(
        &self,
        request: &Request,
        status: Status,
        lsn: Option<Lsn>,
        body: ReplyBody,
    ) -> Reply {
        let time_ms = self.state.now_ms;
        Reply { request: request.id, status, flags: ReplyFlags::default(), lsn, time_ms, miss: false, body }
    }

    pub(crate) fn refuse(&self, request: &Request, status: Status) -> Reply {
        self.reply(request, status, None, ReplyBody::None)
    }

    /// Why a change cannot be recorded now.
    pub(crate) fn short(&self) -> Status {
        self.short
    }

    /// The commands about single cards from `from` on, as one record. Returns where it stopped.
    fn cards(&mut self, work: &mut Work, from: usize, to: usize, now: Option<Instant>) -> usize {
        let Work { requests, replies, prepared, moves, tills, .. } = work;
        moves.clear();
        let mut at = from;
        let sequencer = self.sequencer;
        let state = &*self.state;
        let short = self.short;
        let counts_tills = state.limits.any_terminal();
        let mut standing: Option<(PrincipalId, Option<Scope<'_>>)> = None;
        let run = requests[from..to].iter().zip(&prepared[from..to]);
        let run = run.take_while(|(_, prepared)| prepared.code.is_some());
        let bytes = GROUP_HEAD_BYTES + run.clone().map(|(_, prepared)| prepared.log_bytes).sum::<usize>();
        if counts_tills {
            tills.begin(run.map(|(_, prepared)| prepared.crossings).sum());
        }
        let mut decide_all = |mut group: Option<&mut GroupWriter<'_>>| {
            while at < to {
                let (request, prepared) = (&requests[at], &mut prepared[at]);
                if prepared.code.is_none() {
                    break;
                }
                let principal = request.caller.principal;
                if standing.is_none_or(|(known, _)| known != principal) {
                    standing = Some((principal, state.scope(principal)));
                }
                let scope = standing.and_then(|(_, scope)| scope);
                let subject = Subject { sequencer, state, request, scope, short };
                // Refused in its place: a run of cards that ended here would begin another group, for
                // whose head no room was asked.
                replies.push(Reply::BLANK);
                let reply = replies.last_mut().expect("pushed just now");
                let tills = counts_tills.then_some(&mut *tills);
                if is_late(request, now) {
                    subject.refuse(Status::DeadlinePassed, reply);
                } else if subject.decide(prepared, group.as_deref_mut(), moves, tills, reply).is_none() {
                    replies.pop();
                    break;
                }
                at += 1;
            }
        };
        if let Some(credit) = &mut self.credit {
            let (now_ms, tick) = (state.now_ms, self.tick);
            let appended = sequencer.wal.append(credit, bytes, |payload, payload_lsn| {
                let mut group = GroupWriter::new(payload, payload_lsn, RECORD_HEAD_BYTES as usize);
                decide_all(Some(&mut group));
                if group.entries() == 0 { 0 } else { group.finish(now_ms) }
            });
            self.tick = tick && appended.is_none();
        } else {
            decide_all(None);
        }
        self.install(moves);
        if counts_tills {
            let now_ms = self.state.now_ms;
            tills.install(&mut self.state.limits, now_ms);
        }
        at
    }

    /// The end of a hold whose time is over, as a record of its own. `None` if the card moved since it was read.
    pub(crate) fn hold_timeout(&mut self, work: &mut Work, at: usize) -> Option<Reply> {
        let Work { requests, prepared, moves, .. } = work;
        let (request, prepared) = (&requests[at], &mut prepared[at]);
        if prepared.card.is_none() || prepared.absent_at.is_some() {
            return Some(self.refuse(request, Status::NotFound));
        }
        if !self.has_credit() {
            return Some(self.refuse(request, self.short()));
        }
        moves.clear();
        let (sequencer, short) = (self.sequencer, self.short);
        let bytes = prepared.log_bytes - 2 * GROUP_BYTES;
        let now_ms = self.state.now_ms;
        let tick = self.tick;
        let credit = self.credit.as_mut().expect("asked just now");
        let (state, mut reply, mut decided) = (&*self.state, Reply::BLANK, None);
        let appended = sequencer.wal.append(credit, GROUP_HEAD_BYTES + bytes, |payload, payload_lsn| {
            let mut group = GroupWriter::new(payload, payload_lsn, RECORD_HEAD_BYTES as usize);
            let subject = Subject { sequencer, state, request, scope: Some(Scope::default()), short };
            decided = subject.decide(prepared, Some(&mut group), moves, None, &mut reply);
            if group.entries() == 0 { 0 } else { group.finish(now_ms) }
        });
        self.tick = tick && appended.is_none();
        self.install(moves);
        decided.map(|()| reply)
    }

    /// The record is complete and the tail published: now what it is about may change.
    pub(crate) fn install(&mut self, moves: &mut Moves) {
        for &(card, old, new) in &moves.words {
            let batch = self.sequencer.table.batch_of(card).expect("decided on this batch");
            self.state.install(batch, card.row(), old, new);
        }
        for change in &moves.holds {
            self.state.holds.apply(*change);
        }
        for change in &moves.pins {
            self.state.pins.apply(*change);
        }
        for exception in moves.exceptions.drain(..) {
            let added = self.state.exceptions.add(exception);
            debug_assert!(added, "they were numbered under this lock");
        }
        for &(card, end_ms) in &moves.ends {
            let batch = self.sequencer.table.batch_of(card).expect("decided on this batch");
            self.state.set_end(batch, card.row(), end_ms);
        }
        for &(card, spent, lsn) in &moves.spent {
            self.state.stock_mut(BatchId(card.batch())).set_spent(card.row(), spent, lsn);
        }
    }

    /// Whether an administrative request was executed before.
    pub(crate) fn object_retry(&self, work: &Work, at: usize, kind: Kind) -> Retry {
        let request = &work.requests[at];
        let prepared = &work.prepared[at];
        if self.state.object_lsn(&request.command, request.caller.tenant) != prepared.object {
            return Retry::Stale;
        }
        match prepared.past().same {
            None => Retry::New,
            Some(same)
                if same.kind == kind
                    && same.body == prepared.body
                    && same.principal == request.caller.principal =>
            {
                Retry::Replay(same)
            }
            Some(_) => Retry::Reused,
        }
    }

    pub(crate) fn object_body(&self, work: &Work, at: usize) -> u32 {
        work.prepared[at].body
    }

    pub(crate) fn object_tail<'w>(&self, work: &'w Work, at: usize) -> &'w [u8] {
        &work.prepared[at].tail
    }
}

/// Why a request that is about no card is not to be executed, whatever the state: too late, or its past cannot
/// be read.
fn not_executed(request: &Request, prepared: &Prepared, now: Option<Instant>) -> Option<Status> {
    if is_late(request, now) { Some(Status::DeadlinePassed) } else { prepared.failed }
}

fn is_late(request: &Request, now: Option<Instant>) -> bool {
    request.deadline.is_some_and(|deadline| Some(deadline) <= now)
}
