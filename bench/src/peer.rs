//! A peer's server as a child process: found, started, waited for, killed.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

/// How long a server may take to end when it is asked to.
const QUIT: Duration = Duration::from_secs(20);

/// A server, ended when dropped.
pub struct Process {
    child: Child,
    /// Whether it has processes of its own, which it ends and waits for when it is told to quit. Only then is their
    /// processor time ours in the figures, and nothing of them goes on into the next contender's run.
    has_children: bool,
}

impl Process {
    /// Starts it; what it says goes into a file in `directory`.
    pub fn start(command: &mut Command, directory: &Path) -> Result<Process> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(directory.join("server.log"))?;
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn();
        let child = child.with_context(|| format!("cannot start {name}"))?;
        Ok(Process { child, has_children: false })
    }

    /// One that has processes of its own.
    pub fn with_children(mut self) -> Process {
        self.has_children = true;
        self
    }

    /// Ends it as a crash would.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Has it end its processes and itself at once; whether it did.
    fn quit(&mut self) -> bool {
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let told = id.is_some_and(|id| kill_process(id, Signal::QUIT).is_ok());
        let begun = Instant::now();
        while told && begun.elapsed() < QUIT {
            match self.child.try_wait() {
                Ok(None) => std::thread::sleep(Duration::from_millis(5)),
                ended => return ended.is_ok(),
            }
        }
        false
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !(self.has_children && self.quit()) {
            // It may be gone already; then there is nothing to do.
            let _ = self.kill();
        }
    }
}

/// A program of this name, in `directories` or where the shell would find it.
pub fn find(name: &str, directories: &[PathBuf]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let shell: Vec<PathBuf> = std::env::split_paths(&path).collect();
    directories.iter().chain(&shell).map(|directory| directory.join(name)).find(|program| program.is_file())
}

/// A port that nobody listens on.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The processes of a server that was killed were nobody's: their processor time counted as somebody else's, so that
    /// every run with PostgreSQL looked disturbed.
    #[test]
    fn the_work_of_a_servers_processes_was_somebody_elses() {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap().trim();
        if u64::from_str_radix(ignored, 16).unwrap() & 1 << 2 != 0 {
            // As in the background of a shell. A shell cannot undo that, unlike the servers this is about.
            eprintln!("NOT RUN: QUIT is ignored here, and so it is by the shell that stands for a server");
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let server = "trap 'kill $!; wait; exit 0' QUIT
            (i=0; while [ $i -lt 400000 ]; do i=$((i+1)); done; echo done; exec sleep 30) & wait";
        let mut command = Command::new("/bin/sh");
        let process = Process::start(command.args(["-c", server]), directory.path()).unwrap().with_children();
        let log = directory.path().join("server.log");
        while !std::fs::read_to_string(&log).unwrap().contains("done") {
            std::thread::sleep(Duration::from_millis(5));
        }
        let id = process.child.id();
        let spent = || {
            let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
            let fields = stat.rsplit_once(')').unwrap().1.split_whitespace();
            // Of children that were waited for, and theirs.
            fields.skip(13).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum::<u64>()
        };
        let before = spent();
        drop(process);
        assert!(spent() >= before + 5, "{} ticks are counted", spent() - before);
        assert!(!Path::new(&format!("/proc/{id}")).exists());
    }
}
