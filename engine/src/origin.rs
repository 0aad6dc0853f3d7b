//! Where a card comes from that another system sold, or used up, before it was imported here.
//!
//! A merchant who changes systems brings cards that are in people's hands. They must stand here as they stood there
//! from the first moment: what was redeemed can never be redeemed again, what was sold can. So an import may say of
//! each row what it was. That stands in the batch file, which the one IMPORT record commits, and makes the row's
//! first word: all rows have their state, or there are no rows. No entry of the log says that the card was sold or
//! redeemed, because that did not happen here, nor today; HISTORY tells it from here, with the times of then.
//!
//! # Invariants
//! * A row in stock has the word zero like any other, so sales know nothing of this.
//! * A first word has no position: the card's chain of entries ends where its import is, as every chain does.
//! * [`Flags::MIGRATED`] is on what was used up elsewhere, and stays: who asks to undo that is told that it cannot be
//!   undone here, instead of being told that it never happened.
//! * A batch keeps its orders of then in memory, 24 bytes a row that names one. They never change.

use crate::identity::OrderId;
use crate::product::{CardKind, Money};
use crate::word::{Flags, Lifecycle, Word};

/// Bytes of a row's origin in the batch file.
pub const ORIGIN_BYTES: usize = 48;

/// How far ahead of engine time another system's clock may have been, in milliseconds.
const SKEW_MS: u64 = 10 * 60 * 1000;

const FROZEN: u8 = 1;
const REMAINS: u8 = 2;

/// What a card was in the system that it comes from. The default is a card in stock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Where it stood: in stock, sold, redeemed, void or returned.
    pub state: Lifecycle,
    /// Whether it was frozen; only in stock or sold.
    pub frozen: bool,
    /// When it was sold, milliseconds since 1970; 0 is not known.
    pub sold_ms: u64,
    /// When it was redeemed, or, if it is used in parts, used first; 0 is not known.
    pub redeemed_ms: u64,
    /// What is left on a card that is used in parts, in minor units or uses; `None` is all of it, or nothing of what
    /// is redeemed.
    pub remaining: Option<Money>,
    /// The order that bought it.
    pub order: Option<OrderId>,
}

impl Default for Origin {
    fn default() -> Self {
        Origin {
            state: Lifecycle::Available,
            frozen: false,
            sold_ms: 0,
            redeemed_ms: 0,
            remaining: None,
            order: None,
        }
    }
}

impl Origin {
    /// Whether a card can have been that, now being `now_ms`. `kind` is how it is used, `worth` what it held when it
    /// was new, and `value_max` the most that can be loaded onto it.
    #[must_use]
    pub fn is_possible(&self, kind: CardKind, worth: Money, value_max: Money, now_ms: u64) -> bool {
        let Origin { state, frozen, sold_ms, redeemed_ms, remaining, order } = *self;
        let in_parts = matches!(kind, CardKind::MultiUse | CardKind::StoredValue);
        let loads = kind == CardKind::StoredValue && value_max > 0;
        let by_state = match state {
            Lifecycle::Available => (sold_ms, redeemed_ms, remaining, order) == (0, 0, None, None),
            // What holds nothing is used up, unless it can be loaded again.
            Lifecycle::Sold => match remaining {
                None => redeemed_ms == 0,
                Some(left) => in_parts && left >= i64::from(!loads) && left <= worth.max(value_max),
            },
            Lifecycle::Redeemed => !loads && remaining.is_none_or(|left| left == 0),
            Lifecycle::Voided | Lifecycle::Returned => redeemed_ms == 0 && remaining.is_none(),
            Lifecycle::Reserved | Lifecycle::Expired => false,
        };
        let in_order = sold_ms == 0 || redeemed_ms == 0 || sold_ms <= redeemed_ms;
        by_state
            && in_order
            && sold_ms.max(redeemed_ms) <= now_ms + SKEW_MS
            && order != Some(OrderId(0))
            && (!frozen || matches!(state, Lifecycle::Available | Lifecycle::Sold))
    }

