//! A batch of requests on its way through the sequencer: what is asked, what was found out about it before
//! the lock, what it changes once its record is published, and the replies.
//!
//! All of it is reused from batch to batch, and what almost no command needs lies apart in boxes: a turn walks
//! over 64 of these under the lock, and they are to stay in the nearest cache.

use std::collections::{HashMap, HashSet};

use kami_wal::Lsn;

use crate::card::{Effect, Past};
#[cfg(doc)]
use crate::command::Command;
use crate::command::Request;
use crate::control::InQuestion;
use crate::exceptions::ExceptionState;
use crate::holds::HoldChange;
use crate::identity::{AccountId, CardDigest, OrderId, PrincipalId, RequestId, TenantId};
use crate::limits::{Buyer, Tills};
use crate::order::list::OrderPage;
use crate::orders::OrderWord;
use crate::pair::PairRead;
use crate::pins::PinChange;
use crate::record::{Allocation, Chapter, OrderFacts, PostedLeg, Purse, Trail};
use crate::reply::{HistoryEvent, OrderReport, Reply, Statement};
use crate::status::Status;
use crate::stock::Search;
#[cfg(doc)]
use crate::table::Table;
use crate::word::{CardRef, Word};

/// Requests and their replies, reused from batch to batch.
///
/// **A reply may leave only when the log is durable up to [`Work::durable_at`]**: not a success, not a
/// refusal, not a read.
#[derive(Default)]
pub struct Work {
    /// What is asked; at most [`Work::REQUESTS_MAX`] per execution.
    pub requests: Vec<Request>,
    /// One reply per request, in order, after [`Engine::execute`](crate::Engine::execute).
    pub replies: Vec<Reply>,
    pub(super) durable_at: Option<Lsn>,
    pub(super) misses: usize,
    pub(crate) prepared: Vec<Prepared>,
    pub(crate) moves: Moves,
    pub(super) seen: CodeSet,
    pub(crate) search: Search,
    pub(crate) posted: Vec<PostedLeg>,
    pub(super) tills: Tills,
    pub(super) buffer: Vec<u8>,
}

impl Work {
    /// The most requests one execution takes.
    pub const REQUESTS_MAX: usize = 64;

    /// Up to where the log must be durable before any of the replies leaves. `None` before the first
    /// execution.
    #[must_use]
    pub fn durable_at(&self) -> Option<Lsn> {
        self.durable_at
    }

    /// How many of the replies are misses, see [`Reply::miss`].
    #[must_use]
    pub fn misses(&self) -> usize {
        self.misses
    }
}

/// What the commands of one record change once it is published.
#[derive(Default)]
pub(crate) struct Moves {
    pub(crate) words: Vec<(CardRef, Word, Word)>,
    pub(crate) holds: Vec<HoldChange>,
    pub(crate) pins: Vec<PinChange>,
    pub(crate) exceptions: Vec<ExceptionState>,
    /// Cards with their new ends of validity.
    pub(crate) ends: Vec<(CardRef, u64)>,
    /// Cards that are sold many times with how much of them is spent, and by which entry.
    pub(crate) spent: Vec<(CardRef, u32, Lsn)>,
}

impl Moves {
    pub(crate) fn clear(&mut self) {
        self.words.clear();
        self.holds.clear();
        self.pins.clear();
        self.exceptions.clear();
        self.ends.clear();
        self.spent.clear();
    }
}

/// What was read of a card whose value may move.
pub(crate) struct Wallet {
    /// What its last entry left on it; `None` if no entry tells.
    pub(crate) purse: Option<Purse>,
    /// The trail of the next entry, without that one's ids, and the chapters of the volume that it ends.
    pub(crate) trail: Trail,
    pub(crate) chapters: Vec<Chapter>,
    /// The card's sale.
    pub(crate) sale: Option<Lsn>,
    /// When that was, in milliseconds, if it was asked for; else 0.
    pub(crate) sold_ms: u64,
}

/// What was found out about a request before the lock was taken.
#[derive(Default)]
pub(crate) struct Prepared {
    /// [`Command::card`].
    pub(super) code: Option<CardDigest>,
    pub(crate) card: Option<CardRef>,
    /// The cards that a command about an order names.
    pub(crate) cards: Vec<Option<CardRef>>,
    /// The most bytes of the log that executing it takes.
    pub(crate) log_bytes: usize,
    /// LIMIT_CROSSED entries that these bytes have room for.
    pub(super) crossings: usize,
    /// Set if there was no such card: [`Table::commits`] before it was looked for.
    pub(crate) absent_at: Option<u64>,
    /// [`Command::body`].
    pub(crate) body: u32,
    /// The word that `past` and `detail` were read from.
    pub(crate) word: Word,
    /// What was read of the object's past, if it has one. Apart, as almost no command needs it and all of a
    /// turn's commands are to lie in the nearest cache.
    pub(super) past: Option<Box<Past>>,
    pub(crate) detail: Detail,
    /// Of a card whose value may move.
    pub(crate) wallet: Option<Box<Wallet>>,
    /// The object's last position that `past` was read from.
    pub(crate) object: Option<Lsn>,
    /// The encoded object of an administrative command.
    pub(crate) tail: Vec<u8>,
    /// Set if reading failed: the command is not executed, and whoever may know of the object is told so.
    pub(crate) failed: Option<Status>,
}

impl Prepared {
    /// What is known of the object's past.
    pub(crate) fn past(&self) -> &Past {
        self.past.as_deref().unwrap_or(&Past::NONE)
    }

    /// Keeps what was read of it.
    pub(crate) fn set_past(&mut self, past: Past) {
        self.past = Some(Box::new(past));
    }
}

