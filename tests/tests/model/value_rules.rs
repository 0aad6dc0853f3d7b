//! The oracle's rules for cards that are used in parts, a number of times, or are held.
//!
//! What is on a card is summed up here from its whole past, every time; the engine reads it off the last entry.

use kami_engine::{
    CardKind, Flags, HoldReport, Kind, Lifecycle, ProductId, ReplyFlags, Role, Status, ValidFrom, ValueReport,
};

use super::expected::{At, Body, Expected};
use super::oracle::{Effect, Moved, Oracle, Past, Place, Uses};
use super::rules::Verdict;
use crate::ask::{Ask, What};

/// A card has at most this many open holds.
const HOLDS_MAX: usize = 64;
/// A single-use card is given back at most this often.
const REVERSALS_MAX: usize = 64;

impl Oracle {
    pub fn kind(&self, place: Place) -> CardKind {
        self.products[&self.batches[&place.0].product].spec.kind
    }

    /// Whether what is asked is decided by what is on the card.
    pub fn is_in_parts(&self, ask: &Ask, place: Place) -> bool {
        self.kind(place) != CardKind::Single
            || self.card(place).flags.contains(Flags::HELD)
            || matches!(
                ask.what,
                What::Hold { .. }
                    | What::Advice { .. }
                    | What::Capture { .. }
                    | What::Release { .. }
                    | What::Load { .. }
                    | What::Refund { .. }
                    | What::Settle { .. }
            )
    }

    /// What is left on a card, by all that happened to it.
    pub fn left(&self, place: Place) -> i64 {
        let card = self.card(place);
        if self.kind(place) == CardKind::Single {
            return if card.lifecycle == Lifecycle::Redeemed { 0 } else { self.face(place) };
        }
        let was = card.origin.unwrap_or_default();
        let mut left = match self.kind(place) {
            _ if was.state == Lifecycle::Redeemed => 0,
            CardKind::Shared => {
                let Uses { sold, returned, .. } = card.uses;
                i64::from(sold) - i64::from(returned)
            }
            _ if let Some(left) = was.remaining => left,
            CardKind::MultiUse => i64::from(self.products[&self.batches[&place.0].product].spec.terms.uses),
            _ => self.face(place),
        };
        for past in &card.past {
            left += match past.kind {
                Kind::Redeem | Kind::Capture => -past.moved.amount,
                Kind::Replace | Kind::Transfer => -past.moved.amount,
                // What it was in stock with is not what it goes on with.
                Kind::Replacement => past.moved.amount - left,
                Kind::Load | Kind::RefundValue | Kind::Receive => past.moved.amount,
                Kind::Reverse => match self.reversed_by(place, past).kind {
                    Kind::Redeem | Kind::Capture => past.moved.amount,
                    Kind::Load => -past.moved.amount,
                    _ => 0,
                },
                _ => 0,
            };
        }
        left
    }

    fn reversed_by(&self, place: Place, reversal: &Past) -> &Past {
        let before = self.card(place).past.iter().take_while(|past| !std::ptr::eq(*past, reversal));
        let own = before.filter(|past| past.has_id()).find(|past| past.ask.id == reversal.related);
        own.or_else(|| self.original_before(place, reversal.related).map(|(_, past)| past))
            .expect("what was reversed happened")
    }

    /// What is held of a card at the oracle's time, and by how many holds.
    pub fn held(&self, place: Place) -> (i64, usize) {
        let live = self.card(place).holds.values().filter(|hold| self.now_ms < hold.deadline_ms);
        live.fold((0, 0), |(sum, count), hold| (sum + hold.amount, count + 1))
    }

    /// Redeemed and neither reversed nor refunded.
    pub fn used(&self, place: Place) -> i64 {
        let past = &self.card(place).past;
        let sum =
            |kind| past.iter().filter(|past| past.kind == kind).map(|past| past.moved.amount).sum::<i64>();
        let back = past
            .iter()
            .filter(|past| past.kind == Kind::Reverse)
            .filter(|past| matches!(self.reversed_by(place, past).kind, Kind::Redeem | Kind::Capture));
        let before = self.card_before(place).map_or(0, |before| self.used(before));
        before + sum(Kind::Redeem) + sum(Kind::Capture)
            - sum(Kind::RefundValue)
            - back.map(|past| past.moved.amount).sum::<i64>()
    }