    /// The word that its card begins with.
    #[must_use]
    pub fn word(&self) -> Word {
        let flags = match self.state {
            // Whoever bought it has the code: it can never be sold again.
            Lifecycle::Sold | Lifecycle::Returned => Flags::REVEALED,
            // USED is what was redeemed here, and can be given back or settled.
            Lifecycle::Redeemed => Flags::REVEALED.with(Flags::MIGRATED),
            _ => Flags::NONE,
        };
        let flags = if self.frozen { flags.with(Flags::FROZEN) } else { flags };
        Word::unrecorded(self.state, flags)
    }

    /// What is on the card, if it was new with `worth`.
    #[must_use]
    pub fn left(&self, worth: Money) -> Money {
        match self.state {
            Lifecycle::Redeemed => 0,
            _ => self.remaining.unwrap_or(worth),
        }
    }

    /// Its bytes in the batch file:
    ///
    /// | at | bytes | what |
    /// |---|---|---|
    /// | 0 | 1 | lifecycle |
    /// | 1 | 1 | bit 0 frozen, bit 1 `remaining` was said |
    /// | 2 | 6 | zero |
    /// | 8 | 8 | sold, milliseconds since 1970 |
    /// | 16 | 8 | redeemed |
    /// | 24 | 8 | remaining |
    /// | 32 | 16 | order; 0 is none |
    #[must_use]
    pub fn encode(&self) -> [u8; ORIGIN_BYTES] {
        let mut bytes = [0; ORIGIN_BYTES];
        bytes[0] = self.state as u8;
        bytes[1] = if self.frozen { FROZEN } else { 0 } | if self.remaining.is_some() { REMAINS } else { 0 };
        bytes[8..16].copy_from_slice(&self.sold_ms.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.redeemed_ms.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.remaining.unwrap_or(0).to_le_bytes());
        bytes[32..48].copy_from_slice(&self.order.map_or(0, |order| order.0).to_le_bytes());
        bytes
    }

    /// What [`Origin::encode`] wrote; `None` if it did not write this.
    #[must_use]
    pub fn decode(bytes: &[u8; ORIGIN_BYTES]) -> Option<Origin> {
        let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let remaining = number(24).cast_signed();
        let origin = Origin {
            state: Lifecycle::from_number(bytes[0])?,
            frozen: bytes[1] & FROZEN != 0,
            sold_ms: number(8),
            redeemed_ms: number(16),
            remaining: (bytes[1] & REMAINS != 0).then_some(remaining),
            order: match u128::from_le_bytes(bytes[32..48].try_into().expect("sixteen bytes")) {
                0 => None,
                order => Some(OrderId(order)),
            },
        };
        (origin.encode() == *bytes).then_some(origin)
    }
}

/// The orders of the system before that a batch has cards of.
#[derive(Default)]
pub struct OrdersOfOld {
    /// Sorted; a place for each row that names an order.
    orders: Vec<u128>,
    /// The rows, in the same places.
    rows: Vec<u64>,
}

impl OrdersOfOld {
    /// Of rows and the orders that they name.
    #[must_use]
    pub fn new(mut named: Vec<(OrderId, u64)>) -> OrdersOfOld {
        named.sort_unstable();
        OrdersOfOld {
            orders: named.iter().map(|(order, _)| order.0).collect(),
            rows: named.iter().map(|(_, row)| *row).collect(),
        }
    }

    /// The rows of an order, lowest first; none if it has none here.
    #[must_use]
    pub fn rows(&self, order: OrderId) -> &[u64] {
        let from = self.orders.partition_point(|other| *other < order.0);
        let count = self.orders[from..].partition_point(|other| *other == order.0);
        &self.rows[from..from + count]
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.orders.is_empty()
    }

