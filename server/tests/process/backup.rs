//! Backups of a store that is being served, and servers on what is restored from them.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use kami_wal::{DiskMedium, DiskOptions, ReadOnlyDisk};

use crate::store::{Home, Server};

fn stock(home: &Home, server: &Server<'_>, from: u32, cards: u32) {
    if from == 0 {
        server.json(&["product", "add", "tea", "--face", "5", "--currency", "CNY"]);
    }
    home.file("tea.txt", (from..from + cards).map(|n| format!("TEA-{n:08}\n")).collect::<String>());
    server.json(&["import", "tea.txt", "--product", "tea"]);
}

/// Stops the trading, also when the test panics: the scope would wait for it for ever.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_backup_is_taken_while_the_store_is_traded_on_and_restores_to_any_moment() {
    let home = Home::new();
    let server = home.serve();
    stock(&home, &server, 0, 2000);

    // Orders go on all the time while the backup is taken, and taken again.
    let stop = AtomicBool::new(false);
    let (first, orders) = std::thread::scope(|scope| {
        let trading = scope.spawn(|| {
            let mut orders = 0;
            while !stop.load(Ordering::Relaxed) || orders < 5 {
                server.json(&["sell", "tea", "--count", "10", "--order", &format!("order-{orders}")]);
                orders += 1;
            }
            orders
        });
        let stopping = Stop(&stop);
        let backup = || {
            home.run(&["backup", "--data", "kami-data", "--out", "backup", "--max-rate", "0", "--json"])
                .json()
        };
        let first = backup();
        for _ in 0..3 {
            let next = backup();
            assert!(next["end"].as_u64() >= first["end"].as_u64(), "{next}");
            assert!(next["files_written"].as_u64().unwrap() <= 1, "the cards are there already: {next}");
        }
        drop(stopping);
        (first, trading.join().unwrap())
    });
    assert_eq!((&first["segments"], &first["batches"]), (&1.into(), &1.into()));
    // The one entry more is the last order, which everything before the backup's end precedes.
    let last = server.json(&["sell", "tea", "--count", "10", "--order", "last"]);
    let sold = 10 * (orders + 1);
    assert_eq!(server.json(&["stats"])["states"]["SOLD"], sold);
    server.stop();
    let done =
        home.run(&["backup", "--data", "kami-data", "--out", "backup", "--max-rate", "0", "--json"]).json();
    assert!(
        done["end"].as_u64() > last["lsn"].as_u64(),
        "a store that was closed is there to the end: {done}"
    );

    let keys = ["--keys", "kami-data.keys", "--json"];
    let whole = home.run(&["verify", "--backup", "backup", "--json"]).json();
    assert_eq!((&whole["whole"], &whole["end"]), (&true.into(), &done["end"]));
    let whole = home.run(&[&["verify", "--backup", "backup"][..], &keys].concat()).json();
    assert_eq!((&whole["whole"], &whole["cards"]), (&true.into(), &2000.into()));
    let inspected = home.run(&["wal", "inspect", "--backup", "backup", "--json"]).json();
    assert_eq!(inspected["entries"]["SELL"], orders + 1);

    // Up to before the last order.
    let lsn = last["lsn"].as_u64().unwrap().to_string();
    let restore = ["restore", "--from", "backup", "--data", "before", "--until-lsn", &lsn, "--json"];
    let would = home.run(&[&restore[..], &["--dry-run"]].concat()).json();
    assert_eq!((&would["dropped"]["SELL"], &would["dropped_cards_sold"]), (&1.into(), &10.into()));
    assert!(!home.path("before").exists(), "only looked at");
    let restored = home.run(&restore).json();
    assert_eq!((&restored["lsn"], &restored["dropped"]), (&would["lsn"], &would["dropped"]));
    home.run(&restore).fails(6, "not empty");
    home.run(&["verify", "--data", "before"]).fails(6, "the keys of the store are missing");
    let copy = ["keys", "copy", "--keys", "kami-data.keys", "--out", "before.keys"];
    let copied = home.run(&copy);
    assert_eq!(copied.code, Some(0), "{copied:?}");
    home.run(&copy).fails(6, "not empty");
    assert_eq!(home.run(&["verify", "--data", "before", "--json"]).json()["whole"], true);

    // A server on the restored store, with the old certificates.
    let server = home.try_serve(&["--data", "before"]).unwrap();
    assert_eq!(server.json(&["stats"])["states"]["SOLD"], sold - 10);
    server.run(&["order", "last"]).fails(3, "NOT_FOUND");
    server.json(&["sell", "tea", "--count", "10", "--order", "another"]);
    server.stop();
    let verified = home.run(&["verify", "--data", "before", "--json"]).json();
    assert_eq!(verified["whole"], true);
    assert_eq!(verified["epoch"].as_u64(), restored["epoch"].as_u64().map(|epoch| epoch + 1));
    home.run(&["backup", "--data", "before", "--out", "backup", "--max-rate", "0"])
        .fails(6, "does not continue");
    let inspected = home.run(&["wal", "inspect", "--data", "before", "--json"]).json();
    assert_eq!(inspected["entries"]["RESTORE"], 1);
}

