//! When a card may be used: by rows of its batch, by itself, and from an event of its own; also after a restart.

use kami_engine::{
    BatchId, CardKind, Command, Lifecycle, OrderId, ProductId, ProductSpec, Status, ValidFrom,
};

use crate::store::{End, Store};

const DAY_MS: u64 = 24 * 3600 * 1000;

impl Store {
    /// A product whose cards are valid for a day, with a batch of four.
    fn day_cards(&self, name: &str, kind: CardKind, from: ValidFrom, active: bool) -> ProductId {
        let mut spec = ProductSpec::single(name, *b"CNY", 100);
        (spec.kind, spec.valid_days, spec.terms.valid_from) = (kind, 1, from);
        let product = self.product(spec);
        self.import_with(product, name, 4, |spec| spec.active = active);
        product
    }

    fn rows(&self, batch: u32, from: u64, rows: u64, active: bool) -> Status {
        self.ask(Command::BatchRows { batch: BatchId(batch), from, rows, active }).status
    }
}

#[test]
fn validity_counts_from_the_sale() {
    let mut store = Store::new();
    let product = store.day_cards("SALE", CardKind::Single, ValidFrom::Sale, true);
    store.clock.advance(3 * DAY_MS);
    assert_eq!(store.card("SALE-0").expires_ms, 0, "nothing runs out in stock");
    store.sell(product, 1);
    let sold_ms = store.now_ms();
    assert_eq!(store.card("SALE-0").expires_ms, sold_ms + DAY_MS);
    store.restart(End::Close);
    assert_eq!(store.card("SALE-0").expires_ms, sold_ms + DAY_MS);
    store.clock.advance(DAY_MS);
    assert_eq!(store.redeem("SALE-0", 0).status, Status::Expired);
    store.sell(product, 1);
    assert_eq!(store.redeem("SALE-1", 0).status, Status::Ok, "its day began with its own sale");
    // What must last longer than the rule gives is not there.
    let order = OrderId(9);
    let lasting = store.ask(Command::Sell { order, product, count: 1, validity_s_min: 24 * 3600 });
    assert_eq!(lasting.status, Status::OutOfStock);
}

#[test]
fn validity_counts_from_the_activation() {
    let mut store = Store::new();
    let product = store.day_cards("ACT", CardKind::Single, ValidFrom::Activation, false);
    store.sell(product, 4);
    store.clock.advance(5 * DAY_MS);
    assert_eq!((store.card("ACT-0").expires_ms, store.redeem("ACT-0", 0).status), (0, Status::NotActive));
    assert_eq!(store.rows(1, 0, 2, true), Status::Ok);
    let begun_ms = store.now_ms();
    assert_eq!(store.rows(1, 0, 2, true), Status::IllegalTransition, "nothing would change");
    assert_eq!(store.rows(1, 3, 2, true), Status::NotFound, "the batch has four rows");
    store.clock.advance(DAY_MS / 2);
    assert_eq!(store.rows(1, 0, 3, true), Status::Ok);
    assert_eq!(
        store.session().activate(store.id(), "ACT-3").wait().unwrap().expires_ms,
        begun_ms + DAY_MS * 3 / 2
    );
    store.restart(End::Close);
    let ends = ["ACT-0", "ACT-1", "ACT-2", "ACT-3"].map(|code| store.card(code).expires_ms - begun_ms);
    assert_eq!(ends, [DAY_MS, DAY_MS, DAY_MS * 3 / 2, DAY_MS * 3 / 2], "what was active stays so since then");
    store.clock.advance(DAY_MS / 2);
    assert_eq!(
        (store.redeem("ACT-0", 0).status, store.redeem("ACT-3", 0).status),
        (Status::Expired, Status::Ok)
    );
    assert_eq!(store.rows(1, 0, 4, false), Status::Ok);
    assert_eq!(store.redeem("ACT-2", 0).status, Status::NotActive);
}

#[test]
fn validity_counts_from_the_first_use() {
    let mut store = Store::new();
    let product = store.day_cards("USE", CardKind::StoredValue, ValidFrom::FirstUse, true);
    store.sell(product, 2);
    store.clock.advance(50 * DAY_MS);
    assert_eq!(store.card("USE-0").expires_ms, 0);
    let (first, used_ms) = (store.redeem("USE-0", 10), store.now_ms());
    store.clock.advance(DAY_MS / 2);
    let second = store.redeem("USE-0", 10);
    assert_eq!((first.status, second.status), (Status::Ok, Status::Ok));
    store.restart(End::Close);
    assert_eq!(store.card("USE-0").expires_ms, used_ms + DAY_MS, "the second use changes nothing");
    store.clock.advance(DAY_MS / 2);
    assert_eq!(store.redeem("USE-0", 10).status, Status::Expired);
    // Nothing of it is used once the second is given back, too; then it may begin anew.
    assert_eq!(store.reverse("USE-0", second.request).status, Status::Ok);
    assert_eq!(store.card("USE-0").expires_ms, used_ms + DAY_MS);
    assert_eq!(store.reverse("USE-0", first.request).status, Status::Ok);
    assert_eq!(store.card("USE-0").expires_ms, 0);
    assert_eq!(store.redeem("USE-0", 10).status, Status::Ok);
    let now_ms = store.now_ms();
    assert_eq!(store.card("USE-0").expires_ms, now_ms + DAY_MS);
}

/// A card in stock that is ended is not sold; one that is brought back is, although its batch is over.
#[test]
fn an_end_of_its_own_counts_in_stock() {
    let mut store = Store::new();
    let product = store.day_cards("OWN", CardKind::Single, ValidFrom::Import, true);
    let sellable = |store: &Store| store.session().stock(None).wait().unwrap()[0].sellable;
    assert_eq!(store.session().expire(store.id(), "OWN-0").wait().unwrap().lifecycle, Lifecycle::Expired);
    assert_eq!(sellable(&store), 3);
    store.clock.advance(2 * DAY_MS);
    let ends_ms = store.card("OWN-2").expires_ms + 5 * DAY_MS;
    assert_eq!(sellable(&store), 0);
    assert_eq!(
        store.session().extend(store.id(), "OWN-2", ends_ms).wait().unwrap().lifecycle,
        Lifecycle::Available
    );
    store.restart(End::Close);
    assert_eq!(sellable(&store), 1);
    store.sell(product, 1);
    assert_eq!(store.redeem("OWN-2", 0).status, Status::Ok);
    store.restart(End::Close);
}
