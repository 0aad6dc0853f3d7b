//! Whole histories over the wire: clients race for a few cards while the server is killed again and again, and what each
//! was told is judged afterwards.
//!
//! `kill.rs` asks whether every acknowledged outcome is there. Here the outcomes meet: all clients want the same cards,
//! reverse one another's redemptions and send one another's requests again, also those that a killed server never
//! answered. Whether some order of things explains it all, the checker says that the simulated disk has too
//! (`kami_tests::history`); sums decide about cards and money. Each request is sent once, on a stream that is not
//! healed: what a client would send again by itself could not be told from what it was first answered.
//!
//! `KAMI_SEEDS` stores from `KAMI_SEED_FROM` on, 1 unless told otherwise: of [`LIVES`] lives, each ended by SIGKILL, and some
//! starts are killed too. A seed chooses the workload, not how threads run and what the kill meets.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kami_engine::{
    AccountId, AccountKind, AccountSpec, CardKind, Leg, Lifecycle, OrderId, PrincipalId, ProductId,
    ProductSpec, Purchase, RequestId, Status,
};
use kami_net::client::{ChannelReceiver, ChannelSender, Delivery, Received, SellOptions};
use kami_net::frame::request::{Load, OneCard, Redeem, Reverse};
use kami_net::frame::{self, Body, Request, RequestHead, Secret};
use kami_net::{Client, ClientError, ClientOptions, Identity};
use kami_tests::binaries::process;
use kami_tests::history::{Answer, Ask, Histories, Operation, Race, Seen};
use kami_tests::random::{Random, for_seeds};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::store::{ADMIN, Home, Server};

const CLIENTS: u64 = 8;
/// Cards of each of the two products that the clients race for.
const CARDS: u64 = 20;
/// Lives of a store.
const LIVES: u64 = 4;
/// A life is killed after so many answers, and up to as many again.
const ANSWERS: u64 = 600;
/// What one card of the orders costs, and how many there are.
const PRICE: i64 = 7;
const STOCK: u64 = 4_000;

/// An order as its client knows it: its codes once they were told.
struct Sale {
    order: u64,
    codes: Option<Vec<Vec<u8>>>,
}

/// What the clients of all lives share.
struct World {
    race: Race,
    next_order: AtomicU64,
    answers: AtomicU64,
    /// Told when a life has had so many answers.
    kill_at: AtomicU64,
    enough: Notify,
}

/// One request at a time, each sent once.
struct Line {
    send: ChannelSender,
    receive: ChannelReceiver,
}

impl Line {
    async fn ask(&mut self, request: RequestId, body: &Request<'_>) -> Option<frame::Answer> {
        self.send.push(&RequestHead::new(body.opcode(), request), body).expect("it fits a frame");
        self.send.flush().await.ok()?;
        let mut answer = None;
        while answer.is_none() {
            let received = self.receive.receive(|reply| answer = Some(reply.answer().expect("well formed")));
            if received.await.ok()? == Received::End {
                return None;
            }
        }
        answer.inspect(|answer| assert_eq!(answer.head.request, request, "a reply to something else"))
    }
}

async fn connect(identity: &Identity, server: SocketAddr) -> Result<Client, ClientError> {
    let timeout = Duration::from_secs(20);
    Client::connect(ClientOptions { timeout, ..ClientOptions::new(server, identity.clone()) }).await
}

/// What is left of an operation when the server is gone: it may have had its effect until then.
fn open(card: usize, asked: u64, ask: Ask) -> Seen {
    Seen { card, operation: Operation { asked, ended: 0, ask, answer: None }, lsn: None }
}

