//! Codes that are sold many times: each sale gives one use, each redemption takes one, whatever comes between.

use kami_engine::{
    Caller, CardDigest, CardKind, Command, Confirmation, GivenBack, ImportSpec, Kind, OrderId, ProductId,
    ProductSpec, Purchase, Reply, ReplyBody, RequestId, SHARED_USES_MAX, Status, ValidFrom,
};

use crate::store::{End, Store};

fn shared(name: &str, uses: u32) -> ProductSpec {
    let mut spec = ProductSpec { kind: CardKind::Shared, ..ProductSpec::single(name, *b"CNY", 100) };
    spec.terms.uses = uses;
    spec
}

/// A store with codes of one product that are sold many times each.
struct Shop {
    store: Store,
    product: ProductId,
    cards: Vec<CardDigest>,
}

impl Shop {
    /// With so many codes, each to be sold so often.
    fn new(codes: usize, uses: u32) -> Shop {
        let store = Store::new();
        let product = store.stock(shared("vpn", uses), codes as u64);
        let cards = (0..codes).map(|row| store.digest(&format!("vpn-{row}"))).collect();
        Shop { store, product, cards }
    }

    fn ask(&self, command: Command) -> Reply {
        self.store.ask(command)
    }

    fn sell(&self, order: u128) -> Status {
        let (order, product) = (OrderId(order), self.product);
        self.ask(Command::Sell { order, product, count: 1, validity_s_min: 0 }).status
    }

    fn reserve(&self, order: u128) -> Status {
        self.ask(Command::Reserve(Box::new(Purchase::of(OrderId(order), self.product, 1)))).status
    }

    fn redeem(&self, card: usize) -> Status {
        let card = self.cards[card];
        self.ask(Command::Redeem { card, pin: None, amount: 0, partial: false }).status
    }

    fn give_back(&self, order: u128) -> Status {
        let given = GivenBack { order: OrderId(order), cards: Vec::new(), legs: Vec::new() };
        self.ask(Command::Return(Box::new(given))).status
    }

    /// What can be sold.
    fn stock(&self) -> u64 {
        self.store.session().stock(None).wait().unwrap().iter().map(|line| line.sellable).sum()
    }

    /// What is left on a card.
    fn left(&self, card: usize) -> i64 {
        let report = self.store.card(&format!("vpn-{card}"));
        assert_eq!(report.order, None, "it is more people's than one");
        report.remaining
    }

    /// Dies and comes back: from the log alone, or from a snapshot and the log after it.
    fn restart(&mut self) {
        self.store.restart(End::Kill);
    }
}

#[test]
fn a_sale_brings_one_use_and_no_more_are_sold_than_there_are() {
    let mut shop = Shop::new(2, 3);
    assert_eq!((shop.stock(), shop.redeem(0)), (6, Status::CardNotValid));
    for order in 1..=6 {
        assert_eq!(shop.sell(order), Status::Ok, "{order}");
    }
    assert_eq!((shop.sell(7), shop.stock()), (Status::OutOfStock, 0));
    shop.restart();
    assert_eq!((shop.left(0), shop.left(1)), (3, 3));
    for used in 1..=3 {
        assert_eq!(shop.redeem(0), Status::Ok);
        assert_eq!((shop.left(0), shop.left(1)), (3 - used, 3));
    }
    assert_eq!(shop.redeem(0), Status::UsesExhausted);
    shop.store.engine().checkpoint().unwrap();
    shop.restart();
    assert_eq!(shop.redeem(0), Status::UsesExhausted);
    assert_eq!((shop.redeem(1), shop.sell(8)), (Status::Ok, Status::OutOfStock));
    shop.restart();
}

