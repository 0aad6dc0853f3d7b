//! Whole histories: what many clients asked at the same time and what they were told, through power cuts, judged
//! afterwards.
//!
//! The model of `tests/tests/model` knows what each reply must be because it asks one thing after the other. Here threads
//! race on a few cards while the committer's own thread writes, and the power goes at some operation of the disk.
//! Each client notes when it asked and when it was told; what met the cut was never answered, and is asked again under
//! the same id by somebody after the restart. Then `search` decides card by card whether there is an
//! order of things that explains it all, and sums decide about the money.
//!
//! Beside the clients somebody makes snapshots, imports more cards and follows the log.
//!
//! A seed chooses the workload and the cut, not how the threads run: a failure prints the part of the history that
//! cannot be explained, because it may not come again. `KAMI_SEEDS=N` for more; a seed has some 5,000 operations.
//! Under shuttle (`schedules.rs`) a seed chooses that too, and histories are shorter.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
#[cfg(not(shuttle))]
use std::thread;

use kami_engine::{
    AccountId, AccountKind, AccountSpec, Caller, CardKind, Command, Delivery, Engine, EngineOptions, Failure,
    FeedSpec, ImportRow, ImportSpec, KindSet, Leg, Lifecycle, Lsn, OrderId, ProductId, ProductSpec, Purchase,
    RequestId, Session, Status,
};
use kami_wal::{Medium, SimMedium, SimMode, WalOptions};
#[cfg(shuttle)]
use shuttle::thread;

use crate::model::clock::ManualClock;
use kami_tests::binaries::whole;
use kami_tests::history::{Answer, Ask, Histories, Operation, Race, Seen};
use kami_tests::random::{Random, for_seeds};

/// How long a history is.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Who ask at the same time, beside one who makes snapshots, imports cards and follows the log.
    pub clients: u64,
    /// Cards of each of the two products that the clients race for.
    pub cards: u64,
    /// Lives of a store, all but the last ended by a power cut.
    pub lives: u64,
    /// The most operations of one client in a life.
    pub operations: u64,
    /// Cards to sell.
    pub stock: u64,
    /// The power is cut after so many operations of the disk, and up to some more.
    pub cut: (u64, u64),
    /// What the keeper does in a life at most.
    pub keeps: u64,
    /// The log's.
    pub segment_bytes: u64,
}

const ORDINARY: Scale = Scale {
    clients: 6,
    cards: 20,
    lives: 4,
    operations: 400,
    stock: 6_000,
    cut: (20, 600),
    keeps: 8,
    segment_bytes: 256 << 10,
};

/// What one card of the orders costs.
const PRICE: i64 = 7;
/// Cards of a batch that is imported meanwhile.
const LATE: u64 = 5;

/// An order as its client knows it: under which request, and its codes once they were told.
#[derive(Clone, Debug)]
struct Sale {
    order: u64,
    codes: Option<Vec<String>>,
}

/// What the clients of all lives share.
struct World {
    scale: Scale,
    medium: SimMedium,
    keys: SimMedium,
    clock: ManualClock,
    race: Race,
    next_order: AtomicU64,
}

impl World {
    fn open(&self) -> Result<Engine, kami_engine::OpenError> {
        Engine::open(EngineOptions {
            data: Arc::new(self.medium.clone()),
            keys: Arc::new(self.keys.clone()),
            wal: WalOptions { segment_bytes: self.scale.segment_bytes, ..WalOptions::default() },
            clock: Box::new(self.clock.clone()),
            accept_clock: false,
        })
    }

