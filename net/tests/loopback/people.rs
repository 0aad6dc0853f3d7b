//! Who may do what, and what guessing gets.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kami_engine::{
    CertificateNote, Command, Lifecycle, OrderId, PrincipalSpec, ProductSpec, Renewal, ReplyBody, ReplyFlags,
    RequestId, Role, Status,
};
use kami_net::client::{RedeemOptions, SellOptions};
use kami_net::frame::reply::Answer;
use kami_net::frame::request::{Item, Items, OneCard, ProofOf, Redeem, Reverse};
use kami_net::frame::{Body, CloseCode, Opcode, Request, RequestHead, Secret, Wait};
use kami_net::{Client, ClientError, MissLimits};
use kami_wal::Drive;
use quinn::ConnectionError;
use time::OffsetDateTime;
use tokio::time::timeout;

use crate::hostile::{SOON, answers, frame, ping, raw};
use crate::house::{House, ask_by, code, import, push_redeem, sold, stock};

/// Every role sends every number there is; the table itself is held against another in `frames/roles.rs`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_role_is_refused_what_it_may_not() {
    let house = House::open().await;
    for role in Role::ALL {
        let identity = house.authority.issue(role.name()).unwrap();
        let name = format!("the {}", role.name());
        house.enrol(&name, role, &identity);
        let connection = raw(&house, Some(&identity), b"kami/1").await.unwrap();
        let (mut send, mut recv) = connection.open_bi().await.unwrap();
        for opcode in Opcode::ALL {
            // A body that none of them takes: whoever may send it is told that, and nothing happens.
            let mut bytes = ping(1);
            bytes[6..8].copy_from_slice(&opcode.number().to_le_bytes());
            bytes.extend([0xff; 7]);
            bytes[0] += 7;
            send.write_all(&bytes).await.unwrap();
            let status = answers(&mut recv, 1).await[0].head.status;
            let expected = match (opcode.allows(role), opcode.is_served()) {
                (false, _) => Status::Forbidden,
                (true, false) => Status::Unsupported,
                (true, true) => Status::Malformed,
            };
            assert_eq!(status, expected, "{} by {}", opcode.code(), role.name());
        }
    }
    house.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scope_is_all_there_is() {
    let house = House::open().await;
    let admin = house.client().await;
    let coffee = stock(&admin, "coffee", 10).await;
    let spec = kami_engine::ProductSpec::single("tea", *b"CNY", 3000);
    let tea = admin.product_add(spec).await.unwrap().value.id;
    crate::house::import(&admin, tea, 10, 10).await;
    let order = |n| OrderId(n);
    let sold_tea = admin.sell(order(1), tea, 1, SellOptions::default()).await.unwrap().value;
    let sold_coffee = admin.sell(order(2), coffee, 1, SellOptions::default()).await.unwrap().value;
    let client_of = async |name: &str, role| {
        let identity = house.authority.issue(name).unwrap();
        let key = identity.key_fingerprint().unwrap();
        house.enrol_as(PrincipalSpec { products: vec![coffee], ..PrincipalSpec::of(name, role, key) });
        Client::connect(house.options(&identity)).await.unwrap()
    };
    let refused = |result: Result<(), ClientError>| match result {
        Err(ClientError::Refused { status, .. }) => status,
        other => panic!("{other:?}"),
    };
    let till = client_of("coffee till", Role::Redeemer).await;
    let tea_code = &sold_tea.cards[0].code;
    let redeem = async |code: &[u8]| till.redeem(code, RedeemOptions::default()).await.map(drop);
    assert_eq!(refused(redeem(tea_code).await), Status::ScopeDenied);
    // What is not sold is not even that.
    assert_eq!(refused(redeem(&code(15)).await), Status::CardNotValid);
    assert_eq!(refused(till.query(tea_code).await.map(drop)), Status::ScopeDenied);
    redeem(&sold_coffee.cards[0].code).await.unwrap();
    assert_eq!(admin.query(tea_code).await.unwrap().value.lifecycle, Lifecycle::Sold);

    let seller = client_of("coffee seller", Role::Seller).await;
    let sell = async |product, n| seller.sell(order(n), product, 1, SellOptions::default()).await.map(drop);
    assert_eq!(refused(sell(tea, 3).await), Status::ScopeDenied);
    sell(coffee, 4).await.unwrap();
    let products = seller.product_list().await.unwrap().value.rows;
    assert_eq!(products.iter().map(|product| product.id).collect::<Vec<_>>(), [coffee]);
    assert!(seller.stock(None).await.unwrap().value.rows.iter().all(|line| line.product == coffee));
    let auditor = client_of("coffee auditor", Role::Auditor).await;
    assert_eq!(refused(auditor.principal_list().await.map(drop)), Status::ScopeDenied);
    assert_eq!(refused(auditor.stats().await.map(drop)), Status::ScopeDenied);
    // A scope for whoever gives them out would be none.
    let key = [9; 32];
    let spec = PrincipalSpec { products: vec![coffee], ..PrincipalSpec::of("boss", Role::Admin, key) };
    assert_eq!(refused(admin.principal_add(spec).await.map(drop)), Status::Malformed);
    house.shut_down().await;
}

