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
//! * One that is not valid yet, because the clock was once ahead, is issued again.
//! * A running server issues a successor and nothing else: where the directory has gone, or the authority, it shows
//!   what it has and says so once a day. Keys that are only not mounted are not made anew.
//! * The local admin's certificate is renewed with it.
//! * A certificate without an end (stores of the first version have one) is left as it is.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kami_engine::Engine;
use kami_net::{Identity, Server, Validity};
use tokio::sync::Notify;

use crate::exit::{Exit, Failure};
use crate::keys::{authority, file_failure, install, renew_admin, write_synced};
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
    /// When something was last said to be wrong, in milliseconds since 1970.
    complained_ms: AtomicU64,
    /// Asks for a look at the files now.
    pub look: Notify,
}

impl Certificate {
    /// Takes the certificate in `keys/server`, or issues one where there is none, where it is due, or
    /// where a name is missing.
    pub fn open(keys: &Path, names: Vec<String>, days: u32) -> Result<Certificate, Failure> {
        let lifetime_ms = u64::from(days) * DAY_MS;
        let Found { identity, complaint } = current(keys, &names, lifetime_ms, now_ms(), true)?;
        let validity = identity.validity()?;
        if let Some(complaint) = &complaint {
            tracing::warn!("{complaint}");
        }
        Ok(Certificate {
            complained_ms: complaint.map_or(0, |_| now_ms()).into(),
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
    pub async fn keep(self: Arc<Self>, server: Server, engine: Engine) {
        loop {
            let validity = self.identity.lock().validity();
            let due_ms = validity.map_or(0, due_ms).saturating_sub(now_ms());
            // Whoever is overdue waits for somebody to bring the authority back.
            let wait_ms = if due_ms == 0 { LOOK_MS } else { due_ms.min(LOOK_MS) };
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(wait_ms)) => {}
                () = self.look.notified() => self.complained_ms.store(0, Ordering::Relaxed),
            }
            let (this, server, engine) = (Arc::clone(&self), server.clone(), engine.clone());
            // Files are read, and written to the disk.
            let _ = tokio::task::spawn_blocking(move || {
                let complaints = [this.look(&server), renew_admin(&engine, &this.keys).map(|()| None)];
                this.complain(complaints);
            })
            .await;
        }
    }

    /// Says once a day what is wrong, and at once what is wrong after all was well.
    fn complain(&self, complaints: [Result<Option<String>, Failure>; 2]) {
        let what: Vec<String> = complaints
            .into_iter()
            .filter_map(|looked| match looked {
                Ok(complaint) => complaint,
                Err(failure) => Some(format!("the certificate cannot be renewed: {}", failure.message)),
            })
            .collect();
        if what.is_empty() {
            self.complained_ms.store(0, Ordering::Relaxed);
        } else if self.complained_ms.load(Ordering::Relaxed) + DAY_MS < now_ms() {
            self.complained_ms.store(now_ms(), Ordering::Relaxed);
            what.iter().for_each(|complaint| tracing::error!("{complaint}"));
        }
    }

    /// Takes up what lies in `server/`, renewed if it is due; what is wrong with it if it serves all the same.
    fn look(&self, server: &Server) -> Result<Option<String>, Failure> {
        let lifetime_ms = self.lifetime_ms.load(Ordering::Relaxed);
        let found = current(&self.keys, &self.names, lifetime_ms, now_ms(), false)?;
        let mut identity = self.identity.lock();
        if found.identity.is_same(&identity) {
            return Ok(found.complaint);
        }
        server.change_certificate(&found.identity)?;
        let Validity { until_ms, .. } = found.identity.validity()?;
        self.until_ms.store(until_ms, Ordering::Relaxed);
        *identity = found.identity;
        tracing::info!(until = show(until_ms), "new connections are shown a new certificate");
        Ok(found.complaint)
    }
}

/// A certificate that is to be shown, and what is wrong with it all the same.
struct Found {
    identity: Identity,
    complaint: Option<String>,
}

impl From<Identity> for Found {
    fn from(identity: Identity) -> Found {
        Found { identity, complaint: None }
    }
}

/// When a certificate is renewed: after two thirds of its time.
const fn due_ms(validity: Validity) -> u64 {
    validity.from_ms + (validity.until_ms - validity.from_ms) / 3 * 2
}

/// The certificate that is to be shown now. Issues one if need be; unless the server `starts`, only to follow one.
fn current(
    keys: &Path,
    names: &[String],
    lifetime_ms: u64,
    now_ms: u64,
    starts: bool,
) -> Result<Found, Failure> {
    let home = keys.join("server");
    if !starts && !home.exists() {
        return Err(Failure::environment(format!(
            "the server's certificate is missing: restore it, or start again for a new one path=`{}`",
            home.display()
        )));
    }
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
        // A name that is missing is the next start's business.
        if missing.is_empty() || !starts {
            if (validity.from_ms..due_ms(validity)).contains(&now_ms) {
                return Ok(present.into());
            }
            let has_authority = keys.join("ca").exists();
            if !has_authority && now_ms < validity.from_ms {
                return Err(Failure::environment(format!(
                    "the server's certificate is not valid before {}: is the clock right? If it is, put `ca` back \
                     for a new one path=`{}`",
                    show(validity.from_ms),
                    home.display()
                )));
            }
            if !has_authority {
                let until = show(validity.until_ms);
                let what = "the authority's key is needed to renew the server's certificate: put `ca` back";
                let file = home.display();
                if validity.until_ms <= now_ms {
                    let ended = format!("the server's certificate ended on {until}; {what} path=`{file}`");
                    return Err(Failure::environment(ended));
                }
                let complaint = Some(format!("{what} until=`{until}` path=`{file}`"));
                return Ok(Found { identity: present, complaint });
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
    Ok(identity.into())
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
            let found = current(dir.path(), &names(wanted), DAY_MS, NOW, true).unwrap();
            found.identity.key_fingerprint().unwrap()
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
        let found = |now| current(dir.path(), &names, 30 * DAY_MS, now, true);
        let at = |now| found(now).map(|found| found.identity);
        let first = at(NOW).unwrap();
        assert_eq!(first.validity().unwrap().until_ms, NOW + 30 * DAY_MS);
        assert!(at(NOW + 19 * DAY_MS).unwrap().is_same(&first));
        let second = at(NOW + 21 * DAY_MS).unwrap();
        assert_eq!(second.validity().unwrap().until_ms, NOW + 51 * DAY_MS);
        assert_eq!(second.key_fingerprint().unwrap(), first.key_fingerprint().unwrap(), "the key stays");

        // Without the authority it serves as long as it is valid.
        fs::rename(dir.path().join("ca"), dir.path().join("elsewhere")).unwrap();
        assert!(at(NOW + 50 * DAY_MS).unwrap().is_same(&second));
        let complaint = found(NOW + 50 * DAY_MS).unwrap().complaint.unwrap();
        assert!(complaint.contains("put `ca` back"), "{complaint}");
        assert_eq!(found(NOW + 30 * DAY_MS).unwrap().complaint, None);
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

    /// A clock that was ahead for a moment left a certificate that no start accepted any more.
    #[test]
    fn a_certificate_of_the_future_is_issued_again() {
        let dir = tempfile::tempdir().unwrap();
        let names = names(&["localhost"]);
        let at = |now| current(dir.path(), &names, 30 * DAY_MS, now, true).unwrap().identity;
        let first = at(NOW);
        let future = at(NOW + 3650 * DAY_MS);
        assert!(!future.is_same(&first));
        let now = at(NOW + DAY_MS);
        assert_eq!(now.validity().unwrap().until_ms, NOW + 31 * DAY_MS);
        assert_eq!(now.key_fingerprint().unwrap(), first.key_fingerprint().unwrap());
    }

    /// Keys that were not there for a moment, as when a volume is mounted again, were made anew by the running
    /// server: another authority, whose server nobody trusts.
    #[test]
    fn a_running_server_makes_no_authority_and_no_server() {
        let dir = tempfile::tempdir().unwrap();
        let names = names(&["localhost"]);
        let at = |starts| current(dir.path(), &names, 30 * DAY_MS, NOW, starts);
        let first = at(true).unwrap().identity;
        let away = dir.path().join("away");
        fs::create_dir(&away).unwrap();
        let move_all = |from: &Path, to: &Path| {
            ["ca", "server"].iter().for_each(|name| fs::rename(from.join(name), to.join(name)).unwrap());
        };
        move_all(dir.path(), &away);
        let gone = at(false).err().unwrap();
        assert!(gone.message.contains("is missing"), "{gone:?}");
        assert!(!dir.path().join("ca").exists() && !dir.path().join("server").exists());
        // An admin's identity of the first authority is left: no start makes a second one beside it.
        fs::create_dir(dir.path().join("admin")).unwrap();
        let gone = at(true).err().unwrap();
        assert!(gone.message.contains("the certificate authority is missing"), "{gone:?}");
        assert!(!dir.path().join("ca").exists());
        move_all(&away, dir.path());
        assert!(at(false).unwrap().identity.is_same(&first));
    }
}
