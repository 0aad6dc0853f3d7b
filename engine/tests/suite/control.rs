//! What takes two people: who may propose and approve what, what is done then, and what stays after a restart.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use kami_engine::{
    BatchId, Caller, CardDigest, CardKind, Command, ControlReport, DualControl, Engine, EngineOptions,
    Grounds, ImportRow, ImportSpec, Kind, Lifecycle, MerchantId, OrderId, PROPOSALS_PER_PRINCIPAL_MAX,
    PrincipalId, PrincipalSpec, ProductId, ProductSpec, ProposalId, ProposalState, Reply, ReplyBody,
    ReplyFlags, Request, RequestId, Role, Session, Status, TenantId, TenantSpec, TerminalId, Work, verify,
};
use kami_wal::{Drive, Medium, SimMedium, SimMode, WalOptions};

use crate::clock::HandClock;

const HOUR_MS: u64 = 3600 * 1000;
const ON: DualControl = DualControl { on: true, reveal_cards: 2, lapse_s: 24 * 3600 };

struct Store {
    data: SimMedium,
    keys: SimMedium,
    clock: HandClock,
    engine: Engine,
    next: u128,
}

const fn caller(principal: u32, role: Role) -> Caller {
    Caller { tenant: TenantId(0), principal: PrincipalId(principal), role, merchant: MerchantId(0) }
}

/// Added to the store in this order, so these are their numbers.
const ADMIN: Caller = caller(1, Role::Admin);
const ANNA: Caller = caller(2, Role::Operator);
const BO: Caller = caller(3, Role::Operator);
const CASHIER: Caller = caller(4, Role::Finance);
const SHOP: Caller = caller(5, Role::Seller);

impl Store {
    /// A store with people, a product whose cards have a value of 100, and a batch of 8.
    fn new() -> Store {
        let (data, keys) = (SimMedium::new(1, SimMode::Direct), SimMedium::new(2, SimMode::Direct));
        let clock = HandClock::default();
        let engine = open(&data, &keys, &clock);
        let mut store = Store { data, keys, clock, engine, next: 100 };
        for (name, role) in [
            ("admin", Role::Admin),
            ("anna", Role::Operator),
            ("bo", Role::Operator),
            ("cashier", Role::Finance),
            ("shop", Role::Seller),
        ] {
            assert_eq!(store.add(name, role, 0), Status::Ok);
        }
        let (add, import) = (store.id(), store.id());
        let mut spec = ProductSpec::single("gift", *b"CNY", 100);
        (spec.kind, spec.terms.value_max) = (CardKind::StoredValue, 100);
        let session = Session::new(&store.engine, Caller::LOCAL);
        let product = session.add_product(add, spec).wait().unwrap().id;
        let codes: Vec<String> = (0..8).map(|row| format!("GIFT-{row}")).collect();
        let rows = codes.iter().map(|code| ImportRow { code: code.as_bytes(), ..Default::default() });
        session.import(import, ImportSpec::of(product, 8, 16), rows, |_| ()).unwrap();
        store
    }

    fn add(&mut self, name: &str, role: Role, tenant: u16) -> Status {
        let key = [self.id().0 as u8; 32];
        let mut spec = PrincipalSpec::of(name, role, key);
        spec.tenant = TenantId(tenant);
        self.ask(Caller::LOCAL, Command::PrincipalAdd(Box::new(spec))).status
    }

    fn id(&mut self) -> RequestId {
        self.next += 1;
        RequestId(self.next)
    }

    fn later(&self, ms: u64) {
        self.clock.0.fetch_add(ms, Ordering::Relaxed);
    }

    fn card(&self, row: u32) -> CardDigest {
        self.engine.digest(TenantId(0), format!("GIFT-{row}").as_bytes()).unwrap()
    }

    fn ask(&mut self, caller: Caller, command: Command) -> Reply {
        let id = self.id();
        self.ask_as(id, caller, command, None)
    }

    fn ask_as(&mut self, id: RequestId, caller: Caller, command: Command, grounds: Option<Grounds>) -> Reply {
        let mut work = Work::default();
        work.requests.push(Request {
            id,
            caller,
            terminal: TerminalId(0),
            channel: kami_engine::ChannelId(0),
            deadline: None,
            grounds: grounds.map(Box::new),
            command,
        });
        self.engine.execute(&mut work);
        work.replies.pop().unwrap()
    }

