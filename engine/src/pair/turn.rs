//! A pair under the sequencer's lock: decide, encode, move both cards, answer.

use kami_wal::Lsn;

use super::read::{PairRead, Side};
use super::{After, Asked, PAIR_ENTRY_BYTES, REPLACEMENTS_MAX, Seen, replaced, transferred};
use crate::card::{Effect, View, unusable};
use crate::command::Request;
use crate::identity::CardDigest;
use crate::orders::{OrderKey, OrderState, OrderWord};
use crate::product::Money;
use crate::record::{GroupWriter, Head, Kind, PAIR_BYTES, Pair, Purse, VOLUME_BYTES, ValueTail};
use crate::reply::{Reply, ReplyBody, ReplyFlags, ValueReport};
use crate::sequencer::{Detail, OrderPast, Prepared, Sequencer, Turn, Wallet, Work};
use crate::status::Status;
use crate::stock::Search;
use crate::subject::report;
use crate::table::Batch;
use crate::word::{CardRef, Flags, Word};

/// Why a pair is not moved.
enum Not {
    /// It is refused.
    Refused(Status),
    /// There is no such card, as far as the caller may know.
    Missed(Status),
    /// Something moved since it was read.
    Stale,
}

impl From<Status> for Not {
    fn from(status: Status) -> Not {
        Not::Refused(status)
    }
}

