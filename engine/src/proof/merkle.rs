//! The Merkle tree of RFC 6962 (and RFC 9162): roots, inclusion and consistency proofs, and how they are checked.
//!
//! A leaf's hash is SHA-256 of a zero byte and the leaf, an inner node's is SHA-256 of a one byte and its two
//! children. A tree of n leaves is split at the largest power of two below n. So a *complete* subtree, one of 2^l
//! leaves that begins at a multiple of 2^l, has the same hash in every larger tree: it can be kept.
//!
//! Proofs are made from complete subtrees alone, which [`Nodes`] hands out. Checking needs nothing but the proof.

use std::convert::Infallible;

use aws_lc_rs::digest::{Context, SHA256};

/// A hash of a leaf, a node or a root.
pub type Hash = [u8; 32];

/// No path is longer: a tree has fewer than 2^64 leaves.
pub const PATH_MAX: usize = 64;

fn sha256(parts: &[&[u8]]) -> Hash {
    let mut context = Context::new(&SHA256);
    parts.iter().for_each(|part| context.update(part));
    context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// The hash of a leaf, which is given in parts.
#[must_use]
pub fn leaf_hash(parts: &[&[u8]]) -> Hash {
    let mut context = Context::new(&SHA256);
    context.update(&[0]);
    parts.iter().for_each(|part| context.update(part));
    context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// The hash of a node with these children.
#[must_use]
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    sha256(&[&[1], left, right])
}

/// Where the complete subtrees of a tree come from.
pub trait Nodes {
    /// Why one cannot be had.
    type Error;

    /// The hash of the complete subtree over the leaves `index << level .. (index + 1) << level`, all of which are
    /// there.
    ///
    /// # Errors
    /// Whatever reading reports.
    fn node(&mut self, level: u32, index: u64) -> Result<Hash, Self::Error>;

    /// The hash over the leaves `from .. to`, where `from` is a multiple of the smallest power of two that is not
    /// below their number, as the ranges of all proofs are.
    ///
    /// # Errors
    /// As [`Nodes::node`].
    fn range(&mut self, from: u64, to: u64) -> Result<Hash, Self::Error> {
        let leaves = to - from;
        if leaves == 0 {
            return Ok(sha256(&[]));
        }
        if leaves.is_power_of_two() {
            let level = leaves.trailing_zeros();
            return self.node(level, from >> level);
        }
        let middle = from + split(leaves);
        let left = self.range(from, middle)?;
        let right = self.range(middle, to)?;
        Ok(node_hash(&left, &right))
    }

    /// The root of the tree of the first `size` leaves.
    ///
    /// # Errors
    /// As [`Nodes::node`].
    fn root(&mut self, size: u64) -> Result<Hash, Self::Error> {
        self.range(0, size)
    }

    /// The path that proves leaf `index` to a tree of `size` leaves, from the leaf up.
    ///
    /// # Errors
    /// As [`Nodes::node`].
    ///
    /// # Panics
    /// If the tree has no such leaf.
    fn inclusion(&mut self, index: u64, size: u64) -> Result<Vec<Hash>, Self::Error> {
        assert!(index < size, "the tree has no such leaf");
        let mut path = Vec::new();
        let (mut from, mut to) = (0, size);
        while to - from > 1 {
            let middle = from + split(to - from);
            if index < middle {
                path.push(self.range(middle, to)?);
                to = middle;
            } else {
                path.push(self.range(from, middle)?);
                from = middle;
            }
        }
        path.reverse();
        Ok(path)
    }

    /// The path that proves that the tree of `old` leaves is the beginning of the one of `size` leaves; empty if they
    /// are equally large.
    ///
    /// # Errors
    /// As [`Nodes::node`].
    ///
    /// # Panics
    /// Unless `1 <= old <= size`.
    fn consistency(&mut self, old: u64, size: u64) -> Result<Vec<Hash>, Self::Error> {
        assert!((1..=size).contains(&old), "the older tree has at least one leaf and at most all");
        let mut path = Vec::new();
        let (mut from, mut to) = (0, size);
        while to != old {
            let middle = from + split(to - from);
            if old <= middle {
                path.push(self.range(middle, to)?);
                to = middle;
            } else {
                path.push(self.range(from, middle)?);
                from = middle;
            }
        }
        if from > 0 {
            path.push(self.range(from, to)?);
        }
        path.reverse();
        Ok(path)
    }
}

/// The largest power of two below `leaves`, which are at least two.
fn split(leaves: u64) -> u64 {
    1 << (63 - (leaves - 1).leading_zeros())
}

/// The hash of leaves all of which are at hand: of a complete subtree, or of a whole small tree.
#[must_use]
pub fn root_of(leaves: &[Hash]) -> Hash {
    struct Slice<'a>(&'a [Hash]);
    impl Nodes for Slice<'_> {
        type Error = Infallible;
        fn node(&mut self, level: u32, index: u64) -> Result<Hash, Infallible> {
            if level == 0 {
                return Ok(self.0[index as usize]);
            }
            let left = self.node(level - 1, 2 * index)?;
            let right = self.node(level - 1, 2 * index + 1)?;
            Ok(node_hash(&left, &right))
        }
    }
    let Ok(root) = Slice(leaves).root(leaves.len() as u64);
    root
}

