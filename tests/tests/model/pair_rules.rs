//! The oracle's rules for what moves two cards.

use kami_engine::{
    CardKind, CardRef, CardReport, Flags, Kind, Lifecycle, ProductId, ReplyFlags, Status, ValueReport,
};

use super::expected::{At, Body, Expected};
use super::oracle::{Effect, Event, Moved, NO_END, Oracle, Past, Place};
use super::rules::Verdict;
use crate::ask::{Ask, What};

/// Cards of one order are replaced at most this often.
const REPLACEMENTS_MAX: usize = 256;

fn bits(place: Place) -> u128 {
    u128::from(CardRef::new(place.0, place.1 as u64).to_bits())
}

fn place_of(bits: u128) -> Place {
    let card = CardRef::from_bits(bits as u64);
    (card.batch(), card.row() as usize)
}

impl Oracle {
    /// The order that a card belongs to.
    pub fn order_of(&self, place: Place) -> Option<(u16, u128)> {
        let mut orders = self.orders.iter();
        let sold = kami_engine::OrderState::Sold;
        orders.find(|(_, order)| order.state == sold && order.cards.contains(&place)).map(|(key, _)| *key)
    }

    /// The card in whose place this one stands.
    pub fn card_before(&self, place: Place) -> Option<Place> {
        let taken = self.card(place).past.iter().rfind(|past| past.kind == Kind::Replacement)?;
        Some(place_of(taken.related))
    }

    /// What can be undone at this card although it happened at one before it.
    pub fn original_before(&self, place: Place, id: u128) -> Option<(Place, &Past)> {
        if self.kind(place) == CardKind::Single {
            return None;
        }
        let before = self.card_before(place)?;
        let own = self.card(before).past.iter().find(|past| past.has_id() && past.ask.id == id);
        match own {
            Some(past) => {
                matches!(past.kind, Kind::Redeem | Kind::Capture | Kind::Load).then_some((before, past))
            }
            None => self.original_before(before, id),
        }
    }

    /// Where something stands that was reversed at this card: which card's past, and at which place.
    pub fn find_undone(&self, place: Place, id: u128) -> Option<(Place, usize)> {
        let undone = [Kind::Redeem, Kind::Capture, Kind::Load, Kind::Hold];
        let past = &self.card(place).past;
        let own = past.iter().position(|past| undone.contains(&past.kind) && past.ask.id == id);
        match own {
            Some(at) => Some((place, at)),
            None => self.find_undone(self.card_before(place)?, id),
        }
    }

    fn concerns(&self, ask: &Ask, place: Place) -> bool {
        self.covers(ask.caller.principal, self.batches[&place.0].product) && !self.denies(ask, place.0)
    }

    /// The first card, if the caller may know of it and nothing else is to be said.
    fn first_of_pair(&self, ask: &Ask, code: &str) -> Result<Place, Box<Verdict>> {
        let Some(place) = self.find(ask.caller.tenant.0, code) else {
            return Err(Box::new(self.miss(Status::NotFound)));
        };
        if !self.concerns(ask, place) {
            let unsold = self.is_unsold(place);
            return Err(Box::new(self.miss(if unsold { Status::NotFound } else { Status::ScopeDenied })));
        }
        let card = self.card(place);
        if let Some(past) = card.past.iter().find(|past| past.has_id() && past.ask.id == ask.id) {
            return Err(Box::new(self.pair_again(ask, place, past)));
        }
        if self.is_poisoned(ask, place) {
            return Err(Box::new(self.refuse(Status::ReversedBeforeArrival)));
        }
        let refusal = match self.effective(place, card.lifecycle) {
            _ if self.is_shared(place) => Some(Status::SharedUnfit),
            _ if self.is_unsold(place) => Some(Status::NotSold),
            Lifecycle::Redeemed if self.kind(place) == CardKind::MultiUse => Some(Status::UsesExhausted),
            Lifecycle::Redeemed => Some(Status::AlreadyRedeemed),
            Lifecycle::Voided if card.flags.contains(Flags::REPLACED) => Some(Status::Replaced),
            Lifecycle::Voided => Some(Status::Voided),
            Lifecycle::Returned => Some(Status::Returned),
            _ if self.held(place).1 > 0 => Some(Status::IllegalTransition),
            Lifecycle::Expired => Some(Status::Expired),
            _ => None,
        };
        refusal.map_or(Ok(place), |status| Err(Box::new(self.refuse(status))))
    }

