//! Who is connected: counted per address and per principal, and found again to be closed.
//!
//! The maps are lock-striped and touched when connections come and go, never per command. No
//! reference into a map is held while another is taken.
//!
//! A connection begins narrow (windows of 128 KiB each way, 8 streams) and gets wide (2 MiB, 32) when its peer is
//! known, if it is among the first [`WIDE_OF_PRINCIPAL_MAX`] of its principal and there are at most
//! [`WIDE_MAX`] in all. So a platform with a few connections is fast, thousands of tills have what a till
//! needs, and the most that all peers together can make the server keep is known: see the crate's limits.

use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use dashmap::DashMap;
use kami_engine::{Caller, Lsn, PrincipalId};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::frame::CloseCode;
use crate::guesses::Guesser;
use crate::meter::Refusal;
use crate::transport;

/// Connections of one principal that have wide windows.
pub(crate) const WIDE_OF_PRINCIPAL_MAX: usize = 16;
/// Connections in all up to which new ones have wide windows.
pub(crate) const WIDE_MAX: usize = 128;

/// The other end of a connection, once it is known.
pub(crate) struct Peer {
    pub(crate) caller: Caller,
    /// The key it proved to hold.
    pub(crate) key: [u8; 32],
    /// How many wrong codes it may still send.
    pub(crate) guesser: Arc<Guesser>,
    /// Set when its principal is revoked: nothing it sent is decided from then on.
    pub(crate) revoked: AtomicBool,
    /// Streams it may have open.
    pub(crate) streams_max: AtomicU32,
    /// Bytes of replies that all its streams keep.
    pub(crate) pending_bytes: Arc<AtomicUsize>,
}

impl Peer {
    pub(crate) fn new(caller: Caller, key: [u8; 32], guesser: Arc<Guesser>) -> Peer {
        Peer {
            caller,
            key,
            guesser,
            revoked: AtomicBool::new(false),
            streams_max: AtomicU32::new(transport::NARROW_STREAMS_MAX),
            pending_bytes: Arc::default(),
        }
    }
}

#[derive(Default)]
pub(crate) struct Registry {
    total: AtomicUsize,
    by_address: DashMap<IpAddr, usize>,
    /// Handshakes under way, the oldest first; locked for no longer than going over them takes.
    handshakes: Mutex<Vec<(IpAddr, Arc<Notify>)>>,
    by_principal: DashMap<PrincipalId, usize>,
    live: DashMap<usize, (quinn::Connection, Arc<Peer>)>,
    feeds: AtomicUsize,
    feeds_by_principal: DashMap<PrincipalId, usize>,
    /// How far each feed has read the log, in bytes; locked for no longer than going over them takes.
    feed_positions: Mutex<Vec<Arc<AtomicU64>>>,
}

