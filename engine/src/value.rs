//! The rule of a card's value: what may be taken, held, given back and loaded.
//!
//! [`decide`] is pure and total, as [`card::decide`](crate::card::decide) is, which decides on cards that are
//! used as a whole. It serves cards that are used in parts or a number of times, and every card that is held.
//! The value of a MULTI_USE card is how many uses are left.

use kami_wal::Lsn;

use crate::card::{Action, Asker, Outcome, Past, Pin, View, before, unusable};
use crate::holds::{HOLDS_MAX, HeldOf, Hold, HoldChange, HoldKey};
use crate::identity::RequestId;
use crate::product::{CardKind, Money};
use crate::record::{Kind, Purse};
use crate::status::Status;
use crate::word::{Flags, Lifecycle};

/// A card's value moves at most this often; what is open then can still be ended, reversed and refunded.
pub const EFFECTS_MAX: u32 = 1 << 16;

/// What a decision about a card's value rests on beside its [`View`].
#[derive(Clone, Copy, Debug)]
pub struct Value {
    /// What is on the card by its last entry.
    pub purse: Purse,
    /// What is held of it now.
    pub held: HeldOf,
    /// The open hold that is asked about.
    pub open: Option<Hold>,
    /// The most it can hold; 0 if nothing can be loaded.
    pub value_max: Money,
    /// Whether a redemption for more than what is left takes what is left.
    pub partial: bool,
    /// How long a hold stands, in milliseconds.
    pub hold_ms: u64,
}

/// What happens to a card's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Movement {
    /// What is recorded.
    pub kind: Kind,
    /// The lifecycle afterwards.
    pub lifecycle: Lifecycle,
    /// The flags afterwards.
    pub flags: Flags,
    /// What the caller is told.
    pub status: Status,
    /// What is moved.
    pub amount: Money,
    /// The hold or redemption it is about.
    pub related: Option<(RequestId, Option<Lsn>)>,
    /// Of a new hold its deadline; of a redemption that was made offline, when.
    pub deadline_ms: u64,
    /// What is on the card afterwards.
    pub purse: Purse,
    /// The hold it ends.
    pub ends: Option<RequestId>,
}

impl Movement {
    /// What it does to the table of open holds, once it stands at `lsn`.
    #[must_use]
    pub fn hold_change(&self, card: u64, request: RequestId, asker: &Asker, lsn: Lsn) -> Option<HoldChange> {
        let key = |id| -> HoldKey { (card, id) };
        match self.kind {
            Kind::Hold => {
                let Movement { amount, deadline_ms, .. } = *self;
                let hold = Hold { amount, deadline_ms, merchant: asker.merchant, lsn };
                Some(HoldChange::Open(key(request), hold))
            }
            _ => self.ends.map(|id| HoldChange::End(key(id))),
        }
    }
}

impl Value {
    /// What can be taken.
    fn available(&self) -> Money {
        self.purse.remaining - self.held.amount
    }

    /// How much of what is asked for can be taken, and what the caller is told then.
    fn taken(&self, view: &View, asked: Money, partial: bool) -> Result<(Money, Status), Status> {
        let available = self.available();
        let spent = match view.kind {
            CardKind::MultiUse => Status::UsesExhausted,
            _ => Status::InsufficientValue,
        };
        let wanted = match (view.kind, asked) {
            (_, ..0) => return Err(Status::Malformed),
            (CardKind::Single, 0) => view.face,
            (CardKind::MultiUse, 0) => 1,
            (_, 0) => available,
            (_, asked) => asked,
        };
        if view.kind == CardKind::Single && wanted < view.face {
            // A single-use card is spent as a whole or not at all.
            return Err(Status::IllegalTransition);
        }
        if wanted <= available && (0 < wanted || view.kind == CardKind::Single) {
            Ok((wanted, Status::Ok))
        } else if (partial || self.partial) && view.kind != CardKind::Single && 0 < available {
            Ok((available, Status::OkPartial))
        } else if view.kind == CardKind::MultiUse && 0 < available {
            Err(Status::InsufficientValue)
        } else {
            Err(spent)
        }
    }
}

