//! The oracle's rules for what tills leave behind: wrong PINs, requests without an answer, redemptions made offline.

use kami_engine::{
    Caller, CardRef, ChannelId, Class, Exception, Kind, Lifecycle, Lsn, OutcomeReport, PrincipalId,
    ProductId, ReplyFlags, RequestId, Resolution, Role, Status, TerminalId,
};

use super::expected::{At, Body, Expected};
use super::oracle::{Effect, Event, Oracle, Past, Place};
use super::rules::Verdict;
use crate::ask::{Ask, What};

/// The wrong PIN of this number in a row locks.
const PIN_TRIES: u32 = 10;
/// So long.
const PIN_LOCK_MS: u64 = 24 * 3600 * 1000;

/// A report may be so late.
const ADVICE_AGE_MAX_MS: u64 = 30 * 24 * 3600 * 1000;
/// And so much before the sale.
const CLOCK_SKEW_MS: u64 = 5 * 60 * 1000;

/// A redemption that was made offline and did not fit.
#[derive(Clone)]
pub struct Excepted {
    pub tenant: u16,
    pub code: String,
    pub exception: Exception,
    /// Its report, and its end.
    pub past: Vec<Past>,
}

/// As the first time.
fn told_again(known: &Excepted) -> Verdict {
    let mut expected = Expected::plain(Status::ExceptionNoted, known.exception.time_ms);
    (expected.flags, expected.lsn) = (ReplyFlags::REPLAYED, At::Known(known.past[0].lsn));
    (expected, None)
}

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
        let (What::Redeem { pin, .. } | What::Hold { pin, .. } | What::Advice { pin, .. }) = &ask.what else {
            return;
        };
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

    /// The exception that a report under this id became.
    fn excepted(&self, tenant: u16, code: &str, id: u128) -> Option<&Excepted> {
        let key = (tenant, code, id);
        self.exceptions.iter().find(|known| (known.tenant, &*known.code, known.exception.request.0) == key)
    }

    /// What is said of a command about a card, if its id is that of an exception or asks about one.
    pub fn noted_before(&self, ask: &Ask) -> Option<Verdict> {
        let id = match ask.what {
            What::Query { .. } | What::History { .. } => return None,
            What::OutcomeOf { asked, .. } => asked,
            _ => ask.id,
        };
        let known = self.excepted(ask.caller.tenant.0, ask.code()?, id)?;
        let place = self.find(ask.caller.tenant.0, ask.code()?);
        let past = place.map_or(&[][..], |place| &self.card(place).past);
        if past.iter().any(|past| past.kind == Kind::Redeem && past.ask.id == id) {
            // It took effect before something else was reported under it.
            return None;
        }
        let is_own = known.exception.principal == ask.caller.principal;
        let sees_all =
            matches!(ask.caller.role, Role::Admin | Role::Operator | Role::Finance | Role::Auditor);
        Some(match ask.what {
            What::OutcomeOf { .. } if is_own || sees_all && self.shows_exception(ask.caller, known) => {
                told_again(known)
            }
            What::OutcomeOf { .. } => self.refuse(Status::NoEffect),
            What::Redeem { .. } if is_own => told_again(known),
            _ => self.refuse(Status::IdReused),
        })
    }

    /// A redemption that was made offline.
    pub fn advice(&self, ask: &Ask) -> Verdict {
        let What::Advice { code, amount, made_ms, .. } = &ask.what else { unreachable!("reports one") };
        if *made_ms == 0 {
            return self.refuse(Status::Malformed);
        }
        let tenant = ask.caller.tenant.0;
        if let Some(known) = self.excepted(tenant, code, ask.id) {
            let Exception { amount: first, principal, .. } = known.exception;
            let is_retry = first == *amount && principal == ask.caller.principal;
            return if is_retry { told_again(known) } else { self.refuse(Status::IdReused) };
        }
        let (refused, event) = self.on_card(ask);
        let place = self.find(tenant, code);
        // The till's own redemption under this id, of something else than what it gave.
        let redeemed_otherwise = || {
            let past = place.map_or(&[][..], |place| &self.card(place).past);
            let same = past.iter().find(|past| past.has_id() && past.ask.id == ask.id);
            same.is_some_and(|past| {
                past.kind == Kind::Redeem && past.ask.caller.principal == ask.caller.principal
            })
        };
        let is_kept = match refused.status {
            Status::ReversedBeforeArrival => false,
            Status::IdReused => redeemed_otherwise(),
            status => status.class() == Class::Refused,
        };
        if !is_kept {
            return (refused, event);
        }
        let exception = Exception {
            id: self.exceptions.len() as u64 + 1,
            card: place.map(|place| CardRef::new(place.0, place.1 as u64)),
            reason: refused.status,
            request: RequestId(ask.id),
            principal: ask.caller.principal,
            terminal: TerminalId(ask.terminal),
            merchant: ask.caller.merchant,
            channel: ChannelId(ask.channel),
            amount: *amount,
            made_ms: *made_ms,
            time_ms: self.now_ms,
            lsn: Lsn::START,
            resolution: None,
        };
        let mut expected = Expected::plain(Status::ExceptionNoted, self.now_ms);
        (expected.lsn, expected.miss) = (At::New, refused.miss);
        (expected, Some(self.event(ask, Kind::Advice, Effect::Exception(Box::new(exception)))))
    }

    /// The lock that a wrong PIN in a report puts on the card, in the same record before the exception.
    pub fn lock_beside(&self, event: &Event) -> Option<Event> {
        let Effect::Exception(_) = event.effect else { return None };
        self.on_card(&event.ask).1
    }

    /// Whether a redemption that was made offline, and fits, can have been made then.
    pub fn in_its_time(&self, place: Place, made_ms: u64) -> Result<(), Status> {
        let shared = self.is_shared(place);
        let sales = [Kind::Sell, Kind::Confirm, Kind::Realloc];
        let past = &self.card(place).past;
        let sold = match shared {
            // Whoever had it first may have had it then.
            true => past.iter().find(|past| sales.contains(&past.kind)),
            false => past.iter().rfind(|past| past.is_of_order()),
        };
        if made_ms.saturating_add(ADVICE_AGE_MAX_MS) < self.now_ms {
            Err(Status::AdviceTooOld)
        } else if made_ms.saturating_add(CLOCK_SKEW_MS) < sold.map_or(0, |past| past.time_ms) {
            Err(Status::NotSold)
        } else {
            Ok(())
        }
    }

    fn shows_exception(&self, caller: Caller, known: &Excepted) -> bool {
        let scoped = self.principals.get(&caller.principal.0);
        let scoped = scoped.is_some_and(|principal| !principal.spec.products.is_empty());
        let product = known.exception.card.map(|card| self.batches[&card.batch()].product);
        known.tenant == caller.tenant.0
            && (caller.role == Role::Admin
                || caller.merchant.0 == 0
                || caller.merchant == known.exception.merchant)
            && (!scoped || product.is_some_and(|product| self.covers(caller.principal, product)))
    }

    pub fn list_exceptions(&self, ask: &Ask, after: u64, count: u32, all: bool) -> Verdict {
        let wanted = self.exceptions.iter().filter(|known| {
            after < known.exception.id
                && (all || known.exception.resolution.is_none())
                && self.shows_exception(ask.caller, known)
        });
        let mut rows: Vec<_> = wanted.map(|known| (known.past[0].lsn, known.exception.clone())).collect();
        let mut expected = Expected::plain(Status::Ok, self.now_ms);
        let count = count.clamp(1, 500) as usize;
        if rows.len() > count {
            rows.truncate(count);
            expected.flags = ReplyFlags::PARTIAL;
        }
        expected.body = Body::Exceptions(rows);
        (expected, None)
    }

    pub fn resolve_exception(&self, ask: &Ask) -> Verdict {
        let What::ExceptionResolve(given) = &ask.what else { unreachable!("resolves one") };
        let known = self
            .exceptions
            .iter()
            .find(|known| known.exception.id == given.id && known.tenant == ask.caller.tenant.0);
        let seen = known.filter(|known| self.shows_exception(ask.caller, known));
        let refusal = if !(1..=200).contains(&given.note.len()) || given.note.contains(char::is_control) {
            Some(Status::Malformed)
        } else if seen.is_none() {
            Some(Status::NotFound)
        } else if seen.is_some_and(|known| known.exception.resolution.is_some()) {
            Some(Status::IllegalTransition)
        } else {
            None
        };
        let past = known.map_or(&[][..], |known| &known.past);
        let (id, effect) = (given.id, Effect::ExceptionResolve(given.clone()));
        self.change(ask, past, Kind::ExceptionResolve, refusal, effect, |oracle| {
            let known = oracle.exceptions.iter().find(|known| known.exception.id == id);
            Body::Exceptions(
                known.map(|known| (known.past[0].lsn, known.exception.clone())).into_iter().collect(),
            )
        })
    }

    pub fn apply_exception(&mut self, event: &Event) {
        let past = event.past(Lifecycle::Available, kami_engine::Flags::NONE, 0);
        match &event.effect {
            Effect::Exception(exception) => self.exceptions.push(Excepted {
                tenant: event.ask.caller.tenant.0,
                code: event.ask.code().expect("about a card").to_owned(),
                exception: Exception::clone(exception),
                past: vec![past],
            }),
            Effect::ExceptionResolve(given) => {
                let known = &mut self.exceptions[given.id as usize - 1];
                known.exception.resolution = Some(Resolution {
                    principal: PrincipalId(event.ask.caller.principal.0),
                    time_ms: event.time_ms,
                    note: given.note.clone(),
                });
                known.past.push(past);
            }
            _ => unreachable!("about an exception"),
        }
    }
}
