//! What can go wrong on the way into and out of a log.

use std::error::Error;
use std::io;

use crate::lsn::Lsn;

/// Why a log was not opened, or what is wrong with it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The medium refused an operation.
    #[error("{what} failed path=`{path}`")]
    Io {
        /// The operation.
        what: &'static str,
        /// The file or directory concerned.
        path: String,
        /// What the medium said.
        source: io::Error,
    },
    /// Bytes that were acknowledged as durable are damaged.
    #[error(
        "the log is damaged below its durable end file=`{file}` offset=`{offset}` lsn=`{lsn}` durable_end=`{durable_end}`"
    )]
    Corrupt {
        /// The segment file.
        file: String,
        /// Where in it the first damaged record begins.
        offset: u64,
        /// The same place as a position in the log.
        lsn: Lsn,
        /// How far the log is known to have been durable.
        durable_end: Lsn,
    },
    /// A segment file that must be there is not.
    #[error("a segment of the log is missing file=`{file}`")]
    MissingSegment {
        /// The file.
        file: String,
    },
    /// A segment file does not have the length all segments of the store have.
    #[error("a segment file has the wrong length file=`{file}` bytes=`{bytes}` expected=`{expected}`")]
    SegmentLength {
        /// The file.
        file: String,
        /// Its length.
        bytes: u64,
        /// The length it must have.
        expected: u64,
    },
    /// The head of a segment in use is damaged: its header, or both tail slots, of which a power cut
    /// can damage one.
    #[error("the head of a segment in use is damaged file=`{file}` offset=`{offset}`")]
    DamagedHead {
        /// The segment file.
        file: String,
        /// Where in it the damage lies.
        offset: u64,
    },
    /// A segment, or a record in it, belongs to another store.
    #[error(
        "the log holds data of another store file=`{file}` offset=`{offset}` found=`{found:#018x}` expected=`{expected:#018x}`"
    )]
    ForeignStore {
        /// The segment file.
        file: String,
        /// Where in it.
        offset: u64,
        /// The store it names.
        found: u64,
        /// The store it should name.
        expected: u64,
    },
    /// A segment was written by a program with a newer format.
    #[error("a segment needs a newer program file=`{file}` version=`{version}` features=`{features:#x}`")]
    Unsupported {
        /// The segment file.
        file: String,
        /// The format version it names.
        version: u32,
        /// The feature bits it names.
        features: u64,
    },
    /// The hash chain does not fit the bytes: the log was changed by someone who knew its checksums.
    #[error("the hash chain is broken file=`{file}` offset=`{offset}` lsn=`{lsn}`")]
    ChainBroken {
        /// The segment file.
        file: String,
        /// Where in it the record lies whose chain value does not fit.
        offset: u64,
        /// The same place as a position in the log.
        lsn: Lsn,
    },
    /// The options cannot be used.
    #[error("unusable option {name}: {why}")]
    Options {
        /// The field of [`WalOptions`](crate::WalOptions).
        name: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Whoever took the records in refused one.
    #[error("a record was refused lsn=`{lsn}`")]
    Refused {
        /// The record.
        lsn: Lsn,
        /// The reason given.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The new segment could not be made durable; the log on the medium is as good as before.
    #[error("the log is poisoned by a failed write")]
    Poisoned,
}

impl OpenError {
    /// Wraps an error of the medium.
    pub(crate) fn io(what: &'static str, path: &str) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }

    /// Whether the log itself is damaged or unreadable for this program, as opposed to a failing or
    /// full environment.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        !matches!(self, Self::Io { .. } | Self::Options { .. } | Self::Refused { .. } | Self::Poisoned)
    }
}

/// Why a record could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The range reaches beyond the tail, or crosses the end of a segment.
    #[error("nothing to read there lsn=`{lsn}`")]
    OutOfRange {
        /// Where it begins.
        lsn: Lsn,
    },
    /// What lies there is not the record that belongs there.
    #[error("no valid record lsn=`{lsn}`")]
    Invalid {
        /// Where it should begin.
        lsn: Lsn,
    },
    /// The medium failed.
    #[error("reading failed lsn=`{lsn}`")]
    Io {
        /// Where.
        lsn: Lsn,
        /// What the medium said.
        source: io::Error,
    },
}
