//! The server of the network runs: a child process with a fresh store, cards imported and sold ahead,
//! and Kami's own server. It says when it is ready and serves until its parent is gone.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use kami_engine::{Caller, Command, PrincipalSpec, Role, Session};
use kami_net::{Authority, Identity, Server, ServerOptions};

use crate::args::Args;
use crate::child::{pin, say, wait_for_the_end};
use crate::report::Report;
use crate::store::{Purpose, Store, request_id};

/// Where in the run's directory the client finds its identity.
pub const CLIENT: &str = "client";
/// Where the server finds its own.
pub const SERVER: &str = "server";
/// The core the server is kept on.
const CORE: usize = 0;

/// Makes the identities of a run.
pub fn identities(directory: &Path) -> Result<()> {
    let authority = Authority::create(&directory.join("authority"))?;
    authority.issue("bench")?.save(&directory.join(CLIENT))?;
    authority.issue_server(&[])?.save(&directory.join(SERVER))?;
    Ok(())
}

/// A free port on this machine.
pub fn any_port() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

/// A runtime with one thread for each core we may use.
pub fn runtime(args: &Args) -> Result<tokio::runtime::Runtime> {
    pin(args, CORE)?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(cores).enable_all().build()?)
}

/// The server's options: all of a run's connections come from one address and one principal.
fn options(args: &Args, identity: Identity) -> ServerOptions {
    /// Beside those of the load: checkpoints, counts.
    const MORE: usize = 16;
    let defaults = ServerOptions::new(any_port(), identity);
    let connections = args.connections.map_or(0, |connections| connections as usize + MORE);
    ServerOptions {
        connections_max: defaults.connections_max.max(connections),
        connections_per_address_max: defaults.connections_per_address_max.max(connections),
        connections_per_principal_max: defaults.connections_per_principal_max.max(connections),
        ..defaults
    }
}

/// The child: `--sold` cards are sold ahead, the rest is stock.
pub fn serve(args: &Args) -> Result<()> {
    let directory = args.store.as_deref().context("no --store")?;
    identities(directory)?;
    // The log's threads are the scheduler's to place, as the threads behind any peer's server are.
    let mut store = Store::open(args, directory)?;
    let runtime = runtime(args)?;
    store.add_product(0)?;
    let key = Identity::load(&directory.join(CLIENT))?.key_fingerprint()?;
    let spec = PrincipalSpec::of("bench", Role::Admin, key);
    let session = Session::new(&store.engine, Caller::LOCAL);
    let id = request_id(Purpose::Principal, 0);
    let added = session.run(id, Command::PrincipalAdd(Box::new(spec))).wait()?;
    ensure!(added.status.is_done(), "the client was not added: {}", added.status.code());
    eprintln!("importing {} cards and selling {} of them", args.cards, args.sold);
    if args.sold != 0 {
        store.import(args.sold)?;
        store.sell(args.sold)?;
    }
    if args.sold < args.cards {
        store.import(args.cards - args.sold)?;
    }
    let mut report = Report::new(args);
    store.describe(&mut report);

    let identity = Identity::load(&directory.join(SERVER))?;
    let engine = store.engine.clone();
    runtime.block_on(async {
        let server = Server::bind(engine, options(args, identity))?;
        say(&format!(
            "ready {} {} {} {}",
            server.local_addr()?,
            report.commit_path.unwrap_or_default(),
            report.filesystem.unwrap_or_default(),
            report.durable.unwrap_or_default(),
        ));
        let waiting = tokio::task::spawn_blocking(wait_for_the_end);
        tokio::select! {
            served = server.serve() => served?,
            ended = waiting => ended??,
        }
        Ok(())
    })
}
