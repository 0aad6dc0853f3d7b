//! Whom a running engine signs and proves for, what guessing by proofs costs, and how much memory a proof takes.

use std::sync::Arc;

use kami_engine::{
    Caller, CardKind, CardProof, ChannelId, Command, Engine, EngineOptions, ImportRow, ImportSpec, OrderId,
    PrincipalId, PrincipalSpec, ProductId, ProductSpec, ProofPart, Reply, ReplyBody, ReplyFlags, Request,
    RequestId, Role, Session, SignedNote, Status, TenantId, TerminalId, Work,
};
use kami_wal::{Drive, Medium, SimMedium, SimMode, WalOptions};

use crate::clock::HandClock;

struct Store {
    data: SimMedium,
    engine: Engine,
    product: ProductId,
}

fn code(n: u32) -> String {
    format!("CODE-{n:06}")
}

impl Store {
    /// Ten cards with 100,000.00 on each, the first five sold.
    fn new() -> Store {
        let data = SimMedium::new(1, SimMode::Direct);
        let engine = Engine::open(EngineOptions {
            data: Arc::new(data.clone()),
            keys: Arc::new(SimMedium::new(2, SimMode::Direct)),
            wal: WalOptions { segment_bytes: 4 << 20, drive: Drive::Manual, ..WalOptions::default() },
            clock: Box::<HandClock>::default(),
            accept_clock: false,
        })
        .unwrap();
        let session = Session::new(&engine, Caller::LOCAL);
        let mut spec = ProductSpec::single("gift", *b"CNY", 10_000_000);
        spec.kind = CardKind::StoredValue;
        let product = session.add_product(RequestId(1), spec).wait().unwrap().id;
        let codes: Vec<String> = (0..10).map(code).collect();
        let rows = codes.iter().map(|code| ImportRow { code: code.as_bytes(), ..Default::default() });
        session.import(RequestId(2), ImportSpec::of(product, 10, 16), rows, |_| ()).unwrap();
        session.sell(RequestId(3), OrderId(1), product, 5).wait().unwrap();
        Store { data, engine, product }
    }

    fn session(&self) -> Session {
        Session::new(&self.engine, Caller::LOCAL)
    }

    /// Redemptions of one unit each.
    fn redeem(&self, n: u32, ids: std::ops::Range<u128>) {
        let card = self.engine.digest(TenantId(0), code(n).as_bytes()).unwrap();
        let mut work = Work::default();
        for id in ids {
            work.requests.clear();
            work.requests.push(Request {
                id: RequestId(id),
                caller: Caller::LOCAL,
                terminal: TerminalId(0),
                channel: ChannelId(0),
                deadline: None,
                grounds: None,
                command: Command::Redeem { card, pin: None, amount: 1, partial: false },
            });
            self.engine.execute(&mut work);
            assert_eq!(work.replies.pop().unwrap().status, Status::Ok);
            if id % 64 == 0 {
                self.engine.drive().unwrap();
            }
        }
        self.engine.drive().unwrap();
    }

    fn add(&self, name: &str, role: Role, products: Vec<ProductId>) -> Caller {
        let spec = PrincipalSpec { products, ..PrincipalSpec::of(name, role, [name.as_bytes()[0]; 32]) };
        let reply = self.session().run(RequestId::random(), Command::PrincipalAdd(Box::new(spec))).wait();
        let ReplyBody::Principals(added) = reply.unwrap().body else { panic!("nobody was added") };
        Caller { principal: added[0].id, role, ..Caller::LOCAL }
    }

    fn revoke(&self, principal: PrincipalId) {
        let command = Command::PrincipalRevoke(principal);
        self.session().run(RequestId::random(), command).wait().unwrap();
    }

    fn prove(&self, caller: Caller, code: &str, size: u64, from: u64) -> Reply {
        let digest = self.engine.digest(TenantId(0), code.as_bytes()).unwrap();
        self.engine.prove_card(caller, RequestId::random(), digest, size, from).unwrap()
    }

