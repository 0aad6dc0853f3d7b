//! Faults of the engine that were found, one test each, named after what went wrong.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use kami_engine::record::{Group, Kind};
use kami_engine::{
    AccountKind, AccountSpec, Advice, BatchId, Caller, CardDigest, CardKind, Command, Engine, EngineOptions,
    FeedSpec, GivenBack, Grounds, ImportRow, ImportSpec, Leg, Lifecycle, LimitAction, LimitScope, LimitSpec,
    LimitWindow, OrderId, PastError, PrincipalId, ProductId, ProductSpec, Purchase, Reply, ReplyBody,
    ReplyFlags, Request, RequestId, Session, Status, TotalsQuery, Work, verify,
};
use kami_wal::{Drive, Medium, RecordKind, SimMedium, SimMode, WalOptions};

use crate::clock::HandClock;

struct Store {
    data: SimMedium,
    keys: SimMedium,
    clock: HandClock,
    engine: Engine,
    segment_bytes: u64,
    next: u128,
}

fn open(data: &SimMedium, keys: &SimMedium, clock: &HandClock, segment_bytes: u64) -> Engine {
    let medium = |medium: &SimMedium| Arc::new(medium.clone()) as Arc<dyn Medium>;
    Engine::open(EngineOptions {
        data: medium(data),
        keys: medium(keys),
        wal: WalOptions { segment_bytes, drive: Drive::Manual, ..WalOptions::default() },
        clock: Box::new(clock.clone()),
        accept_clock: false,
    })
    .unwrap()
}

impl Store {
    fn new(segment_bytes: u64) -> Store {
        let (data, keys) = (SimMedium::new(1, SimMode::Direct), SimMedium::new(2, SimMode::Direct));
        let clock = HandClock::default();
        let engine = open(&data, &keys, &clock, segment_bytes);
        Store { data, keys, clock, engine, segment_bytes, next: 100 }
    }

    fn id(&mut self) -> RequestId {
        self.next += 1;
        RequestId(self.next)
    }

    fn later(&self, ms: u64) {
        self.clock.0.fetch_add(ms, Ordering::Relaxed);
    }

    /// A product with a batch of cards `name-0`, `name-1` and so on.
    fn product(&mut self, spec: ProductSpec, count: u64) -> ProductId {
        let name = spec.name.clone();
        let (add, import) = (self.id(), self.id());
        let session = Session::new(&self.engine, Caller::LOCAL);
        let product = session.add_product(add, spec).wait().unwrap().id;
        let codes: Vec<String> = (0..count).map(|row| format!("{name}-{row}")).collect();
        let row = |code| ImportRow { code, pin: None, face: None, expires_ms: 0, origin: None };
        let rows = codes.iter().map(|code| row(code.as_bytes()));
        session.import(import, ImportSpec::of(product, count, 20), rows, |_| ()).unwrap();
        product
    }

    fn single(&mut self, name: &str, count: u64) -> ProductId {
        self.product(ProductSpec::single(name, *b"CNY", 100), count)
    }

    fn stored_value(&mut self, name: &str, change: impl FnOnce(&mut ProductSpec)) -> ProductId {
        let mut spec = ProductSpec::single(name, *b"CNY", 100);
        spec.kind = CardKind::StoredValue;
        change(&mut spec);
        self.product(spec, 4)
    }

    fn request(&mut self, command: Command) -> Request {
        Request {
            id: self.id(),
            caller: Caller::LOCAL,
            terminal: kami_engine::TerminalId(0),
            channel: kami_engine::ChannelId(0),
            deadline: None,
            grounds: None,
            command,
        }
    }

    fn all(&mut self, requests: Vec<Request>) -> Vec<Reply> {
        let mut work = Work::default();
        work.requests = requests;
        self.engine.execute(&mut work);
        self.engine.drive().unwrap();
        work.replies
    }

    fn ask_as(&mut self, id: RequestId, command: Command) -> Reply {
        let request = Request { id, ..self.request(command) };
        self.all(vec![request]).pop().unwrap()
    }

    fn ask(&mut self, command: Command) -> Reply {
        let id = self.id();
        self.ask_as(id, command)
    }

    fn card(&self, code: &str) -> kami_engine::CardDigest {
        self.engine.digest(Caller::LOCAL.tenant, code.as_bytes()).unwrap()
    }

    fn lifecycle(&self, code: &str) -> Lifecycle {
        Session::new(&self.engine, Caller::LOCAL).query(code).wait().unwrap().lifecycle
    }

