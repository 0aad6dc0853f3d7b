//! The `kami` binary: the server, the command line that talks to it, and the tools for a stopped store.
//!
//! ```text
//! serve.rs settings.rs              a store, the server on it, signals; flags, variables, the file
//! keys.rs certificate.rs            the key directory; the server's certificate and its renewal
//! http.rs metrics.rs                metrics and health
//! logging.rs notify.rs              what is logged; what a service manager is told
//! sandbox.rs                        a card in every state, for who tries it out
//! remote.rs                         which server, as whom
//! product.rs import.rs batch.rs     what is for sale     lib.rs reads what suppliers send
//! codes.rs                          codes of one's own
//! trade.rs value.rs card.rs         selling, redeeming, what is on a card, looking after single cards
//! top_up.rs                         what is on a card, to an account elsewhere, by a program that does it
//! account.rs limit.rs               money and who has how much of it; how much may be bought or redeemed
//! orders.rs order_list.rs           purchases: reserved, paid, cancelled, given back; lists of them
//! pair.rs                           a card in the place of another, value from card to card
//! control.rs                        what takes two people
//! tills.rs                          what tills leave behind: outcomes, locked PINs, exceptions
//! stock.rs principal.rs tenant.rs   figures; who may connect; merchants that share the store
//! feed.rs reconcile.rs              the log's events as they come; its totals by day
//! changes.rs                        who changed what by hand, and why
//! upkeep.rs                         snapshots on demand, rotation of the master key
//! backup.rs                         backups and what is restored from them
//! verify.rs log.rs                  a stopped store: is it whole, what is in its log
//! proof.rs                          signed checkpoints, proofs, and their verification by anybody
//! demo.rs                           the proof: a real server, killed under load, asked about everything
//! manual.rs                         shell completions and manual pages
//! exit.rs output.rs progress.rs     exit codes and sentences; JSON and tables; how far long work is
//! new_file.rs table_file.rs         a file, whole or not at all; tables for spreadsheets
//! money.rs time.rs code.rs          how amounts, times and codes are typed and shown
//! ```
//! Standard output carries results and nothing else; progress, warnings and errors go to standard error.
//! No code appears in an error, a trace or a progress line.

mod account;
mod backup;
mod batch;
mod card;
mod certificate;
mod changes;
mod code;
mod codes;
mod control;
mod demo;
mod exit;
mod feed;
mod http;
mod import;
mod keys;
mod limit;
mod log;
mod logging;
mod manual;
mod metrics;
mod new_file;
mod notify;
mod order_list;
mod orders;
mod output;
mod pair;
mod principal;
mod product;
mod progress;
mod proof;
mod reconcile;
mod remote;
mod sandbox;
mod serve;
mod settings;
mod stock;
mod table_file;
mod tenant;
mod tills;
mod top_up;
mod trade;
mod upkeep;
mod value;
mod verify;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use rustix::process::{DumpableBehavior, Resource, Rlimit};

// Their own crate, because the load generator reads card files too.
use kami_server::{card_file, money, time};

use exit::{Exit, Failure};
use logging::Logging;
use output::Output;
use settings::{Setting, Stop};

const AFTER_HELP: &str = "\
Exit codes: 0 done, 1 proof failed, 2 usage, 3 refused by the engine or by the checks of a card file,
4 server not reachable or outcome unknown, 5 damaged or unsupported data, 6 environment (busy port, locked
directory, missing or wrong key, permission, clock), 130 ended by a second signal or an interrupted demo.

