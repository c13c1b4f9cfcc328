//! An NVMe controller as a PCI function (NVM Express Base 2.0, NVM Command Set 1.0, PCIe transport 1.0).
//!
//! ```text
//!  home reactor                                         any reactor
//!  Controller: pci::Function                            Shard: reactor::Poller (one per controller and reactor)
//!    registers ─► state machine (CC/CSTS)                 mailbox ◄── ToShard ── Controller
//!    admin SQ/CQ ─► admin commands                        │        ── FromShard ►
//!    namespaces, features, logs, AERs                     ├─ MapView (its own)         doorbell page (shared memory)
//!    decides on which reactor a CQ lives                  ├─ Channel per namespace              │
//!                                                         └─ QueueGroup: one CQ + its SQs ◄─────┘
//!                                                              tail ► SQE by value ► validate ► PRP/SGL ► Segments
//!                                                              ► Channel::submit ► … ► CQE in one store ► Vector::signal
//! ```
//! A `QueueGroup` (module `shard`) is the unit of ownership: it stays on its reactor for life, so the hot path has no lock, no
//! allocation, no thread hop. The controller never touches an I/O queue; it sends messages.
//!
//! Where to look: `state` decides what CC, CSTS and resets do, `controller` carries it out and is the PCI function, `admin` executes
//! admin commands, `model` is the controller as plain data, `shards` places queues and speaks to `shard`, which serves them;
//! `messages` is everything the two sides say to each other.
//!
//! What it does not do: fabrics, SR-IOV, a controller memory buffer, persistent memory region.
#![forbid(unsafe_code)]

mod admin;
mod command;
mod config;
mod controller;
mod data;
mod events;
mod handle;
mod history;
mod limit;
mod messages;
mod model;
mod namespace;
mod queue;
mod registers;
mod shard;
mod shards;
mod state;
#[cfg(test)]
mod testing;

pub use config::{ControllerConfig, Masked};
pub use controller::Controller;
pub use events::ControllerEvent;
pub use handle::{ControllerHandle, ControllerSnapshot, NamespaceSnapshot, QueueSnapshot};
pub use history::History;
pub use namespace::{Access, AnaState, Namespace, NamespaceSet};

#[cfg(test)]
#[global_allocator]
static ALLOCATOR: testkit::alloc::CountingAllocator = testkit::alloc::CountingAllocator;
