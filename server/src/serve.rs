//! `kami serve`: opens the store, listens, and takes itself down in order.
//!
//! The one line on standard output says that requests are answered from now on:
//! `ready quic=ADDR cards=N lsn=L commit=direct|mapped`, with `--json` an object of the same. Whoever starts the server waits for it; a service
//! manager is told by `notify.rs`.
//!
//! SIGTERM and SIGINT: nothing new is read, what was decided is delivered, a snapshot is written so that
//! the next start is quick, the store is closed. A second signal ends the process at once, as a crash
//! would: nothing acknowledged is lost by that either.
//!
//! SIGHUP: the settings are read again. What can be changed at once is (what is logged, how long the next
//! certificate lasts), the certificate's files are looked at, and what takes a new start is named. A
//! wrong configuration file changes nothing.

use std::ffi::OsString;
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use clap::{ArgAction, Args, ValueEnum};
use kami_engine::{CommitPath, DiskOptions, Engine, EngineOptions, Work};
use kami_net::{Server, ServerError, ServerOptions};
use kami_wal::CommitChoice;
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::certificate::Certificate;
use crate::exit::{Exit, Failure, sentence};
use crate::http::{self, Watched};
use crate::logging::{self, Format, Logging};
use crate::notify::Notify;
use crate::output::Output;
use crate::sandbox::Sandbox;
use crate::settings::{self, Setting, Stop};
use crate::{Cli, Command, keys};

