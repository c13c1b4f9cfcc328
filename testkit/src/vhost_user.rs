//! A vhost-user front-end: what a VMM does, for tests and for the load generator.
//!
//! [`Frontend`] negotiates, shares its guest's memory, sets rings up and is a [`Transport`](crate::virtio::Transport), so that a
//! [`BlkDriver`](crate::virtio::BlkDriver) runs over it. Below it lies [`Wire`]: messages with any field forged, bytes and
//! descriptors in any pieces.
//!
//! Numbers and layouts are written down here once more, from the protocol's text: a test that shared them with the back-end would
//! not notice a wrong one.

mod frontend;
mod wire;

use std::io;
use std::time::Duration;

pub use frontend::{Frontend, Inflight, Options, protocol};
pub use wire::{Answer, Wire, backend_code, code};

/// How long the front-end waits for the back-end before it gives up.
pub const TIMEOUT: Duration = Duration::from_secs(20);

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// REPLY_ACK said so.
    #[error("the back-end refused request {0}")]
    Refused(u32),
    /// The back-end broke the protocol.
    #[error("the back-end broke the protocol: {0}")]
    Protocol(String),
    /// The back-end closed the connection.
    #[error("the back-end closed the connection")]
    Closed,
    /// The back-end did not answer within [`TIMEOUT`].
    #[error("the back-end did not answer within {TIMEOUT:?}")]
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
    pub(crate) fn protocol(what: impl Into<String>) -> Self {
        Self::Protocol(what.into())
    }
}

/// A result of the front-end.
pub type Result<T> = std::result::Result<T, Error>;
