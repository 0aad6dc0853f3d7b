//! Wrong PINs: after [`PIN_TRIES`] of them a card is locked, for the one who tried them.
//!
//! # Why so
//! * **Nobody can lock another's card.** A lock belongs to a card *and* a guesser: the principal, or, where whoever
//!   embeds the engine does its own authorisation, its till. The customer goes to the next till.
//! * **The right PIN does not open a lock**, or it would tell the guesser which one was right. Time does, after
//!   [`PIN_LOCK_MS`], and an operator.
//! * It is the second wall. A server's budget of wrong codes slows a guesser after a few tries, known card or not
//!   (`net/src/guesses.rs`); it is in memory and gives back with time. A lock is in the log: it survives a restart, and
//!   people can see who tried and who lifted it. Nobody learns from it that a code exists who could not ask for the
//!   card: unsold cards and those out of the caller's scope are refused before.
//!
//! # Invariants
//! * Whether a card is locked follows from PIN_LOCK, PIN_UNLOCK and engine time alone. Replay puts in and takes out
//!   without asking, so that it may begin anywhere before the state it began with.
//! * Tries are counted in memory: a restart forgets them, which an attacker cannot bring about. So are those of the
//!   cards beyond [`CARDS_MAX`] that one guesser tried last; to push one out costs as many wrong PINs elsewhere.
//! * A store without a lock and without a wrong PIN looks nothing up.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::identity::{PrincipalId, TerminalId};
use crate::word::CardRef;

/// The wrong PIN of this number in a row locks the card for whoever sent it.
pub const PIN_TRIES: u32 = 10;
/// How long a lock stands, and how long a wrong PIN is remembered, in milliseconds.
pub const PIN_LOCK_MS: u64 = 24 * 3600 * 1000;
/// Cards whose tries are remembered of one guesser.
const CARDS_MAX: usize = 256;
/// Guessers whose tries are remembered.
const GUESSERS_MAX: usize = 1 << 16;

/// Who tries: a principal of the store, or the till of another.
pub type Guesser = (PrincipalId, TerminalId);
/// A card, as bits, and who tried its PIN.
pub type PinKey = (u64, PrincipalId, TerminalId);

/// Wrong PINs of one guesser, card by card, the card tried last at the end: a column each, because whoever has many
/// waits for every look at them, and by that could tell a sold card's wrong PIN from a code that nobody has.
#[derive(Debug, Default)]
struct Tries {
    cards: Vec<u64>,
    counts: Vec<u32>,
    /// When each was tried last, in order.
    last_ms: Vec<u64>,
}

impl Tries {
    fn place(&self, card: u64) -> Option<usize> {
        self.cards.iter().rposition(|known| *known == card)
    }

    /// How often a card was tried that is not forgotten by now.
    fn count(&self, card: u64, now_ms: u64) -> u32 {
        let place = self.place(card).filter(|at| !is_over(self.last_ms[*at], now_ms));
        place.map_or(0, |at| self.counts[at])
    }

    /// Whether all are forgotten by now.
    fn are_over(&self, now_ms: u64) -> bool {
        self.last_ms.last().is_none_or(|last| is_over(*last, now_ms))
    }

    fn note(&mut self, card: u64, now_ms: u64) {
        let over = self.last_ms.iter().take_while(|last| is_over(**last, now_ms)).count();
        self.cards.drain(..over);
        self.counts.drain(..over);
        self.last_ms.drain(..over);
        let count = 1 + self.forget(card);
        if self.cards.len() >= CARDS_MAX {
            // The one with the fewest; of these the oldest. Mostly one with a single try, found at once.
            let with = |fewest: u32| self.counts.iter().position(|count| *count == fewest);
            let least = with(1).or_else(|| with(self.counts.iter().copied().min()?));
            self.remove(least.unwrap_or(0));
        }
        self.cards.push(card);
        self.counts.push(count);
        self.last_ms.push(now_ms);
    }

