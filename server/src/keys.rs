//! What lies in the key directory beside the engine's own keys: the certificates.
//!
//! ```text
//! lookup.key master.key ring proof.key    the engine's
//! ca/      ca.pem ca-key.pem            the authority that signs every certificate of this store
//! server/  ca.pem cert.pem key.pem names   the server's identity and what it is called
//! admin/   ca.pem cert.pem key.pem      the first principal, for the command line
//! ```
//! Each directory appears as a whole by a rename, so a crash in between leaves one or none, and the next
//! start goes on. The authority is needed only to issue: `ca/` may be kept elsewhere between issues and
//! renewals of the server's certificate (`certificate.rs`).

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use kami_engine::{
    Caller, Command, Engine, Principal, PrincipalSpec, Renewal, Reply, ReplyBody, RequestId, Role, Session,
    Stats,
};
use kami_net::{Authority, Identity, IdentityError, tls};

use crate::exit::Failure;
use crate::principal;

/// The directory of keys that belongs to a data directory, unless told otherwise: beside it, so that a
/// backup of the data carries no key.
pub fn beside(data: &Path) -> PathBuf {
    // `.` and `..` have no name of their own.
    let named = match data.file_name() {
        Some(_) => data.to_owned(),
        None => fs::canonicalize(data).unwrap_or_else(|_| data.to_owned()),
    };
    let mut name = named.file_name().unwrap_or_default().to_owned();
    name.push(".keys");
    named.with_file_name(name)
}

/// A path without links, also one of which only the beginning exists.
pub fn resolved(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut missing = Vec::new();
    for there in path.ancestors() {
        if let Ok(there) = fs::canonicalize(there) {
            return missing.iter().rev().fold(there, |path, name| path.join(name));
        }
        missing.extend(there.file_name());
    }
    path
}

/// Refuses keys inside the data.
pub fn check_apart(data: &Path, keys: &Path) -> Result<(), Failure> {
    if resolved(keys).starts_with(resolved(data)) {
        return Err(Failure::usage(
            "the keys must not lie in the data directory, whose backups would carry them; choose another \
             directory with --keys",
        ));
    }
    Ok(())
}

/// What the engine keeps in the key directory; the one before the last master key is there during a rotation.
const ENGINE_KEYS: [&str; 5] = ["lookup.key", "master.key", "master.key.previous", "ring", "proof.key"];

/// Refuses to serve with keys of the engine that others may read, as those of TLS are refused wherever they are loaded:
/// a copy that was put back has the modes of whatever carried it. Of copies that are only read from this is not asked:
/// they may lie on a file system without modes.
pub fn check_private(keys: &Path) -> Result<(), Failure> {
    for file in ENGINE_KEYS {
        match tls::check_private(&keys.join(file)) {
            // The engine knows what must be there.
            Err(IdentityError::File { source, .. })
                if matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            checked => checked?,
        }
    }
    Ok(())
}

/// A start that finds the admin's certificate this close to its end renews it.
const ADMIN_RENEWAL_DAYS: u64 = 90;

/// Sees to it that the identity in `admin/` exists and that the engine knows it.
///
/// A store begins with it as principal 1. If the directory was lost, a new identity is made and
/// registered under another name, which stands in the log like every change. One that was revoked stays
/// revoked.
pub fn ensure_admin(engine: &Engine, keys: &Path) -> Result<(), Failure> {
    let home = keys.join("admin");
    if !home.exists() {
        let identity = authority(keys)?.issue("admin")?;
        install(&home, |new| Ok(identity.save(new)?))?;
    }
    if let Err(failure) = renew_admin(engine, keys) {
        tracing::warn!("{}", failure.message);
    }
    let facts = Identity::load(&home)?.certificate_facts()?;
    let key = facts.key;
    let principals = principals(engine)?;
    match principals.iter().find(|principal| principal.spec.key == key) {
        Some(principal) if principal.revoked => {
            tracing::warn!(identity = %home.display(), "the local admin identity was revoked; it opens nothing");
            return Ok(());
        }
        Some(_) => return Ok(()),
        None => {}
    }
    let taken = |name: &str| principals.iter().any(|principal| principal.spec.name == name);
    let mut name = "admin".to_owned();
    let mut number = 1;
    while taken(&name) {
        number += 1;
        name = format!("admin-{number}");
    }
    let spec = PrincipalSpec { certificate: facts.note, ..PrincipalSpec::of(&name, Role::Admin, key) };
    let reply = run(engine, Command::PrincipalAdd(Box::new(spec)))?;
    if !reply.status.is_done() {
        return Err(Failure {
            status: Some(reply.status),
            ..Failure::refused(format!("the admin cannot be registered: {}", reply.status.meaning()))
        });
    }
    tracing::info!(name, identity = %home.display(), "registered the local admin identity");
    Ok(())
}

