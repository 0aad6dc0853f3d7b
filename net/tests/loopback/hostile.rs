//! Peers that break the rules: what each gets for it, and that others are served meanwhile.

use std::sync::Arc;
use std::time::Duration;

use kami_engine::{Confirmation, OrderId, ProductSpec, Purchase, RequestId, Status};
use kami_net::client::{Delivery, RedeemOptions};
use kami_net::frame::reply::{self, Answer};
use kami_net::frame::request::OrderFetch;
use kami_net::frame::{
    Body, CloseCode, FRAME_BYTES_MAX, Opcode, REPLY_HEAD_BYTES, REQUEST_HEAD_BYTES, ReplyHead, Request,
    RequestHead, Secret, Split, Splitter, Welcome,
};
use kami_net::{Authority, Client, ClientError, ClientOptions, Identity, Refusal};
use kami_wal::Drive;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{Connection, ConnectionError, RecvStream, SendStream};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use time::OffsetDateTime;
use tokio::net::UdpSocket;
use tokio::time::{sleep, timeout};

use crate::house::{House, import_codes, much_used, sold};

pub const SOON: Duration = Duration::from_secs(5);

/// A peer that speaks QUIC and writes whatever it likes.
pub async fn raw(
    house: &House,
    identity: Option<&Identity>,
    alpn: &[u8],
) -> Result<Connection, ConnectionError> {
    let dir = house.dir().join(format!("{:032x}", RequestId::random().0));
    house.admin.save(&dir).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(dir.join("ca.pem")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match identity {
        Some(identity) => {
            let dir = dir.join("own");
            identity.save(&dir).unwrap();
            let certificate = CertificateDer::from_pem_file(dir.join("cert.pem")).unwrap();
            let key = PrivateKeyDer::from_pem_file(dir.join("key.pem")).unwrap();
            config.with_client_auth_cert(vec![certificate], key).unwrap()
        }
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).unwrap()));
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = house.server.local_addr().unwrap();
    let connecting = endpoint.connect_with(config, address, "127.0.0.1").unwrap();
    let connection = connecting.await?;
    // The endpoint lives as long as its connection does.
    std::mem::forget(endpoint);
    Ok(connection)
}

/// A replayed first flight would be a replayed sale: no peer gets what it takes to send one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn early_data_is_not_accepted() {
    let house = House::open().await;
    let mut roots = rustls::RootCertStore::empty();
    let dir = house.dir().join("early");
    house.admin.save(&dir).unwrap();
    roots.add(CertificateDer::from_pem_file(dir.join("ca.pem")).unwrap()).unwrap();
    let certificate = CertificateDer::from_pem_file(dir.join("cert.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(dir.join("key.pem")).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![certificate], key)
        .unwrap();
    config.alpn_protocols = vec![b"kami/1".to_vec()];
    config.enable_early_data = true;
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).unwrap()));
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = house.server.local_addr().unwrap();
    for _ in 0..3 {
        let connecting = endpoint.connect_with(config.clone(), address, "127.0.0.1").unwrap();
        let connection = match connecting.into_0rtt() {
            Err(connecting) => connecting.await.unwrap(),
            Ok(_) => panic!("the server gave what it takes to send early data"),
        };
        // A ticket would have come with or before the reply.
        let (_, _send, _recv) = send(&connection, &ping(7)).await;
        connection.close(0_u32.into(), b"");
    }
    endpoint.wait_idle().await;
    house.shut_down().await;
}

pub fn frame(head: &RequestHead, request: &Request<'_>) -> Vec<u8> {
    let mut out = bytes::BytesMut::new();
    request.encode(head, &mut out).unwrap();
    out.to_vec()
}

pub fn ping(id: u128) -> Vec<u8> {
    frame(&RequestHead::new(Opcode::Ping, RequestId(id)), &Request::Ping)
}

