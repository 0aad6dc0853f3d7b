//! Threads that race for the same cards and orders, on a real disk with the real committer.

use std::collections::BTreeMap;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};

use kami_engine::{
    AccountKind, AccountSpec, Caller, CardKind, ChannelId, Command, DiskOptions, Engine, EngineOptions,
    Failure, ImportRow, ImportSpec, Kind, Lifecycle, LimitAction, LimitScope, LimitSpec, LimitWindow,
    MerchantId, OrderId, Part, PrincipalId, ProductId, ProductSpec, Purchase, ReplyBody, Request, RequestId,
    Role, Session, Status, TenantId, TerminalId, Work,
};
use tempfile::TempDir;

use kami_tests::random::Random;

const CARDS: u64 = 400;
const THREADS: u64 = 6;
const ORDERS: u64 = 60;

/// A place for a store on a real disk, gone with the test.
fn directory() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory")
}

fn open(directory: &TempDir) -> Engine {
    let disk = DiskOptions { unsafe_filesystem: true, ..DiskOptions::default() };
    let [data, keys] = ["data", "keys"].map(|name| directory.path().join(name));
    let mut options = EngineOptions::on_disk(&data, &keys, disk).expect("a place for a store");
    options.wal.segment_bytes = 1 << 20;
    Engine::open(options).expect("the store opens")
}

/// Adds a product with so many cards; their codes.
fn stock(admin: &Session, spec: ProductSpec, count: u64) -> (ProductId, Vec<String>) {
    let product = admin.add_product(RequestId(1), spec).wait().expect("a product").id;
    let codes: Vec<String> = (0..count).map(|n| format!("RACE-{n:06}")).collect();
    let rows = codes.iter().map(|code| ImportRow { code: code.as_bytes(), ..ImportRow::default() });
    admin.import(RequestId(2), ImportSpec::of(product, count, 20), rows, |_| ()).expect("imported");
    (product, codes)
}

fn seller(thread: u64) -> Caller {
    Caller {
        tenant: TenantId(0),
        // All threads but one are the same buyer, whose retries overtake each other.
        principal: PrincipalId(if thread == 0 { 2 } else { 3 }),
        role: Role::Seller,
        merchant: MerchantId(0),
    }
}

