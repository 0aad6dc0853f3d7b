//! The engine as a platform that embeds it uses it: typed calls about value, orders and money.

use kami_engine::{
    AccountId, AccountKind, AccountSpec, CardKind, Confirmation, Delivery, DocumentId, Failure, Kind, Leg,
    LimitAction, LimitScope, LimitSpec, LimitWindow, OrderId, OrderState, Part, Posting, PrincipalId,
    ProductSpec, ProductTerms, Purchase, RequestId, Status,
};

use crate::store::Store;

fn id(n: u128) -> RequestId {
    RequestId(n)
}

fn status<T>(result: Result<T, Failure>) -> Status {
    match result {
        Err(failure) => failure.status().unwrap_or_else(|| panic!("{failure}")),
        Ok(_) => panic!("it was done"),
    }
}

#[test]
fn what_is_on_a_card_is_spent_held_loaded_and_refunded() {
    let store = Store::with_segments(1 << 18);
    let session = store.session();
    let terms = ProductTerms { value_max: 15_000, ..ProductTerms::default() };
    let kind = CardKind::StoredValue;
    let spec = ProductSpec { kind, terms, ..ProductSpec::single("gift", *b"CNY", 10_000) };
    let product = store.stock(spec, 1);
    session.sell(id(1), OrderId(1), product, 1).wait().unwrap();
    let card = "gift-0";

    let part = Part { amount: 1250, ..Part::default() };
    let first = session.redeem_part(id(2), card, part).wait().unwrap();
    assert_eq!((first.value.amount, first.value.remaining, first.replayed), (1250, 8750, false));
    let again = session.redeem_part(id(2), card, part).wait().unwrap();
    assert_eq!((again.lsn, again.value, again.replayed), (first.lsn, first.value, true));
    session.reverse(id(3), card, id(2)).wait().unwrap();
    assert!(session.redeem_part(id(2), card, part).wait().unwrap().reversed, "what is told of it later");

    let held = session.hold(id(4), card, Part { amount: 8000, ..part }, 0).wait().unwrap();
    assert_eq!((held.value.held, held.value.deadline_ms - held.time_ms), (8000, 300_000));
    let too_much = session.redeem_part(id(5), card, Part { amount: 2001, ..part }).wait();
    assert_eq!(status(too_much), Status::InsufficientValue);
    assert_eq!(session.capture(id(6), card, id(4), 5000).wait().unwrap().value.remaining, 5000);
    assert_eq!(status(session.release(id(7), card, id(4)).wait()), Status::HoldResolved);
    session.hold(id(8), card, part, 30).wait().unwrap();
    assert_eq!(session.release(id(9), card, id(8)).wait().unwrap().value.amount, 1250);
    let rest = Part { amount: 9000, partial: true, ..part };
    assert_eq!(session.redeem_part(id(10), card, rest).wait().unwrap().value.amount, 5000);

    assert_eq!(session.load(id(11), card, 15_000).wait().unwrap().value.remaining, 15_000);
    assert_eq!(status(session.load(id(12), card, 1).wait()), Status::ValueLimit);
    session.redeem_part(id(13), card, part).wait().unwrap();
    session.settle(id(14), card).wait().unwrap();
    store.clock.advance(1000);
    assert_eq!(status(session.reverse(id(15), card, id(13)).wait()), Status::Settled);
    assert_eq!(session.refund_value(id(16), card, id(13), 250).wait().unwrap().value.remaining, 14_000);
    assert_eq!(session.query(card).wait().unwrap().remaining, 14_000);
}

