//! The result of a run: fields that every workload has, and some of its own.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::args::Args;
use crate::machine::{self, Ticks};

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
    }

    /// Ends the run: all children have been waited for.
    pub fn finish(&mut self) {
        self.others_cpu = rounded(Ticks::now().others_since(self.begun));
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

/// Latencies of many commands, in nanoseconds up to ten minutes, to three digits.
#[derive(Clone, Debug)]
pub struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        Latencies(Histogram::new_with_bounds(1, 600_000_000_000, 3).expect("bounds of a histogram"))
    }
}

impl Latencies {
    /// `count` commands took this long.
    #[inline]
    pub fn record(&mut self, latency: Duration, count: u64) {
        let nanoseconds = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.0.saturating_record_n(nanoseconds, count);
    }

    /// Takes in another thread's.
    pub fn merge(&mut self, other: &Latencies) {
        self.0.add(&other.0).expect("all histograms have the same bounds");
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
        for step in self.0.iter_quantiles(5) {
            count += step.count_since_last_iteration();
            let (value, quantile) = (step.value_iterated_to() as f64 / 1000.0, step.quantile_iterated_to());
            write!(out, "{value:>12.3} {quantile:>14.12} {count:>10}")?;
            if quantile < 1.0 { writeln!(out, " {:>14.2}", 1.0 / (1.0 - quantile))? } else { writeln!(out)? }
        }
        let (mean, deviation) = (self.0.mean() / 1000.0, self.0.stdev() / 1000.0);
        writeln!(out, "#[Mean    = {mean:>12.3}, StdDeviation   = {deviation:>12.3}]")?;
        let (max, total) = (self.0.max() as f64 / 1000.0, self.0.len());
        writeln!(out, "#[Max     = {max:>12.3}, Total count    = {total:>12}]")?;
        let (buckets, sub) = (self.0.buckets(), self.0.distinct_values());
        writeln!(out, "#[Buckets = {buckets:>12}, SubBuckets     = {sub:>12}]")?;
        out.flush()
    }

    /// Median, 99th and 99.9th percentile in microseconds; nothing if nothing was recorded.
    pub fn percentiles_us(&self) -> [Option<f64>; 3] {
        let recorded = !self.0.is_empty();
        [0.5, 0.99, 0.999].map(|quantile| {
            recorded.then(|| (self.0.value_at_quantile(quantile) as f64 / 100.0).round() / 10.0)
        })
    }
}
