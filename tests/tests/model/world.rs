//! An engine on a simulated disk beside the oracle: every reply is held against what it must be.
//!
//! The world keeps `log`, every effect since the store began, in execution order. The engine promises
//! that its own log is a prefix of that after any crash, and that the prefix holds everything whose
//! reply was allowed to leave; `restart.rs` checks both and rolls the oracle to it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use kami_engine::{
    Caller, Clock, CodeList, Engine, EngineOptions, ImportSpec, Lsn, OrderId, OrderState, ProductId,
    Purchase, Reply, ReplyBody, RevealError, Status, TenantId, Work,
};
use kami_wal::{Drive, SimMedium, SimMode, WalOptions};

use super::clock::ManualClock;
use super::control_rules::export_too_large;
use super::expected::{At, Body, Listed};
use super::imports::Staged;
use super::oracle::{Effect, Event, Oracle, Place};
use super::order_rules::is_too_large;
use super::proof::Published;
use crate::ask::{Ask, What};
use kami_tests::random::Random;

/// A turn that begins this much after engine time moves it.
const TICK_MS: u64 = 100;
/// The wall clock at the start of the world.
pub const EPOCH_MS: u64 = 1_700_000_000_000;

pub struct World {
    pub verbose: bool,
    pub random: Random,
    pub medium: SimMedium,
    pub segment_bytes: u64,
    pub engine: Option<Engine>,
    pub clock: ManualClock,
    pub oracle: Oracle,
    /// Every effect since the store began.
    pub log: Vec<Event>,
    /// The oracle after the first `base_len` of them: the state at the last restart.
    pub base: Oracle,
    pub base_len: usize,
    /// So many effects belong to replies that were allowed to leave.
    pub promised: usize,
    /// The latest time such a reply told.
    pub promised_ms: u64,
    pub pending: VecDeque<Pending>,
    /// Engine time ran on from here at this reading of the boot clock.
    pub running: (u64, u64),
    pub commands: u64,
    pub refused: u64,
    pub misses: u64,
    pub last_lsn: u64,
    /// The disk may be full: BUSY and DISK_FULL are answers to be had at any time.
    pub tight: bool,
    /// Segments were prepared since the last command, so there must be room.
    pub fresh: bool,
    pub staged: BTreeMap<(u16, u128), Staged>,
    /// What every import was last begun with, and by whom.
    pub specs: BTreeMap<(u16, u128), (Caller, ImportSpec)>,
    pub next_batch: u32,
    /// The order under which a code was read: never two.
    pub read_as: BTreeMap<(u16, String), u128>,
    /// Requests to try again.
    pub asked: Vec<Ask>,
    /// Checkpoints that were given out.
    pub published: Published,
    /// Replies by command and status, to see that a run meets everything.
    pub met: BTreeMap<String, u64>,
    /// Of whoever only looks: what is asked of the engine does not depend on it.
    pub looking: Random,
    /// Who follows the log.
    pub subscribers: Vec<super::follow::Subscriber>,
    work: Work,
}

/// Replies that wait for the log.
pub struct Pending {
    durable_at: Lsn,
    events: usize,
    now_ms: u64,
    lists: Vec<(u16, CodeList, Listed)>,
}

impl World {
    /// A new store on a new disk.
    pub fn new(seed: u64, mode: SimMode, segment_bytes: u64) -> World {
        let mut world = World::on(SimMedium::new(seed, mode), segment_bytes, seed);
        let engine = Engine::open(world.options(false)).expect("a new store opens");
        world.opened(engine);
        world
    }

    /// A world with the same past on another disk, which holds a prefix of it. Nothing was promised about that one.
    pub fn beside(&mut self, medium: SimMedium) -> World {
        World {
            verbose: self.verbose,
            clock: self.clock.clone(),
            log: self.log.clone(),
            specs: self.specs.clone(),
            looking: self.looking.clone(),
            ..World::on(medium, self.segment_bytes, self.random.next())
        }
    }

