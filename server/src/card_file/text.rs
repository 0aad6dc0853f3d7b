//! A card file as UTF-8 text, through a window of bounded size.
//!
//! Files come in UTF-8, with or without a byte-order mark, or in what the supplier's spreadsheet saves in,
//! GB18030 most of all. Whatever it is, what comes out of the window is UTF-8, or bytes that are marked as
//! wrong by not being UTF-8.

use std::io;

use encoding_rs::{Decoder, DecoderResult, Encoding, GB18030, UTF_8};
use zeroize::{Zeroize, Zeroizing};

use super::content::{BLOCK_BYTES, Blocks, Content};

/// What one decoded byte may become at most.
const GROWTH: usize = 3;
/// Replacement characters stand for what cannot be decoded. In the window they become a byte that no UTF-8
/// has, so that a cell with one is told apart from text like any other that is not UTF-8.
const REPLACEMENT: &[u8] = "\u{fffd}".as_bytes();
const NOT_UTF8: u8 = 0xff;

/// Finds out what a file is encoded in, from its blocks.
pub struct Looks {
    mark: Option<&'static Encoding>,
    is_first: bool,
    /// The beginning of a character whose end has not come yet.
    carried: Zeroizing<Vec<u8>>,
    /// Characters beyond ASCII that are UTF-8, and places that are not.
    wide: u64,
    wrong: u64,
    /// The line of the first such place.
    line: u64,
    wrong_line: u64,
}

impl Looks {
    pub fn new() -> Looks {
        let carried = Zeroizing::new(Vec::with_capacity(4));
        Looks { mark: None, is_first: true, carried, wide: 0, wrong: 0, line: 1, wrong_line: 0 }
    }

    /// Looks at the next bytes.
    pub fn look(&mut self, bytes: &[u8]) {
        if std::mem::take(&mut self.is_first) {
            self.mark = Encoding::for_bom(bytes).map(|(encoding, _)| encoding);
        }
        let mut rest = bytes;
        while !self.carried.is_empty() && !rest.is_empty() {
            self.carried.push(rest[0]);
            rest = &rest[1..];
            match std::str::from_utf8(&self.carried) {
                Ok(_) => self.wide += 1,
                Err(wrong) if wrong.error_len().is_none() => continue,
                Err(_) => {
                    self.see_wrong();
                    // The last byte may begin something of its own.
                    rest = &bytes[bytes.len() - rest.len() - 1..];
                }
            }
            self.carried.clear();
        }
        loop {
            let (valid, wrong) = match std::str::from_utf8(rest) {
                Ok(_) => (rest, None),
                Err(wrong) => (&rest[..wrong.valid_up_to()], Some(wrong.error_len())),
            };
            // Characters of several bytes begin with one of these.
            self.wide += valid.iter().filter(|byte| **byte >= 0xc0).count() as u64;
            if self.wrong == 0 {
                self.line += memchr::memchr_iter(b'\n', valid).count() as u64;
            }
            match wrong {
                None => return,
                Some(None) => return self.carried.extend_from_slice(&rest[valid.len()..]),
                Some(Some(length)) => {
                    self.see_wrong();
                    rest = &rest[valid.len() + length..];
                }
            }
        }
    }

    fn see_wrong(&mut self) {
        self.wrong += 1;
        if self.wrong == 1 {
            self.wrong_line = self.line;
        }
    }

    /// What its byte-order mark says; UTF-8 if all of it is; or else GB18030, if `content` is clean in that.
    ///
    /// # Errors
    /// If it cannot be read; inside, why its encoding is not clear.
    pub fn end(mut self, content: &Content) -> io::Result<Result<&'static Encoding, String>> {
        if !self.carried.is_empty() {
            self.see_wrong();
        }
        if let Some(mark) = self.mark {
            return Ok(Ok(mark));
        }
        if self.wrong == 0 {
            return Ok(Ok(UTF_8));
        }
        // In GB18030 most characters are wrong as UTF-8, and those that are not are so by chance.
        let why = if self.wide > self.wrong {
            "most of it is UTF-8, but not all"
        } else if is_clean(content, GB18030)? {
            return Ok(Ok(GB18030));
        } else {
            "it is neither UTF-8 nor GB18030"
        };
        Ok(Err(format!(
            "{why}: the first bytes that are not UTF-8 are in line {}; --encoding says what it is, and lines \
             that are not in it are bad lines then",
            self.wrong_line
        )))
    }
}

