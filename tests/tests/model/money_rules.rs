//! The oracle's rules for accounts, postings and limits.
//!
//! Money is kept as plain lists: what is on an account is the sum of its lines, what counts against a limit is
//! found among all purchases and redemptions there ever were.

use std::collections::BTreeSet;

use kami_engine::{
    Account, AccountId, AccountKind, AccountSpec, Exceeded, Kind, Leg, Limit, LimitAction, LimitId,
    LimitScope, LimitSpec, LimitWindow, Lsn, MONEY_MAX, OrderState, Posting, ReplyFlags, Role, StatementLine,
    Status, Subject, TenantId,
};

use super::expected::{At, Body, Expected};
use super::oracle::{Effect, Event, Oracle, Order, Past};
use super::rules::Verdict;
use crate::ask::{Ask, What};

/// The longest name and the longest note.
const NAME_BYTES_MAX: usize = 64;
const NOTE_BYTES_MAX: usize = 200;
/// The most limits that stand in a tenant, and lines of a statement in one reply.
const LIMITS_MAX: usize = 64;
const STATEMENT_LINES_MAX: u32 = 100;

/// An account with what ever happened to its money, oldest first.
#[derive(Clone)]
pub struct Book {
    pub account: Account,
    pub lines: Vec<Line>,
    pub past: Vec<Past>,
}

/// A line of a statement; its position may not be known yet.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    pub lsn: Option<u64>,
    pub line: StatementLine,
}

/// A posting, by its document.
#[derive(Clone)]
pub struct Document {
    pub past: Past,
    pub posted: Vec<(Leg, i64)>,
}

/// A limit and when it was set, counted in effects.
#[derive(Clone)]
pub struct LimitBook {
    pub limit: Limit,
    pub since: u64,
}

/// A line of a purchase, or a redemption: what counts against limits.
#[derive(Clone)]
pub struct Counted {
    pub tenant: u16,
    pub product: u32,
    pub units: u64,
    pub subjects: Vec<Subject>,
    pub time_ms: u64,
    pub effect: u64,
    /// The order, of a purchase.
    pub order: Option<(u16, u128)>,
    /// Whether its reservation was given up.
    pub given_back: bool,
}

impl Oracle {
    /// Whether the caller may pay from the account.
    pub fn may_debit(ask: &Ask, account: &Account) -> bool {
        let caller = &ask.caller;
        matches!(caller.role, Role::Admin | Role::Finance)
            || account.spec.owner.0 == 0
            || account.spec.owner == caller.principal
    }

    pub fn book(&self, ask: &Ask, id: u32) -> Option<&Book> {
        self.accounts.get(&id).filter(|book| book.account.tenant == ask.caller.tenant)
    }

    pub fn on_money(&self, ask: &Ask) -> Verdict {
        match &ask.what {
            What::AccountPut { spec, new } => self.put_account(ask, spec, *new),
            &What::AccountFreeze { account, frozen } => self.freeze_account(ask, account, frozen),
            &What::AccountQuery(id) => match self.book(ask, id).filter(|book| Self::may_read(ask, book)) {
                None => self.refuse(Status::NotFound),
                Some(book) => self.told(Body::Accounts(vec![book.account.clone()])),
            },
            What::AccountList => {
                let own = self.accounts.values().filter(|book| book.account.tenant == ask.caller.tenant);
                self.told(Body::Accounts(own.map(|book| book.account.clone()).collect()))
            }
            &What::Statement { account, from, count } => self.statement(ask, account, from, count),
            What::Post(posting) => self.post(ask, posting),
            What::LimitPut(spec) => self.put_limit(ask, spec),
            What::LimitList => {
                let stands =
                    |book: &&LimitBook| book.limit.tenant == ask.caller.tenant && !book.limit.spec.ended;
                let own = self.limits.values().filter(stands);
                self.told(Body::Limits(own.map(|book| book.limit.clone()).collect()))
            }
            _ => unreachable!("not about money"),
        }
    }

