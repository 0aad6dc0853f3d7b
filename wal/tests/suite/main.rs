//! The tests of the log as a whole. Each module is one way in which storage or a machine misbehaves.

mod basics;
mod power_cut;
mod world;
