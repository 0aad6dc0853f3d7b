//! Connections come and go: drains, restarts, revocations, limits.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use kami_engine::{Caller, Command, Lifecycle, ReplyBody, RequestId, Role};
use kami_net::client::{Received, RedeemOptions};
use kami_net::{Client, ClientError, Identity, Server, ServerOptions};
use kami_wal::Drive;
use tokio::runtime::Runtime;
use tokio::time::{sleep, timeout};

use crate::house::{Committer, House, ask_by, push_redeem, sold};

/// Every redemption the engine did before the drain is answered; none that it did not do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_delivers_what_was_decided() {
    let house = House::open().await;
    let client = house.client().await;
    let codes = sold(&client, 40_000).await;
    let (mut sender, mut receiver) = client.channel().await.unwrap();
    let push = tokio::spawn(async move {
        for chunk in codes.chunks(64) {
            for code in chunk {
                push_redeem(&mut sender, code);
            }
            if sender.flush().await.is_err() {
                break;
            }
        }
        // The stream must not end before the server ends it.
        sleep(Duration::from_secs(20)).await;
    });
    let mut done = HashSet::new();
    let mut is_draining = false;
    while let Ok(Received::Replies(_)) = receiver
        .receive(|reply| {
            let head = reply.head().unwrap();
            assert!(head.status.is_done(), "{head:?}");
            assert!(done.insert(head.request));
        })
        .await
    {
        if done.len() > 2000 && !is_draining {
            is_draining = true;
            house.server.shutdown();
        }
    }
    timeout(Duration::from_secs(15), house.serving).await.unwrap().unwrap().unwrap();
    push.abort();
    let stats = ask_by(&house.engine, Caller::LOCAL, Command::Stats).body;
    let ReplyBody::Stats(stats) = stats else { panic!("{stats:?}") };
    assert_eq!(stats.counts[Lifecycle::Redeemed as usize], done.len() as u64);
    assert!(done.len() > 2000);
}