#[test]
fn what_is_no_backup_or_no_store_is_told_apart() {
    let home = Home::new();
    let server = home.serve();
    stock(&home, &server, 0, 10);
    server.kill();
    let backup = |out: &str| home.run(&["backup", "--data", "kami-data", "--out", out, "--max-rate", "0"]);
    assert_eq!(backup("backup").code, Some(0));
    home.run(&["verify", "--data", "backup", "--keys", "kami-data.keys"])
        .fails(6, "this directory is a backup");
    home.run(&["backup", "--data", "backup", "--out", "other"]).fails(6, "this directory is a backup");
    home.run(&["verify", "--backup", "kami-data"]).fails(5, "no complete backup");
    home.run(&["restore", "--from", "kami-data", "--data", "new"]).fails(5, "no complete backup");
    home.run(&["restore", "--from", "backup", "--data", "new", "--until", "2001-01-01"])
        .fails(2, "begins at");
    backup("kami-data/backup").fails(2, "in one another");
    fs::create_dir(home.path("full")).unwrap();
    home.file("full/letter", "dear");
    backup("full").fails(6, "is no backup and is not empty");
    home.run(&["restore", "--from", "backup", "--data", "full"]).fails(6, "not empty");
    home.run(&["backup", "--data", "nowhere", "--out", "other"]).fails(6, "cannot be read");

    // A store of somebody else, and a byte that changed.
    let other = Home::new();
    other.serve().kill();
    let data = other.path("kami-data");
    home.run(&["backup", "--data", data.to_str().unwrap(), "--out", "backup", "--max-rate", "0"])
        .fails(6, "another store's");
    let batch = home.path("backup/batches/00000001.batch");
    let mut bytes = fs::read(&batch).unwrap();
    bytes[4300] ^= 1;
    fs::write(&batch, bytes).unwrap();
    for keys in [&[][..], &["--keys", "kami-data.keys"]] {
        let damaged = home.run(&[&["verify", "--backup", "backup"], keys].concat());
        assert_eq!(damaged.code, Some(5));
        assert!(damaged.out.contains("batches/00000001.batch"), "{damaged:?}");
    }
    home.run(&["verify", "--backup", "backup", "--keys", "nowhere"])
        .fails(6, "the keys of the store are missing");
    home.run(&["restore", "--from", "backup", "--data", "new"]).fails(5, "backup is damaged");
    let serve = ["serve", "--data", "new", "--listen", "127.0.0.1:0"];
    home.run(&serve).fails(6, "cut short");
    // As the error says: it is copied anew from the store.
    fs::remove_file(&batch).unwrap();
    home.run(&["verify", "--backup", "backup", "--json"]).names_problem("missing");
    assert_eq!(
        home.run(&["backup", "--data", "kami-data", "--out", "backup", "--max-rate", "0", "--json"]).code,
        Some(0)
    );
    assert_eq!(home.run(&["verify", "--backup", "backup", "--json"]).json()["whole"], true);
}

/// A run removes files that it replaced, and whoever reads the backup would call them missing.
#[test]
fn a_backup_is_not_changed_while_it_is_read_nor_read_while_it_is_changed() {
    let home = Home::new();
    let server = home.serve();
    stock(&home, &server, 0, 10);
    server.stop();
    let run = ["backup", "--data", "kami-data", "--out", "backup", "--max-rate", "0"];
    assert_eq!(home.run(&run).code, Some(0));
    let reading = ReadOnlyDisk::open_locked(home.path("backup")).unwrap();
    home.run(&run).fails(6, "is being verified or restored from");
    assert_eq!(home.run(&["verify", "--backup", "backup"]).code, Some(0), "any number may read");
    drop(reading);
    let options = DiskOptions { unsafe_filesystem: true, ..DiskOptions::default() };
    let changing = DiskMedium::open(home.path("backup"), options).unwrap();
    for reader in [
        &["verify", "--backup", "backup"][..],
        &["restore", "--from", "backup", "--data", "new"],
        &["wal", "inspect", "--backup", "backup"],
    ] {
        home.run(reader).fails(6, "a backup into this directory is under way");
    }
    drop(changing);
    assert_eq!(home.run(&run).code, Some(0));
}

/// What is not a backup's stays, in and beside it.
#[test]
fn a_run_removes_only_what_runs_have_made() {
    let home = Home::new();
    home.serve().stop();
    for dir in ["backup/lost+found", "backup/segments", "backup/batches"] {
        fs::create_dir_all(home.path(dir)).unwrap();
    }
    home.file("backup/segments/letter.txt", "dear");
    home.file("backup/batches/00000009.batch.new", "left");
    assert_eq!(
        home.run(&["backup", "--data", "kami-data", "--out", "backup", "--max-rate", "0"]).code,
        Some(0)
    );
    assert!(home.path("backup/segments/letter.txt").exists());
    assert!(!home.path("backup/batches/00000009.batch.new").exists());
    fs::create_dir_all(home.path("new/lost+found")).unwrap();
    let restored = home.run(&["restore", "--from", "backup", "--data", "new"]);
    assert_eq!(restored.code, Some(0), "{restored:?}");
}
