//! Following the log: typed events in its order, from any position, up to what is durable.
//!
//! A feed is a cursor of its own over the log. It reads by `pread` or from the segments in memory, beside the
//! sequencer and never under its lock, so readers, however many and however slow, hold up no command. It keeps
//! nothing but its place: a subscriber that comes back with the position of the last event it saw goes on behind
//! it, on this or on a later start of the store, and gets every event once.
//!
//! # Invariants
//! * Nothing at or beyond the durable end is told, so no crash takes an event back.
//! * Events come in the order of their positions, and none that the caller may see and wants is left out.
//! * A position that this history does not have is refused, not guessed at: one beyond the durable end, one in
//!   log that is no longer kept, or one whose epoch is another's, as after the store was restored.
//! * Nothing is told that stands behind the revocation of the feed's own principal.

use kami_wal::{Cursor, Lsn, ReadError, RecordKind};

use crate::engine::Engine;
use crate::event::{Event, Sight};
use crate::identity::{Caller, PrincipalId, ProductId};
use crate::record::{FormatError, Group, Kind};
use crate::status::Status;

/// The most of the log that one read looks through before it lets its caller do something else.
const READ_BYTES_MAX: u64 = 4 << 20;

/// A set of kinds of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KindSet(pub [u8; 32]);

impl KindSet {
    /// Every kind, those of later versions too.
    pub const ALL: KindSet = KindSet([0; 32]);

    /// The kinds given; none is all.
    #[must_use]
    pub fn of(kinds: &[Kind]) -> KindSet {
        let mut set = KindSet::ALL;
        for kind in kinds {
            let number = usize::from(kind.number());
            set.0[number / 8] |= 1 << (number % 8);
        }
        set
    }

    /// Whether the kind is one of them.
    #[must_use]
    pub fn contains(&self, kind: Kind) -> bool {
        let number = usize::from(kind.number());
        *self == KindSet::ALL || self.0[number / 8] >> (number % 8) & 1 == 1
    }
}

/// What a subscriber wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedSpec {
    /// Events behind this position: that of the last one seen, or one that a feed told to go on from.
    /// [`Lsn::START`] is from the beginning, `None` what comes from now on.
    pub after: Option<Lsn>,
    /// The epoch that belongs to the position; 0 does not ask. With it, a history that has the position but was not
    /// the subscriber's is told from its own.
    pub epoch: u32,
    /// Only these kinds.
    pub kinds: KindSet,
    /// Only events of these products; none is all.
    pub products: Vec<ProductId>,
}

impl FeedSpec {
    /// Everything from the beginning.
    #[must_use]
    pub const fn from_start() -> FeedSpec {
        FeedSpec { after: Some(Lsn::START), epoch: 0, kinds: KindSet::ALL, products: Vec::new() }
    }
}

/// Why the past is not told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PastError {
    /// It is not the caller's, or not there.
    #[error("refused: {} status=`{}`", .0.meaning(), .0.code())]
    Refused(Status),
    /// The log cannot be read.
    #[error("the log cannot be read; run `kami verify` on a copy of the store")]
    Read(#[from] ReadError),
    /// The log holds what this version does not understand.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The list of segments cannot be read.
    #[error("the directory of the log cannot be listed; check the disk")]
    List(#[source] std::io::Error),
}

impl PastError {
    /// What whoever asked is told: the status, or BUSY for what is the store's own trouble.
    #[must_use]
    pub const fn status(&self) -> Status {
        match self {
            PastError::Refused(status) => *status,
            _ => Status::Busy,
        }
    }
}

/// A place in the log and a view of it. Cheap to keep; see [`Engine::feed`].
pub struct Feed {
    cursor: Cursor,
    principal: PrincipalId,
    view: View,
    position: Lsn,
    epoch: u32,
}

/// What of the log is told: what the subscriber may see, and of that what it wants.
struct View {
    sight: Sight,
    kinds: KindSet,
    products: Vec<ProductId>,
}

/// Where a feed stands after a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedPlace {
    /// Everything up to here was told or is not for this subscriber: another feed goes on from here.
    pub position: Lsn,
    /// The epoch that belongs to it.
    pub epoch: u32,
    /// How far the log was durable.
    pub end: Lsn,
    /// Whether all of that was looked through.
    pub caught_up: bool,
}

