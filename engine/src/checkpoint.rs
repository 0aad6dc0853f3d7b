//! Checkpoints: fuzzy snapshots of the whole state, so that a start replays the last part of the log only.
//!
//! A snapshot is written while the sequencer goes on. It holds every object as it was at *some* moment
//! between `start` (the log's tail when copying began; everything below it was applied) and `end` (the
//! tail when copying ended). Replay begins at `start` and installs what an object has not seen yet; each
//! object carries the position of its last entry, which tells.
//!
//! # Invariants
//! * `start <= end <= durable_end` when the snapshot gets its name: it never holds an effect that a power
//!   cut could still take back.
//! * Written under another name, synced, renamed, the directory synced, read back and checked: a name
//!   that fits is a snapshot that was complete once.
//! * Two generations are kept. A damaged one is *unreadable*, never older: the other one or the whole log
//!   is used, and the log is still required to reach the damaged one's end if that can be read.
//! * The lock is held for a few dozen objects at a time, and for a few shards of orders, of documents and of what counts
//!   against limits. What one subject of a limit counts is copied at once, whatever it is.
//!
//! | at | bytes | what |
//! |---|---|---|
//! | 0 | 4096 | header, see [`HEADER_FIELDS`] |
//! | 4096 | objects | rkyv: products, principals, batches |
//! | | 8 a card | words, batch after batch in order of number |
//! | | 32 an order | tenant u16, state u16, zero u32, order u128, position u64 |
//! | | ledger | rkyv: what later versions than the first keep; may be missing |

mod objects;

pub use objects::{
    ActivityObject, BatchObject, HoldObject, Ledger, Objects, PrincipalObject, ProductObject, SharedObject,
    StoredReservation,
};

use std::io;

use kami_wal::{File, Lsn, Medium, Poisoned, planted};

use crate::activity::Activity;
use crate::identity::{BatchId, OrderId, Principal, PrincipalId, TenantId, TerminalId};
use crate::orders::{OrderKey, OrderWord};
use crate::record::{
    Field, Stored, StoredBatch, StoredPlace, StoredPrincipal, StoredProduct, StoredTerms, StoredValidity,
};
use crate::sequencer::Sequencer;
use crate::sharded::SHARDS;
use crate::table::Table;
use crate::word::{CardRef, Word};

/// The directory of the snapshots.
pub const DIRECTORY: &str = "snapshots";
/// The name of one that is being written.
const TEMPORARY: &str = "snapshots/new";
const MAGIC: &[u8; 8] = b"KAMISNAP";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 4096;
const ORDER_BYTES: usize = 32;
/// How much is read or written at a time.
const CHUNK_BYTES: usize = 1 << 20;
/// Objects copied under one hold of the lock.
const OBJECTS_PER_HOLD: usize = 32;
/// Shards of the orders looked at under one hold of the lock; most are empty in a young store.
const SHARDS_PER_HOLD: usize = 16;
/// Words copied before others are let in, where somebody waits for that.
const WORDS_PER_STEP: u64 = 8;
/// Snapshots kept.
const GENERATIONS: usize = 2;

/// The layout of a snapshot's header.
pub const HEADER_FIELDS: &[Field] = &[
    (0, 8, "magic", "\"KAMISNAP\""),
    (8, 4, "version", "1"),
    (12, 4, "reserved", "zero"),
    (16, 8, "store", "the store's id"),
    (24, 8, "start", "replay begins at this position"),
    (32, 8, "end", "the log is durable at least up to this position"),
    (40, 8, "objects", "bytes of the encoded objects, padded to 8"),
    (48, 8, "words", "how many card words follow"),
    (56, 8, "orders", "how many orders follow"),
    (64, 32, "body hash", "BLAKE3 of everything after the header"),
    (96, 32, "header hash", "BLAKE3 of bytes 0 to 95"),
    (128, 8, "ledger", "bytes of the encoded ledger, padded to 8; zero in the first version"),
    (136, 3960, "reserved", "zero"),
];

/// The header of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The store's id.
    pub store: u64,
    /// Where replay begins.
    pub start: Lsn,
    /// Up to where the log is durable at least.
    pub end: Lsn,
    objects: u64,
    words: u64,
    orders: u64,
    ledger: u64,
    body_hash: [u8; 32],
}

