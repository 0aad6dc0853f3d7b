//! Dual control: what one person proposes and another approves.
//!
//! Some commands give away what cannot be taken back: the codes of cards, or money for cards that customers hold. Nobody
//! does these alone. Whoever wants one done *proposes* it, with a reason; a second principal that may do the same
//! *approves*, and with that it is done.
//!
//! | what | alone | with a second person |
//! |---|---|---|
//! | VOID of a card that is SOLD | never | yes |
//! | EXPORT of a batch's unsold codes | never | yes |
//! | ORDER_FETCH of another's order | if the tenant's control is on, up to its number of cards | yes |
//! | REFUND_VALUE | unless the tenant's control is on | yes |
//! | TENANT_CONTROL | unless the tenant's control is on | yes |
//!
//! The first two were never possible alone, so that a tenant's setting changes nothing of what a store of the first
//! version means. BATCH_VOID is not among them: it touches no card that is sold.
//!
//! # Why so
//! * **What is approved is what was proposed.** A proposal is a command with all its arguments, in the log. An approval
//!   names the proposal and nothing else.
//! * **Approval and execution are one group of the log**, so no crash parts them: first APPROVE, right behind it what
//!   was proposed, as the proposer's command under the proposal's id, with the approver in its grounds. The proposer who
//!   tries the command itself again with that id is told that it is done.
//! * **What does not fit any more is refused and stays open**, until it is withdrawn or lapses: a card may be free
//!   tomorrow that is held today. The refusal is the one that the command itself would get.
//! * **Nobody approves their own**, nor in the name of somebody whose access ended: a revoked principal's proposals cannot
//!   be approved any more. In a tenant that is frozen only the house's admins approve.
//! * **Codes go to the proposer, not to the approver.** An approved ORDER_FETCH lets the proposer fetch the codes of that
//!   order, naming the proposal, for as long as proposals of the tenant last, each time a logged reveal. An approved
//!   EXPORT sells the cards to an order of the proposer's, whose id is the proposal's, with its codes still sealed; they
//!   leave by ORDER_FETCH like those of any order. So an exported card is SOLD and never for sale again; what nobody
//!   fetched can be returned into stock.
//! * **Bounded**: so many open proposals of one principal and of one tenant. Those that ended stay, as what they did
//!   does.
//!
//! The engine tells principals apart, not people: one person with two identities can do both. Who adds principals is in
//! the log.

mod audit;
mod codes;
mod proposals;
mod proposed;

pub use audit::Audit as ControlAudit;
pub use proposals::{
    ControlReport, ControlRow, End, Proposal, ProposalRow, ProposalState, Proposals, Standing,
};
pub use proposed::{Proposed, StoredControl, StoredProposed};
pub(crate) use proposed::{body, is_proposable};

use kami_wal::Lsn;

use crate::admin::Change;
use crate::chain::ChainError;
use crate::command::{Command, ORDER_CARDS_MAX, Request, order_bytes_max};
use crate::grounds::Grounds;
use crate::identity::{BatchId, Caller, PrincipalId, ProposalId, Role, TenantId};
use crate::index::Index;
use crate::orders::OrderState;
use crate::product::CardKind;
use crate::record::{GroupWriter, HEAD_BYTES, Head, Kind, Stored, VALUE_BYTES, VOLUME_BYTES};
use crate::reply::{Reply, ReplyBody, ReplyFlags};
use crate::sequencer::{Detail, GROUP_BYTES, Moves, Prepared, Sequencer, Turn, Work};
use crate::state::State;
use crate::status::Status;
use crate::stock::Search;
use crate::subject::Subject;
use crate::word::Flags;

/// The most open proposals of one principal.
pub const PROPOSALS_PER_PRINCIPAL_MAX: usize = 100;
/// The most open proposals of one tenant.
pub const PROPOSALS_PER_TENANT_MAX: usize = 1000;
/// The most proposals that one reply lists.
pub const PROPOSALS_PER_LIST: u32 = 500;
/// The shortest and the longest time that proposals last, in seconds.
pub const LAPSE_S: std::ops::RangeInclusive<u32> = 60..=30 * 24 * 3600;

