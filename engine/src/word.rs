//! The card word: all mutable state of a card in 64 bits.
//!
//! | bits | field | meaning |
//! |---|---|---|
//! | 0..4 | lifecycle | see [`Lifecycle`] |
//! | 4..16 | flags | see [`Flags`] |
//! | 16..64 | lsn | the card's last entry in the log, in 8-byte units; 0: only the import |
//!
//! A word of zero is a card that was imported and never touched since: AVAILABLE, no flags, its last
//! record the one that committed its batch. So a fresh batch of ten million cards needs no
//! initialisation and no resident memory until its cards move. A card that was imported in another state than in stock
//! begins with that state and no position.

use std::fmt;

use kami_wal::Lsn;

/// Which card: the row of a batch file. 24 bits of batch above 40 bits of row.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CardRef(u64);

impl CardRef {
    /// Batch numbers stay below this.
    pub const BATCHES_MAX: u32 = 1 << 24;
    /// Rows of a batch stay below this.
    pub const ROWS_MAX: u64 = 1 << 40;

    /// The card in row `row` of batch `batch`.
    ///
    /// # Panics
    /// If either is out of its range.
    #[must_use]
    pub const fn new(batch: u32, row: u64) -> CardRef {
        assert!(batch < Self::BATCHES_MAX && row < Self::ROWS_MAX, "card reference out of range");
        CardRef((batch as u64) << 40 | row)
    }

    /// The batch number.
    #[must_use]
    pub const fn batch(self) -> u32 {
        (self.0 >> 40) as u32
    }

    /// The row in the batch.
    #[must_use]
    pub const fn row(self) -> u64 {
        self.0 & (Self::ROWS_MAX - 1)
    }

    /// As one number, for formats.
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// From one number; every number is a reference, though not every reference is a card.
    #[must_use]
    pub const fn from_bits(bits: u64) -> CardRef {
        CardRef(bits)
    }
}

impl fmt::Debug for CardRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.batch(), self.row())
    }
}

impl fmt::Display for CardRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Where a card stands in its life. Numbers are part of the log format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Lifecycle {
    /// 在库: in stock.
    Available = 0,
    /// 占用: taken by an unpaid order.
    Reserved = 1,
    /// 已售: belongs to an order.
    Sold = 2,
    /// 已核销: used up.
    Redeemed = 3,
    /// 过期: its time is over.
    Expired = 4,
    /// 作废: void for good.
    Voided = 5,
    /// 退回: came back after its code was seen.
    Returned = 6,
}

impl Lifecycle {
    /// Room for counters by lifecycle; the last is not assigned.
    pub const COUNT: usize = 8;
    /// Every lifecycle, in order of number.
    pub const ALL: [Lifecycle; 7] = [
        Lifecycle::Available,
        Lifecycle::Reserved,
        Lifecycle::Sold,
        Lifecycle::Redeemed,
        Lifecycle::Expired,
        Lifecycle::Voided,
        Lifecycle::Returned,
    ];

    /// The lifecycle with this number.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Lifecycle> {
        match number {
            0 => Some(Lifecycle::Available),
            1 => Some(Lifecycle::Reserved),
            2 => Some(Lifecycle::Sold),
            3 => Some(Lifecycle::Redeemed),
            4 => Some(Lifecycle::Expired),
            5 => Some(Lifecycle::Voided),
            6 => Some(Lifecycle::Returned),
            _ => None,
        }
    }

    /// The name in English, upper case.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Lifecycle::Available => "AVAILABLE",
            Lifecycle::Reserved => "RESERVED",
            Lifecycle::Sold => "SOLD",
            Lifecycle::Redeemed => "REDEEMED",
            Lifecycle::Expired => "EXPIRED",
            Lifecycle::Voided => "VOIDED",
            Lifecycle::Returned => "RETURNED",
        }
    }
}

/// Twelve bits beside the lifecycle. Bits are part of the log format; unassigned ones are zero.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Flags(u16);

