//! One connection: who is it, and its streams.

use std::sync::Arc;
use std::time::Instant;

use kami_engine::{Caller, Principal};
use quinn::{Connection, VarInt};
use rustls_pki_types::CertificateDer;
use tokio::task::JoinSet;

use crate::frame::CloseCode;
use crate::registry::Peer;
use crate::server::{Phase, Shared};
use crate::stream;
use crate::tls::key_fingerprint;

/// Serves a connection whose certificate was verified, until either side ends it.
pub(crate) async fn serve(shared: Arc<Shared>, connection: Connection) {
    let Some((key, principal)) = principal(&shared, &connection) else {
        close(&connection, CloseCode::Unauthenticated);
        return;
    };
    let caller = Caller {
        tenant: principal.spec.tenant,
        principal: principal.id,
        role: principal.spec.role,
        merchant: principal.spec.merchant,
    };
    let guesser = shared.guesses.of(principal.id, principal.spec.misses_per_minute, Instant::now());
    let peer = Arc::new(Peer::new(caller, key, guesser));
    let places = shared.options.connections_per_principal_max;
    let Some(_place) = shared.registry.register(&connection, &peer, places) else {
        close(&connection, CloseCode::Busy);
        return;
    };
    // Asked again now that a revocation would find this connection: one in between is not missed.
    if self::principal(&shared, &connection).is_none() {
        close(&connection, CloseCode::Unauthenticated);
        return;
    }

    let mut phase = shared.phase.subscribe();
    let mut streams = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            _ = phase.wait_for(|phase| *phase != Phase::Serving) => break,
            Some(_) = streams.join_next(), if !streams.is_empty() => {}
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
    while streams.join_next().await.is_some() {}
    let failed = *shared.phase.borrow() == Phase::LogFailed;
    close(&connection, if failed { CloseCode::LogFailed } else { CloseCode::ShuttingDown });
}

/// The principal whose key the peer has proved to hold, with that key.
fn principal(shared: &Shared, connection: &Connection) -> Option<([u8; 32], Principal)> {
    let identity = connection.peer_identity()?;
    let chain = identity.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    let key = key_fingerprint(chain.first()?)?;
    Some((key, shared.engine.principal_by_key(&key)?))
}

fn close(connection: &Connection, code: CloseCode) {
    connection.close(VarInt::from_u32(code.number()), code.code().as_bytes());
}
