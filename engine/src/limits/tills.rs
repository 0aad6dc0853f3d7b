//! What the redemptions of one record count, before it is installed.

use kami_wal::Lsn;

use super::{CROSSED_MAX, Crossed, Limits, Till};
use crate::identity::{ProductId, TenantId};
use crate::limit::Exceeded;
use crate::record::{CROSSING_BYTES, GroupWriter, HEAD_BYTES, Head, Kind, encode_crossing};

/// Bytes of a LIMIT_CROSSED entry.
pub(crate) const CROSSING_ENTRY_BYTES: usize = HEAD_BYTES + CROSSING_BYTES;

impl Crossed {
    /// Records it behind the entry with `head` that went over the limit. Returns where it stands.
    pub(crate) fn record(&self, head: &Head, group: &mut GroupWriter<'_>) -> Lsn {
        let head =
            Head { kind: Kind::LimitCrossed, subject: u64::from(self.limit.0), prev: 0, post: 0, ..*head };
        group.push(&head, CROSSING_BYTES, |tail| encode_crossing(self.subject, self.units, tail))
    }
}

/// The redemptions of one record that count against a limit; reused from record to record. Only asked for if
/// any limit counts redemptions at all.
#[derive(Default)]
pub(crate) struct Tills {
    redeemed: Vec<(Till, ProductId)>,
    redeemed_at: Vec<Lsn>,
    crossed: Vec<Crossed>,
    crossed_at: Vec<(TenantId, Lsn)>,
    /// LIMIT_CROSSED entries that the record still has room for.
    room: usize,
}

impl Tills {
    /// Begins a record with room for so many LIMIT_CROSSED entries, at most [`CROSSED_MAX`].
    pub(crate) fn begin(&mut self, room: usize) {
        *self = Tills { room: room.min(CROSSED_MAX), ..std::mem::take(self) };
        self.redeemed.clear();
        self.redeemed_at.clear();
        self.crossed.clear();
        self.crossed_at.clear();
    }

    /// LIMIT_CROSSED entries that were written.
    pub(crate) fn crossings(&self) -> usize {
        self.crossed_at.len()
    }

    /// Whether the redemption that `head` is about to record may be.
    ///
    /// # Errors
    /// The limit that stands against it.
    pub(crate) fn check(
        &mut self,
        limits: &Limits,
        head: &Head,
        product: ProductId,
        now_ms: u64,
    ) -> Result<(), Exceeded> {
        let checked = limits.check_till(&Till::of(head), product, &self.redeemed, now_ms, &mut self.crossed);
        if checked.is_err() {
            // What it would have crossed it did not.
            self.crossed.truncate(self.crossed_at.len());
        }
        checked
    }

    /// Notes that the redemption was recorded at `lsn`, and records what it crossed behind it.
    pub(crate) fn redeemed(
        &mut self,
        head: &Head,
        product: ProductId,
        lsn: Lsn,
        group: &mut GroupWriter<'_>,
    ) {
        self.redeemed.push((Till::of(head), product));
        self.redeemed_at.push(lsn);
        // What there is no room for is recorded by the next one that is over the limit.
        self.crossed.truncate(self.crossed_at.len() + self.room);
        for crossed in &self.crossed[self.crossed_at.len()..] {
            let at = crossed.record(head, group);
            self.crossed_at.push((head.tenant, at));
            self.room -= 1;
        }
    }

    /// Counts them, once the record is published.
    pub(crate) fn install(&self, limits: &mut Limits, now_ms: u64) {
        for ((till, product), lsn) in self.redeemed.iter().zip(&self.redeemed_at) {
            limits.take_till(till, *product, now_ms, *lsn);
        }
        for (crossed, (tenant, lsn)) in self.crossed.iter().zip(&self.crossed_at) {
            limits.mark_crossed(*tenant, crossed, now_ms, *lsn);
        }
    }
}
