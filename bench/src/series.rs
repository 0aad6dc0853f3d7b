//! The course of a run: answers and their latencies, second by second.
//!
//! A run of ten minutes over a thousand connections must not take gigabytes for this. So each second keeps only the
//! buckets that something fell into, sixteen to a factor of two: a percentile of a second is right to 3 %, while the
//! percentiles of the whole run come from a histogram of three digits ([`crate::report::Latencies`]).

use std::ops::Range;
use std::time::{Duration, Instant};

/// Buckets to a factor of two, as a power of two.
const FINE_BITS: u32 = 4;

/// What was answered in each second since a beginning.
#[derive(Clone, Debug, Default)]
pub struct Series {
    begun: Option<Instant>,
    seconds: Vec<Second>,
}

#[derive(Clone, Debug, Default)]
struct Second {
    answers: u64,
    /// By bucket; only those that are not empty, in order.
    buckets: Vec<(u16, u64)>,
}

impl Series {
    /// Counts seconds from `begun`.
    pub fn since(begun: Instant) -> Series {
        Series { begun: Some(begun), seconds: Vec::new() }
    }

    /// `count` answers came at `now` and took this long. Without a beginning nothing is kept.
    #[inline]
    pub fn record(&mut self, now: Instant, latency: Duration, count: u64) {
        let Some(begun) = self.begun else { return };
        let second = now.saturating_duration_since(begun).as_secs() as usize;
        if self.seconds.len() <= second {
            self.seconds.resize_with(second + 1, Second::default);
        }
        self.seconds[second].add(bucket(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX)), count);
    }

    /// Takes in what another thread or connection saw in the same seconds.
    pub fn merge(&mut self, other: &Series) {
        self.begun = self.begun.or(other.begun);
        let length = self.seconds.len().max(other.seconds.len());
        self.seconds.resize_with(length, Second::default);
        for (own, others) in self.seconds.iter_mut().zip(&other.seconds) {
            for (bucket, count) in &others.buckets {
                own.add(*bucket, *count);
            }
        }
    }

    /// Leaves out what is not a whole second of a run that took so long.
    pub fn whole(&self, elapsed: Duration) -> Series {
        let mut whole = self.clone();
        whole.seconds.resize_with(elapsed.as_secs() as usize, Second::default);
        whole
    }

    /// How many seconds there are.
    pub fn len(&self) -> usize {
        self.seconds.len()
    }

    /// Answers in each second.
    pub fn answers(&self) -> Vec<u64> {
        self.seconds.iter().map(|second| second.answers).collect()
    }

    /// A percentile of each second, microseconds; nothing where nothing was answered.
    pub fn percentiles_us(&self, quantile: f64) -> Vec<Option<f64>> {
        (0..self.len()).map(|second| self.percentile_us(second..second + 1, quantile)).collect()
    }

    /// A percentile of several seconds together, microseconds.
    pub fn percentile_us(&self, seconds: Range<usize>, quantile: f64) -> Option<f64> {
        let mut all = Second::default();
        for second in &self.seconds[seconds] {
            second.buckets.iter().for_each(|(bucket, count)| all.add(*bucket, *count));
        }
        let rank = (all.answers as f64 * quantile).ceil().max(1.0) as u64;
        let mut met = 0;
        let found = all.buckets.iter().find(|(_, count)| {
            met += count;
            rank <= met
        });
        found.map(|(bucket, _)| middle(*bucket) / 1000.0)
    }
}

impl Second {
    fn add(&mut self, bucket: u16, count: u64) {
        self.answers += count;
        match self.buckets.binary_search_by_key(&bucket, |(bucket, _)| *bucket) {
            Ok(at) => self.buckets[at].1 += count,
            Err(at) => self.buckets.insert(at, (bucket, count)),
        }
    }
}

/// The bucket of a number: its highest bits, and how many bits follow.
fn bucket(value: u64) -> u16 {
    let value = value.max(1 << FINE_BITS);
    let shift = value.ilog2() - FINE_BITS;
    ((shift << FINE_BITS) + (value >> shift) as u32) as u16
}

/// The middle of a bucket.
fn middle(bucket: u16) -> f64 {
    let (bucket, fine) = (u32::from(bucket), 1 << FINE_BITS);
    let shift = bucket / fine - 1;
    (f64::from(bucket - shift * fine) + 0.5) * 2_f64.powi(shift as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_narrow_and_holds_its_number() {
        let mut last = 0;
        for value in (4..60).flat_map(|bits| [1_u64 << bits, (1 << bits) * 3 / 2, (2 << bits) - 1]) {
            let (bucket, value) = (bucket(value), value as f64);
            assert!(last <= bucket);
            last = bucket;
            assert!((middle(bucket) / value - 1.0).abs() < 0.035, "{value} is taken for {}", middle(bucket));
        }
    }

    #[test]
    fn seconds_of_two_connections_add_up() {
        let begun = Instant::now();
        let at = |ms| begun + Duration::from_millis(ms);
        let (mut one, mut other) = (Series::since(begun), Series::since(begun));
        one.record(at(10), Duration::from_millis(1), 99);
        one.record(at(2_100), Duration::from_millis(8), 5);
        other.record(at(999), Duration::from_millis(50), 1);
        other.record(at(3_500), Duration::from_millis(50), 1);
        one.merge(&other);
        assert_eq!(one.answers(), [100, 0, 5, 1]);
        let one = one.whole(Duration::from_millis(3_600));
        let p99 = one.percentiles_us(0.99);
        assert!((p99[0].unwrap() / 1_000.0 - 1.0).abs() < 0.035, "{p99:?}");
        assert_eq!((p99[1], p99.len()), (None, 3));
        let p999 = one.percentile_us(0..3, 0.999).unwrap();
        assert!((p999 / 50_000.0 - 1.0).abs() < 0.035, "{p999}");
    }

    #[test]
    fn without_a_beginning_nothing_is_kept() {
        let mut series = Series::default();
        series.record(Instant::now(), Duration::from_millis(1), 1);
        assert_eq!(series.len(), 0);
    }
}
