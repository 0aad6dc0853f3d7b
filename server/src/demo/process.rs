//! The server as a child process of the demo: this same binary, told apart only by its arguments.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::exit::{Exit, Failure};

/// A running server.
pub struct ServerProcess {
    child: Child,
    pub ready: Ready,
    log: PathBuf,
}

/// What its ready line says.
pub struct Ready {
    pub address: SocketAddr,
    pub cards: u64,
    pub lsn: u64,
    pub commit: String,
}

impl Ready {
    fn parse(line: &str) -> Option<Ready> {
        let mut words = line.strip_prefix("ready ")?.split_whitespace();
        let mut field = |name: &str| words.next()?.strip_prefix(name)?.strip_prefix('=');
        Some(Ready {
            address: field("quic")?.parse().ok()?,
            cards: field("cards")?.parse().ok()?,
            lsn: field("lsn")?.parse().ok()?,
            commit: field("commit")?.to_owned(),
        })
    }
}

impl ServerProcess {
    /// Starts it in `directory` and waits until it is ready; says how long that took.
    pub async fn start(
        directory: &Path,
        listen: &str,
        unsafe_filesystem: bool,
    ) -> Result<(ServerProcess, Duration), Failure> {
        let failed = |what: &str, error: std::io::Error| Failure::environment(format!("{what}: {error}"));
        let binary = std::env::current_exe().map_err(|error| failed("this binary cannot be found", error))?;
        let log = directory.join("server.log");
        let errors = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .map_err(|error| failed("the server's log cannot be written", error))?;
        let mut command = Command::new(binary);
        command.arg("serve").arg("--data").arg(directory.join("data")).args(["--listen", listen]);
        command.arg("--end-with-parent");
        // Settings meant for the real server are not the demo's.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("KAMI_") {
                command.env_remove(name);
            }
        }
        if unsafe_filesystem {
            command.arg("--unsafe-filesystem");
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors).kill_on_drop(true);
        // Signals of the terminal are the demo's, which then ends its server.
        command.process_group(0);
        let started = Instant::now();
        let mut child = command.spawn().map_err(|error| failed("the server cannot be started", error))?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout)
                .read_line(&mut line)
                .await
                .map_err(|error| failed("the server's ready line cannot be read", error))?;
        }
        let took = started.elapsed();
        let Some(ready) = Ready::parse(&line) else {
            let status = child.wait().await.ok();
            let log = std::fs::read_to_string(&log).unwrap_or_default();
            let last = log.lines().last().unwrap_or("it said nothing");
            let code = status.and_then(|status| status.code());
            let exit =
                if code == Some(Exit::Environment as i32) { Exit::Environment } else { Exit::ProofFailed };
            return Err(Failure::new(exit, format!("the server did not start (exit code {code:?}): {last}")));
        };
        Ok((ServerProcess { child, ready, log }, took))
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id().unwrap_or(0)
    }

    /// A way to send it SIGKILL at once, from anywhere. It works while this is here: only then is it certain
    /// that the number is still its own.
    pub fn killer(&self) -> impl Fn() + Send + Sync + 'static {
        let id = i32::try_from(self.id()).ok().and_then(Pid::from_raw);
        move || {
            // One that has ended already shows that by itself.
            let _ = id.map(|id| rustix::process::kill_process(id, Signal::KILL));
        }
    }

    /// SIGKILL, and waits until it is gone.
    pub async fn kill(mut self) {
        if let Err(error) = self.child.kill().await {
            tracing::warn!("the server could not be killed: {error}");
        }
    }

    /// SIGTERM, and waits until it has closed the store.
    pub async fn stop(mut self) -> Result<(), Failure> {
        let id = i32::try_from(self.id()).ok().and_then(Pid::from_raw);
        if let Some(id) = id {
            let signalled = rustix::process::kill_process(id, Signal::TERM);
            signalled
                .map_err(|error| Failure::environment(format!("the server takes no signal: {error}")))?;
        }
        match self.child.wait().await {
            Ok(status) if status.success() => Ok(()),
            status => {
                let log = std::fs::read_to_string(&self.log).unwrap_or_default();
                let last = log.lines().last().unwrap_or("it said nothing");
                Err(Failure::new(
                    Exit::ProofFailed,
                    format!("the server did not end in order ({status:?}): {last}"),
                ))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ready_line_is_understood() {
        let ready = Ready::parse("ready quic=127.0.0.1:7400 cards=12 lsn=4096 commit=direct\n").unwrap();
        assert_eq!((ready.address.port(), ready.cards, ready.lsn), (7400, 12, 4096));
        assert_eq!(ready.commit, "direct");
        assert!(Ready::parse("").is_none());
        assert!(Ready::parse("ready quic=x").is_none());
    }
}