    fn part(&self, caller: Caller, code: &str, size: u64, from: u64) -> ProofPart {
        let reply = self.prove(caller, code, size, from);
        let ReplyBody::ProofPart(part) = reply.body else { panic!("{:?}", reply.status) };
        *part
    }

    fn sign(&self, caller: Caller, id: u128) -> (Reply, SignedNote) {
        let reply = self.engine.sign_checkpoint(caller, RequestId(id)).unwrap();
        let ReplyBody::SignedNote(note) = &reply.body else { panic!("{:?}", reply.status) };
        let note = SignedNote::clone(note);
        (reply, note)
    }
}

/// A guess that named the size of an old checkpoint was answered as any other, and counted nowhere.
#[test]
fn a_guess_by_the_proof_of_an_old_size_was_no_miss() {
    let store = Store::new();
    let auditor = store.add("auditor", Role::Auditor, Vec::new());
    let (_, note) = store.sign(auditor, 10);
    for size in [0, note.size, note.size + 7] {
        let reply = store.prove(auditor, "NOBODY-HAS-IT", size, 0);
        assert_eq!((reply.status, reply.miss), (Status::NotFound, true), "size {size}");
    }
    // A card that is there, and a size that nobody signed, is no guess at a code.
    let reply = store.prove(auditor, &code(0), note.size + 7, 0);
    assert_eq!((reply.status, reply.miss), (Status::NotFound, false));
    assert_eq!(store.prove(auditor, &code(0), note.size, 0).status, Status::Ok);
}

/// Whoever may see some products only was told which codes exist, sold or not, and was handed orders as a whole.
#[test]
fn a_scope_kept_nobody_from_what_is_about_the_whole_log() {
    let store = Store::new();
    let spec = ProductSpec::single("tea", *b"CNY", 100);
    let other = store.session().add_product(RequestId(20), spec).wait().unwrap().id;
    let scopes = [vec![store.product], vec![other], vec![store.product, other]];
    for (at, (products, name)) in scopes.into_iter().zip(["x", "y", "z"]).enumerate() {
        let scoped = store.add(name, Role::Auditor, products);
        let tail = store.engine.tail();
        let sign = store.engine.sign_checkpoint(scoped, RequestId(100 + at as u128)).unwrap();
        let path = store.engine.prove_consistency(scoped, RequestId(200 + at as u128), 1, 2).unwrap();
        let proofs = [code(0), code(9), "NOBODY-HAS-IT".to_owned()];
        let proofs = proofs.map(|code| store.prove(scoped, &code, 0, 0));
        for reply in [sign, path].iter().chain(&proofs) {
            assert_eq!((reply.status, reply.miss), (Status::ScopeDenied, false));
            assert!(matches!(reply.body, ReplyBody::None));
        }
        assert_eq!(store.engine.tail(), tail, "nothing was signed for it");
    }
    // Of classes, too.
    let spec = PrincipalSpec { classes: 1, ..PrincipalSpec::of("classed", Role::Auditor, [99; 32]) };
    let reply = store.session().run(RequestId(300), Command::PrincipalAdd(Box::new(spec))).wait();
    let ReplyBody::Principals(added) = reply.unwrap().body else { panic!("nobody was added") };
    let classed = Caller { principal: added[0].id, role: Role::Auditor, ..Caller::LOCAL };
    assert_eq!(store.prove(classed, &code(0), 0, 0).status, Status::ScopeDenied);
}

