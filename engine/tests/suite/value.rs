//! A card whose value moved thousands of times: every id that ever had an effect is known, and none that had not.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kami_engine::{
    Caller, CardDigest, CardKind, ChannelId, Command, Engine, EngineOptions, ImportRow, ImportSpec, OrderId,
    ProductSpec, Reply, ReplyBody, ReplyFlags, Request, RequestId, Session, Status, TenantId, TerminalId,
    ValueReport, Work, verify,
};
use kami_wal::{Drive, Medium, SimMedium, SimMode, WalOptions};

use crate::clock::HandClock;

struct Store {
    data: SimMedium,
    keys: SimMedium,
    engine: Engine,
    work: Work,
    card: CardDigest,
}

const CODE: &str = "GIFT-00000001";

fn open(data: &SimMedium, keys: &SimMedium) -> Engine {
    let medium = |medium: &SimMedium| Arc::new(medium.clone()) as Arc<dyn Medium>;
    Engine::open(EngineOptions {
        data: medium(data),
        keys: medium(keys),
        wal: WalOptions { segment_bytes: 4 << 20, drive: Drive::Manual, ..WalOptions::default() },
        clock: Box::<HandClock>::default(),
        accept_clock: false,
    })
    .unwrap()
}

impl Store {
    /// One stored-value card, sold, with 100,000.00 on it.
    fn new() -> Store {
        let (data, keys) = (SimMedium::new(1, SimMode::Direct), SimMedium::new(2, SimMode::Direct));
        let engine = open(&data, &keys);
        let session = Session::new(&engine, Caller::LOCAL);
        let mut spec = ProductSpec::single("gift", *b"CNY", 10_000_000);
        spec.kind = CardKind::StoredValue;
        let product = session.add_product(RequestId(1), spec).wait().unwrap().id;
        let row = ImportRow { code: CODE.as_bytes(), ..ImportRow::default() };
        let spec = ImportSpec::of(product, 1, 16);
        session.import(RequestId(2), spec, [row].into_iter(), |_| ()).unwrap();
        session.sell(RequestId(3), OrderId(1), product, 1).wait().unwrap();
        let card = engine.digest(TenantId(0), CODE.as_bytes()).unwrap();
        Store { data, keys, engine, work: Work::default(), card }
    }

    fn ask(&mut self, id: u128, command: Command) -> Reply {
        let caller = Caller::LOCAL;
        let (terminal, channel) = (TerminalId(0), ChannelId(0));
        let id = RequestId(id);
        self.work.requests.clear();
        self.work.requests.push(Request {
            id,
            caller,
            terminal,
            channel,
            deadline: None,
            command,
            grounds: None,
        });
        self.engine.execute(&mut self.work);
        self.work.replies.pop().unwrap()
    }

    fn redeem(&mut self, id: u128, amount: i64) -> Reply {
        let card = self.card;
        self.ask(id, Command::Redeem { card, pin: None, amount, partial: false })
    }

