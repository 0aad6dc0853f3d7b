//! Running a row: processes side by side, each with a few seeds at a time, until enough was run or something failed.

use std::io::{IsTerminal, Write};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::binaries::{Binaries, Build, Test, root};
use crate::rows::{Row, Work};

/// A process is given so many seeds as take about this long, so that the end of the time is met and a failure is known
/// soon.
const PIECE: Duration = Duration::from_secs(4);

/// How much is run.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// The first seed.
    pub from: u64,
    /// How many seeds, rounds or peers.
    pub seeds: Option<u64>,
    /// No piece of work begins after this.
    pub time: Option<Duration>,
    /// Processes side by side.
    pub jobs: usize,
    /// Whether optimised and without debug assertions.
    pub release: bool,
}

/// What came of a row.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Its name.
    pub row: &'static str,
    /// What it is.
    pub what: &'static str,
    /// The first seed.
    pub from: u64,
    /// How many seeds, rounds, peers, runs or inputs were run and found right.
    pub done: u64,
    /// What `done` counts.
    pub unit: &'static str,
    /// How long it took.
    pub elapsed: Duration,
    /// What the tests found beside that they passed, line by line, of the last time they ran.
    pub results: Vec<String>,
    /// How many operations its histories had; 0 of rows that count none.
    pub operations: u64,
    /// What failed.
    pub failure: Option<Failed>,
}

/// A failure.
#[derive(Clone, Debug)]
pub struct Failed {
    /// What repeats it.
    pub repeat: String,
    /// The end of what it printed.
    pub output: String,
}

/// What the workers share.
struct Course<'a> {
    row: &'a Row,
    scale: Scale,
    begun: Instant,
    next: AtomicU64,
    done: AtomicU64,
    piece: AtomicU64,
    stop: AtomicBool,
    operations: AtomicU64,
    results: std::sync::Mutex<Vec<String>>,
    failure: std::sync::Mutex<Option<Failed>>,
}

/// Builds what a row needs and runs it.
///
/// # Errors
/// If it does not build or cannot be started; a test that fails is an outcome.
pub fn run(row: &'static Row, scale: Scale) -> anyhow::Result<Outcome> {
    let binaries = build(row, scale.release)?;
    let ordinary = match row.work {
        Work::Seeds(_) => 200,
        Work::Number { most, .. } => most,
        _ => 1,
    };
    let enough = scale.seeds.unwrap_or(if scale.time.is_some() { u64::MAX } else { ordinary });
    let scale = Scale { seeds: Some(enough), ..scale };
    let first_piece = match row.work {
        Work::Number { most, .. } => most,
        _ => 1,
    };
    let course = Course {
        row,
        scale,
        begun: Instant::now(),
        next: AtomicU64::new(0),
        done: AtomicU64::new(0),
        piece: AtomicU64::new(first_piece),
        stop: AtomicBool::new(false),
        operations: AtomicU64::new(0),
        results: std::sync::Mutex::default(),
        failure: std::sync::Mutex::new(None),
    };
    let jobs = if matches!(row.work, Work::Seeds(_)) { scale.jobs.max(1) } else { 1 };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(|| course.work(&binaries))).collect();
        course.watch(|| workers.iter().all(std::thread::ScopedJoinHandle::is_finished));
        workers.into_iter().try_for_each(|worker| worker.join().expect("a worker does not panic"))
    })?;
    Ok(Outcome {
        row: row.name,
        what: row.what,
        from: scale.from,
        done: course.done.into_inner(),
        unit: unit(&row.work),
        elapsed: course.begun.elapsed(),
        results: course.results.into_inner().expect("no worker panics"),
        operations: course.operations.into_inner(),
        failure: course.failure.into_inner().expect("no worker panics"),
    })
}

/// What a row counts.
#[must_use]
pub fn unit(work: &Work) -> &'static str {
    match work {
        Work::Seeds(_) => "seeds",
        Work::Number { variable: "KAMI_HOSTILE", .. } => "peers",
        Work::Number { variable: "KAMI_REPLIES", .. } => "replies of each kind",
        Work::Number { .. } => "rounds",
        Work::Whole(..) | Work::Loom | Work::Address => "runs",
        Work::Fuzz(_) => "inputs",
    }
}

fn build(row: &Row, release: bool) -> anyhow::Result<Binaries> {
    let mut build = Build { release, ..Build::default() };
    match row.work {
        Work::Seeds(tests) | Work::Whole(tests, _) => {
            build.packages = tests.iter().map(|test| test.package).collect();
            build.packages.dedup();
            build.shuttle = tests.iter().all(Test::is_scheduled);
        }
        Work::Number { test, .. } => build.packages.push(test.package),
        Work::Loom => (build.packages, build.loom) = (vec!["kami-wal", "kami-engine"], true),
        Work::Address => (build.packages, build.address) = (vec!["kami-wal", "kami-engine"], true),
        Work::Fuzz(_) => return Ok(Binaries::default()),
    }
    build.run()
}