/// Reads until the stream ends or so many replies came.
pub async fn answers(recv: &mut RecvStream, count: usize) -> Vec<Answer> {
    let mut splitter = Splitter::new(REPLY_HEAD_BYTES);
    let mut answers = Vec::new();
    while answers.len() < count {
        let chunk = timeout(SOON, recv.read_chunk(1 << 16, true)).await.expect("a reply in time").unwrap();
        let Some(chunk) = chunk else { break };
        let mut piece: &[u8] = &chunk.bytes;
        while let Ok(Split::Frame(frame)) = splitter.next(&mut piece, |_| FRAME_BYTES_MAX) {
            answers.push(Answer::decode(frame).unwrap());
        }
    }
    answers
}

/// Sends bytes and a ping behind them; the answers to both.
pub async fn send(connection: &Connection, bytes: &[u8]) -> (Vec<Answer>, SendStream, RecvStream) {
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    let mut all = bytes.to_vec();
    all.extend_from_slice(&ping(99));
    send.write_all(&all).await.unwrap();
    let answers = answers(&mut recv, 2).await;
    (answers, send, recv)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn well_framed_nonsense_is_answered_and_the_stream_goes_on() {
    let house = House::open().await;
    let connection = raw(&house, Some(&house.admin), b"kami/1").await.unwrap();
    let head = RequestHead::new(Opcode::Query, RequestId(1));
    let good = frame(&head, &Request::Query(kami_net::frame::request::OneCard { code: Secret(b"CARD") }));

    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = good.clone();
        change(&mut frame);
        let length = frame.len() as u32;
        frame[..4].copy_from_slice(&length.to_le_bytes());
        frame
    };
    let later = Opcode::ReadOnly.number().to_le_bytes();
    let batch = Opcode::RedeemBatch.number().to_le_bytes();
    let import = Opcode::ImportChunk.number().to_le_bytes();
    let cases: Vec<(&str, Vec<u8>, Status)> = vec![
        ("an opcode nobody assigned", with(&|f| f[6..8].fill(0xee)), Status::Unsupported),
        ("an opcode of later versions", with(&|f| f[6..8].copy_from_slice(&later)), Status::Unsupported),
        ("a body too short", with(&|f| f.truncate(f.len() - 1)), Status::Malformed),
        ("a body too long", with(&|f| f.push(0)), Status::Malformed),
        ("a reserved field", with(&|f| f[36] = 1), Status::Malformed),
        ("an unassigned flag", with(&|f| f[5] = 2), Status::Malformed),
        ("a flag of another command", with(&|f| f[5] = 1), Status::Malformed),
        ("an id of zero", with(&|f| f[8..24].fill(0)), Status::Malformed),
        (
            "all or nothing, which is not there yet",
            with(&|f| {
                f[5] = 1;
                f[6..8].copy_from_slice(&batch);
            }),
            Status::Unsupported,
        ),
        ("longer than its command may be", with(&|f| f.resize(5000, 0)), Status::TooLarge),
        ("much longer", with(&|f| f.resize(FRAME_BYTES_MAX, 0)), Status::TooLarge),
        (
            "a chunk that lies about its rows",
            with(&|f| {
                f[6..8].copy_from_slice(&import);
                f.resize(200_000, 0xff);
            }),
            Status::Malformed,
        ),
    ];
    for (what, bytes, status) in cases {
        let (answers, _send, _recv) = send(&connection, &bytes).await;
        assert_eq!(answers.len(), 2, "{what}");
        assert_eq!(answers[0].head.status, status, "{what}");
        assert_eq!(answers[0].head.opcode.to_le_bytes(), bytes[6..8], "{what}");
        if status == Status::Malformed {
            assert!(matches!(answers[0].body, Body::Reason(_)), "{what}");
        }
        assert_eq!((answers[1].head.status, answers[1].head.request), (Status::Ok, RequestId(99)), "{what}");
    }
    house.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_length_ends_the_stream_and_nothing_else() {
    let house = House::open().await;
    let connection = raw(&house, Some(&house.admin), b"kami/1").await.unwrap();
    let cases: Vec<(&str, usize, [u8; 4], Status, CloseCode)> = vec![
        ("too long", 0, (FRAME_BYTES_MAX as u32 + 1).to_le_bytes(), Status::TooLarge, CloseCode::TooLarge),
        ("four thousand million", 0, [0xff; 4], Status::TooLarge, CloseCode::TooLarge),
        ("too short", 0, 39_u32.to_le_bytes(), Status::Malformed, CloseCode::Malformed),
        ("nothing", 0, [0; 4], Status::Malformed, CloseCode::Malformed),
        ("another version", 4, [2, 0, 2, 0], Status::Unsupported, CloseCode::Unsupported),
    ];
    for (what, at, value, status, code) in cases {
        let mut bytes = ping(7);
        bytes[at..at + 4].copy_from_slice(&value);
        let (mut answers, send, mut recv) = send(&connection, &[ping(6), bytes].concat()).await;
        assert_eq!(answers.len(), 2, "{what}");
        let last = answers.pop().unwrap();
        assert_eq!((last.head.status, last.head.request), (status, RequestId(7)), "{what}");
        assert_eq!(answers[0].head.request, RequestId(6), "what came before is answered: {what}");
        assert!(self::answers(&mut recv, 1).await.is_empty(), "the stream ends: {what}");
        let stopped = timeout(SOON, send.stopped()).await.unwrap().unwrap();
        assert_eq!(stopped.map(|code| code.into_inner()), Some(code.number().into()), "{what}");
    }
    // A stream that ends inside a frame.
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    send.write_all(&[ping(6), ping(7)[..20].to_vec()].concat()).await.unwrap();
    send.finish().unwrap();
    let answers = answers(&mut recv, 3).await;
    assert_eq!(answers.len(), 2);
    assert_eq!((answers[1].head.status, answers[1].head.request), (Status::Malformed, RequestId(0)));
    // The connection lives.
    let (answers, _send, _recv) = self::send(&connection, &ping(8)).await;
    assert_eq!(answers.len(), 2);
    house.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_stay_out() {
    let house = House::open().await;
    // A key that nobody enrolled.
    let unknown = house.authority.issue("unknown").unwrap();
    let refused = Client::connect(house.options(&unknown)).await;
    assert!(matches!(refused, Err(ClientError::Unauthenticated)), "{refused:?}");
    // Another authority: neither side trusts the other.
    let dir = tempfile::tempdir().unwrap();
    let other = Authority::create(dir.path()).unwrap();
    let stranger = other.issue("stranger").unwrap();
    house.enrol("stranger", kami_engine::Role::Admin, &stranger);
    let refused = Client::connect(house.options(&stranger)).await;
    assert!(matches!(refused, Err(ClientError::Untrusted { .. })), "{refused:?}");
    // It trusts us, we do not trust it, though its key is enrolled.
    // (Authorities have one name, so it is the signature that does not fit.)
    assert_eq!(refusal(raw(&house, Some(&stranger), b"kami/1").await).await, Refused::ByTls(DECRYPT_ERROR));
    // No certificate, a server's certificate, another protocol: all are refused by TLS itself, before a
    // stream or a principal is looked at.
    assert_eq!(refusal(raw(&house, None, b"kami/1").await).await, Refused::ByTls(CERTIFICATE_REQUIRED));
    let server = house.authority.issue_server(&[]).unwrap();
    house.enrol("server", kami_engine::Role::Admin, &server);
    let refused = refusal(raw(&house, Some(&server), b"kami/1").await).await;
    assert!(matches!(refused, Refused::ByTls(_)), "{refused:?}");
    let refused = refusal(raw(&house, Some(&house.admin), b"h3").await).await;
    assert_eq!(refused, Refused::ByTls(NO_APPLICATION_PROTOCOL));
    let expired = house.identity_until("expired", OffsetDateTime::now_utc() - Duration::from_secs(3600));
    house.enrol("expired", kami_engine::Role::Admin, &expired);
    let refused = refusal(raw(&house, Some(&expired), b"kami/1").await).await;
    assert_eq!(refused, Refused::ByTls(CERTIFICATE_EXPIRED));
    // The right chain and no principal is refused by us, with the code that says so.
    let refused = refusal(raw(&house, Some(&unknown), b"kami/1").await).await;
    assert_eq!(refused, Refused::ByKami(CloseCode::Unauthenticated));
    // Another name than the server's certificate carries.
    let mut options = house.options(&house.admin);
    options.server_name = "elsewhere".to_owned();
    assert!(matches!(Client::connect(options).await, Err(ClientError::Untrusted { .. })));
    // Others are served.
    house.client().await.stats().await.unwrap();
    house.shut_down().await;
}

/// TLS alerts.
const DECRYPT_ERROR: u64 = 51;
const CERTIFICATE_EXPIRED: u64 = 45;
const CERTIFICATE_REQUIRED: u64 = 116;
const NO_APPLICATION_PROTOCOL: u64 = 120;

#[derive(Debug, PartialEq)]
enum Refused {
    /// By an alert of the handshake.
    ByTls(u64),
    /// By a code of the protocol's own.
    ByKami(CloseCode),
}

/// How a connection was refused. In TLS 1.3 a client learns after its own handshake that it was.
async fn refusal(connected: Result<Connection, ConnectionError>) -> Refused {
    let error = match connected {
        Err(error) => error,
        Ok(connection) => timeout(SOON, connection.closed()).await.expect("refused in time"),
    };
    match &error {
        ConnectionError::ConnectionClosed(close) => Refused::ByTls(u64::from(close.error_code) - 0x100),
        ConnectionError::ApplicationClosed(close) => {
            Refused::ByKami(CloseCode::from_number(close.error_code.into_inner()).unwrap())
        }
        _ => panic!("{error}"),
    }
}

/// Replies that nobody takes are not kept for good.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_takes_nothing_is_ended() {
    let house = House::with(Drive::Threads, |options| options.stall = Duration::from_millis(500)).await;
    let connection = raw(&house, Some(&house.admin), b"kami/1").await.unwrap();
    let (mut send, _recv) = connection.open_bi().await.unwrap();
    let pings: Vec<u8> = (1..=1000).flat_map(ping).collect();
    let reason = timeout(2 * SOON, async {
        while send.write_all(&pings).await.is_ok() {}
        connection.closed().await
    });
    let ConnectionError::ApplicationClosed(close) = reason.await.unwrap() else { panic!("closed otherwise") };
    assert_eq!(CloseCode::from_number(close.error_code.into_inner()), Some(CloseCode::TooSlow));
    house.client().await.stats().await.unwrap();
    house.shut_down().await;
}

/// A peer that sends and never reads is stopped; it costs a bounded amount and nobody else notices.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_is_stopped_and_others_are_served() {
    let house = House::open().await;
    let other = house.client().await;
    let codes = sold(&other, 100).await;
    let connection = raw(&house, Some(&house.admin), b"kami/1").await.unwrap();
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    // 40 MB of pings, whose replies are larger than they are.
    let pings: Vec<u8> = (1..=1000).flat_map(ping).collect();
    let mut written = 0;
    while written < 1000 {
        match timeout(Duration::from_millis(300), send.write_all(&pings)).await {
            Ok(written_all) => written_all.unwrap(),
            Err(_) => break,
        }
        written += 1;
    }
    // The windows of both directions and the outbox: some 5 MB.
    assert!(written < 200, "{written} MB/25 were taken from a peer that reads nothing");
    for code in &codes {
        timeout(Duration::from_secs(1), other.redeem(code, RedeemOptions::default())).await.unwrap().unwrap();
    }
    // When it reads at last, everything is there.
    let answers = answers(&mut recv, written * 1000).await;
    assert_eq!(answers.len() / 1000, written);
    for (n, answer) in answers.iter().enumerate() {
        assert_eq!(answer.head.request.0, (n % 1000) as u128 + 1);
    }
    house.shut_down().await;
}

