//! What is noted of redemptions that were made offline: under which ids, and what looking it up costs.

use std::sync::Arc;

use kami_engine::{
    Advice, Caller, CardDigest, ChannelId, Command, Engine, EngineOptions, ImportRow, ImportSpec, Lifecycle,
    OrderId, PrincipalSpec, ProductId, ProductSpec, Reply, ReplyBody, ReplyFlags, Request, RequestId, Role,
    Session, Status, TenantId, TerminalId, Work, verify,
};
use kami_wal::{Drive, Medium, SimMedium, SimMode, WalOptions};

use crate::clock::HandClock;

struct Store {
    data: SimMedium,
    keys: SimMedium,
    engine: Option<Engine>,
    product: ProductId,
}

fn code(n: u32) -> String {
    format!("CODE-{n:06}")
}

fn open(data: &SimMedium, keys: &SimMedium) -> Engine {
    let medium = |medium: &SimMedium| Arc::new(medium.clone()) as Arc<dyn Medium>;
    Engine::open(EngineOptions {
        data: medium(data),
        keys: medium(keys),
        wal: WalOptions { segment_bytes: 4 << 20, drive: Drive::Manual, ..WalOptions::default() },
        clock: Box::<HandClock>::default(),
        accept_clock: false,
    })
    .unwrap()
}

impl Store {
    /// Ten cards, all sold.
    fn new() -> Store {
        let (data, keys) = (SimMedium::new(1, SimMode::Direct), SimMedium::new(2, SimMode::Direct));
        let engine = open(&data, &keys);
        let session = Session::new(&engine, Caller::LOCAL);
        let spec = ProductSpec::single("tea", *b"CNY", 100);
        let product = session.add_product(RequestId(1), spec).wait().unwrap().id;
        let codes: Vec<String> = (0..10).map(code).collect();
        let rows = codes.iter().map(|code| ImportRow { code: code.as_bytes(), ..Default::default() });
        session.import(RequestId(2), ImportSpec::of(product, 10, 16), rows, |_| ()).unwrap();
        session.sell(RequestId(3), OrderId(1), product, 10).wait().unwrap();
        Store { data, keys, engine: Some(engine), product }
    }

    fn engine(&self) -> &Engine {
        self.engine.as_ref().unwrap()
    }

    fn restart(&mut self) {
        self.engine.take().unwrap().close().unwrap();
        (self.data, self.keys) = (self.data.kill(), self.keys.kill());
        self.engine = Some(open(&self.data, &self.keys));
    }

    fn session(&self) -> Session {
        Session::new(self.engine(), Caller::LOCAL)
    }

    fn add(&self, name: &str, role: Role, products: Vec<ProductId>) -> Caller {
        let mut key = [0; 32];
        key[..name.len()].copy_from_slice(name.as_bytes());
        let spec = PrincipalSpec { products, ..PrincipalSpec::of(name, role, key) };
        let reply = self.session().run(RequestId::random(), Command::PrincipalAdd(Box::new(spec))).wait();
        let ReplyBody::Principals(added) = reply.unwrap().body else { panic!("nobody was added") };
        Caller { principal: added[0].id, role, ..Caller::LOCAL }
    }

    fn digest(&self, code: &str) -> CardDigest {
        self.engine().digest(TenantId(0), code.as_bytes()).unwrap()
    }

    fn ask(&self, caller: Caller, id: u128, command: Command) -> Reply {
        let mut work = Work::default();
        work.requests.push(Request {
            id: RequestId(id),
            caller,
            terminal: TerminalId(7),
            channel: ChannelId(0),
            deadline: None,
            grounds: None,
            command,
        });
        self.engine().execute(&mut work);
        self.engine().drive().unwrap();
        work.replies.pop().unwrap()
    }

    fn advise(&self, caller: Caller, id: u128, card: CardDigest) -> Reply {
        let advice = Advice { card, pin: None, amount: 0, made_ms: 1_800_000_000_000 };
        self.ask(caller, id, Command::Advice(Box::new(advice)))
    }

    fn outcome(&self, caller: Caller, card: CardDigest, asked: u128) -> Reply {
        self.ask(caller, 999_999, Command::OutcomeOf { card, request: RequestId(asked) })
    }
}

