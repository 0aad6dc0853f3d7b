//! What a shop does in a day, over the wire.

use std::time::Duration;

use kami_engine::{
    AccountKind, AccountSpec, Caller, CardProof, Command, Confirmation, ConsistencyProof, DocumentId,
    ImportReport, ImportRow, ImportSpec, Leg, Lifecycle, Line, OrderId, OrderState, Posting, PrincipalId,
    ProductSpec, ProofCheckpoint, Purchase, ReplyFlags, RequestId, Role, Status, TenantId, VerifierKey,
};
use kami_net::ClientError;
use kami_net::client::{Delivery, RedeemOptions, ReverseOptions, Row, RowList, Rows, Staged};
use kami_net::frame::request::{ChunkRows, Item, OneCard, OneImport, Redeem};
use kami_net::frame::{Body, Request, RequestHead, Secret};

use crate::hostile::{answers, frame, raw};
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

    let reversal = ReverseOptions { request: Some(RequestId::random()) };
    let reversed = client.reverse(&card, id, reversal).await.unwrap();
    let again = client.reverse(&card, id, reversal).await.unwrap();
    assert_eq!(
        (again.lsn, again.flags),
        (reversed.lsn, ReplyFlags::REPLAYED),
        "an id of one's own can be repeated"
    );
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