/// Each card is redeemed at most once and each order sold once, whoever comes first; and a second start
/// finds it so.
#[test]
fn races_sell_each_order_and_redeem_each_card_once() {
    let directory = directory();
    let engine = open(&directory);
    let admin = Session::new(&engine, Caller::LOCAL);
    let (product, codes) = stock(&admin, ProductSpec::single("coffee", *b"CNY", 100), CARDS);

    let (barrier, redeemed) = (Barrier::new(THREADS as usize), AtomicU64::new(0));
    let results: Vec<_> = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (engine, barrier, redeemed, codes) = (&engine, &barrier, &redeemed, &codes);
                scope.spawn(move || {
                    let mut random = Random::new(thread);
                    let session = Session::new(engine, seller(thread));
                    let mut bought: BTreeMap<u64, Vec<String>> = BTreeMap::new();
                    barrier.wait();
                    for _ in 0..ORDERS {
                        let order = random.below(ORDERS);
                        // The same id for the same order: whoever is later gets the first one's reply.
                        let id = RequestId(u128::from(1000 + order));
                        match session.sell(id, OrderId(u128::from(order)), product, 5).wait() {
                            Ok(sold) => {
                                let sold = sold.codes.iter().map(|code| String::clone(code)).collect();
                                let again = bought.insert(order, sold);
                                assert!(again.is_none_or(|first| first == bought[&order]));
                            }
                            Err(Failure::Refused(Status::IdReused)) => {}
                            Err(other) => panic!("order {order}: {other}"),
                        }
                        let card = random.below(ORDERS * 5) as usize;
                        let (shared, own) = (u128::from(card as u64) << 64, u128::from(random.next()));
                        let id = RequestId(if random.percent(50) { shared } else { own | 1 });
                        match session.redeem(id, &codes[card]).wait() {
                            Ok(receipt) if !receipt.replayed => {
                                redeemed.fetch_add(1, Ordering::Relaxed);
                            }
                            Ok(_) => assert_eq!(id.0, shared),
                            Err(Failure::Refused(
                                Status::CardNotValid | Status::AlreadyRedeemed | Status::IdReused,
                            )) => {}
                            Err(other) => panic!("card {card}: {other}"),
                        }
                    }
                    bought
                })
            })
            .collect();
        handles.into_iter().map(|handle| handle.join().expect("no thread panics")).collect()
    });

    let mut owner: BTreeMap<String, u64> = BTreeMap::new();
    let mut orders: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for (order, sold) in results.into_iter().flatten() {
        assert_eq!(*orders.entry(order).or_insert_with(|| sold.clone()), sold, "order {order}");
        for code in sold {
            assert_eq!(*owner.entry(code.clone()).or_insert(order), order, "{code} sold twice");
        }
    }
    let redeemed = redeemed.into_inner();
    let look = |engine: &Engine| {
        engine.check().expect("counters are the sums of states");
        let session = Session::new(engine, Caller::LOCAL);
        let lines = session.stock(Some(product)).wait().expect("stock");
        assert_eq!(lines[0].counts[Lifecycle::Redeemed as usize], redeemed);
        assert_eq!(lines[0].counts.iter().sum::<u64>(), CARDS);
        assert_eq!(lines[0].counts[Lifecycle::Available as usize], CARDS - owner.len() as u64);
        for code in &codes {
            let history = session.history(code).wait().expect("a history");
            let count = |kind| history.iter().filter(|event| event.kind == kind).count();
            assert!(count(Kind::Redeem) <= 1 && count(Kind::Sell) <= 1, "{code}: {history:?}");
            assert_eq!(count(Kind::Sell) == 1, owner.contains_key(code), "{code}");
        }
        engine.state_hash()
    };
    let hash = look(&engine);
    drop(admin);
    engine.close().expect("everything is durable");
    let engine = open(&directory);
    assert_eq!(look(&engine), hash, "the second start leads to the same state");
}

