//! `import` and `memory`: what a card costs on its way in, and what it costs to have it.
//!
//! Both import generated rows through the engine's own import, as the network does, chunk by chunk:
//! normalise, digest, encrypt, write; then sync, hash, index and commit. A file's rows are not parsed
//! here; that is measured where files are read.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use kami_engine::Lifecycle;

use crate::args::Args;
use crate::machine::Resident;
use crate::redeem::{Load, redeem};
use crate::report::{Report, rounded};
use crate::store::{Store, import_batch};

/// Runs `import`: every thread imports a batch of its own.
pub fn run(args: &Args, report: &mut Report) -> Result<()> {
    let threads = u64::from(args.threads.unwrap_or(1));
    let store = Store::fresh(args)?;
    eprintln!("importing {} cards", args.cards);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let import = |thread| {
            let (first, end) = (args.cards * thread / threads, args.cards * (thread + 1) / threads);
            import_batch(&store.engine, store.codes, store.product, thread, first, end - first)
        };
        let threads: Vec<_> = (0..threads).map(|thread| scope.spawn(move || import(thread))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("an import does not panic"))
    })?;
    report.measured(args.cards, begun.elapsed());
    store.describe(report);
    report.cards = Some(args.cards);
    report.threads = Some(threads as u32);
    let cards = store.stats()?.cards;
    if cards != args.cards {
        eprintln!("kami-bench: {} cards imported, but the store has {cards}", args.cards);
        report.errors += 1;
    }
    Ok(())
}

/// Runs `memory`. The process itself is the fresh one: it does nothing else.
///
/// `bytes_per_card` is anonymous memory with all cards imported, sold and redeemed, less that of the
/// open and empty store. Cards that never moved need less, because the kernel gives no memory to words
/// that are still zero: that is `bytes_per_card_imported`. The codes lie in files, whose pages are the
/// kernel's to keep or drop.
pub fn memory(args: &Args, report: &mut Report) -> Result<()> {
    let mut store = Store::fresh(args)?;
    let empty = settled();
    eprintln!("importing {} cards", args.cards);
    let (imported, peak) = peak_during(|| store.import(args.cards));
    imported?;
    let imported = settled();
    eprintln!("selling and redeeming them");
    store.sell(args.cards)?;
    let sold = settled();
    let done = redeem(&store.engine, store.codes, args.cards, args.cards, &Load::of(args))?;
    report.errors = done.errors;
    let redeemed = settled();

    let per_card =
        |resident: u64| rounded(resident.saturating_sub(empty.anonymous_bytes) as f64 / args.cards as f64);
    report.ops = store.stats()?.counts[Lifecycle::Redeemed as usize];
    report.bytes_per_card = Some(per_card(redeemed.anonymous_bytes));
    report.add("bytes_per_card_imported", per_card(imported.anonymous_bytes));
    report.add("bytes_per_card_sold", per_card(sold.anonymous_bytes));
    report.add("import_peak_bytes_per_card", per_card(peak));
    report.add("import_peak_bytes", peak);
    report.add("empty_bytes", empty.anonymous_bytes);
    report.add("file_bytes", redeemed.file_bytes);
    store.describe(report);
    Ok(())
}

/// Memory when it has stopped changing: the log prepares segments, and memory that readers might
/// still see is freed a little later.
fn settled() -> Resident {
    let mut last = Resident::now();
    let mut same = 0;
    for _ in 0..100 {
        std::thread::sleep(Duration::from_millis(100));
        let now = Resident::now();
        same = if now.anonymous_bytes.abs_diff(last.anonymous_bytes) < 1 << 20 { same + 1 } else { 0 };
        last = now;
        if same == 10 {
            break;
        }
    }
    last
}

/// Runs `work` and samples anonymous memory every 2 ms meanwhile.
fn peak_during<T>(work: impl FnOnce() -> T) -> (T, u64) {
    let (peak, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let result = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                peak.fetch_max(Resident::now().anonymous_bytes, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        let result = work();
        done.store(true, Ordering::Relaxed);
        result
    });
    (result, peak.into_inner())
}
