//! One request about one card, under the sequencer's lock: decide, encode, answer.

use kami_wal::Lsn;

use crate::card::{Action, Asker, Effect, Outcome, View, decide};
use crate::command::{Command, Request};
use crate::identity::{OrderId, Role};
use crate::record::{GroupWriter, Head, Kind, ORIGINAL_BYTES};
use crate::reply::{CardReport, Reply, ReplyBody, ReplyFlags, ValueReport};
use crate::sequencer::{Detail, Prepared, Sequencer};
use crate::state::State;
use crate::status::Status;
use crate::table::Batch;
use crate::word::{CardRef, Lifecycle, Word};

/// One request about one card, under the lock.
pub(crate) struct Subject<'a> {
    pub(crate) sequencer: &'a Sequencer,
    pub(crate) state: &'a State,
    pub(crate) request: &'a Request,
    pub(crate) short: Status,
}

impl Subject<'_> {
    /// Decides and encodes. `None` if the card moved, or came into being, since it was read.
    pub(crate) fn decide(
        &self,
        prepared: &mut Prepared,
        group: Option<&mut GroupWriter<'_>>,
        moves: &mut Vec<(CardRef, Word, Word)>,
    ) -> Option<Reply> {
        let request = self.request;
        let known = match prepared.absent_at {
            // An import that was committed meanwhile may have brought it: nothing of it was read yet.
            Some(commits) if commits != self.sequencer.table.commits() => return None,
            Some(_) => None,
            None => self.sequencer.batch_of(prepared.card),
        };
        let Some((batch, card)) = known else {
            let status = request.command.unknown_card(request.caller.role);
            return Some(self.reply(status, None, ReplyBody::None));
        };
        let word = batch.word(card.row());
        if word != prepared.word {
            return None;
        }
        let mut view = self.state.view(batch, card.row(), word);
        if cfg!(feature = "bug-expired-by-running-clock") {
            view.now_ms = self.sequencer.running.at(self.sequencer.clock.boot_ms());
        }
        let action = match request.command {
            Command::Redeem { pin, amount, .. } => {
                let pin_right = match (batch.columns.pins.get(card.row() as usize), pin) {
                    (None, _) => true,
                    (Some(own), Some(given)) => {
                        aws_lc_rs::constant_time::verify_slices_are_equal(own, &given.0).is_ok()
                    }
                    (Some(_), None) => false,
                };
                Action::Redeem { amount, pin_right }
            }
            Command::Reverse { original, .. } => Action::Reverse(original),
            Command::Freeze { .. } => Action::Freeze,
            Command::Unfreeze { .. } => Action::Unfreeze,
            Command::Void { .. } => Action::Void,
            _ => return Some(self.read(prepared, batch, card, &view)),
        };
        let asker = Asker {
            principal: request.caller.principal,
            merchant: request.caller.merchant,
            any_merchant: matches!(request.caller.role, Role::Admin | Role::Operator),
            body: prepared.body,
        };
        let reply = match decide(&view, &prepared.past, action, &asker) {
            Outcome::Refuse(status) => self.reply(status, None, ReplyBody::None),
            Outcome::Replay(effect) => self.replay(effect, batch, card, &view),
            Outcome::Move { kind, lifecycle, flags, status, original } => {
                let Some(group) = group else { return Some(self.reply(self.short, None, ReplyBody::None)) };
                let post = Word::state_of(lifecycle, flags);
                let head = Head {
                    post,
                    subject: card.to_bits(),
                    prev: word.bits(),
                    ..request.head(kind, prepared.body)
                };
                let lsn = match action {
                    Action::Reverse(id) => group.push(&head, ORIGINAL_BYTES, |tail| {
                        tail[..16].copy_from_slice(&id.0.to_le_bytes());
                        tail[16..].copy_from_slice(&original.map_or(0, Lsn::bytes).to_le_bytes());
                    }),
                    _ => group.push(&head, 0, |_| ()),
                };
                let new = Word::new(lsn, lifecycle, flags);
                moves.push((card, word, new));
                let body = Self::body(kind, batch, card, &View { word: new, ..view });
                self.reply(status, receipt(status, lsn), body)
            }
        };
        Some(reply)
    }

    /// Says that nothing was done.
    pub(crate) fn refuse(&self, status: Status) -> Reply {
        self.reply(status, None, ReplyBody::None)
    }

    fn reply(&self, status: Status, lsn: Option<Lsn>, body: ReplyBody) -> Reply {
        let flags = ReplyFlags::default();
        Reply { request: self.request.id, status, flags, lsn, time_ms: self.state.now_ms, body }
    }

    /// The reply of the first time, once more.
    fn replay(&self, effect: Effect, batch: &Batch, card: CardRef, view: &View) -> Reply {
        if effect.kind == Kind::Tombstone {
            // Marked as a retry it would tell that the card exists.
            return self.reply(Status::Tombstoned, None, ReplyBody::None);
        }
        let body = Self::body(effect.kind, batch, card, view);
        let mut reply = self.reply(Status::Ok, Some(effect.lsn), body);
        reply.flags = ReplyFlags::REPLAYED;
        if effect.reversed {
            reply.flags = reply.flags.with(ReplyFlags::REVERSED);
        }
        reply.time_ms = effect.time_ms;
        reply
    }

    fn body(kind: Kind, batch: &Batch, card: CardRef, view: &View) -> ReplyBody {
        let value = |remaining| {
            ReplyBody::Value(ValueReport { product: batch.product, amount: view.face, remaining })
        };
        match kind {
            Kind::Redeem => value(0),
            Kind::Reverse => value(view.face),
            // The reversal of what was never seen tells nothing of the card: it may not even be sold.
            Kind::Tombstone => ReplyBody::None,
            _ => ReplyBody::Card(report(batch, card, view, None)),
        }
    }

    /// QUERY and HISTORY.
    fn read(&self, prepared: &mut Prepared, batch: &Batch, card: CardRef, view: &View) -> Reply {
        // A till must not learn of cards that are not sold.
        let hidden = self.request.caller.role == Role::Redeemer
            && matches!(view.word.lifecycle(), Lifecycle::Available | Lifecycle::Reserved);
        if hidden {
            return self.reply(Status::CardNotValid, None, ReplyBody::None);
        }
        let body = match std::mem::take(&mut prepared.detail) {
            Detail::History(events) => ReplyBody::History(events),
            Detail::Order(order) => ReplyBody::Card(report(batch, card, view, Some(order))),
            _ => ReplyBody::Card(report(batch, card, view, None)),
        };
        self.reply(Status::Ok, view.word.lsn(), body)
    }
}

/// A tombstone has no receipt: for a code that does not exist the answer is the same, and there is none.
fn receipt(status: Status, lsn: Lsn) -> Option<Lsn> {
    (status != Status::Tombstoned).then_some(lsn)
}

fn report(batch: &Batch, card: CardRef, view: &View, order: Option<OrderId>) -> CardReport {
    CardReport {
        card,
        product: batch.product,
        lifecycle: view.lifecycle(),
        flags: view.flags(),
        face: view.face,
        expires_ms: view.expires_ms,
        order,
    }
}
