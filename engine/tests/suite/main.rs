//! The engine through its public functions, over the simulated disk and over real ones.

mod advice;
mod control;
mod faults;
mod format_document;
mod grounds;
mod guesses;
mod imports;
mod life;
mod migration;
mod money;
mod orders;
mod pairs;
mod proof;
mod prover;
mod session;
mod shared;
mod store;
mod upkeep;
mod value;
