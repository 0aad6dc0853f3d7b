//! The command line from end to end, as a merchant, a shop and a till use it.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::store::Home;

const FIRST: &str = "0123456789abcdef0123456789abcdef";
const SECOND: &str = "0123456789abcdef0123456789abcde0";

#[test]
fn a_day_in_the_life_of_a_store() {
    let home = Home::new();
    let server = home.serve();
    assert_eq!(server.ready("cards"), 0);
    assert!(server.line.ends_with("commit=direct\n") || server.line.ends_with("commit=mapped\n"));

    // Products.
    let product = server.json(&["product", "add", "coffee", "--face", "28", "--currency", "cny"]);
    assert_eq!((&product["face_minor"], &product["id"]), (&2800.into(), &1.into()));
    server.run(&["product", "add", "coffee", "--face", "1", "--currency", "CNY"]).fails(3, "ALREADY_EXISTS");
    let product = server.json(&["product", "set", "coffee", "--face", "30.5", "--valid-days", "90"]);
    assert_eq!((&product["face_minor"], &product["valid_days"]), (&3050.into(), &90.into()));
    assert_eq!(server.json(&["product", "list"])["products"][0]["currency"], "CNY");

    // Imports: CSV as a spreadsheet saves it, and text.
    home.file(
        "cards.csv",
        "\u{feff}卡号,密码,面值,有效期\r\nCOFFEE-0001,11,28.5,2099-12-31\r\nCOFFEE-0002,22,,\r\n",
    );
    let batch = server.json(&["import", "cards.csv", "--product", "coffee", "--label", "PO-17"]);
    assert_eq!((&batch["cards"], &batch["label"]), (&2.into(), &"PO-17".into()));
    home.file("more.txt", (1..=500).map(|n| format!("MORE-{n:06}\n")).collect::<String>());
    let batch =
        server.json(&["import", "more.txt", "--product", "1", "--inactive", "--expires", "2099-01-01"]);
    assert_eq!((&batch["cards"], &batch["active"]), (&500.into(), &false.into()));
    server.run(&["import", "more.txt", "--product", "coffee"]).fails(3, "as batch 2");

    // Selling: the same order again is the same sale.
    let sell = ["sell", "coffee", "--count", "3", "--order", "2026-0001"];
    let sold = server.run(&sell);
    assert_eq!(sold.out, "COFFEE-0001\nCOFFEE-0002\nMORE-000001\n", "{sold:?}");
    let again = server.json(&sell);
    assert_eq!((&again["replayed"], &again["count"]), (&true.into(), &3.into()));
    assert_eq!(server.run(&["order", "2026-0001"]).out, sold.out);
    server.run(&["sell", "coffee", "--count", "4", "--order", "2026-0001"]).fails(3, "ID_REUSED");
    server.run(&["sell", "coffee", "--count", "900", "--order", "2"]).fails(3, "OUT_OF_STOCK");
    server.run(&["order", "unheard-of"]).fails(3, "NOT_FOUND");

    // Redeeming: by PIN, from standard input, once.
    server.run(&["redeem", "COFFEE-0001"]).fails(3, "CARD_NOT_VALID");
    let redeemed =
        server.run_with(&["redeem", "-", "--pin", "-", "--id", FIRST, "--json"], "COFFEE-0001\n11\n").json();
    assert_eq!((&redeemed["amount_minor"], &redeemed["replayed"]), (&2850.into(), &false.into()));
    let again = server.json(&["redeem", "COFFEE-0001", "--pin", "11", "--id", FIRST]);
    assert_eq!((&again["lsn"], &again["replayed"]), (&redeemed["lsn"], &true.into()));
    let twice = server.run(&["redeem", "COFFEE-0001", "--pin", "11", "--id", SECOND]);
    twice.fails(3, "ALREADY_REDEEMED");
    server.run(&["redeem", "MORE-000001"]).fails(3, "NOT_ACTIVE");
    let some = server.json(&["batch", "activate", "2", "--rows", "1..101"]);
    assert_eq!((&some["active"], &some["active_rows"]), (&false.into(), &100.into()));
    server.run(&["redeem", "MORE-000001"]).fails(3, "NOT_ACTIVE");
    server.run(&["batch", "activate", "2", "--rows", "400..501"]).fails(3, "NOT_FOUND");
    assert!(server.run(&["batch", "list"]).out.contains("active in part"));
    assert_eq!(server.json(&["batch", "activate", "2"])["active"], true);
    let card = ["deactivate", "MORE-000001"];
    assert_eq!(server.json(&card)["state"], "SOLD");
    server.run(&["redeem", "MORE-000001"]).fails(3, "NOT_ACTIVE");
    server.json(&["activate", "MORE-000001"]);
    assert_eq!(server.json(&["expire", "MORE-000001"])["state"], "EXPIRED");
    server.run(&["redeem", "MORE-000001"]).fails(3, "EXPIRED");
    assert_eq!(server.json(&["extend", "MORE-000001", "2099-12-31"])["state"], "SOLD");
    assert_eq!(server.json(&["redeem", "MORE-000001"])["amount_minor"], 3050);

    // Taking it back.
    assert_eq!(server.json(&["reverse", "COFFEE-0001", "--original", FIRST])["amount_minor"], 2850);
    let late = server.json(&["reverse", "COFFEE-0001", "--original", SECOND]);
    assert_eq!(late["status"], "TOMBSTONED");
    server.run(&["redeem", "COFFEE-0001", "--pin", "11", "--id", SECOND]).fails(3, "REVERSED_BEFORE_ARRIVAL");

    // Looking: the code is not shown in full.
    let shown = server.run(&["query", "COFFEE-0001"]);
    assert!(shown.out.contains("****0001") && shown.out.contains("SOLD 已售"), "{shown:?}");
    assert!(!shown.out.contains("COFFEE-0001"), "{shown:?}");
    let history = server.json(&["history", "COFFEE-0001"]);
    let events: Vec<&str> =
        history["events"].as_array().unwrap().iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(events, ["TOMBSTONE", "REVERSE", "REDEEM", "SELL", "IMPORT"]);

    // Freezing and voiding, by card, batch and product.
    server.json(&["freeze", "COFFEE-0002"]);
    server.run(&["redeem", "COFFEE-0002", "--pin", "22"]).fails(3, "FROZEN");
    server.json(&["unfreeze", "COFFEE-0002"]);
    assert_eq!(server.json(&["void", "MORE-000500"])["state"], "VOIDED");
    assert_eq!(server.json(&["batch", "freeze", "2"])["frozen"], true);
    server.run(&["sell", "coffee", "--count", "1", "--order", "3"]).fails(3, "OUT_OF_STOCK");
    server.json(&["batch", "unfreeze", "2"]);
    assert_eq!(server.json(&["product", "freeze", "coffee"])["frozen"], true);
    server.json(&["product", "unfreeze", "coffee"]);
    assert_eq!(server.json(&["batch", "extend", "2", "2099-06-01"])["id"], 2);
    assert_eq!(server.json(&["batch", "list", "coffee"])["total"], 2);

    // Figures.
    let stock = server.json(&["stock", "coffee"]);
    assert_eq!((&stock["imported"], &stock["sellable"]), (&502.into(), &498.into()));
    let stats = server.json(&["stats"]);
    assert_eq!((&stats["cards"], &stats["states"]["REDEEMED"]), (&502.into(), &1.into()));
    assert!(server.run(&["stats"]).out.contains("cards        502"));

    // The end of the day, and the books.
    let ended = server.stop();
    assert_eq!((ended.code, ended.out.as_str()), (Some(0), ""), "{ended:?}");
    let verified = home.run(&["verify", "--data", "kami-data", "--json"]).json();
    assert_eq!((&verified["whole"], &verified["cards"]), (&true.into(), &502.into()));
    let inspected = home.run(&["wal", "inspect", "--data", "kami-data", "--json"]).json();
    assert_eq!((&inspected["entries"]["TOMBSTONE"], &inspected["entries"]["SELL"]), (&1.into(), &1.into()));
    let records = home.run(&["wal", "inspect", "--data", "kami-data", "--records"]);
    assert!(records.out.contains("REVERSE") && !records.out.contains("COFFEE"), "{records:?}");
}

