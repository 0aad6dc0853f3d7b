//! The client's loops: one connection, many commands outstanding, every reply looked at.
//!
//! Replies come in the order of requests, so a loop needs no table: what it sent and when stands in a
//! queue, and a reply with another id than the next one is an error. The same loops drive Kami's server
//! and the bare echo, which differ in what they send on ([`Sending`], [`Receiving`]).

use std::cell::Cell;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use kami_engine::RequestId;
use kami_net::client::{ChannelReceiver, ChannelSender, RawReply, Received};
use kami_net::frame::{Request, RequestHead};

use crate::pace::Pace;
use crate::redeem::Done;

/// Where frames are sent.
pub trait Sending {
    /// Encodes a frame behind those that wait.
    fn push(&mut self, id: RequestId, request: &Request<'_>) -> Result<()>;
    /// Sends what waits in one write.
    async fn flush(&mut self) -> Result<()>;
}

/// Where replies come from.
pub trait Receiving {
    /// Waits for replies and hands over those that are whole; returns how many.
    async fn receive(&mut self, each: impl FnMut(Reply<'_>)) -> Result<u64>;
}

/// A reply, as far as a loop looks at it.
pub struct Reply<'a> {
    /// The id of the request.
    pub request: RequestId,
    /// Whether it was done, and for the first time.
    pub done: bool,
    /// The whole of it, if it comes from Kami.
    pub raw: Option<RawReply<'a>>,
}

impl Sending for ChannelSender {
    #[inline]
    fn push(&mut self, id: RequestId, request: &Request<'_>) -> Result<()> {
        Ok(ChannelSender::push(self, &RequestHead::new(request.opcode(), id), request)?)
    }

    async fn flush(&mut self) -> Result<()> {
        Ok(ChannelSender::flush(self).await?)
    }
}

impl Receiving for ChannelReceiver {
    async fn receive(&mut self, mut each: impl FnMut(Reply<'_>)) -> Result<u64> {
        let received = ChannelReceiver::receive(self, |raw| match raw.head() {
            Ok(head) => each(Reply {
                request: head.request,
                done: head.status.is_done() && !head.flags.contains(kami_engine::ReplyFlags::REPLAYED),
                raw: Some(raw),
            }),
            Err(_) => each(Reply { request: RequestId(0), done: false, raw: None }),
        });
        match received.await? {
            Received::Replies(count) => Ok(count as u64),
            Received::End => bail!("the server ended the stream"),
        }
    }
}

/// What a connection asks and what it makes of the replies.
pub trait Source {
    /// Pushes the next frame; `false` when there is none.
    fn push(&mut self, to: &mut impl Sending) -> Result<bool>;
    /// Takes a reply; returns how much it counts, 0 for an error.
    fn take(&mut self, reply: &Reply<'_>) -> u64;
}

/// How one connection is driven.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Frames a write.
    pub batch: u64,
    /// Frames outstanding.
    pub window: u64,
    /// When to stop early, counted from the end of the warm-up.
    pub limit: Option<Duration>,
    /// How long after the beginning replies do not count yet.
    pub warm_up: Duration,
}

/// Keeps the window full until the source is empty.
pub async fn closed_loop(
    send: &mut impl Sending,
    receive: &mut impl Receiving,
    source: &mut impl Source,
    shape: Shape,
    begun: Instant,
) -> Result<Done> {
    let mut writes: VecDeque<(Instant, u64)> =
        VecDeque::with_capacity((shape.window / shape.batch) as usize + 1);
    let counting_from = begun + shape.warm_up;
    let mut total = Done::counted_from(counting_from);
    let end = shape.limit.map(|limit| counting_from + limit);
    let mut outstanding = 0;
    let mut more = true;
    loop {
        while more && outstanding + shape.batch <= shape.window {
            if end.is_some_and(|end| end <= Instant::now()) {
                more = false;
                break;
            }
            let submitted = Instant::now();
            let mut pushed = 0;
            while pushed < shape.batch && source.push(send)? {
                pushed += 1;
            }
            more = pushed == shape.batch;
            if pushed != 0 {
                send.flush().await?;
                writes.push_back((submitted, pushed));
                outstanding += pushed;
            }
        }
        if outstanding == 0 {
            break;
        }
        let (mut done, mut errors) = (0, 0);
        let mut replies = receive
            .receive(|reply| {
                let counts = source.take(&reply);
                done += counts;
                errors += u64::from(counts == 0);
            })
            .await?;
        let now = Instant::now();
        total.errors += errors;
        *if counting_from <= now { &mut total.done } else { &mut total.warm } += done;
        outstanding = outstanding.checked_sub(replies).context("more replies than requests")?;
        while replies != 0 {
            let (submitted, left) = writes.front_mut().context("more replies than requests")?;
            let some = replies.min(*left);
            if counting_from <= now {
                total.latencies.record_at(now, now - *submitted, some);
            }
            (*left, replies) = (*left - some, replies - some);
            if *left == 0 {
                writes.pop_front();
            }
        }
    }
    total.elapsed = counting_from.elapsed();
    Ok(total)
}

/// Sends when it is time, whatever has been answered, and counts each latency from then, so that a server that
/// stands still is charged for all who wait: the correction for coordinated omission, made at the source. What is
/// due before `counting_from` does not count. This is connection `part` of the pace and sends `count` frames.
pub async fn open_loop(
    send: &mut impl Sending,
    receive: &mut impl Receiving,
    source: &mut (impl Source + Clone),
    (pace, part): (&Pace, u64),
    count: u64,
    counting_from: Instant,
) -> Result<Done> {
    let due = |number: u64| pace.due(part, number);
    let taken = Cell::new(0);
    let mut asking = source.clone();
    let sending = async {
        let mut number = 0;
        while number < count {
            pace.wait(part, number).await;
            let now = Instant::now();
            while number < count && due(number) <= now {
                ensure!(asking.push(send)?, "fewer commands than were planned");
                number += 1;
            }
            send.flush().await?;
        }
        Ok(())
    };
    let receiving = async {
        let (mut total, mut answered) = (Done::counted_from(counting_from), 0);
        while answered < count {
            let replies = receive
                .receive(|reply| {
                    let counts = source.take(&reply);
                    let warm = due(taken.get()) < counting_from;
                    taken.set(taken.get() + 1);
                    *if warm { &mut total.warm } else { &mut total.done } += counts;
                    total.errors += u64::from(counts == 0);
                })
                .await?;
            let now = Instant::now();
            for number in answered..answered + replies {
                if counting_from <= due(number) {
                    total.latencies.record_at(now, now.saturating_duration_since(due(number)), 1);
                }
            }
            answered += replies;
        }
        total.elapsed = counting_from.max(due(0)).elapsed();
        Ok(total)
    };
    let (sent, done): (Result<()>, Result<Done>) = tokio::join!(sending, receiving);
    sent?;
    done
}