/// Cards are replaced, emptied into each other, redeemed and sold at the same time, and what was read of two cards is
/// old before the lock is there. No value is made or lost, no card is in two orders, and a second start finds it so.
#[test]
fn races_for_pairs_of_cards_make_and_lose_nothing() {
    const CARDS: u64 = 1_000;
    const THREADS: u64 = 5;
    const OWN: u32 = 20;
    let directory = directory();
    let engine = open(&directory);
    let admin = Session::new(&engine, Caller::LOCAL);
    let mut spec = ProductSpec { kind: CardKind::StoredValue, ..ProductSpec::single("gift", *b"CNY", 100) };
    spec.terms.value_max = 1_000;
    let (product, codes) = stock(&admin, spec, CARDS);
    for order in 0..THREADS {
        let (id, order) = (RequestId(u128::from(100 + order)), OrderId(u128::from(order)));
        admin.sell(id, order, product, OWN).wait().expect("sold");
    }
    let (barrier, taken, sold) = (Barrier::new(THREADS as usize), AtomicU64::new(0), AtomicU64::new(0));
    let replaced = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (admin, barrier, codes) = (&admin, &barrier, &codes);
            let (taken, sold, replaced) = (&taken, &sold, &replaced);
            scope.spawn(move || {
                let mut random = Random::new(thread);
                barrier.wait();
                for _ in 0..80 {
                    let id = RequestId(u128::from(random.next()) << 8 | u128::from(thread));
                    let most = THREADS * u64::from(OWN) + replaced.load(Ordering::Relaxed);
                    let mut some = || &codes[random.below(most.min(CARDS)) as usize];
                    let (first, second) = (some(), some());
                    let done = match random.below(10) {
                        0..4 => admin.replace(id, first, None).wait().map(|_| {
                            replaced.fetch_add(1, Ordering::Relaxed);
                        }),
                        4..7 => {
                            let amount = random.below(60) as i64;
                            admin.transfer(id, first, second, amount).wait().map(|_| ())
                        }
                        7 | 8 => {
                            let part = Part { amount: 1 + random.below(30) as i64, ..Part::default() };
                            admin.redeem_part(id, first, part).wait().map(|receipt| {
                                taken.fetch_add(receipt.value.amount as u64, Ordering::Relaxed);
                            })
                        }
                        _ => admin.sell(id, OrderId(id.0), product, 1).wait().map(|_| {
                            sold.fetch_add(1, Ordering::Relaxed);
                        }),
                    };
                    match done {
                        Ok(()) | Err(Failure::Refused(_)) => {}
                        Err(other) => panic!("{other}"),
                    }
                }
            });
        }
    });
    assert!(20 < replaced.into_inner(), "hardly anything was replaced");
    let bought = THREADS * u64::from(OWN) + sold.into_inner();
    let look = |engine: &Engine| {
        engine.check().expect("counters are the sums of states");
        let session = Session::new(engine, Caller::LOCAL);
        let cards = codes.iter().map(|code| session.query(code).wait().expect("a card"));
        let cards: Vec<_> = cards.filter(|card| card.lifecycle != Lifecycle::Available).collect();
        let left: i64 = cards.iter().map(|card| card.remaining).sum();
        assert_eq!(left as u64, 100 * bought - taken.load(Ordering::Relaxed), "value was made or lost");
        let mut owners = BTreeMap::new();
        for order in 0..THREADS {
            let fetch = session.order(RequestId(7), OrderId(u128::from(order))).wait().expect("codes");
            for code in &fetch.codes {
                assert_eq!(owners.insert(String::clone(code), order), None, "{} in two orders", **code);
            }
        }
        let lost = owners.keys().find(|code| {
            let card = session.query(code).wait().expect("a card");
            card.order != Some(OrderId(u128::from(owners[*code])))
        });
        assert_eq!(lost, None, "a card that its order does not know");
    };
    look(&engine);
    let hash = engine.state_hash();
    drop(admin);
    engine.close().expect("everything is durable");
    let engine = open(&directory);
    assert_eq!(engine.state_hash(), hash, "the second start leads to the same state");
    look(&engine);
}

/// A card whose import was committed between the look at the index and the lock was decided on unread: asked
/// about twice in one batch it moved twice from the same word, two entries had the same place in its chain,
/// and the store did not open again.
#[test]
fn cards_that_come_into_being_under_the_lock_move_one_step_at_a_time() {
    const IMPORTS: u64 = 150;
    let directory = directory();
    let engine = open(&directory);
    let admin = Session::new(&engine, Caller::LOCAL);
    let spec = ProductSpec::single("coffee", *b"CNY", 100);
    let product = admin.add_product(RequestId(1), spec).wait().expect("a product").id;
    let code = |n: u64| format!("NEW-{n:06}");
    let importing = AtomicU64::new(0);
    let (histories, odd) = std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let (mut id, mut histories, mut odd) = (1_u128, 0_u64, None);
            loop {
                let mut work = Work::default();
                let n = importing.load(Ordering::Relaxed);
                if n == IMPORTS {
                    return (histories, odd);
                }
                let card = engine.digest(TenantId(0), code(n).as_bytes()).expect("a code");
                let ask = |id, command| Request {
                    id: RequestId(id),
                    caller: Caller::LOCAL,
                    terminal: TerminalId(0),
                    channel: ChannelId(0),
                    deadline: None,
                    grounds: None,
                    command,
                };
                // The second reversal of one id, so that nothing is added once the first is there.
                for original in [7, 8] {
                    id += 1;
                    work.requests.push(ask(id, Command::Reverse { card, original: RequestId(original) }));
                }
                work.requests.push(ask(id, Command::History { card }));
                engine.execute(&mut work);
                // A reversal of what nobody has grows the log by a tick: like everyone, wait for room.
                while !engine.has_space() {
                    std::thread::yield_now();
                }
                engine.wait_durable(work.durable_at().expect("executed")).expect("the log lives");
                let history = work.replies.pop().expect("a reply");
                if history.status.is_done() {
                    odd = odd.or((!matches!(history.body, ReplyBody::History(_))).then_some(history));
                    histories += 1;
                }
            }
        });
        // Also when an import fails: the asking thread would go on for ever.
        let end = Until(&importing, IMPORTS);
        for n in 0..IMPORTS {
            importing.store(n, Ordering::Relaxed);
            let code = code(n);
            let rows = [ImportRow { code: code.as_bytes(), ..ImportRow::default() }];
            let (id, spec) = (RequestId(u128::from(n) + 2), ImportSpec::of(product, 1, 20));
            let mut imported = admin.import(id, spec, rows.into_iter(), |_| ()).map(|_| Status::Ok);
            // Whoever asks takes all the room the log has.
            while let Err(Failure::Refused(Status::Busy)) | Ok(Status::Busy) = imported {
                imported = Ok(engine.import_commit(Caller::LOCAL, id).expect("the log goes on").status);
            }
            assert_eq!(imported.expect("imported"), Status::Ok);
        }
        drop(end);
        asking.join().expect("nothing is asked in vain")
    });
    let hash = engine.state_hash();
    drop(admin);
    engine.close().expect("everything is durable");
    assert_eq!(open(&directory).state_hash(), hash, "the second start leads to the same state");
    assert!(0 < histories, "nothing raced");
    assert!(odd.is_none(), "a history was answered with another body: {odd:?}");
}

