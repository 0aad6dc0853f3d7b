//! One request about one card, under the sequencer's lock: decide, encode, answer.
//!
//! What the caller may know of the card comes first, then what the command would do to it, then the rule (`card.rs`,
//! `value.rs`). What comes of that is recorded by `effect.rs`, or told by `reply.rs`.
//!
//! # Invariants
//! * Nothing is decided on another word than the card's past was read from: then it is read again.
//! * Whoever may not know that there is such a card is answered as for a code that nobody has, before anything about
//!   it is asked; and whoever may use cards only with their PIN, before the PIN was right.
//! * No word changes here, nor anything else of the state: what is to move when the record is published goes into
//!   [`Moves`].

mod advice;
mod effect;
mod pin;
mod reply;
mod validity;

pub(crate) use reply::report;
pub(crate) use validity::count_validity;

use kami_wal::planted;

use crate::card::{Action, Asker, Outcome, Pin, Second, View, decide};
use crate::command::{Command, Request};
use crate::exceptions::Advice;
use crate::limits::Tills;
use crate::product::CardKind;
use crate::record::GroupWriter;
use crate::reply::Reply;
use crate::sequencer::{Detail, Moves, Prepared, Sequencer};
use crate::state::{Scope, State};
use crate::status::Status;
use crate::table::Batch;
use crate::value::{self, Value};
use crate::word::{CardRef, Flags, Word};

/// One request about one card, under the lock.
pub(crate) struct Subject<'a> {
    pub(crate) sequencer: &'a Sequencer,
    pub(crate) state: &'a State,
    pub(crate) request: &'a Request,
    /// What the caller may touch; `None` if it was revoked.
    pub(crate) scope: Option<Scope<'a>>,
    pub(crate) short: Status,
}

