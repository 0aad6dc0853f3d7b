//! What `/metrics` says: the engine's and the server's own figures, read when somebody asks.
//!
//! Nothing is counted here. Each family is declared once, with its meaning; the table in
//! `docs/operating.md` is rendered from the declarations, and a test compares them with what a real server
//! answers. Labels are few: commands and codes are fixed lists, and products are listed one by one up to
//! [`PRODUCTS_MAX`], all further ones together.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use kami_engine::{Class, Distribution, Engine, Figures, Lifecycle};
use kami_net::{Server, ServerFigures};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use crate::certificate::Certificate;

/// Products with series of their own.
const PRODUCTS_MAX: usize = 200;

/// One family of series.
struct Family {
    /// Its name, without the unit and without `_total`.
    name: &'static str,
    kind: MetricType,
    unit: Option<Unit>,
    labels: &'static str,
    help: &'static str,
}

macro_rules! families {
    ($($constant:ident = $kind:ident $name:literal $unit:expr, [$labels:literal], $help:literal;)+) => {
        $(const $constant: Family = Family {
            name: $name,
            kind: MetricType::$kind,
            unit: $unit,
            labels: $labels,
            help: $help,
        };)+
        /// Every family, in the order of the answer.
        #[cfg(test)]
        const ALL: &[&Family] = &[$(&$constant,)+];
    };
}

families! {
    BUILD = Info "kami_build" None, ["version"], "The version of the program";
    START = Gauge "kami_start_time" Some(Unit::Seconds), [""], "When the process started, in seconds since 1970";
    READY = Gauge "kami_ready" None, [""], "1 while requests are taken, as /health/ready says";
    REPLIES = Counter "kami_replies" None, ["command, code"], "Replies that were free to leave, the log being durable up to their decision";
    REPLY_TIME = Histogram "kami_reply" Some(Unit::Seconds), ["command, class"], "From the receipt of a batch of requests to the log being durable up to its decision; all replies of a batch have the batch's time";
    CONNECTIONS = Gauge "kami_connections" None, [""], "Connections, handshakes included";
    STREAMS = Gauge "kami_streams" None, [""], "Streams of all connections";
    REFUSED = Counter "kami_connections_refused" None, ["reason"], "Connections that were not served";
    FEEDS = Gauge "kami_feeds" None, [""], "Feeds that follow the log";
    FEED_EVENTS = Counter "kami_feed_events" None, [""], "Events that feeds were sent";
    FEED_LAG = Gauge "kami_feed_lag" Some(Unit::Bytes), [""], "Durable log that the feed which is furthest behind has not read; it grows while a subscriber does not keep up or grants nothing";
    WAITING = Gauge "kami_waiting_replies" Some(Unit::Bytes), [""], "Replies that wait for the log or for their reader";
    CLEAR = Gauge "kami_clear_codes" Some(Unit::Bytes), [""], "Decrypted codes that their reader has not acknowledged; they are wiped then";
    COMMANDS = Counter "kami_commands" None, [""], "Commands the engine decided, whether their replies left or not";
    COMMANDS_REFUSED = Counter "kami_commands_refused" None, [""], "Commands the engine decided against";
    MISSES = Counter "kami_misses" None, [""], "Commands whose code led to no card that their caller may know of: guesses, or mistyped";
    LIMITED = Counter "kami_misses_limited" None, [""], "Requests that were turned away because their sender had sent too many wrong codes";
    BUDGETS = Counter "kami_miss_budgets_spent" None, [""], "How often a budget of wrong codes was used up";
    CARDS = Gauge "kami_cards" None, ["state"], "Cards by logged state";
    STOCK = Gauge "kami_stock" None, ["product, id"], "Cards that an order could take right now";
    PRODUCT_CARDS = Gauge "kami_product_cards" None, ["product, id, state"], "Cards of a product by logged state";
    PRODUCTS = Gauge "kami_products" None, [""], "Products";
    BATCHES = Gauge "kami_batches" None, [""], "Committed batches";
    ORDERS = Gauge "kami_orders" None, [""], "Orders";
    ENGINE_TIME = Gauge "kami_engine_time" Some(Unit::Seconds), [""], "The time that decisions rest on: the last one in the log";
    COMMIT_TIME = Histogram "kami_commit" Some(Unit::Seconds), [""], "Commits of the log: one write and its sync";
    COMMIT_SIZE = Histogram "kami_commit_size" Some(Unit::Bytes), [""], "Bytes a commit wrote";
    TAIL = Counter "kami_log_tail_position" Some(Unit::Bytes), [""], "The log's tail as a position";
    DURABLE = Counter "kami_log_durable_position" Some(Unit::Bytes), [""], "The first position that is not known durable";
    LAG = Gauge "kami_log_lag" Some(Unit::Bytes), [""], "What was appended and is not known durable";
    SEGMENTS = Gauge "kami_log_segments" None, [""], "Segment files, those that lie ready included";
    SEGMENTS_READY = Gauge "kami_log_segments_ready" None, [""], "Segments that lie ready; 0 for long means that the disk is full or slow";
    SPACE = Gauge "kami_log_has_space" None, [""], "1 while changes find room in the log; without it they are answered BUSY or DISK_FULL";
    SNAPSHOT_AGE = Gauge "kami_snapshot_age" Some(Unit::Seconds), [""], "Since the newest snapshot was written; no series while there is none";
    SINCE_SNAPSHOT = Gauge "kami_log_since_snapshot" Some(Unit::Bytes), [""], "Log that the next start replays: what was logged since the newest snapshot began";
    MEMORY = Gauge "kami_memory" Some(Unit::Bytes), ["part"], "Memory: resident and anonymous of the process; index, words and columns of the engine as they are laid out";
    CPU = Counter "kami_cpu" Some(Unit::Seconds), [""], "Processor time of the process";
    DISK_FREE = Gauge "kami_disk_free" Some(Unit::Bytes), ["directory"], "Room on the file system, for those who are not root";
    DISK_SIZE = Gauge "kami_disk_size" Some(Unit::Bytes), ["directory"], "Size of the file system";
    CERTIFICATE = Gauge "kami_certificate_end" Some(Unit::Seconds), ["certificate"], "When the certificate ends, in seconds since 1970";
    CERTIFICATE_DUE = Gauge "kami_certificate_due" Some(Unit::Seconds), ["certificate"], "When the certificate is renewed, in seconds since 1970; for long in the past only if that fails";
}

