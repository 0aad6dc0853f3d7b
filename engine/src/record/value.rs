//! What entries about a card's value keep behind their head: the purse, and the trail that makes a long chain
//! quick to search.
//!
//! # Invariants
//! * `initial + loaded + refunded - redeemed = remaining` and `0 <= held <= remaining` after every entry.
//! * The entries with such a tail are numbered from 1 in `effects`. Each belongs to an *chapter* of
//!   [`CHAPTER_ENTRIES`] and to an *volume* of [`VOLUME_CHAPTERS`] chapters. Its filter holds the ids of its chapter up to
//!   and including itself, those of the entries without such a tail in between, too: what the filter denies is
//!   not there. The last entry of a volume carries the filters of all its chapters.
//! * What an entry relates to is in the filter with its own id: so one search finds a redemption, its reversal
//!   and its refunds.

use kami_wal::Lsn;

use crate::identity::RequestId;
use crate::product::Money;

use super::{FormatError, Kind, u16_at, u32_at, u64_at, u128_at};

/// Bytes of the tail that every entry about a card's value has.
pub const VALUE_BYTES: usize = 192;
/// Bytes that the last entry of a volume has beside it.
pub const VOLUME_BYTES: usize = VOLUME_CHAPTERS as usize * ROW_BYTES;
const ROW_BYTES: usize = 8 + FILTER_WORDS * 8;
/// Entries of an chapter.
pub const CHAPTER_ENTRIES: u32 = 32;
/// Epochs of a volume.
pub const VOLUME_CHAPTERS: u32 = 32;
/// Entries of a volume.
pub const VOLUME_ENTRIES: u32 = CHAPTER_ENTRIES * VOLUME_CHAPTERS;
const FILTER_WORDS: usize = 8;

/// A small set of request ids that may say "perhaps" to one that is not in it, and never "no" to one that is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filter([u64; FILTER_WORDS]);

/// What hashes request ids for filters. It is secret, so that nobody can choose ids that all meet.
#[derive(Clone, Copy)]
pub struct MarkKey(pub [u8; 32]);

/// Where a request id shows in filters.
#[derive(Clone, Copy, Debug)]
pub struct Mark([u16; 5]);

impl MarkKey {
    /// The mark of an id.
    #[must_use]
    pub fn mark(&self, id: RequestId) -> Mark {
        let hash = blake3::keyed_hash(&self.0, &id.0.to_le_bytes());
        let bits = u64::from_le_bytes(hash.as_bytes()[..8].try_into().expect("eight bytes"));
        Mark([0, 9, 18, 27, 36].map(|shift| (bits >> shift & 511) as u16))
    }
}

impl Filter {
    /// Adds an id.
    pub fn add(&mut self, mark: Mark) {
        for bit in mark.0 {
            self.0[usize::from(bit / 64)] |= 1 << (bit % 64);
        }
    }

    /// Adds all of another.
    pub fn merge(&mut self, other: &Filter) {
        for (word, more) in self.0.iter_mut().zip(other.0) {
            *word |= more;
        }
    }

    /// Whether the id may have been added.
    #[must_use]
    pub fn may_hold(&self, mark: Mark) -> bool {
        mark.0.iter().all(|bit| self.0[usize::from(bit / 64)] >> (bit % 64) & 1 == 1)
    }

    fn encode(&self, place: &mut [u8]) {
        for (place, word) in place.chunks_exact_mut(8).zip(self.0) {
            place.copy_from_slice(&word.to_le_bytes());
        }
    }

    fn decode(bytes: &[u8]) -> Filter {
        let mut filter = Filter::default();
        for (word, bytes) in filter.0.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64_at(bytes, 0);
        }
        filter
    }
}

/// What is on a card. Amounts are minor units, or uses of a card that is used a number of times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Purse {
    /// What is left, held or not.
    pub remaining: Money,
    /// What open holds that are not over keep of it.
    pub held: Money,
    /// What was redeemed and not reversed.
    pub redeemed: Money,
    /// What was loaded and not reversed, and what came from other cards, less what went to others: may be below zero.
    pub loaded: Money,
    /// What was given back by refunds.
    pub refunded: Money,
    /// The sale that the card belongs to, or the return that took it back.
    pub sale: Option<Lsn>,
    /// Redemptions before this place are settled.
    pub settled: Option<Lsn>,
    /// How many entries with a purse the card has.
    pub effects: u32,
    /// How many tombstones it has, and how many of its redemptions were reversed.
    pub tombstones: u16,
    /// See `tombstones`.
    pub reversals: u16,
    /// From when its validity counts, milliseconds, if that is from an event of its own that has happened; else 0.
    pub begun_ms: u64,
}

