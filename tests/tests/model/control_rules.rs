//! The oracle's rules for what takes two people: proposals, approvals, the export of codes.

use kami_engine::{
    BatchId, Caller, CardKind, CardRef, DualControl, Flags, Kind, Lifecycle, Line, Lsn, OrderId, OrderState,
    PrincipalId, ProductId, Proposal, ProposalId, ProposalState, ReplyFlags, RequestId, Role, Status,
    TenantId,
};

use super::expected::{At, Body, Expected};
use super::oracle::{Effect, Event, Oracle, Order, OrderChange, Past, Place};
use super::rules::Verdict;
use crate::ask::{Ask, Deadline, What};

const PER_PRINCIPAL_MAX: usize = 100;
const PER_TENANT_MAX: usize = 1000;

/// A proposal.
#[derive(Clone)]
pub struct Proposed {
    pub number: u64,
    /// Its PROPOSE.
    pub past: Past,
    pub lapse_s: u32,
    /// Whether it was approved, and by what it ended.
    pub end: Option<(bool, Past)>,
}

impl Proposed {
    pub fn caller(&self) -> Caller {
        self.past.ask.caller
    }

    pub fn what(&self) -> &What {
        match &self.past.ask.what {
            What::Propose(what) => what,
            _ => unreachable!("it was proposed"),
        }
    }

    pub fn state(&self, now_ms: u64) -> ProposalState {
        match &self.end {
            Some((true, _)) => ProposalState::Approved,
            Some((false, _)) => ProposalState::Withdrawn,
            None if self.lapses_ms() <= now_ms => ProposalState::Lapsed,
            None => ProposalState::Open,
        }
    }

    fn lapses_ms(&self) -> u64 {
        self.past.time_ms + u64::from(self.lapse_s) * 1000
    }
}

/// What is asked of the engine once a proposal is approved.
fn inner(proposal: &Ask, approver: u32) -> Ask {
    let What::Propose(what) = &proposal.what else { unreachable!("it was proposed") };
    Ask {
        what: What::clone(what),
        deadline: Deadline::None,
        approval: Some(proposal.id),
        approver: Some(approver),
        ..proposal.clone()
    }
}

fn may(role: Role, what: &What) -> bool {
    match what {
        _ if role == Role::Admin => true,
        What::TenantControl { .. } => false,
        What::Refund { .. } if role == Role::Finance => true,
        _ => role == Role::Operator,
    }
}

fn is_house(caller: Caller) -> bool {
    caller.tenant.0 == 0 && caller.role == Role::Admin
}

/// The heads of group and of two entries, the order's own, a line, 24 bytes a card, and the longest grounds twice.
pub fn export_too_large(count: u32, payload_bytes: u64) -> bool {
    let entries = 64 + 64 + 64 + 16 + 24 * u64::from(count.min(100_000));
    count > 100_000 || 16 + entries + 2 * 280 > payload_bytes
}

impl Oracle {
    pub fn control(&self, tenant: u16) -> DualControl {
        let usual = DualControl { on: false, reveal_cards: 0, lapse_s: 24 * 3600 };
        self.controls.get(&tenant).map_or(usual, |(control, _)| *control)
    }

    fn proposal(&self, tenant: u16, id: u128) -> Option<&Proposed> {
        self.proposals.iter().find(|it| it.caller().tenant.0 == tenant && it.past.ask.id == id)
    }

    fn told_to(&self, caller: Caller, id: u128) -> Option<&Proposed> {
        let own = self.proposal(caller.tenant.0, id);
        if own.is_some() || !is_house(caller) {
            return own;
        }
        let all: Vec<_> = self.proposals.iter().filter(|it| it.past.ask.id == id).collect();
        if let [only] = all[..] { Some(only) } else { None }
    }

    fn is_revoked(&self, principal: PrincipalId) -> bool {
        self.principals.get(&principal.0).is_some_and(|known| known.revoked)
    }

    fn is_scoped(&self, principal: PrincipalId) -> bool {
        self.principals.get(&principal.0).is_some_and(|known| !known.spec.products.is_empty())
    }

    /// The number of cards that an ask may export, if it is about an export.
    pub fn exports(&self, caller: Caller, what: &What) -> Option<u32> {
        match what {
            What::Propose(what) => match **what {
                What::Export { count, .. } => Some(count),
                _ => None,
            },
            What::Approve(id) => match *self.told_to(caller, *id)?.what() {
                What::Export { count, .. } => Some(count),
                _ => None,
            },
            _ => None,
        }
    }

