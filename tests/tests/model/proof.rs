//! Proofs in the life of a store: what was signed and given out holds through every crash.

use kami_engine::{
    CardProof, Command, ConsistencyProof, Poisoned, ProofCheckpoint, Reply, ReplyBody, Request, RequestId,
    Status, TenantId, TerminalId, VerifierKey, merkle::is_consistent,
};

use super::workload::AUDITOR;
use super::world::World;
use crate::ask::{Ask, What};

/// Checkpoints that were given out, and the key they are verified with.
#[derive(Clone, Default)]
pub struct Published {
    pub key: Option<VerifierKey>,
    pub notes: Vec<ProofCheckpoint>,
}

impl World {
    /// Has a checkpoint signed or a card proven, and checks it as a stranger would.
    pub fn prove(&mut self) {
        let places: Vec<_> = self.oracle.places().collect();
        if self.random.percent(30) || places.is_empty() {
            self.sign();
        } else {
            let (tenant, place) = *self.random.pick(&places);
            let code = self.oracle.card(place).code.clone();
            self.prove_card(tenant, &code, place);
        }
        if self.medium.is_cut() {
            return;
        }
        self.settle();
        // Signing may have moved engine time.
        self.execute(&[Ask::new(7, AUDITOR, What::Stats)]);
    }

    fn sign(&mut self) {
        let id = RequestId(u128::from(self.random.next()));
        let reply = self.engine().sign_checkpoint(AUDITOR, id);
        let Some(reply) = self.unless_cut(reply) else { return };
        let ReplyBody::SignedNote(signed) = reply.body else { return self.is_short(reply.status) };
        let key: VerifierKey = signed.key.parse().expect("a verifier key");
        assert_eq!(*self.published.key.get_or_insert(key.clone()), key, "the key never changes");
        self.publish(ProofCheckpoint::parse(&signed.note).expect("a checkpoint"));
    }

    /// A new checkpoint continues every other that was given out.
    fn publish(&mut self, note: ProofCheckpoint) {
        let key = self.published.key.clone().expect("the key is known");
        note.verify(&key).expect("signed by the store");
        let old = match self.published.notes.len() as u64 {
            0 => None,
            notes => Some(self.published.notes[self.random.below(notes) as usize].clone()),
        };
        if let Some(old) = old {
            let (from, to) = (old.size().min(note.size()), old.size().max(note.size()));
            let reply = self.engine().prove_consistency(AUDITOR, RequestId(8), from, to);
            let Some(reply) = self.unless_cut(reply) else { return };
            let ReplyBody::Path(path) = reply.body else { panic!("{:?}", reply.status) };
            let (old, new) = if from == old.size() { (old, note.clone()) } else { (note.clone(), old) };
            assert!(is_consistent(from, old.root(), to, new.root(), &path), "{from} in {to}");
            let proof = ConsistencyProof { old, new, path };
            ConsistencyProof::parse(&proof.encode()).expect("as written").verify(&key).expect("consistent");
            *self.met.entry("two checkpoints are consistent".to_owned()).or_default() += 1;
        }
        self.published.notes.push(note);
    }

    fn prove_card(&mut self, tenant: u16, code: &str, place: (u32, usize)) {
        let engine = self.engine().clone();
        let caller = kami_engine::Caller { tenant: TenantId(tenant), ..AUDITOR };
        let digest = engine.digest(TenantId(tenant), code.as_bytes()).expect("a code");
        // An id that comes again is given the checkpoint that it had signed.
        let ids = [(); 2].map(|()| RequestId(u128::from(self.random.next())));
        let reply = engine.prove_card(caller, ids[0], digest, 0, 0);
        let Some(reply) = self.unless_cut(reply) else { return };
        let card = self.oracle.card(place);
        if reply.status == Status::Migrated {
            assert!(card.origin.is_some() && card.past.is_empty(), "all that happened to it here is proven");
            return;
        }
        let ReplyBody::ProofPart(part) = reply.body else { return self.is_short(reply.status) };
        assert_eq!(part.total, part.bytes.len() as u64, "a small proof travels in one part");
        let text = String::from_utf8(part.bytes).expect("text");
        let proof = CardProof::parse(&text).expect("as written");
        // The key comes with a checkpoint; nothing is signed for that, because nothing happened since.
        let Some(reply) = self.unless_cut(engine.sign_checkpoint(caller, ids[1])) else { return };
        let ReplyBody::SignedNote(signed) = reply.body else { panic!("{:?}", reply.status) };
        assert_eq!(signed.note, proof.checkpoint.note(), "no other checkpoint is made of nothing new");
        let key: VerifierKey = signed.key.parse().expect("a verifier key");
        assert_eq!(*self.published.key.get_or_insert(key.clone()), key, "the key never changes");
        let proven = proof.verify(&key).expect("it was just made");
        assert_eq!((proven.card.batch(), proven.card.row() as usize), place);
        assert_eq!(proven.digest, digest);

        self.commands += 1;
        let history = Request {
            id: RequestId(11),
            caller,
            terminal: TerminalId(0),
            channel: kami_engine::ChannelId(0),
            deadline: None,
            grounds: None,
            command: Command::History { card: digest },
        };
        let Some(reply) = self.unless_cut(engine.submit_blocking(history)) else { return };
        let ReplyBody::History(events) = reply.body else { panic!("{:?}", reply.status) };
        // What it was in another system is told and not proven.
        let events: Vec<_> =
            events.into_iter().filter(|event| event.kind != kami_engine::Kind::Migrated).collect();
        let told = |events: &[kami_engine::HistoryEvent]| -> Vec<_> {
            events.iter().map(|event| (event.kind, event.lsn, event.request, event.related)).collect()
        };
        assert_eq!(told(&proven.events), told(&events), "the proof tells the whole history");
        let here = events.len() - 1;
        assert_eq!(proven.events[..here], events[..here]);
        *self.met.entry(format!("a card was proven {}", proven.lifecycle.name())).or_default() += 1;
        self.publish(proof.checkpoint);
    }

    /// A full disk may refuse to record a checkpoint; nothing else may.
    fn is_short(&mut self, status: Status) {
        assert!(matches!(status, Status::Busy | Status::DiskFull), "{status:?}");
    }

    /// Everything that was ever given out is still a beginning of the log.
    pub fn check_published(&mut self) {
        if self.published.notes.is_empty() || self.medium.is_cut() {
            return;
        }
        self.prove();
        let Some(newest) = self.published.notes.iter().max_by_key(|note| note.size()).cloned() else {
            return;
        };
        for old in self.published.notes.clone() {
            let reply = self.engine().prove_consistency(AUDITOR, RequestId(12), old.size(), newest.size());
            let Some(reply) = self.unless_cut(reply) else { return };
            let ReplyBody::Path(path) = reply.body else { panic!("{:?}", reply.status) };
            assert!(
                is_consistent(old.size(), old.root(), newest.size(), newest.root(), &path),
                "what was signed at {} is not the beginning of the log any more",
                old.size()
            );
        }
    }

    fn unless_cut(&self, reply: Result<Reply, Poisoned>) -> Option<Reply> {
        match reply {
            // Files that could not be read any more.
            Ok(reply) if self.medium.is_cut() && !reply.status.is_done() => None,
            Ok(reply) => Some(reply),
            Err(Poisoned) => {
                assert!(self.medium.is_cut(), "only a power cut ends the log");
                None
            }
        }
    }
}
