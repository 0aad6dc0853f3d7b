//! What a service manager is told, through a real socket.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::process::Signal;

use crate::store::Home;

fn heard(socket: &UnixDatagram) -> String {
    let mut bytes = [0; 4096];
    let length = socket.recv(&mut bytes).expect("the manager is told within 30 seconds");
    String::from_utf8(bytes[..length].to_vec()).unwrap()
}

#[test]
fn the_service_manager_is_told_how_the_server_stands() {
    let home = Home::new();
    // A path must be short, so it is not below the target directory.
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let server = home
        .try_serve_with(&[], |command| {
            command.env("NOTIFY_SOCKET", &path);
        })
        .unwrap();
    assert_eq!(heard(&socket), format!("READY=1\nSTATUS=serving on {}", server.address));
    server.signal(Signal::HUP);
    let reloading = heard(&socket);
    assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
    assert!(heard(&socket).starts_with("READY=1\n"));
    assert_eq!(server.stop().code, Some(0));
    assert_eq!(heard(&socket), "STOPPING=1\nSTATUS=draining");
}

#[test]
fn a_watchdog_is_fed_through_an_abstract_socket() {
    let home = Home::new();
    let name = format!("kami-test-{}", std::process::id());
    let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let server = home.try_serve_with(&[], |command| {
        command.env("NOTIFY_SOCKET", format!("@{name}")).env("WATCHDOG_USEC", "200000");
    });
    assert!(heard(&socket).starts_with("READY=1\n"));
    for _ in 0..3 {
        assert_eq!(heard(&socket), "WATCHDOG=1");
    }
    drop(server);
}
