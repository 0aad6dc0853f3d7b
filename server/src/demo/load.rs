//! The load: orders and redemptions of what they bought, hundreds outstanding on every stream.
//!
//! Replies come in the order of the requests, so what has no reply is a queue. When the stream is lost,
//! all that is in the queue has an unknown outcome; it is asked again, with the same ids, before anything
//! new. That is all a client ever has to do.

use std::collections::VecDeque;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use kami_engine::{Class, Lsn, ReplyFlags, RequestId, Status};
use kami_net::Client;
use kami_net::client::{ChannelSender, Received};
use kami_net::frame::request::{OneCard, Redeem, Sell};
use kami_net::frame::{Answer, Body, Request, RequestHead, Secret};
use tokio::sync::Notify;

use crate::exit::{Exit, Failure};

use super::ledger::{Audit, Ledger};
use super::plan::Plan;

/// What all channels share.
pub struct Load {
    replies: AtomicU64,
    outstanding: AtomicU64,
    /// Cards sold and redeemed so far.
    sold: AtomicU64,
    redeemed: AtomicU64,
    /// The number of replies at which the server is to be killed, and how.
    kill_at: u64,
    kill: Box<dyn Fn() + Send + Sync>,
    killed: AtomicBool,
    at_kill: OnceLock<Figures>,
    reached: Notify,
    /// Whether the server is there again.
    restarted: AtomicBool,
    /// When the first reply came after that.
    resumed: OnceLock<Instant>,
}

/// How far the load is.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    pub at: Instant,
    pub replies: u64,
    pub outstanding: u64,
    /// Cards sold and redeemed so far.
    pub sold: u64,
    pub redeemed: u64,
}

impl Load {
    /// `kill` is called once, by whichever channel has sent when `kill_at` replies were there: a task that
    /// had to be woken for it would come too late on a busy machine.
    pub fn new(kill_at: u64, kill: impl Fn() + Send + Sync + 'static) -> Load {
        Load {
            kill: Box::new(kill),
            at_kill: OnceLock::new(),
            replies: AtomicU64::new(0),
            outstanding: AtomicU64::new(0),
            sold: AtomicU64::new(0),
            redeemed: AtomicU64::new(0),
            kill_at,
            killed: AtomicBool::new(false),
            reached: Notify::new(),
            restarted: AtomicBool::new(false),
            resumed: OnceLock::new(),
        }
    }

    /// Resolves when the server was killed, with how far the load was then.
    pub async fn killed(&self) -> Figures {
        loop {
            self.reached.notified().await;
            if let Some(figures) = self.at_kill.get() {
                return *figures;
            }
        }
    }

    /// Requests were sent. The kill falls here, when a channel has its window full again.
    fn sent(&self, count: u64) {
        self.outstanding.fetch_add(count, Ordering::Relaxed);
        let replies = self.replies.load(Ordering::Relaxed);
        if self.kill_at <= replies && !self.killed.swap(true, Ordering::Relaxed) {
            let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
            let (outstanding, sold, redeemed) =
                (count(&self.outstanding), count(&self.sold), count(&self.redeemed));
            (self.kill)();
            let figures = Figures { at: Instant::now(), replies, outstanding, sold, redeemed };
            // Only the one that swapped comes here.
            let _ = self.at_kill.set(figures);
            self.reached.notify_one();
        }
    }

    fn answered(&self, count: u64) {
        self.outstanding.fetch_sub(count, Ordering::Relaxed);
        self.replies.fetch_add(count, Ordering::Relaxed);
        if count > 0 && self.restarted.load(Ordering::Relaxed) {
            self.resumed.get_or_init(Instant::now);
        }
    }

    /// Says that the server is there again.
    pub fn restarted(&self) {
        self.restarted.store(true, Ordering::Relaxed);
    }

    /// When the first reply came after the restart.
    pub fn resumed(&self) -> Option<Instant> {
        self.resumed.get().copied()
    }

    fn lost(&self, count: u64) {
        self.outstanding.fetch_sub(count, Ordering::Relaxed);
    }
}

/// What one channel heard.
#[derive(Default)]
pub struct Partial {
    /// Order, card, receipt.
    pub sales: Vec<(u32, u32, Lsn)>,
    /// Card, receipt.
    pub redemptions: Vec<(u32, Lsn)>,
    pub orders: u64,
    pub acknowledged: u64,
    pub unknown_resolved: u64,
    pub replayed: u64,
    pub unexpected: u64,
    /// The first of them, in words.
    pub first_unexpected: Option<String>,
}