    fn propose(&mut self, caller: Caller, command: Command) -> Result<ProposalId, Status> {
        let id = self.id();
        let propose = Command::Propose(Box::new(command));
        let reply = self.ask_as(id, caller, propose, Some(Grounds::because("customer's complaint 17")));
        if reply.status == Status::Ok { Ok(ProposalId(id.0)) } else { Err(reply.status) }
    }

    fn approve(&mut self, caller: Caller, id: ProposalId) -> Status {
        self.ask(caller, Command::Approve(id)).status
    }

    fn state(&mut self, id: ProposalId) -> ProposalState {
        let list = Command::ProposalList { after: 0, count: 500, all: true };
        let ReplyBody::Proposals(report) = self.ask(ADMIN, list).body else { panic!("no proposals") };
        report.proposals.iter().find(|proposal| proposal.id == id).unwrap().state
    }

    fn lifecycle(&mut self, row: u32) -> Lifecycle {
        let card = self.card(row);
        match self.ask(ADMIN, Command::Query { card }).body {
            ReplyBody::Card(card) => card.lifecycle,
            other => panic!("{other:?}"),
        }
    }

    fn sell(&mut self, order: u128, count: u32) {
        let (order, product) = (OrderId(order), ProductId(1));
        let sold = self.ask(SHOP, Command::Sell { order, product, count, validity_s_min: 0 });
        assert_eq!(sold.status, Status::Ok);
    }

    fn control(&mut self, control: DualControl) -> Status {
        self.ask(ADMIN, Command::TenantControl { tenant: TenantId(0), control }).status
    }

    fn fetch(&mut self, caller: Caller, order: u128, under: Option<ProposalId>) -> (Status, u32) {
        let fetch = Command::OrderFetch { order: OrderId(order), from: 0, count: u32::MAX };
        let grounds = under.map(|id| Grounds { approval: Some(id), ..Grounds::default() });
        let id = self.id();
        let reply = self.ask_as(id, caller, fetch, grounds);
        match reply.body {
            ReplyBody::Cards(list) => (reply.status, list.count),
            _ => (reply.status, 0),
        }
    }

    fn reopened(self) -> Store {
        let Store { data, keys, clock, engine, next } = self;
        engine.close().unwrap();
        let whole = verify(Arc::new(data.clone()), Arc::new(keys.clone())).unwrap();
        assert!(whole.problems.is_empty(), "{:?}", whole.problems);
        let engine = open(&data, &keys, &clock);
        Store { data, keys, clock, engine, next }
    }
}

fn open(data: &SimMedium, keys: &SimMedium, clock: &HandClock) -> Engine {
    let medium = |medium: &SimMedium| Arc::new(medium.clone()) as Arc<dyn Medium>;
    Engine::open(EngineOptions {
        data: medium(data),
        keys: medium(keys),
        wal: WalOptions { segment_bytes: 4 << 20, drive: Drive::Manual, ..WalOptions::default() },
        clock: Box::new(clock.clone()),
        accept_clock: false,
    })
    .unwrap()
}

#[test]
fn a_sold_card_becomes_void_by_two_people_once() {
    let mut store = Store::new();
    store.sell(1, 2);
    let card = store.card(0);
    let direct = store.id();
    let why = Grounds::because("stolen");
    let void = Command::Void { card };
    assert_eq!(store.ask_as(direct, ANNA, void.clone(), Some(why.clone())).status, Status::ApprovalRequired);
    // The same attempt, proposed.
    let propose = Command::Propose(Box::new(void.clone()));
    assert_eq!(store.ask_as(direct, ANNA, propose.clone(), None).status, Status::Malformed, "without why");
    assert_eq!(store.ask_as(direct, ANNA, propose.clone(), Some(why.clone())).status, Status::Ok);
    let again = store.ask_as(direct, ANNA, propose, Some(why.clone()));
    assert_eq!((again.status, again.flags), (Status::Ok, ReplyFlags::REPLAYED));
    let id = ProposalId(direct.0);
    assert_eq!(store.approve(ANNA, id), Status::SecondPersonRequired);
    assert_eq!(store.approve(CASHIER, id), Status::Forbidden);
    assert_eq!(store.approve(SHOP, id), Status::Forbidden);
    assert_eq!(store.lifecycle(0), Lifecycle::Sold);
    let mut store = store.reopened();
    let approval = store.id();
    let done = store.ask_as(approval, BO, Command::Approve(id), None);
    assert_eq!(done.status, Status::Ok);
    assert_eq!(store.lifecycle(0), Lifecycle::Voided);
    assert_eq!(store.lifecycle(1), Lifecycle::Sold);
    let mut store = store.reopened();
    let again = store.ask_as(approval, BO, Command::Approve(id), None);
    assert_eq!((again.status, again.flags, again.lsn), (Status::Ok, ReplyFlags::REPLAYED, done.lsn));
    assert_eq!(store.approve(ADMIN, id), Status::ProposalDone);
    // Whoever tried it alone hears that it is done.
    let tried = store.ask_as(direct, ANNA, void, Some(why));
    assert_eq!((tried.status, tried.flags), (Status::Ok, ReplyFlags::REPLAYED));
    let ReplyBody::History(events) = store.ask(ANNA, Command::History { card }).body else {
        panic!("no history")
    };
    let grounds = events[0].grounds.as_ref().unwrap();
    assert_eq!((events[0].kind, events[0].principal), (Kind::Void, ANNA.principal));
    assert_eq!((grounds.approval, grounds.approver), (Some(id), Some(BO.principal)));
    assert_eq!(grounds.why, "stolen");
}

