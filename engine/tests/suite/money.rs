//! Accounts, postings and limits through the whole engine: retries, refusals, statements, snapshots, verification.

use kami_engine::{
    AccountId, AccountKind, AccountPut, AccountSpec, Caller, CardDigest, Command, DocumentId, Kind, LEGS_MAX,
    LIMITS_MAX, Leg, LimitAction, LimitId, LimitScope, LimitSpec, LimitWindow, Lsn, MerchantId, Posting,
    PrincipalId, PrincipalSpec, ProductId, ProductSpec, Reply, ReplyBody, ReplyFlags, Request, RequestId,
    Role, Status, Subject, TenantId, TerminalId,
};

use crate::store::{End, Store};

const FINANCE: Caller = caller(900, Role::Finance, 0);
const SELLER: Caller = caller(901, Role::Seller, 0);
const OPERATOR: Caller = caller(902, Role::Operator, 0);

const fn caller(principal: u32, role: Role, tenant: u16) -> Caller {
    Caller { tenant: TenantId(tenant), merchant: MerchantId(1), ..crate::store::caller(principal, role) }
}

impl Store {
    #[track_caller]
    fn done(&self, caller: Caller, command: Command) -> Reply {
        let reply = self.ask_by(caller, command);
        assert_eq!(reply.status, Status::Ok, "{reply:?}");
        reply
    }

    fn account(&self, name: &str, kind: AccountKind, credit_limit: i64, owner: u32) -> AccountId {
        let reply = self.done(FINANCE, put(name, kind, credit_limit, owner, true));
        let ReplyBody::Accounts(accounts) = reply.body else { panic!("{reply:?}") };
        accounts[0].id
    }

    fn balance(&self, account: AccountId) -> i64 {
        let reply = self.done(FINANCE, Command::AccountQuery { account, name: String::new() });
        let ReplyBody::Accounts(accounts) = reply.body else { panic!("{reply:?}") };
        accounts[0].balance
    }

    /// A product with so many sold cards.
    fn sold(&self, name: &str, count: u32) -> (ProductId, Vec<CardDigest>) {
        let product = self.stock(ProductSpec::single(name, *b"CNY", 100), count.into());
        self.sell(product, count);
        (product, (0..count).map(|row| self.digest(&format!("{name}-{row}"))).collect())
    }

    /// The alerts in the log: of which limit, set off by whom, with how much in the window.
    fn crossings(&self) -> Vec<(u64, (Subject, u64))> {
        let mut crossings = Vec::new();
        self.entries(|_, entry| {
            if entry.head.kind == Kind::LimitCrossed {
                crossings.push((entry.head.subject, entry.crossing().unwrap()));
            }
        });
        crossings
    }
}

fn put(name: &str, kind: AccountKind, credit_limit: i64, owner: u32, new: bool) -> Command {
    let owner = PrincipalId(owner);
    let spec = AccountSpec { name: name.to_owned(), currency: *b"CNY", kind, credit_limit, owner };
    Command::AccountPut(Box::new(AccountPut { spec, new }))
}

fn post(document: u128, legs: &[(AccountId, i64)]) -> Command {
    let legs = legs.iter().map(|&(account, amount)| Leg { account, amount }).collect();
    Command::Post(Box::new(Posting { document: DocumentId(document), legs, note: "转账 4711".to_owned() }))
}

fn limit(name: &str, scope: LimitScope, window: LimitWindow, max: u64, action: LimitAction) -> LimitSpec {
    LimitSpec { name: name.to_owned(), scope, product: None, window, max, action, ended: false }
}

