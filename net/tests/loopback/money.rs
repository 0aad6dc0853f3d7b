//! Accounts, postings and limits, over the wire, by those whose business they are.

use kami_engine::{
    AccountKind, AccountSpec, DocumentId, Leg, LimitAction, LimitScope, LimitSpec, LimitWindow, OrderId,
    Posting, PrincipalId, ReplyFlags, RequestId, Role, Status,
};
use kami_net::ClientError;
use kami_net::client::RedeemOptions;
use kami_net::frame::Body;
use kami_net::frame::money::OneAccount;

use crate::house::{House, stock};

fn refused<T: std::fmt::Debug>(result: Result<T, ClientError>) -> (Status, Body) {
    match result {
        Err(ClientError::Refused { status, answer }) => (status, answer.body),
        other => panic!("{other:?}"),
    }
}

fn account(name: &str, kind: AccountKind, credit_limit: i64) -> AccountSpec {
    let owner = PrincipalId(0);
    AccountSpec { name: name.to_owned(), currency: *b"CNY", kind, credit_limit, owner }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn finance_moves_money_and_a_seller_sees_its_own() {
    let house = House::open().await;
    let finance = house.client_as("finance", Role::Finance).await;
    let seller = house.client_as("seller", Role::Seller).await;
    let own = |spec: AccountSpec| AccountSpec { owner: PrincipalId(1), ..spec };

    let id = RequestId::random();
    let bank = account("bank", AccountKind::External, 0);
    let first = finance.account_add(bank.clone(), id).await.unwrap();
    let again = finance.account_add(bank, id).await.unwrap();
    assert_eq!((again.lsn, again.flags), (first.lsn, ReplyFlags::REPLAYED));
    let bank = first.value.id;
    let shop = finance.account_add(account("shop", AccountKind::Customer, 500), RequestId::random()).await;
    let shop = shop.unwrap().value;
    finance.account_add(own(account("admins", AccountKind::Customer, 0)), RequestId::random()).await.unwrap();

    let posting = |document: u128, amount: i64| Posting {
        document: DocumentId(document),
        legs: vec![Leg { account: bank, amount: -amount }, Leg { account: shop.id, amount }],
        note: "转账".to_owned(),
    };
    let id = RequestId::random();
    let first = finance.post(posting(1, 1000), id).await.unwrap();
    let again = finance.post(posting(1, 1000), id).await.unwrap();
    assert_eq!((again.lsn, &again.value), (first.lsn, &first.value));
    assert_eq!(first.value.rows.iter().map(|leg| leg.balance).collect::<Vec<_>>(), [-1000, 1000]);
    let (status, _) = refused(finance.post(posting(1, 1000), RequestId::random()).await);
    assert_eq!(status, Status::AlreadyExists);
    let (status, body) = refused(finance.post(posting(2, -1501), RequestId::random()).await);
    assert_eq!((status, body), (Status::InsufficientFunds, Body::Account(OneAccount { account: shop.id })));
    let (status, _) = refused(seller.post(posting(3, 1), RequestId::random()).await);
    assert_eq!(status, Status::Forbidden, "the role may not");

    assert_eq!(seller.account_named("shop").await.unwrap().value.balance, 1000);
    assert_eq!(refused(seller.account_named("admins").await).0, Status::NotFound);
    for document in 10..20 {
        finance.post(posting(document, 1), RequestId::random()).await.unwrap();
    }
    let page = seller.account_statement(shop.id, None, 6).await.unwrap().value;
    assert_eq!((page.lines.len(), page.lines[0].balance, page.lines[0].related), (6, 1010, 19));
    let rest = seller.account_statement(shop.id, page.next, 6).await.unwrap().value;
    assert_eq!((rest.lines.len(), rest.next), (5, None));
    assert_eq!(rest.lines.last().unwrap().lsn, first.lsn.unwrap());
    let wrong = finance.account_statement(bank, kami_engine::Lsn::from_bytes(8), 6).await;
    assert_eq!(refused(wrong).0, Status::Malformed);

    finance.account_freeze(shop.id).await.unwrap();
    let (status, _) = refused(finance.post(posting(30, -1), RequestId::random()).await);
    assert_eq!(status, Status::Frozen);
    finance.account_unfreeze(shop.id).await.unwrap();
    let spec = AccountSpec { credit_limit: 0, ..shop.spec.clone() };
    assert_eq!(finance.account_set(spec, RequestId::random()).await.unwrap().value.spec.credit_limit, 0);
    let names: Vec<_> = finance.account_list().await.unwrap().into_iter().map(|it| it.spec.name).collect();
    assert_eq!(names, ["bank", "shop", "admins"]);
    house.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_till_over_its_limit_is_told_when_to_come_back() {
    let house = House::open().await;
    let admin = house.client().await;
    let product = stock(&admin, "coffee", 10).await;
    let sold = admin.sell(OrderId(5), product, 5, Default::default()).await.unwrap().value.cards;
    let spec = LimitSpec {
        name: "velocity".to_owned(),
        scope: LimitScope::Terminal,
        product: Some(product),
        window: LimitWindow::Rolling { seconds: 3600 },
        max: 2,
        action: LimitAction::Refuse,
        ended: false,
    };
    let set = admin.limit_put(spec.clone()).await.unwrap().value;
    assert_eq!(admin.limit_list().await.unwrap().value.rows, std::slice::from_ref(&set));
    let till = house.client_as("till", Role::Redeemer).await;
    assert_eq!(refused(till.limit_put(spec.clone()).await).0, Status::Forbidden);
    for card in &sold[..2] {
        till.redeem(&card.code, RedeemOptions::default()).await.unwrap();
    }
    let (status, body) = refused(till.redeem(&sold[2].code, RedeemOptions::default()).await);
    let Body::Exceeded(exceeded) = body else { panic!("{body:?}") };
    assert_eq!((status, exceeded.status, exceeded.limit), (status, Status::LimitTerminal, set.id));
    assert_eq!(exceeded.left, 0);
    assert!((1..=3_600_000).contains(&exceeded.opens_ms), "{}", exceeded.opens_ms);
    admin.limit_put(LimitSpec { ended: true, ..spec }).await.unwrap();
    till.redeem(&sold[2].code, RedeemOptions::default()).await.unwrap();
    house.shut_down().await;
}
