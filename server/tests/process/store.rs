//! A store in a directory of its own, the server on it, and commands against that.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

use kami_net::{Client, ClientOptions, Identity};
use rustix::process::{Pid, Signal};
use serde_json::Value;
use tempfile::TempDir;

/// Where the identity lies that the first start makes.
pub const ADMIN: &str = "kami-data.keys/admin";

/// A directory for one test.
pub struct Home {
    directory: TempDir,
}

impl Home {
    pub fn new() -> Home {
        // Below the target directory, because the temporary one may be a memory file system, which the
        // server refuses.
        let base = Path::new(env!("CARGO_TARGET_TMPDIR"));
        Home { directory: TempDir::new_in(base).unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file.
    pub fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// `kami` with these arguments, in this directory.
    pub fn kami(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kami"));
        command.args(arguments).current_dir(self.directory.path());
        for (name, _) in std::env::vars_os() {
            // A mistake that is planted is to be made by the binary too.
            if name.to_string_lossy().starts_with("KAMI_") && name != "KAMI_PLANTED" {
                command.env_remove(name);
            }
        }
        command.env("TZ", "UTC");
        command
    }

    /// Runs `kami` to its end.
    pub fn run(&self, arguments: &[&str]) -> Ended {
        Ended::of(self.kami(arguments).stdin(Stdio::null()).output().unwrap())
    }

    /// Starts the server on `kami-data` and waits until it is ready.
    pub fn serve(&self) -> Server<'_> {
        self.try_serve(&[]).unwrap_or_else(|ended| panic!("the server did not start: {ended:?}"))
    }

    /// Starts the server with more arguments; how it ended if it did.
    pub fn try_serve(&self, more: &[&str]) -> Result<Server<'_>, Ended> {
        self.try_serve_with(more, |_| ())
    }

    /// The same with its standard error in the file `log`, which may be looked at while it runs.
    pub fn serve_logged(&self, more: &[&str]) -> Server<'_> {
        let log = std::fs::File::create(self.path("log")).unwrap();
        self.try_serve_with(more, |command| {
            command.stderr(log);
        })
        .unwrap_or_else(|_| panic!("the server did not start: {}", self.text("log")))
    }

    /// A file's text.
    pub fn text(&self, name: &str) -> String {
        String::from_utf8_lossy(&std::fs::read(self.path(name)).unwrap()).into_owned()
    }

    /// Waits until the log has this text so many times.
    #[track_caller]
    pub fn wait_for_log(&self, text: &str, times: usize) {
        let patience = Instant::now() + Duration::from_secs(30);
        while self.text("log").matches(text).count() < times {
            assert!(Instant::now() < patience, "no `{text}` in {}", self.text("log"));
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Starts the server after `set` has had its say about the process.
    pub fn try_serve_with(&self, more: &[&str], set: impl FnOnce(&mut Command)) -> Result<Server<'_>, Ended> {
        let mut arguments = vec!["serve", "--end-with-parent"];
        if !["--config", "--data", "--sandbox"].iter().any(|named| more.contains(named)) {
            arguments.extend(["--data", "kami-data"]);
        }
        if !more.contains(&"--listen") {
            arguments.extend(["--listen", "127.0.0.1:0"]);
        }
        arguments.extend(more);
        let mut command = self.kami(&arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        set(&mut command);
        let mut child = command.spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        if !line.starts_with("ready ") {
            return Err(Ended::of(child.wait_with_output().unwrap()));
        }
        let address = field(&line, "quic").parse().unwrap();
        Ok(Server { home: self, child: Some(child), _stdout: stdout, line, address })
    }
}

fn field<'a>(line: &'a str, name: &str) -> &'a str {
    let word = line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    word.unwrap_or_else(|| panic!("no {name} in {line}"))
}

