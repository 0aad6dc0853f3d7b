//! Frames: the only place that knows the protocol's bytes. No I/O here.
//!
//! A stream is a sequence of frames. Each begins with its own length, so a reader that does not know
//! a command can still step over it. All integers are little-endian; reserved fields are zero.
//!
//! Request: 40 bytes of head ([`RequestHead`]), then the body its opcode calls for ([`Request`]).
//!
//! | Offset | Bytes | Field | Meaning |
//! |---:|---:|---|---|
//! | 0 | 4 | length | of the whole frame |
//! | 4 | 1 | version | 1 |
//! | 5 | 1 | flags | bit 0 ATOMIC, bit 1 PARTIAL, bit 2 GROUNDS |
//! | 6 | 2 | opcode | see [`Opcode`] |
//! | 8 | 16 | request | request id, never 0 |
//! | 24 | 4 | deadline_ms | 0: none; else not executed later than this after receipt |
//! | 28 | 4 | terminal | the till |
//! | 32 | 2 | channel | the sales channel |
//! | 34 | 2 | reserved | |
//! | 36 | 4 | reserved | |
//!
//! Reply: 48 bytes of head ([`ReplyHead`]), then the body its `body` field names ([`Body`]).
//!
//! | Offset | Bytes | Field | Meaning |
//! |---:|---:|---|---|
//! | 0 | 4 | length | of the whole frame |
//! | 4 | 1 | version | 1 |
//! | 5 | 1 | flags | bit 0 REPLAYED, bit 1 PARTIAL, bit 2 REVERSED |
//! | 6 | 2 | opcode | that of the request |
//! | 8 | 16 | request | that of the request |
//! | 24 | 2 | status | see [`Status`] |
//! | 26 | 2 | body | which body follows |
//! | 28 | 4 | reserved | |
//! | 32 | 8 | lsn | the receipt: where the effect stands in the log; 0: nowhere |
//! | 40 | 8 | time_ms | engine time of the decision; 0: the engine was not asked |
//!
//! Invariants: decoding never panics and allocates no more than a constant times the bytes it was
//! given; a length is checked before anything is kept for it; a decoded body has no bytes left over.

mod card;
pub mod close;
mod codes;
pub mod control;
mod feed;
pub mod money;
pub mod opcode;
pub mod order;
mod principal;
pub mod reply;
mod report;
pub mod request;
mod rows;
pub mod split;
mod stock;
pub mod wire;

use bytes::BytesMut;
use kami_engine::Lsn;
use kami_engine::{ChannelId, ReplyFlags, RequestId, Status, TerminalId};

pub use close::CloseCode;
pub use feed::{FEED_CREDIT_MAX, FEED_FRAME_EVENTS_MAX, FeedAck, FeedBegin, FeedEvents, FeedOpen};
pub use opcode::{Opcode, Roles};
pub use reply::{Answer, Body, BodyKind, Exceptions, ItemReport, Listing, PathHash, SoldCard, Wait, Welcome};
pub use request::{Request, RequestFlags};
pub use split::{BadFrame, Split, Splitter};
pub use wire::{Field, Malformed, Secret};

/// The protocol as negotiated in TLS.
pub const ALPN: &[u8] = b"kami/1";
/// The version in every frame.
pub const VERSION: u8 = 1;
/// The longest frame, either way, head included.
pub const FRAME_BYTES_MAX: usize = 1 << 20;
/// The length of a request's head.
pub const REQUEST_HEAD_BYTES: usize = 40;
/// The length of a reply's head.
pub const REPLY_HEAD_BYTES: usize = 48;

/// The first 40 bytes of a request, less length and version. The opcode is a bare number here: an
/// unknown one is answered and is no reason to give the stream up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHead {
    /// Options of the command.
    pub flags: RequestFlags,
    /// The number of the command, see [`Opcode`].
    pub opcode: u16,
    /// What makes a retry safe.
    pub request: RequestId,
    /// How long after its receipt the command may still be decided, in milliseconds; 0 is for ever.
    pub deadline_ms: u32,
    /// The till, or 0.
    pub terminal: TerminalId,
    /// The sales channel, or 0.
    pub channel: ChannelId,
}

