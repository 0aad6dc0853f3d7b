//! The state machine of cards, by tables.

use super::*;
use crate::identity::{DocumentId, MerchantId, PrincipalId, RequestId};

const NOW: u64 = 1_000_000;
const ME: PrincipalId = PrincipalId(7);
const SHOP: MerchantId = MerchantId(3);
const ID: RequestId = RequestId(42);

fn view(state: &str) -> View {
    let lsn = Lsn::from_bytes(4096).unwrap();
    let mut view = View {
        word: Word::PRISTINE,
        kind: CardKind::Single,
        batch_active: true,
        frozen: false,
        batch_voided: false,
        valid_from_ms: 0,
        expires_ms: 0,
        face: 100,
        reversal_ms: 1000,
        now_ms: NOW,
        held: false,
        begun_ms: 0,
        from_use: false,
    };
    let mut words = state.split('+');
    let lifecycle = match words.next().unwrap() {
        "pristine" | "available" => Lifecycle::Available,
        "reserved" => Lifecycle::Reserved,
        "sold" => Lifecycle::Sold,
        "redeemed" => Lifecycle::Redeemed,
        "expired" => Lifecycle::Expired,
        "voided" => Lifecycle::Voided,
        "returned" => Lifecycle::Returned,
        other => panic!("no lifecycle: {other}"),
    };
    let mut flags = Flags::NONE;
    for word in words {
        match word {
            "frozen" => flags = flags.with(Flags::FROZEN),
            "active" => flags = flags.with(Flags::ACTIVE),
            "inactive" => flags = flags.with(Flags::INACTIVE),
            "settled" => flags = flags.with(Flags::SETTLED),
            "used" => flags = flags.with(Flags::USED),
            "held" => view.held = true,
            "batch-frozen" => view.frozen = true,
            "batch-inactive" => view.batch_active = false,
            "batch-voided" => view.batch_voided = true,
            "past-end" => view.expires_ms = NOW,
            "before-end" => view.expires_ms = NOW + 1,
            "early" => view.valid_from_ms = NOW + 1,
            "in-time" => view.valid_from_ms = NOW,
            "multi-use" => view.kind = CardKind::MultiUse,
            other => panic!("no modifier: {other}"),
        }
    }
    if !state.starts_with("pristine") {
        view.word = Word::new(lsn, lifecycle, flags);
    }
    view
}

fn action(name: &str) -> Action {
    let redeem = |amount, pin| Action::Redeem { amount, pin, partial: false };
    match name {
        "redeem" => redeem(0, Pin::Right),
        "redeem-face" => redeem(100, Pin::Right),
        "redeem-more" => redeem(101, Pin::Right),
        "redeem-part" => redeem(99, Pin::Right),
        "redeem-wrong-pin" => redeem(0, Pin::Wrong),
        "redeem-locked" => redeem(0, Pin::Locked),
        "unlock" => Action::PinUnlock { locked: true },
        "unlock-free" => Action::PinUnlock { locked: false },
        "reverse" => Action::Reverse(ID),
        "freeze" => Action::Freeze,
        "unfreeze" => Action::Unfreeze,
        "void" => Action::Void,
        "activate" => Action::Activate,
        "deactivate" => Action::Deactivate,
        "extend" => Action::Extend { expires_ms: NOW + 9 },
        "extend-back" => Action::Extend { expires_ms: NOW - 1 },
        "expire" => Action::Expire,
        "restock" => Action::Restock { reference: DocumentId(5) },
        other => panic!("no action: {other}"),
    }
}

/// The id of the request had this effect before.
fn effect(kind: Kind) -> Effect {
    Effect {
        kind,
        lsn: Lsn::from_bytes(2048).unwrap(),
        time_ms: NOW - 1000,
        principal: ME,
        merchant: SHOP,
        body: 5,
        reversed: false,
        amount: 0,
        remaining: 0,
        held: 0,
        deadline_ms: 0,
        other: None,
    }
}

