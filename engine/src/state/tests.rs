//! What an order looks at in a product of many batches.

use std::sync::Arc;

use kami_wal::{Drive, Medium, SimMedium, SimMode, WalOptions};

use super::*;
use crate::engine::{Engine, EngineOptions};
use crate::identity::{ChannelId, OrderId, TerminalId};
use crate::import::{ImportRow, ImportSpec};
use crate::order::Line;
use crate::reply::ReplyBody;
use crate::session::Session;
use crate::stock::Search;

fn open() -> Engine {
    let medium = |seed| Arc::new(SimMedium::new(seed, SimMode::Direct)) as Arc<dyn Medium>;
    let wal = WalOptions { segment_bytes: 4 << 20, drive: Drive::Manual, ..WalOptions::default() };
    let clock = Box::new(crate::clock::SystemClock::new().unwrap());
    Engine::open(EngineOptions { data: medium(1), keys: medium(2), wal, clock, accept_clock: false }).unwrap()
}

/// How many batches an order of one card looks at.
fn looked_at(engine: &Engine, product: ProductId) -> usize {
    let sequencer = engine.sequencer();
    let mut state = sequencer.state();
    let mut found = Search::default();
    let line = Line { product, count: 1, face: None };
    state.allocate(&sequencer.table, TenantId(0), &line, 0, &mut found);
    state.pass_over(&sequencer.table, &found);
    found.batches
}

/// A product that is imported every day has thousands of batches, most of them sold out, void or over. An order
/// looks at those that have something for it.
#[test]
fn an_order_passes_over_batches_that_are_sold_out_void_frozen_or_over() {
    const BATCHES: u32 = 60;
    let engine = open();
    let session = Session::new(&engine, Caller::LOCAL);
    let mut id = 0;
    let mut next = || {
        id += 1;
        RequestId(id)
    };
    let spec = ProductSpec::single("daily", *b"CNY", 100);
    let product = session.add_product(next(), spec).wait().unwrap().id;
    let mut import = |name: String, expires_ms: u64| {
        let codes: Vec<String> = (0..2).map(|row| format!("{name}-{row}")).collect();
        let rows = codes.iter().map(|code| ImportRow { code: code.as_bytes(), ..ImportRow::default() });
        let spec = ImportSpec { expires_ms, ..ImportSpec::of(product, 2, 32) };
        session.import(next(), spec, rows, |_| ()).unwrap();
    };
    let soon_ms = engine.now_ms() + 1000;
    (0..BATCHES).for_each(|n| import(format!("OVER-{n}"), soon_ms + u64::from(n % 2) * 3_600_000));
    engine.sequencer().state().now_ms = soon_ms;
    assert_eq!(looked_at(&engine, product), 2, "one that is over, and the next");
    (0..BATCHES).for_each(|n| import(format!("SOLD-{n}"), 0));
    let order = RequestId(1 << 64);
    session.sell(order, OrderId(order.0), product, BATCHES + 2 * BATCHES - 1).wait().unwrap();
    assert_eq!(looked_at(&engine, product), 1, "only the last has a card");
    engine.sequencer().state().check(&engine.sequencer().table).unwrap();
    let last = RequestId(1 << 65);
    session.sell(last, OrderId(last.0), product, 1).wait().unwrap();
    assert_eq!(looked_at(&engine, product), 0);

    let ask = |id: u128, command: Command| -> ReplyBody {
        let mut work = crate::sequencer::Work::default();
        let (terminal, channel) = (TerminalId(0), ChannelId(0));
        let (id, caller) = (RequestId(1 << 66 | id), Caller::LOCAL);
        work.requests.push(crate::command::Request {
            id,
            caller,
            terminal,
            channel,
            deadline: None,
            grounds: None,
            command,
        });
        engine.execute(&mut work);
        let reply = work.replies.pop().unwrap();
        assert!(reply.status.is_done(), "{:?}", reply.status);
        reply.body
    };
    let first = BatchId(1);
    ask(1, Command::BatchExtend { batch: first, expires_ms: soon_ms + 7_200_000 });
    assert_eq!(looked_at(&engine, product), 1, "it is for sale again");
    ask(2, Command::BatchFreeze(first));
    assert_eq!(looked_at(&engine, product), 0);
    ask(3, Command::BatchUnfreeze(first));
    assert_eq!(looked_at(&engine, product), 1);
    ask(4, Command::BatchVoid(first));
    assert_eq!(looked_at(&engine, product), 0);
    engine.sequencer().state().check(&engine.sequencer().table).unwrap();
}
