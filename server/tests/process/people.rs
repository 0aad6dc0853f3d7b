//! Letting people and tills in, for a time and for some things.

use kami_net::CertificateFacts;
use kami_net::{Certificate, Identity};
use serde_json::Value;

use crate::store::Home;

fn facts(home: &Home, name: &str) -> CertificateFacts {
    Certificate::load(&home.path(name)).unwrap().facts().unwrap()
}

fn principal(list: &Value, name: &str) -> Value {
    let all = list["principals"].as_array().unwrap();
    all.iter().find(|principal| principal["name"] == name).unwrap().clone()
}

/// The key is made at the till, stays there, and is let in; a renewal changes nothing but the certificate.
#[test]
fn a_key_that_never_leaves_its_till() {
    let home = Home::new();
    let server = home.serve();
    let pair = rcgen::KeyPair::generate().unwrap();
    let request = rcgen::CertificateParams::default().serialize_request(&pair).unwrap().pem().unwrap();
    home.file("till.csr", &request);
    let add = [
        "principal",
        "add",
        "till-2",
        "--role",
        "redeemer",
        "--csr",
        "till.csr",
        "--lifetime",
        "90",
        "--out",
        "till-2",
    ];
    let added = server.json(&add);
    assert_eq!((&added["state"], &added["id"]), (&"active".into(), &2.into()));
    assert!(!home.path("till-2/key.pem").exists(), "there is no key to write");
    let first = facts(&home, "till-2");
    assert_eq!(added["expires_ms"], first.note.expires_ms);
    assert_eq!(added["serial"], format!("{:x}", first.note.serial));

    // At the till, the key lies beside what came back.
    home.file("till-2/key.pem", pair.serialize_pem());
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(home.path("till-2/key.pem"), private).unwrap();
    let as_till = ["query", "CARD-0001", "--identity", "till-2"];
    server.run(&as_till).fails(3, "CARD_NOT_VALID");

    let renewed = server.json(&["principal", "renew", "till-2", "--out", "till-2"]);
    let second = facts(&home, "till-2");
    assert_eq!((second.key, &second.name), (first.key, &first.name));
    assert!(second.note.expires_ms > first.note.expires_ms + 200 * 24 * 3600 * 1000, "365 days, not 90");
    assert_eq!(
        (&renewed["id"], &renewed["serial"]),
        (&2.into(), &format!("{:x}", second.note.serial).into())
    );
    assert_eq!(principal(&server.json(&["principal", "list"]), "till-2"), renewed);
    server.run(&as_till).fails(3, "CARD_NOT_VALID");

    // Another key: the old one opens nothing.
    let other = rcgen::KeyPair::generate().unwrap();
    let request = rcgen::CertificateParams::default().serialize_request(&other).unwrap().pem().unwrap();
    home.file("new.csr", &request);
    Identity::load(&home.path("till-2")).unwrap().save(&home.path("old")).unwrap();
    server.json(&["principal", "renew", "till-2", "--csr", "new.csr", "--out", "new"]);
    server.run(&["query", "CARD-0001", "--identity", "old"]).fails(3, "does not know this identity");

    // What the server does not agree to changes no file: another's key would open nothing, or somebody else's.
    let kept = facts(&home, "new");
    server.json(&[
        "principal",
        "add",
        "till-3",
        "--role",
        "redeemer",
        "--csr",
        "till.csr",
        "--out",
        "till-3",
    ]);
    let others = ["principal", "renew", "till-2", "--csr", "till.csr", "--out", "new"];
    server.run(&others).fails(3, "ALREADY_EXISTS");
    assert_eq!(facts(&home, "new"), kept);

    // What cannot be.
    home.file("broken.csr", request.replacen('M', "N", 1));
    let broken = ["principal", "add", "x", "--role", "redeemer", "--csr", "broken.csr", "--out", "x"];
    server.run(&broken).fails(2, "openssl req");
    for lifetime in ["0", "826"] {
        let long = ["principal", "add", "x", "--role", "redeemer", "--out", "x", "--lifetime", lifetime];
        assert_eq!(server.run(&long).code, Some(2));
    }
    let many =
        ["principal", "add", "x", "--role", "redeemer", "--out", "x", "--misses-per-minute", "1000001"];
    assert_eq!(server.run(&many).code, Some(2));
    let wrong = ["principal", "renew", "admin", "--out", "till-2"];
    server.run(&wrong).fails(6, "is not of `admin`");
    server.json(&["principal", "revoke", "till-2"]);
    server
        .run(&["principal", "renew", "till-2", "--csr", "new.csr", "--out", "new"])
        .fails(3, "revoked for good");
    assert_eq!(principal(&server.json(&["principal", "list"]), "till-2")["state"], "revoked");
    // All of it stands in the log.
    server.stop();
    let server = home.serve();
    assert_eq!(principal(&server.json(&["principal", "list"]), "till-2")["serial"], serial(&home, "new"));
}

