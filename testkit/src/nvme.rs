//! An NVMe driver in user space, over the vfio-user [`Client`](crate::vfio_user::Client): what a guest's kernel does, polled.
//!
//! ```text
//!  Driver: connect ► negotiate ► share memory ► map doorbells ► CC.EN ► Identify ► create queue pairs
//!  QueuePair: SQE into shared memory ► tail doorbell ► look at the phase bit ► CQE ► head doorbell
//! ```
//! A [`QueuePair`] can move to another thread, so that several queues are driven at once. Nothing here waits without a bound:
//! a controller that does not answer within [`PATIENCE`] is an error.

mod driver;
mod prp;
mod queue;

use std::time::Duration;

pub use driver::{Driver, Options};
pub use queue::QueuePair;

pub use crate::ram::{GuestRam, RamError};

/// How long the driver waits for the controller.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The transport failed.
    #[error(transparent)]
    Client(#[from] crate::vfio_user::Error),
    /// The guest has no memory for it.
    #[error(transparent)]
    Ram(#[from] RamError),
    /// The doorbells could not be mapped.
    #[error("the doorbells cannot be mapped: {0}")]
    Doorbells(#[from] guest_memory::MappingError),
    /// The controller did not do what it should have done within [`PATIENCE`].
    #[error("the controller did not {0} within {PATIENCE:?}")]
    TimedOut(&'static str),
    /// CSTS.CFS.
    #[error("the controller reports a fatal status (CSTS {0:#x})")]
    Fatal(u32),
    /// A command ended with an error.
    #[error("{command} ended with {status:?}")]
    Status {
        /// Which command.
        command: &'static str,
        /// How.
        status: nvme_spec::Status,
    },
    /// The controller broke the protocol.
    #[error("the controller broke the protocol: {0}")]
    Protocol(String),
}

/// A result of the driver.
pub type Result<T> = std::result::Result<T, Error>;
