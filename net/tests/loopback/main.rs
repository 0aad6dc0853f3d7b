//! Server and client over the loopback interface, on a simulated disk.

mod durability;
mod feed;
mod hostile;
mod house;
mod lifetime;
mod lossy;
mod money;
mod people;
mod proofs;
mod router;
mod top_up;
mod trade;
mod watched;