impl Flags {
    /// No flag.
    pub const NONE: Flags = Flags(0);
    /// 已激活: activated by itself; without this and [`Flags::INACTIVE`] the batch decides.
    pub const ACTIVE: Flags = Flags(1 << 0);
    /// Deactivated by itself.
    pub const INACTIVE: Flags = Flags(1 << 1);
    /// 冻结: frozen by itself.
    pub const FROZEN: Flags = Flags(1 << 2);
    /// Its code was given out.
    pub const REVEALED: Flags = Flags(1 << 3);
    /// Its redemption is settled.
    pub const SETTLED: Flags = Flags(1 << 4);
    /// Something other than IMPORT, SELL and REVEAL was recorded: a retry must look at the chain.
    pub const HAS_EFFECTS: Flags = Flags(1 << 5);
    /// Part of its value is held.
    pub const HELD: Flags = Flags(1 << 6);
    /// Redeemed at least once, in part or in whole, not reversed since.
    pub const USED: Flags = Flags(1 << 7);
    /// It has an end of validity of its own, which stands in its chain of entries.
    pub const OWN_END: Flags = Flags(1 << 8);
    /// Void because another card took its place, or because its value went to another.
    pub const REPLACED: Flags = Flags(1 << 9);
    /// It was used up in the system that it was imported from, and no entry of this log says so.
    pub const MIGRATED: Flags = Flags(1 << 10);
    /// Every assigned flag with its name.
    pub const NAMED: [(Flags, &'static str); 11] = [
        (Flags::ACTIVE, "ACTIVE"),
        (Flags::INACTIVE, "INACTIVE"),
        (Flags::FROZEN, "FROZEN"),
        (Flags::REVEALED, "REVEALED"),
        (Flags::SETTLED, "SETTLED"),
        (Flags::HAS_EFFECTS, "HAS_EFFECTS"),
        (Flags::HELD, "HELD"),
        (Flags::USED, "USED"),
        (Flags::OWN_END, "OWN_END"),
        (Flags::REPLACED, "REPLACED"),
        (Flags::MIGRATED, "MIGRATED"),
    ];

    /// The twelve bits.
    #[must_use]
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// From bits; `None` if one is not assigned.
    #[must_use]
    pub const fn from_bits(bits: u16) -> Option<Flags> {
        let mut assigned = 0;
        let mut at = 0;
        while at < Self::NAMED.len() {
            assigned |= Self::NAMED[at].0.0;
            at += 1;
        }
        if bits & !assigned == 0 { Some(Flags(bits)) } else { None }
    }

    /// Whether all bits of `other` are set.
    #[must_use]
    pub const fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// These and those of `other`.
    #[must_use]
    pub const fn with(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    /// These less those of `other`.
    #[must_use]
    pub const fn without(self, other: Flags) -> Flags {
        Flags(self.0 & !other.0)
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for (_, name) in Self::NAMED.into_iter().filter(|(flag, _)| self.contains(*flag)) {
            if !std::mem::take(&mut first) {
                f.write_str("|")?;
            }
            f.write_str(name)?;
        }
        if first { f.write_str("-") } else { Ok(()) }
    }
}

/// The word itself.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Word(u64);

impl Word {
    /// A card that was imported and never moved.
    pub const PRISTINE: Word = Word(0);

    /// A word.
    #[must_use]
    pub const fn new(lsn: Lsn, lifecycle: Lifecycle, flags: Flags) -> Word {
        Word(lsn.units() << 16 | (flags.0 as u64) << 4 | lifecycle as u64)
    }

    /// The word that an import gives a card: no entry of its own says so.
    #[must_use]
    pub(crate) const fn unrecorded(lifecycle: Lifecycle, flags: Flags) -> Word {
        Word((flags.0 as u64) << 4 | lifecycle as u64)
    }

    /// From its 64 bits; `None` if the lifecycle or a flag is not assigned.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Option<Word> {
        if Lifecycle::from_number((bits & 15) as u8).is_none()
            || Flags::from_bits((bits >> 4 & 0xfff) as u16).is_none()
        {
            return None;
        }
        Some(Word(bits))
    }

    /// Its 64 bits.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The low 16 bits of a word with this lifecycle and these flags.
    #[must_use]
    pub const fn state_of(lifecycle: Lifecycle, flags: Flags) -> u16 {
        flags.0 << 4 | lifecycle as u16
    }

    /// Whether it is in stock, or taken for an order that is not paid yet: a card that nobody who redeems
    /// may know of.
    #[inline]
    #[must_use]
    pub const fn is_unsold(self) -> bool {
        matches!(self.lifecycle(), Lifecycle::Available | Lifecycle::Reserved)
    }

    /// Whether a card that an order bought is still that order's: not void, not returned. (Only a card
    /// that was returned can be sold again, and a revealed one never comes back into stock.)
    #[must_use]
    pub const fn belongs_to_order(self) -> bool {
        matches!(self.lifecycle(), Lifecycle::Sold | Lifecycle::Redeemed | Lifecycle::Expired)
    }

    /// The low 16 bits, which a log entry keeps as the card's state after it.
    #[must_use]
    pub const fn state(self) -> u16 {
        self.0 as u16
    }

    /// The card's last entry; `None` means that there is only the import.
    #[must_use]
    pub const fn lsn(self) -> Option<Lsn> {
        Lsn::from_units(self.0 >> 16)
    }

    /// The lifecycle.
    #[must_use]
    pub const fn lifecycle(self) -> Lifecycle {
        match Lifecycle::from_number((self.0 & 15) as u8) {
            Some(lifecycle) => lifecycle,
            None => unreachable!(),
        }
    }

    /// The flags.
    #[must_use]
    pub const fn flags(self) -> Flags {
        Flags((self.0 >> 4 & 0xfff) as u16)
    }
}

impl fmt::Debug for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} @{:?}", self.lifecycle().name(), self.flags(), self.lsn())
    }
}
