//! A crowd of hostile peers around a server that people trade on: every honest command is answered, and the
//! server's memory stays within bounds.
//!
//! `KAMI_HOSTILE` says how many peers; 100 unless told otherwise, 1,000 in a campaign.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use kami_engine::RequestId;
use kami_net::client::RedeemOptions;
use kami_net::frame::request::OneCard;
use kami_net::frame::{Opcode, Request, RequestHead, Secret};
use kami_net::{Authority, Client};
use quinn::crypto::rustls::QuicClientConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::UdpSocket;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::store::{ADMIN, Home, Server};

/// Each kind of peer, by turns.
const KINDS: usize = 8;
/// Enrolled principals that are out to do harm; the others have no certificate or no key of ours.
const EVIL: usize = 4;
const HONEST: usize = 8;
const HONEST_CARDS: usize = 50;

/// What the server may hold beside what it held before, whoever does what: see the limits of `kami-net`.
/// A crowd of a thousand is far from the worst there.
const RSS_MIB_MAX: u64 = 512;

struct Crowd {
    server: SocketAddr,
    /// Of each evil principal, then one of another authority.
    configs: Vec<quinn::ClientConfig>,
    /// Without a certificate.
    nobody: quinn::ClientConfig,
    stop: AtomicBool,
    /// Rounds that the peers made: the crowd did something.
    rounds: [AtomicU64; KINDS],
    /// How many of each kind are two each.
    enough: u64,
    /// Told when a kind of peer has made so many.
    at_work: Notify,
}

fn config(directory: Option<&Path>, authority: &Path) -> quinn::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority.join("ca.pem")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match directory {
        Some(directory) => {
            let certificate = CertificateDer::from_pem_file(directory.join("cert.pem")).unwrap();
            let key = PrivateKeyDer::from_pem_file(directory.join("key.pem")).unwrap();
            builder.with_client_auth_cert(vec![certificate], key).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"kami/1".to_vec()];
    config.enable_early_data = true;
    quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).unwrap()))
}

/// Peers come from several addresses, as many from each as the server lets in.
fn address(peer: usize) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 1, 1 + (peer % 16) as u8)), 0)
}

fn frame(opcode: Opcode, request: &Request<'_>) -> Vec<u8> {
    let mut out = bytes::BytesMut::new();
    request.encode(&RequestHead::new(opcode, RequestId::random()), &mut out).unwrap();
    out.to_vec()
}

impl Crowd {
    fn goes_on(&self, kind: usize) -> bool {
        if self.rounds[kind].fetch_add(1, Ordering::Relaxed) + 1 == self.enough {
            self.at_work.notify_one();
        }
        !self.stop.load(Ordering::Relaxed)
    }

