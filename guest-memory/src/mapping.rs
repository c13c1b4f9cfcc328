//! One mmap of memory that a client shares.
#![allow(unsafe_code, reason = "creates and removes mappings")]

use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;

use bitflags::bitflags;
use nix::errno::Errno;
use nix::sys::stat::{SFlag, fstat};

use crate::fault::Registration;

bitflags! {
    /// What may be done to a range of memory.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Access: u8 {
        /// The device may read it.
        const READ = 1;
        /// The device may write it.
        const WRITE = 2;
    }
}

/// Why memory could not be mapped.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum MappingError {
    /// Zero length, or offset plus length overflows.
    #[error("the range is empty or wraps")]
    BadRange,
    /// The range reaches beyond the end of the file: touching it would raise SIGBUS.
    #[error("the range ends at {end} but the file has only {size} bytes")]
    BeyondFile {
        /// End of the range asked for, in bytes from the start of the file.
        end: u64,
        /// Size of the file in bytes.
        size: u64,
    },
    /// The system call failed.
    #[error("mmap or fstat failed: {0}")]
    Os(#[from] Errno),
    /// The daemon's table of client mappings is full.
    #[error("more than {max} mappings at once", max = crate::fault::MAX_MAPPINGS)]
    TooMany,
}

impl MappingError {
    /// The errno a protocol answers with.
    #[must_use]
    pub fn errno(&self) -> Errno {
        match self {
            Self::BadRange | Self::BeyondFile { .. } => Errno::EINVAL,
            Self::Os(errno) => *errno,
            Self::TooMany => Errno::ENOSPC,
        }
    }
}

/// One mmap of a client's file, unmapped on drop, protected against truncation (see [`crate::fault`]).
#[derive(Debug)]
pub struct Mapping {
    /// What was mapped: page aligned, at least the range asked for.
    base: *mut u8,
    mapped: usize,
    /// Where the range asked for starts in it, and its length.
    skip: usize,
    len: usize,
    /// `None` only while dropping.
    registration: Option<Registration>,
}

// SAFETY: a mapping is address space without thread affinity; all access to its bytes goes through volatile or atomic copies
// that tolerate concurrent change.
unsafe impl Send for Mapping {}
// SAFETY: as above; no method hands out references into the memory.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len` bytes at `offset` of `fd`, shared. Neither needs any alignment: the mapping is widened to whole (huge)
    /// pages and only the range asked for is handed out.
    ///
    /// # Errors
    /// See [`MappingError`]; a regular file (memfd, tmpfs, hugetlbfs included) must be long enough.
    pub fn from_fd(
        fd: BorrowedFd<'_>,
        offset: u64,
        len: u64,
        access: Access,
    ) -> Result<Self, MappingError> {
        let end = offset.checked_add(len).ok_or(MappingError::BadRange)?;
        let stat = fstat(fd)?;
        let is_file = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG;
        if is_file {
            let size = u64::try_from(stat.st_size).unwrap_or(0);
            if end > size {
                return Err(MappingError::BeyondFile { end, size });
            }
        }
        // hugetlbfs takes only offsets that are multiples of its page size, and reports that size as st_blksize.
        let block = u64::try_from(stat.st_blksize).unwrap_or(0);
        let granule = if is_file && block.is_power_of_two() && block >= crate::PAGE_SIZE as u64 {
            block
        } else {
            crate::PAGE_SIZE as u64
        };
        let start = offset & !(granule - 1);
        let mapped_end = end
            .checked_next_multiple_of(granule)
            .ok_or(MappingError::BadRange)?;
        let mapped = usize::try_from(mapped_end - start).map_err(|_| MappingError::BadRange)?;
        let skip = usize::try_from(offset - start).map_err(|_| MappingError::BadRange)?;
        let len = usize::try_from(len).map_err(|_| MappingError::BadRange)?;
        let file_offset = libc::off_t::try_from(start).map_err(|_| MappingError::BadRange)?;
        if len == 0 {
            return Err(MappingError::BadRange);
        }
        let mut prot = libc::PROT_NONE;
        if access.contains(Access::READ) {
            prot |= libc::PROT_READ;
        }
        if access.contains(Access::WRITE) {
            prot |= libc::PROT_READ | libc::PROT_WRITE;
        }
        // SAFETY: a fresh shared mapping at an address of the kernel's choice touches no memory of ours.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                mapped,
                prot,
                libc::MAP_SHARED | libc::MAP_NORESERVE,
                fd.as_raw_fd(),
                file_offset,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(Errno::last().into());
        }
        // SAFETY: advice on the mapping just made; guest RAM must not land in a core dump of the daemon.
        unsafe { libc::madvise(base, mapped, libc::MADV_DONTDUMP) };
        let Some(registration) = Registration::new(base as usize, mapped) else {
            // SAFETY: exactly the mapping made above, which nobody else knows.
            unsafe { libc::munmap(base, mapped) };
            return Err(MappingError::TooMany);
        };
        Ok(Self {
            base: base.cast(),
            mapped,
            skip,
            len,
            registration: Some(registration),
        })
    }

    /// First byte of the range asked for.
    pub(crate) fn start(&self) -> *mut u8 {
        self.base.wrapping_add(self.skip)
    }

    /// Length of the range in bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a mapping is never empty")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the client truncated the file behind it: its contents are gone for us, and the controller that uses it must fail.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.registration
            .as_ref()
            .is_some_and(Registration::is_poisoned)
    }

    /// Whether this `Arc` is the last one: no map, view, window, or scatter list can reach the memory any more.
    /// Only meaningful for a mapping that has left the current [`crate::DmaMap`] (nobody can then make new ones).
    #[must_use]
    pub fn is_sole_owner(self: &Arc<Self>) -> bool {
        // `get_mut` needs `&mut`; the count can only fall for a retired mapping. Acquire pairs with the release of each drop.
        let sole = Arc::strong_count(self) == 1;
        std::sync::atomic::fence(std::sync::atomic::Ordering::Acquire);
        sole
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // Leave the fault table first: once unmapped, the range may belong to the next mapping.
        self.registration = None;
        // SAFETY: `base..base + mapped` is this object's own mapping; every pointer into it is held together with a
        // lease that keeps this object alive.
        unsafe { libc::munmap(self.base.cast(), self.mapped) };
    }
}

#[cfg(test)]
mod tests;
