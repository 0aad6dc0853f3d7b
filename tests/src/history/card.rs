//! The rule of a card as a client may rely on it, written down a second time and without the engine.
//!
//! It is much smaller than the oracle of the model: one caller who may do everything, no clocks, no batches. What is left
//! is what promises 1 and 3 are about: a use takes effect once, whatever is retried, reversed and overtaken.

use std::collections::{BTreeMap, BTreeSet};

use kami_engine::{CardReport, Class, Flags, Lifecycle, Reply, ReplyBody, ReplyFlags, Status};

use super::search::Rule;

/// A single-use card, or one with value on it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Card {
    /// What is on it; `None` for a single-use card.
    pub value: Option<i64>,
    redeemed: bool,
    frozen: bool,
    /// What took effect, by request.
    effects: BTreeMap<u32, Effect>,
    /// Requests that are refused if they ever come.
    tombstones: u32,
    poisoned: BTreeSet<u32>,
    reversals: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Effect {
    Redeem { amount: i64, reversed: bool },
    Load { amount: i64, reversed: bool },
    Freeze,
    Unfreeze,
    Reverse,
    Tombstone,
}

/// What is asked. Requests are numbered; a retry has the number of its first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Use: all of a single-use card, or so much.
    Redeem {
        id: u32,
        amount: i64,
    },
    /// Put value on it.
    Load {
        id: u32,
        amount: i64,
    },
    Reverse {
        id: u32,
        original: u32,
    },
    Freeze {
        id: u32,
    },
    Unfreeze {
        id: u32,
    },
    Query,
}

/// What a client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Of a change: the status, and whether it is the reply to an earlier request whose effect was reversed since.
    Changed { status: Status, replayed: bool, reversed: bool },
    /// Of a read.
    Is { redeemed: bool, frozen: bool, value: Option<i64> },
}

/// As many reversals of what was never seen a card remembers, and so often a single-use card is given back.
const REVERSALS_MAX: u32 = 64;

impl Card {
    /// Sold, and never used.
    #[must_use]
    pub const fn sold(value: Option<i64>) -> Card {
        Card {
            value,
            redeemed: false,
            frozen: false,
            effects: BTreeMap::new(),
            tombstones: 0,
            poisoned: BTreeSet::new(),
            reversals: 0,
        }
    }

    fn reverse(&mut self, id: u32, original: u32) -> Status {
        let Some(effect) = self.effects.get(&original).copied() else {
            if self.poisoned.contains(&original) {
                return Status::Tombstoned;
            }
            if self.tombstones >= REVERSALS_MAX {
                return Status::ReversalsExhausted;
            }
            self.tombstones += 1;
            self.poisoned.insert(original);
            self.effects.insert(id, Effect::Tombstone);
            return Status::Tombstoned;
        };
        let (amount, undone) = match effect {
            Effect::Redeem { reversed: true, .. } | Effect::Load { reversed: true, .. } => {
                return Status::AlreadyReversed;
            }
            Effect::Redeem { amount, .. } => (amount, Effect::Redeem { amount, reversed: true }),
            Effect::Load { amount, .. } => (-amount, Effect::Load { amount, reversed: true }),
            _ => return Status::IllegalTransition,
        };
        match &mut self.value {
            Some(value) if *value + amount < 0 => return Status::InsufficientValue,
            Some(value) => *value += amount,
            None if self.reversals >= REVERSALS_MAX => return Status::ReversalsExhausted,
            None => self.redeemed = false,
        }
        self.reversals += 1;
        self.effects.insert(original, undone);
        self.effects.insert(id, Effect::Reverse);
        Status::Ok
    }

