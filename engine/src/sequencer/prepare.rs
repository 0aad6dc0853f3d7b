//! Before the lock: what the commands of a turn need, looked up, prefetched and read.
//!
//! All that is slow happens here. The index is asked for a whole run of codes and their words are prefetched, so that
//! the memory answers several at a time; what lies in the log (the past of a card that has one, an order, the entries
//! of an object, a page of a list) is read; and it is summed up how much of the log the commands may take, as credit is
//! asked for before the lock.
//!
//! # Invariants
//! * Nothing is decided here. Each thing that is read is kept with the position it was read from (the card's word, the
//!   object's last entry, the number of batches for a code that was not found), and the turn compares.
//! * A code comes once in a turn, be there such a card or not.
//! * The state's lock is taken only for a look at where an object stands, never while something is read.

use std::sync::atomic::Ordering;

use kami_wal::planted;

use super::{Detail, EarlierPosting, GROUP_BYTES, Prepared, Sequencer, Wallet, Work};
use crate::accounts::AccountState;
use crate::card::{Effect, Past};
use crate::chain::{Chain, ChainError, Sought, origin_of};
use crate::command::{Command, Request, STATEMENT_LINES_MAX};
use crate::identity::{DocumentId, OrderId, RequestId, TenantId};
use crate::index::Index;
use crate::limits::{CROSSING_ENTRY_BYTES, CROSSINGS_PER_REQUEST};
use crate::product::CardKind;
use crate::record::{GROUP_HEAD_BYTES, HEAD_BYTES, Kind, VALUE_BYTES, VOLUME_BYTES};
use crate::reply::{HISTORY_MAX, HistoryEvent, Statement};
use crate::status::Status;
use crate::table::Batch;
use crate::word::{CardRef, Flags, Lifecycle, Word};

/// A turn takes at most this much of the log, unless a single command needs more.
const TURN_BYTES_MAX: usize = 1 << 20;

impl Sequencer {
    /// Reads what the requests from `from` on need and cannot read under the lock. Returns where the
    /// turn must end: before a card that comes up twice, or when the turn is large enough.
    pub(super) fn prepare(&self, work: &mut Work, from: usize, stale: bool) -> usize {
        let Work { requests, prepared, seen, buffer, .. } = work;
        prepared.resize_with(requests.len().max(prepared.len()), Prepared::default);
        let guard = Index::pin();
        let commits = self.table.commits();
        // One kind of miss after the other, close together: so the memory answers several at a time, and several
        // translations of addresses are looked up at a time.
        for (request, prepared) in requests[from..].iter().zip(&mut prepared[from..]) {
            prepared.code = request.command.card();
            if let Some(code) = prepared.code {
                self.index.prefetch(code, &guard);
            }
        }
        for prepared in &mut prepared[from..requests.len()] {
            prepared.card = prepared.code.and_then(|code| self.index.find(code, &guard));
            if let Some((batch, card)) = self.batch_of(prepared.card) {
                batch.prefetch(card.row());
            }
        }
        seen.clear();
        let counts_tills = self.counts_tills.load(Ordering::Relaxed);
        let crossings = if counts_tills { CROSSINGS_PER_REQUEST } else { 0 };
        let bytes_max = self.wal.payload_bytes_max().min(TURN_BYTES_MAX) - GROUP_HEAD_BYTES;
        let mut bytes = 0;
        for at in from..requests.len() {
            let (request, prepared) = (&requests[at], &mut prepared[at]);
            let redeems = request.command.is_behind_pin();
            prepared.crossings = if redeems { crossings } else { 0 };
            prepared.log_bytes = request.command.log_bytes_max()
                + prepared.crossings * CROSSING_ENTRY_BYTES
                + request.grounds_bytes();
            if at > from
                && (bytes + prepared.log_bytes > bytes_max
                    || request.command.begins_turn()
                    || requests[at - 1].command.ends_turn())
            {
                return at;
            }
            prepared.body = request.body();
            prepared.past = None;
            prepared.detail = Detail::None;
            prepared.wallet = None;
            prepared.object = None;
            prepared.failed = if request.has_bad_grounds() { Some(Status::Malformed) } else { None };
            prepared.absent_at = Some(commits);
            // A code that nobody has ends the turn, too: else the distance of receipts would tell it.
            if prepared.code.is_some_and(|code| !seen.insert(code) && !planted("card-twice-in-a-turn")) {
                return at;
            }
            if let Some((batch, card)) = self.batch_of(prepared.card) {
                prepared.absent_at = None;
                prepared.word = batch.word(card.row());
                let tells_value = request.command.is_about_value()
                    || batch.kind != CardKind::Single
                    || batch.validity.is_some()
                    || prepared.word.flags().contains(Flags::HELD);
                let needs_chain = (prepared.word.flags().contains(Flags::HAS_EFFECTS)
                    || matches!(request.command, Command::Query { .. } | Command::History { .. }))
                    && !request.command.is_hidden(prepared.word, request.caller.role);
                if (needs_chain || tells_value)
                    && let Err(error) = self.read_chain(request, card, prepared, buffer, tells_value)
                {
                    prepared.failed = Some(chain_failed(&error));
                }
                if at > from && bytes + prepared.log_bytes > bytes_max {
                    return at;
                }
            } else if prepared.code.is_none()
                && let Err(error) = self.read_object(request, prepared, buffer, stale && at == from)
            {
                prepared.failed = Some(chain_failed(&error));
            }
            // What was read of an order may have shown that it takes more.
            if at > from && bytes + prepared.log_bytes > bytes_max {
                return at;
            }
            bytes += prepared.log_bytes;
        }
        requests.len()
    }

