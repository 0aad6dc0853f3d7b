//! Routers between a till and the server give the till another port whenever they like.

use std::net::SocketAddr;
use std::sync::Arc;

use kami_engine::Status;
use kami_net::client::Received;
use kami_net::{Client, ClientOptions};
use tokio::net::UdpSocket;
use tokio::sync::watch;

use crate::house::{House, push_redeem, sold};

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// Relays between one client and the server; each new value of `mapping` is another port towards the server.
async fn router(inside: UdpSocket, server: SocketAddr, mut mapping: watch::Receiver<u32>) {
    let inside = Arc::new(inside);
    let mut client = None;
    let (mut from_client, mut from_server) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        let outside = UdpSocket::bind(LOOPBACK).await.unwrap();
        outside.connect(server).await.unwrap();
        loop {
            tokio::select! {
                changed = mapping.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    break;
                }
                received = inside.recv_from(&mut from_client) => {
                    let (bytes, address) = received.unwrap();
                    client = Some(address);
                    outside.send(&from_client[..bytes]).await.unwrap();
                }
                received = outside.recv(&mut from_server) => {
                    let Ok(bytes) = received else { continue };
                    inside.send_to(&from_server[..bytes], client.unwrap()).await.unwrap();
                }
            }
        }
    }
}

/// The connection is the same before and after: the server sees another address and goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_till_behind_a_router_that_changes_its_port_goes_on() {
    let house = House::open().await;
    let admin = house.client().await;
    let codes = sold(&admin, 20).await;
    let inside = UdpSocket::bind(LOOPBACK).await.unwrap();
    let through = inside.local_addr().unwrap();
    let (change, mapping) = watch::channel(0);
    let routing = tokio::spawn(router(inside, house.server.local_addr().unwrap(), mapping));

    let options = ClientOptions { server: through, ..house.options(&house.admin) };
    let till = Client::connect(options).await.unwrap();
    // A channel is one stream of one connection and does not heal: it would end with the connection.
    let (mut sender, mut receiver) = till.channel().await.unwrap();
    for (number, code) in codes.iter().enumerate() {
        if number % 5 == 4 {
            change.send(number as u32).unwrap();
        }
        push_redeem(&mut sender, code);
        sender.flush().await.unwrap();
        let mut status = None;
        let received = receiver.receive(|reply| status = Some(reply.head().unwrap().status)).await.unwrap();
        assert!(matches!(received, Received::Replies(1)));
        assert_eq!(status, Some(Status::Ok));
    }
    till.close().await;
    admin.close().await;
    drop(change);
    routing.await.unwrap();
    house.shut_down().await;
}
