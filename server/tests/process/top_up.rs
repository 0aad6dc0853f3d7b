//! Direct top-ups by a program of its own, with the worker, the server or the program killed between the steps.

use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::store::{Ended, Home, Server};

/// Tops up phones in the directory `airtime`, once for each id. A file `before`, `after`, `refuse` or `fail` there
/// makes it stop at that point until its caller is gone, or say so.
const AIRTIME: &str = r#"#!/bin/sh
read -r job
echo "$job" >> airtime/seen
field() { printf '%s' "$job" | sed "s/.*\"$1\":\"\{0,1\}\([^\",}]*\).*/\1/"; }
id=$(field id)
stop() {
    [ -e "airtime/$1" ] || return
    rm "airtime/$1"
    touch airtime/stopped
    while kill -0 "$PPID" 2>/dev/null; do sleep 0.02; done
    exit 1
}
case $1 in
fulfil)
    stop before
    [ -e airtime/refuse ] && { rm airtime/refuse; echo '{"result":"refused","reason":"no such phone"}'; exit; }
    mkdir "airtime/$id" 2>/dev/null && echo "$(field to) $(field amount_minor) $(field currency)" >> airtime/paid
    stop after
    [ -e airtime/fail ] && { rm airtime/fail; exit 7; }
    echo "{\"result\":\"done\",\"reference\":\"ref-$id\"}" ;;
outcome)
    if [ -d "airtime/$id" ]; then echo "{\"result\":\"done\",\"reference\":\"ref-$id\"}"
    else echo '{"result":"refused","reason":"never placed"}'; fi ;;
esac
"#;

fn command(id: &str) -> Vec<&str> {
    let fixed =
        ["top-up", "GIFT-00000001", "--to", "13800000000", "--amount", "20", "--with", "./airtime.sh"];
    [&fixed[..], &["--id", id, "--json"]].concat()
}

/// Runs a top-up until its program stops there, and kills it.
fn dies_at(home: &Home, server: &Server<'_>, id: &str, point: &str) {
    home.file(&format!("airtime/{point}"), "");
    let _ = std::fs::remove_file(home.path("airtime/stopped"));
    let mut worker = server.command(&command(id)).stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let begun = Instant::now();
    while !home.path("airtime/stopped").exists() {
        assert!(begun.elapsed() < Duration::from_secs(30), "the program does not stop {point}");
        std::thread::sleep(Duration::from_millis(10));
    }
    worker.kill().unwrap();
    worker.wait().unwrap();
}

fn card(server: &Server<'_>) -> (i64, i64) {
    let card = server.json(&["query", "GIFT-00000001"]);
    (card["remaining_minor"].as_i64().unwrap(), card["held_minor"].as_i64().unwrap())
}

#[test]
fn a_top_up_is_done_and_paid_once_whoever_is_killed_between_the_steps() {
    let home = Home::new();
    std::fs::create_dir(home.path("airtime")).unwrap();
    let program = home.file("airtime.sh", AIRTIME);
    std::fs::set_permissions(program, PermissionsExt::from_mode(0o755)).unwrap();
    let server = home.serve();
    server.json(&["product", "add", "gift", "--face", "200", "--currency", "CNY", "--kind", "value"]);
    home.file("gift.txt", "GIFT-00000001\n");
    server.json(&["import", "gift.txt", "--product", "gift"]);
    server.json(&["sell", "gift", "--count", "1", "--order", "1"]);
    let paid = || std::fs::read_to_string(home.path("airtime/paid")).unwrap_or_default().lines().count();

    // As it should be, and the same again.
    let done = server.run(&command("first")).json();
    assert_eq!((&done["amount_minor"], &done["remaining_minor"]), (&2000.into(), &18_000.into()));
    assert_eq!((&done["late"], &done["to"]), (&false.into(), &"13800000000".into()));
    assert_eq!(server.run(&command("first")).json()["replayed"], true);
    assert_eq!(home.text("airtime/paid"), "13800000000 2000 CNY\n");

    // The worker is killed before the program did it.
    dies_at(&home, &server, "second", "before");
    assert_eq!((paid(), card(&server)), (1, (18_000, 2000)));
    server.run(&command("second")).json();
    assert_eq!((paid(), card(&server)), (2, (16_000, 0)));

    // The worker is killed after it, and so is the server.
    dies_at(&home, &server, "third", "after");
    server.kill();
    let server = home.serve();
    assert_eq!((paid(), card(&server)), (3, (16_000, 2000)));
    let done = server.run(&command("third")).json();
    assert_eq!((&done["late"], &done["replayed"]), (&false.into(), &false.into()));
    assert_eq!((paid(), card(&server)), (3, (14_000, 0)));

    // The program is killed, or fails, after it: nobody knows, and the card stays held.
    home.file("airtime/fail", "");
    let unknown = server.run(&command("fourth"));
    unknown.fails(4, "run the same command again");
    assert_eq!((paid(), card(&server)), (4, (14_000, 2000)));
    home.file("airtime/after", "");
    let slow: Vec<&str> = [command("fourth"), vec!["--patience", "1s"]].concat();
    server.run(&slow).fails(4, "no answer within 1000 ms");
    server.run(&command("fourth")).json();
    assert_eq!((paid(), card(&server)), (4, (12_000, 0)));

    // It is refused: the card is free.
    home.file("airtime/refuse", "");
    server.run(&command("fifth")).fails(3, "no such phone");
    assert_eq!((paid(), card(&server)), (4, (12_000, 0)));
    let missing = ["top-up", "GIFT-00000001", "--to", "1", "--id", "sixth", "--with", "./nobody"];
    server.run(&missing).fails(4, "cannot run `./nobody`");

    let events = server.json(&["history", "GIFT-00000001"])["events"].clone();
    let captured = events.as_array().unwrap().iter().filter(|event| event["event"] == "CAPTURE").count();
    assert_eq!(captured, 4, "{events}");
    assert!(!home.text("airtime/seen").contains("GIFT"), "a program is not told the code");
    server.stop();
    let found: Ended = home.run(&["verify", "--data", "kami-data", "--json"]);
    assert_eq!(found.json()["whole"], true);
}