    /// What would be done if it were approved; `None` is a proposal whose doing is a right.
    fn would(&self, asked: &Ask, payload_bytes: u64) -> Result<Option<Event>, (Status, bool)> {
        let caller = asked.caller;
        let refused = |status| Err((status, false));
        match asked.what {
            What::Fetch { order, .. } => match self.orders.get(&(caller.tenant.0, order)) {
                None => refused(Status::NotFound),
                Some(order) => match order.state {
                    OrderState::Sold => Ok(None),
                    OrderState::Reserved => refused(Status::NotSold),
                    OrderState::Cancelled => refused(Status::OrderCancelled),
                    OrderState::TimedOut => refused(Status::ReservationExpired),
                    OrderState::Migrated => unreachable!("no order of this store"),
                },
            },
            What::Export { batch, count } => match self.exportable(asked, batch, count, payload_bytes) {
                Ok(change) => Ok(Some(self.event(asked, Kind::Export, Effect::Order(Box::new(change))))),
                Err(status) => refused(status),
            },
            What::TenantControl { tenant, control } => match self.control_refusal(caller, tenant, control) {
                Some(status) => refused(status),
                None => {
                    let effect = Effect::Control { tenant, control };
                    Ok(Some(self.event(asked, Kind::TenantControl, effect)))
                }
            },
            _ => {
                let (expected, event) = self.noted_before(asked).unwrap_or_else(|| self.on_card(asked));
                match expected.status {
                    Status::Ok if expected.flags == ReplyFlags::REPLAYED => refused(Status::IdReused),
                    Status::Ok => Ok(event),
                    status => Err((status, expected.miss)),
                }
            }
        }
    }

    fn exportable(
        &self,
        asked: &Ask,
        id: u32,
        count: u32,
        payload_bytes: u64,
    ) -> Result<OrderChange, Status> {
        let tenant = asked.caller.tenant.0;
        if count == 0 {
            return Err(Status::Malformed);
        }
        if export_too_large(count, payload_bytes) {
            return Err(Status::OrderTooLarge);
        }
        let batch = self.batches.get(&id).filter(|batch| batch.tenant == tenant).ok_or(Status::NotFound)?;
        if !self.covers(asked.caller.principal, batch.product) {
            return Err(Status::ScopeDenied);
        }
        if self.products[&batch.product].spec.kind == CardKind::Shared {
            return Err(Status::SharedUnfit);
        }
        if batch.voided {
            return Err(Status::Voided);
        }
        if batch.frozen || self.is_product_frozen(&self.products[&batch.product]) {
            return Err(Status::Frozen);
        }
        if self.orders.contains_key(&(tenant, asked.id)) {
            return Err(Status::AlreadyExists);
        }
        let fits = |place: &Place| {
            self.card(*place).lifecycle == Lifecycle::Available
                && !self.is_frozen(*place)
                && !self.is_expired(*place)
        };
        let rows = (0..batch.cards.len()).map(|row| (id, row)).filter(fits);
        let found: Vec<Place> = rows.take(count as usize).collect();
        if found.is_empty() {
            return Err(Status::OutOfStock);
        }
        let (fresh, moved): (Vec<Place>, Vec<Place>) =
            found.into_iter().partition(|place| self.card(*place).past.is_empty());
        let cards = [fresh, moved].concat();
        let line = Line { product: ProductId(batch.product), count: cards.len() as u32, face: None };
        Ok(OrderChange {
            tenant,
            order: asked.id,
            subject: id,
            cards,
            sealed: true,
            deadline_ms: 0,
            account: 0,
            ip: 0,
            lines: vec![line],
            legs: Vec::new(),
        })
    }

    fn control_refusal(&self, caller: Caller, tenant: u16, control: DualControl) -> Option<Status> {
        let before = self.control(tenant);
        let second = self.principals.iter().any(|(id, known)| {
            *id != caller.principal.0
                && !known.revoked
                && known.spec.role == Role::Admin
                && [0, tenant].contains(&known.spec.tenant.0)
        });
        if !(60..=30 * 24 * 3600).contains(&control.lapse_s) {
            Some(Status::Malformed)
        } else if caller.tenant.0 != 0 && caller.tenant.0 != tenant {
            Some(Status::Forbidden)
        } else if tenant != 0 && !self.tenants.contains_key(&tenant) {
            Some(Status::NotFound)
        } else if before == control {
            Some(Status::IllegalTransition)
        } else if control.on && !before.on && !second {
            Some(Status::SecondPersonRequired)
        } else {
            None
        }
    }