/// A process that has ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Ended {
    pub fn of(output: Output) -> Ended {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ended { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// What a command printed that was done.
    #[track_caller]
    pub fn done(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.out
    }

    /// The one JSON object of a command that was done.
    #[track_caller]
    pub fn json(&self) -> Value {
        assert_eq!(self.code, Some(0), "{self:?}");
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Asserts that the command line was refused, with this in the text.
    #[track_caller]
    pub fn refuses_usage(&self, because: &str) {
        assert_eq!(self.code, Some(2), "{self:?}");
        assert!(self.err.contains(because), "{self:?}");
    }

    /// Asserts that a verification found this.
    #[track_caller]
    pub fn names_problem(&self, what: &str) {
        assert_eq!(self.code, Some(5), "{self:?}");
        let found: Value = serde_json::from_str(&self.out).unwrap();
        assert!(found["problems"][0].as_str().is_some_and(|problem| problem.contains(what)), "{self:?}");
    }

    /// Asserts the exit code and that one sentence on standard error says why.
    #[track_caller]
    pub fn fails(&self, code: i32, because: &str) {
        assert_eq!(self.code, Some(code), "{self:?}");
        let sentences: Vec<&str> = self.err.lines().filter(|line| line.starts_with("kami: ")).collect();
        assert_eq!(sentences.len(), 1, "{self:?}");
        assert!(sentences[0].contains(because), "{self:?}");
        assert!(!self.err.contains("panicked"), "{self:?}");
    }
}

/// A server that is ready; killed when dropped.
pub struct Server<'a> {
    home: &'a Home,
    child: Option<Child>,
    _stdout: BufReader<ChildStdout>,
    /// The ready line.
    pub line: String,
    pub address: SocketAddr,
}

impl Server<'_> {
    /// A client command against this server.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.home.kami(arguments);
        command.env("KAMI_SERVER", self.address.to_string());
        command
    }

    /// Runs a client command to its end.
    pub fn run(&self, arguments: &[&str]) -> Ended {
        Ended::of(self.command(arguments).stdin(Stdio::null()).output().unwrap())
    }

    /// The same with something on standard input.
    pub fn run_with(&self, arguments: &[&str], input: &str) -> Ended {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        Ended::of(child.wait_with_output().unwrap())
    }

    /// Runs a client command with `--json` that must be done.
    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> Value {
        let mut arguments = arguments.to_vec();
        arguments.push("--json");
        self.run(&arguments).json()
    }

    /// Adds a product of this face value in CNY, and imports a card file with this text.
    #[track_caller]
    pub fn stock(&self, product: &str, face: &str, cards: impl AsRef<[u8]>) {
        self.json(&["product", "add", product, "--face", face, "--currency", "CNY"]);
        self.home.file("cards.txt", cards);
        self.json(&["import", "cards.txt", "--product", product]);
    }

    /// How whoever has an identity of this home connects.
    pub fn options(&self, identity: &str) -> ClientOptions {
        ClientOptions::new(self.address, Identity::load(&self.home.path(identity)).unwrap())
    }

    /// A client of the admin, who waits so long for an answer.
    pub async fn client(&self, timeout: Duration) -> Client {
        Client::connect(ClientOptions { timeout, ..self.options(ADMIN) }).await.unwrap()
    }

    /// A number of the ready line.
    pub fn ready(&self, name: &str) -> u64 {
        field(&self.line, name).parse().unwrap()
    }

    /// The process's number.
    pub fn id(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    pub fn signal(&self, signal: Signal) {
        let id = self.child.as_ref().unwrap().id();
        rustix::process::kill_process(Pid::from_raw(id.try_into().unwrap()).unwrap(), signal).unwrap();
    }

    /// SIGTERM, and waits for the end.
    pub fn stop(mut self) -> Ended {
        self.signal(Signal::TERM);
        Ended::of(self.child.take().unwrap().wait_with_output().unwrap())
    }

    /// Waits for the end that it comes to by itself.
    pub fn end(mut self) -> Ended {
        Ended::of(self.child.take().unwrap().wait_with_output().unwrap())
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