    pub fn first_time_in_parts(&self, ask: &Ask, place: Place) -> Verdict {
        let decided = match &ask.what {
            What::Redeem { pin, amount, partial, .. } => {
                let partial = *partial || self.takes_parts(place);
                self.redeem_part(ask, place, pin.as_deref(), *amount, partial)
            }
            What::Hold { pin, amount, partial, seconds, .. } => {
                let partial = *partial || self.takes_parts(place);
                self.hold(ask, place, pin.as_deref(), *amount, partial, *seconds)
            }
            // The goods are gone: less than they cost is not enough.
            What::Advice { pin, amount, made_ms, .. } => self
                .redeem_part(ask, place, pin.as_deref(), *amount, false)
                .and_then(|verdict| self.in_its_time(place, *made_ms).map(|()| verdict)),
            What::Capture { hold, amount, .. } => self.capture(ask, place, *hold, *amount),
            What::Release { hold, .. } => self.release(ask, place, *hold),
            What::Load { amount, .. } => self.load(ask, place, *amount),
            What::Refund { original, amount, .. } => self.refund(ask, place, *original, *amount),
            What::Reverse { original, .. } => self.reverse_part(ask, place, *original),
            What::Settle { .. } => self.settle(ask, place),
            _ => unreachable!("not about the value"),
        };
        let counts = matches!(ask.what, What::Redeem { .. } | What::Hold { .. } | What::Advice { .. });
        match decided {
            Ok(_)
                if counts && let Some(exceeded) = self.till_refusal(ask, self.batches[&place.0].product) =>
            {
                let body = Body::Exceeded(exceeded);
                (Expected { body, ..Expected::plain(exceeded.status, self.now_ms) }, None)
            }
            Ok(verdict) => verdict,
            Err(Status::CardNotValid) if counts => self.wrong_pin(ask, place),
            Err(Status::CardNotValid) => self.miss(Status::CardNotValid),
            Err(status) => self.refuse(status),
        }
    }

    fn takes_parts(&self, place: Place) -> bool {
        self.products[&self.batches[&place.0].product].spec.terms.partial
    }

    /// How much is taken of what is asked for.
    fn taken(&self, place: Place, amount: i64, partial: bool) -> Result<(i64, Status), Status> {
        let available = self.left(place) - self.held(place).0;
        match self.kind(place) {
            _ if amount < 0 => Err(Status::Malformed),
            CardKind::Single if amount != 0 && amount < self.face(place) => Err(Status::IllegalTransition),
            CardKind::Single if amount > self.face(place) => Err(Status::InsufficientValue),
            // What is held is all of the card, whatever it is worth.
            CardKind::Single if self.held(place).1 > 0 => Err(Status::InsufficientValue),
            CardKind::Single => Ok((self.face(place), Status::Ok)),
            kind => {
                let wanted = match (amount, kind) {
                    (0, CardKind::MultiUse | CardKind::Shared) => 1,
                    (0, _) => available,
                    _ => amount,
                };
                if available == 0 {
                    let uses = matches!(kind, CardKind::MultiUse | CardKind::Shared);
                    Err(if uses { Status::UsesExhausted } else { Status::InsufficientValue })
                } else if kind == CardKind::Shared && wanted > 1 {
                    Err(Status::InsufficientValue)
                } else if wanted <= available {
                    Ok((wanted, Status::Ok))
                } else if partial {
                    Ok((available, Status::OkPartial))
                } else {
                    Err(Status::InsufficientValue)
                }
            }
        }
    }

    fn usable(&self, ask: &Ask, place: Place, pin: Option<&str>, asks_pin: bool) -> Result<(), Status> {
        match self.unusable(ask, place, pin, asks_pin) {
            Some(Status::AlreadyRedeemed) if self.kind(place) == CardKind::MultiUse => {
                Err(Status::UsesExhausted)
            }
            Some(status) => Err(status),
            None => Ok(()),
        }
    }

    /// The state of a card on which `left` is left and of which `used` is used, for one that is used in parts.
    fn state_of(&self, place: Place, left: i64, used: i64) -> (Lifecycle, Flags) {
        let terms = &self.products[&self.batches[&place.0].product].spec.terms;
        let loads = self.kind(place) == CardKind::StoredValue && terms.value_max > 0;
        let lifecycle =
            if left == 0 && !loads && !self.is_shared(place) { Lifecycle::Redeemed } else { Lifecycle::Sold };
        let flags = self.card(place).flags;
        (lifecycle, if used > 0 { flags.with(Flags::USED) } else { flags.without(Flags::USED) })
    }