/// What of a tenant takes two people beyond what always does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DualControl {
    /// Whether REFUND_VALUE and TENANT_CONTROL take two.
    pub on: bool,
    /// With it on: the codes of another's order with at most so many cards are given to an operator alone.
    pub reveal_cards: u32,
    /// How long proposals last, and what was approved may be fetched, in seconds; in [`LAPSE_S`].
    pub lapse_s: u32,
}

impl Default for DualControl {
    fn default() -> Self {
        DualControl { on: false, reveal_cards: 0, lapse_s: 24 * 3600 }
    }
}

/// What was proposed, as the request that it will be, with what was read of its object.
pub(crate) struct InQuestion {
    pub(crate) request: Request,
    pub(crate) prepared: Prepared,
}

/// Why what is proposed cannot be done now.
struct Refusal {
    status: Status,
    /// Whether its code led nowhere.
    miss: bool,
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Refusal {
        Refusal { status, miss: false }
    }
}

impl Sequencer {
    /// Reads what deciding about a proposal takes: the past of the card it is about.
    pub(crate) fn read_proposed(
        &self,
        asked: &Request,
        prepared: &mut Prepared,
        buffer: &mut Vec<u8>,
    ) -> Result<(), ChainError> {
        let request = match &asked.command {
            Command::Propose(command) => proposed_request(asked, command),
            Command::Approve(id) => {
                let state = self.state();
                let Some(standing) = state.proposals.told_to(&asked.caller, *id) else { return Ok(()) };
                standing.request(asked.caller.principal)
            }
            _ => unreachable!("the caller matched the command"),
        };
        let mut read = Prepared::default();
        read.body = unapproved_body(&request);
        let cards = match request.command {
            Command::Export { count, .. } => u64::from(count.min(ORDER_CARDS_MAX)),
            _ => 0,
        };
        prepared.log_bytes = order_bytes_max(cards, 1, 0)
            + 2 * HEAD_BYTES
            + VALUE_BYTES
            + VOLUME_BYTES
            + StoredProposed::BYTES_MAX
            + asked.grounds_bytes()
            + request.grounds_bytes();
        if let Some(digest) = request.command.card() {
            read.absent_at = Some(self.table.commits());
            read.card = self.index.find(digest, &Index::pin());
            if let Some((batch, card)) = self.batch_of(read.card) {
                read.absent_at = None;
                read.word = batch.word(card.row());
                let tells_value = request.command.is_about_value()
                    || batch.kind != CardKind::Single
                    || batch.validity.is_some()
                    || read.word.flags().contains(Flags::HELD);
                if tells_value || read.word.flags().contains(Flags::HAS_EFFECTS) {
                    self.read_chain(&request, card, &mut read, buffer, tells_value)?;
                }
            }
        }
        prepared.detail = Detail::InQuestion(Box::new(InQuestion { request, prepared: read }));
        Ok(())
    }
}

/// What is asked, as the request that will be executed once it is approved; by whom is not known yet.
fn proposed_request(asked: &Request, command: &Command) -> Request {
    let why = asked.grounds.as_ref().map_or_else(String::new, |grounds| grounds.why.clone());
    let approval = Some(ProposalId(asked.id.0));
    let grounds = Grounds { why, approval, approver: Some(PrincipalId(0)) };
    Request { command: command.clone(), grounds: Some(Box::new(grounds)), deadline: None, ..asked.clone() }
}

/// The checksum that the command has if it is sent without an approval: by it a retry is recognised.
fn unapproved_body(request: &Request) -> u32 {
    let why = request.grounds.as_ref().map_or("", |grounds| &grounds.why);
    Grounds::because(why).body(request.command.body())
}