impl Header {
    fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        let numbers =
            [self.store, self.start.bytes(), self.end.bytes(), self.objects, self.words, self.orders];
        for (place, number) in bytes[16..64].chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        bytes[64..96].copy_from_slice(&self.body_hash);
        let hash = blake3::hash(&bytes[..96]);
        bytes[96..128].copy_from_slice(hash.as_bytes());
        // Not under the hash: the file's length says the same, and the body's hash covers what it counts.
        bytes[128..136].copy_from_slice(&self.ledger.to_le_bytes());
        bytes
    }

    fn parse(bytes: &[u8; HEADER_BYTES]) -> Option<Header> {
        let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let header = Header {
            store: number(16),
            start: Lsn::from_bytes(number(24))?,
            end: Lsn::from_bytes(number(32))?,
            objects: number(40),
            words: number(48),
            orders: number(56),
            ledger: number(128),
            body_hash: bytes[64..96].try_into().expect("a hash"),
        };
        // Comparing with what it encodes to covers magic, version, hash and reserved bytes.
        (*bytes == header.encode()).then_some(header)
    }

    /// The length of the file.
    pub(crate) fn file_bytes(&self) -> u64 {
        HEADER_BYTES as u64 + self.body_bytes().unwrap_or(0)
    }

    fn body_bytes(&self) -> Option<u64> {
        let words = self.words.checked_mul(8)?;
        let orders = self.orders.checked_mul(ORDER_BYTES as u64)?;
        self.objects.checked_add(words)?.checked_add(orders)?.checked_add(self.ledger)
    }
}

/// An object with its length before it, padded to 8 bytes.
fn framed(object: &impl Stored) -> Vec<u8> {
    let bytes = object.encode();
    let mut framed = (bytes.len() as u64).to_le_bytes().to_vec();
    framed.extend_from_slice(&bytes);
    framed.resize(framed.len().next_multiple_of(8), 0);
    framed
}

/// Why no snapshot was made. The store is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// It could not be written.
    #[error("the snapshot cannot be written")]
    Io(#[from] io::Error),
    /// It did not read back as it was written.
    #[error("the snapshot reads back damaged: file=`{file}`")]
    Damaged {
        /// The file.
        file: String,
    },
    /// The log failed.
    #[error(transparent)]
    Poisoned(#[from] Poisoned),
}

/// Writes sequentially, in large pieces, hashing on the way.
struct Writer<'a> {
    file: &'a dyn File,
    buffer: Vec<u8>,
    at: u64,
    hasher: blake3::Hasher,
}

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= CHUNK_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.hasher.update(&self.buffer);
        self.file.write_at(self.at, &self.buffer)?;
        self.at += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

/// Writes a snapshot of the running engine. One at a time. `between` is called wherever a command may come in
/// between: commands of other threads do so unasked, those of a test that repeats itself through this.
///
/// # Errors
/// See [`CheckpointError`].
pub fn write(
    sequencer: &Sequencer,
    medium: &dyn Medium,
    store: u64,
    between: impl FnMut(),
) -> Result<Header, CheckpointError> {
    let written = write_new(sequencer, medium, store, between);
    let left = match &written {
        Ok(_) => return written,
        // It is none, and would count as one of those that are kept.
        Err(CheckpointError::Damaged { file }) => file,
        Err(_) => TEMPORARY,
    };
    // The disk may be full, and the log waits for the room; nothing depends on it.
    let _ = medium.remove(left);
    written
}

