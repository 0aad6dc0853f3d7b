//! How many wrong codes may be sent, and by whom: budgets that make guessing slow.
//!
//! A *miss* is a command whose code led to no card that its caller may know of: unknown, not sold, wrong
//! PIN, out of scope (`Reply::miss`). Only misses are counted, and only here in memory: nothing of them is
//! written to the log, and a restart forgets them.
//!
//! | Budget | Usual size | When it is spent |
//! |---|---|---|
//! | per principal | 10 a minute, ten minutes' worth at once | its commands about cards are RATE_LIMITED until one more is due |
//! | per principal and card | 5, then one every 12 minutes | its commands about that code are RATE_LIMITED |
//! | in all | 300 a minute, ten minutes' worth at once | every miss costs its principal ten times as much |
//!
//! Behind it stands the engine's own wall against wrong PINs, which is in the log and lasts
//! ([`kami_engine::PIN_TRIES`]); an operator's PIN_UNLOCK lifts that and gives back here what was spent on the card.
//!
//! # Why so
//! * **Nobody can lock another's card.** A budget of a card that all callers share could be spent by one
//!   till on purpose, and the customer would stand before every other. So a card's budget belongs to one
//!   principal, and for the same reason the budget in all refuses nobody by itself: it makes misses dearer, so
//!   that many tills that guess together are slowed to one guess a minute each, and a till that has not missed
//!   is served as ever. A hard bound in all cannot be had without refusing people who did nothing.
//! * **A code that does not exist is counted as one that does**: by its digest, known or not.
//! * **Served codes cost nothing.** At the door stand two relaxed loads: how many misses the principal has
//!   left, and one word of a filter of its blocked cards. A lock is taken after a miss, and by principals
//!   that have nothing left or meet the filter.
//! * **The bound is kept by batches, not after them**: a principal with fewer misses left than a batch has
//!   requests gets smaller batches. What threads decide at the same moment may overshoot by as much again
//!   each, so the most a principal ever misses at once is its burst times the server's threads.
//! * **Memory is bounded**: one entry a principal that ever connected, each with at most [`CARDS_MAX`] cards
//!   of 48 bytes. A card is known here by half of its digest, which is uniform. When they are full, the one with the most left goes; a guesser that means to push a blocked
//!   card out pays a miss for each of the others, out of its own budget. Once all are blocked, two cards that are tried
//!   in turn push each other out: then the principal's own budget and the engine's wall are what bounds them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use kami_engine::{MISSES_PER_MINUTE_MAX, PrincipalId, Work};
use parking_lot::Mutex;

/// How many wrong codes are borne. [`MissLimits::USUAL`] is for tills; a principal may have its own
/// rate (`PrincipalSpec::misses_per_minute`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MissLimits {
    /// Misses a minute of one principal on average; ten minutes' worth may come at once. Default 10, at
    /// least 1. This and the others are at most [`MISSES_PER_MINUTE_MAX`].
    pub principal_per_minute: u32,
    /// Misses of one principal on one card at once; an hour brings as many again. Default 5, at least 1.
    pub card_per_hour: u32,
    /// Misses a minute of all principals together on average; ten minutes' worth may come at once, and from
    /// then on each costs its principal ten. Default 300, at least 1.
    pub in_all_per_minute: u32,
}

impl MissLimits {
    pub(crate) fn are_in_range(self) -> bool {
        [self.principal_per_minute, self.card_per_hour, self.in_all_per_minute]
            .iter()
            .all(|limit| (1..=MISSES_PER_MINUTE_MAX).contains(limit))
    }

    /// The defaults.
    pub const USUAL: MissLimits =
        MissLimits { principal_per_minute: 10, card_per_hour: 5, in_all_per_minute: 300 };
}

/// How much a miss costs when too many are made in all.
const STRAINED_PRICE: u64 = 10;
/// How much of a budget may be spent at once, in minutes.
const BURST_MINUTES: u64 = 10;
/// Cards remembered of one principal.
const CARDS_MAX: usize = 64;
/// Words of the filter of blocked cards.
const FILTER_WORDS: usize = 16;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// The budgets of all principals.
pub(crate) struct Guesses {
    limits: MissLimits,
    in_all: Mutex<Bucket>,
    by_principal: DashMap<PrincipalId, Arc<Guesser>>,
    rate_limited: AtomicU64,
    budgets_spent: AtomicU64,
}