    /// Bytes of memory.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        (size_of_val(&*self.orders) + size_of_val(&*self.rows)) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000_000;

    fn sold() -> Origin {
        Origin { state: Lifecycle::Sold, sold_ms: NOW - 10, order: Some(OrderId(7)), ..Origin::default() }
    }

    #[test]
    fn what_is_written_is_read() {
        let origins = [
            Origin::default(),
            sold(),
            Origin { frozen: true, remaining: Some(0), ..sold() },
            Origin { state: Lifecycle::Redeemed, redeemed_ms: u64::MAX, order: None, ..sold() },
        ];
        for origin in origins {
            assert_eq!(Origin::decode(&origin.encode()), Some(origin));
        }
        for (at, wrong) in [(0, 9), (1, 4), (2, 1), (24, 1)] {
            let mut bytes = sold().encode();
            bytes[at] = wrong;
            assert_eq!(Origin::decode(&bytes), None, "byte {at}");
        }
    }

    #[test]
    fn what_cannot_have_been_is_none() {
        use CardKind::{MultiUse, Single, StoredValue};
        let redeemed = Origin { state: Lifecycle::Redeemed, redeemed_ms: NOW - 5, ..sold() };
        let in_part = Origin { remaining: Some(40), redeemed_ms: NOW - 5, ..sold() };
        let possible = |origin: &Origin, kind, max| origin.is_possible(kind, 100, max, NOW);
        assert!(possible(&Origin::default(), Single, 0));
        assert!(possible(&Origin { frozen: true, ..Origin::default() }, Single, 0));
        assert!(possible(&sold(), Single, 0) && possible(&redeemed, Single, 0));
        assert!(possible(&in_part, StoredValue, 0) && possible(&in_part, MultiUse, 0));
        assert!(possible(&Origin { remaining: Some(0), ..in_part }, StoredValue, 500), "it can be loaded");
        assert!(possible(&Origin { remaining: Some(500), ..in_part }, StoredValue, 500));
        let wrong = [
            (Origin { sold_ms: 5, ..Origin::default() }, Single, 0),
            (Origin { order: Some(OrderId(1)), ..Origin::default() }, Single, 0),
            (Origin { redeemed_ms: NOW, ..sold() }, Single, 0),
            (Origin { sold_ms: NOW + SKEW_MS + 1, ..sold() }, Single, 0),
            (Origin { redeemed_ms: NOW - 11, ..redeemed }, Single, 0),
            (Origin { frozen: true, ..redeemed }, Single, 0),
            (Origin { remaining: Some(1), ..redeemed }, StoredValue, 0),
            (redeemed, StoredValue, 500),
            (in_part, Single, 0),
            (Origin { remaining: Some(0), ..in_part }, StoredValue, 0),
            (Origin { remaining: Some(101), ..in_part }, StoredValue, 0),
            (Origin { remaining: Some(501), ..in_part }, StoredValue, 500),
            (Origin { state: Lifecycle::Reserved, ..sold() }, Single, 0),
            (Origin { state: Lifecycle::Expired, ..sold() }, Single, 0),
            (Origin { order: Some(OrderId(0)), ..sold() }, Single, 0),
        ];
        for (origin, kind, max) in wrong {
            assert!(!possible(&origin, kind, max), "{origin:?}");
        }
    }

    #[test]
    fn orders_lead_to_their_rows() {
        let orders =
            OrdersOfOld::new([(5, 9), (2, 1), (5, 3), (9, 4)].map(|(o, r)| (OrderId(o), r)).to_vec());
        assert_eq!(orders.rows(OrderId(5)), [3, 9]);
        assert_eq!(orders.rows(OrderId(2)), [1]);
        for none in [0, 1, 3, 10] {
            assert!(orders.rows(OrderId(none)).is_empty());
        }
        assert!(OrdersOfOld::default().rows(OrderId(1)).is_empty());
    }
}
