//! Redemptions that a till made offline, and reports now.
//!
//! The customer has the goods already. So what fits the card is a redemption like any other, and what does not is no
//! refusal that the till could act upon: it is noted as an exception, which an operator sees to.
//!
//! # Invariants
//! * A report has one effect, once: the id of an exception is that of the redemption it stands for, and from then on
//!   every command with that id about that card is told so.
//! * Whether the card was valid is judged at the time that the till says it was; everything else as it is now.
//! * A report tells of a card no more than a redemption would: what that may not learn is refused before.

use super::Subject;
use crate::card::{Effect, Outcome};
use crate::command::Command;
use crate::exceptions::{
    self, ADVICE_AGE_MAX_MS, ADVICE_BYTES, Advice, CLOCK_SKEW_MS, EXCEPTIONS_MAX, Exception, ExceptionState,
    Kept,
};
use crate::identity::CardDigest;
use crate::limits::Tills;
use crate::outcome;
use crate::product::CardKind;
use crate::record::{GroupWriter, Head, Kind};
use crate::reply::{Reply, ReplyBody, ReplyFlags};
use crate::sequencer::{Moves, Prepared};
use crate::status::Status;
use crate::table::Batch;
use crate::value::Movement;

#[expect(clippy::unit_arg, reason = "that it was answered is all there is to return")]
impl Subject<'_> {
    /// A redemption that was made offline: what refuses it makes it an exception.
    pub(super) fn advise(
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
    pub(super) fn noted(&self, card: CardDigest, prepared: &Prepared, reply: &mut Reply) -> bool {
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

    /// A movement of value; one that was made offline and fits, if the time that it says is one that it can have been
    /// made at.
    pub(super) fn in_its_time(&self, prepared: &Prepared, moved: Movement) -> Result<Movement, Outcome> {
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

    /// The checksum under which the request may have had its effect. A report is a retry, too, of a redemption that
    /// might have taken less, if that took all that the till gave.
    pub(super) fn retried_body(&self, advice: &Advice, prepared: &Prepared, batch: &Batch) -> u32 {
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
}
