//! Backups of a store at work, and stores restored from them to any point: the oracle knows what must be there.

use kami_engine::{Backup, BackupError, Engine, IdentityError, Lsn, OpenError, Until, backup};
use kami_wal::{Medium, SimMedium, SimMode};

use super::restart::End;
use super::workload::{ADMIN, SELLERS};
use super::world::World;
use crate::ask::{Ask, What};
use kami_tests::binaries::whole;
use kami_tests::random::for_seeds;

fn to_end(out: &SimMedium) -> Backup {
    Backup::open(std::sync::Arc::new(out.clone())).expect("a complete backup")
}

fn damaged(out: &SimMedium) -> Vec<String> {
    to_end(out).damaged_files().into_iter().map(|damaged| damaged.file).collect()
}

impl World {
    /// Brings the backup up to date while the engine has work under way.
    fn back_up(&mut self, out: &SimMedium) {
        let report = backup(&self.medium, out, &mut |_| ()).expect("a store at work can be backed up");
        assert!(report.manifest.end <= self.engine().durable_end(), "a backup of what may still be lost");
        assert!(report.before <= Some(report.manifest.end));
        assert_eq!(damaged(out), Vec::<String>::new());
        if report.before.is_some() && report.files_written == 0 {
            *self.met.entry("backup of nothing new".to_owned()).or_default() += 1;
        }
    }

    /// Restores a backup to `until` on a new disk and holds what comes out against the oracle at that point.
    fn restore_and_check(&mut self, out: &SimMedium, until: Until) {
        let backup = to_end(out);
        let point = match backup.point(until) {
            Err(BackupError::BeforeStart { .. }) => return,
            point => point.expect("a point in the backup"),
        };
        let data = SimMedium::new(self.random.next(), SimMode::Direct);
        let target: std::sync::Arc<dyn Medium> = std::sync::Arc::new(data.clone());
        let report = backup.restore(&target, point.clone(), 1).expect("a backup can be restored");
        assert!(backup.manifest().epoch < report.epoch, "another history has another epoch");
        for name in ["lookup.key", "master.key", "ring"] {
            let file = data.create(name).expect("a key file");
            file.write_at(0, &self.medium.bytes(name)).and_then(|()| file.sync()).expect("the keys");
        }
        data.sync_dir("").expect("the disk is on");

        let mut restored = self.beside(data);
        let lost = restored.take_what_survived();
        for (index, event) in self.log.iter().enumerate().filter(|(_, event)| event.lsn.is_some()) {
            let kept = event.lsn < Some(point.end.bytes());
            assert_eq!(kept, index < restored.log.len(), "effect {index} and the point {point:?}");
            match until {
                Until::Lsn(lsn) => assert!(!kept || event.lsn < Some(lsn.bytes()), "beyond {lsn}"),
                Until::TimeMs(ms) => assert!(!kept || event.time_ms <= ms, "later than {ms}"),
                Until::End => assert!(point.dropped.entries.is_empty()),
            }
        }
        let dropped = point.dropped.entries.values().sum::<u64>();
        assert!(dropped <= lost as u64, "more was left out than there was");
        let met = if dropped == 0 { "restored to the end" } else { "restored to an earlier point" };
        *self.met.entry(met.to_owned()).or_default() += 1;

        let hash = restored.verify_offline();
        restored.engine = Some(Engine::open(restored.options(false)).expect("a restored store opens"));
        assert_eq!(restored.engine().state_hash(), hash);
        let engine = restored.engine.take().expect("just opened");
        restored.opened(engine);
        restored.audit();
        for _ in 0..10 {
            restored.step();
        }
        if dropped > 0 {
            // What it does from here on is another history.
            restored.execute(&[Ask::new(1, SELLERS[0], What::Fetch { order: 0, from: 0, count: 0 })]);
            assert!(restored.drive());
            let refused = kami_engine::backup(&restored.medium, out, &mut |_| ());
            assert!(matches!(refused, Err(BackupError::OtherHistory { .. })), "{refused:?}");
        }
        restored.restart_for_good(End::Kill);
    }

    /// A new master key, while everything goes on.
    fn rotate_keys(&mut self) {
        let id = kami_engine::RequestId(u128::from(self.random.next()));
        let reply = self.engine().rotate_master(ADMIN, id).expect("the disk is on");
        self.oracle.now_ms = self.due_ms().unwrap_or(self.oracle.now_ms);
        assert_eq!((reply.status, reply.time_ms), (kami_engine::Status::Ok, self.oracle.now_ms));
        let again = self.engine().rotate_master(ADMIN, id).expect("the disk is on");
        assert_eq!(again.lsn, reply.lsn, "the same request is the same rotation");
        self.settle();
    }

    fn some_point(&mut self, out: &SimMedium) -> Until {
        let manifest = to_end(out).manifest().clone();
        let (first, end) = (manifest.first.bytes(), manifest.end.bytes());
        match self.random.below(10) {
            0 => Until::End,
            1..4 if !self.log.is_empty() => Until::TimeMs(self.random.pick(&self.log).time_ms),
            _ => {
                let lsn = first + self.random.below(end - first + 1) / 8 * 8;
                Until::Lsn(Lsn::from_bytes(lsn).expect("a position"))
            }
        }
    }
}

