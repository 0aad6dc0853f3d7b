//! The oracle's rules for cards and orders: what the reply must be, and which event it is.

use kami_engine::{
    CardKind, CardRef, CardReport, Flags, HistoryEvent, Kind, Lifecycle, OrderId, Origin, PrincipalId,
    ProductId, ReplyFlags, Role, Status, ValueReport,
};

use super::expected::{At, Body, Expected, HistoryLine};
use super::oracle::{Effect, Event, Moved, Oracle, Past, Place};
use crate::ask::{Ask, Deadline, LifeChange, What};

/// A card keeps at most this many tombstones.
const TOMBSTONES_MAX: usize = 64;
/// A card is given back at most this often.
const REVERSALS_MAX: usize = 64;
/// A history lists at most this many events beside the import.
const HISTORY_MAX: usize = 1024;

/// What is said of a code that nobody has.
fn unknown(ask: &Ask) -> Status {
    match ask.what {
        What::Redeem { .. }
        | What::Hold { .. }
        | What::Advice { .. }
        | What::Capture { .. }
        | What::Release { .. } => Status::CardNotValid,
        // To a reversal and to a till the answer is the one for a card that is there, or not sold.
        What::Reverse { .. } => Status::Tombstoned,
        What::OutcomeOf { .. } => Status::NoEffect,
        What::Query { .. } | What::History { .. } if ask.caller.role == Role::Redeemer => {
            Status::CardNotValid
        }
        _ => Status::NotFound,
    }
}

/// What must come of a request: the reply, and the event if it has an effect.
pub type Verdict = (Expected, Option<Event>);

impl Oracle {
    /// Decides a request at the oracle's time. `payload_bytes` is how much one record of this log
    /// can hold.
    pub fn decide(&self, ask: &Ask, payload_bytes: u64) -> Verdict {
        if ask.deadline == Deadline::Passed {
            return self.refuse(Status::DeadlinePassed);
        }
        if self.principals.get(&ask.caller.principal.0).is_some_and(|principal| principal.revoked) {
            return self.refuse(Status::Unauthenticated);
        }
        match &ask.what {
            What::Advice { .. } => self.advice(ask),
            What::Replace { code, with } => self.replace(ask, code, with.as_deref()),
            What::Transfer { from, to, amount } => self.transfer(ask, from, to, *amount),
            &What::OutcomeOfOrder { order, asked } => self.outcome_of_order(ask, order, asked),
            &What::OutcomeOfDocument { document, asked } => self.outcome_of_document(ask, document, asked),
            what if what.order().is_some() => self.on_order(ask, payload_bytes),
            _ if ask.code().is_some() => self.noted_before(ask).unwrap_or_else(|| self.on_card(ask)),
            _ => self.on_object(ask, payload_bytes),
        }
    }

    pub fn refuse(&self, status: Status) -> Verdict {
        (Expected::plain(status, self.now_ms), None)
    }

    /// The answer that a guess gets.
    pub fn miss(&self, status: Status) -> Verdict {
        (Expected { miss: true, ..Expected::plain(status, self.now_ms) }, None)
    }

    /// Whether a principal may touch a product.
    pub fn covers(&self, principal: PrincipalId, product: u32) -> bool {
        self.principals.get(&principal.0).is_none_or(|principal| {
            let products = &principal.spec.products;
            products.is_empty() || products.contains(&ProductId(product))
        })
    }

    pub fn event(&self, ask: &Ask, kind: Kind, effect: Effect) -> Event {
        Event { kind, ask: ask.clone(), time_ms: self.now_ms, lsn: None, effect }
    }

    /// What is said of a card, but for one whose product is denied to the caller: that one is told of a retry only.
    pub fn on_card(&self, ask: &Ask) -> Verdict {
        let (expected, event) = self.on_any_card(ask);
        let place = self.find(ask.caller.tenant.0, ask.code().expect("about a card"));
        let Some(place) = place.filter(|place| self.denies(ask, place.0)) else { return (expected, event) };
        if expected.status == Status::PinLocked {
            return self.miss(Status::CardNotValid);
        }
        if expected.flags.contains(ReplyFlags::REPLAYED) || expected.status == Status::CardNotValid {
            return (expected, event);
        }
        let unsold = matches!(self.card(place).lifecycle, Lifecycle::Available | Lifecycle::Reserved);
        self.miss(if unsold { unknown(ask) } else { Status::ScopeDenied })
    }

