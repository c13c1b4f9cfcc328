//! One thread, one loop, one io_uring.
//!
//! A reactor owns a core's worth of work. Everything on it is single-threaded: pollers are plain structs, reached by
//! nobody else. Other threads send closures ([`ReactorHandle::send`], [`ReactorHandle::call`]) and that is the only way in.
//!
//! ```text
//!  one pass:  messages ─► ring completions ─► Poller::event ─► every Poller::poll ─► at most one io_uring_enter
//!             │                                                  │
//!             │ nothing happened for a while (adaptive mode)     └─ Cx::submit(tag, Op): Op moves into the in-flight
//!             └─► announce sleep ► barrier ► look again ► wait      table and comes back with Event::Complete
//! ```
//!
//! # Memory safety of in-flight I/O
//!
//! [`Cx::submit`] is a safe function because an [`Op`] owns everything the kernel will touch: the scatter list (with its
//! lease on guest memory or its own buffer) and a counted reference to the file. The op sits in a table
//! slot that never moves until the kernel's completion hands it back. If a ring ends with operations in flight, the
//! table is leaked, never freed.
//!
//! # Sleeping
//!
//! [`Mode::Poll`] never sleeps. [`Mode::Adaptive`] spins for a bounded time after the last work, then waits in the ring for
//! bounded, growing times: guests' doorbells are memory, nobody tells us when they change, so the bound is what the
//! first I/O after idleness may wait. A poller that gets all its work by event says so ([`Poller::idle`])
//! and then the wait has no bound. [`Mode::Interrupt`] skips the spin.
//!
//! # What it does not do
//!
//! It knows no device and no protocol. It does not balance: a poller stays where it was added. It never runs anything
//! that may block; helpers do that and send a message.

mod ack;
mod bell;
mod cx;
mod handle;
mod limit;
mod observer;
mod op;
mod placement;
mod poller;
mod reply;
mod ring;
mod sleep;
mod table;
mod thread;
mod ticks;

pub use ack::{Ack, AckReceiver};
pub use bell::Bell;
pub use cx::{Cx, TimerId, WatchId};
pub use handle::{Gone, Pending, ReactorHandle};
pub use limit::LogLimit;
pub use observer::Observer;
pub use op::{FallocateMode, Op, RingFile};
pub use placement::Seat;
pub use poller::{Event, Idle, Poll, Poller, PollerKey};
pub use reply::Reply;
pub use thread::{Config, Mode, PollerInfo, Reactor, ReactorStats, spawn};
pub use ticks::{tick_rate, ticks, ticks_of};
