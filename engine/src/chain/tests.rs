//! How much of the log a command has to read.

use super::*;
use crate::Status;
use crate::command::Command;
use crate::identity::{OrderId, RequestId};
use crate::index::Index;
use crate::product::{CardKind, ProductSpec};
use crate::tested::Store;

/// A card's last redemption was said to cost little more than its first, and nothing would have told if it did not.
#[test]
fn the_last_of_many_redemptions_walks_no_further_than_the_first() {
    let store = Store::new();
    let gift = ProductSpec::single("gift", *b"CNY", 1 << 40);
    let product = store.stock(ProductSpec { kind: CardKind::StoredValue, ..gift }, 1);
    store.sell(product, 1);
    let card = store.digest("gift-0");
    let (session, sequencer) = (store.session(), store.engine().sequencer());
    let mut buffer = Vec::new();
    // How many entries the next request, or one that comes again, has read.
    let mut reads = |id: u128| {
        let (batch, card) = sequencer.batch_of(sequencer.index.find(card, &Index::pin())).unwrap();
        let mut chain = Chain::new(&sequencer.wal, &mut buffer);
        let sought = Sought::new(RequestId(id), None, &sequencer.marks, true);
        let (past, top) = chain.past(card, batch.word(card.row()), &sought).unwrap();
        chain.trail(&top, &sequencer.marks).unwrap();
        (past.same.is_some(), chain.reads)
    };
    let redeem = || Command::Redeem { card, pin: None, amount: 1, partial: false };
    let (mut most, mut all) = (0, 0);
    for n in 0..5000 {
        let (known, read) = reads(1000 + n);
        assert!(!known, "{n}");
        (most, all) = (most.max(read), all + read);
        assert_eq!(session.run(RequestId(1000 + n), redeem()).wait().unwrap().status, Status::Ok);
    }
    // Chapters of the volume, the volumes before it: some 40. Of 156 chapters one in 700 looks as if it had the id
    // and costs its 32 entries; ten such at once happen in one of 10^9 runs.
    assert!(most < 400 && all < 5000 * 60, "{most} at most, {} on average", all / 5000);
    for n in (0..5000).step_by(50) {
        let (known, read) = reads(1000 + n);
        assert!(known && read < 400, "{n}: {read}");
    }
}

/// A code that was sold a thousand times is redeemed as one that was sold once: its own chain has its first sale.
#[test]
fn no_command_about_a_code_walks_over_its_sales() {
    let store = Store::new();
    let mut spec = ProductSpec { kind: CardKind::Shared, ..ProductSpec::single("vpn", *b"CNY", 100) };
    spec.terms.uses = 5000;
    let product = store.stock(spec, 1);
    let card = store.digest("vpn-0");
    let (session, sequencer) = (store.session(), store.engine().sequencer());
    let mut buffer = Vec::new();
    for n in 0..1000_u128 {
        session.sell(RequestId(1000 + n), OrderId(n), product, 1).wait().unwrap();
        if n % 100 == 50 {
            let redeem = Command::Redeem { card, pin: None, amount: 1, partial: false };
            assert_eq!(session.run(RequestId(10_000 + n), redeem).wait().unwrap().status, Status::Ok);
        }
        let (batch, card) = sequencer.batch_of(sequencer.index.find(card, &Index::pin())).unwrap();
        let mut chain = Chain::new(&sequencer.wal, &mut buffer);
        // The first redemption, which is read down to.
        let sought = Sought::new(RequestId(10_050), None, &sequencer.marks, true);
        let (past, _) = chain.past(card, batch.word(card.row()), &sought).unwrap();
        assert_eq!(past.same.is_some(), n >= 50);
        assert!(chain.reads <= 2 * 10 + 3, "{} after {n} sales", chain.reads);
    }
}
