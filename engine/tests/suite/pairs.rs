//! What moves two cards: replacements and transfers, with what came before and what comes after.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use kami_engine::{
    BatchId, Caller, CardKind, CardReport, Command, Engine, EngineOptions, Failure, Flags, HistoryEvent,
    ImportRow, ImportSpec, Kind, Lifecycle, Line, OrderId, ProductId, ProductSpec, Purchase, RequestId,
    Session, Status, ValidFrom, verify,
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

    fn session(&self) -> Session {
        Session::new(&self.engine, Caller::LOCAL)
    }

    fn product(&mut self, spec: ProductSpec) -> ProductId {
        let id = self.id();
        self.session().add_product(id, spec).wait().unwrap().id
    }

    /// Cards PREFIX-0, PREFIX-1 and so on.
    fn import(&mut self, product: ProductId, prefix: &str, rows: u64, spec: impl Fn(&mut ImportSpec)) {
        let codes: Vec<String> = (0..rows).map(|row| format!("{prefix}-{row}")).collect();
        let row = |code: &'static str| ImportRow { code: code.as_bytes(), ..ImportRow::default() };
        let rows_of = codes.iter().map(|code| ImportRow { code: code.as_bytes(), ..row("") });
        let mut asked = ImportSpec::of(product, rows, 16);
        spec(&mut asked);
        let id = self.id();
        self.session().import(id, asked, rows_of, |_| ()).unwrap();
    }

    fn sell(&mut self, product: ProductId, count: u32) -> OrderId {
        let id = self.id();
        self.session().sell(id, OrderId(id.0), product, count).wait().unwrap();
        OrderId(id.0)
    }

    fn codes(&mut self, order: OrderId) -> Vec<String> {
        let id = self.id();
        let sold = self.session().order(id, order).wait().unwrap();
        sold.codes.iter().map(|code| code.to_string()).collect()
    }

    fn card(&self, code: &str) -> CardReport {
        self.session().query(code).wait().unwrap()
    }

    fn history(&self, code: &str) -> Vec<HistoryEvent> {
        self.session().history(code).wait().unwrap()
    }

    fn replace(&mut self, code: &str, with: Option<&str>) -> Result<CardReport, Status> {
        let id = self.id();
        self.session().replace(id, code, with).wait().map_err(refusal)
    }

    fn transfer(&mut self, from: &str, to: &str, amount: i64) -> Result<(i64, i64), Status> {
        let id = self.id();
        let moved = self.session().transfer(id, from, to, amount).wait().map_err(refusal)?;
        Ok((moved.value.amount, moved.value.remaining))
    }

    fn redeem(&mut self, code: &str, amount: i64) -> Result<i64, Status> {
        let id = self.id();
        let part = kami_engine::Part { amount, ..kami_engine::Part::default() };
        Ok(self.session().redeem_part(id, code, part).wait().map_err(refusal)?.value.remaining)
    }

    fn reverse(&mut self, code: &str, original: RequestId) -> Status {
        let id = self.id();
        let card = self.engine.digest(Caller::LOCAL.tenant, code.as_bytes()).unwrap();
        self.session().run(id, Command::Reverse { card, original }).wait().unwrap().status
    }

    fn last(&self) -> RequestId {
        RequestId(self.next)
    }

    /// Checks the whole store as it lies there, and opens it again.
    fn reopened(self) -> Store {
        let Store { data, keys, clock, engine, next } = self;
        engine.check().unwrap();
        engine.close().unwrap();
        let whole = verify(Arc::new(data.clone()), Arc::new(keys.clone())).unwrap();
        assert!(whole.problems.is_empty(), "{:?}", whole.problems);
        let engine = open(&data, &keys, &clock);
        assert_eq!(engine.state_hash(), whole.state_hash);
        Store { data, keys, clock, engine, next }
    }
}

