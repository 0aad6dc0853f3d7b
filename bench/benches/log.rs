//! The log: appending in memory, and a lone commit to the disk by both paths.

use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use kami_wal::{CommitChoice, DiskMedium, DiskOptions, Record, Wal, WalOptions};

/// As long as a group of 64 redemptions.
const GROUP_BYTES: usize = 64 * 64;

fn open(directory: &std::path::Path, commit_path: CommitChoice) -> Wal {
    let options = DiskOptions { commit_path, ..DiskOptions::default() };
    let medium = DiskMedium::open(directory, options).expect("a disk");
    let visit = &mut |_: Record<'_>| Ok::<(), std::io::Error>(());
    Wal::open(Arc::new(medium), WalOptions::default(), None, visit).expect("a new log")
}

fn log(criterion: &mut Criterion) {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let mut group = criterion.benchmark_group("log");
    for (name, choice) in [("direct", CommitChoice::Direct), ("mapped", CommitChoice::Mapped)] {
        let wal = open(&directory.path().join(name), choice);
        let append = |bytes: usize| {
            let mut credit = wal.reserve(bytes).expect("room");
            wal.append(&mut credit, bytes, |payload, _| {
                payload[..bytes].fill(7);
                bytes
            })
        };
        group.throughput(Throughput::Elements(1));
        group.bench_function(format!("lone commit, {name}"), |bencher| {
            bencher.iter_batched(
                || wal.wait_space(),
                |()| {
                    let end = append(96).expect("a record").end;
                    wal.kick();
                    wal.wait_durable(end).expect("a sound disk");
                },
                BatchSize::PerIteration,
            );
        });
        group.throughput(Throughput::Bytes(GROUP_BYTES as u64));
        group.bench_function(format!("append 4 KiB, {name}"), |bencher| {
            bencher.iter_batched(|| wal.wait_space(), |()| append(GROUP_BYTES), BatchSize::PerIteration);
        });
    }
    group.finish();
}

criterion_group!(benches, log);
criterion_main!(benches);