    fn told(&self, body: Body) -> Verdict {
        (Expected { body, ..Expected::plain(Status::Ok, self.now_ms) }, None)
    }

    fn may_read(ask: &Ask, book: &Book) -> bool {
        ask.caller.role != Role::Seller || Self::may_debit(ask, &book.account)
    }

    fn put_account(&self, ask: &Ask, spec: &AccountSpec, new: bool) -> Verdict {
        let tenant = ask.caller.tenant;
        let named = |book: &&Book| book.account.tenant == tenant && book.account.spec.name == spec.name;
        let known = self.accounts.values().find(named);
        let owner = self.principals.get(&spec.owner.0);
        let sane = (1..=NAME_BYTES_MAX).contains(&spec.name.len())
            && !spec.name.chars().any(char::is_control)
            && (0..=MONEY_MAX).contains(&spec.credit_limit);
        let refusal = match known.map(|book| &book.account) {
            _ if !sane => Some(Status::Malformed),
            _ if spec.owner.0 != 0 && owner.is_none_or(|owner| owner.spec.tenant != tenant) => {
                Some(Status::NotFound)
            }
            Some(_) if new => Some(Status::AlreadyExists),
            None if !new => Some(Status::NotFound),
            Some(known) if (known.spec.kind, known.spec.currency) != (spec.kind, spec.currency) => {
                Some(Status::IllegalTransition)
            }
            Some(known)
                if known.spec.kind != AccountKind::External
                    && known.balance - known.held + spec.credit_limit < 0 =>
            {
                Some(Status::InsufficientFunds)
            }
            _ => None,
        };
        let id = known.map_or(self.accounts.len() as u32 + 1, |book| book.account.id.0);
        let past = known.map_or(&[][..], |book| &book.past);
        let effect = Effect::AccountPut { id, tenant: tenant.0, spec: spec.clone() };
        self.change(ask, past, Kind::AccountPut, refusal, effect, |oracle| {
            Body::Accounts(vec![oracle.accounts[&id].account.clone()])
        })
    }

    fn freeze_account(&self, ask: &Ask, id: u32, frozen: bool) -> Verdict {
        let Some(book) = self.book(ask, id) else { return self.refuse(Status::NotFound) };
        let refusal = (book.account.frozen == frozen).then_some(Status::IllegalTransition);
        let kind = if frozen { Kind::AccountFreeze } else { Kind::AccountUnfreeze };
        self.change(ask, &book.past, kind, refusal, Effect::AccountFreeze { id, frozen }, |oracle| {
            Body::Accounts(vec![oracle.accounts[&id].account.clone()])
        })
    }

    fn statement(&self, ask: &Ask, id: u32, from: Option<u64>, count: u32) -> Verdict {
        let Some(book) = self.book(ask, id).filter(|book| Self::may_read(ask, book)) else {
            return self.refuse(Status::NotFound);
        };
        let mut newest_first: Vec<Line> = book.lines.iter().rev().copied().collect();
        if let Some(from) = from {
            let Some(at) = newest_first.iter().position(|line| line.lsn == Some(from)) else {
                return self.refuse(Status::Malformed);
            };
            newest_first.drain(..at);
        }
        let count = count.clamp(1, STATEMENT_LINES_MAX) as usize;
        let more = newest_first.len() > count;
        newest_first.truncate(count);
        self.told(Body::Statement { account: book.account.clone(), lines: newest_first, more })
    }

