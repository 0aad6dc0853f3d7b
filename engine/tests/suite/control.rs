//! What takes two people: who may propose and approve what, what is done then, and what stays after a restart.

use kami_engine::{
    BatchId, Caller, CardDigest, CardKind, Command, ControlReport, DualControl, GivenBack, Grounds, Kind,
    Lifecycle, OrderId, PROPOSALS_PER_PRINCIPAL_MAX, PrincipalSpec, ProductId, ProductSpec, ProposalId,
    ProposalState, Reply, ReplyBody, ReplyFlags, Request, RequestId, Role, Status, TenantId, TenantSpec,
};

use crate::store::{End, Store, caller};

const HOUR_MS: u64 = 3600 * 1000;
const ON: DualControl = DualControl { on: true, reveal_cards: 2, lapse_s: 24 * 3600 };

/// Added to the store in this order, so these are their numbers.
const ADMIN: Caller = caller(1, Role::Admin);
const ANNA: Caller = caller(2, Role::Operator);
const BO: Caller = caller(3, Role::Operator);
const CASHIER: Caller = caller(4, Role::Finance);
const SHOP: Caller = caller(5, Role::Seller);

/// A store with people, a product whose cards have a value of 100, and a batch of 8.
fn peopled() -> Store {
    let store = Store::new();
    for (name, known) in [("admin", ADMIN), ("anna", ANNA), ("bo", BO), ("cashier", CASHIER), ("shop", SHOP)]
    {
        assert_eq!(store.enrol(name, known.role), known);
    }
    let mut spec = ProductSpec::single("gift", *b"CNY", 100);
    (spec.kind, spec.terms.value_max) = (CardKind::StoredValue, 100);
    store.stock(spec, 8);
    store
}

impl Store {
    fn gift(&self, row: u32) -> CardDigest {
        self.digest(&format!("gift-{row}"))
    }

    fn ask_on(&self, id: RequestId, caller: Caller, command: Command, grounds: Grounds) -> Reply {
        self.run(Request { id, caller, grounds: Some(Box::new(grounds)), ..self.request(command) })
    }

    fn propose(&self, caller: Caller, command: Command) -> Result<ProposalId, Status> {
        let why = Grounds::because("customer's complaint 17");
        let reply = self.ask_on(self.id(), caller, Command::Propose(Box::new(command)), why);
        if reply.status == Status::Ok { Ok(ProposalId(reply.request.0)) } else { Err(reply.status) }
    }

    fn approve(&self, caller: Caller, id: ProposalId) -> Status {
        self.ask_by(caller, Command::Approve(id)).status
    }

    fn state_of(&self, id: ProposalId) -> ProposalState {
        let list = Command::ProposalList { after: 0, count: 500, all: true };
        let ReplyBody::Proposals(report) = self.ask_by(ADMIN, list).body else { panic!("no proposals") };
        report.proposals.iter().find(|proposal| proposal.id == id).unwrap().state
    }

    fn lifecycle(&self, row: u32) -> Lifecycle {
        self.card(&format!("gift-{row}")).lifecycle
    }

    fn sell_to_shop(&self, order: u128, count: u32) {
        let (order, product) = (OrderId(order), ProductId(1));
        let sold = self.ask_by(SHOP, Command::Sell { order, product, count, validity_s_min: 0 });
        assert_eq!(sold.status, Status::Ok);
    }

    fn control(&self, control: DualControl) -> Status {
        self.ask_by(ADMIN, Command::TenantControl { tenant: TenantId(0), control }).status
    }

    fn fetch(&self, caller: Caller, order: u128, under: Option<ProposalId>) -> (Status, u32) {
        let fetch = Command::OrderFetch { order: OrderId(order), from: 0, count: u32::MAX };
        let grounds = under.map(|id| Box::new(Grounds { approval: Some(id), ..Grounds::default() }));
        let reply = self.run(Request { caller, grounds, ..self.request(fetch) });
        match reply.body {
            ReplyBody::Cards(list) => (reply.status, list.count),
            _ => (reply.status, 0),
        }
    }
}

