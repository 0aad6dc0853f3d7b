//! Replies of one stream between their decision and their departure, in order.
//!
//! **No byte of a reply reaches QUIC before the log is durable up to where it stood after the
//! decision.** Replies are encoded at once, into one buffer, and only the position up to which the
//! log must be durable is kept beside them; when it is, the buffer's front is handed on without a
//! copy. Only replies with codes wait undecoded: a code is not decrypted before the sale is durable, nor while as much as a
//! stream may keep is ready and its reader takes none of it. So what is in the clear is that much and one reply, however many
//! were asked for; and of the one that QUIC has begun to take, all, because a reply is wiped as a whole.
//!
//! Replies to wrong codes leave at a time that is counted from their receipt and partly random, not when they are ready: so
//! how long one took hides what had to be done for it.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use kami_engine::Lsn;
use kami_engine::{CodeList, DurableWaiter, Engine, Poisoned, ReplyBody, Status, planted};
use tokio::task::JoinHandle;
use tokio::time::Sleep;
use zeroize::Zeroizing;

use crate::frame::reply::CodesFrame;
use crate::frame::{Body, FRAME_BYTES_MAX, ReplyHead, reply};
use crate::meter::{Meter, Tally};

/// A stream may always keep this much, however much its connection's other streams keep.
const SHARE_BYTES_MIN: usize = 64 << 10;
/// Decrypting more codes than this is left to a thread that may block.
const INLINE_CODES_MAX: u32 = 256;

/// How much may wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OutboxLimits {
    pub(crate) replies_max: usize,
    pub(crate) bytes_max: usize,
    pub(crate) connection_bytes_max: usize,
    pub(crate) total_bytes_max: usize,
}

/// When replies may leave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Leave {
    /// When the log is durable up to here; `None`: they rest on nothing in it.
    pub(crate) durable_at: Option<Lsn>,
    /// And not before this.
    pub(crate) not_before: Option<Instant>,
}

impl Leave {
    /// When both may.
    pub(crate) fn and(self, other: Leave) -> Leave {
        Leave {
            durable_at: self.durable_at.max(other.durable_at),
            not_before: self.not_before.max(other.not_before),
        }
    }
}

pub(crate) struct Outbox {
    limits: OutboxLimits,
    waiter: DurableWaiter,
    /// What all streams of the connection keep.
    connection_bytes: Arc<AtomicUsize>,
    /// What all connections keep.
    total_bytes: Arc<AtomicUsize>,
    /// Encoded replies, oldest first.
    encoded: BytesMut,
    /// What stands in `encoded`, and the replies with codes between.
    waiting: VecDeque<Waiting>,
    /// Codes being decrypted: the front of the line, and by how many bytes they are counted meanwhile.
    revealing: Option<(usize, JoinHandle<Bytes>)>,
    /// Durable and not yet taken by QUIC.
    pub(crate) ready: VecDeque<Bytes>,
    ready_bytes: usize,
    /// The log is known to be durable up to here.
    durable: Option<Lsn>,
    /// Until the oldest reply may leave, if that is what it waits for.
    still: Option<Pin<Box<Sleep>>>,
    /// What is counted of the replies that wait.
    tally: Tally,
    replies: usize,
    bytes: usize,
}

struct Waiting {
    leave: Leave,
    replies: usize,
    /// Replies and items of replies that were put into the tally.
    counted: usize,
    what: What,
}

/// Where replies are encoded to, and counted.
pub(crate) struct Tray<'a> {
    pub(crate) out: &'a mut BytesMut,
    tally: &'a mut Tally,
    received: Instant,
    /// The last replies' opcode, status and number, not in the tally yet: most replies are like the one before.
    alike: Option<(u16, Status, u32)>,
    replies: usize,
    counted: usize,
}

impl Tray<'_> {
    /// Encodes a reply.
    pub(crate) fn put(&mut self, head: &ReplyHead, body: &Body) {
        reply::encode(head, body, self.out);
        self.count(head);
    }

    /// Encodes what the engine answered.
    pub(crate) fn put_told(&mut self, head: &ReplyHead, body: &mut ReplyBody) {
        reply::encode_told(head, body, self.out);
        self.count(head);
    }

    fn count(&mut self, head: &ReplyHead) {
        match &mut self.alike {
            Some((opcode, status, replies)) if (*opcode, *status) == (head.opcode, head.status) => {
                *replies += 1
            }
            _ => {
                self.flush();
                self.alike = Some((head.opcode, head.status, 1));
            }
        }
        self.replies += 1;
        self.counted += 1;
    }

    fn flush(&mut self) {
        if let Some((opcode, status, replies)) = self.alike.take() {
            self.tally.add(opcode, status, replies, self.received);
        }
    }

    /// Counts an item of the reply that was put last.
    pub(crate) fn count_item(&mut self, status: Status) {
        self.flush();
        self.tally.add_item(status, self.received);
        self.counted += 1;
    }
}

