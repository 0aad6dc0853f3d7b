//! What proofs do to the stream they travel on, to whoever waits beside them, and to whoever guesses with them.

use kami_engine::{RequestId, Status};
use kami_net::frame::request::{OneCard, ProofOf};
use kami_net::frame::{Opcode, Request, RequestHead, Secret};
use quinn::Connection;

use crate::hostile::{answers, frame, ping, raw};
use crate::house::{House, sold};

fn proof_of(id: u128, code: &[u8], size: u64) -> Vec<u8> {
    let head = RequestHead::new(Opcode::Proof, RequestId(id));
    frame(&head, &Request::Proof(ProofOf { size, from: 0, code: Secret(code) }))
}

fn query(id: u128, code: &[u8]) -> Vec<u8> {
    frame(&RequestHead::new(Opcode::Query, RequestId(id)), &Request::Query(OneCard { code: Secret(code) }))
}

fn freeze(id: u128, code: &[u8]) -> Vec<u8> {
    frame(&RequestHead::new(Opcode::Freeze, RequestId(id)), &Request::Freeze(OneCard { code: Secret(code) }))
}

/// The replies on one stream to what is written in one go, with a PING behind it: exactly one each, in order.
async fn exchange(connection: &Connection, frames: &[Vec<u8>]) -> Vec<Status> {
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    send.write_all(&frames.concat()).await.unwrap();
    send.write_all(&ping(9999)).await.unwrap();
    let answers = answers(&mut recv, frames.len() + 1).await;
    let ids = |bytes: &Vec<u8>| u128::from_le_bytes(bytes[8..24].try_into().unwrap());
    let asked: Vec<u128> = frames.iter().map(ids).chain([9999]).collect();
    let answered: Vec<u128> = answers.iter().map(|answer| answer.head.request.0).collect();
    assert_eq!(answered, asked, "one reply to each request, in order");
    answers[..frames.len()].iter().map(|answer| answer.head.status).collect()
}

/// A PROOF left its code with the desk, so what came next about the same card was neither decided nor answered, and
/// every later reply of the stream was one place off.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_behind_a_proof_of_the_same_card_went_unanswered() {
    let house = House::open().await;
    let client = house.client().await;
    let cards = sold(&client, 2).await;
    let connection = raw(&house, Some(&house.admin), b"kami/1").await.unwrap();
    let (x, y) = (&cards[0], &cards[1]);
    let done = |count: usize| vec![Status::Ok; count];
    assert_eq!(exchange(&connection, &[proof_of(1, x, 0), proof_of(2, x, 0)]).await, done(2));
    assert_eq!(exchange(&connection, &[query(3, x), proof_of(4, x, 0)]).await, done(2));
    assert_eq!(exchange(&connection, &[proof_of(5, x, 0), freeze(6, x), query(7, x)]).await, done(3));
    let mixed =
        [query(8, y), query(9, y), proof_of(10, y, 0), proof_of(11, x, 0), freeze(12, y), query(13, y)];
    assert_eq!(exchange(&connection, &mixed).await, done(6));
    // One after the other, as a client sends them.
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    for (id, bytes) in [(14, proof_of(14, x, 0)), (15, proof_of(15, x, 0)), (16, query(16, x))] {
        send.write_all(&bytes).await.unwrap();
        let answers = answers(&mut recv, 1).await;
        assert_eq!((answers[0].head.request, answers[0].head.status), (RequestId(id), Status::Ok));
    }
    client.prove(x).await.unwrap();
    client.prove(x).await.unwrap();
    client.query(x).await.unwrap();
    house.shut_down().await;
}

/// The 257th card that one stream asked proofs of, with nothing between them, had its thread look for a free place for
/// good: with one such stream a thread the server stood still, and could not even be shut down.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_hundred_proofs_on_one_stream_stopped_a_thread_of_the_server() {
    let house = House::open().await;
    let cards = sold(&house.client().await, 300).await;
    let connection = raw(&house, Some(&house.admin), b"kami/1").await.unwrap();
    let frames: Vec<_> = cards.iter().zip(1..).map(|(card, id)| proof_of(id, card, 0)).collect();
    assert_eq!(exchange(&connection, &frames).await, vec![Status::Ok; 300]);
    house.shut_down().await;
}