#[test]
fn a_sold_card_becomes_void_by_two_people_once() {
    let mut store = peopled();
    store.sell_to_shop(1, 2);
    let card = store.gift(0);
    let direct = store.id();
    let why = Grounds::because("stolen");
    let void = Command::Void { card };
    assert_eq!(store.ask_on(direct, ANNA, void.clone(), why.clone()).status, Status::ApprovalRequired);
    // The same attempt, proposed.
    let propose = Command::Propose(Box::new(void.clone()));
    assert_eq!(store.ask_as(direct, ANNA, propose.clone()).status, Status::Malformed, "without why");
    assert_eq!(store.ask_on(direct, ANNA, propose.clone(), why.clone()).status, Status::Ok);
    let again = store.ask_on(direct, ANNA, propose, why.clone());
    assert_eq!((again.status, again.flags), (Status::Ok, ReplyFlags::REPLAYED));
    let id = ProposalId(direct.0);
    assert_eq!(store.approve(ANNA, id), Status::SecondPersonRequired);
    assert_eq!(store.approve(CASHIER, id), Status::Forbidden);
    assert_eq!(store.approve(SHOP, id), Status::Forbidden);
    assert_eq!(store.lifecycle(0), Lifecycle::Sold);
    store.restart(End::Close);
    let approval = store.id();
    let done = store.ask_as(approval, BO, Command::Approve(id));
    assert_eq!(done.status, Status::Ok);
    assert_eq!(store.lifecycle(0), Lifecycle::Voided);
    assert_eq!(store.lifecycle(1), Lifecycle::Sold);
    store.restart(End::Close);
    let again = store.ask_as(approval, BO, Command::Approve(id));
    assert_eq!((again.status, again.flags, again.lsn), (Status::Ok, ReplyFlags::REPLAYED, done.lsn));
    assert_eq!(store.approve(ADMIN, id), Status::ProposalDone);
    // Whoever tried it alone hears that it is done.
    let tried = store.ask_on(direct, ANNA, void, why);
    assert_eq!((tried.status, tried.flags), (Status::Ok, ReplyFlags::REPLAYED));
    let ReplyBody::History(events) = store.ask_by(ANNA, Command::History { card }).body else {
        panic!("no history")
    };
    let grounds = events[0].grounds.as_ref().unwrap();
    assert_eq!((events[0].kind, events[0].principal), (Kind::Void, ANNA.principal));
    assert_eq!((grounds.approval, grounds.approver), (Some(id), Some(BO.principal)));
    assert_eq!(grounds.why, "stolen");
}

