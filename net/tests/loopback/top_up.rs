//! Direct top-ups, stopped between any two of their steps.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kami_engine::{CardKind, Kind, Money, OrderId, ProductSpec, ProductTerms, RequestId, Role, Status};
use kami_net::Client;
use kami_net::client::{Fulfiller, Fulfilment, HoldOptions, Job, RedeemOptions, TopUp, ToppedUp};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::house::{House, code, import};

/// Tops up in memory, once for each id, and stops where it is told to.
#[derive(Default)]
struct Airtime {
    orders: Mutex<HashMap<RequestId, Fulfilment>>,
    /// What was topped up by account, in minor units.
    balances: Mutex<HashMap<String, Money>>,
    stop: Mutex<Option<Stop>>,
    stopped: Notify,
}

#[derive(Clone, Copy, PartialEq)]
enum Stop {
    /// The caller dies before anything is done.
    Before,
    /// The caller dies when it was done.
    After,
    /// It is done, and the answer is lost.
    Mute,
    /// The account is not known.
    Refuse,
}

impl Airtime {
    fn stopping(at: Stop) -> Arc<Airtime> {
        let airtime = Airtime::default();
        *airtime.stop.lock() = Some(at);
        Arc::new(airtime)
    }

    async fn stop(&self, at: Stop) {
        if *self.stop.lock() == Some(at) {
            *self.stop.lock() = None;
            self.stopped.notify_one();
            std::future::pending::<()>().await;
        }
    }

    fn paid(&self, to: &str) -> Money {
        self.balances.lock().get(to).copied().unwrap_or(0)
    }
}

impl Fulfiller for Airtime {
    async fn fulfil(&self, job: &Job<'_>) -> Fulfilment {
        self.stop(Stop::Before).await;
        let known = self.orders.lock().get(&job.id).cloned();
        let answer = known.unwrap_or_else(|| {
            let answer = if *self.stop.lock() == Some(Stop::Refuse) {
                Fulfilment::Refused { reason: "no such phone".into() }
            } else {
                *self.balances.lock().entry(job.to.to_owned()).or_default() += job.amount;
                Fulfilment::Done { reference: format!("ref-{}", job.id) }
            };
            self.orders.lock().insert(job.id, answer.clone());
            answer
        });
        self.stop(Stop::After).await;
        if self.stop.lock().take_if(|stop| *stop == Stop::Mute).is_some() {
            return Fulfilment::Unknown { reason: "the line went dead".into() };
        }
        answer
    }

    async fn outcome(&self, job: &Job<'_>) -> Fulfilment {
        let never = Fulfilment::Refused { reason: "never placed".into() };
        // Whoever is told that it never happened can rely on it.
        self.orders.lock().entry(job.id).or_insert(never).clone()
    }
}

const PHONE: &str = "13800000000";
const ID: RequestId = RequestId(77);

/// A sold card of 50.00 whose holds stand so long.
async fn card(house: &House, hold_s: u32) -> (Client, Vec<u8>) {
    let admin = house.client().await;
    let terms = ProductTerms { hold_s, ..ProductTerms::default() };
    let kind = CardKind::StoredValue;
    let spec = ProductSpec { kind, terms, ..ProductSpec::single("airtime", *b"CNY", 5000) };
    let product = admin.product_add(spec).await.unwrap().value.id;
    import(&admin, product, 0, 1).await;
    admin.sell(OrderId(1), product, 1, Default::default()).await.unwrap();
    (house.client_as("worker", Role::Redeemer).await, code(0))
}

fn half() -> TopUp<'static> {
    TopUp { amount: 2000, patience: Duration::from_millis(500), ..TopUp::new(ID, PHONE) }
}

/// Runs a top-up until its fulfiller stops, and drops it there as a killed process would be.
async fn dies(client: &Client, card: &[u8], airtime: &Arc<Airtime>) {
    let top_up = TopUp { patience: Duration::from_secs(60), ..half() };
    let worker = tokio::spawn({
        let (client, card, airtime) = (client.clone(), card.to_vec(), airtime.clone());
        async move { client.top_up(&card, &top_up, &*airtime).await }
    });
    airtime.stopped.notified().await;
    worker.abort();
    assert!(worker.await.unwrap_err().is_cancelled());
}

async fn left(client: &Client, card: &[u8]) -> (Money, Money) {
    let report = client.query(card).await.unwrap().value;
    (report.remaining, report.held)
}