    fn redeem(&mut self, code: &str, amount: i64) -> Status {
        let card = self.card(code);
        self.ask(Command::Redeem { card, pin: None, amount, partial: false }).status
    }

    fn sell(&mut self, product: ProductId, count: u32, sealed: bool) -> OrderId {
        let order = OrderId(self.id().0);
        let purchase = Purchase { sealed, ..Purchase::of(order, product, count) };
        assert_eq!(self.ask(Command::SellLines(Box::new(purchase))).status, Status::Ok);
        order
    }

    /// Everything in the log so far, by kind.
    fn count(&self, kind: Kind) -> usize {
        let mut feed = self.engine.feed(Caller::LOCAL, &FeedSpec::from_start()).unwrap();
        let mut events = Vec::new();
        while !feed.read(&self.engine, 1_000, &mut events).unwrap().caught_up {}
        events.iter().filter(|event| event.kind == kind).count()
    }

    /// Through an end of the process: memory is what the log says, and nothing is wrong with that.
    fn reopened(self) -> Store {
        let Store { data, keys, clock, engine, segment_bytes, next } = self;
        engine.drive().unwrap();
        engine.check().unwrap();
        let hash = engine.state_hash();
        engine.close().unwrap();
        let whole = verify(Arc::new(data.clone()), Arc::new(keys.clone())).unwrap();
        assert!(whole.problems.is_empty(), "{:?}", whole.problems);
        let engine = open(&data, &keys, &clock, segment_bytes);
        assert_eq!(engine.state_hash(), hash, "recovery leads to another state");
        engine.check().unwrap();
        Store { data, keys, clock, engine, segment_bytes, next }
    }
}

/// The entries about crossed limits stood behind that of the order, and had to say how far back their record begins:
/// behind an order of more than half a megabyte they could not, and the process ended under the lock, again at every
/// retry.
#[test]
fn a_large_order_of_scattered_cards_aborted_at_an_alert_limit() {
    const CARDS: u64 = 22_000;
    let mut store = Store::new(16 << 20);
    let product = store.single("coffee", CARDS);
    let mut from = 0;
    while from < CARDS {
        let orders = (0..64.min(CARDS - from)).map(|_| {
            let order = OrderId(store.id().0);
            store.request(Command::Reserve(Box::new(Purchase::of(order, product, 1))))
        });
        let orders: Vec<_> = orders.collect();
        from += orders.len() as u64;
        assert!(store.all(orders).iter().all(|reply| reply.status == Status::Ok));
    }
    // Each comes back by an entry of its own, so none continues another.
    store.later(1_000_000);
    let mut ended = 0;
    while ended < CARDS as usize {
        ended += store.engine.run_due(&mut Work::default());
        store.engine.drive().unwrap();
    }
    let alert = |name: &str, window| LimitSpec {
        name: name.to_owned(),
        scope: LimitScope::Ip,
        product: None,
        window,
        max: 1,
        action: LimitAction::Alert,
        ended: false,
    };
    for limit in [alert("life", LimitWindow::Life), alert("hour", LimitWindow::Rolling { seconds: 3600 })] {
        assert_eq!(store.ask(Command::LimitPut(Box::new(limit))).status, Status::Ok);
    }
    let order = OrderId(store.id().0);
    let purchase = Purchase { ip: 9, sealed: true, ..Purchase::of(order, product, CARDS as u32) };
    let sale = Command::SellLines(Box::new(purchase));
    let id = store.id();
    assert_eq!(store.ask_as(id, sale.clone()).status, Status::Ok);
    assert_eq!(store.count(Kind::LimitCrossed), 2, "an alert was not given");
    let mut store = store.reopened();
    assert_eq!(store.ask_as(id, sale).status, Status::Ok);
    assert_eq!(store.count(Kind::LimitCrossed), 2, "an alert was given again");
}
/// Ranges that reach further each time made a piece each without bound, and a snapshot with more pieces than there may
/// be was refused at every start.
#[test]
fn ranges_of_active_rows_grew_until_no_snapshot_was_read() {
    let mut store = Store::new(4 << 20);
    let mut spec = ProductSpec::single("coffee", *b"CNY", 100);
    spec.valid_days = 0;
    store.product(spec, 10_000);
    let rows = |from, rows, active| Command::BatchRows { batch: BatchId(1), from, rows, active };
    assert_eq!(store.ask(rows(0, 10_000, false)).status, Status::Ok);
    let mut done = 0;
    let full = loop {
        store.later(1_000);
        let status = store.ask(rows(0, 3 * (done + 1), true)).status;
        if status != Status::Ok || done == 3_000 {
            break status;
        }
        done += 1;
    };
    assert_eq!(full, Status::PiecesExhausted, "after {done}");
    assert_eq!(store.ask(rows(0, 10_000, false)).status, Status::Ok, "what makes fewer is always possible");
    // The other way: nested.
    done = 0;
    let full = loop {
        store.later(1_000);
        let status = store.ask(rows(5_000 - done, 2 * done + 1, true)).status;
        if status != Status::Ok || done == 3_000 {
            break status;
        }
        done += 1;
    };
    assert_eq!(full, Status::PiecesExhausted, "after {done}");
    store.engine.checkpoint().unwrap();
    // It says so if a snapshot is not believed.
    store.reopened();
}
/// A hold of a card whose face value is zero held nothing: whoever came after redeemed it, while the one who held it
/// was topping up a phone.
#[test]
fn a_hold_did_not_hold_a_card_of_face_value_zero() {
    let mut store = Store::new(4 << 20);
    let product = store.product(ProductSpec::single("voucher", *b"CNY", 0), 1);
    store.sell(product, 1, false);
    let card = store.card("voucher-0");
    let id = store.id();
    let hold = Command::Hold { card, pin: None, amount: 0, partial: false, seconds: 0 };
    assert_eq!(store.ask_as(id, hold).status, Status::Ok);
    assert_eq!(store.redeem("voucher-0", 0), Status::InsufficientValue);
    assert_eq!(store.ask(Command::Capture { card, hold: id, amount: 0 }).status, Status::Ok);
    assert_eq!(store.lifecycle("voucher-0"), Lifecycle::Redeemed);
    store.reopened();
}
/// Room was asked for words that would never be written.
#[test]
fn grounds_longer_than_a_record_aborted() {
    let mut store = Store::new(64 << 20);
    store.single("coffee", 1);
    let card = store.card("coffee-0");
    let why = "x".repeat(6 << 20);
    for command in [Command::Freeze { card }, Command::BatchFreeze(BatchId(1))] {
        let grounds = Some(Box::new(Grounds::because(&why)));
        let request = Request { grounds, ..store.request(command) };
        assert_eq!(store.all(vec![request]).pop().unwrap().status, Status::Malformed);
    }
    store.reopened();
}

