//! Proofs of cards and checkpoints: what is proven holds, nothing that was changed passes, and nothing is signed that
//! contradicts what was signed.

use kami_engine::{
    Caller, CardProof, ConsistencyProof, Kind, Lifecycle, ProductSpec, ProofCheckpoint, ProofError,
    ReplyBody, RequestId, Status, VerifierKey, copy_keys, merkle,
};
use kami_wal::{Medium, SimMedium, SimMode};

use crate::store::{End, Store};

const SEGMENT_BYTES: u64 = 1 << 18;

impl Store {
    /// Cards of a batch of their own, sold, and some of them redeemed and reversed; their codes.
    fn trade(&self, batch: u32, cards: u64) -> Vec<String> {
        let prefix = format!("CODE-{batch}");
        let product = self.product(ProductSpec::single(&prefix, *b"CNY", 100));
        self.import(product, &prefix, cards);
        self.sell(product, cards as u32 * 2 / 3);
        let codes: Vec<String> = (0..cards).map(|row| format!("{prefix}-{row}")).collect();
        for (n, code) in codes.iter().enumerate().take(cards as usize / 2) {
            let redeemed = self.redeem(code, 0);
            assert_eq!(redeemed.status, Status::Ok);
            if n % 3 == 0 {
                assert_eq!(self.reverse(code, redeemed.request).status, Status::Ok);
            }
        }
        codes
    }

    fn sign(&self) -> Result<(ProofCheckpoint, VerifierKey), Status> {
        let reply = self.engine().sign_checkpoint(Caller::LOCAL, self.id()).unwrap();
        match reply.body {
            ReplyBody::SignedNote(note) => {
                Ok((ProofCheckpoint::parse(&note.note).unwrap(), note.key.parse().unwrap()))
            }
            _ => Err(reply.status),
        }
    }

    fn prove(&self, code: &str) -> Result<String, Status> {
        let reply = self.engine().prove_card(Caller::LOCAL, self.id(), self.digest(code), 0, 0).unwrap();
        match reply.body {
            ReplyBody::ProofPart(part) => Ok(String::from_utf8(part.bytes).unwrap()),
            _ => Err(reply.status),
        }
    }

    fn path(&self, old: u64, new: u64) -> Vec<[u8; 32]> {
        let reply = self.engine().prove_consistency(Caller::LOCAL, self.id(), old, new).unwrap();
        let ReplyBody::Path(path) = reply.body else { panic!("{:?}", reply.status) };
        path
    }
}

/// More than a thousand entries, so that there are complete tiles.
#[test]
fn every_card_is_proven_and_its_proof_survives_restarts() {
    let mut store = Store::with_segments(SEGMENT_BYTES);
    let codes = store.trade(1, 900);
    let (old, key) = store.sign().unwrap();
    let mut proofs = Vec::new();
    for (n, code) in codes.iter().enumerate().step_by(7) {
        let text = store.prove(code).unwrap();
        let proven = CardProof::parse(&text).unwrap().verify(&key).unwrap();
        let (state, events) = match n {
            n if n < 450 && n % 3 == 0 => (Lifecycle::Sold, 4),
            n if n < 450 => (Lifecycle::Redeemed, 3),
            n if n < 600 => (Lifecycle::Sold, 2),
            _ => (Lifecycle::Available, 1),
        };
        assert_eq!((proven.lifecycle, proven.events.len(), proven.card.row()), (state, events, n as u64));
        proofs.push(text);
    }
    for again in 0..3 {
        store.restart(End::Close);
        if again == 1 {
            store.data.remove("proofs/tiles").unwrap();
        }
        store.trade(2 + again, 100);
        let (new, same_key) = store.sign().unwrap();
        assert_eq!(same_key, key);
        let path = store.path(old.size(), new.size());
        let proof = ConsistencyProof { old: old.clone(), new, path };
        let read = ConsistencyProof::parse(&proof.encode()).unwrap();
        assert_eq!(read, proof);
        read.verify(&key).unwrap();
    }
    // A proof is made for good.
    assert!(proofs.iter().all(|text| CardProof::parse(text).unwrap().verify(&key).is_ok()));
    store.end(End::Close);
    assert_eq!(store.verify().problems, Vec::<String>::new());
}

#[test]
fn no_byte_of_a_proof_can_change() {
    let store = Store::with_segments(SEGMENT_BYTES);
    let codes = store.trade(1, 200);
    let (old, key) = store.sign().unwrap();
    let text = store.prove(&codes[3]).unwrap();
    CardProof::parse(&text).unwrap().verify(&key).unwrap();
    let passes = |bytes: Vec<u8>| {
        let text = String::from_utf8(bytes).ok();
        text.and_then(|text| CardProof::parse(&text).ok()).is_some_and(|proof| proof.verify(&key).is_ok())
    };
    for at in 0..text.len() {
        for bit in 0..8 {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1 << bit;
            assert!(!passes(bytes), "byte {at}, bit {bit}");
        }
    }
    for end in 0..text.len() {
        assert!(!passes(text.as_bytes()[..end].to_vec()), "cut at {end}");
    }
    assert!(!passes(format!("{text}\n").into_bytes()));

    store.trade(2, 50);
    let (new, _) = store.sign().unwrap();
    let path = store.path(old.size(), new.size());
    let text = ConsistencyProof { old, new, path }.encode();
    for at in 0..text.len() {
        let mut bytes = text.clone().into_bytes();
        bytes[at] ^= 1;
        let text = String::from_utf8(bytes).ok();
        let read = text.and_then(|text| ConsistencyProof::parse(&text).ok());
        assert!(read.is_none_or(|proof| proof.verify(&key).is_err()), "byte {at}");
    }
}