/// Waits until nothing of the card is held any more.
async fn over(client: &Client, card: &[u8]) {
    let begun = Instant::now();
    while left(client, card).await.1 != 0 {
        assert!(begun.elapsed() < Duration::from_secs(20), "the hold does not end");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn kinds(house: &House, card: &[u8]) -> Vec<Kind> {
    let events = house.client().await.history(card).await.unwrap().value.rows;
    events.iter().rev().map(|event| event.kind).filter(|kind| *kind != Kind::Import).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_top_up_is_held_done_and_captured_and_the_same_again_does_nothing_more() {
    let house = House::open().await;
    let (client, card) = card(&house, 300).await;
    let airtime = Airtime::default();
    for _ in 0..2 {
        let ToppedUp::Done { reference, receipt, late } =
            client.top_up(&card, &half(), &airtime).await.unwrap()
        else {
            panic!("not done")
        };
        assert_eq!((reference, late), (format!("ref-{ID}"), false));
        assert_eq!((receipt.value.amount, receipt.value.remaining), (2000, 3000));
    }
    assert_eq!((airtime.paid(PHONE), left(&client, &card).await), (2000, (3000, 0)));
    assert_eq!(kinds(&house, &card).await, [Kind::Sell, Kind::Hold, Kind::Capture]);
    // The rest of the card, for somebody else.
    let rest = TopUp::new(RequestId(78), "13900000000");
    let done = client.top_up(&card, &rest, &airtime).await.unwrap();
    assert!(matches!(done, ToppedUp::Done { .. }), "{done:?}");
    assert_eq!((airtime.paid("13900000000"), left(&client, &card).await), (3000, (0, 0)));
    house.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_before_or_after_the_fulfilment_is_resolved_by_the_same_id() {
    for stop in [Stop::Before, Stop::After] {
        let house = House::open().await;
        let (client, card) = card(&house, 300).await;
        let airtime = Airtime::stopping(stop);
        dies(&client, &card, &airtime).await;
        assert_eq!(left(&client, &card).await, (5000, 2000), "held, and not spent");
        let done = client.top_up(&card, &half(), &*airtime).await.unwrap();
        assert!(matches!(done, ToppedUp::Done { late: false, .. }), "{done:?}");
        assert_eq!((airtime.paid(PHONE), left(&client, &card).await), (2000, (3000, 0)));
        house.shut_down().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_top_up_frees_the_card_and_an_unknown_one_does_not() {
    let house = House::open().await;
    let (client, card) = card(&house, 300).await;
    let airtime = Airtime::stopping(Stop::Refuse);
    for _ in 0..2 {
        let refused = client.top_up(&card, &half(), &*airtime).await.unwrap();
        assert!(matches!(&refused, ToppedUp::Refused { reason } if reason == "no such phone"), "{refused:?}");
    }
    assert_eq!((airtime.paid(PHONE), left(&client, &card).await), (0, (5000, 0)));

    *airtime.stop.lock() = Some(Stop::Mute);
    let again = TopUp { id: RequestId(78), ..half() };
    let pending = client.top_up(&card, &again, &*airtime).await.unwrap();
    assert!(matches!(pending, ToppedUp::Pending { .. }), "{pending:?}");
    assert_eq!(left(&client, &card).await, (5000, 2000), "nobody else can spend it meanwhile");
    let done = client.top_up(&card, &again, &*airtime).await.unwrap();
    assert!(matches!(done, ToppedUp::Done { late: false, .. }), "{done:?}");
    assert_eq!((airtime.paid(PHONE), left(&client, &card).await), (2000, (3000, 0)));
    house.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_the_hold_is_over_what_was_done_is_still_paid_for_and_what_was_not_never_happens() {
    let house = House::open().await;
    let (client, card) = card(&house, 1).await;
    let hold = HoldOptions { amount: 2000, request: Some(ID), ..HoldOptions::default() };
    let job = Job {
        id: ID,
        to: PHONE,
        product: kami_engine::ProductId(1),
        amount: 2000,
        patience: Duration::from_secs(1),
    };

    // It stopped after the hold.
    let airtime = Airtime::default();
    client.hold(&card, hold.clone()).await.unwrap();
    over(&client, &card).await;
    for _ in 0..2 {
        let expired = client.top_up(&card, &half(), &airtime).await.unwrap();
        assert!(matches!(expired, ToppedUp::Expired), "{expired:?}");
    }
    let late = airtime.fulfil(&job).await;
    assert!(matches!(late, Fulfilment::Refused { .. }), "an attempt that was on its way");
    assert_eq!((airtime.paid(PHONE), left(&client, &card).await), (0, (5000, 0)));

    // It stopped after the fulfilment: the card pays, once.
    let id = RequestId(79);
    client.hold(&card, HoldOptions { request: Some(id), ..hold.clone() }).await.unwrap();
    airtime.fulfil(&Job { id, ..job }).await;
    over(&client, &card).await;
    for _ in 0..2 {
        let done = client.top_up(&card, &TopUp { id, ..half() }, &airtime).await.unwrap();
        assert!(matches!(done, ToppedUp::Done { late: true, .. }), "{done:?}");
    }
    assert_eq!((airtime.paid(PHONE), left(&client, &card).await), (2000, (3000, 0)));

    // Or was spent elsewhere by then, which nobody may overlook.
    let id = RequestId(80);
    client.hold(&card, HoldOptions { request: Some(id), ..hold }).await.unwrap();
    airtime.fulfil(&Job { id, ..job }).await;
    over(&client, &card).await;
    client.redeem(&card, RedeemOptions { amount: 2500, ..RedeemOptions::default() }).await.unwrap();
    let unpaid = client.top_up(&card, &TopUp { id, ..half() }, &airtime).await.unwrap();
    assert!(matches!(unpaid, ToppedUp::Unpaid { status: Status::InsufficientValue, .. }), "{unpaid:?}");
    house.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_fulfilled_on_a_hold_that_is_too_short_for_it() {
    let house = House::open().await;
    let (client, card) = card(&house, 1).await;
    let airtime = Airtime::default();
    let slow = TopUp { patience: Duration::from_secs(30), ..half() };
    let expired = client.top_up(&card, &slow, &airtime).await.unwrap();
    assert!(matches!(expired, ToppedUp::Expired), "{expired:?}");
    assert_eq!((airtime.paid(PHONE), left(&client, &card).await), (0, (5000, 0)), "given back at once");
    house.shut_down().await;
}
