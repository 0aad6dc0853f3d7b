//! Faults of the engine that were found, one test each, named after what went wrong.

use kami_engine::record::Kind;
use kami_engine::{
    AccountKind, AccountSpec, Advice, BatchId, Caller, CardDigest, CardKind, Command, GivenBack, Grounds,
    ImportRow, ImportSpec, Leg, Lifecycle, LimitAction, LimitScope, LimitSpec, LimitWindow, OrderId,
    OrderQuery, PastError, PrincipalId, ProductId, ProductSpec, ProposalId, Purchase, ReplyBody, ReplyFlags,
    Request, RequestId, Role, Status, TotalsQuery, Work,
};

use crate::store::{BEGUN_MS, End, Store};

impl Store {
    fn single(&self, name: &str, count: u64) -> ProductId {
        self.stock(ProductSpec::single(name, *b"CNY", 100), count)
    }

    fn stored_value(&self, name: &str, change: impl FnOnce(&mut ProductSpec)) -> ProductId {
        let mut spec = ProductSpec::single(name, *b"CNY", 100);
        spec.kind = CardKind::StoredValue;
        change(&mut spec);
        self.stock(spec, 4)
    }

    fn sell_sealed(&self, product: ProductId, count: u32) -> OrderId {
        let order = OrderId(self.id().0);
        let purchase = Purchase { sealed: true, ..Purchase::of(order, product, count) };
        assert_eq!(self.ask(Command::SellLines(Box::new(purchase))).status, Status::Ok);
        order
    }

    /// How many entries of a kind somebody is told of.
    fn count(&self, kind: Kind) -> usize {
        self.events(Caller::LOCAL).iter().filter(|event| event.kind == kind).count()
    }
}

