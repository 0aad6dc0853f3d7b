//! kami-wal: makes opaque bytes durable, in order. Knows no cards.

mod lsn;
pub use lsn::Lsn;
