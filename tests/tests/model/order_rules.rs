//! The oracle's rules for orders.

mod change;
mod list;

use kami_engine::{
    AccountId, CardKind, CardRef, Flags, Kind, LEGS_MAX, Leg, Lifecycle, Line, ORDER_CARDS_MAX,
    ORDER_LINES_MAX, OrderId, OrderReport, OrderState, ProductId, Purchase, RETURN_CARDS_MAX, ReplyFlags,
    Role, Status,
};

use super::expected::{At, Body, Expected, Listed};
use super::oracle::{Effect, Event, Oracle, Order, OrderChange, Place};
use super::rules::Verdict;
use crate::ask::{Ask, What};

impl Oracle {
    pub fn on_order(&self, ask: &Ask, payload_bytes: u64) -> Verdict {
        match &ask.what {
            &What::Sell { order, product, count, validity_s_min } => {
                let plain =
                    Purchase { validity_s_min, ..Purchase::of(OrderId(order), ProductId(product), count) };
                self.purchase(ask, Kind::Sell, &plain, payload_bytes)
            }
            What::SellLines(purchase) => self.purchase(ask, Kind::Sell, purchase, payload_bytes),
            What::Reserve(purchase) => self.purchase(ask, Kind::Reserve, purchase, payload_bytes),
            what => {
                let key = (ask.caller.tenant.0, what.order().expect("about an order"));
                // Whose order it is, is not told either.
                let known = self.orders.get(&key);
                if known.is_none() && self.is_order_of_old(key) {
                    return self.answer_of_old(ask, key);
                }
                if let (&What::Fetch { from, count, .. }, Some(order)) = (what, known) {
                    return match self.may_fetch(ask, order) {
                        Ok(ask) => self.fetch(&ask, order, from, count),
                        Err(status) => self.refuse(status),
                    };
                }
                let Some(order) = known.filter(|order| self.may_see(ask, order)) else {
                    return self.refuse(Status::NotFound);
                };
                match what {
                    What::OrderStatus(_) => (self.order_reply(order, order.left().count()), None),
                    What::Confirm { legs, realloc, sealed, .. } => {
                        self.confirm(ask, order, legs, *realloc, *sealed)
                    }
                    What::Cancel(_) => self.cancel(ask, order),
                    What::Return { codes, legs, .. } => self.give_back(ask, order, codes, legs),
                    _ => unreachable!("about an order"),
                }
            }
        }
    }

    fn may_see(&self, ask: &Ask, order: &Order) -> bool {
        let role_may = match ask.what {
            What::OrderStatus(_) => {
                matches!(ask.caller.role, Role::Admin | Role::Operator | Role::Finance | Role::Auditor)
            }
            _ => matches!(ask.caller.role, Role::Admin | Role::Operator),
        };
        let in_scope = |place: &Place| self.covers(ask.caller.principal, self.batches[&place.0].product);
        order.buyer() == ask.caller.principal || role_may && order.cards.iter().all(in_scope)
    }

    /// What is said if the order has seen the request's id.
    fn order_retry(&self, ask: &Ask, order: &Order, kinds: &[Kind]) -> Option<Verdict> {
        let mut asked = order.past.iter().filter(|past| past.kind != Kind::ReserveTimeout);
        let same = asked.find(|past| past.ask.id == ask.id)?;
        let is_retry = kinds.contains(&same.kind)
            && same.ask.what == ask.what
            && same.ask.why == ask.why
            && same.ask.caller.principal == ask.caller.principal;
        if !is_retry {
            return Some(self.refuse(Status::IdReused));
        }
        if same.kind != Kind::Reserve
            && same.kind != Kind::Cancel
            && same.kind != Kind::Return
            && !order.sealed
        {
            return Some(self.reveal(ask, order, 0, u32::MAX, ReplyFlags::REPLAYED));
        }
        let mut expected = self.order_reply(order, order.left().count());
        expected.flags = ReplyFlags::REPLAYED;
        expected.lsn = At::Known(same.lsn);
        expected.time_ms = same.time_ms;
        Some((expected, None))
    }

