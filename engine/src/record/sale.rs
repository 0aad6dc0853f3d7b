//! What an entry about an order carries: its cards, and what was agreed.
//!
//! A plain sale of one product has the *plain form*, which is the first version's: row ranges for cards never
//! moved before, single cards with the word they had for others. Everything else has the *full form*: runs of
//! rows with the word that all of them had, then lines and money legs.
//!
//! A use of a card that is sold many times stands there as a run of one row with the highest bit of its length set, and
//! in place of that length the entry about an order that had a use of the card before: such entries chain by these, and
//! not by the card's word, which only the first sale moves.

use kami_wal::Lsn;

use super::layout::HEAD_BYTES;
use super::legs::{LEG_BYTES, PostedLeg};
use super::{u16_at, u32_at, u64_at, u128_at};
use crate::identity::OrderId;
use crate::order::Line;
use crate::word::{CardRef, Word};

/// Bytes of the fixed part of the tail in the plain form.
const PLAIN_BYTES: usize = 32;
/// Bytes of a range or moved card in the plain form.
const SPAN_BYTES: usize = 16;
/// Bytes of the fixed part of the tail in the full form.
const FULL_BYTES: usize = 64;
/// Bytes of a run and of a line in the full form.
const RUN_BYTES: usize = 24;
const LINE_BYTES: usize = 16;

/// Rows in their order that all had the same word before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The first card.
    pub first: CardRef,
    /// How many rows.
    pub rows: u32,
    /// The word each of them had.
    pub word: Word,
}

/// In the length of a run: one row, of a card that is sold many times.
const SHARED_BIT: u64 = 1 << 63;

/// One use of a card that is sold many times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedUse {
    /// The card.
    pub card: CardRef,
    /// Its word then.
    pub word: Word,
    /// The last entry about an order that had a use of it before.
    pub before: Option<Lsn>,
}

/// The cards of an entry about an order: first rows never moved before, then those that were, then uses of cards that
/// are sold many times.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allocation {
    /// First card and number of rows.
    pub ranges: Vec<(CardRef, u32)>,
    /// Cards that were moved before.
    pub moved: Vec<Run>,
    /// Uses of cards that are sold many times; of each card one.
    pub shared: Vec<SharedUse>,
}

impl Allocation {
    /// The number of cards.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.ranges.iter().map(|(_, rows)| rows).sum::<u32>()
            + self.moved.iter().map(|run| run.rows).sum::<u32>()
            + self.shared.len() as u32
    }

    /// Every run, in the order's sequence.
    pub fn runs(&self) -> impl Iterator<Item = Run> + '_ {
        let uses = self.shared.iter().map(|used| Run { first: used.card, rows: 1, word: used.word });
        self.whole_runs().chain(uses)
    }

    /// Those of cards that move with the order, as all do but those that are sold many times.
    pub fn whole_runs(&self) -> impl Iterator<Item = Run> + '_ {
        let pristine = self.ranges.iter().map(|&(first, rows)| Run { first, rows, word: Word::PRISTINE });
        pristine.chain(self.moved.iter().copied())
    }

    /// Every card that moves with the order, with the word it had, in the order's sequence.
    pub fn whole_cards(&self) -> impl Iterator<Item = (CardRef, Word)> + '_ {
        cards_of(self.whole_runs())
    }

    /// Every card with the word it had, in the order's sequence.
    pub fn cards(&self) -> impl Iterator<Item = (CardRef, Word)> + '_ {
        cards_of(self.runs())
    }

    /// The use of a card that is sold many times; `None` if none of it is part of it.
    #[must_use]
    pub fn use_of(&self, card: CardRef) -> Option<&SharedUse> {
        self.shared.iter().find(|used| used.card == card)
    }

    /// Adds a card: to the last run if it continues it and had the same word.
    pub fn push(&mut self, card: CardRef, word: Word) {
        let continues = |first: CardRef, rows: u32| {
            first.to_bits() + u64::from(rows) == card.to_bits() && first.batch() == card.batch()
        };
        if word == Word::PRISTINE {
            match self.ranges.last_mut() {
                Some((first, rows)) if continues(*first, *rows) => *rows += 1,
                _ => self.ranges.push((card, 1)),
            }
            return;
        }
        match self.moved.last_mut() {
            Some(run) if run.word == word && continues(run.first, run.rows) => run.rows += 1,
            _ => self.moved.push(Run { first: card, rows: 1, word }),
        }
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.ranges.clear();
        self.moved.clear();
        self.shared.clear();
    }

    /// The word the card had before; `None` if it does not move with it.
    #[must_use]
    pub fn word_before(&self, card: CardRef) -> Option<Word> {
        let holds = |run: &Run| {
            run.first.to_bits() <= card.to_bits()
                && card.to_bits() < run.first.to_bits() + u64::from(run.rows)
        };
        self.whole_runs().find(holds).map(|run| run.word)
    }
}

