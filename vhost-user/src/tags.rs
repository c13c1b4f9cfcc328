//! Tags of the session's own events. Those below 2⁶² are the device's ([`virtio::Device::event`]).

/// The client's socket has something to read, or has ended.
pub(crate) const READABLE: u64 = 1 << 62;
/// The client's socket takes more.
pub(crate) const WRITABLE: u64 = READABLE + 1;
/// A removal's grace is over.
pub(crate) const GRACE: u64 = READABLE + 2;
/// A client that went away has not been drained for long.
pub(crate) const LINGERING: u64 = READABLE + 3;
/// The second socket has something to read, or has ended.
pub(crate) const CHANNEL: u64 = READABLE + 4;
