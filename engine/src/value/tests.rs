//! The state machine of cards that carry value, by tables.

use super::*;
use crate::card::Effect;
use crate::identity::{MerchantId, PrincipalId};
use crate::word::Word;

const NOW: u64 = 1_000_000;
const ASKER: Asker = Asker {
    principal: PrincipalId(7),
    merchant: MerchantId(3),
    any_merchant: false,
    body: 5,
    second: Second::None,
};
const ID: RequestId = RequestId(42);

/// `kind/lifecycle remaining held [modifiers]`.
fn scene(text: &str) -> (View, Value, Past) {
    let lsn = Lsn::from_bytes(4096);
    let mut words = text.split('+');
    let kind = match words.next().unwrap() {
        "single" => CardKind::Single,
        "uses" => CardKind::MultiUse,
        "value" => CardKind::StoredValue,
        other => panic!("no kind: {other}"),
    };
    let mut lifecycle = Lifecycle::Sold;
    let mut flags = Flags::REVEALED.with(Flags::HAS_EFFECTS);
    let face = if kind == CardKind::MultiUse { 5 } else { 100 };
    let mut purse = Purse::fresh(face, lsn);
    let mut view = View {
        word: Word::PRISTINE,
        kind,
        batch_active: true,
        begun_ms: 0,
        from_use: false,
        frozen: false,
        batch_voided: false,
        valid_from_ms: 0,
        expires_ms: 0,
        face,
        reversal_ms: 1000,
        now_ms: NOW,
        held: false,
    };
    let mut value =
        Value { purse, held: HeldOf::default(), open: None, value_max: 0, partial: false, hold_ms: 60_000 };
    let mut past = Past::default();
    let effect = |kind, amount| Effect {
        kind,
        lsn: Lsn::from_bytes(2048).unwrap(),
        time_ms: NOW - 1000,
        principal: PrincipalId(7),
        merchant: MerchantId(3),
        body: 5,
        reversed: false,
        amount,
        remaining: 0,
        held: 0,
        deadline_ms: 0,
        other: None,
    };
    for word in words {
        match word {
            "free" => {
                // Of no value; before what else there is of it.
                view.face = 0;
                purse = Purse::fresh(0, lsn);
            }
            "unsold" => lifecycle = Lifecycle::Available,
            "spent" => {
                lifecycle = Lifecycle::Redeemed;
                (purse.remaining, purse.redeemed) = (0, face);
                flags = flags.with(Flags::USED);
            }
            "used" => {
                (purse.remaining, purse.redeemed) = (face - 2, 2);
                flags = flags.with(Flags::USED);
            }
            "settled" => {
                purse.settled = Lsn::from_bytes(4096);
                flags = flags.with(Flags::SETTLED);
            }
            "frozen" => view.frozen = true,
            "replaced" => {
                lifecycle = Lifecycle::Voided;
                purse.remaining = 0;
                flags = flags.with(Flags::REPLACED);
            }
            "over" => view.expires_ms = NOW,
            "loads" => value.value_max = 120,
            "partial" => value.partial = true,
            "full" => purse.effects = EFFECTS_MAX,
            "many-holds" => value.held = HeldOf { amount: 1, live: 1, count: HOLDS_MAX },
            "held" | "held-late" | "held-by-other" => {
                let live = word != "held-late";
                let amount = if kind == CardKind::Single { view.face } else { 3 };
                let deadline_ms = if live { NOW + 1 } else { NOW };
                let merchant = MerchantId(if word == "held-by-other" { 4 } else { 3 });
                let lsn = Lsn::from_bytes(2048).unwrap();
                value.open = Some(Hold { amount, deadline_ms, merchant, lsn });
                let live = usize::from(live);
                value.held = HeldOf { amount: amount * live as i64, live, count: 1 };
                flags = flags.with(Flags::HELD);
                view.held = live > 0;
                past.original = Some(effect(Kind::Hold, amount));
            }
            "captured" => past.resolved = Some(Kind::Capture),
            "timed-out" => past.resolved = Some(Kind::HoldTimeout),
            "of-redeem" => past.original = Some(effect(Kind::Redeem, 2)),
            "of-old" => {
                past.original = Some(Effect { time_ms: NOW - 1001, ..effect(Kind::Redeem, 2) });
            }
            "of-load" => past.original = Some(effect(Kind::Load, 99)),
            "of-freeze" => past.original = Some(effect(Kind::Freeze, 0)),
            "refunded" => (past.was_refunded, past.refunded) = (true, 2),
            "poisoned" => (past.tombstone, past.poisoned) = (true, true),
            other => panic!("no modifier: {other}"),
        }
    }
    value.purse = purse;
    view.word = Word::new(lsn.unwrap(), lifecycle, flags);
    (view, value, past)
}