    /// One client's operations until the power is cut, or until it has had enough.
    fn client(&self, engine: &Engine, mut random: Random, stop: &AtomicBool) -> (Vec<Seen>, Vec<Sale>) {
        let session = Session::new(engine, Caller::LOCAL);
        let (mut seen, mut sales) = (Vec::new(), Vec::new());
        for _ in 0..self.scale.operations {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            if random.percent(10) {
                let order = self.next_order.fetch_add(1, Ordering::Relaxed);
                match sell(&session, order) {
                    Ok(codes) => sales.push(Sale { order, codes }),
                    Err(()) => {
                        sales.push(Sale { order, codes: None });
                        break;
                    }
                }
                continue;
            }
            let card = self.race.card(&mut random);
            let ask = self.race.ask(card, &mut random);
            let digest =
                engine.digest(Caller::LOCAL.tenant, self.race.code(card).as_bytes()).expect("a code");
            let command = match ask {
                Ask::Redeem { amount, .. } => {
                    Command::Redeem { card: digest, pin: None, amount, partial: false }
                }
                Ask::Load { amount, .. } => Command::Load { card: digest, amount },
                Ask::Reverse { original, .. } => {
                    Command::Reverse { card: digest, original: RequestId(original.into()) }
                }
                Ask::Freeze { .. } => Command::Freeze { card: digest },
                Ask::Unfreeze { .. } => Command::Unfreeze { card: digest },
                Ask::Query => Command::Query { card: digest },
            };
            let asked = self.race.now();
            let reply = session.run(Seen::request(ask), command).wait();
            let ended = self.race.now();
            match reply {
                Ok(reply) => {
                    if let Some(answer) = Answer::of(ask, &reply, self.race.has_value(card)) {
                        let operation = Operation { asked, ended, ask, answer: Some(answer) };
                        seen.push(Seen { card, operation, lsn: reply.lsn });
                    }
                }
                Err(Failure::Poisoned(_)) => {
                    // It ends with the crash; until then it may have had its effect.
                    let operation = Operation { asked, ended: 0, ask, answer: None };
                    seen.push(Seen { card, operation, lsn: None });
                    break;
                }
                Err(other) => panic!("{ask:?}: {other}"),
            }
        }
        (seen, sales)
    }

    /// Makes snapshots, imports cards and follows the log beside the clients, until they have had enough or the power is
    /// cut. Notes its imports, and whether each was told to be done.
    fn keep(&self, engine: &Engine, mut random: Random, stop: &AtomicBool, late: &mut BTreeMap<u64, bool>) {
        let session = Session::new(engine, Caller::LOCAL);
        let spec = FeedSpec { after: Some(Lsn::START), epoch: 0, kinds: KindSet::ALL, products: Vec::new() };
        let mut feed = engine.feed(Caller::LOCAL, &spec).ok();
        let (mut events, mut last) = (Vec::new(), Lsn::START);
        for _ in 0..self.scale.keeps {
            let well = match random.below(3) {
                0 => engine.checkpoint().is_ok(),
                1 => {
                    let number = late.len() as u64;
                    let done = import_late(&session, number);
                    late.insert(number, done);
                    let seen = session.query(&format!("LATE-{number}-0")).wait();
                    !done || seen.is_ok_and(|card| card.lifecycle == Lifecycle::Available)
                }
                _ => feed.as_mut().is_none_or(|feed| feed.read(engine, 1000, &mut events).is_ok()),
            };
            for event in events.drain(..) {
                assert!(last < event.lsn, "the log was told out of order");
                last = event.lsn;
            }
            assert!(last < engine.durable_end(), "what is not durable was told");
            assert!(well || self.medium.is_cut(), "something failed and the power is on");
            if !well || stop.load(Ordering::Relaxed) {
                break;
            }
        }
    }
}

/// Imports a batch of a number, or asks again what became of it; whether it is there.
fn import_late(session: &Session, number: u64) -> bool {
    let codes: Vec<String> = (0..LATE).map(|row| format!("LATE-{number}-{row}")).collect();
    let rows = codes.iter().map(|code| ImportRow { code: code.as_bytes(), ..ImportRow::default() });
    let spec = ImportSpec::of(ProductId(4), LATE, 20);
    session.import(RequestId(4 << 100 | u128::from(number)), spec, rows, |_| ()).is_ok()
}

/// One card for money. The codes, or `None` if the engine was too busy; an error if the outcome is unknown.
fn sell(session: &Session, order: u64) -> Result<Option<Vec<String>>, ()> {
    let purchase = Purchase {
        legs: vec![
            Leg { account: AccountId(1), amount: -PRICE },
            Leg { account: AccountId(2), amount: PRICE },
        ],
        account: Some(AccountId(1)),
        ..Purchase::of(OrderId(order.into()), ProductId(3), 1)
    };
    match session.sell_lines(RequestId(u128::from(order) << 64), purchase).wait() {
        Ok(Delivery::Sealed(report)) => panic!("order {order} came sealed: {report:?}"),
        Ok(Delivery::Codes(sold)) => Ok(Some(sold.codes.iter().map(|code| String::clone(code)).collect())),
        // The power was cut; perhaps after the sale was durable, and before its codes could be read.
        Err(Failure::Poisoned(_) | Failure::Reveal(_)) => Err(()),
        // Nothing was changed: there was no room, or the log is dead already.
        Err(Failure::Refused(Status::Busy | Status::DiskFull | Status::ReadOnly)) => Ok(None),
        Err(other) => panic!("order {order}: {other}"),
    }
}

