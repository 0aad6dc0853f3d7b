//! The proposals of all tenants, and what of each tenant takes two people.
//!
//! Whether a proposal is open follows from its end, if it has one, and from engine time: that it lapsed is written
//! nowhere. None is ever removed, so that a retry is recognised for good.

use std::collections::{BTreeMap, BTreeSet};

use kami_wal::Lsn;

use super::proposed::{Proposed, StoredControl, StoredProposed};
use super::{DualControl, PROPOSALS_PER_PRINCIPAL_MAX, PROPOSALS_PER_TENANT_MAX, is_house};
use crate::command::Request;
use crate::grounds::Grounds;
use crate::identity::{
    Caller, CardDigest, ChannelId, MerchantId, PrincipalId, ProposalId, RequestId, Role, TenantId, TerminalId,
};
use crate::record::Head;

/// Where a proposal stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ProposalState {
    /// It can be approved.
    Open = 0,
    /// It was approved, and done with that.
    Approved = 1,
    /// Who proposed it withdrew it.
    Withdrawn = 2,
    /// Nobody approved it in time.
    Lapsed = 3,
}

impl ProposalState {
    /// The state with this number.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<ProposalState> {
        match number {
            0 => Some(ProposalState::Open),
            1 => Some(ProposalState::Approved),
            2 => Some(ProposalState::Withdrawn),
            3 => Some(ProposalState::Lapsed),
            _ => None,
        }
    }

    /// The name in English, upper case.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            ProposalState::Open => "OPEN",
            ProposalState::Approved => "APPROVED",
            ProposalState::Withdrawn => "WITHDRAWN",
            ProposalState::Lapsed => "LAPSED",
        }
    }
}

/// A proposal, to be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// Its number, from 1 on over all tenants.
    pub number: u64,
    /// By which it is approved: the request id of its PROPOSE.
    pub id: ProposalId,
    /// Whose cards it is about.
    pub tenant: TenantId,
    /// What is to be done.
    pub proposed: Proposed,
    /// Who proposed it.
    pub proposer: PrincipalId,
    /// Why.
    pub why: String,
    /// When, in milliseconds since 1970.
    pub time_ms: u64,
    /// When it lapses, or lapsed unless it had ended before, in milliseconds since 1970.
    pub lapses_ms: u64,
    /// Where it stands.
    pub state: ProposalState,
    /// Who approved or withdrew it, and when, in milliseconds since 1970.
    pub ended: Option<(PrincipalId, u64)>,
    /// Where it stands in the log.
    pub lsn: Lsn,
}

/// A tenant's control, and proposals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlReport {
    /// What of the tenant takes two people.
    pub control: DualControl,
    /// In order of number.
    pub proposals: Vec<Proposal>,
}

/// How a proposal ended, but for time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// Whether it was approved; else it was withdrawn.
    pub approved: bool,
    /// By whom.
    pub principal: PrincipalId,
    /// Under which request id.
    pub request: RequestId,
    /// Checksum of what was asked.
    pub body: u32,
    /// When, in milliseconds.
    pub time_ms: u64,
    /// Where that stands.
    pub lsn: Lsn,
}

/// A proposal with all that the engine needs of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its number.
    pub number: u64,
    /// Its id.
    pub id: ProposalId,
    /// Who proposed it, and for which tenant.
    pub proposer: Caller,
    /// At which till.
    pub terminal: TerminalId,
    /// Through which channel.
    pub channel: ChannelId,
    /// Why.
    pub why: String,
    /// What.
    pub proposed: Proposed,
    /// The digest of its card's code; 0 if it is about none.
    pub digest: CardDigest,
    /// How long it lasts, in seconds.
    pub lapse_s: u32,
    /// Checksum of what was asked.
    pub body: u32,
    /// When, in milliseconds.
    pub time_ms: u64,
    /// Its PROPOSE.
    pub lsn: Lsn,
    /// How it ended.
    pub end: Option<End>,
}

impl Standing {
    /// The proposal that a PROPOSE records; `None` if this version does not know what is proposed.
    #[must_use]
    pub fn of(head: &Head, stored: &StoredProposed, why: &str, lsn: Lsn, time_ms: u64) -> Option<Standing> {
        let Head { tenant, principal, merchant, .. } = *head;
        Some(Standing {
            number: head.subject,
            id: ProposalId(head.request.0),
            proposer: Caller { tenant, principal, role: Role::from_number(stored.role)?, merchant },
            terminal: head.terminal,
            channel: head.channel,
            why: why.to_owned(),
            proposed: stored.proposed()?,
            digest: CardDigest(stored.digest),
            lapse_s: stored.lapse_s,
            body: head.body,
            time_ms,
            lsn,
            end: None,
        })
    }

    /// When it lapses, in milliseconds.
    #[must_use]
    pub fn lapses_ms(&self) -> u64 {
        self.time_ms.saturating_add(u64::from(self.lapse_s) * 1000)
    }