/// Whether all of it can be decoded.
fn is_clean(content: &Content, encoding: &'static Encoding) -> io::Result<bool> {
    let mut decoder = encoding.new_decoder_without_bom_handling();
    let mut blocks = content.blocks()?;
    let mut raw = Zeroizing::new(vec![0; BLOCK_BYTES]);
    let mut decoded = Zeroizing::new(vec![0; BLOCK_BYTES * GROWTH]);
    for block in 0.. {
        let read = blocks.read(block, &mut raw)?;
        let (result, _, _) =
            decoder.decode_to_utf8_without_replacement(&raw[..read], &mut decoded, read == 0);
        if result != DecoderResult::InputEmpty {
            return Ok(false);
        }
        if read == 0 {
            break;
        }
    }
    Ok(true)
}

/// The file's text from the beginning.
pub struct Text<'a> {
    blocks: Blocks<'a>,
    /// Which block comes next.
    block: usize,
    /// `None` for UTF-8, which needs no decoding.
    decoder: Option<Decoder>,
    raw: Zeroizing<Vec<u8>>,
    window: Zeroizing<Vec<u8>>,
    start: usize,
    end: usize,
    is_over: bool,
    is_first: bool,
    /// How many bytes of the file were read.
    pub bytes_read: u64,
}

impl<'a> Text<'a> {
    pub fn open(content: &'a Content, encoding: &'static Encoding) -> io::Result<Text<'a>> {
        let decoder = (encoding != UTF_8).then(|| encoding.new_decoder_with_bom_removal());
        let raw = if decoder.is_some() { BLOCK_BYTES } else { 0 };
        Ok(Text {
            blocks: content.blocks()?,
            block: 0,
            decoder,
            raw: Zeroizing::new(vec![0; raw]),
            window: Zeroizing::new(vec![0; 2 * BLOCK_BYTES * GROWTH]),
            start: 0,
            end: 0,
            is_over: false,
            is_first: true,
            bytes_read: 0,
        })
    }

    /// What is in the window.
    #[inline]
    pub fn window(&self) -> &[u8] {
        &self.window[self.start..self.end]
    }

    /// Whether nothing comes behind the window.
    #[inline]
    pub const fn is_over(&self) -> bool {
        self.is_over
    }

    /// Moves the window's beginning.
    #[inline]
    pub fn consume(&mut self, bytes: usize) {
        self.start += bytes;
        debug_assert!(self.start <= self.end);
    }

    /// Reads on. The window is to be smaller than half of what it can hold.
    pub fn more(&mut self) -> io::Result<()> {
        self.window.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        let place = match self.decoder {
            None => &mut self.window[self.end..self.end + BLOCK_BYTES],
            Some(_) => &mut self.raw[..],
        };
        let read = self.blocks.read(self.block, place)?;
        self.block += 1;
        self.bytes_read += read as u64;
        self.is_over = read == 0;
        match &mut self.decoder {
            None => self.end += read,
            Some(decoder) => {
                let (_, used, written, _) =
                    decoder.decode_to_utf8(&self.raw[..read], &mut self.window[self.end..], self.is_over);
                debug_assert_eq!(used, read, "the window has room for what is read");
                let new = &mut self.window[self.end..self.end + written];
                mark_undecodable(new);
                self.end += written;
                self.raw[..read].zeroize();
            }
        }
        let begins = self.is_first && (self.end >= 3 || self.is_over);
        if begins {
            self.is_first = false;
            self.start = if self.window[..self.end].starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
        }
        Ok(())
    }
}

fn mark_undecodable(text: &mut [u8]) {
    let mut from = 0;
    while let Some(found) = memchr::memchr(REPLACEMENT[0], &text[from..]) {
        let at = from + found;
        if text[at..].starts_with(REPLACEMENT) {
            text[at..at + REPLACEMENT.len()].fill(NOT_UTF8);
        }
        from = at + 1;
    }
}
