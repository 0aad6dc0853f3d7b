//! What proofs do to the stream they travel on, to whoever waits beside them, and to whoever guesses with them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use kami_engine::{CardProof, FeedSpec, RequestId, Status, TotalsQuery};
use kami_net::frame::request::{ConsistencyOf, OneCard, OneImport, ProofOf};
use kami_net::frame::{FeedOpen, Opcode, Request, RequestHead, Secret};
use quinn::Connection;

use crate::hostile::{answers, frame, ping, raw};
use crate::house::{House, code, import, much_used, sold};

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

/// What else a frame asks, with so many milliseconds to do it in.
fn within(deadline_ms: u32, id: u128, request: &Request<'_>) -> Vec<u8> {
    frame(&RequestHead { deadline_ms, ..RequestHead::new(request.opcode(), RequestId(id)) }, request)
}

/// The second part of a long proof had the code of the first, and no reply.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proof_in_several_parts_never_came() {
    let house = House::open().await;
    let client = house.client().await;
    let card = much_used(&house, &client, 1500).await;
    for _ in 0..2 {
        let proof = client.prove(&card).await.unwrap().value;
        assert!(proof.text.len() > 1 << 20, "{} bytes are more than two parts", proof.text.len());
        let proven = CardProof::parse(&proof.text).unwrap().verify(&proof.key.parse().unwrap()).unwrap();
        assert_eq!(proven.events.len(), 1502);
    }
    client.query(&card).await.unwrap();
    house.shut_down().await;
}

/// Whoever asks for the proof to a checkpoint of before may not guess for nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guesses_by_the_proof_of_an_old_size_were_free() {
    let house = House::open().await;
    let cards = sold(&house.client().await, 1).await;
    let size = house.client().await.signed_checkpoint().await.unwrap().value.size;
    let connection = raw(&house, Some(&house.admin), b"kami/1").await.unwrap();
    let guesses: Vec<_> =
        (1..=400).map(|n| proof_of(n, format!("NOBODY-HAS-{n}").as_bytes(), size)).collect();
    let told = exchange(&connection, &guesses).await;
    let borne = told.iter().take_while(|status| **status == Status::NotFound).count();
    assert!((50..200).contains(&borne), "{borne} guesses were borne");
    assert_eq!(told.last(), Some(&Status::RateLimited));
    assert_eq!(exchange(&connection, &[proof_of(1, &cards[0], size)]).await, [Status::RateLimited]);
    house.shut_down().await;
}

/// Proofs come one after the other and may take long. However many wait, imports and all else that waits for the disk
/// find a thread.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proofs_that_waited_kept_imports_waiting() {
    let house = House::open().await;
    let client = house.client().await;
    let card = much_used(&house, &client, 300).await;
    let connection = raw(&house, Some(&house.admin), b"kami/1").await.unwrap();
    let answered = Arc::new(AtomicUsize::new(0));
    let mut proofs = tokio::task::JoinSet::new();
    for id in 1..=30 {
        let (mut send, mut recv) = connection.open_bi().await.unwrap();
        send.write_all(&proof_of(id, &card, 0)).await.unwrap();
        let answered = Arc::clone(&answered);
        proofs.spawn(async move {
            assert_eq!(answers(&mut recv, 1).await[0].head.status, Status::Ok);
            answered.fetch_add(1, Ordering::Relaxed);
            (send, recv)
        });
    }
    // The first reply says that the others are in line.
    let streams = proofs.join_next().await;
    let ask = Request::ImportStatus(OneImport { import: RequestId(5) });
    assert_eq!(client.send(&ask).await.unwrap().head.status, Status::NotFound);
    let before = answered.load(Ordering::Relaxed);
    assert!(before < 15, "{before} proofs were made before an import got its turn");
    while proofs.join_next().await.is_some() {}
    drop(streams);
    house.shut_down().await;
}

/// Whoever gave a second waited for minutes, and had it done after all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_that_wait_for_the_disk_took_no_deadline() {
    let house = House::open().await;
    let client = house.client().await;
    let card = much_used(&house, &client, 300).await;
    let other = code(5001);
    import(&client, client.product_list().await.unwrap().value.rows[0].id, 5001, 1).await;
    let connection = raw(&house, Some(&house.admin), b"kami/1").await.unwrap();
    let totals = TotalsQuery { day: 20_000, days: 3, offset_min: 0, lines_max: 9, end: None, after: None };
    let late: Vec<(&str, Request<'_>)> = vec![
        ("signed checkpoint", Request::SignedCheckpoint),
        ("consistency", Request::Consistency(ConsistencyOf { old: 1, new: 2 })),
        ("proof", Request::Proof(ProofOf { size: 0, from: 0, code: Secret(&other) })),
        ("totals", Request::Reconcile(totals)),
        ("import", Request::ImportStatus(OneImport { import: RequestId(5) })),
        ("checkpoint", Request::Checkpoint),
    ];
    for (what, request) in &late {
        // Behind a proof, which takes some milliseconds, one is over.
        let frames = [proof_of(1, &card, 0), within(1, 2, request)];
        assert_eq!(exchange(&connection, &frames).await, [Status::Ok, Status::DeadlinePassed], "{what}");
        let status = exchange(&connection, &[within(60_000, 3, request)]).await[0];
        assert_ne!(status, Status::DeadlinePassed, "{what}");
    }
    // A feed is not opened, and the stream goes on as one of commands.
    let open = Request::FeedOpen(FeedOpen { credit: 1, spec: FeedSpec::from_start() });
    let frames = [proof_of(1, &card, 0), within(1, 2, &open)];
    assert_eq!(exchange(&connection, &frames).await, [Status::Ok, Status::DeadlinePassed]);
    house.shut_down().await;
}
