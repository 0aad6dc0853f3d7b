//! The bytes of a card file: in every pass the same, or an error.
//!
//! A file is read several times, and between two passes, or in the middle of one, somebody may write to it or
//! put another in its place. Length and time of change do not tell: both can be the same. So the first pass
//! keeps a hash of every block, and every later pass checks a block before it yields a single byte of it. Rows
//! of two files are never mixed, nor is a row ever sent that was not checked, even if nobody lives to see the
//! file's end.
//!
//! Hashes take 32 bytes for every 128 KiB of file.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// Bytes that are hashed, and read, together.
pub const BLOCK_BYTES: usize = 128 << 10;

/// What a file held when it was read first.
pub struct Content {
    path: PathBuf,
    /// BLAKE3 of each block.
    blocks: Vec<[u8; 32]>,
    /// Its length in bytes.
    pub length: u64,
}

impl Content {
    /// Reads the whole file, and shows it to `each` block by block.
    ///
    /// # Errors
    /// If it cannot be read, or is no file that can be read twice.
    pub fn read(path: &Path, mut each: impl FnMut(&[u8])) -> io::Result<Content> {
        // Asked before it is opened: opening a pipe would wait for its other end.
        let metadata = std::fs::metadata(path)?;
        if metadata.is_dir() {
            return Err(io::Error::from(io::ErrorKind::IsADirectory));
        }
        if !metadata.is_file() {
            let wrong = "it is a pipe or a device, and a card file is read several times: save it as a file";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, wrong));
        }
        let file = File::open(path)?;
        let mut content = Content { path: path.to_owned(), blocks: Vec::new(), length: 0 };
        let mut block = Zeroizing::new(vec![0; BLOCK_BYTES]);
        loop {
            let read = fill(&file, content.length, &mut block)?;
            if read == 0 {
                return Ok(content);
            }
            content.blocks.push(*blake3::hash(&block[..read]).as_bytes());
            content.length += read as u64;
            each(&block[..read]);
            if read < BLOCK_BYTES {
                return Ok(content);
            }
        }
    }

    /// What tells this content from any other.
    pub fn digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key("kami 2026-11 content of a card file");
        hasher.update(&self.length.to_le_bytes());
        for block in &self.blocks {
            hasher.update(block);
        }
        *hasher.finalize().as_bytes()
    }

    /// Reads it again.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn blocks(&self) -> io::Result<Blocks<'_>> {
        Ok(Blocks { content: self, file: File::open(&self.path)? })
    }

    /// Reads it again, anywhere.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn reader(&self) -> io::Result<Reader<'_>> {
        let block = Zeroizing::new(vec![0; BLOCK_BYTES]);
        Ok(Reader { blocks: self.blocks()?, at: 0, block, held: None, length: 0 })
    }
}

/// As much as there is from `at` on, or as has room.
fn fill(file: &File, at: u64, place: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < place.len() {
        match file.read_at(&mut place[filled..], at + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn changed() -> io::Error {
    let wrong = "the file was changed while it was read: run the same command again when nobody writes to it";
    io::Error::new(io::ErrorKind::InvalidData, wrong)
}

/// The blocks of a content, as they were.
pub struct Blocks<'a> {
    content: &'a Content,
    file: File,
}

impl Blocks<'_> {
    /// Reads a block into the beginning of `place`, which has room for [`BLOCK_BYTES`]. 0 behind the last.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] if the block is not what it was, or something comes behind the last.
    pub fn read(&mut self, block: usize, place: &mut [u8]) -> io::Result<usize> {
        let at = (block * BLOCK_BYTES) as u64;
        let Some(expected) = self.content.blocks.get(block) else {
            return match fill(&self.file, self.content.length, &mut [0])? {
                0 => Ok(0),
                _ => Err(changed()),
            };
        };
        let length = (self.content.length - at).min(BLOCK_BYTES as u64) as usize;
        let place = &mut place[..length];
        if fill(&self.file, at, place)? == length && blake3::hash(place) == *expected {
            Ok(length)
        } else {
            Err(changed())
        }
    }
}

/// A content to move about in.
pub struct Reader<'a> {
    blocks: Blocks<'a>,
    at: u64,
    block: Zeroizing<Vec<u8>>,
    /// Which block is held, and its length.
    held: Option<usize>,
    length: usize,
}

impl Read for Reader<'_> {
    fn read(&mut self, place: &mut [u8]) -> io::Result<usize> {
        let block = usize::try_from(self.at / BLOCK_BYTES as u64).unwrap_or(usize::MAX / BLOCK_BYTES);
        if self.held != Some(block) {
            self.held = None;
            self.length = self.blocks.read(block, &mut self.block)?;
            self.held = Some(block);
        }
        let from = (self.at % BLOCK_BYTES as u64) as usize;
        let rest = self.block[..self.length].get(from..).unwrap_or_default();
        let read = rest.len().min(place.len());
        place[..read].copy_from_slice(&rest[..read]);
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for Reader<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let to = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(from) => self.blocks.content.length.checked_add_signed(from),
            SeekFrom::Current(from) => self.at.checked_add_signed(from),
        };
        self.at = to.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.at)
    }
}