    #[expect(clippy::too_many_arguments, reason = "all of an effect's parts")]
    fn moves_value(
        &self,
        ask: &Ask,
        place: Place,
        kind: Kind,
        status: Status,
        (lifecycle, flags): (Lifecycle, Flags),
        related: u128,
        moved: Moved,
    ) -> Verdict {
        let flags = flags.with(Flags::HAS_EFFECTS);
        let begun_ms = self.begins(ask, place, kind);
        let moved = Moved { begun_ms, ..moved };
        let event = self.event(ask, kind, Effect::Card { place, lifecycle, flags, related, moved });
        let mut expected = Expected::plain(status, self.now_ms);
        expected.lsn = At::New;
        expected.body = self.value_told(place, kind, moved);
        if kind == Kind::Settle {
            expected.body = self.card_body(kind, place, lifecycle, flags);
        }
        (expected, Some(event))
    }

    /// From when a card is valid once `kind` moved its value.
    fn begins(&self, ask: &Ask, place: Place, kind: Kind) -> u64 {
        let rule = self.batches[&place.0].validity;
        let by_use = self.kind(place) != CardKind::Single
            && rule.is_some_and(|(from, _)| from == ValidFrom::FirstUse)
            && matches!(kind, Kind::Redeem | Kind::Hold);
        match self.begun_ms(place) {
            0 if by_use => match ask.what {
                What::Advice { made_ms, .. } => self.now_ms.min(made_ms),
                _ => self.now_ms,
            },
            begun_ms => begun_ms,
        }
    }

    /// From when a card is valid, if that follows from what happened to it; 0 if nothing did yet.
    pub fn begun_ms(&self, place: Place) -> u64 {
        let batch = &self.batches[&place.0];
        let card = self.card(place);
        let Some((from, _)) = batch.validity else { return 0 };
        if !matches!(card.lifecycle, Lifecycle::Sold | Lifecycle::Redeemed) {
            return 0;
        }
        let was = card.origin.unwrap_or_default();
        let sold = card.past.iter().rfind(|past| past.is_of_order());
        let sold_ms = sold.map_or(was.sold_ms, |past| past.time_ms);
        let single = self.kind(place) == CardKind::Single;
        let tells = |past: &&Past| past.kind.may_tell_value();
        let told_ms = card.past.iter().rfind(tells).map_or(0, |past| past.moved.begun_ms);
        match from {
            ValidFrom::Import => 0,
            ValidFrom::Sale => sold_ms,
            ValidFrom::Activation if card.flags.contains(Flags::ACTIVE) => {
                let last = card.past.iter().rfind(|past| past.kind == Kind::Activate);
                // Or it took the place of an active one, with the end of that.
                last.map_or(0, |last| last.time_ms).max(sold_ms)
            }
            ValidFrom::Activation => match batch.active[place.1] {
                // What was sold elsewhere was active there, but for what was activated later.
                Some(since_ms)
                    if since_ms == batch.imported_ms
                        && was.sold_ms != 0
                        && was.sold_ms < since_ms
                        && !card.flags.contains(Flags::INACTIVE) =>
                {
                    sold_ms.max(told_ms)
                }
                Some(since_ms) if !card.flags.contains(Flags::INACTIVE) => since_ms.max(sold_ms),
                _ if card.flags.contains(Flags::USED) && !single => told_ms,
                _ => 0,
            },
            ValidFrom::FirstUse if single => 0,
            ValidFrom::FirstUse if was.state == Lifecycle::Sold && was.redeemed_ms != 0 => was.redeemed_ms,
            ValidFrom::FirstUse if self.used(place) > 0 || self.held(place).1 > 0 => told_ms,
            ValidFrom::FirstUse => 0,
        }
    }

    fn value_told(&self, place: Place, kind: Kind, moved: Moved) -> Body {
        let product = ProductId(self.batches[&place.0].product);
        let Moved { amount, remaining, held, deadline_ms, .. } = moved;
        match kind {
            Kind::Hold => Body::Hold(HoldReport { product, amount, remaining, held, deadline_ms }),
            _ => Body::Value(ValueReport { product, amount, remaining }),
        }
    }

