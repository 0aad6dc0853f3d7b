//! Who takes: the subjects that a purchase, a reservation or a redemption counts for, and which of them a limit counts.

use crate::identity::{AccountId, MerchantId, PrincipalId, TenantId, TerminalId};
use crate::limit::{LimitScope, LimitSpec, Subject};
use crate::record::Head;

/// Who buys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buyer {
    /// The tenant.
    pub tenant: TenantId,
    /// The account; 0 is none.
    pub account: AccountId,
    /// A hash of the address; 0 is none.
    pub ip: u64,
    /// Who sends the order. Only what is reserved counts for it.
    pub principal: PrincipalId,
}

impl Buyer {
    /// The subjects that a purchase counts for.
    pub(super) fn subjects(&self) -> impl Iterator<Item = Subject> + use<> {
        let account = (self.account != AccountId(0)).then_some(Subject::Account(self.account));
        let ip = (self.ip != 0).then_some(Subject::Ip(self.ip));
        account.into_iter().chain(ip)
    }

    /// The subjects that a reservation counts for as long as it is not paid.
    pub(super) fn reserving(&self) -> impl Iterator<Item = Subject> + use<> {
        let buyer = (self.principal != PrincipalId(0)).then_some(Subject::Principal(self.principal));
        self.subjects().chain(buyer)
    }

    /// The one that a limit counts, if it counts one.
    pub(super) fn subject(&self, spec: &LimitSpec) -> Option<Subject> {
        match spec.scope {
            LimitScope::Principal if spec.window.is_open() => {
                Some(Subject::Principal(self.principal)).filter(|_| self.principal != PrincipalId(0))
            }
            LimitScope::Account(Some(one)) if one != self.account => None,
            LimitScope::Account(_) => self.subjects().find(|subject| matches!(subject, Subject::Account(_))),
            LimitScope::Ip => self.subjects().find(|subject| matches!(subject, Subject::Ip(_))),
            _ => None,
        }
    }
}

/// Who redeems.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Till {
    /// The tenant.
    pub tenant: TenantId,
    /// The merchant.
    pub merchant: MerchantId,
    /// The till.
    pub terminal: TerminalId,
    /// The principal.
    pub principal: PrincipalId,
}

impl Till {
    /// The till of an entry, or of a request that is about to be one.
    #[must_use]
    pub fn of(head: &Head) -> Till {
        Till {
            tenant: head.tenant,
            merchant: head.merchant,
            terminal: head.terminal,
            principal: head.principal,
        }
    }

    pub(super) fn subjects(&self) -> [Subject; 2] {
        [Subject::Terminal(self.merchant, self.terminal), Subject::Principal(self.principal)]
    }

    pub(super) fn subject(&self, scope: LimitScope) -> Option<Subject> {
        match scope {
            LimitScope::Terminal => Some(self.subjects()[0]),
            LimitScope::Principal => Some(self.subjects()[1]),
            _ => None,
        }
    }
}

impl LimitSpec {
    /// Whether this subject is one of those it counts.
    pub(super) fn counts(&self, subject: Subject) -> bool {
        match (self.scope, subject) {
            _ if self.window.is_open() => false,
            (LimitScope::Account(Some(one)), Subject::Account(id)) => one == id,
            (LimitScope::Account(None), Subject::Account(_))
            | (LimitScope::Ip, Subject::Ip(_))
            | (LimitScope::Terminal, Subject::Terminal(..))
            | (LimitScope::Principal, Subject::Principal(_)) => true,
            _ => false,
        }
    }
}
