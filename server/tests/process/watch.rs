//! Metrics and health of a real server, read as a scraper reads them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use crate::store::Home;

/// Status and body of a request over HTTP.
pub fn ask(address: &str, request: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    (status.unwrap_or_else(|| panic!("{answer}")), body.to_owned())
}

pub fn get(address: &str, path: &str) -> (u16, String) {
    ask(address, &format!("GET {path} HTTP/1.1\r\nHost: kami\r\nConnection: close\r\n\r\n"))
}

/// The value of a series.
#[track_caller]
pub fn metric(text: &str, series: &str) -> f64 {
    let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no {series} in {text}")).parse().unwrap()
}

fn free_port() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// Reads an OpenMetrics text as strictly as the format says, as far as we use it. Returns the families with
/// their type and the names of their series.
fn parse(text: &str) -> BTreeMap<String, (String, BTreeSet<String>)> {
    let mut families = BTreeMap::new();
    let mut family = String::new();
    let mut seen = BTreeSet::new();
    let body = text.strip_suffix("# EOF\n").expect("it ends with EOF");
    let mut last_bucket: Option<(String, f64, f64)> = None;
    for line in body.lines() {
        if let Some(meta) = line.strip_prefix("# ") {
            let mut words = meta.splitn(3, ' ');
            let (word, name, rest) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
            match word {
                "HELP" => {
                    let name = name.to_owned();
                    assert!(!families.contains_key(&name), "{name} comes twice");
                    families.insert(name.clone(), (String::new(), BTreeSet::new()));
                    family = name;
                    assert!(!rest.is_empty(), "{line}");
                }
                "TYPE" => {
                    assert_eq!(name, family);
                    families.get_mut(name).unwrap().0 = rest.to_owned();
                }
                "UNIT" => assert!(name == family && name.ends_with(&format!("_{rest}")), "{line}"),
                other => panic!("{other}: {line}"),
            }
            continue;
        }
        assert!(seen.insert(line.rsplit_once(' ').unwrap().0.to_owned()), "the series comes twice: {line}");
        let (series, value) = line.rsplit_once(' ').unwrap();
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}').unwrap_or_else(|| panic!("{line}"))),
            None => (series, ""),
        };
        let labels = read_labels(labels);
        let (kind, names) = families.get_mut(&family).unwrap();
        names.insert(name.to_owned());
        let suffix = name.strip_prefix(&family).unwrap_or_else(|| panic!("{line} is not of {family}"));
        let allowed: &[&str] = match kind.as_str() {
            "counter" => &["_total"],
            "gauge" => &[""],
            "info" => &["_info"],
            "histogram" => &["_sum", "_count", "_bucket"],
            other => panic!("{other}"),
        };
        assert!(allowed.contains(&suffix), "{line} in a {kind}");
        if suffix == "_bucket" {
            // Buckets of one series stand together, rise, and end at infinity with the count.
            let bound = &labels["le"];
            let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().unwrap() };
            let mut others = labels.clone();
            others.remove("le");
            let key = format!("{family}{others:?}");
            if let Some((last, last_bound, last_value)) = &last_bucket
                && *last == key
            {
                assert!(*last_bound < bound && *last_value <= value, "{line}");
            }
            last_bucket = Some((key, bound, value));
        } else {
            assert!(!labels.contains_key("le"), "{line}");
        }
    }
    families
}

fn read_labels(text: &str) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (name, quoted) = rest.split_once("=\"").unwrap_or_else(|| panic!("{text}"));
        assert!(
            name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') && !name.is_empty(),
            "{text}"
        );
        let mut value = String::new();
        let mut chars = quoted.char_indices();
        let end = loop {
            match chars.next().unwrap_or_else(|| panic!("{text}")) {
                (_, '\\') => match chars.next().unwrap().1 {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                (at, '"') => break at,
                (_, other) => value.push(other),
            }
        };
        assert!(labels.insert(name.to_owned(), value).is_none(), "{text}");
        rest = &quoted[end + 1..];
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
    labels
}

fn repository(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)).unwrap()
}

