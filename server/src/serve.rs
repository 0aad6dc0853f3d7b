//! `kami serve`: opens the store, listens, and takes itself down in order.
//!
//! The one line on standard output says that requests are answered from now on:
//! `ready quic=ADDR cards=N lsn=L commit=direct|mapped`. Whoever starts the server waits for it.
//!
//! SIGTERM and SIGINT: nothing new is read, what was decided is delivered, a snapshot is written so that
//! the next start is quick, the store is closed. A second signal ends the process at once, as a crash
//! would: nothing acknowledged is lost by that either.

use std::io::Write;
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use kami_engine::{CommitPath, DiskOptions, Engine, EngineOptions};
use kami_net::{Server, ServerError, ServerOptions};
use kami_wal::CommitChoice;
use rustix::process::{DumpableBehavior, Resource, Rlimit};
use tokio::signal::unix::{SignalKind, signal};

use crate::exit::{Exit, Failure, sentence};
use crate::keys;

/// Serve a store over QUIC.
///
/// The first start makes the data directory, the keys, a local certificate authority and an admin
/// identity. When the server answers, it prints one line: `ready quic=ADDR cards=N lsn=L commit=direct`.
#[derive(Args)]
#[command(
    after_help = "Example:\n  kami serve --data kami-data --listen 0.0.0.0:7400 --name kami.example.com"
)]
pub struct Serve {
    /// Where the data lies.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Where the keys lie; never inside the data [default: the data directory's name with `.keys`].
    #[arg(long, value_name = "DIR")]
    keys: Option<PathBuf>,
    /// Where to listen; port 0 takes a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7400")]
    listen: SocketAddr,
    /// A name or address that clients reach this server under; may be given more than once.
    #[arg(long = "name", value_name = "HOST")]
    names: Vec<String>,
    /// How the log reaches the disk.
    #[arg(long, value_name = "PATH", default_value = "auto")]
    commit_path: Commit,
    /// Accept a file system that does not survive a power cut, such as tmpfs.
    #[arg(long)]
    unsafe_filesystem: bool,
    /// Accept that the wall clock stepped by more than 10 minutes since the last start.
    #[arg(long)]
    accept_clock: bool,
    /// Write a snapshot whenever the log has grown by so much.
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u64).range(1..))]
    checkpoint_mib: u64,
    /// End in order when the parent process ends: for servers that a test or demo starts.
    #[arg(long, hide = true)]
    end_with_parent: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Commit {
    /// Direct where the file system takes it.
    Auto,
    /// Direct writes past the page cache, or no start.
    Direct,
    /// Through a memory mapping and msync.
    Mapped,
}

pub fn run(options: Serve) -> Result<Exit, Failure> {
    harden(options.end_with_parent)?;
    let keys = options.keys.clone().unwrap_or_else(|| keys::beside(&options.data));
    keys::check_apart(&options.data, &keys)?;
    check_address(options.listen)?;

    let disk = DiskOptions {
        commit_path: match options.commit_path {
            Commit::Auto => CommitChoice::Auto,
            Commit::Direct => CommitChoice::Direct,
            Commit::Mapped => CommitChoice::Mapped,
        },
        unsafe_filesystem: options.unsafe_filesystem,
        ..DiskOptions::default()
    };
    // Both directories are locked from here on.
    let mut engine_options = EngineOptions::on_disk(&options.data, &keys, disk)?;
    engine_options.accept_clock = options.accept_clock;
    let engine = Engine::open(engine_options)?;
    keys::ensure_admin(&engine, &keys)?;
    let identity = keys::server_identity(&keys, &names(&options))?;

    let runtime = tokio::runtime::Runtime::new()
        .map_err(|error| Failure::environment(format!("the runtime cannot start: {error}")))?;
    runtime.block_on(serve(&engine, ServerOptions::new(options.listen, identity), options.checkpoint_mib))?;
    engine.close()?;
    Ok(Exit::Done)
}

