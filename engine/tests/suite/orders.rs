//! Orders through the whole engine where there are many of them, or much about one.

use kami_engine::{
    Caller, CardDigest, Command, Exceeded, GivenBack, LimitAction, LimitId, LimitScope, LimitSpec,
    LimitWindow, Lsn, OrderId, OrderLine, OrderQuery, OrderState, ProductId, ProductSpec, Purchase,
    RETURNS_MAX, Reply, ReplyBody, ReplyFlags, Request, RequestId, Role, Status, TenantId, Work,
};

use crate::store::{End, Store, caller};

/// A store with cards of one product.
struct Shop {
    store: Store,
    product: ProductId,
}

impl Shop {
    /// With so many cards.
    fn new(count: u64) -> Shop {
        let store = Store::with_segments(1 << 20);
        let product = store.stock(ProductSpec::single("coffee", *b"CNY", 100), count);
        Shop { store, product }
    }

    fn restart(&mut self) {
        self.store.restart(End::Kill);
    }

    /// Executes commands under ids from `id` on.
    fn ask(&self, id: u128, commands: impl Iterator<Item = Command>) -> Vec<Reply> {
        let requests = (id..).zip(commands);
        let requests =
            requests.map(|(id, command)| Request { id: RequestId(id), ..self.store.request(command) });
        let replies = self.store.execute(requests.collect());
        self.store.drive();
        replies
    }

    fn one(&self, id: u128, command: Command) -> Reply {
        self.store.ask_as(RequestId(id), Caller::LOCAL, command)
    }

    fn reserve(&self, order: u128, ip: u64) -> Command {
        Command::Reserve(Box::new(Purchase { ip, ..Purchase::of(OrderId(order), self.product, 1) }))
    }

    fn commands(&self) -> u64 {
        let ReplyBody::Stats(stats) = self.store.ask(Command::Stats).body else { panic!("no figures") };
        stats.commands
    }
}

/// A hundred thousand that are over are ended by as many commands, each of them once, and those that are not
/// over cost nothing: nothing is scanned.
#[test]
fn a_hundred_thousand_reservations_time_out_with_one_command_each() {
    const COUNT: u64 = 100_000;
    let mut shop = Shop::new(COUNT);
    for from in (0..COUNT).step_by(64) {
        let orders = from..COUNT.min(from + 64);
        let replies = shop.ask(1 << 64, orders.map(|order| shop.reserve(order.into(), 0)));
        assert!(replies.iter().all(|reply| reply.status == Status::Ok), "{replies:?}");
    }
    shop.restart();
    let before = shop.commands();
    let mut work = Work::default();
    assert_eq!(shop.store.engine().run_due(&mut work), 0);
    assert_eq!(shop.commands(), before + 1, "what is not over is not touched");
    shop.store.clock.advance(1_000_000);
    let (mut ended, mut calls) = (0, 0);
    while ended < COUNT as usize {
        ended += shop.store.engine().run_due(&mut work);
        calls += 1;
        shop.store.drive();
        assert!(calls < 1_000, "{ended} ended after {calls} calls");
    }
    // What the log had no room for was asked for again: one turn a call at the most.
    let asked = shop.commands() - before - 2;
    assert!(asked <= COUNT + calls * 64, "{asked} commands for {COUNT} reservations");
    assert_eq!(shop.store.engine().run_due(&mut work), 0);
    shop.restart();
    let replies =
        shop.ask(2 << 64, [0, COUNT - 1].map(|n| Command::OrderStatus(OrderId(n.into()))).into_iter());
    for reply in replies {
        let ReplyBody::Order(report) = reply.body else { panic!("{:?}", reply.status) };
        assert_eq!(report.state, OrderState::TimedOut);
    }
}

/// A shop that reserves and never pays does not empty the shelf, though nobody set a limit; through a restart, too.
#[test]
fn reservations_that_nobody_pays_have_a_bound() {
    let mut shop = Shop::new(300);
    for from in (0..100).step_by(50) {
        let replies = shop.ask(1 << 64, (from..from + 50).map(|order| shop.reserve(order, 9)));
        assert!(replies.iter().all(|reply| reply.status == Status::Ok), "{replies:?}");
    }
    shop.restart();
    let refused = shop.one(1 << 65, shop.reserve(100, 9));
    let exceeded =
        Exceeded { limit: LimitId(0), status: Status::LimitReservations, left: 0, opens_ms: u64::MAX };
    assert_eq!(refused.status, Status::LimitReservations);
    assert!(matches!(refused.body, ReplyBody::Exceeded(found) if found == exceeded), "{refused:?}");
    assert_eq!(shop.one(1 << 65, shop.reserve(100, 8)).status, Status::Ok, "another address");
    assert_eq!(shop.one(2 << 65, Command::Cancel(OrderId(3))).status, Status::Ok);
    assert_eq!(shop.one(3 << 65, shop.reserve(101, 9)).status, Status::Ok, "one was given up");
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
    assert_eq!(shop.one(4 << 65, Command::LimitPut(Box::new(own))).status, Status::Ok);
    assert_eq!(shop.one(5 << 65, shop.reserve(102, 9)).status, Status::Ok);
    let refused = shop.one(6 << 65, shop.reserve(103, 9));
    assert!(matches!(refused.body, ReplyBody::Exceeded(found) if found.limit == LimitId(1)), "{refused:?}");
}

