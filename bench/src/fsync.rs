//! `fsync`: what the disk can do, and what the log alone makes of it.
//!
//! The limit every durable figure is held against: lone 4 KiB `O_DIRECT | O_DSYNC` writes, one at a
//! time, into a file that was written before (`p50_us`, `p99_us`), and the rate of larger ones. Then
//! the same through the log, without an engine: append one small record, wait until it is durable, by
//! both commit paths.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use kami_wal::{CommitChoice, DiskMedium, DiskOptions, Record, Wal, WalOptions};
use memmap2::MmapMut;
use rustix::fs::OFlags;

use crate::args::Args;
use crate::report::{Latencies, Report, rounded};
use crate::store::Scratch;

const BLOCK_BYTES: usize = 4096;
const FILE_BYTES: usize = 64 << 20;
/// A redemption's record is about as long.
const PAYLOAD_BYTES: usize = 96;

/// Runs the workload.
pub fn run(args: &Args, report: &mut Report) -> Result<()> {
    let scratch = Scratch::new(&args.dir)?;
    let count = args.count.unwrap_or(10_000);
    let limit = args.seconds.unwrap_or(Duration::from_secs(60)) / 5;
    let file = prewritten(&scratch.path().join("blocks"))?;

    let begun = Instant::now();
    let (latencies, ops) = writes(&file, BLOCK_BYTES, count, limit)?;
    report.measured(ops, begun.elapsed());
    report.latencies(&latencies);
    for (name, bytes) in [("mb_per_s_64k", 64 << 10), ("mb_per_s_1m", 1 << 20)] {
        let begun = Instant::now();
        let (_, ops) = writes(&file, bytes, (512 << 20) / bytes as u64, limit)?;
        report.add(name, rounded(ops as f64 * bytes as f64 / 1e6 / begun.elapsed().as_secs_f64()));
    }
    for (name, choice) in [("direct", CommitChoice::Direct), ("mapped", CommitChoice::Mapped)] {
        let directory = scratch.path().join(name);
        let (latencies, filesystem, durable) = commits(&directory, choice, count, limit)?;
        let [p50, p99, p999] = latencies.percentiles_us();
        report.add(&format!("log_{name}_p50_us"), p50);
        report.add(&format!("log_{name}_p99_us"), p99);
        report.add(&format!("log_{name}_p999_us"), p999);
        (report.filesystem, report.durable) = (Some(filesystem), Some(durable));
    }
    report.commit_path = Some("direct");
    (report.threads, report.window, report.batch) = (Some(1), Some(1), Some(1));
    Ok(())
}

/// A file whose blocks were all written, as a log segment's are: writes into blocks that are only
/// allocated take twice as long.
fn prewritten(path: &Path) -> Result<File> {
    let flags = (OFlags::DIRECT | OFlags::DSYNC).bits().cast_signed();
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .custom_flags(flags)
        .open(path)
        .context("the file system takes no direct writes")?;
    let zeros = MmapMut::map_anon(1 << 20)?;
    for at in (0..FILE_BYTES).step_by(zeros.len()) {
        file.write_all_at(&zeros, at as u64)?;
    }
    file.sync_all()?;
    Ok(file)
}

/// Up to `count` writes of `bytes`, one after the other.
fn writes(file: &File, bytes: usize, count: u64, limit: Duration) -> Result<(Latencies, u64)> {
    // A mapping, because direct writes need aligned memory.
    let mut buffer = MmapMut::map_anon(bytes)?;
    let mut latencies = Latencies::default();
    let begun = Instant::now();
    for number in 0..count {
        buffer[..8].copy_from_slice(&number.to_le_bytes());
        let at = (number as usize * bytes) % FILE_BYTES;
        let submitted = Instant::now();
        file.write_all_at(&buffer, at as u64)?;
        latencies.record(submitted.elapsed(), 1);
        if limit < begun.elapsed() {
            return Ok((latencies, number + 1));
        }
    }
    Ok((latencies, count))
}

/// Lone commits of one small record each.
fn commits(
    directory: &Path,
    commit_path: CommitChoice,
    count: u64,
    limit: Duration,
) -> Result<(Latencies, &'static str, bool)> {
    let medium = DiskMedium::open(directory, DiskOptions { commit_path, ..DiskOptions::default() })?;
    let (filesystem, durable) = (medium.filesystem_name(), medium.is_durable());
    let visit = &mut |_: Record<'_>| Ok::<(), std::io::Error>(());
    let wal = Wal::open(Arc::new(medium), WalOptions::default(), None, visit)?;
    let mut latencies = Latencies::default();
    let begun = Instant::now();
    for number in 0..count {
        wal.wait_space();
        let submitted = Instant::now();
        let mut credit = wal.reserve(PAYLOAD_BYTES)?;
        let appended = wal.append(&mut credit, PAYLOAD_BYTES, |payload, _| {
            payload[..8].copy_from_slice(&number.to_le_bytes());
            PAYLOAD_BYTES
        });
        drop(credit);
        wal.kick();
        wal.wait_durable(appended.context("nothing was appended")?.end)?;
        latencies.record(submitted.elapsed(), 1);
        if limit < begun.elapsed() {
            break;
        }
    }
    wal.close()?;
    Ok((latencies, filesystem, durable))
}