    /// Forgets a card, which had so many.
    fn forget(&mut self, card: u64) -> u32 {
        self.place(card).map_or(0, |at| self.remove(at))
    }

    fn remove(&mut self, at: usize) -> u32 {
        self.cards.remove(at);
        self.last_ms.remove(at);
        self.counts.remove(at)
    }
}

/// What a command does to the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PinChange {
    /// A wrong PIN at this time.
    Wrong(PinKey, u64),
    /// The right one: what was tried before is forgotten.
    Right(PinKey),
    /// Locked at the first time until the second.
    Lock(PinKey, u64, u64),
    /// All locks of a card are lifted.
    Unlock(CardRef),
}

/// Locks, and the wrong PINs that may lead to one.
#[derive(Default)]
pub struct Pins {
    /// Until when.
    locks: BTreeMap<PinKey, u64>,
    /// The same, first to end first.
    ends: BTreeSet<(u64, PinKey)>,
    tries: HashMap<Guesser, Tries>,
}

impl Pins {
    /// Whether the card is locked for the guesser.
    #[inline]
    #[must_use]
    pub fn is_locked(&self, key: &PinKey, now_ms: u64) -> bool {
        !self.locks.is_empty() && self.locks.get(key).is_some_and(|until| now_ms < *until)
    }

    /// Whether it is locked for anybody.
    #[must_use]
    pub fn is_locked_for_any(&self, card: CardRef, now_ms: u64) -> bool {
        self.of(card).any(|(_, until)| now_ms < *until)
    }

    fn of(&self, card: CardRef) -> impl Iterator<Item = (&PinKey, &u64)> {
        let card = card.to_bits();
        let least = (card, PrincipalId(0), TerminalId(0));
        self.locks.range(least..=(card, PrincipalId(u32::MAX), TerminalId(u32::MAX)))
    }

    /// Which wrong PIN of the guesser in a row the next one would be, counted from 1.
    #[must_use]
    pub fn next_try(&self, key: &PinKey, now_ms: u64) -> u32 {
        self.tries.get(&(key.1, key.2)).map_or(0, |tries| tries.count(key.0, now_ms)) + 1
    }

    /// Whether a right PIN has something to forget.
    #[inline]
    #[must_use]
    pub fn counts(&self) -> bool {
        !self.tries.is_empty()
    }

    /// Makes a change.
    pub fn apply(&mut self, change: PinChange) {
        match change {
            PinChange::Wrong(key, now_ms) => self.wrong(key, now_ms),
            PinChange::Right(key) => self.forget(&key),
            PinChange::Lock(key, now_ms, until_ms) => {
                // Here and nowhere else, so that the log leads to the same table wherever replay begins.
                while let Some((until, over)) = self.ends.first().copied()
                    && until <= now_ms
                {
                    self.lift(&over);
                }
                self.forget(&key);
                self.lift(&key);
                self.locks.insert(key, until_ms);
                self.ends.insert((until_ms, key));
            }
            PinChange::Unlock(card) => {
                let lifted: Vec<PinKey> = self.of(card).map(|(key, _)| *key).collect();
                lifted.iter().for_each(|key| self.lift(key));
            }
        }
    }

    fn lift(&mut self, key: &PinKey) {
        if let Some(until) = self.locks.remove(key) {
            self.ends.remove(&(until, *key));
        }
    }

    fn wrong(&mut self, key: PinKey, now_ms: u64) {
        if self.tries.len() >= GUESSERS_MAX && !self.tries.contains_key(&(key.1, key.2)) {
            self.tries.retain(|_, tries| !tries.are_over(now_ms));
            if self.tries.len() >= GUESSERS_MAX {
                self.tries.clear();
            }
        }
        self.tries.entry((key.1, key.2)).or_default().note(key.0, now_ms);
    }

    fn forget(&mut self, key: &PinKey) {
        let guesser = (key.1, key.2);
        if let Some(tries) = self.tries.get_mut(&guesser) {
            tries.forget(key.0);
            if tries.cards.is_empty() {
                self.tries.remove(&guesser);
            }
        }
    }