/// Redemptions that come close behind each other have their codes digested together. Each must still be of its own card,
/// however the code was typed and whatever stands between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_of_many_redemptions_in_one_write_is_of_its_own_card() {
    let house = House::open().await;
    let codes = sold(&house.client().await, 1000).await;
    let (mut all, mut expected) = (Vec::new(), Vec::new());
    for (n, code) in codes.iter().enumerate() {
        let typed = match n % 7 {
            2 => [b" ", &code[..4], b"\t", &code[4..]].concat(),
            5 => String::from_utf8(code.clone()).unwrap().replace('0', "\u{ff10}").into_bytes(),
            _ => code.clone(),
        };
        let redeem = |code| Request::Redeem(Redeem { amount: 0, code: Secret(code), pin: None });
        let (request, status) = match n % 11 {
            3 => (Request::Query(OneCard { code: Secret(code) }), Status::Ok),
            4 => (redeem(&b"x"[..]), Status::CardNotValid),
            // The card before it again, within the same read, by another who asks.
            5 => (redeem(&codes[n - 3]), Status::AlreadyRedeemed),
            _ => (redeem(&typed[..]), Status::Ok),
        };
        all.extend_from_slice(&frame(
            &RequestHead::new(request.opcode(), RequestId(1 + n as u128)),
            &request,
        ));
        expected.push(status);
    }
    let connection = raw(&house, Some(&house.admin), b"kami/1").await.unwrap();
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    send.write_all(&all).await.unwrap();
    let answers = answers(&mut recv, codes.len()).await;
    for (n, (answer, status)) in answers.iter().zip(expected).enumerate() {
        assert_eq!((answer.head.request, answer.head.status), (RequestId(1 + n as u128), status), "card {n}");
    }
    for (n, code) in codes.iter().enumerate() {
        let card = house.engine.digest(TenantId(0), code).unwrap();
        let outcome = house.ask(Command::OutcomeOf { card, request: RequestId(1 + n as u128) });
        let expected = if matches!(n % 11, 3..=5) { Status::NoEffect } else { Status::Ok };
        assert_eq!(outcome.status, expected, "card {n}");
    }
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
    let spec = ImportSpec::of(product, 500, 16);
    let rows: Vec<Row> = (900..1400).map(|n| Row { code: code(n).into(), ..Row::default() }).collect();
    match client.import(RequestId(5), &spec, &mut RowList::new(&rows), |_| ()).await {
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
async fn an_import_is_gone_on_with_by_its_name_and_leaves_out_what_is_there() {
    let house = House::open().await;
    let client = house.client().await;
    let product = stock(&client, "coffee", 1000).await;
    // A thousand known cards, then 30,000 new ones, each twice.
    let rows: Vec<Row> = (0..1000)
        .chain((2000..62_000).map(|n| n / 2 * 2))
        .map(|n| Row { code: code(n).into(), ..Row::default() })
        .collect();
    let spec = ImportSpec { skip_duplicates: true, ..ImportSpec::of(product, rows.len() as u64, 16) };

    // A reader that ends in the middle, as a client that is killed does.
    struct Torn<'a>(RowList<'a>, u32);
    impl Rows for Torn<'_> {
        fn seek(&mut self, row: u64) -> std::io::Result<()> {
            self.0.seek(row)
        }
        fn fill(&mut self, chunk: &mut ChunkRows) -> std::io::Result<()> {
            self.1 = self.1.checked_sub(1).ok_or_else(|| std::io::Error::other("torn"))?;
            self.0.fill(chunk)
        }
    }
    let id = RequestId(77);
    let mut torn = Torn(RowList::new(&rows), 2);
    let failed = client.import_stage(id, &spec, &mut torn, |_| ()).await;
    assert!(matches!(failed, Err(ClientError::Rows(_))), "{failed:?}");
    assert_eq!(client.stats().await.unwrap().value.cards, 1000, "nothing is there before the commit");

    // Another client, another row source, the same name. With another file under it nothing is mixed.
    let other = house.client().await;
    let mixed = ImportSpec { content: 9, ..spec.clone() };
    let refused = other.import_stage(id, &mixed, &mut RowList::new(&rows), |_| ()).await;
    assert!(matches!(refused, Err(ClientError::Refused { status: Status::IdReused, .. })), "{refused:?}");
    let mut first = None;
    let mut again = RowList::new(&rows);
    let note = |report: ImportReport| {
        first.get_or_insert(report.rows);
    };
    let Staged::Complete(report) = other.import_stage(id, &spec, &mut again, note).await.unwrap() else {
        panic!()
    };
    assert_eq!((report.rows, report.duplicates), (61_000, 31_000));
    assert!(first.unwrap() <= rows.len() as u64);
    let mut listed = Vec::new();
    loop {
        let page = other.import_duplicates(id, listed.len() as u64).await.unwrap();
        listed.extend(page.value.rows);
        if !page.flags.contains(ReplyFlags::PARTIAL) {
            break;
        }
    }
    assert_eq!(listed.len(), 31_000);
    assert_eq!((listed[7].row, listed[7].other_row, listed[7].batch.is_some()), (7, 7, true));
    assert_eq!((listed[1000].row, listed[1000].other_row, listed[1000].batch), (1001, 1000, None));
    let batch = other.import_commit(id).await.unwrap().value;
    assert_eq!(batch.counts[0], 30_000);

    // Again, whole: what it said. As anything else, or by anybody else: refused.
    let again = client.import(id, &spec, &mut RowList::new(&rows), |_| ()).await.unwrap();
    assert!(again.flags.contains(ReplyFlags::REPLAYED) && again.value.id == batch.id);
    let refused = client.import(id, &mixed, &mut RowList::new(&rows), |_| ()).await;
    assert!(matches!(refused, Err(ClientError::Refused { status: Status::IdReused, .. })), "{refused:?}");
    let issuer = house.client_as("issuer", Role::Issuer).await;
    let refused = issuer.import(id, &spec, &mut RowList::new(&rows), |_| ()).await;
    assert!(matches!(refused, Err(ClientError::Refused { status: Status::IdReused, .. })), "{refused:?}");
    assert_eq!(client.stats().await.unwrap().value.cards, 31_000);
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

