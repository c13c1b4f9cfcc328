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

    /// Marks the pages of `addr..addr + len` as written: page `addr / 4096` is bit `addr / 4096 % 8` of byte `addr / 4096 / 8`.
    /// Called after the write. Pages beyond the log's end are beyond the guest's memory and not marked.
    ///
    /// A bit that is set already is set again: the VMM may clear it and copy the page while the write before is still on its way,
    /// and only the atomic operation orders the two.
    pub fn mark(&self, addr: u64, len: u64) {
        let Some(last) = len.checked_sub(1).map(|more| addr.saturating_add(more)) else {
            return;
        };
        let end = (self.memory.len() as u64).saturating_mul(8);
        let mut page = addr / LOG_PAGE;
        let last = (last / LOG_PAGE).min(end.saturating_sub(1));
        while page <= last {
            let byte = page / 8;
            let from = page % 8;
            let to = if last / 8 == byte { last % 8 } else { 7 };
            let bits = (0xff_u8 << from) & (0xff >> (7 - to));
            // Below the memory's length, which fits.
            self.memory
                .or_u8(usize::try_from(byte).unwrap_or(usize::MAX), bits);
            page = (byte + 1) * 8;
        }
    }
}

#[cfg(test)]
mod tests;