/// Decides one command about a card's value. The order of the checks is the order of precedence.
#[must_use]
pub fn decide(view: &View, value: &Value, past: &Past, action: Action, asker: &Asker) -> Outcome {
    match before(view, past, action, asker) {
        Some(outcome) => outcome,
        None => moved(view, value, past, action, asker).map_or_else(Outcome::Refuse, Outcome::Value),
    }
}

/// One decision being made.
struct Deciding<'a> {
    view: &'a View,
    value: &'a Value,
    past: &'a Past,
    asker: &'a Asker,
}

fn moved(view: &View, value: &Value, past: &Past, action: Action, asker: &Asker) -> Result<Movement, Status> {
    let deciding = Deciding { view, value, past, asker };
    match action {
        Action::Redeem { amount, pin, partial } => deciding.redeem(amount, pin, partial),
        Action::Hold { amount, pin, partial, seconds } => deciding.hold(amount, pin, partial, seconds),
        Action::Capture { hold, amount } => deciding.capture(hold, amount),
        Action::Release { hold } => deciding.release(hold),
        Action::HoldTimeout { hold } => deciding.timeout(hold),
        Action::Load { amount } => deciding.load(amount),
        Action::Refund { original, amount } => deciding.refund(original, amount),
        Action::Reverse(original) => deciding.reverse(original),
        Action::Settle => deciding.settle(),
        // These are decided without regard to the value.
        Action::Freeze
        | Action::Unfreeze
        | Action::Void
        | Action::PinUnlock { .. }
        | Action::Activate
        | Action::Deactivate
        | Action::Extend { .. }
        | Action::Expire
        | Action::Restock { .. } => Err(Status::IllegalTransition),
    }
}

