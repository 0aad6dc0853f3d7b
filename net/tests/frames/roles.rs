//! Who may send what, and that numbers are unique.

use std::collections::HashSet;

use kami_engine::Role;
use kami_net::frame::{Opcode, Request};

/// One line an opcode: `I`ssuer, `S`eller, `R`edeemer, `O`perator, `F`inance, `A`uditor.
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
    ORDER_FETCH      SO
    BATCH_ACTIVATE   O
    BATCH_DEACTIVATE O
    BATCH_FREEZE     O
    BATCH_UNFREEZE   O
    BATCH_VOID       O
    BATCH_EXTEND     O
    BATCH_LIST       IOFA
    BATCH_ACTIVATE_ROWS O
    BATCH_DEACTIVATE_ROWS O
    ACTIVATE         SO
    DEACTIVATE       O
    EXTEND           O
    EXPIRE           O
    RESTOCK          -
    REPLACE          O
    TRANSFER         O
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
    IMPORT_DUPLICATES I
    PRINCIPAL_ADD    -
    PRINCIPAL_REVOKE -
    PRINCIPAL_RENEW  -
    PRINCIPAL_LIST   OA
    TENANT_LIST      OA
    STATS            OFA
    CHECKPOINT       O
    KEY_ROTATE       -
    PROOF            OFA
    CONSISTENCY      OFA
    SIGNED_CHECKPOINT OFA

    OUTCOME_QUERY    ISROFA
    SANDBOX          ISRO
    HOLD             RO
    CAPTURE          RO
    RELEASE          RO
    HOLD_TIMEOUT     -
    LOAD             S
    REFUND_VALUE     OF
    RETURN           O
    SETTLE           F
    ADVICE           RO
    PIN_UNLOCK       O
    EXCEPTION_LIST   OFA
    EXCEPTION_RESOLVE O
    RESERVE          S
    CONFIRM          S
    CANCEL           SO
    RESERVE_TIMEOUT  -
    REALLOC          -
    ISSUE            SO
    SELL_LINES       S
    ORDER_STATUS     SOFA
    ORDER_LIST       SOFA
    ORDER_LINK       S
    RECONCILE        OFA
    TENANT_PUT       -
    TENANT_FREEZE    O
    TENANT_UNFREEZE  O
    TENANT_CONTROL   -
    EXPORT           O
    PROPOSE          OF
    APPROVE          OF
    PROPOSAL_LIST    OFA
    PROPOSAL_WITHDRAW OF
    ACCOUNT_PUT      F
    ACCOUNT_FREEZE   OF
    ACCOUNT_UNFREEZE OF
    POST             F
    ACCOUNT_QUERY    SOFA
    ACCOUNT_LIST     FA
    LIMIT_PUT        O
    LIMIT_LIST       OFA
    ACCOUNT_STATEMENT SOFA
    FEED_OPEN        OFA
    FEED_ACK         OFA
    CLOCK_ACCEPT     -
    READ_ONLY        -
";

/// Whoever may send a command may propose it, and nobody else: PROPOSE and APPROVE look at what is proposed.
#[test]
fn what_is_proposed_takes_the_role_of_what_is_done() {
    use kami_engine::{BatchId, CardRef, DualControl, OrderId, Proposed, RequestId, TenantId};
    let card = CardRef::new(1, 2);
    let proposed = [
        (Opcode::Void, Proposed::Void { card }),
        (Opcode::RefundValue, Proposed::RefundValue { card, original: RequestId(1), amount: 0 }),
        (Opcode::Export, Proposed::Export { batch: BatchId(1), count: 1 }),
        (
            Opcode::TenantControl,
            Proposed::TenantControl { tenant: TenantId(0), control: DualControl::default() },
        ),
    ];
    for (opcode, proposed) in proposed {
        assert_eq!(proposed.kind().name(), opcode.code());
        for role in Role::ALL {
            assert_eq!(proposed.allows(role), opcode.allows(role), "{} by {}", opcode.code(), role.name());
            assert!(!proposed.allows(role) || Opcode::Propose.allows(role) && Opcode::Approve.allows(role));
        }
    }
    // Sellers fetch their own; another's is not theirs to propose.
    let fetch = Proposed::OrderFetch { order: OrderId(1), from: 0, count: 1 };
    for role in Role::ALL {
        assert_eq!(fetch.allows(role), matches!(role, Role::Admin | Role::Operator), "{}", role.name());
    }
}

#[test]
fn roles_are_as_written_and_deny_by_default() {
    let mut seen = HashSet::new();
    for line in TABLE.lines().filter(|line| !line.trim().is_empty()) {
        let (name, letters) = line.trim().split_once(' ').unwrap();
        let known = Opcode::ALL.iter().find(|opcode| opcode.code() == name);
        let opcode = *known.unwrap_or_else(|| panic!("no opcode {name}"));
        for role in Role::ALL {
            let letter = role.name().to_uppercase().chars().next().unwrap();
            // Admin and auditor share a letter; an admin may do everything.
            let expected = role == Role::Admin || letters.contains(letter);
            assert_eq!(opcode.allows(role), expected, "{name} by {}", role.name());
        }
        assert!(seen.insert(name), "{name} twice");
    }
    let missing = Opcode::ALL.iter().map(|opcode| opcode.code()).find(|name| !seen.contains(name));
    assert_eq!(missing, None, "an opcode that nobody has said who may send");
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
            // wrong PINs cause, a reveal is what fetching an order causes, what was elsewhere comes with an import, and the
            // second card of a pair moves with the first.
            "IMPORT" | "TOMBSTONE" | "PIN_LOCK" | "REVEAL" | "MIGRATED" | "REPLACEMENT" | "RECEIVE" => {
                continue;
            }
            name => name,
        };
        assert!(Opcode::ALL.iter().any(|opcode| opcode.code() == name), "{name}");
    }
}
