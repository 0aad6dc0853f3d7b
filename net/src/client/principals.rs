//! The typed calls about principals and tenants: who may connect, and as what. Tenants are for the house alone.

use kami_engine::{Principal, PrincipalId, PrincipalSpec, Renewal, Tenant, TenantId, TenantSpec};

use super::{Client, Receipt};
use crate::error::ClientError;
use crate::frame::request::{OnePrincipal, OneTenant};
use crate::frame::{Body, Listing, Request};

impl Client {
    /// Adds a principal.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn principal_add(&self, spec: PrincipalSpec) -> Result<Receipt<Principal>, ClientError> {
        let receipt = self.list(&Request::PrincipalAdd(Box::new(spec)), principals).await?;
        receipt.one()
    }

    /// Withdraws a principal for good and closes its connections.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn principal_revoke(&self, principal: PrincipalId) -> Result<Receipt<Principal>, ClientError> {
        self.list(&Request::PrincipalRevoke(OnePrincipal { principal }), principals).await?.one()
    }

    /// Notes a new certificate of a principal. If its key is new, connections with the old one are closed.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn principal_renew(&self, renewal: Renewal) -> Result<Receipt<Principal>, ClientError> {
        self.list(&Request::PrincipalRenew(Box::new(renewal)), principals).await?.one()
    }

    /// Lists the principals.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn principal_list(&self) -> Result<Receipt<Listing<Principal>>, ClientError> {
        self.list(&Request::PrincipalList, principals).await
    }

    /// Adds a tenant. Its first principal is then added with its number.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn tenant_put(&self, spec: TenantSpec) -> Result<Receipt<Tenant>, ClientError> {
        self.list(&Request::TenantPut(Box::new(spec)), tenants).await?.one()
    }

    /// Freezes all cards of a tenant.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn tenant_freeze(&self, tenant: TenantId) -> Result<Receipt<Tenant>, ClientError> {
        self.list(&Request::TenantFreeze(OneTenant { tenant }), tenants).await?.one()
    }

    /// Ends the freeze of a tenant.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn tenant_unfreeze(&self, tenant: TenantId) -> Result<Receipt<Tenant>, ClientError> {
        self.list(&Request::TenantUnfreeze(OneTenant { tenant }), tenants).await?.one()
    }

    /// Lists the tenants but for the house.
    ///
    /// # Errors
    /// As [`Client::redeem`].
    pub async fn tenant_list(&self) -> Result<Receipt<Listing<Tenant>>, ClientError> {
        self.list(&Request::TenantList, tenants).await
    }
}

fn tenants(body: Body) -> Option<Listing<Tenant>> {
    match body {
        Body::Tenants(rows) => Some(rows),
        _ => None,
    }
}

fn principals(body: Body) -> Option<Listing<Principal>> {
    match body {
        Body::Principals(rows) => Some(rows),
        _ => None,
    }
}