#[derive(Default)]
pub(crate) enum Detail {
    #[default]
    None,
    History(Vec<HistoryEvent>),
    /// Of a card that is sold many times: also the last entry about an order that it was read from.
    HistoryOfShared(Box<(Option<Lsn>, Vec<HistoryEvent>)>),
    /// Of a card: the order it belongs to.
    OrderOf(OrderId),
    /// What became of an order.
    Order(Box<OrderPast>),
    /// What is known of an order of another system.
    OrderOfOld(Box<OrderReport>),
    /// Of two cards: the other one, and the order in which it takes a place.
    Pair(Box<PairRead>),
    /// What was posted under a document.
    Posted(Box<EarlierPosting>),
    /// An account with its statement, all as of one moment; `None` if it was to go on where it cannot.
    Statement(Option<Box<Statement>>),
    /// A page of orders; `None` as for a statement.
    Orders(Option<OrderPage>),
    /// What is proposed, or approved.
    InQuestion(Box<InQuestion>),
}

/// An earlier posting, read from the log.
pub(crate) struct EarlierPosting {
    pub(crate) effect: Effect,
    pub(crate) request: RequestId,
    pub(crate) legs: Vec<PostedLeg>,
}

/// What became of an order so far, read from the log.
pub(crate) struct OrderPast {
    pub(crate) order: OrderId,
    /// The order's word that this was read from.
    pub(crate) word: OrderWord,
    /// The effect that the request's own id had on the order.
    pub(crate) same: Option<Effect>,
    /// Who opened it.
    pub(crate) buyer: PrincipalId,
    /// Its cards: of its sale, or of its reservation if it was never sold.
    pub(crate) cards: Allocation,
    /// Where those were given to it.
    pub(crate) sold_at: Lsn,
    /// Whether it was sold without its codes.
    pub(crate) sealed: bool,
    /// Places in its sequence that are empty because their card came back, each by the card that was sold with it.
    pub(crate) returned: HashSet<CardRef>,
    /// How many entries brought cards back.
    pub(crate) returns: u32,
    /// Places in which another card stands than the one that was sold with it, each by that one.
    pub(crate) replaced: HashMap<CardRef, CardRef>,
    /// Where those that stand so came into their place.
    pub(crate) placed: HashMap<CardRef, Lsn>,
    /// How often cards were replaced.
    pub(crate) replacements: u32,
    /// When it was opened, and until when it was to be paid, milliseconds.
    pub(crate) opened_ms: u64,
    pub(crate) deadline_ms: u64,
    /// What its first entry says.
    pub(crate) facts: OrderFacts,
}

impl OrderPast {
    /// Whose purchase it is.
    pub(crate) fn buyer_of(&self, tenant: TenantId) -> Buyer {
        Buyer { tenant, account: AccountId(self.facts.account), ip: self.facts.ip, principal: self.buyer }
    }

    /// Its cards but for those that came back, in its sequence. A card that was replaced has the other in its place.
    pub(crate) fn own_cards(&self) -> impl Iterator<Item = CardRef> + '_ {
        let stands = |place: CardRef| self.replaced.get(&place).copied().unwrap_or(place);
        let places = self.cards.cards().map(|(place, _)| place);
        places.filter(|place| !self.returned.contains(place)).map(stands)
    }

    /// Where a card was given to it: with its sale, or in the place of another.
    pub(crate) fn given_at(&self, card: CardRef) -> Lsn {
        self.placed.get(&card).copied().unwrap_or(self.sold_at)
    }

    /// Whether it was given a card in the place of another.
    pub(crate) fn took_a_place(&self, card: CardRef) -> bool {
        self.placed.contains_key(&card)
    }

    /// Takes in what happened to its cards after they were sold, oldest first.
    pub(crate) fn follow(&mut self, changes: impl Iterator<Item = PlaceChange>) {
        // In which place a card stands that was not sold with it.
        let mut places: HashMap<CardRef, CardRef> = HashMap::new();
        for change in changes {
            match change {
                PlaceChange::Returned(cards) => {
                    let places = cards.cards().map(|(card, _)| places.remove(&card).unwrap_or(card));
                    self.returned.extend(places);
                }
                PlaceChange::Replaced(old, new, lsn) => {
                    let place = places.remove(&old).unwrap_or(old);
                    places.insert(new, place);
                    self.replaced.insert(place, new);
                    self.placed.insert(new, lsn);
                }
            }
        }
    }
}

/// What happened to cards of an order after they were sold.
pub(crate) enum PlaceChange {
    /// These came back.
    Returned(Allocation),
    /// The second took the place of the first, by the entry there.
    Replaced(CardRef, CardRef, Lsn),
}

/// The codes of up to [`Work::REQUESTS_MAX`] requests, to see one come up twice: a small open-addressing
/// set of halves of their digests, which are uniform. Two codes with one half pass for the same, which costs
/// a batch and no more.
pub struct CodeSet([u64; 256]);

impl Default for CodeSet {
    fn default() -> Self {
        CodeSet([0; 256])
    }
}

impl CodeSet {
    /// Forgets all.
    pub fn clear(&mut self) {
        self.0.fill(0);
    }

    /// Whether the code is new, be there such a card or not. None is once the set is full.
    #[inline]
    pub fn insert(&mut self, code: CardDigest) -> bool {
        // Zero is an empty place.
        let bits = code.spread().max(1);
        let first = (bits >> 56) as usize;
        for step in 0..self.0.len() {
            let place = &mut self.0[(first + step) % 256];
            if *place == 0 {
                *place = bits;
                return true;
            }
            if *place == bits {
                return false;
            }
        }
        false
    }
}
