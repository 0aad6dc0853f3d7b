//! One request about one card, under the sequencer's lock: decide, encode, answer.

use kami_wal::{Lsn, planted};

use crate::card::{Action, Asker, Effect, Outcome, Past, Pin, Second, View, decide};
use crate::command::{Command, Request};
use crate::exceptions::{
    self, ADVICE_AGE_MAX_MS, ADVICE_BYTES, Advice, CLOCK_SKEW_MS, EXCEPTIONS_MAX, Exception, ExceptionState,
    Kept,
};
use crate::identity::{CardDigest, OrderId, PinDigest, RequestId};
use crate::limits::Tills;
use crate::outcome;
use crate::pins::{PIN_LOCK_MS, PIN_TRIES, PinChange, PinKey};
use crate::product::{CardKind, Money, ValidFrom, Validity};
use crate::record::{
    GroupWriter, Head, Kind, ORIGINAL_BYTES, PIN_LOCK_BYTES, Purse, REFERENCE_BYTES, ValueTail,
};
use crate::reply::{CardReport, HistoryEvent, HoldReport, Reply, ReplyBody, ReplyFlags, ValueReport};
use crate::sequencer::{Detail, Moves, Prepared, Sequencer, Wallet};
use crate::state::{Scope, State};
use crate::status::Status;
use crate::table::Batch;
use crate::value::{self, Movement, Value};
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

    /// A redemption that was made offline: what refuses it makes it an exception.
    fn advise(
        &self,
        advice: &Advice,
        prepared: &mut Prepared,
        mut group: Option<&mut GroupWriter<'_>>,
        moves: &mut Moves,
        tills: Option<&mut Tills>,
        reply: &mut Reply,
    ) -> Option<()> {
        let request = self.request;
        if self.scope.is_some() {
            if advice.made_ms == 0 {
                return Some(self.refuse(Status::Malformed, reply));
            }
            if let Some(earlier) = self.state.exceptions.reported(advice.card, request.id) {
                let is_retry =
                    earlier.body == prepared.body && earlier.exception.principal == request.caller.principal;
                if is_retry {
                    self.tell_noted(earlier, reply);
                } else {
                    self.refuse(Status::IdReused, reply);
                }
                return Some(());
            }
        }
        self.decide_card(prepared, group.as_deref_mut(), moves, tills, reply)?;
        let is_conflict = reply.status == Status::IdReused && self.redeemed_otherwise(prepared);
        if !exceptions::is_kept(reply.status) && !is_conflict {
            return Some(());
        }
        let (reason, miss) = (reply.status, reply.miss);
        let principal = request.caller.principal;
        let now = moves.exceptions.iter().filter(|state| state.exception.principal == principal).count();
        if self.state.exceptions.open_of(principal) + now >= EXCEPTIONS_MAX {
            self.refuse(Status::ExceptionsFull, reply);
        } else if let Some(group) = group {
            let kept = Kept {
                card: self.sequencer.batch_of(prepared.card).map(|(_, card)| card),
                digest: advice.card,
                amount: advice.amount,
                made_ms: advice.made_ms,
                reason,
            };
            let subject = self.state.exceptions.next() + moves.exceptions.len() as u64;
            let head = Head { subject, ..request.head(Kind::Advice, prepared.body) };
            let lsn = group.push(&head, ADVICE_BYTES, |tail| kept.encode(tail));
            moves.exceptions.push(ExceptionState::of(&head, &kept, lsn, self.state.now_ms));
            self.tell(Status::ExceptionNoted, Some(lsn), ReplyBody::None, reply);
        } else {
            self.refuse(self.short, reply);
        }
        reply.miss = miss;
        Some(())
    }

    /// Answers where the id, or the one that is asked about, is that of an exception of this card: it was the redemption
    /// that was noted, which must not take effect besides. Whether it did.
    /// The id of a redemption that took effect before something else was reported under it tells of that.
    #[cold]
    fn noted(&self, card: CardDigest, prepared: &Prepared, reply: &mut Reply) -> bool {
        let stands = self.sequencer.batch_of(prepared.card).map(|(batch, card)| batch.word(card.row()));
        let redeemed = prepared.past().same.is_some_and(|same| same.kind == Kind::Redeem);
        if redeemed || stands.is_some_and(|word| word != prepared.word) {
            return false;
        }
        let (command, caller) = (&self.request.command, &self.request.caller);
        let id = match command {
            Command::Query { .. } | Command::History { .. } => return false,
            Command::OutcomeOf { request, .. } => *request,
            _ => self.request.id,
        };
        let (Some(scope), Some(earlier)) = (self.scope, self.state.exceptions.reported(card, id)) else {
            return false;
        };
        let is_own = earlier.exception.principal == caller.principal;
        match command {
            Command::OutcomeOf { .. } => {
                let table = &self.sequencer.table;
                let is_told = is_own
                    || outcome::looks_after_all(caller.role)
                        && exceptions::is_shown(table, scope, caller, earlier);
                if is_told {
                    self.tell_noted(earlier, reply);
                } else {
                    self.refuse(Status::NoEffect, reply);
                }
            }
            Command::Redeem { .. } if is_own => self.tell_noted(earlier, reply),
            _ => self.refuse(Status::IdReused, reply),
        }
        true
    }

    /// As the first time.
    fn tell_noted(&self, earlier: &ExceptionState, reply: &mut Reply) {
        let Exception { lsn, time_ms, .. } = earlier.exception;
        self.tell(Status::ExceptionNoted, Some(lsn), ReplyBody::None, reply);
        (reply.flags, reply.time_ms) = (ReplyFlags::REPLAYED, time_ms);
    }

    fn decide_card(
        &self,
        prepared: &mut Prepared,
        group: Option<&mut GroupWriter<'_>>,
        moves: &mut Moves,
        mut tills: Option<&mut Tills>,
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
        let mut view = self.state.view(batch, card.row(), word);
        if planted("expired-by-running-clock") {
            view.now_ms = self.sequencer.running.at(self.sequencer.clock.boot_ms());
        }
        let is_held = word.flags().contains(Flags::HELD);
        view.held = is_held && 0 < self.state.holds.of(card, view.now_ms).live;
        if let Some(rule) = batch.validity {
            let purse = prepared.wallet.as_ref().and_then(|wallet| wallet.purse);
            count_validity(self.state, prepared.past(), purse, batch, card, rule, &mut view);
        }
        let action = match &request.command {
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
            _ if denied => return Some(self.denied(word, prepared.body, reply)),
            // Its sales do not move the word.
            _ if let Detail::HistoryOfShared(read) = &prepared.detail
                && read.0 != self.state.shared_row(batch, card.row()).order =>
            {
                return None;
            }
            _ => return Some(self.read(prepared, batch, card, &view, reply)),
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
            // What cannot be read is told of only where the card would be: BUSY for a code that leads nowhere
            // else would tell that there is one.
            Some(status) => Outcome::Refuse(match action {
                Action::Redeem { .. }
                | Action::Hold { .. }
                | Action::Capture { .. }
                | Action::Release { .. }
                    if word.is_unsold() =>
                {
                    Status::CardNotValid
                }
                Action::Redeem { pin, .. } | Action::Hold { pin, .. } => pin.refusal().unwrap_or(status),
                Action::Reverse(_) if word.is_unsold() => Status::Tombstoned,
                _ => status,
            }),
            None if (batch.kind != CardKind::Single || is_held || request.command.is_about_value())
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
                let post = Word::state_of(lifecycle, flags);
                let head = Head {
                    post,
                    subject: card.to_bits(),
                    prev: word.bits(),
                    ..request.head(kind, prepared.body)
                };
                let counts = matches!(action, Action::Redeem { .. });
                let mut tills = tills.as_mut().filter(|_| counts);
                if let Some(tills) = &mut tills
                    && let Err(exceeded) =
                        tills.check(&self.state.limits, &head, batch.product, self.state.now_ms)
                {
                    return Some(self.tell(exceeded.status, None, ReplyBody::Exceeded(exceeded), reply));
                }
                let lsn = group.next_lsn();
                let new = Word::new(lsn, lifecycle, flags);
                let end_ms = action.end_ms(view.now_ms);
                let expires_ms = end_ms.unwrap_or_else(|| self.expires_after(kind, batch, card, new, &view));
                let after = View { word: new, expires_ms, ..view };
                self.tell_body(prepared, kind, batch, card, &after, reply);
                self.tell_head(status, receipt(status, lsn), reply);
                reply.miss = kind == Kind::Tombstone && word.is_unsold();
                match action {
                    Action::Reverse(id) => group.push(&head, ORIGINAL_BYTES, |tail| {
                        tail[..16].copy_from_slice(&id.0.to_le_bytes());
                        tail[16..].copy_from_slice(&original.map_or(0, Lsn::bytes).to_le_bytes());
                    }),
                    Action::Redeem { .. } => group.push(&head, 0, |_| ()),
                    Action::Restock { reference } => {
                        let grounds = request.grounds.as_deref();
                        group.push_on(&head, grounds, REFERENCE_BYTES, |tail| {
                            tail.copy_from_slice(&reference.0.to_le_bytes());
                        })
                    }
                    _ if let Some(end_ms) = end_ms => {
                        moves.ends.push((card, end_ms));
                        let grounds = request.grounds.as_deref();
                        group.push_on(&head, grounds, 8, |tail| tail.copy_from_slice(&end_ms.to_le_bytes()))
                    }
                    _ => group.push_on(&head, request.grounds.as_deref(), 0, |_| ()),
                };
                if let Some(tills) = tills {
                    tills.redeemed(&head, batch.product, lsn, group);
                }
                if kind == Kind::PinUnlock {
                    moves.pins.push(PinChange::Unlock(card));
                }
                moves.words.push((card, word, new));
            }
        }
        self.count_right_pin(tried, card, moves, reply);
        Some(())
    }

    /// Records a movement of the card's value, and says so.
    fn move_value(
        &self,
        (prepared, batch, card, view, asker): (&mut Prepared, &Batch, CardRef, &View, &Asker),
        moved: Movement,
        group: &mut GroupWriter<'_>,
        moves: &mut Moves,
        tills: Option<&mut Tills>,
        reply: &mut Reply,
    ) {
        let (request, word) = (self.request, view.word);
        // What is held counts once, when it is: its capture is not refused for a limit any more.
        let mut tills = tills.filter(|_| moved.kind.counts_at_till());
        let head = request.head(moved.kind, prepared.body);
        if let Some(tills) = &mut tills
            && let Err(exceeded) = tills.check(&self.state.limits, &head, batch.product, self.state.now_ms)
        {
            return self.tell(exceeded.status, None, ReplyBody::Exceeded(exceeded), reply);
        }
        let (lsn, tail) = self.record_value(prepared, card, word, &moved, group);
        if let Some(tills) = tills {
            tills.redeemed(&head, batch.product, lsn, group);
        }
        let new = Word::new(lsn, moved.lifecycle, moved.flags);
        moves.words.push((card, word, new));
        if batch.kind == CardKind::Shared {
            moves.spent.push((card, tail.purse.spent(), lsn));
        }
        moves.holds.extend(moved.hold_change(card.to_bits(), request.id, asker, lsn));
        let body = match moved.kind {
            Kind::Settle => {
                let worth = (tail.purse.remaining, tail.purse.held);
                ReplyBody::Card(report(batch, card, &View { word: new, ..*view }, None, worth))
            }
            _ => told(batch, moved.kind, moved.amount, &tail.purse, moved.deadline_ms),
        };
        self.tell(moved.status, Some(lsn), body, reply);
    }

    /// Whoever used the card with its PIN begins to count wrong ones anew.
    fn count_right_pin(&self, tried: Option<Pin>, card: CardRef, moves: &mut Moves, reply: &Reply) {
        let used = reply.status.is_done() && !reply.flags.contains(ReplyFlags::REPLAYED);
        if tried == Some(Pin::Right) && used && self.state.pins.counts() {
            moves.pins.push(PinChange::Right(self.pin_key(card)));
        }
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

    /// A movement of value; one that was made offline and fits, if the time that it says is one that it can have been
    /// made at.
    fn in_its_time(&self, prepared: &Prepared, moved: Movement) -> Result<Movement, Outcome> {
        let Command::Advice(advice) = &self.request.command else { return Ok(moved) };
        let sold_ms = prepared.wallet.as_ref().map_or(0, |wallet| wallet.sold_ms);
        if advice.made_ms.saturating_add(ADVICE_AGE_MAX_MS) < self.state.now_ms {
            Err(Outcome::Refuse(Status::AdviceTooOld))
        } else if advice.made_ms.saturating_add(CLOCK_SKEW_MS) < sold_ms {
            // Whoever has it now did not have it then.
            Err(Outcome::Refuse(Status::NotSold))
        } else {
            Ok(Movement { deadline_ms: advice.made_ms, ..moved })
        }
    }

    /// When a card expires once `kind` moved it: an activation may begin its validity.
    fn expires_after(&self, kind: Kind, batch: &Batch, card: CardRef, word: Word, view: &View) -> u64 {
        let Some(rule) = batch.validity.filter(|rule| rule.from == ValidFrom::Activation) else {
            return view.expires_ms;
        };
        let said = self.state.expires_ms(batch, card.row(), word);
        match kind {
            _ if said != 0 => said,
            Kind::Activate if word.belongs_to_order() => rule.ends_ms(view.now_ms),
            Kind::Activate | Kind::Deactivate => 0,
            _ => view.expires_ms,
        }
    }

    /// What a decision about the card's value rests on.
    fn value(&self, prepared: &Prepared, batch: &Batch, card: CardRef, word: Word) -> Value {
        let purse = prepared.wallet.as_ref().and_then(|wallet| wallet.purse);
        let value = self.state.value(batch, card, word, purse, self.request.command.original());
        // What was given offline was given as a whole: what a card is short of somebody has to bear.
        let whole = matches!(self.request.command, Command::Advice(_));
        Value { partial: value.partial && !whole, ..value }
    }

    /// The checksum under which the request may have had its effect. A report is a retry, too, of a redemption that
    /// might have taken less, if that took all that the till gave.
    fn retried_body(&self, advice: &Advice, prepared: &Prepared, batch: &Batch) -> u32 {
        let Advice { card, amount, .. } = *advice;
        let partly = Command::Redeem { card, pin: None, amount, partial: true }.body();
        let took_all = |same: &Effect| batch.kind == CardKind::Single || amount == 0 || same.amount == amount;
        match prepared.past().same {
            Some(same) if same.kind == Kind::Redeem && same.body == partly && took_all(&same) => partly,
            _ => prepared.body,
        }
    }

    /// Whether the id of a report is that of another redemption of the same caller: what the till gave, that does not
    /// cover.
    fn redeemed_otherwise(&self, prepared: &Prepared) -> bool {
        let principal = self.request.caller.principal;
        prepared.past().same.is_some_and(|same| same.kind == Kind::Redeem && same.principal == principal)
    }

    /// Encodes a change of a card's value. The trail is what it was read to be, with the ids of this request.
    fn record_value(
        &self,
        prepared: &mut Prepared,
        card: CardRef,
        word: Word,
        moved: &Movement,
        group: &mut GroupWriter<'_>,
    ) -> (Lsn, ValueTail) {
        let time_ms = match prepared.past().original {
            Some(original) if moved.kind == Kind::Reverse => u64::from(original.kind.number()),
            _ => moved.deadline_ms,
        };
        let Wallet { mut trail, mut chapters, sale, .. } =
            *prepared.wallet.take().expect("read before a value is decided on");
        let marks = &self.sequencer.marks;
        let by_engine = moved.kind == Kind::HoldTimeout;
        if !by_engine {
            trail.filter.add(marks.mark(self.request.id));
        }
        let (related, related_lsn) = moved.related.unwrap_or_default();
        if moved.related.is_some() {
            trail.filter.add(marks.mark(related));
        }
        if !chapters.is_empty() {
            chapters.push((None, trail.filter));
        }
        let mut purse = moved.purse;
        purse.sale = sale.or(purse.sale);
        if moved.kind == Kind::Settle {
            purse.settled = Some(group.next_lsn());
        }
        let tail = ValueTail { amount: moved.amount, related, related_lsn, time_ms, purse, trail, chapters };
        let head = self.request.head(moved.kind, prepared.body);
        let head = Head {
            request: if by_engine { RequestId::default() } else { head.request },
            post: Word::state_of(moved.lifecycle, moved.flags),
            subject: card.to_bits(),
            prev: word.bits(),
            ..head
        };
        let grounds = self.request.grounds.as_deref();
        (group.push_on(&head, grounds, tail.bytes(), |place| tail.encode(place)), tail)
    }

    /// Says that nothing was done.
    pub(crate) fn refuse(&self, status: Status, reply: &mut Reply) {
        self.tell(status, None, ReplyBody::None, reply);
    }

    fn tell(&self, status: Status, lsn: Option<Lsn>, body: ReplyBody, reply: &mut Reply) {
        self.tell_head(status, lsn, reply);
        reply.body = body;
    }

    #[inline]
    fn tell_head(&self, status: Status, lsn: Option<Lsn>, reply: &mut Reply) {
        reply.request = self.request.id;
        reply.status = status;
        reply.flags = ReplyFlags::default();
        reply.lsn = lsn;
        reply.time_ms = self.state.now_ms;
        reply.miss = false;
    }

    /// What a guess gets. A reversal of what does not exist is recorded at the length of one that poisons its
    /// id: its time, a full disk, or the distance of the receipts around it would tell them apart.
    fn miss(&self, status: Status, body: u32, group: Option<&mut GroupWriter<'_>>, reply: &mut Reply) {
        let status = match (&self.request.command, group) {
            (Command::Reverse { original, .. }, Some(group)) if status == Status::Tombstoned => {
                group.push(&self.request.head(Kind::Miss, body), ORIGINAL_BYTES, |tail| {
                    tail[..16].copy_from_slice(&original.0.to_le_bytes());
                    tail[16..].fill(0);
                });
                status
            }
            (Command::Reverse { .. }, None) if status == Status::Tombstoned => self.short,
            _ => status,
        };
        self.refuse(status, reply);
        reply.miss = true;
    }

    fn pin_key(&self, card: CardRef) -> PinKey {
        self.state.pin_key(card, self.request.caller.principal, self.request.terminal)
    }

    /// What came of the PIN.
    #[inline]
    fn pin(&self, batch: &Batch, card: CardRef, given: Option<PinDigest>) -> Pin {
        match (batch.columns.pins.get(card.row() as usize), given) {
            (None, _) => Pin::Right,
            (Some(_), _) if self.state.pins.is_locked(&self.pin_key(card), self.state.now_ms) => Pin::Locked,
            (Some(own), Some(given))
                if aws_lc_rs::constant_time::verify_slices_are_equal(own, &given.0).is_ok() =>
            {
                Pin::Right
            }
            _ => Pin::Wrong,
        }
    }

    /// Counts a wrong PIN of a card that is sold; the last one locks it. Where the log has no room for the lock,
    /// there is none for a redemption either, and both are told so.
    fn wrong_pin(
        &self,
        body: u32,
        card: CardRef,
        group: Option<&mut GroupWriter<'_>>,
        moves: &mut Moves,
        reply: &mut Reply,
    ) {
        let (key, now_ms) = (self.pin_key(card), self.state.now_ms);
        if self.state.pins.next_try(&key, now_ms) < PIN_TRIES {
            moves.pins.push(PinChange::Wrong(key, now_ms));
        } else {
            let Some(group) = group else { return self.refuse(self.short, reply) };
            let until_ms = now_ms + PIN_LOCK_MS;
            let head = Head { subject: card.to_bits(), ..self.request.head(Kind::PinLock, body) };
            group.push(&head, PIN_LOCK_BYTES, |tail| {
                tail[..8].copy_from_slice(&until_ms.to_le_bytes());
                tail[8..12].copy_from_slice(&key.2.0.to_le_bytes());
                tail[12..].fill(0);
            });
            moves.pins.push(PinChange::Lock(key, now_ms, until_ms));
        }
        self.miss(Status::CardNotValid, body, None, reply);
    }

    /// What is said of a card whose product is denied to the caller: of one that is not sold, what is said of a
    /// code that nobody has.
    fn denied(&self, word: Word, body: u32, reply: &mut Reply) {
        let unknown = self.request.command.unknown_card(self.request.caller.role);
        self.miss(if word.is_unsold() { unknown } else { Status::ScopeDenied }, body, None, reply);
    }

    /// The reply of the first time, once more.
    fn replay(&self, prepared: &Prepared, batch: &Batch, card: CardRef, view: &View, reply: &mut Reply) {
        let effect = prepared.past().same.expect("decided on it");
        if effect.kind == Kind::Tombstone {
            // Marked as a retry it would tell that the card exists.
            return self.refuse(Status::Tombstoned, reply);
        }
        let plain = effect.kind == Kind::Settle
            || effect.kind.is_about_card() && !effect.kind.may_tell_value()
            || batch.kind == CardKind::Single && matches!(effect.kind, Kind::Redeem | Kind::Reverse);
        if plain {
            self.tell_body(prepared, effect.kind, batch, card, view, reply);
        } else {
            let Effect { amount, remaining, held, deadline_ms, .. } = effect;
            let purse = Purse { remaining, held, ..Purse::default() };
            reply.body = told(batch, effect.kind, amount, &purse, deadline_ms);
        }
        let status = match self.request.command {
            Command::Redeem { amount, .. } | Command::Hold { amount, .. }
                if !plain && effect.amount < amount =>
            {
                Status::OkPartial
            }
            _ => Status::Ok,
        };
        self.tell_head(status, Some(effect.lsn), reply);
        reply.flags = ReplyFlags::REPLAYED;
        if effect.reversed {
            reply.flags = reply.flags.with(ReplyFlags::REVERSED);
        }
        reply.time_ms = effect.time_ms;
    }

    /// What `kind` left of a card that is used as a whole.
    #[inline]
    fn tell_body(
        &self,
        prepared: &Prepared,
        kind: Kind,
        batch: &Batch,
        card: CardRef,
        view: &View,
        reply: &mut Reply,
    ) {
        let value = |remaining| {
            ReplyBody::Value(ValueReport { product: batch.product, amount: view.face, remaining })
        };
        match kind {
            Kind::Redeem => reply.body = value(0),
            Kind::Reverse => reply.body = value(view.face),
            // The reversal of what was never seen tells nothing of the card: it may not even be sold.
            Kind::Tombstone => reply.body = ReplyBody::None,
            _ => {
                let worth = self.worth(prepared, batch, card, view);
                reply.body = ReplyBody::Card(report(batch, card, view, None, worth));
            }
        }
    }

    /// What is left on the card, and what is held of that.
    fn worth(&self, prepared: &Prepared, batch: &Batch, card: CardRef, view: &View) -> (Money, Money) {
        let value = self.value(prepared, batch, card, view.word);
        (value.purse.remaining, value.held.amount)
    }

    /// What became of a request about this card.
    fn outcome(&self, prepared: &Prepared, batch: &Batch, view: &View, reply: &mut Reply) {
        let effect = match outcome::told(prepared.past(), &self.request.caller) {
            outcome::Outcome::Status(status) => return self.refuse(status, reply),
            outcome::Outcome::Had(effect) => effect,
        };
        // A card that is used as a whole says nothing of its value, but where it was held.
        let whole = batch.kind == CardKind::Single && matches!(effect.kind, Kind::Redeem | Kind::Reverse);
        let effect = match effect.kind {
            Kind::Redeem if whole => Effect { amount: view.face, remaining: 0, ..effect },
            Kind::Reverse if whole => Effect { amount: view.face, remaining: view.face, ..effect },
            _ => effect,
        };
        let body = outcome::report(&effect, Some(batch.product));
        self.tell(Status::Ok, Some(effect.lsn), body, reply);
        (reply.flags, reply.time_ms) = (outcome::flags(&effect), effect.time_ms);
    }

    /// QUERY, HISTORY and OUTCOME_QUERY.
    fn read(&self, prepared: &mut Prepared, batch: &Batch, card: CardRef, view: &View, reply: &mut Reply) {
        // A till must not learn of cards that are not sold.
        if self.request.command.is_hidden(view.word, self.request.caller.role) {
            let unknown = self.request.command.unknown_card(self.request.caller.role);
            return self.miss(unknown, prepared.body, None, reply);
        }
        if let Some(status) = prepared.failed {
            return self.refuse(status, reply);
        }
        if let Command::OutcomeOf { .. } = self.request.command {
            return self.outcome(prepared, batch, view, reply);
        }
        self.tell_head(Status::Ok, view.word.lsn(), reply);
        let detail = std::mem::take(&mut prepared.detail);
        let worth = self.worth(prepared, batch, card, view);
        reply.body = match detail {
            Detail::History(events) => self.history(events, reply),
            Detail::HistoryOfShared(read) => self.history(read.1, reply),
            Detail::OrderOf(order) => ReplyBody::Card(report(batch, card, view, Some(order), worth)),
            _ => ReplyBody::Card(report(batch, card, view, None, worth)),
        };
    }

    fn history(&self, events: Vec<HistoryEvent>, reply: &mut Reply) -> ReplyBody {
        // Without its beginning it is not the whole.
        if events.last().is_none_or(|first| first.kind != Kind::Import) {
            reply.flags = ReplyFlags::PARTIAL;
        }
        ReplyBody::History(events)
    }
}

