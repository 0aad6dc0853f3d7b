//! A stream of one's own, for whoever has thousands of requests under way at once.
//!
//! The sender encodes frames into one buffer and hands it to QUIC as a whole; the receiver gives each
//! reply's head and bytes without copying them. Nothing is sent again here: a caller that loses the
//! stream keeps its ids and resolves them with [`Client::send_as`].

use bytes::{Bytes, BytesMut};
use quinn::{RecvStream, SendStream};
use tokio::time::Instant;

use super::Client;
use crate::error::ClientError;
use crate::frame::request::DoesNotFit;
use crate::frame::{
    Answer, FRAME_BYTES_MAX, Malformed, REPLY_HEAD_BYTES, ReplyHead, Request, RequestHead, Split, Splitter,
};

impl Client {
    /// Opens a stream of one's own.
    ///
    /// # Errors
    /// If the server cannot be reached within the time-out.
    pub async fn channel(&self) -> Result<(ChannelSender, ChannelReceiver), ClientError> {
        let link = self.link(Instant::now() + self.inner.options.timeout).await?;
        let (send, recv) = link.connection.open_bi().await.map_err(|error| self.refusal(&error))?;
        Ok((ChannelSender { send, out: BytesMut::new() }, ChannelReceiver::new(recv)))
    }
}

/// The sending half of a channel.
pub struct ChannelSender {
    send: SendStream,
    out: BytesMut,
}

impl ChannelSender {
    /// Encodes a request; nothing is sent before [`ChannelSender::flush`].
    ///
    /// # Errors
    /// If the request does not fit a frame.
    #[inline]
    pub fn push(&mut self, head: &RequestHead, request: &Request<'_>) -> Result<(), DoesNotFit> {
        request.encode(head, &mut self.out)
    }

    /// How many bytes wait to be flushed.
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        self.out.len()
    }

    /// Hands all that was pushed to QUIC in one piece; waits while the server takes no more.
    ///
    /// # Errors
    /// If the stream is lost.
    pub async fn flush(&mut self) -> Result<(), ChannelLost> {
        if self.out.is_empty() {
            return Ok(());
        }
        let bytes = self.out.split().freeze();
        self.send.write_chunk(bytes).await.map_err(|_| ChannelLost)
    }

    /// Says that nothing more will be sent; the server answers what it has and ends its side.
    ///
    /// # Errors
    /// If the stream is lost.
    pub fn finish(mut self) -> Result<(), ChannelLost> {
        self.send.finish().map_err(|_| ChannelLost)
    }
}

/// The stream is gone: what has no reply is unknown, and may be asked again under the same ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stream is lost; what has no reply is unknown")]
pub struct ChannelLost;

/// The receiving half of a channel.
pub struct ChannelReceiver {
    recv: RecvStream,
    splitter: Splitter,
}

/// A reply as it lies in the received bytes.
#[derive(Clone, Copy)]
pub struct RawReply<'a> {
    frame: &'a [u8],
}

impl RawReply<'_> {
    /// The head.
    ///
    /// # Errors
    /// If a field holds what this version does not know.
    #[inline]
    pub fn head(&self) -> Result<ReplyHead, Malformed> {
        ReplyHead::decode(self.frame).map(|(head, _)| head)
    }

    /// Head and body.
    ///
    /// # Errors
    /// If it is not well formed.
    pub fn answer(&self) -> Result<Answer, Malformed> {
        Answer::decode(self.frame)
    }
}

/// What a read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// So many whole replies; 0 if the piece ended inside one.
    Replies(usize),
    /// The server has ended the stream.
    End,
}

impl ChannelReceiver {
    pub(super) const fn new(recv: RecvStream) -> ChannelReceiver {
        ChannelReceiver { recv, splitter: Splitter::new(REPLY_HEAD_BYTES) }
    }

    /// Waits for bytes and calls `each` for every reply that is whole, in order.
    ///
    /// # Errors
    /// If the stream is lost or holds something that is no reply.
    pub async fn receive(&mut self, mut each: impl FnMut(RawReply<'_>)) -> Result<Received, ChannelLost> {
        let mut pieces: [Bytes; 32] = Default::default();
        let Some(count) = self.recv.read_chunks(&mut pieces).await.map_err(|_| ChannelLost)? else {
            return Ok(Received::End);
        };
        let mut replies = 0;
        for piece in &pieces[..count] {
            let mut rest: &[u8] = piece;
            loop {
                match self.splitter.next(&mut rest, |_| FRAME_BYTES_MAX) {
                    Ok(Split::More) => break,
                    Ok(Split::Frame(frame)) => {
                        replies += 1;
                        each(RawReply { frame });
                    }
                    Ok(Split::TooLong(_)) | Err(_) => return Err(ChannelLost),
                }
            }
        }
        Ok(Received::Replies(replies))
    }
}