fn cards_of(runs: impl Iterator<Item = Run>) -> impl Iterator<Item = (CardRef, Word)> {
    runs.flat_map(|Run { first, rows, word }| {
        (0..u64::from(rows)).map(move |row| (CardRef::new(first.batch(), first.row() + row), word))
    })
}

/// What an entry about an order says beside its cards. The default is a plain sale.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OrderFacts {
    /// Who buys; 0 is nobody in particular.
    pub account: u32,
    /// Of RESERVE: for how many seconds its cards had to be valid still.
    pub validity_s_min: u32,
    /// A keyed hash of the address the buyer came from; 0 is unknown.
    pub ip: u64,
    /// Of RESERVE: until when it is to be paid. Of CANCEL and RESERVE_TIMEOUT: when it was reserved.
    /// Milliseconds since 1970.
    pub moment_ms: u64,
    /// The order's word before; 0 is none.
    pub prev: u64,
    /// Whether the codes are not delivered with it: they are still unseen.
    pub sealed: bool,
    /// What was bought, or given up; empty in a plain sale, a CONFIRM and a RETURN.
    pub lines: Vec<Line>,
    /// How money moved, or was set aside.
    pub legs: Vec<PostedLeg>,
}

impl OrderFacts {
    /// A plain sale has the plain form unless the full one is shorter, as for long runs that came back.
    fn is_plain(&self, cards: &Allocation) -> bool {
        *self == OrderFacts::default()
            && cards.shared.is_empty()
            && plain_bytes(cards) <= FULL_BYTES + cards.moved.len() * RUN_BYTES
    }

    /// Bytes of the tail that [`OrderFacts::encode`] writes.
    #[must_use]
    pub fn tail_bytes(&self, cards: &Allocation) -> usize {
        if self.is_plain(cards) {
            plain_bytes(cards)
        } else {
            let runs = cards.ranges.len() + cards.moved.len() + cards.shared.len();
            FULL_BYTES + runs * RUN_BYTES + self.lines.len() * LINE_BYTES + self.legs.len() * LEG_BYTES
        }
    }

    /// The most bytes that an entry about an order of `count` cards takes, head included.
    #[must_use]
    pub const fn entry_bytes_max(count: u32, lines: usize, legs: usize) -> usize {
        HEAD_BYTES + FULL_BYTES + count as usize * RUN_BYTES + lines * LINE_BYTES + legs * LEG_BYTES
    }

    /// The most bytes that a plain sale of `count` cards takes, head included, unless they are sold many times.
    #[must_use]
    pub const fn plain_entry_bytes_max(count: u32) -> usize {
        HEAD_BYTES + PLAIN_BYTES + count as usize * SPAN_BYTES
    }

