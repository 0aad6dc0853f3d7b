//! Runs against a server that the run did not start: it brings its own cards, twice in a row, and counts
//! exactly what it did.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

const BENCH: &str = env!("CARGO_BIN_EXE_kami-bench");

struct Server(Child);

impl Server {
    /// A server with a store in `directory`, and its address. It serves until its input ends.
    fn start(directory: &Path) -> (Server, String) {
        let mut child = Command::new(BENCH)
            .args(["quic-server", "--cards", "10", "--no-pin", "--store"])
            .arg(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().expect("a pipe")).read_line(&mut line).expect("a line");
        let address = line.split(' ').nth(1).expect("ready ADDRESS …").to_owned();
        (Server(child), address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn bench(args: &[&str], address: &str, identity: &Path) -> Output {
    let output = Command::new(BENCH)
        .args(args)
        .args(["--json", "--server", address, "--identity"])
        .arg(identity)
        .output()
        .expect("the program starts");
    eprintln!("{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

fn result(output: &Output) -> Value {
    assert_eq!(output.status.code(), Some(0));
    serde_json::from_slice(&output.stdout).expect("one line of JSON")
}

#[test]
fn runs_bring_their_own_cards_and_count_what_they_did() {
    let directory = tempfile::tempdir().expect("a directory");
    let (_server, address) = Server::start(directory.path());
    let identity = directory.path().join("client");
    let bench = |args: &[&str]| bench(args, &address, &identity);

    let redeemed = result(&bench(&["quic-redeem", "--cards", "3000", "--connections", "2", "--seed", "7"]));
    assert_eq!((&redeemed["ops"], &redeemed["errors"]), (&3000.into(), &0.into()));
    let seed = redeemed["seed"].as_u64();
    assert_eq!(seed, Some(7));

    let table = directory.path().join("latencies.hgrm");
    let more = ["--seconds", "0.5", "--warm-up", "0.2", "--ramp", "0.1", "--connections", "2", "--histogram"];
    let mut open = vec!["quic-latency", "--cards", "2000", "--rate", "1000"];
    open.extend(more);
    open.push(table.to_str().expect("a path"));
    let latency = result(&bench(&open));
    let ops = latency["ops"].as_u64().expect("a number");
    // 0.8 s are due at this rate, of which the first 0.3 s do not count.
    assert!((500..=501).contains(&ops), "{ops}");
    assert_ne!(latency["seed"].as_u64(), seed);
    let table = std::fs::read_to_string(table).expect("the percentile table");
    assert!(table.contains(&format!("Total count    = {ops:>12}")), "{table}");

    let sold = result(&bench(&["quic-sell", "--cards", "900", "--order-cards", "100"]));
    assert_eq!((&sold["ops"], &sold["errors"]), (&900.into(), &0.into()));

    // The cards of a seed are there already: said, and nothing is measured.
    let again = bench(&["quic-redeem", "--cards", "3000", "--seed", "7"]);
    assert_eq!(again.status.code(), Some(6));
    assert!(again.stdout.is_empty());
}
