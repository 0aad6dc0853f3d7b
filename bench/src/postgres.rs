//! PostgreSQL as a card store: a row a card, the guarded UPDATE a redemption, each its own transaction.
//!
//! `UPDATE … WHERE code = $1 AND state = sold`, prepared, committed with `synchronous_commit = on`: the
//! answer comes after the disk has the transaction. As for Redis, history, receipts and encryption are
//! left out.

use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tokio_postgres::{Client, NoTls};

use crate::args::Args;
use crate::codes::{CODE_BYTES, Codes, Scattered};
use crate::peer::{Process, find, free_port};
use crate::redeem::Done;
use crate::report::Latencies;
use crate::store::{Purpose, request_id};

/// Clients, one statement under way each.
const CLIENTS: u64 = 64;
/// Rows a statement when the cards are loaded.
const LOAD_CARDS: u64 = 10_000;
/// The states of a card.
const SOLD: i16 = 2;
const REDEEMED: i16 = 3;

/// The programs of an installation.
pub struct Programs {
    server: PathBuf,
    initdb: PathBuf,
}

/// A running server with an empty table.
pub struct Postgres {
    // Ended before its directory goes, with all its processes.
    _process: Process,
    address: String,
}

impl Postgres {
    /// The programs, if they are installed: Debian keeps them out of everybody's way.
    pub fn programs() -> Option<Programs> {
        let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        let mut versions: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
        versions.sort();
        versions.reverse();
        Some(Programs { server: find("postgres", &versions)?, initdb: find("initdb", &versions)? })
    }

