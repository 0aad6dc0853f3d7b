//! Totals by day, merchant, channel, terminal, product and kind of event: what was sold, redeemed and taken back,
//! counted from the log itself.
//!
//! Nothing is kept for this beside the log, so totals cannot differ from it. Engine time never goes back and every
//! group carries its own, so a period is a stretch of the log: its first segment is found by a dozen reads, and only
//! the segments of the period are read, outside of the sequencer's lock. A day of ten million redemptions is about a
//! gigabyte, whatever the age of the store.
//!
//! # Invariants
//! * Totals are those of the log up to an end that is part of the answer and was durable: asked again with that end
//!   they are the same, whatever happens meanwhile. So a long answer can be fetched in pages.
//! * However many lines a period has, no more are kept than twice a page: the lowest keys behind the page before.
//! * A line is what the caller may see, like an event of a feed.
//! * REVERSE is what undoes a redemption. One of a HOLD moved nothing and is left out; one of a LOAD stands in the
//!   line of LOAD, with its amount below zero.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use kami_wal::{Lsn, RecordKind};

use crate::engine::Engine;
use crate::event::{Event, Sight};
use crate::feed::PastError;
use crate::identity::{Caller, ChannelId, MerchantId, ProductId, TerminalId};
use crate::product::Money;
use crate::record::{Group, Kind};
use crate::status::Status;

/// The most days of one query.
pub const TOTALS_DAYS_MAX: u32 = 366;
/// The most lines of one page.
pub const TOTALS_LINES_MAX: u32 = 16_384;
/// The largest distance of a time zone from UTC, in minutes.
pub const OFFSET_MIN_MAX: i16 = 18 * 60;

const DAY_MS: i64 = 24 * 3600 * 1000;

/// The kinds that are totalled: those that move cards or their value between a merchant and a customer.
pub const TOTALLED: &[Kind] = &[
    Kind::Sell,
    Kind::Export,
    Kind::Confirm,
    Kind::Realloc,
    Kind::Return,
    Kind::Redeem,
    Kind::Reverse,
    Kind::Capture,
    Kind::Load,
    Kind::RefundValue,
    Kind::Replace,
    Kind::Transfer,
];

/// What a line is the total of. Lines are in the order of these fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TotalKey {
    /// Days since 1970-01-01 in the time zone that was asked for.
    pub day: u32,
    /// For which merchant.
    pub merchant: MerchantId,
    /// Through which channel.
    pub channel: ChannelId,
    /// At which till.
    pub terminal: TerminalId,
    /// Of which product, whose currency the amount is in.
    pub product: ProductId,
    /// A [`Kind`]'s number.
    pub kind: u8,
}

/// One line of the totals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TotalLine {
    /// What it is the total of.
    pub key: TotalKey,
    /// How many cards were sold or returned; else, how many events there were.
    pub count: u64,
    /// Their amounts together, in minor units; the largest number if it is beyond that.
    pub amount: Money,
}

/// Which totals are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TotalsQuery {
    /// The first day, in days since 1970-01-01.
    pub day: u32,
    /// How many days, 1 to [`TOTALS_DAYS_MAX`].
    pub days: u32,
    /// Minutes by which the days' time zone is ahead of UTC, at most [`OFFSET_MIN_MAX`] either way.
    pub offset_min: i16,
    /// The log up to here; `None` is up to now.
    pub end: Option<Lsn>,
    /// Only lines behind this one: the last of the page before.
    pub after: Option<TotalKey>,
    /// At most so many lines, 1 to [`TOTALS_LINES_MAX`].
    pub lines_max: u32,
}

/// A page of totals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Totals {
    /// They are those of the log up to here.
    pub end: Lsn,
    /// Whether there are more lines behind these.
    pub more: bool,
    /// In order of their keys.
    pub lines: Vec<TotalLine>,
}

impl TotalsQuery {
    fn is_sane(&self) -> bool {
        (1..=TOTALS_DAYS_MAX).contains(&self.days)
            && self.day.checked_add(self.days).is_some()
            && self.offset_min.unsigned_abs() <= OFFSET_MIN_MAX.unsigned_abs()
            && (1..=TOTALS_LINES_MAX).contains(&self.lines_max)
    }

    fn offset_ms(&self) -> i64 {
        i64::from(self.offset_min) * 60_000
    }

    /// When a day begins, in milliseconds since 1970 UTC.
    fn begin_ms(&self, day: u32) -> u64 {
        u64::try_from(i64::from(day) * DAY_MS - self.offset_ms()).unwrap_or(0)
    }

