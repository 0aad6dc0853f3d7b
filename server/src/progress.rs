//! How far long work is: a bar on a terminal, a line now and then elsewhere. On standard error, always.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::output::count;

/// Before the first line, and between the first two; doubled from line to line.
const LINE_AFTER: Duration = Duration::from_secs(1);
const LINE_AFTER_MAX: Duration = Duration::from_secs(10);

/// What is counted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Bytes,
    Cards,
}

/// The progress of one piece of work.
pub struct Progress {
    what: &'static str,
    unit: Unit,
    total: u64,
    bar: Option<ProgressBar>,
    /// When the first step was told of, and where it was: what was done before does not count as speed.
    begun: Option<(Instant, u64)>,
    next_line: Instant,
    pause: Duration,
}

impl Progress {
    pub fn new(what: &'static str, unit: Unit, total: u64) -> Progress {
        let bar = std::io::stderr().is_terminal().then(|| {
            let numbers = match unit {
                Unit::Bytes => "{bytes}/{total_bytes}, {bytes_per_sec}",
                Unit::Cards => "{human_pos}/{human_len} cards, {per_sec}",
            };
            let style =
                ProgressStyle::with_template(&format!("{{msg}} {{wide_bar}} {numbers}, {{eta}} left"));
            let bar = ProgressBar::new(total).with_message(what);
            match style {
                Ok(style) => bar.with_style(style),
                Err(_) => bar,
            }
        });
        let next_line = Instant::now() + LINE_AFTER;
        Progress { what, unit, total, bar, begun: None, next_line, pause: LINE_AFTER }
    }

    /// Says how far it is.
    pub fn at(&mut self, position: u64) {
        let now = Instant::now();
        let (begun, first) = *self.begun.get_or_insert_with(|| {
            if let Some(bar) = &self.bar {
                bar.set_position(position);
                bar.reset_eta();
            }
            (now, position)
        });
        if let Some(bar) = &self.bar {
            bar.set_position(position);
        } else if now >= self.next_line {
            let rate = (position - first.min(position)) as f64 / (now - begun).as_secs_f64().max(0.001);
            eprintln!("{}", line(self.what, self.unit, position, self.total, rate));
            self.pause = (2 * self.pause).min(LINE_AFTER_MAX);
            self.next_line = now + self.pause;
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn line(what: &str, unit: Unit, position: u64, total: u64, rate: f64) -> String {
    let left = if rate >= 1.0 {
        format!("{} s left", count((total.saturating_sub(position) as f64 / rate).ceil() as u64))
    } else {
        "no end in sight".to_owned()
    };
    match unit {
        Unit::Cards => {
            format!("{what}: {} of {} cards, {}/s, {left}", count(position), count(total), count(rate as u64))
        }
        Unit::Bytes => {
            let mib = |bytes: u64| count(bytes >> 20);
            format!("{what}: {} of {} MiB, {} MiB/s, {left}", mib(position), mib(total), mib(rate as u64))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_far_how_fast_and_how_long() {
        assert_eq!(
            line("importing", Unit::Cards, 1_200_000, 10_000_000, 500_000.0),
            "importing: 1,200,000 of 10,000,000 cards, 500,000/s, 18 s left"
        );
        assert_eq!(
            line("checking", Unit::Bytes, 10 << 20, 20 << 20, 5e6),
            "checking: 10 of 20 MiB, 4 MiB/s, 3 s left"
        );
        assert!(line("importing", Unit::Cards, 0, 10, 0.0).ends_with("no end in sight"));
    }
}