    /// A world without a past, whose engine is not open.
    fn on(medium: SimMedium, segment_bytes: u64, seed: u64) -> World {
        World {
            verbose: false,
            random: Random::new(seed),
            medium,
            segment_bytes,
            engine: None,
            clock: ManualClock::new(EPOCH_MS),
            oracle: Oracle::default(),
            log: Vec::new(),
            base: Oracle::default(),
            base_len: 0,
            promised: 0,
            promised_ms: 0,
            pending: VecDeque::new(),
            running: (0, 0),
            commands: 0,
            refused: 0,
            misses: 0,
            last_lsn: 0,
            tight: false,
            fresh: false,
            staged: BTreeMap::new(),
            specs: BTreeMap::new(),
            next_batch: 1,
            read_as: BTreeMap::new(),
            asked: Vec::new(),
            published: Published::default(),
            met: BTreeMap::new(),
            looking: Random::new(!seed),
            subscribers: super::follow::Subscriber::some(),
            work: Work::default(),
        }
    }

    /// How the engine is opened.
    pub fn options(&self, accept_clock: bool) -> EngineOptions {
        EngineOptions {
            data: Arc::new(self.medium.clone()),
            keys: Arc::new(self.medium.clone()),
            wal: WalOptions {
                segment_bytes: self.segment_bytes,
                drive: Drive::Manual,
                ..WalOptions::default()
            },
            clock: Box::new(self.clock.clone()),
            accept_clock,
        }
    }

    /// The engine is open and has recorded its start.
    pub fn opened(&mut self, engine: Engine) {
        let now = self.clock.read();
        self.running = (now.wall_ms.max(self.oracle.now_ms), now.boot_ms);
        self.oracle.now_ms = self.due_ms().unwrap_or(self.oracle.now_ms);
        self.oracle.pin_tries.clear();
        self.engine = Some(engine);
        (self.base, self.base_len) = (self.oracle.clone(), self.log.len());
        self.promised = self.log.len();
        self.promised_ms = self.oracle.now_ms;
        self.pending.clear();
        (self.commands, self.refused, self.misses) = (0, 0, 0);
        self.staged.clear();
        self.next_batch = self.oracle.batches.keys().last().map_or(1, |last| last + 1);
        self.fresh = false;
    }

    pub fn engine(&self) -> &Engine {
        self.engine.as_ref().expect("the engine is open")
    }

    pub fn note(&self, what: impl FnOnce() -> String) {
        if self.verbose {
            println!("{}", what());
        }
    }

    /// What engine time becomes if something is recorded now; `None` if it stays.
    pub fn due_ms(&self) -> Option<u64> {
        let running = self.running.0 + self.clock.boot_ms().saturating_sub(self.running.1);
        (running >= self.oracle.now_ms + TICK_MS).then_some(running)
    }

    /// The most bytes of entries one record of this log can hold: a quarter of a segment.
    pub fn payload_bytes(&self) -> u64 {
        self.segment_bytes / 4 - kami_wal::RECORD_HEAD_BYTES
    }

    /// Has the engine end the reservations whose time is over.
    pub fn run_due(&mut self) {
        if self.medium.is_cut() {
            return;
        }
        let now_ms = self.due_ms().unwrap_or(self.oracle.now_ms);
        let waiting = self.oracle.orders.iter().filter(|(_, order)| order.state == OrderState::Reserved);
        let over = waiting.filter(|(_, order)| order.deadline_ms <= now_ms);
        let mut due: Vec<_> = over.map(|(key, order)| (order.deadline_ms, *key)).collect();
        due.sort_unstable();
        let engine = self.engine().clone();
        let mut work = std::mem::take(&mut self.work);
        let open = engine.open_holds();
        let ended = engine.run_due(&mut work);
        self.work = work;
        // Without power no card's past can be read.
        let strict = self.fresh && !self.tight && !self.medium.is_cut();
        let holds = open - engine.open_holds();
        let ended = ended - holds;
        assert!(ended == due.len() || ended < due.len() && !strict, "{ended} of {} ended", due.len());
        self.note(|| format!("{ended} of {} reservations timed out", due.len()));
        if ended > 0 {
            self.oracle.now_ms = now_ms;
            *self.met.entry("reserve timeout".to_owned()).or_default() += ended as u64;
        }
        for (_, (tenant, order)) in &due[..ended] {
            let caller = Caller { tenant: TenantId(*tenant), ..Caller::LOCAL };
            let ask = Ask::new(0, caller, What::ReserveTimeout(*order));
            let event = self.oracle.time_out(&ask, &self.oracle.orders[&(*tenant, *order)]);
            self.record(event);
            self.commands += 1;
        }
        self.holds_ended(holds, now_ms, strict);
        self.fresh = false;
        self.last_lsn = self.last_lsn.max(engine.tail().bytes() - 1);
    }

