//! Orders: taking cards for a buyer, having them paid, selling them, taking them back, and giving their codes out.
//!
//! An order is the target of the ids that move it, and its entries chain as a card's do. Each is one record,
//! whatever its size, so after any crash it happened as a whole or not at all.
//!
//! | command | order | cards |
//! |---|---|---|
//! | SELL, SELL_LINES | → SOLD | AVAILABLE → SOLD |
//! | RESERVE | → RESERVED | AVAILABLE → RESERVED |
//! | CONFIRM | RESERVED → SOLD | RESERVED → SOLD |
//! | CONFIRM, late | TIMED_OUT → SOLD | AVAILABLE → SOLD: the same if all are free, else equal ones |
//! | CANCEL | RESERVED → CANCELLED | RESERVED → AVAILABLE |
//! | time-out | RESERVED → TIMED_OUT | RESERVED → AVAILABLE |
//! | RETURN | SOLD | SOLD → AVAILABLE if the code was never seen, else → RETURNED |
//! | ORDER_FETCH | SOLD | – |
//!
//! SELL and RESERVE stand in `sale.rs`, what becomes of a reservation in `reservation.rs`, RETURN in `given_back.rs`,
//! codes that are given out in `reveal.rs`; here is what they have in common: whose order it is, what a retry is, the
//! record and the reply.
//!
//! Cards are taken last, when nothing else can refuse the order. Codes given out again are those that still
//! belong to the order, to its buyer alone, and every time is recorded before a code is decrypted. An order may
//! be *sealed*: sold without its codes, which its first ORDER_FETCH gives out. As long as that did not happen, its
//! cards can come back into stock.

mod given_back;
pub(crate) mod list;
mod of_old;
mod purchase;
mod reservation;
mod reveal;
mod sale;

pub use purchase::{Confirmation, GivenBack, Line, ORDER_LINES_MAX, Purchase, RETURN_CARDS_MAX, RETURNS_MAX};
pub(crate) use purchase::{SHARED_PLAIN_MAX, units};

use kami_wal::Lsn;

use self::sale::Wanted;
use crate::account::Leg;
use crate::accounts::LegsRefused;
use crate::card::Effect;
use crate::command::{Command, Request};
use crate::grounds::Grounds;
use crate::identity::{AccountId, BatchId, OrderId, PrincipalId, Role};
use crate::limits::{CROSSING_ENTRY_BYTES, Crossed};
use crate::product::CardKind;
use crate::record::{
    Allocation, GROUP_HEAD_BYTES, GroupWriter, HEAD_BYTES, Head, Kind, OrderFacts, PostedLeg, SharedUse,
};
use crate::reply::{OrderReport, Reply, ReplyBody, ReplyFlags};
use crate::sequencer::{Detail, OrderPast, Turn, Work};
use crate::state::OrderMove;
use crate::status::Status;
use crate::stock::Search;
use crate::table::Batch;
use crate::word::{CardRef, Flags, Lifecycle, Word};

