//! A power cut at every single operation: while a log is made, written, rotated and recovered.

use kami_wal::{OpenError, SimMedium, SimMode};

use crate::world::{Kept, append, open, payload};

/// Makes a log, or continues one, through slots, closed blocks and a rotation. Fills in what was
/// appended and how much of that is promised; ends early when the disk is gone.
fn script(medium: &SimMedium, history: &mut Vec<Kept>, promised: &mut usize) -> Result<(), OpenError> {
    let (wal, kept) = open(medium)?;
    assert!(*promised <= kept.len() && kept[..] == history[..kept.len()]);
    history.truncate(kept.len());
    *promised = kept.len();
    let sizes =
        [64, 200, 9000, 16, 12_000, 12_000, 12_000, 5000, 80, 12_000, 12_000, 12_000, 9000, 12_000, 64];
    for (index, bytes) in sizes.into_iter().enumerate() {
        if wal.prepare().is_err() {
            return Ok(());
        }
        history.push(append(&wal, &payload(history.len() as u64, index as u64, bytes)));
        if index % 2 == 0 || index == 5 {
            let committed = wal.commit();
            *promised = history.partition_point(|kept| kept.end <= wal.durable_end().bytes());
            if committed.is_err() {
                return Ok(());
            }
        }
        if index == 3 && wal.seal().is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// Called with the disk that is left, what was appended, how much of it was promised, and which point it is.
type Then<'a> = dyn FnMut(SimMedium, &[Kept], usize, String) + 'a;

/// Runs the script with a cut at every operation, and calls `then` with what is left each time.
fn at_every_operation(start: &SimMedium, history: &[Kept], then: &mut Then<'_>) -> u64 {
    let mut nth = 1;
    loop {
        let medium = start.kill();
        medium.cut_power_at(nth);
        let (mut history, mut promised) = (history.to_vec(), history.len());
        if let Err(error) = script(&medium, &mut history, &mut promised) {
            assert!(medium.is_cut(), "operation {nth}: {error}");
        }
        for seed in 0..3 {
            then(medium.crash(seed * 7919 + nth), &history, promised, format!("operation {nth} seed {seed}"));
        }
        if !medium.is_cut() {
            return nth;
        }
        nth += 1;
    }
}

fn check(medium: &SimMedium, history: &[Kept], promised: usize, at: &str) -> Vec<Kept> {
    let (_, kept) = open(medium).unwrap_or_else(|error| panic!("{at}: {error:?}"));
    assert!(promised <= kept.len(), "{at}: {promised} were promised, {} are there", kept.len());
    assert!(kept[..] == history[..kept.len()], "{at}: records changed");
    kept
}

#[test]
fn a_cut_at_every_operation_of_a_new_log_loses_nothing() {
    for mode in [SimMode::Direct, SimMode::Mapped] {
        let points = at_every_operation(&SimMedium::new(1, mode), &[], &mut |left, history, promised, at| {
            // Twice: recovering from a recovery changes nothing.
            let first = check(&left, history, promised, &at);
            let second = check(&left.crash(1), history, promised, &at);
            assert_eq!(first, second, "{at}: the second recovery differs");
        });
        assert!(30 < points, "only {points} operations");
    }
}

#[test]
fn a_cut_at_every_operation_of_every_recovery_loses_nothing() {
    for mode in [SimMode::Direct, SimMode::Mapped] {
        let mut recoveries = 0;
        at_every_operation(&SimMedium::new(2, mode), &[], &mut |left, history, promised, at| {
            if !at.ends_with("seed 0") {
                return;
            }
            for nth in 1.. {
                let again = left.crash(nth);
                again.cut_power_at(nth);
                let outcome = open(&again);
                recoveries += 1;
                match outcome {
                    Ok(_) if !again.is_cut() => break,
                    Ok(_) => panic!("{at}: opened without power"),
                    Err(error) => assert!(again.is_cut(), "{at}: {error:?}"),
                }
                check(
                    &again.crash(nth),
                    history,
                    promised,
                    &format!("{at}, operation {nth} of the recovery"),
                );
            }
        });
        assert!(300 < recoveries, "only {recoveries} recoveries were cut");
    }
}

#[test]
fn a_cut_at_every_operation_of_a_log_that_is_continued_loses_nothing() {
    let start = SimMedium::new(3, SimMode::Direct);
    let (mut history, mut promised) = (Vec::new(), 0);
    script(&start, &mut history, &mut promised).unwrap();
    let start = start.crash(1);
    let kept = check(&start.crash(1), &history, promised, "start");
    at_every_operation(&start, &kept, &mut |left, history, promised, at| {
        check(&left, history, promised.min(history.len()), &at);
    });
}
