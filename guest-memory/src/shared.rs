//! Memory that we make and share: the doorbell page, and the memory of test guests.
#![allow(unsafe_code, reason = "volatile and atomic access to a shared mapping")]

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::ftruncate;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::access;
use crate::mapping::{Access, Mapping, MappingError};

/// A memfd (or somebody's file) mapped shared; clones are the same memory. Accesses out of range answer `None`/`false`.
#[derive(Clone, Debug)]
pub struct SharedMemory {
    fd: Arc<OwnedFd>,
    file_offset: u64,
    mapping: Arc<Mapping>,
}

impl SharedMemory {
    /// Makes `len` zero bytes named `name` (seen in /proc/PID/maps), sealed against resizing: whoever gets the descriptor
    /// cannot truncate it under us.
    ///
    /// # Errors
    /// What `memfd_create`, `ftruncate`, `fcntl` or `mmap` report.
    pub fn new(name: &CStr, len: usize) -> Result<Self, MappingError> {
        Self::new_at(name, 0, len)
    }

    /// As [`SharedMemory::new`] but the memory begins at `file_offset` of its descriptor. What lies before is never touched
    /// and so takes no memory. For peers that find an area at the same offset in the descriptor as in its region.
    ///
    /// # Errors
    /// As [`SharedMemory::new`].
    pub fn new_at(name: &CStr, file_offset: u64, len: usize) -> Result<Self, MappingError> {
        let size = file_offset
            .checked_add(len as u64)
            .ok_or(MappingError::BadRange)?;
        let fd = make(name, size)?;
        let seals = SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL;
        fcntl(&fd, FcntlArg::F_ADD_SEALS(seals))?;
        Self::from_fd(fd, file_offset, len as u64)
    }

    /// As [`SharedMemory::new`] but whoever has the descriptor may truncate it: guest memory in tests.
    ///
    /// # Errors
    /// As [`SharedMemory::new`].
    pub fn new_unsealed(name: &CStr, len: usize) -> Result<Self, MappingError> {
        Self::from_fd(make(name, len as u64)?, 0, len as u64)
    }

    /// Maps `len` bytes at `offset` of somebody's file for reading and writing.
    ///
    /// # Errors
    /// See [`Mapping::from_fd`].
    pub fn from_fd(fd: OwnedFd, offset: u64, len: u64) -> Result<Self, MappingError> {
        let mapping = Mapping::from_fd(fd.as_fd(), offset, len, Access::READ | Access::WRITE)?;
        Ok(Self {
            fd: Arc::new(fd),
            file_offset: offset,
            mapping: Arc::new(mapping),
        })
    }

    /// The descriptor to pass to a peer.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Where the memory begins in the descriptor, in bytes.
    #[must_use]
    pub fn file_offset(&self) -> u64 {
        self.file_offset
    }

    /// The mapping, to build a [`crate::Region`] from.
    #[must_use]
    pub fn mapping(&self) -> &Arc<Mapping> {
        &self.mapping
    }

