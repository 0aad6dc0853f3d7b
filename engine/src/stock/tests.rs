//! What looking for cards to sell reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kami_wal::{Drive, Medium, SimMedium, SimMode, WalOptions};

use super::*;
use crate::clock::Clock;
use crate::order::{GivenBack, Purchase};
use crate::record::Clocks;
use crate::{
    Caller, Command, Engine, EngineOptions, ImportRow, ImportSpec, OrderId, ProductId, ProductSpec, Request,
    RequestId, Session, Status, Work,
};

#[derive(Clone, Default)]
struct Hand(Arc<AtomicU64>);

const BEGAN_MS: u64 = 1_800_000_000_000;

impl Clock for Hand {
    fn read(&self) -> Clocks {
        Clocks { wall_ms: BEGAN_MS + self.boot_ms(), boot_ms: self.boot_ms(), boot_id: 1 }
    }

    fn boot_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

struct Shop {
    data: SimMedium,
    keys: SimMedium,
    clock: Hand,
    engine: Engine,
    next: u128,
}

fn open(data: &SimMedium, keys: &SimMedium, clock: &Hand) -> Engine {
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

impl Shop {
    fn new() -> Shop {
        let (data, keys) = (SimMedium::new(1, SimMode::Direct), SimMedium::new(2, SimMode::Direct));
        let clock = Hand::default();
        clock.0.store(5_000, Ordering::Relaxed);
        let engine = open(&data, &keys, &clock);
        let session = Session::new(&engine, Caller::LOCAL);
        session.add_product(RequestId(1), ProductSpec::single("mixed", *b"CNY", 100)).wait().unwrap();
        Shop { data, keys, clock, engine, next: 100 }
    }

    /// Imports a batch of so many rows, with a face value and an end of validity each.
    fn import(&mut self, rows: u64, of_row: impl Fn(u64) -> (Money, u64)) {
        self.next += 1;
        let codes: Vec<String> = (0..rows).map(|row| format!("CARD-{}-{row}", self.next)).collect();
        let expires = (0..rows).any(|row| of_row(row).1 != 0);
        let spec = ImportSpec { faces: true, expiries: expires, ..ImportSpec::of(ProductId(1), rows, 24) };
        let rows = codes.iter().enumerate().map(|(row, code)| {
            let (face, expires_ms) = of_row(row as u64);
            ImportRow { code: code.as_bytes(), pin: None, face: Some(face), expires_ms, origin: None }
        });
        let session = Session::new(&self.engine, Caller::LOCAL);
        session.import(RequestId(self.next), spec, rows, |_| ()).unwrap();
    }

    fn ask(&mut self, command: Command) -> Status {
        self.next += 1;
        let mut work = Work::default();
        work.requests.push(Request {
            id: RequestId(self.next),
            caller: Caller::LOCAL,
            terminal: crate::TerminalId(0),
            channel: crate::ChannelId(0),
            deadline: None,
            grounds: None,
            command,
        });
        self.engine.execute(&mut work);
        self.engine.drive().unwrap();
        work.replies.pop().unwrap().status
    }

    fn sell(&mut self, face: Money, count: u32, validity_s_min: u32) -> (OrderId, Status) {
        let order = OrderId(self.next);
        let mut purchase =
            Purchase { sealed: true, validity_s_min, ..Purchase::of(order, ProductId(1), count) };
        purchase.lines[0].face = Some(face);
        (order, self.ask(Command::SellLines(Box::new(purchase))))
    }

    /// The row that would be sold next, and how many rows are looked at to find it.
    fn next(&self, face: Option<Money>, validity_s_min: u32) -> (Option<u64>, u64) {
        let sequencer = self.engine.sequencer();
        let mut found = Search::default();
        let line = Line { product: ProductId(1), count: 1, face };
        sequencer.state().allocate(&sequencer.table, TenantId(0), &line, validity_s_min, &mut found);
        let row = found.cards.cards().next().map(|(card, _)| card.row());
        (row, found.looked)
    }

    fn restart(&mut self) {
        self.engine.check().unwrap();
        self.data = self.data.kill();
        self.engine = open(&self.data, &self.keys, &self.clock);
        self.engine.check().unwrap();
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
    let any = Purchase { sealed: true, ..Purchase::of(OrderId(7), ProductId(1), 4) };
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
    let soon = BEGAN_MS + 10 * u64::from(DAY_S) * 1000;
    shop.import(1_000, |row| (100, soon + row % 2));
    assert_eq!(shop.next(None, 20 * DAY_S), (None, 0));
    assert_eq!(shop.next(Some(100), 20 * DAY_S), (None, 0));
    assert_eq!(shop.next(Some(100), DAY_S), (Some(0), 1));
    // One that lasts, behind all the others.
    shop.import(1_000, |row| (100, if row == 999 { 0 } else { soon }));
    shop.clock.0.fetch_add(11 * u64::from(DAY_S) * 1000, Ordering::Relaxed);
    assert_eq!(shop.sell(100, 2, 0).1, Status::OutOfStock, "they were counted before they expired");
    assert_eq!(shop.next(Some(100), 0), (Some(999), 1));
    assert_eq!(shop.sell(100, 1, 0).1, Status::Ok);
    shop.restart();
}