fn write_new(
    sequencer: &Sequencer,
    medium: &dyn Medium,
    store: u64,
    mut between: impl FnMut(),
) -> Result<Header, CheckpointError> {
    medium.create_dir(DIRECTORY)?;
    let start = {
        // Under the lock everything below the tail has been applied, words and objects.
        let _state = sequencer.state();
        sequencer.wal.tail()
    };
    match medium.remove(TEMPORARY) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let file = medium.create(TEMPORARY)?;
    between();
    let mut writer = Writer {
        file: &*file,
        buffer: Vec::with_capacity(2 * CHUNK_BYTES),
        at: HEADER_BYTES as u64,
        hasher: blake3::Hasher::new(),
    };

    let mut ledger = Ledger::default();
    let objects = copy_objects(sequencer, start, &mut ledger, &mut between);
    let encoded = framed(&objects);
    writer.put(&encoded)?;

    let mut words = 0;
    for object in &objects.batches {
        let batch = sequencer.table.batch(crate::BatchId(object.id)).expect("it was listed");
        for row in 0..batch.rows() {
            if row % WORDS_PER_STEP == 0 {
                between();
            }
            writer.put(&batch.word(row).bits().to_le_bytes())?;
        }
        words += batch.rows();
    }

    let mut orders = 0;
    let mut copied = Vec::new();
    let mut shard = 0;
    while shard < SHARDS {
        between();
        copied.clear();
        // Nothing is allocated under the lock: shards fill evenly, so that twice their mean is room for one.
        let mean = sequencer.state().orders.count() as usize / SHARDS;
        copied.reserve(OBJECTS_PER_HOLD + 2 * mean + 64);
        let state = sequencer.state();
        let upto = SHARDS.min(shard + SHARDS_PER_HOLD);
        while shard < upto && copied.len() < OBJECTS_PER_HOLD {
            copied.extend(state.orders.of_shard(shard));
            shard += 1;
        }
        drop(state);
        for ((tenant, order), word) in &copied {
            let state = word.bits() & 0xffff;
            writer.put(&(u64::from(tenant.0) | state << 16).to_le_bytes())?;
            writer.put(&order.0.to_le_bytes())?;
            writer.put(&word.lsn().bytes().to_le_bytes())?;
        }
        orders += copied.len() as u64;
    }
    copy_money(sequencer, &mut ledger, &mut between);
    copy_reservations(sequencer, &mut ledger, &mut between);
    ledger.order_heads =
        sequencer.state().order_heads().map(|(tenant, lsn)| (tenant.0, lsn.bytes())).collect();
    loop {
        between();
        let last = ledger.holds.last().and_then(HoldObject::hold).map(|(key, _)| key);
        let state = sequencer.state();
        let some = state.holds.after(last).take(OBJECTS_PER_HOLD);
        let before = ledger.holds.len();
        ledger.holds.extend(some.map(|(key, hold)| HoldObject::of(key, &hold)));
        if ledger.holds.len() == before {
            break;
        }
    }
    loop {
        between();
        let last = ledger.pin_locks.last();
        let last = last
            .map(|(card, principal, terminal, _)| (*card, PrincipalId(*principal), TerminalId(*terminal)));
        let state = sequencer.state();
        let some = state.pins.after(last).take(OBJECTS_PER_HOLD);
        let before = ledger.pin_locks.len();
        ledger
            .pin_locks
            .extend(some.map(|((card, principal, terminal), until)| (card, principal.0, terminal.0, until)));
        if ledger.pin_locks.len() == before {
            break;
        }
    }
    loop {
        between();
        let from = ledger.exceptions.len();
        ledger.exceptions.extend(sequencer.state().exceptions.rows(from, OBJECTS_PER_HOLD));
        if ledger.exceptions.len() == from {
            break;
        }
    }
    loop {
        between();
        let from = ledger.proposals.len();
        ledger.proposals.extend(sequencer.state().proposals.rows(from, OBJECTS_PER_HOLD));
        if ledger.proposals.len() == from {
            break;
        }
    }
    loop {
        between();
        let after = ledger.controls.last().map(|row| row.tenant);
        let some = sequencer.state().proposals.control_rows(after, OBJECTS_PER_HOLD);
        if some.is_empty() {
            break;
        }
        ledger.controls.extend(some);
    }
    ledger.pin_locks.sort_by_key(|(.., until)| *until);
    let ledger = framed(&ledger);
    writer.put(&ledger)?;
    writer.flush()?;

    between();
    let end = {
        let _state = sequencer.state();
        sequencer.wal.tail()
    };
    between();
    let header = Header {
        store,
        start,
        end,
        objects: encoded.len() as u64,
        words,
        orders,
        ledger: ledger.len() as u64,
        body_hash: *writer.hasher.finalize().as_bytes(),
    };
    file.write_at(0, &header.encode())?;
    file.sync()?;
    sequencer.wal.kick();
    if !planted("snapshot-before-durable") {
        sequencer.wal.wait_durable(end)?;
    }
    between();
    let path = path(start);
    medium.rename(TEMPORARY, &path)?;
    medium.sync_dir(DIRECTORY)?;
    drop(file);

    let damaged = || CheckpointError::Damaged { file: path.clone() };
    let reread = Snapshot::open(medium, &path)?.ok_or_else(damaged)?;
    if reread.header != header || !reread.is_whole()? {
        return Err(damaged());
    }
    for old in list(medium)?.into_iter().skip(GENERATIONS) {
        medium.remove(&old)?;
    }
    Ok(header)
}

