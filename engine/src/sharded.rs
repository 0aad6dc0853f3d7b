//! A map in pieces, so that a checkpoint can copy it while the sequencer goes on: one piece is copied under
//! one short hold of the lock.
//!
//! A key stays in its piece for as long as the process lives, so a copy made in pieces has every entry that
//! was there all the time, once. The hash is keyed: clients choose some of the keys, and nobody can make
//! them collide.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};

/// How many pieces there are: enough that a piece of ten million entries has some hundreds, which take a few
/// microseconds to copy.
pub const SHARDS: usize = 1 << 14;

/// A map in [`SHARDS`] pieces.
pub struct Sharded<K, V> {
    hasher: RandomState,
    shards: Box<[HashMap<K, V>]>,
    count: u64,
}

impl<K, V> Default for Sharded<K, V> {
    fn default() -> Self {
        let shards = (0..SHARDS).map(|_| HashMap::new()).collect();
        Sharded { hasher: RandomState::new(), shards, count: 0 }
    }
}

impl<K: Eq + Hash, V> Sharded<K, V> {
    fn shard(&self, key: &K) -> usize {
        self.hasher.hash_one(key) as usize % SHARDS
    }

    /// What stands under the key.
    #[must_use]
    pub fn get(&self, key: &K) -> Option<&V> {
        self.shards[self.shard(key)].get(key)
    }

    /// See [`Sharded::get`].
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let shard = self.shard(key);
        self.shards[shard].get_mut(key)
    }

    /// Puts a value under the key, in place of what stood there.
    pub fn insert(&mut self, key: K, value: V) {
        let shard = self.shard(&key);
        self.count += u64::from(self.shards[shard].insert(key, value).is_none());
    }

    /// Takes the key out.
    pub fn remove(&mut self, key: &K) {
        let shard = self.shard(key);
        self.count -= u64::from(self.shards[shard].remove(key).is_some());
    }

    /// How many keys there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// What one of the [`SHARDS`] holds, in no order.
    pub fn of_shard(&self, shard: usize) -> impl Iterator<Item = (&K, &V)> + '_ {
        self.shards[shard].iter()
    }

    /// All of it, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> + '_ {
        self.shards.iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A checkpoint copies at least one piece under the lock, so a piece must stay small.
    #[test]
    fn a_piece_of_a_million_is_short() {
        let mut map = Sharded::default();
        for key in 0..1_000_000 {
            map.insert(key, ());
        }
        let longest = (0..SHARDS).map(|shard| map.of_shard(shard).count()).max();
        assert!(longest < Some(150), "{longest:?}");
    }
}