#[test]
fn validity_may_count_from_the_sale() {
    let home = Home::new();
    let server = home.serve();
    let add = ["product", "add", "pass", "--face", "99", "--currency", "CNY"];
    let product = server.json(&[&add[..], &["--valid-days", "30", "--valid-from", "sale"]].concat());
    assert_eq!((&product["valid_from"], &product["valid_days"]), (&"sale".into(), &30.into()));
    home.file("pass.txt", "PASS-0001\n");
    server.json(&["import", "pass.txt", "--product", "pass"]);
    assert_eq!(server.json(&["query", "PASS-0001"])["expires_ms"], 0);
    server.json(&["sell", "pass", "--count", "1", "--order", "A-1"]);
    let sold = server.json(&["history", "PASS-0001"])["events"][0]["time_ms"].as_u64().unwrap();
    let ends = server.json(&["query", "PASS-0001"])["expires_ms"].as_u64().unwrap();
    assert_eq!(ends - sold, 30 * 24 * 3600 * 1000);
}

#[test]
fn principals_may_what_their_role_allows_until_they_are_revoked() {
    let home = Home::new();
    let server = home.serve();
    server.json(&["product", "add", "tea", "--face", "5", "--currency", "CNY"]);
    let till = server.json(&[
        "principal",
        "add",
        "till-1",
        "--role",
        "redeemer",
        "--out",
        "till",
        "--merchant",
        "7",
    ]);
    assert_eq!((&till["id"], &till["merchant"]), (&2.into(), &7.into()));
    server
        .run(&["principal", "add", "till-1", "--role", "redeemer", "--out", "other"])
        .fails(3, "ALREADY_EXISTS");
    let unknown = server.run(&["principal", "add", "x", "--role", "emperor", "--out", "x"]);
    assert_eq!(unknown.code, Some(2), "{unknown:?}");
    // A till may redeem, and is told no more than that a card is not valid.
    server.run(&["redeem", "TEA-0001", "--identity", "till"]).fails(3, "CARD_NOT_VALID");
    server.run(&["stock", "--identity", "till"]).fails(3, "FORBIDDEN");
    server.json(&["principal", "revoke", "till-1"]);
    server.run(&["redeem", "TEA-0001", "--identity", "till"]).fails(3, "does not know this identity");
    let names: Vec<_> = server.json(&["principal", "list"])["principals"]
        .as_array()
        .unwrap()
        .iter()
        .map(|principal| (principal["name"].clone(), principal["revoked"].clone()))
        .collect();
    assert_eq!(names, [("admin".into(), false.into()), ("till-1".into(), true.into())]);
}

