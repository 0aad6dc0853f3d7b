//! Faults that were found, one test each, named after what went wrong.

use std::sync::Arc;

use kami_engine::{
    Caller, CheckpointError, Engine, EngineOptions, ImportRow, ImportSpec, OpenError, ProductId, ProductSpec,
    Reply, RequestId, Role, Session, Status, Work,
};
use kami_wal::{Drive, Medium, SimMedium, SimMode, WalOptions};

use crate::ask::{Ask, Deadline, What, caller};
use crate::model::clock::ManualClock;
use crate::model::imports::Row;
use crate::model::restart::End;
use crate::model::workload::{ADMIN, OPERATOR, SELLERS, TILLS};
use crate::model::world::{EPOCH_MS, World};

/// A store with one product and nothing else; the disk never fails by itself.
fn world() -> World {
    let mut world = World::new(7, SimMode::Direct, 64 << 10);
    let spec = ProductSpec::single("coffee", *b"CNY", 100);
    world.execute(&[Ask::new(1, ADMIN, What::ProductPut { spec, adds: true })]);
    assert!(world.drive());
    world
}

/// Stages all rows of an import.
fn stage(world: &mut World, id: u128, codes: &[&str]) {
    let importer = caller(8, Role::Issuer, 0, 0);
    world.import_begin(importer, id, &ImportSpec::of(ProductId(1), codes.len() as u64, 20));
    let rows = codes.iter().map(|code| Row { code: (*code).to_owned(), ..Row::default() });
    world.import_chunk(importer, id, 0, &rows.collect::<Vec<_>>());
}

/// Commits a staged import.
fn commit(world: &mut World, id: u128) {
    world.import_commit(caller(8, Role::Issuer, 0, 0), id, None);
}

