//! Looking after a store: snapshots and verification, backups, rotation of the master key.

mod backup;
mod checkpoint;
#[path = "../clock/mod.rs"]
mod clock;
mod rotation;
mod store;
