//! Why a change was made: kept in its entry, shown with it, part of what was asked.

use std::sync::Arc;

use kami_engine::{
    BatchId, Caller, ChannelId, Command, Engine, EngineOptions, FeedSpec, Grounds, Kind, PrincipalId,
    ProductId, ProductSpec, Reply, ReplyBody, ReplyFlags, Request, RequestId, Role, Session, Status,
    SystemClock, TenantId, TerminalId, WHY_BYTES_MAX,
};
use kami_wal::{Drive, SimMedium, SimMode, WalOptions};

const OPERATOR: Caller = Caller { principal: PrincipalId(9), role: Role::Operator, ..Caller::LOCAL };

fn open(medium: &SimMedium) -> Engine {
    Engine::open(EngineOptions {
        data: Arc::new(medium.clone()),
        keys: Arc::new(medium.clone()),
        wal: WalOptions { segment_bytes: 1 << 20, drive: Drive::Threads, ..WalOptions::default() },
        clock: Box::new(SystemClock::new().unwrap()),
        accept_clock: false,
    })
    .expect("the store opens")
}

fn ask(engine: &Engine, id: u128, command: Command, grounds: Option<Grounds>) -> Reply {
    let request = Request {
        id: RequestId(id),
        caller: OPERATOR,
        terminal: TerminalId(0),
        channel: ChannelId(0),
        deadline: None,
        command,
        grounds: grounds.map(Box::new),
    };
    engine.submit_blocking(request).expect("the log stands")
}

fn stocked(medium: &SimMedium) -> Engine {
    let engine = open(medium);
    let session = Session::new(&engine, Caller::LOCAL);
    session.add_product(RequestId(1), ProductSpec::single("tea", *b"CNY", 500)).wait().unwrap();
    let codes = ["TEA-0001", "TEA-0002"]
        .map(|code| kami_engine::ImportRow { code: code.as_bytes(), ..Default::default() });
    let spec = kami_engine::ImportSpec::of(ProductId(1), 2, 8);
    session.import(RequestId(2), spec, codes.into_iter(), |_| ()).unwrap();
    engine
}

#[test]
fn a_reason_stands_with_the_change_and_is_part_of_it() {
    let medium = SimMedium::new(1, SimMode::Direct);
    let engine = stocked(&medium);
    let card = engine.digest(TenantId(0), b"TEA-0001").unwrap();
    let why = |text: &str| Some(Grounds::because(text));
    let frozen = ask(&engine, 10, Command::Freeze { card }, why("reported stolen"));
    assert_eq!(frozen.status, Status::Ok);
    let again = ask(&engine, 10, Command::Freeze { card }, why("reported stolen"));
    assert_eq!((again.status, again.flags), (Status::Ok, ReplyFlags::REPLAYED));
    for other in [why("found again"), None] {
        assert_eq!(ask(&engine, 10, Command::Freeze { card }, other).status, Status::IdReused);
    }
    let batch = Command::BatchFreeze(BatchId(1));
    assert_eq!(ask(&engine, 11, batch.clone(), why("recall")).status, Status::Ok);
    assert_eq!(ask(&engine, 11, batch, None).status, Status::IdReused);

    let engine = {
        engine.close().expect("the log stands");
        open(&medium)
    };
    let ReplyBody::History(events) = ask(&engine, 12, Command::History { card }, None).body else {
        panic!("a history")
    };
    assert_eq!(events[0].grounds.as_deref(), Some(&Grounds::because("reported stolen")));
    assert_eq!(events[1].grounds, None);
    let mut told = Vec::new();
    let mut feed = engine.feed(OPERATOR, &FeedSpec::from_start()).unwrap();
    while !feed.read(&engine, 100, &mut told).unwrap().caught_up {}
    let because = |kind| {
        let event = told.iter().find(|event| event.kind == kind).expect("it is told");
        event.grounds.as_ref().map(|grounds| grounds.why.clone())
    };
    assert_eq!(because(Kind::Freeze).as_deref(), Some("reported stolen"));
    assert_eq!(because(Kind::BatchFreeze).as_deref(), Some("recall"));
    assert_eq!(because(Kind::Import), None);
}

#[test]
fn what_cannot_be_kept_or_says_nothing_is_refused() {
    let medium = SimMedium::new(2, SimMode::Direct);
    let engine = stocked(&medium);
    let card = engine.digest(TenantId(0), b"TEA-0001").unwrap();
    for bad in ["", "two\nlines", &"x".repeat(WHY_BYTES_MAX + 1)] {
        let grounds = || Some(Grounds::because(bad));
        assert_eq!(ask(&engine, 20, Command::Freeze { card }, grounds()).status, Status::Malformed);
        let product = Command::ProductFreeze(ProductId(1));
        assert_eq!(ask(&engine, 21, product, grounds()).status, Status::Malformed);
    }
    // A till redeems for no reason.
    let redeem = Command::Redeem { card, pin: None, amount: 0, partial: false };
    let refused = ask(&engine, 22, redeem, Some(Grounds::because("because")));
    assert!(!refused.status.is_done(), "{refused:?}");
    let list = ask(&engine, 23, Command::ProductList, Some(Grounds::because("because")));
    assert_eq!(list.status, Status::Malformed);
}
