//! The feed and the totals beside the oracle: what they tell is the world's log, through every crash.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use kami_engine::{
    Caller, CardKind, CardRef, Event as Told, FeedSpec, Kind, KindSet, Lsn, PastError, ProductId, Role,
    Status, TOTALLED, TotalKey, TotalsQuery,
};

use super::oracle::{Effect, Event, Oracle, Place};
use super::workload::{AUDITOR, OPERATOR};
use super::world::{EPOCH_MS, World};
use crate::ask::{Ask, What, caller};

/// Who follows the log all through a life, and what it was told.
#[derive(Clone)]
pub struct Subscriber {
    caller: Caller,
    kinds: KindSet,
    /// Where to go on after a restart: position and epoch.
    place: (Lsn, u32),
    told: Vec<Told>,
}

impl Subscriber {
    pub fn some() -> Vec<Subscriber> {
        let new = |caller, kinds| Subscriber { caller, kinds, place: (Lsn::START, 0), told: Vec::new() };
        let mut other = AUDITOR;
        other.tenant.0 = 1;
        vec![
            new(AUDITOR, KindSet::ALL),
            new(other, KindSet::ALL),
            new(OPERATOR, KindSet::of(&[Kind::Sell, Kind::Redeem, Kind::Reverse, Kind::Import])),
        ]
    }
}

/// What stands in the log beside the effects of commands.
fn is_effect(kind: Kind) -> bool {
    !matches!(kind, Kind::Start | Kind::Restore | Kind::KeyRotate | Kind::Miss | Kind::SignedCheckpoint)
}

