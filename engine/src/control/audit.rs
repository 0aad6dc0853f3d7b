//! Whether what the log says of proposals and approvals can be: for the verification of a store.

use super::proposals::{ProposalState, Standing};
use super::proposed::{Proposed, StoredControl};
use crate::identity::{OrderId, PrincipalId, ProposalId, RequestId, TenantId};
use crate::record::{Entry, FormatError, Kind};
use crate::state::State;
use crate::word::Lifecycle;

/// Follows the entries of one record after the other.
#[derive(Default)]
pub struct Audit {
    /// What was approved by the entry before, and by whom: this one must do it.
    approved: Option<(u64, PrincipalId)>,
}

impl Audit {
    /// What is wrong with the next entry; `before` is the state before its record.
    ///
    /// # Errors
    /// If it is damaged.
    pub fn entry(&mut self, before: &State, entry: &Entry<'_>) -> Result<Option<String>, FormatError> {
        let head = &entry.head;
        let (kind, lsn) = (head.kind, entry.lsn);
        let problem = |what: &str| Ok(Some(format!("{} {what}: lsn=`{lsn}`", kind.name())));
        let approval = entry.grounds()?.and_then(|grounds| Some((grounds.approval?, grounds.approver)));
        if let Some((number, approver)) = self.approved.take() {
            let standing = before.proposals.of_number(number).expect("it was approved just now");
            let said = approval == Some((standing.id, Some(approver)));
            return match said && does(entry, standing)? {
                true => Ok(None),
                false => problem("is not what was approved before it"),
            };
        }
        let standing = before.proposals.of_number(head.subject);
        let is_open = |standing: &&Standing| standing.state(entry.time_ms) == ProposalState::Open;
        match kind {
            Kind::Propose => {
                let says_why = entry.grounds()?.is_some_and(|grounds| !grounds.why.is_empty());
                let known = before.proposals.find(head.tenant, ProposalId(head.request.0));
                if head.subject != before.proposals.next() || known.is_some() || !says_why {
                    return problem("of what is proposed already, or without a reason");
                }
            }
            Kind::Approve => {
                let Some(standing) = standing.filter(is_open) else {
                    return problem("of a proposal that was not open");
                };
                let proposer = standing.proposer.principal;
                if proposer == head.principal {
                    return problem("by who proposed it");
                }
                if before.scope(proposer).is_none() || before.scope(head.principal).is_none() {
                    return problem("of, or by, a principal that was revoked");
                }
                // What was approved to be fetched is done whenever that is.
                if standing.proposed.kind() != Kind::Reveal {
                    self.approved = Some((standing.number, head.principal));
                }
            }
            Kind::ProposalWithdraw => {
                let own = |standing: &&Standing| standing.proposer.principal == head.principal;
                if standing.filter(is_open).filter(own).is_none() {
                    return problem("of a proposal that was not open, or of somebody else's");
                }
            }
            Kind::Reveal if let Some((id, approver)) = approval => {
                let order = entry.revealed_order()?;
                let standing = before.proposals.find(head.tenant, id);
                if !standing.is_some_and(|standing| lets_fetch(standing, order, head.principal, approver)) {
                    return problem("under an approval that was not given");
                }
            }
            _ if approval.is_some() => return problem("under an approval that does not stand before it"),
            Kind::Void if entry.prev().lifecycle() == Lifecycle::Sold => {
                return problem("of a sold card without an approval");
            }
            Kind::Export => return problem("without an approval"),
            Kind::RefundValue if before.proposals.control(head.tenant).on => {
                return problem("without an approval");
            }
            Kind::TenantControl if before.proposals.control(TenantId(head.subject as u16)).on => {
                return problem("without an approval");
            }
            _ => {}
        }
        Ok(None)
    }

    /// What is wrong at the end of a record.
    pub fn end(&mut self) -> Option<String> {
        let (number, _) = self.approved.take()?;
        Some(format!("proposal {number} was approved and not done"))
    }
}