    fn day_of(&self, time_ms: u64) -> u32 {
        let local = i64::try_from(time_ms).unwrap_or(i64::MAX).saturating_add(self.offset_ms());
        u32::try_from(local.div_euclid(DAY_MS)).unwrap_or(0)
    }
}

impl Engine {
    /// Adds up a period from the log. Blocking: reads all of it, one to two gigabytes a second from memory; looks at
    /// `stop` now and then and gives up with BUSY when it is set.
    ///
    /// # Errors
    /// UNAUTHENTICATED for a revoked caller; MALFORMED for a query out of its bounds; POSITION_UNKNOWN for an end that
    /// the log has not reached, or where none of its records ends; HISTORY_ARCHIVED if the log of the period is not kept; or the log cannot be read.
    pub fn totals(
        &self,
        caller: Caller,
        query: &TotalsQuery,
        stop: &AtomicBool,
    ) -> Result<Totals, PastError> {
        let refused = |status| Err(PastError::Refused(status));
        if !query.is_sane() {
            return refused(Status::Malformed);
        }
        let sequencer = self.sequencer();
        let wal = &sequencer.wal;
        let Some(sight) = Sight::of(&sequencer.state(), caller) else {
            return refused(Status::Unauthenticated);
        };
        let durable_end = wal.durable_end();
        let end = query.end.unwrap_or(durable_end);
        if durable_end < end {
            return refused(Status::PositionUnknown);
        }
        if query.end.is_some() {
            self.check_end(end, durable_end)?;
        }
        let (from_ms, until_ms) = (query.begin_ms(query.day), query.begin_ms(query.day + query.days));
        let Some(segment) = self.segment_of_time(from_ms, end)? else {
            return refused(Status::HistoryArchived);
        };
        let mut page = Page::new(query.lines_max as usize, query.after);
        let mut cursor = wal.cursor(segment);
        while let Some(record) = cursor.peek(wal, end)? {
            if record.kind == RecordKind::Data {
                let group = Group::parse(record.payload, record.payload_lsn)?;
                if until_ms <= group.time_ms {
                    break;
                }
                if from_ms <= group.time_ms {
                    for entry in group {
                        let entry = entry?;
                        if TOTALLED.contains(&entry.head.kind) {
                            let mut event = Event::of(&entry, record.epoch, &sequencer.table)?;
                            if entry.head.kind == Kind::Reverse {
                                match entry.value()?.and_then(|tail| tail.undone()) {
                                    Some(Kind::Hold) => continue,
                                    Some(Kind::Load) => {
                                        event.kind = Kind::Load;
                                        event.amount = event.amount.map(|amount| -amount);
                                    }
                                    _ => {}
                                }
                            }
                            let mut add = |event: &Event| {
                                if sight.covers(event) {
                                    page.add(query.day_of(event.time_ms), event);
                                }
                            };
                            match event.product {
                                Some(_) => add(&event),
                                // An order of several products counts in each with its part.
                                None => event.parts(&entry, &sequencer.table)?.iter().for_each(add),
                            }
                        }
                    }
                }
            } else if stop.load(Ordering::Relaxed) {
                // Every segment begins with a record that is no data, so this is asked often enough.
                return refused(Status::Busy);
            }
            cursor.pass();
        }
        let (lines, more) = page.finish();
        Ok(Totals { end, more, lines })
    }

    /// Whether a record ends at `end`, as one does wherever a page of totals ended: what a caller gives is any number, and
    /// reading up to the middle of a record would look like damage.
    fn check_end(&self, end: Lsn, durable_end: Lsn) -> Result<(), PastError> {
        let wal = &self.sequencer().wal;
        let (first, _) = wal.segments(durable_end).map_err(PastError::List)?;
        if end == durable_end || end == Lsn::START && first == 1 {
            return Ok(());
        }
        if wal.segment_before(end) < first {
            return Err(PastError::Refused(Status::HistoryArchived));
        }
        let (mut cursor, _) = wal.cursor_after(end, durable_end)?;
        match cursor.peek(wal, durable_end)? {
            Some(record) if record.end == end => Ok(()),
            _ => Err(PastError::Refused(Status::PositionUnknown)),
        }
    }

