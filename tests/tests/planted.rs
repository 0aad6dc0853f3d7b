//! What the classical mistakes break, one short test each.
//!
//! Which mistake each of them catches is listed in `tests/src/planted.rs`; `cargo run -p kami-tests -- planted` makes
//! every one of them and demands that its test fails.

use std::sync::Arc;

use kami_engine::{
    Engine, EngineOptions, ImportSpec, LimitAction, LimitScope, LimitSpec, LimitWindow, OpenError, ProductId,
    ProductSpec, Role,
};
use kami_wal::{Medium, SimMode, WalOptions};

use crate::ask::{Ask, What, caller};
use crate::model::imports::Row;
use crate::model::restart::End;
use crate::model::workload::{ADMIN, OPERATOR, SELLERS, TILLS};
use crate::model::world::World;

pub const CODE: &str = "CARD-1";

/// A store with a few sold cards that expire `ends_in_ms` after engine time; 0 is never.
pub fn sold(ends_in_ms: u64) -> World {
    let mut world = World::new(3, SimMode::Direct, 64 << 10);
    let spec = ProductSpec::single("coffee", *b"CNY", 100);
    world.execute(&[Ask::new(1, ADMIN, What::ProductPut { spec, adds: true })]);
    let importer = caller(8, Role::Issuer, 0, 0);
    let mut spec = ImportSpec::of(ProductId(1), 3, 20);
    if ends_in_ms != 0 {
        spec.expires_ms = world.oracle.now_ms + ends_in_ms;
    }
    let row = |n| Row { code: format!("CARD-{n}"), ..Row::default() };
    world.import_begin(importer, 2, &spec);
    world.import_chunk(importer, 2, 0, &[row(1), row(2), row(3)]);
    world.import_commit(importer, 2, None);
    assert!(world.drive());
    let what = What::Sell { order: 1, product: 1, count: 2, validity_s_min: 0 };
    world.execute(&[Ask::new(3, SELLERS[0], what)]);
    assert!(world.drive());
    world
}

pub fn redeem(id: u128) -> Ask {
    Ask::new(id, TILLS[0], What::Redeem { code: CODE.to_owned(), pin: None, amount: 0, partial: false })
}

pub fn freeze(id: u128) -> Ask {
    Ask::new(id, OPERATOR, What::Freeze { code: CODE.to_owned() })
}

fn unfreeze(id: u128) -> Ask {
    Ask::new(id, OPERATOR, What::Unfreeze { code: CODE.to_owned() })
}

fn run(world: &mut World, ask: Ask) {
    world.execute(&[ask]);
    assert!(world.drive());
}

#[test]
fn a_retry_is_recognised_behind_other_entries() {
    let mut world = sold(0);
    for ask in [redeem(10), freeze(11), unfreeze(12), redeem(10)] {
        run(&mut world, ask);
    }
    assert_eq!(world.met.get("redeem OK again"), Some(&1));
}

#[test]
fn expiry_rests_on_a_written_tick() {
    let mut world = sold(50);
    // The end has come, but no record says so yet, and none will if the power goes now.
    world.clock.advance(60);
    run(&mut world, redeem(10));
    assert_eq!(world.met.get("redeem OK"), Some(&1));
    let mut world = sold(50);
    world.clock.advance(100);
    run(&mut world, redeem(10));
    assert_eq!(world.met.get("redeem EXPIRED"), Some(&1));
}

#[test]
fn a_refusal_waits_for_what_it_rests_on() {
    let mut world = sold(0);
    world.execute(&[redeem(10)]);
    world.execute(&[redeem(11)]);
    assert_eq!(world.met.get("redeem ALREADY_REDEEMED"), Some(&1));
    world.restart(End::PowerCut);
}

#[test]
fn codes_wait_for_their_reveal() {
    let mut world = sold(0);
    run(&mut world, Ask::new(10, SELLERS[0], What::Fetch { order: 1, from: 0, count: 9 }));
    assert_eq!(world.read_as.len(), 2);
}

#[test]
fn a_retry_has_one_effect() {
    let mut world = sold(0);
    for ask in [freeze(10), unfreeze(11), freeze(10), redeem(12)] {
        run(&mut world, ask);
    }
    assert_eq!(world.met.get("redeem OK"), Some(&1));
}

#[test]
fn a_late_original_is_refused() {
    let mut world = sold(0);
    let reverse = What::Reverse { code: CODE.to_owned(), original: 10 };
    run(&mut world, Ask::new(11, TILLS[0], reverse));
    run(&mut world, redeem(10));
    assert_eq!(world.met.get("redeem REVERSED_BEFORE_ARRIVAL"), Some(&1));
}

