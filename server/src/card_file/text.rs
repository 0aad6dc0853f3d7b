//! A card file as UTF-8 text, through a window of bounded size.
//!
//! Files come in UTF-8, with or without a byte-order mark, or in what the supplier's spreadsheet saves in,
//! GB18030 most of all. Whatever it is, what comes out of the window is UTF-8, or bytes that are marked as
//! wrong by not being UTF-8.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use encoding_rs::{Decoder, Encoding, GB18030, UTF_8};
use zeroize::{Zeroize, Zeroizing};

/// Bytes read from the file at a time.
const READ_BYTES: usize = 128 << 10;
/// What one decoded byte may become at most.
const GROWTH: usize = 3;
/// Replacement characters stand for what cannot be decoded. In the window they become a byte that no UTF-8
/// has, so that a cell with one is told apart from text like any other that is not UTF-8.
const REPLACEMENT: &[u8] = "\u{fffd}".as_bytes();
const NOT_UTF8: u8 = 0xff;

/// What is found out about a file by reading all of it once.
pub struct Reading {
    /// How to decode it.
    pub encoding: &'static Encoding,
    /// BLAKE3 of its bytes.
    pub content: [u8; 32],
}

/// Reads the whole file and says what it is encoded in, unless `given` says so: what its byte-order mark
/// says, UTF-8 if it is valid as that, or else GB18030.
pub fn read_through(path: &Path, given: Option<&'static Encoding>) -> io::Result<Reading> {
    let mut file = File::open(path)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = Zeroizing::new(vec![0; READ_BYTES]);
    // The beginning of a character whose end has not come yet.
    let mut carried = 0;
    let (mut is_utf8, mut mark) = (true, None);
    let mut is_first = true;
    loop {
        let read = match file.read(&mut buffer[carried..]) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if read == 0 {
            is_utf8 &= carried == 0;
            break;
        }
        let end = carried + read;
        hasher.update(&buffer[carried..end]);
        if std::mem::take(&mut is_first) {
            mark = Encoding::for_bom(&buffer[..end]).map(|(encoding, _)| encoding);
        }
        carried = 0;
        if is_utf8 && let Err(wrong) = std::str::from_utf8(&buffer[..end]) {
            match wrong.error_len() {
                None => {
                    let from = wrong.valid_up_to();
                    carried = end - from;
                    buffer.copy_within(from..end, 0);
                }
                Some(_) => is_utf8 = false,
            }
        }
    }
    let found = mark.unwrap_or(if is_utf8 { UTF_8 } else { GB18030 });
    Ok(Reading { encoding: given.unwrap_or(found), content: *hasher.finalize().as_bytes() })
}

/// The file's text from the beginning.
pub struct Text {
    file: File,
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

impl Text {
    pub fn open(path: &Path, encoding: &'static Encoding) -> io::Result<Text> {
        let decoder = (encoding != UTF_8).then(|| encoding.new_decoder_with_bom_removal());
        let raw = if decoder.is_some() { READ_BYTES } else { 0 };
        Ok(Text {
            file: File::open(path)?,
            decoder,
            raw: Zeroizing::new(vec![0; raw]),
            window: Zeroizing::new(vec![0; 2 * READ_BYTES * GROWTH]),
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
        let read = loop {
            let place = match self.decoder {
                None => &mut self.window[self.end..self.end + READ_BYTES],
                Some(_) => &mut self.raw[..],
            };
            match self.file.read(place) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
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
