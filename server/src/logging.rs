//! What is logged, and how: one line an event on standard error, as text or as JSON.
//!
//! Nothing here or below logs a code, a PIN or a key, at any level; `tests/process/secrets.rs` searches
//! the output of a real server for them. Nothing is logged per command.

use std::io::IsTerminal;

use crate::exit::Failure;
use clap::ValueEnum;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

/// How a line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people: time, level, target, message, fields.
    #[default]
    Text,
    /// For collectors: one object a line with timestamp, level, target, message and the fields.
    Json,
}

/// The running log, whose level can be changed.
pub struct Logging(reload::Handle<EnvFilter, Registry>);

impl Logging {
    /// Begins to log what `filter` lets through.
    pub fn start(filter: EnvFilter, format: Format) -> Logging {
        let (filter, handle) = reload::Layer::new(filter);
        let lines = fmt::layer().with_writer(std::io::stderr);
        let lines = match format {
            Format::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
            Format::Json => lines.json().flatten_event(true).with_current_span(false).boxed(),
        };
        tracing_subscriber::registry().with(filter).with(lines).init();
        Logging(handle)
    }

    /// For a command that is no server: what `KAMI_LOG` says, or warnings.
    pub fn of_a_client() -> Result<(), Failure> {
        let said = std::env::var_os("KAMI_LOG").unwrap_or_default();
        let said = if said.is_empty() { "warn".to_owned() } else { said.to_string_lossy().into_owned() };
        let filter = parse_filter(&said)
            .map_err(|wrong| Failure::usage(format!("KAMI_LOG is `{said}`: {wrong}")))
            .map(|text| filter(&text))?;
        let lines = fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal())
            .with_target(false);
        tracing_subscriber::registry().with(filter).with(lines).init();
        Ok(())
    }

    /// Logs what `filter` lets through from now on.
    pub fn set(&self, filter: EnvFilter) {
        // It fails only when there is no subscriber any more, and then nothing is logged anyway.
        let _ = self.0.reload(filter);
    }
}

/// Reads a level (`info`) or a list of them by target (`info,kami_net=debug`).
pub fn parse_filter(text: &str) -> Result<String, String> {
    let words: Vec<&str> = text.split(',').map(str::trim).collect();
    let text = words.join(",");
    // Any word passes for the name of a target, and would then switch everything on for it alone.
    let level =
        |word: &str| word.contains('=') || word.parse::<tracing::level_filters::LevelFilter>().is_ok();
    if words.iter().all(|word| !word.is_empty() && level(word)) && EnvFilter::builder().parse(&text).is_ok() {
        return Ok(text);
    }
    Err("it is no level (error, warn, info, debug, trace, off), alone or by target as in info,kami_net=debug"
        .to_owned())
}

/// The filter that [`parse_filter`] found good.
pub fn filter(text: &str) -> EnvFilter {
    EnvFilter::new(text)
}

#[cfg(test)]
mod tests {
    use super::parse_filter;

    #[test]
    fn levels_are_checked() {
        for good in ["info", "DEBUG", "off", "info,kami_net=debug", "warn, quinn=trace"] {
            assert!(parse_filter(good).is_ok(), "{good}");
        }
        for bad in ["", "verbose", "info,", "kami_net=loud"] {
            assert!(parse_filter(bad).is_err(), "{bad}");
        }
    }
}