impl Turn<'_> {
    /// REPLACE and TRANSFER, as a record of its own. `None` if something moved since it was read.
    pub(crate) fn pair(&mut self, work: &mut Work, at: usize) -> Option<Reply> {
        let request = &work.requests[at];
        match self.move_pair(request, &mut work.prepared[at], &mut work.search) {
            Ok(reply) => Some(reply),
            Err(Not::Refused(status)) => Some(self.refuse(request, status)),
            Err(Not::Missed(status)) => Some(Reply { miss: true, ..self.refuse(request, status) }),
            Err(Not::Stale) => None,
        }
    }

    fn move_pair(
        &mut self,
        request: &Request,
        prepared: &mut Prepared,
        search: &mut Search,
    ) -> Result<Reply, Not> {
        let sequencer = self.sequencer;
        let (_, named, asked) = Asked::of(&request.command);
        if prepared.absent_at.is_some_and(|commits| commits != sequencer.table.commits()) {
            // An import that was committed meanwhile may have brought it.
            return Err(Not::Stale);
        }
        let known = sequencer.batch_of(prepared.card).filter(|_| prepared.absent_at.is_none());
        let (batch, card) = known.ok_or(Not::Missed(Status::NotFound))?;
        let word = batch.word(card.row());
        if word != prepared.word {
            return Err(Not::Stale);
        }
        // What is not sold does not exist for those whom it does not concern.
        if !self.concerns(request, batch) {
            let status = if word.is_unsold() { Status::NotFound } else { Status::ScopeDenied };
            return Err(Not::Missed(status));
        }
        let (Some(wallet), Detail::Pair(read)) =
            (prepared.wallet.take(), std::mem::take(&mut prepared.detail))
        else {
            return Err(Not::Stale);
        };
        let PairRead { second, order } = *read;
        let past = *prepared.past();
        if let Some(same) = past.same {
            let is_retry = same.kind == asked.kind()
                && same.body == prepared.body
                && same.principal == request.caller.principal;
            return if is_retry {
                self.replay_pair(request, asked, same, batch, second)
            } else {
                Err(Status::IdReused.into())
            };
        }
        if past.poisoned {
            return Err(Status::ReversedBeforeArrival.into());
        }
        let first = self.state.seen(batch, card, word, &past, wallet.purse);
        if let Some(status) = first.refusal() {
            return Err(status.into());
        }
        search.clear();
        let second = self.second(request, asked, named, second, &first, search)?;
        let other = sequencer.table.batch_of(second.card).expect("it was read");
        let seen = self.state.seen(other, second.card, second.word, &second.past, second.wallet.purse);
        let moves = match asked {
            Asked::Replace { .. } => self.decide_replace(request, order, &first, &seen)?,
            Asked::Transfer { amount } => self.decide_transfer(amount, &first, &seen)?,
        };
        if !self.has_credit() {
            return Err(self.short().into());
        }
        let left = |after: &After| after.value.map(|(moved, purse)| (moved, purse.remaining));
        let sides = [(card, word, *wallet), (second.card, second.word, second.wallet)];
        let view = View { held: false, expires_ms: first.view.expires_ms, ..seen.view };
        let worth = left(&moves.taken).map_or(seen.value.purse.remaining, |(_, remaining)| remaining);
        let (lsn, new) = self.record_pair(request, prepared.body, &moves, sides);
        let body = match moves.seat {
            Some((key, before)) => {
                self.state.advance(search, true);
                self.state.orders.put(key, OrderWord::new(lsn, OrderState::Sold, before.is_fetched()));
                let view = View { word: new, ..view };
                ReplyBody::Card(report(other, second.card, &view, Some(key.1), (worth, 0)))
            }
            None => {
                let (amount, remaining) = left(&moves.given).unwrap_or_default();
                ReplyBody::Value(ValueReport { product: batch.product, amount, remaining })
            }
        };
        Ok(self.reply(request, Status::Ok, Some(lsn), body))
    }

    /// The second card: the one that was named, or one in stock that is like the first, as it stands now.
    fn second(
        &self,
        request: &Request,
        asked: Asked,
        named: Option<CardDigest>,
        read: Option<Side>,
        first: &Seen<'_>,
        search: &mut Search,
    ) -> Result<Side, Not> {
        let table = &self.sequencer.table;
        let second = if let Asked::Replace { with: None } = asked {
            if self.state.is_product_frozen(self.state.product_of(first.batch)) {
                return Err(Status::Frozen.into());
            }
            if !self.state.find_like(table, first, search) {
                return Err(Status::OutOfStock.into());
            }
            let (card, word) = search.cards.cards().next().expect("one was found");
            match read {
                Some(side) if (side.card, side.word) == (card, word) => side,
                // It has no past that would have to be read.
                _ if !word.flags().contains(Flags::HAS_EFFECTS) => Side::untouched(card, word),
                _ => return Err(Not::Stale),
            }
        } else {
            // An import that was committed meanwhile may have brought it.
            let came = || named.is_some_and(|named| self.sequencer.has(named));
            match read {
                Some(side) => side,
                None if came() => return Err(Not::Stale),
                None => return Err(Not::Missed(Status::NotFound)),
            }
        };
        let batch = table.batch_of(second.card).expect("it was read");
        if batch.word(second.card.row()) != second.word {
            return Err(Not::Stale);
        }
        if !self.concerns(request, batch) {
            return Err(Not::Missed(Status::NotFound));
        }
        if second.past.same.is_some() {
            return Err(Status::IdReused.into());
        }
        if second.past.poisoned {
            return Err(Status::ReversedBeforeArrival.into());
        }
        Ok(second)
    }

    fn decide_replace(
        &self,
        request: &Request,
        order: Option<OrderPast>,
        old: &Seen<'_>,
        new: &Seen<'_>,
    ) -> Result<Moves, Not> {
        // No order of this store sold it, so none could fetch the code of the card in its place.
        let order = order.ok_or(Not::Refused(Status::Migrated))?;
        let key = (request.caller.tenant, order.order);
        if self.state.orders.find(&key) != Some(order.word) {
            return Err(Not::Stale);
        }
        if !self.state.can_replace(old, new) {
            return Err(Status::OtherUnfit.into());
        }
        if order.replacements >= REPLACEMENTS_MAX {
            return Err(Status::ReturnsExhausted.into());
        }
        // From here on the order may fetch its code at any time: but for one whose codes nobody saw.
        let unseen = order.sealed && !order.word.is_fetched();
        let (given, taken, end_ms) = replaced(old, new, !unseen)?;
        Ok(Moves { given, taken, seat: Some((key, order.word)), end_ms })
    }

    fn decide_transfer(&self, amount: Money, from: &Seen<'_>, to: &Seen<'_>) -> Result<Moves, Not> {
        if from.is_single() {
            return Err(Status::IllegalTransition.into());
        }
        if let Some(status) = unusable(&from.view) {
            return Err(status.into());
        }
        if from.card == to.card || from.batch.product != to.batch.product {
            return Err(Status::OtherUnfit.into());
        }
        let (given, taken) = transferred(from, to, amount, self.state.value_max(to))?;
        Ok(Moves { given, taken, seat: None, end_ms: None })
    }

    /// Whether the caller may know of cards of a batch that are not sold.
    fn concerns(&self, request: &Request, batch: &Batch) -> bool {
        let scope = self.state.scope(request.caller.principal).expect("asked before the command");
        scope.covers(batch.product) && !scope.denies(self.state.product_of(batch), &request.caller, false)
    }

    /// The reply of the first time, once more; of a replacement with the second card as it stands now.
    fn replay_pair(
        &self,
        request: &Request,
        asked: Asked,
        same: Effect,
        batch: &Batch,
        second: Option<Side>,
    ) -> Result<Reply, Not> {
        let body = match asked {
            Asked::Transfer { .. } => ReplyBody::Value(ValueReport {
                product: batch.product,
                amount: same.amount,
                remaining: same.remaining,
            }),
            Asked::Replace { .. } => {
                let Side { card, word, past, wallet } = second.ok_or(Not::Stale)?;
                let batch = self.sequencer.table.batch_of(card).expect("it was read");
                if batch.word(card.row()) != word {
                    return Err(Not::Stale);
                }
                let Seen { view, value, .. } = self.state.seen(batch, card, word, &past, wallet.purse);
                let worth = (value.purse.remaining, value.held.amount);
                ReplyBody::Card(report(batch, card, &view, None, worth))
            }
        };
        let reply = self.reply(request, Status::Ok, Some(same.lsn), body);
        Ok(Reply { flags: ReplyFlags::REPLAYED, time_ms: same.time_ms, ..reply })
    }

    /// Records both entries, one behind the other, and moves both cards. Returns where the first stands, and the second
    /// card's word.
    fn record_pair(
        &mut self,
        request: &Request,
        body: u32,
        moves: &Moves,
        [from, to]: [(CardRef, Word, Wallet); 2],
    ) -> (Lsn, Word) {
        let Moves { given, taken, seat, end_ms } = moves;
        let volumes = [&from, &to].map(|(.., wallet)| wallet.chapters.len().min(1) * VOLUME_BYTES);
        let bytes = 2 * (PAIR_ENTRY_BYTES + request.grounds_bytes()) + volumes[0] + volumes[1];
        let sequencer = self.sequencer;
        let cards = [(from.0, from.1), (to.0, to.1)];
        let (order, link) = seat.map_or_else(Default::default, |(key, before)| (key.1, before.bits()));
        let (first, second) = self.append(bytes, |group| {
            let pair = Pair { other: to.0, order, link, end_ms: Pair::NO_END };
            let other = from.0;
            let first = push(sequencer, request, body, given, from, &pair, group);
            let end_ms = end_ms.unwrap_or(Pair::NO_END);
            let pair = Pair { other, order, link: first.bytes(), end_ms };
            (first, push(sequencer, request, body, taken, to, &pair, group))
        });
        let words = [(first, given), (second, taken)]
            .map(|(lsn, after)| Word::new(lsn, after.lifecycle, after.flags));
        for ((card, old), new) in cards.into_iter().zip(words) {
            let batch = sequencer.table.batch_of(card).expect("decided on this batch");
            self.state.install(batch, card.row(), old, new);
        }
        if let Some(end_ms) = *end_ms {
            let card = cards[1].0;
            let batch = sequencer.table.batch_of(card).expect("decided on this batch");
            self.state.set_end(batch, card.row(), end_ms);
        }
        (first, words[1])
    }
}

