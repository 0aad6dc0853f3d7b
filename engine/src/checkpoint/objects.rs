//! What a snapshot holds beside words and orders: the objects of the first version, and the ledger of all that
//! came later.

use kami_wal::Lsn;

use crate::account::Leg;
use crate::accounts::AccountRow;
use crate::control::{ControlRow, ProposalRow};
use crate::exceptions::StoredException;
use crate::holds::{Hold, HoldKey};
use crate::identity::{AccountId, MerchantId, OrderId, Principal, PrincipalId, RequestId, TenantId};
use crate::limits::{LimitRow, UsageRow};
use crate::orders::{OrderKey, Reservation};
use crate::record::{
    Clocks, StoredBatch, StoredPlace, StoredPrincipal, StoredProduct, StoredTerms, StoredValidity, stored,
};
use crate::tenants::TenantRow;

/// Everything but words and orders.
#[derive(Debug, Default, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Objects {
    /// Engine time.
    pub now_ms: u64,
    pub(super) wall_ms: u64,
    pub(super) boot_ms: u64,
    pub(super) boot_id: u128,
    /// Products in order of number.
    pub products: Vec<ProductObject>,
    /// Principals in order of number.
    pub principals: Vec<PrincipalObject>,
    /// Batches in order of number.
    pub batches: Vec<BatchObject>,
}

/// What later versions than the first keep in a snapshot.
#[derive(Debug, Default, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Ledger {
    /// The terms of products, by number, where they are not the default.
    pub terms: Vec<(u32, StoredTerms)>,
    /// Where principals stand, by number, where that is not the default.
    pub places: Vec<(u32, StoredPlace)>,
    /// The open holds.
    pub holds: Vec<HoldObject>,
    /// Locks after wrong PINs, first to end first: card, principal, terminal, and until when.
    pub pin_locks: Vec<(u64, u32, u32, u64)>,
    /// Redemptions that were made offline and did not fit, in order of number.
    pub exceptions: Vec<StoredException>,
    /// Accounts in order of number.
    pub accounts: Vec<AccountRow>,
    /// Tenant, id and POST of each document.
    pub documents: Vec<(u16, u128, u64)>,
    /// Limits in order of number.
    pub limits: Vec<LimitRow>,
    /// What counts against them.
    pub usages: Vec<UsageRow>,
    /// When something last counted.
    pub counted_ms: u64,
    /// Orders that wait for their payment.
    pub reservations: Vec<StoredReservation>,
    /// Tenants but for the house, in order of number.
    pub tenants: Vec<TenantRow>,
    /// What was proposed, in order of number.
    pub proposals: Vec<ProposalRow>,
    /// What of tenants takes two people, in order of tenant, where it was set.
    pub controls: Vec<ControlRow>,
    /// From which event of its own a card is valid, by batch, where it is not from the import.
    pub validities: Vec<(u32, StoredValidity)>,
    /// Which rows of batches are active, where it is not all of them since the import.
    pub activities: Vec<ActivityObject>,
    /// Where the last order of each tenant was opened.
    pub order_heads: Vec<(u16, u64)>,
    /// Cards with an end of validity that they were given after their import, milliseconds.
    pub ends: Vec<(u64, u64)>,
}

/// Which rows of a batch are active.
#[derive(Debug, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct ActivityObject {
    /// The batch.
    pub batch: u32,
    /// Where each piece begins, and since when it is active.
    pub pieces: Vec<(u64, Option<u64>)>,
}

/// An order that waits for its payment, in a snapshot.
#[derive(Debug, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct StoredReservation {
    tenant: u16,
    order: u128,
    deadline_ms: u64,
    principal: u32,
    account: u32,
    ip: u64,
    cards: u32,
    /// Account and amount.
    legs: Vec<(u32, i64)>,
}

impl StoredReservation {
    pub(super) fn of((tenant, order): OrderKey, reservation: &Reservation) -> StoredReservation {
        StoredReservation {
            tenant: tenant.0,
            order: order.0,
            deadline_ms: reservation.deadline_ms,
            principal: reservation.principal.0,
            account: reservation.account.map_or(0, |account| account.0),
            ip: reservation.ip,
            cards: reservation.cards,
            legs: reservation.legs.iter().map(|leg| (leg.account.0, leg.amount)).collect(),
        }
    }

    /// The reservation.
    #[must_use]
    pub fn reservation(&self) -> (OrderKey, Reservation) {
        let legs = self.legs.iter().map(|&(account, amount)| Leg { account: AccountId(account), amount });
        let reservation = Reservation {
            deadline_ms: self.deadline_ms,
            principal: PrincipalId(self.principal),
            account: (self.account != 0).then_some(AccountId(self.account)),
            ip: self.ip,
            cards: self.cards,
            legs: legs.collect(),
        };
        ((TenantId(self.tenant), OrderId(self.order)), reservation)
    }
}

/// An open hold in a snapshot.
#[derive(Debug, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct HoldObject {
    card: u64,
    id: u128,
    amount: i64,
    deadline_ms: u64,
    merchant: u32,
    lsn: u64,
}

impl HoldObject {
    pub(super) fn of((card, id): HoldKey, hold: &Hold) -> HoldObject {
        let Hold { amount, deadline_ms, merchant, lsn } = *hold;
        HoldObject { card, id: id.0, amount, deadline_ms, merchant: merchant.0, lsn: lsn.bytes() }
    }

    /// The hold, if it has a place.
    #[must_use]
    pub fn hold(&self) -> Option<(HoldKey, Hold)> {
        let hold = Hold {
            amount: self.amount,
            deadline_ms: self.deadline_ms,
            merchant: MerchantId(self.merchant),
            lsn: Lsn::from_bytes(self.lsn)?,
        };
        Some(((self.card, RequestId(self.id)), hold))
    }
}

/// A product in a snapshot.
#[derive(Debug, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct ProductObject {
    /// As in the log.
    pub stored: StoredProduct,
    /// Whether it is frozen.
    pub frozen: bool,
    /// Its last entry.
    pub lsn: u64,
}

/// A principal in a snapshot.
#[derive(Debug, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct PrincipalObject {
    /// As in the log.
    pub stored: StoredPrincipal,
    /// Whether it was revoked.
    pub revoked: bool,
    /// Its last entry.
    pub lsn: u64,
}

/// A batch in a snapshot.
#[derive(Debug, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct BatchObject {
    /// Its number.
    pub id: u32,
    /// As in the log.
    pub stored: StoredBatch,
    /// The request that imported it.
    pub import: u128,
    /// Who imported it.
    pub imported_by: u32,
    /// Its IMPORT entry.
    pub import_lsn: u64,
    /// When it was imported.
    pub imported_ms: u64,
    /// Its last entry.
    pub lsn: u64,
    /// Whether it is active.
    pub active: bool,
    /// Whether it is frozen.
    pub frozen: bool,
    /// Whether its unsold cards are void.
    pub voided: bool,
    /// Its extension.
    pub extended_ms: u64,
}

impl Objects {
    /// The clocks at the last start.
    #[must_use]
    pub fn clocks(&self) -> Clocks {
        Clocks { wall_ms: self.wall_ms, boot_ms: self.boot_ms, boot_id: self.boot_id }
    }
}

impl PrincipalObject {
    /// The principal with number `id`, who stands at `place`; `None` if a field is unknown.
    #[must_use]
    pub fn principal(&self, id: PrincipalId, place: Option<&StoredPlace>) -> Option<Principal> {
        Some(Principal { id, spec: self.stored.spec(place)?, revoked: self.revoked })
    }
}

stored!(Objects, Ledger);
