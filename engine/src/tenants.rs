//! Tenants: merchants that share one engine, each with products, cards, orders, accounts and people of its own.
//!
//! Everything that is sold or paid carries its tenant, and nothing of one is told to another. The *house*, tenant 0,
//! is there from the beginning. Its admins add the others and each one's first principal, and only it looks after the
//! store itself. A freeze of a tenant is one bit that every decision about its cards asks, however many cards there are.

use kami_wal::Lsn;

use crate::admin::{Change, NAME_BYTES_MAX};
use crate::command::{Command, Request};
use crate::identity::{PrincipalId, TenantId};
use crate::record::{Kind, stored};
use crate::reply::{Reply, ReplyBody};
use crate::sequencer::{Turn, Work};
use crate::state::{ProductState, State};
use crate::status::Status;

/// A tenant to be added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantSpec {
    /// 1 to 64 bytes, unique in the store.
    pub name: String,
}

/// A tenant as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// Its number; the house, number 0, is not listed.
    pub id: TenantId,
    /// What it was added with.
    pub spec: TenantSpec,
    /// Whether all its cards are frozen.
    pub frozen: bool,
}

/// The most tenants of a store: their numbers have 16 bits.
pub const TENANTS_MAX: usize = u16::MAX as usize - 1;

/// A tenant in the log.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct StoredTenant {
    /// Its name.
    pub name: String,
}

/// A tenant in a snapshot.
#[derive(Clone, Debug, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct TenantRow {
    name: String,
    frozen: bool,
    lsn: u64,
}

stored!(StoredTenant);

/// A tenant and its last entry.
struct TenantState {
    tenant: Tenant,
    lsn: Lsn,
}

/// All tenants but the house.
#[derive(Default)]
pub struct Tenants {
    /// By number; number 1 is the first.
    states: Vec<TenantState>,
    /// Whether any is frozen: what decisions ask first.
    any_frozen: bool,
}

impl Tenants {
    fn find(&self, id: TenantId) -> Option<&TenantState> {
        self.states.get(usize::from(id.0).wrapping_sub(1))
    }

    fn named(&self, name: &str) -> Option<&TenantState> {
        self.states.iter().find(|state| state.tenant.spec.name == name)
    }

    /// Whether there is such a tenant, the house included.
    #[must_use]
    pub fn knows(&self, id: TenantId) -> bool {
        id == TenantId(0) || self.find(id).is_some()
    }

    /// The last entry of a tenant.
    #[must_use]
    pub fn lsn(&self, id: TenantId) -> Option<Lsn> {
        self.find(id).map(|state| state.lsn)
    }

    /// The last entry of the tenant with this name.
    #[must_use]
    pub fn lsn_of_name(&self, name: &str) -> Option<Lsn> {
        self.named(name).map(|state| state.lsn)
    }

    /// Whether all cards of the tenant are frozen.
    #[inline]
    #[must_use]
    pub fn is_frozen(&self, id: TenantId) -> bool {
        self.any_frozen && self.find(id).is_some_and(|state| state.tenant.frozen)
    }

    /// The number of the next tenant.
    #[must_use]
    pub fn next(&self) -> TenantId {
        TenantId(u16::try_from(self.states.len() + 1).unwrap_or(u16::MAX))
    }

    /// Adds a tenant, whose number is the next.
    pub fn put(&mut self, id: TenantId, spec: TenantSpec, lsn: Lsn) {
        debug_assert_eq!(id, self.next(), "tenants are numbered as they come");
        self.states.push(TenantState { tenant: Tenant { id, spec, frozen: false }, lsn });
    }

    /// Freezes a tenant or ends its freeze.
    ///
    /// # Panics
    /// If there is none.
    pub fn set_frozen(&mut self, id: TenantId, frozen: bool, lsn: Lsn) {
        let state = &mut self.states[usize::from(id.0) - 1];
        state.tenant.frozen = frozen;
        state.lsn = lsn;
        self.any_frozen = self.states.iter().any(|state| state.tenant.frozen);
    }

