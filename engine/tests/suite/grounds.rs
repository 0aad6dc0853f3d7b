//! Why a change was made: kept in its entry, shown with it, part of what was asked.

use kami_engine::{
    BatchId, Caller, Command, Grounds, Kind, ProductId, ProductSpec, Reply, ReplyBody, ReplyFlags, Request,
    RequestId, Role, Status, WHY_BYTES_MAX,
};

use crate::store::{End, Store, caller};

const OPERATOR: Caller = caller(9, Role::Operator);

fn ask(store: &Store, id: u128, command: Command, grounds: Option<Grounds>) -> Reply {
    let (id, grounds) = (RequestId(id), grounds.map(Box::new));
    store.run(Request { id, caller: OPERATOR, grounds, ..store.request(command) })
}

fn stocked() -> Store {
    let store = Store::new();
    store.stock(ProductSpec::single("tea", *b"CNY", 500), 2);
    store
}

#[test]
fn a_reason_stands_with_the_change_and_is_part_of_it() {
    let mut store = stocked();
    let card = store.digest("tea-0");
    let why = |text: &str| Some(Grounds::because(text));
    let frozen = ask(&store, 10, Command::Freeze { card }, why("reported stolen"));
    assert_eq!(frozen.status, Status::Ok);
    let again = ask(&store, 10, Command::Freeze { card }, why("reported stolen"));
    assert_eq!((again.status, again.flags), (Status::Ok, ReplyFlags::REPLAYED));
    for other in [why("found again"), None] {
        assert_eq!(ask(&store, 10, Command::Freeze { card }, other).status, Status::IdReused);
    }
    let batch = Command::BatchFreeze(BatchId(1));
    assert_eq!(ask(&store, 11, batch.clone(), why("recall")).status, Status::Ok);
    assert_eq!(ask(&store, 11, batch, None).status, Status::IdReused);

    store.restart(End::Close);
    let ReplyBody::History(events) = ask(&store, 12, Command::History { card }, None).body else {
        panic!("a history")
    };
    assert_eq!(events[0].grounds.as_deref(), Some(&Grounds::because("reported stolen")));
    assert_eq!(events[1].grounds, None);
    let told = store.events(OPERATOR);
    let because = |kind| {
        let event = told.iter().find(|event| event.kind == kind).expect("it is told");
        event.grounds.as_ref().map(|grounds| grounds.why.clone())
    };
    assert_eq!(because(Kind::Freeze).as_deref(), Some("reported stolen"));
    assert_eq!(because(Kind::BatchFreeze).as_deref(), Some("recall"));
    assert_eq!(because(Kind::Import), None);
}

#[test]
fn what_cannot_be_kept_or_says_nothing_is_refused() {
    let store = stocked();
    let card = store.digest("tea-0");
    for bad in ["", "two\nlines", &"x".repeat(WHY_BYTES_MAX + 1)] {
        let grounds = || Some(Grounds::because(bad));
        assert_eq!(ask(&store, 20, Command::Freeze { card }, grounds()).status, Status::Malformed);
        let product = Command::ProductFreeze(ProductId(1));
        assert_eq!(ask(&store, 21, product, grounds()).status, Status::Malformed);
    }
    // A till redeems for no reason.
    let redeem = Command::Redeem { card, pin: None, amount: 0, partial: false };
    let refused = ask(&store, 22, redeem, Some(Grounds::because("because")));
    assert!(!refused.status.is_done(), "{refused:?}");
    let list = ask(&store, 23, Command::ProductList, Some(Grounds::because("because")));
    assert_eq!(list.status, Status::Malformed);
}
