//! The past of what is no card: an order, an account, a document, a product and the like.
//!
//! # Invariants
//! * Each chain falls: an entry names one that stands before it, or reading ends with an error and not in a circle.
//! * An order has as many entries as its bounds allow, and of an account one page of lines is read. A product or batch that
//!   was frozen and thawed many times has them all read: only people who manage them do that.

use std::collections::{HashMap, HashSet};

use kami_wal::Lsn;

use super::{Chain, ChainError};
use crate::account::LEGS_MAX;
use crate::card::{Effect, Past};
use crate::identity::{AccountId, OrderId, PrincipalId, RequestId};
use crate::orders::OrderWord;
use crate::record::{Allocation, Entry, FormatError, Kind, OrderFacts};
use crate::reply::StatementLine;
use crate::sequencer::{OrderPast, PlaceChange};

impl Chain<'_> {
    /// What became of an order whose word is `word`, and what it says about a request.
    ///
    /// # Errors
    /// See [`ChainError`].
    pub fn order(
        &mut self,
        order: OrderId,
        word: OrderWord,
        request: RequestId,
    ) -> Result<OrderPast, ChainError> {
        let mut past = OrderPast {
            order,
            word,
            same: None,
            buyer: PrincipalId(0),
            cards: Allocation::default(),
            sold_at: word.lsn(),
            sealed: false,
            returned: HashSet::new(),
            returns: 0,
            replaced: HashMap::new(),
            placed: HashMap::new(),
            replacements: 0,
            opened_ms: 0,
            deadline_ms: 0,
            facts: OrderFacts::default(),
        };
        let mut owned = false;
        let mut changes = Vec::new();
        let mut next = Some(word);
        while let Some(word) = next {
            let lsn = word.lsn();
            let entry = self.entry(lsn)?;
            let head = &entry.head;
            // A time-out is the engine's own, and has no id; that of a replacement belongs to the card.
            let has_id = !matches!(head.kind, Kind::ReserveTimeout | Kind::Replace);
            if head.request == request && has_id {
                past.same = Some(Effect::of(&entry));
            }
            (past.buyer, past.opened_ms) = (head.principal, entry.time_ms);
            let prev = if head.kind == Kind::Reveal {
                entry.first_reveal().unwrap_or(0)
            } else if head.kind == Kind::Replace {
                let pair = entry.pair()?;
                if pair.order != order {
                    return Err(FormatError { what: "an order's chain leads to another order", lsn }.into());
                }
                past.replacements += 1;
                changes.push(PlaceChange::Replaced(entry.card(), pair.other, entry.end()));
                pair.link
            } else {
                let (named, cards, facts) = entry.order()?;
                if named != order {
                    return Err(FormatError { what: "an order's chain leads to another order", lsn }.into());
                }
                let prev = facts.prev;
                match head.kind {
                    Kind::Return => {
                        past.returns += 1;
                        changes.push(PlaceChange::Returned(cards));
                    }
                    Kind::Sell | Kind::Export | Kind::Reserve | Kind::Confirm | Kind::Realloc if !owned => {
                        owned = true;
                        (past.cards, past.sold_at, past.sealed) = (cards, lsn, facts.sealed);
                    }
                    _ => {}
                }
                past.facts = facts;
                prev
            };
            next = OrderWord::from_bits(prev);
            if next.is_some_and(|next| next.lsn() >= lsn) {
                return Err(FormatError { what: "an order's chain does not fall", lsn }.into());
            }
        }
        past.deadline_ms = past.facts.moment_ms;
        past.follow(changes.into_iter().rev());
        Ok(past)
    }

    /// What the entries of a batch, product or principal say about a request: these chain by `prev`.
    ///
    /// # Errors
    /// See [`ChainError`].
    pub fn object_past(&mut self, last: Lsn, request: RequestId) -> Result<Past, ChainError> {
        let mut next = Some(last);
        while let Some(lsn) = next {
            let entry = self.entry(lsn)?;
            let head = &entry.head;
            if head.request == request {
                let effect = Effect::of(&entry);
                return Ok(Past { same: Some(effect), ..Past::default() });
            }
            next = entry.prev().lsn();
            if next >= Some(lsn) {
                return Err(FormatError { what: "an object's chain does not fall", lsn }.into());
            }
        }
        Ok(Past::default())
    }

    /// Up to `count` lines of the statement of an account, newest first, from its entry at `from` on; and
    /// where the next one stands.
    ///
    /// # Errors
    /// See [`ChainError`]; also if the entry at `from` moved no money of this account.
    pub fn statement(
        &mut self,
        account: AccountId,
        from: Option<Lsn>,
        count: u32,
    ) -> Result<(Vec<StatementLine>, Option<Lsn>), ChainError> {
        let mut lines = Vec::new();
        let mut next = from;
        while let Some(lsn) = next
            && lines.len() < count as usize
        {
            let entry = self.entry(lsn)?;
            let (related, legs) = entry.money()?;
            debug_assert!(legs.len() <= LEGS_MAX, "decoding bounds them");
            let own: Vec<_> = legs.iter().filter(|posted| posted.leg.account == account).collect();
            let Some(last) = own.last() else {
                return Err(FormatError { what: "an entry without money of the account", lsn }.into());
            };
            if last.prev >= Some(lsn) {
                return Err(FormatError { what: "an account's chain does not fall", lsn }.into());
            }
            lines.push(StatementLine {
                lsn,
                time_ms: entry.time_ms,
                kind: entry.head.kind,
                principal: entry.head.principal,
                channel: entry.head.channel,
                related,
                amount: own.iter().fold(0, |sum, posted| sum.saturating_add(posted.leg.amount)),
                balance: last.balance,
            });
            next = last.prev;
        }
        Ok((lines, next))
    }

    /// What the entry at `lsn` did and with which request, and the entry.
    ///
    /// # Errors
    /// See [`ChainError`].
    pub fn effect(&mut self, lsn: Lsn) -> Result<(Effect, RequestId, Entry<'_>), ChainError> {
        let entry = self.entry(lsn)?;
        let head = &entry.head;
        let (effect, request) = (Effect::of(&entry), head.request);
        Ok((effect, request, entry))
    }
}