/// Whether the entry does what was proposed, as the proposer's command under the proposal's id.
fn does(entry: &Entry<'_>, standing: &Standing) -> Result<bool, FormatError> {
    let (head, proposer) = (&entry.head, &standing.proposer);
    let is_so = match standing.proposed {
        Proposed::Void { card } => entry.card() == card,
        Proposed::RefundValue { card, original, amount } => {
            let tail = entry.value()?;
            let fits = |tail: crate::record::ValueTail| {
                tail.related == original && (amount == 0 || tail.amount == amount)
            };
            entry.card() == card && tail.is_some_and(fits)
        }
        Proposed::OrderFetch { .. } => false,
        Proposed::Export { batch, count } => {
            head.subject == u64::from(batch.0) && entry.order()?.1.count() <= count
        }
        Proposed::TenantControl { tenant, control } => {
            head.subject == u64::from(tenant.0) && entry.object::<StoredControl>()?.control() == control
        }
    };
    Ok(is_so
        && head.kind == standing.proposed.kind()
        && head.request == RequestId(standing.id.0)
        && (head.tenant, head.principal) == (proposer.tenant, proposer.principal))
}

fn lets_fetch(
    standing: &Standing,
    order: OrderId,
    principal: PrincipalId,
    approver: Option<PrincipalId>,
) -> bool {
    let is_order = matches!(standing.proposed, Proposed::OrderFetch { order: own, .. } if own == order);
    let end = standing.end.as_ref().filter(|end| end.approved && Some(end.principal) == approver);
    is_order && end.is_some() && standing.proposer.principal == principal
}

#[cfg(test)]
mod tests {
    use kami_wal::Lsn;

    use super::*;
    use crate::control::{DualControl, End, StoredProposed};
    use crate::grounds::Grounds;
    use crate::identity::{CardDigest, Principal, PrincipalSpec, Role};
    use crate::record::{Group, GroupWriter, Head, Stored};
    use crate::word::{CardRef, Flags, Word};

    const AT: u64 = 1 << 20;
    const ID: u128 = 77;

    fn lsn(at: u64) -> Lsn {
        Lsn::from_bytes(at).unwrap()
    }

    fn card() -> CardRef {
        CardRef::new(1, 2)
    }

    /// A state with two operators, and an open proposal of the first to make a card void.
    fn state() -> State {
        let mut state = State::default();
        for number in 1..=2 {
            let spec = PrincipalSpec::of("somebody", Role::Operator, [number; 32]);
            let principal = Principal { id: PrincipalId(number.into()), spec, revoked: false };
            state.put_principal(principal, lsn(64));
        }
        let stored =
            StoredProposed::of(&Proposed::Void { card: card() }, Some(CardDigest(5)), Role::Operator, 60);
        let head = Head { subject: 1, ..head(Kind::Propose, 1) };
        assert!(state.proposals.add(Standing::of(&head, &stored, "stolen", lsn(128), 1000).unwrap()));
        state
    }

    fn head(kind: Kind, principal: u32) -> Head {
        Head { request: RequestId(ID), principal: PrincipalId(principal), ..Head::of_engine(kind) }
    }

    fn approve(principal: u32) -> (Head, Option<Grounds>) {
        let prev = lsn(128).units() << 16;
        (Head { subject: 1, prev, request: RequestId(8), ..head(Kind::Approve, principal) }, None)
    }

    fn void(principal: u32, approver: Option<u32>) -> (Head, Option<Grounds>) {
        let sold = Word::new(lsn(192), Lifecycle::Sold, Flags::NONE);
        let post = Word::state_of(Lifecycle::Voided, Flags::HAS_EFFECTS);
        let head = Head { subject: card().to_bits(), prev: sold.bits(), post, ..head(Kind::Void, principal) };
        let grounds = approver.map(|approver| Grounds {
            why: "stolen".to_owned(),
            approval: Some(ProposalId(ID)),
            approver: Some(PrincipalId(approver)),
        });
        (head, grounds)
    }

