//! Snapshots, recovery from them, and verification: what is damaged is named, what is whole is believed.

use std::convert::Infallible;
use std::sync::Arc;

use kami_engine::record::{GROUP_HEAD_BYTES, Group, GroupWriter, HEAD_BYTES, Head, Kind};
use kami_engine::{Caller, Flags, OrderId, ProductId, RequestId, Session, Word, verify};
use kami_wal::{Drive, Medium, RECORD_HEAD_BYTES, RecordKind, SimMedium, Wal, WalOptions};

use crate::upkeep::store::{open, store};

fn problems(data: &SimMedium, keys: &SimMedium) -> Vec<String> {
    verify(Arc::new(data.clone()), Arc::new(keys.clone())).unwrap().problems
}

#[track_caller]
fn named(data: &SimMedium, keys: &SimMedium, what: &str) {
    let problems = problems(data, keys);
    assert!(problems.iter().any(|problem| problem.contains(what)), "{what} is not named: {problems:?}");
}

#[test]
fn memory_snapshot_and_log_agree() {
    let (data, keys, hash) = store();
    let verification = verify(Arc::new(data.clone()), Arc::new(keys.clone())).unwrap();
    assert_eq!(verification.problems, Vec::<String>::new());
    assert_eq!(verification.state_hash, hash);
    assert_eq!((verification.cards, verification.orders, verification.snapshots), (1000, 2, 1));

    let engine = open(&data, &keys);
    assert_eq!(engine.state_hash(), hash);
    engine.check().unwrap();
    // A second and a third snapshot: two are kept, and the newest is used.
    for _ in 0..3 {
        engine.checkpoint().unwrap();
        let session = Session::new(&engine, Caller::LOCAL);
        session.sell(RequestId::random(), OrderId(RequestId::random().0), ProductId(1), 10).wait().unwrap();
    }
    let hash = engine.state_hash();
    drop(engine);
    assert_eq!(data.list("snapshots").unwrap().len(), 2);
    assert_eq!(open(&data, &keys).state_hash(), hash);
}

#[test]
fn a_damaged_snapshot_is_named_and_passed_over() {
    let (data, keys, hash) = store();
    let name = format!("snapshots/{}", data.list("snapshots").unwrap()[0]);
    for at in [20, 70, 4100, 4096 + 3000] {
        let data = data.kill();
        data.edit(&name, |bytes| bytes[at] ^= 1);
        named(&data, &keys, &name);
        assert_eq!(open(&data, &keys).state_hash(), hash, "the log alone gives the same state");
    }
}

#[test]
fn a_damaged_batch_file_is_named() {
    let (data, keys, _) = store();
    for at in [10, 4096 + 5, 4096 + 500 * 16 + 7] {
        let data = data.kill();
        data.edit("batches/00000001.batch", |bytes| bytes[at] ^= 1);
        let problems = problems(&data, &keys);
        let named = problems.iter().any(|problem| problem.contains("batch"));
        assert!(named, "byte {at}: {problems:?}");
    }
}

#[test]
fn a_damaged_log_is_named() {
    let (data, keys, _) = store();
    let name = data.list("log").unwrap().into_iter().min().unwrap();
    let data = data.kill();
    data.edit(&format!("log/{name}"), |bytes| bytes[20_000] ^= 1);
    named(&data, &keys, &name);
}

#[test]
fn other_keys_are_refused() {
    let (data, _, _) = store();
    let (_, other, _) = store();
    let refused = verify(Arc::new(data), Arc::new(other)).unwrap_err();
    assert!(refused.to_string().contains("not this store's"), "{refused}");
}

/// The last entry of this kind in the log, and the word it gave its card.
fn last(data: &SimMedium, kind: Kind) -> (Head, u64) {
    let mut last = None;
    let options = WalOptions { drive: Drive::Manual, ..WalOptions::default() };
    kami_wal::verify(data, &options, &mut |record| {
        if record.kind == RecordKind::Data {
            for entry in Group::parse(record.payload, record.payload_lsn).unwrap() {
                let entry = entry.unwrap();
                if entry.head.kind == kind {
                    last = Some((entry.head, entry.post().bits()));
                }
            }
        }
    })
    .unwrap();
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
        group.finish(1_800_000_000_000)
    });
    drop(credit);
    wal.close().unwrap();
}

#[test]
fn a_request_id_with_two_effects_on_one_card_is_named() {
    let (data, keys, _) = store();
    // A card that was redeemed and given back is frozen; under a new id, and under that of its redemption.
    let (reverse, word) = last(&data, Kind::Reverse);
    let word = Word::from_bits(word).unwrap();
    for (request, problems_expected) in [(77_777, 0), (1049, 1), (2049, 1)] {
        let data = data.kill();
        let post = Word::state_of(word.lifecycle(), word.flags().with(Flags::FROZEN));
        let prev = word.bits();
        forge(&data, &Head { kind: Kind::Freeze, request: RequestId(request), post, prev, ..reverse });
        let problems = problems(&data, &keys);
        assert_eq!(problems.len(), problems_expected, "{problems:?}");
        assert!(problems.iter().all(|problem| problem.contains("two effects on one card")), "{problems:?}");
    }
}

/// Every further effect is looked for in the card's own past, however long that is.
#[test]
fn a_card_with_a_long_past_is_verified() {
    let (data, keys, _) = store();
    let engine = open(&data, &keys);
    let session = Session::new(&engine, Caller::LOCAL);
    for n in 0..400 {
        let id = RequestId(10_000 + n);
        if n % 2 == 0 {
            session.freeze(id, "CODE-1-000200").wait().unwrap();
        } else {
            session.unfreeze(id, "CODE-1-000200").wait().unwrap();
        }
    }
    engine.close().unwrap();
    assert_eq!(problems(&data, &keys), Vec::<String>::new());
}