/// The largest value of a figure until it has moved no more for a while. What comes later is not seen, so a busy machine
/// finds too little, never too much.
async fn most(figure: impl Fn() -> u64) -> u64 {
    let (mut most, mut last, mut still) = (0, 0, 0);
    while still < 50 {
        sleep(Duration::from_millis(10)).await;
        let now = figure();
        still = if now == last { still + 1 } else { 0 };
        (last, most) = (now, most.max(now));
    }
    most
}

/// 64 commands of a few bytes had the codes of 64 replies decrypted at once, up to 1 MiB each, and kept them for a peer that
/// took none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn codes_are_not_decrypted_for_a_peer_that_takes_none() {
    const CARDS: usize = 4000;
    let house = House::open().await;
    let client = house.client().await;
    let product = client.product_add(ProductSpec::single("coffee", *b"CNY", 2000)).await.unwrap().value.id;
    let codes = (0..CARDS).map(|n| format!("KAMI-{n:0115}").into_bytes()).collect();
    import_codes(&client, product, codes).await;
    client.reserve(Purchase::of(OrderId(1), product, CARDS as u32), None).await.unwrap();
    let confirmation = Confirmation { order: OrderId(1), legs: Vec::new(), realloc: false, sealed: false };
    let paid = RequestId(7);
    let Delivery::Codes(sold) = client.confirm(confirmation.clone(), Some(paid)).await.unwrap().value else {
        panic!("the codes were asked for");
    };
    assert_eq!(sold.cards.len(), CARDS);

    // What says how many it wants, and what does not.
    let fetch = Request::OrderFetch(OrderFetch { order: OrderId(1), from: 0, count: CARDS as u32 });
    let fetches = (1..=64).map(|id| frame(&RequestHead::new(Opcode::OrderFetch, RequestId(id)), &fetch));
    let confirm = frame(&RequestHead::new(Opcode::Confirm, paid), &Request::Confirm(Box::new(confirmation)));
    let retries = vec![confirm; 64];
    let connection = raw(&house, Some(&house.admin), b"kami/1").await.unwrap();
    let mut streams = Vec::new();
    for requests in [fetches.collect::<Vec<_>>().concat(), retries.concat()] {
        let (mut send, recv) = connection.open_bi().await.unwrap();
        send.write_all(&requests).await.unwrap();
        streams.push((send, recv));
    }
    let held = most(|| house.server.figures().clear_codes_bytes).await as usize;
    // A stream's bound and one reply, what QUIC has of a reply that it has not taken whole, and its window.
    let reply = REPLY_HEAD_BYTES + 12 + CARDS * (8 + 1 + 120);
    let bound = 2 * ((512 << 10) + 2 * reply) + (2 << 20);
    assert!(held >= reply, "{held} bytes are in the clear: those of nothing");
    assert!(
        held <= bound,
        "{held} bytes are in the clear for two streams of a peer that takes none; at most {bound}"
    );

    // When it reads at last, everything is there.
    for (nth, (_send, recv)) in streams.iter_mut().enumerate() {
        let answers = answers(recv, 64).await;
        assert_eq!(answers.len(), 64);
        for (answer, id) in answers.iter().zip(1..) {
            let id = if nth == 0 { RequestId(id) } else { paid };
            assert_eq!((answer.head.request, answer.head.status), (id, Status::Ok));
            let Body::Codes(codes) = &answer.body else { panic!("not codes: {:?}", answer.head) };
            assert!((codes.total, codes.from) == (CARDS as u32, 0) && codes.cards == sold.cards);
        }
    }
    let kept = || house.server.figures();
    while (kept().clear_codes_bytes, kept().waiting_reply_bytes) != (0, 0) {
        sleep(Duration::from_millis(10)).await;
    }
    house.shut_down().await;
}