    /// Makes a database in `directory` and starts a server for it.
    pub async fn start(programs: &Programs, directory: &Path) -> Result<Postgres> {
        let data = directory.join("postgres");
        std::fs::create_dir(&data)?;
        // It refuses to run as root, and wants to own its directory.
        let owner = unprivileged(directory)?;
        let command = |program: &Path| {
            let mut command = Command::new(program);
            if let Some((user, group)) = owner {
                command.uid(user).gid(group);
            }
            command.current_dir(directory);
            command
        };
        if let Some((user, group)) = owner {
            chown(&data, Some(user), Some(group))?;
            may_enter(directory, user, group)?;
        }
        let mut initdb = command(&programs.initdb);
        initdb.args(["--username=bench", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C", "-D"]);
        let made = initdb.arg(&data).output().context("cannot start initdb")?;
        ensure!(made.status.success(), "initdb failed: {}", String::from_utf8_lossy(&made.stderr));

        let port = free_port()?;
        let mut server = command(&programs.server);
        server.arg("-D").arg(&data).args(["-p", &port.to_string(), "-k", ""]);
        for setting in [
            "listen_addresses=127.0.0.1",
            "max_connections=100",
            "synchronous_commit=on",
            "shared_buffers=1GB",
            // A checkpoint within the run would be measured with it.
            "max_wal_size=16GB",
            "checkpoint_timeout=1h",
            "autovacuum=off",
        ] {
            server.args(["-c", setting]);
        }
        let process = Process::start(&mut server, directory)?.with_children();
        let address = format!("host=127.0.0.1 port={port} user=bench dbname=postgres");
        let postgres = Postgres { _process: process, address };
        let begun = Instant::now();
        let client = loop {
            match postgres.connect().await {
                Ok(client) => break client,
                Err(error) if Duration::from_secs(60) < begun.elapsed() => return Err(error),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        let table = "CREATE TABLE card (code bytea PRIMARY KEY, state smallint NOT NULL, request bytea)";
        client.batch_execute(table).await?;
        Ok(postgres)
    }

    async fn connect(&self) -> Result<Client> {
        let (client, connection) = tokio_postgres::connect(&self.address, NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// Puts sold cards there.
    pub async fn load(&mut self, args: &Args) -> Result<()> {
        let client = self.connect().await?;
        let codes = Codes::new(args.seed);
        let insert = "INSERT INTO card (code, state) SELECT unnest($1::bytea[]), $2";
        let insert = client.prepare(insert).await?;
        for from in (0..args.cards).step_by(LOAD_CARDS as usize) {
            let rows: Vec<[u8; CODE_BYTES]> =
                (from..args.cards.min(from + LOAD_CARDS)).map(|number| codes.code(number)).collect();
            let rows: Vec<&[u8]> = rows.iter().map(|code| &code[..]).collect();
            client.execute(&insert, &[&rows, &SOLD]).await?;
        }
        client.batch_execute("ANALYZE card; CHECKPOINT").await?;
        Ok(())
    }

    /// Redeems cards, each once.
    pub async fn redeem(&self, args: &Args, limit: Duration) -> Result<Done> {
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            let client = self.connect().await?;
            let update = "UPDATE card SET state = $3, request = $2 WHERE code = $1 AND state = $4";
            let update = client.prepare(update).await?;
            clients.push((client, update));
        }
        let codes = Codes::new(args.seed);
        let begun = Instant::now();
        let mut tasks = tokio::task::JoinSet::new();
        for (part, (client, update)) in (0..).zip(clients) {
            let mut numbers = Scattered::part(args.cards, part, CLIENTS);
            tasks.spawn(async move {
                let mut done = Done::default();
                let mut latencies = Latencies::default();
                while begun.elapsed() < limit {
                    let Some(number) = numbers.next() else { break };
                    let code: [u8; CODE_BYTES] = codes.code(number);
                    let id = request_id(Purpose::Redeem, number).0.to_le_bytes();
                    let submitted = Instant::now();
                    let changed = client.execute(&update, &[&&code[..], &&id[..], &REDEEMED, &SOLD]).await?;
                    latencies.record(submitted.elapsed(), changed);
                    done.done += changed;
                    done.errors += 1 - changed;
                }
                done.latencies = latencies;
                done.elapsed = begun.elapsed();
                Ok::<Done, tokio_postgres::Error>(done)
            });
        }
        let mut total = Done::default();
        while let Some(part) = tasks.join_next().await {
            total.add(&part??);
        }
        Ok(total)
    }
}

/// As whom to run the server, if we are root: a user of that name, or whoever owns nothing.
fn unprivileged(directory: &Path) -> Result<Option<(u32, u32)>> {
    // What we made belongs to whom we are.
    if std::fs::metadata(directory)?.uid() != 0 {
        return Ok(None);
    }
    let users = std::fs::read_to_string("/etc/passwd")?;
    for wanted in ["postgres", "nobody"] {
        for line in users.lines() {
            let fields: Vec<&str> = line.split(':').collect();
            if let [name, _, user, group, ..] = fields[..]
                && name == wanted
            {
                return Ok(Some((user.parse()?, group.parse()?)));
            }
        }
    }
    bail!("postgres does not run as root, and there is no user postgres or nobody")
}

/// That a user can enter a directory: every one on the way lets it through. Without, its program "cannot be started",
/// which says nothing of where.
fn may_enter(directory: &Path, user: u32, group: u32) -> Result<()> {
    let directory = directory.canonicalize()?;
    for step in directory.ancestors() {
        let about = std::fs::metadata(step)?;
        let bit = if about.uid() == user {
            0o100
        } else if about.gid() == group {
            0o010
        } else {
            0o001
        };
        ensure!(
            about.mode() & bit != 0,
            "postgres runs as user {user}, who cannot enter {step} (mode {mode:04o}): take another --dir, or let \
             it pass with `chmod o+x {step}`",
            step = step.display(),
            mode = about.mode() & 0o7777,
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_directory_that_postgres_cannot_enter_is_named() {
        let home = std::env::temp_dir().join(format!("kami-bench-enter-{}", std::process::id()));
        let inside = home.join("a/b");
        std::fs::create_dir_all(&inside).unwrap();
        let mode = |mode| std::fs::set_permissions(&home, std::fs::Permissions::from_mode(mode)).unwrap();
        let stranger = std::fs::metadata(&home).unwrap().uid() + 1000;
        mode(0o700);
        let refused = may_enter(&inside, stranger, stranger).unwrap_err().to_string();
        assert!(refused.contains(&format!("chmod o+x {}`", home.display())), "{refused}");
        assert!(refused.contains("mode 0700"), "{refused}");
        mode(0o711);
        may_enter(&inside, stranger, stranger).unwrap();
        std::fs::remove_dir_all(home).unwrap();
    }
}
