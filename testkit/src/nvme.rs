//! An NVMe driver in user space, over the vfio-user [`Client`](crate::vfio_user::Client): what a guest's kernel does, polled.
//!
//! ```text
//!  Driver: connect ► negotiate ► share memory ► map doorbells ► CC.EN ► Identify ► create queue pairs
//!  QueuePair: SQE into shared memory ► tail doorbell ► look at the phase bit ► CQE ► head doorbell
//! ```
//! A [`QueuePair`] can move to another thread, so that several queues are driven at once. Nothing here waits without a bound:
//! a controller that does not answer within [`PATIENCE`] is an error.

mod driver;
mod memory;
mod queue;

use std::time::Duration;

pub use driver::{Driver, Options};
pub use memory::GuestRam;
pub use queue::QueuePair;

/// How long the driver waits for the controller.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The transport failed.
    #[error(transparent)]
    Client(#[from] crate::vfio_user::Error),
    /// Memory could not be made or mapped.
    #[error("guest memory: {0}")]
    Memory(#[from] guest_memory::MappingError),
    /// The guest's memory is used up.
    #[error("the guest has no {0} bytes left")]
    OutOfMemory(usize),
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
