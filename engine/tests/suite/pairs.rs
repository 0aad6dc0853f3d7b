//! What moves two cards: replacements and transfers, with what came before and what comes after.

use kami_engine::{
    BatchId, CardKind, CardReport, Command, Failure, Flags, HistoryEvent, Kind, Lifecycle, Line, OrderId,
    Part, ProductSpec, Purchase, RequestId, Status, ValidFrom, Work,
};

use crate::store::{BEGUN_MS, End, Store};

const DAY_MS: u64 = 24 * 3600 * 1000;

impl Store {
    /// What an order holds, in its sequence.
    fn codes(&self, order: OrderId) -> Vec<String> {
        let sold = self.session().order(self.id(), order).wait().unwrap();
        sold.codes.iter().map(|code| code.to_string()).collect()
    }

    fn replace(&self, code: &str, with: Option<&str>) -> Result<CardReport, Status> {
        self.session().replace(self.id(), code, with).wait().map_err(refusal)
    }

    /// What was moved, and what is left on the card it came from.
    fn transfer(&self, from: &str, to: &str, amount: i64) -> Result<(i64, i64), Status> {
        let moved = self.session().transfer(self.id(), from, to, amount).wait().map_err(refusal)?;
        Ok((moved.value.amount, moved.value.remaining))
    }

    /// Redeems under a new id; what is left.
    fn spend(&self, code: &str, amount: i64) -> Result<i64, Status> {
        let part = Part { amount, ..Part::default() };
        Ok(self.session().redeem_part(self.id(), code, part).wait().map_err(refusal)?.value.remaining)
    }
}

fn refusal(failure: Failure) -> Status {
    match failure {
        Failure::Refused(status) => status,
        other => panic!("{other}"),
    }
}

fn value_product(name: &str) -> ProductSpec {
    ProductSpec { kind: CardKind::StoredValue, ..ProductSpec::single(name, *b"CNY", 100) }
}

#[test]
fn an_order_has_the_other_card_in_the_same_place() {
    let mut store = Store::new();
    let product = store.product(ProductSpec::single("tea", *b"CNY", 100));
    store.import(product, "TEA", 6);
    let order = store.sell(product, 3);
    let report = store.replace("TEA-1", None).unwrap();
    let first = store.last_id();
    assert_eq!((report.card.row(), report.lifecycle, report.order), (3, Lifecycle::Sold, Some(order)));
    assert_eq!(store.codes(order), ["TEA-0", "TEA-3", "TEA-2"]);
    assert_eq!(store.spend("TEA-1", 0), Err(Status::Voided));
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
    store.restart(End::Close);
    assert_eq!(store.codes(order), ["TEA-0", "TEA-5", "TEA-2"]);
    assert_eq!(store.card("TEA-5").order, Some(order));
    let kinds = |events: Vec<HistoryEvent>| events.iter().map(|event| event.kind).collect::<Vec<_>>();
    assert_eq!(kinds(store.history("TEA-1")), [Kind::Replace, Kind::Sell, Kind::Import]);
    assert_eq!(kinds(store.history("TEA-3")), [Kind::Replace, Kind::Replacement, Kind::Import]);
    assert_eq!(store.history("TEA-1")[0].related, u128::from(report.card.to_bits()));
    assert_eq!(store.spend("TEA-5", 0), Ok(0));
    // By its old code nothing of the order can be given back; what is left of it comes back as a whole.
    let gone = store.session().give_back(store.id(), order, &["TEA-1"], Vec::new()).wait().map_err(refusal);
    assert_eq!(gone.map(|receipt| receipt.value.cards), Err(Status::NotFound));
    let back = store.session().give_back(store.id(), order, &["TEA-2"], Vec::new()).wait().unwrap();
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
    store.restart(End::Close);
}

