//! The real binary with a write that fails, by `strace`: the server ends, and what it acknowledged is there.
//!
//! Whether the failing call is the log's or another's, nobody who was told something may find it undone. Where there is
//! no `strace`, or it may not look at other processes, this is NOT RUN, and says so.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use kami_engine::{OrderId, ProductId, RequestId};
use kami_net::ClientError;
use kami_net::client::SellOptions;

use crate::store::{Home, Server};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// The calls by which a store's bytes reach the disk.
const CALLS: &str = "pwrite64,pwritev,pwritev2,fdatasync,fsync,msync";

struct Tracer(Child);

impl Drop for Tracer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Lets the `nth` of the calls from now on fail, and no other. `None` where that cannot be done.
fn fail_nth(server: &Server<'_>, nth: u64) -> Option<Tracer> {
    let inject = format!("inject={CALLS}:error=EIO:when={nth}");
    let trace = format!("trace={CALLS}");
    let mut command = Command::new("strace");
    command.args(["-f", "-p", &server.id().to_string(), "-e", &trace, "-e", &inject, "-o", "/dev/null"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().ok()?;
    let mut said = String::new();
    BufReader::new(child.stderr.take()?).read_line(&mut said).ok()?;
    let tracer = Tracer(child);
    said.contains("attached").then_some(tracer)
}

#[test]
fn a_write_that_fails_ends_the_server_and_loses_nothing() {
    for nth in [2, 7] {
        let home = Home::new();
        let server = home.serve();
        server.stock("tea", "5", (0..600).map(|n| format!("TEA-{n:09}\n")).collect::<String>());
        let Some(tracer) = fail_nth(&server, nth) else {
            println!("NOT RUN: strace is not installed, or may not look at processes here");
            return;
        };
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let told = runtime.block_on(async {
            let client = server.client(PATIENCE).await;
            let mut told = Vec::new();
            for order in 1..=100 {
                let request = RequestId::random();
                let options = SellOptions { request: Some(request), ..SellOptions::default() };
                match client.sell(OrderId(order), ProductId(1), 3, options).await {
                    Ok(sold) => told.push((OrderId(order), sold.value.cards)),
                    Err(ClientError::Unknown { .. } | ClientError::Unreachable { .. }) => break,
                    Err(error) => panic!("{error}"),
                }
            }
            client.close().await;
            told
        });
        assert!(told.len() < 100, "the failing call was never reached");
        let ended = server.end();
        drop(tracer);
        assert_eq!(ended.code, Some(5), "{ended:?}");
        let server = home.serve();
        runtime.block_on(async {
            let client = server.client(PATIENCE).await;
            for (order, cards) in &told {
                assert_eq!(client.order(*order).await.unwrap().value.cards, *cards, "order {order}");
            }
            client.close().await;
        });
        assert_eq!(server.stop().code, Some(0));
        assert_eq!(home.run(&["verify", "--data", "kami-data", "--json"]).json()["whole"], true);
    }
}
