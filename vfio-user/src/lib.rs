//! The vfio-user protocol, server side.
//!
//! A VMM connects to a UNIX socket and drives a PCI device over it: it shares its guest's memory by descriptor
//! (DMA_MAP), learns the device's regions and interrupts, reads and writes regions, and installs eventfds for
//! interrupts.
//!
//! ```text
//! socket ─ recvmsg ─▶ frame::FrameReader ─▶ request::decode ─▶ Request
//!                     (bytes → messages)    (every rule that needs no device)
//! socket ◀─ sendmsg ─ reply::encode ◀───────────────────────── Reply
//! ```
//!
//! The codec ([`wire`], [`frame`], [`version`], [`request`], [`reply`]) does no I/O and holds no device state.
//! None of it is on the path of a guest's reads and writes: queues and doorbells lie in shared memory, and what
//! passes here is configuration.
//!
//! Protocol: version 0.1 of the vfio-user specification as published with QEMU (`docs/interop/vfio-user.rst`).
//! Where it leaves room, QEMU 11.1, SPDK's initiator and the `vfio_user` crate decide; the places say so.
//!
//! Not here: DMA by message (DMA_READ, DMA_WRITE) for memory that comes without a descriptor, migration
//! (DEVICE_FEATURE, MIG_DATA_*; refused, which every client takes for "absent"), and the client side.
#![forbid(unsafe_code)]

mod connection;
mod device;
mod endpoint;
pub mod frame;
mod listener;
mod masks;
mod memory;
mod reaper;
mod rejection;
pub mod reply;
pub mod request;
mod session;
pub mod socket;
mod tags;
#[cfg(test)]
mod test_fds;
pub mod version;
pub mod wire;

pub use endpoint::{Endpoint, EndpointHandle, Options};
pub use listener::{ListenError, Listener, MAX_PATH};
pub use rejection::Rejection;
pub use session::{Factory, FactoryError};
