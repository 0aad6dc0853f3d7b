//! Storage that fails or fills up under a whole engine.
//!
//! After a failed sync nothing is acknowledged any more and nothing acknowledged is lost. A full disk
//! refuses changes with nothing changed, answers reads, and heals when there is room again.

use kami_engine::{Poisoned, Status, Work};
use kami_wal::SimMode;

use crate::ask::{Ask, What};
use crate::faults::used;
use crate::model::restart::End;
use crate::model::workload::OPERATOR;
use crate::model::world::World;
use crate::planted::{CODE, freeze, sold};
use kami_tests::binaries::whole;
use kami_tests::random::for_seeds;

/// Any of the syncs of a life fails.
#[test]
fn after_a_failed_sync_nothing_is_acknowledged_and_nothing_is_lost() {
    for_seeds(
        &whole("storage::after_a_failed_sync_nothing_is_acknowledged_and_nothing_is_lost"),
        200,
        |seed, verbose| {
            let mode = if seed % 2 == 0 { SimMode::Direct } else { SimMode::Mapped };
            let mut world = World::new(seed, mode, 64 << 10);
            world.verbose = verbose;
            world.stock_up();
            assert!(world.drive());
            world.medium.fail_sync_at(world.medium.syncs() + 1 + seed / 2 % 200);
            // Only commands: what else syncs may fail without ending the log.
            let failed = (0..400).any(|_| {
                let asks = world.some_asks();
                // Time is a record too: there is something to commit every time.
                world.clock.advance(100);
                world.execute(&asks);
                // The second time tells of a segment that could not be prepared the first time.
                let failed = world.engine().drive().is_err() || world.engine().drive().is_err();
                world.settle();
                failed
            });
            assert!(failed, "the failing sync was never reached");
            let (engine, durable_end) = (world.engine().clone(), world.engine().durable_end());
            let mut work = Work::default();
            for _ in 0..3 {
                work.requests = vec![freeze(u128::from(seed)).request(&engine, false)];
                engine.execute(&mut work);
                assert!(!work.replies[0].status.is_done(), "a change after a failed sync");
                assert_eq!(engine.drive(), Err(Poisoned));
                let all = kami_engine::Lsn::from_bytes(durable_end.bytes() + 8).expect("further on");
                assert_eq!(engine.wait_durable(all), Err(Poisoned));
                assert_eq!(engine.durable_end(), durable_end, "an acknowledgement after a failed sync");
            }
            drop((work, engine));
            // What the machine has in its caches is not to be trusted: it is switched off.
            world.restart_for_good(End::PowerCut);
        },
    );
}

/// A full disk, filled to the last byte, again and again.
#[test]
fn a_full_disk_refuses_changes_answers_reads_and_heals() {
    let mut world = sold(0);
    for round in 0..20u128 {
        world.tight = true;
        world.medium.set_capacity(Some(used(&world.medium)));
        let refusals = |world: &World| {
            let count = |what| world.met.get(what).copied().unwrap_or(0);
            count("freeze DISK_FULL") + count("unfreeze DISK_FULL")
        };
        let before = refusals(&world);
        let mut n = 0;
        while refusals(&world) == before {
            let id = round << 32 | n;
            let (on, off) = (freeze(2 * id + 2), What::Unfreeze { code: CODE.to_owned() });
            world.execute(&[on]);
            world.execute(&[Ask::new(2 * id + 3, OPERATOR, off)]);
            assert!(world.drive());
            n += 1;
            assert!(n < 5_000, "the log never fills up");
        }
        world.audit();
        assert!(world.met.get("query OK").is_some_and(|reads| *reads > 0), "reads are answered");
        if round % 4 == 3 {
            world.medium.set_capacity(None);
            world.restart_for_good(if round % 8 == 3 { End::Kill } else { End::PowerCut });
        }
        world.medium.set_capacity(None);
        world.tight = false;
        assert!(world.drive());
        let id = round << 32 | 1 << 31;
        world.execute(&[Ask::new(id, OPERATOR, What::Unfreeze { code: CODE.to_owned() })]);
        let status = world.oracle.decide(&freeze(id + 1), 1).0.status;
        assert_eq!(status, Status::Ok, "it heals");
        world.execute(&[freeze(id + 1)]);
        assert!(world.drive());
        world.execute(&[Ask::new(id + 2, OPERATOR, What::Unfreeze { code: CODE.to_owned() })]);
        assert!(world.drive());
    }
}