/// Serve a store over QUIC.
///
/// The first start makes the data directory, the keys, a local certificate authority and an admin
/// identity. When the server answers, it prints one line: `ready quic=ADDR cards=N lsn=L commit=direct`.
///
/// Every option can also be set by a variable, KAMI_ and its name, and by a line in the file that --config
/// names; the flag comes first, then the variable, the file, the default.
#[derive(Args)]
#[command(
    after_help = "Example:\n  kami serve --data kami-data --listen 0.0.0.0:7400 --name kami.example.com\n  kami serve --config /etc/kami/kami.toml --print-config"
)]
pub struct Serve {
    /// Read settings from this file: TOML, with the options' names as keys.
    #[arg(long, value_name = "FILE", env = "KAMI_CONFIG")]
    config: Option<PathBuf>,
    /// Show the settings in effect and where each comes from, and start nothing.
    #[arg(long)]
    print_config: bool,
    /// Where the data lies.
    #[arg(long, value_name = "DIR", env = "KAMI_DATA")]
    data: Option<PathBuf>,
    /// Serve throw-away data instead, with an identity of every role and cards in every state, which are
    /// listed when the server is ready; it all goes when the server ends.
    #[arg(long)]
    sandbox: bool,
    /// Where the keys lie; never inside the data [default: the data directory's name with `.keys`].
    #[arg(long, value_name = "DIR", env = "KAMI_KEYS")]
    keys: Option<PathBuf>,
    /// Where to listen; port 0 takes a free one.
    #[arg(long, value_name = "ADDR", env = "KAMI_LISTEN", default_value = "127.0.0.1:7400")]
    listen: SocketAddr,
    /// A name or address that clients reach this server under; may be given more than once.
    #[arg(long = "name", value_name = "HOST", env = "KAMI_NAME", value_delimiter = ',')]
    names: Vec<String>,
    /// How many days the server's certificate lasts; it is renewed after two thirds of them.
    #[arg(long, value_name = "DAYS", env = "KAMI_CERTIFICATE_DAYS", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=3650))]
    certificate_days: u32,
    /// How the log reaches the disk.
    #[arg(long, value_name = "PATH", env = "KAMI_COMMIT_PATH", default_value = "auto")]
    commit_path: Commit,
    /// Accept a file system that does not survive a power cut, such as tmpfs.
    #[arg(long, env = "KAMI_UNSAFE_FILESYSTEM", action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", hide_possible_values = true, value_name = "BOOL")]
    unsafe_filesystem: bool,
    /// Accept that the wall clock stepped by more than 10 minutes since the last start.
    #[arg(long, env = "KAMI_ACCEPT_CLOCK", action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", hide_possible_values = true, value_name = "BOOL")]
    accept_clock: bool,
    /// Write a snapshot whenever the log has grown by so much.
    #[arg(long, value_name = "MIB", env = "KAMI_CHECKPOINT_MIB", default_value_t = 1024, value_parser = clap::value_parser!(u64).range(1..))]
    checkpoint_mib: u64,
    /// How many connections there may be; 1,024 whose peers leave everything unread cost about 2.5 GiB, long replies beside.
    #[arg(long, value_name = "COUNT", env = "KAMI_CONNECTIONS", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// How many of them from one address; tills behind one router share theirs.
    #[arg(long, value_name = "COUNT", env = "KAMI_CONNECTIONS_PER_ADDRESS", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    connections_per_address: u32,
    /// How many of them of one principal; tills with one identity share theirs.
    #[arg(long, value_name = "COUNT", env = "KAMI_CONNECTIONS_PER_PRINCIPAL", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    connections_per_principal: u32,
    /// Serve metrics and health over HTTP here; keep it off public networks.
    #[arg(long, value_name = "ADDR", env = "KAMI_METRICS")]
    metrics: Option<SocketAddr>,
    /// What is logged: error, warn, info, debug, trace or off, alone or by target as in info,kami_net=debug.
    #[arg(long, value_name = "LEVEL", env = "KAMI_LOG", default_value = "info", value_parser = logging::parse_filter)]
    log: String,
    /// How a logged line looks.
    #[arg(long, value_name = "FORMAT", env = "KAMI_LOG_FORMAT", default_value = "text")]
    log_format: Format,
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

pub fn run(options: Serve, mut settings: Vec<Setting>, output: &Output) -> Result<Exit, Failure> {
    let data = match (options.sandbox, options.data.clone()) {
        (false, Some(data)) => data,
        (true, None) if options.keys.is_none() && !options.print_config => {
            let sandbox = Sandbox::new()?;
            let served =
                open(options, sandbox.data.clone(), sandbox.keys.clone(), settings, Some(&sandbox), output);
            sandbox.remove();
            return served;
        }
        (true, _) => {
            return Err(Failure::usage(
                "a sandbox brings its own data and keys: leave --data, --keys and --print-config out",
            ));
        }
        (false, None) => {
            return Err(Failure::usage(
                "--data says where the data lies, for example --data kami-data; to try Kami out, say --sandbox instead",
            ));
        }
    };
    let keys = options.keys.clone().unwrap_or_else(|| keys::beside(&data));
    if options.print_config {
        let unset = settings.iter_mut().find(|setting| setting.name == "keys" && setting.values.is_empty());
        if let Some(setting) = unset {
            setting.values.push(keys.display().to_string());
        }
        output.result(&settings::value(&settings), || settings::show(&settings))?;
        return Ok(Exit::Done);
    }
    open(options, data, keys, settings, None, output)
}

/// Opens the store and serves it until it is told to end.
fn open(
    options: Serve,
    data: PathBuf,
    keys: PathBuf,
    settings: Vec<Setting>,
    sandbox: Option<&Sandbox>,
    output: &Output,
) -> Result<Exit, Failure> {
    let logging = Logging::start(logging::filter(&options.log), options.log_format);
    if options.end_with_parent {
        watch_parent()?;
    }
    keys::check_apart(&data, &keys)?;
    keys::check_private(&keys)?;
    check_address(options.listen)?;
    let metrics = options.metrics.map(http::bind).transpose()?;

    let runtime = tokio::runtime::Runtime::new()
        .map_err(|error| Failure::environment(format!("the runtime cannot start: {error}")))?;
    let started_ms = crate::time::now_ms();
    let watched = Watched { started_ms, data: data.clone(), keys: keys.clone(), serving: OnceLock::new() };
    let watched = Arc::new(watched);
    let guard = runtime.enter();
    // Before the store is opened: a reload that is asked for meanwhile must not end the process.
    let hangup = caught(SignalKind::hangup())?;
    if let Some(listener) = metrics {
        let listener = tokio::net::TcpListener::from_std(listener)
            .map_err(|error| Failure::environment(format!("metrics cannot be served: {error}")))?;
        // Before the store is opened, which may take a while: it says so meanwhile.
        runtime.spawn(http::serve(listener, Arc::clone(&watched)));
    }
    drop(guard);

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
    let mut engine_options = EngineOptions::on_disk(&data, &keys, disk)?;
    engine_options.accept_clock = options.accept_clock;
    let engine = Engine::open(engine_options)?;
    keys::ensure_admin(&engine, &keys)?;
    let furnish = |sandbox: &Sandbox| {
        Ok::<_, Failure>(Furnished { shown: sandbox.furnish(&engine)?, list: sandbox.list() })
    };
    let furnished = sandbox.map(furnish).transpose()?;
    let certificate = Arc::new(Certificate::open(&keys, names(&options), options.certificate_days)?);
    let house = House { engine, certificate, watched, logging, settings, notify: Notify::of_environment() };
    let net = ServerOptions {
        connections_max: options.connections as usize,
        connections_per_address_max: options.connections_per_address as usize,
        connections_per_principal_max: options.connections_per_principal as usize,
        ..ServerOptions::new(options.listen, house.certificate.identity())
    };
    let engine = house.engine.clone();
    let ready = (furnished, *output);
    runtime.block_on(serve(Arc::new(house), net, options.checkpoint_mib, hangup, ready))?;
    // Whoever is being answered over HTTP still holds the engine.
    drop(runtime);
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

/// What a sandbox tells when the server is ready.
struct Furnished {
    shown: String,
    list: PathBuf,
}

/// What the tasks around the server share.
struct House {
    engine: Engine,
    certificate: Arc<Certificate>,
    watched: Arc<Watched>,
    logging: Logging,
    /// As they were at the start.
    settings: Vec<Setting>,
    notify: Notify,
}

fn caught(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| Failure::environment(format!("signals cannot be caught: {error}")))
}

async fn serve(
    house: Arc<House>,
    options: ServerOptions,
    checkpoint_mib: u64,
    hangup: Signal,
    (furnished, output): (Option<Furnished>, Output),
) -> Result<(), Failure> {
    let mut terminate = caught(SignalKind::terminate())?;
    let mut interrupt = caught(SignalKind::interrupt())?;
    let engine = house.engine.clone();
    let listen = options.listen;
    let server = Server::bind(engine.clone(), options)?;
    let address = server.local_addr().unwrap_or(listen);
    let serving = (engine.clone(), server.clone(), Arc::clone(&house.certificate));
    // It is set nowhere else.
    let _ = house.watched.serving.set(serving);
    announce(&engine, address, furnished.as_ref(), &output)?;
    house.notify.ready(&format!("serving on {address}"));

    let mut background = tokio::task::JoinSet::new();
    background.spawn(do_what_is_due(engine.clone()));
    background.spawn(checkpoint_as_it_grows(engine.clone(), checkpoint_mib << 20));
    background.spawn(Arc::clone(&house.certificate).keep(server.clone(), engine.clone()));
    background.spawn(show_life(Arc::clone(&house)));
    background.spawn(give_up_imports(engine.clone()));
    background.spawn(time_out(engine.clone()));
    background.spawn(reload_on(hangup, Arc::clone(&house), address));
    let (stop, told) = (server.clone(), Arc::clone(&house));
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("draining");
        told.notify.stopping();
        stop.shutdown();
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::warn!("ended at once by a second signal");
        std::process::exit(Exit::Interrupted as i32);
    });
    let served = server.serve().await;
    background.shutdown().await;
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

