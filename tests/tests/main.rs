//! The integration tests of Kami: whole engines, whole processes.

#![allow(missing_docs, reason = "the tests' own types are not an interface")]

mod ask;
mod faults;
mod fixtures;
mod golden;
mod history;
mod house;
mod model;
mod planted;
#[cfg(shuttle)]
mod schedules;
mod storage;
mod threads;
