//! The server's certificate over time: renewed by the running server, taken up when it is replaced, and
//! refused in words when it cannot be used.

use std::fs;
use std::time::Duration;

use kami_net::{Authority, Certificate, Identity, Validity};
use rustix::process::Signal;

use crate::store::Home;
use crate::watch::{get, metric};

fn now_ms() -> u64 {
    jiff::Timestamp::now().as_millisecond().unsigned_abs()
}

const DAY_MS: u64 = 24 * 3600 * 1000;

/// Puts an identity of `authority` in the place of the server's.
fn replace(home: &Home, authority: &Authority, validity: Validity) -> Identity {
    let server = home.path("kami-data.keys/server");
    let names = fs::read_to_string(server.join("names")).unwrap();
    let list: Vec<String> = names.lines().map(str::to_owned).collect();
    let identity = authority.issue_server_within(&list, validity, None).unwrap();
    let new = home.path("kami-data.keys/other");
    identity.save(&new).unwrap();
    fs::write(new.join("names"), names).unwrap();
    fs::remove_dir_all(&server).unwrap();
    fs::rename(new, server).unwrap();
    identity
}

fn authority(home: &Home) -> Authority {
    Authority::load(&home.path("kami-data.keys/ca")).unwrap()
}

/// A home with keys, as a first start leaves it.
fn started_once() -> Home {
    let home = Home::new();
    home.serve().stop();
    home
}

#[test]
fn a_running_server_renews_its_certificate_and_takes_up_another() {
    let home = Home::new();
    let port = free_port();
    let server = home.serve_logged(&["--metrics", &port]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let before = runtime.block_on(server.client(Duration::from_secs(5)));
    // Two thirds of its time are over in about four seconds.
    let soon = Validity { from_ms: now_ms() - 20_000, until_ms: now_ms() + 16_000 };
    replace(&home, &authority(&home), soon);
    server.signal(Signal::HUP);
    home.wait_for_log("new connections are shown a new certificate", 1);
    assert_eq!(metric(&get(&port, "/metrics").1, END) as u64, soon.until_ms / 1000);
    home.wait_for_log("new connections are shown a new certificate", 2);
    let renewed = Identity::load(&home.path("kami-data.keys/server")).unwrap().validity().unwrap();
    assert!(renewed.until_ms > now_ms() + 364 * DAY_MS, "{renewed:?}");
    assert_eq!(metric(&get(&port, "/metrics").1, END) as u64, renewed.until_ms / 1000);
    server.json(&["stats"]);
    runtime.block_on(before.stats()).expect("a connection from before goes on");

    // Somebody brings one of their own.
    let theirs = Validity { from_ms: now_ms() - DAY_MS, until_ms: now_ms() + 100 * DAY_MS };
    replace(&home, &authority(&home), theirs);
    server.signal(Signal::HUP);
    home.wait_for_log("new connections are shown a new certificate", 3);
    let scraped = get(&port, "/metrics").1;
    assert_eq!(metric(&scraped, END) as u64, theirs.until_ms / 1000);
    let due_ms = theirs.from_ms + (theirs.until_ms - theirs.from_ms) / 3 * 2;
    assert_eq!(
        metric(&scraped, "kami_certificate_due_seconds{certificate=\"server\"}") as u64,
        due_ms / 1000
    );
    server.json(&["stats"]);

    // One of another authority would shut everybody out.
    let other = Authority::create(&home.path("other-ca")).unwrap();
    replace(&home, &other, theirs);
    server.signal(Signal::HUP);
    home.wait_for_log("the certificate is of another authority", 1);
    server.json(&["stats"]);
    runtime.block_on(before.stats()).unwrap();
    runtime.block_on(before.close());
    assert_eq!(server.stop().code, Some(0));
}

const END: &str = "kami_certificate_end_seconds{certificate=\"server\"}";

fn free_port() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

#[test]
fn certificates_that_nobody_would_accept_refuse_to_start() {
    let home = started_once();
    let keys = home.path("kami-data.keys");
    let refused = |because: &str| match home.try_serve(&[]) {
        Ok(server) => panic!("the server started: {}", server.line),
        Err(ended) => ended.fails(6, because),
    };
    let (year_2001, year_2002) = (978_307_200_000, 1_009_843_200_000);
    replace(&home, &authority(&home), Validity { from_ms: year_2001, until_ms: year_2002 });
    fs::rename(keys.join("ca"), home.path("ca-kept-elsewhere")).unwrap();
    refused("the server's certificate ended on 2002-01-01 00:00:00+00:00; the authority's key is needed");
    fs::rename(home.path("ca-kept-elsewhere"), keys.join("ca")).unwrap();
    home.serve().stop();

    // One of a clock that was ahead: issued again, unless the authority is away.
    let tomorrow = Validity { from_ms: now_ms() + DAY_MS, until_ms: now_ms() + 100 * DAY_MS };
    replace(&home, &authority(&home), tomorrow);
    fs::rename(keys.join("ca"), home.path("ca-kept-elsewhere")).unwrap();
    refused("is the clock right?");
    fs::rename(home.path("ca-kept-elsewhere"), keys.join("ca")).unwrap();
    home.serve().json(&["stats"]);

    let ended = Validity { from_ms: year_2001, until_ms: year_2002 };
    fs::remove_dir_all(keys.join("ca")).unwrap();
    let ca = Authority::create_within(&keys.join("ca"), ended).unwrap();
    replace(&home, &ca, Validity { from_ms: now_ms() - DAY_MS, until_ms: now_ms() + DAY_MS });
    refused("the certificate authority ended on 2002-01-01 00:00:00+00:00: move `ca`, `server` and `admin`");
    for gone in ["ca", "server", "admin"] {
        fs::remove_dir_all(keys.join(gone)).unwrap();
    }
    // What the sentence says to do works.
    home.serve().json(&["stats"]);
}

/// Who is let in by the local command line was renewed by a start alone: a server that runs for longer than a year
/// shut its operator out.
#[test]
fn a_running_server_renews_the_admin() {
    let home = Home::new();
    let server = home.serve_logged(&[]);
    let admin = home.path("kami-data.keys/admin");
    let facts = || Certificate::load(&admin).unwrap().facts().unwrap();
    let key = Certificate::load(&admin).unwrap().subject_key().unwrap();
    let first = facts();
    authority(&home).certify("admin", &key, 30).unwrap().save(&admin).unwrap();
    server.signal(Signal::HUP);
    home.wait_for_log("renewed the local admin identity", 1);
    let renewed = facts();
    assert_eq!(renewed.key, first.key);
    assert!(renewed.note.expires_ms >= first.note.expires_ms, "a year, not a month");
    // The engine is told behind the file.
    let patience = std::time::Instant::now() + Duration::from_secs(30);
    let noted = || server.json(&["principal", "list"])["principals"][0]["expires_ms"].clone();
    while noted() != renewed.note.expires_ms {
        assert!(std::time::Instant::now() < patience, "{} is noted", noted());
    }
    // Without the authority it is said once, and not at every look.
    fs::rename(home.path("kami-data.keys/ca"), home.path("ca-kept-elsewhere")).unwrap();
    Authority::load(&home.path("ca-kept-elsewhere"))
        .unwrap()
        .certify("admin", &key, 30)
        .unwrap()
        .save(&admin)
        .unwrap();
    server.signal(Signal::HUP);
    home.wait_for_log("the local admin identity ends soon and cannot be renewed", 1);
    assert_eq!(server.stop().code, Some(0));
}