/// Everything one answer rests on, read at one time.
#[derive(Debug)]
pub struct Reading {
    started_ms: u64,
    ready: bool,
    now: SystemTime,
    data: PathBuf,
    keys: PathBuf,
    serving: Option<Serving>,
}

#[derive(Debug)]
struct Serving {
    engine: Figures,
    server: ServerFigures,
    /// Of the server and of the authority.
    ends_ms: (u64, u64),
    /// Of the server.
    due_ms: u64,
}

impl Reading {
    /// Reads the figures; of a server that is not open yet, those of its surroundings.
    pub fn new(
        started_ms: u64,
        ready: bool,
        (data, keys): (&Path, &Path),
        serving: Option<(&Engine, &Server, &Certificate)>,
    ) -> Reading {
        let serving = serving.map(|(engine, server, certificate)| Serving {
            engine: engine.figures(),
            server: server.figures(),
            ends_ms: certificate.ends_ms(),
            due_ms: certificate.due_ms(),
        });
        let now = SystemTime::from(jiff::Timestamp::now());
        Reading { started_ms, ready, now, data: data.to_owned(), keys: keys.to_owned(), serving }
    }

    /// The answer, in the OpenMetrics text format.
    pub fn text(self) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        // Writing into a string does not fail.
        let _ = text::encode(&mut text, &registry);
        text
    }
}

/// Values under labels.
type Sample<'a, V> = (&'a [(&'a str, &'a str)], V);

/// Writes families.
struct Writer<'a>(DescriptorEncoder<'a>);

