//! What the redemptions of one record count, before it is installed.

use kami_wal::Lsn;

use super::{Crossed, Limits, Till};
use crate::identity::{ProductId, TenantId};
use crate::limit::Exceeded;
use crate::record::{CROSSING_BYTES, GroupWriter, HEAD_BYTES, Head, Kind, encode_crossing};

/// LIMIT_CROSSED entries that room is asked for with each request, while limits count redemptions. What is over
/// is recorded by the next redemption that is over the limit.
pub(crate) const CROSSINGS_PER_REQUEST: usize = 2;
/// Bytes of a LIMIT_CROSSED entry.
pub(crate) const CROSSING_ENTRY_BYTES: usize = HEAD_BYTES + CROSSING_BYTES;

impl Crossed {
    /// Records it beside the entry with `head` that went over the limit: behind it, where one can begin there. Returns where it stands.
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
    /// Begins a record with room for so many LIMIT_CROSSED entries.
    pub(crate) fn begin(&mut self, room: usize) {
        self.room = room;
        self.redeemed.clear();
        self.redeemed_at.clear();
        self.crossed.clear();
        self.crossed_at.clear();
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

    /// Counts them, once the record is published: in the order of the log, as replay does, because a subject
    /// takes nothing that lies before its last.
    pub(crate) fn install(&self, limits: &mut Limits, now_ms: u64) {
        let mut crossed = self.crossed.iter().zip(&self.crossed_at).peekable();
        let ends = self.redeemed_at.iter().skip(1).map(Some).chain([None]);
        for (((till, product), lsn), end) in self.redeemed.iter().zip(&self.redeemed_at).zip(ends) {
            limits.take_till(till, *product, now_ms, *lsn);
            while let Some((crossed, (tenant, at))) =
                crossed.next_if(|(_, (_, at))| end.is_none_or(|end| at < end))
            {
                limits.mark_crossed(*tenant, crossed, now_ms, *at);
            }
        }
    }
}
