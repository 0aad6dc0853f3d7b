//! The stream of a feed: events out as the log becomes durable, credit in.
//!
//! A FEED_OPEN turns its stream into a feed. Events are read beside the sequencer, a frame at a time, and only while
//! the subscriber has granted credit for them: a slow one has one frame in memory here, holds up no command and no
//! other feed, and is not cut off for being slow. One that granted credit and then takes nothing of what is sent is
//! cut off like anyone who takes no replies.
//!
//! A feed sleeps until a commit. Under load it takes what came in [`LINGER`] together, so that thousands of commits a
//! second cost it hundreds of reads.
//!
//! What is on its way when a stream or the server ends is lost here and stands in the log: the subscriber comes back
//! with the position of the last event it took in, and has every event once.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use kami_engine::{Event, Feed, FeedPlace, Lsn, PastError, RequestId, Status};
use quinn::{RecvStream, SendStream};
use tokio::time::timeout;

use crate::desk::bad_frame_status;
use crate::frame::opcode::SMALL_FRAME_BYTES_MAX;
use crate::frame::{
    Body, FEED_CREDIT_MAX, FEED_FRAME_EVENTS_MAX, FeedBegin, FeedEvents, FeedOpen, Opcode,
    REQUEST_HEAD_BYTES, ReplyHead, Request, RequestFlags, RequestHead, Split, Splitter, reply,
};
use crate::meter::Tally;
use crate::registry::Peer;
use crate::server::{Phase, Shared};
use crate::stream::End;

/// How long a feed that was woken waits for more to come.
const LINGER: Duration = Duration::from_millis(2);
/// A subscriber that nothing was for is told how far it is whenever so much of the log went by.
const TELL_BYTES: u64 = 1 << 20;
/// Pieces taken from QUIC in one read.
const PIECES_MAX: usize = 16;

/// A stream that was turned into a feed, with what was received behind the FEED_OPEN.
pub(crate) struct FeedStream {
    pub(crate) shared: Arc<Shared>,
    pub(crate) peer: Arc<Peer>,
    pub(crate) send: SendStream,
    pub(crate) recv: RecvStream,
    pub(crate) input: VecDeque<Bytes>,
    pub(crate) splitter: Splitter,
    /// The peer sends no more.
    pub(crate) closed: bool,
    pub(crate) head: RequestHead,
    pub(crate) tally: Tally,
}

/// What the subscriber has been told and has granted.
struct Account {
    /// How many more events may be sent.
    credit: u32,
    /// The last position that was told.
    told: Lsn,
    /// The last position that the subscriber said it took in.
    seen: Option<Lsn>,
}

/// Where a feed came to its end.
enum Stop {
    /// The server drains, or the subscriber wants no more.
    Done,
    /// This request is refused, and with it the stream ends.
    Refused(RequestHead, Status),
    /// Without another word.
    Cut(End),
}

impl From<End> for Stop {
    fn from(end: End) -> Stop {
        Stop::Cut(end)
    }
}

/// Serves a feed until it ends.
pub(crate) async fn serve(mut stream: FeedStream, open: FeedOpen) -> Result<SendStream, End> {
    match stream.run(open).await {
        Ok(()) | Err(Stop::Done) => Ok(stream.send),
        Err(Stop::Refused(head, status)) => {
            stream.answer(&ReplyHead::local(&head, status), &Body::None).await?;
            Ok(stream.send)
        }
        Err(Stop::Cut(end)) => Err(end),
    }
}

