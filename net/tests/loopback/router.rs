//! Routers between a till and the server give the till another port whenever they like.

use std::net::SocketAddr;
use std::time::Duration;

use kami_engine::Status;
use kami_net::client::{ChannelReceiver, ChannelSender, RawReply, Received};
use kami_net::{Client, ClientOptions};
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::house::{House, push_redeem, sold};

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// What a port passes.
#[derive(Clone, Copy, PartialEq)]
enum Port {
    Open,
    /// One datagram of the client, and nothing else in either direction.
    SilentAfterOne,
}

/// Relays between one client and the server. Each value of `changes` is another port towards the server; its sender
/// hears when it is in use.
async fn router(
    inside: UdpSocket,
    server: SocketAddr,
    mut changes: mpsc::Receiver<(Port, oneshot::Sender<()>)>,
) {
    let mut client = None;
    let mut port = Port::Open;
    let (mut from_client, mut from_server) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        let outside = UdpSocket::bind(LOOPBACK).await.unwrap();
        outside.connect(server).await.unwrap();
        let mut one_passed = false;
        loop {
            tokio::select! {
                changed = changes.recv() => {
                    let Some((other, in_use)) = changed else { return };
                    port = other;
                    in_use.send(()).unwrap();
                    break;
                }
                received = inside.recv_from(&mut from_client) => {
                    let (bytes, address) = received.unwrap();
                    client = Some(address);
                    if port == Port::Open || !one_passed {
                        outside.send(&from_client[..bytes]).await.unwrap();
                        one_passed = true;
                    }
                }
                received = outside.recv(&mut from_server) => {
                    let Ok(bytes) = received else { continue };
                    if port == Port::Open {
                        inside.send_to(&from_server[..bytes], client.unwrap()).await.unwrap();
                    }
                }
            }
        }
    }
}

/// A till with a channel through a router. The channel is one stream of one connection and does not heal: it would
/// end with the connection.
struct Routed {
    house: House,
    admin: Client,
    codes: Vec<Vec<u8>>,
    changes: mpsc::Sender<(Port, oneshot::Sender<()>)>,
    routing: JoinHandle<()>,
    till: Client,
    sender: ChannelSender,
    receiver: ChannelReceiver,
}

impl Routed {
    async fn open(codes: usize) -> Routed {
        let house = House::open().await;
        let admin = house.client().await;
        let codes = sold(&admin, codes).await;
        let inside = UdpSocket::bind(LOOPBACK).await.unwrap();
        let through = inside.local_addr().unwrap();
        let (changes, changed) = mpsc::channel(1);
        let routing = tokio::spawn(router(inside, house.server.local_addr().unwrap(), changed));
        let options = ClientOptions { server: through, ..house.options(&house.admin) };
        let till = Client::connect(options).await.unwrap();
        let (sender, receiver) = till.channel().await.unwrap();
        Routed { house, admin, codes, changes, routing, till, sender, receiver }
    }

    async fn change_port(&self, port: Port) {
        let (in_use, used) = oneshot::channel();
        self.changes.send((port, in_use)).await.unwrap();
        used.await.unwrap();
    }

    /// Asks for so many redemptions in one datagram, if they fit.
    async fn ask(&mut self, count: usize) {
        for code in self.codes.drain(..count) {
            push_redeem(&mut self.sender, &code);
        }
        self.sender.flush().await.unwrap();
    }

    async fn are_redeemed(&mut self, count: usize) {
        let mut redeemed = 0;
        while redeemed < count {
            let each = |reply: RawReply<'_>| assert_eq!(reply.head().unwrap().status, Status::Ok);
            match self.receiver.receive(each).await.unwrap() {
                Received::Replies(replies) => redeemed += replies,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(redeemed, count);
    }

    async fn close(self) {
        self.till.close().await;
        self.admin.close().await;
        drop(self.changes);
        self.routing.await.unwrap();
        self.house.shut_down().await;
    }
}

/// The connection is the same before and after: the server sees another address and goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_till_behind_a_router_that_changes_its_port_goes_on() {
    let mut routed = Routed::open(20).await;
    for number in 0..20 {
        if number % 5 == 4 {
            routed.change_port(Port::Open).await;
        }
        routed.ask(1).await;
        routed.are_redeemed(1).await;
    }
    routed.close().await;
}

/// The server goes over to the new address, sends its replies there, finds that nobody answers and returns to the
/// old address, where nothing is under way; but the timer of the replies still runs. The QUIC library asserts, where
/// debug assertions are on, that this cannot be, and took the connection down (quinn issue 2658).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_falls_silent_after_the_request_does_not_end_the_connection() {
    /// So much asks for replies of several packets: a server sends no more than three times of what it has heard to
    /// an address that has not answered yet.
    const ASKED: usize = 50;
    let mut routed = Routed::open(3 * (1 + ASKED)).await;
    for _ in 0..3 {
        routed.ask(1).await;
        routed.are_redeemed(1).await;
        // Until the acknowledgements are through, so that nothing is under way to the old address.
        sleep(Duration::from_millis(100)).await;
        routed.change_port(Port::SilentAfterOne).await;
        routed.ask(ASKED).await;
        // The silence is the fault: it lasts until the server has given the address up, and for its timer after that.
        sleep(Duration::from_millis(500)).await;
        routed.change_port(Port::Open).await;
        routed.are_redeemed(ASKED).await;
    }
    routed.close().await;
}
