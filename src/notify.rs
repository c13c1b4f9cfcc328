//! What systemd wants to know of a service of `Type=notify` (sd_notify(3)): that it is ready, what it does, that it stops.
//!
//! The protocol is one datagram per message to the socket that `$NOTIFY_SOCKET` names. Without that variable nothing is sent.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The way to the service manager.
#[derive(Debug, Default)]
pub(crate) struct Notify {
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// How often it wants to hear that the daemon is well.
    watchdog: Option<Duration>,
}

impl Notify {
    /// As the environment says.
    pub(crate) fn from_environment() -> Self {
        let Some(name) = std::env::var_os("NOTIFY_SOCKET") else {
            return Self::default();
        };
        let address = match name.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
            _ => SocketAddr::from_pathname(&name),
        };
        let socket = address.and_then(|address| Ok((UnixDatagram::unbound()?, address)));
        let socket = socket
            .inspect_err(|error| tracing::warn!(?name, %error, "NOTIFY_SOCKET cannot be used"))
            .ok();
        let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
        // For a process that this one was started by, if it names another.
        let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|micros| ours && *micros > 0);
        Self {
            socket,
            watchdog: watchdog.map(Duration::from_micros),
        }
    }

    /// Half of the time after which a silent daemon is taken for dead, if there is one: how often to call [`alive`](Self::alive).
    pub(crate) fn interval(&self) -> Option<Duration> {
        self.watchdog.map(|period| period / 2)
    }

    /// Everything is served, as `status` says.
    pub(crate) fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={}", line(status)));
    }

    /// The end has begun.
    pub(crate) fn stopping(&self) {
        self.send("STOPPING=1\nSTATUS=Shutting down: waiting for guests' I/O in flight");
    }

    /// The control thread does its work.
    pub(crate) fn alive(&self) {
        self.send("WATCHDOG=1");
    }

    fn send(&self, message: &str) {
        if let Some((socket, address)) = &self.socket
            && let Err(error) = socket.send_to_addr(message.as_bytes(), address)
        {
            tracing::debug!(%error, "the service manager does not listen");
        }
    }
}

/// A status is one line.
fn line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
