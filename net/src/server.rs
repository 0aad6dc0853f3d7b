//! The server: accepts connections, bounds how many, and takes them down in order.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use kami_engine::Engine;
use quinn::{Endpoint, EndpointConfig, Incoming, TokioRuntime, VarInt};
use quinn_proto::HashedConnectionIdGenerator;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::connection;
use crate::error::{IdentityError, ServerError};
use crate::frame::CloseCode;
use crate::gather::Gather;
use crate::guesses::{Guesses, MissLimits};
use crate::meter::{Meter, Refusal, ServerFigures};
use crate::registry::{self, AddressPlace, Registry};
use crate::tls::{Identity, Shown};
use crate::transport;

/// Feeds that read the log at a time.
const FEED_READS_MAX: usize = 2;

/// Connections beyond those that there may be, which are closed and which QUIC has not forgotten yet: it keeps one for some
/// three seconds if its handshake gave way before the peer answered, and how many give way is up to strangers.
const CLOSED_MAX: usize = 4096;

/// How the server listens and what it bounds. [`ServerOptions::new`] gives the defaults.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The server's own identity; its authority is the one whose certificates are accepted.
    pub identity: Identity,
    /// Connections in all; handshakes come beside. Default 1,024. A peer that reads nothing and leaves
    /// everything unread costs some 10 MiB while it is one of the first 128, and some 3 MiB from then on;
    /// all 1,024 together about 2.5 GiB, see the crate's documentation.
    pub connections_max: usize,
    /// Connections from one address, or from one network of 64 bits of IPv6. Default 256.
    pub connections_per_address_max: usize,
    /// Connections of one principal. Default 256.
    pub connections_per_principal_max: usize,
    /// Streams of one connection. Default and maximum 32.
    pub streams_max: u32,
    /// Replies a stream may have waiting for the disk or its reader. Default 8,192.
    pub pending_replies_max: usize,
    /// Their bytes. Default 512 KiB; one reply more is always possible.
    pub pending_bytes_max: usize,
    /// The bytes of all streams of a connection, beyond which a stream keeps at most 64 KiB. Default 2 MiB.
    pub connection_pending_bytes_max: usize,
    /// The bytes of all connections, beyond which every stream keeps one batch at most. Default 256 MiB.
    pub pending_bytes_total_max: usize,
    /// Handshakes under way from which on a new peer must first show that its address is its own.
    /// Default 64.
    pub handshakes_unproven_max: usize,
    /// Handshakes under way, beside the connections that exist: whoever only begins takes no place from those that
    /// trade. Beyond it the oldest gives its place to the new one, so that peers that begin and fall silent keep
    /// nobody out. Default 256.
    pub handshakes_max: usize,
    /// Those from one address, counted as connections are; beyond it the oldest of its own gives way. Default 64.
    pub handshakes_per_address_max: usize,
    /// How long a handshake may take. Default 10 s.
    pub handshake: Duration,
    /// A silent connection is closed after this. Default and maximum 30 s.
    pub idle: Duration,
    /// A connection whose peer takes none of the replies that wait for it, for so long, is closed with
    /// TOO_SLOW. Default 30 s.
    pub stall: Duration,
    /// How long a shutdown waits for replies to be acknowledged. Default 10 s.
    pub drain: Duration,
    /// Imports and other commands that wait for the disk, at a time. Default 4.
    pub blocking_max: usize,
    /// Feeds in all; each keeps a stretch of the log in memory, 256 KiB or its longest record. Default 64.
    pub feeds_max: usize,
    /// Feeds of one principal. Default 16.
    pub feeds_per_principal_max: usize,
    /// How many wrong codes are borne.
    pub misses: MissLimits,
}

