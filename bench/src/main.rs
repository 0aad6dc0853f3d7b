//! kami-bench: one load generator for Kami and its peers.
//!
//! One run is one workload and one result, printed as a line of JSON or as text. A figure counts only
//! what a user would count: commands that were answered DONE, on distinct cards that were really
//! imported and sold, whose replies waited for the disk. Whatever else is answered is an error, and a
//! run with errors exits with 1.
//!
//! ```text
//! args.rs         flags, and the acceptance configuration as their defaults
//! codes.rs        codes computed from a card's number, so that they take no memory
//! store.rs        a fresh store with imported and sold cards
//! outstanding.rs  executed and not yet durable: the window, and the latencies
//! redeem.rs …     one workload a file
//! peers.rs        Redis (redis.rs) and PostgreSQL (postgres.rs) beside Kami; peer.rs: their servers
//! scale.rs        several of them at several numbers of cards; soak.rs: one for minutes or hours
//! network.rs      the server of the QUIC workloads, started here or elsewhere; lines.rs: connections to it
//! guards.rs       instructions counted and compared with what was recorded
//! page.rs         the result as a page; picture.rs: the peers' result as a picture; svg.rs: drawing
//! report.rs       the result;  machine.rs: what it was taken on
//! ```

mod args;
mod beside;
mod card_file;
mod child;
mod codes;
mod echo;
mod fsync;
mod guards;
mod import;
mod lines;
mod machine;
mod mix;
mod mixed;
mod network;
mod orders;
mod outstanding;
mod pace;
mod page;
mod peer;
mod peers;
mod picture;
mod postgres;
mod quic;
mod recovery;
mod redeem;
mod redis;
mod report;
mod scale;
mod sell;
mod series;
mod serve;
mod soak;
mod store;
mod svg;
mod timeouts;
mod traffic;
mod watch;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Args, Workload};
use crate::report::Report;

/// The run was made, but something in it was not as it must be.
const EXIT_ERRORS: u8 = 1;
/// The run could not be made.
const EXIT_ENVIRONMENT: u8 = 6;

fn main() -> ExitCode {
    let args = Args::parse();
    let mut report = Report::new(&args);
    if cfg!(debug_assertions) {
        eprintln!("kami-bench: this is a debug build, its figures mean nothing");
    }
    let outcome = match args.workload {
        Workload::EngineRedeem => redeem::run(&args, &mut report),
        Workload::EngineSell => sell::run(&args, &mut report),
        Workload::EngineOrders | Workload::EngineOrdersMoney => orders::run(&args, &mut report),
        Workload::EngineTimeouts => timeouts::run(&args, &mut report),
        Workload::EngineMixed => mixed::run(&args, &mut report),
        Workload::Import => import::run(&args, &mut report),
        Workload::Memory => import::memory(&args, &mut report),
        Workload::Recovery => recovery::run(&args, &mut report),
        Workload::Fsync => fsync::run(&args, &mut report),
        Workload::QuicRedeem | Workload::QuicTerminals | Workload::QuicLatency => {
            quic::redeem(&args, &mut report)
        }
        Workload::QuicMixed => quic::mixed(&args, &mut report),
        Workload::QuicSell => quic::sell(&args, &mut report),
        Workload::Soak => soak::run(&args, &mut report),
        Workload::EngineCheckpoint => beside::run(&args, &mut report),
        Workload::Scale => scale::run(&args, &mut report),
        Workload::Echo => quic::echo(&args, &mut report),
        Workload::Peers => peers::run(&args, &mut report),
        Workload::CardFile => return child(card_file::write(&args)),
        Workload::Picture => return child(picture::draw(&args)),
        Workload::Guards => return judged(guards::run(&args)),
        Workload::Guarded => return child(guards::counted::run()),
        Workload::QuicServer => return child(serve::serve(&args)),
        Workload::EchoServer => return child(echo::serve(&args)),
        Workload::RecoveryFill => return child(recovery::fill(&args)),
        Workload::RecoveryChild => return child(recovery::recover(&args)),
    };
    if let Err(error) = outcome {
        eprintln!("kami-bench: {error:#}");
        return EXIT_ENVIRONMENT.into();
    }
    report.finish();
    if let Some(path) = &args.html
        && let Err(error) = page::write(&report, path)
    {
        eprintln!("kami-bench: {error:#}");
        report.errors += 1;
    }
    print!("{}", if args.json { report.json() + "\n" } else { report.text() });
    if report.errors == 0 { ExitCode::SUCCESS } else { EXIT_ERRORS.into() }
}

/// What compares and tells by itself; whether all was as it must be.
fn judged(outcome: anyhow::Result<bool>) -> ExitCode {
    match outcome {
        Ok(false) => EXIT_ERRORS.into(),
        outcome => child(outcome.map(drop)),
    }
}

/// What makes no result: a child reports to its parent, a generator to nobody.
fn child(outcome: anyhow::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kami-bench: {error:#}");
            EXIT_ENVIRONMENT.into()
        }
    }
}
