//! What is wrong around a store: each cause has its exit code and a sentence that says what to do.

use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::store::{Ended, Home};

/// A server that must not start.
fn refused(home: &Home, more: &[&str]) -> Ended {
    match home.try_serve(more) {
        Ok(server) => panic!("the server started: {}", server.line),
        Err(ended) => ended,
    }
}

/// A store with cards in it, stopped.
fn stopped_store() -> Home {
    let home = Home::new();
    let server = home.serve();
    server.stock("tea", "5", (0..1000).map(|n| format!("TEA-{n:08}\n")).collect::<String>());
    server.json(&["sell", "tea", "--count", "10", "--order", "1"]);
    server.kill();
    home
}

#[test]
fn nothing_starts_beside_a_running_server() {
    let home = Home::new();
    let server = home.serve();
    refused(&home, &[]).fails(6, "in use by another process");
    let listen = server.address.to_string();
    let other = ["serve", "--data", "other", "--listen", &listen];
    let ended = home.run(&other);
    ended.fails(6, "cannot listen on the address");
    assert!(ended.err.contains("choose another with --listen"), "{ended:?}");
    let busy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let metrics = busy.local_addr().unwrap().to_string();
    let ended = home.run(&["serve", "--data", "other", "--listen", "127.0.0.1:0", "--metrics", &metrics]);
    ended.fails(6, "cannot serve metrics on the address");
    assert!(ended.err.contains("choose another with --metrics"), "{ended:?}");
    home.run(&["serve", "--data", "other", "--listen", "192.0.2.1:7400"]).fails(6, "no such address");
    let keys = ["serve", "--data", "other", "--listen", "127.0.0.1:0", "--keys", "kami-data.keys"];
    home.run(&keys).fails(6, "in use by another process");
    assert!(!home.path("other").exists(), "a busy port is found before anything is made");
    home.run(&["verify", "--data", "kami-data"]).fails(6, "in use by another process");
    home.run(&["wal", "inspect", "--data", "kami-data"]).fails(6, "in use by another process");
}

#[test]
fn directories_that_cannot_be_used() {
    let home = Home::new();
    home.file("kami-data", "a file");
    refused(&home, &[]).fails(6, "path=");
    fs::remove_file(home.path("kami-data")).unwrap();
    home.file("keys", "a file");
    refused(&home, &["--keys", "keys"]).fails(6, "path=");
    refused(&home, &["--keys", "kami-data/keys"]).fails(2, "--keys");
    home.run(&["verify", "--data", "nowhere"]).fails(6, "No such file");
    fs::create_dir(home.path("nothing")).unwrap();
    fs::create_dir(home.path("nothing.keys")).unwrap();
    home.run(&["verify", "--data", "nothing"]).fails(6, "no store");
    home.run(&["wal", "inspect", "--data", "nothing"]).fails(6, "no log");
    assert_eq!(home.run(&["serve"]).code, Some(2));
    assert_eq!(home.run(&[]).code, Some(2));
}

#[test]
fn keys_that_are_missing_or_anothers() {
    let home = stopped_store();
    let keys = home.path("kami-data.keys");
    let key = keys.join("lookup.key");
    let bytes = fs::read(&key).unwrap();
    fs::remove_file(&key).unwrap();
    refused(&home, &[]).fails(6, "a key is missing");
    home.run(&["verify", "--data", "kami-data"]).fails(6, "a key is missing");
    fs::write(&key, [7; 32]).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    refused(&home, &[]).fails(6, "not this store's");
    fs::write(&key, &bytes[..31]).unwrap();
    refused(&home, &[]).fails(6, "not this store's");
    fs::write(&key, bytes).unwrap();

    let key = keys.join("server/key.pem");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    refused(&home, &[]).fails(6, "chmod");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();

    // The authority is only needed to issue, and a lost admin identity is issued anew.
    fs::rename(keys.join("ca"), home.path("ca-kept-elsewhere")).unwrap();
    let server = home.serve();
    assert_eq!(server.ready("cards"), 1000);
    drop(server);
    fs::remove_dir_all(keys.join("admin")).unwrap();
    refused(&home, &[]).fails(6, "authority is missing");
    fs::rename(home.path("ca-kept-elsewhere"), keys.join("ca")).unwrap();
    let server = home.serve();
    assert_eq!(server.json(&["principal", "list"])["principals"][1]["name"], "admin-2");
}

