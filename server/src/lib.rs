//! Reading what suppliers send: card files of many forms, and the amounts and dates in them.
//!
//! The `kami` binary is built on this; the load generator imports a real file through it.

pub mod card_file;
pub mod ids;
pub mod money;
pub mod time;

pub use card_file::{CardFile, CardFileError, CardRows, ReadOptions};