/// So were 64 lists made and kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_are_not_made_for_a_peer_that_takes_none() {
    let house = House::open().await;
    let client = house.client().await;
    let code = much_used(&house, &client, 1000).await;
    let history = Request::History(kami_net::frame::request::OneCard { code: Secret(&code) });
    let requests = (1..=64).map(|id| frame(&RequestHead::new(Opcode::History, RequestId(id)), &history));
    let connection = raw(&house, Some(&house.admin), b"kami/1").await.unwrap();
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    send.write_all(&requests.collect::<Vec<_>>().concat()).await.unwrap();
    let held = most(|| house.server.figures().waiting_reply_bytes).await;
    let answers = answers(&mut recv, 64).await;
    assert_eq!(answers.len(), 64);
    for (answer, id) in answers.iter().zip(1..) {
        assert_eq!((answer.head.request, answer.head.status), (RequestId(id), Status::Ok));
        let Body::History(events) = &answer.body else { panic!("{:?}", answer.head) };
        assert_eq!(events.rows.len(), 1002, "its import, its sale and its redemptions");
    }
    let mut reply = bytes::BytesMut::new();
    reply::encode(&answers[0].head, &answers[0].body, &mut reply);
    let bound = (512 << 10) + reply.len() as u64;
    assert!(held <= bound, "{held} bytes wait for a peer that takes none; at most {bound}");
    house.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_are_many_and_bounded() {
    let house = House::open().await;
    let connection = raw(&house, Some(&house.admin), b"kami/1").await.unwrap();
    assert!(timeout(Duration::from_millis(300), connection.open_uni()).await.is_err(), "no such streams");
    let mut streams = Vec::new();
    for n in 1..=32 {
        let (mut send, mut recv) = connection.open_bi().await.unwrap();
        send.write_all(&ping(n)).await.unwrap();
        assert_eq!(answers(&mut recv, 1).await[0].head.request, RequestId(n));
        streams.push((send, recv));
    }
    assert!(timeout(Duration::from_millis(300), connection.open_bi()).await.is_err(), "a stream too many");
    streams.clear();
    // One request and the end, many times over.
    for n in 1..=500 {
        let (mut send, mut recv) = timeout(SOON, connection.open_bi()).await.unwrap().unwrap();
        send.write_all(&ping(n)).await.unwrap();
        send.finish().unwrap();
        let answers = answers(&mut recv, 2).await;
        assert_eq!((answers.len(), answers[0].head.request), (1, RequestId(n)));
    }
    assert!(connection.max_datagram_size().is_none(), "datagrams are off");
    house.shut_down().await;
}

