//! Imports that are interrupted, repeated and overtaken.

use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use kami_engine::{
    BatchId, Caller, DUPLICATES_MAX, Duplicate, Engine, EngineOptions, Failure, ImportRow, ImportSpec,
    Lifecycle, ProductId, ProductSpec, Reply, ReplyBody, ReplyFlags, RequestId, Role, Status,
};
use kami_wal::{CommitPath, File, Medium, SimMedium};

use crate::store::{End, Store, caller};

/// A store with a product and no cards.
fn empty() -> Store {
    let store = Store::with_segments(1 << 16);
    store.product(ProductSpec::single("p", *b"CNY", 100));
    store
}

fn rows(codes: &[String]) -> impl Iterator<Item = ImportRow<'_>> {
    codes.iter().map(|code| ImportRow { code: code.as_bytes(), ..ImportRow::default() })
}

fn codes(count: u32) -> Vec<String> {
    (0..count).map(|n| format!("CODE-{n:06}")).collect()
}

fn stage(engine: &Engine, id: u128, codes: &[String]) {
    let caller = Caller::LOCAL;
    let spec = ImportSpec::of(ProductId(1), codes.len() as u64, 16);
    assert_eq!(engine.import_begin(caller, RequestId(id), spec).unwrap().status, Status::Ok);
    let reply = engine.import_chunk(caller, RequestId(id), 0, &mut rows(codes)).unwrap();
    assert_eq!(reply.status, Status::Ok);
}

fn commit(engine: &Engine, id: u128) -> Reply {
    engine.import_commit(Caller::LOCAL, RequestId(id)).unwrap()
}

