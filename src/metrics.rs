//! The picture of the daemon as Prometheus reads it, over HTTP.
//!
//! ```text
//!  Prometheus ─ GET /metrics ─► server (its own thread) ─ Message ─► Control::telemetry ─► page::render ─► text
//! ```
//! The text is written by hand ([`page`]): crates for it keep live counters of their own, to be bumped where things happen,
//! which here are plain integers of the reactors. The protocol is hyper's. The server is a thread of its own with bounded
//! connections, each of bounded time and size, so whoever talks to it costs the rest of the daemon one look at the counters in
//! 50 ms at most.
//!
//! Names and labels are in docs/METRICS.md. Every label is a name that the operator gave or a word from a fixed list: nothing
//! that a guest says becomes a series. Queues have none of their own; `vtarget_get_telemetry` shows them.

mod address;
mod page;
mod server;

pub(crate) use address::Address;
pub(crate) use server::Listener;
