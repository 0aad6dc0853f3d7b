//! Power cuts at any moment, also while recovering from one.

use kami_wal::SimMode;

use crate::world::{World, for_seeds};

fn run(seed: u64, mode: SimMode) {
    let mut world = World::new(seed, mode);
    world.recover();
    for _ in 0..4 {
        if world.random.percent(70) {
            let soon = world.medium.operations() + 1 + world.random.below(60);
            world.medium.cut_power_at(soon);
        }
        for _ in 0..20 + world.random.below(150) {
            if !world.step() {
                break;
            }
        }
        if world.random.percent(20) && !world.medium.is_cut() {
            // A killed process: the machine goes on.
            world.wal = None;
            world.medium = world.medium.kill();
        } else {
            world.crash();
        }
        world.recover();
    }
}

/// Everything below the last reported durable end is there, byte for byte; what is there beyond is a
/// prefix of what was appended.
#[test]
fn nothing_acknowledged_is_lost_direct() {
    for_seeds("power_cut::nothing_acknowledged_is_lost_direct", 200, |seed| run(seed, SimMode::Direct));
}

#[test]
fn nothing_acknowledged_is_lost_mapped() {
    for_seeds("power_cut::nothing_acknowledged_is_lost_mapped", 200, |seed| run(seed, SimMode::Mapped));
}