    fn purchase(&self, ask: &Ask, kind: Kind, wanted: &Purchase, payload_bytes: u64) -> Verdict {
        let tenant = ask.caller.tenant.0;
        if !wanted.lines.iter().all(|line| self.covers(ask.caller.principal, line.product.0)) {
            return self.refuse(Status::ScopeDenied);
        }
        if let Some(order) = self.orders.get(&(tenant, wanted.order.0)) {
            let retry = self.order_retry(ask, order, &[kind]);
            return retry.unwrap_or_else(|| self.refuse(Status::AlreadyExists));
        }
        if self.is_order_of_old((tenant, wanted.order.0)) {
            return self.refuse(Status::Migrated);
        }
        let overlap = |at: usize, line: &Line| {
            wanted.lines[..at].iter().any(|other| {
                other.product == line.product
                    && (other.face.is_none() || line.face.is_none() || other.face == line.face)
            })
        };
        if wanted.lines.is_empty()
            || wanted.lines.len() > ORDER_LINES_MAX
            || wanted.legs.len() > LEGS_MAX
            || wanted.lines.iter().enumerate().any(|(at, line)| line.count == 0 || overlap(at, line))
        {
            return self.refuse(Status::Malformed);
        }
        if is_too_large(wanted, matches!(ask.what, What::Sell { .. }), payload_bytes) {
            return self.refuse(Status::OrderTooLarge);
        }
        let mut reserve_s = u32::MAX;
        for line in &wanted.lines {
            match self.products.get(&line.product.0).filter(|product| product.tenant == tenant) {
                None => return self.refuse(Status::NotFound),
                Some(product) if self.is_product_frozen(product) => return self.refuse(Status::Frozen),
                Some(product)
                    if product.spec.kind == CardKind::Shared
                        && matches!(ask.what, What::Sell { count, .. } if count > SHARED_PLAIN_MAX) =>
                {
                    return self.refuse(Status::OrderTooLarge);
                }
                Some(product) => reserve_s = reserve_s.min(product.spec.terms.reserve_s),
            }
        }
        let plain = matches!(ask.what, What::Sell { .. });
        let account = wanted.account.map_or(0, |account| account.0);
        if !plain && let Some(refused) = self.buyer_refusal(ask, account, &wanted.legs, &[]) {
            return refused;
        }
        let reserves = kind == Kind::Reserve;
        if let Some(exceeded) = self.purchase_refusal(ask, (account, wanted.ip), &wanted.lines, reserves) {
            return self.refuse_exceeded(exceeded);
        }
        let Some(cards) = self.allocate(&wanted.lines, wanted.validity_s_min) else {
            return self.refuse(Status::OutOfStock);
        };
        let asked_s = if wanted.reserve_s == 0 { reserve_s } else { reserve_s.min(wanted.reserve_s) };
        let deadline_ms = if kind == Kind::Reserve { self.now_ms + u64::from(asked_s) * 1000 } else { 0 };
        let change = OrderChange {
            tenant,
            order: wanted.order.0,
            subject: if let [line] = &wanted.lines[..] { line.product.0 } else { 0 },
            cards,
            sealed: wanted.sealed,
            deadline_ms,
            account,
            ip: wanted.ip,
            lines: if plain { Vec::new() } else { wanted.lines.clone() },
            legs: wanted.legs.clone(),
        };
        if kind == Kind::Sell {
            return self.delivered(ask, kind, change);
        }
        let report = OrderReport {
            order: wanted.order,
            state: OrderState::Reserved,
            fetched: false,
            buyer: ask.caller.principal,
            account: AccountId(change.account),
            cards: change.cards.len() as u32,
            deadline_ms,
            lines: change.lines.clone(),
        };
        (self.new_report(report), Some(self.event(ask, kind, Effect::Order(Box::new(change)))))
    }

    fn new_report(&self, report: OrderReport) -> Expected {
        let mut expected = Expected::plain(Status::Ok, self.now_ms);
        expected.lsn = At::New;
        expected.body = Body::Order(report);
        expected
    }

