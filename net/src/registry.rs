//! Who is connected: counted per address and per principal, and found again to be closed.
//!
//! The maps are lock-striped and touched when connections come and go, never per command. No
//! reference into a map is held while another is taken.

use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use dashmap::DashMap;
use kami_engine::{Caller, PrincipalId};

use crate::frame::CloseCode;
use crate::meter::Refusal;

/// The other end of a connection, once it is known.
pub(crate) struct Peer {
    pub(crate) caller: Caller,
    /// Set when its principal is revoked: nothing it sent is decided from then on.
    pub(crate) revoked: AtomicBool,
    /// Bytes of replies that all its streams keep.
    pub(crate) pending_bytes: Arc<AtomicUsize>,
}

impl Peer {
    pub(crate) fn new(caller: Caller) -> Peer {
        Peer { caller, revoked: AtomicBool::new(false), pending_bytes: Arc::default() }
    }
}

#[derive(Default)]
pub(crate) struct Registry {
    total: AtomicUsize,
    by_address: DashMap<IpAddr, usize>,
    by_principal: DashMap<PrincipalId, usize>,
    live: DashMap<usize, (quinn::Connection, Arc<Peer>)>,
}

impl Registry {
    pub(crate) fn total(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    /// A place for a connection from this address, unless there are too many.
    ///
    /// # Errors
    /// Too many of what.
    pub(crate) fn admit(
        self: &Arc<Self>,
        address: IpAddr,
        total_max: usize,
        address_max: usize,
    ) -> Result<AddressPlace, Refusal> {
        if self.total.fetch_add(1, Ordering::Relaxed) >= total_max {
            self.total.fetch_sub(1, Ordering::Relaxed);
            return Err(Refusal::Full);
        }
        if !enter(&self.by_address, address, address_max) {
            self.total.fetch_sub(1, Ordering::Relaxed);
            return Err(Refusal::Address);
        }
        Ok(AddressPlace { registry: Arc::clone(self), address })
    }

    /// Makes a connection known by its principal, unless that has too many.
    pub(crate) fn register(
        self: &Arc<Self>,
        connection: &quinn::Connection,
        peer: &Arc<Peer>,
        principal_max: usize,
    ) -> Option<PrincipalPlace> {
        let principal = peer.caller.principal;
        if !enter(&self.by_principal, principal, principal_max) {
            return None;
        }
        let id = connection.stable_id();
        self.live.insert(id, (connection.clone(), Arc::clone(peer)));
        Some(PrincipalPlace { registry: Arc::clone(self), principal, id })
    }

    /// Ends all connections of a principal. Its own reply that says so, if it revoked itself, has no
    /// precedence: a revoked key gets nothing more.
    pub(crate) fn close_principal(&self, principal: PrincipalId) {
        let mut closed = Vec::new();
        for entry in &self.live {
            let (connection, peer) = entry.value();
            if peer.caller.principal == principal {
                peer.revoked.store(true, Ordering::Relaxed);
                closed.push(connection.clone());
            }
        }
        for connection in closed {
            let code = CloseCode::Unauthenticated;
            connection.close(quinn::VarInt::from_u32(code.number()), code.code().as_bytes());
        }
    }
}

/// Counts a connection by its address until dropped.
pub(crate) struct AddressPlace {
    registry: Arc<Registry>,
    address: IpAddr,
}

impl Drop for AddressPlace {
    fn drop(&mut self) {
        leave(&self.registry.by_address, self.address);
        self.registry.total.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts a connection by its principal, and keeps it known, until dropped.
pub(crate) struct PrincipalPlace {
    registry: Arc<Registry>,
    principal: PrincipalId,
    id: usize,
}

impl Drop for PrincipalPlace {
    fn drop(&mut self) {
        self.registry.live.remove(&self.id);
        leave(&self.registry.by_principal, self.principal);
    }
}

fn enter<K: Hash + Eq>(counts: &DashMap<K, usize>, key: K, max: usize) -> bool {
    let mut count = counts.entry(key).or_insert(0);
    let admitted = *count < max;
    *count += usize::from(admitted);
    admitted
}

fn leave<K: Hash + Eq>(counts: &DashMap<K, usize>, key: K) {
    if let Some(mut count) = counts.get_mut(&key) {
        *count = count.saturating_sub(1);
    }
    counts.remove_if(&key, |_, count| *count == 0);
}
