//! Tags of the session's own events. Those below 2⁶³ are the function's ([`pci::Function::event`]).

/// The client's socket has something to read, or has ended.
pub(crate) const READABLE: u64 = 1 << 63;
/// The client's socket takes more.
pub(crate) const WRITABLE: u64 = READABLE + 1;
/// The held request must be answered.
pub(crate) const DEADLINE: u64 = READABLE + 2;
/// A client that went away has not been drained for long.
pub(crate) const LINGERING: u64 = READABLE + 3;
/// From here on: the client's eventfds that mask or unmask.
pub(crate) const MASKS: u64 = READABLE + (1 << 32);
