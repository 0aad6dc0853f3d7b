//! What moves two cards, from end to end: a replacement that only the buyer can fetch, and value that goes from one card
//! to another.

use serde_json::{Value, json};

use crate::store::Home;

const FIRST: &str = "0123456789abcdef0123456789abcd01";

fn kinds(history: &Value) -> Vec<&str> {
    let events = history["events"].as_array().expect("events");
    events.iter().map(|event| event["event"].as_str().expect("a name")).collect()
}

#[test]
fn an_operator_replaces_a_card_and_only_its_buyer_reads_the_new_code() {
    let home = Home::new();
    let server = home.serve();
    server.stock("coffee", "28", "COFFEE-0001\nCOFFEE-0002\nCOFFEE-0003\nCOFFEE-0004\n");
    for (name, role) in [("shop", "seller"), ("ops", "operator")] {
        server.json(&["principal", "add", name, "--role", role, "--out", name]);
    }
    server.json(&["sell", "coffee", "--count", "2", "--order", "2026-1", "--identity", "shop"]);
    let replace = ["replace", "COFFEE-0001", "--why", "lost in the post", "--id", FIRST, "--identity", "ops"];
    let replaced = server.json(&replace);
    assert_eq!((&replaced["card"], &replaced["replayed"]), (&json!("1/2"), &json!(false)));
    assert_eq!((&replaced["state"], &replaced["remaining_minor"]), (&json!("SOLD"), &json!(2800)));
    let shown = server.run(&replace).done();
    assert!(shown.contains("earlier, by the same request") && !shown.contains("COFFEE-0003"), "{shown}");
    server.run(&["order", "2026-1", "--identity", "ops"]).fails(3, "APPROVAL_REQUIRED");
    let order = server.json(&["order", "2026-1", "--identity", "shop"]);
    let codes: Vec<&str> =
        order["codes"].as_array().unwrap().iter().map(|code| code.as_str().unwrap()).collect();
    assert_eq!(codes, ["COFFEE-0003", "COFFEE-0002"], "in the place of the lost one");
    server.run(&["redeem", "COFFEE-0001"]).fails(3, "VOIDED");
    server.run(&["replace", "COFFEE-0001", "--identity", "ops"]).fails(3, "REPLACED");
    server
        .run(&["replace", "COFFEE-0003", "--with", "COFFEE-0002", "--identity", "ops"])
        .fails(3, "OTHER_UNFIT");
    server.run(&["replace", "COFFEE-0003", "--identity", "shop"]).fails(3, "FORBIDDEN");
    server.stop();
    let server = home.serve();
    assert_eq!(server.json(&replace)["replayed"], true, "also after a restart");
    let old = server.json(&["history", "COFFEE-0001"]);
    assert_eq!(kinds(&old), ["REPLACE", "SELL", "IMPORT"]);
    assert_eq!(
        (&old["events"][0]["other_card"], &old["events"][0]["why"]),
        (&json!("1/2"), &json!("lost in the post"))
    );
    let new = server.json(&["history", "COFFEE-0003"]);
    assert_eq!(kinds(&new), ["REPLACEMENT", "IMPORT"]);
    assert_eq!(new["events"][0]["other_card"], "1/0");
    assert!(server.run(&["history", "COFFEE-0003"]).done().contains("REPLACEMENT of 1/0"));
    let changes = server.json(&["changes"]);
    let changes = changes["changes"].as_array().unwrap();
    assert!(changes.iter().any(|change| change["kind"] == "REPLACE" && change["other_card"] == "1/2"));
    server.stop();
    home.run(&["verify", "--data", "kami-data"]).done();
}

#[test]
fn value_goes_from_one_card_to_another() {
    let home = Home::new();
    let server = home.serve();
    let add = ["product", "add", "gift", "--face", "100", "--currency", "CNY", "--kind", "value"];
    server.json(&[&add[..], &["--max", "150"]].concat());
    home.file("cards.txt", "GIFT-0001\nGIFT-0002\nGIFT-0003\n");
    server.json(&["import", "cards.txt", "--product", "gift"]);
    server.json(&["sell", "gift", "--count", "2", "--order", "1"]);
    server.run(&["transfer", "GIFT-0001", "GIFT-0002", "--amount", "60"]).fails(3, "VALUE_LIMIT");
    server.run(&["transfer", "GIFT-0001", "GIFT-0003", "--amount", "1"]).fails(3, "OTHER_UNFIT");
    let moved = server.json(&["transfer", "GIFT-0001", "GIFT-0002", "--amount", "40", "--id", FIRST]);
    assert_eq!((&moved["amount_minor"], &moved["remaining_minor"]), (&json!(4000), &json!(6000)));
    let again = server.json(&["transfer", "GIFT-0001", "GIFT-0002", "--amount", "40", "--id", FIRST]);
    assert_eq!((&again["replayed"], &again["lsn"]), (&json!(true), &moved["lsn"]));
    server.json(&["redeem", "GIFT-0002", "--amount", "90"]);
    let all = server.run(&["transfer", "GIFT-0001", "GIFT-0002", "--why", "one card for both"]).done();
    assert!(all.contains("transferred 60.00 CNY from ****0001 to ****0002; 0.00 CNY left"), "{all}");
    assert_eq!(server.json(&["query", "GIFT-0002"])["remaining_minor"], 11_000);
    let gone = server.json(&["query", "GIFT-0001"]);
    assert_eq!((&gone["state"], &gone["remaining_minor"]), (&json!("VOIDED"), &json!(0)));
    assert_eq!(kinds(&server.json(&["history", "GIFT-0002"]))[..3], ["RECEIVE", "REDEEM", "RECEIVE"]);
    server.stop();
    home.run(&["verify", "--data", "kami-data"]).done();
}
