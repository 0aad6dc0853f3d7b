//! Looking after a store: snapshots and verification, backups, rotation of the master key.

use kami_engine::{ProductSpec, RequestId};

use crate::store::{End, Store};

mod backup;
mod checkpoint;
mod rotation;

/// A store with two batches, sold, redeemed and reversed cards, a tombstone, and a snapshot in between; nothing runs on
/// it. And the hash of its state. The first hundred cards were redeemed under ids from 1000 on.
fn traded() -> (Store, [u8; 32]) {
    let mut store = Store::with_segments(1 << 18);
    let session = store.session();
    let product = store.product(ProductSpec::single("p", *b"CNY", 100));
    store.import(product, "CODE-1", 500);
    store.sell(product, 300);
    let code = |row: u128| format!("CODE-1-{row}");
    for row in 0..100 {
        session.redeem(RequestId(1000 + row), &code(row)).wait().unwrap();
    }
    store.engine().checkpoint().unwrap();
    store.import(product, "CODE-2", 500);
    store.sell(product, 400);
    for row in 0..50 {
        session.reverse(RequestId(2000 + row), &code(row), RequestId(1000 + row)).wait().unwrap();
    }
    session.reverse(RequestId(3000), &code(200), RequestId(3001)).wait().unwrap();
    let hash = store.engine().state_hash();
    store.engine().check().unwrap();
    drop(session);
    store.end(End::Close);
    (store, hash)
}