/// Goods were handed out offline, the report was noted as an exception, and its reply was lost. The till was told that
/// nothing came of it; sent once more, the redemption took effect beside the exception that somebody settles.
#[test]
fn a_redemption_took_effect_under_the_id_of_a_noted_report() {
    let mut store = Store::new();
    let till = store.add("till", Role::Redeemer, Vec::new());
    let other = store.add("other", Role::Redeemer, Vec::new());
    let operator = store.add("operator", Role::Operator, Vec::new());
    let elsewhere = {
        let spec = ProductSpec::single("coffee", *b"CNY", 100);
        let product = store.session().add_product(RequestId(50), spec).wait().unwrap().id;
        store.add("elsewhere", Role::Operator, vec![product])
    };
    store.session().freeze(RequestId(60), &code(0)).wait().unwrap();
    let (frozen, nobodys) = (store.digest(&code(0)), store.digest("NOBODY-HAS-IT"));
    let redeem = |card| Command::Redeem { card, pin: None, amount: 0, partial: false };
    let noted = [(frozen, 100), (nobodys, 101)].map(|(card, id)| {
        let noted = store.advise(till, id, card);
        assert_eq!(noted.status, Status::ExceptionNoted);
        (card, id, noted)
    });
    store.session().unfreeze(RequestId(61), &code(0)).wait().unwrap();
    for again in 0..2 {
        for (card, id, noted) in &noted {
            let same = |reply: Reply| {
                assert_eq!(reply.status, Status::ExceptionNoted);
                assert_eq!((reply.lsn, reply.flags, reply.miss), (noted.lsn, ReplyFlags::REPLAYED, false));
                assert_eq!(reply.time_ms, noted.time_ms);
            };
            same(store.outcome(till, *card, *id));
            same(store.outcome(operator, *card, *id));
            same(store.ask(till, *id, redeem(*card)));
            same(store.advise(till, *id, *card));
            // Who did not send it, and may not see it, is told what is said of a request that never came.
            assert_eq!(store.outcome(other, *card, *id).status, Status::NoEffect);
            assert_eq!(store.outcome(elsewhere, *card, *id).status, Status::NoEffect);
            // One id, one effect: of no kind, and for nobody.
            assert_eq!(store.ask(other, *id, redeem(*card)).status, Status::IdReused);
            let hold = Command::Hold { card: *card, pin: None, amount: 0, partial: false, seconds: 60 };
            assert_eq!(store.ask(till, *id, hold).status, Status::IdReused);
            assert_eq!(store.ask(operator, *id, Command::Freeze { card: *card }).status, Status::IdReused);
            let reverse = Command::Reverse { card: *card, original: RequestId(*id) };
            assert_eq!(store.ask(till, *id, reverse).status, Status::IdReused);
        }
        assert_eq!(store.session().query(&code(0)).wait().unwrap().lifecycle, Lifecycle::Sold);
        if again == 0 {
            store.restart();
        }
    }
    // Under an id of its own it is redeemed as ever, and reading takes no id.
    assert_eq!(store.ask(operator, 100, Command::Query { card: frozen }).status, Status::Ok);
    assert_eq!(store.ask(till, 102, redeem(frozen)).status, Status::Ok);
    assert_eq!(store.outcome(till, frozen, 102).status, Status::Ok);
    store.engine.take().unwrap().close().unwrap();
    let report = verify(Arc::new(store.data.clone()), Arc::new(store.keys.clone())).unwrap();
    assert_eq!(report.problems, Vec::<String>::new());
}

/// To list exceptions, all of all tenants were looked through under the lock that every redemption waits for.
#[test]
fn a_list_of_exceptions_looked_through_everybodys() {
    let store = Store::new();
    let nobodys = store.digest("NOBODY-HAS-IT");
    for (till, from) in [(0, 1000), (1, 2000), (2, 3000)] {
        let till = store.add(&format!("till {till}"), Role::Redeemer, Vec::new());
        for n in 0..1000 {
            assert_eq!(store.advise(till, from + n, nobodys).status, Status::ExceptionNoted);
        }
    }
    let list = |caller, after, all| {
        let reply = store.ask(caller, 9, Command::ExceptionList { after, count: 500, all });
        let ReplyBody::Exceptions(page) = reply.body else { panic!("{:?}", reply.status) };
        (reply.flags.contains(ReplyFlags::PARTIAL), page)
    };
    for all in [false, true] {
        // Another tenant has none, and none is looked at for it.
        let foreign = Caller { tenant: TenantId(1), role: Role::Auditor, ..Caller::LOCAL };
        let (more, page) = list(foreign, 0, all);
        assert!(!more && page.rows.is_empty() && page.reached == 0);
        // Who sees none of its own is told so in steps that are bounded.
        let scoped = store.add(&format!("scoped {all}"), Role::Auditor, vec![store.product]);
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