/// Tells the service manager that the server is alive, if it wants to know: that tasks run and that the
/// engine's lock can be had.
async fn show_life(house: Arc<House>) {
    let Some(every) = house.notify.alive_every() else { return };
    let mut tick = tokio::time::interval(every);
    loop {
        tick.tick().await;
        let engine = house.engine.clone();
        if tokio::task::spawn_blocking(move || engine.principal_by_key(&[0; 32])).await.is_ok() {
            house.notify.alive();
        }
    }
}

/// Gives up imports that nobody goes on with, so that their files do not lie on the disk for ever.
async fn give_up_imports(engine: Engine) {
    let mut look = tokio::time::interval(Duration::from_secs(600));
    loop {
        look.tick().await;
        let engine = engine.clone();
        if let Ok(given_up @ 1..) = tokio::task::spawn_blocking(move || engine.give_up_imports()).await {
            tracing::info!(given_up, "imports that nobody had gone on with for a day are given up");
        }
    }
}

/// Ends what nobody ended in time.
async fn time_out(engine: Engine) {
    let mut look = tokio::time::interval(Duration::from_millis(100));
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut work = Work::default();
    loop {
        look.tick().await;
        let engine = engine.clone();
        let looked = tokio::task::spawn_blocking(move || {
            let ended = engine.run_due(&mut work);
            (ended, work)
        });
        let Ok((ended, used)) = looked.await else { return };
        work = used;
        if ended > 0 {
            tracing::debug!(ended, "reservations timed out");
        }
    }
}