fn serial(home: &Home, name: &str) -> String {
    format!("{:x}", facts(home, name).note.serial)
}

#[test]
fn a_scope_and_a_budget_at_the_command_line() {
    let home = Home::new();
    let server = home.serve();
    for (product, code) in [("coffee", "COFFEE-0001"), ("tea", "TEA-0001")] {
        server.stock(product, "5", format!("{code}\n"));
        server.json(&["sell", product, "--count", "1", "--order", product]);
    }
    let add = [
        "principal",
        "add",
        "till",
        "--role",
        "redeemer",
        "--product",
        "coffee",
        "--misses-per-minute",
        "30",
        "--out",
        "till",
    ];
    let added = server.json(&add);
    assert_eq!((&added["products"], &added["misses_per_minute"]), (&serde_json::json!([1]), &30.into()));
    server.run(&["redeem", "TEA-0001", "--identity", "till"]).fails(3, "SCOPE_DENIED");
    server.json(&["redeem", "COFFEE-0001", "--identity", "till"]);
    for _ in 0..5 {
        server.run(&["redeem", "COFFEE-0009", "--identity", "till"]).fails(3, "CARD_NOT_VALID");
    }
    server.run(&["redeem", "COFFEE-0009", "--identity", "till", "--timeout", "1"]).fails(3, "wait=`");
    let stats = server.json(&["stats"]);
    assert_eq!(
        (&stats["misses"], &stats["budgets_spent"], &stats["rate_limited"]),
        (&6.into(), &1.into(), &1.into())
    );
}

#[test]
fn classes_stores_and_merchants_at_the_command_line() {
    let home = Home::new();
    let server = home.serve();
    let product = ["product", "add", "meal", "--face", "5", "--currency", "CNY", "--class", "2"];
    let meal = server.json(&[&product[..], &["--merchants", "3,7", "--stores", "17"]].concat());
    assert_eq!((&meal["class"], &meal["merchants"]), (&2.into(), &serde_json::json!([3, 7])));
    home.file("cards.txt", "MEAL-0001\nMEAL-0002\n");
    server.json(&["import", "cards.txt", "--product", "meal"]);
    server.json(&["sell", "meal", "--count", "1", "--order", "1"]);
    let till = |name: &str, options: &[&str]| {
        let add = ["principal", "add", name, "--role", "redeemer", "--out", name];
        server.json(&[&add[..], options].concat())
    };
    let there = till("there", &["--merchant", "3", "--store", "17", "--classes", "2,5"]);
    assert_eq!((&there["store"], &there["classes"]), (&17.into(), &serde_json::json!([2, 5])));
    till("other-shop", &["--merchant", "4", "--store", "17"]);
    till("other-store", &["--merchant", "3", "--store", "18"]);
    till("other-class", &["--merchant", "3", "--store", "17", "--classes", "5"]);
    for name in ["other-shop", "other-store", "other-class"] {
        server.run(&["redeem", "MEAL-0001", "--identity", name]).fails(3, "SCOPE_DENIED");
        // Nothing tells a card that is not sold from a code that nobody has.
        server.run(&["redeem", "MEAL-0002", "--identity", name]).fails(3, "CARD_NOT_VALID");
    }
    // A merchant's bound is for using a card, a class for all that is asked of it.
    server.json(&["query", "MEAL-0001", "--identity", "other-shop"]);
    server.run(&["query", "MEAL-0001", "--identity", "other-class"]).fails(3, "SCOPE_DENIED");
    let id = "00000000000000000000000000000077";
    let redeem = ["redeem", "MEAL-0001", "--identity", "there", "--id", id];
    let first = server.json(&redeem);
    // What was done stays done: its retry and its reversal are not denied.
    server.json(&["product", "set", "meal", "--stores", "all", "--merchants", "4"]);
    assert_eq!(server.json(&redeem)["lsn"], first["lsn"]);
    server.json(&["reverse", "MEAL-0001", "--identity", "there", "--original", id]);
    server.run(&["redeem", "MEAL-0001", "--identity", "there"]).fails(3, "SCOPE_DENIED");
    server.json(&["redeem", "MEAL-0001", "--identity", "other-shop"]);
    server
        .run(&["principal", "add", "x", "--role", "redeemer", "--classes", "64", "--out", "x"])
        .refuses_usage("64");
}
