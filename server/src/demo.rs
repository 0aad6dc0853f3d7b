//! `kami demo`: the proof, for people with a minute.
//!
//! Nothing here is staged. The server is this same binary in a process of its own, with its own keys and
//! certificates, reached over QUIC like any other. It is killed with SIGKILL while thousands of requests
//! are outstanding; then the demo holds it to every reply that it has read: the ledger of what was
//! promised is the client's own, and each card in it is asked for by its code.
//!
//! SIGKILL takes the process and not the page cache, so this proves what the engine and its recovery
//! do, not what a disk does in a power cut; the crash tests of the log prove that.
//!
//! ```text
//! demo.rs          the story
//! demo/process.rs  the server as a child process
//! demo/plan.rs     which cards, orders and request ids there are: all told by their number
//! demo/load.rs     thousands of requests outstanding, across the crash
//! demo/ledger.rs   what was promised, and whether the recovered history keeps it
//! ```

mod ledger;
mod load;
mod plan;
mod process;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use kami_engine::{ImportSpec, Lifecycle, ProductSpec};
use kami_net::{Client, ClientOptions, Identity};
use kami_wal::{DiskMedium, DiskOptions};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

use crate::exit::{Exit, Failure};
use crate::output::{Output, count};
use kami_server::{CardFile, ReadOptions};

use ledger::{Audit, Ledger};
use load::{Load, Partial};
use plan::Plan;
use process::ServerProcess;

/// Show that no acknowledged sale or redemption is lost or done twice, with a real server that is killed.
///
/// Makes a fresh directory below the current one and removes it again. Exits 0 if the proof holds, 1 if
/// not.
#[derive(Args)]
#[command(after_help = "Example:\n  kami demo\n  kami demo --cards 1000000 --json")]
pub struct Demo {
    /// How many cards are imported, sold and redeemed.
    #[arg(long, value_name = "N", default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(2_000..=50_000_000))]
    cards: u32,
}

/// Connections, each with a stream of its own.
const CONNECTIONS: usize = 4;
/// Requests outstanding on each.
const WINDOW: usize = 1024;

pub fn run(command: Demo, output: &Output) -> Result<Exit, Failure> {
    let failed = |error| Failure::environment(format!("the runtime cannot start: {error}"));
    let runtime = tokio::runtime::Runtime::new().map_err(failed)?;
    let directory = fresh_directory()?;
    let mut demo = Running { directory, server: None, json: output.json };
    let result = runtime.block_on(async {
        let result = tokio::select! {
            result = demo.play(command.cards) => result,
            failure = interrupted() => Err(failure),
        };
        if let Some(server) = demo.server.take() {
            server.kill().await;
        }
        result
    });
    if let Err(error) = std::fs::remove_dir_all(&demo.directory) {
        tracing::warn!("the demo's directory stays behind: {error} path=`{}`", demo.directory.display());
    }
    let (report, exit) = result?;
    if output.json {
        output.result(&report, String::new)?;
    }
    Ok(exit)
}

async fn interrupted() -> Failure {
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Failure::new(Exit::Interrupted, "the demo was interrupted; its server and directory are gone")
}

/// A directory that was not there before, below the current one.
fn fresh_directory() -> Result<PathBuf, Failure> {
    let here = std::env::current_dir()
        .map_err(|error| Failure::environment(format!("there is no current directory: {error}")))?;
    let mut number = 0;
    loop {
        let path = here.join(match number {
            0 => format!("kami-demo-{}", std::process::id()),
            number => format!("kami-demo-{}-{number}", std::process::id()),
        });
        match std::fs::create_dir(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => number += 1,
            Err(error) => {
                return Err(Failure::environment(format!(
                    "the demo needs a directory below the current one path=`{}`: {error}",
                    path.display()
                )));
            }
        }
    }
}

struct Running {
    directory: PathBuf,
    server: Option<ServerProcess>,
    json: bool,
}

impl Running {
    /// A line for whoever watches.
    fn say(&self, line: &str) {
        // If nobody reads it, the exit code still says how it went.
        let _ = if self.json {
            writeln!(std::io::stderr(), "{line}")
        } else {
            writeln!(std::io::stdout(), "{line}")
        };
    }

