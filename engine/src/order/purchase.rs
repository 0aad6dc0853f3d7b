//! What is asked of an order: what is bought and how it is paid, a confirmation, a return.

use crate::account::Leg;
use crate::identity::{AccountId, CardDigest, OrderId, ProductId};
use crate::product::Money;
#[cfg(doc)]
use crate::{account::LEGS_MAX, command::ORDER_CARDS_MAX};

/// The most cards of a SELL whose codes are sold many times: SELL_LINES takes more.
pub(crate) const SHARED_PLAIN_MAX: u32 = 64;

/// The most lines of an order.
pub const ORDER_LINES_MAX: usize = 64;

/// So many cards of one product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// The product.
    pub product: ProductId,
    /// How many; at least 1.
    pub count: u32,
    /// Only cards of this face value; `None` takes any.
    pub face: Option<Money>,
}

/// What is bought, by whom, and how it is paid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purchase {
    /// The order, chosen by the buyer; the target of the request id.
    pub order: OrderId,
    /// 1 to [`ORDER_LINES_MAX`] lines, together at most [`ORDER_CARDS_MAX`] cards: all of them or none. A product
    /// comes once, or each time with another face value.
    pub lines: Vec<Line>,
    /// Cards that expire sooner than this many seconds from now are not sold.
    pub validity_s_min: u32,
    /// Whose purchase it is, for limits and money.
    pub account: Option<AccountId>,
    /// A keyed hash of the address the buyer came from, for limits; 0 is unknown.
    pub ip: u64,
    /// How money moves: at most [`LEGS_MAX`] legs, which sum to zero in each currency. With a reservation
    /// what its debits take is set aside until it is paid.
    pub legs: Vec<Leg>,
    /// Whether the codes are not delivered with the sale: ORDER_FETCH gives them out.
    pub sealed: bool,
    /// Of a reservation: how many seconds it stands; 0, or more than the shortest that its products allow, is
    /// what they allow.
    pub reserve_s: u32,
}

impl Purchase {
    /// Cards of one product, to be paid otherwise.
    #[must_use]
    pub fn of(order: OrderId, product: ProductId, count: u32) -> Purchase {
        Purchase {
            order,
            lines: vec![Line { product, count, face: None }],
            validity_s_min: 0,
            account: None,
            ip: 0,
            legs: Vec::new(),
            sealed: false,
            reserve_s: 0,
        }
    }
}

/// How a reservation is paid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confirmation {
    /// The order.
    pub order: OrderId,
    /// How money moves; empty is as it was set aside.
    pub legs: Vec<Leg>,
    /// Whether cards may be taken again if the reservation is over: the same if they are all free, else equal
    /// ones.
    pub realloc: bool,
    /// Whether the codes are not delivered with it.
    pub sealed: bool,
}

/// What comes back of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenBack {
    /// The order.
    pub order: OrderId,
    /// The cards, at most [`RETURN_CARDS_MAX`]; none is all that still belong to it.
    pub cards: Vec<CardDigest>,
    /// How the money goes back.
    pub legs: Vec<Leg>,
}

/// So often cards of an order are returned by name; after that all that is left is returned at once. What every
/// command about the order reads is its entries, and these are the only ones that there can be many of.
pub const RETURNS_MAX: u32 = 256;

/// The most cards that a return names one by one.
pub const RETURN_CARDS_MAX: usize = 64;

/// How many cards of each product; a product with several face values comes several times.
pub(crate) fn units(lines: &[Line]) -> Vec<(ProductId, u64)> {
    lines.iter().map(|line| (line.product, u64::from(line.count))).collect()
}

/// A checksum over parts of fixed length, by which a retry is told from another request with the same id.
fn sum(parts: &[&[u8]]) -> u32 {
    parts.iter().fold(0, |sum, part| crc32c::crc32c_append(sum, part))
}

/// One call for each line and leg: short ones cost more than what they sum.
fn sum_lines(lines: &[Line]) -> u32 {
    lines.iter().fold(0u32, |so_far, line| {
        let mut bytes = [0; 20];
        bytes[0..4].copy_from_slice(&so_far.to_le_bytes());
        bytes[4..8].copy_from_slice(&line.product.0.to_le_bytes());
        bytes[8..12].copy_from_slice(&line.count.to_le_bytes());
        bytes[12..20].copy_from_slice(&line.face.unwrap_or(i64::MIN).to_le_bytes());
        crc32c::crc32c(&bytes)
    })
}

fn sum_legs(legs: &[Leg]) -> u32 {
    legs.iter().fold(0u32, |so_far, leg| {
        let mut bytes = [0; 16];
        bytes[0..4].copy_from_slice(&so_far.to_le_bytes());
        bytes[4..8].copy_from_slice(&leg.account.0.to_le_bytes());
        bytes[8..16].copy_from_slice(&leg.amount.to_le_bytes());
        crc32c::crc32c(&bytes)
    })
}

impl Purchase {
    pub(crate) fn body(&self) -> u32 {
        let mut bytes = [0; 29];
        bytes[0..4].copy_from_slice(&sum_lines(&self.lines).to_le_bytes());
        bytes[4..8].copy_from_slice(&self.validity_s_min.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.account.map_or(0, |account| account.0).to_le_bytes());
        bytes[12..20].copy_from_slice(&self.ip.to_le_bytes());
        bytes[20..24].copy_from_slice(&sum_legs(&self.legs).to_le_bytes());
        bytes[24] = u8::from(self.sealed);
        bytes[25..29].copy_from_slice(&self.reserve_s.to_le_bytes());
        crc32c::crc32c(&bytes)
    }
}

impl Confirmation {
    pub(crate) fn body(&self) -> u32 {
        let flags = [u8::from(self.realloc), u8::from(self.sealed)];
        sum(&[&sum_legs(&self.legs).to_le_bytes(), &flags])
    }
}

impl GivenBack {
    pub(crate) fn body(&self) -> u32 {
        let cards =
            self.cards.iter().fold(0, |so_far, card| crc32c::crc32c_append(so_far, &card.0.to_le_bytes()));
        sum(&[&cards.to_le_bytes(), &sum_legs(&self.legs).to_le_bytes()])
    }
}
