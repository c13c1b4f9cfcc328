//! Operations for the ring. Each owns all memory and files that the kernel touches on its behalf.

use std::cell::RefCell;
use std::os::fd::AsFd;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;

use guest_memory::{Segments, SharedRam};

/// A file registered with this reactor's ring (no reference count is taken per operation in the kernel). Clones are
/// cheap and thread-bound; the last one leaves the registration, and the file closes when all its owners are gone.
#[derive(Clone, Debug)]
pub struct RingFile(pub(crate) Rc<RingFileInner>);

#[derive(Debug)]
pub(crate) struct RingFileInner {
    pub(crate) index: u32,
    pub(crate) fd: Arc<OwnedFd>,
    pub(crate) released: Rc<RefCell<Vec<u32>>>,
}

impl RingFile {
    /// The descriptor, for control operations.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.fd.as_fd()
    }
}

impl Drop for RingFileInner {
    fn drop(&mut self) {
        self.released.borrow_mut().push(self.index);
    }
}

/// What `fallocate` is to do. Works on files and on block devices (there the kernel turns it into the device's own
/// commands); runs in the kernel's workers, never on the reactor's thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FallocateMode {
    /// Deallocate: the range reads as zeroes and takes no space.
    PunchHole,
    /// The range reads as zeroes and stays allocated where the file system can.
    ZeroRange,
}

/// An operation.
#[derive(Debug)]
pub enum Op {
    /// Read `segments.len()` bytes at `offset` of `file` into `segments`.
    Read {
        /// From where.
        file: RingFile,
        /// Position in bytes.
        offset: u64,
        /// To where.
        segments: Segments,
    },
    /// Write `segments` at `offset` of `file`.
    Write {
        /// To where.
        file: RingFile,
        /// Position in bytes.
        offset: u64,
        /// From where.
        segments: Segments,
        /// `RWF_DSYNC`: complete only when the data is durable (FUA).
        durable: bool,
    },
    /// Make everything written to `file` durable (`fdatasync`).
    Fdatasync {
        /// Which file.
        file: RingFile,
    },
    /// Deallocate or zero a range.
    Fallocate {
        /// Which file.
        file: RingFile,
        /// What to do.
        mode: FallocateMode,
        /// Position in bytes.
        offset: u64,
        /// Length in bytes.
        len: u64,
    },
    /// Give pages of a RAM disk back to the system; they read as zeroes afterwards (`MADV_DONTNEED`). Runs in the kernel's
    /// workers, since it takes time in proportion to the pages.
    Release {
        /// Whose pages.
        ram: Arc<SharedRam>,
        /// Position in bytes: whole pages.
        offset: u64,
        /// Length in bytes: whole pages, at most [`Op::MAX_RELEASE`].
        len: u64,
    },
    /// Tell a block device that it may forget a range (`BLOCK_URING_CMD_DISCARD`); what it reads as afterwards is the
    /// device's affair. Linux 6.12 or later, `EOPNOTSUPP` before and on files.
    Discard {
        /// Which device.
        file: RingFile,
        /// Position in bytes.
        offset: u64,
        /// Length in bytes.
        len: u64,
    },
    /// Nothing, until a time has come: what holds a request back on purpose (a rate limit, a delay) lets it end like any
    /// other, by a completion with its tag. The kernel never sees it.
    Wait {
        /// When it ends, in ticks ([`crate::ticks()`]); a time that has passed is the next pass.
        until: u64,
    },
}

impl Op {
    /// Most bytes of one [`Op::Release`]: what its 32-bit length can say, and short enough for others to get a turn.
    pub const MAX_RELEASE: u64 = 1 << 30;

    /// The scatter list of a read or write.
    #[must_use]
    pub fn into_segments(self) -> Option<Segments> {
        match self {
            Self::Read { segments, .. } | Self::Write { segments, .. } => Some(segments),
            Self::Fdatasync { .. }
            | Self::Fallocate { .. }
            | Self::Discard { .. }
            | Self::Release { .. }
            | Self::Wait { .. } => None,
        }
    }
}