    /// Reads a card's chain as far as the command needs it.
    pub(crate) fn read_chain(
        &self,
        request: &Request,
        card: CardRef,
        prepared: &mut Prepared,
        buffer: &mut Vec<u8>,
        tells_value: bool,
    ) -> Result<(), ChainError> {
        if request.command.is_hidden(prepared.word, request.caller.role) {
            return Ok(());
        }
        let mut chain = Chain::new(&self.wal, buffer);
        match request.command {
            Command::History { .. } => {
                let batch = self.table.batch_of(card).expect("the card was found");
                prepared.detail = self.read_history(&mut chain, batch, card, prepared.word)?;
            }
            Command::Query { .. } => {
                let mut word = prepared.word;
                if tells_value {
                    let wallet = self.read_purse(request, card, prepared, &mut chain)?;
                    // All between is about the value, and perhaps long; not of what was replaced, where it ends so.
                    let sale = |lsn| Word::new(lsn, Lifecycle::Sold, Flags::NONE);
                    if !word.flags().contains(Flags::REPLACED) {
                        word = wallet.sale.map_or(word, sale);
                    }
                    prepared.wallet = Some(wallet);
                }
                let batch = self.table.batch_of(card).expect("the card was found");
                if let Some(order) = Self::read_owner(&mut chain, batch, card, word)? {
                    prepared.detail = Detail::OrderOf(order);
                }
            }
            Command::OutcomeOf { request, .. } => {
                let sought = Sought::new(request, None, &self.marks, false);
                prepared.past = Some(Box::new(chain.past(card, prepared.word, &sought)?.0));
            }
            _ if tells_value => {
                let mut wallet = self.read_purse(request, card, prepared, &mut chain)?;
                if let (Command::Advice(_), Some(sale)) = (&request.command, wallet.sale) {
                    wallet.sold_ms = chain.entry(sale)?.time_ms;
                }
                let volume = if wallet.chapters.is_empty() { 0 } else { VOLUME_BYTES };
                prepared.log_bytes = HEAD_BYTES
                    + VALUE_BYTES
                    + volume
                    + prepared.crossings * CROSSING_ENTRY_BYTES
                    + request.grounds_bytes();
                prepared.wallet = Some(wallet);
            }
            _ => {
                let sought = Sought::new(request.id, request.command.original(), &self.marks, false);
                prepared.past = Some(Box::new(chain.past(card, prepared.word, &sought)?.0));
            }
        }
        if prepared.word.flags().contains(Flags::REPLACED)
            && let Some(past) = &mut prepared.past
            && let Some(same) = past.same.as_mut().filter(|same| same.kind.may_tell_value())
        {
            let (place, asked) = ((card, prepared.word), request.command.sought(request.id));
            let (reversed, successor) = self.was_reversed_elsewhere(&mut chain, place, same, asked)?;
            same.reversed |= reversed;
            past.successor = Some(successor);
        }
        Ok(())
    }

    /// Reads what ever happened to a card, newest first.
    fn read_history(
        &self,
        chain: &mut Chain<'_>,
        batch: &Batch,
        card: CardRef,
        word: Word,
    ) -> Result<Detail, ChainError> {
        // Before its chains are read: what is sold meanwhile shows in that this moved.
        let is_shared = batch.kind == CardKind::Shared;
        let last = if is_shared { self.state().shared_row(batch, card.row()).order } else { None };
        let mut events = Vec::new();
        let mut more = false;
        chain.walk(card, word, |entry, word| {
            more = events.len() == HISTORY_MAX;
            if !more {
                events.push(HistoryEvent::of(entry, word)?);
            }
            Ok(!more)
        })?;
        if is_shared {
            let mut uses = Vec::new();
            chain.walk_uses(card, last, |entry, word| {
                uses.push(HistoryEvent::of(entry, word)?);
                Ok(uses.len() <= HISTORY_MAX)
            })?;
            // The first sale is in both chains.
            events.extend(uses);
            events.sort_by_key(|event| std::cmp::Reverse(event.lsn));
            events.dedup_by_key(|event| event.lsn);
            more |= events.len() > HISTORY_MAX;
            events.truncate(HISTORY_MAX);
        }
        if !more {
            if let Some(origin) = origin_of(batch, card)? {
                events.extend(HistoryEvent::of_origin(batch, card.row(), &origin));
            }
            let grounds = chain.entry(batch.import_lsn)?.grounds()?;
            events.push(HistoryEvent::of_import(batch, grounds));
        }
        Ok(if is_shared {
            Detail::HistoryOfShared(Box::new((last, events)))
        } else {
            Detail::History(events)
        })
    }

