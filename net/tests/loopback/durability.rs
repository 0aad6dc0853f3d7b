//! No reply before the log is durable, and none at all when it fails.

use std::time::Duration;

use kami_engine::{RequestId, Status};
use kami_net::client::{Received, RedeemOptions};
use kami_net::frame::request::OneCard;
use kami_net::frame::{Opcode, Request, RequestHead, Secret};
use kami_net::{ClientError, ServerError};
use kami_wal::Drive;
use tokio::time::timeout;

use crate::house::{Committer, House, push_redeem, sold};

const A_WHILE: Duration = Duration::from_millis(200);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_reply_waits_for_the_disk_whatever_it_says() {
    let house = House::with(Drive::Manual, |_| ()).await;
    let committer = Committer::start(&house);
    let client = house.client().await;
    let codes = sold(&client, 10).await;
    let nobody = b"NOBODY-HAS-THIS".to_vec();
    committer.stop().await;

    let (mut sender, mut receiver) = client.channel().await.unwrap();
    // A success, then what rests on it: a refusal, a read and an absence.
    push_redeem(&mut sender, &codes[0]);
    push_redeem(&mut sender, &codes[0]);
    let query = Request::Query(OneCard { code: Secret(&codes[0]) });
    sender.push(&RequestHead::new(Opcode::Query, RequestId::random()), &query).unwrap();
    push_redeem(&mut sender, &nobody);
    sender.flush().await.unwrap();
    let mut statuses = Vec::new();
    let early = timeout(A_WHILE, receiver.receive(|reply| statuses.push(reply.head().unwrap().status))).await;
    assert!(early.is_err(), "replies before the disk: {statuses:?}");

    // Refusals and reads of other streams wait as well: they rest on what is not durable.
    let other = client.clone();
    let read = tokio::spawn(async move { other.query(b"NOBODY-HAS-THIS").await });
    tokio::time::sleep(A_WHILE).await;
    assert!(!read.is_finished());

    house.engine.drive().unwrap();
    let second = Duration::from_secs(1);
    while statuses.len() < 4 {
        let read = timeout(second, receiver.receive(|reply| statuses.push(reply.head().unwrap().status)));
        assert!(matches!(read.await.unwrap(), Ok(Received::Replies(_))));
    }
    assert_eq!(statuses, [Status::Ok, Status::AlreadyRedeemed, Status::Ok, Status::CardNotValid]);
    assert!(matches!(
        timeout(second, read).await.unwrap().unwrap(),
        Err(ClientError::Refused { status: Status::NotFound, .. })
    ));
    let _committer = Committer::start(&house);
    house.server.shutdown();
}

/// A drain that begins between a decision and its durability still delivers the reply; so does a stream
/// whose client sent one request and ended its side.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_was_decided_is_delivered_though_nothing_more_is_read() {
    let house = House::with(Drive::Manual, |_| ()).await;
    let committer = Committer::start(&house);
    let client = house.client().await;
    let codes = sold(&client, 10).await;
    committer.stop().await;
    let mut streams = Vec::new();
    for code in &codes[..2] {
        let (mut sender, receiver) = client.channel().await.unwrap();
        push_redeem(&mut sender, code);
        sender.flush().await.unwrap();
        streams.push((Some(sender), receiver));
    }
    streams[0].0.take().unwrap().finish().unwrap();
    tokio::time::sleep(A_WHILE).await;
    house.server.shutdown();
    tokio::time::sleep(A_WHILE).await;
    house.engine.drive().unwrap();
    for (_sender, receiver) in &mut streams {
        let mut done = 0;
        let each =
            |reply: kami_net::client::RawReply<'_>| done += u32::from(reply.head().unwrap().status.is_done());
        let read = timeout(Duration::from_secs(1), receiver.receive(each)).await.unwrap();
        assert!(matches!(read, Ok(Received::Replies(1))), "{read:?}");
        assert_eq!(done, 1);
    }
    timeout(Duration::from_secs(5), house.serving).await.unwrap().unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_failed_log_acknowledges_nothing_and_ends_the_server() {
    let house = House::open().await;
    let mut options = house.options(&house.admin);
    options.timeout = Duration::from_secs(2);
    let client = kami_net::Client::connect(options).await.unwrap();
    let codes = sold(&client, 10).await;
    client.redeem(&codes[0], RedeemOptions::default()).await.unwrap();
    house.disk.fail_sync_at(house.disk.syncs() + 1);
    let lost = client.redeem(&codes[1], RedeemOptions::default()).await;
    // The next sync may have been the idle log's own: then it was dead before it was asked.
    let refused = matches!(&lost, Err(ClientError::Refused { status: Status::ReadOnly, .. }));
    assert!(refused || matches!(lost, Err(ClientError::Unknown { .. })), "{lost:?}");
    let ended = timeout(Duration::from_secs(15), house.serving).await.unwrap().unwrap();
    assert!(matches!(ended, Err(ServerError::LogFailed)), "{ended:?}");
}