fn past(names: &str) -> Past {
    let mut past = Past::default();
    for name in names.split('+') {
        match name {
            "new" => {}
            "seen-redeem" => past.same = Some(effect(Kind::Redeem)),
            "seen-reverse" => past.same = Some(effect(Kind::Reverse)),
            "seen-tombstone" => past.same = Some(effect(Kind::Tombstone)),
            "seen-freeze" => past.same = Some(effect(Kind::Freeze)),
            "seen-other-body" => past.same = Some(Effect { body: 6, ..effect(Kind::Redeem) }),
            "seen-by-other" => {
                past.same = Some(Effect { principal: PrincipalId(8), ..effect(Kind::Redeem) });
            }
            "poisoned" => past.tombstone = true,
            "tombstones" => past.tombstones = TOMBSTONES_MAX,
            "reversals" => past.reversals = REVERSALS_MAX,
            "of-redeem" => past.original = Some(effect(Kind::Redeem)),
            "of-freeze" => past.original = Some(effect(Kind::Freeze)),
            "of-reversed" => past.original = Some(Effect { reversed: true, ..effect(Kind::Redeem) }),
            "of-other-shop" => {
                past.original = Some(Effect { merchant: MerchantId(4), ..effect(Kind::Redeem) });
            }
            "of-old" => past.original = Some(Effect { time_ms: NOW - 1001, ..effect(Kind::Redeem) }),
            other => panic!("no past: {other}"),
        }
    }
    past
}

