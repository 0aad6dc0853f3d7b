//! The rule of a card's value: what may be taken, held, given back and loaded.
//!
//! [`decide`] is pure and total, as [`card::decide`](crate::card::decide) is, which decides on cards that are
//! used as a whole. It serves cards that are used in parts or a number of times, and every card that is held.
//! The value of a MULTI_USE card is how many uses are left.

#[cfg(test)]
mod tests;

use kami_wal::{Lsn, planted};

use crate::card::{Action, Asker, Outcome, Past, Pin, Second, View, before, unusable};
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
            CardKind::MultiUse | CardKind::Shared => Status::UsesExhausted,
            _ => Status::InsufficientValue,
        };
        let wanted = match (view.kind, asked) {
            (_, ..0) => return Err(Status::Malformed),
            (CardKind::Single, 0) => view.face,
            (CardKind::MultiUse, 0) | (CardKind::Shared, 0 | 1) => 1,
            // Each of its uses is somebody's.
            (CardKind::Shared, _) if 0 < available => return Err(Status::InsufficientValue),
            (_, 0) => available,
            (_, asked) => asked,
        };
        if view.kind == CardKind::Single && wanted < view.face {
            // A single-use card is spent as a whole or not at all.
            return Err(Status::IllegalTransition);
        }
        if view.kind == CardKind::Single && 0 < self.held.live {
            // It is held as a whole, and a face value of zero would not show that.
            return Err(Status::InsufficientValue);
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
///
/// # Errors
/// The decision, if the value does not change: a refusal, a retry, or the tombstone of what was never seen.
pub fn decide(
    view: &View,
    value: &Value,
    past: &Past,
    action: Action,
    asker: &Asker,
) -> Result<Movement, Outcome> {
    match before(view, past, action, asker) {
        Some(outcome) => Err(outcome),
        None => moved(view, value, past, action, asker).map_err(Outcome::Refuse),
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
            // The next sale of a code that is sold many times brings the next use.
            let spent = purse.remaining == 0 && !loads && view.kind != CardKind::Shared;
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
        if self.past.tombstone && !planted("ignore-tombstones") {
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
        if self.view.kind == CardKind::Shared {
            // Only sales do.
            return Err(Status::SharedUnfit);
        }
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

    /// Whether what was redeemed of it can be given back to it.
    fn in_life(&self) -> Result<(), Status> {
        let word = self.view.word;
        match word.lifecycle() {
            Lifecycle::Sold | Lifecycle::Redeemed => Ok(()),
            Lifecycle::Voided if word.flags().contains(Flags::REPLACED) => Err(Status::Replaced),
            _ => Err(Status::IllegalTransition),
        }
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
        self.in_life()?;
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
        if self.asker.second == Second::Wanted {
            return Err(Status::ApprovalRequired);
        }
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
        self.in_life()?;
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
        if flags.contains(Flags::REPLACED) {
            // What was redeemed of it can be undone at the card in its place, and has to be settled there.
            return Err(Status::Replaced);
        }
        if !flags.contains(Flags::USED) || flags.contains(Flags::SETTLED) {
            return Err(Status::IllegalTransition);
        }
        self.room()?;
        let moved = self.after(Kind::Settle, 0, self.purse());
        let lifecycle = self.view.word.lifecycle();
        Ok(Movement { lifecycle, flags: moved.flags.with(Flags::SETTLED), ..moved })
    }
}
