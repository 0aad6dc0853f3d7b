//! A map in pieces, so that a checkpoint can copy it while the sequencer goes on: one piece is copied under
//! one short hold of the lock.
//!
//! A key stays in its piece for as long as the process lives, so a copy made in pieces has every entry that
//! was there all the time, once. The hash is keyed: clients choose some of the keys, and nobody can make
//! them collide.

use std::hash::{BuildHasher, Hash, RandomState};

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

/// How many pieces there are: enough that a piece of ten million entries has some hundreds, which take a few
/// microseconds to copy.
pub const SHARDS: usize = 1 << 14;

/// A map in [`SHARDS`] pieces. A key is hashed once: some bits choose the piece, others its place there.
pub struct Sharded<K, V> {
    hasher: RandomState,
    shards: Box<[HashTable<(K, V)>]>,
    count: u64,
}

impl<K, V> Default for Sharded<K, V> {
    fn default() -> Self {
        let shards = (0..SHARDS).map(|_| HashTable::new()).collect();
        Sharded { hasher: RandomState::new(), shards, count: 0 }
    }
}

impl<K: Eq + Hash, V> Sharded<K, V> {
    /// The key's hash and its piece, by bits that the piece does not use itself.
    fn place(&self, key: &K) -> (u64, usize) {
        let hash = self.hasher.hash_one(key);
        (hash, (hash >> 32) as usize % SHARDS)
    }

    /// What stands under the key.
    #[must_use]
    pub fn get(&self, key: &K) -> Option<&V> {
        let (hash, shard) = self.place(key);
        self.shards[shard].find(hash, |(other, _)| other == key).map(|(_, value)| value)
    }

    /// See [`Sharded::get`].
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let (hash, shard) = self.place(key);
        self.shards[shard].find_mut(hash, |(other, _)| other == key).map(|(_, value)| value)
    }

    /// Puts a value under the key, in place of what stood there.
    pub fn insert(&mut self, key: K, value: V) {
        self.merge(key, value, |known, value| *known = value);
    }

    /// Puts a value under the key; `merge` says what becomes of one that stood there.
    pub fn merge(&mut self, key: K, value: V, merge: impl FnOnce(&mut V, V)) {
        let (hash, shard) = self.place(&key);
        let hasher = &self.hasher;
        let found =
            self.shards[shard].entry(hash, |(other, _)| *other == key, |(key, _)| hasher.hash_one(key));
        match found {
            Entry::Occupied(mut known) => merge(&mut known.get_mut().1, value),
            Entry::Vacant(place) => {
                place.insert((key, value));
                self.count += 1;
            }
        }
    }

    /// Takes the key out.
    pub fn remove(&mut self, key: &K) {
        let (hash, shard) = self.place(key);
        if let Ok(found) = self.shards[shard].find_entry(hash, |(other, _)| other == key) {
            found.remove();
            self.count -= 1;
        }
    }

    /// How many keys there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// What one of the [`SHARDS`] holds, in no order.
    pub fn of_shard(&self, shard: usize) -> impl Iterator<Item = (&K, &V)> + '_ {
        self.shards[shard].iter().map(|(key, value)| (key, value))
    }

    /// All of it, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> + '_ {
        self.shards.iter().flatten().map(|(key, value)| (key, value))
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