/// Unlimited, so that nothing but the answers themselves can tell.
const GENEROUS: MissLimits =
    MissLimits { principal_per_minute: 1_000_000, card_per_hour: 1_000_000, in_all_per_minute: 1_000_000 };

/// Whatever a till asks and how often, a card in stock answers as a code that nobody has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cards_in_stock_answer_like_codes_nobody_has() {
    let house = House::with(Drive::Threads, |options| options.misses = GENEROUS).await;
    let admin = house.client().await;
    stock(&admin, "coffee", 10).await;
    // One has a past of another kind.
    admin.freeze(&code(1)).await.unwrap();
    admin.unfreeze(&code(1)).await.unwrap();
    let identity = house.authority.issue("till").unwrap();
    house.enrol("till", Role::Redeemer, &identity);
    let connection = raw(&house, Some(&identity), b"kami/1").await.unwrap();
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    let mut transcripts: Vec<Vec<(u128, Status, bool, Body)>> = Vec::new();
    for card in [code(0), code(1), code(777)] {
        let card = Secret(&card);
        let head = |opcode, id: u128| RequestHead::new(opcode, RequestId(id));
        let mut frames = Vec::new();
        // More reversals than a card keeps, with new ids and with ids used again for others.
        for n in 1..=150_u128 {
            let body = Reverse { original: RequestId(5000 + n / 2 * 3), code: card };
            frames.push(frame(&head(Opcode::Reverse, n % 100 + 1), &Request::Reverse(body)));
        }
        for n in [1, 5000, 5003, 9999] {
            let body = Redeem { amount: 0, code: card, pin: None };
            frames.push(frame(&head(Opcode::Redeem, n), &Request::Redeem(body)));
            let body = Redeem { amount: 5, code: card, pin: Some(Secret(b"1234")) };
            frames.push(frame(&head(Opcode::Redeem, n + 1), &Request::Redeem(body)));
            frames.push(frame(&head(Opcode::Query, n + 2), &Request::Query(OneCard { code: card })));
        }
        let count = frames.len();
        send.write_all(&frames.concat()).await.unwrap();
        let told = answers(&mut recv, count).await.into_iter().map(|Answer { head, body }| {
            assert_eq!(head.flags, kami_engine::ReplyFlags::default());
            (head.request.0, head.status, head.lsn.is_some(), body)
        });
        transcripts.push(told.collect());
    }
    assert_eq!(transcripts[0], transcripts[2]);
    assert_eq!(transcripts[1], transcripts[2]);
    // Each cost as much, too.
    assert_eq!(admin.stats().await.unwrap().value.misses, 3 * transcripts[0].len() as u64);
    house.shut_down().await;
}