Environment: KAMI_SERVER and KAMI_IDENTITY stand for --server and --identity, KAMI_ and its name for every
option of `serve`; KAMI_LOG sets what is logged to standard error (error, warn, info, debug; default warn,
for `serve` info).

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
    Codes(codes::CodesCommand),
    Batch(batch::BatchCommand),
    Sell(trade::Sell),
    SellLines(orders::SellLines),
    Reserve(orders::Reserve),
    Confirm(orders::Confirm),
    Cancel(orders::Cancel),
    Return(orders::Return),
    Order(trade::Order),
    OrderStatus(orders::OrderStatus),
    Orders(order_list::Orders),
    Redeem(trade::Redeem),
    Reverse(trade::Reverse),
    Query(card::Query),
    History(card::History),
    Freeze(card::Freeze),
    Unfreeze(card::Unfreeze),
    Void(card::Void),
    Activate(card::Activate),
    Deactivate(card::Deactivate),
    Extend(card::Extend),
    Expire(card::Expire),
    Restock(card::Restock),
    Hold(value::Hold),
    Capture(value::Capture),
    Release(value::Release),
    Load(value::Load),
    Refund(value::Refund),
    Settle(value::Settle),
    Replace(pair::Replace),
    Transfer(pair::Transfer),
    PinUnlock(tills::PinUnlock),
    Outcome(tills::Outcome),
    Advice(tills::Advice),
    Exceptions(tills::ExceptionsCommand),
    TopUp(top_up::TopUp),
    Account(account::AccountCommand),
    Post(account::Post),
    Limit(limit::LimitCommand),
    Stock(stock::Stock),
    Reconcile(reconcile::Reconcile),
    Feed(feed::Feed),
    Changes(changes::Changes),
    Tenant(tenant::TenantCommand),
    Proposals(control::ProposalsCommand),
    Approve(control::Approve),
    Principal(principal::PrincipalCommand),
    Stats(stock::Stats),
    Checkpoint(upkeep::Checkpoint),
    Keys(upkeep::Keys),
    Proof(proof::ProofCommand),
    Backup(backup::BackupCommand),
    Restore(backup::Restore),
    Verify(verify::Verify),
    Wal(log::Wal),
    Completions(manual::Completions),
    Man(manual::Man),
}

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    // Whoever asks for JSON gets it too when the rest of the command line cannot be read.
    let json = arguments.iter().any(|argument| argument == "--json");
    if let Err(failure) = harden() {
        return failed(&failure, &Output { json });
    }
    let (cli, settings) = match settings::parse(&arguments) {
        Ok(parsed) => parsed,
        Err(Stop::Usage(error)) => {
            if json && error.use_stderr() {
                let text = error.to_string();
                let failure = Failure::usage(settings::one_line(text.trim_start_matches("error: ")));
                Output { json }.failure(&failure);
            }
            error.exit()
        }
        Err(Stop::File(failure)) => return failed(&failure, &Output { json }),
    };
    let output = Output { json: cli.json };
    match run(cli.command, settings, &output) {
        Ok(exit) => exit.into(),
        Err(failure) => failed(&failure, &output),
    }
}

/// No core dumps, and no look into the memory by others of the same user: the server's holds keys, and codes on their way
/// out, and so does that of whoever verifies, copies keys, imports or sells.
fn harden() -> Result<(), Failure> {
    let failed = |error| Failure::environment(format!("core dumps cannot be switched off: {error}"));
    rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })
        .map_err(failed)?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(failed)
}

/// Says why, to the person and to the script.
fn failed(failure: &Failure, output: &Output) -> ExitCode {
    output::note(&format!("kami: {}", failure.message));
    if output.json {
        output.failure(failure);
    }
    failure.exit.into()
}

