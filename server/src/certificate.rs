//! The server's certificate: issued by the store's own authority, and renewed while the server runs.
//!
//! ```text
//! from ───────────────── due (two thirds) ───────── until
//!        in use           renewed, when the authority's key is there; a warning a day when it is not
//! ```
//! * What is renewed keeps its key, so that a restarted server is the same one to its peers; names that are
//!   added take a new one.
//! * `server/` appears as a whole by a rename. A crash in between leaves the old one, or none, and the
//!   next start goes on.
//! * Somebody may put another certificate there, of the same authority: it is taken up within half a
//!   minute, or at once on SIGHUP.
//! * A certificate without an end (stores of the first version have one) is left as it is.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kami_net::{Identity, Server, Validity};
use tokio::sync::Notify;

use crate::exit::{Exit, Failure};
use crate::keys::{authority, file_failure, install, write_synced};
use crate::time::{now_ms, show};

const DAY_MS: u64 = 24 * 3600 * 1000;
/// Clocks differ: a certificate begins a little before it was issued.
const BEGINS_BEFORE_MS: u64 = 3600 * 1000;
/// How long a change of the files may go unnoticed.
const LOOK_MS: u64 = 30_000;

/// What the server shows of itself, and what keeps it valid.
pub struct Certificate {
    keys: PathBuf,
    names: Vec<String>,
    lifetime_ms: AtomicU64,
    identity: parking_lot::Mutex<Identity>,
    until_ms: AtomicU64,
    authority_until_ms: u64,
    /// Asks for a look at the files now.
    pub look: Notify,
}

impl Certificate {
    /// Takes the certificate in `keys/server`, or issues one where there is none, where it is due, or
    /// where a name is missing.
    pub fn open(keys: &Path, names: Vec<String>, days: u32) -> Result<Certificate, Failure> {
        let lifetime_ms = u64::from(days) * DAY_MS;
        let identity = current(keys, &names, lifetime_ms, now_ms())?;
        let validity = identity.validity()?;
        Ok(Certificate {
            keys: keys.to_owned(),
            names,
            lifetime_ms: lifetime_ms.into(),
            until_ms: validity.until_ms.into(),
            authority_until_ms: identity.authority_validity()?.until_ms,
            identity: parking_lot::Mutex::new(identity),
            look: Notify::new(),
        })
    }

    /// What a server begins with.
    pub fn identity(&self) -> Identity {
        self.identity.lock().clone()
    }

    /// How long the next one will be valid.
    pub fn set_days(&self, days: u32) {
        self.lifetime_ms.store(u64::from(days) * DAY_MS, Ordering::Relaxed);
    }

    /// When the certificate ends, and when the authority's does, in milliseconds since 1970.
    pub fn ends_ms(&self) -> (u64, u64) {
        (self.until_ms.load(Ordering::Relaxed), self.authority_until_ms)
    }

    /// When it is to be renewed, in milliseconds since 1970.
    pub fn due_ms(&self) -> u64 {
        self.identity.lock().validity().map_or(0, due_ms)
    }

    /// Renews it when it is due and takes up what others put in its place, for as long as it is polled.
    pub async fn keep(self: Arc<Self>, server: Server) {
        let mut warned_ms = 0;
        loop {
            let validity = self.identity.lock().validity();
            let due_ms = validity.map_or(0, due_ms).saturating_sub(now_ms());
            // Whoever is overdue waits for somebody to bring the authority back.
            let wait_ms = if due_ms == 0 { LOOK_MS } else { due_ms.min(LOOK_MS) };
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(wait_ms)) => {}
                () = self.look.notified() => warned_ms = 0,
            }
            let (this, server) = (Arc::clone(&self), server.clone());
            // Files are read, and written to the disk.
            let looked = tokio::task::spawn_blocking(move || this.look(&server)).await;
            if let Ok(Err(failure)) = looked
                && warned_ms + DAY_MS < now_ms()
            {
                warned_ms = now_ms();
                tracing::error!("the certificate cannot be renewed: {}", failure.message);
            }
        }
    }

    fn look(&self, server: &Server) -> Result<(), Failure> {
        let lifetime_ms = self.lifetime_ms.load(Ordering::Relaxed);
        let found = current(&self.keys, &self.names, lifetime_ms, now_ms())?;
        let mut identity = self.identity.lock();
        if found.is_same(&identity) {
            return Ok(());
        }
        server.change_certificate(&found)?;
        let Validity { until_ms, .. } = found.validity()?;
        self.until_ms.store(until_ms, Ordering::Relaxed);
        *identity = found;
        tracing::info!(until = show(until_ms), "new connections are shown a new certificate");
        Ok(())
    }
}

/// When a certificate is renewed: after two thirds of its time.
const fn due_ms(validity: Validity) -> u64 {
    validity.from_ms + (validity.until_ms - validity.from_ms) / 3 * 2
}