/// A batch decides each code once, so that one write of many guesses at a PIN gets no more than many writes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_write_gets_no_more_of_a_card_than_many() {
    let limits = MissLimits { principal_per_minute: 6000, card_per_hour: 5, in_all_per_minute: 6000 };
    let house = House::with(Drive::Threads, |options| options.misses = limits).await;
    let identity = house.authority.issue("till").unwrap();
    house.enrol("till", Role::Redeemer, &identity);
    let connection = raw(&house, Some(&identity), b"kami/1").await.unwrap();
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    let pins: Vec<String> = (0..64).map(|pin| format!("{pin:04}")).collect();
    let one = code(1);
    let frames = pins.iter().zip(1..).flat_map(|(pin, n)| {
        let pin = Some(Secret(pin.as_bytes()));
        let body = Redeem { amount: 0, code: Secret(&one), pin };
        frame(&RequestHead::new(Opcode::Redeem, RequestId(n)), &Request::Redeem(body))
    });
    send.write_all(&frames.collect::<Vec<u8>>()).await.unwrap();
    let told = answers(&mut recv, 64).await;
    let decided = told.iter().filter(|answer| answer.head.status == Status::CardNotValid).count();
    assert_eq!(decided, 5);
    assert!(told[5..].iter().all(|answer| answer.head.status == Status::RateLimited));

    let two = code(2);
    let items: Vec<_> = pins
        .iter()
        .zip(1..)
        .map(|(pin, n)| Item {
            request: RequestId(n),
            amount: 0,
            code: Secret(&two),
            pin: Some(Secret(pin.as_bytes())),
        })
        .collect();
    let batch = Request::RedeemBatch(Items::new(&items));
    send.write_all(&frame(&RequestHead::new(Opcode::RedeemBatch, RequestId(99)), &batch)).await.unwrap();
    let Body::Items(listing) = answers(&mut recv, 1).await.remove(0).body else { panic!("items") };
    let statuses: Vec<Status> = listing.rows.iter().map(|report| report.status).collect();
    assert_eq!(statuses[..5], [Status::CardNotValid; 5]);
    assert!(statuses[5..].iter().all(|status| *status == Status::RateLimited), "{statuses:?}");
    house.shut_down().await;
}

/// A till that guesses is turned away and told for how long; nobody else notices, least of all the
/// customer whose card it guessed at.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guesser_is_turned_away_and_nobody_else() {
    let limits = MissLimits { principal_per_minute: 6, card_per_hour: 5, in_all_per_minute: 6000 };
    let house = House::with(Drive::Threads, |options| options.misses = limits).await;
    let admin = house.client().await;
    let codes = sold(&admin, 20).await;
    let identity = house.authority.issue("till").unwrap();
    house.enrol("till", Role::Redeemer, &identity);
    let connection = raw(&house, Some(&identity), b"kami/1").await.unwrap();
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    let query = |n: u128, card: &[u8]| {
        let head = RequestHead::new(Opcode::Query, RequestId(n));
        frame(&head, &Request::Query(OneCard { code: Secret(card) }))
    };
    // A thousand guesses in one write.
    let guesses: Vec<u8> = (1..=1000).flat_map(|n| query(n, &code(5000 + n as usize))).collect();
    send.write_all(&guesses).await.unwrap();
    let told = answers(&mut recv, 1000).await;
    let missed = told.iter().filter(|answer| answer.head.status == Status::CardNotValid).count();
    assert_eq!(missed, 60, "one stream never gets more than the burst");
    for answer in &told[60..] {
        assert_eq!(answer.head.status, Status::RateLimited);
        let Body::Wait(Wait { wait_ms }) = answer.body else { panic!("{answer:?}") };
        assert!((1..=10_001).contains(&wait_ms), "{wait_ms}");
    }
    // Right codes of this till have to wait, too; its session goes on.
    send.write_all(&[query(1, &codes[0]), ping(2)].concat()).await.unwrap();
    let told = answers(&mut recv, 2).await;
    assert_eq!((told[0].head.status, told[1].head.status), (Status::RateLimited, Status::Ok));
    // Connecting again is no way out.
    let mut options = house.options(&identity);
    options.timeout = Duration::from_millis(500);
    let again = Client::connect(options).await.unwrap();
    let refused = again.redeem(&codes[0], RedeemOptions::default()).await;
    let Err(ClientError::Refused { status: Status::RateLimited, answer }) = refused else {
        panic!("{refused:?}")
    };
    assert!(matches!(answer.body, Body::Wait(_)));
    // Others are served, and so is the card that was guessed at.
    let impatient = |options: &mut kami_net::ClientOptions| options.timeout = Duration::from_millis(500);
    let other = house.client_as_with("other till", Role::Redeemer, impatient).await;
    other.redeem(&codes[0], RedeemOptions::default()).await.unwrap();
    // A wrong PIN or code five times is enough of that card for that till, and for nobody else.
    for _ in 0..5 {
        assert!(other.redeem(&code(9999), RedeemOptions::default()).await.is_err());
    }
    let refused = other.query(&code(9999)).await;
    assert!(matches!(refused, Err(ClientError::Refused { status: Status::RateLimited, .. })), "{refused:?}");
    other.redeem(&codes[1], RedeemOptions::default()).await.unwrap();
    let stats = admin.stats().await.unwrap().value;
    assert_eq!((stats.misses, stats.budgets_spent), (65, 2));
    assert!(stats.rate_limited >= 942, "{}", stats.rate_limited);
    house.shut_down().await;
}

