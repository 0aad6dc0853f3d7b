//! Redemptions that were made offline and did not fit their card: kept until an operator has seen to them.
//!
//! A till without a connection takes a card on its own account, and reports that with ADVICE when it can: with the
//! time at which it was, under the request id that the redemption would have had. If it fits the card, it is a
//! redemption like any other. If not (the card was redeemed elsewhere, is frozen, was never sold, does not exist),
//! somebody has to bear the loss, and who that is no engine can know. So it is never dropped: it becomes an
//! *exception*, an entry in the log and in this list, and the till is done with it.
//!
//! # Why so
//! * **A report tells nothing.** Whatever stands against a redemption, the answer is EXCEPTION_NOTED and the entry as
//!   long, so nobody learns from it which codes exist; wrong codes and PINs are misses as ever. The reason is told to
//!   whoever looks after the list.
//! * **One id, one effect.** A report under the id of a redemption that did arrive is a retry of that, if it took all
//!   that the till gave. If it took less, or was for another amount, the report is an exception of its own. An exception
//!   keeps its id for good: the same report again is answered as the first time, although the card may fit by now and
//!   whether or not it was resolved. So is its redemption, should that come late or be sent again, and whoever asks what
//!   became of it; anything else under the id is ID_REUSED. Redemptions pay one bit of a filter for that.
//! * **All or nothing.** What was given offline was given: a card that has less on it is not emptied for a part of it,
//!   whatever its product's terms, or nobody would see the rest.
//! * **A principal has at most [`EXCEPTIONS_MAX`] open ones**, so that no till can fill the memory; resolved ones cost
//!   an operator's hand each.
//! * **Listing is bounded**: a call looks through at most [`LOOKED_AT_MAX`] of the caller's tenant, under the lock that
//!   redemptions wait for, and says how far it came.
//! * **No time is believed that helps the till.** A card is redeemed as it stands now; only its validity is asked at
//!   the time of the till, which counts as now if it is ahead, must not be before the sale, and is too old after
//!   [`ADVICE_AGE_MAX_MS`].

mod list;
mod stored;
#[cfg(test)]
mod tests;

pub(crate) use list::is_shown;
pub use stored::{ADVICE_BYTES, Kept, StoredException, StoredNote};

use std::collections::{BTreeSet, HashMap, HashSet};

use kami_wal::Lsn;

use crate::identity::{
    CardDigest, ChannelId, MerchantId, PinDigest, PrincipalId, RequestId, TenantId, TerminalId,
};
use crate::product::Money;
use crate::record::Head;
use crate::status::Status;
use crate::word::CardRef;

/// The most open exceptions of one principal.
pub const EXCEPTIONS_MAX: usize = 1000;
/// A report is at most this much later than the redemption, in milliseconds: 30 days.
pub const ADVICE_AGE_MAX_MS: u64 = 30 * 24 * 3600 * 1000;
/// How far a till's clock may be behind a card's sale, in milliseconds.
pub const CLOCK_SKEW_MS: u64 = 5 * 60 * 1000;
/// The most exceptions that one reply lists.
pub const EXCEPTIONS_PER_LIST: u32 = 500;
/// The most that are looked through for one reply.
const LOOKED_AT_MAX: usize = 2048;
/// Words of the filter of cards that there are exceptions of.
const FILTER_WORDS: usize = 1024;
/// The longest note of a resolution, in bytes.
pub const RESOLUTION_BYTES_MAX: usize = 200;

/// A redemption that was made offline.
#[derive(Clone, Copy, Debug)]
pub struct Advice {
    /// The card.
    pub card: CardDigest,
    /// Its PIN, where the batch has PINs.
    pub pin: Option<PinDigest>,
    /// How much, as in a redemption.
    pub amount: Money,
    /// When it was made, by the till's clock, in milliseconds since 1970; not 0.
    pub made_ms: u64,
}

