//! Faults that were found, one test each, named after what went wrong.

use kami_engine::{ImportSpec, ProductId, ProductSpec, Role, Status};
use kami_wal::{Medium, SimMedium, SimMode};

use crate::ask::{Ask, What, caller};
use crate::model::imports::Row;
use crate::model::restart::End;
use crate::model::workload::{ADMIN, SELLERS, TILLS};
use crate::model::world::World;

/// A store with one product and nothing else; the disk never fails by itself.
fn world() -> World {
    let mut world = World::new(7, SimMode::Direct, 64 << 10);
    let spec = ProductSpec::single("coffee", *b"CNY", 100);
    world.execute(&[Ask::new(1, ADMIN, What::ProductPut { spec, adds: true })]);
    assert!(world.drive());
    world
}

fn rows(codes: &[&str]) -> Vec<Row> {
    let row = |code: &&str| Row { code: (*code).to_owned(), pin: None, face: None, expires_ms: 0 };
    codes.iter().map(row).collect()
}

/// Stages all rows of an import.
fn stage(world: &mut World, id: u128, codes: &[&str]) {
    let importer = caller(8, Role::Issuer, 0, 0);
    world.import_begin(importer, id, &ImportSpec::of(ProductId(1), codes.len() as u64, 20));
    world.import_chunk(importer, id, 0, &rows(codes));
}

/// Commits a staged import.
fn commit(world: &mut World, id: u128) {
    world.import_commit(caller(8, Role::Issuer, 0, 0), id);
}

/// The bytes all files of a store take.
pub fn used(medium: &SimMedium) -> u64 {
    ["", "log", "batches", "snapshots", "quarantine"]
        .iter()
        .flat_map(|dir| {
            let names = medium.list(dir).expect("the disk is on");
            names.into_iter().map(move |name| if dir.is_empty() { name } else { format!("{dir}/{name}") })
        })
        .map(|path| medium.bytes(&path).len() as u64)
        .sum()
}

/// Which codes exist could be asked with QUERY and HISTORY: NOT_FOUND of an unknown code, CARD_NOT_VALID
/// of one that was not sold.
#[test]
fn a_till_could_tell_an_unknown_code_from_one_not_sold() {
    let mut world = world();
    stage(&mut world, 2, &["UNSOLD-1"]);
    commit(&mut world, 2);
    let told = |world: &mut World, what: What| {
        let engine = world.engine().clone();
        let mut work = kami_engine::Work::default();
        work.requests.push(Ask::new(3, TILLS[0], what).request(&engine, false));
        engine.execute(&mut work);
        work.replies.pop().expect("one reply").status
    };
    for code in ["UNSOLD-1", "NOBODY-1"] {
        let code = code.to_owned();
        assert_eq!(told(&mut world, What::Query { code: code.clone() }), Status::CardNotValid);
        assert_eq!(told(&mut world, What::History { code }), Status::CardNotValid);
    }
}

/// The key ring was only written by the first import, and its absence refused the second start.
#[test]
fn a_store_that_never_imported_did_not_open_again() {
    let mut world = World::new(7, SimMode::Direct, 64 << 10);
    for end in [End::Close, End::Kill, End::PowerCut] {
        world.restart_for_good(end);
    }
}

/// An import whose record found no room held the state and asked for it again: the engine stood still.
///
/// Then it its place in the index, another import with the same card took it, and the first was committed all the same: two cards with one code, both for sale, and a store
/// that did not open again.
#[test]
fn an_import_tried_again_was_not_looked_through_for_duplicates_again() {
    let mut world = world();
    stage(&mut world, 2, &["TWIN-1", "OWN-1"]);
    stage(&mut world, 3, &["TWIN-1", "OWN-2"]);
    world.tight = true;
    world.medium.set_capacity(Some(used(&world.medium)));
    // Fill what is left of the log: a record of the import finds no room.
    let freeze = |n: u128| {
        let mut spec = ProductSpec::single("coffee", *b"CNY", 100);
        spec.face = 100 + (n % 2) as i64;
        Ask::new(1000 + n, ADMIN, What::ProductPut { spec, adds: false })
    };
    let mut n = 0;
    while !world.met.contains_key("product put DISK_FULL") {
        world.execute(&[freeze(n)]);
        assert!(world.drive());
        n += 1;
        assert!(n < 5000, "the log never fills up");
    }
    commit(&mut world, 2);
    assert_eq!(world.met.get("import commit OK"), None, "there was no room");
    world.medium.set_capacity(None);
    assert!(world.drive());
    world.tight = false;
    commit(&mut world, 3);
    commit(&mut world, 2);
    assert_eq!(world.met.get("import commit OK"), Some(&1));
    assert_eq!(world.met.get("import commit DUPLICATE_CARD"), Some(&1));
    world.restart_for_good(End::Close);
}

/// The size of an order was checked without the head of its group: one that fitted by a hair, of cards that
/// lie apart, would have ended the process under the lock.
#[test]
fn an_order_could_be_larger_than_its_record() {
    let mut world = world();
    for count in 990..1030 {
        assert!(world.drive());
        let what = What::Sell { order: u128::from(count), product: 1, count, validity_s_min: 0 };
        world.execute(&[Ask::new(u128::from(count), SELLERS[0], what)]);
    }
    assert!(world.met.contains_key("sell OUT_OF_STOCK") && world.met.contains_key("sell ORDER_TOO_LARGE"));
}

/// Batches are sold in the order they were committed. A snapshot forgot it where a batch was begun
/// before and committed after another.
#[test]
fn a_snapshot_forgot_which_batch_is_sold_first() {
    let mut world = world();
    stage(&mut world, 2, &["LATE-1"]);
    stage(&mut world, 3, &["EARLY-1"]);
    commit(&mut world, 3);
    commit(&mut world, 2);
    world.engine().checkpoint().expect("a snapshot is made");
    world.restart_for_good(End::Close);
    assert!(world.drive());
    let what = What::Sell { order: 1, product: 1, count: 1, validity_s_min: 0 };
    world.execute(&[Ask::new(9, SELLERS[0], what)]);
    assert!(world.drive());
    assert_eq!(world.read_as.keys().next().map(|(_, code)| code.as_str()), Some("EARLY-1"));
}

/// A committed import answered OK to whatever was begun under its id: another file, by another principal, was
/// reported as imported and was not there.
#[test]
fn a_committed_import_answered_for_any_other() {
    let mut world = world();
    stage(&mut world, 2, &["FIRST-1", "FIRST-2"]);
    commit(&mut world, 2);
    let (importer, another) = (caller(8, Role::Issuer, 0, 0), caller(9, Role::Issuer, 0, 0));
    let spec = ImportSpec::of(ProductId(1), 2, 20);
    let others = [
        ImportSpec { content: 1, ..spec.clone() },
        ImportSpec { rows: 3, ..spec.clone() },
        ImportSpec { label: "x".to_owned(), ..spec.clone() },
        ImportSpec { skip_duplicates: true, ..spec.clone() },
    ];
    // From memory, from the log, from a snapshot.
    for round in 1..=3 {
        world.import_begin(importer, 2, &spec);
        for other in &others {
            world.import_begin(importer, 2, other);
        }
        world.import_begin(another, 2, &spec);
        assert_eq!(world.met.get("import begin OK"), Some(&(round + 1)));
        assert_eq!(world.met.get("import begin ID_REUSED"), Some(&(5 * round)));
        if round == 2 {
            world.engine().checkpoint().expect("a snapshot is made");
        }
        world.restart_for_good(End::Close);
    }
}
