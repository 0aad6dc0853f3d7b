//! What a shop does in a day, over the wire.

use kami_engine::{Lifecycle, OrderId, ReplyFlags, RequestId, Role, Status};
use kami_net::ClientError;
use kami_net::client::{RedeemOptions, Row};
use kami_net::frame::request::Item;
use kami_net::frame::{Body, Secret};

use crate::house::{House, code, import, sold, stock};

fn refused<T: std::fmt::Debug>(result: Result<T, ClientError>) -> Status {
    match result {
        Err(ClientError::Refused { status, .. }) => status,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_card_is_sold_redeemed_and_reversed() {
    let house = House::open().await;
    let client = house.client().await;
    assert_eq!(client.welcome().await.unwrap().role, Role::Admin);
    let product = stock(&client, "coffee", 100).await;

    let lines = client.stock(None).await.unwrap().value.rows;
    assert_eq!((lines[0].imported, lines[0].sellable), (100, 100));
    let order = client.sell(OrderId(5), product, 3, Default::default()).await.unwrap();
    assert_eq!(order.value.cards.len(), 3);
    let again = client.order(OrderId(5)).await.unwrap();
    assert_eq!(again.value.cards, order.value.cards);
    let card = order.value.cards[0].code.to_vec();

    let id = RequestId::random();
    let options = || RedeemOptions { request: Some(id), ..RedeemOptions::default() };
    let first = client.redeem(&card, options()).await.unwrap();
    assert_eq!((first.value.amount, first.value.remaining), (2000, 0));
    assert!(first.lsn.is_some() && first.time_ms > 0);
    let replay = client.redeem(&card, options()).await.unwrap();
    assert!(replay.flags.contains(ReplyFlags::REPLAYED));
    assert_eq!((replay.lsn, replay.value), (first.lsn, first.value));
    assert_eq!(refused(client.redeem(&card, RedeemOptions::default()).await), Status::AlreadyRedeemed);

    client.reverse(&card, id).await.unwrap();
    assert_eq!(client.query(&card).await.unwrap().value.lifecycle, Lifecycle::Sold);
    let history = client.history(&card).await.unwrap().value;
    let kinds: Vec<_> = history.rows.iter().map(|event| event.kind.name()).collect();
    assert!(kinds.starts_with(&["REVERSE", "REDEEM"]) && kinds.ends_with(&["SELL", "IMPORT"]), "{kinds:?}");

    client.freeze(&card).await.unwrap();
    assert_eq!(refused(client.redeem(&card, RedeemOptions::default()).await), Status::Frozen);
    client.unfreeze(&card).await.unwrap();
    client.redeem(&card, RedeemOptions::default()).await.unwrap();

    assert_eq!(
        refused(client.redeem(b"NOBODY-HAS-THIS", RedeemOptions::default()).await),
        Status::CardNotValid
    );
    assert_eq!(refused(client.redeem(b"x", RedeemOptions::default()).await), Status::CardNotValid);
    assert_eq!(refused(client.query(b"x").await), Status::NotFound);
    assert_eq!(refused(client.sell(OrderId(6), product, 1000, Default::default()).await), Status::OutOfStock);

    let batches = client.batch_list(Some(product)).await.unwrap().value;
    assert_eq!(batches.total, 1);
    client.batch_freeze(batches.rows[0].id).await.unwrap();
    client.batch_unfreeze(batches.rows[0].id).await.unwrap();
    assert_eq!(client.product_list().await.unwrap().value.rows.len(), 1);
    assert_eq!(client.stats().await.unwrap().value.cards, 100);
    client.close().await;
    house.shut_down().await;
}

/// More codes than a frame holds arrive all the same, in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_order_is_collected_whole() {
    let house = House::open().await;
    let client = house.client().await;
    let codes = sold(&client, 60_000).await;
    assert_eq!(codes.len(), 60_000);
    for (n, sold) in codes.iter().enumerate() {
        assert_eq!(*sold, code(n));
    }
    assert_eq!(client.order(OrderId(1)).await.unwrap().value.cards.len(), 60_000);
    house.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn items_of_a_batch_have_an_outcome_each() {
    let house = House::open().await;
    let client = house.client().await;
    let codes = sold(&client, 200).await;
    let mut items: Vec<Item<'_>> = codes
        .iter()
        .zip(1..)
        .map(|(code, n)| Item { request: RequestId(n), amount: 0, code: Secret(code), pin: None })
        .collect();
    // The same card twice under two ids, and a code that cannot be one.
    items[150].code = items[10].code;
    items[70].code = Secret(b"x");
    let report = client.redeem_batch(&items).await.unwrap();
    assert_eq!(report.value.len(), 200);
    for (n, item) in report.value.iter().enumerate() {
        let expected = match n {
            150 => Status::AlreadyRedeemed,
            70 => Status::CardNotValid,
            _ => Status::Ok,
        };
        assert_eq!(item.status, expected, "item {n}");
        assert_eq!(item.request, RequestId(n as u128 + 1));
        assert_eq!(item.lsn.is_some(), expected == Status::Ok);
    }
    // Again, whole: the same effects.
    let again = client.redeem_batch(&items).await.unwrap();
    for (first, again) in report.value.iter().zip(&again.value) {
        assert_eq!((first.status, first.lsn), (again.status, again.lsn));
        assert_eq!(again.flags.contains(ReplyFlags::REPLAYED), first.status == Status::Ok);
    }
    house.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_with_a_known_card_is_refused_whole() {
    let house = House::open().await;
    let client = house.client().await;
    let product = stock(&client, "coffee", 1000).await;
    let spec = kami_engine::ImportSpec::of(product, 500, 16);
    let rows = (900..1400).map(|n| Ok(Row { code: code(n).into(), ..Row::default() }));
    match client.import(spec, rows, |_| ()).await {
        Err(ClientError::Refused { status: Status::DuplicateCard, answer }) => {
            let Body::Duplicates(rows) = answer.body else { panic!() };
            assert_eq!(rows.rows.len(), 100);
            assert_eq!((rows.rows[0].row, rows.rows[0].other_row), (0, 900));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(client.stats().await.unwrap().value.cards, 1000);
    // Several chunks.
    import(&client, product, 2000, 50_000).await;
    house.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_may_do_its_own_work_and_nothing_else() {
    let house = House::open().await;
    let admin = house.client().await;
    let codes = sold(&admin, 10).await;
    let till = house.client_as("till", Role::Redeemer).await;
    till.redeem(&codes[0], RedeemOptions::default()).await.unwrap();
    assert_eq!(refused(till.stats().await), Status::Forbidden);
    assert_eq!(refused(till.history(&codes[0]).await), Status::Forbidden);
    assert_eq!(refused(till.order(OrderId(1)).await), Status::Forbidden);
    // The connection is none the worse for it.
    till.redeem(&codes[1], RedeemOptions::default()).await.unwrap();
    let seller = house.client_as("seller", Role::Seller).await;
    assert_eq!(refused(seller.redeem(&codes[2], RedeemOptions::default()).await), Status::Forbidden);
    house.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_calls_at_once_share_a_client() {
    let house = House::open().await;
    let client = house.client().await;
    let codes = sold(&client, 2000).await;
    let mut calls = tokio::task::JoinSet::new();
    for code in codes {
        let client = client.clone();
        calls
            .spawn(async move { client.redeem(&code, RedeemOptions::default()).await.unwrap().value.amount });
    }
    let mut sum = 0;
    while let Some(amount) = calls.join_next().await {
        sum += amount.unwrap();
    }
    assert_eq!(sum, 2000 * 2000);
    house.shut_down().await;
}
