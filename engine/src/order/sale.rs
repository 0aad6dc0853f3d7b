//! SELL, SELL_LINES and RESERVE: cards are found for a buyer and taken.
//!
//! # Invariants
//! * All or nothing: cards of every line, the money of every leg, one record.
//! * Stock is taken last, when nothing else can refuse the order; an order that is refused leaves
//!   nothing but what was learned of rows that are not for sale.
//! * What a reservation sets aside (money, places under a cap) is not stored: it follows from the orders that wait.

use kami_wal::planted;

use super::{Line, ORDER_LINES_MAX, Purchase, Retry, SHARED_PLAIN_MAX, units};
use crate::account::{LEGS_MAX, Leg};
use crate::accounts::LegsRefused;
use crate::command::{ORDER_CARDS_MAX, Request};
use crate::identity::{AccountId, OrderId};
use crate::limit::Exceeded;
use crate::limits::{Buyer, CROSSED_MAX, CROSSING_ENTRY_BYTES, Crossed};
use crate::product::CardKind;
use crate::record::{GROUP_HEAD_BYTES, Kind, OrderFacts};
use crate::reply::{Reply, ReplyBody};
use crate::sequencer::{OrderPast, Turn};
use crate::status::Status;
use crate::stock::Search;
use crate::sync::coarse::{MutexGuard, thread};

/// What a purchase asks for, however it was asked.
pub(super) struct Wanted<'a> {
    kind: Kind,
    order: OrderId,
    lines: &'a [Line],
    validity_s_min: u32,
    account: Option<AccountId>,
    ip: u64,
    legs: &'a [Leg],
    sealed: bool,
    reserve_s: u32,
    /// Whether its lines are kept in its entry: not those of a plain sale, which the first version knows.
    plain: bool,
}

