//! The server over its real socket, on a real reactor, with a fake device behind it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's helpers fail the test"
)]

mod access;
mod dma;
mod fake;
mod harness;
mod hostile;
mod info;
mod irqs;
mod lifecycle;
mod negotiation;
mod rust_vmm;
