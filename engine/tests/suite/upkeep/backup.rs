//! Backups whose source or whose copies are damaged, cut short, or not there.

use std::sync::Arc;

use kami_engine::{Backup, BackupError, ProductId, Until, backup};
use kami_wal::format::HEAD_BYTES;
use kami_wal::{Medium, OpenError, RecordHead, SimMedium, SimMode};

use crate::store::End;
use crate::upkeep::traded;

const BATCH: &str = "batches/00000001.batch";

fn run(data: &SimMedium, out: &SimMedium) -> Result<(), BackupError> {
    backup(data, out, &mut |_| ()).map(|_| ())
}

#[track_caller]
fn is_whole(out: &SimMedium) {
    let backup = Backup::open(Arc::new(out.clone())).unwrap();
    assert_eq!(backup.damaged_files().len(), 0);
    backup.point(Until::End).unwrap();
}

/// A store with several segments, and a backup of it.
fn backed_up() -> (SimMedium, SimMedium) {
    let (mut store, _) = traded();
    for _ in 0..2 {
        store.open();
        store.end(End::Close);
    }
    let data = store.data;
    let out = SimMedium::new(3, SimMode::Direct);
    run(&data, &out).unwrap();
    is_whole(&out);
    (data, out)
}

fn damaged(data: &SimMedium) -> SimMedium {
    let damaged = data.kill();
    damaged.edit(BATCH, |bytes| bytes[4096 + 77] ^= 1);
    damaged
}

#[test]
fn a_damaged_batch_is_not_copied_and_the_next_run_takes_the_whole_one() {
    let (data, out) = backed_up();
    // The copy is gone, as after a person removed a damaged one.
    out.lose(BATCH);
    let refused = run(&damaged(&data), &out);
    assert!(matches!(refused, Err(BackupError::BatchFile { .. })), "{refused:?}");
    assert!(
        !out.list("batches").unwrap().iter().any(|name| BATCH.ends_with(name.as_str())),
        "it has its name"
    );
    run(&data, &out).unwrap();
    is_whole(&out);
}

#[test]
fn a_batch_that_a_cut_run_left_is_taken_for_what_it_is() {
    let (data, out) = backed_up();
    out.lose("manifest");
    // The store's file went bad since; the copy is as good as ever.
    run(&damaged(&data), &out).unwrap();
    is_whole(&out);
}

#[test]
fn a_log_without_its_beginning_is_not_backed_up() {
    let (data, out) = backed_up();
    data.lose("log/0000000001.segment");
    let refused = run(&data, &SimMedium::new(4, SimMode::Direct));
    let missing = matches!(&refused, Err(BackupError::Log(OpenError::MissingSegment { file }))
        if file == "log/0000000001.segment");
    assert!(missing, "{refused:?}");
    // A backup that has it goes on without.
    run(&data, &out).unwrap();
    is_whole(&out);
}

/// Changes a record so that its checksum is right: only the hash chain can tell.
fn rewrite(data: &SimMedium, path: &str) {
    data.edit(path, |bytes| {
        let mut at = HEAD_BYTES as usize;
        loop {
            let head = RecordHead::decode(&bytes[at..]).expect("records up to a long one");
            let end = at + head.length as usize;
            if head.kind == kami_wal::RecordKind::Data && at > HEAD_BYTES as usize + 2000 {
                // In the request id of its first entry.
                bytes[at + 48 + 16 + 10] ^= 1;
                head.complete(&mut bytes[at..end]);
                return;
            }
            at = end;
        }
    });
}

#[test]
fn a_log_whose_chain_is_broken_is_not_backed_up() {
    let (data, _) = backed_up();
    let data = data.kill();
    rewrite(&data, "log/0000000001.segment");
    let refused = run(&data, &SimMedium::new(4, SimMode::Direct));
    assert!(matches!(refused, Err(BackupError::Log(OpenError::ChainBroken { .. }))), "{refused:?}");
}

/// The chain is followed from where the backup ends, also over the end of a segment.
#[test]
fn the_chain_is_checked_in_what_is_new() {
    let (mut store, _) = traded();
    let out = SimMedium::new(3, SimMode::Direct);
    run(&store.data, &out).unwrap();
    for _ in 0..3 {
        store.open();
        for _ in 0..20 {
            store.sell(ProductId(1), 2);
        }
        store.end(End::Close);
        run(&store.data, &out).unwrap();
        is_whole(&out);
    }
}