/// Counted from the receipt, so that the time of the reply does not tell what had to be done for it; in one frame of
/// many, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_code_is_answered_after_a_time_of_its_own() {
    let house = House::open().await;
    let admin = house.client().await;
    let codes = sold(&admin, 2).await;
    let tea = admin.product_add(ProductSpec::single("tea", *b"CNY", 500)).await.unwrap().value.id;
    import(&admin, tea, 100, 1).await;
    let till = house.client_as("till", Role::Redeemer).await;
    for wrong in [&code(9999), &code(100)] {
        let asked = Instant::now();
        till.redeem(wrong, RedeemOptions::default()).await.unwrap_err();
        assert!(Duration::from_millis(2) <= asked.elapsed(), "{:?}", asked.elapsed());
    }
    let (right, wrong) = (&codes[0], code(9998));
    let item = |code| Item { request: RequestId::random(), amount: 0, code: Secret(code), pin: None };
    let asked = Instant::now();
    let answer = till.redeem_batch(&[item(right), item(&wrong)]).await.unwrap();
    assert!(Duration::from_millis(2) <= asked.elapsed(), "{:?}", asked.elapsed());
    assert_eq!(answer.value.len(), 2);
    till.redeem(&codes[1], RedeemOptions::default()).await.unwrap();
    house.shut_down().await;
}

/// Also in many streams and connections at once: what threads decide at the same moment may come on top.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_streams_do_not_multiply_a_budget() {
    let limits = MissLimits { principal_per_minute: 6, card_per_hour: 5, in_all_per_minute: 6000 };
    let house = House::with(Drive::Threads, |options| options.misses = limits).await;
    let identity = house.authority.issue("till").unwrap();
    house.enrol("till", Role::Redeemer, &identity);
    let mut tasks = tokio::task::JoinSet::new();
    for connection_no in 0..4 {
        let connection = raw(&house, Some(&identity), b"kami/1").await.unwrap();
        for stream_no in 0..8 {
            let connection = connection.clone();
            tasks.spawn(async move {
                let (mut send, mut recv) = connection.open_bi().await.unwrap();
                let guesses = (1..=64_u128).flat_map(|n| {
                    let head = RequestHead::new(Opcode::Query, RequestId(n));
                    let card = code(10_000 + connection_no * 1000 + stream_no * 100 + n as usize);
                    frame(&head, &Request::Query(OneCard { code: Secret(&card) }))
                });
                send.write_all(&guesses.collect::<Vec<u8>>()).await.unwrap();
                answers(&mut recv, 64).await
            });
        }
    }
    let mut missed = 0;
    while let Some(told) = tasks.join_next().await {
        let told = told.unwrap();
        missed += told.iter().filter(|answer| answer.head.status == Status::CardNotValid).count();
    }
    // Two threads.
    assert!((60..=121).contains(&missed), "{missed}");
    house.shut_down().await;
}

/// Proofs are made one after the other, so that many of a peer's may wait; each had been let in while there was a budget.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proofs_that_waited_together_got_more_than_the_budget() {
    let limits = MissLimits { principal_per_minute: 1, card_per_hour: 5, in_all_per_minute: 6000 };
    let house = House::with(Drive::Threads, |options| options.misses = limits).await;
    let identity = house.authority.issue("auditor").unwrap();
    house.enrol("auditor", Role::Auditor, &identity);
    let connection = raw(&house, Some(&identity), b"kami/1").await.unwrap();
    let mut streams = Vec::new();
    for number in 0..30 {
        let (mut send, mut recv) = connection.open_bi().await.unwrap();
        send.write_all(&ping(1)).await.unwrap();
        answers(&mut recv, 1).await;
        streams.push((number, send, recv));
    }
    for (number, send, _) in &mut streams {
        let (head, card) = (RequestHead::new(Opcode::Proof, RequestId(2)), code(10_000 + *number));
        let proof = ProofOf { code: Secret(&card), size: 0, from: 0 };
        send.write_all(&frame(&head, &Request::Proof(proof))).await.unwrap();
    }
    let mut told = Vec::new();
    for (_, _, recv) in &mut streams {
        told.push(answers(recv, 1).await[0].head.status);
    }
    let limited = told.iter().filter(|status| **status == Status::RateLimited).count();
    assert!((19..=20).contains(&limited), "ten in ten minutes, and perhaps the next: {told:?}");
    house.shut_down().await;
}

