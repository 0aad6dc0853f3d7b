//! Building the tests once, and starting them afterwards without cargo.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};

/// The repository.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Test programs by package and target, `kami-wal` and `suite`; that of a library's own tests by the library's name.
#[derive(Clone, Debug, Default)]
pub struct Binaries(BTreeMap<(String, String), Program>);

#[derive(Clone, Debug)]
struct Program {
    path: PathBuf,
    /// Where cargo would run it.
    home: PathBuf,
}

/// How tests are built.
#[derive(Clone, Debug, Default)]
pub struct Build {
    /// Packages whose tests are wanted.
    pub packages: Vec<&'static str>,
    /// Features, as cargo takes them.
    pub features: Option<&'static str>,
    /// Whether with optimisation and without debug assertions.
    pub release: bool,
    /// Whether with loom in place of the standard library's atomics. Only the libraries' own tests are built then.
    pub loom: bool,
    /// Whether with shuttle in place of the standard library's locks, atomics and threads: see `SCHEDULED`.
    pub shuttle: bool,
    /// Whether with AddressSanitizer around whatever Rust allocates. Only the libraries' own tests are built then.
    pub address: bool,
}

/// What builds tests that run in schedules of shuttle: quick to build, quick to run, with debug assertions.
const SCHEDULED: [(&str, &str); 4] = [
    ("RUSTFLAGS", "--cfg shuttle"),
    ("CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS", "true"),
    ("CARGO_PROFILE_RELEASE_LTO", "off"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16"),
];

/// Sanitizers want a target to be named, so that build scripts are left without them.
const TARGET: &str =
    if cfg!(target_arch = "aarch64") { "aarch64-unknown-linux-gnu" } else { "x86_64-unknown-linux-gnu" };

impl Build {
    /// As a command line, for people.
    fn command(&self) -> Command {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.current_dir(root()).args([
            "test",
            "--no-run",
            "--locked",
            "--message-format=json-render-diagnostics",
        ]);
        for package in &self.packages {
            command.args(["-p", package]);
        }
        if let Some(features) = self.features {
            command.args(["--features", features]);
        }
        if self.release || self.loom || self.shuttle {
            command.arg("--release");
        }
        if self.loom {
            command.args(["--lib", "--target-dir", "target/loom"]);
            command.env("RUSTFLAGS", "--cfg loom --cfg crossbeam_loom");
        }
        if self.shuttle {
            command.args(["--target-dir", "target/shuttle"]).envs(SCHEDULED);
        }
        if self.address {
            command.args(["--lib", "--target-dir", "target/address", "--target", TARGET]);
            // A stable compiler has them too, and only asks to be told that one means it.
            command.env("RUSTFLAGS", "-Zsanitizer=address").env("RUSTC_BOOTSTRAP", "1");
        }
        command
    }

    /// Builds, and finds the programs.
    ///
    /// # Errors
    /// If cargo does not build them; what is wrong was printed.
    pub fn run(&self) -> anyhow::Result<Binaries> {
        let output = self.command().stderr(Stdio::inherit()).output().context("cargo cannot be started")?;
        ensure!(output.status.success(), "the tests do not build");
        let mut programs = BTreeMap::new();
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let Ok(message) = serde_json::from_str::<serde_json::Value>(line) else { continue };
            let is_test = message["reason"] == "compiler-artifact" && message["profile"]["test"] == true;
            let (Some(path), Some(target), Some(manifest)) = (
                message["executable"].as_str(),
                message["target"]["name"].as_str(),
                message["manifest_path"].as_str(),
            ) else {
                continue;
            };
            if !is_test {
                continue;
            }
            let home = Path::new(manifest).parent().context("a manifest lies in a directory")?.to_owned();
            let directory =
                home.file_name().context("a package has a directory")?.to_string_lossy().into_owned();
            let program = Program { path: path.into(), home };
            programs.insert((format!("kami-{directory}"), target.to_owned()), program);
        }
        Ok(Binaries(programs))
    }
}

impl Binaries {
    /// A process that runs one test, by its full name.
    ///
    /// # Errors
    /// If no such program was built.
    pub fn test(&self, test: &Test) -> anyhow::Result<Command> {
        let Some(program) = self.0.get(&(test.package.to_owned(), test.target.to_owned())) else {
            bail!("cargo built no tests named `{}` in `{}`", test.target, test.package);
        };
        let mut command = Command::new(&program.path);
        command.current_dir(&program.home).args(["--exact", test.name, "--nocapture", "--include-ignored"]);
        command.env("CARGO_MANIFEST_DIR", &program.home).env("RUST_BACKTRACE", "0").stdin(Stdio::null());
        Ok(command)
    }
}

impl Binaries {
    /// Processes that run, of each program, all tests with this in their names.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = Command> + 'a {
        self.0.values().map(move |program| {
            let mut command = Command::new(&program.path);
            command.current_dir(&program.home).arg(name).stdin(Stdio::null());
            command
        })
    }
}

/// One test, where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Test {
    /// The package.
    pub package: &'static str,
    /// The test target, or the library.
    pub target: &'static str,
    /// Its full name.
    pub name: &'static str,
}

impl Test {
    /// The command that runs it, for people.
    #[must_use]
    pub fn command(&self) -> String {
        let Test { package, target, name } = self;
        let target =
            if target.starts_with("kami_") { "--lib".to_owned() } else { format!("--test {target}") };
        let (before, after) = if self.is_scheduled() {
            let set: String = SCHEDULED.iter().map(|(name, value)| format!("{name}=\"{value}\" ")).collect();
            (set, " --release --target-dir target/shuttle")
        } else {
            (String::new(), "")
        };
        format!("{before}cargo test{after} -p {package} {target} -- --exact {name} --nocapture")
    }

    /// Whether it runs in schedules of shuttle.
    #[must_use]
    pub fn is_scheduled(&self) -> bool {
        self.name.starts_with("schedules::")
    }

    /// Whether it is a model of loom.
    #[must_use]
    pub fn is_loom(&self) -> bool {
        self.name.starts_with("loom_models::")
    }
}

/// Of the log's suite.
#[must_use]
pub const fn wal(name: &'static str) -> Test {
    Test { package: "kami-wal", target: "suite", name }
}

/// Of whole engines.
#[must_use]
pub const fn whole(name: &'static str) -> Test {
    Test { package: "kami-tests", target: "tests", name }
}

/// Of the engine's own.
#[must_use]
pub const fn engine(name: &'static str) -> Test {
    Test { package: "kami-engine", target: "kami_engine", name }
}

/// Of server and client in one process.
#[must_use]
pub const fn net(name: &'static str) -> Test {
    Test { package: "kami-net", target: "loopback", name }
}

/// Of the real binary.
#[must_use]
pub const fn process(name: &'static str) -> Test {
    Test { package: "kami-server", target: "process", name }
}

/// Of the log's loom models.
#[must_use]
pub const fn loom(name: &'static str) -> Test {
    Test { package: "kami-wal", target: "kami_wal", name }
}
