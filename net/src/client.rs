//! The client: connects, sends, and finds out what became of what it sent.
//!
//! Every request has an id, and the same id on the same target is the same request. So a request whose
//! reply is lost is sent again as it was, over a new connection if need be, until a reply comes or the
//! time is up; only then is the outcome [`ClientError::Unknown`], and the caller may go on asking with
//! the same id. Replies that say NOT EXECUTED (busy, recovering) are waited out the same way.
//!
//! Two lanes (streams) carry the typed calls: short ones, and those with long replies, so that a
//! redemption does not stand behind an order of 100,000 codes. Imports have a stream of their own, and
//! so have a load generator ([`Client::channel`]) and every subscription to the log ([`Client::subscribe`]).

mod cards;
mod channel;
mod control;
mod feed;
mod import;
mod lane;
mod money;
mod orders;
mod principals;
mod receipt;
mod stock;
mod tills;
mod top_up;
mod upkeep;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use kami_engine::{ChannelId, Class, Grounds, RequestId, Status, TerminalId};
use quinn::{Connection, ConnectionError, Endpoint, EndpointConfig, TokioRuntime, VarInt};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};
use zeroize::Zeroize;

use crate::certificate;
use crate::error::{ClientError, IdentityError};
use crate::frame::{Answer, Body, CloseCode, Opcode, Request, RequestFlags, RequestHead, Welcome};
use crate::tls::Identity;
use crate::transport;

pub use cards::{HoldOptions, RedeemOptions, ReverseOptions};
pub use channel::{ChannelLost, ChannelReceiver, ChannelSender, RawReply, Received};
pub use control::Wish;
pub use feed::Subscription;
pub use import::{Row, RowList, Rows, Staged};
use lane::Lane;
pub use orders::{Delivery, SellOptions, Sold};
pub use receipt::Receipt;
pub use tills::{Advised, Offline, Target};
pub use top_up::{Fulfiller, Fulfilment, Job, TopUp, ToppedUp};
pub use upkeep::Proof;

/// Where to connect, as whom, and how long to try. [`ClientOptions::new`] gives the defaults.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// The server's address.
    pub server: SocketAddr,
    /// The name or address that its certificate must carry.
    pub server_name: String,
    /// Who we are, and whose servers we trust.
    pub identity: Identity,
    /// How long a call is tried in all, reconnecting and sending again included. Default 30 s.
    pub timeout: Duration,
    /// The same for the commit of an import, which takes longer the larger it is, and for totals, which take longer the
    /// more happened in their period. Default 10 minutes.
    pub import_timeout: Duration,
    /// How long one attempt to connect may take. Default 5 s.
    pub connect_timeout: Duration,
    /// A connection on which nothing comes back is given up after this, at most 30 s. Default 10 s.
    pub idle: Duration,
    /// The till that stands in every request. Default 0.
    pub terminal: TerminalId,
    /// The sales channel that stands in every request. Default 0.
    pub channel: ChannelId,
}

impl ClientOptions {
    /// The defaults, for a server whose certificate carries its address.
    #[must_use]
    pub fn new(server: SocketAddr, identity: Identity) -> ClientOptions {
        ClientOptions {
            server,
            server_name: server.ip().to_string(),
            identity,
            timeout: Duration::from_secs(30),
            import_timeout: Duration::from_secs(600),
            connect_timeout: Duration::from_secs(5),
            idle: Duration::from_secs(10),
            terminal: TerminalId(0),
            channel: ChannelId(0),
        }
    }
}

/// A connection to a server that heals itself. A cheap handle; clones share it.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
    /// Go with every request that takes them.
    grounds: Option<Arc<Grounds>>,
}

struct Inner {
    options: ClientOptions,
    endpoint: Endpoint,
    config: quinn::ClientConfig,
    /// The live connection, if there is one.
    link: Mutex<Option<Link>>,
}

#[derive(Clone)]
struct Link {
    connection: Connection,
    welcome: Welcome,
    short: Lane,
    long: Lane,
}

/// Which stream a call takes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Short,
    Long,
}

