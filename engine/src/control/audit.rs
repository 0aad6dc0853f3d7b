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