impl Oracle {
    /// What the event tells of itself. Fields that the world does not know are zero in both.
    fn as_told(&self, event: &Event) -> Told {
        let Event { kind, ask, time_ms, lsn, effect } = event;
        let mut told = Told {
            lsn: lsn.and_then(Lsn::from_bytes).unwrap_or(Lsn::START),
            epoch: 0,
            time_ms: *time_ms,
            kind: *kind,
            request: kami_engine::RequestId(ask.id),
            related: 0,
            order: None,
            card: None,
            object: 0,
            amount: None,
            count: 0,
            product: None,
            batch: None,
            principal: ask.caller.principal,
            terminal: kami_engine::TerminalId(ask.terminal),
            merchant: ask.caller.merchant,
            tenant: ask.caller.tenant,
            channel: kami_engine::ChannelId(ask.channel),
            grounds: ask.grounds(),
        };
        let of_batch = |told: &mut Told, id: u32| {
            told.batch = Some(kami_engine::BatchId(id));
            told.product = Some(ProductId(self.batches[&id].product));
        };
        match effect {
            &Effect::Card { place, related, moved, .. } => {
                of_batch(&mut told, place.0);
                told.card = Some(CardRef::new(place.0, place.1 as u64));
                told.count = 1;
                told.related = related;
                let of_value = self.products[&self.batches[&place.0].product].spec.kind;
                told.amount = match of_value {
                    // Uses are no money.
                    CardKind::MultiUse | CardKind::Shared => None,
                    CardKind::StoredValue if kind.may_tell_value() => Some(moved.amount),
                    _ if kind.must_tell_value() => Some(moved.amount),
                    _ => matches!(kind, Kind::Redeem | Kind::Reverse).then(|| self.face(place)),
                };
            }
            &Effect::Propose { number, .. } => {
                told.object = number;
                let What::Propose(what) = &ask.what else { unreachable!("proposes something") };
                let inner = Ask { what: What::clone(what), ..ask.clone() };
                if let Some(place) = inner.code().and_then(|code| self.find(ask.caller.tenant.0, code)) {
                    of_batch(&mut told, place.0);
                    told.card = Some(CardRef::new(place.0, place.1 as u64));
                }
                match inner.what {
                    What::Export { batch, .. } => of_batch(&mut told, batch),
                    What::Fetch { order, .. } => told.order = Some(kami_engine::OrderId(order)),
                    _ => {}
                }
            }
            &Effect::End { number, .. } => told.object = number,
            &Effect::Control { tenant, .. } => told.object = u64::from(tenant),
            &Effect::Pair { place, other, order, moved, .. } => {
                of_batch(&mut told, place.0);
                told.card = Some(CardRef::new(place.0, place.1 as u64));
                told.count = 1;
                told.related = u128::from(CardRef::new(other.0, other.1 as u64).to_bits());
                told.order = order.map(|(_, order)| kami_engine::OrderId(order));
                told.amount = (self.kind(place) == CardKind::StoredValue).then_some(moved.amount);
            }
            Effect::Exception(exception) => {
                told.object = exception.id;
                told.count = 1;
                told.card = exception.card;
                if let Some(card) = exception.card {
                    of_batch(&mut told, card.batch());
                }
            }
            Effect::ExceptionResolve(given) => told.object = given.id,
            &Effect::PinLock { place, .. } => {
                of_batch(&mut told, place.0);
                told.card = Some(CardRef::new(place.0, place.1 as u64));
                told.count = 1;
            }
            Effect::Order(change) => {
                told.order = Some(kami_engine::OrderId(change.order));
                told.count = change.cards.len() as u32;
                let parts = self.by_product(&change.cards);
                if parts.len() == 1 {
                    let (product, (_, amount)) = parts.first_key_value().expect("one");
                    (told.product, told.amount) = (Some(ProductId(*product)), Some(*amount));
                }
            }
            Effect::Reveal(_) => {
                let order = ask.what.order().expect("codes are those of an order");
                told.order = Some(kami_engine::OrderId(order));
            }
            Effect::ProductPut { id, .. } | Effect::ProductFreeze { id, .. } => {
                told.product = Some(ProductId(*id));
            }
            Effect::Batch { id, .. } => of_batch(&mut told, *id),
            Effect::PrincipalAdd { id, .. }
            | Effect::PrincipalRevoke { id }
            | Effect::PrincipalRenew { id, .. } => told.object = u64::from(*id),
            Effect::AccountPut { id, .. }
            | Effect::AccountFreeze { id, .. }
            | Effect::LimitPut { id, .. } => told.object = u64::from(*id),
            Effect::TenantPut { id, .. } | Effect::TenantFreeze { id, .. } => told.object = u64::from(*id),
            Effect::LimitCrossed { limit, .. } => told.object = u64::from(limit.0),
            Effect::Post(posting) => told.related = posting.document.0,
            Effect::Import { id, batch } => {
                of_batch(&mut told, *id);
                told.count = batch.cards.len() as u32;
            }
        }
        told
    }

    /// Cards by product: how many, and what they are worth.
    fn by_product(&self, cards: &[Place]) -> BTreeMap<u32, (u64, i64)> {
        let mut parts: BTreeMap<u32, (u64, i64)> = BTreeMap::new();
        for place in cards {
            let (count, amount) = parts.entry(self.batches[&place.0].product).or_default();
            (*count, *amount) = (*count + 1, *amount + self.face(*place));
        }
        parts
    }

    /// Whether the caller may be told.
    fn shows(&self, caller: Caller, told: &Told) -> bool {
        let principal = self.principals.get(&caller.principal.0);
        let scope = principal.map_or(&[][..], |principal| &principal.spec.products);
        told.tenant == caller.tenant
            && (caller.role == Role::Admin || caller.merchant.0 == 0 || told.merchant == caller.merchant)
            && (scope.is_empty() || told.product.is_some_and(|product| scope.contains(&product)))
    }
}

/// What both know.
fn comparable(told: &Told) -> Told {
    let count = if told.kind == Kind::Reveal { 0 } else { told.count };
    Told { epoch: 0, lsn: Lsn::START, count, ..told.clone() }
}

impl World {
    fn expected(&self, caller: Caller, kinds: KindSet) -> Vec<(Option<u64>, Told)> {
        let told = self.log.iter().map(|event| (event.lsn, self.oracle.as_told(event)));
        told.filter(|(_, told)| kinds.contains(told.kind) && self.oracle.shows(caller, told)).collect()
    }

