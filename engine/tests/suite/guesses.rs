//! What guessing at codes tells: nothing, not even by where the receipts around it lie.

use kami_engine::{CardDigest, Command, ProductSpec, Request, RequestId, Role, Status, Work};

use crate::store::{Store, caller};

/// The guesses that are made about one code.
type Probe = Box<dyn Fn(CardDigest) -> Vec<Command>>;

/// Receipts are positions in the log. Whatever a till asks between two redemptions of its own, they lie as far
/// apart for a code that nobody has as for a card in stock, and as much is written for either. (Nothing else
/// writes here: the log is driven by the test.)
#[test]
fn the_log_does_not_tell_which_codes_exist() {
    let store = Store::with_segments(1 << 20);
    let product = store.stock(ProductSpec::single("tea", *b"CNY", 100), 40);
    store.sell(product, 30);
    let (in_stock, unknown) = (store.digest("tea-39"), store.digest("NOBODY-HAS-IT"));
    let mut own = (0..30).map(|row| store.digest(&format!("tea-{row}")));
    let caller = caller(0, Role::Redeemer);
    let execute = |commands: Vec<Command>| {
        let mut work = Work::default();
        let requests = commands.into_iter().map(|command| Request { caller, ..store.request(command) });
        work.requests.extend(requests);
        store.engine().execute(&mut work);
        store.drive();
        work
    };
    let redeem = |card| Command::Redeem { card, pin: None, amount: 0, partial: false };
    let reverse = |card, original| Command::Reverse { card, original: RequestId(original) };
    let mut probes: Vec<(&str, Probe)> = vec![
        ("asked twice", Box::new(|card| vec![Command::Query { card }, Command::Query { card }])),
        ("redeemed", Box::new(move |card| vec![redeem(card)])),
    ];
    // The first poisons its id, the second finds it poisoned.
    for what in ["reversed", "reversed again"] {
        probes.push((what, Box::new(move |card| vec![reverse(card, 7)])));
    }
    let both = move |card| vec![reverse(card, 8), Command::Query { card }];
    probes.push(("reversed and asked", Box::new(both)));
    for (what, guesses) in probes {
        let [in_stock, unknown] = [in_stock, unknown].map(|guess| {
            let asks = [vec![redeem(own.next().unwrap())], guesses(guess), vec![redeem(own.next().unwrap())]];
            let work = execute(asks.concat());
            let receipts: Vec<u64> =
                work.replies.iter().filter_map(|reply| Some(reply.lsn?.bytes())).collect();
            assert_eq!(receipts.len(), 2, "{:?}", work.replies);
            (receipts[1] - receipts[0], work.durable_at().unwrap().bytes() - receipts[1])
        });
        assert_eq!(in_stock, unknown, "{what}");
    }
    // Alone it is written, too, or its speed would tell.
    for guess in [in_stock, in_stock, unknown] {
        let before = store.engine().tail();
        assert_eq!(execute(vec![reverse(guess, 9)]).replies[0].status, Status::Tombstoned);
        assert!(store.engine().tail() > before);
    }
}
