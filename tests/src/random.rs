//! Randomness that is the same on every machine, and the seeds a randomised test runs over.
//!
//! A failing seed is repeated by itself: every panic message ends with the command that does it.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use crate::binaries::Test;

/// SplitMix64: small, seeded, the same everywhere.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The sequence of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Random {
        let mut random = Random(seed ^ 0x006B_616D_692D_7465);
        random.next();
        random
    }

    /// The next number.
    #[expect(clippy::should_implement_trait, reason = "it never ends, and nobody iterates over it")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number in `0 .. bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// True `chance` times in a hundred.
    pub fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    /// One of `choices`.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len() as u64) as usize]
    }
}

/// Runs `run` over `ordinary` seeds, or over `KAMI_SEEDS` of them beginning with `KAMI_SEED_FROM`, or over
/// `KAMI_SEED` alone and verbosely. `test` is the one that calls, for the command that repeats a failure.
///
/// # Panics
/// As `run` does, with that command.
pub fn for_seeds(test: &Test, ordinary: u64, run: impl Fn(u64, bool)) {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    if let Some(seed) = number("KAMI_SEED") {
        return run(seed, true);
    }
    let from = number("KAMI_SEED_FROM").unwrap_or(0);
    for seed in from..from + number("KAMI_SEEDS").unwrap_or(ordinary) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(seed, false))) {
            let what = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            let Some(what) = what else { resume_unwind(panic) };
            panic!("seed {seed}: {what}\nrepeat: KAMI_SEED={seed} {}", test.command());
        }
    }
}
