//! Whom a running engine signs and proves for, what guessing by proofs costs, and how much memory a proof takes.

use kami_engine::{
    Caller, CardKind, CardProof, Command, PrincipalId, PrincipalSpec, ProductId, ProductSpec, ProofPart,
    Reply, ReplyBody, ReplyFlags, RequestId, Role, SignedNote, Status,
};
use kami_wal::Medium;

use crate::store::Store;

fn code(row: u32) -> String {
    format!("gift-{row}")
}

/// A store with ten cards of one product and 100,000.00 on each, the first five sold.
fn gifts() -> (Store, ProductId) {
    let store = Store::new();
    let mut spec = ProductSpec::single("gift", *b"CNY", 10_000_000);
    spec.kind = CardKind::StoredValue;
    let product = store.stock(spec, 10);
    store.sell(product, 5);
    (store, product)
}

impl Store {
    /// So many redemptions of one unit each.
    fn use_often(&self, code: &str, times: u32) {
        let card = self.digest(code);
        let redeem = || Command::Redeem { card, pin: None, amount: 1, partial: false };
        for n in 0..times {
            let replies = self.execute(vec![self.request(redeem())]);
            assert_eq!(replies[0].status, Status::Ok);
            if n % 64 == 0 {
                self.drive();
            }
        }
        self.drive();
    }

    fn revoke(&self, principal: PrincipalId) {
        assert_eq!(self.ask(Command::PrincipalRevoke(principal)).status, Status::Ok);
    }

    fn prove_to(&self, caller: Caller, code: &str, size: u64, from: u64) -> Reply {
        self.engine().prove_card(caller, self.id(), self.digest(code), size, from).unwrap()
    }

    fn part(&self, caller: Caller, code: &str, size: u64, from: u64) -> ProofPart {
        let reply = self.prove_to(caller, code, size, from);
        let ReplyBody::ProofPart(part) = reply.body else { panic!("{:?}", reply.status) };
        *part
    }

    fn sign_for(&self, caller: Caller, id: u128) -> (Reply, SignedNote) {
        let reply = self.engine().sign_checkpoint(caller, RequestId(id)).unwrap();
        let ReplyBody::SignedNote(note) = &reply.body else { panic!("{:?}", reply.status) };
        let note = SignedNote::clone(note);
        (reply, note)
    }
}

/// A guess that named the size of an old checkpoint was answered as any other, and counted nowhere.
#[test]
fn a_guess_by_the_proof_of_an_old_size_was_no_miss() {
    let (store, _) = gifts();
    let auditor = store.enrol("auditor", Role::Auditor);
    let (_, note) = store.sign_for(auditor, 10);
    for size in [0, note.size, note.size + 7] {
        let reply = store.prove_to(auditor, "NOBODY-HAS-IT", size, 0);
        assert_eq!((reply.status, reply.miss), (Status::NotFound, true), "size {size}");
    }
    // A card that is there, and a size that nobody signed, is no guess at a code.
    let reply = store.prove_to(auditor, &code(0), note.size + 7, 0);
    assert_eq!((reply.status, reply.miss), (Status::NotFound, false));
    assert_eq!(store.prove_to(auditor, &code(0), note.size, 0).status, Status::Ok);
}

/// Whoever may see some products only was told which codes exist, sold or not, and was handed orders as a whole.
#[test]
fn a_scope_kept_nobody_from_what_is_about_the_whole_log() {
    let (store, product) = gifts();
    let other = store.product(ProductSpec::single("tea", *b"CNY", 100));
    let scopes = [vec![product], vec![other], vec![product, other]];
    for (at, (products, name)) in scopes.into_iter().zip(["x", "y", "z"]).enumerate() {
        let scoped = store.enrol_for(name, Role::Auditor, products);
        let tail = store.engine().tail();
        let sign = store.engine().sign_checkpoint(scoped, RequestId(100 + at as u128)).unwrap();
        let path = store.engine().prove_consistency(scoped, RequestId(200 + at as u128), 1, 2).unwrap();
        let proofs = [code(0), code(9), "NOBODY-HAS-IT".to_owned()];
        let proofs = proofs.map(|code| store.prove_to(scoped, &code, 0, 0));
        for reply in [sign, path].iter().chain(&proofs) {
            assert_eq!((reply.status, reply.miss), (Status::ScopeDenied, false));
            assert!(matches!(reply.body, ReplyBody::None));
        }
        assert_eq!(store.engine().tail(), tail, "nothing was signed for it");
    }
    // Of classes, too.
    let spec = PrincipalSpec { classes: 1, ..PrincipalSpec::of("classed", Role::Auditor, [99; 32]) };
    let classed = store.enrol_as(spec);
    assert_eq!(store.prove_to(classed, &code(0), 0, 0).status, Status::ScopeDenied);
}

