//! Codes that are sold many times: each sale gives one use, each redemption takes one, whatever comes between.

use std::sync::Arc;

use kami_engine::{
    Caller, CardDigest, CardKind, ChannelId, Command, Confirmation, Engine, EngineOptions, GivenBack,
    ImportRow, ImportSpec, Kind, OrderId, ProductId, ProductSpec, Purchase, Reply, ReplyBody, Request,
    RequestId, SHARED_USES_MAX, Session, Status, TenantId, TerminalId, ValidFrom, Work, verify,
};
use kami_wal::{Drive, Medium, SimMedium, SimMode, WalOptions};

use crate::clock::HandClock;

struct Store {
    data: SimMedium,
    keys: SimMedium,
    engine: Engine,
    product: ProductId,
    cards: Vec<CardDigest>,
    next: u128,
}

fn open(data: &SimMedium, keys: &SimMedium) -> Engine {
    Engine::open(EngineOptions {
        data: Arc::new(data.clone()) as Arc<dyn Medium>,
        keys: Arc::new(keys.clone()),
        wal: WalOptions { segment_bytes: 4 << 20, drive: Drive::Manual, ..WalOptions::default() },
        clock: Box::<HandClock>::default(),
        accept_clock: false,
    })
    .unwrap()
}

fn shared(name: &str, uses: u32) -> ProductSpec {
    let mut spec = ProductSpec { kind: CardKind::Shared, ..ProductSpec::single(name, *b"CNY", 100) };
    spec.terms.uses = uses;
    spec
}

impl Store {
    /// With so many codes, each to be sold so often.
    fn new(codes: usize, uses: u32) -> Store {
        let (data, keys) = (SimMedium::new(1, SimMode::Direct), SimMedium::new(2, SimMode::Direct));
        let engine = open(&data, &keys);
        let session = Session::new(&engine, Caller::LOCAL);
        let product = session.add_product(RequestId(1), shared("vpn", uses)).wait().unwrap().id;
        let names: Vec<String> = (0..codes).map(|n| format!("VPN-{n:05}")).collect();
        let rows = names.iter().map(|code| ImportRow { code: code.as_bytes(), ..ImportRow::default() });
        session.import(RequestId(2), ImportSpec::of(product, codes as u64, 16), rows, |_| ()).unwrap();
        let digest = |code: &String| engine.digest(TenantId(0), code.as_bytes()).unwrap();
        let cards = names.iter().map(digest).collect();
        Store { data, keys, engine, product, cards, next: 1000 }
    }

    fn ask_as(&mut self, id: u128, command: Command) -> Reply {
        let mut work = Work::default();
        work.requests.push(Request {
            id: RequestId(id),
            caller: Caller::LOCAL,
            terminal: TerminalId(0),
            channel: ChannelId(0),
            deadline: None,
            grounds: None,
            command,
        });
        self.engine.execute(&mut work);
        work.replies.pop().unwrap()
    }

    fn ask(&mut self, command: Command) -> Reply {
        self.next += 1;
        self.ask_as(self.next, command)
    }

    fn sell(&mut self, order: u128) -> Status {
        let product = self.product;
        self.ask(Command::Sell { order: OrderId(order), product, count: 1, validity_s_min: 0 }).status
    }

    fn reserve(&mut self, order: u128) -> Status {
        let product = self.product;
        self.ask(Command::Reserve(Box::new(Purchase::of(OrderId(order), product, 1)))).status
    }

    fn redeem(&mut self, card: usize) -> Status {
        let card = self.cards[card];
        self.ask(Command::Redeem { card, pin: None, amount: 0, partial: false }).status
    }

    fn give_back(&mut self, order: u128) -> Status {
        let given = GivenBack { order: OrderId(order), cards: Vec::new(), legs: Vec::new() };
        self.ask(Command::Return(Box::new(given))).status
    }

    /// What can be sold, and what is left on a card.
    fn stock(&mut self) -> u64 {
        match self.ask(Command::Stock { product: None }).body {
            ReplyBody::Stock(lines) => lines.iter().map(|line| line.sellable).sum(),
            body => panic!("{body:?}"),
        }
    }

    fn left(&mut self, card: usize) -> i64 {
        let card = self.cards[card];
        match self.ask(Command::Query { card }).body {
            ReplyBody::Card(report) => {
                assert_eq!(report.order, None, "it is more people's than one");
                report.remaining
            }
            body => panic!("{body:?}"),
        }
    }

    /// Dies and comes back: from the log alone, or from a snapshot and the log after it.
    fn restart(&mut self) {
        self.engine.drive().unwrap();
        self.engine.check().unwrap();
        let hash = self.engine.state_hash();
        self.data = self.data.kill();
        self.engine = open(&self.data, &self.keys);
        self.engine.check().unwrap();
        assert_eq!(self.engine.state_hash(), hash, "recovery leads to another state");
    }