    pub fn set_control(&self, ask: &Ask) -> Verdict {
        let What::TenantControl { tenant, control } = ask.what else { unreachable!("sets one") };
        let refusal = self.control_refusal(ask.caller, tenant, control);
        let refusal = refusal.or(self.control(tenant).on.then_some(Status::ApprovalRequired));
        let past = self.controls.get(&tenant).map_or(&[][..], |(_, past)| past);
        let effect = Effect::Control { tenant, control };
        self.change(ask, past, Kind::TenantControl, refusal, effect, |oracle| {
            Body::Proposals(oracle.control(tenant), Vec::new())
        })
    }

    pub fn propose(&self, ask: &Ask, payload_bytes: u64) -> Verdict {
        let What::Propose(what) = &ask.what else { unreachable!("proposes something") };
        let tenant = ask.caller.tenant.0;
        if let Some(known) = self.proposal(tenant, ask.id) {
            let first = &known.past.ask;
            let is_retry = (&first.what, &first.why, first.caller) == (&ask.what, &ask.why, ask.caller);
            return match is_retry {
                true => self.proposal_again(known, &known.past),
                false => self.refuse(Status::IdReused),
            };
        }
        if ask.why.is_none() || ask.id == 0 {
            return self.refuse(Status::Malformed);
        }
        let asked = inner(ask, 0);
        let proposable = matches!(
            asked.what,
            What::Void { .. }
                | What::Refund { .. }
                | What::Fetch { .. }
                | What::Export { .. }
                | What::TenantControl { .. }
        );
        if !proposable {
            return self.refuse(Status::Unsupported);
        }
        if asked.code().is_some_and(|code| self.find(tenant, code).is_none()) {
            return self.miss(Status::NotFound);
        }
        if !may(ask.caller.role, what) {
            return self.refuse(Status::Forbidden);
        }
        match self.would(&asked, payload_bytes) {
            Err((status, true)) => return self.miss(status),
            Err((status, false)) => return self.refuse(status),
            Ok(_) => {}
        }
        let open = self
            .proposals
            .iter()
            .filter(|it| it.caller().tenant.0 == tenant && it.state(self.now_ms) == ProposalState::Open);
        let own = open.clone().filter(|it| it.caller().principal == ask.caller.principal);
        if own.count() >= PER_PRINCIPAL_MAX || open.count() >= PER_TENANT_MAX {
            return self.refuse(Status::ProposalsFull);
        }
        let lapse_s = self.control(tenant).lapse_s;
        let number = self.proposals.len() as u64 + 1;
        self.shown(ask, Kind::Propose, Effect::Propose { number, lapse_s }, number)
    }

    /// What is done and shown of a proposal.
    fn shown(&self, ask: &Ask, kind: Kind, effect: Effect, number: u64) -> Verdict {
        let event = self.event(ask, kind, effect);
        let mut after = self.clone();
        if let Some(done) = self.done_with(&event, u64::MAX) {
            after.apply(&done);
        }
        after.apply(&event);
        let known = &after.proposals[number as usize - 1];
        let body = after.show(known);
        (Expected { lsn: At::New, body, ..Expected::plain(Status::Ok, self.now_ms) }, Some(event))
    }

    fn show(&self, known: &Proposed) -> Body {
        let control = self.control(known.caller().tenant.0);
        Body::Proposals(control, vec![(known.past.lsn, self.report(known))])
    }

    fn proposal_again(&self, known: &Proposed, past: &Past) -> Verdict {
        let expected = Expected {
            flags: ReplyFlags::REPLAYED,
            lsn: At::Known(past.lsn),
            body: self.show(known),
            ..Expected::plain(Status::Ok, past.time_ms)
        };
        (expected, None)
    }