    /// Where it stands.
    #[must_use]
    pub fn state(&self, now_ms: u64) -> ProposalState {
        match &self.end {
            Some(end) if end.approved => ProposalState::Approved,
            Some(_) => ProposalState::Withdrawn,
            None if now_ms < self.lapses_ms() => ProposalState::Open,
            None => ProposalState::Lapsed,
        }
    }

    /// Its last entry.
    #[must_use]
    pub fn last_lsn(&self) -> Lsn {
        self.end.as_ref().map_or(self.lsn, |end| end.lsn)
    }

    /// What is done once it is approved: the proposer's command under the proposal's id.
    #[must_use]
    pub fn request(&self, approver: PrincipalId) -> Request {
        let grounds = Grounds { why: self.why.clone(), approval: Some(self.id), approver: Some(approver) };
        Request {
            id: RequestId(self.id.0),
            caller: self.proposer,
            terminal: self.terminal,
            channel: self.channel,
            deadline: None,
            command: self.proposed.command(self.digest),
            grounds: Some(Box::new(grounds)),
        }
    }

    /// As it is shown.
    #[must_use]
    pub fn shown(&self, now_ms: u64) -> Proposal {
        Proposal {
            number: self.number,
            id: self.id,
            tenant: self.proposer.tenant,
            proposed: self.proposed,
            proposer: self.proposer.principal,
            why: self.why.clone(),
            time_ms: self.time_ms,
            lapses_ms: self.lapses_ms(),
            state: self.state(now_ms),
            ended: self.end.as_ref().map(|end| (end.principal, end.time_ms)),
            lsn: self.lsn,
        }
    }
}

/// All proposals, and the control of each tenant.
#[derive(Default)]
pub struct Proposals {
    /// By number; number 1 is the first.
    all: Vec<Standing>,
    by_id: BTreeMap<(ProposalId, TenantId), usize>,
    /// Those that have no end, by tenant; of those that lapsed, some.
    open: BTreeMap<TenantId, BTreeSet<u64>>,
    controls: BTreeMap<TenantId, (DualControl, Lsn)>,
}

