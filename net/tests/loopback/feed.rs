//! Feeds and totals over the wire: everything once, in order, durable, and at the subscriber's pace.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::BytesMut;
use kami_engine::{
    Command, Event, FeedSpec, KindSet, Lsn, MerchantId, OrderId, PrincipalSpec, ProductId, RequestId, Role,
    Status, TotalsQuery, record::Kind,
};
use kami_net::client::{RedeemOptions, SellOptions};
use kami_net::frame::reply::Answer;
use kami_net::frame::request::{FeedAck, FeedOpen};
use kami_net::frame::{
    Body, CloseCode, FEED_CREDIT_MAX, FRAME_BYTES_MAX, Opcode, REPLY_HEAD_BYTES, Request, RequestHead, Split,
    Splitter,
};
use kami_net::{Client, ClientError, Identity, Server, ServerOptions};
use kami_wal::Drive;
use quinn::{ConnectionError, RecvStream, SendStream};
use tokio::time::timeout;

use crate::hostile::{SOON, ping, raw};
use crate::house::{House, much_used, sold, stock};

const A_WHILE: Duration = Duration::from_millis(200);

fn only(kinds: &[Kind]) -> FeedSpec {
    FeedSpec { kinds: KindSet::of(kinds), ..FeedSpec::from_start() }
}

async fn redeem_all(client: &Client, codes: &[Vec<u8>]) {
    for code in codes {
        client.redeem(code, RedeemOptions::default()).await.unwrap();
    }
}

async fn next(subscription: &mut kami_net::client::Subscription) -> Event {
    let place = subscription.place();
    match timeout(SOON, subscription.next()).await {
        Ok(event) => event.unwrap(),
        Err(_) => panic!("no event in time behind {place:?}, now at {:?}", subscription.place()),
    }
}

/// A feed as a program without our client sees it.
struct Bare {
    connection: quinn::Connection,
    send: SendStream,
    recv: RecvStream,
    splitter: Splitter,
    answers: VecDeque<Answer>,
}

impl Bare {
    async fn of(house: &House, identity: &Identity) -> Bare {
        let connection = raw(house, Some(identity), b"kami/1").await.unwrap();
        let (send, recv) = connection.open_bi().await.unwrap();
        let splitter = Splitter::new(REPLY_HEAD_BYTES);
        Bare { connection, send, recv, splitter, answers: VecDeque::new() }
    }

    async fn ask(&mut self, request: &Request<'_>) {
        let mut out = BytesMut::new();
        request.encode(&RequestHead::new(request.opcode(), RequestId(7)), &mut out).unwrap();
        // A feed that has ended takes nothing more; what it said before is what counts.
        let _ = self.send.write_all(&out).await;
    }

    async fn open(house: &House, identity: &Identity, credit: u32, spec: FeedSpec) -> Bare {
        let mut bare = Bare::of(house, identity).await;
        bare.ask(&Request::FeedOpen(FeedOpen { credit, spec })).await;
        bare
    }

    async fn ack(&mut self, seen: Option<Lsn>, credit: u32) {
        self.ask(&Request::FeedAck(FeedAck { seen, credit })).await;
    }

    /// The next frame; `None` when the stream has ended.
    async fn answer(&mut self) -> Option<Answer> {
        while self.answers.is_empty() {
            let chunk = timeout(SOON, self.recv.read_chunk(1 << 16, true)).await.expect("in time").ok()??;
            let mut piece: &[u8] = &chunk.bytes;
            while let Ok(Split::Frame(frame)) = self.splitter.next(&mut piece, |_| FRAME_BYTES_MAX) {
                self.answers.push_back(Answer::decode(frame).unwrap());
            }
        }
        self.answers.pop_front()
    }

    async fn status(&mut self) -> Option<Status> {
        self.answer().await.map(|answer| answer.head.status)
    }