    /// Reads the order that a card belongs to, if it belongs to one. What is read from `word` on is about that.
    fn read_owner(
        chain: &mut Chain<'_>,
        batch: &Batch,
        card: CardRef,
        word: Word,
    ) -> Result<Option<OrderId>, ChainError> {
        if batch.kind == CardKind::Shared {
            // It belongs to as many orders as have uses of it.
            return Ok(None);
        }
        let mut order = None;
        chain.walk(card, word, |entry, _| {
            match entry.head.kind {
                // Its place in the order is another card's.
                Kind::Replace => return Ok(false),
                Kind::Replacement => {
                    order = Some(entry.pair()?.order);
                    return Ok(false);
                }
                kind if !kind.is_order() => return Ok(true),
                _ => {}
            }
            // What an order gave up, or gave back, belongs to none.
            if !matches!(entry.head.kind, Kind::Cancel | Kind::ReserveTimeout | Kind::Return) {
                order = Some(entry.order()?.0);
            }
            Ok(false)
        })?;
        if order.is_none() {
            order = origin_of(batch, card)?.and_then(|origin| origin.order);
        }
        Ok(order)
    }

    /// Whether what a request did at a card that was replaced since was undone at the card in its place, and that card
    /// with the word that this was read from.
    fn was_reversed_elsewhere(
        &self,
        chain: &mut Chain<'_>,
        (mut card, mut word): (CardRef, Word),
        same: &Effect,
        request: RequestId,
    ) -> Result<(bool, (CardRef, Word)), ChainError> {
        while word.flags().contains(Flags::REPLACED)
            && let Some(next) = chain.successor(card, word)?
            && let Some(batch) = self.table.batch_of(next)
        {
            (card, word) = (next, batch.word(next.row()));
        }
        let (past, _) = chain.past(card, word, &Sought::elsewhere(request, &self.marks))?;
        let original = past.original.filter(|original| original.lsn == same.lsn);
        Ok((original.is_some_and(|original| original.reversed), (card, word)))
    }

    /// Reads what a card's chain says about the request and about the card's value.
    fn read_purse(
        &self,
        request: &Request,
        card: CardRef,
        prepared: &mut Prepared,
        chain: &mut Chain<'_>,
    ) -> Result<Box<Wallet>, ChainError> {
        let mut sought = Sought::new(request.id, request.command.original(), &self.marks, true);
        if let Command::HoldTimeout { .. } = request.command {
            sought = sought.without_id();
        }
        let (past, wallet) = self.read_value(&sought, card, prepared.word, chain)?;
        prepared.past = Some(Box::new(past));
        Ok(Box::new(wallet))
    }

    /// The same of any card.
    pub(crate) fn read_value(
        &self,
        sought: &Sought,
        card: CardRef,
        word: Word,
        chain: &mut Chain<'_>,
    ) -> Result<(Past, Wallet), ChainError> {
        let (mut past, top) = chain.past(card, word, sought)?;
        let counts = self.table.batch_of(card).filter(|batch| batch.validity.is_some());
        let purse = top.value.as_ref().map(|(_, tail)| tail.purse);
        if let Some(batch) = counts {
            match top.sale {
                Some(sale) => past.sold_ms = chain.entry(sale)?.time_ms,
                None => {
                    let origin = origin_of(batch, card)?.unwrap_or_default();
                    past.sold_ms = origin.sold_ms;
                    past.used_ms = if origin.state == Lifecycle::Sold { origin.redeemed_ms } else { 0 };
                }
            }
        }
        let (trail, chapters) = chain.trail(&top, &self.marks)?;
        Ok((past, Wallet { purse, trail, chapters, sale: top.sale, sold_ms: 0 }))
    }