/// The budget of one principal, shared by its connections.
pub(crate) struct Guesser {
    /// Misses left; 0 may be out of date.
    left: AtomicU32,
    /// A bit of a card's digest is set if it may be blocked.
    blocked: [AtomicU64; FILTER_WORDS],
    ledger: Mutex<Ledger>,
}

struct Ledger {
    bucket: Bucket,
    cards: Vec<(u64, Bucket)>,
    /// Whether the budget was there at the last look, to count how often it is used up.
    open: bool,
}

/// Grants that come back with time, counted in billionths so that no rounding gives any away.
#[derive(Clone, Copy)]
struct Bucket {
    level: u64,
    size: u64,
    /// How long one grant takes to come back.
    every: Duration,
    at: Instant,
}

const GRANT: u64 = 1_000_000_000;

impl Bucket {
    fn full(size: u64, every: Duration, at: Instant) -> Bucket {
        Bucket { level: size * GRANT, size: size * GRANT, every, at }
    }

    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_nanos();
        let back = passed * u128::from(GRANT) / self.every.as_nanos().max(1);
        self.level = u64::try_from(back).unwrap_or(u64::MAX).saturating_add(self.level).min(self.size);
        self.at = self.at.max(now);
    }

    const fn grants(&self) -> u64 {
        self.level / GRANT
    }

    const fn take(&mut self, grants: u64) {
        self.level = self.level.saturating_sub(grants.saturating_mul(GRANT));
    }

    /// How long until there are so many.
    fn until(&self, grants: u64) -> Duration {
        let missing = (grants * GRANT).saturating_sub(self.level);
        let nanos = self.every.as_nanos() * u128::from(missing) / u128::from(GRANT);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

impl Guesses {
    pub(crate) fn new(limits: MissLimits, now: Instant) -> Guesses {
        let per_minute = u64::from(limits.in_all_per_minute);
        let in_all = Bucket::full(per_minute * BURST_MINUTES, MINUTE / limits.in_all_per_minute, now);
        Guesses {
            limits,
            in_all: Mutex::new(in_all),
            by_principal: DashMap::new(),
            rate_limited: AtomicU64::new(0),
            budgets_spent: AtomicU64::new(0),
        }
    }

    /// The budget of a principal, whose own rate is `per_minute` unless that is 0. It outlives connections,
    /// so that connecting again gives nothing back.
    pub(crate) fn of(&self, principal: PrincipalId, per_minute: u32, now: Instant) -> Arc<Guesser> {
        let per_minute = if per_minute == 0 { self.limits.principal_per_minute } else { per_minute };
        // A log of an earlier version may hold more.
        let per_minute = per_minute.min(MISSES_PER_MINUTE_MAX);
        let entry = self.by_principal.entry(principal);
        Arc::clone(&entry.or_insert_with(|| Arc::new(Guesser::new(per_minute, now))))
    }

    /// Requests answered RATE_LIMITED, and budgets used up.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.rate_limited.load(Ordering::Relaxed), self.budgets_spent.load(Ordering::Relaxed))
    }

    /// The most requests that the next batch of a principal should hold, so that it cannot miss more often than
    /// is left; at least 1.
    #[inline]
    pub(crate) fn batch_max(&self, guesser: &Guesser, now: Instant) -> usize {
        let left = guesser.left.load(Ordering::Relaxed) as usize;
        if left >= Work::REQUESTS_MAX { Work::REQUESTS_MAX } else { self.count(guesser, now) }
    }

    /// What came back since the last miss is not known at the door: whoever has not missed for long would have
    /// small batches for good.
    #[cold]
    fn count(&self, guesser: &Guesser, now: Instant) -> usize {
        let mut ledger = guesser.ledger.lock();
        let price = self.price(now);
        ledger.bucket.refill(now);
        guesser.publish(&mut ledger, price, now);
        (guesser.left.load(Ordering::Relaxed) as usize).clamp(1, Work::REQUESTS_MAX)
    }

    /// Whether a command about this card may be decided; if not, how long until it may.
    #[inline]
    pub(crate) fn admit(&self, guesser: &Guesser, card: u64, now: Instant) -> Result<(), Duration> {
        if guesser.left.load(Ordering::Relaxed) > 0 && !guesser.may_be_blocked(card) {
            return Ok(());
        }
        self.look(guesser, card, now)
    }

    #[cold]
    fn look(&self, guesser: &Guesser, card: u64, now: Instant) -> Result<(), Duration> {
        let mut ledger = guesser.ledger.lock();
        let price = self.price(now);
        ledger.bucket.refill(now);
        let mut wait = ledger.bucket.until(price);
        if let Some((_, bucket)) = ledger.cards.iter_mut().find(|(known, _)| *known == card) {
            bucket.refill(now);
            wait = wait.max(bucket.until(1));
        }
        guesser.publish(&mut ledger, price, now);
        if wait.is_zero() {
            return Ok(());
        }
        self.rate_limited.fetch_add(1, Ordering::Relaxed);
        Err(wait)
    }

    /// Counts a miss.
    #[cold]
    pub(crate) fn miss(&self, guesser: &Guesser, card: u64, now: Instant) {
        let price = {
            let mut in_all = self.in_all.lock();
            in_all.refill(now);
            let price = if in_all.grants() == 0 { STRAINED_PRICE } else { 1 };
            in_all.take(1);
            price
        };
        let mut ledger = guesser.ledger.lock();
        ledger.bucket.refill(now);
        ledger.bucket.take(price);
        let blocked = ledger.card_missed(card, self.limits.card_per_hour, now);
        let was_open = ledger.open;
        guesser.publish(&mut ledger, price, now);
        let spent = u64::from(was_open && !ledger.open) + u64::from(blocked);
        if spent > 0 {
            self.budgets_spent.fetch_add(spent, Ordering::Relaxed);
        }
    }

    /// Gives everybody back what was spent on one card: an operator has seen to it.
    #[cold]
    pub(crate) fn forgive(&self, card: u64, now: Instant) {
        let price = self.price(now);
        for guesser in &self.by_principal {
            let mut ledger = guesser.ledger.lock();
            let before = ledger.cards.len();
            ledger.cards.retain(|(known, _)| *known != card);
            if ledger.cards.len() < before {
                ledger.bucket.refill(now);
                guesser.publish(&mut ledger, price, now);
            }
        }
    }

    fn price(&self, now: Instant) -> u64 {
        let mut in_all = self.in_all.lock();
        in_all.refill(now);
        if in_all.grants() == 0 { STRAINED_PRICE } else { 1 }
    }
}

