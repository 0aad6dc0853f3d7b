//! What the server counts: replies by command and code, how long they took, who was turned away.
//!
//! Counting costs no lock and no allocation, and nothing that is written by two cores at once as long
//! as there are no more streams than stripes: a stream counts on its own stripe, once per run of replies
//! with the same command and code, when the batch they came in leaves. Readers add the stripes up. Only what is in the clear is
//! counted in one place, once per reply with codes.
//!
//! **What a time is**: from the moment the bytes of a batch were received to the moment the log was
//! durable and the batch's replies were free to leave. All replies of a batch (up to 64 of one stream)
//! have the batch's time. Decrypting the codes of a sale, QUIC, the network and the client are not in it;
//! for the commands that wait for the disk themselves (imports) that wait is.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use kami_engine::{Class, Distribution, Histogram, Status};

use crate::frame::Opcode;

/// Times are counted from 16 µs to 8.4 s.
const LATENCY_FIRST_BITS: u32 = 4;
const STRIPES_MAX: usize = 16;

/// Rows before those of [`Opcode::ALL`]: what is no command of this version, and items of REDEEM_BATCH.
const UNKNOWN: usize = 0;
const ITEM: usize = 1;
const FIRST_OPCODE: usize = 2;
const ROWS: usize = FIRST_OPCODE + Opcode::ALL.len();
const COLUMNS: usize = Status::ALL.len();
const CLASSES: usize = 4;

/// Why a connection was not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Refusal {
    /// There are as many connections as there may be.
    Full,
    /// There are as many of them from its address as there may be.
    Address,
    /// There are as many of its principal as there may be.
    Principal,
    /// Its certificate names nobody, or somebody who was revoked.
    Unauthenticated,
    /// The handshake failed, took too long, or gave its place to a newer one.
    Handshake,
}

impl Refusal {
    /// All of them.
    pub const ALL: [Refusal; 5] =
        [Refusal::Full, Refusal::Address, Refusal::Principal, Refusal::Unauthenticated, Refusal::Handshake];

    /// The name in figures.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Refusal::Full => "full",
            Refusal::Address => "address",
            Refusal::Principal => "principal",
            Refusal::Unauthenticated => "unauthenticated",
            Refusal::Handshake => "handshake",
        }
    }
}

/// What a server has done since it was bound; see [`Server::figures`](crate::Server::figures).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServerFigures {
    /// Connections now, handshakes included.
    pub connections: u64,
    /// Streams now.
    pub streams: u64,
    /// Connections that were not served, by reason.
    pub refused: [(Refusal, u64); Refusal::ALL.len()],
    /// Requests that were turned away because their sender had sent too many wrong codes.
    pub rate_limited: u64,
    /// How often a budget of wrong codes was used up.
    pub budgets_spent: u64,
    /// Feeds that follow the log now.
    pub feeds: u64,
    /// Events that feeds were sent.
    pub feed_events: u64,
    /// Bytes of the durable log that the feed which is furthest behind has not read; 0 if there is none.
    pub feed_lag_bytes: u64,
    /// Bytes of replies that wait for the log or for QUIC to take them; those with codes are reckoned until they are decrypted.
    pub waiting_reply_bytes: u64,
    /// Buffers of replies with codes that were decrypted and not yet acknowledged by their reader, who may take them slowly.
    pub clear_codes_bytes: u64,
    /// Replies that were free to leave, by command and code; those never given are left out. Commands this
    /// version does not know are `UNKNOWN`, the items of a batch frame `REDEEM_BATCH_ITEM`.
    pub replies: Vec<(&'static str, Status, u64)>,
    /// Microseconds from receipt to durability, by command and class of the code.
    pub latency_us: Vec<(&'static str, Class, Distribution)>,
}

pub(crate) struct Meter {
    stripes: Box<[Stripe]>,
    next: AtomicUsize,
    streams: AtomicU64,
    clear_codes_bytes: AtomicUsize,
    refused: [AtomicU64; Refusal::ALL.len()],
    /// Row by opcode number, column by status number.
    rows: Box<[u8]>,
    columns: Box<[u8]>,
}

/// What some streams count on. Of a size of its own, so that stripes share no cache line.
struct Stripe {
    replies: Box<[AtomicU64]>,
    latency_us: Box<[Histogram]>,
}

/// Replies with one command and code, next to each other in a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    row: u8,
    column: u8,
    replies: u32,
    received: Instant,
}

