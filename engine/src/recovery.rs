//! Recovery: from what lies on the disk to an engine that can go on.
//!
//! The newest snapshot that can be used, then the log from where that began, while another thread builds
//! the index; then what crashed imports left is removed.

use std::cell::RefCell;
use std::io;
use std::sync::Arc;

use kami_wal::{Lsn, Medium, ReplayFrom, Wal, WalOptions, planted};

use crate::batch;
use crate::checkpoint::{self, Snapshot};
use crate::clock::ClockStep;
use crate::engine::OpenError;
use crate::identity::BatchId;
use crate::import::{STAGING_SUFFIX, index_batch};
use crate::index::Index;
use crate::replay::Rebuild;
use crate::state::State;
use crate::sync::coarse::thread;
use crate::table::Table;
use crate::vault::Vault;

/// The state of the newest snapshot that can be used, and where replay begins. A damaged snapshot is
/// passed over, but if it still says up to where the log was durable, the log must reach that.
pub(crate) fn newest_snapshot(
    data: &Arc<dyn Medium>,
    store: u64,
    vault: &Vault,
) -> Result<(Rebuild, Option<ReplayFrom>), OpenError> {
    let io = |what| move |source| OpenError::Io { what, source };
    let mut durable_end = None;
    for path in checkpoint::list(&**data).map_err(io("listing the snapshots"))? {
        let Ok(Some(snapshot)) = Snapshot::open(&**data, &path) else {
            tracing::warn!(file = path, "a snapshot is unreadable and is not used");
            continue;
        };
        if snapshot.header.store != store {
            continue;
        }
        durable_end = durable_end.max(Some(snapshot.header.end));
        let mut rebuild = Rebuild::new(Arc::clone(data), store);
        let whole = planted("believe-a-snapshot") || matches!(snapshot.is_whole(), Ok(true));
        if whole && rebuild.snapshot(vault, &snapshot)? {
            return Ok((
                rebuild,
                Some(ReplayFrom { lsn: snapshot.header.start, durable_end_hint: durable_end }),
            ));
        }
        tracing::warn!(file = path, "a snapshot is damaged and is not used");
    }
    let Some(durable_end) = durable_end else { return Ok((Rebuild::new(Arc::clone(data), store), None)) };
    let from = ReplayFrom { lsn: Lsn::START, durable_end_hint: Some(durable_end) };
    Ok((Rebuild::new(Arc::clone(data), store), Some(from)))
}

/// Opens the log and replays it, while another thread builds the index of what the snapshot holds. `believe`
/// is asked about the state it leads to before anything on the disk is changed: a start that is refused must
/// not cost a segment each time somebody tries again.
pub(crate) fn replay(
    data: &Arc<dyn Medium>,
    options: WalOptions,
    vault: &Vault,
    rebuild: Rebuild,
    from: Option<ReplayFrom>,
    believe: &dyn Fn(&State) -> Result<(), ClockStep>,
) -> Result<(Index, Rebuild, Wal), OpenError> {
    type Refusal = Box<dyn std::error::Error + Send + Sync>;
    let index = Index::new();
    let known: Vec<BatchId> = rebuild.table.batches().map(|batch| batch.id).collect();
    let table = Arc::clone(&rebuild.table);
    // Two closures use it, never at the same time.
    let rebuild = RefCell::new(rebuild);
    let mut unbelieved = None;
    let wal = thread::scope(|scope| {
        let indexing = scope.spawn(|| known.iter().try_for_each(|id| index_one(&index, &table, *id)));
        let wal = Wal::open_if::<Refusal>(
            Arc::clone(data),
            options,
            from,
            &mut |record| Ok(rebuild.borrow_mut().record(vault, &record)?),
            &mut || {
                believe(&rebuild.borrow().state).map_err(|step| {
                    unbelieved = Some(step);
                    step.into()
                })
            },
        );
        indexing.join().expect("building the index does not panic")?;
        Ok::<_, OpenError>(wal)
    })?;
    let wal = match (wal, unbelieved) {
        (Err(_), Some(step)) => return Err(step.into()),
        (wal, _) => wal?,
    };
    let rebuild = rebuild.into_inner();
    for batch in rebuild.table.batches() {
        if !known.contains(&batch.id) {
            index_one(&index, &rebuild.table, batch.id)?;
        }
    }
    Ok((index, rebuild, wal))
}

fn index_one(index: &Index, table: &Table, id: BatchId) -> Result<(), OpenError> {
    let batch = table.batch(id).expect("listed from the table");
    let io = |source| OpenError::Io { what: "reading a batch's digests", source };
    match index_batch(index, table, &batch.file, id).map_err(io)?.first() {
        Some(duplicate) => Err(OpenError::DuplicateCard { batch: id, row: duplicate.row }),
        None => Ok(()),
    }
}

/// Removes the files of imports that no record committed.
pub(crate) fn remove_orphans(medium: &dyn Medium, table: &Table) -> io::Result<()> {
    let mut removed = false;
    for name in medium.list(batch::DIRECTORY)? {
        let number = name.strip_suffix(".batch").and_then(|number| number.parse().ok());
        let committed = number.is_some_and(|number| table.batch(BatchId(number)).is_some());
        let ours = number.is_some() || name.ends_with(STAGING_SUFFIX);
        if ours && !committed {
            medium.remove(&format!("{}/{name}", batch::DIRECTORY))?;
            removed = true;
        }
    }
    if removed { medium.sync_dir(batch::DIRECTORY) } else { Ok(()) }
}
