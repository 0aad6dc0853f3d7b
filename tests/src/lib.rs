//! Campaigns: the tests of this repository at another scale, and what each of them must notice.
//!
//! The tests themselves know how to run over any seeds (`KAMI_SEED_FROM`, `KAMI_SEEDS`) and to name the one that
//! failed. Here is what starts them: [`rows`] lists the rows of the table in `docs/testing.md`, [`runner`] runs one of
//! them on several processes until a number of seeds, a time or a failure is reached, [`report`] writes down what was
//! run, and [`planted`] makes the known mistakes and demands that the tests notice.
//!
//! What tests of several crates need stands here too, once: [`random`], the seeds, [`history`], which decides whether
//! what clients were told can be explained, and [`timing`], which decides whether replies can be told apart by how long
//! they take. All else that a test needs it says in its own crate.

pub mod binaries;
pub mod history;
pub mod planted;
pub mod random;
pub mod report;
pub mod rows;
pub mod runner;
pub mod timing;
