//! Integration tests of Kami; see `docs/testing.md`.
