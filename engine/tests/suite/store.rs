//! The store that the engine's tests trade with: two simulated disks, a clock that stands still, and one engine at a
//! time.
//!
//! A test has it [stocked](Store::stock), asks it as the server's desk does ([`Store::ask`] and its like) or as a
//! platform does that embeds the engine ([`Store::session`]), and has it [restarted](Store::restart) in any of the three
//! ways an engine [ends](End). What is particular to its subject it says itself.
//!
//! * Nothing happens by itself: the log is written by whoever asks, the clock is moved by the test.
//! * A reply to what was asked here is durable, as one that leaves a server; only [`Store::execute`] leaves the driving
//!   to the test.
//! * Every restart holds memory, log and recovery against each other, whatever the test is about.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kami_engine::record::{Clocks, Entry, Group};
use kami_engine::{
    Caller, CardDigest, CardReport, ChannelId, Clock, Command, Engine, EngineOptions, Event, FeedSpec,
    HistoryEvent, ImportRow, ImportSpec, Lsn, Money, OrderId, PrincipalId, PrincipalSpec, ProductId,
    ProductSpec, Reply, ReplyBody, Request, RequestId, Role, Session, TerminalId, Verification, Work, verify,
};
use kami_wal::{Drive, RecordKind, SimMedium, SimMode, WalOptions};

/// What the clock says when a store is new, in milliseconds since 1970.
pub const BEGUN_MS: u64 = 1_800_000_000_000;

/// How long the machine has been up by then.
const UP_MS: u64 = 5000;

/// A clock that stands still until the test moves it: milliseconds since the start of the machine. Clones are the same
/// clock.
#[derive(Clone)]
pub struct HandClock(Arc<AtomicU64>);

impl HandClock {
    fn new() -> HandClock {
        HandClock(Arc::new(AtomicU64::new(UP_MS)))
    }

    /// It goes on.
    pub fn advance(&self, ms: u64) {
        self.0.fetch_add(ms, Ordering::Relaxed);
    }
}

impl Clock for HandClock {
    fn read(&self) -> Clocks {
        let boot_ms = self.boot_ms();
        Clocks { wall_ms: BEGUN_MS + boot_ms - UP_MS, boot_ms, boot_id: 1 }
    }

    fn boot_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How the engine comes to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The power was cut: of what was not durable the seed decides what is there, torn or gone.
    PowerCut(u64),
    /// The process was killed: the machine kept what was written.
    Kill,
    /// Everything was waited for.
    Close,
}

/// Two disks, a clock, and the engine on them while there is one.
pub struct Store {
    pub data: SimMedium,
    pub keys: SimMedium,
    pub clock: HandClock,
    segment_bytes: u64,
    engine: Option<Engine>,
    ids: Cell<u128>,
    work: RefCell<Work>,
}

/// Whoever is known by this number, of the house and of no merchant.
pub const fn caller(principal: u32, role: Role) -> Caller {
    Caller { principal: PrincipalId(principal), role, ..Caller::LOCAL }
}

impl Store {
    /// A new store, whose log has segments of 4 MiB.
    pub fn new() -> Store {
        Store::with_segments(4 << 20)
    }

    /// A new store whose log has segments of so many bytes; they decide how large a record can be, and how soon the log
    /// goes on to another file.
    pub fn with_segments(segment_bytes: u64) -> Store {
        let mut store = Store {
            data: SimMedium::new(1, SimMode::Direct),
            keys: SimMedium::new(2, SimMode::Direct),
            clock: HandClock::new(),
            segment_bytes,
            engine: None,
            // Beyond what tests choose themselves.
            ids: Cell::new(1 << 96),
            work: RefCell::default(),
        };
        store.open();
        store
    }

    /// The disks as they would be found if the process were killed now, once more; nothing runs on them.
    pub fn copy(&self) -> Store {
        Store {
            data: self.data.kill(),
            keys: self.keys.kill(),
            clock: self.clock.clone(),
            segment_bytes: self.segment_bytes,
            engine: None,
            ids: self.ids.clone(),
            work: RefCell::default(),
        }
    }

    /// How the engine is opened.
    pub fn options(&self) -> EngineOptions {
        EngineOptions {
            data: Arc::new(self.data.clone()),
            keys: Arc::new(self.keys.clone()),
            wal: WalOptions {
                segment_bytes: self.segment_bytes,
                drive: Drive::Manual,
                ..WalOptions::default()
            },
            clock: Box::new(self.clock.clone()),
            accept_clock: false,
        }
    }

