//! An account, and what moves money between accounts.
//!
//! Money is kept as double entry: every posting is a list of legs that sum to zero in each currency, in the
//! very record of the cards it paid for. Nothing is ever paid in or out of nowhere: payments from outside
//! stand on accounts of their own kind, whose balance is the other side of all others.

use crate::identity::{AccountId, Caller, DocumentId, PrincipalId, Role, TenantId};
use crate::product::Money;

/// What an account stands for. Numbers are part of the log format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum AccountKind {
    /// A customer's deposit (预存款): what it pays orders from.
    Customer = 1,
    /// An agent's share of sales (分润), until it is paid out.
    Agent = 2,
    /// What the merchant earned.
    Income = 3,
    /// The world outside: a bank, a payment provider. It has no bound, as the money that came from there is
    /// what stands below zero here.
    External = 4,
}

impl AccountKind {
    /// Every kind.
    pub const ALL: [AccountKind; 4] =
        [AccountKind::Customer, AccountKind::Agent, AccountKind::Income, AccountKind::External];

    /// The kind with this number.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<AccountKind> {
        match number {
            1 => Some(AccountKind::Customer),
            2 => Some(AccountKind::Agent),
            3 => Some(AccountKind::Income),
            4 => Some(AccountKind::External),
            _ => None,
        }
    }

    /// The name used on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            AccountKind::Customer => "customer",
            AccountKind::Agent => "agent",
            AccountKind::Income => "income",
            AccountKind::External => "external",
        }
    }
}

/// What is said of an account when it is added or changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountSpec {
    /// 1 to 64 bytes, unique in the tenant; what the command line calls it by.
    pub name: String,
    /// ISO 4217, upper case. Never changes.
    pub currency: [u8; 3],
    /// What it stands for. Never changes.
    pub kind: AccountKind,
    /// How far below zero it may go, 0 to [`MONEY_MAX`] minor units.
    pub credit_limit: Money,
    /// The seller that may pay from it; 0 is any seller of the tenant. Finance may always.
    pub owner: PrincipalId,
}

/// An account as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its number.
    pub id: AccountId,
    /// Whose it is.
    pub tenant: TenantId,
    /// What it was added or last changed with.
    pub spec: AccountSpec,
    /// Whether nothing may be paid from it. Money that comes in is taken.
    pub frozen: bool,
    /// What is on it, minor units; at most [`MONEY_MAX`] either way.
    pub balance: Money,
    /// What open orders have set aside of it. Derived from them, never stored.
    pub held: Money,
}

impl Account {
    /// What could be paid from it now; for an account without bound, [`MONEY_MAX`].
    #[must_use]
    pub fn available(&self) -> Money {
        if self.spec.kind == AccountKind::External {
            return MONEY_MAX;
        }
        let wide = i128::from(self.balance) + i128::from(self.spec.credit_limit) - i128::from(self.held);
        wide.clamp(-i128::from(MONEY_MAX), i128::from(MONEY_MAX)) as Money
    }
}

/// The largest balance, hold and credit limit, in minor units, either way: 2^62. Sums of a few never
/// overflow.
pub const MONEY_MAX: Money = 1 << 62;

/// The most legs of one entry.
pub const LEGS_MAX: usize = 64;

/// One side of a posting: money onto an account, or from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leg {
    /// The account.
    pub account: AccountId,
    /// Minor units; positive comes in, negative goes out. Not 0.
    pub amount: Money,
}

/// What is asked when an account is added or changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountPut {
    /// What it is to be.
    pub spec: AccountSpec,
    /// Whether there must be none of this name yet, or must be one.
    pub new: bool,
}

/// Money that finance moves: a top-up (充值), a withdrawal (提现), a correction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Posting {
    /// The document it rests on, chosen by finance, unique in the tenant; the target of the request id.
    pub document: DocumentId,
    /// What moves, 1 to [`LEGS_MAX`]; they sum to zero in every currency.
    pub legs: Vec<Leg>,
    /// For people: at most [`NOTE_BYTES_MAX`] bytes.
    pub note: String,
}

/// The longest note of a posting, in bytes.
pub const NOTE_BYTES_MAX: usize = 200;

impl Caller {
    /// Whether it may pay from the account: finance from every one of the tenant, a seller from those that are
    /// its own or nobody's.
    #[must_use]
    pub fn may_debit(&self, account: &Account) -> bool {
        matches!(self.role, Role::Admin | Role::Finance)
            || account.spec.owner == PrincipalId(0)
            || account.spec.owner == self.principal
    }
}

/// What all legs on `account` come to. Wide enough that no sum of [`LEGS_MAX`] overflows.
pub(crate) fn net(legs: &[Leg], account: AccountId) -> i128 {
    legs.iter().filter(|leg| leg.account == account).map(|leg| i128::from(leg.amount)).sum()
}

/// The accounts that have a leg, each once, in order of their first.
pub(crate) fn accounts_of(legs: &[Leg]) -> impl Iterator<Item = AccountId> + '_ {
    let is_first = |(at, leg): &(usize, &Leg)| legs[..*at].iter().all(|before| before.account != leg.account);
    legs.iter().enumerate().filter(is_first).map(|(_, leg)| leg.account)
}