impl World {
    /// One client's operations until the life is over. Begins with what it heard nothing of in the last one.
    async fn client(
        self: Arc<World>,
        client: Client,
        mut random: Random,
        mut unheard: Option<(usize, Ask)>,
        mut over: watch::Receiver<bool>,
    ) -> (Vec<Seen>, Vec<Sale>) {
        let (mut seen, mut sales) = (Vec::new(), Vec::new());
        let Ok((send, receive)) = client.channel().await else { return (seen, sales) };
        let mut line = Line { send, receive };
        while !*over.borrow() {
            if unheard.is_none() && random.percent(10) {
                let order = self.next_order.fetch_add(1, Ordering::Relaxed);
                let sold = tokio::select! {
                    biased;
                    sold = sell(&client, order) => sold,
                    _ = over.wait_for(|over| *over) => Err(()),
                };
                self.answered();
                sales.push(Sale { order, codes: sold.clone().unwrap_or_default() });
                if sold.is_err() {
                    break;
                }
                continue;
            }
            if random.percent(1) {
                // Snapshots are made while it goes on, and killed.
                let _ = tokio::select! {
                    made = client.checkpoint() => made.is_ok(),
                    _ = over.wait_for(|over| *over) => false,
                };
            }
            let (card, ask) = unheard.take().unwrap_or_else(|| {
                let card = self.race.card(&mut random);
                (card, self.race.ask(card, &mut random))
            });
            let code = self.race.code(card);
            let code = Secret(code.as_bytes());
            let body = match ask {
                Ask::Redeem { amount, .. } => Request::Redeem(Redeem { amount, code, pin: None }),
                Ask::Load { amount, .. } => Request::Load(Load { amount, code }),
                Ask::Reverse { original, .. } => {
                    Request::Reverse(Reverse { original: RequestId(original.into()), code })
                }
                Ask::Freeze { .. } => Request::Freeze(OneCard { code }),
                Ask::Unfreeze { .. } => Request::Unfreeze(OneCard { code }),
                Ask::Query => Request::Query(OneCard { code }),
            };
            // A read has no id of its own, and the wire wants one.
            let request = if ask == Ask::Query { RequestId::random() } else { Seen::request(ask) };
            let asked = self.race.now();
            let reply = tokio::select! {
                biased;
                reply = line.ask(request, &body) => reply,
                _ = over.wait_for(|over| *over) => None,
            };
            let Some(reply) = reply else {
                seen.push(open(card, asked, ask));
                break;
            };
            let ended = self.race.now();
            self.answered();
            let of = if let Body::Card(report) = &reply.body { Some(report) } else { None };
            let (status, flags) = (reply.head.status, reply.head.flags);
            assert!(!matches!(status, Status::RateLimited | Status::Malformed), "{ask:?}: {status:?}");
            if let Some(answer) = Answer::told(ask, status, flags, of, self.race.has_value(card)) {
                let operation = Operation { asked, ended, ask, answer: Some(answer) };
                seen.push(Seen { card, operation, lsn: reply.head.lsn });
            }
        }
        (seen, sales)
    }

    fn answered(&self) {
        let answers = self.answers.fetch_add(1, Ordering::Relaxed) + 1;
        if answers == self.kill_at.load(Ordering::Relaxed) {
            self.enough.notify_one();
        }
    }
}

/// One card for money. The codes, or `None` if the server was too busy; an error if the outcome is unknown.
async fn sell(client: &Client, order: u64) -> Result<Option<Vec<Vec<u8>>>, ()> {
    let purchase = Purchase {
        legs: vec![
            Leg { account: AccountId(1), amount: -PRICE },
            Leg { account: AccountId(2), amount: PRICE },
        ],
        account: Some(AccountId(1)),
        ..Purchase::of(OrderId(order.into()), ProductId(3), 1)
    };
    match client.sell_lines(purchase, Some(RequestId(u128::from(order) << 64))).await {
        Ok(receipt) => match receipt.value {
            Delivery::Codes(sold) => Ok(Some(sold.cards.iter().map(|card| card.code.to_vec()).collect())),
            Delivery::Sealed(report) => panic!("order {order} came sealed: {report:?}"),
        },
        Err(ClientError::Unknown { .. } | ClientError::Unreachable { .. }) => Err(()),
        Err(ClientError::Refused { status: Status::Busy, .. }) => Ok(None),
        Err(other) => panic!("order {order}: {other}"),
    }
}

