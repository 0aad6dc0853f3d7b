//! Whole engines: the histories of `history.rs`, shorter.

use std::sync::atomic::{AtomicU64, Ordering};

use super::in_schedules;
use crate::history::{Scale, history};

/// The log is left for its next segment in some lives, and all of what runs beside it happens in most.
const SMALL: Scale = Scale {
    clients: 3,
    cards: 3,
    lives: 3,
    operations: 30,
    stock: 60,
    cut: (5, 80),
    keeps: 4,
    segment_bytes: 64 << 10,
};

#[test]
fn every_history_can_be_explained() {
    static JUDGED: AtomicU64 = AtomicU64::new(0);
    in_schedules("schedules::engine::every_history_can_be_explained", |seed| {
        JUDGED.fetch_add(history(seed, SMALL), Ordering::Relaxed);
    });
    println!("operations: {}", JUDGED.load(Ordering::Relaxed));
}
