//! Orders: which order ids exist, and where their sale stands in the log. All else is read from there.
//!
//! The map is split into shards so that a checkpoint can copy it piece by piece while the sequencer
//! goes on: one shard is copied under one short hold of the lock. Orders are never removed, so a copy
//! made in pieces lacks at most orders whose SELL is replayed anyway.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use kami_wal::Lsn;

use crate::identity::{OrderId, TenantId};

/// An order id within its tenant.
pub type OrderKey = (TenantId, OrderId);

/// How many pieces a checkpoint copies the map in: enough that a piece of ten million orders has some hundreds, which
/// take a few microseconds.
pub const SHARDS: usize = 1 << 14;

/// The orders.
pub struct Orders {
    // Clients choose order ids, so the hash is keyed: nobody can make them collide.
    hasher: RandomState,
    shards: Box<[HashMap<OrderKey, Lsn>]>,
    count: u64,
}

impl Default for Orders {
    fn default() -> Self {
        let shards = (0..SHARDS).map(|_| HashMap::new()).collect();
        Orders { hasher: RandomState::new(), shards, count: 0 }
    }
}

impl Orders {
    fn shard(&self, key: &OrderKey) -> usize {
        self.hasher.hash_one(key) as usize % SHARDS
    }

    /// Where the order's SELL stands.
    #[must_use]
    pub fn find(&self, key: &OrderKey) -> Option<Lsn> {
        self.shards[self.shard(key)].get(key).copied()
    }

    /// Adds an order.
    pub fn insert(&mut self, key: OrderKey, lsn: Lsn) {
        let shard = self.shard(&key);
        self.count += u64::from(self.shards[shard].insert(key, lsn).is_none());
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The orders of one of the [`SHARDS`].
    pub fn of_shard(&self, shard: usize) -> impl Iterator<Item = (OrderKey, Lsn)> + '_ {
        self.shards[shard].iter().map(|(key, lsn)| (*key, *lsn))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A checkpoint copies at least one shard under the lock, so a shard must stay small.
    #[test]
    fn a_shard_of_a_million_orders_is_short() {
        let mut orders = Orders::default();
        let lsn = Lsn::from_bytes(1 << 20).unwrap();
        for order in 0..1_000_000 {
            orders.insert((TenantId(0), OrderId(order)), lsn);
        }
        let longest = (0..SHARDS).map(|shard| orders.of_shard(shard).count()).max();
        assert!(longest < Some(150), "{longest:?}");
    }
}