    async fn play(&mut self, cards: u32) -> Result<(serde_json::Value, Exit), Failure> {
        let data = self.directory.join("data");
        let durable = is_durable(&self.directory)?;
        self.say(&format!("directory    {}", self.directory.display()));
        if !durable {
            self.say("             on a file system that no power cut is survived on: not durable here");
        }

        let (server, _) = ServerProcess::start(&self.directory, "127.0.0.1:0", !durable).await?;
        let address = server.ready.address;
        let commit_path = server.ready.commit.clone();
        self.say(&format!("server       process {}, quic {address}, commits {commit_path}", server.id()));
        let killer = server.killer();
        self.server = Some(server);

        let identity = Identity::load(&self.directory.join("data.keys/admin"))?;
        let mut clients = Vec::new();
        for _ in 0..CONNECTIONS {
            let options = ClientOptions {
                timeout: Duration::from_secs(60),
                ..ClientOptions::new(address, identity.clone())
            };
            clients.push(Client::connect(options).await?);
        }
        let plan = Arc::new(self.stock(&clients[0], cards).await?);

        // The kill comes somewhere in the middle, and nobody knows where.
        let percent = 42 + plan.chance(13);
        let load = Arc::new(Load::new(plan.replies() * percent / 100, killer));
        let started = Instant::now();
        let mut channels = JoinSet::new();
        for (number, client) in clients.iter().enumerate() {
            let (client, plan, load) = (client.clone(), Arc::clone(&plan), Arc::clone(&load));
            channels
                .spawn(async move { load::run(&client, &plan, &load, number, CONNECTIONS, WINDOW).await });
        }
        let mut ledger = Ledger::new(Arc::clone(&plan));
        let at_kill = loop {
            tokio::select! {
                figures = load.killed() => break figures,
                Some(early) = channels.join_next() => ledger.add(joined(early)?),
            }
        };
        // Rates are those up to the kill: the outage would make them smaller and say nothing.
        let seconds = (at_kill.at - started).as_secs_f64();
        let (sell_per_s, redeem_per_s) = (at_kill.sold as f64 / seconds, at_kill.redeemed as f64 / seconds);
        let (replies, outstanding) = (at_kill.replies, at_kill.outstanding);
        if let Some(server) = self.server.take() {
            server.kill().await;
        }
        self.say(&format!(
            "load         {} cards sold/s and {} redeemed/s together, every reply after the disk",
            count(sell_per_s as u64),
            count(redeem_per_s as u64)
        ));
        let share = replies as f64 * 100.0 / plan.replies() as f64;
        self.say(&format!(
            "SIGKILL      after {} replies ({share:.1} %), with {} requests outstanding",
            count(replies),
            count(outstanding)
        ));

        let (server, recovery) =
            ServerProcess::start(&self.directory, &address.to_string(), !durable).await?;
        self.say(&format!(
            "restarted    process {}, ready in {:.2} s with {} cards, log at {}",
            server.id(),
            recovery.as_secs_f64(),
            count(server.ready.cards),
            count(server.ready.lsn)
        ));
        self.server = Some(server);

        load.restarted();
        let ready_at = Instant::now();
        while let Some(partial) = channels.join_next().await {
            ledger.add(joined(partial)?);
        }
        // Clients take a moment to find out that their connections are gone.
        let resumed = load.resumed().unwrap_or(ready_at);
        self.say(&format!(
            "resumed      first reply {:.2} s after the restart, all done {:.2} s after it",
            (resumed - ready_at).as_secs_f64(),
            ready_at.elapsed().as_secs_f64()
        ));
        self.say(&format!(
            "resolved     {} requests of unknown outcome by their ids, {} of which had taken effect",
            count(ledger.unknown_resolved),
            count(ledger.replayed)
        ));
        if let Some(first) = &ledger.first_unexpected {
            let surprises = count(ledger.unexpected);
            self.say(&format!("unexpected   {surprises} replies that cannot be; the first: {first}"));
        }
        let (sold, redeemed) = (ledger.sold(), ledger.redeemed());
        self.say(&format!(
            "load done    {} cards sold in {} orders and {} redeemed",
            count(sold),
            count(ledger.orders()),
            count(redeemed)
        ));

        let audit = self.audit(&clients, ledger).await?;
        let counters_agree = self.compare_counters(&clients[0], sold, redeemed).await?;
        for client in clients {
            client.close().await;
        }
        let whole = self.verify(&data).await?;

        let (lost, done_twice) = (audit.lost, audit.done_twice);
        let holds = lost == 0 && done_twice == 0 && audit.unexpected == 0 && counters_agree && whole;
        self.say(&format!(
            "{}       {} acknowledged replies: {lost} lost, {done_twice} done twice",
            if holds { "PROVED" } else { "FAILED" },
            count(audit.acknowledged)
        ));
        let report = json!({
            "cards": cards,
            "sold": sold,
            "redeemed": redeemed,
            "acknowledged": audit.acknowledged,
            "lost": lost,
            "done_twice": done_twice,
            "unknown_resolved": audit.unknown_resolved,
            "recover_seconds": rounded(recovery.as_secs_f64(), 1000.0),
            "sell_per_s": sell_per_s.round(),
            "redeem_per_s": redeem_per_s.round(),
            "durable": durable,
            "commit_path": commit_path,
        });
        Ok((report, if holds { Exit::Done } else { Exit::ProofFailed }))
    }