#[test]
fn an_order_is_reserved_paid_and_taken_back_and_money_says_why_it_does_not_move() {
    let store = Store::with_segments(1 << 18);
    let session = store.session();
    let tea = store.stock(ProductSpec::single("tea", *b"CNY", 2000), 10);
    let account = |n, name: &str, kind, credit_limit| {
        let spec =
            AccountSpec { name: name.into(), currency: *b"CNY", kind, credit_limit, owner: PrincipalId(0) };
        session.add_account(id(n), spec).wait().unwrap()
    };
    let bank = account(1, "bank", AccountKind::External, 0);
    let shop = account(2, "shop", AccountKind::Customer, 0);
    let income = account(3, "income", AccountKind::Income, 0);
    let legs = |from: AccountId, to: AccountId, amount: i64| {
        vec![Leg { account: from, amount: -amount }, Leg { account: to, amount }]
    };

    let document = DocumentId(7);
    let posting = Posting { document, legs: legs(bank.id, shop.id, 10_000), note: "deposit".into() };
    let posted = session.post(id(4), posting.clone()).wait().unwrap();
    assert_eq!(posted.value[1].balance, 10_000);
    assert!(session.post(id(4), posting).wait().unwrap().replayed);

    let purchase = |order, count, amount| Purchase {
        account: Some(shop.id),
        legs: legs(shop.id, income.id, amount),
        ..Purchase::of(OrderId(order), tea, count)
    };
    let reserved = session.reserve(id(5), purchase(1, 3, 6000)).wait().unwrap();
    assert_eq!((reserved.value.cards, reserved.value.state), (3, OrderState::Reserved));
    assert_eq!(session.account_named("shop").wait().unwrap().held, 6000);
    // Not what is set aside.
    match session.sell_lines(id(6), purchase(2, 3, 6000)).wait() {
        Err(Failure::Account { status, account }) => {
            assert_eq!((status, account), (Status::InsufficientFunds, shop.id));
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was sold"),
    }
    let confirmation = Confirmation { order: OrderId(1), legs: Vec::new(), realloc: false, sealed: false };
    let Delivery::Codes(sold) = session.confirm(id(7), confirmation).wait().unwrap() else {
        panic!("no codes")
    };
    assert_eq!((sold.codes.len(), sold.replayed), (3, false));
    let sealed = Purchase { sealed: true, ..purchase(3, 1, 2000) };
    let Delivery::Sealed(report) = session.sell_lines(id(8), sealed).wait().unwrap() else {
        panic!("codes that were not asked for")
    };
    assert_eq!(report.value.cards, 1);
    session.order(id(9), OrderId(3)).wait().unwrap();

    session.reserve(id(10), purchase(4, 1, 2000)).wait().unwrap();
    let cancelled = session.cancel(id(11), OrderId(4)).wait().unwrap();
    assert_eq!((cancelled.value.state, cancelled.replayed), (OrderState::Cancelled, false));
    let back = session
        .give_back(id(12), OrderId(1), &[sold.codes[0].as_str()], legs(income.id, shop.id, 2000))
        .wait()
        .unwrap();
    assert_eq!(back.value.cards, 1);
    assert_eq!(session.order_status(OrderId(1)).wait().unwrap().cards, 2);

    let statement = session.statement(shop.id, None, 10).wait().unwrap();
    let kinds: Vec<Kind> = statement.lines.iter().map(|line| line.kind).collect();
    assert_eq!(kinds, [Kind::Return, Kind::Sell, Kind::Confirm, Kind::Post]);
    assert_eq!((statement.account.balance, statement.next), (4000, None));
    let page = session.accounts(AccountId(1)).wait().unwrap();
    assert_eq!((page.accounts.len(), page.more), (2, false));
    assert_eq!(session.account(AccountId(1)).wait().unwrap().spec.name, "bank");
    session.freeze_account(id(13), shop.id).wait().unwrap();
    assert_eq!(status(session.sell_lines(id(14), purchase(5, 1, 2000)).wait()), Status::Frozen);
    session.unfreeze_account(id(15), shop.id).wait().unwrap();

    // A limit says what is left and when it opens.
    let spec = LimitSpec {
        name: "hour".into(),
        scope: LimitScope::Account(None),
        product: None,
        window: LimitWindow::Rolling { seconds: 3600 },
        max: 1,
        action: LimitAction::Refuse,
        ended: false,
    };
    let limit = session.put_limit(id(16), spec).wait().unwrap();
    assert_eq!(session.limits().wait().unwrap(), std::slice::from_ref(&limit));
    session.sell_lines(id(17), purchase(6, 1, 1000)).wait().unwrap();
    match session.sell_lines(id(18), purchase(7, 1, 1000)).wait() {
        Err(Failure::Limit { status, exceeded }) => {
            assert_eq!((status, exceeded.limit, exceeded.left), (Status::LimitAccount, limit.id, 0));
            store.clock.advance(exceeded.opens_ms);
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was sold"),
    }
    session.sell_lines(id(18), purchase(7, 1, 1000)).wait().unwrap();
}