impl ServerOptions {
    /// The defaults.
    #[must_use]
    pub const fn new(listen: SocketAddr, identity: Identity) -> ServerOptions {
        ServerOptions {
            listen,
            identity,
            connections_max: 1024,
            connections_per_address_max: 256,
            connections_per_principal_max: 256,
            streams_max: 32,
            pending_replies_max: 8192,
            pending_bytes_max: 512 << 10,
            connection_pending_bytes_max: 2 << 20,
            pending_bytes_total_max: 256 << 20,
            handshakes_unproven_max: 64,
            handshakes_max: 256,
            handshakes_per_address_max: 64,
            handshake: Duration::from_secs(10),
            idle: Duration::from_secs(30),
            stall: Duration::from_secs(30),
            drain: Duration::from_secs(10),
            blocking_max: 4,
            feeds_max: 64,
            feeds_per_principal_max: 16,
            misses: MissLimits::USUAL,
        }
    }

    fn check(&self) -> Result<(), ServerError> {
        let in_range = [
            ("connections_max", 0 < self.connections_max),
            ("connections_per_address_max", 0 < self.connections_per_address_max),
            ("connections_per_principal_max", 0 < self.connections_per_principal_max),
            ("streams_max", 0 < self.streams_max && self.streams_max <= 32),
            ("pending_replies_max", 0 < self.pending_replies_max),
            ("pending_bytes_max", 0 < self.pending_bytes_max),
            ("pending_bytes_total_max", 0 < self.pending_bytes_total_max),
            ("idle", Duration::ZERO < self.idle && self.idle <= Duration::from_secs(30)),
            ("blocking_max", 0 < self.blocking_max),
            ("handshakes_max", 0 < self.handshakes_max),
            ("handshakes_per_address_max", 0 < self.handshakes_per_address_max),
            ("misses", self.misses.are_in_range()),
        ];
        match in_range.into_iter().find(|(_, ok)| !ok) {
            Some((option, _)) => Err(ServerError::Option { option }),
            None => Ok(()),
        }
    }
}

/// How much a connection may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Width {
    /// How many connections of one principal have it.
    pub of_principal_max: usize,
    /// Up to how many connections in all new ones have it.
    pub in_all_max: usize,
    /// Streams.
    pub streams: u32,
    /// Unread bytes, and sent bytes that are kept until they are acknowledged.
    pub receive_bytes: usize,
}

/// What the first connections have, and what all others have.
#[must_use]
pub const fn widths() -> (Width, Width) {
    let wide = Width {
        of_principal_max: registry::WIDE_OF_PRINCIPAL_MAX,
        in_all_max: registry::WIDE_MAX,
        streams: 32,
        receive_bytes: transport::RECEIVE_BYTES_MAX as usize,
    };
    let narrow = Width {
        of_principal_max: usize::MAX,
        in_all_max: usize::MAX,
        streams: transport::NARROW_STREAMS_MAX,
        receive_bytes: transport::NARROW_BYTES_MAX as usize,
    };
    (wide, narrow)
}

/// What every connection and stream needs.
pub(crate) struct Shared {
    pub(crate) engine: Engine,
    pub(crate) options: ServerOptions,
    pub(crate) registry: Arc<Registry>,
    pub(crate) guesses: Guesses,
    /// When the authority ends that issued every certificate, in milliseconds since 1970.
    pub(crate) authority_until_ms: u64,
    /// Bytes of replies that all connections keep.
    pub(crate) pending_bytes: Arc<AtomicUsize>,
    pub(crate) meter: Arc<Meter>,
    /// What was decided and waits for a commit.
    pub(crate) gather: Gather,
    /// Permits for commands that wait for the disk.
    pub(crate) blocking: Arc<Semaphore>,
    /// A permit for totals, which read much of the log: one at a time.
    pub(crate) reports: Arc<Semaphore>,
    /// A permit for proofs and the signing of checkpoints, which the engine makes one at a time: what waits for its turn
    /// there holds none of the permits that others need.
    pub(crate) proofs: Arc<Semaphore>,
    /// Permits for feeds that read the log.
    pub(crate) feed_reads: Arc<Semaphore>,
    /// Events that feeds were sent.
    pub(crate) feed_events: AtomicU64,
    /// The one commit of an import that may hold such a permit: they come one after the other, and take long.
    pub(crate) commit: Arc<Semaphore>,
    /// Where the server stands; only ever goes forward.
    pub(crate) phase: watch::Sender<Phase>,
}