/// However an order comes back, what is read for a command about it has a bound.
#[test]
fn an_order_comes_back_in_so_many_pieces_and_then_at_once() {
    let max = u64::from(RETURNS_MAX);
    let mut shop = Shop::new(max + 40);
    let order = OrderId(5);
    let sale = Command::Sell { order, product: shop.product, count: max as u32 + 40, validity_s_min: 0 };
    assert_eq!(shop.one(10, sale).status, Status::Ok);
    let cards: Vec<_> = (0..max + 40).map(|row| shop.store.digest(&format!("coffee-{row}"))).collect();
    let back = |cards: &[CardDigest]| {
        Command::Return(Box::new(GivenBack { order, cards: cards.to_vec(), legs: Vec::new() }))
    };
    for from in (0..max).step_by(64) {
        let rows = from as usize..(from + 64).min(max) as usize;
        let replies = shop.ask(1000 + u128::from(from), rows.map(|row| back(&cards[row..=row])));
        assert!(replies.iter().all(|reply| reply.status == Status::Ok), "{replies:?}");
    }
    shop.restart();
    let next = &cards[max as usize..][..1];
    assert_eq!(shop.one(20, back(next)).status, Status::ReturnsExhausted);
    let again = shop.one(1000, back(&cards[..1]));
    assert_eq!((again.status, again.flags), (Status::Ok, ReplyFlags::REPLAYED), "a retry is none");
    let ReplyBody::Order(report) = shop.one(21, back(&[])).body else { panic!("not all of the rest") };
    assert_eq!(report.cards, 40);
    assert_eq!(shop.one(22, back(&[])).status, Status::NotFound, "nothing is left");
}

/// Everything that is listed, page by page, and how many pages that took.
fn listed(shop: &Shop, caller: Caller, query: OrderQuery) -> (Vec<OrderLine>, usize) {
    let (mut lines, mut pages, mut query) = (Vec::new(), 0, query);
    loop {
        let list = Command::OrderList(Box::new(query));
        let ReplyBody::Orders(page) = shop.store.ask_by(caller, list).body else { panic!("no page") };
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
    let mut shop = Shop::new(1000);
    let (rare, busy) = (caller(900, Role::Seller), caller(901, Role::Seller));
    let sell = |shop: &Shop, caller, order: u128| {
        let command =
            Command::Sell { order: OrderId(order), product: shop.product, count: 1, validity_s_min: 0 };
        assert_eq!(shop.store.ask_by(caller, command).status, Status::Ok);
    };
    sell(&shop, rare, 1000);
    (1001..1600).for_each(|order| sell(&shop, busy, order));
    shop.one(1600, shop.reserve(1600, 0));
    let snapshot = |shop: &Shop| shop.store.engine().checkpoint().map(drop).unwrap();
    snapshot(&shop);
    shop.one(1601, Command::Cancel(OrderId(1600)));
    for life in 0..2 {
        let all = OrderQuery { count: 100, ..OrderQuery::default() };
        let (lines, pages) = listed(&shop, Caller::LOCAL, all);
        let expected: Vec<u128> = (1000..=1600).rev().collect();
        assert_eq!(lines.iter().map(|line| line.order.0).collect::<Vec<_>>(), expected, "life {life}");
        assert_eq!(pages, 7);
        assert_eq!((lines[0].state, lines[1].state), (OrderState::Cancelled, OrderState::Sold));
        assert!(lines.windows(2).all(|pair| pair[1].lsn < pair[0].lsn));
        // Behind six hundred of another's: two requests, each of which reads a bounded number.
        let (lines, pages) = listed(&shop, rare, all);
        assert_eq!((lines.len(), lines[0].order.0, pages), (1, 1000, 2));
        let (lines, _) = listed(&shop, busy, OrderQuery { buyer: Some(rare.principal), ..all });
        assert_eq!(lines, [], "another's are not told of");
        let (lines, _) =
            listed(&shop, Caller::LOCAL, OrderQuery { state: Some(OrderState::Cancelled), ..all });
        assert_eq!(lines.len(), 1);
        // A place where no order was opened: the entry that cancelled one, or nothing at all.
        let query = Command::OrderList(Box::new(OrderQuery { from: Lsn::from_bytes(4096), ..all }));
        assert_eq!(shop.one(2, query).status, Status::Malformed);
        let other = Caller { tenant: TenantId(7), ..Caller::LOCAL };
        assert_eq!(listed(&shop, other, all).0, []);
        shop.restart();
    }
}
