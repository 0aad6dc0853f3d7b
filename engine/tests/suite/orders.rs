//! Orders through the whole engine where there are many of them, or much about one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kami_engine::record::Clocks;
use kami_engine::{
    Caller, CardDigest, ChannelId, Clock, Command, Engine, EngineOptions, Exceeded, GivenBack, ImportRow,
    ImportSpec, LimitAction, LimitId, LimitScope, LimitSpec, LimitWindow, OrderId, OrderLine, OrderQuery,
    OrderState, PrincipalId, ProductId, ProductSpec, Purchase, RETURNS_MAX, Reply, ReplyBody, ReplyFlags,
    Request, RequestId, Role, Session, Status, TenantId, TerminalId, Work,
};
use kami_wal::{Drive, Medium, SimMedium, SimMode, WalOptions};

#[derive(Clone)]
struct Hand(Arc<AtomicU64>);

impl Clock for Hand {
    fn read(&self) -> Clocks {
        let boot_ms = self.boot_ms();
        Clocks { wall_ms: 1_800_000_000_000 + boot_ms, boot_ms, boot_id: 1 }
    }
    fn boot_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

struct Store {
    data: SimMedium,
    keys: SimMedium,
    clock: Hand,
    engine: Engine,
    product: ProductId,
    cards: Vec<CardDigest>,
}

impl Store {
    /// With so many cards of one product.
    fn new(count: u64) -> Store {
        let (data, keys) = (SimMedium::new(1, SimMode::Direct), SimMedium::new(2, SimMode::Direct));
        let clock = Hand(Arc::new(AtomicU64::new(5000)));
        let engine = Store::open(&data, &keys, &clock);
        let session = Session::new(&engine, Caller::LOCAL);
        let spec = ProductSpec::single("coffee", *b"CNY", 100);
        let product = session.add_product(RequestId(1), spec).wait().unwrap().id;
        let codes: Vec<_> = (0..count).map(|n| format!("COFFEE-{n:06}")).collect();
        let row = |code| ImportRow { code, ..ImportRow::default() };
        let rows = codes.iter().map(|code| row(code.as_bytes()));
        session.import(RequestId(2), ImportSpec::of(product, count, 20), rows, |_| ()).unwrap();
        let cards = codes.iter().map(|code| engine.digest(TenantId(0), code.as_bytes()).unwrap()).collect();
        Store { data, keys, clock, engine, product, cards }
    }

    fn open(data: &SimMedium, keys: &SimMedium, clock: &Hand) -> Engine {
        Engine::open(EngineOptions {
            data: Arc::new(data.clone()) as Arc<dyn Medium>,
            keys: Arc::new(keys.clone()),
            wal: WalOptions { segment_bytes: 1 << 20, drive: Drive::Manual, ..WalOptions::default() },
            clock: Box::new(clock.clone()),
            accept_clock: false,
        })
        .unwrap()
    }

    fn restart(&mut self) {
        self.engine.drive().unwrap();
        let hash = self.engine.state_hash();
        self.data = self.data.kill();
        self.engine = Store::open(&self.data, &self.keys, &self.clock);
        assert_eq!(self.engine.state_hash(), hash, "recovery leads to another state");
        self.engine.check().unwrap();
    }

    /// Executes commands under ids from `id` on.
    fn ask(&self, id: u128, commands: impl Iterator<Item = Command>) -> Vec<Reply> {
        let mut work = Work::default();
        work.requests.extend((id..).zip(commands).map(|(id, command)| Request {
            id: RequestId(id),
            caller: Caller::LOCAL,
            terminal: TerminalId(3),
            channel: ChannelId(7),
            deadline: None,
            grounds: None,
            command,
        }));
        self.engine.execute(&mut work);
        self.engine.drive().unwrap();
        work.replies
    }

    fn one(&self, id: u128, command: Command) -> Reply {
        self.ask(id, std::iter::once(command)).pop().unwrap()
    }

    fn reserve(&self, order: u128, ip: u64) -> Command {
        Command::Reserve(Box::new(Purchase { ip, ..Purchase::of(OrderId(order), self.product, 1) }))
    }

