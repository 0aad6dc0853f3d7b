//! The door: from a code as typed to the digest that cards are looked up by.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use kami_engine::{DiskOptions, Engine, EngineOptions, TenantId};

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
    group.finish();
}

criterion_group!(benches, digest);
criterion_main!(benches);
