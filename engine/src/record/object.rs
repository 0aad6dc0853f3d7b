//! Objects that the log and the snapshots keep as rkyv bytes, under a version byte.

use crate::identity::{CertificateNote, MerchantId, PrincipalSpec, ProductId, Role, TenantId};
use crate::product::{CardKind, ProductSpec, ProductTerms, ValidFrom, Validity};

/// The version byte before an encoded object.
pub(super) const OBJECT_VERSION: u8 = 1;
/// The version byte before an object that is followed by what later versions added to it.
pub(super) const EXTENDED_VERSION: u8 = 2;

/// An object that the log and the snapshots keep as rkyv bytes.
pub trait Stored: Sized {
    /// The bytes.
    fn encode(&self) -> Vec<u8>;
    /// The object, if the bytes are one.
    fn decode(bytes: &[u8]) -> Option<Self>;

    /// The tail of an entry that carries this object; made before the lock is taken.
    fn entry_tail(&self) -> Vec<u8> {
        part(OBJECT_VERSION, &self.encode())
    }

    /// The tail of an entry that carries this object and, if there is one, what later versions added to it.
    fn entry_tail_with(&self, extension: Option<&impl Stored>) -> Vec<u8> {
        let Some(extension) = extension else { return self.entry_tail() };
        let mut tail = part(EXTENDED_VERSION, &self.encode());
        tail.extend_from_slice(&part(OBJECT_VERSION, &extension.encode()));
        tail
    }
}

/// One object of a tail: version, length, bytes, and zeros up to a multiple of 8.
fn part(version: u8, bytes: &[u8]) -> Vec<u8> {
    let mut part = vec![0; (8 + bytes.len()).next_multiple_of(8)];
    part[0] = version;
    part[4..8].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
    part[8..8 + bytes.len()].copy_from_slice(bytes);
    part
}

/// Makes types objects by rkyv, whose offsets have 32 bits.
macro_rules! stored {
    ($($name:ty),+) => { $(
        impl $crate::record::Stored for $name {
            fn encode(&self) -> Vec<u8> {
                let bytes = rkyv::to_bytes::<rkyv::rancor::Error>(self);
                bytes.expect("an object is shorter than 2 GiB, and memory takes it").into_vec()
            }
            fn decode(bytes: &[u8]) -> Option<Self> {
                rkyv::from_bytes::<Self, rkyv::rancor::Error>(bytes).ok()
            }
        }
    )+ };
}

/// A product in the log.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct StoredProduct {
    /// Its tenant.
    pub tenant: u16,
    /// Its name.
    pub name: String,
    /// Its [`CardKind`](crate::CardKind).
    pub kind: u8,
    /// Its currency.
    pub currency: [u8; 3],
    /// Face value.
    pub face: i64,
    /// Days from import to expiry.
    pub valid_days: u32,
    /// Seconds a redemption can be reversed.
    pub reversal_s: u32,
}

/// The terms of a product in the log: there only if they are not the default.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct StoredTerms {
    /// Its [`ValidFrom`].
    pub valid_from: u8,
    /// Seconds of a reservation.
    pub reserve_s: u32,
    /// Seconds of a hold.
    pub hold_s: u32,
    /// Uses, or sales, of a card.
    pub uses: u32,
    /// The most a card can hold.
    pub value_max: i64,
    /// Whether a redemption takes what is left.
    pub partial: bool,
    /// Whether it can be sold.
    pub listed: bool,
    /// Its class.
    pub class: u8,
    /// Who may redeem it.
    pub merchants: Vec<u32>,
    /// Where it may be redeemed.
    pub stores: Vec<u32>,
    /// The merchant's own.
    pub attributes: String,
}

/// A principal in the log.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct StoredPrincipal {
    /// Its name.
    pub name: String,
    /// Its [`Role`](crate::Role).
    pub role: u8,
    /// Its tenant.
    pub tenant: u16,
    /// Its merchant.
    pub merchant: u32,
    /// Digest of its public key.
    pub key: [u8; 32],
    /// Its certificate's serial number, or 0.
    pub serial: u128,
    /// When the certificate expires, milliseconds, or 0.
    pub expires_ms: u64,
    /// The products it may touch; none is all.
    pub products: Vec<u32>,
    /// Wrong codes a minute it may send; 0 is the server's usual.
    pub misses_per_minute: u32,
}

/// Where a principal stands and what it may touch beside its products: there only if it is not the default.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct StoredPlace {
    /// Its store.
    pub store: u32,
    /// The classes of products it may touch; none is all.
    pub classes: u64,
}

/// A batch in the log: all that is known of it beside its rows.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct StoredBatch {
    /// Its tenant.
    pub tenant: u16,
    /// Its product.
    pub product: u32,
    /// The importer's label.
    pub label: String,
    /// Its rows.
    pub rows: u64,
    /// The batch file's hash, which its import computed.
    pub file_hash: [u8; 32],
    /// The hash of its digests in row order: the same cards again have the same.
    pub cards_hash: [u8; 32],
    /// What its cards are worth where the rows do not say.
    pub face: i64,
    /// From when they are valid; 0 is at once.
    pub valid_from_ms: u64,
    /// When they expire where the rows do not say; 0 is never.
    pub expires_ms: u64,
    /// Whether they are redeemable once sold.
    pub active: bool,
}