    /// The segment from which all is to be read that happened at or after a time; `None` if what came before the
    /// first one that is kept may be part of it.
    fn segment_of_time(&self, from_ms: u64, end: Lsn) -> Result<Option<u32>, PastError> {
        let wal = &self.sequencer().wal;
        let (first, last) = wal.segments(end).map_err(PastError::List)?;
        // The last segment that begins before that time; all before it end before it, too.
        let (mut low, mut high) = (first, last + 1);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.first_time(middle, end)? {
                Some(time_ms) if time_ms < from_ms => low = middle + 1,
                _ => high = middle,
            }
        }
        Ok(if low > first { Some(low - 1) } else { (first == 1).then_some(first) })
    }

    /// The time of the first group at or after the beginning of a segment.
    fn first_time(&self, segment: u32, end: Lsn) -> Result<Option<u64>, PastError> {
        let wal = &self.sequencer().wal;
        let mut cursor = wal.cursor(segment);
        while let Some(record) = cursor.peek(wal, end)? {
            if record.kind == RecordKind::Data {
                return Ok(Some(Group::parse(record.payload, record.payload_lsn)?.time_ms));
            }
            cursor.pass();
        }
        Ok(None)
    }
}

/// The lowest lines behind a key.
struct Page {
    lines_max: usize,
    after: Option<TotalKey>,
    lines: HashMap<TotalKey, (u64, i128)>,
    /// Lines from this key on were given up: they are for a later page.
    beyond: Option<TotalKey>,
}

impl Page {
    fn new(lines_max: usize, after: Option<TotalKey>) -> Page {
        Page { lines_max, after, lines: HashMap::new(), beyond: None }
    }

    fn add(&mut self, day: u32, event: &Event) {
        let Event { merchant, channel, terminal, kind, .. } = *event;
        let product = event.product.unwrap_or_default();
        let key = TotalKey { day, merchant, channel, terminal, product, kind: kind.number() };
        if Some(key) <= self.after || self.beyond.is_some_and(|beyond| beyond <= key) {
            return;
        }
        let (count, amount) = self.lines.entry(key).or_default();
        *count += u64::from(event.count.max(1));
        *amount += i128::from(event.amount.unwrap_or(0));
        // Beside a page, as many again, so that what is too much is looked for now and then only.
        if self.lines.len() > 2 * self.lines_max {
            self.cut();
        }
    }

    /// Gives up all but the lowest lines. What is given up never comes back: its key is not taken any more.
    fn cut(&mut self) {
        let mut keys: Vec<TotalKey> = self.lines.keys().copied().collect();
        let (_, beyond, _) = keys.select_nth_unstable(self.lines_max);
        let beyond = *beyond;
        self.lines.retain(|key, _| *key < beyond);
        self.beyond = Some(beyond);
    }

    fn finish(mut self) -> (Vec<TotalLine>, bool) {
        if self.lines.len() > self.lines_max {
            self.cut();
        }
        let line = |(key, (count, amount)): (TotalKey, (u64, i128))| TotalLine {
            key,
            count,
            amount: Money::try_from(amount).unwrap_or(Money::MAX),
        };
        let mut lines: Vec<TotalLine> = self.lines.into_iter().map(line).collect();
        lines.sort_unstable_by_key(|line| line.key);
        (lines, self.beyond.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(day: u32, offset_min: i16) -> TotalsQuery {
        TotalsQuery { day, days: 1, offset_min, end: None, after: None, lines_max: 10 }
    }

    #[test]
    fn a_day_begins_where_its_time_zone_says() {
        // 2026-11-23 is day 20780; in Shanghai it begins at 16:00 UTC of the 22nd.
        let midnight = 20_780 * DAY_MS as u64;
        for (offset_min, begin_ms) in
            [(0, midnight), (480, midnight - 8 * 3_600_000), (-300, midnight + 18_000_000)]
        {
            let query = query(20_780, offset_min);
            assert_eq!(query.begin_ms(20_780), begin_ms);
            assert_eq!(query.day_of(begin_ms), 20_780);
            assert_eq!(query.day_of(begin_ms - 1), 20_779);
            assert_eq!(query.day_of(begin_ms + DAY_MS as u64 - 1), 20_780);
        }
        assert_eq!(query(0, 480).begin_ms(0), 0, "nothing was before 1970");
    }

    #[test]
    fn queries_out_of_bounds_are_none() {
        let good = query(20_780, 480);
        assert!(good.is_sane());
        for bad in [
            TotalsQuery { days: 0, ..good },
            TotalsQuery { days: TOTALS_DAYS_MAX + 1, ..good },
            TotalsQuery { day: u32::MAX, ..good },
            TotalsQuery { offset_min: OFFSET_MIN_MAX + 1, ..good },
            TotalsQuery { offset_min: i16::MIN, ..good },
            TotalsQuery { lines_max: 0, ..good },
            TotalsQuery { lines_max: TOTALS_LINES_MAX + 1, ..good },
        ] {
            assert!(!bad.is_sane(), "{bad:?}");
        }
    }
}