impl Partial {
    /// A reply that cannot be if every earlier one is kept.
    fn surprise(&mut self, what: impl FnOnce() -> String) {
        self.unexpected += 1;
        self.first_unexpected.get_or_insert_with(what);
    }
}

/// A request under way.
#[derive(Clone, Copy)]
enum Asked {
    Sell(u32),
    Redeem(u32),
}

/// A channel's share of the work and how far it is.
struct Channel<'a> {
    plan: &'a Plan,
    heard: Partial,
    /// Orders that were not sent yet.
    orders: std::iter::StepBy<std::ops::Range<u32>>,
    /// Cards that were bought and not redeemed yet.
    bought: VecDeque<u32>,
    /// Sent, without a reply, in the order sent.
    waiting: VecDeque<Asked>,
    /// How many at the head of `waiting` were sent before, on a stream that was lost.
    unknown: usize,
    /// Not executed; to be sent again.
    again: Vec<Asked>,
}

/// Runs every `step`th order from `first` on to its end, whatever happens to the server.
pub async fn run(
    client: &Client,
    plan: &Plan,
    load: &Load,
    first: usize,
    step: usize,
    window: usize,
) -> Result<Partial, Failure> {
    let orders = (first as u32..plan.orders.len() as u32).step_by(step);
    let mut channel = Channel {
        plan,
        heard: Partial::default(),
        orders,
        bought: VecDeque::new(),
        waiting: VecDeque::new(),
        unknown: 0,
        again: Vec::new(),
    };
    loop {
        let (mut sender, mut receiver) = client.channel().await?;
        channel.unknown = channel.waiting.len();
        for asked in &channel.waiting {
            push(&mut sender, plan, *asked)?;
        }
        load.sent(channel.waiting.len() as u64);
        loop {
            let before = channel.waiting.len();
            while channel.waiting.len() < window {
                let Some(asked) = channel.next() else { break };
                push(&mut sender, plan, asked)?;
                channel.waiting.push_back(asked);
            }
            load.sent((channel.waiting.len() - before) as u64);
            if channel.waiting.is_empty() {
                return Ok(channel.heard);
            }
            let mut answers = Vec::new();
            let lost = sender.flush().await.is_err()
                || !matches!(
                    receiver.receive(|reply| answers.push(reply.answer())).await,
                    Ok(Received::Replies(_))
                );
            load.answered(answers.len() as u64);
            let (sold, redeemed) = (channel.heard.sales.len(), channel.heard.redemptions.len());
            for answer in answers {
                let answer = answer.map_err(|_| protocol_error())?;
                channel.hear(&answer)?;
            }
            load.sold.fetch_add((channel.heard.sales.len() - sold) as u64, Ordering::Relaxed);
            load.redeemed.fetch_add((channel.heard.redemptions.len() - redeemed) as u64, Ordering::Relaxed);
            if lost {
                load.lost(channel.waiting.len() as u64);
                break;
            }
        }
    }
}

impl Channel<'_> {
    /// What to ask next: what was bought is redeemed before more is bought, so that both go on together.
    fn next(&mut self) -> Option<Asked> {
        self.again
            .pop()
            .or_else(|| self.bought.pop_front().map(Asked::Redeem))
            .or_else(|| self.orders.next().map(Asked::Sell))
    }

    fn hear(&mut self, answer: &Answer) -> Result<(), Failure> {
        let asked = self.waiting.pop_front().ok_or_else(protocol_error)?;
        let was_unknown = self.unknown > 0;
        self.unknown = self.unknown.saturating_sub(1);
        let head = &answer.head;
        if head.request != request_id(self.plan, asked) {
            return Err(protocol_error());
        }
        if head.status.class() == Class::NotExecuted {
            self.again.push(asked);
            return Ok(());
        }
        self.heard.acknowledged += 1;
        if was_unknown {
            self.heard.unknown_resolved += 1;
            self.heard.replayed += u64::from(head.flags.contains(ReplyFlags::REPLAYED));
        }
        match (asked, &answer.body, head.lsn) {
            (Asked::Sell(order), Body::Codes(codes), Some(lsn)) if head.status == Status::Ok => {
                let expected = self.plan.orders[order as usize] as usize;
                if codes.cards.len() != expected {
                    let got = codes.cards.len();
                    self.heard.surprise(|| format!("an order of {expected} cards has {got}"));
                }
                self.heard.orders += 1;
                for card in &codes.cards {
                    match self.plan.card(&card.code) {
                        Some(card) => {
                            self.heard.sales.push((order, card, lsn));
                            self.bought.push_back(card);
                        }
                        None => {
                            self.heard.surprise(|| "an order has a code that was never imported".to_owned());
                        }
                    }
                }
            }
            (Asked::Redeem(card), Body::Value(_), Some(lsn)) if head.status == Status::Ok => {
                self.heard.redemptions.push((card, lsn));
            }
            _ => {
                self.heard.surprise(|| format!("a request was answered {}", head.status.code()));
            }
        }
        Ok(())
    }
}

