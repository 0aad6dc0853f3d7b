//! The log with its committer and its preparer: appenders that leave segments and wait for room, three ways to wait for
//! what is durable, a reader behind the durable end, syncs that fail, and the power cut at any moment.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use kami_tests::random::Random;
use kami_wal::{Drive, Lsn, NoSpace, Poisoned, Record, RecordKind, SimMedium, SimMode, Wal, WalOptions};
use shuttle::future::block_on;
use shuttle::thread;

use super::in_schedules;

const APPENDERS: u64 = 3;
const RECORDS: u64 = 8;

/// A record's content: whose it is and which, then filled.
type Content = (u64, u64, usize);
/// What was acknowledged, by position. Never held over a step of the schedule.
type Told = Mutex<BTreeMap<Lsn, Content>>;

fn fill((thread, number, bytes): Content, payload: &mut [u8]) -> usize {
    payload[..bytes].fill((thread << 4 | number) as u8);
    payload[..8].copy_from_slice(&(thread << 32 | number).to_le_bytes());
    bytes
}

fn content(payload: &[u8]) -> Content {
    let head = u64::from_le_bytes(payload[..8].try_into().expect("eight bytes"));
    let (thread, number) = (head >> 32, head & 0xFFFF_FFFF);
    assert!(
        payload[8..].iter().all(|byte| u64::from(*byte) == thread << 4 | number),
        "bytes of another record"
    );
    (thread, number, payload.len())
}

fn open(disk: &SimMedium, options: WalOptions, read: &mut BTreeMap<Lsn, Content>) -> Wal {
    let mut visit = |record: Record<'_>| {
        read.insert(record.lsn, content(record.payload));
        Ok::<(), Infallible>(())
    };
    Wal::open(Arc::new(disk.clone()), options, None, &mut visit).expect("the log opens")
}

/// Appends, and waits for some of it in one of three ways; until the log is dead.
fn append(wal: &Wal, thread: u64, mut random: Random, told: &Told) -> Result<(), Poisoned> {
    let mut waiter = wal.waiter();
    for number in 0..RECORDS {
        // The third of the longest leaves a segment.
        let longest = wal.payload_bytes_max();
        let bytes = if random.percent(40) { longest } else { 8 * (1 + random.below(400) as usize) };
        let mut credit = loop {
            match wal.reserve(bytes) {
                Ok(credit) => break credit,
                Err(NoSpace::Poisoned) => return Err(Poisoned),
                Err(NoSpace::Busy) if random.percent(50) => wal.wait_space(),
                Err(NoSpace::Busy) => block_on(wal.space()),
                Err(other) => panic!("{other}"),
            }
            // There may be room and others may have taken it.
            thread::yield_now();
        };
        let own = (thread, number, bytes);
        let appended = wal.append(&mut credit, bytes, |payload, _| fill(own, payload)).expect("not empty");
        drop(credit);
        wal.kick();
        assert!(appended.end <= wal.tail());
        match random.below(4) {
            0 => wal.wait_durable(appended.end)?,
            1 => block_on(wal.durable(appended.end))?,
            2 => block_on(poll_fn(|context| waiter.poll_durable(appended.end, context)))?,
            _ => continue,
        }
        assert!(appended.end <= wal.durable_end(), "woken too early");
        told.lock().unwrap_or_else(PoisonError::into_inner).insert(appended.lsn, own);
    }
    Ok(())
}

