//! `guards`: instructions counted under valgrind's callgrind and compared with what was recorded, since on a busy
//! machine nothing else about speed can be believed from one change to the next.
//!
//! The program runs itself under callgrind, which collects only inside the functions of [`counted`] that are named
//! for it. What is counted is instructions per command, the mean over [`counted::ROUNDS`] groups of
//! [`counted::GROUP`]; the same build counts the same to a fraction of a percent. What a count does not see: waiting
//! for memory, the disk, other threads, the kernel.
//!
//! What it depends on:
//! * the compiler and the profile, which are written beside the counts and must be the same to compare; so there are two
//!   files, one for releases and one for the build that tests make anyway, which CI compares;
//! * the architecture: each has a table of its own;
//! * the processor, little: callgrind shows programs no AVX-512, so BLAKE3 takes the SSE4.1 code for single blocks and
//!   CRC-32C the SSE4.2 instruction on whatever runs it, and the C library is told to copy memory with SSE2 alone;
//! * the C library, less: only its copies of memory are in a count, and those are short.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use toml::{Table, Value};

use crate::args::{Args, Workload};
use crate::machine::{COMMIT, COMPILER, machine};
use crate::report::rounded;
use crate::store::Scratch;

mod callgrind;
pub mod counted;

/// What is counted: its name, the function, and what that is.
const ITEMS: [(&str, &str, &str); 7] = [
    ("split", "guarded_split", "a REDEEM frame found in a read and decoded"),
    ("digest", "guarded_digest", "from a code of 16 characters as typed to its keyed digest"),
    ("look_up", "guarded_look_up", "from the digest to the card, in groups of 64"),
    ("decide", "guarded_decide", "the rule of a redemption, alone"),
    ("append", "guarded_append", "64 bytes of a group of 4 KiB, appended to the log"),
    (
        "execute",
        "guarded_execute",
        "one of 64 redemptions: look-up, rule, entry, log, word, reply; not the digest",
    ),
    ("encode", "guarded_encode", "its reply's frame"),
];
/// What a new record allows.
const TOLERANCE_PERCENT: f64 = 5.0;
/// Choices of the C library that depend on the processor, made for the plainest.
const PLAIN_COPIES: &str =
    "glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX2,-AVX_Fast_Unaligned_Load,-SSSE3,-ERMS,-FSRM";
/// Where the counts of builds like this one are.
pub const RECORDED: &str = if cfg!(debug_assertions) {
    concat!(env!("CARGO_MANIFEST_DIR"), "/guards-debug.toml")
} else {
    concat!(env!("CARGO_MANIFEST_DIR"), "/guards.toml")
};
/// How they are counted anew. Which functions are part of which depends on how the debug build is cut up.
const AGAIN: &str = if cfg!(debug_assertions) {
    "`CARGO_INCREMENTAL=0 cargo test --workspace --no-run && target/debug/kami-bench guards --record`"
} else {
    "`cargo run --release -p kami-bench -- guards --record`"
};
const BUILD: &str = if cfg!(debug_assertions) { "debug" } else { "release" };
const ARCHITECTURE: &str = std::env::consts::ARCH;

/// Instructions a command, by item.
type Counts = BTreeMap<&'static str, f64>;

/// Counts, and compares or records. Whether nothing takes more than it may.
pub fn run(args: &Args) -> Result<bool> {
    let recorded = if args.record { None } else { Some(Recorded::read(&args.recorded)?) };
    let counts = count(args)?;
    let Some(recorded) = recorded else {
        let tolerance = Recorded::read(&args.recorded).map_or(TOLERANCE_PERCENT, |old| old.tolerance_percent);
        record(&args.recorded, &counts, tolerance)?;
        eprintln!("{} counts in {}", counts.len(), args.recorded.display());
        return Ok(true);
    };
    let mut above = Vec::new();
    let (mut lines, mut values) = (String::new(), serde_json::Map::new());
    for (name, _, what) in ITEMS {
        let (was, now) = (recorded.counts[name], counts[name]);
        let change = (now / was - 1.0) * 100.0;
        let verdict = if recorded.tolerance_percent < change {
            above.push(name);
            "  MORE"
        } else if change < -recorded.tolerance_percent {
            "  less: record it"
        } else {
            ""
        };
        lines += &format!("{name:>10} {was:>10.1} {now:>10.1} {change:>+8.1} %  {what}{verdict}\n");
        values
            .insert(name.to_owned(), json!({"recorded": was, "now": now, "change_percent": rounded(change)}));
    }
    if args.json {
        let result = json!({
            "workload": "guards", "instructions": values, "tolerance_percent": recorded.tolerance_percent,
            "above": above, "build": BUILD, "compiler": COMPILER, "machine": machine(), "commit": COMMIT,
            "errors": above.len(),
        });
        println!("{result}");
    } else {
        print!(
            "{:>10} {:>10} {:>10} {:>10}  instructions a command\n{lines}",
            "", "recorded", "now", "change"
        );
    }
    if !above.is_empty() {
        eprintln!(
            "kami-bench: {} more than {} % above what was recorded: find out why, or, if it is worth it, \
             record it with {AGAIN}",
            if above.len() == 1 { format!("`{}` is", above[0]) } else { format!("{} are", above.join(", ")) },
            recorded.tolerance_percent
        );
    }
    Ok(above.is_empty())
}

