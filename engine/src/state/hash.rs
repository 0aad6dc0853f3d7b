//! The state as one hash, by which two states are the same to the bit: of a replay and a snapshot, of a store and its
//! backup, of an engine before and after a crash.
//!
//! # Invariants
//! * What decisions rest on is in it, in an order that does not depend on how it came there; but for since when rows are
//!   active, which a snapshot of the first version does not know.
//! * What follows from the rest (counters, cursors, what is held) is not.

use super::State;
use crate::sharded::SHARDS;
use crate::table::Table;
use crate::word::Word;

impl State {
    /// BLAKE3 of the state in a canonical form: products, principals, batches with all their words, orders in
    /// order of id, accounts, documents, limits and what counted against them when something last did.
    #[must_use]
    pub fn hash(&self, table: &Table) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        for product in &self.products {
            hasher.update(format!("{:?} {:?} {}\n", product.product, product.tenant, product.lsn).as_bytes());
        }
        for principal in &self.principals {
            hasher.update(format!("{:?} {}\n", principal.principal, principal.lsn).as_bytes());
        }
        for (tenant, lsn) in self.order_heads() {
            hasher.update(format!("orders of {tenant} {lsn}\n").as_bytes());
        }
        let mut bytes = Vec::new();
        for batch in table.batches() {
            let stock = self.stock(batch.id);
            let flags = (batch.is_frozen(), batch.is_voided(), batch.extended_ms());
            hasher.update(format!("{} {} {flags:?} {:?}\n", batch.id, stock.lsn, batch.validity).as_bytes());
            // Not since when: a snapshot of the first version does not know.
            let mut before = None;
            for (from, since_ms) in stock.activity().pieces() {
                if before.replace(since_ms.is_some()) != Some(since_ms.is_some()) {
                    hasher.update(format!("{from} {}\n", since_ms.is_some()).as_bytes());
                }
            }
            for (row, counted) in stock.shared().into_iter().flat_map(|shared| shared.rows(0)) {
                hasher.update(format!("{row} {counted:?}\n").as_bytes());
            }
            for (row, end_ms) in stock.ends(0) {
                hasher.update(format!("{row} {end_ms}\n").as_bytes());
            }
            hasher.update(&batch.file_hash);
            for row in 0..batch.rows() {
                let word: Word = batch.word(row);
                bytes.extend_from_slice(&word.bits().to_le_bytes());
                if bytes.len() >= 1 << 16 || row + 1 == batch.rows() {
                    hasher.update(&bytes);
                    bytes.clear();
                }
            }
        }
        let mut orders: Vec<_> = (0..SHARDS).flat_map(|shard| self.orders.of_shard(shard)).collect();
        orders.sort_unstable();
        for ((tenant, order), word) in orders {
            hasher.update(&tenant.0.to_le_bytes());
            hasher.update(&order.0.to_le_bytes());
            hasher.update(&word.bits().to_le_bytes());
        }
        for (key, hold) in self.holds.after(None) {
            hasher.update(format!("{key:?} {hold:?}\n").as_bytes());
        }
        for state in self.exceptions.iter() {
            hasher.update(format!("{state:?} {:032x}\n", state.digest.0).as_bytes());
        }
        for lock in self.pins.after(None) {
            hasher.update(format!("{lock:?}\n").as_bytes());
        }
        for (key, reservation) in self.orders.reservations(None) {
            hasher.update(format!("{key:?} {reservation:?}\n").as_bytes());
        }
        self.tenants.hash(&mut hasher);
        self.proposals.hash(&mut hasher);
        self.accounts.hash(&mut hasher);
        let mut documents: Vec<_> = self.documents.iter().collect();
        documents.sort_unstable();
        for ((tenant, document), lsn) in documents {
            hasher.update(format!("{tenant} {document} {lsn}\n").as_bytes());
        }
        self.limits.hash(&mut hasher);
        *hasher.finalize().as_bytes()
    }
}
