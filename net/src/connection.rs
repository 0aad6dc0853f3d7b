//! One connection: who is it, and its streams.

use std::sync::Arc;

use kami_engine::Caller;
use quinn::{Connection, VarInt};
use rustls_pki_types::CertificateDer;
use tokio::task::JoinSet;

use crate::frame::CloseCode;
use crate::meter::Refusal;
use crate::registry::Peer;
use crate::server::{Phase, Shared};
use crate::stream;
use crate::tls::key_fingerprint;

/// Serves a connection whose certificate was verified, until either side ends it.
pub(crate) async fn serve(shared: Arc<Shared>, connection: Connection) {
    let Some(caller) = caller(&shared, &connection) else {
        shared.meter.refuse(Refusal::Unauthenticated);
        tracing::debug!(peer = %connection.remote_address(), "refused: the certificate is nobody's");
        close(&connection, CloseCode::Unauthenticated);
        return;
    };
    let peer = Arc::new(Peer::new(caller));
    let places = shared.options.connections_per_principal_max;
    let Some(_place) = shared.registry.register(&connection, &peer, places) else {
        shared.meter.refuse(Refusal::Principal);
        close(&connection, CloseCode::Busy);
        return;
    };
    // Asked again now that a revocation would find this connection: one in between is not missed.
    if self::caller(&shared, &connection) != Some(caller) {
        close(&connection, CloseCode::Unauthenticated);
        return;
    }

    tracing::debug!(peer = %connection.remote_address(), principal = %caller.principal, "connected");
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

/// The principal whose key the peer has proved to hold.
fn caller(shared: &Shared, connection: &Connection) -> Option<Caller> {
    let identity = connection.peer_identity()?;
    let chain = identity.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    let key = key_fingerprint(chain.first()?)?;
    let principal = shared.engine.principal_by_key(&key).filter(|principal| !principal.revoked)?;
    Some(Caller {
        tenant: principal.spec.tenant,
        principal: principal.id,
        role: principal.spec.role,
        merchant: principal.spec.merchant,
    })
}

fn close(connection: &Connection, code: CloseCode) {
    connection.close(VarInt::from_u32(code.number()), code.code().as_bytes());
}