impl Writer<'_> {
    fn family<'v, V: 'v>(
        &mut self,
        family: &Family,
        samples: impl IntoIterator<Item = Sample<'v, V>>,
        mut write: impl FnMut(&mut prometheus_client::encoding::MetricEncoder<'_>, V) -> fmt::Result,
    ) -> fmt::Result {
        let mut encoder =
            self.0.encode_descriptor(family.name, family.help, family.unit.as_ref(), family.kind)?;
        for (labels, value) in samples {
            let declared = family.labels.split(", ").filter(|name| !name.is_empty());
            let elsewhere = matches!(family.kind, MetricType::Info);
            debug_assert!(elsewhere || declared.eq(labels.iter().map(|(name, _)| *name)), "{}", family.name);
            if labels.is_empty() {
                write(&mut encoder, value)?;
            } else {
                write(&mut encoder.encode_family(&labels)?, value)?;
            }
        }
        Ok(())
    }

    fn counters<'v>(
        &mut self,
        family: &Family,
        samples: impl IntoIterator<Item = Sample<'v, u64>>,
    ) -> fmt::Result {
        self.family(family, samples, |encoder, value| {
            encoder.encode_counter::<NoLabelSet, _, u64>(&value, None)
        })
    }

    fn gauges<'v>(
        &mut self,
        family: &Family,
        samples: impl IntoIterator<Item = Sample<'v, f64>>,
    ) -> fmt::Result {
        self.family(family, samples, |encoder, value| encoder.encode_gauge(&value))
    }

    /// `unit` values of the distribution make one of the family's.
    fn histograms<'v>(
        &mut self,
        family: &Family,
        unit: f64,
        samples: impl IntoIterator<Item = Sample<'v, Distribution>>,
    ) -> fmt::Result {
        self.family(family, samples, |encoder, value| {
            let bound = |bound: Option<u64>| bound.map_or(f64::INFINITY, |bound| bound as f64 / unit);
            let buckets: Vec<_> = value.buckets().map(|(to, count)| (bound(to), count)).collect();
            encoder.encode_histogram::<NoLabelSet>(value.sum as f64 / unit, value.count(), &buckets, None)
        })
    }
}

impl Collector for Reading {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let mut out = Writer(encoder);
        let seconds = |ms: u64| ms as f64 / 1000.0;
        let truth = |is: bool| f64::from(u8::from(is));
        out.family(&BUILD, [(&[][..], ())], |encoder, ()| {
            encoder.encode_info(&[("version", env!("CARGO_PKG_VERSION"))])
        })?;
        out.gauges(&START, [(&[][..], seconds(self.started_ms))])?;
        out.gauges(&READY, [(&[][..], truth(self.ready))])?;
        if let Some(serving) = &self.serving {
            serving.encode_server(&mut out)?;
            serving.encode_engine(&mut out)?;
            serving.encode_log(&mut out, &self.data)?;
        }
        if let Some(written) = newest(&self.data.join("snapshots")) {
            let age = self.now.duration_since(written).unwrap_or(Duration::ZERO);
            out.gauges(&SNAPSHOT_AGE, [(&[][..], age.as_secs_f64())])?;
        } else {
            out.gauges(&SNAPSHOT_AGE, [])?;
        }
        let replay = self.serving.as_ref().map(|serving| (&[][..], serving.engine.replay_bytes as f64));
        out.gauges(&SINCE_SNAPSHOT, replay)?;
        let (resident, anonymous) = process_memory();
        let mut parts = vec![("resident", resident), ("anonymous", anonymous)];
        if let Some(Serving { engine, .. }) = &self.serving {
            parts.push(("index", engine.index_bytes));
            parts.push(("words", engine.words_bytes));
            parts.push(("columns", engine.columns_bytes));
        }
        let parts: Vec<_> = parts.iter().map(|(part, bytes)| ([("part", *part)], *bytes as f64)).collect();
        out.gauges(&MEMORY, parts.iter().map(|(labels, bytes)| (&labels[..], *bytes)))?;
        let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        let cpu_s = cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9;
        out.family(&CPU, [(&[][..], cpu_s)], |encoder, value| {
            encoder.encode_counter::<NoLabelSet, _, u64>(&value, None)
        })?;
        let disks = [("data", room(&self.data)), ("keys", room(&self.keys))];
        let disks: Vec<_> =
            disks.iter().filter_map(|(name, room)| Some(([("directory", *name)], (*room)?))).collect();
        out.gauges(&DISK_FREE, disks.iter().map(|(labels, (free, _))| (&labels[..], *free as f64)))?;
        out.gauges(&DISK_SIZE, disks.iter().map(|(labels, (_, size))| (&labels[..], *size as f64)))?;
        let ends = self.serving.as_ref().map(|serving| serving.ends_ms);
        let ends: Vec<_> = ends
            .map(|(server, authority)| [("server", server), ("authority", authority)])
            .into_iter()
            .flatten()
            .map(|(name, ms)| ([("certificate", name)], seconds(ms)))
            .collect();
        out.gauges(&CERTIFICATE, ends.iter().map(|(labels, end)| (&labels[..], *end)))?;
        let due =
            self.serving.as_ref().map(|serving| (&[("certificate", "server")][..], seconds(serving.due_ms)));
        out.gauges(&CERTIFICATE_DUE, due)
    }
}