    /// The reply to a retry of something that told the card's value.
    pub fn told_again(&self, ask: &Ask, place: Place, past: &Past) -> Verdict {
        let status = match ask.what {
            What::Redeem { amount, .. } | What::Hold { amount, .. } if past.moved.amount < amount => {
                Status::OkPartial
            }
            _ => Status::Ok,
        };
        let mut expected = Expected::plain(status, past.time_ms);
        expected.flags = ReplyFlags::REPLAYED;
        if past.reversed {
            expected.flags = expected.flags.with(ReplyFlags::REVERSED);
        }
        expected.lsn = At::Known(past.lsn);
        expected.body = self.value_told(place, past.kind, past.moved);
        (expected, None)
    }

    /// Whether a retry of this is answered with what the first entry said.
    pub fn told_value(&self, place: Place, kind: Kind) -> bool {
        match kind {
            Kind::Redeem | Kind::Reverse => self.kind(place) != CardKind::Single,
            Kind::Hold | Kind::Capture | Kind::Release | Kind::Load | Kind::RefundValue => true,
            _ => false,
        }
    }

    fn redeem_part(
        &self,
        ask: &Ask,
        place: Place,
        pin: Option<&str>,
        amount: i64,
        partial: bool,
    ) -> Result<Verdict, Status> {
        self.usable(ask, place, pin, true)?;
        let (taken, status) = self.taken(place, amount, partial)?;
        let remaining = self.left(place) - taken;
        let (mut lifecycle, mut flags) = self.state_of(place, remaining, self.used(place) + taken);
        if self.kind(place) == CardKind::Single {
            (lifecycle, flags) = (Lifecycle::Redeemed, flags.with(Flags::USED));
        }
        let deadline_ms = if let What::Advice { made_ms, .. } = ask.what { made_ms } else { 0 };
        let moved = Moved { amount: taken, remaining, held: self.held(place).0, deadline_ms, begun_ms: 0 };
        let state = (lifecycle, flags.without(Flags::SETTLED));
        Ok(self.moves_value(ask, place, Kind::Redeem, status, state, 0, moved))
    }

    fn hold(
        &self,
        ask: &Ask,
        place: Place,
        pin: Option<&str>,
        amount: i64,
        partial: bool,
        seconds: u32,
    ) -> Result<Verdict, Status> {
        self.usable(ask, place, pin, true)?;
        let (taken, status) = self.taken(place, amount, partial)?;
        let card = self.card(place);
        let held = self.held(place).0;
        if card.holds.len() >= HOLDS_MAX {
            return Err(Status::LimitHolds);
        }
        let product_s = self.products[&self.batches[&place.0].product].spec.terms.hold_s;
        let stands_s = if seconds == 0 { product_s } else { seconds.min(product_s) };
        let deadline_ms = self.now_ms + u64::from(stands_s) * 1000;
        let moved = Moved {
            amount: taken,
            remaining: self.left(place),
            held: held + taken,
            deadline_ms,
            begun_ms: 0,
        };
        let state = (card.lifecycle, card.flags.with(Flags::HELD));
        Ok(self.moves_value(ask, place, Kind::Hold, status, state, 0, moved))
    }

    /// The open hold that the caller may end.
    fn open(&self, ask: &Ask, place: Place, hold: u128) -> Result<super::oracle::Hold, Status> {
        let card = self.card(place);
        let Some(open) = card.holds.get(&hold) else {
            let ended = card.past.iter().find(|past| {
                past.related == hold
                    && matches!(past.kind, Kind::Capture | Kind::Release | Kind::HoldTimeout | Kind::Reverse)
            });
            return Err(match ended.map(|past| past.kind) {
                Some(Kind::HoldTimeout) => Status::HoldExpired,
                Some(_) => Status::HoldResolved,
                None => Status::CardNotValid,
            });
        };
        let any_merchant = matches!(ask.caller.role, Role::Admin | Role::Operator);
        if open.merchant != ask.caller.merchant && !any_merchant {
            Err(Status::ScopeDenied)
        } else if open.deadline_ms <= self.now_ms {
            Err(Status::HoldExpired)
        } else {
            Ok(*open)
        }
    }

    fn flags_without_a_hold(&self, place: Place, flags: Flags) -> Flags {
        if self.card(place).holds.len() == 1 { flags.without(Flags::HELD) } else { flags }
    }

    fn poisoned(&self, ask: &Ask, place: Place) -> Result<(), Status> {
        let mut tombstones = self.card(place).past.iter().filter(|past| past.kind == Kind::Tombstone);
        if tombstones.any(|past| past.related == ask.id) {
            Err(Status::ReversedBeforeArrival)
        } else {
            Ok(())
        }
    }