    fn reverse(&mut self, id: u128, original: u128) -> Reply {
        let card = self.card;
        self.ask(id, Command::Reverse { card, original: RequestId(original) })
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
    let mut store = Store::new();
    let mut known: HashMap<u128, (i64, i64)> = HashMap::new();
    let mut left = 10_000_000;
    let mut reversed = Vec::new();
    for n in 0..2_500_u128 {
        let amount = 1 + (n as i64 % 7);
        let reply = store.redeem(10_000 + n, amount);
        assert_eq!((reply.status, reply.flags), (Status::Ok, ReplyFlags::default()), "{n}");
        left -= amount;
        assert_eq!(value(&reply).remaining, left);
        known.insert(10_000 + n, (amount, left));
        let card = store.card;
        match n % 100 {
            // What has no purse lies between what has one.
            10 => assert_eq!(store.ask(20_000_000 + n, Command::Freeze { card }).status, Status::Ok),
            20 if n < 6_000 && n % 500 == 20 => {
                assert_eq!(store.reverse(30_000_000 + n, 40_000_000 + n).status, Status::Tombstoned);
            }
            30 => {
                let reply = store.reverse(50_000_000 + n, 10_000 + n);
                assert_eq!(reply.status, Status::Ok, "{n}");
                left += amount;
                reversed.push((n, left));
            }
            _ => {}
        }
        if n % 100 == 10 {
            assert_eq!(store.ask(60_000_000 + n, Command::Unfreeze { card }).status, Status::Ok);
        }
        if n % 16 == 0 {
            store.engine.drive().unwrap();
        }
    }
    for restarted in [false, true] {
        if restarted {
            store.engine.drive().unwrap();
            let hash = store.engine.state_hash();
            drop(std::mem::replace(
                &mut store.engine,
                open(&SimMedium::new(8, SimMode::Direct), &store.keys),
            ));
            store.data = store.data.kill();
            let medium = |medium: &SimMedium| Arc::new(medium.clone()) as Arc<dyn Medium>;
            let found = verify(medium(&store.data), medium(&store.keys)).unwrap();
            assert!(found.problems.is_empty(), "{:?}", found.problems);
            assert_eq!(found.state_hash, hash);
            store.engine = open(&store.data, &store.keys);
        }
        for n in (0..2_500).step_by(17).chain([0, 31, 32, 33, 1022, 1023, 1024, 1025, 2047, 2048, 2499]) {
            let (amount, remaining) = known[&(10_000 + n)];
            let reply = store.redeem(10_000 + n, amount);
            let was_reversed = n % 100 == 30;
            let flags = if was_reversed {
                ReplyFlags::REPLAYED.with(ReplyFlags::REVERSED)
            } else {
                ReplyFlags::REPLAYED
            };
            assert_eq!((reply.status, reply.flags), (Status::Ok, flags), "{n}");
            assert_eq!((value(&reply).amount, value(&reply).remaining), (amount, remaining), "{n}");
            assert_eq!(store.redeem(10_000 + n, amount + 1).status, Status::IdReused, "{n}");
        }
        for (n, remaining) in &reversed {
            let again = store.reverse(50_000_000 + n, 10_000 + n);
            assert_eq!((again.status, again.flags), (Status::Ok, ReplyFlags::REPLAYED));
            assert_eq!(value(&again).remaining, *remaining);
            let twice = store.reverse(70_000_000 + n, 10_000 + n);
            assert_eq!(twice.status, Status::AlreadyReversed);
        }
        for n in (0..2_500).filter(|n| n % 500 == 20) {
            assert_eq!(store.redeem(40_000_000 + n, 1).status, Status::ReversedBeforeArrival, "{n}");
            assert_eq!(store.redeem(30_000_000 + n, 1).status, Status::IdReused, "{n}");
        }
        for n in (0..2_500).filter(|n| n % 100 == 10) {
            assert_eq!(store.redeem(60_000_000 + n, 1).status, Status::IdReused, "{n}");
        }
    }
    let session = Session::new(&store.engine, Caller::LOCAL);
    assert_eq!(session.query(CODE).wait().unwrap().remaining, left);
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
    let mut store = Store::new();
    let mut took = Vec::new();
    let mut spent = Duration::ZERO;
    for n in 0..count {
        let begun = Instant::now();
        assert_eq!(store.redeem(10_000 + n, 1).status, Status::Ok);
        spent += begun.elapsed();
        if n % 100 == 99 {
            took.push(std::mem::take(&mut spent) / 100);
            store.engine.drive().unwrap();
        }
    }
    let retries = Instant::now();
    for n in (0..count).step_by(100) {
        assert_eq!(store.redeem(10_000 + n, 1).flags, ReplyFlags::REPLAYED);
    }
    let retry = retries.elapsed() / (count / 100) as u32;
    println!("redemptions, each hundred's mean: {took:?}\nretries of old ones: {retry:?}");
}
