//! Bakes the commit into the binary: a figure without the commit it was taken on says nothing. And the compiler,
//! which counts of instructions depend on.
//!
//! It runs again when a source or the checked-out commit changes, so that `-dirty` is said of what was
//! built and not of what lies there when it runs.

use std::process::Command;

/// What goes into the binary; documents and results may change without making a build dirty.
const SOURCES: [&str; 6] = ["Cargo.toml", "Cargo.lock", "wal", "engine", "net", "bench"];
/// Results of earlier runs lie among the sources.
const NOT_SOURCES: &str = ":!bench/runs";

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").current_dir("..").args(args).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn main() {
    for source in SOURCES {
        let watched = if source.starts_with("Cargo") { source.to_owned() } else { format!("{source}/src") };
        println!("cargo::rerun-if-changed=../{watched}");
    }
    for file in ["HEAD", "logs/HEAD"] {
        if let Some(path) = git(&["rev-parse", "--path-format=absolute", "--git-path", file]) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    let status = [&["status", "--porcelain", "--untracked-files=no", "--"], &SOURCES[..], &[NOT_SOURCES]];
    let commit = match (git(&["rev-parse", "--short=12", "HEAD"]), git(&status.concat())) {
        (Some(commit), Some(changed)) if changed.is_empty() => commit,
        (Some(commit), _) => format!("{commit}-dirty"),
        (None, _) => "unknown".to_owned(),
    };
    println!("cargo::rustc-env=KAMI_COMMIT={commit}");
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(rustc).arg("--version").output();
    let version = version.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    println!("cargo::rustc-env=KAMI_COMPILER={}", version.unwrap_or_else(|_| "unknown".to_owned()));
}
