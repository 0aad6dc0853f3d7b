//! A stream shared by many calls: requests out in the order they came, replies in the same order.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use kami_engine::RequestId;
use quinn::Connection;
use tokio::sync::{mpsc, oneshot};

use super::channel::{self, ChannelReceiver};
use crate::frame::{Answer, Opcode, Request, RequestHead};

/// Calls waiting to be written.
const QUEUE_MAX: usize = 1024;
/// Requests put into one write.
const WRITE_MAX: usize = 256;
/// How long nothing may come back before the server is nudged.
const NUDGE: Duration = Duration::from_millis(250);

#[derive(Clone)]
pub(super) struct Lane {
    queue: mpsc::Sender<Call>,
}

struct Call {
    id: RequestId,
    frame: Bytes,
    reply: oneshot::Sender<Answer>,
}

impl Lane {
    /// Opens a lane; it lives as long as its stream, or until the last handle is dropped.
    pub(super) fn open(connection: &Connection) -> Lane {
        let (queue, calls) = mpsc::channel(QUEUE_MAX);
        let connection = connection.clone();
        tokio::spawn(run(connection, calls, queue.downgrade()));
        Lane { queue }
    }

    /// Sends a frame and waits for its reply; `None` if the lane is lost first.
    pub(super) async fn call(&self, id: RequestId, frame: Bytes) -> Option<Answer> {
        let (reply, answer) = oneshot::channel();
        self.queue.send(Call { id, frame, reply }).await.ok()?;
        answer.await.ok()
    }
}

/// Ends with its stream; every call still waiting then finds its end of the line dropped.
async fn run(connection: Connection, mut calls: mpsc::Receiver<Call>, queue: mpsc::WeakSender<Call>) {
    let Ok((mut send, recv)) = connection.open_bi().await else { return };
    let (expect, expected) = mpsc::unbounded_channel();
    let waiting = AtomicU64::new(0);
    let writer = async {
        let mut batch = Vec::with_capacity(WRITE_MAX);
        while calls.recv_many(&mut batch, WRITE_MAX).await > 0 {
            let mut frames = Vec::with_capacity(batch.len());
            for Call { id, frame, reply } in batch.drain(..) {
                frames.push(frame);
                waiting.fetch_add(1, Ordering::Relaxed);
                // Expected before it is sent: no reply can come before its place in the line.
                let _ = expect.send((id, reply));
            }
            if send.write_all_chunks(&mut frames).await.is_err() {
                return;
            }
        }
        // No handle is left; what was sent is still answered.
        let _ = send.finish();
        expect.closed().await;
    };
    tokio::select! {
        () = writer => {}
        () = read(ChannelReceiver::new(recv), expected, &waiting) => {}
        () = nudge(&connection, queue, &waiting) => {}
    }
}

/// While something is sent, or a reply is waited for, and not a single packet comes back, sends something small now and
/// again. Never returns.
///
/// A server that was restarted tells by a reset, at once, that it knows the connection no more, but only to
/// who sends something; and QUIC by itself repeats what is not acknowledged after ever longer pauses, as long
/// as the outage was, and nothing at all if the server had acknowledged everything before it died.
async fn nudge(connection: &Connection, queue: mpsc::WeakSender<Call>, waiting: &AtomicU64) {
    let (mut sent, mut heard) = (0, 0);
    loop {
        tokio::time::sleep(NUDGE).await;
        let stats = connection.stats();
        let expecting = stats.udp_tx.datagrams != sent || waiting.load(Ordering::Relaxed) > 0;
        let silent = expecting && stats.udp_rx.datagrams == heard;
        (sent, heard) = (stats.udp_tx.datagrams, stats.udp_rx.datagrams);
        let id = RequestId::random();
        if silent
            && let Ok(frame) = super::frame(&RequestHead::new(Opcode::Ping, id), None, &Request::Ping)
            && let Some(queue) = queue.upgrade()
        {
            // Nobody waits for the reply; a full queue has enough to send.
            let (reply, _) = oneshot::channel();
            let _ = queue.try_send(Call { id, frame, reply });
        }
    }
}

async fn read(
    mut receiver: ChannelReceiver,
    mut expected: mpsc::UnboundedReceiver<(RequestId, oneshot::Sender<Answer>)>,
    waiting: &AtomicU64,
) {
    let mut answers = VecDeque::new();
    loop {
        let received = receiver.receive(|reply| answers.push_back(reply.answer())).await;
        if !matches!(received, Ok(channel::Received::Replies(_))) {
            return;
        }
        for answer in answers.drain(..) {
            let (Ok(answer), Ok((id, reply))) = (answer, expected.try_recv()) else { return };
            waiting.fetch_sub(1, Ordering::Relaxed);
            if answer.head.request != id {
                // Out of step: no reply on this stream can be believed any more.
                return;
            }
            let _ = reply.send(answer);
        }
    }
}
