//! The vhost-user protocol, back-end side: serves any [`virtio::Device`] to a VMM.
#![forbid(unsafe_code)]

mod backend;
mod channel;
mod connection;
mod endpoint;
pub mod frame;
mod inflight;
mod memory;
mod refusal;
pub mod request;
mod ring;
mod session;
mod tags;
pub mod wire;

pub use endpoint::{Endpoint, EndpointHandle, Options, QueueInfo, SessionInfo};
pub use refusal::Refusal;
pub use session::{Factory, FactoryError};
pub use unix_socket::{ListenError, Listener, MAX_PATH};