    /// What is totalled for a caller: an order counts by product, with the number and worth of its cards.
    fn trade(&self, caller: Caller) -> Vec<(Option<(u64, i64)>, Told)> {
        let mut trade = Vec::new();
        for event in self.log.iter().filter(|event| TOTALLED.contains(&event.kind)) {
            let mut told = self.oracle.as_told(event);
            if let (Kind::Reverse, &Effect::Card { place, related, .. }) = (event.kind, &event.effect) {
                let (owner, at) = self.oracle.find_undone(place, related).expect("what is reversed happened");
                match self.oracle.card(owner).past[at].kind {
                    // Nothing was redeemed.
                    Kind::Hold => continue,
                    Kind::Load => {
                        (told.kind, told.amount) = (Kind::Load, told.amount.map(|amount| -amount));
                    }
                    _ => {}
                }
            }
            let parts = match &event.effect {
                Effect::Order(change) => self.oracle.by_product(&change.cards),
                _ => {
                    trade.push((None, told));
                    continue;
                }
            };
            for (product, part) in parts {
                trade.push((Some(part), Told { product: Some(ProductId(product)), ..told.clone() }));
            }
        }
        trade.retain(|(_, told)| self.oracle.shows(caller, told));
        trade
    }

    /// What was told is how the world's log begins, each effect once, at its place.
    fn hold(&self, told: &[Told], expected: &[(Option<u64>, Told)]) {
        assert!(told.len() <= expected.len(), "told of {} effects, {} were", told.len(), expected.len());
        for (index, (told, (lsn, expected))) in told.iter().zip(expected).enumerate() {
            assert_eq!(comparable(told), comparable(expected), "effect {index}");
            assert!(lsn.is_none_or(|lsn| lsn == told.lsn.bytes()), "effect {index} at {}", told.lsn);
        }
        assert!(told.windows(2).all(|pair| pair[0].lsn < pair[1].lsn), "positions rise");
    }

    /// Every subscriber goes on from where it was, takes in what there is, in pieces, and leaves.
    pub fn follow(&mut self) {
        if self.medium.is_cut() {
            return;
        }
        let engine = self.engine().clone();
        let mut subscribers = std::mem::take(&mut self.subscribers);
        for subscriber in &mut subscribers {
            let (after, epoch) = subscriber.place;
            let spec = FeedSpec { after: Some(after), epoch, kinds: subscriber.kinds, products: Vec::new() };
            let mut feed = engine.feed(subscriber.caller, &spec).expect("what was told is still there");
            loop {
                let mut events = Vec::new();
                let piece = 1 + self.looking.below(9) as usize;
                let place = feed.read(&engine, piece, &mut events).expect("the log can be read");
                assert!(place.position <= engine.durable_end(), "beyond what is durable");
                let last = events.last().map(|event| (event.lsn, event.epoch));
                subscriber.told.extend(events.into_iter().filter(|event| is_effect(event.kind)));
                // It may note the last event, or the place it was told.
                subscriber.place = match last {
                    Some(last) if self.looking.percent(50) => last,
                    _ => (place.position, place.epoch),
                };
                if place.caught_up || self.looking.percent(5) {
                    break;
                }
                if last.map(|last| last.0) == Some(subscriber.place.0) && self.looking.percent(10) {
                    let (after, epoch) = subscriber.place;
                    let spec = FeedSpec { after: Some(after), epoch, ..spec.clone() };
                    feed = engine.feed(subscriber.caller, &spec).expect("the same place");
                }
            }
            self.hold(&subscriber.told, &self.expected(subscriber.caller, subscriber.kinds));
        }
        self.subscribers = subscribers;
        *self.met.entry("feed".to_owned()).or_default() += 1;
    }

    /// After a crash: nobody was told of anything that is not there any more.
    pub fn hold_subscribers(&self) {
        for subscriber in &self.subscribers {
            self.hold(&subscriber.told, &self.expected(subscriber.caller, subscriber.kinds));
        }
    }