    /// Why legs cannot be posted, or set aside, and the account that stands against them. `held` are those that
    /// the same order set aside before.
    pub fn legs_refusal(&self, ask: &Ask, legs: &[Leg], held: &[Leg]) -> Option<(Status, u32)> {
        if legs.iter().any(|leg| leg.amount == 0 || leg.amount.unsigned_abs() > MONEY_MAX.unsigned_abs()) {
            return Some((Status::Malformed, 0));
        }
        for leg in legs {
            match self.book(ask, leg.account.0) {
                None => return Some((Status::NotFound, leg.account.0)),
                Some(book) if leg.amount < 0 && !Self::may_debit(ask, &book.account) => {
                    return Some((Status::Forbidden, leg.account.0));
                }
                Some(_) => {}
            }
        }
        let currency = |leg: &Leg| self.accounts[&leg.account.0].account.spec.currency;
        let currencies: BTreeSet<_> = legs.iter().map(currency).collect();
        let sum = |own| legs.iter().filter(|leg| currency(leg) == own).map(|leg| leg.amount).sum::<i64>();
        if currencies.into_iter().any(|own| sum(own) != 0) {
            return Some((Status::LegsUnbalanced, 0));
        }
        let mut seen = BTreeSet::new();
        for id in legs.iter().map(|leg| leg.account.0).filter(|id| seen.insert(*id)) {
            let account = &self.accounts[&id].account;
            let moved: i64 = legs.iter().filter(|leg| leg.account.0 == id).map(|leg| leg.amount).sum();
            if moved < 0 && account.frozen {
                return Some((Status::Frozen, id));
            }
            let others = account.held - taken(held, id);
            let left = account.balance + moved + account.spec.credit_limit - others;
            if moved < 0 && account.spec.kind != AccountKind::External && left < 0 {
                return Some((Status::InsufficientFunds, id));
            }
        }
        None
    }

    fn post(&self, ask: &Ask, posting: &Posting) -> Verdict {
        let key = (ask.caller.tenant.0, posting.document.0);
        if let Some(known) = self.documents.get(&key) {
            if known.past.ask.id != ask.id {
                return self.refuse(Status::AlreadyExists);
            }
            if known.past.ask.what != ask.what || known.past.ask.caller.principal != ask.caller.principal {
                return self.refuse(Status::IdReused);
            }
            let expected = Expected {
                flags: ReplyFlags::REPLAYED,
                lsn: At::Known(known.past.lsn),
                body: Body::Posted(known.posted.clone()),
                ..Expected::plain(Status::Ok, known.past.time_ms)
            };
            return (expected, None);
        }
        if posting.document.0 == 0
            || posting.legs.is_empty()
            || posting.note.len() > NOTE_BYTES_MAX
            || posting.note.chars().any(char::is_control)
        {
            return self.refuse(Status::Malformed);
        }
        if let Some((status, account)) = self.legs_refusal(ask, &posting.legs, &[]) {
            return self.refuse_legs(status, account);
        }
        let event = self.event(ask, Kind::Post, Effect::Post(posting.clone()));
        let mut after = self.clone();
        after.apply(&event);
        let body = Body::Posted(after.documents[&key].posted.clone());
        (Expected { lsn: At::New, body, ..Expected::plain(Status::Ok, self.now_ms) }, Some(event))
    }

    pub fn refuse_legs(&self, status: Status, account: u32) -> Verdict {
        let body = if account == 0 { Body::None } else { Body::Account(AccountId(account)) };
        (Expected { body, ..Expected::plain(status, self.now_ms) }, None)
    }

    pub fn refuse_exceeded(&self, exceeded: Exceeded) -> Verdict {
        let body = Body::Exceeded(exceeded);
        (Expected { body, ..Expected::plain(exceeded.status, self.now_ms) }, None)
    }