#[expect(clippy::unit_arg, reason = "that it was answered is all there is to return")]
impl Subject<'_> {
    /// Decides, encodes, and answers in `reply`. `None` if the card moved, or came into being, since it was read.
    ///
    /// The answer is written where it is to stand. It is put together in small pieces; moving it in large ones
    /// would wait until everything that was written before has reached the cache, and memory of the log is not
    /// there yet.
    pub(crate) fn decide(
        &self,
        prepared: &mut Prepared,
        group: Option<&mut GroupWriter<'_>>,
        moves: &mut Moves,
        tills: Option<&mut Tills>,
        reply: &mut Reply,
    ) -> Option<()> {
        if let Command::Advice(advice) = &self.request.command {
            return self.advise(advice, prepared, group, moves, tills, reply);
        }
        if self.state.exceptions.may_be()
            && let Some(card) = self.request.command.card()
            && self.state.exceptions.may_be_of(card)
            && self.noted(card, prepared, reply)
        {
            return Some(());
        }
        self.decide_card(prepared, group, moves, tills, reply)
    }

    fn decide_card(
        &self,
        prepared: &mut Prepared,
        group: Option<&mut GroupWriter<'_>>,
        moves: &mut Moves,
        tills: Option<&mut Tills>,
        reply: &mut Reply,
    ) -> Option<()> {
        let request = self.request;
        let Some(scope) = self.scope else {
            return Some(self.refuse(Status::Unauthenticated, reply));
        };
        let known = match prepared.absent_at {
            // An import that was committed meanwhile may have brought it: nothing of it was read yet.
            Some(commits) if commits != self.sequencer.table.commits() => return None,
            Some(_) => None,
            None => self.sequencer.batch_of(prepared.card),
        };
        let unknown = || request.command.unknown_card(request.caller.role);
        let Some((batch, card)) = known else {
            return Some(self.miss(unknown(), prepared.body, group, reply));
        };
        let word = batch.word(card.row());
        if word != prepared.word {
            return None;
        }
        // What the card in its place said of the request stands only as long as that has not moved, in this group or before.
        if word.flags().contains(Flags::REPLACED)
            && let Some((other, then)) = prepared.past().successor
            && (moves.words.iter().any(|(moved, ..)| *moved == other)
                || self.sequencer.table.batch_of(other).is_some_and(|batch| batch.word(other.row()) != then))
        {
            return None;
        }
        let covered = scope.covers(batch.product);
        let is_end = matches!(
            request.command,
            Command::Reverse { .. }
                | Command::Capture { .. }
                | Command::Release { .. }
                | Command::OutcomeOf { .. }
        );
        if !covered && (word.is_unsold() || is_end) {
            // What is not sold does not exist for those whom it does not concern. A reversal leaves nothing:
            // no redemption of this caller could have had an effect here, nor ever will.
            return Some(self.miss(unknown(), prepared.body, group, reply));
        }
        let behind_pin = request.command.is_behind_pin();
        if !covered && !behind_pin {
            return Some(self.miss(Status::ScopeDenied, prepared.body, None, reply));
        }
        // What ends an earlier request is never denied for a class or place that came to be denied since.
        let denied = !is_end && scope.denies(self.state.product_of(batch), &request.caller, behind_pin);
        let mut view = self.view(prepared, batch, card, word);
        let Some(action) = self.action(batch, card, &mut view) else {
            if denied {
                return Some(self.denied(word, prepared.body, reply));
            }
            // Its sales do not move the word.
            if let Detail::HistoryOfShared(read) = &prepared.detail
                && read.0 != self.state.shared_row(batch, card.row()).order
            {
                return None;
            }
            return Some(self.read(prepared, batch, card, &view, reply));
        };
        let asker = Asker {
            principal: request.caller.principal,
            merchant: request.caller.merchant,
            any_merchant: request.caller.acts_for_all(),
            body: match &request.command {
                Command::Advice(advice) => self.retried_body(advice, prepared, batch),
                _ => prepared.body,
            },
            second: self.second(),
        };
        let tried = match action {
            Action::Redeem { pin, .. } | Action::Hold { pin, .. } if !batch.columns.pins.is_empty() => {
                Some(pin)
            }
            _ => None,
        };
        let outcome = match prepared.failed {
            Some(status) => Outcome::Refuse(unread(action, word, status)),
            None if (batch.kind != CardKind::Single
                || word.flags().contains(Flags::HELD)
                || request.command.is_about_value())
                && !action.leaves_value() =>
            {
                let value = self.value(prepared, batch, card, word);
                let moved = value::decide(&view, &value, prepared.past(), action, &asker);
                match moved.and_then(|moved| self.in_its_time(prepared, moved)) {
                    Ok(moved) if covered && !denied => {
                        let Some(group) = group else { return Some(self.refuse(self.short, reply)) };
                        let parts = (prepared, batch, card, &view, &asker);
                        self.move_value(parts, moved, group, moves, tills, reply);
                        self.count_right_pin(tried, card, moves, reply);
                        return Some(());
                    }
                    // Denied below, as whatever else the caller may not do to it.
                    Ok(_) => Outcome::Refuse(Status::ScopeDenied),
                    Err(outcome) => outcome,
                }
            }
            None => decide(&view, prepared.past(), action, &asker),
        };
        if tried == Some(Pin::Wrong) && !word.is_unsold() && outcome == Outcome::Refuse(Status::CardNotValid)
        {
            return Some(self.wrong_pin(prepared.body, card, group, moves, reply));
        }
        match outcome {
            // Locked for one who may not use the card: as a wrong PIN, so that the lock tells nothing.
            Outcome::Refuse(Status::PinLocked) if !covered || denied => {
                self.miss(Status::CardNotValid, prepared.body, None, reply)
            }
            // Behind the PIN: who does not know that is told nothing more.
            outcome if !covered && outcome != Outcome::Refuse(Status::CardNotValid) => {
                self.miss(Status::ScopeDenied, prepared.body, None, reply)
            }
            // The same, but for a retry of what was done before it came to be denied.
            outcome
                if denied && !matches!(outcome, Outcome::Replay | Outcome::Refuse(Status::CardNotValid)) =>
            {
                self.denied(word, prepared.body, reply)
            }
            // Only an unsold card's, or a wrong PIN's.
            Outcome::Refuse(status @ Status::CardNotValid) => self.miss(status, prepared.body, None, reply),
            Outcome::Refuse(status @ Status::Tombstoned) if word.is_unsold() => {
                self.miss(status, prepared.body, group, reply)
            }
            Outcome::Refuse(status) => self.refuse(status, reply),
            Outcome::Replay => self.replay(prepared, batch, card, &view, reply),
            Outcome::Move { kind, lifecycle, flags, status, original } => {
                let Some(group) = group else { return Some(self.refuse(self.short, reply)) };
                let moved = (kind, lifecycle, flags, status, original);
                self.move_card((prepared, batch, card, &view), action, moved, group, moves, tills, reply);
            }
        }
        self.count_right_pin(tried, card, moves, reply);
        Some(())
    }

    /// All that the decision rests on.
    #[inline]
    fn view(&self, prepared: &Prepared, batch: &Batch, card: CardRef, word: Word) -> View {
        let mut view = self.state.view(batch, card.row(), word);
        if planted("expired-by-running-clock") {
            view.now_ms = self.sequencer.running.at(self.sequencer.clock.boot_ms());
        }
        view.held = word.flags().contains(Flags::HELD) && 0 < self.state.holds.of(card, view.now_ms).live;
        if let Some(rule) = batch.validity {
            let purse = prepared.wallet.as_ref().and_then(|wallet| wallet.purse);
            count_validity(self.state, prepared.past(), purse, batch, card, rule, &mut view);
        }
        view
    }

    /// What a decision about the card's value rests on.
    fn value(&self, prepared: &Prepared, batch: &Batch, card: CardRef, word: Word) -> Value {
        let purse = prepared.wallet.as_ref().and_then(|wallet| wallet.purse);
        let value = self.state.value(batch, card, word, purse, self.request.command.original());
        // What was given offline was given as a whole: what a card is short of somebody has to bear.
        let whole = matches!(self.request.command, Command::Advice(_));
        Value { partial: value.partial && !whole, ..value }
    }

    /// What the command does to the card; `None` if it only reads. One that was made offline is judged at the time it
    /// was made at.
    #[inline]
    fn action(&self, batch: &Batch, card: CardRef, view: &mut View) -> Option<Action> {
        Some(match &self.request.command {
            Command::Advice(advice) => {
                let Advice { pin, amount, made_ms, .. } = **advice;
                // Whether it was valid is asked at its own time, and all else now.
                view.now_ms = view.now_ms.min(made_ms);
                Action::Redeem { amount, pin: self.pin(batch, card, pin), partial: false }
            }
            &Command::Redeem { pin, amount, partial, .. } => {
                Action::Redeem { amount, pin: self.pin(batch, card, pin), partial }
            }
            &Command::Reverse { original, .. } => Action::Reverse(original),
            &Command::Hold { pin, amount, partial, seconds, .. } => {
                Action::Hold { amount, pin: self.pin(batch, card, pin), partial, seconds }
            }
            &Command::Capture { hold, amount, .. } => Action::Capture { hold, amount },
            &Command::Release { hold, .. } => Action::Release { hold },
            &Command::HoldTimeout { hold, .. } => Action::HoldTimeout { hold },
            &Command::Load { amount, .. } => Action::Load { amount },
            &Command::RefundValue { original, amount, .. } => Action::Refund { original, amount },
            Command::Settle { .. } => Action::Settle,
            Command::Freeze { .. } => Action::Freeze,
            Command::Unfreeze { .. } => Action::Unfreeze,
            Command::Void { .. } => Action::Void,
            Command::PinUnlock { .. } => {
                Action::PinUnlock { locked: self.state.pins.is_locked_for_any(card, view.now_ms) }
            }
            Command::Activate { .. } => Action::Activate,
            Command::Deactivate { .. } => Action::Deactivate,
            &Command::Extend { expires_ms, .. } => Action::Extend { expires_ms },
            Command::Expire { .. } => Action::Expire,
            &Command::Restock { reference, .. } => Action::Restock { reference },
            _ => return None,
        })
    }

    /// Whether a second person approved, or has to.
    #[inline]
    fn second(&self) -> Second {
        match (&self.request.grounds, &self.request.command) {
            // No caller can say so.
            (Some(grounds), _) if grounds.approver.is_some() => Second::Approved,
            (_, Command::RefundValue { .. })
                if self.state.proposals.control(self.request.caller.tenant).on =>
            {
                Second::Wanted
            }
            _ => Second::None,
        }
    }
}

/// What is said where the card's past cannot be read: only where the card would be. BUSY for a code that leads nowhere
/// else would tell that there is one.
fn unread(action: Action, word: Word, status: Status) -> Status {
    match action {
        Action::Redeem { .. } | Action::Hold { .. } | Action::Capture { .. } | Action::Release { .. }
            if word.is_unsold() =>
        {
            Status::CardNotValid
        }
        Action::Redeem { pin, .. } | Action::Hold { pin, .. } => pin.refusal().unwrap_or(status),
        Action::Reverse(_) if word.is_unsold() => Status::Tombstoned,
        _ => status,
    }
}