    /// Reads all of the log as one caller or another, and adds up a period, if everything is durable.
    pub fn look_back(&mut self) {
        let all = self.engine.as_ref().is_some_and(|engine| engine.durable_end() == engine.tail());
        if self.medium.is_cut() || !all {
            return;
        }
        let tenant = u16::from(self.looking.percent(15));
        let number = *self.looking.pick(&[109, 1, 2, 3, 4, 5]);
        let merchant = *self.looking.pick(&[0, 0, 1, 2]);
        let role = *self.looking.pick(&[Role::Auditor, Role::Finance, Role::Admin]);
        let caller = caller(number, role, merchant, tenant);
        let engine = self.engine().clone();
        let revoked = self.oracle.principals.get(&number).is_some_and(|principal| principal.revoked);
        let feed = engine.feed(caller, &FeedSpec::from_start());
        let query = self.some_totals();
        let totals = engine.totals(caller, &query, &AtomicBool::new(false));
        if revoked {
            for refused in [feed.err(), totals.err()] {
                assert!(
                    matches!(refused, Some(PastError::Refused(Status::Unauthenticated))),
                    "a revoked principal is told nothing: {refused:?}"
                );
            }
            return;
        }
        let mut told = Vec::new();
        let mut feed = feed.expect("from the beginning");
        while !feed.read(&engine, 100, &mut told).expect("the log can be read").caught_up {}
        told.retain(|event| is_effect(event.kind));
        let expected = self.expected(caller, KindSet::ALL);
        assert_eq!(told.len(), expected.len(), "all of it");
        self.hold(&told, &expected);
        self.hold_totals(caller, &query, totals.expect("totals"));
        *self.met.entry("totals".to_owned()).or_default() += 1;
    }

    fn some_totals(&mut self) -> TotalsQuery {
        let today = (self.oracle.now_ms / 86_400_000) as u32;
        let first = (EPOCH_MS / 86_400_000) as u32;
        TotalsQuery {
            day: first - 1 + self.looking.below(u64::from(today - first) + 2) as u32,
            days: 1 + self.looking.below(3) as u32,
            offset_min: *self.looking.pick(&[0, 480, 330, -300, -720]),
            end: None,
            after: None,
            lines_max: *self.looking.pick(&[1, 2, 5, 1000]),
        }
    }

    fn hold_totals(&self, caller: Caller, query: &TotalsQuery, mut page: kami_engine::Totals) {
        let mut expected: BTreeMap<TotalKey, (u64, i64)> = BTreeMap::new();
        for (event, told) in self.trade(caller) {
            let local = told.time_ms as i64 + i64::from(query.offset_min) * 60_000;
            let day = (local / 86_400_000) as u32;
            if (query.day..query.day + query.days).contains(&day) {
                let key = TotalKey {
                    day,
                    merchant: told.merchant,
                    channel: told.channel,
                    terminal: told.terminal,
                    product: told.product.expect("trade is in a product"),
                    kind: told.kind.number(),
                };
                let (count, amount) = expected.entry(key).or_default();
                let (cards, worth) = event.unwrap_or((u64::from(told.count), told.amount.unwrap_or(0)));
                *count += cards;
                *amount += worth;
            }
        }
        let engine = self.engine();
        let mut lines = Vec::new();
        loop {
            assert!(page.lines.len() <= query.lines_max as usize, "more than a page");
            lines.append(&mut page.lines);
            if !page.more {
                break;
            }
            let after = lines.last().map(|line: &kami_engine::TotalLine| line.key);
            let next = TotalsQuery { end: Some(page.end), after, ..*query };
            page = engine.totals(caller, &next, &AtomicBool::new(false)).expect("the next page");
        }
        let lines: BTreeMap<TotalKey, (u64, i64)> =
            lines.iter().map(|line| (line.key, (line.count, line.amount))).collect();
        assert_eq!(lines, expected, "totals of {query:?}");
    }
}
