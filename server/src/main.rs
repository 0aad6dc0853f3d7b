//! The `kami` binary: the server, the command line that talks to it, and the tools for a stopped store.
//!
//! ```text
//! serve.rs  keys.rs                 a store, its keys and certificates, the listening server, signals
//! remote.rs                         which server, as whom
//! product.rs import.rs batch.rs     what is for sale     card_file.rs reads what suppliers send
//! trade.rs card.rs                  selling, redeeming, looking after single cards
//! stock.rs principal.rs             figures; who may connect
//! verify.rs log.rs                  a stopped store: is it whole, what is in its log
//! demo.rs                           the proof: a real server, killed under load, asked about everything
//! manual.rs                         shell completions and manual pages
//! exit.rs output.rs                 exit codes and sentences; JSON and tables
//! money.rs time.rs code.rs          how amounts, times and codes are typed and shown
//! ```
//! Standard output carries results and nothing else; progress, warnings and errors go to standard error.
//! No code appears in an error, a trace or a progress line.

mod batch;
mod card;
mod card_file;
mod code;
mod demo;
mod exit;
mod import;
mod keys;
mod log;
mod manual;
mod money;
mod output;
mod principal;
mod product;
mod remote;
mod serve;
mod stock;
mod time;
mod trade;
mod verify;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use exit::{Exit, Failure};
use output::Output;

const AFTER_HELP: &str = "\
Exit codes: 0 done, 1 proof failed, 2 usage, 3 refused by the engine or by the checks of a card file,
4 server not reachable or outcome unknown, 5 damaged or unsupported data, 6 environment (busy port, locked
directory, missing or wrong key, permission, clock).

Environment: KAMI_SERVER and KAMI_IDENTITY stand for --server and --identity; KAMI_LOG sets what is logged
to standard error (error, warn, info, debug; default warn, for `serve` info).

Example:
  kami serve --data kami-data &
  kami product add coffee --face 28 --currency CNY
  kami import cards.csv --product coffee
  kami sell coffee --count 2 --order 2026-0001";

/// Kami 卡密: sells and redeems voucher card keys exactly once.
#[derive(Parser)]
#[command(name = "kami", version, after_help = AFTER_HELP, max_term_width = 110)]
struct Cli {
    /// Print one JSON object instead of text.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Serve(serve::Serve),
    Demo(demo::Demo),
    Product(product::ProductCommand),
    Import(import::Import),
    Batch(batch::BatchCommand),
    Sell(trade::Sell),
    Order(trade::Order),
    Redeem(trade::Redeem),
    Reverse(trade::Reverse),
    Query(card::Query),
    History(card::History),
    Freeze(card::Freeze),
    Unfreeze(card::Unfreeze),
    Void(card::Void),
    Stock(stock::Stock),
    Principal(principal::PrincipalCommand),
    Stats(stock::Stats),
    Verify(verify::Verify),
    Wal(log::Wal),
    Completions(manual::Completions),
    Man(manual::Man),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    start_logging(matches!(cli.command, Command::Serve(_)));
    let output = Output { json: cli.json };
    match run(cli.command, &output) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            eprintln!("kami: {}", failure.message);
            if cli.json {
                output.failure(&failure);
            }
            failure.exit.into()
        }
    }
}

fn run(command: Command, output: &Output) -> Result<Exit, Failure> {
    match command {
        Command::Serve(command) => serve::run(command),
        Command::Demo(command) => demo::run(command, output),
        Command::Verify(command) => verify::run(command, output),
        Command::Wal(command) => log::run(command, output),
        Command::Completions(command) => manual::completions(&command, Cli::command()),
        Command::Man(command) => manual::man(&command, Cli::command()),
        Command::Product(command) => online(product::run(command, output)),
        Command::Import(command) => online(import::run(command, output)),
        Command::Batch(command) => online(batch::run(command, output)),
        Command::Sell(command) => online(trade::sell(command, output)),
        Command::Order(command) => online(trade::order(command, output)),
        Command::Redeem(command) => online(trade::redeem(command, output)),
        Command::Reverse(command) => online(trade::reverse(command, output)),
        Command::Query(command) => online(card::query(command, output)),
        Command::History(command) => online(card::history(command, output)),
        Command::Freeze(command) => online(card::freeze(command, output)),
        Command::Unfreeze(command) => online(card::unfreeze(command, output)),
        Command::Void(command) => online(card::void(command, output)),
        Command::Stock(command) => online(stock::stock(command, output)),
        Command::Principal(command) => online(principal::run(command, output)),
        Command::Stats(command) => online(stock::stats(command, output)),
    }
}

/// Runs a command that talks to a server.
fn online(command: impl Future<Output = Result<(), Failure>>) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::environment(format!("the network cannot be used: {error}")))?;
    runtime.block_on(command).map(|()| Exit::Done)
}

fn start_logging(serving: bool) {
    let default = if serving { "info" } else { "warn" };
    let filter = tracing_subscriber::EnvFilter::try_from_env("KAMI_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
}