    /// Whether the product of a batch is denied to the caller for its class, its merchant or its store.
    pub fn denies(&self, ask: &Ask, batch: u32) -> bool {
        let caller = ask.caller;
        let terms = &self.products[&self.batches[&batch].product].spec.terms;
        let known = self.principals.get(&caller.principal.0).map(|principal| &principal.spec);
        let (store, classes) = known.map_or((0, 0), |spec| (spec.store, spec.classes));
        let ends = matches!(
            ask.what,
            What::Reverse { .. } | What::Capture { .. } | What::Release { .. } | What::OutcomeOf { .. }
        );
        let uses = matches!(ask.what, What::Redeem { .. } | What::Hold { .. } | What::Advice { .. });
        let everywhere = matches!(caller.role, Role::Admin | Role::Operator);
        let other_class = classes != 0 && classes & 1 << terms.class == 0;
        let elsewhere = !terms.merchants.is_empty() && !terms.merchants.contains(&caller.merchant)
            || !terms.stores.is_empty() && !terms.stores.contains(&store);
        !ends && (other_class || uses && !everywhere && elsewhere)
    }

    fn on_any_card(&self, ask: &Ask) -> Verdict {
        let tenant = ask.caller.tenant.0;
        let unknown = self.miss(unknown(ask));
        let Some(place) = self.find(tenant, ask.code().expect("about a card")) else { return unknown };
        let unsold = matches!(self.card(place).lifecycle, Lifecycle::Available | Lifecycle::Reserved);
        if !self.covers(ask.caller.principal, self.batches[&place.0].product) {
            return match &ask.what {
                _ if unsold => unknown,
                What::Reverse { .. }
                | What::Capture { .. }
                | What::Release { .. }
                | What::OutcomeOf { .. } => unknown,
                What::Redeem { pin, .. } | What::Hold { pin, .. } | What::Advice { pin, .. } => {
                    // An id that was used before is told of before the PIN is looked at.
                    let card = self.card(place);
                    let id = ask.id;
                    let seen = card.past.iter().any(|past| {
                        past.has_id() && past.ask.id == id
                            || past.kind == Kind::Tombstone && past.related == id
                    });
                    let right = card.pin.is_none() || card.pin == *pin;
                    match seen {
                        true => self.miss(Status::ScopeDenied),
                        // One that is locked is told nothing by the lock.
                        false if self.is_locked(ask, place) => self.miss(Status::CardNotValid),
                        false if right => self.miss(Status::ScopeDenied),
                        false => self.wrong_pin(ask, place),
                    }
                }
                _ => self.miss(Status::ScopeDenied),
            };
        }
        if unsold && let What::Reverse { original, .. } = ask.what {
            return self.reverse_unsold(ask, place, original);
        }
        match &ask.what {
            &What::OutcomeOf { asked, .. } => self.outcome_of_card(ask, place, asked),
            What::Query { .. } | What::History { .. } => self.read(ask, place),
            // A card that is not sold is to a till what a code is that does not exist.
            What::Redeem { .. }
            | What::Hold { .. }
            | What::Advice { .. }
            | What::Capture { .. }
            | What::Release { .. }
                if unsold =>
            {
                self.miss(Status::CardNotValid)
            }
            _ => match self.card(place).past.iter().find(|past| past.has_id() && past.ask.id == ask.id) {
                Some(past) => self.again(ask, place, past),
                None => self.first_time(ask, place),
            },
        }
    }