    /// Whether the request's own id was reversed at this card before it came.
    fn is_poisoned(&self, ask: &Ask, place: Place) -> bool {
        let mut past = self.card(place).past.iter();
        past.any(|past| past.kind == Kind::Tombstone && past.related == ask.id)
    }

    /// The id had an effect on the first card before.
    fn pair_again(&self, ask: &Ask, place: Place, past: &Past) -> Verdict {
        let first = matches!(past.kind, Kind::Replace | Kind::Transfer);
        let same = match (&ask.what, &past.ask.what) {
            (What::Replace { with, .. }, What::Replace { with: first, .. }) => with == first,
            (What::Transfer { to, amount, .. }, What::Transfer { to: first, amount: of_first, .. }) => {
                (to, amount) == (first, of_first)
            }
            _ => false,
        };
        if !first || !same || past.ask.why != ask.why || past.ask.caller.principal != ask.caller.principal {
            return self.refuse(Status::IdReused);
        }
        let mut expected = Expected::plain(Status::Ok, past.time_ms);
        expected.flags = ReplyFlags::REPLAYED;
        expected.lsn = At::Known(past.lsn);
        expected.body = if past.kind == Kind::Replace {
            let other = place_of(past.related);
            let card = self.card(other);
            Body::Card(self.card_report(other, card.lifecycle, card.flags, None))
        } else {
            self.moved_body(place, past.moved)
        };
        (expected, None)
    }

    fn moved_body(&self, place: Place, moved: Moved) -> Body {
        let product = ProductId(self.batches[&place.0].product);
        Body::Value(ValueReport { product, amount: moved.amount, remaining: moved.remaining })
    }

    /// The second card, where it is named.
    fn second_of_pair(&self, ask: &Ask, code: &str) -> Result<Place, Box<Verdict>> {
        let place = self.find(ask.caller.tenant.0, code);
        let place = place.filter(|place| self.concerns(ask, *place));
        let place = place.ok_or_else(|| Box::new(self.miss(Status::NotFound)))?;
        self.second_is_free(ask, place)
    }

    fn second_is_free(&self, ask: &Ask, place: Place) -> Result<Place, Box<Verdict>> {
        if self.card(place).past.iter().any(|past| past.has_id() && past.ask.id == ask.id) {
            return Err(Box::new(self.refuse(Status::IdReused)));
        }
        if self.is_poisoned(ask, place) {
            return Err(Box::new(self.refuse(Status::ReversedBeforeArrival)));
        }
        Ok(place)
    }

    /// Whether a card can take the place of another.
    fn can_replace(&self, old: Place, new: Place) -> bool {
        let (was, is) = (&self.batches[&old.0], &self.batches[&new.0]);
        let begins = |from_ms: u64| from_ms.max(self.now_ms);
        let pins = |place: Place| self.card(place).pin.is_some();
        old != new
            && was.product == is.product
            && self.effective(new, self.card(new).lifecycle) == Lifecycle::Available
            && !self.is_frozen(new)
            && (self.kind(old) != CardKind::Single || self.face(old) == self.face(new))
            && was.validity == is.validity
            && pins(old) == pins(new)
            && begins(was.valid_from_ms) == begins(is.valid_from_ms)
            && (self.expires_ms(old) != 0 || was.validity.is_none() || self.expires_ms(new) == 0)
    }