    /// So many holds were ended: those that were over first.
    fn holds_ended(&mut self, ended: usize, now_ms: u64, strict: bool) {
        let mut due: Vec<(u64, Place, u128)> = Vec::new();
        for (_, place) in self.oracle.places() {
            let holds = &self.oracle.card(place).holds;
            let over = holds.iter().filter(|(_, hold)| hold.deadline_ms <= now_ms);
            due.extend(over.map(|(id, hold)| (hold.deadline_ms, place, *id)));
        }
        due.sort_unstable();
        let all = ended == due.len();
        assert!(all || ended < due.len() && !strict, "{ended} holds ended of {} that are over", due.len());
        if ended > 0 {
            self.oracle.now_ms = now_ms;
            *self.met.entry("a hold timed out".to_owned()).or_default() += ended as u64;
        }
        for (_, place, hold) in due.into_iter().take(ended) {
            let tenant = TenantId(self.oracle.batches[&place.0].tenant);
            let caller = Caller { tenant, ..Caller::LOCAL };
            let event = self.oracle.timeout(&Ask::new(0, caller, What::HoldTimeout), place, hold);
            self.note(|| format!("hold {hold:x} of {place:?} is over"));
            self.record(event);
            self.commands += 1;
        }
    }

    /// Runs requests as one batch and judges every reply.
    pub fn execute(&mut self, asks: &[Ask]) {
        if self.medium.is_cut() {
            return;
        }
        let engine = self.engine().clone();
        let mut work = std::mem::take(&mut self.work);
        work.requests.clear();
        for ask in asks {
            work.requests.push(ask.request(&engine, self.random.percent(10)));
        }
        engine.execute(&mut work);
        assert_eq!(work.replies.len(), asks.len(), "one reply a request");
        let mut lists = Vec::new();
        let counted = (self.commands, self.refused, self.misses);
        for (ask, reply) in asks.iter().zip(work.replies.drain(..)) {
            self.note(|| format!("{ask:?}\n    {reply:?}"));
            let listed = self.judge(ask, &reply, counted);
            let replayed = if reply.flags == kami_engine::ReplyFlags::default() { "" } else { " again" };
            let met = format!("{} {}{replayed}", ask.what.name(), reply.status.code());
            *self.met.entry(met.clone()).or_default() += 1;
            if self.is_about_shared(ask) {
                *self.met.entry(format!("of a code sold many times: {met}")).or_default() += 1;
            }
            self.commands += 1;
            self.refused += u64::from(!reply.status.is_done());
            self.misses += u64::from(reply.miss);
            if let (Some(listed), ReplyBody::Cards(list)) = (listed, reply.body) {
                // Nothing was committed since the reveal was recorded.
                let early = engine.reveal(&list, &mut |_, _| panic!("a code before its reveal is durable"));
                assert!(matches!(early, Err(RevealError::NotDurable)), "{early:?}");
                lists.push((ask.caller.tenant.0, list, listed));
            }
        }
        let durable_at = work.durable_at().expect("executed");
        let pending = Pending { durable_at, events: self.log.len(), now_ms: self.oracle.now_ms, lists };
        self.pending.push_back(pending);
        self.fresh = false;
        self.work = work;
        self.settle();
        // The reply to a retry tells the first time's time: whether the clock moved has to be asked.
        if self.due_ms().is_some() && asks.iter().all(|ask| ask.what != What::Stats) {
            self.execute(&[Ask::new(6, super::workload::AUDITOR, What::Stats)]);
        }
    }

