//! The server over its real socket, on a real reactor, with a fake device behind it.

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
