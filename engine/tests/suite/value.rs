//! A card whose value moved thousands of times: every id that ever had an effect is known, and none that had not.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use kami_engine::{
    CardDigest, CardKind, Command, ProductSpec, Reply, ReplyBody, ReplyFlags, Request, RequestId, Status,
    ValueReport,
};

use crate::store::{End, Store};

const CODE: &str = "gift-0";

/// A store with one stored-value card.
struct Purse {
    store: Store,
    card: CardDigest,
}

impl Purse {
    /// The card is sold, with 100,000.00 on it.
    fn new() -> Purse {
        let store = Store::new();
        let mut spec = ProductSpec::single("gift", *b"CNY", 10_000_000);
        spec.kind = CardKind::StoredValue;
        let product = store.stock(spec, 1);
        store.sell(product, 1);
        let card = store.digest(CODE);
        Purse { store, card }
    }

    /// Asks without waiting for the log: many go before it is driven.
    fn ask(&self, id: u128, command: Command) -> Reply {
        let request = Request { id: RequestId(id), ..self.store.request(command) };
        self.store.execute(vec![request]).pop().unwrap()
    }

    fn redeem(&self, id: u128, amount: i64) -> Reply {
        self.ask(id, Command::Redeem { card: self.card, pin: None, amount, partial: false })
    }

    fn reverse(&self, id: u128, original: u128) -> Reply {
        self.ask(id, Command::Reverse { card: self.card, original: RequestId(original) })
    }
}

fn value(reply: &Reply) -> ValueReport {
    match reply.body {
        ReplyBody::Value(value) => value,
        _ => panic!("{reply:?}"),
    }
}

/// More than two volumes, so that every way back is taken: entry by entry, by chapters, by volumes.
#[test]
fn every_id_is_known_however_long_ago() {
    let mut purse = Purse::new();
    let mut known: HashMap<u128, (i64, i64)> = HashMap::new();
    let mut left = 10_000_000;
    let mut reversed = Vec::new();
    for n in 0..2_500_u128 {
        let amount = 1 + (n as i64 % 7);
        let reply = purse.redeem(10_000 + n, amount);
        assert_eq!((reply.status, reply.flags), (Status::Ok, ReplyFlags::default()), "{n}");
        left -= amount;
        assert_eq!(value(&reply).remaining, left);
        known.insert(10_000 + n, (amount, left));
        let card = purse.card;
        match n % 100 {
            // What has no purse lies between what has one.
            10 => assert_eq!(purse.ask(20_000_000 + n, Command::Freeze { card }).status, Status::Ok),
            20 if n < 6_000 && n % 500 == 20 => {
                assert_eq!(purse.reverse(30_000_000 + n, 40_000_000 + n).status, Status::Tombstoned);
            }
            30 => {
                let reply = purse.reverse(50_000_000 + n, 10_000 + n);
                assert_eq!(reply.status, Status::Ok, "{n}");
                left += amount;
                reversed.push((n, left));
            }
            _ => {}
        }
        if n % 100 == 10 {
            assert_eq!(purse.ask(60_000_000 + n, Command::Unfreeze { card }).status, Status::Ok);
        }
        if n % 16 == 0 {
            purse.store.drive();
        }
    }
    for restarted in [false, true] {
        if restarted {
            purse.store.restart(End::Kill);
        }
        for n in (0..2_500).step_by(17).chain([0, 31, 32, 33, 1022, 1023, 1024, 1025, 2047, 2048, 2499]) {
            let (amount, remaining) = known[&(10_000 + n)];
            let reply = purse.redeem(10_000 + n, amount);
            let was_reversed = n % 100 == 30;
            let flags = if was_reversed {
                ReplyFlags::REPLAYED.with(ReplyFlags::REVERSED)
            } else {
                ReplyFlags::REPLAYED
            };
            assert_eq!((reply.status, reply.flags), (Status::Ok, flags), "{n}");
            assert_eq!((value(&reply).amount, value(&reply).remaining), (amount, remaining), "{n}");
            assert_eq!(purse.redeem(10_000 + n, amount + 1).status, Status::IdReused, "{n}");
        }
        for (n, remaining) in &reversed {
            let again = purse.reverse(50_000_000 + n, 10_000 + n);
            assert_eq!((again.status, again.flags), (Status::Ok, ReplyFlags::REPLAYED));
            assert_eq!(value(&again).remaining, *remaining);
            let twice = purse.reverse(70_000_000 + n, 10_000 + n);
            assert_eq!(twice.status, Status::AlreadyReversed);
        }
        for n in (0..2_500).filter(|n| n % 500 == 20) {
            assert_eq!(purse.redeem(40_000_000 + n, 1).status, Status::ReversedBeforeArrival, "{n}");
            assert_eq!(purse.redeem(30_000_000 + n, 1).status, Status::IdReused, "{n}");
        }
        for n in (0..2_500).filter(|n| n % 100 == 10) {
            assert_eq!(purse.redeem(60_000_000 + n, 1).status, Status::IdReused, "{n}");
        }
    }
    assert_eq!(purse.store.card(CODE).remaining, left);
}

/// A figure, not a check: `KAMI_LONG=1 cargo test --release -p kami-engine --test suite value -- --nocapture` shows what the
/// ten-thousandth redemption of a card costs. That it is no walk over its past is checked where chains are read, without
/// a clock (`chain.rs`).
#[test]
fn shows_what_the_last_of_many_costs() {
    if std::env::var_os("KAMI_LONG").is_none() {
        return;
    }
    let count: u128 = 10_100;
    let purse = Purse::new();
    let mut took = Vec::new();
    let mut spent = Duration::ZERO;
    for n in 0..count {
        let begun = Instant::now();
        assert_eq!(purse.redeem(10_000 + n, 1).status, Status::Ok);
        spent += begun.elapsed();
        if n % 100 == 99 {
            took.push(std::mem::take(&mut spent) / 100);
            purse.store.drive();
        }
    }
    let retries = Instant::now();
    for n in (0..count).step_by(100) {
        assert_eq!(purse.redeem(10_000 + n, 1).flags, ReplyFlags::REPLAYED);
    }
    let retry = retries.elapsed() / (count / 100) as u32;
    println!("redemptions, each hundred's mean: {took:?}\nretries of old ones: {retry:?}");
}