impl<'a> Wanted<'a> {
    /// A plain sale, of one product.
    pub(super) fn plain(order: OrderId, lines: &'a [Line], validity_s_min: u32) -> Wanted<'a> {
        Wanted {
            kind: Kind::Sell,
            order,
            lines,
            validity_s_min,
            account: None,
            ip: 0,
            legs: &[],
            sealed: false,
            reserve_s: 0,
            plain: true,
        }
    }

    pub(super) fn of(kind: Kind, purchase: &'a Purchase) -> Wanted<'a> {
        Wanted {
            kind,
            order: purchase.order,
            lines: &purchase.lines,
            validity_s_min: purchase.validity_s_min,
            account: purchase.account,
            ip: purchase.ip,
            legs: &purchase.legs,
            sealed: purchase.sealed,
            reserve_s: purchase.reserve_s,
            plain: false,
        }
    }

    /// Why it makes no sense.
    fn fault(&self) -> Option<Status> {
        let cards: u64 = self.lines.iter().map(|line| u64::from(line.count)).sum();
        let twice = |at: usize, line: &Line| {
            self.lines[..at].iter().any(|other| {
                other.product == line.product
                    && (other.face == line.face || other.face.is_none() || line.face.is_none())
            })
        };
        if self.lines.is_empty()
            || self.lines.len() > ORDER_LINES_MAX
            || self.legs.len() > LEGS_MAX
            || self.lines.iter().enumerate().any(|(at, line)| line.count == 0 || twice(at, line))
        {
            return Some(Status::Malformed);
        }
        (cards > u64::from(ORDER_CARDS_MAX)).then_some(Status::OrderTooLarge)
    }

    fn cards(&self) -> u32 {
        self.lines.iter().map(|line| line.count).sum()
    }
}

impl Turn<'_> {
    /// SELL, SELL_LINES and RESERVE.
    pub(super) fn purchase(
        &mut self,
        request: &Request,
        body: u32,
        past: Option<&OrderPast>,
        wanted: &Wanted<'_>,
        search: &mut Search,
    ) -> Reply {
        if let Some(past) = past {
            return match self.order_retry(request, body, past, &[wanted.kind]) {
                None => self.refuse(request, Status::AlreadyExists),
                Some(Retry::Reused) => self.refuse(request, Status::IdReused),
                Some(Retry::Replay(same)) => self.replay_order(request, past, same),
            };
        }
        if let Some(status) = wanted.fault() {
            return self.refuse(request, status);
        }
        let (tenant, count) = (request.caller.tenant, wanted.cards());
        let entry_bytes = if wanted.plain {
            OrderFacts::plain_entry_bytes_max(count)
        } else {
            OrderFacts::entry_bytes_max(count, wanted.lines.len(), wanted.legs.len())
        };
        let group_bytes = GROUP_HEAD_BYTES + entry_bytes + CROSSED_MAX * CROSSING_ENTRY_BYTES;
        if group_bytes > self.sequencer.wal.payload_bytes_max() {
            return self.refuse(request, Status::OrderTooLarge);
        }
        let mut reserve_s = u32::MAX;
        for line in wanted.lines {
            let Some(product) = self.state.product(line.product, tenant) else {
                return self.refuse(request, Status::NotFound);
            };
            if self.state.is_product_frozen(product) {
                return self.refuse(request, Status::Frozen);
            }
            let shared = product.product.spec.kind == CardKind::Shared;
            if shared && wanted.plain && count > SHARED_PLAIN_MAX {
                return self.refuse(request, Status::OrderTooLarge);
            }
            reserve_s = reserve_s.min(product.product.spec.terms.reserve_s);
        }
        let (account, principal) = (wanted.account.unwrap_or_default(), request.caller.principal);
        let buyer = Buyer { tenant, account, ip: wanted.ip, principal };
        let reserves = wanted.kind == Kind::Reserve;
        let mut crossed = Vec::new();
        if !wanted.plain {
            let checked = self.may_buy(request, &buyer, wanted.legs, &[]);
            if let Err(refused) = checked {
                return self.refuse_legs(request, refused);
            }
        }
        if let Err(exceeded) = self.within_limits(&buyer, wanted.lines, reserves, &mut crossed) {
            return self.refuse_exceeded(request, exceeded);
        }
        if planted("limit-outside-the-lock") {
            MutexGuard::unlocked(&mut self.state, || thread::sleep(std::time::Duration::from_millis(2)));
        }
        if !self.has_credit() {
            return self.refuse(request, self.short());
        }
        // Stock is taken last, when nothing else can be refused.
        search.clear();
        let table = &self.sequencer.table;
        let mut lines = wanted.lines.iter();
        let found = lines.all(|line| self.state.allocate(table, tenant, line, wanted.validity_s_min, search));
        self.state.pass_over(table, search);
        if !found {
            self.state.advance(search, false);
            return self.refuse(request, Status::OutOfStock);
        }
        let asked_s = if wanted.reserve_s == 0 { reserve_s } else { wanted.reserve_s.min(reserve_s) };
        let moment_ms = if reserves { self.state.now_ms + u64::from(asked_s) * 1000 } else { 0 };
        let mut facts = OrderFacts {
            account: buyer.account.0,
            validity_s_min: if reserves { wanted.validity_s_min } else { 0 },
            ip: wanted.ip,
            moment_ms,
            prev: 0,
            sealed: wanted.sealed,
            lines: std::mem::take(&mut search.lines),
            legs: std::mem::take(&mut search.legs),
        };
        facts.lines.clear();
        if !wanted.plain {
            facts.lines.extend_from_slice(wanted.lines);
        }
        self.state.accounts.posted(wanted.legs, &mut facts.legs);
        if reserves {
            // Nothing moves until it is paid: what an account has then, nobody knows yet.
            facts.legs.iter_mut().for_each(|posted| (posted.balance, posted.prev) = (0, None));
        }
        let subject = match wanted.lines {
            [line] => u64::from(line.product.0),
            _ => 0,
        };
        let lsn =
            self.record_order(request, body, wanted.order, wanted.kind, &facts, subject, &crossed, search);
        let buyer = request.caller.principal;
        let reply = if wanted.kind == Kind::Reserve {
            self.order_reply(request, lsn, wanted.order, buyer, &facts, count)
        } else {
            self.deliver(request, lsn, wanted.order, buyer, &facts, wanted.sealed, &search.cards)
        };
        (search.lines, search.legs) = (facts.lines, facts.legs);
        reply
    }

    /// Whether the caller may buy for the account, and move money so.
    pub(super) fn may_buy(
        &self,
        request: &Request,
        buyer: &Buyer,
        legs: &[Leg],
        held: &[Leg],
    ) -> Result<(), LegsRefused> {
        if buyer.account != AccountId(0) {
            let refuse = |status| Err(LegsRefused { status, account: buyer.account });
            match self.state.accounts.find(buyer.account, buyer.tenant).map(|state| &state.account) {
                None => return refuse(Status::NotFound),
                // Or anybody could use up another's limits.
                Some(account) if !request.caller.may_debit(account) => return refuse(Status::Forbidden),
                Some(account) if account.frozen => return refuse(Status::Frozen),
                Some(_) => {}
            }
        }
        self.may_move(request, legs, held)
    }

    /// Whether limits allow it, and which alerts it is to record.
    pub(super) fn within_limits(
        &self,
        buyer: &Buyer,
        lines: &[Line],
        reserves: bool,
        crossed: &mut Vec<Crossed>,
    ) -> Result<(), Exceeded> {
        if !reserves && self.state.limits.standing(buyer.tenant) == 0 {
            return Ok(());
        }
        self.state.limits.check(buyer, &units(lines), reserves, self.state.now_ms, crossed)
    }

    pub(super) fn refuse_exceeded(&self, request: &Request, exceeded: Exceeded) -> Reply {
        self.reply(request, exceeded.status, None, ReplyBody::Exceeded(exceeded))
    }
}
