//! Snapshots, recovery from them, and verification: what is damaged is named, what is whole is believed.

use std::convert::Infallible;
use std::sync::Arc;

use kami_engine::record::{GROUP_HEAD_BYTES, GroupWriter, HEAD_BYTES, Head, Kind};
use kami_engine::{Flags, ProductId, RequestId, Word, verify};
use kami_wal::{Drive, Medium, RECORD_HEAD_BYTES, SimMedium, Wal, WalOptions};

use crate::store::{BEGUN_MS, End, Store};
use crate::upkeep::traded;

#[track_caller]
fn named(store: &Store, what: &str) {
    let problems = store.verify().problems;
    assert!(problems.iter().any(|problem| problem.contains(what)), "{what} is not named: {problems:?}");
}

#[test]
fn memory_snapshot_and_log_agree() {
    let (mut store, hash) = traded();
    let verification = store.verify();
    assert_eq!(verification.problems, Vec::<String>::new());
    assert_eq!(verification.state_hash, hash);
    assert_eq!((verification.cards, verification.orders, verification.snapshots), (1000, 2, 1));

    store.open();
    assert_eq!(store.engine().state_hash(), hash);
    // A second and a third snapshot: two are kept, and the newest is used.
    for _ in 0..3 {
        store.engine().checkpoint().unwrap();
        store.sell(ProductId(1), 10);
    }
    store.restart(End::Kill);
    assert_eq!(store.data.list("snapshots").unwrap().len(), 2);
}

#[test]
fn a_damaged_snapshot_is_named_and_passed_over() {
    let (store, hash) = traded();
    let name = format!("snapshots/{}", store.data.list("snapshots").unwrap()[0]);
    for at in [20, 70, 4100, 4096 + 3000] {
        let mut store = store.copy();
        store.data.edit(&name, |bytes| bytes[at] ^= 1);
        named(&store, &name);
        store.open();
        assert_eq!(store.engine().state_hash(), hash, "the log alone gives the same state");
    }
}

#[test]
fn a_damaged_batch_file_is_named() {
    let (store, _) = traded();
    for at in [10, 4096 + 5, 4096 + 500 * 16 + 7] {
        let store = store.copy();
        store.data.edit("batches/00000001.batch", |bytes| bytes[at] ^= 1);
        named(&store, "batch");
    }
}

#[test]
fn a_damaged_log_is_named() {
    let (store, _) = traded();
    let name = store.data.list("log").unwrap().into_iter().min().unwrap();
    store.data.edit(&format!("log/{name}"), |bytes| bytes[20_000] ^= 1);
    named(&store, &name);
}

#[test]
fn other_keys_are_refused() {
    let (store, _) = traded();
    let (other, _) = traded();
    let refused = verify(Arc::new(store.data), Arc::new(other.keys)).unwrap_err();
    assert!(refused.to_string().contains("not this store's"), "{refused}");
}

/// The last entry of this kind in the log, and the word it gave its card.
fn last(store: &Store, kind: Kind) -> (Head, u64) {
    let mut last = None;
    store.entries(|_, entry| {
        if entry.head.kind == kind {
            last = Some((entry.head, entry.post().bits()));
        }
    });
    last.expect("there is one")
}

/// Appends an entry that no engine would write.
fn forge(data: &SimMedium, head: &Head) {
    let medium: Arc<dyn Medium> = Arc::new(data.clone());
    let options = WalOptions { drive: Drive::Manual, ..WalOptions::default() };
    let wal = Wal::open(medium, options, None, &mut |_| Ok::<_, Infallible>(())).unwrap();
    let bytes = GROUP_HEAD_BYTES + HEAD_BYTES;
    let mut credit = wal.reserve(bytes).unwrap();
    wal.append(&mut credit, bytes, |payload, lsn| {
        let mut group = GroupWriter::new(payload, lsn, RECORD_HEAD_BYTES as usize);
        group.push(head, 0, |_| ());
        group.finish(BEGUN_MS)
    });
    drop(credit);
    wal.close().unwrap();
}

#[test]
fn a_request_id_with_two_effects_on_one_card_is_named() {
    let (store, _) = traded();
    // A card that was redeemed and given back is frozen; under a new id, and under that of its redemption.
    let (reverse, word) = last(&store, Kind::Reverse);
    let word = Word::from_bits(word).unwrap();
    for (request, problems_expected) in [(77_777, 0), (1049, 1), (2049, 1)] {
        let store = store.copy();
        let post = Word::state_of(word.lifecycle(), word.flags().with(Flags::FROZEN));
        let prev = word.bits();
        forge(&store.data, &Head { kind: Kind::Freeze, request: RequestId(request), post, prev, ..reverse });
        let problems = store.verify().problems;
        assert_eq!(problems.len(), problems_expected, "{problems:?}");
        assert!(problems.iter().all(|problem| problem.contains("two effects on one card")), "{problems:?}");
    }
}

/// Every further effect is looked for in the card's own past, however long that is.
#[test]
fn a_card_with_a_long_past_is_verified() {
    let (mut store, _) = traded();
    store.open();
    let session = store.session();
    for n in 0..400 {
        if n % 2 == 0 {
            session.freeze(store.id(), "CODE-1-200").wait().unwrap();
        } else {
            session.unfreeze(store.id(), "CODE-1-200").wait().unwrap();
        }
    }
    drop(session);
    store.restart(End::Close);
}
