//! What the demo is about to do: cards, orders and request ids, all told from their number and a secret
//! of this run. So the ledger keeps numbers, however many cards there are, and a code that comes back in
//! a reply says itself which card it is.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use kami_engine::{OrderId, ProductId, RequestId};

/// How many cards the orders take, in turn.
const ORDER_CARDS: [u32; 12] = [1, 1, 2, 1, 5, 1, 10, 2, 1, 50, 3, 100];
/// The same for few cards, so that there are many orders all the same.
const ORDER_CARDS_FEW: [u32; 3] = [1, 2, 1];
/// From so many cards on, orders are of all sizes.
const MANY_CARDS: u32 = 50_000;

/// Digits of a card's number in its code.
const NUMBER_DIGITS: usize = 6;
/// Digits of its secret part: 70 bits.
const SECRET_DIGITS: usize = 14;
const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// A code as it stands in the card file.
pub type CodeText = [u8; NUMBER_DIGITS + 1 + SECRET_DIGITS];

pub struct Plan {
    pub product: ProductId,
    pub cards: u32,
    /// How many cards each order takes.
    pub orders: Vec<u32>,
    secret: [u8; 32],
}

impl Plan {
    pub fn new(cards: u32) -> Plan {
        let mut secret = [0; 32];
        let (first, second) = secret.split_at_mut(16);
        first.copy_from_slice(&RequestId::random().0.to_le_bytes());
        second.copy_from_slice(&RequestId::random().0.to_le_bytes());
        let sizes: &[u32] = if cards < MANY_CARDS { &ORDER_CARDS_FEW } else { &ORDER_CARDS };
        let mut orders = Vec::new();
        let mut left = cards;
        for size in sizes.iter().cycle() {
            if left == 0 {
                break;
            }
            let size = left.min(*size);
            orders.push(size);
            left -= size;
        }
        Plan { product: ProductId(0), cards, orders, secret }
    }

    /// How many replies the whole load brings.
    pub fn replies(&self) -> u64 {
        self.orders.len() as u64 + u64::from(self.cards)
    }

    /// A number below `bound` that nobody could foresee.
    pub fn chance(&self, bound: u64) -> u64 {
        (self.derive("chance", 0) % u128::from(bound)) as u64
    }

    pub fn order_id(&self, order: u32) -> OrderId {
        OrderId(self.derive("order", order).max(1))
    }

    pub fn sale_id(&self, order: u32) -> RequestId {
        RequestId(self.derive("sale", order).max(1))
    }

    pub fn redeem_id(&self, card: u32) -> RequestId {
        RequestId(self.derive("redeem", card).max(1))
    }

    pub fn code(&self, card: u32) -> CodeText {
        let mut code = [b'-'; NUMBER_DIGITS + 1 + SECRET_DIGITS];
        let put = |place: &mut [u8], mut bits: u128| {
            for digit in place {
                *digit = DIGITS[(bits % 32) as usize];
                bits /= 32;
            }
        };
        put(&mut code[..NUMBER_DIGITS], card.into());
        put(&mut code[NUMBER_DIGITS + 1..], self.derive("code", card));
        code
    }

    /// The card with this code, if it is one of ours.
    pub fn card(&self, code: &[u8]) -> Option<u32> {
        let digits = code.get(..NUMBER_DIGITS)?;
        let mut card: u32 = 0;
        for digit in digits.iter().rev() {
            let value = DIGITS.iter().position(|known| known == digit)?;
            card = card * 32 + value as u32;
        }
        (card < self.cards && self.code(card) == code).then_some(card)
    }

    /// The card file.
    pub fn write_cards(&self, path: &Path) -> io::Result<()> {
        let mut file = BufWriter::new(File::create_new(path)?);
        file.write_all(b"code\n")?;
        for card in 0..self.cards {
            file.write_all(&self.code(card))?;
            file.write_all(b"\n")?;
        }
        file.flush()
    }

    fn derive(&self, what: &str, number: u32) -> u128 {
        let mut hasher = blake3::Hasher::new_keyed(&self.secret);
        let hash = hasher.update(&number.to_le_bytes()).update(what.as_bytes()).finalize();
        let (half, _) = hash.as_bytes().split_first_chunk().expect("a hash has 32 bytes");
        u128::from_le_bytes(*half)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_says_which_card_it_is() {
        let plan = Plan::new(100_000);
        for card in [0, 1, 31, 32, 99_999] {
            assert_eq!(plan.card(&plan.code(card)), Some(card));
        }
        assert_eq!(plan.card(&plan.code(100_000)), None);
        assert_eq!(plan.card(&Plan::new(100_000).code(7)), None, "another run's");
        assert_eq!(plan.card(b"short"), None);
    }

    #[test]
    fn the_orders_take_every_card() {
        for cards in [2000, 49_999, 200_000] {
            let plan = Plan::new(cards);
            assert_eq!(plan.orders.iter().sum::<u32>(), cards);
            assert!(plan.orders.iter().all(|size| *size > 0));
            assert!(plan.replies() > 1000);
        }
    }
}