    fn redeem(&mut self, id: u32, amount: i64) -> Status {
        if self.poisoned.contains(&id) {
            return Status::ReversedBeforeArrival;
        }
        if self.redeemed {
            return Status::AlreadyRedeemed;
        }
        if self.frozen {
            return Status::Frozen;
        }
        match &mut self.value {
            Some(value) if *value < amount => return Status::InsufficientValue,
            Some(value) => *value -= amount,
            None => self.redeemed = true,
        }
        self.effects.insert(id, Effect::Redeem { amount, reversed: false });
        Status::Ok
    }
}

impl Ask {
    /// Its request id; 0 for a read.
    #[must_use]
    pub const fn id(self) -> u32 {
        match self {
            Ask::Redeem { id, .. }
            | Ask::Load { id, .. }
            | Ask::Reverse { id, .. }
            | Ask::Freeze { id }
            | Ask::Unfreeze { id } => id,
            Ask::Query => 0,
        }
    }
}

impl Rule for Card {
    type State = Card;
    type Ask = Ask;
    type Answer = Answer;

    fn apply(state: &Card, ask: &Ask) -> (Card, Answer) {
        let mut card = state.clone();
        if let Ask::Query = ask {
            let Card { redeemed, frozen, value, .. } = card;
            return (card, Answer::Is { redeemed, frozen, value });
        }
        if let Some(effect) = card.effects.get(&ask.id()) {
            if *effect == Effect::Tombstone {
                // Marked as a retry it would tell that the card exists.
                return (
                    card,
                    Answer::Changed { status: Status::Tombstoned, replayed: false, reversed: false },
                );
            }
            let reversed =
                matches!(effect, Effect::Redeem { reversed: true, .. } | Effect::Load { reversed: true, .. });
            return (card, Answer::Changed { status: Status::Ok, replayed: true, reversed });
        }
        let status = match *ask {
            Ask::Redeem { id, amount } => card.redeem(id, amount),
            Ask::Load { id, .. } if card.poisoned.contains(&id) => Status::ReversedBeforeArrival,
            Ask::Load { .. } if card.frozen => Status::Frozen,
            Ask::Load { id, amount } => {
                card.value = card.value.map(|value| value + amount);
                card.effects.insert(id, Effect::Load { amount, reversed: false });
                Status::Ok
            }
            Ask::Reverse { id, original } => card.reverse(id, original),
            Ask::Freeze { .. } if card.frozen => Status::IllegalTransition,
            Ask::Unfreeze { .. } if !card.frozen => Status::IllegalTransition,
            Ask::Freeze { id } => {
                card.frozen = true;
                card.effects.insert(id, Effect::Freeze);
                Status::Ok
            }
            Ask::Unfreeze { id } => {
                card.frozen = false;
                card.effects.insert(id, Effect::Unfreeze);
                Status::Ok
            }
            Ask::Query => unreachable!("answered above"),
        };
        (card, Answer::Changed { status, replayed: false, reversed: false })
    }
}

impl Answer {
    /// As the engine tells it. `None` if it did nothing: no room, or a dead log.
    #[must_use]
    pub fn of(ask: Ask, reply: &Reply, has_value: bool) -> Option<Answer> {
        let card = if let ReplyBody::Card(card) = &reply.body { Some(card) } else { None };
        Answer::told(ask, reply.status, reply.flags, card, has_value)
    }

    /// The same by the parts of a reply, as the wire brings them.
    #[must_use]
    pub fn told(
        ask: Ask,
        status: Status,
        flags: ReplyFlags,
        card: Option<&CardReport>,
        has_value: bool,
    ) -> Option<Answer> {
        match (ask, card) {
            _ if status.class() == Class::NotExecuted => None,
            (Ask::Query, Some(report)) => Some(Answer::Is {
                redeemed: report.lifecycle == Lifecycle::Redeemed,
                frozen: report.flags.contains(Flags::FROZEN),
                value: has_value.then_some(report.remaining),
            }),
            _ => Some(Answer::Changed {
                status,
                replayed: flags.contains(ReplyFlags::REPLAYED),
                reversed: flags.contains(ReplyFlags::REVERSED),
            }),
        }
    }
}