    /// A sale: with its codes, or sealed.
    fn delivered(&self, ask: &Ask, kind: Kind, change: OrderChange) -> Verdict {
        let mut expected = Expected::plain(Status::Ok, self.now_ms);
        expected.lsn = At::New;
        let codes = change.cards.iter().map(|place| (*place, self.card(*place).code.clone()));
        expected.body = if change.sealed {
            Body::Order(OrderReport {
                order: OrderId(change.order),
                state: OrderState::Sold,
                fetched: false,
                buyer: ask.caller.principal,
                account: AccountId(change.account),
                cards: change.cards.len() as u32,
                deadline_ms: 0,
                lines: change.lines.clone(),
            })
        } else {
            let total = change.cards.len() as u32;
            Body::Cards(Listed { order: change.order, total, from: 0, codes: codes.collect() })
        };
        (expected, Some(self.event(ask, kind, Effect::Order(Box::new(change)))))
    }

    /// The first cards in stock that fit the lines; those that never moved come first in the order's sequence.
    fn allocate(&self, lines: &[Line], validity_s_min: u32) -> Option<Vec<Place>> {
        let until_ms = self.now_ms + u64::from(validity_s_min) * 1000;
        let mut all = Vec::new();
        for line in lines {
            let of_product = self.committed.iter().filter(|id| self.batches[id].product == line.product.0);
            let rows = of_product.flat_map(|id| (0..self.batches[id].cards.len()).map(|row| (*id, row)));
            let fits = |place: &Place| {
                self.is_sellable(*place, until_ms) && line.face.is_none_or(|face| self.face(*place) == face)
            };
            let found: Vec<Place> = rows.filter(fits).take(line.count as usize).collect();
            if found.len() < line.count as usize {
                return None;
            }
            all.extend(found);
        }
        let (shared, all): (Vec<Place>, Vec<Place>) =
            all.into_iter().partition(|place| self.is_shared(*place));
        let (fresh, moved): (Vec<Place>, Vec<Place>) =
            all.into_iter().partition(|place| self.card(*place).past.is_empty());
        Some([fresh, moved, shared].concat())
    }

    /// Whether the caller may buy for the account, and move money so.
    fn buyer_refusal(&self, ask: &Ask, account: u32, legs: &[Leg], held: &[Leg]) -> Option<Verdict> {
        let of_account = || match self.book(ask, account) {
            _ if account == 0 => None,
            None => Some((Status::NotFound, account)),
            Some(book) if !Self::may_debit(ask, &book.account) => Some((Status::Forbidden, account)),
            Some(book) if book.account.frozen => Some((Status::Frozen, account)),
            Some(_) => None,
        };
        let (status, account) = of_account().or_else(|| self.legs_refusal(ask, legs, held))?;
        Some(self.refuse_legs(status, account))
    }

    fn confirm(&self, ask: &Ask, order: &Order, legs: &[Leg], realloc: bool, sealed: bool) -> Verdict {
        if let Some(retry) = self.order_retry(ask, order, &[Kind::Confirm, Kind::Realloc]) {
            return retry;
        }
        if legs.len() > LEGS_MAX {
            return self.refuse(Status::Malformed);
        }
        let late = order.deadline_ms <= self.now_ms;
        match order.state {
            OrderState::Sold => return self.refuse(Status::IllegalTransition),
            OrderState::Cancelled => return self.refuse(Status::OrderCancelled),
            _ if late && !realloc => return self.refuse(Status::ReservationExpired),
            _ => {}
        }
        let reserved = order.state == OrderState::Reserved;
        let cards = if reserved {
            for &place in &order.cards {
                let wrong = if self.card(place).lifecycle == Lifecycle::Voided {
                    Status::Voided
                } else if self.is_frozen(place) {
                    Status::Frozen
                } else if self.batches[&place.0].voided {
                    Status::Voided
                } else if self.is_expired(place) {
                    Status::Expired
                } else {
                    continue;
                };
                return self.refuse(wrong);
            }
            order.cards.clone()
        } else {
            let validity_s_min = match &order.past[0].ask.what {
                What::Reserve(purchase) => purchase.validity_s_min,
                _ => 0,
            };
            let until_ms = self.now_ms + u64::from(validity_s_min) * 1000;
            let lasts = |ends_ms: u64| ends_ms == 0 || ends_ms > until_ms;
            let free = |place: &Place| {
                let free = match self.is_shared(*place) {
                    true => {
                        self.room(*place) > 0
                            && self.card(*place).lifecycle != Lifecycle::Voided
                            && !self.batches[&place.0].voided
                    }
                    false => self.effective(*place, self.card(*place).lifecycle) == Lifecycle::Available,
                };
                free && !self.is_frozen(*place) && lasts(self.expires_ms(*place))
            };
            if order.cards.iter().all(free) {
                order.cards.clone()
            } else {
                match self.allocate(&order.lines, validity_s_min) {
                    Some(cards) => cards,
                    None => return self.refuse(Status::ReservationExpired),
                }
            }
        };
        let legs = if legs.is_empty() { order.legs.clone() } else { legs.to_vec() };
        let held = if reserved { &order.legs[..] } else { &[] };
        if let Some(refused) = self.buyer_refusal(ask, order.account, &legs, held) {
            return refused;
        }
        // A reservation was counted when it was made; one that timed out was given back.
        if !reserved
            && let Some(exceeded) = self.purchase_refusal(ask, (order.account, order.ip), &order.lines, false)
        {
            return self.refuse_exceeded(exceeded);
        }
        let lines = if reserved { Vec::new() } else { order.lines.clone() };
        let (account, ip) = (order.account, order.ip);
        let change = OrderChange { cards, sealed, legs, lines, account, ip, ..OrderChange::of(ask) };
        let (mut expected, event) =
            self.delivered(ask, if reserved { Kind::Confirm } else { Kind::Realloc }, change);
        if let Body::Order(report) = &mut expected.body {
            *report = OrderReport { cards: report.cards, state: OrderState::Sold, ..order.report() };
        }
        (expected, event)
    }

