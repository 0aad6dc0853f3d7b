//! Child processes of this same binary: a server that does not share the client's core, and a process
//! that can be killed.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::args::{Args, Workload};

/// A child, killed when dropped.
pub struct Child(std::process::Child);

impl Child {
    /// Starts a child workload on `directory`, with the flags that every child needs and `more`.
    pub fn start(args: &Args, workload: Workload, directory: &Path, more: &[String]) -> Result<Child> {
        let child = Command::new(std::env::current_exe()?)
            .args([&workload.name(), "--commit-path", args.commit_path.name()])
            .args(["--cards", &args.cards.to_string(), "--seed", &args.seed.to_string(), "--store"])
            .arg(directory)
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start a child")?;
        Ok(Child(child))
    }

    /// Waits for the line that begins with `word`; returns the rest of it.
    pub fn line(&mut self, word: &str) -> Result<String> {
        let mut line = String::new();
        BufReader::new(self.0.stdout.as_mut().context("no output of a child")?).read_line(&mut line)?;
        let rest = line.strip_prefix(word).map(|rest| rest.trim().to_owned());
        ensure!(rest.is_some(), "the child ended before it was {word}");
        Ok(rest.unwrap_or_default())
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Ends it as a crash would.
    pub fn kill(&mut self) -> Result<()> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may be gone already; then there is nothing to do.
        let _ = self.kill();
    }
}

/// The result of another run of this program, with the flags that all runs share and `more`.
pub fn result(args: &Args, workload: Workload, more: &[&str]) -> Result<Value> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args([&workload.name(), "--json", "--commit-path", args.commit_path.name()]);
    command.args(["--cards", &args.cards.to_string(), "--seed", &args.seed.to_string()]);
    command.arg("--dir").arg(&args.dir);
    if let Some(limit) = args.seconds {
        command.args(["--seconds", &limit.as_secs_f64().to_string()]);
    }
    if args.no_pin {
        command.arg("--no-pin");
    }
    let output = command.args(more).output().context("cannot start a run of our own")?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.stdout.is_empty(), "{} made no result: {told}", workload.name());
    serde_json::from_slice(&output.stdout).context("a result that is no JSON")
}

/// The two numbers of a child's line.
pub fn answer(line: &str) -> Result<[u64; 2]> {
    let mut numbers = line.split_whitespace().map(str::parse);
    let (Some(Ok(one)), Some(Ok(other))) = (numbers.next(), numbers.next()) else {
        anyhow::bail!("not two numbers: {line}");
    };
    Ok([one, other])
}

/// Tells the parent something.
pub fn say(line: &str) {
    println!("{line}");
    std::io::stdout().flush().expect("the parent listens");
}

/// Blocks until the parent kills us, or is gone itself.
pub fn wait_for_the_end() -> Result<()> {
    let _ = std::io::stdin().read_line(&mut String::new())?;
    Ok(())
}

/// Keeps this process on one core, unless there is only one or the user does not want it.
pub fn pin(args: &Args, core: usize) -> Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if args.no_pin || cores <= core {
        return Ok(());
    }
    let mut set = rustix::thread::CpuSet::new();
    set.set(core);
    rustix::thread::sched_setaffinity(None, &set).context("cannot pin to a core")
}
