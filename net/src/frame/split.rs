//! Cuts a stream of bytes into frames.
//!
//! Most frames lie whole in what was received and are handed on from there; only one that straddles
//! two pieces is put together in a small buffer. That buffer grows with the bytes that really came,
//! never with the length that a frame announces, and is wiped after use because it may hold codes.
//!
//! A frame longer than its opcode allows is stepped over without being kept: the reader gets its head
//! and can answer. A length no frame may have, or another version, ends the stream: there is no
//! telling where the next frame begins.

use zeroize::Zeroize;

use super::{FRAME_BYTES_MAX, VERSION};

/// One step through the stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Split<'a> {
    /// A whole frame.
    Frame(&'a [u8]),
    /// The head of a frame that is longer than its opcode allows; the rest is left out.
    TooLong(&'a [u8]),
    /// All pieces are used up; more is needed.
    More,
}

/// A stream that cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadFrame {
    /// The length is below that of a head.
    #[error("the frame is shorter than its head length=`{length}`")]
    TooShort {
        /// What the frame says.
        length: u32,
    },
    /// The length is above what any frame may have.
    #[error("the frame is longer than any may be length=`{length}`")]
    TooLong {
        /// What the frame says.
        length: u32,
    },
    /// Not a version this library speaks.
    #[error("the frame's version is not known version=`{version}`")]
    Version {
        /// What the frame says.
        version: u8,
    },
}

/// What is kept between two pieces of a stream.
#[derive(Debug)]
pub struct Splitter {
    head_bytes: usize,
    /// The beginning of a frame whose end has not come yet.
    carry: Vec<u8>,
    /// The carried frame was handed out by the last call.
    spent: bool,
    /// So many bytes of a frame that is too long are still to come.
    skip: usize,
}

/// A carry buffer that grew beyond this is given back after use.
const CARRY_KEPT_BYTES: usize = 8 << 10;

impl Splitter {
    /// For frames whose heads have so many bytes.
    #[must_use]
    pub const fn new(head_bytes: usize) -> Splitter {
        Splitter { head_bytes, carry: Vec::new(), spent: false, skip: 0 }
    }

    /// The next frame from `piece`, which is moved past what was used. `bytes_max` tells from a head
    /// how long its frame may be.
    ///
    /// # Errors
    /// If the stream cannot go on; [`Splitter::head`] is then the head that says so.
    #[inline]
    pub fn next<'s, 'p: 's>(
        &'s mut self,
        piece: &mut &'p [u8],
        bytes_max: impl Fn(&[u8]) -> usize,
    ) -> Result<Split<'s>, BadFrame> {
        if self.carry.is_empty() && self.skip == 0 && piece.len() >= self.head_bytes {
            let length = self.length(piece)?;
            if length <= piece.len() && length <= bytes_max(&piece[..self.head_bytes]) {
                let (frame, rest) = piece.split_at(length);
                *piece = rest;
                return Ok(Split::Frame(frame));
            }
        }
        self.assemble(piece, bytes_max)
    }

    /// The head of the frame that [`Splitter::next`] refused.
    #[must_use]
    pub fn head<'s>(&'s self, piece: &'s [u8]) -> Option<&'s [u8]> {
        if self.carry.is_empty() { piece.get(..self.head_bytes) } else { self.carry.get(..self.head_bytes) }
    }

    /// Whether the stream may end here: no frame is begun.
    #[must_use]
    pub fn is_between_frames(&self) -> bool {
        (self.carry.is_empty() || self.spent) && self.skip == 0
    }

    fn assemble<'s, 'p: 's>(
        &'s mut self,
        piece: &mut &'p [u8],
        bytes_max: impl Fn(&[u8]) -> usize,
    ) -> Result<Split<'s>, BadFrame> {
        if self.spent {
            self.spent = false;
            self.carry.zeroize();
            if self.carry.capacity() > CARRY_KEPT_BYTES {
                self.carry = Vec::new();
            }
            // The piece may now hold a whole frame; the callers' loop comes back for it.
            return self.next(piece, bytes_max);
        }
        if self.skip > 0 {
            let skipped = self.skip.min(piece.len());
            *piece = &piece[skipped..];
            self.skip -= skipped;
            if self.skip > 0 || piece.is_empty() {
                return Ok(Split::More);
            }
            return self.next(piece, bytes_max);
        }
        self.fill(piece, self.head_bytes);
        if self.carry.len() < self.head_bytes {
            return Ok(Split::More);
        }
        let length = self.length(&self.carry)?;
        if length > bytes_max(&self.carry[..self.head_bytes]) {
            // The body's bytes, in this piece or later ones, are stepped over by the next call.
            self.skip = length - self.carry.len();
            self.spent = true;
            return Ok(Split::TooLong(&self.carry));
        }
        self.fill(piece, length);
        if self.carry.len() < length {
            return Ok(Split::More);
        }
        self.spent = true;
        Ok(Split::Frame(&self.carry))
    }

    /// Moves bytes from the piece until `count` are carried.
    fn fill(&mut self, piece: &mut &[u8], count: usize) {
        let (moved, rest) = piece.split_at((count.saturating_sub(self.carry.len())).min(piece.len()));
        if self.carry.len() + moved.len() > self.carry.capacity() {
            // Grown by hand: a reallocation inside Vec would leave bytes of codes behind unwiped.
            let mut grown = Vec::with_capacity((self.carry.len() + moved.len()).next_power_of_two().max(256));
            grown.extend_from_slice(&self.carry);
            self.carry.zeroize();
            self.carry = grown;
        }
        self.carry.extend_from_slice(moved);
        *piece = rest;
    }

    #[inline]
    fn length(&self, head: &[u8]) -> Result<usize, BadFrame> {
        let length = u32::from_le_bytes(super::array(head, 0));
        if head[4] != VERSION {
            return Err(BadFrame::Version { version: head[4] });
        }
        if (length as usize) < self.head_bytes {
            return Err(BadFrame::TooShort { length });
        }
        if length as usize > FRAME_BYTES_MAX {
            return Err(BadFrame::TooLong { length });
        }
        Ok(length as usize)
    }
}

