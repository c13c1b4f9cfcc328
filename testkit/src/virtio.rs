//! The driver's side of virtio: rings, block requests, and drivers over both transports.
//!
//! ```text
//!  Ring (split | packed)      descriptors, kicks, used entries; any layout, and raw access for what no honest driver does
//!  blk::Request               header, data and status of a block request in any layout
//! ```
//! Nothing here knows the `virtio` crate: what the two agree on is the specification alone. A [`Ring`] needs no transport, only a
//! [`GuestRam`](crate::ram::GuestRam) whose memory the device sees.

pub mod blk;
mod ring;

pub use ring::{Areas, Buffer, PackedRing, Ring, SplitRing, Table, Used, When};

use crate::ram::RamError;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The guest has no memory for it.
    #[error(transparent)]
    Ram(#[from] RamError),
    /// The device broke a rule.
    #[error("the device broke the protocol: {0}")]
    Protocol(String),
}

/// A result of the driver.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn protocol(what: impl Into<String>) -> Self {
        Self::Protocol(what.into())
    }
}
