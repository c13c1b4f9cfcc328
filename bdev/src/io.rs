//! One request to a disk.

use guest_memory::Segments;
use nix::errno::Errno;

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoKind {
    /// Disk to memory.
    Read,
    /// Memory to disk.
    Write,
    /// Look whether memory and disk hold the same: [`IoStatus::Miscompare`] if not. Not atomic with anything.
    Compare,
    /// Make all writes completed before this request durable.
    Flush,
    /// The blocks are no longer needed; afterwards they read as zeroes ([`crate::Features::UNMAP_ZEROES`]) or anything.
    Unmap,
    /// The blocks read as zeroes afterwards.
    WriteZeroes,
}

/// A request. Block numbers and counts are in the disk's own blocks.
#[derive(Debug)]
pub struct Io {
    /// What to do.
    pub kind: IoKind,
    /// First block (ignored by `Flush`).
    pub lba: u64,
    /// Number of blocks (ignored by `Flush`).
    pub blocks: u64,
    /// The data of a read, write or compare, exactly `blocks` blocks long; empty otherwise.
    pub segments: Segments,
    /// Complete only when durable (`Write`, `WriteZeroes`, `Unmap`).
    pub fua: bool,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoStatus {
    /// Done.
    Ok,
    /// A compare found a difference.
    Miscompare,
    /// Beyond the end of the disk (which may have shrunk meanwhile).
    OutOfRange,
    /// The disk does not do this.
    Unsupported,
    /// The disk is read-only.
    ReadOnly,
    /// No room left behind a thin disk.
    NoSpace,
    /// The guest's memory was not there when the kernel touched it.
    BadMemory,
    /// Ended unfinished because its user wanted it to end ([`crate::Channel::expedite`]).
    Aborted,
    /// An injected failure: the NVMe status that a guest is to see (Base 2.0c, 4.2.3); other devices say that it failed.
    Nvme {
        /// Status code type.
        sct: u8,
        /// Status code.
        sc: u8,
    },
    /// The disk failed; the cause, for the operator.
    Failed(Errno),
}

/// The cause, for the operator.
impl std::fmt::Display for IoStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ok => f.write_str("no error"),
            Self::Miscompare => f.write_str("a compare found a difference"),
            Self::OutOfRange => f.write_str("beyond the end of the disk"),
            Self::Unsupported => f.write_str("the disk does not do this"),
            Self::ReadOnly => f.write_str("the disk is read-only"),
            Self::NoSpace => f.write_str("no room is left behind the disk"),
            Self::BadMemory => f.write_str("the guest's memory is not there"),
            Self::Aborted => f.write_str("aborted"),
            Self::Nvme { sct, sc } => write!(f, "NVMe status {sct:#x}/{sc:#04x}"),
            Self::Failed(errno) => write!(f, "{errno}"),
        }
    }
}

impl IoStatus {
    /// Whether the disk, or what is below it, is at fault, and not what was asked of it.
    #[must_use]
    pub fn is_disk_error(self) -> bool {
        matches!(self, Self::Failed(_) | Self::NoSpace | Self::Nvme { .. })
    }

    /// The status for an error of the kernel.
    #[must_use]
    pub fn from_errno(errno: Errno) -> Self {
        match errno {
            Errno::ENOSPC | Errno::EDQUOT => Self::NoSpace,
            Errno::EFAULT => Self::BadMemory,
            Errno::EOPNOTSUPP => Self::Unsupported,
            Errno::EROFS => Self::ReadOnly,
            other => Self::Failed(other),
        }
    }
}
