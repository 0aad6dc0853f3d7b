//! The oracle's rules for what tills leave behind: wrong PINs, and requests without an answer.

use kami_engine::{Caller, Kind, OutcomeReport, ProductId, ReplyFlags, Role, Status};

use super::expected::{At, Body, Expected};
use super::oracle::{Effect, Oracle, Past, Place};
use super::rules::Verdict;
use crate::ask::{Ask, What};

/// The wrong PIN of this number in a row locks.
const PIN_TRIES: u32 = 10;
/// So long.
const PIN_LOCK_MS: u64 = 24 * 3600 * 1000;

/// Whose tries are counted together: a card, and a principal of the store or the till of another.
pub type Tried = (Place, u32, u32);

impl Oracle {
    pub fn tried(&self, ask: &Ask, place: Place) -> Tried {
        let principal = ask.caller.principal.0;
        (place, principal, if self.principals.contains_key(&principal) { 0 } else { ask.terminal })
    }

    /// Whether the PIN is not even looked at.
    pub fn is_locked(&self, ask: &Ask, place: Place) -> bool {
        self.card(place).pin.is_some()
            && self.pin_locks.get(&self.tried(ask, place)).is_some_and(|until| self.now_ms < *until)
    }

    /// What a wrong PIN of a card that is sold gets: the last one locks it.
    pub fn wrong_pin(&self, ask: &Ask, place: Place) -> Verdict {
        let (expected, _) = self.miss(Status::CardNotValid);
        let event = (self.tries(ask, place) + 1 >= PIN_TRIES).then(|| {
            let until_ms = self.now_ms + PIN_LOCK_MS;
            self.event(ask, Kind::PinLock, Effect::PinLock { place, until_ms })
        });
        (expected, event)
    }

    fn tries(&self, ask: &Ask, place: Place) -> u32 {
        let known = self.pin_tries.get(&self.tried(ask, place));
        known.filter(|(_, last_ms)| self.now_ms < last_ms + PIN_LOCK_MS).map_or(0, |(count, _)| *count)
    }

    /// After a reply that told of a wrong PIN: whoever sent it has a try less.
    pub fn count_wrong_pin(&mut self, ask: &Ask) {
        let (What::Redeem { pin, .. } | What::Hold { pin, .. }) = &ask.what else { return };
        let place = self.find(ask.caller.tenant.0, ask.code().expect("about a card"));
        let Some(place) = place else { return };
        let card = self.card(place);
        if card.pin.is_none() || card.pin == *pin || self.is_unsold(place) || self.is_locked(ask, place) {
            return;
        }
        let count = self.tries(ask, place) + 1;
        self.pin_tries.insert(self.tried(ask, place), (count, self.now_ms));
    }

    pub fn pin_unlock(&self, ask: &Ask, place: Place) -> Verdict {
        let locks = self.pin_locks.iter().filter(|((locked, ..), _)| *locked == place);
        if !locks.into_iter().any(|(_, until)| self.now_ms < *until) {
            return self.refuse(Status::IllegalTransition);
        }
        let card = self.card(place);
        self.moves(ask, place, Kind::PinUnlock, card.lifecycle, card.flags, 0)
    }

    /// What became of the request `asked`, of which `past` is the effect if it had one.
    fn outcome(&self, caller: Caller, past: Option<&Past>, place: Option<Place>) -> Verdict {
        let Some(past) = past else { return self.refuse(Status::NoEffect) };
        let sees_all = matches!(caller.role, Role::Admin | Role::Operator | Role::Finance | Role::Auditor);
        if !sees_all && past.ask.caller.principal != caller.principal {
            return self.refuse(Status::NoEffect);
        }
        if past.kind == Kind::Tombstone {
            return self.refuse(Status::Tombstoned);
        }
        let (mut amount, mut remaining) = (past.moved.amount, past.moved.remaining);
        if let Some(place) = place
            && !self.told_value(place, past.kind)
        {
            (amount, remaining) = match past.kind {
                Kind::Redeem => (self.face(place), 0),
                Kind::Reverse => (self.face(place), self.face(place)),
                _ => (amount, remaining),
            };
        }
        let mut expected = Expected::plain(Status::Ok, past.time_ms);
        expected.flags = ReplyFlags::REPLAYED;
        if past.reversed {
            expected.flags = expected.flags.with(ReplyFlags::REVERSED);
        }
        expected.lsn = At::Known(past.lsn);
        expected.body = Body::Outcome(OutcomeReport {
            kind: past.kind,
            principal: past.ask.caller.principal,
            product: place.map(|place| ProductId(self.batches[&place.0].product)),
            amount,
            remaining,
            deadline_ms: if past.kind == Kind::Hold { past.moved.deadline_ms } else { 0 },
        });
        (expected, None)
    }

    pub fn outcome_of_card(&self, ask: &Ask, place: Place, asked: u128) -> Verdict {
        if self.is_unsold(place) && ask.caller.role == Role::Redeemer {
            return self.miss(Status::NoEffect);
        }
        let card = self.card(place);
        let past = card.past.iter().find(|past| past.has_id() && past.ask.id == asked);
        let poisoned = card.past.iter().any(|past| past.kind == Kind::Tombstone && past.related == asked);
        match past {
            None if poisoned => self.refuse(Status::ReversedBeforeArrival),
            past => self.outcome(ask.caller, past, Some(place)),
        }
    }

    pub fn outcome_of_order(&self, ask: &Ask, order: u128, asked: u128) -> Verdict {
        let known = self.orders.get(&(ask.caller.tenant.0, order));
        let asked_for = |past: &&Past| past.ask.id == asked && past.kind != Kind::ReserveTimeout;
        self.outcome(ask.caller, known.and_then(|known| known.past.iter().find(asked_for)), None)
    }

    pub fn outcome_of_document(&self, ask: &Ask, document: u128, asked: u128) -> Verdict {
        let known = self.documents.get(&(ask.caller.tenant.0, document)).map(|known| &known.past);
        self.outcome(ask.caller, known.filter(|past| past.ask.id == asked), None)
    }
}