/// Copies the orders that wait, a few at a time, in order of their keys. One that is added or taken out behind
/// the place is in the log after the snapshot's start, and replay does the same.
fn copy_reservations(sequencer: &Sequencer, ledger: &mut Ledger, between: &mut impl FnMut()) {
    let mut after = None;
    loop {
        between();
        let state = sequencer.state();
        let some = state.orders.reservations(after).take(OBJECTS_PER_HOLD);
        let before = ledger.reservations.len();
        after = some.clone().last().map(|(key, _)| *key);
        ledger.reservations.extend(some.map(|(key, waiting)| StoredReservation::of(*key, waiting)));
        if ledger.reservations.len() == before {
            return;
        }
    }
}

/// Copies the ends of validity that cards of a batch were given, a few at a time in order of their rows. None is ever
/// taken out, and one that is set meanwhile is in the log after the snapshot's start, and replay sets it.
fn copy_ends(sequencer: &Sequencer, batch: BatchId, ledger: &mut Ledger, between: &mut impl FnMut()) {
    let mut from = 0;
    loop {
        let state = sequencer.state();
        let before = ledger.ends.len();
        for (row, end_ms) in state.stock(batch).ends(from).take(OBJECTS_PER_HOLD) {
            ledger.ends.push((CardRef::new(batch.0, row).to_bits(), end_ms));
            from = row + 1;
        }
        if ledger.ends.len() < before + OBJECTS_PER_HOLD {
            return;
        }
        drop(state);
        between();
    }
}

/// Copies what is counted of cards of a batch that are sold many times, a few at a time in order of their rows. None is
/// ever taken out, and what moves meanwhile is in the log after the snapshot's start: the positions with each tell.
fn copy_shared(sequencer: &Sequencer, batch: BatchId, ledger: &mut Ledger, between: &mut impl FnMut()) {
    let mut from = 0;
    loop {
        let state = sequencer.state();
        let before = ledger.shared.len();
        let mut next = from;
        let rows = state.stock(batch).shared().into_iter().flat_map(|shared| shared.rows(from));
        for (row, counted) in rows.take(OBJECTS_PER_HOLD) {
            ledger.shared.push(SharedObject::of(CardRef::new(batch.0, row), counted));
            next = row + 1;
        }
        from = next;
        if ledger.shared.len() < before + OBJECTS_PER_HOLD {
            return;
        }
        drop(state);
        between();
    }
}

fn path(start: Lsn) -> String {
    format!("{DIRECTORY}/{:016x}.snapshot", start.bytes())
}

/// The snapshots there are, newest first.
///
/// # Errors
/// What the device reports.
pub fn list(medium: &dyn Medium) -> io::Result<Vec<String>> {
    let mut names = medium.list(DIRECTORY)?;
    names.retain(|name| name.ends_with(".snapshot"));
    names.sort_unstable_by(|a, b| b.cmp(a));
    Ok(names.into_iter().map(|name| format!("{DIRECTORY}/{name}")).collect())
}

