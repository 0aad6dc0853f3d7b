//! Server and client over the loopback interface, on a simulated disk.

mod durability;
mod hostile;
mod house;
mod lifetime;
mod money;
mod people;
mod router;
mod trade;
mod watched;