#[test]
fn an_order_has_a_code_once_and_every_owner_may_fetch_it() {
    let mut shop = Shop::new(2, 5);
    let two = |order: u128, count, sealed, product| {
        Command::SellLines(Box::new(Purchase { sealed, ..Purchase::of(OrderId(order), product, count) }))
    };
    let product = shop.product;
    assert_eq!(shop.ask(two(1, 3, false, product)).status, Status::OutOfStock, "there are two codes");
    for order in [1, 2] {
        let reply = shop.ask(two(order, 2, order == 2, product));
        assert_eq!(reply.status, Status::Ok);
        shop.store.drive();
        let fetch = Command::OrderFetch { order: OrderId(order), from: 0, count: 10 };
        let reply = shop.ask(fetch);
        let ReplyBody::Cards(list) = reply.body else { panic!("{reply:?}") };
        let mut codes = Vec::new();
        shop.store
            .engine()
            .reveal(&list, &mut |_, code| codes.push(String::from_utf8(code.to_vec()).unwrap()))
            .unwrap();
        assert_eq!(codes, ["vpn-0", "vpn-1"]);
    }
    shop.restart();
}

#[test]
fn what_was_not_seen_comes_back_for_sale_and_what_was_is_taken_back() {
    let mut shop = Shop::new(1, 2);
    let product = shop.product;
    assert_eq!(shop.sell(1), Status::Ok);
    let sealed = Purchase { sealed: true, ..Purchase::of(OrderId(2), product, 1) };
    assert_eq!(shop.ask(Command::SellLines(Box::new(sealed))).status, Status::Ok);
    assert_eq!((shop.stock(), shop.left(0)), (0, 2));
    // Nobody saw the code by order 2, though the buyer of order 1 knows it.
    assert_eq!(shop.give_back(2), Status::Ok);
    assert_eq!((shop.stock(), shop.left(0)), (1, 1));
    assert_eq!(shop.give_back(1), Status::Ok);
    assert_eq!((shop.stock(), shop.left(0)), (1, 0), "its buyer has the code: nobody else pays for that");
    assert_eq!(shop.redeem(0), Status::UsesExhausted);
    assert_eq!(shop.give_back(1), Status::NotFound, "nothing of it is left");
    assert_eq!((shop.sell(3), shop.redeem(0)), (Status::Ok, Status::Ok));
    assert_eq!(shop.give_back(3), Status::UsesExhausted, "it was used");
    shop.restart();
}

#[test]
fn what_is_held_is_not_returned_and_what_is_reversed_is_there_again() {
    let mut shop = Shop::new(1, 4);
    let card = shop.cards[0];
    assert_eq!(shop.sell(1), Status::Ok);
    let hold = Command::Hold { card, pin: None, amount: 0, partial: false, seconds: 0 };
    let held = shop.ask(hold);
    assert_eq!(held.status, Status::Ok);
    assert_eq!((shop.redeem(0), shop.give_back(1)), (Status::UsesExhausted, Status::UsesExhausted));
    let captured = shop.ask(Command::Capture { card, hold: held.request, amount: 0 });
    assert_eq!(captured.status, Status::Ok);
    assert_eq!(shop.left(0), 0);
    shop.store.engine().checkpoint().unwrap();
    assert_eq!(shop.ask(Command::Reverse { card, original: captured.request }).status, Status::Ok);
    shop.restart();
    assert_eq!((shop.left(0), shop.give_back(1), shop.left(0)), (1, Status::Ok, 0));
    shop.restart();
}

#[test]
fn reservations_take_uses_and_give_them_back() {
    let mut shop = Shop::new(1, 2);
    assert_eq!((shop.reserve(1), shop.reserve(2)), (Status::Ok, Status::Ok));
    assert_eq!((shop.stock(), shop.sell(3)), (0, Status::OutOfStock));
    assert_eq!(shop.redeem(0), Status::CardNotValid, "nothing is sold yet");
    shop.store.engine().checkpoint().unwrap();
    shop.restart();
    assert_eq!(shop.ask(Command::Cancel(OrderId(1))).status, Status::Ok);
    let confirm = |order, realloc| {
        let legs = Vec::new();
        Command::Confirm(Box::new(Confirmation { order: OrderId(order), legs, realloc, sealed: false }))
    };
    assert_eq!(shop.ask(confirm(2, false)).status, Status::Ok);
    assert_eq!((shop.stock(), shop.left(0), shop.redeem(0)), (1, 1, Status::Ok));
    shop.restart();
}

