//! A small store on a simulated disk, for the targets that need one: two products of two cards each, all sold, with a
//! past, a snapshot and the log behind it.

#[path = "../../tests/src/history/card.rs"]
pub mod card;
#[path = "../../tests/src/history/search.rs"]
pub mod search;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kami_engine::record::Clocks;
use kami_engine::{
    Caller, CardDigest, CardKind, Clock, Command, Engine, EngineOptions, ImportRow, ImportSpec, OpenError,
    OrderId, ProductId, ProductSpec, Reply, Request, RequestId, Status, TenantId, TerminalId, Work,
};
use kami_wal::{Drive, SimMedium, SimMode, WalOptions};

/// Cards in all: the first half single-use, the others with value.
pub const CARDS: usize = 4;
/// What is on a card with value at first.
pub const VALUE: i64 = 100;

/// A clock that stands still until it is moved. Clones are the same.
#[derive(Clone, Debug)]
pub struct Hand(pub Arc<AtomicU64>);

impl Default for Hand {
    fn default() -> Hand {
        Hand(Arc::new(AtomicU64::new(5000)))
    }
}

impl Clock for Hand {
    fn read(&self) -> Clocks {
        Clocks { wall_ms: 1_800_000_000_000 + self.boot_ms(), boot_ms: self.boot_ms(), boot_id: 1 }
    }

    fn boot_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Opens the store on a disk.
pub fn open(medium: &SimMedium, clock: &Hand) -> Result<Engine, OpenError> {
    Engine::open(EngineOptions {
        data: Arc::new(medium.clone()),
        keys: Arc::new(medium.clone()),
        wal: WalOptions { segment_bytes: 64 << 10, drive: Drive::Manual, ..WalOptions::default() },
        clock: Box::new(clock.clone()),
        accept_clock: false,
    })
}

/// Runs one command of one who may do everything.
pub fn ask(engine: &Engine, work: &mut Work, id: u128, command: Command) -> Reply {
    work.requests.clear();
    work.requests.push(Request {
        id: RequestId(id),
        caller: Caller::LOCAL,
        terminal: TerminalId(0),
        channel: kami_engine::ChannelId(0),
        deadline: None,
        grounds: None,
        command,
    });
    engine.execute(work);
    work.replies.pop().expect("one reply a request")
}

/// What a card's code leads to.
pub fn digest(engine: &Engine, card: usize) -> CardDigest {
    engine.digest(TenantId(0), format!("FUZZ-{card}").as_bytes()).expect("a code")
}

/// A new store. `used` gives its cards a past and it a snapshot.
pub fn store(mode: SimMode, used: bool) -> SimMedium {
    let (medium, clock) = (SimMedium::new(1, mode), Hand::default());
    let engine = open(&medium, &clock).expect("a new store opens");
    let mut work = Work::default();
    for product in 0..2_usize {
        let mut spec = ProductSpec::single(["single", "value"][product], *b"CNY", VALUE);
        if product == 1 {
            spec.kind = CardKind::StoredValue;
            spec.terms.value_max = 1 << 40;
        }
        let id = 1 << 100 | product as u128;
        assert_eq!(ask(&engine, &mut work, id, Command::ProductAdd(Box::new(spec))).status, Status::Ok);
        let codes: Vec<String> =
            (0..CARDS / 2).map(|n| format!("FUZZ-{}", product * CARDS / 2 + n)).collect();
        let mut rows = codes.iter().map(|code| ImportRow {
            code: code.as_bytes(),
            pin: None,
            face: None,
            expires_ms: 0,
            origin: None,
        });
        let (caller, id) = (Caller::LOCAL, RequestId(2 << 100 | product as u128));
        let spec = ImportSpec::of(ProductId(product as u32 + 1), codes.len() as u64, 20);
        for step in 0..3 {
            // It waits for the disk, which is driven here.
            engine.drive().expect("the disk is on");
            std::thread::scope(|scope| {
                let run = scope.spawn(|| match step {
                    0 => engine.import_begin(caller, id, spec.clone()),
                    1 => engine.import_chunk(caller, id, 0, &mut rows),
                    _ => engine.import_commit(caller, id),
                });
                while !run.is_finished() {
                    engine.drive().expect("the disk is on");
                    std::thread::yield_now();
                }
                let reply = run.join().expect("no panic").expect("the disk is on");
                assert!(reply.status.is_done(), "{reply:?}");
            });
        }
        let (order, product) = (OrderId(product as u128 + 1), ProductId(product as u32 + 1));
        let sell = Command::Sell { order, product, count: CARDS as u32 / 2, validity_s_min: 0 };
        assert_eq!(ask(&engine, &mut work, 3 << 100, sell).status, Status::Ok);
    }
    engine.drive().expect("the disk is on");
    if used {
        for n in 0..40_u128 {
            let card = digest(&engine, n as usize % CARDS);
            let command = match n / 4 % 4 {
                0 => Command::Freeze { card },
                1 => Command::Unfreeze { card },
                2 => Command::Redeem { card, pin: None, amount: 0, partial: false },
                _ => Command::Reverse { card, original: RequestId(1000 + n - 4) },
            };
            let _ = ask(&engine, &mut work, 1000 + n, command);
            engine.drive().expect("the disk is on");
            if n == 20 {
                engine.checkpoint().expect("a snapshot");
            }
        }
    }
    engine.close().expect("the disk is on");
    medium.kill()
}

/// Opens and verifies a store with a damaged file: refused or whole, never a panic.
pub fn open_damaged(medium: &SimMedium) {
    let data = Arc::new(medium.clone());
    if let Ok(found) = kami_engine::verify(data.clone(), data) {
        let _ = found.problems.len();
    }
    let Ok(engine) = open(medium, &Hand::default()) else { return };
    let mut work = Work::default();
    for card in 0..CARDS {
        let card = digest(&engine, card);
        let _ = ask(&engine, &mut work, 0, Command::Query { card });
        let _ = ask(&engine, &mut work, 0, Command::History { card });
    }
    let _ = engine.drive();
    let _ = ask(&engine, &mut work, 7 << 100, Command::OrderFetch { order: OrderId(1), from: 0, count: 9 });
    let _ = engine.drive();
    let _ = engine.check();
}

/// Edits of a file: places and what stands there then.
pub fn edit(bytes: &mut Vec<u8>, edits: &[u8]) {
    for edit in edits.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([edit[0], edit[1]]));
        let length = bytes.len();
        if length == 0 {
            return;
        }
        // What is interesting lies in the header and in the last bytes, with a page of zeros between.
        let at = if at < 0x8000 { at % 512 } else { 4096 + at - 0x8000 };
        bytes[at % length] ^= edit[2];
    }
}
