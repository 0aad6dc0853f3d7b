//! The workloads over QUIC: a server process on core 0, this process with all connections on core 1.
//!
//! Inside the clock: encoding, encryption, both sides' sockets, and everything that is inside it in
//! process. Every connection is a client of its own with its own socket, as terminals are; one stream of
//! it carries all frames.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kami_engine::{Lifecycle, OrderId, ProductId, RequestId};
use kami_net::client::{ChannelReceiver, ChannelSender};
use kami_net::frame::request::{OneCard, Redeem, Reverse, Sell};
use kami_net::frame::{Body, Request, Secret};
use kami_net::{Client, ClientOptions, Identity};

use crate::args::{Args, Shape as Like, Workload, YesNo};
use crate::child::{Child, pin};
use crate::codes::{Codes, Scattered};
use crate::echo;
use crate::mix::{Mix, Step};
use crate::redeem::Done;
use crate::report::Report;
use crate::serve::identities;
use crate::store::{Purpose, Scratch, request_id};
use crate::traffic::{Reply, Sending, Shape, Source, closed_loop, open_loop};

/// The core the client is kept on.
const CORE: usize = 1;

/// Runs `quic-redeem`, `quic-terminals` and `quic-latency`: all redeem, in different shapes.
pub fn redeem(args: &Args, report: &mut Report) -> Result<()> {
    let (connections, shape) = Network::shape(args);
    let cards = if args.workload == Workload::QuicLatency { args.cards.min(1_000_000) } else { args.cards };
    let args = &Args { cards, ..args.clone() };
    let count = Network::count(args, args.cards);
    let network = Network::start(args, args.cards, report)?;
    let codes = Codes::new(args.seed);
    let rate = args.rate.filter(|_| args.workload == Workload::QuicLatency);
    let source = |part: u64| {
        let parts = u64::from(connections);
        let share = count * (part + 1) / parts - count * part / parts;
        let walk = Scattered::part(args.cards, part, parts);
        Redemptions { codes, left: share, ask: walk.clone(), expect: walk }
    };
    let done = network.run(args, connections, |part, mut line, begun| {
        let mut source = source(part);
        Box::pin(async move {
            let Line { send, receive, .. } = &mut line;
            match rate {
                Some(rate) => {
                    let interval = Duration::from_secs(1) * connections / rate;
                    let first = begun + interval * part as u32 / connections;
                    let share = source.left;
                    open_loop(send, receive, &mut source, share, first, interval).await
                }
                None => closed_loop(send, receive, &mut source, shape, begun).await,
            }
        })
    })?;
    report.add("rate", args.rate);
    let redeemed = network.stats(args)?.counts[Lifecycle::Redeemed as usize];
    finish(report, &done, redeemed, connections, shape);
    Ok(())
}

/// Runs `quic-mixed`.
pub fn mixed(args: &Args, report: &mut Report) -> Result<()> {
    let (connections, shape) = Network::shape(args);
    let (sold, _, count) = Mix::plan(args)?;
    let network = Network::start(args, sold, report)?;
    let codes = Codes::new(args.seed);
    let done = network.run(args, connections, |part, mut line, begun| {
        let mix = Mix::part(sold, count, part, u64::from(connections));
        let mut source = Mixed { codes, product: ProductId(1), ask: mix.clone(), expect: mix, first: sold };
        Box::pin(async move {
            let Line { send, receive, .. } = &mut line;
            closed_loop(send, receive, &mut source, shape, begun).await
        })
    })?;
    report.add("mix", Mix::IN_WORDS);
    let done_there = done.done;
    finish(report, &done, done_there, connections, shape);
    Ok(())
}