/// Keys of a copy that came back with the modes of its carrier were taken without a word; only those of TLS were looked at.
#[test]
fn keys_that_others_may_read_are_refused() {
    let home = stopped_store();
    let key = |name: &str| home.path(&format!("kami-data.keys/{name}"));
    // Left by a rotation that was cut short, and by whoever signed.
    for name in ["master.key.previous", "proof.key"] {
        fs::copy(key("master.key"), key(name)).unwrap();
    }
    for name in ["lookup.key", "master.key", "master.key.previous", "ring", "proof.key"] {
        for mode in [0o644, 0o640, 0o602] {
            fs::set_permissions(key(name), fs::Permissions::from_mode(mode)).unwrap();
            let ended = refused(&home, &[]);
            ended.fails(6, "others may read the key file; chmod it to 600 path=");
            assert!(ended.err.contains(name), "{ended:?}");
        }
        fs::set_permissions(key(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
    for name in ["master.key.previous", "proof.key"] {
        fs::remove_file(key(name)).unwrap();
    }
    assert_eq!(home.serve().ready("cards"), 1000);
}

#[test]
fn servers_that_cannot_be_reached_and_identities_that_open_nothing() {
    let home = Home::new();
    let server = home.serve();
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    server.run(&["stats", "--server", &address, "--timeout", "1"]).fails(4, "cannot reach the server");
    server.run(&["stats", "--server", "nonsense"]).fails(2, "HOST:PORT");
    server.run(&["stats", "--identity", "nowhere"]).fails(6, "--identity");
    let failed = server.run(&["stats", "--identity", "nowhere", "--json"]);
    let value: serde_json::Value = serde_json::from_str(&failed.out).unwrap();
    assert_eq!(value["exit"], 6);

    // Another store's admin.
    let other = Home::new();
    drop(other.serve());
    let identity = other.path("kami-data.keys/admin");
    server.run(&["stats", "--identity", identity.to_str().unwrap()]).fails(6, "certificates do not fit");
    // The right authority, but nobody's name: the server's own certificate is no client's.
    server.run(&["stats", "--identity", "kami-data.keys/server"]).fails(6, "certificates do not fit");
    server.run(&["stats", "--server-name", "elsewhere"]).fails(6, "certificates do not fit");
    server.json(&["stats"]);
}

#[test]
fn damage_below_what_was_durable_refuses_to_start_and_names_the_place() {
    let home = stopped_store();
    // A start after a crash completes the last block of the old segment and begins a new one.
    home.serve().stop();
    let log = home.path("kami-data/log");
    let segment = fs::read_dir(&log).unwrap().map(|entry| entry.unwrap().path()).min().unwrap();
    let whole = fs::read(&segment).unwrap();
    // The product's name stands in a record at the log's beginning, after the segment's head.
    let head = kami_wal::format::HEAD_BYTES as usize;
    let place = head + whole[head..].windows(3).position(|bytes| bytes == b"tea").unwrap();
    let mut damaged = whole.clone();
    damaged[place] ^= 1;
    fs::write(&segment, &damaged).unwrap();
    // Without its snapshots the whole log must be read.
    fs::remove_dir_all(home.path("kami-data/snapshots")).unwrap();
    let ended = refused(&home, &[]);
    ended.fails(5, "damaged below its durable end");
    assert!(ended.err.contains("offset=") && ended.err.contains("lsn="), "{ended:?}");
    let verified = home.run(&["verify", "--data", "kami-data"]);
    assert_eq!(verified.code, Some(5), "{verified:?}");
    assert!(verified.out.contains("PROBLEM"), "{verified:?}");
    let inspected = home.run(&["wal", "inspect", "--data", "kami-data"]);
    assert_eq!(inspected.code, Some(5), "{inspected:?}");

    fs::write(&segment, &whole).unwrap();
    let server = home.serve();
    assert_eq!(server.json(&["order", "1"])["count"], 10);
    server.stop();
    let mut store = fs::read(home.path("kami-data/store")).unwrap();
    store[20] ^= 1;
    fs::write(home.path("kami-data/store"), store).unwrap();
    refused(&home, &[]).fails(5, "identity is damaged");
}

/// A start that is refused leaves nothing behind that was not there before.
#[test]
fn a_refused_start_leaves_no_directory_behind() {
    let home = Home::new();
    let left = |home: &Home| -> Vec<String> {
        let names = fs::read_dir(home.path(".")).unwrap().map(|entry| entry.unwrap().file_name());
        names.map(|name| name.into_string().unwrap()).collect()
    };
    home.file("file", "not a directory");
    let serve = |data: &str, keys: &str| {
        home.run(&["serve", "--listen", "127.0.0.1:0", "--data", data, "--keys", keys])
    };
    serve("file", "keys").fails(6, "check the path");
    serve("file/below", "keys").fails(6, "check the path");
    serve("data", "file").fails(6, "check the path");
    serve("data", "file/below").fails(6, "check the path");
    assert_eq!(left(&home), ["file"]);

    // A wrong directory: something else lives there.
    fs::create_dir(home.path("photos")).unwrap();
    home.file("photos/cat.jpg", "miau");
    let ended = serve("photos", "keys");
    ended.fails(6, "is no Kami store and is not empty: found=`cat.jpg`");
    assert!(ended.err.contains("give an empty or a new directory"), "{ended:?}");
    let photos: Vec<_> = fs::read_dir(home.path("photos")).unwrap().collect();
    assert_eq!((photos.len(), home.path("keys").exists()), (1, false));

    // A store whose keys lie elsewhere.
    let home = stopped_store();
    fs::rename(home.path("kami-data.keys"), home.path("keys-elsewhere")).unwrap();
    let ended = refused(&home, &[]);
    ended.fails(6, "a key is missing");
    assert!(ended.err.contains("--keys"), "{ended:?}");
    assert!(!home.path("kami-data.keys").exists());
    assert_eq!(home.try_serve(&["--keys", "keys-elsewhere"]).unwrap().ready("cards"), 1000);

    // A memory file system.
    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    let data = memory.path().join("data");
    let ended = home.run(&["serve", "--listen", "127.0.0.1:0", "--data", data.to_str().unwrap()]);
    ended.fails(6, "does not survive a power cut");
    assert!(ended.err.contains("--unsafe-filesystem"), "{ended:?}");
    assert_eq!(fs::read_dir(memory.path()).unwrap().count(), 0);
}

#[test]
fn a_store_of_another_version_is_refused() {
    let home = stopped_store();
    let path = home.path("kami-data/store");
    let whole = fs::read(&path).unwrap();
    let mut newer = whole.clone();
    newer[8] = 99;
    fs::write(&path, newer).unwrap();
    let ended = refused(&home, &[]);
    ended.fails(5, "made by another version of Kami: version=`99`");
    assert!(ended.err.contains("use the program that made it"), "{ended:?}");
    fs::write(&path, whole).unwrap();
    home.serve().json(&["stats"]);
}

/// `command` as somebody who is not root; `None` where that cannot be done.
pub fn as_nobody(home: &Home) -> Option<Command> {
    // The test's directory is the owner's alone.
    fs::set_permissions(home.path("."), fs::Permissions::from_mode(0o755)).unwrap();
    let nobody = |program: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", program]);
        command.current_dir(home.path("."));
        command
    };
    let program = env!("CARGO_BIN_EXE_kami");
    let works = nobody(program).arg("--version").output().is_ok_and(|output| output.status.success());
    if !works {
        eprintln!("NOT RUN: this needs root, setpriv, and a build directory that others may read");
    }
    works.then(|| nobody(program))
}

#[test]
fn without_the_rights_it_says_which() {
    let home = Home::new();
    let serve = |arguments: &[&str]| {
        let mut command = as_nobody(&home)?;
        Some(Ended::of(command.arg("serve").args(arguments).output().unwrap()))
    };
    let ports = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap_or_default();
    if ports.trim() == "1024"
        && let Some(ended) = serve(&["--data", "d", "--listen", "127.0.0.1:443"])
    {
        ended.fails(6, "Permission denied");
        assert!(ended.err.contains("CAP_NET_BIND_SERVICE"), "{ended:?}");
    }
    let Some(ended) = serve(&["--data", "d", "--listen", "127.0.0.1:0"]) else { return };
    ended.fails(6, "Permission denied");
    assert!(ended.err.contains("path=`d`") && ended.err.contains("permissions"), "{ended:?}");
    assert!(!home.path("d").exists() && !home.path("d.keys").exists());
}

#[test]
fn a_full_disk_refuses_to_start_and_says_so() {
    let home = Home::new();
    fs::create_dir(home.path("small")).unwrap();
    let script = format!(
        "mount -t tmpfs -o size=40m tmpfs small && exec {} serve --unsafe-filesystem --listen 127.0.0.1:0 --data \
         small/data --keys small/keys",
        env!("CARGO_BIN_EXE_kami")
    );
    let run = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script]).current_dir(home.path("."));
        command.output().unwrap()
    };
    if !run("mount -t tmpfs tmpfs small").status.success() {
        eprintln!("NOT RUN: no file system can be mounted here");
        return;
    }
    let ended = Ended::of(run(&script));
    ended.fails(6, "No space left on device");
    assert!(ended.err.contains("make room and start again"), "{ended:?}");
}