/// What a turn may take was counted without the head of its group.
#[test]
fn a_turn_that_fitted_by_a_hair_aborted() {
    let mut store = Store::new(64 << 10);
    store.single("coffee", 64);
    // Freezes that fill a record of 16,344 bytes to the last: 88 bytes each, and 272 for a full reason.
    for (plain, full) in [(22, 40), (22, 39), (21, 40)] {
        let mut requests = Vec::new();
        for row in 0..plain + full {
            let card = store.card(&format!("coffee-{row}"));
            let grounds = (row < full).then(|| Box::new(Grounds::because(&"x".repeat(255))));
            requests.push(Request { grounds, ..store.request(Command::Freeze { card }) });
        }
        assert!(store.all(requests).iter().all(|reply| reply.status == Status::Ok));
        for row in 0..plain + full {
            let card = store.card(&format!("coffee-{row}"));
            assert_eq!(store.ask(Command::Unfreeze { card }).status, Status::Ok);
        }
    }
    store.reopened();
}

/// Whether an order fits one record was asked when it was sold, in a form that takes less than what takes it back.
#[test]
fn a_return_larger_than_its_record_aborted() {
    // Of 900 the log cannot even grant what it might take, and said that it is read-only.
    for count in [700, 900] {
        let mut store = Store::new(64 << 10);
        let product = store.single("coffee", u64::from(count));
        let order = OrderId(store.id().0);
        let sale = Command::Sell { order, product, count, validity_s_min: 0 };
        assert_eq!(store.ask(sale).status, Status::Ok);
        // Every other card is moved by itself, so that none continues another.
        for row in (0..count).step_by(2) {
            let card = store.card(&format!("coffee-{row}"));
            assert_eq!(store.ask(Command::Freeze { card }).status, Status::Ok);
        }
        let back = |cards| Command::Return(Box::new(GivenBack { order, cards, legs: Vec::new() }));
        assert_eq!(store.ask(back(Vec::new())).status, Status::OrderTooLarge);
        let some = (0..64).map(|row| store.card(&format!("coffee-{row}"))).collect();
        assert_eq!(store.ask(back(some)).status, Status::Ok, "in parts");
        store.reopened();
    }
}
/// A code that nobody had been given was asked for at a till all the same: redeemed, held, reversed by a stranger or
/// reported from offline. Its card came back into stock as if nobody had seen it.
#[test]
fn a_card_that_was_seen_at_a_till_came_back_into_stock() {
    type Tried<'a> = (&'a str, &'a dyn Fn(&mut Store, CardDigest));
    let mut store = Store::new(4 << 20);
    let product = store.single("coffee", 6);
    let tried: [Tried<'_>; 5] = [
        ("nothing", &|_, _| ()),
        ("a redemption that was reversed", &|store, card| {
            let id = store.id();
            let redeem = Command::Redeem { card, pin: None, amount: 0, partial: false };
            assert_eq!(store.ask_as(id, redeem).status, Status::Ok);
            assert_eq!(store.ask(Command::Reverse { card, original: id }).status, Status::Ok);
        }),
        ("a hold that was released", &|store, card| {
            let id = store.id();
            let hold = Command::Hold { card, pin: None, amount: 0, partial: false, seconds: 0 };
            assert_eq!(store.ask_as(id, hold).status, Status::Ok);
            assert_eq!(store.ask(Command::Release { card, hold: id }).status, Status::Ok);
        }),
        ("a reversal of what never came", &|store, card| {
            let original = store.id();
            assert_eq!(store.ask(Command::Reverse { card, original }).status, Status::Tombstoned);
        }),
        ("a report that did not fit", &|store, card| {
            let advice = Advice { card, pin: None, amount: 1, made_ms: 1_800_000_000_000 };
            assert_eq!(store.ask(Command::Advice(Box::new(advice))).status, Status::ExceptionNoted);
        }),
    ];
    for (row, (what, tried)) in tried.into_iter().enumerate() {
        let order = store.sell(product, 1, true);
        // What comes back unseen is sold first.
        let code = format!("coffee-{}", row.saturating_sub(1));
        assert_eq!(store.lifecycle(&code), Lifecycle::Sold, "{what}");
        let card = store.card(&code);
        tried(&mut store, card);
        let back = Command::Return(Box::new(GivenBack { order, cards: Vec::new(), legs: Vec::new() }));
        assert_eq!(store.ask(back).status, Status::Ok, "{what}");
        let stands = if row == 0 { Lifecycle::Available } else { Lifecycle::Returned };
        assert_eq!(store.lifecycle(&code), stands, "after {what}");
    }
    // What was done to it in stock shows it to nobody.
    let card = store.card("coffee-4");
    assert_eq!(store.ask(Command::Freeze { card }).status, Status::Ok);
    assert_eq!(store.ask(Command::Unfreeze { card }).status, Status::Ok);
    let order = store.sell(product, 1, true);
    let back = Command::Return(Box::new(GivenBack { order, cards: Vec::new(), legs: Vec::new() }));
    assert_eq!(store.ask(back).status, Status::Ok);
    assert_eq!(store.lifecycle("coffee-4"), Lifecycle::Available);
    store.reopened();
}
/// Where a card had less on it than a till had given, the product's rule for partial redemption took what was left,
/// and the rest was nobody's; told again, the answer was another.
#[test]
fn an_offline_redemption_lost_what_it_was_short_of() {
    let mut store = Store::new(4 << 20);
    let product = store.stored_value("gift", |spec| spec.terms.partial = true);
    store.sell(product, 1, false);
    assert_eq!(store.redeem("gift-0", 70), Status::Ok);
    let advice = Advice { card: store.card("gift-0"), pin: None, amount: 50, made_ms: 1_800_000_000_000 };
    let id = store.id();
    for _ in 0..2 {
        let reply = store.ask_as(id, Command::Advice(Box::new(advice)));
        assert_eq!(reply.status, Status::ExceptionNoted);
    }
    let ReplyBody::Exceptions(noted) =
        store.ask(Command::ExceptionList { after: 0, count: 9, all: true }).body
    else {
        panic!("no list")
    };
    assert_eq!(
        (noted.rows.len(), noted.rows[0].reason, noted.rows[0].amount),
        (1, Status::InsufficientValue, 50)
    );
    assert_eq!(store.redeem("gift-0", 30), Status::Ok, "nothing was taken");
    store.reopened();
}