impl Turn<'_> {
    /// PROPOSE. `None` if something has to be read first.
    pub(crate) fn propose(&mut self, work: &mut Work, at: usize) -> Option<Reply> {
        let Work { requests, prepared, moves, search, .. } = work;
        let (request, prepared) = (&requests[at], &mut prepared[at]);
        let Command::Propose(command) = &request.command else {
            unreachable!("the caller matched the command")
        };
        let (id, tenant) = (ProposalId(request.id.0), request.caller.tenant);
        if let Some(earlier) = self.state.proposals.find(tenant, id) {
            let is_retry = earlier.body == prepared.body && earlier.proposer == request.caller;
            let (lsn, time_ms) = (earlier.lsn, earlier.time_ms);
            return Some(match is_retry {
                true => self.told_again(request, tenant, id, lsn, time_ms),
                false => self.refuse(request, Status::IdReused),
            });
        }
        let why = request.grounds.as_ref().map_or("", |grounds| &grounds.why);
        if why.is_empty() || id.0 == 0 {
            return Some(self.refuse(request, Status::Malformed));
        }
        let Detail::InQuestion(mut asked) = std::mem::take(&mut prepared.detail) else { return None };
        let Some(proposed) = Proposed::of(command, asked.prepared.card) else {
            let unknown = Reply { miss: true, ..self.refuse(request, Status::NotFound) };
            return Some(if command.card().is_some() && is_proposable(command) {
                unknown
            } else {
                self.refuse(request, Status::Unsupported)
            });
        };
        if !proposed.allows(request.caller.role) {
            return Some(self.refuse(request, Status::Forbidden));
        }
        match self.would(&mut asked, search, moves) {
            None => return None,
            Some(Err(Refusal { status, miss })) => {
                return Some(Reply { miss, ..self.refuse(request, status) });
            }
            Some(Ok(())) => {}
        }
        let now_ms = self.state.now_ms;
        if !self.state.proposals.has_room(request.caller.principal, tenant, now_ms) {
            return Some(self.refuse(request, Status::ProposalsFull));
        }
        if !self.has_credit() {
            return Some(self.refuse(request, self.short()));
        }
        let lapse_s = self.state.proposals.control(tenant).lapse_s;
        let digest = command.card();
        let stored = StoredProposed::of(&proposed, digest, request.caller.role, lapse_s);
        let tail = stored.entry_tail();
        let number = self.state.proposals.next();
        let head = Head { subject: number, ..request.head(Kind::Propose, prepared.body) };
        let grounds = request.grounds.as_deref();
        let lsn = self.append(HEAD_BYTES + tail.len() + request.grounds_bytes(), |group| {
            group.push_on(&head, grounds, tail.len(), |place| place.copy_from_slice(&tail))
        });
        let standing = Standing::of(&head, &stored, why, lsn, now_ms);
        let added = standing.is_some_and(|standing| self.state.proposals.add(standing));
        assert!(added, "it was numbered and encoded under this lock");
        let shown = self.state.show_proposal(tenant, id);
        Some(self.reply(request, Status::Ok, Some(lsn), shown))
    }

    /// APPROVE. `None` if something has to be read first.
    pub(crate) fn approve(&mut self, work: &mut Work, at: usize) -> Option<Reply> {
        let Work { requests, prepared, moves, search, .. } = work;
        let (request, prepared) = (&requests[at], &mut prepared[at]);
        let &Command::Approve(id) = &request.command else { unreachable!("the caller matched the command") };
        let caller = request.caller;
        let refuse = |turn: &Self, status| Some(turn.refuse(request, status));
        let Some(standing) = self.state.proposals.told_to(&caller, id) else {
            return refuse(self, Status::NotFound);
        };
        let (tenant, proposer, number, prev) =
            (standing.proposer.tenant, standing.proposer, standing.number, standing.last_lsn());
        if let Some(end) = &standing.end
            && end.request == request.id
        {
            let is_retry = end.approved && end.principal == caller.principal && end.body == prepared.body;
            let (lsn, time_ms) = (end.lsn, end.time_ms);
            return Some(match is_retry {
                true => self.told_again(request, tenant, id, lsn, time_ms),
                false => self.refuse(request, Status::IdReused),
            });
        }
        if !standing.proposed.allows(caller.role) {
            return refuse(self, Status::Forbidden);
        }
        if proposer.principal == caller.principal {
            return refuse(self, Status::SecondPersonRequired);
        }
        match standing.state(self.state.now_ms) {
            ProposalState::Open => {}
            ProposalState::Approved => return refuse(self, Status::ProposalDone),
            ProposalState::Withdrawn => return refuse(self, Status::ProposalWithdrawn),
            ProposalState::Lapsed => return refuse(self, Status::ProposalLapsed),
        }
        if self.state.scope(proposer.principal).is_none() {
            return refuse(self, Status::ProposalWithdrawn);
        }
        if self.state.tenants.is_frozen(tenant) && !is_house(&caller) {
            return refuse(self, Status::Frozen);
        }
        if !self.covers(&caller, &standing.proposed, tenant) {
            return refuse(self, Status::ScopeDenied);
        }
        let Detail::InQuestion(mut asked) = std::mem::take(&mut prepared.detail) else { return None };
        match self.would(&mut asked, search, moves) {
            None => return None,
            Some(Err(Refusal { status, .. })) => return refuse(self, status),
            Some(Ok(())) => {}
        }
        if !self.has_credit() {
            return refuse(self, self.short());
        }
        let prev = prev.units() << 16;
        let head = Head { subject: number, prev, ..request.head(Kind::Approve, prepared.body) };
        let approval = (&head, request.grounds.as_deref());
        let lsn = match asked.request.command {
            Command::OrderFetch { .. } => {
                self.append(HEAD_BYTES + request.grounds_bytes(), |group| push(group, approval))
            }
            Command::Export { batch, .. } => self.export(&asked, batch, approval, search),
            Command::TenantControl { tenant, control } => self.put_control(&asked, tenant, control, approval),
            _ => self.move_card(&mut asked, approval, moves, prepared.log_bytes - 2 * GROUP_BYTES),
        };
        let end = End {
            approved: true,
            principal: caller.principal,
            request: request.id,
            body: prepared.body,
            time_ms: self.state.now_ms,
            lsn,
        };
        self.state.proposals.end(number, end);
        let shown = self.state.show_proposal(tenant, id);
        Some(self.reply(request, Status::Ok, Some(lsn), shown))
    }

    /// PROPOSAL_WITHDRAW.
    pub(crate) fn withdraw(&mut self, work: &Work, at: usize) -> Reply {
        let request = &work.requests[at];
        let &Command::ProposalWithdraw(id) = &request.command else {
            unreachable!("the caller matched the command")
        };
        let (caller, body) = (request.caller, self.object_body(work, at));
        let Some(standing) = self.state.proposals.find(caller.tenant, id) else {
            return self.refuse(request, Status::NotFound);
        };
        let (number, prev) = (standing.number, standing.last_lsn());
        if let Some(end) = &standing.end
            && end.request == request.id
        {
            let is_retry = !end.approved && end.principal == caller.principal && end.body == body;
            let (lsn, time_ms) = (end.lsn, end.time_ms);
            return match is_retry {
                true => self.told_again(request, caller.tenant, id, lsn, time_ms),
                false => self.refuse(request, Status::IdReused),
            };
        }
        if standing.proposer.principal != caller.principal {
            return self.refuse(request, Status::Forbidden);
        }
        match standing.state(self.state.now_ms) {
            ProposalState::Open => {}
            ProposalState::Approved => return self.refuse(request, Status::ProposalDone),
            ProposalState::Withdrawn => return self.refuse(request, Status::ProposalWithdrawn),
            ProposalState::Lapsed => return self.refuse(request, Status::ProposalLapsed),
        }
        if !self.has_credit() {
            return self.refuse(request, self.short());
        }
        let prev = prev.units() << 16;
        let head = Head { subject: number, prev, ..request.head(Kind::ProposalWithdraw, body) };
        let grounds = request.grounds.as_deref();
        let lsn = self.append(HEAD_BYTES + request.grounds_bytes(), |group| push(group, (&head, grounds)));
        let time_ms = self.state.now_ms;
        let (principal, request_id) = (caller.principal, request.id);
        let end = End { approved: false, principal, request: request_id, body, time_ms, lsn };
        self.state.proposals.end(number, end);
        let shown = self.state.show_proposal(caller.tenant, id);
        self.reply(request, Status::Ok, Some(lsn), shown)
    }

    /// PROPOSAL_LIST.
    pub(crate) fn list_proposals(&self, request: &Request) -> Reply {
        let &Command::ProposalList { after, count, all } = &request.command else {
            unreachable!("the caller matched the command")
        };
        let (caller, now_ms) = (&request.caller, self.state.now_ms);
        let own = self.state.proposals.after(caller, after, all, now_ms);
        let mut own =
            own.filter(|standing| self.covers(caller, &standing.proposed, standing.proposer.tenant));
        let count = count.clamp(1, PROPOSALS_PER_LIST) as usize;
        let proposals = own.by_ref().take(count).map(|standing| standing.shown(now_ms)).collect();
        let more = own.next().is_some();
        let control = self.state.proposals.control(caller.tenant);
        let listed = ReplyBody::Proposals(Box::new(ControlReport { control, proposals }));
        let mut reply = self.reply(request, Status::Ok, None, listed);
        if more {
            reply.flags = ReplyFlags::PARTIAL;
        }
        reply
    }

    /// TENANT_CONTROL, sent by one person.
    pub(crate) fn set_control(&mut self, work: &Work, at: usize) -> Option<Reply> {
        let request = &work.requests[at];
        let &Command::TenantControl { tenant, control } = &request.command else {
            unreachable!("the caller matched the command")
        };
        let refusal = match self.may_control(&request.caller, tenant, control) {
            Err(status) => Some(status),
            Ok(()) if self.state.proposals.control(tenant).on => Some(Status::ApprovalRequired),
            Ok(()) => None,
        };
        let change = Change {
            kind: Kind::TenantControl,
            subject: u64::from(tenant.0),
            refusal,
            apply: &|state, lsn| state.proposals.put_control(tenant, control, lsn),
            show: &|state| {
                let control = state.proposals.control(tenant);
                ReplyBody::Proposals(Box::new(ControlReport { control, proposals: Vec::new() }))
            },
        };
        self.change(work, at, &change)
    }

    /// Whether a tenant's control can be set so by this caller, approved or not.
    fn may_control(&self, caller: &Caller, tenant: TenantId, control: DualControl) -> Result<(), Status> {
        let before = self.state.proposals.control(tenant);
        if !LAPSE_S.contains(&control.lapse_s) {
            Err(Status::Malformed)
        } else if caller.tenant != TenantId(0) && tenant != caller.tenant {
            Err(Status::Forbidden)
        } else if !self.state.tenants.knows(tenant) {
            Err(Status::NotFound)
        } else if before == control {
            Err(Status::IllegalTransition)
        } else if control.on && !before.on && !self.state.has_second_admin(tenant, caller.principal) {
            // Nobody could ever switch it off again.
            Err(Status::SecondPersonRequired)
        } else {
            Ok(())
        }
    }

    /// Whether the caller's scope covers what is proposed. What is about no product is outside of every scope.
    fn covers(&self, caller: &Caller, proposed: &Proposed, tenant: TenantId) -> bool {
        let Some(scope) = self.state.scope(caller.principal) else { return false };
        let batch = match *proposed {
            Proposed::Void { card } | Proposed::RefundValue { card, .. } => BatchId(card.batch()),
            Proposed::Export { batch, .. } => batch,
            Proposed::OrderFetch { .. } | Proposed::TenantControl { .. } => return scope.is_all(),
        };
        let known = self.state.batch_stock(batch, tenant).and_then(|_| self.sequencer.table.batch(batch));
        known.is_some_and(|batch| {
            scope.covers(batch.product) && !scope.denies(self.state.product_of(batch), caller, false)
        })
    }

    /// Whether what is asked would be done now, were it approved; for an export, with which cards. `None` if
    /// something has to be read first.
    fn would(
        &self,
        asked: &mut InQuestion,
        search: &mut Search,
        moves: &mut Moves,
    ) -> Option<Result<(), Refusal>> {
        let InQuestion { request, prepared } = asked;
        let tenant = request.caller.tenant;
        let refused = |status: Status| Some(Err(status.into()));
        match request.command {
            Command::OrderFetch { order, .. } => {
                let word = self.state.orders.find(&(tenant, order));
                match word.map(|word| word.state()) {
                    None => refused(Status::NotFound),
                    Some(OrderState::Sold) => Some(Ok(())),
                    Some(OrderState::Reserved) => refused(Status::NotSold),
                    Some(OrderState::Cancelled) => refused(Status::OrderCancelled),
                    Some(OrderState::TimedOut) => refused(Status::ReservationExpired),
                    Some(OrderState::Migrated) => refused(Status::Migrated),
                }
            }
            Command::Export { batch, count } => {
                let found = self.exportable(request, batch, count, search);
                Some(found.map_err(Refusal::from))
            }
            Command::TenantControl { tenant, control } => {
                Some(self.may_control(&request.caller, tenant, control).map_err(Refusal::from))
            }
            _ => {
                moves.clear();
                let (sequencer, state) = (self.sequencer, &*self.state);
                // Without a place in the log it is not done; what is told then stands for "it would be".
                let scope = state.scope(request.caller.principal);
                let subject = Subject { sequencer, state, request, scope, short: Status::Ok };
                let mut reply = Reply::BLANK;
                subject.decide(prepared, None, moves, None, &mut reply)?;
                moves.clear();
                Some(match reply.status {
                    // The id has had an effect on the card before.
                    Status::Ok if reply.lsn.is_some() => Err(Status::IdReused.into()),
                    Status::Ok => Ok(()),
                    status => Err(Refusal { status, miss: reply.miss }),
                })
            }
        }
    }

    /// Sets a tenant's control. Returns where the approval stands.
    fn put_control(
        &mut self,
        asked: &InQuestion,
        tenant: TenantId,
        control: DualControl,
        approval: (&Head, Option<&Grounds>),
    ) -> Lsn {
        let request = &asked.request;
        let prev = self.state.proposals.control_lsn(tenant).map_or(0, |lsn| lsn.units() << 16);
        let (kind, body, subject) = (Kind::TenantControl, asked.prepared.body, u64::from(tenant.0));
        let head = Head { subject, prev, ..request.head(kind, body) };
        let tail = StoredControl::of(control).entry_tail();
        let grounds = request.grounds.as_deref();
        let bytes = 2 * HEAD_BYTES + tail.len() + grounds_bytes(approval.1) + request.grounds_bytes();
        let (approved, lsn) = self.append(bytes, |group| {
            let approved = push(group, approval);
            (approved, group.push_on(&head, grounds, tail.len(), |place| place.copy_from_slice(&tail)))
        });
        self.state.proposals.put_control(tenant, control, lsn);
        approved
    }

    /// Does what was proposed about a card. Returns where the approval stands.
    fn move_card(
        &mut self,
        asked: &mut InQuestion,
        approval: (&Head, Option<&Grounds>),
        moves: &mut Moves,
        bytes: usize,
    ) -> Lsn {
        moves.clear();
        let InQuestion { request, prepared } = asked;
        let (sequencer, short) = (self.sequencer, self.short());
        let (mut approved, mut done) = (None, false);
        self.append_deciding(bytes, |state, group| {
            approved = Some(push(group, approval));
            let scope = state.scope(request.caller.principal);
            let subject = Subject { sequencer, state, request, scope, short };
            let mut reply = Reply::BLANK;
            let decided = subject.decide(prepared, Some(group), moves, None, &mut reply);
            done = decided.is_some() && reply.status.is_done();
        });
        assert!(done, "it was decided on the same state just now");
        self.install(moves);
        approved.expect("pushed just now")
    }

    /// What a proposal's reply said the first time, as it stands now.
    fn told_again(
        &self,
        request: &Request,
        tenant: TenantId,
        id: ProposalId,
        lsn: Lsn,
        time_ms: u64,
    ) -> Reply {
        let shown = self.state.show_proposal(tenant, id);
        let reply = self.reply(request, Status::Ok, Some(lsn), shown);
        Reply { flags: ReplyFlags::REPLAYED, time_ms, ..reply }
    }
}

