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

use std::collections::{BTreeSet, HashMap, HashSet};

use kami_wal::Lsn;

use crate::admin::Change;
use crate::command::{Command, Request};
use crate::identity::{
    Caller, CardDigest, ChannelId, MerchantId, PinDigest, PrincipalId, RequestId, Role, TenantId, TerminalId,
};
use crate::product::Money;
use crate::record::{self, Entry, FormatError, Head, Kind, stored};
use crate::reply::{Reply, ReplyBody, ReplyFlags};
use crate::sequencer::{Turn, Work};
use crate::state::Scope;
use crate::status::Status;
use crate::table::Table;
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

/// Bytes of the tail of ADVICE.
pub const ADVICE_BYTES: usize = 48;

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

/// What an entry says of an exception beside its head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The card, if there is one.
    pub card: Option<CardRef>,
    /// The code.
    pub digest: CardDigest,
    /// How much.
    pub amount: Money,
    /// When it was made.
    pub made_ms: u64,
    /// Why it did not fit.
    pub reason: Status,
}

impl Kept {
    /// Writes the tail of ADVICE.
    pub fn encode(&self, tail: &mut [u8]) {
        tail[..8].copy_from_slice(&self.card.map_or(u64::MAX, CardRef::to_bits).to_le_bytes());
        tail[8..24].copy_from_slice(&self.digest.0.to_le_bytes());
        tail[24..32].copy_from_slice(&self.amount.to_le_bytes());
        tail[32..40].copy_from_slice(&self.made_ms.to_le_bytes());
        tail[40..42].copy_from_slice(&self.reason.number().to_le_bytes());
        tail[42..].fill(0);
    }

    /// Reads the tail of ADVICE.
    ///
    /// # Errors
    /// If it is too short or gives a reason that this version does not know.
    pub fn of(entry: &Entry<'_>) -> Result<Kept, FormatError> {
        let wrong = FormatError { what: "offline redemption damaged", lsn: entry.lsn };
        let tail = entry.bytes().get(record::HEAD_BYTES..).filter(|tail| tail.len() >= ADVICE_BYTES);
        let Some(tail) = tail else { return Err(wrong) };
        let number = |at: usize| u64::from_le_bytes(tail[at..at + 8].try_into().expect("eight bytes"));
        let reason = Status::from_number(u16::from_le_bytes([tail[40], tail[41]])).ok_or(wrong)?;
        Ok(Kept {
            card: (number(0) != u64::MAX).then(|| CardRef::from_bits(number(0))),
            digest: CardDigest(u128::from(number(8)) | u128::from(number(16)) << 64),
            amount: number(24).cast_signed(),
            made_ms: number(32),
            reason,
        })
    }
}

/// A resolution in the log.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct StoredNote {
    /// What was done.
    pub note: String,
}

/// An exception in a snapshot.
#[derive(Debug, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct StoredException {
    id: u64,
    card: u64,
    digest: u128,
    reason: u16,
    request: u128,
    principal: u32,
    terminal: u32,
    merchant: u32,
    channel: u16,
    tenant: u16,
    body: u32,
    amount: i64,
    made_ms: u64,
    time_ms: u64,
    lsn: u64,
    last: u64,
    /// Who resolved it, when and how.
    resolution: Option<(u32, u64, String)>,
}

stored!(StoredNote);

impl StoredException {
    fn of(state: &ExceptionState) -> StoredException {
        let ExceptionState { exception, tenant, digest, body, lsn } = state;
        let resolution = exception.resolution.as_ref();
        StoredException {
            id: exception.id,
            card: exception.card.map_or(u64::MAX, CardRef::to_bits),
            digest: digest.0,
            reason: exception.reason.number(),
            request: exception.request.0,
            principal: exception.principal.0,
            terminal: exception.terminal.0,
            merchant: exception.merchant.0,
            channel: exception.channel.0,
            tenant: tenant.0,
            body: *body,
            amount: exception.amount,
            made_ms: exception.made_ms,
            time_ms: exception.time_ms,
            lsn: exception.lsn.bytes(),
            last: lsn.bytes(),
            resolution: resolution.map(|end| (end.principal.0, end.time_ms, end.note.clone())),
        }
    }

