//! Following the log, and adding it up.
//!
//! A subscription has a stream of its own. It grants the server as many events as it is ready to keep, more as they
//! are taken, and when stream, connection or server end it begins again behind the last event that was taken: every
//! event comes once, in order, however often that happens.

use std::collections::VecDeque;

use bytes::{Buf, BytesMut};
use kami_engine::{Class, Event, FeedSpec, Lsn, RequestId, Status, TotalLine, Totals, TotalsQuery};
use quinn::SendStream;
use tokio::time::{Instant, timeout_at};

use super::channel::{ChannelReceiver, Received};
use super::receipt::receipt;
use super::{BACKOFF_MAX, BACKOFF_MIN, Client, Receipt};
use crate::error::ClientError;
use crate::frame::{
    Answer, Body, FEED_CREDIT_MAX, FeedAck, FeedBegin, FeedEvents, FeedOpen, Request, RequestHead,
};

/// Events that a subscription keeps at most, unless told otherwise.
const CREDIT: u32 = 4096;

/// A subscription to the log: see [`Client::subscribe`].
pub struct Subscription {
    client: Client,
    spec: FeedSpec,
    credit: u32,
    open: Option<Open>,
    /// Received and not taken yet.
    events: VecDeque<Event>,
    /// Where the frame ends whose events those are.
    frame_end: Option<(Lsn, u32)>,
    /// How far the log was durable when the feed was opened the first time.
    end: Option<Lsn>,
}

struct Open {
    send: SendStream,
    recv: ChannelReceiver,
    head: RequestHead,
    /// Encoded and not sent yet.
    out: BytesMut,
    /// Whether the server has said where the feed begins.
    begun: bool,
    /// Events taken since the server was last granted more.
    taken: u32,
    answers: VecDeque<Answer>,
}

impl Client {
    /// Follows the log. Nothing is sent before the first event is asked for.
    #[must_use]
    pub fn subscribe(&self, spec: FeedSpec) -> Subscription {
        Subscription {
            client: self.clone(),
            spec,
            credit: CREDIT,
            open: None,
            events: VecDeque::new(),
            frame_end: None,
            end: None,
        }
    }

    /// Adds up a period from the log: one page, see [`TotalsQuery`].
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn reconcile_page(&self, query: TotalsQuery) -> Result<Receipt<Totals>, ClientError> {
        let request = Request::Reconcile(query);
        let options = &self.inner.options;
        let head = RequestHead::new(request.opcode(), RequestId::random());
        let answer = self.send_within(&head, &request, options.import_timeout).await?;
        receipt(answer, |body| match body {
            Body::Totals(totals) => Some(totals),
            _ => None,
        })
    }

    /// The same, page by page until all lines of the period are there, and handed to `each` in order. Returns the end
    /// of the log that they are the totals of.
    ///
    /// # Errors
    /// As [`Client::redeem`]; what `each` was given before is right.
    pub async fn reconcile(
        &self,
        mut query: TotalsQuery,
        mut each: impl FnMut(&TotalLine),
    ) -> Result<Lsn, ClientError> {
        loop {
            let page = self.reconcile_page(query).await?.value;
            page.lines.iter().for_each(&mut each);
            let Some(last) = page.lines.last().filter(|_| page.more) else { return Ok(page.end) };
            (query.end, query.after) = (Some(page.end), Some(last.key));
        }
    }
}

impl Subscription {
    /// Keeps at most so many events that were not taken yet, 1 to 65,536, instead of 4,096.
    #[must_use]
    pub fn with_credit(mut self, events: u32) -> Subscription {
        self.credit = events.clamp(1, FEED_CREDIT_MAX);
        self
    }

    /// The next event, as soon as there is one. May be given up and called again.
    ///
    /// # Errors
    /// [`ClientError::Refused`] if the caller may not follow the log or the position is unknown;
    /// [`ClientError::Unreachable`] if the server could not be reached within the time-out. Called again after that
    /// it tries again, from the same place.
    pub async fn next(&mut self) -> Result<Event, ClientError> {
        loop {
            if let Some(event) = self.take() {
                return Ok(event);
            }
            self.receive().await?;
        }
    }

    /// The next event of those that were in the log when the subscription was opened; `None` behind the last.
    ///
    /// # Errors
    /// As [`Subscription::next`].
    pub async fn next_past(&mut self) -> Result<Option<Event>, ClientError> {
        loop {
            if let Some(next) = self.events.front() {
                let new = self.end.is_some_and(|end| end <= next.lsn);
                return Ok(if new { None } else { self.take() });
            }
            let reached = self.spec.after.zip(self.end).is_some_and(|(at, end)| end <= at);
            if reached {
                return Ok(None);
            }
            self.receive().await?;
        }
    }

    /// Behind which position and in which epoch to go on: everything up to there was taken. `None` for one that
    /// was to begin with what comes and has not been opened yet.
    #[must_use]
    pub fn place(&self) -> Option<(Lsn, u32)> {
        self.spec.after.map(|after| (after, self.spec.epoch))
    }

