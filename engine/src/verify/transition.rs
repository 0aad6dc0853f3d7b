//! The table of transitions: from where to where each kind of entry may move a card. `card.rs` and `value.rs` decide by
//! rules of their own; what those ever let through must stand here, too.

use crate::record::{Entry, Kind};
use crate::word::{Flags, Lifecycle};

/// Whether the rules allow a card to go from the entry's `prev` to its `post`.
pub(super) fn is_legal(entry: &Entry<'_>) -> bool {
    let (from, to) = (entry.prev().lifecycle(), entry.post().lifecycle());
    let (had, has) = (entry.prev().flags(), entry.post().flags());
    let stays = from == to;
    let marked = has.contains(Flags::HAS_EFFECTS);
    let same_but = |flags: Flags| had.without(flags).with(Flags::HAS_EFFECTS) == has.without(flags);
    let usable = || from == Lifecycle::Sold && !had.contains(Flags::FROZEN);
    // Of what is used in parts or is held, lifecycle and USED follow from the value, which is checked apart.
    let in_life = |lifecycle| matches!(lifecycle, Lifecycle::Sold | Lifecycle::Redeemed);
    let in_parts = matches!(entry.value(), Ok(Some(_)));
    let moves = Flags::USED.with(Flags::SETTLED);
    let ends = moves.with(Flags::HELD);
    let own_activity = Flags::ACTIVE.with(Flags::INACTIVE);
    let is_emptied = || to == Lifecycle::Voided && has.contains(Flags::REPLACED);
    marked
        && match entry.head.kind {
            Kind::Redeem if in_parts => usable() && in_life(to) && same_but(moves),
            // Of a load, when nothing can be loaded any more, it may leave nothing on the card.
            Kind::Reverse if in_parts => in_life(from) && in_life(to) && same_but(ends),
            Kind::Hold => usable() && stays && has.contains(Flags::HELD) && same_but(Flags::HELD),
            // A hold that is open may be captured on a frozen card.
            Kind::Capture => {
                from == Lifecycle::Sold && in_life(to) && had.contains(Flags::HELD) && same_but(ends)
            }
            Kind::Release | Kind::HoldTimeout => stays && had.contains(Flags::HELD) && same_but(Flags::HELD),
            Kind::Load => usable() && stays && same_but(Flags::NONE),
            Kind::RefundValue => in_life(from) && to == Lifecycle::Sold && same_but(moves),
            Kind::Settle => stays && has.contains(Flags::SETTLED) && same_but(Flags::SETTLED),
            Kind::Redeem => {
                from == Lifecycle::Sold
                    && to == Lifecycle::Redeemed
                    && has.contains(Flags::USED)
                    && !had.contains(Flags::FROZEN)
                    && same_but(Flags::USED)
            }
            Kind::Reverse => {
                from == Lifecycle::Redeemed
                    && to == Lifecycle::Sold
                    && !has.contains(Flags::USED)
                    && !had.contains(Flags::SETTLED)
                    && same_but(Flags::USED)
            }
            Kind::Tombstone | Kind::PinUnlock => stays && same_but(Flags::NONE),
            Kind::Freeze => stays && has.contains(Flags::FROZEN) && same_but(Flags::FROZEN),
            Kind::Unfreeze => stays && !has.contains(Flags::FROZEN) && same_but(Flags::FROZEN),
            Kind::Activate => {
                !matches!(from, Lifecycle::Redeemed | Lifecycle::Voided | Lifecycle::Returned)
                    && stays
                    && has.contains(Flags::ACTIVE)
                    && !has.contains(Flags::INACTIVE)
                    && same_but(own_activity)
            }
            Kind::Deactivate => {
                !matches!(from, Lifecycle::Redeemed | Lifecycle::Voided | Lifecycle::Returned)
                    && stays
                    && has.contains(Flags::INACTIVE)
                    && !has.contains(Flags::ACTIVE)
                    && !had.contains(Flags::USED)
                    && same_but(own_activity)
            }
            Kind::Restock => from == Lifecycle::Returned && to == Lifecycle::Voided && same_but(Flags::NONE),
            Kind::Replace => from == Lifecycle::Sold && is_emptied() && same_but(Flags::REPLACED),
            Kind::Transfer if to == Lifecycle::Voided => {
                usable() && is_emptied() && same_but(Flags::REPLACED)
            }
            Kind::Transfer | Kind::Receive => usable() && stays && same_but(Flags::NONE),
            Kind::Replacement => {
                let given = Flags::REVEALED.with(Flags::OWN_END).with(own_activity).with(moves);
                from == Lifecycle::Available
                    && to == Lifecycle::Sold
                    && !had.contains(Flags::FROZEN)
                    && !had.contains(Flags::REVEALED)
                    && same_but(given)
            }
            Kind::Extend | Kind::Expire => {
                matches!(from, Lifecycle::Available | Lifecycle::Sold)
                    && stays
                    && has.contains(Flags::OWN_END)
                    && same_but(Flags::OWN_END)
            }
            // Of a sold card only under an approval, which is checked apart.
            Kind::Void => {
                matches!(
                    from,
                    Lifecycle::Available | Lifecycle::Expired | Lifecycle::Returned | Lifecycle::Sold
                ) && to == Lifecycle::Voided
                    && same_but(Flags::NONE)
            }
            _ => false,
        }
}
