//! The vfio-user protocol, server side: serves any [`pci::Function`] to a VMM.
//!
//! A VMM connects to a UNIX socket and drives a PCI device over it: it shares its guest's memory by descriptor
//! (DMA_MAP), learns the device's regions and interrupts, reads and writes regions, and installs eventfds for
//! interrupts.
//!
//! ```text
//!             Endpoint (poller: listens, one client at a time, the others wait in the backlog)
//!                │ accept
//!                ▼
//!             Session (poller: one client)
//!  socket ─ recvmsg ─▶ frame ───────▶ request ──────▶ Device ─────▶ pci::Function
//!                      bytes become   every rule that  │  │           read, write, reset, map_changed
//!                      messages       needs no device  │  └▶ Memory    guest_memory::DmaMap
//!  socket ◀─ sendmsg ─ reply ◀─────────────────────────┘  └▶ Irqs      pci::Interrupts
//! ```
//!
//! Nothing here is on the path of a guest's reads and writes: queues and doorbells lie in shared memory, which the
//! function polls, and interrupts go straight to the client's eventfds. What passes through the socket is
//! configuration and trapped register accesses. Those are answered in the pass in which the ring reports the
//! socket: no timer, no polling of the socket.
//!
//! # Rules
//!
//! * The codec ([`wire`], [`frame`], [`version`], [`request`], [`reply`]) does no I/O and knows no device. It is total: any
//!   bytes are a request or an errno.
//! * Requests of a client are carried out and answered in order. One that cannot be answered yet holds back this client's
//!   later ones, nobody else's, and is refused with EBUSY before QEMU would give up the connection
//!   ([`Options::answer_within`]).
//! * DMA_UNMAP is answered when nothing can reach the memory any more ([`guest_memory::Mapping::is_sole_owner`]).
//! * A request is refused with a header-only reply and the session goes on. Only a failed negotiation ends it from our side. A
//!   request that takes no reply gets none, whatever becomes of it.
//! * A client that is gone, at whatever point, leaves nothing behind: its device is drained and dropped with its maps and
//!   descriptors before the next client's is made.
//! * Nothing a client does blocks the reactor: the socket never blocks, output is at most one reply, input at most one
//!   message, descriptors for interrupts must be eventfds, large mappings are unmapped on a thread of their own.
//!
//! Protocol: version 0.1 of the vfio-user specification as published with QEMU (`docs/interop/vfio-user.rst`).
//! Where it leaves room, QEMU 11.1, SPDK's initiator and the `vfio_user` crate decide; the places say so.
//!
//! # What it does not do
//!
//! DMA by message (DMA_READ, DMA_WRITE): memory that comes without a descriptor is accepted and never accessed.
//! Migration (DEVICE_FEATURE, MIG_DATA_*): refused, which every client takes for "absent". MSI, ioeventfds, a second
//! socket for requests of the server. The client side is in `testkit`.
#![forbid(unsafe_code)]

mod connection;
mod device;
mod endpoint;
pub mod frame;
mod masks;
mod memory;
mod rejection;
pub mod reply;
pub mod request;
mod session;
mod tags;
#[cfg(test)]
mod test_fds;
pub mod version;
pub mod wire;

pub use endpoint::{Endpoint, EndpointHandle, Options};
pub use rejection::Rejection;
pub use session::{Factory, FactoryError};
pub use unix_socket::stream as socket;
pub use unix_socket::{ListenError, Listener, MAX_PATH};