#[test]
fn ten_thousand_sales_are_ten_thousand_uses_and_as_many_events() {
    let mut shop = Shop::new(1, SHARED_USES_MAX);
    for order in 0..10_000 {
        assert_eq!(shop.sell(order), Status::Ok);
    }
    shop.store.drive();
    for _ in 0..10_000 {
        assert_eq!(shop.redeem(0), Status::Ok);
    }
    assert_eq!((shop.redeem(0), shop.left(0)), (Status::UsesExhausted, 0));
    let card = shop.cards[0];
    let ReplyBody::History(events) = shop.ask(Command::History { card }).body else { panic!("no history") };
    assert_eq!(events.len(), 1024);
    shop.restart();
}

#[test]
fn the_history_has_every_sale_and_every_use_in_order() {
    let mut shop = Shop::new(1, 3);
    let card = shop.cards[0];
    assert_eq!((shop.sell(1), shop.redeem(0)), (Status::Ok, Status::Ok));
    assert_eq!(shop.ask(Command::Freeze { card }).status, Status::Ok);
    assert_eq!((shop.sell(2), shop.redeem(0)), (Status::OutOfStock, Status::Frozen));
    assert_eq!(shop.ask(Command::Unfreeze { card }).status, Status::Ok);
    assert_eq!((shop.sell(2), shop.reserve(3)), (Status::Ok, Status::Ok));
    let ReplyBody::History(events) = shop.ask(Command::History { card }).body else { panic!("no history") };
    let kinds: Vec<Kind> = events.iter().rev().map(|event| event.kind).collect();
    let expected =
        [Kind::Import, Kind::Sell, Kind::Redeem, Kind::Freeze, Kind::Unfreeze, Kind::Sell, Kind::Reserve];
    assert_eq!(kinds, expected);
    shop.restart();
}

#[test]
fn what_does_not_fit_is_refused() {
    let shop = Shop::new(2, 2);
    let (card, product) = (shop.cards[0], shop.product);
    assert_eq!(shop.sell(1), Status::Ok);
    let replace = kami_engine::Replace { card, with: None };
    assert_eq!(shop.ask(Command::Replace(Box::new(replace))).status, Status::SharedUnfit);
    assert_eq!(shop.ask(Command::Load { card, amount: 1 }).status, Status::SharedUnfit);
    let two = Command::Redeem { card, pin: None, amount: 2, partial: true };
    assert_eq!(shop.ask(two).status, Status::InsufficientValue, "each use is somebody's");
    let many = Command::Sell { order: OrderId(9), product, count: 65, validity_s_min: 0 };
    assert_eq!(shop.ask(many).status, Status::OrderTooLarge);
    let mut without = shared("without", 0);
    assert_eq!(shop.ask(Command::ProductAdd(Box::new(without.clone()))).status, Status::Malformed);
    without.terms.uses = SHARED_USES_MAX + 1;
    assert_eq!(shop.ask(Command::ProductAdd(Box::new(without.clone()))).status, Status::Malformed);
    (without.terms.uses, without.terms.valid_from) = (1, ValidFrom::Sale);
    assert_eq!(shop.ask(Command::ProductAdd(Box::new(without))).status, Status::Malformed);
    assert_eq!(shop.ask(Command::ProductSet(Box::new(shared("vpn", 3)))).status, Status::IllegalTransition);
    let origins = ImportSpec { origins: true, ..ImportSpec::of(product, 1, 16) };
    let begun = shop.store.engine().import_begin(Caller::LOCAL, RequestId(77), origins);
    assert_eq!(begun.unwrap().status, Status::SharedUnfit);
}