/// A till that did not hear what became of a redemption went offline, gave the goods and reported that under the same
/// id. Where the redemption had arrived with other terms, the report was refused and forgotten.
#[test]
fn an_offline_redemption_was_dropped_for_its_id() {
    let mut store = Store::new(4 << 20);
    let product = store.stored_value("gift", |_| ());
    store.sell(product, 1, false);
    let card = store.card("gift-0");
    assert_eq!(store.redeem("gift-0", 70), Status::Ok);
    let id = store.id();
    let partly = Command::Redeem { card, pin: None, amount: 50, partial: true };
    assert_eq!(store.ask_as(id, partly.clone()).status, Status::OkPartial);
    let advice = |amount| {
        let advice = Advice { card, pin: None, amount, made_ms: 1_800_000_000_000 };
        Command::Advice(Box::new(advice))
    };
    for _ in 0..2 {
        assert_eq!(store.ask_as(id, advice(50)).status, Status::ExceptionNoted);
    }
    assert_eq!(store.ask_as(id, advice(51)).status, Status::IdReused, "a report has one body");
    let again = store.ask_as(id, partly);
    assert_eq!((again.status, again.flags), (Status::OkPartial, ReplyFlags::REPLAYED), "as the first time");
    let ReplyBody::Exceptions(noted) =
        store.ask(Command::ExceptionList { after: 0, count: 9, all: true }).body
    else {
        panic!("no list")
    };
    assert_eq!((noted.rows.len(), noted.rows[0].reason, noted.rows[0].amount), (1, Status::IdReused, 50));
    // What the id did otherwise is no redemption that may have arrived.
    let id = store.id();
    assert_eq!(store.ask_as(id, Command::Freeze { card }).status, Status::Ok);
    assert_eq!(store.ask_as(id, advice(50)).status, Status::IdReused);
    store.reopened();
}
/// A load that is taken back leaves nothing on a card which nothing can be loaded onto any more: it is used up, and the
/// store was said to be damaged.
#[test]
fn a_load_taken_back_after_its_product_stopped_loading_passed_for_damage() {
    let mut store = Store::new(4 << 20);
    let spec = |value_max| {
        let mut spec = ProductSpec::single("gift", *b"CNY", 100);
        (spec.kind, spec.terms.value_max) = (CardKind::StoredValue, value_max);
        spec
    };
    let product = store.product(spec(500), 1);
    store.sell(product, 1, false);
    let card = store.card("gift-0");
    let load = store.id();
    assert_eq!(store.ask_as(load, Command::Load { card, amount: 50 }).status, Status::Ok);
    assert_eq!(store.redeem("gift-0", 100), Status::Ok);
    assert_eq!(store.ask(Command::ProductSet(Box::new(spec(0)))).status, Status::Ok);
    assert_eq!(store.ask(Command::Reverse { card, original: load }).status, Status::Ok);
    assert_eq!(store.lifecycle("gift-0"), Lifecycle::Redeemed);
    store.reopened();
}
/// Totals up to a place inside of a record were answered with BUSY for ever, and an alarm that the log cannot be read.
#[test]
fn totals_up_to_the_middle_of_a_record_raised_an_alarm() {
    let mut store = Store::new(4 << 20);
    let product = store.single("coffee", 4);
    store.sell(product, 1, false);
    assert_eq!(store.redeem("coffee-0", 0), Status::Ok);
    let day = (1_800_000_000_000_u64 / 86_400_000) as u32;
    let query = |end| TotalsQuery { day, days: 2, offset_min: 0, end, after: None, lines_max: 9 };
    let go_on = std::sync::atomic::AtomicBool::new(false);
    let totals = |end| store.engine.totals(Caller::LOCAL, &query(end), &go_on);
    let end = totals(None).unwrap().end;
    assert_eq!(totals(Some(end)).unwrap().lines, totals(None).unwrap().lines);
    let mut feed = store.engine.feed(Caller::LOCAL, &FeedSpec::from_start()).unwrap();
    let mut events = Vec::new();
    while !feed.read(&store.engine, 1_000, &mut events).unwrap().caught_up {}
    for event in &events {
        for bytes in [event.lsn.bytes(), event.lsn.bytes() + 8] {
            let within = kami_wal::Lsn::from_bytes(bytes);
            match totals(within) {
                Err(PastError::Refused(Status::PositionUnknown)) => {}
                other => panic!("{within:?}: {other:?}"),
            }
        }
    }
}

