//! What an order looks at in a product of many batches.

use super::*;
use crate::command::Command;
use crate::engine::Engine;
use crate::order::Line;
use crate::stock::Search;
use crate::tested::Store;

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
    let store = Store::new();
    let engine = store.engine();
    let product = store.product(ProductSpec::single("daily", *b"CNY", 100));
    let import = |name: String, expires_ms: u64| {
        store.import_with(product, &name, 2, |spec| spec.expires_ms = expires_ms);
    };
    let soon_ms = engine.now_ms() + 1000;
    (0..BATCHES).for_each(|n| import(format!("OVER-{n}"), soon_ms + u64::from(n % 2) * 3_600_000));
    engine.sequencer().state().now_ms = soon_ms;
    assert_eq!(looked_at(engine, product), 2, "one that is over, and the next");
    (0..BATCHES).for_each(|n| import(format!("SOLD-{n}"), 0));
    store.sell(product, BATCHES + 2 * BATCHES - 1);
    assert_eq!(looked_at(engine, product), 1, "only the last has a card");
    engine.sequencer().state().check(&engine.sequencer().table).unwrap();
    store.sell(product, 1);
    assert_eq!(looked_at(engine, product), 0);

    let ask = |command: Command| {
        let reply = store.ask(command);
        assert!(reply.status.is_done(), "{:?}", reply.status);
    };
    let first = BatchId(1);
    ask(Command::BatchExtend { batch: first, expires_ms: soon_ms + 7_200_000 });
    assert_eq!(looked_at(engine, product), 1, "it is for sale again");
    ask(Command::BatchFreeze(first));
    assert_eq!(looked_at(engine, product), 0);
    ask(Command::BatchUnfreeze(first));
    assert_eq!(looked_at(engine, product), 1);
    ask(Command::BatchVoid(first));
    assert_eq!(looked_at(engine, product), 0);
    engine.sequencer().state().check(&engine.sequencer().table).unwrap();
}
