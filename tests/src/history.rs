//! Whether a history can be explained: what many clients asked at the same time and what they were told, through crashes.
//!
//! [`Card`] is the rule of a card once more and without the engine, [`explain`] the search for an order of things in which
//! every reply is the one that the rule gives. A [`Race`] is what clients ask of a few cards, and [`Histories`] what they
//! saw of them. Whom they ask, and what is cut or killed meanwhile, the tests say: whole engines on the simulated disk in
//! `tests/tests/history.rs`, and the real server in `server/tests/process/history.rs`.

#[expect(missing_docs, reason = "ids and amounts, by their names")]
mod card;
mod search;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use kami_engine::{Lsn, RequestId};

pub use card::{Answer, Ask, Card};
pub use search::{Operation, Rule, explain};

use crate::random::Random;

/// What clients race for: cards, all sold, the second half of them with value; and what was asked about each.
#[derive(Debug)]
pub struct Race {
    cards: usize,
    /// Later is larger, whoever asks.
    time: AtomicU64,
    next_id: AtomicU64,
    /// The last requests about each card: what is retried, and what is reversed.
    asked: Vec<Mutex<Vec<Ask>>>,
}

impl Race {
    /// What is on a card with value when it is sold.
    pub const VALUE: i64 = 500;
    /// So many requests about a card are kept.
    const KEPT: usize = 12;

    /// For so many cards.
    #[must_use]
    pub fn new(cards: usize) -> Race {
        let asked = (0..cards).map(|_| Mutex::default()).collect();
        Race { cards, time: AtomicU64::new(1), next_id: AtomicU64::new(1), asked }
    }

    /// How many cards there are.
    #[must_use]
    pub const fn cards(&self) -> usize {
        self.cards
    }

    /// The code of a card.
    #[must_use]
    pub fn code(&self, card: usize) -> String {
        format!("HISTORY-{card:04}")
    }

    /// Whether it is a card with value.
    #[must_use]
    pub const fn has_value(&self, card: usize) -> bool {
        card >= self.cards / 2
    }

    /// The time, by which histories are ordered. No two calls give the same.
    pub fn now(&self) -> u64 {
        self.time.fetch_add(1, Ordering::SeqCst)
    }

    /// A card; some are busier than others.
    #[must_use]
    pub fn card(&self, random: &mut Random) -> usize {
        let among = if random.percent(50) { 4 } else { self.cards as u64 };
        (random.below(among) * 13 % self.cards as u64) as usize
    }

    /// Something about a card: new, or once more.
    ///
    /// # Panics
    /// If a client panicked meanwhile.
    #[must_use]
    pub fn ask(&self, card: usize, random: &mut Random) -> Ask {
        let number = random.next();
        let earlier = {
            let asks = self.asked[card].lock().expect("no client panics");
            (!asks.is_empty()).then(|| asks[number as usize % asks.len()])
        };
        if random.percent(15)
            && let Some(ask) = earlier
        {
            return ask;
        }
        let id = self.next_id.fetch_add(1, Ordering::Relaxed) as u32;
        let amount = if self.has_value(card) { 1 + random.below(120) as i64 } else { 0 };
        let original = match earlier {
            Some(Ask::Redeem { id, .. } | Ask::Load { id, .. } | Ask::Freeze { id }) => id,
            // Of something that never came, or comes later.
            _ => id + random.below(4) as u32,
        };
        let ask = match random.below(100) {
            0..40 => Ask::Redeem { id, amount },
            40..52 if self.has_value(card) => Ask::Load { id, amount },
            40..75 => Ask::Reverse { id, original },
            75..79 => Ask::Freeze { id },
            79..86 => Ask::Unfreeze { id },
            _ => Ask::Query,
        };
        if ask != Ask::Query {
            let mut asks = self.asked[card].lock().expect("no client panics");
            if asks.len() == Race::KEPT {
                asks.remove(0);
            }
            asks.push(ask);
        }
        ask
    }
}

/// What one client saw of one card.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Which card.
    pub card: usize,
    /// What was asked, and what was told. Of an operation that was never answered the end is not known yet.
    pub operation: Operation<Card>,
    /// The receipt of a change.
    pub lsn: Option<Lsn>,
}

impl Seen {
    /// The engine's id of a request.
    #[must_use]
    pub fn request(ask: Ask) -> RequestId {
        RequestId(ask.id().into())
    }
}

/// What all clients saw, card by card.
#[derive(Debug)]
pub struct Histories {
    of: Vec<Vec<Operation<Card>>>,
    receipts: BTreeMap<(usize, u32), Lsn>,
}

impl Histories {
    /// Of so many cards, of which nothing was seen.
    #[must_use]
    pub fn new(cards: usize) -> Histories {
        Histories { of: vec![Vec::new(); cards], receipts: BTreeMap::new() }
    }

    /// Adds what a client saw. What was never answered may have happened until `end`, the time of the crash.
    ///
    /// # Panics
    /// If one request has two receipts.
    pub fn add(&mut self, seen: Seen, end: u64) {
        let Seen { card, mut operation, lsn } = seen;
        if operation.answer.is_none() {
            operation.ended = end;
        }
        let changed = matches!(operation.answer, Some(Answer::Changed { status, .. }) if status.is_done());
        if changed && let Some(lsn) = lsn {
            let id = operation.ask.id();
            let first = *self.receipts.entry((card, id)).or_insert(lsn);
            assert_eq!(first, lsn, "card {card}, request {id}: two receipts for one effect");
        }
        self.of[card].push(operation);
    }

    /// Judges card by card, with what each is in the end. Returns how many operations were judged.
    ///
    /// # Panics
    /// If a history cannot be explained, with the history.
    pub fn judge(&self, race: &Race, last: impl Fn(usize) -> Answer) -> u64 {
        let mut judged = 0;
        for (card, history) in self.of.iter().enumerate() {
            let mut history = history.clone();
            let answer = last(card);
            assert!(matches!(answer, Answer::Is { .. }), "{answer:?}");
            let (asked, ended) = (u64::MAX - 1, u64::MAX);
            history.push(Operation { asked, ended, ask: Ask::Query, answer: Some(answer) });
            judged += history.len() as u64;
            let first = Card::sold(race.has_value(card).then_some(Race::VALUE));
            if let Err(what) = explain::<Card>(first, &history) {
                history.sort_by_key(|operation| operation.asked);
                let history: Vec<String> = history.iter().map(|operation| format!("{operation:?}")).collect();
                panic!("card {card}: {what}\nits history:\n{}", history.join("\n"));
            }
        }
        judged
    }
}
