//! The engine: one execution of 64 commands, from look-up to the entry at the log's tail, without the
//! digest before it and the wait for the disk after it.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use kami_engine::{
    Caller, CardDigest, ChannelId, Command, DiskOptions, Engine, EngineOptions, ImportRow, ImportSpec,
    OrderId, ProductSpec, Request, RequestId, Session, TerminalId, Work,
};

/// Enough for every redemption of a run to be a card's first.
const CARDS: u64 = 4_000_000;

fn code(number: u64) -> String {
    format!("BENCH-{:010}", number.wrapping_mul(7_368_787) % 10_000_000_000)
}

/// An engine and the digests of its cards, all sold.
fn sold_cards(directory: &std::path::Path) -> (Engine, Vec<CardDigest>) {
    let (data, keys) = (directory.join("data"), directory.join("keys"));
    let options = EngineOptions::on_disk(&data, &keys, DiskOptions::default()).expect("a disk");
    let engine = Engine::open(options).expect("a new store");
    let session = Session::new(&engine, Caller::LOCAL);
    let spec = ProductSpec::single("bench", *b"CNY", 2800);
    let product = session.add_product(RequestId(1), spec).wait().expect("a new product").id;
    let codes: Vec<String> = (0..CARDS).map(code).collect();
    let rows = codes.iter().map(|code| ImportRow { code: code.as_bytes(), ..ImportRow::default() });
    session.import(RequestId(2), ImportSpec::of(product, CARDS, 16), rows, |_| ()).expect("new cards");
    for order in 0..CARDS / 100_000 {
        let sale = Command::Sell {
            order: OrderId(u128::from(order) + 1),
            product,
            count: 100_000,
            validity_s_min: 0,
        };
        let reply = session.run(RequestId(u128::from(order) + 3), sale).wait().expect("a sound disk");
        assert!(reply.status.is_done(), "{reply:?}");
    }
    let digest = |code: &String| engine.digest(Caller::LOCAL.tenant, code.as_bytes()).expect("a code");
    let digests = codes.iter().map(digest).collect();
    (engine, digests)
}

fn redeem(criterion: &mut Criterion) {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let (engine, digests) = sold_cards(directory.path());
    let request = |number: usize, command| Request {
        id: RequestId(1 << 64 | number as u128),
        caller: Caller::LOCAL,
        terminal: TerminalId(0),
        channel: ChannelId(0),
        deadline: None,
        grounds: None,
        command,
    };
    // Far apart from one to the next, as the cards of different customers are.
    let card = |number: usize| digests[number * 617_051 % digests.len()];
    let absent = engine.digest(Caller::LOCAL.tenant, b"NO-SUCH-CARD").expect("a code");
    let mut work = Work::default();
    let mut group = criterion.benchmark_group("execute 64");
    group.throughput(Throughput::Elements(64));
    let mut next = 0;
    let mut run = |name: &str, done: bool, command: &dyn Fn(usize) -> Command| {
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || {
                    while !engine.has_space() {
                        std::thread::yield_now();
                    }
                    next += 64;
                    (next - 64..next).map(|number| request(number, command(number))).collect::<Vec<_>>()
                },
                |mut requests| {
                    work.requests.clear();
                    work.requests.append(&mut requests);
                    engine.execute(&mut work);
                    // A card can be redeemed once: the measuring time is short enough for them to last.
                    assert_eq!(work.replies[63].status.is_done(), done, "{:?}", work.replies[63]);
                    requests
                },
                BatchSize::PerIteration,
            );
        });
    };
    run("unknown cards", false, &|_| Command::Redeem { card: absent, pin: None, amount: 0, partial: false });
    run("redemptions", true, &|number| Command::Redeem {
        card: card(number),
        pin: None,
        amount: 0,
        partial: false,
    });
    run("queries", true, &|number| Command::Query { card: card(number) });
    group.finish();
}

criterion_group! {
    name = benches;
    // Short, because every redemption needs a card that was not redeemed before.
    config = Criterion::default()
        .warm_up_time(std::time::Duration::from_millis(50))
        .measurement_time(std::time::Duration::from_millis(200))
        .sample_size(10);
    targets = redeem
}
criterion_main!(benches);
