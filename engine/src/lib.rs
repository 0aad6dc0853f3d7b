//! kami-engine: cards, batches, orders. Knows no sockets.

mod command;
mod engine;
mod product;
pub mod record;
mod status;
mod vault;
mod word;

pub use command::*;
pub use engine::{CodeError, Engine, Poisoned, Work};
pub use product::{CardKind, Money, Product, ProductSpec};
pub use status::{Class, Status};
pub use vault::CodeList;
pub use word::{CardRef, Flags, Lifecycle, Word};