    pub fn replace(&self, ask: &Ask, code: &str, with: Option<&str>) -> Verdict {
        let decided = self.first_of_pair(ask, code).and_then(|old| {
            let product = self.batches[&old.0].product;
            let new = match with {
                Some(with) => self.second_of_pair(ask, with)?,
                None => {
                    if self.is_product_frozen(&self.products[&product]) {
                        return Err(Box::new(self.refuse(Status::Frozen)));
                    }
                    let of_product = self.committed.iter().filter(|id| self.batches[id].product == product);
                    let rows =
                        of_product.flat_map(|id| (0..self.batches[id].cards.len()).map(|row| (*id, row)));
                    let mut fit = rows.filter(|place| self.can_replace(old, *place));
                    let new = fit.next().ok_or_else(|| Box::new(self.refuse(Status::OutOfStock)))?;
                    self.second_is_free(ask, new)?
                }
            };
            let Some(key) = self.order_of(old) else {
                let origin = self.card(old).origin;
                assert_eq!(
                    origin.map(|origin| origin.state),
                    Some(Lifecycle::Sold),
                    "a sold card is in an order"
                );
                return Err(Box::new(self.refuse(Status::Migrated)));
            };
            if !self.can_replace(old, new) {
                return Err(Box::new(self.refuse(Status::OtherUnfit)));
            }
            let cards = self.places().map(|(_, place)| place);
            let replaced = cards.filter(|place| {
                let past = self.card(*place).past.iter();
                past.clone().any(|past| past.kind == Kind::Replace) && self.replaced_in(*place) == Some(key)
            });
            if replaced.count() >= REPLACEMENTS_MAX {
                return Err(Box::new(self.refuse(Status::ReturnsExhausted)));
            }
            Ok((old, new, key))
        });
        let (old, new, key) = match decided {
            Ok(pair) => pair,
            Err(said) => return *said,
        };
        let card = self.card(old);
        let single = self.kind(old) == CardKind::Single;
        let left = self.left(old);
        let moved = if single {
            Moved::default()
        } else {
            Moved { amount: left, remaining: 0, begun_ms: self.begun_ms(old), ..Moved::default() }
        };
        let event = self.event(
            ask,
            Kind::Replace,
            Effect::Pair {
                place: old,
                lifecycle: Lifecycle::Voided,
                flags: card.flags.with(Flags::HAS_EFFECTS).with(Flags::REPLACED),
                other: new,
                order: Some(key),
                moved,
            },
        );
        let mut after = self.clone();
        let second = self.second_of(&event).expect("it has one");
        after.apply(&event);
        after.apply(&second);
        let mut expected = Expected::plain(Status::Ok, self.now_ms);
        expected.lsn = At::New;
        let is = after.card(new);
        let report: CardReport = after.card_report(new, is.lifecycle, is.flags, Some(key.1));
        expected.body = Body::Card(report);
        (expected, Some(event))
    }

    /// The order in which a card was replaced.
    fn replaced_in(&self, place: Place) -> Option<(u16, u128)> {
        let replaced = self.card(place).past.iter().find(|past| past.kind == Kind::Replace)?;
        let other = place_of(replaced.related);
        self.order_of(other).or_else(|| self.replaced_in(other))
    }

    pub fn transfer(&self, ask: &Ask, from: &str, to: &str, amount: i64) -> Verdict {
        let decided = self.first_of_pair(ask, from).and_then(|from| {
            let to = self.second_of_pair(ask, to)?;
            let refused = |status| Err(Box::new(self.refuse(status)));
            if self.kind(from) == CardKind::Single {
                return refused(Status::IllegalTransition);
            }
            if let Some(status) = self.unusable(ask, from, None, false) {
                return refused(status);
            }
            if from == to || self.batches[&from.0].product != self.batches[&to.0].product {
                return refused(Status::OtherUnfit);
            }
            let left = self.left(from);
            let moved = if amount == 0 { left } else { amount };
            if moved < 0 {
                return refused(Status::Malformed);
            }
            if left == 0 || left < moved {
                let uses = self.kind(from) == CardKind::MultiUse && left == 0;
                return refused(if uses { Status::UsesExhausted } else { Status::InsufficientValue });
            }
            if self.is_unsold(to) || self.unusable(ask, to, None, false).is_some() {
                return refused(Status::OtherUnfit);
            }
            let terms = &self.products[&self.batches[&to.0].product].spec.terms;
            let most = match self.kind(to) {
                CardKind::MultiUse => i64::from(terms.uses),
                _ if terms.value_max > 0 => terms.value_max,
                _ => self.face(to),
            };
            if self.left(to) + moved > most {
                return refused(Status::ValueLimit);
            }
            Ok((from, to, moved, left - moved))
        });
        let (from, to, amount, remaining) = match decided {
            Ok(pair) => pair,
            Err(said) => return *said,
        };
        let flags = self.card(from).flags.with(Flags::HAS_EFFECTS);
        let all = remaining == 0;
        let moved = Moved { amount, remaining, held: 0, deadline_ms: 0, begun_ms: self.begun_ms(from) };
        let event = self.event(
            ask,
            Kind::Transfer,
            Effect::Pair {
                place: from,
                lifecycle: if all { Lifecycle::Voided } else { Lifecycle::Sold },
                flags: if all { flags.with(Flags::REPLACED) } else { flags },
                other: to,
                order: None,
                moved,
            },
        );
        let mut expected = Expected::plain(Status::Ok, self.now_ms);
        expected.lsn = At::New;
        expected.body = self.moved_body(from, moved);
        (expected, Some(event))
    }

