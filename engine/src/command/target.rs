//! What a command is about: the card, order or batch whose chain has its retries, and the earlier request that it asks
//! about or wants to undo. A command is about one of them, or about none.

use super::Command;
use crate::identity::{BatchId, CardDigest, OrderId, RequestId};

impl Command {
    /// The card it is about, if it is about one.
    #[inline]
    #[must_use]
    pub fn card(&self) -> Option<CardDigest> {
        match self {
            Command::Redeem { card, .. }
            | Command::Reverse { card, .. }
            | Command::Query { card }
            | Command::History { card }
            | Command::Freeze { card }
            | Command::Unfreeze { card }
            | Command::Void { card }
            | Command::PinUnlock { card }
            | Command::OutcomeOf { card, .. }
            | Command::Hold { card, .. }
            | Command::Capture { card, .. }
            | Command::Release { card, .. }
            | Command::Load { card, .. }
            | Command::RefundValue { card, .. }
            | Command::Settle { card }
            | Command::Activate { card }
            | Command::Deactivate { card }
            | Command::Extend { card, .. }
            | Command::Expire { card }
            | Command::Restock { card, .. } => Some(*card),
            Command::Advice(advice) => Some(advice.card),
            _ => None,
        }
    }

    /// The card that it is about, or the first of two: what a caller's guesses are counted by.
    #[inline]
    #[must_use]
    pub fn named_card(&self) -> Option<CardDigest> {
        match self {
            Command::Replace(pair) => Some(pair.card),
            Command::Transfer(pair) => Some(pair.from),
            command => command.card(),
        }
    }

    /// The order it is about, if it is about one.
    #[must_use]
    pub fn order(&self) -> Option<OrderId> {
        match self {
            Command::Sell { order, .. }
            | Command::OrderFetch { order, .. }
            | Command::OutcomeOfOrder { order, .. } => Some(*order),
            Command::SellLines(purchase) | Command::Reserve(purchase) => Some(purchase.order),
            Command::Confirm(confirmation) => Some(confirmation.order),
            Command::Return(given) => Some(given.order),
            Command::Cancel(order) | Command::ReserveTimeout(order) | Command::OrderStatus(order) => {
                Some(*order)
            }
            _ => None,
        }
    }

    /// The batch it changes, if it changes one.
    pub(crate) fn batch(&self) -> Option<BatchId> {
        match self {
            Command::BatchActivate(batch)
            | Command::BatchDeactivate(batch)
            | Command::BatchFreeze(batch)
            | Command::BatchUnfreeze(batch)
            | Command::BatchVoid(batch)
            | Command::BatchExtend { batch, .. }
            | Command::BatchRows { batch, .. } => Some(*batch),
            _ => None,
        }
    }

    /// The earlier request that it wants to undo or to end.
    pub(crate) const fn original(&self) -> Option<RequestId> {
        match self {
            Command::Reverse { original, .. } | Command::RefundValue { original, .. } => Some(*original),
            Command::Capture { hold, .. }
            | Command::Release { hold, .. }
            | Command::HoldTimeout { hold, .. } => Some(*hold),
            _ => None,
        }
    }

    /// The request whose effect is looked for in the target's past: this one, or the one that is asked about.
    pub(crate) const fn sought(&self, own: RequestId) -> RequestId {
        match self {
            Command::OutcomeOf { request, .. }
            | Command::OutcomeOfOrder { request, .. }
            | Command::OutcomeOfDocument { request, .. } => *request,
            _ => own,
        }
    }

    /// Whether it moves two cards.
    pub(crate) const fn is_of_pair(&self) -> bool {
        matches!(self, Command::Replace(_) | Command::Transfer(_))
    }
}
