//! `--html`: a result as one page that loads nothing, for people: how long answers took, how much was answered in each
//! second, how long the slowest in a hundred took meanwhile, on what, with which settings.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;

use crate::report::{Latencies, Report};
use crate::svg::{Canvas, Hold, STYLE, count, escaped, memory, memory_ticks, ticks, time};

/// Of every chart, in pixels.
const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 72.0;
const RIGHT: f64 = 26.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 34.0;

/// What tells what the run was like, and so stands beside the figures and not among the settings.
const ON: [&str; 9] = [
    "machine",
    "filesystem",
    "commit_path",
    "durable",
    "commit",
    "seed",
    "load_before",
    "others_cpu",
    "server_cpu_seconds",
];
/// What the page shows above all else.
const SHOWN: [&str; 8] = ["workload", "ops", "ops_per_s", "p50_us", "p99_us", "p999_us", "errors", "series"];

const PAGE_STYLE: &str = "\
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1f2328; --soft: #656d76; --rule: #d0d7de; --bad: #b42318 }
@media (prefers-color-scheme: dark) { :root { --paper: #0d1117; --ink: #e6edf3; --soft: #8d96a0; --rule: #30363d; --bad: #ff7b72 } }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif }
main { max-width: 860px; margin: 0 auto; padding: 40px 24px 56px }
h1 { font-size: 26px; margin: 0 }
h2 { font-size: 15px; margin: 36px 0 8px }
p { margin: 4px 0; color: var(--soft) }
.bad { color: var(--bad) }
.figures { display: flex; flex-wrap: wrap; gap: 12px 40px; margin: 28px 0 8px; padding: 0 }
.figures div { min-width: 90px }
.figures dt { color: var(--soft); font-size: 13px }
.figures dd { margin: 0; font-size: 26px; font-weight: 600; font-variant-numeric: tabular-nums }
svg { display: block; width: 100%; height: auto; margin: 20px 0 0 }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
td { border-top: 1px solid var(--rule); padding: 5px 12px 5px 0; vertical-align: top; overflow-wrap: anywhere }
td:first-child { color: var(--soft); width: 32%; white-space: nowrap }
code { font: 13px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace }
";

/// Writes the page of a finished run.
pub fn write(report: &Report, path: &Path) -> Result<()> {
    std::fs::write(path, page(report)).with_context(|| format!("cannot write {}", path.display()))
}

fn page(report: &Report) -> String {
    let series = report.series();
    let mut charts = String::new();
    if let Some(latencies) = &report.measured_latencies {
        charts += &distribution(latencies);
    }
    if series.len() < 2 {
        charts += "<p>The run was too short to have a course: two seconds are the least.</p>\n";
    } else {
        let answers: Vec<_> = series.answers().into_iter().map(|answers| Some(answers as f64)).collect();
        charts += &course("Answers a second", &answers, ticks, count);
        charts += &course("99th percentile of each second", &series.percentiles_us(0.99), ticks, time);
        let resident: Vec<_> = report.resident_bytes.iter().map(|bytes| Some(*bytes as f64)).collect();
        if 2 <= resident.len() {
            charts += &course("Resident memory of the server", &resident, memory_ticks, memory);
        }
    }
    let fields = json!(report);
    let fields = fields.as_object().into_iter().flatten();
    let (mut settings, mut on) = (String::new(), String::new());
    let command: Vec<String> = std::env::args().skip(1).collect();
    settings += &row("command", &format!("kami-bench {}", command.join(" ")));
    for (name, value) in fields.filter(|(name, value)| !value.is_null() && !SHOWN.contains(&name.as_str())) {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        *if ON.contains(&name.as_str()) { &mut on } else { &mut settings } += &row(name, &text);
    }
    let workload = escaped(&report.workload);
    let verdict = match (report.errors, report.durable) {
        (0, Some(true)) => "<p>Every counted reply waited for the disk. No errors.</p>".to_owned(),
        (0, Some(false)) => "<p>Not durable: a limit, or a disk that forgets. No errors.</p>".to_owned(),
        (0, None) => "<p>No errors.</p>".to_owned(),
        (errors, _) => format!("<p class=\"bad\">{errors} errors: these figures count for nothing.</p>"),
    };
    let figures = figures(report);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>kami-bench {workload}</title>\n<style>\n{PAGE_STYLE}{STYLE}</style>\n</head>\n<body>\n<main>\n\
         <h1>{workload}</h1>\n{verdict}\n{figures}{charts}\
         <h2>Machine and build</h2>\n<table>\n{on}</table>\n\
         <h2>Settings and counts</h2>\n<table>\n{settings}</table>\n</main>\n</body>\n</html>\n"
    )
}

fn row(name: &str, value: &str) -> String {
    let name = name.replace('_', " ");
    format!("<tr><td>{}</td><td><code>{}</code></td></tr>\n", escaped(&name), escaped(value))
}

fn figures(report: &Report) -> String {
    let figure = |name: &str, value: Option<String>| {
        value.map_or_else(String::new, |value| format!("<div><dt>{name}</dt><dd>{value}</dd></div>\n"))
    };
    let all = [
        figure("a second", report.ops_per_s.map(count)),
        figure("median", report.p50_us.map(time)),
        figure("99 in 100 within", report.p99_us.map(time)),
        figure("999 in 1,000 within", report.p999_us.map(time)),
        figure("counted", Some(count(report.ops as f64))),
    ];
    format!("<dl class=\"figures\">\n{}</dl>\n", all.concat())
}

/// How many answers took how long, on a logarithmic axis, with the percentiles marked.
fn distribution(latencies: &Latencies) -> String {
    /// Bars to a factor of ten.
    const FINE: f64 = 16.0;
    let Some((least, most)) = latencies.span_us() else { return String::new() };
    let (from, to) =
        ((least.max(0.1).log10() * FINE).floor() as i32, (most.log10() * FINE).floor() as i32 + 1);
    let bounds: Vec<f64> = (from..=to).map(|bound| 10_f64.powf(f64::from(bound) / FINE)).collect();
    let counts = latencies.between(&bounds);
    let all = counts.iter().sum::<u64>().max(1) as f64;
    let highest = counts.iter().copied().max().unwrap_or(1).max(1) as f64;

    let mut canvas = Canvas::new(WIDTH, HEIGHT);
    canvas.text(0.0, 14.0, "title", Hold::Start, "How long answers took");
    let width = WIDTH - LEFT - RIGHT;
    let (ground, room) = (HEIGHT - BOTTOM, HEIGHT - BOTTOM - TOP - 12.0);
    let x = |us: f64| {
        let place = (us.max(0.1).log10() * FINE - f64::from(from)) / f64::from(to - from);
        LEFT + width * place.clamp(0.0, 1.0)
    };
    canvas.line("grid", (LEFT, ground), (WIDTH - RIGHT, ground));
    for decade in from.div_euclid(FINE as i32)..=to.div_euclid(FINE as i32) {
        let us = 10_f64.powi(decade);
        if bounds[0] <= us * 1.001 && us <= bounds[bounds.len() - 1] * 1.001 {
            canvas.line("grid", (x(us), ground), (x(us), ground + 4.0));
            canvas.text(x(us), ground + 18.0, "small", Hold::Middle, time(us));
        }
    }
    for (pair, answers) in bounds.windows(2).zip(&counts) {
        let height = room * *answers as f64 / highest;
        let told = format!("{} to {}: {:.2} %", time(pair[0]), time(pair[1]), *answers as f64 / all * 100.0);
        let (left, right) = (x(pair[0]), x(pair[1]));
        canvas.bar("bar", (left + 0.5, ground - height), (right - left - 1.0).max(0.5), height, &told);
    }
    let marks = ["p50", "p99", "p99.9"].into_iter().zip(latencies.percentiles_us());
    for (number, (name, value)) in marks.enumerate() {
        let Some(us) = value else { continue };
        let top = TOP - 10.0 + number as f64 * 15.0;
        canvas.line("mark", (x(us), top + 2.0), (x(us), ground));
        let (hold, away) = if WIDTH - 130.0 < x(us) { (Hold::End, -4.0) } else { (Hold::Start, 4.0) };
        canvas.text(x(us) + away, top + 10.0, "marked", hold, format!("{name}  {}", time(us)));
    }
    canvas.element("how many answers took how long")
}

/// A figure of each second.
fn course(
    title: &str,
    values: &[Option<f64>],
    ticks: fn(f64) -> Vec<f64>,
    told: fn(f64) -> String,
) -> String {
    let most = values.iter().flatten().copied().fold(0.0, f64::max);
    let ticks = ticks(most);
    let highest = ticks[ticks.len() - 1];
    let ground = HEIGHT - BOTTOM;
    let y = |value: f64| ground - (ground - TOP) * value / highest;
    let x = |second: f64| LEFT + (WIDTH - LEFT - RIGHT) * second / (values.len() - 1) as f64;

    let mut canvas = Canvas::new(WIDTH, HEIGHT);
    canvas.text(0.0, 14.0, "title", Hold::Start, title);
    for tick in &ticks {
        canvas.line("grid", (LEFT, y(*tick)), (WIDTH - RIGHT, y(*tick)));
        canvas.text(LEFT - 8.0, y(*tick) + 4.0, "small", Hold::End, told(*tick));
    }
    let last = (values.len() - 1) as f64;
    for second in
        crate::svg::ticks(last).into_iter().filter(|second| *second <= last && second.fract() == 0.0)
    {
        let (hold, unit) = if second == 0.0 { (Hold::Start, " s") } else { (Hold::Middle, "") };
        canvas.text(x(second), ground + 18.0, "small", hold, format!("{second}{unit}"));
    }
    let seconds = values.iter().enumerate();
    let points: Vec<_> =
        seconds.filter_map(|(second, value)| value.map(|value| (x(second as f64), y(value)))).collect();
    if let (Some(first), Some(end)) = (points.first(), points.last()) {
        let (first, end) = ((first.0, ground), (end.0, ground));
        canvas.path("area", &[&[first], &points[..], &[end]].concat());
        canvas.path("line", &points);
    }
    canvas.element(&format!("{title}, over the seconds of the run"))
}