/// What the engine answers, past the oracle.
fn told(world: &World, asks: &[Ask]) -> Vec<Reply> {
    let mut work = Work::default();
    work.requests.extend(asks.iter().map(|ask| ask.request(world.engine(), false)));
    world.engine().execute(&mut work);
    work.replies
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
    for code in ["UNSOLD-1", "NOBODY-1"] {
        let code = code.to_owned();
        for what in [What::Query { code: code.clone() }, What::History { code }] {
            let replies = told(&world, &[Ask::new(3, TILLS[0], what)]);
            assert_eq!(replies[0].status, Status::CardNotValid);
        }
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
    // Fill what is left of the log: a record of the import finds no room. A reversal of nothing takes less.
    let mut n = 0;
    while !world.met.contains_key("reverse DISK_FULL") {
        let nobodys = What::Reverse { code: "NOBODYS".into(), original: 1 };
        world.execute(&[Ask::new(1000 + n, ADMIN, nobodys)]);
        assert!(world.drive());
        n += 1;
        assert!(n < 50_000, "the log never fills up");
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
    for count in 965..1010 {
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

/// The platform that embeds the engine went by the number of the first principal that is added, which could
/// fetch what the platform had bought.
#[test]
fn the_first_principal_could_read_the_platforms_orders() {
    let mut world = world();
    stage(&mut world, 2, &["OWN-1"]);
    commit(&mut world, 2);
    let sell = What::Sell { order: 5, product: 1, count: 1, validity_s_min: 0 };
    let sold = told(&world, &[Ask::new(4, Caller::LOCAL, sell)]);
    assert_eq!(sold[0].status, Status::Ok);
    let fetch = What::Fetch { order: 5, from: 0, count: 1 };
    let first = caller(1, Role::Seller, 0, 0);
    assert_eq!(told(&world, &[Ask::new(6, first, fetch)])[0].status, Status::NotFound);
}

/// Reads whose deadline had passed parted the changes around them into groups that nobody had asked room
/// for: the third ended the process under the lock, and any till could send it.
#[test]
fn late_reads_between_changes_ended_the_process() {
    let mut world = world();
    let codes: Vec<String> = (0..32).map(|n| format!("LATE-READ-{n}")).collect();
    stage(&mut world, 2, &codes.iter().map(String::as_str).collect::<Vec<_>>());
    commit(&mut world, 2);
    assert!(world.drive());
    world.execute(&[Ask::new(
        3,
        SELLERS[0],
        What::Sell { order: 1, product: 1, count: 32, validity_s_min: 0 },
    )]);
    assert!(world.drive());
    let late = |what| Ask { deadline: Deadline::Passed, ..Ask::new(4, TILLS[0], what) };
    let mut asks = Vec::new();
    for (n, code) in (100..).zip(&codes) {
        asks.push(Ask::new(
            n,
            TILLS[0],
            What::Redeem { code: code.clone(), pin: None, amount: 0, partial: false },
        ));
        // Another card: one that comes up twice would end the turn.
        let read = format!("NOBODY-{n}");
        let read = if n % 2 == 0 { What::Query { code: read } } else { What::History { code: read } };
        asks.push(late(read));
    }
    world.execute(&asks);
    assert_eq!(world.met.get("redeem OK"), Some(&32));
    assert_eq!(world.met.get("query DEADLINE_PASSED"), Some(&16));
    world.restart_for_good(End::Kill);
}

/// The id of a committed import was answered with that import whatever was announced under it, and by whoever.
#[test]
fn an_import_id_was_used_again_for_another_import() {
    let mut world = world();
    stage(&mut world, 2, &["FIRST-1", "FIRST-2"]);
    commit(&mut world, 2);
    for end in [None, Some(End::Kill)] {
        if let Some(end) = end {
            world.restart_for_good(end);
        }
        let begin = |principal, rows| {
            let spec = ImportSpec::of(ProductId(1), rows, 20);
            let importer = caller(principal, Role::Issuer, 0, 0);
            world.engine().import_begin(importer, RequestId(2), spec).expect("the disk is on").status
        };
        assert_eq!(begin(8, 2), Status::Ok);
        assert_eq!(begin(8, 3), Status::IdReused);
        assert_eq!(begin(9, 2), Status::IdReused);
    }
}

/// A batch that was committed while the snapshot had passed its number, and another after it that had not
/// been reached: recovered from that snapshot they were sold the other way round.
#[test]
fn a_snapshot_beside_imports_forgot_which_batch_is_sold_first() {
    for moment in 0..12 {
        let mut world = world();
        for (id, code) in [(2, "SECOND-1"), (3, "FIRST-1"), (4, "THIRD-1")] {
            stage(&mut world, id, &[code]);
        }
        commit(&mut world, 3);
        let engine = world.engine().clone();
        let mut steps = 0;
        let made = engine.checkpoint_beside(|| {
            if steps == moment {
                commit(&mut world, 2);
                commit(&mut world, 4);
            }
            steps += 1;
        });
        made.expect("a snapshot is made");
        drop(engine);
        world.restart_for_good(End::Close);
        for (order, code) in [(1, "FIRST-1"), (2, "SECOND-1"), (3, "THIRD-1")] {
            assert!(world.drive());
            let what = What::Sell { order, product: 1, count: 1, validity_s_min: 0 };
            world.execute(&[Ask::new(10 + order, SELLERS[0], what)]);
            assert!(world.drive());
            assert_eq!(world.read_as.get(&(0, code.to_owned())), Some(&order), "at moment {moment}");
        }
    }
}

/// A row of an import showed its code and PIN in traces.
#[test]
fn an_import_row_showed_its_code() {
    let row = ImportRow { code: b"SECRET-1", pin: Some(b"4711"), face: Some(5), ..ImportRow::default() };
    let shown = format!("{row:?}");
    assert_eq!(shown, "ImportRow { code: …, pin: Some(\"…\"), face: Some(5), expires_ms: 0, origin: None }");
}

/// A start that is refused for its clock had begun a segment by then. A service manager that tries once a second
/// fills the disk with those.
#[test]
fn a_start_refused_for_its_clock_cost_a_segment() {
    let mut world = world();
    world.restart_for_good(End::Close);
    drop(world.engine.take());
    let wall_ms = kami_engine::Clock::read(&world.clock).wall_ms;
    world.clock.set_wall_ms(wall_ms - 3_600_000);
    let before = used(&world.medium);
    for _ in 0..3 {
        let refused = Engine::open(world.options(false));
        assert!(matches!(refused, Err(OpenError::ClockStep(_))), "a clock of an hour ago was believed");
    }
    assert_eq!(used(&world.medium), before);
}

/// A start dropped the keys that no batch of the store used. Yesterday's copy of a store, opened with today's keys
/// and imported into, made the codes of all that came since unreadable for good.
#[test]
fn an_older_copy_of_a_store_dropped_the_keys_of_later_imports() {
    let (today, keys) = (SimMedium::new(1, SimMode::Direct), SimMedium::new(2, SimMode::Direct));
    let open = |data: &SimMedium| {
        let options = EngineOptions {
            data: Arc::new(data.clone()),
            keys: Arc::new(keys.clone()),
            wal: WalOptions { segment_bytes: 64 << 10, drive: Drive::Manual, ..WalOptions::default() },
            clock: Box::new(ManualClock::new(EPOCH_MS)),
            accept_clock: false,
        };
        Engine::open(options)
    };
    let import = |engine: &Engine, id: u128, code: &str| {
        let row = ImportRow { code: code.as_bytes(), ..ImportRow::default() };
        let rows = std::iter::once(row);
        let session = Session::new(engine, Caller::LOCAL);
        session.import(RequestId(id), ImportSpec::of(ProductId(1), 1, 20), rows, |_| ()).expect("imported");
        engine.drive().expect("the disk is on");
    };
    let engine = open(&today).expect("a new store");
    let spec = ProductSpec::single("coffee", *b"CNY", 100);
    Session::new(&engine, Caller::LOCAL).add_product(RequestId(1), spec).wait().expect("a product");
    import(&engine, 2, "CODE-1");
    let yesterday = today.kill();
    import(&engine, 3, "CODE-2");
    drop(engine);
    import(&open(&yesterday).expect("yesterday's store opens"), 4, "CODE-3");
    open(&today).expect("today's store opens");
}

/// A snapshot that found the disk full was left behind as far as it had come. Nobody tried again before the log had
/// grown, and the log could not grow.
#[test]
fn a_snapshot_without_room_kept_the_room_there_was() {
    let mut world = world();
    let codes: Vec<String> = (0..2000).map(|n| format!("ROOM-{n}")).collect();
    stage(&mut world, 2, &codes.iter().map(String::as_str).collect::<Vec<_>>());
    commit(&mut world, 2);
    assert!(world.drive());
    world.engine().checkpoint().expect("there is room for one");
    let before = used(&world.medium);
    for room in [0, 4096, 8000, 16_000] {
        world.medium.set_capacity(Some(before + room));
        assert!(matches!(world.engine().checkpoint(), Err(CheckpointError::Io(_))), "{room} are too few");
        let names = world.medium.list("snapshots").expect("the disk is on");
        assert_eq!(names.len(), 1, "with room for {room}: {names:?}");
    }
    world.medium.set_capacity(None);
    world.restart_for_good(End::Kill);
}

/// Imports these cards and sells them.
fn sold(world: &mut World, codes: &[&str]) {
    stage(world, 2, codes);
    commit(world, 2);
    let count = codes.len() as u32;
    world.execute(&[Ask::new(3, SELLERS[0], What::Sell { order: 1, product: 1, count, validity_s_min: 0 })]);
    assert!(world.drive());
}

/// A till could redeem a card and give it back for ever: its chain of entries, which every command about it
/// reads, grew without bound.
#[test]
fn a_card_was_given_back_without_end() {
    let mut world = world();
    sold(&mut world, &["WORN-1"]);
    let code = || "WORN-1".to_owned();
    let redeem =
        |n| Ask::new(n, TILLS[0], What::Redeem { code: code(), pin: None, amount: 0, partial: false });
    let reverse = |n, original| Ask::new(n, TILLS[0], What::Reverse { code: code(), original });
    for n in 0..66 {
        world.execute(&[redeem(1000 + n), reverse(2000 + n, 1000 + n)]);
        assert!(world.drive());
    }
    assert_eq!(world.met.get("reverse OK"), Some(&64));
    assert_eq!(world.met.get("reverse REVERSALS_EXHAUSTED"), Some(&1));
    // And so it is with ids that were never seen.
    for n in 0..65 {
        world.execute(&[reverse(4000 + n, 3000 + n)]);
        assert!(world.drive());
    }
    assert_eq!(world.met.get("reverse TOMBSTONED"), Some(&64), "that of the refused redemption among them");
    assert_eq!(world.met.get("reverse REVERSALS_EXHAUSTED"), Some(&3));
    world.restart_for_good(End::Kill);
    // What had its effect is still answered with it.
    world.execute(&[reverse(2000, 1000)]);
    assert_eq!(world.met.get("reverse OK again"), Some(&1));
    assert!(world.drive());
}

/// The history of a card that an operator froze and unfroze all day was read and kept as a whole.
#[test]
fn a_history_without_end_was_read_as_a_whole() {
    let mut world = world();
    sold(&mut world, &["ICE-1"]);
    let history = |world: &World| {
        let ask = Ask::new(9, OPERATOR, What::History { code: "ICE-1".to_owned() });
        let reply = told(world, &[ask]).remove(0);
        let kami_engine::ReplyBody::History(events) = reply.body else { panic!("{:?}", reply.body) };
        (events, reply.flags.contains(kami_engine::ReplyFlags::PARTIAL))
    };
    // The sale is the first of them.
    for n in 1..1024 {
        let code = "ICE-1".to_owned();
        let what = if n % 2 == 1 { What::Freeze { code } } else { What::Unfreeze { code } };
        assert_eq!(told(&world, &[Ask::new(100 + n, OPERATOR, what)])[0].status, Status::Ok);
        assert!(world.drive());
    }
    let (events, partial) = history(&world);
    assert_eq!((events.len(), partial), (kami_engine::HISTORY_MAX + 1, false));
    assert_eq!(events.last().unwrap().kind, kami_engine::Kind::Import);
    told(&world, &[Ask::new(5000, OPERATOR, What::Unfreeze { code: "ICE-1".to_owned() })]);
    let (events, partial) = history(&world);
    assert_eq!((events.len(), partial), (kami_engine::HISTORY_MAX, true));
    assert_eq!(events[0].kind, kami_engine::Kind::Unfreeze);
}

/// A card whose entries cannot be read was answered BUSY before it was asked who may know of it: a code in stock
/// could be told from one that nobody has, and a till without scope, or without the PIN, was told of others' cards.
#[test]
fn an_unreadable_entry_told_that_there_is_a_card() {
    let mut world = world();
    stage(&mut world, 2, &["STOCK-1"]);
    commit(&mut world, 2);
    let reverse = |n: u128| What::Reverse { code: "STOCK-1".to_owned(), original: n };
    world.execute(&[Ask::new(10, TILLS[0], reverse(11))]);
    // On to another segment, so that the first one has to be read from the disk.
    for n in 0..1000 {
        let mut spec = ProductSpec::single("coffee", *b"CNY", 100);
        spec.reversal_s += (n % 2) as u32;
        world.execute(&[Ask::new(1000 + n, ADMIN, What::ProductPut { spec, adds: false })]);
        assert!(world.drive());
    }
    world.restart_for_good(End::Close);
    let first = world.medium.list("log").unwrap().into_iter().min().unwrap();
    world.medium.edit(&format!("log/{first}"), |bytes| bytes[4096..].fill(0xee));
    let told = |caller, what| told(&world, &[Ask::new(12, caller, what)]).remove(0);
    let query = || What::Query { code: "STOCK-1".to_owned() };
    assert_eq!(told(OPERATOR, query()).status, Status::Busy, "who may know of it is told");
    for reply in [told(TILLS[0], reverse(13)), told(TILLS[0], reverse(11))] {
        assert_eq!((reply.status, reply.miss), (Status::Tombstoned, true));
    }
    assert_eq!(told(TILLS[0], query()).status, Status::CardNotValid);
    let redeem = What::Redeem { code: "STOCK-1".to_owned(), pin: None, amount: 0, partial: false };
    assert_eq!(told(TILLS[0], redeem).status, Status::CardNotValid);
}
