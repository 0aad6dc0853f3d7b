//! Many appenders, the log's own threads, and the power going off in the middle.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kami_wal::{Drive, NoSpace, OpenError, SimMedium, SimMode, Wal, WalOptions};

use crate::world::{Kept, Random, for_seeds, open, open_with, options, payload, try_append};

fn threaded() -> WalOptions {
    WalOptions { drive: Drive::Threads, seal_after: Duration::from_millis(1), ..options() }
}

/// Appends until told to stop; returns everything appended and how many of it were promised.
fn appender(wal: &Wal, stop: &AtomicBool, seed: u64) -> (Vec<Kept>, usize) {
    let mut random = Random(seed);
    let (mut history, mut promised) = (Vec::new(), 0);
    while !stop.load(Ordering::Relaxed) {
        let bytes = 8 + random.below(200) as usize * 8;
        match try_append(wal, &payload(seed, history.len() as u64, bytes)) {
            Ok(kept) => history.push(kept),
            Err(NoSpace::Busy) => std::thread::sleep(Duration::from_micros(100)),
            Err(NoSpace::Poisoned) => break,
            Err(other) => panic!("{other}"),
        }
        wal.kick();
        if random.percent(10) && wal.wait_durable(wal.tail()).is_ok() {
            promised = history.len();
        }
    }
    (history, promised)
}

#[test]
fn what_every_thread_was_promised_survives_a_power_cut() {
    for_seeds("threads::what_every_thread_was_promised_survives_a_power_cut", 20, |seed| {
        let medium = SimMedium::new(seed, if seed % 2 == 0 { SimMode::Direct } else { SimMode::Mapped });
        let (wal, _) = open_with(Arc::new(medium.clone()), threaded(), None).unwrap();
        medium.cut_power_at(medium.operations() + 40 + seed * 7 % 200);
        let stop = AtomicBool::new(false);
        let histories = std::thread::scope(|scope| {
            let (wal, stop) = (&wal, &stop);
            let threads: Vec<_> =
                (0..3).map(|index| scope.spawn(move || appender(wal, stop, seed * 3 + index))).collect();
            let begun = Instant::now();
            while !medium.is_cut() && begun.elapsed() < Duration::from_secs(10) {
                std::thread::sleep(Duration::from_micros(200));
            }
            stop.store(true, Ordering::Relaxed);
            threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        drop(wal);
        let (_, kept) = open(&medium.crash(seed)).unwrap();
        let tail = kept.last().map_or(0, |kept| kept.end);
        for (history, promised) in &histories {
            let there = history.partition_point(|kept| kept.end <= tail);
            assert!(*promised <= there, "seed {seed}: {promised} promised, {there} there");
        }
        // What is there is exactly what was appended below the tail, in the order of the positions.
        let mut all: Vec<_> = histories.into_iter().flat_map(|(history, _)| history).collect();
        all.sort_by_key(|kept| kept.lsn);
        assert!(kept[..] == all[..kept.len()], "seed {seed}");
    });
}

/// The committer may sleep or be in the midst of another commit when it is asked, and what one thread asks for covers what
/// others appended before. Nothing is committed unasked.
#[test]
fn a_commit_that_was_asked_for_covers_all_that_was_appended() {
    let medium = SimMedium::new(1, SimMode::Direct);
    let (wal, _) = open_with(Arc::new(medium), threaded(), None).unwrap();
    for round in 0..500 {
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| try_append(&wal, &[1; 8]).unwrap());
            }
        });
        let end = wal.tail();
        wal.kick();
        let begun = Instant::now();
        while wal.durable_end() < end {
            assert!(begun.elapsed() < Duration::from_secs(10), "round {round}: asked for, and never made");
            std::thread::yield_now();
        }
    }
    let end = wal.tail();
    try_append(&wal, &[1; 8]).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(wal.durable_end(), end, "whoever asks for none may have more to append");
}

#[test]
fn an_idle_log_seals_itself() {
    let medium = SimMedium::new(1, SimMode::Direct);
    let (wal, _) = open_with(Arc::new(medium.clone()), threaded(), None).unwrap();
    let kept = try_append(&wal, &payload(1, 1, 9000)).unwrap();
    wal.wait_durable(wal.tail()).unwrap();
    let begun = Instant::now();
    loop {
        let left = medium.crash(1);
        left.edit("log/0000000001.segment", |bytes| bytes[kept.lsn as usize % 65536 + 5000] ^= 1);
        match open(&left) {
            Err(OpenError::Corrupt { .. }) => break,
            Ok(_) => assert!(begun.elapsed() < Duration::from_secs(10), "never sealed"),
            Err(other) => panic!("{other}"),
        }
    }
    let commits = wal.stats().commits;
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(wal.stats().commits, commits, "an idle log writes nothing more");
}

/// Credits held while others append and the committer closes blocks are good for an append at any time.
#[test]
fn a_credit_is_good_whatever_happens_meanwhile() {
    for_seeds("threads::a_credit_is_good_whatever_happens_meanwhile", 200, |seed| {
        let mut random = Random(seed);
        let (wal, _) = open(&SimMedium::new(seed, SimMode::Direct)).unwrap();
        let mut held = Vec::new();
        for _ in 0..400 {
            match random.below(10) {
                0..2 => {
                    let bytes = 8 + random.below(2040) as usize * 8;
                    if let Ok(credit) = wal.reserve(bytes) {
                        held.push((credit, bytes));
                    }
                }
                2..7 => {
                    let bytes = if random.percent(50) { 8 } else { 4000 };
                    let _ = try_append(&wal, &vec![1; bytes]);
                }
                7 => {
                    wal.commit().unwrap();
                }
                8 if random.percent(30) => wal.prepare().unwrap(),
                _ if !held.is_empty() => {
                    let (mut credit, bytes) = held.swap_remove(random.below(held.len() as u64) as usize);
                    wal.append(&mut credit, bytes, |_, _| bytes).unwrap();
                }
                _ => {}
            }
        }
    });
}