    /// The id had an effect on this card before.
    fn again(&self, ask: &Ask, place: Place, past: &Past) -> Verdict {
        let same_body = match (&ask.what, &past.ask.what) {
            // A redemption that was made offline is the one that may have arrived before.
            (What::Advice { amount, .. }, What::Advice { amount: first, .. }) => amount == first,
            (What::Advice { amount, .. }, What::Redeem { amount: first, partial, .. }) => {
                let took_all = *amount == 0 || self.kind(place) == CardKind::Single;
                amount == first && (!partial || took_all || past.moved.amount == *amount)
            }
            (What::Redeem { amount: first, partial, .. }, What::Advice { amount, .. }) => {
                amount == first && !partial
            }
            (
                What::Redeem { amount, partial, .. },
                What::Redeem { amount: first, partial: first_partial, .. },
            ) => (amount, partial) == (first, first_partial),
            (
                What::Hold { amount, partial, seconds, .. },
                What::Hold { amount: first, partial: first_partial, seconds: first_seconds, .. },
            ) => (amount, partial, seconds) == (first, first_partial, first_seconds),
            (What::Capture { hold, amount, .. }, What::Capture { hold: first, amount: first_amount, .. }) => {
                (hold, amount) == (first, first_amount)
            }
            (What::Release { hold, .. }, What::Release { hold: first, .. }) => hold == first,
            (What::Load { amount, .. }, What::Load { amount: first, .. }) => amount == first,
            (
                What::Refund { original, amount, .. },
                What::Refund { original: first, amount: first_amount, .. },
            ) => (original, amount) == (first, first_amount),
            (What::Settle { .. }, What::Settle { .. }) => true,
            (What::Reverse { original, .. }, What::Reverse { original: first, .. }) => original == first,
            (What::Freeze { .. }, What::Freeze { .. })
            | (What::Unfreeze { .. }, What::Unfreeze { .. })
            | (What::PinUnlock { .. }, What::PinUnlock { .. })
            | (What::Void { .. }, What::Void { .. }) => true,
            (What::Life { change, .. }, What::Life { change: first, .. }) => change == first,
            _ => false,
        };
        if !same_body || past.ask.why != ask.why || past.ask.caller.principal != ask.caller.principal {
            return self.refuse(Status::IdReused);
        }
        if past.kind == Kind::Tombstone {
            // Nothing tells it from the reversal of a code that does not exist.
            return self.refuse(Status::Tombstoned);
        }
        if self.told_value(place, past.kind) {
            return self.told_again(ask, place, past);
        }
        let mut expected = Expected::plain(Status::Ok, past.time_ms);
        expected.flags = ReplyFlags::REPLAYED;
        if past.reversed {
            expected.flags = expected.flags.with(ReplyFlags::REVERSED);
        }
        expected.lsn = At::Known(past.lsn);
        let card = self.card(place);
        expected.body = self.card_body(past.kind, place, card.lifecycle, card.flags);
        (expected, None)
    }

    pub fn card_body(&self, kind: Kind, place: Place, lifecycle: Lifecycle, flags: Flags) -> Body {
        let face = self.face(place);
        let product = ProductId(self.batches[&place.0].product);
        match kind {
            Kind::Redeem => Body::Value(ValueReport { product, amount: face, remaining: 0 }),
            Kind::Reverse => Body::Value(ValueReport { product, amount: face, remaining: face }),
            Kind::Tombstone => Body::None,
            _ => Body::Card(self.card_report(place, lifecycle, flags, None)),
        }
    }

    /// A card as a reader sees it, once its logged state is `lifecycle` and `flags`.
    pub fn card_report(
        &self,
        place: Place,
        lifecycle: Lifecycle,
        mut flags: Flags,
        order: Option<u128>,
    ) -> CardReport {
        let batch = &self.batches[&place.0];
        if self.is_active_once(place, flags) {
            flags = flags.with(Flags::ACTIVE);
        }
        if batch.frozen || self.is_product_frozen(&self.products[&batch.product]) {
            flags = flags.with(Flags::FROZEN);
        }
        CardReport {
            card: CardRef::from_bits(u64::from(place.0) << 40 | place.1 as u64),
            product: ProductId(batch.product),
            lifecycle: self.effective(place, lifecycle),
            flags,
            face: self.face(place),
            remaining: self.left(place),
            held: self.held(place).0,
            expires_ms: self.expires_ms(place),
            order: order.map(OrderId),
        }
    }

