//! A store on simulated disks, with a past.

use std::sync::Arc;

use kami_engine::{
    Caller, Command, Engine, EngineOptions, ImportRow, ImportSpec, OrderId, PrincipalId, PrincipalSpec,
    ProductId, ProductSpec, Reply, ReplyBody, RequestId, Role, Session,
};
use kami_wal::{Drive, Medium, SimMedium, SimMode, WalOptions};

use crate::clock::HandClock;

pub fn open(data: &SimMedium, keys: &SimMedium) -> Engine {
    let medium = |medium: &SimMedium| Arc::new(medium.clone()) as Arc<dyn Medium>;
    Engine::open(EngineOptions {
        data: medium(data),
        keys: medium(keys),
        wal: WalOptions { segment_bytes: 1 << 18, drive: Drive::Manual, ..WalOptions::default() },
        clock: Box::<HandClock>::default(),
        accept_clock: false,
    })
    .unwrap()
}

pub fn import(session: &Session, id: u128, product: ProductId, codes: &[String]) {
    let rows = codes.iter().map(|code| ImportRow { code: code.as_bytes(), ..ImportRow::default() });
    session.import(RequestId(id), ImportSpec::of(product, codes.len() as u64, 16), rows, |_| ()).unwrap();
}

/// A store with two batches, sold, redeemed and reversed cards, a tombstone, and a snapshot in between.
pub fn store() -> (SimMedium, SimMedium, [u8; 32]) {
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

/// Adds an admin whose key is `number`.
pub fn add_principal(engine: &Engine, number: u8) -> PrincipalId {
    add(engine, PrincipalSpec::of(&format!("p-{number}"), Role::Admin, [number; 32]))
}

pub fn add(engine: &Engine, spec: PrincipalSpec) -> PrincipalId {
    match run(engine, Command::PrincipalAdd(Box::new(spec))).body {
        ReplyBody::Principals(principals) => principals[0].id,
        other => panic!("{other:?}"),
    }
}

pub fn revoke(engine: &Engine, id: PrincipalId) {
    run(engine, Command::PrincipalRevoke(id));
}

fn run(engine: &Engine, command: Command) -> Reply {
    let reply = Session::new(engine, Caller::LOCAL).run(RequestId::random(), command).wait().unwrap();
    assert!(reply.status.is_done(), "{reply:?}");
    reply
}