    /// Finds what the reply must be and takes its effect into the oracle. Returns the codes it promises.
    fn judge(&mut self, ask: &Ask, reply: &Reply, counted: (u64, u64, u64)) -> Option<Listed> {
        assert_eq!(reply.request.0, ask.id, "the reply to another request");
        // Room is asked for before the size of an order is looked at.
        let bytes = self.payload_bytes();
        let too_large = match &ask.what {
            What::Sell { order, product, count, .. } => {
                is_too_large(&Purchase::of(OrderId(*order), ProductId(*product), *count), true, bytes)
            }
            What::SellLines(purchase) | What::Reserve(purchase) => is_too_large(purchase, false, bytes),
            what => self.oracle.exports(ask.caller, what).is_some_and(|count| export_too_large(count, bytes)),
        };
        let strict = self.fresh && !self.tight && !too_large;
        let before = self.oracle.now_ms;
        let times = match self.due_ms() {
            Some(due) if strict => vec![due],
            // Without room the clock stands still.
            Some(due) => vec![before, due],
            None => vec![before],
        };
        let mut wrong = Vec::new();
        for now_ms in times {
            self.oracle.now_ms = now_ms;
            let (mut expected, event) = self.oracle.decide(ask, bytes);
            if let Body::Stats(stats) = &mut expected.body {
                (stats.commands, stats.refused, stats.misses) = counted;
            }
            let needs_room = event.is_some()
                || matches!(expected.status, Status::OutOfStock | Status::LimitTerminal)
                // Where nothing is recorded, too: a full disk must not tell what exists.
                || expected.status == Status::Tombstoned && expected.miss;
            let short = !strict
                && needs_room
                && matches!(reply.status, Status::Busy | Status::DiskFull)
                && reply.lsn.is_none()
                && reply.time_ms == now_ms
                && matches!(reply.body, ReplyBody::None);
            if short {
                return None;
            }
            match expected.check(reply, self.last_lsn) {
                Err(what) => wrong.push(what),
                Ok(()) => {
                    let lock = event.as_ref().and_then(|event| self.oracle.lock_beside(event));
                    let wrong = match event.as_ref().map(|event| &event.effect) {
                        None => expected.status,
                        Some(Effect::Exception(exception)) if lock.is_none() => exception.reason,
                        Some(_) => Status::Ok,
                    };
                    if expected.miss && wrong == Status::CardNotValid {
                        self.oracle.count_wrong_pin(ask);
                    }
                    if let Some(lock) = lock {
                        self.record(lock);
                    }
                    if let Some(mut event) = event {
                        if expected.lsn == At::New {
                            event.lsn = reply.lsn.map(Lsn::bytes);
                            self.last_lsn = event.lsn.expect("checked");
                        }
                        let crossings = self.oracle.crossings(&event);
                        let second = self.oracle.second_of(&event);
                        let done = self.oracle.done_with(&event, bytes);
                        self.record(event);
                        second.into_iter().chain(done).for_each(|event| self.record(event));
                        crossings.into_iter().for_each(|event| self.record(event));
                    }
                    return match expected.body {
                        Body::Cards(listed) => Some(listed),
                        _ => None,
                    };
                }
            }
        }
        panic!("{ask:?}\n{}", wrong.join("\n"));
    }

    /// Takes an effect into the oracle.
    pub fn record(&mut self, event: Event) {
        self.oracle.apply(&event);
        self.log.push(event);
    }

    fn is_about_shared(&self, ask: &Ask) -> bool {
        let tenant = ask.caller.tenant.0;
        let card = ask.code().and_then(|code| self.oracle.find(tenant, code));
        let order = ask.what.order().and_then(|order| self.oracle.orders.get(&(tenant, order)));
        let cards = order.iter().flat_map(|order| order.cards.iter().copied());
        card.into_iter().chain(cards).any(|place| self.oracle.is_shared(place))
    }

