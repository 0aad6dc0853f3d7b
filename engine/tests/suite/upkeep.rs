//! Looking after a store: snapshots and verification, backups, rotation of the master key.

mod backup;
mod checkpoint;
mod rotation;
mod store;
