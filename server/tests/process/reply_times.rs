//! How long replies take that all say CARD_NOT_VALID: of codes that nobody has, of cards that are not sold, and of sold
//! ones with a wrong PIN.
//!
//! The replies are the same but for the request's id; whoever could tell them apart by time would learn which codes
//! exist. So a till asks the real server about as many of each, one after the other and in random order, and two
//! tests compare the times (`kami_tests::timing`).
//!
//! `KAMI_REPLIES` says how many of each kind. A slice of a few hundred sees that the replies are the same and says
//! nothing about time, which is noise in an ordinary run; from [`ENOUGH`] on the times are judged: no kind may take longer
//! than another by [`BOUND_NS`]. What may be seen below that is printed. A guesser has five tries of a code, and what it
//! gets to see of them is the network's noise; with five tries in that of a local connection, tens of microseconds, a
//! difference of this size cannot be seen.

use std::time::Instant;

use kami_engine::{Lsn, OrderId, ProductId, RequestId, Status};
use kami_net::Client;
use kami_net::client::{ChannelReceiver, ChannelSender, Received, SellOptions};
use kami_net::frame::request::Redeem;
use kami_net::frame::{Body, Opcode, Request, RequestHead, Secret};
use kami_tests::random::Random;
use kami_tests::timing::Comparison;

use crate::store::{ADMIN, Home};

const KINDS: [&str; 3] = ["unknown", "unsold", "wrong PIN"];
/// From so many replies of each kind on their times are judged.
const ENOUGH: usize = 100_000;
/// By how much the times of two kinds may differ, with 95 % confidence. Times have a random part of a millisecond, so this is what
/// [`ENOUGH`] replies can tell; what is smaller takes millions.
const BOUND_NS: f64 = 50_000.0;
/// Before the first that counts: caches, the connection's window.
const WARM_UP: usize = 300;

/// Codes of one length, of which each kind has its own, so that a place in memory says nothing.
fn codes(kind: usize, count: usize) -> Vec<String> {
    let mut random = Random::new(77);
    (0..count)
        .map(|at| format!("TIMES-{:016x}-{:08}", random.next() & !3 | kind as u64, at * KINDS.len() + kind))
        .collect()
}

fn shuffle<T>(random: &mut Random, items: &mut [T]) {
    for at in (1..items.len()).rev() {
        items.swap(at, random.below(at as u64 + 1) as usize);
    }
}

/// One refused redemption: how long its reply took, in nanoseconds.
async fn refused(send: &mut ChannelSender, receive: &mut ChannelReceiver, code: &str) -> u64 {
    let redeem = Redeem { amount: 0, code: Secret(code.as_bytes()), pin: Some(Secret(b"0000")) };
    send.push(&RequestHead::new(Opcode::Redeem, RequestId::random()), &Request::Redeem(redeem)).unwrap();
    let mut answer = None;
    let asked = Instant::now();
    send.flush().await.unwrap();
    let mut took = 0;
    while answer.is_none() {
        let received = receive.receive(|reply| {
            took = asked.elapsed().as_nanos() as u64;
            answer = Some(reply.answer().unwrap());
        });
        assert!(matches!(received.await, Ok(Received::Replies(_))));
    }
    let answer = answer.expect("it came");
    assert_eq!((answer.head.status, answer.head.flags.0), (Status::CardNotValid, 0));
    assert_eq!((answer.head.lsn, answer.body), (None::<Lsn>, Body::None));
    took
}

#[test]
fn codes_that_are_refused_alike_take_alike() {
    let count: usize = std::env::var("KAMI_REPLIES").map_or(200, |count| count.parse().unwrap());
    let all = count + WARM_UP;
    let home = Home::new();
    let server = home.serve();
    server.json(&["product", "add", "tea", "--face", "5", "--currency", "CNY"]);
    let add = ["principal", "add", "till", "--role", "redeemer", "--out", "till"];
    server.json(&[&add[..], &["--misses-per-minute", "1000000"]].concat());
    let mut kinds: Vec<Vec<String>> = (0..KINDS.len()).map(|kind| codes(kind, all)).collect();
    let file = |codes: &[String]| {
        let rows = codes.iter().map(|code| format!("{code},4711\n"));
        format!("code,pin\n{}", rows.collect::<String>())
    };
    home.file("sold.csv", file(&kinds[2]));
    home.file("unsold.csv", file(&kinds[1]));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    server.json(&["import", "sold.csv", "--product", "tea"]);
    runtime.block_on(async {
        let admin = Client::connect(server.options(ADMIN)).await.unwrap();
        for (order, first) in (0..all).step_by(10_000).enumerate() {
            let cards = (all - first).min(10_000) as u32;
            let order = OrderId(order as u128 + 1);
            admin.sell(order, ProductId(1), cards, SellOptions::default()).await.unwrap();
        }
        admin.close().await;
    });
    server.json(&["import", "unsold.csv", "--product", "tea"]);

    let mut random = Random::new(78);
    kinds.iter_mut().for_each(|codes| shuffle(&mut random, codes));
    let mut times: Vec<Vec<u64>> = vec![Vec::with_capacity(count); KINDS.len()];
    runtime.block_on(async {
        let client = Client::connect(server.options("till")).await.unwrap();
        let (mut send, mut receive) = client.channel().await.unwrap();
        let [unknown, unsold, wrong] = &kinds[..] else { unreachable!("three kinds") };
        for (round, codes) in unknown.iter().zip(unsold).zip(wrong).enumerate() {
            let ((unknown, unsold), wrong) = codes;
            let mut asked = [(0, unknown), (1, unsold), (2, wrong)];
            shuffle(&mut random, &mut asked);
            for (kind, code) in asked {
                let took = refused(&mut send, &mut receive, code).await;
                if round >= WARM_UP {
                    times[kind].push(took);
                }
            }
        }
    });
    let median = |times: &[u64]| {
        let mut times = times.to_vec();
        times.sort_unstable();
        times[times.len() / 2]
    };
    for (kind, times) in KINDS.iter().zip(&times) {
        println!("result: {kind}: median {} ns of {}", median(times), times.len());
    }
    for (one, other) in [(0, 1), (0, 2), (1, 2)] {
        let found = Comparison::of(&times[one], &times[other]);
        println!("result: {} less {}: {found}", KINDS[one], KINDS[other]);
        if count >= ENOUGH {
            assert!(found.is_within(BOUND_NS), "{} less {}: {found}", KINDS[one], KINDS[other]);
        }
    }
}