/// Before the first resend; doubled up to a second.
const BACKOFF_MIN: Duration = Duration::from_millis(10);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// QUIC's code for the TLS alert that a certificate has expired.
const EXPIRED_ALERT: u64 = 0x100 + 45;

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("server", &self.inner.options.server).finish_non_exhaustive()
    }
}

impl Client {
    /// Connects and says hello.
    ///
    /// # Errors
    /// If the server cannot be reached within the time-out, or does not accept the identity.
    pub async fn connect(options: ClientOptions) -> Result<Client, ClientError> {
        let any = match options.server {
            SocketAddr::V4(_) => SocketAddr::from(([0, 0, 0, 0], 0)),
            SocketAddr::V6(_) => SocketAddr::from(([0_u16; 8], 0)),
        };
        let socket = transport::bind(any).map_err(ClientError::Socket)?;
        let mut endpoint_config = EndpointConfig::default();
        // In range by a constant; the default would only cost speed.
        let _ = endpoint_config.max_udp_payload_size(transport::UDP_PAYLOAD_BYTES_MAX);
        let endpoint = Endpoint::new(endpoint_config, None, socket, Arc::new(TokioRuntime))
            .map_err(ClientError::Socket)?;
        let mut config = quinn::ClientConfig::new(Arc::new(options.identity.client_config()?));
        // A server opens no streams towards us.
        let mut transport = transport::config(0, options.idle);
        transport.keep_alive_interval(Some(options.idle / 3));
        config.transport_config(Arc::new(transport));
        let inner = Inner { options, endpoint, config, link: Mutex::new(None) };
        let client = Client { inner: Arc::new(inner), grounds: None };
        let deadline = Instant::now() + client.inner.options.timeout;
        client.link(deadline).await?;
        Ok(client)
    }

    /// Who the server takes us for.
    ///
    /// # Errors
    /// If the server cannot be reached within the time-out.
    pub async fn welcome(&self) -> Result<Welcome, ClientError> {
        let deadline = Instant::now() + self.inner.options.timeout;
        Ok(self.link(deadline).await?.welcome)
    }

    /// A handle that says with every change why it is made, and under whose approval: with those that
    /// [take grounds](Opcode::takes_grounds). They are kept with the change. It shares the connection.
    #[must_use]
    pub fn on_grounds(&self, grounds: Grounds) -> Client {
        Client { inner: Arc::clone(&self.inner), grounds: Some(Arc::new(grounds)) }
    }

    /// Sends a request under a new random id and waits for its reply, whatever its status.
    ///
    /// # Errors
    /// If there is no reply; [`ClientError::Unknown`] if it may have taken effect.
    pub async fn send(&self, request: &Request<'_>) -> Result<Answer, ClientError> {
        self.send_as(RequestId::random(), request).await
    }

    /// The same under an id of the caller's: the way to resolve an unknown outcome.
    ///
    /// # Errors
    /// If there is no reply; [`ClientError::Unknown`] if it may have taken effect.
    pub async fn send_as(&self, id: RequestId, request: &Request<'_>) -> Result<Answer, ClientError> {
        self.send_flagged(id, RequestFlags::NONE, request).await
    }

    /// The same with flags of the request's head.
    ///
    /// # Errors
    /// As [`Client::send_as`].
    pub async fn send_flagged(
        &self,
        id: RequestId,
        flags: RequestFlags,
        request: &Request<'_>,
    ) -> Result<Answer, ClientError> {
        let head = RequestHead {
            flags,
            terminal: self.inner.options.terminal,
            channel: self.inner.options.channel,
            ..RequestHead::new(request.opcode(), id)
        };
        self.send_within(&head, request, self.inner.options.timeout).await
    }