    /// All locks that stand or stood lately, in order of card, from behind `after` on.
    pub fn after(&self, after: Option<PinKey>) -> impl Iterator<Item = (PinKey, u64)> + '_ {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        self.locks.range((from, Unbounded)).map(|(key, until)| (*key, *until))
    }
}

/// Whether something at that time is forgotten now.
const fn is_over(then_ms: u64, now_ms: u64) -> bool {
    then_ms.saturating_add(PIN_LOCK_MS) <= now_ms
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(row: u64, principal: u32) -> PinKey {
        (CardRef::new(1, row).to_bits(), PrincipalId(principal), TerminalId(0))
    }

    #[test]
    fn wrong_pins_are_counted_by_card_and_guesser_and_forgotten() {
        let mut pins = Pins::default();
        assert!(!pins.counts());
        for n in 1..=3 {
            assert_eq!(pins.next_try(&key(5, 7), 1000), n);
            pins.apply(PinChange::Wrong(key(5, 7), 1000));
        }
        assert_eq!((pins.next_try(&key(5, 8), 1000), pins.next_try(&key(6, 7), 1000)), (1, 1));
        assert_eq!(pins.next_try(&key(5, 7), 1000 + PIN_LOCK_MS - 1), 4);
        assert_eq!(pins.next_try(&key(5, 7), 1000 + PIN_LOCK_MS), 1, "a day later it is forgotten");
        pins.apply(PinChange::Right(key(5, 7)));
        assert!(!pins.counts(), "the right one makes them good");
    }

    #[test]
    fn a_lock_is_of_one_guesser_and_ends_with_time_or_by_an_operator() {
        let mut pins = Pins::default();
        pins.apply(PinChange::Lock(key(5, 7), 1000, 5000));
        pins.apply(PinChange::Lock(key(5, 9), 2000, 6000));
        assert!(pins.is_locked(&key(5, 7), 4999) && !pins.is_locked(&key(5, 7), 5000));
        assert!(!pins.is_locked(&key(5, 8), 2000) && !pins.is_locked(&key(6, 7), 2000));
        assert!(pins.is_locked_for_any(CardRef::new(1, 5), 5500));
        assert!(!pins.is_locked_for_any(CardRef::new(1, 5), 6000));
        // Replay may bring what is here already; a lock that was set again does not end with the first.
        pins.apply(PinChange::Unlock(CardRef::new(1, 5)));
        assert!(!pins.is_locked(&key(5, 7), 3000));
        pins.apply(PinChange::Lock(key(5, 7), 3000, 9000));
        pins.apply(PinChange::Lock(key(6, 7), 7000, 11_000));
        assert!(pins.is_locked(&key(5, 7), 7000));
        pins.apply(PinChange::Lock(key(7, 7), 9000, 13_000));
        let left: Vec<PinKey> = pins.after(None).map(|(key, _)| key).collect();
        assert_eq!(left, [key(6, 7), key(7, 7)], "what is over is forgotten");
        assert_eq!(pins.after(Some(key(6, 7))).count(), 1);
    }

    #[test]
    fn memory_is_bounded_and_pushing_a_card_out_is_dear() {
        let mut pins = Pins::default();
        pins.apply(PinChange::Wrong(key(0, 7), 0));
        pins.apply(PinChange::Wrong(key(0, 7), 0));
        for row in 1..2000 {
            pins.apply(PinChange::Wrong(key(row, 7), row));
        }
        assert_eq!(pins.next_try(&key(0, 7), 2000), 3, "the card with the most tries stays");
        assert_eq!(pins.tries[&(PrincipalId(7), TerminalId(0))].cards.len(), CARDS_MAX);
        for principal in 0..GUESSERS_MAX as u32 + 10 {
            pins.apply(PinChange::Wrong(key(1, principal), 3000));
        }
        assert!(pins.tries.len() <= GUESSERS_MAX);
    }
}