/// What was sold and redeemed is proven to a stranger, who has the texts and the key and nothing else; and guessing at
/// codes by asking for proofs is guessing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_card_is_proven_over_the_wire() {
    let house = House::open().await;
    let client = house.client().await;
    let cards = sold(&client, 3).await;
    client.redeem(&cards[0], RedeemOptions::default()).await.unwrap();

    let auditor = house.client_as("auditor", Role::Auditor).await;
    let old = auditor.signed_checkpoint().await.unwrap().value;
    assert_eq!(auditor.signed_checkpoint().await.unwrap().value, old, "nothing happened since");
    let key: VerifierKey = old.key.parse().unwrap();
    let proof = CardProof::parse(&auditor.prove(&cards[0]).await.unwrap().value.text).unwrap();
    let proven = proof.verify(&key).unwrap();
    assert_eq!(proven.events, client.history(&cards[0]).await.unwrap().value.rows);
    assert_eq!(proven.lifecycle, Lifecycle::Redeemed);

    client.redeem(&cards[1], RedeemOptions::default()).await.unwrap();
    let new = auditor.signed_checkpoint().await.unwrap().value;
    let path = auditor.consistency(old.size, new.size).await.unwrap().value;
    let read = |note: &str| ProofCheckpoint::parse(note).unwrap();
    ConsistencyProof { old: read(&old.note), new: read(&new.note), path }.verify(&key).unwrap();

    assert_eq!(refused(auditor.consistency(0, new.size).await), Status::Malformed);
    assert_eq!(refused(auditor.consistency(new.size, old.size).await), Status::Malformed);
    assert_eq!(refused(auditor.consistency(old.size, new.size + 1000).await), Status::NotProvable);
    let till = house.client_as("till", Role::Redeemer).await;
    assert_eq!(refused(till.prove(&cards[0]).await), Status::Forbidden);
    assert_eq!(refused(till.signed_checkpoint().await), Status::Forbidden);

    let impatient = |options: &mut kami_net::ClientOptions| options.timeout = Duration::from_millis(500);
    let guesser = house.client_as_with("guesser", Role::Auditor, impatient).await;
    let mut guesses = 0;
    while refused(guesser.prove(format!("NOBODY-HAS-{guesses}").as_bytes()).await) == Status::NotFound {
        guesses += 1;
        assert!(guesses < 1000, "guessing goes on");
    }
    let refusal = refused(guesser.prove(&cards[0]).await);
    assert_eq!(refusal, Status::RateLimited, "after {guesses} guesses");
    house.shut_down().await;
}

/// Commits of imports come one after the other and may take minutes. However many wait, the other commands that
/// wait for the disk find a thread.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_that_wait_keep_nobody_else_waiting() {
    let house = House::open().await;
    let client = house.client().await;
    let product = stock(&client, "coffee", 100).await;
    let id = RequestId(5);
    let rows: Vec<Row> = (1000..3000).map(|n| Row { code: code(n).into(), ..Row::default() }).collect();
    let spec = ImportSpec::of(product, 2000, 16);
    client.import_stage(id, &spec, &mut RowList::new(&rows[..1000]), |_| ()).await.unwrap();

    // Somebody works on it, and does not end.
    let key = house.admin.key_fingerprint().unwrap();
    let admin = house.engine.principal_by_key(&key).unwrap();
    let caller = Caller { principal: admin.id, role: admin.spec.role, ..Caller::LOCAL };
    let (begun, has_begun) = tokio::sync::oneshot::channel();
    let (go_on, may_go_on) = std::sync::mpsc::channel::<()>();
    let engine = house.engine.clone();
    let working = std::thread::spawn(move || {
        let mut begun = Some(begun);
        let mut slow = rows[1000..].iter().map(|row| {
            if let Some(begun) = begun.take() {
                begun.send(()).unwrap();
                may_go_on.recv().unwrap();
            }
            ImportRow { code: &row.code, ..ImportRow::default() }
        });
        engine.import_chunk(caller, id, 1000, &mut slow).unwrap().status
    });
    has_begun.await.unwrap();
    // More than there are threads. A commit is sent again as long as it is told to come again.
    let mut commits = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let client = house.client().await;
        commits.spawn(async move { client.import_commit(id).await.unwrap().value });
    }
    let ask = Request::ImportStatus(OneImport { import: id });
    // Behind the commits each of these would wait for seconds.
    let asked = async {
        for _ in 0..100 {
            assert_eq!(client.send(&ask).await.unwrap().head.status, Status::Ok);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(40), asked).await.expect("they wait for commits");
    go_on.send(()).unwrap();
    assert_eq!(working.join().unwrap(), Status::Ok);
    while let Some(batch) = commits.join_next().await {
        assert_eq!(batch.unwrap().counts[0], 2000);
    }
    house.shut_down().await;
}

