//! What a request about a card is told.
//!
//! # Invariants
//! * Of a card that the caller must not know of, every reply is, to the byte and in the log, that of a code that nobody
//!   has: the same status, no receipt, and counted as a miss.
//! * A retry is told what the first was, with its time and receipt, whatever became of the card since.

use kami_wal::Lsn;

use super::Subject;
use crate::card::{Effect, View};
use crate::command::Command;
use crate::identity::OrderId;
use crate::outcome;
use crate::product::{CardKind, Money};
use crate::record::{GroupWriter, Kind, ORIGINAL_BYTES, Purse};
use crate::reply::{CardReport, HistoryEvent, HoldReport, Reply, ReplyBody, ReplyFlags, ValueReport};
use crate::sequencer::{Detail, Prepared};
use crate::status::Status;
use crate::table::Batch;
use crate::word::{CardRef, Word};

impl Subject<'_> {
    /// Says that nothing was done.
    pub(crate) fn refuse(&self, status: Status, reply: &mut Reply) {
        self.tell(status, None, ReplyBody::None, reply);
    }

    pub(super) fn tell(&self, status: Status, lsn: Option<Lsn>, body: ReplyBody, reply: &mut Reply) {
        self.tell_head(status, lsn, reply);
        reply.body = body;
    }

    #[inline]
    pub(super) fn tell_head(&self, status: Status, lsn: Option<Lsn>, reply: &mut Reply) {
        reply.request = self.request.id;
        reply.status = status;
        reply.flags = ReplyFlags::default();
        reply.lsn = lsn;
        reply.time_ms = self.state.now_ms;
        reply.miss = false;
    }

    /// What a guess gets. A reversal of what does not exist is recorded at the length of one that poisons its
    /// id: its time, a full disk, or the distance of the receipts around it would tell them apart.
    pub(super) fn miss(
        &self,
        status: Status,
        body: u32,
        group: Option<&mut GroupWriter<'_>>,
        reply: &mut Reply,
    ) {
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

    /// What is said of a card whose product is denied to the caller: of one that is not sold, what is said of a
    /// code that nobody has.
    pub(super) fn denied(&self, word: Word, body: u32, reply: &mut Reply) {
        let unknown = self.request.command.unknown_card(self.request.caller.role);
        self.miss(if word.is_unsold() { unknown } else { Status::ScopeDenied }, body, None, reply);
    }

    /// The reply of the first time, once more.
    pub(super) fn replay(
        &self,
        prepared: &Prepared,
        batch: &Batch,
        card: CardRef,
        view: &View,
        reply: &mut Reply,
    ) {
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
    pub(super) fn tell_body(
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

    /// QUERY, HISTORY and OUTCOME_QUERY.
    pub(super) fn read(
        &self,
        prepared: &mut Prepared,
        batch: &Batch,
        card: CardRef,
        view: &View,
        reply: &mut Reply,
    ) {
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

    fn history(&self, events: Vec<HistoryEvent>, reply: &mut Reply) -> ReplyBody {
        // Without its beginning it is not the whole.
        if events.last().is_none_or(|first| first.kind != Kind::Import) {
            reply.flags = ReplyFlags::PARTIAL;
        }
        ReplyBody::History(events)
    }

    /// What is left on the card, and what is held of that.
    fn worth(&self, prepared: &Prepared, batch: &Batch, card: CardRef, view: &View) -> (Money, Money) {
        let value = self.value(prepared, batch, card, view.word);
        (value.purse.remaining, value.held.amount)
    }
}

/// What is told of a change of a card's value.
pub(super) fn told(batch: &Batch, kind: Kind, amount: Money, purse: &Purse, deadline_ms: u64) -> ReplyBody {
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