/// The entries about crossed limits stood behind that of the order, and had to say how far back their record begins:
/// behind an order of more than half a megabyte they could not, and the process ended under the lock, again at every
/// retry.
#[test]
fn a_large_order_of_scattered_cards_aborted_at_an_alert_limit() {
    const CARDS: u64 = 22_000;
    let mut store = Store::with_segments(16 << 20);
    let product = store.single("coffee", CARDS);
    let mut from = 0;
    while from < CARDS {
        let orders = (0..64.min(CARDS - from)).map(|_| {
            let order = OrderId(store.id().0);
            store.request(Command::Reserve(Box::new(Purchase::of(order, product, 1))))
        });
        let orders: Vec<_> = orders.collect();
        from += orders.len() as u64;
        assert!(store.execute(orders).iter().all(|reply| reply.status == Status::Ok));
        store.drive();
    }
    // Each comes back by an entry of its own, so none continues another.
    store.clock.advance(1_000_000);
    let mut ended = 0;
    while ended < CARDS as usize {
        ended += store.engine().run_due(&mut Work::default());
        store.drive();
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
    assert_eq!(store.ask_as(id, Caller::LOCAL, sale.clone()).status, Status::Ok);
    assert_eq!(store.count(Kind::LimitCrossed), 2, "an alert was not given");
    store.restart(End::Close);
    assert_eq!(store.ask_as(id, Caller::LOCAL, sale).status, Status::Ok);
    assert_eq!(store.count(Kind::LimitCrossed), 2, "an alert was given again");
}
/// Ranges that reach further each time made a piece each without bound, and a snapshot with more pieces than there may
/// be was refused at every start.
#[test]
fn ranges_of_active_rows_grew_until_no_snapshot_was_read() {
    let mut store = Store::new();
    let mut spec = ProductSpec::single("coffee", *b"CNY", 100);
    spec.valid_days = 0;
    store.stock(spec, 10_000);
    let rows = |from, rows, active| Command::BatchRows { batch: BatchId(1), from, rows, active };
    assert_eq!(store.ask(rows(0, 10_000, false)).status, Status::Ok);
    let mut done = 0;
    let full = loop {
        store.clock.advance(1_000);
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
        store.clock.advance(1_000);
        let status = store.ask(rows(5_000 - done, 2 * done + 1, true)).status;
        if status != Status::Ok || done == 3_000 {
            break status;
        }
        done += 1;
    };
    assert_eq!(full, Status::PiecesExhausted, "after {done}");
    store.engine().checkpoint().unwrap();
    // It says so if a snapshot is not believed.
    store.restart(End::Close);
}
/// A hold of a card whose face value is zero held nothing: whoever came after redeemed it, while the one who held it
/// was topping up a phone.
#[test]
fn a_hold_did_not_hold_a_card_of_face_value_zero() {
    let mut store = Store::new();
    let product = store.stock(ProductSpec::single("voucher", *b"CNY", 0), 1);
    store.sell(product, 1);
    let card = store.digest("voucher-0");
    let id = store.id();
    let hold = Command::Hold { card, pin: None, amount: 0, partial: false, seconds: 0 };
    assert_eq!(store.ask_as(id, Caller::LOCAL, hold).status, Status::Ok);
    assert_eq!(store.redeem("voucher-0", 0).status, Status::InsufficientValue);
    assert_eq!(store.ask(Command::Capture { card, hold: id, amount: 0 }).status, Status::Ok);
    assert_eq!(store.card("voucher-0").lifecycle, Lifecycle::Redeemed);
    store.restart(End::Close);
}
/// Room was asked for words that would never be written.
#[test]
fn grounds_longer_than_a_record_aborted() {
    let mut store = Store::with_segments(64 << 20);
    store.single("coffee", 1);
    let card = store.digest("coffee-0");
    let why = "x".repeat(6 << 20);
    for command in [Command::Freeze { card }, Command::BatchFreeze(BatchId(1))] {
        let grounds = Some(Box::new(Grounds::because(&why)));
        let request = Request { grounds, ..store.request(command) };
        assert_eq!(store.run(request).status, Status::Malformed);
    }
    store.restart(End::Close);
}

/// What a turn may take was counted without the head of its group.
#[test]
fn a_turn_that_fitted_by_a_hair_aborted() {
    let mut store = Store::with_segments(64 << 10);
    store.single("coffee", 64);
    // Freezes that fill a record of 16,344 bytes to the last: 88 bytes each, and 272 for a full reason.
    for (plain, full) in [(22, 40), (22, 39), (21, 40)] {
        let mut requests = Vec::new();
        for row in 0..plain + full {
            let card = store.digest(&format!("coffee-{row}"));
            let grounds = (row < full).then(|| Box::new(Grounds::because(&"x".repeat(255))));
            requests.push(Request { grounds, ..store.request(Command::Freeze { card }) });
        }
        assert!(store.execute(requests).iter().all(|reply| reply.status == Status::Ok));
        store.drive();
        for row in 0..plain + full {
            let card = store.digest(&format!("coffee-{row}"));
            assert_eq!(store.ask(Command::Unfreeze { card }).status, Status::Ok);
        }
    }
    store.restart(End::Close);
}

/// Whether an order fits one record was asked when it was sold, in a form that takes less than what takes it back.
#[test]
fn a_return_larger_than_its_record_aborted() {
    // Of 900 the log cannot even grant what it might take, and said that it is read-only.
    for count in [700, 900] {
        let mut store = Store::with_segments(64 << 10);
        let product = store.single("coffee", u64::from(count));
        let order = OrderId(store.id().0);
        let sale = Command::Sell { order, product, count, validity_s_min: 0 };
        assert_eq!(store.ask(sale).status, Status::Ok);
        // Every other card is moved by itself, so that none continues another.
        for row in (0..count).step_by(2) {
            let card = store.digest(&format!("coffee-{row}"));
            assert_eq!(store.ask(Command::Freeze { card }).status, Status::Ok);
        }
        let back = |cards| Command::Return(Box::new(GivenBack { order, cards, legs: Vec::new() }));
        assert_eq!(store.ask(back(Vec::new())).status, Status::OrderTooLarge);
        let some = (0..64).map(|row| store.digest(&format!("coffee-{row}"))).collect();
        assert_eq!(store.ask(back(some)).status, Status::Ok, "in parts");
        store.restart(End::Close);
    }
}
/// A code that nobody had been given was asked for at a till all the same: redeemed, held, reversed by a stranger or
/// reported from offline. Its card came back into stock as if nobody had seen it.
#[test]
fn a_card_that_was_seen_at_a_till_came_back_into_stock() {
    type Tried<'a> = (&'a str, &'a dyn Fn(&Store, CardDigest));
    let mut store = Store::new();
    let product = store.single("coffee", 6);
    let tried: [Tried<'_>; 5] = [
        ("nothing", &|_, _| ()),
        ("a redemption that was reversed", &|store, card| {
            let id = store.id();
            let redeem = Command::Redeem { card, pin: None, amount: 0, partial: false };
            assert_eq!(store.ask_as(id, Caller::LOCAL, redeem).status, Status::Ok);
            assert_eq!(store.ask(Command::Reverse { card, original: id }).status, Status::Ok);
        }),
        ("a hold that was released", &|store, card| {
            let id = store.id();
            let hold = Command::Hold { card, pin: None, amount: 0, partial: false, seconds: 0 };
            assert_eq!(store.ask_as(id, Caller::LOCAL, hold).status, Status::Ok);
            assert_eq!(store.ask(Command::Release { card, hold: id }).status, Status::Ok);
        }),
        ("a reversal of what never came", &|store, card| {
            let original = store.id();
            assert_eq!(store.ask(Command::Reverse { card, original }).status, Status::Tombstoned);
        }),
        ("a report that did not fit", &|store, card| {
            let advice = Advice { card, pin: None, amount: 1, made_ms: BEGUN_MS };
            assert_eq!(store.ask(Command::Advice(Box::new(advice))).status, Status::ExceptionNoted);
        }),
    ];
    for (row, (what, tried)) in tried.into_iter().enumerate() {
        let order = store.sell_sealed(product, 1);
        // What comes back unseen is sold first.
        let code = format!("coffee-{}", row.saturating_sub(1));
        assert_eq!(store.card(&code).lifecycle, Lifecycle::Sold, "{what}");
        let card = store.digest(&code);
        tried(&mut store, card);
        let back = Command::Return(Box::new(GivenBack { order, cards: Vec::new(), legs: Vec::new() }));
        assert_eq!(store.ask(back).status, Status::Ok, "{what}");
        let stands = if row == 0 { Lifecycle::Available } else { Lifecycle::Returned };
        assert_eq!(store.card(&code).lifecycle, stands, "after {what}");
    }
    // What was done to it in stock shows it to nobody.
    let card = store.digest("coffee-4");
    assert_eq!(store.ask(Command::Freeze { card }).status, Status::Ok);
    assert_eq!(store.ask(Command::Unfreeze { card }).status, Status::Ok);
    let order = store.sell_sealed(product, 1);
    let back = Command::Return(Box::new(GivenBack { order, cards: Vec::new(), legs: Vec::new() }));
    assert_eq!(store.ask(back).status, Status::Ok);
    assert_eq!(store.card("coffee-4").lifecycle, Lifecycle::Available);
    store.restart(End::Close);
}
/// Where a card had less on it than a till had given, the product's rule for partial redemption took what was left,
/// and the rest was nobody's; told again, the answer was another.
#[test]
fn an_offline_redemption_lost_what_it_was_short_of() {
    let mut store = Store::new();
    let product = store.stored_value("gift", |spec| spec.terms.partial = true);
    store.sell(product, 1);
    assert_eq!(store.redeem("gift-0", 70).status, Status::Ok);
    let advice = Advice { card: store.digest("gift-0"), pin: None, amount: 50, made_ms: BEGUN_MS };
    let id = store.id();
    for _ in 0..2 {
        let reply = store.ask_as(id, Caller::LOCAL, Command::Advice(Box::new(advice)));
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
    assert_eq!(store.redeem("gift-0", 30).status, Status::Ok, "nothing was taken");
    store.restart(End::Close);
}

/// A till that did not hear what became of a redemption went offline, gave the goods and reported that under the same
/// id. Where the redemption had arrived with other terms, the report was refused and forgotten.
#[test]
fn an_offline_redemption_was_dropped_for_its_id() {
    let mut store = Store::new();
    let product = store.stored_value("gift", |_| ());
    store.sell(product, 1);
    let card = store.digest("gift-0");
    assert_eq!(store.redeem("gift-0", 70).status, Status::Ok);
    let id = store.id();
    let partly = Command::Redeem { card, pin: None, amount: 50, partial: true };
    assert_eq!(store.ask_as(id, Caller::LOCAL, partly.clone()).status, Status::OkPartial);
    let advice = |amount| {
        let advice = Advice { card, pin: None, amount, made_ms: BEGUN_MS };
        Command::Advice(Box::new(advice))
    };
    for _ in 0..2 {
        assert_eq!(store.ask_as(id, Caller::LOCAL, advice(50)).status, Status::ExceptionNoted);
    }
    assert_eq!(store.ask_as(id, Caller::LOCAL, advice(51)).status, Status::IdReused, "a report has one body");
    let again = store.ask_as(id, Caller::LOCAL, partly);
    assert_eq!((again.status, again.flags), (Status::OkPartial, ReplyFlags::REPLAYED), "as the first time");
    let ReplyBody::Exceptions(noted) =
        store.ask(Command::ExceptionList { after: 0, count: 9, all: true }).body
    else {
        panic!("no list")
    };
    assert_eq!((noted.rows.len(), noted.rows[0].reason, noted.rows[0].amount), (1, Status::IdReused, 50));
    // What the id did otherwise is no redemption that may have arrived.
    let id = store.id();
    assert_eq!(store.ask_as(id, Caller::LOCAL, Command::Freeze { card }).status, Status::Ok);
    assert_eq!(store.ask_as(id, Caller::LOCAL, advice(50)).status, Status::IdReused);
    store.restart(End::Close);
}
/// A load that is taken back leaves nothing on a card which nothing can be loaded onto any more: it is used up, and the
/// store was said to be damaged.
#[test]
fn a_load_taken_back_after_its_product_stopped_loading_passed_for_damage() {
    let mut store = Store::new();
    let spec = |value_max| {
        let mut spec = ProductSpec::single("gift", *b"CNY", 100);
        (spec.kind, spec.terms.value_max) = (CardKind::StoredValue, value_max);
        spec
    };
    let product = store.stock(spec(500), 1);
    store.sell(product, 1);
    let card = store.digest("gift-0");
    let load = store.id();
    assert_eq!(store.ask_as(load, Caller::LOCAL, Command::Load { card, amount: 50 }).status, Status::Ok);
    assert_eq!(store.redeem("gift-0", 100).status, Status::Ok);
    assert_eq!(store.ask(Command::ProductSet(Box::new(spec(0)))).status, Status::Ok);
    assert_eq!(store.ask(Command::Reverse { card, original: load }).status, Status::Ok);
    assert_eq!(store.card("gift-0").lifecycle, Lifecycle::Redeemed);
    store.restart(End::Close);
}
/// Totals up to a place inside of a record were answered with BUSY for ever, and an alarm that the log cannot be read.
#[test]
fn totals_up_to_the_middle_of_a_record_raised_an_alarm() {
    let store = Store::new();
    let product = store.single("coffee", 4);
    store.sell(product, 1);
    assert_eq!(store.redeem("coffee-0", 0).status, Status::Ok);
    let day = (BEGUN_MS / 86_400_000) as u32;
    let query = |end| TotalsQuery { day, days: 2, offset_min: 0, end, after: None, lines_max: 9 };
    let go_on = std::sync::atomic::AtomicBool::new(false);
    let totals = |end| store.engine().totals(Caller::LOCAL, &query(end), &go_on);
    let end = totals(None).unwrap().end;
    assert_eq!(totals(Some(end)).unwrap().lines, totals(None).unwrap().lines);
    for event in store.events(Caller::LOCAL) {
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
    let mut store = Store::new();
    let mut spec = ProductSpec::single("coffee", *b"CNY", 100);
    spec.valid_days = 365;
    store.stock(spec, 2 * CARDS);
    let extend = |store: &Store, row: u64| {
        let card = store.digest(&format!("coffee-{row}"));
        // Later each time, or it is none.
        let expires_ms = 1_900_000_000_000 + store.id().0 as u64;
        assert_eq!(store.ask(Command::Extend { card, expires_ms }).status, Status::Ok);
    };
    let engine = store.engine().clone();
    let mut without = 0;
    engine.checkpoint_beside(|| without += 1).unwrap();
    for row in 0..CARDS {
        extend(&store, 2 * row);
    }
    let mut times = 0;
    // Others are extended beside it, in front of the place and behind it, and some again.
    engine
        .checkpoint_beside(|| {
            times += 1;
            if times < CARDS / 2 {
                extend(&store, 2 * CARDS - 1 - times);
                extend(&store, times);
            }
        })
        .unwrap();
    drop(engine);
    assert!(
        without + CARDS / 32 <= times,
        "the lock was let go {times} times, and {without} times without them"
    );
    store.restart(End::Close);
}

/// A reservation moves no money, and its entry said what its accounts would have had if it did.
#[test]
fn a_reservation_said_balances_that_no_account_had() {
    let mut store = Store::new();
    let product = store.single("coffee", 2);
    let mut legs = Vec::new();
    for (name, kind, amount) in [("shop", AccountKind::Income, 100), ("world", AccountKind::External, -100)] {
        let (name, currency, owner) = (name.to_owned(), *b"CNY", PrincipalId(0));
        let spec = AccountSpec { name, currency, kind, credit_limit: 0, owner };
        let account = store.session().add_account(store.id(), spec).wait().unwrap().id;
        legs.push(Leg { account, amount });
    }
    for reserves in [false, true] {
        let order = OrderId(store.id().0);
        let purchase = Box::new(Purchase { legs: legs.clone(), ..Purchase::of(order, product, 1) });
        let command = if reserves { Command::Reserve(purchase) } else { Command::SellLines(purchase) };
        assert_eq!(store.ask(command).status, Status::Ok);
    }
    let mut said = Vec::new();
    store.entries(|_, entry| {
        if entry.head.kind.is_order() {
            let posted = entry.order().unwrap().2.legs;
            said.push(posted.iter().map(|leg| (leg.leg.amount, leg.balance)).collect::<Vec<_>>());
        }
    });
    assert_eq!(said, [vec![(100, 100), (-100, -100)], vec![(100, 0), (-100, 0)]]);
    store.restart(End::Close);
}

/// Ids may be any number, and the engine's own end of a hold carried zero: on a card that somebody had asked about under
/// that id, or taken it back, the end passed for a second use of it. The hold was never ended, and 64 such were all that
/// was ever tried.
#[test]
fn a_hold_never_timed_out_on_a_card_that_had_seen_the_id_zero() {
    let mut store = Store::new();
    let product = store.single("voucher", 2);
    store.sell(product, 2);
    let cards = ["voucher-0", "voucher-1"].map(|code| store.digest(code));
    let as_zero = |store: &Store, command| store.ask_as(RequestId(0), Caller::LOCAL, command).status;
    for card in cards {
        let hold = Command::Hold { card, pin: None, amount: 0, partial: false, seconds: 60 };
        assert_eq!(store.ask(hold).status, Status::Ok);
    }
    assert_eq!(as_zero(&store, Command::Freeze { card: cards[0] }), Status::Ok);
    let reverse = Command::Reverse { card: cards[1], original: RequestId(0) };
    assert_eq!(store.ask(reverse).status, Status::Tombstoned);
    store.clock.advance(61_000);
    assert_eq!(store.engine().run_due(&mut Work::default()), 2);
    assert_eq!(store.engine().open_holds(), 0);
    // It is somebody's id all the same.
    assert_eq!(as_zero(&store, Command::Unfreeze { card: cards[0] }), Status::IdReused);
    store.restart(End::Close);
}

/// ORDER_LIST begins where its caller says, and an entry about an order holds what its buyer chose: here the order's id,
/// a line and a leg look like the entry of a sale. It was believed, its order was not there, and the process ended under
/// the lock.
#[test]
fn a_list_of_orders_from_inside_an_entry_aborted_the_process() {
    let store = Store::new();
    let product = store.single("coffee", 2);
    assert_eq!(product, ProductId(1), "the number of lines of the entry inside");
    let account = |name: &str, kind| {
        let (name, currency, owner) = (name.to_owned(), *b"CNY", PrincipalId(0));
        let spec = AccountSpec { name, currency, kind, credit_limit: 0, owner };
        store.session().add_account(store.id(), spec).wait().unwrap().id
    };
    let (bank, sales) = (account("bank", AccountKind::External), account("sales", AccountKind::Income));
    let entry_inside = u128::from(Kind::Sell.number()) | 16 << 16 | (128 + 16) << 32;
    let legs = vec![Leg { account: bank, amount: -5 }, Leg { account: sales, amount: 5 }];
    let reserve = Purchase { legs, ..Purchase::of(OrderId(entry_inside), product, 1) };
    let lsn = store.ask(Command::Reserve(Box::new(reserve))).lsn.unwrap();
    let list = |from| Command::OrderList(Box::new(OrderQuery { from, count: 1, ..OrderQuery::default() }));
    assert_eq!(store.ask(list(Some(lsn.plus(64)))).status, Status::Malformed);
    assert_eq!(store.ask(list(Some(lsn))).status, Status::Ok);
}

/// An order that somebody else had bought was taken back, cancelled and listed whatever its products were: only sales
/// had been held against a scope.
#[test]
fn an_operator_looked_after_orders_beyond_its_scope() {
    let store = Store::new();
    let (coffee, tea) = (store.single("coffee", 4), store.single("tea", 4));
    let operator = store.enrol_for("op", Role::Operator, vec![coffee]);
    let orders = [store.sell(coffee, 1), store.sell(tea, 1)];
    let both = OrderId(store.id().0);
    let mut purchase = Purchase::of(both, coffee, 1);
    purchase.lines.extend(Purchase::of(both, tea, 1).lines);
    assert_eq!(store.ask(Command::SellLines(Box::new(purchase))).status, Status::Ok);
    let all = OrderQuery { count: 100, ..OrderQuery::default() };
    let ReplyBody::Orders(page) = store.ask_by(operator, Command::OrderList(Box::new(all))).body else {
        panic!("no page")
    };
    assert_eq!(page.lines.iter().map(|line| line.order).collect::<Vec<_>>(), [orders[0]]);
    let back = |order| Command::Return(Box::new(GivenBack { order, cards: Vec::new(), legs: Vec::new() }));
    for order in [orders[1], both] {
        for command in [Command::OrderStatus(order), Command::Cancel(order), back(order)] {
            assert_eq!(store.ask_by(operator, command).status, Status::NotFound);
        }
    }
    assert_eq!(store.ask_by(operator, back(orders[0])).status, Status::Ok);
}

/// Who approved what is for the engine to say; the two commands that do not go through the sequencer took an approver's
/// number from their caller into the log, where it stood for good, and every verification found fault with it.
#[test]
fn an_issuer_named_somebody_who_had_approved_nothing() {
    let store = Store::new();
    let product = store.product(ProductSpec::single("coffee", *b"CNY", 100));
    let id = store.id();
    let spec = ImportSpec::of(product, 1, 12);
    assert_eq!(store.engine().import_begin(Caller::LOCAL, id, spec).unwrap().status, Status::Ok);
    let row = ImportRow { code: b"COFFEE-00001", ..ImportRow::default() };
    let rows = &mut std::iter::once(row);
    assert_eq!(store.engine().import_chunk(Caller::LOCAL, id, 0, rows).unwrap().status, Status::Ok);
    let forged = [
        Grounds { approver: Some(PrincipalId(1)), ..Grounds::because("late") },
        Grounds { approval: Some(ProposalId(1)), ..Grounds::because("late") },
    ];
    for grounds in forged {
        let done = store.engine().import_commit_on(Caller::LOCAL, id, Some(&grounds)).unwrap();
        assert_eq!(done.status, Status::Malformed);
        let rotated = store.engine().rotate_master_on(Caller::LOCAL, store.id(), Some(Box::new(grounds)));
        assert_eq!(rotated.unwrap().status, Status::Malformed);
    }
    assert_eq!(store.engine().import_commit(Caller::LOCAL, id).unwrap().status, Status::Ok);
}

/// Who imports cards may not ask for them; asked what became of a request it was told which are in stock.
#[test]
fn an_issuer_told_cards_in_stock_from_codes_nobody_has() {
    let store = Store::new();
    store.single("coffee", 1);
    let issuer = store.enrol("issuer", Role::Issuer);
    let outcome = |code: &str| {
        let card = store.digest(code);
        let reply = store.ask_by(issuer, Command::OutcomeOf { card, request: RequestId(1 << 90) });
        (reply.status, reply.miss)
    };
    assert_eq!(outcome("coffee-0"), outcome("coffee-1"));
}