    fn report(&self, known: &Proposed) -> Proposal {
        let Proposed { past, end, .. } = known;
        let card = |code: &str| {
            let place = self.find(past.ask.caller.tenant.0, code).expect("it was there when it was proposed");
            CardRef::new(place.0, place.1 as u64)
        };
        let proposed = match known.what() {
            What::Void { code } => kami_engine::Proposed::Void { card: card(code) },
            What::Refund { code, original, amount } => kami_engine::Proposed::RefundValue {
                card: card(code),
                original: RequestId(*original),
                amount: *amount,
            },
            &What::Fetch { order, from, count } => {
                kami_engine::Proposed::OrderFetch { order: OrderId(order), from, count }
            }
            &What::Export { batch, count } => kami_engine::Proposed::Export { batch: BatchId(batch), count },
            &What::TenantControl { tenant, control } => {
                kami_engine::Proposed::TenantControl { tenant: TenantId(tenant), control }
            }
            _ => unreachable!("it can be proposed"),
        };
        Proposal {
            number: known.number,
            id: ProposalId(past.ask.id),
            tenant: past.ask.caller.tenant,
            proposed,
            proposer: past.ask.caller.principal,
            why: past.ask.why.clone().expect("a proposal says why"),
            time_ms: past.time_ms,
            lapses_ms: known.lapses_ms(),
            state: known.state(self.now_ms),
            ended: end.as_ref().map(|(_, past)| (past.ask.caller.principal, past.time_ms)),
            lsn: Lsn::START,
        }
    }

    /// The answer if the request is one that ended the proposal, or if its id is taken.
    fn ended_by(&self, ask: &Ask, known: &Proposed, approves: bool) -> Option<Verdict> {
        let (approved, past) = known.end.as_ref().filter(|(_, past)| past.ask.id == ask.id)?;
        let same = *approved == approves
            && past.ask.caller.principal == ask.caller.principal
            && past.ask.why == ask.why;
        Some(if same { self.proposal_again(known, past) } else { self.refuse(Status::IdReused) })
    }

    fn not_open(&self, known: &Proposed) -> Option<Status> {
        match known.state(self.now_ms) {
            ProposalState::Open => None,
            ProposalState::Approved => Some(Status::ProposalDone),
            ProposalState::Withdrawn => Some(Status::ProposalWithdrawn),
            ProposalState::Lapsed => Some(Status::ProposalLapsed),
        }
    }

    pub fn approve(&self, ask: &Ask, id: u128, payload_bytes: u64) -> Verdict {
        let caller = ask.caller;
        let Some(known) = self.told_to(caller, id) else { return self.refuse(Status::NotFound) };
        if let Some(verdict) = self.ended_by(ask, known, true) {
            return verdict;
        }
        let proposer = known.caller();
        if !may(caller.role, known.what()) {
            return self.refuse(Status::Forbidden);
        }
        if proposer.principal == caller.principal {
            return self.refuse(Status::SecondPersonRequired);
        }
        if let Some(status) = self.not_open(known) {
            return self.refuse(status);
        }
        if self.is_revoked(proposer.principal) {
            return self.refuse(Status::ProposalWithdrawn);
        }
        let frozen = self.tenants.get(&proposer.tenant.0).is_some_and(|tenant| tenant.frozen);
        if frozen && !is_house(caller) {
            return self.refuse(Status::Frozen);
        }
        if !self.covers_proposed(caller.principal, known) {
            return self.refuse(Status::ScopeDenied);
        }
        let asked = inner(&known.past.ask, caller.principal.0);
        if let Err((status, _)) = self.would(&asked, payload_bytes) {
            return self.refuse(status);
        }
        let number = known.number;
        self.shown(ask, Kind::Approve, Effect::End { number, approved: true }, number)
    }

    /// What is done with an approval, in the same record behind it.
    pub fn done_with(&self, event: &Event, payload_bytes: u64) -> Option<Event> {
        let Effect::End { number, approved: true } = event.effect else { return None };
        let known = &self.proposals[number as usize - 1];
        let asked = inner(&known.past.ask, event.ask.caller.principal.0);
        self.would(&asked, payload_bytes).expect("it was decided on the same state")
    }

    fn covers_proposed(&self, principal: PrincipalId, known: &Proposed) -> bool {
        let tenant = known.caller().tenant.0;
        let batch = match known.what() {
            What::Void { code } | What::Refund { code, .. } => self.find(tenant, code).map(|place| place.0),
            What::Export { batch, .. } => Some(*batch),
            _ => return !self.is_scoped(principal),
        };
        let batch = batch.and_then(|batch| self.batches.get(&batch)).filter(|batch| batch.tenant == tenant);
        let classes = self.principals.get(&principal.0).map_or(0, |known| known.spec.classes);
        batch.is_some_and(|batch| {
            let class = self.products[&batch.product].spec.terms.class;
            self.covers(principal, batch.product) && (classes == 0 || classes >> class & 1 == 1)
        })
    }