impl Proposals {
    /// The number of the next.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.all.len() as u64 + 1
    }

    fn numbered(&self, number: u64) -> Option<&Standing> {
        self.all.get(usize::try_from(number).ok()?.checked_sub(1)?)
    }

    /// The tenant's proposal with this id.
    #[must_use]
    pub fn find(&self, tenant: TenantId, id: ProposalId) -> Option<&Standing> {
        self.by_id.get(&(id, tenant)).map(|at| &self.all[*at])
    }

    /// The last entry of the tenant's proposal with this number.
    #[must_use]
    pub fn of_number(&self, number: u64) -> Option<&Standing> {
        self.numbered(number)
    }

    /// The proposal with this id that the caller is told of: its tenant's; to the house's admins, any tenant's, if no
    /// two have one of this id.
    #[must_use]
    pub fn told_to(&self, caller: &Caller, id: ProposalId) -> Option<&Standing> {
        let own = self.find(caller.tenant, id);
        if own.is_some() || !is_house(caller) {
            return own;
        }
        let mut of_any = self.by_id.range((id, TenantId(0))..=(id, TenantId(u16::MAX)));
        match (of_any.next(), of_any.next()) {
            (Some((_, at)), None) => Some(&self.all[*at]),
            _ => None,
        }
    }

    /// Whether a principal may open one more. Forgets which lapsed.
    pub fn has_room(&mut self, principal: PrincipalId, tenant: TenantId, now_ms: u64) -> bool {
        let Some(open) = self.open.get_mut(&tenant) else { return true };
        let all = &self.all;
        let at = |number: &u64| &all[*number as usize - 1];
        open.retain(|number| at(number).state(now_ms) == ProposalState::Open);
        let own = open.iter().filter(|number| at(number).proposer.principal == principal).count();
        own < PROPOSALS_PER_PRINCIPAL_MAX && open.len() < PROPOSALS_PER_TENANT_MAX
    }

    /// Takes one in. `false` if its number is not the next; one that is there already is left as it is.
    pub fn add(&mut self, standing: Standing) -> bool {
        if standing.number != self.next() {
            return standing.number < self.next();
        }
        let (key, at) = ((standing.id, standing.proposer.tenant), self.all.len());
        if standing.end.is_none() {
            self.open.entry(key.1).or_default().insert(standing.number);
        }
        self.by_id.insert(key, at);
        self.all.push(standing);
        true
    }

    /// Ends one that is there.
    pub fn end(&mut self, number: u64, end: End) {
        let standing = &mut self.all[number as usize - 1];
        standing.end = Some(end);
        if let Some(open) = self.open.get_mut(&standing.proposer.tenant) {
            open.remove(&number);
        }
    }

    /// Those behind a number that the caller may be told of, in order: that are open, or all.
    pub fn after(
        &self,
        caller: &Caller,
        after: u64,
        all: bool,
        now_ms: u64,
    ) -> Box<dyn Iterator<Item = &Standing> + '_> {
        let (own, of_all) = (caller.tenant, is_house(caller));
        if all {
            let rest = self.all.iter().skip(usize::try_from(after).unwrap_or(usize::MAX));
            return Box::new(rest.filter(move |standing| of_all || standing.proposer.tenant == own));
        }
        let mut numbers: Vec<u64> = self
            .open
            .iter()
            .filter(|(tenant, _)| of_all || **tenant == own)
            .flat_map(|(_, open)| open.range(after.saturating_add(1)..).copied())
            .collect();
        numbers.sort_unstable();
        let standing = numbers.into_iter().filter_map(|number| self.numbered(number));
        Box::new(standing.filter(move |standing| standing.state(now_ms) == ProposalState::Open))
    }

    /// What of a tenant takes two people.
    #[must_use]
    pub fn control(&self, tenant: TenantId) -> DualControl {
        self.controls.get(&tenant).map_or_else(DualControl::default, |(control, _)| *control)
    }

    /// Where that was set last.
    #[must_use]
    pub fn control_lsn(&self, tenant: TenantId) -> Option<Lsn> {
        self.controls.get(&tenant).map(|(_, lsn)| *lsn)
    }

    /// Sets it.
    pub fn put_control(&mut self, tenant: TenantId, control: DualControl, lsn: Lsn) {
        self.controls.insert(tenant, (control, lsn));
    }

    /// Some of the proposals for a snapshot, from a place on.
    #[must_use]
    pub fn rows(&self, from: usize, count: usize) -> Vec<ProposalRow> {
        self.all.iter().skip(from).take(count).map(ProposalRow::of).collect()
    }

    /// Some of the controls for a snapshot: those of the tenants behind one.
    #[must_use]
    pub fn control_rows(&self, after: Option<u16>, count: usize) -> Vec<ControlRow> {
        let from = after.map_or(0, |tenant| u32::from(tenant) + 1);
        let rest = self.controls.iter().filter(|(tenant, _)| from <= u32::from(tenant.0));
        rest.take(count)
            .map(|(tenant, (control, lsn))| ControlRow {
                tenant: tenant.0,
                control: StoredControl::of(*control),
                lsn: lsn.bytes(),
            })
            .collect()
    }

    /// Takes those of a snapshot in; `false` if they make no sense.
    pub fn restore(&mut self, rows: &[ProposalRow], controls: &[ControlRow]) -> bool {
        for row in controls {
            let Some(lsn) = Lsn::from_bytes(row.lsn) else { return false };
            self.put_control(TenantId(row.tenant), row.control.control(), lsn);
        }
        rows.iter().all(|row| row.standing().is_some_and(|standing| self.add(standing)))
    }

    /// Adds them to a hash of the state.
    pub fn hash(&self, hasher: &mut blake3::Hasher) {
        for standing in &self.all {
            hasher.update(format!("{standing:?} {:032x}\n", standing.digest.0).as_bytes());
        }
        hasher.update(format!("{:?}\n", self.controls).as_bytes());
    }
}

/// A proposal in a snapshot.
#[derive(Debug, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct ProposalRow {
    number: u64,
    id: u128,
    proposed: StoredProposed,
    principal: u32,
    tenant: u16,
    merchant: u32,
    terminal: u32,
    channel: u16,
    why: String,
    body: u32,
    time_ms: u64,
    lsn: u64,
    /// Whether it was approved, by whom, under which id, what was asked, when and where.
    end: Option<(bool, u32, u128, u32, u64, u64)>,
}

/// A tenant's control in a snapshot.
#[derive(Debug, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct ControlRow {
    /// The tenant.
    pub tenant: u16,
    control: StoredControl,
    lsn: u64,
}

impl ProposalRow {
    fn of(standing: &Standing) -> ProposalRow {
        let Standing { proposer, proposed, digest, lapse_s, .. } = standing;
        let end = standing.end.as_ref();
        ProposalRow {
            number: standing.number,
            id: standing.id.0,
            proposed: StoredProposed::of(proposed, Some(*digest), proposer.role, *lapse_s),
            principal: proposer.principal.0,
            tenant: proposer.tenant.0,
            merchant: proposer.merchant.0,
            terminal: standing.terminal.0,
            channel: standing.channel.0,
            why: standing.why.clone(),
            body: standing.body,
            time_ms: standing.time_ms,
            lsn: standing.lsn.bytes(),
            end: end.map(|end| {
                let End { approved, principal, request, body, time_ms, lsn } = *end;
                (approved, principal.0, request.0, body, time_ms, lsn.bytes())
            }),
        }
    }