    fn capture(&self, ask: &Ask, place: Place, hold: u128, amount: i64) -> Result<Verdict, Status> {
        self.poisoned(ask, place)?;
        let open = self.open(ask, place, hold)?;
        let taken = if amount == 0 { open.amount } else { amount };
        if taken < 0 {
            return Err(Status::Malformed);
        }
        if taken > open.amount {
            return Err(Status::ExceedsHold);
        }
        if self.kind(place) == CardKind::Single && taken < open.amount {
            return Err(Status::IllegalTransition);
        }
        let remaining = self.left(place) - taken;
        let (mut lifecycle, mut flags) = self.state_of(place, remaining, self.used(place) + taken);
        if self.kind(place) == CardKind::Single {
            (lifecycle, flags) = (Lifecycle::Redeemed, flags.with(Flags::USED));
        }
        let flags = self.flags_without_a_hold(place, flags.without(Flags::SETTLED));
        let held = self.held(place).0 - open.amount;
        let moved = Moved { amount: taken, remaining, held, deadline_ms: 0, begun_ms: 0 };
        Ok(self.moves_value(ask, place, Kind::Capture, Status::Ok, (lifecycle, flags), hold, moved))
    }

    fn release(&self, ask: &Ask, place: Place, hold: u128) -> Result<Verdict, Status> {
        self.poisoned(ask, place)?;
        let open = self.open(ask, place, hold)?;
        let card = self.card(place);
        let flags = self.flags_without_a_hold(place, card.flags);
        let held = self.held(place).0 - open.amount;
        let moved =
            Moved { amount: open.amount, remaining: self.left(place), held, deadline_ms: 0, begun_ms: 0 };
        Ok(self.moves_value(ask, place, Kind::Release, Status::Ok, (card.lifecycle, flags), hold, moved))
    }

    /// The end of a hold that is over: what [`Engine::run_due`](kami_engine::Engine::run_due) must do.
    pub fn timeout(&self, ask: &Ask, place: Place, hold: u128) -> super::oracle::Event {
        let card = self.card(place);
        let flags = self.flags_without_a_hold(place, card.flags).with(Flags::HAS_EFFECTS);
        let (amount, lifecycle) = (card.holds[&hold].amount, card.lifecycle);
        let moved = Moved {
            amount,
            remaining: self.left(place),
            held: self.held(place).0,
            deadline_ms: 0,
            begun_ms: self.begun_ms(place),
        };
        self.event(ask, Kind::HoldTimeout, Effect::Card { place, lifecycle, flags, related: hold, moved })
    }

    fn load(&self, ask: &Ask, place: Place, amount: i64) -> Result<Verdict, Status> {
        if matches!(self.card(place).lifecycle, Lifecycle::Available | Lifecycle::Reserved) {
            return Err(Status::NotSold);
        }
        self.usable(ask, place, None, false)?;
        let terms = &self.products[&self.batches[&place.0].product].spec.terms;
        if self.is_shared(place) {
            return Err(Status::SharedUnfit);
        }
        if self.kind(place) != CardKind::StoredValue || terms.value_max == 0 {
            return Err(Status::IllegalTransition);
        }
        if amount <= 0 {
            return Err(Status::Malformed);
        }
        let remaining = self.left(place).checked_add(amount).filter(|sum| *sum <= terms.value_max);
        let remaining = remaining.ok_or(Status::ValueLimit)?;
        let state = self.state_of(place, remaining, self.used(place));
        let moved = Moved { amount, remaining, held: self.held(place).0, deadline_ms: 0, begun_ms: 0 };
        Ok(self.moves_value(ask, place, Kind::Load, Status::Ok, state, 0, moved))
    }

    fn original(&self, place: Place, id: u128) -> Option<&Past> {
        let mut past = self.card(place).past.iter();
        let own = past.find(|past| past.has_id() && past.ask.id == id);
        own.or_else(|| self.original_before(place, id).map(|(_, past)| past))
    }

    /// Whether what this card did was undone before another took its place. What comes after that is undone there; a
    /// retry at this card is told, but who wants to undo it is sent there first.
    fn was_reversed(&self, place: Place, id: u128, original: &Past) -> bool {
        let past = &self.card(place).past;
        match past.iter().position(|past| std::ptr::eq(past, original)) {
            Some(own) if self.card(place).flags.contains(Flags::REPLACED) => {
                past[own..].iter().any(|past| past.kind == Kind::Reverse && past.related == id)
            }
            _ => original.reversed,
        }
    }

