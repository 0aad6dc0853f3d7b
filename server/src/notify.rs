//! Tells a service manager how the server stands, by the protocol of systemd's `sd_notify`: lines of
//! `NAME=value` in a datagram to the socket that `NOTIFY_SOCKET` names. Without the variable nothing is
//! said; a message that cannot be sent changes nothing for the server.

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The way to the service manager, if there is one.
pub struct Notify(Option<(UnixDatagram, SocketAddr)>);

impl Notify {
    /// As the environment says.
    pub fn of_environment() -> Notify {
        Notify(std::env::var_os("NOTIFY_SOCKET").and_then(|name| socket(&name)))
    }

    /// Requests are answered.
    pub fn ready(&self, status: &str) {
        self.say(&format!("READY=1\nSTATUS={status}"));
    }

    /// What can be reloaded is being reloaded; [`Notify::ready`] ends it.
    pub fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let us = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1000;
        self.say(&format!("RELOADING=1\nMONOTONIC_USEC={us}"));
    }

    /// The server is being taken down.
    pub fn stopping(&self) {
        self.say("STOPPING=1\nSTATUS=draining");
    }

    /// It is alive.
    pub fn alive(&self) {
        self.say("WATCHDOG=1");
    }

    /// How often [`Notify::alive`] is to be called: twice as often as demanded.
    pub fn alive_every(&self) -> Option<Duration> {
        self.0.as_ref()?;
        let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
        let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        number("WATCHDOG_USEC").filter(|us| ours && *us > 1).map(|us| Duration::from_micros(us / 2))
    }

    fn say(&self, message: &str) {
        if let Some((socket, manager)) = &self.0
            && let Err(error) = socket.send_to_addr(message.as_bytes(), manager)
        {
            tracing::debug!(%error, "the service manager was not told");
        }
    }
}

/// A path, or a name in the abstract name space, which begins with `@`.
fn socket(name: &OsStr) -> Option<(UnixDatagram, SocketAddr)> {
    let manager = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        _ => SocketAddr::from_pathname(name),
    };
    let socket = UnixDatagram::unbound().ok()?;
    // A manager that does not read must not hold the server up.
    socket.set_nonblocking(true).ok()?;
    Some((socket, manager.ok()?))
}