/// The counts of one stream: what waits to leave, and where it is counted then.
pub(crate) struct Tally {
    meter: Arc<Meter>,
    stripe: usize,
    waiting: VecDeque<Run>,
}

impl Default for Meter {
    fn default() -> Meter {
        let numbers = |known: &mut dyn Iterator<Item = (u16, usize)>| -> Box<[u8]> {
            let known: Vec<_> = known.collect();
            let last = known.iter().map(|(number, _)| *number).max().unwrap_or(0);
            let mut table = vec![0; usize::from(last) + 1];
            for (number, place) in known {
                table[usize::from(number)] = u8::try_from(place).unwrap_or(0);
            }
            table.into()
        };
        const { assert!(ROWS <= 256 && COLUMNS <= 256) };
        let opcodes = Opcode::ALL.iter().enumerate();
        let statuses = Status::ALL.iter().enumerate();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let stripe = |_| Stripe {
            replies: (0..ROWS * COLUMNS).map(|_| AtomicU64::new(0)).collect(),
            latency_us: (0..ROWS * CLASSES).map(|_| Histogram::new(LATENCY_FIRST_BITS)).collect(),
        };
        Meter {
            stripes: (0..cores.next_power_of_two().min(STRIPES_MAX)).map(stripe).collect(),
            next: AtomicUsize::new(0),
            streams: AtomicU64::new(0),
            clear_codes_bytes: AtomicUsize::new(0),
            refused: Default::default(),
            rows: numbers(&mut opcodes.map(|(at, opcode)| (*opcode as u16, FIRST_OPCODE + at))),
            columns: numbers(&mut statuses.map(|(at, status)| (status.number(), at))),
        }
    }
}

impl Meter {
    /// A stream's own tally, until dropped.
    pub(crate) fn tally(self: &Arc<Self>) -> Tally {
        let stripe = self.next.fetch_add(1, Ordering::Relaxed) % self.stripes.len();
        self.streams.fetch_add(1, Ordering::Relaxed);
        Tally { meter: Arc::clone(self), stripe, waiting: VecDeque::new() }
    }