impl Serving {
    fn encode_server(&self, out: &mut Writer<'_>) -> fmt::Result {
        let ServerFigures { connections, streams, refused, replies, latency_us, .. } = &self.server;
        let replies: Vec<_> = replies
            .iter()
            .map(|(command, status, count)| ([("command", *command), ("code", status.code())], *count))
            .collect();
        out.counters(&REPLIES, replies.iter().map(|(labels, count)| (&labels[..], *count)))?;
        let times: Vec<_> = latency_us
            .iter()
            .map(|(command, class, times)| ([("command", *command), ("class", class_name(*class))], *times))
            .collect();
        out.histograms(&REPLY_TIME, 1e6, times.iter().map(|(labels, times)| (&labels[..], *times)))?;
        out.gauges(&CONNECTIONS, [(&[][..], *connections as f64)])?;
        out.gauges(&STREAMS, [(&[][..], *streams as f64)])?;
        let refused = refused.map(|(reason, count)| ([("reason", reason.name())], count));
        out.counters(&REFUSED, refused.iter().map(|(labels, count)| (&labels[..], *count)))?;
        out.gauges(&FEEDS, [(&[][..], self.server.feeds as f64)])?;
        out.counters(&FEED_EVENTS, [(&[][..], self.server.feed_events)])?;
        out.gauges(&FEED_LAG, [(&[][..], self.server.feed_lag_bytes as f64)])?;
        out.gauges(&WAITING, [(&[][..], self.server.waiting_reply_bytes as f64)])?;
        out.gauges(&CLEAR, [(&[][..], self.server.clear_codes_bytes as f64)])
    }

    fn encode_engine(&self, out: &mut Writer<'_>) -> fmt::Result {
        let stats = &self.engine.stats;
        out.counters(&COMMANDS, [(&[][..], stats.commands)])?;
        out.counters(&COMMANDS_REFUSED, [(&[][..], stats.refused)])?;
        out.counters(&MISSES, [(&[][..], stats.misses)])?;
        out.counters(&LIMITED, [(&[][..], self.server.rate_limited)])?;
        out.counters(&BUDGETS, [(&[][..], self.server.budgets_spent)])?;
        let states =
            Lifecycle::ALL.map(|state| ([("state", state.name())], stats.counts[state as usize] as f64));
        out.gauges(&CARDS, states.iter().map(|(labels, cards)| (&labels[..], *cards)))?;

        // Name, number, sellable, by state.
        let mut lines: Vec<(&str, String, u64, [u64; Lifecycle::COUNT])> = Vec::new();
        for (at, stock) in self.engine.stock.iter().enumerate() {
            let (name, id) = match at {
                PRODUCTS_MAX.. => ("all further ones", String::new()),
                _ => (&*stock.product.spec.name, stock.product.id.to_string()),
            };
            if at > PRODUCTS_MAX
                && let Some((_, _, sellable, counts)) = lines.last_mut()
            {
                *sellable += stock.sellable;
                counts.iter_mut().zip(stock.counts).for_each(|(sum, count)| *sum += count);
            } else {
                lines.push((name, id, stock.sellable, stock.counts));
            }
        }
        let stock: Vec<_> = lines
            .iter()
            .map(|(name, id, sellable, _)| ([("product", *name), ("id", id)], *sellable as f64))
            .collect();
        out.gauges(&STOCK, stock.iter().map(|(labels, cards)| (&labels[..], *cards)))?;
        let mut cards = Vec::new();
        for (name, id, _, counts) in &lines {
            for state in Lifecycle::ALL {
                let count = counts[state as usize];
                if count > 0 {
                    let labels = [("product", *name), ("id", id.as_str()), ("state", state.name())];
                    cards.push((labels, count as f64));
                }
            }
        }
        out.gauges(&PRODUCT_CARDS, cards.iter().map(|(labels, cards)| (&labels[..], *cards)))?;
        out.gauges(&PRODUCTS, [(&[][..], stats.products as f64)])?;
        out.gauges(&BATCHES, [(&[][..], stats.batches as f64)])?;
        out.gauges(&ORDERS, [(&[][..], stats.orders as f64)])?;
        out.gauges(&ENGINE_TIME, [(&[][..], stats.time_ms as f64 / 1000.0)])
    }