impl Turn<'_> {
    /// A command about an order. `None` if it has to be read first.
    pub(crate) fn order(&mut self, work: &mut Work, at: usize) -> Option<Reply> {
        let Work { requests, prepared, search, .. } = work;
        let (request, prepared) = (&requests[at], &prepared[at]);
        let key = (request.caller.tenant, request.command.order().expect("the caller matched the command"));
        let known = self.state.orders.find(&key);
        let past = match (&prepared.detail, known) {
            (Detail::Order(past), Some(word)) if past.word == word => Some(&**past),
            (_, Some(_)) => return None,
            (_, None) => None,
        };
        let table = &self.sequencer.table;
        if known.is_none() && table.has_orders_of_old() {
            if prepared.absent_at != Some(table.commits()) {
                return None;
            }
            if let Detail::OrderOfOld(report) = &prepared.detail {
                return Some(self.answer_of_old(request, report));
            }
        }
        let reply = match &request.command {
            Command::Sell { order, product, count, validity_s_min } => {
                let lines = [Line { product: *product, count: *count, face: None }];
                let wanted = Wanted::plain(*order, &lines, *validity_s_min);
                self.purchase(request, prepared.body, past, &wanted, search)
            }
            Command::SellLines(purchase) => {
                self.purchase(request, prepared.body, past, &Wanted::of(Kind::Sell, purchase), search)
            }
            Command::Reserve(purchase) => {
                self.purchase(request, prepared.body, past, &Wanted::of(Kind::Reserve, purchase), search)
            }
            Command::OutcomeOfOrder { .. } => self.outcome_of_order(request, past),
            _ => match past {
                Some(past) if let Command::OrderFetch { .. } = request.command => self.fetch(request, past),
                // Whose order it is, is not told either.
                Some(past) if self.may_see(request, past) => match &request.command {
                    Command::OrderStatus(_) => self.show_order(request, past),
                    Command::Confirm(confirmation) => {
                        self.confirm(request, prepared.body, past, confirmation, search)
                    }
                    Command::Cancel(_) => self.give_up(request, prepared.body, past, Kind::Cancel, search),
                    Command::ReserveTimeout(_) => {
                        self.give_up(request, prepared.body, past, Kind::ReserveTimeout, search)
                    }
                    Command::Return(given) => {
                        self.take_back(request, prepared.body, past, given, &prepared.cards, search)
                    }
                    _ => unreachable!("the caller matched the command"),
                },
                _ => self.refuse(request, Status::NotFound),
            },
        };
        Some(reply)
    }

    /// An order is its buyer's; operators look after all within their scope, and auditors and finance may look at those.
    fn may_see(&self, request: &Request, past: &OrderPast) -> bool {
        let caller = &request.caller;
        let role_may = match request.command {
            Command::OrderStatus(_) => {
                matches!(caller.role, Role::Admin | Role::Operator | Role::Finance | Role::Auditor)
            }
            _ => matches!(caller.role, Role::Admin | Role::Operator),
        };
        past.buyer == caller.principal || role_may && self.scope_covers(caller.principal, past)
    }

    /// Whether all cards of an order are within the principal's scope.
    pub(crate) fn scope_covers(&self, principal: PrincipalId, past: &OrderPast) -> bool {
        let scope = self.state.scope(principal).unwrap_or_default();
        let is_covered = |batch: u32| {
            let batch = self.sequencer.table.batch(BatchId(batch));
            batch.is_some_and(|batch| scope.covers(batch.product))
        };
        scope.is_all() || past.cards.runs().all(|run| is_covered(run.first.batch()))
    }

    /// What the request's id says, if the order has seen it.
    fn order_retry(&self, request: &Request, body: u32, past: &OrderPast, kinds: &[Kind]) -> Option<Retry> {
        let same = past.same?;
        let is_retry =
            kinds.contains(&same.kind) && same.body == body && same.principal == request.caller.principal;
        Some(if is_retry { Retry::Replay(same) } else { Retry::Reused })
    }

    fn may_move(&self, request: &Request, legs: &[Leg], held: &[Leg]) -> Result<(), LegsRefused> {
        let caller = &request.caller;
        self.state.accounts.check(caller.tenant, legs, held, |account| caller.may_debit(account))
    }

    /// Legs as an entry has them.
    fn legs(&self, legs: &[Leg]) -> Vec<PostedLeg> {
        let mut posted = Vec::new();
        self.state.accounts.posted(legs, &mut posted);
        posted
    }

    /// Adds a card that an order has already to what its next entry moves.
    fn add_card(&self, batch: &Batch, card: CardRef, word: Word, search: &mut Search) {
        if batch.kind == CardKind::Shared {
            let before = self.state.shared_row(batch, card.row()).order;
            search.cards.shared.push(SharedUse { card, word, before });
        } else {
            search.cards.push(card, word);
        }
    }

    /// Whether one record can hold what becomes of an order that is known. It was sold in a form that may be shorter,
    /// and its cards may lie apart by now.
    fn fits(&self, request: &Request, facts: &OrderFacts, crossed: usize, cards: &Allocation) -> bool {
        let entry = HEAD_BYTES + facts.tail_bytes(cards) + request.grounds_bytes();
        let bytes = GROUP_HEAD_BYTES + entry + crossed * CROSSING_ENTRY_BYTES;
        bytes <= self.sequencer.wal.payload_bytes_max()
    }

    /// Records that an order moves the cards that were found, and moves them.
    #[expect(clippy::too_many_arguments, reason = "they are the entry's parts")]
    fn record_order(
        &mut self,
        request: &Request,
        body: u32,
        order: OrderId,
        kind: Kind,
        facts: &OrderFacts,
        subject: u64,
        crossed: &[Crossed],
        search: &mut Search,
    ) -> Lsn {
        self.record_order_behind(None, request, body, order, kind, facts, subject, crossed, search)
    }

    /// The same in one group with an approval before it, if there is one. Returns where the first of them stands.
    #[expect(clippy::too_many_arguments, reason = "they are the entry's parts")]
    pub(crate) fn record_order_behind(
        &mut self,
        approval: Option<(&Head, Option<&Grounds>)>,
        request: &Request,
        body: u32,
        order: OrderId,
        kind: Kind,
        facts: &OrderFacts,
        subject: u64,
        crossed: &[Crossed],
        search: &mut Search,
    ) -> Lsn {
        let (lifecycle, flags) = OrderMove::post(kind, facts.sealed);
        // Orders are listed by walking down the entries that opened them.
        let before = self.state.order_head(request.caller.tenant).filter(|_| list::opens(kind));
        let prev = before.map_or(0, |before| Word::new(before, Lifecycle::Available, Flags::NONE).bits());
        let post = Word::state_of(lifecycle, flags);
        let head = Head { post, subject, prev, ..request.head(kind, body) };
        let tail_bytes = facts.tail_bytes(&search.cards);
        let mut crossed_at = Vec::with_capacity(crossed.len());
        let before = approval.map_or(0, |(_, grounds)| HEAD_BYTES + grounds.map_or(0, Grounds::bytes));
        let bytes = HEAD_BYTES + tail_bytes + crossed.len() * CROSSING_ENTRY_BYTES + request.grounds_bytes();
        let grounds = request.grounds.as_deref();
        let mut first = None;
        let lsn = self.append(before + bytes, |group| {
            if let Some((head, grounds)) = approval {
                first = Some(group.push_on(head, grounds, 0, |_| ()));
            }
            let mut record_crossed = |group: &mut GroupWriter<'_>| {
                crossed_at.extend(crossed.iter().map(|crossed| crossed.record(&head, group)));
            };
            // Behind so large an order nothing can begin: there they stand before it.
            let reaches = group.reaches(bytes);
            if !reaches {
                record_crossed(group);
            }
            let lsn =
                group.push_on(&head, grounds, tail_bytes, |tail| facts.encode(order, &search.cards, tail));
            if reaches {
                record_crossed(group);
            }
            lsn
        });
        let key = (request.caller.tenant, order);
        let (time_ms, principal) = (self.state.now_ms, request.caller.principal);
        // In the order of the log, as replay does: a subject takes nothing that lies before its last.
        let (before, behind): (Vec<_>, Vec<_>) =
            crossed.iter().zip(crossed_at).partition(|(_, at)| *at < lsn);
        for (crossed, at) in before {
            self.state.limits.mark_crossed(key.0, crossed, time_ms, at);
        }
        let moved = OrderMove { kind, lsn, time_ms, key, principal, cards: &search.cards, facts };
        let closed = self.state.apply_order(&self.sequencer.table, &moved);
        let closed = closed.expect("its accounts were checked under the same hold of the lock");
        if closed.is_some() || kind == Kind::Reserve {
            self.state.set_aside(key, closed.as_ref());
        }
        for (crossed, at) in behind {
            self.state.limits.mark_crossed(key.0, crossed, time_ms, at);
        }
        self.state.advance(search, true);
        first.unwrap_or(lsn)
    }

    /// The reply of the first time, once more.
    fn replay_order(&mut self, request: &Request, past: &OrderPast, same: Effect) -> Reply {
        let delivers = matches!(same.kind, Kind::Sell | Kind::Confirm | Kind::Realloc) && !past.sealed;
        if delivers {
            let grounds = request.grounds.as_deref();
            return self.reveal_again(request, grounds, past, (0, u32::MAX), ReplyFlags::REPLAYED);
        }
        let mut reply = self.show_order(request, past);
        reply.lsn = Some(same.lsn);
        reply.time_ms = same.time_ms;
        reply.flags = ReplyFlags::REPLAYED;
        reply
    }

    /// ORDER_STATUS.
    fn show_order(&self, request: &Request, past: &OrderPast) -> Reply {
        self.order_reply(
            request,
            past.word.lsn(),
            past.order,
            past.buyer,
            &past.facts,
            past.own_cards().count() as u32,
        )
    }

    fn order_reply(
        &self,
        request: &Request,
        lsn: Lsn,
        order: OrderId,
        buyer: PrincipalId,
        facts: &OrderFacts,
        cards: u32,
    ) -> Reply {
        let word =
            self.state.orders.find(&(request.caller.tenant, order)).expect("it was just moved or read");
        let report = OrderReport {
            order,
            state: word.state(),
            fetched: word.is_fetched(),
            buyer,
            account: AccountId(facts.account),
            cards,
            deadline_ms: facts.moment_ms,
            lines: facts.lines.clone(),
        };
        self.reply(request, Status::Ok, Some(lsn), ReplyBody::Order(Box::new(report)))
    }
}

/// What an id says that an order has seen.
enum Retry {
    /// This is the effect it had.
    Replay(Effect),
    /// It was another request's.
    Reused,
}
