//! What `kami-bench guards` counts the instructions of and no caller can reach alone: the look-up of a group of
//! cards, and the rule. Not part of the interface; a platform executes commands.

use std::hint::black_box;

use crate::card::{Action, Asker, Outcome, Past, Pin, Second, View, decide};
use crate::identity::{CardDigest, MerchantId, PrincipalId};
use crate::index::Index;
use crate::product::CardKind;
use crate::word::{CardRef, Flags, Lifecycle, Word};

/// An index with cards in it.
pub struct LookUps(Index);

impl LookUps {
    /// With these cards.
    #[must_use]
    pub fn of(cards: &[CardDigest]) -> LookUps {
        let index = Index::new();
        index.reserve(cards.len());
        let entries = cards.iter().zip(0..).map(|(digest, row)| (*digest, CardRef::new(1, row)));
        let mut entries: Vec<_> = entries.collect();
        index.insert_all(&mut entries, |_, _| false, |_, _| ());
        LookUps(index)
    }

    /// Looks for a group as the sequencer does; how many there are.
    #[must_use]
    pub fn find(&self, group: &[CardDigest]) -> usize {
        let guard = Index::pin();
        for digest in group {
            self.0.prefetch(*digest, &guard);
        }
        group.iter().filter(|digest| black_box(self.0.find(**digest, &guard)).is_some()).count()
    }
}

/// Sold single-use cards that somebody wants to redeem.
pub struct Decisions {
    views: Vec<View>,
    asker: Asker,
}

impl Decisions {
    /// As many.
    #[must_use]
    pub fn redemptions(count: usize) -> Decisions {
        let view = View {
            word: Word::unrecorded(Lifecycle::Sold, Flags::ACTIVE),
            kind: CardKind::Single,
            batch_active: true,
            frozen: false,
            batch_voided: false,
            valid_from_ms: 0,
            expires_ms: 2_000,
            face: 2_800,
            reversal_ms: 600_000,
            now_ms: 1_000,
            held: false,
            begun_ms: 0,
            from_use: false,
        };
        let asker = Asker {
            principal: PrincipalId(1),
            merchant: MerchantId(1),
            any_merchant: false,
            body: 7,
            second: Second::None,
        };
        Decisions { views: vec![view; count], asker }
    }

    /// Decides them all; how many are redeemed.
    #[must_use]
    pub fn decide(&self) -> usize {
        let action = Action::Redeem { amount: 0, pin: Pin::Right, partial: false };
        let redeemed = |view: &&View| {
            // Nothing may be worked out ahead: the sequencer does not know any of this either.
            let (past, action, asker) = (black_box(&Past::NONE), black_box(action), black_box(&self.asker));
            matches!(black_box(decide(black_box(view), past, action, asker)), Outcome::Move { .. })
        };
        self.views.iter().filter(redeemed).count()
    }
}