    /// The event of the second card, before that of the first is applied.
    pub fn second_of(&self, event: &Event) -> Option<Event> {
        let Effect::Pair { place: old, other: new, order, moved, .. } = event.effect else { return None };
        let card = self.card(new);
        let mut flags = card.flags.with(Flags::HAS_EFFECTS);
        if event.kind == Kind::Transfer {
            let remaining = self.left(new) + moved.amount;
            let moved = Moved {
                remaining,
                held: self.held(new).0,
                begun_ms: self.begun_ms(new),
                deadline_ms: 0,
                ..moved
            };
            let effect = Effect::Pair {
                place: new,
                lifecycle: Lifecycle::Sold,
                flags,
                other: old,
                order: None,
                moved,
            };
            return Some(Event { kind: Kind::Receive, lsn: None, effect, ..event.clone() });
        }
        let was = self.card(old);
        for mark in [Flags::USED, Flags::SETTLED] {
            if was.flags.contains(mark) {
                flags = flags.with(mark);
            }
        }
        let known = &self.orders[&order.expect("it takes a place in one")];
        if !known.sealed || known.fetched {
            flags = flags.with(Flags::REVEALED);
        }
        let (ends, own) = (self.expires_ms(old), self.expires_ms(new));
        let gives = match self.batches[&old.0].validity {
            Some(_) => ends != 0,
            None => ends != own,
        };
        if gives {
            flags = flags.with(Flags::OWN_END);
        }
        let active = self.is_active(old);
        if self.is_active(new) != active {
            flags = if active {
                flags.with(Flags::ACTIVE).without(Flags::INACTIVE)
            } else {
                flags.with(Flags::INACTIVE).without(Flags::ACTIVE)
            };
        }
        let moved = Moved {
            deadline_ms: if gives { ends } else { NO_END },
            remaining: moved.amount,
            begun_ms: self.begun_ms(old),
            ..moved
        };
        let effect = Effect::Pair { place: new, lifecycle: Lifecycle::Sold, flags, other: old, order, moved };
        Some(Event { kind: Kind::Replacement, lsn: None, effect, ..event.clone() })
    }

    /// Moves one card of two.
    pub fn apply_pair(&mut self, event: &Event) {
        let Effect::Pair { place, lifecycle, flags, other, order, moved } = event.effect else {
            unreachable!("the caller matched it")
        };
        let past = Past { moved, ..event.past(lifecycle, flags, bits(other)) };
        let card = self.card_mut(place);
        let from = if event.kind == Kind::Replacement { Lifecycle::Available } else { Lifecycle::Sold };
        assert_eq!(card.lifecycle, from, "a card that was not where its pair left it");
        (card.lifecycle, card.flags) = (lifecycle, flags);
        card.past.push(past);
        if let (Kind::Replace, Some(key)) = (event.kind, order) {
            let order = self.orders.get_mut(&key).expect("known");
            let seat = order.cards.iter_mut().find(|card| **card == place).expect("it is in its order");
            *seat = other;
            order.last_lsn = event.lsn;
        }
    }

    /// Neither card of a pair ever moves without the other, and what leaves one comes to the other.
    pub fn check_pairs(&self, place: Place) {
        let pairs = self.card(place).past.iter();
        for past in pairs.filter(|past| matches!(past.kind, Kind::Replace | Kind::Transfer)) {
            let second = if past.kind == Kind::Replace { Kind::Replacement } else { Kind::Receive };
            let mut others = self.card(place_of(past.related)).past.iter();
            let other = others.find(|other| other.kind == second && other.ask.id == past.ask.id);
            let other = other.expect("one card of a pair moved without the other");
            assert_eq!(other.related, bits(place));
            assert_eq!(other.moved.amount, past.moved.amount, "what one card lost the other did not get");
        }
    }
}