fn copy_objects(
    sequencer: &Sequencer,
    start: Lsn,
    ledger: &mut Ledger,
    between: &mut impl FnMut(),
) -> Objects {
    let mut objects = Objects::default();
    // Objects are only ever added at the end, so copying them a few at a time misses none that was
    // there when the copying began. Products come first and batches last, as they depend on each other.
    loop {
        between();
        let state = sequencer.state();
        let from = objects.products.len();
        let some = state.products.iter().skip(from).take(OBJECTS_PER_HOLD);
        let terms =
            some.clone().map(|product| (product.product.id.0, StoredTerms::of(&product.product.spec.terms)));
        ledger.terms.extend(terms.filter_map(|(id, terms)| Some((id, terms?))));
        objects.products.extend(some.map(|product| ProductObject {
            stored: StoredProduct::from((&product.product.spec, product.tenant)),
            frozen: product.product.frozen,
            lsn: product.lsn.bytes(),
        }));
        if objects.products.len() == from {
            break;
        }
    }
    loop {
        between();
        let state = sequencer.state();
        let from = objects.principals.len();
        let some = state.principals.iter().skip(from).take(OBJECTS_PER_HOLD);
        let places = some.clone().filter_map(|state| {
            let Principal { id, spec, .. } = &state.principal;
            Some((id.0, StoredPlace::of(spec)?))
        });
        ledger.places.extend(places);
        objects.principals.extend(some.map(|principal| PrincipalObject {
            stored: StoredPrincipal::from(&principal.principal.spec),
            revoked: principal.principal.revoked,
            lsn: principal.lsn.bytes(),
        }));
        if objects.principals.len() == from {
            break;
        }
    }
    for batch in sequencer.table.batches() {
        between();
        let state = sequencer.state();
        if start <= batch.import_lsn {
            // Replay brings it, all of it. Copied here or not, as its number happens to come before or after
            // others, it would change the order in which batches are sold. Its product may be missing, too.
            continue;
        }
        let stock = state.stock(batch.id);
        let activity = stock.activity();
        if *activity != Activity::whole(batch.rows(), Some(batch.imported_ms)) {
            ledger.activities.push(ActivityObject { batch: batch.id.0, pieces: activity.pieces().collect() });
        }
        ledger.validities.extend(batch.validity.map(|rule| (batch.id.0, StoredValidity::of(rule))));
        objects.batches.push(BatchObject {
            id: batch.id.0,
            stored: StoredBatch {
                tenant: stock.tenant.0,
                product: batch.product.0,
                label: batch.label.clone(),
                rows: batch.rows(),
                file_hash: batch.file_hash,
                cards_hash: batch.cards_hash,
                face: batch.face,
                valid_from_ms: batch.valid_from_ms,
                expires_ms: batch.expires_ms,
                active: batch.is_active(),
            },
            import: batch.import.0,
            imported_by: batch.imported_by.0,
            import_lsn: batch.import_lsn.bytes(),
            imported_ms: batch.imported_ms,
            lsn: stock.lsn.bytes(),
            active: batch.is_active(),
            frozen: batch.is_frozen(),
            voided: batch.is_voided(),
            extended_ms: batch.extended_ms(),
        });
        drop(state);
        copy_ends(sequencer, batch.id, ledger, between);
        copy_shared(sequencer, batch.id, ledger, between);
    }
    between();
    let state = sequencer.state();
    objects.now_ms = state.now_ms;
    (objects.wall_ms, objects.boot_ms, objects.boot_id) =
        (state.clocks.wall_ms, state.clocks.boot_ms, state.clocks.boot_id);
    objects
}

/// Copies tenants, accounts, documents, limits and what counts against them. In pieces, as everything: what an account
/// or a subject misses, its position tells.
fn copy_money(sequencer: &Sequencer, ledger: &mut Ledger, between: &mut impl FnMut()) {
    loop {
        between();
        let from = ledger.tenants.len();
        ledger.tenants.extend(sequencer.state().tenants.rows(from, OBJECTS_PER_HOLD));
        if ledger.tenants.len() == from {
            break;
        }
    }
    loop {
        between();
        let from = ledger.accounts.len();
        ledger.accounts.extend(sequencer.state().accounts.rows(from, OBJECTS_PER_HOLD));
        if ledger.accounts.len() == from {
            break;
        }
    }
    loop {
        between();
        let from = ledger.limits.len();
        ledger.limits.extend(sequencer.state().limits.rows(from, OBJECTS_PER_HOLD));
        if ledger.limits.len() == from {
            break;
        }
    }
    for first in (0..SHARDS).step_by(SHARDS_PER_HOLD) {
        let state = sequencer.state();
        for shard in first..first + SHARDS_PER_HOLD {
            let documents = state.documents.of_shard(shard);
            ledger.documents.extend(documents.map(|((tenant, id), lsn)| (tenant.0, id.0, lsn.bytes())));
            ledger.usages.extend(state.limits.usage_rows(shard));
        }
        drop(state);
        between();
    }
    // Last: what a limit that ended meanwhile counted is not counted again by replay.
    ledger.counted_ms = sequencer.state().limits.counted_ms();
}

/// A snapshot file.
pub struct Snapshot {
    /// Its header.
    pub header: Header,
    file: Box<dyn File>,
}

impl Snapshot {
    /// Opens a snapshot; `None` if its header or length is damaged.
    ///
    /// # Errors
    /// What the device reports.
    pub fn open(medium: &dyn Medium, path: &str) -> io::Result<Option<Snapshot>> {
        let file = medium.open(path)?;
        if file.len()? < HEADER_BYTES as u64 {
            return Ok(None);
        }
        let mut bytes = [0; HEADER_BYTES];
        file.read_at(0, &mut bytes)?;
        let Some(header) = Header::parse(&bytes) else { return Ok(None) };
        let expected = header.body_bytes().and_then(|bytes| bytes.checked_add(HEADER_BYTES as u64));
        Ok((expected == Some(file.len()?)).then_some(Snapshot { header, file }))
    }

