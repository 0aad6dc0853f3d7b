//! Who may have an import staged: a place and a batch number for each, in bounds for all and for one principal.
//!
//! # Invariants
//! * The list is never locked over the disk: an import has its place in it before its key and file, and has lost it before
//!   they are removed.
//! * Nobody can take all places: one principal has its own few, of which one that it does not go on with gives way.
//! * What somebody works on right now is never given up.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Import, Imports, Key, Remains, committed};
use crate::identity::{BatchId, Caller, PrincipalId};
use crate::sequencer::Sequencer;
use crate::word::CardRef;

/// Imports that may be staged at the same time, by all and by one principal.
const STAGED_MAX: usize = 64;
const STAGED_OF_ONE_MAX: usize = 8;
/// One that nobody touched for so long is given up.
const ABANDONED_MS: u64 = 24 * 3600 * 1000;
/// One that nobody touched for so long makes room for another of the same principal, if it has too many.
const GIVES_WAY_MS: u64 = 10 * 60 * 1000;

/// The imports that are staged or begin, by name.
pub(super) struct Staging {
    pub(super) imports: HashMap<Key, Arc<Import>>,
    /// Those whose key and file are on their way to the disk, and whose they are.
    pub(super) beginning: HashMap<Key, PrincipalId>,
    pub(super) next_batch: BatchId,
}

/// Whether an import may begin.
pub(super) enum Place {
    /// As this batch.
    Taken(BatchId),
    /// It has begun, or was committed.
    There,
    /// There is none now.
    None,
}

impl Staging {
    /// Nothing is staged; the next batch gets the number `next_batch`.
    pub(super) fn new(next_batch: BatchId) -> Staging {
        Staging { imports: HashMap::new(), beginning: HashMap::new(), next_batch }
    }

    /// Takes out the imports that nobody goes on with; how many.
    pub(super) fn give_up_idle(&mut self, now_ms: u64, remains: &mut Vec<Remains>) -> usize {
        let before = self.imports.len();
        self.imports.retain(|_, import| import.idle_ms(now_ms) <= ABANDONED_MS || !import.give_up(remains));
        before - self.imports.len()
    }

    /// Whether a principal may begin one more; one of its own that it does not go on with gives way.
    fn has_room(&mut self, caller: Caller, now_ms: u64, remains: &mut Vec<Remains>) -> bool {
        let own = || self.imports.iter().filter(|(_, import)| import.caller.principal == caller.principal);
        let beginning = self.beginning.values().filter(|principal| **principal == caller.principal).count();
        if own().count() + beginning < STAGED_OF_ONE_MAX {
            return true;
        }
        let idle = own().filter(|(_, import)| import.idle_ms(now_ms) > GIVES_WAY_MS);
        let longest = idle.max_by_key(|(_, import)| import.idle_ms(now_ms));
        let Some((key, import)) = longest.map(|(key, import)| (*key, Arc::clone(import))) else {
            return false;
        };
        let given_up = import.give_up(remains);
        if given_up {
            self.imports.remove(&key);
        }
        given_up
    }
}

impl Imports {
    /// A place for one more import, and its batch. What had to give way for it is in `remains`.
    pub(super) fn take_place(
        &self,
        sequencer: &Sequencer,
        key: Key,
        caller: Caller,
        now_ms: u64,
        remains: &mut Vec<Remains>,
    ) -> Place {
        let mut staging = self.staged.lock();
        if staging.imports.contains_key(&key) || committed(sequencer, caller, key.1).is_some() {
            return Place::There;
        }
        staging.give_up_idle(now_ms, remains);
        let full = staging.beginning.contains_key(&key)
            || staging.imports.len() + staging.beginning.len() >= STAGED_MAX
            || !staging.has_room(caller, now_ms, remains);
        if full || staging.next_batch.0 >= CardRef::BATCHES_MAX - 1 {
            return Place::None;
        }
        let batch = staging.next_batch;
        staging.next_batch = BatchId(batch.0 + 1);
        staging.beginning.insert(key, caller.principal);
        Place::Taken(batch)
    }
}
