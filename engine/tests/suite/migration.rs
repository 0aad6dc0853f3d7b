//! Cards that come from another system with what they were there; also after a restart, with and without a snapshot.

use kami_engine::{
    BatchId, Caller, CardKind, Command, Flags, Grounds, HistoryEvent, ImportRow, ImportSpec, Kind, Lifecycle,
    OrderId, OrderState, Origin, ProductId, ProductSpec, Reply, ReplyBody, RequestId, Role, Status,
    ValidFrom,
};

use crate::store::{End, Store, caller};

const DAY_MS: u64 = 24 * 3600 * 1000;
const ORDER: OrderId = OrderId(0x0dd);

impl Store {
    /// Stages rows as `caller`; the last reply, and the import's name.
    fn stage(&self, caller: Caller, spec: &ImportSpec, rows: &[(&str, Origin)]) -> (Reply, RequestId) {
        let id = self.id();
        let spec = ImportSpec { rows: rows.len() as u64, origins: true, ..spec.clone() };
        let begun = self.engine().import_begin(caller, id, spec).unwrap();
        if begun.status != Status::Ok {
            return (begun, id);
        }
        let mut rows = rows.iter().map(|(code, origin)| ImportRow {
            code: code.as_bytes(),
            origin: Some(*origin),
            ..ImportRow::default()
        });
        (self.engine().import_chunk(caller, id, 0, &mut rows).unwrap(), id)
    }

    fn migrate(&self, spec: &ImportSpec, rows: &[(&str, Origin)]) -> BatchId {
        let (staged, id) = self.stage(Caller::LOCAL, spec, rows);
        assert_eq!(staged.status, Status::Ok);
        let grounds = Grounds::because("moved from the old shop");
        let done = self.engine().import_commit_on(Caller::LOCAL, id, Some(&grounds)).unwrap();
        assert_eq!(done.status, Status::Ok);
        let ReplyBody::Batches(batches) = done.body else { panic!("{done:?}") };
        batches[0].id
    }

    fn counts(&self, batch: BatchId) -> [u64; Lifecycle::COUNT] {
        let lines = self.session().stock(None).wait().unwrap();
        lines.iter().find(|line| line.batch == batch).unwrap().counts
    }
}

fn of(state: Lifecycle) -> Origin {
    Origin { state, ..Origin::default() }
}