impl Deciding<'_> {
    /// The card once `purse` is what is on it.
    fn after(&self, kind: Kind, amount: Money, mut purse: Purse) -> Movement {
        let (view, value) = (self.view, self.value);
        purse.effects += 1;
        let (lifecycle, used) = if view.kind == CardKind::Single {
            let lifecycle = match kind {
                Kind::Redeem | Kind::Capture => Lifecycle::Redeemed,
                Kind::RefundValue => Lifecycle::Sold,
                Kind::Reverse if self.value.open.is_none() => Lifecycle::Sold,
                _ => view.word.lifecycle(),
            };
            (lifecycle, lifecycle == Lifecycle::Redeemed)
        } else {
            // What nothing can be loaded onto is used up when nothing is left.
            let loads = view.kind == CardKind::StoredValue && 0 < value.value_max;
            let spent = purse.remaining == 0 && !loads;
            let lifecycle = if spent { Lifecycle::Redeemed } else { Lifecycle::Sold };
            (lifecycle, purse.refunded < purse.redeemed)
        };
        let flags = view.word.flags().with(Flags::HAS_EFFECTS);
        let flags = if used { flags.with(Flags::USED) } else { flags.without(Flags::USED) };
        Movement {
            kind,
            lifecycle,
            flags,
            status: Status::Ok,
            amount,
            related: None,
            deadline_ms: 0,
            purse,
            ends: None,
        }
    }

    /// What is on the card as it stands, without what is held by holds that are over.
    fn purse(&self) -> Purse {
        let Past { tombstones, reversals, .. } = *self.past;
        let begun_ms = self.view.begun_ms;
        let count = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
        Purse {
            held: self.value.held.amount,
            tombstones: count(tombstones),
            reversals: count(reversals),
            begun_ms,
            ..self.value.purse
        }
    }

    /// The same once it is used: its validity may begin with that.
    fn used(&self) -> Purse {
        let purse = self.purse();
        let begins = self.view.from_use && purse.begun_ms == 0;
        Purse { begun_ms: if begins { self.view.now_ms } else { purse.begun_ms }, ..purse }
    }

    /// What every command must pass that uses the card's value.
    fn usable(&self, pin: Pin) -> Result<(), Status> {
        if self.past.tombstone && !cfg!(feature = "bug-ignore-tombstones") {
            return Err(Status::ReversedBeforeArrival);
        }
        if let Some(status) = pin.refusal() {
            return Err(status);
        }
        match unusable(self.view) {
            Some(Status::AlreadyRedeemed) if self.view.kind == CardKind::MultiUse => {
                Err(Status::UsesExhausted)
            }
            Some(status) => Err(status),
            None => self.room(),
        }
    }

    fn room(&self) -> Result<(), Status> {
        if self.value.purse.effects < EFFECTS_MAX { Ok(()) } else { Err(Status::EffectsExhausted) }
    }

    fn redeem(&self, amount: Money, pin: Pin, partial: bool) -> Result<Movement, Status> {
        self.usable(pin)?;
        let (taken, status) = self.value.taken(self.view, amount, partial)?;
        let mut purse = self.used();
        purse.remaining -= taken;
        purse.redeemed = purse.redeemed.checked_add(taken).ok_or(Status::EffectsExhausted)?;
        let moved = self.after(Kind::Redeem, taken, purse);
        // What is redeemed after a settlement is not settled.
        Ok(Movement { status, flags: moved.flags.without(Flags::SETTLED), ..moved })
    }

    fn hold(&self, amount: Money, pin: Pin, partial: bool, seconds: u32) -> Result<Movement, Status> {
        self.usable(pin)?;
        let (taken, status) = self.value.taken(self.view, amount, partial)?;
        if self.value.held.count >= HOLDS_MAX {
            return Err(Status::LimitHolds);
        }
        if self.view.kind == CardKind::Single && 0 < self.value.held.live {
            // A face value of zero is held as a whole, too.
            return Err(Status::InsufficientValue);
        }
        let asked_ms = u64::from(seconds) * 1000;
        let stands_ms = if asked_ms == 0 { self.value.hold_ms } else { asked_ms.min(self.value.hold_ms) };
        let mut purse = self.used();
        purse.held += taken;
        let moved = self.after(Kind::Hold, taken, purse);
        let deadline_ms = self.view.now_ms + stands_ms;
        Ok(Movement { status, deadline_ms, flags: moved.flags.with(Flags::HELD), ..moved })
    }

    /// The open hold with this id, if the caller may end it now.
    fn open(&self) -> Result<Hold, Status> {
        let Some(hold) = self.value.open else {
            let is_hold = self.past.original.is_some_and(|original| original.kind == Kind::Hold);
            return Err(match self.past.resolved {
                Some(Kind::HoldTimeout) => Status::HoldExpired,
                Some(_) => Status::HoldResolved,
                // Nothing tells this from a code that nobody has.
                None if !is_hold => Status::CardNotValid,
                None => Status::HoldResolved,
            });
        };
        if hold.merchant != self.asker.merchant && !self.asker.any_merchant {
            return Err(Status::ScopeDenied);
        }
        if self.view.now_ms >= hold.deadline_ms {
            return Err(Status::HoldExpired);
        }
        if self.view.word.lifecycle() != Lifecycle::Sold {
            return Err(Status::IllegalTransition);
        }
        Ok(hold)
    }

    /// The end of a hold: its card says HELD as long as others are open.
    fn ended(&self, id: RequestId, hold: &Hold, moved: Movement) -> Movement {
        let flags = if self.value.held.count <= 1 { moved.flags.without(Flags::HELD) } else { moved.flags };
        Movement { flags, related: Some((id, Some(hold.lsn))), ends: Some(id), ..moved }
    }

    fn poisoned(&self) -> Result<(), Status> {
        if self.past.poisoned { Err(Status::ReversedBeforeArrival) } else { Ok(()) }
    }

    fn capture(&self, id: RequestId, amount: Money) -> Result<Movement, Status> {
        self.poisoned()?;
        let hold = self.open()?;
        let taken = match amount {
            ..0 => return Err(Status::Malformed),
            0 => hold.amount,
            amount => amount,
        };
        if taken > hold.amount {
            return Err(Status::ExceedsHold);
        }
        if taken < hold.amount && self.view.kind == CardKind::Single {
            return Err(Status::IllegalTransition);
        }
        let mut purse = self.purse();
        purse.remaining -= taken;
        purse.held -= hold.amount;
        purse.redeemed = purse.redeemed.checked_add(taken).ok_or(Status::EffectsExhausted)?;
        let moved = self.after(Kind::Capture, taken, purse);
        let flags = moved.flags.without(Flags::SETTLED);
        Ok(self.ended(id, &hold, Movement { flags, ..moved }))
    }

    fn release(&self, id: RequestId) -> Result<Movement, Status> {
        self.poisoned()?;
        let hold = self.open()?;
        let mut purse = self.purse();
        purse.held -= hold.amount;
        Ok(self.ended(id, &hold, self.after(Kind::Release, hold.amount, purse)))
    }

    fn timeout(&self, id: RequestId) -> Result<Movement, Status> {
        let hold = self.value.open.ok_or(Status::HoldResolved)?;
        if self.view.now_ms < hold.deadline_ms {
            return Err(Status::IllegalTransition);
        }
        // It keeps nothing since its deadline: the card's lifecycle may have moved on.
        let moved = self.after(Kind::HoldTimeout, hold.amount, self.purse());
        let lifecycle = self.view.word.lifecycle();
        Ok(self.ended(id, &hold, Movement { lifecycle, ..moved }))
    }

    fn load(&self, amount: Money) -> Result<Movement, Status> {
        if self.view.word.is_unsold() {
            return Err(Status::NotSold);
        }
        self.usable(Pin::Right)?;
        if self.view.kind != CardKind::StoredValue || self.value.value_max == 0 {
            return Err(Status::IllegalTransition);
        }
        if amount <= 0 {
            return Err(Status::Malformed);
        }
        let mut purse = self.purse();
        let full = purse.remaining.checked_add(amount).filter(|sum| *sum <= self.value.value_max);
        purse.remaining = full.ok_or(Status::ValueLimit)?;
        purse.loaded = purse.loaded.checked_add(amount).ok_or(Status::EffectsExhausted)?;
        Ok(self.after(Kind::Load, amount, purse))
    }

    fn is_settled(&self, lsn: Lsn) -> bool {
        if self.view.kind == CardKind::Single {
            return self.view.word.flags().contains(Flags::SETTLED);
        }
        self.value.purse.settled > Some(lsn)
    }

    /// Gives value back that was redeemed.
    fn given_back(&self, kind: Kind, id: RequestId, at: Lsn, amount: Money) -> Result<Movement, Status> {
        let mut purse = self.purse();
        purse.remaining = purse.remaining.checked_add(amount).ok_or(Status::EffectsExhausted)?;
        if kind == Kind::Reverse || self.view.kind == CardKind::Single {
            purse.redeemed -= amount;
        } else {
            purse.refunded += amount;
        }
        let mut moved = self.after(kind, amount, purse);
        if self.view.kind == CardKind::Single {
            // What comes next on it is another redemption, which is not settled.
            moved.flags = moved.flags.without(Flags::SETTLED);
        }
        Ok(Movement { related: Some((id, Some(at))), ..moved })
    }

    fn refund(&self, id: RequestId, amount: Money) -> Result<Movement, Status> {
        self.poisoned()?;
        let original = self.past.original.ok_or(Status::NotFound)?;
        if !matches!(original.kind, Kind::Redeem | Kind::Capture) {
            return Err(Status::IllegalTransition);
        }
        if original.reversed {
            return Err(Status::AlreadyReversed);
        }
        if !matches!(self.view.word.lifecycle(), Lifecycle::Sold | Lifecycle::Redeemed) {
            return Err(Status::IllegalTransition);
        }
        let in_window = self.view.now_ms.saturating_sub(original.time_ms) <= self.view.reversal_ms;
        if in_window && !self.is_settled(original.lsn) {
            // As long as it can be reversed, it is.
            return Err(Status::IllegalTransition);
        }
        let single = self.view.kind == CardKind::Single;
        let rest = if single { self.view.face } else { original.amount - self.past.refunded };
        if self.past.was_refunded && (single || rest == 0) {
            return Err(Status::AlreadyReversed);
        }
        let back = match amount {
            ..0 => return Err(Status::Malformed),
            0 => rest,
            amount => amount,
        };
        if back > rest {
            return Err(Status::InsufficientValue);
        }
        if single && (back < rest || self.past.reversals >= crate::card::REVERSALS_MAX) {
            return Err(if back < rest { Status::IllegalTransition } else { Status::ReversalsExhausted });
        }
        self.room()?;
        self.given_back(Kind::RefundValue, id, original.lsn, back)
    }

    fn reverse(&self, id: RequestId) -> Result<Movement, Status> {
        // One that was never seen was dealt with before.
        let original = self.past.original.ok_or(Status::Tombstoned)?;
        if !matches!(original.kind, Kind::Redeem | Kind::Capture | Kind::Load | Kind::Hold) {
            return Err(Status::IllegalTransition);
        }
        if original.merchant != self.asker.merchant && !self.asker.any_merchant {
            return Err(Status::ScopeDenied);
        }
        if original.reversed || self.past.was_refunded {
            return Err(Status::AlreadyReversed);
        }
        if original.kind == Kind::Hold {
            let hold = self.open()?;
            let mut purse = self.purse();
            purse.held -= hold.amount;
            purse.reversals = purse.reversals.saturating_add(1);
            return Ok(self.ended(id, &hold, self.after(Kind::Reverse, hold.amount, purse)));
        }
        if !matches!(self.view.word.lifecycle(), Lifecycle::Sold | Lifecycle::Redeemed) {
            return Err(Status::IllegalTransition);
        }
        if self.is_settled(original.lsn) {
            return Err(Status::Settled);
        }
        if self.view.now_ms.saturating_sub(original.time_ms) > self.view.reversal_ms {
            return Err(Status::ReverseWindowClosed);
        }
        if self.view.kind == CardKind::Single && self.past.reversals >= crate::card::REVERSALS_MAX {
            return Err(Status::ReversalsExhausted);
        }
        let mut moved = if original.kind == Kind::Load {
            if self.value.available() < original.amount {
                return Err(Status::InsufficientValue);
            }
            let mut purse = self.purse();
            purse.remaining -= original.amount;
            purse.loaded -= original.amount;
            let moved = self.after(Kind::Reverse, original.amount, purse);
            Movement { related: Some((id, Some(original.lsn))), ..moved }
        } else {
            let amount = if self.view.kind == CardKind::Single { self.view.face } else { original.amount };
            self.given_back(Kind::Reverse, id, original.lsn, amount)?
        };
        moved.purse.reversals = moved.purse.reversals.saturating_add(1);
        Ok(moved)
    }

    fn settle(&self) -> Result<Movement, Status> {
        let flags = self.view.word.flags();
        if !flags.contains(Flags::USED) || flags.contains(Flags::SETTLED) {
            return Err(Status::IllegalTransition);
        }
        self.room()?;
        let moved = self.after(Kind::Settle, 0, self.purse());
        let lifecycle = self.view.word.lifecycle();
        Ok(Movement { lifecycle, flags: moved.flags.with(Flags::SETTLED), ..moved })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::card::Effect;
    use crate::identity::{MerchantId, PrincipalId};
    use crate::word::Word;

    const NOW: u64 = 1_000_000;
    const ASKER: Asker =
        Asker { principal: PrincipalId(7), merchant: MerchantId(3), any_merchant: false, body: 5 };
    const ID: RequestId = RequestId(42);

    /// `kind/lifecycle remaining held [modifiers]`.
    fn scene(text: &str) -> (View, Value, Past) {
        let lsn = Lsn::from_bytes(4096);
        let mut words = text.split('+');
        let kind = match words.next().unwrap() {
            "single" => CardKind::Single,
            "uses" => CardKind::MultiUse,
            "value" => CardKind::StoredValue,
            other => panic!("no kind: {other}"),
        };
        let mut lifecycle = Lifecycle::Sold;
        let mut flags = Flags::REVEALED.with(Flags::HAS_EFFECTS);
        let face = if kind == CardKind::MultiUse { 5 } else { 100 };
        let mut purse = Purse::fresh(face, lsn);
        let mut view = View {
            word: Word::PRISTINE,
            kind,
            batch_active: true,
            begun_ms: 0,
            from_use: false,
            frozen: false,
            batch_voided: false,
            valid_from_ms: 0,
            expires_ms: 0,
            face,
            reversal_ms: 1000,
            now_ms: NOW,
            held: false,
        };
        let mut value = Value {
            purse,
            held: HeldOf::default(),
            open: None,
            value_max: 0,
            partial: false,
            hold_ms: 60_000,
        };
        let mut past = Past::default();
        let effect = |kind, amount| Effect {
            kind,
            lsn: Lsn::from_bytes(2048).unwrap(),
            time_ms: NOW - 1000,
            principal: PrincipalId(7),
            merchant: MerchantId(3),
            body: 5,
            reversed: false,
            amount,
            remaining: 0,
            held: 0,
            deadline_ms: 0,
        };
        for word in words {
            match word {
                "unsold" => lifecycle = Lifecycle::Available,
                "spent" => {
                    lifecycle = Lifecycle::Redeemed;
                    (purse.remaining, purse.redeemed) = (0, face);
                    flags = flags.with(Flags::USED);
                }
                "used" => {
                    (purse.remaining, purse.redeemed) = (face - 2, 2);
                    flags = flags.with(Flags::USED);
                }
                "settled" => {
                    purse.settled = Lsn::from_bytes(4096);
                    flags = flags.with(Flags::SETTLED);
                }
                "frozen" => view.frozen = true,
                "over" => view.expires_ms = NOW,
                "loads" => value.value_max = 120,
                "partial" => value.partial = true,
                "full" => purse.effects = EFFECTS_MAX,
                "many-holds" => value.held = HeldOf { amount: 1, live: 1, count: HOLDS_MAX },
                "held" | "held-late" | "held-by-other" => {
                    let live = word != "held-late";
                    let amount = if kind == CardKind::Single { face } else { 3 };
                    let deadline_ms = if live { NOW + 1 } else { NOW };
                    let merchant = MerchantId(if word == "held-by-other" { 4 } else { 3 });
                    let lsn = Lsn::from_bytes(2048).unwrap();
                    value.open = Some(Hold { amount, deadline_ms, merchant, lsn });
                    let live = usize::from(live);
                    value.held = HeldOf { amount: amount * live as i64, live, count: 1 };
                    flags = flags.with(Flags::HELD);
                    view.held = live > 0;
                    past.original = Some(effect(Kind::Hold, amount));
                }
                "captured" => past.resolved = Some(Kind::Capture),
                "timed-out" => past.resolved = Some(Kind::HoldTimeout),
                "of-redeem" => past.original = Some(effect(Kind::Redeem, 2)),
                "of-old" => {
                    past.original = Some(Effect { time_ms: NOW - 1001, ..effect(Kind::Redeem, 2) });
                }
                "of-load" => past.original = Some(effect(Kind::Load, 99)),
                "of-freeze" => past.original = Some(effect(Kind::Freeze, 0)),
                "refunded" => (past.was_refunded, past.refunded) = (true, 2),
                "poisoned" => (past.tombstone, past.poisoned) = (true, true),
                other => panic!("no modifier: {other}"),
            }
        }
        value.purse = purse;
        view.word = Word::new(lsn.unwrap(), lifecycle, flags);
        (view, value, past)
    }

    fn action(text: &str) -> Action {
        let (name, amount) = text.split_once(':').unwrap_or((text, "0"));
        let amount: Money = amount.parse().unwrap();
        match name {
            "redeem" => Action::Redeem { amount, pin: Pin::Right, partial: false },
            "redeem-part" => Action::Redeem { amount, pin: Pin::Right, partial: true },
            "redeem-wrong-pin" => Action::Redeem { amount, pin: Pin::Wrong, partial: false },
            "hold" => Action::Hold { amount, pin: Pin::Right, partial: false, seconds: 0 },
            "capture" => Action::Capture { hold: ID, amount },
            "release" => Action::Release { hold: ID },
            "timeout" => Action::HoldTimeout { hold: ID },
            "load" => Action::Load { amount },
            "refund" => Action::Refund { original: ID, amount },
            "reverse" => Action::Reverse(ID),
            "settle" => Action::Settle,
            other => panic!("no action: {other}"),
        }
    }

    #[track_caller]
    fn check(line: &str) {
        let mut words = line.split_whitespace();
        let (state, asked, expected) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
        let (view, value, past) = scene(state);
        let found = match decide(&view, &value, &past, action(asked), &ASKER) {
            Outcome::Refuse(status) => status.code().to_owned(),
            Outcome::Value(moved) => {
                let purse = moved.purse;
                assert!(purse.is_sound(), "{line}: {purse:?}");
                let before = value.purse.initial();
                assert_eq!(purse.initial(), before, "I3: {line}");
                let part = if moved.status == Status::OkPartial { "~" } else { "" };
                let flag = |flag, name| if moved.flags.contains(flag) { name } else { "" };
                format!(
                    "{}{part}={}>{}/{}:{}{}{}{}",
                    moved.kind.name(),
                    moved.amount,
                    purse.remaining,
                    purse.held,
                    moved.lifecycle.name(),
                    flag(Flags::USED, "+used"),
                    flag(Flags::HELD, "+held"),
                    flag(Flags::SETTLED, "+settled"),
                )
            }
            other => format!("{other:?}"),
        };
        assert_eq!(found, expected, "{line}");
    }

    #[test]
    fn what_may_become_of_a_cards_value() {
        let table = "
            value                   redeem:30        REDEEM=30>70/0:SOLD+used
            value                   redeem           REDEEM=100>0/0:REDEEMED+used
            value+loads             redeem           REDEEM=100>0/0:SOLD+used
            value                   redeem:101       INSUFFICIENT_VALUE
            value                   redeem-part:101  REDEEM~=100>0/0:REDEEMED+used
            value+partial           redeem:101       REDEEM~=100>0/0:REDEEMED+used
            value                   redeem:-1        MALFORMED
            value+held              redeem:98        INSUFFICIENT_VALUE
            value+held              redeem           REDEEM=97>3/3:SOLD+used+held
            value+held-late         redeem           REDEEM=100>0/0:REDEEMED+used+held
            value+spent             redeem           ALREADY_REDEEMED
            value+unsold            redeem           CARD_NOT_VALID
            value+frozen            redeem           FROZEN
            value+over              redeem           EXPIRED
            value+over+held         redeem           EXPIRED
            value+poisoned          redeem           REVERSED_BEFORE_ARRIVAL
            value                   redeem-wrong-pin CARD_NOT_VALID
            value+full              redeem           EFFECTS_EXHAUSTED
            value+used+settled      redeem:1         REDEEM=1>97/0:SOLD+used
            uses                    redeem           REDEEM=1>4/0:SOLD+used
            uses                    redeem:5         REDEEM=5>0/0:REDEEMED+used
            uses                    redeem:6         INSUFFICIENT_VALUE
            uses+spent              redeem           USES_EXHAUSTED
            single+held             redeem           INSUFFICIENT_VALUE
            single+held-late        redeem           REDEEM=100>0/0:REDEEMED+used+held
            single+held-late        redeem:99        ILLEGAL_TRANSITION

            value                   hold:30          HOLD=30>100/30:SOLD+held
            value                   hold:101         INSUFFICIENT_VALUE
            value+held              hold:97          HOLD=97>100/100:SOLD+held
            value+many-holds        hold:1           LIMIT_HOLDS
            value+frozen            hold:1           FROZEN
            single                  hold             HOLD=100>100/100:SOLD+held
            single                  hold:99          ILLEGAL_TRANSITION
            single+held             hold             INSUFFICIENT_VALUE
            single+spent            hold             ALREADY_REDEEMED

            value+held              capture          CAPTURE=3>97/0:SOLD+used
            value+held              capture:2        CAPTURE=2>98/0:SOLD+used
            value+held              capture:4        EXCEEDS_HOLD
            value+held+frozen       capture          CAPTURE=3>97/0:SOLD+used
            value+held+over         capture          CAPTURE=3>97/0:SOLD+used
            value+held+full         capture          CAPTURE=3>97/0:SOLD+used
            value+held-late         capture          HOLD_EXPIRED
            value+held-by-other     capture          SCOPE_DENIED
            value+held+poisoned     capture          REVERSED_BEFORE_ARRIVAL
            value                   capture          CARD_NOT_VALID
            value+captured          capture          HOLD_RESOLVED
            value+timed-out         capture          HOLD_EXPIRED
            value+unsold            capture          CARD_NOT_VALID
            single+held             capture          CAPTURE=100>0/0:REDEEMED+used
            single+held             capture:99       ILLEGAL_TRANSITION

            value+held              release          RELEASE=3>100/0:SOLD
            value+held-late         release          HOLD_EXPIRED
            value+held              timeout          ILLEGAL_TRANSITION
            value+held-late         timeout          HOLD_TIMEOUT=3>100/0:SOLD
            value+captured          timeout          HOLD_RESOLVED

            value+loads             load:20          LOAD=20>120/0:SOLD
            value+loads             load:21          VALUE_LIMIT
            value+loads             load:0           MALFORMED
            value                   load:1           ILLEGAL_TRANSITION
            uses                    load:1           ILLEGAL_TRANSITION
            value+loads+unsold      load:1           NOT_SOLD
            value+loads+frozen      load:1           FROZEN

            value+used+of-redeem    reverse          REVERSE=2>100/0:SOLD
            value+used+of-old       reverse          REVERSE_WINDOW_CLOSED
            value+used+of-redeem+settled  reverse    SETTLED
            value+used+of-redeem+refunded reverse    ALREADY_REVERSED
            value+of-freeze         reverse          ILLEGAL_TRANSITION
            value+held              reverse          REVERSE=3>100/0:SOLD
            value+held-late         reverse          HOLD_EXPIRED
            value+held+full         reverse          REVERSE=3>100/0:SOLD

            value+used+of-old       refund           REFUND_VALUE=2>100/0:SOLD
            value+used+of-old       refund:1         REFUND_VALUE=1>99/0:SOLD+used
            value+used+of-old       refund:3         INSUFFICIENT_VALUE
            value+used+of-redeem    refund           ILLEGAL_TRANSITION
            value+used+of-redeem+settled refund      REFUND_VALUE=2>100/0:SOLD+settled
            value+used+of-old+refunded refund        ALREADY_REVERSED
            value+used+of-load      refund           ILLEGAL_TRANSITION
            value+used              refund           NOT_FOUND
            single+spent+of-old     refund           REFUND_VALUE=100>100/0:SOLD

            value+used              settle           SETTLE=0>98/0:SOLD+used+settled
            value+used+settled      settle           ILLEGAL_TRANSITION
            value                   settle           ILLEGAL_TRANSITION
            single+spent            settle           SETTLE=0>0/0:REDEEMED+used+settled
        ";
        table.lines().filter(|line| !line.trim().is_empty()).for_each(check);
    }

    #[test]
    fn a_load_is_taken_back_only_while_it_is_there() {
        let (view, mut value, past) = scene("value+loads+of-load");
        value.purse = Purse { remaining: 98, redeemed: 101, loaded: 99, ..value.purse };
        let outcome = decide(&view, &value, &past, Action::Reverse(ID), &ASKER);
        assert_eq!(outcome, Outcome::Refuse(Status::InsufficientValue));
        value.purse = Purse { remaining: 99, redeemed: 100, ..value.purse };
        let Outcome::Value(moved) = decide(&view, &value, &past, Action::Reverse(ID), &ASKER) else {
            panic!("what was loaded is there")
        };
        assert_eq!((moved.purse.remaining, moved.purse.loaded), (0, 0));
    }
}