#[test]
fn a_refund_takes_two_once_that_is_switched_on_and_one_alone_cannot_switch_it_off() {
    let mut store = peopled();
    store.sell_to_shop(1, 2);
    let till = caller(99, Role::Redeemer);
    let (first, second) = (store.gift(0), store.gift(1));
    let redeem = |card| Command::Redeem { card, pin: None, amount: 40, partial: false };
    let (one, other) = (store.id(), store.id());
    assert_eq!(store.ask_as(one, till, redeem(first)).status, Status::Ok);
    assert_eq!(store.ask_as(other, till, redeem(second)).status, Status::Ok);
    for card in [first, second] {
        assert_eq!(store.ask_by(CASHIER, Command::Settle { card }).status, Status::Ok);
    }
    let refund = |card, original| Command::RefundValue { card, original, amount: 30 };
    let alone = store.id();
    assert_eq!(store.ask_as(alone, CASHIER, refund(first, one)).status, Status::Ok);
    // Nobody else could approve its end.
    assert_eq!(store.control(ON), Status::SecondPersonRequired);
    let deputy = store.enrol("deputy", Role::Admin);
    assert_eq!(store.control(ON), Status::Ok);
    store.restart(End::Close);
    let again = store.ask_as(alone, CASHIER, refund(first, one));
    assert_eq!((again.status, again.flags), (Status::Ok, ReplyFlags::REPLAYED), "what is done is done");
    assert_eq!(store.ask_by(CASHIER, refund(second, other)).status, Status::ApprovalRequired);
    let id = store.propose(CASHIER, refund(second, other)).unwrap();
    assert_eq!(store.approve(BO, id), Status::Ok);
    let ReplyBody::Card(report) = store.ask_by(ANNA, Command::Query { card: second }).body else {
        panic!("no card")
    };
    assert_eq!(report.remaining, 90);
    // What would be more than was redeemed is refused as if one person asked, and what became so stays open.
    assert_eq!(store.propose(CASHIER, refund(second, other)), Err(Status::InsufficientValue));
    let few = Command::RefundValue { card: second, original: other, amount: 10 };
    let (id, late) = (store.propose(CASHIER, few.clone()).unwrap(), store.propose(ANNA, few).unwrap());
    assert_eq!(store.approve(BO, id), Status::Ok);
    assert_eq!(store.approve(BO, late), Status::AlreadyReversed);
    assert_eq!(store.state_of(late), ProposalState::Open);
    // Its end, too, takes two.
    assert_eq!(store.control(DualControl::default()), Status::ApprovalRequired);
    assert_eq!(store.control(DualControl { reveal_cards: 1000, ..ON }), Status::ApprovalRequired);
    let off = Command::TenantControl { tenant: TenantId(0), control: DualControl::default() };
    assert_eq!(store.propose(ANNA, off.clone()), Err(Status::Forbidden));
    let id = store.propose(ADMIN, off).unwrap();
    assert_eq!(store.approve(ADMIN, id), Status::SecondPersonRequired);
    assert_eq!(store.approve(deputy, id), Status::Ok);
    store.restart(End::Close);
    let small = Command::RefundValue { card: first, original: one, amount: 10 };
    assert_eq!(store.ask_by(CASHIER, small).status, Status::Ok);
}

#[test]
fn an_exported_card_is_sold_and_its_code_leaves_through_its_order_alone() {
    let mut store = peopled();
    let export = Command::Export { batch: BatchId(1), count: 3 };
    assert_eq!(store.ask_by(ADMIN, export.clone()).status, Status::ApprovalRequired);
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
        Command::Return(Box::new(GivenBack { order: OrderId(order.0), cards: Vec::new(), legs: Vec::new() }))
    };
    // Seen: never for sale again.
    assert_eq!(store.ask_by(ANNA, give_back(id)).status, Status::Ok);
    assert_eq!(store.lifecycle(0), Lifecycle::Returned);
    // Not seen: it is as if it had never been.
    assert_eq!(store.approve(BO, unused), Status::Ok);
    assert_eq!(store.ask_by(ANNA, give_back(unused)).status, Status::Ok);
    assert_eq!(store.lifecycle(3), Lifecycle::Available);
    // As many as there are.
    let id = store.propose(BO, Command::Export { batch: BatchId(1), count: 100 }).unwrap();
    let late = store.propose(BO, Command::Export { batch: BatchId(1), count: 1 }).unwrap();
    assert_eq!(store.approve(ANNA, id), Status::Ok);
    store.restart(End::Close);
    assert_eq!(store.fetch(BO, id.0, None), (Status::Ok, 5));
    assert_eq!(store.approve(ANNA, late), Status::OutOfStock);
    assert_eq!(store.propose(BO, Command::Export { batch: BatchId(1), count: 1 }), Err(Status::OutOfStock));
}

