//! What tills leave behind, from end to end: wrong PINs, requests whose answer was lost, redemptions made offline.

use crate::store::Home;

const FIRST: &str = "0123456789abcdef0123456789abcd01";
const SECOND: &str = "0123456789abcdef0123456789abcd02";

#[test]
fn a_till_asks_what_became_of_its_request() {
    let home = Home::new();
    let server = home.serve();
    server.stock("coffee", "28", "COFFEE-0001\nCOFFEE-0002\n");
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
    server.stock("gift", "28", "code,pin\nGIFT-0001,4711\n");
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

#[test]
fn a_redemption_made_offline_is_one_or_waits_for_an_operator() {
    let home = Home::new();
    let server = home.serve();
    server.stock("coffee", "28", "COFFEE-0001\nCOFFEE-0002\n");
    server.json(&["sell", "coffee", "--count", "2", "--order", "1"]);
    server.json(&["principal", "add", "till", "--role", "redeemer", "--merchant", "3", "--out", "till"]);
    let now = server.json(&["stats"])["time_ms"].as_u64().unwrap();
    let made = |ms: u64| {
        let (days, left) = (ms / 86_400_000, ms % 86_400_000 / 1000);
        let stamp = (days as i64, left);
        format!("{}", Stamp(stamp))
    };
    let advise = |code: &str, id: &str, at: u64| {
        server.json(&["advice", code, "--id", id, "--made", &made(at), "--identity", "till"])
    };
    let first = advise("COFFEE-0001", FIRST, now);
    assert_eq!(first["remaining_minor"], 0);
    // Again it is the same, and so is the redemption that may have been under way.
    assert_eq!(advise("COFFEE-0001", FIRST, now)["lsn"], first["lsn"]);
    let redeem = ["redeem", "COFFEE-0001", "--id", FIRST, "--identity", "till"];
    assert_eq!(server.json(&redeem)["lsn"], first["lsn"]);
    assert_eq!(server.json(&["history", "COFFEE-0001"])["events"][0]["event"], "REDEEM");
    // What does not fit is noted, and nothing is told of why.
    for (code, id) in [("COFFEE-0001", SECOND), ("COFFEE-0009", SECOND)] {
        assert_eq!(advise(code, id, now)["status"], "EXCEPTION_NOTED");
        assert_eq!(advise(code, id, now)["status"], "EXCEPTION_NOTED", "once more");
    }
    // Before the card was sold nobody had it.
    assert_eq!(advise("COFFEE-0002", FIRST, now - 3_600_000)["status"], "EXCEPTION_NOTED");
    let list = |all: &[&str]| server.json(&[&["exceptions", "list"], all].concat())["exceptions"].clone();
    let reasons: Vec<_> = list(&[]).as_array().unwrap().iter().map(|row| row["reason"].clone()).collect();
    assert_eq!(reasons, ["ALREADY_REDEEMED", "CARD_NOT_VALID", "NOT_SOLD"]);
    server.run(&["exceptions", "list", "--identity", "till"]).fails(3, "FORBIDDEN");
    let resolved = server.json(&["exceptions", "resolve", "2", "--note", "the shop bears it"]);
    assert_eq!(resolved["note"], "the shop bears it");
    server.run(&["exceptions", "resolve", "2", "--note", "again"]).fails(3, "ILLEGAL_TRANSITION");
    // All of it stands in the log.
    server.stop();
    let server = home.serve();
    let list = |all: &[&str]| server.json(&[&["exceptions", "list"], all].concat())["exceptions"].clone();
    assert_eq!(list(&[]).as_array().unwrap().len(), 2);
    assert_eq!(list(&["--all"])[1]["note"], "the shop bears it");
}

/// A time as RFC 3339 writes it, from days since 1970 and seconds.
struct Stamp((i64, u64));

impl std::fmt::Display for Stamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (days, seconds) = self.0;
        // Days from civil, backwards (Howard Hinnant).
        let z = days + 719_468;
        let era = z.div_euclid(146_097);
        let doe = z.rem_euclid(146_097);
        let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
        let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
        let mp = (5 * doy + 2) / 153;
        let (day, month) = (doy - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
        let year = yoe + era * 400 + i64::from(month <= 2);
        let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}