    /// Starts an engine on what lies there.
    #[track_caller]
    pub fn open(&mut self) {
        assert!(self.engine.is_none(), "the engine is open");
        self.engine = Some(Engine::open(self.options()).unwrap());
    }

    /// Ends the engine; the disks are as this leaves them.
    #[track_caller]
    pub fn end(&mut self, end: End) {
        let engine = self.engine.take().expect("the engine is open");
        if end == End::Close {
            engine.close().unwrap();
        } else {
            drop(engine);
        }
        let left = |disk: &SimMedium| match end {
            End::PowerCut(seed) => disk.crash(seed),
            End::Kill | End::Close => disk.kill(),
        };
        (self.data, self.keys) = (left(&self.data), left(&self.keys));
    }

    /// Ends the engine once everything is durable, has the store verified as it lies there, and opens it again: all three
    /// know the same state, and nothing is wrong with it.
    #[track_caller]
    pub fn restart(&mut self, end: End) {
        self.drive();
        self.engine().check().unwrap();
        let hash = self.engine().state_hash();
        self.end(end);
        let found = self.verify();
        assert_eq!(found.problems, Vec::<String>::new());
        assert_eq!(found.state_hash, hash, "the log leads to another state than memory had");
        self.open();
        assert_eq!(self.engine().state_hash(), hash, "recovery leads to another state");
        self.engine().check().unwrap();
    }

    /// What verification finds on the disks.
    #[track_caller]
    pub fn verify(&self) -> Verification {
        verify(Arc::new(self.data.clone()), Arc::new(self.keys.clone())).unwrap()
    }

    #[track_caller]
    pub fn engine(&self) -> &Engine {
        self.engine.as_ref().expect("the engine is open")
    }

    /// Commits and prepares.
    #[track_caller]
    pub fn drive(&self) {
        self.engine().drive().unwrap();
    }

    /// The typed calls of whoever keeps the store.
    pub fn session(&self) -> Session {
        Session::new(self.engine(), Caller::LOCAL)
    }

    /// An id that was not used yet: one more than the last.
    pub fn id(&self) -> RequestId {
        self.ids.set(self.ids.get() + 1);
        RequestId(self.ids.get())
    }

    /// The id that was given out last.
    pub fn last_id(&self) -> RequestId {
        RequestId(self.ids.get())
    }

    /// A request of whoever keeps the store, under a new id. What else is asked changes it: `Request { caller,
    /// ..store.request(command) }`.
    pub fn request(&self, command: Command) -> Request {
        Request {
            id: self.id(),
            caller: Caller::LOCAL,
            terminal: TerminalId(0),
            channel: ChannelId(0),
            deadline: None,
            grounds: None,
            command,
        }
    }

    /// Runs requests as one batch. The log is not driven: nothing of it is durable yet.
    pub fn execute(&self, requests: Vec<Request>) -> Vec<Reply> {
        // Kept, as a desk keeps its own.
        let mut work = self.work.borrow_mut();
        work.requests = requests;
        self.engine().execute(&mut work);
        std::mem::take(&mut work.replies)
    }

    /// Runs one request; its reply is durable.
    #[track_caller]
    pub fn run(&self, request: Request) -> Reply {
        let reply = self.execute(vec![request]).pop().unwrap();
        self.drive();
        reply
    }

    /// Has whoever keeps the store ask, under a new id.
    #[track_caller]
    pub fn ask(&self, command: Command) -> Reply {
        self.run(self.request(command))
    }

    /// Has somebody ask, under a new id.
    #[track_caller]
    pub fn ask_by(&self, caller: Caller, command: Command) -> Reply {
        self.run(Request { caller, ..self.request(command) })
    }

    /// Has somebody ask under this id.
    #[track_caller]
    pub fn ask_as(&self, id: RequestId, caller: Caller, command: Command) -> Reply {
        self.run(Request { id, caller, ..self.request(command) })
    }

    /// Engine time, in milliseconds since 1970.
    #[track_caller]
    pub fn now_ms(&self) -> u64 {
        self.ask(Command::Stats).time_ms
    }

    /// Adds a principal of this name and role, with a key that follows from its name.
    #[track_caller]
    pub fn enrol(&self, name: &str, role: Role) -> Caller {
        self.enrol_for(name, role, Vec::new())
    }