/// Whoever makes proofs from parts of others, or leaves something out, is found out.
#[test]
fn events_cannot_be_left_out_or_borrowed() {
    let store = Store::with_segments(SEGMENT_BYTES);
    let codes = store.trade(1, 200);
    let (_, key) = store.sign().unwrap();
    let proof = |n: usize| CardProof::parse(&store.prove(&codes[n]).unwrap()).unwrap();
    let (reversed, redeemed) = (proof(3), proof(4));
    assert_eq!((reversed.events.len(), redeemed.events.len()), (4, 3));

    let mut without = reversed.clone();
    without.events.remove(1);
    assert!(matches!(without.verify(&key), Err(ProofError::Unlinked { .. })));
    let mut without = reversed.clone();
    without.events.remove(2);
    assert!(matches!(without.verify(&key), Err(ProofError::Incomplete { .. })));
    let mut without = reversed.clone();
    without.events.pop();
    assert!(without.verify(&key).is_err());
    let mut other = reversed.clone();
    other.events[0] = redeemed.events[0].clone();
    assert!(matches!(other.verify(&key), Err(ProofError::Unlinked { .. })));
    let mut other = reversed.clone();
    other.card = redeemed.card;
    assert!(other.verify(&key).is_err());
    let mut other = reversed.clone();
    other.digests.chunk.swap(0, 16);
    assert!(matches!(other.verify(&key), Err(ProofError::Digest)));
    // The newest may be left out: what happened after is not proven to have not happened. That is what a proof to an
    // older checkpoint says, too.
    let mut earlier = reversed.clone();
    earlier.events.remove(0);
    assert_eq!(earlier.verify(&key).unwrap().lifecycle, Lifecycle::Redeemed);
}

/// The text travels in parts, all of them to one checkpoint, whatever happens meanwhile.
#[test]
fn a_proof_travels_in_parts() {
    let store = Store::with_segments(SEGMENT_BYTES);
    let codes = store.trade(1, 60);
    let digest = store.digest(&codes[3]);
    let part = |size, from| {
        let reply =
            store.engine().prove_card(Caller::LOCAL, RequestId::random(), digest, size, from).unwrap();
        match reply.body {
            ReplyBody::ProofPart(part) => Ok(*part),
            _ => Err(reply.status),
        }
    };
    let whole = part(0, 0).unwrap();
    store.session().freeze(store.id(), &codes[3]).wait().unwrap();
    let rest = part(whole.size, 100).unwrap();
    assert_eq!((rest.total, rest.from), (whole.total, 100));
    assert_eq!(rest.bytes, whole.bytes[100..]);
    assert_eq!(part(whole.size, u64::MAX).unwrap().bytes, b"");
    assert_eq!(part(whole.size + 1, 0).unwrap_err(), Status::NotFound, "a size that nobody signed");
    let (_, key) = store.sign().unwrap();
    let text = store.prove(&codes[3]).unwrap();
    assert_eq!(CardProof::parse(&text).unwrap().verify(&key).unwrap().events.len(), 5, "and the freeze");
}

/// Changes a byte of the log's first redemption and makes every checksum and chain value anew, as somebody with the
/// machine in his hands could.
fn tamper(store: &Store) {
    let mut places = Vec::new();
    store.entries(|record, entry| {
        if entry.head.kind == Kind::Redeem {
            places.push((record.bytes(), entry.lsn.bytes()));
        }
    });
    let (record, entry) = places[0];
    let base = SEGMENT_BYTES;
    store.data.edit("log/0000000001.segment", |bytes| {
        // The till of the redemption.
        bytes[(entry - base + 28) as usize] ^= 1;
        reseal(bytes, (record - base) as usize);
    });
    rechain(store);
}

/// The checksum of the record at `at`.
fn reseal(bytes: &mut [u8], at: usize) {
    let length = u32::from_le_bytes(bytes[at + 24..at + 28].try_into().unwrap()) as usize;
    let crc = crc32c::crc32c(&bytes[at + 4..at + length]);
    bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
}

