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
//! Cards are taken last, when nothing else can refuse the order. Codes given out again are those that still
//! belong to the order, to its buyer alone, and every time is recorded before a code is decrypted. An order may
//! be *sealed*: sold without its codes, which its first ORDER_FETCH gives out. As long as that did not happen, its
//! cards can come back into stock.

pub(crate) mod list;
mod of_old;
mod purchase;

pub use purchase::{Confirmation, GivenBack, Line, ORDER_LINES_MAX, Purchase, RETURN_CARDS_MAX, RETURNS_MAX};
pub(crate) use purchase::{SHARED_PLAIN_MAX, units};

use kami_wal::{Lsn, planted};

use crate::account::{LEGS_MAX, Leg};
use crate::accounts::LegsRefused;
use crate::card::Effect;
use crate::command::{Command, ORDER_CARDS_MAX, Request};
use crate::grounds::Grounds;
use crate::identity::{AccountId, OrderId, PrincipalId, Role, TenantId};
use crate::limit::Exceeded;
use crate::limits::{Buyer, CROSSED_MAX, CROSSING_ENTRY_BYTES, Crossed};
use crate::orders::{OrderState, OrderWord, Reservation};
use crate::product::{CardKind, Money};
use crate::record::{
    Allocation, GROUP_HEAD_BYTES, GroupWriter, HEAD_BYTES, Head, Kind, OrderFacts, PostedLeg, REVEAL_BYTES,
    SharedUse,
};
use crate::reply::{OrderReport, Reply, ReplyBody, ReplyFlags};
use crate::sequencer::{Detail, OrderPast, Turn, Work};
use crate::state::OrderMove;
use crate::status::Status;
use crate::stock::{Search, Shared};
use crate::sync::coarse::{MutexGuard, thread};
use crate::table::Batch;
use crate::vault::CodeList;
use crate::word::{CardRef, Flags, Lifecycle, Word};

/// What a purchase asks for, however it was asked.
struct Wanted<'a> {
    kind: Kind,
    order: OrderId,
    lines: &'a [Line],
    validity_s_min: u32,
    account: Option<AccountId>,
    ip: u64,
    legs: &'a [Leg],
    sealed: bool,
    reserve_s: u32,
    /// Whether its lines are kept in its entry: not those of a plain sale, which the first version knows.
    plain: bool,
}

