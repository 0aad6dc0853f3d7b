//! A platform that embeds the engine: imports cards, sells two of them, redeems one and takes it back.
//!
//! ```text
//! cargo run --release -p kami-engine --example embed
//! ```

use std::error::Error;

use kami_engine::{
    Caller, DiskOptions, Engine, EngineOptions, ImportRow, ImportSpec, OrderId, ProductSpec, RequestId,
    Session, TerminalId,
};

fn main() -> Result<(), Box<dyn Error>> {
    let directory = std::env::current_dir()?.join(format!("kami-demo-embed-{}", std::process::id()));
    let result = trade(&directory);
    std::fs::remove_dir_all(&directory)?;
    result
}

fn trade(directory: &std::path::Path) -> Result<(), Box<dyn Error>> {
    // Data and keys lie side by side, never one in the other: a backup of the data carries no key.
    let (data, keys) = (directory.join("data"), directory.join("keys"));
    let engine = Engine::open(EngineOptions::on_disk(&data, &keys, DiskOptions::default())?)?;
    let shop = Session::new(&engine, Caller::LOCAL);

    let product =
        shop.add_product(RequestId::random(), ProductSpec::single("coffee", *b"CNY", 2800)).wait()?;
    let codes: Vec<String> = (1..=1000).map(|n| format!("COFFEE-{n:08}")).collect();
    let rows = codes.iter().map(|code| ImportRow { code: code.as_bytes(), ..ImportRow::default() });
    let spec = ImportSpec::of(product.id, codes.len() as u64, 15);
    let batch = shop.import(RequestId::random(), spec, rows, |_| ())?;
    println!("imported {} cards as batch {}", codes.len(), batch.id);

    let sold = shop.sell(RequestId::random(), OrderId(2026_0001), product.id, 2).wait()?;
    let code = sold.codes.first().ok_or("an order of two cards has a first")?;
    println!("sold {} cards in order {}", sold.codes.len(), sold.order);

    // The id is made before the first attempt, so that every retry can use the same.
    let till = shop.at(TerminalId(12));
    let id = RequestId::random();
    let receipt = till.redeem(id, code).wait()?;
    println!("redeemed a card worth {} fen, receipt {}", receipt.value.amount, receipt.lsn);
    let again = till.redeem(id, code).wait()?;
    println!("the same request again: receipt {}, replayed: {}", again.lsn, again.replayed);
    if let Err(refused) = till.redeem(RequestId::random(), code).wait() {
        println!("another request: {refused}");
    }
    till.reverse(RequestId::random(), code, id).wait()?;

    for event in till.history(code).wait()? {
        println!("  {:<8} -> {:<10} lsn {}", event.kind.name(), event.lifecycle.name(), event.lsn);
    }
    engine.check()?;
    engine.close()?;
    Ok(())
}