/// Reads the settings again at every signal.
async fn reload_on(mut hangup: Signal, house: Arc<House>, address: SocketAddr) {
    while hangup.recv().await.is_some() {
        house.notify.reloading();
        let arguments: Vec<OsString> = std::env::args_os().collect();
        match settings::parse(&arguments) {
            Ok((Cli { command: Command::Serve(options), .. }, settings)) => house.reload(&options, &settings),
            Ok(_) => {}
            Err(Stop::File(failure)) => tracing::error!("nothing is reloaded: {}", failure.message),
            Err(Stop::Usage(error)) => tracing::error!("nothing is reloaded: {error}"),
        }
        house.certificate.look.notify_one();
        house.notify.ready(&format!("serving on {address}"));
    }
}

impl House {
    fn reload(&self, options: &Serve, settings: &[Setting]) {
        self.logging.set(logging::filter(&options.log));
        self.certificate.set_days(options.certificate_days);
        for (before, now) in self.settings.iter().zip(settings) {
            let at_once = matches!(now.name.as_str(), "log" | "certificate-days");
            if before.values != now.values && !at_once {
                tracing::warn!(setting = now.name, "changed, and takes effect at the next start");
            }
        }
        tracing::info!(log = options.log, "reloaded");
    }
}

/// The line that says the server is ready, and what else there is to say.
fn announce(
    engine: &Engine,
    address: SocketAddr,
    furnished: Option<&Furnished>,
    output: &Output,
) -> Result<(), Failure> {
    let stats = crate::keys::stats(engine)?;
    let commit = commit_name(engine.commit_path());
    let value = json!({
        "quic": address.to_string(),
        "cards": stats.cards,
        "lsn": stats.durable_end,
        "commit": commit,
        "sandbox": furnished.map(|furnished| furnished.list.display().to_string()),
    });
    output.result(&value, || {
        let line =
            format!("ready quic={address} cards={} lsn={} commit={commit}\n", stats.cards, stats.durable_end);
        line + furnished.map_or("", |furnished| &furnished.shown)
    })
}

/// The name of a commit path in the ready line and in reports.
pub const fn commit_name(path: CommitPath) -> &'static str {
    match path {
        CommitPath::Direct => "direct",
        CommitPath::Mapped => "mapped",
        CommitPath::Simulated => "simulated",
    }
}

/// Has the engine end what time has ended, ten times a second.
async fn do_what_is_due(engine: Engine) {
    let mut every = tokio::time::interval(std::time::Duration::from_millis(100));
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        let due = engine.clone();
        // It may have to read the log.
        let done = tokio::task::spawn_blocking(move || due.run_due(&mut kami_engine::Work::default()));
        if let Err(error) = done.await {
            tracing::error!(%error, "what is due was not done");
            return;
        }
    }
}

/// Writes a snapshot whenever the log has grown by `bytes` since the last, whoever made that and whenever:
/// a server that is killed again and again before it logged so much must not replay ever more.
async fn checkpoint_as_it_grows(engine: Engine, bytes: u64) {
    // After a failure the next attempt waits for as much again: the disk may be full.
    let mut failed_at = None;
    let mut look = tokio::time::interval(Duration::from_secs(1));
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        let end = engine.durable_end().bytes();
        if engine.replay_bytes() < bytes || failed_at.is_some_and(|at| end - at < bytes) {
            continue;
        }
        let snapshot = engine.clone();
        match tokio::task::spawn_blocking(move || snapshot.checkpoint()).await {
            Ok(Ok(checkpoint)) => {
                failed_at = None;
                tracing::info!(lsn = checkpoint.start.bytes(), "wrote a snapshot");
                continue;
            }
            Ok(Err(error)) => tracing::error!("no snapshot was written: {}", sentence(&error)),
            Err(error) => tracing::error!("no snapshot was written: {error}"),
        }
        failed_at = Some(end);
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

/// Has the system end this process in order when its parent ends.
fn watch_parent() -> Result<(), Failure> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))
        .map_err(|error| Failure::environment(format!("cannot watch the parent process: {error}")))
}