/// A store with the cards that are raced for, all sold, and with others to sell.
fn stock(engine: &Engine, race: &Race, scale: Scale) {
    let admin = Session::new(engine, Caller::LOCAL);
    let import = |id: u128, product, codes: Vec<String>| {
        let rows = codes.iter().map(|code| ImportRow { code: code.as_bytes(), ..ImportRow::default() });
        let spec = ImportSpec::of(product, codes.len() as u64, 20);
        admin.import(RequestId(id), spec, rows, |_| ()).expect("imported");
    };
    for (number, name) in ["single", "value", "orders", "late"].into_iter().enumerate() {
        let mut spec = ProductSpec::single(name, *b"CNY", Race::VALUE);
        if name == "value" {
            spec.kind = CardKind::StoredValue;
            spec.terms.value_max = 1 << 40;
        }
        let number = number as u64;
        let id = RequestId(1 << 100 | u128::from(number));
        let product = admin.add_product(id, spec).wait().expect("a product").id;
        assert_eq!(u64::from(product.0), number + 1);
        let codes = match name {
            "late" => continue,
            "orders" => (0..scale.stock).map(|n| format!("ORDER-{n:06}")).collect(),
            _ => (number * scale.cards..(number + 1) * scale.cards).map(|n| race.code(n as usize)).collect(),
        };
        import(2 << 100 | u128::from(number), product, codes);
        if name != "orders" {
            let order = OrderId(1 << 100 | u128::from(number));
            admin.sell(RequestId(3 << 100), order, product, scale.cards as u32).wait().expect("sold");
        }
    }
    for (id, name, kind, credit_limit) in
        [(5, "buyer", AccountKind::Customer, 1 << 40), (6, "income", AccountKind::Income, 0)]
    {
        let spec = AccountSpec {
            name: name.to_owned(),
            currency: *b"CNY",
            kind,
            credit_limit,
            owner: kami_engine::PrincipalId(0),
        };
        admin.add_account(RequestId(id << 100), spec).wait().expect("an account");
    }
}