    fn encode_log(&self, out: &mut Writer<'_>, data: &Path) -> fmt::Result {
        let Figures { stats, commit_bytes, commit_us, segments_ready, has_space, .. } = &self.engine;
        out.histograms(&COMMIT_TIME, 1e6, [(&[][..], *commit_us)])?;
        out.histograms(&COMMIT_SIZE, 1.0, [(&[][..], *commit_bytes)])?;
        out.counters(&TAIL, [(&[][..], stats.tail)])?;
        out.counters(&DURABLE, [(&[][..], stats.durable_end)])?;
        out.gauges(&LAG, [(&[][..], stats.tail.saturating_sub(stats.durable_end) as f64)])?;
        let segments = fs::read_dir(data.join("log")).map_or(0, Iterator::count);
        out.gauges(&SEGMENTS, [(&[][..], segments as f64)])?;
        out.gauges(&SEGMENTS_READY, [(&[][..], *segments_ready as f64)])?;
        out.gauges(&SPACE, [(&[][..], f64::from(u8::from(*has_space)))])
    }
}

const fn class_name(class: Class) -> &'static str {
    match class {
        Class::Done => "done",
        Class::Refused => "refused",
        Class::CallerBug => "caller_bug",
        Class::NotExecuted => "not_executed",
    }
}

/// When the newest snapshot of a directory was written; one that is being written is none yet.
fn newest(directory: &Path) -> Option<SystemTime> {
    let entries = fs::read_dir(directory).ok()?.filter_map(Result::ok);
    let whole =
        entries.filter(|entry| Path::new(&entry.file_name()).extension() == Some("snapshot".as_ref()));
    whole.filter_map(|entry| entry.metadata().ok()?.modified().ok()).max()
}

/// Free and total bytes of the file system that a directory lies in.
fn room(directory: &Path) -> Option<(u64, u64)> {
    let room = rustix::fs::statvfs(directory).ok()?;
    Some((room.f_bavail * room.f_frsize, room.f_blocks * room.f_frsize))
}

/// Resident and anonymous bytes of this process.
fn process_memory() -> (u64, u64) {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    let bytes = |name| line(name).unwrap_or(0) << 10;
    (bytes("VmRSS:"), bytes("RssAnon:"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of metrics in `docs/operating.md`.
    #[test]
    fn the_document_lists_the_metrics() {
        let mut table = String::from("| Metric | Type | Labels | What |\n|---|---|---|---|\n");
        for family in ALL {
            let unit = family.unit.as_ref().map_or(String::new(), |unit| format!("_{}", unit.as_str()));
            let suffix = match family.kind {
                MetricType::Counter => "_total",
                MetricType::Info => "_info",
                _ => "",
            };
            table += &format!(
                "| `{}{unit}{suffix}` | {} | {} | {} |\n",
                family.name,
                family.kind.as_str(),
                family.labels,
                family.help
            );
        }
        crate::output::tests::check_document("metrics", &table);
    }
}