    fn take(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        self.note(event.lsn, event.epoch);
        if self.events.is_empty()
            && let Some((position, epoch)) = self.frame_end.take()
        {
            self.note(position, epoch);
        }
        if let Some(open) = &mut self.open {
            open.taken += 1;
        }
        Some(event)
    }

    fn note(&mut self, position: Lsn, epoch: u32) {
        (self.spec.after, self.spec.epoch) = (Some(position), epoch);
    }

    /// Takes in what the server sends next; opens the feed, as often as it takes.
    async fn receive(&mut self) -> Result<(), ClientError> {
        let timeout = self.client.inner.options.timeout;
        // What was received is taken, or this would not be called.
        let mut deadline = None;
        let mut backoff = BACKOFF_MIN;
        loop {
            let went = match self.receive_once(deadline).await {
                Ok(Went::On) => return Ok(()),
                Ok(Went::Lost) => None,
                Err(ClientError::Refused { status, answer }) if may_pass(status) => {
                    Some(ClientError::Refused { status, answer })
                }
                Err(error) => {
                    self.open = None;
                    return Err(error);
                }
            };
            self.open = None;
            let until = *deadline.get_or_insert_with(|| Instant::now() + timeout);
            if until <= Instant::now() + backoff {
                return Err(went.unwrap_or_else(|| self.client.unreachable("the feed is lost")));
            }
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    async fn receive_once(&mut self, deadline: Option<Instant>) -> Result<Went, ClientError> {
        if self.open.is_none() {
            let until = deadline.unwrap_or_else(|| Instant::now() + self.client.inner.options.timeout);
            let link = self.client.link(until).await?;
            let Ok(Ok((send, recv))) = timeout_at(until, link.connection.open_bi()).await else {
                return Ok(Went::Lost);
            };
            let open = Request::FeedOpen(FeedOpen { credit: self.credit, spec: self.spec.clone() });
            let head = RequestHead::new(open.opcode(), RequestId::random());
            let mut out = BytesMut::new();
            open.encode(&head, &mut out)?;
            let recv = ChannelReceiver::new(recv);
            self.open =
                Some(Open { send, recv, head, out, begun: false, taken: 0, answers: VecDeque::new() });
        }
        let Some(open) = &mut self.open else { return Ok(Went::Lost) };
        if open.taken >= self.credit.div_ceil(2) {
            // Everything was taken, so what was seen is where the subscription stands.
            let ack = Request::FeedAck(FeedAck { seen: self.spec.after, credit: open.taken });
            ack.encode(&RequestHead::new(ack.opcode(), RequestId::random()), &mut open.out)?;
            open.taken = 0;
        }
        while !open.out.is_empty() {
            // Written piece by piece, so that giving up in between leaves nothing half done.
            let Ok(written) = open.send.write(&open.out).await else { return Ok(Went::Lost) };
            open.out.advance(written);
        }
        if open.answers.is_empty() {
            let mut bad = false;
            let Open { recv, answers, .. } = open;
            let received = recv.receive(|reply| match reply.answer() {
                Ok(answer) => answers.push_back(answer),
                Err(_) => bad = true,
            });
            match received.await {
                Ok(Received::Replies(_)) if bad => return Err(ClientError::BadReply),
                Ok(Received::Replies(_)) => {}
                Ok(Received::End) | Err(_) if answers.is_empty() => return Ok(Went::Lost),
                Ok(Received::End) | Err(_) => {}
            }
        }
        let Some(answer) = open.answers.pop_front() else { return Ok(Went::On) };
        if !answer.head.status.is_done() {
            return Err(ClientError::Refused { status: answer.head.status, answer: Box::new(answer) });
        }
        if answer.head.request != open.head.request {
            return Err(ClientError::BadReply);
        }
        match answer.body {
            Body::Feed(FeedBegin { position, epoch, end }) if !open.begun => {
                open.begun = true;
                self.end.get_or_insert(end);
                self.note(position, epoch);
            }
            Body::Events(FeedEvents { position, epoch, events, .. }) if open.begun => {
                // What comes is behind what was taken, or the server is not one.
                let behind = events.iter().all(|event| self.spec.after < Some(event.lsn))
                    && events.is_sorted_by(|a, b| a.lsn < b.lsn);
                if !behind || Some(position) < self.spec.after {
                    return Err(ClientError::BadReply);
                }
                if events.is_empty() {
                    self.note(position, epoch);
                } else {
                    self.frame_end = Some((position, epoch));
                    self.events.extend(events);
                }
            }
            _ => return Err(ClientError::BadReply),
        }
        Ok(Went::On)
    }
}

/// What became of an attempt to receive.
enum Went {
    On,
    /// The stream is gone; another one goes on.
    Lost,
}

/// Whether a refusal passes by itself.
fn may_pass(status: Status) -> bool {
    status.class() == Class::NotExecuted
}