/// What is to be recorded of both cards.
struct Moves {
    given: After,
    taken: After,
    /// The order in which the second card takes the place of the first, and its word before.
    seat: Option<(OrderKey, OrderWord)>,
    /// The end of validity that the second is given.
    end_ms: Option<u64>,
}

/// Adds one entry of a pair.
fn push(
    sequencer: &Sequencer,
    request: &Request,
    body: u32,
    after: &After,
    (card, word, wallet): (CardRef, Word, Wallet),
    pair: &Pair,
    group: &mut GroupWriter<'_>,
) -> Lsn {
    let Wallet { mut trail, mut chapters, sale, .. } = wallet;
    let tail = after.value.map(|(amount, purse)| {
        trail.filter.add(sequencer.marks.mark(request.id));
        if !chapters.is_empty() {
            chapters.push((None, trail.filter));
        }
        // What took a place was sold by that.
        let sale = if after.kind == Kind::Replacement { Some(group.next_lsn()) } else { sale.or(purse.sale) };
        ValueTail { amount, purse: Purse { sale, ..purse }, trail, chapters, ..ValueTail::default() }
    });
    let head = Head {
        post: Word::state_of(after.lifecycle, after.flags),
        subject: card.to_bits(),
        prev: word.bits(),
        ..request.head(after.kind, body)
    };
    let bytes = PAIR_BYTES + tail.as_ref().map_or(0, ValueTail::bytes);
    group.push_on(&head, request.grounds.as_deref(), bytes, |place| {
        let (own, value) = place.split_at_mut(PAIR_BYTES);
        pair.encode(own);
        if let Some(tail) = &tail {
            tail.encode(value);
        }
    })
}
