//! A network that loses, doubles, delays and overtakes, and a router that forgets its ports: exactly once all the same.
//!
//! Between the client and the server stands a proxy of datagrams, decided by a seed as far as the threads' timing lets it.
//! `KAMI_SEEDS` sessions from `KAMI_SEED_FROM` on; 2 unless told otherwise.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kami_engine::record::Kind;
use kami_engine::{OrderId, RequestId, Status};
use kami_net::client::{RedeemOptions, SellOptions};
use kami_net::{Client, ClientError, ClientOptions};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use crate::house::{House, stock};

/// Of a hundred datagrams so many are lost, sent twice, and held back.
const LOST: u64 = 8;
const DOUBLED: u64 = 8;
const HELD: u64 = 15;
const HELD_MS_MAX: u64 = 40;
/// After so many datagrams the router forgets the client, and gives it another port; by the seed. The shorter one leaves
/// the server no time to make sure of an address before the next.
const FORGETS_AFTER: [u64; 2] = [60, 12];
/// Orders of three cards each.
const ORDERS: u64 = 10;

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// What happened to datagrams.
#[derive(Default)]
struct Fate {
    lost: AtomicU64,
    doubled: AtomicU64,
    held: AtomicU64,
    forgotten: AtomicU64,
}

async fn outward() -> Arc<UdpSocket> {
    Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap())
}

/// Sends a datagram as the network likes.
fn pass(
    datagram: &[u8],
    from: &Arc<UdpSocket>,
    to: SocketAddr,
    random: &mut Random,
    fate: &Fate,
    late: &mut JoinSet<()>,
) {
    if random.below(100) < LOST {
        fate.lost.fetch_add(1, Ordering::Relaxed);
        return;
    }
    let mut copies = 1;
    if random.below(100) < DOUBLED {
        fate.doubled.fetch_add(1, Ordering::Relaxed);
        copies = 2;
    }
    for _ in 0..copies {
        let (from, datagram) = (Arc::clone(from), datagram.to_vec());
        let held = random.below(100) < HELD;
        let wait = if held { 1 + random.below(HELD_MS_MAX) } else { 0 };
        fate.held.fetch_add(u64::from(held), Ordering::Relaxed);
        late.spawn(async move {
            if wait > 0 {
                tokio::time::sleep(Duration::from_millis(wait)).await;
            }
            // A datagram that cannot be sent is lost.
            let _ = from.send_to(&datagram, to).await;
        });
    }
}

/// Stands between one client and the server until it is aborted.
async fn proxy(inward: Arc<UdpSocket>, server: SocketAddr, seed: u64, fate: Arc<Fate>) {
    let (mut random, mut late) = (Random(seed), JoinSet::new());
    let (mut there, mut back) = ([0; 1 << 16], [0; 1 << 16]);
    let mut client = None;
    let mut socket = outward().await;
    let forgets_after = FORGETS_AFTER[(seed % 2) as usize];
    let mut datagrams = 0;
    loop {
        tokio::select! {
            received = inward.recv_from(&mut there) => {
                let Ok((length, from)) = received else { continue };
                client = Some(from);
                datagrams += 1;
                if datagrams % forgets_after == 0 {
                    // What is under way to the old port goes nowhere.
                    socket = outward().await;
                    fate.forgotten.fetch_add(1, Ordering::Relaxed);
                }
                pass(&there[..length], &socket, server, &mut random, &fate, &mut late);
            }
            received = socket.recv_from(&mut back) => {
                let (Ok((length, _)), Some(client)) = (received, client) else { continue };
                pass(&back[..length], &inward, client, &mut random, &fate, &mut late);
            }
        }
        while late.try_join_next().is_some() {}
    }
}

/// The outcome; `None` if none came.
fn outcome<T>(result: Result<T, ClientError>) -> Option<T> {
    match result {
        Ok(receipt) => Some(receipt),
        Err(ClientError::Unknown { .. } | ClientError::Unreachable { .. }) => None,
        Err(error) => panic!("{error}"),
    }
}

async fn session(house: &House, seed: u64, fate: &Arc<Fate>) {
    let inward = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let through = inward.local_addr().unwrap();
    let server = house.server.local_addr().unwrap();
    let between = tokio::spawn(proxy(inward, server, seed, Arc::clone(fate)));
    let product = kami_engine::ProductId(1);
    // Calls are given up soon, so that some are asked again by us and not by the connection.
    let options = ClientOptions {
        timeout: Duration::from_millis(400),
        connect_timeout: Duration::from_secs(2),
        ..ClientOptions::new(through, house.admin.clone())
    };
    let client = loop {
        match Client::connect(options.clone()).await {
            Ok(client) => break client,
            Err(ClientError::Unreachable { .. } | ClientError::Unknown { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    };
    let mut sold: HashMap<Vec<u8>, (OrderId, RequestId)> = HashMap::new();
    for number in 0..ORDERS {
        let (order, request) = (OrderId(u128::from(seed << 16 | number) + 1), RequestId::random());
        let bought = loop {
            let options = SellOptions { request: Some(request), ..SellOptions::default() };
            if let Some(bought) = outcome(client.sell(order, product, 3, options).await) {
                break bought;
            }
        };
        for card in bought.value.cards {
            let redeemed = RequestId::random();
            let mut lsn = None;
            // Twice even where the first was answered: a retry that was not needed is one, too.
            for _ in 0..2 {
                let receipt = loop {
                    let options = RedeemOptions { request: Some(redeemed), ..RedeemOptions::default() };
                    if let Some(receipt) = outcome(client.redeem(&card.code, options).await) {
                        break receipt;
                    }
                };
                assert!(receipt.lsn.is_some() && lsn.is_none_or(|first| first == receipt.lsn));
                lsn = Some(receipt.lsn);
            }
            assert_eq!(sold.insert(card.code.to_vec(), (order, redeemed)), None, "a card was sold twice");
        }
    }
    client.close().await;
    between.abort();
    // Asked on a network that is what it should be.
    let client = house.client().await;
    for (code, (order, request)) in sold {
        let history = client.history(&code).await.unwrap().value.rows;
        let of = |kind: Kind| history.iter().filter(|event| event.kind == kind).collect::<Vec<_>>();
        let (sales, redemptions) = (of(Kind::Sell), of(Kind::Redeem));
        assert!(sales.len() == 1 && sales[0].related == order.0, "{history:?}");
        assert!(redemptions.len() == 1 && redemptions[0].request == request, "{history:?}");
        let again = client.redeem(&code, RedeemOptions::default()).await.unwrap_err();
        assert!(matches!(again, ClientError::Refused { status: Status::AlreadyRedeemed, .. }), "{again}");
    }
    client.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_network_does_nothing_twice() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let (from, sessions) = match number("KAMI_SEED") {
        Some(seed) => (seed, 1),
        None => (number("KAMI_SEED_FROM").unwrap_or(0), number("KAMI_SEEDS").unwrap_or(2)),
    };
    let house = House::open().await;
    let client = house.client().await;
    stock(&client, "coffee", (sessions * ORDERS * 3) as usize).await;
    client.close().await;
    let fate = Arc::new(Fate::default());
    for seed in from..from + sessions {
        session(&house, seed, &fate).await;
    }
    let [lost, doubled, held, forgotten] =
        [&fate.lost, &fate.doubled, &fate.held, &fate.forgotten].map(|count| count.load(Ordering::Relaxed));
    println!("{lost} datagrams lost, {doubled} doubled, {held} held back; {forgotten} ports forgotten");
    assert!(lost > 0 && doubled > 0 && held > 0, "the network was not bad");
    house.shut_down().await;
}