/// Runs `quic-sell`: cards count when their codes have arrived and are right.
pub fn sell(args: &Args, report: &mut Report) -> Result<()> {
    ensure!(args.reveal == YesNo::Yes, "over QUIC a sale always carries its codes");
    let connections = args.connections.unwrap_or(4);
    let (batch, window) = (args.batch.unwrap_or(1).into(), args.window.unwrap_or(1).into());
    let shape = Shape { batch, window, limit: args.seconds };
    let order_cards = u64::from(args.order_cards);
    let orders = Network::count(args, args.cards) / order_cards;
    ensure!(orders != 0, "fewer cards than one order takes");
    let network = Network::start(args, 0, report)?;
    let codes = Codes::new(args.seed);
    let done = network.run(args, connections, |part, mut line, begun| {
        let parts = u64::from(connections);
        let (from, to) = (orders * part / parts, orders * (part + 1) / parts);
        let (product, count) = (ProductId(1), args.order_cards);
        let mut source = Orders { codes, product, count, ask: from, to, expect: from };
        Box::pin(async move {
            let Line { send, receive, .. } = &mut line;
            closed_loop(send, receive, &mut source, shape, begun).await
        })
    })?;
    report.add("order_cards", order_cards);
    let sold = network.stats(args)?.counts[Lifecycle::Sold as usize];
    finish(report, &done, sold, connections, shape);
    Ok(())
}

/// Runs `echo`: the frames of `quic-redeem` or another shape, sent back as they came.
pub fn echo(args: &Args, report: &mut Report) -> Result<()> {
    let (connections, shape) = Network::shape(args);
    let count = Network::count(args, args.cards);
    let scratch = Scratch::new(&args.dir)?;
    identities(scratch.path())?;
    let (_server, address) = start(args, Workload::EchoServer, &scratch, 0)?;
    let address: SocketAddr = address.parse().context("the server's address")?;
    let codes = Codes::new(args.seed);
    let done = on_client_core(args, async {
        let mut lines = Vec::new();
        for _ in 0..connections {
            lines.push(echo::connect(scratch.path(), address).await?);
        }
        let begun = Instant::now();
        let drive = |(part, mut line): (u64, echo::Line)| {
            let parts = u64::from(connections);
            let share = count * (part + 1) / parts - count * part / parts;
            let walk = Scattered::part(args.cards, part, parts);
            let mut source = Redemptions { codes, left: share, ask: walk.clone(), expect: walk };
            let drive = async move {
                closed_loop(&mut line.send, &mut line.receive, &mut source, shape, begun).await
            };
            Box::pin(drive) as Drive
        };
        together((0..).zip(lines).map(drive).collect()).await
    })?;
    report.cards = None;
    finish(report, &done, done.done, connections, shape);
    report.durable = Some(false);
    Ok(())
}

fn finish(report: &mut Report, done: &Done, done_there: u64, connections: u32, shape: Shape) {
    report.measured(done.done, done.elapsed);
    report.latencies(&done.latencies);
    report.errors = done.errors;
    if done_there != done.done {
        eprintln!("kami-bench: {} acknowledged, but the server counts {done_there}", done.done);
        report.errors += 1;
    }
    report.threads = Some(1);
    report.connections = Some(connections);
    report.window = Some(shape.window as u32);
    report.batch = Some(shape.batch as u32);
}

type Drive = Pin<Box<dyn Future<Output = Result<Done>>>>;

/// Runs all connections on this thread and adds up what they did.
async fn together(drives: Vec<Drive>) -> Result<Done> {
    let tasks: Vec<_> = drives.into_iter().map(tokio::task::spawn_local).collect();
    let mut total = Done::default();
    for task in tasks {
        let part = task.await??;
        total.done += part.done;
        total.errors += part.errors;
        total.latencies.merge(&part.latencies);
        total.elapsed = total.elapsed.max(part.elapsed);
    }
    Ok(total)
}

/// Runs `work` on a runtime of one thread on the client's core.
fn on_client_core<T>(args: &Args, work: impl Future<Output = Result<T>>) -> Result<T> {
    pin(args, CORE)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(tokio::task::LocalSet::new().run_until(work))
}