    fn put_limit(&self, ask: &Ask, spec: &LimitSpec) -> Verdict {
        let tenant = ask.caller.tenant;
        let named = |book: &&LimitBook| book.limit.tenant == tenant && book.limit.spec.name == spec.name;
        let known = self.limits.values().rfind(named).filter(|book| !book.limit.spec.ended);
        let standing =
            self.limits.values().filter(|book| book.limit.tenant == tenant && !book.limit.spec.ended);
        let product = spec.product.map(|id| self.products.get(&id.0));
        let refusal = match known.map(|book| &book.limit.spec) {
            _ if !spec.is_sane() => Some(Status::Malformed),
            None if spec.ended => Some(Status::NotFound),
            Some(known)
                if (known.scope, known.product, known.window) != (spec.scope, spec.product, spec.window) =>
            {
                Some(Status::IllegalTransition)
            }
            None if standing.count() >= LIMITS_MAX => Some(Status::TooLarge),
            None if matches!(spec.scope, LimitScope::Account(Some(one)) if self.book(ask, one.0).is_none()) => {
                Some(Status::NotFound)
            }
            None if product.is_some_and(|known| known.is_none_or(|known| known.tenant != tenant.0)) => {
                Some(Status::NotFound)
            }
            _ => None,
        };
        let id = known.map_or(self.limits.len() as u32 + 1, |book| book.limit.id.0);
        // A retry is found by the name, whatever became of the limits that had it.
        let past: Vec<Past> = self
            .limit_past
            .iter()
            .filter(|(key, _)| *key == (tenant.0, spec.name.clone()))
            .map(|(_, past)| past.clone())
            .collect();
        let effect = Effect::LimitPut { id, tenant: tenant.0, spec: spec.clone() };
        self.change(ask, &past, Kind::LimitPut, refusal, effect, |oracle| {
            Body::Limits(oracle.limits.get(&id).map(|book| book.limit.clone()).into_iter().collect())
        })
    }

    pub fn till_subjects(ask: &Ask) -> [Subject; 2] {
        let terminal = kami_engine::TerminalId(ask.terminal);
        [Subject::Terminal(ask.caller.merchant, terminal), Subject::Principal(ask.caller.principal)]
    }

