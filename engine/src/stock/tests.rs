//! What looking for cards to sell reads.

use super::*;
use crate::order::{GivenBack, Purchase};
use crate::tested::{BEGUN_MS, End, Store};
use crate::{Command, ImportRow, ImportSpec, OrderId, ProductId, ProductSpec, Status};

/// A store with a product whose cards have face values and ends of validity of their own.
struct Shop {
    store: Store,
    product: ProductId,
}

impl Shop {
    fn new() -> Shop {
        let store = Store::new();
        let product = store.product(ProductSpec::single("mixed", *b"CNY", 100));
        Shop { store, product }
    }

    /// Imports a batch of so many rows, with a face value and an end of validity each.
    fn import(&self, rows: u64, of_row: impl Fn(u64) -> (Money, u64)) {
        let id = self.store.id();
        let codes: Vec<String> = (0..rows).map(|row| format!("CARD-{}-{row}", id.0 as u32)).collect();
        let expiries = (0..rows).any(|row| of_row(row).1 != 0);
        let spec = ImportSpec { faces: true, expiries, ..ImportSpec::of(self.product, rows, 24) };
        let rows = codes.iter().enumerate().map(|(row, code)| {
            let (face, expires_ms) = of_row(row as u64);
            ImportRow { code: code.as_bytes(), face: Some(face), expires_ms, ..ImportRow::default() }
        });
        self.store.session().import(id, spec, rows, |_| ()).unwrap();
    }

    fn ask(&self, command: Command) -> Status {
        self.store.ask(command).status
    }

    fn sell(&self, face: Money, count: u32, validity_s_min: u32) -> (OrderId, Status) {
        let order = OrderId(self.store.id().0);
        let mut purchase =
            Purchase { sealed: true, validity_s_min, ..Purchase::of(order, self.product, count) };
        purchase.lines[0].face = Some(face);
        (order, self.ask(Command::SellLines(Box::new(purchase))))
    }

    /// The row that would be sold next, and how many rows are looked at to find it.
    fn next(&self, face: Option<Money>, validity_s_min: u32) -> (Option<u64>, u64) {
        let sequencer = self.store.engine().sequencer();
        let mut found = Search::default();
        let line = Line { product: self.product, count: 1, face };
        sequencer.state().allocate(&sequencer.table, TenantId(0), &line, validity_s_min, &mut found);
        let row = found.cards.cards().next().map(|(card, _)| card.row());
        (row, found.looked)
    }

    fn restart(&mut self) {
        self.store.restart(End::Kill);
    }
}

/// An order for one face value read the batch from its first other card, under the lock, every time.
#[test]
fn an_order_for_a_face_value_passes_over_the_others_once() {
    const HALF: u64 = 5_000;
    let mut shop = Shop::new();
    shop.import(2 * HALF, |row| (if row < HALF { 1_000 } else { 5_000 }, 0));
    for sold in 0..5 {
        assert_eq!(shop.next(Some(5_000), 0), (Some(HALF + sold), 1));
        assert_eq!(shop.sell(5_000, 1, 0).1, Status::Ok);
        if sold == 2 {
            shop.restart();
        }
    }
    assert_eq!(shop.next(Some(7_000), 0), (None, 0), "a value that no card has");
    assert_eq!(shop.sell(5_000, HALF as u32, 0).1, Status::OutOfStock);
    assert_eq!(shop.next(None, 0), (Some(0), 1), "any");
    // What comes back is sold first, be it passed by one cursor or by both.
    let (order, status) = shop.sell(1_000, 3, 0);
    assert_eq!((status, shop.next(None, 0)), (Status::Ok, (Some(3), 4)));
    let back = |order| Command::Return(Box::new(GivenBack { order, cards: Vec::new(), legs: Vec::new() }));
    assert_eq!(shop.ask(back(order)), Status::Ok);
    assert_eq!(shop.next(Some(1_000), 0), (Some(0), 0));
    assert_eq!(shop.next(None, 0), (Some(0), 1));
    let any = Purchase { sealed: true, ..Purchase::of(OrderId(7), shop.product, 4) };
    assert_eq!(shop.ask(Command::SellLines(Box::new(any))), Status::Ok);
    assert_eq!(shop.next(Some(1_000), 0).0, Some(4));
    assert_eq!(shop.ask(back(OrderId(7))), Status::Ok);
    assert_eq!((shop.next(Some(1_000), 0).0, shop.next(None, 0).0), (Some(0), Some(0)));
    shop.restart();
    assert_eq!(shop.next(Some(5_000), 0), (Some(HALF + 5), 1));
}

/// The same where the values take turns: over all orders no row is looked at twice for one value.
#[test]
fn values_that_take_turns_are_each_looked_through_once() {
    let mut shop = Shop::new();
    shop.import(900, |row| (100 + row as i64 % 3, 0));
    for face in [102, 100, 101] {
        let mut looked = 0;
        for _ in 0..300 {
            looked += shop.next(Some(face), 0).1;
            assert_eq!(shop.sell(face, 1, 0).1, Status::Ok);
        }
        assert!(looked <= 900, "{looked} rows for {face}");
        assert_eq!(shop.sell(face, 1, 0).1, Status::OutOfStock);
    }
    shop.restart();
}

/// Cards that have expired, or do not last long enough, were looked through by every order that was refused.
#[test]
fn what_does_not_last_is_not_looked_through_again() {
    const DAY_S: u32 = 24 * 3_600;
    let mut shop = Shop::new();
    let soon = BEGUN_MS + 10 * u64::from(DAY_S) * 1000;
    shop.import(1_000, |row| (100, soon + row % 2));
    assert_eq!(shop.next(None, 20 * DAY_S), (None, 0));
    assert_eq!(shop.next(Some(100), 20 * DAY_S), (None, 0));
    assert_eq!(shop.next(Some(100), DAY_S), (Some(0), 1));
    // One that lasts, behind all the others.
    shop.import(1_000, |row| (100, if row == 999 { 0 } else { soon }));
    shop.store.clock.advance(11 * u64::from(DAY_S) * 1000);
    assert_eq!(shop.sell(100, 2, 0).1, Status::OutOfStock, "they were counted before they expired");
    assert_eq!(shop.next(Some(100), 0), (Some(999), 1));
    assert_eq!(shop.sell(100, 1, 0).1, Status::Ok);
    shop.restart();
}