impl Wanted<'_> {
    /// Why it makes no sense.
    fn fault(&self) -> Option<Status> {
        let cards: u64 = self.lines.iter().map(|line| u64::from(line.count)).sum();
        let twice = |at: usize, line: &Line| {
            self.lines[..at].iter().any(|other| {
                other.product == line.product
                    && (other.face == line.face || other.face.is_none() || line.face.is_none())
            })
        };
        if self.lines.is_empty()
            || self.lines.len() > ORDER_LINES_MAX
            || self.legs.len() > LEGS_MAX
            || self.lines.iter().enumerate().any(|(at, line)| line.count == 0 || twice(at, line))
        {
            return Some(Status::Malformed);
        }
        (cards > u64::from(ORDER_CARDS_MAX)).then_some(Status::OrderTooLarge)
    }

    fn cards(&self) -> u32 {
        self.lines.iter().map(|line| line.count).sum()
    }
}

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
                let wanted = Wanted {
                    kind: Kind::Sell,
                    order: *order,
                    lines: &lines,
                    validity_s_min: *validity_s_min,
                    account: None,
                    ip: 0,
                    legs: &[],
                    sealed: false,
                    reserve_s: 0,
                    plain: true,
                };
                self.purchase(request, prepared.body, past, &wanted, search)
            }
            Command::SellLines(purchase) => {
                self.purchase(request, prepared.body, past, &wanted(Kind::Sell, purchase), search)
            }
            Command::Reserve(purchase) => {
                self.purchase(request, prepared.body, past, &wanted(Kind::Reserve, purchase), search)
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

    /// An order is its buyer's; operators look after all, and auditors and finance may look at all.
    fn may_see(&self, request: &Request, past: &OrderPast) -> bool {
        let caller = &request.caller;
        let own = past.buyer == caller.principal;
        match request.command {
            Command::OrderStatus(_) => {
                own || matches!(caller.role, Role::Admin | Role::Operator | Role::Finance | Role::Auditor)
            }
            _ => own || matches!(caller.role, Role::Admin | Role::Operator),
        }
    }

    /// What the request's id says, if the order has seen it.
    fn order_retry(&self, request: &Request, body: u32, past: &OrderPast, kinds: &[Kind]) -> Option<Retry> {
        let same = past.same?;
        let is_retry =
            kinds.contains(&same.kind) && same.body == body && same.principal == request.caller.principal;
        Some(if is_retry { Retry::Replay(same) } else { Retry::Reused })
    }

    /// SELL, SELL_LINES and RESERVE.
    fn purchase(
        &mut self,
        request: &Request,
        body: u32,
        past: Option<&OrderPast>,
        wanted: &Wanted<'_>,
        search: &mut Search,
    ) -> Reply {
        if let Some(past) = past {
            return match self.order_retry(request, body, past, &[wanted.kind]) {
                None => self.refuse(request, Status::AlreadyExists),
                Some(Retry::Reused) => self.refuse(request, Status::IdReused),
                Some(Retry::Replay(same)) => self.replay_order(request, past, same),
            };
        }
        if let Some(status) = wanted.fault() {
            return self.refuse(request, status);
        }
        let (tenant, count) = (request.caller.tenant, wanted.cards());
        let entry_bytes = if wanted.plain {
            OrderFacts::plain_entry_bytes_max(count)
        } else {
            OrderFacts::entry_bytes_max(count, wanted.lines.len(), wanted.legs.len())
        };
        let group_bytes = GROUP_HEAD_BYTES + entry_bytes + CROSSED_MAX * CROSSING_ENTRY_BYTES;
        if group_bytes > self.sequencer.wal.payload_bytes_max() {
            return self.refuse(request, Status::OrderTooLarge);
        }
        let mut reserve_s = u32::MAX;
        for line in wanted.lines {
            let Some(product) = self.state.product(line.product, tenant) else {
                return self.refuse(request, Status::NotFound);
            };
            if self.state.is_product_frozen(product) {
                return self.refuse(request, Status::Frozen);
            }
            let shared = product.product.spec.kind == CardKind::Shared;
            if shared && wanted.plain && count > SHARED_PLAIN_MAX {
                return self.refuse(request, Status::OrderTooLarge);
            }
            reserve_s = reserve_s.min(product.product.spec.terms.reserve_s);
        }
        let (account, principal) = (wanted.account.unwrap_or_default(), request.caller.principal);
        let buyer = Buyer { tenant, account, ip: wanted.ip, principal };
        let reserves = wanted.kind == Kind::Reserve;
        let mut crossed = Vec::new();
        if !wanted.plain {
            let checked = self.may_buy(request, &buyer, wanted.legs, &[]);
            if let Err(refused) = checked {
                return self.refuse_legs(request, refused);
            }
        }
        if let Err(exceeded) = self.within_limits(&buyer, wanted.lines, reserves, &mut crossed) {
            return self.refuse_exceeded(request, exceeded);
        }
        if planted("limit-outside-the-lock") {
            MutexGuard::unlocked(&mut self.state, || thread::sleep(std::time::Duration::from_millis(2)));
        }
        if !self.has_credit() {
            return self.refuse(request, self.short());
        }
        // Stock is taken last, when nothing else can be refused.
        search.clear();
        let table = &self.sequencer.table;
        let mut lines = wanted.lines.iter();
        let found = lines.all(|line| self.state.allocate(table, tenant, line, wanted.validity_s_min, search));
        self.state.pass_over(table, search);
        if !found {
            self.state.advance(search, false);
            return self.refuse(request, Status::OutOfStock);
        }
        let asked_s = if wanted.reserve_s == 0 { reserve_s } else { wanted.reserve_s.min(reserve_s) };
        let moment_ms = if reserves { self.state.now_ms + u64::from(asked_s) * 1000 } else { 0 };
        let mut facts = OrderFacts {
            account: buyer.account.0,
            validity_s_min: if reserves { wanted.validity_s_min } else { 0 },
            ip: wanted.ip,
            moment_ms,
            prev: 0,
            sealed: wanted.sealed,
            lines: std::mem::take(&mut search.lines),
            legs: std::mem::take(&mut search.legs),
        };
        facts.lines.clear();
        if !wanted.plain {
            facts.lines.extend_from_slice(wanted.lines);
        }
        self.state.accounts.posted(wanted.legs, &mut facts.legs);
        if reserves {
            // Nothing moves until it is paid: what an account has then, nobody knows yet.
            facts.legs.iter_mut().for_each(|posted| (posted.balance, posted.prev) = (0, None));
        }
        let subject = match wanted.lines {
            [line] => u64::from(line.product.0),
            _ => 0,
        };
        let lsn =
            self.record_order(request, body, wanted.order, wanted.kind, &facts, subject, &crossed, search);
        let buyer = request.caller.principal;
        let reply = if wanted.kind == Kind::Reserve {
            self.order_reply(request, lsn, wanted.order, buyer, &facts, count)
        } else {
            self.deliver(request, lsn, wanted.order, buyer, &facts, wanted.sealed, &search.cards)
        };
        (search.lines, search.legs) = (facts.lines, facts.legs);
        reply
    }

    /// Whether the caller may buy for the account, and move money so.
    fn may_buy(
        &self,
        request: &Request,
        buyer: &Buyer,
        legs: &[Leg],
        held: &[Leg],
    ) -> Result<(), LegsRefused> {
        if buyer.account != AccountId(0) {
            let refuse = |status| Err(LegsRefused { status, account: buyer.account });
            match self.state.accounts.find(buyer.account, buyer.tenant).map(|state| &state.account) {
                None => return refuse(Status::NotFound),
                // Or anybody could use up another's limits.
                Some(account) if !request.caller.may_debit(account) => return refuse(Status::Forbidden),
                Some(account) if account.frozen => return refuse(Status::Frozen),
                Some(_) => {}
            }
        }
        self.may_move(request, legs, held)
    }

    fn may_move(&self, request: &Request, legs: &[Leg], held: &[Leg]) -> Result<(), LegsRefused> {
        let caller = &request.caller;
        self.state.accounts.check(caller.tenant, legs, held, |account| caller.may_debit(account))
    }

    /// Whether limits allow it, and which alerts it is to record.
    fn within_limits(
        &self,
        buyer: &Buyer,
        lines: &[Line],
        reserves: bool,
        crossed: &mut Vec<Crossed>,
    ) -> Result<(), Exceeded> {
        if !reserves && self.state.limits.standing(buyer.tenant) == 0 {
            return Ok(());
        }
        self.state.limits.check(buyer, &units(lines), reserves, self.state.now_ms, crossed)
    }

    fn refuse_exceeded(&self, request: &Request, exceeded: Exceeded) -> Reply {
        self.reply(request, exceeded.status, None, ReplyBody::Exceeded(exceeded))
    }

    /// Legs as an entry has them.
    fn legs(&self, legs: &[Leg]) -> Vec<PostedLeg> {
        let mut posted = Vec::new();
        self.state.accounts.posted(legs, &mut posted);
        posted
    }

    /// CONFIRM: the reservation was paid.
    fn confirm(
        &mut self,
        request: &Request,
        body: u32,
        past: &OrderPast,
        confirmation: &Confirmation,
        search: &mut Search,
    ) -> Reply {
        match self.order_retry(request, body, past, &[Kind::Confirm, Kind::Realloc]) {
            None => {}
            Some(Retry::Reused) => return self.refuse(request, Status::IdReused),
            Some(Retry::Replay(same)) => return self.replay_order(request, past, same),
        }
        if confirmation.legs.len() > LEGS_MAX {
            return self.refuse(request, Status::Malformed);
        }
        let late = past.deadline_ms <= self.state.now_ms;
        match past.word.state() {
            OrderState::Sold | OrderState::Migrated => {
                return self.refuse(request, Status::IllegalTransition);
            }
            OrderState::Cancelled => return self.refuse(request, Status::OrderCancelled),
            OrderState::Reserved | OrderState::TimedOut if late && !confirmation.realloc => {
                return self.refuse(request, Status::ReservationExpired);
            }
            OrderState::Reserved | OrderState::TimedOut => {}
        }
        let found = match past.word.state() {
            OrderState::Reserved => self.reserved_cards(past, search),
            _ => self.take_again(request.caller.tenant, past, search),
        };
        if let Err(status) = found {
            self.state.advance(search, false);
            return self.refuse(request, status);
        }
        let kind = if past.word.state() == OrderState::Reserved { Kind::Confirm } else { Kind::Realloc };
        let agreed: Vec<Leg> = past.facts.legs.iter().map(|posted| posted.leg).collect();
        let legs = if confirmation.legs.is_empty() { &agreed } else { &confirmation.legs };
        // What was set aside does not stand against itself; after a time-out nothing is.
        let held = if kind == Kind::Confirm { &agreed[..] } else { &[] };
        let buyer = past.buyer_of(request.caller.tenant);
        if let Err(refused) = self.may_buy(request, &buyer, legs, held) {
            return self.refuse_legs(request, refused);
        }
        let mut crossed = Vec::new();
        // A reservation was counted when it was made; one that timed out was given back.
        if kind == Kind::Realloc
            && let Err(exceeded) = self.within_limits(&buyer, &past.facts.lines, false, &mut crossed)
        {
            return self.refuse_exceeded(request, exceeded);
        }
        let facts = OrderFacts {
            account: past.facts.account,
            ip: past.facts.ip,
            prev: past.word.bits(),
            sealed: confirmation.sealed,
            lines: if kind == Kind::Realloc { past.facts.lines.clone() } else { Vec::new() },
            legs: self.legs(legs),
            ..OrderFacts::default()
        };
        if !self.fits(request, &facts, crossed.len(), &search.cards) {
            return self.refuse(request, Status::OrderTooLarge);
        }
        if !self.has_credit() {
            return self.refuse(request, self.short());
        }
        let lsn = self.record_order(request, body, confirmation.order, kind, &facts, 0, &crossed, search);
        let (order, sealed) = (confirmation.order, confirmation.sealed);
        self.deliver(request, lsn, order, past.buyer, &past.facts, sealed, &search.cards)
    }

    /// The cards that a reservation holds, as they are now; the reason if one of them cannot be sold.
    fn reserved_cards(&self, past: &OrderPast, search: &mut Search) -> Result<(), Status> {
        search.clear();
        for (card, _) in past.cards.cards() {
            let batch = self.sequencer.table.batch_of(card).expect("an order's cards are committed");
            let word = batch.word(card.row());
            let view = self.state.view(batch, card.row(), word);
            match word.lifecycle() {
                Lifecycle::Reserved => {}
                // Of a card that is sold many times a use is reserved, and not the card.
                Lifecycle::Available | Lifecycle::Sold if batch.kind == CardKind::Shared => {}
                Lifecycle::Voided if batch.kind == CardKind::Shared => return Err(Status::Voided),
                _ => return Err(Status::IllegalTransition),
            }
            if view.is_frozen() {
                return Err(Status::Frozen);
            }
            if view.batch_voided {
                return Err(Status::Voided);
            }
            if view.expires_ms != 0 && view.expires_ms <= self.state.now_ms {
                return Err(Status::Expired);
            }
            self.add_card(batch, card, word, search);
        }
        Ok(())
    }

    /// Cards for a payment that came too late: the same if they are all free, else equal ones.
    fn take_again(&mut self, tenant: TenantId, past: &OrderPast, search: &mut Search) -> Result<(), Status> {
        search.clear();
        // They must last as long as was asked when they were reserved, from now on.
        let validity_s_min = past.facts.validity_s_min;
        let valid_until = self.state.now_ms + u64::from(validity_s_min) * 1000;
        let same_free = past.cards.cards().all(|(card, _)| {
            let batch = self.sequencer.table.batch_of(card).expect("an order's cards are committed");
            let word = batch.word(card.row());
            let view = self.state.view(batch, card.row(), word);
            self.add_card(batch, card, word, search);
            let lasts = view.expires_ms == 0 || view.expires_ms > valid_until;
            let free = match self.state.stock(batch.id).shared() {
                Some(shared) => {
                    shared.room(card.row()) > 0 && Shared::is_for_sale(word) && !view.batch_voided
                }
                None => view.lifecycle() == Lifecycle::Available,
            };
            free && !view.is_frozen() && lasts
        });
        if same_free {
            return Ok(());
        }
        search.clear();
        let table = &self.sequencer.table;
        let mut lines = past.facts.lines.iter();
        let enough = lines.all(|line| self.state.allocate(table, tenant, line, validity_s_min, search));
        self.state.pass_over(table, search);
        if enough { Ok(()) } else { Err(Status::ReservationExpired) }
    }

    /// CANCEL and the time-out.
    fn give_up(
        &mut self,
        request: &Request,
        body: u32,
        past: &OrderPast,
        kind: Kind,
        search: &mut Search,
    ) -> Reply {
        let order = request.command.order().expect("the caller matched the command");
        if kind == Kind::Cancel {
            match self.order_retry(request, body, past, &[Kind::Cancel]) {
                None => {}
                Some(Retry::Reused) => return self.refuse(request, Status::IdReused),
                Some(Retry::Replay(same)) => return self.replay_order(request, past, same),
            }
        } else if self.state.now_ms < past.deadline_ms {
            return self.refuse(request, Status::IllegalTransition);
        }
        match past.word.state() {
            OrderState::Reserved => {}
            OrderState::Sold | OrderState::Migrated => {
                return self.refuse(request, Status::IllegalTransition);
            }
            OrderState::Cancelled => return self.refuse(request, Status::OrderCancelled),
            OrderState::TimedOut => return self.refuse(request, Status::ReservationExpired),
        }
        if !self.has_credit() {
            return self.refuse(request, self.short());
        }
        search.clear();
        for (card, _) in past.cards.cards() {
            let batch = self.sequencer.table.batch_of(card).expect("an order's cards are committed");
            let word = batch.word(card.row());
            debug_assert!(
                word.lifecycle() == Lifecycle::Reserved || batch.kind == CardKind::Shared,
                "a reserved card moves with its order"
            );
            self.add_card(batch, card, word, search);
        }
        let facts = OrderFacts {
            account: past.facts.account,
            ip: past.facts.ip,
            // What limits are given back by, whatever became of the reservation in a snapshot.
            moment_ms: past.opened_ms,
            prev: past.word.bits(),
            lines: past.facts.lines.clone(),
            ..OrderFacts::default()
        };
        // It takes no more than its RESERVE might, which had to fit: it has the same cards and lines and no legs.
        debug_assert!(self.fits(request, &facts, 0, &search.cards), "a reservation that cannot end");
        let lsn = self.record_order(request, body, order, kind, &facts, 0, &[], search);
        self.order_reply(request, lsn, order, past.buyer, &past.facts, past.cards.count())
    }

    /// RETURN: sold cards come back. Those whose code nobody saw go into stock again.
    fn take_back(
        &mut self,
        request: &Request,
        body: u32,
        past: &OrderPast,
        given: &GivenBack,
        cards: &[Option<CardRef>],
        search: &mut Search,
    ) -> Reply {
        match self.order_retry(request, body, past, &[Kind::Return]) {
            None => {}
            Some(Retry::Reused) => return self.refuse(request, Status::IdReused),
            Some(Retry::Replay(same)) => return self.replay_order(request, past, same),
        }
        match past.word.state() {
            OrderState::Sold => {}
            OrderState::Cancelled => return self.refuse(request, Status::OrderCancelled),
            OrderState::Reserved | OrderState::TimedOut | OrderState::Migrated => {
                return self.refuse(request, Status::IllegalTransition);
            }
        }
        if given.cards.len() > RETURN_CARDS_MAX || given.legs.len() > LEGS_MAX {
            return self.refuse(request, Status::Malformed);
        }
        if past.returns >= RETURNS_MAX && !given.cards.is_empty() {
            return self.refuse(request, Status::ReturnsExhausted);
        }
        let asked = given.cards.is_empty() || cards.iter().all(Option::is_some);
        if !asked {
            return self.refuse(request, Status::NotFound);
        }
        search.clear();
        let mut seen = past.word.is_fetched();
        for card in past.own_cards() {
            if !given.cards.is_empty() && !cards.contains(&Some(card)) {
                continue;
            }
            let batch = self.sequencer.table.batch_of(card).expect("an order's cards are committed");
            let word = batch.word(card.row());
            let shared = batch.kind == CardKind::Shared;
            if word.lifecycle() != Lifecycle::Sold || !shared && word.flags().contains(Flags::HELD) {
                if given.cards.is_empty() && !word.belongs_to_order() {
                    continue;
                }
                return self.refuse(request, Status::IllegalTransition);
            }
            if shared {
                // What others did with their uses of it is none of this order's.
                let unused = Money::from(self.state.shared_row(batch, card.row()).unused());
                if unused <= self.state.holds.of(card, self.state.now_ms).amount {
                    return self.refuse(request, Status::UsesExhausted);
                }
                seen |= !past.sealed;
            } else {
                seen |= self.was_seen(past, batch, card, word);
            }
            self.add_card(batch, card, word, search);
        }
        let count = search.cards.count();
        if count == 0 || (!given.cards.is_empty() && count as usize != given.cards.len()) {
            return self.refuse(request, Status::NotFound);
        }
        if let Err(refused) = self.may_move(request, &given.legs, &[]) {
            return self.refuse_legs(request, refused);
        }
        let facts = OrderFacts {
            account: past.facts.account,
            ip: past.facts.ip,
            prev: past.word.bits(),
            // Whose codes nobody has seen come back into stock.
            sealed: !seen,
            legs: self.legs(&given.legs),
            ..OrderFacts::default()
        };
        if !self.fits(request, &facts, 0, &search.cards) {
            return self.refuse(request, Status::OrderTooLarge);
        }
        if !self.has_credit() {
            return self.refuse(request, self.short());
        }
        let lsn = self.record_order(request, body, given.order, Kind::Return, &facts, 0, &[], search);
        self.order_reply(request, lsn, given.order, past.buyer, &past.facts, count)
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

    /// Whether somebody saw the code of a card of this order. A card is named by its code: what moved it since its sale,
    /// as a redemption that was reversed or a hold that was released, somebody asked for who had the code, and so had
    /// whoever tried its PIN or reported it from offline. What is on a card used in parts that took the place of another
    /// was on that one, whose code somebody had who used it: it is no new card, and never one in stock again.
    fn was_seen(&self, past: &OrderPast, batch: &Batch, card: CardRef, word: Word) -> bool {
        word.flags().contains(Flags::REVEALED)
            || batch.kind != CardKind::Single && past.took_a_place(card)
            || word.lsn() != Some(past.given_at(card))
            || self.state.exceptions.is_of(card)
            || self.state.pins.is_locked_for_any(card, self.state.now_ms)
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

    /// The reply of a sale: its codes, or that it was made.
    #[expect(clippy::too_many_arguments, reason = "they are the reply's parts")]
    fn deliver(
        &self,
        request: &Request,
        lsn: Lsn,
        order: OrderId,
        buyer: PrincipalId,
        facts: &OrderFacts,
        sealed: bool,
        cards: &Allocation,
    ) -> Reply {
        let total = cards.count();
        if sealed {
            return self.order_reply(request, lsn, order, buyer, facts, total);
        }
        let list = CodeList {
            order,
            total,
            from: 0,
            count: total,
            durable_at: self.sequencer.wal.tail(),
            cards: cards.clone(),
        };
        self.reply(request, Status::Ok, Some(lsn), ReplyBody::Cards(list))
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

    /// ORDER_FETCH: gives out codes of an order.
    fn fetch(&mut self, request: &Request, past: &OrderPast) -> Reply {
        let &Command::OrderFetch { from, count, .. } = &request.command else {
            unreachable!("the caller matched the command")
        };
        let grounds = match self.may_fetch(request, past) {
            Ok(grounds) => grounds,
            Err(status) => return self.refuse(request, status),
        };
        match past.word.state() {
            OrderState::Sold => {
                let grounds = grounds.as_deref();
                self.reveal_again(request, grounds, past, (from, count), ReplyFlags::default())
            }
            OrderState::Reserved => self.refuse(request, Status::NotSold),
            OrderState::Cancelled => self.refuse(request, Status::OrderCancelled),
            OrderState::TimedOut => self.refuse(request, Status::ReservationExpired),
            OrderState::Migrated => self.refuse(request, Status::Migrated),
        }
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

    /// Records that codes of an order are given out again, and lists those that still belong to it.
    fn reveal_again(
        &mut self,
        request: &Request,
        grounds: Option<&Grounds>,
        past: &OrderPast,
        (from, count): (u32, u32),
        flags: ReplyFlags,
    ) -> Reply {
        if !self.has_credit() {
            return self.refuse(request, self.short());
        }
        let mut list = CodeList {
            order: past.order,
            total: 0,
            from,
            count: 0,
            durable_at: past.word.lsn(),
            cards: Allocation::default(),
        };
        for card in past.own_cards() {
            let batch = self.sequencer.table.batch_of(card).expect("a sale's cards are committed");
            if !batch.word(card.row()).belongs_to_order() {
                continue;
            }
            if list.total >= from && list.count < count {
                list.cards.push(card, Word::PRISTINE);
                list.count += 1;
            }
            list.total += 1;
        }
        let first = past.sealed && !past.word.is_fetched();
        let prev = if first { past.word.bits() } else { 0 };
        let head = request.head(Kind::Reveal, request.body());
        let tail_bytes = if first { REVEAL_BYTES + 8 } else { REVEAL_BYTES };
        let lsn = self.append(HEAD_BYTES + tail_bytes + grounds.map_or(0, Grounds::bytes), |group| {
            group.push_on(&head, grounds, tail_bytes, |tail| {
                tail[..16].copy_from_slice(&past.order.0.to_le_bytes());
                tail[16..20].copy_from_slice(&from.to_le_bytes());
                tail[20..24].copy_from_slice(&list.count.to_le_bytes());
                tail[24..].copy_from_slice(&prev.to_le_bytes()[..tail_bytes - REVEAL_BYTES]);
            })
        });
        if first {
            let key = (request.caller.tenant, past.order);
            self.state.orders.put(key, OrderWord::new(lsn, OrderState::Sold, true));
        }
        list.durable_at = self.sequencer.wal.tail();
        let mut reply = self.reply(request, Status::Ok, Some(past.sold_at), ReplyBody::Cards(list));
        reply.flags = flags;
        reply
    }
}

/// What an id says that an order has seen.
enum Retry {
    /// This is the effect it had.
    Replay(Effect),
    /// It was another request's.
    Reused,
}

fn wanted(kind: Kind, purchase: &Purchase) -> Wanted<'_> {
    Wanted {
        kind,
        order: purchase.order,
        lines: &purchase.lines,
        validity_s_min: purchase.validity_s_min,
        account: purchase.account,
        ip: purchase.ip,
        legs: &purchase.legs,
        sealed: purchase.sealed,
        reserve_s: purchase.reserve_s,
        plain: false,
    }
}

impl Reservation {
    /// What is kept of a RESERVE.
    pub(crate) fn of(principal: PrincipalId, cards: u32, facts: &OrderFacts) -> Reservation {
        Reservation {
            principal,
            deadline_ms: facts.moment_ms,
            account: (facts.account != 0).then_some(AccountId(facts.account)),
            ip: facts.ip,
            cards,
            legs: facts.legs.iter().map(|leg| leg.leg).collect(),
        }
    }
}
