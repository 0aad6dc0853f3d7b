//! A peer's server as a child process: found, started, waited for, killed.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

/// A server, killed when dropped.
pub struct Process(Child);

impl Process {
    /// Starts it; what it says goes into a file in `directory`.
    pub fn start(command: &mut Command, directory: &Path) -> Result<Process> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(directory.join("server.log"))?;
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn();
        Ok(Process(child.with_context(|| format!("cannot start {name}"))?))
    }

    /// Ends it as a crash would.
    pub fn kill(&mut self) -> Result<()> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may be gone already; then there is nothing to do.
        let _ = self.kill();
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