    fn verified(mut self) {
        self.restart();
        let Store { data, keys, engine, .. } = self;
        engine.drive().unwrap();
        drop(engine);
        let found = verify(Arc::new(data.kill()), Arc::new(keys)).unwrap();
        assert!(found.problems.is_empty(), "{:#?}", found.problems);
    }
}

#[test]
fn a_sale_brings_one_use_and_no_more_are_sold_than_there_are() {
    let mut store = Store::new(2, 3);
    assert_eq!((store.stock(), store.redeem(0)), (6, Status::CardNotValid));
    for order in 1..=6 {
        assert_eq!(store.sell(order), Status::Ok, "{order}");
    }
    assert_eq!((store.sell(7), store.stock()), (Status::OutOfStock, 0));
    store.restart();
    assert_eq!((store.left(0), store.left(1)), (3, 3));
    for used in 1..=3 {
        assert_eq!(store.redeem(0), Status::Ok);
        assert_eq!((store.left(0), store.left(1)), (3 - used, 3));
    }
    assert_eq!(store.redeem(0), Status::UsesExhausted);
    store.engine.checkpoint().unwrap();
    store.restart();
    assert_eq!(store.redeem(0), Status::UsesExhausted);
    assert_eq!((store.redeem(1), store.sell(8)), (Status::Ok, Status::OutOfStock));
    store.verified();
}

#[test]
fn an_order_has_a_code_once_and_every_owner_may_fetch_it() {
    let mut store = Store::new(2, 5);
    let two = |order: u128, count, sealed, product| {
        Command::SellLines(Box::new(Purchase { sealed, ..Purchase::of(OrderId(order), product, count) }))
    };
    let product = store.product;
    assert_eq!(store.ask(two(1, 3, false, product)).status, Status::OutOfStock, "there are two codes");
    for order in [1, 2] {
        let reply = store.ask(two(order, 2, order == 2, product));
        assert_eq!(reply.status, Status::Ok);
        store.engine.drive().unwrap();
        let fetch = Command::OrderFetch { order: OrderId(order), from: 0, count: 10 };
        let reply = store.ask(fetch);
        store.engine.drive().unwrap();
        let ReplyBody::Cards(list) = reply.body else { panic!("{reply:?}") };
        let mut codes = Vec::new();
        store
            .engine
            .reveal(&list, &mut |_, code| codes.push(String::from_utf8(code.to_vec()).unwrap()))
            .unwrap();
        assert_eq!(codes, ["VPN-00000", "VPN-00001"]);
    }
    store.verified();
}

#[test]
fn what_was_not_seen_comes_back_for_sale_and_what_was_is_taken_back() {
    let mut store = Store::new(1, 2);
    let product = store.product;
    assert_eq!(store.sell(1), Status::Ok);
    let sealed = Purchase { sealed: true, ..Purchase::of(OrderId(2), product, 1) };
    assert_eq!(store.ask(Command::SellLines(Box::new(sealed))).status, Status::Ok);
    assert_eq!((store.stock(), store.left(0)), (0, 2));
    // Nobody saw the code by order 2, though the buyer of order 1 knows it.
    assert_eq!(store.give_back(2), Status::Ok);
    assert_eq!((store.stock(), store.left(0)), (1, 1));
    assert_eq!(store.give_back(1), Status::Ok);
    assert_eq!((store.stock(), store.left(0)), (1, 0), "its buyer has the code: nobody else pays for that");
    assert_eq!(store.redeem(0), Status::UsesExhausted);
    assert_eq!(store.give_back(1), Status::NotFound, "nothing of it is left");
    assert_eq!((store.sell(3), store.redeem(0)), (Status::Ok, Status::Ok));
    assert_eq!(store.give_back(3), Status::UsesExhausted, "it was used");
    store.verified();
}

#[test]
fn what_is_held_is_not_returned_and_what_is_reversed_is_there_again() {
    let mut store = Store::new(1, 4);
    let card = store.cards[0];
    assert_eq!(store.sell(1), Status::Ok);
    let hold = Command::Hold { card, pin: None, amount: 0, partial: false, seconds: 0 };
    assert_eq!(store.ask_as(7, hold).status, Status::Ok);
    assert_eq!((store.redeem(0), store.give_back(1)), (Status::UsesExhausted, Status::UsesExhausted));
    let hold = RequestId(7);
    assert_eq!(store.ask_as(8, Command::Capture { card, hold, amount: 0 }).status, Status::Ok);
    assert_eq!(store.left(0), 0);
    store.engine.checkpoint().unwrap();
    assert_eq!(store.ask(Command::Reverse { card, original: RequestId(8) }).status, Status::Ok);
    store.restart();
    assert_eq!((store.left(0), store.give_back(1), store.left(0)), (1, Status::Ok, 0));
    store.verified();
}