/// A key that is taken from one principal and given to the next at once opened what the first had open.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_went_on_as_who_had_the_key_before() {
    let house = House::open().await;
    let identity = house.authority.issue("till").unwrap();
    house.enrol("till", Role::Redeemer, &identity);
    let till = raw(&house, Some(&identity), b"kami/1").await.unwrap();
    let (mut send, mut recv) = till.open_bi().await.unwrap();
    send.write_all(&ping(1)).await.unwrap();
    answers(&mut recv, 1).await;
    let key = identity.key_fingerprint().unwrap();
    let principal = house.engine.principal_by_key(&key).unwrap().id;
    let next = house.authority.issue("till").unwrap().key_fingerprint().unwrap();
    let renewal = Renewal { principal, key: next, certificate: CertificateNote::default() };
    let spec = PrincipalSpec::of("another", Role::Auditor, key);
    // Decided together: when the server looks, the key is known again.
    let mut both = frame(
        &RequestHead::new(Opcode::PrincipalRenew, RequestId(1)),
        &Request::PrincipalRenew(Box::new(renewal)),
    );
    let add = RequestHead::new(Opcode::PrincipalAdd, RequestId(2));
    both.extend(frame(&add, &Request::PrincipalAdd(Box::new(spec))));
    let admin = raw(&house, Some(&house.admin), b"kami/1").await.unwrap();
    let (mut send, mut recv) = admin.open_bi().await.unwrap();
    send.write_all(&both).await.unwrap();
    assert!(answers(&mut recv, 2).await.iter().all(|answer| answer.head.status == Status::Ok));
    timeout(SOON, till.closed()).await.unwrap();
    house.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_certificate_is_told_by_name_and_day() {
    let house = House::open().await;
    let end = OffsetDateTime::UNIX_EPOCH + Duration::from_secs(1_750_000_000);
    let expired = house.identity_until("till-17", end);
    house.enrol("till-17", Role::Redeemer, &expired);
    let error = Client::connect(house.options(&expired)).await.unwrap_err().to_string();
    assert!(error.contains("expired on 2025-06-15"), "{error}");
    assert!(error.contains("kami principal renew till-17"), "{error}");
    // One that ends while its connection stands.
    let soon = house.identity_until("till-18", OffsetDateTime::now_utc() + Duration::from_secs(2));
    house.enrol("till-18", Role::Redeemer, &soon);
    let connection = raw(&house, Some(&soon), b"kami/1").await.unwrap();
    let closed = timeout(SOON, connection.closed()).await.unwrap();
    let ConnectionError::ApplicationClosed(close) = closed else { panic!("{closed}") };
    let code = CloseCode::from_number(close.error_code.into_inner());
    assert_eq!(code, Some(CloseCode::CertificateExpired));
    house.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewed_principal_is_the_same_one() {
    let house = House::open().await;
    let admin = house.client().await;
    let identity = house.authority.issue("till").unwrap();
    house.enrol("till", Role::Redeemer, &identity);
    let till = Client::connect(house.options(&identity)).await.unwrap();
    let principal = till.welcome().await.unwrap().principal;
    // The same key: nothing is cut.
    let key = identity.key_fingerprint().unwrap();
    let certificate = CertificateNote { serial: 77, expires_ms: 1 << 41 };
    let (first, id) = (Renewal { principal, key, certificate }, RequestId::random());
    let renewed = admin.send_as(id, &Request::PrincipalRenew(Box::new(first))).await.unwrap();
    let Body::Principals(renewed) = renewed.body else { panic!("a principal") };
    assert_eq!((renewed.rows[0].id, renewed.rows[0].spec.certificate), (principal, certificate));
    till.welcome().await.unwrap();
    // Another key: the old one opens nothing from then on.
    let next = house.authority.issue("till").unwrap();
    let connection = raw(&house, Some(&identity), b"kami/1").await.unwrap();
    let key = next.key_fingerprint().unwrap();
    admin.principal_renew(Renewal { principal, key, certificate }).await.unwrap();
    timeout(SOON, connection.closed()).await.unwrap();
    assert!(matches!(Client::connect(house.options(&identity)).await, Err(ClientError::Unauthenticated)));
    let till = Client::connect(house.options(&next)).await.unwrap();
    assert_eq!(till.welcome().await.unwrap().principal, principal);
    let stands = raw(&house, Some(&next), b"kami/1").await.unwrap();
    let (mut send, mut recv) = stands.open_bi().await.unwrap();
    send.write_all(&ping(1)).await.unwrap();
    answers(&mut recv, 1).await;
    // The first renewal comes once more: it is answered, and cuts nobody whose key is good now.
    let again = Request::PrincipalRenew(Box::new(first));
    let replayed = admin.send_as(id, &again).await.unwrap();
    assert_eq!((replayed.head.status, replayed.head.flags), (Status::Ok, ReplyFlags::REPLAYED));
    send.write_all(&ping(2)).await.unwrap();
    assert_eq!(answers(&mut recv, 1).await[0].head.status, Status::Ok);
    // Another's key is refused.
    let others = house.admin.key_fingerprint().unwrap();
    let refused = admin.principal_renew(Renewal { principal, key: others, certificate }).await;
    assert!(
        matches!(refused, Err(ClientError::Refused { status: Status::AlreadyExists, .. })),
        "{refused:?}"
    );
    house.shut_down().await;
}

/// Nothing that a revoked principal sent is decided once its revocation is answered, wherever it was then.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn nothing_is_decided_behind_a_revocation() {
    let house = House::open().await;
    let admin = house.client().await;
    let codes = sold(&admin, 30_000).await;
    let till = house.client_as("till", Role::Redeemer).await;
    let principal = till.welcome().await.unwrap().principal;
    let busy = Arc::new(AtomicBool::new(false));
    let mut pushers = tokio::task::JoinSet::new();
    for part in codes.chunks(codes.len() / 4) {
        let (mut sender, _receiver) = till.channel().await.unwrap();
        let (part, busy) = (part.to_vec(), Arc::clone(&busy));
        pushers.spawn(async move {
            for chunk in part.chunks(64) {
                for code in chunk {
                    push_redeem(&mut sender, code);
                }
                if sender.flush().await.is_err() {
                    return;
                }
                busy.store(true, Ordering::Relaxed);
            }
        });
    }
    while !busy.load(Ordering::Relaxed) {
        tokio::task::yield_now().await;
    }
    let redeemed = || {
        let ReplyBody::Stats(stats) = house.ask(Command::Stats).body else { panic!("stats") };
        stats.counts[Lifecycle::Redeemed as usize]
    };
    admin.principal_revoke(principal).await.unwrap();
    let then = redeemed();
    while pushers.join_next().await.is_some() {}
    assert_eq!(redeemed(), then);
    // And the engine itself says no, whatever comes to it in that name.
    let card = house.engine.digest(kami_engine::TenantId(0), &codes[29_999]).unwrap();
    let caller = kami_engine::Caller { principal, role: Role::Redeemer, ..kami_engine::Caller::LOCAL };
    for command in [
        Command::Redeem { card, pin: None, amount: 0, partial: false },
        Command::Query { card },
        Command::ProductList,
    ] {
        assert_eq!(ask_by(&house.engine, caller, command).status, Status::Unauthenticated);
    }
    house.shut_down().await;
}

/// A client that died with replies under way does not hold up a shutdown.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_does_not_wait_for_the_dead() {
    let house = House::open().await;
    let admin = house.client().await;
    let codes = sold(&admin, 1).await;
    admin.close().await;
    let options = house.options(&house.admin);
    let code = codes[0].clone();
    let gone = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let client = runtime.block_on(async {
            let client = Client::connect(options).await.unwrap();
            client.query(&code).await.unwrap();
            client
        });
        std::mem::forget(client);
        // Not polled again: it acknowledges nothing any more.
        std::mem::forget(runtime);
    });
    gone.join().unwrap();
    assert_eq!(house.server.connection_count(), 1);
    let begin = Instant::now();
    house.shut_down().await;
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
}
