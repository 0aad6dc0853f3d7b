//! One connection: who is it, and its streams.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use kami_engine::{Caller, Principal};
use quinn::{Connection, VarInt};
use rustls_pki_types::CertificateDer;
use tokio::task::JoinSet;

use crate::certificate::{self, CertificateFacts};
use crate::frame::CloseCode;
use crate::meter::Refusal;
use crate::registry::Peer;
use crate::server::{Phase, Shared};
use crate::stream;

/// Serves a connection whose certificate was verified, until either side ends it.
pub(crate) async fn serve(shared: Arc<Shared>, connection: Connection) {
    let Some((facts, principal)) = principal(&shared, &connection) else {
        shared.meter.refuse(Refusal::Unauthenticated);
        tracing::debug!(peer = %connection.remote_address(), "refused: the certificate is nobody's");
        close(&connection, CloseCode::Unauthenticated);
        return;
    };
    // TLS does not ask for the authority's own end.
    let ends_ms = facts.note.expires_ms.min(shared.authority_until_ms);
    if until(ends_ms).is_zero() {
        shared.meter.refuse(Refusal::Unauthenticated);
        close(&connection, CloseCode::CertificateExpired);
        return;
    }
    let caller = Caller {
        tenant: principal.spec.tenant,
        principal: principal.id,
        role: principal.spec.role,
        merchant: principal.spec.merchant,
    };
    let guesser = shared.guesses.of(principal.id, principal.spec.misses_per_minute, Instant::now());
    let peer = Arc::new(Peer::new(caller, facts.key, guesser));
    let places = shared.options.connections_per_principal_max;
    let streams = shared.options.streams_max;
    let Some(_place) = shared.registry.register(&connection, &peer, places, streams) else {
        shared.meter.refuse(Refusal::Principal);
        close(&connection, CloseCode::Busy);
        return;
    };
    // Asked again now that a revocation would find this connection: one in between is not missed.
    if self::principal(&shared, &connection).is_none_or(|(_, now)| now.id != caller.principal) {
        close(&connection, CloseCode::Unauthenticated);
        return;
    }

    tracing::debug!(peer = %connection.remote_address(), principal = %caller.principal, "connected");
    let mut phase = shared.phase.subscribe();
    let mut streams = JoinSet::new();
    // TLS looked at the certificate's end once; a connection may stand for months.
    let mut expiry = pin!(end(ends_ms));
    loop {
        tokio::select! {
            biased;
            _ = phase.wait_for(|phase| *phase != Phase::Serving) => break,
            () = &mut expiry => return close(&connection, CloseCode::CertificateExpired),
            Some(ended) = streams.join_next(), if !streams.is_empty() => {
                if let Ok(Some(code)) = ended {
                    return close(&connection, code);
                }
            }
            stream = connection.accept_bi() => match stream {
                Ok((send, recv)) => {
                    streams.spawn(stream::serve(Arc::clone(&shared), Arc::clone(&peer), send, recv));
                }
                // Gone. Its streams' tasks are ended with the set; what they had decided stands in
                // the log, and their client asks again with the same ids.
                Err(_) => return,
            },
        }
    }
    // Streams end by themselves once their replies are acknowledged; the server bounds the wait.
    tokio::select! {
        () = async { while streams.join_next().await.is_some() {} } => {}
        () = silence(&shared, &connection) => {}
    }
    let failed = *shared.phase.borrow() == Phase::LogFailed;
    close(&connection, if failed { CloseCode::LogFailed } else { CloseCode::ShuttingDown });
}

/// How long a peer that owes acknowledgements may be silent when the server is taken down, beside four
/// round trips. A live one answers within its round trip and 25 ms.
const SILENCE: Duration = Duration::from_secs(1);

/// Resolves when the peer is gone: it is sent all that was decided, and not a packet comes back. Whatever
/// it has not acknowledged it asks for again with the same ids.
async fn silence(shared: &Shared, connection: &Connection) {
    // Nothing can be acknowledged before it is durable and sent.
    if shared.engine.durable(shared.engine.tail()).await.is_err() {
        return;
    }
    loop {
        let before = connection.stats().udp_rx.datagrams;
        tokio::time::sleep(SILENCE + 4 * connection.rtt()).await;
        if connection.stats().udp_rx.datagrams == before {
            return;
        }
    }
}

/// Resolves at a time in milliseconds since 1970. Timers run on while the machine's clock is set, or stand still
/// while it sleeps: so the clock is asked again now and then.
async fn end(ms: u64) {
    const LOOK: Duration = Duration::from_secs(60);
    loop {
        let left = until(ms);
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(LOOK)).await;
    }
}

/// How long until a time in milliseconds since 1970.
fn until(ms: u64) -> Duration {
    let now = certificate::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Duration::from_millis(ms).saturating_sub(now)
}

/// The principal whose key the peer has proved to hold, and what its certificate says.
fn principal(shared: &Shared, connection: &Connection) -> Option<(CertificateFacts, Principal)> {
    let identity = connection.peer_identity()?;
    let chain = identity.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    let facts = CertificateFacts::of(chain.first()?)?;
    let principal = shared.engine.principal_by_key(&facts.key)?;
    Some((facts, principal))
}

pub(crate) fn close(connection: &Connection, code: CloseCode) {
    connection.close(VarInt::from_u32(code.number()), code.code().as_bytes());
}
