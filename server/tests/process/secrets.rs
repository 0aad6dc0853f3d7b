//! No code and no PIN in anything that is logged, counted or said about errors, at any level, nor in any file.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use kami_engine::{ImportSpec, OrderId, ProductId, RequestId, Status};
use kami_net::client::{RedeemOptions, Row, RowList, SellOptions};
use kami_net::{Client, ClientError};
use zeroize::Zeroizing;

use crate::environment::as_nobody;
use crate::store::{ADMIN, Ended, Home, Server};
use crate::watch::get;

const ID: &str = "0123456789abcdef0123456789abcdef";

#[test]
fn no_code_or_pin_is_ever_logged() {
    let home = Home::new();
    let codes: Vec<String> = (0..60).map(|n| format!("SECRETCODE-{n:04}-QQ")).collect();
    let pins: Vec<String> = (0..60).map(|n| format!("hush{n:02}pin")).collect();
    let rows = codes.iter().zip(&pins).map(|(code, pin)| format!("{code},{pin}\n"));
    home.file("cards.csv", format!("code,pin\n{}", rows.collect::<String>()));
    home.file("bad.csv", format!("code,pin\n{},{}\nx,{}\n", codes[0], pins[0], pins[1]));
    let port = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().to_string()
    };
    let server = home.serve_logged(&["--log", "trace", "--log-format", "json", "--metrics", &port]);
    let run = |arguments: &[&str]| -> Ended {
        let mut command = home.kami(arguments);
        command.env("KAMI_SERVER", server.address.to_string()).env("KAMI_LOG", "trace");
        Ended::of(command.output().unwrap())
    };
    assert_eq!(run(&["product", "add", "tea", "--face", "5", "--currency", "CNY"]).code, Some(0));
    assert_eq!(run(&["import", "cards.csv", "--product", "tea"]).code, Some(0));
    // Sold codes are printed: that is what selling is for. All else must not show any.
    let sold = run(&["sell", "tea", "--count", "40", "--order", "1"]);
    assert!(sold.out.contains(&codes[0]), "{sold:?}");
    let fetched = run(&["order", "1"]);
    let (first, pin) = (codes[0].as_str(), pins[0].as_str());
    let mut said = vec![sold.err, fetched.err];
    for arguments in [
        &["import", "cards.csv", "--product", "tea"][..],
        &["import", "bad.csv", "--product", "tea"],
        &["redeem", first, "--pin", pins[7].as_str()],
        &["redeem", first],
        &["redeem", first, "--pin", pin],
        &["redeem", first, "--pin", pin],
        &["redeem", codes[1].as_str(), "--pin", pins[1].as_str(), "--id", ID],
        &["reverse", codes[1].as_str(), "--original", ID],
        &["redeem", codes[50].as_str(), "--pin", pins[50].as_str()],
        &["query", codes[2].as_str()],
        &["history", codes[1].as_str()],
        &["freeze", codes[3].as_str()],
        &["redeem", codes[3].as_str(), "--pin", pins[3].as_str()],
        &["void", codes[55].as_str()],
        &["void", codes[4].as_str(), "--json"],
        &["query", "SECRETCODE-none-QQ", "--json"],
    ] {
        let ended = run(arguments);
        assert!(matches!(ended.code, Some(0 | 2 | 3)), "{arguments:?}: {ended:?}");
        said.extend([ended.out, ended.err]);
    }
    said.push(get(&port, "/metrics").1);
    assert_eq!(run(&["checkpoint"]).code, Some(0));
    assert_eq!(home.run(&["backup", "--data", "kami-data", "--out", "backup"]).code, Some(0));
    // No core could be written that holds one.
    assert_eq!(core_limits(server.id()), ["0", "0"]);
    let ended = server.stop();
    assert_eq!(ended.code, Some(0));
    said.extend([ended.out, home.text("log")]);
    assert!(said.last().unwrap().len() > 100_000, "trace says a lot");
    let files: usize =
        ["kami-data", "kami-data.keys", "backup"].map(|name| search(&home.path(name))).iter().sum();
    assert!(files > 15, "only {files} files were searched");
    for text in &said {
        for secret in ["SECRETCODE", "hush"] {
            if let Some(at) = text.find(secret) {
                let near: String = text[at.saturating_sub(300)..].chars().take(400).collect();
                panic!("a secret is told: {near}");
            }
        }
        // Nor as bytes that a debugging print shows as numbers or in hexadecimal.
        for shown in ["83, 69, 67, 82, 69, 84", "534543524554", "104, 117, 115, 104"] {
            assert!(!text.contains(shown), "a secret is told as bytes");
        }
    }
}

/// The soft and the hard limit of a process's core files.
fn core_limits(process: u32) -> [String; 2] {
    let limits = std::fs::read_to_string(format!("/proc/{process}/limits")).unwrap();
    let cores = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    let mut cores = cores.split_whitespace().skip(4).map(str::to_owned);
    [(); 2].map(|()| cores.next().unwrap())
}

/// Ends a process that a test need not wait for.
struct Waiting(Child);

impl Drop for Waiting {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Only the server kept its memory from cores and from other processes of its user; whoever verifies, copies keys, sells or
/// imports holds keys and codes too.
#[test]
fn no_command_leaves_a_core_or_lets_its_memory_be_read() {
    let home = Home::new();
    let server = home.serve();
    server.json(&["principal", "add", "till", "--role", "redeemer", "--out", "till"]);
    // A server that never answers, so that the command waits, with its key in memory.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    silent.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let waits = |mut command: Command| {
        command.args(["stats", "--timeout", "60", "--identity", "till", "--server", &address]);
        let waiting = Waiting(command.spawn().unwrap());
        silent.recv(&mut [0; 2048]).expect("it asks");
        waiting
    };
    let process = waits(home.kami(&[]));
    assert_eq!(core_limits(process.0.id()), ["0", "0"]);
    drop(process);