/// A store with the cards that are raced for, all sold, and with others to sell.
async fn stock(home: &Home, server: &Server<'_>, identity: &Identity, race: &Race) {
    let client = connect(identity, server.address).await.unwrap();
    for (number, name) in ["single", "value", "orders"].into_iter().enumerate() {
        let mut spec = ProductSpec::single(name, *b"CNY", Race::VALUE);
        if name == "value" {
            spec.kind = CardKind::StoredValue;
            spec.terms.value_max = 1 << 40;
        }
        let product = client.product_add(spec).await.unwrap().value.id;
        assert_eq!(product, ProductId(number as u32 + 1));
        let cards = number * CARDS as usize..(number + 1) * CARDS as usize;
        let codes: String = match name {
            "orders" => (0..STOCK).map(|n| format!("ORDER-{n:06}\n")).collect(),
            _ => cards.map(|card| race.code(card) + "\n").collect(),
        };
        home.file(name, codes);
        server.json(&["import", name, "--product", name]);
        if name != "orders" {
            let order = OrderId(1 << 100 | number as u128);
            client.sell(order, product, CARDS as u32, SellOptions::default()).await.unwrap();
        }
    }
    for (name, kind, credit_limit) in
        [("buyer", AccountKind::Customer, 1 << 40), ("income", AccountKind::Income, 0)]
    {
        let (name, currency, owner) = (name.to_owned(), *b"CNY", PrincipalId(0));
        let spec = AccountSpec { name, currency, kind, credit_limit, owner };
        client.account_add(spec, RequestId::random()).await.unwrap();
    }
    client.close().await;
}