/// A backup taken at any moment is a state the store was in, and so is what is restored to any point of it.
#[test]
fn any_point_of_any_backup_is_a_state_that_was() {
    for_seeds(&whole("model::backup::any_point_of_any_backup_is_a_state_that_was"), 60, |seed, verbose| {
        let mode = if seed % 2 == 0 { SimMode::Direct } else { SimMode::Mapped };
        let mut world = World::new(seed, mode, 64 << 10);
        world.verbose = verbose;
        let out = SimMedium::new(!seed, SimMode::Direct);
        world.stock_up();
        assert!(world.drive());
        for _ in 0..3 {
            for _ in 0..80 {
                assert!(world.step());
                if world.random.percent(6) {
                    world.back_up(&out);
                }
                if world.random.percent(3) {
                    assert!(world.drive());
                    world.rotate_keys();
                }
            }
            world.back_up(&out);
            let until = world.some_point(&out);
            world.restore_and_check(&out, until);
            let end = if world.random.percent(50) { End::PowerCut } else { End::Kill };
            world.restart_for_good(end);
        }
    });
}

/// A store with a backup that is behind it.
fn behind() -> (World, SimMedium) {
    let mut world = World::new(3, SimMode::Direct, 64 << 10);
    let out = SimMedium::new(4, SimMode::Direct);
    world.stock_up();
    assert!(world.drive());
    world.back_up(&out);
    for _ in 0..200 {
        world.step();
    }
    assert!(world.drive());
    (world, out)
}

/// The machine that holds the backup loses its power at any operation of a run: the backup before is still
/// there, or the new one is, and the next run completes it.
#[test]
fn a_run_that_is_cut_short_leaves_the_backup_before_it() {
    let (world, first) = behind();
    let old = to_end(&first).manifest().clone();
    let mut cuts = 0;
    for empty in [true, false] {
        for nth in 1.. {
            let out = if empty { SimMedium::new(nth, SimMode::Direct) } else { first.crash(nth) };
            out.cut_power_at(nth);
            let run = backup(&world.medium, &out, &mut |_| ());
            let left = out.crash(nth);
            match Backup::open(std::sync::Arc::new(left.clone())) {
                Ok(backup) => {
                    assert_eq!(damaged(&left), Vec::<String>::new(), "cut at {nth}");
                    let whole = !empty && *backup.manifest() == old || backup.manifest().end > old.end;
                    assert!(whole, "cut at {nth}");
                    backup.point(Until::End).expect("a whole log");
                }
                Err(error) => {
                    assert!(empty && matches!(error, BackupError::Incomplete), "cut at {nth}: {error}");
                    let files = left.list("").unwrap();
                    let refused = Engine::open(kami_engine::EngineOptions {
                        data: std::sync::Arc::new(left.clone()),
                        ..world.options(false)
                    });
                    // But for the very first file, which says nothing yet.
                    let nothing = refused.is_err() || files.iter().all(|name| name == "identity.new");
                    assert!(nothing, "cut at {nth}: taken for a store");
                    if refused.is_ok() {
                        continue;
                    }
                }
            }
            let report = backup(&world.medium, &left, &mut |_| ()).expect("the next run goes on");
            assert!(report.manifest.end > old.end);
            assert_eq!(damaged(&left), Vec::<String>::new());
            cuts += 1;
            if run.is_ok() {
                assert!(!out.is_cut());
                break;
            }
        }
    }
    assert!(cuts > 30, "only {cuts} cuts");
}

/// A directory in which a restore was cut short is no store.
#[test]
fn a_restore_that_is_cut_short_is_never_taken_for_a_store() {
    let (world, out) = behind();
    let backup = to_end(&out);
    for nth in 1.. {
        let data = SimMedium::new(nth, SimMode::Direct);
        data.cut_power_at(nth);
        let target: std::sync::Arc<dyn Medium> = std::sync::Arc::new(data.clone());
        let point = backup.point(Until::End).unwrap();
        if backup.restore(&target, point, 1).is_ok() {
            assert!(nth > 20, "only {nth} operations");
            break;
        }
        let left = data.crash(nth);
        let files = left.list("").unwrap();
        let opened = Engine::open(kami_engine::EngineOptions {
            data: std::sync::Arc::new(left.clone()),
            ..world.options(false)
        });
        match opened {
            Err(OpenError::Identity(IdentityError::Restoring)) => {}
            Err(OpenError::Identity(IdentityError::NotAStore { found })) => {
                assert_eq!(found, "restoring.new")
            }
            // Cut before the first name was durable, or after the last was.
            Err(error) => panic!("cut at {nth}: {error}"),
            Ok(_) if files.iter().any(|name| name == "store") => {}
            Ok(_) => assert!(files.iter().all(|name| name == "restoring.new"), "cut at {nth}: {files:?}"),
        }
    }
}

/// What is wrong with a backup is named, and it is not restored.
#[test]
fn a_damaged_backup_is_named() {
    let (_, out) = behind();
    let manifest = to_end(&out).manifest().clone();
    for file in &manifest.files {
        for at in [9, file.bytes as usize / 2, file.bytes as usize - 1] {
            let out = out.kill();
            out.edit(&file.path(), |bytes| bytes[at] ^= 1);
            assert_eq!(damaged(&out), [file.path()]);
            let target: std::sync::Arc<dyn Medium> = std::sync::Arc::new(SimMedium::new(1, SimMode::Direct));
            let backup = to_end(&out);
            let outcome = backup.point(Until::End).and_then(|point| backup.restore(&target, point, 1));
            assert!(outcome.is_err(), "{} restored with byte {at} changed", file.path());
        }
    }
    out.edit("manifest", |bytes| bytes[20] ^= 1);
    assert!(matches!(Backup::open(std::sync::Arc::new(out)), Err(BackupError::Damaged { .. })));
}