    /// Up to `count` tenants from the `from`th on, for a snapshot.
    pub fn rows(&self, from: usize, count: usize) -> impl Iterator<Item = TenantRow> + '_ {
        self.states.iter().skip(from).take(count).map(|state| TenantRow {
            name: state.tenant.spec.name.clone(),
            frozen: state.tenant.frozen,
            lsn: state.lsn.bytes(),
        })
    }

    /// Takes the tenants of a snapshot in; whether they make sense.
    pub fn restore(&mut self, rows: &[TenantRow]) -> bool {
        rows.iter().all(|row| {
            let Some(lsn) = Lsn::from_bytes(row.lsn) else { return false };
            let id = self.next();
            self.put(id, TenantSpec { name: row.name.clone() }, lsn);
            self.set_frozen(id, row.frozen, lsn);
            true
        })
    }

    /// Adds them to a hash of the state.
    pub fn hash(&self, hasher: &mut blake3::Hasher) {
        for state in &self.states {
            hasher.update(format!("{:?} {}\n", state.tenant, state.lsn).as_bytes());
        }
    }
}

impl Turn<'_> {
    pub(crate) fn put_tenant(&mut self, work: &Work, at: usize) -> Option<Reply> {
        let request = &work.requests[at];
        let Command::TenantPut(spec) = &request.command else {
            unreachable!("the caller matched the command")
        };
        let tenants = &self.state.tenants;
        let known = tenants.named(&spec.name).map(|state| state.tenant.id);
        let id = known.unwrap_or_else(|| tenants.next());
        let sane =
            (1..=NAME_BYTES_MAX).contains(&spec.name.len()) && !spec.name.chars().any(char::is_control);
        let refusal = match known {
            _ if !sane => Some(Status::Malformed),
            Some(_) => Some(Status::AlreadyExists),
            None if tenants.states.len() >= TENANTS_MAX => Some(Status::TooLarge),
            None => None,
        };
        let spec = (**spec).clone();
        let change = Change {
            kind: Kind::TenantPut,
            subject: u64::from(id.0),
            refusal,
            apply: &|state, lsn| state.tenants.put(id, spec.clone(), lsn),
            show: &|state| state.show_tenant(id),
        };
        self.change(work, at, &change)
    }

    pub(crate) fn set_tenant_frozen(
        &mut self,
        work: &Work,
        at: usize,
        id: TenantId,
        frozen: bool,
    ) -> Option<Reply> {
        let refusal = match self.state.tenants.find(id) {
            // The house itself is not frozen by a slip: nobody could sell or redeem any more.
            None => Some(Status::NotFound),
            Some(state) if state.tenant.frozen == frozen => Some(Status::IllegalTransition),
            Some(_) => None,
        };
        let change = Change {
            kind: if frozen { Kind::TenantFreeze } else { Kind::TenantUnfreeze },
            subject: u64::from(id.0),
            refusal,
            apply: &|state, lsn| state.tenants.set_frozen(id, frozen, lsn),
            show: &|state| state.show_tenant(id),
        };
        self.change(work, at, &change)
    }

    pub(crate) fn list_tenants(&self, request: &Request) -> Reply {
        let all = self.state.tenants.states.iter().map(|state| state.tenant.clone());
        self.reply(request, Status::Ok, None, ReplyBody::Tenants(all.collect()))
    }

    /// Whether the command is for the house alone, or about a principal of another tenant, and the caller is not of
    /// the house.
    pub(crate) fn is_beyond_tenant(&self, request: &Request) -> bool {
        let own = request.caller.tenant;
        own != TenantId(0)
            && match &request.command {
                Command::TenantPut(_)
                | Command::TenantFreeze(_)
                | Command::TenantUnfreeze(_)
                | Command::TenantList
                | Command::Stats => true,
                Command::TenantControl { tenant, .. } => *tenant != own,
                Command::PrincipalAdd(spec) => spec.tenant != own,
                Command::PrincipalRevoke(id) => self.is_strange(*id, own),
                Command::PrincipalRenew(renewal) => self.is_strange(renewal.principal, own),
                _ => false,
            }
    }

    /// A principal that is not there is none of another tenant's, and is not found.
    fn is_strange(&self, id: PrincipalId, own: TenantId) -> bool {
        let known = self.state.principals.get((id.0 as usize).wrapping_sub(1));
        known.is_some_and(|state| state.principal.spec.tenant != own)
    }
}

impl State {
    /// Whether no card of the product can be sold or used: it, or its tenant, is frozen.
    #[inline]
    #[must_use]
    pub fn is_product_frozen(&self, product: &ProductState) -> bool {
        product.product.frozen || self.tenants.is_frozen(product.tenant)
    }

    fn show_tenant(&self, id: TenantId) -> ReplyBody {
        ReplyBody::Tenants(self.tenants.find(id).map(|state| state.tenant.clone()).into_iter().collect())
    }
}