    async fn send_within(
        &self,
        head: &RequestHead,
        request: &Request<'_>,
        timeout: Duration,
    ) -> Result<Answer, ClientError> {
        let way = match request {
            Request::Sell(_)
            | Request::OrderFetch(_)
            | Request::History(_)
            | Request::BatchList(_)
            | Request::ProductList
            | Request::PrincipalList
            | Request::OrderList(_)
            | Request::Stock(_)
            | Request::Reconcile(_)
            | Request::SignedCheckpoint
            | Request::Proof(_)
            | Request::Consistency(_)
            | Request::ImportCommit(_)
            | Request::ImportDuplicates(_) => Way::Long,
            _ => Way::Short,
        };
        let grounds = self.grounds.as_deref().filter(|_| request.opcode().takes_grounds());
        let frame = frame(head, grounds, request)?;
        let deadline = Instant::now() + timeout;
        let mut backoff = BACKOFF_MIN;
        // Whether some earlier attempt may have had its effect without our knowing.
        let mut unknown = false;
        let lost =
            |unknown, error| if unknown { ClientError::Unknown { request: head.request } } else { error };
        loop {
            let link = match self.link(deadline).await {
                Ok(link) => link,
                Err(error) => return Err(lost(unknown, error)),
            };
            let lane = if way == Way::Short { &link.short } else { &link.long };
            match timeout_at(deadline, lane.call(head.request, frame.clone())).await {
                Err(_) => return Err(ClientError::Unknown { request: head.request }),
                Ok(Some(answer)) => {
                    let later = answer.head.status.class() == Class::NotExecuted
                        && answer.head.status != Status::DeadlinePassed;
                    if let Body::Wait(wait) = &answer.body {
                        backoff = backoff.max(Duration::from_millis(wait.wait_ms.into()));
                    }
                    // It says nothing of an attempt before it: who was revoked meanwhile, and is told so, may have
                    // redeemed first.
                    let undecided =
                        matches!(answer.head.status, Status::Unauthenticated | Status::DeadlinePassed);
                    if unknown && undecided {
                        return Err(ClientError::Unknown { request: head.request });
                    }
                    if !later {
                        return Ok(answer);
                    }
                    if Instant::now() + backoff >= deadline {
                        // Not executed this time; an earlier attempt without a reply may have been.
                        return if unknown {
                            Err(ClientError::Unknown { request: head.request })
                        } else {
                            Ok(answer)
                        };
                    }
                }
                Ok(None) => {
                    unknown = true;
                    self.unlink(&link.connection).await;
                }
            }
            if Instant::now() + backoff >= deadline {
                return Err(lost(unknown, self.unreachable("no reply")));
            }
            tokio::time::sleep(backoff).await;
            backoff = if backoff > BACKOFF_MAX { BACKOFF_MIN } else { (backoff * 2).min(BACKOFF_MAX) };
        }
    }