impl Guesser {
    fn new(per_minute: u32, now: Instant) -> Guesser {
        let bucket = Bucket::full(u64::from(per_minute) * BURST_MINUTES, MINUTE / per_minute, now);
        let left = u32::try_from(bucket.grants()).unwrap_or(u32::MAX);
        let ledger = Mutex::new(Ledger { bucket, cards: Vec::new(), open: true });
        Guesser { left: AtomicU32::new(left), blocked: Default::default(), ledger }
    }

    #[inline]
    fn may_be_blocked(&self, card: u64) -> bool {
        let (word, bit) = filter_place(card);
        self.blocked[word].load(Ordering::Relaxed) & bit != 0
    }

    /// Tells the door what the ledger says.
    fn publish(&self, ledger: &mut Ledger, price: u64, now: Instant) {
        let left = u32::try_from(ledger.bucket.grants() / price).unwrap_or(u32::MAX);
        ledger.open = left > 0;
        self.left.store(left, Ordering::Relaxed);
        let mut blocked = [0; FILTER_WORDS];
        for (card, bucket) in &mut ledger.cards {
            bucket.refill(now);
            if bucket.grants() == 0 {
                let (word, bit) = filter_place(*card);
                blocked[word] |= bit;
            }
        }
        for (place, word) in self.blocked.iter().zip(blocked) {
            place.store(word, Ordering::Relaxed);
        }
    }
}

