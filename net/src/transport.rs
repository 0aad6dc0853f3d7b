//! How QUIC is set up: every limit said, nothing left to a default that may be unbounded.
//!
//! | What | Here | Why |
//! |---|---|---|
//! | unidirectional streams, datagrams | none | the protocol has no use for them |
//! | bidirectional streams a connection | 32, or 8 while narrow | few long-lived ones carry everything |
//! | unread bytes a stream / a connection | 1 MiB / 2 MiB | the largest frame; what a peer can make us keep |
//! | unacknowledged bytes we sent | 2 MiB | what a slow reader can make us keep |
//! | both, at a server, for a peer that is not known yet or one of very many | 128 KiB | see [`crate::registry`] |
//! | idle | 30 s | a peer that is gone frees its place; clients send keep-alives |
//! | UDP payload | up to 6,500 bytes, found by probing | fewer packets on loopback and jumbo paths |
//! | first flight | 64 KB | ten of the largest packets; with QUIC's usual 14 KB two packets fill it, and the notice that a connection is closed waits behind them until it is too late to send it |
//! | socket buffers | 4 MB, as far as the system grants | bursts are not lost before they are read |
//! | segmentation offload | on (the default) | off costs a factor of three |

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use quinn::congestion::CubicConfig;
use quinn::{MtuDiscoveryConfig, TransportConfig, VarInt};
use socket2::{Domain, Protocol, Socket, Type};

/// Unread bytes a connection may have.
pub(crate) const RECEIVE_BYTES_MAX: u32 = 2 << 20;
/// Unread bytes, and sent bytes that are kept, of a server's connection that is one of very many or whose
/// peer is not known yet. Enough for a till, and for a platform's frames on a short way.
pub(crate) const NARROW_BYTES_MAX: u32 = 128 << 10;
/// Streams of such a connection.
pub(crate) const NARROW_STREAMS_MAX: u32 = 8;
/// Unread bytes a stream may have.
pub(crate) const STREAM_RECEIVE_BYTES_MAX: u32 = 1 << 20;
/// Sent bytes a connection keeps until they are acknowledged.
pub(crate) const SEND_BYTES_MAX: u64 = 2 << 20;
/// The largest UDP payload, where the path takes it.
pub(crate) const UDP_PAYLOAD_BYTES_MAX: u16 = 6500;

/// What may be under way before the first acknowledgement.
const FIRST_FLIGHT_BYTES: u64 = 10 * UDP_PAYLOAD_BYTES_MAX as u64;

const SOCKET_BUFFER_BYTES: usize = 4 << 20;

/// The settings of a server: narrow until it knows its peer.
pub(crate) fn server_config(streams_max: u32, idle: Duration) -> TransportConfig {
    let mut config = config(streams_max.min(NARROW_STREAMS_MAX), idle);
    config.receive_window(VarInt::from_u32(NARROW_BYTES_MAX)).send_window(u64::from(NARROW_BYTES_MAX));
    config
}

/// Gives a connection its whole windows and streams.
pub(crate) fn widen(connection: &quinn::Connection, streams_max: u32) {
    connection.set_max_concurrent_bi_streams(VarInt::from_u32(streams_max));
    connection.set_send_window(SEND_BYTES_MAX);
    connection.set_receive_window(VarInt::from_u32(RECEIVE_BYTES_MAX));
}

/// The settings both sides share. `idle` is at most 30 seconds.
pub(crate) fn config(streams_max: u32, idle: Duration) -> TransportConfig {
    let mut config = TransportConfig::default();
    let mut congestion = CubicConfig::default();
    congestion.initial_window(FIRST_FLIGHT_BYTES);
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(UDP_PAYLOAD_BYTES_MAX);
    // A duration within 30 seconds always fits QUIC's millisecond count.
    let idle_ms = u32::try_from(idle.as_millis()).unwrap_or(30_000).min(30_000);
    config
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .max_concurrent_bidi_streams(VarInt::from_u32(streams_max))
        .stream_receive_window(VarInt::from_u32(STREAM_RECEIVE_BYTES_MAX))
        .receive_window(VarInt::from_u32(RECEIVE_BYTES_MAX))
        .send_window(SEND_BYTES_MAX)
        .send_fairness(false)
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(Some(VarInt::from_u32(idle_ms).into()))
        .congestion_controller_factory(Arc::new(congestion))
        .mtu_discovery_config(Some(discovery));
    config
}

/// A UDP socket with large buffers, as far as the system grants them.
pub(crate) fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    // Smaller buffers only cost speed under bursts, so a refusal is no error.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
    socket.bind(&address.into())?;
    Ok(socket.into())
}
