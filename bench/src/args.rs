//! The command line. Every flag has a default that makes a bare `kami-bench WORKLOAD` the acceptance
//! configuration; which flags a workload reads stands in `docs/benchmarks.md`.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::ArgPredicate;
use clap::{Parser, ValueEnum};

/// Load generator for Kami: one workload a run, one result a run.
#[derive(Clone, Debug, Parser)]
#[command(name = "kami-bench", version, max_term_width = 100)]
pub struct Args {
    /// What to measure.
    pub workload: Workload,
    /// Print one JSON object on standard output and nothing else there.
    #[arg(long)]
    pub json: bool,
    /// Cards that are imported; 1,000,000 with --server, 2,000,000 for each of the peers.
    #[arg(long, default_value = "10000000", default_value_if("server", ArgPredicate::IsPresent, "1000000"))]
    #[arg(default_value_if("workload", ArgPredicate::Equals("peers".into()), "2000000"))]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    pub cards: u64,
    /// Threads that submit. Default 2, for import 1.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub threads: Option<u32>,
    /// Commands an execution, or frames a write. Default 64, for single orders and terminals 1.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub batch: Option<u32>,
    /// Commands outstanding: in process over all threads (default 65536), over QUIC for each connection.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1 << 24))]
    pub window: Option<u32>,
    /// End after this long, if the count is not done before.
    #[arg(long, value_parser = some_seconds)]
    pub seconds: Option<Duration>,
    /// The same in minutes; a soak takes 10 unless told otherwise.
    #[arg(long, value_parser = some_minutes, conflicts_with = "seconds")]
    pub minutes: Option<Duration>,
    /// End after this many operations. Default all that the cards allow.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// From which codes and request ids are generated. Default 1; with --server another one each time,
    /// because a server takes the same cards only once.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(..1 << 56))]
    #[arg(default_value_if("server", ArgPredicate::IsPresent, fresh_seed()))]
    pub seed: u64,
    /// How the log reaches the disk.
    #[arg(long, value_enum, default_value_t = PathChoice::Auto)]
    pub commit_path: PathChoice,
    /// Where the fresh store goes: a `kami-bench-*` directory under this one, removed at the end.
    #[arg(long, default_value = ".")]
    pub dir: PathBuf,
    /// Cards an order.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub order_cards: u32,
    /// Whether the codes of sold cards are decrypted and compared.
    #[arg(long, value_enum, default_value_t = YesNo::Yes)]
    pub reveal: YesNo,
    /// All orders are paid by one customer, so that they hit the same four accounts.
    #[arg(long)]
    pub hot: bool,
    /// Connections; a server that the run starts takes as many. Default 16, for terminals 64, for sales 4, for
    /// latency with a rate 16 and without 1.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub connections: Option<u32>,
    /// Commands a second over all connections, sent when they are due whatever was answered: an open loop. For what
    /// redeems, the mix and the soak.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub rate: Option<u32>,
    /// A running server, HOST:PORT, to measure instead of one started here. The run adds a product of its
    /// own, imports its cards and sells them before the clock starts; they stay there.
    #[arg(long, requires = "identity")]
    pub server: Option<String>,
    /// The identity to connect with: a directory as `kami principal add` writes it. It must be an admin's.
    #[arg(long, requires = "server")]
    pub identity: Option<PathBuf>,
    /// Where the server's `--metrics` listens, HOST:PORT: what it used of processor and memory then stands in
    /// the result, as it does for a server of our own.
    #[arg(long, requires = "server")]
    pub metrics: Option<String>,
    /// Connections begin their work evenly over this long, not all at once.
    #[arg(long, value_parser = seconds, default_value = "0")]
    pub ramp: Duration,
    /// What is answered within this long after the ramp counts neither as done nor in the latencies.
    #[arg(long, value_parser = seconds, default_value = "0")]
    pub warm_up: Duration,
    /// Write all latencies here: the percentile table that HdrHistogram plotters read, in microseconds.
    #[arg(long)]
    pub histogram: Option<PathBuf>,
    /// Put the course of the run into the result: answers, p50, p99 and the server's memory of each second.
    #[arg(long)]
    pub series: bool,
    /// Write the result as a page to look at: latencies, throughput and p99 over time, machine, settings.
    #[arg(long)]
    pub html: Option<PathBuf>,
    /// Where `card-file` and `picture` write.
    #[arg(long, default_value = "cards.csv")]
    #[arg(default_value_if("workload", ArgPredicate::Equals("picture".into()), "peers.svg"))]
    pub out: PathBuf,
    /// The shape of the echo.
    #[arg(long, value_enum, default_value_t = Shape::Redeem)]
    pub like: Shape,
    /// Leave server and client to the scheduler. Else the server runs on core 0 and the client on core 1.
    #[arg(long)]
    pub no_pin: bool,
    /// How often `peers` measures everything; each figure is the median.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=99))]
    pub rounds: u32,
    /// How often a soak has a checkpoint written, in seconds.
    #[arg(long, value_parser = some_seconds, default_value = "60")]
    pub checkpoint_every: Duration,
    /// A soak fails if p99 in its last third is more than so many times that of its first.
    #[arg(long, default_value_t = 1.5, value_parser = factor)]
    pub p99_factor: f64,
    /// A soak fails if the server's memory in its last third is more than so many times that in its first, and
    /// 16 MiB more.
    #[arg(long, default_value_t = 1.1, value_parser = factor)]
    pub memory_factor: f64,
    /// How many cards `scale` measures with, one size after the other.
    #[arg(long, value_delimiter = ',', default_value = "1000000,10000000,50000000")]
    #[arg(value_parser = clap::value_parser!(u64).range(1000..))]
    pub sizes: Vec<u64>,
    /// The result of `peers --json` that `picture` draws.
    #[arg(long)]
    pub from: Option<PathBuf>,
    /// `guards` writes what it counts as the new standard instead of comparing.
    #[arg(long)]
    pub record: bool,
    /// The file with the counts that `guards` compares with.
    #[arg(long, default_value = crate::guards::RECORDED)]
    pub recorded: PathBuf,
    /// For the hidden child workloads: the directory to use.
    #[arg(long, hide = true)]
    pub store: Option<PathBuf>,
    /// For the hidden child workloads: how many of the cards are sold ahead.
    #[arg(long, hide = true, default_value_t = 0)]
    pub sold: u64,
}

