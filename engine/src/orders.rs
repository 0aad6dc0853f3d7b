//! The orders: which order ids exist, what became of each, and where its last entry stands in the log. All else
//! is read from there.
//!
//! A checkpoint copies them piece by piece while the sequencer goes on. They are never removed, so a copy made in
//! pieces lacks at most orders whose entries are replayed anyway.
//!
//! Orders that wait for their payment are kept in memory with what a time-out has to give back, ordered by
//! deadline: nothing is scanned to find those whose time is over. Sums over them follow from the table and are never
//! stored.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use kami_wal::Lsn;

use crate::account::Leg;
use crate::identity::{AccountId, OrderId, PrincipalId, TenantId};
use crate::limits::Buyer;
use crate::sharded::Sharded;

/// An order id within its tenant.
pub type OrderKey = (TenantId, OrderId);

/// Where an order stands. Numbers are part of the snapshot and log formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum OrderState {
    /// Its cards are the buyer's.
    Sold = 0,
    /// Its cards are taken, and wait for the payment.
    Reserved = 1,
    /// The buyer gave it up before it was paid.
    Cancelled = 2,
    /// It was not paid in time.
    TimedOut = 3,
    /// It was an order of the system that its cards were imported from. No word says so: see
    /// [`order::of_old`](crate::order).
    Migrated = 4,
}

impl OrderState {
    /// The state with this number.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<OrderState> {
        match number {
            0 => Some(OrderState::Sold),
            1 => Some(OrderState::Reserved),
            2 => Some(OrderState::Cancelled),
            3 => Some(OrderState::TimedOut),
            4 => Some(OrderState::Migrated),
            _ => None,
        }
    }

    /// The name in English, upper case.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            OrderState::Sold => "SOLD",
            OrderState::Reserved => "RESERVED",
            OrderState::Cancelled => "CANCELLED",
            OrderState::TimedOut => "TIMED_OUT",
            OrderState::Migrated => "MIGRATED",
        }
    }
}

/// All that changes about an order, in 64 bits, as a card's word is: its last entry (48 bits, in 8-byte
/// units), its state (4 bits), and whether codes of it were given out that were not delivered with the sale.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct OrderWord(u64);

impl OrderWord {
    const FETCHED: u64 = 1 << 4;

    /// A word.
    #[must_use]
    pub const fn new(lsn: Lsn, state: OrderState, fetched: bool) -> OrderWord {
        OrderWord(lsn.units() << 16 | if fetched { Self::FETCHED } else { 0 } | state as u64)
    }

    /// From its 64 bits; `None` if it has no entry or its state is not assigned.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Option<OrderWord> {
        if bits & 0xffe0 != 0
            || Lsn::from_units(bits >> 16).is_none()
            || (bits & 15) as u8 > OrderState::TimedOut as u8
        {
            return None;
        }
        Some(OrderWord(bits))
    }

    /// Its 64 bits.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The order's last entry.
    #[must_use]
    pub const fn lsn(self) -> Lsn {
        match Lsn::from_units(self.0 >> 16) {
            Some(lsn) => lsn,
            None => unreachable!(),
        }
    }

    /// Where it stands.
    #[must_use]
    pub const fn state(self) -> OrderState {
        match OrderState::from_number((self.0 & 15) as u8) {
            Some(state) => state,
            None => unreachable!(),
        }
    }

    /// Whether codes of it were given out that were not delivered with the sale.
    #[must_use]
    pub const fn is_fetched(self) -> bool {
        self.0 & Self::FETCHED != 0
    }
}

impl fmt::Debug for OrderWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} @{}", self.state().name(), self.lsn())
    }
}

/// An order that waits for its payment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// Until when it is to be paid, milliseconds.
    pub deadline_ms: u64,
    /// Who sent the order.
    pub principal: PrincipalId,
    /// For whom.
    pub account: Option<AccountId>,
    /// The address the buyer came from, hashed; 0 is unknown.
    pub ip: u64,
    /// How many cards are taken.
    pub cards: u32,
    /// The money that is set aside.
    pub legs: Box<[Leg]>,
}

impl Reservation {
    /// Whose purchase it is.
    #[must_use]
    pub fn buyer(&self, tenant: TenantId) -> Buyer {
        Buyer { tenant, account: self.account.unwrap_or_default(), ip: self.ip, principal: self.principal }
    }
}

/// The orders.
#[derive(Default)]
pub struct Orders {
    words: Sharded<OrderKey, OrderWord>,
    open: BTreeMap<OrderKey, Reservation>,
    deadlines: BTreeSet<(u64, OrderKey)>,
}

impl Orders {
    /// What became of the order; `None` if there is none.
    #[must_use]
    pub fn find(&self, key: &OrderKey) -> Option<OrderWord> {
        self.words.get(key).copied()
    }

    /// Adds an order, or moves it on. One that is further already stays as it is.
    pub fn put(&mut self, key: OrderKey, word: OrderWord) {
        self.words.merge(key, word, |known, word| *known = word.max(*known));
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.words.count()
    }

    /// The orders of one of the [`SHARDS`](crate::sharded::SHARDS).
    pub fn of_shard(&self, shard: usize) -> impl Iterator<Item = (OrderKey, OrderWord)> + '_ {
        self.words.of_shard(shard).map(|(key, word)| (*key, *word))
    }

    /// Adds an order that waits for its payment. Doing it again changes nothing.
    pub fn open(&mut self, key: OrderKey, reservation: Reservation) {
        self.close(&key);
        self.deadlines.insert((reservation.deadline_ms, key));
        self.open.insert(key, reservation);
    }

    /// Takes out an order that no longer waits, and returns what was kept for it.
    pub fn close(&mut self, key: &OrderKey) -> Option<Reservation> {
        let reservation = self.open.remove(key)?;
        self.deadlines.remove(&(reservation.deadline_ms, *key));
        Some(reservation)
    }

    /// An order that waits for its payment.
    #[must_use]
    pub fn reservation(&self, key: &OrderKey) -> Option<&Reservation> {
        self.open.get(key)
    }

    /// Orders that wait for their payment, in order of key, those after `after`: for copying in pieces.
    pub fn reservations(
        &self,
        after: Option<OrderKey>,
    ) -> impl Iterator<Item = (&OrderKey, &Reservation)> + Clone + '_ {
        use std::ops::Bound::{Excluded, Unbounded};
        self.open.range((after.map_or(Unbounded, Excluded), Unbounded))
    }

    /// Orders whose time was over at `now_ms`, the oldest first.
    pub fn due(&self, now_ms: u64) -> impl Iterator<Item = OrderKey> + '_ {
        self.deadlines.iter().take_while(move |(deadline_ms, _)| *deadline_ms <= now_ms).map(|(_, key)| *key)
    }
}