/// Frames one byte at a time are frames all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dripping_peer_is_understood() {
    let house = House::open().await;
    let connection = raw(&house, Some(&house.admin), b"kami/1").await.unwrap();
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    for byte in [ping(1), ping(2)].concat() {
        send.write_all(&[byte]).await.unwrap();
        sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(answers(&mut recv, 2).await.len(), 2);
    house.shut_down().await;
}

/// The first packet of a handshake that never goes on: a real client's, which talks to a socket of ours.
async fn half_open(house: &House) -> UdpSocket {
    let ours = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut options = house.options(&house.admin);
    options.server = ours.local_addr().unwrap();
    let client = tokio::spawn(Client::connect(options));
    let mut packet = vec![0; 65_536];
    let length = timeout(SOON, ours.recv(&mut packet)).await.unwrap().unwrap();
    client.abort();
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(&packet[..length], house.server.local_addr().unwrap()).await.unwrap();
    socket
}

fn refused(house: &House, reason: Refusal) -> u64 {
    let refused = house.server.figures().refused;
    refused.iter().find(|(known, _)| *known == reason).unwrap().1
}

/// Handshakes took the places of connections: as many as there are, once begun and left, kept everybody out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshakes_that_never_end_take_no_place_of_a_connection() {
    let house = House::with(Drive::Threads, |options| {
        options.connections_max = 2;
        options.handshakes_max = 3;
        options.handshakes_per_address_max = 2;
    })
    .await;
    let client = house.client().await;
    let mut begun = Vec::new();
    for _ in 0..6 {
        begun.push(half_open(&house).await);
        // It hears the server's part of the handshake.
        timeout(SOON, begun.last().unwrap().readable()).await.unwrap().unwrap();
    }
    assert_eq!(house.server.connection_count(), 1 + 2, "of one address no more than its share");
    client.stats().await.expect("whoever is connected goes on");
    timeout(AT_ONCE, house.client()).await.expect("a place of a connection is left").stats().await.unwrap();
    assert_eq!((refused(&house, Refusal::Address), refused(&house, Refusal::Full)), (0, 0));
    drop(begun);
    house.shut_down().await;
}

