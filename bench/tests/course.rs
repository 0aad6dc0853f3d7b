//! A hall of terminals, and the course of a run: more connections than a server takes from one address by default, each
//! answered, by closed and by open loop; the series beside the result, the page that shows it.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn bench(directory: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kami-bench"));
    let output = command.args(args).args(["--json", "--no-pin", "--dir"]).arg(directory).output();
    let output = output.expect("the program starts");
    eprintln!("{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

fn result(output: &Output) -> Value {
    assert_eq!(output.status.code(), Some(0));
    serde_json::from_slice(&output.stdout).expect("one line of JSON")
}

#[test]
fn three_hundred_terminals_are_answered_in_a_closed_and_in_an_open_loop() {
    let directory = tempfile::tempdir().expect("a directory");
    let hall = ["quic-terminals", "--connections", "300", "--window", "2", "--cards", "6000"];
    let closed = result(&bench(directory.path(), &hall));
    assert_eq!((&closed["ops"], &closed["errors"]), (&6000.into(), &0.into()));
    assert_eq!((&closed["connections"], &closed["window"]), (&300.into(), &2.into()));

    let open = [&hall[..], &["--rate", "2000", "--seconds", "2.5", "--warm-up", "0.4", "--series"]].concat();
    let open = result(&bench(directory.path(), &open));
    // Of 5,800 that are due the first 800 do not count, and each of 300 connections rounds.
    let ops = open["ops"].as_u64().expect("a number");
    assert!((4_700..=5_300).contains(&ops), "{ops}");
    assert_eq!((&open["errors"], &open["rate"], &open["window"]), (&0.into(), &2000.into(), &Value::Null));
    let [p50, p99, p999] = ["p50_us", "p99_us", "p999_us"].map(|name| open[name].as_f64().expect("a number"));
    assert!(0.0 < p50 && p50 <= p99 && p99 <= p999);
    let answers = open["series"]["ops"].as_array().expect("the course");
    assert!(2 <= answers.len(), "{answers:?}");
    assert!(answers.iter().all(|answers| answers.as_u64().is_some_and(|answers| 0 < answers)), "{answers:?}");
}

#[test]
fn a_rate_that_the_cards_do_not_last_for_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let output =
        bench(directory.path(), &["quic-redeem", "--cards", "1000", "--rate", "1000", "--seconds", "2"]);
    assert_eq!(output.status.code(), Some(6));
    assert!(String::from_utf8_lossy(&output.stderr).contains("1000 commands, but 2000 are due"));
}

#[test]
fn the_page_shows_the_run_and_loads_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let page = directory.path().join("run.html");
    let run = ["quic-redeem", "--connections", "2", "--cards", "5000", "--rate", "2000", "--seconds", "2.2"];
    result(&bench(directory.path(), &[&run[..], &["--html", page.to_str().expect("a path")]].concat()));
    let page = std::fs::read_to_string(page).expect("the page");
    for shown in
        ["How long answers took", "Answers a second", "99th percentile", "p99.9", "--rate 2000", "cores"]
    {
        assert!(page.contains(shown), "the page lacks {shown}");
    }
    assert_eq!(page.matches("<svg").count(), 4);
    // The name of the format is the only address.
    let format = "xmlns=\"http://www.w3.org/2000/svg\"";
    assert_eq!(
        page.matches("http").count(),
        page.matches(format).count() + page.matches("http-equiv").count()
    );
    for loads in ["<script", "src=", "href=", "@import", "url("] {
        assert!(!page.contains(loads), "the page has {loads}");
    }
    // Every element that is opened is closed.
    for element in ["svg", "table", "tr", "td", "text", "dl", "div", "main"] {
        let opened =
            page.matches(&format!("<{element}>")).count() + page.matches(&format!("<{element} ")).count();
        assert_eq!(opened, page.matches(&format!("</{element}>")).count(), "{element}");
    }
}