#[test]
fn money_moves_once_and_closes() {
    let mut store = Store::with_segments(1 << 18);
    let bank = store.account("bank", AccountKind::External, 0, 0);
    let shop = store.account("shop", AccountKind::Customer, 500, 0);
    let income = store.account("income", AccountKind::Income, 0, 0);

    let first = store.ask_as(RequestId(1), FINANCE, post(1, &[(bank, -1000), (shop, 1000)]));
    assert_eq!((first.status, first.flags), (Status::Ok, ReplyFlags::default()));
    let again = store.ask_as(RequestId(1), FINANCE, post(1, &[(bank, -1000), (shop, 1000)]));
    assert_eq!((again.status, again.flags, again.lsn), (Status::Ok, ReplyFlags::REPLAYED, first.lsn));
    let (ReplyBody::Posted(one), ReplyBody::Posted(two)) = (&first.body, &again.body) else { panic!() };
    assert_eq!(one, two, "the first effect's reply again");
    let refusals = [
        (1, FINANCE, post(1, &[(bank, -999), (shop, 999)]), Status::IdReused),
        (2, FINANCE, post(1, &[(bank, -1000), (shop, 1000)]), Status::AlreadyExists),
        (1, caller(777, Role::Finance, 0), post(1, &[(bank, -1000), (shop, 1000)]), Status::IdReused),
        (3, FINANCE, post(2, &[(bank, -1000), (shop, 999)]), Status::LegsUnbalanced),
        (4, FINANCE, post(2, &[(shop, -1501), (income, 1501)]), Status::InsufficientFunds),
        (5, FINANCE, post(2, &[(shop, -1), (AccountId(9), 1)]), Status::NotFound),
        (6, FINANCE, post(2, &[]), Status::Malformed),
        (6, FINANCE, post(0, &[(bank, -1), (shop, 1)]), Status::Malformed),
        (7, FINANCE, post(2, &vec![(bank, 0); LEGS_MAX + 1]), Status::Malformed),
        (8, caller(900, Role::Finance, 1), post(2, &[(bank, -1), (shop, 1)]), Status::NotFound),
    ];
    for (id, caller, command, expected) in refusals {
        let reply = store.ask_as(RequestId(id), caller, command.clone());
        assert_eq!(reply.status, expected, "{command:?}");
        if expected == Status::InsufficientFunds {
            assert!(matches!(reply.body, ReplyBody::Account(account) if account == shop));
        }
    }
    // Another tenant's documents are its own.
    let elsewhere = caller(900, Role::Finance, 1);
    store.done(elsewhere, put("bank", AccountKind::External, 0, 0, true));
    store.done(elsewhere, put("shop", AccountKind::Customer, 0, 0, true));
    store.done(elsewhere, post(1, &[(AccountId(4), -5), (AccountId(5), 5)]));

    for n in 2..=7_u128 {
        store.done(FINANCE, post(n, &[(shop, -100), (income, 60), (shop, -1), (income, 41)]));
    }
    assert_eq!([bank, shop, income].map(|id| store.balance(id)), [-1000, 394, 606]);
    store.restart(End::Kill);
    let again = store.ask_as(RequestId(1), FINANCE, post(1, &[(bank, -1000), (shop, 1000)]));
    assert_eq!((again.flags, again.lsn), (ReplyFlags::REPLAYED, first.lsn), "after a restart, too");

    // The statement, in pages of four, newest first.
    let mut lines = Vec::new();
    let mut from = None;
    loop {
        let reply = store.done(SELLER, Command::AccountStatement { account: shop, from, count: 4 });
        let ReplyBody::Statement(page) = reply.body else { panic!("{reply:?}") };
        assert_eq!((page.account.id, page.account.balance), (shop, 394));
        lines.extend(page.lines.iter().map(|line| (line.kind, line.related, line.amount, line.balance)));
        from = page.next;
        if from.is_none() {
            break;
        }
    }
    let expected: Vec<_> = (2..=7_u128).rev().map(|n| (n, -101, 1000 - 101 * (n as i64 - 1))).collect();
    let expected: Vec<_> = expected.into_iter().chain([(1, 1000, 1000)]).collect();
    let told: Vec<_> =
        lines.iter().map(|&(_, related, amount, balance)| (related, amount, balance)).collect();
    assert_eq!(told, expected);
    assert!(lines.iter().all(|(kind, ..)| *kind == Kind::Post));
    // A place that is none, or another account's.
    for wrong in [8, 4096, first.lsn.unwrap().bytes() + 8] {
        let from = Lsn::from_bytes(wrong);
        let reply = store.ask_by(FINANCE, Command::AccountStatement { account: income, from, count: 4 });
        assert_eq!(reply.status, Status::Malformed, "{wrong}");
    }
    let from = first.lsn;
    let reply = store.ask_by(FINANCE, Command::AccountStatement { account: income, from, count: 4 });
    assert_eq!(reply.status, Status::Malformed, "that entry moved no money of it");
    store.restart(End::Kill);
}