impl FeedStream {
    async fn run(&mut self, open: FeedOpen) -> Result<(), Stop> {
        let refuse = |status| Err(Stop::Refused(self.head, status));
        if open.credit > FEED_CREDIT_MAX {
            return refuse(Status::Malformed);
        }
        let shared = Arc::clone(&self.shared);
        let options = &shared.options;
        let principal = self.peer.caller.principal;
        let place = shared.registry.admit_feed(principal, options.feeds_max, options.feeds_per_principal_max);
        let Some(feed_place) = place else { return refuse(Status::Busy) };

        let caller = self.peer.caller;
        let begun = self.beside(move |shared| {
            let end = shared.engine.durable_end();
            shared.engine.feed(caller, &open.spec).map(|feed| (feed, end))
        });
        let (mut feed, end) = match begun.await? {
            Ok(begun) => begun,
            Err(error) => return refuse(self.status(&error)),
        };
        let begin = FeedBegin { position: feed.position(), epoch: feed.epoch(), end };
        self.answer(&ReplyHead::local(&self.head, Status::Ok), &Body::Feed(begin)).await?;

        feed_place.reached(begin.position);
        let mut account = Account { credit: open.credit, told: begin.position, seen: None };
        // Whether the subscriber knows that all up to `end` was told.
        let mut settled = false;
        let mut waiter = shared.engine.waiter();
        let mut phase = shared.phase.subscribe();
        // Behind which position there may be something: none is known of yet.
        let mut asleep: Option<Lsn> = None;
        loop {
            self.take_acks(&mut account)?;
            if *phase.borrow() != Phase::Serving {
                return Err(Stop::Done);
            }
            if self.peer.revoked.load(Ordering::Relaxed) {
                return Err(End::Gone.into());
            }
            if account.credit > 0 && asleep.is_none() {
                let wanted = FEED_FRAME_EVENTS_MAX.min(account.credit as usize);
                let (back, events, place) = self.read(feed, wanted).await?;
                feed = back;
                let position = feed.position();
                feed_place.reached(position);
                let tell = !events.is_empty()
                    || !settled && end <= position
                    || account.told.bytes() + TELL_BYTES <= position.bytes();
                if tell {
                    account.credit -= events.len() as u32;
                    account.told = position;
                    settled |= end <= position;
                    shared.feed_events.fetch_add(events.len() as u64, Ordering::Relaxed);
                    let durable_end = shared.engine.durable_end();
                    let body = FeedEvents { position, epoch: feed.epoch(), end: durable_end, events };
                    self.tell(&ReplyHead::local(&self.head, Status::Ok), &Body::Events(body)).await?;
                }
                match place {
                    Ok(place) => asleep = place.caught_up.then_some(place.end),
                    Err(error) => return Err(Stop::Refused(self.head, self.status(&error))),
                }
                continue;
            }
            if self.closed && account.credit == 0 {
                // Nothing more is granted, ever.
                return Ok(());
            }
            let mut pieces: [Bytes; PIECES_MAX] = Default::default();
            // Without a position to wait behind there is no credit, and only the subscriber can end that.
            let more = asleep.filter(|_| account.credit > 0).map(|end| end.plus(8));
            tokio::select! {
                biased;
                () = async { drop(phase.wait_for(|phase| *phase != Phase::Serving).await) } => {}
                read = self.recv.read_chunks(&mut pieces), if !self.closed => match read {
                    Ok(Some(count)) => self.input.extend(pieces.into_iter().take(count)),
                    Ok(None) => self.closed = true,
                    Err(_) => return Err(End::Gone.into()),
                },
                durable = poll_fn(|cx| waiter.poll_durable(more.unwrap_or(Lsn::START), cx)), if more.is_some() => {
                    durable.map_err(End::from)?;
                    tokio::time::sleep(LINGER).await;
                    asleep = None;
                }
            }
        }
    }

    /// Takes in what was granted.
    fn take_acks(&mut self, account: &mut Account) -> Result<(), Stop> {
        while let Some(piece) = self.input.pop_front() {
            let mut rest: &[u8] = &piece;
            loop {
                let split = self.splitter.next(&mut rest, |_| SMALL_FRAME_BYTES_MAX);
                match split {
                    Ok(Split::More) => break,
                    Ok(Split::Frame(frame)) => account.take(frame)?,
                    Ok(Split::TooLong(head)) => {
                        return Err(Stop::Refused(lenient(head), Status::TooLarge));
                    }
                    Err(bad) => {
                        let head = lenient(self.splitter.head(rest).unwrap_or_default());
                        return Err(Stop::Refused(head, bad_frame_status(bad)));
                    }
                }
            }
        }
        Ok(())
    }

