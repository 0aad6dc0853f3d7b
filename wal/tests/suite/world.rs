//! A log on a simulated disk, a seeded workload for it, and the oracle that knows what was promised.

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use kami_wal::{Drive, Medium, NoSpace, OpenError, Record, ReplayFrom, SimMedium, SimMode, Wal, WalOptions};

/// The smallest segment: rotation happens all the time.
pub const SEGMENT_BYTES: u64 = 64 << 10;

/// Small, seeded, the same everywhere.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }
}

/// Runs `run` over `ordinary` seeds, or over `KAMI_SEEDS` of them beginning with `KAMI_SEED_FROM`, or over
/// `KAMI_SEED` alone. `test` is the full name of the test, for the command that repeats a failure.
pub fn for_seeds(test: &str, ordinary: u64, mut run: impl FnMut(u64)) {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    if let Some(seed) = number("KAMI_SEED") {
        return run(seed);
    }
    let from = number("KAMI_SEED_FROM").unwrap_or(0);
    for seed in from..from + number("KAMI_SEEDS").unwrap_or(ordinary) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(seed))) {
            eprintln!(
                "seed {seed}\nrepeat: KAMI_SEED={seed} cargo test -p kami-wal --test suite -- --exact {test} --nocapture"
            );
            resume_unwind(panic);
        }
    }
}

/// The options of every simulated log.
pub fn options() -> WalOptions {
    WalOptions {
        store_id: Some(0x4B61_6D69),
        segment_bytes: SEGMENT_BYTES,
        drive: Drive::Manual,
        ..WalOptions::default()
    }
}

/// A record as the oracle remembers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    pub lsn: u64,
    pub end: u64,
    pub payload: Vec<u8>,
}

/// Opens a log and collects its records.
pub fn open(medium: &SimMedium) -> Result<(Wal, Vec<Kept>), OpenError> {
    open_with(Arc::new(medium.clone()), options(), None)
}

/// Opens a log with everything given.
pub fn open_with(
    medium: Arc<dyn Medium>,
    options: WalOptions,
    from: Option<ReplayFrom>,
) -> Result<(Wal, Vec<Kept>), OpenError> {
    let mut kept = Vec::new();
    let wal = Wal::open(medium, options, from, &mut |record: Record<'_>| {
        kept.push(Kept {
            lsn: record.lsn.bytes(),
            end: record.end.bytes(),
            payload: record.payload.to_vec(),
        });
        Ok::<_, Infallible>(())
    })?;
    Ok((wal, kept))
}

/// A payload that says which one it is.
pub fn payload(seed: u64, index: u64, bytes: usize) -> Vec<u8> {
    let mut random = Random(seed ^ index.wrapping_mul(0x1234_5678_9ABC_DEF1));
    (0..bytes / 8).flat_map(|_| random.next().to_le_bytes()).collect()
}

/// Appends one record, which must find room.
pub fn append(wal: &Wal, payload: &[u8]) -> Kept {
    try_append(wal, payload).expect("there is room")
}

/// Appends one record if there is room.
pub fn try_append(wal: &Wal, payload: &[u8]) -> Result<Kept, NoSpace> {
    let mut credit = wal.reserve(payload.len())?;
    let appended = wal
        .append(&mut credit, payload.len(), |room, _| {
            room[..payload.len()].copy_from_slice(payload);
            payload.len()
        })
        .expect("the payload is not empty");
    Ok(Kept { lsn: appended.lsn.bytes(), end: appended.end.bytes(), payload: payload.to_vec() })
}

/// A log, its disk, and what was promised about it.
pub struct World {
    pub medium: SimMedium,
    pub wal: Option<Wal>,
    pub random: Random,
    pub seed: u64,
    /// Everything appended that may still be in the log, in order.
    pub history: Vec<Kept>,
    /// How many of those are promised.
    pub promised: usize,
    index: u64,
}

impl World {
    pub fn new(seed: u64, mode: SimMode) -> Self {
        Self {
            medium: SimMedium::new(seed, mode),
            wal: None,
            random: Random(!seed),
            seed,
            history: Vec::new(),
            promised: 0,
            index: 0,
        }
    }

    /// Opens the log and holds what it replays against what was promised.
    pub fn open(&mut self) -> Result<(), OpenError> {
        let (wal, kept) = open(&self.medium)?;
        assert!(
            self.promised <= kept.len(),
            "seed {}: {} records were promised, {} are there",
            self.seed,
            self.promised,
            kept.len()
        );
        assert!(kept.len() <= self.history.len(), "seed {}: more records than were appended", self.seed);
        for (index, (there, was)) in kept.iter().zip(&self.history).enumerate() {
            assert!(there == was, "seed {}: record {index} at {} changed", self.seed, was.lsn);
        }
        self.history.truncate(kept.len());
        self.promised = kept.len();
        self.wal = Some(wal);
        Ok(())
    }

    pub fn wal(&self) -> &Wal {
        self.wal.as_ref().expect("the log is open")
    }

    /// Takes note of what the log says is durable.
    pub fn note_durable(&mut self) {
        let durable_end = self.wal().durable_end().bytes();
        let promised = self.history.partition_point(|kept| kept.end <= durable_end);
        assert!(self.promised <= promised, "seed {}: the durable end went back", self.seed);
        self.promised = promised;
    }

    /// One step of the workload. Returns false when the disk is gone.
    pub fn step(&mut self) -> bool {
        let alive = match self.random.below(100) {
            0..60 => {
                let bytes = match self.random.below(20) {
                    0 => 8 + self.random.below(1500) * 8,
                    1..6 => 8 + self.random.below(250) * 8,
                    _ => 8 + self.random.below(25) * 8,
                };
                let payload = payload(self.seed, self.index, bytes as usize);
                self.index += 1;
                match try_append(self.wal(), &payload) {
                    Ok(kept) => self.history.push(kept),
                    Err(NoSpace::Busy) => {
                        let _ = self.wal().commit();
                        let _ = self.wal().prepare();
                    }
                    Err(NoSpace::DiskFull) => {}
                    Err(NoSpace::Poisoned) => return false,
                    Err(other) => panic!("seed {}: {other}", self.seed),
                }
                true
            }
            60..85 => self.wal().commit().is_ok(),
            85..93 => self.wal().prepare() != Err(NoSpace::Poisoned),
            93..97 => self.wal().seal().is_ok(),
            _ => self.read_some(),
        };
        self.note_durable();
        alive
    }

    /// Reads a record of the history back.
    fn read_some(&mut self) -> bool {
        if self.history.is_empty() || self.medium.is_cut() {
            return true;
        }
        let index = self.random.below(self.history.len() as u64) as usize;
        let kept = &self.history[index];
        let mut payload = Vec::new();
        let lsn = kami_wal::Lsn::from_bytes(kept.lsn).expect("a record's position");
        let head = self.wal().read(lsn, &mut payload).expect("what was appended can be read");
        assert_eq!(head.lsn, lsn);
        assert!(payload == kept.payload, "seed {}: read something else at {lsn}", self.seed);
        true
    }

    /// Power cut now.
    pub fn crash(&mut self) {
        self.wal = None;
        self.medium = self.medium.crash(self.random.next());
    }

    /// Opens the log; with some luck the power is cut again and again meanwhile.
    pub fn recover(&mut self) {
        loop {
            if self.random.percent(50) {
                self.medium.cut_power_at(1 + self.random.below(25));
            }
            match self.open() {
                Ok(()) => return,
                Err(error) => {
                    assert!(self.medium.is_cut(), "seed {}: {error:?}", self.seed);
                    self.crash();
                }
            }
        }
    }
}