    fn first_time(&self, ask: &Ask, place: Place) -> Verdict {
        let undone = match ask.what {
            What::Reverse { original, .. } | What::Refund { original, .. } => Some(original),
            What::Settle { .. } => Some(0),
            _ => None,
        };
        // What was used up elsewhere is not known by any id.
        let card = self.card(place);
        if let Some(original) = undone
            && card.lifecycle == Lifecycle::Redeemed
            && card.flags.contains(Flags::MIGRATED)
            && !card.past.iter().any(|past| past.has_id() && past.ask.id == original)
        {
            return self.refuse(Status::Migrated);
        }
        if let What::Life { change, .. } = ask.what {
            return self.live(ask, place, change);
        }
        let whole = matches!(
            ask.what,
            What::Freeze { .. } | What::Unfreeze { .. } | What::Void { .. } | What::PinUnlock { .. }
        );
        if !whole && self.is_in_parts(ask, place) {
            return self.first_time_in_parts(ask, place);
        }
        let card = self.card(place);
        let frozen = card.flags.contains(Flags::FROZEN);
        let effective = self.effective(place, card.lifecycle);
        match &ask.what {
            What::Redeem { pin, amount, .. } => {
                match self.redeem_refusal(ask, place, pin.as_deref(), *amount) {
                    Some(Status::CardNotValid) => self.wrong_pin(ask, place),
                    Some(status) => self.refuse(status),
                    None if let Some(exceeded) = self.till_refusal(ask, self.batches[&place.0].product) => {
                        self.refuse_exceeded(exceeded)
                    }
                    None => self.moves(
                        ask,
                        place,
                        Kind::Redeem,
                        Lifecycle::Redeemed,
                        card.flags.with(Flags::USED),
                        0,
                    ),
                }
            }
            What::Reverse { original, .. } => self.reverse(ask, place, *original),
            What::Freeze { .. } => {
                if effective == Lifecycle::Voided {
                    self.refuse(Status::Voided)
                } else if frozen {
                    self.refuse(Status::IllegalTransition)
                } else {
                    self.moves(ask, place, Kind::Freeze, card.lifecycle, card.flags.with(Flags::FROZEN), 0)
                }
            }
            What::PinUnlock { .. } => self.pin_unlock(ask, place),
            What::Unfreeze { .. } if !frozen => self.refuse(Status::IllegalTransition),
            What::Unfreeze { .. } => {
                self.moves(ask, place, Kind::Unfreeze, card.lifecycle, card.flags.without(Flags::FROZEN), 0)
            }
            What::Void { .. } => match card.lifecycle {
                Lifecycle::Available if effective != Lifecycle::Voided => {
                    self.moves(ask, place, Kind::Void, Lifecycle::Voided, card.flags, 0)
                }
                Lifecycle::Available | Lifecycle::Voided => self.refuse(Status::Voided),
                Lifecycle::Returned => self.moves(ask, place, Kind::Void, Lifecycle::Voided, card.flags, 0),
                Lifecycle::Sold if self.held(place).1 > 0 => self.refuse(Status::IllegalTransition),
                Lifecycle::Sold if ask.approver.is_some() => {
                    self.moves(ask, place, Kind::Void, Lifecycle::Voided, card.flags, 0)
                }
                // A sold card is voided by two people only.
                Lifecycle::Sold => self.refuse(Status::ApprovalRequired),
                _ => self.refuse(Status::IllegalTransition),
            },
            _ => unreachable!("not about a card, or a read"),
        }
    }

