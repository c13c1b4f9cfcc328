//! Memory of our own: bounce buffers and RAM disks.
#![allow(unsafe_code, reason = "allocates aligned memory and maps RAM disks")]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};

use nix::errno::Errno;

use crate::segments::{COMPARE_CHUNK, Segments};
use crate::{PAGE_SIZE, access};

/// A page-aligned, zeroed buffer that one owner holds. Used where guest memory cannot take part directly: unaligned
/// buffers under direct I/O, the disk side of a compare.
pub struct HostBuffer {
    base: *mut u8,
    len: usize,
}

// SAFETY: exclusively owned heap memory.
unsafe impl Send for HostBuffer {}

impl std::fmt::Debug for HostBuffer {
    /// The length only: it holds guests' data.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostBuffer")
            .field("len", &self.len)
            .finish()
    }
}

impl HostBuffer {
    fn layout(len: usize) -> Layout {
        Layout::from_size_align(len.max(1), PAGE_SIZE).unwrap_or(Layout::new::<u8>())
    }

    /// A zeroed buffer of `len` bytes.
    #[must_use]
    pub fn new(len: usize) -> Self {
        let layout = Self::layout(len);
        // SAFETY: the layout's size is not zero.
        let base = unsafe { alloc_zeroed(layout) };
        if base.is_null() {
            handle_alloc_error(layout);
        }
        Self { base, len }
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the buffer has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn as_ptr(&self) -> *const u8 {
        self.base
    }

    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: `len` initialised bytes that this object owns; while the kernel writes them the buffer is inside a
        // `Segments` in the ring's table, out of reach of this method.
        unsafe { std::slice::from_raw_parts(self.base, self.len) }
    }