impl Registry {
    /// How many connections there are whose handshake is done.
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
        let address = network(address);
        if enter(&self.by_address, address, address_max).is_none() {
            self.total.fetch_sub(1, Ordering::Relaxed);
            return Err(Refusal::Address);
        }
        Ok(AddressPlace { registry: Arc::clone(self), address })
    }

    /// How many handshakes are under way.
    pub(crate) fn handshakes(&self) -> usize {
        self.handshakes.lock().len()
    }

    /// A place for a handshake. Where there is none the oldest one under way gives its place up, which is the
    /// slowest: an honest one takes a round trip, and whoever falls silent would else hold its place until the
    /// time for it is over, and a few of those everybody's.
    ///
    /// An address that has its share gives up the oldest of its own. So one that floods takes no place from others, and
    /// tills that share an address with it get in as well.
    pub(crate) fn begin_handshake(
        self: &Arc<Self>,
        address: IpAddr,
        total_max: usize,
        address_max: usize,
    ) -> HandshakePlace {
        let address = network(address);
        let given_up = Arc::new(Notify::new());
        let mut under_way = self.handshakes.lock();
        let is_own = |(of, _): &(IpAddr, Arc<Notify>)| *of == address;
        let oldest = if under_way.iter().filter(|one| is_own(one)).count() >= address_max {
            under_way.iter().position(is_own)
        } else {
            (under_way.len() >= total_max).then_some(0)
        };
        if let Some(oldest) = oldest {
            // Remembered, if nobody waits for it yet.
            under_way.remove(oldest).1.notify_one();
        }
        under_way.push((address, Arc::clone(&given_up)));
        HandshakePlace { registry: Arc::clone(self), given_up }
    }

    /// Makes a connection known by its principal, unless that has too many.
    pub(crate) fn register(
        self: &Arc<Self>,
        connection: &quinn::Connection,
        peer: &Arc<Peer>,
        principal_max: usize,
        streams_max: u32,
    ) -> Option<PrincipalPlace> {
        let principal = peer.caller.principal;
        let count = enter(&self.by_principal, principal, principal_max)?;
        if count <= WIDE_OF_PRINCIPAL_MAX && self.total() <= WIDE_MAX {
            transport::widen(connection, streams_max);
            peer.streams_max.store(streams_max, Ordering::Relaxed);
        }
        let id = connection.stable_id();
        self.live.insert(id, (connection.clone(), Arc::clone(peer)));
        Some(PrincipalPlace { registry: Arc::clone(self), principal, id })
    }

    /// A place for a feed of this principal, unless there are too many.
    pub(crate) fn admit_feed(
        self: &Arc<Self>,
        principal: PrincipalId,
        total_max: usize,
        principal_max: usize,
    ) -> Option<FeedPlace> {
        enter(&self.feeds_by_principal, principal, principal_max)?;
        let position = Arc::new(AtomicU64::new(u64::MAX));
        self.feed_positions.lock().push(Arc::clone(&position));
        let place = FeedPlace { registry: Arc::clone(self), principal, position };
        // Beyond the limit the place is given back as it is dropped.
        (self.feeds.fetch_add(1, Ordering::Relaxed) < total_max).then_some(place)
    }

    /// How many feeds there are.
    pub(crate) fn feeds(&self) -> usize {
        self.feeds.load(Ordering::Relaxed)
    }

    /// How many bytes of the log, which is durable up to `end`, the feed that is furthest behind has not read.
    pub(crate) fn feeds_behind(&self, end: Lsn) -> u64 {
        let positions = self.feed_positions.lock();
        let behind = positions.iter().map(|at| end.bytes().saturating_sub(at.load(Ordering::Relaxed)));
        behind.max().unwrap_or(0)
    }

    /// Ends the connections of a principal whose key is not known any more. Replies that have not left have no
    /// precedence: such a key gets nothing more.
    pub(crate) fn close_strangers(&self, principal: PrincipalId, is_known: impl Fn(&[u8; 32]) -> bool) {
        let of_principal = |(_, peer): &&(quinn::Connection, Arc<Peer>)| peer.caller.principal == principal;
        let own: Vec<_> =
            self.live.iter().filter_map(|entry| Some(entry.value()).filter(of_principal).cloned()).collect();
        for (connection, peer) in own {
            if is_known(&peer.key) {
                continue;
            }
            peer.revoked.store(true, Ordering::Relaxed);
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

/// Counts a handshake under way until dropped, or until a newer one needs the place.
pub(crate) struct HandshakePlace {
    registry: Arc<Registry>,
    given_up: Arc<Notify>,
}

impl HandshakePlace {
    /// Resolves when a newer one has taken the place: the handshake must end.
    pub(crate) async fn given_up(&self) {
        self.given_up.notified().await;
    }
}

impl Drop for HandshakePlace {
    fn drop(&mut self) {
        // Not there any more if it was given up.
        self.registry.handshakes.lock().retain(|(_, given_up)| !Arc::ptr_eq(given_up, &self.given_up));
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

/// Counts a feed by its principal until dropped.
pub(crate) struct FeedPlace {
    registry: Arc<Registry>,
    principal: PrincipalId,
    position: Arc<AtomicU64>,
}

impl FeedPlace {
    /// Notes how far the feed has read.
    pub(crate) fn reached(&self, position: Lsn) {
        self.position.store(position.bytes(), Ordering::Relaxed);
    }
}

impl Drop for FeedPlace {
    fn drop(&mut self) {
        leave(&self.registry.feeds_by_principal, self.principal);
        self.registry.feed_positions.lock().retain(|position| !Arc::ptr_eq(position, &self.position));
        self.registry.feeds.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What passes for one address: of IPv6 it is the 64 bits that one peer is given as a whole.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        address => address,
    }
}

/// Counts one more, unless there are too many; how many there are then.
fn enter<K: Hash + Eq>(counts: &DashMap<K, usize>, key: K, max: usize) -> Option<usize> {
    let mut count = counts.entry(key).or_insert(0);
    if *count >= max {
        return None;
    }
    *count += 1;
    Some(*count)
}

fn leave<K: Hash + Eq>(counts: &DashMap<K, usize>, key: K) {
    if let Some(mut count) = counts.get_mut(&key) {
        *count = count.saturating_sub(1);
    }
    counts.remove_if(&key, |_, count| *count == 0);
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    /// Whoever has an IPv6 address has 2^64 of them, and so had as many times the places of one.
    #[test]
    fn a_network_of_ipv6_counts_as_one_address() {
        let registry = Arc::<Registry>::default();
        let admit = |address: &str| registry.admit(address.parse().unwrap(), 100, 1);
        let held = [admit("2001:db8:1:2::1"), admit("192.0.2.1"), admit("2001:db8:1:3::1")];
        assert!(held.iter().all(Result::is_ok));
        for address in ["2001:db8:1:2:ffff::9", "::ffff:192.0.2.1", "2001:db8:1:3::"] {
            assert_eq!(admit(address).err(), Some(Refusal::Address), "{address}");
        }
        assert_eq!(registry.total(), 3);
        drop(held);
        assert!(registry.by_address.is_empty() && registry.total() == 0);
    }

    /// Four addresses that began handshakes and fell silent kept everybody out for as long as one may take.
    #[test]
    fn the_oldest_handshake_gives_its_place_up() {
        let registry = Arc::<Registry>::default();
        let begin = |address: &str| registry.begin_handshake(address.parse().unwrap(), 4, 2);
        let is_given_up = |place: &HandshakePlace| {
            pin!(place.given_up()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
        };
        let [a1, b1, b2] = ["192.0.2.1", "2001:db8:1:2::1", "2001:db8:1:2::2"].map(begin);
        // One's own, though another's is older.
        let b3 = begin("2001:db8:1:2::3");
        assert_eq!([&a1, &b1, &b2, &b3].map(is_given_up), [false, true, false, false]);
        // Anybody's, when there are no more in all.
        let [c1, d1] = ["192.0.2.3", "192.0.2.4"].map(begin);
        assert_eq!([&a1, &b2, &b3, &c1, &d1].map(is_given_up), [true, false, false, false, false]);
        assert_eq!(registry.handshakes(), 4);
        // What was given up is not given back once more, and what ended by itself leaves room.
        drop((a1, b1));
        assert_eq!(registry.handshakes(), 4);
        drop(c1);
        let e1 = begin("192.0.2.5");
        assert_eq!([&b2, &b3, &d1, &e1].map(is_given_up), [false; 4]);
        drop((b2, b3, d1, e1));
        assert_eq!(registry.handshakes(), 0);
    }
}