/// A snapshot copied the ends of validity of all cards of a batch under one hold of the lock: nobody redeemed meanwhile.
#[test]
fn a_snapshot_held_the_lock_for_the_ends_of_all_cards() {
    const CARDS: u64 = 640;
    let mut store = Store::new(4 << 20);
    let mut spec = ProductSpec::single("coffee", *b"CNY", 100);
    spec.valid_days = 365;
    store.product(spec, 2 * CARDS);
    let extend = |store: &mut Store, row: u64| {
        let card = store.card(&format!("coffee-{row}"));
        // Later each time, or it is none.
        let expires_ms = 1_900_000_000_000 + store.id().0 as u64;
        assert_eq!(store.ask(Command::Extend { card, expires_ms }).status, Status::Ok);
    };
    let engine = store.engine.clone();
    let mut without = 0;
    engine.checkpoint_beside(|| without += 1).unwrap();
    for row in 0..CARDS {
        extend(&mut store, 2 * row);
    }
    let mut times = 0;
    // Others are extended beside it, in front of the place and behind it, and some again.
    engine
        .checkpoint_beside(|| {
            times += 1;
            if times < CARDS / 2 {
                extend(&mut store, 2 * CARDS - 1 - times);
                extend(&mut store, times);
            }
        })
        .unwrap();
    drop(engine);
    assert!(
        without + CARDS / 32 <= times,
        "the lock was let go {times} times, and {without} times without them"
    );
    store.reopened();
}

