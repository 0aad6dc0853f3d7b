//! Redis as a card store: a key a card, one script a redemption, every write in the append-only file.
//!
//! The script does what a careful shop does: a card is redeemed only if it is sold, and the same request
//! again gets the same answer. It keeps no history, no receipt, no owner, and codes lie there in plain
//! text: what Kami does beyond this is not in the comparison. With `appendfsync always` Redis answers
//! after the disk has the write, as Kami does; with `everysec` a power cut takes up to a second of
//! acknowledged redemptions with it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use redis::aio::MultiplexedConnection;
use redis::{Client, Pipeline, RedisError};

use crate::args::Args;
use crate::codes::{Codes, Scattered};
use crate::peer::{Process, find, free_port};
use crate::redeem::Done;
use crate::report::Latencies;
use crate::store::{Purpose, request_id};

/// Connections, as redis-benchmark has them.
const CONNECTIONS: u64 = 50;
/// Cards a pipeline when they are loaded.
const LOAD_CARDS: u64 = 1000;

/// The first key is the card, the first argument the request's id.
const REDEEM: &str = "\
local was = redis.call('GET', KEYS[1])
if was == 'S' then redis.call('SET', KEYS[1], ARGV[1]) return 1 end
if was == ARGV[1] then return 1 end
if was then return 0 end
return -1";

/// When the append-only file is synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// Before the answer.
    Always,
    /// Once a second.
    EverySecond,
}

/// A running server with an empty store.
pub struct Redis {
    process: Process,
    client: Client,
    program: PathBuf,
    directory: PathBuf,
    port: u16,
    sync: Sync,
}

/// What loading the cards told.
pub struct Loaded {
    /// How fast.
    pub cards_per_s: f64,
    /// Memory a card, sold and not yet redeemed.
    pub bytes_per_card: f64,
}

impl Redis {
    /// The server's program, if it is installed.
    pub fn program() -> Option<PathBuf> {
        find("redis-server", &[])
    }

    /// Starts a server with an empty store in `directory`.
    pub async fn start(program: &Path, directory: &Path, sync: Sync) -> Result<Redis> {
        let port = free_port()?;
        let process = spawn(program, directory, port, sync)?;
        let client = Client::open(("127.0.0.1", port))?;
        let (program, directory) = (program.to_owned(), directory.to_owned());
        let redis = Redis { process, client, program, directory, port, sync };
        redis.wait().await?;
        Ok(redis)
    }

    /// Waits until it answers commands about its data.
    async fn wait(&self) -> Result<()> {
        let begun = Instant::now();
        loop {
            let asked: Result<i64, RedisError> = async {
                let mut connection = self.client.get_multiplexed_async_connection().await?;
                redis::cmd("DBSIZE").query_async(&mut connection).await
            }
            .await;
            match asked {
                Ok(_) => return Ok(()),
                Err(error) if begun.elapsed() < Duration::from_secs(120) => {
                    // It starts, or reads its file.
                    let _ = error;
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                Err(error) => return Err(error).context("redis-server does not answer; see its server.log"),
            }
        }
    }

    /// Puts sold cards there.
    pub async fn load(&mut self, args: &Args) -> Result<Loaded> {
        let mut connection = self.client.get_multiplexed_async_connection().await?;
        let codes = Codes::new(args.seed);
        let empty = memory(&mut connection).await?;
        let begun = Instant::now();
        for from in (0..args.cards).step_by(LOAD_CARDS as usize) {
            let mut pipeline = Pipeline::with_capacity(LOAD_CARDS as usize);
            for number in from..args.cards.min(from + LOAD_CARDS) {
                pipeline.cmd("SET").arg(&codes.code(number)[..]).arg("S").ignore();
            }
            pipeline.query_async::<()>(&mut connection).await?;
        }
        let cards_per_s = args.cards as f64 / begun.elapsed().as_secs_f64();
        let full = memory(&mut connection).await?;
        Ok(Loaded { cards_per_s, bytes_per_card: full.saturating_sub(empty) as f64 / args.cards as f64 })
    }

    /// Redeems cards, each once, `pipelined` commands under way on every connection.
    pub async fn redeem(&self, args: &Args, limit: Duration, pipelined: u64) -> Result<Done> {
        let mut connections = Vec::new();
        for _ in 0..CONNECTIONS {
            connections.push(self.client.get_multiplexed_async_connection().await?);
        }
        let load = redis::cmd("SCRIPT").arg("LOAD").arg(REDEEM).to_owned();
        let hash: String = load.query_async(&mut connections[0]).await?;
        let codes = Codes::new(args.seed);
        let begun = Instant::now();
        let mut tasks = tokio::task::JoinSet::new();
        for (part, mut connection) in (0..).zip(connections) {
            let (hash, mut numbers) = (hash.clone(), Scattered::part(args.cards, part, CONNECTIONS));
            tasks.spawn(async move {
                let mut done = Done::default();
                let mut latencies = Latencies::default();
                while begun.elapsed() < limit {
                    let mut pipeline = Pipeline::with_capacity(pipelined as usize);
                    let mut asked = 0;
                    for number in numbers.by_ref().take(pipelined as usize) {
                        let id = request_id(Purpose::Redeem, number).0.to_le_bytes();
                        pipeline.cmd("EVALSHA").arg(&hash).arg(1).arg(&codes.code(number)[..]).arg(&id[..]);
                        asked += 1;
                    }
                    if asked == 0 {
                        break;
                    }
                    let submitted = Instant::now();
                    let replies: Vec<i64> = pipeline.query_async(&mut connection).await?;
                    let right = replies.iter().filter(|reply| **reply == 1).count() as u64;
                    latencies.record(submitted.elapsed(), right);
                    done.done += right;
                    done.errors += asked - right;
                }
                done.latencies = latencies;
                done.elapsed = begun.elapsed();
                Ok::<Done, RedisError>(done)
            });
        }
        let mut total = Done::default();
        while let Some(part) = tasks.join_next().await {
            total.add(&part??);
        }
        Ok(total)
    }

    /// Kills the server and starts it again; returns seconds until it answers.
    pub async fn recover(&mut self) -> Result<f64> {
        self.process.kill()?;
        let begun = Instant::now();
        self.process = spawn(&self.program, &self.directory, self.port, self.sync)?;
        self.wait().await?;
        Ok(begun.elapsed().as_secs_f64())
    }
}

fn spawn(program: &Path, directory: &Path, port: u16, sync: Sync) -> Result<Process> {
    let sync = if sync == Sync::Always { "always" } else { "everysec" };
    let mut command = Command::new(program);
    command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--dir"]);
    command.arg(directory).args(["--appendonly", "yes", "--appendfsync", sync]);
    // A rewrite of the file within the run would be measured with it.
    command.args(["--auto-aof-rewrite-percentage", "0"]);
    Process::start(&mut command, directory)
}

/// What its data takes, as it says itself.
async fn memory(connection: &mut MultiplexedConnection) -> Result<u64> {
    let told: String = redis::cmd("INFO").arg("memory").query_async(connection).await?;
    let used = told.lines().find_map(|line| line.strip_prefix("used_memory:"));
    let used = used.and_then(|bytes| bytes.trim().parse().ok());
    ensure!(used.is_some(), "redis-server does not tell its memory");
    Ok(used.unwrap_or_default())
}
