//! Who may send what, and that numbers are unique.

use std::collections::HashSet;

use kami_engine::Role;
use kami_net::frame::{Opcode, Request};

/// One line an opcode of this version: `I`ssuer, `S`eller, `R`edeemer, `O`perator, `F`inance, `A`uditor.
const TABLE: &str = "
    HELLO            ISROFA
    PING             ISROFA
    REDEEM           RO
    REVERSE          RO
    QUERY            SROFA
    HISTORY          OFA
    FREEZE           O
    UNFREEZE         O
    VOID             O
    REDEEM_BATCH     RO
    SELL             S
    ORDER_FETCH      S
    BATCH_ACTIVATE   O
    BATCH_DEACTIVATE O
    BATCH_FREEZE     O
    BATCH_UNFREEZE   O
    BATCH_VOID       O
    BATCH_EXTEND     O
    BATCH_LIST       IOFA
    PRODUCT_ADD      -
    PRODUCT_SET      -
    PRODUCT_FREEZE   O
    PRODUCT_UNFREEZE O
    PRODUCT_LIST     ISOFA
    STOCK            ISOFA
    IMPORT_BEGIN     I
    IMPORT_CHUNK     I
    IMPORT_STATUS    I
    IMPORT_COMMIT    I
    IMPORT_ABORT     I
    PRINCIPAL_ADD    -
    PRINCIPAL_REVOKE -
    PRINCIPAL_LIST   OA
    STATS            OFA
    CHECKPOINT       O
    KEY_ROTATE       -
";

#[test]
fn roles_are_as_written_and_deny_by_default() {
    let mut seen = 0;
    for line in TABLE.lines().filter(|line| !line.trim().is_empty()) {
        let (name, letters) = line.trim().split_once(' ').unwrap();
        let opcode = *Opcode::ALL.iter().find(|opcode| opcode.code() == name).unwrap();
        for role in Role::ALL {
            let letter = role.name().to_uppercase().chars().next().unwrap();
            // Admin and auditor share a letter; an admin may do everything.
            let expected = role == Role::Admin || letters.contains(letter);
            assert_eq!(opcode.allows(role), expected, "{name} by {}", role.name());
        }
        seen += 1;
    }
    assert_eq!(seen, Opcode::ALL.iter().filter(|opcode| opcode.is_served()).count());
}

#[test]
fn numbers_and_names_are_unique_and_found_again() {
    let mut numbers = HashSet::new();
    let mut names = HashSet::new();
    for opcode in Opcode::ALL {
        assert!(numbers.insert(opcode.number()), "{}", opcode.code());
        assert!(names.insert(opcode.code()), "{}", opcode.code());
        assert_eq!(Opcode::from_number(opcode.number()), Some(*opcode));
        assert_eq!(opcode.is_served(), Request::layout(*opcode).is_some(), "{}", opcode.code());
    }
    assert!(Opcode::ALL.is_sorted_by_key(|opcode| opcode.number()));
}

/// Every event of a card that a client may ask for has an opcode of the same name.
#[test]
fn every_event_of_a_card_has_a_number() {
    for kind in kami_engine::record::Kind::ALL.iter().filter(|kind| (20..=86).contains(&kind.number())) {
        let name = match kind.name() {
            // An import is several commands, a tombstone is what a reversal may leave, a lock is what
            // wrong PINs cause, and a reveal is what fetching an order causes.
            "IMPORT" | "TOMBSTONE" | "PIN_LOCK" | "REVEAL" => continue,
            name => name,
        };
        assert!(Opcode::ALL.iter().any(|opcode| opcode.code() == name), "{name}");
    }
}