    fn refunds(&self, place: Place, id: u128) -> Vec<i64> {
        let past = &self.card(place).past;
        let own = past.iter().position(|past| past.has_id() && past.ask.id == id);
        let refunds = past[own.unwrap_or(0)..].iter();
        let refunds = refunds.filter(|past| past.kind == Kind::RefundValue && past.related == id);
        let mut refunds: Vec<i64> = refunds.map(|past| past.moved.amount).collect();
        if let (None, Some(before)) = (own, self.card_before(place)) {
            refunds.extend(self.refunds(before, id));
        }
        refunds
    }

    fn in_life(&self, place: Place) -> Result<(), Status> {
        let card = self.card(place);
        match card.lifecycle {
            Lifecycle::Sold | Lifecycle::Redeemed => Ok(()),
            Lifecycle::Voided if card.flags.contains(Flags::REPLACED) => Err(Status::Replaced),
            _ => Err(Status::IllegalTransition),
        }
    }

    pub fn was_refunded(&self, place: Place, id: u128) -> bool {
        !self.refunds(place, id).is_empty()
    }

    fn is_settled(&self, place: Place, original: &Past) -> bool {
        let card = self.card(place);
        if self.kind(place) == CardKind::Single {
            return card.flags.contains(Flags::SETTLED);
        }
        let last_settle = card.past.iter().rposition(|past| past.kind == Kind::Settle);
        match card.past.iter().position(|past| std::ptr::eq(past, original)) {
            Some(at) => last_settle.is_some_and(|settle| at < settle),
            None => {
                let before = self.card_before(place).expect("it happened at a card before");
                last_settle.is_some() || self.is_settled(before, original)
            }
        }
    }

    fn is_in_window(&self, place: Place, original: &Past) -> bool {
        let spec = &self.products[&self.batches[&place.0].product].spec;
        self.now_ms - original.time_ms <= u64::from(spec.reversal_s) * 1000
    }

    fn reversals(&self, place: Place) -> usize {
        self.card(place).past.iter().filter(|past| past.kind == Kind::Reverse).count()
    }

    fn refund(&self, ask: &Ask, place: Place, id: u128, amount: i64) -> Result<Verdict, Status> {
        self.poisoned(ask, place)?;
        let original = self.original(place, id).ok_or(Status::NotFound)?;
        let card = self.card(place);
        let single = self.kind(place) == CardKind::Single;
        if !matches!(original.kind, Kind::Redeem | Kind::Capture) {
            return Err(Status::IllegalTransition);
        }
        if self.was_reversed(place, id, original) {
            return Err(Status::AlreadyReversed);
        }
        self.in_life(place)?;
        if self.is_in_window(place, original) && !self.is_settled(place, original) {
            return Err(Status::IllegalTransition);
        }
        let refunds = self.refunds(place, id);
        let rest =
            if single { self.face(place) } else { original.moved.amount - refunds.iter().sum::<i64>() };
        if !refunds.is_empty() && (single || rest == 0) {
            return Err(Status::AlreadyReversed);
        }
        let back = if amount == 0 { rest } else { amount };
        if back < 0 {
            return Err(Status::Malformed);
        }
        if back > rest {
            return Err(Status::InsufficientValue);
        }
        if single && back < rest {
            return Err(Status::IllegalTransition);
        }
        if single && self.reversals(place) >= REVERSALS_MAX {
            return Err(Status::ReversalsExhausted);
        }
        if ask.approver.is_none() && self.control(ask.caller.tenant.0).on {
            return Err(Status::ApprovalRequired);
        }
        let remaining = self.left(place) + back;
        let (mut lifecycle, mut flags) = self.state_of(place, remaining, self.used(place) - back);
        if single {
            let cleared = card.flags.without(Flags::USED).without(Flags::SETTLED);
            (lifecycle, flags) = (Lifecycle::Sold, cleared);
        }
        let moved = Moved { amount: back, remaining, held: self.held(place).0, deadline_ms: 0, begun_ms: 0 };
        Ok(self.moves_value(ask, place, Kind::RefundValue, Status::Ok, (lifecycle, flags), id, moved))
    }