impl RequestHead {
    /// A head with nothing but what every request needs.
    #[must_use]
    pub const fn new(opcode: Opcode, request: RequestId) -> RequestHead {
        RequestHead {
            flags: RequestFlags::NONE,
            opcode: opcode.number(),
            request,
            deadline_ms: 0,
            terminal: TerminalId(0),
            channel: ChannelId(0),
        }
    }

    /// The head of a frame whose length and version were checked by a [`Splitter`].
    ///
    /// # Errors
    /// If a reserved field or unassigned flag is not zero, or the request id is.
    #[inline]
    pub fn decode(frame: &[u8]) -> Result<RequestHead, Malformed> {
        let head = RequestHead::decode_lenient(frame).ok_or(Malformed { field: "length" })?;
        if !head.flags.is_assigned() {
            return Err(Malformed { field: "flags" });
        }
        if head.request.0 == 0 {
            return Err(Malformed { field: "request" });
        }
        if frame[34..REQUEST_HEAD_BYTES] != [0; 6] {
            return Err(Malformed { field: "reserved" });
        }
        Ok(head)
    }

    /// The fields as they are, to answer a frame that is not in order; `None` if there is no head.
    #[must_use]
    #[inline]
    pub fn decode_lenient(frame: &[u8]) -> Option<RequestHead> {
        let head: &[u8; REQUEST_HEAD_BYTES] = frame.first_chunk()?;
        Some(RequestHead {
            flags: RequestFlags(head[5]),
            opcode: u16::from_le_bytes(array(head, 6)),
            request: RequestId(u128::from_le_bytes(array(head, 8))),
            deadline_ms: u32::from_le_bytes(array(head, 24)),
            terminal: TerminalId(u32::from_le_bytes(array(head, 28))),
            channel: ChannelId(u16::from_le_bytes(array(head, 32))),
        })
    }

    #[inline]
    pub(crate) fn put(&self, out: &mut BytesMut) {
        let head = place::<REQUEST_HEAD_BYTES>(out);
        head[4] = VERSION;
        head[5] = self.flags.0;
        head[6..8].copy_from_slice(&self.opcode.to_le_bytes());
        head[8..24].copy_from_slice(&self.request.0.to_le_bytes());
        head[24..28].copy_from_slice(&self.deadline_ms.to_le_bytes());
        head[28..32].copy_from_slice(&self.terminal.0.to_le_bytes());
        head[32..34].copy_from_slice(&self.channel.0.to_le_bytes());
    }
}

/// The first 48 bytes of a reply, less length and version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyHead {
    /// More about the outcome.
    pub flags: ReplyFlags,
    /// The opcode of the request, as it came.
    pub opcode: u16,
    /// The id of the request.
    pub request: RequestId,
    /// The outcome.
    pub status: Status,
    /// Where the effect stands in the log.
    pub lsn: Option<Lsn>,
    /// Engine time of the decision, milliseconds since 1970; 0 if the engine was not asked.
    pub time_ms: u64,
}

impl ReplyHead {
    /// The head of a reply that the engine was not asked for.
    #[must_use]
    pub const fn local(request: &RequestHead, status: Status) -> ReplyHead {
        ReplyHead {
            flags: ReplyFlags(0),
            opcode: request.opcode,
            request: request.request,
            status,
            lsn: None,
            time_ms: 0,
        }
    }