/// Where the server stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Serving,
    /// Nothing new is read; what was decided is delivered.
    Draining,
    /// The log failed: nothing is delivered any more.
    LogFailed,
}

impl Shared {
    /// A place for a connection from this address; why there is none is counted.
    fn admit(&self, address: IpAddr) -> Option<AddressPlace> {
        let ServerOptions { connections_max, connections_per_address_max, .. } = self.options;
        let place = self.registry.admit(address, connections_max, connections_per_address_max);
        place.map_err(|reason| self.meter.refuse(reason)).ok()
    }

    pub(crate) fn advance(&self, phase: Phase) {
        self.phase.send_if_modified(|now| {
            let modified = *now < phase;
            *now = phase.max(*now);
            modified
        });
    }
}

/// A bound server. A cheap handle; clones share one.
#[derive(Clone)]
pub struct Server {
    endpoint: Endpoint,
    shown: Arc<Shown>,
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("connections", &self.connection_count()).finish_non_exhaustive()
    }
}

impl Server {
    /// Takes the address and makes ready. Must run inside a tokio runtime.
    ///
    /// # Errors
    /// If the address cannot be had, the identity does not serve or an option is out of range.
    pub fn bind(engine: Engine, options: ServerOptions) -> Result<Server, ServerError> {
        options.check()?;
        let keys = options.identity.transport_keys()?;
        let (crypto, shown) = options.identity.server_config()?;
        let mut config = quinn::ServerConfig::new(Arc::new(crypto), Arc::new(keys.token));
        config
            // A router may give a till another port at any time.
            .migration(true)
            .max_incoming(1024)
            .incoming_buffer_size(64 << 10)
            .incoming_buffer_size_total(8 << 20)
            .transport_config(Arc::new(transport::server_config(options.streams_max, options.idle)));
        let mut endpoint_config = EndpointConfig::new(Arc::new(keys.reset));
        endpoint_config
            .cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(keys.connection_id)))
            .max_udp_payload_size(transport::UDP_PAYLOAD_BYTES_MAX)
            .map_err(|_| ServerError::Option { option: "udp payload" })?;
        let bind_error = |source| ServerError::Bind { address: options.listen, source };
        let socket = transport::bind(options.listen).map_err(bind_error)?;
        let endpoint = Endpoint::new(endpoint_config, Some(config), socket, Arc::new(TokioRuntime))
            .map_err(bind_error)?;
        let blocking = Arc::new(Semaphore::new(options.blocking_max));
        let guesses = Guesses::new(options.misses, Instant::now());
        let authority_until_ms = options.identity.authority_validity()?.until_ms;
        let (registry, meter) = (Arc::default(), Arc::default());
        let phase = watch::Sender::new(Phase::Serving);
        let pending_bytes = Arc::default();
        let commit = Arc::new(Semaphore::new(1));
        let shared = Shared {
            engine,
            options,
            registry,
            guesses,
            authority_until_ms,
            pending_bytes,
            meter,
            gather: Gather::default(),
            blocking,
            reports: Arc::new(Semaphore::new(1)),
            proofs: Arc::new(Semaphore::new(1)),
            feed_reads: Arc::new(Semaphore::new(FEED_READS_MAX)),
            feed_events: AtomicU64::new(0),
            commit,
            phase,
        };
        Ok(Server { endpoint, shown, shared: Arc::new(shared) })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// If the socket is gone.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// How many connections there are, handshakes included.
    #[must_use]
    pub fn connection_count(&self) -> usize {
        self.shared.registry.total() + self.shared.registry.handshakes()
    }

    /// Shows another certificate, of the same authority, to whoever connects from now on. Connections that
    /// exist go on.
    ///
    /// # Errors
    /// If it is of another authority, or key and certificate do not fit.
    pub fn change_certificate(&self, identity: &Identity) -> Result<(), IdentityError> {
        self.shown.change(&self.shared.options.identity, identity)
    }

    /// What was counted since the server was bound. Adds up some ten thousand numbers.
    #[must_use]
    pub fn figures(&self) -> ServerFigures {
        let shared = &*self.shared;
        ServerFigures {
            feeds: shared.registry.feeds() as u64,
            feed_events: shared.feed_events.load(Ordering::Relaxed),
            feed_lag_bytes: shared.registry.feeds_behind(shared.engine.durable_end()),
            waiting_reply_bytes: shared.pending_bytes.load(Ordering::Relaxed) as u64,
            ..shared.meter.read(self.connection_count(), shared.guesses.counts())
        }
    }

    /// Whether requests are taken: not while it is being taken down, nor after the log failed.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        *self.shared.phase.borrow() == Phase::Serving
    }

    /// Serves until [`Server::shutdown`] is called or the log fails.
    ///
    /// # Errors
    /// If the log failed: the process must end, for nothing is acknowledged any more.
    pub async fn serve(&self) -> Result<(), ServerError> {
        let mut phase = self.shared.phase.subscribe();
        // Ends after the connections, which wait for it.
        let mut gathering = JoinSet::new();
        let shared = Arc::clone(&self.shared);
        gathering.spawn(async move { shared.gather.keep(&shared.engine).await });
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                _ = phase.wait_for(|phase| *phase != Phase::Serving) => break,
                Some(_) = connections.join_next(), if !connections.is_empty() => {}
                incoming = self.endpoint.accept() => {
                    let Some(incoming) = incoming else { break };
                    self.meet(incoming, &mut connections);
                }
            }
        }
        // New peers are refused from here on; known ones finish.
        self.endpoint.set_server_config(None);
        let all = async { while connections.join_next().await.is_some() {} };
        let in_time = tokio::time::timeout(self.shared.options.drain, all).await.is_ok();
        if !in_time {
            tracing::warn!("some peers did not take their replies in time; their connections are cut");
        }
        connections.shutdown().await;
        let failed = *self.shared.phase.borrow() == Phase::LogFailed;
        let code = if failed { CloseCode::LogFailed } else { CloseCode::ShuttingDown };
        self.endpoint.close(VarInt::from_u32(code.number()), code.code().as_bytes());
        // The close frames are on their way when the endpoint is idle; a second is plenty.
        let _ = tokio::time::timeout(Duration::from_secs(1), self.endpoint.wait_idle()).await;
        if failed { Err(ServerError::LogFailed) } else { Ok(()) }
    }

    /// Takes the server down in order: nothing new is read, what was decided is delivered. Returns at
    /// once; [`Server::serve`] returns when it is done, within [`ServerOptions::drain`] and a second.
    pub fn shutdown(&self) {
        self.shared.advance(Phase::Draining);
    }

    /// Decides whether to talk to a new peer at all.
    fn meet(&self, incoming: Incoming, connections: &mut JoinSet<()>) {
        let Shared { options, registry, meter, .. } = &*self.shared;
        if registry.handshakes() >= options.handshakes_unproven_max && incoming.may_retry() {
            // An address that may be forged costs us one packet and no memory.
            let _ = incoming.retry();
            return;
        }
        if self.endpoint.open_connections() >= options.connections_max + options.handshakes_max + CLOSED_MAX {
            meter.refuse(Refusal::Full);
            incoming.refuse();
            return;
        }
        let address = incoming.remote_address().ip();
        // Whoever would find no place hears so before anything is computed for it. It takes one when it is known.
        if self.shared.admit(address).is_none() {
            incoming.refuse();
            return;
        }
        // Before another gives way to it: not every first packet is one.
        let Ok(connecting) = incoming.accept() else { return };
        let handshake =
            registry.begin_handshake(address, options.handshakes_max, options.handshakes_per_address_max);
        let shared = Arc::clone(&self.shared);
        connections.spawn(async move {
            let connected = tokio::select! {
                biased;
                connected = tokio::time::timeout(shared.options.handshake, connecting) => connected,
                () = handshake.given_up() => return shared.meter.refuse(Refusal::Handshake),
            };
            let Ok(Ok(connection)) = connected else { return shared.meter.refuse(Refusal::Handshake) };
            let place = shared.admit(address);
            drop(handshake);
            match &place {
                Some(_) => connection::serve(shared, connection).await,
                None => connection::close(&connection, CloseCode::Busy),
            }
        });
    }
}