    /// Events until so many came.
    async fn events(&mut self, count: usize) -> Vec<Event> {
        let mut events = Vec::new();
        while events.len() < count {
            match self.answer().await.expect("the feed goes on").body {
                Body::Events(told) => events.extend(told.events),
                Body::Feed(_) => {}
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(events.len(), count, "more than was granted");
        events
    }

    async fn is_silent(&mut self) -> bool {
        self.answers.is_empty() && timeout(A_WHILE, self.recv.read_chunk(1 << 16, true)).await.is_err()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscriber_has_every_event_once_in_the_order_of_the_log() {
    let house = House::open().await;
    let client = house.client().await;
    let auditor = house.client_as("auditor", Role::Admin).await;
    let mut subscription = auditor.subscribe(only(&[Kind::Import, Kind::Sell, Kind::Redeem, Kind::Reverse]));
    let codes = sold(&client, 1500).await;
    let (import, sale) = (next(&mut subscription).await, next(&mut subscription).await);
    assert_eq!((import.kind, import.count, import.product), (Kind::Import, 1500, Some(ProductId(1))));
    assert_eq!((sale.kind, sale.count, sale.amount), (Kind::Sell, 1500, Some(1500 * 2000)));
    assert_eq!(sale.order, Some(OrderId(1)));
    // What comes while it is followed.
    let work = tokio::spawn({
        let (client, codes) = (client.clone(), codes.clone());
        async move { redeem_all(&client, &codes).await }
    });
    let mut last = sale;
    for _ in 0..1500 {
        let event = next(&mut subscription).await;
        assert_eq!((event.kind, event.amount, event.merchant), (Kind::Redeem, Some(2000), MerchantId(1)));
        assert!(last.lsn < event.lsn && last.time_ms <= event.time_ms);
        assert_eq!(
            event.card.unwrap().row(),
            if last.kind == Kind::Sell { 0 } else { last.card.unwrap().row() + 1 }
        );
        last = event;
    }
    work.await.unwrap();
    // The receipt is the position.
    let receipt = client.freeze(&codes[3]).await.unwrap();
    assert!(receipt.lsn.is_some());
    let mut from_here = auditor.subscribe(FeedSpec { after: receipt.lsn, ..FeedSpec::from_start() });
    client.freeze(&codes[4]).await.unwrap();
    let event = next(&mut from_here).await;
    assert_eq!((event.kind, event.card.unwrap().row()), (Kind::Freeze, 4));
    assert_eq!(house.server.figures().feeds, 2);
    drop((subscription, from_here));
    house.shut_down().await;
}

/// Past events end where the log ended when they were asked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_past_has_an_end() {
    let house = House::open().await;
    let client = house.client().await;
    let codes = sold(&client, 10).await;
    redeem_all(&client, &codes).await;
    let mut all = client.subscribe(FeedSpec::from_start());
    let mut kinds = Vec::new();
    while let Some(event) = timeout(SOON, all.next_past()).await.unwrap().unwrap() {
        kinds.push(event.kind);
    }
    let (place, epoch) = all.place().unwrap();
    assert!(epoch > 0);
    assert_eq!(kinds.iter().filter(|kind| **kind == Kind::Redeem).count(), 10);
    assert_eq!(kinds[0], Kind::Start);
    // Of nothing, and of nothing that is wanted, too; and the place is behind all of it.
    let mut none = client.subscribe(FeedSpec { after: Some(place), epoch, ..FeedSpec::from_start() });
    assert_eq!(timeout(SOON, none.next_past()).await.unwrap().unwrap(), None);
    let mut unwanted = client.subscribe(only(&[Kind::Restore]));
    assert_eq!(timeout(SOON, unwanted.next_past()).await.unwrap().unwrap(), None);
    assert_eq!(unwanted.place(), Some((place, epoch)));
    // From now on: only what comes.
    let mut now = client.subscribe(FeedSpec { after: None, ..FeedSpec::from_start() });
    assert_eq!(timeout(SOON, now.next_past()).await.unwrap().unwrap(), None);
    client.freeze(&codes[0]).await.unwrap();
    assert_eq!(next(&mut now).await.kind, Kind::Freeze);
    house.shut_down().await;
}

/// No event before its record is durable: a crash would take it back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_told_before_it_is_durable() {
    let house = House::with(Drive::Manual, |_| ()).await;
    house.engine.drive().unwrap();
    let mut feed = Bare::open(&house, &house.admin, 100, only(&[Kind::ProductPut])).await;
    let spec = kami_engine::ProductSpec::single("coffee", *b"CNY", 2000);
    assert!(matches!(feed.answer().await.unwrap().body, Body::Feed(_)));
    assert!(matches!(feed.answer().await.unwrap().body, Body::Events(told) if told.events.is_empty()));
    assert!(house.ask(Command::ProductAdd(Box::new(spec))).status.is_done());
    assert!(feed.is_silent().await, "told of what may be lost");
    house.engine.drive().unwrap();
    assert_eq!(feed.events(1).await[0].kind, Kind::ProductPut);
    house.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_subscriber_gets_what_it_grants_and_holds_up_nobody() {
    let house = House::open().await;
    let client = house.client().await;
    let codes = sold(&client, 3000).await;
    let mut slow = Bare::open(&house, &house.admin, 0, only(&[Kind::Redeem])).await;
    assert!(matches!(slow.answer().await.unwrap().body, Body::Feed(_)));
    redeem_all(&client, &codes).await;
    assert!(slow.is_silent().await, "without credit nothing comes");
    let behind = || house.server.figures().feed_lag_bytes;
    let all = behind();
    assert!(all > 3000 * 48, "{all}");
    slow.ack(None, 10).await;
    let first = slow.events(10).await;
    assert!(slow.is_silent().await, "no more than was granted");
    slow.ack(Some(first[9].lsn), 2000).await;
    let more = slow.events(2000).await;
    assert!((1..all / 2).contains(&behind()), "{} of {all}", behind());
    assert!(first[9].lsn < more[0].lsn);
    slow.ack(Some(more[1999].lsn), 990).await;
    assert_eq!(slow.events(990).await.len(), 990);
    drop(slow);
    house.shut_down().await;
}

/// One that grants much and takes nothing: the server reads no more of the log for it than the connection takes, a frame
/// besides, and ends it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_greedy_subscriber_that_takes_nothing_is_ended() {
    let house = House::with(Drive::Threads, |options| options.stall = Duration::from_millis(500)).await;
    let client = house.client().await;
    much_used(&house, &client, 50_000).await;
    let other = sold(&client, 100).await;
    let before = house.server.figures().feed_events;
    let mut greedy = Bare::open(&house, &house.admin, FEED_CREDIT_MAX, FeedSpec::from_start()).await;
    assert!(matches!(greedy.answer().await.unwrap().body, Body::Feed(_)));
    let log = house.engine.durable_end().bytes();
    // While it stands still the others do not.
    for code in &other {
        client.query(code).await.unwrap();
    }
    let ended = timeout(4 * SOON, async {
        let mut lag = u64::MAX;
        loop {
            let figures = house.server.figures();
            if figures.feeds > 0 {
                lag = lag.min(figures.feed_lag_bytes);
            }
            tokio::select! {
                closed = greedy.connection.closed() => break (closed, lag),
                () = tokio::time::sleep(Duration::from_millis(20)) => {}
            }
        }
    });
    let (closed, lag) = ended.await.expect("a feed that nobody takes is ended");
    let ConnectionError::ApplicationClosed(close) = closed else { panic!("{closed}") };
    assert_eq!(CloseCode::from_number(close.error_code.into_inner()), Some(CloseCode::TooSlow));
    let told = house.server.figures().feed_events - before;
    assert!(told < 40_000, "{told} events were told to nobody");
    assert!(log / 5 < lag && lag < log, "{lag} of {log} were left");
    house.shut_down().await;
}

/// Whatever is wrong with an acknowledgement, the feed ends with an answer, and nothing else does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledgements_that_do_not_fit_end_their_feed() {
    let house = House::open().await;
    let client = house.client().await;
    sold(&client, 10).await;
    let beyond = Lsn::from_bytes(house.engine.durable_end().bytes() + (1 << 30));
    for (seen, credit) in
        [(None, FEED_CREDIT_MAX), (None, u32::MAX), (beyond, 1), (Lsn::from_units((1 << 48) - 1), 0)]
    {
        let mut feed = Bare::open(&house, &house.admin, 1, FeedSpec::from_start()).await;
        feed.events(1).await;
        // Just as much as is allowed is allowed, but not again: there are few events to use it up.
        feed.ack(seen, credit).await;
        feed.ack(seen, credit).await;
        let status = loop {
            match feed.answer().await.expect("an answer") {
                Answer { body: Body::Events(_), .. } => {}
                answer => break answer.head.status,
            }
        };
        assert_eq!(status, Status::Malformed, "{seen:?} {credit}");
        assert_eq!(feed.answer().await, None, "and the stream ends");
    }
    // Back behind what was said before.
    let mut feed = Bare::open(&house, &house.admin, 3, FeedSpec::from_start()).await;
    let events = feed.events(3).await;
    feed.ack(Some(events[2].lsn), 0).await;
    feed.ack(Some(events[1].lsn), 0).await;
    assert_eq!(feed.status().await, Some(Status::Malformed));
    // Another command on a feed, and a frame that is none.
    let mut feed = Bare::open(&house, &house.admin, 0, FeedSpec::from_start()).await;
    assert!(matches!(feed.answer().await.unwrap().body, Body::Feed(_)));
    feed.ask(&Request::Ping).await;
    assert_eq!(feed.status().await, Some(Status::IllegalTransition));
    assert_eq!(feed.answer().await, None);
    let mut feed = Bare::open(&house, &house.admin, 0, FeedSpec::from_start()).await;
    assert!(matches!(feed.answer().await.unwrap().body, Body::Feed(_)));
    feed.send.write_all(&[0xff; 64]).await.unwrap();
    assert_eq!(feed.status().await, Some(Status::Unsupported));
    // Too much from the beginning.
    let mut feed = Bare::open(&house, &house.admin, FEED_CREDIT_MAX + 1, FeedSpec::from_start()).await;
    assert_eq!(feed.status().await, Some(Status::Malformed));
    // Where there is no feed, it is a command like others, and the stream goes on.
    let mut stream = Bare::of(&house, &house.admin).await;
    stream.ack(None, 1).await;
    stream.send.write_all(&ping(9)).await.unwrap();
    assert_eq!(stream.status().await, Some(Status::IllegalTransition));
    assert_eq!(stream.status().await, Some(Status::Ok));
    client.query(b"KAMI-00000000").await.unwrap();
    house.shut_down().await;
}

/// What came before FEED_OPEN on its stream is answered first, and a subscriber that ends its side gets what it granted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_may_ask_and_then_become_a_feed_and_end() {
    let house = House::open().await;
    let client = house.client().await;
    sold(&client, 10).await;
    let mut bare = Bare::of(&house, &house.admin).await;
    let mut all = BytesMut::from(&ping(1)[..]);
    let open = Request::FeedOpen(FeedOpen { credit: 2, spec: FeedSpec::from_start() });
    open.encode(&RequestHead::new(Opcode::FeedOpen, RequestId(2)), &mut all).unwrap();
    let ack = Request::FeedAck(FeedAck { seen: None, credit: 1 });
    ack.encode(&RequestHead::new(Opcode::FeedAck, RequestId(3)), &mut all).unwrap();
    bare.send.write_all(&all).await.unwrap();
    bare.send.finish().unwrap();
    let pong = bare.answer().await.unwrap();
    assert_eq!((pong.head.request, pong.body), (RequestId(1), Body::None));
    assert_eq!(bare.events(3).await.len(), 3);
    assert_eq!(bare.answer().await, None);
    house.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_position_of_another_history_is_refused() {
    let house = House::open().await;
    let client = house.client().await;
    sold(&client, 10).await;
    let mut all = client.subscribe(FeedSpec::from_start());
    let event = next(&mut all).await;
    let end = house.engine.durable_end();
    let ask = async |after, epoch| {
        let spec = FeedSpec { after, epoch, ..FeedSpec::from_start() };
        match timeout(SOON, client.subscribe(spec).next_past()).await.unwrap() {
            Err(ClientError::Refused { status, .. }) => Some(status),
            Ok(_) => None,
            Err(other) => panic!("{other:?}"),
        }
    };
    assert_eq!(ask(Some(event.lsn), event.epoch).await, None);
    assert_eq!(ask(Some(event.lsn), event.epoch + 1).await, Some(Status::PositionUnknown));
    assert_eq!(ask(Some(end), event.epoch).await, None);
    assert_eq!(ask(Lsn::from_bytes(end.bytes() + 8), 0).await, Some(Status::PositionUnknown));
    assert_eq!(ask(Lsn::from_units((1 << 48) - 1), 0).await, Some(Status::PositionUnknown));
    // Between two events, or in the middle of one: what stands behind.
    assert_eq!(ask(Lsn::from_bytes(event.lsn.bytes() + 8), event.epoch).await, None);
    // Before the first segment: nothing was ever there.
    assert_eq!(ask(Lsn::from_bytes(4096), 0).await, Some(Status::HistoryArchived));
    house.shut_down().await;
}

/// A revocation ends the feed where it stands: its principal hears nothing of what comes behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_subscriber_hears_nothing_more() {
    let house = House::open().await;
    let client = house.client().await;
    let codes = sold(&client, 10).await;
    let identity = house.authority.issue("auditor").unwrap();
    house.enrol_as(PrincipalSpec::of("auditor", Role::Auditor, identity.key_fingerprint().unwrap()));
    let auditor = Client::connect(house.options(&identity)).await.unwrap();
    let id = auditor.welcome().await.unwrap().principal;
    // By the engine alone, as who embeds it does: no connection is closed, the log itself says it.
    let mut feed = Bare::open(&house, &identity, 1000, only(&[Kind::Redeem, Kind::PrincipalRevoke])).await;
    redeem_all(&client, &codes[..3]).await;
    assert_eq!(feed.events(3).await.len(), 3);
    assert!(house.ask(Command::PrincipalRevoke(id)).status.is_done());
    redeem_all(&client, &codes[3..]).await;
    assert_eq!(feed.status().await, Some(Status::Unauthenticated));
    assert_eq!(feed.answer().await, None);
    // And by a command: the connection ends.
    let identity = house.authority.issue("second").unwrap();
    house.enrol_as(PrincipalSpec::of("second", Role::Finance, identity.key_fingerprint().unwrap()));
    let second = Client::connect(house.options(&identity)).await.unwrap();
    let id = second.welcome().await.unwrap().principal;
    let mut subscription = second.subscribe(only(&[Kind::Freeze]));
    let waiting = tokio::spawn(async move { subscription.next().await });
    while house.server.figures().feeds == 0 {
        tokio::task::yield_now().await;
    }
    client.principal_revoke(id).await.unwrap();
    client.freeze(&codes[0]).await.unwrap();
    let heard = timeout(Duration::from_secs(15), waiting).await.unwrap().unwrap();
    assert!(matches!(heard, Err(ClientError::Unauthenticated)), "{heard:?}");
    house.shut_down().await;
}