/// Starts a server and kills it at some moment of its start.
fn kill_a_start(home: &Home, random: &mut Random) {
    let mut command =
        home.kami(&["serve", "--end-with-parent", "--data", "kami-data", "--listen", "127.0.0.1:0"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_micros(random.below(80_000)));
    child.kill().unwrap();
    child.wait().unwrap();
}

/// A few lives of a store, and the judgement. Returns how many operations were judged, and how many were never answered.
fn history(runtime: &tokio::runtime::Runtime, seed: u64) -> (u64, u64) {
    let mut random = Random::new(seed);
    let home = Home::new();
    let mut server = home.serve();
    let identity = Identity::load(&home.path(ADMIN)).unwrap();
    let world = Arc::new(World {
        race: Race::new(2 * CARDS as usize),
        next_order: AtomicU64::new(1),
        answers: AtomicU64::new(0),
        kill_at: AtomicU64::new(0),
        enough: Notify::new(),
    });
    runtime.block_on(stock(&home, &server, &identity, &world.race));
    let mut histories = Histories::new(world.race.cards());
    let mut orders: BTreeMap<u64, Option<Vec<Vec<u8>>>> = BTreeMap::new();
    let mut unheard: Vec<(usize, Ask)> = Vec::new();
    let mut unknown = 0;
    for life in 0..LIVES {
        let kill_at = world.answers.load(Ordering::Relaxed) + ANSWERS + random.below(ANSWERS);
        world.kill_at.store(kill_at, Ordering::Relaxed);
        let (end_it, over) = watch::channel(false);
        let told = runtime.block_on(async {
            let mut clients = JoinSet::new();
            for number in 0..CLIENTS {
                let client = connect(&identity, server.address).await.unwrap();
                let random = Random::new(seed << 16 | life << 8 | number);
                let unheard = unheard.pop();
                clients.spawn(Arc::clone(&world).client(client, random, unheard, over.clone()));
            }
            // A client that lost its connection without our doing ends the life too.
            let first = tokio::select! {
                () = world.enough.notified() => None,
                first = clients.join_next() => first,
            };
            server.kill();
            // What it had sent by then still arrives, and is what must be found again.
            tokio::time::sleep(Duration::from_millis(50)).await;
            end_it.send_replace(true);
            let mut told = clients.join_all().await;
            told.extend(first.map(|first| first.expect("a client does not panic")));
            told
        });
        // Nothing more happens to what was open.
        let end = world.race.now();
        for (seen, sales) in told {
            for seen in seen {
                if seen.operation.answer.is_none() {
                    unknown += 1;
                    unheard.push((seen.card, seen.operation.ask));
                }
                histories.add(seen, end);
            }
            for Sale { order, codes } in sales {
                assert!(orders.insert(order, codes).is_none(), "an order of two clients");
            }
        }
        for _ in 0..random.below(3) {
            kill_a_start(&home, &mut random);
        }
        server = home.serve();
        // Whoever bought and heard nothing asks again: it is told the first outcome, or buys now.
        runtime.block_on(async {
            let client = connect(&identity, server.address).await.unwrap();
            for (order, codes) in &mut orders {
                unknown += u64::from(codes.is_none());
                if codes.is_none() || random.percent(5) {
                    let again = sell(&client, *order).await.expect("the server runs");
                    assert!(codes.is_none() || *codes == again, "order {order} has other codes");
                    *codes = again;
                }
            }
            client.close().await;
        });
    }
    let judged = runtime.block_on(judge(&server, &identity, &world, &histories));
    runtime.block_on(judge_orders(&server, &identity, &orders));
    assert_eq!(server.stop().code, Some(0));
    let verified = home.run(&["verify", "--data", "kami-data", "--json"]).json();
    assert_eq!(verified["whole"], true, "{verified}");
    (judged + orders.len() as u64, unknown)
}

/// Card by card.
async fn judge(server: &Server<'_>, identity: &Identity, world: &World, histories: &Histories) -> u64 {
    let client = connect(identity, server.address).await.unwrap();
    let race = &world.race;
    let mut last = Vec::new();
    for card in 0..race.cards() {
        let receipt = client.query(race.code(card).as_bytes()).await.unwrap();
        let (status, flags, report) = (receipt.status, receipt.flags, &receipt.value);
        let answer = Answer::told(Ask::Query, status, flags, Some(report), race.has_value(card));
        last.push(answer.expect("it did something"));
    }
    client.close().await;
    histories.judge(race, |card| last[card].clone())
}

/// No card in two orders, and money for each.
async fn judge_orders(
    server: &Server<'_>,
    identity: &Identity,
    orders: &BTreeMap<u64, Option<Vec<Vec<u8>>>>,
) {
    let client = connect(identity, server.address).await.unwrap();
    let mut given = BTreeSet::new();
    for codes in orders.values().flatten() {
        assert_eq!(codes.len(), 1);
        assert!(codes.iter().all(|code| given.insert(code)), "a code of two orders");
    }
    let stock = client.stock(Some(ProductId(3))).await.unwrap().value.rows;
    let counts = stock[0].counts;
    assert_eq!(counts[Lifecycle::Sold as usize], given.len() as u64, "all orders are known by now");
    assert_eq!(counts.iter().sum::<u64>(), STOCK, "cards came or went");
    for (account, sign) in [(1, -1), (2, 1)] {
        let balance = client.account(AccountId(account)).await.unwrap().value.balance;
        assert_eq!(balance, sign * PRICE * given.len() as i64, "account {account}");
    }
    client.close().await;
}

#[test]
fn every_history_of_a_killed_server_can_be_explained() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (all, open) = (AtomicU64::new(0), AtomicU64::new(0));
    let test = process("history::every_history_of_a_killed_server_can_be_explained");
    for_seeds(&test, 1, |seed, _| {
        let (judged, unknown) = history(&runtime, seed);
        all.fetch_add(judged, Ordering::Relaxed);
        open.fetch_add(unknown, Ordering::Relaxed);
    });
    let (all, open) = (all.into_inner(), open.into_inner());
    assert!(open > 0, "the kills met nobody");
    println!("operations: {all}, never answered: {open}");
}
