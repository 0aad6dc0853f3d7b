//! What scripts rely on: with `--json` standard output is JSON, whatever came of the command, and exit codes
//! are what they say.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use rustix::process::Signal;
use serde_json::Value;

use crate::store::{Ended, Home};

/// Every command that ends by itself, with arguments that could be right.
const COMMANDS: &[&str] = &[
    "product add tea --face 5 --currency CNY",
    "product list",
    "product set tea --face 6",
    "product freeze tea",
    "product unfreeze tea",
    "import cards.txt --product tea",
    "batch list",
    "batch activate 1",
    "batch deactivate 1",
    "batch activate 1 --rows 0..1",
    "batch freeze 1",
    "batch unfreeze 1",
    "batch void 1",
    "batch extend 1 2099-12-31",
    "sell tea --count 1 --order 1",
    "order 1",
    "redeem TEA-0001",
    "reverse TEA-0001 --original 0123456789abcdef0123456789abcdef",
    "query TEA-0001",
    "history TEA-0001",
    "freeze TEA-0001",
    "unfreeze TEA-0001",
    "void TEA-0001",
    "activate TEA-0001",
    "deactivate TEA-0001",
    "extend TEA-0001 2099-12-31",
    "expire TEA-0001",
    "restock TEA-0001 --reference RMA-1",
    "replace TEA-0001",
    "replace TEA-0001 --with TEA-0002",
    "transfer TEA-0001 TEA-0002 --minor 5",
    "stock",
    "principal add till --role redeemer --out till",
    "principal list",
    "principal renew till --out till",
    "principal revoke till",
    "account add shop --currency CNY --kind customer",
    "account add bank --currency CNY --kind external",
    "account set shop --credit 5",
    "account list",
    "account show shop",
    "account statement shop",
    "account freeze shop",
    "account unfreeze shop",
    "post --document 1 --leg bank=-1 --leg shop=1",
    "limit set per-day --scope account --window day+08:00 --max 5",
    "limit list",
    "limit end per-day",
    "stats",
    "checkpoint",
    "keys rotate",
    "serve --data file/below",
    "codes generate --count 5 --out nowhere/tea.csv",
    "backup --data nowhere --out backup",
    "restore --from nowhere --data restored",
    "verify --data nowhere",
    "wal inspect --data nowhere",
    "man --out file/below",
    "demo --cards 10 --dir file/below",
];

fn words(line: &str) -> Vec<&str> {
    line.split(' ').chain(["--json"]).collect()
}

/// The object that says why a command was not done.
#[track_caller]
fn failure(ended: &Ended, line: &str) {
    let code = ended.code.unwrap();
    assert!(code != 0, "{line}: {ended:?}");
    let value: Value =
        serde_json::from_str(&ended.out).unwrap_or_else(|error| panic!("{line}: {error}: {ended:?}"));
    assert_eq!(value["exit"], code, "{line}: {ended:?}");
    assert!(
        value["error"].as_str().is_some_and(|text| !text.is_empty() && !text.contains('\n')),
        "{line}: {ended:?}"
    );
    // The same as for the person.
    let begins: Vec<&str> = value["error"].as_str().unwrap().split(' ').take(3).collect();
    assert!(ended.err.contains(&begins.join(" ")), "{line}: {ended:?}");
}

#[test]
fn what_fails_is_json_too() {
    let home = Home::new();
    home.file("file", "");
    home.file("cards.txt", "TEA-0001\n");
    for line in COMMANDS {
        // There is no identity, no server, no store.
        failure(&home.run(&words(line)), line);
        // And with a command line that cannot be read.
        let mut wrong = words(line);
        wrong.push("--no-such-option");
        let wrong = home.run(&wrong);
        assert_eq!(wrong.code, Some(2), "{line}");
        failure(&wrong, line);
    }
    for line in [
        "completions tcsh",
        "no-such-command",
        "",
        "serve --config nowhere.toml",
        "serve --data d --log loud",
    ] {
        failure(&home.run(&words(line)), line);
    }
    // Help is for people, and no failure.
    let help = home.run(&["redeem", "--help", "--json"]);
    assert!(help.code == Some(0) && help.out.contains("Example:"), "{help:?}");
}

#[test]
fn what_is_done_is_json() {
    let home = Home::new();
    home.file("cards.txt", "TEA-0001\nTEA-0002\n");
    let server = home.serve();
    for line in COMMANDS.iter().take_while(|line| !line.starts_with("serve ")) {
        let ended = server.run(&words(line));
        match ended.code {
            Some(0) => assert!(ended.json().is_object(), "{line}"),
            // Not all of them can be done one after the other.
            _ => failure(&ended, line),
        }
    }
    let script = home.run(&["completions", "bash", "--json"]).json();
    assert_eq!(script["script"], home.run(&["completions", "bash"]).out);
    assert_eq!(home.run(&["man", "--out", "pages", "--json"]).json()["directory"], "pages");
    assert_eq!(
        home.run(&["codes", "generate", "--count", "5", "--out", "c.csv", "--json"]).json()["count"],
        5
    );
}

#[test]
fn a_server_can_say_in_json_that_it_is_ready() {
    let home = Home::new();
    let arguments = ["serve", "--json", "--data", "d", "--listen", "127.0.0.1:0", "--end-with-parent"];
    let mut command = home.kami(&arguments);
    let mut server = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let ready: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
    assert!(ready["quic"].as_str().unwrap().starts_with("127.0.0.1:") && ready["cards"] == 0, "{ready}");
    let id = rustix::process::Pid::from_child(&server);
    rustix::process::kill_process(id, Signal::TERM).unwrap();
    assert!(server.wait().unwrap().success());
}

/// A level that is none once switched logging off without a word.
#[test]
fn a_level_that_is_none_is_refused_by_every_command() {
    let home = Home::new();
    for command in [&["product", "list"][..], &["man", "--out", "pages"], &["verify", "--data", "d"]] {
        let with = |level: &str| Ended::of(home.kami(command).env("KAMI_LOG", level).output().unwrap());
        with("verbose").fails(2, "KAMI_LOG is `verbose`: it is no level (error, warn, info");
        assert!(!with("debug").err.contains("KAMI_LOG"), "{command:?}");
        assert!(!with("").err.contains("KAMI_LOG"), "{command:?}");
    }
}
