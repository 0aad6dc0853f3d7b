//! Imports that are interrupted: the client killed, the server killed, in the middle of one. Whatever
//! happens, every card is there once in the end, or none is.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use kami_engine::{RequestId, Status};
use kami_net::Client;
use kami_net::frame::request::OneImport;
use kami_net::frame::{Body, Request};

use crate::store::{Ended, Home, Server};

const ID: &str = "00000000000000000000000000001d1d";
const CARDS: u64 = 120_000;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

fn cards(home: &Home) {
    let mut text = String::from("卡号,密码\r\n");
    for n in 0..CARDS {
        text += &format!("RESUME-{n:010}-ABCD,{:06}\r\n", n % 1_000_000);
    }
    home.file("cards.csv", text);
}

/// Rows that the server has staged of the import; `None` if it knows of none.
async fn staged(client: &Client) -> Option<u64> {
    let import = RequestId(u128::from_str_radix(ID, 16).unwrap());
    let answer = client.send(&Request::ImportStatus(OneImport { import })).await.unwrap();
    match answer.body {
        Body::Import(report) => Some(report.rows),
        Body::None if answer.head.status == Status::NotFound => None,
        other => panic!("it was committed before anybody could interrupt it: {other:?}"),
    }
}

/// Starts the import and waits until some of its rows are staged.
async fn begin<'a>(server: &Server<'a>, client: &Client, more: &[&str]) -> Child {
    let mut arguments = vec!["import", "cards.csv", "--product", "tea", "--id", ID, "--json"];
    arguments.extend(more);
    let mut command = server.command(&arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let begun = Instant::now();
    while staged(client).await.is_none_or(|rows| rows == 0) {
        assert!(begun.elapsed() < Duration::from_secs(60), "no row arrives");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    child
}

fn check_whole(home: &Home, server: Server<'_>) {
    assert_eq!(server.json(&["stats"])["cards"], CARDS);
    assert_eq!(server.json(&["batch", "list"])["total"], 1);
    let last = format!("RESUME-{:010}-ABCD", CARDS - 1);
    assert_eq!(server.json(&["query", &last])["state"], "AVAILABLE");
    assert_eq!(server.stop().code, Some(0));
    let verified = home.run(&["verify", "--data", "kami-data", "--json"]).json();
    assert_eq!((&verified["whole"], &verified["cards"]), (&true.into(), &CARDS.into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_client_goes_on_where_it_was() {
    let home = Home::new();
    let server = home.serve();
    server.json(&["product", "add", "tea", "--face", "5", "--currency", "CNY"]);
    cards(&home);
    let client = server.client(PATIENCE).await;
    let mut child = begin(&server, &client, &[]).await;
    child.kill().unwrap();
    child.wait().unwrap();
    let rows = staged(&client).await.unwrap();
    assert!(0 < rows && rows < CARDS, "{rows}");
    assert_eq!(server.json(&["stats"])["cards"], 0, "nothing is there before the commit");

    // Another file does not get mixed in.
    home.file("other.csv", "卡号,密码\r\nOTHER-0001,1\r\n");
    let import = ["import", "other.csv", "--product", "tea", "--id", ID];
    server.run(&import).fails(3, "ID_REUSED");

    let import = ["import", "cards.csv", "--product", "tea", "--id", ID];
    let ended = server.run(&import);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.err.contains("going on after card "), "{ended:?}");
    assert!(!ended.err.contains("going on after card 0 "), "{ended:?}");
    // Again, it says what it said; under no name it is the same cards.
    let again = server.json(&import);
    assert_eq!((&again["replayed"], &again["cards"]), (&true.into(), &CARDS.into()));
    server.run(&["import", "cards.csv", "--product", "tea"]).fails(3, "as batch ");
    client.close().await;
    check_whole(&home, server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_is_told_again() {
    let home = Home::new();
    let server = home.serve();
    server.json(&["product", "add", "tea", "--face", "5", "--currency", "CNY"]);
    cards(&home);
    let client = server.client(PATIENCE).await;
    let child = begin(&server, &client, &["--timeout", "60"]).await;
    let address = server.address.to_string();
    server.kill();
    // The same client comes back by itself when the server does.
    let server = home.try_serve(&["--listen", &address]).unwrap_or_else(|ended| panic!("{ended:?}"));
    let ended = Ended::of(child.wait_with_output().unwrap());
    let imported = ended.json();
    assert_eq!((&imported["cards"], &imported["replayed"]), (&CARDS.into(), &false.into()));
    client.close().await;
    let batches = std::fs::read_dir(home.path("kami-data/batches")).unwrap();
    assert_eq!(batches.count(), 1, "what the killed server had staged is gone");
    check_whole(&home, server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_replaced_meanwhile_is_not_mixed_in() {
    let home = Home::new();
    let server = home.serve();
    server.json(&["product", "add", "tea", "--face", "5", "--currency", "CNY"]);
    cards(&home);
    let client = server.client(PATIENCE).await;
    let mut child = begin(&server, &client, &[]).await;
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    // Of the same length, and with the same time of change.
    let path = home.path("cards.csv");
    let text = std::fs::read_to_string(&path).unwrap();
    let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
    std::fs::write(&path, text.replace("RESUME-", "OTHERS-")).unwrap();
    std::fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
    let status = child.wait().unwrap();
    let ended = Ended::of(child.wait_with_output().unwrap());
    if status.success() {
        // All of it was on its way already.
        server.json(&["query", &format!("RESUME-{:010}-ABCD", CARDS - 1)]);
    } else {
        ended.fails(6, "was changed while it was read");
        assert_eq!(staged(&client).await, None, "nobody goes on with it");
        assert_eq!(server.json(&["stats"])["cards"], 0);
        server.json(&["import", "cards.csv", "--product", "tea"]);
    }
    assert_eq!(server.json(&["stats"])["cards"], CARDS);
    client.close().await;
    assert_eq!(server.stop().code, Some(0));
}
