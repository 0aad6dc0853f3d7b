//! What a day looks like, in ten commands: four redemptions, three queries, two sales of a single card,
//! one reversal. The same steps are run in process and over QUIC.
//!
//! * Redemptions take distinct cards that were sold ahead, in an order that jumps.
//! * Queries read any card that was sold ahead: redeemed or not, and which order bought it, for which
//!   the engine reads the log.
//! * A sale takes one card of the stock.
//! * A reversal undoes every fourth redemption, [`REVERSED_AFTER`] redemptions later. Until there are so
//!   many a query stands in for it.
//!
//! Two thirds of the cards are sold ahead and one third is stock, so that both last for one and a half
//! commands a card.

use anyhow::{Result, ensure};
use kami_engine::RequestId;

use crate::args::Args;
use crate::codes::Scattered;
use crate::store::{Purpose, request_id};

/// How many redemptions of the same part lie between one and its reversal.
const REVERSED_AFTER: u64 = 10_000;

/// One command; cards and orders by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Redeems a card.
    Redeem(u64),
    /// Asks for a card.
    Query {
        /// The card.
        number: u64,
        /// Which query this is, so that no two share an id.
        query: u64,
    },
    /// Sells one card under an order.
    Sell(u64),
    /// Undoes the redemption of a card.
    Reverse(u64),
}

impl Step {
    /// The request's id.
    #[inline]
    pub fn id(self) -> RequestId {
        match self {
            Step::Redeem(number) => request_id(Purpose::Redeem, number),
            Step::Query { query, .. } => request_id(Purpose::Query, query),
            Step::Sell(order) => request_id(Purpose::Sell, order),
            Step::Reverse(number) => request_id(Purpose::Reverse, number),
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Redeem,
    Query,
    Sell,
    Reverse,
}

/// The ten commands, spread so that every batch has some of each.
const TEN: [Kind; 10] = [
    Kind::Redeem,
    Kind::Query,
    Kind::Sell,
    Kind::Redeem,
    Kind::Reverse,
    Kind::Query,
    Kind::Redeem,
    Kind::Sell,
    Kind::Query,
    Kind::Redeem,
];

/// The same day without what a store keeps for good: a soak may go on for hours, and memory that grows is then a leak.
const LASTING: [Kind; 10] = [
    Kind::Redeem,
    Kind::Query,
    Kind::Redeem,
    Kind::Query,
    Kind::Redeem,
    Kind::Reverse,
    Kind::Query,
    Kind::Redeem,
    Kind::Query,
    Kind::Redeem,
];

/// One part of the mix: a thread's or a connection's.
#[derive(Clone, Debug)]
pub struct Mix {
    ten: &'static [Kind; 10],
    /// Commands still to come, and the next one's place among the ten.
    left: u64,
    place: usize,
    /// Cards to redeem, and the same walk again, behind, for reversals.
    redeem: Scattered,
    behind: Scattered,
    redeemed: u64,
    reversed: u64,
    /// Cards to ask for; begins again when it ends.
    query: Scattered,
    queries: Scattered,
    /// The next query's and the next order's number.
    asked: u64,
    order: u64,
}

impl Mix {
    /// For the report.
    pub const IN_WORDS: &str = "in ten: 4 redeem, 3 query, 2 sell one card and reveal it, 1 reverse";

    /// How many cards are sold ahead, how many are stock, and how many commands they allow.
    pub fn plan(args: &Args) -> Result<(u64, u64, u64)> {
        ensure!(30 <= args.cards, "fewer cards than the mix needs");
        let stock = args.cards / 3;
        Ok((args.cards - stock, stock, args.count.unwrap_or(u64::MAX).min(stock / 2 * 10)))
    }

    /// The part `part` of `parts` of `count` commands.
    pub fn part(sold: u64, count: u64, part: u64, parts: u64) -> Mix {
        let walk = Scattered::part(sold, part, parts);
        let query = Scattered::part(sold, parts - 1 - part, parts);
        Mix {
            ten: &TEN,
            left: count * (part + 1) / parts - count * part / parts,
            place: 0,
            redeem: walk.clone(),
            behind: walk,
            redeemed: 0,
            reversed: 0,
            query: query.clone(),
            queries: query,
            // Far above the orders that were sold ahead, and apart for every part.
            asked: (part + 1) << 40,
            order: (part + 1) << 40,
        }
    }

    /// For the report of a soak.
    pub const LASTING_IN_WORDS: &str = "in ten: 5 redeem, 4 query, 1 reverse";

    /// How many sold cards a soak of so many commands over so many connections needs.
    pub fn lasting_cards(count: u64, parts: u64) -> u64 {
        // Each part begins with a redemption and has the same share of the cards.
        (count / parts + 1).div_ceil(2) * parts + parts
    }

    /// As [`Mix::part`], of what a soak does.
    pub fn lasting(sold: u64, count: u64, part: u64, parts: u64) -> Mix {
        Mix { ten: &LASTING, ..Mix::part(sold, count, part, parts) }
    }

    /// How many reversals there were so far.
    pub fn reversed(&self) -> u64 {
        self.reversed
    }
}

impl Iterator for Mix {
    type Item = Step;

    #[inline]
    fn next(&mut self) -> Option<Step> {
        self.left = self.left.checked_sub(1)?;
        let kind = self.ten[self.place];
        self.place = (self.place + 1) % self.ten.len();
        match kind {
            Kind::Redeem => {
                self.redeemed += 1;
                self.redeem.next().map(Step::Redeem)
            }
            Kind::Reverse if self.reversed * 4 + REVERSED_AFTER <= self.redeemed => {
                self.reversed += 1;
                let number = self.behind.next()?;
                self.behind.by_ref().take(3).for_each(drop);
                Some(Step::Reverse(number))
            }
            Kind::Query | Kind::Reverse => {
                self.asked += 1;
                let number = self.query.next().or_else(|| {
                    self.query = self.queries.clone();
                    self.query.next()
                })?;
                Some(Step::Query { number, query: self.asked })
            }
            Kind::Sell => {
                self.order += 1;
                Some(Step::Sell(self.order))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_soak_has_cards_to_its_end_and_sells_none() {
        for (count, parts) in [(10, 1), (999, 7), (100_000, 64)] {
            let cards = Mix::lasting_cards(count, parts);
            for part in 0..parts {
                let share = count * (part + 1) / parts - count * part / parts;
                let steps: Vec<Step> = Mix::lasting(cards, count, part, parts).collect();
                assert_eq!(steps.len() as u64, share, "part {part} of {parts}");
                assert!(!steps.iter().any(|step| matches!(step, Step::Sell(_))));
            }
        }
    }
}