/// Well below the time for a handshake.
const AT_ONCE: Duration = Duration::from_secs(2);

/// A handshake kept its place until its time was over, so that a stranger who began some and fell silent kept everybody
/// out: 26 a second of four addresses were enough.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_handshakes_keep_nobody_from_connecting() {
    let house = House::with(Drive::Threads, |options| options.handshakes_max = 3).await;
    let mut begun = Vec::new();
    for _ in 0..9 {
        begun.push(half_open(&house).await);
        timeout(SOON, begun.last().unwrap().readable()).await.unwrap().unwrap();
    }
    assert_eq!(house.server.connection_count(), 3, "no more at a time than there may be");
    let client = timeout(AT_ONCE, house.client()).await.expect("the oldest handshake gives way");
    client.stats().await.unwrap();
    // Of nine and the client's own three kept their place, and the others ended when they lost it.
    timeout(AT_ONCE, async {
        while refused(&house, Refusal::Handshake) < 7 {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("whatever gave its place up ends at once");
    assert_eq!((house.server.connection_count(), refused(&house, Refusal::Handshake)), (1 + 2, 7));
    drop(begun);
    house.shut_down().await;
}

/// Takes the first request for lost, and answers the second, over another connection, UNAUTHENTICATED: as a
/// server does that redeems, dies before its reply leaves, and comes back to a revoked principal.
async fn loses_and_refuses(endpoint: quinn::Endpoint) {
    for attempt in 0..2 {
        let connection = endpoint.accept().await.unwrap().await.unwrap();
        let (mut send, mut recv) = connection.accept_bi().await.unwrap();
        let (mut splitter, mut input) = (Splitter::new(REQUEST_HEAD_BYTES), Vec::new());
        'frames: loop {
            let chunk = recv.read_chunk(1 << 16, true).await.unwrap().expect("the client goes on");
            input.extend_from_slice(&chunk.bytes);
            let mut rest = &input[..];
            while let Ok(Split::Frame(frame)) = splitter.next(&mut rest, |_| FRAME_BYTES_MAX) {
                let head = RequestHead::decode(frame).unwrap();
                let opcode = Opcode::from_number(head.opcode).unwrap();
                let (status, body) = match opcode {
                    Opcode::Hello => (Status::Ok, Body::Welcome(WELCOME)),
                    Opcode::Ping => (Status::Ok, Body::None),
                    _ if attempt == 0 => break 'frames,
                    _ => (Status::Unauthenticated, Body::None),
                };
                let mut out = bytes::BytesMut::new();
                reply::encode(&ReplyHead::local(&head, status), &body, &mut out);
                send.write_all(&out).await.unwrap();
                if status == Status::Unauthenticated {
                    drop(connection.closed().await);
                    return;
                }
            }
            input.clear();
        }
        connection.close(0_u32.into(), b"");
    }
}

const WELCOME: Welcome = Welcome {
    principal: kami_engine::PrincipalId(1),
    merchant: kami_engine::MerchantId(0),
    tenant: kami_engine::TenantId(0),
    role: kami_engine::Role::Redeemer,
    version_max: 1,
    frame_bytes_max: FRAME_BYTES_MAX as u32,
    streams_max: 8,
    items_max: 1,
};

/// UNAUTHENTICATED behind an attempt without a reply was told as if nothing had happened.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_behind_a_lost_reply_leaves_the_outcome_unknown() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::create(&dir.path().join("ca")).unwrap();
    let home = dir.path().join("server");
    authority.issue_server(&[]).unwrap().save(&home).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let certificate = CertificateDer::from_pem_file(home.join("cert.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(home.join("key.pem")).unwrap();
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    config.alpn_protocols = vec![b"kami/1".to_vec()];
    let config = QuicServerConfig::try_from(config).unwrap();
    let config = quinn::ServerConfig::with_crypto(Arc::new(config));
    let endpoint = quinn::Endpoint::server(config, "127.0.0.1:0".parse().unwrap()).unwrap();
    let options = ClientOptions::new(endpoint.local_addr().unwrap(), authority.issue("till").unwrap());
    let server = tokio::spawn(loses_and_refuses(endpoint));
    let client = Client::connect(options).await.unwrap();
    let id = RequestId::random();
    let options = RedeemOptions { request: Some(id), ..RedeemOptions::default() };
    let told = timeout(SOON, client.redeem(b"SOLD-0001", options)).await.unwrap();
    assert!(matches!(told, Err(ClientError::Unknown { request }) if request == id), "{told:?}");
    client.close().await;
    server.await.unwrap();
}