#[test]
fn accounts_are_changed_as_all_objects_are() {
    let mut store = Store::with_segments(1 << 18);
    let first = store.ask_as(RequestId(1), FINANCE, put("shop", AccountKind::Customer, 500, 0, true));
    let again = store.ask_as(RequestId(1), FINANCE, put("shop", AccountKind::Customer, 500, 0, true));
    assert_eq!((again.status, again.flags, again.lsn), (Status::Ok, ReplyFlags::REPLAYED, first.lsn));
    let bank = store.account("bank", AccountKind::External, 0, 0);
    let shop = AccountId(1);
    store.done(FINANCE, post(1, &[(shop, -300), (bank, 300)]));
    let usd = AccountSpec {
        name: "shop".to_owned(),
        currency: *b"USD",
        kind: AccountKind::Customer,
        credit_limit: 500,
        owner: PrincipalId(0),
    };
    let cases = [
        (put("shop", AccountKind::Customer, 500, 0, true), Status::AlreadyExists),
        (put("none", AccountKind::Customer, 500, 0, false), Status::NotFound),
        (put("shop", AccountKind::Agent, 500, 0, false), Status::IllegalTransition),
        (Command::AccountPut(Box::new(AccountPut { spec: usd, new: false })), Status::IllegalTransition),
        (put("", AccountKind::Agent, 500, 0, true), Status::Malformed),
        (put("x", AccountKind::Agent, -1, 0, true), Status::Malformed),
        (put("x", AccountKind::Agent, 0, 55, true), Status::NotFound),
        // 300 of it are in use.
        (put("shop", AccountKind::Customer, 299, 0, false), Status::InsufficientFunds),
        (put("shop", AccountKind::Customer, 300, 0, false), Status::Ok),
        (post(2, &[(shop, -1), (bank, 1)]), Status::InsufficientFunds),
        (Command::AccountUnfreeze(shop), Status::IllegalTransition),
        (Command::AccountFreeze(AccountId(99)), Status::NotFound),
        (Command::AccountFreeze(shop), Status::Ok),
        (Command::AccountFreeze(shop), Status::IllegalTransition),
        (post(3, &[(bank, -50), (shop, 50)]), Status::Ok),
        (post(4, &[(shop, -1), (bank, 1)]), Status::Frozen),
    ];
    for (command, expected) in cases {
        let reply = store.ask_by(FINANCE, command.clone());
        assert_eq!(reply.status, expected, "{command:?} {reply:?}");
    }
    // A retry is recognised behind later changes.
    let again = store.ask_as(RequestId(1), FINANCE, put("shop", AccountKind::Customer, 500, 0, true));
    assert_eq!((again.status, again.lsn), (Status::Ok, first.lsn));
    store.engine().checkpoint().unwrap();
    store.restart(End::Kill);
    store.done(FINANCE, Command::AccountUnfreeze(shop));
    store.done(FINANCE, post(4, &[(shop, -1), (bank, 1)]));
    store.restart(End::Kill);

    // Whose account it is decides who pays from it and who sees it.
    let key = |n| PrincipalSpec::of(&format!("p{n}"), Role::Seller, [n; 32]);
    for n in [1, 2] {
        store.done(Caller::LOCAL, Command::PrincipalAdd(Box::new(key(n))));
    }
    store.account("own", AccountKind::Customer, 100, 1);
    let (owner, other) = (caller(1, Role::Seller, 0), caller(2, Role::Seller, 0));
    let own = Command::AccountQuery { account: AccountId(0), name: "own".to_owned() };
    assert_eq!(store.ask_by(owner, own.clone()).status, Status::Ok);
    assert_eq!(store.ask_by(other, own).status, Status::NotFound);
    let statement = Command::AccountStatement { account: AccountId(3), from: None, count: 9 };
    assert_eq!(store.ask_by(other, statement).status, Status::NotFound);
    // The desk lets no seller post; whoever embeds the engine may.
    assert_eq!(store.ask_by(other, post(9, &[(AccountId(3), -1), (bank, 1)])).status, Status::Forbidden);
    assert_eq!(store.ask_by(owner, post(9, &[(AccountId(3), -1), (bank, 1)])).status, Status::Ok);

    let page = |after, count| Command::AccountList { after: AccountId(after), count };
    let listed = store.done(FINANCE, page(0, 2));
    assert_eq!(listed.flags, ReplyFlags::PARTIAL);
    let listed = store.done(FINANCE, page(2, 2));
    assert!(matches!(&listed.body, ReplyBody::Accounts(rows) if rows.len() == 1), "{listed:?}");
    assert_eq!(listed.flags, ReplyFlags::default());
}