fn push(group: &mut GroupWriter<'_>, (head, grounds): (&Head, Option<&Grounds>)) -> Lsn {
    group.push_on(head, grounds, 0, |_| ())
}

fn grounds_bytes(grounds: Option<&Grounds>) -> usize {
    grounds.map_or(0, Grounds::bytes)
}

/// Whether it is an admin of the house, who sees to all tenants.
fn is_house(caller: &Caller) -> bool {
    caller.tenant == TenantId(0) && caller.role == Role::Admin
}

impl State {
    /// Whether somebody else could approve what an admin of the tenant proposes: another admin of it, or one of the
    /// house.
    fn has_second_admin(&self, tenant: TenantId, first: PrincipalId) -> bool {
        self.principals.iter().map(|state| &state.principal).any(|principal| {
            principal.id != first
                && !principal.revoked
                && principal.spec.role == Role::Admin
                && (principal.spec.tenant == tenant || principal.spec.tenant == TenantId(0))
        })
    }

    fn show_proposal(&self, tenant: TenantId, id: ProposalId) -> ReplyBody {
        let control = self.proposals.control(tenant);
        let shown = self.proposals.find(tenant, id).map(|standing| standing.shown(self.now_ms));
        ReplyBody::Proposals(Box::new(ControlReport { control, proposals: shown.into_iter().collect() }))
    }
}