    pub fn withdraw(&self, ask: &Ask, id: u128) -> Verdict {
        let Some(known) = self.proposal(ask.caller.tenant.0, id) else {
            return self.refuse(Status::NotFound);
        };
        if let Some(verdict) = self.ended_by(ask, known, false) {
            return verdict;
        }
        if known.caller().principal != ask.caller.principal {
            return self.refuse(Status::Forbidden);
        }
        if let Some(status) = self.not_open(known) {
            return self.refuse(status);
        }
        let number = known.number;
        self.shown(ask, Kind::ProposalWithdraw, Effect::End { number, approved: false }, number)
    }

    pub fn list_proposals(&self, ask: &Ask, after: u64, count: u32, all: bool) -> Verdict {
        let caller = ask.caller;
        let wanted = self.proposals.iter().filter(|known| {
            after < known.number
                && (is_house(caller) || known.caller().tenant == caller.tenant)
                && (all || known.state(self.now_ms) == ProposalState::Open)
                && self.covers_proposed(caller.principal, known)
        });
        let mut rows: Vec<_> = wanted.map(|known| (known.past.lsn, self.report(known))).collect();
        let mut expected = Expected::plain(Status::Ok, self.now_ms);
        let count = count.clamp(1, 500) as usize;
        if rows.len() > count {
            rows.truncate(count);
            expected.flags = ReplyFlags::PARTIAL;
        }
        expected.body = Body::Proposals(self.control(caller.tenant.0), rows);
        (expected, None)
    }

    /// The ask of a fetch as it is recorded, if the caller may.
    pub fn may_fetch(&self, ask: &Ask, order: &Order) -> Result<Ask, Status> {
        let What::Fetch { from, count, .. } = ask.what else { unreachable!("fetches") };
        let caller = ask.caller;
        if order.buyer() == caller.principal && ask.approval.is_none() {
            return Ok(ask.clone());
        }
        let covered =
            order.cards.iter().all(|place| self.covers(caller.principal, self.batches[&place.0].product));
        if !matches!(caller.role, Role::Admin | Role::Operator) || !covered {
            return Err(Status::NotFound);
        }
        let control = self.control(caller.tenant.0);
        let Some(id) = ask.approval else {
            let few = control.on && order.cards.len() <= control.reveal_cards as usize;
            return if few { Ok(ask.clone()) } else { Err(Status::ApprovalRequired) };
        };
        let known = self.proposal(caller.tenant.0, id).ok_or(Status::NotFound)?;
        let lets = match *known.what() {
            What::Fetch { order: own, from: first, count: cards } => {
                own == order.id && first <= from && from.saturating_add(count) <= first.saturating_add(cards)
            }
            _ => false,
        };
        if known.caller().principal != caller.principal || !lets {
            return Err(Status::NotFound);
        }
        match &known.end {
            Some((true, past)) => {
                if past.time_ms + u64::from(known.lapse_s) * 1000 <= self.now_ms {
                    return Err(Status::ProposalLapsed);
                }
                let why = ask.why.clone().or_else(|| known.past.ask.why.clone());
                Ok(Ask { approver: Some(past.ask.caller.principal.0), why, ..ask.clone() })
            }
            Some((false, _)) => Err(Status::ProposalWithdrawn),
            None if known.state(self.now_ms) == ProposalState::Lapsed => Err(Status::ProposalLapsed),
            None => Err(Status::ApprovalRequired),
        }
    }

    pub fn apply_control(&mut self, event: &Event) {
        let past = event.past(Lifecycle::Available, Flags::NONE, 0);
        match event.effect {
            Effect::Propose { number, lapse_s } => {
                assert_eq!(number, self.proposals.len() as u64 + 1, "they are numbered as they come");
                self.proposals.push(Proposed { number, past, lapse_s, end: None });
            }
            Effect::End { number, approved } => {
                let known = &mut self.proposals[number as usize - 1];
                assert!(known.end.is_none(), "a proposal ends once");
                known.end = Some((approved, past));
            }
            Effect::Control { tenant, control } => {
                let known = self.controls.entry(tenant).or_insert((control, Vec::new()));
                known.0 = control;
                known.1.push(past);
            }
            _ => unreachable!("about what takes two people"),
        }
    }
}