    /// What changes when a card may be used.
    fn live(&self, ask: &Ask, place: Place, change: LifeChange) -> Verdict {
        let card = self.card(place);
        if let LifeChange::Restock(reference) = change {
            return match card.lifecycle {
                Lifecycle::Returned => {
                    self.moves(ask, place, Kind::Restock, Lifecycle::Voided, card.flags, reference)
                }
                Lifecycle::Voided => self.refuse(Status::Voided),
                _ => self.refuse(Status::IllegalTransition),
            };
        }
        let active = self.is_active(place);
        let ends = self.expires_ms(place);
        let staff = matches!(ask.caller.role, Role::Admin | Role::Operator);
        let unsold = matches!(card.lifecycle, Lifecycle::Available | Lifecycle::Reserved);
        let refusal = match self.effective(place, card.lifecycle) {
            Lifecycle::Voided => Some(Status::Voided),
            Lifecycle::Returned => Some(Status::Returned),
            Lifecycle::Redeemed => Some(Status::AlreadyRedeemed),
            Lifecycle::Expired if !matches!(change, LifeChange::Extend(_)) => Some(Status::Expired),
            _ if change == LifeChange::Activate && unsold && !staff => Some(Status::NotSold),
            _ => None,
        };
        let reserved = card.lifecycle == Lifecycle::Reserved;
        let (kind, flags, possible) = match change {
            LifeChange::Activate => {
                (Kind::Activate, card.flags.with(Flags::ACTIVE).without(Flags::INACTIVE), !active)
            }
            LifeChange::Deactivate => {
                let used = card.flags.contains(Flags::USED) || self.held(place).1 > 0;
                (Kind::Deactivate, card.flags.with(Flags::INACTIVE).without(Flags::ACTIVE), active && !used)
            }
            LifeChange::Extend(to) => {
                let later = ends != 0 && to > ends && to > self.now_ms;
                (Kind::Extend, card.flags.with(Flags::OWN_END), later && !reserved)
            }
            LifeChange::Restock(_) => unreachable!("dealt with before"),
            LifeChange::Expire => {
                (Kind::Expire, card.flags.with(Flags::OWN_END), !self.is_expired(place) && !reserved)
            }
        };
        match refusal {
            Some(status) => self.refuse(status),
            None if !possible => self.refuse(Status::IllegalTransition),
            None => self.moves(ask, place, kind, card.lifecycle, flags, 0),
        }
    }

    pub fn moves(
        &self,
        ask: &Ask,
        place: Place,
        kind: Kind,
        lifecycle: Lifecycle,
        flags: Flags,
        related: u128,
    ) -> Verdict {
        let flags = flags.with(Flags::HAS_EFFECTS);
        let event =
            self.event(ask, kind, Effect::Card { place, lifecycle, flags, related, moved: Moved::default() });
        let tombstone = kind == Kind::Tombstone;
        let status = if tombstone { Status::Tombstoned } else { Status::Ok };
        let mut expected = Expected::plain(status, self.now_ms);
        // A tombstone has no receipt, as the answer for a code that does not exist has none.
        expected.lsn = if tombstone { At::None } else { At::New };
        expected.body = if matches!(ask.what, What::Life { .. }) {
            // The end of its validity is a new one.
            let mut after = self.clone();
            after.apply(&event);
            after.card_body(kind, place, lifecycle, flags)
        } else {
            self.card_body(kind, place, lifecycle, flags)
        };
        (expected, Some(event))
    }

    fn redeem_refusal(&self, ask: &Ask, place: Place, pin: Option<&str>, amount: i64) -> Option<Status> {
        let unusable = self.unusable(ask, place, pin, true);
        let face = self.face(place);
        unusable.or(if amount != 0 && amount > face {
            Some(Status::InsufficientValue)
        } else if amount != 0 && amount != face {
            Some(Status::IllegalTransition)
        } else {
            None
        })
    }

    /// Why a card's value cannot be used, whatever it is.
    pub fn unusable(&self, ask: &Ask, place: Place, pin: Option<&str>, asks_pin: bool) -> Option<Status> {
        let batch = &self.batches[&place.0];
        let card = self.card(place);
        let poisoned = card.past.iter().any(|past| past.kind == Kind::Tombstone && past.related == ask.id);
        let at_ms = match ask.what {
            What::Advice { made_ms, .. } => self.now_ms.min(made_ms),
            _ => self.now_ms,
        };
        let pin_right = !asks_pin || card.pin.as_deref().is_none_or(|own| pin == Some(own));
        if poisoned {
            return Some(Status::ReversedBeforeArrival);
        }
        if asks_pin && self.is_locked(ask, place) {
            return Some(Status::PinLocked);
        }
        if !pin_right {
            return Some(Status::CardNotValid);
        }
        match card.lifecycle {
            Lifecycle::Redeemed => return Some(Status::AlreadyRedeemed),
            Lifecycle::Voided => return Some(Status::Voided),
            Lifecycle::Returned => return Some(Status::Returned),
            _ if self.ends_by(place, at_ms) => return Some(Status::Expired),
            _ => {}
        }
        if self.is_frozen(place) {
            Some(Status::Frozen)
        } else if !self.is_active(place) {
            Some(Status::NotActive)
        } else if at_ms < batch.valid_from_ms {
            Some(Status::NotYetValid)
        } else {
            None
        }
    }

