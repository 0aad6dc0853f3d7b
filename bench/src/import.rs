//! `import` and `memory`: what a card costs on its way in, and what it costs to have it.
//!
//! `import` reads a CSV file as `kami import` does, with the same code: it finds out what the file is,
//! checks every line, and parses it once more into chunks for the engine's import, in another thread, as
//! the client is another process. What is left out is the network. `memory` imports generated rows.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kami_engine::{Caller, ImportSpec, Lifecycle};
use kami_net::client::Rows;
use kami_net::frame::request::{ChunkRows, Columns};
use kami_server::{CardFile, CardRows, ReadOptions};

use crate::args::Args;
use crate::codes::Codes;
use crate::machine::Resident;
use crate::redeem::{Load, redeem};
use crate::report::{Report, rounded};
use crate::store::{Purpose, Store, request_id};

/// As the client sends them.
const CHUNK_BYTES: usize = 256 << 10;
/// Chunks that are parsed ahead.
const CHUNKS_AHEAD: usize = 4;

/// Runs `import`: every thread imports a file of its own.
pub fn run(args: &Args, report: &mut Report) -> Result<()> {
    let threads = u64::from(args.threads.unwrap_or(1));
    let store = Store::fresh(args)?;
    let directory = store.directory().context("a fresh store has a directory")?;
    eprintln!("writing {} cards", args.cards);
    let files: Vec<PathBuf> = (0..threads)
        .map(|thread| {
            let path = directory.join(format!("cards-{thread}.csv"));
            let (first, end) = (args.cards * thread / threads, args.cards * (thread + 1) / threads);
            write_cards(&path, store.codes, first..end).map(|()| path)
        })
        .collect::<Result<_>>()?;
    let bytes = files.iter().map(|path| Ok(path.metadata()?.len())).sum::<Result<u64>>()?;
    eprintln!("importing them");
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let import = |(path, number): (&PathBuf, u64)| import_file(&store, path, number);
        let threads: Vec<_> = files.iter().zip(0..).map(|file| scope.spawn(move || import(file))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("an import does not panic"))
    })?;
    report.measured(args.cards, begun.elapsed());
    store.describe(report);
    report.cards = Some(args.cards);
    report.threads = Some(threads as u32);
    report.add("csv_bytes", bytes);
    let cards = store.stats()?.cards;
    if cards != args.cards {
        eprintln!("kami-bench: {} cards imported, but the store has {cards}", args.cards);
        report.errors += 1;
    }
    Ok(())
}

/// A file as suppliers send it: a header in Chinese, the line's number, the code.
fn write_cards(path: &Path, codes: Codes, cards: std::ops::Range<u64>) -> Result<()> {
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    file.write_all("序号,卡号\r\n".as_bytes())?;
    for (card, number) in cards.zip(1_u64..) {
        write!(file, "{number},")?;
        file.write_all(&codes.code(card))?;
        file.write_all(b"\r\n")?;
    }
    file.flush()?;
    Ok(())
}

fn import_file(store: &Store, path: &Path, number: u64) -> Result<()> {
    let file = CardFile::open(path, &ReadOptions { currency: *b"CNY", ..ReadOptions::default() })?;
    let survey = file.survey(|_| ())?;
    ensure!(survey.bad == 0, "{} lines of the file are bad", survey.bad);
    let spec = file.spec(&survey, ImportSpec::of(store.product, 0, 0));
    let id = request_id(Purpose::Import, number);
    let begun = store.engine.import_begin(Caller::LOCAL, id, spec.clone())?;
    ensure!(begun.status.is_done(), "the import was refused: {}", begun.status.code());
    std::thread::scope(|scope| {
        let (parsed, chunks) = mpsc::sync_channel(CHUNKS_AHEAD);
        let (spent, spare) = mpsc::channel::<ChunkRows>();
        let (file, spec) = (&file, &spec);
        let parser = scope.spawn(move || -> Result<()> {
            let mut rows = CardRows::new(file, spec, 0);
            loop {
                let mut chunk =
                    spare.try_recv().unwrap_or_else(|_| ChunkRows::new(Columns::of(spec), CHUNK_BYTES));
                chunk.clear();
                rows.fill(&mut chunk)?;
                if chunk.is_empty() || parsed.send(chunk).is_err() {
                    return Ok(());
                }
            }
        });
        let mut first = 0;
        for chunk in chunks {
            let reply = store.engine.import_chunk(Caller::LOCAL, id, first, &mut chunk.rows())?;
            ensure!(reply.status.is_done(), "a chunk was refused: {}", reply.status.code());
            first += u64::from(chunk.count());
            // If the parser is done, nobody needs it any more.
            let _ = spent.send(chunk);
        }
        parser.join().expect("parsing does not panic")
    })?;
    let committed = store.engine.import_commit(Caller::LOCAL, id)?;
    ensure!(committed.status.is_done(), "the commit was refused: {}", committed.status.code());
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
    let done = redeem(&store.engine, store.codes, 0..args.cards, args.cards, &Load::of(args))?;
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