/// A few lives of a store, and the judgement. Returns how many operations were judged.
pub fn history(seed: u64, scale: Scale) -> u64 {
    let mut random = Random::new(seed);
    let mode = if seed.is_multiple_of(2) { SimMode::Direct } else { SimMode::Mapped };
    let mut world = World {
        scale,
        medium: SimMedium::new(seed, mode),
        keys: SimMedium::new(!seed, mode),
        clock: ManualClock::new(1_700_000_000_000),
        race: Race::new(2 * scale.cards as usize),
        next_order: AtomicU64::new(1),
    };
    let mut histories = Histories::new(world.race.cards());
    let mut orders: BTreeMap<u64, Option<Vec<String>>> = BTreeMap::new();
    let mut late = BTreeMap::new();
    // The same key every time, so that all that follows from a seed is the same.
    let key = world.keys.create("lookup.key").expect("a new disk");
    key.write_at(0, &[7; 32]).and_then(|()| key.sync()).expect("a new disk");
    world.keys.sync_dir("").expect("a new disk");
    let mut engine = world.open().expect("a new store opens");
    stock(&engine, &world.race, scale);
    for life in 0..scale.lives {
        if life + 1 < scale.lives {
            let (least, more) = scale.cut;
            world.medium.cut_power_at(world.medium.operations() + least + random.below(more));
        }
        let stop = AtomicBool::new(false);
        let told: Vec<_> = thread::scope(|scope| {
            let (world, engine, stop) = (&world, &engine, &stop);
            let keeping = (Random::new(seed << 16 | life << 8 | 0xFF), &mut late);
            let keeper = scope.spawn(move || world.keep(engine, keeping.0, stop, keeping.1));
            let clients: Vec<_> = (0..scale.clients)
                .map(|client| {
                    let random = Random::new(seed << 16 | life << 8 | client);
                    scope.spawn(move || world.client(engine, random, stop))
                })
                .collect();
            let clients = clients.into_iter().map(|client| client.join());
            let told = clients.map(|told| told.unwrap_or_else(|panic| resume_unwind(panic))).collect();
            stop.store(true, Ordering::Relaxed);
            keeper.join().unwrap_or_else(|panic| resume_unwind(panic));
            told
        });
        // Nothing more happens to what was open.
        let end = world.race.now();
        for (seen, sales) in told {
            seen.into_iter().for_each(|seen| histories.add(seen, end));
            for Sale { order, codes } in sales {
                assert!(orders.insert(order, codes).is_none(), "an order of two clients");
            }
        }
        if life + 1 < scale.lives {
            drop(engine);
            let (is_cut, seed) = (world.medium.is_cut(), random.next());
            for disk in [&mut world.medium, &mut world.keys] {
                *disk = if is_cut { disk.crash(seed) } else { disk.kill() };
            }
            engine = world.open().expect("the store opens");
            // Whoever bought and heard nothing asks again: it is told the first outcome, or buys now.
            let session = Session::new(&engine, Caller::LOCAL);
            for (order, codes) in &mut orders {
                if codes.is_none() || random.percent(10) {
                    let again = sell(&session, *order).expect("the power is on");
                    assert!(
                        codes.is_none() || again.is_none() || *codes == again,
                        "order {order} has other codes"
                    );
                    *codes = again.or(codes.take());
                }
            }
            for (number, done) in &mut late {
                if !*done || random.percent(50) {
                    assert!(import_late(&session, *number), "the power is on");
                    *done = true;
                }
            }
            drop(session);
            engine.close().expect("the power is on");
            world.medium = world.medium.kill();
            engine = world.open().expect("the store opens");
        }
    }
    let judged = judge(&engine, &world.race, &histories);
    judge_orders(&engine, &orders, scale.stock);
    let stock = Session::new(&engine, Caller::LOCAL).stock(Some(ProductId(4))).wait().expect("stock");
    let imported = stock.iter().flat_map(|line| line.counts).sum::<u64>();
    assert_eq!(imported, LATE * late.values().filter(|done| **done).count() as u64, "{late:?}");
    engine.check().expect("counters are the sums of states");
    judged + orders.len() as u64
}

/// Card by card.
fn judge(engine: &Engine, race: &Race, histories: &Histories) -> u64 {
    let session = Session::new(engine, Caller::LOCAL);
    histories.judge(race, |card| {
        let digest = engine.digest(Caller::LOCAL.tenant, race.code(card).as_bytes()).expect("a code");
        let last = session.run(RequestId(0), Command::Query { card: digest }).wait().expect("durable");
        Answer::of(Ask::Query, &last, race.has_value(card)).expect("it did something")
    })
}

/// No card in two orders, and money for each.
fn judge_orders(engine: &Engine, orders: &BTreeMap<u64, Option<Vec<String>>>, cards: u64) {
    let session = Session::new(engine, Caller::LOCAL);
    let mut given = BTreeSet::new();
    let (mut sold, mut unknown) = (0, 0);
    for codes in orders.values() {
        match codes {
            Some(codes) => {
                assert!(codes.iter().all(|code| given.insert(code)), "a code of two orders: {codes:?}");
                sold += 1;
            }
            None => unknown += 1,
        }
    }
    let stock = session.stock(Some(ProductId(3))).wait().expect("stock");
    let there = stock[0].counts[Lifecycle::Sold as usize];
    assert!(
        sold <= there && there <= sold + unknown,
        "{sold} orders were told of, {unknown} not, {there} are there"
    );
    assert_eq!(stock[0].counts.iter().sum::<u64>(), cards, "cards came or went");
    for (account, sign) in [(1, -1), (2, 1)] {
        let balance = session.account(AccountId(account)).wait().expect("an account").balance;
        assert_eq!(balance, sign * PRICE * there as i64, "account {account} after {there} orders");
    }
}

#[test]
fn every_history_can_be_explained() {
    let judged = AtomicU64::new(0);
    for_seeds(&whole("history::every_history_can_be_explained"), 4, |seed, _| {
        judged.fetch_add(history(seed, ORDINARY), Ordering::Relaxed);
    });
    println!("operations: {}", judged.into_inner());
}