    /// The answer is always that for an unknown code; the id is poisoned where that is new and there is room.
    fn reverse_unsold(&self, ask: &Ask, place: Place, original: u128) -> Verdict {
        let card = self.card(place);
        let tombstones = || card.past.iter().filter(|past| past.kind == Kind::Tombstone);
        let mut own = card.past.iter().filter(|past| past.has_id());
        let known = own.any(|past| past.ask.id == ask.id || past.ask.id == original)
            || tombstones().any(|past| past.related == original);
        if known || tombstones().count() >= TOMBSTONES_MAX {
            return self.miss(Status::Tombstoned);
        }
        let (expected, event) = self.moves(ask, place, Kind::Tombstone, card.lifecycle, card.flags, original);
        (Expected { miss: true, ..expected }, event)
    }

    fn reverse(&self, ask: &Ask, place: Place, original: u128) -> Verdict {
        let card = self.card(place);
        let any_merchant = matches!(ask.caller.role, Role::Admin | Role::Operator);
        let seen = card.past.iter().find(|past| past.has_id() && past.ask.id == original);
        let Some(seen) = seen else { return self.poison(ask, place, original) };
        let window_ms = u64::from(self.products[&self.batches[&place.0].product].spec.reversal_s) * 1000;
        let ended = card.past.iter().find(|past| {
            past.related == original
                && matches!(past.kind, Kind::Capture | Kind::Release | Kind::HoldTimeout | Kind::Reverse)
        });
        let refusal = if seen.kind == Kind::Hold {
            let over = ended.is_some_and(|past| past.kind == Kind::HoldTimeout);
            Some(if over { Status::HoldExpired } else { Status::HoldResolved })
        } else if !matches!(seen.kind, Kind::Redeem | Kind::Capture) {
            Some(Status::IllegalTransition)
        } else if seen.ask.caller.merchant != ask.caller.merchant && !any_merchant {
            Some(Status::ScopeDenied)
        } else if seen.reversed || self.was_refunded(place, original) {
            Some(Status::AlreadyReversed)
        } else if card.flags.contains(Flags::SETTLED) {
            Some(Status::Settled)
        } else if self.now_ms - seen.time_ms > window_ms {
            Some(Status::ReverseWindowClosed)
        } else if card.past.iter().filter(|past| past.reversed).count() >= REVERSALS_MAX {
            Some(Status::ReversalsExhausted)
        } else {
            None
        };
        match refusal {
            Some(status) => self.refuse(status),
            None => {
                let flags = card.flags.without(Flags::USED);
                self.moves(ask, place, Kind::Reverse, Lifecycle::Sold, flags, original)
            }
        }
    }

    /// The reversal of something never seen.
    pub fn poison(&self, ask: &Ask, place: Place, original: u128) -> Verdict {
        let card = self.card(place);
        let tombstones = || card.past.iter().filter(|past| past.kind == Kind::Tombstone);
        if tombstones().any(|past| past.related == original) {
            self.refuse(Status::Tombstoned)
        } else if tombstones().count() >= TOMBSTONES_MAX {
            self.refuse(Status::ReversalsExhausted)
        } else {
            self.moves(ask, place, Kind::Tombstone, card.lifecycle, card.flags, original)
        }
    }

    fn read(&self, ask: &Ask, place: Place) -> Verdict {
        let card = self.card(place);
        if ask.caller.role == Role::Redeemer
            && matches!(card.lifecycle, Lifecycle::Available | Lifecycle::Reserved)
        {
            return self.miss(Status::CardNotValid);
        }
        let mut expected = Expected::plain(Status::Ok, self.now_ms);
        if let Some(last) = card.past.last() {
            expected.lsn = At::Known(last.lsn);
        }
        expected.body = if matches!(ask.what, What::History { .. }) {
            let mut lines = self.history(place);
            // With the import it is the whole, or it is said to be less.
            if lines.len() > HISTORY_MAX + 1 {
                lines.truncate(HISTORY_MAX);
                expected.flags = ReplyFlags::PARTIAL;
            }
            Body::History(lines)
        } else {
            let last = card.past.iter().rfind(|past| past.is_of_order());
            let gone = [Kind::Cancel, Kind::ReserveTimeout, Kind::Return, Kind::Replace];
            let order = last.filter(|last| !gone.contains(&last.kind)).map(|last| match last.kind {
                Kind::Replacement => self.order_of(place).expect("it took a place in one").1,
                _ => last.related,
            });
            let of_old = card.origin.and_then(|origin| origin.order).map(|order| order.0);
            let order = order.or(of_old);
            Body::Card(self.card_report(place, card.lifecycle, card.flags, order))
        };
        (expected, None)
    }