    /// Writes a card file and imports it, as a merchant would.
    async fn stock(&self, client: &Client, cards: u32) -> Result<Plan, Failure> {
        let mut plan = Plan::new(cards);
        let path = self.directory.join("cards.csv");
        plan.write_cards(&path).map_err(|error| {
            Failure::environment(format!(
                "the card file cannot be written path=`{}`: {error}",
                path.display()
            ))
        })?;
        let started = Instant::now();
        let product = client.product_add(ProductSpec::single("demo", *b"CNY", 2800)).await?.value;
        let file = CardFile::open(&path, &ReadOptions { currency: *b"CNY", ..ReadOptions::default() })?;
        let spec = ImportSpec { label: "demo".to_owned(), ..ImportSpec::of(product.id, 0, 0) };
        let task = crate::import::Task {
            client,
            file: &file,
            product: &product,
            skip_bad: false,
            only_check: false,
            report: None,
            id: None,
        };
        let Some(batch) = task.run(spec).await?.batch else {
            return Err(Failure::new(Exit::ProofFailed, "the cards were not imported"));
        };
        self.say(&format!(
            "imported     {} cards as batch {} in {:.1} s",
            count(batch.counts.iter().sum()),
            batch.id,
            started.elapsed().as_secs_f64()
        ));
        plan.product = product.id;
        Ok(plan)
    }

    /// Asks for every card that a reply was about.
    async fn audit(&self, clients: &[Client], ledger: Ledger) -> Result<Audit, Failure> {
        let started = Instant::now();
        let ledger = Arc::new(ledger);
        let mut asking = JoinSet::new();
        for (number, client) in clients.iter().enumerate() {
            let (client, ledger) = (client.clone(), Arc::clone(&ledger));
            asking.spawn(async move { load::ask(&client, &ledger, number, CONNECTIONS, WINDOW).await });
        }
        let mut audit = Audit::of(&ledger);
        while let Some(part) = asking.join_next().await {
            audit.add(joined(part)?);
        }
        self.say(&format!(
            "asked        {} cards one by one in {:.1} s",
            count(audit.asked),
            started.elapsed().as_secs_f64()
        ));
        Ok(audit)
    }

    /// Whether the engine's own counters say what the ledger says.
    async fn compare_counters(&self, client: &Client, sold: u64, redeemed: u64) -> Result<bool, Failure> {
        let counts = client.stats().await?.value.counts;
        let (there, used) = (counts[Lifecycle::Sold as usize], counts[Lifecycle::Redeemed as usize]);
        let agree = used == redeemed && there + used == sold;
        if !agree {
            self.say(&format!(
                "counters     the engine has {} sold and {} redeemed: not what was acknowledged",
                count(there + used),
                count(used)
            ));
        }
        Ok(agree)
    }

    /// Stops the server in order and verifies the store offline.
    async fn verify(&mut self, data: &Path) -> Result<bool, Failure> {
        let Some(server) = self.server.take() else { return Ok(false) };
        server.stop().await?;
        let (data, keys) = (data.to_owned(), crate::keys::beside(data));
        let verify = move || {
            let stopped = crate::verify::open_stopped;
            Ok::<_, Failure>(kami_engine::verify(stopped(&data)?, stopped(&keys)?)?)
        };
        let found = joined(tokio::task::spawn_blocking(verify).await)?;
        for problem in &found.problems {
            self.say(&format!("PROBLEM      {problem}"));
        }
        if found.problems.is_empty() {
            self.say(&format!(
                "verified     {} log entries replayed, {} chain values, {} snapshots: the store is whole",
                count(found.entries),
                count(found.log.chain_values),
                found.snapshots
            ));
        }
        Ok(found.problems.is_empty())
    }
}

/// What a task brought; a task that panicked fails the demo.
fn joined<T>(result: Result<Result<T, Failure>, tokio::task::JoinError>) -> Result<T, Failure> {
    result.unwrap_or_else(|error| Err(Failure::new(Exit::ProofFailed, format!("a task failed: {error}"))))
}

fn is_durable(directory: &Path) -> Result<bool, Failure> {
    let probe = directory.join("probe");
    let options = DiskOptions { unsafe_filesystem: true, ..DiskOptions::default() };
    let durable = DiskMedium::open(&probe, options)?.is_durable();
    let _ = std::fs::remove_dir_all(&probe);
    Ok(durable)
}

fn rounded(number: f64, parts: f64) -> f64 {
    (number * parts).round() / parts
}