/// Two imports of the same cards: the first fails for want of disk after its digests are in the index, the
/// second overtakes it, the first is tried again. Only one may have the cards.
#[test]
fn an_overtaken_import_does_not_bring_its_cards_a_second_time() {
    let mut store = empty();
    let (engine, session) = (store.engine(), store.session());
    // Not the same list, or it would be known as the same batch.
    let (first, second) = (codes(200), codes(100));
    stage(engine, 10, &first);
    stage(engine, 11, &second);

    // No room for another segment: the log fills up until nothing can be recorded.
    store.data.set_capacity(Some(0));
    // A reversal of nothing takes less room than any commit.
    let mut id = 100;
    loop {
        id += 1;
        match session.reverse(RequestId(id), "NOBODYS", RequestId(1)).wait() {
            Ok(_) => engine.drive().unwrap(),
            Err(Failure::Refused(Status::DiskFull)) => break,
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(commit(engine, 10).status, Status::DiskFull);
    store.data.set_capacity(None);
    store.drive();
    assert_eq!(commit(engine, 11).status, Status::Ok);
    assert_eq!(commit(engine, 10).status, Status::DuplicateCard);
    let stock = session.stock(None).wait().unwrap();
    assert_eq!(stock.iter().map(|line| line.imported).sum::<u64>(), 100);
    assert_eq!(session.query(&first[150]).wait().unwrap_err().to_string(), refused(Status::NotFound));

    // A card that is there twice would refuse to open.
    store.restart(End::Close);
}

/// Of batches this large, several threads add the digests to the index: one card stays one card, and what is told of the
/// others is told in their order.
#[test]
fn large_imports_with_common_cards_are_told_apart_card_by_card() {
    const ROWS: u32 = 250_000;
    let mut store = empty();
    let first = codes(ROWS);
    let mut second: Vec<String> = (0..ROWS).map(|n| format!("MORE-{n:06}")).collect();
    let common = || (10..ROWS).step_by(17);
    common().for_each(|n| second[n as usize].clone_from(&first[(ROWS - n) as usize]));
    stage(store.engine(), 10, &first);
    stage(store.engine(), 11, &second);
    let committed = commit(store.engine(), 10);
    assert_eq!(committed.status, Status::Ok);
    let refused = commit(store.engine(), 11);
    assert_eq!(refused.status, Status::DuplicateCard);
    let ReplyBody::Batches(batches) = committed.body else { panic!("{:?}", committed.body) };
    let first_batch = batches[0].id;
    let told = |n: u32| Duplicate { row: n.into(), batch: Some(first_batch), other_row: (ROWS - n).into() };
    let ReplyBody::Duplicates(duplicates) = refused.body else { panic!("{:?}", refused.body) };
    assert_eq!(duplicates, common().take(DUPLICATES_MAX).map(told).collect::<Vec<_>>());

    // The index is built again, in the same way; a card that is there twice would refuse to open.
    store.restart(End::Close);
    let session = store.session();
    for n in (0..ROWS).step_by(9973) {
        assert_eq!(session.query(&first[n as usize]).wait().unwrap().lifecycle, Lifecycle::Available);
        let only_there = !common().any(|common| common == n);
        assert!(!only_there || session.query(&second[n as usize]).wait().is_err());
    }
}

#[test]
fn a_commit_that_found_no_room_can_be_repeated() {
    let store = empty();
    let (engine, session) = (store.engine(), store.session());
    let codes = codes(50);
    stage(engine, 10, &codes);
    assert_eq!(commit(engine, 10).status, Status::Ok);
    let again = commit(engine, 10);
    assert_eq!(again.status, Status::Ok);
    assert!(again.flags.contains(ReplyFlags::REPLAYED));
    stage_again_is_known(engine, &codes);
    assert_eq!(session.stock(None).wait().unwrap()[0].imported, 50);
}

fn stage_again_is_known(engine: &Engine, codes: &[String]) {
    stage(engine, 12, codes);
    assert_eq!(commit(engine, 12).status, Status::DuplicateBatch);
}

fn refused(status: Status) -> String {
    Failure::Refused(status).to_string()
}

/// A chunk is taken as a whole or not at all: what was found in one that was refused is forgotten with it.
#[test]
fn a_refused_chunk_leaves_no_duplicates_behind() {
    let store = empty();
    let (engine, session) = (store.engine(), store.session());
    let mut codes = codes(200);
    codes[5] = codes[4].clone();
    let right = std::mem::replace(&mut codes[150], "bad".to_owned());
    let (caller, id) = (Caller::LOCAL, RequestId(10));
    let spec = ImportSpec { skip_duplicates: true, ..ImportSpec::of(ProductId(1), 200, 16) };
    engine.import_begin(caller, id, spec).unwrap();
    let report = |reply: Reply| match reply.body {
        ReplyBody::Import(report) => (reply.status, report.rows, report.duplicates),
        other => panic!("{other:?}"),
    };
    let refused = engine.import_chunk(caller, id, 0, &mut rows(&codes)).unwrap();
    assert_eq!(report(refused), (Status::Malformed, 150, 0));
    codes[150] = right;
    // Another order: what stood in the refused rows is not what stands there now.
    codes.reverse();
    let taken = engine.import_chunk(caller, id, 0, &mut rows(&codes)).unwrap();
    assert_eq!(report(taken), (Status::Ok, 200, 1));
    let listed = engine.import_duplicates(caller, id, 0).unwrap();
    let ReplyBody::Duplicates(listed) = listed.body else { panic!() };
    assert_eq!((listed[0].row, listed[0].other_row, listed[0].batch), (195, 194, None));
    assert_eq!(commit(engine, 10).status, Status::Ok);
    for code in &codes {
        assert_eq!(session.query(code).wait().unwrap().lifecycle, Lifecycle::Available);
    }
    assert_eq!(session.stock(None).wait().unwrap()[0].imported, 199);
    engine.check().unwrap();
}

/// Rows that are left out are holes in the file, behind every column; the others are where they belong, in
/// memory and after a start.
#[test]
fn an_import_with_rows_left_out_is_whole_after_a_start() {
    let mut store = empty();
    let engine = store.engine();
    stage(engine, 10, &codes(100));
    assert_eq!(commit(engine, 10).status, Status::Ok);
    let codes = codes(5000);
    let row = |n: usize| ImportRow {
        code: codes[n].as_bytes(),
        pin: None,
        face: Some(n as i64),
        expires_ms: if n.is_multiple_of(2) { 1_900_000_000_000 + n as u64 } else { 0 },
        ..ImportRow::default()
    };
    let spec = ImportSpec {
        skip_duplicates: true,
        faces: true,
        expiries: true,
        ..ImportSpec::of(ProductId(1), 6000, 16)
    };
    let (caller, id) = (Caller::LOCAL, RequestId(11));
    engine.import_begin(caller, id, spec).unwrap();
    for first in (0..6000_usize).step_by(500) {
        // The last thousand are those before once more.
        let mut rows = (first..first + 500).map(|n| row(n % 5000));
        assert_eq!(engine.import_chunk(caller, id, first as u64, &mut rows).unwrap().status, Status::Ok);
    }
    assert_eq!(commit(engine, 11).status, Status::Ok);
    for _ in 0..2 {
        for n in [100, 101, 2500, 4999] {
            let card = store.card(&codes[n]);
            let expires_ms = if n % 2 == 0 { 1_900_000_000_000 + n as u64 } else { 0 };
            assert_eq!((card.face, card.expires_ms, card.card.row()), (n as i64, expires_ms, n as u64 - 100));
        }
        store.restart(End::Close);
    }
}

/// Asking how far an import is, and beginning it again, never wait for whoever works on it: a commit may take
/// minutes, and those who ask would keep every thread there is for such commands. What must have it to itself
/// is told to come again.
#[test]
fn nobody_waits_for_somebody_elses_work_on_an_import() {
    let store = empty();
    let engine = store.engine();
    let (caller, id) = (Caller::LOCAL, RequestId(10));
    let codes = codes(2000);
    let spec = ImportSpec::of(ProductId(1), 2000, 16);
    engine.import_begin(caller, id, spec.clone()).unwrap();
    engine.import_chunk(caller, id, 0, &mut rows(&codes[..1000])).unwrap();

    // A chunk that is under way for as long as the test likes.
    let (begun, has_begun) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel::<()>();
    let working = std::thread::spawn({
        let (engine, codes) = (engine.clone(), codes.clone());
        move || {
            let mut slow = rows(&codes[1000..]).inspect(|row| {
                if row.code == codes[1500].as_bytes() {
                    begun.send(()).unwrap();
                    may_go_on.recv().unwrap();
                }
            });
            engine.import_chunk(caller, id, 1000, &mut slow).unwrap()
        }
    });
    has_begun.recv().unwrap();
    let (answer, answers) = mpsc::channel();
    std::thread::spawn({
        let (engine, codes) = (engine.clone(), codes.clone());
        move || {
            let _ = answer.send(engine.import_status(caller, id).unwrap());
            let _ = answer.send(engine.import_begin(caller, id, spec).unwrap());
            let _ = answer.send(engine.import_duplicates(caller, id, 0).unwrap());
            let _ = answer.send(engine.import_chunk(caller, id, 1000, &mut rows(&codes[1000..])).unwrap());
            let _ = answer.send(engine.import_commit(caller, id).unwrap());
            let _ = answer.send(engine.import_abort(caller, id).unwrap());
        }
    });
    let next = || answers.recv_timeout(Duration::from_secs(30)).expect("it waits for the chunk");
    for _ in 0..2 {
        let reply = next();
        let ReplyBody::Import(report) = reply.body else { panic!("{reply:?}") };
        assert_eq!((reply.status, report.rows, report.rows_total), (Status::Ok, 1000, 2000));
    }
    for _ in 0..4 {
        assert_eq!(next().status, Status::Busy);
    }
    go_on.send(()).unwrap();
    assert_eq!(working.join().unwrap().status, Status::Ok);
    let ReplyBody::Import(report) = engine.import_status(caller, id).unwrap().body else { panic!() };
    assert_eq!(report.rows, 2000);
    assert_eq!(commit(engine, 10).status, Status::Ok);
}

/// A disk of keys whose next directory sync takes as long as the test likes.
struct SlowKeys {
    disk: SimMedium,
    /// Told that the sync has begun; waited for before it ends.
    gate: Mutex<Option<(mpsc::Sender<()>, mpsc::Receiver<()>)>>,
}

impl Medium for SlowKeys {
    fn commit_path(&self) -> CommitPath {
        self.disk.commit_path()
    }
    fn list(&self, dir: &str) -> std::io::Result<Vec<String>> {
        self.disk.list(dir)
    }
    fn create(&self, path: &str) -> std::io::Result<Box<dyn File>> {
        self.disk.create(path)
    }
    fn open(&self, path: &str) -> std::io::Result<Box<dyn File>> {
        self.disk.open(path)
    }
    fn rename(&self, from: &str, to: &str) -> std::io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove(&self, path: &str) -> std::io::Result<()> {
        self.disk.remove(path)
    }
    fn sync_dir(&self, dir: &str) -> std::io::Result<()> {
        let gate = self.gate.lock().unwrap().take();
        if let Some((begun, go_on)) = gate {
            begun.send(()).unwrap();
            go_on.recv().unwrap();
        }
        self.disk.sync_dir(dir)
    }
}

/// An import that begins waits for its key to be on the disk. Nobody waits with it: neither who asks for another
/// import, nor who works on one, nor who sends the same again.
#[test]
fn nobody_waits_for_the_key_of_an_import_that_begins() {
    let mut store = empty();
    store.end(End::Close);
    let keys = Arc::new(SlowKeys { disk: store.keys.clone(), gate: Mutex::default() });
    let engine = Engine::open(EngineOptions { keys: keys.clone(), ..store.options() }).unwrap();
    let codes = codes(100);
    stage(&engine, 10, &codes);

    let (begun, has_begun) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel();
    *keys.gate.lock().unwrap() = Some((begun, may_go_on));
    let (caller, spec) = (Caller::LOCAL, ImportSpec::of(ProductId(1), 100, 16));
    let beginning = std::thread::spawn({
        let (engine, spec) = (engine.clone(), spec.clone());
        move || engine.import_begin(caller, RequestId(11), spec).unwrap().status
    });
    has_begun.recv().unwrap();
    let (answer, answers) = mpsc::channel();
    std::thread::spawn({
        let (engine, spec) = (engine.clone(), spec.clone());
        move || {
            for reply in [
                engine.import_status(caller, RequestId(10)),
                engine.import_commit(caller, RequestId(10)),
                engine.import_begin(caller, RequestId(11), spec),
                engine.import_status(caller, RequestId(11)),
            ] {
                let _ = answer.send(reply.unwrap().status);
            }
        }
    });
    let next = || answers.recv_timeout(Duration::from_secs(30)).expect("it waits for the key");
    assert_eq!((next(), next()), (Status::Ok, Status::Ok));
    assert_eq!((next(), next()), (Status::Busy, Status::NotFound), "it has not begun yet");
    go_on.send(()).unwrap();
    assert_eq!(beginning.join().unwrap(), Status::Ok);
    assert_eq!(engine.import_begin(caller, RequestId(11), spec).unwrap().status, Status::Ok);
}

/// An issuer is told of its own imports where a card is, and of all others that it is known: neither in which batch
/// nor in which place, nor that its whole list is somebody else's.
#[test]
fn an_issuer_learns_of_another_ones_codes_that_they_are_known_and_no_more() {
    let store = empty();
    let engine = store.engine();
    let issuer = |n: u32| caller(900 + n, Role::Issuer);
    let import = |caller, id, codes: &[String]| {
        let spec = ImportSpec::of(ProductId(1), codes.len() as u64, 16);
        engine.import_begin(caller, RequestId(id), spec).unwrap();
        engine.import_chunk(caller, RequestId(id), 0, &mut rows(codes)).unwrap();
        let told = engine.import_duplicates(caller, RequestId(id), 0).unwrap();
        let ReplyBody::Duplicates(told) = told.body else { panic!("{told:?}") };
        let committed = engine.import_commit(caller, RequestId(id)).unwrap();
        let refused = match committed.body {
            ReplyBody::Duplicates(refused) => refused,
            _ => Vec::new(),
        };
        (committed.status, told, refused)
    };
    let all = codes(20);
    assert_eq!(import(issuer(1), 10, &all[..10]).0, Status::Ok);

    let (status, told, refused) = import(issuer(2), 11, &all[5..15]);
    let hidden: Vec<Duplicate> = (0..5).map(Duplicate::elsewhere).collect();
    assert_eq!((status, &told, &refused), (Status::DuplicateCard, &hidden, &hidden));
    let (status, told, _) = import(issuer(2), 12, &all[..10]);
    assert_eq!((status, told.len(), told[9]), (Status::DuplicateCard, 10, Duplicate::elsewhere(9)));
    // Two lists at a time: the second to be committed is overtaken.
    let spec = ImportSpec::of(ProductId(1), 5, 16);
    engine.import_begin(issuer(2), RequestId(13), spec).unwrap();
    engine.import_chunk(issuer(2), RequestId(13), 0, &mut rows(&all[15..])).unwrap();
    assert_eq!(import(issuer(1), 14, &all[15..]).0, Status::Ok);
    let overtaken = engine.import_commit(issuer(2), RequestId(13)).unwrap();
    let ReplyBody::Duplicates(refused) = &overtaken.body else { panic!("{overtaken:?}") };
    assert_eq!((overtaken.status, refused[4]), (Status::DuplicateCard, Duplicate::elsewhere(4)));

    // Its own, and those who look after all, are told.
    let (status, told, _) = import(issuer(1), 15, &all[..10]);
    assert_eq!((status, told[9].batch, told[9].other_row), (Status::DuplicateBatch, Some(BatchId(1)), 9));
    let (status, told, _) = import(Caller::LOCAL, 16, &all[3..6]);
    assert_eq!((status, told[0].other_row), (Status::DuplicateCard, 3));
}

/// Staged imports are places and files. One principal does not take all of them, and what nobody goes on with
/// is gone after a day without anybody beginning another.
#[test]
fn staged_imports_are_bounded_by_principal_and_by_time() {
    const MINUTE: u64 = 60_000;
    let store = empty();
    let (engine, data) = (store.engine(), &store.data);
    let (one, other) = (store.enrol("one", Role::Issuer), store.enrol("other", Role::Issuer));
    let spec = ImportSpec::of(ProductId(1), 10, 16);
    let begin = |caller, id| {
        // Engine time goes on with what is asked.
        store.now_ms();
        engine.import_begin(caller, RequestId(id), spec.clone()).unwrap().status
    };
    for id in 10..18 {
        assert_eq!(begin(one, id), Status::Ok);
        store.clock.advance(MINUTE);
    }
    assert_eq!(begin(one, 18), Status::Busy, "one more than it may");
    assert_eq!(begin(other, 19), Status::Ok, "the other has its own places");
    assert_eq!(begin(one, 10), Status::Ok, "gone on with");
    // The one that was left alone the longest gives way, as soon as that is long enough.
    store.clock.advance(5 * MINUTE);
    let there = |caller, id| engine.import_status(caller, RequestId(id)).unwrap().status;
    assert_eq!(begin(one, 18), Status::Ok);
    assert_eq!((there(one, 10), there(one, 11), there(one, 12)), (Status::Ok, Status::NotFound, Status::Ok));
    assert_eq!(begin(one, 20), Status::Ok, "the next one");
    assert_eq!(begin(one, 21), Status::Busy);

    let files = || data.list("batches").unwrap().len();
    assert_eq!((files(), engine.give_up_imports()), (9, 0));
    store.clock.advance(24 * 60 * MINUTE + 1);
    assert_eq!(engine.give_up_imports(), 9, "nobody has to ask for anything");
    assert_eq!((files(), engine.give_up_imports()), (0, 0));
    assert_eq!(there(other, 19), Status::NotFound);
}

/// A label is shown to whoever lists the batches: one that steers their terminals is no label.
#[test]
fn a_label_is_text() {
    let store = empty();
    let engine = store.engine();
    let begin = |id, label: &str| {
        let spec = ImportSpec { label: label.to_owned(), ..ImportSpec::of(ProductId(1), 1, 16) };
        engine.import_begin(Caller::LOCAL, RequestId(id), spec).unwrap().status
    };
    for (id, label) in [(10, "PO\u{1b}[2J"), (11, "PO\n17"), (12, "PO\u{9b}"), (13, &"x".repeat(129))] {
        assert_eq!(begin(id, label), Status::Malformed, "{label:?}");
    }
    assert_eq!(begin(14, "供货商 17"), Status::Ok);
}
