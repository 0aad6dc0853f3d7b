//! Two merchants on one store, from the command line, through a kill.

use crate::store::Home;

#[test]
fn two_merchants_share_a_store_and_nothing_else() {
    let home = Home::new();
    let server = home.serve();
    let north = server.json(&["tenant", "add", "north", "--why", "contract 2026-11"]);
    assert_eq!((&north["id"], &north["frozen"]), (&1.into(), &false.into()));
    server.run(&["tenant", "add", "north"]).fails(3, "ALREADY_EXISTS");
    let add = ["principal", "add", "north-admin", "--role", "admin", "--tenant", "north", "--out", "north"];
    server.json(&add);
    server
        .run(&["principal", "add", "x", "--role", "admin", "--tenant", "south", "--out", "x"])
        .fails(3, "kami tenant list");

    // The same names and codes on both sides.
    let as_north = |arguments: &[&str]| {
        let mut all = arguments.to_vec();
        all.extend(["--identity", "north"]);
        server.run(&[&all[..], &["--json"]].concat())
    };
    home.file("cards.txt", "TEA-0001\nTEA-0002\nTEA-0003\n");
    let product = ["product", "add", "tea", "--face", "5", "--currency", "CNY"];
    server.json(&product);
    assert_eq!(as_north(&product).json()["id"], 2);
    let import = ["import", "cards.txt", "--product", "tea"];
    server.json(&import);
    as_north(&import).json();
    assert_eq!(as_north(&["product", "list"]).json()["products"].as_array().unwrap().len(), 1);
    assert_eq!(as_north(&["principal", "list"]).json()["principals"].as_array().unwrap().len(), 1);
    as_north(&["tenant", "list"]).fails(3, "FORBIDDEN");
    as_north(&["tenant", "freeze", "1"]).fails(3, "FORBIDDEN");
    as_north(&["stats"]).fails(3, "FORBIDDEN");
    as_north(&["keys", "rotate"]).fails(3, "FORBIDDEN");
    as_north(&["principal", "revoke", "1"]).fails(3, "there is no principal");

    // A freeze of one is none of the other, and outlives a kill.
    as_north(&["sell", "tea", "--count", "1", "--order", "1"]).json();
    server.json(&["tenant", "freeze", "north", "--why", "contract ended"]);
    as_north(&["redeem", "TEA-0001"]).fails(3, "FROZEN");
    as_north(&["sell", "tea", "--count", "1", "--order", "2"]).fails(3, "FROZEN");
    server.json(&["sell", "tea", "--count", "1", "--order", "2"]);
    server.json(&["redeem", "TEA-0001"]);
    server.kill();
    let server = home.serve();
    assert_eq!(server.json(&["tenant", "list"])["tenants"][0]["frozen"], true);
    server.run(&["redeem", "TEA-0001", "--identity", "north"]).fails(3, "FROZEN");
    server.json(&["tenant", "unfreeze", "north"]);
    server.json(&["redeem", "TEA-0001", "--identity", "north"]);
    let changes = server.json(&["changes", "--last", "2"]);
    assert_eq!(changes["changes"][0]["why"], "contract ended");
    server.stop();
    let verified = home.run(&["verify", "--data", "kami-data", "--json"]).json();
    assert_eq!(verified["problems"].as_array().unwrap().len(), 0);
}

/// Whoever followed the page gave the authority's private key to each merchant, so that its admin could add people: with
/// it a merchant could pass for the server.
#[test]
fn a_tenants_admin_needed_the_authoritys_key_to_add_people() {
    let home = Home::new();
    let server = home.serve();
    server.json(&["tenant", "add", "north"]);
    server.json(&[
        "principal",
        "add",
        "north-admin",
        "--role",
        "admin",
        "--tenant",
        "north",
        "--out",
        "north/admin",
    ]);
    // At the till: a key that stays there, and a request.
    let request = |name: &str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let csr = rcgen::CertificateParams::default().serialize_request(&key).unwrap();
        home.file(&format!("{name}.csr"), csr.pem().unwrap());
        home.file(&format!("{name}.key"), key.serialize_pem());
    };
    request("till");
    let as_north =
        |arguments: &[&str]| server.run(&[arguments, &["--identity", "north/admin", "--json"]].concat());
    let add = ["principal", "add", "north-till", "--role", "redeemer", "--out", "north/till"];
    // Without the authority: neither a new identity nor one for a request.
    as_north(&add).fails(6, "--authority");
    as_north(&[&add[..], &["--csr", "till.csr"]].concat()).fails(6, "--authority");
    // The house certifies what was sent, and tells no server.
    let certify = ["principal", "certify", "north-till", "--csr", "till.csr", "--out", "north/till"];
    let certified = server.json(&certify);
    assert_eq!(server.json(&["principal", "list"])["principals"].as_array().unwrap().len(), 2);
    server.run(&certify).fails(2, "there is a certificate already");
    let added = as_north(&add).json();
    assert_eq!((&added["tenant"], &added["key_sha256"]), (&1.into(), &certified["key_sha256"]));
    let key = home.file("north/till/key.pem", home.text("till.key"));
    std::fs::set_permissions(key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let none = server.run(&["redeem", "NOBODY-HAS-IT", "--identity", "north/till"]);
    none.fails(3, "CARD_NOT_VALID");
    // A year later, the same with another certificate, and with another key.
    server.json(&["principal", "certify", "north-till", "--csr", "till.csr", "--out", "north/till-2"]);
    let renewed =
        as_north(&["principal", "renew", "north-till", "--certified", "--out", "north/till-2"]).json();
    assert_eq!(renewed["key_sha256"], certified["key_sha256"]);
    assert_ne!(renewed["serial"], added["serial"]);
    request("new");
    server.json(&["principal", "certify", "north-till", "--csr", "new.csr", "--out", "north/till-3"]);
    let renewed =
        as_north(&["principal", "renew", "north-till", "--certified", "--out", "north/till-3"]).json();
    assert_ne!(renewed["key_sha256"], certified["key_sha256"]);
    server
        .run(&["redeem", "NOBODY-HAS-IT", "--identity", "north/till"])
        .fails(3, "does not know this identity");
    assert!(!home.path("north/ca").exists());
    server.stop();
}
