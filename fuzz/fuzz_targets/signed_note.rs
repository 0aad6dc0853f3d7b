//! What people hand over to be checked: signed notes, proofs of cards and of consistency, verifier keys. Anything that is
//! taken apart must be refused by a key that never signed it.

#![no_main]

use kami_engine::{CardProof, ConsistencyProof, ProofCheckpoint, VerifierKey};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let key: Option<VerifierKey> = text.lines().next().and_then(|line| line.parse().ok());
    let (card, consistency) = (CardProof::parse(text), ConsistencyProof::parse(text));
    if let Ok(checkpoint) = ProofCheckpoint::parse(text) {
        assert_eq!(checkpoint.note(), text, "a note is what was signed, byte for byte");
        let _ = checkpoint.origin();
        if let Some(key) = &key {
            assert!(checkpoint.verify(key).is_err());
        }
    }
    if let Ok(proof) = &card {
        let again = CardProof::parse(&proof.encode()).expect("what was encoded can be parsed");
        assert_eq!(again.encode(), proof.encode());
        if let Some(key) = &key {
            assert!(proof.verify(key).is_err());
        }
    }
    if let Ok(proof) = &consistency {
        let again = ConsistencyProof::parse(&proof.encode()).expect("what was encoded can be parsed");
        assert_eq!(again.encode(), proof.encode());
        if let Some(key) = &key {
            assert!(proof.verify(key).is_err());
        }
    }
});