    /// One peer's evil deeds until told to stop.
    async fn peer(self: Arc<Self>, peer: usize) {
        let kind = peer % KINDS;
        let own = self.configs[peer / KINDS % EVIL].clone();
        let endpoint = quinn::Endpoint::client(address(peer)).unwrap();
        while self.goes_on(kind) {
            let begun = match kind {
                0..=3 => endpoint.connect_with(own.clone(), self.server, "localhost"),
                4 => endpoint.connect_with(self.nobody.clone(), self.server, "localhost"),
                5 => endpoint.connect_with(self.configs[EVIL].clone(), self.server, "localhost"),
                6 => {
                    self.half_open(&endpoint, peer).await;
                    continue;
                }
                _ => {
                    self.noise(peer).await;
                    continue;
                }
            };
            if let Ok(Ok(connection)) = timeout(Duration::from_secs(10), begun.unwrap()).await {
                let deed = async {
                    match kind {
                        0 => self.read_nothing(&connection).await,
                        1 => self.cut_short(&connection).await,
                        2 => self.lie_about_length(&connection).await,
                        3 => self.guess(&connection).await,
                        _ => drop(connection.closed().await),
                    }
                };
                deed.await;
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Asks and asks, and takes no reply.
    async fn read_nothing(&self, connection: &quinn::Connection) {
        let pings: Vec<u8> = (0..1000).flat_map(|_| frame(Opcode::Ping, &Request::Ping)).collect();
        let mut streams = Vec::new();
        for _ in 0..4 {
            let Ok(Ok(stream)) = timeout(Duration::from_millis(200), connection.open_bi()).await else {
                break;
            };
            streams.push(stream);
        }
        while self.goes_on(0) {
            for (send, _) in &mut streams {
                if let Ok(Err(_)) = timeout(Duration::from_millis(100), send.write_all(&pings)).await {
                    return;
                }
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Fills every stream with the better part of a long frame.
    async fn cut_short(&self, connection: &quinn::Connection) {
        let mut part = frame(Opcode::Ping, &Request::Ping);
        part[..4].copy_from_slice(&(128_u32 << 10).to_le_bytes());
        part[6..8].copy_from_slice(&Opcode::RedeemBatch.number().to_le_bytes());
        part.resize(120 << 10, 7);
        let mut streams = Vec::new();
        while let Ok(Ok((mut send, recv))) = timeout(Duration::from_millis(200), connection.open_bi()).await {
            let _ = timeout(Duration::from_millis(200), send.write_all(&part)).await;
            streams.push((send, recv));
        }
        while self.goes_on(1) && connection.close_reason().is_none() {
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Frames of four thousand million bytes, of none, of another version.
    async fn lie_about_length(&self, connection: &quinn::Connection) {
        while self.goes_on(2) {
            let Ok(Ok((mut send, mut recv))) =
                timeout(Duration::from_millis(500), connection.open_bi()).await
            else {
                return;
            };
            let mut bad = frame(Opcode::Ping, &Request::Ping);
            let lies = [u32::MAX, 0, 39, 1 << 20, 100_000];
            bad[..4].copy_from_slice(&lies[RequestId::random().0 as usize % lies.len()].to_le_bytes());
            let _ = send.write_all(&bad).await;
            let _ = send.finish();
            let _ = timeout(Duration::from_millis(500), recv.read_to_end(4096)).await;
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Tries codes as fast as they are answered.
    async fn guess(&self, connection: &quinn::Connection) {
        let Ok((mut send, mut recv)) = connection.open_bi().await else { return };
        while self.goes_on(3) {
            let guesses = (0..64).flat_map(|_| {
                let code = format!("{:032x}", RequestId::random().0);
                frame(Opcode::Query, &Request::Query(OneCard { code: Secret(code.as_bytes()) }))
            });
            if send.write_all(&guesses.collect::<Vec<u8>>()).await.is_err()
                || timeout(Duration::from_secs(5), recv.read_chunk(1 << 16, true)).await.is_err()
            {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// The first packets of handshakes that never go on: taken from a real client, which talks to a socket of
    /// ours.
    async fn half_open(&self, endpoint: &quinn::Endpoint, peer: usize) {
        let ours = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let begun = endpoint.connect_with(self.nobody.clone(), ours.local_addr().unwrap(), "localhost");
        let mut packet = vec![0; 2048];
        let Ok(Ok(length)) = timeout(Duration::from_secs(1), ours.recv(&mut packet)).await else { return };
        let socket = UdpSocket::bind(address(peer)).await.unwrap();
        let _ = socket.send_to(&packet[..length], self.server).await;
        drop(begun);
        sleep(Duration::from_millis(20)).await;
    }

    /// Datagrams that look like QUIC and are not.
    async fn noise(&self, peer: usize) {
        let socket = UdpSocket::bind(address(peer)).await.unwrap();
        for _ in 0..16 {
            let mut packet: Vec<u8> = (0..75).flat_map(|_| RequestId::random().0.to_le_bytes()).collect();
            packet[0] |= 0x40;
            if packet[1] & 1 == 0 {
                packet[0] |= 0x80;
                packet[1..6].copy_from_slice(&[0, 0, 0, 1, 8]);
            }
            let _ = socket.send_to(&packet, self.server).await;
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// Resident memory that no file backs, in MiB.
fn rss_mib(server: &Server<'_>) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

#[test]
fn honest_tills_are_served_in_a_hostile_crowd() {
    let hostile: usize = std::env::var("KAMI_HOSTILE").map_or(100, |number| number.parse().unwrap());
    let home = Home::new();
    let server = home.serve();
    let cards = HONEST * HONEST_CARDS;
    server.stock("tea", "5", (0..cards).map(|n| format!("TEA-{n:09}\n")).collect::<String>());
    server.json(&["sell", "tea", "--count", &cards.to_string(), "--order", "1"]);
    let mut configs = Vec::new();
    let ca = home.path("kami-data.keys/ca");
    for n in 0..EVIL {
        let name = format!("evil-{n}");
        server.json(&["principal", "add", &name, "--role", "redeemer", "--out", &name]);
        configs.push(config(Some(&home.path(&name)), &ca));
    }
    let elsewhere = home.path("elsewhere");
    Authority::create(&elsewhere).unwrap().issue("stranger").unwrap().save(&home.path("stranger")).unwrap();
    configs.push(config(Some(&home.path("stranger")), &ca));
    for n in 0..HONEST {
        let name = format!("till-{n}");
        server.json(&["principal", "add", &name, "--role", "redeemer", "--out", &name]);
    }
    let before = rss_mib(&server);

    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (most, slowest, stats) = runtime.block_on(async {
        let crowd = Arc::new(Crowd {
            server: server.address,
            configs,
            nobody: config(None, &ca),
            stop: AtomicBool::new(false),
            rounds: Default::default(),
            enough: 2 * (hostile / KINDS) as u64,
            at_work: Notify::new(),
        });
        let mut peers = JoinSet::new();
        (0..hostile).for_each(|peer| drop(peers.spawn(Arc::clone(&crowd).peer(peer))));
        // Trade begins when every kind of peer is at work.
        while crowd.rounds.iter().any(|rounds| rounds.load(Ordering::Relaxed) < crowd.enough) {
            crowd.at_work.notified().await;
        }
        let mut tills = JoinSet::new();
        for n in 0..HONEST {
            let options = server.options(&format!("till-{n}"));
            tills.spawn(async move {
                let client = Client::connect(options).await.unwrap();
                let mut slowest = Duration::ZERO;
                for card in 0..HONEST_CARDS {
                    let code = format!("TEA-{:09}", n * HONEST_CARDS + card);
                    let begin = std::time::Instant::now();
                    client.redeem(code.as_bytes(), RedeemOptions::default()).await.unwrap();
                    slowest = slowest.max(begin.elapsed());
                }
                client.close().await;
                slowest
            });
        }
        let (mut most, mut slowest) = (0, Duration::ZERO);
        while !tills.is_empty() {
            most = most.max(rss_mib(&server));
            let ended = timeout(Duration::from_millis(100), tills.join_next()).await;
            if let Ok(Some(till)) = ended {
                slowest = slowest.max(till.expect("every honest command is answered"));
            }
        }
        most = most.max(rss_mib(&server));
        let admin = Client::connect(server.options(ADMIN)).await.unwrap();
        let stats = admin.stats().await.unwrap().value;
        admin.close().await;
        crowd.stop.store(true, Ordering::Relaxed);
        peers.shutdown().await;
        (most, slowest, stats)
    });
    println!(
        "hostile {hostile}, honest commands answered {cards}, slowest {} ms, wrong codes {}, turned away {}, \
         anonymous memory before {before} MiB, at most {most} MiB",
        slowest.as_millis(),
        stats.misses,
        stats.rate_limited,
    );
    assert!(most < before + RSS_MIB_MAX, "{before} MiB became {most} MiB");
    if hostile >= KINDS {
        assert!(stats.rate_limited > 0, "the guessers met their budgets");
        // Four principals with a hundred at once, what ten minutes bring, and what threads decide together.
        assert!(stats.misses < 4 * 100 * 8, "{}", stats.misses);
    }
    server.kill();
}
