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
//! * Engine time moves only by being written: a turn that begins [`TICK_MS`] after the last group writes
//!   one, empty if need be, so that even a refusal for expiry rests on a durable time.
//!
//! One lock was measured to be as fast as finer ones on two cores (`docs/architecture.md`), and it makes
//! void records, latch order, write skew and half-visible orders impossible rather than handled.

mod work;

pub use work::{CodeSet, Work};
pub(crate) use work::{Detail, EarlierPosting, Moves, OrderPast, PlaceChange, Prepared, Wallet};

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use kami_wal::{Credit, Lsn, NoSpace, RECORD_HEAD_BYTES, Wal, planted};

use crate::accounts::AccountState;
use crate::card::{Effect, Past};
use crate::chain::{Chain, ChainError, Sought, origin_of};
use crate::clock::{Clock, Running, TICK_MS};
use crate::command::{Command, Request, STATEMENT_LINES_MAX};
use crate::identity::{BatchId, CardDigest, DocumentId, PrincipalId, RequestId, TenantId};
use crate::index::Index;
use crate::limits::{CROSSING_ENTRY_BYTES, CROSSINGS_PER_REQUEST};
use crate::product::CardKind;
use crate::record::{GROUP_HEAD_BYTES, GroupWriter, HEAD_BYTES, Kind, MarkKey, VALUE_BYTES, VOLUME_BYTES};
use crate::reply::{HISTORY_MAX, HistoryEvent, Reply, ReplyBody, ReplyFlags, Statement};
use crate::state::{Scope, State};
use crate::status::Status;
use crate::subject::Subject;
use crate::sync::coarse::{Mutex, MutexGuard};
use crate::table::{Batch, Table};
use crate::word::{CardRef, Flags, Lifecycle, Word};

/// A turn takes at most this much of the log, unless a single command needs more.
const TURN_BYTES_MAX: usize = 1 << 20;
/// How often the lock is looked at before a thread goes to sleep: some 20 µs, as long as a full turn takes.
const LOOKS: u32 = if cfg!(shuttle) { 2 } else { 100 };
/// Between two looks the processor is told so often that this is a wait.
const PAUSES: u32 = 4;
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