    /// What is told of another system, newest first.
    fn of_old(&self, place: Place, was: &Origin, import: &HistoryLine) -> Vec<HistoryLine> {
        let in_parts = self.products[&self.batches[&place.0].product].spec.kind != CardKind::Single;
        let left = was.remaining.filter(|_| in_parts && was.state == Lifecycle::Sold).unwrap_or(0);
        let line = |lifecycle, flags, made_ms, remaining| HistoryLine {
            lsn: import.lsn,
            event: HistoryEvent {
                kind: Kind::Migrated,
                lifecycle,
                flags,
                made_ms,
                remaining,
                related: was.order.map_or(0, |order| order.0),
                grounds: None,
                ..import.event.clone()
            },
        };
        let frozen = |flags: Flags| if was.frozen { flags.with(Flags::FROZEN) } else { flags };
        let in_hand = Flags::REVEALED;
        match was.state {
            Lifecycle::Available if was.frozen => {
                vec![line(Lifecycle::Available, Flags::FROZEN, 0, 0)]
            }
            Lifecycle::Available => vec![],
            Lifecycle::Sold if was.redeemed_ms == 0 => {
                vec![line(Lifecycle::Sold, frozen(in_hand), was.sold_ms, left)]
            }
            Lifecycle::Sold => vec![
                line(Lifecycle::Sold, frozen(in_hand), was.redeemed_ms, left),
                line(Lifecycle::Sold, in_hand, was.sold_ms, 0),
            ],
            Lifecycle::Redeemed => vec![
                line(Lifecycle::Redeemed, in_hand.with(Flags::MIGRATED), was.redeemed_ms, 0),
                line(Lifecycle::Sold, in_hand, was.sold_ms, 0),
            ],
            Lifecycle::Returned => {
                vec![line(was.state, in_hand, 0, 0), line(Lifecycle::Sold, in_hand, was.sold_ms, 0)]
            }
            _ if was.sold_ms != 0 || was.order.is_some() => {
                vec![line(was.state, Flags::NONE, 0, 0), line(Lifecycle::Sold, in_hand, was.sold_ms, 0)]
            }
            _ => vec![line(was.state, Flags::NONE, 0, 0)],
        }
    }

    fn history(&self, place: Place) -> Vec<HistoryLine> {
        let batch = &self.batches[&place.0];
        let line = |past: &Past| HistoryLine {
            lsn: past.lsn,
            event: HistoryEvent {
                kind: past.kind,
                lsn: kami_engine::Lsn::START,
                time_ms: past.time_ms,
                lifecycle: past.lifecycle,
                flags: past.flags,
                principal: past.ask.caller.principal,
                terminal: kami_engine::TerminalId(past.ask.terminal),
                merchant: past.ask.caller.merchant,
                channel: kami_engine::ChannelId(past.ask.channel),
                request: kami_engine::RequestId(past.ask.id),
                related: past.related,
                amount: past.moved.amount,
                remaining: past.moved.remaining,
                made_ms: if past.kind == Kind::Redeem { past.moved.deadline_ms } else { 0 },
                grounds: past.ask.grounds(),
            },
        };
        let mut lines: Vec<_> = self.card(place).past.iter().rev().map(line).collect();
        let import = line(&batch.past[0]);
        let import = HistoryLine {
            lsn: import.lsn,
            event: HistoryEvent { lifecycle: Lifecycle::Available, flags: Flags::NONE, ..import.event },
        };
        lines.extend(self.card(place).origin.iter().flat_map(|origin| self.of_old(place, origin, &import)));
        lines.push(HistoryLine {
            lsn: import.lsn,
            event: HistoryEvent { related: u128::from(place.0), ..import.event },
        });
        lines
    }
}