/// Stores a number when it is dropped.
struct Until<'a>(&'a AtomicU64, u64);

impl Drop for Until<'_> {
    fn drop(&mut self) {
        self.0.store(self.1, Ordering::Relaxed);
    }
}

/// A limit is exact although many sell at the same time: what was asked and what is counted are one step.
#[test]
fn races_sell_no_more_than_a_limit_allows() {
    const MOST: u64 = 25;
    let directory = directory();
    let engine = open(&directory);
    let admin = Session::new(&engine, Caller::LOCAL);
    let (product, _) = stock(&admin, ProductSpec::single("coffee", *b"CNY", 100), CARDS);
    let spec = LimitSpec {
        name: "a day".to_owned(),
        scope: LimitScope::Account(None),
        product: None,
        window: LimitWindow::Life,
        max: MOST,
        action: LimitAction::Refuse,
        ended: false,
    };
    let put = admin.run(RequestId(3), Command::LimitPut(Box::new(spec))).wait().expect("durable");
    assert!(put.status.is_done(), "{put:?}");
    let account = AccountSpec {
        name: "all of them".to_owned(),
        currency: *b"CNY",
        kind: AccountKind::Customer,
        credit_limit: 0,
        owner: PrincipalId(0),
    };
    let account = admin.add_account(RequestId(4), account).wait().expect("an account").id;
    let barrier = Barrier::new(THREADS as usize);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (engine, barrier) = (&engine, &barrier);
            scope.spawn(move || {
                let session = Session::new(engine, seller(1));
                barrier.wait();
                for n in 0..10 {
                    let order = u128::from(thread << 32 | n);
                    let purchase =
                        Purchase { account: Some(account), ..Purchase::of(OrderId(order), product, 1) };
                    match session.sell_lines(RequestId(1000 + order), purchase).wait() {
                        Ok(_) => {}
                        Err(Failure::Limit { exceeded, .. }) => assert_eq!(exceeded.left, 0),
                        Err(other) => panic!("order {order}: {other}"),
                    }
                }
            });
        }
    });
    let lines = Session::new(&engine, Caller::LOCAL).stock(Some(product)).wait().expect("stock");
    assert_eq!(lines[0].counts[Lifecycle::Sold as usize], MOST, "a limit of {MOST}");
    engine.check().expect("counters are the sums of states");
}