    fn cancel(&self, ask: &Ask, order: &Order) -> Verdict {
        if let Some(retry) = self.order_retry(ask, order, &[Kind::Cancel]) {
            return retry;
        }
        match order.state {
            OrderState::Reserved => {}
            OrderState::Sold => return self.refuse(Status::IllegalTransition),
            OrderState::Cancelled => return self.refuse(Status::OrderCancelled),
            OrderState::TimedOut => return self.refuse(Status::ReservationExpired),
            OrderState::Migrated => unreachable!("no order of this store"),
        }
        let change = OrderChange { cards: order.cards.clone(), ..OrderChange::of(ask) };
        let cards = change.cards.len() as u32;
        let report = OrderReport { cards, state: OrderState::Cancelled, ..order.report() };
        (self.new_report(report), Some(self.event(ask, Kind::Cancel, Effect::Order(Box::new(change)))))
    }

    /// What the engine does by itself with a reservation whose time is over.
    pub fn time_out(&self, ask: &Ask, order: &Order) -> Event {
        let change = OrderChange { cards: order.cards.clone(), ..OrderChange::of(ask) };
        self.event(ask, Kind::ReserveTimeout, Effect::Order(Box::new(change)))
    }

    fn give_back(&self, ask: &Ask, order: &Order, codes: &[String], legs: &[Leg]) -> Verdict {
        if let Some(retry) = self.order_retry(ask, order, &[Kind::Return]) {
            return retry;
        }
        match order.state {
            OrderState::Sold => {}
            OrderState::Cancelled => return self.refuse(Status::OrderCancelled),
            _ => return self.refuse(Status::IllegalTransition),
        }
        if codes.len() > RETURN_CARDS_MAX || legs.len() > LEGS_MAX {
            return self.refuse(Status::Malformed);
        }
        let named: Vec<Option<Place>> =
            codes.iter().map(|code| self.find(ask.caller.tenant.0, code)).collect();
        if named.contains(&None) {
            return self.refuse(Status::NotFound);
        }
        let mut seen = order.fetched;
        let mut cards = Vec::new();
        for place in order.left() {
            if !codes.is_empty() && !named.contains(&Some(place)) {
                continue;
            }
            let card = self.card(place);
            if card.lifecycle != Lifecycle::Sold {
                if codes.is_empty() && matches!(card.lifecycle, Lifecycle::Voided | Lifecycle::Returned) {
                    continue;
                }
                return self.refuse(Status::IllegalTransition);
            }
            if self.is_shared(place) {
                // Its code is others', too: what counts is whether this order gave it out.
                if self.left(place) - self.held(place).0 <= 0 {
                    return self.refuse(Status::UsesExhausted);
                }
                seen |= !order.sealed;
                cards.push(place);
                continue;
            }
            if card.flags.contains(Flags::HELD) {
                return self.refuse(Status::IllegalTransition);
            }
            seen |= self.was_seen(place);
            cards.push(place);
        }
        if cards.is_empty() || !codes.is_empty() && cards.len() != codes.len() {
            return self.refuse(Status::NotFound);
        }
        if let Some((status, account)) = self.legs_refusal(ask, legs, &[]) {
            return self.refuse_legs(status, account);
        }
        let count = cards.len() as u32;
        let change = OrderChange { cards, sealed: !seen, legs: legs.to_vec(), ..OrderChange::of(ask) };
        let report = OrderReport { cards: count, ..order.report() };
        (self.new_report(report), Some(self.event(ask, Kind::Return, Effect::Order(Box::new(change)))))
    }

