//! The driver's side of virtio: rings, block requests, and drivers over both transports.
//!
//! ```text
//!  Ring (split | packed)      descriptors, kicks, used entries; any layout, and raw access for what no honest driver does
//!  blk::Parts                 header, data and status of a block request in any layout
//!  BlkQueue                   requests over a ring: submit ► kick ► poll
//!  BlkDriver<T: Transport>    negotiates, reads the configuration, makes queues
//!    T = pci::VirtioPci       over vfio-user
//!    T = vhost_user::Frontend
//! ```
//! Nothing here knows the `virtio` crate: what the two agree on is the specification alone. A [`Ring`] needs no transport, only a
//! [`GuestRam`](crate::ram::GuestRam) whose memory the device sees. Nothing waits without a bound: see [`PATIENCE`].

pub mod blk;
mod driver;
pub mod pci;
mod queue;
mod ring;

use std::time::Duration;

pub use driver::{BlkDriver, Setup, Transport};
pub(crate) use queue::wait_event;
pub use queue::{BlkQueue, Done, Kick, sectors};
pub use ring::{Areas, Buffer, PackedRing, Ring, SplitRing, Table, Used, When};

use crate::ram::RamError;

/// How long the driver waits for the device.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The guest has no memory for it.
    #[error(transparent)]
    Ram(#[from] RamError),
    /// The device broke a rule.
    #[error("the device broke the protocol: {0}")]
    Protocol(String),
    /// vfio-user failed.
    #[error(transparent)]
    VfioUser(#[from] crate::vfio_user::Error),
    /// vhost-user failed.
    #[error(transparent)]
    VhostUser(#[from] crate::vhost_user::Error),
    /// The system failed.
    #[error("system: {0}")]
    System(#[from] nix::Error),
    /// The device did not accept the features.
    #[error("the device does not accept features {0:#x}")]
    Features(u64),
    /// The device did not do what it should have done within [`PATIENCE`].
    #[error("the device did not {0} within {PATIENCE:?}")]
    TimedOut(&'static str),
    /// A request ended with this status.
    #[error("{request} ended with status {status}")]
    Status {
        /// Which request.
        request: &'static str,
        /// `VIRTIO_BLK_S_*`; 255 if the device has written none.
        status: u8,
    },
}

/// A result of the driver.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn protocol(what: impl Into<String>) -> Self {
        Self::Protocol(what.into())
    }
}
