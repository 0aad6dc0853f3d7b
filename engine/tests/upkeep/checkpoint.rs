//! Snapshots, recovery from them, and verification: what is damaged is named, what is whole is believed.

use std::sync::Arc;

use kami_engine::record::Clocks;
use kami_engine::{
    Caller, Clock, Engine, EngineOptions, ImportRow, ImportSpec, OrderId, ProductId, ProductSpec, RequestId,
    Session, verify,
};
use kami_wal::{Drive, Medium, SimMedium, SimMode, WalOptions};

struct Still;

impl Clock for Still {
    fn read(&self) -> Clocks {
        Clocks { wall_ms: 1_800_000_000_000, boot_ms: 5000, boot_id: 1 }
    }
    fn boot_ms(&self) -> u64 {
        5000
    }
}

fn open(data: &SimMedium, keys: &SimMedium) -> Engine {
    let medium = |medium: &SimMedium| Arc::new(medium.clone()) as Arc<dyn Medium>;
    Engine::open(EngineOptions {
        data: medium(data),
        keys: medium(keys),
        wal: WalOptions { segment_bytes: 1 << 18, drive: Drive::Manual, ..WalOptions::default() },
        clock: Box::new(Still),
        accept_clock: false,
    })
    .unwrap()
}

fn import(session: &Session, id: u128, product: ProductId, codes: &[String]) {
    let rows =
        codes.iter().map(|code| ImportRow { code: code.as_bytes(), pin: None, face: None, expires_ms: 0 });
    session.import(RequestId(id), ImportSpec::of(product, codes.len() as u64, 16), rows, |_| ()).unwrap();
}

/// A store with two batches, sold, redeemed and reversed cards, a tombstone, and a snapshot in between.
fn store() -> (SimMedium, SimMedium, [u8; 32]) {
    let (data, keys) = (SimMedium::new(1, SimMode::Direct), SimMedium::new(2, SimMode::Direct));
    let engine = open(&data, &keys);
    let session = Session::new(&engine, Caller::LOCAL);
    let product =
        session.add_product(RequestId(1), ProductSpec::single("p", *b"CNY", 100)).wait().unwrap().id;
    let codes = |batch: u32| (0..500).map(|n| format!("CODE-{batch}-{n:06}")).collect::<Vec<_>>();
    import(&session, 2, product, &codes(1));
    let sold = session.sell(RequestId(3), OrderId(1), product, 300).wait().unwrap();
    for (n, code) in sold.codes.iter().take(100).enumerate() {
        session.redeem(RequestId(1000 + n as u128), code).wait().unwrap();
    }
    engine.checkpoint().unwrap();
    import(&session, 4, product, &codes(2));
    session.sell(RequestId(5), OrderId(2), product, 400).wait().unwrap();
    for (n, code) in sold.codes.iter().take(50).enumerate() {
        session.reverse(RequestId(2000 + n as u128), code, RequestId(1000 + n as u128)).wait().unwrap();
    }
    session.reverse(RequestId(3000), &sold.codes[200], RequestId(3001)).wait().unwrap();
    let hash = engine.state_hash();
    engine.check().unwrap();
    engine.close().unwrap();
    (data, keys, hash)
}

fn problems(data: &SimMedium, keys: &SimMedium) -> Vec<String> {
    verify(Arc::new(data.clone()), Arc::new(keys.clone())).unwrap().problems
}

#[track_caller]
fn named(data: &SimMedium, keys: &SimMedium, what: &str) {
    let problems = problems(data, keys);
    assert!(problems.iter().any(|problem| problem.contains(what)), "{what} is not named: {problems:?}");
}

#[test]
fn memory_snapshot_and_log_agree() {
    let (data, keys, hash) = store();
    let verification = verify(Arc::new(data.clone()), Arc::new(keys.clone())).unwrap();
    assert_eq!(verification.problems, Vec::<String>::new());
    assert_eq!(verification.state_hash, hash);
    assert_eq!((verification.cards, verification.orders, verification.snapshots), (1000, 2, 1));

    let engine = open(&data, &keys);
    assert_eq!(engine.state_hash(), hash);
    engine.check().unwrap();
    // A second and a third snapshot: two are kept, and the newest is used.
    for _ in 0..3 {
        engine.checkpoint().unwrap();
        let session = Session::new(&engine, Caller::LOCAL);
        session.sell(RequestId::random(), OrderId(RequestId::random().0), ProductId(1), 10).wait().unwrap();
    }
    let hash = engine.state_hash();
    drop(engine);
    assert_eq!(data.list("snapshots").unwrap().len(), 2);
    assert_eq!(open(&data, &keys).state_hash(), hash);
}

#[test]
fn a_damaged_snapshot_is_named_and_passed_over() {
    let (data, keys, hash) = store();
    let name = format!("snapshots/{}", data.list("snapshots").unwrap()[0]);
    for at in [20, 70, 4100, 4096 + 3000] {
        let data = data.kill();
        data.edit(&name, |bytes| bytes[at] ^= 1);
        named(&data, &keys, &name);
        assert_eq!(open(&data, &keys).state_hash(), hash, "the log alone gives the same state");
    }
}

#[test]
fn a_damaged_batch_file_is_named() {
    let (data, keys, _) = store();
    for at in [10, 4096 + 5, 4096 + 500 * 16 + 7] {
        let data = data.kill();
        data.edit("batches/00000001.batch", |bytes| bytes[at] ^= 1);
        let problems = problems(&data, &keys);
        let named = problems.iter().any(|problem| problem.contains("batch"));
        assert!(named, "byte {at}: {problems:?}");
    }
}

#[test]
fn a_damaged_log_is_named() {
    let (data, keys, _) = store();
    let name = data.list("log").unwrap().into_iter().min().unwrap();
    let data = data.kill();
    data.edit(&format!("log/{name}"), |bytes| bytes[20_000] ^= 1);
    named(&data, &keys, &name);
}

#[test]
fn other_keys_are_refused() {
    let (data, _, _) = store();
    let (_, other, _) = store();
    let refused = verify(Arc::new(data), Arc::new(other)).unwrap_err();
    assert!(refused.to_string().contains("not this store's"), "{refused}");
}