#[test]
fn a_server_ends_in_order_and_starts_again_at_once() {
    let home = Home::new();
    let server = home.serve();
    server.stock("tea", "5", (0..20_000).map(|n| format!("TEA-{n:08}\n")).collect::<String>());
    server.json(&["sell", "tea", "--count", "20000", "--order", "all"]);
    let begun = Instant::now();
    server.signal(Signal::INT);
    let ended = server.stop();
    // A second signal ends it at once, which is as good.
    assert!(matches!(ended.code, Some(0 | 130)), "{ended:?}");
    assert!(begun.elapsed() < Duration::from_secs(5), "nobody is connected, so there is nothing to wait for");

    let server = home.serve();
    let ended = server.stop();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.err.contains("closed with a snapshot"), "{ended:?}");
    let begun = Instant::now();
    let server = home.serve();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(server.ready("cards"), 20_000);
    assert_eq!(server.json(&["principal", "list"])["principals"].as_array().unwrap().len(), 1, "one admin");
    assert_eq!(server.json(&["order", "all"])["count"], 20_000);
}

#[test]
fn generated_codes_are_the_owners_alone_and_can_be_imported() {
    use std::os::unix::fs::PermissionsExt;

    let home = Home::new();
    let made = home.run(&[
        "codes", "generate", "--count", "2000", "--prefix", "TEA-", "--groups", "--pin", "6", "--out",
        "tea.csv", "--json",
    ]);
    assert_eq!((&made.json()["count"], &made.json()["random_bits"]), (&2000.into(), &95.into()));
    assert_eq!(std::fs::metadata(home.path("tea.csv")).unwrap().permissions().mode() & 0o777, 0o600);
    let text = std::fs::read_to_string(home.path("tea.csv")).unwrap();
    let (code, pin) = text.lines().nth(1).unwrap().split_once(',').unwrap();
    assert_eq!((code.len(), pin.len(), code.matches('-').count()), ("TEA-".len() + 24, 6, 5));
    assert!(!made.out.contains(code) && !made.err.contains(code));
    // Never over a file that is there, and nothing is left beside it.
    home.run(&["codes", "generate", "--count", "1", "--out", "tea.csv"]).fails(2, "is there already");
    home.run(&["codes", "generate", "--count", "1", "--pin", "4", "--out", "tea.txt"]).fails(2, ".txt");
    assert_eq!(
        home.run(&["codes", "generate", "--count", "1", "--prefix", "=1", "--out", "x.csv"]).code,
        Some(2)
    );
    assert_eq!(std::fs::read_dir(home.path(".")).unwrap().count(), 1);

    let server = home.serve();
    server.json(&["product", "add", "tea", "--face", "5", "--currency", "CNY"]);
    assert_eq!(server.json(&["import", "tea.csv", "--product", "tea"])["cards"], 2000);
    server.json(&["sell", "tea", "--count", "1", "--order", "1"]);
    server.json(&["redeem", code, "--pin", pin]);
}