fn action(text: &str) -> Action {
    let (name, amount) = text.split_once(':').unwrap_or((text, "0"));
    let amount: Money = amount.parse().unwrap();
    match name {
        "redeem" => Action::Redeem { amount, pin: Pin::Right, partial: false },
        "redeem-part" => Action::Redeem { amount, pin: Pin::Right, partial: true },
        "redeem-wrong-pin" => Action::Redeem { amount, pin: Pin::Wrong, partial: false },
        "hold" => Action::Hold { amount, pin: Pin::Right, partial: false, seconds: 0 },
        "capture" => Action::Capture { hold: ID, amount },
        "release" => Action::Release { hold: ID },
        "timeout" => Action::HoldTimeout { hold: ID },
        "load" => Action::Load { amount },
        "refund" => Action::Refund { original: ID, amount },
        "reverse" => Action::Reverse(ID),
        "settle" => Action::Settle,
        other => panic!("no action: {other}"),
    }
}

#[track_caller]
fn check(line: &str) {
    let mut words = line.split_whitespace();
    let (state, asked, expected) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
    let (view, value, past) = scene(state);
    let found = match decide(&view, &value, &past, action(asked), &ASKER) {
        Err(Outcome::Refuse(status)) => status.code().to_owned(),
        Ok(moved) => {
            let purse = moved.purse;
            assert!(purse.is_sound(), "{line}: {purse:?}");
            let before = value.purse.initial();
            assert_eq!(purse.initial(), before, "value came from nowhere: {line}");
            let part = if moved.status == Status::OkPartial { "~" } else { "" };
            let flag = |flag, name| if moved.flags.contains(flag) { name } else { "" };
            format!(
                "{}{part}={}>{}/{}:{}{}{}{}",
                moved.kind.name(),
                moved.amount,
                purse.remaining,
                purse.held,
                moved.lifecycle.name(),
                flag(Flags::USED, "+used"),
                flag(Flags::HELD, "+held"),
                flag(Flags::SETTLED, "+settled"),
            )
        }
        Err(other) => format!("{other:?}"),
    };
    assert_eq!(found, expected, "{line}");
}