    // What is not dumpable belongs to root in /proc, whoever runs it.
    let Some(command) = as_nobody(&home) else { return };
    let given = Command::new("chown").args(["-R", "65534:65534"]).arg(home.path("till")).status().unwrap();
    assert!(given.success());
    while silent.set_read_timeout(Some(Duration::from_millis(200))).is_ok()
        && silent.recv(&mut [0; 2048]).is_ok()
    {}
    silent.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let process = waits(command);
    let owner = std::fs::metadata(format!("/proc/{}/mem", process.0.id())).unwrap().uid();
    assert_eq!(owner, 0, "its user may read its memory");
}

/// Looks into every file below a directory: log, batch file, snapshot, key, backup. Returns how many.
fn search(directory: &Path) -> usize {
    let mut files = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files += search(&path);
            continue;
        }
        files += 1;
        let bytes = std::fs::read(&path).unwrap();
        for secret in ["SECRETCODE", "hush"] {
            let found = memchr::memmem::find(&bytes, secret.as_bytes());
            assert_eq!(found, None, "a secret lies in {}", path.display());
        }
    }
    files
}

/// Where a needle lies in a process's memory, by the names of the mappings; `None` where that may not be read.
fn in_memory(server: &Server<'_>, needle: &[u8]) -> Option<Vec<String>> {
    let memory = File::open(format!("/proc/{}/mem", server.id())).ok()?;
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", server.id())).ok()?;
    let mut found = Vec::new();
    let mut bytes = Vec::new();
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (range, rights) = (words.next().unwrap(), words.next().unwrap());
        let (from, to) = range.split_once('-').unwrap();
        let [from, to] = [from, to].map(|address| u64::from_str_radix(address, 16).unwrap());
        bytes.resize((to - from) as usize, 0);
        // Some of the kernel's own cannot be read.
        if !rights.starts_with('r') || memory.read_exact_at(&mut bytes, from).is_err() {
            continue;
        }
        let name = words.nth(3).unwrap_or("unnamed");
        found.extend(
            memchr::memmem::find_iter(&bytes, needle).map(|at| format!("{name} {:x}", from + at as u64)),
        );
    }
    Some(found)
}

/// So many copies of codes are more than stacks keep by chance: the buffer kept half of a group of 32, twice over.
const KEPT: usize = 12;

/// The buffer in which an import looks cards up kept the codes of its last rows for good: they were moved out of it, which
/// leaves what was moved. So nothing of ours may keep a code once it is stored. Codes come in full width here and
/// are stored in plain letters, by which what the server made of them is told from what the network library
/// received.
#[test]
fn the_memory_of_a_server_keeps_no_code_that_it_stored() {
    let wide = |text: &str| -> String {
        let to_wide = |byte: u8| char::from_u32(0xFEE0 + u32::from(byte)).expect("a full-width character");
        text.bytes().map(to_wide).collect()
    };
    let home = Home::new();
    let codes: Vec<String> = (0..500).map(|n| wide(&format!("MEMCODE-{n:05}"))).collect();
    let server = home.serve();
    server.json(&["product", "add", "tea", "--face", "5", "--currency", "CNY"]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let client = runtime.block_on(Client::connect(server.options(ADMIN))).unwrap();
    // The command line would bring them into plain letters first.
    let rows: Vec<Row> = codes
        .iter()
        .map(|code| Row { code: Zeroizing::new(code.clone().into_bytes()), ..Row::default() })
        .collect();
    let spec = ImportSpec::of(ProductId(1), rows.len() as u64, 13);
    let import = RequestId::random();
    runtime.block_on(client.import(import, &spec, &mut RowList::new(&rows), |_| ())).unwrap();
    // Whoever may read the memory sees it all: something must be found that is surely there.
    let sees = in_memory(&server, b"kami-data").is_some_and(|found| !found.is_empty());
    if !sees {
        println!("NOT RUN: the memory of another process cannot be read here; it takes root");
        return;
    }
    // What a function moved lies on its thread's stack until that is written over, so a few are not judged.
    let few = |when: &str| {
        let found = in_memory(&server, b"MEMCODE-").expect("read before");
        println!("result: {when} {} copies are left in memory", found.len());
        assert!(found.len() < KEPT, "{when}: {found:?}");
    };
    few("after the import");
    runtime.block_on(async {
        for code in &codes[..20] {
            let refused = client.redeem(code.as_bytes(), RedeemOptions::default()).await.unwrap_err();
            assert!(matches!(refused, ClientError::Refused { status: Status::CardNotValid, .. }));
            client.query(code.as_bytes()).await.unwrap();
        }
    });
    few("after redemptions and queries");
    // Given out, they are on their way; how many the network library has not written over is told and not judged.
    runtime.block_on(async {
        let sold = client.sell(OrderId(1), ProductId(1), 400, SellOptions::default()).await.unwrap();
        assert_eq!(sold.value.cards.len(), 400);
        for code in &codes[..20] {
            client.redeem(code.as_bytes(), RedeemOptions::default()).await.unwrap();
        }
    });
    let left = in_memory(&server, b"MEMCODE-").expect("read before").len();
    println!("result: of 400 codes that were given out {left} copies are left in memory");
}