    /// The bytes, for writing.
    #[must_use]
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as `as_slice`, and `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.base, self.len) }
    }
}

impl Drop for HostBuffer {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout.
        unsafe { dealloc(self.base, Self::layout(self.len)) };
    }
}

/// A RAM disk's memory: anonymous, zero at the start, shared by all reactors without locks.
///
/// Concurrent access to the same bytes gives a mixture, as on a disk; ordering is the guest's affair. Huge pages are asked
/// for by `madvise` (worth about 10 %), never required.
#[derive(Debug)]
pub struct SharedRam {
    base: *mut u8,
    len: usize,
}

// SAFETY: the memory is only accessed through volatile copies that tolerate concurrent change; the mapping lives as long as
// the object and moves with it.
unsafe impl Send for SharedRam {}
// SAFETY: as above; no method hands out references into the memory.
unsafe impl Sync for SharedRam {}

impl SharedRam {
    /// Reserves `len` bytes of zeroes; pages are taken when first written.
    ///
    /// # Errors
    /// `EINVAL` for zero, `ENOMEM` and the like from `mmap`.
    pub fn new(len: usize) -> Result<Self, Errno> {
        if len == 0 {
            return Err(Errno::EINVAL);
        }
        // SAFETY: a fresh private anonymous mapping.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        // SAFETY: advice on the mapping just made.
        unsafe {
            libc::madvise(base, len, libc::MADV_HUGEPAGE);
            libc::madvise(base, len, libc::MADV_DONTDUMP);
        }
        Ok(Self {
            base: base.cast(),
            len,
        })
    }

    /// Length in bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.len
    }

    #[inline]
    fn at(&self, offset: u64, len: usize) -> Option<*mut u8> {
        let offset = usize::try_from(offset).ok()?;
        (offset.checked_add(len)? <= self.len).then(|| self.base.wrapping_add(offset))
    }

    /// Copies `list.len()` bytes at `offset` into `list`. `false` (and nothing done) if out of range.
    #[inline]
    #[must_use]
    pub fn read(&self, offset: u64, list: &Segments) -> bool {
        let Some(memory) = self.at(offset, list.len()) else {
            return false;
        };
        // SAFETY: `at` checked the range; a list never overlaps a RAM disk (it is guest memory or a host buffer).
        unsafe { list.copy_raw::<true>(memory) };
        true
    }

    /// Copies `list` to `offset`. `false` (and nothing done) if out of range.
    #[inline]
    #[must_use]
    pub fn write(&self, offset: u64, list: &Segments) -> bool {
        let Some(memory) = self.at(offset, list.len()) else {
            return false;
        };
        // SAFETY: as in `read`.
        unsafe { list.copy_raw::<false>(memory) };
        true
    }

    /// As [`SharedRam::write`], and meanwhile claims the cache lines at `next`, where the next write will go (any value: it is
    /// only a hint).
    #[inline]
    #[must_use]
    pub fn write_ahead(&self, offset: u64, list: &Segments, next: u64) -> bool {
        let Some(memory) = self.at(offset, list.len()) else {
            return false;
        };
        // Beyond the end there is nothing of ours to claim; the own lines are harmless.
        let ahead = self.at(next, list.len()).unwrap_or(memory);
        // SAFETY: as in `read`.
        unsafe { list.copy_out_ahead(memory, ahead) };
        true
    }

    /// Whether `list` holds what is at `offset`; `None` if out of range.
    #[must_use]
    pub fn matches(&self, offset: u64, list: &Segments) -> Option<bool> {
        let memory = self.at(offset, list.len())?;
        let mut copy = [0; COMPARE_CHUNK];
        let mut skip = 0;
        while skip < list.len() {
            let piece = &mut copy[..COMPARE_CHUNK.min(list.len() - skip)];
            // SAFETY: `at` checked `list.len()` bytes, of which this is a piece; `copy` is our own.
            unsafe { access::copy(piece.as_mut_ptr(), memory.wrapping_add(skip), piece.len()) };
            if !list.matches(skip, piece) {
                return Some(false);
            }
            skip += piece.len();
        }
        Some(true)
    }

    /// Writes `len` zero bytes at `offset`, keeping the pages. `false` if out of range.
    #[inline]
    #[must_use]
    pub fn clear(&self, offset: u64, len: u64) -> bool {
        let Some((memory, len)) = usize::try_from(len)
            .ok()
            .and_then(|len| Some((self.at(offset, len)?, len)))
        else {
            return false;
        };
        // SAFETY: `at` checked the range.
        unsafe { access::zero(memory, len) };
        true
    }

    /// Makes `len` bytes at `offset` zero; whole pages inside are given back to the system. `false` if out of range.
    ///
    /// Takes time in proportion to the pages: for long ranges see [`SharedRam::zero_edges`].
    #[must_use]
    pub fn zero(&self, offset: u64, len: u64) -> bool {
        let Some((first, pages)) = self.zero_edges(offset, len) else {
            return false;
        };
        if pages == 0 {
            return true;
        }
        let Some(at) = self.pages(first, pages) else {
            return false;
        };
        // SAFETY: `pages` checked that the range is ours; MADV_DONTNEED on private anonymous memory makes it read as zero.
        let given_back = unsafe { libc::madvise(at, pages as usize, libc::MADV_DONTNEED) };
        given_back == 0 || self.clear(first, pages)
    }

    /// Makes the two ends of `len` bytes at `offset` zero, up to the whole pages between them; these, as (offset, length), are
    /// left for an `MADV_DONTNEED` on [`SharedRam::pages`]. `None` if out of range.
    #[must_use]
    pub fn zero_edges(&self, offset: u64, len: u64) -> Option<(u64, u64)> {
        let page = PAGE_SIZE as u64;
        let end = offset.checked_add(len)?;
        self.at(offset, usize::try_from(len).ok()?)?;
        // The mapping starts at a page, so offsets and addresses agree on where pages begin.
        let first = offset.next_multiple_of(page);
        let last = end / page * page;
        if first >= last {
            return self.clear(offset, len).then_some((offset, 0));
        }
        let cleared = self.clear(offset, first - offset) && self.clear(last, end - last);
        cleared.then_some((first, last - first))
    }

    /// The address of `len` bytes at `offset`, both whole pages, for the kernel to give back.
    #[must_use]
    pub fn pages(&self, offset: u64, len: u64) -> Option<*mut libc::c_void> {
        let len = usize::try_from(len).ok()?;
        let at = self.at(offset, len)?;
        let whole = (at as usize | len).is_multiple_of(PAGE_SIZE);
        whole.then_some(at.cast())
    }

    /// Brings the first `lines` cache lines at `offset` closer; nothing happens out of range.
    #[inline]
    pub fn prefetch(&self, offset: u64, lines: usize) {
        if let Some(memory) = self.at(offset, lines * 64) {
            for line in 0..lines {
                access::prefetch_read(memory.wrapping_add(line * 64));
            }
        }
    }

    /// As [`SharedRam::prefetch`], announcing writes.
    #[inline]
    pub fn prefetch_for_write(&self, offset: u64, lines: usize) {
        if let Some(memory) = self.at(offset, lines * 64) {
            for line in 0..lines {
                access::prefetch_write(memory.wrapping_add(line * 64));
            }
        }
    }
}

impl Drop for SharedRam {
    fn drop(&mut self) {
        // SAFETY: this object's own mapping; nothing else keeps pointers into it.
        unsafe { libc::munmap(self.base.cast(), self.len) };
    }
}

#[cfg(test)]
mod tests;
