//! Cards with value from end to end, as a till uses them.

use std::time::{Duration, Instant};

use crate::store::Home;

const FIRST: &str = "0123456789abcdef0123456789abcd01";
const HOLD: &str = "0123456789abcdef0123456789abcd02";
const SHORT: &str = "0123456789abcdef0123456789abcd03";

#[test]
fn a_gift_card_is_spent_in_parts_held_loaded_and_refunded() {
    let home = Home::new();
    let server = home.serve();
    server
        .run(&["product", "add", "swim", "--face", "200", "--currency", "CNY", "--kind", "uses"])
        .refuses_usage("--uses");
    let gift = server.json(&[
        "product",
        "add",
        "gift",
        "--face",
        "100",
        "--currency",
        "CNY",
        "--kind",
        "value",
        "--max",
        "150",
        "--reversal-hours",
        "0",
    ]);
    assert_eq!((&gift["kind"], &gift["value_max_minor"]), (&"value".into(), &15_000.into()));
    server.json(&[
        "product",
        "add",
        "swim",
        "--face",
        "200",
        "--currency",
        "CNY",
        "--kind",
        "uses",
        "--uses",
        "3",
    ]);
    home.file("gift.txt", "GIFT-00000001\nGIFT-00000002\n");
    home.file("swim.txt", "SWIM-00000001\n");
    server.json(&["import", "gift.txt", "--product", "gift"]);
    server.json(&["import", "swim.txt", "--product", "swim"]);
    server.run(&["load", "GIFT-00000001", "--amount", "1"]).fails(3, "NOT_SOLD");
    server.json(&["sell", "gift", "--count", "2", "--order", "1"]);
    server.json(&["sell", "swim", "--count", "1", "--order", "2"]);

    // In parts, once each; more than is left is refused, or taken in part.
    let part = ["redeem", "GIFT-00000001", "--amount", "12.50", "--id", FIRST];
    let redeemed = server.json(&part);
    assert_eq!((&redeemed["amount_minor"], &redeemed["remaining_minor"]), (&1250.into(), &8750.into()));
    assert_eq!(server.json(&part)["replayed"], true);
    server.run(&["redeem", "GIFT-00000001", "--amount", "87.51"]).fails(3, "INSUFFICIENT_VALUE");

    // A hold keeps its part until it is captured; what is not captured is free again.
    let held = server.json(&["hold", "GIFT-00000001", "--amount", "80", "--id", HOLD]);
    assert_eq!((&held["held_minor"], &held["remaining_minor"]), (&8000.into(), &8750.into()));
    server.run(&["redeem", "GIFT-00000001", "--amount", "7.51"]).fails(3, "INSUFFICIENT_VALUE");
    let shown = server.run(&["query", "GIFT-00000001"]).out;
    assert!(shown.contains("left     87.50 CNY") && shown.contains("held     80.00 CNY"), "{shown}");
    server.run(&["capture", "GIFT-00000001", "--hold", HOLD, "--amount", "80.01"]).fails(3, "EXCEEDS_HOLD");
    let captured = server.json(&["capture", "GIFT-00000001", "--hold", HOLD, "--amount", "60"]);
    assert_eq!((&captured["amount_minor"], &captured["remaining_minor"]), (&6000.into(), &2750.into()));
    server.run(&["release", "GIFT-00000001", "--hold", HOLD]).fails(3, "HOLD_RESOLVED");
    let rest = server.json(&["redeem", "GIFT-00000001", "--amount", "50", "--partial"]);
    assert_eq!((&rest["status"], &rest["amount_minor"]), (&"OK_PARTIAL".into(), &2750.into()));

    // Loaded up to its most; what can be reversed no more is refunded.
    let loaded = server.json(&["load", "GIFT-00000001", "--amount", "150"]);
    assert_eq!(loaded["remaining_minor"], 15_000);
    server.run(&["load", "GIFT-00000001", "--minor", "1"]).fails(3, "VALUE_LIMIT");
    server.json(&["redeem", "GIFT-00000001", "--amount", "10"]);
    server.json(&["settle", "GIFT-00000001"]);
    server.run(&["reverse", "GIFT-00000001", "--original", FIRST]).fails(3, "SETTLED");
    let refund = server.json(&["refund", "GIFT-00000001", "--original", FIRST, "--amount", "2.50"]);
    assert_eq!((&refund["amount_minor"], &refund["remaining_minor"]), (&250.into(), &14_250.into()));
    server
        .run(&["refund", "GIFT-00000001", "--original", FIRST, "--amount", "10.01"])
        .fails(3, "INSUFFICIENT_VALUE");

    // The server ends a hold that nobody ended, by itself.
    server.json(&["hold", "GIFT-00000002", "--for", "1s", "--id", SHORT]);
    let begun = Instant::now();
    loop {
        let events = server.json(&["history", "GIFT-00000002"])["events"].clone();
        if events[0]["event"] == "HOLD_TIMEOUT" {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{events}");
        std::thread::sleep(Duration::from_millis(50));
    }
    server.run(&["capture", "GIFT-00000002", "--hold", SHORT]).fails(3, "HOLD_EXPIRED");

    // Uses.
    let used = server.run(&["redeem", "SWIM-00000001"]);
    assert!(used.out.contains("1 use of swim"), "{used:?}");
    assert_eq!(server.json(&["redeem", "SWIM-00000001", "--uses", "2"])["remaining_minor"], 0);
    server.run(&["redeem", "SWIM-00000001"]).fails(3, "USES_EXHAUSTED");

    server.stop();
    let found = home.run(&["verify", "--data", "kami-data", "--json"]).json();
    assert_eq!(found["whole"], true, "{found}");
}