fn refusal(failure: Failure) -> Status {
    match failure {
        Failure::Refused(status) => status,
        other => panic!("{other}"),
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

fn value_product(name: &str) -> ProductSpec {
    ProductSpec { kind: CardKind::StoredValue, ..ProductSpec::single(name, *b"CNY", 100) }
}

#[test]
fn an_order_has_the_other_card_in_the_same_place() {
    let mut store = Store::new();
    let product = store.product(ProductSpec::single("tea", *b"CNY", 100));
    store.import(product, "TEA", 6, |_| ());
    let order = store.sell(product, 3);
    let report = store.replace("TEA-1", None).unwrap();
    let first = store.last();
    assert_eq!((report.card.row(), report.lifecycle, report.order), (3, Lifecycle::Sold, Some(order)));
    assert_eq!(store.codes(order), ["TEA-0", "TEA-3", "TEA-2"]);
    assert_eq!(store.redeem("TEA-1", 0), Err(Status::Voided));
    let old = store.card("TEA-1");
    assert_eq!((old.lifecycle, old.order), (Lifecycle::Voided, None));
    assert!(old.flags.contains(Flags::REPLACED));
    // The same once more, and another under the same id at either card.
    let again = store.session().replace(first, "TEA-1", None).wait().unwrap();
    assert_eq!(again.card, report.card);
    let other = store.session().replace(first, "TEA-1", Some("TEA-4")).wait().map_err(refusal);
    assert_eq!(other, Err(Status::IdReused));
    let other = store.session().freeze(first, "TEA-3").wait().map_err(refusal);
    assert_eq!(other, Err(Status::IdReused));
    // A replacement can be replaced.
    let named = store.replace("TEA-3", Some("TEA-5")).unwrap();
    assert_eq!(named.card.row(), 5);
    assert_eq!(store.codes(order), ["TEA-0", "TEA-5", "TEA-2"]);
    let mut store = store.reopened();
    assert_eq!(store.codes(order), ["TEA-0", "TEA-5", "TEA-2"]);
    assert_eq!(store.card("TEA-5").order, Some(order));
    let kinds = |events: Vec<HistoryEvent>| events.iter().map(|event| event.kind).collect::<Vec<_>>();
    assert_eq!(kinds(store.history("TEA-1")), [Kind::Replace, Kind::Sell, Kind::Import]);
    assert_eq!(kinds(store.history("TEA-3")), [Kind::Replace, Kind::Replacement, Kind::Import]);
    assert_eq!(store.history("TEA-1")[0].related, u128::from(report.card.to_bits()));
    assert_eq!(store.redeem("TEA-5", 0), Ok(0));
    // By its old code nothing of the order can be given back; what is left of it comes back as a whole.
    let id = store.id();
    let gone = store.session().give_back(id, order, &["TEA-1"], Vec::new()).wait().map_err(refusal);
    assert_eq!(gone.map(|receipt| receipt.value.cards), Err(Status::NotFound));
    let id = store.id();
    let back = store.session().give_back(id, order, &["TEA-2"], Vec::new()).wait().unwrap();
    assert_eq!(back.value.cards, 1);
    assert_eq!(store.codes(order), ["TEA-0", "TEA-5"]);
    assert_eq!(store.replace("TEA-2", None), Err(Status::Returned));
    assert_eq!(store.replace("TEA-5", None), Err(Status::AlreadyRedeemed));
    assert_eq!(store.replace("TEA-4", None), Err(Status::NotSold));
    assert_eq!(store.replace("TEA-1", None), Err(Status::Replaced));
    assert_eq!(store.replace("NOBODY", None), Err(Status::NotFound));
    assert_eq!(store.replace("TEA-0", Some("NOBODY")), Err(Status::NotFound));
    assert_eq!(store.replace("TEA-0", Some("TEA-2")), Err(Status::OtherUnfit));
    assert_eq!(store.replace("TEA-0", None).unwrap().card.row(), 4);
    assert_eq!(store.replace("TEA-4", None), Err(Status::OutOfStock));
    store.reopened();
}

/// Cards of an order whose codes nobody saw can go into stock, and be a replacement in the very order they left.
#[test]
fn a_card_may_come_back_to_the_order_that_it_left() {
    let mut store = Store::new();
    let product = store.product(ProductSpec::single("tea", *b"CNY", 100));
    store.import(product, "TEA", 3, |_| ());
    let (id, order) = (store.id(), OrderId(1));
    let sealed = Purchase {
        lines: vec![Line { product, count: 3, face: None }],
        sealed: true,
        ..Purchase::of(order, product, 3)
    };
    store.session().sell_lines(id, sealed).wait().map(|_| ()).unwrap();
    let id = store.id();
    store.session().give_back(id, order, &["TEA-0"], Vec::new()).wait().unwrap();
    assert_eq!(store.card("TEA-0").lifecycle, Lifecycle::Available);
    let new = store.replace("TEA-2", None).unwrap();
    assert_eq!((new.card.row(), new.flags.contains(Flags::REVEALED)), (0, false));
    let mut store = store.reopened();
    assert_eq!(store.session().order_status(order).wait().unwrap().cards, 2);
    // Nobody saw it yet, so it may go into stock once more.
    let id = store.id();
    store.session().give_back(id, order, &["TEA-0"], Vec::new()).wait().unwrap();
    assert_eq!(store.card("TEA-0").lifecycle, Lifecycle::Available);
    let new = store.replace("TEA-1", None).unwrap();
    assert_eq!(new.card.row(), 0);
    assert_eq!(store.codes(order), ["TEA-0"]);
    let id = store.id();
    store.session().give_back(id, order, &["TEA-0"], Vec::new()).wait().unwrap();
    assert_eq!(store.card("TEA-0").lifecycle, Lifecycle::Returned, "its code was fetched");
    store.reopened();
}

/// A half used card went back into stock by way of a replacement nobody had seen yet.
#[test]
fn what_took_the_place_of_a_used_card_is_no_stock() {
    let mut store = Store::new();
    let product = store.product(value_product("gift"));
    store.import(product, "GIFT", 2, |_| ());
    let (id, order) = (store.id(), OrderId(1));
    let sealed = Purchase { sealed: true, ..Purchase::of(order, product, 1) };
    store.session().sell_lines(id, sealed).wait().map(|_| ()).unwrap();
    store.redeem("GIFT-0", 10).unwrap();
    let new = store.replace("GIFT-0", None).unwrap();
    assert!(!new.flags.contains(Flags::REVEALED));
    let id = store.id();
    store.session().give_back(id, order, &["GIFT-1"], Vec::new()).wait().unwrap();
    assert_eq!(store.card("GIFT-1").lifecycle, Lifecycle::Returned);
    store.reopened();
}

/// A settlement at the card before did not bind at the card in its place.
#[test]
fn a_card_that_was_replaced_is_settled_at_the_other() {
    let mut store = Store::new();
    let product = store.product(value_product("gift"));
    store.import(product, "GIFT", 2, |_| ());
    store.sell(product, 1);
    store.redeem("GIFT-0", 10).unwrap();
    let redeemed = store.last();
    store.replace("GIFT-0", None).unwrap();
    let mut settle = |code: &str| {
        let id = store.id();
        let card = store.engine.digest(Caller::LOCAL.tenant, code.as_bytes()).unwrap();
        store.session().run(id, Command::Settle { card }).wait().unwrap().status
    };
    assert_eq!(settle("GIFT-0"), Status::Replaced);
    assert_eq!(settle("GIFT-1"), Status::Ok);
    assert_eq!(store.reverse("GIFT-1", redeemed), Status::Settled);
    store.reopened();
}

#[test]
fn a_replacement_goes_on_where_the_card_before_it_stopped() {
    let mut store = Store::new();
    let product = store.product(value_product("gift"));
    store.import(product, "GIFT", 5, |_| ());
    store.sell(product, 2);
    assert_eq!(store.redeem("GIFT-0", 30), Ok(70));
    let bought = store.last();
    assert_eq!(store.redeem("GIFT-0", 20), Ok(50));
    let second = store.last();
    assert_eq!(store.replace("GIFT-0", None).unwrap().remaining, 50);
    assert_eq!(store.card("GIFT-0").remaining, 0);
    assert_eq!(store.redeem("GIFT-2", 5), Ok(45));
    let own = store.last();
    let mut store = store.reopened();
    assert_eq!(store.reverse("GIFT-0", bought), Status::Replaced, "there is nothing to give it back to");
    assert_eq!(store.reverse("GIFT-2", bought), Status::Ok);
    assert_eq!(store.reverse("GIFT-2", bought), Status::AlreadyReversed);
    // A till that asks for it once more, with the code that it knows, is told so.
    let part = kami_engine::Part { amount: 30, ..kami_engine::Part::default() };
    let again = store.session().redeem_part(bought, "GIFT-0", part).wait().unwrap();
    assert!(again.replayed && again.reversed);
    assert_eq!(store.card("GIFT-2").remaining, 75);
    // The id of a redemption of the card before is another request at this one.
    let part = kami_engine::Part { amount: 1, ..kami_engine::Part::default() };
    let moved = store.session().redeem_part(second, "GIFT-2", part).wait().unwrap();
    assert_eq!((moved.replayed, moved.value.remaining), (false, 74));
    assert_eq!(store.reverse("GIFT-2", second), Status::Ok, "the newest of that name");
    // Through two generations; an id that nobody has seen is refused from here on.
    assert_eq!(store.replace("GIFT-2", Some("GIFT-4")).unwrap().remaining, 75);
    let mut store = store.reopened();
    assert_eq!(store.reverse("GIFT-4", bought), Status::AlreadyReversed);
    assert_eq!(store.reverse("GIFT-4", own), Status::Ok);
    assert_eq!(store.reverse("GIFT-4", RequestId(7)), Status::Tombstoned);
    assert_eq!(store.card("GIFT-4").remaining, 80);
    // Settled there, what was redeemed at the cards before is refunded.
    assert_eq!(store.redeem("GIFT-1", 40), Ok(60));
    let settled = store.last();
    assert_eq!(store.replace("GIFT-1", None).unwrap().remaining, 60);
    let id = store.id();
    store.session().settle(id, "GIFT-3").wait().unwrap();
    assert_eq!(store.reverse("GIFT-3", settled), Status::Settled);
    let id = store.id();
    let back = store.session().refund_value(id, "GIFT-3", settled, 15).wait().unwrap();
    assert_eq!(back.value.remaining, 75);
    let id = store.id();
    let more = store.session().refund_value(id, "GIFT-3", settled, 26).wait().map_err(refusal);
    assert_eq!(more.map(|_| ()), Err(Status::InsufficientValue));
    let mut store = store.reopened();
    let id = store.id();
    let gone = store.session().refund_value(id, "GIFT-1", settled, 1).wait().map_err(refusal);
    assert_eq!(gone.map(|_| ()), Err(Status::Replaced));
    store.reopened();
}

/// The first entry about a card's value after its return hid the card whose place it had taken: the reversal of what was
/// redeemed there was answered, and recorded, as that of something which never happened.
#[test]
fn what_the_card_before_redeemed_is_found_after_a_return() {
    let mut store = Store::new();
    let product = store.product(value_product("gift"));
    store.import(product, "GIFT", 6, |_| ());
    let settle: fn(&mut Store, &str) = |store, code| {
        let id = store.id();
        store.session().settle(id, code).wait().unwrap();
    };
    let tombstone: fn(&mut Store, &str) = |store, code| {
        let never = store.id();
        assert_eq!(store.reverse(code, never), Status::Tombstoned);
    };
    // What tells the value: nothing between the replacement and the return, or something there, too.
    for (old, new, between) in [("GIFT-0", "GIFT-3", false), ("GIFT-1", "GIFT-4", true)] {
        let order = store.sell(product, 1);
        assert_eq!(store.redeem(old, 30), Ok(70));
        let stands = store.last();
        assert_eq!(store.redeem(old, 20), Ok(50));
        let undone = store.last();
        assert_eq!(store.replace(old, Some(new)).unwrap().remaining, 50);
        if between {
            assert_eq!(store.reverse(new, undone), Status::Ok);
            tombstone(&mut store, new);
        }
        let id = store.id();
        store.session().give_back(id, order, &[new], Vec::new()).wait().unwrap();
        assert_eq!(store.reverse(new, stands), Status::IllegalTransition, "the card was given back");
        for after in [tombstone, settle] {
            after(&mut store, new);
            let entries = store.history(new).len();
            assert_eq!(store.reverse(new, stands), Status::IllegalTransition);
            let status = if between { Status::AlreadyReversed } else { Status::IllegalTransition };
            assert_eq!(store.reverse(new, undone), status);
            assert_eq!(store.history(new).len(), entries, "no id is refused for what happened");
            // And a till that asks once more at the card before is told what became of it.
            let part = kami_engine::Part { amount: 20, ..kami_engine::Part::default() };
            let again = store.session().redeem_part(undone, old, part).wait().unwrap();
            assert_eq!((again.replayed, again.reversed), (true, between));
        }
        assert_eq!(store.card(new).order, None, "it belongs to none");
        store = store.reopened();
    }
}

/// A long past is found from the card that took the place, and moving both at the end of a volume is room enough.
#[test]
fn what_happened_long_ago_at_the_card_before_is_found() {
    let mut store = Store::new();
    let product = store.product(ProductSpec { face: 100_000, ..value_product("gift") });
    store.import(product, "GIFT", 4, |_| ());
    store.sell(product, 2);
    let spend = |store: &mut Store, code: &str, times: u32| {
        let first = RequestId(store.next + 1);
        for _ in 0..times {
            store.redeem(code, 1).unwrap();
        }
        first
    };
    // The next entry of each is the last of a volume.
    let (old, other) = (spend(&mut store, "GIFT-0", 1023), spend(&mut store, "GIFT-1", 1023));
    assert_eq!(store.replace("GIFT-0", None).unwrap().remaining, 98_977);
    assert_eq!(store.transfer("GIFT-2", "GIFT-1", 23), Ok((23, 98_954)));
    let own = spend(&mut store, "GIFT-2", 1100);
    let mut store = store.reopened();
    assert_eq!(store.reverse("GIFT-2", old), Status::Ok);
    assert_eq!(store.reverse("GIFT-2", RequestId(old.0 + 700)), Status::Ok);
    assert_eq!(store.reverse("GIFT-2", old), Status::AlreadyReversed);
    assert_eq!(store.reverse("GIFT-2", own), Status::Ok);
    assert_eq!(store.reverse("GIFT-1", other), Status::Ok);
    assert_eq!(store.card("GIFT-2").remaining, 98_954 - 1100 + 3);
    assert_eq!(store.replace("GIFT-1", None).unwrap().remaining, 100_000 - 1023 + 23 + 1);
    store.reopened();
}

#[test]
fn what_is_held_keeps_its_card() {
    let mut store = Store::new();
    let product = store.product(value_product("gift"));
    store.import(product, "GIFT", 4, |_| ());
    store.sell(product, 2);
    let id = store.id();
    let part = kami_engine::Part { amount: 10, ..kami_engine::Part::default() };
    store.session().hold(id, "GIFT-0", part, 60).wait().unwrap();
    assert_eq!(store.replace("GIFT-0", None), Err(Status::IllegalTransition));
    assert_eq!(store.transfer("GIFT-0", "GIFT-1", 5), Err(Status::IllegalTransition));
    // A hold whose time is over holds nothing, be that written down or not.
    store.clock.0.fetch_add(61_000, Ordering::Relaxed);
    assert_eq!(store.replace("GIFT-0", None).unwrap().remaining, 100);
    let mut work = kami_engine::Work::default();
    assert_eq!(store.engine.run_due(&mut work), 1);
    assert_eq!(store.card("GIFT-0").lifecycle, Lifecycle::Voided);
    store.reopened();
}

#[test]
fn value_goes_from_card_to_card() {
    let mut store = Store::new();
    let mut spec = value_product("gift");
    spec.terms.value_max = 150;
    let product = store.product(spec);
    store.import(product, "GIFT", 3, |_| ());
    let other = store.product(value_product("other"));
    store.import(other, "OTHER", 1, |_| ());
    store.sell(other, 1);
    let order = store.sell(product, 2);
    assert_eq!(store.transfer("GIFT-0", "GIFT-1", 60), Err(Status::ValueLimit));
    assert_eq!(store.transfer("GIFT-0", "GIFT-1", 40), Ok((40, 60)));
    let first = store.last();
    let again = store.session().transfer(first, "GIFT-0", "GIFT-1", 40).wait().unwrap();
    assert!(again.replayed);
    assert_eq!((again.value.amount, again.value.remaining), (40, 60));
    let other = store.session().transfer(first, "GIFT-0", "GIFT-1", 41).wait().map_err(refusal);
    assert_eq!(other.map(|_| ()), Err(Status::IdReused));
    assert_eq!(store.card("GIFT-1").remaining, 140);
    for (from, to, amount, status) in [
        ("GIFT-0", "GIFT-0", 1, Status::OtherUnfit),
        ("GIFT-0", "GIFT-2", 1, Status::OtherUnfit),
        ("GIFT-0", "OTHER-0", 1, Status::OtherUnfit),
        ("GIFT-0", "NOBODY", 1, Status::NotFound),
        ("GIFT-2", "GIFT-0", 1, Status::NotSold),
        ("GIFT-0", "GIFT-1", -1, Status::Malformed),
        ("GIFT-0", "GIFT-1", 61, Status::InsufficientValue),
    ] {
        assert_eq!(store.transfer(from, to, amount), Err(status), "{from} {to} {amount}");
    }
    assert_eq!(store.redeem("GIFT-1", 50), Ok(90));
    let mut store = store.reopened();
    assert_eq!(store.transfer("GIFT-0", "GIFT-1", 0), Ok((60, 0)));
    let gone = store.card("GIFT-0");
    assert_eq!((gone.lifecycle, gone.remaining, gone.order), (Lifecycle::Voided, 0, Some(order)));
    assert_eq!(store.card("GIFT-1").remaining, 150);
    assert_eq!(store.codes(order), ["GIFT-1"], "what is void is not given out");
    assert_eq!(store.transfer("GIFT-1", "GIFT-0", 1), Err(Status::OtherUnfit));
    assert_eq!(store.transfer("GIFT-0", "GIFT-1", 1), Err(Status::Replaced));
    let id = store.id();
    store.session().freeze(id, "GIFT-1").wait().unwrap();
    // From a frozen card nothing is moved; it is replaced all the same, since that is what it is frozen for.
    assert_eq!(store.transfer("GIFT-1", "GIFT-0", 1), Err(Status::Frozen));
    let new = store.replace("GIFT-1", None).unwrap();
    assert_eq!((new.remaining, new.flags.contains(Flags::FROZEN)), (150, false));
    let mut store = store.reopened();
    let single = store.product(ProductSpec::single("tea", *b"CNY", 100));
    store.import(single, "TEA", 2, |_| ());
    store.sell(single, 2);
    assert_eq!(store.transfer("TEA-0", "TEA-1", 0), Err(Status::IllegalTransition));
}

#[test]
fn it_ends_when_the_other_would_have_ended_and_is_as_active() {
    let mut store = Store::new();
    let product = store.product(ProductSpec::single("tea", *b"CNY", 100));
    store.import(product, "LONG", 2, |_| ());
    let ends_ms = 1_800_000_000_000 + 5 * DAY_MS;
    store.import(product, "SHORT", 3, |spec| (spec.expires_ms, spec.active) = (ends_ms, false));
    store.sell(product, 2);
    // One that never ends, by one that would; it was active, and the others are not.
    let new = store.replace("LONG-0", None).unwrap();
    assert_eq!((new.expires_ms, new.flags.contains(Flags::ACTIVE)), (0, true));
    store.sell(product, 1);
    let id = store.id();
    store.session().extend(id, "SHORT-1", ends_ms + DAY_MS).wait().unwrap();
    let new = store.replace("SHORT-1", None).unwrap();
    assert_eq!((new.expires_ms, new.flags.contains(Flags::ACTIVE)), (ends_ms + DAY_MS, false));
    let mut store = store.reopened();
    assert_eq!(store.card("SHORT-0").expires_ms, 0);
    assert_eq!(store.card("SHORT-2").expires_ms, ends_ms + DAY_MS);
    // What begins with an event of the card's own goes on from there.
    let spec = ProductSpec { valid_days: 1, ..ProductSpec::single("day", *b"CNY", 100) };
    let mut spec = spec;
    spec.terms.valid_from = ValidFrom::Sale;
    let product = store.product(spec);
    store.import(product, "DAY", 2, |_| ());
    store.sell(product, 1);
    let ends_ms = store.card("DAY-0").expires_ms;
    store.clock.0.fetch_add(DAY_MS / 2, Ordering::Relaxed);
    assert_eq!(store.replace("DAY-0", None).unwrap().expires_ms, ends_ms);
    store.clock.0.fetch_add(DAY_MS / 2, Ordering::Relaxed);
    assert_eq!(store.replace("DAY-1", None), Err(Status::Expired));
    let store = store.reopened();
    assert_eq!(store.card("DAY-1").expires_ms, ends_ms);
}

/// What fits is asked of the terms of a card, too.
#[test]
fn what_is_worth_less_takes_no_place() {
    let mut store = Store::new();
    let product = store.product(ProductSpec::single("tea", *b"CNY", 100));
    store.import(product, "TEA", 1, |_| ());
    store.import(product, "HALF", 1, |spec| spec.face = Some(50));
    store.import(product, "ICE", 1, |_| ());
    store.sell(product, 1);
    assert_eq!(store.replace("TEA-0", Some("HALF-0")), Err(Status::OtherUnfit));
    let id = store.id();
    let frozen = store.session().run(id, Command::BatchFreeze(BatchId(3))).wait().unwrap();
    assert_eq!(frozen.status, Status::Ok);
    assert_eq!(store.replace("TEA-0", None), Err(Status::OutOfStock));
    assert_eq!(store.replace("TEA-0", Some("ICE-0")), Err(Status::OtherUnfit));
    let id = store.id();
    assert_eq!(store.session().run(id, Command::ProductFreeze(product)).wait().unwrap().status, Status::Ok);
    assert_eq!(store.replace("TEA-0", None), Err(Status::Frozen));
}
