//! A limit: how much of what, by whom, in which time.

use crate::identity::{AccountId, LimitId, MerchantId, PrincipalId, ProductId, TenantId, TerminalId};
use crate::status::Status;

/// Who is counted. A limit counts each of its subjects for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LimitScope {
    /// What an account buys: this one, or each.
    Account(Option<AccountId>),
    /// What is bought from an address: each, by the hash that the seller gives.
    Ip,
    /// What is redeemed at a till: each, by merchant and number.
    Terminal,
    /// What is redeemed by a principal, or reserved by it: each.
    Principal,
    /// One order by itself. Its window is LIFE.
    Order,
}

/// In which time it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LimitWindow {
    /// A calendar day, in a time zone so many minutes east of Greenwich; -840 to 840.
    Day {
        /// Minutes to add to universal time.
        offset_min: i16,
    },
    /// The last so many seconds, 1 to 86,400.
    Rolling {
        /// How many.
        seconds: u32,
    },
    /// For good.
    Life,
    /// No time: the cards that are reserved now and not paid. For accounts, addresses and principals that buy.
    OpenCards,
    /// No time: the orders that are reserved now and not paid. For accounts, addresses and principals that buy.
    OpenOrders,
}

impl LimitWindow {
    /// Whether it counts what is reserved now.
    #[must_use]
    pub const fn is_open(self) -> bool {
        matches!(self, LimitWindow::OpenCards | LimitWindow::OpenOrders)
    }
}

/// The longest rolling window: a day. A busy subject costs 16 bytes for every 100 ms of it.
pub const ROLLING_S_MAX: u32 = 24 * 3600;

/// What happens at the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum LimitAction {
    /// What goes over it is refused.
    Refuse = 1,
    /// What goes over it is done, and recorded once in the window.
    Alert = 2,
}

impl LimitAction {
    /// The action with this number.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<LimitAction> {
        match number {
            1 => Some(LimitAction::Refuse),
            2 => Some(LimitAction::Alert),
            _ => None,
        }
    }
}

/// What is said of a limit when it is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitSpec {
    /// 1 to 64 bytes, unique in the tenant among limits that stand.
    pub name: String,
    /// Who is counted. Never changes, as the next two: what was counted would mean something else.
    pub scope: LimitScope,
    /// Only this product's cards; `None` is all.
    pub product: Option<ProductId>,
    /// In which time.
    pub window: LimitWindow,
    /// How many cards, uses or orders.
    pub max: u64,
    /// What happens at it.
    pub action: LimitAction,
    /// Whether it is taken away for good. Its name is free again.
    pub ended: bool,
}

impl LimitSpec {
    /// Whether the parts of it go together.
    #[must_use]
    pub fn is_sane(&self) -> bool {
        let window = match (self.scope, self.window) {
            (LimitScope::Order, window) => window == LimitWindow::Life,
            (LimitScope::Account(_) | LimitScope::Ip | LimitScope::Principal, window) if window.is_open() => {
                // What is open is not told apart by product, and an alert needs a window to be silent in.
                self.product.is_none() && self.action == LimitAction::Refuse
            }
            (_, LimitWindow::OpenCards | LimitWindow::OpenOrders) => false,
            (_, LimitWindow::Day { offset_min }) => (-840..=840).contains(&offset_min),
            (_, LimitWindow::Rolling { seconds }) => (1..=ROLLING_S_MAX).contains(&seconds),
            (_, LimitWindow::Life) => true,
        };
        // An order has no window in which a second alert would be silent.
        let action = self.scope != LimitScope::Order || self.action == LimitAction::Refuse;
        window
            && action
            && self.scope != LimitScope::Account(Some(AccountId(0)))
            && (1..=64).contains(&self.name.len())
            && !self.name.chars().any(char::is_control)
    }

    /// Whether it counts redemptions rather than purchases.
    #[must_use]
    pub fn is_of_redemptions(&self) -> bool {
        matches!(self.scope, LimitScope::Terminal | LimitScope::Principal) && !self.window.is_open()
    }
}

/// A limit as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Its number.
    pub id: LimitId,
    /// Whose it is.
    pub tenant: TenantId,
    /// What it was set to.
    pub spec: LimitSpec,
}

impl Limit {
    /// What a command that goes over it is told.
    #[must_use]
    pub fn status(&self) -> Status {
        match (self.spec.scope, self.spec.window) {
            (_, LimitWindow::OpenCards | LimitWindow::OpenOrders) => Status::LimitReservations,
            (LimitScope::Account(_), _) => Status::LimitAccount,
            (LimitScope::Ip, _) => Status::LimitIp,
            (LimitScope::Terminal | LimitScope::Principal, _) => Status::LimitTerminal,
            (LimitScope::Order, _) => Status::LimitOrder,
        }
    }
}

/// One that is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// An account.
    Account(AccountId),
    /// An address, as the hash that the seller gives.
    Ip(u64),
    /// A till of a merchant.
    Terminal(MerchantId, TerminalId),
    /// A principal.
    Principal(PrincipalId),
}

impl Subject {
    /// Its kind and number, as formats keep it.
    #[must_use]
    pub const fn numbers(self) -> (u8, u64) {
        match self {
            Subject::Account(id) => (1, id.0 as u64),
            Subject::Ip(hash) => (2, hash),
            Subject::Terminal(merchant, terminal) => (3, (merchant.0 as u64) << 32 | terminal.0 as u64),
            Subject::Principal(id) => (4, id.0 as u64),
        }
    }

    /// The subject of this kind and number.
    #[must_use]
    pub fn from_numbers(kind: u8, number: u64) -> Option<Subject> {
        match kind {
            1 => Some(Subject::Account(AccountId(u32::try_from(number).ok()?))),
            2 => Some(Subject::Ip(number)),
            3 => Some(Subject::Terminal(MerchantId((number >> 32) as u32), TerminalId(number as u32))),
            4 => Some(Subject::Principal(PrincipalId(u32::try_from(number).ok()?))),
            _ => None,
        }
    }
}

/// Why a limit stands against a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exceeded {
    /// The limit; 0 is a cap on what is open that stands where none is set.
    pub limit: LimitId,
    /// What the command is told.
    pub status: Status,
    /// How many units are left now: fewer than were asked for.
    pub left: u64,
    /// In how many milliseconds what was asked for would fit, if nothing else happens; `u64::MAX` is never.
    pub opens_ms: u64,
}