enum What {
    /// So many bytes of `encoded`.
    Encoded(usize),
    Codes(ReplyHead, CodeList),
}

impl Outbox {
    pub(crate) fn new(
        limits: OutboxLimits,
        waiter: DurableWaiter,
        connection_bytes: Arc<AtomicUsize>,
        total_bytes: Arc<AtomicUsize>,
        tally: Tally,
    ) -> Outbox {
        Outbox {
            limits,
            waiter,
            connection_bytes,
            total_bytes,
            tally,
            encoded: BytesMut::new(),
            waiting: VecDeque::new(),
            revealing: None,
            ready: VecDeque::new(),
            ready_bytes: 0,
            durable: None,
            still: None,
            replies: 0,
            bytes: 0,
        }
    }

    /// Whether nothing more may be decided for this stream until some replies have left.
    pub(crate) fn is_full(&self) -> bool {
        self.replies >= self.limits.replies_max || self.is_enough(self.bytes)
    }

    /// Whether a stream with so many bytes has as much as it may have now.
    fn is_enough(&self, bytes: usize) -> bool {
        bytes >= self.limits.bytes_max
            || bytes >= SHARE_BYTES_MIN
                && self.connection_bytes.load(Ordering::Relaxed) >= self.limits.connection_bytes_max
            // One batch at a time is always possible, so nobody is shut out by those who take nothing.
            || bytes > 0 && self.total_bytes.load(Ordering::Relaxed) >= self.limits.total_bytes_max
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.ready.is_empty() && self.revealing.is_none()
    }

    /// Adds the replies that `encode` puts, to requests that were received at `received`.
    pub(crate) fn push(&mut self, leave: Leave, received: Instant, encode: impl FnOnce(&mut Tray<'_>)) {
        let before = self.encoded.len();
        let (out, tally) = (&mut self.encoded, &mut self.tally);
        let mut tray = Tray { out, tally, received, alike: None, replies: 0, counted: 0 };
        encode(&mut tray);
        tray.flush();
        let Tray { replies, counted, .. } = tray;
        let bytes = self.encoded.len() - before;
        if bytes == 0 {
            return;
        }
        self.account(replies, bytes);
        if let Some(Waiting { leave: last, replies: r, counted: c, what: What::Encoded(b) }) =
            self.waiting.back_mut()
            && *last == leave
        {
            *r += replies;
            *c += counted;
            *b += bytes;
            return;
        }
        self.waiting.push_back(Waiting { leave, replies, counted, what: What::Encoded(bytes) });
    }

    /// Adds a reply whose codes are decrypted when it may leave.
    pub(crate) fn push_codes(&mut self, leave: Leave, received: Instant, head: ReplyHead, codes: CodeList) {
        self.account(1, codes_bytes(&codes));
        self.tally.add(head.opcode, head.status, 1, received);
        let what = What::Codes(head, codes);
        self.waiting.push_back(Waiting { leave, replies: 1, counted: 1, what });
    }

    /// Moves to `ready` what may leave now. Registers for one wake-up, the oldest reply's; or for none, if codes wait until
    /// QUIC takes of `ready`, which is the caller's to offer and to register for.
    pub(crate) fn poll_durable(
        &mut self,
        engine: &Engine,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Poisoned>> {
        let (mut encoded, mut counted) = (0, 0);
        let result = self.poll_front(engine, cx, &mut encoded, &mut counted);
        if counted > 0 {
            self.tally.leave(counted, Instant::now());
        }
        if encoded > 0 {
            // Behind nothing: codes flush what stands before them.
            self.offer(encoded);
        }
        result
    }

    fn poll_front(
        &mut self,
        engine: &Engine,
        cx: &mut Context<'_>,
        encoded: &mut usize,
        counted: &mut usize,
    ) -> Poll<Result<(), Poisoned>> {
        loop {
            if let Some((reckoned, revealing)) = &mut self.revealing {
                let reckoned = *reckoned;
                // A thread that died ends the stream's task with it: were the reply left out, those behind it
                // would pass for replies to other requests. Otherwise the runtime is going down.
                let codes = ready!(Pin::new(revealing).poll(cx)).unwrap_or_else(|died| {
                    died.try_into_panic()
                        .map_or_else(|_| Bytes::new(), |panic| std::panic::resume_unwind(panic))
                });
                self.revealing = None;
                self.offer_codes(reckoned, codes);
            }
            let Some(front) = self.waiting.front() else { return Poll::Pending };
            // As long as any of it is ready, the caller comes back when QUIC has taken some.
            if matches!(front.what, What::Codes(..)) && self.is_enough(self.ready_bytes + *encoded) {
                return Poll::Pending;
            }
            let Leave { durable_at, not_before } = front.leave;
            if let Some(lsn) = durable_at
                && self.durable < Some(lsn)
                && !planted("reply-before-durable")
            {
                ready!(self.waiter.poll_durable(lsn, cx))?;
                self.durable = Some(engine.durable_end().max(lsn));
            }
            if let Some(time) = not_before
                && Instant::now() < time
            {
                let time = tokio::time::Instant::from_std(time);
                let still = self.still.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(time)));
                if still.deadline() != time {
                    still.as_mut().reset(time);
                }
                ready!(still.as_mut().poll(cx));
            }
            let Some(front) = self.waiting.pop_front() else { return Poll::Pending };
            self.replies -= front.replies;
            *counted += front.counted;
            match front.what {
                What::Encoded(bytes) => *encoded += bytes,
                What::Codes(head, codes) => {
                    if *encoded > 0 {
                        self.offer(std::mem::take(encoded));
                    }
                    let (reckoned, meter) = (codes_bytes(&codes), self.tally.meter());
                    if codes.count <= INLINE_CODES_MAX {
                        self.offer_codes(reckoned, reveal(engine, &head, &codes, meter));
                    } else {
                        let engine = engine.clone();
                        let work = move || reveal(&engine, &head, &codes, meter);
                        self.revealing = Some((reckoned, tokio::task::spawn_blocking(work)));
                    }
                }
            }
        }
    }

