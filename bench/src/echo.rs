//! Bare quinn, without Kami: what the network allows.
//!
//! The transport settings are those of `net/src/transport.rs` and the client's loop is the same; the
//! server sends every frame back as it came, and a frame of a redemption is about as long as its reply.
//! What remains between this and `quic-redeem` is what Kami costs.

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::{Bytes, BytesMut};
use kami_engine::RequestId;
use kami_net::frame::{FRAME_BYTES_MAX, REQUEST_HEAD_BYTES, Request, RequestHead, Split, Splitter};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    Connection, Endpoint, EndpointConfig, MtuDiscoveryConfig, RecvStream, SendStream, TokioRuntime,
    TransportConfig, VarInt,
};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use socket2::{Domain, Protocol, Socket, Type};

use crate::args::Args;
use crate::child::{say, wait_for_the_end};
use crate::serve::{CLIENT, SERVER, any_port, runtime};
use crate::traffic::{Receiving, Reply, Sending};

const ALPN: &[u8] = b"echo";
const UDP_PAYLOAD_BYTES_MAX: u16 = 6500;

/// One connection and its one stream.
pub struct Line {
    /// Towards the server.
    pub send: Sender,
    /// From the server.
    pub receive: Receiver,
    /// The connection lives as long as this.
    _endpoint: (Endpoint, Connection),
}

/// The sending half.
pub struct Sender {
    send: SendStream,
    out: BytesMut,
}

/// The receiving half.
pub struct Receiver {
    receive: RecvStream,
    splitter: Splitter,
}

impl Sending for Sender {
    #[inline]
    fn push(&mut self, id: RequestId, request: &Request<'_>) -> Result<()> {
        Ok(request.encode(&RequestHead::new(request.opcode(), id), &mut self.out)?)
    }

    async fn flush(&mut self) -> Result<()> {
        let bytes = self.out.split().freeze();
        Ok(self.send.write_chunk(bytes).await?)
    }
}

impl Receiving for Receiver {
    async fn receive(&mut self, mut each: impl FnMut(Reply<'_>)) -> Result<u64> {
        let mut pieces: [Bytes; 32] = Default::default();
        let count = self.receive.read_chunks(&mut pieces).await?.context("the server ended the stream")?;
        let mut replies = 0;
        for piece in &pieces[..count] {
            let mut rest: &[u8] = piece;
            while let Split::Frame(frame) = self.splitter.next(&mut rest, |_| FRAME_BYTES_MAX)? {
                let head = RequestHead::decode(frame);
                let request = head.map_or(RequestId(0), |head| head.request);
                each(Reply { request, done: head.is_ok(), raw: None });
                replies += 1;
            }
        }
        Ok(replies)
    }
}

/// Connects to the echo at `address`.
pub async fn connect(directory: &Path, address: SocketAddr) -> Result<Line> {
    let (chain, key, roots) = identity(&directory.join(CLIENT))?;
    let mut tls = rustls::ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    let mut transport = transport(0);
    transport.keep_alive_interval(Some(Duration::from_secs(3)));
    config.transport_config(Arc::new(transport));
    let endpoint = Endpoint::new(endpoint_config()?, None, socket()?, Arc::new(TokioRuntime))?;
    let connection = endpoint.connect_with(config, address, "127.0.0.1")?.await?;
    let (send, receive) = connection.open_bi().await?;
    Ok(Line {
        send: Sender { send, out: BytesMut::new() },
        receive: Receiver { receive, splitter: Splitter::new(REQUEST_HEAD_BYTES) },
        _endpoint: (endpoint, connection),
    })
}

/// The child that sends back what it gets.
pub fn serve(args: &Args) -> Result<()> {
    let directory = args.store.as_deref().context("no --store")?;
    let (chain, key, roots) = identity(&directory.join(SERVER))?;
    let provider = Arc::new(provider());
    let verifier =
        rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier.build()?)
        .with_single_cert(chain, key)?;
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    config.transport_config(Arc::new(transport(32)));
    runtime(args)?.block_on(async {
        let endpoint = Endpoint::new(endpoint_config()?, Some(config), socket()?, Arc::new(TokioRuntime))?;
        say(&format!("ready {}", endpoint.local_addr()?));
        let accepting = async {
            while let Some(incoming) = endpoint.accept().await {
                tokio::spawn(async {
                    // A client that goes ends its connection; that is no error here.
                    let _ = talk(incoming).await;
                });
            }
        };
        tokio::select! {
            () = accepting => Ok(()),
            ended = tokio::task::spawn_blocking(wait_for_the_end) => ended?,
        }
    })
}

async fn talk(incoming: quinn::Incoming) -> Result<()> {
    let connection = incoming.await?;
    let (mut send, mut receive) = connection.accept_bi().await?;
    let mut pieces: [Bytes; 32] = Default::default();
    while let Some(count) = receive.read_chunks(&mut pieces).await? {
        send.write_all_chunks(&mut pieces[..count]).await?;
    }
    Ok(())
}

/// As `net/src/transport.rs` has it.
fn transport(streams_max: u32) -> TransportConfig {
    let mut config = TransportConfig::default();
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(UDP_PAYLOAD_BYTES_MAX);
    config
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .max_concurrent_bidi_streams(VarInt::from_u32(streams_max))
        .stream_receive_window(VarInt::from_u32(1 << 20))
        .receive_window(VarInt::from_u32(2 << 20))
        .send_window(2 << 20)
        .send_fairness(false)
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(Some(VarInt::from_u32(10_000).into()))
        .mtu_discovery_config(Some(discovery));
    config
}

fn endpoint_config() -> Result<EndpointConfig> {
    let mut config = EndpointConfig::default();
    config.max_udp_payload_size(UDP_PAYLOAD_BYTES_MAX)?;
    Ok(config)
}

fn socket() -> Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    // As far as the system grants it, as in Kami.
    let _ = socket.set_recv_buffer_size(4 << 20);
    let _ = socket.set_send_buffer_size(4 << 20);
    socket.bind(&any_port().into())?;
    Ok(socket.into())
}

fn provider() -> CryptoProvider {
    use aws_lc_rs::cipher_suite::{TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384};
    let cipher_suites = vec![TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384];
    CryptoProvider { cipher_suites, ..aws_lc_rs::default_provider() }
}

type Tls = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>, rustls::RootCertStore);

/// An identity as Kami stores it.
fn identity(directory: &Path) -> Result<Tls> {
    let chain = CertificateDer::pem_file_iter(directory.join("cert.pem"))?.collect::<Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_file(directory.join("key.pem"))?;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(directory.join("ca.pem"))?)?;
    Ok((chain, key, roots))
}