/// A reservation moves no money, and its entry said what its accounts would have had if it did.
#[test]
fn a_reservation_said_balances_that_no_account_had() {
    let mut store = Store::new(4 << 20);
    let product = store.single("coffee", 2);
    let mut legs = Vec::new();
    for (name, kind, amount) in [("shop", AccountKind::Income, 100), ("world", AccountKind::External, -100)] {
        let (name, currency, owner) = (name.to_owned(), *b"CNY", PrincipalId(0));
        let spec = AccountSpec { name, currency, kind, credit_limit: 0, owner };
        let id = store.id();
        let account = Session::new(&store.engine, Caller::LOCAL).add_account(id, spec).wait().unwrap().id;
        legs.push(Leg { account, amount });
    }
    for reserves in [false, true] {
        let order = OrderId(store.id().0);
        let purchase = Box::new(Purchase { legs: legs.clone(), ..Purchase::of(order, product, 1) });
        let command = if reserves { Command::Reserve(purchase) } else { Command::SellLines(purchase) };
        assert_eq!(store.ask(command).status, Status::Ok);
    }
    let mut said = Vec::new();
    let options = WalOptions::default();
    kami_wal::verify(&store.data, &options, &mut |record| {
        let group = Group::parse(record.payload, record.payload_lsn);
        for entry in group.into_iter().flatten().flatten().filter(|_| record.kind == RecordKind::Data) {
            if entry.head.kind.is_order() {
                let posted = entry.order().unwrap().2.legs;
                said.push(posted.iter().map(|leg| (leg.leg.amount, leg.balance)).collect::<Vec<_>>());
            }
        }
    })
    .unwrap();
    assert_eq!(said, [vec![(100, 100), (-100, -100)], vec![(100, 0), (-100, 0)]]);
    store.reopened();
}

/// Ids may be any number, and the engine's own end of a hold carried zero: on a card that somebody had asked about under
/// that id, or taken it back, the end passed for a second use of it. The hold was never ended, and 64 such were all that
/// was ever tried.
#[test]
fn a_hold_never_timed_out_on_a_card_that_had_seen_the_id_zero() {
    let mut store = Store::new(4 << 20);
    let product = store.product(ProductSpec::single("voucher", *b"CNY", 100), 2);
    store.sell(product, 2, false);
    let cards = ["voucher-0", "voucher-1"].map(|code| store.card(code));
    for card in cards {
        let hold = Command::Hold { card, pin: None, amount: 0, partial: false, seconds: 60 };
        assert_eq!(store.ask(hold).status, Status::Ok);
    }
    assert_eq!(store.ask_as(RequestId(0), Command::Freeze { card: cards[0] }).status, Status::Ok);
    let reverse = Command::Reverse { card: cards[1], original: RequestId(0) };
    assert_eq!(store.ask(reverse).status, Status::Tombstoned);
    store.later(61_000);
    assert_eq!(store.engine.run_due(&mut Work::default()), 2);
    assert_eq!(store.engine.open_holds(), 0);
    // It is somebody's id all the same.
    assert_eq!(store.ask_as(RequestId(0), Command::Unfreeze { card: cards[0] }).status, Status::IdReused);
    store.reopened();
}