impl Purse {
    /// A card that nobody used yet.
    #[must_use]
    pub fn fresh(initial: Money, sale: Option<Lsn>) -> Purse {
        Purse { remaining: initial, sale, ..Purse::default() }
    }

    /// What the card held at first, by what happened since; `None` if the sums make no sense.
    #[must_use]
    pub fn initial(&self) -> Option<Money> {
        let before = self.remaining.checked_add(self.redeemed)?;
        before.checked_sub(self.loaded)?.checked_sub(self.refunded)
    }

    /// Of a card that is sold many times: uses that were redeemed, and neither reversed nor refunded.
    #[must_use]
    pub fn spent(&self) -> u32 {
        u32::try_from(self.redeemed - self.refunded).unwrap_or(0)
    }

    /// Whether the amounts are possible.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let parts = [self.held, self.redeemed, self.refunded];
        parts.iter().all(|part| *part >= 0)
            && self.held <= self.remaining
            && self.refunded <= self.redeemed
            && self.initial().is_some_and(|initial| initial >= 0)
    }
}

/// Where to look for earlier entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trail {
    /// The ids of the chapter so far.
    pub filter: Filter,
    /// The last entry of the chapter before.
    pub skip: Option<Lsn>,
    /// The last entry of the volume before.
    pub volume: Option<Lsn>,
}

/// An chapter as the last entry of its volume tells of it: its last entry and its filter.
pub type Chapter = (Option<Lsn>, Filter);

/// The tail of an entry about a card's value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ValueTail {
    /// What this entry moved, held, released or loaded.
    pub amount: Money,
    /// The hold or the redemption it is about, or zero.
    pub related: RequestId,
    /// That one's entry.
    pub related_lsn: Option<Lsn>,
    /// Of HOLD its deadline, of ADVICE its own time, milliseconds since 1970; of REVERSE the number of the kind of
    /// what it undoes; else 0.
    pub time_ms: u64,
    /// What is on the card afterwards.
    pub purse: Purse,
    /// Where to look for what was before.
    pub trail: Trail,
    /// Of the last entry of a volume: its chapters, oldest first; the last of them is the entry's own.
    pub chapters: Vec<Chapter>,
}

