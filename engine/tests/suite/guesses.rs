//! What guessing at codes tells: nothing, not even by where the receipts around it lie.

use std::sync::Arc;

use kami_engine::{
    Caller, CardDigest, ChannelId, Command, Engine, EngineOptions, ImportRow, ImportSpec, OrderId,
    ProductSpec, Request, RequestId, Role, Session, Status, TenantId, TerminalId, Work,
};
use kami_wal::{Drive, SimMedium, SimMode, WalOptions};

use crate::clock::HandClock;

/// The guesses that are made about one code.
type Probe = Box<dyn Fn(CardDigest) -> Vec<Command>>;

/// Receipts are positions in the log. Whatever a till asks between two redemptions of its own, they lie as far
/// apart for a code that nobody has as for a card in stock, and as much is written for either. (Nothing else
/// writes here: the log is driven by the test.)
#[test]
fn the_log_does_not_tell_which_codes_exist() {
    let data = SimMedium::new(1, SimMode::Direct);
    let engine = Engine::open(EngineOptions {
        data: Arc::new(data),
        keys: Arc::new(SimMedium::new(2, SimMode::Direct)),
        wal: WalOptions { drive: Drive::Manual, segment_bytes: 1 << 20, ..WalOptions::default() },
        clock: Box::<HandClock>::default(),
        accept_clock: false,
    })
    .unwrap();
    let session = Session::new(&engine, Caller::LOCAL);
    let product =
        session.add_product(RequestId(1), ProductSpec::single("tea", *b"CNY", 100)).wait().unwrap().id;
    let codes: Vec<String> = (0..40).map(|n| format!("CODE-{n:04}")).collect();
    let spec = ImportSpec::of(product, codes.len() as u64, 16);
    assert_eq!(engine.import_begin(Caller::LOCAL, RequestId(2), spec).unwrap().status, Status::Ok);
    let mut rows = codes.iter().map(|code| ImportRow { code: code.as_bytes(), ..ImportRow::default() });
    assert_eq!(engine.import_chunk(Caller::LOCAL, RequestId(2), 0, &mut rows).unwrap().status, Status::Ok);
    assert_eq!(engine.import_commit(Caller::LOCAL, RequestId(2)).unwrap().status, Status::Ok);
    session.sell(RequestId(3), OrderId(3), product, 30).wait().unwrap();

    let digest = |code: &str| engine.digest(TenantId(0), code.as_bytes()).unwrap();
    let (in_stock, unknown) = (digest(&codes[39]), digest("NOBODY-HAS-IT"));
    let mut own = codes[..30].iter().map(|code| digest(code));
    let caller = Caller { role: Role::Redeemer, ..Caller::LOCAL };
    let mut ids = 100..;
    let mut execute = |commands: Vec<Command>| {
        let mut work = Work::default();
        work.requests.extend(commands.into_iter().map(|command| Request {
            id: RequestId(ids.next().unwrap()),
            caller,
            terminal: TerminalId(0),
            channel: ChannelId(0),
            deadline: None,
            grounds: None,
            command,
        }));
        engine.execute(&mut work);
        engine.drive().unwrap();
        work
    };
    let redeem = |card| Command::Redeem { card, pin: None, amount: 0, partial: false };
    let reverse = |card, original| Command::Reverse { card, original: RequestId(original) };
    let mut probes: Vec<(&str, Probe)> = vec![
        ("asked twice", Box::new(|card| vec![Command::Query { card }, Command::Query { card }])),
        ("redeemed", Box::new(move |card| vec![redeem(card)])),
    ];
    // The first poisons its id, the second finds it poisoned.
    for what in ["reversed", "reversed again"] {
        probes.push((what, Box::new(move |card| vec![reverse(card, 7)])));
    }
    let both = move |card| vec![reverse(card, 8), Command::Query { card }];
    probes.push(("reversed and asked", Box::new(both)));
    for (what, guesses) in probes {
        let [in_stock, unknown] = [in_stock, unknown].map(|guess| {
            let asks = [vec![redeem(own.next().unwrap())], guesses(guess), vec![redeem(own.next().unwrap())]];
            let work = execute(asks.concat());
            let receipts: Vec<u64> =
                work.replies.iter().filter_map(|reply| Some(reply.lsn?.bytes())).collect();
            assert_eq!(receipts.len(), 2, "{:?}", work.replies);
            (receipts[1] - receipts[0], work.durable_at().unwrap().bytes() - receipts[1])
        });
        assert_eq!(in_stock, unknown, "{what}");
    }
    // Alone it is written, too, or its speed would tell.
    for guess in [in_stock, in_stock, unknown] {
        let before = engine.tail();
        assert_eq!(execute(vec![reverse(guess, 9)]).replies[0].status, Status::Tombstoned);
        assert!(engine.tail() > before);
    }
}
