//! The list of exceptions, by itself.

use super::*;
use crate::record::Kind;

fn state(id: u64, principal: u32) -> ExceptionState {
    let kept = Kept {
        card: id.is_multiple_of(2).then(|| CardRef::new(1, id)),
        digest: CardDigest(u128::from(id)),
        amount: -1,
        made_ms: 5,
        reason: Status::Frozen,
    };
    let head = Head {
        subject: id,
        request: RequestId(7),
        principal: PrincipalId(principal),
        ..Head::of_engine(Kind::Advice)
    };
    ExceptionState::of(&head, &kept, Lsn::from_bytes(64 * id).unwrap(), 9)
}

#[test]
fn numbers_run_and_what_is_there_stays_as_it_is() {
    let mut list = Exceptions::default();
    assert!(list.add(state(1, 3)) && list.add(state(2, 3)) && list.add(state(3, 4)));
    assert!(!list.add(state(5, 3)), "one is missing");
    let resolution = Resolution { principal: PrincipalId(8), time_ms: 10, note: "paid".to_owned() };
    list.resolve(2, resolution.clone(), Lsn::from_bytes(4096).unwrap());
    assert!(list.add(state(2, 3)), "replay brings it again");
    assert_eq!(list.find(2, TenantId(0)).unwrap().exception.resolution, Some(resolution));
    assert_eq!((list.open_of(PrincipalId(3)), list.open_of(PrincipalId(8))), (1, 0));
    let ids =
        |after, all| -> Vec<u64> { list.after(TenantId(0), after, all).map(|it| it.exception.id).collect() };
    assert_eq!(list.after(TenantId(1), 0, true).count(), 0);
    assert!(list.may_be_of(CardDigest(3)) && !Exceptions::default().may_be_of(CardDigest(3)));
    assert_eq!((ids(0, false), ids(1, false), ids(0, true)), (vec![1, 3], vec![3], vec![1, 2, 3]));
    assert!(list.find(2, TenantId(1)).is_none() && list.find(0, TenantId(0)).is_none());
    assert!(list.reported(CardDigest(3), RequestId(7)).is_some());
    assert!(list.reported(CardDigest(3), RequestId(8)).is_none());
    // And through a snapshot.
    let mut again = Exceptions::default();
    assert!(again.restore(&list.rows(0, 2)) && again.restore(&list.rows(2, 9)));
    assert_eq!((again.all, again.open, again.open_of), (list.all, list.open, list.open_of));
    assert_eq!((again.of_tenant, again.filter), (list.of_tenant, list.filter));
}

#[test]
fn what_is_the_tills_own_fault_or_comes_again_is_no_exception() {
    for status in [Status::CardNotValid, Status::Frozen, Status::LimitTerminal, Status::PinLocked] {
        assert!(is_kept(status), "{status:?}");
    }
    for status in [Status::Ok, Status::Busy, Status::IdReused, Status::ReversedBeforeArrival] {
        assert!(!is_kept(status), "{status:?}");
    }
}