impl ValueTail {
    /// How many bytes it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        if self.chapters.is_empty() { VALUE_BYTES } else { VALUE_BYTES + VOLUME_BYTES }
    }

    /// Of REVERSE: what it undoes, where the entry says so.
    #[must_use]
    pub fn undone(&self) -> Option<Kind> {
        u8::try_from(self.time_ms).ok().and_then(Kind::from_number)
    }

    /// Writes it.
    pub fn encode(&self, tail: &mut [u8]) {
        let lsn = |lsn: Option<Lsn>| lsn.map_or(0, Lsn::bytes);
        let Purse { remaining, held, redeemed, loaded, refunded, .. } = self.purse;
        let amounts = [self.amount, remaining, held, redeemed, loaded, refunded];
        for (place, amount) in tail[..48].chunks_exact_mut(8).zip(amounts) {
            place.copy_from_slice(&amount.to_le_bytes());
        }
        tail[48..64].copy_from_slice(&self.related.0.to_le_bytes());
        let numbers = [lsn(self.related_lsn), self.time_ms, lsn(self.purse.sale), lsn(self.purse.settled)];
        for (place, number) in tail[64..96].chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        tail[96..100].copy_from_slice(&self.purse.effects.to_le_bytes());
        tail[100..102].copy_from_slice(&self.purse.tombstones.to_le_bytes());
        tail[102..104].copy_from_slice(&self.purse.reversals.to_le_bytes());
        tail[104..112].copy_from_slice(&self.purse.begun_ms.to_le_bytes());
        tail[112..120].copy_from_slice(&lsn(self.trail.skip).to_le_bytes());
        tail[120..128].copy_from_slice(&lsn(self.trail.volume).to_le_bytes());
        self.trail.filter.encode(&mut tail[128..VALUE_BYTES]);
        for (place, (last, filter)) in tail[VALUE_BYTES..].chunks_exact_mut(ROW_BYTES).zip(&self.chapters) {
            place[..8].copy_from_slice(&lsn(*last).to_le_bytes());
            filter.encode(&mut place[8..]);
        }
    }

    /// Reads a tail of `at`'s entry; `None` if it is of another kind.
    ///
    /// # Errors
    /// If it says what cannot be.
    pub fn decode(tail: &[u8], at: Lsn) -> Result<Option<ValueTail>, FormatError> {
        if tail.len() != VALUE_BYTES && tail.len() != VALUE_BYTES + VOLUME_BYTES {
            return Ok(None);
        }
        let wrong = |what| Err(FormatError { what, lsn: at });
        let money = |place| u64_at(tail, place).cast_signed();
        let lsn = |place| Lsn::from_bytes(u64_at(tail, place));
        let purse = Purse {
            remaining: money(8),
            held: money(16),
            redeemed: money(24),
            loaded: money(32),
            refunded: money(40),
            sale: lsn(80),
            settled: lsn(88),
            effects: u32_at(tail, 96),
            tombstones: u16_at(tail, 100),
            reversals: u16_at(tail, 102),
            begun_ms: u64_at(tail, 104),
        };
        if !purse.is_sound() {
            return wrong("a card's value that does not add up");
        }
        let trail =
            Trail { filter: Filter::decode(&tail[128..VALUE_BYTES]), skip: lsn(112), volume: lsn(120) };
        // Searching follows these: they lead back, or it would not end.
        if trail.skip.max(trail.volume) >= Some(at) {
            return wrong("a card's trail does not fall");
        }
        let rows = tail[VALUE_BYTES..].chunks_exact(ROW_BYTES);
        let chapters: Vec<Chapter> =
            rows.map(|row| (Lsn::from_bytes(u64_at(row, 0)), Filter::decode(&row[8..]))).collect();
        if chapters.iter().any(|(last, _)| *last >= Some(at)) {
            return wrong("a card's trail does not fall");
        }
        Ok(Some(ValueTail {
            amount: money(0),
            related: RequestId(u128_at(tail, 48)),
            related_lsn: lsn(64),
            time_ms: u64_at(tail, 72),
            purse,
            trail,
            chapters,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(bytes: u64) -> Option<Lsn> {
        Lsn::from_bytes(bytes)
    }

    #[test]
    fn what_is_written_is_read() {
        let key = MarkKey([7; 32]);
        let mut tail = ValueTail {
            amount: 5,
            related: RequestId(9),
            related_lsn: at(4096),
            time_ms: 77,
            purse: Purse {
                begun_ms: 1_795_000_000_000,
                remaining: 60,
                held: 10,
                redeemed: 50,
                loaded: 8,
                refunded: 2,
                sale: at(2048),
                settled: at(4096),
                effects: 1024,
                tombstones: 3,
                reversals: 4,
            },
            trail: Trail { filter: Filter::default(), skip: at(8192), volume: None },
            chapters: Vec::new(),
        };
        tail.trail.filter.add(key.mark(RequestId(9)));
        for chapters in [Vec::new(), vec![(at(64), tail.trail.filter); VOLUME_CHAPTERS as usize]] {
            tail.chapters = chapters;
            let mut bytes = vec![0; tail.bytes()];
            tail.encode(&mut bytes);
            let lsn = at(1 << 20).unwrap();
            assert_eq!(ValueTail::decode(&bytes, lsn).unwrap().as_ref(), Some(&tail));
            // An entry that leads on, to itself or further, would be followed for ever.
            assert!(ValueTail::decode(&bytes, at(8192).unwrap()).is_err());
            bytes[16..24].copy_from_slice(&61_i64.to_le_bytes());
            assert!(ValueTail::decode(&bytes, lsn).is_err(), "more is held than is there");
        }
        assert_eq!(ValueTail::decode(&[0; 24], at(64).unwrap()), Ok(None));
    }

    #[test]
    fn a_filter_never_denies_what_it_holds_and_seldom_claims_the_rest() {
        let key = MarkKey([1; 32]);
        let mut filter = Filter::default();
        let ids = |from: u128, count: u128| (from..from + count).map(|id| key.mark(RequestId(id)));
        ids(0, u128::from(CHAPTER_ENTRIES)).for_each(|mark| filter.add(mark));
        assert!(ids(0, u128::from(CHAPTER_ENTRIES)).all(|mark| filter.may_hold(mark)));
        let wrong = ids(1 << 64, 100_000).filter(|mark| filter.may_hold(*mark)).count();
        assert!(wrong < 400, "{wrong} of 100,000");
    }
}
