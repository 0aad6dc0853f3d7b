//! The Nth sync fails, and later ones succeed without persisting anything, as on Linux.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use kami_wal::{NoSpace, Poisoned, SimMedium, SimMode, WalOptions};

use crate::world::{Kept, open, open_with, options, payload, try_append};

/// After a failed sync nothing is acknowledged any more, everybody is told, and what was acknowledged
/// before is there.
#[test]
fn after_a_failed_sync_nothing_is_acknowledged() {
    for mode in [SimMode::Direct, SimMode::Mapped] {
        for nth in 1.. {
            let medium = SimMedium::new(nth, mode);
            medium.fail_sync_at(nth);
            let poisonings = Arc::new(AtomicUsize::new(0));
            let count = Arc::clone(&poisonings);
            let on_poison = Box::new(move |_: &str| {
                count.fetch_add(1, Ordering::SeqCst);
            });
            let options = WalOptions { on_poison: Some(on_poison), ..options() };
            let Ok((wal, _)) = open_with(Arc::new(medium.clone()), options, None) else {
                assert!(nth <= medium.syncs());
                continue;
            };
            let mut history: Vec<Kept> = Vec::new();
            let mut frozen = None;
            for index in 0..60 {
                let _ = wal.prepare();
                if let Ok(kept) = try_append(&wal, &payload(nth, index, 8 + (index as usize * 37 % 300) * 8))
                {
                    history.push(kept);
                }
                let _ = wal.commit();
                if index % 7 == 0 {
                    let _ = wal.seal();
                }
                let failed = nth <= medium.syncs();
                assert_eq!(failed, wal.is_poisoned(), "sync {nth}");
                if failed {
                    let end = *frozen.get_or_insert(wal.durable_end());
                    assert_eq!(end, wal.durable_end(), "sync {nth}: acknowledged after a failed sync");
                    assert_eq!(wal.commit(), Err(Poisoned));
                    assert_eq!(wal.reserve(8).err(), Some(NoSpace::Poisoned));
                    if end < wal.tail() {
                        assert_eq!(wal.wait_durable(wal.tail()), Err(Poisoned));
                    }
                }
            }
            let promised = history.partition_point(|kept| kept.end <= wal.durable_end().bytes());
            let reached = nth <= medium.syncs();
            assert_eq!(poisonings.load(Ordering::SeqCst), usize::from(reached), "sync {nth}");
            drop(wal);
            for seed in 0..4 {
                let (_, kept) = open(&medium.crash(seed)).unwrap();
                assert!(promised <= kept.len(), "sync {nth}: {promised} promised, {} there", kept.len());
                assert_eq!(kept[..], history[..kept.len()]);
            }
            if !reached {
                assert!(60 < nth, "only {nth} syncs");
                break;
            }
        }
    }
}

/// The process that starts after a failed sync was shown what the device does not have, took it for the log, and
/// acknowledged what rested on it; the next power cut took that back.
#[test]
fn the_start_after_a_failed_sync_believes_nothing_the_device_does_not_have() {
    for mode in [SimMode::Direct, SimMode::Mapped] {
        for nth in 4..40 {
            let medium = SimMedium::new(nth, mode);
            medium.fail_sync_at(nth);
            let Ok((wal, _)) = open(&medium) else { continue };
            for index in 0..60 {
                let _ = wal.prepare();
                let _ = try_append(&wal, &payload(nth, index, 8 + (index as usize * 37 % 300) * 8));
                if wal.commit().is_err() {
                    break;
                }
            }
            drop(wal);
            let medium = medium.kill();
            let (wal, mut history) = open(&medium).unwrap();
            for index in 0..5 {
                let _ = wal.prepare();
                history.push(try_append(&wal, &payload(nth, 100 + index, 400)).unwrap());
                wal.commit().unwrap();
            }
            drop(wal);
            for seed in 0..4 {
                let (_, kept) =
                    open(&medium.crash(seed)).unwrap_or_else(|e| panic!("{mode:?} sync {nth}: {e}"));
                assert_eq!(kept, history, "{mode:?} sync {nth}");
            }
        }
    }
}
