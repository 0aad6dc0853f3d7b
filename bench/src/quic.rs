//! The workloads over QUIC, against a server of our own or, with `--server`, another one.
//!
//! Inside the clock: encoding, encryption, both sides' sockets, and everything that is inside it in
//! process. Every connection is a client of its own with its own socket, as terminals are; one stream of
//! it carries all frames.

use std::net::SocketAddr;
use std::ops::Range;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use kami_engine::{BatchId, Lifecycle, RequestId};
use kami_net::frame::request::{OneCard, Redeem, Reverse, Sell};
use kami_net::frame::{Body, Request, Secret};

use crate::args::{Args, Workload, YesNo};
use crate::codes::{Codes, Scattered};
use crate::echo;
use crate::lines::{Drive, Open, allow_files, together};
use crate::mix::{Mix, Step};
use crate::network::{Network, Shop, on_client_core, start};
use crate::redeem::Done;
use crate::report::Report;
use crate::serve::identities;
use crate::store::{Purpose, Scratch, request_id};
use crate::traffic::{Reply, Sending, Shape, Source, closed_loop};

/// Runs `quic-redeem`, `quic-terminals` and `quic-latency`: all redeem, in different shapes.
pub fn redeem(args: &Args, report: &mut Report) -> Result<()> {
    let (connections, shape) = Network::shape(args);
    let latency = args.workload == Workload::QuicLatency && args.rate.is_none();
    let cards = if latency { args.cards.min(1_000_000) } else { args.cards };
    let args = &Args { cards, ..args.clone() };
    let count = Network::count(args, args.cards)?;
    let network = Network::start(args, args.cards, report)?;
    let codes = Codes::new(args.seed);
    let done = network.run(args, connections, report, |part, line, begun, turn| {
        let parts = u64::from(connections);
        let walk = Scattered::part(args.cards, part, parts);
        // Parts of the commands and of the cards are rounded each for itself.
        let share = (count * (part + 1) / parts - count * part / parts).min(walk.len() as u64);
        let source = Redemptions { codes, left: share, ask: walk.clone(), expect: walk };
        Box::pin(line.drive(source, turn, share, shape, begun))
    })?;
    let redeemed = network.count_of(args, Lifecycle::Redeemed)?;
    finish(report, &done, redeemed, connections, shape);
    Ok(())
}

/// Runs `quic-mixed`.
pub fn mixed(args: &Args, report: &mut Report) -> Result<()> {
    let (connections, shape) = Network::shape(args);
    let (sold, _, most) = Mix::plan(args)?;
    let count = Network::count(args, most)?;
    let network = Network::start(args, sold, report)?;
    let (codes, shop) = (Codes::new(args.seed), network.shop);
    let done = network.run(args, connections, report, |part, line, begun, turn| {
        let parts = u64::from(connections);
        let share = count * (part + 1) / parts - count * part / parts;
        let mix = Mix::part(sold, count, part, parts);
        let source = Mixed::new(codes, shop, mix, sold);
        Box::pin(line.drive(source, turn, share, shape, begun))
    })?;
    report.add("mix", Mix::IN_WORDS);
    let done_there = done.done + done.warm;
    finish(report, &done, done_there, connections, shape);
    Ok(())
}

/// Runs `quic-sell`: cards count when their codes have arrived and are right.
pub fn sell(args: &Args, report: &mut Report) -> Result<()> {
    ensure!(args.reveal == YesNo::Yes, "over QUIC a sale always carries its codes");
    let (connections, shape) = Network::shape(args);
    let order_cards = u64::from(args.order_cards);
    ensure!(args.rate.is_none(), "orders have no rate: quic-sell keeps its window full");
    let orders = Network::count(args, args.cards)? / order_cards;
    ensure!(orders != 0, "fewer cards than one order takes");
    let network = Network::start(args, 0, report)?;
    let (codes, shop) = (Codes::new(args.seed), network.shop);
    let done = network.run(args, connections, report, |part, line, begun, turn| {
        let parts = u64::from(connections);
        let (from, to) = (orders * part / parts, orders * (part + 1) / parts);
        let source = Orders { codes, shop, count: args.order_cards, ask: from, to, expect: from };
        Box::pin(line.drive(source, turn, to - from, shape, begun))
    })?;
    report.add("order_cards", order_cards);
    let sold = network.count_of(args, Lifecycle::Sold)?;
    finish(report, &done, sold, connections, shape);
    Ok(())
}