impl Ledger {
    /// Counts a miss on a card; whether that used its budget up.
    fn card_missed(&mut self, card: u64, per_hour: u32, now: Instant) -> bool {
        let place = self.cards.iter().position(|(known, _)| *known == card);
        let place = place.unwrap_or_else(|| {
            if self.cards.len() >= CARDS_MAX {
                self.cards.iter_mut().for_each(|(_, bucket)| bucket.refill(now));
                let fullest = (0..self.cards.len()).max_by_key(|at| self.cards[*at].1.level);
                self.cards.swap_remove(fullest.unwrap_or(0));
            }
            self.cards.push((card, Bucket::full(per_hour.into(), HOUR / per_hour, now)));
            self.cards.len() - 1
        });
        let bucket = &mut self.cards[place].1;
        bucket.refill(now);
        let before = bucket.grants();
        bucket.take(1);
        before > 0 && bucket.grants() == 0
    }
}

const fn filter_place(card: u64) -> (usize, u64) {
    ((card >> 6) as usize % FILTER_WORDS, 1 << (card & 63))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: MissLimits =
        MissLimits { principal_per_minute: 6, card_per_hour: 5, in_all_per_minute: 60 };
    const SECOND: Duration = Duration::from_secs(1);

    fn card(n: u64) -> u64 {
        n.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    fn till(guesses: &Guesses, n: u32, now: Instant) -> Arc<Guesser> {
        guesses.of(PrincipalId(n), 0, now)
    }

    #[test]
    fn a_principal_gets_its_burst_and_then_its_rate() {
        let now = Instant::now();
        let guesses = Guesses::new(LIMITS, now);
        let till = till(&guesses, 1, now);
        for n in 0..60 {
            assert!(guesses.admit(&till, card(n), now).is_ok(), "{n}");
            assert_eq!(guesses.batch_max(&till, now), 60 - n as usize);
            guesses.miss(&till, card(n), now);
        }
        assert_eq!(guesses.admit(&till, card(99), now), Err(10 * SECOND));
        assert_eq!(guesses.admit(&till, card(99), now + 4 * SECOND), Err(6 * SECOND));
        assert!(guesses.admit(&till, card(99), now + 10 * SECOND).is_ok());
        assert_eq!(guesses.batch_max(&till, now + 10 * SECOND), 1);
        guesses.miss(&till, card(99), now + 10 * SECOND);
        assert_eq!(guesses.admit(&till, card(98), now + 10 * SECOND), Err(10 * SECOND));
        // Connecting again gives nothing back; nobody else pays.
        let again = guesses.of(PrincipalId(1), 0, now + 10 * SECOND);
        assert!(guesses.admit(&again, card(98), now + 10 * SECOND).is_err());
        let other = self::till(&guesses, 2, now);
        assert!(guesses.admit(&other, card(98), now).is_ok());
        assert_eq!(guesses.counts(), (4, 2));
        // An hour later all is as it was.
        assert!(guesses.admit(&till, card(97), now + HOUR).is_ok());
        assert_eq!(guesses.batch_max(&till, now + HOUR), 60);
    }

    #[test]
    fn a_card_that_is_forgiven_can_be_tried_again_at_once() {
        let now = Instant::now();
        let guesses = Guesses::new(LIMITS, now);
        let tills = [till(&guesses, 1, now), till(&guesses, 2, now)];
        for till in &tills {
            (0..5).for_each(|_| guesses.miss(till, card(7), now));
            (0..5).for_each(|_| guesses.miss(till, card(8), now));
            assert!(guesses.admit(till, card(7), now).is_err());
        }
        guesses.forgive(card(7), now);
        for till in &tills {
            assert!(guesses.admit(till, card(7), now).is_ok(), "whoever tried it");
            assert!(guesses.admit(till, card(8), now).is_err(), "another card is as it was");
            assert_eq!(guesses.batch_max(till, now), 50, "and what was missed in all is not given back");
        }
    }

    /// The size of batches followed what was left after the last miss, and a till that had learned to type
    /// stayed slow for good.
    #[test]
    fn batches_grow_again_without_another_miss() {
        let now = Instant::now();
        let guesses = Guesses::new(LIMITS, now);
        let till = till(&guesses, 1, now);
        (0..58).for_each(|n| guesses.miss(&till, card(n), now));
        assert!(guesses.admit(&till, card(99), now).is_ok());
        assert_eq!(guesses.batch_max(&till, now), 2);
        assert_eq!(guesses.batch_max(&till, now + MINUTE), 8);
        assert_eq!(guesses.batch_max(&till, now + HOUR), 60);
    }

    #[test]
    fn a_card_is_blocked_for_the_guesser_and_for_nobody_else() {
        let now = Instant::now();
        let guesses = Guesses::new(LIMITS, now);
        let (till, other) = (till(&guesses, 1, now), till(&guesses, 2, now));
        for _ in 0..5 {
            assert!(guesses.admit(&till, card(7), now).is_ok());
            guesses.miss(&till, card(7), now);
        }
        assert_eq!(guesses.admit(&till, card(7), now), Err(720 * SECOND));
        assert!(guesses.admit(&till, card(8), now).is_ok(), "its other customers are served");
        assert!(guesses.admit(&other, card(7), now).is_ok(), "the card's owner is served elsewhere");
        assert!(guesses.admit(&till, card(7), now + 720 * SECOND).is_ok());
        assert_eq!(guesses.counts(), (1, 1));
    }

    #[test]
    fn many_who_guess_are_slowed_and_those_who_do_not_are_served() {
        let now = Instant::now();
        let guesses = Guesses::new(LIMITS, now);
        // Ten tills of 60 spend the 600 in all.
        for n in 1..=10 {
            let till = till(&guesses, n, now);
            (0..60).for_each(|at| guesses.miss(&till, card(at), now));
        }
        let late = till(&guesses, 11, now);
        for n in 0..6 {
            assert!(guesses.admit(&late, card(n), now).is_ok(), "{n}");
            guesses.miss(&late, card(n), now);
        }
        assert_eq!(guesses.admit(&late, card(9), now), Err(100 * SECOND), "ten times as dear");
        let honest = till(&guesses, 12, now);
        assert!(guesses.admit(&honest, card(9), now).is_ok());
    }

    #[test]
    fn memory_is_bounded_and_a_blocked_card_is_not_pushed_out_by_few() {
        let now = Instant::now();
        let guesses =
            Guesses::new(MissLimits { principal_per_minute: 1000, in_all_per_minute: 1000, ..LIMITS }, now);
        let till = till(&guesses, 1, now);
        (0..5).for_each(|_| guesses.miss(&till, card(1_000_000), now));
        for n in 0..2000 {
            guesses.miss(&till, card(n), now);
        }
        assert_eq!(till.ledger.lock().cards.len(), CARDS_MAX);
        assert!(guesses.admit(&till, card(1_000_000), now).is_err());
        // What is in the filter and not blocked is let through all the same.
        for n in 0..2000 {
            assert!(guesses.admit(&till, card(n), now).is_ok());
        }
    }

    #[test]
    fn an_own_rate_counts() {
        let now = Instant::now();
        let guesses = Guesses::new(LIMITS, now);
        let own = guesses.of(PrincipalId(1), 7, now);
        (0..69).for_each(|n| guesses.miss(&own, card(n), now));
        assert_eq!(guesses.batch_max(&own, now), 1);
        let large = guesses.of(PrincipalId(2), 600, now);
        (0..500).for_each(|n| guesses.miss(&large, card(n), now));
        assert_eq!(guesses.batch_max(&large, now), 64);
    }

    /// A rate whose budget was beyond what is counted with wrapped around to next to nothing.
    #[test]
    fn the_largest_rate_is_a_rate() {
        let now = Instant::now();
        let limits = MissLimits { in_all_per_minute: MISSES_PER_MINUTE_MAX, ..LIMITS };
        assert!(limits.are_in_range());
        let guesses = Guesses::new(limits, now);
        for (n, rate) in [(1, MISSES_PER_MINUTE_MAX), (2, u32::MAX)] {
            let till = guesses.of(PrincipalId(n), rate, now);
            (0..1000).for_each(|n| guesses.miss(&till, card(n), now));
            assert!(guesses.admit(&till, card(5000), now).is_ok());
            assert_eq!(guesses.batch_max(&till, now + HOUR), 64);
        }
        assert!(!MissLimits { card_per_hour: u32::MAX, ..LIMITS }.are_in_range());
        assert!(!MissLimits { in_all_per_minute: 0, ..LIMITS }.are_in_range());
    }
}
