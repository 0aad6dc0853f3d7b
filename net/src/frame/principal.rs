//! The bodies of commands about principals and tenants.

use kami_engine::{
    CertificateNote, MerchantId, PrincipalId, PrincipalSpec, ProductId, Renewal, Role, TenantId, TenantSpec,
};

use super::wire::wire;

/// The body of PRINCIPAL_REVOKE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnePrincipal {
    /// The principal.
    pub principal: PrincipalId,
}

wire!(OnePrincipal: "ONE_PRINCIPAL" {
    principal: PrincipalId, "the principal";
});

wire!(PrincipalSpec: "PRINCIPAL_SPEC" {
    key: [u8; 32], "SHA-256 of its public key's DER SubjectPublicKeyInfo";
    merchant: MerchantId, "the merchant it redeems for, or 0";
    tenant: TenantId, "its tenant; 0: the house. A tenant's own admin adds principals of that tenant alone";
    role: Role, "1 admin, 2 issuer, 3 seller, 4 redeemer, 5 operator, 6 finance, 7 auditor";
    certificate: CertificateNote, "the certificate that was issued for the key";
    misses_per_minute: u32, "wrong codes a minute it may send on average; 0: the server's usual";
    store: u32, "the store it stands in, or 0";
    classes: u64, "the classes of products its commands about cards may be about, a bit each; 0: all";
    products: Vec<ProductId>, "the products it may touch, at most 64; none: all";
    name: String, "1 to 64 bytes, unique";
});

wire!(CertificateNote: "CERTIFICATE_NOTE" {
    serial: u128, "its serial number; 0: none was noted";
    expires_ms: u64, "when it expires, ms since 1970; 0: none was noted";
});

wire!(Renewal: "RENEWAL" {
    principal: PrincipalId, "the principal";
    key: [u8; 32], "SHA-256 of its public key from now on, as in PRINCIPAL_SPEC";
    certificate: CertificateNote, "its new certificate";
});

/// The body of the commands about one tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OneTenant {
    /// The tenant.
    pub tenant: TenantId,
}

wire!(OneTenant: "ONE_TENANT" {
    tenant: TenantId, "the tenant, not the house";
});

wire!(TenantSpec: "TENANT_SPEC" {
    name: String, "1 to 64 bytes, unique";
});