/// Gives the identity in `admin/`, if it is there, a new certificate when its own ends soon, and tells the engine:
/// at the start, and while the server runs, which may be for longer than a certificate lasts.
pub fn renew_admin(engine: &Engine, keys: &Path) -> Result<(), Failure> {
    let home = keys.join("admin");
    if !home.exists() {
        return Ok(());
    }
    let renewed = principal::renew_early(&home, &keys.join("ca"), ADMIN_RENEWAL_DAYS);
    let renewed = renewed.map_err(|failure| {
        let message =
            format!("the local admin identity ends soon and cannot be renewed: {}", failure.message);
        Failure { message, ..failure }
    })?;
    let Some(facts) = renewed else { return Ok(()) };
    tracing::info!(identity = %home.display(), "renewed the local admin identity");
    let known = principals(engine)?.into_iter().find(|known| known.spec.key == facts.key && !known.revoked);
    if let Some(Principal { id, .. }) = known {
        let renewal = Renewal { principal: id, key: facts.key, certificate: facts.note };
        run(engine, Command::PrincipalRenew(Box::new(renewal)))?;
    }
    Ok(())
}

fn principals(engine: &Engine) -> Result<Vec<Principal>, Failure> {
    match run(engine, Command::PrincipalList)?.body {
        ReplyBody::Principals(principals) => Ok(principals),
        _ => Ok(Vec::new()),
    }
}

/// The engine's figures.
pub fn stats(engine: &Engine) -> Result<Stats, Failure> {
    match run(engine, Command::Stats)?.body {
        ReplyBody::Stats(stats) => Ok(*stats),
        _ => Ok(Stats::default()),
    }
}

/// Has the engine do something before anyone else can reach it.
fn run(engine: &Engine, command: Command) -> Result<Reply, Failure> {
    let session = Session::new(engine, Caller::LOCAL);
    session
        .run(RequestId::random(), command)
        .wait()
        .map_err(|error| Failure::environment(crate::exit::sentence(&error)))
}

/// The store's authority, made at the very first start: when nothing is there yet that one has issued. Another one
/// beside it would shut everybody out.
pub fn authority(keys: &Path) -> Result<Authority, Failure> {
    let home = keys.join("ca");
    if !home.exists() {
        if ["server", "admin"].iter().any(|issued| keys.join(issued).exists()) {
            return Err(Failure::environment(format!(
                "the certificate authority is missing: restore it from where it is kept path=`{}`",
                home.display()
            )));
        }
        install(&home, |new| Ok(Authority::create(new).map(drop)?))?;
    }
    Ok(Authority::load(&home)?)
}

/// Makes a directory of key files as a whole: written beside its place, synced, renamed.
pub fn install(home: &Path, fill: impl FnOnce(&Path) -> Result<(), Failure>) -> Result<(), Failure> {
    let new = home.with_extension("new");
    let old = home.with_extension("old");
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error: io::Error| file_failure(&path, &error)
    };
    // Left by a crash in between.
    for left in [&new, &old] {
        if left.exists() {
            fs::remove_dir_all(left).map_err(failed(left))?;
        }
    }
    fill(&new)?;
    sync(&new).map_err(failed(&new))?;
    if home.exists() {
        fs::rename(home, &old).map_err(failed(home))?;
    }
    fs::rename(&new, home).map_err(failed(&new))?;
    if let Some(parent) = home.parent() {
        sync(parent).map_err(failed(parent))?;
    }
    if old.exists() {
        fs::remove_dir_all(&old).map_err(failed(&old))?;
    }
    Ok(())
}

/// Writes a new file, durably.
pub fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    io::Write::write_all(&mut file, bytes)?;
    file.sync_all()
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// A failure to use a file of the key directory.
pub fn file_failure(path: &Path, error: &io::Error) -> Failure {
    Failure::environment(format!("the key directory cannot be used path=`{}`: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_lie_beside_the_data() {
        assert_eq!(beside(Path::new("kami-data")), Path::new("kami-data.keys"));
        assert_eq!(beside(Path::new("/srv/kami/")), Path::new("/srv/kami.keys"));
        let here = std::env::current_dir().unwrap();
        assert_eq!(beside(Path::new(".")).parent(), here.parent());
        assert!(check_apart(Path::new("a"), Path::new("a/keys")).is_err());
        assert!(check_apart(Path::new("a"), Path::new("a.keys")).is_ok());
    }
}
