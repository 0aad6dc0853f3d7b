//! When a card may be used: by rows of its batch, by itself, and from an event of its own; also after a restart.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use kami_engine::{
    BatchId, Caller, CardKind, CardReport, Command, Engine, EngineOptions, ImportRow, ImportSpec, Lifecycle,
    OrderId, ProductId, ProductSpec, ReplyBody, Request, RequestId, Session, Status, ValidFrom, Work, verify,
};
use kami_wal::{Drive, Medium, SimMedium, SimMode, WalOptions};

use crate::clock::HandClock;

const DAY_MS: u64 = 24 * 3600 * 1000;

struct Store {
    data: SimMedium,
    keys: SimMedium,
    clock: HandClock,
    engine: Engine,
    next: u128,
}

impl Store {
    fn new() -> Store {
        let (data, keys) = (SimMedium::new(1, SimMode::Direct), SimMedium::new(2, SimMode::Direct));
        let clock = HandClock::default();
        let engine = open(&data, &keys, &clock);
        Store { data, keys, clock, engine, next: 100 }
    }

    fn id(&mut self) -> RequestId {
        self.next += 1;
        RequestId(self.next)
    }

    fn later(&self, ms: u64) {
        self.clock.0.fetch_add(ms, Ordering::Relaxed);
    }

    fn session(&self) -> Session {
        Session::new(&self.engine, Caller::LOCAL)
    }

    /// A product whose cards are valid for a day, with a batch of four.
    fn product(&mut self, name: &str, kind: CardKind, from: ValidFrom, active: bool) -> ProductId {
        let mut spec = ProductSpec::single(name, *b"CNY", 100);
        (spec.kind, spec.valid_days, spec.terms.valid_from) = (kind, 1, from);
        let (add, import) = (self.id(), self.id());
        let product = self.session().add_product(add, spec).wait().unwrap().id;
        let codes: Vec<String> = (0..4).map(|row| format!("{name}-{row}")).collect();
        let rows = codes.iter().map(|code| ImportRow { code: code.as_bytes(), ..ImportRow::default() });
        let spec = ImportSpec { active, ..ImportSpec::of(product, 4, 16) };
        self.session().import(import, spec, rows, |_| ()).unwrap();
        product
    }

    fn sell(&mut self, product: ProductId, count: u32) {
        let id = self.id();
        self.session().sell(id, OrderId(id.0), product, count).wait().unwrap();
    }

    fn card(&self, code: &str) -> CardReport {
        self.session().query(code).wait().unwrap()
    }

    fn ask(&mut self, command: Command) -> (Status, ReplyBody) {
        let mut work = Work::default();
        let id = self.id();
        work.requests.push(Request {
            id,
            caller: Caller::LOCAL,
            terminal: kami_engine::TerminalId(0),
            channel: kami_engine::ChannelId(0),
            deadline: None,
            grounds: None,
            command,
        });
        self.engine.execute(&mut work);
        let reply = work.replies.pop().unwrap();
        (reply.status, reply.body)
    }

    fn now_ms(&mut self) -> u64 {
        match self.ask(Command::Stats).1 {
            ReplyBody::Stats(stats) => stats.time_ms,
            other => panic!("{other:?}"),
        }
    }

    fn redeem(&mut self, code: &str, amount: i64) -> Status {
        let card = self.engine.digest(Caller::LOCAL.tenant, code.as_bytes()).unwrap();
        self.ask(Command::Redeem { card, pin: None, amount, partial: false }).0
    }

    fn rows(&mut self, batch: u32, from: u64, rows: u64, active: bool) -> Status {
        self.ask(Command::BatchRows { batch: BatchId(batch), from, rows, active }).0
    }

    fn reopened(self) -> Store {
        let Store { data, keys, clock, engine, next } = self;
        engine.close().unwrap();
        let whole = verify(Arc::new(data.clone()), Arc::new(keys.clone())).unwrap();
        assert!(whole.problems.is_empty(), "{:?}", whole.problems);
        let engine = open(&data, &keys, &clock);
        Store { data, keys, clock, engine, next }
    }
}

fn open(data: &SimMedium, keys: &SimMedium, clock: &HandClock) -> Engine {
    let medium = |medium: &SimMedium| Arc::new(medium.clone()) as Arc<dyn Medium>;
    Engine::open(EngineOptions {
        data: medium(data),
        keys: medium(keys),
        wal: WalOptions { segment_bytes: 4 << 20, drive: Drive::Manual, ..WalOptions::default() },
        clock: Box::new(clock.clone()),
        accept_clock: false,
    })
    .unwrap()
}

