//! A merchant moves from another system: what was sold and used there stands so here, across a kill.

use crate::store::Home;

const OLD: &str = "\u{feff}卡号,状态,售出时间,核销时间,订单号\r\n\
                   OLD-0001,在库,,,\r\n\
                   OLD-0002,已售,2026-05-01 12:00,,SO-77\r\n\
                   OLD-0003,已核销,2026-05-01 12:00,2026-05-02 09:30,SO-77\r\n\
                   OLD-0004,作废,,,\r\n\
                   OLD-0005,冻结,,,\r\n";

#[test]
fn cards_of_another_system_stand_as_they_stood() {
    let home = Home::new();
    let server = home.serve();
    server.json(&["product", "add", "tea", "--face", "5", "--currency", "CNY"]);
    home.file("old.csv", OLD);
    // What was used elsewhere does not become stock because nobody said how to read it.
    server.run(&["import", "old.csv", "--product", "tea"]).fails(3, "--with-state");
    let no_reason = server.run(&["import", "old.csv", "--product", "tea", "--with-state"]);
    assert!(no_reason.code == Some(2) && no_reason.err.contains("--why"), "{no_reason:?}");
    let import =
        ["import", "old.csv", "--product", "tea", "--with-state", "--why", "moved from the old shop"];
    home.file("wrong.csv", OLD.replace("已核销", "没了"));
    let wrong: Vec<&str> =
        import.iter().map(|word| if *word == "old.csv" { "wrong.csv" } else { word }).collect();
    server.run(&wrong).fails(3, "1 bad line among 5 lines");
    let issuer = ["principal", "add", "shipper", "--role", "issuer", "--out", "shipper"];
    server.json(&issuer);
    let by_issuer: Vec<&str> = import.into_iter().chain(["--identity", "shipper"]).collect();
    server.run(&by_issuer).fails(3, "FORBIDDEN");
    assert_eq!(server.json(&["stats"])["cards"], 0);

    let done = server.run(&import);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.out.contains("as they were: 2 available, 1 sold, 1 redeemed, 1 voided"), "{done:?}");
    server.kill();
    let server = home.serve();

    server.run(&["redeem", "OLD-0003"]).fails(3, "ALREADY_REDEEMED");
    server.run(&["redeem", "OLD-0004"]).fails(3, "VOIDED");
    server.run(&["sell", "tea", "--count", "1", "--order", "SO-77"]).fails(3, "MIGRATED");
    let card = server.json(&["query", "OLD-0002"]);
    assert_eq!(card["state"], "SOLD");
    let order = server.json(&["order-status", "SO-77"]);
    assert_eq!((&order["state"], &order["cards"]), (&"MIGRATED".into(), &2.into()));
    assert_eq!(order["order"], card["order"]);
    let history = server.json(&["history", "OLD-0003"]);
    let events = history["events"].as_array().unwrap();
    let kinds: Vec<&str> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["MIGRATED", "MIGRATED", "IMPORT"]);
    assert!(events[0]["made_ms"].as_u64() > events[1]["made_ms"].as_u64());
    assert_eq!(events[2]["why"], "moved from the old shop");
    assert_eq!(server.json(&["redeem", "OLD-0002"])["status"], "OK");
    let sold = server.json(&["sell", "tea", "--count", "1", "--order", "SO-78"]);
    assert_eq!(sold["codes"][0], "OLD-0001");
    server.run(&["sell", "tea", "--count", "1", "--order", "SO-79"]).fails(3, "OUT_OF_STOCK");

    assert_eq!(server.stop().code, Some(0));
    let verified = home.run(&["verify", "--data", "kami-data", "--json"]).json();
    assert_eq!((&verified["whole"], &verified["cards"]), (&true.into(), &5.into()));
}