#[test]
fn what_may_become_of_a_cards_value() {
    let table = "
        value                   redeem:30        REDEEM=30>70/0:SOLD+used
        value                   redeem           REDEEM=100>0/0:REDEEMED+used
        value+loads             redeem           REDEEM=100>0/0:SOLD+used
        value                   redeem:101       INSUFFICIENT_VALUE
        value                   redeem-part:101  REDEEM~=100>0/0:REDEEMED+used
        value+partial           redeem:101       REDEEM~=100>0/0:REDEEMED+used
        value                   redeem:-1        MALFORMED
        value+held              redeem:98        INSUFFICIENT_VALUE
        value+held              redeem           REDEEM=97>3/3:SOLD+used+held
        value+held-late         redeem           REDEEM=100>0/0:REDEEMED+used+held
        value+spent             redeem           ALREADY_REDEEMED
        value+unsold            redeem           CARD_NOT_VALID
        value+frozen            redeem           FROZEN
        value+over              redeem           EXPIRED
        value+over+held         redeem           EXPIRED
        value+poisoned          redeem           REVERSED_BEFORE_ARRIVAL
        value                   redeem-wrong-pin CARD_NOT_VALID
        value+full              redeem           EFFECTS_EXHAUSTED
        value+used+settled      redeem:1         REDEEM=1>97/0:SOLD+used
        uses                    redeem           REDEEM=1>4/0:SOLD+used
        uses                    redeem:5         REDEEM=5>0/0:REDEEMED+used
        uses                    redeem:6         INSUFFICIENT_VALUE
        uses+spent              redeem           USES_EXHAUSTED
        single+held             redeem           INSUFFICIENT_VALUE
        single+held-late        redeem           REDEEM=100>0/0:REDEEMED+used+held
        single+free             redeem           REDEEM=0>0/0:REDEEMED+used
        single+free             redeem:1         INSUFFICIENT_VALUE
        single+free+held        redeem           INSUFFICIENT_VALUE
        single+free+held-late   redeem           REDEEM=0>0/0:REDEEMED+used+held
        single+held-late        redeem:99        ILLEGAL_TRANSITION

        value                   hold:30          HOLD=30>100/30:SOLD+held
        value                   hold:101         INSUFFICIENT_VALUE
        value+held              hold:97          HOLD=97>100/100:SOLD+held
        value+many-holds        hold:1           LIMIT_HOLDS
        value+frozen            hold:1           FROZEN
        single                  hold             HOLD=100>100/100:SOLD+held
        single                  hold:99          ILLEGAL_TRANSITION
        single+held             hold             INSUFFICIENT_VALUE
        single+free             hold             HOLD=0>0/0:SOLD+held
        single+free+held        hold             INSUFFICIENT_VALUE
        single+spent            hold             ALREADY_REDEEMED

        value+held              capture          CAPTURE=3>97/0:SOLD+used
        value+held              capture:2        CAPTURE=2>98/0:SOLD+used
        value+held              capture:4        EXCEEDS_HOLD
        value+held+frozen       capture          CAPTURE=3>97/0:SOLD+used
        value+held+over         capture          CAPTURE=3>97/0:SOLD+used
        value+held+full         capture          CAPTURE=3>97/0:SOLD+used
        value+held-late         capture          HOLD_EXPIRED
        value+held-by-other     capture          SCOPE_DENIED
        value+held+poisoned     capture          REVERSED_BEFORE_ARRIVAL
        value                   capture          CARD_NOT_VALID
        value+captured          capture          HOLD_RESOLVED
        value+timed-out         capture          HOLD_EXPIRED
        value+unsold            capture          CARD_NOT_VALID
        single+held             capture          CAPTURE=100>0/0:REDEEMED+used
        single+held             capture:99       ILLEGAL_TRANSITION
        single+free+held        capture          CAPTURE=0>0/0:REDEEMED+used

        value+held              release          RELEASE=3>100/0:SOLD
        value+held-late         release          HOLD_EXPIRED
        value+held              timeout          ILLEGAL_TRANSITION
        value+held-late         timeout          HOLD_TIMEOUT=3>100/0:SOLD
        value+captured          timeout          HOLD_RESOLVED

        value+loads             load:20          LOAD=20>120/0:SOLD
        value+loads             load:21          VALUE_LIMIT
        value+loads             load:0           MALFORMED
        value                   load:1           ILLEGAL_TRANSITION
        uses                    load:1           ILLEGAL_TRANSITION
        value+loads+unsold      load:1           NOT_SOLD
        value+loads+frozen      load:1           FROZEN

        value+used+of-redeem    reverse          REVERSE=2>100/0:SOLD
        value+used+of-old       reverse          REVERSE_WINDOW_CLOSED
        value+used+of-redeem+settled  reverse    SETTLED
        value+used+of-redeem+refunded reverse    ALREADY_REVERSED
        value+of-freeze         reverse          ILLEGAL_TRANSITION
        value+held              reverse          REVERSE=3>100/0:SOLD
        value+held-late         reverse          HOLD_EXPIRED
        value+held+full         reverse          REVERSE=3>100/0:SOLD

        value+used+of-old       refund           REFUND_VALUE=2>100/0:SOLD
        value+used+of-old       refund:1         REFUND_VALUE=1>99/0:SOLD+used
        value+used+of-old       refund:3         INSUFFICIENT_VALUE
        value+used+of-redeem    refund           ILLEGAL_TRANSITION
        value+used+of-redeem+settled refund      REFUND_VALUE=2>100/0:SOLD+settled
        value+used+of-old+refunded refund        ALREADY_REVERSED
        value+used+of-load      refund           ILLEGAL_TRANSITION
        value+used              refund           NOT_FOUND
        single+spent+of-old     refund           REFUND_VALUE=100>100/0:SOLD

        value+used              settle           SETTLE=0>98/0:SOLD+used+settled
        value+used+settled      settle           ILLEGAL_TRANSITION
        value                   settle           ILLEGAL_TRANSITION
        value+used+replaced     settle           REPLACED
        single+spent            settle           SETTLE=0>0/0:REDEEMED+used+settled
    ";
    table.lines().filter(|line| !line.trim().is_empty()).for_each(check);
}

#[test]
fn a_load_is_taken_back_only_while_it_is_there() {
    let (view, mut value, past) = scene("value+loads+of-load");
    value.purse = Purse { remaining: 98, redeemed: 101, loaded: 99, ..value.purse };
    let outcome = decide(&view, &value, &past, Action::Reverse(ID), &ASKER);
    assert_eq!(outcome, Err(Outcome::Refuse(Status::InsufficientValue)));
    value.purse = Purse { remaining: 99, redeemed: 100, ..value.purse };
    let moved = decide(&view, &value, &past, Action::Reverse(ID), &ASKER).expect("what was loaded is there");
    assert_eq!((moved.purse.remaining, moved.purse.loaded), (0, 0));
}