/// Cards of an order whose codes nobody saw can go into stock, and be a replacement in the very order they left.
#[test]
fn a_card_may_come_back_to_the_order_that_it_left() {
    let mut store = Store::new();
    let product = store.product(ProductSpec::single("tea", *b"CNY", 100));
    store.import(product, "TEA", 3);
    let (id, order) = (store.id(), OrderId(1));
    let sealed = Purchase {
        lines: vec![Line { product, count: 3, face: None }],
        sealed: true,
        ..Purchase::of(order, product, 3)
    };
    store.session().sell_lines(id, sealed).wait().map(|_| ()).unwrap();
    store.session().give_back(store.id(), order, &["TEA-0"], Vec::new()).wait().unwrap();
    assert_eq!(store.card("TEA-0").lifecycle, Lifecycle::Available);
    let new = store.replace("TEA-2", None).unwrap();
    assert_eq!((new.card.row(), new.flags.contains(Flags::REVEALED)), (0, false));
    store.restart(End::Close);
    assert_eq!(store.session().order_status(order).wait().unwrap().cards, 2);
    // Nobody saw it yet, so it may go into stock once more.
    store.session().give_back(store.id(), order, &["TEA-0"], Vec::new()).wait().unwrap();
    assert_eq!(store.card("TEA-0").lifecycle, Lifecycle::Available);
    let new = store.replace("TEA-1", None).unwrap();
    assert_eq!(new.card.row(), 0);
    assert_eq!(store.codes(order), ["TEA-0"]);
    store.session().give_back(store.id(), order, &["TEA-0"], Vec::new()).wait().unwrap();
    assert_eq!(store.card("TEA-0").lifecycle, Lifecycle::Returned, "its code was fetched");
    store.restart(End::Close);
}

/// A half used card went back into stock by way of a replacement nobody had seen yet.
#[test]
fn what_took_the_place_of_a_used_card_is_no_stock() {
    let mut store = Store::new();
    let product = store.product(value_product("gift"));
    store.import(product, "GIFT", 2);
    let (id, order) = (store.id(), OrderId(1));
    let sealed = Purchase { sealed: true, ..Purchase::of(order, product, 1) };
    store.session().sell_lines(id, sealed).wait().map(|_| ()).unwrap();
    store.spend("GIFT-0", 10).unwrap();
    let new = store.replace("GIFT-0", None).unwrap();
    assert!(!new.flags.contains(Flags::REVEALED));
    store.session().give_back(store.id(), order, &["GIFT-1"], Vec::new()).wait().unwrap();
    assert_eq!(store.card("GIFT-1").lifecycle, Lifecycle::Returned);
    store.restart(End::Close);
}

/// A settlement at the card before did not bind at the card in its place.
#[test]
fn a_card_that_was_replaced_is_settled_at_the_other() {
    let mut store = Store::new();
    let product = store.product(value_product("gift"));
    store.import(product, "GIFT", 2);
    store.sell(product, 1);
    store.spend("GIFT-0", 10).unwrap();
    let redeemed = store.last_id();
    store.replace("GIFT-0", None).unwrap();
    let settle = |code: &str| store.ask(Command::Settle { card: store.digest(code) }).status;
    assert_eq!(settle("GIFT-0"), Status::Replaced);
    assert_eq!(settle("GIFT-1"), Status::Ok);
    assert_eq!(store.reverse("GIFT-1", redeemed).status, Status::Settled);
    store.restart(End::Close);
}