/// Deny by default: another tenant's, another merchant's, another product's events and totals are nobody's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscriber_sees_its_own() {
    let house = House::open().await;
    let client = house.client().await;
    let coffee = stock(&client, "coffee", 10).await;
    let tea = kami_engine::ProductSpec::single("tea", *b"CNY", 3000);
    let tea = client.product_add(tea).await.unwrap().value.id;
    crate::house::import(&client, tea, 10, 10).await;
    let mut codes = Vec::new();
    for (order, product) in [(1, coffee), (2, tea)] {
        let sold = client.sell(OrderId(order), product, 4, SellOptions::default()).await.unwrap();
        codes.push(sold.value.cards[0].code.to_vec());
        codes.push(sold.value.cards[1].code.to_vec());
    }
    let as_till = async |name: &str, merchant: u32| {
        let identity = house.authority.issue(name).unwrap();
        let key = identity.key_fingerprint().unwrap();
        house.enrol_as(PrincipalSpec {
            merchant: MerchantId(merchant),
            ..PrincipalSpec::of(name, Role::Redeemer, key)
        });
        Client::connect(house.options(&identity)).await.unwrap()
    };
    let (till, other) = (as_till("till", 5).await, as_till("other", 6).await);
    for (at, code) in codes.iter().enumerate() {
        let till = if at % 2 == 0 { &till } else { &other };
        till.redeem(code, RedeemOptions::default()).await.unwrap();
    }
    let look = async |name: &str, merchant: u32, products: Vec<ProductId>, role| {
        let identity = house.authority.issue(name).unwrap();
        let key = identity.key_fingerprint().unwrap();
        house.enrol_as(PrincipalSpec {
            merchant: MerchantId(merchant),
            products,
            ..PrincipalSpec::of(name, role, key)
        });
        let client = Client::connect(house.options(&identity)).await.unwrap();
        let mut past = client.subscribe(FeedSpec::from_start());
        let mut seen = Vec::new();
        while let Some(event) = timeout(SOON, past.next_past()).await.unwrap().unwrap() {
            if event.kind == Kind::Redeem {
                seen.push((event.merchant.0, event.product.unwrap()));
            } else if event.product.is_none() {
                seen.push((999, ProductId(0)));
            }
        }
        let mut totals = Vec::new();
        let query = TotalsQuery { lines_max: 1, ..today(&house) };
        client
            .reconcile(query, |line| {
                if line.key.kind == Kind::Redeem.number() {
                    totals.push((line.key.merchant.0, line.key.product, line.amount));
                }
            })
            .await
            .unwrap();
        seen.retain(|(merchant, _)| *merchant != 999 || !name.starts_with("all"));
        (seen, totals)
    };
    let all = [(5, coffee), (6, coffee), (5, tea), (6, tea)];
    let worth = |product| if product == coffee { 2000 } else { 3000 };
    let expect = |seen: &[(u32, ProductId)]| {
        let mut totals: Vec<_> = seen.iter().map(|(m, product)| (*m, *product, worth(*product))).collect();
        totals.sort_unstable();
        (seen.to_vec(), totals)
    };
    assert_eq!(look("all", 0, vec![], Role::Auditor).await, expect(&all));
    assert_eq!(look("all by an admin", 5, vec![], Role::Admin).await, expect(&all));
    assert_eq!(look("merchant 5", 5, vec![], Role::Finance).await, expect(&[all[0], all[2]]));
    assert_eq!(look("tea", 0, vec![tea], Role::Operator).await, expect(&[all[2], all[3]]));
    assert_eq!(look("tea of 6", 6, vec![tea], Role::Finance).await, expect(&[all[3]]));
    house.shut_down().await;
}

