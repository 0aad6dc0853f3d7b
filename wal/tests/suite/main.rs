//! The tests of the log as a whole. Each module is one way in which storage or a machine misbehaves.
#![cfg(not(loom))]

mod basics;
mod crash_points;
mod cursor;
mod damage;
mod decoder;
mod disk;
mod disk_full;
mod failing_sync;
mod golden;
mod in_use;
mod power_cut;
mod recovery_table;
mod threads;
mod world;
