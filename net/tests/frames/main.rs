//! The codec from outside: golden bytes, round trips, hostile bytes, roles, and the document's tables.

mod document;
mod golden;
mod hostile;
mod roles;
mod round_trip;
mod samples;