    /// The same of one who sees these products alone, if there are any.
    #[track_caller]
    pub fn enrol_for(&self, name: &str, role: Role, products: Vec<ProductId>) -> Caller {
        let mut key = [0; 32];
        key[..name.len()].copy_from_slice(name.as_bytes());
        self.enrol_as(PrincipalSpec { products, ..PrincipalSpec::of(name, role, key) })
    }

    /// Adds a principal.
    #[track_caller]
    pub fn enrol_as(&self, spec: PrincipalSpec) -> Caller {
        let (role, tenant) = (spec.role, spec.tenant);
        let reply = self.ask(Command::PrincipalAdd(Box::new(spec)));
        let ReplyBody::Principals(added) = reply.body else { panic!("{:?}", reply.status) };
        Caller { principal: added[0].id, role, tenant, ..Caller::LOCAL }
    }

    /// Adds a product.
    #[track_caller]
    pub fn product(&self, spec: ProductSpec) -> ProductId {
        self.session().add_product(self.id(), spec).wait().unwrap().id
    }

    /// Adds a product and imports cards NAME-0, NAME-1 and so on.
    #[track_caller]
    pub fn stock(&self, spec: ProductSpec, count: u64) -> ProductId {
        let name = spec.name.clone();
        let product = self.product(spec);
        self.import(product, &name, count);
        product
    }

    /// Imports cards PREFIX-0, PREFIX-1 and so on as one batch.
    #[track_caller]
    pub fn import(&self, product: ProductId, prefix: &str, count: u64) {
        self.import_with(product, prefix, count, |_| ());
    }

    /// The same after `set` has had its say about the batch.
    #[track_caller]
    pub fn import_with(
        &self,
        product: ProductId,
        prefix: &str,
        count: u64,
        set: impl FnOnce(&mut ImportSpec),
    ) {
        let codes: Vec<String> = (0..count).map(|row| format!("{prefix}-{row}")).collect();
        let rows = codes.iter().map(|code| ImportRow { code: code.as_bytes(), ..ImportRow::default() });
        let mut spec = ImportSpec::of(product, count, 16);
        set(&mut spec);
        self.session().import(self.id(), spec, rows, |_| ()).unwrap();
    }

    /// Sells so many cards of a product; whoever keeps the store has their codes.
    #[track_caller]
    pub fn sell(&self, product: ProductId, count: u32) -> OrderId {
        let id = self.id();
        self.session().sell(id, OrderId(id.0), product, count).wait().unwrap().order
    }

    #[track_caller]
    pub fn digest(&self, code: &str) -> CardDigest {
        self.engine().digest(Caller::LOCAL.tenant, code.as_bytes()).unwrap()
    }

    #[track_caller]
    pub fn redeem(&self, code: &str, amount: Money) -> Reply {
        let card = self.digest(code);
        self.ask(Command::Redeem { card, pin: None, amount, partial: false })
    }

    #[track_caller]
    pub fn reverse(&self, code: &str, original: RequestId) -> Reply {
        let card = self.digest(code);
        self.ask(Command::Reverse { card, original })
    }

    #[track_caller]
    pub fn card(&self, code: &str) -> CardReport {
        self.session().query(code).wait().unwrap()
    }

    #[track_caller]
    pub fn history(&self, code: &str) -> Vec<HistoryEvent> {
        self.session().history(code).wait().unwrap()
    }

    /// All that somebody is told who follows the log from its start.
    #[track_caller]
    pub fn events(&self, caller: Caller) -> Vec<Event> {
        let mut feed = self.engine().feed(caller, &FeedSpec::from_start()).unwrap();
        let mut events = Vec::new();
        while !feed.read(self.engine(), 1000, &mut events).unwrap().caught_up {}
        events
    }

    /// Every entry of the log as it lies on the disk, and where its record begins.
    #[track_caller]
    pub fn entries(&self, mut visit: impl FnMut(Lsn, &Entry<'_>)) {
        kami_wal::verify(&self.data, &WalOptions::default(), &mut |record| {
            if record.kind == RecordKind::Data {
                for entry in Group::parse(record.payload, record.payload_lsn).unwrap() {
                    visit(record.lsn, &entry.unwrap());
                }
            }
        })
        .unwrap();
    }
}
