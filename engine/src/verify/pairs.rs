//! Whether the entries of pairs belong together: what moves two cards moves both, and what leaves one comes to the other.

use kami_wal::Lsn;

use super::Audit;
use crate::identity::RequestId;
use crate::orders::OrderWord;
use crate::product::{CardKind, Money};
use crate::record::{Entry, Kind, Pair, Purse};
use crate::replay::{Rebuild, ReplayError};
use crate::word::CardRef;

/// The first entry of a pair, whose second must be the next.
pub(super) struct First {
    pub(super) lsn: Lsn,
    kind: Kind,
    card: CardRef,
    pair: Pair,
    request: RequestId,
    /// What moved; and what was on the card before, of one that is used in parts.
    moved: Option<(Money, Purse)>,
}

impl Audit {
    /// What is wrong with an entry of a pair: it is alone, the two do not name each other, or the second has not got
    /// what the first gave. Asked before [`Audit::value_problem`], which takes in what the entry left.
    pub(super) fn pair_problem(
        &self,
        first: &mut Option<First>,
        entry: &Entry<'_>,
        before: &Rebuild,
    ) -> Result<Option<&'static str>, ReplayError> {
        let (kind, card) = (entry.head.kind, entry.card());
        let waits = first.take();
        let is_second = matches!(kind, Kind::Replacement | Kind::Receive);
        if waits.is_some() != is_second {
            return Ok(Some("one card of a pair moved without the other"));
        }
        if !kind.is_of_pair() {
            return Ok(None);
        }
        let pair = entry.pair()?;
        let Some(batch) = before.table.batch_of(card) else { return Ok(None) };
        let initial = before.state.initial(batch, card.row());
        let purse = || self.purses.get(&entry.head.subject).copied();
        let purse = purse().unwrap_or_else(|| Purse::fresh(initial, None));
        let value = entry.value()?;
        if (batch.kind == CardKind::Single) != value.is_none() {
            return Ok(Some(
                "a pair tells a value that moves as a whole, or does not tell one that does not",
            ));
        }
        let Some(First { lsn, kind: expected, card: other, pair: its, request, moved }) = waits else {
            let known = before.state.orders.find(&(entry.head.tenant, pair.order)).map_or(0, OrderWord::bits);
            if kind == Kind::Replace && known != pair.link {
                return Ok(Some("a card was replaced in an order that does not stand so"));
            }
            let moved = value.map(|tail| (tail.amount, purse));
            *first = Some(First { lsn: entry.lsn, kind, card, pair, request: entry.head.request, moved });
            return Ok(None);
        };
        let fits = (expected == Kind::Replace) == (kind == Kind::Replacement)
            && pair.other == other
            && its.other == card
            && pair.before() == Some(lsn)
            && pair.order == its.order
            && request == entry.head.request
            && before.table.batch_of(other).is_some_and(|other| other.product == batch.product);
        if !fits {
            return Ok(Some("the two cards of a pair do not belong together"));
        }
        let (Some((gone, was)), Some(tail)) = (moved, value) else { return Ok(None) };
        let now = tail.purse;
        let came = match kind {
            Kind::Replacement => {
                now.remaining == gone
                    && (now.redeemed, now.refunded, now.settled) == (was.redeemed, was.refunded, was.settled)
            }
            _ => now.remaining == purse.remaining + gone,
        };
        Ok((tail.amount != gone || !came).then_some("what left one card did not come to the other"))
    }
}