    /// The limits that count a redemption of the product here: with the subject that each counts.
    fn counting(&self, ask: &Ask, product: u32) -> impl Iterator<Item = (&LimitBook, Subject)> + '_ {
        let (tenant, subjects) = (ask.caller.tenant, Self::till_subjects(ask));
        self.limits.values().filter_map(move |book| {
            let spec = &book.limit.spec;
            let subject = match spec.scope {
                _ if matches!(spec.window, LimitWindow::OpenCards | LimitWindow::OpenOrders) => return None,
                LimitScope::Terminal => subjects[0],
                LimitScope::Principal => subjects[1],
                _ => return None,
            };
            let counts =
                !spec.ended && book.limit.tenant == tenant && spec.product.is_none_or(|own| own.0 == product);
            counts.then_some((book, subject))
        })
    }

    /// The limits that count a purchase of these lines, with the subject that each counts, none for one order by
    /// itself, and how many units it is to it.
    fn counting_purchase(
        &self,
        ask: &Ask,
        (account, ip): (u32, u64),
        lines: &[kami_engine::Line],
        reserves: bool,
    ) -> Vec<(&LimitBook, Option<Subject>, u64)> {
        let mut found = Vec::new();
        for book in self.limits.values().filter(|book| book.limit.tenant == ask.caller.tenant) {
            let spec = &book.limit.spec;
            let is_open = matches!(spec.window, LimitWindow::OpenCards | LimitWindow::OpenOrders);
            let subject = match spec.scope {
                LimitScope::Principal if is_open => Some(Subject::Principal(ask.caller.principal)),
                LimitScope::Account(one) if account != 0 && one.is_none_or(|one| one.0 == account) => {
                    Some(Subject::Account(AccountId(account)))
                }
                LimitScope::Ip if ip != 0 => Some(Subject::Ip(ip)),
                LimitScope::Order => None,
                _ => continue,
            };
            let own = lines.iter().filter(|line| spec.product.is_none_or(|own| own == line.product));
            let units = match spec.window {
                LimitWindow::OpenCards | LimitWindow::OpenOrders if !reserves => 0,
                LimitWindow::OpenOrders => 1,
                _ => own.map(|line| u64::from(line.count)).sum(),
            };
            if !spec.ended && units > 0 {
                found.push((book, subject, units));
            }
        }
        found
    }

    /// What is reserved and not paid: cards and orders.
    fn reserved_by(&self, tenant: u16, subject: Subject) -> (u64, u64) {
        let is_own = |order: &Order| match subject {
            Subject::Account(id) => order.account == id.0,
            Subject::Ip(ip) => order.ip == ip,
            Subject::Principal(buyer) => order.buyer() == buyer,
            _ => false,
        };
        let open = self
            .orders
            .iter()
            .filter(|(key, order)| key.0 == tenant && order.state == OrderState::Reserved && is_own(order));
        open.fold((0, 0), |(cards, orders), (_, order)| (cards + order.cards.len() as u64, orders + 1))
    }

    /// What counts against a limit at `now_ms`.
    fn in_window(&self, book: &LimitBook, subject: Subject, now_ms: u64) -> u64 {
        let spec = &book.limit.spec;
        match spec.window {
            LimitWindow::OpenCards => return self.reserved_by(book.limit.tenant.0, subject).0,
            LimitWindow::OpenOrders => return self.reserved_by(book.limit.tenant.0, subject).1,
            _ => {}
        }
        let counts = |counted: &&Counted| {
            counted.tenant == book.limit.tenant.0
                && counted.subjects.contains(&subject)
                && book.since < counted.effect
                && !counted.given_back
                && spec.product.is_none_or(|own| own.0 == counted.product)
                && is_inside(spec.window, counted.time_ms, now_ms)
        };
        self.counted.iter().filter(counts).map(|counted| counted.units).sum()
    }

    /// Whether so many units more are too many for the limit.
    fn exceeds(&self, book: &LimitBook, subject: Subject, wanted: u64) -> Option<Exceeded> {
        let spec = &book.limit.spec;
        let units = self.in_window(book, subject, self.now_ms);
        if spec.action != LimitAction::Refuse || units + wanted <= spec.max {
            return None;
        }
        let is_open = matches!(spec.window, LimitWindow::OpenCards | LimitWindow::OpenOrders);
        let opens = |at_ms: u64| !is_open && self.in_window(book, subject, at_ms) + wanted <= spec.max;
        let ends = self.counted.iter().map(|counted| end_ms(spec.window, counted.time_ms));
        let opens_at = ends.filter(|end| *end != u64::MAX && self.now_ms < *end && opens(*end)).min();
        Some(Exceeded {
            limit: book.limit.id,
            status: book.limit.status(),
            left: spec.max.saturating_sub(units),
            opens_ms: opens_at.map_or(u64::MAX, |end| end - self.now_ms),
        })
    }

    /// The limit that stands against a redemption; of several, the one that opens last.
    pub fn till_refusal(&self, ask: &Ask, product: u32) -> Option<Exceeded> {
        let counting = self.counting(ask, product);
        last_to_open(counting.filter_map(|(book, subject)| self.exceeds(book, subject, 1)))
    }

    /// The same for a purchase.
    pub fn purchase_refusal(
        &self,
        ask: &Ask,
        buyer: (u32, u64),
        lines: &[kami_engine::Line],
        reserves: bool,
    ) -> Option<Exceeded> {
        let counting = self.counting_purchase(ask, buyer, lines, reserves);
        last_to_open(counting.into_iter().filter_map(|(book, subject, units)| match subject {
            Some(subject) => self.exceeds(book, subject, units),
            None => (book.limit.spec.max < units).then(|| Exceeded {
                limit: book.limit.id,
                status: book.limit.status(),
                left: book.limit.spec.max,
                opens_ms: u64::MAX,
            }),
        }))
    }

    /// The alerts that an effect sets off, which stand behind it in the log.
    pub fn crossings(&self, event: &Event) -> Vec<Event> {
        let counting = match (event.kind, &event.effect) {
            (Kind::Redeem | Kind::Hold, Effect::Card { place, .. }) => {
                let product = self.batches[&place.0].product;
                let counting = self.counting(&event.ask, product);
                counting.map(|(book, subject)| (book, Some(subject), 1)).collect()
            }
            (Kind::Sell | Kind::Reserve | Kind::Realloc, Effect::Order(change)) => {
                let reserves = event.kind == Kind::Reserve;
                self.counting_purchase(&event.ask, (change.account, change.ip), &change.lines, reserves)
            }
            _ => Vec::new(),
        };
        let mut events = Vec::new();
        for (book, subject, wanted) in counting {
            let Some(subject) = subject else { continue };
            let spec = &book.limit.spec;
            let id = book.limit.id;
            let silent = self.crossed.iter().any(|(limit, other, at_ms)| {
                *limit == id && *other == subject && is_inside(spec.window, *at_ms, event.time_ms)
            });
            let units = self.in_window(book, subject, event.time_ms) + wanted;
            if spec.action == LimitAction::Alert && spec.max < units && !silent {
                let effect = Effect::LimitCrossed { limit: id, subject };
                events.push(Event { kind: Kind::LimitCrossed, effect, lsn: None, ..event.clone() });
            }
        }
        events.truncate(4);
        events
    }

    pub fn apply_money(&mut self, event: &Event) {
        let past = event.past(kami_engine::Lifecycle::Available, kami_engine::Flags::NONE, 0);
        match &event.effect {
            Effect::AccountPut { id, tenant, spec } => {
                let fresh = Account {
                    id: AccountId(*id),
                    tenant: TenantId(*tenant),
                    spec: spec.clone(),
                    frozen: false,
                    balance: 0,
                    held: 0,
                };
                let fresh = Book { account: fresh, lines: Vec::new(), past: Vec::new() };
                let book = self.accounts.entry(*id).or_insert(fresh);
                book.account.spec = spec.clone();
                book.past.push(past);
            }
            Effect::AccountFreeze { id, frozen } => {
                let book = self.accounts.get_mut(id).expect("known");
                book.account.frozen = *frozen;
                book.past.push(past);
            }
            Effect::Post(posting) => {
                self.move_money(event, posting.document.0, &posting.legs);
                let balance = |leg: &Leg| (*leg, self.accounts[&leg.account.0].account.balance);
                let posted = posting.legs.iter().map(balance).collect();
                let key = (event.ask.caller.tenant.0, posting.document.0);
                let twin = self.documents.insert(key, Document { past, posted });
                assert!(twin.is_none(), "one posting a document");
            }
            Effect::LimitPut { id, tenant, spec } => {
                let limit = Limit { id: LimitId(*id), tenant: TenantId(*tenant), spec: spec.clone() };
                let since = self.limits.get(id).map_or(self.effects, |book| book.since);
                self.limit_past.push(((*tenant, spec.name.clone()), past));
                self.limits.insert(*id, LimitBook { limit, since });
            }
            Effect::LimitCrossed { limit, subject } => {
                self.crossed.push((*limit, *subject, event.time_ms));
            }
            _ => unreachable!("not about money"),
        }
    }

    /// Sets aside what the legs of a reservation take, or ends that.
    pub fn set_aside(&mut self, legs: &[Leg], sign: i64) {
        let ids: BTreeSet<u32> = legs.iter().map(|leg| leg.account.0).collect();
        for id in ids {
            self.accounts.get_mut(&id).expect("known").account.held += sign * taken(legs, id);
        }
    }

    /// Adds legs to the books, one line an account.
    pub fn move_money(&mut self, event: &Event, related: u128, legs: &[Leg]) {
        let mut seen = BTreeSet::new();
        for id in legs.iter().map(|leg| leg.account.0).filter(|id| seen.insert(*id)) {
            let amount = legs.iter().filter(|leg| leg.account.0 == id).map(|leg| leg.amount).sum();
            let book = self.accounts.get_mut(&id).expect("known");
            book.account.balance += amount;
            let line = StatementLine {
                lsn: Lsn::START,
                time_ms: event.time_ms,
                kind: event.kind,
                principal: event.ask.caller.principal,
                channel: kami_engine::ChannelId(event.ask.channel),
                related,
                amount,
                balance: book.account.balance,
            };
            book.lines.push(Line { lsn: event.lsn, line });
        }
    }

    /// Notes a purchase or a redemption, if that is what the event is.
    pub fn count(&mut self, event: &Event) {
        self.effects += 1;
        let counted = |product, units, subjects, order| Counted {
            tenant: event.ask.caller.tenant.0,
            product,
            units,
            subjects,
            time_ms: event.time_ms,
            effect: self.effects,
            order,
            given_back: false,
        };
        match (event.kind, &event.effect) {
            (Kind::Redeem | Kind::Hold, Effect::Card { place, .. }) => {
                let product = self.batches[&place.0].product;
                self.counted.push(counted(product, 1, Self::till_subjects(&event.ask).to_vec(), None));
            }
            (Kind::Sell | Kind::Reserve | Kind::Realloc, Effect::Order(change)) => {
                let account = (change.account != 0).then_some(Subject::Account(AccountId(change.account)));
                let ip = (change.ip != 0).then_some(Subject::Ip(change.ip));
                let subjects: Vec<Subject> = account.into_iter().chain(ip).collect();
                let key = Some((change.tenant, change.order));
                let lines = change.lines.iter();
                let lines: Vec<Counted> = lines
                    .map(|line| counted(line.product.0, u64::from(line.count), subjects.clone(), key))
                    .collect();
                self.counted.extend(lines);
            }
            _ => {}
        }
    }

    /// Whether money closes, over the oracle itself.
    pub fn check_money(&self) {
        let currencies: BTreeSet<_> =
            self.accounts.values().map(|book| (book.account.tenant, book.account.spec.currency)).collect();
        for currency in currencies {
            let own = self
                .accounts
                .values()
                .map(|book| &book.account)
                .filter(|account| (account.tenant, account.spec.currency) == currency);
            assert_eq!(own.map(|account| account.balance).sum::<i64>(), 0, "money closes");
        }
        for book in self.accounts.values() {
            let account = &book.account;
            assert_eq!(book.lines.iter().map(|line| line.line.amount).sum::<i64>(), account.balance);
            let bound = account.spec.kind == AccountKind::External;
            assert!(bound || account.balance + account.spec.credit_limit >= account.held, "{account:?}");
        }
    }
}

