//! Imports that are interrupted, repeated and overtaken.

use std::sync::Arc;

use kami_engine::record::Clocks;
use kami_engine::{
    Caller, Clock, Engine, EngineOptions, Failure, ImportRow, ImportSpec, ProductSpec, Reply, RequestId,
    Session, Status,
};
use kami_wal::{Drive, SimMedium, SimMode, WalOptions};

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
    Engine::open(EngineOptions {
        data: Arc::new(data.clone()),
        keys: Arc::new(keys.clone()),
        wal: WalOptions {
            segment_bytes: 1 << 16,
            ready_segments: 1,
            drive: Drive::Manual,
            ..WalOptions::default()
        },
        clock: Box::new(Still),
        accept_clock: false,
    })
    .unwrap()
}

fn rows(codes: &[String]) -> impl Iterator<Item = ImportRow<'_>> {
    codes.iter().map(|code| ImportRow { code: code.as_bytes(), pin: None, face: None, expires_ms: 0 })
}

fn codes(count: u32) -> Vec<String> {
    (0..count).map(|n| format!("CODE-{n:06}")).collect()
}

fn stage(engine: &Engine, id: u128, codes: &[String]) {
    let caller = Caller::LOCAL;
    let spec = ImportSpec::of(kami_engine::ProductId(1), codes.len() as u64, 16);
    assert_eq!(engine.import_begin(caller, RequestId(id), spec).unwrap().status, Status::Ok);
    let reply = engine.import_chunk(caller, RequestId(id), 0, &mut rows(codes)).unwrap();
    assert_eq!(reply.status, Status::Ok);
}

fn commit(engine: &Engine, id: u128) -> Reply {
    engine.import_commit(Caller::LOCAL, RequestId(id)).unwrap()
}

/// Two imports of the same cards: the first fails for want of disk after its digests are in the index, the
/// second overtakes it, the first is tried again. Only one may have the cards.
#[test]
fn an_overtaken_import_does_not_bring_its_cards_a_second_time() {
    let (data, keys) = (SimMedium::new(1, SimMode::Direct), SimMedium::new(2, SimMode::Direct));
    let engine = open(&data, &keys);
    let session = Session::new(&engine, Caller::LOCAL);
    session.add_product(RequestId(1), ProductSpec::single("p", *b"CNY", 100)).wait().unwrap();
    // Not the same list, or it would be known as the same batch.
    let (first, second) = (codes(200), codes(100));
    stage(&engine, 10, &first);
    stage(&engine, 11, &second);

    // No room for another segment: the log fills up until nothing can be recorded.
    data.set_capacity(Some(0));
    let mut name = 0;
    loop {
        name += 1;
        let spec = ProductSpec::single(&format!("filler {name}"), *b"CNY", 1);
        match session.add_product(RequestId(100 + name), spec).wait() {
            Ok(_) => engine.drive().unwrap(),
            Err(Failure::Refused(Status::DiskFull)) => break,
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(commit(&engine, 10).status, Status::DiskFull);
    data.set_capacity(None);
    engine.drive().unwrap();
    assert_eq!(commit(&engine, 11).status, Status::Ok);
    assert_eq!(commit(&engine, 10).status, Status::DuplicateCard);
    let stock = session.stock(None).wait().unwrap();
    assert_eq!(stock.iter().map(|line| line.imported).sum::<u64>(), 100);
    assert_eq!(session.query(&first[150]).wait().unwrap_err().to_string(), refused(Status::NotFound));

    let hash = engine.state_hash();
    engine.close().unwrap();
    assert_eq!(open(&data, &keys).state_hash(), hash, "a card that is there twice would refuse to open");
}

#[test]
fn a_commit_that_found_no_room_can_be_repeated() {
    let (data, keys) = (SimMedium::new(3, SimMode::Direct), SimMedium::new(4, SimMode::Direct));
    let engine = open(&data, &keys);
    let session = Session::new(&engine, Caller::LOCAL);
    session.add_product(RequestId(1), ProductSpec::single("p", *b"CNY", 100)).wait().unwrap();
    let codes = codes(50);
    stage(&engine, 10, &codes);
    assert_eq!(commit(&engine, 10).status, Status::Ok);
    let again = commit(&engine, 10);
    assert_eq!(again.status, Status::Ok);
    assert!(again.flags.contains(kami_engine::ReplyFlags::REPLAYED));
    stage_again_is_known(&engine, &codes);
    assert_eq!(session.stock(None).wait().unwrap()[0].imported, 50);
}

fn stage_again_is_known(engine: &Engine, codes: &[String]) {
    stage(engine, 12, codes);
    assert_eq!(commit(engine, 12).status, Status::DuplicateBatch);
}

fn refused(status: Status) -> String {
    Failure::Refused(status).to_string()
}