#[test]
fn validity_counts_from_the_sale() {
    let mut store = Store::new();
    let product = store.product("SALE", CardKind::Single, ValidFrom::Sale, true);
    store.later(3 * DAY_MS);
    assert_eq!(store.card("SALE-0").expires_ms, 0, "nothing runs out in stock");
    store.sell(product, 1);
    let sold_ms = store.now_ms();
    assert_eq!(store.card("SALE-0").expires_ms, sold_ms + DAY_MS);
    let mut store = store.reopened();
    assert_eq!(store.card("SALE-0").expires_ms, sold_ms + DAY_MS);
    store.later(DAY_MS);
    assert_eq!(store.redeem("SALE-0", 0), Status::Expired);
    store.sell(product, 1);
    assert_eq!(store.redeem("SALE-1", 0), Status::Ok, "its day began with its own sale");
    // What must last longer than the rule gives is not there.
    let order = OrderId(9);
    let (status, _) = store.ask(Command::Sell { order, product, count: 1, validity_s_min: 24 * 3600 });
    assert_eq!(status, Status::OutOfStock);
}

#[test]
fn validity_counts_from_the_activation() {
    let mut store = Store::new();
    let product = store.product("ACT", CardKind::Single, ValidFrom::Activation, false);
    store.sell(product, 4);
    store.later(5 * DAY_MS);
    assert_eq!((store.card("ACT-0").expires_ms, store.redeem("ACT-0", 0)), (0, Status::NotActive));
    assert_eq!(store.rows(1, 0, 2, true), Status::Ok);
    let begun_ms = store.now_ms();
    assert_eq!(store.rows(1, 0, 2, true), Status::IllegalTransition, "nothing would change");
    assert_eq!(store.rows(1, 3, 2, true), Status::NotFound, "the batch has four rows");
    store.later(DAY_MS / 2);
    assert_eq!(store.rows(1, 0, 3, true), Status::Ok);
    let id = store.id();
    assert_eq!(store.session().activate(id, "ACT-3").wait().unwrap().expires_ms, begun_ms + DAY_MS * 3 / 2);
    let mut store = store.reopened();
    let ends = ["ACT-0", "ACT-1", "ACT-2", "ACT-3"].map(|code| store.card(code).expires_ms - begun_ms);
    assert_eq!(ends, [DAY_MS, DAY_MS, DAY_MS * 3 / 2, DAY_MS * 3 / 2], "what was active stays so since then");
    store.later(DAY_MS / 2);
    assert_eq!((store.redeem("ACT-0", 0), store.redeem("ACT-3", 0)), (Status::Expired, Status::Ok));
    assert_eq!(store.rows(1, 0, 4, false), Status::Ok);
    assert_eq!(store.redeem("ACT-2", 0), Status::NotActive);
}

#[test]
fn validity_counts_from_the_first_use() {
    let mut store = Store::new();
    let product = store.product("USE", CardKind::StoredValue, ValidFrom::FirstUse, true);
    store.sell(product, 2);
    store.later(50 * DAY_MS);
    assert_eq!(store.card("USE-0").expires_ms, 0);
    assert_eq!(store.redeem("USE-0", 10), Status::Ok);
    let (first, used_ms) = (RequestId(store.next), store.now_ms());
    store.later(DAY_MS / 2);
    assert_eq!(store.redeem("USE-0", 10), Status::Ok);
    let mut store = store.reopened();
    assert_eq!(store.card("USE-0").expires_ms, used_ms + DAY_MS, "the second use changes nothing");
    store.later(DAY_MS / 2);
    assert_eq!(store.redeem("USE-0", 10), Status::Expired);
    // Nothing of it is used once the second is given back, too; then it may begin anew.
    let card = store.engine.digest(Caller::LOCAL.tenant, b"USE-0").unwrap();
    let second = RequestId(first.0 + 2);
    assert_eq!(store.ask(Command::Reverse { card, original: second }).0, Status::Ok);
    assert_eq!(store.card("USE-0").expires_ms, used_ms + DAY_MS);
    assert_eq!(store.ask(Command::Reverse { card, original: first }).0, Status::Ok);
    assert_eq!(store.card("USE-0").expires_ms, 0);
    assert_eq!(store.redeem("USE-0", 10), Status::Ok);
    let now_ms = store.now_ms();
    assert_eq!(store.card("USE-0").expires_ms, now_ms + DAY_MS);
}

/// A card in stock that is ended is not sold; one that is brought back is, although its batch is over.
#[test]
fn an_end_of_its_own_counts_in_stock() {
    let mut store = Store::new();
    let product = store.product("OWN", CardKind::Single, ValidFrom::Import, true);
    let sellable = |store: &Store| store.session().stock(None).wait().unwrap()[0].sellable;
    let id = store.id();
    assert_eq!(store.session().expire(id, "OWN-0").wait().unwrap().lifecycle, Lifecycle::Expired);
    assert_eq!(sellable(&store), 3);
    store.later(2 * DAY_MS);
    let ends_ms = store.card("OWN-2").expires_ms + 5 * DAY_MS;
    assert_eq!(sellable(&store), 0);
    let id = store.id();
    assert_eq!(store.session().extend(id, "OWN-2", ends_ms).wait().unwrap().lifecycle, Lifecycle::Available);
    let mut store = store.reopened();
    assert_eq!(sellable(&store), 1);
    store.sell(product, 1);
    assert_eq!(store.redeem("OWN-2", 0), Status::Ok);
    store.engine.check().unwrap();
}