/// A revocation is the end of what its principal did; checkpoints were signed in its name behind it.
#[test]
fn a_revoked_principal_signed_behind_its_revocation() {
    let store = Store::new();
    let auditor = store.add("auditor", Role::Auditor, Vec::new());
    let (_, note) = store.sign(auditor, 10);
    store.revoke(auditor.principal);
    let tail = store.engine.tail();
    let replies = [
        store.engine.sign_checkpoint(auditor, RequestId(11)).unwrap(),
        // Not even what it was given before.
        store.engine.sign_checkpoint(auditor, RequestId(10)).unwrap(),
        store.engine.prove_consistency(auditor, RequestId(12), 1, note.size).unwrap(),
        store.prove(auditor, &code(0), 0, 0),
        store.prove(auditor, &code(0), note.size, 0),
        store.prove(auditor, "NOBODY-HAS-IT", 0, 0),
    ];
    for reply in replies {
        assert_eq!(reply.status, Status::Unauthenticated);
    }
    assert_eq!(store.engine.tail(), tail);
}

/// A request that comes again because its reply was lost signed another checkpoint, and recorded that under the same id.
#[test]
fn a_signature_that_was_asked_for_again_was_another() {
    let store = Store::new();
    let auditor = store.add("auditor", Role::Auditor, Vec::new());
    let (first, note) = store.sign(auditor, 10);
    assert_eq!(first.flags, ReplyFlags::default());
    store.session().freeze(RequestId(11), &code(0)).wait().unwrap();
    let tail = store.engine.tail();
    let (again, same) = store.sign(auditor, 10);
    assert_eq!((again.flags, again.lsn, again.time_ms), (ReplyFlags::REPLAYED, first.lsn, first.time_ms));
    assert_eq!(same, note);
    assert_eq!(store.engine.tail(), tail, "nothing is recorded twice");
    // Another's id is another's, and a new request is a new one.
    assert!(store.sign(Caller::LOCAL, 10).1.size > note.size);
    store.session().unfreeze(RequestId(12), &code(0)).wait().unwrap();
    assert!(store.sign(auditor, 13).1.size > note.size);
}

/// Each part of a proof had the whole proof made again, with all that it reads.
#[test]
fn a_proof_was_made_anew_for_each_of_its_parts() {
    let store = Store::new();
    store.redeem(0, 1000..2500);
    let first = store.part(Caller::LOCAL, &code(0), 0, 0);
    assert!(first.total > 2 * first.bytes.len() as u64, "it travels in three parts and more");
    // What it was read from is gone: only what was made already can still be handed out.
    let files = store.data.list("batches").unwrap();
    assert!(!files.is_empty());
    for file in files {
        store.data.edit(&format!("batches/{file}"), |bytes| bytes.fill(0xee));
    }
    let mut text = first.bytes.clone();
    while (text.len() as u64) < first.total {
        let part = store.part(Caller::LOCAL, &code(0), first.size, text.len() as u64);
        assert_eq!((part.total, part.from, part.size), (first.total, text.len() as u64, first.size));
        text.extend_from_slice(&part.bytes);
    }
    let proof = CardProof::parse(std::str::from_utf8(&text).unwrap()).unwrap();
    let proven = proof.verify(&first.key.parse().unwrap()).unwrap();
    assert_eq!(proven.events.len(), 2 + 1500);
    // It is not kept for whom it was not made.
    let auditor = store.add("auditor", Role::Auditor, Vec::new());
    assert_eq!(store.prove(auditor, &code(0), first.size, 0).status, Status::NotProvable);
}

/// What a proof took of the server's memory grew with the card's history: a till that used one card all day, and an
/// auditor who asked for its proof, sufficed.
#[test]
fn a_proof_took_as_much_memory_as_its_card_had_a_history() {
    let store = Store::new();
    store.redeem(0, 1000..32_000);
    let reply = store.prove(Caller::LOCAL, &code(0), 0, 0);
    assert_eq!((reply.status, reply.miss), (Status::ProofTooLong, false));
    // Others are proven as ever, and so is what it was before.
    let (_, note) = store.sign(Caller::LOCAL, 10);
    assert_eq!(store.part(Caller::LOCAL, &code(1), note.size, 0).size, note.size);
}
