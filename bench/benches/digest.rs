//! The door: from a code as typed to the digest that cards are looked up by.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use kami_engine::{CodeGroup, DiskOptions, Engine, EngineOptions, TenantId};

fn digest(criterion: &mut Criterion) {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let (data, keys) = (directory.path().join("data"), directory.path().join("keys"));
    let options = EngineOptions::on_disk(&data, &keys, DiskOptions::default()).expect("a disk");
    let engine = Engine::open(options).expect("a new store");
    let mut group = criterion.benchmark_group("digest");
    for (name, code) in
        [("16 ascii", "K7Q2M9X4T1B8R5W3"), ("16 full-width", "Ｋ７Ｑ２Ｍ９Ｘ４Ｔ１Ｂ８Ｒ５Ｗ３")]
    {
        group.bench_function(name, |bencher| {
            bencher.iter(|| engine.digest(TenantId(0), black_box(code.as_bytes())).expect("a code"));
        });
    }
    let mut codes = CodeGroup::default();
    group.throughput(Throughput::Elements(CodeGroup::CODES_MAX as u64));
    group.bench_function("16 ascii, a whole group", |bencher| {
        bencher.iter(|| {
            codes.clear();
            while !codes.is_full() {
                codes.push(black_box(b"K7Q2M9X4T1B8R5W3")).expect("a code");
            }
            engine.digest_group(TenantId(0), &mut codes);
            black_box(codes.digests().len())
        });
    });
    group.finish();
}

criterion_group!(benches, digest);
criterion_main!(benches);