    /// Reads the entries of the object an administrative or order command is about.
    fn read_object(
        &self,
        request: &Request,
        prepared: &mut Prepared,
        buffer: &mut Vec<u8>,
        stale: bool,
    ) -> Result<(), ChainError> {
        let tenant = request.caller.tenant;
        if self.table.has_orders_of_old()
            && let Some(order) = request.command.order()
        {
            let known = self.order_of_old(tenant, order);
            prepared.detail = known.map_or(Detail::None, |report| Detail::OrderOfOld(Box::new(report)));
        }
        match &request.command {
            &Command::HoldTimeout { card, .. } => {
                let Some(batch) = self.table.batch_of(card) else { return Ok(()) };
                if card.row() >= batch.rows() {
                    return Ok(());
                }
                prepared.card = Some(card);
                prepared.absent_at = None;
                prepared.word = batch.word(card.row());
                self.read_chain(request, card, prepared, buffer, true)?;
                // It has a group for itself, and ends the one before.
                prepared.log_bytes += 2 * GROUP_BYTES;
            }
            // A sale under a new order id needs nothing; only the lock can tell that it is not new.
            Command::Sell { .. } | Command::SellLines(_) | Command::Reserve(_) if !stale => return Ok(()),
            command if command.order().is_some() => {
                let key = (tenant, command.order().expect("just asked"));
                let word = self.state.lock().orders.find(&key);
                if let Some(word) = word {
                    let past =
                        Chain::new(&self.wal, buffer).order(key.1, word, command.sought(request.id))?;
                    let most =
                        command.order_bytes_max(past.cards.count(), &past.facts) + request.grounds_bytes();
                    // What is longer than a record is refused, so no room is asked for it.
                    prepared.log_bytes = most.min(self.wal.payload_bytes_max() + 2 * GROUP_BYTES);
                    prepared.detail = Detail::Order(Box::new(past));
                }
                if let Command::Return(given) = command {
                    let guard = Index::pin();
                    let found = given.cards.iter().map(|digest| self.index.find(*digest, &guard));
                    prepared.cards = found.collect();
                }
            }
            Command::Propose(_) | Command::Approve(_) => self.read_proposed(request, prepared, buffer)?,
            Command::Replace(_) | Command::Transfer(_) => self.read_pair(request, prepared, buffer)?,
            // As a sale: only the lock can tell that the document is not new.
            Command::Post(_) if !stale => return Ok(()),
            Command::Post(posting) => {
                prepared.detail = self.posted(tenant, posting.document, buffer)?;
            }
            Command::OutcomeOfDocument { document, .. } => {
                prepared.detail = self.posted(tenant, *document, buffer)?;
            }
            Command::OrderList(query) => {
                prepared.detail = Detail::Orders(self.read_orders(&request.caller, query, buffer)?);
            }
            Command::AccountStatement { account, from, count } => {
                let known = self.state.lock().accounts.find(*account, tenant).cloned();
                let count = (*count).clamp(1, STATEMENT_LINES_MAX);
                if let Some(AccountState { account: shown, money_lsn, .. }) = known {
                    let read = Chain::new(&self.wal, buffer).statement(*account, from.or(money_lsn), count);
                    prepared.detail = Detail::Statement(match read {
                        Ok((lines, next)) => Some(Box::new(Statement { account: shown, lines, next })),
                        // A place of the caller's choosing may be no entry of the account.
                        Err(_) if from.is_some() => None,
                        Err(error) => return Err(error),
                    });
                }
            }
            command => {
                prepared.tail = command.object_tail(tenant);
                if command.changes_object() {
                    let state = self.state.lock();
                    prepared.object = state.object_lsn(command, tenant);
                    if let Command::PrincipalRenew(renewal) = command {
                        prepared.tail = state.renewed_tail(**renewal);
                    }
                    drop(state);
                    if let Some(lsn) = prepared.object {
                        let past = Chain::new(&self.wal, buffer).object_past(lsn, request.id)?;
                        prepared.past = Some(Box::new(past));
                    }
                }
            }
        }
        Ok(())
    }

    /// What was posted under a document, if something was.
    fn posted(
        &self,
        tenant: TenantId,
        document: DocumentId,
        buffer: &mut Vec<u8>,
    ) -> Result<Detail, ChainError> {
        let lsn = self.state.lock().documents.get(&(tenant, document)).copied();
        let Some(lsn) = lsn else { return Ok(Detail::None) };
        let mut chain = Chain::new(&self.wal, buffer);
        let (effect, request, entry) = chain.effect(lsn)?;
        let legs = entry.posting()?.legs;
        Ok(Detail::Posted(Box::new(EarlierPosting { effect, request, legs })))
    }
}

pub(crate) fn chain_failed(error: &ChainError) -> Status {
    // The card's own past cannot be read, so nothing can be decided about it. Others are served.
    tracing::error!(error = error as &dyn std::error::Error, "a card's log entry cannot be read");
    Status::Busy
}
