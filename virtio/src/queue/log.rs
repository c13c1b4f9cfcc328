//! The log of guest memory that was written, for a VMM that migrates its guest (vhost-user, "Migration").

use guest_memory::SharedMemory;

/// Bytes of guest memory per bit of the log.
pub const LOG_PAGE: u64 = 4096;

/// A bitmap shared with the VMM, one bit for each page of guest-physical memory. Threads of several queues set bits at once.
#[derive(Clone, Debug)]
pub struct DirtyLog {
    memory: SharedMemory,
}

impl DirtyLog {
    /// A log in memory that the VMM shared.
    #[must_use]
    pub fn new(memory: SharedMemory) -> Self {
        Self { memory }
    }

    /// The bitmap.
    #[must_use]
    pub fn memory(&self) -> &SharedMemory {
        &self.memory
    }
}