/// The root that `path` leads to from leaf `index` of a tree of `size` leaves; `None` if a path there has another
/// length.
#[must_use]
pub fn root_by_inclusion(index: u64, size: u64, leaf: Hash, path: &[Hash]) -> Option<Hash> {
    if size <= index {
        return None;
    }
    let (mut node, mut last) = (index, size - 1);
    let mut root = leaf;
    for sibling in path {
        if last == 0 {
            return None;
        }
        if node & 1 == 1 || node == last {
            root = node_hash(sibling, &root);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            root = node_hash(&root, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    (last == 0).then_some(root)
}

/// Whether `path` proves that the tree of `old` leaves with root `old_root` is the beginning of that of `size` leaves
/// with root `root`.
#[must_use]
pub fn is_consistent(old: u64, old_root: &Hash, size: u64, root: &Hash, path: &[Hash]) -> bool {
    if old == 0 || size < old {
        return false;
    }
    if old == size {
        return path.is_empty() && old_root == root;
    }
    // The old tree may be a node of the new one, which then need not be told.
    let mut rest = path.iter();
    let first = if old.is_power_of_two() { Some(old_root) } else { rest.next() };
    let Some(first) = first else { return false };
    let (mut node, mut last) = (old - 1, size - 1);
    while node & 1 == 1 {
        node >>= 1;
        last >>= 1;
    }
    let (mut of_old, mut of_new) = (*first, *first);
    for sibling in rest {
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            of_old = node_hash(sibling, &of_old);
            of_new = node_hash(sibling, &of_new);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            of_new = node_hash(&of_new, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    last == 0 && of_old == *old_root && of_new == *root
}

/// The right edge of a tree that grows leaf by leaf: its root at any moment, without the leaves.
#[derive(Clone, Default)]
pub struct Frontier {
    size: u64,
    /// The complete subtrees that the size is the sum of, largest first.
    nodes: Vec<Hash>,
}

impl Frontier {
    /// How many leaves it has.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Adds a leaf.
    pub fn push(&mut self, leaf: Hash) {
        let mut node = leaf;
        for _ in 0..self.size.trailing_ones() {
            let left = self.nodes.pop().expect("one for each bit of the size");
            node = node_hash(&left, &node);
        }
        self.nodes.push(node);
        self.size += 1;
    }

    /// The root.
    #[must_use]
    pub fn root(&self) -> Hash {
        let mut nodes = self.nodes.iter().rev().copied();
        let Some(last) = nodes.next() else { return sha256(&[]) };
        nodes.fold(last, |right, left| node_hash(&left, &right))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves(count: u64) -> Vec<Hash> {
        (0..count).map(|number| leaf_hash(&[&number.to_le_bytes()])).collect()
    }

    /// All leaves in memory.
    struct All(Vec<Hash>);

    impl Nodes for All {
        type Error = Infallible;
        fn node(&mut self, level: u32, index: u64) -> Result<Hash, Infallible> {
            let (from, to) = ((index << level) as usize, ((index + 1) << level) as usize);
            Ok(definition(&self.0[from..to]))
        }
    }

    /// The tree hash as RFC 6962 section 2.1 defines it.
    fn definition(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => sha256(&[]),
            [leaf] => *leaf,
            leaves => {
                let mut middle = 1;
                while 2 * middle < leaves.len() {
                    middle *= 2;
                }
                node_hash(&definition(&leaves[..middle]), &definition(&leaves[middle..]))
            }
        }
    }

    fn hex(hash: &Hash) -> String {
        hash.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The tree that the tests of Certificate Transparency use everywhere.
    #[test]
    fn the_roots_are_those_of_certificate_transparency() {
        let inputs: [&[u8]; 8] = [
            b"",
            b"\x00",
            b"\x10",
            b"\x20\x21",
            b"\x30\x31",
            b"\x40\x41\x42\x43",
            b"\x50\x51\x52\x53\x54\x55\x56\x57",
            b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
        ];
        let leaves: Vec<Hash> = inputs.iter().map(|input| leaf_hash(&[input])).collect();
        for (size, root) in [
            (0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
            (1, "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"),
            (2, "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"),
            (3, "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77"),
            (8, "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"),
        ] {
            assert_eq!(hex(&root_of(&leaves[..size])), root);
        }
    }

    #[test]
    fn every_leaf_of_every_small_tree_is_proven_and_nothing_else_is() {
        let all = leaves(70);
        let mut frontier = Frontier::default();
        for size in 1..=all.len() as u64 {
            frontier.push(all[size as usize - 1]);
            let mut nodes = All(all.clone());
            let Ok(root) = nodes.root(size);
            assert_eq!(root, definition(&all[..size as usize]));
            assert_eq!((frontier.size(), frontier.root()), (size, root));
            for index in 0..size {
                let Ok(path) = nodes.inclusion(index, size);
                let leaf = all[index as usize];
                assert_eq!(root_by_inclusion(index, size, leaf, &path), Some(root), "{index} of {size}");
                for other in (0..size).filter(|other| *other != index) {
                    assert_ne!(root_by_inclusion(other, size, leaf, &path), Some(root));
                }
                let longer = [&path[..], &[root]].concat();
                assert_ne!(root_by_inclusion(index, size, leaf, &longer), Some(root));
                if let Some((_, shorter)) = path.split_last() {
                    assert_ne!(root_by_inclusion(index, size, leaf, shorter), Some(root));
                }
            }
            assert_eq!(root_by_inclusion(size, size, all[0], &[]), None);
        }
    }

    #[test]
    fn every_two_sizes_are_proven_consistent_and_a_fork_is_not() {
        let all = leaves(40);
        for size in 1..=all.len() as u64 {
            let mut nodes = All(all.clone());
            let Ok(root) = nodes.root(size);
            for old in 1..=size {
                let Ok(old_root) = nodes.root(old);
                let Ok(path) = nodes.consistency(old, size);
                assert!(is_consistent(old, &old_root, size, &root, &path), "{old} in {size}");
                let forked = {
                    let mut other = all.clone();
                    other[old as usize - 1][0] ^= 1;
                    definition(&other[..old as usize])
                };
                assert!(!is_consistent(old, &forked, size, &root, &path));
                for at in 0..path.len() {
                    let mut wrong = path.clone();
                    wrong[at][31] ^= 1;
                    assert!(!is_consistent(old, &old_root, size, &root, &wrong));
                }
                assert!(!is_consistent(old, &old_root, size, &root, &[&path[..], &[root]].concat()));
                assert!(!is_consistent(0, &old_root, size, &root, &path));
                assert!(!is_consistent(size + 1, &old_root, size, &root, &path));
            }
        }
    }
}