#[test]
fn limits_are_set_changed_and_taken_away() {
    let mut store = Store::with_segments(1 << 18);
    let (product, _) = store.sold("tea", 1);
    let day = LimitWindow::Day { offset_min: 480 };
    let of = |name: &str| limit(name, LimitScope::Account(None), day, 10, LimitAction::Refuse);
    let set = |spec: &LimitSpec| Command::LimitPut(Box::new(spec.clone()));
    let first = store.ask_as(RequestId(1), OPERATOR, set(&of("a day")));
    assert_eq!(first.status, Status::Ok);
    let cases = [
        (LimitSpec { max: 20, ..of("a day") }, Status::Ok),
        (LimitSpec { action: LimitAction::Alert, ..of("a day") }, Status::Ok),
        (LimitSpec { window: LimitWindow::Life, ..of("a day") }, Status::IllegalTransition),
        (LimitSpec { product: Some(product), ..of("a day") }, Status::IllegalTransition),
        (LimitSpec { product: Some(ProductId(9)), ..of("b") }, Status::NotFound),
        (LimitSpec { scope: LimitScope::Account(Some(AccountId(1))), ..of("b") }, Status::NotFound),
        (LimitSpec { ended: true, ..of("b") }, Status::NotFound),
        (LimitSpec { window: LimitWindow::Rolling { seconds: 0 }, ..of("b") }, Status::Malformed),
        (LimitSpec { window: LimitWindow::Rolling { seconds: 86_401 }, ..of("b") }, Status::Malformed),
        (LimitSpec { window: LimitWindow::Day { offset_min: 841 }, ..of("b") }, Status::Malformed),
        (
            LimitSpec { scope: LimitScope::Terminal, window: LimitWindow::OpenCards, ..of("b") },
            Status::Malformed,
        ),
        (LimitSpec { scope: LimitScope::Order, ..of("b") }, Status::Malformed),
        (LimitSpec { ended: true, ..of("a day") }, Status::Ok),
    ];
    for (spec, expected) in cases {
        assert_eq!(store.ask_by(OPERATOR, set(&spec)).status, expected, "{spec:?}");
    }
    // The name is free again, and the retry of the first is still a retry.
    let again = store.ask_as(RequestId(1), OPERATOR, set(&of("a day")));
    assert_eq!((again.status, again.flags, again.lsn), (Status::Ok, ReplyFlags::REPLAYED, first.lsn));
    store.done(OPERATOR, set(&of("a day")));
    let again = store.ask_as(RequestId(1), OPERATOR, set(&of("a day")));
    assert_eq!((again.flags, again.lsn), (ReplyFlags::REPLAYED, first.lsn));
    let listed = |store: &Store| {
        let reply = store.done(OPERATOR, Command::LimitList);
        let ReplyBody::Limits(limits) = reply.body else { panic!("{reply:?}") };
        limits.iter().map(|limit| limit.id).collect::<Vec<_>>()
    };
    assert_eq!(listed(&store), [LimitId(2)]);
    store.restart(End::Kill);
    store.engine().checkpoint().unwrap();
    store.restart(End::Kill);
    assert_eq!(listed(&store), [LimitId(2)]);
    for n in 1..LIMITS_MAX {
        store.done(OPERATOR, set(&of(&format!("limit {n}"))));
    }
    assert_eq!(store.ask_by(OPERATOR, set(&of("one more"))).status, Status::TooLarge);
    store.restart(End::Kill);
}

