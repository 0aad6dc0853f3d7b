//! Codes at rest and in flight.

/// Cards whose codes a caller may read once the reply that carries this list is durable.
#[derive(Debug)]
pub struct CodeList {
    /// Cards of the order in all that still belong to it.
    pub total: u32,
    /// Which of them is the first here.
    pub from: u32,
    /// How many are here.
    pub count: u32,
}
