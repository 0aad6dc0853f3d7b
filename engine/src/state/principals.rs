//! Principals as the sequencer has them: what each may touch, asked under the lock.
//!
//! # Invariants
//! * What a revoked principal sent is not decided behind its revocation: its place in the log is the end of what it did.
//! * Whom no list here knows, the engine itself and principals of whoever embeds it, may touch everything: whoever embeds
//!   the engine answers for them.

use kami_wal::Lsn;

use super::{ProductState, State};
use crate::identity::{Caller, Principal, PrincipalId, PrincipalSpec, ProductId, Renewal, TerminalId};
use crate::pins::PinKey;
use crate::record::{Stored, StoredPlace, StoredPrincipal};
use crate::word::CardRef;

/// A principal.
pub struct PrincipalState {
    /// The principal.
    pub principal: Principal,
    /// Its last entry.
    pub lsn: Lsn,
}

/// What a principal may touch, and where it stands.
#[derive(Clone, Copy, Default)]
pub struct Scope<'a> {
    /// The products; an empty list is all. They never change.
    products: &'a [ProductId],
    /// The classes of products that its commands about cards may be about; none is all. A product's class may
    /// change.
    classes: u64,
    store: u32,
}

impl<'a> Scope<'a> {
    /// The products, none for all.
    #[must_use]
    pub fn products(self) -> &'a [ProductId] {
        self.products
    }

    /// Whether the product is among them.
    #[inline]
    #[must_use]
    pub fn covers(self, product: ProductId) -> bool {
        self.products.is_empty() || self.products.contains(&product)
    }

    /// Whether commands about cards of the product are denied for its class or, if they `use` the card, for the
    /// merchant or the store. Almost no product and no principal is bound, which costs two comparisons.
    #[inline]
    #[must_use]
    pub fn denies(self, product: &ProductState, caller: &Caller, uses: bool) -> bool {
        (self.classes != 0 || product.is_bound)
            && (self.classes != 0 && self.classes >> (product.product.spec.terms.class & 63) & 1 == 0
                || uses && !product.admits(caller, self.store))
    }

    /// Whether it is all products.
    #[must_use]
    pub fn is_all(self) -> bool {
        self.products.is_empty()
    }

    /// Whether it is all products and all classes.
    #[must_use]
    pub fn is_boundless(self) -> bool {
        self.products.is_empty() && self.classes == 0
    }
}

impl State {
    /// What a principal may touch. The engine itself and principals of whoever embeds it, which no list
    /// here knows, may touch everything; a revoked one nothing, which is what `None` says.
    #[inline]
    #[must_use]
    pub fn scope(&self, id: PrincipalId) -> Option<Scope<'_>> {
        match self.principals.get((id.0 as usize).wrapping_sub(1)) {
            None => Some(Scope::default()),
            Some(state) if state.principal.revoked => None,
            Some(state) => {
                let PrincipalSpec { products, classes, store, .. } = &state.principal.spec;
                Some(Scope { products, classes: *classes, store: *store })
            }
        }
    }

    /// Adds a principal, or puts a renewed one in its place.
    pub fn put_principal(&mut self, principal: Principal, lsn: Lsn) {
        let (index, key, id) = (principal.id.0 as usize - 1, principal.spec.key, principal.id);
        if let Some(state) = self.principals.get_mut(index) {
            self.principal_keys.remove(&state.principal.spec.key);
            *state = PrincipalState { principal, lsn };
        } else {
            self.principals.push(PrincipalState { principal, lsn });
        }
        self.principal_keys.insert(key, id);
    }

    /// The tail of the entry that records a renewal; empty if there is no such principal.
    pub fn renewed_tail(&self, renewal: Renewal) -> Vec<u8> {
        let known = self.principals.get((renewal.principal.0 as usize).wrapping_sub(1));
        let renewed = known.map(|state| renewal.applied_to(&state.principal.spec));
        renewed.map_or_else(Vec::new, |spec| {
            StoredPrincipal::from(&spec).entry_tail_with(StoredPlace::of(&spec).as_ref())
        })
    }

    /// Whose tries of a card's PIN are counted together: a principal's of the store, or a till's of another, for whom
    /// whoever embeds the engine answers.
    #[must_use]
    pub fn pin_key(&self, card: CardRef, principal: PrincipalId, terminal: TerminalId) -> PinKey {
        let known = (principal.0 as usize).wrapping_sub(1) < self.principals.len();
        (card.to_bits(), principal, if known { TerminalId(0) } else { terminal })
    }

    pub(super) fn principal_lsn(&self, id: PrincipalId) -> Option<Lsn> {
        self.principals.get((id.0 as usize).checked_sub(1)?).map(|state| state.lsn)
    }
}
