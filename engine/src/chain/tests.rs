//! How much of a card's past is read.

use std::sync::Arc;

use kami_wal::{Drive, Medium, SimMedium, SimMode, WalOptions};

use super::*;
use crate::clock::Clock;
use crate::identity::TenantId;
use crate::index::Index;
use crate::product::CardKind;
use crate::record::Clocks;
use crate::{
    Caller, ChannelId, Command, Engine, EngineOptions, ImportRow, ImportSpec, ProductSpec, Request, Session,
    Status, TerminalId, Work,
};

struct Still;

impl Clock for Still {
    fn read(&self) -> Clocks {
        Clocks { wall_ms: 1_800_000_000_000, boot_ms: 5_000, boot_id: 1 }
    }

    fn boot_ms(&self) -> u64 {
        5_000
    }
}

const CODE: &[u8] = b"GIFT-00000001";

/// One stored-value card, sold.
fn store() -> Engine {
    let medium = |seed| Arc::new(SimMedium::new(seed, SimMode::Direct)) as Arc<dyn Medium>;
    let engine = Engine::open(EngineOptions {
        data: medium(1),
        keys: medium(2),
        wal: WalOptions { segment_bytes: 4 << 20, drive: Drive::Manual, ..WalOptions::default() },
        clock: Box::new(Still),
        accept_clock: false,
    })
    .unwrap();
    let session = Session::new(&engine, Caller::LOCAL);
    let mut spec = ProductSpec::single("gift", *b"CNY", 10_000_000);
    spec.kind = CardKind::StoredValue;
    let product = session.add_product(RequestId(1), spec).wait().unwrap().id;
    let row = ImportRow { code: CODE, pin: None, face: None, expires_ms: 0 };
    session.import(RequestId(2), ImportSpec::of(product, 1, 16), [row].into_iter(), |_| ()).unwrap();
    session.sell(RequestId(3), OrderId(1), product, 1).wait().unwrap();
    engine
}

fn redeem(engine: &Engine, ids: std::ops::Range<u128>) {
    let card = engine.digest(TenantId(0), CODE).unwrap();
    let mut work = Work::default();
    for id in ids {
        work.requests.clear();
        work.requests.push(Request {
            id: RequestId(id),
            caller: Caller::LOCAL,
            terminal: TerminalId(0),
            channel: ChannelId(0),
            deadline: None,
            grounds: None,
            command: Command::Redeem { card, pin: None, amount: 1, partial: false },
        });
        engine.execute(&mut work);
        assert_eq!(work.replies[0].status, Status::Ok);
        if id % 16 == 0 {
            engine.drive().unwrap();
        }
    }
}

/// How many entries are read to know what these ids did, the mean, and whether they did something.
fn reads(engine: &Engine, ids: impl Iterator<Item = u128>) -> (usize, bool) {
    let sequencer = engine.sequencer();
    let digest = engine.digest(TenantId(0), CODE).unwrap();
    let card = sequencer.index.find(digest, &Index::pin()).unwrap();
    let word = sequencer.table.batch_of(card).unwrap().word(card.row());
    let (mut count, mut sum, mut known) = (0, 0, true);
    for id in ids {
        let mut buffer = Vec::new();
        let mut chain = Chain::new(&sequencer.wal, &mut buffer);
        let sought = Sought::new(RequestId(id), None, &sequencer.marks, true);
        let (past, top) = chain.past(card, word, &sought).unwrap();
        chain.trail(&top, &sequencer.marks).unwrap();
        known &= past.same.is_some();
        (count, sum) = (count + 1, sum + chain.reads);
    }
    (sum / count, known)
}

/// The last of many redemptions reads little more than the first: its own chapter's entry, one of each chapter of its
/// volume and one of each volume; and of a retry, the entries of one chapter.
#[test]
fn the_last_of_many_reads_little_more_than_the_first() {
    let most: u128 = if std::env::var_os("KAMI_LONG").is_some() { 10_100 } else { 2_500 };
    let engine = store();
    let mut done = 1_000;
    // Where a volume is nearly full most is read; beyond one, each volume adds a single entry.
    for count in [30, 1_020, 2_040, most] {
        redeem(&engine, done..1_000 + count);
        done = 1_000 + count;
        let (chapters, volumes) = ((count as usize % 1_024) / 32, count as usize / 1_024);
        let bound = 2 * (2 + chapters) + volumes;
        // A filter says "perhaps" for one id in some hundreds, and a chapter is read for nothing.
        let (fresh, known) = reads(&engine, 1_000_000..1_000_200);
        assert!(!known && fresh <= bound + 8, "{fresh} entries for a new id after {count}");
        let (again, known) = reads(&engine, (1_000..1_000 + count).step_by(7));
        assert!(known && again <= bound + 8 + 40, "{again} entries for a retry after {count}");
    }
}
