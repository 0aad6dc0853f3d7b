//! Log sequence numbers.

use std::fmt;
use std::num::NonZeroU64;

/// A position in the log, in bytes: `segment number × segment size + offset in the segment file`.
///
/// Every segment begins with a head that is not part of the log, so no record has position zero;
/// absence is `Option<Lsn>`, which costs nothing. Records begin on multiples of 8, and positions stay
/// below 2^51, so a position fits 48 bits when counted in 8-byte units (see [`Lsn::units`]).
///
/// The relation that holds at all times: `durable_end <= tail`, both record boundaries.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(NonZeroU64);

impl Lsn {
    /// The exclusive upper bound of all positions, in bytes.
    pub const BYTES_MAX: u64 = 1 << 51;

    /// A position before every record: replay from here is replay of everything.
    pub const START: Lsn = match Lsn::from_bytes(8) {
        Some(lsn) => lsn,
        None => unreachable!(),
    };

    /// The position `bytes` bytes into the log, or `None` if that is zero, not a multiple of 8 or out of range.
    #[must_use]
    pub const fn from_bytes(bytes: u64) -> Option<Self> {
        if !bytes.is_multiple_of(8) || bytes >= Self::BYTES_MAX {
            return None;
        }
        match NonZeroU64::new(bytes) {
            Some(value) => Some(Self(value)),
            None => None,
        }
    }

    /// The position that [`Lsn::units`] was taken from, or `None` for zero or more than 48 bits.
    #[must_use]
    pub const fn from_units(units: u64) -> Option<Self> {
        if units >= Self::BYTES_MAX / 8 {
            return None;
        }
        Self::from_bytes(units * 8)
    }

    /// The position in bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0.get()
    }

    /// The position in 8-byte units: at most 48 bits, never zero.
    #[must_use]
    pub const fn units(self) -> u64 {
        self.0.get() / 8
    }

    /// The position `bytes` further on.
    ///
    /// # Panics
    /// If the result is not a multiple of 8 or leaves the log's range.
    #[must_use]
    pub const fn plus(self, bytes: u64) -> Self {
        match Self::from_bytes(self.0.get() + bytes) {
            Some(lsn) => lsn,
            None => panic!("log position out of range"),
        }
    }
}

impl fmt::Debug for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lsn:{}", self.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
