//! `scale`: what grows with the number of cards and what does not. At each size the workloads that tell run as
//! processes of their own: `memory`, `import`, `engine-redeem`, `engine-checkpoint`, `recovery`.
//!
//! At most [`COMMANDS_MAX`] commands are measured at any size, so that a redemption among 50 million cards is compared
//! with one among a million, and not the length of a log with that of another.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value, json};

use crate::args::{Args, Workload};
use crate::child::result;
use crate::machine::available_memory;
use crate::report::{Report, rounded};
use crate::svg::{count, memory};

/// See the module's head.
const COMMANDS_MAX: u64 = 10_000_000;
/// What the largest of the workloads, `recovery`, takes of the disk for each card, and a fifth more: its row in the batch
/// file, its sale and its redemption in the log, its word in the snapshot. It was 146 bytes between 1 and 4 million cards.
const DISK_BYTES_A_CARD: u64 = 176;
/// And whatever the number: segments that are written ahead, keys, the first of everything.
const DISK_BYTES: u64 = 512 << 20;
/// What a card takes in memory at most, while the index grows: shards' old tables beside new ones, words, rows of the
/// import on their way to the disk; and twice that, since the disk's cache needs some, too.
const MEMORY_BYTES_A_CARD: u64 = 120;
/// And whatever the number.
const MEMORY_BYTES: u64 = 512 << 20;

/// Runs the workload.
pub fn run(args: &Args, report: &mut Report) -> Result<()> {
    for cards in &args.sizes {
        ensure_room(&args.dir, *cards)?;
    }
    let mut sizes = Vec::new();
    for cards in &args.sizes {
        sizes.push(measure(args, *cards, report).with_context(|| format!("at {cards} cards"))?);
    }
    let first = sizes.first().context("no sizes")?.clone();
    for size in &mut sizes {
        let ratio = |name: &str| Some(rounded(size.get(name)?.as_f64()? / first.get(name)?.as_f64()?));
        let cost = ratio("redeem_us").map_or(Value::Null, Value::from);
        size.insert("redeem_cost_ratio".to_owned(), cost);
    }
    report.add("sizes", sizes);
    Ok(())
}

/// Whether a run with so many cards fits onto the disk and into memory.
fn ensure_room(directory: &Path, cards: u64) -> Result<()> {
    let disk =
        rustix::fs::statvfs(directory).with_context(|| format!("no directory {}", directory.display()))?;
    let free = disk.f_bavail * disk.f_frsize;
    let needed = DISK_BYTES + cards * DISK_BYTES_A_CARD;
    let told = |bytes: u64| memory(bytes as f64);
    ensure!(
        needed <= free,
        "{cards} cards need {} of disk under {}, and {} are free: make room, or choose --dir or smaller --sizes",
        told(needed),
        directory.display(),
        told(free)
    );
    let (needed, free) = (MEMORY_BYTES + cards * MEMORY_BYTES_A_CARD, available_memory());
    ensure!(
        needed <= free,
        "{cards} cards need {} of memory, and {} are free: end what uses it, or choose smaller --sizes",
        told(needed),
        told(free)
    );
    Ok(())
}

/// Everything at one size.
fn measure(args: &Args, cards: u64, report: &mut Report) -> Result<Map<String, Value>> {
    let args = Args { cards, ..args.clone() };
    let commands = cards.min(COMMANDS_MAX).to_string();
    let mut size = Map::from_iter([("cards".to_owned(), json!(cards))]);
    for (workload, more, figures) in [
        (
            Workload::Memory,
            &[][..],
            &[
                ("bytes_per_card", "bytes_per_card"),
                ("bytes_per_card_imported", "bytes_per_card_imported"),
                ("import_peak_bytes_per_card", "import_peak_bytes_per_card"),
            ][..],
        ),
        (Workload::Import, &[], &[("import_cards_per_s", "ops_per_s")]),
        (
            Workload::EngineRedeem,
            &["--count", &commands],
            &[("redeem_ops_per_s", "ops_per_s"), ("redeem_p50_us", "p50_us"), ("redeem_p99_us", "p99_us")],
        ),
        (
            Workload::EngineCheckpoint,
            &["--count", &commands],
            &[
                ("checkpoint_seconds", "checkpoint_seconds"),
                ("checkpoint_bytes", "checkpoint_bytes"),
                ("checkpoints", "checkpoints"),
                ("p99_us_without_checkpoint", "alone_p99_us"),
                ("p99_us_with_checkpoint", "p99_us"),
                ("ops_per_s_without_checkpoint", "alone_ops_per_s"),
                ("ops_per_s_with_checkpoint", "ops_per_s"),
            ],
        ),
        (Workload::Recovery, &["--count", &commands], &[("recover_seconds", "recover_seconds")]),
    ] {
        eprintln!("{} cards: {}", count(cards as f64), workload.name());
        let told = result(&args, workload, more)?;
        report.errors += told["errors"].as_u64().context("a result without its errors")?;
        for (name, field) in figures {
            let value =
                told[field].as_f64().with_context(|| format!("{} without {field}", workload.name()))?;
            size.insert((*name).to_owned(), json!(value));
            eprintln!("  {name} {value}");
        }
    }
    // What one redemption costs, of all threads together.
    let rate = size["redeem_ops_per_s"].as_f64().context("no rate")?;
    size.insert("redeem_us".to_owned(), json!(rounded(1e6 / rate)));
    size.insert("recovered_redemptions".to_owned(), json!(cards.min(COMMANDS_MAX)));
    Ok(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_there_is_room_for_is_refused_with_what_it_needs() {
        let error = ensure_room(Path::new("."), 1 << 50).unwrap_err().to_string();
        assert!(error.contains("cards need") && error.contains("are free"), "{error}");
        ensure_room(Path::new("."), 1000).expect("room for a thousand cards");
    }
}
