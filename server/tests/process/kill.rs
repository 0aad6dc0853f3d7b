//! SIGKILL under load, again and again on the same store. The rule: every outcome that was acknowledged is
//! there, every unknown one is resolved by its id, nothing is done twice, and the store verifies.
//!
//! `KAMI_ROUNDS` says how many rounds; 3 unless told otherwise.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kami_engine::record::Kind;
use kami_engine::{OrderId, ProductId, RequestId, Status};
use kami_net::client::{RedeemOptions, SellOptions};
use kami_net::{Client, ClientError};
use tokio::task::JoinSet;

use crate::store::{Home, Server};

/// Tasks, each with one request under way.
const TASKS: u64 = 256;
/// Cards in each order.
const ORDER_CARDS: u32 = 3;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// What a task was told.
#[derive(Default)]
struct Told {
    /// Code, order.
    sold: Vec<(Vec<u8>, OrderId)>,
    /// Code, request id.
    redeemed: Vec<(Vec<u8>, RequestId)>,
    /// The request without an answer.
    open: Option<Open>,
}

enum Open {
    Sell(OrderId, RequestId),
    Redeem(Vec<u8>, RequestId),
}

/// Sells and redeems until the server is gone.
async fn trade(client: Client, first_order: u128, answers: Arc<AtomicU64>) -> Told {
    let mut told = Told::default();
    for number in 0.. {
        let order = OrderId(first_order + number);
        let request = RequestId::random();
        let options = SellOptions { request: Some(request), ..SellOptions::default() };
        let sold = client.sell(order, ProductId(1), ORDER_CARDS, options).await;
        let Some(sold) = outcome(sold) else {
            told.open = Some(Open::Sell(order, request));
            return told;
        };
        answers.fetch_add(1, Ordering::Relaxed);
        let codes: Vec<Vec<u8>> = sold.value.cards.iter().map(|card| card.code.to_vec()).collect();
        told.sold.extend(codes.iter().map(|code| (code.clone(), order)));
        for code in codes {
            let request = RequestId::random();
            let options = RedeemOptions { request: Some(request), ..RedeemOptions::default() };
            if outcome(client.redeem(&code, options).await).is_none() {
                told.open = Some(Open::Redeem(code, request));
                return told;
            }
            answers.fetch_add(1, Ordering::Relaxed);
            told.redeemed.push((code, request));
        }
    }
    told
}

/// The receipt; `None` if the server went away.
fn outcome<T>(result: Result<T, ClientError>) -> Option<T> {
    match result {
        Ok(receipt) => Some(receipt),
        Err(ClientError::Unknown { .. } | ClientError::Unreachable { .. }) => None,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_killed_server_keeps_every_outcome_that_it_acknowledged() {
    let rounds: u64 = std::env::var("KAMI_ROUNDS").map_or(3, |rounds| rounds.parse().unwrap());
    let home = Home::new();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut server = home.serve();
    let cards = 60_000 * rounds;
    server.stock("tea", "5", (0..cards).map(|n| format!("TEA-{n:09}\n")).collect::<String>());

    // What was acknowledged, over all rounds.
    let mut sold: HashMap<Vec<u8>, OrderId> = HashMap::new();
    let mut redeemed: HashMap<Vec<u8>, RequestId> = HashMap::new();
    for round in 0..rounds {
        let answers = Arc::new(AtomicU64::new(0));
        let mut tasks = JoinSet::new();
        let client = {
            let _guard = runtime.enter();
            // It does not heal: a call that meets the kill comes back as unknown.
            let mut client = runtime.block_on(server.client(PATIENCE));
            client = client.clone();
            for task in 0..TASKS {
                let first_order = 1 + u128::from(round << 32 | task << 20);
                tasks.spawn(trade(client.clone(), first_order, Arc::clone(&answers)));
            }
            client
        };
        // Killed at a moment that the round chooses.
        let kill_at = 2000 + RequestId::random().0 as u64 % 4000;
        runtime.block_on(async {
            while answers.load(Ordering::Relaxed) < kill_at {
                tokio::task::yield_now().await;
            }
        });
        server.kill();
        runtime.block_on(client.close());
        let told = runtime.block_on(tasks.join_all());
        server = home.serve();
        runtime.block_on(resolve_and_check(&server, told, &mut sold, &mut redeemed));
    }

    let counts = server.json(&["stats"])["states"].clone();
    assert_eq!(counts["REDEEMED"], redeemed.len());
    assert_eq!(counts["SOLD"], sold.len() - redeemed.len());
    assert_eq!(server.stop().code, Some(0));
    let verified = home.run(&["verify", "--data", "kami-data", "--json"]).json();
    assert_eq!(verified["whole"], true, "{verified}");
    assert_eq!(verified["epoch"], rounds + 1, "every start is an epoch of the log");
}

/// Resolves what is open, and asks the recovered server about everything that was told in this round.
async fn resolve_and_check(
    server: &Server<'_>,
    told: Vec<Told>,
    sold: &mut HashMap<Vec<u8>, OrderId>,
    redeemed: &mut HashMap<Vec<u8>, RequestId>,
) {
    let client = server.client(PATIENCE).await;
    let mut open = 0;
    let mut of_this_round = Vec::new();
    for task in told {
        for (code, order) in task.sold {
            assert_eq!(sold.insert(code.clone(), order), None, "a card was sold to two orders");
            of_this_round.push(code);
        }
        for (code, request) in task.redeemed {
            assert_eq!(redeemed.insert(code, request), None, "a card was redeemed by two requests");
        }
        open += u32::from(task.open.is_some());
        match task.open {
            Some(Open::Sell(order, request)) => {
                let options = SellOptions { request: Some(request), ..SellOptions::default() };
                let again = client.sell(order, ProductId(1), ORDER_CARDS, options).await.unwrap();
                for card in &again.value.cards {
                    assert_eq!(sold.insert(card.code.to_vec(), order), None, "sold to two orders");
                    of_this_round.push(card.code.to_vec());
                }
            }
            Some(Open::Redeem(code, request)) => {
                let options = RedeemOptions { request: Some(request), ..RedeemOptions::default() };
                client.redeem(&code, options).await.unwrap();
                redeemed.insert(code, request);
            }
            None => {}
        }
    }
    assert!(open > 0, "the kill met nobody");
    for code in of_this_round {
        let history = client.history(&code).await.unwrap().value.rows;
        let of = |kind: Kind| history.iter().filter(move |event| event.kind == kind).collect::<Vec<_>>();
        let sales = of(Kind::Sell);
        assert_eq!(sales.len(), 1, "{history:?}");
        assert_eq!(sales[0].related, sold[&code].0);
        let redemptions = of(Kind::Redeem);
        let expected: Vec<RequestId> = redeemed.get(&code).copied().into_iter().collect();
        assert_eq!(redemptions.iter().map(|event| event.request).collect::<Vec<_>>(), expected);
        if let Some(request) = redeemed.get(&code) {
            // The same request is told the same; another one is refused.
            let options = RedeemOptions { request: Some(*request), ..RedeemOptions::default() };
            let again = client.redeem(&code, options).await.unwrap();
            assert_eq!(again.lsn, Some(redemptions[0].lsn));
            let refused = client.redeem(&code, RedeemOptions::default()).await.unwrap_err();
            assert!(matches!(refused, ClientError::Refused { status: Status::AlreadyRedeemed, .. }));
        }
    }
    client.close().await;
}