/// What legs take from an account, all together.
fn taken(legs: &[Leg], account: u32) -> i64 {
    let own = legs.iter().filter(|leg| leg.account.0 == account);
    own.map(|leg| leg.amount).sum::<i64>().min(0).abs()
}

/// Of several limits that stand against a command, it is told of the one that opens last.
fn last_to_open(exceeded: impl Iterator<Item = Exceeded>) -> Option<Exceeded> {
    exceeded.reduce(|worst, other| if worst.opens_ms < other.opens_ms { other } else { worst })
}

/// Whether what happened at `at_ms` is in the window at `now_ms`.
fn is_inside(window: LimitWindow, at_ms: u64, now_ms: u64) -> bool {
    now_ms < end_ms(window, at_ms)
}

/// When what happened at `at_ms` leaves the window.
fn end_ms(window: LimitWindow, at_ms: u64) -> u64 {
    const DAY_MS: i64 = 24 * 3_600_000;
    match window {
        LimitWindow::Rolling { seconds } => at_ms + u64::from(seconds) * 1000,
        LimitWindow::Day { offset_min } => {
            let offset_ms = i64::from(offset_min) * 60_000;
            let day = (at_ms.cast_signed() + offset_ms).div_euclid(DAY_MS);
            ((day + 1) * DAY_MS - offset_ms).cast_unsigned()
        }
        _ => u64::MAX,
    }
}