/// Makes the chain values of the first segment anew, one after the other.
fn rechain(store: &Store) {
    store.data.edit("log/0000000001.segment", |bytes| {
        let base = SEGMENT_BYTES;
        let (mut at, mut from, mut value) = (16384_usize, 16384_usize, [0_u8; 32]);
        while u16::from_le_bytes(bytes[at + 4..at + 6].try_into().unwrap()) == 0xCA4D {
            let length = u32::from_le_bytes(bytes[at + 24..at + 28].try_into().unwrap()) as usize;
            if bytes[at + 7] == 3 {
                let to = u64::from_le_bytes(bytes[at + 56..at + 64].try_into().unwrap());
                let to = (to - base) as usize;
                value = *blake3::hash(&[&value[..], &bytes[from..to]].concat()).as_bytes();
                bytes[at + 64..at + 96].copy_from_slice(&value);
                reseal(bytes, at);
                from = to;
            }
            at += length;
            if at + 48 > bytes.len() {
                break;
            }
        }
    });
}

#[test]
fn a_tampered_log_is_caught() {
    let mut store = Store::with_segments(SEGMENT_BYTES);
    let codes = store.trade(1, 300);
    let (old, key) = store.sign().unwrap();
    store.end(End::Close);
    tamper(&store);
    let problems = store.verify().problems;
    assert!(
        problems.iter().any(|problem| problem.contains("the log is not what was signed")),
        "checksums and chain fit, the signature does not: {problems:?}"
    );
    assert!(
        !problems.iter().any(|problem| problem.contains("chain")),
        "the chain was made anew: {problems:?}"
    );

    // The running engine neither proves the card nor signs the other history, be the derived file there or not.
    for with_tiles in [true, false] {
        if !with_tiles {
            store.data.remove("proofs/tiles").unwrap();
        }
        store.open();
        if with_tiles {
            assert_eq!(store.prove(&codes[0]).unwrap_err(), Status::NotProvable);
        } else {
            assert_eq!(store.sign().unwrap_err(), Status::NotProvable);
        }
        store.end(End::Close);
    }
    // And without what the key directory remembers, whoever kept a checkpoint sees it.
    store.keys.remove("proof.last").unwrap();
    store.keys.remove("proof.key").unwrap();
    store.open();
    let (new, other_key) = store.sign().unwrap();
    assert_ne!(other_key, key);
    assert!(matches!(new.verify(&key), Err(ProofError::Origin { .. })), "another log by its name");
    let path = store.path(old.size(), new.size());
    let forked = merkle::is_consistent(old.size(), old.root(), new.size(), new.root(), &path);
    assert!(!forked, "the fork shows");
}

/// An older copy of the store, under the keys of today.
#[test]
fn an_older_copy_signs_nothing() {
    let mut store = Store::with_segments(SEGMENT_BYTES);
    store.trade(1, 60);
    store.sign().unwrap();
    store.end(End::Close);
    let copy = store.data.kill();
    store.open();
    store.trade(2, 60);
    let (signed, _) = store.sign().unwrap();
    store.end(End::Close);

    store.data = copy;
    assert_eq!(store.verify().signed_beyond, Some(signed.size()));
    store.open();
    assert_eq!(store.sign().unwrap_err(), Status::NotProvable, "shorter than what was signed");
    store.trade(2, 100);
    assert_eq!(store.sign().unwrap_err(), Status::NotProvable, "longer, and another history");
    // Trade goes on; only proofs do not.
    store.trade(3, 10);
}

/// A copy of the keys signs what the original signs, and knows what was signed.
#[test]
fn keys_are_copied_whole() {
    let mut store = Store::with_segments(SEGMENT_BYTES);
    let copy = |store: &Store| {
        let to = SimMedium::new(3, SimMode::Direct);
        copy_keys(&store.keys, &to).unwrap();
        to
    };
    assert_eq!(copy(&store).bytes("lookup.key"), store.keys.bytes("lookup.key"), "before anything is signed");
    store.trade(1, 60);
    let (_, key) = store.sign().unwrap();
    store.end(End::Close);
    let old = store.data.kill();
    store.open();
    store.trade(2, 10);
    store.sign().unwrap();
    store.end(End::Close);
    store.keys = copy(&store);
    store.open();
    assert_eq!(store.sign().unwrap().1, key);
    store.end(End::Close);
    store.data = old;
    store.open();
    assert_eq!(store.sign().unwrap_err(), Status::NotProvable);
}

/// A lost or exchanged key is no reason to make another in silence.
#[test]
fn without_its_key_nothing_is_signed() {
    let mut store = Store::with_segments(SEGMENT_BYTES);
    store.trade(1, 60);
    store.sign().unwrap();
    store.end(End::Close);
    let other = Store::with_segments(SEGMENT_BYTES);
    other.trade(1, 10);
    other.sign().unwrap();
    let key = store.keys.bytes("proof.key");
    assert_eq!(key.len(), 32);
    store.keys.remove("proof.key").unwrap();
    store.open();
    assert_eq!(store.sign().unwrap_err(), Status::NotProvable);
    store.end(End::Close);
    let file = store.keys.create("proof.key").unwrap();
    file.write_at(0, &other.keys.bytes("proof.key")).unwrap();
    store.open();
    assert_eq!(store.sign().unwrap_err(), Status::NotProvable);
    store.end(End::Close);
    store.keys.edit("proof.key", |bytes| *bytes = key);
    store.open();
    store.sign().unwrap();
}