    fn state(&self) -> Option<ExceptionState> {
        let resolution = self.resolution.clone().map(|(principal, time_ms, note)| Resolution {
            principal: PrincipalId(principal),
            time_ms,
            note,
        });
        Some(ExceptionState {
            exception: Exception {
                id: self.id,
                card: (self.card != u64::MAX).then(|| CardRef::from_bits(self.card)),
                reason: Status::from_number(self.reason)?,
                request: RequestId(self.request),
                principal: PrincipalId(self.principal),
                terminal: TerminalId(self.terminal),
                merchant: MerchantId(self.merchant),
                channel: ChannelId(self.channel),
                amount: self.amount,
                made_ms: self.made_ms,
                time_ms: self.time_ms,
                lsn: Lsn::from_bytes(self.lsn)?,
                resolution,
            },
            tenant: TenantId(self.tenant),
            digest: CardDigest(self.digest),
            body: self.body,
            lsn: Lsn::from_bytes(self.last)?,
        })
    }
}

impl Turn<'_> {
    /// Lists exceptions.
    pub(crate) fn list_exceptions(&self, request: &Request) -> Reply {
        let &Command::ExceptionList { after, count, all } = &request.command else {
            unreachable!("the caller matched the command")
        };
        let count = count.clamp(1, EXCEPTIONS_PER_LIST) as usize;
        let mut page = ExceptionPage { rows: Vec::new(), reached: after };
        let mut more = false;
        for (looked_at, state) in self.state.exceptions.after(request.caller.tenant, after, all).enumerate() {
            let is_shown = self.shows_exception(request, state);
            if looked_at == LOOKED_AT_MAX || is_shown && page.rows.len() == count {
                more = true;
                break;
            }
            page.reached = state.exception.id;
            if is_shown {
                page.rows.push(state.exception.clone());
            }
        }
        let mut reply = self.reply(request, Status::Ok, None, ReplyBody::Exceptions(page));
        if more {
            reply.flags = ReplyFlags::PARTIAL;
        }
        reply
    }

    fn shows_exception(&self, request: &Request, state: &ExceptionState) -> bool {
        let scope = self.state.scope(request.caller.principal).unwrap_or_default();
        is_shown(&self.sequencer.table, scope, &request.caller, state)
    }

    /// Notes what was done about an exception.
    pub(crate) fn resolve_exception(&mut self, work: &Work, at: usize) -> Option<Reply> {
        let request = &work.requests[at];
        let Command::ExceptionResolve(given) = &request.command else {
            unreachable!("the caller matched the command")
        };
        let (id, tenant) = (given.id, request.caller.tenant);
        let known =
            self.state.exceptions.find(id, tenant).filter(|state| self.shows_exception(request, state));
        let refusal = match known.map(|state| &state.exception) {
            _ if !is_note(&given.note) => Some(Status::Malformed),
            None => Some(Status::NotFound),
            Some(Exception { resolution: Some(_), .. }) => Some(Status::IllegalTransition),
            Some(_) => None,
        };
        let (principal, note) = (request.caller.principal, given.note.clone());
        let change = Change {
            kind: Kind::ExceptionResolve,
            subject: id,
            refusal,
            apply: &|state, lsn| {
                let time_ms = state.now_ms;
                let resolution = Resolution { principal, time_ms, note: note.clone() };
                state.exceptions.resolve(id, resolution, lsn);
            },
            show: &|state| {
                let shown = state.exceptions.find(id, tenant).map(|state| state.exception.clone());
                ReplyBody::Exceptions(ExceptionPage { rows: shown.into_iter().collect(), reached: id })
            },
        };
        self.change(work, at, &change)
    }
}