    /// The head and the number of the body's kind.
    ///
    /// # Errors
    /// If a field holds what this version does not know.
    pub fn decode(frame: &[u8]) -> Result<(ReplyHead, u16), Malformed> {
        let head: &[u8; REPLY_HEAD_BYTES] = frame.first_chunk().ok_or(Malformed { field: "length" })?;
        let status = Status::from_number(u16::from_le_bytes(array(head, 24)));
        let lsn = match u64::from_le_bytes(array(head, 32)) {
            0 => None,
            bytes => Some(Lsn::from_bytes(bytes).ok_or(Malformed { field: "lsn" })?),
        };
        let reply = ReplyHead {
            flags: ReplyFlags(head[5]),
            opcode: u16::from_le_bytes(array(head, 6)),
            request: RequestId(u128::from_le_bytes(array(head, 8))),
            status: status.ok_or(Malformed { field: "status" })?,
            lsn,
            time_ms: u64::from_le_bytes(array(head, 40)),
        };
        Ok((reply, u16::from_le_bytes(array(head, 26))))
    }

    #[inline]
    pub(crate) fn put(&self, body: u16, out: &mut BytesMut) {
        let head = place::<REPLY_HEAD_BYTES>(out);
        head[4] = VERSION;
        head[5] = self.flags.0;
        head[6..8].copy_from_slice(&self.opcode.to_le_bytes());
        head[8..24].copy_from_slice(&self.request.0.to_le_bytes());
        head[24..26].copy_from_slice(&self.status.number().to_le_bytes());
        head[26..28].copy_from_slice(&body.to_le_bytes());
        head[32..40].copy_from_slice(&self.lsn.map_or(0, Lsn::bytes).to_le_bytes());
        head[40..48].copy_from_slice(&self.time_ms.to_le_bytes());
    }
}

/// The layout of both heads, for the document.
pub const HEADS: [(&str, &[Field]); 2] = [
    (
        "request head",
        &[
            field("length", "u32", "bytes of the whole frame, this field included"),
            field("version", "u8", "1"),
            field(
                "flags",
                "u8",
                "bit 0: ATOMIC, bit 1: PARTIAL, bit 2: GROUNDS, the body begins with them; the others are 0",
            ),
            field("opcode", "u16", "what is asked"),
            field("request", "u128", "request id, chosen by the client, never 0"),
            field("deadline_ms", "u32", "not executed later than this many ms after receipt; 0: no deadline"),
            field("terminal", "u32", "the till, or 0"),
            field("channel", "u16", "the sales channel, or 0"),
            field("reserved", "u16", "0"),
            field("reserved", "u32", "0"),
        ],
    ),
    (
        "reply head",
        &[
            field("length", "u32", "bytes of the whole frame, this field included"),
            field("version", "u8", "1"),
            field("flags", "u8", "bit 0: REPLAYED, bit 1: PARTIAL, bit 2: REVERSED"),
            field("opcode", "u16", "that of the request"),
            field("request", "u128", "that of the request"),
            field("status", "u16", "the outcome"),
            field("body", "u16", "which body follows"),
            field("reserved", "u32", "0"),
            field("lsn", "u64", "the receipt: where the effect stands in the log; 0: nowhere"),
            field(
                "time_ms",
                "u64",
                "engine time of the decision, ms since 1970; 0: the engine was not asked",
            ),
        ],
    ),
];

pub(crate) const fn field(name: &'static str, kind: &'static str, meaning: &'static str) -> Field {
    Field { name, kind, meaning }
}

/// Writes a frame whose head begins at `start`: its length is known now.
fn close_frame(out: &mut BytesMut, start: usize) {
    // A frame is at most FRAME_BYTES_MAX long: encoders stop before that.
    let length = (out.len() - start) as u32;
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

/// Zeros at the end of `out`, to be filled where they stand: what is filled in small pieces and moved in large ones
/// right after has to wait for the small ones.
#[inline]
fn place<const N: usize>(out: &mut BytesMut) -> &mut [u8; N] {
    let at = out.len();
    out.resize(at + N, 0);
    out[at..].first_chunk_mut().expect("made room for just now")
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut taken = [0; N];
    taken.copy_from_slice(&bytes[at..at + N]);
    taken
}