/// From when the card is valid, if that follows from what happened to it. In stock, nothing did.
pub(crate) fn count_validity(
    state: &State,
    past: &Past,
    purse: Option<Purse>,
    batch: &Batch,
    card: CardRef,
    rule: Validity,
    view: &mut View,
) {
    let flags = view.word.flags();
    if !view.word.belongs_to_order() {
        return;
    }
    let single = batch.kind == CardKind::Single;
    let told_ms = purse.map_or(0, |purse| purse.begun_ms);
    view.from_use = rule.from == ValidFrom::FirstUse && !single;
    view.begun_ms = match rule.from {
        ValidFrom::Import => 0,
        ValidFrom::Sale => past.sold_ms,
        // What is active when it is sold is valid from then on.
        ValidFrom::Activation if flags.contains(Flags::ACTIVE) => {
            told_ms.max(past.activated_ms).max(past.sold_ms)
        }
        ValidFrom::Activation => match state.active_since_ms(batch, card.row()) {
            Some(since_ms) if !flags.contains(Flags::INACTIVE) => {
                // What was sold in another system was active there.
                let came_active = since_ms <= batch.imported_ms && past.sold_ms < batch.imported_ms;
                let since_ms = if came_active && past.sold_ms != 0 { 0 } else { since_ms };
                told_ms.max(since_ms).max(past.sold_ms)
            }
            // Deactivated while it was in use, which goes on.
            _ if flags.contains(Flags::USED) && !single => told_ms,
            _ => 0,
        },
        // What is used once is not in use before. Of another it counts as long as a use stands: none does
        // once all is given back.
        ValidFrom::FirstUse if single => 0,
        ValidFrom::FirstUse if past.used_ms != 0 => past.used_ms,
        ValidFrom::FirstUse => {
            let stands = purse.is_some_and(|purse| purse.redeemed != purse.refunded) || view.held;
            if stands { told_ms } else { 0 }
        }
    };
    if !flags.contains(Flags::OWN_END) && view.expires_ms == 0 {
        view.expires_ms = rule.ends_ms(view.begun_ms);
    }
}

/// A tombstone has no receipt: for a code that does not exist the answer is the same, and there is none.
fn receipt(status: Status, lsn: Lsn) -> Option<Lsn> {
    (status != Status::Tombstoned).then_some(lsn)
}

/// What is told of a change of a card's value.
fn told(batch: &Batch, kind: Kind, amount: Money, purse: &Purse, deadline_ms: u64) -> ReplyBody {
    let (product, Purse { remaining, held, .. }) = (batch.product, *purse);
    match kind {
        Kind::Hold => ReplyBody::Hold(HoldReport { product, amount, remaining, held, deadline_ms }),
        _ => ReplyBody::Value(ValueReport { product, amount, remaining }),
    }
}

pub(crate) fn report(
    batch: &Batch,
    card: CardRef,
    view: &View,
    order: Option<OrderId>,
    (remaining, held): (Money, Money),
) -> CardReport {
    CardReport {
        card,
        product: batch.product,
        lifecycle: view.lifecycle(),
        flags: view.flags(),
        face: view.face,
        remaining,
        held,
        expires_ms: view.expires_ms,
        order,
    }
}