fn is_note(note: &str) -> bool {
    (1..=RESOLUTION_BYTES_MAX).contains(&note.len()) && !note.chars().any(char::is_control)
}

/// Whether a caller may be told of another merchant's exceptions.
pub(crate) const fn sees(role: Role, own: MerchantId, merchant: MerchantId) -> bool {
    matches!(role, Role::Admin) || own.0 == 0 || own.0 == merchant.0
}

/// Whether an exception is told to a caller with this scope: it is of the tenant, of the merchant if the caller belongs to
/// one, and of a product in the scope if there is one.
pub(crate) fn is_shown(table: &Table, scope: Scope<'_>, caller: &Caller, state: &ExceptionState) -> bool {
    state.tenant == caller.tenant
        && sees(caller.role, caller.merchant, state.exception.merchant)
        && (scope.is_all()
            || state
                .exception
                .card
                .and_then(|card| table.batch_of(card))
                .is_some_and(|batch| scope.covers(batch.product)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(id: u64, principal: u32) -> ExceptionState {
        let kept = Kept {
            card: id.is_multiple_of(2).then(|| CardRef::new(1, id)),
            digest: CardDigest(u128::from(id)),
            amount: -1,
            made_ms: 5,
            reason: Status::Frozen,
        };
        let head = Head {
            subject: id,
            request: RequestId(7),
            principal: PrincipalId(principal),
            ..Head::of_engine(Kind::Advice)
        };
        ExceptionState::of(&head, &kept, Lsn::from_bytes(64 * id).unwrap(), 9)
    }

    #[test]
    fn numbers_run_and_what_is_there_stays_as_it_is() {
        let mut list = Exceptions::default();
        assert!(list.add(state(1, 3)) && list.add(state(2, 3)) && list.add(state(3, 4)));
        assert!(!list.add(state(5, 3)), "one is missing");
        let resolution = Resolution { principal: PrincipalId(8), time_ms: 10, note: "paid".to_owned() };
        list.resolve(2, resolution.clone(), Lsn::from_bytes(4096).unwrap());
        assert!(list.add(state(2, 3)), "replay brings it again");
        assert_eq!(list.find(2, TenantId(0)).unwrap().exception.resolution, Some(resolution));
        assert_eq!((list.open_of(PrincipalId(3)), list.open_of(PrincipalId(8))), (1, 0));
        let ids = |after, all| -> Vec<u64> {
            list.after(TenantId(0), after, all).map(|it| it.exception.id).collect()
        };
        assert_eq!(list.after(TenantId(1), 0, true).count(), 0);
        assert!(list.may_be_of(CardDigest(3)) && !Exceptions::default().may_be_of(CardDigest(3)));
        assert_eq!((ids(0, false), ids(1, false), ids(0, true)), (vec![1, 3], vec![3], vec![1, 2, 3]));
        assert!(list.find(2, TenantId(1)).is_none() && list.find(0, TenantId(0)).is_none());
        assert!(list.reported(CardDigest(3), RequestId(7)).is_some());
        assert!(list.reported(CardDigest(3), RequestId(8)).is_none());
        // And through a snapshot.
        let mut again = Exceptions::default();
        assert!(again.restore(&list.rows(0, 2)) && again.restore(&list.rows(2, 9)));
        assert_eq!((again.all, again.open, again.open_of), (list.all, list.open, list.open_of));
        assert_eq!((again.of_tenant, again.filter), (list.of_tenant, list.filter));
    }

    #[test]
    fn what_is_the_tills_own_fault_or_comes_again_is_no_exception() {
        for status in [Status::CardNotValid, Status::Frozen, Status::LimitTerminal, Status::PinLocked] {
            assert!(is_kept(status), "{status:?}");
        }
        for status in [Status::Ok, Status::Busy, Status::IdReused, Status::ReversedBeforeArrival] {
            assert!(!is_kept(status), "{status:?}");
        }
    }
}
