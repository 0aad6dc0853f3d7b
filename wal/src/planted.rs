//! Mistakes that are planted on purpose, to see that a test notices them.
//!
//! A test that cannot fail shows nothing. Each place where one of the classical mistakes could be made asks
//! [`planted`] whether to make it; the crates above ask the same function. Without the feature `planted` the answer is a
//! constant `false` and the question costs nothing. With it, one build can make any of the mistakes: the variable
//! `KAMI_PLANTED` names the one to make, and without the variable there is none.
//!
//! `cargo run -p kami-tests -- planted` plants each in turn and demands that the test it is listed with fails.

/// Whether the mistake of this name is to be made in this process.
#[cfg(feature = "planted")]
#[must_use]
pub fn planted(mistake: &str) -> bool {
    use std::sync::OnceLock;
    static CHOSEN: OnceLock<Option<String>> = OnceLock::new();
    CHOSEN.get_or_init(|| std::env::var("KAMI_PLANTED").ok()).as_deref() == Some(mistake)
}

/// Whether the mistake of this name is to be made: never, in a build without the feature `planted`.
#[cfg(not(feature = "planted"))]
#[inline(always)]
#[must_use]
pub const fn planted(_mistake: &str) -> bool {
    false
}