    /// Whether the body is what was written.
    ///
    /// # Errors
    /// What the device reports.
    pub fn is_whole(&self) -> io::Result<bool> {
        let mut hasher = blake3::Hasher::new();
        self.read(0, self.header.body_bytes().unwrap_or(0), &mut |bytes| {
            hasher.update(bytes);
        })?;
        Ok(*hasher.finalize().as_bytes() == self.header.body_hash)
    }

    fn read(&self, from: u64, bytes: u64, each: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        let mut buffer = vec![0; CHUNK_BYTES.min(bytes as usize)];
        let mut done = 0;
        while done < bytes {
            let part = (bytes - done).min(CHUNK_BYTES as u64) as usize;
            self.file.read_at(HEADER_BYTES as u64 + from + done, &mut buffer[..part])?;
            each(&buffer[..part]);
            done += part as u64;
        }
        Ok(())
    }

    /// The objects; `None` if they are damaged.
    ///
    /// # Errors
    /// What the device reports.
    pub fn objects(&self) -> io::Result<Option<Objects>> {
        self.framed(0, self.header.objects)
    }

    /// What later versions than the first keep, empty if one of the first wrote it; `None` if it is damaged.
    ///
    /// # Errors
    /// What the device reports.
    pub fn ledger(&self) -> io::Result<Option<Ledger>> {
        if self.header.ledger == 0 {
            return Ok(Some(Ledger::default()));
        }
        let Header { objects, words, orders, ledger, .. } = self.header;
        self.framed(objects + words * 8 + orders * ORDER_BYTES as u64, ledger)
    }

    fn framed<T: Stored>(&self, at: u64, length: u64) -> io::Result<Option<T>> {
        let mut bytes = Vec::new();
        self.read(at, length, &mut |part| bytes.extend_from_slice(part))?;
        let Some((len, rest)) = bytes.split_first_chunk::<8>() else { return Ok(None) };
        let len = u64::from_le_bytes(*len) as usize;
        Ok(rest.get(..len).and_then(T::decode))
    }

    /// Installs the words into the batches of `objects`; `Ok(false)` if one is no word.
    ///
    /// # Errors
    /// What the device reports.
    pub fn words(&self, objects: &Objects, table: &Table) -> io::Result<bool> {
        let mut at = self.header.objects;
        let mut valid = true;
        for object in &objects.batches {
            let batch = table.batch(crate::BatchId(object.id)).expect("made from the same objects");
            let mut row = 0;
            self.read(at, batch.rows() * 8, &mut |bytes| {
                for bits in bytes.chunks_exact(8) {
                    let bits = u64::from_le_bytes(bits.try_into().expect("eight bytes"));
                    match Word::from_bits(bits) {
                        // A card that never moved needs no memory.
                        Some(Word::PRISTINE) => {}
                        Some(word) => batch.install(row, word),
                        None => valid = false,
                    }
                    row += 1;
                }
            })?;
            at += batch.rows() * 8;
        }
        Ok(valid)
    }

    /// Hands out the orders; `Ok(false)` if one has no position.
    ///
    /// # Errors
    /// What the device reports.
    pub fn orders(&self, each: &mut dyn FnMut(OrderKey, OrderWord)) -> io::Result<bool> {
        let at = self.header.objects + self.header.words * 8;
        let mut valid = true;
        self.read(at, self.header.orders * ORDER_BYTES as u64, &mut |bytes| {
            for order in bytes.chunks_exact(ORDER_BYTES) {
                let number =
                    |at: usize| u64::from_le_bytes(order[at..at + 8].try_into().expect("eight bytes"));
                let id = u128::from_le_bytes(order[8..24].try_into().expect("sixteen bytes"));
                let (tenant, state) = (number(0) as u16, number(0) >> 16);
                let word = Lsn::from_bytes(number(24)).filter(|_| state < 1 << 16);
                match word.and_then(|lsn| OrderWord::from_bits(lsn.units() << 16 | state)) {
                    Some(word) => each((TenantId(tenant), OrderId(id)), word),
                    None => valid = false,
                }
            }
        })?;
        Ok(valid)
    }
}
