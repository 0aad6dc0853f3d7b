//! The hash chain over the log: a value that stands for every byte before it.
//!
//! A value is BLAKE3 of the value before it followed by the log's bytes since then, in log order. The
//! gap that the end of a segment leaves in the position space holds no bytes. Whoever trusts one value
//! can tell whether anything below it was changed.

/// A chain value and how far it reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainPoint {
    /// The first position not covered; zero at the beginning of a log.
    pub to: u64,
    /// The value; zeros at the beginning of a log.
    pub value: [u8; 32],
}

impl ChainPoint {
    /// The chain of a log without records.
    pub const GENESIS: Self = Self { to: 0, value: [0; 32] };
}

/// The chain while bytes are added to it.
pub(crate) struct Chain {
    point: ChainPoint,
    hasher: blake3::Hasher,
}

impl Chain {
    pub(crate) fn from(point: ChainPoint) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&point.value);
        Self { point, hasher }
    }

    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
    }

    /// Makes the value over everything added, which reaches to `to`, and goes on from it.
    pub(crate) fn close(&mut self, to: u64) -> ChainPoint {
        *self = Self::from(ChainPoint { to, value: *self.hasher.finalize().as_bytes() });
        self.point
    }
}