#[test]
fn figures_are_shown_again_with_rates() {
    use std::io::{BufRead, BufReader};
    let home = Home::new();
    let server = home.serve();
    let mut command = server.command(&["stats", "--watch", "1", "--json"]);
    let mut watching = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    let mut next = || -> serde_json::Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    assert_eq!(next()["per_second"], serde_json::json!({}), "nothing to compare with yet");
    let second = next();
    assert!(second["per_second"]["commands"].is_u64() && second["cards"] == 0, "{second}");
    watching.kill().unwrap();
    watching.wait().unwrap();
}

/// Names and labels come from others: none of them may steer the terminal of whoever lists them.
#[test]
fn what_others_typed_does_not_steer_the_terminal() {
    let home = Home::new();
    let server = home.serve();
    server.json(&["product", "add", "te\u{202e}a", "--face", "5", "--currency", "CNY"]);
    home.file("tea.txt", "TEA-0001\n");
    let import = |label: &str| server.run(&["import", "tea.txt", "--product", "1", "--label", label]);
    import("PO\u{1b}]0;owned\u{7}").refuses_usage("no control characters");
    assert_eq!(import("PO\u{2067}17").code, Some(0));
    for listing in [&["product", "list"][..], &["batch", "list"], &["batch", "list", "--json"], &["stock"]] {
        let shown = server.run(listing).out;
        assert!(shown.contains("202e") && !shown.contains(['\u{202e}', '\u{2067}']), "{shown}");
    }
    let listed = server.json(&["batch", "list"]);
    assert_eq!(listed["batches"][0]["label"], "PO\u{2067}17", "a script reads what it is");
    // The header of a card file, in what is said of it.
    home.file("odd.csv", "code,x\u{1b}[2Jy\nTEA-0002,1\n");
    let odd = server.run(&["import", "odd.csv", "--product", "1"]);
    assert!(odd.err.contains("a name that is not known") && !odd.err.contains('\u{1b}'), "{odd:?}");
}
