//! What tills leave behind, from end to end: wrong PINs, and requests whose answer was lost.

use crate::store::Home;

const FIRST: &str = "0123456789abcdef0123456789abcd01";
const SECOND: &str = "0123456789abcdef0123456789abcd02";

#[test]
fn a_till_asks_what_became_of_its_request() {
    let home = Home::new();
    let server = home.serve();
    server.json(&["product", "add", "coffee", "--face", "28", "--currency", "CNY"]);
    home.file("cards.txt", "COFFEE-0001\nCOFFEE-0002\n");
    server.json(&["import", "cards.txt", "--product", "coffee"]);
    server.json(&["sell", "coffee", "--count", "1", "--order", "2026-1"]);
    for name in ["till-1", "till-2"] {
        server.json(&["principal", "add", name, "--role", "redeemer", "--merchant", "3", "--out", name]);
    }
    let asked =
        |till: &str, id: &str| server.json(&["outcome", id, "--card", "COFFEE-0001", "--identity", till]);
    assert_eq!(asked("till-1", FIRST)["status"], "NO_EFFECT");
    let redeem = ["redeem", "COFFEE-0001", "--id", FIRST, "--identity", "till-1"];
    let redeemed = server.json(&redeem);
    let outcome = asked("till-1", FIRST);
    assert_eq!((&outcome["event"], &outcome["lsn"]), (&"REDEEM".into(), &redeemed["lsn"]));
    assert_eq!((&outcome["amount_minor"], &outcome["remaining_minor"]), (&2800.into(), &0.into()));
    assert_eq!(asked("till-2", FIRST)["status"], "NO_EFFECT", "another's request is not told of");
    assert_eq!(
        server.json(&["outcome", FIRST, "--card", "COFFEE-0001"])["principal"],
        outcome["principal"],
        "but to whoever looks after all"
    );
    // Neither what is not sold nor what does not exist answers otherwise.
    for code in ["COFFEE-0002", "COFFEE-0009"] {
        let outcome = server.json(&["outcome", FIRST, "--card", code, "--identity", "till-1"]);
        assert_eq!(outcome["status"], "NO_EFFECT");
    }
    server.json(&["reverse", "COFFEE-0001", "--original", SECOND, "--identity", "till-1"]);
    let never = ["outcome", SECOND, "--card", "COFFEE-0001", "--identity", "till-1"];
    server.run(&never).fails(3, "REVERSED_BEFORE_ARRIVAL");
    server.json(&["reverse", "COFFEE-0001", "--original", FIRST, "--identity", "till-1"]);
    assert_eq!(asked("till-1", FIRST)["reversed"], true);
    assert_eq!(server.json(&["outcome", FIRST, "--order", "2026-1"])["status"], "NO_EFFECT");
    server.run(&["outcome", FIRST]).refuses_usage("--card");
}

#[test]
fn wrong_pins_lock_a_card_for_one_till_until_an_operator_sees_to_it() {
    let home = Home::new();
    let server = home.serve();
    server.json(&["product", "add", "gift", "--face", "28", "--currency", "CNY"]);
    home.file("cards.csv", "code,pin\nGIFT-0001,4711\n");
    server.json(&["import", "cards.csv", "--product", "gift"]);
    server.json(&["sell", "gift", "--count", "1", "--order", "1"]);
    server.run(&["pin-unlock", "GIFT-0001"]).fails(3, "ILLEGAL_TRANSITION");
    for name in ["till-1", "till-2"] {
        server.json(&["principal", "add", name, "--role", "redeemer", "--out", name]);
    }
    let wrong = ["redeem", "GIFT-0001", "--pin", "0000", "--identity", "till-1", "--timeout", "1"];
    for _ in 0..5 {
        server.run(&wrong).fails(3, "CARD_NOT_VALID");
    }
    // The budget of wrong codes comes first; an operator gives it back. Nothing is locked yet.
    server.run(&wrong).fails(3, "RATE_LIMITED");
    server.run(&["pin-unlock", "GIFT-0001"]).fails(3, "ILLEGAL_TRANSITION");
    for _ in 0..5 {
        server.run(&wrong).fails(3, "CARD_NOT_VALID");
    }
    // The tenth locks. A restart gives the budget back, and the lock stays, whatever the PIN.
    server.stop();
    let server = home.serve();
    let redeem = |till| ["redeem", "GIFT-0001", "--pin", "4711", "--identity", till];
    server.run(&redeem("till-1")).fails(3, "PIN_LOCKED");
    server.run(&wrong).fails(3, "PIN_LOCKED");
    // Nobody else is locked: the customer goes to the next till.
    let elsewhere = server.json(&redeem("till-2"));
    let id = elsewhere["request"].as_str().unwrap();
    server.json(&["reverse", "GIFT-0001", "--original", id, "--identity", "till-2"]);
    assert_eq!(server.json(&["pin-unlock", "GIFT-0001"])["state"], "SOLD");
    server.json(&redeem("till-1"));
    let events = server.json(&["history", "GIFT-0001"]);
    assert_eq!(
        (&events["events"][0]["event"], &events["events"][1]["event"]),
        (&"REDEEM".into(), &"PIN_UNLOCK".into())
    );
}