    fn reverse_part(&self, ask: &Ask, place: Place, id: u128) -> Result<Verdict, Status> {
        let card = self.card(place);
        let single = self.kind(place) == CardKind::Single;
        let Some(original) = self.original(place, id) else { return Ok(self.poison(ask, place, id)) };
        let any_merchant = matches!(ask.caller.role, Role::Admin | Role::Operator);
        if !matches!(original.kind, Kind::Redeem | Kind::Capture | Kind::Load | Kind::Hold) {
            return Err(Status::IllegalTransition);
        }
        if original.ask.caller.merchant != ask.caller.merchant && !any_merchant {
            return Err(Status::ScopeDenied);
        }
        if self.was_reversed(place, id, original) || self.was_refunded(place, id) {
            return Err(Status::AlreadyReversed);
        }
        let held = self.held(place).0;
        if original.kind == Kind::Hold {
            let open = self.open(ask, place, id)?;
            let flags = self.flags_without_a_hold(place, card.flags);
            let remaining = self.left(place);
            let moved = Moved {
                amount: open.amount,
                remaining,
                held: held - open.amount,
                deadline_ms: 0,
                begun_ms: 0,
            };
            let state = (card.lifecycle, flags);
            return Ok(self.moves_value(ask, place, Kind::Reverse, Status::Ok, state, id, moved));
        }
        self.in_life(place)?;
        if self.is_settled(place, original) {
            return Err(Status::Settled);
        }
        if !self.is_in_window(place, original) {
            return Err(Status::ReverseWindowClosed);
        }
        if single && self.reversals(place) >= REVERSALS_MAX {
            return Err(Status::ReversalsExhausted);
        }
        let amount = if single { self.face(place) } else { original.moved.amount };
        let (remaining, used) = if original.kind == Kind::Load {
            if self.left(place) - held < amount {
                return Err(Status::InsufficientValue);
            }
            (self.left(place) - amount, self.used(place))
        } else {
            (self.left(place) + amount, self.used(place) - amount)
        };
        let (mut lifecycle, mut flags) = self.state_of(place, remaining, used);
        if single {
            (lifecycle, flags) = (Lifecycle::Sold, card.flags.without(Flags::USED));
        }
        let moved = Moved { amount, remaining, held, deadline_ms: 0, begun_ms: 0 };
        Ok(self.moves_value(ask, place, Kind::Reverse, Status::Ok, (lifecycle, flags), id, moved))
    }

    fn settle(&self, ask: &Ask, place: Place) -> Result<Verdict, Status> {
        let card = self.card(place);
        if card.flags.contains(Flags::REPLACED) {
            return Err(Status::Replaced);
        }
        if !card.flags.contains(Flags::USED) || card.flags.contains(Flags::SETTLED) {
            return Err(Status::IllegalTransition);
        }
        let (remaining, held) = (self.left(place), self.held(place).0);
        let moved = Moved { amount: 0, remaining, held, deadline_ms: 0, begun_ms: 0 };
        let state = (card.lifecycle, card.flags.with(Flags::SETTLED));
        Ok(self.moves_value(ask, place, Kind::Settle, Status::Ok, state, 0, moved))
    }

    /// Of one card: what is on it is what it was sold with, less what was taken; and what is held is there.
    pub fn check_value(&self, place: Place) {
        let card = self.card(place);
        let (left, (held, _)) = (self.left(place), self.held(place));
        assert!(0 <= held && held <= left, "{} holds {held} of {left}", card.code);
        assert_eq!(
            !card.holds.is_empty(),
            card.flags.contains(Flags::HELD),
            "redeemed or not: {}",
            card.code
        );
        if self.kind(place) == CardKind::Single {
            return;
        }
        assert_eq!(self.used(place) > 0, card.flags.contains(Flags::USED), "redeemed or not: {}", card.code);
        if self.is_shared(place) {
            // Each use has one owner, who used it, or not, or gave it back.
            let Uses { sold, reserved, returned } = card.uses;
            let uses = self.products[&self.batches[&place.0].product].spec.terms.uses;
            assert!(sold + reserved <= uses, "{} is sold too often: {:?}", card.code, card.uses);
            assert!(
                self.used(place) + i64::from(returned) <= i64::from(sold),
                "redeemed or not: {}",
                card.code
            );
            return;
        }
        let last = card.past.iter().rfind(|past| past.moved != Moved::default());
        assert!(last.is_none_or(|last| last.moved.remaining == left), "{} has {left}", card.code);
    }
}