    fn standing(&self) -> Option<Standing> {
        let end = match self.end {
            None => None,
            Some((approved, principal, request, body, time_ms, lsn)) => Some(End {
                approved,
                principal: PrincipalId(principal),
                request: RequestId(request),
                body,
                time_ms,
                lsn: Lsn::from_bytes(lsn)?,
            }),
        };
        Some(Standing {
            number: self.number,
            id: ProposalId(self.id),
            proposer: Caller {
                tenant: TenantId(self.tenant),
                principal: PrincipalId(self.principal),
                role: Role::from_number(self.proposed.role)?,
                merchant: MerchantId(self.merchant),
            },
            terminal: TerminalId(self.terminal),
            channel: ChannelId(self.channel),
            why: self.why.clone(),
            proposed: self.proposed.proposed()?,
            digest: CardDigest(self.proposed.digest),
            lapse_s: self.proposed.lapse_s,
            body: self.body,
            time_ms: self.time_ms,
            lsn: Lsn::from_bytes(self.lsn)?,
            end,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Kind;
    use crate::word::CardRef;

    fn lsn(at: u64) -> Lsn {
        Lsn::from_bytes(64 * at).unwrap()
    }

    fn standing(number: u64, tenant: u16, principal: u32) -> Standing {
        let head = Head {
            subject: number,
            request: RequestId(u128::from(number)),
            tenant: TenantId(tenant),
            principal: PrincipalId(principal),
            body: 7,
            ..Head::of_engine(Kind::Propose)
        };
        let proposed = Proposed::Void { card: CardRef::new(1, number) };
        let stored = StoredProposed::of(&proposed, Some(CardDigest(9)), Role::Operator, 60);
        Standing::of(&head, &stored, "lost", lsn(number), 1000 * number).unwrap()
    }

    fn caller(tenant: u16, role: Role) -> Caller {
        Caller { tenant: TenantId(tenant), principal: PrincipalId(99), role, merchant: MerchantId(0) }
    }

    #[test]
    fn a_proposal_lapses_by_engine_time_and_ends_once() {
        let mut all = Proposals::default();
        assert!(all.add(standing(1, 1, 5)) && all.add(standing(2, 2, 5)) && all.add(standing(3, 1, 6)));
        assert!(!all.add(standing(5, 1, 5)), "one is missing");
        let numbers = |all: &Proposals, caller: &Caller, every, now| -> Vec<u64> {
            all.after(caller, 0, every, now).map(|standing| standing.number).collect()
        };
        let (own, house) = (caller(1, Role::Operator), caller(0, Role::Admin));
        assert_eq!(numbers(&all, &own, false, 5000), [1, 3]);
        assert_eq!(numbers(&all, &house, false, 5000), [1, 2, 3]);
        assert_eq!(numbers(&all, &caller(0, Role::Operator), false, 5000), [0; 0], "it is no admin");
        assert_eq!(numbers(&all, &own, false, 61_000), [3], "the first lapsed");
        let end = End {
            approved: true,
            principal: PrincipalId(6),
            request: RequestId(8),
            body: 3,
            time_ms: 5000,
            lsn: lsn(9),
        };
        all.end(1, end.clone());
        assert!(all.add(standing(1, 1, 5)), "replay brings it again");
        assert_eq!(all.find(TenantId(1), ProposalId(1)).unwrap().end, Some(end));
        assert_eq!(numbers(&all, &own, false, 5000), [3]);
        assert_eq!(numbers(&all, &own, true, 5000), [1, 3]);
        assert!(all.told_to(&own, ProposalId(2)).is_none() && all.told_to(&house, ProposalId(2)).is_some());
        all.put_control(TenantId(2), DualControl { on: true, reveal_cards: 3, lapse_s: 90 }, lsn(10));
        // And through a snapshot.
        let mut again = Proposals::default();
        assert!(
            again.restore(&all.rows(0, 2), &all.control_rows(None, 9)) && again.restore(&all.rows(2, 9), &[])
        );
        assert_eq!((again.all, again.controls, again.open), (all.all, all.controls, all.open));
    }

    #[test]
    fn open_ones_are_bounded_and_those_that_lapsed_make_room() {
        let mut all = Proposals::default();
        let (own, tenant) = (PrincipalId(5), TenantId(1));
        for number in 1..=PROPOSALS_PER_PRINCIPAL_MAX as u64 {
            assert!(all.has_room(own, tenant, 0));
            assert!(all.add(Standing { time_ms: 0, ..standing(number, 1, 5) }));
        }
        assert!(!all.has_room(own, tenant, 59_999));
        assert!(all.has_room(PrincipalId(6), tenant, 59_999) && all.has_room(own, TenantId(2), 59_999));
        assert!(all.has_room(own, tenant, 60_000));
    }
}