fn request_id(plan: &Plan, asked: Asked) -> RequestId {
    match asked {
        Asked::Sell(order) => plan.sale_id(order),
        Asked::Redeem(card) => plan.redeem_id(card),
    }
}

fn push(sender: &mut ChannelSender, plan: &Plan, asked: Asked) -> Result<(), Failure> {
    let id = request_id(plan, asked);
    match asked {
        Asked::Sell(order) => {
            let count = plan.orders[order as usize];
            let sell = Sell { order: plan.order_id(order), product: plan.product, count, validity_s_min: 0 };
            send(sender, id, &Request::Sell(sell))
        }
        Asked::Redeem(card) => {
            let code = plan.code(card);
            send(sender, id, &Request::Redeem(Redeem { amount: 0, code: Secret(&code), pin: None }))
        }
    }
}

fn send(sender: &mut ChannelSender, id: RequestId, request: &Request<'_>) -> Result<(), Failure> {
    let head = RequestHead::new(request.opcode(), id);
    sender.push(&head, request).map_err(|error| Failure::from(kami_net::ClientError::from(error)))
}

fn protocol_error() -> Failure {
    Failure::new(Exit::ProofFailed, "the server's replies are not what the protocol says")
}

/// Asks for the history of every `step`th promised card and holds it against the ledger.
pub async fn ask(
    client: &Client,
    ledger: &Ledger,
    first: usize,
    step: usize,
    window: usize,
) -> Result<Audit, Failure> {
    /// Streams that may be lost without one answer in between. These are reads: they may be asked again.
    const LOST_MAX: u32 = 5;
    let mut audit = Audit::default();
    let mut cards = ledger.promised().skip(first).step_by(step);
    let mut waiting = VecDeque::new();
    let mut lost_streams = 0;
    while lost_streams < LOST_MAX {
        let (mut sender, mut receiver) = client.channel().await?;
        for card in &waiting {
            ask_history(&mut sender, ledger, *card)?;
        }
        loop {
            while waiting.len() < window {
                let Some(card) = cards.next() else { break };
                ask_history(&mut sender, ledger, card)?;
                waiting.push_back(card);
            }
            if waiting.is_empty() {
                return Ok(audit);
            }
            let mut answers = Vec::new();
            let received = match sender.flush().await {
                Ok(()) => receiver.receive(|reply| answers.push(reply.answer())).await,
                Err(lost) => Err(lost),
            };
            for answer in answers {
                let answer = answer.map_err(|_| protocol_error())?;
                let card = waiting.pop_front().ok_or_else(protocol_error)?;
                let history = match answer.body {
                    Body::History(history) => history.rows,
                    // A card that is not known has no history: all that was promised of it is lost.
                    _ if answer.head.status == Status::NotFound => Vec::new(),
                    _ => return Err(protocol_error()),
                };
                let (lost, twice) = ledger.judge(card, &history);
                audit.asked += 1;
                audit.lost += lost;
                audit.done_twice += u64::from(twice);
                lost_streams = 0;
            }
            if !matches!(received, Ok(Received::Replies(_))) {
                lost_streams += 1;
                break;
            }
        }
    }
    Err(Failure::new(Exit::ProofFailed, "the server went away while it was asked"))
}

fn ask_history(sender: &mut ChannelSender, ledger: &Ledger, card: u32) -> Result<(), Failure> {
    let code = ledger.plan.code(card);
    send(sender, RequestId::random(), &Request::History(OneCard { code: Secret(&code) }))
}