#[test]
fn codes_of_anothers_order_are_fetched_under_an_approval_for_a_time() {
    let mut store = peopled();
    store.sell_to_shop(1, 3);
    store.sell_to_shop(2, 2);
    store.enrol("deputy", Role::Admin);
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
    store.restart(End::Close);
    assert_eq!(store.fetch(ANNA, 1, Some(id)), (Status::Ok, 3), "as often as a broken line needs");
    store.clock.advance(25 * HOUR_MS);
    assert_eq!(store.fetch(ANNA, 1, Some(id)).0, Status::ProposalLapsed);
    // Nobody says of a request that it was approved.
    let card = store.gift(0);
    let forged = Grounds { approval: Some(id), ..Grounds::because("x") };
    let request = store.id();
    let void = Command::Void { card };
    assert_eq!(store.ask_on(request, ANNA, void.clone(), forged.clone()).status, Status::Malformed);
    let forged = Grounds { approver: Some(BO.principal), ..forged };
    assert_eq!(store.ask_on(request, ANNA, void, forged).status, Status::Malformed);
}

#[test]
fn a_proposal_ends_with_its_time_its_withdrawal_or_its_proposers_access() {
    let mut store = peopled();
    store.sell_to_shop(1, 8);
    let void = |store: &Store, row| Command::Void { card: store.gift(row) };
    let commands: Vec<Command> = (0..4).map(|row| void(&store, row)).collect();
    let lapsed = store.propose(ANNA, commands[0].clone()).unwrap();
    store.clock.advance(24 * HOUR_MS);
    assert_eq!(store.approve(BO, lapsed), Status::ProposalLapsed);
    assert_eq!(store.state_of(lapsed), ProposalState::Lapsed);
    let withdrawn = store.propose(ANNA, commands[1].clone()).unwrap();
    assert_eq!(store.ask_by(BO, Command::ProposalWithdraw(withdrawn)).status, Status::Forbidden);
    assert_eq!(store.ask_by(ANNA, Command::ProposalWithdraw(withdrawn)).status, Status::Ok);
    assert_eq!(store.approve(BO, withdrawn), Status::ProposalWithdrawn);
    let orphan = store.propose(ANNA, commands[2].clone()).unwrap();
    assert_eq!(store.ask_by(ADMIN, Command::PrincipalRevoke(ANNA.principal)).status, Status::Ok);
    store.restart(End::Close);
    assert_eq!(store.approve(BO, orphan), Status::ProposalWithdrawn);
    assert_eq!(store.approve(ANNA, orphan), Status::Unauthenticated);
    for row in 0..3 {
        assert_eq!(store.lifecycle(row), Lifecycle::Sold);
    }
    // No more than so many wait.
    let last =
        (0..PROPOSALS_PER_PRINCIPAL_MAX).map(|_| store.propose(BO, commands[3].clone()).unwrap()).last();
    assert_eq!(store.propose(BO, commands[3].clone()), Err(Status::ProposalsFull));
    assert_eq!(store.ask_by(BO, Command::ProposalWithdraw(last.unwrap())).status, Status::Ok);
    assert!(store.propose(BO, commands[3].clone()).is_ok());
}

#[test]
fn a_tenants_proposals_are_its_own_and_the_houses_admins() {
    let store = peopled();
    let north = Box::new(TenantSpec { name: "north".to_owned() });
    assert_eq!(store.ask_by(ADMIN, Command::TenantPut(north)).status, Status::Ok);
    let tenant = TenantId(1);
    let own = store.enrol_as(PrincipalSpec { tenant, ..PrincipalSpec::of("north", Role::Admin, [6; 32]) });
    let control = |control| Command::TenantControl { tenant, control };
    assert_eq!(
        store.ask_by(own, Command::TenantControl { tenant: TenantId(0), control: ON }).status,
        Status::Forbidden
    );
    // The house's admin could approve its end.
    assert_eq!(store.ask_by(own, control(ON)).status, Status::Ok);
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
    assert_eq!(told(store.ask_by(BO, list.clone())), (false, 0));
    assert_eq!(told(store.ask_by(ADMIN, list.clone())), (false, 1));
    assert_eq!(told(store.ask_by(own, list)), (true, 1));
    assert_eq!(store.ask_by(ADMIN, Command::TenantFreeze(tenant)).status, Status::Ok);
    assert_eq!(store.approve(ADMIN, id), Status::Ok);
}