#[test]
fn a_real_scrape_is_valid_complete_and_right() {
    let home = Home::new();
    let port = free_port();
    let server = home.serve_logged(&["--metrics", &port]);
    assert_eq!(get(&port, "/health/live"), (200, "live\n".to_owned()));
    assert_eq!(get(&port, "/health/ready"), (200, "ready\n".to_owned()));
    parse(&get(&port, "/metrics").1);

    server.json(&["product", "add", "tea \"\\x", "--face", "5", "--currency", "CNY"]);
    home.file("tea.txt", (0..100).map(|n| format!("TEA-{n:08}\n")).collect::<String>());
    server.json(&["import", "tea.txt", "--product", "1"]);
    server.json(&["sell", "1", "--count", "30", "--order", "1"]);
    for _ in 0..2 {
        for n in 0..5 {
            server.run(&["redeem", &format!("TEA-{n:08}")]);
        }
    }
    let text = get(&port, "/metrics").1;
    let families = parse(&text);
    for (series, value) in [
        ("kami_replies_total{command=\"REDEEM\",code=\"OK\"}", 5.0),
        ("kami_replies_total{command=\"REDEEM\",code=\"ALREADY_REDEEMED\"}", 5.0),
        ("kami_reply_seconds_count{command=\"REDEEM\",class=\"refused\"}", 5.0),
        ("kami_cards{state=\"SOLD\"}", 25.0),
        ("kami_stock{product=\"tea \\\"\\\\x\",id=\"1\"}", 70.0),
        ("kami_log_lag_bytes", 0.0),
        ("kami_log_segments", 3.0),
        ("kami_ready", 1.0),
    ] {
        assert_eq!(metric(&text, series), value, "{series}");
    }
    assert!(metric(&text, "kami_disk_free_bytes{directory=\"data\"}") > 0.0);
    assert!(metric(&text, "kami_memory_bytes{part=\"resident\"}") > 1e6);
    assert!(metric(&text, "kami_commit_seconds_count") > 0.0);

    // The document's table is rendered from the declarations; the scrape has just these families.
    let operating = repository("docs/operating.md");
    let table = operating.split("<!-- metrics -->").nth(1).unwrap().split("<!-- end").next().unwrap();
    let documented: BTreeSet<String> =
        table.split("| `").skip(1).map(|row| row[..row.find('`').unwrap()].to_owned()).collect();
    let suffix = |kind: &str| match kind {
        "counter" => "_total",
        "info" => "_info",
        _ => "",
    };
    let scraped: BTreeSet<String> =
        families.iter().map(|(name, (kind, _))| format!("{name}{}", suffix(kind))).collect();
    assert_eq!(scraped, documented);

    // A snapshot that was written shows its age, and what was logged since; one being written is none yet.
    assert!(!text.contains("\nkami_snapshot_age_seconds "));
    let logged = metric(&text, "kami_log_since_snapshot_bytes");
    assert!((1000.0..50_000.0).contains(&logged), "{logged}");
    fs::create_dir_all(home.path("kami-data/snapshots")).unwrap();
    fs::write(home.path("kami-data/snapshots/new"), "half").unwrap();
    assert!(!get(&port, "/metrics").1.contains("\nkami_snapshot_age_seconds "));
    assert_eq!(server.stop().code, Some(0));
    let server = home.serve_logged(&["--metrics", &port]);
    let text = get(&port, "/metrics").1;
    assert!(metric(&text, "kami_snapshot_age_seconds") < 600.0);
    assert!(metric(&text, "kami_log_since_snapshot_bytes") < 1000.0);

    // The dashboard and the alerts name nothing that is not there.
    let mut names: BTreeSet<String> = families.values().flat_map(|(_, names)| names.clone()).collect();
    names.extend(parse(&text).into_values().flat_map(|(_, names)| names));
    for file in ["packaging/grafana.json", "packaging/alerts.yml"] {
        let expressions = expressions(file);
        assert!(expressions.len() > 5, "{file}");
        for expression in expressions {
            let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let used: Vec<&str> = words.filter(|word| word.starts_with("kami_")).collect();
            assert!(!used.is_empty() || expression.contains("up{"), "{file}: {expression}");
            for name in used {
                assert!(names.contains(name), "{file} names {name}, which is not there: {expression}");
            }
        }
    }
    drop(server);
}

/// The expressions of a dashboard or of alert rules.
fn expressions(file: &str) -> Vec<String> {
    let text = repository(file);
    if file.ends_with(".yml") {
        return text
            .lines()
            .filter_map(|line| Some(line.trim().strip_prefix("expr: ")?.to_owned()))
            .collect();
    }
    fn collect(value: &serde_json::Value, found: &mut Vec<String>) {
        match value {
            serde_json::Value::Object(fields) => {
                for (name, value) in fields {
                    match value {
                        serde_json::Value::String(text) if name == "expr" => found.push(text.clone()),
                        value => collect(value, found),
                    }
                }
            }
            serde_json::Value::Array(values) => values.iter().for_each(|value| collect(value, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    collect(&serde_json::from_str(&text).unwrap(), &mut found);
    found
}

#[test]
fn the_http_side_survives_what_it_is_sent() {
    let home = Home::new();
    let port = free_port();
    let server = home.try_serve(&["--metrics", &port]).unwrap();
    assert_eq!(get(&port, "/").0, 404);
    assert_eq!(get(&port, "/metrics/../../etc/passwd").0, 404);
    let post = "POST /metrics HTTP/1.1\r\nHost: k\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi";
    assert_eq!(ask(&port, post).0, 405);
    assert_eq!(
        ask(&port, "HEAD /metrics HTTP/1.1\r\nHost: k\r\nConnection: close\r\n\r\n"),
        (200, String::new())
    );
    assert_eq!(ask(&port, "\u{1}\u{2}nonsense\r\n\r\n").0, 400);
    let long = format!("GET /metrics HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    let mut stream = TcpStream::connect(&port).unwrap();
    // It is cut off while it is still talking.
    let _ = stream.write_all(long.as_bytes());
    let _ = stream.read(&mut [0; 100]);
    // Whoever says nothing holds a place for a few seconds at most, and others are answered.
    let silent: Vec<_> = (0..10).map(|_| TcpStream::connect(&port).unwrap()).collect();
    assert_eq!(get(&port, "/health/ready").0, 200);
    drop(silent);
    server.json(&["stats"]);
}