    fn commands(&self) -> u64 {
        let ReplyBody::Stats(stats) = self.one(0, Command::Stats).body else { panic!("no figures") };
        stats.commands
    }
}

/// A hundred thousand that are over are ended by as many commands, each of them once, and those that are not
/// over cost nothing: nothing is scanned.
#[test]
fn a_hundred_thousand_reservations_time_out_with_one_command_each() {
    const COUNT: u64 = 100_000;
    let mut store = Store::new(COUNT);
    for from in (0..COUNT).step_by(64) {
        let orders = from..COUNT.min(from + 64);
        let replies = store.ask(1 << 64, orders.map(|order| store.reserve(order.into(), 0)));
        assert!(replies.iter().all(|reply| reply.status == Status::Ok), "{replies:?}");
    }
    store.restart();
    let before = store.commands();
    let mut work = Work::default();
    assert_eq!(store.engine.run_due(&mut work), 0);
    assert_eq!(store.commands(), before + 1, "what is not over is not touched");
    store.clock.0.fetch_add(1_000_000, Ordering::Relaxed);
    let (mut ended, mut calls) = (0, 0);
    while ended < COUNT as usize {
        ended += store.engine.run_due(&mut work);
        calls += 1;
        store.engine.drive().unwrap();
        assert!(calls < 1_000, "{ended} ended after {calls} calls");
    }
    // What the log had no room for was asked for again: one turn a call at the most.
    let asked = store.commands() - before - 2;
    assert!(asked <= COUNT + calls * 64, "{asked} commands for {COUNT} reservations");
    assert_eq!(store.engine.run_due(&mut work), 0);
    store.restart();
    let replies =
        store.ask(2 << 64, [0, COUNT - 1].map(|n| Command::OrderStatus(OrderId(n.into()))).into_iter());
    for reply in replies {
        let ReplyBody::Order(report) = reply.body else { panic!("{:?}", reply.status) };
        assert_eq!(report.state, kami_engine::OrderState::TimedOut);
    }
}

/// A shop that reserves and never pays does not empty the shelf, though nobody set a limit; through a restart, too.
#[test]
fn reservations_that_nobody_pays_have_a_bound() {
    let mut store = Store::new(300);
    for from in (0..100).step_by(50) {
        let replies = store.ask(1 << 64, (from..from + 50).map(|order| store.reserve(order, 9)));
        assert!(replies.iter().all(|reply| reply.status == Status::Ok), "{replies:?}");
    }
    store.restart();
    let refused = store.one(1 << 65, store.reserve(100, 9));
    let exceeded =
        Exceeded { limit: LimitId(0), status: Status::LimitReservations, left: 0, opens_ms: u64::MAX };
    assert_eq!(refused.status, Status::LimitReservations);
    assert!(matches!(refused.body, ReplyBody::Exceeded(found) if found == exceeded), "{refused:?}");
    assert_eq!(store.one(1 << 65, store.reserve(100, 8)).status, Status::Ok, "another address");
    assert_eq!(store.one(2 << 65, Command::Cancel(OrderId(3))).status, Status::Ok);
    assert_eq!(store.one(3 << 65, store.reserve(101, 9)).status, Status::Ok, "one was given up");
    // Who has reasons says another number.
    let own = LimitSpec {
        name: "open".to_owned(),
        scope: LimitScope::Ip,
        product: None,
        window: LimitWindow::OpenOrders,
        max: 101,
        action: LimitAction::Refuse,
        ended: false,
    };
    assert_eq!(store.one(4 << 65, Command::LimitPut(Box::new(own))).status, Status::Ok);
    assert_eq!(store.one(5 << 65, store.reserve(102, 9)).status, Status::Ok);
    let refused = store.one(6 << 65, store.reserve(103, 9));
    assert!(matches!(refused.body, ReplyBody::Exceeded(found) if found.limit == LimitId(1)), "{refused:?}");
}

/// However an order comes back, what is read for a command about it has a bound.
#[test]
fn an_order_comes_back_in_so_many_pieces_and_then_at_once() {
    let max = u64::from(RETURNS_MAX);
    let mut store = Store::new(max + 40);
    let order = OrderId(5);
    let sale = Command::Sell { order, product: store.product, count: max as u32 + 40, validity_s_min: 0 };
    assert_eq!(store.one(10, sale).status, Status::Ok);
    let back = |cards: &[CardDigest]| {
        Command::Return(Box::new(GivenBack { order, cards: cards.to_vec(), legs: Vec::new() }))
    };
    for from in (0..max).step_by(64) {
        let cards = from as usize..(from + 64).min(max) as usize;
        let replies = store.ask(1000 + u128::from(from), cards.map(|at| back(&store.cards[at..=at])));
        assert!(replies.iter().all(|reply| reply.status == Status::Ok), "{replies:?}");
    }
    store.restart();
    let next = &store.cards[max as usize..][..1];
    assert_eq!(store.one(20, back(next)).status, Status::ReturnsExhausted);
    let again = store.one(1000, back(&store.cards[..1]));
    assert_eq!((again.status, again.flags), (Status::Ok, ReplyFlags::REPLAYED), "a retry is none");
    let ReplyBody::Order(report) = store.one(21, back(&[])).body else { panic!("not all of the rest") };
    assert_eq!(report.cards, 40);
    assert_eq!(store.one(22, back(&[])).status, Status::NotFound, "nothing is left");
}

/// Everything that is listed, page by page, and how many pages that took.
fn listed(store: &Store, caller: Caller, query: OrderQuery) -> (Vec<OrderLine>, usize) {
    let (mut lines, mut pages, mut query) = (Vec::new(), 0, query);
    loop {
        let mut work = Work::default();
        work.requests.push(Request {
            id: RequestId(1),
            caller,
            terminal: TerminalId(3),
            channel: ChannelId(7),
            deadline: None,
            grounds: None,
            command: Command::OrderList(Box::new(query)),
        });
        store.engine.execute(&mut work);
        let ReplyBody::Orders(page) = work.replies.pop().unwrap().body else { panic!("no page") };
        pages += 1;
        lines.extend(page.lines);
        match page.next {
            Some(next) => query.from = Some(next),
            None => return (lines, pages),
        }
    }
}

/// A list is a walk down the orders themselves, whatever else the log holds: every order once, newest first, and a
/// request reads no more than a page needs, or a bound.
#[test]
fn orders_are_listed_a_page_at_a_time() {
    let mut store = Store::new(1000);
    let rare = Caller { role: Role::Seller, principal: PrincipalId(900), ..Caller::LOCAL };
    let busy = Caller { role: Role::Seller, principal: PrincipalId(901), ..Caller::LOCAL };
    let sell = |store: &Store, caller, order: u128| {
        let command =
            Command::Sell { order: OrderId(order), product: store.product, count: 1, validity_s_min: 0 };
        let mut work = Work::default();
        let (terminal, channel) = (TerminalId(3), ChannelId(7));
        let id = RequestId(order);
        work.requests.push(Request { id, caller, terminal, channel, deadline: None, grounds: None, command });
        store.engine.execute(&mut work);
        assert_eq!(work.replies[0].status, Status::Ok);
        store.engine.drive().unwrap();
    };
    sell(&store, rare, 1000);
    (1001..1600).for_each(|order| sell(&store, busy, order));
    store.one(1600, store.reserve(1600, 0));
    let snapshot = |store: &Store| store.engine.checkpoint().map(drop).unwrap();
    snapshot(&store);
    store.one(1601, Command::Cancel(OrderId(1600)));
    for life in 0..2 {
        let all = OrderQuery { count: 100, ..OrderQuery::default() };
        let (lines, pages) = listed(&store, Caller::LOCAL, all);
        let expected: Vec<u128> = (1000..=1600).rev().collect();
        assert_eq!(lines.iter().map(|line| line.order.0).collect::<Vec<_>>(), expected, "life {life}");
        assert_eq!(pages, 7);
        assert_eq!((lines[0].state, lines[1].state), (OrderState::Cancelled, OrderState::Sold));
        assert!(lines.windows(2).all(|pair| pair[1].lsn < pair[0].lsn));
        // Behind six hundred of another's: two requests, each of which reads a bounded number.
        let (lines, pages) = listed(&store, rare, all);
        assert_eq!((lines.len(), lines[0].order.0, pages), (1, 1000, 2));
        let (lines, _) = listed(&store, busy, OrderQuery { buyer: Some(rare.principal), ..all });
        assert_eq!(lines, [], "another's are not told of");
        let (lines, _) =
            listed(&store, Caller::LOCAL, OrderQuery { state: Some(OrderState::Cancelled), ..all });
        assert_eq!(lines.len(), 1);
        // A place where no order was opened: the entry that cancelled one, or nothing at all.
        let query =
            Command::OrderList(Box::new(OrderQuery { from: kami_engine::Lsn::from_bytes(4096), ..all }));
        assert_eq!(store.one(2, query).status, Status::Malformed);
        let other = Caller { tenant: TenantId(7), ..Caller::LOCAL };
        assert_eq!(listed(&store, other, all).0, []);
        store.restart();
    }
}
