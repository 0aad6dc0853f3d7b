//! A histogram that costs a few uncontended additions, and no lock, where it is filled.
//!
//! Bounds are powers of two, so that finding a bucket is counting bits. Readers may see an addition in
//! part (its bucket and not yet its sum); figures of one reading may so differ by what is under way.

// Not the models' atomics: nothing is decided on a figure.
use std::sync::atomic::{AtomicU64, Ordering};

/// Bounds of a histogram; one bucket more takes what is beyond.
pub const BOUNDS: usize = 20;

/// Counts values by size. The first bound is a power of two, and each is twice the one before.
#[derive(Debug)]
pub struct Histogram {
    first_bits: u32,
    buckets: [AtomicU64; BOUNDS + 1],
    sum: AtomicU64,
}

impl Histogram {
    /// An empty one whose first bucket takes what is at most `1 << first_bits`.
    #[must_use]
    pub const fn new(first_bits: u32) -> Self {
        Self { first_bits, buckets: [const { AtomicU64::new(0) }; BOUNDS + 1], sum: AtomicU64::new(0) }
    }

    /// Counts a value `times` times.
    #[inline]
    pub fn add(&self, value: u64, times: u64) {
        let bits = u64::BITS - value.saturating_sub(1).leading_zeros();
        let bucket = (bits.saturating_sub(self.first_bits) as usize).min(BOUNDS);
        self.buckets[bucket].fetch_add(times, Ordering::Relaxed);
        self.sum.fetch_add(value.saturating_mul(times), Ordering::Relaxed);
    }

    /// What was counted so far.
    #[must_use]
    pub fn read(&self) -> Distribution {
        let mut distribution = Distribution { first_bits: self.first_bits, ..Distribution::default() };
        for (count, bucket) in distribution.counts.iter_mut().zip(&self.buckets) {
            *count = bucket.load(Ordering::Relaxed);
        }
        distribution.sum = self.sum.load(Ordering::Relaxed);
        distribution
    }
}

/// What a [`Histogram`] held when it was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Distribution {
    first_bits: u32,
    counts: [u64; BOUNDS + 1],
    /// The sum of the values.
    pub sum: u64,
}

impl Distribution {
    /// How many values were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Each bucket's bound, which belongs to it, and how many values it took; `None` is beyond all.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<u64>, u64)> {
        let bound = |at: usize| (at < BOUNDS).then(|| 1 << (self.first_bits as usize + at));
        self.counts.iter().enumerate().map(move |(at, count)| (bound(at), *count))
    }

    /// Adds what another histogram with the same bounds held.
    pub fn add(&mut self, other: &Distribution) {
        self.first_bits = other.first_bits;
        self.counts.iter_mut().zip(&other.counts).for_each(|(count, more)| *count += more);
        self.sum = self.sum.saturating_add(other.sum);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_value_falls_into_the_first_bucket_whose_bound_it_does_not_exceed() {
        let histogram = Histogram::new(4);
        for (value, bound) in [
            (0, Some(16)),
            (16, Some(16)),
            (17, Some(32)),
            (32, Some(32)),
            (33, Some(64)),
            (u64::MAX >> 8, None),
        ] {
            let before = histogram.read();
            histogram.add(value, 3);
            let after = histogram.read();
            let grown: Vec<_> = after
                .buckets()
                .zip(before.buckets())
                .filter(|(after, before)| after != before)
                .map(|(after, _)| after.0)
                .collect();
            assert_eq!(grown, [bound], "{value}");
            assert_eq!(after.count(), before.count() + 3);
            assert_eq!(after.sum, before.sum + 3 * value);
        }
        assert_eq!(histogram.read().buckets().nth(19).unwrap().0, Some(1 << 23));
    }
}
