//! Ends of validity, of which those that are not over can be told at any time.

use std::collections::BTreeMap;

/// Cards by the ends of their validity, of which those that are not over can be told at any time, without looking
/// through them: time only goes on, and a card is passed once.
#[derive(Default, PartialEq, Eq)]
pub struct Lasting {
    ends: BTreeMap<u64, u64>,
    /// Those that end later than `passed_ms`.
    left: u64,
    passed_ms: u64,
}

impl Lasting {
    /// One more ends then; 0 is never.
    pub fn add(&mut self, end_ms: u64) {
        let end_ms = moment(end_ms);
        *self.ends.entry(end_ms).or_default() += 1;
        self.left += u64::from(end_ms > self.passed_ms);
    }

    /// One less does.
    pub fn remove(&mut self, end_ms: u64) {
        let end_ms = moment(end_ms);
        let count = self.ends.get_mut(&end_ms).expect("it was added");
        *count -= 1;
        if *count == 0 {
            self.ends.remove(&end_ms);
        }
        self.left -= u64::from(end_ms > self.passed_ms);
    }

    /// How many are not over at `now_ms`, and how many ends were passed since the last time.
    pub fn at(&mut self, now_ms: u64) -> (u64, usize) {
        let mut steps = 0;
        if self.passed_ms < now_ms {
            for count in self.ends.range(self.passed_ms + 1..=now_ms).map(|(_, count)| count) {
                self.left -= count;
                steps += 1;
            }
            self.passed_ms = now_ms;
        }
        (self.left, steps)
    }

    /// Whether these are the ends, with how many cards have each.
    pub fn is(&self, ends: &BTreeMap<u64, u64>) -> bool {
        ends.len() == self.ends.len()
            && ends.iter().all(|(end_ms, count)| self.ends.get(&moment(*end_ms)) == Some(count))
    }
}

/// What never ends is later than all that does.
const fn moment(end_ms: u64) -> u64 {
    if end_ms == 0 { u64::MAX } else { end_ms }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However many cards have an end of their own, and however often it is asked, each is passed once.
    #[test]
    fn an_end_is_passed_once() {
        let mut lasting = Lasting::default();
        (1..=10_000).for_each(|end_ms| lasting.add(end_ms));
        let mut steps = 0;
        for now_ms in 0..20_000 {
            let (left, passed) = lasting.at(now_ms);
            assert_eq!(left, 10_000_u64.saturating_sub(now_ms));
            steps += passed;
        }
        assert_eq!(steps, 10_000);
        lasting.add(5);
        lasting.add(30_000);
        assert_eq!(lasting.at(20_000), (1, 0), "what comes in late is over already");
        lasting.remove(5);
        lasting.remove(30_000);
        assert_eq!(lasting.at(40_000), (0, 0));
    }
}
