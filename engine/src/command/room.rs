//! How much of the log a command may take. Credit for it is asked for before the lock, when not everything about the
//! command is known: too much costs nothing but a shorter turn, too little would append what was not granted.

use super::{Command, ORDER_CARDS_MAX};
use crate::account::{LEGS_MAX, NOTE_BYTES_MAX};
use crate::exceptions::ADVICE_BYTES;
use crate::limits::{CROSSED_MAX, CROSSING_ENTRY_BYTES};
use crate::order::{ORDER_LINES_MAX, SHARED_PLAIN_MAX};
use crate::pair::PAIR_ENTRY_BYTES;
use crate::record;
use crate::sequencer::GROUP_BYTES;

/// The most bytes of the log an administrative entry takes: its object is small.
const OBJECT_ENTRY_BYTES_MAX: usize = 2048;

impl Command {
    /// The most bytes of the log that executing it takes. A command that is about no card ends the group
    /// before it and needs one for itself.
    pub(crate) fn log_bytes_max(&self) -> usize {
        match self {
            Command::Query { .. } | Command::History { .. } | Command::OutcomeOf { .. } => 0,
            Command::Sell { count, .. } => {
                let entry = record::OrderFacts::plain_entry_bytes_max((*count).min(ORDER_CARDS_MAX));
                // Of cards that are sold many times it has another form.
                let entry =
                    entry.max(record::OrderFacts::entry_bytes_max((*count).min(SHARED_PLAIN_MAX), 0, 0));
                2 * GROUP_BYTES + CROSSED_MAX * CROSSING_ENTRY_BYTES + entry
            }
            Command::SellLines(purchase) | Command::Reserve(purchase) => {
                let cards = purchase.lines.iter().map(|line| u64::from(line.count)).sum();
                order_bytes_max(cards, purchase.lines.len(), purchase.legs.len())
            }
            Command::Post(posting) => {
                let (legs, note) = (posting.legs.len().min(LEGS_MAX), posting.note.len().min(NOTE_BYTES_MAX));
                2 * GROUP_BYTES + record::HEAD_BYTES + record::PostedDocument::tail_bytes(legs, note) + 8
            }
            Command::Replace(_) | Command::Transfer(_) => 2 * GROUP_BYTES + 2 * PAIR_ENTRY_BYTES,
            // Its exception, and the lock that a wrong PIN may put beside it.
            Command::Advice(_) => 2 * record::HEAD_BYTES + ADVICE_BYTES + record::PIN_LOCK_BYTES,
            command if command.card().is_some() => record::HEAD_BYTES + record::ORIGINAL_BYTES,
            command if command.is_read() => GROUP_BYTES,
            _ => 2 * GROUP_BYTES + OBJECT_ENTRY_BYTES_MAX,
        }
    }

    /// As [`Command::log_bytes_max`], for a command about an order that is known.
    pub(crate) fn order_bytes_max(&self, cards: u32, facts: &record::OrderFacts) -> usize {
        let asked = match self {
            Command::Confirm(confirmation) => confirmation.legs.len(),
            Command::Return(given) => given.legs.len(),
            Command::Cancel(_) | Command::ReserveTimeout(_) => 0,
            _ => return self.log_bytes_max(),
        };
        order_bytes_max(u64::from(cards), facts.lines.len(), asked.max(facts.legs.len()))
            .max(self.log_bytes_max())
    }
}

/// The most bytes of the log that an order of so many cards takes.
pub(crate) fn order_bytes_max(cards: u64, lines: usize, legs: usize) -> usize {
    let cards = cards.min(u64::from(ORDER_CARDS_MAX)) as u32;
    2 * GROUP_BYTES
        + CROSSED_MAX * CROSSING_ENTRY_BYTES
        + record::OrderFacts::entry_bytes_max(cards, lines.min(ORDER_LINES_MAX), legs.min(LEGS_MAX))
}
