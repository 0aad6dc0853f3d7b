//! The reply that carries codes.
//!
//! On the server it is written as the codes are decrypted, into a buffer that is never reallocated and
//! is wiped in the end; on the client every code is wiped when it is dropped. None is ever shown.

use std::fmt;

use bytes::{BufMut, BytesMut};
use kami_engine::{CardRef, ReplyFlags};
use zeroize::Zeroizing;

use super::reply::BodyKind;
use super::wire::{Field, Malformed, Reader, Wire};
use super::{FRAME_BYTES_MAX, REPLY_HEAD_BYTES, ReplyHead, close_frame, field};

/// Codes of an order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Codes {
    /// Cards of the order in all that still belong to it.
    pub total: u32,
    /// Which of them is the first here.
    pub from: u32,
    /// Those that fitted.
    pub cards: Vec<SoldCard>,
}

/// A card with its code, which is wiped when this is dropped and shown by no trace.
#[derive(Clone, PartialEq, Eq)]
pub struct SoldCard {
    /// Where it stands.
    pub card: CardRef,
    /// Its code.
    pub code: Zeroizing<Box<[u8]>>,
}

impl fmt::Debug for SoldCard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} …", self.card)
    }
}

impl Codes {
    pub(super) fn take(reader: &mut Reader<'_>) -> Result<Codes, Malformed> {
        let (total, from) = (reader.field("total")?, reader.field("from")?);
        let count: u32 = reader.field("count")?;
        let mut cards = Vec::new();
        for _ in 0..count {
            cards.push(Wire::take(reader)?);
        }
        Ok(Codes { total, from, cards })
    }

    /// Writes the body; whether all of it fitted.
    pub(super) fn put(&self, out: &mut BytesMut, end: usize) -> bool {
        let mut rows = CodesRows::begin(self.total, self.from, out);
        self.cards.iter().all(|card| rows.push(card.card, &card.code, out, end))
    }
}

impl Wire<'_> for SoldCard {
    const TYPE: &'static str = "SOLD_CARD";
    const FIELDS: &'static [Field] =
        &[field("card", "u64", "where it stands"), field("code", "bytes8", "its code")];
    fn put(&self, out: &mut BytesMut) {
        self.card.put(out);
        (&**self.code).put(out);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let card = reader.field("card")?;
        let code: &[u8] = reader.field("code")?;
        Ok(SoldCard { card, code: Zeroizing::new(code.into()) })
    }
}

/// Room is made for the longest codes, and most are short. A frame that would wait for its reader with more room than this is
/// copied to a buffer of its length; the one it was written to is wiped.
const SPARE_BYTES_MAX: usize = 1 << 10;

/// Writes a reply with codes piece by piece, as they are decrypted, into a buffer that is never
/// reallocated (so that no copy of a code stays behind) and takes no more than a frame.
pub struct CodesFrame {
    out: BytesMut,
    rows: CodesRows,
    wanted: u32,
}

impl CodesFrame {
    /// Begins a reply with up to `count` codes of an order of `total` cards, from the card `from` on.
    #[must_use]
    pub fn begin(head: &ReplyHead, total: u32, from: u32, count: u32) -> CodesFrame {
        let row_bytes_max = 8 + 1 + 128;
        let bytes = REPLY_HEAD_BYTES + 12 + (count as usize).saturating_mul(row_bytes_max);
        let mut out = BytesMut::with_capacity(bytes.min(FRAME_BYTES_MAX));
        head.put(BodyKind::Codes as u16, &mut out);
        let rows = CodesRows::begin(total, from, &mut out);
        CodesFrame { out, rows, wanted: count }
    }

    /// Adds a code; `false` when the frame is full, and then nothing more fits.
    pub fn push(&mut self, card: CardRef, code: &[u8]) -> bool {
        self.rows.push(card, code, &mut self.out, FRAME_BYTES_MAX)
    }

    /// The finished frame. It is PARTIAL if fewer codes were added than wanted.
    #[must_use]
    pub fn finish(mut self) -> Zeroizing<Vec<u8>> {
        if self.rows.count < self.wanted {
            self.out[5] |= ReplyFlags::PARTIAL.0;
        }
        close_frame(&mut self.out, 0);
        let frame = Zeroizing::new(Vec::from(self.out));
        if frame.capacity() - frame.len() > SPARE_BYTES_MAX { Zeroizing::new(frame.to_vec()) } else { frame }
    }
}

/// The rows of a CODES body, whose count is written as they come.
pub(super) struct CodesRows {
    count: u32,
    count_at: usize,
    full: bool,
}

impl CodesRows {
    pub(super) fn begin(total: u32, from: u32, out: &mut BytesMut) -> CodesRows {
        total.put(out);
        from.put(out);
        let count_at = out.len();
        out.put_u32_le(0);
        CodesRows { count: 0, count_at, full: false }
    }

    pub(super) fn push(&mut self, card: CardRef, code: &[u8], out: &mut BytesMut, end: usize) -> bool {
        self.full |= out.len() + 8 + 1 + code.len() > end;
        if !self.full {
            card.put(out);
            code.put(out);
            self.count += 1;
            out[self.count_at..self.count_at + 4].copy_from_slice(&self.count.to_le_bytes());
        }
        !self.full
    }
}