    /// Lets those replies leave that may, and reads the codes they carry.
    pub fn settle(&mut self) {
        let engine = self.engine().clone();
        let durable_end = engine.durable_end();
        // Every reply leaves by its own position: nobody holds a later one back for an earlier one.
        let (leaving, staying): (Vec<Pending>, Vec<Pending>) =
            std::mem::take(&mut self.pending).into_iter().partition(|it| it.durable_at <= durable_end);
        self.pending = staying.into();
        for Pending { events, now_ms, lists, .. } in leaving {
            self.promised = self.promised.max(events);
            self.promised_ms = self.promised_ms.max(now_ms);
            for (tenant, list, listed) in lists {
                if self.medium.is_cut() {
                    continue;
                }
                let mut read = Vec::new();
                engine
                    .reveal(&list, &mut |card, code| {
                        let code = String::from_utf8(code.to_vec()).expect("codes are text");
                        read.push(((card.batch(), card.row() as usize), code));
                    })
                    .expect("a durable reply's codes can be read");
                assert_eq!(read, listed.codes, "the codes of order {:x}", listed.order);
                for (place, code) in read {
                    if self.oracle.is_shared(place) {
                        // To every order that has a use of it, and to no other.
                        let mut past = self.oracle.card(place).past.iter();
                        let own = past.any(|past| past.kind.is_order() && past.related == listed.order);
                        assert!(own, "{code} was given to order {:x}", listed.order);
                        continue;
                    }
                    let order = *self.read_as.entry((tenant, code.clone())).or_insert(listed.order);
                    assert_eq!(order, listed.order, "{code} was given to two orders");
                }
            }
        }
    }

    /// Commits and prepares. Returns false if the power is off.
    pub fn drive(&mut self) -> bool {
        let outcome = self.engine().drive();
        self.settle();
        if self.medium.is_cut() {
            return false;
        }
        outcome.expect("only a power cut ends the log");
        self.fresh = true;
        true
    }

    /// Looks at everything there is, card by card, through the commands a client has.
    pub fn audit(&mut self) {
        use super::workload::{AUDITOR, OPERATOR};
        self.engine().check().unwrap();
        let mut asks = Vec::new();
        for (tenant, place) in self.oracle.places() {
            let code = self.oracle.card(place).code.clone();
            let mut caller = OPERATOR;
            caller.tenant.0 = tenant;
            asks.push(Ask::new(1, caller, What::Query { code: code.clone() }));
            asks.push(Ask::new(2, caller, What::History { code }));
        }
        for ((tenant, order), known) in &self.oracle.orders {
            let fetch = What::Fetch { order: *order, from: 0, count: u32::MAX };
            let buyer = known.past[0].ask.caller;
            asks.push(Ask::new(7, buyer, What::OrderStatus(*order)));
            if known.state != OrderState::Sold || !known.sealed || known.fetched {
                asks.push(Ask::new(3, buyer, fetch.clone()));
            }
            let mut other = AUDITOR;
            other.tenant.0 = *tenant;
            asks.push(Ask::new(4, other, fetch));
        }
        for (id, book) in &self.oracle.accounts {
            let caller = Caller { tenant: book.account.tenant, ..AUDITOR };
            asks.push(Ask::new(8, caller, What::Statement { account: *id, from: None, count: u32::MAX }));
        }
        for ((tenant, _), known) in &self.oracle.documents {
            assert_eq!(*tenant, known.past.ask.caller.tenant.0);
            asks.push(known.past.ask.clone());
        }
        for tenant in 0..2 {
            let mut caller = AUDITOR;
            caller.tenant.0 = tenant;
            for what in [
                What::Stock { product: None },
                What::BatchList { product: None },
                What::ProductList,
                What::PrincipalList,
                What::AccountList,
                What::LimitList,
                What::OrderList(kami_engine::OrderQuery { count: u32::MAX, ..Default::default() }),
                What::ExceptionList { after: 0, count: u32::MAX, all: true },
                What::ExceptionList { after: 0, count: u32::MAX, all: false },
                What::ProposalList { after: 0, count: u32::MAX, all: true },
                What::ProposalList { after: 0, count: u32::MAX, all: false },
                What::Stats,
                What::TenantList,
            ] {
                asks.push(Ask::new(5, caller, what));
            }
        }
        for some in asks.chunks(64) {
            self.execute(some);
            if !self.drive() {
                return;
            }
        }
        self.oracle.check();
    }
}