/// One line: state, past, action, outcome.
#[track_caller]
fn check(line: &str, asker: &Asker) {
    let mut words = line.split_whitespace();
    let (state, before, name, expected) =
        (words.next().unwrap(), words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
    let view = view(state);
    let past = past(before);
    let found = match decide(&view, &past, action(name), asker) {
        Outcome::Refuse(status) => status.code().to_owned(),
        Outcome::Replay => format!("replay-{}", past.same.unwrap().kind.name()),
        Outcome::Move { kind, lifecycle, flags, status, original } => {
            assert!(flags.contains(Flags::HAS_EFFECTS), "{line}");
            assert_eq!(original.is_some(), kind == Kind::Reverse, "{line}");
            assert_eq!(status == Status::Tombstoned, kind == Kind::Tombstone, "{line}");
            let frozen = if flags.contains(Flags::FROZEN) { "+frozen" } else { "" };
            let used = if flags.contains(Flags::USED) { "+used" } else { "" };
            let own = if flags.contains(Flags::ACTIVE) {
                "+active"
            } else if flags.contains(Flags::INACTIVE) {
                "+inactive"
            } else if flags.contains(Flags::OWN_END) {
                "+end"
            } else {
                ""
            };
            format!("{}>{}{frozen}{used}{own}", kind.name(), lifecycle.name())
        }
    };
    assert_eq!(found, expected, "{line}");
}

const ASKER: Asker =
    Asker { principal: ME, merchant: SHOP, any_merchant: false, body: 5, second: Second::None };

#[test]
fn every_state_times_every_action() {
    let table = "
        pristine   new  redeem    CARD_NOT_VALID
        available  new  redeem    CARD_NOT_VALID
        reserved   new  redeem    CARD_NOT_VALID
        sold       new  redeem    REDEEM>REDEEMED+used
        redeemed   new  redeem    ALREADY_REDEEMED
        expired    new  redeem    EXPIRED
        voided     new  redeem    VOIDED
        returned   new  redeem    RETURNED

        pristine   new  reverse   TOMBSTONE>AVAILABLE
        available  new  reverse   TOMBSTONE>AVAILABLE
        reserved   new  reverse   TOMBSTONE>RESERVED
        sold       new  reverse   TOMBSTONE>SOLD
        redeemed   new  reverse   TOMBSTONE>REDEEMED
        expired    new  reverse   TOMBSTONE>EXPIRED
        voided     new  reverse   TOMBSTONE>VOIDED
        returned   new  reverse   TOMBSTONE>RETURNED

        pristine   new  freeze    FREEZE>AVAILABLE+frozen
        available  new  freeze    FREEZE>AVAILABLE+frozen
        reserved   new  freeze    FREEZE>RESERVED+frozen
        sold       new  freeze    FREEZE>SOLD+frozen
        redeemed   new  freeze    FREEZE>REDEEMED+frozen
        expired    new  freeze    FREEZE>EXPIRED+frozen
        voided     new  freeze    VOIDED
        returned   new  freeze    FREEZE>RETURNED+frozen

        available+frozen  new  unfreeze  UNFREEZE>AVAILABLE
        reserved+frozen   new  unfreeze  UNFREEZE>RESERVED
        sold+frozen       new  unfreeze  UNFREEZE>SOLD
        redeemed+frozen   new  unfreeze  UNFREEZE>REDEEMED
        expired+frozen    new  unfreeze  UNFREEZE>EXPIRED
        voided+frozen     new  unfreeze  UNFREEZE>VOIDED
        returned+frozen   new  unfreeze  UNFREEZE>RETURNED
        pristine          new  unfreeze  ILLEGAL_TRANSITION
        sold              new  unfreeze  ILLEGAL_TRANSITION

        pristine   new  void      VOID>VOIDED
        available  new  void      VOID>VOIDED
        reserved   new  void      ILLEGAL_TRANSITION
        sold       new  void      APPROVAL_REQUIRED
        redeemed   new  void      ILLEGAL_TRANSITION
        expired    new  void      VOID>VOIDED
        voided     new  void      VOIDED
        returned   new  void      VOID>VOIDED
    ";
    table.lines().filter(|line| !line.trim().is_empty()).for_each(|line| check(line, &ASKER));
}

#[test]
fn guards_and_their_precedence() {
    let table = "
        sold+frozen             new  redeem           FROZEN
        sold+batch-frozen       new  redeem           FROZEN
        sold+batch-inactive     new  redeem           NOT_ACTIVE
        sold+inactive           new  redeem           NOT_ACTIVE
        sold+batch-inactive+active  new  redeem       REDEEM>REDEEMED+used+active
        sold+early              new  redeem           NOT_YET_VALID
        sold+in-time            new  redeem           REDEEM>REDEEMED+used
        sold+past-end           new  redeem           EXPIRED
        sold+before-end         new  redeem           REDEEM>REDEEMED+used
        sold+batch-voided       new  redeem           REDEEM>REDEEMED+used
        sold+past-end+frozen    new  redeem           EXPIRED
        sold+multi-use          new  redeem           UNSUPPORTED
        sold                    new  redeem-face      REDEEM>REDEEMED+used
        sold                    new  redeem-more      INSUFFICIENT_VALUE
        sold                    new  redeem-part      ILLEGAL_TRANSITION
        sold                    new  redeem-wrong-pin CARD_NOT_VALID
        redeemed                new  redeem-wrong-pin CARD_NOT_VALID
        voided                  new  redeem-wrong-pin CARD_NOT_VALID
        sold                    new  redeem-locked    PIN_LOCKED
        redeemed                new  redeem-locked    PIN_LOCKED
        available               new  redeem-locked    CARD_NOT_VALID
        sold                    poisoned  redeem-locked  REVERSED_BEFORE_ARRIVAL
        redeemed                seen-redeem  redeem-locked  replay-REDEEM
        sold+frozen             new  unlock           PIN_UNLOCK>SOLD+frozen
        available               new  unlock           PIN_UNLOCK>AVAILABLE
        redeemed                new  unlock           PIN_UNLOCK>REDEEMED
        sold                    new  unlock-free      ILLEGAL_TRANSITION
        available+batch-voided  new  redeem           CARD_NOT_VALID
        available+batch-voided  new  freeze           VOIDED
        available+batch-voided  new  void             VOIDED
        available+past-end      new  redeem           CARD_NOT_VALID
        available+past-end      new  void             VOID>VOIDED
        sold+frozen             new  freeze           ILLEGAL_TRANSITION
        available+frozen        new  void             VOID>VOIDED+frozen
    ";
    table.lines().filter(|line| !line.trim().is_empty()).for_each(|line| check(line, &ASKER));
}

#[test]
fn when_a_card_may_be_used() {
    let table = "
        pristine                new  activate    ILLEGAL_TRANSITION
        pristine+batch-inactive new  activate    ACTIVATE>AVAILABLE+active
        sold+inactive           new  activate    ACTIVATE>SOLD+active
        sold+active             new  activate    ILLEGAL_TRANSITION
        reserved+inactive       new  activate    ACTIVATE>RESERVED+active
        redeemed+inactive       new  activate    ALREADY_REDEEMED
        voided+inactive         new  activate    VOIDED
        returned+inactive       new  activate    RETURNED
        expired+inactive        new  activate    EXPIRED
        sold+inactive+past-end  new  activate    EXPIRED
        sold+inactive+frozen    new  activate    ACTIVATE>SOLD+frozen+active
        pristine                new  deactivate  DEACTIVATE>AVAILABLE+inactive
        sold+active             new  deactivate  DEACTIVATE>SOLD+inactive
        sold+batch-inactive     new  deactivate  ILLEGAL_TRANSITION
        sold+inactive           new  deactivate  ILLEGAL_TRANSITION
        sold+used               new  deactivate  ILLEGAL_TRANSITION
        sold+held               new  deactivate  ILLEGAL_TRANSITION
        redeemed+used           new  deactivate  ALREADY_REDEEMED
        sold+used+batch-inactive  new  redeem    REDEEM>REDEEMED+used

        pristine                new  restock     ILLEGAL_TRANSITION
        reserved                new  restock     ILLEGAL_TRANSITION
        sold                    new  restock     ILLEGAL_TRANSITION
        redeemed                new  restock     ILLEGAL_TRANSITION
        expired                 new  restock     ILLEGAL_TRANSITION
        returned                new  restock     RESTOCK>VOIDED
        returned+frozen         new  restock     RESTOCK>VOIDED+frozen
        voided                  new  restock     VOIDED

        sold                    new  extend      ILLEGAL_TRANSITION
        sold+before-end         new  extend      EXTEND>SOLD+end
        sold+before-end         new  extend-back ILLEGAL_TRANSITION
        sold+past-end           new  extend      EXTEND>SOLD+end
        available+past-end      new  extend      EXTEND>AVAILABLE+end
        available+past-end+batch-voided  new  extend  VOIDED
        reserved+before-end     new  extend      ILLEGAL_TRANSITION
        redeemed+before-end     new  extend      ALREADY_REDEEMED
        voided+before-end       new  extend      VOIDED
        returned+before-end     new  extend      RETURNED
        sold                    new  expire      EXPIRE>SOLD+end
        available               new  expire      EXPIRE>AVAILABLE+end
        sold+held               new  expire      EXPIRE>SOLD+end
        sold+before-end         new  expire      EXPIRE>SOLD+end
        sold+past-end           new  expire      EXPIRED
        sold+past-end+held      new  expire      ILLEGAL_TRANSITION
        reserved                new  expire      ILLEGAL_TRANSITION
        redeemed                new  expire      ALREADY_REDEEMED
        voided                  new  expire      VOIDED
        returned                new  expire      RETURNED
    ";
    let operator = Asker { any_merchant: true, ..ASKER };
    table.lines().filter(|line| !line.trim().is_empty()).for_each(|line| check(line, &operator));
    check("sold+inactive new activate ACTIVATE>SOLD+active", &ASKER);
    check("available+inactive new activate NOT_SOLD", &ASKER);
    check("reserved+inactive new activate NOT_SOLD", &ASKER);
}

#[test]
fn ids_have_one_effect() {
    let table = "
        redeemed         seen-redeem      redeem   replay-REDEEM
        sold             seen-redeem      redeem   replay-REDEEM
        voided           seen-redeem      redeem   replay-REDEEM
        redeemed         seen-other-body  redeem   ID_REUSED
        redeemed         seen-by-other    redeem   ID_REUSED
        redeemed         seen-reverse     redeem   ID_REUSED
        redeemed         seen-redeem      reverse  ID_REUSED
        sold             seen-reverse     reverse  replay-REVERSE
        sold             seen-tombstone   reverse  replay-TOMBSTONE
        sold+frozen      seen-freeze      freeze   replay-FREEZE
        sold             seen-freeze      unfreeze ID_REUSED
        sold             poisoned         redeem   REVERSED_BEFORE_ARRIVAL
        available        poisoned         redeem   CARD_NOT_VALID
        available        seen-tombstone   redeem   CARD_NOT_VALID
        sold             poisoned         reverse  TOMBSTONED
        sold             tombstones       reverse  REVERSALS_EXHAUSTED
        available        tombstones       reverse  TOMBSTONED
        available        poisoned         reverse  TOMBSTONED
        available        seen-tombstone   reverse  TOMBSTONED
        available        seen-freeze      reverse  TOMBSTONED
        available        seen-other-body  reverse  TOMBSTONED
        available        seen-by-other    reverse  TOMBSTONED
        available        of-freeze        reverse  TOMBSTONED
        reserved         tombstones       reverse  TOMBSTONED
    ";
    table.lines().filter(|line| !line.trim().is_empty()).for_each(|line| check(line, &ASKER));
}

#[test]
fn a_redemption_is_reversed_once_in_time_by_its_own_shop() {
    let table = "
        redeemed           of-redeem      reverse  REVERSE>SOLD
        redeemed+frozen    of-redeem      reverse  REVERSE>SOLD+frozen
        redeemed+past-end  of-redeem      reverse  REVERSE>SOLD
        redeemed           of-reversed    reverse  ALREADY_REVERSED
        redeemed           of-old         reverse  REVERSE_WINDOW_CLOSED
        redeemed           of-other-shop  reverse  SCOPE_DENIED
        redeemed+settled   of-redeem      reverse  SETTLED
        redeemed           of-freeze      reverse  ILLEGAL_TRANSITION
        redeemed           of-redeem+reversals    reverse  REVERSALS_EXHAUSTED
        redeemed           of-reversed+reversals  reverse  ALREADY_REVERSED
        redeemed           seen-redeem+reversals  redeem   replay-REDEEM
        sold               seen-reverse+reversals reverse  replay-REVERSE
        sold               reversals              redeem   REDEEM>REDEEMED+used
        redeemed           reversals              reverse  TOMBSTONE>REDEEMED
    ";
    table.lines().filter(|line| !line.trim().is_empty()).for_each(|line| check(line, &ASKER));
    let operator = Asker { any_merchant: true, ..ASKER };
    check("redeemed of-other-shop reverse REVERSE>SOLD", &operator);
}

/// No state, past or action makes it panic, and what it never may do it never does.
#[test]
fn total_and_within_the_rules() {
    let lifecycles =
        ["pristine", "available", "reserved", "sold", "redeemed", "expired", "voided", "returned"];
    let modifiers = [
        "",
        "+frozen",
        "+batch-frozen",
        "+batch-inactive",
        "+batch-voided",
        "+past-end",
        "+early",
        "+settled",
    ];
    let pasts = [
        "new",
        "seen-redeem",
        "seen-reverse",
        "seen-tombstone",
        "poisoned",
        "tombstones",
        "reversals+of-redeem",
        "of-redeem",
        "of-freeze",
        "of-reversed",
        "of-other-shop",
        "of-old",
    ];
    let actions = [
        "redeem",
        "redeem-face",
        "redeem-more",
        "redeem-part",
        "redeem-wrong-pin",
        "redeem-locked",
        "unlock",
        "reverse",
        "freeze",
        "unfreeze",
        "void",
        "activate",
        "deactivate",
        "extend",
        "expire",
        "restock",
    ];
    for lifecycle in lifecycles {
        for (first, second) in modifiers.iter().flat_map(|a| modifiers.iter().map(move |b| (a, b))) {
            let view = view(&format!("{lifecycle}{first}{second}"));
            for (before, name) in pasts.iter().flat_map(|p| actions.iter().map(move |a| (p, a))) {
                let Outcome::Move { kind, lifecycle: to, .. } =
                    decide(&view, &past(before), action(name), &ASKER)
                else {
                    continue;
                };
                let from = view.word.lifecycle();
                let leaves = from != to;
                assert!(!(leaves && from == Lifecycle::Voided), "a void card came back");
                assert!(
                    !(leaves && from == Lifecycle::Redeemed) || kind == Kind::Reverse,
                    "a redeemed card left by {kind:?}"
                );
                assert!(
                    to != Lifecycle::Redeemed || from == Lifecycle::Redeemed || from == Lifecycle::Sold,
                    "redeemed from {from:?}"
                );
            }
        }
    }
}