#[test]
fn a_refund_takes_two_once_that_is_switched_on_and_one_alone_cannot_switch_it_off() {
    let mut store = Store::new();
    store.sell(1, 2);
    let till = caller(99, Role::Redeemer);
    let (first, second) = (store.card(0), store.card(1));
    let redeem = |card| Command::Redeem { card, pin: None, amount: 40, partial: false };
    let (one, other) = (store.id(), store.id());
    assert_eq!(store.ask_as(one, till, redeem(first), None).status, Status::Ok);
    assert_eq!(store.ask_as(other, till, redeem(second), None).status, Status::Ok);
    for card in [first, second] {
        assert_eq!(store.ask(CASHIER, Command::Settle { card }).status, Status::Ok);
    }
    let refund = |card, original| Command::RefundValue { card, original, amount: 30 };
    let alone = store.id();
    assert_eq!(store.ask_as(alone, CASHIER, refund(first, one), None).status, Status::Ok);
    // Nobody else could approve its end.
    assert_eq!(store.control(ON), Status::SecondPersonRequired);
    assert_eq!(store.add("deputy", Role::Admin, 0), Status::Ok);
    let deputy = caller(6, Role::Admin);
    assert_eq!(store.control(ON), Status::Ok);
    let mut store = store.reopened();
    let again = store.ask_as(alone, CASHIER, refund(first, one), None);
    assert_eq!((again.status, again.flags), (Status::Ok, ReplyFlags::REPLAYED), "what is done is done");
    assert_eq!(store.ask(CASHIER, refund(second, other)).status, Status::ApprovalRequired);
    let id = store.propose(CASHIER, refund(second, other)).unwrap();
    assert_eq!(store.approve(BO, id), Status::Ok);
    let ReplyBody::Card(report) = store.ask(ANNA, Command::Query { card: second }).body else {
        panic!("no card")
    };
    assert_eq!(report.remaining, 90);
    // What would be more than was redeemed is refused as if one person asked, and what became so stays open.
    assert_eq!(store.propose(CASHIER, refund(second, other)), Err(Status::InsufficientValue));
    let few = Command::RefundValue { card: second, original: other, amount: 10 };
    let (id, late) = (store.propose(CASHIER, few.clone()).unwrap(), store.propose(ANNA, few).unwrap());
    assert_eq!(store.approve(BO, id), Status::Ok);
    assert_eq!(store.approve(BO, late), Status::AlreadyReversed);
    assert_eq!(store.state(late), ProposalState::Open);
    // Its end, too, takes two.
    assert_eq!(store.control(DualControl::default()), Status::ApprovalRequired);
    assert_eq!(store.control(DualControl { reveal_cards: 1000, ..ON }), Status::ApprovalRequired);
    let off = Command::TenantControl { tenant: TenantId(0), control: DualControl::default() };
    assert_eq!(store.propose(ANNA, off.clone()), Err(Status::Forbidden));
    let id = store.propose(ADMIN, off).unwrap();
    assert_eq!(store.approve(ADMIN, id), Status::SecondPersonRequired);
    assert_eq!(store.approve(deputy, id), Status::Ok);
    let mut store = store.reopened();
    let small = Command::RefundValue { card: first, original: one, amount: 10 };
    assert_eq!(store.ask(CASHIER, small).status, Status::Ok);
}

