//! The log's events and its totals, as another system and a bookkeeper take them.

use serde_json::Value;

use crate::store::Home;

#[test]
fn what_happened_comes_as_lines_and_as_tables() {
    let home = Home::new();
    let server = home.serve();
    server.stock("=coffee", "28", "COFFEE-0001\nCOFFEE-0002\nCOFFEE-0003\n");
    server.run(&["sell", "=coffee", "--count", "2", "--order", "1"]);
    let redeemed = server.json(&["redeem", "COFFEE-0001", "--terminal", "7"]);
    let request = redeemed["request"].as_str().unwrap();
    server.json(&["reverse", "COFFEE-0001", "--original", request, "--terminal", "7"]);
    server.json(&["redeem", "COFFEE-0002", "--terminal", "8"]);

    let lines = |arguments: &[&str]| -> Vec<Value> {
        let ended = server.run(arguments);
        ended.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let events = lines(&["feed", "--kind", "sell,redeem,reverse", "--json"]);
    let kinds: Vec<_> = events.iter().map(|event| event["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["SELL", "REDEEM", "REVERSE", "REDEEM"]);
    assert_eq!((&events[1]["terminal"], &events[1]["amount_minor"]), (&7.into(), &2800.into()));
    assert_eq!(events[2]["original"], request);
    let all = server.run(&["feed"]);
    assert!(!all.out.contains("COFFEE-000"), "no code is told");
    // Behind the second: the last two, by its place; and by its position alone, with it.
    let place = format!("{}:{}", events[1]["lsn"], events[1]["epoch"]);
    let kind = ["--kind", "sell,redeem,reverse", "--json"];
    assert_eq!(lines(&[&["feed", "--after", &place], &kind[..]].concat()), events[2..]);
    let from = events[1]["lsn"].to_string();
    assert_eq!(lines(&[&["feed", "--from", &from], &kind[..]].concat()), events[1..]);
    assert_eq!(lines(&[&["feed", "--count", "1"], &kind[..]].concat()), events[..1]);
    let other = format!("{}:{}", events[1]["lsn"], 99);
    server.run(&["feed", "--after", &other]).fails(3, "POSITION_UNKNOWN");
    server.run(&["feed", "--after", "123456789012344"]).fails(3, "POSITION_UNKNOWN");
    assert_eq!(server.run(&["feed", "--after", "7"]).code, Some(2));

    // The day is that of the server's clock, which is this machine's.
    let time_ms = events[0]["time_ms"].as_i64().unwrap();
    let day = jiff::Timestamp::from_millisecond(time_ms).unwrap().strftime("%Y-%m-%d").to_string();
    let totals = server.json(&["reconcile", "--day", &day, "--offset", "+00:00"]);
    let found: Vec<_> = totals["lines"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| {
            let event = line["event"].as_str().unwrap();
            let number = |name: &str| line[name].as_u64().unwrap();
            (number("terminal"), event, number("count"), number("amount_minor"))
        })
        .collect();
    let expected =
        [(0, "SELL", 2, 5600), (7, "REDEEM", 1, 2800), (7, "REVERSE", 1, 2800), (8, "REDEEM", 1, 2800)];
    assert_eq!(found, expected);
    let csv = ["reconcile", "--day", &day, "--offset", "Z", "--csv", "day.csv"];
    assert_eq!(server.json(&csv)["rows_written"], 4);
    let text = home.text("day.csv");
    assert!(text.contains(&format!("{day},0,0,7,\"'=coffee\",REDEEM,1,28.00,CNY\r\n")), "{text}");
    server.run(&csv).fails(2, "there already");
    server.json(&["reconcile", "--day", &day, "--offset", "Z", "--xlsx", "day.xlsx"]);
    assert!(home.path("day.xlsx").exists());
    // Nothing happened the year before, and 400 days are too many.
    assert_eq!(server.json(&["reconcile", "--day", "2001-01-01"])["lines"], Value::Array(Vec::new()));
    server.run(&["reconcile", "--day", "2024-01-01", "--to", "2026-01-01"]).fails(2, "366 days");
}