/// What an operator says about an exception that is seen to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExceptionNote {
    /// The exception's number.
    pub id: u64,
    /// What was done about it: 1 to [`RESOLUTION_BYTES_MAX`] bytes, no control characters.
    pub note: String,
}

/// An offline redemption that did not fit its card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exception {
    /// Its number, from 1 on.
    pub id: u64,
    /// The card; `None` if the code is nobody's.
    pub card: Option<CardRef>,
    /// Why it did not fit.
    pub reason: Status,
    /// Under which request id it was reported, and made.
    pub request: RequestId,
    /// By whom.
    pub principal: PrincipalId,
    /// At which till.
    pub terminal: TerminalId,
    /// For which merchant.
    pub merchant: MerchantId,
    /// Through which channel.
    pub channel: ChannelId,
    /// How much, as it was reported: 0 is all of the card.
    pub amount: Money,
    /// When it was made, by the till's clock, in milliseconds since 1970.
    pub made_ms: u64,
    /// When it was reported, in milliseconds since 1970.
    pub time_ms: u64,
    /// Where the report stands in the log.
    pub lsn: Lsn,
    /// How it was resolved; `None` while it is open.
    pub resolution: Option<Resolution>,
}

/// The end of an exception.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolution {
    /// Who resolved it.
    pub principal: PrincipalId,
    /// When, in milliseconds since 1970.
    pub time_ms: u64,
    /// What was done about it.
    pub note: String,
}

/// An exception with what only the engine needs of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExceptionState {
    /// The exception.
    pub exception: Exception,
    /// Its tenant.
    pub tenant: TenantId,
    /// The code that was reported.
    pub digest: CardDigest,
    /// Checksum of what was reported.
    pub body: u32,
    /// Its last entry.
    pub lsn: Lsn,
}

/// Some exceptions, in order of number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExceptionPage {
    /// Those of them that the caller may see.
    pub rows: Vec<Exception>,
    /// All up to this number were looked through: where the next page goes on.
    pub reached: u64,
}

/// All of them.
#[derive(Default)]
pub struct Exceptions {
    all: Vec<ExceptionState>,
    by_request: HashMap<(CardDigest, RequestId), usize>,
    cards: HashSet<CardRef>,
    /// A bit of a card's digest is set if there may be any of it; none until there are any at all.
    filter: Vec<u64>,
    /// The numbers of each tenant's, in order.
    of_tenant: HashMap<TenantId, Vec<u64>>,
    open: BTreeSet<(TenantId, u64)>,
    open_of: HashMap<PrincipalId, usize>,
}

/// Where a card shows in the filter.
const fn filter_place(card: CardDigest) -> (usize, u64) {
    let bits = card.spread();
    ((bits >> 6) as usize % FILTER_WORDS, 1 << (bits & 63))
}

