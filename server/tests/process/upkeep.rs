//! Looking after a store while it is traded on: snapshots on demand, a new master key.

use std::fs;

use kami_engine::RequestId;
use kami_net::Client;
use kami_net::client::RedeemOptions;
use tokio::task::JoinSet;

use crate::store::{ADMIN, Home, Server};

fn stocked(home: &Home) -> crate::store::Server<'_> {
    let server = home.serve();
    server.stock("tea", "5", (0..1000).map(|n| format!("TEA-{n:08}\n")).collect::<String>());
    server
}

#[test]
fn a_snapshot_is_written_when_asked_for_and_used_at_the_next_start() {
    let home = Home::new();
    let server = stocked(&home);
    let snapshots = || fs::read_dir(home.path("kami-data/snapshots")).unwrap().count();
    let made = server.json(&["checkpoint"]);
    assert_eq!(snapshots(), 1);
    assert!(made["start"].as_u64() <= made["end"].as_u64() && made["bytes"].as_u64() > Some(8000), "{made}");
    let text = server.run(&["checkpoint"]);
    assert!(text.out.starts_with("snapshot  ") && text.out.contains("replay    begins at lsn"), "{text:?}");
    assert_eq!(snapshots(), 1, "nothing happened meanwhile, so it is the same");
    server.json(&["principal", "add", "op", "--role", "operator", "--out", "op"]);
    server.json(&["principal", "add", "till", "--role", "redeemer", "--out", "till"]);
    let later = server.json(&["checkpoint", "--identity", "op"]);
    assert!(later["start"].as_u64() > made["start"].as_u64(), "{later}");
    server.run(&["checkpoint", "--identity", "till"]).fails(3, "FORBIDDEN");
    server.run(&["keys", "rotate", "--identity", "op"]).fails(3, "FORBIDDEN");
    assert_eq!(snapshots(), 2, "two generations");
    server.json(&["sell", "tea", "--count", "10", "--order", "1"]);
    server.kill();
    let server = home.serve();
    assert_eq!(server.json(&["stats"])["states"]["SOLD"], 10);
    server.kill();
    let verified = home.run(&["verify", "--data", "kami-data", "--json"]).json();
    assert_eq!((&verified["whole"], &verified["snapshots"]), (&true.into(), &2.into()));
}

#[test]
fn a_new_master_key_opens_old_and_new_batches_and_the_old_key_nothing() {
    let home = Home::new();
    let server = stocked(&home);
    let key = home.path("kami-data.keys/master.key");
    let old = fs::read(&key).unwrap();
    let id = "0123456789abcdef0123456789abcdef";
    let rotated = server.json(&["keys", "rotate", "--id", id]);
    assert_eq!((&rotated["keys"], &rotated["replayed"]), (&1.into(), &false.into()));
    let new = fs::read(&key).unwrap();
    assert_ne!(old, new);
    let again = server.json(&["keys", "rotate", "--id", id]);
    assert_eq!((&again["key"], &again["lsn"]), (&rotated["key"], &rotated["lsn"]));
    assert_eq!((&again["replayed"], fs::read(&key).unwrap()), (&true.into(), new));
    let next = server.run(&["keys", "rotate", "--why", "the yearly one"]);
    assert!(next.out.contains("wraps the keys of 1 batches"), "{next:?}");
    assert!(!home.path("kami-data.keys/master.key.previous").exists());
    let changes = server.run(&["changes"]).out;
    assert!(changes.contains("the yearly one"), "{changes}");

    // Codes of the batch from before, and of one after; now and after a crash.
    home.file("more.txt", "MORE-0001\nMORE-0002\n");
    server.json(&["import", "more.txt", "--product", "tea"]);
    let sell = ["sell", "tea", "--count", "1001", "--order", "1"];
    let sold = server.run(&sell).out;
    assert!(sold.starts_with("TEA-00000000\n") && sold.ends_with("MORE-0001\n"));
    server.kill();
    let server = home.serve();
    assert_eq!(server.run(&["order", "1"]).out, sold);
    server.stop();
    let inspected = home.run(&["wal", "inspect", "--data", "kami-data", "--json"]).json();
    assert_eq!(inspected["entries"]["KEY_ROTATE"], 2);
    assert_eq!(home.run(&["verify", "--data", "kami-data", "--json"]).json()["whole"], true);

    // The key from before opens nothing any more.
    fs::write(&key, old).unwrap();
    home.run(&["verify", "--data", "kami-data"]).fails(6, "not this store's");
}

/// Redeems cards that were sold, many at once: 73 to 128 bytes of log each.
fn redeem(server: &Server<'_>, codes: &[&str]) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let client = Client::connect(server.options(ADMIN)).await.unwrap();
        let mut tasks = JoinSet::new();
        for codes in codes.chunks(codes.len().div_ceil(256)) {
            let client = client.clone();
            let codes: Vec<String> = codes.iter().map(|code| (*code).to_owned()).collect();
            tasks.spawn(async move {
                for code in codes {
                    let options =
                        RedeemOptions { request: Some(RequestId::random()), ..RedeemOptions::default() };
                    client.redeem(code.as_bytes(), options).await.unwrap();
                }
            });
        }
        tasks.join_all().await;
        client.close().await;
    });
}

/// A server that was killed before it had logged as much as a snapshot is due for counted anew each time, so
/// that starts took longer and longer.
#[test]
fn a_snapshot_is_due_by_what_was_logged_since_the_last_one() {
    let home = Home::new();
    home.file("tea.txt", (0..16_000).map(|n| format!("TEA-{n:08}\n")).collect::<String>());
    let server = home.serve_logged(&["--checkpoint-mib", "1"]);
    server.json(&["product", "add", "tea", "--face", "5", "--currency", "CNY"]);
    server.json(&["import", "tea.txt", "--product", "tea"]);
    let sold = server.run(&["sell", "tea", "--count", "16000", "--order", "1"]).out;
    let codes: Vec<&str> = sold.lines().collect();
    let snapshots = || fs::read_dir(home.path("kami-data/snapshots")).map_or(0, Iterator::count);
    redeem(&server, &codes[..8000]);
    server.kill();
    assert_eq!(snapshots(), 0, "too little was logged");
    let server = home.serve_logged(&["--checkpoint-mib", "1"]);
    redeem(&server, &codes[8000..]);
    home.wait_for_log("wrote a snapshot", 1);
    server.kill();
    // A new start begins a new segment of the log, which is no growth.
    let server = home.serve_logged(&["--checkpoint-mib", "1"]);
    assert_eq!(server.json(&["stats"])["states"]["REDEEMED"], 16_000);
    assert_eq!(server.stop().code, Some(0));
    assert!(!home.text("log").contains("wrote a snapshot"), "{}", home.text("log"));
}