/// The workloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Workload {
    /// Redeem distinct sold cards, in process, durable, from the plaintext code.
    EngineRedeem,
    /// Sell orders of many cards, in process, durable, codes revealed.
    EngineSell,
    /// Sell orders of many cards of three products, paid from an account, in process, durable, codes revealed.
    EngineOrders,
    /// Sell orders of three lines that four money legs pay for, in process, durable, codes revealed.
    EngineOrdersMoney,
    /// Reserve, and end all reservations once their time is over, in process.
    EngineTimeouts,
    /// Sell single cards, redeem, query and reverse, in process, durable.
    EngineMixed,
    /// Import a CSV file until its cards are committed.
    Import,
    /// Resident memory a card.
    Memory,
    /// Time from the start of a process to a ready engine, after SIGKILL.
    Recovery,
    /// What the disk and the log alone can do.
    Fsync,
    /// Redeem over QUIC: 16 connections, 1,024 outstanding each, 64 frames a write.
    QuicRedeem,
    /// Sell orders of many cards over QUIC; the codes arrive and are compared.
    QuicSell,
    /// The mix of `engine-mixed` over QUIC.
    QuicMixed,
    /// Redeem from 64 connections with 16 outstanding each, one frame a write.
    QuicTerminals,
    /// Latency of a redemption over QUIC, alone or at a fixed rate.
    QuicLatency,
    /// Redeem, query and reverse over QUIC at a constant rate, checkpoints beside it; memory and p99 must stay flat.
    Soak,
    /// Redeem in process without and with checkpoints beside it.
    EngineCheckpoint,
    /// Memory, import, redemption, checkpoint and recovery at several numbers of cards.
    Scale,
    /// The same frames and loop on bare quinn, sent back as they came: the limit.
    Echo,
    /// Redis and PostgreSQL beside Kami, on this disk, in turn; those that are installed.
    Peers,
    /// Write a card file of `--cards` codes of `--seed` and measure nothing.
    CardFile,
    /// Draw what `peers --json` measured, and measure nothing.
    Picture,
    /// Count the instructions of what every redemption does, under valgrind, and compare with what was recorded.
    Guards,
    /// Does what `guards` counts.
    #[value(hide = true)]
    Guarded,
    /// Serves a store over QUIC.
    #[value(hide = true)]
    QuicServer,
    /// Sends back what it gets.
    #[value(hide = true)]
    EchoServer,
    /// Fills a store and waits to be killed.
    #[value(hide = true)]
    RecoveryFill,
    /// Opens a store and says when it is ready.
    #[value(hide = true)]
    RecoveryChild,
}

impl Workload {
    /// The name on the command line and in results.
    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// See [`Args::commit_path`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PathChoice {
    /// O_DIRECT and O_DSYNC.
    Direct,
    /// mmap and msync.
    Mapped,
    /// Direct where the file system takes it.
    Auto,
}

impl PathChoice {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            PathChoice::Direct => "direct",
            PathChoice::Mapped => "mapped",
            PathChoice::Auto => "auto",
        }
    }

    /// As the log calls it.
    pub fn choice(self) -> kami_wal::CommitChoice {
        match self {
            PathChoice::Direct => kami_wal::CommitChoice::Direct,
            PathChoice::Mapped => kami_wal::CommitChoice::Mapped,
            PathChoice::Auto => kami_wal::CommitChoice::Auto,
        }
    }
}

/// What the echo is shaped like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shape {
    /// `quic-redeem`.
    Redeem,
    /// `quic-terminals`.
    Terminals,
    /// `quic-latency` without a rate.
    Latency,
}

/// A flag with both values spelled out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum YesNo {
    /// Yes.
    Yes,
    /// No.
    No,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

fn some_seconds(text: &str) -> Result<Duration, String> {
    let duration = seconds(text)?;
    if duration.is_zero() { Err("must be more than 0".to_owned()) } else { Ok(duration) }
}

fn some_minutes(text: &str) -> Result<Duration, String> {
    some_seconds(text).map(|minutes| minutes * 60)
}

fn factor(text: &str) -> Result<f64, String> {
    let factor: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if 0.0 < factor && factor.is_finite() { Ok(factor) } else { Err("must be more than 0".to_owned()) }
}

/// A seed that no run before had.
fn fresh_seed() -> &'static str {
    (kami_engine::RequestId::random().0 as u64 >> 8).to_string().leak()
}
