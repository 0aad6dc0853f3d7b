//! Units that were taken in a window of time, exact to the unit.
//!
//! Time is cut into *slots*: the engine times themselves for a rolling window (at most ten a second), days
//! for a calendar day, one for good. A window keeps the running total at the end of each slot that had
//! any, oldest first; what is in the window now is the last total less the last one before it. So asking is
//! a binary search, however much happened, and taking and forgetting are at the ends. Giving back lowers
//! all totals since: as many as there were slots since the reservation.

use std::collections::VecDeque;

use crate::limit::LimitWindow;

const DAY_MS: u64 = 24 * 3600 * 1000;

impl LimitWindow {
    /// The slot of a moment, in milliseconds since 1970.
    fn slot(self, at_ms: u64) -> u64 {
        match self {
            LimitWindow::Day { offset_min } => {
                // Counted from the day before 1970, so that none is negative west of Greenwich.
                (at_ms + DAY_MS).saturating_add_signed(i64::from(offset_min) * 60_000) / DAY_MS
            }
            LimitWindow::Rolling { .. } => at_ms,
            LimitWindow::Life | LimitWindow::OpenCards | LimitWindow::OpenOrders => 0,
        }
    }

    /// The first slot that is in the window at a moment.
    fn first(self, now_ms: u64) -> u64 {
        match self {
            LimitWindow::Rolling { seconds } => (now_ms + 1).saturating_sub(u64::from(seconds) * 1000),
            window => window.slot(now_ms),
        }
    }

    /// In how many milliseconds what is taken now leaves the window; `u64::MAX` is never.
    #[must_use]
    pub(crate) fn lasts_ms(self, now_ms: u64) -> u64 {
        match self.end_ms(self.slot(now_ms)) {
            u64::MAX => u64::MAX,
            end_ms => end_ms.saturating_sub(now_ms),
        }
    }

    /// When a slot is no longer in the window; `u64::MAX` is never.
    fn end_ms(self, slot: u64) -> u64 {
        match self {
            LimitWindow::Day { offset_min } => {
                (slot * DAY_MS).saturating_add_signed(-i64::from(offset_min) * 60_000)
            }
            LimitWindow::Rolling { seconds } => slot + u64::from(seconds) * 1000,
            LimitWindow::Life | LimitWindow::OpenCards | LimitWindow::OpenOrders => u64::MAX,
        }
    }
}

/// What one subject took in the window of one limit.
#[derive(Clone, Debug, Default)]
pub struct Window {
    /// The total before the first slot.
    base: u64,
    /// Slot and total at its end.
    slots: VecDeque<(u64, u64)>,
    /// The slot in which it was last recorded that the limit was crossed.
    crossed: Option<u64>,
}

impl Window {
    fn total(&self) -> u64 {
        self.slots.back().map_or(self.base, |(_, total)| *total)
    }

    /// The total before the slot at this index.
    fn before(&self, index: usize) -> u64 {
        index.checked_sub(1).map_or(self.base, |before| self.slots[before].1)
    }

    fn first_live(&self, kind: LimitWindow, now_ms: u64) -> usize {
        let first = kind.first(now_ms);
        self.slots.partition_point(|(slot, _)| *slot < first)
    }

    /// How many units are in the window now.
    #[must_use]
    pub fn units(&self, kind: LimitWindow, now_ms: u64) -> u64 {
        self.total() - self.before(self.first_live(kind, now_ms))
    }

    /// In how many milliseconds at most `units` are in the window; `u64::MAX` is never.
    #[must_use]
    pub fn opens_ms(&self, kind: LimitWindow, now_ms: u64, units: u64) -> u64 {
        if self.units(kind, now_ms) <= units {
            return 0;
        }
        // The first slot behind whose end no more than that is left.
        let at = self.slots.partition_point(|(_, total)| self.total() - total > units);
        let end_ms = self.slots.get(at).map_or(now_ms, |(slot, _)| kind.end_ms(*slot));
        if end_ms == u64::MAX { u64::MAX } else { end_ms.saturating_sub(now_ms) }
    }

    /// Takes units now. Time never goes back.
    pub fn take(&mut self, kind: LimitWindow, now_ms: u64, units: u64) {
        let first = kind.first(now_ms);
        while let Some((slot, total)) = self.slots.front()
            && *slot < first
        {
            self.base = *total;
            self.slots.pop_front();
        }
        let (now, total) = (kind.slot(now_ms), self.total() + units);
        match self.slots.back_mut() {
            Some((slot, last)) if *slot >= now => *last = total,
            _ => self.slots.push_back((now, total)),
        }
    }

    /// Gives back units that were taken at `taken_ms`. What left the window by itself is not given back.
    pub fn give_back(&mut self, kind: LimitWindow, taken_ms: u64, units: u64) {
        let slot = kind.slot(taken_ms);
        let at = self.slots.partition_point(|(other, _)| *other < slot);
        if self.slots.get(at).is_some_and(|(other, _)| *other == slot) {
            let units = units.min(self.slots[at].1 - self.before(at));
            self.slots.range_mut(at..).for_each(|(_, total)| *total -= units);
        }
    }

    /// Whether it was recorded in this window that the limit was crossed.
    #[must_use]
    pub fn is_crossed(&self, kind: LimitWindow, now_ms: u64) -> bool {
        self.crossed.is_some_and(|slot| slot >= kind.first(now_ms))
    }

    /// Notes that it was recorded.
    pub fn set_crossed(&mut self, kind: LimitWindow, now_ms: u64) {
        self.crossed = Some(kind.slot(now_ms));
    }

