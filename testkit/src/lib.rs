//! What tests and measurements need: clients, drivers, a load generator. Development only, but `vtarget bench` shows
//! the load generator to operators too.
//!
//! * [`alloc`]: counts heap allocations.
//! * [`vfio_user`]: a vfio-user client, strict and as rude as asked.
//! * [`nvme`]: an NVMe driver on top of it.
//! * [`load`]: keeps queues full and measures.
// Opened in `alloc` only: counting allocations takes a global allocator.
#![deny(unsafe_code)]

pub mod alloc;
pub mod load;
pub mod nvme;
pub mod vfio_user;