#[test]
fn a_replacement_goes_on_where_the_card_before_it_stopped() {
    let mut store = Store::new();
    let product = store.product(value_product("gift"));
    store.import(product, "GIFT", 5);
    store.sell(product, 2);
    assert_eq!(store.spend("GIFT-0", 30), Ok(70));
    let bought = store.last_id();
    assert_eq!(store.spend("GIFT-0", 20), Ok(50));
    let second = store.last_id();
    assert_eq!(store.replace("GIFT-0", None).unwrap().remaining, 50);
    assert_eq!(store.card("GIFT-0").remaining, 0);
    assert_eq!(store.spend("GIFT-2", 5), Ok(45));
    let own = store.last_id();
    store.restart(End::Close);
    assert_eq!(
        store.reverse("GIFT-0", bought).status,
        Status::Replaced,
        "there is nothing to give it back to"
    );
    assert_eq!(store.reverse("GIFT-2", bought).status, Status::Ok);
    assert_eq!(store.reverse("GIFT-2", bought).status, Status::AlreadyReversed);
    // A till that asks for it once more, with the code that it knows, is told so.
    let part = Part { amount: 30, ..Part::default() };
    let again = store.session().redeem_part(bought, "GIFT-0", part).wait().unwrap();
    assert!(again.replayed && again.reversed);
    assert_eq!(store.card("GIFT-2").remaining, 75);
    // The id of a redemption of the card before is another request at this one.
    let part = Part { amount: 1, ..Part::default() };
    let moved = store.session().redeem_part(second, "GIFT-2", part).wait().unwrap();
    assert_eq!((moved.replayed, moved.value.remaining), (false, 74));
    assert_eq!(store.reverse("GIFT-2", second).status, Status::Ok, "the newest of that name");
    // Through two generations; an id that nobody has seen is refused from here on.
    assert_eq!(store.replace("GIFT-2", Some("GIFT-4")).unwrap().remaining, 75);
    store.restart(End::Close);
    assert_eq!(store.reverse("GIFT-4", bought).status, Status::AlreadyReversed);
    assert_eq!(store.reverse("GIFT-4", own).status, Status::Ok);
    assert_eq!(store.reverse("GIFT-4", RequestId(7)).status, Status::Tombstoned);
    assert_eq!(store.card("GIFT-4").remaining, 80);
    // Settled there, what was redeemed at the cards before is refunded.
    assert_eq!(store.spend("GIFT-1", 40), Ok(60));
    let settled = store.last_id();
    assert_eq!(store.replace("GIFT-1", None).unwrap().remaining, 60);
    store.session().settle(store.id(), "GIFT-3").wait().unwrap();
    assert_eq!(store.reverse("GIFT-3", settled).status, Status::Settled);
    let back = store.session().refund_value(store.id(), "GIFT-3", settled, 15).wait().unwrap();
    assert_eq!(back.value.remaining, 75);
    let more = store.session().refund_value(store.id(), "GIFT-3", settled, 26).wait().map_err(refusal);
    assert_eq!(more.map(|_| ()), Err(Status::InsufficientValue));
    store.restart(End::Close);
    let gone = store.session().refund_value(store.id(), "GIFT-1", settled, 1).wait().map_err(refusal);
    assert_eq!(gone.map(|_| ()), Err(Status::Replaced));
    store.restart(End::Close);
}

/// The first entry about a card's value after its return hid the card whose place it had taken: the reversal of what was
/// redeemed there was answered, and recorded, as that of something which never happened.
#[test]
fn what_the_card_before_redeemed_is_found_after_a_return() {
    let mut store = Store::new();
    let product = store.product(value_product("gift"));
    store.import(product, "GIFT", 6);
    let settle: fn(&Store, &str) = |store, code| {
        store.session().settle(store.id(), code).wait().unwrap();
    };
    let tombstone: fn(&Store, &str) = |store, code| {
        let never = store.id();
        assert_eq!(store.reverse(code, never).status, Status::Tombstoned);
    };
    // What tells the value: nothing between the replacement and the return, or something there, too.
    for (old, new, between) in [("GIFT-0", "GIFT-3", false), ("GIFT-1", "GIFT-4", true)] {
        let order = store.sell(product, 1);
        assert_eq!(store.spend(old, 30), Ok(70));
        let stands = store.last_id();
        assert_eq!(store.spend(old, 20), Ok(50));
        let undone = store.last_id();
        assert_eq!(store.replace(old, Some(new)).unwrap().remaining, 50);
        if between {
            assert_eq!(store.reverse(new, undone).status, Status::Ok);
            tombstone(&store, new);
        }
        store.session().give_back(store.id(), order, &[new], Vec::new()).wait().unwrap();
        assert_eq!(store.reverse(new, stands).status, Status::IllegalTransition, "the card was given back");
        for after in [tombstone, settle] {
            after(&store, new);
            let entries = store.history(new).len();
            assert_eq!(store.reverse(new, stands).status, Status::IllegalTransition);
            let status = if between { Status::AlreadyReversed } else { Status::IllegalTransition };
            assert_eq!(store.reverse(new, undone).status, status);
            assert_eq!(store.history(new).len(), entries, "no id is refused for what happened");
            // And a till that asks once more at the card before is told what became of it.
            let part = Part { amount: 20, ..Part::default() };
            let again = store.session().redeem_part(undone, old, part).wait().unwrap();
            assert_eq!((again.replayed, again.reversed), (true, between));
        }
        assert_eq!(store.card(new).order, None, "it belongs to none");
        store.restart(End::Close);
    }
}

