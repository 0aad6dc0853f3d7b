//! The result of a run: fields that every workload has, and some of its own.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::args::Args;
use crate::machine::{self, Ticks};
use crate::series::Series;

/// One result. The fields' names are read by other tools; what does not apply is `null`.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Which workload.
    pub workload: String,
    /// Cards that were imported.
    pub cards: Option<u64>,
    /// Threads that submit.
    pub threads: Option<u32>,
    /// Connections.
    pub connections: Option<u32>,
    /// Commands outstanding at most: in process over all threads, over QUIC for each connection.
    pub window: Option<u32>,
    /// Commands an execution, or frames a write.
    pub batch: Option<u32>,
    /// `direct` or `mapped`.
    pub commit_path: Option<&'static str>,
    /// The file system under the store.
    pub filesystem: Option<&'static str>,
    /// Whether every counted reply waited for the disk, on a file system that survives a power cut.
    pub durable: Option<bool>,
    /// Commands answered DONE; for `engine-sell` and `import`, cards.
    pub ops: u64,
    /// Wall time of the measured part.
    pub seconds: Option<f64>,
    /// The quotient.
    pub ops_per_s: Option<f64>,
    /// Median from submission to durable reply, microseconds.
    pub p50_us: Option<f64>,
    /// 99th percentile.
    pub p99_us: Option<f64>,
    /// 99.9th percentile.
    pub p999_us: Option<f64>,
    /// Anonymous resident memory a card.
    pub bytes_per_card: Option<f64>,
    /// From process start to ready.
    pub recover_seconds: Option<f64>,
    /// Replies that were not DONE, and whatever else was not as it must be.
    pub errors: u64,
    /// What it ran on.
    pub machine: String,
    /// What was built.
    pub commit: &'static str,
    /// From which codes and ids were made.
    pub seed: u64,
    /// The machine's load before the run began; above 0.3 others were at work.
    pub load_before: f64,
    /// The share of the machine's processor time that others used from the beginning of the run to its
    /// end, kernel threads that write our data included: above 0.05 the figures are no good.
    pub others_cpu: f64,
    #[serde(skip)]
    begun: Ticks,
    #[serde(skip)]
    histogram: Option<PathBuf>,
    /// Whether the course of the run goes into the result.
    #[serde(skip)]
    tells_series: bool,
    /// All latencies, and their course, for pages and verdicts.
    #[serde(skip)]
    pub measured_latencies: Option<Latencies>,
    /// The server's memory at the end of each second, where it is known.
    #[serde(skip)]
    pub resident_bytes: Vec<u64>,
    /// What only this workload has.
    #[serde(flatten)]
    pub own: Map<String, Value>,
}

impl Report {
    /// A result of nothing yet.
    pub fn new(args: &Args) -> Report {
        Report {
            workload: args.workload.name(),
            cards: None,
            threads: None,
            connections: None,
            window: None,
            batch: None,
            commit_path: None,
            filesystem: None,
            durable: None,
            ops: 0,
            seconds: None,
            ops_per_s: None,
            p50_us: None,
            p99_us: None,
            p999_us: None,
            bytes_per_card: None,
            recover_seconds: None,
            errors: 0,
            machine: machine::machine(),
            commit: machine::COMMIT,
            seed: args.seed,
            load_before: machine::load(),
            others_cpu: 0.0,
            begun: Ticks::now(),
            histogram: args.histogram.clone(),
            tells_series: args.series,
            measured_latencies: None,
            resident_bytes: Vec::new(),
            own: Map::new(),
        }
    }

    /// Sets what was done in which time.
    pub fn measured(&mut self, ops: u64, elapsed: Duration) {
        self.ops = ops;
        self.seconds = Some(rounded(elapsed.as_secs_f64()));
        self.ops_per_s = Some((ops as f64 / elapsed.as_secs_f64()).round());
    }

    /// Sets the latencies, and writes all of them if there is a file for them.
    pub fn latencies(&mut self, latencies: &Latencies) {
        if let Some(path) = &self.histogram
            && let Err(error) = latencies.write(path)
        {
            eprintln!("kami-bench: cannot write {}: {error}", path.display());
            self.errors += 1;
        }
        let [p50, p99, p999] = latencies.percentiles_us();
        (self.p50_us, self.p99_us, self.p999_us) = (p50, p99, p999);
        self.measured_latencies = Some(latencies.clone());
    }

    /// Sets what the server had in memory at the end of each second.
    pub fn resident(&mut self, bytes: Vec<u64>) {
        self.resident_bytes = bytes;
    }

    /// The course of the run in whole seconds.
    pub fn series(&self) -> Series {
        let elapsed = Duration::from_secs_f64(self.seconds.unwrap_or_default());
        self.measured_latencies.as_ref().map(|latencies| latencies.series.whole(elapsed)).unwrap_or_default()
    }