    /// Reads up to `wanted` events on a thread that may wait for the disk.
    async fn read(
        &self,
        mut feed: Feed,
        wanted: usize,
    ) -> Result<(Feed, Vec<Event>, Result<FeedPlace, PastError>), End> {
        self.beside(move |shared| {
            let mut events = Vec::new();
            let place = feed.read(&shared.engine, wanted, &mut events);
            (feed, events, place)
        })
        .await
    }

    /// Runs something on a thread that may wait for the disk. Few such run at a time, so that subscribers that are
    /// far behind leave the processors to commands.
    async fn beside<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> T + Send + 'static,
    ) -> Result<T, End> {
        let shared = Arc::clone(&self.shared);
        // The semaphore is never closed; without a permit the work would still be right.
        let permit = Arc::clone(&shared.feed_reads).acquire_owned().await;
        let done = tokio::task::spawn_blocking(move || {
            let done = work(&shared);
            drop(permit);
            done
        });
        done.await.map_err(|_| End::Gone)
    }

    /// What the subscriber is told of an error.
    fn status(&self, error: &PastError) -> Status {
        if !matches!(error, PastError::Refused(_)) {
            tracing::error!(error = error as &dyn std::error::Error, "a feed cannot read the log");
        }
        error.status()
    }

    /// Answers a request, and counts it.
    async fn answer(&mut self, head: &ReplyHead, body: &Body) -> Result<(), End> {
        self.tally.add(head.opcode, head.status, 1, Instant::now());
        self.tally.leave(1, Instant::now());
        self.tell(head, body).await
    }

    /// Sends a frame; waits as long as the peer takes any of it now and then.
    async fn tell(&mut self, head: &ReplyHead, body: &Body) -> Result<(), End> {
        let mut out = BytesMut::new();
        reply::encode(head, body, &mut out);
        let _held = Held::new(&self.shared, &self.peer, out.len());
        while !out.is_empty() {
            let written = timeout(self.shared.options.stall, self.send.write(&out)).await;
            out.advance(written.map_err(|_| End::TooSlow)?.map_err(|_| End::Gone)?);
        }
        Ok(())
    }
}

impl Account {
    /// Takes a frame in, which must be a FEED_ACK that fits what was told and granted.
    fn take(&mut self, frame: &[u8]) -> Result<(), Stop> {
        let refuse = |status| Err(Stop::Refused(lenient(frame), status));
        let Ok(head) = RequestHead::decode(frame) else { return refuse(Status::Malformed) };
        if head.opcode != Opcode::FeedAck.number() {
            return refuse(Status::IllegalTransition);
        }
        let Ok(Request::FeedAck(ack)) = Request::decode(Opcode::FeedAck, &frame[REQUEST_HEAD_BYTES..]) else {
            return refuse(Status::Malformed);
        };
        let credit = self.credit.checked_add(ack.credit).filter(|credit| *credit <= FEED_CREDIT_MAX);
        let Some(credit) = credit else { return refuse(Status::Malformed) };
        if head.flags != RequestFlags::NONE || Some(self.told) < ack.seen || ack.seen < self.seen {
            return refuse(Status::Malformed);
        }
        (self.credit, self.seen) = (credit, ack.seen);
        Ok(())
    }
}

/// The head of a frame that may not be in order.
fn lenient(frame: &[u8]) -> RequestHead {
    let nobody = RequestHead { opcode: 0, ..RequestHead::new(Opcode::Ping, RequestId(0)) };
    RequestHead::decode_lenient(frame).unwrap_or(nobody)
}

/// Counts the bytes of a frame that waits for its reader, until dropped.
struct Held(Arc<AtomicUsize>, Arc<AtomicUsize>, usize);

impl Held {
    fn new(shared: &Shared, peer: &Peer, bytes: usize) -> Held {
        let held = Held(Arc::clone(&peer.pending_bytes), Arc::clone(&shared.pending_bytes), bytes);
        held.0.fetch_add(bytes, Ordering::Relaxed);
        held.1.fetch_add(bytes, Ordering::Relaxed);
        held
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_sub(self.2, Ordering::Relaxed);
        self.1.fetch_sub(self.2, Ordering::Relaxed);
    }
}