/// The frames at the beginning of `piece` that lie whole in it, for a look at what a [`Splitter`] will hand on next. Ends
/// where the splitter would refuse something, too.
#[inline]
pub(crate) fn whole_frames(piece: &[u8], head_bytes: usize) -> impl Iterator<Item = &[u8]> {
    let (splitter, mut rest) = (Splitter::new(head_bytes), piece);
    std::iter::from_fn(move || {
        let length = splitter.length(rest.get(..head_bytes)?).ok()?;
        let (frame, behind) = rest.split_at_checked(length)?;
        rest = behind;
        Some(frame)
    })
}

impl Drop for Splitter {
    fn drop(&mut self) {
        self.carry.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: usize = super::super::REQUEST_HEAD_BYTES;

    fn frame(length: usize, fill: u8) -> Vec<u8> {
        let mut bytes = vec![fill; length];
        bytes[..4].copy_from_slice(&(length as u32).to_le_bytes());
        bytes[4] = VERSION;
        bytes
    }

    /// Feeds the stream in pieces of `piece_bytes` and returns the frames (or `None` for one too long).
    fn split(stream: &[u8], piece_bytes: usize, max: usize) -> Result<Vec<Option<Vec<u8>>>, BadFrame> {
        let mut splitter = Splitter::new(HEAD);
        let mut frames = Vec::new();
        for mut piece in stream.chunks(piece_bytes) {
            loop {
                match splitter.next(&mut piece, |_| max)? {
                    Split::Frame(frame) => frames.push(Some(frame.to_vec())),
                    Split::TooLong(_) => frames.push(None),
                    Split::More => break,
                }
            }
            assert!(piece.is_empty());
        }
        assert!(splitter.is_between_frames());
        Ok(frames)
    }

    #[test]
    fn frames_come_out_whole_however_they_arrive() {
        let frames: Vec<Vec<u8>> =
            [HEAD, HEAD + 1, 100, 5000, HEAD, 300].iter().zip(1..).map(|(l, i)| frame(*l, i)).collect();
        let stream = frames.concat();
        for piece_bytes in (1..200).chain([4096, stream.len()]) {
            let whole: Vec<_> = frames.iter().cloned().map(Some).collect();
            assert_eq!(split(&stream, piece_bytes, 1 << 20).unwrap(), whole, "pieces of {piece_bytes}");
            let small: Vec<_> = frames.iter().cloned().map(|f| (f.len() <= 300).then_some(f)).collect();
            assert_eq!(split(&stream, piece_bytes, 300).unwrap(), small, "pieces of {piece_bytes}");
        }
    }

    #[test]
    fn an_announced_length_reserves_nothing() {
        let mut splitter = Splitter::new(HEAD);
        let head = frame(FRAME_BYTES_MAX, 0);
        let mut piece = &head[..HEAD + 1];
        assert_eq!(splitter.next(&mut piece, |_| FRAME_BYTES_MAX), Ok(Split::More));
        assert!(splitter.carry.capacity() <= 256);
        assert!(!splitter.is_between_frames());
    }

    #[test]
    fn impossible_heads_end_the_stream() {
        let mut splitter = Splitter::new(HEAD);
        let mut short = frame(HEAD, 0);
        short[0] = HEAD as u8 - 1;
        let mut long = frame(HEAD, 0);
        long[..4].copy_from_slice(&(FRAME_BYTES_MAX as u32 + 1).to_le_bytes());
        let mut version = frame(HEAD, 0);
        version[4] = 2;
        for (head, bad) in [
            (&short, BadFrame::TooShort { length: 39 }),
            (&long, BadFrame::TooLong { length: 1048577 }),
            (&version, BadFrame::Version { version: 2 }),
        ] {
            let mut piece = &head[..];
            assert_eq!(splitter.next(&mut piece, |_| FRAME_BYTES_MAX), Err(bad));
            assert_eq!(splitter.head(piece), Some(&head[..]));
        }
    }
}
