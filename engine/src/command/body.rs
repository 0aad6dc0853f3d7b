//! What of a command stands in the log beside its head: its checksum, and the object that it adds or changes.
//!
//! # Invariants
//! * With target, kind and caller it tells whether two requests under one id are one. It is in every entry, so what goes
//!   into it never changes, and what is added later does not move that of requests that do not have it.

use super::Command;
use crate::accounts::StoredAccount;
use crate::control::{self, StoredControl};
use crate::exceptions::StoredNote;
use crate::identity::TenantId;
use crate::limits::StoredLimit;
use crate::record::{self, Stored};
use crate::tenants::StoredTenant;

impl Command {
    /// A checksum of what is asked, by which a retry is told from another request with the same id.
    pub(crate) fn body(&self) -> u32 {
        let mut bytes = [0; 32];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        match self {
            // A redemption that was made offline is the one that may have arrived before under its id.
            Command::Advice(advice) => put(0, &advice.amount.to_le_bytes()),
            Command::Redeem { amount, partial, .. } => {
                put(0, &amount.to_le_bytes());
                put(8, &[u8::from(*partial)]);
            }
            Command::Hold { amount, partial, seconds, .. } => {
                put(0, &amount.to_le_bytes());
                put(8, &[u8::from(*partial)]);
                put(12, &seconds.to_le_bytes());
            }
            Command::Capture { hold, amount, .. } => {
                put(0, &hold.0.to_le_bytes());
                put(16, &amount.to_le_bytes());
            }
            Command::Release { hold, .. } => put(0, &hold.0.to_le_bytes()),
            Command::Load { amount, .. } => put(0, &amount.to_le_bytes()),
            Command::RefundValue { original, amount, .. } => {
                put(0, &original.0.to_le_bytes());
                put(16, &amount.to_le_bytes());
            }
            Command::Reverse { original, .. } => put(0, &original.0.to_le_bytes()),
            Command::Sell { product, count, validity_s_min, .. } => {
                put(0, &product.0.to_le_bytes());
                put(4, &count.to_le_bytes());
                put(8, &validity_s_min.to_le_bytes());
            }
            Command::BatchExtend { expires_ms, .. } | Command::Extend { expires_ms, .. } => {
                put(0, &expires_ms.to_le_bytes());
            }
            Command::Restock { reference, .. } => put(0, &reference.0.to_le_bytes()),
            Command::Replace(pair) => {
                put(0, &pair.with.map_or(0, |with| with.0).to_le_bytes());
                put(16, &[u8::from(pair.with.is_some())]);
            }
            Command::Transfer(pair) => {
                put(0, &pair.to.0.to_le_bytes());
                put(16, &pair.amount.to_le_bytes());
            }
            Command::BatchRows { from, rows, .. } => {
                put(0, &from.to_le_bytes());
                put(8, &rows.to_le_bytes());
                put(16, &[1]);
            }
            Command::SellLines(purchase) | Command::Reserve(purchase) => return purchase.body(),
            Command::Confirm(confirmation) => return confirmation.body(),
            Command::Return(given) => return given.body(),
            Command::ProductAdd(spec) | Command::ProductSet(spec) => {
                let known = crc32c::crc32c(&record::StoredProduct::from((&**spec, TenantId(0))).encode());
                let terms = record::StoredTerms::of(&spec.terms);
                return terms.map_or(known, |terms| crc32c::crc32c_append(known, &terms.encode()));
            }
            Command::PrincipalAdd(spec) => {
                let known = crc32c::crc32c(&record::StoredPrincipal::from(&**spec).encode());
                let place = record::StoredPlace::of(spec);
                return place.map_or(known, |place| crc32c::crc32c_append(known, &place.encode()));
            }
            Command::AccountPut(put) => {
                let known = crc32c::crc32c(&StoredAccount::of(&put.spec, TenantId(0)).encode());
                return crc32c::crc32c_append(known, &[u8::from(put.new)]);
            }
            Command::TenantPut(spec) => return crc32c::crc32c(spec.name.as_bytes()),
            Command::TenantControl { tenant, control } => {
                put(0, &control.reveal_cards.to_le_bytes());
                put(4, &control.lapse_s.to_le_bytes());
                put(8, &[1, u8::from(control.on)]);
                put(12, &tenant.0.to_le_bytes());
            }
            Command::Export { batch, count } => {
                put(0, &batch.0.to_le_bytes());
                put(4, &count.to_le_bytes());
            }
            Command::Propose(command) => return control::body(command),
            Command::Approve(id) | Command::ProposalWithdraw(id) => put(0, &id.0.to_le_bytes()),
            Command::LimitPut(spec) => {
                return crc32c::crc32c(&StoredLimit::of(spec, TenantId(0)).encode());
            }
            Command::Post(posting) => {
                let legs = posting.legs.iter().fold(0, |sum, leg| {
                    let sum = crc32c::crc32c_append(sum, &leg.account.0.to_le_bytes());
                    crc32c::crc32c_append(sum, &leg.amount.to_le_bytes())
                });
                return crc32c::crc32c_append(legs, posting.note.as_bytes());
            }
            Command::ExceptionResolve(given) => return crc32c::crc32c(given.note.as_bytes()),
            Command::PrincipalRenew(renewal) => {
                let note = renewal.certificate;
                let parts = [&renewal.key[..], &note.serial.to_le_bytes(), &note.expires_ms.to_le_bytes()];
                return crc32c::crc32c(&parts.concat());
            }
            _ => {}
        }
        crc32c::crc32c(&bytes)
    }

    /// The encoded object of a command that adds or changes one.
    pub(crate) fn object_tail(&self, tenant: TenantId) -> Vec<u8> {
        match self {
            Command::ProductAdd(spec) | Command::ProductSet(spec) => {
                let terms = record::StoredTerms::of(&spec.terms);
                record::StoredProduct::from((&**spec, tenant)).entry_tail_with(terms.as_ref())
            }
            Command::PrincipalAdd(spec) => {
                let place = record::StoredPlace::of(spec);
                record::StoredPrincipal::from(&**spec).entry_tail_with(place.as_ref())
            }
            Command::AccountPut(put) => StoredAccount::of(&put.spec, tenant).entry_tail(),
            Command::LimitPut(spec) => StoredLimit::of(spec, tenant).entry_tail(),
            Command::ExceptionResolve(given) => StoredNote { note: given.note.clone() }.entry_tail(),
            Command::TenantPut(spec) => StoredTenant { name: spec.name.clone() }.entry_tail(),
            Command::TenantControl { control, .. } => StoredControl::of(*control).entry_tail(),
            _ => Vec::new(),
        }
    }
}
