//! Accounts, postings and limits from the command line, through a kill.

use crate::store::Home;

#[test]
fn a_wholesaler_keeps_its_books() {
    let home = Home::new();
    let server = home.serve();
    let bank = server.json(&["account", "add", "bank", "--currency", "CNY", "--kind", "external"]);
    assert_eq!((&bank["id"], &bank["kind"]), (&1.into(), &"external".into()));
    let add = ["account", "add", "shop-17", "--currency", "CNY", "--kind", "customer", "--credit", "500"];
    assert_eq!(server.json(&add)["credit_limit_minor"], 50_000);
    server.run(&add).fails(3, "ALREADY_EXISTS");
    server
        .run(&["account", "add", "x", "--currency", "CNY", "--kind", "bank"])
        .refuses_usage("customer, agent");
    server.run(&["account", "show", "nobody"]).fails(3, "kami account list");

    // The same document again is the same posting.
    let post = ["post", "--document", "transfer 4711", "--leg", "bank=-1000", "--leg", "shop-17=1000.00"];
    let first = server.json(&post);
    assert_eq!((&first["replayed"], &first["legs"][1]["balance_minor"]), (&false.into(), &100_000.into()));
    server.kill();
    let server = home.serve();
    let again = server.json(&post);
    assert_eq!((&again["replayed"], &again["lsn"]), (&true.into(), &first["lsn"]));
    let other = ["post", "--document", "transfer 4711", "--leg", "bank=-1", "--leg", "shop-17=1"];
    server.run(&other).fails(3, "ID_REUSED");
    server
        .run(&["post", "--document", "2", "--leg", "bank=-1", "--leg", "shop-17=2"])
        .fails(3, "LEGS_UNBALANCED");
    let too_much = ["post", "--document", "2", "--leg", "shop-17=-1500.01", "--leg", "bank=1500.01"];
    server.run(&too_much).fails(3, "INSUFFICIENT_FUNDS");
    server.run(&too_much).fails(3, "account=`2`");
    server.run(&["post", "--document", "2", "--leg", "bank"]).refuses_usage("ACCOUNT=AMOUNT");
    server
        .run(&["post", "--document", "2", "--leg", "bank=1.005", "--leg", "shop-17=1"])
        .fails(2, "2 digits");

    for n in 1..=12 {
        let (document, out) = (format!("sale {n}"), "shop-17=-0.5");
        server.json(&["post", "--document", &document, "--leg", out, "--leg", "bank=0.5"]);
    }
    let shown = server.json(&["account", "statement", "shop-17", "--count", "5"]);
    let lines = shown["lines"].as_array().unwrap();
    assert_eq!((lines.len(), &shown["complete"]), (5, &false.into()));
    assert_eq!((&lines[0]["balance_minor"], &lines[0]["amount_minor"]), (&99_400.into(), &(-50).into()));
    let shown = server.json(&["account", "statement", "shop-17", "--count", "500"]);
    assert_eq!(shown["lines"].as_array().unwrap().len(), 13);
    assert_eq!(shown["lines"][12]["lsn"], first["lsn"]);

    // As files, all of it or some days: the same lines, amounts as a spreadsheet reads them.
    let written = server.json(&["account", "statement", "shop-17", "--csv", "all.csv"]);
    assert_eq!((&written["rows_written"], &written["complete"]), (&13.into(), &true.into()));
    let text = home.text("all.csv");
    let rows: Vec<csv::StringRecord> = csv::ReaderBuilder::new()
        .has_headers(false)
        .from_reader(text.trim_start_matches('\u{feff}').as_bytes())
        .into_records()
        .map(Result::unwrap)
        .collect();
    assert_eq!(rows.len(), 14);
    assert_eq!(&rows[0].iter().collect::<Vec<_>>()[1..5], ["event", "amount", "balance", "currency"]);
    for (row, line) in rows[1..].iter().zip(shown["lines"].as_array().unwrap()) {
        assert_eq!(row[1], line["event"].as_str().unwrap()[..]);
        assert_eq!((&row[2], &row[3]), (line["amount"].as_str().unwrap(), line["balance"].as_str().unwrap()));
        assert_eq!((&row[4], &row[5]), ("CNY", line["related"].as_str().unwrap()));
        assert_eq!(row[8], line["lsn"].to_string());
    }
    server.run(&["account", "statement", "shop-17", "--csv", "all.csv"]).fails(2, "there already");
    let time_ms = first["time_ms"].as_i64().unwrap();
    let today = jiff::Timestamp::from_millisecond(time_ms).unwrap().to_zoned(jiff::tz::TimeZone::UTC).date();
    let (today, before) = (today.to_string(), today.yesterday().unwrap().to_string());
    let of = |more: &[&str]| {
        server.json(&[&["account", "statement", "shop-17", "--offset", "Z", "--xlsx"], more].concat())
    };
    // Should midnight be in between, tomorrow has the rest.
    assert_eq!(of(&["day.xlsx", "--day", &before, "--to", "2100-01-01"])["rows_written"], 13);
    assert_eq!(of(&["none.xlsx", "--day", "2001-01-01", "--to", &before])["rows_written"], 0);
    assert_eq!(of(&["three.xlsx", "--day", &today, "--to", "2100-01-01", "--count", "3"])["complete"], false);
    assert!(home.path("day.xlsx").exists());
    server.run(&["account", "statement", "shop-17", "--day", &today, "--to", &before]).fails(2, "--to is");

    // How long an order may wait for its payment, and whether a product can be sold, are the product's terms.
    let add = ["product", "add", "tea", "--face", "5", "--currency", "CNY", "--reserve", "2h"];
    let tea = server.json(&[&add[..], &["--attributes", "shelf 3"]].concat());
    assert_eq!((&tea["reserve_s"], &tea["attributes"]), (&7200.into(), &"shelf 3".into()));
    home.file("tea.txt", "TEA-00000001\nTEA-00000002\n");
    server.json(&["import", "tea.txt", "--product", "tea"]);
    let reserved = server.json(&["reserve", "--order", "t1", "--line", "tea=1"]);
    let stands_ms = reserved["deadline_ms"].as_i64().unwrap() - reserved["time_ms"].as_i64().unwrap();
    assert_eq!(stands_ms, 7_200_000, "{reserved}");
    assert_eq!(server.json(&["product", "set", "tea", "--listed", "false"])["listed"], false);
    server.run(&["sell", "tea", "--count", "1", "--order", "t2"]).fails(3, "refused");
    let set = server.json(&["product", "set", "tea", "--listed", "true", "--reserve", "90s"]);
    assert_eq!((&set["reserve_s"], &set["attributes"]), (&90.into(), &"shelf 3".into()));

    server.json(&["account", "set", "shop-17", "--credit", "0"]);
    assert_eq!(server.json(&["account", "freeze", "shop-17"])["frozen"], true);
    server.run(&["post", "--document", "3", "--leg", "shop-17=-1", "--leg", "bank=1"]).fails(3, "FROZEN");
    server.json(&["account", "unfreeze", "shop-17"]);
    assert_eq!(server.json(&["account", "list"])["accounts"].as_array().unwrap().len(), 2);
    server.stop();
    assert_eq!(
        home.run(&["verify", "--data", "kami-data", "--json"]).json()["problems"].as_array().unwrap().len(),
        0
    );
}

