//! What a figure was taken on: machine, load, memory, commit.

use std::fs;

/// The commit of the build; see `build.rs`.
pub const COMMIT: &str = env!("KAMI_COMMIT");
/// The compiler of the build.
pub const COMPILER: &str = env!("KAMI_COMPILER");

/// Processor, cores, memory and kernel, in one line.
pub fn machine() -> String {
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = value_of(&processors, "model name").unwrap_or("unknown processor");
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let gib = value_of(&memory, "MemTotal").and_then(kib).unwrap_or(0) >> 20;
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{model}, {cores} cores, {gib} GiB, Linux {}", kernel.trim())
}

/// The mean number of runnable threads over the last minute: above 0.3, others were at work.
pub fn load() -> f64 {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(f64::NAN)
}

/// Memory that processes could still get, in bytes.
pub fn available_memory() -> u64 {
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    value_of(&memory, "MemAvailable").and_then(kib).unwrap_or(0) << 10
}

/// Processor time until now, in the kernel's ticks.
#[derive(Clone, Copy, Debug)]
pub struct Ticks {
    /// Of all processors together, idle or not.
    all: u64,
    /// Of these, spent on something.
    busy: u64,
    /// Of these, spent by this process and its children that have ended.
    own: u64,
}

impl Ticks {
    /// As it is now.
    pub fn now() -> Ticks {
        let machine = fs::read_to_string("/proc/stat").unwrap_or_default();
        let fields = machine.lines().next().unwrap_or_default().split_whitespace().skip(1);
        let ticks: Vec<u64> = fields.take(8).filter_map(|ticks| ticks.parse().ok()).collect();
        let all = ticks.iter().sum();
        // The fourth and fifth are idle and waiting for a disk.
        let idle: u64 = ticks.iter().skip(3).take(2).sum();
        let own = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        // The name may hold anything but is the only thing in parentheses; times are 14th to 17th.
        let fields = own.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
        let own = fields.skip(11).take(4).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
        Ticks { all, busy: all - idle, own }
    }

    /// Which share of the machine others have used since `before`, the kernel's own threads included.
    pub fn others_since(self, before: Ticks) -> f64 {
        let others = (self.busy - before.busy).saturating_sub(self.own - before.own);
        others as f64 / (self.all - before.all).max(1) as f64
    }
}

/// Resident memory of this process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Resident {
    /// Anonymous memory: what the process itself needs.
    pub anonymous_bytes: u64,
    /// Mapped file pages, which the kernel may drop.
    pub file_bytes: u64,
}

impl Resident {
    /// As it is now.
    pub fn now() -> Resident {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let bytes = |name| value_of(&status, name).and_then(kib).unwrap_or(0) << 10;
        Resident { anonymous_bytes: bytes("RssAnon"), file_bytes: bytes("RssFile") }
    }

    /// Both.
    pub fn all(self) -> u64 {
        self.anonymous_bytes + self.file_bytes
    }
}

/// What another process on this machine has used.
#[derive(Clone, Copy, Debug)]
pub struct ProcessUse {
    /// Processor time since it began, of all its threads.
    pub cpu_seconds: f64,
    /// Its resident memory, file pages included.
    pub resident_bytes: u64,
}

impl ProcessUse {
    /// Of the process `id`, if it is still there.
    pub fn of(id: u32) -> Option<ProcessUse> {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        let fields = stat.rsplit_once(')')?.1.split_whitespace();
        let ticks: u64 = fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
        let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
        let resident_bytes = value_of(&status, "VmRSS").and_then(kib)? << 10;
        // The kernel counts in hundredths whatever its own timer does.
        Some(ProcessUse { cpu_seconds: ticks as f64 / 100.0, resident_bytes })
    }

    /// As a server's metrics tell it.
    pub fn told(metrics: &str) -> Option<ProcessUse> {
        let value = |series: &str| {
            let line = metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
            line.split(' ').next()?.parse::<f64>().ok()
        };
        Some(ProcessUse {
            cpu_seconds: value("kami_cpu_seconds_total")?,
            resident_bytes: value("kami_memory_bytes{part=\"resident\"}")? as u64,
        })
    }
}

/// The value in the first line `name : value`.
fn value_of<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':')).map(str::trim)
}

/// A number of KiB as the kernel writes it.
fn kib(text: &str) -> Option<u64> {
    text.split(' ').next()?.parse().ok()
}