    /// When nothing of it will be left, if nothing else happens; `u64::MAX` is never, 0 is already so.
    #[must_use]
    pub fn ends_ms(&self, kind: LimitWindow, now_ms: u64) -> u64 {
        let last = self.live(kind, now_ms).last().map(|(slot, _)| slot);
        let last = last.max(self.crossed.filter(|_| self.is_crossed(kind, now_ms)));
        last.map_or(0, |slot| kind.end_ms(slot))
    }

    /// What is in the window now: slots with their units, and the slot of the last crossing. Equal windows
    /// are equal in this, whatever was forgotten when.
    pub fn live(&self, kind: LimitWindow, now_ms: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
        let units = |at| (self.slots[at].0, self.slots[at].1 - self.before(at));
        (self.first_live(kind, now_ms)..self.slots.len()).map(units).filter(|(_, units)| *units > 0)
    }

    /// The slot in which it was last recorded that the limit was crossed, if that is in the window.
    #[must_use]
    pub fn crossed(&self, kind: LimitWindow, now_ms: u64) -> Option<u64> {
        self.crossed.filter(|_| self.is_crossed(kind, now_ms))
    }

    /// The window with these slots and units, oldest first; `None` if they are in another order.
    #[must_use]
    pub fn of(slots: &[(u64, u64)], crossed: Option<u64>) -> Option<Window> {
        let mut window = Window { crossed, ..Window::default() };
        for &(slot, units) in slots {
            if window.slots.back().is_some_and(|(last, _)| *last >= slot) {
                return None;
            }
            let total = window.total().checked_add(units)?;
            window.slots.push_back((slot, total));
        }
        Some(window)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_day_ends_at_midnight_of_its_zone() {
        let shanghai = LimitWindow::Day { offset_min: 480 };
        let mut window = Window::default();
        // 23:59:59.999 in Shanghai on 2 January 1970 is 15:59:59.999 in Greenwich.
        let late = DAY_MS + 16 * 3_600_000 - 1;
        window.take(shanghai, late, 5);
        assert_eq!(window.units(shanghai, late), 5);
        assert_eq!(window.opens_ms(shanghai, late, 4), 1);
        assert_eq!(window.units(shanghai, late + 1), 0);
        window.give_back(shanghai, late, 5);
        window.take(shanghai, late + 1, 2);
        window.give_back(shanghai, late, 2);
        assert_eq!(window.units(shanghai, late + 1), 2, "yesterday's units are not today's");
        assert_eq!(window.opens_ms(shanghai, late + 1, 2), 0);
        let west = LimitWindow::Day { offset_min: -600 };
        assert_eq!(west.end_ms(west.slot(0)), 10 * 3_600_000);
    }

    #[test]
    fn for_good_is_for_good() {
        let mut window = Window::default();
        window.take(LimitWindow::Life, 1, 5);
        assert_eq!(window.opens_ms(LimitWindow::Life, u64::MAX / 2, 4), u64::MAX);
        window.give_back(LimitWindow::Life, 77, 4);
        assert_eq!(window.units(LimitWindow::Life, u64::MAX / 2), 1);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Take(u64),
        GiveBack(usize),
        Pass(u64),
    }

    proptest! {
        /// Against the list of everything that was ever taken.
        #[test]
        fn a_window_counts_to_the_unit(
            kind in prop_oneof![
                (1..5_u32).prop_map(|seconds| LimitWindow::Rolling { seconds }),
                (-840..840_i16).prop_map(|offset_min| LimitWindow::Day { offset_min }),
                Just(LimitWindow::Life),
            ],
            scale in prop_oneof![Just(1_u64), Just(30_000)],
            steps in prop::collection::vec(prop_oneof![
                4 => (1..50_u64).prop_map(Step::Take),
                1 => (0..9_usize).prop_map(Step::GiveBack),
                3 => (0..900_u64).prop_map(Step::Pass),
            ], 1..80),
        ) {
            let mut window = Window::default();
            let mut taken: Vec<(u64, u64)> = Vec::new();
            let mut now_ms = 1_700_000_000_000;
            let inside = |taken: &[(u64, u64)], now_ms: u64| -> u64 {
                let lasts = |at: u64| match kind {
                    LimitWindow::Rolling { seconds } => at + u64::from(seconds) * 1000 > now_ms,
                    kind => kind.slot(at) == kind.slot(now_ms),
                };
                taken.iter().filter(|(at, _)| lasts(*at)).map(|(_, units)| units).sum()
            };
            for step in steps {
                match step {
                    Step::Take(units) => {
                        window.take(kind, now_ms, units);
                        taken.push((now_ms, units));
                    }
                    Step::GiveBack(back) if back < taken.len() => {
                        let (at, units) = taken.remove(taken.len() - 1 - back);
                        window.give_back(kind, at, units);
                    }
                    Step::Pass(ms) => now_ms += ms * scale,
                    Step::GiveBack(_) => {}
                }
                let units = inside(&taken, now_ms);
                prop_assert_eq!(window.units(kind, now_ms), units);
                for wanted in [0, units / 2, units.saturating_sub(1)] {
                    let opens = window.opens_ms(kind, now_ms, wanted);
                    if opens == u64::MAX {
                        prop_assert!(kind == LimitWindow::Life && wanted < units);
                    } else {
                        prop_assert!(inside(&taken, now_ms + opens) <= wanted);
                        prop_assert!(opens == 0 || inside(&taken, now_ms + opens - 1) > wanted);
                    }
                }
                let live: Vec<_> = window.live(kind, now_ms).collect();
                let again = Window::of(&live, None).unwrap();
                prop_assert_eq!(again.units(kind, now_ms), units);
                prop_assert_eq!(window.ends_ms(kind, now_ms) == 0, units == 0);
            }
        }
    }
}