/// What the server's certificate must carry.
fn names(options: &Serve) -> Vec<String> {
    let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
    if !options.listen.ip().is_unspecified() {
        names.push(options.listen.ip().to_string());
    }
    names.extend(options.names.iter().cloned());
    names.sort_unstable();
    names.dedup();
    names
}

async fn serve(engine: &Engine, options: ServerOptions, checkpoint_mib: u64) -> Result<(), Failure> {
    let no_signals = |error| Failure::environment(format!("signals cannot be caught: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(no_signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(no_signals)?;
    let listen = options.listen;
    let server = Server::bind(engine.clone(), options)?;
    let address = server.local_addr().unwrap_or(listen);
    announce(engine, address)?;

    let background = tokio::spawn(checkpoint_as_it_grows(engine.clone(), checkpoint_mib << 20));
    let stop = server.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("draining");
        stop.shutdown();
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::warn!("ended at once by a second signal");
        std::process::exit(Exit::Interrupted as i32);
    });
    let served = server.serve().await;
    background.abort();
    match served {
        Ok(()) => {}
        Err(error @ ServerError::LogFailed) => return Err(error.into()),
        Err(error) => tracing::error!("{}", sentence(&error)),
    }
    let snapshot = engine.clone();
    match tokio::task::spawn_blocking(move || snapshot.checkpoint()).await {
        Ok(Ok(checkpoint)) => tracing::info!(lsn = checkpoint.start.bytes(), "closed with a snapshot"),
        // The log holds everything; the next start only takes longer.
        Ok(Err(error)) => tracing::warn!("no snapshot was written: {}", sentence(&error)),
        Err(error) => tracing::warn!("no snapshot was written: {error}"),
    }
    Ok(())
}

/// The line that says the server is ready.
fn announce(engine: &Engine, address: SocketAddr) -> Result<(), Failure> {
    let stats = crate::keys::stats(engine)?;
    let commit = commit_name(engine.commit_path());
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "ready quic={address} cards={} lsn={} commit={commit}", stats.cards, stats.durable_end)
        .and_then(|()| stdout.flush())
        .map_err(|error| Failure::environment(format!("nobody reads the ready line: {error}")))
}

/// The name of a commit path in the ready line and in reports.
pub const fn commit_name(path: CommitPath) -> &'static str {
    match path {
        CommitPath::Direct => "direct",
        CommitPath::Mapped => "mapped",
        CommitPath::Simulated => "simulated",
    }
}

/// Writes a snapshot whenever the log has grown by `bytes` since the last.
async fn checkpoint_as_it_grows(engine: Engine, bytes: u64) {
    let mut last = engine.durable_end().bytes();
    let mut look = tokio::time::interval(Duration::from_secs(1));
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        let end = engine.durable_end().bytes();
        if end.saturating_sub(last) < bytes {
            continue;
        }
        let snapshot = engine.clone();
        match tokio::task::spawn_blocking(move || snapshot.checkpoint()).await {
            Ok(Ok(checkpoint)) => tracing::info!(lsn = checkpoint.start.bytes(), "wrote a snapshot"),
            Ok(Err(error)) => tracing::error!("no snapshot was written: {}", sentence(&error)),
            Err(error) => tracing::error!("no snapshot was written: {error}"),
        }
        // After a failure, too, the next attempt waits for as much again: the disk may be full.
        last = end;
    }
}

/// Finds a busy port before the store is opened, which may take a while.
fn check_address(listen: SocketAddr) -> Result<(), Failure> {
    if listen.port() == 0 {
        return Ok(());
    }
    match UdpSocket::bind(listen) {
        Ok(_) => Ok(()),
        Err(source) => Err(ServerError::Bind { address: listen, source }.into()),
    }
}

/// No core dumps: memory holds keys, and codes on their way out.
fn harden(end_with_parent: bool) -> Result<(), Failure> {
    let failed = |error| Failure::environment(format!("core dumps cannot be switched off: {error}"));
    rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })
        .map_err(failed)?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(failed)?;
    if end_with_parent {
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))
            .map_err(|error| Failure::environment(format!("cannot watch the parent process: {error}")))?;
    }
    Ok(())
}
