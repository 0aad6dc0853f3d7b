//! Typed calls about tenants; for the house alone.

use kami_engine::{Tenant, TenantId, TenantSpec};

use super::{Client, Receipt};
use crate::error::ClientError;
use crate::frame::request::OneTenant;
use crate::frame::{Body, Listing, Request};

impl Client {
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
