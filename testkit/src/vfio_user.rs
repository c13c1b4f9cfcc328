//! A vfio-user client for tests and for the load generator: synchronous, strict, and as rude as asked.
//!
//! [`Client`] does what a VMM does: negotiate, share memory, query, access regions, install eventfds. It waits for
//! each reply and takes none that the protocol does not allow (wrong id, command, type or size, descriptors that
//! were not called for), so a server's slips show up as [`Error::Protocol`].
//!
//! Below it lies [`Wire`]: messages with any field forged, bytes and descriptors in any pieces, replies read raw.
//!
//! A server that does not answer fails the test after [`TIMEOUT`] instead of hanging it.

mod client;
mod info;
mod wire;

use std::io;
use std::time::Duration;

use nix::errno::Errno;

pub use client::{Agreed, Client, MapFlags, Proposal, dma_map_message};
pub use info::{DeviceInfo, IrqInfo, RegionInfo};
pub use wire::{Reply, Wire};

/// How long the client waits for the server before it gives up.
pub const TIMEOUT: Duration = Duration::from_secs(20);

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server answered with this errno.
    #[error("the server refused: {0}")]
    Refused(Errno),
    /// The server broke the protocol.
    #[error("the server broke the protocol: {0}")]
    Protocol(String),
    /// The server closed the connection.
    #[error("the server closed the connection")]
    Closed,
    /// The server did not answer within [`TIMEOUT`].
    #[error("the server did not answer within {TIMEOUT:?}")]
    TimedOut,
    /// The socket failed.
    #[error("socket: {0}")]
    Io(#[source] io::Error),
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Self::Closed,
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::TimedOut,
            _ => Self::Io(error),
        }
    }
}

impl Error {
    /// The errno of a refusal.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused(errno) => Some(*errno),
            _ => None,
        }
    }

    pub(crate) fn protocol(what: impl Into<String>) -> Self {
        Self::Protocol(what.into())
    }
}

/// A result of the client.
pub type Result<T> = std::result::Result<T, Error>;

#[cfg(test)]
mod tests;
