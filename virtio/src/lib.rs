//! virtio-blk over block devices (VIRTIO 1.3), for transports over PCI and vhost-user.
//!
//! ```text
//!  home reactor                                             any reactor
//!  VirtioPci: pci::Function ─┐                              Worker: reactor::Poller (one per device and reactor)
//!  (or vhost-user's session) ├─► Device ◄── messages ──►      │
//!    features, status,       │   Blk: config space,           ├─ MapView, Channel (its own)
//!    queue addresses, reset  │   which reactor a queue        └─ queue: Ring (split | packed)
//!                            │   lives on                          take ► Chain ► check all ► Segments
//!                                                                  ► Channel::submit ► … ► status byte, put ► interrupt
//! ```
//!
//! [`Device`] is the seam: a transport drives any device model through it and no model knows its transport. A queue stays on its
//! reactor from start to stop, so its path has no lock, no allocation and no thread hop.
//!
//! Rules of the rings ([`Ring`]): a chain is checked whole before any effect. A driver that breaks the rules gets
//! DEVICE_NEEDS_RESET and is not read again before a reset; a request that is merely wrong gets its status.
//!
//! What it does not do: legacy and transitional devices, administration queues, shared memory regions, zoned disks.
#![forbid(unsafe_code)]

mod blk;
mod device;
mod pci;
mod queue;
mod worker;

pub use ::pci::{InterruptKind, Interrupts};
pub use blk::{
    Blk, BlkConfig, BlkEvent, BlkHandle, BlkSnapshot, Coalescing, MAX_QUEUES, QueueInfo,
};
pub use device::{Device, DeviceEvent, Inflight, Interrupt, Kick, QueueSetup, RingState};
pub use pci::{VirtioPci, VirtioPciConfig};
pub use queue::{
    Buffer, Chain, DirtyLog, Head, LOG_PAGE, MAX_BUFFERS, Packed, RING_FEATURES, Ring, RingError,
    Split, Virtqueue, inflight_size,
};

#[cfg(test)]
#[global_allocator]
static ALLOCATOR: testkit::alloc::CountingAllocator = testkit::alloc::CountingAllocator;