/// The certificate that is to be shown now. Issues one if need be.
fn current(keys: &Path, names: &[String], lifetime_ms: u64, now_ms: u64) -> Result<Identity, Failure> {
    let home = keys.join("server");
    let names_file = home.join("names");
    let mut known: Vec<String> = match fs::read_to_string(&names_file) {
        Ok(text) => text.lines().map(str::to_owned).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(file_failure(&names_file, &error)),
    };
    let present = if home.exists() { Some(Identity::load(&home)?) } else { None };
    let missing: Vec<String> = names.iter().filter(|name| !known.contains(name)).cloned().collect();
    let mut follows = None;
    if let Some(present) = present {
        let validity = present.validity()?;
        check_authority(&present, now_ms)?;
        if missing.is_empty() {
            if now_ms < validity.from_ms {
                return Err(Failure::environment(format!(
                    "the server's certificate is not valid before {}: is the clock right? path=`{}`",
                    show(validity.from_ms),
                    home.display()
                )));
            }
            if now_ms < due_ms(validity) {
                return Ok(present);
            }
            if !keys.join("ca").exists() {
                let until = show(validity.until_ms);
                let what = "the authority's key is needed to renew the server's certificate: put `ca` back";
                let file = home.display();
                if validity.until_ms <= now_ms {
                    let ended = format!("the server's certificate ended on {until}; {what} path=`{file}`");
                    return Err(Failure::environment(ended));
                }
                tracing::warn!(%until, path = %file, "{what}");
                return Ok(present);
            }
            follows = Some(present);
        }
    }
    known.extend(missing);
    let authority = authority(keys)?;
    let validity =
        Validity { from_ms: now_ms.saturating_sub(BEGINS_BEFORE_MS), until_ms: now_ms + lifetime_ms };
    let identity = authority.issue_server_within(&known, validity, follows.as_ref())?;
    check_authority(&identity, now_ms)?;
    install(&home, |new| {
        identity.save(new)?;
        let file = new.join("names");
        write_synced(&file, known.join("\n").as_bytes()).map_err(|error| file_failure(&file, &error))
    })?;
    Ok(identity)
}

/// Whether anybody would accept a certificate of this authority.
fn check_authority(identity: &Identity, now_ms: u64) -> Result<(), Failure> {
    let Validity { until_ms, .. } = identity.authority_validity()?;
    if now_ms < until_ms {
        return Ok(());
    }
    Err(Failure::new(
        Exit::Environment,
        format!(
            "the certificate authority ended on {}: move `ca`, `server` and `admin` out of the key directory, \
             start again for new ones, and give every principal a new identity",
            show(until_ms)
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000_000;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn certificates_survive_a_crash_between_their_files() {
        let dir = tempfile::tempdir().unwrap();
        // A start that died after the authority's key and before its certificate.
        fs::create_dir(dir.path().join("ca.new")).unwrap();
        fs::write(dir.path().join("ca.new/ca-key.pem"), "half").unwrap();
        let open = |wanted: &[&str]| {
            current(dir.path(), &names(wanted), DAY_MS, NOW).unwrap().key_fingerprint().unwrap()
        };
        let first = open(&["localhost"]);
        assert_eq!(first, open(&["localhost"]), "the same server to its peers");
        let renamed = open(&["kami.example"]);
        assert_ne!(first, renamed);
        assert_eq!(open(&["localhost", "kami.example"]), renamed);
    }

    #[test]
    fn a_certificate_is_renewed_after_two_thirds_of_its_time() {
        let dir = tempfile::tempdir().unwrap();
        let names = names(&["localhost"]);
        let at = |now| current(dir.path(), &names, 30 * DAY_MS, now);
        let first = at(NOW).unwrap();
        assert_eq!(first.validity().unwrap().until_ms, NOW + 30 * DAY_MS);
        assert!(at(NOW + 19 * DAY_MS).unwrap().is_same(&first));
        let second = at(NOW + 21 * DAY_MS).unwrap();
        assert_eq!(second.validity().unwrap().until_ms, NOW + 51 * DAY_MS);
        assert_eq!(second.key_fingerprint().unwrap(), first.key_fingerprint().unwrap(), "the key stays");

        // Without the authority it serves as long as it is valid.
        fs::rename(dir.path().join("ca"), dir.path().join("elsewhere")).unwrap();
        assert!(at(NOW + 50 * DAY_MS).unwrap().is_same(&second));
        let ended = at(NOW + 52 * DAY_MS).err().unwrap();
        assert_eq!(ended.exit, Exit::Environment);
        assert!(
            ended.message.contains("ended on 2027-") && ended.message.contains("put `ca` back"),
            "{ended:?}"
        );
        let early = at(NOW + 21 * DAY_MS - 1).err().map(|failure| failure.message);
        assert!(early.is_none(), "it begins an hour before it was issued");
        let early = at(NOW - DAY_MS).err().unwrap();
        assert!(early.message.contains("is the clock right?"), "{early:?}");
        fs::rename(dir.path().join("elsewhere"), dir.path().join("ca")).unwrap();
        assert!(!at(NOW + 52 * DAY_MS).unwrap().is_same(&second), "an ended one is renewed too");
    }
}