#[test]
fn an_exported_card_is_sold_and_its_code_leaves_through_its_order_alone() {
    let mut store = Store::new();
    let export = Command::Export { batch: BatchId(1), count: 3 };
    assert_eq!(store.ask(ADMIN, export.clone()).status, Status::ApprovalRequired);
    assert_eq!(store.propose(ANNA, Command::Export { batch: BatchId(9), count: 3 }), Err(Status::NotFound));
    assert_eq!(store.propose(SHOP, export.clone()), Err(Status::Forbidden));
    let id = store.propose(ANNA, export.clone()).unwrap();
    let unused = store.propose(ANNA, export).unwrap();
    assert_eq!(store.lifecycle(0), Lifecycle::Available);
    assert_eq!(store.approve(BO, id), Status::Ok);
    assert_eq!(store.lifecycle(0), Lifecycle::Sold);
    assert_eq!(store.lifecycle(3), Lifecycle::Available);
    // To whoever proposed it, and not to whoever approved.
    assert_eq!(store.fetch(BO, id.0, None).0, Status::ApprovalRequired);
    assert_eq!(store.fetch(ANNA, id.0, None), (Status::Ok, 3));
    let give_back = |order: ProposalId| {
        Command::Return(Box::new(kami_engine::GivenBack {
            order: OrderId(order.0),
            cards: Vec::new(),
            legs: Vec::new(),
        }))
    };
    // Seen: never for sale again.
    assert_eq!(store.ask(ANNA, give_back(id)).status, Status::Ok);
    assert_eq!(store.lifecycle(0), Lifecycle::Returned);
    // Not seen: it is as if it had never been.
    assert_eq!(store.approve(BO, unused), Status::Ok);
    assert_eq!(store.ask(ANNA, give_back(unused)).status, Status::Ok);
    assert_eq!(store.lifecycle(3), Lifecycle::Available);
    // As many as there are.
    let id = store.propose(BO, Command::Export { batch: BatchId(1), count: 100 }).unwrap();
    let late = store.propose(BO, Command::Export { batch: BatchId(1), count: 1 }).unwrap();
    assert_eq!(store.approve(ANNA, id), Status::Ok);
    let mut store = store.reopened();
    assert_eq!(store.fetch(BO, id.0, None), (Status::Ok, 5));
    assert_eq!(store.approve(ANNA, late), Status::OutOfStock);
    assert_eq!(store.propose(BO, Command::Export { batch: BatchId(1), count: 1 }), Err(Status::OutOfStock));
}

#[test]
fn codes_of_anothers_order_are_fetched_under_an_approval_for_a_time() {
    let mut store = Store::new();
    store.sell(1, 3);
    store.sell(2, 2);
    assert_eq!(store.add("deputy", Role::Admin, 0), Status::Ok);
    for order in [1, 2] {
        assert_eq!(store.fetch(ANNA, order, None).0, Status::ApprovalRequired, "nobody alone");
    }
    assert_eq!(store.fetch(CASHIER, 1, None).0, Status::NotFound);
    assert_eq!(store.control(ON), Status::Ok);
    assert_eq!(store.fetch(ANNA, 2, None), (Status::Ok, 2), "as few as the tenant allows");
    assert_eq!(store.fetch(ANNA, 1, None).0, Status::ApprovalRequired);
    let fetch = Command::OrderFetch { order: OrderId(1), from: 0, count: u32::MAX };
    assert_eq!(
        store.propose(ANNA, Command::OrderFetch { order: OrderId(7), from: 0, count: 1 }),
        Err(Status::NotFound)
    );
    let id = store.propose(ANNA, fetch).unwrap();
    assert_eq!(store.fetch(ANNA, 1, Some(id)).0, Status::ApprovalRequired, "not yet");
    assert_eq!(store.approve(ADMIN, id), Status::Ok);
    assert_eq!(store.fetch(ANNA, 1, Some(id)), (Status::Ok, 3));
    assert_eq!(store.fetch(BO, 1, Some(id)).0, Status::NotFound, "it is anna's");
    assert_eq!(store.fetch(ANNA, 2, Some(id)).0, Status::NotFound, "of order 1");
    let mut store = store.reopened();
    assert_eq!(store.fetch(ANNA, 1, Some(id)), (Status::Ok, 3), "as often as a broken line needs");
    store.later(25 * HOUR_MS);
    assert_eq!(store.fetch(ANNA, 1, Some(id)).0, Status::ProposalLapsed);
    // Nobody says of a request that it was approved.
    let card = store.card(0);
    let forged = Grounds { approval: Some(id), ..Grounds::because("x") };
    let request = store.id();
    let void = Command::Void { card };
    assert_eq!(store.ask_as(request, ANNA, void.clone(), Some(forged.clone())).status, Status::Malformed);
    let forged = Grounds { approver: Some(BO.principal), ..forged };
    assert_eq!(store.ask_as(request, ANNA, void, Some(forged)).status, Status::Malformed);
}

