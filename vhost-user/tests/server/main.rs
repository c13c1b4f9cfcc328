//! The back-end over its real socket, on a real reactor, with a fake device behind it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's helpers fail the test"
)]

mod client;
mod fake;
mod handshake;
mod harness;
mod hostile;
mod inflight;
mod lifecycle;
mod log;
mod memory;
mod rings;
mod rust_vmm;