    /// Codes were decrypted into a buffer of so many bytes.
    pub(crate) fn add_clear(&self, bytes: usize) {
        self.clear_codes_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Such a buffer is wiped.
    pub(crate) fn sub_clear(&self, bytes: usize) {
        self.clear_codes_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(crate) fn refuse(&self, reason: Refusal) {
        self.refused[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn row(&self, opcode: u16) -> u8 {
        self.rows.get(usize::from(opcode)).copied().unwrap_or(UNKNOWN as u8)
    }

    fn column(&self, status: Status) -> u8 {
        self.columns[usize::from(status.number())]
    }

    pub(crate) fn read(&self, connections: usize, guesses: (u64, u64)) -> ServerFigures {
        let mut replies = Vec::new();
        let mut latency_us = Vec::new();
        for row in 0..ROWS {
            let command = match row {
                UNKNOWN => "UNKNOWN",
                ITEM => "REDEEM_BATCH_ITEM",
                row => Opcode::ALL[row - FIRST_OPCODE].code(),
            };
            for (column, status) in Status::ALL.iter().enumerate() {
                let given = |stripe: &Stripe| stripe.replies[row * COLUMNS + column].load(Ordering::Relaxed);
                let count: u64 = self.stripes.iter().map(given).sum();
                if count > 0 {
                    replies.push((command, *status, count));
                }
            }
            for class in [Class::Done, Class::Refused, Class::CallerBug, Class::NotExecuted] {
                let mut all = Distribution::default();
                for stripe in &self.stripes {
                    all.add(&stripe.latency_us[row * CLASSES + class as usize].read());
                }
                if all.count() > 0 {
                    latency_us.push((command, class, all));
                }
            }
        }
        ServerFigures {
            connections: connections as u64,
            streams: self.streams.load(Ordering::Relaxed),
            rate_limited: guesses.0,
            budgets_spent: guesses.1,
            feeds: 0,
            feed_events: 0,
            feed_lag_bytes: 0,
            waiting_reply_bytes: 0,
            clear_codes_bytes: self.clear_codes_bytes.load(Ordering::Relaxed) as u64,
            refused: Refusal::ALL
                .map(|reason| (reason, self.refused[reason as usize].load(Ordering::Relaxed))),
            replies,
            latency_us,
        }
    }
}

impl Tally {
    pub(crate) fn meter(&self) -> Arc<Meter> {
        Arc::clone(&self.meter)
    }

    /// Takes in replies with one opcode and status to requests that were received at `received`.
    pub(crate) fn add(&mut self, opcode: u16, status: Status, replies: u32, received: Instant) {
        let (row, column) = (self.meter.row(opcode), self.meter.column(status));
        self.push(Run { row, column, replies, received });
    }

    /// Takes in an item of a REDEEM_BATCH.
    pub(crate) fn add_item(&mut self, status: Status, received: Instant) {
        let column = self.meter.column(status);
        self.push(Run { row: ITEM as u8, column, replies: 1, received });
    }

    fn push(&mut self, run: Run) {
        match self.waiting.back_mut() {
            Some(last) if (Run { replies: run.replies, ..*last }) == run => last.replies += run.replies,
            _ => self.waiting.push_back(run),
        }
    }

    /// The oldest so many replies and items may leave now.
    pub(crate) fn leave(&mut self, mut replies: usize, now: Instant) {
        let stripe = &self.meter.stripes[self.stripe];
        while replies > 0
            && let Some(run) = self.waiting.front_mut()
        {
            let count = replies.min(run.replies as usize);
            let (row, column) = (usize::from(run.row), usize::from(run.column));
            let us =
                u64::try_from(now.saturating_duration_since(run.received).as_micros()).unwrap_or(u64::MAX);
            let class = Status::ALL[column].class() as usize;
            stripe.replies[row * COLUMNS + column].fetch_add(count as u64, Ordering::Relaxed);
            stripe.latency_us[row * CLASSES + class].add(us, count as u64);
            replies -= count;
            run.replies -= count as u32;
            if run.replies == 0 {
                self.waiting.pop_front();
            }
        }
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.meter.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn replies_are_counted_when_they_leave_each_with_its_own_time() {
        let meter = Arc::new(Meter::default());
        let mut tally = meter.tally();
        let early = Instant::now();
        let late = early + Duration::from_millis(900);
        let redeem = Opcode::Redeem.number();
        tally.add(redeem, Status::Ok, 4, early);
        tally.add(redeem, Status::Ok, 1, early);
        tally.add(redeem, Status::AlreadyRedeemed, 1, late);
        tally.add_item(Status::Ok, late);
        tally.add(0xffff, Status::Unsupported, 1, late);
        assert!(meter.read(0, (0, 0)).replies.is_empty(), "nothing has left");
        tally.leave(3, early + Duration::from_millis(1));
        tally.leave(5, early + Duration::from_secs(1));
        let figures = meter.read(7, (0, 0));
        let expected = [
            ("UNKNOWN", Status::Unsupported, 1),
            ("REDEEM_BATCH_ITEM", Status::Ok, 1),
            ("REDEEM", Status::Ok, 5),
            ("REDEEM", Status::AlreadyRedeemed, 1),
        ];
        assert_eq!(figures.replies, expected);
        let of = |command, class| {
            let found = figures.latency_us.iter().find(|(c, k, _)| (*c, *k) == (command, class));
            let buckets: Vec<_> = found.unwrap().2.buckets().filter(|(_, count)| *count > 0).collect();
            buckets
        };
        assert_eq!(of("REDEEM", Class::Done), [(Some(1024), 3), (Some(1 << 20), 2)]);
        assert_eq!(of("REDEEM", Class::Refused), [(Some(1 << 17), 1)]);
        assert_eq!((figures.connections, figures.streams), (7, 1));
        drop(tally);
        assert_eq!(meter.read(0, (0, 0)).streams, 0);
    }
}
