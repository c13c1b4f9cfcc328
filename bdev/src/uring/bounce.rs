//! Buffers of our own, for requests that the kernel cannot take as they are.

use guest_memory::HostBuffer;

/// Bytes moved by one step of a bounced request; a longer request takes several steps with the same buffer.
pub(super) const BUFFER: usize = 128 << 10;
/// Buffers in use at once: with all of them out, a channel answers "full".
pub(super) const MOST: usize = 16;
/// Buffers kept while none is in use. As long as some are, all stay: their users come in crowds.
const KEPT: usize = 2;

/// A channel's buffers. They exist while needed and no longer, apart from a few.
#[derive(Debug, Default)]
pub(super) struct Pool {
    free: Vec<HostBuffer>,
    out: usize,
}

impl Pool {
    /// A buffer of [`BUFFER`] bytes with anything in it; `None` when all are in use.
    pub(super) fn take(&mut self) -> Option<HostBuffer> {
        if self.out == MOST {
            return None;
        }
        self.out += 1;
        Some(self.free.pop().unwrap_or_else(|| HostBuffer::new(BUFFER)))
    }

    /// Takes a buffer back.
    pub(super) fn give(&mut self, buffer: HostBuffer) {
        self.out = self.out.saturating_sub(1);
        self.free.push(buffer);
        if self.out == 0 {
            self.free.truncate(KEPT);
        }
    }

    #[cfg(test)]
    pub(super) fn out(&self) -> usize {
        self.out
    }
}
