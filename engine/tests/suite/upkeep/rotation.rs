//! Rotation of the master key as a command: who may, what is told again, what the log says.

use kami_engine::{
    Caller, Command, ImportSpec, KeyRotation, Kind, ProductId, Reply, ReplyBody, ReplyFlags, RequestId, Role,
    Status,
};
use kami_wal::Medium;

use crate::store::{End, Store};
use crate::upkeep::traded;

fn traded_and_open() -> Store {
    let (mut store, _) = traded();
    store.open();
    store
}

fn rotate(store: &Store, caller: Caller, id: u128) -> Reply {
    store.engine().rotate_master(caller, RequestId(id)).unwrap()
}

fn key(reply: &Reply) -> KeyRotation {
    match reply.body {
        ReplyBody::Keys(rotation) => rotation,
        _ => panic!("{reply:?}"),
    }
}

/// Who asked for the rotations that the log tells of, and under which id.
fn recorded(store: &Store) -> Vec<(u32, u128)> {
    let mut found = Vec::new();
    store.entries(|_, entry| {
        if entry.head.kind == Kind::KeyRotate {
            found.push((entry.head.principal.0, entry.head.request.0));
        }
    });
    found
}

#[test]
fn a_request_is_one_rotation_however_many_came_between() {
    let mut store = traded_and_open();
    let other = store.enrol("other", Role::Admin);
    let first = rotate(&store, Caller::LOCAL, 1);
    let second = rotate(&store, Caller::LOCAL, 2);
    assert_ne!(key(&first).key, key(&second).key);
    let again = rotate(&store, Caller::LOCAL, 1);
    assert_eq!((again.flags, again.lsn, again.time_ms), (ReplyFlags::REPLAYED, first.lsn, first.time_ms));
    assert_eq!(key(&again), key(&first));
    // The same id of somebody else is another request.
    let theirs = rotate(&store, other, 1);
    assert_eq!(theirs.flags, ReplyFlags::default());
    assert_ne!(key(&theirs).key, key(&first).key);
    store.end(End::Close);
    assert_eq!(recorded(&store), [(0, 1), (0, 2), (other.principal.0, 1)]);
}

#[test]
fn a_revoked_admin_and_a_scoped_operator_rotate_and_write_nothing() {
    let store = traded_and_open();
    let admin = store.enrol("admin", Role::Admin);
    assert_eq!(store.ask(Command::PrincipalRevoke(admin.principal)).status, Status::Ok);
    let before = store.keys.bytes("master.key");
    let refused = rotate(&store, admin, 1);
    assert_eq!((refused.status, refused.lsn), (Status::Unauthenticated, None));
    assert_eq!(store.keys.bytes("master.key"), before);
    let snapshot = store.engine().checkpoint_reply(admin, RequestId(2)).unwrap();
    assert_eq!(snapshot.status, Status::Unauthenticated);

    let operator = store.enrol_for("operator", Role::Operator, vec![ProductId(1)]);
    assert_eq!(rotate(&store, operator, 3).status, Status::ScopeDenied);
    let snapshot = store.engine().checkpoint_reply(operator, RequestId(4)).unwrap();
    assert_eq!(snapshot.status, Status::ScopeDenied);
    assert_eq!(store.keys.bytes("master.key"), before);
    assert!(store.engine().checkpoint_reply(Caller::LOCAL, RequestId(5)).unwrap().status.is_done());
}

/// A rotation that happened while the log was full is in the log in the end, also if nobody asks for it again.
#[test]
fn a_rotation_that_could_not_be_recorded_is_recorded_by_the_next() {
    let mut store = traded_and_open();
    let session = store.session();
    store.data.set_capacity(Some(0));
    for n in 0.. {
        let frozen = match n % 2 {
            0 => session.freeze(store.id(), "CODE-1-200").wait().is_ok(),
            _ => session.unfreeze(store.id(), "CODE-1-200").wait().is_ok(),
        };
        if !frozen {
            break;
        }
    }
    let before = store.keys.bytes("master.key");
    let refused = rotate(&store, Caller::LOCAL, 1);
    assert!(!refused.status.is_done(), "{refused:?}");
    assert_ne!(store.keys.bytes("master.key"), before, "rotated, and not recorded");
    store.data.set_capacity(None);
    store.drive();
    let second = rotate(&store, Caller::LOCAL, 2);
    assert_eq!(second.status, Status::Ok);
    let first = rotate(&store, Caller::LOCAL, 1);
    assert_eq!((first.status, first.flags), (Status::Ok, ReplyFlags::REPLAYED));
    assert!(first.lsn < second.lsn, "in the order in which they happened");
    store.end(End::Close);
    assert_eq!(recorded(&store), [(0, 1), (0, 2)]);
}

/// A key for an import that did not begin would be wrapped for ever.
#[test]
fn an_import_that_finds_no_place_leaves_no_key() {
    let store = traded_and_open();
    let before = key(&rotate(&store, Caller::LOCAL, 1)).keys;
    // The file that staging would make is there already.
    store.data.create("batches/00000003.batch.staging").unwrap();
    let spec = ImportSpec::of(ProductId(1), 5, 16);
    let begun = store.engine().import_begin(Caller::LOCAL, RequestId(20_000), spec).unwrap();
    assert_eq!(begun.status, Status::ReadOnly, "{begun:?}");
    assert_eq!(key(&rotate(&store, Caller::LOCAL, 3)).keys, before);
}

#[test]
fn a_key_directory_that_fails_is_not_called_busy() {
    let store = traded_and_open();
    store.keys.fail_sync_at(store.keys.syncs() + 1);
    let refused = rotate(&store, Caller::LOCAL, 1);
    assert_eq!((refused.status, refused.lsn), (Status::ReadOnly, None));
}