    /// What is found in one record of these entries.
    fn problems(state: &State, time_ms: u64, entries: &[(Head, Option<Grounds>)]) -> Vec<String> {
        let mut payload = vec![0; 4096];
        let mut group = GroupWriter::new(&mut payload, lsn(AT), 64);
        for (head, grounds) in entries {
            let tail = match head.kind {
                Kind::TenantControl => StoredControl::of(DualControl::default()).entry_tail(),
                _ => Vec::new(),
            };
            group.push_on(head, grounds.as_ref(), tail.len(), |place| place.copy_from_slice(&tail));
        }
        let used = group.finish(time_ms);
        let mut audit = Audit::default();
        let mut problems = Vec::new();
        for entry in Group::parse(&payload[..used], lsn(AT)).unwrap() {
            problems.extend(audit.entry(state, &entry.unwrap()).unwrap());
        }
        problems.extend(audit.end());
        problems
    }

    #[test]
    fn an_approval_and_what_it_approves_stand_one_behind_the_other() {
        let state = state();
        let told = |entries: &[(Head, Option<Grounds>)]| problems(&state, 2000, entries);
        assert_eq!(told(&[approve(2), void(1, Some(2))]), [""; 0]);
        assert_eq!(told(&[approve(2)]), ["proposal 1 was approved and not done"]);
        for (entries, what) in [
            (vec![void(1, None)], "without an approval"),
            (vec![void(1, Some(2))], "does not stand before it"),
            (vec![void(1, Some(2)), approve(2), void(1, Some(2))], "does not stand before it"),
            (vec![approve(1), void(1, Some(1))], "by who proposed it"),
            (vec![approve(2), void(2, Some(2))], "not what was approved"),
            (vec![approve(2), void(1, Some(1))], "not what was approved"),
            (vec![approve(2), void(1, None)], "not what was approved"),
        ] {
            let problems = told(&entries);
            assert!(problems.iter().any(|problem| problem.contains(what)), "{what}: {problems:?}");
        }
        let mut other = void(1, Some(2));
        other.0.subject += 1;
        assert!(told(&[approve(2), other])[0].contains("not what was approved"));
        assert!(problems(&state, 61_000, &[approve(2), void(1, Some(2))])[0].contains("not open"));
    }

    #[test]
    fn what_is_over_or_was_never_said_is_no_approval() {
        let mut state = state();
        let control = [(Head { subject: 0, ..head(Kind::TenantControl, 1) }, None)];
        assert_eq!(problems(&state, 2000, &control), [""; 0]);
        state.proposals.put_control(
            TenantId(0),
            DualControl { on: true, ..DualControl::default() },
            lsn(256),
        );
        assert!(problems(&state, 2000, &control)[0].contains("without an approval"));
        let refund = [(Head { subject: card().to_bits(), ..head(Kind::RefundValue, 1) }, None)];
        assert!(problems(&state, 2000, &refund)[0].contains("without an approval"));
        let withdraw = |by| [(Head { subject: 1, ..head(Kind::ProposalWithdraw, by) }, None)];
        assert_eq!(problems(&state, 2000, &withdraw(1)), [""; 0]);
        assert!(problems(&state, 2000, &withdraw(2))[0].contains("somebody else"));
        let mut revoked = self::state();
        revoked.revoke_principal(PrincipalId(1), lsn(512));
        assert!(problems(&revoked, 2000, &[approve(2), void(1, Some(2))])[0].contains("revoked"));
        let (principal, request) = (PrincipalId(2), RequestId(8));
        let end = End { approved: true, principal, request, body: 0, time_ms: 1500, lsn: lsn(512) };
        state.proposals.end(1, end);
        assert!(problems(&state, 2000, &[approve(2), void(1, Some(2))])[0].contains("not open"));
    }
}