/// A revocation is the end of what its principal did; checkpoints were signed in its name behind it.
#[test]
fn a_revoked_principal_signed_behind_its_revocation() {
    let (store, _) = gifts();
    let auditor = store.enrol("auditor", Role::Auditor);
    let (_, note) = store.sign_for(auditor, 10);
    store.revoke(auditor.principal);
    let tail = store.engine().tail();
    let replies = [
        store.engine().sign_checkpoint(auditor, RequestId(11)).unwrap(),
        // Not even what it was given before.
        store.engine().sign_checkpoint(auditor, RequestId(10)).unwrap(),
        store.engine().prove_consistency(auditor, RequestId(12), 1, note.size).unwrap(),
        store.prove_to(auditor, &code(0), 0, 0),
        store.prove_to(auditor, &code(0), note.size, 0),
        store.prove_to(auditor, "NOBODY-HAS-IT", 0, 0),
    ];
    for reply in replies {
        assert_eq!(reply.status, Status::Unauthenticated);
    }
    assert_eq!(store.engine().tail(), tail);
}

/// A request that comes again because its reply was lost signed another checkpoint, and recorded that under the same id.
#[test]
fn a_signature_that_was_asked_for_again_was_another() {
    let (store, _) = gifts();
    let auditor = store.enrol("auditor", Role::Auditor);
    let (first, note) = store.sign_for(auditor, 10);
    assert_eq!(first.flags, ReplyFlags::default());
    store.session().freeze(RequestId(11), &code(0)).wait().unwrap();
    let tail = store.engine().tail();
    let (again, same) = store.sign_for(auditor, 10);
    assert_eq!((again.flags, again.lsn, again.time_ms), (ReplyFlags::REPLAYED, first.lsn, first.time_ms));
    assert_eq!(same, note);
    assert_eq!(store.engine().tail(), tail, "nothing is recorded twice");
    // Another's id is another's, and a new request is a new one.
    assert!(store.sign_for(Caller::LOCAL, 10).1.size > note.size);
    store.session().unfreeze(RequestId(12), &code(0)).wait().unwrap();
    assert!(store.sign_for(auditor, 13).1.size > note.size);
}

/// Each part of a proof had the whole proof made again, with all that it reads.
#[test]
fn a_proof_was_made_anew_for_each_of_its_parts() {
    let (store, _) = gifts();
    store.use_often(&code(0), 1500);
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
    let auditor = store.enrol("auditor", Role::Auditor);
    assert_eq!(store.prove_to(auditor, &code(0), first.size, 0).status, Status::NotProvable);
}

/// What a proof took of the server's memory grew with the card's history: a till that used one card all day, and an
/// auditor who asked for its proof, sufficed.
#[test]
fn a_proof_took_as_much_memory_as_its_card_had_a_history() {
    let (store, _) = gifts();
    store.use_often(&code(0), 31_000);
    let reply = store.prove_to(Caller::LOCAL, &code(0), 0, 0);
    assert_eq!((reply.status, reply.miss), (Status::ProofTooLong, false));
    // Others are proven as ever, and so is what it was before.
    let (_, note) = store.sign_for(Caller::LOCAL, 10);
    assert_eq!(store.part(Caller::LOCAL, &code(1), note.size, 0).size, note.size);
}
