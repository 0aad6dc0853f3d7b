//! One stream: frames in, replies out, in order.
//!
//! A stream is one task and one poll: take in what has arrived, have it decided in batches, hand on
//! what has become durable. Its three waits (bytes to read, the log, room to write) register in the
//! same poll, so a wake-up from any of them moves all. Nothing is taken in while too many replies
//! wait, so a peer that does not read stops being read.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::{Buf, Bytes};
use kami_engine::{Poisoned, Status};
use quinn::{RecvStream, SendStream, VarInt};
use tokio::time::Sleep;

use crate::desk::{Admitted, Blocking, Desk, EngineFault, bad_frame_status, run_blocking};
use crate::feed::{self, FeedStream};
use crate::frame::{Body, CloseCode, FeedOpen, REQUEST_HEAD_BYTES, ReplyHead, RequestHead, Split, Splitter};
use crate::outbox::{Leave, Outbox, OutboxLimits};
use crate::registry::Peer;
use crate::server::{Phase, Shared};

/// Pieces taken from QUIC in one read.
const PIECES_MAX: usize = 16;
/// Batches decided before replies get their turn.
const BATCHES_PER_ROUND: usize = 8;
/// Rounds before other tasks get theirs.
const ROUNDS_PER_POLL: usize = 16;

/// Serves a stream until it ends. The code is why its connection must end with it, if it must.
pub(crate) async fn serve(
    shared: Arc<Shared>,
    peer: Arc<Peer>,
    send: SendStream,
    recv: RecvStream,
) -> Option<CloseCode> {
    let mut stream = Stream::new(Arc::clone(&shared), peer, send, recv);
    let ended = match poll_fn(|cx| stream.poll(cx)).await {
        Ok(()) => match stream.feed.take() {
            None => Ok(stream.send),
            Some((head, open)) => {
                let Stream { shared, peer, send, recv, input, splitter, closed, .. } = stream;
                let tally = shared.meter.tally();
                let feed = FeedStream { shared, peer, send, recv, input, splitter, closed, head, tally };
                feed::serve(feed, open).await
            }
        },
        Err(End::Fault) => {
            tracing::error!("the engine answered fewer requests than it was asked; the stream is cut");
            let _ = stream.send.reset(VarInt::from_u32(CloseCode::LogFailed.number()));
            return None;
        }
        Err(end) => Err(end),
    };
    match ended {
        Ok(mut send) => {
            // `finish` only asks for the end; the peer has all replies when it acknowledges it.
            let _ = send.finish();
            let _ = send.stopped().await;
        }
        Err(End::Gone | End::Fault) => {}
        Err(End::TooSlow) => return Some(CloseCode::TooSlow),
        Err(End::LogFailed) => shared.advance(Phase::LogFailed),
    }
    None
}

/// Why a stream ends before its last reply is delivered.
pub(crate) enum End {
    /// The peer or the connection is gone.
    Gone,
    /// The log failed.
    LogFailed,
    /// The peer takes no replies.
    TooSlow,
    /// The engine broke its word.
    Fault,
}

impl From<EngineFault> for End {
    fn from(_: EngineFault) -> End {
        End::Fault
    }
}

impl From<Poisoned> for End {
    fn from(_: Poisoned) -> End {
        End::LogFailed
    }
}

/// What a command on a thread that may block came to.
type Blocked = Result<(ReplyHead, Body), Poisoned>;
type Waiting = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Takes a frame in, having decided first what it has to wait for.
#[inline]
fn admit<'a>(desk: &mut Desk, frame: &'a [u8], outbox: &mut Outbox) -> Result<Admitted<'a>, EngineFault> {
    match desk.admit(frame) {
        Admitted::Again => {
            desk.run(outbox)?;
            Ok(desk.admit(frame))
        }
        admitted => Ok(admitted),
    }
}

/// Says that nobody waits any more, when it is dropped.
#[derive(Default)]
struct Asker(Arc<AtomicBool>);