fn run(command: Command, settings: Vec<Setting>, output: &Output) -> Result<Exit, Failure> {
    if !matches!(command, Command::Serve(_)) {
        Logging::of_a_client()?;
    }
    match command {
        Command::Serve(command) => serve::run(command, settings, output),
        Command::Demo(command) => demo::run(command, output),
        Command::Backup(command) => backup::backup(command, output),
        Command::Restore(command) => backup::restore(command, output),
        Command::Verify(command) => verify::run(command, output),
        Command::Wal(command) => log::run(command, output),
        Command::Proof(command) => proof::run(command, output),
        Command::Codes(command) => codes::run(command, output).map(|()| Exit::Done),
        Command::Completions(command) => manual::completions(&command, Cli::command(), output),
        Command::Man(command) => manual::man(&command, Cli::command(), output),
        Command::Product(command) => online(product::run(command, output)),
        Command::Import(command) => online(import::run(command, output)),
        Command::Batch(command) => online(batch::run(command, output)),
        Command::Sell(command) => online(trade::sell(command, output)),
        Command::SellLines(command) => online(orders::sell_lines(command, output)),
        Command::Reserve(command) => online(orders::reserve(command, output)),
        Command::Confirm(command) => online(orders::confirm(command, output)),
        Command::Cancel(command) => online(orders::cancel(command, output)),
        Command::Return(command) => online(orders::give_back(command, output)),
        Command::Order(command) => online(trade::order(command, output)),
        Command::OrderStatus(command) => online(orders::status(command, output)),
        Command::Orders(command) => online(order_list::run(command, output)),
        Command::Redeem(command) => online(trade::redeem(command, output)),
        Command::Reverse(command) => online(trade::reverse(command, output)),
        Command::Query(command) => online(card::query(command, output)),
        Command::History(command) => online(card::history(command, output)),
        Command::Freeze(command) => online(card::freeze(command, output)),
        Command::Unfreeze(command) => online(card::unfreeze(command, output)),
        Command::Void(command) => online(card::void(command, output)),
        Command::Activate(command) => online(card::activate(command, output)),
        Command::Deactivate(command) => online(card::deactivate(command, output)),
        Command::Extend(command) => online(card::extend(command, output)),
        Command::Expire(command) => online(card::expire(command, output)),
        Command::Restock(command) => online(card::restock(command, output)),
        Command::Hold(command) => online(value::hold(command, output)),
        Command::Capture(command) => online(value::capture(command, output)),
        Command::Release(command) => online(value::release(command, output)),
        Command::Load(command) => online(value::load(command, output)),
        Command::Refund(command) => online(value::refund(command, output)),
        Command::Settle(command) => online(value::settle(command, output)),
        Command::Replace(command) => online(pair::replace(command, output)),
        Command::Transfer(command) => online(pair::transfer(command, output)),
        Command::PinUnlock(command) => online(tills::pin_unlock(command, output)),
        Command::Outcome(command) => online(tills::outcome(command, output)),
        Command::Advice(command) => online(tills::advice(command, output)),
        Command::Exceptions(command) => online(tills::exceptions(command, output)),
        Command::TopUp(command) => online(top_up::run(command, output)),
        Command::Account(command) => online(account::run(command, output)),
        Command::Post(command) => online(account::post(command, output)),
        Command::Limit(command) => online(limit::run(command, output)),
        Command::Stock(command) => online(stock::stock(command, output)),
        Command::Reconcile(command) => online(reconcile::run(command, output)),
        Command::Feed(command) => online(feed::run(command, output)),
        Command::Changes(command) => online(changes::run(command, output)),
        Command::Tenant(command) => online(tenant::run(command, output)),
        Command::Proposals(command) => online(control::proposals(command, output)),
        Command::Approve(command) => online(control::approve(command, output)),
        Command::Principal(command) => online(principal::run(command, output)),
        Command::Stats(command) => online(stock::stats(command, output)),
        Command::Checkpoint(command) => online(upkeep::checkpoint(command, output)),
        Command::Keys(command) => online(upkeep::keys(command, output)),
    }
}

/// Runs a command that talks to a server.
fn online(command: impl Future<Output = Result<(), Failure>>) -> Result<Exit, Failure> {
    block_on(command).map(|()| Exit::Done)
}

fn block_on<T>(command: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::environment(format!("the network cannot be used: {error}")))?;
    runtime.block_on(command)
}
