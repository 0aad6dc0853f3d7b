//! Mistakes planted in the engine and the log, each behind a feature and each caught by a test named here.
//!
//! `tests/planted-bugs.sh` builds with each of them in turn and demands that its test fails.
//!
//! | feature | the mistake | caught by |
//! |---|---|---|
//! | `kami-engine/bug-last-entry-only` | a retry is looked for in the card's last entry only | `a_retry_is_recognised_behind_other_entries` |
//! | `kami-engine/bug-expired-by-running-clock` | expiry is decided on a time that is in no record | `expiry_rests_on_a_written_tick` |
//! | `kami-engine/bug-refusals-do-not-wait` | a refusal leaves before what it rests on is durable | `a_refusal_waits_for_what_it_rests_on` |
//! | `kami-engine/bug-reveal-before-durable` | codes are read before their reveal is durable | `codes_wait_for_their_reveal` |
//! | `kami-engine/bug-apply-retry-twice` | a retry has its effect again | `a_retry_has_one_effect` |
//! | `kami-engine/bug-ignore-tombstones` | a late original takes effect after its reversal | `a_late_original_is_refused` |
//! | `kami-wal/bug-ack-before-sync` | durable is said before it is | `model::runs::direct` |
//! | `kami-wal/bug-retry-after-failed-sync` | a failed sync is tried again and believed | `storage::after_a_failed_sync_nothing_is_acknowledged_and_nothing_is_lost` |
//! | `kami-wal/bug-rewrite-acknowledged-block` | a block with acknowledged bytes is written again | `model::runs::direct` |
//! | `kami-wal/bug-ignore-durable-end` | a hole below the durable end is cut off as a torn tail | `damage_below_the_durable_end_is_refused` |

use kami_engine::{Engine, ImportSpec, OpenError, ProductId, ProductSpec, Role};
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
    let row = |n| Row { code: format!("CARD-{n}"), pin: None, face: None, expires_ms: 0, origin: None };
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
