//! Another process's eventfd, raised without ever waiting for that process.
#![allow(
    unsafe_code,
    reason = "the second place that puts an entry into a ring; it points to nothing"
)]

use std::fmt;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use io_uring::{IoUring, opcode};

/// An eventfd that another process gave us, with a way to raise it that never waits.
///
/// `write` waits while the counter is at its limit, unless the file is non-blocking; and whether it is belongs to the file,
/// which the other process has too: we can neither rely on it nor change it without disturbing its readers. Nor can the
/// file be opened anew (it has no name), nor does an eventfd take `RWF_NOWAIT` for writing.
///
/// What does not wait is the kernel's own `eventfd_signal`, which lets the counter stay at its limit. The cheapest
/// way to it is a ring with the eventfd registered to be told of completions, and an operation that does nothing. Measured
/// against `write` it costs half as much again; asynchronous I/O (`IOCB_FLAG_RESFD`) costs more than twice as much, and asking
/// with `poll` before each write as much as the ring without being safe: the counter may rise between the two.
pub struct Bell {
    /// Whoever raises it may be on any reactor. Where that matters, nobody else does at the same time.
    uring: Mutex<IoUring>,
}

impl Bell {
    /// A bell for `event`. The descriptor itself is not kept; the kernel holds the eventfd while the bell exists.
    ///
    /// # Errors
    /// `EINVAL` if it is no eventfd; whatever keeps a ring from being made.
    pub fn new(event: &OwnedFd) -> std::io::Result<Self> {
        let uring = IoUring::new(1)?;
        uring.submitter().register_eventfd(event.as_raw_fd())?;
        Ok(Self {
            uring: Mutex::new(uring),
        })
    }

    /// Adds one to the eventfd's counter, or leaves it at its limit.
    pub fn ring(&self) {
        let mut uring = self.uring.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: an operation that does nothing refers to no memory.
        let pushed = unsafe { uring.submission().push(&opcode::Nop::new().build()) };
        // It can be full only if the kernel refused an entry before; that one is submitted now and rings as well.
        debug_assert!(pushed.is_ok(), "each entry is submitted at once");
        if let Err(error) = uring.submit() {
            tracing::debug!(%error, "an interrupt could not be raised at once; it comes with the next");
        }
        uring.completion().for_each(drop);
    }
}

impl fmt::Debug for Bell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bell").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