impl Exceptions {
    /// The number of the next.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.all.len() as u64 + 1
    }

    /// The one that a report under this id became.
    #[must_use]
    pub fn reported(&self, card: CardDigest, request: RequestId) -> Option<&ExceptionState> {
        self.by_request.get(&(card, request)).map(|at| &self.all[*at])
    }

    /// Whether one of them, resolved or not, is of this card.
    #[must_use]
    pub fn is_of(&self, card: CardRef) -> bool {
        self.cards.contains(&card)
    }

    /// Whether there may be any.
    #[inline]
    #[must_use]
    pub fn may_be(&self) -> bool {
        !self.filter.is_empty()
    }

    /// Whether there may be one of this card: the look-up that every command about a card pays.
    #[inline]
    #[must_use]
    pub fn may_be_of(&self, card: CardDigest) -> bool {
        let (word, bit) = filter_place(card);
        self.filter.get(word).is_some_and(|word| word & bit != 0)
    }

    /// The one with this number, if it is the tenant's.
    #[must_use]
    pub fn find(&self, id: u64, tenant: TenantId) -> Option<&ExceptionState> {
        let at = usize::try_from(id).ok()?.checked_sub(1)?;
        self.all.get(at).filter(|state| state.tenant == tenant)
    }

    /// How many of a principal are open.
    #[must_use]
    pub fn open_of(&self, principal: PrincipalId) -> usize {
        self.open_of.get(&principal).copied().unwrap_or(0)
    }

    /// Takes one in. `false` if its number is not the next; one that is there already is left as it is.
    pub fn add(&mut self, state: ExceptionState) -> bool {
        let id = state.exception.id;
        if id != self.next() {
            return id < self.next();
        }
        self.by_request.insert((state.digest, state.exception.request), self.all.len());
        self.cards.extend(state.exception.card);
        self.filter.resize(FILTER_WORDS, 0);
        let (word, bit) = filter_place(state.digest);
        self.filter[word] |= bit;
        self.of_tenant.entry(state.tenant).or_default().push(id);
        if state.exception.resolution.is_none() {
            self.open.insert((state.tenant, id));
            *self.open_of.entry(state.exception.principal).or_default() += 1;
        }
        self.all.push(state);
        true
    }

    /// Resolves one that is there and open.
    pub fn resolve(&mut self, id: u64, resolution: Resolution, lsn: Lsn) {
        let state = &mut self.all[id as usize - 1];
        (state.exception.resolution, state.lsn) = (Some(resolution), lsn);
        if self.open.remove(&(state.tenant, id))
            && let Some(open) = self.open_of.get_mut(&state.exception.principal)
        {
            *open -= 1;
            if *open == 0 {
                self.open_of.remove(&state.exception.principal);
            }
        }
    }

    /// All of them in order.
    pub fn iter(&self) -> impl Iterator<Item = &ExceptionState> {
        self.all.iter()
    }

    /// A tenant's behind a number in order, open or all.
    pub fn after(
        &self,
        tenant: TenantId,
        after: u64,
        all: bool,
    ) -> Box<dyn Iterator<Item = &ExceptionState> + '_> {
        let at = |id: u64| &self.all[id as usize - 1];
        if all {
            let own = self.of_tenant.get(&tenant).map_or(&[][..], Vec::as_slice);
            let from = own.partition_point(|id| *id <= after);
            Box::new(own[from..].iter().map(move |id| at(*id)))
        } else {
            let behind = (tenant, after.saturating_add(1))..=(tenant, u64::MAX);
            Box::new(self.open.range(behind).map(move |(_, id)| at(*id)))
        }
    }

    /// Some of them for a snapshot, from a place on.
    #[must_use]
    pub fn rows(&self, from: usize, count: usize) -> Vec<StoredException> {
        self.all.iter().skip(from).take(count).map(StoredException::of).collect()
    }

    /// Takes those of a snapshot in; `false` if they make no sense.
    pub fn restore(&mut self, rows: &[StoredException]) -> bool {
        rows.iter().all(|row| row.state().is_some_and(|state| self.add(state)))
    }
}

/// Whether a redemption that was refused for this is kept as an exception. What is not executed comes again; what is
/// wrong with the request itself is the till's to mend; and what the till has reversed itself is no loss.
#[must_use]
pub fn is_kept(status: Status) -> bool {
    matches!(status.class(), crate::status::Class::Refused)
        && !matches!(status, Status::ReversedBeforeArrival | Status::ExceptionsFull)
}

impl ExceptionState {
    /// The exception that an entry of this head is about.
    #[must_use]
    pub fn of(head: &Head, kept: &Kept, lsn: Lsn, time_ms: u64) -> ExceptionState {
        ExceptionState {
            exception: Exception {
                id: head.subject,
                card: kept.card,
                reason: kept.reason,
                request: head.request,
                principal: head.principal,
                terminal: head.terminal,
                merchant: head.merchant,
                channel: head.channel,
                amount: kept.amount,
                made_ms: kept.made_ms,
                time_ms,
                lsn,
                resolution: None,
            },
            tenant: head.tenant,
            digest: kept.digest,
            body: head.body,
            lsn,
        }
    }
}
