//! What an operator sees and changes of a running server: its figures, its certificate.

use std::collections::BTreeMap;
use std::time::Duration;

use kami_engine::{Class, RequestId, Role};
use kami_net::client::RedeemOptions;
use kami_net::frame::Secret;
use kami_net::frame::request::Item;
use kami_net::{Authority, Client, ClientError, IdentityError, Refusal, Validity};
use kami_wal::Drive;

use crate::house::{House, sold};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_reply_is_counted_once_by_command_and_code() {
    let house = House::with(Drive::Threads, |options| options.connections_per_address_max = 3).await;
    let client = house.client().await;
    let codes = sold(&client, 40).await;
    for code in &codes[..30] {
        client.redeem(code, RedeemOptions::default()).await.unwrap();
        client.redeem(code, RedeemOptions::default()).await.unwrap_err();
    }
    let items: Vec<Item<'_>> = codes[28..34]
        .iter()
        .map(|code| Item { request: RequestId::random(), amount: 0, code: Secret(code), pin: None })
        .collect();
    client.redeem_batch(&items).await.unwrap();
    let auditor = house.client_as("auditor", Role::Auditor).await;
    auditor.redeem(&codes[35], RedeemOptions::default()).await.unwrap_err();
    let stranger = house.authority.issue("stranger").unwrap();
    let nobody = Client::connect(house.options(&stranger)).await;
    assert!(matches!(nobody, Err(ClientError::Unauthenticated)), "nobody enrolled it");

    let figures = house.server.figures();
    let replies: BTreeMap<_, _> =
        figures.replies.iter().map(|(command, status, count)| ((*command, status.code()), *count)).collect();
    assert_eq!(replies[&("REDEEM", "OK")], 30);
    assert_eq!(replies[&("REDEEM", "ALREADY_REDEEMED")], 30);
    assert_eq!(replies[&("REDEEM", "FORBIDDEN")], 1);
    assert_eq!(replies[&("SELL", "OK")], 1);
    assert_eq!(replies[&("REDEEM_BATCH", "OK_PARTIAL")], 1);
    assert_eq!(replies[&("REDEEM_BATCH_ITEM", "OK")], 4);
    assert_eq!(replies[&("REDEEM_BATCH_ITEM", "ALREADY_REDEEMED")], 2);
    assert_eq!(replies[&("IMPORT_COMMIT", "OK")], 1);
    let mut counted: BTreeMap<(&str, u8), u64> = BTreeMap::new();
    for (command, status, count) in &figures.replies {
        *counted.entry((command, status.class() as u8)).or_default() += count;
    }
    let timed: BTreeMap<(&str, u8), u64> = figures
        .latency_us
        .iter()
        .map(|(command, class, times)| ((*command, *class as u8), times.count()))
        .collect();
    assert_eq!(counted, timed, "every counted reply has a time");
    assert!(
        figures.latency_us.iter().any(|(command, class, times)| {
            (*command, *class) == ("REDEEM", Class::Done) && times.sum > 0
        })
    );
    let refused: BTreeMap<_, _> = figures.refused.iter().map(|(reason, n)| (reason.name(), *n)).collect();
    assert!(refused[Refusal::Unauthenticated.name()] > 0);

    let wal = house.engine.figures();
    assert_eq!(wal.commit_us.count(), wal.stats.commits);
    assert_eq!(wal.stock[0].counts[kami_engine::Lifecycle::Redeemed as usize], 34);
    assert!(wal.index_bytes >= 40 * 24 && wal.words_bytes >= 40 * 8);
    drop((client, auditor));
    house.shut_down().await;
}

/// TLS takes the certificates of an authority whose own time is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_authority_that_ended_lets_nobody_in() {
    let dir = tempfile::tempdir().unwrap();
    let year_2001 = Validity { from_ms: 946_684_800_000, until_ms: 1_000_000_000_000 };
    let authority = Authority::create_within(&dir.path().join("ca"), year_2001).unwrap();
    let server = authority.issue_server(&[]).unwrap();
    let house = House::with(Drive::Threads, |options| options.identity = server).await;
    let till = authority.issue("till").unwrap();
    house.enrol("till", Role::Redeemer, &till);
    let error = Client::connect(house.options(&till)).await.unwrap_err();
    assert!(error.to_string().contains("authority ended on 2001-09-09"), "{error}");
    house.shut_down().await;
}

/// An ended certificate stands for "another one": it shuts new clients out, which shows that they, and
/// only they, are shown it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_certificate_is_shown_to_new_connections_and_old_ones_go_on() {
    let house = House::open().await;
    let before = house.client().await;
    let year_2001 = Validity { from_ms: 946_684_800_000, until_ms: 1_000_000_000_000 };
    let first = house.authority.issue_server(&[]).unwrap();
    let ended = house.authority.issue_server_within(&[], year_2001, Some(&first)).unwrap();
    assert_eq!(ended.validity().unwrap(), year_2001);
    assert_eq!(ended.key_fingerprint().unwrap(), first.key_fingerprint().unwrap(), "the key stays");
    assert!(!ended.is_same(&first));
    house.server.change_certificate(&ended).unwrap();
    let mut options = house.options(&house.admin);
    options.timeout = Duration::from_secs(1);
    let shut_out = Client::connect(options.clone()).await.err().unwrap();
    assert!(shut_out.to_string().contains("certificate"), "{shut_out}");
    before.stats().await.expect("the connection was there before");

    house.server.change_certificate(&house.authority.issue_server(&[]).unwrap()).unwrap();
    let after = Client::connect(options.clone()).await.unwrap();
    after.stats().await.unwrap();
    before.stats().await.unwrap();

    let other = Authority::create(&house.dir().join("other")).unwrap();
    let refused = house.server.change_certificate(&other.issue_server(&[]).unwrap());
    assert!(matches!(refused, Err(IdentityError::OtherAuthority)), "{refused:?}");
    Client::connect(options).await.expect("nothing changed");
    drop((before, after));
    house.shut_down().await;
}
