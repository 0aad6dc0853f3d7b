//! Until when a card is valid, where that counts from what happened to it: its sale, activation or first use.

use super::Subject;
use crate::card::{Past, View};
use crate::product::{CardKind, ValidFrom, Validity};
use crate::record::{Kind, Purse};
use crate::state::State;
use crate::table::Batch;
use crate::word::{CardRef, Flags, Word};

/// From when the card is valid, if that follows from what happened to it. In stock, nothing did.
pub(crate) fn count_validity(
    state: &State,
    past: &Past,
    purse: Option<Purse>,
    batch: &Batch,
    card: CardRef,
    rule: Validity,
    view: &mut View,
) {
    let flags = view.word.flags();
    if !view.word.belongs_to_order() {
        return;
    }
    let single = batch.kind == CardKind::Single;
    let told_ms = purse.map_or(0, |purse| purse.begun_ms);
    view.from_use = rule.from == ValidFrom::FirstUse && !single;
    view.begun_ms = match rule.from {
        ValidFrom::Import => 0,
        ValidFrom::Sale => past.sold_ms,
        // What is active when it is sold is valid from then on.
        ValidFrom::Activation if flags.contains(Flags::ACTIVE) => {
            told_ms.max(past.activated_ms).max(past.sold_ms)
        }
        ValidFrom::Activation => match state.active_since_ms(batch, card.row()) {
            Some(since_ms) if !flags.contains(Flags::INACTIVE) => {
                // What was sold in another system was active there.
                let came_active = since_ms <= batch.imported_ms && past.sold_ms < batch.imported_ms;
                let since_ms = if came_active && past.sold_ms != 0 { 0 } else { since_ms };
                told_ms.max(since_ms).max(past.sold_ms)
            }
            // Deactivated while it was in use, which goes on.
            _ if flags.contains(Flags::USED) && !single => told_ms,
            _ => 0,
        },
        // What is used once is not in use before. Of another it counts as long as a use stands: none does
        // once all is given back.
        ValidFrom::FirstUse if single => 0,
        ValidFrom::FirstUse if past.used_ms != 0 => past.used_ms,
        ValidFrom::FirstUse => {
            let stands = purse.is_some_and(|purse| purse.redeemed != purse.refunded) || view.held;
            if stands { told_ms } else { 0 }
        }
    };
    if !flags.contains(Flags::OWN_END) && view.expires_ms == 0 {
        view.expires_ms = rule.ends_ms(view.begun_ms);
    }
}

impl Subject<'_> {
    /// When a card expires once `kind` moved it: an activation may begin its validity.
    #[inline]
    pub(super) fn expires_after(
        &self,
        kind: Kind,
        batch: &Batch,
        card: CardRef,
        word: Word,
        view: &View,
    ) -> u64 {
        let Some(rule) = batch.validity.filter(|rule| rule.from == ValidFrom::Activation) else {
            return view.expires_ms;
        };
        let said = self.state.expires_ms(batch, card.row(), word);
        match kind {
            _ if said != 0 => said,
            Kind::Activate if word.belongs_to_order() => rule.ends_ms(view.now_ms),
            Kind::Activate | Kind::Deactivate => 0,
            _ => view.expires_ms,
        }
    }
}
