//! Memory that belongs to other processes, and how the target may touch it.
//!
//! A VMM shares guest RAM by file descriptor. This crate maps it, finds guest-physical addresses (IOVAs) in it,
//! copies to and from it, and hands out scatter lists that the kernel may fill. It is the first of the two crates
//! of the workspace that contain `unsafe` (the other is `reactor`, for the ring).
//!
//! ```text
//!  DMA_MAP ──► Mapping (one mmap, fault-registered) ─┐
//!                                                    ├─► DmaMap (immutable, epoch n, Arc) ─► MapView (one per shard)
//!  DMA_UNMAP ─► DmaMap (epoch n+1), old one retires ─┘                                        │
//!        PRP/SGL entries ── MapView::push ──► Segments (scatter list + lease on epoch n) ◄────┤
//!        queue rings ────── MapView::window ► Window  (ring + lease on epoch n)  ◄────────────┘
//! ```
//!
//! # The rules
//!
//! * Nothing here returns `&T` or `&[u8]` over shared memory: the peer may write it at any time. Values are copied
//!   out once and then belong to us, so a double fetch is impossible by type.
//! * Whoever holds a [`Segments`] or a [`Window`] holds a *lease*: the memory behind it stays mapped until the lease is
//!   dropped, whatever the client unmaps meanwhile. A lease is a thread-local reference count (`Rc`), so the
//!   hot path pays no atomic operation; the `Rc` in turn holds the `Arc` of its [`DmaMap`].
//! * A retired region is quiescent when the last [`DmaMap`] that holds its [`Mapping`] is gone: whoever retired it keeps one
//!   `Arc<Mapping>` and waits until [`Mapping::is_sole_owner`] says that nobody else does. No acknowledgement
//!   protocol has to be believed for memory safety.
//! * A client that truncates the file behind its memory does not take the daemon down: the first access beyond the
//!   new end raises `SIGBUS`, the handler puts private zero pages over the whole mapping, marks it *poisoned* and
//!   execution goes on (module [`fault`]). Owners compare [`fault::count`] once per pass and fail their controller.
//!
//! # What it does not do
//!
//! It knows no device, no queue format and no protocol; it opens no files; it never blocks.

mod access;
pub mod fault;
mod host;
mod map;
mod mapping;
pub mod reaper;
mod segments;
mod shared;
mod view;

pub use host::{HostBuffer, SharedRam};
pub use map::{DmaMap, MapError, Region};
pub use mapping::{Access, Mapping, MappingError};
pub use segments::{INLINE_SEGMENTS, Segments};
pub use shared::SharedMemory;
pub use view::{Fault, MapView, Window};

/// Size of a page of host memory on the supported machines, in bytes.
pub const PAGE_SIZE: usize = 4096;
