//! Whether two kinds of requests can be told apart by how long their replies take.
//!
//! The question is that of dudect (Reparaz, Balasch, Verbauwhede: *Dude, is my code constant time?*, 2017): take many
//! times of each kind, interleaved at random so that whatever drifts hits both alike, and ask whether their
//! distributions differ. Two tests answer it, since each is blind to something:
//!
//! * **Student's t over blocks.** The times are cut into blocks in the order in which they were taken; of each block the
//!   median of the one kind less that of the other is one observation. Medians do not mind that some replies meet a
//!   scheduler's tick, differences within a block do not mind drift, and the mean of hundreds of them is normal. Their mean
//!   is the effect, in nanoseconds. |t| above [`T_MAX`] is a difference; the value is the one that side-channel
//!   evaluation uses (Goodwill, Jun, Jaffe, Rohatgi: *A testing methodology for side-channel resistance validation*,
//!   2011), one false alarm in 150,000.
//! * **Kolmogorov and Smirnov, two samples**, over all times: the largest distance of the two distribution functions.
//!   It sees a difference in shape that leaves the medians alone. A distance that equal distributions would pass once
//!   in a million is a difference. What drifts makes times alike within both kinds, so this test errs towards none.

use std::fmt;

/// |t| above which a difference is believed.
pub const T_MAX: f64 = 4.5;
/// Times of each kind in a block.
const BLOCK: usize = 100;
/// The chance of equal distributions to be further apart than what is believed.
const ALPHA: f64 = 1e-6;

/// What came of a comparison.
#[derive(Clone, Copy, Debug)]
pub struct Comparison {
    /// Times of each kind.
    pub samples: usize,
    /// By how much the first kind takes longer: the mean of the differences of blocks, in nanoseconds.
    pub effect_ns: f64,
    /// Half the width of its interval of confidence of 95 %.
    pub within_ns: f64,
    /// Student's t of these differences.
    pub t: f64,
    /// The largest distance of the distribution functions.
    pub distance: f64,
    /// What that may be.
    pub distance_max: f64,
}

impl Comparison {
    /// Compares times in nanoseconds, in the order in which they were taken; the first so many of both if there are
    /// more of one.
    ///
    /// # Panics
    /// If there are fewer than two blocks.
    #[must_use]
    pub fn of(first: &[u64], second: &[u64]) -> Comparison {
        let samples = first.len().min(second.len());
        let blocks = first.chunks_exact(BLOCK).zip(second.chunks_exact(BLOCK));
        let differences: Vec<f64> = blocks.map(|(first, second)| median(first) - median(second)).collect();
        let count = differences.len() as f64;
        assert!(count >= 2.0, "too few times to compare: take {} of each kind at least", 2 * BLOCK);
        let mean = differences.iter().sum::<f64>() / count;
        let variance = differences.iter().map(|it| (it - mean).powi(2)).sum::<f64>() / (count - 1.0);
        let error = (variance / count).sqrt().max(f64::MIN_POSITIVE);
        Comparison {
            samples,
            effect_ns: mean,
            within_ns: 1.96 * error,
            t: mean / error,
            distance: distance(&first[..samples], &second[..samples]),
            distance_max: (-(ALPHA / 2.0).ln() / 2.0).sqrt() * (2.0 / samples as f64).sqrt(),
        }
    }

    /// Whether one of the tests tells the kinds apart.
    #[must_use]
    pub fn differs(&self) -> bool {
        self.t.abs() > T_MAX || self.distance > self.distance_max
    }

    /// Whether the effect is surely below this: its interval of confidence is.
    #[must_use]
    pub fn is_within(&self, ns: f64) -> bool {
        self.effect_ns.abs() + self.within_ns <= ns
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Comparison { samples, effect_ns, within_ns, t, distance, distance_max } = self;
        let verdict = if self.differs() { "they differ" } else { "no difference" };
        write!(
            f,
            "{effect_ns:+.0} ± {within_ns:.0} ns, t = {t:.1} (at most {T_MAX}), D = {distance:.4} (at most \
             {distance_max:.4}), {samples} each: {verdict}"
        )
    }
}

fn median(times: &[u64]) -> f64 {
    let mut times = times.to_vec();
    times.sort_unstable();
    let middle = times.len() / 2;
    (times[(times.len() - 1) / 2] as f64 + times[middle] as f64) / 2.0
}

/// The largest distance of two empirical distribution functions.
fn distance(first: &[u64], second: &[u64]) -> f64 {
    let sorted = |times: &[u64]| {
        let mut times = times.to_vec();
        times.sort_unstable();
        times
    };
    let (first, second) = (sorted(first), sorted(second));
    let (mut at, mut beside, mut most) = (0, 0, 0.0_f64);
    while at < first.len() && beside < second.len() {
        let time = first[at].min(second[beside]);
        while first.get(at).is_some_and(|it| *it <= time) {
            at += 1;
        }
        while second.get(beside).is_some_and(|it| *it <= time) {
            beside += 1;
        }
        most = most.max((at as f64 / first.len() as f64 - beside as f64 / second.len() as f64).abs());
    }
    most
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    /// Times as a busy machine gives them: about 80 µs, skewed, drifting by half as much again, some ten times as long.
    fn times(random: &mut Random, count: u64, longer_ns: u64) -> (Vec<u64>, Vec<u64>) {
        let mut of = |at: u64| {
            let spread = (0..4).map(|_| random.below(10_000)).sum::<u64>();
            let drift = 40_000 * at / count;
            let tick = if random.below(50) == 0 { random.below(800_000) } else { 0 };
            60_000 + spread + drift + tick
        };
        (0..count).map(|at| (of(at) + longer_ns, of(at))).unzip()
    }

    #[test]
    fn two_microseconds_are_seen_in_the_noise_of_a_busy_machine() {
        for seed in 0..10 {
            let (longer, shorter) = times(&mut Random::new(seed), 20_000, 2_000);
            let found = Comparison::of(&longer, &shorter);
            assert!(found.differs(), "{found}");
            assert!((found.effect_ns - 2_000.0).abs() <= 2.0 * found.within_ns, "{found}");
            assert!(!found.is_within(1_000.0), "{found}");
        }
    }

    #[test]
    fn what_is_alike_is_not_told_apart() {
        for seed in 0..30 {
            let (one, other) = times(&mut Random::new(1_000 + seed), 20_000, 0);
            let found = Comparison::of(&one, &other);
            assert!(!found.differs() && found.is_within(1_000.0), "{found}");
        }
    }

    /// Medians that agree: one kind takes either less or more, the other what is in the middle.
    #[test]
    fn another_shape_is_seen_though_medians_agree() {
        let mut random = Random::new(7);
        let split: Vec<u64> = (0..20_000)
            .map(|_| if random.percent(50) { random.below(2_000) } else { 3_000 + random.below(2_000) })
            .collect();
        let even: Vec<u64> = (0..20_000).map(|_| random.below(5_000)).collect();
        let found = Comparison::of(&split, &even);
        assert!(found.distance > found.distance_max, "{found}");
    }

    #[test]
    fn the_distance_of_distributions() {
        assert_eq!(distance(&[1, 2, 3], &[1, 2, 3]), 0.0);
        assert_eq!(distance(&[1, 2], &[3, 4]), 1.0);
        assert_eq!(distance(&[1, 1, 3, 3], &[1, 2, 3, 4]), 0.25);
    }
}