#[test]
fn tills_redeem_no_faster_than_they_may() {
    let mut store = Store::with_segments(1 << 18);
    let (_, cards) = store.sold("tea", 40);
    let mut cards = cards.into_iter();
    let till = caller(800, Role::Redeemer, 0);
    let mut redeem = |store: &Store, terminal| {
        let card = cards.next().unwrap();
        let terminal = TerminalId(terminal);
        let redeem = Command::Redeem { card, pin: None, amount: 0, partial: false };
        store.run(Request { caller: till, terminal, ..store.request(redeem) })
    };
    assert_eq!(redeem(&store, 1).status, Status::Ok);
    let velocity = LimitWindow::Rolling { seconds: 60 };
    let three = limit("till", LimitScope::Terminal, velocity, 3, LimitAction::Refuse);
    let alert = limit("watch", LimitScope::Principal, velocity, 4, LimitAction::Alert);
    for spec in [&three, &alert] {
        store.done(OPERATOR, Command::LimitPut(Box::new(spec.clone())));
    }
    // What was redeemed before the limit was set does not count.
    for _ in 0..3 {
        assert_eq!(redeem(&store, 1).status, Status::Ok);
    }
    store.clock.advance(20_000);
    let refused = redeem(&store, 1);
    assert_eq!((refused.status, refused.lsn), (Status::LimitTerminal, None));
    let ReplyBody::Exceeded(exceeded) = refused.body else { panic!("{refused:?}") };
    assert_eq!((exceeded.limit, exceeded.left, exceeded.opens_ms), (LimitId(1), 0, 40_000));
    assert_eq!(redeem(&store, 2).status, Status::Ok, "another till");
    store.engine().checkpoint().unwrap();
    assert_eq!(redeem(&store, 2).status, Status::Ok, "the fifth of the principal: an alert");
    store.restart(End::Kill);
    assert_eq!(redeem(&store, 1).status, Status::LimitTerminal, "after a restart, too");
    assert_eq!(redeem(&store, 2).status, Status::Ok);
    assert_eq!(redeem(&store, 2).status, Status::LimitTerminal);
    store.clock.advance(40_000);
    assert_eq!(redeem(&store, 1).status, Status::Ok, "it opened");

    // In one batch, before any of it is installed.
    let batch = cards.by_ref().take(6).map(|card| {
        let redeem = Command::Redeem { card, pin: None, amount: 0, partial: false };
        Request { caller: till, terminal: TerminalId(9), ..store.request(redeem) }
    });
    let batch: Vec<Request> = batch.collect();
    let replies = store.execute(batch.clone());
    store.drive();
    let statuses: Vec<_> = replies.iter().map(|reply| reply.status).collect();
    assert_eq!(statuses[..3], [Status::Ok; 3]);
    assert_eq!(statuses[3..], [Status::LimitTerminal; 3]);
    // A retry has its effect already.
    let replies = store.execute(batch);
    assert_eq!(replies[0].flags, ReplyFlags::REPLAYED);
    assert_eq!(replies[3].status, Status::LimitTerminal);
    store.drive();

    let crossings = store.crossings();
    assert_eq!(crossings, [(2, (Subject::Principal(PrincipalId(800)), 5))], "once in the window");
    store.restart(End::Kill);
}

/// The second redemption of a batch set the alert off, the third counted behind it, and the note that it had been
/// recorded was lost: it was recorded again.
#[test]
fn an_alert_within_a_batch_is_recorded_once() {
    let mut store = Store::with_segments(1 << 18);
    let (_, cards) = store.sold("tea", 8);
    let window = LimitWindow::Rolling { seconds: 60 };
    let alert = limit("watch", LimitScope::Principal, window, 1, LimitAction::Alert);
    store.done(OPERATOR, Command::LimitPut(Box::new(alert)));
    for some in cards.chunks(4) {
        let some = some.iter().map(|card| {
            let redeem = Command::Redeem { card: *card, pin: None, amount: 0, partial: false };
            let caller = caller(800, Role::Redeemer, 0);
            Request { caller, terminal: TerminalId(9), ..store.request(redeem) }
        });
        let replies = store.execute(some.collect());
        store.drive();
        assert!(replies.iter().all(|reply| reply.status == Status::Ok), "{replies:?}");
    }
    let expected = [(1, (Subject::Principal(PrincipalId(800)), 2))];
    assert_eq!(store.crossings(), expected);
    store.restart(End::Kill);
}