    /// Writes the tail.
    pub fn encode(&self, order: OrderId, cards: &Allocation, tail: &mut [u8]) {
        tail[0..16].copy_from_slice(&order.0.to_le_bytes());
        tail[16..20].copy_from_slice(&cards.count().to_le_bytes());
        if self.is_plain(cards) {
            tail[20..24].copy_from_slice(&(cards.ranges.len() as u32).to_le_bytes());
            let moved: u32 = cards.moved.iter().map(|run| run.rows).sum();
            tail[24..28].copy_from_slice(&moved.to_le_bytes());
            tail[28..32].fill(0);
            let ranges = cards.ranges.iter().map(|(first, rows)| (first.to_bits(), u64::from(*rows)));
            let moved = cards.moved.iter().flat_map(|run| {
                let first = run.first.to_bits();
                (first..first + u64::from(run.rows)).map(|card| (card, run.word.bits()))
            });
            for (span, (first, second)) in
                tail[PLAIN_BYTES..].chunks_exact_mut(SPAN_BYTES).zip(ranges.chain(moved))
            {
                span[..8].copy_from_slice(&first.to_le_bytes());
                span[8..].copy_from_slice(&second.to_le_bytes());
            }
            return;
        }
        let runs = cards.ranges.len() + cards.moved.len() + cards.shared.len();
        tail[20..24].copy_from_slice(&(runs as u32).to_le_bytes());
        tail[24..26].copy_from_slice(&(self.lines.len() as u16).to_le_bytes());
        tail[26..28].copy_from_slice(&(self.legs.len() as u16).to_le_bytes());
        tail[28..32].copy_from_slice(&(1 | u32::from(self.sealed) << 1).to_le_bytes());
        tail[32..36].copy_from_slice(&self.account.to_le_bytes());
        tail[36..40].copy_from_slice(&self.validity_s_min.to_le_bytes());
        tail[40..48].copy_from_slice(&self.ip.to_le_bytes());
        tail[48..56].copy_from_slice(&self.moment_ms.to_le_bytes());
        tail[56..64].copy_from_slice(&self.prev.to_le_bytes());
        let mut at = FULL_BYTES;
        let mut put = |bytes: &[u8]| {
            tail[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        for run in cards.whole_runs() {
            put(&run.first.to_bits().to_le_bytes());
            put(&u64::from(run.rows).to_le_bytes());
            put(&run.word.bits().to_le_bytes());
        }
        for used in &cards.shared {
            put(&used.card.to_bits().to_le_bytes());
            put(&(SHARED_BIT | used.before.map_or(0, Lsn::units)).to_le_bytes());
            put(&used.word.bits().to_le_bytes());
        }
        for line in &self.lines {
            put(&line.product.0.to_le_bytes());
            put(&line.count.to_le_bytes());
            put(&line.face.unwrap_or(i64::MIN).to_le_bytes());
        }
        PostedLeg::encode_all(&self.legs, &mut tail[at..]);
    }

    /// Reads a tail of either form. The error says what is wrong.
    pub(super) fn decode(tail: &[u8]) -> Result<(OrderId, Allocation, OrderFacts), &'static str> {
        if tail.len() < PLAIN_BYTES {
            return Err("order shorter than its head");
        }
        let order = OrderId(u128_at(tail, 0));
        let count = u32_at(tail, 16);
        let form = u32_at(tail, 28);
        let (cards, facts) = match form {
            0 => (plain(tail)?, OrderFacts::default()),
            1 | 3 => full(tail, form)?,
            _ => return Err("order of an unknown form"),
        };
        let total: u64 = cards.runs().map(|run| u64::from(run.rows)).sum();
        if total == u64::from(count) {
            Ok((order, cards, facts))
        } else {
            Err("order of more or fewer cards than it says")
        }
    }
}

fn plain_bytes(cards: &Allocation) -> usize {
    let moved: usize = cards.moved.iter().map(|run| run.rows as usize).sum();
    PLAIN_BYTES + (cards.ranges.len() + moved) * SPAN_BYTES
}

fn plain(tail: &[u8]) -> Result<Allocation, &'static str> {
    let (ranges, moved) = (u32_at(tail, 20), u32_at(tail, 24));
    let spans = &tail[PLAIN_BYTES..];
    if spans.len() as u64 != (u64::from(ranges) + u64::from(moved)) * SPAN_BYTES as u64 {
        return Err("sale with more or fewer spans than it says");
    }
    let mut cards = Allocation::default();
    for (i, span) in spans.chunks_exact(SPAN_BYTES).enumerate() {
        let (first, second) = (CardRef::from_bits(u64_at(span, 0)), u64_at(span, 8));
        if i < ranges as usize {
            cards.ranges.push((first, rows_of(first, second)?));
        } else {
            let word = Word::from_bits(second).ok_or("unknown word")?;
            cards.moved.push(Run { first, rows: 1, word });
        }
    }
    Ok(cards)
}