#[test]
fn a_till_over_its_limit_is_refused_until_it_opens() {
    let home = Home::new();
    let server = home.serve();
    server.stock("tea", "5", "TEA-0001\nTEA-0002\nTEA-0003\n");
    server.json(&["sell", "tea", "--count", "3", "--order", "1"]);
    server.run(&["limit", "set", "velocity", "--max", "2"]).fails(2, "--scope");
    let set = ["limit", "set", "velocity", "--scope", "terminal", "--window", "12h", "--max", "2"];
    let limit = server.json(&set);
    assert_eq!((&limit["window"], &limit["action"]), (&"12h".into(), &"refuse".into()));
    server.json(&["redeem", "TEA-0001", "--terminal", "7"]);
    server.json(&["redeem", "TEA-0002", "--terminal", "7"]);
    let refused = server.run(&["redeem", "TEA-0003", "--terminal", "7"]);
    refused.fails(3, "LIMIT_TERMINAL");
    refused.fails(3, "limit=`1` left=`0` opens=`4");
    server.json(&["limit", "set", "velocity", "--max", "3"]);
    server.json(&["redeem", "TEA-0003", "--terminal", "7"]);
    server.run(&["limit", "set", "velocity", "--window", "1h", "--max", "3"]).fails(3, "ILLEGAL_TRANSITION");
    assert_eq!(server.json(&["limit", "list"])["limits"].as_array().unwrap().len(), 1);
    assert_eq!(server.json(&["limit", "end", "velocity"])["ended"], true);
    server.run(&["limit", "end", "velocity"]).fails(3, "kami limit list");
}
