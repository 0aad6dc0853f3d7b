//! Who asks, and by what names things are called: ids, digests, roles, callers, principals.

use std::fmt;

macro_rules! ids {
    ($($(#[doc = $doc:literal])+ $name:ident($int:ty);)+) => { $(
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $int);
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { self.0.fmt(f) }
        }
    )+ };
}

ids! {
    /// A merchant on a shared engine; 0 is the house, which is there from the beginning and adds the others.
    TenantId(u16);
    /// Who sent the request: a certificate's owner. 0 is the engine itself.
    PrincipalId(u32);
    /// The till, or 0.
    TerminalId(u32);
    /// The merchant a redeemer belongs to, or 0. A reversal must come from the same one.
    MerchantId(u32);
    /// Through which channel the sale or redemption came (shop, marketplace, agent), or 0.
    ChannelId(u16);
    /// A product.
    ProductId(u32);
    /// A batch: at most 24 bits.
    BatchId(u32);
    /// An account; 0 is none.
    AccountId(u32);
    /// A limit.
    LimitId(u32);
}

macro_rules! wide_ids {
    ($($(#[doc = $doc:literal])+ $name:ident;)+) => { $(
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u128);
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { write!(f, "{:032x}", self.0) }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { write!(f, "{:032x}", self.0) }
        }
    )+ };
}

wide_ids! {
    /// Chosen by the client, unique per attempt: the same id on the same target is the same request.
    RequestId;
    /// Chosen by the client: the order that owns the cards it bought.
    OrderId;
    /// A change that a second person must approve: the request id of its PROPOSE.
    ProposalId;
    /// Chosen by finance: the document (receipt, bank transfer, correction) that a posting rests on.
    DocumentId;
}

/// The keyed 128-bit digest of a normalised code: all the engine ever looks a card up by.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CardDigest(pub(crate) u128);

impl CardDigest {
    /// A number that is uniformly distributed over the cards, for hash tables.
    #[must_use]
    pub const fn spread(self) -> u64 {
        self.0 as u64
    }
}

/// All of it, as a proof names it: whoever has the look-up key can compare.
impl fmt::Display for CardDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for CardDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Half of it names a card well enough in a log, and less is given away.
        write!(f, "card:{:016x}…", (self.0 >> 64) as u64)
    }
}

/// The keyed digest of a PIN, bound to its card; compared in constant time.
#[derive(Clone, Copy)]
pub struct PinDigest(pub(crate) [u8; 16]);

impl fmt::Debug for PinDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("pin:…")
    }
}

/// What a principal may do. Numbers are part of the log format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Role {
    /// Everything.
    Admin = 1,
    /// Imports cards.
    Issuer = 2,
    /// Sells: a platform or an agent.
    Seller = 3,
    /// Redeems: a terminal.
    Redeemer = 4,
    /// Freezes, activates, answers customers.
    Operator = 5,
    /// Settles and reconciles.
    Finance = 6,
    /// Reads.
    Auditor = 7,
}

impl Role {
    /// Every role.
    pub const ALL: [Role; 7] = [
        Role::Admin,
        Role::Issuer,
        Role::Seller,
        Role::Redeemer,
        Role::Operator,
        Role::Finance,
        Role::Auditor,
    ];

    /// The role with this number.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Role> {
        match number {
            1 => Some(Role::Admin),
            2 => Some(Role::Issuer),
            3 => Some(Role::Seller),
            4 => Some(Role::Redeemer),
            5 => Some(Role::Operator),
            6 => Some(Role::Finance),
            7 => Some(Role::Auditor),
            _ => None,
        }
    }

    /// The name used on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Role::Admin => "admin",
            Role::Issuer => "issuer",
            Role::Seller => "seller",
            Role::Redeemer => "redeemer",
            Role::Operator => "operator",
            Role::Finance => "finance",
            Role::Auditor => "auditor",
        }
    }
}

/// Who asks. Constant for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The tenant all of the caller's cards belong to.
    pub tenant: TenantId,
    /// The caller.
    pub principal: PrincipalId,
    /// What it may do.
    pub role: Role,
    /// The merchant it redeems for.
    pub merchant: MerchantId,
}

impl Caller {
    /// The caller for a platform that embeds the engine and does its own authorisation. Its principal is
    /// none that is ever added, so what it bought belongs to nobody who connects.
    pub const LOCAL: Caller =
        Caller { tenant: TenantId(0), principal: PrincipalId(0), role: Role::Admin, merchant: MerchantId(0) };

    /// Whether it may act for every merchant, wherever that is.
    #[must_use]
    pub const fn acts_for_all(&self) -> bool {
        matches!(self.role, Role::Admin | Role::Operator)
    }
}

/// A principal to be added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrincipalSpec {
    /// 1 to 64 bytes, unique in the store.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Its tenant.
    pub tenant: TenantId,
    /// The merchant it redeems for.
    pub merchant: MerchantId,
    /// SHA-256 of the public key (DER `SubjectPublicKeyInfo`) that it proves itself with.
    pub key: [u8; 32],
    /// The certificate that was issued for the key.
    pub certificate: CertificateNote,
    /// The products it may touch, at most [`SCOPE_PRODUCTS_MAX`]; none is all. An admin has no scope.
    pub products: Vec<ProductId>,
    /// How many wrong codes a minute it may send over the network on average, at most
    /// [`MISSES_PER_MINUTE_MAX`]; 0 is the server's usual.
    pub misses_per_minute: u32,
    /// The store it stands in, or 0. Products may say in which stores their cards can be used.
    pub store: u32,
    /// The classes of products that its commands about cards may be about, a bit each; none is all. An admin has
    /// no such bounds.
    pub classes: u64,
}

/// The most wrong codes a minute that a principal may be given.
pub const MISSES_PER_MINUTE_MAX: u32 = 1_000_000;
/// The most products a scope lists.
pub const SCOPE_PRODUCTS_MAX: usize = 64;

/// What is noted of a principal's certificate, for people: when it has to be renewed. Whether one is valid
/// is decided where the connection is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CertificateNote {
    /// Its serial number; 0 if none was noted.
    pub serial: u128,
    /// When it expires, in milliseconds since 1970; 0 if none was noted.
    pub expires_ms: u64,
}

/// A new certificate for a principal that stays who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renewal {
    /// The principal.
    pub principal: PrincipalId,
    /// Its key from now on; the same as before, or a new one. The old one opens nothing any more.
    pub key: [u8; 32],
    /// The certificate.
    pub certificate: CertificateNote,
}

impl Renewal {
    /// The specification with the new certificate.
    pub(crate) fn applied_to(self, spec: &PrincipalSpec) -> PrincipalSpec {
        PrincipalSpec { key: self.key, certificate: self.certificate, ..spec.clone() }
    }
}

impl PrincipalSpec {
    /// A principal of tenant 0 without merchant, certificate note or scope.
    #[must_use]
    pub fn of(name: &str, role: Role, key: [u8; 32]) -> PrincipalSpec {
        PrincipalSpec {
            name: name.to_owned(),
            role,
            tenant: TenantId(0),
            merchant: MerchantId(0),
            key,
            certificate: CertificateNote::default(),
            products: Vec::new(),
            misses_per_minute: 0,
            store: 0,
            classes: 0,
        }
    }
}

/// A principal as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// Its number.
    pub id: PrincipalId,
    /// What it was added with.
    pub spec: PrincipalSpec,
    /// Whether it was revoked.
    pub revoked: bool,
}