#[test]
fn reservations_take_uses_and_give_them_back() {
    let mut store = Store::new(1, 2);
    assert_eq!((store.reserve(1), store.reserve(2)), (Status::Ok, Status::Ok));
    assert_eq!((store.stock(), store.sell(3)), (0, Status::OutOfStock));
    assert_eq!(store.redeem(0), Status::CardNotValid, "nothing is sold yet");
    store.engine.checkpoint().unwrap();
    store.restart();
    assert_eq!(store.ask(Command::Cancel(OrderId(1))).status, Status::Ok);
    let confirm = |order, realloc| {
        let legs = Vec::new();
        Command::Confirm(Box::new(Confirmation { order: OrderId(order), legs, realloc, sealed: false }))
    };
    assert_eq!(store.ask(confirm(2, false)).status, Status::Ok);
    assert_eq!((store.stock(), store.left(0), store.redeem(0)), (1, 1, Status::Ok));
    store.verified();
}

#[test]
fn ten_thousand_sales_are_ten_thousand_uses_and_as_many_events() {
    let mut store = Store::new(1, SHARED_USES_MAX);
    for order in 0..10_000 {
        assert_eq!(store.sell(order), Status::Ok);
    }
    store.engine.drive().unwrap();
    for _ in 0..10_000 {
        assert_eq!(store.redeem(0), Status::Ok);
    }
    assert_eq!((store.redeem(0), store.left(0)), (Status::UsesExhausted, 0));
    let card = store.cards[0];
    let ReplyBody::History(events) = store.ask(Command::History { card }).body else { panic!("no history") };
    assert_eq!(events.len(), 1024);
    store.verified();
}

#[test]
fn the_history_has_every_sale_and_every_use_in_order() {
    let mut store = Store::new(1, 3);
    let card = store.cards[0];
    assert_eq!((store.sell(1), store.redeem(0)), (Status::Ok, Status::Ok));
    assert_eq!(store.ask(Command::Freeze { card }).status, Status::Ok);
    assert_eq!((store.sell(2), store.redeem(0)), (Status::OutOfStock, Status::Frozen));
    assert_eq!(store.ask(Command::Unfreeze { card }).status, Status::Ok);
    assert_eq!((store.sell(2), store.reserve(3)), (Status::Ok, Status::Ok));
    let ReplyBody::History(events) = store.ask(Command::History { card }).body else { panic!("no history") };
    let kinds: Vec<Kind> = events.iter().rev().map(|event| event.kind).collect();
    let expected =
        [Kind::Import, Kind::Sell, Kind::Redeem, Kind::Freeze, Kind::Unfreeze, Kind::Sell, Kind::Reserve];
    assert_eq!(kinds, expected);
    store.verified();
}

#[test]
fn what_does_not_fit_is_refused() {
    let mut store = Store::new(2, 2);
    let (card, product) = (store.cards[0], store.product);
    assert_eq!(store.sell(1), Status::Ok);
    let replace = kami_engine::Replace { card, with: None };
    assert_eq!(store.ask(Command::Replace(Box::new(replace))).status, Status::SharedUnfit);
    assert_eq!(store.ask(Command::Load { card, amount: 1 }).status, Status::SharedUnfit);
    let two = Command::Redeem { card, pin: None, amount: 2, partial: true };
    assert_eq!(store.ask(two).status, Status::InsufficientValue, "each use is somebody's");
    let many = Command::Sell { order: OrderId(9), product, count: 65, validity_s_min: 0 };
    assert_eq!(store.ask(many).status, Status::OrderTooLarge);
    let mut without = shared("without", 0);
    assert_eq!(store.ask(Command::ProductAdd(Box::new(without.clone()))).status, Status::Malformed);
    without.terms.uses = SHARED_USES_MAX + 1;
    assert_eq!(store.ask(Command::ProductAdd(Box::new(without.clone()))).status, Status::Malformed);
    (without.terms.uses, without.terms.valid_from) = (1, ValidFrom::Sale);
    assert_eq!(store.ask(Command::ProductAdd(Box::new(without))).status, Status::Malformed);
    assert_eq!(store.ask(Command::ProductSet(Box::new(shared("vpn", 3)))).status, Status::IllegalTransition);
    let origins = ImportSpec { origins: true, ..ImportSpec::of(product, 1, 16) };
    let begun = store.engine.import_begin(Caller::LOCAL, RequestId(77), origins);
    assert_eq!(begun.unwrap().status, Status::SharedUnfit);
}
