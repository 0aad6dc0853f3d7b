//! Holds that are open: part of a card's value kept for a payment that is not decided yet.
//!
//! # Invariants
//! * A hold is here from its HOLD entry until the entry that ends it: CAPTURE, RELEASE, HOLD_TIMEOUT or the
//!   REVERSE of the hold. A card's word says HELD exactly while one of its holds is here.
//! * A hold whose deadline has passed keeps nothing any more, whether HOLD_TIMEOUT was recorded or not: what is
//!   decided rests on engine time alone.
//! * Replay puts in and takes out without asking, so that it may begin anywhere before the state it began with.

use std::collections::{BTreeMap, BTreeSet};

use kami_wal::Lsn;

use crate::identity::{MerchantId, RequestId};
use crate::product::Money;
use crate::word::CardRef;

/// A card has at most this many open holds.
pub const HOLDS_MAX: usize = 64;

/// Which hold: its card and the id of the request that made it.
pub type HoldKey = (u64, RequestId);

/// An open hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// What it keeps.
    pub amount: Money,
    /// From when on it keeps nothing, engine time in milliseconds.
    pub deadline_ms: u64,
    /// For which merchant; others may not end it.
    pub merchant: MerchantId,
    /// Its entry.
    pub lsn: Lsn,
}

/// All open holds.
#[derive(Default)]
pub struct Holds {
    by_card: BTreeMap<HoldKey, Hold>,
    by_deadline: BTreeSet<(u64, u64, RequestId)>,
}

/// What an entry does to the table.
#[derive(Clone, Copy, Debug)]
pub enum HoldChange {
    /// It is open from here on.
    Open(HoldKey, Hold),
    /// It is over.
    End(HoldKey),
}

/// The open holds of one card, summed up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeldOf {
    /// What those keep whose deadline has not passed.
    pub amount: Money,
    /// How many these are.
    pub live: usize,
    /// How many are here, those that are over included.
    pub count: usize,
}

impl Holds {
    /// Makes a change.
    pub fn apply(&mut self, change: HoldChange) {
        match change {
            HoldChange::Open(key, hold) => {
                self.apply(HoldChange::End(key));
                self.by_card.insert(key, hold);
                self.by_deadline.insert((hold.deadline_ms, key.0, key.1));
            }
            HoldChange::End(key) => {
                if let Some(hold) = self.by_card.remove(&key) {
                    self.by_deadline.remove(&(hold.deadline_ms, key.0, key.1));
                }
            }
        }
    }

    /// An open hold.
    #[must_use]
    pub fn find(&self, key: &HoldKey) -> Option<&Hold> {
        self.by_card.get(key)
    }

    /// What is held of a card at a time.
    #[must_use]
    pub fn of(&self, card: CardRef, now_ms: u64) -> HeldOf {
        let card = card.to_bits();
        let holds = self.by_card.range((card, RequestId(0))..=(card, RequestId(u128::MAX)));
        holds.fold(HeldOf::default(), |held, (_, hold)| {
            let HeldOf { amount, live, count } = held;
            match now_ms < hold.deadline_ms {
                true => HeldOf { amount: amount + hold.amount, live: live + 1, count: count + 1 },
                false => HeldOf { count: count + 1, ..held },
            }
        })
    }

    /// Holds whose deadline has passed, the oldest deadline first.
    pub fn due(&self, now_ms: u64) -> impl Iterator<Item = HoldKey> + '_ {
        let over = (now_ms.saturating_add(1), 0, RequestId(0));
        self.by_deadline.range(..over).map(|(_, card, hold)| (*card, *hold))
    }

    /// All of them in order of card, from behind `after` on.
    pub fn after(&self, after: Option<HoldKey>) -> impl Iterator<Item = (HoldKey, Hold)> + '_ {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        self.by_card.range((from, Unbounded)).map(|(key, hold)| (*key, *hold))
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.by_card.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hold(amount: Money, deadline_ms: u64) -> Hold {
        Hold { amount, deadline_ms, merchant: MerchantId(1), lsn: Lsn::from_bytes(64).unwrap() }
    }

    #[test]
    fn a_hold_keeps_until_its_deadline_and_is_due_from_then_on() {
        let mut holds = Holds::default();
        let (card, other) = (CardRef::new(1, 5), CardRef::new(1, 6));
        let key = |card: CardRef, id| (card.to_bits(), RequestId(id));
        holds.apply(HoldChange::Open(key(card, 1), hold(10, 100)));
        holds.apply(HoldChange::Open(key(card, 2), hold(20, 50)));
        holds.apply(HoldChange::Open(key(other, 1), hold(40, 70)));
        assert_eq!(holds.of(card, 49), HeldOf { amount: 30, live: 2, count: 2 });
        assert_eq!(holds.of(card, 50), HeldOf { amount: 10, live: 1, count: 2 });
        assert_eq!(holds.due(49).count(), 0);
        assert_eq!(holds.due(70).collect::<Vec<_>>(), [key(card, 2), key(other, 1)]);
        // Replay may bring what is here already.
        holds.apply(HoldChange::Open(key(card, 2), hold(20, 60)));
        assert_eq!(holds.due(55).count(), 0);
        holds.apply(HoldChange::End(key(card, 2)));
        holds.apply(HoldChange::End(key(card, 2)));
        assert_eq!(holds.due(1000).collect::<Vec<_>>(), [key(other, 1), key(card, 1)]);
        assert_eq!(holds.after(Some(key(card, 1))).map(|(key, _)| key).collect::<Vec<_>>(), [key(other, 1)]);
        assert_eq!(holds.count(), 2);
    }
}
