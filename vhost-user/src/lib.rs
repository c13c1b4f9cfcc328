//! The vhost-user protocol, back-end side: serves any [`virtio::Device`] to a VMM.
//!
//! A VMM connects to a UNIX socket, shares its guest's memory by descriptor, says where the guest's virtqueues lie and gives two
//! eventfds for each: one by which the guest announces work, one by which it is interrupted. It keeps the PCI function and the
//! driver's feature negotiation to itself.
//!
//! ```text
//!             unix_socket::Server (poller: listens, one client at a time, the others wait in the backlog)
//!                │ accept
//!                ▼
//!             Session (poller: one client)
//!  socket ─ recvmsg ─▶ frame ─────▶ request ─────▶ Backend ─────▶ virtio::Device
//!                      bytes become  every rule     │  │  │        start_queue, stop_queue, map_changed, reset
//!                      messages      that needs no  │  │  └▶ Ring     how each queue was described, what it does
//!                                    device         │  └▶ Memory      guest_memory::DmaMap, user addresses ► guest-physical
//!  socket ◀─ sendmsg ─ answer ◀─────────────────────┘
//!  second socket ◀─ Channel: the configuration has changed
//! ```
//!
//! Nothing here is on the path of a guest's reads and writes: the device serves the queues in shared memory, is kicked by the
//! guest's eventfd and interrupts with another. What passes through the socket is answered in the pass in which the ring
//! reports it: no timer, no polling of the socket.
//!
//! # Rules
//!
//! * The codec ([`wire`], [`frame`], [`request`]) does no I/O and knows no device. It is total: any bytes are a request or a refusal.
//! * Requests of a client are carried out in order. One that cannot be answered yet holds back this client's later ones, nobody
//!   else's: rings that end, memory that is still in use, a device that resets.
//! * What a running ring depends on changes only while it does not run: it is stopped, and started again with what is true then. So
//!   the log of writes, a ring's place, its kick and the memory under it can be exchanged at any time. A memory table that leaves a
//!   ring where it is does not stop it.
//! * Memory that was taken away is answered for when nothing can reach it any more ([`guest_memory::Mapping::is_sole_owner`]).
//! * A request that is refused is answered so if both sides agreed on REPLY_ACK; the session goes on. Otherwise the connection is
//!   closed, as the text has it: the front-end would go on as if it had been obeyed. The operator hears why.
//! * A client that is gone, at whatever point, leaves nothing behind: its device is drained and dropped with its maps and
//!   descriptors before the next client's is made. What a killed daemon had in flight is in the region that the front-end keeps
//!   (INFLIGHT_SHMFD) and is done again by the queues themselves.
//! * Nothing a client does blocks the reactor: sockets never block, output is at most one answer, input at most one message, events
//!   must be eventfds, large mappings are unmapped on a thread of their own.
//!
//! # How it differs from others
//!
//! Rings start with SET_VRING_KICK, as in QEMU's own library and DPDK, not with the first kick: what is found in them is served at
//! once, and after a reconnection no kick may ever come. Legacy drivers (no VERSION_1) are served: on a little-endian machine their
//! rings are the same. The wire structures are our own: those of rust-vmm's `vhost` crate are references to aligned memory and
//! bring its memory model along; its front-end is an independent witness in the tests.
//!
//! # What it does not do
//!
//! Translated addresses (IOTLB, ACCESS_PLATFORM), post-copy migration, in-band notifications, host notifiers, cross-endian rings,
//! crypto, network and graphics devices' messages, a device state to migrate: not offered, and refused. SET_LOG_FD is accepted and not
//! used ("optional"). It does not connect to a front-end that listens. The front-end side is in `testkit`.
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