    /// whether somebody may have seen the code: it was given out, or the card was asked for by it since its sale, or
    /// tried, or reported.
    fn was_seen(&self, place: Place) -> bool {
        let card = self.card(place);
        let mut locks = self.pin_locks.iter().filter(|((locked, ..), _)| *locked == place);
        card.flags.contains(Flags::REVEALED)
            || card.past.last().is_none_or(|past| !past.is_of_order())
            || self.kind(place) != kami_engine::CardKind::Single && self.card_before(place).is_some()
            || locks.any(|(_, until_ms)| self.now_ms < *until_ms)
            || self
                .exceptions
                .iter()
                .any(|known| known.exception.card == Some(CardRef::new(place.0, place.1 as u64)))
    }

    fn order_reply(&self, order: &Order, cards: usize) -> Expected {
        let mut expected = Expected::plain(Status::Ok, self.now_ms);
        expected.lsn = At::Known(order.last_lsn);
        expected.body = Body::Order(OrderReport { cards: cards as u32, ..order.report() });
        expected
    }

    fn fetch(&self, ask: &Ask, order: &Order, from: u32, count: u32) -> Verdict {
        match order.state {
            OrderState::Sold => self.reveal(ask, order, from, count, ReplyFlags::default()),
            OrderState::Reserved => self.refuse(Status::NotSold),
            OrderState::Cancelled => self.refuse(Status::OrderCancelled),
            OrderState::TimedOut => self.refuse(Status::ReservationExpired),
            OrderState::Migrated => unreachable!("no order of this store"),
        }
    }

    fn reveal(&self, ask: &Ask, order: &Order, from: u32, count: u32, flags: ReplyFlags) -> Verdict {
        let keeps = |place: &Place| {
            matches!(self.card(*place).lifecycle, Lifecycle::Sold | Lifecycle::Redeemed | Lifecycle::Expired)
        };
        let own: Vec<Place> = order.left().filter(keeps).collect();
        let wanted = own.iter().skip(from as usize).take(count as usize);
        let listed = Listed {
            order: order.id,
            total: own.len() as u32,
            from,
            codes: wanted.map(|place| (*place, self.card(*place).code.clone())).collect(),
        };
        let mut expected = Expected::plain(Status::Ok, self.now_ms);
        expected.flags = flags;
        expected.lsn = At::Known(order.sold_lsn);
        expected.body = Body::Cards(listed);
        let key = (ask.caller.tenant.0, order.id);
        let first = order.sealed && !order.fetched;
        (expected, Some(self.event(ask, Kind::Reveal, Effect::Reveal(first.then_some(key)))))
    }
}

/// The most cards of a plain sale that are sold many times.
const SHARED_PLAIN_MAX: u32 = 64;

/// Whether one record of the log can hold so large an order: the heads of group and entry, the order's own, and
/// 24 bytes a card at worst, 16 in a plain sale, 16 a line, 32 a leg; and the alerts that it may set off.
pub fn is_too_large(wanted: &Purchase, plain: bool, payload_bytes: u64) -> bool {
    let cards: u64 = wanted.lines.iter().map(|line| u64::from(line.count)).sum();
    let alerts = 4 * 88;
    let order = if plain {
        32 + cards * 16
    } else {
        64 + cards * 24 + wanted.lines.len() as u64 * 16 + wanted.legs.len() as u64 * 32
    };
    cards > u64::from(ORDER_CARDS_MAX) || 16 + 64 + alerts + order > payload_bytes
}