/// A long past is found from the card that took the place, and moving both at the end of a volume is room enough.
#[test]
fn what_happened_long_ago_at_the_card_before_is_found() {
    let mut store = Store::new();
    let product = store.product(ProductSpec { face: 100_000, ..value_product("gift") });
    store.import(product, "GIFT", 4);
    store.sell(product, 2);
    let spend = |store: &Store, code: &str, times: u32| {
        let first = RequestId(store.last_id().0 + 1);
        for _ in 0..times {
            store.spend(code, 1).unwrap();
        }
        first
    };
    // The next entry of each is the last of a volume.
    let (old, other) = (spend(&store, "GIFT-0", 1023), spend(&store, "GIFT-1", 1023));
    assert_eq!(store.replace("GIFT-0", None).unwrap().remaining, 98_977);
    assert_eq!(store.transfer("GIFT-2", "GIFT-1", 23), Ok((23, 98_954)));
    let own = spend(&store, "GIFT-2", 1100);
    store.restart(End::Close);
    assert_eq!(store.reverse("GIFT-2", old).status, Status::Ok);
    assert_eq!(store.reverse("GIFT-2", RequestId(old.0 + 700)).status, Status::Ok);
    assert_eq!(store.reverse("GIFT-2", old).status, Status::AlreadyReversed);
    assert_eq!(store.reverse("GIFT-2", own).status, Status::Ok);
    assert_eq!(store.reverse("GIFT-1", other).status, Status::Ok);
    assert_eq!(store.card("GIFT-2").remaining, 98_954 - 1100 + 3);
    assert_eq!(store.replace("GIFT-1", None).unwrap().remaining, 100_000 - 1023 + 23 + 1);
    store.restart(End::Close);
}

#[test]
fn what_is_held_keeps_its_card() {
    let mut store = Store::new();
    let product = store.product(value_product("gift"));
    store.import(product, "GIFT", 4);
    store.sell(product, 2);
    let id = store.id();
    let part = Part { amount: 10, ..Part::default() };
    store.session().hold(id, "GIFT-0", part, 60).wait().unwrap();
    assert_eq!(store.replace("GIFT-0", None), Err(Status::IllegalTransition));
    assert_eq!(store.transfer("GIFT-0", "GIFT-1", 5), Err(Status::IllegalTransition));
    // A hold whose time is over holds nothing, be that written down or not.
    store.clock.advance(61_000);
    assert_eq!(store.replace("GIFT-0", None).unwrap().remaining, 100);
    let mut work = Work::default();
    assert_eq!(store.engine().run_due(&mut work), 1);
    assert_eq!(store.card("GIFT-0").lifecycle, Lifecycle::Voided);
    store.restart(End::Close);
}

#[test]
fn value_goes_from_card_to_card() {
    let mut store = Store::new();
    let mut spec = value_product("gift");
    spec.terms.value_max = 150;
    let product = store.product(spec);
    store.import(product, "GIFT", 3);
    let other = store.product(value_product("other"));
    store.import(other, "OTHER", 1);
    store.sell(other, 1);
    let order = store.sell(product, 2);
    assert_eq!(store.transfer("GIFT-0", "GIFT-1", 60), Err(Status::ValueLimit));
    assert_eq!(store.transfer("GIFT-0", "GIFT-1", 40), Ok((40, 60)));
    let first = store.last_id();
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
    assert_eq!(store.spend("GIFT-1", 50), Ok(90));
    store.restart(End::Close);
    assert_eq!(store.transfer("GIFT-0", "GIFT-1", 0), Ok((60, 0)));
    let gone = store.card("GIFT-0");
    assert_eq!((gone.lifecycle, gone.remaining, gone.order), (Lifecycle::Voided, 0, Some(order)));
    assert_eq!(store.card("GIFT-1").remaining, 150);
    assert_eq!(store.codes(order), ["GIFT-1"], "what is void is not given out");
    assert_eq!(store.transfer("GIFT-1", "GIFT-0", 1), Err(Status::OtherUnfit));
    assert_eq!(store.transfer("GIFT-0", "GIFT-1", 1), Err(Status::Replaced));
    store.session().freeze(store.id(), "GIFT-1").wait().unwrap();
    // From a frozen card nothing is moved; it is replaced all the same, since that is what it is frozen for.
    assert_eq!(store.transfer("GIFT-1", "GIFT-0", 1), Err(Status::Frozen));
    let new = store.replace("GIFT-1", None).unwrap();
    assert_eq!((new.remaining, new.flags.contains(Flags::FROZEN)), (150, false));
    store.restart(End::Close);
    let single = store.product(ProductSpec::single("tea", *b"CNY", 100));
    store.import(single, "TEA", 2);
    store.sell(single, 2);
    assert_eq!(store.transfer("TEA-0", "TEA-1", 0), Err(Status::IllegalTransition));
}