/// Cards of every state there is, as of `now_ms`.
fn every_state(now_ms: u64) -> [(&'static str, Origin); 7] {
    let sold = Origin { sold_ms: now_ms - DAY_MS, order: Some(ORDER), ..of(Lifecycle::Sold) };
    [
        ("OLD-STOCK", Origin::default()),
        ("OLD-SOLD", sold),
        ("OLD-REDEEMED", Origin { state: Lifecycle::Redeemed, redeemed_ms: now_ms - 5, ..sold }),
        ("OLD-VOID", of(Lifecycle::Voided)),
        ("OLD-BACK", Origin { order: None, ..Origin { state: Lifecycle::Returned, ..sold } }),
        ("OLD-ICE", Origin { frozen: true, ..Origin::default() }),
        ("OLD-SOLD-ICE", Origin { frozen: true, order: None, ..sold }),
    ]
}

fn coffee(store: &Store) -> (ProductId, ImportSpec) {
    let product = store.product(ProductSpec::single("coffee", *b"CNY", 100));
    (product, ImportSpec::of(product, 0, 16))
}

#[test]
fn cards_stand_as_they_stood_in_every_life() {
    for snapshot in [false, true] {
        let mut store = Store::new();
        let (product, spec) = coffee(&store);
        let now_ms = store.now_ms();
        let batch = store.migrate(&spec, &every_state(now_ms));
        for life in 0..2 {
            assert_eq!(store.counts(batch), [2, 0, 2, 1, 0, 1, 1, 0], "life {life}");
            let card = store.card("OLD-SOLD");
            assert_eq!((card.lifecycle, card.order), (Lifecycle::Sold, Some(ORDER)));
            assert!(store.card("OLD-REDEEMED").flags.contains(Flags::MIGRATED));
            assert!(store.card("OLD-ICE").flags.contains(Flags::FROZEN));
            for (code, status) in [
                ("OLD-STOCK", Status::CardNotValid),
                ("OLD-REDEEMED", Status::AlreadyRedeemed),
                ("OLD-VOID", Status::Voided),
                ("OLD-BACK", Status::Returned),
                ("OLD-SOLD-ICE", Status::Frozen),
            ] {
                assert_eq!(store.redeem(code, 0).status, status, "{code}");
            }
            if snapshot && life == 0 {
                store.engine().checkpoint().unwrap();
            }
            store.restart(End::Close);
        }
        // One is for sale, and no more.
        let sell =
            |count| Command::Sell { order: OrderId(count), product, count: count as u32, validity_s_min: 0 };
        assert_eq!(store.ask(sell(2)).status, Status::OutOfStock);
        assert_eq!(store.ask(sell(1)).status, Status::Ok);
        assert_eq!(store.card("OLD-STOCK").lifecycle, Lifecycle::Sold);
        let redeemed = store.redeem("OLD-SOLD", 0);
        assert_eq!(redeemed.status, Status::Ok);
        assert_eq!(
            store.reverse("OLD-SOLD", redeemed.request).status,
            Status::Ok,
            "what was done here is undone here"
        );
        assert_eq!(store.redeem("OLD-SOLD", 0).status, Status::Ok);
        store.restart(End::Close);
        assert_eq!(store.counts(batch), [1, 0, 2, 2, 0, 1, 1, 0]);
        assert_eq!(store.redeem("OLD-SOLD", 0).status, Status::AlreadyRedeemed);
    }
}

/// A till that undoes what it did in the old system is not told that it was never done.
#[test]
fn what_was_redeemed_elsewhere_is_not_undone_here() {
    let mut store = Store::new();
    let (_, spec) = coffee(&store);
    let now_ms = store.now_ms();
    store.migrate(&spec, &every_state(now_ms));
    assert_eq!(store.reverse("OLD-REDEEMED", RequestId(7)).status, Status::Migrated);
    let (card, original) = (store.digest("OLD-REDEEMED"), RequestId(7));
    assert_eq!(store.ask(Command::RefundValue { card, original, amount: 0 }).status, Status::Migrated);
    assert_eq!(
        store.reverse("OLD-SOLD", RequestId(7)).status,
        Status::Tombstoned,
        "it can still be redeemed"
    );
    let freeze = Command::Freeze { card };
    assert_eq!(store.ask(freeze).status, Status::Ok);
    store.restart(End::Close);
    assert_eq!(
        store.reverse("OLD-REDEEMED", RequestId(7)).status,
        Status::Migrated,
        "whatever was done since"
    );
    assert_eq!(store.card("OLD-REDEEMED").lifecycle, Lifecycle::Redeemed);
}

#[test]
fn history_tells_what_was_when_and_why_it_is_here() {
    let store = Store::new();
    let (_, spec) = coffee(&store);
    let now_ms = store.now_ms();
    store.migrate(&spec, &every_state(now_ms));
    let told = |events: &[HistoryEvent]| -> Vec<_> {
        events.iter().map(|event| (event.kind, event.lifecycle, event.made_ms, event.related)).collect()
    };
    let events = store.history("OLD-REDEEMED");
    assert_eq!(
        told(&events)[..2],
        [
            (Kind::Migrated, Lifecycle::Redeemed, now_ms - 5, ORDER.0),
            (Kind::Migrated, Lifecycle::Sold, now_ms - DAY_MS, ORDER.0),
        ]
    );
    assert_eq!(events[2].kind, Kind::Import);
    assert_eq!(events[2].grounds.as_ref().unwrap().why, "moved from the old shop");
    assert!(
        events.iter().all(|event| event.lsn == events[2].lsn),
        "the log's own place and time are the import's"
    );
    assert!(events.iter().all(|event| event.time_ms >= now_ms));
    assert_eq!(store.history("OLD-STOCK").len(), 1);
    let void = store.history("OLD-VOID");
    assert_eq!(told(&void)[0], (Kind::Migrated, Lifecycle::Voided, 0, 0));
    assert_eq!(void.len(), 2);
    store.redeem("OLD-SOLD", 0);
    let kinds: Vec<Kind> = store.history("OLD-SOLD").iter().map(|event| event.kind).collect();
    assert_eq!(kinds, [Kind::Redeem, Kind::Migrated, Kind::Import]);
}

/// A platform that repeats an order after the change of systems is not sold the cards once more.
#[test]
fn an_order_of_old_is_found_and_never_filled_again() {
    let mut store = Store::new();
    let (product, spec) = coffee(&store);
    let tea = store.product(ProductSpec::single("tea", *b"CNY", 50));
    let now_ms = store.now_ms();
    let seller = caller(900, Role::Seller);
    let order = Command::Sell { order: ORDER, product, count: 1, validity_s_min: 0 };
    store.migrate(&spec, &every_state(now_ms));
    let sold = Origin { order: Some(ORDER), ..of(Lifecycle::Sold) };
    store.migrate(&ImportSpec::of(tea, 0, 16), &[("TEA-1", sold), ("TEA-2", sold)]);
    store.restart(End::Close);
    let id = store.id();
    assert_eq!(store.ask_as(id, seller, order.clone()).status, Status::Migrated);
    assert_eq!(store.ask_as(id, seller, Command::OrderStatus(ORDER)).status, Status::NotFound);
    let shown = store.ask(Command::OrderStatus(ORDER));
    let ReplyBody::Order(report) = shown.body else { panic!("{shown:?}") };
    assert_eq!((report.state, report.cards, report.lines.len()), (OrderState::Migrated, 4, 2));
    let fetch = Command::OrderFetch { order: ORDER, from: 0, count: 1 };
    assert_eq!(store.ask(fetch.clone()).status, Status::Migrated);
    assert_eq!(store.ask_as(id, seller, fetch).status, Status::NotFound);
    let other = Command::Sell { order: OrderId(ORDER.0 + 1), product, count: 1, validity_s_min: 0 };
    assert_eq!(store.ask_as(id, seller, other).status, Status::Ok);
}

#[test]
fn value_is_what_was_left() {
    let mut store = Store::new();
    let stored = ProductSpec { kind: CardKind::StoredValue, ..ProductSpec::single("gift", *b"CNY", 1000) };
    let gift = store.product(stored);
    let mut uses = ProductSpec { kind: CardKind::MultiUse, ..ProductSpec::single("wash", *b"CNY", 0) };
    uses.terms.uses = 10;
    let wash = store.product(uses);
    let used = |left| Origin { remaining: Some(left), redeemed_ms: 5, ..of(Lifecycle::Sold) };
    let spent = of(Lifecycle::Redeemed);
    store.migrate(
        &ImportSpec::of(gift, 0, 16),
        &[("GIFT-1", used(300)), ("GIFT-2", spent), ("GIFT-3", of(Lifecycle::Sold))],
    );
    store.migrate(&ImportSpec::of(wash, 0, 16), &[("WASH-1", used(2))]);
    store.restart(End::Close);
    assert_eq!(store.card("GIFT-1").remaining, 300);
    assert_eq!(store.redeem("GIFT-1", 301).status, Status::InsufficientValue);
    assert_eq!(store.redeem("GIFT-1", 100).status, Status::Ok);
    assert_eq!(store.card("GIFT-1").remaining, 200);
    assert_eq!(store.card("GIFT-2").remaining, 0);
    assert_eq!(store.redeem("GIFT-2", 1).status, Status::AlreadyRedeemed);
    assert_eq!(store.card("GIFT-3").remaining, 1000);
    store.restart(End::Close);
    assert_eq!(store.card("GIFT-1").remaining, 200);
    for left in [1, 0] {
        assert_eq!(store.redeem("WASH-1", 0).status, Status::Ok);
        assert_eq!(store.card("WASH-1").remaining, left);
    }
    assert_eq!(store.redeem("WASH-1", 0).status, Status::UsesExhausted);
    store.restart(End::Close);
}

#[test]
fn validity_counts_from_the_sale_of_then() {
    let store = Store::new();
    let mut spec = ProductSpec::single("pass", *b"CNY", 100);
    (spec.valid_days, spec.terms.valid_from) = (30, ValidFrom::Sale);
    let product = store.product(spec);
    let now_ms = store.now_ms();
    let sold = |days: u64| Origin { sold_ms: now_ms - days * DAY_MS, ..of(Lifecycle::Sold) };
    store.migrate(&ImportSpec::of(product, 0, 16), &[("PASS-1", sold(29)), ("PASS-2", sold(31))]);
    assert_eq!(store.card("PASS-1").expires_ms, now_ms + DAY_MS);
    assert_eq!(store.redeem("PASS-2", 0).status, Status::Expired);
    assert_eq!(store.redeem("PASS-1", 0).status, Status::Ok);
    store.clock.advance(1);
}

#[test]
fn only_an_admin_who_says_why_makes_sold_cards() {
    let store = Store::new();
    let (_, spec) = coffee(&store);
    let now_ms = store.now_ms();
    let rows = [("OLD-1", Origin { sold_ms: now_ms, ..of(Lifecycle::Sold) })];
    let issuer = caller(901, Role::Issuer);
    assert_eq!(store.stage(issuer, &spec, &rows).0.status, Status::Forbidden);
    let (_, id) = store.stage(Caller::LOCAL, &spec, &rows);
    assert_eq!(store.engine().import_commit(Caller::LOCAL, id).unwrap().status, Status::ReasonMissing);
    let why = Grounds::because("moved");
    let done = store.engine().import_commit_on(Caller::LOCAL, id, Some(&why)).unwrap();
    assert_eq!(done.status, Status::Ok, "what was staged is still there");
    // Another reason is no other import: it is there already.
    let again =
        store.engine().import_commit_on(Caller::LOCAL, id, Some(&Grounds::because("once more"))).unwrap();
    assert_eq!((again.status, again.lsn), (Status::Ok, done.lsn));
    let wrong = [("OLD-2", rows[0].1), ("OLD-3", Origin { redeemed_ms: 7, ..rows[0].1 })];
    let (refused, _) = store.stage(Caller::LOCAL, &spec, &wrong);
    assert_eq!(refused.status, Status::Malformed);
    let ReplyBody::Import(report) = refused.body else { panic!() };
    assert_eq!(report.rows, 1, "the row that cannot have been");
}

/// All cards have their state, or there are no cards: the disk is cut at every operation.
#[test]
fn a_power_cut_leaves_all_states_or_no_cards() {
    let mut commits = 0;
    for cut in 1.. {
        let mut store = Store::new();
        let (_, spec) = coffee(&store);
        let now_ms = store.now_ms();
        let rows = every_state(now_ms);
        let (_, id) = store.stage(Caller::LOCAL, &spec, &rows);
        let before = store.data.operations();
        store.data.cut_power_at(before + cut);
        let why = Grounds::because("moved");
        let done = store.engine().import_commit_on(Caller::LOCAL, id, Some(&why));
        let told = done.as_ref().is_ok_and(|reply| reply.status == Status::Ok);
        let survived = !store.data.is_cut();
        store.end(End::PowerCut(cut));
        store.open();
        store.engine().check().unwrap();
        if store.redeem("OLD-SOLD", 0).status == Status::Ok {
            commits += 1;
            assert_eq!(store.redeem("OLD-REDEEMED", 0).status, Status::AlreadyRedeemed);
            assert_eq!(store.redeem("OLD-VOID", 0).status, Status::Voided);
        } else {
            assert!(!told, "cut {cut}: what was acknowledged is there");
            for (code, _) in rows {
                let card = store.digest(code);
                assert_eq!(store.ask(Command::Query { card }).status, Status::NotFound);
            }
        }
        if survived {
            break;
        }
    }
    assert!(commits > 0);
}