#[test]
fn damage_below_the_durable_end_is_refused() {
    let mut world = sold(0);
    for id in 10..60 {
        run(&mut world, freeze(2 * id));
        run(&mut world, unfreeze(2 * id + 1));
    }
    drop(world.engine.take());
    world.medium = world.medium.kill();
    let mut records = Vec::new();
    kami_wal::verify(&world.medium, &WalOptions::default(), &mut |record| records.push(record.lsn.bytes()))
        .expect("the log can be read");
    let mut names = world.medium.list("log").expect("the disk is on");
    names.sort_unstable();
    // The middle of a record that was acknowledged long ago.
    let at = records[records.len() / 3] + 64;
    let name = &names[(at / world.segment_bytes - records[0] / world.segment_bytes) as usize];
    world.medium.edit(&format!("log/{name}"), |bytes| bytes[(at % world.segment_bytes) as usize] ^= 0x40);
    let opened = Engine::open(world.options(false));
    assert!(matches!(&opened, Err(OpenError::Log(error)) if error.is_damage()), "{:?}", opened.err());
}

#[test]
fn two_of_a_turn_are_decided_one_after_the_other() {
    let mut world = sold(0);
    world.execute(&[redeem(10), redeem(11)]);
    assert_eq!(world.met.get("redeem OK"), Some(&1));
    assert_eq!(world.met.get("redeem ALREADY_REDEEMED"), Some(&1));
}

#[test]
fn a_retry_is_only_its_askers() {
    let mut world = sold(0);
    run(&mut world, redeem(10));
    let other = Ask { caller: TILLS[2], ..redeem(10) };
    run(&mut world, other);
    assert_eq!(world.met.get("redeem ID_REUSED"), Some(&1));
}

#[test]
fn only_its_merchant_takes_a_redemption_back() {
    let mut world = sold(0);
    run(&mut world, redeem(10));
    for (id, till) in [(11, TILLS[2]), (12, TILLS[0])] {
        run(&mut world, Ask::new(id, till, What::Reverse { code: CODE.to_owned(), original: 10 }));
    }
    assert_eq!(world.met.get("reverse SCOPE_DENIED"), Some(&1));
    assert_eq!(world.met.get("reverse OK"), Some(&1));
}

#[test]
fn codes_are_their_buyers() {
    let mut world = sold(0);
    let fetch = What::Fetch { order: 1, from: 0, count: 9 };
    run(&mut world, Ask::new(10, caller(7, Role::Seller, 0, 0), fetch));
    assert!(!world.met.contains_key("fetch OK"), "{:?}", world.met);
}

#[test]
fn a_snapshot_waits_for_what_it_holds() {
    let mut world = sold(0);
    world.execute(&[redeem(10)]);
    world.engine().clone().checkpoint().expect("a snapshot is made");
    // Nobody was told of the redemption, and the snapshot must not know more than the log keeps.
    world.restart(End::PowerCut);
}

#[test]
fn an_import_waits_for_its_file() {
    for seed in 0..20 {
        let mut world = sold(0);
        world.medium = world.medium.crash(seed);
        let opened = Engine::open(world.options(false));
        assert!(opened.is_ok(), "{:?}", opened.err());
    }
}

#[test]
fn engine_time_stays_when_the_wall_clock_is_set_back() {
    let mut world = sold(0);
    world.clock.advance(120_000);
    run(&mut world, freeze(10));
    let now_ms = world.oracle.now_ms;
    world.clock.set_wall_ms(now_ms - 60_000);
    world.clock.reboot(0);
    world.restart(End::Kill);
    world.clock.advance(1_000);
    run(&mut world, unfreeze(11));
    assert!(now_ms <= world.oracle.now_ms);
}

/// What counts against a limit counts at the time of its record, whenever that is replayed.
#[test]
fn replay_knows_only_the_time_that_is_written() {
    let mut world = sold(0);
    let limit = LimitSpec {
        name: "a till".to_owned(),
        scope: LimitScope::Terminal,
        product: None,
        window: LimitWindow::Rolling { seconds: 600 },
        max: 1,
        action: LimitAction::Refuse,
        ended: false,
    };
    run(&mut world, Ask::new(9, OPERATOR, What::LimitPut(limit)));
    world.clock.advance(3_600_000);
    run(&mut world, redeem(10));
    world.restart(End::Close);
    let other = What::Redeem { code: "CARD-2".to_owned(), pin: None, amount: 0, partial: false };
    run(&mut world, Ask::new(11, TILLS[0], other));
    assert_eq!(world.met.get("redeem LIMIT_TERMINAL"), Some(&1), "{:?}", world.met);
}

#[test]
fn a_damaged_snapshot_is_not_believed() {
    let mut world = sold(0);
    run(&mut world, redeem(10));
    world.engine().clone().checkpoint().expect("a snapshot is made");
    drop(world.engine.take());
    world.medium = world.medium.kill();
    let name = world.medium.list("snapshots").expect("the disk is on").remove(0);
    let hash = kami_engine::verify(Arc::new(world.medium.clone()), Arc::new(world.medium.clone()));
    let hash = hash.expect("the store can be read").state_hash;
    let length = world.medium.bytes(&format!("snapshots/{name}")).len();
    // Every byte of the words of the three cards, which no other checksum covers.
    for at in (4096..length).step_by(7) {
        let damaged = world.medium.kill();
        damaged.edit(&format!("snapshots/{name}"), |bytes| bytes[at] ^= 1);
        let options = EngineOptions { data: Arc::new(damaged), ..world.options(false) };
        let engine = Engine::open(options).expect("the whole log is there");
        assert_eq!(engine.state_hash(), hash, "byte {at}");
    }
}
