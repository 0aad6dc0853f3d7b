//! The model: an engine on a simulated disk and an oracle that knows what every reply must be, through
//! crashes, kills, clock steps and full disks.
//!
//! | file | what |
//! |---|---|
//! | `oracle.rs` | what a store must hold; events and their effect |
//! | `rules.rs`, `object_rules.rs`, `value_rules.rs`, `pair_rules.rs` | what the reply to every command must be |
//! | `order_rules.rs` | the same for orders, their lists (`list.rs`), and what becomes of them (`change.rs`) |
//! | `till_rules.rs` | the same for wrong PINs and for requests without an answer |
//! | `control_rules.rs` | the same for proposals and approvals |
//! | `money_rules.rs` | the same for accounts, postings and limits |
//! | `expected.rs` | holding a reply against that |
//! | `world.rs` | engine, disk and oracle together; when a reply may leave |
//! | `imports.rs` | imports beside the oracle |
//! | `restart.rs` | ends of process and machine; what must survive; the invariants |
//! | `follow.rs` | who follows the log, and the totals, beside the oracle |
//! | `workload.rs` | what is asked, by seed: of cards, orders and money, other objects, and with two people |
//! | `backup.rs` | backups at any moment, restored to any point |
//! | `proof.rs` | signed checkpoints and proofs, through crashes |
//!
//! ```text
//! cargo test -p kami-tests                      200 seeds a disk
//! KAMI_SEEDS=5000 cargo test -p kami-tests -- model::runs
//! KAMI_SEED=17 cargo test -p kami-tests -- --exact model::runs::direct --nocapture
//! ```

pub mod clock;
pub mod control_rules;
pub mod expected;
pub mod follow;
pub mod imports;
pub mod money_rules;
pub mod object_rules;
pub mod oracle;
mod order_rules;
mod pair_rules;
pub mod proof;
pub mod restart;
pub mod rules;
pub mod till_rules;
pub mod value_rules;
pub mod workload;
pub mod world;

mod backup;
mod runs;
