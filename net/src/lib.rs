//! kami-net: the binary QUIC protocol, server and client. Holds no card state.
//!
//! # The path of a request
//! ```text
//! server.rs      accept a connection; bound how many; prove the address under load
//! connection.rs  certificate -> key -> principal -> Caller; accept its streams
//! stream.rs      one task a stream: read what has arrived, many frames at once
//! frame/         bytes -> Request                        refuse: malformed, unknown, too large
//! desk.rs        role; code -> digest, and the plaintext ends; 64 requests -> Engine::execute
//! outbox.rs      encoded reply + the position the log must be durable to; wait; hand to QUIC
//! meter.rs       what is counted when it leaves
//! feed.rs        a stream that was turned into a feed: events of the log out, credit in
//! ```
//! **No byte of a reply reaches QUIC before the log is durable up to where it stood after the
//! decision**: successes, refusals and reads alike.
//!
//! # Architecture invariants
//! * `frame/` does no I/O and is the only place that knows bytes; it alone is fuzzed.
//! * Only `server`, `registry`, `connection`, `stream`, `feed`, `transport`, `tls` and the client touch quinn.
//! * A code is in memory here as bytes that were received and not yet decoded, as a carry buffer that is
//!   wiped, or as a reply to the order that owns it, which is wiped when it has been acknowledged. No
//!   `Debug`, trace or error shows one.
//! * Nothing that a peer sends can panic, or allocate more than the table below says.
//! * No lock is held and nothing is allocated per request on the way of a redemption; per batch of up
//!   to 64 there is one call of the engine, per commit of the log one wake-up a stream.
//!
//! # Builds with debug assertions
//! quinn-proto up to 0.11.19 asserts what does not hold after a peer's address has changed and fallen silent (quinn
//! issue 2658), and the panic ends the process. Release builds go on; others turn that crate's assertions off, as this
//! workspace does: `[profile.dev.package.quinn-proto] debug-assertions = false`.
//!
//! # The stream model
//! Few long-lived bidirectional streams; many frames a write; one reply a frame, in order per stream. A
//! stream is one task with three waits in one poll (bytes to read, the log, room to write). A command
//! that waits for the disk itself (the imports) runs on a thread of its own, four at a time, of which one
//! may be the commit of an import, and the stream takes nothing in until it is done, so order holds. A stream may carry one request and end.
//!
//! # Limits, and the worst they allow
//! | What a peer can make the server keep | wide | narrow |
//! |---|---:|---:|
//! | unread bytes of a connection (QUIC's receive window); what they keep in memory stands below | 2 MiB | 128 KiB |
//! | sent and not acknowledged (send window) | 2 MiB | 128 KiB |
//! | streams, each with a frame that is not complete: 4 KiB; 128 KiB for REDEEM_BATCH; 1 MiB for IMPORT_CHUNK | 32 | 8 |
//! | replies waiting for the log or their reader, all streams | 2 MiB, or 64 KiB and one reply a stream | the same |
//! | of a reply with codes that QUIC has begun to take, what it took: it is wiped as a whole | 1 MiB a stream | the same |
//! | replies waiting, of all connections | 256 MiB, or one batch a stream | the same |
//! | feeds, each with a stretch of the log (256 KiB, or one record) and a frame of 64 KiB | 16 a principal, 64 in all | the same |
//!
//! Connections are wide while there are few: the first 16 of a principal, up to 128 in all.
//!
//! A frame's bytes are kept as they come, never by the length it announces, and one that is longer than
//! its opcode or the sender's role allows is stepped over. So a peer without a valid certificate costs
//! the bounded state of a handshake (at most 1,024 wait, 256 are under way, 64 of them from one address, and
//! from 64 on a new one must first prove its address; a new one that finds no place takes that of the oldest, so those
//! that fall silent keep nobody out, and at most some 4,000 that are closed wait for QUIC to forget them); an enrolled
//! till that is out to do harm costs some 8 MiB for a wide connection and 1.3 MiB for a narrow one, beside long replies and what unread bytes keep; the worst that 1,024 of them can do together is
//! about 2.5 GiB, and one principal's 256 connections some 700 MiB. Only issuers can send longer frames. Replies that a
//! peer takes none of for 30 seconds end its connection with TOO_SLOW.
//!
//! Long replies: a batch ends with the first request that may be answered at length, so a stream that may get more gets one
//! such reply, of up to 1 MiB, and not 64. Codes wait as a list of cards; none are decrypted while as much as the stream
//! may keep is ready and not taken. How much is in the clear is [`ServerFigures::clear_codes_bytes`]. Who may list as much,
//! or owns an order of thousands of cards, can have one such reply wait on every stream: 32 MiB for a wide connection, 8 MiB
//! for a narrow one, 2.4 GiB for one principal's 256 connections; twice that with one of codes that each stream has begun to take.
//! Replies are counted by their length: the buffer of lists may be twice as long, and that of a few codes has 1 KiB to spare at most.
//!
//! What unread bytes keep: a piece of a stream is a part of what the kernel handed over together, up to 64 datagrams or 64 KiB,
//! and keeps all of it. QUIC counts its datagram, and copies pieces together once their datagrams are more than two and a half
//! times the unread bytes, and 32 KiB a stream more. So a peer whose datagrams carry little but padding can make a window keep 64
//! times that: as reckoned, not measured, 320 MiB for a wide connection and 24 MiB for a narrow one. The pieces that a stream
//! has taken from QUIC, up to 16, are copied into one as soon as they have to wait; a single one keeps its 64 KiB.
//!
//! Defaults, bounds and costs stand at each field of [`ServerOptions`].
//!
//! Overload: when the log has no room, streams wait for it before executing, and flow control passes the
//! wait on to the clients; nothing piles up.
//!
//! # Why 0-RTT is off
//! Early data can be replayed by whoever saw it, and a replayed sale would be a double sale to anyone
//! who did not look at request ids. The engine does look, but no reason is good enough to rest the first
//! promise on one check: 0-RTT is off on both sides, and so are the session tickets it needs.
//!
//! # How to use the client
//! `examples/till.rs` redeems with a journal, as a till must; `examples/wholesaler.rs` sells under an
//! order number and fetches it again; `examples/bulk.rs` keeps thousands of requests under way. All
//! run against `kami serve --sandbox`.
//!
//! ```no_run
//! use kami_net::{Client, ClientOptions, Identity};
//!
//! # async fn redeem() -> Result<(), Box<dyn std::error::Error>> {
//! let identity = Identity::load("kami-sandbox.keys/redeemer".as_ref())?;
//! let client = Client::connect(ClientOptions::new("127.0.0.1:7400".parse()?, identity)).await?;
//! let receipt = client.redeem(b"SOLD-0001", Default::default()).await?;
//! println!("redeemed {} minor units", receipt.value.amount);
//! # Ok(())
//! # }
//! ```
//!
//! # What becomes of a stranded reply
//! A reply whose connection is lost is dropped here; its effect stands in the log. The client does not
//! know the outcome, sends the same request with the same id, and gets the first effect's reply
//! ([`Client`] does so by itself). REVERSE resolves it the other way round. Nothing on the server
//! remembers connections: any connection of the same principal, to a restarted server too, will do.
//!
//! # Shutdown
//! [`Server::shutdown`]: new peers are refused, streams read no more, what was decided is made durable
//! and delivered until its peer acknowledges it, at most [`ServerOptions::drain`], then connections close
//! with SHUTTING_DOWN. What was received and not decided is dropped, and its client sends it again. When
//! the log fails, nothing more is sent, connections close with LOG_FAILED, and [`Server::serve`] returns
//! the error that must end the process. After a crash, QUIC's reset and connection-id keys (derived from
//! the server's private key) let the restarted server end its predecessor's connections at once.

pub mod frame;

mod certificate;
pub mod client;
mod connection;
mod desk;
mod error;
mod feed;
mod gather;
mod guesses;
mod meter;
mod outbox;
mod registry;
pub mod server;
mod stream;
pub mod tls;
mod transport;

pub use certificate::{Certificate, CertificateFacts, LIFETIME_DAYS, LIFETIME_DAYS_MAX, SubjectKey};
pub use client::{Client, ClientOptions};
pub use error::{ClientError, ErrorKind, IdentityError, ServerError};
pub use guesses::MissLimits;
pub use meter::{Refusal, ServerFigures};
pub use server::{Server, ServerOptions};
pub use tls::{Authority, Identity, Validity};