impl Course<'_> {
    /// Takes pieces of work until there are none.
    fn work(&self, binaries: &Binaries) -> anyhow::Result<()> {
        let enough = self.scale.seeds.unwrap_or(u64::MAX);
        while !self.stop.load(Ordering::Relaxed)
            && self.scale.time.is_none_or(|time| self.begun.elapsed() < time)
        {
            let piece = self.piece.load(Ordering::Relaxed);
            let first = self.next.fetch_add(piece, Ordering::Relaxed);
            if enough <= first {
                break;
            }
            let count = piece.min(enough - first);
            let begun = Instant::now();
            let failed = self.piece(binaries, self.scale.from + first, count);
            match failed {
                Ok(None) => {}
                Ok(Some(failed)) => {
                    self.stop.store(true, Ordering::Relaxed);
                    self.failure.lock().expect("no worker panics").get_or_insert(failed);
                    break;
                }
                Err(error) => {
                    self.stop.store(true, Ordering::Relaxed);
                    return Err(error);
                }
            }
            if !matches!(self.row.work, Work::Fuzz(_)) {
                self.done.fetch_add(count, Ordering::Relaxed);
            }
            if matches!(self.row.work, Work::Seeds(_)) {
                let fitting = count as f64 * PIECE.as_secs_f64() / begun.elapsed().as_secs_f64().max(0.001);
                self.piece.store((fitting as u64).clamp(1, 2 * piece), Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// Runs `count` seeds from `from` on.
    fn piece(&self, binaries: &Binaries, from: u64, count: u64) -> anyhow::Result<Option<Failed>> {
        match self.row.work {
            Work::Seeds(tests) => {
                for test in tests {
                    let mut command = binaries.test(test)?;
                    command.env("KAMI_SEED_FROM", from.to_string()).env("KAMI_SEEDS", count.to_string());
                    if let Some(output) = self.failing(&mut command)? {
                        return Ok(Some(self.seed_of(binaries, test, from..from + count, &output)?));
                    }
                }
                Ok(None)
            }
            Work::Number { test, variable, .. } => {
                let mut command = binaries.test(&test)?;
                let output = self.failing(command.env(variable, count.to_string()))?;
                let repeat = format!("{variable}={count} {}", test.command());
                Ok(output.map(|output| Failed { repeat, output: excerpt(&text(&output)) }))
            }
            Work::Whole(tests, variables) => {
                for test in tests {
                    let mut command = binaries.test(test)?;
                    if let Some(output) = self.failing(command.envs(variables.iter().copied()))? {
                        let set: String =
                            variables.iter().map(|(name, value)| format!("{name}={value} ")).collect();
                        let repeat = format!("{set}{}", test.command());
                        return Ok(Some(Failed { repeat, output: excerpt(&text(&output)) }));
                    }
                }
                Ok(None)
            }
            Work::Loom => {
                let repeat = "RUSTFLAGS=\"--cfg loom --cfg crossbeam_loom\" cargo test --release --target-dir target/loom \
                              -p kami-wal -p kami-engine --lib loom";
                self.libraries(binaries.all("loom"), repeat)
            }
            Work::Address => {
                let repeat = "RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address cargo test --target-dir target/address \
                              --target x86_64-unknown-linux-gnu -p kami-wal -p kami-engine --lib";
                self.libraries(binaries.all(""), repeat)
            }
            Work::Fuzz(target) => self.fuzz(target),
        }
    }

    /// Runs the own tests of libraries, and keeps what all of them say.
    fn libraries(
        &self,
        programs: impl Iterator<Item = Command>,
        repeat: &str,
    ) -> anyhow::Result<Option<Failed>> {
        let mut said = Vec::new();
        for mut command in programs {
            if let Some(output) = self.failing(&mut command)? {
                return Ok(Some(Failed { repeat: repeat.to_owned(), output: excerpt(&text(&output)) }));
            }
            said.append(&mut self.results.lock().expect("no worker panics"));
        }
        *self.results.lock().expect("no worker panics") = said;
        Ok(None)
    }

    /// Which seed it was: the test says so, unless its process died of it.
    fn seed_of(
        &self,
        binaries: &Binaries,
        test: &Test,
        seeds: std::ops::Range<u64>,
        output: &Output,
    ) -> anyhow::Result<Failed> {
        let said = text(output);
        if let Some(repeat) = said.lines().find_map(|line| line.trim().strip_prefix("repeat: ")) {
            return Ok(Failed { repeat: repeat.to_owned(), output: excerpt(&said) });
        }
        for seed in seeds {
            let mut command = binaries.test(test)?;
            if let Some(output) = self.failing(command.env("KAMI_SEED", seed.to_string()))? {
                let repeat = format!("KAMI_SEED={seed} {}", test.command());
                return Ok(Failed { repeat, output: excerpt(&text(&output)) });
            }
        }
        Ok(Failed { repeat: format!("{} (no seed fails by itself)", test.command()), output: excerpt(&said) })
    }

    fn fuzz(&self, target: &str) -> anyhow::Result<Option<Failed>> {
        let seconds = self.scale.time.unwrap_or(Duration::from_secs(60)).as_secs().max(1);
        // What it finds on its way stays out of the repository; the first directory is the one it writes to.
        let (found, known) = (format!("fuzz/target/corpus/{target}"), format!("fuzz/corpus/{target}"));
        std::fs::create_dir_all(root().join(&found))
            .context("a directory for what is found cannot be made")?;
        let mut command = Command::new("cargo");
        command.current_dir(root()).args(["+nightly", "fuzz", "run", target, &found, &known, "--"]);
        command.args([format!("-max_total_time={seconds}"), "-print_final_stats=1".to_owned()]);
        // Or this cargo's toolchain would be taken.
        command.env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO").env_remove("RUSTC");
        let output = command.output().context("cargo-fuzz cannot be started")?;
        let said = text(&output);
        let stat =
            |name: &str| said.lines().find_map(|line| line.trim().strip_prefix(name)?.trim().parse().ok());
        self.done.fetch_add(stat("stat::number_of_executed_units:").unwrap_or(0), Ordering::Relaxed);
        if output.status.success() {
            return Ok(None);
        }
        let unit = said.lines().find_map(|line| line.split("Test unit written to ").nth(1));
        let repeat = format!("cargo +nightly fuzz run {target} {}", unit.unwrap_or(""));
        Ok(Some(Failed { repeat, output: excerpt(&said) }))
    }

    /// Runs a test; its output if it failed, or if there was none of that name. What it says of itself is kept.
    fn failing(&self, command: &mut Command) -> anyhow::Result<Option<Output>> {
        let output = command.output().context("a test cannot be started")?;
        let said = text(&output);
        // Without a line of its own where the test's name stands before it.
        let after =
            |mark: &'static str| said.lines().filter_map(move |line| line.split_once(mark)).map(|it| it.1);
        let operations =
            after("operations: ").filter_map(|rest| rest.split(',').next()?.trim().parse::<u64>().ok());
        self.operations.fetch_add(operations.sum(), Ordering::Relaxed);
        let results: Vec<String> = after("result: ")
            .chain(said.lines().filter(|line| line.contains("NOT RUN")))
            .map(str::to_owned)
            .collect();
        if !results.is_empty() {
            *self.results.lock().expect("no worker panics") = results;
        }
        let ran = !said.contains("running 0 tests");
        Ok((!output.status.success() || !ran).then_some(output))
    }

    /// Shows how far it is, until all is done.
    fn watch(&self, is_over: impl Fn() -> bool) {
        let mut out = std::io::stderr();
        let live = out.is_terminal();
        let (mut said, mut shown) = (Instant::now(), false);
        while !is_over() {
            std::thread::sleep(Duration::from_millis(100));
            let every = if live { Duration::from_millis(500) } else { Duration::from_secs(30) };
            if said.elapsed() < every {
                continue;
            }
            (said, shown) = (Instant::now(), true);
            let (done, elapsed) = (self.done.load(Ordering::Relaxed), self.begun.elapsed().as_secs());
            let of = self.scale.seeds.filter(|seeds| *seeds != u64::MAX).map(|seeds| format!(" of {seeds}"));
            let until = self.scale.time.map(|time| format!(" of {}", time.as_secs()));
            let line = format!(
                "{}: {done}{} {}, {} a minute, {elapsed}{} s",
                self.row.name,
                of.unwrap_or_default(),
                unit(&self.row.work),
                done * 60 / elapsed.max(1),
                until.unwrap_or_default()
            );
            // A live line that cannot be shown is no failure.
            let _ = if live { write!(out, "\r\x1b[K{line}") } else { writeln!(out, "{line}") };
        }
        if live && shown {
            let _ = write!(out, "\r\x1b[K");
        }
    }
}

fn text(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("{out}\n{err}")
}

/// What tells of a failure: the lines from the first panic on, which is the cause of those after it, and the last.
fn excerpt(said: &str) -> String {
    const FIRST: usize = 30;
    const LAST: usize = 30;
    let lines: Vec<&str> = said.lines().collect();
    let last = lines.len().saturating_sub(LAST);
    let panic = lines.iter().position(|line| line.contains("panicked at")).unwrap_or(last).min(last);
    let first = &lines[panic..last.min(panic + FIRST)];
    let between: &[&str] = if panic + FIRST < last { &["[...]"] } else { &[] };
    [first, between, &lines[last..]].concat().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_panic_is_told_and_not_only_those_that_came_of_it() {
        let mut said: Vec<String> = (0..100).map(|number| format!("before {number}")).collect();
        said.push("thread 'a' panicked at first.rs:1:2:".to_owned());
        said.extend((0..100).map(|number| format!("after {number}")));
        let told = excerpt(&said.join("\n"));
        assert!(told.starts_with("thread 'a' panicked at first.rs:1:2:\nafter 0\n"), "{told}");
        assert!(told.contains("after 28\n[...]\nafter 70\n") && told.ends_with("after 99"), "{told}");
        // Near the end, and nowhere.
        assert_eq!(excerpt(&said[..101].join("\n")), said[71..101].join("\n"));
        assert_eq!(excerpt(&said[..40].join("\n")), said[10..40].join("\n"));
        assert_eq!(excerpt("short"), "short");
    }
}