/// Runs the counted work under callgrind.
fn count(args: &Args) -> Result<Counts> {
    let scratch = Scratch::new(&args.dir)?;
    let out = scratch.path().join("callgrind.out");
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--quiet"]);
    command.arg(format!("--callgrind-out-file={}", out.display()));
    // Of the whole name, so that a closure in such a function does not end what it began.
    command.args(ITEMS.map(|(_, function, _)| format!("--toggle-collect=*::{function}")));
    command.arg(std::env::current_exe()?).arg(Workload::Guarded.name());
    command.env("GLIBC_TUNABLES", PLAIN_COPIES).stdin(Stdio::null());
    let output = match command.output() {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            bail!("valgrind is not installed (Debian: apt install valgrind)")
        }
        Err(error) => return Err(error).context("valgrind cannot be started"),
    };
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the counted work failed under valgrind: {told}");
    let text = fs::read_to_string(&out).context("valgrind wrote no counts")?;
    let commands = (counted::GROUP * counted::ROUNDS) as f64;
    let of = |(name, function, _): (&'static str, &str, _)| {
        let total = callgrind::inclusive(&text, function);
        ensure!(total != 0, "valgrind did not see `{function}`: was this program stripped of its symbols?");
        Ok((name, (total as f64 / commands * 10.0).round() / 10.0))
    };
    ITEMS.into_iter().map(of).collect()
}

/// What an earlier run counted.
struct Recorded {
    tolerance_percent: f64,
    counts: Counts,
}

impl Recorded {
    /// Reads the counts of this architecture, made by this compiler.
    fn read(path: &Path) -> Result<Recorded> {
        let text = fs::read_to_string(path).with_context(|| format!("no counts in {}", path.display()))?;
        let table: Table = toml::from_str(&text).with_context(|| format!("{} is wrong", path.display()))?;
        let told = |name| table.get(name).and_then(Value::as_str).unwrap_or("nothing");
        ensure!(
            told("build") == BUILD,
            "the counts are of a {} build, this is a {BUILD} build",
            told("build")
        );
        ensure!(
            told("compiler") == COMPILER,
            "the counts were made by {}, this program by {COMPILER}: record them with {AGAIN}",
            told("compiler")
        );
        let number = |value: Option<&Value>| match value {
            Some(Value::Float(number)) => Some(*number),
            Some(Value::Integer(number)) => Some(*number as f64),
            _ => None,
        };
        let own = table.get(ARCHITECTURE).and_then(Value::as_table);
        let own = own.with_context(|| format!("no counts of {ARCHITECTURE}: record them with {AGAIN}"))?;
        let of = |(name, _, _): (&'static str, _, _)| {
            let count = number(own.get(name)).filter(|count| 0.0 < *count);
            Ok((name, count.with_context(|| format!("no count of `{name}`: record them with {AGAIN}"))?))
        };
        Ok(Recorded {
            tolerance_percent: number(table.get("tolerance_percent")).context("no tolerance_percent")?,
            counts: ITEMS.into_iter().map(of).collect::<Result<_>>()?,
        })
    }
}

/// Writes the counts as the new standard.
fn record(path: &Path, counts: &Counts, tolerance_percent: f64) -> Result<()> {
    let mut text = format!(
        "# Instructions a command, counted under valgrind by `kami-bench guards`; a count that is higher by more than\n\
         # the tolerance is told by name. Written by\n\
         # {AGAIN}.\n\
         tolerance_percent = {tolerance_percent:.1}\n\
         build = \"{BUILD}\"\n\
         compiler = \"{COMPILER}\"\n\n\
         [{ARCHITECTURE}]\n"
    );
    for (name, _, what) in ITEMS {
        text += &format!("# {what}\n{name} = {:.1}\n", counts[name]);
    }
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