/// Starts a server and waits until it is ready; returns what it says of itself.
fn start(args: &Args, workload: Workload, scratch: &Scratch, sold: u64) -> Result<(Child, String)> {
    let mut flags = vec!["--sold".to_owned(), sold.to_string()];
    flags.extend(args.no_pin.then(|| "--no-pin".to_owned()));
    let mut server = Child::start(args, workload, scratch.path(), &flags)?;
    let ready = server.line("ready")?;
    Ok((server, ready))
}

/// A server with a store, and how to reach it.
struct Network {
    address: SocketAddr,
    identity: Identity,
    // Killed before its directory goes.
    _server: Child,
    _scratch: Scratch,
}

/// One connection and its one stream.
struct Line {
    send: ChannelSender,
    receive: ChannelReceiver,
    /// The connection lives as long as this.
    _client: Client,
}

impl Network {
    /// Connections and shape: the acceptance configuration, or what the flags say.
    fn shape(args: &Args) -> (u32, Shape) {
        let (connections, window, batch) = match (args.workload, args.like) {
            (Workload::QuicTerminals, _) | (Workload::Echo, Like::Terminals) => (64, 16, 1),
            (Workload::QuicLatency, _) if args.rate.is_some() => (16, 1, 1),
            (Workload::QuicLatency, _) | (Workload::Echo, Like::Latency) => (1, 1, 1),
            _ => (16, 1024, 64),
        };
        let batch = u64::from(args.batch.unwrap_or(batch));
        let window = u64::from(args.window.unwrap_or(window)).max(batch);
        (args.connections.unwrap_or(connections), Shape { batch, window, limit: args.seconds })
    }

    /// How many commands: the flag's, or what the cards and ten seconds of a latency run allow.
    fn count(args: &Args, most: u64) -> u64 {
        let latency = args.workload == Workload::QuicLatency || args.like == Like::Latency;
        let usual = match args.rate {
            Some(rate) => {
                let time = args.seconds.unwrap_or(Duration::from_secs(5));
                (f64::from(rate) * time.as_secs_f64()) as u64
            }
            None if latency => 20_000,
            None => most,
        };
        args.count.unwrap_or(usual).min(most)
    }

    fn start(args: &Args, sold: u64, report: &mut Report) -> Result<Network> {
        let scratch = Scratch::new(&args.dir)?;
        let identity = identities(scratch.path())?;
        let (server, ready) = start(args, Workload::QuicServer, &scratch, sold)?;
        let words: Vec<&str> = ready.split(' ').collect();
        let [address, commit_path, filesystem, durable] = words[..] else {
            anyhow::bail!("the server says: {ready}");
        };
        report.cards = Some(args.cards);
        // The words of a child that lives as long as the report: leaked once a run.
        report.commit_path = Some(commit_path.to_owned().leak());
        report.filesystem = Some(filesystem.to_owned().leak());
        report.durable = Some(durable == "true");
        Ok(Network { address: address.parse()?, identity, _server: server, _scratch: scratch })
    }

    async fn connect(&self) -> Result<Line> {
        let options = ClientOptions::new(self.address, self.identity.clone());
        let client = Client::connect(options).await?;
        let (send, receive) = client.channel().await?;
        Ok(Line { send, receive, _client: client })
    }

    /// Connects all, then starts the clock and runs `drive` on each connection.
    fn run(
        &self,
        args: &Args,
        connections: u32,
        drive: impl Fn(u64, Line, Instant) -> Drive,
    ) -> Result<Done> {
        on_client_core(args, async {
            let mut lines = Vec::new();
            for _ in 0..connections {
                lines.push(self.connect().await?);
            }
            eprintln!("{connections} connections");
            let begun = Instant::now();
            together((0..).zip(lines).map(|(part, line)| drive(part, line, begun)).collect()).await
        })
    }

    /// The engine's figures, asked over the network.
    fn stats(&self, args: &Args) -> Result<kami_engine::Stats> {
        on_client_core(args, async {
            let client = Client::connect(ClientOptions::new(self.address, self.identity.clone())).await?;
            let stats = client.stats().await?.value;
            client.close().await;
            Ok(stats)
        })
    }
}

