//! Rotation of the master key as a command: who may, what is told again, what the log says.

use kami_engine::record::Group;
use kami_engine::{
    Caller, Engine, ImportSpec, KeyRotation, Kind, PrincipalSpec, ProductId, Reply, ReplyBody, ReplyFlags,
    RequestId, Role, Session, Status,
};
use kami_wal::{Medium, RecordKind, SimMedium, WalOptions};

use crate::upkeep::store::{add, add_principal, open, revoke, store};

fn rotate(engine: &Engine, caller: Caller, id: u128) -> Reply {
    engine.rotate_master(caller, RequestId(id)).unwrap()
}

fn key(reply: &Reply) -> KeyRotation {
    match reply.body {
        ReplyBody::Keys(rotation) => rotation,
        _ => panic!("{reply:?}"),
    }
}

/// Who asked for the rotations that the log tells of, under which id, and their keys.
fn recorded(data: &SimMedium) -> Vec<(u32, u128)> {
    let mut found = Vec::new();
    kami_wal::verify(data, &WalOptions::default(), &mut |record| {
        if record.kind == RecordKind::Data {
            for entry in Group::parse(record.payload, record.payload_lsn).unwrap() {
                let head = entry.unwrap().head;
                if head.kind == Kind::KeyRotate {
                    found.push((head.principal.0, head.request.0));
                }
            }
        }
    })
    .unwrap();
    found
}

#[test]
fn a_request_is_one_rotation_however_many_came_between() {
    let (data, keys, _) = store();
    let engine = open(&data, &keys);
    let other = Caller { principal: add_principal(&engine, 1), ..Caller::LOCAL };
    let first = rotate(&engine, Caller::LOCAL, 1);
    let second = rotate(&engine, Caller::LOCAL, 2);
    assert_ne!(key(&first).key, key(&second).key);
    let again = rotate(&engine, Caller::LOCAL, 1);
    assert_eq!((again.flags, again.lsn, again.time_ms), (ReplyFlags::REPLAYED, first.lsn, first.time_ms));
    assert_eq!(key(&again), key(&first));
    // The same id of somebody else is another request.
    let theirs = rotate(&engine, other, 1);
    assert_eq!(theirs.flags, ReplyFlags::default());
    assert_ne!(key(&theirs).key, key(&first).key);
    engine.close().unwrap();
    assert_eq!(recorded(&data), [(0, 1), (0, 2), (other.principal.0, 1)]);
}

#[test]
fn a_revoked_admin_and_a_scoped_operator_rotate_and_write_nothing() {
    let (data, keys, _) = store();
    let engine = open(&data, &keys);
    let admin = Caller { principal: add_principal(&engine, 1), ..Caller::LOCAL };
    revoke(&engine, admin.principal);
    let before = keys.bytes("master.key");
    let refused = rotate(&engine, admin, 1);
    assert_eq!((refused.status, refused.lsn), (Status::Unauthenticated, None));
    assert_eq!(keys.bytes("master.key"), before);
    let snapshot = engine.checkpoint_reply(admin, RequestId(2)).unwrap();
    assert_eq!(snapshot.status, Status::Unauthenticated);

    let products = vec![ProductId(1)];
    let spec = PrincipalSpec { products, ..PrincipalSpec::of("op", Role::Operator, [2; 32]) };
    let operator = Caller { principal: add(&engine, spec), role: Role::Operator, ..Caller::LOCAL };
    assert_eq!(rotate(&engine, operator, 3).status, Status::ScopeDenied);
    let snapshot = engine.checkpoint_reply(operator, RequestId(4)).unwrap();
    assert_eq!(snapshot.status, Status::ScopeDenied);
    assert_eq!(keys.bytes("master.key"), before);
    assert!(engine.checkpoint_reply(Caller::LOCAL, RequestId(5)).unwrap().status.is_done());
}

/// A rotation that happened while the log was full is in the log in the end, also if nobody asks for it again.
#[test]
fn a_rotation_that_could_not_be_recorded_is_recorded_by_the_next() {
    let (data, keys, _) = store();
    let engine = open(&data, &keys);
    let session = Session::new(&engine, Caller::LOCAL);
    data.set_capacity(Some(0));
    for n in 0.. {
        let id = RequestId(10_000 + n);
        let frozen = match n % 2 {
            0 => session.freeze(id, "CODE-1-000200").wait().is_ok(),
            _ => session.unfreeze(id, "CODE-1-000200").wait().is_ok(),
        };
        if !frozen {
            break;
        }
    }
    let before = keys.bytes("master.key");
    let refused = rotate(&engine, Caller::LOCAL, 1);
    assert!(!refused.status.is_done(), "{refused:?}");
    assert_ne!(keys.bytes("master.key"), before, "rotated, and not recorded");
    data.set_capacity(None);
    engine.drive().unwrap();
    let second = rotate(&engine, Caller::LOCAL, 2);
    assert_eq!(second.status, Status::Ok);
    let first = rotate(&engine, Caller::LOCAL, 1);
    assert_eq!((first.status, first.flags), (Status::Ok, ReplyFlags::REPLAYED));
    assert!(first.lsn < second.lsn, "in the order in which they happened");
    engine.close().unwrap();
    assert_eq!(recorded(&data), [(0, 1), (0, 2)]);
}

/// A key for an import that did not begin would be wrapped for ever.
#[test]
fn an_import_that_finds_no_place_leaves_no_key() {
    let (data, keys, _) = store();
    let engine = open(&data, &keys);
    let before = key(&rotate(&engine, Caller::LOCAL, 1)).keys;
    // The file that staging would make is there already.
    data.create("batches/00000003.batch.staging").unwrap();
    let spec = ImportSpec::of(ProductId(1), 5, 16);
    let begun = engine.import_begin(Caller::LOCAL, RequestId(20_000), spec).unwrap();
    assert_eq!(begun.status, Status::ReadOnly, "{begun:?}");
    assert_eq!(key(&rotate(&engine, Caller::LOCAL, 3)).keys, before);
}

#[test]
fn a_key_directory_that_fails_is_not_called_busy() {
    let (data, keys, _) = store();
    let engine = open(&data, &keys);
    keys.fail_sync_at(keys.syncs() + 1);
    let refused = rotate(&engine, Caller::LOCAL, 1);
    assert_eq!((refused.status, refused.lsn), (Status::ReadOnly, None));
}