    /// So many bytes of `encoded` may leave.
    fn offer(&mut self, bytes: usize) {
        self.ready_bytes += bytes;
        self.ready.push_back(self.encoded.split_to(bytes).freeze());
    }

    /// A frame with codes may leave. It counts by its length from here on, no longer by what was reckoned.
    fn offer_codes(&mut self, reckoned: usize, frame: Bytes) {
        self.release(reckoned);
        self.hold(frame.len());
        self.ready_bytes += frame.len();
        self.ready.push_back(frame);
    }

    /// QUIC took so many bytes of `ready`.
    pub(crate) fn taken(&mut self, bytes: usize) {
        self.ready_bytes -= bytes;
        self.release(bytes);
    }

    fn account(&mut self, replies: usize, bytes: usize) {
        self.replies += replies;
        self.hold(bytes);
    }

    fn hold(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.connection_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.total_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn release(&mut self, bytes: usize) {
        self.bytes -= bytes;
        self.connection_bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.total_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.connection_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.total_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The frame with the codes, in a buffer that is wiped when QUIC has had it acknowledged.
fn reveal(engine: &Engine, head: &ReplyHead, codes: &CodeList, meter: Arc<Meter>) -> Bytes {
    let mut frame = CodesFrame::begin(head, codes.total, codes.from, codes.count);
    let mut full = false;
    let result = engine.reveal(codes, &mut |card, code| {
        full = full || !frame.push(card, code);
    });
    let frame = match result {
        Ok(()) => frame,
        Err(error) => {
            // The cards are sold; only reading their codes failed. An empty PARTIAL reply says both.
            tracing::error!(%error, "codes of a sold order cannot be read");
            // Wiped: some codes may be in it.
            drop(frame.finish());
            CodesFrame::begin(head, codes.total, codes.from, codes.count)
        }
    };
    let frame = frame.finish();
    meter.add_clear(frame.capacity());
    Bytes::from_owner(Wiped { frame, meter })
}

struct Wiped {
    frame: Zeroizing<Vec<u8>>,
    meter: Arc<Meter>,
}

impl AsRef<[u8]> for Wiped {
    fn as_ref(&self) -> &[u8] {
        &self.frame
    }
}

impl Drop for Wiped {
    fn drop(&mut self) {
        self.meter.sub_clear(self.frame.capacity());
    }
}

/// By how many bytes a reply with codes is counted until they are decrypted.
fn codes_bytes(codes: &CodeList) -> usize {
    (codes.count as usize).saturating_mul(8 + 1 + 32).min(FRAME_BYTES_MAX)
}
