//! What is noted of redemptions that were made offline: under which ids, and what looking it up costs.

use kami_engine::{
    Advice, Caller, CardDigest, Command, Lifecycle, ProductId, ProductSpec, Reply, ReplyBody, ReplyFlags,
    RequestId, Role, Status, TenantId,
};

use crate::store::{BEGUN_MS, End, Store};

const CODE: &str = "tea-0";

/// A store with a card, sold, and the number of its product.
fn sold() -> (Store, ProductId) {
    let store = Store::new();
    let product = store.stock(ProductSpec::single("tea", *b"CNY", 100), 1);
    store.sell(product, 1);
    (store, product)
}

impl Store {
    fn advise(&self, caller: Caller, id: u128, card: CardDigest) -> Reply {
        let advice = Advice { card, pin: None, amount: 0, made_ms: BEGUN_MS };
        self.ask_as(RequestId(id), caller, Command::Advice(Box::new(advice)))
    }

    fn outcome(&self, caller: Caller, card: CardDigest, asked: u128) -> Reply {
        self.ask_by(caller, Command::OutcomeOf { card, request: RequestId(asked) })
    }
}

/// Goods were handed out offline, the report was noted as an exception, and its reply was lost. The till was told that
/// nothing came of it; sent once more, the redemption took effect beside the exception that somebody settles.
#[test]
fn a_redemption_took_effect_under_the_id_of_a_noted_report() {
    let (mut store, _) = sold();
    let till = store.enrol("till", Role::Redeemer);
    let other = store.enrol("other", Role::Redeemer);
    let operator = store.enrol("operator", Role::Operator);
    let elsewhere = {
        let spec = ProductSpec::single("coffee", *b"CNY", 100);
        let product = store.product(spec);
        store.enrol_for("elsewhere", Role::Operator, vec![product])
    };
    store.session().freeze(store.id(), CODE).wait().unwrap();
    let (frozen, nobodys) = (store.digest(CODE), store.digest("NOBODY-HAS-IT"));
    let redeem = |card| Command::Redeem { card, pin: None, amount: 0, partial: false };
    let noted = [(frozen, 100), (nobodys, 101)].map(|(card, id)| {
        let noted = store.advise(till, id, card);
        assert_eq!(noted.status, Status::ExceptionNoted);
        (card, id, noted)
    });
    store.session().unfreeze(store.id(), CODE).wait().unwrap();
    for again in 0..2 {
        for (card, id, noted) in &noted {
            let same = |reply: Reply| {
                assert_eq!(reply.status, Status::ExceptionNoted);
                assert_eq!((reply.lsn, reply.flags, reply.miss), (noted.lsn, ReplyFlags::REPLAYED, false));
                assert_eq!(reply.time_ms, noted.time_ms);
            };
            same(store.outcome(till, *card, *id));
            same(store.outcome(operator, *card, *id));
            same(store.ask_as(RequestId(*id), till, redeem(*card)));
            same(store.advise(till, *id, *card));
            // Who did not send it, and may not see it, is told what is said of a request that never came.
            assert_eq!(store.outcome(other, *card, *id).status, Status::NoEffect);
            assert_eq!(store.outcome(elsewhere, *card, *id).status, Status::NoEffect);
            // One id, one effect: of no kind, and for nobody.
            assert_eq!(store.ask_as(RequestId(*id), other, redeem(*card)).status, Status::IdReused);
            let hold = Command::Hold { card: *card, pin: None, amount: 0, partial: false, seconds: 60 };
            assert_eq!(store.ask_as(RequestId(*id), till, hold).status, Status::IdReused);
            assert_eq!(
                store.ask_as(RequestId(*id), operator, Command::Freeze { card: *card }).status,
                Status::IdReused
            );
            let reverse = Command::Reverse { card: *card, original: RequestId(*id) };
            assert_eq!(store.ask_as(RequestId(*id), till, reverse).status, Status::IdReused);
        }
        assert_eq!(store.card(CODE).lifecycle, Lifecycle::Sold);
        if again == 0 {
            store.restart(End::Close);
        }
    }
    // Under an id of its own it is redeemed as ever, and reading takes no id.
    assert_eq!(store.ask_as(RequestId(100), operator, Command::Query { card: frozen }).status, Status::Ok);
    assert_eq!(store.ask_as(RequestId(102), till, redeem(frozen)).status, Status::Ok);
    assert_eq!(store.outcome(till, frozen, 102).status, Status::Ok);
    store.restart(End::Close);
}

/// To list exceptions, all of all tenants were looked through under the lock that every redemption waits for.
#[test]
fn a_list_of_exceptions_looked_through_everybodys() {
    let (store, product) = sold();
    let nobodys = store.digest("NOBODY-HAS-IT");
    for (till, from) in [(0, 1000), (1, 2000), (2, 3000)] {
        let till = store.enrol(&format!("till {till}"), Role::Redeemer);
        for n in 0..1000 {
            assert_eq!(store.advise(till, from + n, nobodys).status, Status::ExceptionNoted);
        }
    }
    let list = |caller, after, all| {
        let reply = store.ask_as(RequestId(9), caller, Command::ExceptionList { after, count: 500, all });
        let ReplyBody::Exceptions(page) = reply.body else { panic!("{:?}", reply.status) };
        (reply.flags.contains(ReplyFlags::PARTIAL), page)
    };
    for all in [false, true] {
        // Another tenant has none, and none is looked at for it.
        let foreign = Caller { tenant: TenantId(1), role: Role::Auditor, ..Caller::LOCAL };
        let (more, page) = list(foreign, 0, all);
        assert!(!more && page.rows.is_empty() && page.reached == 0);
        // Who sees none of its own is told so in steps that are bounded.
        let scoped = store.enrol_for(&format!("scoped {all}"), Role::Auditor, vec![product]);
        let (mut after, mut steps) = (0, 0);
        loop {
            let (more, page) = list(scoped, after, all);
            assert!(page.rows.is_empty() && page.reached - after <= 2048);
            (after, steps) = (page.reached, steps + 1);
            if !more {
                break;
            }
        }
        assert_eq!((after, steps), (3000, 2));
        // And nothing is left out for who sees all.
        let mut seen = Vec::new();
        loop {
            let (more, page) = list(Caller::LOCAL, seen.last().copied().unwrap_or(0), all);
            seen.extend(page.rows.iter().map(|row| row.id));
            if !more {
                break;
            }
        }
        assert_eq!(seen, (1..=3000).collect::<Vec<u64>>());
    }
}