/// What later versions than the first say of a batch: there only if it is so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct StoredValidity {
    /// Its [`ValidFrom`].
    pub from: u8,
    /// Days.
    pub days: u32,
}

impl StoredValidity {
    /// As it is kept.
    #[must_use]
    pub fn of(validity: Validity) -> StoredValidity {
        StoredValidity { from: validity.from as u8, days: validity.days }
    }

    /// The rule, if this version knows it.
    #[must_use]
    pub fn validity(&self) -> Option<Validity> {
        let from = ValidFrom::from_number(self.from).filter(|from| *from != ValidFrom::Import)?;
        (self.days > 0).then_some(Validity { from, days: self.days })
    }
}

pub(crate) use stored;

stored!(StoredProduct, StoredTerms, StoredPrincipal, StoredPlace, StoredBatch, StoredValidity);

impl From<(&ProductSpec, TenantId)> for StoredProduct {
    fn from((spec, tenant): (&ProductSpec, TenantId)) -> Self {
        StoredProduct {
            tenant: tenant.0,
            name: spec.name.clone(),
            kind: spec.kind as u8,
            currency: spec.currency,
            face: spec.face,
            valid_days: spec.valid_days,
            reversal_s: spec.reversal_s,
        }
    }
}

impl StoredTerms {
    /// What is to be kept of the terms: nothing, if they are the default.
    #[must_use]
    pub fn of(terms: &ProductTerms) -> Option<StoredTerms> {
        (*terms != ProductTerms::default()).then(|| StoredTerms {
            valid_from: terms.valid_from as u8,
            reserve_s: terms.reserve_s,
            hold_s: terms.hold_s,
            uses: terms.uses,
            value_max: terms.value_max,
            partial: terms.partial,
            listed: terms.listed,
            class: terms.class,
            merchants: terms.merchants.iter().map(|merchant| merchant.0).collect(),
            stores: terms.stores.clone(),
            attributes: terms.attributes.clone(),
        })
    }

    /// The terms, if every field is known to this version.
    #[must_use]
    pub fn terms(&self) -> Option<ProductTerms> {
        Some(ProductTerms {
            valid_from: ValidFrom::from_number(self.valid_from)?,
            reserve_s: self.reserve_s,
            hold_s: self.hold_s,
            uses: self.uses,
            value_max: self.value_max,
            partial: self.partial,
            listed: self.listed,
            class: self.class,
            merchants: self.merchants.iter().copied().map(MerchantId).collect(),
            stores: self.stores.clone(),
            attributes: self.attributes.clone(),
        })
    }
}

impl StoredProduct {
    /// The specification, if every field is known to this version.
    #[must_use]
    pub fn spec(&self, terms: Option<&StoredTerms>) -> Option<ProductSpec> {
        Some(ProductSpec {
            name: self.name.clone(),
            kind: CardKind::from_number(self.kind)?,
            currency: self.currency,
            face: self.face,
            valid_days: self.valid_days,
            reversal_s: self.reversal_s,
            terms: terms.map_or(Some(ProductTerms::default()), StoredTerms::terms)?,
        })
    }
}

impl From<&PrincipalSpec> for StoredPrincipal {
    fn from(spec: &PrincipalSpec) -> Self {
        StoredPrincipal {
            name: spec.name.clone(),
            role: spec.role as u8,
            tenant: spec.tenant.0,
            merchant: spec.merchant.0,
            key: spec.key,
            serial: spec.certificate.serial,
            expires_ms: spec.certificate.expires_ms,
            products: spec.products.iter().map(|product| product.0).collect(),
            misses_per_minute: spec.misses_per_minute,
        }
    }
}

impl StoredPlace {
    /// What is to be kept of it: nothing, if it is the default.
    #[must_use]
    pub fn of(spec: &PrincipalSpec) -> Option<StoredPlace> {
        let PrincipalSpec { store, classes, .. } = *spec;
        ((store, classes) != (0, 0)).then_some(StoredPlace { store, classes })
    }
}

impl StoredPrincipal {
    /// The specification, if the role is known to this version.
    #[must_use]
    pub fn spec(&self, place: Option<&StoredPlace>) -> Option<PrincipalSpec> {
        Some(PrincipalSpec {
            name: self.name.clone(),
            role: Role::from_number(self.role)?,
            tenant: TenantId(self.tenant),
            merchant: MerchantId(self.merchant),
            key: self.key,
            certificate: CertificateNote { serial: self.serial, expires_ms: self.expires_ms },
            products: self.products.iter().copied().map(ProductId).collect(),
            misses_per_minute: self.misses_per_minute,
            store: place.map_or(0, |place| place.store),
            classes: place.map_or(0, |place| place.classes),
        })
    }
}