    /// Length in bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.mapping.len()
    }

    #[inline]
    fn at(&self, offset: usize, len: usize) -> Option<*mut u8> {
        (offset.checked_add(len)? <= self.mapping.len())
            .then(|| self.mapping.start().wrapping_add(offset))
    }

    #[inline]
    fn aligned(&self, offset: usize, size: usize) -> Option<*mut u8> {
        self.at(offset, size)
            .filter(|host| (*host as usize).is_multiple_of(size))
    }

    /// Loads a `u8` with acquire ordering; 0 if out of range.
    #[inline]
    #[must_use]
    pub fn load_u8(&self, offset: usize) -> u8 {
        match self.aligned(offset, 1) {
            // SAFETY: inside the mapping that `self` keeps alive, and aligned.
            Some(host) => unsafe { access::load_u8_acquire(host) },
            None => 0,
        }
    }

    /// Stores a `u8` with release ordering; nothing happens out of range.
    #[inline]
    pub fn store_u8(&self, offset: usize, value: u8) {
        if let Some(host) = self.aligned(offset, 1) {
            // SAFETY: inside the mapping that `self` keeps alive, and aligned.
            unsafe { access::store_u8_release(host, value) };
        }
    }

    /// Loads a 2-aligned `u16` with acquire ordering; 0 if out of range or unaligned.
    #[inline]
    #[must_use]
    pub fn load_u16(&self, offset: usize) -> u16 {
        match self.aligned(offset, 2) {
            // SAFETY: inside the mapping that `self` keeps alive, and aligned.
            Some(host) => unsafe { access::load_u16_acquire(host) },
            None => 0,
        }
    }

    /// Stores a 2-aligned `u16` with release ordering; nothing happens out of range or unaligned.
    #[inline]
    pub fn store_u16(&self, offset: usize, value: u16) {
        if let Some(host) = self.aligned(offset, 2) {
            // SAFETY: inside the mapping that `self` keeps alive, and aligned.
            unsafe { access::store_u16_release(host, value) };
        }
    }

    /// Loads a 4-aligned `u32` with acquire ordering; 0 if out of range or unaligned.
    #[inline]
    #[must_use]
    pub fn load_u32(&self, offset: usize) -> u32 {
        match self.aligned(offset, 4) {
            // SAFETY: inside the mapping that `self` keeps alive, and aligned.
            Some(host) => unsafe { access::load_u32_acquire(host) },
            None => 0,
        }
    }

    /// Stores a 4-aligned `u32` with release ordering; nothing happens out of range or unaligned.
    #[inline]
    pub fn store_u32(&self, offset: usize, value: u32) {
        if let Some(host) = self.aligned(offset, 4) {
            // SAFETY: inside the mapping that `self` keeps alive, and aligned.
            unsafe { access::store_u32_release(host, value) };
        }
    }

    /// Loads a 8-aligned `u64` with acquire ordering; 0 if out of range or unaligned.
    #[inline]
    #[must_use]
    pub fn load_u64(&self, offset: usize) -> u64 {
        match self.aligned(offset, 8) {
            // SAFETY: inside the mapping that `self` keeps alive, and aligned.
            Some(host) => unsafe { access::load_u64_acquire(host) },
            None => 0,
        }
    }

    /// Stores a 8-aligned `u64` with release ordering; nothing happens out of range or unaligned.
    #[inline]
    pub fn store_u64(&self, offset: usize, value: u64) {
        if let Some(host) = self.aligned(offset, 8) {
            // SAFETY: inside the mapping that `self` keeps alive, and aligned.
            unsafe { access::store_u64_release(host, value) };
        }
    }

    /// Sets bits of a byte in one atomic operation, leaving the others to whoever else sets or clears them; nothing happens out of
    /// range.
    #[inline]
    pub fn or_u8(&self, offset: usize, bits: u8) {
        if let Some(host) = self.at(offset, 1) {
            // SAFETY: inside the mapping that `self` keeps alive.
            unsafe { access::or_u8(host, bits) };
        }
    }

    /// Copies a value out.
    #[inline]
    #[must_use]
    pub fn read<T: FromBytes + IntoBytes>(&self, offset: usize) -> Option<T> {
        let host = self.at(offset, size_of::<T>())?;
        let mut value = T::new_zeroed();
        // SAFETY: `at` checked the range.
        unsafe { access::copy(value.as_mut_bytes().as_mut_ptr(), host, size_of::<T>()) };
        Some(value)
    }

    /// Copies a value in; `false` if out of range.
    #[inline]
    pub fn write<T: IntoBytes + Immutable>(&self, offset: usize, value: &T) -> bool {
        self.write_slice(offset, value.as_bytes())
    }

    /// Fills `out`; `false` if out of range.
    #[inline]
    #[must_use]
    pub fn read_slice(&self, offset: usize, out: &mut [u8]) -> bool {
        let Some(host) = self.at(offset, out.len()) else {
            return false;
        };
        // SAFETY: `at` checked the range; `out` is borrowed mutably.
        unsafe { access::copy(out.as_mut_ptr(), host, out.len()) };
        true
    }

    /// Copies `data` in; `false` if out of range.
    #[inline]
    pub fn write_slice(&self, offset: usize, data: &[u8]) -> bool {
        let Some(host) = self.at(offset, data.len()) else {
            return false;
        };
        // SAFETY: `at` checked the range.
        unsafe { access::copy(host, data.as_ptr(), data.len()) };
        true
    }

    /// Writes zeroes over everything.
    pub fn zero(&self) {
        // SAFETY: exactly the mapping that `self` keeps alive.
        unsafe { access::zero(self.mapping.start(), self.mapping.len()) };
    }
}

impl AsFd for SharedMemory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd()
    }
}

/// A memfd of `size` zero bytes.
fn make(name: &CStr, size: u64) -> Result<OwnedFd, MappingError> {
    let fd = memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
    ftruncate(&fd, libc::off_t::try_from(size).map_err(|_| Errno::EFBIG)?)?;
    Ok(fd)
}

#[cfg(test)]
mod tests;
