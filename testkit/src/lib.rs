//! What tests and measurements need: clients, drivers, a load generator. Development only, but `vtarget bench` shows
//! the load generator to operators too.
//!
//! * [`alloc`]: counts heap allocations.
//! * [`vfio_user`]: a vfio-user client, strict and as rude as asked.
//! * [`vhost_user`]: a vhost-user front-end, likewise.
//! * [`nvme`]: an NVMe driver on top of it.
//! * [`ram`]: a guest's memory, shared with the device.
//! * [`virtio`]: driver-side virtqueues, block requests, and drivers over vfio-user and vhost-user.
//! * [`load`]: keeps queues full and measures.
// Opened in `alloc` only: counting allocations takes a global allocator.
#![deny(unsafe_code)]

pub mod alloc;
pub mod load;
pub mod nvme;
pub mod ram;
pub mod vfio_user;
pub mod vhost_user;
pub mod virtio;