impl Engine {
    /// Begins to follow the log. Blocking: reads the segment that holds the position, to find its place in it.
    ///
    /// # Errors
    /// UNAUTHENTICATED for a revoked caller; POSITION_UNKNOWN for a position that this history does not have;
    /// HISTORY_ARCHIVED for one in log that is not kept; or the log cannot be read.
    pub fn feed(&self, caller: Caller, spec: &FeedSpec) -> Result<Feed, PastError> {
        let wal = &self.sequencer().wal;
        let sight = Sight::of(&self.sequencer().state(), caller);
        let sight = sight.ok_or(PastError::Refused(Status::Unauthenticated))?;
        let end = wal.durable_end();
        let (first, _) = wal.segments(end).map_err(PastError::List)?;
        let unknown = PastError::Refused(Status::PositionUnknown);
        let (cursor, position, epoch) = match spec.after {
            None => (wal.cursor_after(end, end)?.0, end, wal.epoch()),
            Some(after) if end < after => return Err(unknown),
            // Every log begins with segment 1, and before it there is nothing.
            Some(after) if after == Lsn::START && first == 1 => (wal.cursor(first), after, 0),
            Some(after) if wal.segment_before(after) < first => {
                return Err(PastError::Refused(Status::HistoryArchived));
            }
            Some(after) => {
                let (cursor, epoch) = wal.cursor_after(after, end)?;
                (cursor, after, epoch.unwrap_or(0))
            }
        };
        if spec.epoch != 0 && spec.epoch != epoch {
            return Err(unknown);
        }
        let view = View { sight, kinds: spec.kinds, products: spec.products.clone() };
        Ok(Feed { cursor, principal: caller.principal, view, position, epoch })
    }
}

impl Feed {
    /// Where it stands: behind this position nothing was told yet.
    #[must_use]
    pub const fn position(&self) -> Lsn {
        self.position
    }

    /// The epoch that belongs to the position; 0 at the very beginning.
    #[must_use]
    pub const fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Appends up to `events_max` further events to `events`, and looks through a bounded stretch of the log.
    /// Blocking, for what is not in memory.
    ///
    /// # Errors
    /// UNAUTHENTICATED where the feed's own principal was revoked; the events before that were appended. Or the log
    /// cannot be read; the feed stands where it stood.
    pub fn read(
        &mut self,
        engine: &Engine,
        events_max: usize,
        events: &mut Vec<Event>,
    ) -> Result<FeedPlace, PastError> {
        let sequencer = engine.sequencer();
        let wal = &sequencer.wal;
        let end = wal.durable_end();
        let full = events.len() + events_max;
        let mut looked_at = 0;
        let mut caught_up = true;
        'log: while let Some(record) = self.cursor.peek(wal, end)? {
            // Counted by what is read, because positions have gaps as long as a segment.
            if looked_at >= READ_BYTES_MAX {
                caught_up = false;
                break;
            }
            looked_at += record.end.bytes() - record.lsn.bytes();
            if record.kind == RecordKind::Data {
                for entry in Group::parse(record.payload, record.payload_lsn)? {
                    let entry = entry?;
                    if entry.lsn <= self.position {
                        continue;
                    }
                    if events.len() == full {
                        caught_up = false;
                        break 'log;
                    }
                    let event = Event::of(&entry, record.epoch, &sequencer.table)?;
                    if event.kind == Kind::PrincipalRevoke && event.object == u64::from(self.principal.0) {
                        return Err(PastError::Refused(Status::Unauthenticated));
                    }
                    (self.position, self.epoch) = (entry.lsn, record.epoch);
                    if self.view.shows(&event) {
                        events.push(event);
                    }
                }
            }
            // The position may lie inside of the record, when a feed begins there, but never behind it.
            if self.position < record.end {
                (self.position, self.epoch) = (record.end, record.epoch);
            }
            self.cursor.pass();
        }
        if caught_up {
            // A record boundary, with nothing between it and the last record.
            self.position = self.position.max(end);
        }
        Ok(FeedPlace { position: self.position, epoch: self.epoch, end, caught_up })
    }
}

impl View {
    fn shows(&self, event: &Event) -> bool {
        self.sight.covers(event)
            && self.kinds.contains(event.kind)
            && (self.products.is_empty()
                || event.product.is_some_and(|product| self.products.contains(&product)))
    }
}