    /// Ends the run: all children have been waited for.
    pub fn finish(&mut self) {
        self.others_cpu = rounded(Ticks::now().others_since(self.begun));
        let series = self.series();
        if self.tells_series && series.len() != 0 {
            let percentiles = |quantile| -> Vec<_> {
                series.percentiles_us(quantile).into_iter().map(|value| value.map(f64::round)).collect()
            };
            let seconds = series.len().min(self.resident_bytes.len());
            let course = json!({
                "ops": series.answers(),
                "p50_us": percentiles(0.5),
                "p99_us": percentiles(0.99),
                "resident_bytes": self.resident_bytes[..seconds],
            });
            self.add("series", course);
        }
    }

    /// Adds a field of the workload's own.
    pub fn add(&mut self, name: &str, value: impl Into<Value>) {
        self.own.insert(name.to_owned(), value.into());
    }

    /// One line for machines.
    pub fn json(&self) -> String {
        serde_json::to_string(self).expect("numbers and strings are JSON")
    }

    /// A few lines for people: what does not apply is left out.
    pub fn text(&self) -> String {
        let Value::Object(fields) = json!(self) else { return String::new() };
        let line = |(name, value): (&String, &Value)| match value {
            Value::Null => None,
            Value::String(text) => Some(format!("{name:>24}  {text}\n")),
            value => Some(format!("{name:>24}  {value}\n")),
        };
        fields.iter().filter_map(line).collect()
    }
}

/// Three decimals are more than any run repeats.
pub fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// Latencies of many commands, in nanoseconds up to ten minutes, to three digits, and their course.
#[derive(Clone, Debug)]
pub struct Latencies {
    all: Histogram<u64>,
    /// Empty unless the run has a course.
    pub series: Series,
}

impl Default for Latencies {
    fn default() -> Self {
        let all = Histogram::new_with_bounds(1, 600_000_000_000, 3).expect("bounds of a histogram");
        Latencies { all, series: Series::default() }
    }
}

impl Latencies {
    /// With a course that counts seconds from `begun`.
    pub fn since(begun: Instant) -> Latencies {
        Latencies { series: Series::since(begun), ..Latencies::default() }
    }

    /// `count` commands took this long.
    #[inline]
    pub fn record(&mut self, latency: Duration, count: u64) {
        let nanoseconds = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.all.saturating_record_n(nanoseconds, count);
    }

    /// The same, and their answers came `now`.
    #[inline]
    pub fn record_at(&mut self, now: Instant, latency: Duration, count: u64) {
        self.record(latency, count);
        self.series.record(now, latency, count);
    }

    /// Takes in another thread's.
    pub fn merge(&mut self, other: &Latencies) {
        self.all.add(&other.all).expect("all histograms have the same bounds");
        self.series.merge(&other.series);
    }

    /// How many lie between each bound and the next, bounds in microseconds.
    pub fn between(&self, bounds_us: &[f64]) -> Vec<u64> {
        let at = |bound: &f64| (bound * 1000.0) as u64;
        let pairs = bounds_us.iter().zip(&bounds_us[1..]);
        pairs.map(|(from, to)| self.all.count_between(at(from), at(to).max(1) - 1)).collect()
    }

    /// The shortest and the longest, microseconds.
    pub fn span_us(&self) -> Option<(f64, f64)> {
        let recorded = !self.all.is_empty();
        recorded.then(|| (self.all.min() as f64 / 1000.0, self.all.max() as f64 / 1000.0))
    }

    /// Writes the percentile table that HdrHistogram's plotters read, values in microseconds.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        let mut out = BufWriter::new(File::create(path)?);
        writeln!(
            out,
            "{:>12} {:>14} {:>10} {:>14}\n",
            "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
        )?;
        let mut count = 0;
        for step in self.all.iter_quantiles(5) {
            count += step.count_since_last_iteration();
            let (value, quantile) = (step.value_iterated_to() as f64 / 1000.0, step.quantile_iterated_to());
            write!(out, "{value:>12.3} {quantile:>14.12} {count:>10}")?;
            if quantile < 1.0 { writeln!(out, " {:>14.2}", 1.0 / (1.0 - quantile))? } else { writeln!(out)? }
        }
        let (mean, deviation) = (self.all.mean() / 1000.0, self.all.stdev() / 1000.0);
        writeln!(out, "#[Mean    = {mean:>12.3}, StdDeviation   = {deviation:>12.3}]")?;
        let (max, total) = (self.all.max() as f64 / 1000.0, self.all.len());
        writeln!(out, "#[Max     = {max:>12.3}, Total count    = {total:>12}]")?;
        let (buckets, sub) = (self.all.buckets(), self.all.distinct_values());
        writeln!(out, "#[Buckets = {buckets:>12}, SubBuckets     = {sub:>12}]")?;
        out.flush()
    }

    /// Median, 99th and 99.9th percentile in microseconds; nothing if nothing was recorded.
    pub fn percentiles_us(&self) -> [Option<f64>; 3] {
        let recorded = !self.all.is_empty();
        [0.5, 0.99, 0.999].map(|quantile| {
            recorded.then(|| (self.all.value_at_quantile(quantile) as f64 / 100.0).round() / 10.0)
        })
    }
}