/// Redeems a part of the cards.
#[derive(Clone)]
struct Redemptions {
    codes: Codes,
    left: u64,
    ask: Scattered,
    /// The same walk again: replies come in order.
    expect: Scattered,
}

impl Source for Redemptions {
    #[inline]
    fn push(&mut self, to: &mut impl Sending) -> Result<bool> {
        if self.left == 0 {
            return Ok(false);
        }
        let Some(number) = self.ask.next() else { return Ok(false) };
        self.left -= 1;
        let code = self.codes.code(number);
        let body = Redeem { amount: 0, code: Secret(&code), pin: None };
        to.push(request_id(Purpose::Redeem, number), &Request::Redeem(body))?;
        Ok(true)
    }

    #[inline]
    fn take(&mut self, reply: &Reply<'_>) -> u64 {
        let expected = self.expect.next().map(|number| request_id(Purpose::Redeem, number));
        u64::from(reply.done && expected == Some(reply.request))
    }
}

/// Runs a part of the mix.
struct Mixed {
    codes: Codes,
    product: ProductId,
    ask: Mix,
    expect: Mix,
    /// The number of the first card of the stock, which is the second batch.
    first: u64,
}

impl Source for Mixed {
    fn push(&mut self, to: &mut impl Sending) -> Result<bool> {
        let Some(step) = self.ask.next() else { return Ok(false) };
        let code;
        let mut secret = Secret(&[]);
        if let Step::Redeem(number) | Step::Reverse(number) | Step::Query { number, .. } = step {
            code = self.codes.code(number);
            secret = Secret(&code);
        }
        let request = match step {
            Step::Redeem(_) => Request::Redeem(Redeem { amount: 0, code: secret, pin: None }),
            Step::Reverse(number) => {
                Request::Reverse(Reverse { original: Step::Redeem(number).id(), code: secret })
            }
            Step::Query { .. } => Request::Query(OneCard { code: secret }),
            Step::Sell(order) => Request::Sell(order_of(order, self.product, 1)),
        };
        to.push(step.id(), &request)?;
        Ok(true)
    }

    fn take(&mut self, reply: &Reply<'_>) -> u64 {
        let Some(step) = self.expect.next() else { return 0 };
        let right = match step {
            Step::Sell(_) => {
                right_codes(reply, self.codes, |batch, row| (batch == 2).then_some(self.first + row)) == 1
            }
            _ => true,
        };
        u64::from(reply.done && right && reply.request == step.id())
    }
}

/// Buys a part of the orders.
struct Orders {
    codes: Codes,
    product: ProductId,
    count: u32,
    ask: u64,
    to: u64,
    expect: u64,
}

impl Source for Orders {
    fn push(&mut self, to: &mut impl Sending) -> Result<bool> {
        if self.ask == self.to {
            return Ok(false);
        }
        let order = self.ask;
        self.ask += 1;
        to.push(order_id(order), &Request::Sell(order_of(order, self.product, self.count)))?;
        Ok(true)
    }

    fn take(&mut self, reply: &Reply<'_>) -> u64 {
        let expected = order_id(self.expect);
        self.expect += 1;
        if !reply.done || reply.request != expected {
            return 0;
        }
        right_codes(reply, self.codes, |batch, row| (batch == 1).then_some(row))
    }
}

fn order_id(order: u64) -> RequestId {
    request_id(Purpose::Sell, order)
}

fn order_of(order: u64, product: ProductId, count: u32) -> Sell {
    Sell { order: OrderId(u128::from(order) + 1), product, count, validity_s_min: 0 }
}

/// How many codes of a reply are those that were imported for their cards.
fn right_codes(reply: &Reply<'_>, codes: Codes, number: impl Fn(u32, u64) -> Option<u64>) -> u64 {
    let Some(Ok(answer)) = reply.raw.map(|raw| raw.answer()) else { return 0 };
    let Body::Codes(sold) = answer.body else { return 0 };
    let right = sold.cards.iter().filter(|sold| {
        number(sold.card.batch(), sold.card.row()).is_some_and(|number| **sold.code == codes.code(number))
    });
    right.count() as u64
}