/// A server that comes back on the same address: the client reconnects, and the same id has one effect.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_survives_a_restart_and_its_ids_keep_their_effect() {
    let house = House::open().await;
    let client = house.client().await;
    let codes = sold(&client, 10).await;
    let id = RequestId::random();
    let options = || RedeemOptions { request: Some(id), ..RedeemOptions::default() };
    let first = client.redeem(&codes[0], options()).await.unwrap();

    let address = house.server.local_addr().unwrap();
    house.server.shutdown();
    let call = tokio::spawn({
        let (client, code) = (client.clone(), codes[0].clone());
        let options = options().request;
        async move {
            sleep(Duration::from_millis(50)).await;
            client.redeem(&code, RedeemOptions { request: options, ..RedeemOptions::default() }).await
        }
    });
    timeout(Duration::from_secs(15), house.serving).await.unwrap().unwrap().unwrap();
    drop(house.server);
    let identity = house.authority.issue_server(&[]).unwrap();
    let server = loop {
        // The old socket goes when its last handle does.
        match Server::bind(house.engine.clone(), ServerOptions::new(address, identity.clone())) {
            Ok(server) => break server,
            Err(_) => sleep(Duration::from_millis(20)).await,
        }
    };
    let serving = tokio::spawn({
        let server = server.clone();
        async move { server.serve().await }
    });
    let again = call.await.unwrap().unwrap();
    assert_eq!((again.lsn, again.request), (first.lsn, id));
    assert!(again.flags.contains(kami_engine::ReplyFlags::REPLAYED));
    server.shutdown();
    serving.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_principal_is_cut_off_and_stays_out() {
    let house = House::open().await;
    let admin = house.client().await;
    let codes = sold(&admin, 10).await;
    let till = house.client_as("till", Role::Redeemer).await;
    till.redeem(&codes[0], RedeemOptions::default()).await.unwrap();
    let (_sender, mut receiver) = till.channel().await.unwrap();
    let principal = till.welcome().await.unwrap().principal;
    admin.principal_revoke(principal).await.unwrap();
    let cut = timeout(Duration::from_secs(1), receiver.receive(|_| ())).await.unwrap();
    assert!(cut.is_err(), "the live connection is closed at once");
    let refused = till.redeem(&codes[1], RedeemOptions::default()).await;
    assert!(matches!(refused, Err(ClientError::Unauthenticated)), "{refused:?}");
    assert_eq!(admin.query(&codes[1]).await.unwrap().value.lifecycle, Lifecycle::Sold);
    house.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_counted_and_places_given_back() {
    let house = House::with(Drive::Threads, |options| options.connections_per_principal_max = 2).await;
    let first = house.client().await;
    let _second = house.client().await;
    let mut options = house.options(&house.admin);
    options.timeout = Duration::from_millis(500);
    let third = Client::connect(options.clone()).await;
    assert!(matches!(third, Err(ClientError::Unreachable { .. })), "{third:?}");
    first.close().await;
    options.timeout = Duration::from_secs(5);
    Client::connect(options).await.unwrap();
    house.shut_down().await;

    let house = House::with(Drive::Threads, |options| options.connections_per_address_max = 1).await;
    let _first = house.client().await;
    let mut options = house.options(&house.admin);
    options.timeout = Duration::from_millis(500);
    assert!(Client::connect(options).await.is_err());
    house.shut_down().await;
}

/// A peer that vanishes without a word gives its place back after the idle time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_open_connection_is_dropped() {
    let house = House::with(Drive::Threads, |options| options.idle = Duration::from_secs(1)).await;
    // A runtime of its own, so that all its tasks can be made to stop at once.
    let options = house.options(&house.admin);
    let gone = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let client = runtime.block_on(Client::connect(options)).unwrap();
        std::mem::forget(client);
        // Not polled again: nothing is sent any more, not even that it closes.
        std::mem::forget(runtime);
    });
    gone.join().unwrap();
    assert_eq!(house.server.connection_count(), 1);
    timeout(Duration::from_secs(5), async {
        while house.server.connection_count() > 0 {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap();
    house.shut_down().await;
}

/// A server on a runtime of its own.
fn serve_apart(house: &House, identity: &Identity, address: SocketAddr) -> (Runtime, SocketAddr) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let server = {
        let _inside = runtime.enter();
        Server::bind(house.engine.clone(), ServerOptions::new(address, identity.clone())).unwrap()
    };
    let address = server.local_addr().unwrap();
    runtime.spawn(async move { server.serve().await });
    (runtime, address)
}

/// All its tasks are dropped where they stand, its socket with them; no close is sent.
async fn end(runtime: Runtime) {
    let ended = tokio::task::spawn_blocking(move || runtime.shutdown_timeout(Duration::from_secs(5)));
    ended.await.unwrap();
}

/// A server that dies without a word and comes back: its peers are told by a stateless reset, which
/// takes a moment, and need not wait out the idle time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_is_noticed_at_once() {
    let house = House::open().await;
    let identity = house.authority.issue_server(&[]).unwrap();
    let start = |address| serve_apart(&house, &identity, address);
    let (first, address) = start(SocketAddr::from(([127, 0, 0, 1], 0)));
    let mut options = house.options(&house.admin);
    options.server = address;
    let client = Client::connect(options).await.unwrap();
    let codes = sold(&client, 10).await;
    end(first).await;
    let (second, _) = start(address);
    let redeemed = timeout(Duration::from_secs(4), client.redeem(&codes[0], RedeemOptions::default())).await;
    redeemed.expect("noticed before the idle time of 10 s").unwrap();
    // Once more, with a request under way through an outage in which QUIC alone would come to pause for seconds.
    end(second).await;
    let sink = tokio::net::UdpSocket::bind(address).await.unwrap();
    let waiting = tokio::spawn({
        let (client, code) = (client.clone(), codes[1].clone());
        async move { client.redeem(&code, RedeemOptions::default()).await }
    });
    // QUIC by itself sends 16 until it gives the connection up, the last of them 3 seconds apart.
    let mut datagram = [0; 65_536];
    let enough = async {
        for _ in 0..24 {
            sink.recv(&mut datagram).await.unwrap();
        }
    };
    timeout(Duration::from_secs(9), enough).await.expect("the client keeps asking");
    assert!(!waiting.is_finished());
    drop(sink);
    let (third, _) = start(address);
    timeout(Duration::from_secs(2), waiting).await.expect("noticed at once").unwrap().unwrap();
    third.shutdown_background();
    house.shut_down().await;
}

/// The same with everything acknowledged by QUIC and no reply to it: neither side has anything to send.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_died_before_its_reply_is_noticed_at_once() {
    let house = House::with(Drive::Manual, |_| ()).await;
    let committer = Committer::start(&house);
    let identity = house.authority.issue_server(&[]).unwrap();
    let (first, address) = serve_apart(&house, &identity, SocketAddr::from(([127, 0, 0, 1], 0)));
    let mut options = house.options(&house.admin);
    options.server = address;
    let client = Client::connect(options).await.unwrap();
    let codes = sold(&client, 1).await;
    committer.stop().await;
    let waiting = tokio::spawn({
        let (client, code) = (client.clone(), codes[0].clone());
        async move { client.redeem(&code, RedeemOptions::default()).await }
    });
    while house.engine.tail() == house.engine.durable_end() {
        sleep(Duration::from_millis(1)).await;
    }
    // QUIC acknowledges within 25 ms; a client that is not told yet sends more, which is the easier case.
    sleep(Duration::from_millis(100)).await;
    end(first).await;
    let _committer = Committer::start(&house);
    let (second, _) = serve_apart(&house, &identity, address);
    let redeemed = timeout(Duration::from_secs(2), waiting).await.expect("noticed at once");
    assert!(redeemed.unwrap().unwrap().flags.contains(kami_engine::ReplyFlags::REPLAYED));
    second.shutdown_background();
    house.shut_down().await;
}