/// Reads what is durable as it becomes so, until `over`.
fn follow(wal: &Wal, over: &AtomicBool) {
    let mut cursor = wal.cursor(1);
    let (mut end, mut next) = (Lsn::START, [0; APPENDERS as usize]);
    let mut stays = None;
    loop {
        let was_over = over.load(Ordering::Relaxed);
        let is_dead = wal.is_poisoned();
        let tail = wal.tail();
        let now = wal.durable_end();
        assert!(end <= now, "the durable end went back");
        assert!(stays.is_none_or(|end| end == now), "something was acknowledged after a failure");
        // At the tail it may be behind what was durable before the failure: of what the committer took along before the
        // tail moved over it, it tells when that has moved.
        stays = (is_dead && now < tail).then_some(now);
        end = now;
        assert!(end <= wal.tail());
        while let Some(record) = cursor.peek(wal, end).expect("what is durable can be read") {
            assert!(record.end <= end);
            if record.kind == RecordKind::Data {
                let (thread, number, _) = content(record.payload);
                assert_eq!(next[thread as usize], number, "out of order");
                next[thread as usize] += 1;
            }
            cursor.pass();
        }
        if was_over {
            return;
        }
        thread::yield_now();
    }
}

/// What a disk holds after a crash: all of `told`, and of each appender a beginning.
fn judge(disk: &SimMedium, told: &BTreeMap<Lsn, Content>) {
    let mut read = BTreeMap::new();
    drop(open(disk, WalOptions { drive: Drive::Manual, ..WalOptions::default() }, &mut read));
    for (lsn, content) in told {
        assert_eq!(read.get(lsn), Some(content), "an acknowledged record is gone: {lsn}");
    }
    let mut next = [0; APPENDERS as usize];
    for (thread, number, _) in read.into_values() {
        assert_eq!(next[thread as usize], number, "a record is missing before one that is there");
        next[thread as usize] += 1;
    }
}

fn life(seed: u64) {
    let mut random = Random::new(seed);
    let mode = if random.percent(50) { SimMode::Direct } else { SimMode::Mapped };
    let disk = SimMedium::new(random.next(), mode);
    let options = WalOptions {
        store_id: Some(1),
        segment_bytes: 64 << 10,
        ready_segments: 1 + random.below(2) as usize,
        drive: Drive::Threads,
        ..WalOptions::default()
    };
    let wal = Arc::new(open(&disk, options, &mut BTreeMap::new()));
    if random.percent(30) {
        disk.fail_sync_of_a_file_at(disk.syncs() + 1 + random.below(25));
    }
    let (told, over) = (Arc::new(Told::default()), Arc::new(AtomicBool::new(false)));
    let appenders: Vec<_> = (0..APPENDERS)
        .map(|number| {
            let (wal, told, random) = (Arc::clone(&wal), Arc::clone(&told), Random::new(random.next()));
            thread::spawn(move || append(&wal, number, random, &told))
        })
        .collect();
    let follower = {
        let (wal, over) = (Arc::clone(&wal), Arc::clone(&over));
        thread::spawn(move || follow(&wal, &over))
    };
    let all_told = || told.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut crashes = Vec::new();
    for _ in 0..random.below(3) {
        (0..random.below(300)).for_each(|_| thread::yield_now());
        // What is acknowledged from here on may be lost with this disk.
        let told = all_told();
        crashes.push((told, disk.crash(random.next())));
    }
    let ends: Vec<_> = appenders.into_iter().map(|appender| appender.join().expect("no panic")).collect();
    over.store(true, Ordering::Relaxed);
    follower.join().expect("no panic");
    assert!(!ends.contains(&Err(Poisoned)) || wal.is_poisoned());
    let wal = Arc::into_inner(wal).expect("all threads are gone");
    let whole = wal.close().is_ok();
    let told = all_told();
    crashes.push((told, disk.crash(random.next())));
    for (told, disk) in &crashes {
        judge(disk, told);
    }
    if whole {
        let mut read = BTreeMap::new();
        drop(open(&disk.kill(), WalOptions { drive: Drive::Manual, ..WalOptions::default() }, &mut read));
        assert_eq!(read.len() as u64, APPENDERS * RECORDS, "a log that was closed has everything");
    }
}

#[test]
fn what_is_acknowledged_survives_in_any_schedule() {
    in_schedules("schedules::log::what_is_acknowledged_survives_in_any_schedule", life);
}