/// An order is reserved, paid from a deposit, fetched and given back, with the money in the same record.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_is_reserved_paid_and_given_back() {
    let house = House::open().await;
    let client = house.client().await;
    let product = stock(&client, "coffee", 10).await;
    let account = |name: &str, kind| AccountSpec {
        name: name.to_owned(),
        currency: *b"CNY",
        kind,
        credit_limit: 0,
        owner: PrincipalId(0),
    };
    let mut ids = Vec::new();
    for (name, kind) in
        [("bank", AccountKind::External), ("shop 17", AccountKind::Customer), ("sales", AccountKind::Income)]
    {
        ids.push(client.account_add(account(name, kind), RequestId::random()).await.unwrap().value.id);
    }
    let [bank, shop, sales] = ids[..] else { unreachable!("three were added") };
    let pays =
        |from, to, amount: i64| vec![Leg { account: from, amount: -amount }, Leg { account: to, amount }];
    let top_up = Posting { document: DocumentId(1), legs: pays(bank, shop, 5000), note: "转账".to_owned() };
    client.post(top_up, RequestId::random()).await.unwrap();

    let purchase = Purchase {
        account: Some(shop),
        legs: pays(shop, sales, 4000),
        sealed: true,
        ..Purchase::of(OrderId(7), product, 2)
    };
    let id = RequestId::random();
    let reserved = client.reserve(purchase.clone(), Some(id)).await.unwrap();
    assert_eq!((reserved.value.state, reserved.value.cards), (OrderState::Reserved, 2));
    let again = client.reserve(purchase.clone(), Some(id)).await.unwrap();
    assert_eq!((again.lsn, again.flags), (reserved.lsn, ReplyFlags::REPLAYED));
    assert_eq!(client.stock(None).await.unwrap().value.rows[0].sellable, 8);
    // What is set aside is not there for another order.
    let second = Purchase { order: OrderId(8), ..purchase };
    assert_eq!(refused(client.reserve(second, None).await), Status::InsufficientFunds);
    assert_eq!(refused(client.order(OrderId(7)).await), Status::NotSold);

    let confirmation = Confirmation { order: OrderId(7), legs: Vec::new(), realloc: false, sealed: true };
    let Delivery::Sealed(sold) = client.confirm(confirmation, None).await.unwrap().value else {
        panic!("the codes were not asked for");
    };
    assert_eq!((sold.state, sold.fetched), (OrderState::Sold, false));
    let statement = client.account_statement(shop, None, 10).await.unwrap().value;
    let lines: Vec<_> = statement.lines.iter().map(|line| (line.amount, line.balance)).collect();
    assert_eq!(lines, [(-4000, 1000), (5000, 5000)]);

    // Nobody saw the codes yet: what comes back is in stock again.
    let history = client.order_status(OrderId(7)).await.unwrap().value;
    assert_eq!((history.cards, history.fetched), (2, false));
    let cards = client.order(OrderId(7)).await.unwrap().value.cards;
    assert!(client.order_status(OrderId(7)).await.unwrap().value.fetched);
    let codes: Vec<&[u8]> = cards.iter().map(|card| &card.code[..]).take(1).collect();
    let back = client.give_back(OrderId(7), &codes, pays(sales, shop, 2000), None).await.unwrap();
    assert_eq!(back.value.cards, 1);
    assert_eq!(client.query(codes[0]).await.unwrap().value.lifecycle, Lifecycle::Returned);
    assert_eq!(client.order(OrderId(7)).await.unwrap().value.cards, cards[1..]);
    assert_eq!(client.account(shop).await.unwrap().value.balance, 3000);

    // Several products, or faces, in one order; what nobody fetched goes into stock again.
    let tea = ProductSpec::single("tea", *b"CNY", 500);
    let tea = client.product_add(tea).await.unwrap().value.id;
    import(&client, tea, 100, 5).await;
    let lines =
        vec![Line { product, count: 2, face: Some(2000) }, Line { product: tea, count: 3, face: None }];
    let both = Purchase { lines, sealed: true, ..Purchase::of(OrderId(9), product, 1) };
    let sold = client.sell_lines(both, None).await.unwrap();
    assert!(matches!(&sold.value, Delivery::Sealed(report) if report.cards == 5));
    client.give_back(OrderId(9), &[], Vec::new(), None).await.unwrap();
    let sellable = client.stock(None).await.unwrap().value.rows.iter().map(|line| line.sellable).sum::<u64>();
    assert_eq!(sellable, 8 + 5);

    let cancelled = client.reserve(Purchase::of(OrderId(10), tea, 5), None).await.unwrap();
    assert_eq!(cancelled.value.cards, 5);
    assert_eq!(client.cancel(OrderId(10), None).await.unwrap().value.state, OrderState::Cancelled);
    let Delivery::Codes(sold) =
        client.sell_lines(Purchase::of(OrderId(11), tea, 5), None).await.unwrap().value
    else {
        panic!("the codes were asked for");
    };
    assert_eq!(sold.cards.len(), 5);
    house.shut_down().await;
}