fn full(tail: &[u8], form: u32) -> Result<(Allocation, OrderFacts), &'static str> {
    if tail.len() < FULL_BYTES {
        return Err("order shorter than its head");
    }
    let (runs, lines, legs) =
        (u32_at(tail, 20) as u64, u64::from(u16_at(tail, 24)), u64::from(u16_at(tail, 26)));
    let bytes = runs * RUN_BYTES as u64 + lines * LINE_BYTES as u64 + legs * LEG_BYTES as u64;
    let rest = &tail[FULL_BYTES..];
    if rest.len() as u64 != bytes {
        return Err("order with more or fewer parts than it says");
    }
    let (run_bytes, rest) = rest.split_at(runs as usize * RUN_BYTES);
    let (line_bytes, leg_bytes) = rest.split_at(lines as usize * LINE_BYTES);
    let mut cards = Allocation::default();
    for run in run_bytes.chunks_exact(RUN_BYTES) {
        let first = CardRef::from_bits(u64_at(run, 0));
        let length = u64_at(run, 8);
        if length & SHARED_BIT != 0 {
            let word = Word::from_bits(u64_at(run, 16)).ok_or("unknown word")?;
            if length >> 48 != SHARED_BIT >> 48 {
                return Err("use of a card damaged");
            }
            cards.shared.push(SharedUse { card: first, word, before: Lsn::from_units(length & !SHARED_BIT) });
            continue;
        }
        if !cards.shared.is_empty() {
            return Err("runs out of order");
        }
        let rows = rows_of(first, length)?;
        match Word::from_bits(u64_at(run, 16)) {
            None => return Err("unknown word"),
            // Their sequence is the order's: what was never moved comes first.
            Some(Word::PRISTINE) if !cards.moved.is_empty() => return Err("runs out of order"),
            Some(Word::PRISTINE) => cards.ranges.push((first, rows)),
            Some(word) => cards.moved.push(Run { first, rows, word }),
        }
    }
    let lines = line_bytes.chunks_exact(LINE_BYTES).map(|line| {
        let face = u64_at(line, 8).cast_signed();
        Line {
            product: crate::ProductId(u32_at(line, 0)),
            count: u32_at(line, 4),
            face: (face != i64::MIN).then_some(face),
        }
    });
    let legs = PostedLeg::decode_all(leg_bytes).ok_or("legs damaged")?;
    let facts = OrderFacts {
        account: u32_at(tail, 32),
        validity_s_min: u32_at(tail, 36),
        ip: u64_at(tail, 40),
        moment_ms: u64_at(tail, 48),
        prev: u64_at(tail, 56),
        sealed: form & 2 != 0,
        lines: lines.collect(),
        legs,
    };
    Ok((cards, facts))
}

fn rows_of(first: CardRef, rows: u64) -> Result<u32, &'static str> {
    let rows = u32::try_from(rows).ok().filter(|rows| *rows > 0);
    let rows = rows.filter(|rows| first.row() + u64::from(*rows) <= CardRef::ROWS_MAX);
    rows.ok_or("range of rows out of bounds")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::word::{Flags, Lifecycle};

    fn order() -> (OrderFacts, Allocation) {
        let word = |n: u64| Word::new(Lsn::from_units(512 + n).unwrap(), Lifecycle::Sold, Flags::REVEALED);
        let cards = Allocation {
            ranges: vec![(CardRef::new(3, 5), 10)],
            moved: vec![Run { first: CardRef::new(4, 2), rows: 1, word: word(0) }],
            shared: vec![
                SharedUse { card: CardRef::new(5, 0), word: Word::PRISTINE, before: None },
                SharedUse { card: CardRef::new(5, 1), word: word(1), before: Lsn::from_units((1 << 47) - 1) },
            ],
        };
        (OrderFacts { account: 7, ..OrderFacts::default() }, cards)
    }

    #[test]
    fn uses_of_cards_that_are_sold_many_times_are_read_as_written() {
        let (facts, cards) = order();
        for facts in [facts, OrderFacts::default()] {
            let mut tail = vec![0; facts.tail_bytes(&cards)];
            facts.encode(OrderId(9), &cards, &mut tail);
            assert_eq!(OrderFacts::decode(&tail), Ok((OrderId(9), cards.clone(), facts)));
        }
        assert_eq!((cards.count(), cards.cards().count(), cards.whole_cards().count()), (13, 13, 11));
    }

    #[test]
    fn no_byte_of_a_use_is_passed_over() {
        let (facts, cards) = order();
        let mut tail = vec![0; facts.tail_bytes(&cards)];
        facts.encode(OrderId(9), &cards, &mut tail);
        let uses = FULL_BYTES + 2 * RUN_BYTES;
        for bit in 8 * uses..8 * tail.len() {
            let mut bent = tail.clone();
            bent[bit / 8] ^= 1 << (bit % 8);
            let read = OrderFacts::decode(&bent);
            assert!(read.is_err() || read != Ok((OrderId(9), cards.clone(), facts.clone())), "bit {bit}");
        }
        // Uses come last.
        tail[FULL_BYTES + 15] |= 0x80;
        assert!(OrderFacts::decode(&tail).is_err());
    }
}