impl Drop for Asker {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Stream {
    shared: Arc<Shared>,
    peer: Arc<Peer>,
    send: SendStream,
    recv: RecvStream,
    /// No more is read: the peer finished, broke the framing, or the server drains.
    closed: bool,
    /// Resolves when the server stops serving.
    draining: Waiting,
    /// Received and not yet decoded.
    input: VecDeque<Bytes>,
    splitter: Splitter,
    desk: Desk,
    /// A command on a thread that may block; what follows it waits.
    blocking: Option<Pin<Box<dyn Future<Output = Option<Blocked>> + Send>>>,
    /// Room in the log; what follows waits for it.
    space: Option<Waiting>,
    outbox: Outbox,
    /// What the stream is turned into once its earlier replies have left.
    feed: Option<(RequestHead, FeedOpen)>,
    /// Runs while replies wait for the peer to take any; set anew only when it has run out.
    stall: Option<Pin<Box<Sleep>>>,
    /// Since when the peer has taken none of the replies that wait for it.
    stalled: Option<Instant>,
}

impl Stream {
    fn new(shared: Arc<Shared>, peer: Arc<Peer>, send: SendStream, recv: RecvStream) -> Stream {
        let options = &shared.options;
        let limits = OutboxLimits {
            replies_max: options.pending_replies_max,
            bytes_max: options.pending_bytes_max,
            connection_bytes_max: options.connection_pending_bytes_max,
            total_bytes_max: options.pending_bytes_total_max,
        };
        let mut phase = shared.phase.subscribe();
        Stream {
            draining: Box::pin(async move {
                let _ = phase.wait_for(|phase| *phase != Phase::Serving).await;
            }),
            desk: Desk::new(Arc::clone(&shared), Arc::clone(&peer)),
            outbox: Outbox::new(
                limits,
                shared.engine.waiter(),
                Arc::clone(&peer.pending_bytes),
                Arc::clone(&shared.pending_bytes),
                shared.meter.tally(),
            ),
            shared,
            peer,
            send,
            recv,
            closed: false,
            input: VecDeque::new(),
            splitter: Splitter::new(REQUEST_HEAD_BYTES),
            blocking: None,
            space: None,
            feed: None,
            stall: None,
            stalled: None,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        if !self.closed && self.draining.as_mut().poll(cx).is_ready() {
            self.close(CloseCode::ShuttingDown);
        }
        if *self.shared.phase.borrow() == Phase::LogFailed {
            return Poll::Ready(Err(End::LogFailed));
        }
        for _ in 0..ROUNDS_PER_POLL {
            let moved_in = self.take_in(cx)?;
            let moved_out = self.hand_on(cx)?;
            if self.feed.is_some() && self.outbox.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let idle = self.input.is_empty() && self.blocking.is_none() && self.outbox.is_empty();
            if self.closed && idle {
                return Poll::Ready(Ok(()));
            }
            if !moved_in && !moved_out {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads, decodes and has decided; whether anything moved.
    fn take_in(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        for batch in 0..BATCHES_PER_ROUND {
            if self.feed.is_some() {
                return Ok(batch > 0);
            }
            if !self.is_clear(cx)? {
                self.set_aside();
                return Ok(batch > 0);
            }
            if self.input.is_empty() {
                if !self.read(cx)? {
                    return Ok(batch > 0);
                }
            } else if batch == 0 {
                self.desk.resumed = Some(Instant::now());
            }
            if let Some((head, work)) = self.decide()? {
                self.start_blocking(head, work);
            }
        }
        Ok(true)
    }

    /// Whether more may be decided now.
    fn is_clear(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        if let Some(blocking) = &mut self.blocking {
            let Poll::Ready(done) = blocking.as_mut().poll(cx) else { return Ok(false) };
            self.blocking = None;
            let gone = if self.peer.revoked.load(Ordering::Relaxed) { End::Gone } else { End::Fault };
            let (head, body) = done.ok_or(gone)??;
            // Such commands return when what they rest on is durable.
            self.outbox.push(Leave::default(), self.desk.received, |tray| tray.put(&head, &body));
        }
        if self.outbox.is_full() {
            return Ok(false);
        }
        if self.peer.revoked.load(Ordering::Relaxed) {
            return Err(End::Gone);
        }
        if self.space.is_none() && !self.shared.engine.has_space() {
            let engine = self.shared.engine.clone();
            self.space = Some(Box::pin(async move { engine.space().await }));
        }
        if let Some(space) = &mut self.space {
            if space.as_mut().poll(cx).is_pending() {
                return Ok(false);
            }
            self.space = None;
        }
        Ok(true)
    }

    /// Makes one piece of what was received and has to wait. Each piece is a part of up to 64 KiB that arrived together, and
    /// keeps all of them in memory, however short it is.
    fn set_aside(&mut self) {
        if self.input.len() > 1 {
            let whole = self.input.make_contiguous().concat();
            self.input.clear();
            self.input.push_back(Bytes::from(whole));
        }
    }

    /// Takes what has arrived from QUIC; whether there is anything.
    fn read(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        if self.closed {
            return Ok(false);
        }
        let mut pieces: [Bytes; PIECES_MAX] = Default::default();
        let read = pin!(self.recv.read_chunks(&mut pieces)).poll(cx);
        match read {
            Poll::Pending => return Ok(false),
            Poll::Ready(Ok(Some(count))) => self.input.extend(pieces.into_iter().take(count)),
            Poll::Ready(Ok(None)) => {
                self.closed = true;
                if !self.splitter.is_between_frames() {
                    self.desk.refuse_stream(None, Status::Malformed);
                    self.desk.run(&mut self.outbox)?;
                }
                return Ok(false);
            }
            Poll::Ready(Err(_)) => return Err(End::Gone),
        }
        (self.desk.received, self.desk.resumed) = (Instant::now(), None);
        Ok(true)
    }

    /// Decodes up to a batch of frames and has them decided.
    fn decide(&mut self) -> Result<Option<(RequestHead, Blocking)>, End> {
        let mut blocking = None;
        let mut broken = None;
        self.desk.begin();
        'batch: while let Some(mut piece) = self.input.pop_front() {
            let mut rest: &[u8] = &piece;
            let more = loop {
                if self.splitter.is_between_frames() {
                    self.desk.look_ahead(rest);
                }
                let split = self.splitter.next(&mut rest, |head| self.desk.frame_bytes_max(head));
                match split {
                    Ok(Split::More) => break true,
                    Ok(Split::TooLong(head)) => self.desk.refuse_long(head),
                    Ok(Split::Frame(frame)) => match admit(&mut self.desk, frame, &mut self.outbox)? {
                        Admitted::Placed => {}
                        // Nothing is gathered any more that it could have to wait for.
                        Admitted::Again => return Err(End::Fault),
                        Admitted::Items(head, items) => {
                            self.desk.run(&mut self.outbox)?;
                            self.desk.run_items(&head, &items, &mut self.outbox)?;
                            break false;
                        }
                        Admitted::Feed(head, open) => {
                            if self.desk.is_late(&head) {
                                self.desk.refuse_request(&head, Status::DeadlinePassed);
                            } else {
                                self.feed = Some((head, open));
                            }
                            break false;
                        }
                        Admitted::Blocking(head, work) => {
                            blocking = Some((head, work));
                            break false;
                        }
                    },
                    Err(bad) => {
                        let status = bad_frame_status(bad);
                        self.desk.refuse_stream(self.splitter.head(rest), status);
                        broken = Some(status);
                        break false;
                    }
                }
                if self.desk.is_full() {
                    break false;
                }
            };
            if more {
                continue;
            }
            let used = piece.len() - rest.len();
            piece.advance(used);
            if !piece.is_empty() {
                self.input.push_front(piece);
            }
            break 'batch;
        }
        self.desk.run(&mut self.outbox)?;
        if let Some(status) = broken {
            self.close(match status {
                Status::TooLarge => CloseCode::TooLarge,
                Status::Unsupported => CloseCode::Unsupported,
                _ => CloseCode::Malformed,
            });
        }
        Ok(blocking)
    }

    /// Begins a command on a thread that may block, once one of those is free. Waiting for it is the stream's own
    /// business and ends with the stream, so that a peer that begins and leaves makes nobody keep its frames.
    fn start_blocking(&mut self, head: RequestHead, work: Blocking) {
        let (shared, peer) = (Arc::clone(&self.shared), Arc::clone(&self.peer));
        let deadline = self.desk.deadline(&head);
        self.blocking = Some(Box::pin(async move {
            // The semaphores are never closed; without a permit the work would still be right.
            let turn = match work {
                Blocking::Commit(..) => Arc::clone(&shared.commit).acquire_owned().await.ok(),
                _ => None,
            };
            let line = match work {
                Blocking::Totals(_) => &shared.reports,
                Blocking::SignedCheckpoint | Blocking::Proof { .. } | Blocking::Consistency { .. } => {
                    &shared.proofs
                }
                _ => &shared.blocking,
            };
            let permit = Arc::clone(line).acquire_owned().await;
            if peer.revoked.load(Ordering::Relaxed) {
                return None;
            }
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return Some(Ok((ReplyHead::local(&head, Status::DeadlinePassed), Body::None)));
            }
            // Whoever asked may leave: then a long piece of reading is not gone on with.
            let asker = Asker::default();
            let left = Arc::clone(&asker.0);
            let work = tokio::task::spawn_blocking(move || {
                let done = run_blocking(&shared, &peer, &head, work, &left);
                drop((permit, turn));
                done
            });
            // A thread that died may have had its effect: then there is no reply to give.
            let done = work.await.ok();
            drop(asker);
            done
        }));
    }

    /// Hands what is durable to QUIC; whether anything moved.
    fn hand_on(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        if let Poll::Ready(result) = self.outbox.poll_durable(&self.shared.engine, cx) {
            result?;
        }
        let mut moved = false;
        while !self.outbox.ready.is_empty() {
            let pieces = self.outbox.ready.make_contiguous();
            let Poll::Ready(written) = pin!(self.send.write_chunks(pieces)).poll(cx) else { break };
            let written = written.map_err(|_| End::Gone)?;
            self.outbox.ready.drain(..written.chunks);
            self.outbox.taken(written.bytes);
            moved = true;
        }
        if self.outbox.ready.is_empty() {
            self.stalled = None;
        } else {
            if moved || self.stalled.is_none() {
                self.stalled = Some(Instant::now());
            }
            self.check_stall(cx)?;
        }
        Ok(moved)
    }

    /// Ends the stream if its peer has taken nothing for too long.
    fn check_stall(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        let Some(stalled) = self.stalled else { return Ok(()) };
        let end = tokio::time::Instant::from_std(stalled + self.shared.options.stall);
        let stall = self.stall.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(end)));
        while stall.as_mut().poll(cx).is_ready() {
            // Something was taken since it was set: it runs on from there.
            if stall.deadline() >= end {
                return Err(End::TooSlow);
            }
            stall.as_mut().reset(end);
        }
        Ok(())
    }

    /// Reads no more; the peer is told why. What was decided is still delivered.
    fn close(&mut self, code: CloseCode) {
        self.closed = true;
        self.input.clear();
        let _ = self.recv.stop(VarInt::from_u32(code.number()));
    }
}