    /// The live connection, made anew if it is gone.
    async fn link(&self, deadline: Instant) -> Result<Link, ClientError> {
        let mut backoff = BACKOFF_MIN;
        loop {
            let attempt = async {
                let mut link = self.inner.link.lock().await;
                if let Some(live) = link.as_ref().filter(|link| link.connection.close_reason().is_none()) {
                    return Ok(live.clone());
                }
                let new = self.dial().await?;
                *link = Some(new.clone());
                Ok(new)
            };
            let error = match timeout_at(deadline, attempt).await {
                Ok(Ok(link)) => return Ok(link),
                Ok(Err(error)) => error,
                Err(_) => return Err(self.unreachable("time is up")),
            };
            if !matches!(error, ClientError::Unreachable { .. }) || Instant::now() + backoff >= deadline {
                return Err(error);
            }
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    async fn dial(&self) -> Result<Link, ClientError> {
        let options = &self.inner.options;
        let connecting = self
            .inner
            .endpoint
            .connect_with(self.inner.config.clone(), options.server, &options.server_name)
            .map_err(|error| self.unreachable(&error.to_string()))?;
        let until = Instant::now() + options.connect_timeout;
        let connection = match timeout_at(until, connecting).await {
            Err(_) => return Err(self.unreachable("no answer to the handshake")),
            Ok(Err(error)) => return Err(self.refusal(&error)),
            Ok(Ok(connection)) => connection,
        };
        // In TLS 1.3 the client is done before the server has looked at its certificate: only a reply
        // shows that it was accepted.
        let short = Lane::open(&connection);
        let request = RequestHead::new(Opcode::Hello, RequestId::random());
        let hello = short.call(request.request, frame(&request, None, &Request::Hello)?);
        match timeout_at(until, hello).await {
            Ok(Some(Answer { body: Body::Welcome(welcome), .. })) => {
                let long = Lane::open(&connection);
                Ok(Link { connection, welcome, short, long })
            }
            Ok(Some(_)) => Err(ClientError::BadReply),
            Ok(None) => {
                let reason = match timeout_at(until, connection.closed()).await {
                    Ok(reason) => self.refusal(&reason),
                    Err(_) => self.unreachable("the stream was ended"),
                };
                Err(reason)
            }
            Err(_) => Err(self.unreachable("no reply to the first request")),
        }
    }

    /// Forgets a connection that lost a request, unless another call has replaced it already.
    async fn unlink(&self, connection: &Connection) {
        let mut link = self.inner.link.lock().await;
        if link.as_ref().is_some_and(|link| link.connection.stable_id() == connection.stable_id()) {
            *link = None;
        }
        close(connection);
    }

    fn unreachable(&self, cause: &str) -> ClientError {
        ClientError::Unreachable { server: self.inner.options.server, cause: cause.to_owned() }
    }

    fn refusal(&self, error: &ConnectionError) -> ClientError {
        match error {
            ConnectionError::ApplicationClosed(close)
                if close.error_code.into_inner() == u64::from(CloseCode::Unauthenticated.number()) =>
            {
                ClientError::Unauthenticated
            }
            ConnectionError::ApplicationClosed(close)
                if close.error_code.into_inner() == u64::from(CloseCode::CertificateExpired.number()) =>
            {
                self.expired()
            }
            // What the server says of our certificate, and what we say of the server's.
            ConnectionError::ConnectionClosed(close) if u64::from(close.error_code) == EXPIRED_ALERT => {
                self.expired()
            }
            ConnectionError::TransportError(error) if u64::from(error.code) == EXPIRED_ALERT => {
                ClientError::ServerExpired
            }
            // Codes 0x100 to 0x1ff are TLS alerts: a certificate or a name that does not fit.
            ConnectionError::TransportError(error) if (0x100..0x200).contains(&u64::from(error.code)) => {
                ClientError::Untrusted { cause: error.to_string() }
            }
            ConnectionError::ConnectionClosed(close)
                if (0x100..0x200).contains(&u64::from(close.error_code)) =>
            {
                ClientError::Untrusted { cause: close.to_string() }
            }
            error => self.unreachable(&error.to_string()),
        }
    }

    fn expired(&self) -> ClientError {
        let identity = &self.inner.options.identity;
        let now_ms = certificate::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        if let Ok(authority) = identity.authority_validity()
            && u128::from(authority.until_ms) <= now_ms
        {
            return IdentityError::AuthorityEnded { day: certificate::day(authority.until_ms) }.into();
        }
        match identity.certificate_facts() {
            Ok(facts) => {
                ClientError::Expired { day: certificate::day(facts.note.expires_ms), name: facts.name }
            }
            Err(error) => error.into(),
        }
    }

    /// Ends the connection. Calls under way have no reply then.
    pub async fn close(self) {
        if let Some(link) = self.inner.link.lock().await.take() {
            close(&link.connection);
        }
        self.inner.endpoint.wait_idle().await;
    }
}

fn close(connection: &Connection) {
    connection.close(VarInt::from_u32(CloseCode::Done.number()), b"");
}

/// A request's bytes, wiped when the last copy of the handle is gone: they may hold a code.
fn frame(head: &RequestHead, grounds: Option<&Grounds>, request: &Request<'_>) -> Result<Bytes, ClientError> {
    let mut out = BytesMut::with_capacity(512);
    request.encode_on(head, grounds, &mut out)?;
    Ok(Bytes::from_owner(Wiped(out)))
}

struct Wiped(BytesMut);

impl AsRef<[u8]> for Wiped {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Wiped {
    fn drop(&mut self) {
        self.0.as_mut().zeroize();
    }
}
