//! The wire.
pub mod client;
mod connection;
mod desk;
mod error;
pub mod frame;
mod outbox;
mod registry;
mod server;
mod stream;
pub mod tls;
mod transport;

pub use client::{Client, ClientOptions};
pub use error::{ClientError, ErrorKind, IdentityError, ServerError};
pub use server::{Server, ServerOptions};
pub use tls::{Authority, Identity};