#[test]
fn a_proposal_ends_with_its_time_its_withdrawal_or_its_proposers_access() {
    let mut store = Store::new();
    store.sell(1, 8);
    let void = |store: &Store, row| Command::Void { card: store.card(row) };
    let commands: Vec<Command> = (0..4).map(|row| void(&store, row)).collect();
    let lapsed = store.propose(ANNA, commands[0].clone()).unwrap();
    store.later(24 * HOUR_MS);
    assert_eq!(store.approve(BO, lapsed), Status::ProposalLapsed);
    assert_eq!(store.state(lapsed), ProposalState::Lapsed);
    let withdrawn = store.propose(ANNA, commands[1].clone()).unwrap();
    assert_eq!(store.ask(BO, Command::ProposalWithdraw(withdrawn)).status, Status::Forbidden);
    assert_eq!(store.ask(ANNA, Command::ProposalWithdraw(withdrawn)).status, Status::Ok);
    assert_eq!(store.approve(BO, withdrawn), Status::ProposalWithdrawn);
    let orphan = store.propose(ANNA, commands[2].clone()).unwrap();
    assert_eq!(store.ask(ADMIN, Command::PrincipalRevoke(ANNA.principal)).status, Status::Ok);
    let mut store = store.reopened();
    assert_eq!(store.approve(BO, orphan), Status::ProposalWithdrawn);
    assert_eq!(store.approve(ANNA, orphan), Status::Unauthenticated);
    for row in 0..3 {
        assert_eq!(store.lifecycle(row), Lifecycle::Sold);
    }
    // No more than so many wait.
    let last =
        (0..PROPOSALS_PER_PRINCIPAL_MAX).map(|_| store.propose(BO, commands[3].clone()).unwrap()).last();
    assert_eq!(store.propose(BO, commands[3].clone()), Err(Status::ProposalsFull));
    assert_eq!(store.ask(BO, Command::ProposalWithdraw(last.unwrap())).status, Status::Ok);
    assert!(store.propose(BO, commands[3].clone()).is_ok());
}

#[test]
fn a_tenants_proposals_are_its_own_and_the_houses_admins() {
    let mut store = Store::new();
    let north = Box::new(TenantSpec { name: "north".to_owned() });
    assert_eq!(store.ask(ADMIN, Command::TenantPut(north)).status, Status::Ok);
    assert_eq!(store.add("north-admin", Role::Admin, 1), Status::Ok);
    let tenant = TenantId(1);
    let own = Caller { tenant, principal: PrincipalId(6), role: Role::Admin, merchant: MerchantId(0) };
    let control = |control| Command::TenantControl { tenant, control };
    assert_eq!(
        store.ask(own, Command::TenantControl { tenant: TenantId(0), control: ON }).status,
        Status::Forbidden
    );
    // The house's admin could approve its end.
    assert_eq!(store.ask(own, control(ON)).status, Status::Ok);
    let id = store.propose(own, control(DualControl::default())).unwrap();
    assert_eq!(store.approve(BO, id), Status::NotFound, "no admin of the house");
    let list = Command::ProposalList { after: 0, count: 1, all: false };
    let told = |reply: Reply| match reply.body {
        ReplyBody::Proposals(report) => {
            let ControlReport { control, proposals } = *report;
            (control.on, proposals.len())
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(told(store.ask(BO, list.clone())), (false, 0));
    assert_eq!(told(store.ask(ADMIN, list.clone())), (false, 1));
    assert_eq!(told(store.ask(own, list)), (true, 1));
    assert_eq!(store.ask(ADMIN, Command::TenantFreeze(tenant)).status, Status::Ok);
    assert_eq!(store.approve(ADMIN, id), Status::Ok);
}