fn today(house: &House) -> TotalsQuery {
    let kami_engine::ReplyBody::Stats(stats) = house.ask(Command::Stats).body else { panic!() };
    let day = (stats.time_ms / 86_400_000) as u32;
    TotalsQuery { day: day - 1, days: 3, offset_min: 0, lines_max: 16_384, end: None, after: None }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn totals_come_in_pages_of_one_moment_and_refuse_what_they_cannot_be() {
    let house = House::open().await;
    let client = house.client().await;
    let codes = sold(&client, 20).await;
    redeem_all(&client, &codes[..5]).await;
    let query = today(&house);
    let page = client.reconcile_page(TotalsQuery { lines_max: 1, ..query }).await.unwrap().value;
    assert!(page.more && page.lines.len() == 1, "{page:?}");
    assert_eq!((page.lines[0].count, page.lines[0].amount), (5, 10_000));
    assert_eq!(page.lines[0].key.kind, Kind::Redeem.number());
    // Between two pages more happens: the pages are of one moment.
    redeem_all(&client, &codes[5..]).await;
    let next = TotalsQuery { end: Some(page.end), after: Some(page.lines[0].key), ..query };
    let page = client.reconcile_page(next).await.unwrap().value;
    assert!(!page.more, "{page:?}");
    assert_eq!((page.lines[0].count, page.lines[0].amount), (20, 40_000));
    assert_eq!(page.lines[0].key.kind, Kind::Sell.number());
    let mut redeemed = 0;
    let mut count = |line: &kami_engine::TotalLine| {
        redeemed += if line.key.kind == Kind::Redeem.number() { line.count } else { 0 };
    };
    client.reconcile(query, &mut count).await.unwrap();
    assert_eq!(redeemed, 20);
    // Nothing happened in another year.
    let other = TotalsQuery { day: 100, ..query };
    assert_eq!(client.reconcile_page(other).await.unwrap().value.lines, []);
    let end = Lsn::from_bytes(house.engine.durable_end().bytes() + 8);
    for (query, status) in [
        (TotalsQuery { days: 0, ..query }, Status::Malformed),
        (TotalsQuery { days: 367, ..query }, Status::Malformed),
        (TotalsQuery { offset_min: i16::MIN, ..query }, Status::Malformed),
        (TotalsQuery { lines_max: 16_385, ..query }, Status::Malformed),
        (TotalsQuery { end, ..query }, Status::PositionUnknown),
    ] {
        let refused = client.reconcile_page(query).await;
        assert!(matches!(refused, Err(ClientError::Refused { status: s, .. }) if s == status), "{query:?}");
    }
    house.shut_down().await;
}

/// Over a restart of the server the subscription goes on: nothing twice, nothing missing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_survives_restarts() {
    let house = House::open().await;
    let client = house.client().await;
    let codes = sold(&client, 300).await;
    let mut subscription = client.subscribe(only(&[Kind::Redeem])).with_credit(7);
    let address = house.server.local_addr().unwrap();
    let identity = house.authority.issue_server(&[]).unwrap();
    let mut server = house.server;
    let mut serving = house.serving;
    let mut seen = Vec::new();
    for round in codes.chunks(100) {
        redeem_all(&client, round).await;
        for _ in 0..70 {
            seen.push(next(&mut subscription).await);
        }
        server.shutdown();
        timeout(Duration::from_secs(15), serving).await.unwrap().unwrap().unwrap();
        drop(server);
        server = loop {
            // The socket of the one before goes with its last handle, in a moment.
            match Server::bind(house.engine.clone(), ServerOptions::new(address, identity.clone())) {
                Ok(server) => break server,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        };
        serving = tokio::spawn({
            let server = server.clone();
            async move { server.serve().await }
        });
    }
    for _ in seen.len()..300 {
        seen.push(timeout(Duration::from_secs(20), subscription.next()).await.unwrap().unwrap());
    }
    let rows: Vec<u64> = seen.iter().map(|event| event.card.unwrap().row()).collect();
    assert_eq!(rows, (0..300).collect::<Vec<u64>>());
    server.shutdown();
    serving.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn feeds_are_counted_and_places_given_back() {
    let house = House::with(Drive::Threads, |options| {
        options.feeds_max = 3;
        options.feeds_per_principal_max = 2;
    })
    .await;
    let second = house.authority.issue("second").unwrap();
    house.enrol("second", Role::Auditor, &second);
    let open = async |identity: &Identity| {
        let mut feed = Bare::open(&house, identity, 0, FeedSpec::from_start()).await;
        let status = feed.status().await.unwrap();
        (feed, status)
    };
    let (first, status) = open(&house.admin).await;
    assert_eq!(status, Status::Ok);
    let (_second, status) = open(&house.admin).await;
    assert_eq!(status, Status::Ok);
    assert_eq!(open(&house.admin).await.1, Status::Busy, "of one principal");
    let (_third, status) = open(&second).await;
    assert_eq!(status, Status::Ok);
    assert_eq!(open(&second).await.1, Status::Busy, "in all");
    assert_eq!(house.server.figures().feeds, 3);
    drop(first);
    let gone = async {
        while house.server.figures().feeds == 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(15), gone).await.expect("a feed that is gone gives its place back");
    assert_eq!(open(&second).await.1, Status::Ok);
    house.shut_down().await;
}
