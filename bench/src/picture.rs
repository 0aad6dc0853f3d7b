//! `picture`: what `peers --json` measured as one picture: medians as bars from zero, and how far the rounds lay apart
//! as whiskers.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::args::Args;
use crate::svg::{Canvas, Hold, count, ticks, time};

/// One comparison: its title, the figures with their names, and how a figure is told.
struct Panel {
    title: &'static str,
    note: &'static str,
    rows: &'static [(&'static str, &'static str)],
    told: fn(f64) -> String,
}

const PANELS: [Panel; 4] = [
    Panel {
        title: "Durable redemptions a second, over the network",
        note: "more is better",
        rows: &[
            ("kami_quic_redeem", "Kami, 16 connections × 1,024"),
            ("kami_quic_terminals", "Kami, 64 tills × 16, one a write"),
            ("redis_always_p64", "Redis AOF always, 50 × 64"),
            ("redis_always_p16", "Redis AOF always, 50 × 16"),
            ("redis_always_p1", "Redis AOF always, 50 × 1"),
            ("redis_everysec_p64", "Redis AOF everysec, 50 × 64: not durable"),
            ("postgres_c64", "PostgreSQL, 64 clients"),
        ],
        told: count,
    },
    Panel {
        title: "Cards loaded a second",
        note: "more is better",
        rows: &[("kami_import", "Kami, CSV file, encrypted"), ("redis_load", "Redis, pipelined SET")],
        told: count,
    },
    Panel {
        title: "Back after SIGKILL",
        note: "less is better",
        rows: &[
            ("kami_recover_seconds", "Kami, snapshot and log"),
            ("redis_recover_seconds", "Redis, append-only file"),
        ],
        told: |seconds| time(seconds * 1e6),
    },
    Panel {
        title: "Latency of one redemption at a time",
        note: "median; less is better",
        rows: &[
            ("kami_latency_p50_us", "Kami over QUIC, durable"),
            ("echo_latency_p50_us", "an echo over QUIC"),
            ("fsync_p50_us", "a write to this disk"),
        ],
        told: time,
    },
];

const WIDTH: f64 = 860.0;
const LABELS: f64 = 290.0;
const VALUES: f64 = 70.0;
const ROW: f64 = 26.0;
const BAR: f64 = 15.0;
const HEAD: f64 = 34.0;
const GAP: f64 = 26.0;

/// Draws `--from` into `--out`.
pub fn draw(args: &Args) -> Result<()> {
    let from = args.from.as_deref().context("--from FILE: the result of `kami-bench peers --json`")?;
    let text = fs::read_to_string(from).with_context(|| format!("cannot read {}", from.display()))?;
    let result: Value =
        serde_json::from_str(text.trim()).with_context(|| format!("{} is no result", from.display()))?;
    ensure!(result["workload"] == "peers", "{} is no result of `kami-bench peers --json`", from.display());
    ensure!(result["errors"] == 0, "the run had errors: its figures count for nothing");
    let picture = picture(&result);
    fs::write(&args.out, picture).with_context(|| format!("cannot write {}", args.out.display()))
}

/// A figure of the result with its spread, if it was measured.
struct Figure {
    label: &'static str,
    ours: bool,
    median: f64,
    least: f64,
    most: f64,
}

fn figures(result: &Value, panel: &Panel) -> Vec<Figure> {
    let figure = |(name, label): &(&'static str, &'static str)| {
        let spread = &result[format!("spread_{name}")];
        let median = result[name].as_f64()?;
        let (least, most) = (spread["min"].as_f64()?, spread["max"].as_f64()?);
        Some(Figure { label, ours: name.starts_with("kami"), median, least, most })
    };
    panel.rows.iter().filter_map(figure).collect()
}

fn picture(result: &Value) -> String {
    let panels: Vec<_> = PANELS.iter().map(|panel| (panel, figures(result, panel))).collect();
    let panels: Vec<_> = panels.into_iter().filter(|(_, figures)| !figures.is_empty()).collect();
    let rows: usize = panels.iter().map(|(_, figures)| figures.len()).sum();
    let missing = result["missing"].as_array().map_or(0, Vec::len);
    let foot = 44.0 + if missing == 0 { 0.0 } else { 16.0 };
    let height = panels.len() as f64 * (HEAD + GAP) + rows as f64 * ROW + foot;
    let mut canvas = Canvas::new(WIDTH, height);
    let mut y = 16.0;
    for (panel, figures) in &panels {
        canvas.text(0.0, y, "title", Hold::Start, panel.title);
        canvas.text(WIDTH, y, "small", Hold::End, panel.note);
        y += HEAD - 16.0;
        let most = figures.iter().map(|figure| figure.most).fold(0.0, f64::max);
        let bottom = y + figures.len() as f64 * ROW;
        let ticks = ticks(most);
        let highest = ticks[ticks.len() - 1];
        let x = |value: f64| LABELS + (WIDTH - LABELS - VALUES) * value / highest;
        for tick in ticks.iter().filter(|tick| **tick <= highest) {
            canvas.line("grid", (x(*tick), y), (x(*tick), bottom));
            canvas.text(x(*tick), bottom + 13.0, "small", Hold::Middle, (panel.told)(*tick));
        }
        for figure in figures {
            let middle = y + ROW / 2.0;
            let told = format!(
                "{}: {} ({} to {})",
                figure.label,
                (panel.told)(figure.median),
                (panel.told)(figure.least),
                (panel.told)(figure.most)
            );
            canvas.text(LABELS - 10.0, middle + 4.5, "ink", Hold::End, figure.label);
            let class = if figure.ours { "bar" } else { "other" };
            let top = (LABELS, middle - BAR / 2.0);
            canvas.bar(class, top, (x(figure.median) - LABELS).max(1.0), BAR, &told);
            let (least, most) = (x(figure.least), x(figure.most));
            if 1.0 < most - least {
                canvas.line("whisker", (least, middle), (most, middle));
                for end in [least, most] {
                    canvas.line("whisker", (end, middle - 4.0), (end, middle + 4.0));
                }
            }
            let beside = x(figure.median).max(most) + 6.0;
            canvas.text(beside, middle + 4.5, "ink", Hold::Start, (panel.told)(figure.median));
            y += ROW;
        }
        y += GAP + 16.0;
    }
    let told = |name: &str| result[name].as_str().unwrap_or("?").to_owned();
    let number = |name: &str| result[name].as_u64().unwrap_or(0);
    y += 6.0;
    let rounds = number("rounds");
    let what = if rounds == 1 {
        "one round".to_owned()
    } else {
        format!("medians of {rounds} rounds in turn, whiskers from the lowest to the highest")
    };
    canvas.text(
        0.0,
        y,
        "small",
        Hold::Start,
        format!("{} cards; {what}; client included.", count(number("cards") as f64)),
    );
    canvas.text(
        0.0,
        y + 16.0,
        "small",
        Hold::Start,
        format!("{}, {}; commit {}", told("machine"), told("filesystem"), told("commit")),
    );
    if missing != 0 {
        let names: Vec<_> =
            result["missing"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        canvas.text(
            0.0,
            y + 32.0,
            "small",
            Hold::Start,
            format!("Not installed and not measured: {}", names.join(", ")),
        );
    }
    canvas.file("Kami beside Redis and PostgreSQL on one machine")
}