#[test]
fn it_ends_when_the_other_would_have_ended_and_is_as_active() {
    let mut store = Store::new();
    let product = store.product(ProductSpec::single("tea", *b"CNY", 100));
    store.import(product, "LONG", 2);
    let ends_ms = BEGUN_MS + 5 * DAY_MS;
    store.import_with(product, "SHORT", 3, |spec| (spec.expires_ms, spec.active) = (ends_ms, false));
    store.sell(product, 2);
    // One that never ends, by one that would; it was active, and the others are not.
    let new = store.replace("LONG-0", None).unwrap();
    assert_eq!((new.expires_ms, new.flags.contains(Flags::ACTIVE)), (0, true));
    store.sell(product, 1);
    store.session().extend(store.id(), "SHORT-1", ends_ms + DAY_MS).wait().unwrap();
    let new = store.replace("SHORT-1", None).unwrap();
    assert_eq!((new.expires_ms, new.flags.contains(Flags::ACTIVE)), (ends_ms + DAY_MS, false));
    store.restart(End::Close);
    assert_eq!(store.card("SHORT-0").expires_ms, 0);
    assert_eq!(store.card("SHORT-2").expires_ms, ends_ms + DAY_MS);
    // What begins with an event of the card's own goes on from there.
    let spec = ProductSpec { valid_days: 1, ..ProductSpec::single("day", *b"CNY", 100) };
    let mut spec = spec;
    spec.terms.valid_from = ValidFrom::Sale;
    let product = store.product(spec);
    store.import(product, "DAY", 2);
    store.sell(product, 1);
    let ends_ms = store.card("DAY-0").expires_ms;
    store.clock.advance(DAY_MS / 2);
    assert_eq!(store.replace("DAY-0", None).unwrap().expires_ms, ends_ms);
    store.clock.advance(DAY_MS / 2);
    assert_eq!(store.replace("DAY-1", None), Err(Status::Expired));
    store.restart(End::Close);
    assert_eq!(store.card("DAY-1").expires_ms, ends_ms);
}

/// What fits is asked of the terms of a card, too.
#[test]
fn what_is_worth_less_takes_no_place() {
    let store = Store::new();
    let product = store.product(ProductSpec::single("tea", *b"CNY", 100));
    store.import(product, "TEA", 1);
    store.import_with(product, "HALF", 1, |spec| spec.face = Some(50));
    store.import(product, "ICE", 1);
    store.sell(product, 1);
    assert_eq!(store.replace("TEA-0", Some("HALF-0")), Err(Status::OtherUnfit));
    let frozen = store.session().run(store.id(), Command::BatchFreeze(BatchId(3))).wait().unwrap();
    assert_eq!(frozen.status, Status::Ok);
    assert_eq!(store.replace("TEA-0", None), Err(Status::OutOfStock));
    assert_eq!(store.replace("TEA-0", Some("ICE-0")), Err(Status::OtherUnfit));
    let id = store.id();
    assert_eq!(store.session().run(id, Command::ProductFreeze(product)).wait().unwrap().status, Status::Ok);
    assert_eq!(store.replace("TEA-0", None), Err(Status::Frozen));
}