/// Runs `echo`: the frames of `quic-redeem` or another shape, sent back as they came.
pub fn echo(args: &Args, report: &mut Report) -> Result<()> {
    let (connections, shape) = Network::shape(args);
    ensure!(args.rate.is_none(), "the echo has no rate: it keeps its window full");
    let count = Network::count(args, args.cards)?;
    let scratch = Scratch::new(&args.dir)?;
    identities(scratch.path())?;
    let (_server, address) = start(args, Workload::EchoServer, &scratch, 0)?;
    let address: SocketAddr = address.parse().context("the server's address")?;
    let codes = Codes::new(args.seed);
    let done = on_client_core(args, async {
        allow_files(connections)?;
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
                let done = closed_loop(&mut line.send, &mut line.receive, &mut source, shape, begun).await?;
                Ok((done, Box::new(line) as Open))
            };
            Box::pin(drive) as Drive
        };
        together((0..).zip(lines).map(drive).collect()).await
    })?;
    report.cards = None;
    finish(report, &done, done.done + done.warm, connections, shape);
    report.durable = Some(false);
    Ok(())
}

/// Sets what was measured, and compares it with what the server says was done.
pub fn finish(report: &mut Report, done: &Done, done_there: u64, connections: u32, shape: Shape) {
    report.measured(done.done, done.elapsed);
    report.latencies(&done.latencies);
    report.errors += done.errors;
    let acknowledged = done.done + done.warm;
    if done_there != acknowledged {
        eprintln!("kami-bench: {acknowledged} acknowledged, but the server counts {done_there}");
        report.errors += 1;
    }
    report.threads = Some(1);
    report.connections = Some(connections);
    // What is due is sent, however much is outstanding.
    let closed = report.own.get("rate").is_none_or(serde_json::Value::is_null);
    report.window = closed.then_some(shape.window as u32);
    report.batch = closed.then_some(shape.batch as u32);
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
#[derive(Clone)]
pub struct Mixed {
    codes: Codes,
    shop: Shop,
    ask: Mix,
    expect: Mix,
    /// The number of the first card of the stock.
    first: u64,
}

impl Mixed {
    /// This part, of which the first `sold` cards were sold ahead.
    pub fn new(codes: Codes, shop: Shop, mix: Mix, sold: u64) -> Mixed {
        Mixed { codes, shop, ask: mix.clone(), expect: mix, first: sold }
    }
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
            Step::Sell(order) => Request::Sell(order_of(self.shop, order, 1)),
        };
        to.push(step.id(), &request)?;
        Ok(true)
    }

    fn take(&mut self, reply: &Reply<'_>) -> u64 {
        let Some(step) = self.expect.next() else { return 0 };
        let right = match step {
            Step::Sell(_) => {
                let bought = right_codes(reply, self.codes, self.shop, self.first..u64::MAX);
                bought == 1
            }
            _ => true,
        };
        u64::from(reply.done && right && reply.request == step.id())
    }
}

/// Buys a part of the orders.
#[derive(Clone)]
struct Orders {
    codes: Codes,
    shop: Shop,
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
        to.push(order_id(order), &Request::Sell(order_of(self.shop, order, self.count)))?;
        Ok(true)
    }

    fn take(&mut self, reply: &Reply<'_>) -> u64 {
        let expected = order_id(self.expect);
        self.expect += 1;
        if !reply.done || reply.request != expected {
            return 0;
        }
        right_codes(reply, self.codes, self.shop, 0..u64::MAX)
    }
}

fn order_id(order: u64) -> RequestId {
    request_id(Purpose::Sell, order)
}

fn order_of(shop: Shop, order: u64, count: u32) -> Sell {
    Sell { order: shop.order(order), product: shop.product, count, validity_s_min: 0 }
}

/// How many codes of a reply are those that were imported for their cards, with numbers in `from`.
fn right_codes(reply: &Reply<'_>, codes: Codes, shop: Shop, from: Range<u64>) -> u64 {
    let Some(Ok(answer)) = reply.raw.map(|raw| raw.answer()) else { return 0 };
    let Body::Codes(sold) = answer.body else { return 0 };
    let right = sold.cards.iter().filter(|sold| {
        shop.number(BatchId(sold.card.batch()), sold.card.row())
            .is_some_and(|number| from.contains(&number) && **sold.code == codes.code(number))
    });
    right.count() as u64
}