/// The wall clock cannot be set in a test, but a time namespace moves the other one: in it the machine has
/// been up for a year longer, and the wall clock has not moved, as if it had been set back.
#[test]
fn a_clock_that_was_set_back_needs_an_operator() {
    let in_a_year = ["--time", "--boottime", "31536000", "--fork"];
    let works = Command::new("unshare").args(in_a_year).arg("true").output();
    if !works.is_ok_and(|output| output.status.success()) {
        eprintln!("NOT RUN: no time namespaces here; the engine's own tests step an injected clock");
        return;
    }
    let home = stopped_store();
    let serve = |more: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(in_a_year).arg(env!("CARGO_BIN_EXE_kami")).args(["serve", "--data", "kami-data"]);
        // Accepted, it goes on to find that it cannot listen there: a server that ends by itself.
        command.args(["--listen", "192.0.2.1:0"]).args(more).current_dir(home.path("."));
        Ended::of(command.output().unwrap())
    };
    let ended = serve(&[]);
    ended.fails(6, "the wall clock stepped");
    assert!(ended.err.contains("--accept-clock"), "{ended:?}");
    serve(&["--accept-clock"]).fails(6, "cannot listen");
    let server = home.serve();
    assert_eq!(server.json(&["order", "1"])["count"], 10);
}
