//! Tests with real processes: the `kami` binary as people start it, on ports the system chooses.
//!
//! Nothing here waits for a length of time: a server is ready when its ready line comes, and a process is
//! over when it has ended.

mod backup;
mod certificate;
mod changes;
mod clock;
mod commands;
mod control;
mod crowd;
mod demo;
mod environment;
mod feed;
mod files;
mod full_disk;
mod history;
mod import;
mod inject;
mod json;
mod kill;
mod migrate;
mod money;
mod pairs;
mod people;
mod proof;
mod reply_times;
mod sandbox;
mod secrets;
mod service;
mod settings;
mod shared;
mod store;
mod tenants;
mod tills;
mod top_up;
mod upkeep;
mod value;
mod watch;