/// Ends the process if it is dropped by a panic: see the module's second invariant.
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
            // With one processor nobody can give it back meanwhile.
            looks: if std::thread::available_parallelism().is_ok_and(|n| 1 < n.get()) { LOOKS } else { 0 },
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
        self.wal.kick();
    }

    /// Reads what the requests from `from` on need and cannot read under the lock. Returns where the
    /// turn must end: before a card that comes up twice, or when the turn is large enough.
    fn prepare(&self, work: &mut Work, from: usize, stale: bool) -> usize {
        let Work { requests, prepared, seen, buffer, .. } = work;
        prepared.resize_with(requests.len().max(prepared.len()), Prepared::default);
        let guard = Index::pin();
        let commits = self.table.commits();
        // One kind of miss after the other, close together: so the memory answers several at a time, and several
        // translations of addresses are looked up at a time.
        for (request, prepared) in requests[from..].iter().zip(&mut prepared[from..]) {
            prepared.code = request.command.card();
            if let Some(code) = prepared.code {
                self.index.prefetch(code, &guard);
            }
        }
        for prepared in &mut prepared[from..requests.len()] {
            prepared.card = prepared.code.and_then(|code| self.index.find(code, &guard));
            if let Some((batch, card)) = self.batch_of(prepared.card) {
                batch.prefetch(card.row());
            }
        }
        seen.clear();
        let counts_tills = self.counts_tills.load(Ordering::Relaxed);
        let crossings = if counts_tills { CROSSINGS_PER_REQUEST } else { 0 };
        let bytes_max = self.wal.payload_bytes_max().min(TURN_BYTES_MAX) - GROUP_HEAD_BYTES;
        let mut bytes = 0;
        for at in from..requests.len() {
            let (request, prepared) = (&requests[at], &mut prepared[at]);
            let redeems = request.command.is_behind_pin();
            prepared.crossings = if redeems { crossings } else { 0 };
            prepared.log_bytes = request.command.log_bytes_max()
                + prepared.crossings * CROSSING_ENTRY_BYTES
                + request.grounds_bytes();
            if at > from
                && (bytes + prepared.log_bytes > bytes_max
                    || request.command.begins_turn()
                    || requests[at - 1].command.ends_turn())
            {
                return at;
            }
            prepared.body = request.body();
            prepared.past = None;
            prepared.detail = Detail::None;
            prepared.wallet = None;
            prepared.object = None;
            prepared.failed = if request.has_bad_grounds() { Some(Status::Malformed) } else { None };
            prepared.absent_at = Some(commits);
            // A code that nobody has ends the turn, too: else the distance of receipts would tell it.
            if prepared.code.is_some_and(|code| !seen.insert(code) && !planted("card-twice-in-a-turn")) {
                return at;
            }
            if let Some((batch, card)) = self.batch_of(prepared.card) {
                prepared.absent_at = None;
                prepared.word = batch.word(card.row());
                let tells_value = request.command.is_about_value()
                    || batch.kind != CardKind::Single
                    || batch.validity.is_some()
                    || prepared.word.flags().contains(Flags::HELD);
                let needs_chain = (prepared.word.flags().contains(Flags::HAS_EFFECTS)
                    || matches!(request.command, Command::Query { .. } | Command::History { .. }))
                    && !request.command.is_hidden(prepared.word, request.caller.role);
                if (needs_chain || tells_value)
                    && let Err(error) = self.read_chain(request, card, prepared, buffer, tells_value)
                {
                    prepared.failed = Some(chain_failed(&error));
                }
                if at > from && bytes + prepared.log_bytes > bytes_max {
                    return at;
                }
            } else if prepared.code.is_none()
                && let Err(error) = self.read_object(request, prepared, buffer, stale && at == from)
            {
                prepared.failed = Some(chain_failed(&error));
            }
            // What was read of an order may have shown that it takes more.
            if at > from && bytes + prepared.log_bytes > bytes_max {
                return at;
            }
            bytes += prepared.log_bytes;
        }
        requests.len()
    }

    pub(crate) fn batch_of(&self, card: Option<CardRef>) -> Option<(&Batch, CardRef)> {
        let card = card?;
        Some((self.table.batch_of(card)?, card))
    }

    /// Whether there is a card with this code now.
    pub(crate) fn has(&self, code: CardDigest) -> bool {
        self.batch_of(self.index.find(code, &Index::pin())).is_some()
    }

    /// Reads a card's chain as far as the command needs it.
    pub(crate) fn read_chain(
        &self,
        request: &Request,
        card: CardRef,
        prepared: &mut Prepared,
        buffer: &mut Vec<u8>,
        tells_value: bool,
    ) -> Result<(), ChainError> {
        if request.command.is_hidden(prepared.word, request.caller.role) {
            return Ok(());
        }
        let mut chain = Chain::new(&self.wal, buffer);
        match request.command {
            Command::History { .. } => {
                let mut events = Vec::new();
                let mut more = false;
                let batch = self.table.batch_of(card).expect("the card was found");
                let last = self.state().shared_row(batch, card.row()).order;
                chain.walk(card, prepared.word, |entry, word| {
                    more = events.len() == HISTORY_MAX;
                    if !more {
                        events.push(HistoryEvent::of(entry, word)?);
                    }
                    Ok(!more)
                })?;
                if batch.kind == CardKind::Shared {
                    let mut uses = Vec::new();
                    chain.walk_uses(card, last, |entry, word| {
                        uses.push(HistoryEvent::of(entry, word)?);
                        Ok(uses.len() <= HISTORY_MAX)
                    })?;
                    // The first sale is in both chains.
                    events.extend(uses);
                    events.sort_by_key(|event| std::cmp::Reverse(event.lsn));
                    events.dedup_by_key(|event| event.lsn);
                    more |= events.len() > HISTORY_MAX;
                    events.truncate(HISTORY_MAX);
                }
                if !more {
                    if let Some(origin) = origin_of(batch, card)? {
                        events.extend(HistoryEvent::of_origin(batch, card.row(), &origin));
                    }
                    let grounds = chain.entry(batch.import_lsn)?.grounds()?;
                    events.push(HistoryEvent::of_import(batch, grounds));
                }
                prepared.detail = match batch.kind {
                    CardKind::Shared => Detail::HistoryOfShared(Box::new((last, events))),
                    _ => Detail::History(events),
                };
            }
            Command::Query { .. } => {
                let mut word = prepared.word;
                if tells_value {
                    let wallet = self.read_purse(request, card, prepared, &mut chain)?;
                    // All between is about the value, and perhaps long; not of what was replaced, where it ends so.
                    let sale = |lsn| Word::new(lsn, Lifecycle::Sold, Flags::NONE);
                    if !word.flags().contains(Flags::REPLACED) {
                        word = wallet.sale.map_or(word, sale);
                    }
                    prepared.wallet = Some(wallet);
                }
                if self.table.batch_of(card).is_some_and(|batch| batch.kind == CardKind::Shared) {
                    // It belongs to as many orders as have uses of it.
                    return Ok(());
                }
                chain.walk(card, word, |entry, _| {
                    match entry.head.kind {
                        // Its place in the order is another card's.
                        Kind::Replace => return Ok(false),
                        Kind::Replacement => {
                            prepared.detail = Detail::OrderOf(entry.pair()?.order);
                            return Ok(false);
                        }
                        kind if !kind.is_order() => return Ok(true),
                        _ => {}
                    }
                    // What an order gave up, or gave back, belongs to none.
                    if !matches!(entry.head.kind, Kind::Cancel | Kind::ReserveTimeout | Kind::Return) {
                        prepared.detail = Detail::OrderOf(entry.order()?.0);
                    }
                    Ok(false)
                })?;
                let batch = self.table.batch_of(card).expect("the card was found");
                if matches!(prepared.detail, Detail::None)
                    && let Some(order) = origin_of(batch, card)?.and_then(|origin| origin.order)
                {
                    prepared.detail = Detail::OrderOf(order);
                }
            }
            Command::OutcomeOf { request, .. } => {
                let sought = Sought::new(request, None, &self.marks, false);
                prepared.past = Some(Box::new(chain.past(card, prepared.word, &sought)?.0));
            }
            _ if tells_value => {
                let mut wallet = self.read_purse(request, card, prepared, &mut chain)?;
                if let (Command::Advice(_), Some(sale)) = (&request.command, wallet.sale) {
                    wallet.sold_ms = chain.entry(sale)?.time_ms;
                }
                let volume = if wallet.chapters.is_empty() { 0 } else { VOLUME_BYTES };
                prepared.log_bytes = HEAD_BYTES
                    + VALUE_BYTES
                    + volume
                    + prepared.crossings * CROSSING_ENTRY_BYTES
                    + request.grounds_bytes();
                prepared.wallet = Some(wallet);
            }
            _ => {
                let sought = Sought::new(request.id, request.command.original(), &self.marks, false);
                prepared.past = Some(Box::new(chain.past(card, prepared.word, &sought)?.0));
            }
        }
        if prepared.word.flags().contains(Flags::REPLACED)
            && let Some(past) = &mut prepared.past
            && let Some(same) = past.same.as_mut().filter(|same| same.kind.may_tell_value())
        {
            let (place, asked) = ((card, prepared.word), request.command.sought(request.id));
            let (reversed, successor) = self.was_reversed_elsewhere(&mut chain, place, same, asked)?;
            same.reversed |= reversed;
            past.successor = Some(successor);
        }
        Ok(())
    }

    /// Whether what a request did at a card that was replaced since was undone at the card in its place, and that card
    /// with the word that this was read from.
    fn was_reversed_elsewhere(
        &self,
        chain: &mut Chain<'_>,
        (mut card, mut word): (CardRef, Word),
        same: &Effect,
        request: RequestId,
    ) -> Result<(bool, (CardRef, Word)), ChainError> {
        while word.flags().contains(Flags::REPLACED)
            && let Some(next) = chain.successor(card, word)?
            && let Some(batch) = self.table.batch_of(next)
        {
            (card, word) = (next, batch.word(next.row()));
        }
        let (past, _) = chain.past(card, word, &Sought::elsewhere(request, &self.marks))?;
        let original = past.original.filter(|original| original.lsn == same.lsn);
        Ok((original.is_some_and(|original| original.reversed), (card, word)))
    }

    /// Reads what a card's chain says about the request and about the card's value.
    fn read_purse(
        &self,
        request: &Request,
        card: CardRef,
        prepared: &mut Prepared,
        chain: &mut Chain<'_>,
    ) -> Result<Box<Wallet>, ChainError> {
        let mut sought = Sought::new(request.id, request.command.original(), &self.marks, true);
        if let Command::HoldTimeout { .. } = request.command {
            sought = sought.without_id();
        }
        let (past, wallet) = self.read_value(&sought, card, prepared.word, chain)?;
        prepared.past = Some(Box::new(past));
        Ok(Box::new(wallet))
    }

    /// The same of any card.
    pub(crate) fn read_value(
        &self,
        sought: &Sought,
        card: CardRef,
        word: Word,
        chain: &mut Chain<'_>,
    ) -> Result<(Past, Wallet), ChainError> {
        let (mut past, top) = chain.past(card, word, sought)?;
        let counts = self.table.batch_of(card).filter(|batch| batch.validity.is_some());
        let purse = top.value.as_ref().map(|(_, tail)| tail.purse);
        if let Some(batch) = counts {
            match top.sale {
                Some(sale) => past.sold_ms = chain.entry(sale)?.time_ms,
                None => {
                    let origin = origin_of(batch, card)?.unwrap_or_default();
                    past.sold_ms = origin.sold_ms;
                    past.used_ms = if origin.state == Lifecycle::Sold { origin.redeemed_ms } else { 0 };
                }
            }
        }
        let (trail, chapters) = chain.trail(&top, &self.marks)?;
        Ok((past, Wallet { purse, trail, chapters, sale: top.sale, sold_ms: 0 }))
    }

    /// Reads the entries of the object an administrative or order command is about.
    fn read_object(
        &self,
        request: &Request,
        prepared: &mut Prepared,
        buffer: &mut Vec<u8>,
        stale: bool,
    ) -> Result<(), ChainError> {
        let tenant = request.caller.tenant;
        if self.table.has_orders_of_old()
            && let Some(order) = request.command.order()
        {
            let known = self.order_of_old(tenant, order);
            prepared.detail = known.map_or(Detail::None, |report| Detail::OrderOfOld(Box::new(report)));
        }
        match &request.command {
            &Command::HoldTimeout { card, .. } => {
                let Some(batch) = self.table.batch_of(card) else { return Ok(()) };
                if card.row() >= batch.rows() {
                    return Ok(());
                }
                prepared.card = Some(card);
                prepared.absent_at = None;
                prepared.word = batch.word(card.row());
                self.read_chain(request, card, prepared, buffer, true)?;
                // It has a group for itself, and ends the one before.
                prepared.log_bytes += 2 * GROUP_BYTES;
            }
            // A sale under a new order id needs nothing; only the lock can tell that it is not new.
            Command::Sell { .. } | Command::SellLines(_) | Command::Reserve(_) if !stale => return Ok(()),
            command if command.order().is_some() => {
                let key = (tenant, command.order().expect("just asked"));
                let word = self.state.lock().orders.find(&key);
                if let Some(word) = word {
                    let past =
                        Chain::new(&self.wal, buffer).order(key.1, word, command.sought(request.id))?;
                    let most =
                        command.order_bytes_max(past.cards.count(), &past.facts) + request.grounds_bytes();
                    // What is longer than a record is refused, so no room is asked for it.
                    prepared.log_bytes = most.min(self.wal.payload_bytes_max() + 2 * GROUP_BYTES);
                    prepared.detail = Detail::Order(Box::new(past));
                }
                if let Command::Return(given) = command {
                    let guard = Index::pin();
                    let found = given.cards.iter().map(|digest| self.index.find(*digest, &guard));
                    prepared.cards = found.collect();
                }
            }
            Command::Propose(_) | Command::Approve(_) => self.read_proposed(request, prepared, buffer)?,
            Command::Replace(_) | Command::Transfer(_) => self.read_pair(request, prepared, buffer)?,
            // As a sale: only the lock can tell that the document is not new.
            Command::Post(_) if !stale => return Ok(()),
            Command::Post(posting) => {
                prepared.detail = self.posted(tenant, posting.document, buffer)?;
            }
            Command::OutcomeOfDocument { document, .. } => {
                prepared.detail = self.posted(tenant, *document, buffer)?;
            }
            Command::OrderList(query) => {
                prepared.detail = Detail::Orders(self.read_orders(&request.caller, query, buffer)?);
            }
            Command::AccountStatement { account, from, count } => {
                let known = self.state.lock().accounts.find(*account, tenant).cloned();
                let count = (*count).clamp(1, STATEMENT_LINES_MAX);
                if let Some(AccountState { account: shown, money_lsn, .. }) = known {
                    let read = Chain::new(&self.wal, buffer).statement(*account, from.or(money_lsn), count);
                    prepared.detail = Detail::Statement(match read {
                        Ok((lines, next)) => Some(Box::new(Statement { account: shown, lines, next })),
                        // A place of the caller's choosing may be no entry of the account.
                        Err(_) if from.is_some() => None,
                        Err(error) => return Err(error),
                    });
                }
            }
            command => {
                prepared.tail = command.object_tail(tenant);
                if command.changes_object() {
                    let state = self.state.lock();
                    prepared.object = state.object_lsn(command, tenant);
                    if let Command::PrincipalRenew(renewal) = command {
                        prepared.tail = state.renewed_tail(**renewal);
                    }
                    drop(state);
                    if let Some(lsn) = prepared.object {
                        let past = Chain::new(&self.wal, buffer).object_past(lsn, request.id)?;
                        prepared.past = Some(Box::new(past));
                    }
                }
            }
        }
        Ok(())
    }

    /// What was posted under a document, if something was.
    fn posted(
        &self,
        tenant: TenantId,
        document: DocumentId,
        buffer: &mut Vec<u8>,
    ) -> Result<Detail, ChainError> {
        let lsn = self.state.lock().documents.get(&(tenant, document)).copied();
        let Some(lsn) = lsn else { return Ok(Detail::None) };
        let mut chain = Chain::new(&self.wal, buffer);
        let (effect, request, entry) = chain.effect(lsn)?;
        let legs = entry.posting()?.legs;
        Ok(Detail::Posted(Box::new(EarlierPosting { effect, request, legs })))
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

    /// Decides the requests `from .. to`. Returns where it stopped: at `to`, or at the first request that
    /// has to be prepared again.
    fn turn(&self, work: &mut Work, from: usize, to: usize) -> usize {
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
}

/// Why a request that is about no card is not to be executed, whatever the state: too late, or its past cannot
/// be read.
fn not_executed(request: &Request, prepared: &Prepared, now: Option<Instant>) -> Option<Status> {
    if is_late(request, now) { Some(Status::DeadlinePassed) } else { prepared.failed }
}

fn is_late(request: &Request, now: Option<Instant>) -> bool {
    request.deadline.is_some_and(|deadline| Some(deadline) <= now)
}

pub(crate) fn chain_failed(error: &ChainError) -> Status {
    // The card's own past cannot be read, so nothing can be decided about it. Others are served.
    tracing::error!(error = error as &dyn std::error::Error, "a card's log entry cannot be read");
    Status::Busy
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
